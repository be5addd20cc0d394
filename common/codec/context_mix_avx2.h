/*
 * context_mix_avx2.h - what context_mix.h does, with all inputs of a bit in one register. For context_avx2.c.
 *
 * Lanes: six slots, what is expected, and the constant. A logarithm takes its whole part and its first bits from the pattern of a float, which is
 * where a float has them; what a slot has seen is divided by in single precision, whose rounding cannot reach the next integer (131072 / d differs
 * from any by 1 / d at least). All else is as it stands there, lane by lane.
 */
#ifndef TPD_CODEC_CONTEXT_MIX_AVX2_H
#define TPD_CODEC_CONTEXT_MIX_AVX2_H

#if defined(__AVX2__) /* elsewhere this is empty, as what includes it is */

#include <immintrin.h>

#include "codec/context_model.h"

#define LANE_EXPECTED 6u
#define LANE_CONSTANT 7u
_Static_assert(MIXED == LANE_EXPECTED && INPUTS == 8, "a lane for each input");

/* One bit's, kept until it is known. */
struct context_inputs {
	__m256i of, slots;
	int32_t logits[2];
};

TPD_INLINE __m256i set(int32_t v)
{
	return _mm256_set1_epi32(v);
}

TPD_INLINE __m256i *weights_of(const struct context_bit *bit, unsigned mix)
{
	return (__m256i *)(void *)bit->mixes[mix]->weights;
}

/* context_log() of 1 .. 65535, and 127 * 65536 more. */
TPD_INLINE __m256i log_of(__m256i v)
{
	const __m256i log = _mm256_srli_epi32(_mm256_castps_si256(_mm256_cvtepi32_ps(v)), 7), part = _mm256_and_si256(log, set(65535));
	const __m256i bend = _mm256_srli_epi32(_mm256_mullo_epi32(part, _mm256_sub_epi32(set(65536), part)), 16);

	return _mm256_add_epi32(log, _mm256_srli_epi32(_mm256_mullo_epi32(bend, set(22544)), 16));
}

TPD_INLINE uint32_t context_chance(const struct tpd_context_model *model, const struct context_bit *bit, uint32_t expected, const int32_t *logit,
				   struct context_inputs *out)
{
	const __m256i slots = _mm256_setr_epi32((int32_t)*bit->slots[0], (int32_t)*bit->slots[1], (int32_t)*bit->slots[2], (int32_t)*bit->slots[3],
						(int32_t)*bit->slots[4], (int32_t)*bit->slots[5], 0, 0);
	const __m256i is_new = _mm256_cmpeq_epi32(_mm256_and_si256(slots, set(1023)), _mm256_setzero_si256());
	__m256i chances, inputs, products[2];
	__m128i sums;

	out->slots = _mm256_blendv_epi8(slots, set((int32_t)(expected << 16 | COUNT_FIRST)), is_new);
	chances = _mm256_srli_epi32(out->slots, 16);
	inputs = _mm256_srai_epi32(_mm256_sub_epi32(log_of(chances), log_of(_mm256_sub_epi32(set(65536), chances))), 8);
	if (logit)
		inputs = _mm256_blend_epi32(inputs, set(*logit), 1 << LANE_EXPECTED);
	out->of = inputs = _mm256_blend_epi32(inputs, set(CONSTANT), 1 << LANE_CONSTANT);
	for (unsigned m = 0; m < 2; m++)
		products[m] = _mm256_srai_epi32(_mm256_mullo_epi32(inputs, _mm256_loadu_si256(weights_of(bit, m))), 8);
	products[0] = _mm256_hadd_epi32(products[0], products[1]);
	sums = _mm_add_epi32(_mm256_castsi256_si128(products[0]), _mm256_extracti128_si256(products[0], 1));
	sums = _mm_srai_epi32(_mm_hadd_epi32(sums, sums), 8);
	sums = _mm_max_epi32(_mm_set1_epi32(-LOGIT_MOST), _mm_min_epi32(sums, _mm_set1_epi32(LOGIT_MOST)));
	out->logits[0] = _mm_cvtsi128_si32(sums);
	out->logits[1] = _mm_extract_epi32(sums, 1);
	return context_squash(model, (out->logits[0] + out->logits[1]) >> 1);
}

/* chance + off * share / 65536, rounded down: products have up to 39 bits. */
TPD_INLINE __m256i approach(__m256i chance, __m256i off, __m256i share)
{
	const __m256i even = _mm256_srli_epi64(_mm256_mul_epi32(off, share), 16);
	const __m256i odd = _mm256_slli_epi64(_mm256_mul_epi32(_mm256_srli_epi64(off, 32), _mm256_srli_epi64(share, 32)), 16);

	return _mm256_add_epi32(chance, _mm256_blend_epi32(even, odd, 0xaa));
}

TPD_INLINE void context_learn(const struct tpd_context_model *model, const struct context_bit *bit, const struct context_inputs *inputs,
			      unsigned is)
{
	const __m256i count = _mm256_and_si256(inputs->slots, set(1023)), chance = _mm256_srli_epi32(inputs->slots, 10);
	const __m256 seen = _mm256_cvtepi32_ps(_mm256_add_epi32(_mm256_add_epi32(count, count), set(3)));
	const __m256i share = _mm256_cvttps_epi32(_mm256_div_ps(_mm256_set1_ps(131072), seen)), off = _mm256_sub_epi32(set((int32_t)(is << 22)), chance);
	__m256i now;

	for (unsigned m = 0; m < 2; m++) {
		const __m256i miss = set((int32_t)(is << 16) - (int32_t)context_squash(model, inputs->logits[m]));
		const __m256i step = _mm256_srai_epi32(_mm256_add_epi32(_mm256_mullo_epi32(inputs->of, miss), set(1 << 14)), 15);
		const __m256i weights = _mm256_add_epi32(_mm256_loadu_si256(weights_of(bit, m)), step);

		_mm256_storeu_si256(weights_of(bit, m), _mm256_max_epi32(set(-WEIGHT_MOST), _mm256_min_epi32(weights, set(WEIGHT_MOST))));
	}
	now = _mm256_min_epi32(approach(chance, off, share), set((65536 - CHANCE_LEAST) << 6));
	now = _mm256_slli_epi32(_mm256_max_epi32(now, set(CHANCE_LEAST << 6)), 10);
	now = _mm256_or_si256(now, _mm256_sub_epi32(count, _mm256_cmpgt_epi32(set((int32_t)COUNT_MOST), count)));
	*bit->slots[0] = (uint32_t)_mm256_extract_epi32(now, 0);
	*bit->slots[1] = (uint32_t)_mm256_extract_epi32(now, 1);
	*bit->slots[2] = (uint32_t)_mm256_extract_epi32(now, 2);
	*bit->slots[3] = (uint32_t)_mm256_extract_epi32(now, 3);
	*bit->slots[4] = (uint32_t)_mm256_extract_epi32(now, 4);
	*bit->slots[5] = (uint32_t)_mm256_extract_epi32(now, 5);
}

#endif

#endif
