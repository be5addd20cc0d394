/*
 * sparse.h - one changed element, as both directions of `sparse` see it (SPEC.md section 7, T = 1).
 */
#ifndef TPD_CODEC_SPARSE_H
#define TPD_CODEC_SPARSE_H

#include "base/bytes.h"
#include "base/tpd.h"
#include "codec/grid_kernel.h"

TPD_INLINE uint32_t sparse_load(const uint8_t *p, size_t i, const unsigned width)
{
	return width == 4 ? tpd_get_u32(p + i * 4) : width == 2 ? tpd_get_u16(p + i * 2) : p[i];
}

/* At T = 1 every float counts in its own ulps: Q is |x|, or -1 - |x|.  The map is its own inverse. */
TPD_INLINE uint32_t sparse_q(uint32_t x, const unsigned width, const bool is_float)
{
	const uint32_t magnitude = (UINT32_C(1) << (8 * width - 1)) - 1;

	return is_float ? x ^ (magnitude & (0u - (x >> (8 * width - 1)))) : x;
}

TPD_INLINE int32_t sparse_difference(uint32_t x, uint32_t p, const unsigned width, const bool is_float)
{
	uint32_t d = sparse_q(x, width, is_float) - sparse_q(p, width, is_float);

	return (int32_t)(d << (32 - 8 * width)) >> (32 - 8 * width);
}

#endif
