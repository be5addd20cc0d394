/*
 * t_kernels_floats.c - all forms of the kernels give the same floats, of predictions and of what is expected of a step.
 *
 * As in t_kernels.c, memory is exactly as large as kernels.h says, so that a sanitizer sees what goes beyond.
 */
#include "base/tpd.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "codec/classes.h"
#include "codec/internal.h"
#include "codec/kernels.h"
#include "codec/predict.h"
#include "kernel_help.h"
#include "random_bits.h"

static const enum tpd_dtype types[] = {TPD_DTYPE_F32, TPD_DTYPE_BF16, TPD_DTYPE_F16};

/* Any pattern, and often one of a common size. */
static void fill_floats_of_all_kinds(float *out, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint32_t bits = (uint32_t)rnd(UINT64_C(1) << 32);

		if (rnd(8) > 0)
			bits = (bits & 0x807fffffu) | (uint32_t)(110 + rnd(20)) << 23;
		memcpy(&out[i], &bits, sizeof(bits));
	}
}

/* The same bits; NaN may look differently. */
static bool same_floats(const float *a, const float *b, size_t n)
{
	bool same = true;

	for (size_t i = 0; i < n; i++)
		same = same && (memcmp(&a[i], &b[i], sizeof(*a)) == 0 || (isnan(a[i]) && isnan(b[i])));
	return same;
}

static bool same_doubles(const double *a, const double *b, size_t n)
{
	bool same = true;

	for (size_t i = 0; i < n; i++)
		same = same && (memcmp(&a[i], &b[i], sizeof(*a)) == 0 || (isnan(a[i]) && isnan(b[i])));
	return same;
}

/* The same bits from all forms, and not a float behind the last; NaN may look differently where it is only on the way to something. */
START_TEST(predictions)
{
	enum { MOST = 700 };
	const size_t len = MOST * sizeof(float);
	float *w = memory(len), *a = memory(len), *b = memory(len), *first = memory(len + 64), *other = memory(len + 64);

	for (unsigned round = 0; round < 2000; round++) {
		const float coefficients[4] = {0.5f, -1e-3f, 1e30f, 3e-5f};
		const float *terms[4] = {w, rnd(2) ? a : NULL, rnd(2) ? b : NULL, rnd(2) ? a : NULL};
		const float *const arrays[3] = {w, a, b};
		double sums[6], other_sums[6];
		size_t n = 1 + rnd(MOST);

		fill_floats_of_all_kinds(w, n);
		fill_floats_of_all_kinds(a, n);
		fill_floats_of_all_kinds(b, n);
		for (size_t f = 1; f < form_count; f++) {
			memset(first, 0xee, len + 64);
			memset(other, 0xee, len + 64);
			forms[0]->predict_apply(w, terms, coefficients, n, first);
			forms[f]->predict_apply(w, terms, coefficients, n, other);
			ck_assert_mem_eq(first, other, len + 64);
			forms[0]->predict_ratio(a, b, n, first);
			forms[f]->predict_ratio(a, b, n, other);
			ck_assert(same_floats(first, other, n));
			ck_assert_mem_eq(first + n, other + n, len + 64 - n * 4);
			forms[0]->predict_difference(a, b, n, first);
			forms[f]->predict_difference(a, b, n, other);
			ck_assert(same_floats(first, other, n));
			ck_assert_mem_eq(first + n, other + n, len + 64 - n * 4);
			forms[0]->predict_products(arrays, 3, n, sums);
			forms[f]->predict_products(arrays, 3, n, other_sums);
			ck_assert(same_doubles(sums, other_sums, 6));
		}
	}
	free(w);
	free(a);
	free(b);
	free(first);
	free(other);
}
END_TEST

/* For every exponent that is normal: what SPEC.md says of 1 / sqrt(v). */
START_TEST(roots)
{
	enum { MANTISSAS = 4096 };
	float *v = memory(MANTISSAS * sizeof(*v)), *m = memory(MANTISSAS * sizeof(*m)), *ratio = memory(MANTISSAS * sizeof(*ratio));
	double furthest = 0;

	for (uint32_t exponent = 1; exponent < 255; exponent++) {
		for (uint32_t i = 0; i < MANTISSAS; i++) {
			uint32_t bits = exponent << 23 | i << 11 | (uint32_t)rnd(2048);

			memcpy(&v[i], &bits, sizeof(bits));
			m[i] = i % 2 ? 1.0f : -3.0f;
		}
		forms[form_count - 1]->predict_ratio(m, v, MANTISSAS, ratio);
		for (uint32_t i = 0; i < MANTISSAS; i++)
			furthest = TPD_MAX(furthest, fabs((double)ratio[i] * sqrt((double)v[i]) / (double)m[i] - 1));
	}
	ck_assert_double_lt(furthest, 7e-4);
	ck_assert_double_gt(furthest, 5e-4);
	free(v);
	free(m);
	free(ratio);
}
END_TEST

/* Single precision in sixteen lanes; then pairs of these, and so on, in double. */
static void products_of(const float *const *arrays, unsigned count, size_t n, double *out)
{
	for (unsigned a = 0; a < count; a++)
		for (unsigned b = a; b < count; b++) {
			float lanes[16] = {0};
			double sums[8];

			for (unsigned lane = 0; lane < 16; lane++)
				for (size_t i = lane; i < n; i += 16) {
					float product = arrays[a][i] * arrays[b][i];

					lanes[lane] += product;
				}
			for (unsigned l = 0; l < 8; l++)
				sums[l] = (double)lanes[l] + (double)lanes[l + 8];
			*out++ = ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
		}
}

/* From all that there may be, at any address: what the parts make of it, and the same bits from all forms. */
START_TEST(predictions_of_pieces)
{
	const size_t len = TPD_LEARN_MAX * sizeof(float), terms_len = TPD_TERMS * TPD_TERM_ROOM * sizeof(float);
	float *in[TPD_INPUT_COUNT + 2], *parts = memory(terms_len), *whole = memory(len + 64), *learnt = memory(terms_len);
	float *term = memory(len), *first = memory(len), *untouched = memory(len + 64);

	memset(untouched, 0xee, len + 64);
	for (unsigned k = 0; k < TPD_INPUT_COUNT + 2; k++)
		in[k] = memory(len);
	for (unsigned round = 0; round < 3000; round++) {
		const unsigned terms = 1 + round % 15, shift = (unsigned)rnd(4), begin = (unsigned)rnd(2) * (unsigned)rnd(20);
		const size_t n = 1 + rnd(rnd(2) ? 40 : TPD_LEARN_MAX);
		const float coefficients[TPD_TERMS] = {0.5f, -0.25f, 1e-3f, -3e-5f};
		const float *used[TPD_TERMS] = {NULL}, *arrays[TPD_TERMS + 1];
		uint8_t *given[TPD_INPUT_COUNT + 2];
		struct tpd_predict_from from = {.terms = terms};
		double sums[TPD_PRODUCTS], other[TPD_PRODUCTS];
		unsigned count = 0;

		for (unsigned k = 0; k < TPD_INPUT_COUNT + 2; k++) {
			fill_floats_of_all_kinds(in[k], n);
			given[k] = memory((begin + n) * sizeof(float) + shift); /* to its end, and no further */
			memcpy(given[k] + shift + begin * sizeof(float), in[k], n * sizeof(float));
			if (k < TPD_INPUT_COUNT)
				from.of[k] = given[k] + shift;
		}
		from.w1 = given[TPD_INPUT_COUNT] + shift;
		memcpy(parts, in[TPD_INPUT_COUNT], n * sizeof(float));
		forms[0]->predict_difference(parts, in[TPD_INPUT_W0], n, parts + TPD_TERM_ROOM);
		forms[0]->predict_ratio(in[TPD_INPUT_M1], in[TPD_INPUT_V1], n, parts + 2 * TPD_TERM_ROOM);
		forms[0]->predict_ratio(in[TPD_INPUT_M2], in[TPD_INPUT_V2], n, parts + 3 * TPD_TERM_ROOM);
		for (unsigned k = 0; k < TPD_TERMS; k++)
			if (terms >> k & 1)
				arrays[count++] = used[k] = parts + k * TPD_TERM_ROOM;
		forms[0]->predict_difference(in[TPD_INPUT_COUNT + 1], parts, n, term);
		arrays[count++] = term;
		products_of(arrays, count, n, sums);
		forms[0]->predict_apply(parts, used, coefficients, n, first);
		for (size_t f = 0; f < form_count; f++) {
			memset(whole, 0xee, len + 64);
			forms[f]->predict(&from, begin, coefficients, n, whole);
			ck_assert_mem_eq(whole, first, n * sizeof(float));
			ck_assert_mem_eq(whole + n, untouched + n, len + 64 - n * sizeof(float));
			forms[f]->predict_learn(&from, begin, given[TPD_INPUT_COUNT + 1] + shift, n, learnt, other);
			ck_assert(same_doubles(sums, other, count * (count + 1) / 2));
			for (unsigned k = 0; k < TPD_TERMS; k++) /* w1 is always there */
				if (k == 0 || terms >> k & 1)
					ck_assert(same_floats(learnt + k * TPD_TERM_ROOM, parts + k * TPD_TERM_ROOM, n));
		}
		for (unsigned k = 0; k < TPD_INPUT_COUNT + 2; k++)
			free(given[k]);
	}
	for (unsigned k = 0; k < TPD_INPUT_COUNT + 2; k++)
		free(in[k]);
	free(parts);
	free(whole);
	free(learnt);
	free(term);
	free(first);
	free(untouched);
}
END_TEST

/* Keys, and a term of steps, from anything: the same from all forms; keys are below their number. */
START_TEST(keys)
{
	enum { MOST = 900 };
	float *steps = memory(MOST * 4), *v1 = memory(MOST * 4), *v2 = memory(MOST * 4);
	float *jumps = memory(MOST * 4), *jump = memory(MOST * 4);
	uint16_t *first = memory(MOST * 2), *other = memory(MOST * 2);
	uint8_t *p = memory(MOST * 4), *levels = memory(MOST);

	for (unsigned round = 0; round < 2000; round++) {
		const enum tpd_dtype dtype = types[round % 3];
		const size_t n = 1 + rnd(MOST), row = 1 + rnd(rnd(2) ? 20 : MOST);
		const struct tpd_pieces pieces = {.first = 1 + rnd(row), .row = row, .n = n};
		struct tpd_class_rule rule = {.by = dtype == TPD_DTYPE_F32 ? 0 : (unsigned)rnd(3), .base = (unsigned)rnd(256), .levels = levels,
					      .steps = steps, .v1 = v1, .v2 = v2};
		unsigned largest = 0;

		fill_floats_of_all_kinds(steps, n);
		fill_floats_of_all_kinds(v1, n);
		fill_floats_of_all_kinds(v2, n);
		fill_floats_of_all_kinds(&rule.decay, 1);
		fill_floats_of_all_kinds(&rule.noise, 1);
		for (size_t i = 0; i < n * 4; i++)
			p[i] = (uint8_t)next_random();
		for (size_t i = 0; i < n; i++) {
			levels[i] = (uint8_t)rnd(TPD_KEY_LEVELS);
			if (rnd(2))
				v2[i] = v1[i];
		}
		for (size_t f = 0; f < form_count; f++) {
			forms[f]->class_keys(dtype, &rule, p, &pieces, f ? other : first);
			if (f > 0)
				ck_assert_mem_eq(first, other, n * 2);
			forms[f]->step_jump(steps, v1, v2, n, f ? jump : jumps);
			ck_assert(f == 0 || same_floats(jumps, jump, n)); /* NaN, of an infinite v2, has whatever sign */
		}
		for (size_t i = 0; i < n; i++)
			largest = TPD_MAX(largest, first[i]);
		ck_assert_uint_lt(largest, rule.by ? TPD_KEYS : TPD_KEY_EXPONENTS * TPD_KEY_LEVELS);
	}
	free(steps);
	free(v1);
	free(v2);
	free(jumps);
	free(jump);
	free(first);
	free(other);
	free(p);
	free(levels);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("kernels of floats");
	TCase *tests = tcase_create("floats");
	SRunner *runner = srunner_create(suite);
	int failed;

	find_forms();
	suite_add_tcase(suite, tests);
	tcase_set_timeout(tests, 240);
	tcase_add_test(tests, predictions);
	tcase_add_test(tests, roots);
	tcase_add_test(tests, predictions_of_pieces);
	tcase_add_test(tests, keys);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
