/*
 * gaps_decode.c - positions from a gap stream.
 *
 * Away from the end, 64 bits are loaded at the current bit and the code is read from them by counting
 * leading bits; near the end (and for codes longer than that) bit by bit.  The slow way is the definition, the fast way
 * gives up in its favour whenever a code does not fit.
 */
#include "base/tpd.h"

#include <string.h>

#include "codec/internal.h"

struct bits { /* most significant first */
	const uint8_t *in;
	uint64_t at, end; /* in bits */
};

static inline uint64_t big_endian(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, 8);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	v = __builtin_bswap64(v);
#endif
	return v;
}

/* count <= 32; when fewer are left: `at` goes past the end and stays there. */
static uint32_t take(struct bits *bits, unsigned count)
{
	uint32_t v = 0;

	if (bits->at > bits->end || count > bits->end - bits->at) {
		bits->at = bits->end + 1;
		return 0;
	}
	for (; count > 0; count--, bits->at++)
		v = v << 1 | (bits->in[bits->at >> 3] >> (7 - (bits->at & 7)) & 1);
	return v;
}

/* The definitions.  What is no code gives 0; a gap may come out larger than any position. */
static uint64_t slow_elias(struct bits *bits)
{
	unsigned log = 0, length;
	uint32_t low;

	while (take(bits, 1) == 0)
		if (++log > 5 || bits->at > bits->end)
			return 0;
	length = 1u << log | take(bits, log);
	if (length > 32)
		return 0;
	low = take(bits, length - 1);
	return bits->at > bits->end ? 0 : UINT64_C(1) << (length - 1) | low;
}

static uint64_t slow_rice(struct bits *bits, unsigned k)
{
	uint64_t quotient = 0;
	uint32_t low;

	for (; take(bits, 1) == 1; quotient++)
		if (bits->at > bits->end)
			return 0;
	low = take(bits, k);
	return bits->at > bits->end ? 0 : (quotient << k | low) + 1;
}

/* Needs 8 readable bytes at `at`; leaves at least 57 bits in v. */
static inline uint64_t gap_elias(struct bits *bits)
{
	uint64_t v = big_endian(bits->in + (bits->at >> 3)) << (bits->at & 7);
	unsigned log = (unsigned)__builtin_clzll(v | 1), length;

	if (log > 5)
		return 0;
	length = (unsigned)(v << log >> (63 - log));
	if (length > 32)
		return 0;
	bits->at += 2 * log + length;
	return UINT64_C(1) << (length - 1) | v << (2 * log + 1) >> 1 >> (64 - length);
}

static inline uint64_t gap_rice(struct bits *bits, unsigned k)
{
	uint64_t v = big_endian(bits->in + (bits->at >> 3)) << (bits->at & 7);
	unsigned ones = (unsigned)__builtin_clzll(~v | 1);

	if (ones + 1 + k > 57)
		return slow_rice(bits, k);
	bits->at += ones + 1 + k;
	return ((uint64_t)ones << k | v << (ones + 1) >> 1 >> (63 - k)) + 1;
}

static inline __attribute__((always_inline)) bool decode(struct bits *bits, const bool rice, unsigned k, size_t m,
							 uint32_t n, uint32_t *places)
{
	uint32_t next = 0; /* the lowest position that is still free */

	for (size_t i = 0; i < m; i++) {
		bool fast = bits->end - bits->at >= 64 + 8;
		uint64_t gap;

		if (rice)
			gap = fast ? gap_rice(bits, k) : slow_rice(bits, k);
		else
			gap = fast ? gap_elias(bits) : slow_elias(bits);
		if (gap - 1 >= n - next) /* 0 fails as well */
			return false;
		next += (uint32_t)gap;
		places[i] = next - 1;
	}
	return true;
}

bool tpd_gaps_decode(const uint8_t *in, size_t len, unsigned code, unsigned k, size_t m, uint32_t n, uint32_t *places)
{
	struct bits bits = {.in = in, .at = 0, .end = (uint64_t)len * 8};
	bool ok = code == TPD_GAPS_RICE ? decode(&bits, true, k, m, n, places) : decode(&bits, false, 0, m, n, places);

	return ok && bits.end - bits.at < 8 && take(&bits, (unsigned)(bits.end - bits.at)) == 0;
}
