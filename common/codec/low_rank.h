/*
 * low_rank.h - the part of a prediction that rows have in common (SPEC.md section 10): what the other terms leave of a matrix' change is, to a
 * good part, a sum of few products of a column of factors and a row. Gradients of a weight matrix are sums of outer products, one a token, and
 * updates keep that: Hu et al., "LoRA" (arXiv:2106.09685), and Zhao et al., "GaLore" (arXiv:2403.03507) build on the same thing.
 *
 *     p += (A[row][0] B[0][column] + A[row][1] B[1][column] + ...) 2^exponent[row]
 */
#ifndef TPD_CODEC_LOW_RANK_H
#define TPD_CODEC_LOW_RANK_H

#include "base/tpd.h"
#include "codec/internal.h"

#define TPD_LOW_RANK_MAX 32u   /* of the format */
#define TPD_LOW_RANK_LANES 16u /* the encoder's highest */
#define TPD_LOW_RANK_ROW_MIN 32u
#define TPD_LOW_RANK_BLOCK 64u /* columns that stand together */
#define TPD_LOW_RANK_MIDDLE 128 /* the byte of a factor 0 */

struct tpd_low_rank {
	unsigned rank;            /* 0: there is none */
	struct tpd_pieces pieces;
	float *factors;           /* rank of them a piece */
	float *columns;           /* TPD_LOW_RANK_COLUMNS(): see tpd_low_rank_columns() */
	/* for encoding: */
	const float *base;        /* what the rest of the prediction is, of all elements; NULL: not yet known */
	uint8_t *part;            /* what stands in a payload */
	size_t part_len;
};

#define TPD_LOW_RANK_BOUND(pieces, row) (8 + (pieces) + 1 + TPD_LOW_RANK_MAX * ((pieces) + (row) + 1) + 2)

#define TPD_LOW_RANK_COLUMNS(rank, row) ((rank) * (((row) + TPD_LOW_RANK_BLOCK - 1) / TPD_LOW_RANK_BLOCK * TPD_LOW_RANK_BLOCK)) /* floats */

struct tpd_prediction;
struct tpd_kernels;
/* Find it. The prediction has been started, and no piece of it fitted; they all are after this. The floating-point mode is set. */
enum tpd_status tpd_low_rank_fit(struct tpd_codec *codec, struct tpd_prediction *prediction, const struct tpd_pieces *pieces, struct tpd_err *err);
enum tpd_status tpd_low_rank_read(struct tpd_codec *codec, struct tpd_rd *rd, size_t n, struct tpd_low_rank *out, struct tpd_err *err);
/* p, of elements that need not be a piece, += what it says. */
void tpd_low_rank_add(const struct tpd_kernels *kernels, const struct tpd_low_rank *low_rank, size_t start, size_t n, float *p);

/* A row's factor as it is used: the byte less 128, times 2^(exponent + shift - 255), brought into the range of normal numbers. */
float tpd_low_rank_factor(uint8_t byte, uint8_t exponent, uint8_t shift);
/* Columns' bytes, component after component, as the kernels have them. */
void tpd_low_rank_columns(const uint8_t *bytes, size_t rank, size_t row, float *out);

#endif
