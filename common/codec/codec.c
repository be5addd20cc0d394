/*
 * codec.c - the binding: scratch memory, dispatch, and the decision what a chunk becomes.
 *
 * Every payload is decoded and compared before it leaves here.  What differs (a bug of ours, a broken CPU) is stored
 * raw and counted: a checkpoint that costs more is better than one that is wrong. Where the CPU has several forms of the
 * kernels, another one decodes than the one that encoded: a bug must not vouch for itself.
 */
#include "base/tpd.h"

#include "codec/codec.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "codec/classes_fit.h"
#include "codec/context.h"
#include "codec/grid64.h"
#include "codec/integers.h"
#include "codec/internal.h"
#include "codec/kernels.h"
#include "codec/predict.h"
#include "codec/scaled.h"
#include "codec/step.h"

const char *tpd_encoding_name(enum tpd_encoding encoding)
{
	switch ((unsigned)encoding) {
#define TPD_ENCODING_X(sym, num, name) \
	case num: \
		return name;
		TPD_ENCODING_LIST(TPD_ENCODING_X)
#undef TPD_ENCODING_X
	default:
		return "?";
	}
}

bool tpd_encoding_is_known(enum tpd_encoding encoding)
{
	return *tpd_encoding_name(encoding) != '?';
}

bool tpd_encoding_needs_reference(enum tpd_encoding encoding)
{
	return encoding == TPD_ENCODING_COPY || encoding == TPD_ENCODING_ZSTD_REF || encoding == TPD_ENCODING_SPARSE ||
	       encoding == TPD_ENCODING_GRID || encoding == TPD_ENCODING_CLASSES || encoding == TPD_ENCODING_SCALED ||
	       encoding == TPD_ENCODING_CONTEXT || encoding == TPD_ENCODING_ROWS_REF || encoding == TPD_ENCODING_INTEGERS_REF ||
	       tpd_encoding_needs_inputs(encoding);
}

bool tpd_encoding_needs_inputs(enum tpd_encoding encoding)
{
	return encoding == TPD_ENCODING_PREDICTED || encoding == TPD_ENCODING_STEPPED;
}

bool tpd_encoding_takes_inputs(enum tpd_encoding encoding)
{
	return encoding == TPD_ENCODING_SCALED || encoding == TPD_ENCODING_SCALED_ALONE || encoding == TPD_ENCODING_CONTEXT ||
	       tpd_encoding_needs_inputs(encoding);
}

bool tpd_encoding_has_classes(enum tpd_encoding encoding)
{
	return encoding == TPD_ENCODING_CLASSES || tpd_encoding_has_steps(encoding);
}

bool tpd_encoding_has_steps(enum tpd_encoding encoding)
{
	return encoding == TPD_ENCODING_STEPPED || encoding == TPD_ENCODING_CONTEXT;
}

/* Is it coded by row pieces? */
static bool has_rows(enum tpd_encoding encoding)
{
	return encoding == TPD_ENCODING_GRID || encoding == TPD_ENCODING_CLASSES || tpd_encoding_takes_inputs(encoding) ||
	       encoding == TPD_ENCODING_ROWS || encoding == TPD_ENCODING_ROWS_REF;
}

bool tpd_encoding_allows(enum tpd_encoding encoding, enum tpd_dtype dtype)
{
	struct tpd_grid_type type;

	if (!tpd_encoding_is_known(encoding) || (unsigned)dtype >= TPD_DTYPE_COUNT)
		return false;
	if (encoding == TPD_ENCODING_INTEGERS || encoding == TPD_ENCODING_INTEGERS_REF)
		return tpd_integers_may(dtype);
	if (encoding == TPD_ENCODING_ROWS || encoding == TPD_ENCODING_ROWS_REF)
		return tpd_dtype_width(dtype) == 1 && dtype != TPD_DTYPE_BYTES;
	if (encoding == TPD_ENCODING_PREDICTED)
		return dtype == TPD_DTYPE_F32;
	if (tpd_encoding_has_steps(encoding))
		return dtype == TPD_DTYPE_BF16 || dtype == TPD_DTYPE_F16;
	if (encoding == TPD_ENCODING_SCALED || encoding == TPD_ENCODING_SCALED_ALONE)
		return dtype == TPD_DTYPE_F32 || dtype == TPD_DTYPE_BF16;
	if (encoding == TPD_ENCODING_GRID && dtype == TPD_DTYPE_F64)
		return true;
	return (encoding != TPD_ENCODING_GRID && encoding != TPD_ENCODING_CLASSES) || tpd_grid_type(dtype, &type);
}

bool tpd_planes_may_rotate(enum tpd_dtype dtype)
{
	return dtype == TPD_DTYPE_F32 || dtype == TPD_DTYPE_F16 || dtype == TPD_DTYPE_BF16 || dtype == TPD_DTYPE_F64;
}

uint32_t tpd_chunk_bytes(enum tpd_dtype dtype)
{
	return dtype == TPD_DTYPE_BYTES ? TPD_CHUNK_BYTES : TPD_CHUNK_ELEMENTS * tpd_dtype_width(dtype);
}

unsigned tpd_element_width(enum tpd_encoding encoding, enum tpd_dtype dtype)
{
	unsigned width = tpd_dtype_width(dtype);

	return encoding == TPD_ENCODING_SPARSE && width == 8 ? 4 : width;
}

enum tpd_status tpd_scratch_need(struct tpd_scratch *scratch, size_t size, struct tpd_err *err)
{
	uint8_t *data;

	if (size <= scratch->cap && scratch->data)
		return TPD_OK;
	data = malloc(size > 0 ? size : 1);
	if (!data)
		return tpd_fail_nomem(err);
	free(scratch->data);
	scratch->data = data;
	scratch->cap = size;
	return TPD_OK;
}

/* log2(4096 / f) in 1/4096 bit, rounded down, by repeated squaring: the same on every machine. */
static uint16_t cost_of(uint32_t f)
{
	uint64_t v; /* 4096 / f, between 1 and 2, with 31 bits after the point, rounded down */
	uint32_t log = 0;

	while (f << (log + 1) <= TPD_RANS_SUM)
		log++;
	v = (UINT64_C(4096) << 31) / ((uint64_t)f << log);
	for (unsigned bit = 0; bit < 12; bit++) {
		v = v * v >> 31;
		log = log << 1 | (uint32_t)(v >> 32);
		v >>= v >> 32;
	}
	return (uint16_t)log;
}

enum tpd_status tpd_codec_new(struct tpd_codec **out_codec, struct tpd_err *err)
{
	struct tpd_codec *codec = calloc(1, sizeof *codec);
	enum tpd_status status;

	if (!codec)
		return tpd_fail_nomem(err);
	status = tpd_kernels_get(&codec->encoder, &codec->proof, err);
	codec->kernels = codec->encoder;
	if (status == TPD_OK)
		status = tpd_zstd_new(&codec->zstd, err);
	if (status != TPD_OK) {
		free(codec);
		return status;
	}
	for (uint32_t f = 1; f < TPD_RANS_SUM; f++)
		codec->cost[f] = cost_of(f);
	tpd_class_curve_means(codec->curve_means);
	*out_codec = codec;
	return TPD_OK;
}

void tpd_codec_free(struct tpd_codec *codec)
{
	if (!codec)
		return;
	tpd_zstd_free(codec->zstd);
	free(codec->payload.data);
	free(codec->check.data);
	free(codec->ref.data);
	free(codec->symbols.data);
	free(codec->steps.data);
	free(codec->words.data);
	free(codec->fields.data);
	free(codec->values.data);
	free(codec->heat.data);
	free(codec->inputs.data);
	free(codec->towards.data);
	free(codec->predicted.data);
	free(codec->fit.data);
	free(codec->low_rank.data);
	free(codec->classes.data);
	free(codec->tables.data);
	free(codec->scaled.data);
	free(codec->places.data);
	free(codec->rows.data);
	free(codec);
}

uint64_t tpd_codec_mismatches(const struct tpd_codec *codec)
{
	return codec->mismatches;
}

size_t tpd_encode_bound(size_t len)
{
	return len; /* what would be larger becomes raw */
}

enum tpd_status tpd_padded_reference(struct tpd_codec *codec, const uint8_t *ref, size_t ref_len, size_t len,
				     const uint8_t **out_p, struct tpd_err *err)
{
	enum tpd_status status;

	if (ref_len >= len) {
		*out_p = ref;
		return TPD_OK;
	}
	status = tpd_scratch_need(&codec->ref, len, err);
	if (status != TPD_OK)
		return status;
	if (ref_len > 0)
		memcpy(codec->ref.data, ref, ref_len);
	memset(codec->ref.data + ref_len, 0, len - ref_len);
	*out_p = codec->ref.data;
	return TPD_OK;
}

/* The payload in codec->payload must give x again.  TPD_NOMEM passes through; every other failure is a mismatch. */
static enum tpd_status check_payload(struct tpd_codec *codec, const struct tpd_plan *plan,
				     const struct tpd_chunk *chunk, size_t payload_len, bool *out_same,
				     struct tpd_err *err)
{
	struct tpd_err ignored = {0};
	enum tpd_status status = tpd_scratch_need(&codec->check, chunk->len, err);

	if (status != TPD_OK)
		return status;
	codec->kernels = codec->proof;
	status = tpd_decode_chunk_with(codec, plan->encoding, plan->dtype, codec->payload.data, payload_len,
				       &(struct tpd_references){chunk->p, chunk->p ? chunk->ref_len : 0, chunk->inputs}, codec->check.data,
				       chunk->len, &ignored);
	codec->kernels = codec->encoder;
	if (status == TPD_NOMEM)
		return tpd_fail_nomem(err);
	*out_same = status == TPD_OK && memcmp(codec->check.data, chunk->x, chunk->len) == 0;
	return TPD_OK;
}

/*
 * The same chunk in another encoding. The shorter is left in codec->payload, what it is in *use: the first only where it takes at most so many
 * per cent of the other. room: for as many bytes as the chunk has.
 */
static enum tpd_status try_another(struct tpd_codec *codec, const struct tpd_chunk *chunk, enum tpd_encoding encoding, unsigned percent,
				   uint8_t *room, struct tpd_plan *use, size_t *payload_len, struct tpd_err *err)
{
	struct tpd_plan other = *use;
	const bool is_given_up = *payload_len > chunk->len;
	size_t len = SIZE_MAX;
	enum tpd_status status;

	if (!is_given_up)
		memcpy(room, codec->payload.data, *payload_len);
	other.encoding = encoding;
	status = tpd_encode_with(codec, &other, chunk, 0, &len, err);
	if (status != TPD_OK)
		return status;
	if (is_given_up || (len <= chunk->len && *payload_len * 100 > len * percent)) {
		*use = other;
		*payload_len = len;
		return TPD_OK;
	}
	memcpy(codec->payload.data, room, *payload_len); /* it has been there */
	return TPD_OK;
}

/* Do most rows of a chunk stay as they are? */
static bool most_rows_stay(const struct tpd_chunk *chunk, const struct tpd_plan *plan)
{
	const uint32_t width = tpd_dtype_width(plan->dtype);
	const struct tpd_pieces bytes = tpd_pieces_of(plan->row * width, chunk->element * width, TPD_MIN(chunk->len, chunk->ref_len));
	const size_t rows = tpd_piece_count(&bytes);
	size_t same = 0;

	for (size_t r = 0; r < rows; r++) {
		const size_t at = tpd_piece_start(&bytes, r);

		same += memcmp(chunk->x + at, chunk->p + at, tpd_piece_start(&bytes, r + 1) - at) == 0;
	}
	return 2 * same > rows;
}

/*
 * What was chosen for a tensor, on a sample, may be longer than another encoding of the chunk:
 *
 *     zstd-ref    where a few bytes changed in place: `sparse`, whose words of one byte may be shorter than Zstandard's matches
 *     context     where few rows have nearly all changes: the same without contexts; always, where no step is known, since it saves less there
 */
static enum tpd_status try_others(struct tpd_codec *codec, const struct tpd_chunk *chunk, uint8_t *room, struct tpd_plan *use, size_t *payload_len,
				  struct tpd_err *err)
{
	if (use->encoding == TPD_ENCODING_ZSTD_REF && chunk->ref_len == chunk->len)
		return try_another(codec, chunk, TPD_ENCODING_SPARSE, 100, room, use, payload_len, err);
	if (use->encoding == TPD_ENCODING_CONTEXT && (use->terms == 0 || *payload_len > chunk->len || most_rows_stay(chunk, use)))
		return try_another(codec, chunk, use->terms ? TPD_ENCODING_STEPPED : TPD_ENCODING_CLASSES, TPD_CONTEXT_PERCENT, room, use, payload_len, err);
	return TPD_OK;
}

/* What stands in for an encoding where there is no reference. */
static enum tpd_encoding alone(enum tpd_encoding encoding)
{
	if (encoding == TPD_ENCODING_ROWS_REF)
		return TPD_ENCODING_ROWS;
	if (encoding == TPD_ENCODING_INTEGERS_REF)
		return TPD_ENCODING_INTEGERS;
	return encoding == TPD_ENCODING_ZSTD_REF ? TPD_ENCODING_ZSTD : TPD_ENCODING_PLANES;
}

/* ... and where what it is made from is not there. */
static enum tpd_encoding without_inputs(enum tpd_encoding encoding)
{
	if (encoding == TPD_ENCODING_SCALED_ALONE)
		return TPD_ENCODING_PLANES;
	return tpd_encoding_has_steps(encoding) ? TPD_ENCODING_CLASSES : TPD_ENCODING_GRID;
}

enum tpd_status tpd_encode_chunk(struct tpd_codec *codec, const struct tpd_plan *plan, const struct tpd_chunk *chunk,
				 uint8_t *out, enum tpd_encoding *out_encoding, size_t *out_len, struct tpd_err *err)
{
	struct tpd_plan use = *plan;
	size_t payload_len = SIZE_MAX;
	bool same = false;
	enum tpd_status status;

	if (chunk->len == 0 || chunk->len > TPD_CHUNK_MAX_BYTES || !tpd_encoding_allows(plan->encoding, plan->dtype))
		return tpd_fail(err, TPD_USAGE, "a chunk of %zu bytes cannot be encoded as %s of %s", chunk->len,
				tpd_dtype_name(plan->dtype), tpd_encoding_name(plan->encoding));
	if (has_rows(plan->encoding) && (plan->row == 0 || plan->row > TPD_ROW_MAX))
		return tpd_fail(err, TPD_USAGE, "a row of %u elements", plan->row);
	if (chunk->p && chunk->ref_len == chunk->len && memcmp(chunk->x, chunk->p, chunk->len) == 0) {
		*out_encoding = TPD_ENCODING_COPY;
		*out_len = 0;
		return TPD_OK;
	}
	if (tpd_encoding_needs_reference(use.encoding) && (!chunk->p || chunk->ref_len == 0))
		use.encoding = alone(use.encoding);
	if (tpd_encoding_has_steps(use.encoding))
		use.terms = (uint8_t)tpd_step_terms(use.terms);
	if (use.encoding == TPD_ENCODING_CONTEXT && !tpd_terms_have(use.terms, chunk->inputs))
		use.terms = 0;
	if (tpd_encoding_takes_inputs(use.encoding) &&
	    ((tpd_encoding_needs_inputs(use.encoding) && use.terms == 0) || !tpd_terms_have(use.terms, chunk->inputs)))
		use.encoding = without_inputs(use.encoding);
	status = tpd_encode_with(codec, &use, chunk, 0, &payload_len, err);
	if (status == TPD_OK)
		status = try_others(codec, chunk, out, &use, &payload_len, err);
	if (status == TPD_OK && payload_len < chunk->len) {
		status = check_payload(codec, &use, chunk, payload_len, &same, err);
		codec->mismatches += status == TPD_OK && !same;
	}
	if (status != TPD_OK)
		return status;
	if (!same) {
		memcpy(out, chunk->x, chunk->len);
		*out_encoding = TPD_ENCODING_RAW;
		*out_len = chunk->len;
		return TPD_OK;
	}
	memcpy(out, codec->payload.data, payload_len);
	*out_encoding = use.encoding;
	*out_len = payload_len;
	return TPD_OK;
}

enum tpd_status tpd_decode_chunk(struct tpd_codec *codec, enum tpd_encoding encoding, enum tpd_dtype dtype,
				 const uint8_t *payload, size_t payload_len, const uint8_t *ref, size_t ref_len,
				 uint8_t *out, size_t out_len, struct tpd_err *err)
{
	return tpd_decode_chunk_with(codec, encoding, dtype, payload, payload_len, &(struct tpd_references){ref, ref_len, NULL}, out, out_len,
				     err);
}

enum tpd_status tpd_decode_chunk_with(struct tpd_codec *codec, enum tpd_encoding encoding, enum tpd_dtype dtype, const uint8_t *payload,
				      size_t payload_len, const struct tpd_references *references, uint8_t *out, size_t out_len,
				      struct tpd_err *err)
{
	const uint8_t *ref = references->p;
	const size_t ref_len = references->len;
	struct tpd_rd rd = tpd_rd_make(payload, payload_len);
	const uint8_t *p = NULL;
	struct tpd_steps steps = {0};
	struct tpd_prediction prediction;
	enum tpd_status status;

	if (!tpd_encoding_is_known(encoding))
		return tpd_fail(err, TPD_UNSUPPORTED, "unknown encoding %u", (unsigned)encoding);
	if ((unsigned)dtype >= TPD_DTYPE_COUNT)
		return tpd_fail(err, TPD_UNSUPPORTED, "unknown element type %u", (unsigned)dtype);
	if (out_len == 0 || out_len > TPD_CHUNK_MAX_BYTES || !tpd_encoding_allows(encoding, dtype))
		return tpd_fail(err, TPD_CORRUPT, "a chunk of %zu bytes of %s cannot be %s", out_len,
				tpd_dtype_name(dtype), tpd_encoding_name(encoding));
	switch (encoding) {
	case TPD_ENCODING_RAW:
		if (payload_len != out_len)
			return tpd_fail(err, TPD_CORRUPT, "raw: %zu bytes for %zu", payload_len, out_len);
		memcpy(out, payload, out_len);
		return TPD_OK;
	case TPD_ENCODING_COPY:
		if (payload_len != 0 || ref_len != out_len)
			return tpd_fail(err, TPD_CORRUPT, "copy: the reference has %zu bytes, not %zu", ref_len,
					out_len);
		memcpy(out, ref, out_len);
		return TPD_OK;
	case TPD_ENCODING_ZSTD:
		return tpd_zstd_decode(codec->zstd, NULL, 0, payload, payload_len, out, out_len, err);
	case TPD_ENCODING_ZSTD_REF:
		if (ref_len == 0)
			return tpd_fail(err, TPD_CORRUPT, "zstd-ref: there is no reference");
		return tpd_zstd_decode(codec->zstd, ref, ref_len, payload, payload_len, out, out_len, err);
	case TPD_ENCODING_PLANES:
		return tpd_decode_planes(codec, dtype, &rd, out, out_len, err);
	case TPD_ENCODING_ROWS:
		return tpd_decode_rows(codec, dtype, &rd, NULL, out, out_len, err);
	case TPD_ENCODING_INTEGERS:
		return tpd_decode_integers(codec, dtype, &rd, NULL, out, out_len, err);
	case TPD_ENCODING_SCALED_ALONE:
		status = tpd_padded_reference(codec, NULL, 0, out_len, &p, err);
		return status == TPD_OK ? tpd_decode_scaled(codec, encoding, dtype, &rd, p, references->inputs, out, out_len, err) : status;
	default:
		break;
	}
	status = tpd_padded_reference(codec, ref, ref_len, out_len, &p, err);
	if (status != TPD_OK)
		return status;
	if (encoding == TPD_ENCODING_SPARSE)
		return tpd_decode_sparse(codec, dtype, &rd, p, out, out_len, err);
	if (encoding == TPD_ENCODING_SCALED)
		return tpd_decode_scaled(codec, encoding, dtype, &rd, p, references->inputs, out, out_len, err);
	if (encoding == TPD_ENCODING_ROWS_REF)
		return tpd_decode_rows(codec, dtype, &rd, p, out, out_len, err);
	if (encoding == TPD_ENCODING_INTEGERS_REF)
		return tpd_decode_integers(codec, dtype, &rd, p, out, out_len, err);
	if (encoding == TPD_ENCODING_GRID && dtype == TPD_DTYPE_F64)
		return tpd_decode_grid64(codec, &rd, p, out, out_len, err);
	if (encoding == TPD_ENCODING_PREDICTED) {
		status = tpd_predict_read(codec, &rd, p, references->inputs, out_len / tpd_dtype_width(dtype), &prediction, err);
		if (status != TPD_OK)
			return status;
	}
	if (tpd_encoding_has_steps(encoding)) {
		status = tpd_step_decode(codec, encoding, dtype, &rd, p, references->inputs, out_len / tpd_dtype_width(dtype), &steps, err);
		if (status != TPD_OK)
			return status;
	}
	return tpd_decode_grid(codec, encoding, dtype, &rd, p, tpd_encoding_has_steps(encoding) ? &steps : NULL,
			       encoding == TPD_ENCODING_PREDICTED ? &prediction : NULL, out, out_len, err);
}
