/*
 * gaps_encode.c - the distances between changed positions, in Elias delta (as TPDE has it) or in Rice codes.
 *
 * The cost of both is known without coding.  Rice's cost as a function of its parameter falls and then
 * rises (each step saves ceil(q / 2) of the quotients and costs one bit a gap), so a walk downhill
 * from the mean finds the smallest parameter with the least cost.
 */
#include "base/tpd.h"

#include <assert.h>

#include "codec/internal.h"

struct bit_writer { /* most significant bit first */
	uint8_t *out;
	uint64_t acc; /* the low `bits` bits are still to be written */
	unsigned bits;
};

/* At most 32 bits; whole bytes leave at once, so that fewer than 8 stay. */
static inline void put_bits(struct bit_writer *writer, uint32_t value, unsigned bits)
{
	writer->acc = writer->acc << bits | value;
	writer->bits += bits;
	while (writer->bits >= 8) {
		writer->bits -= 8;
		*writer->out++ = (uint8_t)(writer->acc >> writer->bits);
	}
}

static inline unsigned bit_length(uint32_t v)
{
	return v == 0 ? 0 : 32 - (unsigned)__builtin_clz(v);
}

static inline void put_elias(struct bit_writer *writer, uint32_t gap)
{
	unsigned length = bit_length(gap), log = bit_length(length) - 1;

	put_bits(writer, 0, log);
	put_bits(writer, length, log + 1);
	put_bits(writer, gap & ((1u << (length - 1)) - 1), length - 1);
}

static inline void put_rice(struct bit_writer *writer, uint32_t gap, unsigned k)
{
	uint32_t value = gap - 1, quotient = value >> k;

	for (; quotient >= 31; quotient -= 31)
		put_bits(writer, UINT32_MAX >> 1, 31);
	put_bits(writer, (2u << quotient) - 2, quotient + 1);
	put_bits(writer, value & ((1u << k) - 1), k);
}

uint64_t tpd_gaps_elias_bits(const uint32_t *gaps, size_t m)
{
	static const uint8_t cost[33] = {0,  1,  4,  5,  8,  9,  10, 11, 14, 15, 16, 17, 18, 19, 20, 21, 24,
					 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 42};
	uint64_t bits = 0;

	for (size_t i = 0; i < m; i++)
		bits += cost[bit_length(gaps[i])];
	return bits;
}

uint64_t tpd_gaps_rice_bits(const uint32_t *gaps, size_t m, unsigned k)
{
	uint64_t bits = (uint64_t)m * (k + 1);

	for (size_t i = 0; i < m; i++)
		bits += (gaps[i] - 1) >> k;
	return bits;
}

static uint64_t choose_rice(const uint32_t *gaps, size_t m, unsigned *out_k)
{
	uint64_t sum = 0, best, next;
	unsigned k = 0;

	for (size_t i = 0; i < m; i++)
		sum += gaps[i];
	while (k < TPD_RICE_MAX && sum >> (k + 1) >= m)
		k++;
	best = tpd_gaps_rice_bits(gaps, m, k);
	while (k < TPD_RICE_MAX && (next = tpd_gaps_rice_bits(gaps, m, k + 1)) < best) {
		best = next;
		k++;
	}
	while (k > 0 && (next = tpd_gaps_rice_bits(gaps, m, k - 1)) <= best) {
		best = next;
		k--;
	}
	*out_k = k;
	return best;
}

uint64_t tpd_gaps_choose(const uint32_t *gaps, size_t m, uint8_t *out_code, uint8_t *out_k)
{
	uint64_t elias = tpd_gaps_elias_bits(gaps, m), rice = UINT64_MAX;
	unsigned k = 0;

	if (m > 0)
		rice = choose_rice(gaps, m, &k);
	if (rice < elias) {
		*out_code = TPD_GAPS_RICE;
		*out_k = (uint8_t)k;
		return rice;
	}
	*out_code = TPD_GAPS_ELIAS;
	*out_k = 0;
	return elias;
}

size_t tpd_gaps_encode(const uint32_t *gaps, size_t m, unsigned code, unsigned k, uint8_t *out)
{
	struct bit_writer writer = {.out = out};

	assert(code <= TPD_GAPS_RICE && k <= TPD_RICE_MAX);
	if (code == TPD_GAPS_RICE) {
		for (size_t i = 0; i < m; i++)
			put_rice(&writer, gaps[i], k);
	} else {
		for (size_t i = 0; i < m; i++)
			put_elias(&writer, gaps[i]);
	}
	if (writer.bits > 0)
		put_bits(&writer, 0, 8 - writer.bits);
	return (size_t)(writer.out - out);
}
