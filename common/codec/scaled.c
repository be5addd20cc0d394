/*
 * scaled.c - encoding `scaled`: what both directions make of a header, and the decoder. SPEC.md section 11.
 *
 * Prediction and steps of all elements are made first, piece by piece; the symbols of each class are a stream of their own, and are dealt
 * out to the elements in order.
 */
#include "base/tpd.h"

#include "codec/scaled.h"

#include <fenv.h>
#include <string.h>

#include "codec/grid_kernel.h"
#include "codec/kernels.h"
#include "codec/predict.h"

static enum tpd_status corrupt(struct tpd_err *err, const char *what)
{
	return tpd_fail(err, TPD_CORRUPT, "scaled: %s", what);
}

/* The next `size` bytes of the codec's memory, aligned for anything. */
static void *take(uint8_t **at, size_t size)
{
	uint8_t *from = *at;

	*at += (size + 15) / 16 * 16;
	return from;
}

enum tpd_status tpd_scaled_room(struct tpd_codec *codec, enum tpd_dtype dtype, const struct tpd_pieces *pieces, struct tpd_scaled *out,
				struct tpd_err *err)
{
	const size_t n = pieces->n, count = tpd_piece_count(pieces), row = pieces->row, rounds = tpd_whole_rounds(n) + 16;
	const size_t size = 5 * count + 2 * row + 25 * rounds + 8 * (4 * (count + row) + 64) + 16 * 16;
	enum tpd_status status = tpd_scratch_need(&codec->scaled, size, err);
	uint8_t *at = codec->scaled.data;

	if (status != TPD_OK)
		return status;
	*out = (struct tpd_scaled){.dtype = dtype, .width = tpd_dtype_width(dtype), .n = n, .count = count, .pieces = *pieces, .factor = 1};
	out->sums = take(&at, 8 * (4 * (count + row) + 64));
	out->row_factors = take(&at, 4 * count);
	out->levels = take(&at, count);
	out->columns = take(&at, 2 * row);
	out->scale = take(&at, 2 * rounds);
	out->steps = take(&at, rounds);
	out->classes = take(&at, rounds);
	out->sorted = take(&at, rounds);
	out->v1 = take(&at, 4 * rounds);
	out->v2 = take(&at, 4 * rounds);
	out->a = take(&at, 4 * rounds);
	out->b = take(&at, 4 * rounds);
	out->c = take(&at, 4 * rounds);
	return tpd_scratch_need(&codec->predicted, n * out->width + 16, err);
}

void tpd_scaled_predict(struct tpd_codec *codec, struct tpd_scaled *s, const uint8_t *p)
{
	s->predicted = codec->predicted.data;
	for (size_t i = 0; i < s->count; i++) {
		size_t start = tpd_piece_start(&s->pieces, i), n = tpd_piece_start(&s->pieces, i + 1) - start;
		float factor = s->form & TPD_SCALED_ROWS && s->levels[i] > 0 ? s->row_factors[i] : s->factor;

		codec->kernels->scaled_predict(s->dtype, p + start * s->width, factor, n, s->predicted + start * s->width);
	}
}

void tpd_scaled_steps(struct tpd_codec *codec, struct tpd_scaled *s)
{
	for (size_t i = 0; i < s->count; i++) {
		size_t start = tpd_piece_start(&s->pieces, i), n = tpd_piece_start(&s->pieces, i + 1) - start;

		if (s->levels[i] == 0) {
			memset(s->steps + start, 0, n);
			memset(s->classes + start, TPD_SCALED_OWN_ULPS, n);
			continue;
		}
		codec->kernels->scaled_steps(s->dtype, s->base + s->levels[i], s->form & TPD_SCALED_V2 ? s->scale + start : NULL,
					     s->form & TPD_SCALED_COLUMNS ? s->columns + tpd_scaled_column(s, i) : NULL, n, s->steps + start,
					     s->classes + start);
	}
}

/* --- the decoder --- */

static enum tpd_status read_row_factors(struct tpd_codec *codec, struct tpd_rd *rd, struct tpd_scaled *s, struct tpd_err *err)
{
	uint8_t *planes[2] = {s->steps, s->classes}; /* not in use yet; a piece has an element */
	enum tpd_status status = tpd_symbols_decode(codec, rd, planes[0], s->count, err);

	if (status == TPD_OK)
		status = tpd_symbols_decode(codec, rd, planes[1], s->count, err);
	for (size_t i = 0; status == TPD_OK && i < s->count; i++)
		s->row_factors[i] = float_of((uint32_t)planes[0][i] << 16 | (uint32_t)planes[1][i] << 24);
	return status;
}

static enum tpd_status read_header(struct tpd_codec *codec, struct tpd_rd *rd, const struct tpd_inputs *inputs, struct tpd_scaled *s,
				   struct tpd_err *err)
{
	enum tpd_status status = TPD_OK;

	if (s->form & TPD_SCALED_V2 && !(inputs && inputs->of[TPD_INPUT_V2].data))
		return corrupt(err, "it needs what there is not");
	if (s->form & TPD_SCALED_V1 && !(inputs && inputs->of[TPD_INPUT_V1].data))
		return corrupt(err, "it needs what there is not");
	s->factor = float_of(tpd_rd_u32(rd));
	s->share = s->form & TPD_SCALED_V1 ? float_of(tpd_rd_u32(rd)) : 0;
	s->base = (int16_t)tpd_rd_u16(rd);
	if (!tpd_rd_ok(rd))
		return corrupt(err, "ends inside its header");
	if (s->form & TPD_SCALED_ROWS)
		status = read_row_factors(codec, rd, s, err);
	if (status == TPD_OK)
		status = tpd_symbols_decode(codec, rd, s->levels, s->count, err);
	if (status == TPD_OK && s->form & TPD_SCALED_COLUMNS)
		status = tpd_symbols_decode(codec, rd, s->columns, s->pieces.row, err);
	return status;
}

/* The streams of the classes, and then each element's symbol from that of its class. */
static enum tpd_status read_symbols(struct tpd_codec *codec, struct tpd_rd *rd, struct tpd_scaled *s, struct tpd_err *err)
{
	size_t counts[TPD_SCALED_CLASSES] = {0};
	const uint8_t *next[TPD_SCALED_CLASSES];
	uint8_t *at = s->sorted;
	enum tpd_status status = TPD_OK;

	for (size_t i = 0; i < s->n; i++)
		counts[s->classes[i]]++;
	for (unsigned c = 0; status == TPD_OK && c < TPD_SCALED_CLASSES; c++) {
		next[c] = at;
		status = tpd_symbols_decode(codec, rd, at, counts[c], err);
		at += counts[c];
	}
	for (size_t i = 0; status == TPD_OK && i < s->n; i++)
		codec->symbols.data[i] = *next[s->classes[i]]++;
	return status;
}

enum tpd_status tpd_decode_scaled(struct tpd_codec *codec, enum tpd_encoding encoding, enum tpd_dtype dtype, struct tpd_rd *rd, const uint8_t *p,
				  const struct tpd_inputs *inputs, uint8_t *out, size_t len, struct tpd_err *err)
{
	const unsigned width = tpd_dtype_width(dtype);
	const size_t n = len / width, left = len % width;
	unsigned form = tpd_rd_u8(rd);
	size_t row = tpd_rd_u16(rd), first = tpd_rd_u16(rd), words_len;
	struct tpd_fields_in fields;
	struct tpd_scaled s = {0};
	const uint8_t *words;
	fenv_t caller;
	bool valid;
	enum tpd_status status;

	if (!tpd_rd_ok(rd) || row == 0 || row > TPD_ROW_MAX || first == 0 || first > row)
		return corrupt(err, "bad header");
	if (form >= TPD_SCALED_FORMS)
		return tpd_fail(err, TPD_UNSUPPORTED, "scaled: an unknown form %u", form);
	if (form & TPD_SCALED_V1 && !(form & TPD_SCALED_V2))
		return corrupt(err, "v1 without v2");
	if (encoding == TPD_ENCODING_SCALED_ALONE && form & (TPD_SCALED_V1 | TPD_SCALED_ROWS))
		return corrupt(err, "alone, and it speaks of a past");
	status = tpd_scaled_room(codec, dtype, &(struct tpd_pieces){first, row, n}, &s, err);
	if (status == TPD_OK)
		status = tpd_scratch_need(&codec->symbols, n + 1, err);
	s.form = form;
	if (status == TPD_OK)
		status = read_header(codec, rd, inputs, &s, err);
	if (status != TPD_OK)
		return status;
	fegetenv(&caller);
	fesetenv(FE_DFL_ENV);
	if (form & TPD_SCALED_V2) {
		tpd_input_load(&inputs->of[TPD_INPUT_V2], n, s.v2);
		if (form & TPD_SCALED_V1)
			tpd_input_load(&inputs->of[TPD_INPUT_V1], n, s.v1);
		codec->kernels->scaled_scale(s.v2, form & TPD_SCALED_V1 ? s.v1 : NULL, s.share, n, s.scale);
	}
	tpd_scaled_predict(codec, &s, p);
	tpd_scaled_steps(codec, &s);
	fesetenv(&caller);
	status = read_symbols(codec, rd, &s, err);
	if (status != TPD_OK)
		return status;
	words_len = (size_t)tpd_rd_u32(rd) * 4;
	words = tpd_rd_bytes(rd, words_len);
	if (!words || tpd_rd_left(rd) != left)
		return corrupt(err, "the payload has the wrong length");
	tpd_fields_open(&fields, words, words_len);
	fesetenv(FE_DFL_ENV);
	valid = codec->kernels->scaled_decode(dtype, s.steps, s.predicted, codec->symbols.data, n, out, &fields);
	fesetenv(&caller);
	if (!valid)
		return corrupt(err, "an element is not valid");
	if (!tpd_fields_done(&fields))
		return corrupt(err, "the fields do not end where they must");
	memcpy(out + n * width, tpd_rd_bytes(rd, left), left);
	return TPD_OK;
}
