/*
 * grid_kernel.h - SPEC.md sections 5 and 7 on blocks of 16 elements, for one float type at a time.
 *
 * Every function is inlined with a constant struct tpd_grid_type, so that widths and shifts are constants; its loops
 * run over 16 elements in local arrays without branches, which is what compilers vectorise.  Two ways lead to G:
 *
 *     coarse (T > M): G below 2^M is |x| times a power of two, truncated.  That is exact in single precision
 *                     whatever the rounding mode, denormals and zeros give 0 on the grid anyway, and larger
 *                     ones (NaN and Inf too) are masked out first.  16-bit types are moved to where F32 has its
 *                     exponent; the shift by 2^-112 that F16 suffers there is in the scale.
 *     fine (T <= M):  integers and variable shifts, for any T; slower, and rare.
 *
 * Rejected: doubles (half the lanes); tables by exponent (the CPU's own conversion is one instruction).
 */
#ifndef TPD_CODEC_GRID_KERNEL_H
#define TPD_CODEC_GRID_KERNEL_H

#include "base/tpd.h"
#include "codec/fields.h"
#include "codec/grid.h"

#include <string.h>

#define TPD_BLOCK TPD_LANES /* one round of fields a block */
#define TPD_INLINE static inline __attribute__((always_inline))

#define TPD_SYMBOL_ESCAPE 0
#define TPD_SYMBOL_EQUAL 1
#define TPD_SYMBOL_ZERO 2
#define TPD_SYMBOL_FIRST 3
#define TPD_SYMBOL_MIDDLE 129 /* d = 0 */

#define TYPE_F32 ((struct tpd_grid_type){.width = 32, .mantissa = 23, .t_max = 254})
#define TYPE_BF16 ((struct tpd_grid_type){.width = 16, .mantissa = 7, .t_max = 254})
#define TYPE_F16 ((struct tpd_grid_type){.width = 16, .mantissa = 10, .t_max = 30})

/* What T means for a piece. */
struct grid_step {
	unsigned t;
	bool coarse;
	int32_t base;       /* (T - 1) << M */
	int32_t limit;      /* T << M: from this |x| on, nothing remains */
	uint32_t below;     /* B: so many patterns have G = 0 */
	int32_t below_bits; /* bits that B - 1 needs */
	uint32_t raise;     /* (T - M - 127) << M, modulo 2^32 */
	float scale;        /* 1 / step */
};

TPD_INLINE float float_of(uint32_t bits)
{
	float f;

	memcpy(&f, &bits, sizeof f);
	return f;
}

TPD_INLINE uint32_t bits_of(float f)
{
	uint32_t bits;

	memcpy(&bits, &f, sizeof bits);
	return bits;
}

TPD_INLINE struct grid_step step_of(const struct tpd_grid_type type, unsigned t)
{
	struct grid_step step = {.t = t, .coarse = t > type.mantissa};

	step.base = (int32_t)((t - 1) << type.mantissa);
	step.limit = (int32_t)(t << type.mantissa);
	step.below = step.coarse ? (t - type.mantissa) << type.mantissa : UINT32_C(1) << (t - 1);
	step.below_bits = step.below > 1 ? 32 - __builtin_clz(step.below - 1) : 0;
	step.raise = (t - type.mantissa - 127) << type.mantissa;
	step.scale = step.coarse ? float_of((127 + type.mantissa + 127 - t) << 23) : 0;
	return step;
}

TPD_INLINE void load_block(const struct tpd_grid_type type, const uint8_t *p, uint32_t out[TPD_BLOCK])
{
	uint16_t narrow[TPD_BLOCK];

	if (type.width == 32) {
		memcpy(out, p, TPD_BLOCK * sizeof *out);
		for (unsigned j = 0; j < TPD_BLOCK; j++)
			out[j] = TPD_LE32(out[j]);
	} else {
		memcpy(narrow, p, sizeof narrow);
		for (unsigned j = 0; j < TPD_BLOCK; j++)
			out[j] = TPD_LE16(narrow[j]);
	}
}

TPD_INLINE void store_block(const struct tpd_grid_type type, const uint32_t in[TPD_BLOCK], uint8_t *out)
{
	uint32_t wide[TPD_BLOCK];
	uint16_t narrow[TPD_BLOCK];

	if (type.width == 32) {
		for (unsigned j = 0; j < TPD_BLOCK; j++)
			wide[j] = TPD_LE32(in[j]);
		memcpy(out, wide, sizeof wide);
	} else {
		for (unsigned j = 0; j < TPD_BLOCK; j++)
			narrow[j] = TPD_LE16((uint16_t)in[j]);
		memcpy(out, narrow, sizeof narrow);
	}
}

/* All ones where a < b; |a|, |b| < 2^31 so that the difference's sign tells. */
TPD_INLINE int32_t mask_less(int32_t a, int32_t b)
{
	return -(int32_t)(a < b);
}

TPD_INLINE int32_t sign_mask(const struct tpd_grid_type type, uint32_t x)
{
	return (int32_t)(x << (32 - type.width)) >> 31;
}

/* A value modulo 2^width, as signed. */
TPD_INLINE int32_t wrap(const struct tpd_grid_type type, uint32_t v)
{
	return (int32_t)(v << (32 - type.width)) >> (32 - type.width);
}

/* Q of one element at a coarse T. */
TPD_INLINE int32_t coarse_q(const struct tpd_grid_type type, const struct grid_step *step, uint32_t x)
{
	int32_t magnitude = (int32_t)(x & ((UINT32_C(1) << (type.width - 1)) - 1));
	int32_t inside = mask_less(magnitude, step->limit);
	float value = float_of((uint32_t)(magnitude & inside) << (23 - type.mantissa)) * step->scale;
	int32_t g = (int32_t)value | (~inside & (magnitude - step->base));

	return g ^ sign_mask(type, x);
}

/* Q of one element at any T. */
TPD_INLINE int32_t fine_q(const struct tpd_grid_type type, const struct grid_step *step, uint32_t x)
{
	uint32_t magnitude = x & ((UINT32_C(1) << (type.width - 1)) - 1);
	uint32_t field = magnitude >> type.mantissa, exponent = field > 0 ? field : 1;
	uint32_t low = magnitude & ((UINT32_C(1) << type.mantissa) - 1);
	uint32_t significand = field > 0 ? low | UINT32_C(1) << type.mantissa : low;
	uint32_t shift = step->t > exponent ? step->t - exponent : 0;
	uint32_t g = exponent >= step->t ? magnitude - (uint32_t)step->base : shift < 32 ? significand >> shift : 0;

	return (int32_t)g ^ sign_mask(type, x);
}

/* Bits that remain for a G at any T (section 5). */
TPD_INLINE int32_t fine_bits(const struct tpd_grid_type type, const struct grid_step *step, int32_t g)
{
	int32_t log, k;

	if (g >= 1 << type.mantissa)
		return 0;
	if (g == 0)
		return step->below_bits;
	log = 31 - __builtin_clz((uint32_t)g);
	k = (int32_t)type.mantissa - log;
	return k < (int32_t)step->t - 1 ? k : (int32_t)step->t - 1;
}

/* Symbols of a block, and the fields that follow them: their bits and values. */
TPD_INLINE void block_symbols(const struct tpd_grid_type type, const struct grid_step *step, const bool coarse,
			      const uint32_t x[TPD_BLOCK], const uint32_t p[TPD_BLOCK], uint32_t symbols[TPD_BLOCK],
			      uint32_t bits[TPD_BLOCK], uint32_t values[TPD_BLOCK])
{
	for (unsigned j = 0; j < TPD_BLOCK; j++) {
		int32_t q = coarse ? coarse_q(type, step, x[j]) : fine_q(type, step, x[j]);
		int32_t q_p = coarse ? coarse_q(type, step, p[j]) : fine_q(type, step, p[j]);
		int32_t magnitude = (int32_t)(x[j] & ((UINT32_C(1) << (type.width - 1)) - 1));
		int32_t g = q ^ sign_mask(type, x[j]);
		int32_t d = (int32_t)((uint32_t)wrap(type, (uint32_t)q - (uint32_t)q_p) + TPD_SYMBOL_MIDDLE);
		int32_t coded = -(int32_t)(d >= TPD_SYMBOL_FIRST) & mask_less(d, 256);
		int32_t equal = -(int32_t)(x[j] == p[j]), zero = -(int32_t)(x[j] == 0) & ~equal;
		int32_t remain, value;

		if (coarse) { /* what remains is |x| without the part that G tells */
			int32_t nothing = -(int32_t)(g == 0), inside = mask_less(magnitude, step->limit);
			int32_t told = (int32_t)((bits_of((float)g) >> (23 - type.mantissa)) + step->raise);

			remain = (int32_t)step->t - (magnitude >> type.mantissa);
			remain = (remain & ~nothing) | (step->below_bits & nothing);
			remain &= inside;
			value = (magnitude - (told & ~nothing)) & inside;
		} else {
			remain = fine_bits(type, step, g);
			value = magnitude & ((INT32_C(1) << remain) - 1);
		}
		remain = (remain & coded) | ((int32_t)type.width & ~coded);
		value = (value & coded) | ((int32_t)x[j] & ~coded);
		bits[j] = (uint32_t)(remain & ~equal & ~zero);
		values[j] = (uint32_t)(value & ~equal & ~zero);
		symbols[j] = (uint32_t)((d & coded & ~equal & ~zero) | (TPD_SYMBOL_EQUAL & equal) |
					(TPD_SYMBOL_ZERO & zero));
	}
}

/* From p and the symbols: Q(x) and how many bits to ask for. */
TPD_INLINE void block_demand(const struct tpd_grid_type type, const struct grid_step *step, const bool coarse,
			     const uint32_t p[TPD_BLOCK], const uint32_t symbols[TPD_BLOCK], int32_t q[TPD_BLOCK],
			     uint32_t bits[TPD_BLOCK])
{
	for (unsigned j = 0; j < TPD_BLOCK; j++) {
		int32_t q_p = coarse ? coarse_q(type, step, p[j]) : fine_q(type, step, p[j]);
		int32_t v = wrap(type, (uint32_t)q_p + symbols[j] - TPD_SYMBOL_MIDDLE);
		int32_t g = v ^ (v >> 31);
		int32_t coded = -(int32_t)((int32_t)symbols[j] >= TPD_SYMBOL_FIRST);
		int32_t escape = -(int32_t)(symbols[j] == TPD_SYMBOL_ESCAPE);
		int32_t remain;

		if (coarse) { /* T > M, so M - floor(log2 G) is never cut off by T - 1 */
			int32_t log = (int32_t)(bits_of((float)g) >> 23) - 127;
			int32_t nothing = -(int32_t)(g == 0);

			remain = ((int32_t)type.mantissa - log) & mask_less(g, 1 << type.mantissa);
			remain = (remain & ~nothing) | (step->below_bits & nothing);
		} else {
			remain = fine_bits(type, step, g);
		}
		q[j] = v;
		bits[j] = (uint32_t)((remain & coded) | ((int32_t)type.width & escape));
	}
}

/* Q, symbols and fields to x.  wrong[j] becomes not 0 when an element has no such pattern. */
TPD_INLINE void block_patterns(const struct tpd_grid_type type, const struct grid_step *step, const bool coarse,
			       const uint32_t p[TPD_BLOCK], const uint32_t symbols[TPD_BLOCK],
			       const int32_t q[TPD_BLOCK], const uint32_t values[TPD_BLOCK], uint32_t x[TPD_BLOCK],
			       uint32_t wrong[TPD_BLOCK])
{
	for (unsigned j = 0; j < TPD_BLOCK; j++) {
		int32_t sign = q[j] >> 31, g = q[j] ^ sign;
		uint32_t value = values[j];
		uint32_t large = (uint32_t)~mask_less(g, 1 << type.mantissa), nothing = 0u - (uint32_t)(g == 0);
		uint32_t coded = 0u - (uint32_t)((int32_t)symbols[j] >= TPD_SYMBOL_FIRST);
		uint32_t equal = 0u - (uint32_t)(symbols[j] == TPD_SYMBOL_EQUAL);
		uint32_t beyond = ~(uint32_t)mask_less((int32_t)value, (int32_t)step->below); /* below_bits < 32 */
		uint32_t inner, magnitude;

		if (coarse) {
			inner = (bits_of((float)g) >> (23 - type.mantissa)) + step->raise;
		} else {
			uint32_t k = (uint32_t)fine_bits(type, step, g);

			inner = ((step->t - k - 1) << type.mantissa) + ((uint32_t)g << k);
		}
		inner = (inner & ~nothing) + value;
		magnitude = (inner & ~large) | (((uint32_t)g + (uint32_t)step->base) & large);
		wrong[j] |= (magnitude >> (type.width - 1) | (beyond & nothing)) & coded;
		magnitude |= (uint32_t)sign & UINT32_C(1) << (type.width - 1);
		x[j] = (magnitude & coded) | (((value & ~equal) | (p[j] & equal)) & ~coded);
	}
}

/*
 * A block as it stands in memory.  The last one of a piece is copied to a padded place first, so that one body serves
 * all; a padding element is +0 in x and p: it is "equal", asks for no bits and keeps the lanes in step.
 */
struct block_pad {
	uint8_t x[4 * TPD_BLOCK], p[4 * TPD_BLOCK], symbols[TPD_BLOCK];
};

TPD_INLINE void pad_block(const struct tpd_grid_type type, const uint8_t *from, size_t count, uint8_t *to)
{
	memset(to, 0, 4 * TPD_BLOCK);
	memcpy(to, from, count * (type.width / 8));
}

TPD_INLINE void encode_piece(const struct tpd_grid_type type, const struct grid_step *step, const bool coarse,
			     const uint8_t *x, const uint8_t *p, size_t n, uint8_t *symbols, uint32_t *values,
			     uint8_t *bits)
{
	const size_t width = type.width / 8;

	for (size_t i = 0; i < n; i += TPD_BLOCK, x += TPD_BLOCK * width, p += TPD_BLOCK * width, symbols += TPD_BLOCK,
		    values += TPD_BLOCK, bits += TPD_BLOCK) {
		uint32_t new[TPD_BLOCK], old[TPD_BLOCK], found[TPD_BLOCK], these[TPD_BLOCK], remain[TPD_BLOCK];
		size_t count = n - i < TPD_BLOCK ? n - i : TPD_BLOCK;
		uint8_t narrow[TPD_BLOCK];
		struct block_pad pad;

		if (count < TPD_BLOCK) {
			pad_block(type, x, count, pad.x);
			pad_block(type, p, count, pad.p);
		}
		load_block(type, count < TPD_BLOCK ? pad.x : x, new);
		load_block(type, count < TPD_BLOCK ? pad.p : p, old);
		block_symbols(type, step, coarse, new, old, found, remain, these);
		for (unsigned j = 0; j < TPD_BLOCK; j++)
			narrow[j] = (uint8_t)found[j];
		for (unsigned j = 0; j < TPD_BLOCK; j++)
			bits[j] = (uint8_t)remain[j];
		memcpy(values, these, sizeof these);
		if (count == TPD_BLOCK)
			memcpy(symbols, narrow, TPD_BLOCK);
		else
			memcpy(symbols, narrow, count);
	}
}

TPD_INLINE bool decode_piece(const struct tpd_grid_type type, const struct grid_step *step, const bool coarse,
			     const uint8_t *p, const uint8_t *symbols, size_t n, uint8_t *out,
			     struct tpd_fields_in *fields)
{
	const size_t width = type.width / 8;
	uint32_t wrong[TPD_BLOCK] = {0}, any = 0;

	for (size_t i = 0; i < n;
	     i += TPD_BLOCK, p += TPD_BLOCK * width, symbols += TPD_BLOCK, out += TPD_BLOCK * width) {
		uint32_t old[TPD_BLOCK], found[TPD_BLOCK], bits[TPD_BLOCK], values[TPD_BLOCK], new[TPD_BLOCK];
		int32_t q[TPD_BLOCK];
		size_t count = n - i < TPD_BLOCK ? n - i : TPD_BLOCK;
		const uint8_t *these = symbols;
		struct block_pad pad;

		if (count < TPD_BLOCK) {
			pad_block(type, p, count, pad.p);
			memset(pad.symbols, TPD_SYMBOL_EQUAL, TPD_BLOCK);
			memcpy(pad.symbols, symbols, count);
			these = pad.symbols;
		}
		load_block(type, count < TPD_BLOCK ? pad.p : p, old);
		for (unsigned j = 0; j < TPD_BLOCK; j++)
			found[j] = these[j];
		block_demand(type, step, coarse, old, found, q, bits);
		if (!tpd_fields_pull(fields, bits, values))
			return false;
		block_patterns(type, step, coarse, old, found, q, values, new, wrong);
		store_block(type, new, count < TPD_BLOCK ? pad.x : out);
		if (count < TPD_BLOCK)
			memcpy(out, pad.x, count * width);
	}
	for (unsigned j = 0; j < TPD_BLOCK; j++)
		any |= wrong[j];
	return any == 0;
}

#endif
