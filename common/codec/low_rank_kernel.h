/*
 * low_rank_kernel.h - the loops of a prediction's low-rank part (SPEC.md section 10) in plain C, which every form of the kernels compiles with
 * its own instruction sets. Sixteen columns of a basis stand side by side for each element of a row, so that nothing is summed across a
 * register: each sum has one order, that of the elements, in every form.
 */
#ifndef TPD_CODEC_LOW_RANK_KERNEL_H
#define TPD_CODEC_LOW_RANK_KERNEL_H

#include "base/tpd.h"
#include "codec/grid_kernel.h"
#include "codec/low_rank.h"

#include <string.h>

#ifdef __FAST_MATH__
#error "a prediction needs IEEE arithmetic"
#endif

#define LOW_RANK_ROWS 4u /* at a time: their sums do not wait for each other */

/* A register's worth: wider ones would be taken apart in memory. */
#if defined(__AVX512F__)
#define LOW_RANK_WIDTH 16u
#elif defined(__AVX__)
#define LOW_RANK_WIDTH 8u
#else
#define LOW_RANK_WIDTH 4u
#endif
#define LOW_RANK_PARTS (TPD_LOW_RANK_LANES / LOW_RANK_WIDTH)
typedef float low_rank_lanes __attribute__((vector_size(LOW_RANK_WIDTH * sizeof(float))));
typedef double low_rank_doubles __attribute__((vector_size(LOW_RANK_WIDTH / 2 * sizeof(double))));
typedef low_rank_lanes low_rank_anywhere __attribute__((aligned(sizeof(float)), may_alias));


/* (memcpy() would be done in halves by gcc, and then waited for.) */
TPD_INLINE low_rank_lanes low_rank_load(const float *from)
{
	return *(const low_rank_anywhere *)from;
}

TPD_INLINE void low_rank_project_rows(const float *z, size_t n, const unsigned rows, const float *basis,
				      low_rank_lanes sums[LOW_RANK_ROWS][LOW_RANK_PARTS])
{
	low_rank_lanes own[LOW_RANK_ROWS][LOW_RANK_PARTS] = {{{0}}};

	for (size_t c = 0; c < n; c++) {
		low_rank_lanes b[LOW_RANK_PARTS];

#pragma GCC unroll 4
		for (unsigned v = 0; v < LOW_RANK_PARTS; v++)
			b[v] = low_rank_load(basis + c * TPD_LOW_RANK_LANES + v * LOW_RANK_WIDTH);
#pragma GCC unroll 4
		for (unsigned r = 0; r < rows; r++)
#pragma GCC unroll 4
			for (unsigned v = 0; v < LOW_RANK_PARTS; v++)
				own[r][v] = own[r][v] + z[r * n + c] * b[v];
	}
	memcpy(sums, own, rows * sizeof(own[0]));
}

TPD_INLINE void low_rank_square_rows(const float *z, size_t n, const unsigned rows, const float *scales, const float *basis, float *sums)
{
	low_rank_lanes y[LOW_RANK_ROWS][LOW_RANK_PARTS];

	low_rank_project_rows(z, n, rows, basis, y);
	for (unsigned r = 0; r < rows; r++)
		for (unsigned v = 0; v < LOW_RANK_PARTS; v++)
			y[r][v] = y[r][v] * scales[r];
#pragma GCC unroll 4
	for (unsigned v = 0; v < LOW_RANK_PARTS; v++)
		for (size_t c = 0; c < n; c++) {
			float *at = sums + c * TPD_LOW_RANK_LANES + v * LOW_RANK_WIDTH;
			low_rank_lanes sum = low_rank_load(at);

#pragma GCC unroll 4
			for (unsigned r = 0; r < rows; r++)
				sum = sum + z[r * n + c] * y[r][v];
			*(low_rank_anywhere *)at = sum;
		}
}

/* sums += for each of `rows` rows of n elements: itself times its scale times its products with the basis. */
static void low_rank_square(const float *z, size_t n, size_t rows, const float *scales, const float *basis, float *sums)
{
	size_t r = 0;

	for (; r + LOW_RANK_ROWS <= rows; r += LOW_RANK_ROWS)
		low_rank_square_rows(z + r * n, n, LOW_RANK_ROWS, scales + r, basis, sums);
	for (; r < rows; r++)
		low_rank_square_rows(z + r * n, n, 1, scales + r, basis, sums);
}

/* out: the products of each row with the basis. */
static void low_rank_project(const float *z, size_t n, size_t rows, const float *basis, float *out)
{
	low_rank_lanes y[LOW_RANK_ROWS][LOW_RANK_PARTS];
	size_t r = 0;

	for (; r + LOW_RANK_ROWS <= rows; r += LOW_RANK_ROWS) {
		low_rank_project_rows(z + r * n, n, LOW_RANK_ROWS, basis, y);
		memcpy(out + r * TPD_LOW_RANK_LANES, y, sizeof(y));
	}
	for (; r < rows; r++) {
		low_rank_project_rows(z + r * n, n, 1, basis, y);
		memcpy(out + r * TPD_LOW_RANK_LANES, y, sizeof(y[0]));
	}
}

/* out: the products of each two columns of `rows` rows, in double. */
static void low_rank_products(const float *rows_of, size_t rows, double *out)
{
	for (unsigned a = 0; a < TPD_LOW_RANK_LANES; a += 4) {
		low_rank_doubles sums[4][2 * LOW_RANK_PARTS] = {{{0}}};

		for (size_t c = 0; c < rows; c++) {
			const float *of = rows_of + c * TPD_LOW_RANK_LANES;
			double wide[TPD_LOW_RANK_LANES];
			low_rank_doubles b[2 * LOW_RANK_PARTS];

			for (unsigned l = 0; l < TPD_LOW_RANK_LANES; l++)
				wide[l] = (double)of[l];
			memcpy(b, wide, sizeof(b));
#pragma GCC unroll 4
			for (unsigned k = 0; k < 4; k++)
#pragma GCC unroll 8
				for (unsigned v = 0; v < 2 * LOW_RANK_PARTS; v++)
					sums[k][v] = sums[k][v] + wide[a + k] * b[v];
		}
		memcpy(out + a * TPD_LOW_RANK_LANES, sums, sizeof(sums));
	}
}

/* What is added to p; p where that is not finite. */
TPD_INLINE void low_rank_add_one(float *p, float sum)
{
	float made = *p + sum;
	float off = made - made; /* 0, or NaN where it is not finite */

	*p = off == 0 ? made : *p;
}

TPD_INLINE void low_rank_add_block(const float *factors, size_t rank, const float *columns, float *p)
{
	float sum[TPD_LOW_RANK_BLOCK];

	for (unsigned part = 0; part < TPD_LOW_RANK_BLOCK; part += 4 * LOW_RANK_WIDTH) {
		low_rank_lanes own[4] = {{0}};

		for (size_t k = 0; k < rank; k++)
#pragma GCC unroll 4
			for (unsigned v = 0; v < 4; v++)
				own[v] = own[v] + factors[k] * low_rank_load(columns + k * TPD_LOW_RANK_BLOCK + part + v * LOW_RANK_WIDTH);
		memcpy(sum + part, own, sizeof(own));
	}
	for (unsigned i = 0; i < TPD_LOW_RANK_BLOCK; i++)
		low_rank_add_one(p + i, sum[i]);
}

/*
 * p of n elements, the first of which is in column `column`, += factors times columns; p where that is not finite. Columns stand in blocks, in
 * which those of one component stand behind those of another: one stream of memory, not as many as there are components.
 */
static void low_rank_add(const float *factors, size_t rank, const float *columns, size_t column, size_t n, float *p)
{
	while (n > 0) {
		const size_t lo = column % TPD_LOW_RANK_BLOCK, len = TPD_MIN(n, TPD_LOW_RANK_BLOCK - lo);
		const float *block = columns + (column - lo) * rank;

		if (len == TPD_LOW_RANK_BLOCK) {
			low_rank_add_block(factors, rank, block, p);
		} else {
			float pad[TPD_LOW_RANK_BLOCK] = {0};

			memcpy(pad + lo, p, len * sizeof(*p));
			low_rank_add_block(factors, rank, block, pad);
			memcpy(p, pad + lo, len * sizeof(*p));
		}
		column += len;
		p += len;
		n -= len;
	}
}

#endif
