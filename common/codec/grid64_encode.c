/*
 * grid64_encode.c - `grid` of F64: T of row pieces, symbols and fields. SPEC.md section 16.
 */
#include "base/tpd.h"

#include <fenv.h>
#include <string.h>

#include "codec/fields.h"
#include "codec/grid64.h"
#include "codec/grid_kernel.h"
#include "codec/kernels.h"

#define EXPONENTS 2048u

static double double_of(uint64_t bits)
{
	double v;

	memcpy(&v, &bits, sizeof(v));
	return v;
}

/* How many zeros all of them end in. */
static unsigned choose_cut(const uint8_t *x, size_t n)
{
	uint64_t any = 0;

	for (size_t i = 0; i < n; i++)
		any |= tpd_get_u64(x + 8 * i);
	return any == 0 ? 0 : TPD_MIN((unsigned)__builtin_ctzll(any), TPD_GRID64_CUT_MAX);
}

/* The lower median of the exponent fields of differences, and what of the mantissa is kept of it. The caller has set the floating-point mode. */
static unsigned choose_t(struct tpd_grid64_type type, const uint8_t *x, const uint8_t *p, size_t n, unsigned bias)
{
	uint32_t counts[EXPONENTS] = {0}, changed = 0, below = 0;
	unsigned e = 0;

	for (size_t i = 0; i < n; i++) {
		uint64_t new = tpd_get_u64(x + 8 * i), old = tpd_get_u64(p + 8 * i), bits;
		double off = double_of(new) - double_of(old);

		memcpy(&bits, &off, sizeof(bits));
		bits = bits >> 52 & (EXPONENTS - 1);
		if (new == old || bits == EXPONENTS - 1)
			continue;
		counts[bits]++;
		changed++;
	}
	if (changed == 0)
		return 1;
	while ((below += counts[e]) * 2 < changed)
		e++;
	e += type.mantissa;
	return e <= bias ? 1 : TPD_MIN(e - bias, TPD_GRID64_T_MAX);
}

/* One element; its field in two parts. */
static uint8_t encode_element(struct tpd_grid64_type type, unsigned t, uint64_t x, uint64_t p, uint64_t *out_field, unsigned *out_bits)
{
	const int64_t q = tpd_grid64_q(type, x, t);
	const int64_t d = tpd_grid64_wrap(type, (uint64_t)q - (uint64_t)tpd_grid64_q(type, p, t));

	*out_field = 0;
	*out_bits = 0;
	if (x == p)
		return TPD_SYMBOL_EQUAL;
	if (x == 0)
		return TPD_SYMBOL_ZERO;
	if (d < TPD_SYMBOL_FIRST - TPD_SYMBOL_MIDDLE || d > 255 - TPD_SYMBOL_MIDDLE) {
		*out_field = x;
		*out_bits = type.width;
		return TPD_SYMBOL_ESCAPE;
	}
	*out_bits = tpd_grid64_bits(type, (uint64_t)(q < 0 ? -1 - q : q), t);
	*out_field = tpd_grid64_field(type, x, *out_bits);
	return (uint8_t)(d + TPD_SYMBOL_MIDDLE);
}

/* values, bits: two rounds for each 16 elements, and zeros where there are none. */
static void encode_row(struct tpd_grid64_type type, unsigned t, const uint8_t *x, const uint8_t *p, size_t n, uint8_t *symbols,
			 uint32_t *values, uint8_t *bits)
{
	const unsigned cut = 64 - type.width;

	memset(values, 0, TPD_GRID64_PARTS * tpd_whole_rounds(n) * sizeof(*values));
	memset(bits, 0, TPD_GRID64_PARTS * tpd_whole_rounds(n));
	for (size_t i = 0; i < n; i++) {
		const size_t low = i / TPD_LANES * TPD_LANES * TPD_GRID64_PARTS + i % TPD_LANES, high = low + TPD_LANES;
		uint64_t field;
		unsigned size;

		symbols[i] = encode_element(type, t, tpd_get_u64(x + 8 * i) >> cut, tpd_get_u64(p + 8 * i) >> cut, &field, &size);
		bits[low] = (uint8_t)TPD_MIN(size, TPD_GRID64_PART_BITS);
		bits[high] = (uint8_t)(size - bits[low]);
		values[low] = (uint32_t)field;
		values[high] = (uint32_t)(field >> TPD_GRID64_PART_BITS);
	}
}

static enum tpd_status put_stream(struct tpd_codec *codec, const uint8_t *bytes, size_t n, uint8_t **out, struct tpd_err *err)
{
	size_t part = 0;
	enum tpd_status status = tpd_symbols_encode(codec, bytes, n, *out, &part, err);

	*out += part;
	return status;
}

enum tpd_status tpd_encode_grid64(struct tpd_codec *codec, const struct tpd_plan *plan, const struct tpd_chunk *chunk, const uint8_t *p,
				  unsigned force_t, size_t *out_len, struct tpd_err *err)
{
	const size_t n = chunk->len / 8, left = chunk->len % 8;
	const struct tpd_pieces pieces = tpd_pieces_of(plan->row, chunk->element, n);
	const size_t count = tpd_piece_count(&pieces);
	const size_t fields_max = n * 8 + TPD_FIELDS_SLACK;
	const unsigned cut = choose_cut(chunk->x, n);
	const struct tpd_grid64_type type = tpd_grid64_type(cut);
	size_t lanes = 0, at = 0;
	uint8_t *out, *fields, *fields_end, *bits;
	uint32_t *values;
	fenv_t caller;
	enum tpd_status status =
		tpd_scratch_need(&codec->payload, 5 + 2 * TPD_SYMBOLS_BOUND(count) + TPD_SYMBOLS_BOUND(n) + fields_max + left, err);

	for (size_t i = 0; i < count; i++)
		lanes += TPD_GRID64_PARTS * tpd_whole_rounds(tpd_piece_start(&pieces, i + 1) - tpd_piece_start(&pieces, i));
	if (status == TPD_OK)
		status = tpd_scratch_need(&codec->symbols, n + 1, err);
	if (status == TPD_OK)
		status = tpd_scratch_need(&codec->steps, 2 * count + 1, err);
	if (status == TPD_OK)
		status = tpd_scratch_need(&codec->fields, fields_max, err);
	if (status == TPD_OK)
		status = tpd_scratch_need(&codec->values, lanes * (sizeof(*values) + 1) + 1, err);
	if (status != TPD_OK)
		return status;
	values = (uint32_t *)(void *)codec->values.data;
	bits = (uint8_t *)(values + lanes);
	fegetenv(&caller);
	fesetenv(FE_DFL_ENV);
	for (size_t i = 0; i < count; i++) {
		const size_t start = tpd_piece_start(&pieces, i), len = tpd_piece_start(&pieces, i + 1) - start;
		const unsigned t = force_t > 0 ? force_t : choose_t(type, chunk->x + 8 * start, p + 8 * start, len, plan->grid_bias);

		codec->steps.data[i] = (uint8_t)t;
		codec->steps.data[count + i] = (uint8_t)(t >> 8);
		encode_row(type, t, chunk->x + 8 * start, p + 8 * start, len, codec->symbols.data + start, values + at, bits + at);
		at += TPD_GRID64_PARTS * tpd_whole_rounds(len);
	}
	fesetenv(&caller);
	fields_end = codec->fields.data + fields_max;
	fields = codec->kernels->fields_pack(values, bits, lanes / TPD_LANES, fields_end);

	out = codec->payload.data;
	*out++ = (uint8_t)cut;
	tpd_put_u16(out, (uint16_t)pieces.row);
	tpd_put_u16(out + 2, (uint16_t)pieces.first);
	out += 4;
	status = put_stream(codec, codec->steps.data, count, &out, err);
	if (status == TPD_OK)
		status = put_stream(codec, codec->steps.data + count, count, &out, err);
	if (status == TPD_OK)
		status = put_stream(codec, codec->symbols.data, n, &out, err);
	if (status != TPD_OK)
		return status;
	out = tpd_fields_write(out, fields);
	memcpy(out, chunk->x + 8 * n, left);
	*out_len = (size_t)(out - codec->payload.data) + left;
	return TPD_OK;
}
