/*
 * t_rows.c - the encodings `rows` and `rows-ref`: a payload made by hand, each of its fields changed; and that elements of one byte, made as in
 * training, take less than zstd makes of them.
 */
#include "base/tpd.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "base/bytes.h"
#include "codec/internal.h"
#include "codec/rows.h"
#include "files.h"

static struct tpd_codec *codec;

static void set_up(void)
{
	ck_assert_int_eq(tpd_codec_new(&codec, NULL), TPD_OK);
}

static void tear_down(void)
{
	ck_assert_uint_eq(tpd_codec_mismatches(codec), 0);
	tpd_codec_free(codec);
}

/* --- by hand --- */

struct parts {
	unsigned form, row, first, groups;
	uint8_t sources[3], group_of[3];
	unsigned piece_count;
	uint8_t tables[32]; /* as they stand */
	unsigned tables_len, k;
	uint32_t words, states[2];
	unsigned word_count, left;
};

static void build(struct tpd_buf *buf, const struct parts *parts)
{
	tpd_buf_u8(buf, (uint8_t)parts->form);
	tpd_buf_u16(buf, (uint16_t)parts->row);
	tpd_buf_u16(buf, (uint16_t)parts->first);
	tpd_buf_u8(buf, (uint8_t)parts->groups);
	tpd_buf_u8(buf, TPD_CODER_RAW);
	tpd_buf_put(buf, parts->sources, parts->piece_count);
	tpd_buf_u8(buf, TPD_CODER_RAW);
	tpd_buf_put(buf, parts->group_of, parts->piece_count);
	tpd_buf_put(buf, parts->tables, parts->tables_len);
	tpd_buf_u8(buf, (uint8_t)parts->k);
	tpd_buf_u32(buf, parts->words);
	for (unsigned lane = 0; lane < 1u << parts->k && lane < 2; lane++)
		tpd_buf_u32(buf, parts->states[lane]);
	for (unsigned i = 0; i < parts->word_count; i++)
		tpd_buf_u16(buf, 0);
	for (unsigned i = 0; i < parts->left; i++)
		tpd_buf_u8(buf, 0);
}

/*
 * I8, rows of 2: from nothing, from the reference, from the first row. Group 0 has one table with one symbol, 9 (e = -5). Group 1 has
 * one for keys below 2 (symbol 2: e = 1), and one in which 0 and 1 are as likely (e = 0, e = -1; turned round where s is negative).
 */
static const uint8_t ref[6] = {9, 9, 10, 0x90, 9, 9}; /* 0x90: -112, key 14 */
static const uint8_t expect[6] = {0xfb, 0xfb, 11, 0x91, 0xfa, 0xfa};

static struct parts honest(void)
{
	struct parts parts = {.row = 2, .first = 2, .groups = 2, .sources = {0, 255, 2}, .group_of = {0, 1, 1}, .piece_count = 3,
			      .tables = {0, 9, 9, 1, 2, 2, 2, 0, 1, 0x80, 0x10, 0x80, 0x10}, .tables_len = 13};
	uint32_t x = 1u << 15;

	parts.states[0] = (x / 2048 << 12) + x % 2048 + 2048; /* the one symbol that is coded: 1 */
	return parts;
}

static enum tpd_status decode_as(const struct parts *parts, enum tpd_encoding encoding, enum tpd_dtype dtype, uint8_t out[6])
{
	struct tpd_buf buf = {0};
	uint8_t *exact;
	enum tpd_status status;

	build(&buf, parts);
	exact = malloc(buf.len);
	memcpy(exact, buf.data, buf.len);
	status = tpd_decode_chunk(codec, encoding, dtype, exact, buf.len, ref, sizeof(ref), out, 6, NULL);
	free(exact);
	tpd_buf_release(&buf);
	return status;
}

#define REFUSED(change, verdict)                                                                   \
	do {                                                                                       \
		struct parts parts = honest();                                                     \
		parts.change;                                                                      \
		ck_assert_int_eq(decode_as(&parts, TPD_ENCODING_ROWS_REF, TPD_DTYPE_I8, out), verdict); \
	} while (0)

START_TEST(fields)
{
	struct parts good = honest();
	uint8_t out[6];

	ck_assert_int_eq(decode_as(&good, TPD_ENCODING_ROWS_REF, TPD_DTYPE_I8, out), TPD_OK);
	ck_assert_mem_eq(out, expect, 6);
	REFUSED(form = 2, TPD_UNSUPPORTED);
	REFUSED(form = 1, TPD_CORRUPT); /* as halves, more is coded than there is */
	REFUSED(row = 0, TPD_CORRUPT);
	REFUSED(row = 8193, TPD_CORRUPT);
	REFUSED(first = 0, TPD_CORRUPT);
	REFUSED(first = 3, TPD_CORRUPT);
	REFUSED(groups = 0, TPD_CORRUPT);
	REFUSED(groups = 17, TPD_CORRUPT);
	REFUSED(groups = 1, TPD_CORRUPT);
	REFUSED(group_of[1] = 2, TPD_CORRUPT);
	REFUSED(group_of[2] = 0, TPD_OK);
	REFUSED(sources[0] = 1, TPD_CORRUPT); /* before the chunk */
	REFUSED(sources[2] = 1, TPD_CORRUPT); /* from 0x91, which has the table in which more would be coded */
	REFUSED(sources[2] = 3, TPD_CORRUPT);
	REFUSED(sources[2] = 254, TPD_CORRUPT);
	REFUSED(piece_count = 2, TPD_CORRUPT);
	REFUSED(tables[0] = 32, TPD_CORRUPT);
	REFUSED(tables[1] = 10, TPD_CORRUPT); /* first > last */
	REFUSED(tables[4] = 0, TPD_CORRUPT);  /* a bound */
	REFUSED(tables[4] = 32, TPD_CORRUPT);
	REFUSED(tables[10] = 0x11, TPD_CORRUPT); /* frequencies */
	REFUSED(tables_len = 12, TPD_CORRUPT);
	REFUSED(k = 7, TPD_CORRUPT);
	REFUSED(k = 1, TPD_CORRUPT); /* a state that is 0 */
	REFUSED(words = 1, TPD_CORRUPT);
	REFUSED(words = UINT32_MAX, TPD_CORRUPT);
	REFUSED(states[0] = 0x7fff, TPD_CORRUPT);
	REFUSED(states[0] |= 0x80000000u, TPD_CORRUPT);
	REFUSED(states[0] += 1, TPD_CORRUPT); /* it ends elsewhere */
	REFUSED(word_count = 1, TPD_CORRUPT);
	REFUSED(left = 1, TPD_CORRUPT);
	/* without a reference there is no source 255 */
	ck_assert_int_eq(decode_as(&good, TPD_ENCODING_ROWS, TPD_DTYPE_I8, out), TPD_CORRUPT);
	good.sources[1] = 1; /* from -5, which has key 0, as have all */
	good.states[0] = 1u << 15;
	ck_assert_int_eq(decode_as(&good, TPD_ENCODING_ROWS, TPD_DTYPE_I8, out), TPD_OK);
	ck_assert_int_eq((int8_t)out[2], -6);
	/* 65 tables: the fourth group of 16 and one more */
	good = honest();
	good.tables[0] = 63;
	ck_assert_int_eq(decode_as(&good, TPD_ENCODING_ROWS_REF, TPD_DTYPE_I8, out), TPD_CORRUPT);
}
END_TEST

/* Halves: 4 bits each, 16 symbols and no more. */
START_TEST(halves)
{
	/* 6 bytes from the reference, all e = 1 (symbol 2), of 4 bits: no carry from one half to the other */
	struct parts good = {.form = 1, .row = 6, .first = 6, .groups = 1, .sources = {255}, .piece_count = 1, .tables = {0, 2, 2},
			     .tables_len = 3, .states = {1u << 15}};
	uint8_t out[6];

	ck_assert_int_eq(decode_as(&good, TPD_ENCODING_ROWS_REF, TPD_DTYPE_U8, out), TPD_OK);
	for (unsigned i = 0; i < 6; i++)
		ck_assert_uint_eq(out[i], (((ref[i] & 15) + 1) & 15) | ((((ref[i] >> 4) + 1) & 15) << 4));
	ck_assert_int_eq(decode_as(&good, TPD_ENCODING_ROWS_REF, TPD_DTYPE_I8, out), TPD_OK);
	ck_assert_int_eq(decode_as(&good, TPD_ENCODING_ROWS_REF, TPD_DTYPE_F4, out), TPD_OK);
	ck_assert_int_eq(decode_as(&good, TPD_ENCODING_ROWS_REF, TPD_DTYPE_F8_E4M3, out), TPD_CORRUPT);
	ck_assert_int_eq(decode_as(&good, TPD_ENCODING_ROWS_REF, TPD_DTYPE_BOOL, out), TPD_CORRUPT);
	good.tables[1] = good.tables[2] = 16;
	ck_assert_int_eq(decode_as(&good, TPD_ENCODING_ROWS_REF, TPD_DTYPE_U8, out), TPD_CORRUPT);
}
END_TEST

START_TEST(types)
{
	uint8_t x[64] = {1}, p[64] = {0}, out[64];
	struct tpd_chunk chunk = {.x = x, .len = 64, .p = p, .ref_len = 64};
	enum tpd_encoding encoding;
	size_t len;

	for (unsigned dtype = 0; dtype < TPD_DTYPE_COUNT; dtype++) {
		bool narrow = dtype != TPD_DTYPE_BYTES && tpd_dtype_width((enum tpd_dtype)dtype) == 1;
		struct tpd_plan plan = {.encoding = TPD_ENCODING_ROWS, .dtype = (enum tpd_dtype)dtype, .row = 8};

		ck_assert_int_eq(tpd_encode_chunk(codec, &plan, &chunk, out, &encoding, &len, NULL), narrow ? TPD_OK : TPD_USAGE);
		plan.encoding = TPD_ENCODING_ROWS_REF;
		ck_assert_int_eq(tpd_encode_chunk(codec, &plan, &chunk, out, &encoding, &len, NULL), narrow ? TPD_OK : TPD_USAGE);
		if (!narrow)
			ck_assert_int_eq(tpd_decode_chunk(codec, TPD_ENCODING_ROWS, plan.dtype, x, 64, p, 64, out, 64, NULL), TPD_CORRUPT);
	}
	ck_assert(tpd_encoding_needs_reference(TPD_ENCODING_ROWS_REF) && !tpd_encoding_needs_reference(TPD_ENCODING_ROWS));
}
END_TEST

/* Every pair of values, of every type and form: a symbol each, and back. */
START_TEST(every_pair)
{
	for (unsigned dtype = 0; dtype < TPD_DTYPE_COUNT; dtype++) {
		for (unsigned form = 0; form < 2; form++) {
			const unsigned values = form ? 16 : 256;
			struct tpd_rows_type type;

			tpd_rows_type((enum tpd_dtype)dtype, form == 1, &type);
			for (unsigned s = 0; s < values; s++) {
				bool seen[256] = {false};

				ck_assert_uint_lt(type.key[s], TPD_ROWS_KEYS);
				for (unsigned x = 0; x < values; x++) {
					unsigned symbol = tpd_rows_symbol(&type, (uint8_t)x, (uint8_t)s);

					ck_assert(symbol < values && !seen[symbol] && (symbol == 0) == (x == s));
					seen[symbol] = true;
					ck_assert_uint_eq(tpd_rows_value(&type, (uint8_t)symbol, (uint8_t)s), x);
				}
			}
		}
	}
}
END_TEST

/* --- against zstd --- */

#define ROWS 256u
#define COLUMNS 512u
#define N (ROWS * COLUMNS)

static float before[N], after[N];

/* Weights, rows of different widths, and one step of training: of about 2 % of their size, in rows more or less. */
static void train(void)
{
	uint64_t random = 31;

	for (unsigned r = 0; r < ROWS; r++) {
		double width = 0.02 * exp(0.3 * random_normal(&random)), step = 2e-4 * exp(0.5 * random_normal(&random));

		for (unsigned c = 0; c < COLUMNS; c++) {
			before[r * COLUMNS + c] = (float)(width * random_normal(&random));
			after[r * COLUMNS + c] = (float)(before[r * COLUMNS + c] + step * random_normal(&random));
		}
	}
}

/* With a scale for each row, to -127 .. 127. */
static void to_i8(const float *w, uint8_t *out)
{
	for (unsigned r = 0; r < ROWS; r++, w += COLUMNS, out += COLUMNS) {
		float most = 0;

		for (unsigned c = 0; c < COLUMNS; c++)
			most = fmaxf(most, fabsf(w[c]));
		for (unsigned c = 0; c < COLUMNS; c++)
			out[c] = (uint8_t)lrintf(w[c] / most * 127);
	}
}

/* With a scale and a zero point for each row. */
static void to_u8(const float *w, uint8_t *out)
{
	for (unsigned r = 0; r < ROWS; r++, w += COLUMNS, out += COLUMNS) {
		float low = w[0], high = w[0];

		for (unsigned c = 0; c < COLUMNS; c++) {
			low = fminf(low, w[c]);
			high = fmaxf(high, w[c]);
		}
		for (unsigned c = 0; c < COLUMNS; c++)
			out[c] = (uint8_t)lrintf((w[c] - low) / (high - low) * 255);
	}
}

/* 4 bits with a scale for each 64, two a byte: half as many bytes, the rest stays as it is. */
static void to_u4(const float *w, uint8_t *out)
{
	for (unsigned g = 0; g < N / 64; g++, w += 64, out += 32) {
		float most = 0;

		for (unsigned c = 0; c < 64; c++)
			most = fmaxf(most, fabsf(w[c]));
		for (unsigned c = 0; c < 32; c++)
			out[c] = (uint8_t)((lrintf(w[2 * c] / most * 7) + 8) | (lrintf(w[2 * c + 1] / most * 7) + 8) << 4);
	}
}

/* Rounded to nearest, ties to even, to a float of 8 bits; w must be in its range. */
static uint8_t to_f8(float w, int mantissa, int smallest)
{
	int exponent = 0;
	long steps;
	float size = fabsf(w);

	if (size > 0)
		frexpf(size, &exponent);
	exponent = exponent - 1 < smallest ? smallest : exponent - 1;
	steps = lrintf(ldexpf(size, mantissa - exponent)); /* a carry into the next octave is right as it is */
	steps += (long)(exponent - smallest) << mantissa;
	return (uint8_t)(steps | (w < 0 ? 0x80 : 0));
}

static void to_e4m3(const float *w, uint8_t *out)
{
	for (unsigned i = 0; i < N; i++)
		out[i] = to_f8(w[i] * 1000, 3, -6); /* scaled to its range, as is usual */
}

static void to_e5m2(const float *w, uint8_t *out)
{
	for (unsigned i = 0; i < N; i++)
		out[i] = to_f8(w[i], 2, -14);
}

/* An optimizer's second moment: positive, blocks of 256 with the largest as scale, in steps of a constant ratio. */
static void to_state(const float *w, uint8_t *out)
{
	for (unsigned b = 0; b < N / 256; b++, w += 256, out += 256) {
		float most = 0;

		for (unsigned c = 0; c < 256; c++)
			most = fmaxf(most, w[c] * w[c]);
		for (unsigned c = 0; c < 256; c++)
			out[c] = (uint8_t)fmaxf(0, 255 + rintf(16 * log2f(w[c] * w[c] / most + 1e-9f)));
	}
}

/* Which half of the weights is kept. */
static void to_mask(const float *w, uint8_t *out)
{
	for (unsigned i = 0; i < N; i++)
		out[i] = fabsf(w[i]) > 0.0135f;
}

static size_t zstd_takes(const uint8_t *x, const uint8_t *p, size_t len, int level)
{
	static uint8_t out[2 * N];
	ZSTD_CCtx *context = ZSTD_createCCtx();
	size_t size;

	ck_assert_ptr_nonnull(context);
	ck_assert(!ZSTD_isError(ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, level)));
	if (p) { /* as --patch-from does */
		ck_assert(!ZSTD_isError(ZSTD_CCtx_setParameter(context, ZSTD_c_enableLongDistanceMatching, 1)));
		ck_assert(!ZSTD_isError(ZSTD_CCtx_setParameter(context, ZSTD_c_windowLog, 20)));
		ck_assert(!ZSTD_isError(ZSTD_CCtx_refPrefix(context, p, len)));
	}
	size = ZSTD_compress2(context, out, sizeof(out), x, len);
	ck_assert(!ZSTD_isError(size));
	ZSTD_freeCCtx(context);
	return size;
}

/* As a store does it: a plan, from all of it, and a chunk. */
static size_t tpd_takes(enum tpd_dtype dtype, const uint8_t *x, const uint8_t *p, size_t len, uint32_t row)
{
	static uint8_t out[N], back[N];
	const struct tpd_sample sample = {.x = x, .p = p, .len = len, .stretch = len};
	const struct tpd_chunk chunk = {.x = x, .len = len, .p = p, .ref_len = p ? len : 0};
	enum tpd_encoding encoding;
	struct tpd_plan plan;
	uint64_t bytes, alone;
	size_t size;

	ck_assert_int_eq(tpd_plan_choose(codec, dtype, row, &sample, &plan, &bytes, &alone, NULL), TPD_OK);
	ck_assert_int_eq(tpd_encode_chunk(codec, &plan, &chunk, out, &encoding, &size, NULL), TPD_OK);
	ck_assert_int_eq(tpd_decode_chunk(codec, encoding, dtype, out, size, p, chunk.ref_len, back, len, NULL), TPD_OK);
	ck_assert_mem_eq(back, x, len);
	return size;
}

static const struct {
	const char *what;
	enum tpd_dtype dtype;
	void (*make)(const float *w, uint8_t *out);
	size_t len;
	uint32_t row;
	unsigned alone, changed; /* at most so many thousandths of what zstd takes: without a reference, with */
} kinds[] = {
	{"I8", TPD_DTYPE_I8, to_i8, N, COLUMNS, 998, 310},
	{"U8", TPD_DTYPE_U8, to_u8, N, COLUMNS, 999, 300},
	{"4 bits in U8", TPD_DTYPE_U8, to_u4, N / 2, COLUMNS / 2, 996, 500},
	{"F8_E4M3", TPD_DTYPE_F8_E4M3, to_e4m3, N, COLUMNS, 986, 372},
	{"F8_E5M2", TPD_DTYPE_F8_E5M2, to_e5m2, N, COLUMNS, 984, 400},
	{"state", TPD_DTYPE_U8, to_state, N, COLUMNS, 998, 400},
	{"mask", TPD_DTYPE_BOOL, to_mask, N, COLUMNS, 976, 770},
};

START_TEST(less_than_zstd)
{
	static uint8_t x[N], p[N];
	size_t own, other;

	train();
	kinds[_i].make(before, p);
	kinds[_i].make(after, x);
	own = tpd_takes(kinds[_i].dtype, x, NULL, kinds[_i].len, kinds[_i].row);
	other = TPD_MIN(zstd_takes(x, NULL, kinds[_i].len, 3), zstd_takes(x, NULL, kinds[_i].len, 19));
	ck_assert_msg(own * 1000 <= other * kinds[_i].alone, "%s alone: %zu bytes, zstd %zu", kinds[_i].what, own, other);
}
END_TEST

START_TEST(less_than_zstd_against_a_reference)
{
	static uint8_t x[N], p[N];
	size_t own, other;

	train();
	kinds[_i].make(before, p);
	kinds[_i].make(after, x);
	own = tpd_takes(kinds[_i].dtype, x, p, kinds[_i].len, kinds[_i].row);
	other = TPD_MIN(zstd_takes(x, p, kinds[_i].len, 3), zstd_takes(x, p, kinds[_i].len, 19));
	ck_assert_msg(own * 1000 <= other * kinds[_i].changed, "%s against a reference: %zu bytes, zstd %zu", kinds[_i].what, own, other);
}
END_TEST

/* Rows that are each like one before, but not the one right before: what a state says of words that were not seen. */
START_TEST(rows_like_others)
{
	static uint8_t x[N];
	uint64_t random = 7;
	size_t own, other;

	for (unsigned i = 0; i < N; i++)
		x[i] = (uint8_t)(i < 5 * COLUMNS ? 128 + (int)(random_normal(&random) * 20) : x[i - 5 * COLUMNS] + (random_normal(&random) > 1));
	own = tpd_takes(TPD_DTYPE_U8, x, NULL, N, COLUMNS);
	other = zstd_takes(x, NULL, N, 19);
	ck_assert_msg(own * 2 < other, "%zu bytes, zstd %zu", own, other);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("rows");
	TCase *tests = tcase_create("rows");
	SRunner *runner = srunner_create(suite);
	int failed;

	suite_add_tcase(suite, tests);
	tcase_add_checked_fixture(tests, set_up, tear_down);
	tcase_set_timeout(tests, 120);
	tcase_add_test(tests, fields);
	tcase_add_test(tests, halves);
	tcase_add_test(tests, types);
	tcase_add_test(tests, every_pair);
	tcase_add_loop_test(tests, less_than_zstd, 0, (int)TPD_ARRAY_LEN(kinds));
	tcase_add_loop_test(tests, less_than_zstd_against_a_reference, 0, (int)TPD_ARRAY_LEN(kinds));
	tcase_add_test(tests, rows_like_others);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
