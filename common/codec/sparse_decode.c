/*
 * sparse_decode.c - the reference with some elements changed.
 */
#include "base/tpd.h"

#include <string.h>

#include "codec/fields.h"
#include "codec/grid_kernel.h"
#include "codec/internal.h"
#include "codec/sparse.h"

/* out already holds the reference. */
TPD_INLINE bool apply(uint8_t *out, const uint32_t *places, const uint8_t *symbols, size_t m, const unsigned width,
		      const bool is_float, struct tpd_fields_in *fields)
{
	for (size_t i = 0; i < m; i++) {
		uint8_t *place = out + (size_t)places[i] * width;
		uint32_t x = sparse_q(sparse_load(place, 0, width), width, is_float) + symbols[i] - TPD_SYMBOL_MIDDLE;

		x = sparse_q(x & (UINT32_MAX >> (32 - 8 * width)), width, is_float);
		if (symbols[i] < TPD_SYMBOL_FIRST) {
			if (symbols[i] == TPD_SYMBOL_EQUAL)
				return false;
			x = 0;
			if (symbols[i] == TPD_SYMBOL_ESCAPE &&
			    !tpd_fields_pull_one(fields, (unsigned)(i % TPD_LANES), 8 * width, &x))
				return false;
		}
		if (width == 4)
			tpd_put_u32(place, x);
		else if (width == 2)
			tpd_put_u16(place, (uint16_t)x);
		else
			*place = (uint8_t)x;
	}
	return true;
}

static bool apply_type(uint8_t *out, const uint32_t *places, const uint8_t *symbols, size_t m, unsigned width,
		       bool is_float, struct tpd_fields_in *fields)
{
	if (width == 4 && is_float)
		return apply(out, places, symbols, m, 4, true, fields);
	if (width == 4)
		return apply(out, places, symbols, m, 4, false, fields);
	if (width == 2 && is_float)
		return apply(out, places, symbols, m, 2, true, fields);
	if (width == 2)
		return apply(out, places, symbols, m, 2, false, fields);
	return apply(out, places, symbols, m, 1, false, fields);
}

enum tpd_status tpd_decode_sparse(struct tpd_codec *codec, enum tpd_dtype dtype, struct tpd_rd *rd, const uint8_t *p,
				  uint8_t *out, size_t len, struct tpd_err *err)
{
	const unsigned width = tpd_element_width(TPD_ENCODING_SPARSE, dtype);
	const size_t n = len / width;
	unsigned code = tpd_rd_u8(rd), k = tpd_rd_u8(rd);
	uint64_t m = tpd_rd_varint(rd);
	uint32_t gaps_len = tpd_rd_u32(rd);
	const uint8_t *gaps = tpd_rd_bytes(rd, gaps_len);
	struct tpd_fields_in fields;
	uint32_t *places;
	enum tpd_status status;

	if (tpd_rd_ok(rd) && code > TPD_GAPS_RICE)
		return tpd_fail(err, TPD_UNSUPPORTED, "sparse: unknown code %u for gaps", code);
	if (!gaps || k > (code == TPD_GAPS_RICE ? TPD_RICE_MAX : 0) || m > n)
		return tpd_fail(err, TPD_CORRUPT, "sparse: bad header");
	status = tpd_scratch_need(&codec->places, (size_t)(m + 1) * sizeof *places, err);
	if (status == TPD_OK)
		status = tpd_scratch_need(&codec->symbols, (size_t)m + 1, err);
	if (status != TPD_OK)
		return status;
	places = (uint32_t *)(void *)codec->places.data;
	if (!tpd_gaps_decode(gaps, gaps_len, code, k, (size_t)m, (uint32_t)n, places))
		return tpd_fail(err, TPD_CORRUPT, "sparse: the gaps do not fit");
	status = tpd_symbols_decode(codec, rd, codec->symbols.data, (size_t)m, err);
	if (status != TPD_OK)
		return status;
	status = tpd_fields_read(codec, rd, len - n * width, &fields, err);
	if (status != TPD_OK)
		return status;
	memcpy(out, p, n * width);
	if (!apply_type(out, places, codec->symbols.data, (size_t)m, width, tpd_dtype_exponent_bits(dtype) > 0,
			&fields) ||
	    !tpd_fields_done(&fields))
		return tpd_fail(err, TPD_CORRUPT, "sparse: the fields do not fit");
	memcpy(out + n * width, tpd_rd_bytes(rd, len - n * width), len - n * width);
	return TPD_OK;
}
