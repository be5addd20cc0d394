/*
 * decode.c - bytes from a payload that somebody else wrote.  Every rule of SPEC.md is checked on the way.
 */
#include "base/tpd.h"

#include <fenv.h>
#include <string.h>

#include "codec/context.h"
#include "codec/fields.h"
#include "codec/internal.h"
#include "codec/kernels.h"
#include "codec/predict.h"
#include "codec/step.h"

enum tpd_status tpd_decode_planes(struct tpd_codec *codec, enum tpd_dtype dtype, struct tpd_rd *rd, uint8_t *out,
				  size_t len, struct tpd_err *err)
{
	const unsigned width = tpd_element_width(TPD_ENCODING_PLANES, dtype);
	const size_t n = len / width, left = len % width;
	unsigned rotate = tpd_rd_u8(rd);
	const uint8_t *planes[8];
	enum tpd_status status;

	if (!tpd_rd_ok(rd) || rotate > 1 || (rotate == 1 && !tpd_planes_may_rotate(dtype)))
		return tpd_fail(err, TPD_CORRUPT, "planes: bad header");
	status = tpd_scratch_need(&codec->symbols, width * n + 1, err);
	for (unsigned b = 0; b < width && status == TPD_OK; b++)
		status = tpd_symbols_view(codec, rd, codec->symbols.data + b * n, n, &planes[b], err);
	if (status != TPD_OK)
		return status;
	if (tpd_rd_left(rd) != left)
		return tpd_fail(err, TPD_CORRUPT, "planes: the payload has the wrong length");
	codec->kernels->planes_join(planes, n, width, rotate == 1, out);
	memcpy(out + n * width, tpd_rd_bytes(rd, left), left);
	return TPD_OK;
}

/* The grid's pieces, of which T and symbols are known; false: not valid. */
static bool decode_pieces(const struct tpd_codec *codec, enum tpd_dtype dtype, const struct tpd_pieces *pieces, const uint8_t *p,
			  struct tpd_prediction *prediction, uint8_t *out, struct tpd_fields_in *fields)
{
	const size_t width = tpd_element_width(TPD_ENCODING_GRID, dtype), count = tpd_piece_count(pieces);
	const uint8_t *steps = codec->steps.data, *symbols = codec->symbols.data;
	bool valid = true;
	fenv_t caller;

	fegetenv(&caller);
	fesetenv(FE_DFL_ENV);
	if (!prediction)
		valid = codec->kernels->grid_decode(dtype, steps, pieces, p, symbols, NULL, out, fields);
	for (size_t i = 0; prediction && valid && i < count; i++) {
		const size_t start = tpd_piece_start(pieces, i), n = tpd_piece_start(pieces, i + 1) - start;
		const uint8_t *from = tpd_predict_stretch(prediction, start, n);

		valid = codec->kernels->grid_decode(dtype, steps + i, &(struct tpd_pieces){n, n, n}, from, symbols + start,
						    tpd_predict_soon(prediction, start + n, n), out + start * width, fields);
	}
	fesetenv(&caller);
	return valid;
}

enum tpd_status tpd_decode_grid(struct tpd_codec *codec, enum tpd_encoding encoding, enum tpd_dtype dtype, struct tpd_rd *rd,
				const uint8_t *p, const struct tpd_steps *steps, struct tpd_prediction *prediction, uint8_t *out, size_t len,
				struct tpd_err *err)
{
	const unsigned width = tpd_element_width(TPD_ENCODING_GRID, dtype);
	const size_t n = len / width, left = len % width;
	size_t row = tpd_rd_u16(rd), first = tpd_rd_u16(rd), count;
	struct tpd_grid_type type = {0};
	struct tpd_fields_in fields;
	enum tpd_status status;

	tpd_grid_type(dtype, &type);
	if (!tpd_rd_ok(rd) || row == 0 || row > TPD_ROW_MAX || first == 0 || first > row)
		return tpd_fail(err, TPD_CORRUPT, "grid: bad header");
	first = TPD_MIN(first, n);
	count = tpd_piece_count(&(struct tpd_pieces){first, row, n});
	status = tpd_scratch_need(&codec->steps, count + 1, err);
	if (status == TPD_OK)
		status = tpd_scratch_need(&codec->symbols, n + 1, err);
	if (status == TPD_OK)
		status = tpd_symbols_decode(codec, rd, codec->steps.data, count, err);
	for (size_t i = 0; status == TPD_OK && i < count; i++) /* before contexts are made of the first one */
		if (codec->steps.data[i] == 0 || codec->steps.data[i] > type.t_max)
			status = tpd_fail(err, TPD_CORRUPT, "grid: T = %u", codec->steps.data[i]);
	if (status == TPD_OK && encoding == TPD_ENCODING_CONTEXT)
		status = tpd_context_symbols_decode(codec, dtype, count > 0 ? codec->steps.data[0] : 1, rd, p, &steps->given, codec->symbols.data,
						    &(struct tpd_pieces){first, row, n}, err);
	else if (status == TPD_OK && tpd_encoding_has_classes(encoding))
		status = tpd_class_symbols_decode(codec, dtype, rd, p, encoding == TPD_ENCODING_STEPPED ? &steps->given : NULL,
						  codec->symbols.data, &(struct tpd_pieces){first, row, n}, err);
	else if (status == TPD_OK)
		status = tpd_symbols_decode_before(codec, rd, prediction ? tpd_predict_soon(prediction, 0, n) : NULL, codec->symbols.data, n, err);
	if (status == TPD_OK && tpd_encoding_has_steps(encoding))
		status = tpd_step_towards(codec, steps, &p, n, err);
	if (status != TPD_OK)
		return status;
	status = tpd_fields_read(codec, rd, left, &fields, err);
	if (status != TPD_OK)
		return status;
	if (!decode_pieces(codec, dtype, &(struct tpd_pieces){first, row, n}, p, prediction, out, &fields))
		return tpd_fail(err, TPD_CORRUPT, "grid: an element is not valid");
	if (!tpd_fields_done(&fields))
		return tpd_fail(err, TPD_CORRUPT, "grid: the fields do not end where they must");
	memcpy(out + n * width, tpd_rd_bytes(rd, left), left);
	return TPD_OK;
}
