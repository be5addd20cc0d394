/* t_stats.c - sparsity statistics against a second implementation that sorts everything. */
#include "base/tpd.h"

#include "codec/stats.h"

#include <check.h>
#include <fenv.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "codec/codec.h"
#include "random_bits.h"
#include "stats_pairs.h"

/* ---- the second implementation ---- */

/* The order-preserving integer, in long double since F64's do not fit an int64_t difference. */
static long double naive_ord(const struct pair *pair, uint64_t bits)
{
	unsigned top = (unsigned)(8 * pair->width - 1);
	uint64_t magnitude = bits & ((UINT64_C(1) << top) - 1);

	return bits >> top ? -(long double)magnitude : (long double)magnitude;
}

static int compare_doubles(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static unsigned naive_elias(uint64_t gap)
{
	unsigned length = 0, log = 0;

	while (gap >> length)
		length++;
	while (length >> (log + 1))
		log++;
	return log + (log + 1) + (length - 1);
}

/* As all but zeros and extremes have it: to 24 bits and no smaller unit than 2^-149, half way to even. */
static double naive_rounded(const struct pair *pair, double d)
{
	int exponent;
	double unit, r;

	if (pair->width == 8 || d == 0)
		return d;
	frexp(d, &exponent);
	unit = ldexp(1, exponent - 24 < -149 ? -149 : exponent - 24);
	r = nearbyint(d / unit) * unit;
	return fabs(r) >= 0x1p128 ? d : r;
}

static void naive_gaps(const struct pair *pair, double bar, struct tpd_sparsity *out)
{
	uint64_t *gaps = calloc(pair->n + 1, sizeof *gaps), *counts = calloc(65536 + 64, sizeof *counts);
	size_t last = 0, m = 0;
	double best = INFINITY, elias = 0, entropy = 0;

	for (size_t i = 0; i < pair->n; i++) {
		double d = fabs(naive_rounded(pair, naive_value(pair->dtype, get(pair, pair->x, i)) -
							    naive_value(pair->dtype, get(pair, pair->w, i))));

		if (isfinite(naive_value(pair->dtype, get(pair, pair->x, i))) &&
		    isfinite(naive_value(pair->dtype, get(pair, pair->w, i))) && d > bar) {
			gaps[m++] = i + 1 - last;
			last = i + 1;
		}
	}
	out->gap_count = m;
	for (size_t i = 0; i < m; i++) {
		unsigned length = 0;

		elias += naive_elias(gaps[i]);
		while (gaps[i] >> length)
			length++;
		counts[gaps[i] < 65536 ? gaps[i] : 65536 + length]++;
	}
	for (unsigned k = 0; k < 32; k++) {
		double bits = 0;

		for (size_t i = 0; i < m; i++)
			bits += (double)((gaps[i] - 1) >> k) + 1 + k;
		best = fmin(best, bits);
	}
	for (size_t i = 0; i < 65536 + 64; i++)
		if (counts[i] > 0)
			entropy += (double)counts[i] * log2((double)m / (double)counts[i]);
	if (m > 0) {
		out->gap_elias_bits = elias / (double)m;
		out->gap_rice_bits = best / (double)m;
		out->gap_entropy = entropy / (double)m;
	}
	free(gaps);
	free(counts);
}

/* Which block of a group is sampled: the fraction of number / phi, 1 / phi in 32 bits. */
static uint64_t naive_phase(uint64_t group, uint32_t stride)
{
	return (group * 2654435761u % 4294967296u) * stride / 4294967296u;
}

static uint32_t naive_stride(size_t n)
{
	uint32_t stride = 16;

	while (stride > 1 && n / stride < TPD_STATS_SAMPLE_LEAST)
		stride /= 2;
	return stride;
}

static struct tpd_sparsity naive(const struct pair *pair, uint32_t stride)
{
	struct tpd_sparsity out = {.count = pair->n, .has_delta = pair->w != NULL};
	double *sizes = calloc(pair->n + 1, sizeof *sizes), *sampled = calloc(pair->n + 1, sizeof *sampled);
	double squares = 0, delta_squares = 0, max = 0;
	size_t finite = 0, samples = 0;

	for (size_t i = 0; i < pair->n; i++) {
		uint64_t bits = get(pair, pair->x, i), old = pair->w ? get(pair, pair->w, i) : 0;
		double v = naive_value(pair->dtype, bits), d;
		long double ulps;

		out.nan += isnan(v) != 0;
		out.inf += isinf(v) != 0;
		if (!isfinite(v))
			continue;
		out.value_min = finite == 0 ? v : fmin(out.value_min, v);
		out.value_max = finite == 0 ? v : fmax(out.value_max, v);
		squares += v * v;
		finite++;
		if (!pair->w || !isfinite(naive_value(pair->dtype, old)))
			continue;
		d = v - naive_value(pair->dtype, old);
		out.delta_min = out.pairs == 0 ? d : fmin(out.delta_min, d);
		out.delta_max = out.pairs == 0 ? d : fmax(out.delta_max, d);
		delta_squares += naive_rounded(pair, d) * naive_rounded(pair, d);
		max = fmax(max, fabs(d));
		out.zeros += d == 0;
		for (unsigned k = 0; k < TPD_SPARSITY_REAL; k++)
			out.raw[k] += fabs(naive_rounded(pair, d)) < tpd_sparsity_thresholds[k];
		ulps = fabsl(naive_ord(pair, bits) - naive_ord(pair, old));
		for (unsigned k = 0; k < TPD_SPARSITY_ULPS; k++)
			out.ulps[k] += ulps < (long double)(1u << k);
		sizes[out.pairs++] = fabs(naive_rounded(pair, d));
		if (i / 64 % stride == naive_phase(i / 64 / stride, stride))
			sampled[samples++] = fabs(naive_rounded(pair, d));
	}
	if (finite > 0)
		out.value_rms = sqrt(squares / (double)finite);
	if (pair->w) {
		out.percentile_stride = stride;
		for (uint64_t i = 0; i < out.pairs; i++)
			for (unsigned k = 0; k < TPD_SPARSITY_REAL; k++)
				out.minmax[k] += max == 0 || sizes[i] < tpd_sparsity_thresholds[k] * max;
		if (out.pairs > 0)
			out.delta_rms = sqrt(delta_squares / (double)out.pairs);
		qsort(sampled, samples, sizeof *sampled, compare_doubles);
		for (unsigned k = 0; k < TPD_SPARSITY_PCTS && samples > 0; k++) {
			size_t rank = (size_t)ceil((double)samples * tpd_sparsity_percentiles[k] / 100 - 1e-9);

			out.percentile[k] = sampled[rank - 1];
		}
		naive_gaps(pair, out.percentile[TPD_SPARSITY_PCT95], &out);
	}
	free(sizes);
	free(sampled);
	return out;
}

/* ---- the implementation under test ---- */

static struct tpd_sparsity measure(const struct pair *pair)
{
	struct tpd_stats *stats;
	struct tpd_err err = {0};
	struct tpd_sparsity out;
	double *sample = calloc(TPD_CHUNK_ELEMENTS + TPD_STATS_SLACK, sizeof *sample);
	uint8_t *kept = calloc(TPD_CHUNK_ELEMENTS / 8, 1);

	ck_assert_int_eq(tpd_stats_new(pair->dtype, pair->n, pair->w != NULL, &stats, &err), TPD_OK);
	for (size_t i = 0; i < pair->n; i += TPD_CHUNK_ELEMENTS) {
		size_t n = TPD_MIN(pair->n - i, (size_t)TPD_CHUNK_ELEMENTS), samples = 99;
		struct tpd_survey survey;

		tpd_survey_chunk(stats, pair->x + i * pair->width, pair->w ? pair->w + i * pair->width : NULL, n, i,
				 &survey, sample, &samples);
		ck_assert_uint_le(samples, n);
		ck_assert_int_eq(tpd_stats_add_survey(stats, &survey, sample, samples, &err), TPD_OK);
	}
	tpd_stats_end_survey(stats);
	for (size_t i = 0; pair->w && i < pair->n; i += TPD_CHUNK_ELEMENTS) {
		size_t n = TPD_MIN(pair->n - i, (size_t)TPD_CHUNK_ELEMENTS);
		struct tpd_count count;

		tpd_count_chunk(stats, pair->x + i * pair->width, pair->w + i * pair->width, n, &count, kept);
		ck_assert_int_eq(tpd_stats_add_count(stats, &count, kept, n, NULL), TPD_OK);
	}
	tpd_stats_finish(stats, &out);
	tpd_stats_free(stats);
	free(sample);
	free(kept);
	return out;
}

/* Sums are formed in another order, so they may differ in their last digits; nothing else may. */
static void assert_close(double a, double b, const char *what)
{
	ck_assert_msg(a == b || fabs(a - b) <= 1e-11 * fabs(b), "%s: %.17g, not %.17g", what, a, b);
}

static void assert_same(const struct tpd_sparsity *a, const struct tpd_sparsity *b)
{
	ck_assert_uint_eq(a->count, b->count);
	ck_assert_uint_eq(a->nan, b->nan);
	ck_assert_uint_eq(a->inf, b->inf);
	ck_assert_double_eq(a->value_min, b->value_min);
	ck_assert_double_eq(a->value_max, b->value_max);
	assert_close(a->value_rms, b->value_rms, "value_rms");
	ck_assert_int_eq(a->has_delta, b->has_delta);
	ck_assert_uint_eq(a->pairs, b->pairs);
	ck_assert_uint_eq(a->zeros, b->zeros);
	for (unsigned k = 0; k < TPD_SPARSITY_REAL; k++) {
		ck_assert_uint_eq(a->raw[k], b->raw[k]);
		ck_assert_uint_eq(a->minmax[k], b->minmax[k]);
	}
	for (unsigned k = 0; k < TPD_SPARSITY_ULPS; k++)
		ck_assert_uint_eq(a->ulps[k], b->ulps[k]);
	ck_assert_double_eq(a->delta_min, b->delta_min);
	ck_assert_double_eq(a->delta_max, b->delta_max);
	assert_close(a->delta_rms, b->delta_rms, "delta_rms");
	ck_assert_uint_eq(a->percentile_stride, b->percentile_stride);
	for (unsigned k = 0; k < TPD_SPARSITY_PCTS; k++)
		ck_assert_double_eq(a->percentile[k], b->percentile[k]);
	ck_assert_uint_eq(a->gap_count, b->gap_count);
	assert_close(a->gap_elias_bits, b->gap_elias_bits, "gap_elias_bits");
	assert_close(a->gap_rice_bits, b->gap_rice_bits, "gap_rice_bits");
	assert_close(a->gap_entropy, b->gap_entropy, "gap_entropy");
}

static void assert_like_naive(const struct pair *pair, uint32_t stride)
{
	struct tpd_sparsity got = measure(pair), want = naive(pair, stride);

	assert_same(&got, &want);
}

static const enum tpd_dtype types[] = {TPD_DTYPE_F32, TPD_DTYPE_BF16, TPD_DTYPE_F16, TPD_DTYPE_F64};

START_TEST(random_tensors)
{
	static const size_t sizes[] = {1,  2,   10,   15,   16,     17,     63,     64,
				       65, 100, 1000, 4097, 131071, 131072, 131073, 300000};

	random_state = 0x1234567 + (uint64_t)_i;
	for (size_t k = 0; k < TPD_ARRAY_LEN(sizes); k++) {
		struct pair pair = random_pair(types[_i], sizes[k]);

		assert_like_naive(&pair, naive_stride(pair.n));
		pair_release(&pair);
	}
}
END_TEST

START_TEST(every_pattern_pair_kind)
{
	/* all 16-bit patterns of x against a few w, NaN, Inf, zeros and denormals among them */
	static const uint16_t old[] = {0, 0x8000, 1, 0x8001, 0x3c00, 0x7c00, 0xfc00, 0x7e00, 0x7f80, 0x7fff, 0x3f80};
	struct pair pair = pair_new(_i ? TPD_DTYPE_F16 : TPD_DTYPE_BF16, 65536, true);

	for (size_t k = 0; k < TPD_ARRAY_LEN(old); k++) {
		for (size_t i = 0; i < 65536; i++) {
			put(&pair, pair.x, i, i);
			put(&pair, pair.w, i, old[k]);
		}
		assert_like_naive(&pair, naive_stride(pair.n));
	}
	pair_release(&pair);
}
END_TEST

START_TEST(values_only_without_delta)
{
	for (size_t k = 0; k < TPD_ARRAY_LEN(types); k++) {
		struct pair pair;
		struct tpd_sparsity got;

		random_state = 77;
		pair = random_pair(types[k], 200000);
		free(pair.w);
		pair.w = NULL;
		got = measure(&pair);
		ck_assert(!got.has_delta);
		ck_assert_uint_eq(got.pairs, 0);
		ck_assert_uint_eq(got.percentile_stride, 0);
		assert_like_naive(&pair, naive_stride(pair.n));
		pair_release(&pair);
	}
}
END_TEST

START_TEST(equal_tensors_are_wholly_sparse)
{
	struct pair pair = pair_new(TPD_DTYPE_F32, 140000, true);
	struct tpd_sparsity got;

	for (size_t i = 0; i < pair.n; i++) {
		put(&pair, pair.x, i, float_bits((float)i));
		put(&pair, pair.w, i, float_bits((float)i));
	}
	put(&pair, pair.w, 0, UINT32_C(0x80000000)); /* -0 against +0 is no difference */
	got = measure(&pair);
	ck_assert_uint_eq(got.pairs, pair.n);
	ck_assert_uint_eq(got.zeros, pair.n);
	ck_assert_uint_eq(got.ulps[0], pair.n);
	for (unsigned k = 0; k < TPD_SPARSITY_REAL; k++)
		ck_assert_uint_eq(got.minmax[k], pair.n);
	ck_assert_uint_eq(got.gap_count, 0);
	ck_assert_double_eq(got.gap_elias_bits, 0);
	ck_assert_double_eq(got.percentile[5], 0);
	assert_like_naive(&pair, naive_stride(pair.n));
	pair_release(&pair);
}
END_TEST

/* Deltas that single precision does not have: the percentile is one of those that are compared with it, so none is above it. */
START_TEST(ties_are_not_kept)
{
	static const float old[] = {0.00137f, 0.00174f};

	for (size_t k = 0; k < TPD_ARRAY_LEN(old); k++) {
		struct pair pair = pair_new(TPD_DTYPE_F32, 4096, true);
		struct tpd_sparsity got;

		for (size_t i = 0; i < pair.n; i++) {
			put(&pair, pair.x, i, float_bits(1.0f));
			put(&pair, pair.w, i, float_bits(old[k]));
		}
		got = measure(&pair);
		ck_assert_uint_eq(got.gap_count, 0);
		ck_assert_double_eq(got.percentile[TPD_SPARSITY_PCT95], (double)(1.0f - old[k]));
		ck_assert_double_eq(got.delta_max, 1.0 - (double)old[k]);
		ck_assert_double_ne(got.delta_max, got.percentile[TPD_SPARSITY_PCT95]);
		assert_like_naive(&pair, 1);
		pair_release(&pair);
	}
}
END_TEST

START_TEST(not_finite_pairs_are_left_out)
{
	struct pair pair = pair_new(TPD_DTYPE_F32, 6, true);
	struct tpd_sparsity got;

	put(&pair, pair.x, 0, float_bits(1));
	put(&pair, pair.w, 0, float_bits(0.5f));
	put(&pair, pair.x, 1, float_bits(NAN));
	put(&pair, pair.w, 1, float_bits(1));
	put(&pair, pair.x, 2, float_bits(2));
	put(&pair, pair.w, 2, float_bits(NAN));
	put(&pair, pair.x, 3, float_bits(-INFINITY));
	put(&pair, pair.w, 3, float_bits(-INFINITY));
	put(&pair, pair.x, 4, float_bits(-3));
	put(&pair, pair.w, 4, float_bits(INFINITY));
	put(&pair, pair.x, 5, float_bits(4));
	put(&pair, pair.w, 5, float_bits(4));
	got = measure(&pair);
	ck_assert_uint_eq(got.nan, 1);
	ck_assert_uint_eq(got.inf, 1);
	ck_assert_double_eq(got.value_min, -3);
	ck_assert_double_eq(got.value_max, 4);
	ck_assert_uint_eq(got.pairs, 2);
	ck_assert_uint_eq(got.zeros, 1);
	ck_assert_double_eq(got.delta_max, 0.5);
	ck_assert_double_eq(got.delta_min, 0);
	ck_assert_double_eq(got.percentile[0], 0.5);
	assert_like_naive(&pair, naive_stride(pair.n));
	pair_release(&pair);
}
END_TEST

START_TEST(nothing_finite)
{
	struct pair pair = pair_new(TPD_DTYPE_BF16, 40, true);

	for (size_t i = 0; i < pair.n; i++)
		put(&pair, pair.x, i, i % 2 ? 0x7f80 : 0x7fc0);
	assert_like_naive(&pair, naive_stride(pair.n));
	ck_assert_uint_eq(measure(&pair).nan, 20);
	pair_release(&pair);
}
END_TEST

START_TEST(percentile_is_the_nearest_rank)
{
	/* |delta| = 1 .. n in an odd order: the value at rank r is r */
	static const size_t sizes[] = {1, 3, 7, 10, 20, 39, 40, 41, 199, 200, 201, 1000, 4001};

	for (size_t s = 0; s < TPD_ARRAY_LEN(sizes); s++) {
		size_t n = sizes[s];
		struct pair pair = pair_new(TPD_DTYPE_F32, n, true);
		struct tpd_sparsity got;

		for (size_t i = 0; i < n; i++)
			put(&pair, pair.x, i, float_bits((i % 2 ? -1.0f : 1.0f) * (float)(1 + i * 7919 % n)));
		if (n % 7919 != 0) {
			got = measure(&pair);
			ck_assert_double_eq(got.percentile[0], (double)((n * 900 + 999) / 1000));
			ck_assert_double_eq(got.percentile[1], (double)((n * 925 + 999) / 1000));
			ck_assert_double_eq(got.percentile[2], (double)((n * 950 + 999) / 1000));
			ck_assert_double_eq(got.percentile[3], (double)((n * 975 + 999) / 1000));
			ck_assert_double_eq(got.percentile[4], (double)((n * 990 + 999) / 1000));
			ck_assert_double_eq(got.percentile[5], (double)((n * 995 + 999) / 1000));
		}
		pair_release(&pair);
	}
}
END_TEST

START_TEST(gaps_across_chunk_borders)
{
	/* two kept positions in different chunks, more than 65536 apart, out of few that changed */
	struct pair pair = pair_new(TPD_DTYPE_F32, 400000, true);
	struct tpd_sparsity got;

	put(&pair, pair.x, 9, float_bits(1));
	put(&pair, pair.x, 131071, float_bits(1));
	put(&pair, pair.x, 131072, float_bits(1));
	put(&pair, pair.x, 399999, float_bits(-1));
	got = measure(&pair);
	ck_assert_double_eq(got.percentile[TPD_SPARSITY_PCT95], 0);
	ck_assert_uint_eq(got.gap_count, 4);
	/* gaps 10, 131062, 1, 268927: bit lengths 4, 17, 1, 19 cost 8, 25, 1, 27 */
	ck_assert_double_eq(got.gap_elias_bits, (8 + 25 + 1 + 27) / 4.0);
	ck_assert_double_eq(got.gap_entropy, 2);
	assert_like_naive(&pair, naive_stride(pair.n));
	pair_release(&pair);
}
END_TEST

START_TEST(long_gaps_are_pooled)
{
	static const size_t gaps[] = {65534, 65535, 65536, 70000};
	struct pair pair = pair_new(TPD_DTYPE_F32, 300000, true);
	size_t next = 0;

	for (size_t k = 0; k < TPD_ARRAY_LEN(gaps); k++) {
		next += gaps[k];
		put(&pair, pair.x, next - 1, float_bits(1));
	}
	/* kinds of 1, 1 and 2: the last two are one kind, the 17-bit ones */
	ck_assert_double_eq(measure(&pair).gap_entropy, 1.5);
	assert_like_naive(&pair, naive_stride(pair.n));
	pair_release(&pair);
}
END_TEST

START_TEST(large_tensors_are_sampled)
{
	static const struct {
		size_t elements;
		uint32_t stride;
	} cases[] = {{65535, 1}, {65536, 2}, {131071, 2}, {131072, 4}, {176128, 4}, {524287, 8}, {524288, 16}, {(1u << 22) + 12345, 16}};

	for (size_t k = 0; k < TPD_ARRAY_LEN(cases); k++) {
		struct pair pair;

		random_state = 4242;
		pair = random_pair(TPD_DTYPE_BF16, cases[k].elements);
		ck_assert_uint_eq(measure(&pair).percentile_stride, cases[k].stride);
		assert_like_naive(&pair, cases[k].stride);
		pair_release(&pair);
	}
}
END_TEST

/* Sizes that depend on the column, of rows as long as a few blocks: no column is overlooked. */
START_TEST(columns_are_sampled_alike)
{
	static const size_t rows[] = {64, 128, 192, 256, 512, 688, 1024, 4096};

	for (size_t r = 0; r < TPD_ARRAY_LEN(rows); r++) {
		struct pair pair = pair_new(TPD_DTYPE_F32, 300000, true);
		struct tpd_sparsity got;

		random_state = 3;
		for (size_t i = 0; i < pair.n; i++) {
			double share = (double)(i % rows[r]) / (double)rows[r];

			put(&pair, pair.x, i, float_bits((float)(share + (double)(next_random() % 1024) * 0x1p-20)));
		}
		got = measure(&pair);
		for (unsigned k = 0; k < TPD_SPARSITY_PCTS; k++) /* to a column, and what chance allows */
			ck_assert_double_eq_tol(got.percentile[k], tpd_sparsity_percentiles[k] / 100, 1.0 / (double)rows[r] + 0.004);
		assert_like_naive(&pair, naive_stride(pair.n));
		pair_release(&pair);
	}
}
END_TEST

START_TEST(stride_grows_with_the_tensor)
{
	static const struct {
		uint64_t elements;
		uint32_t stride;
	} cases[] = {{1, 1},
		     {2 * TPD_STATS_SAMPLE_LEAST - 1, 1},
		     {2 * TPD_STATS_SAMPLE_LEAST, 2},
		     {16 * TPD_STATS_SAMPLE_LEAST - 1, 8},
		     {16 * TPD_STATS_SAMPLE_LEAST, 16},
		     {(uint64_t)TPD_STATS_SAMPLE_MAX * 16, 16},
		     {(uint64_t)TPD_STATS_SAMPLE_MAX * 16 + 1, 32},
		     {(uint64_t)TPD_STATS_SAMPLE_MAX * 64, 64}};

	for (size_t k = 0; k < TPD_ARRAY_LEN(cases); k++) {
		struct tpd_stats *stats;
		struct tpd_sparsity out;

		ck_assert_int_eq(tpd_stats_new(TPD_DTYPE_F32, cases[k].elements, true, &stats, NULL), TPD_OK);
		tpd_stats_end_survey(stats);
		tpd_stats_finish(stats, &out);
		ck_assert_uint_eq(out.percentile_stride, cases[k].stride);
		tpd_stats_free(stats);
	}
}
END_TEST

/* A tensor of each number of elements at which what is kept fills its room to the last, as that grows: the largest come last. */
START_TEST(what_is_kept_has_room)
{
	static double sample[90000];
	struct tpd_survey survey = {.finite = 1, .pairs = 1};

	for (size_t i = 0; i < TPD_ARRAY_LEN(sample); i++)
		sample[i] = (double)i;
	for (unsigned room = 4096; room <= 16384; room *= 2) {
		/* 2 * (n / 10 + 1) + 64 elements at most are held: n from where that is `room` to where it is 64 more, and around it */
		for (uint64_t n = 5 * (uint64_t)(room - 200); n <= 5 * (uint64_t)(room + 100); n += 3) {
			struct tpd_stats *stats;
			struct tpd_sparsity out;

			survey.sampled = n;
			ck_assert_int_eq(tpd_stats_new(TPD_DTYPE_F32, n, true, &stats, NULL), TPD_OK);
			ck_assert_int_eq(tpd_stats_add_survey(stats, &survey, sample, n, NULL), TPD_OK);
			tpd_stats_end_survey(stats);
			tpd_stats_finish(stats, &out);
			tpd_stats_free(stats);
		}
	}
}
END_TEST

/* Chunks surveyed in any order give the same as long as they are added in order. */
START_TEST(order_of_surveying_does_not_matter)
{
	enum { CHUNKS = 3 };
	struct tpd_survey surveys[CHUNKS];
	struct tpd_stats *stats;
	struct tpd_sparsity got, want;
	double *samples[CHUNKS];
	size_t counts[CHUNKS];
	uint8_t kept[CHUNKS][TPD_CHUNK_ELEMENTS / 8];
	struct tpd_count found[CHUNKS];
	struct pair pair;

	random_state = 99;
	pair = random_pair(TPD_DTYPE_F32, 2 * TPD_CHUNK_ELEMENTS + 777);
	want = measure(&pair);
	ck_assert_int_eq(tpd_stats_new(pair.dtype, pair.n, true, &stats, NULL), TPD_OK);
	for (int c = CHUNKS - 1; c >= 0; c--) {
		size_t first = (size_t)c * TPD_CHUNK_ELEMENTS, n = TPD_MIN(pair.n - first, (size_t)TPD_CHUNK_ELEMENTS);

		samples[c] = calloc(n + TPD_STATS_SLACK, sizeof(double));
		tpd_survey_chunk(stats, pair.x + 4 * first, pair.w + 4 * first, n, first, &surveys[c], samples[c],
				 &counts[c]);
	}
	for (int c = 0; c < CHUNKS; c++) {
		ck_assert_int_eq(tpd_stats_add_survey(stats, &surveys[c], samples[c], counts[c], NULL), TPD_OK);
		free(samples[c]);
	}
	tpd_stats_end_survey(stats);
	for (int c = CHUNKS - 1; c >= 0; c--) {
		size_t first = (size_t)c * TPD_CHUNK_ELEMENTS, n = TPD_MIN(pair.n - first, (size_t)TPD_CHUNK_ELEMENTS);

		tpd_count_chunk(stats, pair.x + 4 * first, pair.w + 4 * first, n, &found[c], kept[c]);
	}
	for (int c = 0; c < CHUNKS; c++)
		ck_assert_int_eq(tpd_stats_add_count(stats, &found[c], kept[c],
						     TPD_MIN(pair.n - (size_t)c * TPD_CHUNK_ELEMENTS,
							     (size_t)TPD_CHUNK_ELEMENTS),
						     NULL),
				 TPD_OK);
	tpd_stats_finish(stats, &got);
	tpd_stats_free(stats);
	ck_assert_double_eq(got.value_rms, want.value_rms); /* to the bit, too */
	ck_assert_double_eq(got.delta_rms, want.delta_rms);
	assert_same(&got, &want);
	pair_release(&pair);
}
END_TEST

/* Many elements at a threshold: whichever way that is found out, each is counted on its side of it. */
START_TEST(at_the_thresholds)
{
	for (size_t t = 0; t < TPD_ARRAY_LEN(types); t++) {
		random_state = 4711 + t;
		for (size_t k = 0; k < TPD_SPARSITY_REAL; k++) {
			struct pair pair = pair_around(types[t], 3000, tpd_sparsity_thresholds, TPD_SPARSITY_REAL);

			assert_like_naive(&pair, naive_stride(pair.n));
			pair_release(&pair);
		}
	}
}
END_TEST

/* Few sizes, each of many elements: a bar among the largest tenth is hard to find, or is no bar. */
START_TEST(many_of_few_sizes)
{
	static const size_t lengths[] = {20000, 131072, 140000, 400000};

	for (size_t s = 0; s < TPD_ARRAY_LEN(lengths); s++) {
		for (unsigned kinds = 1; kinds <= 20; kinds += kinds < 4 ? 1 : 8) {
			struct pair pair = pair_new(TPD_DTYPE_F32, lengths[s], true);

			random_state = kinds + lengths[s];
			for (size_t i = 0; i < pair.n; i++) {
				uint64_t r = next_random(), kind = r % kinds;

				/* in the last turn the last chunk's are the largest, but not by much */
				put(&pair, pair.x, i, float_bits(kind == 0 && r >> 60 ? 0.0f : 1.0f + (float)kind + (float)(i >> 16)));
			}
			assert_like_naive(&pair, naive_stride(pair.n));
			pair_release(&pair);
		}
	}
}
END_TEST

/* Sizes that grow or shrink along the tensor, over many orders: what a chunk says of the next one is wrong. */
START_TEST(one_part_is_not_like_another)
{
	for (unsigned kind = 0; kind < 4; kind++) {
		struct pair pair = pair_new(TPD_DTYPE_F32, 900000, true);

		random_state = 5 + kind;
		for (size_t i = 0; i < pair.n; i++) {
			double r = (double)(next_random() >> 11) * 0x1p-53, where = (double)i / (double)pair.n;
			double power = (double)(i % 256 == 3) * 20;

			if (kind == 2)
				power = where < 0.93 ? -90 : 0;
			else if (kind < 2)
				power = kind == 0 ? 60 * where : -60 * where;
			put(&pair, pair.x, i, float_bits((float)(r * exp2(power - 20))));
		}
		assert_like_naive(&pair, naive_stride(pair.n));
		pair_release(&pair);
	}
}
END_TEST

/* ---- */

START_TEST(other_types_are_refused)
{
	struct tpd_stats *stats = NULL;
	struct tpd_err err = {0};

	ck_assert_int_eq(tpd_stats_new(TPD_DTYPE_F32, 5, true, &stats, &err), TPD_OK);
	tpd_stats_free(stats);
	ck_assert_int_eq(tpd_stats_new(TPD_DTYPE_I64, 5, true, &stats, &err), TPD_USAGE);
}
END_TEST

START_TEST(rounding_mode_of_the_caller_does_not_matter)
{
	struct tpd_sparsity got, want;
	struct pair pair;

	random_state = 5;
	pair = random_pair(TPD_DTYPE_F16, 5000);
	want = measure(&pair);
	ck_assert_int_eq(fesetround(FE_UPWARD), 0);
	got = measure(&pair);
	ck_assert_int_eq(fegetround(), FE_UPWARD);
	ck_assert_int_eq(fesetround(FE_TONEAREST), 0);
	assert_same(&got, &want);
	pair_release(&pair);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("stats");
	TCase *tcase = tcase_create("stats");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tcase, 600);
	tcase_add_loop_test(tcase, random_tensors, 0, (int)TPD_ARRAY_LEN(types));
	tcase_add_loop_test(tcase, every_pattern_pair_kind, 0, 2);
	tcase_add_test(tcase, values_only_without_delta);
	tcase_add_test(tcase, equal_tensors_are_wholly_sparse);
	tcase_add_test(tcase, ties_are_not_kept);
	tcase_add_test(tcase, not_finite_pairs_are_left_out);
	tcase_add_test(tcase, nothing_finite);
	tcase_add_test(tcase, percentile_is_the_nearest_rank);
	tcase_add_test(tcase, gaps_across_chunk_borders);
	tcase_add_test(tcase, long_gaps_are_pooled);
	tcase_add_test(tcase, large_tensors_are_sampled);
	tcase_add_test(tcase, columns_are_sampled_alike);
	tcase_add_test(tcase, stride_grows_with_the_tensor);
	tcase_add_test(tcase, what_is_kept_has_room);
	tcase_add_test(tcase, order_of_surveying_does_not_matter);
	tcase_add_test(tcase, at_the_thresholds);
	tcase_add_test(tcase, many_of_few_sizes);
	tcase_add_test(tcase, one_part_is_not_like_another);
	tcase_add_test(tcase, other_types_are_refused);
	tcase_add_test(tcase, rounding_mode_of_the_caller_does_not_matter);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? 0 : 1;
}
