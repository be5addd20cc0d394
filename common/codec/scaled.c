/*
 * scaled.c - encoding `scaled`: what both directions make of a header, and the decoder. SPEC.md section 11.
 *
 * The steps of all elements are made first, piece by piece; the symbols of each class are a stream of their own, and are dealt out to the
 * elements in order. Predictions are made for a stretch just before it is decoded.
 */
#include "base/tpd.h"

#include "codec/scaled.h"

#include <fenv.h>
#include <string.h>

#include "codec/fields.h"
#include "codec/grid_kernel.h"
#include "codec/kernels.h"
#include "codec/predict.h"

static enum tpd_status corrupt(struct tpd_err *err, const char *what)
{
	return tpd_fail(err, TPD_CORRUPT, "scaled: %s", what);
}

enum tpd_status tpd_scaled_room(struct tpd_codec *codec, enum tpd_dtype dtype, const struct tpd_pieces *pieces, struct tpd_scaled *out,
				struct tpd_err *err)
{
	const size_t n = pieces->n, count = tpd_piece_count(pieces), row = pieces->row, width = tpd_dtype_width(dtype), sort = n + TPD_SCALED_SLACK;
	const size_t size = 9 * count + 9 * row + 7 * (n + 16) + TPD_SCALED_CLASSES * sort + TPD_SCALED_STRETCH * width +
			    TPD_TAKE_ALIGN * (10 + TPD_SCALED_CLASSES);
	enum tpd_status status = tpd_scratch_need(&codec->scaled, size, err);
	uint8_t *at = codec->scaled.data;

	if (status != TPD_OK)
		return status;
	*out = (struct tpd_scaled){.dtype = dtype, .width = width, .n = n, .count = count, .pieces = *pieces, .factor = 1};
	out->row_factors = tpd_take(&at, 4 * count);
	out->means = tpd_take(&at, 4 * count);
	out->column_sums = tpd_take(&at, 8 * row);
	out->levels = tpd_take(&at, count);
	out->columns = tpd_take(&at, row);
	out->scale = tpd_take(&at, 2 * n);
	out->logs = tpd_take(&at, 2 * n);
	out->steps = tpd_take(&at, n);
	out->classes = tpd_take(&at, n);
	out->symbols = tpd_take(&at, n);
	out->made = tpd_take(&at, TPD_SCALED_STRETCH * width);
	for (unsigned c = 0; c < TPD_SCALED_CLASSES; c++)
		out->sorted[c] = tpd_take(&at, sort);
	return TPD_OK;
}

enum tpd_status tpd_scaled_inputs(struct tpd_codec *codec, const struct tpd_inputs *inputs, struct tpd_scaled *s, struct tpd_err *err)
{
	static const struct {
		unsigned form;
		enum tpd_input input;
	} wanted[] = {{TPD_SCALED_V1, TPD_INPUT_V1}, {TPD_SCALED_V2, TPD_INPUT_V2}};
	const uint8_t **to[] = {&s->v1, &s->v2};
	enum tpd_status status = tpd_scratch_need(&codec->inputs, TPD_ARRAY_LEN(wanted) * s->n * sizeof(float), err);

	for (size_t i = 0; status == TPD_OK && i < TPD_ARRAY_LEN(wanted); i++) {
		const struct tpd_bytes *from = s->form & wanted[i].form ? &inputs->of[wanted[i].input] : NULL;
		float *whole = (float *)(void *)codec->inputs.data + i * s->n;

		if (!from)
			continue;
		*to[i] = from->data;
		if (from->len / sizeof(float) >= s->n)
			continue;
		tpd_input_load(from, s->n, whole);
		*to[i] = (const uint8_t *)whole;
	}
	return status;
}

void tpd_scaled_predict(const struct tpd_kernels *kernels, const struct tpd_scaled *s, const uint8_t *p, size_t start, size_t n)
{
	size_t piece = start < s->pieces.first ? 0 : 1 + (start - s->pieces.first) / s->pieces.row;
	uint8_t *out = s->made;

	for (const size_t end = start + n; start < end; piece++) {
		const size_t part = TPD_MIN(tpd_piece_start(&s->pieces, piece + 1), end) - start;
		float factor = s->form & TPD_SCALED_ROWS && s->levels[piece] > 0 ? s->row_factors[piece] : s->factor;

		kernels->scaled_predict(s->dtype, p + start * s->width, factor, part, out);
		out += part * s->width;
		start += part;
	}
}

void tpd_scaled_steps(const struct tpd_kernels *kernels, struct tpd_scaled *s, const int16_t *scales)
{
	int16_t own[TPD_ROW_MAX];

	memset(s->counts, 0, sizeof(s->counts));
	for (size_t i = 0; i < s->count; i++) {
		const size_t start = tpd_piece_start(&s->pieces, i), n = tpd_piece_start(&s->pieces, i + 1) - start;
		const int16_t *scale = NULL;
		size_t odd;

		if (s->levels[i] == 0) {
			memset(s->steps + start, 0, n);
			s->counts[TPD_SCALED_OWN_ULPS] += n;
			continue;
		}
		if (s->form & TPD_SCALED_V2)
			scale = scales ? scales + start : own;
		if (scale == own)
			kernels->scaled_scale(s->v2 + 4 * start, s->v1 ? s->v1 + 4 * start : NULL, s->share, n, own);
		odd = kernels->scaled_steps(s->dtype, s->base + s->levels[i], scale,
					    s->form & TPD_SCALED_COLUMNS ? s->columns + tpd_scaled_column(s, i) : NULL, n, s->steps + start,
					    s->classes + start);
		s->counts[1] += odd;
		s->counts[0] += n - odd;
	}
}

/* --- the decoder --- */

static enum tpd_status read_row_factors(struct tpd_codec *codec, struct tpd_rd *rd, struct tpd_scaled *s, struct tpd_err *err)
{
	uint8_t *planes[2] = {s->steps, s->symbols}; /* not in use yet; a piece has an element */
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
	const uint8_t *next[TPD_SCALED_CLASSES];
	enum tpd_status status = TPD_OK;

	for (unsigned c = 0; status == TPD_OK && c < TPD_SCALED_CLASSES; c++) {
		next[c] = s->sorted[c];
		status = tpd_symbols_decode(codec, rd, s->sorted[c], s->counts[c], err);
	}
	for (size_t i = 0; status == TPD_OK && i < s->count; i++) {
		const size_t start = tpd_piece_start(&s->pieces, i), n = tpd_piece_start(&s->pieces, i + 1) - start;
		size_t odd;

		if (s->levels[i] == 0) {
			memcpy(s->symbols + start, next[TPD_SCALED_OWN_ULPS], n);
			next[TPD_SCALED_OWN_ULPS] += n;
			continue;
		}
		odd = codec->kernels->scaled_deal(s->classes + start, n, next[0], next[1], s->symbols + start);
		next[1] += odd;
		next[0] += n - odd;
	}
	return status;
}

/* All elements, a stretch at a time; false: one is not valid. */
static bool decode_stretches(const struct tpd_kernels *kernels, const struct tpd_scaled *s, const uint8_t *p, uint8_t *out,
			     struct tpd_fields_in *fields)
{
	bool valid = true;

	for (size_t start = 0; valid && start < s->n; start += TPD_SCALED_STRETCH) {
		const size_t n = TPD_MIN(s->n - start, (size_t)TPD_SCALED_STRETCH);

		tpd_scaled_predict(kernels, s, p, start, n);
		valid = kernels->scaled_decode(s->dtype, s->steps + start, s->made, s->symbols + start, n, out + start * s->width, fields);
	}
	return valid;
}

enum tpd_status tpd_decode_scaled(struct tpd_codec *codec, enum tpd_encoding encoding, enum tpd_dtype dtype, struct tpd_rd *rd, const uint8_t *p,
				  const struct tpd_inputs *inputs, uint8_t *out, size_t len, struct tpd_err *err)
{
	const unsigned width = tpd_dtype_width(dtype);
	const size_t n = len / width, left = len % width;
	unsigned form = tpd_rd_u8(rd);
	size_t row = tpd_rd_u16(rd), first = tpd_rd_u16(rd);
	struct tpd_fields_in fields;
	struct tpd_scaled s = {0};
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
	s.form = form;
	if (status == TPD_OK)
		status = read_header(codec, rd, inputs, &s, err);
	if (status == TPD_OK)
		status = tpd_scaled_inputs(codec, inputs, &s, err);
	if (status != TPD_OK)
		return status;
	fegetenv(&caller);
	fesetenv(FE_DFL_ENV);
	tpd_scaled_steps(codec->kernels, &s, NULL);
	fesetenv(&caller);
	status = read_symbols(codec, rd, &s, err);
	if (status != TPD_OK)
		return status;
	status = tpd_fields_read(codec, rd, left, &fields, err);
	if (status != TPD_OK)
		return status;
	fesetenv(FE_DFL_ENV);
	valid = decode_stretches(codec->kernels, &s, p, out, &fields);
	fesetenv(&caller);
	if (!valid)
		return corrupt(err, "an element is not valid");
	if (!tpd_fields_done(&fields))
		return corrupt(err, "the fields do not end where they must");
	memcpy(out + n * width, tpd_rd_bytes(rd, left), left);
	return TPD_OK;
}
