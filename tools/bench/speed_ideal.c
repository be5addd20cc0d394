/*
 * speed_ideal.c - what the symbols of a payload would take at their entropy: the ideal beside the actual bytes.
 *
 * The model of an encoding is its symbols (SPEC.md: those of d, byte planes, T of row pieces, row coefficients, levels) with static
 * frequencies for each table, and what is verbatim. Its ideal is
 *
 *     the order-0 entropy of the symbols under each table, by the counts of the chunk itself
 *     + for `sparse` the entropy of positions as independent events of their rate: n h(m / n) bits
 *     + the bytes that are not coded: the remainder stream without its length, F32 coefficients, bytes left over; all of `raw`
 *
 * with nothing for frequencies, states, lengths, bounds, headers and rounding, which is what an actual payload has on top. It is read
 * out of the payload itself. Zstandard's own encodings have symbols that are not ours, and no ideal.
 */
#include "base/tpd.h"

#include "tools/bench/speed_job.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "codec/classes.h"
#include "codec/integers.h"
#include "codec/internal.h"
#include "codec/low_rank.h"
#include "codec/rows.h"
#include "codec/scaled.h"
#include "codec/step.h"

#define BITS_A_BYTE 8.0

static double entropy_bits(const uint32_t counts[256])
{
	double bits = 0, n = 0;

	for (unsigned s = 0; s < 256; s++)
		n += counts[s];
	for (unsigned s = 0; s < 256; s++)
		if (counts[s])
			bits += counts[s] * log2(n / counts[s]);
	return bits;
}

/* A symbol stream S(n) is read; what it would take is added. */
static enum tpd_status read_symbols(struct tpd_codec *codec, struct tpd_rd *rd, uint8_t *symbols, size_t n, double *bits,
				    struct tpd_err *err)
{
	uint32_t counts[256] = {0};
	enum tpd_status status = tpd_symbols_decode(codec, rd, symbols, n, err);

	for (size_t i = 0; !status && i < n; i++)
		counts[symbols[i]]++;
	*bits += entropy_bits(counts);
	return status;
}

/* What is left: a remainder stream with its length, and left-over bytes. */
static double verbatim_bits(const struct tpd_rd *rd)
{
	return BITS_A_BYTE * ((double)tpd_rd_left(rd) - sizeof(uint32_t));
}

static enum tpd_status planes(struct tpd_codec *codec, enum tpd_dtype dtype, struct tpd_rd *rd, size_t len, uint8_t *symbols, double *bits,
			      struct tpd_err *err)
{
	const unsigned width = tpd_dtype_width(dtype);
	enum tpd_status status = TPD_OK;

	tpd_rd_u8(rd);
	for (unsigned b = 0; !status && b < width; b++)
		status = read_symbols(codec, rd, symbols, len / width, bits, err);
	*bits += BITS_A_BYTE * (double)tpd_rd_left(rd);
	return status;
}

static enum tpd_status sparse(struct tpd_codec *codec, struct tpd_rd *rd, size_t n, uint8_t *symbols, double *bits, struct tpd_err *err)
{
	enum tpd_status status;
	size_t changed;

	tpd_rd_u16(rd);
	changed = (size_t)tpd_rd_varint(rd);
	tpd_rd_bytes(rd, tpd_rd_u32(rd));
	if (!tpd_rd_ok(rd) || changed > n)
		return tpd_fail(err, TPD_CORRUPT, "sparse: a payload of ours cannot be read");
	*bits += entropy_bits((const uint32_t[256]){(uint32_t)changed, (uint32_t)(n - changed)});
	status = read_symbols(codec, rd, symbols, changed, bits, err);
	if (!status)
		*bits += verbatim_bits(rd);
	return status;
}

static bool read_pieces(struct tpd_rd *rd, size_t n, struct tpd_pieces *out)
{
	size_t row = tpd_rd_u16(rd), first = tpd_rd_u16(rd);

	out->row = row;
	out->first = TPD_MIN(first, n);
	out->n = n;
	return tpd_rd_ok(rd) && out->row > 0 && out->first > 0;
}

/* What all encodings by row pieces begin with: the pieces, and their T. */
static enum tpd_status read_rows(struct tpd_codec *codec, struct tpd_rd *rd, size_t n, const char *encoding, uint8_t *symbols,
				 struct tpd_pieces *out_pieces, double *bits, struct tpd_err *err)
{
	if (!read_pieces(rd, n, out_pieces))
		return tpd_fail(err, TPD_CORRUPT, "%s: a payload of ours cannot be read", encoding);
	return read_symbols(codec, rd, symbols, tpd_piece_count(out_pieces), bits, err);
}

static enum tpd_status grid(struct tpd_codec *codec, struct tpd_rd *rd, size_t n, uint8_t *symbols, double *bits, struct tpd_err *err)
{
	struct tpd_pieces pieces;
	enum tpd_status status = read_rows(codec, rd, n, "grid", symbols, &pieces, bits, err);

	if (!status)
		status = read_symbols(codec, rd, symbols, n, bits, err);
	if (!status)
		*bits += verbatim_bits(rd);
	return status;
}

/* Of F64: section 16. */
static enum tpd_status grid64(struct tpd_codec *codec, struct tpd_rd *rd, size_t n, uint8_t *symbols, double *bits, struct tpd_err *err)
{
	struct tpd_pieces pieces;
	enum tpd_status status = TPD_OK;

	tpd_rd_u8(rd); /* cut */
	if (!read_pieces(rd, n, &pieces))
		return tpd_fail(err, TPD_CORRUPT, "grid: a payload of ours cannot be read");
	for (unsigned plane = 0; !status && plane < 2; plane++)
		status = read_symbols(codec, rd, symbols, tpd_piece_count(&pieces), bits, err);
	if (!status)
		status = read_symbols(codec, rd, symbols, n, bits, err);
	if (!status)
		*bits += verbatim_bits(rd);
	return status;
}

/* Where the values are one Zstandard frame *out_known is false. */
static enum tpd_status integers(struct tpd_codec *codec, struct tpd_rd *rd, size_t n, uint8_t *symbols, double *bits, bool *out_known,
				struct tpd_err *err)
{
	const unsigned form = tpd_rd_u8(rd), bytes = tpd_rd_u8(rd);
	enum tpd_status status = TPD_OK;

	*out_known = !(form & TPD_INTEGERS_FRAME);
	for (unsigned b = 0; *out_known && !status && b < bytes; b++)
		status = read_symbols(codec, rd, symbols, n, bits, err);
	*bits += BITS_A_BYTE * (double)tpd_rd_left(rd);
	return status;
}

/* What rows have in common: section 10. */
static enum tpd_status low_rank(struct tpd_codec *codec, struct tpd_rd *rd, size_t n, uint8_t *symbols, double *bits, struct tpd_err *err)
{
	const size_t rank = tpd_rd_u8(rd);
	struct tpd_pieces pieces;
	enum tpd_status status;

	if (!read_pieces(rd, n, &pieces) || rank > TPD_LOW_RANK_MAX)
		return tpd_fail(err, TPD_CORRUPT, "low rank: a payload of ours cannot be read");
	tpd_rd_bytes(rd, rank);
	*bits += BITS_A_BYTE * (double)rank;
	status = read_symbols(codec, rd, symbols, tpd_piece_count(&pieces), bits, err);
	if (!status)
		status = read_symbols(codec, rd, symbols, rank * tpd_piece_count(&pieces), bits, err);
	if (!status)
		status = read_symbols(codec, rd, symbols, rank * pieces.row, bits, err);
	return status;
}

/* What stands before the grid: section 10. */
static enum tpd_status coefficients(struct tpd_codec *codec, struct tpd_rd *rd, size_t n, uint8_t *symbols, double *bits,
				    struct tpd_err *err)
{
	const unsigned terms = (unsigned)__builtin_popcount(tpd_rd_u8(rd)), form = tpd_rd_u8(rd);
	struct tpd_pieces pieces;
	enum tpd_status status = TPD_OK;

	if (!(form & 1)) {
		tpd_rd_bytes(rd, sizeof(float) * (uint64_t)terms);
		*bits += BITS_A_BYTE * (double)(sizeof(float) * terms);
	} else if (!read_pieces(rd, n, &pieces)) {
		return tpd_fail(err, TPD_CORRUPT, "predicted: a payload of ours cannot be read");
	}
	for (unsigned stream = 0; !status && form & 1 && stream < 2 * terms; stream++)
		status = read_symbols(codec, rd, symbols, tpd_piece_count(&pieces), bits, err);
	if (!status && form & 2)
		status = low_rank(codec, rd, n, symbols, bits, err);
	if (!status && (form > 3 || !tpd_rd_ok(rd)))
		status = tpd_fail(err, TPD_CORRUPT, "predicted: a payload of ours cannot be read");
	return status;
}

/* steps: of `stepped`, else NULL. */
static enum tpd_status classes(struct tpd_codec *codec, enum tpd_dtype dtype, struct tpd_rd *rd, const uint8_t *p,
			       const struct tpd_steps *steps, size_t n, uint8_t *symbols, double *bits, struct tpd_err *err)
{
	uint32_t counts[TPD_CLASSES_MAX][256] = {{0}};
	const uint8_t *class_of;
	struct tpd_pieces pieces;
	struct tpd_rd ahead;
	enum tpd_status status = read_rows(codec, rd, n, "classes", symbols, &pieces, bits, err);

	if (status)
		return status;
	ahead = *rd;
	if (tpd_rd_u8(&ahead) == TPD_BY_INNOVATION)
		*bits += BITS_A_BYTE * 2 * sizeof(uint16_t); /* decay and noise */
	else
		status = read_symbols(codec, &ahead, symbols, tpd_piece_count(&pieces), bits, err);
	if (!status)
		status = tpd_class_symbols_decode(codec, dtype, rd, p, steps ? &steps->given : NULL, symbols, &pieces, err);
	if (status)
		return status;
	class_of = codec->classes.data + n * sizeof(uint16_t); /* behind the keys: where it leaves them */
	for (size_t i = 0; i < n; i++)
		counts[class_of[i] % TPD_CLASSES_MAX][symbols[i]]++;
	for (unsigned c = 0; c < TPD_CLASSES_MAX; c++)
		*bits += entropy_bits(counts[c]);
	*bits += verbatim_bits(rd);
	return TPD_OK;
}

/* The chances of its bits are what there is to know: what the coder took of them is their -log2 but for some bytes. */
static enum tpd_status context(struct tpd_codec *codec, struct tpd_rd *rd, size_t n, uint8_t *symbols, double *bits, struct tpd_err *err)
{
	struct tpd_pieces pieces;
	enum tpd_status status = read_rows(codec, rd, n, "context", symbols, &pieces, bits, err);

	*bits += BITS_A_BYTE * (double)tpd_rd_left(rd);
	return status;
}

/* What stands before the grid of `stepped` and `context`: the number of terms, and coefficients. */
static enum tpd_status steps_of(struct speed_job *job, const struct speed_chunk *chunk, enum tpd_dtype dtype, struct tpd_rd *rd,
				const uint8_t *p, size_t n, struct tpd_steps *out_steps, double *bits, struct tpd_err *err)
{
	const size_t before = tpd_rd_left(rd);
	enum tpd_status status = tpd_step_decode(job->codec, chunk->encoding, dtype, rd, p, chunk->in.inputs, n, out_steps, err);

	*bits += BITS_A_BYTE * (double)(before - tpd_rd_left(rd));
	return status;
}

/* --- `scaled` --- */

struct scale {
	unsigned form;
	struct tpd_pieces pieces;
	float share;
	int base;
	uint8_t levels[TPD_CHUNK_ELEMENTS], columns[TPD_ROW_MAX];
};

/* An element of an input; 0 where it ends. */
static float input_at(const struct tpd_inputs *inputs, enum tpd_input input, size_t i)
{
	const struct tpd_bytes *bytes = &inputs->of[input];
	float f = 0;

	if ((i + 1) * sizeof(f) <= bytes->len)
		memcpy(&f, bytes->data + i * sizeof(f), sizeof(f));
	return f;
}

/* Section 11's scale of an element: eighths of octaves. */
static int scale_of(const struct scale *s, const struct tpd_inputs *inputs, size_t i)
{
	float v = input_at(inputs, TPD_INPUT_V2, i), sum;
	uint32_t pattern;

	v = v > 0 ? v : 0;
	sum = v;
	if (s->form & TPD_SCALED_V1)
		sum = v - s->share * input_at(inputs, TPD_INPUT_V1, i);
	sum = (sum > 0 ? sum : 0) + v / 64;
	if (!isfinite(sum))
		return 0;
	memcpy(&pattern, &sum, sizeof(pattern));
	return (int)(pattern >> 21);
}

static int class_of(const struct scale *s, const struct tpd_inputs *inputs, size_t i)
{
	size_t piece = i < s->pieces.first ? 0 : 1 + (i - s->pieces.first) / s->pieces.row;
	size_t column = (i + s->pieces.row - s->pieces.first) % s->pieces.row;
	int k = s->base + s->levels[piece];

	if (s->levels[piece] == 0)
		return TPD_SCALED_OWN_ULPS;
	if (s->form & TPD_SCALED_V2)
		k += scale_of(s, inputs, i);
	if (s->form & TPD_SCALED_COLUMNS)
		k += s->columns[column] - TPD_SCALED_COLUMN_MIDDLE;
	return (k + 65536) / 4 % 2; /* rounded down also below 0 */
}

static enum tpd_status scaled(struct tpd_codec *codec, struct tpd_rd *rd, const struct tpd_inputs *inputs, size_t n, uint8_t *symbols,
			      double *bits, struct tpd_err *err)
{
	struct scale *s = calloc(1, sizeof(*s));
	size_t counts[TPD_SCALED_CLASSES] = {0}, count;
	uint32_t share;
	enum tpd_status status = TPD_OK;

	if (!s)
		return tpd_fail_nomem(err);
	s->form = tpd_rd_u8(rd);
	if (!read_pieces(rd, n, &s->pieces)) {
		free(s);
		return tpd_fail(err, TPD_CORRUPT, "scaled: a payload of ours cannot be read");
	}
	count = tpd_piece_count(&s->pieces);
	tpd_rd_u32(rd); /* factor */
	share = s->form & TPD_SCALED_V1 ? tpd_rd_u32(rd) : 0;
	memcpy(&s->share, &share, sizeof(share));
	s->base = (int16_t)tpd_rd_u16(rd);
	*bits += BITS_A_BYTE * (double)(sizeof(float) * (s->form & TPD_SCALED_V1 ? 2 : 1) + sizeof(int16_t));
	for (unsigned plane = 0; !status && s->form & TPD_SCALED_ROWS && plane < 2; plane++)
		status = read_symbols(codec, rd, symbols, count, bits, err);
	if (!status)
		status = read_symbols(codec, rd, s->levels, count, bits, err);
	if (!status && s->form & TPD_SCALED_COLUMNS)
		status = read_symbols(codec, rd, s->columns, s->pieces.row, bits, err);
	for (size_t i = 0; !status && i < n; i++)
		counts[class_of(s, inputs, i)]++;
	for (unsigned c = 0; !status && c < TPD_SCALED_CLASSES; c++)
		status = read_symbols(codec, rd, symbols, counts[c], bits, err);
	if (!status)
		*bits += verbatim_bits(rd);
	free(s);
	return status;
}

/* --- `rows` and `rows-ref` --- */

/* How many tables have been read, and which one a key has in each group. */
struct row_tables {
	unsigned count;
	uint8_t of[TPD_ROWS_GROUPS][TPD_ROWS_KEYS];
	uint32_t symbols[TPD_ROWS_TABLES][256];
};

static enum tpd_status read_group(struct tpd_rd *rd, struct row_tables *tables, uint8_t of[TPD_ROWS_KEYS], struct tpd_err *err)
{
	const unsigned bounds = tpd_rd_u8(rd);
	unsigned key = 0;
	enum tpd_status status = TPD_OK;

	if (tables->count + bounds >= TPD_ROWS_TABLES)
		return tpd_fail(err, TPD_CORRUPT, "rows: a payload of ours cannot be read");
	for (unsigned b = 0; b <= bounds; b++)
		for (unsigned bound = b < bounds ? tpd_rd_u8(rd) : TPD_ROWS_KEYS; key < bound && key < TPD_ROWS_KEYS; key++)
			of[key] = (uint8_t)(tables->count + b);
	for (unsigned b = 0; !status && b <= bounds; b++) {
		unsigned first = tpd_rd_u8(rd), last = tpd_rd_u8(rd);
		uint16_t freq[256];

		if (first != last)
			status = tpd_rans_read_frequencies(rd, first, last, freq, err);
	}
	tables->count += bounds + 1;
	if (!status && !tpd_rd_ok(rd))
		status = tpd_fail(err, TPD_CORRUPT, "rows: a payload of ours cannot be read");
	return status;
}

static enum tpd_status rows(struct tpd_codec *codec, enum tpd_dtype dtype, struct tpd_rd *rd, const uint8_t *x, const uint8_t *p, size_t n,
			    double *bits, struct tpd_err *err)
{
	const unsigned form = tpd_rd_u8(rd);
	struct row_tables *tables = calloc(1, sizeof(*tables));
	uint8_t *sources = malloc(n), *groups = malloc(n), *split = malloc(4 * n);
	struct tpd_rows_type type;
	struct tpd_pieces pieces = {0};
	unsigned group_count;
	enum tpd_status status = TPD_OK;

	if (!tables || !sources || !groups || !split)
		status = tpd_fail_nomem(err);
	if (!status && !read_pieces(rd, n, &pieces))
		status = tpd_fail(err, TPD_CORRUPT, "rows: a payload of ours cannot be read");
	group_count = tpd_rd_u8(rd);
	if (!status)
		status = read_symbols(codec, rd, sources, tpd_piece_count(&pieces), bits, err);
	if (!status)
		status = read_symbols(codec, rd, groups, tpd_piece_count(&pieces), bits, err);
	for (unsigned g = 0; !status && g < TPD_MIN(group_count, TPD_ROWS_GROUPS); g++)
		status = read_group(rd, tables, tables->of[g], err);
	if (!status && form == TPD_ROWS_NIBBLES) {
		tpd_rows_split(x, n, split);
		if (p)
			tpd_rows_split(p, n, split + 2 * n);
		x = split;
		p = p ? split + 2 * n : NULL;
	}
	tpd_rows_type(dtype, form == TPD_ROWS_NIBBLES, &type);
	for (size_t i = 0; !status && i < tpd_piece_count(&pieces); i++)
		for (size_t j = tpd_piece_start(&pieces, i) * (form + 1); j < tpd_piece_start(&pieces, i + 1) * (form + 1); j++) {
			uint8_t s = 0;

			if (sources[i] == TPD_ROWS_SOURCE_REF)
				s = p[j];
			else if (sources[i] != TPD_ROWS_SOURCE_NONE)
				s = x[j - sources[i] * pieces.row * (form + 1)];
			tables->symbols[tables->of[groups[i]][type.key[s]]][tpd_rows_symbol(&type, x[j], s)]++;
		}
	for (unsigned t = 0; !status && t < tables->count; t++)
		*bits += entropy_bits(tables->symbols[t]);
	free(tables);
	free(sources);
	free(groups);
	free(split);
	return status;
}

static enum tpd_status ideal_of(struct speed_job *job, struct speed_chunk *chunk, uint8_t *symbols, struct tpd_err *err)
{
	const enum tpd_dtype dtype = job->tensors[chunk->tensor].dtype;
	const size_t n = chunk->in.len / tpd_dtype_width(dtype);
	struct tpd_rd rd = tpd_rd_make(chunk->payload, chunk->payload_len);
	const uint8_t *p = NULL;
	struct tpd_steps steps;
	bool known = true;
	double bits = 0;
	enum tpd_status status = TPD_OK;

	switch (chunk->encoding) {
	case TPD_ENCODING_RAW:
	case TPD_ENCODING_COPY:
		bits = BITS_A_BYTE * (double)chunk->payload_len;
		break;
	case TPD_ENCODING_PLANES:
		status = planes(job->codec, dtype, &rd, chunk->in.len, symbols, &bits, err);
		break;
	case TPD_ENCODING_SPARSE:
		status = sparse(job->codec, &rd, chunk->in.len / tpd_element_width(chunk->encoding, dtype), symbols, &bits, err);
		break;
	case TPD_ENCODING_PREDICTED:
		status = coefficients(job->codec, &rd, n, symbols, &bits, err);
		if (!status)
			status = grid(job->codec, &rd, n, symbols, &bits, err);
		break;
	case TPD_ENCODING_GRID:
		status = dtype == TPD_DTYPE_F64 ? grid64(job->codec, &rd, n, symbols, &bits, err) : grid(job->codec, &rd, n, symbols, &bits, err);
		break;
	case TPD_ENCODING_INTEGERS:
	case TPD_ENCODING_INTEGERS_REF:
		status = integers(job->codec, &rd, n, symbols, &bits, &known, err);
		break;
	case TPD_ENCODING_CLASSES:
		status = tpd_padded_reference(job->codec, chunk->in.p, chunk->in.ref_len, chunk->in.len, &p, err);
		if (!status)
			status = classes(job->codec, dtype, &rd, p, NULL, n, symbols, &bits, err);
		break;
	case TPD_ENCODING_STEPPED:
		status = tpd_padded_reference(job->codec, chunk->in.p, chunk->in.ref_len, chunk->in.len, &p, err);
		if (!status)
			status = steps_of(job, chunk, dtype, &rd, p, n, &steps, &bits, err);
		if (!status)
			status = classes(job->codec, dtype, &rd, p, &steps, n, symbols, &bits, err);
		break;
	case TPD_ENCODING_CONTEXT:
		status = tpd_padded_reference(job->codec, chunk->in.p, chunk->in.ref_len, chunk->in.len, &p, err);
		if (!status)
			status = steps_of(job, chunk, dtype, &rd, p, n, &steps, &bits, err);
		if (!status)
			status = context(job->codec, &rd, n, symbols, &bits, err);
		break;
	case TPD_ENCODING_SCALED:
	case TPD_ENCODING_SCALED_ALONE:
		status = scaled(job->codec, &rd, chunk->in.inputs, n, symbols, &bits, err);
		break;
	case TPD_ENCODING_ROWS:
		status = rows(job->codec, dtype, &rd, chunk->in.x, NULL, n, &bits, err);
		break;
	case TPD_ENCODING_ROWS_REF:
		status = tpd_padded_reference(job->codec, chunk->in.p, chunk->in.ref_len, chunk->in.len, &p, err);
		if (!status)
			status = rows(job->codec, dtype, &rd, chunk->in.x, p, n, &bits, err);
		break;
	default:
		known = false;
		break;
	}
	chunk->ideal = known ? bits / BITS_A_BYTE : -1;
	return status;
}

enum tpd_status speed_ideals(struct speed_job *job, struct tpd_err *err)
{
	enum tpd_status status = TPD_OK;
	uint8_t *symbols = malloc(TPD_CHUNK_MAX_BYTES);

	if (!symbols)
		return tpd_fail_nomem(err);
	for (size_t c = 0; !status && c < job->chunk_count; c++)
		status = ideal_of(job, &job->chunks[c], symbols, err);
	free(symbols);
	return status;
}
