/*
 * grid_plain.h - the grid on whole pieces of a row, in plain C: what kernels.h has of it for kernels_scalar.c and kernels_plain.c.
 */
#ifndef TPD_CODEC_GRID_PLAIN_H
#define TPD_CODEC_GRID_PLAIN_H

#include "base/tpd.h"

#include <assert.h>
#include <string.h>

#include "codec/grid.h"
#include "codec/grid_kernel.h"
#include "codec/internal.h"
#include "codec/kernels_internal.h"

/* ---- T of a piece ---- */

/* The pattern as single precision; F16 comes out times 2^-112, which keeps every difference exact. */
TPD_INLINE float widened(const struct tpd_grid_type type, uint32_t x)
{
	uint32_t sign = x >> (type.width - 1) << 31;
	uint32_t magnitude = (x & ((UINT32_C(1) << (type.width - 1)) - 1)) << (23 - type.mantissa);

	if (type.mantissa == 10) /* its Inf and NaN would be finite there */
		magnitude += UINT32_C(0x70000000) & (0u - (uint32_t)(magnitude >= UINT32_C(0x0f800000)));
	return float_of(sign | magnitude);
}

/* Exponent fields of |x - p| in single precision. */
TPD_INLINE void block_exponents(const struct tpd_grid_type type, const uint32_t x[TPD_BLOCK],
				const uint32_t p[TPD_BLOCK], uint8_t out[TPD_BLOCK])
{
	uint32_t wide[TPD_BLOCK];

	for (unsigned j = 0; j < TPD_BLOCK; j++) {
		float difference = widened(type, x[j]) - widened(type, p[j]);

		if (type.mantissa == 10)
			difference *= 0x1p112f;
		wide[j] = (bits_of(difference) >> 23 & 255) | (TPD_EXPONENT_NONE & (0u - (uint32_t)(x[j] == p[j])));
	}
	for (unsigned j = 0; j < TPD_BLOCK; j++)
		out[j] = (uint8_t)wide[j];
}

TPD_INLINE unsigned choose_t_type(const struct tpd_grid_type type, const uint8_t *x, const uint8_t *p, size_t n,
				  unsigned bias)
{
	uint16_t counts[4][256]; /* four: neighbours mostly share their exponent, and would wait for each other */
	const size_t width = type.width / 8;
	unsigned total = 0, rank, exponent = 0;

	memset(counts, 0, sizeof counts);
	for (size_t i = 0; i < n; i += TPD_BLOCK) {
		uint32_t new[TPD_BLOCK], old[TPD_BLOCK];
		uint8_t found[TPD_BLOCK];
		size_t count = n - i < TPD_BLOCK ? n - i : TPD_BLOCK;
		struct block_pad pad;

		if (count < TPD_BLOCK) {
			pad_block(type, x + i * width, count, pad.x);
			pad_block(type, p + i * width, count, pad.p);
		}
		load_block(type, count < TPD_BLOCK ? pad.x : x + i * width, new);
		load_block(type, count < TPD_BLOCK ? pad.p : p + i * width, old);
		block_exponents(type, new, old, found);
		for (unsigned j = 0; j < TPD_BLOCK; j += 4) {
			counts[0][found[j]]++;
			counts[1][found[j + 1]]++;
			counts[2][found[j + 2]]++;
			counts[3][found[j + 3]]++;
		}
	}
	for (unsigned e = 0; e < 256; e++) {
		counts[0][e] = (uint16_t)(counts[0][e] + counts[1][e] + counts[2][e] + counts[3][e]);
		total += counts[0][e];
	}
	total -= counts[0][TPD_EXPONENT_NONE];
	if (total == 0)
		return 1;
	rank = (total + 1) / 2;
	for (; rank > counts[0][exponent]; exponent++)
		rank -= counts[0][exponent];
	return tpd_grid_t_of_exponent(&type, exponent, bias);
}

static inline unsigned choose_t(enum tpd_dtype dtype, const uint8_t *x, const uint8_t *p, size_t n, unsigned bias)
{
	assert(n <= TPD_ROW_MAX);
	switch (dtype) {
	case TPD_DTYPE_F32:
		return choose_t_type(TYPE_F32, x, p, n, bias);
	case TPD_DTYPE_BF16:
		return choose_t_type(TYPE_BF16, x, p, n, bias);
	default:
		return choose_t_type(TYPE_F16, x, p, n, bias);
	}
}

/* ---- pieces ---- */

TPD_INLINE void encode_type(const struct tpd_grid_type type, unsigned t, const uint8_t *x, const uint8_t *p, size_t n,
			    uint8_t *symbols, uint32_t *values, uint8_t *bits)
{
	struct grid_step step = step_of(type, t);

	if (step.coarse) {
		encode_piece(type, &step, true, x, p, n, symbols, values, bits);
	} else if (memcmp(x, p, n * (type.width / 8)) == 0) { /* unchanged rows have T = 1 */
		size_t lanes = tpd_whole_rounds(n);

		memset(symbols, TPD_SYMBOL_EQUAL, n);
		memset(values, 0, lanes * sizeof *values);
		memset(bits, 0, lanes);
	} else {
		encode_piece(type, &step, false, x, p, n, symbols, values, bits);
	}
}

static inline void grid_encode(enum tpd_dtype dtype, unsigned t, const uint8_t *x, const uint8_t *p, size_t n,
			       const struct tpd_prefetch *soon TPD_UNUSED, uint8_t *symbols, uint32_t *values, uint8_t *bits)
{
	switch (dtype) {
	case TPD_DTYPE_F32:
		encode_type(TYPE_F32, t, x, p, n, symbols, values, bits);
		return;
	case TPD_DTYPE_BF16:
		encode_type(TYPE_BF16, t, x, p, n, symbols, values, bits);
		return;
	default:
		encode_type(TYPE_F16, t, x, p, n, symbols, values, bits);
	}
}

static inline bool all_equal(const uint8_t *symbols, size_t n)
{
	uint8_t other = 0;

	for (size_t i = 0; i < n; i++)
		other |= symbols[i] ^ TPD_SYMBOL_EQUAL;
	return other == 0;
}

TPD_INLINE bool decode_type(const struct tpd_grid_type type, unsigned t, const uint8_t *p, const uint8_t *symbols,
			    size_t n, uint8_t *out, struct tpd_fields_in *fields)
{
	struct grid_step step = step_of(type, t);

	if (step.coarse)
		return decode_piece(type, &step, true, p, symbols, n, out, fields);
	if (!all_equal(symbols, n))
		return decode_piece(type, &step, false, p, symbols, n, out, fields);
	memcpy(out, p, n * (type.width / 8));
	return true;
}

static inline bool decode_one(enum tpd_dtype dtype, unsigned t, const uint8_t *p, const uint8_t *symbols, size_t n, uint8_t *out,
			      struct tpd_fields_in *fields)
{
	switch (dtype) {
	case TPD_DTYPE_F32:
		return decode_type(TYPE_F32, t, p, symbols, n, out, fields);
	case TPD_DTYPE_BF16:
		return decode_type(TYPE_BF16, t, p, symbols, n, out, fields);
	default:
		return decode_type(TYPE_F16, t, p, symbols, n, out, fields);
	}
}

static inline bool grid_decode(enum tpd_dtype dtype, const uint8_t *steps, const struct tpd_pieces *pieces, const uint8_t *p,
			       const uint8_t *symbols, const struct tpd_prefetch *soon TPD_UNUSED, uint8_t *out, struct tpd_fields_in *fields)
{
	const size_t width = tpd_dtype_width(dtype), count = tpd_piece_count(pieces);
	bool valid = true;

	for (size_t i = 0; valid && i < count; i++) {
		const size_t start = tpd_piece_start(pieces, i), n = tpd_piece_start(pieces, i + 1) - start;

		valid = decode_one(dtype, steps[i], p + start * width, symbols + start, n, out + start * width, fields);
	}
	return valid;
}

#endif
