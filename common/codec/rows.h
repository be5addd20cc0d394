/*
 * rows.h - what both directions of `rows` and `rows-ref` know of an element of one byte: its symbol, given the value that it is told from,
 * and its key (SPEC.md section 15).
 */
#ifndef TPD_CODEC_ROWS_H
#define TPD_CODEC_ROWS_H

#include "base/dtype.h"
#include "base/tpd.h"

#define TPD_ROWS_KEYS 32u
#define TPD_ROWS_GROUPS 16u
#define TPD_ROWS_TABLES 64u
#define TPD_ROWS_BYTES 0u /* forms of elements */
#define TPD_ROWS_NIBBLES 1u
#define TPD_ROWS_SOURCE_NONE 0u
#define TPD_ROWS_SOURCE_FAR 254u /* the largest distance, in pieces */
#define TPD_ROWS_SOURCE_REF 255u

/* By value of s: keys; what Q is xored with for negative patterns, whether there are negative ones at all; bits that an element lacks to 8. */
struct tpd_rows_type {
	uint8_t key[256];
	uint8_t flip;
	bool is_signed;
	unsigned lacks;
};

/* May elements of this type be pairs of nibbles? */
static inline bool tpd_rows_may_split(enum tpd_dtype dtype)
{
	return dtype == TPD_DTYPE_U8 || dtype == TPD_DTYPE_I8 || dtype == TPD_DTYPE_F4;
}

static inline void tpd_rows_type(enum tpd_dtype dtype, bool nibbles, struct tpd_rows_type *out)
{
	const bool e4m3 = dtype == TPD_DTYPE_F8_E4M3 || dtype == TPD_DTYPE_F8_E4M3FNUZ;
	const bool e5m2 = dtype == TPD_DTYPE_F8_E5M2 || dtype == TPD_DTYPE_F8_E5M2FNUZ;

	out->flip = !nibbles && (e4m3 || e5m2) ? 0x7f : 0;
	out->is_signed = !nibbles && (e4m3 || e5m2 || dtype == TPD_DTYPE_I8);
	out->lacks = nibbles ? 4 : 0;
	for (unsigned s = 0; s < 256; s++) {
		unsigned magnitude = s < 128 ? s : 256 - s, exponent = (s & 0x7f) >> (e4m3 ? 3 : 2);

		if (nibbles)
			out->key[s] = (uint8_t)(s & 15);
		else if (e4m3 || e5m2)
			out->key[s] = (uint8_t)TPD_MAX(exponent, 1u);
		else if (dtype == TPD_DTYPE_I8)
			out->key[s] = (uint8_t)(TPD_MIN(magnitude, 127u) >> 3);
		else
			out->key[s] = (uint8_t)(s >> 4);
	}
}

/* All ones where s is negative. */
static inline uint8_t tpd_rows_sign(const struct tpd_rows_type *type, uint8_t s)
{
	return (uint8_t)(0u - (unsigned)(s >> 7 & type->is_signed));
}

static inline uint8_t tpd_rows_q(const struct tpd_rows_type *type, uint8_t v)
{
	return (uint8_t)(v ^ (type->flip & (0u - (unsigned)(v >> 7)))); /* its own inverse */
}

static inline uint8_t tpd_rows_symbol(const struct tpd_rows_type *type, uint8_t x, uint8_t s)
{
	const uint8_t sign = tpd_rows_sign(type, s);
	uint8_t e = (uint8_t)(tpd_rows_q(type, x) - tpd_rows_q(type, s));

	e = (uint8_t)(((unsigned)(e ^ sign) - sign) << type->lacks);
	return (uint8_t)((uint8_t)((unsigned)e << 1 ^ (0u - (unsigned)(e >> 7))) >> type->lacks);
}

static inline uint8_t tpd_rows_value(const struct tpd_rows_type *type, uint8_t symbol, uint8_t s)
{
	const uint8_t sign = tpd_rows_sign(type, s);
	uint8_t e = (uint8_t)(symbol >> 1 ^ (0u - (unsigned)(symbol & 1)));

	e = (uint8_t)((e ^ sign) - sign);
	return (uint8_t)(tpd_rows_q(type, (uint8_t)(e + tpd_rows_q(type, s))) & (0xff >> type->lacks));
}

/* n bytes as 2 n nibbles, the lower one first, and back. */
static inline void tpd_rows_split(const uint8_t *bytes, size_t n, uint8_t *nibbles)
{
	for (size_t i = 0; i < n; i++) {
		nibbles[2 * i] = bytes[i] & 15;
		nibbles[2 * i + 1] = bytes[i] >> 4;
	}
}

static inline void tpd_rows_join(const uint8_t *nibbles, size_t n, uint8_t *bytes)
{
	for (size_t i = 0; i < n; i++)
		bytes[i] = (uint8_t)(nibbles[2 * i] | nibbles[2 * i + 1] << 4);
}

#endif
