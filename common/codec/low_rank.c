/*
 * low_rank.c - the low-rank part of a prediction: read, and added. SPEC.md section 10.
 */
#include "base/tpd.h"

#include "codec/low_rank.h"

#include <string.h>

#include "codec/grid_kernel.h"
#include "codec/kernels.h"

static enum tpd_status corrupt(struct tpd_err *err, const char *what)
{
	return tpd_fail(err, TPD_CORRUPT, "low rank: %s", what);
}

enum tpd_status tpd_low_rank_read(struct tpd_codec *codec, struct tpd_rd *rd, size_t n, struct tpd_low_rank *out, struct tpd_err *err)
{
	struct tpd_low_rank own = {.rank = tpd_rd_u8(rd)};
	uint8_t shifts[TPD_LOW_RANK_MAX], *exponents, *bytes;
	size_t count, most;
	enum tpd_status status;

	own.pieces = (struct tpd_pieces){.row = tpd_rd_u16(rd), .n = n};
	own.pieces.first = tpd_rd_u16(rd);
	if (!tpd_rd_ok(rd) || own.rank == 0 || own.rank > TPD_LOW_RANK_MAX)
		return corrupt(err, "bad rank");
	if (own.pieces.row < TPD_LOW_RANK_ROW_MIN || own.pieces.row > TPD_ROW_MAX || own.pieces.first == 0 || own.pieces.first > own.pieces.row)
		return corrupt(err, "bad rows");
	for (unsigned k = 0; k < own.rank; k++)
		shifts[k] = tpd_rd_u8(rd);
	if (!tpd_rd_ok(rd))
		return corrupt(err, "ends inside its header");
	count = tpd_piece_count(&own.pieces);
	most = own.rank * TPD_MAX(count, own.pieces.row);
	status = tpd_scratch_need(&codec->low_rank, (own.rank * count + TPD_LOW_RANK_COLUMNS(own.rank, own.pieces.row)) * sizeof(float) + count + most + 1, err);
	if (status != TPD_OK)
		return status;
	own.factors = (float *)(void *)codec->low_rank.data;
	own.columns = own.factors + own.rank * count;
	exponents = (uint8_t *)(own.columns + TPD_LOW_RANK_COLUMNS(own.rank, own.pieces.row));
	bytes = exponents + count;
	status = tpd_symbols_decode(codec, rd, exponents, count, err);
	if (status == TPD_OK)
		status = tpd_symbols_decode(codec, rd, bytes, own.rank * count, err);
	for (size_t i = 0; status == TPD_OK && i < count; i++)
		for (unsigned k = 0; k < own.rank; k++)
			own.factors[i * own.rank + k] = tpd_low_rank_factor(bytes[k * count + i], exponents[i], shifts[k]);
	if (status == TPD_OK)
		status = tpd_symbols_decode(codec, rd, bytes, own.rank * own.pieces.row, err);
	if (status != TPD_OK)
		return status;
	tpd_low_rank_columns(bytes, own.rank, own.pieces.row, own.columns);
	*out = own;
	return TPD_OK;
}

void tpd_low_rank_add(const struct tpd_kernels *kernels, const struct tpd_low_rank *low_rank, size_t start, size_t n, float *p)
{
	const struct tpd_pieces *pieces = &low_rank->pieces;
	size_t piece = start < pieces->first ? 0 : 1 + (start - pieces->first) / pieces->row;

	for (const size_t end = start + n; start < end; piece++) {
		const size_t begin = tpd_piece_start(pieces, piece), part = TPD_MIN(tpd_piece_start(pieces, piece + 1), end) - start;
		const size_t column = start - begin + (piece == 0 ? pieces->row - pieces->first : 0);

		kernels->low_rank_add(low_rank->factors + piece * low_rank->rank, low_rank->rank, low_rank->columns, column, part, p);
		p += part;
		start += part;
	}
}

float tpd_low_rank_factor(uint8_t byte, uint8_t exponent, uint8_t shift)
{
	const int field = (int)exponent + shift - TPD_LOW_RANK_MIDDLE;

	return (float)((int)byte - TPD_LOW_RANK_MIDDLE) * float_of((uint32_t)(field < 1 ? 1 : field > 254 ? 254 : field) << 23);
}

void tpd_low_rank_columns(const uint8_t *bytes, size_t rank, size_t row, float *out)
{
	for (size_t c = 0; c < row; c += TPD_LOW_RANK_BLOCK) {
		const size_t n = TPD_MIN(row - c, (size_t)TPD_LOW_RANK_BLOCK);

		for (size_t k = 0; k < rank; k++, out += TPD_LOW_RANK_BLOCK) {
			for (size_t i = 0; i < n; i++)
				out[i] = (float)((int)bytes[k * row + c + i] - TPD_LOW_RANK_MIDDLE);
			memset(out + n, 0, (TPD_LOW_RANK_BLOCK - n) * sizeof(*out));
		}
	}
}
