/*
 * rounding.h - F32 to BF16 and F16 as a framework rounds a master copy: to nearest, ties to even, on bit patterns; and back, exactly.
 *
 * NaN stays NaN (its high bits, made quiet); PyTorch makes every NaN 0x7fc0 on some paths, so what holds NaNs may not be recognised
 * as a rounding, and nothing more. Source: c10/util/BFloat16.h and Half.h of PyTorch 2.13; tests go through every F16 and BF16.
 */
#ifndef TPD_CODEC_ROUNDING_H
#define TPD_CODEC_ROUNDING_H

#include "base/tpd.h"

#include <string.h>

static inline uint16_t tpd_round_bf16(uint32_t bits)
{
	if ((bits & 0x7fffffffu) > 0x7f800000u)
		return (uint16_t)(bits >> 16 | 0x40u);
	return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

static inline uint16_t tpd_round_f16(uint32_t bits)
{
	uint32_t sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu, exponent = magnitude >> 23;

	if (magnitude > 0x7f800000u)
		return (uint16_t)(sign | 0x7e00u | (magnitude >> 13 & 0x3ffu));
	if (magnitude >= 0x477ff000u) /* 65520 and more: infinite */
		return (uint16_t)(sign | 0x7c00u);
	if (exponent < 113) { /* below 2^-14: denormal, or zero */
		uint32_t shift = 126 - exponent, significand = (magnitude & 0x7fffffu) | 0x800000u, half, low;

		if (shift > 24)
			return (uint16_t)sign;
		half = significand >> shift;
		low = significand & ((1u << shift) - 1);
		half += low > 1u << (shift - 1) || (low == 1u << (shift - 1) && (half & 1u));
		return (uint16_t)(sign | half);
	}
	magnitude -= 112u << 23;
	return (uint16_t)(sign | (magnitude + 0xfffu + (magnitude >> 13 & 1u)) >> 13);
}

/* n F32 at `bytes` become n of the other type there. */
static inline void tpd_round_in_place(uint8_t *bytes, size_t n, bool is_bf16)
{
	for (size_t i = 0; i < n; i++) {
		uint32_t bits;
		uint16_t half;

		memcpy(&bits, bytes + 4 * i, 4);
		half = is_bf16 ? tpd_round_bf16(bits) : tpd_round_f16(bits);
		memcpy(bytes + 2 * i, &half, 2);
	}
}

static inline uint32_t tpd_widen_bf16(uint16_t half)
{
	return (uint32_t)half << 16;
}

/* The same value; of a NaN the bits that it has, and zeros. */
static inline uint32_t tpd_widen_f16(uint16_t half)
{
	uint32_t sign = (half & 0x8000u) << 16, exponent = half >> 10 & 0x1fu, fraction = half & 0x3ffu;

	if (exponent == 0x1fu)
		return sign | 0x7f800000u | fraction << 13;
	if (exponent == 0) { /* denormal, or zero: every one of them is a normal F32 */
		if (fraction == 0)
			return sign;
		for (exponent = 1; !(fraction & 0x400u); exponent--)
			fraction <<= 1;
		fraction &= 0x3ffu;
	}
	return sign | (exponent + 112u) << 23 | fraction << 13;
}

/* n of the other type at `bytes` become n F32 there. */
static inline void tpd_widen_in_place(uint8_t *bytes, size_t n, bool is_bf16)
{
	for (size_t i = n; i-- > 0;) { /* from the end on: none is written over before it was read */
		uint32_t bits;
		uint16_t half;

		memcpy(&half, bytes + 2 * i, 2);
		bits = is_bf16 ? tpd_widen_bf16(half) : tpd_widen_f16(half);
		memcpy(bytes + 4 * i, &bits, 4);
	}
}

#endif
