/*
 * t_survey.c - the loops of the statistics: all forms make the same, to the bit, of honest data and of what is chosen to trouble them. That the
 * scalar form makes the right thing of it is t_stats's.
 */
#include "base/tpd.h"

#include "codec/stats_internal.h"

#include <check.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "codec/kernels.h"
#include "random_bits.h"
#include "stats_pairs.h"

static const enum tpd_dtype types[] = {TPD_DTYPE_F32, TPD_DTYPE_BF16, TPD_DTYPE_F16, TPD_DTYPE_F64};

static void assert_same_survey(const struct tpd_survey *a, const struct tpd_survey *b)
{
	ck_assert_uint_eq(a->count, b->count);
	ck_assert_uint_eq(a->nan, b->nan);
	ck_assert_uint_eq(a->inf, b->inf);
	ck_assert_uint_eq(a->finite, b->finite);
	ck_assert_uint_eq(a->pairs, b->pairs);
	ck_assert_uint_eq(a->sampled, b->sampled);
	ck_assert_uint_eq(a->zeros, b->zeros);
	for (unsigned k = 0; k < TPD_SPARSITY_REAL; k++)
		ck_assert_uint_eq(a->raw[k], b->raw[k]);
	for (unsigned k = 0; k < TPD_SPARSITY_ULPS; k++)
		ck_assert_uint_eq(a->ulps[k], b->ulps[k]);
	/* to the bit */
	ck_assert_mem_eq(&a->value_min, &b->value_min, sizeof(double));
	ck_assert_mem_eq(&a->value_max, &b->value_max, sizeof(double));
	ck_assert_mem_eq(&a->value_sum2, &b->value_sum2, sizeof(double));
	ck_assert_mem_eq(&a->delta_min, &b->delta_min, sizeof(double));
	ck_assert_mem_eq(&a->delta_max, &b->delta_max, sizeof(double));
	ck_assert_mem_eq(&a->delta_sum2, &b->delta_sum2, sizeof(double));
	ck_assert_mem_eq(&a->abs_max, &b->abs_max, sizeof(double));
}

/* To another place, and in place; of what is left a last time. */
static void assert_forms_select(const struct tpd_survey_kernels *form, double *v, size_t n, double low, double high)
{
	double *want = calloc(n + TPD_STATS_SLACK, sizeof(double)), *got = calloc(n + TPD_STATS_SLACK, sizeof(double));
	size_t want_above, above, count = tpd_survey_scalar.between(v, n, low, high, want, &want_above);

	ck_assert_uint_eq(form->between(v, n, low, high, got, &above), count);
	ck_assert_uint_eq(above, want_above);
	ck_assert(count == 0 || memcmp(got, want, count * sizeof(double)) == 0);
	memcpy(got, v, n * sizeof(double));
	ck_assert_uint_eq(form->between(got, n, low, high, got, &above), count);
	ck_assert_uint_eq(above, want_above);
	ck_assert(count == 0 || memcmp(got, want, count * sizeof(double)) == 0);
	free(want);
	free(got);
}

/* All forms make the same of a pair, with this bar and these limits, as the scalar one does. */
static void assert_forms_agree(const struct pair *pair, uint64_t first, uint32_t stride, double bar, const double limits[TPD_SPARSITY_REAL])
{
	const size_t n = pair->n, bits = n / 8 + (n % 8 > 0);
	struct tpd_survey_task task = {pair->dtype, pair->x, pair->w, n, first, stride, bar};
	struct tpd_count_task again = {pair->dtype, pair->x, pair->w, n, {0}, bar};
	double *want_sample = calloc(n + TPD_STATS_SLACK, sizeof(double)), *sample = calloc(n + TPD_STATS_SLACK, sizeof(double));
	uint32_t *want_places = calloc(n + TPD_STATS_SLACK, sizeof(uint32_t)), *places = calloc(n + TPD_STATS_SLACK, sizeof(uint32_t));
	uint8_t *want_kept = calloc(bits, 1), *kept = calloc(bits, 1); /* no more than that may be written */
	struct tpd_survey want = {0};
	struct tpd_count want_count = {{0}};
	size_t want_samples = tpd_survey_scalar.survey(&task, &want, want_sample), form_count;
	const struct tpd_kernels *const *forms = tpd_kernels_all(&form_count);

	memcpy(again.limits, limits, sizeof again.limits);
	if (pair->w)
		tpd_survey_scalar.count(&again, &want_count, want_kept);
	for (size_t f = 1; f < form_count; f++) {
		const struct tpd_survey_kernels *form = forms[f]->survey;
		struct tpd_survey got = {0};
		struct tpd_count got_count = {{0}};
		size_t samples = form->survey(&task, &got, sample);

		assert_same_survey(&got, &want);
		ck_assert_uint_eq(samples, want_samples);
		ck_assert(samples == 0 || memcmp(sample, want_sample, samples * sizeof(double)) == 0);
		if (pair->w) {
			form->count(&again, &got_count, kept);
			for (unsigned k = 0; k < TPD_SPARSITY_REAL; k++)
				ck_assert_uint_eq(got_count.minmax[k], want_count.minmax[k]);
			ck_assert_mem_eq(kept, want_kept, bits);
		}
		ck_assert_uint_eq(form->places(want_kept, n, places), tpd_survey_scalar.places(want_kept, n, want_places));
		for (size_t i = 0, next = 0; i < n; i++)
			if (want_kept[i / 8] >> i % 8 & 1)
				ck_assert_uint_eq(places[next++], i);
		assert_forms_select(form, sample, samples, limits[1], limits[0]);
		assert_forms_select(form, sample, samples, limits[2], INFINITY);
		assert_forms_select(form, sample, samples, 0, limits[0]);
		assert_forms_select(form, sample, samples, limits[0], limits[1]);
	}
	free(want_sample);
	free(sample);
	free(want_places);
	free(places);
	free(want_kept);
	free(kept);
}

static double next_to(double v, int by)
{
	uint64_t bits;

	memcpy(&bits, &v, sizeof bits);
	bits += (uint64_t)(int64_t)by;
	memcpy(&v, &bits, sizeof v);
	return v;
}

/* Distances in ulps of both signs around zero, and at 2^16 from it. */
START_TEST(around_zero)
{
	static const double limits[TPD_SPARSITY_REAL] = {0x1p-149, 0x1p-140, 0x1p-133, 1e-30};

	random_state = 4711;
	for (unsigned turn = 0; turn < 200; turn++) {
		struct pair pair = pair_new(turn % 3 == 2 ? TPD_DTYPE_BF16 : TPD_DTYPE_F32, 64 * (1 + next_random() % 20), true);
		const uint64_t top = UINT64_C(1) << (8 * pair.width - 1), range = UINT64_C(1) << (turn % 2 ? 2 : 7 * pair.width);

		for (size_t i = 0; i < pair.n; i++) {
			const uint64_t far = turn % 5 && pair.width == 4 ? 0 : UINT64_C(65536) * (next_random() % 40 == 0);

			put(&pair, pair.x, i, ((next_random() % range + far) & (top - 1)) | (next_random() % 2 ? top : 0));
			put(&pair, pair.w, i, (next_random() % range & (top - 1)) | (next_random() % 2 ? top : 0));
		}
		assert_forms_agree(&pair, 0, 1, 0, limits);
		pair_release(&pair);
	}
}
END_TEST

START_TEST(forms_agree)
{
	static const double sizes[] = {1e-5, 1e-4, 1e-3, 1e-2, 0x1.000001p-9, 0x1.000003p-9, 0x1p-140, 3e38};
	static const size_t lengths[] = {1, 7, 8, 9, 15, 16, 17, 63, 64, 65, 255, 256, 257, 1000, 4096, 70000};

	random_state = 31337 + (uint64_t)_i;
	for (size_t s = 0; s < TPD_ARRAY_LEN(lengths); s++) {
		for (unsigned turn = 0; turn < (lengths[s] > 5000 ? 2 : 12); turn++) {
			struct pair pair = pair_around(types[_i], lengths[s], sizes, TPD_ARRAY_LEN(sizes));
			double limits[TPD_SPARSITY_REAL], bar;

			/* what occurs, and its neighbours: those that round to the same float, and those that are half way between two */
			for (unsigned k = 0; k < TPD_SPARSITY_REAL; k++) {
				size_t at = next_random() % pair.n;
				double d = fabs(naive_value(pair.dtype, get(&pair, pair.x, at)) -
						naive_value(pair.dtype, get(&pair, pair.w, at)));

				if (!isfinite(d) || next_random() % 4 == 0)
					d = sizes[next_random() % TPD_ARRAY_LEN(sizes)];
				limits[k] = d == 0 ? d : next_to(d, (int)(next_random() % 3) - 1);
			}
			bar = next_random() % 4 == 0 ? 0 : limits[3];
			assert_forms_agree(&pair, 64 * (next_random() % 64), (uint32_t[]){1, 1, 2, 16}[next_random() % 4], bar, limits);
			if (turn == 1) {
				const double infinite[TPD_SPARSITY_REAL] = {INFINITY, INFINITY, INFINITY, INFINITY};
				const double none[TPD_SPARSITY_REAL] = {0, 0, 0x1p-149, 0x1p-1074};

				assert_forms_agree(&pair, 0, 1, 0, infinite);
				assert_forms_agree(&pair, 0, 1, 0, none);
			}
			free(pair.w);
			pair.w = NULL;
			assert_forms_agree(&pair, 0, 1, 0, limits);
			memset(pair.x, 0, pair.n * pair.width); /* below all thresholds, but no differences */
			assert_forms_agree(&pair, 0, 1, 0, limits);
			pair_release(&pair);
		}
	}
}
END_TEST

static size_t no_places(const uint8_t *kept TPD_UNUSED, size_t n TPD_UNUSED, uint32_t *out TPD_UNUSED)
{
	return 0;
}

static size_t all_between(const double *v, size_t n, double low TPD_UNUSED, double high TPD_UNUSED, double *out, size_t *out_above)
{
	memmove(out, v, n * sizeof(*out));
	*out_above = 0;
	return n;
}

START_TEST(known_answers)
{
	size_t count;
	const struct tpd_kernels *const *forms = tpd_kernels_all(&count);
	struct tpd_survey_kernels wrong = tpd_survey_scalar;

	for (size_t f = 0; f < count; f++)
		ck_assert(tpd_survey_test(forms[f]->survey));
	wrong.places = no_places;
	ck_assert(!tpd_survey_test(&wrong));
	wrong = tpd_survey_scalar;
	wrong.between = all_between;
	ck_assert(!tpd_survey_test(&wrong));
}
END_TEST

/*
 * The largest of a type among others, of one sign or of two, whose difference single precision has not; differences of a single sign, so that
 * either extreme stays on the wrong side of zero; bars and limits that no float is, or above all.
 */
START_TEST(far_apart)
{
	static const double limits[][TPD_SPARSITY_REAL] = {
		{INFINITY, 4e38, 0, 1e39},
		{0, 0, 3.5e38, (double)FLT_MAX},
		{0x1.fffffefffffffp127, 1e300, 0x1p-150, 1e-3},
	};
	static const double bars[] = {0, INFINITY, 4e38, (double)FLT_MAX, 0x1p-150};

	random_state = 815;
	for (unsigned turn = 0; turn < 240; turn++) {
		const enum tpd_dtype dtype = types[turn % TPD_ARRAY_LEN(types)];
		struct pair pair = pair_new(dtype, 64 * (1 + next_random() % 12) + next_random() % 64, turn % 16 != 0);
		const uint64_t top = UINT64_C(1) << (8 * pair.width - 1), step = 1 + next_random() % 5;
		const uint64_t largest = dtype == TPD_DTYPE_F32 ? 0x7f7fffff : dtype == TPD_DTYPE_BF16 ? 0x7f7f : dtype == TPD_DTYPE_F16 ? 0x7bff
												  : UINT64_C(0x7fefffffffffffff);

		for (size_t i = 0; i < pair.n; i++) {
			const uint64_t r = next_random(), octaves = turn / 4 % 2 ? 0 : 17 * TPD_MIN(i / 64, (size_t)6);
			const uint64_t smaller = octaves << (dtype == TPD_DTYPE_F32 ? 23 : 7); /* than all of the round before */
			const uint64_t w = ((random_pattern(dtype) - smaller) & (top - 1)) | (turn % 3 == 0 ? top : 0);
			const bool is_largest = turn / 8 % 2 && r % 100 == 0;

			put(&pair, pair.x, i, is_largest ? largest | (r >> 20 & 1 ? top : 0) : w + step * (turn / 4 % 2 ? r >> 30 & 1 : 1));
			if (pair.w)
				put(&pair, pair.w, i, is_largest ? largest | (r >> 21 & 1 ? top : 0) : w);
		}
		assert_forms_agree(&pair, 64 * (next_random() % 8), 1u << next_random() % 3, bars[turn / 5 % TPD_ARRAY_LEN(bars)],
				   limits[turn % TPD_ARRAY_LEN(limits)]);
		pair_release(&pair);
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("survey");
	TCase *tcase = tcase_create("survey");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tcase, 600);
	tcase_add_test(tcase, known_answers);
	tcase_add_loop_test(tcase, forms_agree, 0, (int)TPD_ARRAY_LEN(types));
	tcase_add_test(tcase, around_zero);
	tcase_add_test(tcase, far_apart);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? 0 : 1;
}
