/*
 * t_wide.c - F64 on the grid, and integers of 2, 4 and 8 bytes: that any pattern comes back, and that what training makes of them takes less than
 * zstd -19 makes of it. Payloads by hand are in t_second_decoder.
 */
#include "base/tpd.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "base/bytes.h"
#include "codec/grid64.h"
#include "codec/integers.h"
#include "codec/internal.h"
#include "files.h"
#include "random_bits.h"

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

/* --- patterns --- */

/* Zeros, the ends of the denormals and of the finite numbers, infinite ones, NaN, 1.0 and its neighbours, and anything. */
static uint64_t odd(unsigned i)
{
	static const uint64_t patterns[] = {0, 1, 2, 0x000fffffffffffff, 0x0010000000000000, 0x7fefffffffffffff, 0x7ff0000000000000,
					    0x7ff8000000000000, 0x7fffffffffffffff, 0x3ff0000000000000, 0x3fefffffffffffff, 0x3ff0000000000001};
	uint64_t sign = (uint64_t)(i & 1) << 63;

	i /= 2;
	return i < TPD_ARRAY_LEN(patterns) ? patterns[i] | sign : next_random() >> next_random() % 64;
}

START_TEST(q_and_back)
{
	static const unsigned cuts[] = {0, 1, 29, 51};
	const struct tpd_grid64_type type = tpd_grid64_type(cuts[_i]);

	for (unsigned i = 0; i < 200; i++) {
		const uint64_t x = odd(i) >> cuts[_i];

		for (unsigned t = 1; t <= TPD_GRID64_T_MAX; t++) {
			const int64_t q = tpd_grid64_q(type, x, t);
			const unsigned bits = tpd_grid64_bits(type, (uint64_t)(q < 0 ? -1 - q : q), t);
			uint64_t back = ~x;

			ck_assert(tpd_grid64_unq(type, q, t, tpd_grid64_field(type, x, bits), bits, &back));
			if (back != x)
				ck_abort_msg("T = %u, %016llx came back as %016llx", t, (unsigned long long)x, (unsigned long long)back);
		}
	}
}
END_TEST

/* Anything against anything, with any T for all: as F64 that end in so many zeros. */
START_TEST(any_pair)
{
	static const unsigned zeros[] = {0, 7, 29, 60};
	static uint8_t x[8 * 700], p[8 * 700], back[8 * 700];
	const struct tpd_plan plan = {.encoding = TPD_ENCODING_GRID, .dtype = TPD_DTYPE_F64, .row = 100, .grid_bias = 2};
	const struct tpd_chunk chunk = {.x = x, .len = sizeof(x) - 3, .p = p, .ref_len = sizeof(p) - 100, .element = 150};

	for (unsigned round = 0; round < 300; round++) {
		const unsigned t = round % 3 == 0 ? 0 : 1 + (unsigned)(next_random() % TPD_GRID64_T_MAX);
		size_t len;

		for (unsigned i = 0; i < 700; i++) {
			uint64_t old = odd((unsigned)(next_random() % 60)), new = next_random() % 4 ? old + next_random() % 9 - 4 : odd(i % 60);

			tpd_put_u64(p + 8 * i, old);
			tpd_put_u64(x + 8 * i, new >> zeros[round % 4] << zeros[round % 4]);
		}
		ck_assert_int_eq(tpd_encode_with(codec, &plan, &chunk, t, &len, NULL), TPD_OK);
		ck_assert_int_eq(tpd_decode_chunk(codec, TPD_ENCODING_GRID, TPD_DTYPE_F64, codec->payload.data, len, p, chunk.ref_len, back,
						  chunk.len, NULL),
				 TPD_OK);
		ck_assert_mem_eq(back, x, chunk.len);
	}
}
END_TEST

/* Every form, with the ends of the range next to each other. */
START_TEST(any_integers)
{
	static const enum tpd_dtype types[] = {TPD_DTYPE_I16, TPD_DTYPE_U32, TPD_DTYPE_I64};
	const enum tpd_dtype dtype = types[_i];
	const size_t width = tpd_dtype_width(dtype);
	uint8_t x[8 * 300], p[8 * 300], back[8 * 300];

	for (unsigned form = 0; form < TPD_INTEGERS_FORMS; form++)
		for (unsigned reference = 0; reference < 2; reference++)
			for (unsigned shift = 0; shift <= 64; shift += 4) {
				struct tpd_plan plan = {.encoding = reference ? TPD_ENCODING_INTEGERS_REF : TPD_ENCODING_INTEGERS, .dtype = dtype,
							.row = 1, .form = (uint8_t)form};
				struct tpd_chunk chunk = {.x = x, .len = 300 * width - 1, .p = p, .ref_len = 299 * width};
				size_t len;

				for (size_t i = 0; i < 300; i++) {
					tpd_integer_put(x + i * width, (unsigned)width, shift < 64 ? next_random() >> shift : 0);
					tpd_integer_put(p + i * width, (unsigned)width, next_random() % 3 ? next_random() : UINT64_MAX);
				}
				ck_assert_int_eq(tpd_encode_with(codec, &plan, &chunk, 0, &len, NULL), TPD_OK);
				if (len == SIZE_MAX && form & TPD_INTEGERS_FRAME) /* no frame of so few random bytes is as short */
					continue;
				ck_assert_int_eq(tpd_decode_chunk(codec, plan.encoding, dtype, codec->payload.data, len, p, chunk.ref_len, back,
								  chunk.len, NULL),
						 TPD_OK);
				ck_assert_mem_eq(back, x, chunk.len);
			}
}
END_TEST

START_TEST(types)
{
	uint8_t x[64] = {1}, p[64] = {0}, out[64];
	struct tpd_chunk chunk = {.x = x, .len = 64, .p = p, .ref_len = 64};
	enum tpd_encoding encoding;
	size_t len;

	for (unsigned d = 0; d < TPD_DTYPE_COUNT; d++) {
		const enum tpd_dtype dtype = (enum tpd_dtype)d;
		const bool wide = dtype == TPD_DTYPE_I16 || dtype == TPD_DTYPE_U16 || dtype == TPD_DTYPE_I32 || dtype == TPD_DTYPE_U32 ||
				  dtype == TPD_DTYPE_I64 || dtype == TPD_DTYPE_U64;
		struct tpd_plan plan = {.encoding = TPD_ENCODING_INTEGERS, .dtype = dtype, .row = 8};

		ck_assert_int_eq(tpd_encode_chunk(codec, &plan, &chunk, out, &encoding, &len, NULL), wide ? TPD_OK : TPD_USAGE);
		plan.encoding = TPD_ENCODING_INTEGERS_REF;
		ck_assert_int_eq(tpd_encode_chunk(codec, &plan, &chunk, out, &encoding, &len, NULL), wide ? TPD_OK : TPD_USAGE);
		chunk.ref_len = 0; /* without a reference it becomes the other */
		if (wide)
			ck_assert_int_eq(tpd_encode_chunk(codec, &plan, &chunk, out, &encoding, &len, NULL), TPD_OK);
		ck_assert(!wide || encoding == TPD_ENCODING_INTEGERS);
		chunk.ref_len = 64;
	}
	ck_assert(tpd_encoding_needs_reference(TPD_ENCODING_INTEGERS_REF) && !tpd_encoding_needs_reference(TPD_ENCODING_INTEGERS));
}
END_TEST

/* --- against zstd --- */

#define N TPD_CHUNK_ELEMENTS

static uint64_t of_random = 31;

static double normal(void)
{
	return random_normal(&of_random);
}

static void put_double(uint8_t *out, size_t i, double v)
{
	uint64_t bits;

	memcpy(&bits, &v, sizeof(bits));
	tpd_put_u64(out + 8 * i, bits);
}

/* Weights and a step of training, small against most of them. */
static void make_f64(uint8_t *x, uint8_t *p)
{
	for (size_t i = 0; i < N; i++) {
		double w = 0.02 * normal();

		put_double(p, i, w);
		put_double(x, i, w + 2e-4 * normal());
	}
}

static void make_widened(uint8_t *x, uint8_t *p)
{
	for (size_t i = 0; i < N; i++) {
		float w = (float)(0.02 * normal());

		put_double(p, i, (double)w);
		put_double(x, i, (double)(float)((double)w + 2e-4 * normal()));
	}
}

/* Positions of the ones of a mask, of which some have moved to the next. */
static void make_sorted(uint8_t *x, uint8_t *p)
{
	uint64_t at = 0;

	for (size_t i = 0; i < N; i++) {
		at += 2 + next_random() % 30;
		tpd_put_u32(p + 4 * i, (uint32_t)at);
		tpd_put_u32(x + 4 * i, (uint32_t)(at + (next_random() % 200 == 0)));
	}
}

/* Words of a text, of which some come often and some hardly ever; phrases are repeated. Another part of it later. */
static void make_tokens(uint8_t *x, uint8_t *p)
{
	for (size_t i = 0; i < 2 * N; i++) {
		uint8_t *out = i < N ? p + 8 * i : x + 8 * (i - N), *base = i < N ? p : x;
		size_t place = i % N;
		uint64_t r = next_random();

		if (place > 2000 && r % 16 == 0) {
			size_t from = next_random() % (place - 100), count = 2 + next_random() % 6;

			for (size_t k = 0; k < count && place + k < N; k++, i++)
				memcpy(base + 8 * (place + k), base + 8 * (from + k), 8);
			i--;
			continue;
		}
		tpd_put_u64(out, (uint64_t)(50257 * pow((double)(r >> 11) / 9007199254740992.0, 4)));
	}
}

static void make_positions(uint8_t *x, uint8_t *p)
{
	for (size_t i = 0; i < N; i++) {
		tpd_put_u64(p + 8 * i, i % 512);
		tpd_put_u64(x + 8 * i, i % 500);
	}
}

static void make_permutation(uint8_t *x, uint8_t *p)
{
	for (size_t i = 0; i < N; i++) {
		const size_t j = next_random() % (i + 1), k = next_random() % (i + 1);

		memcpy(p + 4 * i, p + 4 * j, 4);
		tpd_put_u32(p + 4 * j, (uint32_t)i);
		memcpy(x + 4 * i, x + 4 * k, 4);
		tpd_put_u32(x + 4 * k, (uint32_t)i);
	}
}

/* How often each was seen, then and now. */
static void make_counters(uint8_t *x, uint8_t *p)
{
	for (size_t i = 0; i < N; i++) {
		double often = exp(6 + 2 * normal());

		tpd_put_u64(p + 8 * i, (uint64_t)often);
		tpd_put_u64(x + 8 * i, (uint64_t)often + (uint64_t)(often * (0.01 + 0.002 * fabs(normal()))));
	}
}

static void make_samples(uint8_t *x, uint8_t *p)
{
	for (size_t i = 0; i < N; i++) {
		int v = (int)(3000 * normal());

		tpd_put_u16(p + 2 * i, (uint16_t)v);
		tpd_put_u16(x + 2 * i, (uint16_t)(v + (int)(8 * normal())));
	}
}

/* Eight values of 4 bits in each, as quantised weights are packed. */
static void make_packed(uint8_t *x, uint8_t *p)
{
	for (size_t i = 0; i < N; i++) {
		uint32_t old = 0, new = 0;

		for (unsigned k = 0; k < 8; k++) {
			int v = (int)lrint(8 + 2 * normal());

			v = TPD_MAX(0, TPD_MIN(v, 15));
			old |= (uint32_t)v << 4 * k;
			new |= (uint32_t)(v + (next_random() % 50 == 0 && v < 15)) << 4 * k;
		}
		tpd_put_u32(p + 4 * i, old);
		tpd_put_u32(x + 4 * i, new);
	}
}

static const struct {
	const char *what;
	enum tpd_dtype dtype;
	void (*make)(uint8_t *x, uint8_t *p);
	unsigned alone, changed; /* at most so many thousandths of what zstd takes: without a reference, with */
} kinds[] = {
	{"F64", TPD_DTYPE_F64, make_f64, 925, 850},
	{"F64 from F32", TPD_DTYPE_F64, make_widened, 870, 700},
	{"sorted I32", TPD_DTYPE_I32, make_sorted, 550, 550},
	{"tokens, I64", TPD_DTYPE_I64, make_tokens, 950, 950},
	{"positions, I64", TPD_DTYPE_I64, make_positions, 500, 900},
	{"permutation, U32", TPD_DTYPE_U32, make_permutation, 850, 850},
	{"counters, I64", TPD_DTYPE_I64, make_counters, 850, 480},
	{"I16", TPD_DTYPE_I16, make_samples, 930, 450},
	{"packed I32", TPD_DTYPE_I32, make_packed, 1000, 850},
};

static size_t zstd_takes(const uint8_t *x, const uint8_t *p, size_t len)
{
	const size_t cap = ZSTD_compressBound(len);
	uint8_t *out = malloc(cap);
	ZSTD_CCtx *context = ZSTD_createCCtx();
	size_t size;

	ck_assert(context && out);
	ck_assert(!ZSTD_isError(ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, 19)));
	if (p) { /* as --patch-from does */
		ck_assert(!ZSTD_isError(ZSTD_CCtx_setParameter(context, ZSTD_c_enableLongDistanceMatching, 1)));
		ck_assert(!ZSTD_isError(ZSTD_CCtx_setParameter(context, ZSTD_c_windowLog, 22)));
		ck_assert(!ZSTD_isError(ZSTD_CCtx_refPrefix(context, p, len)));
	}
	size = ZSTD_compress2(context, out, cap, x, len);
	ck_assert(!ZSTD_isError(size));
	ZSTD_freeCCtx(context);
	free(out);
	return size;
}

/* As a store does it: a plan, from the stretches of a large tensor's sample, and a chunk. */
static size_t tpd_takes(enum tpd_dtype dtype, const uint8_t *x, const uint8_t *p, size_t len)
{
	const size_t stretch = TPD_SAMPLE_STRETCH_ELEMENTS * tpd_dtype_width(dtype), step = (len - stretch) / (TPD_SAMPLE_STRETCHES - 1);
	uint8_t *sample_x = malloc(TPD_SAMPLE_STRETCHES * stretch), *sample_p = malloc(TPD_SAMPLE_STRETCHES * stretch);
	uint8_t *out = malloc(len), *back = malloc(len);
	struct tpd_sample sample = {.x = sample_x, .len = TPD_SAMPLE_STRETCHES * stretch, .stretch = stretch};
	struct tpd_chunk chunk = {.x = x, .len = len, .p = p, .ref_len = p ? len : 0};
	enum tpd_encoding encoding;
	struct tpd_plan plan;
	uint64_t bytes, alone;
	size_t size;

	ck_assert(sample_x && sample_p && out && back);
	for (size_t i = 0; i < TPD_SAMPLE_STRETCHES; i++) {
		size_t start = i * step / tpd_dtype_width(dtype) * tpd_dtype_width(dtype);

		memcpy(sample_x + i * stretch, x + start, stretch);
		if (p)
			memcpy(sample_p + i * stretch, p + start, stretch);
	}
	sample.p = p ? sample_p : NULL;
	ck_assert_int_eq(tpd_plan_choose(codec, dtype, 1024, &sample, &plan, &bytes, &alone, NULL), TPD_OK);
	ck_assert_int_eq(tpd_encode_chunk(codec, &plan, &chunk, out, &encoding, &size, NULL), TPD_OK);
	ck_assert_int_eq(tpd_decode_chunk(codec, encoding, dtype, out, size, p, chunk.ref_len, back, len, NULL), TPD_OK);
	ck_assert_mem_eq(back, x, len);
	free(sample_x);
	free(sample_p);
	free(out);
	free(back);
	return size;
}

START_TEST(less_than_zstd)
{
	static uint8_t x[8 * N], p[8 * N];
	const size_t len = N * tpd_dtype_width(kinds[_i].dtype);
	size_t own, other;

	kinds[_i].make(x, p);
	own = tpd_takes(kinds[_i].dtype, x, NULL, len);
	other = zstd_takes(x, NULL, len);
	ck_assert_msg(own * 1000 <= other * kinds[_i].alone, "%s alone: %zu bytes, zstd %zu", kinds[_i].what, own, other);
	own = tpd_takes(kinds[_i].dtype, x, p, len);
	other = zstd_takes(x, p, len);
	ck_assert_msg(own * 1000 <= other * kinds[_i].changed, "%s against a reference: %zu bytes, zstd %zu", kinds[_i].what, own, other);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("wide");
	TCase *tests = tcase_create("wide");
	SRunner *runner = srunner_create(suite);
	int failed;

	suite_add_tcase(suite, tests);
	tcase_add_checked_fixture(tests, set_up, tear_down);
	tcase_set_timeout(tests, 120);
	tcase_add_loop_test(tests, q_and_back, 0, 4);
	tcase_add_test(tests, any_pair);
	tcase_add_loop_test(tests, any_integers, 0, 3);
	tcase_add_test(tests, types);
	tcase_add_loop_test(tests, less_than_zstd, 0, (int)TPD_ARRAY_LEN(kinds));
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
