/*
 * rans_decode.c - the way back from rans_encode.c: forwards through the words, lane after lane.
 *
 * Everything about a slot stands in one table entry, so that a symbol costs one look-up, one multiplication and one
 * conditional word.  While a whole round of lanes cannot run out of words they are not counted; the last
 * rounds count each one.  Rejected: the alias method (a smaller table, a longer chain of dependent steps).
 */
#include "base/tpd.h"

#include "codec/internal.h"
#include "codec/kernels_internal.h"

void tpd_rans_decode_table(const uint16_t freq[256], uint32_t table[TPD_RANS_SUM])
{
	uint32_t slot = 0;

	for (unsigned s = 0; s < 256; s++)
		for (uint32_t offset = 0; offset < freq[s]; offset++)
			table[slot++] = offset << 20 | (uint32_t)freq[s] << 8 | s;
}

static inline uint32_t step_back(uint32_t x, uint32_t entry)
{
	return (entry >> 8 & 0xfff) * (x >> TPD_RANS_BITS) + (entry >> 20);
}

/* Symbols [i, n), each word counted. NULL: they run out. */
static const uint8_t *decode_counted(const uint8_t *words, const uint8_t *end, size_t lanes, const uint32_t *table, uint32_t *states,
				     uint8_t *out, size_t i, size_t n)
{
	for (; i < n; i++) {
		uint32_t *state = &states[i % lanes];
		uint32_t entry = table[*state & (TPD_RANS_SUM - 1)];

		*state = step_back(*state, entry);
		out[i] = (uint8_t)entry;
		if (!tpd_rans_refill(state, &words, end))
			return NULL;
	}
	return words;
}

static inline __attribute__((always_inline)) const uint8_t *decode_lanes(const uint8_t *words, const uint8_t *end, const size_t lanes,
									 const uint32_t *table, uint32_t *states, uint8_t *out,
									 size_t n)
{
	size_t i = 0;

	while (i + lanes <= n && (size_t)(end - words) >= 2 * lanes) {
		for (size_t lane = 0; lane < lanes; lane++) {
			uint32_t entry = table[states[lane] & (TPD_RANS_SUM - 1)];
			uint32_t x = step_back(states[lane], entry);
			uint32_t more = (x - TPD_RANS_LOW) >> 31; /* 1 when x is smaller; see TPD_RANS_LOW */

			states[lane] = x << (more << 4) | (tpd_get_u16(words) & (0u - more));
			words += (size_t)more << 1;
			out[i + lane] = (uint8_t)entry;
		}
		i += lanes;
	}
	return decode_counted(words, end, lanes, table, states, out, i, n);
}

bool tpd_rans_is_end(const uint8_t *words, const uint8_t *end, const uint32_t *states, size_t lanes)
{
	uint32_t wrong = 0;

	for (size_t lane = 0; lane < lanes; lane++)
		wrong |= states[lane] ^ TPD_RANS_LOW;
	return words == end && wrong == 0;
}

bool tpd_rans_decode_rest(const uint8_t *words, const uint8_t *end, size_t lanes, const uint32_t *table, uint32_t *states, uint8_t *out,
			  size_t i, size_t n)
{
	words = decode_counted(words, end, lanes, table, states, out, i, n);
	return words && tpd_rans_is_end(words, end, states, lanes);
}

void tpd_rans_mixed_table(const uint16_t freq[256], uint32_t table[TPD_RANS_SUM])
{
	uint32_t slot = 0;

	for (unsigned s = 0; s < 256; s++)
		for (uint32_t offset = 0; offset < freq[s]; offset++)
			table[slot++] = offset << 20 | (uint32_t)(freq[s] - 1) << 8 | s;
}

const uint8_t *tpd_rans_mixed_rest(const uint8_t *words, const uint8_t *end, size_t lanes, const uint32_t *tables, uint32_t *states,
				   const uint8_t *classes, uint8_t *out, size_t i, size_t n)
{
	for (; i < n; i++) {
		uint32_t *state = &states[i & (lanes - 1)], x = *state;
		uint32_t entry = tables[(size_t)classes[i] << TPD_RANS_BITS | (x & (TPD_RANS_SUM - 1))], more;

		x = ((entry >> 8 & 0xfff) + 1) * (x >> TPD_RANS_BITS) + (entry >> 20);
		more = (x - TPD_RANS_LOW) >> 31;
		out[i] = (uint8_t)entry;
		if (more && words == end)
			return NULL;
		*state = more ? x << 16 | tpd_get_u16(words) : x;
		words += (size_t)more << 1;
	}
	return words;
}

static inline __attribute__((always_inline)) const uint8_t *decode_mixed(const uint8_t *words, const uint8_t *end, const size_t lanes,
									 const uint32_t *tables, uint32_t *states, const uint8_t *classes,
									 uint8_t *out, size_t n)
{
	uint32_t x[TPD_RANS_LANES_MAX]; /* in registers, where there are few: bytes that are stored could be anybody's */
	size_t i = 0;

	for (size_t lane = 0; lane < lanes; lane++)
		x[lane] = states[lane];
	while (i + lanes <= n && (size_t)(end - words) >= 2 * lanes) {
#pragma GCC unroll 4
		for (size_t lane = 0; lane < lanes; lane++) {
			uint32_t entry = tables[(size_t)classes[i + lane] << TPD_RANS_BITS | (x[lane] & (TPD_RANS_SUM - 1))], next, more;

			next = ((entry >> 8 & 0xfff) + 1) * (x[lane] >> TPD_RANS_BITS) + (entry >> 20);
			more = (next - TPD_RANS_LOW) >> 31;
			x[lane] = next << (more << 4) | (tpd_get_u16(words) & (0u - more));
			words += (size_t)more << 1;
			out[i + lane] = (uint8_t)entry;
		}
		i += lanes;
	}
	for (size_t lane = 0; lane < lanes; lane++)
		states[lane] = x[lane];
	return tpd_rans_mixed_rest(words, end, lanes, tables, states, classes, out, i, n);
}

const uint8_t *tpd_scalar_rans_decode_mixed(const uint8_t *words, const uint8_t *end, unsigned k, const uint32_t *tables, uint32_t *states,
					    const uint8_t *classes, uint8_t *out, size_t n)
{
	if (k == 4)
		return decode_mixed(words, end, 16, tables, states, classes, out, n);
	if (k == 2)
		return decode_mixed(words, end, 4, tables, states, classes, out, n);
	return decode_mixed(words, end, (size_t)1 << k, tables, states, classes, out, n);
}

bool tpd_scalar_rans_decode(const uint8_t *words, size_t count, unsigned k, const uint16_t freq[256], uint32_t *table, uint32_t *states,
			    const struct tpd_prefetch *soon TPD_UNUSED, uint8_t *out, size_t n)
{
	const uint8_t *end = words + 2 * count;
	const size_t lanes = (size_t)1 << k;

	tpd_rans_decode_table(freq, table);
	if (k == 6)
		words = decode_lanes(words, end, 64, table, states, out, n);
	else if (k == 4)
		words = decode_lanes(words, end, 16, table, states, out, n);
	else
		words = decode_lanes(words, end, lanes, table, states, out, n);
	return words && tpd_rans_is_end(words, end, states, lanes);
}
