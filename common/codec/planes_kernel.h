/*
 * planes_kernel.h - elements to byte planes and back, SPEC.md section 6, in plain C: compiled once for each kind of CPU.
 *
 * One loop for each width; the rotation costs two shifts, so that F32's and BF16's exponent fills one plane.
 */
#ifndef TPD_CODEC_PLANES_KERNEL_H
#define TPD_CODEC_PLANES_KERNEL_H

#include "base/bytes.h"
#include "base/tpd.h"

#include <string.h>

static inline __attribute__((always_inline)) uint64_t plane_load(const uint8_t *p, const unsigned width)
{
	return width == 8 ? tpd_get_u64(p) : width == 4 ? tpd_get_u32(p) : width == 2 ? tpd_get_u16(p) : *p;
}

static inline __attribute__((always_inline)) void plane_split(const uint8_t *x, size_t n, const unsigned width,
							const unsigned left, uint8_t *planes)
{
	for (size_t i = 0; i < n; i++) {
		uint64_t v = plane_load(x + i * width, width);

		v = left ? v << left | v >> (8 * width - left) : v;
		for (unsigned b = 0; b < width; b++)
			planes[b * n + i] = (uint8_t)(v >> 8 * b);
	}
}

static inline __attribute__((always_inline)) void plane_join(const uint8_t *const *planes, size_t n, const unsigned width,
						       const unsigned right, uint8_t *out)
{
	const uint8_t *from[8];

	for (unsigned b = 0; b < width; b++)
		from[b] = planes[b];
	for (size_t i = 0; i < n; i++) {
		uint64_t v = 0;

		for (unsigned b = 0; b < width; b++)
			v |= (uint64_t)from[b][i] << 8 * b;
		v = right ? v >> right | v << (8 * width - right) : v;
		if (width == 8)
			tpd_put_u64(out + i * 8, v);
		else if (width == 4)
			tpd_put_u32(out + i * 4, (uint32_t)v);
		else
			tpd_put_u16(out + i * 2, (uint16_t)v);
	}
}

static inline void planes_split(const uint8_t *x, size_t n, unsigned width, bool rotate, uint8_t *planes)
{
	switch (width) {
	case 8:
		if (rotate)
			plane_split(x, n, 8, 1, planes);
		else
			plane_split(x, n, 8, 0, planes);
		return;
	case 4:
		if (rotate)
			plane_split(x, n, 4, 1, planes);
		else
			plane_split(x, n, 4, 0, planes);
		return;
	case 2:
		if (rotate)
			plane_split(x, n, 2, 1, planes);
		else
			plane_split(x, n, 2, 0, planes);
		return;
	default:
		if (n > 0)
			memcpy(planes, x, n);
	}
}

static inline void planes_join(const uint8_t *const *planes, size_t n, unsigned width, bool rotate, uint8_t *out)
{
	switch (width) {
	case 8:
		if (rotate)
			plane_join(planes, n, 8, 1, out);
		else
			plane_join(planes, n, 8, 0, out);
		return;
	case 4:
		if (rotate)
			plane_join(planes, n, 4, 1, out);
		else
			plane_join(planes, n, 4, 0, out);
		return;
	case 2:
		if (rotate)
			plane_join(planes, n, 2, 1, out);
		else
			plane_join(planes, n, 2, 0, out);
		return;
	default:
		if (n > 0)
			memcpy(out, planes[0], n);
	}
}

#endif
