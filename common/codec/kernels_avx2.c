/*
 * kernels_avx2.c - the kernels for CPUs with AVX2 and without what kernels_avx512.c asks for.
 *
 * The same ideas as there, on two registers of eight lanes. There is no compress and no expand here; what lanes take or give
 * is moved by permutations that 256 entries of a table hold, one for each mask. Compressed words end where they have to end, and what is
 * stored below them is written over by what comes next.
 */
#include "base/tpd.h"

#include "codec/kernels.h"

#include "codec/kernels_internal.h"

#if defined(__AVX2__)

#include <immintrin.h>
#include <string.h>

#include "codec/classes_kernel.h"
#include "codec/grid_kernel.h"
#include "codec/internal.h"
#include "codec/planes_kernel.h"
#include "codec/low_rank_kernel.h"
#include "codec/predict_kernel.h"
#include "codec/rans_avx2.h"
#include "codec/scaled_kernel.h"
#include "codec/stats_internal.h"
#include "codec/step_kernel.h"
#include "codec/vector_avx2.h"

VECTOR_INLINE __m256i coarse_g(const struct tpd_grid_type type, const struct grid_step *step, __m256i magnitude, __m256i *out_inside)
{
	__m256 value = _mm256_mul_ps(_mm256_castsi256_ps(left(magnitude, 23 - type.mantissa)), _mm256_set1_ps(step->scale));

	*out_inside = _mm256_cmpgt_epi32(set(step->limit), magnitude);
	return choose_lanes(_mm256_sub_epi32(magnitude, set(step->base)), _mm256_cvttps_epi32(value), *out_inside);
}

VECTOR_INLINE __m256i told_by(const struct tpd_grid_type type, const struct grid_step *step, __m256i g)
{
	__m256i bits = _mm256_castps_si256(_mm256_cvtepi32_ps(g));

	return _mm256_add_epi32(right(bits, 23 - type.mantissa), set((int32_t)step->raise));
}

VECTOR_INLINE void encode_half(const struct tpd_grid_type type, const struct grid_step *step, __m256i x, __m256i p, __m256i *out_symbols,
			       __m256i *out_values, __m256i *out_bits)
{
	const __m256i zero = _mm256_setzero_si256();
	__m256i magnitude = magnitude_of(type, x), inside, p_inside, g, g_p, d, values, bits, nothing, coded, equal, silent;

	g = coarse_g(type, step, magnitude, &inside);
	g_p = coarse_g(type, step, magnitude_of(type, p), &p_inside);
	d = wrapped(type, _mm256_sub_epi32(_mm256_xor_si256(g, sign_of(type, x)), _mm256_xor_si256(g_p, sign_of(type, p))));
	d = _mm256_add_epi32(d, set(TPD_SYMBOL_MIDDLE));
	coded = _mm256_andnot_si256(_mm256_cmpgt_epi32(d, set(255)), _mm256_cmpgt_epi32(d, set(TPD_SYMBOL_FIRST - 1)));
	equal = _mm256_cmpeq_epi32(x, p);
	silent = _mm256_or_si256(equal, _mm256_cmpeq_epi32(x, zero));
	nothing = _mm256_cmpeq_epi32(g, zero);
	bits = _mm256_sub_epi32(set((int32_t)step->t), right(magnitude, type.mantissa));
	bits = choose_lanes(bits, set(step->below_bits), nothing);
	values = _mm256_sub_epi32(magnitude, _mm256_andnot_si256(nothing, told_by(type, step, g)));
	values = choose_lanes(x, _mm256_and_si256(values, inside), coded);
	bits = choose_lanes(set((int32_t)type.width), _mm256_and_si256(bits, inside), coded);
	*out_values = _mm256_andnot_si256(silent, values);
	*out_bits = _mm256_andnot_si256(silent, bits);
	d = _mm256_andnot_si256(silent, _mm256_and_si256(d, coded));
	d = _mm256_or_si256(d, _mm256_and_si256(silent, set(TPD_SYMBOL_ZERO)));
	*out_symbols = choose_lanes(d, set(TPD_SYMBOL_EQUAL), equal);
}

VECTOR_INLINE void encode_rounds(const struct tpd_grid_type type, unsigned t, const uint8_t *x, const uint8_t *p, size_t n,
				 const struct tpd_prefetch *soon, uint8_t *symbols, uint32_t *values, uint8_t *bits)
{
	const struct grid_step step = step_of(type, t);
	const size_t width = type.width / 8;

	for (size_t i = 0; i < n; i += TPD_LANES) {
		const uint8_t *new = x + i * width, *old = p + i * width;
		__m256i these[2], value[2], bit[2];
		struct block_pad pad;

		prefetch_of(soon, i);
		if (n - i < TPD_LANES) {
			pad_block(type, new, n - i, pad.x);
			pad_block(type, old, n - i, pad.p);
			new = pad.x;
			old = pad.p;
		}
		for (unsigned h = 0; h < 2; h++) {
			encode_half(type, &step, load(type, new + h * HALF * width), load(type, old + h * HALF * width), &these[h],
				    &value[h], &bit[h]);
			store_256(values + i + h * HALF, value[h]);
		}
		_mm_storeu_si128((__m128i *)(void *)(bits + i), narrow(bit[0], bit[1]));
		_mm_storeu_si128((__m128i *)(void *)pad.symbols, narrow(these[0], these[1]));
		if (n - i < TPD_LANES)
			memcpy(symbols + i, pad.symbols, n - i);
		else
			memcpy(symbols + i, pad.symbols, TPD_LANES);
	}
}

static void grid_encode(enum tpd_dtype dtype, unsigned t, const uint8_t *x, const uint8_t *p, size_t n, const struct tpd_prefetch *soon,
			uint8_t *symbols, uint32_t *values, uint8_t *bits)
{
	if (dtype == TPD_DTYPE_F32 && t > TYPE_F32.mantissa)
		encode_rounds(TYPE_F32, t, x, p, n, soon, symbols, values, bits);
	else if (dtype == TPD_DTYPE_BF16 && t > TYPE_BF16.mantissa)
		encode_rounds(TYPE_BF16, t, x, p, n, soon, symbols, values, bits);
	else if (dtype == TPD_DTYPE_F16 && t > TYPE_F16.mantissa)
		encode_rounds(TYPE_F16, t, x, p, n, soon, symbols, values, bits);
	else
		tpd_kernels_scalar.grid_encode(dtype, t, x, p, n, soon, symbols, values, bits);
}

/* --- predictions --- */

#include "codec/predict_avx2.h"

/* --- the remainder stream --- */

/* A half round, its words stored below `out`; returns where they begin. */
VECTOR_INLINE uint8_t *push_half(const uint32_t *values, const uint8_t *bits, __m256i *held, __m256i *count, uint8_t *out)
{
	__m256i value = load_256(values), n = permutation(bits), both = _mm256_add_epi32(*count, n), word, open;
	__m256i full = _mm256_cmpgt_epi32(both, set(31));
	unsigned mask = mask_of(full);

	*count = _mm256_and_si256(both, set(31));
	word = _mm256_or_si256(_mm256_sllv_epi32(*held, _mm256_sub_epi32(n, *count)), _mm256_srlv_epi32(value, *count));
	open = _mm256_andnot_si256(_mm256_sllv_epi32(set(-1), *count), value);
	*held = choose_lanes(_mm256_or_si256(_mm256_sllv_epi32(*held, n), value), open, full);
	store_256(out - 4 * HALF, _mm256_permutevar8x32_epi32(word, permutation(tables.to_top[mask])));
	return out - 4 * (size_t)__builtin_popcount(mask);
}

static uint8_t *fields_pack(const uint32_t *values, const uint8_t *bits, size_t rounds, uint8_t *end)
{
	__m256i held[2], count[2];
	uint8_t *out = end;

	for (unsigned h = 0; h < 2; h++)
		held[h] = count[h] = _mm256_setzero_si256();
	for (size_t r = 0; r < rounds; r++)
		for (unsigned h = 0; h < 2; h++)
			count[h] = _mm256_sub_epi32(count[h], permutation(bits + r * TPD_LANES + h * HALF));
	for (unsigned h = 0; h < 2; h++)
		count[h] = _mm256_and_si256(count[h], set(31));
	for (size_t r = rounds; r-- > 0;)
		for (unsigned h = 2; h-- > 0;)
			out = push_half(values + r * TPD_LANES + h * HALF, bits + r * TPD_LANES + h * HALF, &held[h], &count[h], out);
	out -= 4;
	tpd_put_u32(out, (uint32_t)((size_t)(end - out) / 4 - 1));
	return out;
}

VECTOR_INLINE __m256i decode_half(const struct tpd_grid_type type, const struct grid_step *step, __m256i p, __m256i symbols, __m256i *held,
				  __m256i *count, const uint8_t **next, __m256i *wrong)
{
	const __m256i zero = _mm256_setzero_si256();
	__m256i inside, coded, equal, nothing, small, q, g, told, n, value, magnitude, inner, bad;

	g = coarse_g(type, step, magnitude_of(type, p), &inside);
	q = _mm256_add_epi32(_mm256_xor_si256(g, sign_of(type, p)), _mm256_sub_epi32(symbols, set(TPD_SYMBOL_MIDDLE)));
	q = wrapped(type, q);
	g = _mm256_xor_si256(q, right_signed(q, 31));
	coded = _mm256_cmpgt_epi32(symbols, set(TPD_SYMBOL_FIRST - 1));
	equal = _mm256_cmpeq_epi32(symbols, set(TPD_SYMBOL_EQUAL));
	nothing = _mm256_cmpeq_epi32(g, zero);
	small = _mm256_cmpgt_epi32(set(1 << type.mantissa), g);
	told = _mm256_castps_si256(_mm256_cvtepi32_ps(g));
	n = _mm256_and_si256(small, _mm256_sub_epi32(set((int32_t)type.mantissa + 127), right(told, 23)));
	n = _mm256_and_si256(coded, choose_lanes(n, set(step->below_bits), nothing));
	n = choose_lanes(n, set((int32_t)type.width), _mm256_cmpeq_epi32(symbols, zero));
	value = pull_half(held, count, n, next);
	inner = _mm256_add_epi32(right(told, 23 - type.mantissa), set((int32_t)step->raise));
	inner = _mm256_add_epi32(_mm256_andnot_si256(nothing, inner), value);
	magnitude = choose_lanes(_mm256_add_epi32(g, set(step->base)), inner, small);
	bad = _mm256_and_si256(nothing, _mm256_cmpgt_epi32(value, set((int32_t)step->below - 1)));
	bad = _mm256_or_si256(bad, _mm256_and_si256(magnitude, set((int32_t)(UINT32_MAX << (type.width - 1)))));
	*wrong = _mm256_or_si256(*wrong, _mm256_and_si256(bad, coded));
	magnitude = _mm256_or_si256(magnitude, _mm256_and_si256(q, set((int32_t)(UINT32_C(1) << (type.width - 1)))));
	value = choose_lanes(value, magnitude, coded);
	return choose_lanes(value, p, equal);
}

struct lanes {
	__m256i held[2], count[2], wrong;
};

/* A round of any kind, of n elements. */
VECTOR_INLINE void decode_any(const struct tpd_grid_type type, const struct grid_step *step, const uint8_t *p, const uint8_t *symbols, size_t n,
			      uint8_t *out, struct tpd_fields_in *fields, struct lanes *lanes)
{
	const size_t width = type.width / 8;
	const bool is_part = n < TPD_LANES;
	const uint8_t *next;
	struct block_pad pad;
	__m256i x[2];

	if (is_part) {
		pad_block(type, p, n, pad.p);
		memset(pad.symbols, TPD_SYMBOL_EQUAL, TPD_LANES);
		memcpy(pad.symbols, symbols, n);
		p = pad.p;
		symbols = pad.symbols;
	}
	tpd_fields_prepare(fields);
	next = fields->next;
	for (unsigned h = 0; h < 2; h++)
		x[h] = decode_half(type, step, load(type, p + h * HALF * width), permutation(symbols + h * HALF), &lanes->held[h],
				   &lanes->count[h], &next, &lanes->wrong);
	fields->next = next;
	store_halves(type, is_part ? pad.x : out, x[0], x[1]);
	if (is_part)
		memcpy(out, pad.x, n * width);
}

/* Not inlined: what it needs in registers would cost the others. */
static __attribute__((noinline)) void decode_any_of(enum tpd_dtype dtype, const struct grid_step *step, const uint8_t *p, const uint8_t *symbols,
						    size_t n, uint8_t *out, struct tpd_fields_in *fields, struct lanes *lanes)
{
	if (dtype == TPD_DTYPE_F32)
		decode_any(TYPE_F32, step, p, symbols, n, out, fields, lanes);
	else if (dtype == TPD_DTYPE_BF16)
		decode_any(TYPE_BF16, step, p, symbols, n, out, fields, lanes);
	else
		decode_any(TYPE_F16, step, p, symbols, n, out, fields, lanes);
}

/* The pattern as a float, as coarse_g() has it, but with its sign. */
VECTOR_INLINE __m256 signed_float(const struct tpd_grid_type type, __m256i x)
{
	if (type.mantissa != 10)
		return _mm256_castsi256_ps(left(x, 32 - type.width));
	return _mm256_castsi256_ps(_mm256_and_si256(right_signed(left(x, 16), 3), set((int32_t)0x8fffe000)));
}

/* Half of a round in which every symbol tells a d, and every G is below 2^M; next as for pull_half(). */
VECTOR_INLINE __m256i decode_plain(const struct tpd_grid_type type, const struct grid_step *step, __m256i q, __m256i g, __m256i *held,
				   __m256i *count, const uint8_t **next, __m256i *wrong)
{
	__m256i nothing = _mm256_cmpeq_epi32(g, _mm256_setzero_si256()), told = _mm256_castps_si256(_mm256_cvtepi32_ps(g)), n, value;

	n = _mm256_sub_epi32(set((int32_t)type.mantissa + 127), right(told, 23));
	value = pull_half(held, count, choose_lanes(n, set(step->below_bits), nothing), next);
	told = _mm256_add_epi32(right(told, 23 - type.mantissa), set((int32_t)step->raise));
	*wrong = _mm256_or_si256(*wrong, _mm256_and_si256(nothing, _mm256_cmpgt_epi32(value, set((int32_t)step->below - 1))));
	value = _mm256_add_epi32(_mm256_andnot_si256(nothing, told), value);
	return _mm256_or_si256(value, _mm256_and_si256(q, set((int32_t)(UINT32_C(1) << (type.width - 1)))));
}

/* As with AVX-512: nearly all rounds are plain ones, and a reference beyond the grid comes out beyond it. */
VECTOR_INLINE bool decode_rounds(const struct tpd_grid_type type, enum tpd_dtype dtype, unsigned t, const uint8_t *p, const uint8_t *symbols,
				 size_t n, const struct tpd_prefetch *soon, uint8_t *out, struct tpd_fields_in *fields)
{
	const struct grid_step step = step_of(type, t);
	const size_t width = type.width / 8;
	const uint8_t *next = fields->next, *const end = fields->end;
	struct lanes lanes;
	__m256i held[2], count[2], wrong = _mm256_setzero_si256();
	size_t i = 0;

	for (unsigned h = 0; h < 2; h++) {
		held[h] = load_256(fields->acc + h * HALF);
		count[h] = load_256(fields->bits + h * HALF);
	}
	lanes.wrong = wrong;
	for (; i + TPD_LANES <= n && (size_t)(end - next) >= 4 * TPD_LANES; i += TPD_LANES) {
		__m128i these = load_128(symbols + i);
		unsigned special = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_min_epu8(these, _mm_set1_epi8(TPD_SYMBOL_FIRST - 1)), these));
		__m256i q[2], g[2], x[2];

		if (soon)
			prefetch_of(soon, i);
		else
			ahead(p + i * width);
		for (unsigned h = 0; h < 2; h++) {
			__m256i old = load(type, p + i * width + h * HALF * width);

			q[h] = _mm256_add_epi32(permutation(symbols + i + h * HALF), set(-TPD_SYMBOL_MIDDLE));
			q[h] = _mm256_add_epi32(q[h], sign_of(type, old));
			q[h] = _mm256_add_epi32(q[h], _mm256_cvttps_epi32(_mm256_mul_ps(signed_float(type, old), _mm256_set1_ps(step.scale))));
			g[h] = _mm256_xor_si256(q[h], right_signed(q[h], 31));
		}
		special |= mask_of(_mm256_cmpgt_epi32(_mm256_or_si256(g[0], g[1]), set((1 << type.mantissa) - 1)));
		if (__builtin_expect(special, 0)) {
			memcpy(lanes.held, held, sizeof held);
			memcpy(lanes.count, count, sizeof count);
			fields->next = next;
			decode_any_of(dtype, &step, p + i * width, symbols + i, TPD_LANES, out + i * width, fields, &lanes);
			memcpy(held, lanes.held, sizeof held);
			memcpy(count, lanes.count, sizeof count);
			next = fields->next;
			continue;
		}
		for (unsigned h = 0; h < 2; h++)
			x[h] = decode_plain(type, &step, q[h], g[h], &held[h], &count[h], &next, &wrong);
		store_halves(type, out + i * width, x[0], x[1]);
	}
	fields->next = next;
	memcpy(lanes.held, held, sizeof held);
	memcpy(lanes.count, count, sizeof count);
	for (; i < n && fields->next <= fields->end; i += TPD_LANES)
		decode_any_of(dtype, &step, p + i * width, symbols + i, n - i, out + i * width, fields, &lanes);
	for (unsigned h = 0; h < 2; h++) {
		store_256(fields->acc + h * HALF, lanes.held[h]);
		store_256(fields->bits + h * HALF, lanes.count[h]);
	}
	wrong = _mm256_or_si256(wrong, lanes.wrong);
	return fields->next <= fields->end && _mm256_testz_si256(wrong, wrong);
}

static bool grid_decode(enum tpd_dtype dtype, const uint8_t *steps, const struct tpd_pieces *pieces, const uint8_t *p, const uint8_t *symbols,
			const struct tpd_prefetch *soon, uint8_t *out, struct tpd_fields_in *fields)
{
	const size_t width = tpd_dtype_width(dtype), count = tpd_piece_count(pieces);
	bool valid = true;

	for (size_t i = 0; valid && i < count; i++) {
		const size_t start = tpd_piece_start(pieces, i), n = tpd_piece_start(pieces, i + 1) - start;
		const uint8_t *from = p + start * width, *these = symbols + start;
		uint8_t *to = out + start * width;
		const unsigned t = steps[i];

		if (dtype == TPD_DTYPE_F32 && t > TYPE_F32.mantissa)
			valid = decode_rounds(TYPE_F32, dtype, t, from, these, n, soon, to, fields);
		else if (dtype == TPD_DTYPE_BF16 && t > TYPE_BF16.mantissa)
			valid = decode_rounds(TYPE_BF16, dtype, t, from, these, n, soon, to, fields);
		else if (dtype == TPD_DTYPE_F16 && t > TYPE_F16.mantissa)
			valid = decode_rounds(TYPE_F16, dtype, t, from, these, n, soon, to, fields);
		else
			valid = tpd_kernels_scalar.grid_decode(dtype, steps + i, &(struct tpd_pieces){n, n, n}, from, these, soon, to, fields);
	}
	return valid;
}

/* --- a T for each element --- */

#include "codec/scaled_avx2.h"

/* --- T of a piece --- */

VECTOR_INLINE __m256 widened_vector(const struct tpd_grid_type type, __m256i x)
{
	__m256i magnitude = left(magnitude_of(type, x), 23 - type.mantissa);

	if (type.mantissa == 10)
		magnitude = _mm256_add_epi32(magnitude, _mm256_and_si256(_mm256_cmpgt_epi32(magnitude, set(0x0f800000 - 1)),
									   set(0x70000000)));
	return _mm256_castsi256_ps(_mm256_or_si256(magnitude, left(right(x, type.width - 1), 31)));
}

VECTOR_INLINE __m256i exponents_of(const struct tpd_grid_type type, __m256i new, __m256i old)
{
	__m256 difference = _mm256_sub_ps(widened_vector(type, new), widened_vector(type, old));
	__m256i exponent;

	if (type.mantissa == 10)
		difference = _mm256_mul_ps(difference, _mm256_set1_ps(0x1p112f));
	exponent = _mm256_and_si256(right(_mm256_castps_si256(difference), 23), set(255));
	return _mm256_or_si256(exponent, _mm256_and_si256(_mm256_cmpeq_epi32(new, old), set(TPD_EXPONENT_NONE)));
}

static unsigned count_up_to(const uint8_t *bytes, size_t n, uint8_t most)
{
	const __m256i limit = _mm256_set1_epi8((char)most);
	unsigned count = 0;

	for (size_t i = 0; i < n; i += 32) {
		__m256i v = load_256(bytes + i);

		count += (unsigned)__builtin_popcount((unsigned)_mm256_movemask_epi8(_mm256_cmpeq_epi8(_mm256_min_epu8(v, limit), v)));
	}
	return count;
}

VECTOR_INLINE unsigned choose(const struct tpd_grid_type type, const uint8_t *x, const uint8_t *p, size_t n, unsigned bias)
{
	uint8_t exponents[TPD_ROW_MAX];
	const size_t width = type.width / 8, whole = (n + 31) / 32 * 32;

	memset(exponents + whole - 32, TPD_EXPONENT_NONE, 32);
	for (size_t i = 0; i < n; i += TPD_LANES) {
		const uint8_t *new = x + i * width, *old = p + i * width;
		struct block_pad pad;

		if (n - i < TPD_LANES) { /* what is padded is equal */
			pad_block(type, new, n - i, pad.x);
			pad_block(type, old, n - i, pad.p);
			new = pad.x;
			old = pad.p;
		}
		_mm_storeu_si128((__m128i *)(void *)(exponents + i),
				 narrow(exponents_of(type, load(type, new), load(type, old)),
					exponents_of(type, load(type, new + HALF * width), load(type, old + HALF * width))));
	}
	return tpd_grid_t_of_counts(&type, exponents, whole, count_up_to, bias);
}

static unsigned choose_t(enum tpd_dtype dtype, const uint8_t *x, const uint8_t *p, size_t n, unsigned bias)
{
	switch (dtype) {
	case TPD_DTYPE_F32:
		return choose(TYPE_F32, x, p, n, bias);
	case TPD_DTYPE_BF16:
		return choose(TYPE_BF16, x, p, n, bias);
	default:
		return choose(TYPE_F16, x, p, n, bias);
	}
}

/* --- bytes --- */

/* Two tables for pshufb: the upper half of a byte tells a bit, the lower which of them are missing; `upper` has those from 128 on. */
struct missing_bytes {
	__m256i lower, upper;
};

static struct missing_bytes missing_of(const uint32_t counts[256])
{
	uint8_t bits[2][16] = {{0}};

	for (unsigned s = 0; s < 256; s++)
		bits[s >> 7][s & 15] |= (uint8_t)((counts[s] == 0) << (s >> 4 & 7));
	return (struct missing_bytes){_mm256_broadcastsi128_si256(load_128(bits[0])), _mm256_broadcastsi128_si256(load_128(bits[1]))};
}

/* Bits where these bytes are missing; pshufb gives 0 where the sign bit of a place is set. */
VECTOR_INLINE __m256i find_missing(const struct missing_bytes *missing, __m256i these)
{
	const __m256i bits = _mm256_set1_epi64x((long long)UINT64_C(0x8040201008040201));
	const __m256i place = _mm256_and_si256(these, _mm256_set1_epi8((char)0x8f));
	const __m256i row = _mm256_or_si256(_mm256_shuffle_epi8(missing->lower, place),
					    _mm256_shuffle_epi8(missing->upper, _mm256_xor_si256(place, _mm256_set1_epi8((char)0x80))));

	return _mm256_and_si256(row, _mm256_shuffle_epi8(bits, _mm256_and_si256(right(these, 4), _mm256_set1_epi8(15))));
}

static size_t count_bytes(const uint8_t *symbols, size_t n, uint32_t counts[256])
{
	struct missing_bytes missing;
	size_t sum = 0;

	if (n <= TPD_COUNT_ALL_MAX)
		return tpd_count_bytes(symbols, n, counts);
	tpd_count_sample(symbols, n, counts);
	missing = missing_of(counts);
	for (size_t i = 0; i + 64 <= n; i += 64) {
		const __m256i a = find_missing(&missing, load_256(symbols + i)), b = find_missing(&missing, load_256(symbols + i + 32));

		if (__builtin_expect(_mm256_testz_si256(_mm256_or_si256(a, b), set(-1)), 1))
			continue;
		for (unsigned j = 0; j < 64; j++)
			counts[symbols[i + j]] += counts[symbols[i + j]] == 0;
		missing = missing_of(counts);
	}
	for (unsigned s = 0; s < 256; s++)
		sum += counts[s];
	return sum;
}

static size_t find_changes(const uint8_t *x, const uint8_t *p, size_t n, unsigned width, uint32_t *places)
{
	return tpd_find_changes_from(x, p, 0, n, width, places);
}

void tpd_kernels_avx2_prepare(void)
{
	for (unsigned mask = 0; mask < 256; mask++) {
		unsigned count = (unsigned)__builtin_popcount(mask), seen = 0;

		for (unsigned lane = 0; lane < HALF; lane++) {
			tables.expand[mask][lane] = (uint8_t)seen;
			for (unsigned b = 0; b < 2; b++)
				tables.words_expand[mask][2 * lane + b] = mask >> lane & 1 ? (uint8_t)(2 * seen + b) : 0x80;
			if (!(mask >> lane & 1))
				continue;
			tables.to_top[mask][HALF - count + seen] = (uint8_t)lane;
			for (unsigned b = 0; b < 2; b++)
				tables.words_to_top[mask][2 * (HALF - count + seen) + b] = (uint8_t)(2 * lane + b);
			seen++;
		}
	}
	scaled_prepare();
}

const struct tpd_kernels tpd_kernels_avx2 = {
	.name = "avx2",
	.choose_t = choose_t,
	.grid_encode = grid_encode,
	.grid_decode = grid_decode,
	.fields_pack = fields_pack,
	.predict = vector_predict,
	.predict_learn = vector_learn,
	.predict_ratio = predict_ratio,
	.predict_difference = predict_difference,
	.predict_apply = vector_apply,
	.predict_products = predict_products,
	.low_rank_square = low_rank_square,
	.low_rank_project = low_rank_project,
	.low_rank_products = low_rank_products,
	.low_rank_add = low_rank_add,
	.scaled_scale = scaled_scale,
	.scaled_predict = scaled_predict,
	.scaled_steps = scaled_steps,
	.scaled_quotients = scaled_quotients,
	.scaled_far = scaled_far,
	.scaled_learn = scaled_learn,
	.scaled_measure = scaled_measure,
	.scaled_columns = scaled_columns,
	.scaled_deal = vector_scaled_deal,
	.scaled_sort = vector_scaled_sort,
	.scaled_encode = vector_scaled_encode,
	.scaled_decode = vector_scaled_decode,
	.class_keys = class_keys,
	.step_widen = step_widen,
	.step_jump = step_jump,
	.step_target = step_target,
	.step_mirror = step_mirror,
	.step_choose = step_choose,
	.context = &tpd_context_avx2,
	.rans_encode = rans_encode,
	.rans_decode = rans_decode,
	.rans_encode_mixed = rans_encode_mixed,
	.rans_decode_mixed = rans_decode_mixed,
	.count_bytes = count_bytes,
	.planes_split = planes_split,
	.planes_join = planes_join,
	.find_changes = find_changes,
	.survey = &tpd_survey_avx2,
};

#else

void tpd_kernels_avx2_prepare(void)
{
}

const struct tpd_kernels tpd_kernels_avx2 = {.name = NULL}; /* not built for this CPU */

#endif
