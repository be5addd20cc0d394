/*
 * symbols_encode.c - a symbol stream S(n): whichever coder makes n bytes shortest, but for long ones that gain next to nothing, by rules that depend on the
 * bytes alone (SPEC.md sections 3 and 13).
 *
 * The ideal cost under the quantised frequencies is known before a single symbol is coded; random bytes (the low
 * mantissa planes) are seen there and stay raw without the work.
 */
#include "base/tpd.h"

#include <assert.h>
#include <string.h>

#include "codec/classes_fit.h"
#include "codec/internal.h"
#include "codec/kernels.h"

#define ZSTD_TRY_MAX 4096u /* longer streams have order-0 statistics good enough for rANS */
#define ZSTD_LEVEL 1
#define CURVE_TRY_MIN 64u   /* shorter ones are all header */
#define CURVE_TRY_MAX 8192u /* of longer ones frequencies are a small part */
#define CURVE_LANES_MIN 512u
#define BESIDE_SHARE 128u
#define LONG_STREAM 16384u
#define LONG_SHARE 256u /* of a long one less would be decoded for longer than it is worth: low mantissa bytes, almost random */
#define HEADER_MAX (4u + 2u * 256u + 4u + 4u * TPD_RANS_LANES_MAX) /* coder, k, first, last; frequencies; w; states */

/* How many of 256 numbers are larger than this. */
static unsigned count_above(const uint32_t what[256], uint32_t bound)
{
	unsigned count = 0;

	for (unsigned s = 0; s < 256; s++)
		count += what[s] > bound;
	return count;
}

/* By how much the numbers are above this, in all. */
static uint32_t sum_above(const uint32_t what[256], uint32_t bound)
{
	uint32_t sum = 0;

	for (unsigned s = 0; s < 256; s++)
		sum += what[s] > bound ? what[s] - bound : 0;
	return sum;
}

/* One more for each of the `missing` symbols that have the largest rests, none above `most`; of equals the lower ones. */
static void add_missing(const uint32_t rest[256], uint32_t most, unsigned missing, uint16_t freq[256])
{
	uint32_t low = 0, high = most; /* the least bound that at most so many are above */
	unsigned equals;

	while (low < high) {
		const uint32_t middle = low + (high - low) / 2;

		if (count_above(rest, middle) > missing)
			low = middle + 1;
		else
			high = middle;
	}
	equals = missing - count_above(rest, low);
	assert(equals == 0 || low > 0);
	for (unsigned s = 0; s < 256; s++) {
		const bool one_of_them = rest[s] == low && equals > 0;

		freq[s] = (uint16_t)(freq[s] + (rest[s] > low || one_of_them));
		equals -= one_of_them;
	}
}

/* `excess` less in all, one each time from the largest, the lower one of equals: all that are above some level come down to it. */
static void take_excess(unsigned excess, uint16_t freq[256])
{
	uint32_t size[256], low = 0, high = TPD_RANS_SUM + 256; /* the least level to which so much is enough */

	for (unsigned s = 0; s < 256; s++)
		size[s] = freq[s];
	while (low < high) {
		const uint32_t middle = (low + high) / 2;

		if (sum_above(size, middle) > excess)
			low = middle + 1;
		else
			high = middle;
	}
	excess -= sum_above(size, low);
	for (unsigned s = 0; s < 256; s++) {
		const bool one_less = size[s] >= low && excess > 0;

		freq[s] = (uint16_t)(TPD_MIN(size[s], low) - one_less);
		excess -= one_less;
	}
}

void tpd_rans_quantise(const uint32_t counts[256], size_t n, unsigned first, unsigned last, uint16_t freq[256])
{
	uint32_t rest[256] = {0}, sum = 0;

	memset(freq, 0, 256 * sizeof freq[0]);
	for (unsigned s = first; s <= last; s++) {
		const uint64_t scaled = (uint64_t)counts[s] << TPD_RANS_BITS;
		uint64_t f;

		if (scaled == 0)
			continue;
		f = scaled / n;
		rest[s] = (uint32_t)(f > 0 ? scaled - f * n : 0); /* one that was raised to 1 has had more than its share */
		f += f == 0;
		freq[s] = (uint16_t)f;
		sum += (uint32_t)f;
	}
	if (sum < TPD_RANS_SUM)
		add_missing(rest, (uint32_t)n, TPD_RANS_SUM - sum, freq);
	else if (sum > TPD_RANS_SUM)
		take_excess(sum - TPD_RANS_SUM, freq);
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

static uint8_t *put_states(uint8_t *out, unsigned k, const uint32_t *states)
{
	for (unsigned lane = 0; lane < 1u << k; lane++, out += 4)
		tpd_put_u32(out, states[lane]);
	return out;
}

uint8_t *tpd_rans_put_states(uint8_t *out, size_t word_count, unsigned k, const uint32_t *states)
{
	tpd_put_u32(out, (uint32_t)word_count);
	return put_states(out + 4, k, states);
}

static unsigned choose_k(size_t n)
{
	if (n >= LONG_STREAM)
		return 6;
	if (n >= 2048)
		return 4;
	return n >= 256 ? 2 : 0;
}

/* Words and states into the codec's scratch: *out_words, *out_len bytes. */
static enum tpd_status run_rans(struct tpd_codec *codec, const uint8_t *symbols, size_t n, unsigned k, const uint16_t freq[256], uint32_t *states,
				const uint8_t **out_words, size_t *out_len, struct tpd_err *err)
{
	enum tpd_status status = tpd_scratch_need(&codec->words, 2 * n + TPD_WORDS_SLACK, err);
	uint8_t *end;

	if (status != TPD_OK)
		return status;
	end = codec->words.data + 2 * n + TPD_WORDS_SLACK;
	*out_words = codec->kernels->rans_encode(symbols, n, k, freq, end, states);
	*out_len = (size_t)(end - *out_words);
	return TPD_OK;
}

/* header and words into out, if its room, cap, is enough for them; *out_len is SIZE_MAX when it is not. */
static void put_stream(const uint8_t *header, size_t header_len, const uint8_t *words, size_t words_len, uint8_t *out, size_t cap,
		       size_t *out_len)
{
	*out_len = SIZE_MAX;
	if (header_len + words_len > cap)
		return;
	memcpy(out, header, header_len);
	memcpy(out + header_len, words, words_len);
	*out_len = header_len + words_len;
}

/* Coder 3 into out. */
static enum tpd_status encode_rans(struct tpd_codec *codec, const uint8_t *symbols, size_t n, const uint16_t freq[256],
				   unsigned first, unsigned last, uint8_t *out, size_t cap, size_t *out_len,
				   struct tpd_err *err)
{
	uint8_t header[HEADER_MAX], *p = header;
	uint32_t states[TPD_RANS_LANES_MAX];
	const unsigned k = choose_k(n);
	const uint8_t *words = NULL;
	size_t words_len = 0;
	enum tpd_status status = run_rans(codec, symbols, n, k, freq, states, &words, &words_len, err);

	if (status != TPD_OK)
		return status;
	*p++ = TPD_CODER_RANS;
	*p++ = (uint8_t)k;
	*p++ = (uint8_t)first;
	*p++ = (uint8_t)last;
	p = tpd_rans_put_frequencies(p, freq, first, last);
	p = tpd_rans_put_states(p, words_len / 2, k, states);
	put_stream(header, (size_t)(p - header), words, words_len, out, cap, out_len);
	return TPD_OK;
}

/* The most frequent byte that a table can be told around; the lowest of several. */
static unsigned middle_of(const uint32_t counts[256])
{
	unsigned middle = TPD_SYMBOL_FIRST;

	for (unsigned s = middle + 1; s < 256; s++)
		if (counts[s] > counts[middle])
			middle = s;
	return middle;
}

/* Coder 4 into out, where its table can say what there is. */
static enum tpd_status encode_curve(struct tpd_codec *codec, const uint8_t *symbols, size_t n, const uint32_t counts[256], uint8_t *out,
				    size_t cap, size_t *out_len, struct tpd_err *err)
{
	const unsigned middle = middle_of(counts), k = n >= CURVE_LANES_MIN ? 2 : 0;
	struct tpd_class class = {.n = (uint32_t)n};
	uint8_t header[HEADER_MAX], *p = header;
	uint32_t states[TPD_RANS_LANES_MAX];
	uint16_t freq[256];
	const uint8_t *words = NULL;
	size_t words_len = 0;
	enum tpd_status status;

	*out_len = SIZE_MAX;
	for (unsigned s = 0; s < 256; s++) {
		const unsigned moved = tpd_symbol_moved(s, middle, TPD_SYMBOL_MIDDLE);

		if (counts[s] == 0)
			continue;
		if (moved == TPD_SYMBOL_NOWHERE)
			return TPD_OK;
		class.counts[moved] = counts[s];
	}
	tpd_class_fit(codec, &class);
	if (class.form == TPD_TABLE_SINGLE || class.cost / 8 >= cap || !tpd_symbols_move_table(class.freq, middle, freq))
		return TPD_OK;
	status = run_rans(codec, symbols, n, k, freq, states, &words, &words_len, err);
	if (status != TPD_OK)
		return status;
	*p++ = TPD_CODER_CURVE;
	*p++ = (uint8_t)k;
	*p++ = (uint8_t)middle;
	p = tpd_class_put_table(p, &class);
	p = put_varint(p, (uint32_t)(words_len / 2));
	p = put_states(p, k, states);
	put_stream(header, (size_t)(p - header), words, words_len, out, cap, out_len);
	return TPD_OK;
}

/* Not what rANS costs, but what it cannot go below: ideal bits, half of each state, the header. */
static bool rans_may_pay(const struct tpd_codec *codec, const uint32_t counts[256], size_t counted, const uint16_t freq[256], size_t n)
{
	uint64_t bits = 0, header = 8 + (UINT64_C(2) << choose_k(n));

	for (unsigned s = 0; s < 256; s++) {
		bits += (uint64_t)counts[s] * codec->cost[freq[s]];
		header += counts[s] > 0;
	}
	return (bits * n / counted >> 15) + header < TPD_SYMBOLS_BOUND(n) - (n >= LONG_STREAM ? n / LONG_SHARE : 0);
}

enum tpd_status tpd_symbols_encode(struct tpd_codec *codec, const uint8_t *symbols, size_t n, uint8_t *out,
				   size_t *out_len, struct tpd_err *err)
{
	return tpd_symbols_encode_beside(codec, symbols, n, 0, out, out_len, err);
}

enum tpd_status tpd_symbols_encode_beside(struct tpd_codec *codec, const uint8_t *symbols, size_t n, size_t beside, uint8_t *out,
					  size_t *out_len, struct tpd_err *err)
{
	const bool is_small = n < beside / BESIDE_SHARE;
	uint32_t counts[256];
	uint16_t freq[256];
	unsigned first = 0, last = 255;
	size_t best = TPD_SYMBOLS_BOUND(n), counted = 0, len; /* best: of raw; what comes later must be shorter */
	enum tpd_status status;

	if (n > 0)
		counted = codec->kernels->count_bytes(symbols, n, counts);
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
	if (n > 1 && n <= ZSTD_TRY_MAX && !is_small) {
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
		tpd_rans_quantise(counts, counted, first, last, freq);
		if (rans_may_pay(codec, counts, counted, freq, n)) {
			status = encode_rans(codec, symbols, n, freq, first, last, out, best - 1, &len, err);
			if (status != TPD_OK)
				return status;
			if (len != SIZE_MAX)
				best = len;
		}
		if (n >= CURVE_TRY_MIN && n <= CURVE_TRY_MAX && !is_small) {
			status = encode_curve(codec, symbols, n, counts, out, best - 1, &len, err);
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
