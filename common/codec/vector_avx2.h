/*
 * vector_avx2.h - what the loops for AVX2 share: elements in registers of 8 lanes, two of them a round, and fields of the remainder stream that
 * are pulled into them. Only kernels_avx2.c and what it includes use it.
 */
#ifndef TPD_CODEC_VECTOR_AVX2_H
#define TPD_CODEC_VECTOR_AVX2_H

#if defined(__AVX2__) /* elsewhere this is empty, as what includes it is */

#include <immintrin.h>

#include "base/tpd.h"
#include "codec/fields.h"
#include "codec/grid.h"
#include "codec/prefetch_kernel.h"

#define VECTOR_INLINE static inline __attribute__((always_inline))
#define HALF 8u /* lanes of a register */

/* For each mask of 8 lanes; tpd_kernels_avx2_prepare() fills them in. */
static struct {
	uint8_t to_top[256][HALF]; /* dwords: those of the mask, in order, at the end */
	uint8_t expand[256][HALF]; /* dwords: the next one for each lane of the mask */
	uint8_t words_to_top[256][16], words_expand[256][16]; /* the same for words of 16 bits, as bytes */
} tables;

VECTOR_INLINE __m256i set(int32_t v)
{
	return _mm256_set1_epi32(v);
}

VECTOR_INLINE __m256i left(__m256i v, unsigned bits)
{
	return _mm256_slli_epi32(v, (int)bits);
}

VECTOR_INLINE __m256i right(__m256i v, unsigned bits)
{
	return _mm256_srli_epi32(v, (int)bits);
}

VECTOR_INLINE __m256i right_signed(__m256i v, unsigned bits)
{
	return _mm256_srai_epi32(v, (int)bits);
}

VECTOR_INLINE __m128i load_128(const void *from)
{
	return _mm_loadu_si128((const __m128i *)from);
}

VECTOR_INLINE __m256i load_256(const void *from)
{
	return _mm256_loadu_si256((const __m256i *)from);
}

VECTOR_INLINE void store_256(void *to, __m256i v)
{
	_mm256_storeu_si256((__m256i *)to, v);
}

/* A bit a lane. */
VECTOR_INLINE unsigned mask_of(__m256i lanes)
{
	return (unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(lanes));
}

VECTOR_INLINE __m256i permutation(const uint8_t entry[HALF])
{
	return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)entry));
}

VECTOR_INLINE __m256i load(const struct tpd_grid_type type, const uint8_t *from)
{
	return type.width == 32 ? load_256(from) : _mm256_cvtepu16_epi32(load_128(from));
}

/* 16 lanes of small numbers as bytes. */
VECTOR_INLINE __m128i narrow(__m256i low, __m256i high)
{
	__m256i words = _mm256_permute4x64_epi64(_mm256_packus_epi32(low, high), 0xd8);

	return _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
}

VECTOR_INLINE __m256i magnitude_of(const struct tpd_grid_type type, __m256i x)
{
	return _mm256_and_si256(x, set((int32_t)((UINT32_C(1) << (type.width - 1)) - 1)));
}

VECTOR_INLINE __m256i sign_of(const struct tpd_grid_type type, __m256i x)
{
	return right_signed(left(x, 32 - type.width), 31);
}

VECTOR_INLINE __m256i wrapped(const struct tpd_grid_type type, __m256i v)
{
	return type.width == 32 ? v : right_signed(left(v, 32 - type.width), 32 - type.width);
}

/* b where the mask says, else a. */
VECTOR_INLINE __m256i choose_lanes(__m256i a, __m256i b, __m256i mask)
{
	return _mm256_blendv_epi8(a, b, mask);
}

/* A field of n bits from each lane of a half; 8 words may be read at *next. */
VECTOR_INLINE __m256i pull_half(__m256i *held, __m256i *count, __m256i n, const uint8_t **next)
{
	__m256i need = _mm256_cmpgt_epi32(n, *count), fresh, value;
	unsigned mask = mask_of(need);

	fresh = _mm256_and_si256(need, _mm256_permutevar8x32_epi32(load_256(*next), permutation(tables.expand[mask])));
	value = _mm256_andnot_si256(_mm256_sllv_epi32(set(-1), n), _mm256_or_si256(*held, _mm256_sllv_epi32(fresh, *count)));
	*held = _mm256_or_si256(_mm256_srlv_epi32(*held, n), _mm256_srlv_epi32(fresh, _mm256_sub_epi32(n, *count)));
	*count = _mm256_and_si256(_mm256_sub_epi32(*count, n), set(31));
	*next += 4 * (size_t)__builtin_popcount(mask);
	return value;
}

/* 16 patterns of 16 bits. */
VECTOR_INLINE void store_halves(const struct tpd_grid_type type, uint8_t *to, __m256i low, __m256i high)
{
	if (type.width == 32) {
		store_256(to, low);
		store_256(to + 4 * HALF, high);
	} else {
		store_256(to, _mm256_permute4x64_epi64(_mm256_packus_epi32(low, high), 0xd8));
	}
}

#endif

#endif
