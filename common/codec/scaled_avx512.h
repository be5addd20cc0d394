/*
 * scaled_avx512.h - the loops of encoding `scaled` (scaled_kernel.h) for AVX-512: 16 elements to a register, each with a T of its own. Only
 * kernels_avx512.c includes it.
 */
#ifndef TPD_CODEC_SCALED_AVX512_H
#define TPD_CODEC_SCALED_AVX512_H

#if defined(__AVX512VBMI2__) /* elsewhere this is empty, as what includes it is */

#include <immintrin.h>

#include "base/tpd.h"
#include "codec/kernels_internal.h"
#include "codec/scaled_kernel.h"
#include "codec/vector_avx512.h"

/* struct scaled_step of each element. */
struct vector_step {
	__m512i t, base, limit;
	__m512 scale;
	__mmask16 has_steps;
};

VECTOR_INLINE struct vector_step vector_step_of(const struct tpd_grid_type type, const uint8_t *steps, __mmask16 lanes)
{
	const __m512i t = _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(lanes, steps)), m = set((int32_t)type.mantissa);
	struct vector_step step = {.t = t, .limit = _mm512_slli_epi32(t, type.mantissa)};

	step.has_steps = _mm512_test_epi32_mask(t, t);
	step.base = _mm512_maskz_sub_epi32(step.has_steps, step.limit, set(1 << type.mantissa));
	step.scale = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_sub_epi32(set(254 + (int32_t)type.mantissa),
									      _mm512_mask_mov_epi32(set(254), _mm512_cmpgt_epi32_mask(t, m), t)), 23));
	return step;
}

VECTOR_INLINE __m512i scaled_vector_g(const struct tpd_grid_type type, const struct vector_step *step, __m512i magnitude)
{
	__mmask16 inside = _mm512_cmplt_epi32_mask(magnitude, step->limit);
	__m512 value = _mm512_mul_ps(_mm512_castsi512_ps(_mm512_slli_epi32(magnitude, 23 - type.mantissa)), step->scale);

	return _mm512_mask_cvttps_epi32(_mm512_sub_epi32(magnitude, step->base), inside, value);
}

VECTOR_INLINE void scaled_encode_round(const struct tpd_grid_type type, const struct vector_step *step, __m512i x, __m512i p, __m512i *out_symbols,
				       __m512i *out_values, __m512i *out_bits)
{
	const int32_t m = (int32_t)type.mantissa;
	const __m512i magnitude = magnitude_of(type, x), field = _mm512_srli_epi32(magnitude, type.mantissa);
	const __m512i g = scaled_vector_g(type, step, magnitude), q = _mm512_xor_si512(g, sign_of(type, x));
	const __m512i q_p = _mm512_xor_si512(scaled_vector_g(type, step, magnitude_of(type, p)), sign_of(type, p));
	const __m512i d = _mm512_add_epi32(wrapped(type, _mm512_sub_epi32(q, q_p)), set(SCALED_MIDDLE));
	const __m512i off = _mm512_sub_epi32(_mm512_sub_epi32(step->t, set(m + 1)), field);
	const __mmask16 nothing = _mm512_testn_epi32_mask(g, g) & step->has_steps, inside = _mm512_cmplt_epi32_mask(magnitude, step->limit);
	const __mmask16 small = nothing & _mm512_test_epi32_mask(field, field) & _mm512_cmplt_epi32_mask(off, set(SCALED_EXPONENTS));
	const __mmask16 coded = _mm512_cmplt_epu32_mask(_mm512_sub_epi32(d, set(SCALED_FIRST)), set(SCALED_SMALL - SCALED_FIRST)) & (__mmask16)~nothing;
	const __mmask16 equal = _mm512_cmpeq_epi32_mask(x, p), told = (__mmask16)~(equal | _mm512_testn_epi32_mask(x, x));
	__m512i symbol = _mm512_add_epi32(_mm512_slli_epi32(off, 1), _mm512_srli_epi32(x, type.width - 1)), bits, values;
	const __m512i remain = _mm512_maskz_sub_epi32(coded & inside, step->t, field);

	symbol = _mm512_maskz_add_epi32(small & told, symbol, set(SCALED_SMALL));
	symbol = _mm512_mask_mov_epi32(symbol, coded & told, d);
	symbol = _mm512_mask_mov_epi32(symbol, (__mmask16)~told, set(TPD_SYMBOL_ZERO));
	*out_symbols = _mm512_mask_mov_epi32(symbol, equal, set(TPD_SYMBOL_EQUAL));
	bits = _mm512_mask_mov_epi32(set((int32_t)type.width), small, set(m));
	*out_bits = _mm512_maskz_mov_epi32(told, _mm512_mask_mov_epi32(bits, coded, remain));
	values = _mm512_mask_and_epi32(x, small, magnitude, set((1 << m) - 1));
	values = _mm512_mask_andnot_epi32(values, coded, _mm512_sllv_epi32(set(-1), remain), magnitude);
	*out_values = _mm512_maskz_mov_epi32(told, values);
}

VECTOR_INLINE void scaled_encode_rounds(const struct tpd_grid_type type, const uint8_t *steps, const uint8_t *x, const uint8_t *p, size_t n,
					uint8_t *symbols, uint32_t *values, uint8_t *bits)
{
	const size_t width = type.width / 8;

	for (size_t i = 0; i < n; i += TPD_LANES) {
		const __mmask16 lanes = first_lanes(n - i);
		const struct vector_step step = vector_step_of(type, steps + i, lanes);
		__m512i these, value, bit;

		scaled_encode_round(type, &step, load(type, x + i * width, lanes), load(type, p + i * width, lanes), &these, &value, &bit);
		_mm_mask_storeu_epi8(symbols + i, lanes, _mm512_cvtepi32_epi8(these));
		_mm512_storeu_si512(values + i, value);
		_mm_storeu_si128((__m128i *)(void *)(bits + i), _mm512_cvtepi32_epi8(bit));
	}
}

VECTOR_INLINE __m512i scaled_decode_round(const struct tpd_grid_type type, const struct vector_step *step, __m512i p, __m512i symbols,
					  struct queue *queue, __m512i *wrong)
{
	const int32_t m = (int32_t)type.mantissa;
	const __m512i one = set(1 << m), top = set((int32_t)(UINT32_C(1) << (type.width - 1)));
	const __mmask16 small = _mm512_cmpge_epi32_mask(symbols, set(SCALED_SMALL)), escape = _mm512_testn_epi32_mask(symbols, symbols);
	const __mmask16 coded = _mm512_cmpge_epi32_mask(symbols, set(SCALED_FIRST)) & (__mmask16)~small;
	const __mmask16 equal = _mm512_cmpeq_epi32_mask(symbols, set(TPD_SYMBOL_EQUAL));
	__m512i q = _mm512_xor_si512(scaled_vector_g(type, step, magnitude_of(type, p)), sign_of(type, p)), g, told, n, value, magnitude, little, field;
	__mmask16 nothing, inner, bad;

	q = wrapped(type, _mm512_add_epi32(q, _mm512_sub_epi32(symbols, set(SCALED_MIDDLE))));
	g = _mm512_xor_si512(q, _mm512_srai_epi32(q, 31));
	nothing = _mm512_testn_epi32_mask(g, g);
	inner = _mm512_cmplt_epi32_mask(g, one) & step->has_steps;
	told = _mm512_castps_si512(_mm512_cvtepi32_ps(g));
	n = _mm512_maskz_sub_epi32(inner & coded & (__mmask16)~nothing, set(m + 127), _mm512_srli_epi32(told, 23));
	n = _mm512_mask_mov_epi32(n, small, set(m));
	n = _mm512_mask_mov_epi32(n, escape, set((int32_t)type.width));
	value = pull(queue, n);
	magnitude = _mm512_add_epi32(_mm512_srli_epi32(told, 23 - type.mantissa), _mm512_sub_epi32(step->limit, set((m + 127) << m)));
	magnitude = _mm512_mask_add_epi32(_mm512_add_epi32(g, step->base), inner, magnitude, value);
	field = _mm512_sub_epi32(_mm512_sub_epi32(step->t, set(m + 1)), _mm512_srli_epi32(_mm512_sub_epi32(symbols, set(SCALED_SMALL)), 1));
	little = _mm512_add_epi32(_mm512_slli_epi32(field, type.mantissa), value);
	bad = coded & (_mm512_test_epi32_mask(magnitude, set((int32_t)(UINT32_MAX << (type.width - 1)))) | (nothing & step->has_steps));
	bad |= small & ((__mmask16)~step->has_steps | _mm512_cmplt_epi32_mask(field, set(1)));
	*wrong = _mm512_mask_mov_epi32(*wrong, bad, one);
	magnitude = _mm512_or_si512(magnitude, _mm512_and_si512(q, top));
	little = _mm512_mask_or_epi32(little, _mm512_test_epi32_mask(symbols, set(1)), little, top);
	value = _mm512_mask_mov_epi32(value, coded, magnitude);
	value = _mm512_mask_mov_epi32(value, small, little);
	return _mm512_mask_mov_epi32(value, equal, p);
}

VECTOR_INLINE bool scaled_decode_rounds(const struct tpd_grid_type type, const uint8_t *steps, const uint8_t *p, const uint8_t *symbols, size_t n,
					uint8_t *out, struct tpd_fields_in *fields)
{
	const size_t width = type.width / 8;
	struct queue queue = queue_of(fields);
	__m512i wrong = _mm512_setzero_si512();

	for (size_t i = 0; i < n && queue.next <= queue.end; i += TPD_LANES) {
		const __mmask16 lanes = first_lanes(n - i);
		const struct vector_step step = vector_step_of(type, steps + i, lanes);
		__m512i these = _mm512_cvtepu8_epi32(_mm_mask_loadu_epi8(_mm_set1_epi8(TPD_SYMBOL_EQUAL), lanes, symbols + i));
		__m512i x = scaled_decode_round(type, &step, load(type, p + i * width, lanes), these, &queue, &wrong);

		if (type.width == 32)
			_mm512_mask_storeu_epi32(out + i * width, lanes, x);
		else
			_mm256_mask_storeu_epi16(out + i * width, lanes, _mm512_cvtepi32_epi16(x));
	}
	put_queue(&queue, fields);
	return queue.next <= queue.end && _mm512_test_epi32_mask(wrong, wrong) == 0;
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

/* --- symbols by class: a mask of 64 elements each --- */

VECTOR_INLINE __mmask64 first_bytes(size_t n)
{
	return n >= 64 ? ~(__mmask64)0 : ((__mmask64)1 << n) - 1;
}

/* Of these elements, those of class 1. */
VECTOR_INLINE __mmask64 class_mask(const uint8_t *classes, __mmask64 bytes)
{
	return _mm512_test_epi8_mask(_mm512_maskz_loadu_epi8(bytes, classes), _mm512_set1_epi8(1));
}

static size_t vector_scaled_deal(const uint8_t *classes, size_t n, const uint8_t *even, const uint8_t *odd, uint8_t *out)
{
	const uint8_t *begin = odd;

	for (size_t i = 0; i < n; i += 64) {
		const __mmask64 bytes = first_bytes(n - i), mask = class_mask(classes + i, bytes);
		const unsigned count = (unsigned)_mm_popcnt_u64(mask);
		const __m512i these = _mm512_maskz_expand_epi8(mask, _mm512_loadu_si512(odd));

		_mm512_mask_storeu_epi8(out + i, bytes, _mm512_mask_expand_epi8(these, ~mask, _mm512_loadu_si512(even)));
		odd += count;
		even += 64 - count; /* after the last it is not used */
	}
	return (size_t)(odd - begin);
}

static size_t vector_scaled_sort(const uint8_t *classes, const uint8_t *symbols, size_t n, uint8_t *even, uint8_t *odd)
{
	uint8_t *begin = odd;

	for (size_t i = 0; i < n; i += 64) {
		const __mmask64 bytes = first_bytes(n - i), mask = class_mask(classes + i, bytes);
		const __m512i these = _mm512_maskz_loadu_epi8(bytes, symbols + i);
		const unsigned count = (unsigned)_mm_popcnt_u64(mask), others = (unsigned)_mm_popcnt_u64(bytes & ~mask);

		_mm512_mask_storeu_epi8(odd, first_bytes(count), _mm512_maskz_compress_epi8(mask, these));
		_mm512_mask_storeu_epi8(even, first_bytes(others), _mm512_maskz_compress_epi8(bytes & ~mask, these));
		odd += count;
		even += others;
	}
	return (size_t)(odd - begin);
}

#endif

#endif
