/*
 * planes.c - elements to byte planes and back, SPEC.md section 6.
 *
 * One loop for each width; the rotation costs two shifts, so that F32's and BF16's exponent fills one plane.
 */
#include "base/tpd.h"

#include <string.h>

#include "codec/internal.h"

bool tpd_planes_may_rotate(enum tpd_dtype dtype)
{
	return dtype == TPD_DTYPE_F32 || dtype == TPD_DTYPE_F16 || dtype == TPD_DTYPE_BF16 || dtype == TPD_DTYPE_F64;
}

static inline __attribute__((always_inline)) uint64_t load(const uint8_t *p, const unsigned width)
{
	return width == 8 ? tpd_get_u64(p) : width == 4 ? tpd_get_u32(p) : width == 2 ? tpd_get_u16(p) : *p;
}

static inline __attribute__((always_inline)) void split(const uint8_t *x, size_t n, const unsigned width,
							const unsigned left, uint8_t *planes)
{
	for (size_t i = 0; i < n; i++) {
		uint64_t v = load(x + i * width, width);

		v = left ? v << left | v >> (8 * width - left) : v;
		for (unsigned b = 0; b < width; b++)
			planes[b * n + i] = (uint8_t)(v >> 8 * b);
	}
}

static inline __attribute__((always_inline)) void join(const uint8_t *planes, size_t n, const unsigned width,
						       const unsigned right, uint8_t *out)
{
	for (size_t i = 0; i < n; i++) {
		uint64_t v = 0;

		for (unsigned b = 0; b < width; b++)
			v |= (uint64_t)planes[b * n + i] << 8 * b;
		v = right ? v >> right | v << (8 * width - right) : v;
		if (width == 8)
			tpd_put_u64(out + i * 8, v);
		else if (width == 4)
			tpd_put_u32(out + i * 4, (uint32_t)v);
		else
			tpd_put_u16(out + i * 2, (uint16_t)v);
	}
}

void tpd_planes_split(const uint8_t *x, size_t n, unsigned width, bool rotate, uint8_t *planes)
{
	switch (width) {
	case 8:
		if (rotate)
			split(x, n, 8, 1, planes);
		else
			split(x, n, 8, 0, planes);
		return;
	case 4:
		if (rotate)
			split(x, n, 4, 1, planes);
		else
			split(x, n, 4, 0, planes);
		return;
	case 2:
		if (rotate)
			split(x, n, 2, 1, planes);
		else
			split(x, n, 2, 0, planes);
		return;
	default:
		if (n > 0)
			memcpy(planes, x, n);
	}
}

void tpd_planes_join(const uint8_t *planes, size_t n, unsigned width, bool rotate, uint8_t *out)
{
	switch (width) {
	case 8:
		if (rotate)
			join(planes, n, 8, 1, out);
		else
			join(planes, n, 8, 0, out);
		return;
	case 4:
		if (rotate)
			join(planes, n, 4, 1, out);
		else
			join(planes, n, 4, 0, out);
		return;
	case 2:
		if (rotate)
			join(planes, n, 2, 1, out);
		else
			join(planes, n, 2, 0, out);
		return;
	default:
		if (n > 0)
			memcpy(out, planes, n);
	}
}
