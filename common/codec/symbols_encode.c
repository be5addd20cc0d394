/*
 * symbols_encode.c - a symbol stream S(n): whichever coder makes n bytes shortest, by rules that depend on the
 * bytes alone (SPEC.md sections 3 and 10).
 *
 * The ideal cost under the quantised frequencies is known before a single symbol is coded; random bytes (the low
 * mantissa planes) are seen there and stay raw without the work.
 */
#include "base/tpd.h"

#include <assert.h>
#include <string.h>

#include "codec/internal.h"
#include "codec/kernels.h"

#define ZSTD_TRY_MAX 4096u /* longer streams have order-0 statistics good enough for rANS */
#define ZSTD_LEVEL 1
#define HEADER_MAX (4u + 2u * 256u + 4u + 4u * TPD_RANS_LANES_MAX) /* coder, k, first, last; frequencies; w; states */

/* One of `what` is missing to, or is too much for, the sum: the symbol that changes; the lower one on a tie. */
static unsigned largest(const uint64_t what[256], unsigned first, unsigned last)
{
	unsigned best = first;

	for (unsigned s = first + 1; s <= last; s++)
		if (what[s] > what[best])
			best = s;
	return best;
}

void tpd_rans_quantise(const uint32_t counts[256], size_t n, unsigned first, unsigned last, uint16_t freq[256])
{
	uint64_t rest[256], size[256];
	uint32_t sum = 0;

	memset(rest, 0, sizeof rest);
	memset(freq, 0, 256 * sizeof freq[0]);
	for (unsigned s = first; s <= last; s++) {
		uint64_t scaled = (uint64_t)counts[s] << TPD_RANS_BITS, f;

		if (scaled == 0)
			continue;
		f = scaled / n;
		rest[s] = f > 0 ? scaled - f * n : 0; /* one that was raised to 1 has had more than its share */
		f += f == 0;
		freq[s] = (uint16_t)f;
		sum += (uint32_t)f;
	}
	for (; sum < TPD_RANS_SUM; sum++) {
		unsigned s = largest(rest, first, last);

		assert(rest[s] > 0);
		rest[s] = 0;
		freq[s]++;
	}
	if (sum == TPD_RANS_SUM)
		return;
	for (unsigned s = 0; s < 256; s++)
		size[s] = freq[s];
	for (; sum > TPD_RANS_SUM; sum--) {
		unsigned s = largest(size, first, last);

		size[s]--;
		freq[s]--;
	}
}

static uint8_t *put_varint(uint8_t *out, uint32_t v)
{
	for (; v >= 0x80; v >>= 7)
		*out++ = (uint8_t)(v | 0x80);
	*out++ = (uint8_t)v;
	return out;
}

uint8_t *tpd_rans_put_frequencies(uint8_t *out, const uint16_t freq[256], unsigned first, unsigned last)
{
	for (unsigned s = first; s <= last; s++) {
		unsigned zeros = 0;

		out = put_varint(out, freq[s]);
		if (freq[s] > 0)
			continue;
		while (freq[s + 1] == 0) {
			zeros++;
			s++;
		}
		*out++ = (uint8_t)zeros;
	}
	return out;
}

uint8_t *tpd_rans_put_states(uint8_t *out, size_t word_count, unsigned k, const uint32_t *states)
{
	tpd_put_u32(out, (uint32_t)word_count);
	out += 4;
	for (unsigned lane = 0; lane < 1u << k; lane++, out += 4)
		tpd_put_u32(out, states[lane]);
	return out;
}

static unsigned choose_k(size_t n)
{
	if (n >= 16384)
		return 6;
	if (n >= 2048)
		return 4;
	return n >= 256 ? 2 : 0;
}

/* Coder 3 into out, whose room is cap; *out_len is SIZE_MAX when it does not fit. */
static enum tpd_status encode_rans(struct tpd_codec *codec, const uint8_t *symbols, size_t n, const uint16_t freq[256],
				   unsigned first, unsigned last, uint8_t *out, size_t cap, size_t *out_len,
				   struct tpd_err *err)
{
	uint8_t header[HEADER_MAX], *p = header, *words, *words_end;
	uint32_t states[TPD_RANS_LANES_MAX];
	unsigned k = choose_k(n);
	size_t words_len, header_len;
	enum tpd_status status;

	*out_len = SIZE_MAX;
	status = tpd_scratch_need(&codec->words, 2 * n + TPD_WORDS_SLACK, err);
	if (status != TPD_OK)
		return status;
	words_end = codec->words.data + 2 * n + TPD_WORDS_SLACK;
	words = codec->kernels->rans_encode(symbols, n, k, freq, words_end, states);
	words_len = (size_t)(words_end - words);

	*p++ = TPD_CODER_RANS;
	*p++ = (uint8_t)k;
	*p++ = (uint8_t)first;
	*p++ = (uint8_t)last;
	p = tpd_rans_put_frequencies(p, freq, first, last);
	p = tpd_rans_put_states(p, words_len / 2, k, states);
	header_len = (size_t)(p - header);
	if (header_len + words_len > cap)
		return TPD_OK;
	memcpy(out, header, header_len);
	memcpy(out + header_len, words, words_len);
	*out_len = header_len + words_len;
	return TPD_OK;
}

/* Not what rANS costs, but what it cannot go below: ideal bits, half of each state, the header. */
static bool rans_may_pay(const struct tpd_codec *codec, const uint32_t counts[256], const uint16_t freq[256], size_t n)
{
	uint64_t bits = 0, header = 8 + (UINT64_C(2) << choose_k(n));

	for (unsigned s = 0; s < 256; s++) {
		bits += (uint64_t)counts[s] * codec->cost[freq[s]];
		header += counts[s] > 0;
	}
	return (bits >> 15) + header < TPD_SYMBOLS_BOUND(n);
}

enum tpd_status tpd_symbols_encode(struct tpd_codec *codec, const uint8_t *symbols, size_t n, uint8_t *out,
				   size_t *out_len, struct tpd_err *err)
{
	uint32_t counts[256];
	uint16_t freq[256];
	unsigned first = 0, last = 255;
	size_t best = TPD_SYMBOLS_BOUND(n), len; /* of raw; what comes later must be shorter */
	enum tpd_status status;

	if (n > 0)
		codec->kernels->count_bytes(symbols, n, counts);
	while (n > 0 && counts[first] == 0)
		first++;
	while (n > 0 && counts[last] == 0)
		last--;
	if (n > 1 && first == last) {
		out[0] = TPD_CODER_CONSTANT;
		out[1] = (uint8_t)first;
		*out_len = 2;
		return TPD_OK;
	}
	if (n > 1 && n <= ZSTD_TRY_MAX) {
		status = tpd_zstd_encode(codec->zstd, ZSTD_LEVEL, NULL, 0, symbols, n, out + 5, best > 6 ? best - 6 : 0,
					 &len, err);
		if (status != TPD_OK)
			return status;
		if (len != SIZE_MAX) {
			out[0] = TPD_CODER_ZSTD;
			tpd_put_u32(out + 1, (uint32_t)len);
			best = len + 5;
		}
	}
	if (n > 1) {
		tpd_rans_quantise(counts, n, first, last, freq);
		if (rans_may_pay(codec, counts, freq, n)) {
			status = encode_rans(codec, symbols, n, freq, first, last, out, best - 1, &len, err);
			if (status != TPD_OK)
				return status;
			if (len != SIZE_MAX)
				best = len;
		}
	}
	if (best == TPD_SYMBOLS_BOUND(n)) {
		out[0] = TPD_CODER_RAW;
		if (n > 0)
			memcpy(out + 1, symbols, n);
	}
	*out_len = best;
	return TPD_OK;
}
