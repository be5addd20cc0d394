/*
 * vector_avx512.h - what the loops for AVX-512 share: elements in registers of 16 lanes, and fields of the remainder stream that are pulled into
 * them. Only kernels_avx512.c and what it includes use it.
 */
#ifndef TPD_CODEC_VECTOR_AVX512_H
#define TPD_CODEC_VECTOR_AVX512_H

#if defined(__AVX512VBMI2__) /* elsewhere this is empty, as what includes it is */

#include <immintrin.h>

#include "base/tpd.h"
#include "codec/fields.h"
#include "codec/grid.h"
#include "codec/prefetch_kernel.h"

#define VECTOR_INLINE static inline __attribute__((always_inline))

VECTOR_INLINE __m512i set(int32_t v)
{
	return _mm512_set1_epi32(v);
}

/* The elements of these lanes, zeros in the others. */
VECTOR_INLINE __m512i load(const struct tpd_grid_type type, const uint8_t *from, __mmask16 lanes)
{
	if (type.width == 32)
		return _mm512_maskz_loadu_epi32(lanes, from);
	return _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, from));
}

/* All sixteen. */
VECTOR_INLINE __m512i load_all(const struct tpd_grid_type type, const uint8_t *from)
{
	if (type.width == 32)
		return _mm512_loadu_si512(from);
	return _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)from));
}

VECTOR_INLINE void store(const struct tpd_grid_type type, uint8_t *to, __m512i x)
{
	if (type.width == 32)
		_mm512_storeu_si512(to, x);
	else
		_mm256_storeu_si256((__m256i *)(void *)to, _mm512_cvtepi32_epi16(x));
}

VECTOR_INLINE __mmask16 first_lanes(size_t n)
{
	return (__mmask16)(n >= TPD_LANES ? 0xffffu : (1u << n) - 1);
}

VECTOR_INLINE __m512i magnitude_of(const struct tpd_grid_type type, __m512i x)
{
	return _mm512_and_si512(x, set((int32_t)((UINT32_C(1) << (type.width - 1)) - 1)));
}

VECTOR_INLINE __m512i sign_of(const struct tpd_grid_type type, __m512i x)
{
	return _mm512_srai_epi32(_mm512_slli_epi32(x, 32 - type.width), 31);
}

VECTOR_INLINE __m512i wrapped(const struct tpd_grid_type type, __m512i v)
{
	return type.width == 32 ? v : _mm512_srai_epi32(_mm512_slli_epi32(v, 32 - type.width), 32 - type.width);
}

struct queue {
	__m512i held, count;
	const uint8_t *next, *end;
};

VECTOR_INLINE struct queue queue_of(const struct tpd_fields_in *fields)
{
	return (struct queue){_mm512_loadu_si512(fields->acc), _mm512_loadu_si512(fields->bits), fields->next, fields->end};
}

VECTOR_INLINE void put_queue(const struct queue *queue, struct tpd_fields_in *fields)
{
	_mm512_storeu_si512(fields->acc, queue->held);
	_mm512_storeu_si512(fields->bits, queue->count);
	fields->next = queue->next;
}

/* A field of n bits from each lane. */
VECTOR_INLINE __m512i pull(struct queue *queue, __m512i n)
{
	size_t left = (size_t)(queue->end - queue->next) / 4;
	__mmask16 need = _mm512_cmplt_epi32_mask(queue->count, n);
	__m512i words = __builtin_expect(left >= TPD_LANES, 1) ? _mm512_loadu_si512(queue->next) :
								  _mm512_maskz_loadu_epi32(first_lanes(left), queue->next);
	__m512i fresh = _mm512_maskz_expand_epi32(need, words), value;

	value = _mm512_andnot_si512(_mm512_sllv_epi32(set(-1), n),
				    _mm512_or_si512(queue->held, _mm512_sllv_epi32(fresh, queue->count)));
	queue->held = _mm512_or_si512(_mm512_srlv_epi32(queue->held, n), _mm512_srlv_epi32(fresh, _mm512_sub_epi32(n, queue->count)));
	queue->count = _mm512_and_si512(_mm512_sub_epi32(queue->count, n), set(31));
	queue->next += 4 * (size_t)_mm_popcnt_u32(need);
	return value;
}

#endif

#endif
