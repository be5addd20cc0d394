/*
 * dtype.c - the element types' properties, all from the one list in dtype.h.
 *
 * A table indexed by number; a number from disk that is not in it answers as
 * "unknown" instead of being trusted.
 */
#include "base/tpd.h"

#include "base/dtype.h"

#include <string.h>

struct dtype_info {
	const char *name;
	uint8_t bits, exponent, mantissa;
};

static const struct dtype_info infos[TPD_DTYPE_COUNT] = {
#define TPD_DTYPE_X(sym, num, text, nbits, exp, man) \
	[num] = {.name = (text), .bits = (nbits), .exponent = (exp), .mantissa = (man)},
	TPD_DTYPE_LIST(TPD_DTYPE_X)
#undef TPD_DTYPE_X
};

static const struct dtype_info *info_of(enum tpd_dtype dtype)
{
	static const struct dtype_info unknown = {.name = "?"};

	return (unsigned)dtype < TPD_DTYPE_COUNT ? &infos[dtype] : &unknown;
}

const char *tpd_dtype_name(enum tpd_dtype dtype)
{
	return info_of(dtype)->name;
}

bool tpd_dtype_from_name(const char *name, size_t len, enum tpd_dtype *out_dtype)
{
	for (unsigned i = 0; i < TPD_DTYPE_COUNT; i++) {
		if (strlen(infos[i].name) == len && memcmp(infos[i].name, name, len) == 0) {
			*out_dtype = (enum tpd_dtype)i;
			return true;
		}
	}
	return false;
}

unsigned tpd_dtype_bits(enum tpd_dtype dtype)
{
	return info_of(dtype)->bits;
}

unsigned tpd_dtype_width(enum tpd_dtype dtype)
{
	unsigned bits = info_of(dtype)->bits;

	return bits >= 8 ? bits / 8 : 1;
}

unsigned tpd_dtype_exponent_bits(enum tpd_dtype dtype)
{
	return info_of(dtype)->exponent;
}

unsigned tpd_dtype_mantissa_bits(enum tpd_dtype dtype)
{
	return info_of(dtype)->mantissa;
}

bool tpd_dtype_has_stats(enum tpd_dtype dtype)
{
	return dtype == TPD_DTYPE_F32 || dtype == TPD_DTYPE_F16 || dtype == TPD_DTYPE_BF16 || dtype == TPD_DTYPE_F64;
}
