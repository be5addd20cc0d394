/*
 * low_rank_fit.c - finding what the rows of a change have in common. SPEC.md sections 10 and 13.
 *
 * The problem: with Z, what the other terms of a prediction leave of each row, in units of its own root mean square, find few rows B so that Z is
 * close to A B. Those are the singular vectors of Z to its largest singular values. The approach is a subspace iteration from a fixed random
 * start (Halko, Martinsson and Tropp, arXiv:0909.4061): twice B = Z' Z B, made orthogonal in between; then A by least squares to the B that has
 * been rounded to bytes. Rejected: exact singular vectors (they save under 1 % of what these do, and cost tens of times as much).
 *
 * How coarsely to round follows from rate and distortion: an error of a coefficient is spread over a row or a column and does no more harm than
 * the same amount of what is left there anyway, so the step is as large as the root of 12 times that amount; most factors then are within -3 .. 3.
 * What is taken is kept only where it saves more than it takes in bytes; both are known by then.
 *
 * Everything is +, -, *, / and sqrt in one order.
 */
#include "base/tpd.h"

#include "codec/low_rank.h"

#include <math.h>
#include <string.h>

#include "base/random.h"
#include "codec/grid_kernel.h"
#include "codec/kernels.h"
#include "codec/predict.h"

#define LANES TPD_LOW_RANK_LANES
#define ROUNDS 2
#define SWEEPS 8           /* of Jacobi's method, at most */
#define ORTHOGONAL 1e-4    /* the cosine of an angle that is a right one */
#define STEP 3.0           /* of a coefficient, in units of what is left of an element */
#define STEPS_MAX 24.0     /* in a root mean square of coefficients */
#define COEFFICIENT_BITS 1.2 /* beyond half the logarithm of 1 + its square, in units of what is left: with what rounding does */
#define HEADER_BITS 80.0   /* of one more */
#define EXPONENT_MIN 64    /* of a row that counts: the square of its inverse is a normal number */
#define EXPONENT_MAX 190
#define SHIFT_MAX 60       /* of a component: with a row's exponent still a normal number, and so is its inverse */
#define PIECES_MIN 32u
#define BLOCK 8u
#define SEEN 4u            /* one of so many rows tells how much is saved */

/* One chunk's. */
struct fit {
	const struct tpd_codec *codec;
	const struct tpd_pieces *pieces;
	size_t count;
	const float *z;     /* x less the rest of the prediction; 0 in rows that do not count */
	double *energy;     /* of a row: sum of squares */
	float *scales;      /* of a row: the square of its unit's inverse */
	uint8_t *exponents; /* of a row's root mean square; 0: it does not count */
	float *basis, *sums; /* LANES a column */
	float *products, *factors; /* LANES a row */
	double total, elements; /* of rows that count: squares in units, elements */
	double values[LANES]; /* of Z' Z, descending */
	unsigned rank;
	int shift[LANES];    /* exponents of the components */
	double left;         /* of an element, squared, in units */
};

static size_t column_of(const struct tpd_pieces *pieces, size_t i)
{
	return i == 0 ? pieces->row - pieces->first : 0;
}

/* Runs of pieces of one length: the first, those in the middle, the last. */
static size_t run_of(size_t i, size_t count)
{
	if (i == 0 || i + 1 == count)
		return 1;
	return count - 1 - i;
}

static void measure(struct fit *fit, float *z)
{
	for (size_t i = 0; i < fit->count; i++) {
		const size_t start = tpd_piece_start(fit->pieces, i), n = tpd_piece_start(fit->pieces, i + 1) - start;
		const float *arrays[1] = {z + start};
		uint32_t exponent;

		fit->codec->kernels->predict_products(arrays, 1, n, &fit->energy[i]);
		exponent = bits_of((float)sqrt(fit->energy[i] / (double)n)) >> 23;
		if (!(fit->energy[i] - fit->energy[i] == 0) || exponent < EXPONENT_MIN || exponent > EXPONENT_MAX) {
			memset(z + start, 0, n * sizeof(*z));
			fit->energy[i] = fit->scales[i] = 0;
			fit->exponents[i] = 0;
			continue;
		}
		fit->exponents[i] = (uint8_t)exponent;
		fit->scales[i] = float_of((127 + 2 * (127 - exponent)) << 23);
		fit->total += fit->energy[i] * (double)fit->scales[i];
		fit->elements += (double)n;
	}
}

static void start(struct fit *fit)
{
	uint64_t random = TPD_RANDOM_START;

	for (size_t i = 0; i < fit->pieces->row * LANES; i++) {
		fit->basis[i] = tpd_random_next(&random) >> 63 ? 1 : -1;
	}
}

/* sums = Z' Z basis; `some`: of every second BLOCK of rows, for a first direction. */
static void square(struct fit *fit, bool some)
{
	memset(fit->sums, 0, fit->pieces->row * LANES * sizeof(*fit->sums));
	for (size_t i = 0; i < fit->count;) {
		const size_t begin = tpd_piece_start(fit->pieces, i), n = tpd_piece_start(fit->pieces, i + 1) - begin;
		const size_t run = run_of(i, fit->count), rows = some ? TPD_MIN(run, (size_t)BLOCK) : run, column = column_of(fit->pieces, i) * LANES;

		fit->codec->kernels->low_rank_square(fit->z + begin, n, rows, fit->scales + i, fit->basis + column, fit->sums + column);
		i += some ? TPD_MIN(2 * rows, run) : rows;
	}
}

/* Jacobi: g becomes diagonal, v has its vectors in columns. */
static void diagonalise(double g[LANES][LANES], double v[LANES][LANES])
{
	for (unsigned a = 0; a < LANES; a++)
		for (unsigned b = 0; b < LANES; b++)
			v[a][b] = a == b;
	for (unsigned sweep = 0, turned = 1; sweep < SWEEPS && turned; sweep++) {
		turned = 0;
		for (unsigned a = 0; a < LANES; a++)
			for (unsigned b = a + 1; b < LANES; b++) {
				double tau, t, c, s;

				if (!(g[a][b] * g[a][b] > ORTHOGONAL * ORTHOGONAL * g[a][a] * g[b][b]))
					continue;
				turned = 1;
				tau = (g[b][b] - g[a][a]) / (2 * g[a][b]);
				t = (tau < 0 ? -1 : 1) / ((tau < 0 ? -tau : tau) + sqrt(1 + tau * tau));
				c = 1 / sqrt(1 + t * t);
				s = t * c;
				for (unsigned k = 0; k < LANES; k++) {
					double ga = g[a][k], gb = g[b][k];

					g[a][k] = c * ga - s * gb;
					g[b][k] = s * ga + c * gb;
				}
				for (unsigned k = 0; k < LANES; k++) {
					double ga = g[k][a], gb = g[k][b], va = v[k][a], vb = v[k][b];

					g[k][a] = c * ga - s * gb;
					g[k][b] = s * ga + c * gb;
					v[k][a] = c * va - s * vb;
					v[k][b] = s * va + c * vb;
				}
			}
	}
}

/* basis: of the same span as sums, orthogonal, its columns by descending length that they had, which is the value. */
static void make_orthogonal(struct fit *fit)
{
	double g[LANES][LANES], v[LANES][LANES];
	float turn[LANES][LANES];
	unsigned order[LANES];

	fit->codec->kernels->low_rank_products(fit->sums, fit->pieces->row, &g[0][0]);
	diagonalise(g, v);
	for (unsigned a = 0; a < LANES; a++) {
		unsigned at = a;

		for (; at > 0 && g[a][a] > g[order[at - 1]][order[at - 1]]; at--)
			order[at] = order[at - 1];
		order[at] = a;
	}
	for (unsigned a = 0; a < LANES; a++) {
		const unsigned from = order[a];
		const double value = g[from][from] > 0 ? sqrt(g[from][from]) : 0;

		fit->values[a] = value;
		for (unsigned k = 0; k < LANES; k++)
			turn[k][a] = value > 0 ? (float)(v[k][from] / value) : 0;
	}
	fit->codec->kernels->low_rank_project(fit->sums, LANES, fit->pieces->row, &turn[0][0], fit->basis);
}

/* As many as pay. */
static void choose_rank(struct fit *fit)
{
	const double rows = (double)fit->count, columns = (double)fit->pieces->row;
	double rest = fit->total;

	for (fit->rank = 0; fit->rank < LANES; fit->rank++) {
		const double value = fit->values[fit->rank], after = rest - value > fit->total * 1e-6 ? rest - value : fit->total * 1e-6;
		const double unit = after / fit->elements;
		double bits;

		if (!(value > 0))
			break;
		bits = rows * (0.5 * tpd_log2_near(1 + value / (rows * unit)) + COEFFICIENT_BITS) +
		       columns * (0.5 * tpd_log2_near(1 + value / (columns * unit)) + COEFFICIENT_BITS) + HEADER_BITS;
		if (!(fit->elements / 2 * tpd_log2_near(rest / after) > bits))
			break;
		rest = after;
	}
	fit->left = rest / fit->elements;
}

/* To the nearest, halves away from 0. */
static int round_byte(float v)
{
	return v >= 127 ? 127 : v > -127 ? (int)(v < 0 ? v - 0.5f : v + 0.5f) : -127;
}

/* basis becomes whole numbers; those are in bytes, too, one component after the other. */
static void round_columns(struct fit *fit, uint8_t *bytes)
{
	const double sigma = sqrt(fit->left), rows = (double)fit->count, columns = (double)fit->pieces->row;

	for (unsigned k = 0; k < LANES; k++) {
		double row_step, column_step, product, least;
		float per_step;

		if (k >= fit->rank) {
			for (size_t c = 0; c < fit->pieces->row; c++)
				fit->basis[c * LANES + k] = 0;
			continue;
		}
		row_step = TPD_MAX(STEP * sigma, sqrt(fit->values[k] / rows) / STEPS_MAX);
		least = 1 / (sqrt(columns) * STEPS_MAX);
		column_step = TPD_MAX(STEP * sigma / sqrt(fit->values[k]), least);
		product = row_step * column_step;
		fit->shift[k] = (int)((bits_of((float)product) + 0x400000u) >> 23) - 127;
		fit->shift[k] = TPD_MAX(-SHIFT_MAX, TPD_MIN(fit->shift[k], SHIFT_MAX));
		column_step *= (double)float_of((uint32_t)(fit->shift[k] + 127) << 23) / product;
		per_step = (float)(1 / column_step);
		for (size_t c = 0; c < fit->pieces->row; c++) {
			int b = round_byte(fit->basis[c * LANES + k] * per_step);

			fit->basis[c * LANES + k] = (float)b;
			bytes[k * fit->pieces->row + c] = (uint8_t)(b + TPD_LOW_RANK_MIDDLE);
		}
	}
}

/* g = L L'; false: it is not positive definite. */
static bool factorise(double g[LANES][LANES], unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		for (unsigned j = 0; j <= i; j++) {
			double v = g[i][j];

			for (unsigned k = 0; k < j; k++)
				v -= g[i][k] * g[j][k];
			if (i == j && !(v > 0))
				return false;
			g[i][j] = i == j ? sqrt(v) : v / g[j][j];
		}
	return true;
}

/* out: the inverse of l l'; zeros from n on. */
static void invert(const double l[LANES][LANES], unsigned n, float out[LANES][LANES])
{
	memset(out, 0, LANES * sizeof(out[0]));
	for (unsigned column = 0; column < n; column++) {
		double v[LANES] = {0};

		v[column] = 1;
		for (unsigned i = column; i < n; i++) {
			for (unsigned k = column; k < i; k++)
				v[i] -= l[i][k] * v[k];
			v[i] /= l[i][i];
		}
		for (unsigned i = n; i-- > 0;) {
			for (unsigned k = i + 1; k < n; k++)
				v[i] -= l[k][i] * v[k];
			v[i] /= l[i][i];
		}
		for (unsigned i = 0; i < n; i++)
			out[i][column] = (float)v[i];
	}
}

/* The binary logarithm of what is left of row i with these factors, against what was there. */
static double saved_in_row(const struct fit *fit, size_t i, const double g[LANES][LANES], const double *a)
{
	double left = fit->energy[i];

	for (unsigned k = 0; k < fit->rank; k++) {
		double sum = 0;

		for (unsigned j = 0; j < fit->rank; j++)
			sum += g[k][j] * a[j];
		left += a[k] * (sum - 2 * (double)fit->products[i * LANES + k]);
	}
	if (left < fit->energy[i] * 1e-6)
		left = fit->energy[i] * 1e-6;
	return tpd_log2_near(fit->energy[i]) - tpd_log2_near(left);
}

/* Factors of all rows, in bytes, one component after the other; returns how many bits they save, by every SEEN-th row. */
static double find_factors(struct fit *fit, uint8_t *bytes)
{
	double g[LANES][LANES], l[LANES][LANES], saved = 0, seen = 0;
	float inverse[LANES][LANES];

	fit->codec->kernels->low_rank_products(fit->basis, fit->pieces->row, &g[0][0]);
	memcpy(l, g, sizeof(l));
	if (!factorise(l, fit->rank))
		return 0;
	invert((const double(*)[LANES])l, fit->rank, inverse);
	for (size_t i = 0; i < fit->count;) {
		const size_t begin = tpd_piece_start(fit->pieces, i), n = tpd_piece_start(fit->pieces, i + 1) - begin;
		const size_t rows = run_of(i, fit->count);

		fit->codec->kernels->low_rank_project(fit->z + begin, n, rows, fit->basis + column_of(fit->pieces, i) * LANES,
						      fit->products + i * LANES);
		i += rows;
	}
	fit->codec->kernels->low_rank_project(fit->products, LANES, fit->count, &inverse[0][0], fit->factors);
	for (size_t i = 0; i < fit->count; i++) {
		const size_t n = tpd_piece_start(fit->pieces, i + 1) - tpd_piece_start(fit->pieces, i);
		const bool counts = fit->exponents[i] > 0;
		double a[LANES];

		for (unsigned k = 0; k < fit->rank; k++) {
			const int exponent = fit->exponents[i] + fit->shift[k]; /* of the unit, as a field: far from the ends */
			const int byte = counts ? round_byte(fit->factors[i * LANES + k] * float_of((uint32_t)(254 - exponent) << 23)) : 0;

			bytes[k * fit->count + i] = (uint8_t)(byte + TPD_LOW_RANK_MIDDLE);
			a[k] = counts ? (double)byte * (double)float_of((uint32_t)exponent << 23) : 0;
		}
		if (!counts || i % SEEN != 0)
			continue;
		saved += (double)n / 2 * saved_in_row(fit, i, (const double(*)[LANES])g, a);
		seen += (double)n;
	}
	return seen > 0 ? saved * fit->elements / seen : 0;
}

/* The same numbers as the decoder's. */
static void use(const struct fit *fit, const uint8_t *rows, const uint8_t *columns, struct tpd_low_rank *out)
{
	for (size_t i = 0; i < fit->count; i++)
		for (unsigned k = 0; k < fit->rank; k++)
			out->factors[i * fit->rank + k] =
				tpd_low_rank_factor(rows[k * fit->count + i], fit->exponents[i], (uint8_t)(fit->shift[k] + TPD_LOW_RANK_MIDDLE));
	tpd_low_rank_columns(columns, fit->rank, fit->pieces->row, out->columns);
}

static enum tpd_status put(struct tpd_codec *codec, const struct fit *fit, const uint8_t *rows, const uint8_t *columns, struct tpd_low_rank *out,
			   struct tpd_err *err)
{
	uint8_t *at = out->part;
	size_t part = 0;
	enum tpd_status status;

	*at++ = (uint8_t)fit->rank;
	tpd_put_u16(at, (uint16_t)fit->pieces->row);
	tpd_put_u16(at + 2, (uint16_t)fit->pieces->first);
	at += 4;
	for (unsigned k = 0; k < fit->rank; k++)
		*at++ = (uint8_t)(fit->shift[k] + TPD_LOW_RANK_MIDDLE);
	status = tpd_symbols_encode(codec, fit->exponents, fit->count, at, &part, err);
	at += part;
	if (status == TPD_OK)
		status = tpd_symbols_encode(codec, rows, fit->rank * fit->count, at, &part, err);
	at += part;
	if (status == TPD_OK)
		status = tpd_symbols_encode(codec, columns, fit->rank * fit->pieces->row, at, &part, err);
	out->part_len = (size_t)(at - out->part) + part;
	return status;
}

static size_t room_for(size_t count, size_t row)
{
	return count * (sizeof(double) + sizeof(float) + 1) + LANES * sizeof(float) * (3 * count + 3 * row + TPD_LOW_RANK_BLOCK) + LANES * (count + row) +
	       TPD_LOW_RANK_BOUND(count, row) + TPD_TAKE_ALIGN * 16;
}

enum tpd_status tpd_low_rank_fit(struct tpd_codec *codec, struct tpd_prediction *prediction, const struct tpd_pieces *pieces, struct tpd_err *err)
{
	const size_t n = pieces->n, count = tpd_piece_count(pieces);
	struct tpd_low_rank *out = &prediction->low_rank;
	struct fit fit = {.codec = codec, .pieces = pieces, .count = count};
	uint8_t *at, *rows, *columns;
	float *base, *z;
	double saved;
	enum tpd_status status;

	if (count < PIECES_MIN || pieces->row < TPD_LOW_RANK_ROW_MIN)
		return TPD_OK;
	status = tpd_scratch_need(&codec->towards, 2 * n * sizeof(float), err);
	if (status == TPD_OK)
		status = tpd_scratch_need(&codec->low_rank, room_for(count, pieces->row), err);
	if (status != TPD_OK)
		return status;
	base = (float *)(void *)codec->towards.data;
	z = base + n;
	at = codec->low_rank.data;
	out->factors = tpd_take(&at, LANES * count * sizeof(float));
	out->columns = tpd_take(&at, TPD_LOW_RANK_COLUMNS(LANES, pieces->row) * sizeof(float));
	fit.basis = tpd_take(&at, LANES * pieces->row * sizeof(float));
	fit.sums = tpd_take(&at, LANES * pieces->row * sizeof(float));
	fit.products = tpd_take(&at, LANES * count * sizeof(float));
	fit.factors = tpd_take(&at, LANES * count * sizeof(float));
	fit.energy = tpd_take(&at, count * sizeof(double));
	fit.scales = tpd_take(&at, count * sizeof(float));
	fit.exponents = tpd_take(&at, count);
	rows = tpd_take(&at, LANES * count);
	columns = tpd_take(&at, LANES * pieces->row);
	out->part = tpd_take(&at, TPD_LOW_RANK_BOUND(count, pieces->row));
	for (size_t i = 0; i < count; i++) {
		const size_t begin = tpd_piece_start(pieces, i), len = tpd_piece_start(pieces, i + 1) - begin;

		memcpy(base + begin, tpd_predict_fit_piece(prediction, i), len * sizeof(float));
	}
	memcpy(z, prediction->x, n * sizeof(float));
	codec->kernels->predict_difference(z, base, n, z);
	fit.z = z;
	measure(&fit, z);
	out->base = base;
	out->pieces = *pieces;
	if (!(fit.total > 0))
		return TPD_OK;
	start(&fit);
	for (unsigned round = 0; round < ROUNDS; round++) {
		square(&fit, round == 0);
		make_orthogonal(&fit);
	}
	choose_rank(&fit);
	if (fit.rank == 0)
		return TPD_OK;
	round_columns(&fit, columns);
	saved = find_factors(&fit, rows);
	if (!(saved > 0))
		return TPD_OK;
	status = put(codec, &fit, rows, columns, out, err);
	if (status == TPD_OK && saved > 8.0 * (double)out->part_len) {
		use(&fit, rows, columns, out);
		out->rank = fit.rank;
	}
	return status;
}
