/*
 * kernels_avx512.c - the kernels for CPUs with AVX-512 F, BW, DQ, VL, VBMI, VBMI2 and CD (Ice Lake, Zen 4 and later).
 *
 * Sixteen elements, lanes of the remainder stream or lanes of rANS to a register. What the scalar kernels do lane by lane with a
 * conditional word each becomes one compress or expand of a register. Three things are turned around for that:
 *
 *     fields    packed from the last round to the first, as the decoder's queue would be filled backwards: a word is complete when it
 *               is met, and leaves in order. Only the bits that are left over in each lane at the end must be known before.
 *     T         the median is found by counting bytes below a threshold, eight times, instead of by a table of counts.
 *     rANS      x / f in single precision, from a reciprocal that is a little too small: the quotient or one less, put right by the
 *               remainder. x / f < 2^19 and the error is below 2^-20 of it, so it is never two less.
 *
 * Compressed registers are stored whole or with a mask, never compressed into memory (slow where that is done in microcode).
 */
#include "base/tpd.h"

#include "codec/kernels.h"

#include "codec/kernels_internal.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__) && defined(__AVX512VBMI__) && \
	defined(__AVX512VBMI2__)

#include <immintrin.h>
#include <string.h>

#include "codec/classes_kernel.h"
#include "codec/grid_kernel.h"
#include "codec/internal.h"
#include "codec/planes_kernel.h"
#include "codec/low_rank_kernel.h"
#include "codec/predict_kernel.h"
#include "codec/rans_avx512.h"
#include "codec/scaled_kernel.h"
#include "codec/stats_internal.h"
#include "codec/step_kernel.h"
#include "codec/vector_avx512.h"

/* G of a coarse T, of |x|; *out_inside: where something may remain. */
VECTOR_INLINE __m512i coarse_g(const struct tpd_grid_type type, const struct grid_step *step, __m512i magnitude, __mmask16 *out_inside)
{
	__m512 value = _mm512_mul_ps(_mm512_castsi512_ps(_mm512_slli_epi32(magnitude, 23 - type.mantissa)), _mm512_set1_ps(step->scale));

	*out_inside = _mm512_cmplt_epi32_mask(magnitude, set(step->limit));
	return _mm512_mask_cvttps_epi32(_mm512_sub_epi32(magnitude, set(step->base)), *out_inside, value);
}

/* What G below 2^M says of |x|. */
VECTOR_INLINE __m512i told_by(const struct tpd_grid_type type, const struct grid_step *step, __m512i g)
{
	__m512i bits = _mm512_castps_si512(_mm512_cvtepi32_ps(g));

	return _mm512_add_epi32(_mm512_srli_epi32(bits, 23 - type.mantissa), set((int32_t)step->raise));
}

VECTOR_INLINE void encode_round(const struct tpd_grid_type type, const struct grid_step *step, __m512i x, __m512i p, __m512i *out_symbols,
				__m512i *out_values, __m512i *out_bits)
{
	__m512i magnitude = magnitude_of(type, x), p_magnitude = magnitude_of(type, p), g, g_p, d, values, bits;
	__mmask16 inside, p_inside, nothing, coded, equal, silent;

	g = coarse_g(type, step, magnitude, &inside);
	g_p = coarse_g(type, step, p_magnitude, &p_inside);
	d = wrapped(type, _mm512_sub_epi32(_mm512_xor_si512(g, sign_of(type, x)), _mm512_xor_si512(g_p, sign_of(type, p))));
	d = _mm512_add_epi32(d, set(TPD_SYMBOL_MIDDLE));
	coded = _mm512_cmplt_epu32_mask(_mm512_sub_epi32(d, set(TPD_SYMBOL_FIRST)), set(256 - TPD_SYMBOL_FIRST));
	equal = _mm512_cmpeq_epi32_mask(x, p);
	silent = equal | _mm512_testn_epi32_mask(x, x);
	nothing = _mm512_testn_epi32_mask(g, g);
	bits = _mm512_sub_epi32(set((int32_t)step->t), _mm512_srli_epi32(magnitude, type.mantissa));
	bits = _mm512_mask_mov_epi32(bits, nothing, set(step->below_bits));
	values = _mm512_mask_sub_epi32(magnitude, (__mmask16)~nothing, magnitude, told_by(type, step, g));
	values = _mm512_maskz_mov_epi32(inside, values);
	bits = _mm512_maskz_mov_epi32(inside, bits);
	values = _mm512_mask_mov_epi32(x, coded, values);
	bits = _mm512_mask_mov_epi32(set((int32_t)type.width), coded, bits);
	*out_values = _mm512_maskz_mov_epi32((__mmask16)~silent, values);
	*out_bits = _mm512_maskz_mov_epi32((__mmask16)~silent, bits);
	d = _mm512_maskz_mov_epi32(coded & (__mmask16)~silent, d);
	d = _mm512_mask_mov_epi32(d, silent, set(TPD_SYMBOL_ZERO));
	*out_symbols = _mm512_mask_mov_epi32(d, equal, set(TPD_SYMBOL_EQUAL));
}

VECTOR_INLINE void encode_rounds(const struct tpd_grid_type type, unsigned t, const uint8_t *x, const uint8_t *p, size_t n,
				 const struct tpd_prefetch *soon, uint8_t *symbols, uint32_t *values, uint8_t *bits)
{
	const struct grid_step step = step_of(type, t);
	const size_t width = type.width / 8;

	size_t i = 0;
	__m512i these, value, bit;

	for (; i + TPD_LANES <= n; i += TPD_LANES) {
		prefetch_of(soon, i);
		encode_round(type, &step, load_all(type, x + i * width), load_all(type, p + i * width), &these, &value, &bit);
		_mm_storeu_si128((__m128i *)(void *)(symbols + i), _mm512_cvtepi32_epi8(these));
		_mm512_storeu_si512(values + i, value);
		_mm_storeu_si128((__m128i *)(void *)(bits + i), _mm512_cvtepi32_epi8(bit));
	}
	if (i < n) {
		__mmask16 lanes = first_lanes(n - i);

		encode_round(type, &step, load(type, x + i * width, lanes), load(type, p + i * width, lanes), &these, &value, &bit);
		_mm_mask_storeu_epi8(symbols + i, lanes, _mm512_cvtepi32_epi8(these));
		_mm512_storeu_si512(values + i, value);
		_mm_storeu_si128((__m128i *)(void *)(bits + i), _mm512_cvtepi32_epi8(bit));
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

#include "codec/predict_avx512.h"

/* --- the remainder stream --- */

static uint8_t *fields_pack(const uint32_t *values, const uint8_t *bits, size_t rounds, uint8_t *end)
{
	const __m512i ones = set(-1), mask = set(31);
	__m512i total = _mm512_setzero_si512(), held = total, count;
	__m128i sum;
	uint8_t *out = end;
	size_t r = 0;

	/* Sums of bits are asked for modulo 32, so bytes hold them: four rounds to a register. */
	for (; r + 4 <= rounds; r += 4)
		total = _mm512_add_epi8(total, _mm512_loadu_si512(bits + r * TPD_LANES));
	sum = _mm_add_epi8(_mm_add_epi8(_mm512_castsi512_si128(total), _mm512_extracti32x4_epi32(total, 1)),
			   _mm_add_epi8(_mm512_extracti32x4_epi32(total, 2), _mm512_extracti32x4_epi32(total, 3)));
	for (; r < rounds; r++)
		sum = _mm_add_epi8(sum, _mm_loadu_si128((const __m128i *)(const void *)(bits + r * TPD_LANES)));
	count = _mm512_and_si512(_mm512_sub_epi32(_mm512_setzero_si512(), _mm512_cvtepu8_epi32(sum)), mask); /* zeros that end each lane */
	for (r = rounds; r-- > 0;) {
		__m512i value = _mm512_loadu_si512(values + r * TPD_LANES);
		__m512i n = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)(bits + r * TPD_LANES)));
		__m512i both = _mm512_add_epi32(count, n), word;
		__mmask16 full = _mm512_cmpgt_epi32_mask(both, mask); /* here the decoder asks for a word */
		unsigned words = (unsigned)_mm_popcnt_u32(full);

		count = _mm512_and_si512(both, mask); /* what its queue held before */
		word = _mm512_or_si512(_mm512_sllv_epi32(held, _mm512_sub_epi32(n, count)), _mm512_srlv_epi32(value, count));
		held = _mm512_or_si512(_mm512_sllv_epi32(held, n), value);
		held = _mm512_mask_andnot_epi32(held, full, _mm512_sllv_epi32(ones, count), value);
		out -= 4 * words;
		_mm512_mask_storeu_epi32(out, (__mmask16)_bzhi_u32(0xffff, words), _mm512_maskz_compress_epi32(full, word));
	}
	out -= 4;
	tpd_put_u32(out, (uint32_t)((size_t)(end - out) / 4 - 1));
	return out;
}

/* --- and back --- */

VECTOR_INLINE __m512i decode_round(const struct tpd_grid_type type, const struct grid_step *step, __m512i p, __m512i symbols,
				   struct queue *queue, __m512i *wrong)
{
	const __m512i one = set(1 << type.mantissa);
	__mmask16 inside, coded, escape, equal, nothing, small, bad;
	__m512i q, g, told, n, value, magnitude, inner;

	g = coarse_g(type, step, magnitude_of(type, p), &inside);
	q = _mm512_add_epi32(_mm512_xor_si512(g, sign_of(type, p)), _mm512_sub_epi32(symbols, set(TPD_SYMBOL_MIDDLE)));
	q = wrapped(type, q);
	g = _mm512_xor_si512(q, _mm512_srai_epi32(q, 31));
	coded = _mm512_cmpge_epi32_mask(symbols, set(TPD_SYMBOL_FIRST));
	escape = _mm512_testn_epi32_mask(symbols, symbols);
	equal = _mm512_cmpeq_epi32_mask(symbols, set(TPD_SYMBOL_EQUAL));
	nothing = _mm512_testn_epi32_mask(g, g);
	small = _mm512_cmplt_epi32_mask(g, one);
	told = _mm512_castps_si512(_mm512_cvtepi32_ps(g));
	n = _mm512_maskz_sub_epi32(small & coded, set((int32_t)type.mantissa + 127), _mm512_srli_epi32(told, 23));
	n = _mm512_mask_mov_epi32(n, nothing & coded, set(step->below_bits));
	n = _mm512_mask_mov_epi32(n, escape, set((int32_t)type.width));
	value = pull(queue, n);
	inner = _mm512_add_epi32(_mm512_srli_epi32(told, 23 - type.mantissa), set((int32_t)step->raise));
	inner = _mm512_add_epi32(_mm512_maskz_mov_epi32((__mmask16)~nothing, inner), value);
	magnitude = _mm512_mask_mov_epi32(_mm512_add_epi32(g, set(step->base)), small, inner);
	bad = nothing & _mm512_cmpge_epi32_mask(value, set((int32_t)step->below));
	bad |= _mm512_test_epi32_mask(magnitude, set((int32_t)(UINT32_MAX << (type.width - 1))));
	*wrong = _mm512_mask_mov_epi32(*wrong, bad & coded, one);
	magnitude = _mm512_or_si512(magnitude, _mm512_and_si512(q, set((int32_t)(UINT32_C(1) << (type.width - 1)))));
	value = _mm512_mask_mov_epi32(value, coded, magnitude);
	return _mm512_mask_mov_epi32(value, equal, p);
}

/* A round of any kind, of n elements. */
VECTOR_INLINE void decode_any(const struct tpd_grid_type type, const struct grid_step *step, const uint8_t *p, const uint8_t *symbols, size_t n,
			      uint8_t *out, struct queue *queue, __m512i *wrong)
{
	__mmask16 lanes = first_lanes(n);
	__m512i these = _mm512_cvtepu8_epi32(_mm_mask_loadu_epi8(_mm_set1_epi8(TPD_SYMBOL_EQUAL), lanes, symbols));
	__m512i x = decode_round(type, step, load(type, p, lanes), these, queue, wrong);

	if (type.width == 32)
		_mm512_mask_storeu_epi32(out, lanes, x);
	else
		_mm256_mask_storeu_epi16(out, lanes, _mm512_cvtepi32_epi16(x));
}

/* Not inlined: what they need in registers would cost the others. */
typedef void decode_any_of(const struct grid_step *step, const uint8_t *p, const uint8_t *symbols, size_t n, uint8_t *out, struct queue *queue,
			   __m512i *wrong);

static __attribute__((noinline)) void decode_any_f32(const struct grid_step *step, const uint8_t *p, const uint8_t *symbols, size_t n,
						     uint8_t *out, struct queue *queue, __m512i *wrong)
{
	decode_any(TYPE_F32, step, p, symbols, n, out, queue, wrong);
}

static __attribute__((noinline)) void decode_any_bf16(const struct grid_step *step, const uint8_t *p, const uint8_t *symbols, size_t n,
						      uint8_t *out, struct queue *queue, __m512i *wrong)
{
	decode_any(TYPE_BF16, step, p, symbols, n, out, queue, wrong);
}

static __attribute__((noinline)) void decode_any_f16(const struct grid_step *step, const uint8_t *p, const uint8_t *symbols, size_t n,
						     uint8_t *out, struct queue *queue, __m512i *wrong)
{
	decode_any(TYPE_F16, step, p, symbols, n, out, queue, wrong);
}

/* The pattern as a float, as coarse_g() has it, but with its sign. */
VECTOR_INLINE __m512 signed_float(const struct tpd_grid_type type, __m512i x)
{
	if (type.mantissa != 10)
		return _mm512_castsi512_ps(type.width == 32 ? x : _mm512_slli_epi32(x, 16));
	x = _mm512_and_si512(_mm512_srai_epi32(_mm512_slli_epi32(x, 16), 3), set((int32_t)0x8fffe000));
	return _mm512_castsi512_ps(x);
}

/* What a queue has of each lane's last word is that word's upper bits: as they stood in it, and back. */
VECTOR_INLINE __m512i last_words(__m512i held, __m512i count)
{
	return _mm512_sllv_epi32(held, _mm512_sub_epi32(set(32), count));
}

VECTOR_INLINE __m512i rest_of_words(__m512i last, __m512i count)
{
	return _mm512_srlv_epi32(last, _mm512_sub_epi32(set(32), count));
}

/* A constant that stays in its register: compilers would rather make it again in each round. */
VECTOR_INLINE __m512i kept(int32_t x)
{
	__m512i all = set(x);

	__asm__("" : "+v"(all));
	return all;
}

/*
 * Whole rounds of a piece, from element i on. Those of which all symbols tell a d and all G are inside the grid, that is nearly all of them,
 * have a way of their own. Truncating towards zero, and 1 less where the sign is set, is Q of a reference inside; one beyond comes out with a
 * Q so large that the result is not below 2^M, as does what overflows, so no test but that is needed.
 */
VECTOR_INLINE size_t decode_rounds(const struct tpd_grid_type type, const struct grid_step *step, const uint8_t *p, const uint8_t *symbols, size_t n,
				   const struct tpd_prefetch *soon, uint8_t *out, struct queue *queue, __m512i *wrong, __mmask16 *out_beyond, decode_any_of *any)
{
	const size_t width = type.width / 8;
	const __m512 scale = _mm512_set1_ps(step->scale);
	const __m512i raise = set((int32_t)step->raise), below = set((int32_t)step->below), below_bits = set(step->below_bits);
	__m512i count = queue->count, last = last_words(queue->held, count); /* not in memory, where others could reach them */
	const __m512i middle = kept(-TPD_SYMBOL_MIDDLE), log_one = kept((int32_t)type.mantissa + 127), ones = kept(-1), in_word = kept(31);
	const __m512i sign = kept((int32_t)(UINT32_C(1) << (type.width - 1))), outside = kept((int32_t)(UINT32_MAX << type.mantissa));
	const uint8_t *next = queue->next, *const end = queue->end;
	__m512i most = _mm512_setzero_si512(); /* of what elements with G = 0 have */
	size_t i = 0;

	while (i + TPD_LANES <= n && (size_t)(end - next) >= 4 * TPD_LANES) {
		if (soon)
			prefetch_of(soon, i);
		else
			ahead(p + i * width);
		__m128i these = _mm_loadu_si128((const __m128i *)(const void *)(symbols + i));
		__m512i old = load_all(type, p + i * width), q, g, told, bits, value, fresh;
		__mmask16 special = _mm_cmplt_epu8_mask(these, _mm_set1_epi8(TPD_SYMBOL_FIRST)), some, need;

		q = _mm512_add_epi32(_mm512_cvtepu8_epi32(these), middle);
		q = _mm512_add_epi32(q, sign_of(type, old));
		q = _mm512_add_epi32(q, _mm512_cvttps_epi32(_mm512_mul_ps(signed_float(type, old), scale)));
		g = _mm512_xor_si512(q, _mm512_srai_epi32(q, 31));
		special |= _mm512_test_epi32_mask(g, outside);
		if (__builtin_expect(special, 0)) {
			*queue = (struct queue){rest_of_words(last, count), count, next, end};
			any(step, p + i * width, symbols + i, TPD_LANES, out + i * width, queue, wrong);
			count = queue->count;
			last = last_words(queue->held, count);
			next = queue->next;
			i += TPD_LANES;
			continue;
		}
		some = _mm512_test_epi32_mask(g, g);
		told = _mm512_castps_si512(_mm512_cvtepi32_ps(g));
		bits = _mm512_mask_sub_epi32(below_bits, some, log_one, _mm512_srli_epi32(told, 23));
		told = _mm512_maskz_add_epi32(some, _mm512_srli_epi32(told, 23 - type.mantissa), raise);

		/* pull(), of less than 32 bits, from words that are there: a lane that needs none has all its bits in the last one */
		need = _mm512_cmplt_epi32_mask(count, bits);
		fresh = _mm512_mask_expand_epi32(last, need, _mm512_loadu_si512(next));
		next += 4 * (size_t)_mm_popcnt_u32(need);
		value = _mm512_shldv_epi32(fresh, last, count);
		last = fresh;
		count = _mm512_and_si512(_mm512_sub_epi32(count, bits), in_word);

		value = _mm512_ternarylogic_epi32(told, value, _mm512_sllv_epi32(ones, bits), 0xf4); /* told | (value & ~mask) */
		most = _mm512_mask_max_epu32(most, (__mmask16)~some, most, value);
		store(type, out + i * width, _mm512_ternarylogic_epi32(value, q, sign, 0xf8)); /* | the sign */
		i += TPD_LANES;
	}
	*queue = (struct queue){rest_of_words(last, count), count, next, end};
	*out_beyond |= _mm512_cmpge_epu32_mask(most, below);
	return i;
}

/* The queue stays in registers from one piece to the next. */
VECTOR_INLINE bool decode_pieces(const struct tpd_grid_type type, enum tpd_dtype dtype, const uint8_t *steps, const struct tpd_pieces *pieces,
				 const uint8_t *p, const uint8_t *symbols, const struct tpd_prefetch *soon, uint8_t *out,
				 struct tpd_fields_in *fields, decode_any_of *any)
{
	const size_t width = type.width / 8, count = tpd_piece_count(pieces);
	struct queue queue = queue_of(fields);
	__m512i wrong = _mm512_setzero_si512();
	__mmask16 beyond = 0;

	for (size_t piece = 0; piece < count && queue.next <= queue.end; piece++) {
		const size_t start = tpd_piece_start(pieces, piece), n = tpd_piece_start(pieces, piece + 1) - start;
		const uint8_t *from = p + start * width, *these = symbols + start;
		uint8_t *to = out + start * width;

		if (steps[piece] > type.mantissa) {
			const struct grid_step step = step_of(type, steps[piece]);
			size_t i = decode_rounds(type, &step, from, these, n, soon, to, &queue, &wrong, &beyond, any);

			for (; i < n && queue.next <= queue.end; i += TPD_LANES)
				any(&step, from + i * width, these + i, n - i, to + i * width, &queue, &wrong);
			continue;
		}
		put_queue(&queue, fields);
		if (!tpd_kernels_scalar.grid_decode(dtype, steps + piece, &(struct tpd_pieces){n, n, n}, from, these, soon, to, fields))
			return false;
		queue = queue_of(fields);
	}
	put_queue(&queue, fields);
	return queue.next <= queue.end && (_mm512_test_epi32_mask(wrong, wrong) | beyond) == 0;
}

static bool grid_decode(enum tpd_dtype dtype, const uint8_t *steps, const struct tpd_pieces *pieces, const uint8_t *p, const uint8_t *symbols,
			const struct tpd_prefetch *soon, uint8_t *out, struct tpd_fields_in *fields)
{
	switch (dtype) {
	case TPD_DTYPE_F32:
		return decode_pieces(TYPE_F32, dtype, steps, pieces, p, symbols, soon, out, fields, decode_any_f32);
	case TPD_DTYPE_BF16:
		return decode_pieces(TYPE_BF16, dtype, steps, pieces, p, symbols, soon, out, fields, decode_any_bf16);
	default:
		return decode_pieces(TYPE_F16, dtype, steps, pieces, p, symbols, soon, out, fields, decode_any_f16);
	}
}

/* --- a T for each element --- */

#include "codec/scaled_avx512.h"

/* --- T of a piece --- */

/* The pattern as single precision, as grid.c has it. */
VECTOR_INLINE __m512 widened_vector(const struct tpd_grid_type type, __m512i x)
{
	__m512i magnitude;

	if (type.mantissa != 10)
		return _mm512_castsi512_ps(_mm512_slli_epi32(x, 32 - type.width));
	magnitude = _mm512_slli_epi32(magnitude_of(type, x), 23 - type.mantissa);

	if (type.mantissa == 10)
		magnitude = _mm512_mask_add_epi32(magnitude, _mm512_cmpge_epi32_mask(magnitude, set(0x0f800000)), magnitude,
						  set(0x70000000));
	return _mm512_castsi512_ps(_mm512_or_si512(magnitude, _mm512_slli_epi32(_mm512_srli_epi32(x, type.width - 1), 31)));
}

/* Bytes at most `most`, of whole registers. */
static unsigned count_up_to(const uint8_t *bytes, size_t n, uint8_t most)
{
	const __m512i limit = _mm512_set1_epi8((char)most);
	unsigned count = 0;

	for (size_t i = 0; i < n; i += 64)
		count += (unsigned)_mm_popcnt_u64(_mm512_cmple_epu8_mask(_mm512_load_si512(bytes + i), limit));
	return count;
}

/* Exponent fields of differences of these lanes. */
VECTOR_INLINE __m128i exponents_of(const struct tpd_grid_type type, __m512i new, __m512i old)
{
	__m512 difference = _mm512_sub_ps(widened_vector(type, new), widened_vector(type, old));
	__m512i exponent;

	if (type.mantissa == 10)
		difference = _mm512_mul_ps(difference, _mm512_set1_ps(0x1p112f));
	exponent = _mm512_srli_epi32(_mm512_castps_si512(difference), 23);
	return _mm512_cvtepi32_epi8(_mm512_mask_mov_epi32(exponent, _mm512_cmpeq_epi32_mask(new, old), set(TPD_EXPONENT_NONE)));
}

VECTOR_INLINE unsigned choose(const struct tpd_grid_type type, const uint8_t *x, const uint8_t *p, size_t n, unsigned bias)
{
	_Alignas(64) uint8_t exponents[TPD_ROW_MAX];
	const size_t width = type.width / 8, whole = (n + 63) / 64 * 64;
	size_t i = 0;

	for (; i + TPD_LANES <= n; i += TPD_LANES) {
		ahead(x + i * width);
		ahead(p + i * width);
		_mm_store_si128((__m128i *)(void *)(exponents + i),
				exponents_of(type, load_all(type, x + i * width), load_all(type, p + i * width)));
	}
	for (; i < whole; i += TPD_LANES) {
		__mmask16 lanes = i < n ? first_lanes(n - i) : 0;

		_mm_store_si128((__m128i *)(void *)(exponents + i),
				exponents_of(type, load(type, x + i * width, lanes), load(type, p + i * width, lanes)));
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

/* --- rANS: 64 lanes in four registers; other numbers of lanes are short streams --- */

#define NEAREST (_MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC) /* whatever mode the caller has */
#define WINDOW 64u /* symbols whose tables fit into registers */

/* Of the symbols from `first` on, four registers' worth: f and cum << 16; and 1 / f, a little too small. */
struct rans_tables {
	uint32_t steps[256];
	float reciprocals[256];
	uint32_t first;
};

static void rans_prepare(const uint16_t freq[256], struct rans_tables *tables)
{
	uint32_t cum = 0, sum = 0, best = 0;

	memset(tables, 0, sizeof *tables);
	for (unsigned s = 0; s < 256; s++) {
		tables->steps[s] = freq[s] | cum << 16;
		if (freq[s] > 0)
			tables->reciprocals[s] = float_of(bits_of(1.0f / (float)freq[s]) - 3);
		cum += freq[s];
	}
	for (unsigned s = 0; s < 256; s++) { /* sum: of the WINDOW symbols that end with s */
		sum += freq[s] - (s >= WINDOW ? freq[s - WINDOW] : 0u);
		if (sum > best) {
			best = sum;
			tables->first = s >= WINDOW - 1 ? s - (WINDOW - 1) : 0;
		}
	}
}

/* The entries of 16 symbols, all of them in the window, from its four registers. */
VECTOR_INLINE __m512i look_up(__m512i place, __mmask16 upper, __m512i a, __m512i b, __m512i c, __m512i d)
{
	return _mm512_mask_mov_epi32(_mm512_permutex2var_epi32(a, place, b), upper, _mm512_permutex2var_epi32(c, place, d));
}

VECTOR_INLINE __m512i rans_step(__m512i x, __m512i step, __m512 reciprocal, uint8_t **words)
{
	__m512i f = _mm512_and_si512(step, set(0xffff)), quotient, rest;
	__mmask16 full = _mm512_cmpge_epu32_mask(x, _mm512_slli_epi32(f, 31 - TPD_RANS_BITS)), less;
	unsigned count = (unsigned)_mm_popcnt_u32(full);

	*words -= 2 * count;
	_mm256_mask_storeu_epi16(*words, (__mmask16)_bzhi_u32(0xffff, count), _mm256_maskz_compress_epi16(full, _mm512_cvtepi32_epi16(x)));
	x = _mm512_mask_srli_epi32(x, full, x, 16);
	quotient = _mm512_cvttps_epi32(_mm512_mul_round_ps(_mm512_cvt_roundepi32_ps(x, NEAREST), reciprocal, NEAREST));
	rest = _mm512_sub_epi32(x, _mm512_mullo_epi32(quotient, f));
	less = _mm512_cmpge_epu32_mask(rest, f);
	quotient = _mm512_mask_add_epi32(quotient, less, quotient, set(1));
	rest = _mm512_mask_sub_epi32(rest, less, rest, f);
	return _mm512_add_epi32(_mm512_slli_epi32(quotient, TPD_RANS_BITS), _mm512_add_epi32(rest, _mm512_srli_epi32(step, 16)));
}

static uint8_t *rans_encode(const uint8_t *symbols, size_t n, unsigned k, const uint16_t freq[256], uint8_t *words_end, uint32_t *states)
{
	struct rans_tables tables;
	size_t i = n / TPD_RANS_LANES_MAX * TPD_RANS_LANES_MAX;
	__m512i step[4], reciprocal[4], state[4], first;
	uint8_t *words = words_end;

	if (k != 6)
		return tpd_kernels_scalar.rans_encode(symbols, n, k, freq, words_end, states);
	rans_prepare(freq, &tables);
	for (unsigned lane = 0; lane < TPD_RANS_LANES_MAX; lane++)
		states[lane] = TPD_RANS_LOW;
	for (size_t last = n; last-- > i;)
		words = tpd_rans_encode_one(&states[last % TPD_RANS_LANES_MAX], tables.steps[symbols[last]] & 0xffff,
					    tables.steps[symbols[last]] >> 16, words);
	first = set((int32_t)tables.first);
	for (unsigned v = 0; v < 4; v++) {
		step[v] = _mm512_loadu_si512(tables.steps + tables.first + 16 * v);
		reciprocal[v] = _mm512_loadu_si512(tables.reciprocals + tables.first + 16 * v);
		state[v] = _mm512_loadu_si512(states + 16 * v);
	}
	while (i > 0) {
		i -= TPD_RANS_LANES_MAX;
#pragma GCC unroll 4
		for (unsigned v = 4; v-- > 0;) {
			__m512i symbol = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)(symbols + i + 16 * v)));
			__m512i place = _mm512_sub_epi32(symbol, first), steps;
			__mmask16 upper = _mm512_test_epi32_mask(place, set(32)), outside = _mm512_cmpge_epu32_mask(place, set(WINDOW));
			__m512 reciprocals;

			steps = look_up(place, upper, step[0], step[1], step[2], step[3]);
			reciprocals = _mm512_castsi512_ps(look_up(place, upper, reciprocal[0], reciprocal[1], reciprocal[2], reciprocal[3]));
			if (__builtin_expect(outside, 0)) {
				steps = _mm512_mask_i32gather_epi32(steps, outside, symbol, tables.steps, 4);
				reciprocals = _mm512_mask_i32gather_ps(reciprocals, outside, symbol, tables.reciprocals, 4);
			}
			state[v] = rans_step(state[v], steps, reciprocals, &words);
		}
	}
	for (unsigned v = 0; v < 4; v++)
		_mm512_storeu_si512(states + 16 * v, state[v]);
	return words;
}

static bool rans_decode(const uint8_t *words, size_t count, unsigned k, const uint16_t freq[256], uint32_t *table, uint32_t *states,
			const struct tpd_prefetch *soon, uint8_t *out, size_t n)
{
	const uint8_t *end = words + 2 * count;
	struct slot_tables tables;
	__m512i state[4];
	__mmask16 all;
	size_t i = 0;

	if (k != 6)
		return tpd_kernels_scalar.rans_decode(words, count, k, freq, table, states, soon, out, n);
	if (fill_slot_tables(freq, &tables)) {
		i = rans_decode_by_places(&tables, &words, end, states, soon, out, n);
		words = rans_decode_last(&tables, words, end, states, out, i, n);
		return words && tpd_rans_is_end(words, end, states, TPD_RANS_LANES_MAX);
	}
	tpd_rans_decode_table(freq, table);
	for (unsigned v = 0; v < 4; v++)
		state[v] = _mm512_loadu_si512(states + 16 * v);
	/*
	 * All lanes, since no state is 0; but compilers do not know, and so begin each gather with zeros. Where they see that no lane keeps what it
	 * had, they gather into whatever register is free, and that waits for what was in it.
	 */
	all = _mm512_test_epi32_mask(state[0], state[0]);
	for (; i + TPD_RANS_LANES_MAX <= n && (size_t)(end - words) >= 2 * TPD_RANS_LANES_MAX; i += TPD_RANS_LANES_MAX) {
		prefetch_share(soon, i);
#pragma GCC unroll 4
		for (unsigned v = 0; v < 4; v++) {
			__m512i entry = _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), all,
								    _mm512_and_si512(state[v], set(TPD_RANS_SUM - 1)), table, 4);
			__m512i x, more;
			__mmask16 need;

			_mm_storeu_si128((__m128i *)(void *)(out + i + 16 * v), _mm512_cvtepi32_epi8(entry));
			x = _mm512_mullo_epi32(_mm512_and_si512(_mm512_srli_epi32(entry, 8), set(0xfff)),
					       _mm512_srli_epi32(state[v], TPD_RANS_BITS));
			x = _mm512_add_epi32(x, _mm512_srli_epi32(entry, 20));
			need = _mm512_cmplt_epu32_mask(x, set(TPD_RANS_LOW));
			more = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)words));
			more = _mm512_maskz_expand_epi32(need, more);
			state[v] = _mm512_or_si512(_mm512_mask_slli_epi32(x, need, x, 16), more);
			words += 2 * (size_t)_mm_popcnt_u32(need);
		}
	}
	for (unsigned v = 0; v < 4; v++)
		_mm512_storeu_si512(states + 16 * v, state[v]);
	return tpd_rans_decode_rest(words, end, TPD_RANS_LANES_MAX, table, states, out, i, n);
}

/* --- rANS with mixed classes: 16 lanes in one register --- */

static uint8_t *rans_encode_mixed(const uint8_t *symbols, const uint8_t *classes, size_t n, unsigned k, const uint32_t *steps,
				  uint8_t *words, uint32_t *states)
{
	size_t i = n / TPD_LANES * TPD_LANES;
	__m512i state;

	if (k != 4)
		return tpd_scalar_rans_encode_mixed(symbols, classes, n, k, steps, words, states);
	words = tpd_rans_mixed_put(symbols, classes, n, i, TPD_LANES, steps, words, states);
	state = _mm512_loadu_si512(states);
	while (i > 0) {
		__m512i symbol, step;
		__m512 reciprocal;

		i -= TPD_LANES;
		symbol = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)(symbols + i)));
		step = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)(classes + i)));
		step = _mm512_i32gather_epi32(_mm512_or_si512(_mm512_slli_epi32(step, 8), symbol), steps, 4);
		reciprocal = _mm512_cvt_roundepi32_ps(_mm512_and_si512(step, set(0xffff)), NEAREST);
		reciprocal = _mm512_div_round_ps(_mm512_set1_ps(1), reciprocal, NEAREST);
		reciprocal = _mm512_castsi512_ps(_mm512_sub_epi32(_mm512_castps_si512(reciprocal), set(3)));
		state = rans_step(state, step, reciprocal, &words);
	}
	_mm512_storeu_si512(states, state);
	return words;
}

static const uint8_t *rans_decode_mixed(const uint8_t *words, const uint8_t *end, unsigned k, const uint32_t *tables, uint32_t *states,
					const uint8_t *classes, uint8_t *out, size_t n)
{
	size_t i = 0;
	__m512i state;

	if (k != 4)
		return tpd_scalar_rans_decode_mixed(words, end, k, tables, states, classes, out, n);
	state = _mm512_loadu_si512(states);
	for (; i + TPD_LANES <= n && (size_t)(end - words) >= 2 * TPD_LANES; i += TPD_LANES) {
		__m512i entry = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)(classes + i))), x, more;
		__mmask16 need;

		entry = _mm512_or_si512(_mm512_slli_epi32(entry, TPD_RANS_BITS), _mm512_and_si512(state, set(TPD_RANS_SUM - 1)));
		entry = _mm512_i32gather_epi32(entry, tables, 4);
		_mm_storeu_si128((__m128i *)(void *)(out + i), _mm512_cvtepi32_epi8(entry));
		x = _mm512_add_epi32(_mm512_and_si512(_mm512_srli_epi32(entry, 8), set(0xfff)), set(1));
		x = _mm512_mullo_epi32(x, _mm512_srli_epi32(state, TPD_RANS_BITS));
		x = _mm512_add_epi32(x, _mm512_srli_epi32(entry, 20));
		need = _mm512_cmplt_epu32_mask(x, set(TPD_RANS_LOW));
		more = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)words));
		more = _mm512_maskz_expand_epi32(need, more);
		state = _mm512_or_si512(_mm512_mask_slli_epi32(x, need, x, 16), more);
		words += 2 * (size_t)_mm_popcnt_u32(need);
	}
	_mm512_storeu_si512(states, state);
	return tpd_rans_mixed_rest(words, end, TPD_LANES, tables, states, classes, out, i, n);
}

/* --- bytes --- */

static size_t count_bytes(const uint8_t *symbols, size_t n, uint32_t counts[256])
{
	__m512i missing[4];
	uint8_t none[256];
	size_t sum = 0;

	if (n <= TPD_COUNT_ALL_MAX)
		return tpd_count_bytes(symbols, n, counts);
	tpd_count_sample(symbols, n, counts);
	for (unsigned s = 0; s < 256; s++)
		none[s] = counts[s] == 0;
	for (unsigned v = 0; v < 4; v++)
		missing[v] = _mm512_loadu_si512(none + 64 * v);
	for (size_t i = 0; i + 64 <= n; i += 64) {
		const __m512i these = _mm512_loadu_si512(symbols + i);
		const __m512i lower = _mm512_permutex2var_epi8(missing[0], these, missing[1]), upper = _mm512_permutex2var_epi8(missing[2], these, missing[3]);
		const __m512i found = _mm512_mask_mov_epi8(lower, _mm512_movepi8_mask(these), upper);

		for (uint64_t left = _mm512_test_epi8_mask(found, found); __builtin_expect(left != 0, 0); left &= left - 1)
			counts[symbols[i + (unsigned)__builtin_ctzll(left)]] = 1;
	}
	for (unsigned s = 0; s < 256; s++)
		sum += counts[s];
	return sum;
}

/* 16 places of which the mask says which. */
VECTOR_INLINE size_t put_places(uint32_t *places, size_t m, __mmask16 changed, size_t first)
{
	const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);

	_mm512_storeu_si512(places + m, _mm512_maskz_compress_epi32(changed, _mm512_add_epi32(lane, set((int32_t)first))));
	return m + (unsigned)_mm_popcnt_u32(changed);
}

static size_t find_changes(const uint8_t *x, const uint8_t *p, size_t n, unsigned width, uint32_t *places)
{
	const size_t group = 64 / width;
	size_t m = 0, i = 0;

	for (; i + group <= n; i += group) {
		__m512i new = _mm512_loadu_si512(x + i * width), old = _mm512_loadu_si512(p + i * width);
		uint64_t changed = width == 4 ? _mm512_cmpneq_epi32_mask(new, old)
					      : width == 2 ? _mm512_cmpneq_epi16_mask(new, old) : _mm512_cmpneq_epi8_mask(new, old);

		for (size_t at = i; changed; changed >>= 16, at += 16)
			m = put_places(places, m, (__mmask16)changed, at);
	}
	return m + tpd_find_changes_from(x, p, i, n, width, places + m);
}

const struct tpd_kernels tpd_kernels_avx512 = {
	.name = "avx512",
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
	.survey = &tpd_survey_avx512,
};

#else

const struct tpd_kernels tpd_kernels_avx512 = {.name = NULL}; /* not built for this CPU */

#endif
