/*
 * predict.c - coefficients in a payload, and the prediction that they make of a piece, for both directions. SPEC.md section 10.
 */
#include "base/tpd.h"

#include "codec/predict.h"

#include <fenv.h>
#include <string.h>

#include "codec/internal.h"
#include "codec/kernels.h"

enum { FORM_ROWS = 1, FORM_LOW_RANK = 2, FORM_ALL = 3 }; /* bits */

#define MADE (TPD_ROW_MAX + 16u) /* floats: what a prediction may be of, and a register */

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

void tpd_input_load(const struct tpd_bytes *from, size_t n, float *out)
{
	size_t have = TPD_MIN(from->len / 4, n);

	if (have > 0)
		memcpy(out, from->data, have * 4);
	memset(out + have, 0, (n - have) * 4);
}

/* What is needed of the inputs, where it lies; in codec->inputs what must be continued with zeros. p has n elements. */
static enum tpd_status open_inputs(struct tpd_codec *codec, unsigned terms, const uint8_t *p, const struct tpd_inputs *inputs, size_t n,
				   struct tpd_prediction *out, struct tpd_err *err)
{
	const unsigned need = tpd_terms_need(terms);
	unsigned shorter = 0;
	enum tpd_status status;
	float *at;

	for (unsigned i = 0; i < TPD_INPUT_COUNT; i++)
		shorter += need >> i & 1 && inputs->of[i].len / sizeof(float) < n;
	status = tpd_scratch_need(&codec->inputs, shorter * n * sizeof(float), err);
	if (status == TPD_OK)
		status = tpd_scratch_need(&codec->predicted, (MADE + TPD_TERMS * TPD_TERM_ROOM) * sizeof(float), err);
	if (status != TPD_OK)
		return status;
	*out = (struct tpd_prediction){.kernels = codec->kernels, .from = {.terms = terms, .w1 = p}, .made = (float *)(void *)codec->predicted.data};
	out->terms = out->made + MADE;
	at = (float *)(void *)codec->inputs.data;
	for (unsigned i = 0; i < TPD_INPUT_COUNT; i++) {
		if (!(need >> i & 1))
			continue;
		out->from.of[i] = inputs->of[i].data;
		if (inputs->of[i].len / sizeof(float) >= n)
			continue;
		tpd_input_load(&inputs->of[i], n, at);
		out->from.of[i] = (const uint8_t *)at;
		at += n;
	}
	return TPD_OK;
}

static const float *coefficients_of(const struct tpd_prediction *prediction, size_t piece)
{
	return prediction->by_rows ? prediction->rows[piece] : prediction->whole;
}

const struct tpd_prefetch *tpd_predict_soon(struct tpd_prediction *prediction, size_t start, size_t n)
{
	struct tpd_prefetch *soon = &prediction->soon;
	const size_t at = start * sizeof(float);

	_Static_assert(2 + TPD_INPUT_COUNT <= TPD_PREFETCH_MAX, "there is room for all");
	if (start + n > prediction->pieces.n)
		return NULL;
	soon->count = 0;
	soon->of[soon->count++] = prediction->from.w1 + at;
	if (prediction->x)
		soon->of[soon->count++] = prediction->x + at;
	for (unsigned i = 0; i < TPD_INPUT_COUNT; i++)
		if (prediction->from.of[i])
			soon->of[soon->count++] = prediction->from.of[i] + at;
	return soon;
}

/* --- encoding --- */

static enum tpd_status put_rows(struct tpd_codec *codec, unsigned terms, const struct tpd_pieces *pieces, const float (*rows)[TPD_TERMS],
				uint8_t **out, struct tpd_err *err)
{
	const size_t count = tpd_piece_count(pieces);
	uint8_t *planes = (uint8_t *)(codec->fit.data + count * sizeof(*rows)); /* behind them */

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
			enum tpd_status status = tpd_symbols_encode_beside(codec, planes + b * count, count, pieces->n, *out, &part, err);

			if (status != TPD_OK)
				return status;
			*out += part;
		}
	}
	return TPD_OK;
}

enum tpd_status tpd_predict_start(struct tpd_codec *codec, const struct tpd_plan *plan, const struct tpd_chunk *chunk, const uint8_t *p,
				  const struct tpd_pieces *pieces, struct tpd_prediction *out, struct tpd_err *err)
{
	fenv_t caller;
	enum tpd_status status = open_inputs(codec, plan->terms, p, chunk->inputs, pieces->n, out, err);

	if (status == TPD_OK)
		status = tpd_scratch_need(&codec->fit, tpd_piece_count(pieces) * (sizeof(*out->rows) + 2) + 1, err);
	if (status != TPD_OK)
		return status;
	out->rows = (float(*)[TPD_TERMS])(void *)codec->fit.data;
	out->x = chunk->x;
	out->pieces = *pieces;
	fegetenv(&caller);
	fesetenv(FE_DFL_ENV);
	tpd_predict_choose(out);
	if (plan->low_rank)
		status = tpd_low_rank_fit(codec, out, pieces, err);
	fesetenv(&caller);
	return status;
}

const uint8_t *tpd_predict_fit_piece(struct tpd_prediction *prediction, size_t i)
{
	const size_t start = tpd_piece_start(&prediction->pieces, i), n = tpd_piece_start(&prediction->pieces, i + 1) - start;
	bool has_terms = false;

	if (prediction->low_rank.base) { /* all pieces have been fitted */
		memcpy(prediction->made, prediction->low_rank.base + start, n * sizeof(float));
		if (prediction->low_rank.rank > 0)
			tpd_low_rank_add(prediction->kernels, &prediction->low_rank, start, n, prediction->made);
		return (const uint8_t *)prediction->made;
	}
	if (prediction->by_rows)
		tpd_predict_fit_row(prediction, i, prediction->rows[i], &has_terms);
	if (has_terms) {
		const float *terms[TPD_TERMS];

		for (unsigned k = 0; k < TPD_TERMS; k++)
			terms[k] = prediction->from.terms >> k & 1 ? prediction->terms + k * TPD_TERM_ROOM : NULL;
		prediction->kernels->predict_apply(prediction->terms, terms, prediction->rows[i], n, prediction->made);
	} else {
		prediction->kernels->predict(&prediction->from, start, coefficients_of(prediction, i), n, prediction->made);
	}
	return (const uint8_t *)prediction->made;
}

enum tpd_status tpd_predict_put(struct tpd_codec *codec, const struct tpd_prediction *prediction, uint8_t *out, size_t *out_len,
				struct tpd_err *err)
{
	const unsigned terms = prediction->from.terms;
	uint8_t *begin = out;
	enum tpd_status status = TPD_OK;

	*out++ = (uint8_t)terms;
	*out++ = (uint8_t)((prediction->by_rows ? FORM_ROWS : 0) | (prediction->low_rank.rank > 0 ? FORM_LOW_RANK : 0));
	if (prediction->by_rows)
		status = put_rows(codec, terms, &prediction->pieces, (const float(*)[TPD_TERMS])prediction->rows, &out, err);
	for (unsigned k = 0; !prediction->by_rows && k < TPD_TERMS; k++) {
		if (!(terms >> k & 1))
			continue;
		memcpy(out, &prediction->whole[k], 4);
		out += 4;
	}
	if (prediction->low_rank.rank > 0) {
		memcpy(out, prediction->low_rank.part, prediction->low_rank.part_len);
		out += prediction->low_rank.part_len;
	}
	*out_len = (size_t)(out - begin);
	return status;
}

/* --- decoding --- */

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

enum tpd_status tpd_predict_read(struct tpd_codec *codec, struct tpd_rd *rd, const uint8_t *p, const struct tpd_inputs *inputs, size_t n,
				 struct tpd_prediction *out, struct tpd_err *err)
{
	unsigned terms = tpd_rd_u8(rd), form = tpd_rd_u8(rd);
	struct tpd_pieces pieces = {.first = TPD_MAX(n, (size_t)1), .row = TPD_MAX(n, (size_t)1), .n = n};
	float whole[TPD_TERMS] = {0}, (*rows)[TPD_TERMS] = NULL;
	enum tpd_status status = TPD_OK;

	if (!tpd_rd_ok(rd) || terms == 0 || terms >= 1u << TPD_TERMS)
		return corrupt(err, "bad terms");
	if (form > FORM_ALL)
		return tpd_fail(err, TPD_UNSUPPORTED, "predicted: coefficients of an unknown form %u", form);
	if (!tpd_terms_have(terms, inputs))
		return corrupt(err, "it needs what there is not");
	if (form & FORM_ROWS)
		status = read_rows(codec, rd, terms, &pieces, &rows, err);
	for (unsigned k = 0; !(form & FORM_ROWS) && k < TPD_TERMS; k++) {
		uint32_t bits = terms >> k & 1 ? tpd_rd_u32(rd) : 0;

		memcpy(&whole[k], &bits, sizeof(bits));
	}
	if (status != TPD_OK)
		return status;
	if (!tpd_rd_ok(rd))
		return corrupt(err, "ends inside its coefficients");
	status = open_inputs(codec, terms, p, inputs, n, out, err);
	if (status == TPD_OK && form & FORM_LOW_RANK)
		status = tpd_low_rank_read(codec, rd, n, &out->low_rank, err);
	if (status != TPD_OK)
		return status;
	out->pieces = pieces;
	out->by_rows = form & FORM_ROWS;
	out->rows = rows;
	memcpy(out->whole, whole, sizeof(whole));
	return TPD_OK;
}

const uint8_t *tpd_predict_stretch(struct tpd_prediction *prediction, size_t start, size_t n)
{
	const struct tpd_pieces *pieces = &prediction->pieces;
	size_t piece = start < pieces->first ? 0 : 1 + (start - pieces->first) / pieces->row;
	float *out = prediction->made;

	for (size_t at = start, end = start + n; at < end; piece++) {
		const size_t part = TPD_MIN(tpd_piece_start(pieces, piece + 1), end) - at;

		prediction->kernels->predict(&prediction->from, at, coefficients_of(prediction, piece), part, out);
		out += part;
		at += part;
	}
	if (prediction->low_rank.rank > 0)
		tpd_low_rank_add(prediction->kernels, &prediction->low_rank, start, n, prediction->made);
	return (const uint8_t *)prediction->made;
}
