/*
 * scaled_kernel.h - the loops of encoding `scaled` (SPEC.md section 11) in plain C, which every form of the kernels compiles with its own
 * instruction sets. Each element has a T of its own, so all that follows from T is made anew for each: shifts by a variable, and powers of two
 * put together from their exponents. T = 0 stands for "in own ulps".
 */
#ifndef TPD_CODEC_SCALED_KERNEL_H
#define TPD_CODEC_SCALED_KERNEL_H

#include "base/tpd.h"
#include "codec/fields.h"
#include "codec/grid_kernel.h"
#include "codec/predict_kernel.h"
#include "codec/rounding.h"

#include <string.h>

#ifdef __FAST_MATH__
#error "a scale needs IEEE arithmetic"
#endif

/* Symbols: escape, equal and zero as in section 7, then these. */
#define SCALED_FIRST 3
#define SCALED_MIDDLE 111 /* d = 0 */
#define SCALED_SMALL 220  /* |x| is below the step: 2 j + sign, F = T - M - 1 - j */
#define SCALED_EXPONENTS 18

#define SCALED_BLOCK 256u

/* The type's pattern i of an array, as F32 bits. */
TPD_INLINE uint32_t scaled_widen(const struct tpd_grid_type type, const uint8_t *from, size_t i)
{
	uint32_t wide;
	uint16_t half;

	if (type.width == 32) {
		memcpy(&wide, from + 4 * i, 4);
		return TPD_LE32(wide);
	}
	memcpy(&half, from + 2 * i, 2);
	return (uint32_t)TPD_LE16(half) << 16;
}

TPD_INLINE float scaled_input(const uint8_t *from, size_t i)
{
	return float_of(scaled_widen(TYPE_F32, from, i));
}

/* factor * p in the type, as F32 bits; p itself where that is not finite. */
TPD_INLINE uint32_t scaled_multiple(const struct tpd_grid_type type, uint32_t p, float factor)
{
	const float f = factor * float_of(p);
	const uint32_t bits = type.width == 32 ? bits_of(f) : (uint32_t)tpd_round_bf16(bits_of(f)) << 16;

	return f - f == 0 ? bits : p;
}

/*
 * Eighths of an octave of what the elements are expected to differ by, from 0 where nothing says so: of s = max(v2 - share * v1, 0) + v2 / 64, of
 * which the root is taken by counting octaves half. v1: NULL: none.
 */
static inline void scaled_scale(const uint8_t *v2, const uint8_t *v1, float share, size_t n, int16_t *out)
{
	for (size_t i = 0; i < n; i++) {
		float v = scaled_input(v2, i), s;
		uint32_t bits;

		v = v > 0 ? v : 0;
		s = v1 ? v - share * scaled_input(v1, i) : v;
		s = (s > 0 ? s : 0) + v * 0.015625f;
		bits = bits_of(s) & (0u - (uint32_t)(s - s == 0)); /* infinite: nothing is said */
		out[i] = (int16_t)(bits >> 21);
	}
}

TPD_INLINE void scaled_predict_type(const struct tpd_grid_type type, const uint8_t *p, float factor, size_t n, uint8_t *out)
{
	for (size_t i = 0; i < n; i++) {
		uint32_t bits = scaled_multiple(type, scaled_widen(type, p, i), factor), wide = TPD_LE32(bits);
		uint16_t half = TPD_LE16((uint16_t)(bits >> 16));

		if (type.width == 32)
			memcpy(out + 4 * i, &wide, 4);
		else
			memcpy(out + 2 * i, &half, 2);
	}
}

static inline void scaled_predict(enum tpd_dtype dtype, const uint8_t *p, float factor, size_t n, uint8_t *out)
{
	if (dtype == TPD_DTYPE_F32)
		scaled_predict_type(TYPE_F32, p, factor, n, out);
	else
		scaled_predict_type(TYPE_BF16, p, factor, n, out);
}

/* From K = base + scale + column to T and the class, K / 4 modulo 2; how many are of class 1. scale, columns: may be NULL. */
static inline size_t scaled_steps(enum tpd_dtype dtype, int base, const int16_t *scale, const uint8_t *columns, size_t n, uint8_t *steps,
				  uint8_t *classes)
{
	const int low = dtype == TPD_DTYPE_F32 ? 24 : 8, high = 254;
	uint32_t odd = 0;

	for (size_t i = 0; i < n; i++) {
		int k = base + (scale ? scale[i] : 0) + (columns ? columns[i] - 128 : 0), t = k >> 3;

		t = t < low ? low : t;
		steps[i] = (uint8_t)(t > high ? high : t);
		classes[i] = (uint8_t)(k >> 2 & 1);
		odd += (uint32_t)(k >> 2 & 1);
	}
	return odd;
}

/* --- what the encoder asks of a piece --- */

TPD_INLINE void scaled_quotients_type(const struct tpd_grid_type type, const uint8_t *x, const uint8_t *p, size_t n, float *out)
{
	for (size_t i = 0; i < n; i++) {
		float q = float_of(scaled_widen(type, x, i)) / float_of(scaled_widen(type, p, i)); /* also by 0: then it is not finite */

		out[i] = ((q > 0) & (q - q == 0)) ? q : 0;
	}
}

/* x / p, 0 where that is not positive and finite. */
static inline void scaled_quotients(enum tpd_dtype dtype, const uint8_t *x, const uint8_t *p, size_t n, float *out)
{
	if (dtype == TPD_DTYPE_F32)
		scaled_quotients_type(TYPE_F32, x, p, n, out);
	else
		scaled_quotients_type(TYPE_BF16, x, p, n, out);
}

TPD_INLINE uint32_t scaled_far_type(const struct tpd_grid_type type, const uint8_t *x, const uint8_t *p, float factor, uint32_t ulps, size_t n)
{
	uint32_t far = 0;

	for (size_t i = 0; i < n; i++) {
		uint32_t d = scaled_widen(type, x, i) - scaled_multiple(type, scaled_widen(type, p, i), factor);

		far += (uint32_t)(d + (ulps << (32 - type.width)) > ulps << (33 - type.width));
	}
	return far;
}

/* Elements that are more than so many patterns away from factor * p. */
static inline size_t scaled_far(enum tpd_dtype dtype, const uint8_t *x, const uint8_t *p, float factor, unsigned ulps, size_t n)
{
	if (dtype == TPD_DTYPE_F32)
		return scaled_far_type(TYPE_F32, x, p, factor, ulps, n);
	return scaled_far_type(TYPE_BF16, x, p, factor, ulps, n);
}

TPD_INLINE void scaled_learn_type(const struct tpd_grid_type type, const uint8_t *x, const uint8_t *p, const uint8_t *v2, size_t n, double sums[2])
{
	double lanes[2][PREDICT_LANES] = {{0}};
	float new[SCALED_BLOCK], old[SCALED_BLOCK], weighted[SCALED_BLOCK];

	for (size_t start = 0; start < n; start += SCALED_BLOCK) {
		const size_t len = TPD_MIN(n - start, (size_t)SCALED_BLOCK);

		for (size_t i = 0; i < len; i++) {
			float v = scaled_input(v2, start + i), safe = v > 0 ? v : 1, w;

			new[i] = float_of(scaled_widen(type, x, start + i));
			old[i] = float_of(scaled_widen(type, p, start + i));
			w = old[i] / safe;
			weighted[i] = v > 0 ? w : 0;
		}
		add_products(weighted, old, len, lanes[0]);
		add_products(weighted, new, len, lanes[1]);
	}
	for (unsigned k = 0; k < 2; k++)
		sums[k] = sum_of_lanes(lanes[k]);
}

/* Sums of w p and w x, w = p / v2, 0 where v2 is not above 0; lanes as in predict_products(). */
static inline void scaled_learn(enum tpd_dtype dtype, const uint8_t *x, const uint8_t *p, const uint8_t *v2, size_t n, double sums[2])
{
	if (dtype == TPD_DTYPE_F32)
		scaled_learn_type(TYPE_F32, x, p, v2, n, sums);
	else
		scaled_learn_type(TYPE_BF16, x, p, v2, n, sums);
}

TPD_INLINE size_t scaled_measure_type(const struct tpd_grid_type type, const uint8_t *x, const uint8_t *p, float factor, const int16_t *scale,
				      size_t n, int16_t *logs, int32_t *sum)
{
	int32_t total = 0, count = 0;

	for (size_t i = 0; i < n; i++) {
		float q = float_of(scaled_multiple(type, scaled_widen(type, p, i), factor)), off = float_of(scaled_widen(type, x, i)) - q;
		int32_t magnitude = (int32_t)(bits_of(off) & 0x7fffffffu), log = (magnitude >> 20) - (scale ? scale[i] : 0);
		int32_t good = -(int32_t)((magnitude > 0) & (magnitude < 0x7f800000));

		logs[i] = (int16_t)((log & good) | (INT16_MIN & ~good));
		total += log & good;
		count -= good;
	}
	*sum = total;
	return (size_t)count;
}

/*
 * Eighths of octaves of |x - prediction|, less what the scale says (NULL: nothing); INT16_MIN where they are equal or it is not finite. Returns
 * how many others there are, and their sum.
 */
static inline size_t scaled_measure(enum tpd_dtype dtype, const uint8_t *x, const uint8_t *p, float factor, const int16_t *scale, size_t n,
				    int16_t *logs, int32_t *sum)
{
	if (dtype == TPD_DTYPE_F32)
		return scaled_measure_type(TYPE_F32, x, p, factor, scale, n, logs, sum);
	return scaled_measure_type(TYPE_BF16, x, p, factor, scale, n, logs, sum);
}

/* Each column's sum of what is left of the logarithms without the mean, and of how many. */
static inline void scaled_columns(const int16_t *logs, int mean, size_t n, int32_t *sums, int32_t *counts)
{
	for (size_t i = 0; i < n; i++) {
		int32_t good = -(int32_t)(logs[i] != INT16_MIN);

		sums[i] += (logs[i] - mean) & good;
		counts[i] -= good;
	}
}

/* --- symbols by class --- */

/* n symbols from the streams of class 0 and 1; returns how many the second gave. May read up to 64 bytes behind both. */
static inline size_t scaled_deal(const uint8_t *classes, size_t n, const uint8_t *even, const uint8_t *odd, uint8_t *out)
{
	size_t taken = 0;

	for (size_t i = 0; i < n; i++) {
		const uint8_t a = even[i - taken], b = odd[taken], mask = (uint8_t)(0u - classes[i]); /* no branch */

		out[i] = (uint8_t)(a ^ ((a ^ b) & mask));
		taken += classes[i];
	}
	return taken;
}

/* The way back. May write up to 8 bytes behind both. */
static inline size_t scaled_sort(const uint8_t *classes, const uint8_t *symbols, size_t n, uint8_t *even, uint8_t *odd)
{
	size_t given = 0;

	for (size_t i = 0; i < n; i++) {
		even[i - given] = symbols[i];
		odd[given] = symbols[i];
		given += classes[i];
	}
	return given;
}

/* --- one element --- */

struct scaled_step {
	int32_t t, base, limit;
	float scale;
};

TPD_INLINE struct scaled_step scaled_step_of(const struct tpd_grid_type type, uint8_t step)
{
	const int32_t t = step, coarse = t > 0 ? t : 1;

	return (struct scaled_step){
		.t = t,
		.base = (coarse - 1) << type.mantissa,
		.limit = t << type.mantissa,
		.scale = float_of((uint32_t)(254 + (int32_t)type.mantissa - (t > (int32_t)type.mantissa ? t : 254)) << 23),
	};
}

/* G of a magnitude. */
TPD_INLINE int32_t scaled_g(const struct tpd_grid_type type, const struct scaled_step *step, int32_t magnitude)
{
	int32_t inside = mask_less(magnitude, step->limit);
	float value = float_of((uint32_t)(magnitude & inside) << (23 - type.mantissa)) * step->scale;

	return (int32_t)value | (~inside & (magnitude - step->base));
}

TPD_INLINE int32_t scaled_magnitude(const struct tpd_grid_type type, uint32_t x)
{
	return (int32_t)(x & ((UINT32_C(1) << (type.width - 1)) - 1));
}

TPD_INLINE void scaled_block_symbols(const struct tpd_grid_type type, const uint8_t *steps, const uint32_t x[TPD_BLOCK],
				     const uint32_t p[TPD_BLOCK], uint32_t symbols[TPD_BLOCK], uint32_t bits[TPD_BLOCK],
				     uint32_t values[TPD_BLOCK])
{
	const int32_t m = (int32_t)type.mantissa;

	for (unsigned j = 0; j < TPD_BLOCK; j++) {
		const struct scaled_step step = scaled_step_of(type, steps[j]);
		int32_t magnitude = scaled_magnitude(type, x[j]), field = magnitude >> m;
		int32_t g = scaled_g(type, &step, magnitude), g_p = scaled_g(type, &step, scaled_magnitude(type, p[j]));
		int32_t q = g ^ sign_mask(type, x[j]), q_p = g_p ^ sign_mask(type, p[j]);
		int32_t d = (int32_t)((uint32_t)wrap(type, (uint32_t)q - (uint32_t)q_p) + SCALED_MIDDLE);
		int32_t off = step.t - m - 1 - field; /* j, where G is 0 */
		int32_t nothing = -(int32_t)(g == 0), has_steps = -(int32_t)(step.t > 0);
		int32_t small = nothing & has_steps & -(int32_t)(field > 0) & -(int32_t)(off < SCALED_EXPONENTS);
		int32_t coded = -(int32_t)(d >= SCALED_FIRST) & mask_less(d, SCALED_SMALL) & ~(nothing & has_steps);
		int32_t equal = -(int32_t)(x[j] == p[j]), zero = -(int32_t)(x[j] == 0) & ~equal;
		int32_t inside = mask_less(magnitude, step.limit), told = ~equal & ~zero;
		int32_t remain = (step.t - field) & inside;
		int32_t sign = sign_mask(type, x[j]) & 1;
		int32_t symbol = (d & coded) | ((SCALED_SMALL + 2 * off + sign) & small);
		int32_t width = (remain & coded) | (m & small) | ((int32_t)type.width & ~coded & ~small);
		int32_t low = magnitude & (int32_t)((UINT32_C(1) << (remain & coded & 31)) - 1);

		low = (low & coded) | (magnitude & ((1 << m) - 1) & small) | ((int32_t)x[j] & ~coded & ~small);
		bits[j] = (uint32_t)(width & told);
		values[j] = (uint32_t)(low & told);
		symbols[j] = (uint32_t)((symbol & told) | (TPD_SYMBOL_EQUAL & equal) | (TPD_SYMBOL_ZERO & zero));
	}
}

/* From p and the symbols: G with its sign, and how many bits to ask for. */
TPD_INLINE void scaled_block_demand(const struct tpd_grid_type type, const uint8_t *steps, const uint32_t p[TPD_BLOCK],
				    const uint32_t symbols[TPD_BLOCK], int32_t q[TPD_BLOCK], uint32_t bits[TPD_BLOCK])
{
	const int32_t m = (int32_t)type.mantissa;

	for (unsigned j = 0; j < TPD_BLOCK; j++) {
		const struct scaled_step step = scaled_step_of(type, steps[j]);
		int32_t g_p = scaled_g(type, &step, scaled_magnitude(type, p[j])), symbol = (int32_t)symbols[j];
		int32_t v = wrap(type, (uint32_t)(g_p ^ sign_mask(type, p[j])) + symbols[j] - SCALED_MIDDLE), g = v ^ (v >> 31);
		int32_t small = -(int32_t)(symbol >= SCALED_SMALL), coded = -(int32_t)(symbol >= SCALED_FIRST) & ~small;
		int32_t escape = -(int32_t)(symbol == TPD_SYMBOL_ESCAPE), has_steps = -(int32_t)(step.t > 0);
		int32_t log = (int32_t)(bits_of((float)g) >> 23) - 127;
		int32_t remain = (m - log) & mask_less(g, 1 << m) & has_steps & -(int32_t)(g > 0);

		q[j] = v;
		bits[j] = (uint32_t)((remain & coded) | (m & small) | ((int32_t)type.width & escape));
	}
}

/* wrong[j] becomes not 0 where there is no such element. */
TPD_INLINE void scaled_block_patterns(const struct tpd_grid_type type, const uint8_t *steps, const uint32_t p[TPD_BLOCK],
				      const uint32_t symbols[TPD_BLOCK], const int32_t q[TPD_BLOCK], const uint32_t values[TPD_BLOCK],
				      uint32_t x[TPD_BLOCK], uint32_t wrong[TPD_BLOCK])
{
	const int32_t m = (int32_t)type.mantissa;
	const uint32_t top = UINT32_C(1) << (type.width - 1);

	for (unsigned j = 0; j < TPD_BLOCK; j++) {
		const struct scaled_step step = scaled_step_of(type, steps[j]);
		int32_t symbol = (int32_t)symbols[j], sign = q[j] >> 31, g = q[j] ^ sign;
		uint32_t small = 0u - (uint32_t)(symbol >= SCALED_SMALL), coded = 0u - (uint32_t)(symbol >= SCALED_FIRST);
		uint32_t equal = 0u - (uint32_t)(symbol == TPD_SYMBOL_EQUAL), has_steps = 0u - (uint32_t)(step.t > 0);
		uint32_t large = (uint32_t)~mask_less(g, 1 << m) | ~has_steps;
		int32_t log = (int32_t)(bits_of((float)(g | 1)) >> 23) - 127, k = m - log;
		int32_t field = step.t - m - 1 - ((symbol - SCALED_SMALL) >> 1); /* of a small one */
		uint32_t inner = ((uint32_t)(step.t - k - 1) << m) + ((uint32_t)g << (k & 31)) + values[j];
		uint32_t far = (uint32_t)g + (uint32_t)step.base;
		uint32_t magnitude = (inner & ~large) | (far & large), little = ((uint32_t)field << m) + values[j];

		coded &= ~small;
		/* On the grid, G = 0 has symbols of its own. */
		wrong[j] |= coded & (magnitude >> (type.width - 1) | (has_steps & (0u - (uint32_t)(g == 0))));
		wrong[j] |= small & (~has_steps | (0u - (uint32_t)(field < 1)));
		magnitude |= (uint32_t)sign & top;
		little |= (0u - ((uint32_t)symbol & 1)) & top;
		x[j] = (magnitude & coded) | (little & small) | (((values[j] & ~equal) | (p[j] & equal)) & ~coded & ~small);
	}
}

/* --- pieces of any length: the last block is padded with what is equal --- */

TPD_INLINE void scaled_encode_type(const struct tpd_grid_type type, const uint8_t *steps, const uint8_t *x, const uint8_t *p, size_t n,
				   uint8_t *symbols, uint32_t *values, uint8_t *bits)
{
	const size_t width = type.width / 8;

	for (size_t i = 0; i < n; i += TPD_BLOCK) {
		uint32_t new[TPD_BLOCK], old[TPD_BLOCK], found[TPD_BLOCK], these[TPD_BLOCK], remain[TPD_BLOCK];
		const size_t count = TPD_MIN(n - i, (size_t)TPD_BLOCK);
		uint8_t narrow[TPD_BLOCK] = {0}, own[TPD_BLOCK] = {0};
		struct block_pad pad;

		memcpy(own, steps + i, count);
		if (count < TPD_BLOCK) {
			pad_block(type, x + i * width, count, pad.x);
			pad_block(type, p + i * width, count, pad.p);
		}
		load_block(type, count < TPD_BLOCK ? pad.x : x + i * width, new);
		load_block(type, count < TPD_BLOCK ? pad.p : p + i * width, old);
		scaled_block_symbols(type, own, new, old, found, remain, these);
		for (unsigned j = 0; j < TPD_BLOCK; j++) {
			narrow[j] = (uint8_t)found[j];
			bits[i + j] = (uint8_t)remain[j];
		}
		memcpy(values + i, these, sizeof(these));
		memcpy(symbols + i, narrow, count);
	}
}

TPD_INLINE bool scaled_decode_type(const struct tpd_grid_type type, const uint8_t *steps, const uint8_t *p, const uint8_t *symbols, size_t n,
				   uint8_t *out, struct tpd_fields_in *fields)
{
	const size_t width = type.width / 8;
	uint32_t wrong[TPD_BLOCK] = {0}, any = 0;

	for (size_t i = 0; i < n; i += TPD_BLOCK) {
		uint32_t old[TPD_BLOCK], found[TPD_BLOCK], bits[TPD_BLOCK], values[TPD_BLOCK], new[TPD_BLOCK];
		const size_t count = TPD_MIN(n - i, (size_t)TPD_BLOCK);
		uint8_t own[TPD_BLOCK] = {0};
		int32_t q[TPD_BLOCK];
		struct block_pad pad;

		memset(pad.symbols, TPD_SYMBOL_EQUAL, TPD_BLOCK);
		memcpy(pad.symbols, symbols + i, count);
		memcpy(own, steps + i, count);
		if (count < TPD_BLOCK)
			pad_block(type, p + i * width, count, pad.p);
		load_block(type, count < TPD_BLOCK ? pad.p : p + i * width, old);
		for (unsigned j = 0; j < TPD_BLOCK; j++)
			found[j] = pad.symbols[j];
		scaled_block_demand(type, own, old, found, q, bits);
		if (!tpd_fields_pull(fields, bits, values))
			return false;
		scaled_block_patterns(type, own, old, found, q, values, new, wrong);
		store_block(type, new, pad.x);
		memcpy(out + i * width, pad.x, count * width);
	}
	for (unsigned j = 0; j < TPD_BLOCK; j++)
		any |= wrong[j];
	return any == 0;
}

static inline void scaled_encode(enum tpd_dtype dtype, const uint8_t *steps, const uint8_t *x, const uint8_t *p, size_t n, uint8_t *symbols,
			  uint32_t *values, uint8_t *bits)
{
	if (dtype == TPD_DTYPE_F32)
		scaled_encode_type(TYPE_F32, steps, x, p, n, symbols, values, bits);
	else
		scaled_encode_type(TYPE_BF16, steps, x, p, n, symbols, values, bits);
}

static inline bool scaled_decode(enum tpd_dtype dtype, const uint8_t *steps, const uint8_t *p, const uint8_t *symbols, size_t n, uint8_t *out,
			  struct tpd_fields_in *fields)
{
	if (dtype == TPD_DTYPE_F32)
		return scaled_decode_type(TYPE_F32, steps, p, symbols, n, out, fields);
	return scaled_decode_type(TYPE_BF16, steps, p, symbols, n, out, fields);
}

#endif
