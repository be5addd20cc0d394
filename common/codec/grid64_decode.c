/*
 * grid64_decode.c - the way back from grid64_encode.c, all rules checked.
 */
#include "base/tpd.h"

#include <string.h>

#include "codec/fields.h"
#include "codec/grid64.h"
#include "codec/grid_kernel.h"

static enum tpd_status corrupt(struct tpd_err *err, const char *what)
{
	return tpd_fail(err, TPD_CORRUPT, "grid: %s", what);
}

/* Q(x) of an element that has one, and how many bits follow any. */
static unsigned demand(struct tpd_grid64_type type, unsigned t, uint64_t p, uint8_t symbol, int64_t *out_q)
{
	if (symbol == TPD_SYMBOL_ESCAPE)
		return type.width;
	if (symbol < TPD_SYMBOL_FIRST)
		return 0;
	*out_q = tpd_grid64_wrap(type, (uint64_t)tpd_grid64_q(type, p, t) + symbol - TPD_SYMBOL_MIDDLE);
	return tpd_grid64_bits(type, (uint64_t)(*out_q < 0 ? -1 - *out_q : *out_q), t);
}

/* Up to 16 elements. */
static bool decode_block(struct tpd_grid64_type type, unsigned t, const uint8_t *p, const uint8_t *symbols, size_t n,
			 struct tpd_fields_in *fields, uint8_t *out)
{
	const unsigned cut = 64 - type.width;
	uint32_t bits[TPD_GRID64_PARTS][TPD_LANES] = {{0}}, values[TPD_GRID64_PARTS][TPD_LANES];
	int64_t q[TPD_LANES] = {0};

	for (size_t i = 0; i < n; i++) {
		unsigned size = demand(type, t, tpd_get_u64(p + 8 * i) >> cut, symbols[i], &q[i]);

		bits[0][i] = TPD_MIN(size, TPD_GRID64_PART_BITS);
		bits[1][i] = size - bits[0][i];
	}
	for (unsigned part = 0; part < TPD_GRID64_PARTS; part++)
		if (!tpd_fields_pull(fields, bits[part], values[part]))
			return false;
	for (size_t i = 0; i < n; i++) {
		uint64_t field = values[0][i] | (uint64_t)values[1][i] << TPD_GRID64_PART_BITS, x = 0;

		if (symbols[i] == TPD_SYMBOL_ESCAPE)
			x = field;
		else if (symbols[i] == TPD_SYMBOL_EQUAL)
			x = tpd_get_u64(p + 8 * i) >> cut;
		else if (symbols[i] >= TPD_SYMBOL_FIRST && !tpd_grid64_unq(type, q[i], t, field, bits[0][i] + bits[1][i], &x))
			return false;
		tpd_put_u64(out + 8 * i, x << cut);
	}
	return true;
}

enum tpd_status tpd_decode_grid64(struct tpd_codec *codec, struct tpd_rd *rd, const uint8_t *p, uint8_t *out, size_t len, struct tpd_err *err)
{
	const size_t n = len / 8, left = len % 8;
	const unsigned cut = tpd_rd_u8(rd);
	const size_t row = tpd_rd_u16(rd), first = tpd_rd_u16(rd);
	const struct tpd_pieces pieces = {TPD_MIN(first, n), row, n};
	struct tpd_grid64_type type;
	struct tpd_fields_in fields;
	size_t count;
	enum tpd_status status;

	if (!tpd_rd_ok(rd) || cut > TPD_GRID64_CUT_MAX || row == 0 || row > TPD_ROW_MAX || first == 0 || first > row)
		return corrupt(err, "bad header");
	type = tpd_grid64_type(cut);
	count = tpd_piece_count(&pieces);
	status = tpd_scratch_need(&codec->steps, 2 * count + 1, err);
	if (status == TPD_OK)
		status = tpd_scratch_need(&codec->symbols, n + 1, err);
	if (status == TPD_OK)
		status = tpd_symbols_decode(codec, rd, codec->steps.data, count, err);
	if (status == TPD_OK)
		status = tpd_symbols_decode(codec, rd, codec->steps.data + count, count, err);
	if (status == TPD_OK)
		status = tpd_symbols_decode(codec, rd, codec->symbols.data, n, err);
	if (status != TPD_OK)
		return status;
	status = tpd_fields_read(codec, rd, left, &fields, err);
	if (status != TPD_OK)
		return status;
	for (size_t i = 0; i < count; i++) {
		const unsigned t = codec->steps.data[i] | (unsigned)codec->steps.data[count + i] << 8;
		const size_t end = tpd_piece_start(&pieces, i + 1);

		if (t == 0 || t > TPD_GRID64_T_MAX)
			return corrupt(err, "a step that there is not");
		for (size_t at = tpd_piece_start(&pieces, i); at < end; at += TPD_LANES)
			if (!decode_block(type, t, p + 8 * at, codec->symbols.data + at, TPD_MIN(end - at, (size_t)TPD_LANES), &fields,
					  out + 8 * at))
				return corrupt(err, "an element is not valid");
	}
	if (!tpd_fields_done(&fields))
		return corrupt(err, "the fields do not end where they must");
	memcpy(out + n * 8, tpd_rd_bytes(rd, left), left);
	return TPD_OK;
}
