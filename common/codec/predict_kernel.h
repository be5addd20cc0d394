/*
 * predict_kernel.h - the loops of a prediction (SPEC.md section 10) in plain C, which every form of the kernels compiles with its own
 * instruction sets: single precision, rounded to nearest after each operation, so that all give the same bits.
 */
#ifndef TPD_CODEC_PREDICT_KERNEL_H
#define TPD_CODEC_PREDICT_KERNEL_H

#include <math.h>
#include <string.h>

#include "base/tpd.h"
#include "codec/predict.h"

#ifdef __FAST_MATH__
#error "a prediction needs IEEE arithmetic"
#endif

#define PREDICT_BLOCK 256u
#define PREDICT_LANES 8u

/* m / sqrt(v), 0 where v is not positive. */
static void predict_ratio(const float *m, const float *v, size_t n, float *out)
{
	for (size_t i = 0; i < n; i++) {
		float safe = v[i] > 0 ? v[i] : 1;
		float ratio = m[i] / sqrtf(safe);

		out[i] = v[i] > 0 ? ratio : 0;
	}
}

static void predict_difference(const float *a, const float *b, size_t n, float *out)
{
	for (size_t i = 0; i < n; i++)
		out[i] = a[i] - b[i];
}

/* terms[k] is NULL where there is none; terms[0] is w1. */
static void predict_apply(const float *w1, const float *const terms[TPD_TERMS], const float coefficients[TPD_TERMS], size_t n, float *out)
{
	float sum[PREDICT_BLOCK];

	for (size_t start = 0; start < n; start += PREDICT_BLOCK) {
		const size_t len = TPD_MIN(n - start, (size_t)PREDICT_BLOCK);

		memset(sum, 0, sizeof(sum));
		for (unsigned k = 0; k < TPD_TERMS; k++) {
			const float *term = terms[k] ? terms[k] + start : NULL;

			for (size_t i = 0; term && i < len; i++)
				sum[i] = sum[i] + coefficients[k] * term[i];
		}
		for (size_t i = 0; i < len; i++) {
			float p = w1[start + i] + sum[i];
			float off = p - p; /* 0, or NaN where p is not finite */

			out[start + i] = off == 0 ? p : w1[start + i];
		}
	}
}

/* Sums of products of each two of the arrays, (0,0) (0,1) .. (1,1) ..., in double: eight lanes, added from the first to the last. */
static void predict_products(const float *const *arrays, unsigned count, size_t n, double *out)
{
	for (unsigned a = 0; a < count; a++)
		for (unsigned b = a; b < count; b++) {
			double lanes[PREDICT_LANES] = {0}, sum = 0;
			const float *x = arrays[a], *y = arrays[b];
			size_t i = 0;

			for (; i + PREDICT_LANES <= n; i += PREDICT_LANES)
				for (unsigned l = 0; l < PREDICT_LANES; l++)
					lanes[l] += (double)x[i + l] * (double)y[i + l];
			for (; i < n; i++)
				lanes[i % PREDICT_LANES] += (double)x[i] * (double)y[i];
			for (unsigned l = 0; l < PREDICT_LANES; l++)
				sum += lanes[l];
			*out++ = sum;
		}
}

#endif
