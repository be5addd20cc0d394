/*
 * encode.c - the payload of one chunk in one encoding.
 *
 * Everything is made in the codec's scratch memory, whose size follows from the chunk's alone, so nothing here can run
 * out of room; whether the payload is worth keeping is codec.c's decision.
 */
#include "base/tpd.h"

#include <assert.h>
#include <fenv.h>
#include <string.h>

#include "codec/context.h"
#include "codec/fields.h"
#include "codec/grid64.h"
#include "codec/grid_kernel.h"
#include "codec/integers.h"
#include "codec/internal.h"
#include "codec/kernels.h"
#include "codec/predict.h"
#include "codec/rows.h"
#include "codec/scaled.h"
#include "codec/step.h"

#define ZSTD_LEVEL 3

static enum tpd_status encode_zstd(struct tpd_codec *codec, const struct tpd_chunk *chunk, bool with_reference,
				   size_t *out_len, struct tpd_err *err)
{
	enum tpd_status status = tpd_scratch_need(&codec->payload, chunk->len, err);

	if (status != TPD_OK)
		return status;
	return tpd_zstd_encode(codec->zstd, ZSTD_LEVEL, chunk->p, with_reference ? chunk->ref_len : 0, chunk->x,
			       chunk->len, codec->payload.data, chunk->len, out_len, err);
}

static enum tpd_status encode_planes(struct tpd_codec *codec, enum tpd_dtype dtype, const struct tpd_chunk *chunk,
				     size_t *out_len, struct tpd_err *err)
{
	const unsigned width = tpd_element_width(TPD_ENCODING_PLANES, dtype);
	const size_t n = chunk->len / width, left = chunk->len % width;
	const bool rotate = tpd_planes_may_rotate(dtype);
	uint8_t *out;
	size_t part;
	enum tpd_status status = tpd_scratch_need(&codec->payload, 1 + width * TPD_SYMBOLS_BOUND(n) + left, err);

	if (status == TPD_OK)
		status = tpd_scratch_need(&codec->symbols, width * n + 1, err);
	if (status != TPD_OK)
		return status;
	codec->kernels->planes_split(chunk->x, n, width, rotate, codec->symbols.data);
	out = codec->payload.data;
	*out++ = rotate;
	for (unsigned b = 0; b < width; b++) {
		status = tpd_symbols_encode(codec, codec->symbols.data + b * n, n, out, &part, err);
		if (status != TPD_OK)
			return status;
		out += part;
	}
	memcpy(out, chunk->x + n * width, left);
	*out_len = (size_t)(out - codec->payload.data) + left;
	return TPD_OK;
}

/* Lanes of all rounds: each piece has whole ones. */
static size_t piece_lanes(const struct tpd_pieces *pieces, size_t count)
{
	size_t lanes = 0;

	for (size_t i = 0; i < count; i++)
		lanes += tpd_whole_rounds(tpd_piece_start(pieces, i + 1) - tpd_piece_start(pieces, i));
	return lanes;
}

/* One T for all of a chunk: the lower median of what pieces of the largest length would have. */
static unsigned choose_chunk_t(const struct tpd_kernels *kernels, const struct tpd_plan *plan, const uint8_t *x, const uint8_t *p, size_t n)
{
	const size_t width = tpd_dtype_width(plan->dtype);
	uint32_t counts[256] = {0}, changed = 0, below = 0;
	unsigned t = 0;

	for (size_t start = 0; start < n; start += TPD_ROW_MAX) {
		unsigned own = kernels->choose_t(plan->dtype, x + start * width, p + start * width, TPD_MIN(n - start, (size_t)TPD_ROW_MAX),
						 plan->grid_bias);

		counts[own] += own > 1;
		changed += own > 1;
	}
	while (t < 255 && (below += counts[t]) * 2 < changed)
		t++;
	return TPD_MAX(t, 1u);
}

/* prediction: of `predicted`, else NULL. */
static void encode_pieces(const struct tpd_kernels *kernels, const struct tpd_plan *plan, const struct tpd_pieces *pieces, size_t count,
			  const uint8_t *x, const uint8_t *p, struct tpd_prediction *prediction, unsigned force_t, uint8_t *steps,
			  uint8_t *symbols, uint32_t *values, uint8_t *bits)
{
	const size_t width = tpd_dtype_width(plan->dtype);
	fenv_t caller;

	/* T comes from differences in single precision: somebody else in this process may have changed the mode. */
	fegetenv(&caller);
	fesetenv(FE_DFL_ENV);
	if (force_t == 0 && tpd_encoding_has_classes(plan->encoding))
		force_t = choose_chunk_t(kernels, plan, x, p, pieces->n);
	for (size_t i = 0; i < count; i++) {
		size_t start = tpd_piece_start(pieces, i), n = tpd_piece_start(pieces, i + 1) - start;
		const uint8_t *from = prediction ? tpd_predict_fit_piece(prediction, i) : p + start * width;
		unsigned t = force_t;

		if (t == 0)
			t = kernels->choose_t(plan->dtype, x + start * width, from, n, plan->grid_bias);
		steps[i] = (uint8_t)t;
		kernels->grid_encode(plan->dtype, t, x + start * width, from, n,
				     prediction ? tpd_predict_soon(prediction, start + n, n) : NULL, symbols + start, values, bits);
		values += tpd_whole_rounds(n);
		bits += tpd_whole_rounds(n);
	}
	fesetenv(&caller);
}

/* What stands before the grid, and what each element is coded against, of a chunk that is `stepped`. */
static enum tpd_status encode_steps(struct tpd_codec *codec, const struct tpd_plan *plan, const struct tpd_chunk *chunk, const uint8_t **p,
				    size_t n, uint8_t *out, size_t *out_len, struct tpd_steps *steps, struct tpd_err *err)
{
	enum tpd_status status;
	fenv_t caller;
	unsigned t;

	fegetenv(&caller);
	fesetenv(FE_DFL_ENV);
	t = choose_chunk_t(codec->kernels, plan, chunk->x, *p, n);
	fesetenv(&caller);
	status = tpd_step_encode(codec, plan, chunk, *p, n, t, out, out_len, steps, err);
	return status == TPD_OK ? tpd_step_away(codec, steps, chunk->x, p, n, err) : status;
}

/* An element that is where it was expected, and not where it was, is no "equal" one. */
static void settle_steps(enum tpd_dtype dtype, const struct tpd_pieces *pieces, const uint8_t *x, const uint8_t *old, const uint8_t *steps,
			 uint8_t *symbols, uint32_t *values, uint8_t *bits)
{
	const size_t count = tpd_piece_count(pieces);
	struct tpd_grid_type type = {0};

	tpd_grid_type(dtype, &type);
	for (size_t r = 0; r < count; r++) {
		const size_t start = tpd_piece_start(pieces, r), n = tpd_piece_start(pieces, r + 1) - start;

		for (size_t i = 0; i < n; i++) {
			uint32_t new = tpd_get_u16(x + 2 * (start + i));
			unsigned field_bits = 0;

			if (symbols[start + i] != TPD_SYMBOL_EQUAL || new == tpd_get_u16(old + 2 * (start + i)))
				continue;
			symbols[start + i] = TPD_SYMBOL_ZERO;
			if (new == 0)
				continue;
			symbols[start + i] = TPD_SYMBOL_MIDDLE;
			tpd_grid_q(&type, new, steps[r], &values[i], &field_bits);
			bits[i] = (uint8_t)field_bits;
		}
		values += tpd_whole_rounds(n);
		bits += tpd_whole_rounds(n);
	}
}

static enum tpd_status encode_grid(struct tpd_codec *codec, const struct tpd_plan *plan, const struct tpd_chunk *chunk,
				   const uint8_t *p, unsigned force_t, size_t *out_len, struct tpd_err *err)
{
	const bool predicted = plan->encoding == TPD_ENCODING_PREDICTED;
	const unsigned width = tpd_element_width(TPD_ENCODING_GRID, plan->dtype);
	const size_t n = chunk->len / width, left = chunk->len % width;
	const struct tpd_pieces pieces = tpd_pieces_of(plan->row, chunk->element, n);
	const size_t count = tpd_piece_count(&pieces), lanes = piece_lanes(&pieces, count);
	const size_t fields_max = n * width + TPD_FIELDS_SLACK; /* no element has more than its width */
	const bool stepped = tpd_encoding_has_steps(plan->encoding);
	const uint8_t *old = p;
	struct tpd_steps expected = {0};
	struct tpd_prediction prediction;
	uint8_t *out, *fields, *fields_end;
	uint32_t *values;
	size_t part;
	enum tpd_status status =
		tpd_scratch_need(&codec->payload,
				 TPD_PREDICT_BOUND(count, pieces.row) + TPD_STEP_BOUND + 4 + TPD_SYMBOLS_BOUND(count) +
					 TPD_MAX(TPD_CLASS_SYMBOLS_BOUND(n, count), TPD_CONTEXT_SYMBOLS_BOUND(n)) + fields_max + left, err);

	if (status == TPD_OK)
		status = tpd_scratch_need(&codec->symbols, n + 1, err);
	if (status == TPD_OK)
		status = tpd_scratch_need(&codec->steps, count + 1, err);
	if (status == TPD_OK)
		status = tpd_scratch_need(&codec->fields, fields_max, err);
	if (status == TPD_OK)
		status = tpd_scratch_need(&codec->values, lanes * (sizeof *values + 1), err);
	if (status != TPD_OK)
		return status;
	out = codec->payload.data;
	if (predicted) {
		status = tpd_predict_start(codec, plan, chunk, p, &pieces, &prediction, err);
		if (status != TPD_OK)
			return status;
	}
	if (stepped) {
		status = encode_steps(codec, plan, chunk, &p, n, out, &part, &expected, err);
		if (status != TPD_OK)
			return status;
		out += part;
	}
	values = (uint32_t *)(void *)codec->values.data;
	encode_pieces(codec->kernels, plan, &pieces, count, chunk->x, p, predicted ? &prediction : NULL, force_t, codec->steps.data,
		      codec->symbols.data, values, (uint8_t *)(values + lanes));
	if (stepped) {
		settle_steps(plan->dtype, &pieces, chunk->x, old, codec->steps.data, codec->symbols.data, values, (uint8_t *)(values + lanes));
		codec->kernels->step_mirror(expected.steps, n, codec->symbols.data);
	}
	fields_end = codec->fields.data + fields_max;
	fields = codec->kernels->fields_pack(values, (uint8_t *)(values + lanes), lanes / TPD_LANES, fields_end);

	if (predicted) {
		status = tpd_predict_put(codec, &prediction, out, &part, err);
		if (status != TPD_OK)
			return status;
		out += part;
	}
	tpd_put_u16(out, (uint16_t)pieces.row);
	tpd_put_u16(out + 2, (uint16_t)pieces.first);
	out += 4;
	status = tpd_symbols_encode_beside(codec, codec->steps.data, count, (size_t)(fields_end - fields), out, &part, err);
	if (status != TPD_OK)
		return status;
	out += part;
	if (plan->encoding == TPD_ENCODING_CONTEXT)
		status = tpd_context_symbols_encode(codec, plan->dtype, count > 0 ? codec->steps.data[0] : 1, old, &expected.given,
						    codec->symbols.data, &pieces, out, &part, err);
	else if (tpd_encoding_has_classes(plan->encoding))
		status = tpd_class_symbols_encode(codec, plan->dtype, count > 0 ? codec->steps.data[0] : 1, old,
						  stepped ? &expected.given : NULL, codec->symbols.data, &pieces, out, &part, err);
	else
		status = tpd_symbols_encode(codec, codec->symbols.data, n, out, &part, err);
	if (status != TPD_OK)
		return status;
	if (part == SIZE_MAX) { /* given up */
		*out_len = SIZE_MAX;
		return TPD_OK;
	}
	out += part;
	out = tpd_fields_write(out, fields);
	memcpy(out, chunk->x + n * width, left);
	*out_len = (size_t)(out - codec->payload.data) + left;
	return TPD_OK;
}

enum tpd_status tpd_encode_with(struct tpd_codec *codec, const struct tpd_plan *plan, const struct tpd_chunk *chunk,
				unsigned force_t, size_t *out_len, struct tpd_err *err)
{
	const uint8_t *p = NULL;
	struct tpd_pieces pieces;
	enum tpd_status status;

	assert(tpd_encoding_allows(plan->encoding, plan->dtype));
	if (plan->encoding == TPD_ENCODING_SPARSE || plan->encoding == TPD_ENCODING_GRID || plan->encoding == TPD_ENCODING_CLASSES ||
	    tpd_encoding_takes_inputs(plan->encoding) || plan->encoding == TPD_ENCODING_ROWS_REF ||
	    plan->encoding == TPD_ENCODING_INTEGERS_REF) {
		status = tpd_padded_reference(codec, chunk->p, chunk->ref_len, chunk->len, &p, err);
		if (status != TPD_OK)
			return status;
	}
	switch (plan->encoding) {
	case TPD_ENCODING_ZSTD:
		return encode_zstd(codec, chunk, false, out_len, err);
	case TPD_ENCODING_ZSTD_REF:
		return encode_zstd(codec, chunk, true, out_len, err);
	case TPD_ENCODING_PLANES:
		return encode_planes(codec, plan->dtype, chunk, out_len, err);
	case TPD_ENCODING_SPARSE:
		return tpd_encode_sparse(codec, plan->dtype, chunk->x, p, chunk->len, out_len, err);
	case TPD_ENCODING_SCALED_ALONE:
		status = tpd_padded_reference(codec, NULL, 0, chunk->len, &p, err);
		return status == TPD_OK ? tpd_encode_scaled(codec, plan, chunk, p, out_len, err) : status;
	case TPD_ENCODING_SCALED:
		return tpd_encode_scaled(codec, plan, chunk, p, out_len, err);
	case TPD_ENCODING_INTEGERS:
	case TPD_ENCODING_INTEGERS_REF:
		return tpd_encode_integers(codec, plan->dtype, plan->form & (TPD_INTEGERS_FORMS - 1), chunk->x, p, chunk->len, out_len, err);
	case TPD_ENCODING_GRID:
		if (plan->dtype == TPD_DTYPE_F64)
			return tpd_encode_grid64(codec, plan, chunk, p, force_t, out_len, err);
		return encode_grid(codec, plan, chunk, p, force_t, out_len, err);
	case TPD_ENCODING_CLASSES:
	case TPD_ENCODING_PREDICTED:
	case TPD_ENCODING_STEPPED:
	case TPD_ENCODING_CONTEXT:
		return encode_grid(codec, plan, chunk, p, force_t, out_len, err);
	case TPD_ENCODING_ROWS:
	case TPD_ENCODING_ROWS_REF:
		pieces = tpd_pieces_of(plan->row, chunk->element, chunk->len);
		return tpd_encode_rows(codec, plan->dtype, plan->nibbles && tpd_rows_may_split(plan->dtype), chunk->x, p, &pieces, out_len, err);
	default: /* raw, copy: nothing to make */
		*out_len = SIZE_MAX;
		return TPD_OK;
	}
}
