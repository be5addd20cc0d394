/*
 * predict.h - where weights are going: a prediction from the last checkpoints and the optimizer's state. SPEC.md section 10.
 *
 *     x ~ w1 + c0 w1 + c1 (w1 - w0) + c2 m1 / sqrt(v1) + c3 m2 / sqrt(v2)
 *
 * after Kingma and Ba, "Adam" (arXiv:1412.6980): an update is in proportion to m / sqrt(v), and with decoupled weight decay (Loshchilov and
 * Hutter, arXiv:1711.05101) to the weight. Coefficients are fitted by least squares, for a chunk or for each row of it.
 */
#ifndef TPD_CODEC_PREDICT_H
#define TPD_CODEC_PREDICT_H

#include "base/tpd.h"
#include "codec/codec.h"

#define TPD_TERMS 4u /* TPD_TERM_COUNT */

struct tpd_codec;
struct tpd_rd;
struct tpd_pieces;

/*
 * Fit and predict. out: room for tpd_predict_bound() bytes of what stands before the grid's payload; *out_p: the prediction, n
 * elements in codec->predicted. The chunk has its inputs.
 */
enum tpd_status tpd_predict_encode(struct tpd_codec *codec, unsigned terms, const struct tpd_chunk *chunk, const uint8_t *p,
				   const struct tpd_pieces *pieces, uint8_t *out, size_t *out_len, const uint8_t **out_p, struct tpd_err *err);
#define TPD_PREDICT_BOUND(pieces) (32 + 2 * TPD_TERMS * ((pieces) + 1))
/* Read what stands before the grid's payload, and predict. */
enum tpd_status tpd_predict_decode(struct tpd_codec *codec, struct tpd_rd *rd, const uint8_t *p, const struct tpd_inputs *inputs, size_t n,
				   const uint8_t **out_p, struct tpd_err *err);

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

struct tpd_prediction {
	const float *w1, *x;              /* x: while fitting */
	const float *terms[TPD_TERMS];    /* NULL: not used */
	size_t n;
};

/*
 * Coefficients for each piece in *by_piece (room for 4 each), of the precision in which they are stored; returns true when they pay, else
 * `whole` has those for all.
 */
bool tpd_predict_fit(struct tpd_codec *codec, const struct tpd_prediction *prediction, const struct tpd_pieces *pieces, double *scratch,
		     float (*by_piece)[TPD_TERMS], float whole[TPD_TERMS]);
/* Doubles of scratch that it needs. */
#define TPD_PREDICT_SCRATCH(pieces) ((pieces) * (TPD_PRODUCTS + 4 + 2) + 64)

#endif
