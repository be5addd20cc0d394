/*
 * grid64.h - `grid` of F64 (SPEC.md section 16): the grid of section 5 in 64 bits, for both directions, as pure functions on one pattern.
 *
 * One form in plain C, for all kinds of CPU: checkpoints in double precision are small, or rare. Patterns have lost the zeros that all of a
 * chunk's elements end in ("cut"), so the mantissa's length is a parameter here.
 */
#ifndef TPD_CODEC_GRID64_H
#define TPD_CODEC_GRID64_H

#include "base/bytes.h"
#include "base/tpd.h"
#include "codec/internal.h"

#define TPD_GRID64_CUT_MAX 51u
#define TPD_GRID64_T_MAX 2046u
#define TPD_GRID64_PARTS 2u     /* rounds of fields for each 16 elements: low parts, rests */
#define TPD_GRID64_PART_BITS 32u

/* Of a chunk's elements: bits of a pattern, and of its mantissa. */
struct tpd_grid64_type {
	unsigned width, mantissa;
};

static inline struct tpd_grid64_type tpd_grid64_type(unsigned cut)
{
	return (struct tpd_grid64_type){64 - cut, 52 - cut};
}

static inline uint64_t tpd_grid64_magnitude(struct tpd_grid64_type type, uint64_t x)
{
	return x & ((UINT64_C(1) << (type.width - 1)) - 1);
}

/* The low `width` bits as a signed number. */
static inline int64_t tpd_grid64_wrap(struct tpd_grid64_type type, uint64_t v)
{
	const uint64_t sign = UINT64_C(1) << (type.width - 1);

	return (int64_t)(((v & (2 * sign - 1)) ^ sign) - sign);
}

static inline int64_t tpd_grid64_q(struct tpd_grid64_type type, uint64_t x, unsigned t)
{
	const uint64_t magnitude = tpd_grid64_magnitude(type, x);
	const unsigned field = (unsigned)(magnitude >> type.mantissa), exponent = TPD_MAX(field, 1u);
	uint64_t g;

	if (exponent >= t)
		g = magnitude - ((uint64_t)(t - 1) << type.mantissa);
	else
		g = t - exponent > 63 ? 0 : (magnitude - ((uint64_t)(exponent - 1) << type.mantissa)) >> (t - exponent);
	return magnitude == x ? (int64_t)g : -1 - (int64_t)g;
}

/* How many patterns lie below the first step; they are told in full. */
static inline uint64_t tpd_grid64_below(struct tpd_grid64_type type, unsigned t)
{
	return t > type.mantissa ? (uint64_t)(t - type.mantissa) << type.mantissa : UINT64_C(1) << (t - 1);
}

/* Bits that remain for G. */
static inline unsigned tpd_grid64_bits(struct tpd_grid64_type type, uint64_t g, unsigned t)
{
	uint64_t below = tpd_grid64_below(type, t) - 1;
	unsigned log;

	if (g == 0)
		return below == 0 ? 0 : 64 - (unsigned)__builtin_clzll(below);
	log = 63 - (unsigned)__builtin_clzll(g);
	return log >= type.mantissa ? 0 : TPD_MIN(type.mantissa - log, t - 1);
}

/* What remains of |x|: its low bits, or all of it for G = 0. */
static inline uint64_t tpd_grid64_field(struct tpd_grid64_type type, uint64_t x, unsigned bits)
{
	return bits == 0 ? 0 : tpd_grid64_magnitude(type, x) & (UINT64_MAX >> (64 - bits));
}

/* The pattern of Q and a field; false: there is none. */
static inline bool tpd_grid64_unq(struct tpd_grid64_type type, int64_t q, unsigned t, uint64_t field, unsigned bits, uint64_t *out_x)
{
	const uint64_t g = (uint64_t)(q < 0 ? -1 - q : q);
	uint64_t magnitude;

	if (g == 0)
		magnitude = field;
	else if (g >> type.mantissa)
		magnitude = g + ((uint64_t)(t - 1) << type.mantissa);
	else
		magnitude = ((uint64_t)(t - bits - 1) << type.mantissa) + ((g << bits) | field);
	if ((g == 0 && magnitude >= tpd_grid64_below(type, t)) || magnitude >> (type.width - 1))
		return false;
	*out_x = magnitude | (uint64_t)(q < 0) << (type.width - 1);
	return true;
}

enum tpd_status tpd_encode_grid64(struct tpd_codec *codec, const struct tpd_plan *plan, const struct tpd_chunk *chunk, const uint8_t *p,
				  unsigned force_t, size_t *out_len, struct tpd_err *err);
enum tpd_status tpd_decode_grid64(struct tpd_codec *codec, struct tpd_rd *rd, const uint8_t *p, uint8_t *out, size_t len, struct tpd_err *err);

#endif
