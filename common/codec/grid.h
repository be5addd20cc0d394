/*
 * grid.h - the grid of SPEC.md section 5 as pure functions on one pattern: Q, what
 * remains, and the way back.  For tests, and for the scalar kernels.
 */
#ifndef TPD_CODEC_GRID_H
#define TPD_CODEC_GRID_H

#include "base/dtype.h"
#include "base/tpd.h"

struct tpd_grid_type {
	unsigned width;    /* bits */
	unsigned mantissa; /* M */
	unsigned t_max;    /* largest finite exponent field */
};

/* F32, F16, BF16; false for others. */
bool tpd_grid_type(enum tpd_dtype dtype, struct tpd_grid_type *out_type);

/* Q(x) at T, sign-extended to 64 bits; *out_field holds what remains, *out_bits how many bits that is. */
int64_t tpd_grid_q(const struct tpd_grid_type *type, uint32_t x, unsigned t, uint32_t *out_field, unsigned *out_bits);
/* How many bits remain for a Q at T. */
unsigned tpd_grid_field_bits(const struct tpd_grid_type *type, int64_t q, unsigned t);
/* x from Q, T and the field; false when no pattern has this Q. */
bool tpd_grid_unq(const struct tpd_grid_type *type, int64_t q, unsigned t, uint32_t field, uint32_t *out_x);

#endif
