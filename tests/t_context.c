/*
 * t_context.c - the encoding `context`: round trips, damaged payloads, what it saves on weights that Adam moved, and when it is taken.
 */
#include "base/tpd.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "codec/internal.h"
#include "files.h"
#include "kernel_help.h"
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

static size_t encode(const struct training *t, enum tpd_dtype dtype, enum tpd_encoding encoding, unsigned terms, const struct tpd_inputs *inputs,
		     uint8_t *out)
{
	struct tpd_plan plan = {.encoding = encoding, .dtype = dtype, .row = 512, .grid_bias = 2, .terms = inputs ? (uint8_t)terms : 0};
	struct tpd_chunk chunk = {.x = (const uint8_t *)t->x, .len = 2 * N, .p = (const uint8_t *)t->p, .ref_len = 2 * N, .inputs = inputs};
	size_t len = 0;

	ck_assert_int_eq(tpd_encode_with(codec, &plan, &chunk, 0, &len, NULL), TPD_OK);
	ck_assert_uint_le(len, 2 * N);
	memcpy(out, codec->payload.data, len);
	return len;
}

/* The same as a store does it. Returns which encoding it became. */
static enum tpd_encoding encode_best(const struct training *t, enum tpd_dtype dtype, unsigned terms, const struct tpd_inputs *inputs, uint8_t *out,
				     size_t *out_len)
{
	struct tpd_plan plan = {.encoding = TPD_ENCODING_CONTEXT, .dtype = dtype, .row = 512, .grid_bias = 2, .terms = (uint8_t)terms};
	struct tpd_chunk chunk = {.x = (const uint8_t *)t->x, .len = 2 * N, .p = (const uint8_t *)t->p, .ref_len = 2 * N, .inputs = inputs};
	enum tpd_encoding used;

	ck_assert_int_eq(tpd_encode_chunk(codec, &plan, &chunk, out, &used, out_len, NULL), TPD_OK);
	ck_assert_uint_eq(tpd_codec_mismatches(codec), 0);
	return used;
}

/* --- round trips --- */

enum relation { SAME, ALL, SOME, FEW, STRANGE, RELATIONS };

static uint16_t pattern_of(enum relation relation, uint16_t p, uint64_t *random)
{
	static const uint16_t strange[] = {0, 0x8000, 1, 0x8001, 0x7f80, 0xff80, 0x7fc0, 0xffff, 0x7f7f, 0x7c00, 0xfc00, 0x7bff, 0x7e01, 0x0080};
	const uint64_t chance = random_next(random) % 1000;

	switch (relation) {
	case ALL:
		return (uint16_t)(p + 1 + chance % 7);
	case SOME:
		return (uint16_t)(chance < 300 ? (uint64_t)p + chance % 9 - 4 : p);
	case FEW:
		return (uint16_t)(chance < 10 ? chance == 0 ? 0u : chance == 1 ? random_next(random) : (uint64_t)p + chance - 5 : p);
	case STRANGE:
		return (uint16_t)(chance < 500 ? strange[chance % TPD_ARRAY_LEN(strange)] : p);
	default:
		return p;
	}
}

/* What each form makes of a chunk, and what each makes of that. payload_len: SIZE_MAX where it is given up. */
static void check_forms(const struct tpd_plan *plan, const struct tpd_chunk *chunk, const uint8_t *payload, size_t payload_len, uint8_t *back)
{
	const struct tpd_references references = {chunk->p, chunk->ref_len, chunk->inputs};
	const struct tpd_kernels *use = codec->kernels;

	for (size_t f = 0; f < form_count; f++) {
		size_t len;

		codec->kernels = forms[f];
		ck_assert_int_eq(tpd_encode_with(codec, plan, chunk, 0, &len, NULL), TPD_OK);
		ck_assert_uint_eq(len, payload_len);
		if (len == SIZE_MAX)
			continue;
		ck_assert_msg(memcmp(codec->payload.data, payload, len) == 0, "%s writes other bytes", forms[f]->name);
		memset(back, 1, chunk->len);
		ck_assert_int_eq(tpd_decode_chunk_with(codec, plan->encoding, plan->dtype, payload, len, &references, back, chunk->len, NULL), TPD_OK);
		ck_assert_msg(memcmp(back, chunk->x, chunk->len) == 0, "%s reads other bytes", forms[f]->name);
	}
	codec->kernels = use;
}

static void check_round_trip(enum tpd_dtype dtype, enum relation relation, size_t len, uint32_t row, unsigned terms, uint64_t *random)
{
	const size_t n = len / 2;
	uint8_t *x = malloc(len), *p = malloc(len), *back = malloc(len), *data[TPD_INPUT_COUNT];
	struct tpd_inputs inputs = {0};
	struct tpd_plan plan = {.encoding = TPD_ENCODING_CONTEXT, .dtype = dtype, .row = row, .grid_bias = 2, .terms = (uint8_t)terms};
	struct tpd_chunk chunk = {.x = x, .len = len, .p = p, .ref_len = len, .element = random_next(random) % 1000, .inputs = &inputs};
	uint8_t *exact;
	size_t payload_len;

	ck_assert(x && p && back);
	for (unsigned i = 0; i < TPD_INPUT_COUNT; i++) {
		data[i] = malloc(4 * n + 1);
		ck_assert_ptr_nonnull(data[i]);
		inputs.of[i] = (struct tpd_bytes){data[i], 4 * n};
	}
	memset(x, 7, len);
	memset(p, 9, len);
	for (size_t i = 0; i < n; i++) {
		const float w = (float)(0.02 * random_normal(random));
		uint32_t bits;
		uint16_t pattern;

		memcpy(&bits, &w, 4);
		pattern = dtype == TPD_DTYPE_BF16 ? (uint16_t)(bits >> 16) : (uint16_t)tpd_round_f16(bits);
		if (relation == STRANGE)
			pattern = pattern_of(relation, pattern, random);
		tpd_put_u16(p + 2 * i, pattern);
		tpd_put_u16(x + 2 * i, pattern_of(relation, pattern, random));
		for (unsigned k = 0; k < TPD_INPUT_COUNT; k++) {
			float v = k == TPD_INPUT_W0 ? w : (float)(1e-3 * random_normal(random));

			v = k == TPD_INPUT_V1 || k == TPD_INPUT_V2 ? v * v : v;
			memcpy(&bits, &v, 4);
			if (relation == STRANGE && random_next(random) % 8 == 0)
				bits = (uint32_t)random_next(random) | (random_next(random) % 2 ? 0x7f800000u : 0u);
			memcpy(data[k] + 4 * i, &bits, 4);
		}
	}
	ck_assert_int_eq(tpd_encode_with(codec, &plan, &chunk, 0, &payload_len, NULL), TPD_OK);
	if (payload_len == SIZE_MAX) /* longer than what it is made from */
		ck_assert_int_eq(relation, STRANGE);
	exact = memory(payload_len == SIZE_MAX ? 0 : payload_len);
	if (payload_len != SIZE_MAX)
		memcpy(exact, codec->payload.data, payload_len);
	check_forms(&plan, &chunk, exact, payload_len, back);
	free(exact);
	for (unsigned i = 0; i < TPD_INPUT_COUNT; i++)
		free(data[i]);
	free(x);
	free(p);
	free(back);
}

START_TEST(round_trips)
{
	static const size_t lens[] = {1, 2, 3, 62, 511, 4001, 30002};
	static const uint32_t rows[] = {1, 7, 100, 8192};
	static const uint8_t terms[] = {0, TPD_TERM_STEP, TPD_TERM_BEFORE, TPD_TERM_NOW, TPD_TERM_STEP | TPD_TERM_BEFORE | TPD_TERM_NOW};
	uint64_t random = 77;

	for (unsigned relation = 0; relation < RELATIONS; relation++)
		for (unsigned l = 0; l < TPD_ARRAY_LEN(lens); l++)
			for (unsigned r = 0; r < TPD_ARRAY_LEN(rows); r++)
				for (unsigned k = 0; k < TPD_ARRAY_LEN(terms); k++)
					check_round_trip(_i ? TPD_DTYPE_F16 : TPD_DTYPE_BF16, (enum relation)relation, lens[l], rows[r], terms[k],
							 &random);
}
END_TEST

/* --- what it saves, and damage --- */

/*
 * With what `stepped` has it takes at least 2 % less; without its inputs it is told from neighbours and exponents alone, and here `classes` is shorter:
 * a chunk becomes what is shorter, whatever was chosen for its tensor.
 */
START_TEST(what_it_saves)
{
	const enum tpd_dtype dtype = _i ? TPD_DTYPE_F16 : TPD_DTYPE_BF16;
	const unsigned terms = TPD_TERM_STEP | TPD_TERM_BEFORE | TPD_TERM_NOW;
	struct training *t = malloc(sizeof(*t));
	uint8_t *out = malloc(2 * N), *best = malloc(tpd_encode_bound(2 * N));
	struct tpd_inputs inputs;
	size_t stepped, context, alone, classes, best_len = 0;

	ck_assert(t && out && best);
	train(dtype, t);
	inputs = inputs_of(t);
	stepped = encode(t, dtype, TPD_ENCODING_STEPPED, terms, &inputs, out);
	context = encode(t, dtype, TPD_ENCODING_CONTEXT, terms, &inputs, out);
	ck_assert_int_eq(encode_best(t, dtype, terms, &inputs, best, &best_len), TPD_ENCODING_CONTEXT);
	ck_assert_uint_eq(best_len, context);
	ck_assert_mem_eq(best, out, context);
	classes = encode(t, dtype, TPD_ENCODING_CLASSES, 0, NULL, out);
	ck_assert_int_eq(encode_best(t, dtype, terms, NULL, best, &best_len), TPD_ENCODING_CLASSES);
	ck_assert_uint_eq(best_len, classes);
	ck_assert_mem_eq(best, out, classes);
	alone = encode(t, dtype, TPD_ENCODING_CONTEXT, terms, NULL, out);
	ck_assert_int_eq(out[0], 0); /* terms */
	ck_assert_uint_eq(alone, encode(t, dtype, TPD_ENCODING_CONTEXT, 0, &inputs, out));
	ck_assert_uint_gt(alone * 100, classes * 99);
	ck_assert_msg(context * 100 < stepped * 98 && context < alone, "stepped %zu, context %zu, alone %zu", stepped, context, alone);
	free(t);
	free(out);
	free(best);
}
END_TEST

/* Every beginning is refused, and a byte more; each byte changed gives an error, or other bytes. */
START_TEST(damage)
{
	enum { HEAD = 80, STRIDE = 53 };
	const unsigned terms = _i ? TPD_TERM_STEP | TPD_TERM_BEFORE | TPD_TERM_NOW : 0;
	struct training *t = malloc(sizeof(*t));
	uint8_t *out = malloc(2 * N + 1), *back = malloc(2 * N);
	struct tpd_inputs inputs;
	struct tpd_references references;
	size_t len;

	ck_assert(t && out && back);
	train(TPD_DTYPE_BF16, t);
	inputs = inputs_of(t);
	references = (struct tpd_references){(const uint8_t *)t->p, 2 * N, &inputs};
	len = encode(t, TPD_DTYPE_BF16, TPD_ENCODING_CONTEXT, terms, &inputs, out);
	out[len] = 0;
	for (size_t cut = 0; cut <= len + 1; cut += cut < HEAD || cut + HEAD > len ? 1 : STRIDE) {
		uint8_t *exact = malloc(cut + 1);
		enum tpd_status status;

		ck_assert_ptr_nonnull(exact);
		memcpy(exact, out, cut);
		status = tpd_decode_chunk_with(codec, TPD_ENCODING_CONTEXT, TPD_DTYPE_BF16, exact, cut, &references, back, 2 * N, NULL);
		ck_assert_msg(status == (cut == len ? TPD_OK : TPD_CORRUPT), "%zu of %zu bytes: %s", cut, len, tpd_status_name(status));
		free(exact);
	}
	for (size_t at = 0; at < len; at += at < HEAD ? 1 : STRIDE) {
		enum tpd_status status;

		out[at] ^= (uint8_t)(1 + at % 255);
		status = tpd_decode_chunk_with(codec, TPD_ENCODING_CONTEXT, TPD_DTYPE_BF16, out, len, &references, back, 2 * N, NULL);
		ck_assert_msg(status == TPD_OK || status == TPD_CORRUPT || status == TPD_UNSUPPORTED, "byte %zu: %s", at, tpd_status_name(status));
		out[at] ^= (uint8_t)(1 + at % 255);
	}
	free(t);
	free(out);
	free(back);
}
END_TEST

/* --- by hand --- */

/* Two elements of BF16 in one row, of which none changed. */
struct parts {
	unsigned terms, coefficients, t, base, count;
	uint8_t lows[2];
	unsigned size;
};

static enum tpd_status decode(const struct parts *parts, bool with_inputs)
{
	const float values[2] = {1e-3f, 1e-3f};
	const uint8_t p[4] = {0x80, 0x3c, 0x81, 0x3c};
	struct tpd_inputs inputs;
	struct tpd_buf buf = {0};
	uint8_t *exact, back[4];
	enum tpd_status status;

	for (unsigned i = 0; i < TPD_INPUT_COUNT; i++)
		inputs.of[i] = (struct tpd_bytes){(const uint8_t *)values, sizeof(values)};
	tpd_buf_u8(&buf, (uint8_t)parts->terms);
	for (unsigned k = 0; k < parts->coefficients; k++)
		tpd_buf_u16(&buf, 0x3a00);
	tpd_buf_u16(&buf, 2); /* row, first, T */
	tpd_buf_u16(&buf, 2);
	tpd_buf_u8(&buf, TPD_CODER_RAW);
	tpd_buf_u8(&buf, (uint8_t)parts->t);
	tpd_buf_u8(&buf, (uint8_t)parts->base);
	tpd_buf_u16(&buf, 0x3f7b);
	tpd_buf_u16(&buf, 0x3a00);
	tpd_buf_u8(&buf, (uint8_t)parts->count);
	for (unsigned e = 0; e < TPD_MIN(parts->count, 2u); e++)
		tpd_buf_u8(&buf, parts->lows[e]);
	tpd_buf_u32(&buf, parts->size);
	for (unsigned i = 0; i < parts->size; i++)
		tpd_buf_u8(&buf, 0);
	tpd_buf_u32(&buf, 0); /* no fields */
	ck_assert_int_eq(tpd_buf_status(&buf, NULL), TPD_OK);
	exact = malloc(buf.len);
	ck_assert_ptr_nonnull(exact);
	memcpy(exact, buf.data, buf.len);
	status = tpd_decode_chunk_with(codec, TPD_ENCODING_CONTEXT, TPD_DTYPE_BF16, exact, buf.len,
				       &(struct tpd_references){p, sizeof(p), with_inputs ? &inputs : NULL}, back, sizeof(back), NULL);
	if (status == TPD_OK)
		ck_assert_mem_eq(back, p, sizeof(p));
	free(exact);
	tpd_buf_release(&buf);
	return status;
}

START_TEST(headers)
{
	const struct parts none = {.t = 120, .base = 115}, low = {.t = 120, .base = 115, .count = 2, .lows = {48, 48}};
	const struct parts all = {.terms = 15, .coefficients = 4, .t = 120, .base = 115};
	struct parts parts;

	ck_assert_int_eq(decode(&none, false), TPD_OK);
	ck_assert_int_eq(decode(&low, false), TPD_OK);
	ck_assert_int_eq(decode(&all, true), TPD_OK);
	ck_assert_int_eq(decode(&all, false), TPD_CORRUPT);
#define REFUSED(of, change)                                                      \
	do {                                                                     \
		parts = (of);                                                    \
		parts.change;                                                    \
		ck_assert_int_eq(decode(&parts, true), TPD_CORRUPT);             \
	} while (0)
	REFUSED(all, terms = 16);
	parts = all;
	parts.terms = 7; /* the jump wants both moments */
	parts.coefficients = 3;
	ck_assert_int_eq(decode(&parts, true), TPD_CORRUPT);
	REFUSED(none, t = 0);
	REFUSED(none, t = 255);
	REFUSED(none, count = 17);
	REFUSED(low, lows[1] = 49);
	REFUSED(none, size = 5); /* the coder never reads more than four */
	parts = none;
	parts.size = 4;
	ck_assert_int_eq(decode(&parts, true), TPD_OK);
}
END_TEST

/* --- the plan --- */

START_TEST(planning)
{
	static const uint8_t sets[] = {TPD_TERM_BEFORE | TPD_TERM_NOW};
	struct training *t = malloc(sizeof(*t));
	struct tpd_sample sample;
	uint64_t stepped, bytes, alone;
	struct tpd_inputs inputs;
	struct tpd_plan plan;

	ck_assert_ptr_nonnull(t);
	train(TPD_DTYPE_BF16, t);
	inputs = inputs_of(t);
	sample = sample_of(t, sets, TPD_ARRAY_LEN(sets));
	sample.inputs = &inputs;
	ck_assert_int_eq(tpd_plan_choose(codec, TPD_DTYPE_BF16, 512, &sample, &plan, &stepped, &alone, NULL), TPD_OK);
	ck_assert_int_ne(plan.encoding, TPD_ENCODING_CONTEXT); /* it is to be asked for */
	sample.context_part = TPD_CONTEXT_PART_MAX;
	ck_assert_int_eq(tpd_plan_choose(codec, TPD_DTYPE_BF16, 512, &sample, &plan, &bytes, &alone, NULL), TPD_OK);
	ck_assert_int_eq(plan.encoding, TPD_ENCODING_CONTEXT);
	ck_assert_uint_le(bytes * 100, stepped * 99);
	sample.context_part = (unsigned)(sample.len / stepped) + 1; /* others take more than that */
	ck_assert_int_eq(tpd_plan_choose(codec, TPD_DTYPE_BF16, 512, &sample, &plan, &bytes, &alone, NULL), TPD_OK);
	ck_assert_int_ne(plan.encoding, TPD_ENCODING_CONTEXT);
	sample.context_part = TPD_CONTEXT_PART_MAX;
	sample.p = NULL;
	ck_assert_int_eq(tpd_plan_choose(codec, TPD_DTYPE_BF16, 512, &sample, &plan, &bytes, &alone, NULL), TPD_OK);
	ck_assert_int_ne(plan.encoding, TPD_ENCODING_CONTEXT);
	free(t);
}
END_TEST

START_TEST(properties)
{
	ck_assert_str_eq(tpd_encoding_name(TPD_ENCODING_CONTEXT), "context");
	ck_assert(tpd_encoding_needs_reference(TPD_ENCODING_CONTEXT));
	ck_assert(tpd_encoding_takes_inputs(TPD_ENCODING_CONTEXT) && !tpd_encoding_needs_inputs(TPD_ENCODING_CONTEXT));
	ck_assert(tpd_encoding_allows(TPD_ENCODING_CONTEXT, TPD_DTYPE_BF16) && tpd_encoding_allows(TPD_ENCODING_CONTEXT, TPD_DTYPE_F16));
	ck_assert(!tpd_encoding_allows(TPD_ENCODING_CONTEXT, TPD_DTYPE_F32) && !tpd_encoding_allows(TPD_ENCODING_CONTEXT, TPD_DTYPE_I16));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("context");
	TCase *tests = tcase_create("context");
	SRunner *runner = srunner_create(suite);
	int failed;

	find_forms();
	tcase_set_timeout(tests, 300);
	tcase_add_checked_fixture(tests, set_up, tear_down);
	tcase_add_loop_test(tests, round_trips, 0, 2);
	tcase_add_loop_test(tests, what_it_saves, 0, 2);
	tcase_add_loop_test(tests, damage, 0, 2);
	tcase_add_test(tests, headers);
	tcase_add_test(tests, planning);
	tcase_add_test(tests, properties);
	suite_add_tcase(suite, tests);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? 0 : 1;
}
