/*
 * predict_fit.c - least squares, by rows.
 *
 * One pass over the elements leaves, for each row piece, the products of all terms and of the change that they are to say; from there on
 * everything is small. Rows that move little must not be drowned by those that move much (each counts by the logarithm of what remains of it),
 * so the chunk's coefficients are found by weighting rows with what remained of them before, some times over.
 *
 * All choices come from sums of doubles in one order (predict_kernel.h), and from +, -, *, / and sqrt: the same on every machine.
 */
#include "base/tpd.h"

#include "codec/predict.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "codec/internal.h"
#include "codec/kernels.h"
#include "codec/rounding.h"

#define ROUNDS 5
#define FLOOR 1e-3   /* of the median of what remains: no row counts for more than as if that much did */
#define RIDGE 1e-7
#define COEFFICIENT_BITS 12.0 /* of one of a row's, about */

/* log2, to some 0.01: exponent, and a parabola for the mantissa. x > 0. */
static double log2_of(double x)
{
	uint64_t bits;
	double mantissa;

	memcpy(&bits, &x, sizeof(bits));
	mantissa = (double)(bits & ((UINT64_C(1) << 52) - 1)) / (double)(UINT64_C(1) << 52);
	return (double)(bits >> 52) - 1023 + mantissa + 0.344 * mantissa * (1 - mantissa);
}

void tpd_normal_unpack(const double *products, unsigned count, struct tpd_normal *out)
{
	for (unsigned a = 0; a <= count; a++)
		for (unsigned b = a; b <= count; b++) {
			double v = *products++;

			if (b < count)
				out->g[a][b] = out->g[b][a] = v;
			else if (a < count)
				out->h[a] = v;
			else
				out->yy = v;
		}
}

static bool is_finite(double v)
{
	return v - v == 0;
}

void tpd_normal_solve(const struct tpd_normal *normal, unsigned count, double c[TPD_TERMS])
{
	double a[TPD_TERMS][TPD_TERMS + 1], scale[TPD_TERMS];

	for (unsigned i = 0; i < count; i++)
		scale[i] = normal->g[i][i] > 0 ? 1 / sqrt(normal->g[i][i]) : 0;
	for (unsigned i = 0; i < count; i++) {
		for (unsigned j = 0; j < count; j++)
			a[i][j] = normal->g[i][j] * scale[i] * scale[j];
		a[i][i] = a[i][i] > 0 ? a[i][i] + RIDGE : 1;
		a[i][count] = normal->h[i] * scale[i];
	}
	for (unsigned i = 0; i < count; i++) { /* positive definite: no pivots */
		for (unsigned r = i + 1; r < count; r++) {
			double f = a[r][i] / a[i][i];

			for (unsigned j = i; j <= count; j++)
				a[r][j] -= f * a[i][j];
		}
	}
	for (unsigned i = count; i-- > 0;) {
		double v = a[i][count];

		for (unsigned j = i + 1; j < count; j++)
			v -= a[i][j] * c[j];
		c[i] = v / a[i][i];
	}
	for (unsigned i = 0; i < count; i++) {
		c[i] *= scale[i];
		if (!is_finite(c[i]))
			c[i] = 0;
	}
}

/* What remains of the change, squared; at least 0. */
static double rest_of(const struct tpd_normal *n, unsigned count, const double c[TPD_TERMS])
{
	double rest = n->yy;

	for (unsigned i = 0; i < count; i++) {
		double sum = 0;

		for (unsigned j = 0; j < count; j++)
			sum += n->g[i][j] * c[j];
		rest += c[i] * (sum - 2 * n->h[i]);
	}
	return rest > 0 ? rest : 0;
}

static void add_weighted(const struct tpd_normal *n, unsigned count, double weight, struct tpd_normal *sum)
{
	for (unsigned i = 0; i < count; i++) {
		for (unsigned j = 0; j < count; j++)
			sum->g[i][j] += weight * n->g[i][j];
		sum->h[i] += weight * n->h[i];
	}
}

static int compare_doubles(const void *a, const void *b)
{
	const double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

float tpd_coefficient(double c)
{
	float v = (float)c;
	uint32_t bits;

	memcpy(&bits, &v, sizeof(bits));
	bits = (uint32_t)tpd_round_bf16(bits) << 16;
	memcpy(&v, &bits, sizeof(v));
	return is_finite((double)v) ? v : 0;
}

static bool is_usable(const struct tpd_normal *n, unsigned count)
{
	bool good = is_finite(n->yy) && n->yy > 0;

	for (unsigned i = 0; i < count; i++) {
		good &= is_finite(n->h[i]);
		for (unsigned j = 0; j < count; j++)
			good &= is_finite(n->g[i][j]);
	}
	return good;
}

bool tpd_predict_fit(struct tpd_codec *codec, const struct tpd_prediction *prediction, const struct tpd_pieces *pieces, double *scratch,
		     float (*by_piece)[TPD_TERMS], float whole[TPD_TERMS])
{
	const size_t rows = tpd_piece_count(pieces);
	double *products = scratch, *rest = products + rows * TPD_PRODUCTS, *sorted = rest + rows, c[TPD_TERMS] = {0}, gain = 0, floor_of_rest = 0;
	const float *arrays[TPD_TERMS + 1];
	float change[TPD_ROW_MAX];
	unsigned used[TPD_TERMS], count = 0;
	size_t width;
	struct tpd_normal normal;

	for (unsigned k = 0; k < TPD_TERMS; k++)
		if (prediction->terms[k])
			used[count++] = k;
	width = (count + 1) * (count + 2) / 2;
	memset(whole, 0, TPD_TERMS * sizeof(*whole));
	memset(by_piece, 0, rows * sizeof(*by_piece));
	if (count == 0)
		return false;
	for (size_t r = 0; r < rows; r++) {
		size_t start = tpd_piece_start(pieces, r), n = tpd_piece_start(pieces, r + 1) - start;

		for (unsigned k = 0; k < count; k++)
			arrays[k] = prediction->terms[used[k]] + start;
		codec->kernels->predict_difference(prediction->x + start, prediction->w1 + start, n, change);
		arrays[count] = change;
		codec->kernels->predict_products(arrays, count + 1, n, products + r * width);
		tpd_normal_unpack(products + r * width, count, &normal);
		rest[r] = is_usable(&normal, count) ? normal.yy / (double)n : -1;
	}
	for (int round = 0; round < ROUNDS; round++) {
		struct tpd_normal sum = {0};
		size_t live = 0;

		for (size_t r = 0; r < rows; r++)
			if (rest[r] >= 0)
				sorted[live++] = rest[r];
		if (live == 0)
			return false;
		qsort(sorted, live, sizeof(*sorted), compare_doubles);
		floor_of_rest = FLOOR * sorted[live / 2] + 1e-300;
		for (size_t r = 0; r < rows; r++) {
			if (rest[r] < 0)
				continue;
			tpd_normal_unpack(products + r * width, count, &normal);
			add_weighted(&normal, count, 1 / (rest[r] + floor_of_rest), &sum);
		}
		tpd_normal_solve(&sum, count, c);
		for (size_t r = 0; r < rows; r++) {
			size_t n = tpd_piece_start(pieces, r + 1) - tpd_piece_start(pieces, r);

			tpd_normal_unpack(products + r * width, count, &normal);
			if (rest[r] >= 0)
				rest[r] = rest_of(&normal, count, c) / (double)n;
		}
	}
	for (unsigned k = 0; k < count; k++)
		whole[used[k]] = (float)c[k];
	for (size_t r = 0; r < rows; r++) {
		size_t n = tpd_piece_start(pieces, r + 1) - tpd_piece_start(pieces, r);
		double own[TPD_TERMS], left;

		if (rest[r] < 0)
			continue;
		tpd_normal_unpack(products + r * width, count, &normal);
		tpd_normal_solve(&normal, count, own);
		for (unsigned k = 0; k < count; k++) {
			by_piece[r][used[k]] = tpd_coefficient(own[k]);
			own[k] = (double)by_piece[r][used[k]];
		}
		left = rest_of(&normal, count, own) / (double)n;
		gain += (double)n / 2 * (log2_of(rest[r] + floor_of_rest) - log2_of(left + floor_of_rest)) - COEFFICIENT_BITS * count;
	}
	return gain > 0;
}
