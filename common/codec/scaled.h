/*
 * scaled.h - encoding `scaled` (SPEC.md section 11): values that are expected to differ from their prediction by an amount of their own.
 *
 * Adam's moments are of this kind (Kingma and Ba, arXiv:1412.6980): exp_avg lies around a fraction of what it was, as far away as the root of
 * exp_avg_sq says; exp_avg_sq is what it was, less a constant part, plus what came in, which has a size for each row and each column. Without a
 * past (`scaled-alone`) all is predicted to be 0, and what is left of this is the size.
 */
#ifndef TPD_CODEC_SCALED_H
#define TPD_CODEC_SCALED_H

#include "base/tpd.h"
#include "codec/codec.h"
#include "codec/internal.h"

struct tpd_kernels;

/* The form byte. */
enum { TPD_SCALED_V2 = 1, TPD_SCALED_V1 = 2, TPD_SCALED_COLUMNS = 4, TPD_SCALED_ROWS = 8, TPD_SCALED_FORMS = 16 };

#define TPD_SCALED_CLASSES 3u /* K / 4 even, odd; rows in own ulps */
#define TPD_SCALED_OWN_ULPS 2u
#define TPD_SCALED_COLUMN_MIDDLE 128

#define TPD_SCALED_SLACK 64u /* bytes behind the symbols of a class */

/* What stands before the symbols, and so do arrays made from it; all in codec->scaled. */
struct tpd_scaled {
	enum tpd_dtype dtype;
	size_t width, n, count; /* bytes of an element; elements, row pieces */
	struct tpd_pieces pieces;
	unsigned form;
	float factor;          /* of the reference, in rows without one of their own */
	float share;           /* of v1, in what came in */
	int base;              /* of K */
	float *row_factors;    /* one a piece; form TPD_SCALED_ROWS */
	uint8_t *levels;       /* one a piece; 0: in own ulps */
	uint8_t *columns;      /* pieces.row of them; form TPD_SCALED_COLUMNS */
	const uint8_t *v1, *v2; /* the inputs that the form needs, n floats */
	uint8_t *steps, *classes, *symbols; /* a byte an element */
	uint8_t *sorted[TPD_SCALED_CLASSES]; /* symbols of a class, as many and TPD_SCALED_SLACK */
	size_t counts[TPD_SCALED_CLASSES];   /* how many there are; set by tpd_scaled_steps() */
	uint8_t *made;         /* room for the prediction of TPD_SCALED_STRETCH elements */
	/* for the encoder: */
	int16_t *scale, *logs; /* one an element */
	int32_t *means, *column_sums; /* of a piece; twice pieces.row */
};

#define TPD_SCALED_STRETCH 2048u /* elements: whole rounds of lanes */

/* Memory for a chunk of n elements in these pieces; dtype is F32 or BF16. */
enum tpd_status tpd_scaled_room(struct tpd_codec *codec, enum tpd_dtype dtype, const struct tpd_pieces *pieces, struct tpd_scaled *out,
				struct tpd_err *err);
/* v1 and v2, as far as the form needs them. */
enum tpd_status tpd_scaled_inputs(struct tpd_codec *codec, const struct tpd_inputs *inputs, struct tpd_scaled *s, struct tpd_err *err);
/* The column of the first element of piece i. */
static inline size_t tpd_scaled_column(const struct tpd_scaled *s, size_t i)
{
	return i == 0 ? s->pieces.row - s->pieces.first : 0;
}
/* From all of the above, with the floating-point mode set: each element's T and class. scales: of all elements, or NULL: they are made. */
void tpd_scaled_steps(const struct tpd_kernels *kernels, struct tpd_scaled *s, const int16_t *scales);
/* The prediction of elements from start on, at most TPD_SCALED_STRETCH of them, in s->made. */
void tpd_scaled_predict(const struct tpd_kernels *kernels, const struct tpd_scaled *s, const uint8_t *p, size_t start, size_t n);

#define TPD_SCALED_BOUND(n, count, row, width) \
	(64 + 3 * TPD_SYMBOLS_BOUND(count) + TPD_SYMBOLS_BOUND(row) + (n) + TPD_SCALED_CLASSES + (n) * (width) + TPD_FIELDS_SLACK + (width))

enum tpd_status tpd_encode_scaled(struct tpd_codec *codec, const struct tpd_plan *plan, const struct tpd_chunk *chunk, const uint8_t *p,
				  size_t *out_len, struct tpd_err *err);
enum tpd_status tpd_decode_scaled(struct tpd_codec *codec, enum tpd_encoding encoding, enum tpd_dtype dtype, struct tpd_rd *rd, const uint8_t *p,
				  const struct tpd_inputs *inputs, uint8_t *out, size_t len, struct tpd_err *err);

#endif
