/*
 * stats.c - adds up what the chunks of a tensor say (survey.c), in chunk order.
 *
 * Percentiles from the 90th on need the largest tenth of the sample only: a buffer of twice that is cut back to the
 * larger half by selection whenever it is full, so each value costs a constant on average.  Gaps are counted by
 * length; every mean and the entropy follow from those counts at the end.  Logarithms are formed with + - * /
 * alone, since libm's differ between machines and the record is part of the manifest.  Rejected: a heap (a cache
 * miss for each level), sorting (for all values), sketches (a percentile should be a value that is there).
 */
#include "base/tpd.h"

#include "codec/stats.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "codec/stats_internal.h"

#define STRIDE_FIRST 16u
#define SAMPLE_BLOCK 64u
#define BUFFER_FIRST 4096u

static uint64_t sample_size(uint64_t elements, uint32_t stride)
{
	uint64_t blocks = elements / SAMPLE_BLOCK + (elements % SAMPLE_BLOCK > 0);

	return TPD_MIN(elements, (blocks / stride + (blocks % stride > 0)) * SAMPLE_BLOCK);
}

enum tpd_status tpd_stats_new(enum tpd_dtype dtype, uint64_t elements, bool has_delta, struct tpd_stats **out_stats,
			      struct tpd_err *err)
{
	struct tpd_stats *stats;

	if (!tpd_dtype_has_stats(dtype))
		return tpd_fail(err, TPD_USAGE, "no statistics are kept of %s", tpd_dtype_name(dtype));
	stats = calloc(1, sizeof *stats);
	if (!stats)
		return tpd_fail_nomem(err);
	stats->dtype = dtype;
	stats->has_delta = has_delta;
	stats->stride = elements <= TPD_STATS_EXACT ? 1 : STRIDE_FIRST;
	while (sample_size(elements, stats->stride) > TPD_STATS_SAMPLE_MAX)
		stats->stride *= 2;
	stats->keep = (size_t)(sample_size(elements, stats->stride) / 10 + 1);
	stats->bar = -1;
	stats->gap_kinds = (size_t)TPD_MIN(elements + 1, (uint64_t)TPD_STATS_GAPS);
	*out_stats = stats;
	return TPD_OK;
}

void tpd_stats_free(struct tpd_stats *stats)
{
	if (!stats)
		return;
	free(stats->largest);
	free(stats->gaps);
	free(stats);
}

/* ---- selection ---- */

static void swap(double *a, double *b)
{
	double t = *a;

	*a = *b;
	*b = t;
}

/*
 * Order v so that v[rank] is what it would be if v were sorted downwards, larger ones before it.  Hoare's
 * selection; the pivot's place comes from a generator with a fixed start, so no input is slow by design.
 */
static void select_rank(double *v, size_t n, size_t rank)
{
	ptrdiff_t low = 0, high = (ptrdiff_t)n - 1, want = (ptrdiff_t)rank;
	uint64_t random = UINT64_C(0x9e3779b97f4a7c15);

	while (low < high) {
		ptrdiff_t i = low, j = high;
		double pivot;

		random ^= random << 13;
		random ^= random >> 7;
		random ^= random << 17;
		pivot = v[low + (ptrdiff_t)(random % (uint64_t)(high - low + 1))];
		while (i <= j) {
			while (v[i] > pivot)
				i++;
			while (v[j] < pivot)
				j--;
			if (i <= j)
				swap(&v[i++], &v[j--]);
		}
		/* v[low .. j] >= pivot, v[i .. high] <= pivot, and what is between equals it */
		if (want <= j)
			high = j;
		else if (want >= i)
			low = i;
		else
			return;
	}
}

static void cut_back(struct tpd_stats *stats)
{
	select_rank(stats->largest, stats->kept, stats->keep - 1);
	stats->kept = stats->keep;
	stats->bar = stats->largest[stats->keep - 1];
}

/* Room for one more block. */
static enum tpd_status make_room(struct tpd_stats *stats, struct tpd_err *err)
{
	const size_t most = 2 * stats->keep + SAMPLE_BLOCK;
	size_t cap;
	double *largest;

	if (stats->kept + SAMPLE_BLOCK <= stats->cap)
		return TPD_OK;
	if (stats->cap == most) {
		cut_back(stats);
		return TPD_OK;
	}
	cap = TPD_MIN(stats->cap ? 2 * stats->cap : (size_t)BUFFER_FIRST, most);
	largest = realloc(stats->largest, cap * sizeof *largest);
	if (!largest)
		return tpd_fail_nomem(err);
	stats->largest = largest;
	stats->cap = cap;
	if (stats->kept + SAMPLE_BLOCK > stats->cap) /* the last growth may be of less than a block */
		cut_back(stats);
	return TPD_OK;
}

/* Written always, counted only when it can matter: the branch would be guessed wrong too often. */
static void keep_block(struct tpd_stats *stats, const double *sample, size_t n)
{
	double *largest = stats->largest;
	const double bar = stats->bar;
	size_t kept = stats->kept;

	assert(n <= stats->cap - kept);
	for (size_t i = 0; i < n; i++) {
		largest[kept] = sample[i];
		kept += sample[i] > bar;
	}
	stats->kept = kept;
}

enum tpd_status tpd_stats_add_survey(struct tpd_stats *stats, const struct tpd_survey *survey, const double *sample,
				     size_t samples, struct tpd_err *err)
{
	struct tpd_survey *total = &stats->total;

	for (size_t i = 0; i < samples; i += SAMPLE_BLOCK) {
		enum tpd_status status = make_room(stats, err);

		if (status != TPD_OK)
			return status;
		keep_block(stats, sample + i, TPD_MIN(samples - i, (size_t)SAMPLE_BLOCK));
	}
	stats->sampled += samples;
	if (survey->finite > 0) {
		bool none = total->finite == 0;

		total->value_min = none ? survey->value_min : fmin(total->value_min, survey->value_min);
		total->value_max = none ? survey->value_max : fmax(total->value_max, survey->value_max);
	}
	if (survey->pairs > 0) {
		bool none = total->pairs == 0;

		total->delta_min = none ? survey->delta_min : fmin(total->delta_min, survey->delta_min);
		total->delta_max = none ? survey->delta_max : fmax(total->delta_max, survey->delta_max);
		total->abs_max = fmax(total->abs_max, survey->abs_max);
	}
	total->count += survey->count;
	total->nan += survey->nan;
	total->inf += survey->inf;
	total->finite += survey->finite;
	total->value_sum2 += survey->value_sum2;
	total->pairs += survey->pairs;
	total->zeros += survey->zeros;
	total->delta_sum2 += survey->delta_sum2;
	for (unsigned k = 0; k < TPD_SPARSITY_REAL; k++)
		total->raw[k] += survey->raw[k];
	for (unsigned k = 0; k < TPD_SPARSITY_ULPS; k++)
		total->ulps[k] += survey->ulps[k];
	return TPD_OK;
}

void tpd_stats_end_survey(struct tpd_stats *stats)
{
	for (unsigned k = 0; k < TPD_SPARSITY_PCTS && stats->sampled > 0; k++) {
		uint64_t mille =
			(uint64_t)(tpd_sparsity_percentiles[k] * 10);  /* 92.5 % is 925 in a thousand, exactly */
		uint64_t rank = (stats->sampled * mille + 999) / 1000; /* nearest rank, counted from 1 upwards */
		size_t from_top = (size_t)(stats->sampled - rank);

		assert(from_top < stats->kept);
		select_rank(stats->largest, stats->kept, from_top);
		stats->percentile[k] = stats->largest[from_top];
		stats->kept = from_top + 1; /* the later ones are no smaller */
	}
	free(stats->largest);
	stats->largest = NULL;
	stats->kept = stats->cap = 0;
}

/* ---- gaps ---- */

static unsigned bit_length(uint64_t v)
{
	return v == 0 ? 0 : 64 - (unsigned)__builtin_clzll(v);
}

static void add_gap(struct tpd_stats *stats, uint64_t gap)
{
	stats->gap_count++;
	if (gap < stats->gap_kinds) {
		stats->gaps->count[gap]++;
		stats->gap_max = TPD_MAX(stats->gap_max, (size_t)gap);
		return;
	}
	stats->gaps->pooled[bit_length(gap)]++;
	for (unsigned k = 0; k < TPD_ARRAY_LEN(stats->gaps->pooled_rice); k++)
		stats->gaps->pooled_rice[k] += (gap - 1) >> k;
}

static uint64_t kept_word(const uint8_t *kept, size_t from, size_t n)
{
	uint8_t bytes[8] = {0};

	if (n - from >= 64)
		return tpd_get_u64(kept + from / 8);
	memcpy(bytes, kept + from / 8, (n - from + 7) / 8);
	return tpd_get_u64(bytes) & ((UINT64_C(1) << (n - from)) - 1);
}

enum tpd_status tpd_stats_add_count(struct tpd_stats *stats, const struct tpd_count *count, const uint8_t *kept,
				    size_t n, struct tpd_err *err)
{
	if (!stats->gaps)
		stats->gaps = calloc(1, sizeof *stats->gaps + stats->gap_kinds * sizeof stats->gaps->count[0]);
	if (!stats->gaps)
		return tpd_fail_nomem(err);
	for (unsigned k = 0; k < TPD_SPARSITY_REAL; k++)
		stats->count.minmax[k] += count->minmax[k];
	for (size_t from = 0; from < n; from += 64) {
		for (uint64_t word = kept_word(kept, from, n); word != 0; word &= word - 1) {
			uint64_t next = stats->element + from + (unsigned)__builtin_ctzll(word) + 1;

			add_gap(stats, next - stats->last);
			stats->last = next;
		}
	}
	stats->element += n;
	return TPD_OK;
}

static unsigned elias_bits(unsigned length)
{
	unsigned log = bit_length(length) - 1;

	return 2 * log + length;
}

/* log2 of v >= 1, by the series of atanh over the mantissa. */
static double strict_log2(double v)
{
	int exponent;
	double mantissa = frexp(v, &exponent), z, z2, sum = 0;

	if (mantissa < 0.70710678118654752) {
		mantissa *= 2;
		exponent--;
	}
	z = (mantissa - 1) / (mantissa + 1);
	z2 = z * z;
	for (int k = 23; k >= 1; k -= 2) /* |z| < 0.172, so the next term is below 2^-63 */
		sum = sum * z2 + 1.0 / k;
	return exponent + 2 * z * sum * 1.44269504088896340736;
}

static double plogp(uint64_t count, uint64_t all)
{
	return count == 0 ? 0 : (double)count * strict_log2((double)all / (double)count);
}

static void describe_gaps(const struct tpd_stats *stats, struct tpd_sparsity *out)
{
	uint64_t elias = 0, rice_best = UINT64_MAX;
	double entropy = 0;

	out->gap_count = stats->gap_count;
	if (stats->gap_count == 0)
		return;
	for (size_t gap = 1; gap <= stats->gap_max; gap++) {
		elias += stats->gaps->count[gap] * elias_bits(bit_length(gap));
		entropy += plogp(stats->gaps->count[gap], stats->gap_count);
	}
	for (unsigned length = 1; length < TPD_ARRAY_LEN(stats->gaps->pooled); length++) {
		elias += stats->gaps->pooled[length] * elias_bits(length);
		entropy += plogp(stats->gaps->pooled[length], stats->gap_count);
	}
	for (unsigned k = 0; k < TPD_ARRAY_LEN(stats->gaps->pooled_rice); k++) {
		uint64_t rice = stats->gap_count * (k + 1) + stats->gaps->pooled_rice[k];

		for (size_t gap = ((size_t)1 << k) + 1; gap <= stats->gap_max; gap++)
			rice += stats->gaps->count[gap] * ((gap - 1) >> k);
		rice_best = TPD_MIN(rice_best, rice);
	}
	out->gap_elias_bits = (double)elias / (double)stats->gap_count;
	out->gap_rice_bits = (double)rice_best / (double)stats->gap_count;
	out->gap_entropy = entropy / (double)stats->gap_count;
}

void tpd_stats_finish(struct tpd_stats *stats, struct tpd_sparsity *out)
{
	const struct tpd_survey *total = &stats->total;

	*out = (struct tpd_sparsity){.count = total->count, .nan = total->nan, .inf = total->inf};
	if (total->finite > 0) {
		out->value_min = total->value_min;
		out->value_max = total->value_max;
		out->value_rms = sqrt(total->value_sum2 / (double)total->finite);
	}
	if (!stats->has_delta)
		return;
	out->has_delta = true;
	out->percentile_stride = stats->stride;
	out->pairs = total->pairs;
	out->zeros = total->zeros;
	memcpy(out->raw, total->raw, sizeof out->raw);
	memcpy(out->ulps, total->ulps, sizeof out->ulps);
	memcpy(out->minmax, stats->count.minmax, sizeof out->minmax);
	if (total->pairs > 0) {
		out->delta_min = total->delta_min;
		out->delta_max = total->delta_max;
		out->delta_rms = sqrt(total->delta_sum2 / (double)total->pairs);
	}
	memcpy(out->percentile, stats->percentile, sizeof out->percentile);
	describe_gaps(stats, out);
}
