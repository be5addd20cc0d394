/*
 * predict_avx512.h - the loops of a prediction (predict_kernel.h) for AVX-512: everything of 16 elements in registers, from what they are
 * predicted from to the sums or the prediction. Only kernels_avx512.c includes it.
 *
 * Roots and divisions take most of the time, and all else runs beside them. A product of two floats is exact in double, so a fused
 * multiplication and addition rounds as the two do: the sums are those of the plain form, bit for bit.
 */
#ifndef TPD_CODEC_PREDICT_AVX512_H
#define TPD_CODEC_PREDICT_AVX512_H

#if defined(__AVX512VBMI2__) /* elsewhere this is empty, as what includes it is */

#include <immintrin.h>

#include "base/tpd.h"
#include "codec/kernels_internal.h"
#include "codec/predict.h"
#include "codec/predict_kernel.h"
#include "codec/vector_avx512.h"

#define PREDICT_VECTOR 16u
#define ALL_LANES 0xffffu

VECTOR_INLINE __m512 predict_at(const uint8_t *from, size_t i, __mmask16 lanes)
{
	const uint8_t *at = from + i * sizeof(float);

	return lanes == ALL_LANES ? _mm512_loadu_ps(at) : _mm512_maskz_loadu_ps(lanes, at); /* a mask takes an operation of its own */
}

VECTOR_INLINE __m512 vector_ratio(__m512 m, __m512 v)
{
	__mmask16 above = _mm512_cmp_ps_mask(v, _mm512_setzero_ps(), _CMP_GT_OQ);

	__m512 guess = _mm512_castsi512_ps(_mm512_sub_epi32(set(ROOT_GUESS), _mm512_srli_epi32(_mm512_castps_si512(v), 1)));
	__m512 rest = _mm512_sub_ps(_mm512_set1_ps(ROOT_ABOVE), _mm512_mul_ps(_mm512_mul_ps(v, guess), guess));

	return _mm512_maskz_mul_ps(above, m, _mm512_mul_ps(_mm512_mul_ps(guess, _mm512_set1_ps(ROOT_FACTOR)), rest));
}

/* Term k of the elements of these lanes from i on, of which w1 is loaded. */
VECTOR_INLINE __m512 vector_term(const struct tpd_predict_from *from, unsigned k, size_t i, __mmask16 lanes, __m512 w1)
{
	switch (k) {
	case 0:
		return w1;
	case 1:
		return _mm512_sub_ps(w1, predict_at(from->of[TPD_INPUT_W0], i, lanes));
	case 2:
		return vector_ratio(predict_at(from->of[TPD_INPUT_M1], i, lanes), predict_at(from->of[TPD_INPUT_V1], i, lanes));
	default:
		return vector_ratio(predict_at(from->of[TPD_INPUT_M2], i, lanes), predict_at(from->of[TPD_INPUT_V2], i, lanes));
	}
}

/* w1 + sum, w1 where that is not finite. */
VECTOR_INLINE __m512 vector_arrive(__m512 w1, __m512 sum)
{
	__m512 p = _mm512_add_ps(w1, sum);
	__mmask16 finite = _mm512_cmp_ps_mask(_mm512_sub_ps(p, p), _mm512_setzero_ps(), _CMP_EQ_OQ);

	return _mm512_mask_mov_ps(w1, finite, p);
}

VECTOR_INLINE __m512 predict_round(const unsigned terms, const struct tpd_predict_from *from, size_t i, __mmask16 lanes,
				   const __m512 c[TPD_TERMS])
{
	const __m512 w1 = predict_at(from->w1, i, lanes);
	__m512 sum = _mm512_setzero_ps();

#pragma GCC unroll 4
	for (unsigned k = 0; k < TPD_TERMS; k++)
		if (terms >> k & 1)
			sum = _mm512_add_ps(sum, _mm512_mul_ps(c[k], vector_term(from, k, i, lanes, w1)));
	return vector_arrive(w1, sum);
}

VECTOR_INLINE void predict_rounds(const unsigned terms, const struct tpd_predict_from *from, size_t start, const float coefficients[TPD_TERMS],
				  size_t n, float *out)
{
	const struct tpd_predict_from local = *from; /* which nobody may write to */
	__m512 c[TPD_TERMS];
	size_t i = 0;

	for (unsigned k = 0; k < TPD_TERMS; k++)
		c[k] = _mm512_set1_ps(coefficients[k]);
	for (; i + PREDICT_VECTOR <= n; i += PREDICT_VECTOR)
		_mm512_storeu_ps(out + i, predict_round(terms, &local, start + i, ALL_LANES, c));
	if (i < n)
		_mm512_mask_storeu_ps(out + i, first_lanes(n - i), predict_round(terms, &local, start + i, first_lanes(n - i), c));
}

/* As sum_of_lanes() in predict_kernel.h. */
VECTOR_INLINE double vector_sum(__m512d lanes)
{
	__m256d four = _mm256_add_pd(_mm512_castpd512_pd256(lanes), _mm512_extractf64x4_pd(lanes, 1));
	__m128d two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd(four, 1));

	return _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)));
}

/* The terms of a round of elements from i on, and x - w1 behind them; they are kept. */
VECTOR_INLINE void learn_terms(const unsigned terms, const struct tpd_predict_from *from, const uint8_t *x, size_t i, __mmask16 lanes, float *out,
			       __m512 arrays[TPD_TERMS + 1])
{
	const __m512 w1 = predict_at(from->w1, i, lanes);
	unsigned at = 0;

	_mm512_storeu_ps(out, w1);
#pragma GCC unroll 4
	for (unsigned k = 0; k < TPD_TERMS; k++) {
		if (!(terms >> k & 1))
			continue;
		arrays[at] = vector_term(from, k, i, lanes, w1);
		if (k > 0)
			_mm512_storeu_ps(out + k * TPD_TERM_ROOM, arrays[at]);
		at++;
	}
	arrays[at] = _mm512_sub_ps(predict_at(x, i, lanes), w1);
}

/* As learn_products() in predict_kernel.h. */
VECTOR_INLINE void vector_products(const unsigned count, const __m512 arrays[TPD_TERMS + 1], __m512 sums[TPD_PRODUCTS])
{
	unsigned pair = 0;

#pragma GCC unroll 5
	for (unsigned a = 0; a < count; a++)
#pragma GCC unroll 5
		for (unsigned b = a; b < count; b++, pair++)
			sums[pair] = _mm512_add_ps(sums[pair], _mm512_mul_ps(arrays[a], arrays[b]));
}

/* Products of a round wait for its roots and divisions: those of the next one are begun before. */
VECTOR_INLINE void learn_rounds(const unsigned terms, const struct tpd_predict_from *from, size_t start, const uint8_t *x, size_t n,
				float *out, double *products)
{
	const struct tpd_predict_from local = *from;
	const unsigned count = (unsigned)__builtin_popcount(terms) + 1, pairs = count * (count + 1) / 2;
	__m512 arrays[TPD_TERMS + 1], next[TPD_TERMS + 1];
	__m512 sums[TPD_PRODUCTS];
	size_t i = PREDICT_VECTOR;

#pragma GCC unroll 15
	for (unsigned pair = 0; pair < pairs; pair++)
		sums[pair] = _mm512_setzero_ps();
	learn_terms(terms, &local, x, start, first_lanes(n), out, next);
	for (; i + PREDICT_VECTOR <= n; i += PREDICT_VECTOR) {
#pragma GCC unroll 5
		for (unsigned a = 0; a < count; a++)
			arrays[a] = next[a];
		learn_terms(terms, &local, x, start + i, ALL_LANES, out + i, next);
		vector_products(count, arrays, sums);
	}
	vector_products(count, next, sums);
	if (i < n) {
		learn_terms(terms, &local, x, start + i, first_lanes(n - i), out + i, next);
		vector_products(count, next, sums);
	}
#pragma GCC unroll 15
	for (unsigned pair = 0; pair < pairs; pair++)
		products[pair] = vector_sum(_mm512_add_pd(_mm512_cvtps_pd(_mm512_castps512_ps256(sums[pair])),
							  _mm512_cvtps_pd(_mm512_extractf32x8_ps(sums[pair], 1))));
}

static void vector_predict(const struct tpd_predict_from *from, size_t start, const float coefficients[TPD_TERMS], size_t n, float *out)
{
	switch (from->terms) {
#define CASE(set) \
	case set: \
		predict_rounds(set, from, start, coefficients, n, out); \
		break;
		EACH_TERM_SET(CASE)
#undef CASE
	default:
		predict(from, start, coefficients, n, out);
	}
}

static void vector_learn(const struct tpd_predict_from *from, size_t start, const uint8_t *x, size_t n, float *terms, double *products)
{
	switch (from->terms) {
#define CASE(set) \
	case set: \
		learn_rounds(set, from, start, x, n, terms, products); \
		break;
		EACH_TERM_SET(CASE)
#undef CASE
	default:
		predict_learn(from, start, x, n, terms, products);
	}
}

static void vector_apply(const float *w1, const float *const terms[TPD_TERMS], const float coefficients[TPD_TERMS], size_t n, float *out)
{
	for (size_t i = 0; i < n; i += PREDICT_VECTOR) {
		const __mmask16 lanes = first_lanes(n - i);
		__m512 sum = _mm512_setzero_ps();

#pragma GCC unroll 4
		for (unsigned k = 0; k < TPD_TERMS; k++)
			if (terms[k])
				sum = _mm512_add_ps(sum, _mm512_mul_ps(_mm512_set1_ps(coefficients[k]), _mm512_maskz_loadu_ps(lanes, terms[k] + i)));
		_mm512_mask_storeu_ps(out + i, lanes, vector_arrive(_mm512_maskz_loadu_ps(lanes, w1 + i), sum));
	}
}

#endif

#endif
