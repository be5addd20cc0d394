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
/* Terms that the store asks for: vector forms have loops with these as a constant, others go the plain way. */
#define EACH_TERM_SET(X) X(1) X(3) X(9) X(11) X(13) X(15)

/*
 * 1 / sqrt(v) to 0.07 % for v that is normal: a guess by halving the exponent, and one step of Newton's, with the constants of Jan Kadlec
 * ("Improving the fast inverse square root", 2010). A prediction's coefficient is not as exact, and a root and a division take as long as all else
 * in a prediction.
 */
#define ROOT_GUESS 0x5f1ffff9
#define ROOT_FACTOR 0.703952253f
#define ROOT_ABOVE 2.38924456f

/* About m / sqrt(v), 0 where v is not positive. */
static void predict_ratio(const float *m, const float *v, size_t n, float *out)
{
	for (size_t i = 0; i < n; i++) {
		uint32_t bits;
		float guess, ratio;

		memcpy(&bits, &v[i], sizeof(bits));
		bits = ROOT_GUESS - (bits >> 1);
		memcpy(&guess, &bits, sizeof(guess));
		ratio = v[i] * guess * guess;
		ratio = m[i] * (guess * ROOT_FACTOR * (ROOT_ABOVE - ratio));
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

static void predict_load(const uint8_t *from, size_t n, float *out)
{
	memcpy(out, from, n * sizeof(float));
}

/* Term k of at most PREDICT_BLOCK elements that begin at `start`; w1 is loaded. Returns where it is: w1, or out. */
static const float *predict_term(const struct tpd_predict_from *from, unsigned k, size_t start, size_t n, const float *w1, float *out)
{
	const unsigned m = k == 2 ? TPD_INPUT_M1 : TPD_INPUT_M2, v = k == 2 ? TPD_INPUT_V1 : TPD_INPUT_V2;
	float a[PREDICT_BLOCK], b[PREDICT_BLOCK];

	if (k == 0)
		return w1;
	predict_load(from->of[k == 1 ? TPD_INPUT_W0 : m] + start * sizeof(float), n, a);
	if (k == 1) {
		predict_difference(w1, a, n, out);
		return out;
	}
	predict_load(from->of[v] + start * sizeof(float), n, b);
	predict_ratio(a, b, n, out);
	return out;
}

/* The same as predict_apply() with the terms of elements from `start` on, which it makes first. */
static void predict(const struct tpd_predict_from *from, size_t start, const float coefficients[TPD_TERMS], size_t n, float *out)
{
	float w1[PREDICT_BLOCK], made[TPD_TERMS][PREDICT_BLOCK];

	for (size_t i = 0; i < n; i += PREDICT_BLOCK) {
		const size_t len = TPD_MIN(n - i, (size_t)PREDICT_BLOCK);
		const float *terms[TPD_TERMS] = {NULL};

		predict_load(from->w1 + (start + i) * sizeof(float), len, w1);
		for (unsigned k = 0; k < TPD_TERMS; k++)
			if (from->terms >> k & 1)
				terms[k] = predict_term(from, k, start + i, len, w1, made[k]);
		predict_apply(w1, terms, coefficients, len, out + i);
	}
}

/* The upper half of the lanes is added to the lower one until one is left. */
static double sum_of_lanes(double lanes[PREDICT_LANES])
{
	for (unsigned half = PREDICT_LANES / 2; half > 0; half /= 2)
		for (unsigned l = 0; l < half; l++)
			lanes[l] += lanes[l + half];
	return lanes[0];
}

/* Element i goes to lane i modulo 8, so all but the last of several calls take whole rounds. */
static void add_products(const float *x, const float *y, size_t n, double lanes[PREDICT_LANES])
{
	size_t i = 0;

	for (; i + PREDICT_LANES <= n; i += PREDICT_LANES)
		for (unsigned l = 0; l < PREDICT_LANES; l++)
			lanes[l] += (double)x[i + l] * (double)y[i + l];
	for (; i < n; i++)
		lanes[i % PREDICT_LANES] += (double)x[i] * (double)y[i];
}

/* Sums of products of each two of the arrays, (0,0) (0,1) .. (1,1) ..., in double, in eight lanes. */
static inline void predict_products(const float *const *arrays, unsigned count, size_t n, double *out)
{
	for (unsigned a = 0; a < count; a++)
		for (unsigned b = a; b < count; b++) {
			double lanes[PREDICT_LANES] = {0};

			add_products(arrays[a], arrays[b], n, lanes);
			*out++ = sum_of_lanes(lanes);
		}
}

/*
 * The same for no more than TPD_LEARN_MAX elements, which single precision is enough for: in sixteen lanes, of which the upper eight are added
 * to the lower ones in double.
 */
static inline void learn_products(const float *const *arrays, unsigned count, size_t n, double *out)
{
	for (unsigned a = 0; a < count; a++)
		for (unsigned b = a; b < count; b++) {
			float lanes[2 * PREDICT_LANES] = {0};
			double wide[PREDICT_LANES];

			for (size_t i = 0; i < n; i++)
				lanes[i % (2 * PREDICT_LANES)] += arrays[a][i] * arrays[b][i];
			for (unsigned l = 0; l < PREDICT_LANES; l++)
				wide[l] = (double)lanes[l] + (double)lanes[l + PREDICT_LANES];
			*out++ = sum_of_lanes(wide);
		}
}

/* At most TPD_LEARN_MAX elements from `start` on: term k at terms + k * TPD_TERM_ROOM, w1 in any case; and products of those used, and of x - w1. */
static inline void predict_learn(const struct tpd_predict_from *from, size_t start, const uint8_t *x, size_t n, float *terms, double *products)
{
	float new[PREDICT_BLOCK], change[TPD_LEARN_MAX];
	const float *arrays[TPD_TERMS + 1];
	unsigned count = 0;

	for (size_t i = 0; i < n; i += PREDICT_BLOCK) {
		const size_t len = TPD_MIN(n - i, (size_t)PREDICT_BLOCK);

		predict_load(from->w1 + (start + i) * sizeof(float), len, terms + i);
		for (unsigned k = 1; k < TPD_TERMS; k++)
			if (from->terms >> k & 1)
				predict_term(from, k, start + i, len, terms + i, terms + k * TPD_TERM_ROOM + i);
		predict_load(x + (start + i) * sizeof(float), len, new);
		predict_difference(new, terms + i, len, change + i);
	}
	for (unsigned k = 0; k < TPD_TERMS; k++)
		if (from->terms >> k & 1)
			arrays[count++] = terms + k * TPD_TERM_ROOM;
	arrays[count] = change;
	learn_products(arrays, count + 1, n, products);
}

#endif
