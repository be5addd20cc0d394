/*
 * t_stepped.c - the encoding `stepped`: payloads made by hand, each of their fields changed, and what it saves on weights that Adam moved.
 */
#include "base/tpd.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "codec/internal.h"
#include "codec/rounding.h"
#include "files.h"
#include "trained_weights.h"

static struct tpd_codec *codec;

static void set_up(void)
{
	ck_assert_int_eq(tpd_codec_new(&codec, NULL), TPD_OK);
}

static void tear_down(void)
{
	tpd_codec_free(codec);
}

/* --- by hand --- */

/* Two elements of BF16 in one row; what there is no table for has none. */
struct parts {
	unsigned terms, coefficients;
	float coefficient[4];
	unsigned t, by, level;
	float decay, noise;
	unsigned base, bound, symbol[2]; /* two classes of one symbol each */
	uint32_t state;
	unsigned field_words;
	uint32_t field;
};

/* BF16, which all of them are. */
static void put_float(struct tpd_buf *buf, float v)
{
	uint32_t bits;

	memcpy(&bits, &v, sizeof(bits));
	tpd_buf_u16(buf, (uint16_t)(bits >> 16));
}

static void build(struct tpd_buf *buf, const struct parts *parts)
{
	tpd_buf_u8(buf, (uint8_t)parts->terms);
	for (unsigned k = 0; k < parts->coefficients; k++)
		put_float(buf, parts->coefficient[k]);
	tpd_buf_u16(buf, 2); /* row, first, T */
	tpd_buf_u16(buf, 2);
	tpd_buf_u8(buf, TPD_CODER_RAW);
	tpd_buf_u8(buf, (uint8_t)parts->t);
	tpd_buf_u8(buf, (uint8_t)parts->by);
	if (parts->by < 2) {
		tpd_buf_u8(buf, TPD_CODER_RAW);
		tpd_buf_u8(buf, (uint8_t)parts->level);
	} else {
		put_float(buf, parts->decay);
		put_float(buf, parts->noise);
	}
	tpd_buf_u8(buf, (uint8_t)parts->base);
	tpd_buf_u8(buf, 2);
	tpd_buf_varint(buf, parts->bound);
	tpd_buf_u8(buf, 0); /* one lane */
	for (unsigned j = 0; j < 2; j++) {
		tpd_buf_u8(buf, 255);
		tpd_buf_u8(buf, (uint8_t)parts->symbol[j]);
	}
	tpd_buf_u32(buf, 0);
	tpd_buf_u32(buf, parts->state);
	tpd_buf_u32(buf, parts->field_words);
	for (unsigned i = 0; i < parts->field_words; i++)
		tpd_buf_u32(buf, parts->field);
}

/*
 * Both weights are 1.0. Before, they were 1.0 and 1 + 2^-6, so that with the coefficient 1 the steps are 0 and -2^-6: predicted are 1.0
 * and 1 - 2^-6 (0x3f7c). Exponents give the digit 127 - 124 = 3, the level 4; in ulps (2^-7) the steps are 0 and 2, and reach 0 and 484 -
 * 480 + 20 = 24. Keys: 48 * 31 = 1488, and 1512. The first is equal; the second is one below its prediction, and above it in the mirror.
 */
static struct parts honest(void)
{
	return (struct parts){.terms = TPD_TERM_STEP, .coefficients = 1, .coefficient = {1}, .t = 120, .by = 1, .level = 4, .base = 124,
			      .bound = 1500, .symbol = {1, 130}, .state = 1u << 15};
}

/*
 * With v, of which a quarter is new: 2^-6 * sqrt(1/4) for the first, that is reach 20, and a little more than the step, still reach 24, for
 * the second: keys of 48 * 3 + 20 = 164, and 168.
 */
static struct parts innovative(void)
{
	struct parts parts = honest();

	parts.terms = TPD_TERM_STEP | TPD_TERM_BEFORE | TPD_TERM_NOW;
	parts.coefficients = 3;
	parts.by = 2;
	parts.decay = 1;
	parts.noise = 0x1p-6f;
	parts.bound = 168;
	return parts;
}

/* Term 0 alone has a coefficient: -2^-5 * sqrt(1/4) for both, which is where they are predicted, 0x3f7c; both are of the second class. */
static struct parts jumping(void)
{
	struct parts parts = innovative();

	parts.terms |= 1;
	parts.coefficients = 4;
	parts.coefficient[0] = -0x1p-5f;
	parts.coefficient[1] = 0;
	return parts;
}

static float before[2] = {1, 1 + 0x1p-6f}, m1[2] = {1, 1}, v1[2] = {0.75f, 0.75f}, m2[2] = {1, 1}, v2[2] = {1, 1};

static enum tpd_status decode_from(const struct parts *parts, const struct tpd_inputs *inputs, uint16_t out[2])
{
	uint8_t p[4], bytes[4], *exact;
	struct tpd_buf buf = {0};
	enum tpd_status status;

	for (unsigned i = 0; i < 2; i++)
		tpd_put_u16(p + 2 * i, 0x3f80);
	build(&buf, parts);
	exact = malloc(buf.len);
	memcpy(exact, buf.data, buf.len);
	status = tpd_decode_chunk_with(codec, TPD_ENCODING_STEPPED, TPD_DTYPE_BF16, exact, buf.len,
				       &(struct tpd_references){p, 4, inputs}, bytes, 4, NULL);
	for (unsigned i = 0; i < 2; i++)
		out[i] = tpd_get_u16(bytes + 2 * i);
	free(exact);
	tpd_buf_release(&buf);
	return status;
}

static struct tpd_inputs all_inputs(void)
{
	return (struct tpd_inputs){.of = {[TPD_INPUT_W0] = {(const uint8_t *)before, 8}, [TPD_INPUT_M1] = {(const uint8_t *)m1, 8},
					  [TPD_INPUT_V1] = {(const uint8_t *)v1, 8}, [TPD_INPUT_M2] = {(const uint8_t *)m2, 8},
					  [TPD_INPUT_V2] = {(const uint8_t *)v2, 8}}};
}

static enum tpd_status decode(const struct parts *parts, uint16_t out[2])
{
	const struct tpd_inputs inputs = all_inputs();

	return decode_from(parts, &inputs, out);
}

#define GIVES(make, change, verdict, first, second)             \
	do {                                                    \
		struct parts parts = make();                    \
		uint16_t out[2];                                \
		parts.change;                                   \
		ck_assert_int_eq(decode(&parts, out), verdict); \
		if ((verdict) == TPD_OK) {                      \
			ck_assert_uint_eq(out[0], first);       \
			ck_assert_uint_eq(out[1], second);      \
		}                                               \
	} while (0)

START_TEST(fields)
{
	GIVES(honest, level = 4, TPD_OK, 0x3f80, 0x3f7b);
	GIVES(honest, symbol[1] = 128, TPD_OK, 0x3f80, 0x3f7d);
	GIVES(honest, symbol[1] = 129, TPD_OK, 0x3f80, 0x3f7c);
	GIVES(honest, symbol[1] = 1, TPD_OK, 0x3f80, 0x3f80);
	GIVES(honest, symbol[1] = 2, TPD_OK, 0x3f80, 0);
	GIVES(honest, symbol[0] = 130, TPD_OK, 0x3f81, 0x3f7b); /* no step: not mirrored */
	GIVES(honest, coefficient[0] = 2, TPD_OK, 0x3f80, 0x3f77);
	GIVES(honest, coefficient[0] = -1, TPD_OK, 0x3f80, 0x3f83); /* 1 + 2^-6 and one more */
	GIVES(honest, coefficient[0] = INFINITY, TPD_OK, 0x3f80, 0x3f80); /* no step for either: both are of the first class */
	GIVES(honest, coefficient[0] = NAN, TPD_OK, 0x3f80, 0x3f80);
	GIVES(honest, terms = 0, TPD_CORRUPT, 0, 0);
	GIVES(honest, terms = 16, TPD_CORRUPT, 0, 0);
	GIVES(honest, terms = 3, TPD_CORRUPT, 0, 0); /* a coefficient is missing */
	GIVES(honest, coefficients = 0, TPD_CORRUPT, 0, 0);
	GIVES(honest, coefficients = 2, TPD_CORRUPT, 0, 0);
	GIVES(honest, t = 0, TPD_CORRUPT, 0, 0);
	GIVES(honest, t = 255, TPD_CORRUPT, 0, 0);
	GIVES(honest, by = 2, TPD_CORRUPT, 0, 0); /* it has no v */
	GIVES(honest, by = 3, TPD_UNSUPPORTED, 0, 0);
	GIVES(honest, level = 9, TPD_CORRUPT, 0, 0);
	GIVES(honest, level = 3, TPD_OK, 0x3f81, 0x3f7b); /* keys are 48 more: both in the second class, and one above what is predicted */
	GIVES(honest, bound = 1488, TPD_OK, 0x3f81, 0x3f7b);
	GIVES(honest, bound = 1512, TPD_OK, 0x3f80, 0x3f7b);
	GIVES(honest, bound = 1513, TPD_OK, 0x3f80, 0x3f80);
	GIVES(honest, state = 0x8001, TPD_CORRUPT, 0, 0);
	GIVES(honest, field_words = 1, TPD_CORRUPT, 0, 0);
	GIVES(innovative, level = 4, TPD_OK, 0x3f80, 0x3f7b);
	GIVES(innovative, bound = 164, TPD_OK, 0x3f81, 0x3f7b);
	GIVES(innovative, bound = 165, TPD_OK, 0x3f80, 0x3f7b);
	GIVES(innovative, bound = 169, TPD_OK, 0x3f80, 0x3f80);
	GIVES(innovative, noise = 0, TPD_OK, 0x3f80, 0x3f7b);      /* keys 144 and 168 */
	GIVES(innovative, noise = -0x1p-6f, TPD_OK, 0x3f80, 0x3f7b);
	GIVES(innovative, noise = 0x1.8p-6f, TPD_OK, 0x3f80, 0x3f7b); /* 166, and sqrt(1 + 9/16) * 2^-6 is 169 */
	GIVES(innovative, noise = 0x1p-4f, TPD_OK, 0x3f81, 0x3f7b); /* 172 the first */
	GIVES(innovative, noise = NAN, TPD_OK, 0x3f81, 0x3f7b);     /* the last reach */
	GIVES(innovative, decay = 2, TPD_OK, 0x3f80, 0x3f7b);       /* nothing is new: as without noise */
	GIVES(innovative, decay = -7, TPD_OK, 0x3f81, 0x3f7b);      /* 2.5 * 2^-6 is 29 and more */
	GIVES(innovative, coefficients = 2, TPD_CORRUPT, 0, 0);
	GIVES(jumping, level = 4, TPD_OK, 0x3f7b, 0x3f7b);
	GIVES(jumping, symbol[1] = 129, TPD_OK, 0x3f7c, 0x3f7c);
	GIVES(jumping, coefficient[0] = 0, TPD_OK, 0x3f80, 0x3f80); /* no step, and both are of the first class */
	GIVES(jumping, coefficient[0] = 0x1p-5f, TPD_OK, 0x3f83, 0x3f83);
	GIVES(jumping, coefficient[0] = NAN, TPD_OK, 0x3f80, 0x3f80);
	GIVES(jumping, terms = 13, TPD_CORRUPT, 0, 0); /* a coefficient too many */
	GIVES(honest, terms = 1, TPD_CORRUPT, 0, 0);   /* not without both moments */
	GIVES(jumping, terms = 7, TPD_CORRUPT, 0, 0);
	GIVES(jumping, terms = 11, TPD_CORRUPT, 0, 0);
}
END_TEST

/* Each input that it needs, and no other, must be there; what is shorter goes on with zeros. */
START_TEST(needs)
{
	uint16_t out[2];

	for (unsigned i = 0; i < TPD_INPUT_COUNT; i++) {
		struct parts parts = honest(), with_v = innovative();
		struct tpd_inputs inputs = all_inputs();

		inputs.of[i] = (struct tpd_bytes){0};
		ck_assert_int_eq(decode_from(&parts, &inputs, out), i == TPD_INPUT_W0 ? TPD_CORRUPT : TPD_OK);
		ck_assert_int_eq(decode_from(&with_v, &inputs, out), TPD_CORRUPT);
	}
	{
		struct parts parts = honest();
		struct tpd_inputs inputs = all_inputs();

		ck_assert_int_eq(decode_from(&parts, NULL, out), TPD_CORRUPT);
		inputs.of[TPD_INPUT_W0].len = 4; /* the second weight came from 0 */
		ck_assert_int_eq(decode_from(&parts, &inputs, out), TPD_OK);
		ck_assert_uint_eq(out[1], 0x4001);
	}
}
END_TEST

/* Term 0 has the sign of m2, and is 0 where v did not grow. */
START_TEST(jumps)
{
	static const struct {
		float m2, v1, v2;
		uint16_t first;
	} cases[] = {
		{1, 0.75f, 1, 0x3f7c},   {-1, 0.75f, 1, 0x3f82},  {0, 0.75f, 1, 0x3f7c},   {-0.0f, 0.75f, 1, 0x3f82},
		{1, 1, 1, 0x3f80},       {1, 2, 1, 0x3f80},       {1, 0, 0, 0x3f80},       {1, -1, 0, 0x3f80},
		{1, NAN, 1, 0x3f80},     {1, 0, NAN, 0x3f80},     {1, 0, INFINITY, 0x3f80}, {1, 0, 1, 0x3f78},
	};

	for (size_t i = 0; i < TPD_ARRAY_LEN(cases); i++) {
		float m[2] = {cases[i].m2, 1}, before_now[2] = {cases[i].v1, 0.75f}, now[2] = {cases[i].v2, 1};
		struct tpd_inputs inputs = all_inputs();
		struct parts parts = jumping();
		uint16_t out[2];

		inputs.of[TPD_INPUT_M2].data = (const uint8_t *)m;
		inputs.of[TPD_INPUT_V1].data = (const uint8_t *)before_now;
		inputs.of[TPD_INPUT_V2].data = (const uint8_t *)now;
		parts.coefficient[2] = parts.coefficient[3] = 0;
		parts.symbol[0] = parts.symbol[1] = 129;
		ck_assert_int_eq(decode_from(&parts, &inputs, out), TPD_OK);
		ck_assert_msg(out[0] == cases[i].first, "case %zu: %04x", i, out[0]);
		ck_assert_uint_eq(out[1], 0x3f7c);
	}
}
END_TEST

/* --- training --- */

static size_t encode(const struct training *t, enum tpd_dtype dtype, enum tpd_encoding encoding, unsigned terms, uint8_t *out)
{
	const struct tpd_inputs inputs = inputs_of(t);
	struct tpd_plan plan = {.encoding = encoding, .dtype = dtype, .row = 512, .grid_bias = 2, .terms = (uint8_t)terms};
	struct tpd_chunk chunk = {.x = (const uint8_t *)t->x, .len = 2 * N, .p = (const uint8_t *)t->p, .ref_len = 2 * N, .inputs = &inputs};
	enum tpd_encoding used;
	size_t len = 0;

	ck_assert_int_eq(tpd_encode_chunk(codec, &plan, &chunk, out, &used, &len, NULL), TPD_OK);
	ck_assert_int_eq(used, encoding);
	ck_assert_uint_eq(tpd_codec_mismatches(codec), 0);
	return len;
}

/* Each term says something; both moments together more, and a fifth at least. Without its inputs a chunk is of `classes`. */
START_TEST(what_it_saves)
{
	const enum tpd_dtype dtype = _i ? TPD_DTYPE_F16 : TPD_DTYPE_BF16;
	struct training *t = malloc(sizeof(*t));
	uint8_t *out = malloc(2 * N), *back = malloc(2 * N);
	size_t plain, step, before_only, now, all;
	struct tpd_inputs inputs, other;

	ck_assert(t && out && back);
	train(dtype, t);
	plain = encode(t, dtype, TPD_ENCODING_CLASSES, 0, out);
	step = encode(t, dtype, TPD_ENCODING_STEPPED, TPD_TERM_STEP, out);
	before_only = encode(t, dtype, TPD_ENCODING_STEPPED, TPD_TERM_BEFORE, out);
	now = encode(t, dtype, TPD_ENCODING_STEPPED, TPD_TERM_NOW, out);
	all = encode(t, dtype, TPD_ENCODING_STEPPED, TPD_TERM_BEFORE | TPD_TERM_NOW, out);
	ck_assert_msg(step * 10 < plain * 9 && before_only * 10 < plain * 9 && now * 10 < plain * 9 && all < now && all < before_only &&
			      all * 5 < plain * 4,
		      "classes %zu; w0 %zu, m1 %zu, m2 %zu, m1 and m2 %zu", plain, step, before_only, now, all);
	inputs = other = inputs_of(t);
	ck_assert_int_eq(tpd_decode_chunk_with(codec, TPD_ENCODING_STEPPED, dtype, out, all,
					       &(struct tpd_references){(const uint8_t *)t->p, 2 * N, &inputs}, back, 2 * N, NULL),
			 TPD_OK);
	ck_assert_mem_eq(back, t->x, 2 * N);
	other.of[TPD_INPUT_M2] = other.of[TPD_INPUT_M1]; /* what it is not made from does not give it back */
	ck_assert(tpd_decode_chunk_with(codec, TPD_ENCODING_STEPPED, dtype, out, all,
					&(struct tpd_references){(const uint8_t *)t->p, 2 * N, &other}, back, 2 * N, NULL) != TPD_OK ||
		  memcmp(back, t->x, 2 * N) != 0);
	{
		struct tpd_plan plan = {.encoding = TPD_ENCODING_STEPPED, .dtype = dtype, .row = 512, .grid_bias = 2, .terms = TPD_TERM_NOW};
		struct tpd_chunk chunk = {.x = (const uint8_t *)t->x, .len = 2 * N, .p = (const uint8_t *)t->p, .ref_len = 2 * N};
		enum tpd_encoding used;
		size_t len;

		ck_assert_int_eq(tpd_encode_chunk(codec, &plan, &chunk, out, &used, &len, NULL), TPD_OK);
		ck_assert_int_eq(used, TPD_ENCODING_CLASSES);
		ck_assert_uint_eq(len, plain);
	}
	free(t);
	free(out);
	free(back);
}
END_TEST

/* Of a payload that was encoded every beginning is refused, and so is what has a byte more. */
START_TEST(truncations)
{
	enum { CLOSE = 600, STRIDE = 211 };
	const enum tpd_dtype dtype = _i ? TPD_DTYPE_F16 : TPD_DTYPE_BF16;
	struct training *t = malloc(sizeof(*t));
	uint8_t *out = malloc(2 * N + 1), *back = malloc(2 * N);
	struct tpd_inputs inputs;
	size_t len;

	ck_assert(t && out && back);
	train(dtype, t);
	inputs = inputs_of(t);
	len = encode(t, dtype, TPD_ENCODING_STEPPED, TPD_TERM_STEP | TPD_TERM_BEFORE | TPD_TERM_NOW, out);
	out[len] = 0;
	for (size_t cut = 0; cut <= len + 1; cut += cut < CLOSE || cut + CLOSE > len ? 1 : STRIDE) {
		uint8_t *exact = malloc(cut + 1);
		enum tpd_status status;

		ck_assert_ptr_nonnull(exact);
		memcpy(exact, out, cut);
		status = tpd_decode_chunk_with(codec, TPD_ENCODING_STEPPED, dtype, exact, cut,
					       &(struct tpd_references){(const uint8_t *)t->p, 2 * N, &inputs}, back, 2 * N, NULL);
		ck_assert_msg(status == (cut == len ? TPD_OK : TPD_CORRUPT), "%zu of %zu bytes: %s", cut, len, tpd_status_name(status));
		free(exact);
	}
	free(t);
	free(out);
	free(back);
}
END_TEST

/* The planner takes it where it pays, and not where the moments are somebody else's. */
START_TEST(planning)
{
	static const uint8_t sets[] = {TPD_TERM_DECAY | TPD_TERM_BEFORE | TPD_TERM_NOW, TPD_TERM_DECAY, TPD_TERM_STEP};
	struct training *t = malloc(sizeof(*t));
	struct tpd_sample sample;
	uint64_t plain, bytes, alone;
	struct tpd_inputs inputs;
	struct tpd_plan plan;

	ck_assert_ptr_nonnull(t);
	train(TPD_DTYPE_BF16, t);
	inputs = inputs_of(t);
	sample = sample_of(t, sets, TPD_ARRAY_LEN(sets));
	ck_assert_int_eq(tpd_plan_choose(codec, TPD_DTYPE_BF16, 512, &sample, &plan, &plain, &alone, NULL), TPD_OK);
	ck_assert_int_eq(plan.encoding, TPD_ENCODING_CLASSES);
	sample.inputs = &inputs;
	ck_assert_int_eq(tpd_plan_choose(codec, TPD_DTYPE_BF16, 512, &sample, &plan, &bytes, &alone, NULL), TPD_OK);
	ck_assert_int_eq(plan.encoding, TPD_ENCODING_STEPPED);
	ck_assert_uint_eq(plan.terms, TPD_TERM_BEFORE | TPD_TERM_NOW); /* the first: the others save less */
	ck_assert_uint_lt(bytes * 100, plain * 97);
	for (unsigned i = TPD_INPUT_M1; i < TPD_INPUT_COUNT; i++) /* of other weights */
		inputs.of[i].data += 4 * (N / 2);
	sample.term_set_count = 2;
	ck_assert_int_eq(tpd_plan_choose(codec, TPD_DTYPE_BF16, 512, &sample, &plan, &bytes, &alone, NULL), TPD_OK);
	ck_assert_int_eq(plan.encoding, TPD_ENCODING_CLASSES);
	ck_assert_uint_eq(bytes, plain);
	free(t);
}
END_TEST

START_TEST(types)
{
	uint8_t x[64] = {1}, p[64] = {0}, out[64];
	struct tpd_plan plan = {.encoding = TPD_ENCODING_STEPPED, .dtype = TPD_DTYPE_F32, .row = 8, .grid_bias = 2, .terms = TPD_TERM_NOW};
	struct tpd_chunk chunk = {.x = x, .len = 64, .p = p, .ref_len = 64};
	enum tpd_encoding encoding;
	size_t len;

	ck_assert_int_eq(tpd_encode_chunk(codec, &plan, &chunk, out, &encoding, &len, NULL), TPD_USAGE);
	ck_assert_int_eq(tpd_decode_chunk(codec, TPD_ENCODING_STEPPED, TPD_DTYPE_F32, x, 64, p, 64, out, 64, NULL), TPD_CORRUPT);
	ck_assert(tpd_encoding_needs_reference(TPD_ENCODING_STEPPED));
	ck_assert(tpd_encoding_needs_inputs(TPD_ENCODING_STEPPED) && tpd_encoding_needs_inputs(TPD_ENCODING_PREDICTED));
	ck_assert(!tpd_encoding_needs_inputs(TPD_ENCODING_CLASSES));
	ck_assert_str_eq(tpd_encoding_name(TPD_ENCODING_STEPPED), "stepped");
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("stepped");
	TCase *tests = tcase_create("stepped");
	SRunner *runner = srunner_create(suite);
	int failed;

	suite_add_tcase(suite, tests);
	tcase_add_checked_fixture(tests, set_up, tear_down);
	tcase_set_timeout(tests, 120);
	tcase_add_test(tests, fields);
	tcase_add_test(tests, needs);
	tcase_add_test(tests, jumps);
	tcase_add_loop_test(tests, what_it_saves, 0, 2);
	tcase_add_loop_test(tests, truncations, 0, 2);
	tcase_add_test(tests, planning);
	tcase_add_test(tests, types);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
