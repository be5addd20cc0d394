/*
 * sparse_encode.c - few elements changed: where (gaps) and to what (symbols), SPEC.md section 7.
 *
 * Where they are is a kernel's to find (kernels.h); what they became is few enough for plain C.
 */
#include "base/tpd.h"

#include <string.h>

#include "codec/fields.h"
#include "codec/grid_kernel.h"
#include "codec/internal.h"
#include "codec/kernels.h"
#include "codec/sparse.h"

TPD_INLINE void code_changes(const uint8_t *x, const uint8_t *p, const uint32_t *places, size_t m, const unsigned width,
			     const bool is_float, uint8_t *symbols, struct tpd_fields_out *fields)
{
	for (size_t i = 0; i < m; i++) {
		uint32_t new = sparse_load(x, places[i], width), old = sparse_load(p, places[i], width);
		int32_t d = sparse_difference(new, old, width, is_float);
		uint8_t symbol = TPD_SYMBOL_ESCAPE;

		if (new == 0)
			symbol = TPD_SYMBOL_ZERO;
		else if (d >= TPD_SYMBOL_FIRST - TPD_SYMBOL_MIDDLE && d <= 255 - TPD_SYMBOL_MIDDLE)
			symbol = (uint8_t)(d + TPD_SYMBOL_MIDDLE);
		symbols[i] = symbol;
		if (symbol == TPD_SYMBOL_ESCAPE)
			tpd_fields_push_one(fields, (unsigned)(i % TPD_LANES), new, 8 * width);
	}
}

/* Positions to gaps, in place. */
static void positions_to_gaps(uint32_t *places, size_t m)
{
	uint32_t next = 0;

	for (size_t i = 0; i < m; i++) {
		uint32_t place = places[i];

		places[i] = place + 1 - next;
		next = place + 1;
	}
}

/* Room that the payload may need: a symbol and at most W bytes an element, a bit of gap (Rice, k = 0). */
static size_t payload_bound(size_t n, size_t len)
{
	return 72 + n / 8 + n + 2 * len + 4 * TPD_LANES;
}

enum tpd_status tpd_encode_sparse(struct tpd_codec *codec, enum tpd_dtype dtype, const uint8_t *x, const uint8_t *p,
				  size_t len, size_t *out_len, struct tpd_err *err)
{
	const unsigned width = tpd_element_width(TPD_ENCODING_SPARSE, dtype);
	const bool is_float = tpd_dtype_exponent_bits(dtype) > 0;
	const size_t n = len / width;
	struct tpd_fields_out fields;
	uint32_t *places;
	size_t m, gaps_len, part;
	uint8_t *out, *symbols;
	uint64_t bits;
	enum tpd_status status;

	status = tpd_scratch_need(&codec->places, (n + TPD_PLACES_SLACK) * sizeof *places, err);
	if (status == TPD_OK)
		status = tpd_scratch_need(&codec->payload, payload_bound(n, len), err);
	if (status != TPD_OK)
		return status;
	places = (uint32_t *)(void *)codec->places.data;
	m = codec->kernels->find_changes(x, p, n, width, places);
	status = tpd_scratch_need(&codec->symbols, m + 1, err);
	if (status == TPD_OK)
		status = tpd_scratch_need(&codec->fields, m * width + 4 * TPD_LANES + 8, err);
	if (status != TPD_OK)
		return status;
	symbols = codec->symbols.data;

	tpd_fields_start(&fields, codec->fields.data);
	if (width == 4 && is_float)
		code_changes(x, p, places, m, 4, true, symbols, &fields);
	else if (width == 4)
		code_changes(x, p, places, m, 4, false, symbols, &fields);
	else if (width == 2 && is_float)
		code_changes(x, p, places, m, 2, true, symbols, &fields);
	else if (width == 2)
		code_changes(x, p, places, m, 2, false, symbols, &fields);
	else
		code_changes(x, p, places, m, 1, false, symbols, &fields);

	positions_to_gaps(places, m);
	out = codec->payload.data;
	bits = tpd_gaps_choose(places, m, &out[0], &out[1]);
	part = 2;
	for (uint64_t v = m;; v >>= 7) {
		out[part++] = (uint8_t)(v >= 0x80 ? v | 0x80 : v);
		if (v < 0x80)
			break;
	}
	if (bits / 8 > n) { /* cannot be: Rice with k = 0 costs at most a bit an element */
		*out_len = SIZE_MAX;
		return TPD_OK;
	}
	gaps_len = tpd_gaps_encode(places, m, out[0], out[1], out + part + 4);
	tpd_put_u32(out + part, (uint32_t)gaps_len);
	part += 4 + gaps_len;
	status = tpd_symbols_encode(codec, symbols, m, out + part, &gaps_len, err);
	if (status != TPD_OK)
		return status;
	part += gaps_len;
	tpd_fields_finish(&fields);
	part = (size_t)(tpd_fields_write(out + part, codec->fields.data) - out);
	memcpy(out + part, x + n * width, len - n * width);
	*out_len = part + len - n * width;
	return TPD_OK;
}
