/*
 * rans_encode.c - order-0 range coding (rANS) of symbols, in up to 64 interleaved lanes.
 *
 * The coder is a stack: what goes in last comes out first.  So it walks from the last symbol to the first and
 * fills its buffer from the end downwards; the decoder then reads everything forwards.  States live in
 * [2^15, 2^31), words are 16 bits, probabilities 12.  The division by a frequency f is a multiplication by
 * r = floor(2^43 / f) + 1.  A state that is coded is below f * 2^19, so the product stays below 2^63, and its excess
 * over x * 2^43 / f is at most x < 2^31, which is less than 2^43 / f, so the quotient is exact.
 * Rejected: a table of quotients (cache), doubles (slower here, and no simpler to prove exact).
 */
#include "base/tpd.h"

#include <assert.h>

#include "codec/internal.h"
#include "codec/kernels_internal.h"

struct rans_step {           /* coding one symbol: x += cum + (x / f) * rest */
	uint64_t reciprocal; /* floor(2^43 / f) + 1 */
	uint32_t last;       /* (f << 19) - 1: above it a word must go out first */
	uint16_t rest;       /* 4096 - f */
	uint16_t cum;
};

static void make_table(const uint16_t freq[256], struct rans_step table[256])
{
	uint32_t cum = 0;

	for (unsigned s = 0; s < 256; s++) {
		uint32_t f = freq[s];

		assert(f < TPD_RANS_SUM);
		table[s] = (struct rans_step){.reciprocal = f > 0 ? (UINT64_C(1) << 43) / f + 1 : 0,
						  .last = (f << 19) - 1,
						  .rest = (uint16_t)(TPD_RANS_SUM - f),
						  .cum = (uint16_t)cum};
		cum += f;
	}
	assert(cum == TPD_RANS_SUM);
}

static inline uint8_t *encode_one(uint32_t *state, const struct rans_step *step, uint8_t *words)
{
	uint32_t x = *state;
	uint32_t out = (step->last - x) >> 31; /* 1 when x is larger; see TPD_RANS_LOW */

	tpd_put_u16(words - 2, (uint16_t)x);
	words -= (size_t)out << 1;
	x >>= out << 4;
	*state = x + step->cum + (uint32_t)(x * step->reciprocal >> 43) * step->rest;
	return words;
}

static inline __attribute__((always_inline)) uint8_t *encode_lanes(const uint8_t *symbols, size_t n, const size_t lanes,
								   const struct rans_step *table, uint8_t *words,
								   uint32_t *states)
{
	size_t i = n;

	while (i % lanes != 0) {
		i--;
		words = encode_one(&states[i % lanes], &table[symbols[i]], words);
	}
	while (i > 0) {
		i -= lanes;
		for (size_t lane = lanes; lane-- > 0;)
			words = encode_one(&states[lane], &table[symbols[i + lane]], words);
	}
	return words;
}

uint8_t *tpd_rans_encode_one(uint32_t *state, uint32_t f, uint32_t cum, uint8_t *words)
{
	const struct rans_step step = {(UINT64_C(1) << 43) / f + 1, (f << 19) - 1, (uint16_t)(TPD_RANS_SUM - f), (uint16_t)cum};

	return encode_one(state, &step, words);
}

uint8_t *tpd_rans_mixed_put(const uint8_t *symbols, const uint8_t *classes, size_t n, size_t end, size_t lanes, const uint32_t *steps,
			    uint8_t *words, uint32_t *states)
{
	while (n > end) {
		uint32_t step = steps[(size_t)classes[n - 1] << 8 | symbols[n - 1]], f = step & 0xffff, x, out;
		uint32_t *state = &states[--n & (lanes - 1)];

		x = *state;
		out = ((f << (31 - TPD_RANS_BITS)) - 1 - x) >> 31;
		tpd_put_u16(words - 2, (uint16_t)x);
		words -= (size_t)out << 1;
		x >>= out << 4;
		*state = (x / f << TPD_RANS_BITS) + x % f + (step >> 16);
	}
	return words;
}

uint8_t *tpd_scalar_rans_encode_mixed(const uint8_t *symbols, const uint8_t *classes, size_t n, unsigned k, const uint32_t *steps,
				      uint8_t *words, uint32_t *states)
{
	return tpd_rans_mixed_put(symbols, classes, n, 0, (size_t)1 << k, steps, words, states);
}

uint8_t *tpd_scalar_rans_encode(const uint8_t *symbols, size_t n, unsigned k, const uint16_t freq[256], uint8_t *words_end,
				uint32_t *states)
{
	struct rans_step table[256];

	make_table(freq, table);
	for (unsigned lane = 0; lane < 1u << k; lane++)
		states[lane] = TPD_RANS_LOW;
	if (k == 6)
		return encode_lanes(symbols, n, 64, table, words_end, states);
	if (k == 4)
		return encode_lanes(symbols, n, 16, table, words_end, states);
	return encode_lanes(symbols, n, (size_t)1 << k, table, words_end, states);
}
