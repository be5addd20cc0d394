/*
 * predict.h - where weights are going: a prediction from the last checkpoints and the optimizer's state. SPEC.md section 10.
 *
 *     x ~ w1 + c0 w1 + c1 (w1 - w0) + c2 m1 / sqrt(v1) + c3 m2 / sqrt(v2)
 *
 * after Kingma and Ba, "Adam" (arXiv:1412.6980): an update is in proportion to m / sqrt(v), and with decoupled weight decay (Loshchilov and
 * Hutter, arXiv:1711.05101) to the weight. Coefficients are fitted by least squares, for a chunk or for each row of it.
 *
 * A prediction is made piece by piece, just before the grid takes it, so that it and what it is made from never leave the first cache:
 *
 *     encoding:  tpd_predict_start(codec, terms, chunk, p, pieces, &prediction, err);    which form
 *                for each piece: tpd_predict_fit_piece(&prediction, i);
 *                tpd_predict_put(codec, &prediction, out, &len, err);
 *     decoding:  tpd_predict_read(codec, rd, p, inputs, n, &prediction, err);
 *                for each stretch of at most TPD_ROW_MAX elements: tpd_predict_stretch(&prediction, start, n);
 *
 * All memory is the codec's. Both functions for pieces want the floating-point mode set.
 */
#ifndef TPD_CODEC_PREDICT_H
#define TPD_CODEC_PREDICT_H

#include "base/tpd.h"
#include "codec/codec.h"
#include "codec/internal.h"
#include "codec/kernels.h"
#include "codec/low_rank.h"

#define TPD_TERMS 4u /* TPD_TERM_COUNT */

/* For kernels: what elements are predicted from, little-endian floats at any address. Those that no term needs are NULL. */
struct tpd_predict_from {
	unsigned terms;
	const uint8_t *w1, *of[TPD_INPUT_COUNT];
};

struct tpd_prediction {
	const struct tpd_kernels *kernels;
	struct tpd_predict_from from;   /* of all elements */
	struct tpd_pieces pieces;       /* with coefficients of their own; one, where it has those for all */
	bool by_rows;
	float whole[TPD_TERMS];
	float (*rows)[TPD_TERMS];       /* of the pieces, by_rows */
	float *made;                    /* room for TPD_ROW_MAX elements and a register */
	struct tpd_low_rank low_rank;
	struct tpd_prefetch soon;
	/* for encoding: */
	const uint8_t *x;
	float *terms;                   /* of the piece that is being fitted, TPD_TERM_ROOM each */
};

enum tpd_status tpd_predict_start(struct tpd_codec *codec, const struct tpd_plan *plan, const struct tpd_chunk *chunk, const uint8_t *p,
				  const struct tpd_pieces *pieces, struct tpd_prediction *out, struct tpd_err *err);
/* The prediction of piece i, with coefficients that it finds for it, if it is to have some. Valid until the next one. */
const uint8_t *tpd_predict_fit_piece(struct tpd_prediction *prediction, size_t i);
/* What stands before the grid's payload, once all pieces are fitted; room for TPD_PREDICT_BOUND() bytes. */
enum tpd_status tpd_predict_put(struct tpd_codec *codec, const struct tpd_prediction *prediction, uint8_t *out, size_t *out_len,
				struct tpd_err *err);
#define TPD_PREDICT_BOUND(pieces, row) (32 + 2 * TPD_TERMS * ((pieces) + 1) + TPD_LOW_RANK_BOUND(pieces, row))

enum tpd_status tpd_predict_read(struct tpd_codec *codec, struct tpd_rd *rd, const uint8_t *p, const struct tpd_inputs *inputs, size_t n,
				 struct tpd_prediction *out, struct tpd_err *err);
/* What the next pieces are made from, once the one that ends before element `start` is made; n: how many elements it has. NULL: fewer are left. */
const struct tpd_prefetch *tpd_predict_soon(struct tpd_prediction *prediction, size_t start, size_t n);

/* The prediction of elements that need not be a piece. Valid until the next one. */
const uint8_t *tpd_predict_stretch(struct tpd_prediction *prediction, size_t start, size_t n);

/* n floats of an input, continued with zeros; one of no bytes may have no data. */
void tpd_input_load(const struct tpd_bytes *from, size_t n, float *out);

/* --- predict_fit.c: least squares --- */

/* Normal equations. g: terms by terms; h: terms by change; yy: change by change. */
struct tpd_normal {
	double g[TPD_TERMS][TPD_TERMS], h[TPD_TERMS], yy;
};
#define TPD_PRODUCTS 15u /* of up to four terms and the change */
/* From the sums of products that the kernels make of `count` terms and the change behind them. */
void tpd_normal_unpack(const double *products, unsigned count, struct tpd_normal *out);
/* `count` coefficients; zeros where nothing can be said. */
void tpd_normal_solve(const struct tpd_normal *normal, unsigned count, double c[TPD_TERMS]);
/* A coefficient as it is stored in two bytes: rounded to BF16, 0 where that is not finite. */
float tpd_coefficient(double c);

#define TPD_LEARN_MAX 1024u /* elements of a piece that are learnt from; of a longer one, stretches */
#define TPD_TERM_ROOM (TPD_LEARN_MAX + 16u) /* floats of a term of theirs: a register may be stored whole */

/* The whole chunk's coefficients, and whether to have those of each row instead: prediction->whole and by_rows. */
void tpd_predict_choose(struct tpd_prediction *prediction);
/* Those of piece i, of the precision in which they are stored. *out_terms: all of its terms are in prediction->terms. */
void tpd_predict_fit_row(struct tpd_prediction *prediction, size_t i, float out[TPD_TERMS], bool *out_terms);

#endif
