/*
 * stats.c - adds up what the chunks of a tensor say (survey.c), in chunk order.
 *
 * Percentiles from the 90th on need the largest tenth of the sample only: a buffer of twice that is cut back to about
 * the larger half whenever it is full, so each value costs a constant on average.  What is in the larger half is guessed from some
 * of the values, and the guess is proven by counting; where that fails (few values, each of many elements), it is selected. A tensor of one
 * chunk needs no buffer.  In the end the values are counted in bins, and only those in the bins where the percentiles are remain to be
 * selected from.  Zeros need no place: whatever is missing is one.  Gaps are counted by
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
#include "base/random.h"
#include "codec/kernels.h"
#include "codec/stats_internal.h"

#define STRIDE_CALM 16u /* more only where the sample would be too large */
#define BUFFER_LEAST 64u
#define RAISE_FROM 512u
#define COUNT_FROM 1024u
#define BINS 1024u
#define COUNTS_KNOWN 256u /* counts whose share in the entropy is formed once */
#define GAPS_FIRST 512u
#define PLACES 2048u /* elements that are looked at at once */

/* At most. */
static uint64_t sample_size(uint64_t elements, uint32_t stride)
{
	uint64_t blocks = elements / TPD_STATS_BLOCK + (elements % TPD_STATS_BLOCK > 0);

	return TPD_MIN(elements, (blocks / stride + (blocks % stride > 0)) * TPD_STATS_BLOCK);
}

enum tpd_status tpd_stats_new(enum tpd_dtype dtype, uint64_t elements, bool has_delta, struct tpd_stats **out_stats,
			      struct tpd_err *err)
{
	struct tpd_stats *stats;

	const struct tpd_kernels *use, *proof;
	enum tpd_status status;

	if (!tpd_dtype_has_stats(dtype))
		return tpd_fail(err, TPD_USAGE, "no statistics are kept of %s", tpd_dtype_name(dtype));
	status = tpd_kernels_get(&use, &proof, err);
	if (status)
		return status;
	stats = calloc(1, sizeof *stats);
	if (!stats)
		return tpd_fail_nomem(err);
	stats->kernels = use->survey;
	stats->dtype = dtype;
	stats->has_delta = has_delta;
	stats->elements = elements;
	stats->stride = 1;
	while (stats->stride < STRIDE_CALM && elements / stats->stride >= 2 * TPD_STATS_SAMPLE_LEAST)
		stats->stride *= 2;
	while (sample_size(elements, stats->stride) > TPD_STATS_SAMPLE_MAX)
		stats->stride *= 2;
	stats->keep = (size_t)(sample_size(elements, stats->stride) / 10 + 1);
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

static uint64_t bits_of(double v)
{
	uint64_t bits;

	memcpy(&bits, &v, sizeof bits);
	return bits;
}

static double double_of(uint64_t bits)
{
	double v;

	memcpy(&v, &bits, sizeof v);
	return v;
}

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
	uint64_t random = TPD_RANDOM_START;

	while (low < high) {
		ptrdiff_t i = low, j = high;
		double pivot;

		pivot = v[low + (ptrdiff_t)(tpd_random_next(&random) % (uint64_t)(high - low + 1))];
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

double tpd_stats_bar(double *v, size_t n, size_t above)
{
	double bar = 0;

	if (above == 0 || above >= n)
		return 0;
	select_rank(v, n, above - 1);
	for (size_t i = above; i < n; i++) /* others may equal it */
		if (v[i] < v[above - 1] && v[i] > bar)
			bar = v[i];
	return bar;
}

/* A bar that leaves at least `need` of them, guessed from some of them. False: no such one was found, and nothing was done. */
static bool raise_bar(struct tpd_stats *stats, size_t need)
{
	const double share = (double)need / (double)stats->kept;
	const size_t step = stats->kept / RAISE_FROM;
	double some[RAISE_FROM], none[TPD_STATS_SLACK], bar;
	size_t above;

	if (step == 0)
		return false;
	for (size_t i = 0; i < RAISE_FROM; i++)
		some[i] = stats->largest[i * step];
	bar = tpd_stats_bar(some, RAISE_FROM, (size_t)(share * RAISE_FROM + 3 * sqrt(share * (1 - share) * RAISE_FROM)) + 1);
	if (bar <= stats->bar)
		return false;
	stats->kernels->between(stats->largest, stats->kept, bar, bar, none, &above);
	if (above < need)
		return false;
	stats->kept = stats->kernels->between(stats->largest, stats->kept, bar, INFINITY, stats->largest, &above);
	stats->bar = bar;
	return true;
}

/* To at most half of what fits. */
static void cut_back(struct tpd_stats *stats)
{
	if (raise_bar(stats, stats->keep) && stats->kept < stats->keep + stats->keep / 2)
		return;
	select_rank(stats->largest, stats->kept, stats->keep - 1);
	stats->kept = stats->keep;
	stats->bar = stats->largest[stats->keep - 1];
}

/* Appended to what is kept, as far as they can matter. */
static enum tpd_status keep_sample(struct tpd_stats *stats, const struct tpd_survey *survey, const double *sample, size_t samples,
				   struct tpd_err *err)
{
	if (samples > 0 && !stats->largest) {
		stats->cap = 2 * stats->keep + BUFFER_LEAST;
		stats->largest = malloc((stats->cap + TPD_STATS_SLACK) * sizeof(*stats->largest));
		if (!stats->largest)
			return tpd_fail_nomem(err);
	}
	if (survey->bar > stats->bar) { /* so many are above it in this chunk alone */
		size_t above;

		stats->bar = survey->bar;
		if (stats->kept > 0)
			stats->kept = stats->kernels->between(stats->largest, stats->kept, stats->bar, INFINITY, stats->largest, &above);
	}
	for (size_t i = 0, n, above; i < samples; i += n) {
		if (stats->kept == stats->cap)
			cut_back(stats);
		n = TPD_MIN(samples - i, stats->cap - stats->kept);
		if (survey->bar < stats->bar) {
			stats->kept += stats->kernels->between(sample + i, n, stats->bar, INFINITY, stats->largest + stats->kept, &above);
		} else { /* all are above it */
			memcpy(stats->largest + stats->kept, sample + i, n * sizeof(*sample));
			stats->kept += n;
		}
	}
	return TPD_OK;
}

/* How many are larger than the percentile, at least. */
static size_t above_percentile(const struct tpd_stats *stats, unsigned k)
{
	uint64_t mille = (uint64_t)(tpd_sparsity_percentiles[k] * 10); /* 92.5 % is 925 in a thousand, exactly */
	uint64_t sampled = stats->total.sampled;

	return (size_t)(sampled - (sampled * mille + 999) / 1000); /* nearest rank, counted from 1 upwards */
}

static size_t bin_of(double v, uint64_t low, unsigned shift)
{
	uint64_t bin = (bits_of(v) - low) >> shift;

	return (size_t)TPD_MIN(bin, (uint64_t)BINS - 1);
}

/*
 * Of these values leave those among which a percentile is: they are counted in bins of bit patterns, whose order is that of the values.
 * larger[k]: how many larger ones than the percentile there are; among those that are left, after this. Returns how many these are.
 */
static size_t leave_bins(const struct tpd_stats *stats, double *v, size_t n, double bar, size_t larger[TPD_SPARSITY_PCTS])
{
	const uint64_t low = bits_of(bar), /* some may equal it */ high = bits_of(stats->total.abs_max);
	uint32_t counts[2][BINS] = {{0}};
	uint8_t in[BINS] = {0};
	size_t above = 0, bin = BINS, here = 0, left = 0, taken = 0;
	unsigned shift = 0;

	while (high > low && (high - low) >> shift >= BINS)
		shift++;
	for (size_t i = 0; i < n / 2; i++) { /* in two places, so that an addition need not wait for the one before it */
		counts[0][bin_of(v[2 * i], low, shift)]++;
		counts[1][bin_of(v[2 * i + 1], low, shift)]++;
	}
	if (n % 2 > 0)
		counts[0][bin_of(v[n - 1], low, shift)]++;
	for (unsigned k = TPD_SPARSITY_PCTS; k-- > 0;) { /* the highest first */
		if (larger[k] >= n)
			continue;
		while (larger[k] >= above + here) {
			above += here;
			bin--;
			here = (size_t)counts[0][bin] + counts[1][bin];
		}
		if (!in[bin]) {
			in[bin] = 1;
			left += here;
		}
		larger[k] = left - (above + here - larger[k]);
	}
	for (size_t i = 0; i < n; i++) { /* written always, as in take_above() */
		double value = v[i];

		v[taken] = value;
		taken += in[bin_of(value, low, shift)];
	}
	assert(taken == left);
	return taken;
}

/* The percentiles in the largest of the sample, all that are larger than the bar; puts them in another order. */
static void find_percentiles(struct tpd_stats *stats, double *v, size_t n, double bar)
{
	size_t larger[TPD_SPARSITY_PCTS], all = n;

	for (unsigned k = 0; k < TPD_SPARSITY_PCTS; k++)
		larger[k] = above_percentile(stats, k);
	if (n >= COUNT_FROM)
		n = leave_bins(stats, v, n, bar, larger);
	for (unsigned k = 0; k < TPD_SPARSITY_PCTS; k++) { /* from the lowest on: the later ones are no smaller */
		if (above_percentile(stats, k) >= all) /* all others are zeros: there was no bar */
			continue;
		select_rank(v, n, larger[k]);
		stats->percentile[k] = v[larger[k]];
		n = larger[k] + 1;
	}
}

static void add_total(struct tpd_survey *total, const struct tpd_survey *survey)
{
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
	total->sampled += survey->sampled;
	total->zeros += survey->zeros;
	total->delta_sum2 += survey->delta_sum2;
	for (unsigned k = 0; k < TPD_SPARSITY_REAL; k++)
		total->raw[k] += survey->raw[k];
	for (unsigned k = 0; k < TPD_SPARSITY_ULPS; k++)
		total->ulps[k] += survey->ulps[k];
}

enum tpd_status tpd_stats_add_survey(struct tpd_stats *stats, const struct tpd_survey *survey, double *sample, size_t samples,
				     struct tpd_err *err)
{
	const bool whole = stats->total.count == 0 && survey->count == stats->elements;

	if (!whole) {
		enum tpd_status status = keep_sample(stats, survey, sample, samples, err);

		if (status)
			return status;
	}
	add_total(&stats->total, survey);
	if (whole && samples > 0)
		find_percentiles(stats, sample, samples, survey->bar);
	return TPD_OK;
}

void tpd_stats_end_survey(struct tpd_stats *stats)
{
	if (stats->kept > 0)
		find_percentiles(stats, stats->largest, stats->kept, stats->bar);
	free(stats->largest);
	stats->largest = NULL;
	stats->kept = stats->cap = 0;
}

/* ---- gaps ---- */

static unsigned bit_length(uint64_t v)
{
	return v == 0 ? 0 : 64 - (unsigned)__builtin_clzll(v);
}

static void pool_gap(struct tpd_stats *stats, uint64_t gap)
{
	stats->gaps->pooled[bit_length(gap)]++;
	for (unsigned k = 0; k < TPD_ARRAY_LEN(stats->gaps->pooled_rice); k++)
		stats->gaps->pooled_rice[k] += (gap - 1) >> k;
}

/* Counts of their own for gaps up to this one, if it is to have one. */
static enum tpd_status make_gaps(struct tpd_stats *stats, size_t gap, struct tpd_err *err)
{
	size_t had = stats->gaps ? stats->gaps->room : 0, room = TPD_MIN(TPD_MAX(2 * gap, (size_t)GAPS_FIRST), stats->gap_kinds);
	struct tpd_gaps *gaps = realloc(stats->gaps, sizeof *gaps + room * sizeof gaps->count[0]);

	if (!gaps)
		return tpd_fail_nomem(err);
	if (!stats->gaps)
		memset(gaps, 0, sizeof *gaps);
	memset(gaps->count + had, 0, (room - had) * sizeof gaps->count[0]);
	gaps->room = room;
	stats->gaps = gaps;
	return TPD_OK;
}

/* A gap that is not among those which have room. */
static enum tpd_status add_long_gap(struct tpd_stats *stats, uint64_t gap, struct tpd_err *err)
{
	enum tpd_status status = gap < stats->gap_kinds ? make_gaps(stats, (size_t)gap, err) : TPD_OK;

	if (status)
		return status;
	if (gap < stats->gaps->room)
		stats->gaps->count[gap]++;
	else
		pool_gap(stats, gap);
	return TPD_OK;
}

/* The gaps before these kept elements, counted from `first`. */
static enum tpd_status add_gaps(struct tpd_stats *stats, uint64_t first, const uint32_t *places, size_t n, struct tpd_err *err)
{
	uint64_t *count = stats->gaps->count, room = stats->gaps->room, last = stats->last - first; /* modulo 2^64 */

	for (size_t i = 0; i < n; i++) {
		uint64_t next = (uint64_t)places[i] + 1, gap = next - last;

		last = next;
		if (gap < room) {
			count[gap]++;
		} else {
			enum tpd_status status = add_long_gap(stats, gap, err);

			if (status)
				return status;
			count = stats->gaps->count;
			room = stats->gaps->room;
		}
	}
	stats->last = first + last;
	stats->gap_count += n;
	return TPD_OK;
}

enum tpd_status tpd_stats_add_count(struct tpd_stats *stats, const struct tpd_count *count, const uint8_t *kept,
				    size_t n, struct tpd_err *err)
{
	uint32_t places[PLACES + TPD_STATS_SLACK];
	enum tpd_status status = stats->gaps ? TPD_OK : make_gaps(stats, 0, err);

	for (size_t from = 0; !status && from < n; from += PLACES) {
		size_t found = stats->kernels->places(kept + from / 8, TPD_MIN(n - from, (size_t)PLACES), places);

		status = add_gaps(stats, stats->element + from, places, found, err);
	}
	if (status)
		return status;
	for (unsigned k = 0; k < TPD_SPARSITY_REAL; k++)
		stats->count.minmax[k] += count->minmax[k];
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
	/* |z| < 0.172, so the next term is below 2^-63 */
	static const double inverse[] = {1.0 / 23, 1.0 / 21, 1.0 / 19, 1.0 / 17, 1.0 / 15, 1.0 / 13,
					 1.0 / 11, 1.0 / 9,  1.0 / 7,  1.0 / 5,  1.0 / 3,  1.0};
	const uint64_t fraction = (UINT64_C(1) << 52) - 1, bits = bits_of(v);
	int exponent = (int)(bits >> 52) - 1022;
	double mantissa = double_of((bits & fraction) | UINT64_C(1022) << 52), z, z2, sum = 0;

	if (mantissa < 0.70710678118654752) {
		mantissa *= 2;
		exponent--;
	}
	z = (mantissa - 1) / (mantissa + 1);
	z2 = z * z;
	for (unsigned k = 0; k < TPD_ARRAY_LEN(inverse); k++)
		sum = sum * z2 + inverse[k];
	return exponent + 2 * z * sum * 1.44269504088896340736;
}

static double plogp(uint64_t count, uint64_t all)
{
	return count == 0 ? 0 : (double)count * strict_log2((double)all / (double)count);
}

/* Most gaps occur a few times only. known: 0 where it was not needed yet. */
static double known_plogp(double known[COUNTS_KNOWN], uint64_t count, uint64_t all)
{
	if (count >= COUNTS_KNOWN)
		return plogp(count, all);
	if (known[count] == 0)
		known[count] = plogp(count, all);
	return known[count];
}

#define GAP_SHIFT 48u /* counts are of elements of one tensor, gaps with a count of their own below 2^16 */
_Static_assert(TPD_STATS_GAPS <= 1u << (64 - GAP_SHIFT), "a gap fits above its count");

/* Gaps that occur, each with its count, ascending, where the counts were; returns how many. */
static size_t list_gaps(struct tpd_gaps *gaps)
{
	size_t n = 0;

	for (size_t gap = 1; gap < gaps->room; gap++) { /* written always: about half of them occur */
		const uint64_t count = gaps->count[gap];

		gaps->count[n] = (uint64_t)gap << GAP_SHIFT | count;
		n += count != 0;
	}
	return n;
}

static void describe_gaps(const struct tpd_stats *stats, struct tpd_sparsity *out)
{
	const uint64_t mask = (UINT64_C(1) << GAP_SHIFT) - 1;
	uint64_t elias = 0, rice_best = UINT64_MAX;
	double entropy = 0, known[COUNTS_KNOWN] = {0};
	const uint64_t *list;
	size_t n;

	out->gap_count = stats->gap_count;
	if (stats->gap_count == 0)
		return;
	n = list_gaps(stats->gaps);
	list = stats->gaps->count;
	for (size_t i = 0; i < n; i++) {
		elias += (list[i] & mask) * elias_bits(bit_length(list[i] >> GAP_SHIFT));
		entropy += known_plogp(known, list[i] & mask, stats->gap_count);
	}
	for (unsigned length = 1; length < TPD_ARRAY_LEN(stats->gaps->pooled); length++) {
		elias += stats->gaps->pooled[length] * elias_bits(length);
		entropy += plogp(stats->gaps->pooled[length], stats->gap_count);
	}
	for (unsigned k = 0; k < TPD_ARRAY_LEN(stats->gaps->pooled_rice); k++) {
		uint64_t rice = stats->gap_count * (k + 1) + stats->gaps->pooled_rice[k];

		for (size_t i = 0; i < n; i++)
			rice += (list[i] & mask) * (((list[i] >> GAP_SHIFT) - 1) >> k);
		if (rice >= rice_best)
			break; /* each k saves half of what the one before it did, and costs as much: from here on it grows */
		rice_best = rice;
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
