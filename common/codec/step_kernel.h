/*
 * step_kernel.h - the loops of step.c in plain C, which every form of the kernels compiles with its own instruction sets. SPEC.md section
 * 14.
 */
#ifndef TPD_CODEC_STEP_KERNEL_H
#define TPD_CODEC_STEP_KERNEL_H

#include <math.h>

#include "base/bytes.h"
#include "base/tpd.h"
#include "codec/grid_kernel.h"
#include "codec/rounding.h"

#ifdef __FAST_MATH__
#error "a step needs IEEE arithmetic"
#endif

/* F16 as F32, exactly; NaN stays NaN. */
TPD_INLINE float step_widen_f16(uint32_t bits)
{
	uint32_t magnitude = bits & 0x7fff, sign = (bits & 0x8000) << 16;
	uint32_t special = 0x7f800000u | (magnitude & 0x3ff) << 13, finite = bits_of(float_of(magnitude << 13) * 0x1p112f); /* exact */

	return float_of(sign | (magnitude >= 0x7c00 ? special : finite));
}

static void step_widen(enum tpd_dtype dtype, const uint8_t *p, size_t n, float *out)
{
	if (dtype == TPD_DTYPE_BF16)
		for (size_t i = 0; i < n; i++)
			out[i] = float_of((uint32_t)tpd_get_u16(p + 2 * i) << 16);
	else
		for (size_t i = 0; i < n; i++)
			out[i] = step_widen_f16(tpd_get_u16(p + 2 * i));
}

/* The square root of what part of v2 is more than v1, with the sign of m2. */
static void step_jump(const float *m2, const float *v1, const float *v2, size_t n, float *out)
{
	for (size_t i = 0; i < n; i++) {
		const bool grew = v2[i] > 0 && v2[i] > v1[i];
		float whole = grew ? v2[i] : 1, part = grew ? v1[i] : 1;
		float jump = sqrtf((whole - part) / whole);

		out[i] = float_of(bits_of(jump) | (bits_of(m2[i]) & 0x80000000u));
	}
}

static void step_target(enum tpd_dtype dtype, const float *w1, const float *steps, const uint8_t *p, size_t n, uint8_t *out)
{
	if (dtype == TPD_DTYPE_BF16)
		for (size_t i = 0; i < n; i++) {
			uint32_t sum = bits_of(w1[i] + steps[i]), old = tpd_get_u16(p + 2 * i);
			uint32_t to = (sum + 0x7fff + (sum >> 16 & 1)) >> 16;
			/* The sum, and what it is rounded to, must be finite; NaN may be rounded to anything. */
			uint32_t good = (uint32_t)((sum & 0x7f800000u) != 0x7f800000u) & (uint32_t)((to & 0x7f80) != 0x7f80);

			tpd_put_u16(out + 2 * i, (uint16_t)(good ? to : old));
		}
	else
		for (size_t i = 0; i < n; i++) {
			uint32_t to = tpd_round_f16(bits_of(w1[i] + steps[i])), old = tpd_get_u16(p + 2 * i);

			tpd_put_u16(out + 2 * i, (uint16_t)((to & 0x7c00) != 0x7c00 ? to : old));
		}
}

static void step_mirror(const float *steps, size_t n, uint8_t *symbols)
{
	for (size_t i = 0; i < n; i++) {
		uint32_t symbol = symbols[i], mirrored = 2 * TPD_SYMBOL_MIDDLE - symbol;
		uint32_t down = (uint32_t)(steps[i] < 0) & (uint32_t)(symbol >= TPD_SYMBOL_FIRST);

		symbols[i] = (uint8_t)(down ? mirrored : symbol);
	}
}

static void step_choose(const uint8_t *symbols, const uint8_t *p, const uint8_t *predicted, size_t n, uint8_t *out)
{
	for (size_t i = 0; i < n; i++) {
		uint32_t old = tpd_get_u16(p + 2 * i), to = tpd_get_u16(predicted + 2 * i);

		tpd_put_u16(out + 2 * i, (uint16_t)(symbols[i] == TPD_SYMBOL_EQUAL ? old : to));
	}
}

#endif
