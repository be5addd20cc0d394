/*
 * t_low_rank.c - what the rows of a change have in common (SPEC.md section 10): found where it is, left alone where it is not, the same from all
 * forms of the kernels, and refused where it is damaged.
 */
#include "base/tpd.h"

#include "codec/low_rank.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/random.h"
#include "codec/codec.h"
#include "codec/internal.h"
#include "codec/kernels.h"
#include "second_decoder.h"

#define N_MAX (1u << 17)

static uint64_t seed = 0x243f6a8885a308d3u;
static float x[N_MAX], w1[N_MAX];
static uint8_t payload[4 * N_MAX], other[4 * N_MAX], back[4 * N_MAX], second[4 * N_MAX];
static struct tpd_codec *codec;

static uint64_t rnd(uint64_t below)
{
	return (tpd_random_next(&seed) >> 11) % below;
}

/* About normal, with the variance 1. */
static float normal(void)
{
	float sum = 0;

	for (unsigned i = 0; i < 12; i++)
		sum += (float)rnd(1u << 20) / (float)(1u << 20);
	return sum - 6;
}

static void setup(void)
{
	ck_assert_int_eq(tpd_codec_new(&codec, NULL), TPD_OK);
}

static void teardown(void)
{
	ck_assert_uint_eq(tpd_codec_mismatches(codec), 0);
	tpd_codec_free(codec);
}

/* Weights, and how they changed: noise, and `rank` products of a row's and a column's factor, each of the noise's size. */
static void make(size_t n, size_t row, size_t offset, unsigned rank)
{
	static float a[16][N_MAX / 32 + 2], b[16][8192];

	ck_assert_uint_le(rank, 16);
	for (unsigned k = 0; k < rank; k++) {
		for (size_t i = 0; i < TPD_ARRAY_LEN(a[k]); i++)
			a[k][i] = normal();
		for (size_t i = 0; i < row; i++)
			b[k][i] = normal();
	}
	for (size_t i = 0; i < n; i++) {
		const size_t r = (offset + i) / row, c = (offset + i) % row;
		float change = normal();

		for (unsigned k = 0; k < rank; k++)
			change += a[k][r] * b[k][c];
		w1[i] = 0.02f * normal();
		x[i] = w1[i] + 1e-5f * (1 + (float)(r % 5)) * change;
	}
}

static size_t encode(size_t n, size_t row, size_t offset, bool low_rank, uint8_t *out)
{
	const struct tpd_inputs inputs = {0};
	const struct tpd_plan plan = {.encoding = TPD_ENCODING_PREDICTED, .dtype = TPD_DTYPE_F32, .row = (uint32_t)row, .grid_bias = 2,
				      .terms = TPD_TERM_DECAY, .low_rank = low_rank};
	const struct tpd_chunk chunk = {.x = (const uint8_t *)x, .len = 4 * n, .p = (const uint8_t *)w1, .ref_len = 4 * n, .element = offset,
					.inputs = &inputs};
	enum tpd_encoding encoding;
	size_t len;

	ck_assert_int_eq(tpd_encode_chunk(codec, &plan, &chunk, out, &encoding, &len, NULL), TPD_OK);
	ck_assert_int_eq(encoding, TPD_ENCODING_PREDICTED);
	ck_assert_int_eq(tpd_decode_chunk_with(codec, encoding, TPD_DTYPE_F32, out, len,
					       &(struct tpd_references){(const uint8_t *)w1, 4 * n, &inputs}, back, 4 * n, NULL),
			 TPD_OK);
	ck_assert_mem_eq(back, x, 4 * n);
	ck_assert_int_eq(second_decode(TPD_ENCODING_PREDICTED, TPD_DTYPE_F32, out, len, (const uint8_t *)w1, 4 * n, second, 4 * n), SECOND_OK);
	ck_assert_mem_eq(second, x, 4 * n);
	return len;
}

static bool has_low_rank(const uint8_t *made)
{
	return made[1] & 2;
}

/* With products as strong as the noise each, noise is what remains: log2(1 + rank) / 2 bits an element less, but for what the factors take. */
START_TEST(found_where_it_is)
{
	static const struct {
		size_t n, row, offset;
		unsigned rank;
	} cases[] = {{N_MAX, 256, 0, 3}, {N_MAX, 688, 0, 5}, {N_MAX, 688, 131072, 5}, {100003, 300, 299, 2}, {33 * 256, 256, 0, 1},
		     {N_MAX, 4096, 0, 1}, {N_MAX, 64, 1, 8}, {N_MAX, 512, 3, 12}};

	for (size_t i = 0; i < TPD_ARRAY_LEN(cases); i++) {
		const size_t n = cases[i].n, row = cases[i].row, offset = cases[i].offset;
		const double expected = log2(1.0 + cases[i].rank) / 2;
		size_t without, with;

		make(n, row, offset, cases[i].rank);
		without = encode(n, row, offset, false, other);
		with = encode(n, row, offset, true, payload);
		ck_assert(!has_low_rank(other));
		ck_assert_msg(has_low_rank(payload), "case %zu", i);
		ck_assert_msg(payload[6] == cases[i].rank || payload[6] == cases[i].rank + 1, "case %zu: %u", i, payload[6]);
		ck_assert_msg(8.0 * ((double)without - (double)with) / (double)n > 0.75 * expected - 4.0 * cases[i].rank * (double)(n / row + row) / (double)n,
			      "case %zu: %zu, %zu", i, without, with);
	}
}
END_TEST

START_TEST(left_alone_where_it_is_not)
{
	static const struct {
		size_t n, row;
		unsigned rank;
	} cases[] = {{N_MAX, 256, 0}, {N_MAX, 688, 0}, {N_MAX, 8192, 4}, {31 * 256, 256, 4}, {20000, 31, 4}, {5000, 100, 0}, {320, 32, 0}};

	for (size_t i = 0; i < TPD_ARRAY_LEN(cases); i++) {
		size_t len;

		make(cases[i].n, cases[i].row, 0, cases[i].rank);
		len = encode(cases[i].n, cases[i].row, 0, true, payload);
		ck_assert(!has_low_rank(payload));
		ck_assert_uint_eq(encode(cases[i].n, cases[i].row, 0, false, other), len);
		ck_assert_mem_eq(payload, other, len);
	}
}
END_TEST

/* Rows that did not change, or are not finite, or beyond what can be squared, do not count; the others have what they have. */
START_TEST(rows_of_all_kinds)
{
	const size_t row = 128, rows = 600, n = row * rows;

	for (unsigned round = 0; round < 6; round++) {
		make(n, row, 0, 3);
		for (size_t r = 0; r < rows; r++) {
			const uint64_t kind = rnd(8);

			for (size_t i = r * row; i < (r + 1) * row; i++) {
				if (kind == 0)
					x[i] = w1[i];
				else if (kind == 1 && i % 50 == 7)
					x[i] = i % 100 == 7 ? NAN : -INFINITY;
				else if (kind == 2 && i % 60 == 1)
					w1[i] = 3e38f;
				else if (kind == 3)
					x[i] = w1[i] * 1e25f;
				else if (kind == 4)
					x[i] = w1[i] = 1e-40f * (float)rnd(100);
			}
		}
		encode(n, row, 0, true, payload);
		ck_assert(has_low_rank(payload));
	}
}
END_TEST

/* It is looked for only where that is asked for, and where rows are neither too short nor too long. */
START_TEST(asked_for)
{
	static const struct {
		uint32_t row;
		bool asked, expected;
	} cases[] = {{256, true, true}, {256, false, false}, {31, true, false}, {4096, true, true}, {4097, true, false}};
	static const uint8_t sets[] = {TPD_TERM_DECAY};
	const struct tpd_inputs inputs = {0};

	make(TPD_SAMPLE_STRETCHES * TPD_SAMPLE_STRETCH_ELEMENTS, 256, 0, 2);
	for (size_t i = 0; i < TPD_ARRAY_LEN(cases); i++) {
		const struct tpd_sample sample = {.x = (const uint8_t *)x, .p = (const uint8_t *)w1,
						  .len = TPD_SAMPLE_STRETCHES * TPD_SAMPLE_STRETCH_ELEMENTS * 4,
						  .stretch = TPD_SAMPLE_STRETCH_ELEMENTS * 4, .inputs = &inputs, .term_sets = sets, .term_set_count = 1,
						  .try_low_rank = cases[i].asked};
		struct tpd_plan plan;
		uint64_t bytes, alone;

		ck_assert_int_eq(tpd_plan_choose(codec, TPD_DTYPE_F32, cases[i].row, &sample, &plan, &bytes, &alone, NULL), TPD_OK);
		ck_assert_int_eq(plan.low_rank, cases[i].expected);
		ck_assert_int_eq(plan.encoding, cases[i].expected ? TPD_ENCODING_PREDICTED : TPD_ENCODING_GRID);
		ck_assert_uint_eq(plan.row, cases[i].row);
	}
}
END_TEST

/* --- bytes --- */

/* A payload of 70 elements in two rows of 40 (the first is one of 35): all told as "equal to the prediction". */
struct parts {
	unsigned terms, form, rank, row, first;
	uint8_t shifts[33], exponents[8], a[40], b[90];
	size_t pieces;
};

static struct parts honest(void)
{
	struct parts parts = {.terms = 1, .form = 2, .rank = 2, .row = 40, .first = 35, .pieces = 2};

	memcpy(parts.shifts, (uint8_t[]){128, 129}, 2);
	memcpy(parts.exponents, (uint8_t[]){127, 126}, 2);
	memcpy(parts.a, (uint8_t[]){129, 131, 128, 126}, 4); /* 1, 3; 0, -2 */
	for (unsigned i = 0; i < 40; i++) {
		parts.b[i] = (uint8_t)(128 + i);
		parts.b[40 + i] = (uint8_t)(128 - i);
	}
	return parts;
}

static void build(struct tpd_buf *buf, const struct parts *parts)
{
	buf->len = 0;
	tpd_buf_u8(buf, (uint8_t)parts->terms);
	tpd_buf_u8(buf, (uint8_t)parts->form);
	tpd_buf_u32(buf, 0); /* the coefficient of w1 */
	tpd_buf_u8(buf, (uint8_t)parts->rank);
	tpd_buf_u16(buf, (uint16_t)parts->row);
	tpd_buf_u16(buf, (uint16_t)parts->first);
	tpd_buf_put(buf, parts->shifts, parts->rank);
	tpd_buf_u8(buf, TPD_CODER_RAW);
	tpd_buf_put(buf, parts->exponents, parts->pieces);
	tpd_buf_u8(buf, TPD_CODER_RAW);
	tpd_buf_put(buf, parts->a, parts->rank * parts->pieces);
	tpd_buf_u8(buf, TPD_CODER_RAW);
	tpd_buf_put(buf, parts->b, (size_t)2 * parts->row);
	tpd_buf_u16(buf, 8192); /* the grid's rows */
	tpd_buf_u16(buf, 8192);
	tpd_buf_put(buf, (uint8_t[]){TPD_CODER_RAW, 100}, 2);
	tpd_buf_put(buf, (uint8_t[]){TPD_CODER_CONSTANT, 1}, 2);
	tpd_buf_u32(buf, 0);
}

static enum tpd_status decode(const struct tpd_buf *buf, size_t len)
{
	const struct tpd_inputs inputs = {0};
	uint8_t *copy = malloc(len > 0 ? len : 1); /* so that reading beyond it is seen */
	enum tpd_status status;

	ck_assert_ptr_nonnull(copy);
	memcpy(copy, buf->data, len);
	status = tpd_decode_chunk_with(codec, TPD_ENCODING_PREDICTED, TPD_DTYPE_F32, copy, len,
				       &(struct tpd_references){(const uint8_t *)w1, 4 * 70, &inputs}, back, 4 * 70, NULL);
	ck_assert_int_eq(second_decode(TPD_ENCODING_PREDICTED, TPD_DTYPE_F32, copy, len, (const uint8_t *)w1, 4 * 70, second, 4 * 70),
			 status == TPD_OK ? SECOND_OK : status == TPD_CORRUPT ? SECOND_CORRUPT : SECOND_UNSUPPORTED);
	if (status == TPD_OK)
		ck_assert_mem_eq(second, back, 4 * 70);
	free(copy);
	return status;
}

START_TEST(what_the_bytes_say)
{
	struct parts parts = honest();
	struct tpd_buf buf = {0};
	float out[70];

	for (size_t i = 0; i < 70; i++)
		w1[i] = (float)i;
	build(&buf, &parts);
	ck_assert_int_eq(decode(&buf, buf.len), TPD_OK);
	memcpy(out, back, sizeof(out));
	for (size_t i = 0; i < 35; i++) /* columns from 5 on; exponents 127 + 128 - 128, 127 + 129 - 128: 1 and 2 */
		ck_assert_float_eq(out[i], (float)i + 1 * (float)(i + 5) + 0);
	for (size_t i = 35; i < 70; i++) /* 1/2 and 1: 3/2 c, and -2 times -c */
		ck_assert_float_eq(out[i], (float)i + 1.5f * (float)(i - 35) + 2 * (float)(i - 35));
	/* Exponents end at those of normal numbers; what is not finite is left out. */
	memset(parts.shifts, 255, 2);
	memset(parts.exponents, 255, 2);
	build(&buf, &parts);
	ck_assert_int_eq(decode(&buf, buf.len), TPD_OK);
	memcpy(out, back, sizeof(out));
	for (size_t i = 0; i < 70; i++) {
		const float l = i < 35 ? 0x1p127f * (float)(i + 5) + 0 * 0x1p127f : 3 * 0x1p127f;

		ck_assert_float_eq(out[i], isfinite((float)i + l) ? (float)i + l : (float)i);
	}
	memset(parts.shifts, 0, 2);
	memset(parts.exponents, 0, 2);
	build(&buf, &parts);
	memset(w1, 0, 70 * sizeof(*w1));
	ck_assert_int_eq(decode(&buf, buf.len), TPD_OK);
	memcpy(out, back, sizeof(out));
	ck_assert_float_eq(out[1], 0x1p-126f * 6);
	tpd_buf_release(&buf);
}
END_TEST

START_TEST(damaged)
{
	struct parts parts = honest();
	struct tpd_buf buf = {0};
	size_t len;

	make(70, 40, 0, 0);
	build(&buf, &parts);
	len = buf.len;
	ck_assert_int_eq(decode(&buf, len), TPD_OK);
	for (size_t cut = 0; cut < len; cut++)
		ck_assert_int_eq(decode(&buf, cut), TPD_CORRUPT);
	for (unsigned i = 0; i < 10; i++) {
		static const struct {
			size_t at;
			unsigned value;
			enum tpd_status expected;
		} changes[] = {{1, 4, TPD_UNSUPPORTED}, {1, 0, TPD_CORRUPT}, {1, 3, TPD_CORRUPT}, {6, 0, TPD_CORRUPT}, {6, 1, TPD_UNSUPPORTED},
			       {6, 33, TPD_CORRUPT}, {7, 0, TPD_CORRUPT}, {8, 33, TPD_CORRUPT}, {9, 0, TPD_CORRUPT}, {9, 41, TPD_CORRUPT}};
		const uint8_t before = buf.data[changes[i].at];

		buf.data[changes[i].at] = (uint8_t)changes[i].value;
		ck_assert_msg(decode(&buf, len) == changes[i].expected, "change %u", i);
		buf.data[changes[i].at] = before;
	}
	parts.row = 31; /* too short, and all else as it must be for that */
	parts.first = 31;
	parts.pieces = 3;
	memset(parts.exponents, 127, 3);
	build(&buf, &parts);
	ck_assert_int_eq(decode(&buf, buf.len), TPD_CORRUPT);
	parts.row = parts.first = 32;
	build(&buf, &parts);
	ck_assert_int_eq(decode(&buf, buf.len), TPD_OK);
	for (unsigned i = 0; i < 20000; i++) { /* anything: no more than a status */
		parts = honest();
		build(&buf, &parts);
		for (unsigned k = 0; k <= i % 3; k++)
			buf.data[rnd(buf.len)] = (uint8_t)rnd(256);
		decode(&buf, buf.len - rnd(2));
	}
	tpd_buf_release(&buf);
}
END_TEST

/* --- kernels --- */

START_TEST(the_same_from_all_forms)
{
	enum { ROWS = 13, COLUMNS = 333, RANK = 19 };
	static float basis[COLUMNS * TPD_LOW_RANK_LANES], sums[2][COLUMNS * TPD_LOW_RANK_LANES + 1], products[2][ROWS * TPD_LOW_RANK_LANES + 1],
		added[2][COLUMNS + 1], factors[RANK];
	static double squares[2][TPD_LOW_RANK_LANES * TPD_LOW_RANK_LANES];
	size_t count;
	const struct tpd_kernels *const *forms = tpd_kernels_all(&count);

	for (unsigned round = 0; round < 300; round++) {
		const size_t rows = 1 + rnd(ROWS), n = 1 + rnd(COLUMNS), rank = rnd(RANK + 1), first = rnd(100);
		float scales[ROWS];

		for (size_t i = 0; i < rows * n; i++)
			x[i] = normal();
		for (size_t i = 0; i < TPD_LOW_RANK_COLUMNS(RANK, COLUMNS + 100); i++)
			w1[i] = rnd(100) ? normal() : INFINITY;
		for (size_t i = 0; i < TPD_ARRAY_LEN(basis); i++)
			basis[i] = normal();
		for (size_t i = 0; i < ROWS; i++)
			scales[i] = 0.1f + (float)i;
		for (size_t i = 0; i < RANK; i++)
			factors[i] = rnd(20) ? normal() : 0;
		for (size_t f = 0; f < count; f++) {
			float *const s = sums[f > 0], *const p = products[f > 0], *const a = added[f > 0];

			for (size_t i = 0; i < n * TPD_LOW_RANK_LANES; i++)
				s[i] = (float)i;
			s[n * TPD_LOW_RANK_LANES] = p[rows * TPD_LOW_RANK_LANES] = a[n] = 77;
			for (size_t i = 0; i < n; i++)
				a[i] = i % 97 ? (float)i : INFINITY;
			forms[f]->low_rank_square(x, n, rows, scales, basis, s);
			forms[f]->low_rank_project(x, n, rows, basis, p);
			forms[f]->low_rank_products(basis, n, squares[f > 0]);
			forms[f]->low_rank_add(factors, rank, w1, first, n, a);
			ck_assert_mem_eq(s, sums[0], (n * TPD_LOW_RANK_LANES + 1) * sizeof(float));
			ck_assert_mem_eq(p, products[0], (rows * TPD_LOW_RANK_LANES + 1) * sizeof(float));
			ck_assert_mem_eq(squares[f > 0], squares[0], sizeof(squares[0]));
			ck_assert_mem_eq(a, added[0], (n + 1) * sizeof(float));
		}
		ck_assert_float_eq(added[0][n], 77);
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("low_rank");
	TCase *tests = tcase_create("tests");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_set_timeout(tests, 120);
	tcase_add_test(tests, found_where_it_is);
	tcase_add_test(tests, left_alone_where_it_is_not);
	tcase_add_test(tests, rows_of_all_kinds);
	tcase_add_test(tests, asked_for);
	tcase_add_test(tests, what_the_bytes_say);
	tcase_add_test(tests, damaged);
	tcase_add_test(tests, the_same_from_all_forms);
	suite_add_tcase(suite, tests);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
