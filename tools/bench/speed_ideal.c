/*
 * speed_ideal.c - what the symbols of a payload would take at their entropy: the ideal beside the actual bytes.
 *
 * The model of an encoding is its symbols (SPEC.md: those of d, byte planes, T of row pieces, row coefficients) with static
 * frequencies for each table, and what is verbatim. Its ideal is
 *
 *     the order-0 entropy of the symbols under each table, by the counts of the chunk itself
 *     + for `sparse` the entropy of positions as independent events of their rate: n h(m / n) bits
 *     + the bytes that are not coded: the remainder stream without its length, F32 coefficients, bytes left over
 *
 * with nothing for frequencies, states, lengths, bounds, headers and rounding, which is what an actual payload has on top. It is read
 * out of the payload itself. Encodings without symbols of ours (`raw`, `copy`, Zstandard's) have no ideal; nor has one that is not
 * listed here.
 */
#include "base/tpd.h"

#include "tools/bench/speed_job.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "codec/classes.h"
#include "codec/internal.h"
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

static enum tpd_status grid(struct tpd_codec *codec, struct tpd_rd *rd, size_t n, uint8_t *symbols, double *bits, struct tpd_err *err)
{
	struct tpd_pieces pieces;
	enum tpd_status status;

	if (!read_pieces(rd, n, &pieces))
		return tpd_fail(err, TPD_CORRUPT, "grid: a payload of ours cannot be read");
	status = read_symbols(codec, rd, symbols, tpd_piece_count(&pieces), bits, err);
	if (!status)
		status = read_symbols(codec, rd, symbols, n, bits, err);
	if (!status)
		*bits += verbatim_bits(rd);
	return status;
}

/* What stands before the grid: section 10. */
static enum tpd_status coefficients(struct tpd_codec *codec, struct tpd_rd *rd, size_t n, uint8_t *symbols, double *bits,
				    struct tpd_err *err)
{
	const unsigned terms = (unsigned)__builtin_popcount(tpd_rd_u8(rd)), form = tpd_rd_u8(rd);
	struct tpd_pieces pieces;
	enum tpd_status status = TPD_OK;

	if (form == 0) {
		tpd_rd_bytes(rd, sizeof(float) * (uint64_t)terms);
		*bits += BITS_A_BYTE * (double)(sizeof(float) * terms);
		return tpd_rd_ok(rd) ? TPD_OK : tpd_fail(err, TPD_CORRUPT, "predicted: a payload of ours cannot be read");
	}
	if (form != 1 || !read_pieces(rd, n, &pieces))
		return tpd_fail(err, TPD_CORRUPT, "predicted: a payload of ours cannot be read");
	for (unsigned stream = 0; !status && stream < 2 * terms; stream++)
		status = read_symbols(codec, rd, symbols, tpd_piece_count(&pieces), bits, err);
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
	enum tpd_status status;

	if (!read_pieces(rd, n, &pieces))
		return tpd_fail(err, TPD_CORRUPT, "classes: a payload of ours cannot be read");
	status = read_symbols(codec, rd, symbols, tpd_piece_count(&pieces), bits, err);
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

/* What stands before the grid of `stepped`: the number of terms, and coefficients. */
static enum tpd_status steps_of(struct speed_job *job, const struct speed_chunk *chunk, enum tpd_dtype dtype, struct tpd_rd *rd,
				const uint8_t *p, size_t n, struct tpd_steps *out_steps, double *bits, struct tpd_err *err)
{
	const size_t before = tpd_rd_left(rd);
	enum tpd_status status = tpd_step_decode(job->codec, dtype, rd, p, chunk->in.inputs, n, out_steps, err);

	*bits += BITS_A_BYTE * (double)(before - tpd_rd_left(rd));
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
		status = grid(job->codec, &rd, n, symbols, &bits, err);
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
