/*
 * scaled_avx2.h - the loops of encoding `scaled` (scaled_kernel.h) for AVX2, where the compiler finds none by itself: fields that are pulled, and
 * symbols that are dealt. Only kernels_avx2.c includes it.
 */
#ifndef TPD_CODEC_SCALED_AVX2_H
#define TPD_CODEC_SCALED_AVX2_H

#if defined(__AVX2__) /* elsewhere this is empty, as what includes it is */

#include <immintrin.h>
#include <string.h>

#include "base/tpd.h"
#include "codec/scaled_kernel.h"
#include "codec/vector_avx2.h"

/* struct scaled_step of each element. */
struct vector_step {
	__m256i t, base, limit, has_steps;
	__m256 scale;
};

VECTOR_INLINE struct vector_step vector_step_of(const struct tpd_grid_type type, const uint8_t *steps)
{
	const __m256i t = permutation(steps), high = _mm256_cmpgt_epi32(t, set((int32_t)type.mantissa));
	struct vector_step step = {.t = t, .limit = left(t, type.mantissa)};

	step.has_steps = _mm256_cmpgt_epi32(t, _mm256_setzero_si256());
	step.base = _mm256_and_si256(step.has_steps, _mm256_sub_epi32(step.limit, set(1 << type.mantissa)));
	step.scale = _mm256_castsi256_ps(left(_mm256_sub_epi32(set(254 + (int32_t)type.mantissa), choose_lanes(set(254), t, high)), 23));
	return step;
}

VECTOR_INLINE __m256i scaled_vector_g(const struct tpd_grid_type type, const struct vector_step *step, __m256i magnitude)
{
	__m256 value = _mm256_mul_ps(_mm256_castsi256_ps(left(magnitude, 23 - type.mantissa)), step->scale);

	return choose_lanes(_mm256_sub_epi32(magnitude, step->base), _mm256_cvttps_epi32(value), _mm256_cmpgt_epi32(step->limit, magnitude));
}

/* The last elements of a stretch, where zeros follow. */
struct scaled_pad {
	struct block_pad block;
	uint8_t steps[TPD_LANES];
};

VECTOR_INLINE void scaled_encode_half(const struct tpd_grid_type type, const struct vector_step *step, __m256i x, __m256i p, __m256i *out_symbols,
				      __m256i *out_values, __m256i *out_bits)
{
	const int32_t m = (int32_t)type.mantissa;
	const __m256i zero = _mm256_setzero_si256(), magnitude = magnitude_of(type, x), field = right(magnitude, type.mantissa);
	const __m256i g = scaled_vector_g(type, step, magnitude), q = _mm256_xor_si256(g, sign_of(type, x));
	const __m256i q_p = _mm256_xor_si256(scaled_vector_g(type, step, magnitude_of(type, p)), sign_of(type, p));
	const __m256i d = _mm256_add_epi32(wrapped(type, _mm256_sub_epi32(q, q_p)), set(SCALED_MIDDLE));
	const __m256i off = _mm256_sub_epi32(_mm256_sub_epi32(step->t, set(m + 1)), field);
	const __m256i nothing = _mm256_and_si256(_mm256_cmpeq_epi32(g, zero), step->has_steps);
	const __m256i near = _mm256_and_si256(_mm256_cmpgt_epi32(field, zero), _mm256_cmpgt_epi32(set(SCALED_EXPONENTS), off));
	const __m256i small = _mm256_and_si256(nothing, near), equal = _mm256_cmpeq_epi32(x, p);
	const __m256i silent = _mm256_or_si256(equal, _mm256_cmpeq_epi32(x, zero));
	__m256i coded = _mm256_andnot_si256(_mm256_cmpgt_epi32(d, set(SCALED_SMALL - 1)), _mm256_cmpgt_epi32(d, set(SCALED_FIRST - 1)));
	__m256i symbol = _mm256_add_epi32(left(off, 1), right(x, type.width - 1)), remain, bits, values;

	coded = _mm256_andnot_si256(nothing, coded);
	remain = _mm256_and_si256(_mm256_and_si256(coded, _mm256_cmpgt_epi32(step->limit, magnitude)), _mm256_sub_epi32(step->t, field));
	symbol = _mm256_and_si256(small, _mm256_add_epi32(symbol, set(SCALED_SMALL)));
	symbol = choose_lanes(choose_lanes(symbol, d, coded), set(TPD_SYMBOL_ZERO), silent);
	*out_symbols = choose_lanes(symbol, set(TPD_SYMBOL_EQUAL), equal);
	bits = choose_lanes(set((int32_t)type.width), set(m), small);
	*out_bits = _mm256_andnot_si256(silent, choose_lanes(bits, remain, coded));
	values = choose_lanes(x, _mm256_and_si256(magnitude, set((1 << m) - 1)), small);
	values = choose_lanes(values, _mm256_andnot_si256(_mm256_sllv_epi32(set(-1), remain), magnitude), coded);
	*out_values = _mm256_andnot_si256(silent, values);
}

VECTOR_INLINE void scaled_encode_rounds(const struct tpd_grid_type type, const uint8_t *steps, const uint8_t *x, const uint8_t *p, size_t n,
					uint8_t *symbols, uint32_t *values, uint8_t *bits)
{
	const size_t width = type.width / 8;

	for (size_t i = 0; i < n; i += TPD_LANES) {
		const uint8_t *new = x + i * width, *old = p + i * width, *own = steps + i;
		__m256i these[2], value[2], bit[2];
		struct scaled_pad pad;

		if (n - i < TPD_LANES) {
			pad_block(type, new, n - i, pad.block.x);
			pad_block(type, old, n - i, pad.block.p);
			memset(pad.steps, 0, TPD_LANES);
			memcpy(pad.steps, own, n - i);
			new = pad.block.x;
			old = pad.block.p;
			own = pad.steps;
		}
		for (unsigned h = 0; h < 2; h++) {
			const struct vector_step step = vector_step_of(type, own + h * HALF);

			scaled_encode_half(type, &step, load(type, new + h * HALF * width), load(type, old + h * HALF * width), &these[h], &value[h],
					   &bit[h]);
			store_256(values + i + h * HALF, value[h]);
		}
		_mm_storeu_si128((__m128i *)(void *)(bits + i), narrow(bit[0], bit[1]));
		_mm_storeu_si128((__m128i *)(void *)pad.block.symbols, narrow(these[0], these[1]));
		memcpy(symbols + i, pad.block.symbols, TPD_MIN(n - i, (size_t)TPD_LANES));
	}
}

VECTOR_INLINE __m256i scaled_decode_half(const struct tpd_grid_type type, const struct vector_step *step, __m256i p, __m256i symbols, __m256i *held,
					 __m256i *count, const uint8_t **next, __m256i *wrong)
{
	const int32_t m = (int32_t)type.mantissa;
	const __m256i zero = _mm256_setzero_si256(), top = set((int32_t)(UINT32_C(1) << (type.width - 1)));
	const __m256i small = _mm256_cmpgt_epi32(symbols, set(SCALED_SMALL - 1)), equal = _mm256_cmpeq_epi32(symbols, set(TPD_SYMBOL_EQUAL));
	const __m256i coded = _mm256_andnot_si256(small, _mm256_cmpgt_epi32(symbols, set(SCALED_FIRST - 1)));
	__m256i q = _mm256_xor_si256(scaled_vector_g(type, step, magnitude_of(type, p)), sign_of(type, p)), g, nothing, inner, told, n, value;
	__m256i magnitude, field, little, bad;

	q = wrapped(type, _mm256_add_epi32(q, _mm256_sub_epi32(symbols, set(SCALED_MIDDLE))));
	g = _mm256_xor_si256(q, right_signed(q, 31));
	nothing = _mm256_cmpeq_epi32(g, zero);
	inner = _mm256_and_si256(step->has_steps, _mm256_cmpgt_epi32(set(1 << m), g));
	told = _mm256_castps_si256(_mm256_cvtepi32_ps(g));
	n = _mm256_sub_epi32(set(m + 127), right(told, 23));
	n = _mm256_and_si256(_mm256_and_si256(inner, coded), _mm256_andnot_si256(nothing, n));
	n = choose_lanes(n, set(m), small);
	n = choose_lanes(n, set((int32_t)type.width), _mm256_cmpeq_epi32(symbols, zero));
	value = pull_half(held, count, n, next);
	magnitude = _mm256_add_epi32(right(told, 23 - type.mantissa), _mm256_sub_epi32(step->limit, set((m + 127) << m)));
	magnitude = choose_lanes(_mm256_add_epi32(g, step->base), _mm256_add_epi32(magnitude, value), inner);
	field = _mm256_sub_epi32(_mm256_sub_epi32(step->t, set(m + 1)), right(_mm256_sub_epi32(symbols, set(SCALED_SMALL)), 1));
	little = _mm256_add_epi32(left(field, type.mantissa), value);
	bad = _mm256_and_si256(magnitude, set((int32_t)(UINT32_MAX << (type.width - 1))));
	bad = _mm256_and_si256(coded, _mm256_or_si256(bad, _mm256_and_si256(nothing, step->has_steps)));
	*wrong = _mm256_or_si256(*wrong, bad);
	bad = _mm256_or_si256(_mm256_cmpeq_epi32(step->has_steps, zero), _mm256_cmpgt_epi32(set(1), field));
	*wrong = _mm256_or_si256(*wrong, _mm256_and_si256(small, bad));
	magnitude = _mm256_or_si256(magnitude, _mm256_and_si256(q, top));
	little = _mm256_or_si256(little, _mm256_and_si256(left(symbols, 31 - (32 - type.width)), top));
	value = choose_lanes(value, magnitude, coded);
	value = choose_lanes(value, little, small);
	return choose_lanes(value, p, equal);
}

VECTOR_INLINE bool scaled_decode_rounds(const struct tpd_grid_type type, const uint8_t *steps, const uint8_t *p, const uint8_t *symbols, size_t n,
					uint8_t *out, struct tpd_fields_in *fields)
{
	const size_t width = type.width / 8;
	__m256i held[2], count[2], wrong = _mm256_setzero_si256(), x[2];

	for (unsigned h = 0; h < 2; h++) {
		held[h] = load_256(fields->acc + h * HALF);
		count[h] = load_256(fields->bits + h * HALF);
	}
	for (size_t i = 0; i < n && fields->next <= fields->end; i += TPD_LANES) {
		const uint8_t *old = p + i * width, *these = symbols + i, *own = steps + i, *next;
		const bool is_part = n - i < TPD_LANES;
		struct scaled_pad pad;

		if (is_part) {
			pad_block(type, old, n - i, pad.block.p);
			memset(pad.block.symbols, TPD_SYMBOL_EQUAL, TPD_LANES);
			memcpy(pad.block.symbols, these, n - i);
			memset(pad.steps, 0, TPD_LANES);
			memcpy(pad.steps, own, n - i);
			old = pad.block.p;
			these = pad.block.symbols;
			own = pad.steps;
		}
		tpd_fields_prepare(fields);
		next = fields->next;
		for (unsigned h = 0; h < 2; h++) {
			const struct vector_step step = vector_step_of(type, own + h * HALF);

			x[h] = scaled_decode_half(type, &step, load(type, old + h * HALF * width), permutation(these + h * HALF), &held[h], &count[h],
						  &next, &wrong);
		}
		fields->next = next;
		store_halves(type, is_part ? pad.block.x : out + i * width, x[0], x[1]);
		if (is_part)
			memcpy(out + i * width, pad.block.x, (n - i) * width);
	}
	for (unsigned h = 0; h < 2; h++) {
		store_256(fields->acc + h * HALF, held[h]);
		store_256(fields->bits + h * HALF, count[h]);
	}
	return fields->next <= fields->end && _mm256_testz_si256(wrong, wrong);
}

static void vector_scaled_encode(enum tpd_dtype dtype, const uint8_t *steps, const uint8_t *x, const uint8_t *p, size_t n, uint8_t *symbols,
				 uint32_t *values, uint8_t *bits)
{
	if (dtype == TPD_DTYPE_F32)
		scaled_encode_rounds(TYPE_F32, steps, x, p, n, symbols, values, bits);
	else
		scaled_encode_rounds(TYPE_BF16, steps, x, p, n, symbols, values, bits);
}

static bool vector_scaled_decode(enum tpd_dtype dtype, const uint8_t *steps, const uint8_t *p, const uint8_t *symbols, size_t n, uint8_t *out,
				 struct tpd_fields_in *fields)
{
	if (dtype == TPD_DTYPE_F32)
		return scaled_decode_rounds(TYPE_F32, steps, p, symbols, n, out, fields);
	return scaled_decode_rounds(TYPE_BF16, steps, p, symbols, n, out, fields);
}

/* --- symbols by class, eight at a time --- */

/* For each mask of eight elements of class 1. */
static struct {
	uint8_t deal[256][HALF]; /* bytes: the next one of the first eight, or of the second */
	uint8_t sort[256][HALF]; /* bytes: those without, then those of the mask */
} scaled_tables;

static void scaled_prepare(void)
{
	for (unsigned mask = 0; mask < 256; mask++) {
		unsigned odd = 0, others = 8 - (unsigned)__builtin_popcount(mask);

		for (unsigned i = 0; i < HALF; i++) {
			const bool is_odd = mask >> i & 1;

			scaled_tables.deal[mask][i] = (uint8_t)(is_odd ? HALF + odd : i - odd);
			scaled_tables.sort[mask][is_odd ? others + odd : i - odd] = (uint8_t)i;
			odd += is_odd;
		}
	}
}

VECTOR_INLINE __m128i load_64(const uint8_t *from)
{
	return _mm_loadl_epi64((const __m128i *)(const void *)from);
}

VECTOR_INLINE unsigned class_mask(const uint8_t *classes)
{
	return (unsigned)_mm_movemask_epi8(_mm_slli_epi16(load_64(classes), 7)) & 255u;
}

static size_t vector_scaled_deal(const uint8_t *classes, size_t n, const uint8_t *even, const uint8_t *odd, uint8_t *out)
{
	const uint8_t *begin = odd;
	size_t i = 0;

	for (; i + HALF <= n; i += HALF) {
		const unsigned mask = class_mask(classes + i), count = (unsigned)__builtin_popcount(mask);
		const __m128i both = _mm_unpacklo_epi64(load_64(even), load_64(odd));

		_mm_storel_epi64((__m128i *)(void *)(out + i), _mm_shuffle_epi8(both, load_64(scaled_tables.deal[mask])));
		odd += count;
		even += HALF - count;
	}
	return (size_t)(odd - begin) + scaled_deal(classes + i, n - i, even, odd, out + i);
}

static size_t vector_scaled_sort(const uint8_t *classes, const uint8_t *symbols, size_t n, uint8_t *even, uint8_t *odd)
{
	uint8_t *begin = odd;
	size_t i = 0;

	for (; i + HALF <= n; i += HALF) {
		const unsigned mask = class_mask(classes + i), count = (unsigned)__builtin_popcount(mask), others = HALF - count;
		const __m128i sorted = _mm_shuffle_epi8(load_64(symbols + i), load_64(scaled_tables.sort[mask]));
		const uint64_t bytes = (uint64_t)_mm_cvtsi128_si64(sorted);

		tpd_put_u64(even, bytes); /* what is too much is written over by what comes next */
		tpd_put_u64(odd, bytes >> 4 * others >> 4 * others);
		odd += count;
		even += others;
	}
	return (size_t)(odd - begin) + scaled_sort(classes + i, symbols + i, n - i, even, odd);
}

#endif

#endif
