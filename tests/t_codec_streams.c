/*
 * t_codec_streams.c - the streams inside payloads, symbols (SPEC.md section 3) and gaps (section 7): there and
 * back, and what a decoder must refuse of them.
 */
#include "base/tpd.h"

#include "codec/codec.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "codec_build.h"
#include "random_bits.h"

static struct tpd_codec *codec;

static void set_up(void)
{
	random_state = 0x2545f4914f6cdd1d;
	ck_assert_int_eq(tpd_codec_new(&codec, NULL), TPD_OK);
}

static void tear_down(void)
{
	ck_assert_uint_eq(tpd_codec_mismatches(codec), 0);
	tpd_codec_free(codec);
}

/* ---- there and back ---- */

START_TEST(symbol_streams)
{
	static const size_t sizes[] = {0, 1, 2, 3, 255, 256, 257, 2047, 2048, 4096, 4097, 16383, 16384, 16385, 70001};
	unsigned coders = 0;

	for (size_t s = 0; s < TPD_ARRAY_LEN(sizes); s++) {
		size_t n = sizes[s];
		uint8_t *in = malloc(n + 1), *out = malloc(TPD_SYMBOLS_BOUND(n)), *back = malloc(n + 1);

		ck_assert(in && out && back);
		for (unsigned shape = 0; shape < 8; shape++) {
			size_t len;
			struct tpd_rd rd;

			for (size_t i = 0; i < n; i++) {
				uint64_t r = next_random();

				in[i] = shape == 0   ? 7
					: shape == 1 ? (uint8_t)r
					: shape == 2 ? (uint8_t)(r % 1000 == 0 ? 1 : 200)
					: shape == 3 ? (uint8_t)(128 + (int)(r & 7) - (int)(r >> 8 & 7))
					: shape == 4 ? (uint8_t)(i % 5)
					: shape == 5 ? (uint8_t)(r % 3 ? 255 : 0)
					: shape == 6 ? (uint8_t)(r & r >> 8 & r >> 16) /* all 256, some very rare */
						     : (uint8_t)(i + 1 == n ? 1 : 0);
			}
			ck_assert_int_eq(tpd_symbols_encode(codec, in, n, out, &len, NULL), TPD_OK);
			ck_assert_uint_le(len, TPD_SYMBOLS_BOUND(n));
			coders |= 1u << out[0];
			rd = tpd_rd_make(out, len);
			memset(back, 0, n + 1);
			ck_assert_int_eq(tpd_symbols_decode(codec, &rd, back, n, NULL), TPD_OK);
			ck_assert(tpd_rd_done(&rd));
			ck_assert_mem_eq(in, back, n);
		}
		free(in);
		free(out);
		free(back);
	}
	ck_assert_uint_eq(coders, 31); /* each was the shortest once */
}
END_TEST

/* SPEC.md section 13, done in the simplest way: one unit at a time. */
static void expected_frequencies(const uint8_t *in, size_t n, uint32_t freq[256])
{
	uint64_t counts[256] = {0}, rest[256];
	uint32_t sum = 0;

	for (size_t i = 0; i < n; i++)
		counts[in[i]]++;
	for (unsigned s = 0; s < 256; s++) {
		freq[s] = (uint32_t)(counts[s] * 4096 / n);
		rest[s] = freq[s] > 0 ? counts[s] * 4096 % n : 0;
		freq[s] += freq[s] == 0 && counts[s] > 0;
		sum += freq[s];
	}
	while (sum != 4096) {
		unsigned best = 0;

		for (unsigned s = 1; s < 256; s++)
			if (sum < 4096 ? rest[s] > rest[best] : freq[s] > freq[best])
				best = s;
		rest[best] = 0;
		freq[best] += sum < 4096 ? 1u : 0u - 1u;
		sum += sum < 4096 ? 1u : 0u - 1u;
	}
}

START_TEST(frequencies_follow_the_rule)
{
	static uint8_t in[20000], out[TPD_SYMBOLS_BOUND(sizeof in)];
	unsigned checked = 0;

	for (unsigned round = 0; round < 300; round++) {
		size_t n = 300 + next_random() % (sizeof in - 300), len;
		unsigned kinds = 2 + (unsigned)(next_random() % 254), rare = (unsigned)(next_random() % 40);
		uint32_t want[256];
		struct tpd_rd rd;

		for (size_t i = 0; i < n; i++) {
			uint64_t r = next_random();

			in[i] = (uint8_t)(r % 40 < rare ? r % 3 : (r >> 20) % kinds * ((r >> 40) % 7) / 6);
		}
		ck_assert_int_eq(tpd_symbols_encode(codec, in, n, out, &len, NULL), TPD_OK);
		if (out[0] != TPD_CODER_RANS)
			continue;
		checked++;
		expected_frequencies(in, n, want);
		ck_assert_uint_eq(out[1], n >= 16384 ? 6 : n >= 2048 ? 4 : 2);
		rd = tpd_rd_make(out + 4, len - 4);
		for (unsigned s = out[2]; s <= out[3]; s++) {
			uint64_t f = tpd_rd_varint(&rd);

			ck_assert_uint_eq(f, want[s]);
			for (unsigned zeros = f == 0 ? tpd_rd_u8(&rd) : 0; zeros > 0; zeros--)
				ck_assert_uint_eq(want[++s], 0);
		}
	}
	ck_assert_uint_gt(checked, 200);
}
END_TEST

static unsigned elias_length(uint32_t gap)
{
	unsigned length = 0, log = 0;

	while (length < 32 && gap >> length)
		length++;
	while (length >> (log + 1))
		log++;
	return 2 * log + length;
}

START_TEST(gap_streams)
{
	enum { M = 3000 };
	static uint32_t gaps[M], places[M], back[M];
	static uint8_t out[M * 32];
	unsigned codes = 0;

	for (unsigned round = 0; round < 200; round++) {
		size_t m = round < 20 ? round : 1 + next_random() % M;
		uint32_t limit = 1u << (round % 21), next = 0;
		uint64_t bits, want_elias = 0, best = UINT64_MAX;
		uint8_t code, k;
		unsigned best_k = 0;
		size_t len;

		for (size_t i = 0; i < m; i++) {
			/* geometric-like, or the logarithm uniform, where Elias delta is better */
			uint32_t gap = 1 +
				(uint32_t)(next_random() % limit) %
					(round % 3 ? limit : 1 + (uint32_t)(next_random() % 3));

			if (round % 5 == 4)
				gap = 1 + (limit >> (next_random() % 21));
			gaps[i] = gap;
			next += gap;
			places[i] = next - 1;
			want_elias += elias_length(gap);
		}
		for (unsigned try = 0; try <= 31; try++) {
			uint64_t sum = 0;

			for (size_t i = 0; i < m; i++)
				sum += ((gaps[i] - 1) >> try) + 1 + try;
			if (sum < best) {
				best = sum;
				best_k = try;
			}
		}
		ck_assert_uint_eq(tpd_gaps_elias_bits(gaps, m), want_elias);
		bits = tpd_gaps_choose(gaps, m, &code, &k);
		ck_assert_uint_eq(bits, TPD_MIN(best, want_elias));
		ck_assert_uint_eq(code, best < want_elias ? TPD_GAPS_RICE : TPD_GAPS_ELIAS);
		ck_assert_uint_eq(k, best < want_elias ? best_k : 0);
		codes |= 1u << code;
		for (unsigned way = 0; way < 3; way++) {
			unsigned use_code = way == 0 ? code : way - 1,
				 use_k = way == 0 ? k
				: way == 1        ? 0
						  : best_k + round % 2;

			len = tpd_gaps_encode(gaps, m, use_code, use_k, out);
			if (way == 0)
				ck_assert_uint_eq(len, (bits + 7) / 8);
			ck_assert(tpd_gaps_decode(out, len, use_code, use_k, m, next, back));
			ck_assert_mem_eq(back, places, m * sizeof *places);
			if (m == 0)
				continue;
			ck_assert(!tpd_gaps_decode(out, len, use_code, use_k, m, next - 1,
						   back)); /* the last is beyond n */
			ck_assert(!tpd_gaps_decode(out, len - 1, use_code, use_k, m, next, back));
			out[len] = 0;
			ck_assert(!tpd_gaps_decode(out, len + 1, use_code, use_k, m, next, back));
		}
	}
	ck_assert_uint_eq(codes, 3);
}
END_TEST

/* Codes written by hand from the definitions. */
START_TEST(gap_codes_are_the_defined_ones)
{
	static const uint32_t gaps[] = {1, 2, 3, 4, 9, 17};
	/* Elias delta: 1 | 0 10 0 | 0 10 1 | 0 11 00 | 00 100 001 | 00 101 0001 and a zero to fill the byte */
	static const uint8_t elias[] = {0xa2, 0xb0, 0x84, 0xa2};
	/* Rice 2: 0 00 | 0 01 | 0 10 | 0 11 | 110 00 | 11110 00 */
	static const uint8_t rice[] = {0x05, 0x3c, 0x78};
	uint8_t out[64];

	ck_assert_uint_eq(tpd_gaps_encode(gaps, 6, TPD_GAPS_ELIAS, 0, out), sizeof elias);
	ck_assert_mem_eq(out, elias, sizeof elias);
	ck_assert_uint_eq(tpd_gaps_encode(gaps, 6, TPD_GAPS_RICE, 2, out), sizeof rice);
	ck_assert_mem_eq(out, rice, sizeof rice);
}
END_TEST

/* ---- what must be refused ---- */

static enum tpd_status decode_symbols(const struct tpd_buf *buf, uint8_t *out, size_t n)
{
	/* in memory of just this size, so that a sanitizer sees one byte too many */
	uint8_t *copy = calloc(buf->len + (buf->len == 0), 1);
	struct tpd_rd rd = tpd_rd_make(copy, buf->len);
	enum tpd_status status;

	ck_assert(copy && !buf->failed);
	if (buf->len > 0)
		memcpy(copy, buf->data, buf->len);
	status = tpd_symbols_decode(codec, &rd, out, n, NULL);
	if (status == TPD_OK && !tpd_rd_done(&rd))
		status = TPD_CONFLICT; /* left over: the caller of a stream sees that */
	free(copy);
	return status;
}

#define CURVE_N 600u

/* A hill around 140, of which the encoder tells a curve: 4, k, middle, the form. */
START_TEST(curve_fields)
{
	static const struct {
		size_t at;
		uint8_t value;
		enum tpd_status expect;
	} changes[] = {
		{1, 7, TPD_CORRUPT}, /* lanes */
		{2, 0, TPD_CORRUPT}, {2, 2, TPD_CORRUPT}, /* a middle that is no place for one */
		{2, 3, TPD_CORRUPT}, {2, 255, TPD_CORRUPT}, /* so far out that the table reaches beyond */
		{3, 255, TPD_CORRUPT}, /* a single symbol */
		{3, 127, TPD_CORRUPT}, {3, 254, TPD_CORRUPT},
	};
	uint8_t symbols[CURVE_N], out[CURVE_N], bytes[TPD_SYMBOLS_BOUND(CURVE_N)], flipped[TPD_SYMBOLS_BOUND(CURVE_N)];
	struct tpd_buf buf = {.data = bytes, .cap = sizeof bytes}, other = {.data = flipped, .cap = sizeof flipped};

	for (size_t i = 0; i < CURVE_N; i++) {
		uint64_t r = next_random();

		symbols[i] = (uint8_t)(140 + (int)(r % 16 + (r >> 8) % 16) - (int)((r >> 16) % 16 + (r >> 24) % 16));
	}
	ck_assert_int_eq(tpd_symbols_encode(codec, symbols, CURVE_N, bytes, &buf.len, NULL), TPD_OK);
	ck_assert_uint_eq(bytes[0], TPD_CODER_CURVE);
	ck_assert_int_eq(decode_symbols(&buf, out, CURVE_N), TPD_OK);
	ck_assert_mem_eq(out, symbols, CURVE_N);
	ck_assert_int_ne(decode_symbols(&buf, out, CURVE_N - 1), TPD_OK);
	for (size_t i = 0; i < TPD_ARRAY_LEN(changes); i++) {
		memcpy(flipped, bytes, buf.len);
		flipped[changes[i].at] = changes[i].value;
		other.len = buf.len;
		ck_assert_int_eq(decode_symbols(&other, out, CURVE_N), changes[i].expect);
	}
	for (other.len = 0; other.len < buf.len; other.len++)
		ck_assert_int_eq(decode_symbols(&other, out, CURVE_N), TPD_CORRUPT);
	for (size_t bit = 0; bit < 8 * buf.len; bit++) {
		enum tpd_status status;

		memcpy(flipped, bytes, buf.len);
		flipped[bit / 8] ^= (uint8_t)(1u << bit % 8);
		status = decode_symbols(&other, out, CURVE_N);
		/* The lanes' last states have the rest of the words in them: what is another stream does not end as one. */
		ck_assert_msg(status != TPD_OK || bit / 8 == 2 || memcmp(out, symbols, CURVE_N) == 0, "bit %zu", bit); /* 2: all moved */
	}
}
END_TEST

#define RANS_N 300u

/* 300 symbols of 10, 12 and 200, in 4 lanes: enough that words are needed. */
static struct rans_parts honest_rans(uint8_t symbols[RANS_N])
{
	struct rans_parts parts = {.coder = 3, .k = 2, .first = 10, .last = 200};

	for (size_t i = 0; i < RANS_N; i++)
		symbols[i] = i % 7 == 0 ? 200 : i % 3 == 0 ? 12 : 10;
	parts.freq[10] = 2000;
	parts.freq[12] = 1000;
	parts.freq[200] = 1096;
	rans_code(&parts, symbols, RANS_N);
	return parts;
}

static enum tpd_status decode_parts(const struct rans_parts *parts, uint8_t out[RANS_N])
{
	struct tpd_buf buf = {0};
	enum tpd_status status;

	build_rans(&buf, parts);
	status = decode_symbols(&buf, out, RANS_N);
	tpd_buf_release(&buf);
	return status;
}

START_TEST(rans_fields)
{
	uint8_t symbols[RANS_N], out[RANS_N];
	const struct rans_parts honest = honest_rans(symbols);
	struct rans_parts parts = honest;

	ck_assert_int_eq(decode_parts(&honest, out), TPD_OK);
	ck_assert_mem_eq(out, symbols, RANS_N);

	parts.coder = 5;
	ck_assert_int_eq(decode_parts(&parts, out), TPD_UNSUPPORTED);
	parts = honest;
	parts.k = 7;
	ck_assert_int_eq(decode_parts(&parts, out), TPD_CORRUPT);
	parts = honest;
	parts.last = parts.first;
	ck_assert_int_eq(decode_parts(&parts, out), TPD_CORRUPT);
	parts = honest;
	parts.first = 9; /* does not occur */
	ck_assert_int_eq(decode_parts(&parts, out), TPD_CORRUPT);
	parts = honest;
	parts.last = 201; /* nor does this, and the zeros reach it */
	ck_assert_int_eq(decode_parts(&parts, out), TPD_CORRUPT);
	parts = honest;
	parts.freq[12]--;
	ck_assert_int_eq(decode_parts(&parts, out), TPD_CORRUPT);
	parts = honest;
	parts.freq[12]++;
	ck_assert_int_eq(decode_parts(&parts, out), TPD_CORRUPT);
	parts = honest;
	parts.freq[12] = 60000;
	ck_assert_int_eq(decode_parts(&parts, out), TPD_CORRUPT);
	parts = honest;
	parts.freq[12]++, parts.freq[10]--; /* still 4096, but not what was coded */
	ck_assert_int_eq(decode_parts(&parts, out), TPD_CORRUPT);
	parts = honest;
	parts.words--;
	ck_assert_int_eq(decode_parts(&parts, out), TPD_CORRUPT);
	parts = honest;
	parts.words++;
	ck_assert_int_eq(decode_parts(&parts, out), TPD_CORRUPT);
	parts = honest;
	parts.words++; /* and it is there */
	parts.word_len += 2;
	ck_assert_int_eq(decode_parts(&parts, out), TPD_CORRUPT);
	parts = honest;
	parts.words = UINT32_MAX;
	ck_assert_int_eq(decode_parts(&parts, out), TPD_CORRUPT);
	for (unsigned lane = 0; lane < 4; lane++) {
		parts = honest;
		parts.states[lane] = 0x7fff;
		ck_assert_int_eq(decode_parts(&parts, out), TPD_CORRUPT);
		parts.states[lane] = UINT32_C(1) << 31;
		ck_assert_int_eq(decode_parts(&parts, out), TPD_CORRUPT);
		parts.states[lane] = honest.states[lane] ^ 1; /* in range, but another stream */
		ck_assert_int_eq(decode_parts(&parts, out), TPD_CORRUPT);
	}
	parts = honest;
	parts.word_bytes[0] ^= 1;
	ck_assert_int_eq(decode_parts(&parts, out), TPD_CORRUPT);
}
END_TEST

/* A lane's last state is wrong, and nothing else: one symbol that needs no word. */
START_TEST(rans_last_state)
{
	uint8_t symbol = 1, out = 0;
	struct rans_parts honest = {.coder = 3, .first = 0, .last = 1, .freq = {2048, 2048}}, parts;
	struct tpd_buf buf = {0};

	rans_code(&honest, &symbol, 1);
	ck_assert_uint_eq(honest.words, 0);
	build_rans(&buf, &honest);
	ck_assert_int_eq(decode_symbols(&buf, &out, 1), TPD_OK);
	ck_assert_uint_eq(out, 1);
	tpd_buf_release(&buf);
	parts = honest;
	parts.states[0]++;
	build_rans(&buf, &parts);
	ck_assert_int_eq(decode_symbols(&buf, &out, 1), TPD_CORRUPT);
	tpd_buf_release(&buf);
}
END_TEST

START_TEST(rans_frequencies_as_bytes)
{
	/* coder, k, first, last; f(0) = 4000, f(1) = 0 and no more zeros, f(2) = 96; no words; the state */
	static const uint8_t honest[] = {3, 0, 0, 2, 0xa0, 0x1f, 0, 0, 96, 0, 0, 0, 0, 0xa0, 0x8f, 0, 0};
	uint8_t bytes[sizeof honest], out[1] = {9};
	struct tpd_buf buf = {.data = bytes, .len = sizeof bytes, .cap = sizeof bytes};

	/* 2^15 = 4096 * 8; its inverse step for symbol 2: q = 2^15 / 96 = 341 rest 32: 341 * 4096 + 32 + 4000 */
	memcpy(bytes, honest, sizeof bytes);
	tpd_put_u32(bytes + 13, 341 * 4096 + 32 + 4000);
	ck_assert_int_eq(decode_symbols(&buf, out, 1), TPD_OK);
	ck_assert_uint_eq(out[0], 2);
	bytes[7] = 1; /* the run of zeros reaches the last symbol */
	ck_assert_int_eq(decode_symbols(&buf, out, 1), TPD_CORRUPT);
	bytes[7] = 0;
	bytes[4] |= 0x80, bytes[5] = 0x9f, bytes[6] = 0; /* a longer form of the same number */
	ck_assert_int_eq(decode_symbols(&buf, out, 1), TPD_CORRUPT);
}
END_TEST

/* Streams that would decode, and end in the right state, if the one rule that they break were not checked. */
START_TEST(rans_with_one_rule_broken)
{
	uint8_t out[2] = {9, 9}, buffer[64];
	struct tpd_buf buf = {.data = buffer, .cap = sizeof buffer};
	struct rans_parts honest = {.coder = 3, .first = 0, .last = 2, .freq = {4000, 0, 96}}, parts;

	/* one symbol 2 without words: 2^15 = 96 * 341 + 32, so the state is 341 * 4096 + 32 + 4000 */
	honest.states[0] = 341 * 4096 + 32 + 4000;
	build_rans(&buf, &honest);
	ck_assert_int_eq(decode_symbols(&buf, out, 1), TPD_OK);
	ck_assert_uint_eq(out[0], 2);

	parts = honest; /* the sum is 4095: 2^15 = 95 * 344 + 88 */
	parts.freq[2] = 95;
	parts.states[0] = 344 * 4096 + 88 + 4000;
	buf.len = 0;
	build_rans(&buf, &parts);
	ck_assert_int_eq(decode_symbols(&buf, out, 1), TPD_CORRUPT);

	parts = honest; /* a state below 2^15: its step gives 0, and the word 2^15 */
	parts.states[0] = 4000;
	parts.words = 1;
	parts.word_len = 2;
	tpd_put_u16(parts.word_bytes, 0x8000);
	buf.len = 0;
	build_rans(&buf, &parts);
	ck_assert_int_eq(decode_symbols(&buf, out, 1), TPD_CORRUPT);

	/* a state of 2^31 and more: symbol 1 (f = 1) makes it 2^19, symbol 0 (f = 256) 2^15 */
	parts = (struct rans_parts){.coder = 3, .first = 0, .last = 2, .freq = {256, 1, 3839}};
	parts.states[0] = (UINT32_C(1) << 31) + 256;
	buf.len = 0;
	build_rans(&buf, &parts);
	ck_assert_int_eq(decode_symbols(&buf, out, 2), TPD_CORRUPT);
}
END_TEST

START_TEST(raw_and_constant_streams)
{
	uint8_t bytes[8] = {0, 'a', 'b', 'c'}, out[4];
	struct tpd_buf buf = {.data = bytes, .len = 4, .cap = sizeof bytes};

	ck_assert_int_eq(decode_symbols(&buf, out, 3), TPD_OK);
	ck_assert_mem_eq(out, "abc", 3);
	ck_assert_int_eq(decode_symbols(&buf, out, 4), TPD_CORRUPT);
	ck_assert_int_eq(decode_symbols(&buf, out, 2), TPD_CONFLICT);
	bytes[0] = 1;
	buf.len = 2;
	ck_assert_int_eq(decode_symbols(&buf, out, 4), TPD_OK);
	ck_assert_mem_eq(out, "aaaa", 4);
	buf.len = 1;
	ck_assert_int_eq(decode_symbols(&buf, out, 4), TPD_CORRUPT);
	buf.len = 0;
	ck_assert_int_eq(decode_symbols(&buf, out, 4), TPD_CORRUPT);
	/* S(0) is the byte 0 and nothing else */
	buf.len = 1;
	bytes[0] = 0;
	ck_assert_int_eq(decode_symbols(&buf, out, 0), TPD_OK);
	bytes[0] = 1;
	ck_assert_int_eq(decode_symbols(&buf, out, 0), TPD_CORRUPT);
	bytes[0] = 5;
	ck_assert_int_eq(decode_symbols(&buf, out, 0), TPD_UNSUPPORTED);
	bytes[0] = 255;
	ck_assert_int_eq(decode_symbols(&buf, out, 3), TPD_UNSUPPORTED);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("codec_streams");
	TCase *tcase = tcase_create("codec_streams");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tcase, 1200);
	tcase_add_checked_fixture(tcase, set_up, tear_down);
	tcase_add_test(tcase, symbol_streams);
	tcase_add_test(tcase, frequencies_follow_the_rule);
	tcase_add_test(tcase, gap_streams);
	tcase_add_test(tcase, gap_codes_are_the_defined_ones);
	tcase_add_test(tcase, curve_fields);
	tcase_add_test(tcase, rans_fields);
	tcase_add_test(tcase, rans_last_state);
	tcase_add_test(tcase, rans_frequencies_as_bytes);
	tcase_add_test(tcase, rans_with_one_rule_broken);
	tcase_add_test(tcase, raw_and_constant_streams);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? 0 : 1;
}
