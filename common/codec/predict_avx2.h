/*
 * predict_avx2.h - the loops of a prediction (predict_kernel.h) for AVX2, eight elements to a register. Only kernels_avx2.c includes it.
 *
 * The sums of products have more lanes than there are registers, so they are made of the terms once these are in memory, a row of the
 * matrix at a time. What is left behind whole registers is moved to where zeros follow.
 */
#ifndef TPD_CODEC_PREDICT_AVX2_H
#define TPD_CODEC_PREDICT_AVX2_H

#if defined(__AVX2__) /* elsewhere this is empty, as what includes it is */

#include <immintrin.h>
#include <string.h>

#include "base/tpd.h"
#include "codec/predict.h"
#include "codec/predict_kernel.h"
#include "codec/vector_avx2.h"

#define PREDICT_VECTOR 8u

VECTOR_INLINE __m256 predict_at(const uint8_t *from, size_t i)
{
	return _mm256_loadu_ps((const float *)(const void *)(from + i * sizeof(float)));
}

VECTOR_INLINE __m256 vector_ratio(__m256 m, __m256 v)
{
	__m256 above = _mm256_cmp_ps(v, _mm256_setzero_ps(), _CMP_GT_OQ);

	__m256 guess = _mm256_castsi256_ps(_mm256_sub_epi32(set(ROOT_GUESS), _mm256_srli_epi32(_mm256_castps_si256(v), 1)));
	__m256 rest = _mm256_sub_ps(_mm256_set1_ps(ROOT_ABOVE), _mm256_mul_ps(_mm256_mul_ps(v, guess), guess));

	return _mm256_and_ps(above, _mm256_mul_ps(m, _mm256_mul_ps(_mm256_mul_ps(guess, _mm256_set1_ps(ROOT_FACTOR)), rest)));
}

VECTOR_INLINE __m256 vector_term(const struct tpd_predict_from *from, unsigned k, size_t i, __m256 w1)
{
	switch (k) {
	case 0:
		return w1;
	case 1:
		return _mm256_sub_ps(w1, predict_at(from->of[TPD_INPUT_W0], i));
	case 2:
		return vector_ratio(predict_at(from->of[TPD_INPUT_M1], i), predict_at(from->of[TPD_INPUT_V1], i));
	default:
		return vector_ratio(predict_at(from->of[TPD_INPUT_M2], i), predict_at(from->of[TPD_INPUT_V2], i));
	}
}

/* w1 + sum, w1 where that is not finite. */
VECTOR_INLINE __m256 vector_arrive(__m256 w1, __m256 sum)
{
	__m256 p = _mm256_add_ps(w1, sum);

	return _mm256_blendv_ps(w1, p, _mm256_cmp_ps(_mm256_sub_ps(p, p), _mm256_setzero_ps(), _CMP_EQ_OQ));
}

/* The last `count` elements, fewer than a register, and zeros behind them. */
struct predict_rest {
	float w1[PREDICT_VECTOR], of[TPD_INPUT_COUNT][PREDICT_VECTOR];
	struct tpd_predict_from from;
};

static void predict_rest_of(const struct tpd_predict_from *from, size_t start, size_t count, struct predict_rest *rest)
{
	memset(rest, 0, sizeof(*rest));
	memcpy(rest->w1, from->w1 + start * sizeof(float), count * sizeof(float));
	rest->from = (struct tpd_predict_from){.terms = from->terms, .w1 = (const uint8_t *)rest->w1};
	for (unsigned k = 0; k < TPD_INPUT_COUNT; k++) {
		if (from->of[k])
			memcpy(rest->of[k], from->of[k] + start * sizeof(float), count * sizeof(float));
		rest->from.of[k] = (const uint8_t *)rest->of[k];
	}
}

VECTOR_INLINE __m256 predict_round(const unsigned terms, const struct tpd_predict_from *from, const float coefficients[TPD_TERMS], size_t i)
{
	const __m256 w1 = predict_at(from->w1, i);
	__m256 sum = _mm256_setzero_ps();

#pragma GCC unroll 4
	for (unsigned k = 0; k < TPD_TERMS; k++)
		if (terms >> k & 1)
			sum = _mm256_add_ps(sum, _mm256_mul_ps(_mm256_set1_ps(coefficients[k]), vector_term(from, k, i, w1)));
	return vector_arrive(w1, sum);
}

VECTOR_INLINE void predict_rounds(const unsigned terms, const struct tpd_predict_from *from, size_t start, const float coefficients[TPD_TERMS],
				  size_t n, float *out)
{
	const struct tpd_predict_from local = *from; /* which nobody may write to */
	struct predict_rest rest;
	float last[PREDICT_VECTOR];
	size_t i = 0;

	for (; i + PREDICT_VECTOR <= n; i += PREDICT_VECTOR)
		_mm256_storeu_ps(out + i, predict_round(terms, &local, coefficients, start + i));
	if (i == n)
		return;
	predict_rest_of(from, start + i, n - i, &rest);
	_mm256_storeu_ps(last, predict_round(terms, &rest.from, coefficients, 0));
	memcpy(out + i, last, (n - i) * sizeof(float));
}

/* The terms of a round into memory, and x - w1. */
VECTOR_INLINE void learn_round(const unsigned terms, const struct tpd_predict_from *from, const uint8_t *x, size_t i, float *out, float *change)
{
	const __m256 w1 = predict_at(from->w1, i);

	_mm256_storeu_ps(out, w1);
#pragma GCC unroll 3
	for (unsigned k = 1; k < TPD_TERMS; k++)
		if (terms >> k & 1)
			_mm256_storeu_ps(out + k * TPD_TERM_ROOM, vector_term(from, k, i, w1));
	_mm256_storeu_ps(change, _mm256_sub_ps(predict_at(x, i), w1));
}

/* A row of the matrix: the first array with each of them. n is a multiple of 8. */
VECTOR_INLINE double *products_of_row(const float *const *arrays, const unsigned count, size_t n, double *out)
{
	__m256 low[TPD_TERMS + 1], high[TPD_TERMS + 1];
	size_t i = 0;

#pragma GCC unroll 5
	for (unsigned b = 0; b < count; b++)
		low[b] = high[b] = _mm256_setzero_ps();
	for (; i + 2 * PREDICT_VECTOR <= n; i += 2 * PREDICT_VECTOR) {
		const __m256 a_low = _mm256_loadu_ps(arrays[0] + i), a_high = _mm256_loadu_ps(arrays[0] + i + PREDICT_VECTOR);

#pragma GCC unroll 5
		for (unsigned b = 0; b < count; b++) {
			low[b] = _mm256_add_ps(low[b], _mm256_mul_ps(a_low, _mm256_loadu_ps(arrays[b] + i)));
			high[b] = _mm256_add_ps(high[b], _mm256_mul_ps(a_high, _mm256_loadu_ps(arrays[b] + i + PREDICT_VECTOR)));
		}
	}
#pragma GCC unroll 5
	for (unsigned b = 0; i < n && b < count; b++)
		low[b] = _mm256_add_ps(low[b], _mm256_mul_ps(_mm256_loadu_ps(arrays[0] + i), _mm256_loadu_ps(arrays[b] + i)));
#pragma GCC unroll 5
	for (unsigned b = 0; b < count; b++) { /* as learn_products() and sum_of_lanes() in predict_kernel.h */
		__m256d four_low = _mm256_add_pd(_mm256_cvtps_pd(_mm256_castps256_ps128(low[b])), _mm256_cvtps_pd(_mm256_castps256_ps128(high[b])));
		__m256d four_high = _mm256_add_pd(_mm256_cvtps_pd(_mm256_extractf128_ps(low[b], 1)), _mm256_cvtps_pd(_mm256_extractf128_ps(high[b], 1)));
		__m256d four = _mm256_add_pd(four_low, four_high);
		__m128d two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd(four, 1));

		*out++ = _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)));
	}
	return out;
}

VECTOR_INLINE void learn_rounds(const unsigned terms, const struct tpd_predict_from *from, size_t start, const uint8_t *x, size_t n, float *out,
				double *products)
{
	const struct tpd_predict_from local = *from;
	float change[TPD_TERM_ROOM], last[PREDICT_VECTOR] = {0};
	const float *arrays[TPD_TERMS + 1];
	struct predict_rest rest;
	unsigned count = 0;
	size_t i = 0;

	for (; i + PREDICT_VECTOR <= n; i += PREDICT_VECTOR)
		learn_round(terms, &local, x, start + i, out + i, change + i);
	if (i < n) {
		predict_rest_of(from, start + i, n - i, &rest);
		memcpy(last, x + (start + i) * sizeof(float), (n - i) * sizeof(float));
		learn_round(terms, &rest.from, (const uint8_t *)last, 0, out + i, change + i);
		i += PREDICT_VECTOR;
	}
	for (unsigned k = 0; k < TPD_TERMS; k++)
		if (terms >> k & 1)
			arrays[count++] = out + k * TPD_TERM_ROOM;
	arrays[count++] = change;
	for (const float **row = arrays; count > 0; count--, row++) {
		switch (count) {
		case 1:
			products = products_of_row(row, 1, i, products);
			break;
		case 2:
			products = products_of_row(row, 2, i, products);
			break;
		case 3:
			products = products_of_row(row, 3, i, products);
			break;
		case 4:
			products = products_of_row(row, 4, i, products);
			break;
		default:
			products = products_of_row(row, 5, i, products);
			break;
		}
	}
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
	size_t i = 0;

	for (; i + PREDICT_VECTOR <= n; i += PREDICT_VECTOR) {
		__m256 sum = _mm256_setzero_ps();

#pragma GCC unroll 4
		for (unsigned k = 0; k < TPD_TERMS; k++)
			if (terms[k])
				sum = _mm256_add_ps(sum, _mm256_mul_ps(_mm256_set1_ps(coefficients[k]), _mm256_loadu_ps(terms[k] + i)));
		_mm256_storeu_ps(out + i, vector_arrive(_mm256_loadu_ps(w1 + i), sum));
	}
	if (i < n) {
		const float *behind[TPD_TERMS];

		for (unsigned k = 0; k < TPD_TERMS; k++)
			behind[k] = terms[k] ? terms[k] + i : NULL;
		predict_apply(w1 + i, behind, coefficients, n - i, out + i);
	}
}

#endif

#endif
