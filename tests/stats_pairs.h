/*
 * stats_pairs.h - a tensor and the one before it, for tests of the statistics.
 */
#ifndef TPD_TESTS_STATS_PAIRS_H
#define TPD_TESTS_STATS_PAIRS_H

#include "base/tpd.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/dtype.h"
#include "random_bits.h"

struct pair {
	enum tpd_dtype dtype;
	size_t n, width;
	uint8_t *x, *w; /* w NULL: none */
};

static inline struct pair pair_new(enum tpd_dtype dtype, size_t n, bool with_delta)
{
	struct pair pair = {.dtype = dtype, .n = n, .width = tpd_dtype_width(dtype)};

	pair.x = calloc(n + 1, pair.width);
	pair.w = with_delta ? calloc(n + 1, pair.width) : NULL;
	ck_assert(pair.x && (pair.w || !with_delta));
	return pair;
}

static inline void pair_release(struct pair *pair)
{
	free(pair->x);
	free(pair->w);
}

static inline void put(const struct pair *pair, uint8_t *where, size_t i, uint64_t bits)
{
	for (size_t b = 0; b < pair->width; b++)
		where[i * pair->width + b] = (uint8_t)(bits >> 8 * b);
}

static inline uint64_t get(const struct pair *pair, const uint8_t *where, size_t i)
{
	uint64_t bits = 0;

	for (size_t b = 0; b < pair->width; b++)
		bits |= (uint64_t)where[i * pair->width + b] << 8 * b;
	return bits;
}

static inline uint64_t float_bits(float f)
{
	uint32_t bits;

	memcpy(&bits, &f, sizeof bits);
	return bits;
}

/* A small random value, nearly always finite. */
static inline uint64_t random_pattern(enum tpd_dtype dtype)
{
	uint64_t r = next_random();
	uint64_t sign = r >> 63, mantissa = r & 0xfffffff, exponent = r >> 40 & 15;

	if ((r >> 30 & 0x3ff) == 0)
		return r & (dtype == TPD_DTYPE_F32 ? 0xffffffff : dtype == TPD_DTYPE_F64 ? UINT64_MAX : 0xffff);
	switch (dtype) {
	case TPD_DTYPE_F32:
		return sign << 31 | (110 + exponent) << 23 | (mantissa & 0x7fffff);
	case TPD_DTYPE_BF16:
		return sign << 15 | (110 + exponent) << 7 | (mantissa & 0x7f);
	case TPD_DTYPE_F16:
		return sign << 15 | exponent << 10 | (mantissa & 0x3ff);
	default:
		return sign << 63 | (UINT64_C(1010) + exponent) << 52 | mantissa << 20;
	}
}

static inline struct pair random_pair(enum tpd_dtype dtype, size_t n)
{
	struct pair pair = pair_new(dtype, n, true);

	for (size_t i = 0; i < n; i++) {
		uint64_t w = random_pattern(dtype), r = next_random();

		put(&pair, pair.w, i, w);
		if (r % 4 == 0)
			put(&pair, pair.x, i, random_pattern(dtype));
		else
			put(&pair, pair.x, i, r % 4 == 1 ? w : w ^ (r >> 20 & 0xff));
	}
	return pair;
}

static inline double naive_value(enum tpd_dtype dtype, uint64_t bits)
{
	uint32_t word = (uint32_t)bits;
	float f;
	double d;

	if (dtype == TPD_DTYPE_F64) {
		memcpy(&d, &bits, sizeof d);
		return d;
	}
	if (dtype == TPD_DTYPE_F16) {
		int exponent = (int)(bits >> 10 & 31), mantissa = (int)(bits & 1023);

		if (exponent == 31)
			d = mantissa ? NAN : INFINITY;
		else
			d = exponent ? ldexp(1024 + mantissa, exponent - 25) : ldexp(mantissa, -24);
		return bits >> 15 ? -d : d;
	}
	if (dtype == TPD_DTYPE_BF16)
		word <<= 16;
	memcpy(&f, &word, sizeof f);
	return f;
}

/*
 * Pairs of which many are as far apart as `size`, a little more or a little less, as far as the type has them; some equal, of another
 * sign, denormal or not finite.
 */
static inline struct pair pair_around(enum tpd_dtype dtype, size_t n, const double *sizes, size_t count)
{
	struct pair pair = random_pair(dtype, n);

	for (size_t i = 0; i < n; i++) {
		uint64_t r = next_random(), bits = get(&pair, pair.w, i);
		double size = sizes[r % count] * (r >> 20 & 1 ? 1 : -1), old = naive_value(dtype, bits);
		float f = (float)(old + size);

		if ((r >> 30) % 8 == 0) {
			put(&pair, pair.w, i, bits & (r >> 40 & 1 ? 0 : 7)); /* zeros and denormals: differences are exact, or all but */
			old = naive_value(dtype, get(&pair, pair.w, i));
			f = (float)(old + size);
		}
		if ((r >> 33) % 4 == 0)
			continue;
		if (dtype == TPD_DTYPE_F32)
			put(&pair, pair.x, i, float_bits(f) + (r >> 50 & 3) - 1);
		else if (dtype == TPD_DTYPE_BF16)
			put(&pair, pair.x, i, (float_bits(f) >> 16) + (r >> 50 & 1));
		else if (dtype == TPD_DTYPE_F64) {
			double sum = old + size;
			uint64_t sum_bits;

			memcpy(&sum_bits, &sum, sizeof sum_bits);
			put(&pair, pair.x, i, sum_bits + (r >> 50 & 3) - 1);
		}
	}
	return pair;
}

#endif
