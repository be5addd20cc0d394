/*
 * grid.c - the grid on one pattern (grid.h), and T.
 *
 * The pure functions of grid.h use the integer definition for every T; the kernels use
 * grid_kernel.h's faster one where it holds.  Tests compare them on all patterns.
 */
#include "base/tpd.h"

#include "codec/grid.h"

#include "codec/grid_kernel.h"
#include "codec/kernels_internal.h"

bool tpd_grid_type(enum tpd_dtype dtype, struct tpd_grid_type *out_type)
{
	switch (dtype) {
	case TPD_DTYPE_F32:
		*out_type = TYPE_F32;
		return true;
	case TPD_DTYPE_BF16:
		*out_type = TYPE_BF16;
		return true;
	case TPD_DTYPE_F16:
		*out_type = TYPE_F16;
		return true;
	default:
		return false;
	}
}

/* ---- one pattern ---- */

unsigned tpd_grid_field_bits(const struct tpd_grid_type *type, int64_t q, unsigned t)
{
	struct grid_step step = step_of(*type, t);

	return (unsigned)fine_bits(*type, &step, (int32_t)(q < 0 ? -1 - q : q));
}

int64_t tpd_grid_q(const struct tpd_grid_type *type, uint32_t x, unsigned t, uint32_t *out_field, unsigned *out_bits)
{
	struct grid_step step = step_of(*type, t);
	int64_t q = fine_q(*type, &step, x);

	*out_bits = tpd_grid_field_bits(type, q, t);
	*out_field = (uint32_t)(x & ((UINT64_C(1) << *out_bits) - 1));
	return q;
}

bool tpd_grid_unq(const struct tpd_grid_type *type, int64_t q, unsigned t, uint32_t field, uint32_t *out_x)
{
	struct grid_step step = step_of(*type, t);
	int64_t g = q < 0 ? -1 - q : q;
	unsigned bits = tpd_grid_field_bits(type, q, t);
	uint64_t magnitude;

	if (g >> (type->width - 1) != 0 || field >> 1 >> (bits > 0 ? bits - 1 : 0) != 0 || (bits == 0 && field != 0))
		return false;
	if (g >= 1 << type->mantissa)
		magnitude = (uint64_t)g + (uint32_t)step.base;
	else if (g > 0)
		magnitude = ((uint64_t)(t - bits - 1) << type->mantissa) + ((uint64_t)g << bits | field);
	else
		magnitude = field;
	if (magnitude >> (type->width - 1) != 0 || (g == 0 && magnitude >= step.below))
		return false;
	*out_x = (uint32_t)magnitude | (q < 0 ? UINT32_C(1) << (type->width - 1) : 0);
	return true;
}

/* ---- T of a piece ---- */

unsigned tpd_grid_t_of_exponent(const struct tpd_grid_type *type, unsigned exponent, unsigned bias)
{
	int t = (int)exponent + (int)type->mantissa - (int)bias - (type->mantissa == 10 ? 112 : 0);

	return t < 1 ? 1 : t > (int)type->t_max ? type->t_max : (unsigned)t;
}

unsigned tpd_grid_t_of_counts(const struct tpd_grid_type *type, const uint8_t *exponents, size_t n,
			      unsigned (*count_up_to)(const uint8_t *exponents, size_t n, uint8_t most), unsigned bias)
{
	unsigned total = count_up_to(exponents, n, TPD_EXPONENT_NONE - 1), low = 0, high = TPD_EXPONENT_NONE - 1;

	if (total == 0)
		return 1;
	while (low < high) {
		unsigned middle = (low + high) / 2;

		if (count_up_to(exponents, n, (uint8_t)middle) >= (total + 1) / 2)
			high = middle;
		else
			low = middle + 1;
	}
	return tpd_grid_t_of_exponent(type, low, bias);
}
