/*
 * t_kernels.c - all forms of the kernels do the same: bytes, verdicts and ends, on honest input and on anything else.
 *
 * What the scalar form does is compared with the format by other tests; here the others are compared with it. Memory is exactly as
 * large as kernels.h says, so that a sanitizer sees what goes beyond.
 */
#include "base/tpd.h"

#include <check.h>
#include <fenv.h>
#include <stdlib.h>
#include <string.h>

#include "codec/context.h"
#include "codec/context_model.h"
#include "codec/fields.h"
#include "codec/grid.h"
#include "codec/internal.h"
#include "codec/kernels.h"
#include "kernel_help.h"
#include "random_bits.h"

static const enum tpd_dtype types[] = {TPD_DTYPE_F32, TPD_DTYPE_BF16, TPD_DTYPE_F16};

START_TEST(known_answers)
{
	ck_assert_str_eq(forms[0]->name, "scalar");
	for (size_t f = 0; f < form_count; f++)
		ck_assert(tpd_kernels_test(forms[f]));
}
END_TEST

/* What is by hand in one is not in the other. */
START_TEST(proof)
{
	const struct tpd_kernels *use, *by;

	ck_assert_int_eq(tpd_kernels_get(&use, &by, NULL), TPD_OK);
	if (form_count == 1)
		return;
	ck_assert_ptr_ne(use, by);
	ck_assert(use->grid_encode != by->grid_encode && use->grid_decode != by->grid_decode);
	ck_assert(use->context->encode != by->context->encode && use->context->decode != by->context->decode);
}
END_TEST

static unsigned wrong_t(enum tpd_dtype dtype, const uint8_t *x, const uint8_t *p, size_t n, unsigned bias)
{
	unsigned t = tpd_kernels_scalar.choose_t(dtype, x, p, n, bias);

	return t > 1 ? t - 1 : t + 1;
}

static size_t no_changes(const uint8_t *x TPD_UNUSED, const uint8_t *p TPD_UNUSED, size_t n TPD_UNUSED, unsigned width TPD_UNUSED,
			 uint32_t *places TPD_UNUSED)
{
	return 0;
}

static void one_key_more(enum tpd_dtype dtype, const struct tpd_class_rule *rule, const uint8_t *p, const struct tpd_pieces *pieces, uint16_t *keys)
{
	tpd_kernels_scalar.class_keys(dtype, rule, p, pieces, keys);
	keys[pieces->n / 2] ^= 1;
}

static uint8_t *one_word_less(const uint8_t *symbols, size_t n, unsigned k, const uint16_t freq[256], uint8_t *words_end, uint32_t *states)
{
	return tpd_kernels_scalar.rans_encode(symbols, n, k, freq, words_end, states) + 2;
}

static void one_bit_less(const struct tpd_context_ground *ground, struct tpd_context_model *model, const uint8_t *symbols,
			 struct tpd_context_coder *coder)
{
	tpd_kernels_scalar.context->encode(ground, model, symbols, coder);
	coder->high ^= UINT32_C(1) << 31;
}

static bool one_symbol_else(const struct tpd_context_ground *ground, struct tpd_context_model *model, struct tpd_context_coder *coder,
			    uint8_t *symbols)
{
	const bool good = tpd_kernels_scalar.context->decode(ground, model, coder, symbols);

	symbols[ground->n - 1] ^= 1;
	return good;
}

/* The scalar form, but for frequencies of which so many are not 0, the highest of them so high. */
static unsigned wrong_from, wrong_to, wrong_above;

static bool wrong_in_one_way(const uint8_t *words, size_t count, unsigned k, const uint16_t freq[256], uint32_t *table, uint32_t *states,
			     const struct tpd_prefetch *soon, uint8_t *out, size_t n)
{
	bool good = tpd_kernels_scalar.rans_decode(words, count, k, freq, table, states, soon, out, n);
	unsigned symbols = 0, most = 0;

	for (unsigned s = 0; s < 256; s++) {
		symbols += freq[s] > 0;
		most = TPD_MAX(most, freq[s]);
	}
	if (symbols >= wrong_from && symbols <= wrong_to && (most > 1000) == (wrong_above > 0))
		out[n / 2] ^= 1;
	return good;
}

/* A form that is wrong is found out. */
START_TEST(unknown_answers)
{
	const struct tpd_context_kernels wrong_encoder = {one_bit_less, tpd_kernels_scalar.context->decode};
	const struct tpd_context_kernels wrong_decoder = {tpd_kernels_scalar.context->encode, one_symbol_else};
	struct tpd_kernels kernels;

#define WRONG(change)                                         \
	do {                                                  \
		kernels = tpd_kernels_scalar;                 \
		kernels.change;                               \
		ck_assert(!tpd_kernels_test(&kernels));       \
	} while (0)
	WRONG(choose_t = wrong_t);
	WRONG(find_changes = no_changes);
	WRONG(rans_encode = one_word_less);
	WRONG(context = &wrong_encoder);
	WRONG(context = &wrong_decoder);
	WRONG(class_keys = one_key_more);
	ck_assert(!tpd_context_test(&kernels));
}
END_TEST

/* Each way of AVX-512's rANS is tried: its short tables, its long ones, and what fits neither. */
START_TEST(unknown_answers_in_one_way)
{
	static const unsigned ways[][3] = {{64, 64 + 128, 1}, {64 + 128 + 1, 255, 1}, {200, 256, 0}};
	struct tpd_kernels kernels = tpd_kernels_scalar;

	kernels.rans_decode = wrong_in_one_way;
	wrong_from = wrong_to = 0;
	ck_assert(tpd_kernels_test(&kernels));
	wrong_from = ways[_i][0];
	wrong_to = ways[_i][1];
	wrong_above = ways[_i][2];
	ck_assert(!tpd_kernels_test(&kernels));
}
END_TEST

/* --- fields --- */

START_TEST(fields)
{
	for (int round = 0; round < 600; round++) {
		size_t rounds = rnd(round % 3 ? 20 : 700), lanes = rounds * TPD_LANES, used = 0;
		unsigned most = (unsigned)rnd(33);
		uint32_t *values = memory(4 * lanes);
		uint8_t *bits = memory(lanes), *first = NULL;
		size_t first_len = 0;

		for (size_t i = 0; i < lanes; i++) {
			bits[i] = (uint8_t)(rnd(4) ? rnd(most + 1) : rnd(2) * most);
			values[i] = (uint32_t)(next_random() & ((UINT64_C(1) << bits[i]) - 1));
			used += bits[i];
		}
		for (size_t f = 0; f < form_count; f++) {
			size_t room = used / 8 + TPD_FIELDS_SLACK;
			uint8_t *buffer = memory(room), *out = forms[f]->fields_pack(values, bits, rounds, buffer + room);
			size_t len = (size_t)(buffer + room - out);

			ck_assert(out >= buffer);
			if (f == 0) {
				first = buffer;
				first_len = len;
				continue;
			}
			ck_assert_uint_eq(len, first_len);
			ck_assert_mem_eq(out, first + room - len, len);
			free(buffer);
		}
		free(first);
		free(values);
		free(bits);
	}
}
END_TEST

/* --- grid --- */

/* Symbols and words that no encoder made. */
static void check_garbage(enum tpd_dtype dtype, unsigned t, size_t n, size_t words)
{
	const size_t width = tpd_dtype_width(dtype);
	uint8_t *p = memory(n * width), *symbols = memory(n), *stream = memory(4 * words), *expect = memory(n * width);
	bool verdict = false, done = false;
	unsigned near = (unsigned)rnd(4), spread = 1 + (unsigned)rnd(126);

	for (size_t i = 0; i < n * width; i++)
		p[i] = (uint8_t)next_random();
	for (size_t i = 0; i < n; i++)
		symbols[i] = (uint8_t)(near ? 129 - spread / 2 + rnd(spread) : rnd(256));
	for (size_t i = 0; i < 4 * words; i++)
		stream[i] = rnd(3) ? (uint8_t)next_random() : 0;
	for (size_t f = 0; f < form_count; f++) {
		uint8_t *out = memory(n * width);
		struct tpd_fields_in in;
		bool good;

		tpd_fields_open(&in, stream, 4 * words);
		good = forms[f]->grid_decode(dtype, &(uint8_t){(uint8_t)t}, &(struct tpd_pieces){n, n, n}, p, symbols, NULL, out, &in);
		if (f == 0) {
			verdict = good;
			done = good && tpd_fields_done(&in);
			memcpy(expect, out, n * width);
		}
		ck_assert_msg(good == verdict, "%s: %d, not %d", forms[f]->name, good, verdict);
		if (verdict) {
			ck_assert_mem_eq(out, expect, n * width);
			ck_assert_int_eq(tpd_fields_done(&in), done);
		}
		free(out);
	}
	free(p);
	free(symbols);
	free(stream);
	free(expect);
}

START_TEST(garbage_in_the_grid)
{
	struct tpd_grid_type type;

	for (int round = 0; round < 20000; round++) {
		enum tpd_dtype dtype = types[round % 3];

		ck_assert(tpd_grid_type(dtype, &type));
		check_garbage(dtype, 1 + (unsigned)rnd(type.t_max), 1 + rnd(rnd(10) ? 70 : 2000), rnd(rnd(2) ? 30 : 2000));
	}
}
END_TEST

/* Several pieces from one stream, of which some have a T that no vector form does itself. */
/*
 * Rounds in which all symbols tell the same d, against references of every exponent and both signs, near the ends of their octaves: the vector forms
 * have a short way for what is inside the grid, and must see what is not.
 */
START_TEST(references_beyond_the_grid)
{
	static const uint8_t steps[] = {3, 4, 65, 128, 129, 130, 200, 254, 255};
	uint8_t p[4 * TPD_LANES], symbols[TPD_LANES], words[4 * 3 * TPD_LANES], out[4 * TPD_LANES], first[4 * TPD_LANES];

	for (size_t d = 0; d < TPD_ARRAY_LEN(types); d++) {
		const struct tpd_pieces one = {TPD_LANES, TPD_LANES, TPD_LANES};
		struct tpd_grid_type type = {0};
		const size_t width = tpd_dtype_width(types[d]);
		bool same = true; /* an assertion each would take longer than all else */

		ck_assert(tpd_grid_type(types[d], &type));
		for (size_t i = 0; i < sizeof words; i++)
			words[i] = (uint8_t)next_random();
		for (uint32_t high = 0; high < UINT32_C(1) << (type.width - type.mantissa); high++)
			for (unsigned t = type.mantissa + 1; t <= type.t_max; t += type.t_max - t < 3 || t < type.mantissa + 3 ? 1 : 5)
				for (unsigned end = 0; end < 2 * TPD_ARRAY_LEN(steps); end++) { /* of the octave, for each step */
					bool verdict = false;
					size_t left = 0;

					memset(p, 0, sizeof p);
					memset(symbols, steps[end / 2], sizeof symbols);
					for (unsigned i = 0; i < TPD_LANES; i++) {
						uint32_t low = (end % 2 ? ~(3 * i) : 3 * i) & ((UINT32_C(1) << type.mantissa) - 1);

						low |= high << type.mantissa;
						memcpy(p + i * width, &(uint32_t){TPD_LE32(low)}, width);
					}
					for (size_t f = 0; f < form_count; f++) {
						struct tpd_fields_in in;
						bool valid;

						memset(out, 0, sizeof out);
						tpd_fields_open(&in, words, sizeof words);
						valid = forms[f]->grid_decode(types[d], &(uint8_t){(uint8_t)t}, &one, p, symbols, NULL, out, &in);
						if (f == 0) {
							verdict = valid;
							left = (size_t)(in.end - in.next);
							memcpy(first, out, sizeof first);
						}
						same = same && valid == verdict && left == (size_t)(in.end - in.next) &&
						       memcmp(out, first, sizeof first) == 0;
					}
				}
		ck_assert(same);
	}
}
END_TEST

START_TEST(pieces_of_one_stream)
{
	for (int round = 0; round < 300; round++) {
		enum tpd_dtype dtype = types[round % 3];
		const size_t width = tpd_dtype_width(dtype), n = 200, pieces = 8, lanes = 208;
		struct tpd_grid_type type;
		uint8_t *x = memory(n * pieces * width), *p = memory(n * pieces * width), *back = memory(n * pieces * width);
		uint8_t *symbols = memory(n * pieces), *bits = memory(lanes * pieces), *buffer = memory(4 * lanes * pieces + TPD_FIELDS_SLACK);
		uint32_t *values = memory(4 * lanes * pieces);
		uint8_t *end = buffer + 4 * lanes * pieces + TPD_FIELDS_SLACK, *out;
		uint8_t t[8];

		ck_assert(tpd_grid_type(dtype, &type));
		for (size_t i = 0; i < n * pieces * width; i++) {
			x[i] = (uint8_t)next_random();
			p[i] = rnd(3) ? x[i] : (uint8_t)next_random();
		}
		for (size_t f = 0; f < form_count; f++) {
			for (size_t i = 0; i < pieces; i++) {
				t[i] = (uint8_t)(1 + rnd(i % 2 ? type.t_max : 9));
				forms[f]->grid_encode(dtype, t[i], x + i * n * width, p + i * n * width, n, NULL, symbols + i * n,
						      values + i * lanes, bits + i * lanes);
			}
			out = forms[f]->fields_pack(values, bits, pieces * lanes / TPD_LANES, end);
			for (size_t g = 0; g < form_count; g++) {
				struct tpd_fields_in in;

				tpd_fields_open(&in, out + 4, (size_t)(end - out) - 4);
				ck_assert(forms[g]->grid_decode(dtype, t, &(struct tpd_pieces){n, n, n * pieces}, p, symbols, NULL, back, &in));
				ck_assert(tpd_fields_done(&in));
				ck_assert_mem_eq(back, x, n * pieces * width);
			}
		}
		free(x);
		free(p);
		free(back);
		free(symbols);
		free(bits);
		free(buffer);
		free(values);
	}
}
END_TEST

/* --- rANS --- */

static void random_frequencies(uint16_t freq[256])
{
	unsigned left = TPD_RANS_SUM, symbols = 2 + (unsigned)rnd(rnd(2) ? 254 : 60), first = (unsigned)rnd(256 - symbols + 1);

	memset(freq, 0, 256 * sizeof freq[0]);
	for (unsigned s = 0; s < symbols; s++) {
		unsigned share = s + 1 == symbols ? left : 1 + (unsigned)rnd(rnd(3) ? 2 * left / symbols + 1 : left / 2);

		share = TPD_MIN(share, left - (symbols - 1 - s));
		freq[first + s] = (uint16_t)share;
		left -= share;
	}
	if (left > 0)
		freq[first + symbols - 1] = (uint16_t)(freq[first + symbols - 1] + left);
}

/*
 * What differences look like: many near the middle, ever fewer to both sides, or to one, and single slots far away. Some forms tell such symbols by
 * tables that have room for no others, so all sizes that these have are met, and what is just too much.
 */
static void hill_frequencies(uint16_t freq[256])
{
	const unsigned middle = 8 + (unsigned)rnd(240), fall = 40 + (unsigned)rnd(60), other = rnd(3) ? fall : 10 + (unsigned)rnd(80);
	unsigned sum = 0, f;

	memset(freq, 0, 256 * sizeof freq[0]);
	for (unsigned down = 0; down < 2; down++) {
		f = 4096 / (unsigned)(6 + rnd(20));
		for (unsigned d = down, at = middle; f > 0 && at < 256; d++, at = down ? middle - d : middle + d) {
			freq[at] = (uint16_t)f;
			f = f * (down ? other : fall) / 100;
			f += rnd(4) ? 0 : f / 8;
		}
	}
	for (unsigned far = (unsigned)(rnd(4) ? rnd(60) : 300 + rnd(300)); far > 0; far--) {
		unsigned at = (unsigned)rnd(256);

		freq[at] = freq[at] > 0 ? freq[at] : (uint16_t)(1 + rnd(8) / 7);
	}
	for (unsigned s = 0; s < 256; s++)
		sum += freq[s];
	while (sum > TPD_RANS_SUM)
		for (unsigned s = 0; s < 256 && sum > TPD_RANS_SUM; s++)
			if (freq[s] > 1) {
				unsigned less = TPD_MIN(sum - TPD_RANS_SUM, 1 + freq[s] / 4u);

				less = TPD_MIN(less, freq[s] - 1u);
				freq[s] = (uint16_t)(freq[s] - less);
				sum -= less;
			}
	freq[middle] = (uint16_t)(freq[middle] + TPD_RANS_SUM - sum);
	if (freq[middle] == TPD_RANS_SUM) {
		freq[middle]--;
		freq[(middle + 1) % 256] = 1;
	}
}

/* A few large ones, alone or beside each other, whole places of 256 slots among them, and small ones anywhere, as exponents have them. */
static void steep_frequencies(uint16_t freq[256])
{
	unsigned large = 1 + (unsigned)rnd(18), small = (unsigned)rnd(40), left = TPD_RANS_SUM - 1, at = (unsigned)rnd(256);

	memset(freq, 0, 256 * sizeof freq[0]);
	freq[at] = 1;
	for (; small > 0; small--) {
		unsigned f = 1 + (unsigned)rnd(rnd(4) ? 3 : 12), i = (unsigned)rnd(256);

		if (freq[i] > 0)
			continue;
		freq[i] = (uint16_t)f;
		left -= f;
	}
	for (; large > 0; large--) {
		const unsigned places = 256 * (1 + (unsigned)rnd(3));
		const unsigned f = large == 1 || left < 8 ? left : rnd(4) ? 1 + (unsigned)rnd(left / 2) : TPD_MIN(places, left / 2);

		at = rnd(3) ? (at + 1) % 256 : (unsigned)rnd(256);
		freq[at] = (uint16_t)(freq[at] + f);
		left -= f;
	}
	for (unsigned s = 0; s < 256; s++)
		if (freq[s] == TPD_RANS_SUM) {
			freq[s]--;
			freq[255 - s] = 1;
		}
}

/* How often a form filled the table of all slots, did not, and did not with symbols that only the longest of its own tables have room for. */
static struct {
	unsigned filled, left, long_ones;
	unsigned few, rare, just_too_many; /* of 16 symbols at most, of these with some of 1 or 2 slots, of 17 frequent ones: see rans_avx2.h */
} rans_seen;

static void count_rans_way(const uint16_t freq[256], bool filled)
{
	unsigned symbols = 0, rare = 0, large = 0;

	for (unsigned s = 0; s < 256; s++)
		symbols += freq[s] > 0;
	for (unsigned s = 0; s < 256; s++) {
		rare += freq[s] == 1 || freq[s] == 2;
		large += freq[s] > 48;
	}
	rans_seen.few += symbols <= 16;
	rans_seen.rare += symbols <= 16 && rare > 0;
	rans_seen.just_too_many += large == 17;
	rans_seen.filled += filled;
	rans_seen.left += !filled;
	rans_seen.long_ones += !filled && symbols > 64 + 128; /* with an index each, and told by 128 slots */
}

static void check_rans(size_t n, unsigned k, bool honest)
{
	uint8_t *symbols = memory(n), *back = memory(n), *buffer = memory(2 * n + TPD_WORDS_SLACK), *first = memory(2 * n + 2), *words = NULL;
	uint32_t states[64], first_states[64], used[64], *table = memory(TPD_RANS_SUM * sizeof *table), *room = memory(TPD_RANS_SUM * sizeof *room);
	uint16_t freq[256];
	size_t len = 0, first_len = 0, cut;
	bool verdict = false;

	switch (rnd(4)) {
	case 0:
		random_frequencies(freq);
		break;
	case 1:
		hill_frequencies(freq);
		break;
	default:
		steep_frequencies(freq);
		break;
	}
	tpd_rans_decode_table(freq, table);
	for (size_t i = 0; i < n; i++)
		symbols[i] = (uint8_t)table[rnd(8) ? rnd(TPD_RANS_SUM) : 0];
	for (size_t f = 0; f < form_count; f++) {
		words = forms[f]->rans_encode(symbols, n, k, freq, buffer + 2 * n + TPD_WORDS_SLACK, states);
		ck_assert(words >= buffer);
		len = (size_t)(buffer + 2 * n + TPD_WORDS_SLACK - words);
		if (f == 0) {
			first_len = len;
			memcpy(first, words, len);
			memcpy(first_states, states, sizeof(states[0]) << k);
		}
		ck_assert_uint_eq(len, first_len);
		ck_assert_mem_eq(words, first, len);
		ck_assert_mem_eq(states, first_states, sizeof(states[0]) << k);
	}
	if (!honest && len > 0)
		first[rnd(len)] ^= (uint8_t)(1 + rnd(255));
	cut = honest ? 0 : 2 * rnd(4);
	first_len -= TPD_MIN(first_len, cut);
	words = memory(first_len);
	memcpy(words, first, first_len);
	for (size_t f = 0; f < form_count; f++) {
		bool good;

		memcpy(used, first_states, sizeof used);
		memset(room, 0, TPD_RANS_SUM * sizeof *room); /* no entry of it is 0 */
		good = forms[f]->rans_decode(words, first_len / 2, k, freq, room, used, NULL, back, n);
		if (f == 0)
			verdict = good;
		if (k == 6 && n >= 1000 && f + 1 == form_count)
			count_rans_way(freq, room[0] != 0);
		ck_assert_int_eq(good, verdict);
		if (honest)
			ck_assert(good && memcmp(back, symbols, n) == 0);
	}
	free(words);
	free(symbols);
	free(back);
	free(buffer);
	free(first);
	free(table);
	free(room);
}

START_TEST(rans)
{
	static const int modes[] = {FE_TONEAREST, FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO};

	for (int round = 0; round < 4000; round++) {
		fesetround(modes[round % 4]); /* the quotients of some forms are single precision's */
		check_rans(rnd(round % 10 ? 2000 : 30000), round % 3 ? 6 : (unsigned)rnd(7), rnd(2));
		fesetround(FE_TONEAREST);
	}
	ck_assert_uint_gt(rans_seen.few, 50);
	ck_assert_uint_gt(rans_seen.rare, 50);
	ck_assert_uint_gt(rans_seen.just_too_many, 5);
	if (strcmp(forms[form_count - 1]->name, "avx512") != 0)
		return;
	ck_assert_uint_gt(rans_seen.filled, 20);
	ck_assert_uint_gt(rans_seen.left, 100);
	ck_assert_uint_gt(rans_seen.long_ones, 10);
}
END_TEST

/* Pieces whose symbols have the tables of several classes, one of them with a single symbol; honest, and not. */
static void check_mixed(unsigned k, bool honest)
{
	enum { CLASSES = 5, PIECES = 3 };
	const size_t n = rnd(rnd(4) ? 300 : 5000), all = PIECES * n;
	uint8_t *symbols = memory(all), *classes = memory(all), *back = memory(all), *buffer = memory(2 * all + TPD_WORDS_SLACK);
	uint8_t *first = memory(2 * all + 2), *exact;
	uint32_t states[64] = {0}, first_states[64] = {0}, *tables = memory(CLASSES * TPD_RANS_SUM * sizeof *tables);
	uint32_t *steps = memory(CLASSES * 256 * sizeof *steps);
	size_t first_len = 0, cut = 2 * rnd(4);
	bool verdict = false;

	for (unsigned c = 0; c < CLASSES; c++) {
		uint16_t freq[256] = {0};
		uint32_t cum = 0;

		if (c == 3)
			freq[rnd(256)] = TPD_RANS_SUM;
		else
			random_frequencies(freq);
		tpd_rans_mixed_table(freq, tables + c * TPD_RANS_SUM);
		for (unsigned s = 0; s < 256; s++) {
			steps[c << 8 | s] = freq[s] | cum << 16;
			cum += freq[s];
		}
	}
	for (size_t i = 0; i < all; i++) {
		classes[i] = (uint8_t)rnd(CLASSES);
		symbols[i] = (uint8_t)tables[classes[i] * TPD_RANS_SUM + (rnd(8) ? rnd(TPD_RANS_SUM) : 0)];
	}
	for (size_t f = 0; f < form_count; f++) {
		uint8_t *end = buffer + 2 * all + TPD_WORDS_SLACK, *words = end;
		size_t len;

		for (unsigned lane = 0; lane < 1u << k; lane++)
			states[lane] = TPD_RANS_LOW;
		for (size_t piece = PIECES; piece-- > 0;)
			words = forms[f]->rans_encode_mixed(symbols + piece * n, classes + piece * n, n, k, steps, words, states);
		ck_assert(words >= buffer);
		len = (size_t)(end - words);
		if (f == 0) {
			first_len = len;
			memcpy(first, words, len);
			memcpy(first_states, states, sizeof states);
		}
		ck_assert_uint_eq(len, first_len);
		ck_assert_mem_eq(words, first, len);
		ck_assert_mem_eq(states, first_states, sizeof(states[0]) << k);
	}
	if (!honest && first_len > 0) {
		first[rnd(first_len)] ^= (uint8_t)(1 + rnd(255));
		first_len -= TPD_MIN(first_len, cut);
	}
	exact = memory(first_len);
	memcpy(exact, first, first_len);
	for (size_t f = 0; f < form_count; f++) {
		const uint8_t *words = exact, *end = exact + first_len;
		bool good;

		memcpy(states, first_states, sizeof states);
		for (size_t piece = 0; piece < PIECES && words; piece++)
			words = forms[f]->rans_decode_mixed(words, end, k, tables, states, classes + piece * n, back + piece * n, n);
		good = words && tpd_rans_is_end(words, end, states, (size_t)1 << k);
		if (f == 0)
			verdict = good;
		ck_assert_int_eq(good, verdict);
		if (honest)
			ck_assert(good && memcmp(back, symbols, all) == 0);
	}
	free(exact);
	free(symbols);
	free(classes);
	free(back);
	free(buffer);
	free(first);
	free(tables);
	free(steps);
}

START_TEST(rans_mixed)
{
	static const int modes[] = {FE_TONEAREST, FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO};

	for (int round = 0; round < 800; round++) {
		fesetround(modes[round % 4]);
		check_mixed(round % 3 ? 4 : (unsigned)rnd(7), rnd(2));
		fesetround(FE_TONEAREST);
	}
}
END_TEST

/* --- bytes --- */

START_TEST(bytes)
{
	for (int round = 0; round < 2000; round++) {
		const unsigned width = 1u << rnd(4), sparse_width = 1u << rnd(3);
		size_t n = rnd(round % 5 ? 100 : 3000), change = 1 + rnd(200), found = 0;
		uint8_t *x = memory(n * 8), *p = memory(n * 8), *planes = memory(n * 8), *first = memory(n * 8), *back = memory(n * 8);
		uint32_t *places = memory(4 * (n + TPD_PLACES_SLACK)), *first_places = memory(4 * (n + 1)), counts[256], first_counts[256];
		bool rotate = width > 1 && rnd(2);
		const uint8_t *plane_of[8];

		for (size_t i = 0; i < n * 8; i++) {
			x[i] = (uint8_t)next_random();
			p[i] = rnd(change) ? x[i] : (uint8_t)next_random();
		}
		for (size_t f = 0; f < form_count; f++) {
			size_t changes = forms[f]->find_changes(x, p, n, sparse_width, places);

			forms[f]->planes_split(x, n, width, rotate, planes);
			forms[f]->count_bytes(x, n, counts);
			if (f == 0) {
				found = changes;
				memcpy(first_places, places, 4 * found);
				memcpy(first, planes, n * width);
				memcpy(first_counts, counts, sizeof counts);
			}
			ck_assert_uint_eq(changes, found);
			ck_assert(found == 0 || memcmp(places, first_places, 4 * found) == 0);
			ck_assert(n == 0 || memcmp(planes, first, n * width) == 0);
			ck_assert_mem_eq(counts, first_counts, sizeof counts);
			for (unsigned b = 0; b < width; b++)
				plane_of[b] = planes + b * n;
			forms[f]->planes_join(plane_of, n, width, rotate, back);
			ck_assert(n == 0 || memcmp(back, x, n * width) == 0);
		}
		free(x);
		free(p);
		free(planes);
		free(first);
		free(back);
		free(places);
		free(first_places);
	}
}
END_TEST

/* Few of a quarter of all are counted, yet none that occurs is left out: also where it is the last of all, or only where nothing is counted. */
START_TEST(counts)
{
	for (int round = 0; round < 300; round++) {
		size_t n = rnd(3) ? rnd(200000) : 32768 - 2 + rnd(5), sum = 0, rare = rnd(5);
		uint32_t all[256] = {0}, expect[256] = {0}, found[256];
		uint8_t *symbols = memory(n);
		unsigned first = (unsigned)rnd(256), spread = 1 + (unsigned)rnd(rnd(2) ? 256 : 8);

		for (size_t i = 0; i < n; i++)
			symbols[i] = (uint8_t)(first + rnd(spread));
		for (size_t i = 0; n > 0 && i < rare; i++)
			symbols[rnd(2) ? n - 1 : rnd(n)] = (uint8_t)next_random();
		for (size_t i = 0; i < n; i++) {
			const bool whole = i < n / 64 * 64;

			all[symbols[i]]++;
			expect[symbols[i]] += n <= 32768 || !whole || (uint16_t)(i / 64 * 40503) < 16383;
		}
		for (unsigned s = 0; s < 256; s++) {
			expect[s] = all[s] > 0 && expect[s] == 0 ? 1 : expect[s];
			sum += expect[s];
		}
		ck_assert(n <= 32768 ? sum == n : sum < n / 2);
		for (size_t f = 0; f < form_count; f++) {
			ck_assert_uint_eq(forms[f]->count_bytes(symbols, n, found), sum);
			ck_assert_mem_eq(found, expect, sizeof found);
		}
		free(symbols);
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("kernels");
	TCase *tests = tcase_create("kernels");
	SRunner *runner = srunner_create(suite);
	int failed;

	find_forms();
	suite_add_tcase(suite, tests);
	tcase_set_timeout(tests, 240);
	tcase_add_test(tests, known_answers);
	tcase_add_test(tests, proof);
	tcase_add_test(tests, unknown_answers);
	tcase_add_loop_test(tests, unknown_answers_in_one_way, 0, 3);
	tcase_add_test(tests, fields);
	tcase_add_test(tests, garbage_in_the_grid);
	tcase_add_test(tests, references_beyond_the_grid);
	tcase_add_test(tests, pieces_of_one_stream);
	tcase_add_test(tests, rans);
	tcase_add_test(tests, rans_mixed);
	tcase_add_test(tests, bytes);
	tcase_add_test(tests, counts);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
