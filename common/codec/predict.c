/*
 * predict.c - coefficients in a payload, and the prediction that they make, for both directions. SPEC.md section 10.
 */
#include "base/tpd.h"

#include "codec/predict.h"

#include <fenv.h>
#include <string.h>

#include "codec/internal.h"
#include "codec/kernels.h"

enum { FORM_WHOLE = 0, FORM_ROWS = 1 };

unsigned tpd_terms_need(unsigned terms)
{
	unsigned need = 0;

	if (terms & TPD_TERM_STEP)
		need |= 1u << TPD_INPUT_W0;
	if (terms & TPD_TERM_BEFORE)
		need |= 1u << TPD_INPUT_M1 | 1u << TPD_INPUT_V1;
	if (terms & TPD_TERM_SCALE)
		need |= 1u << TPD_INPUT_V2;
	if (terms & TPD_TERM_CAME_IN)
		need |= 1u << TPD_INPUT_V1;
	if (terms & TPD_TERM_NOW)
		need |= 1u << TPD_INPUT_M2 | 1u << TPD_INPUT_V2;
	return need;
}

bool tpd_terms_have(unsigned terms, const struct tpd_inputs *inputs)
{
	unsigned need = tpd_terms_need(terms);

	for (unsigned i = 0; i < TPD_INPUT_COUNT; i++)
		if (need >> i & 1 && (!inputs || !inputs->of[i].data))
			return false;
	return true;
}

/* Arrays of floats in codec->inputs: w1, x, w0, the ratios, and two to make them from. */
enum { ROOM_W1, ROOM_X, ROOM_STEP, ROOM_BEFORE, ROOM_NOW, ROOM_M, ROOM_V, ROOMS };

static float *room(struct tpd_codec *codec, unsigned which, size_t n)
{
	return (float *)(void *)codec->inputs.data + which * (n + 16);
}

void tpd_input_load(const struct tpd_bytes *from, size_t n, float *out)
{
	size_t have = TPD_MIN(from->len / 4, n);

	if (have > 0)
		memcpy(out, from->data, have * 4);
	memset(out + have, 0, (n - have) * 4);
}

static void make_ratio(struct tpd_codec *codec, const struct tpd_bytes *m, const struct tpd_bytes *v, size_t n, float *out)
{
	tpd_input_load(m, n, room(codec, ROOM_M, n));
	tpd_input_load(v, n, room(codec, ROOM_V, n));
	codec->kernels->predict_ratio(room(codec, ROOM_M, n), room(codec, ROOM_V, n), n, out);
}

/* The terms of a chunk; p has n elements. */
static enum tpd_status make_terms(struct tpd_codec *codec, unsigned terms, const uint8_t *p, const struct tpd_inputs *inputs, size_t n,
				  struct tpd_prediction *out, struct tpd_err *err)
{
	enum tpd_status status = tpd_scratch_need(&codec->inputs, ROOMS * (n + 16) * sizeof(float), err);

	if (status == TPD_OK)
		status = tpd_scratch_need(&codec->predicted, n * sizeof(float) + 1, err);
	if (status != TPD_OK)
		return status;
	*out = (struct tpd_prediction){.w1 = room(codec, ROOM_W1, n), .n = n};
	memcpy(room(codec, ROOM_W1, n), p, n * 4);
	if (terms & TPD_TERM_DECAY)
		out->terms[0] = out->w1;
	if (terms & TPD_TERM_STEP) {
		tpd_input_load(&inputs->of[TPD_INPUT_W0], n, room(codec, ROOM_M, n));
		codec->kernels->predict_difference(out->w1, room(codec, ROOM_M, n), n, room(codec, ROOM_STEP, n));
		out->terms[1] = room(codec, ROOM_STEP, n);
	}
	if (terms & TPD_TERM_BEFORE) {
		make_ratio(codec, &inputs->of[TPD_INPUT_M1], &inputs->of[TPD_INPUT_V1], n, room(codec, ROOM_BEFORE, n));
		out->terms[2] = room(codec, ROOM_BEFORE, n);
	}
	if (terms & TPD_TERM_NOW) {
		make_ratio(codec, &inputs->of[TPD_INPUT_M2], &inputs->of[TPD_INPUT_V2], n, room(codec, ROOM_NOW, n));
		out->terms[3] = room(codec, ROOM_NOW, n);
	}
	return TPD_OK;
}

/* by_piece NULL: coefficients[0] is everybody's. */
static void apply(struct tpd_codec *codec, const struct tpd_prediction *prediction, const struct tpd_pieces *pieces,
		  const float (*coefficients)[TPD_TERMS])
{
	const size_t rows = tpd_piece_count(pieces);
	float *out = (float *)(void *)codec->predicted.data;

	for (size_t r = 0; r < rows; r++) {
		size_t start = tpd_piece_start(pieces, r), n = tpd_piece_start(pieces, r + 1) - start;
		const float *terms[TPD_TERMS];

		for (unsigned k = 0; k < TPD_TERMS; k++)
			terms[k] = prediction->terms[k] ? prediction->terms[k] + start : NULL;
		codec->kernels->predict_apply(prediction->w1 + start, terms, coefficients[r], n, out + start);
	}
}

static enum tpd_status put_rows(struct tpd_codec *codec, unsigned terms, const struct tpd_pieces *pieces, const float (*rows)[TPD_TERMS],
				uint8_t **out, struct tpd_err *err)
{
	const size_t count = tpd_piece_count(pieces);
	uint8_t *planes = codec->symbols.data;

	tpd_put_u16(*out, (uint16_t)pieces->row);
	tpd_put_u16(*out + 2, (uint16_t)pieces->first);
	*out += 4;
	for (unsigned k = 0; k < TPD_TERMS; k++) {
		if (!(terms >> k & 1))
			continue;
		for (size_t r = 0; r < count; r++) {
			uint32_t bits;

			memcpy(&bits, &rows[r][k], sizeof(bits));
			planes[r] = (uint8_t)(bits >> 16);
			planes[count + r] = (uint8_t)(bits >> 24);
		}
		for (unsigned b = 0; b < 2; b++) {
			size_t part;
			enum tpd_status status = tpd_symbols_encode(codec, planes + b * count, count, *out, &part, err);

			if (status != TPD_OK)
				return status;
			*out += part;
		}
	}
	return TPD_OK;
}

enum tpd_status tpd_predict_encode(struct tpd_codec *codec, unsigned terms, const struct tpd_chunk *chunk, const uint8_t *p,
				   const struct tpd_pieces *pieces, uint8_t *out, size_t *out_len, const uint8_t **out_p, struct tpd_err *err)
{
	const size_t n = pieces->n, rows = tpd_piece_count(pieces);
	struct tpd_prediction prediction;
	const struct tpd_pieces one = {.first = TPD_MAX(n, (size_t)1), .row = TPD_MAX(n, (size_t)1), .n = n};
	float whole[1][TPD_TERMS], (*by_piece)[TPD_TERMS];
	uint8_t *begin = out;
	fenv_t caller;
	bool by_rows;
	enum tpd_status status = tpd_scratch_need(&codec->fit, TPD_PREDICT_SCRATCH(rows) * sizeof(double) + rows * sizeof(*by_piece), err);
	if (status == TPD_OK)
		status = tpd_scratch_need(&codec->symbols, TPD_MAX(n, 2 * rows) + 1, err);
	if (status != TPD_OK)
		return status;
	by_piece = (float(*)[TPD_TERMS])(void *)((double *)(void *)codec->fit.data + TPD_PREDICT_SCRATCH(rows));
	fegetenv(&caller);
	fesetenv(FE_DFL_ENV);
	status = make_terms(codec, terms, p, chunk->inputs, n, &prediction, err);
	if (status != TPD_OK) {
		fesetenv(&caller);
		return status;
	}
	memcpy(room(codec, ROOM_X, n), chunk->x, n * 4);
	prediction.x = room(codec, ROOM_X, n);
	by_rows = tpd_predict_fit(codec, &prediction, pieces, (double *)(void *)codec->fit.data, by_piece, whole[0]);
	apply(codec, &prediction, by_rows ? pieces : &one, by_rows ? (const float(*)[TPD_TERMS])by_piece : (const float(*)[TPD_TERMS])whole);
	fesetenv(&caller);
	*out++ = (uint8_t)terms;
	*out++ = by_rows ? FORM_ROWS : FORM_WHOLE;
	if (by_rows) {
		status = put_rows(codec, terms, pieces, (const float(*)[TPD_TERMS])by_piece, &out, err);
	} else {
		for (unsigned k = 0; k < TPD_TERMS; k++) {
			if (!(terms >> k & 1))
				continue;
			memcpy(out, &whole[0][k], 4);
			out += 4;
		}
	}
	*out_len = (size_t)(out - begin);
	*out_p = codec->predicted.data;
	return status;
}

static enum tpd_status corrupt(struct tpd_err *err, const char *what)
{
	return tpd_fail(err, TPD_CORRUPT, "predicted: %s", what);
}

static enum tpd_status read_rows(struct tpd_codec *codec, struct tpd_rd *rd, unsigned terms, struct tpd_pieces *pieces,
				 float (**out_rows)[TPD_TERMS], struct tpd_err *err)
{
	float(*rows)[TPD_TERMS];
	uint8_t *planes;
	size_t count;
	enum tpd_status status;

	pieces->row = tpd_rd_u16(rd);
	pieces->first = tpd_rd_u16(rd);
	if (!tpd_rd_ok(rd) || pieces->row == 0 || pieces->row > TPD_ROW_MAX || pieces->first == 0 || pieces->first > pieces->row)
		return corrupt(err, "bad rows");
	count = tpd_piece_count(pieces);
	status = tpd_scratch_need(&codec->fit, count * (sizeof(*rows) + 2) + 1, err);
	if (status != TPD_OK)
		return status;
	rows = (float(*)[TPD_TERMS])(void *)codec->fit.data;
	planes = (uint8_t *)(rows + count);
	memset(rows, 0, count * sizeof(*rows));
	for (unsigned k = 0; k < TPD_TERMS; k++) {
		if (!(terms >> k & 1))
			continue;
		for (unsigned b = 0; b < 2 && status == TPD_OK; b++)
			status = tpd_symbols_decode(codec, rd, planes + b * count, count, err);
		if (status != TPD_OK)
			return status;
		for (size_t r = 0; r < count; r++) {
			uint32_t bits = (uint32_t)planes[r] << 16 | (uint32_t)planes[count + r] << 24;

			memcpy(&rows[r][k], &bits, sizeof(bits));
		}
	}
	*out_rows = rows;
	return TPD_OK;
}

enum tpd_status tpd_predict_decode(struct tpd_codec *codec, struct tpd_rd *rd, const uint8_t *p, const struct tpd_inputs *inputs, size_t n,
				   const uint8_t **out_p, struct tpd_err *err)
{
	unsigned terms = tpd_rd_u8(rd), form = tpd_rd_u8(rd);
	struct tpd_pieces pieces = {.first = TPD_MAX(n, (size_t)1), .row = TPD_MAX(n, (size_t)1), .n = n};
	float whole[1][TPD_TERMS] = {{0}}, (*rows)[TPD_TERMS] = whole;
	struct tpd_prediction prediction;
	fenv_t caller;
	enum tpd_status status = TPD_OK;

	if (!tpd_rd_ok(rd) || terms == 0 || terms >= 1u << TPD_TERMS)
		return corrupt(err, "bad terms");
	if (form > FORM_ROWS)
		return tpd_fail(err, TPD_UNSUPPORTED, "predicted: coefficients of an unknown form %u", form);
	if (!tpd_terms_have(terms, inputs))
		return corrupt(err, "it needs what there is not");
	if (form == FORM_ROWS)
		status = read_rows(codec, rd, terms, &pieces, &rows, err);
	for (unsigned k = 0; form == FORM_WHOLE && k < TPD_TERMS; k++) {
		uint32_t bits = terms >> k & 1 ? tpd_rd_u32(rd) : 0;

		memcpy(&whole[0][k], &bits, sizeof(bits));
	}
	if (status != TPD_OK)
		return status;
	if (!tpd_rd_ok(rd))
		return corrupt(err, "ends inside its coefficients");
	fegetenv(&caller);
	fesetenv(FE_DFL_ENV);
	status = make_terms(codec, terms, p, inputs, n, &prediction, err);
	if (status == TPD_OK)
		apply(codec, &prediction, &pieces, (const float(*)[TPD_TERMS])rows);
	fesetenv(&caller);
	*out_p = codec->predicted.data;
	return status;
}
