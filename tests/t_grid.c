/*
 * t_grid.c - the grid is exact: Q and its inverse on all patterns of the 16-bit types and on chosen ones of F32, the
 * kernels against the pure functions, and pairs through the real encoder and decoder.
 */
#include "base/tpd.h"

#include "codec/fields.h"
#include "codec/grid.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "codec/internal.h"
#include "codec/kernels.h"
#include "codec_pairs.h"
#include "random_bits.h"

static const enum tpd_dtype half_types[] = {TPD_DTYPE_BF16, TPD_DTYPE_F16};

/* SPEC.md section 5, the part that counts the field's bits, word for word. */
static unsigned spec_bits(const struct tpd_grid_type *type, int64_t q, unsigned t)
{
	int64_t g = q < 0 ? -1 - q : q;
	unsigned log = 0, bits = 0;
	uint64_t below = t > type->mantissa ? (uint64_t)(t - type->mantissa) << type->mantissa : UINT64_C(1) << (t - 1);

	if (g >= INT64_C(1) << type->mantissa)
		return 0;
	if (g > 0) {
		while (g >> (log + 1))
			log++;
		return TPD_MIN(type->mantissa - log, t - 1);
	}
	while ((below - 1) >> bits)
		bits++;
	return bits;
}

static void check_pattern(const struct tpd_grid_type *type, uint32_t x, unsigned t)
{
	uint32_t field = 99, back = ~x;
	unsigned bits = 99;
	int64_t q = tpd_grid_q(type, x, t, &field, &bits);

	if (bits != spec_bits(type, q, t) || bits != tpd_grid_field_bits(type, q, t) || bits > 31 || field >> bits != 0)
		ck_abort_msg("x = %x, T = %u: Q = %lld has %u bits, field %x", x, t, (long long)q, bits, field);
	if ((q < 0) != (x >> (type->width - 1)) || q >= INT64_C(1) << (type->width - 1) ||
	    q < -(INT64_C(1) << (type->width - 1)))
		ck_abort_msg("x = %x, T = %u: Q = %lld", x, t, (long long)q);
	if (!tpd_grid_unq(type, q, t, field, &back) || back != x)
		ck_abort_msg("x = %x, T = %u: Q = %lld, field %x of %u bits gives %x", x, t, (long long)q, field, bits,
			     back);
}

START_TEST(all_half_patterns_at_every_t)
{
	struct tpd_grid_type type;

	ck_assert(tpd_grid_type(half_types[_i], &type));
	for (unsigned t = 1; t <= type.t_max; t++)
		for (uint32_t x = 0; x < 65536; x++)
			check_pattern(&type, x, t);
}
END_TEST

START_TEST(q_keeps_the_order)
{
	struct tpd_grid_type type;

	ck_assert(tpd_grid_type(half_types[_i], &type));
	for (unsigned t = 1; t <= type.t_max; t++) {
		int64_t last = -1;

		for (uint32_t x = 0; x < 32768; x++) {
			uint32_t field;
			unsigned bits;
			int64_t q = tpd_grid_q(&type, x, t, &field, &bits);

			/* no step is left out; a plain if, since ck_assert leaves a mark on disk each time */
			if (q < last || q > last + 1 || tpd_grid_q(&type, x | 0x8000, t, &field, &bits) != -1 - q)
				ck_abort_msg("x = %x, T = %u: Q = %lld", x, t, (long long)q);
			last = q;
		}
	}
}
END_TEST

/* Patterns of F32 that sit on a border, and random ones. */
static uint32_t f32_pattern(size_t i)
{
	static const uint32_t mantissas[] = {0, 1, 2, 0x3fffff, 0x400000, 0x400001, 0x7ffffe, 0x7fffff};
	const size_t borders = 256 * TPD_ARRAY_LEN(mantissas) * 2;

	if (i < borders)
		return (uint32_t)(i & 1) << 31 | (uint32_t)(i / 2 % 256) << 23 | mantissas[i / 512];
	return (uint32_t)next_random();
}

START_TEST(f32_patterns_at_every_t)
{
	struct tpd_grid_type type;

	ck_assert(tpd_grid_type(TPD_DTYPE_F32, &type));
	for (unsigned t = 1; t <= type.t_max; t++)
		for (size_t i = 0; i < 12000; i++)
			check_pattern(&type, f32_pattern(i), t);
}
END_TEST

START_TEST(no_pattern_for_what_is_none)
{
	struct tpd_grid_type type;
	uint32_t x = 77;

	ck_assert(tpd_grid_type(TPD_DTYPE_BF16, &type));
	/* at T = 127: B = 120 << 7 = 15360, so the field of G = 0 has 14 bits, and 15360 of their values are used */
	ck_assert(tpd_grid_unq(&type, 0, 127, 15359, &x));
	ck_assert_uint_eq(x, 15359);
	ck_assert(!tpd_grid_unq(&type, 0, 127, 15360, &x));
	/* the largest G: |x| = 7fff = G + (126 << 7) */
	ck_assert(tpd_grid_unq(&type, 0x7fff - (126 << 7), 127, 0, &x));
	ck_assert_uint_eq(x, 0x7fff);
	ck_assert(!tpd_grid_unq(&type, 0x8000 - (126 << 7), 127, 0, &x));
	/* a field that is wider than it may be */
	ck_assert(tpd_grid_unq(&type, 64, 127, 1, &x));
	ck_assert(!tpd_grid_unq(&type, 64, 127, 2, &x));
	ck_assert(!tpd_grid_type(TPD_DTYPE_F64, &type));
}
END_TEST

/* ---- kernels against pure functions ---- */

static uint8_t expected_symbol(const struct tpd_grid_type *type, uint32_t x, uint32_t p, unsigned t, uint32_t *out_bits)
{
	uint32_t field;
	unsigned bits, bits_p;
	int64_t d = tpd_grid_q(type, x, t, &field, &bits) - tpd_grid_q(type, p, t, &field, &bits_p);
	int64_t range = INT64_C(1) << type->width;

	d = d >= range / 2 ? d - range : d < -range / 2 ? d + range : d;
	*out_bits = 0;
	if (x == p)
		return 1;
	if (x == 0)
		return 2;
	*out_bits = d < -126 || d > 126 ? type->width : bits;
	return d < -126 || d > 126 ? 0 : (uint8_t)(d + 129);
}

/* The stream of fields that SPEC.md describes, read one by one the slow way. */
struct slow_fields {
	const uint8_t *words;
	size_t used, count;
	uint64_t queue[16];
	unsigned length[16];
};

static uint32_t slow_pull(struct slow_fields *fields, unsigned lane, unsigned bits)
{
	uint32_t value;

	while (fields->length[lane] < bits) {
		if (fields->used == fields->count)
			ck_abort_msg("the fields run out");
		fields->queue[lane] |= (uint64_t)tpd_get_u32(fields->words + 4 * fields->used++)
			<< fields->length[lane];
		fields->length[lane] += 32;
	}
	value = (uint32_t)(fields->queue[lane] & ((UINT64_C(1) << bits) - 1));
	fields->queue[lane] >>= bits;
	fields->length[lane] -= bits;
	return value;
}

static void check_form(const struct tpd_kernels *kernels, enum tpd_dtype dtype, unsigned t, const uint32_t *x, const uint32_t *p, size_t n)
{
	struct tpd_grid_type type;
	struct tpd_fields_in in;
	struct slow_fields slow = {0};
	const size_t rounds = (n + TPD_LANES - 1) / TPD_LANES, room = 4 * rounds * TPD_LANES + TPD_FIELDS_SLACK;
	size_t width, len;
	uint8_t *new, *old, *symbols, *back, *buffer, *words, *bits_of_fields;
	uint32_t *values;

	ck_assert(tpd_grid_type(dtype, &type));
	width = type.width / 8;
	new = malloc(n * width);
	old = malloc(n * width);
	back = malloc(n * width);
	symbols = malloc(n);
	buffer = malloc(room);
	values = malloc(4 * rounds * TPD_LANES);
	bits_of_fields = malloc(rounds * TPD_LANES);
	ck_assert(new && old && back && symbols && buffer && values && bits_of_fields);
	for (size_t i = 0; i < n * width; i++) {
		new[i] = (uint8_t)(x[i / width] >> 8 * (i % width));
		old[i] = (uint8_t)(p[i / width] >> 8 * (i % width));
	}
	kernels->grid_encode(dtype, t, new, old, n, NULL, symbols, values, bits_of_fields);
	words = kernels->fields_pack(values, bits_of_fields, rounds, buffer + room);
	ck_assert(words >= buffer);
	len = (size_t)(buffer + room - words);
	slow.words = words + 4;
	slow.count = len / 4 - 1;
	ck_assert_uint_eq(tpd_get_u32(words), slow.count);
	for (size_t i = 0; i < n; i++) {
		uint32_t bits, value, want;
		uint8_t symbol = expected_symbol(&type, x[i], p[i], t, &bits);

		value = slow_pull(&slow, (unsigned)(i % 16), bits);
		want = (uint32_t)(x[i] & ((UINT64_C(1) << bits) - 1));
		if (symbols[i] != symbol || value != want)
			ck_abort_msg("%s: x = %x, p = %x, T = %u, place %zu: symbol %u, not %u; %u bits are %x, not %x",
				     kernels->name, x[i], p[i], t, i, symbols[i], symbol, bits, value, want);
	}
	ck_assert_uint_eq(slow.used, slow.count);
	tpd_fields_open(&in, words + 4, len - 4);
	ck_assert(kernels->grid_decode(dtype, &(uint8_t){(uint8_t)t}, &(struct tpd_pieces){n, n, n}, old, symbols, NULL, back, &in));
	ck_assert(tpd_fields_done(&in));
	ck_assert_mem_eq(back, new, n * width);
	free(new);
	free(old);
	free(back);
	free(symbols);
	free(buffer);
	free(values);
	free(bits_of_fields);
}

/* With every form of the kernels that this machine has. */
static void check_piece(enum tpd_dtype dtype, unsigned t, const uint32_t *x, const uint32_t *p, size_t n)
{
	size_t forms;
	const struct tpd_kernels *const *kernels = tpd_kernels_all(&forms);

	for (size_t i = 0; i < forms; i++)
		check_form(kernels[i], dtype, t, x, p, n);
}

START_TEST(half_kernels_do_what_the_functions_say)
{
	static uint32_t x[65536], p[65536];
	struct tpd_grid_type type;

	ck_assert(tpd_grid_type(half_types[_i], &type));
	for (unsigned t = 1; t <= type.t_max; t++) {
		for (uint32_t i = 0; i < 65536; i++) {
			x[i] = i;
			p[i] = (uint32_t)((next_random() & 3) ? (i + (next_random() & 15) - 8) & 0xffff
							      : next_random() & 0xffff);
		}
		check_piece(half_types[_i], t, x, p, 65536);
	}
}
END_TEST

START_TEST(f32_kernels_do_what_the_functions_say)
{
	static uint32_t x[20000], p[20000];

	for (unsigned t = 1; t <= 254; t++) {
		for (size_t i = 0; i < TPD_ARRAY_LEN(x); i++) {
			uint64_t r = next_random();

			x[i] = f32_pattern((i + r % 5) % 20000);
			switch (r >> 60 & 3) {
			case 0:
				p[i] = f32_pattern(r >> 20 & 0xffff);
				break;
			case 1:
				p[i] = x[i] ^ (UINT32_C(1) << (r >> 30 & 31));
				break;
			default:
				p[i] = x[i] + (uint32_t)(r >> 10 & 0xff) - 128;
			}
		}
		check_piece(TPD_DTYPE_F32, t, x, p, TPD_ARRAY_LEN(x));
	}
}
END_TEST

START_TEST(short_pieces)
{
	for (size_t n = 1; n <= 70; n++) {
		uint32_t x[70], p[70];

		for (unsigned t = 1; t <= 30; t += 1) {
			for (size_t i = 0; i < n; i++) {
				x[i] = (uint32_t)next_random() & 0xffff;
				p[i] = next_random() & 1 ? x[i] : x[i] ^ 5;
			}
			check_piece(TPD_DTYPE_F16, t, x, p, n);
			check_piece(TPD_DTYPE_BF16, t * 8, x, p, n);
			for (size_t i = 0; i < n; i++)
				x[i] = x[i] << 15 ^ (uint32_t)next_random() % 999;
			check_piece(TPD_DTYPE_F32, t * 8, x, p, n);
		}
	}
}
END_TEST

/* ---- T of a piece ---- */

static unsigned naive_t(const float *x, const float *p, size_t n, unsigned bias)
{
	unsigned counts[256] = {0}, total = 0, e = 0, seen = 0;
	int t;

	for (size_t i = 0; i < n; i++) {
		float d = x[i] - p[i];
		uint32_t bits, a, b;

		memcpy(&bits, &d, 4);
		memcpy(&a, &x[i], 4);
		memcpy(&b, &p[i], 4);
		if (a == b || (bits >> 23 & 255) == 255)
			continue;
		counts[bits >> 23 & 255]++;
		total++;
	}
	if (total == 0)
		return 1;
	for (; seen + counts[e] < (total + 1) / 2; e++)
		seen += counts[e];
	t = (int)e + 23 - (int)bias;
	return t < 1 ? 1 : t > 254 ? 254 : (unsigned)t;
}

/* What all forms say. */
static unsigned choose_t(enum tpd_dtype dtype, const uint8_t *x, const uint8_t *p, size_t n, unsigned bias)
{
	size_t forms;
	const struct tpd_kernels *const *kernels = tpd_kernels_all(&forms);
	unsigned t = kernels[0]->choose_t(dtype, x, p, n, bias);

	for (size_t i = 1; i < forms; i++)
		ck_assert_uint_eq(kernels[i]->choose_t(dtype, x, p, n, bias), t);
	return t;
}

START_TEST(t_is_the_median_exponent)
{
	static float x[8192], p[8192];

	for (unsigned round = 0; round < 600; round++) {
		size_t n = 1 + next_random() % (round % 3 ? 100 : 8192);
		unsigned spread = 1 + (unsigned)(next_random() % 250), bias = 2 + round % 2;

		for (size_t i = 0; i < n; i++) {
			uint32_t a = (uint32_t)next_random(), b = (uint32_t)next_random();

			a = (a & 0x807fffff) | (uint32_t)(next_random() % spread + round % 6) << 23;
			b = next_random() % 4 == 0
				? a
				: (b & 0x807fffff) | (uint32_t)(next_random() % spread + round % 6) << 23;
			memcpy(&x[i], &a, 4);
			memcpy(&p[i], &b, 4);
		}
		ck_assert_uint_eq(choose_t(TPD_DTYPE_F32, (uint8_t *)x, (uint8_t *)p, n, bias),
				  naive_t(x, p, n, bias));
	}
}
END_TEST

START_TEST(t_of_the_half_types)
{
	uint8_t x[6], p[6];

	/* 1.0 against 1.0 + 2^-7 (BF16): exponent field 120; T = 120 + 7 - 2 */
	tpd_put_u16(x, 0x3f81);
	tpd_put_u16(p, 0x3f80);
	ck_assert_uint_eq(choose_t(TPD_DTYPE_BF16, x, p, 1, 2), 125);
	ck_assert_uint_eq(choose_t(TPD_DTYPE_BF16, x, p, 1, 3), 124);
	/* 1.0 against 1.0 + 2^-10 (F16): exponent field 5; T = 5 + 10 - 2 */
	tpd_put_u16(x, 0x3c01);
	tpd_put_u16(p, 0x3c00);
	ck_assert_uint_eq(choose_t(TPD_DTYPE_F16, x, p, 1, 2), 13);
	/* Inf and NaN do not count, nor do equal ones */
	tpd_put_u16(x + 2, 0x7c00);
	tpd_put_u16(p + 2, 0x3c00);
	tpd_put_u16(x + 4, 0x5555);
	tpd_put_u16(p + 4, 0x5555);
	ck_assert_uint_eq(choose_t(TPD_DTYPE_F16, x, p, 3, 2), 13);
	ck_assert_uint_eq(choose_t(TPD_DTYPE_F16, x + 2, p + 2, 2, 2), 1);
	/* the smallest denormal of F16 is 2^-24: field -9, clamped */
	tpd_put_u16(x, 1);
	tpd_put_u16(p, 0);
	ck_assert_uint_eq(choose_t(TPD_DTYPE_F16, x, p, 1, 2), 1);
	/* 65504 against -65504: 2^16.99, field 31; 31 + 10 - 2 is clamped */
	tpd_put_u16(x, 0x7bff);
	tpd_put_u16(p, 0xfbff);
	ck_assert_uint_eq(choose_t(TPD_DTYPE_F16, x, p, 1, 2), 30);
}
END_TEST

/* ---- pairs through the real thing ---- */

static struct pairs pairs;

START_TEST(sampled_pairs)
{
	static const uint16_t special[] = {0,      0x8000, 1,      0x8001, 0x7f,   0x80,   0x3ff,
					   0x400,  0x3f80, 0xbf80, 0x3c00, 0x7bff, 0x7c00, 0x7c01,
					   0xfc00, 0x7e00, 0x7f7f, 0x7f80, 0x7f81, 0xffff};
	enum tpd_dtype dtype = half_types[_i];
	struct tpd_grid_type type;
	struct tpd_codec *codec;

	ck_assert(tpd_grid_type(dtype, &type));
	ck_assert_int_eq(tpd_codec_new(&codec, NULL), TPD_OK);
	for (unsigned k = 0; k < TPD_ARRAY_LEN(special) + 40; k++) {
		uint16_t p = k < TPD_ARRAY_LEN(special) ? special[k] : (uint16_t)next_random();
		const unsigned steps[] = {
			0, 1, type.mantissa, type.mantissa + 1, (type.mantissa + type.t_max) / 2, type.t_max};

		for (size_t i = 0; i < TPD_ARRAY_LEN(steps); i++)
			ck_assert_msg(pairs_check(&pairs, codec, dtype, steps[i], p), "%s", pairs.text);
	}
	tpd_codec_free(codec);
}
END_TEST

START_TEST(f32_pairs)
{
	static const unsigned steps[] = {0, 1, 2, 22, 23, 24, 25, 126, 127, 128, 253, 254};
	enum { N = 40000 };
	uint8_t *x = malloc(4 * N), *p = malloc(4 * N), *back = malloc(4 * N);
	struct tpd_codec *codec;

	ck_assert(x && p && back);
	ck_assert_int_eq(tpd_codec_new(&codec, NULL), TPD_OK);
	for (unsigned round = 0; round < 5; round++) {
		for (uint32_t i = 0; i < N; i++) {
			uint32_t a = f32_pattern(i < 9000 ? i : next_random() % 5000),
				 b = f32_pattern(next_random() % 5000);

			if (round == 1)
				b = a ^ UINT32_C(0x80000000);
			else if (round == 2)
				b = a + (uint32_t)(next_random() & 255) - 128;
			else if (round == 3)
				b = i % 3 ? a : 0;
			else if (round == 4)
				b = UINT32_C(0x7fc12345);
			tpd_put_u32(x + 4 * i, a);
			tpd_put_u32(p + 4 * i, b);
		}
		for (size_t k = 0; k < TPD_ARRAY_LEN(steps); k++) {
			struct tpd_plan plan = {.encoding = steps[k] ? TPD_ENCODING_GRID : TPD_ENCODING_SPARSE,
						.dtype = TPD_DTYPE_F32,
						.row = 8192,
						.grid_bias = 2};
			struct tpd_chunk chunk = {.x = x, .len = 4 * N, .p = p, .ref_len = 4 * N, .element = 12345};
			struct tpd_err err = {0};
			size_t len;

			ck_assert_int_eq(tpd_encode_with(codec, &plan, &chunk, steps[k], &len, &err), TPD_OK);
			ck_assert_msg(tpd_decode_chunk(codec, plan.encoding, plan.dtype, codec->payload.data, len, p,
						       4 * N, back, 4 * N, &err) == TPD_OK,
				      "T = %u: %s", steps[k], err.text);
			ck_assert_mem_eq(back, x, 4 * N);
		}
	}
	tpd_codec_free(codec);
	free(x);
	free(p);
	free(back);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("grid");
	TCase *tcase = tcase_create("grid");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tcase, 1200);
	tcase_add_loop_test(tcase, all_half_patterns_at_every_t, 0, 2);
	tcase_add_loop_test(tcase, q_keeps_the_order, 0, 2);
	tcase_add_test(tcase, f32_patterns_at_every_t);
	tcase_add_test(tcase, no_pattern_for_what_is_none);
	tcase_add_loop_test(tcase, half_kernels_do_what_the_functions_say, 0, 2);
	tcase_add_test(tcase, f32_kernels_do_what_the_functions_say);
	tcase_add_test(tcase, short_pieces);
	tcase_add_test(tcase, t_is_the_median_exponent);
	tcase_add_test(tcase, t_of_the_half_types);
	tcase_add_loop_test(tcase, sampled_pairs, 0, 2);
	tcase_add_test(tcase, f32_pairs);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? 0 : 1;
}
