/*
 * predict_fit.c - least squares, by rows.
 *
 * The products of all terms, and of the change that they are to say, are summed over a row piece; from there on everything is small. Rows that
 * move little must not be drowned by those that move much (each counts by the logarithm of what remains of it), so the chunk's coefficients are
 * found by weighting rows with what remained of them before, some times over. They are learnt from some of the rows, and so is whether each row
 * is to have its own. Those of a row want all of it, where it is short: what they take from its noise grows as its elements get fewer.
 *
 * All choices come from sums of doubles in one order (predict_kernel.h), and from +, -, * and /: the same on every machine.
 */
#include "base/tpd.h"

#include "codec/predict.h"

#include <stdlib.h>
#include <string.h>

#include "codec/kernels.h"
#include "codec/rounding.h"

#define ROUNDS 3
#define FLOOR 1e-3   /* of the median of what remains: no row counts for more than as if that much did */
#define RIDGE 1e-7
#define COEFFICIENT_BITS 12.0 /* of one of a row's, about */
#define SOME_ROWS 40u /* a form is chosen by so many rows or twice as many, where there are more than that */
#define ROWS_MAX (2 * SOME_ROWS)
#define STRETCHES 8u  /* of a long row */

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

/* `count` is a constant, so that all loops are gone: each row of each chunk is solved. */
static inline __attribute__((always_inline)) void solve(const struct tpd_normal *normal, const unsigned count, double c[TPD_TERMS])
{
	double a[TPD_TERMS][TPD_TERMS + 1], inverse[TPD_TERMS];

#pragma GCC unroll 4
	for (unsigned i = 0; i < count; i++) {
#pragma GCC unroll 4
		for (unsigned j = 0; j < count; j++)
			a[i][j] = normal->g[i][j];
		a[i][i] = a[i][i] > 0 ? a[i][i] * (1 + RIDGE) : 1;
		a[i][count] = normal->h[i];
	}
#pragma GCC unroll 4
	for (unsigned i = 0; i < count; i++) { /* positive definite: no pivots */
		inverse[i] = 1 / a[i][i];
#pragma GCC unroll 4
		for (unsigned r = i + 1; r < count; r++) {
			double f = a[r][i] * inverse[i];

#pragma GCC unroll 5
			for (unsigned j = i; j <= count; j++)
				a[r][j] -= f * a[i][j];
		}
	}
#pragma GCC unroll 4
	for (unsigned i = count; i-- > 0;) {
		double v = a[i][count];

#pragma GCC unroll 4
		for (unsigned j = i + 1; j < count; j++)
			v -= a[i][j] * c[j];
		c[i] = v * inverse[i];
	}
#pragma GCC unroll 4
	for (unsigned i = 0; i < count; i++)
		if (!is_finite(c[i]))
			c[i] = 0;
}

void tpd_normal_solve(const struct tpd_normal *normal, unsigned count, double c[TPD_TERMS])
{
	switch (count) {
	case 1:
		solve(normal, 1, c);
		break;
	case 2:
		solve(normal, 2, c);
		break;
	case 3:
		solve(normal, 3, c);
		break;
	default:
		solve(normal, 4, c);
		break;
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

/* Sums that are finite, of a row that changed: the last of them is the change's. */
static bool is_usable(const double *sums, size_t count)
{
	double nothing = 0; /* or NaN */

	for (size_t i = 0; i < count; i++)
		nothing += sums[i] * 0;
	return nothing == 0 && sums[count - 1] > 0;
}

static size_t products_of(unsigned count)
{
	return (count + 1) * (count + 2) / 2;
}

/* The terms that are used, in order. */
static unsigned list_terms(unsigned terms, unsigned used[TPD_TERMS])
{
	unsigned count = 0;

	for (unsigned k = 0; k < TPD_TERMS; k++)
		if (terms >> k & 1)
			used[count++] = k;
	return count;
}

/* The products of piece i, or of stretches of it; how many elements they are of. */
static size_t learn(struct tpd_prediction *prediction, size_t i, unsigned count, double sums[TPD_PRODUCTS])
{
	const size_t start = tpd_piece_start(&prediction->pieces, i), n = tpd_piece_start(&prediction->pieces, i + 1) - start;
	const size_t products = products_of(count), stretch = TPD_LEARN_MAX / STRETCHES;

	if (n <= TPD_LEARN_MAX) {
		prediction->kernels->predict_learn(&prediction->from, start, prediction->x, n, prediction->terms, sums);
		return n;
	}
	memset(sums, 0, products * sizeof(*sums));
	for (size_t s = 0; s < STRETCHES; s++) {
		const size_t at = start + s * (n - stretch) / (STRETCHES - 1);
		double part[TPD_PRODUCTS];

		prediction->kernels->predict_learn(&prediction->from, at, prediction->x, stretch, prediction->terms, part);
		for (size_t k = 0; k < products; k++)
			sums[k] += part[k];
	}
	return TPD_LEARN_MAX;
}

/* What is learnt of some rows; rest: of an element, below 0: the row says nothing. */
struct lessons {
	struct tpd_normal normals[ROWS_MAX];
	double rest[ROWS_MAX];
	size_t lengths[ROWS_MAX], learnt[ROWS_MAX], rows;
};

static double median_of(const struct lessons *lessons, size_t *out_live)
{
	double sorted[ROWS_MAX];
	size_t live = 0;

	for (size_t r = 0; r < lessons->rows; r++)
		if (lessons->rest[r] >= 0)
			sorted[live++] = lessons->rest[r];
	*out_live = live;
	if (live == 0)
		return 0;
	qsort(sorted, live, sizeof(*sorted), compare_doubles);
	return sorted[live / 2];
}

/* Coefficients for all, and what they leave. Returns FLOOR of that; below 0: no row says anything. */
static double fit_whole(struct lessons *lessons, unsigned count, double c[TPD_TERMS])
{
	double least = -1;

	for (int round = 0; round < ROUNDS; round++) {
		struct tpd_normal sum = {0};
		size_t live;

		least = FLOOR * median_of(lessons, &live) + 1e-300;
		if (live == 0)
			return -1;
		for (size_t r = 0; r < lessons->rows; r++)
			if (lessons->rest[r] >= 0)
				add_weighted(&lessons->normals[r], count, 1 / (lessons->rest[r] + least), &sum);
		tpd_normal_solve(&sum, count, c);
		for (size_t r = 0; r < lessons->rows; r++)
			if (lessons->rest[r] >= 0)
				lessons->rest[r] = rest_of(&lessons->normals[r], count, c) / (double)lessons->learnt[r];
	}
	return least;
}

/* Bits that coefficients of the row's own save. */
static double gain_of(const struct tpd_normal *normal, unsigned count, double rest, double least, size_t length, size_t learnt)
{
	double own[TPD_TERMS], left;

	tpd_normal_solve(normal, count, own);
	for (unsigned k = 0; k < count; k++)
		own[k] = (double)tpd_coefficient(own[k]);
	left = rest_of(normal, count, own) / (double)learnt;
	return (double)length / 2 * (tpd_log2_near(rest + least) - tpd_log2_near(left + least)) - COEFFICIENT_BITS * count;
}

void tpd_predict_choose(struct tpd_prediction *prediction)
{
	const size_t rows = tpd_piece_count(&prediction->pieces), step = (rows / SOME_ROWS) | 1; /* odd: rows often come in powers of two */
	double c[TPD_TERMS] = {0}, gain = 0, least;
	struct lessons lessons = {.rows = 0};
	unsigned used[TPD_TERMS], count = list_terms(prediction->from.terms, used);

	for (size_t r = step / 2; r < rows; r += step) {
		const size_t i = lessons.rows++;
		double sums[TPD_PRODUCTS];

		lessons.lengths[i] = tpd_piece_start(&prediction->pieces, r + 1) - tpd_piece_start(&prediction->pieces, r);
		lessons.learnt[i] = learn(prediction, r, count, sums);
		tpd_normal_unpack(sums, count, &lessons.normals[i]);
		lessons.rest[i] = is_usable(sums, products_of(count)) ? lessons.normals[i].yy / (double)lessons.learnt[i] : -1;
	}
	least = fit_whole(&lessons, count, c);
	if (least < 0)
		return;
	for (unsigned k = 0; k < count; k++)
		prediction->whole[used[k]] = (float)c[k];
	for (size_t i = 0; i < lessons.rows; i++)
		if (lessons.rest[i] >= 0)
			gain += gain_of(&lessons.normals[i], count, lessons.rest[i], least, lessons.lengths[i], lessons.learnt[i]);
	prediction->by_rows = gain > 0;
}

void tpd_predict_fit_row(struct tpd_prediction *prediction, size_t i, float out[TPD_TERMS], bool *out_terms)
{
	const size_t start = tpd_piece_start(&prediction->pieces, i), n = tpd_piece_start(&prediction->pieces, i + 1) - start;
	double sums[TPD_PRODUCTS], own[TPD_TERMS];
	unsigned used[TPD_TERMS], count = list_terms(prediction->from.terms, used);
	struct tpd_normal normal;

	memset(out, 0, TPD_TERMS * sizeof(*out));
	*out_terms = learn(prediction, i, count, sums) == n;
	if (!is_usable(sums, products_of(count)))
		return;
	tpd_normal_unpack(sums, count, &normal);
	tpd_normal_solve(&normal, count, own);
	for (unsigned k = 0; k < count; k++)
		out[used[k]] = tpd_coefficient(own[k]);
}
