/*
 * survey.c - what one chunk says about a tensor's sparsity: the two passes over elements (stats.h), as survey_kernel.h has them.
 *
 * Percentiles need the largest tenth of a tensor only. Where a chunk alone has more elements than that, a bar below which most of it cannot
 * matter is guessed from a few of its elements. The guess is sound when so many are above it after all; else the chunk is
 * looked at again without one. Rejected: one pass (min-max and the 95th percentile need the whole tensor first); counts by exponent
 * and leading mantissa bits, from which all thresholds follow but for what is in their bins (an access to memory for each
 * element is dearer than a comparison of 16 with each of the thresholds).
 */
#include "base/tpd.h"

#include "codec/stats.h"

#include <assert.h>
#include <fenv.h>
#include <math.h>

#include "base/digest.h"
#include "base/random.h"
#include "codec/stats_internal.h"
#include "codec/survey_kernel.h"

/* --- the form for any CPU --- */

static size_t survey(const struct tpd_survey_task *task, struct tpd_survey *out, double *sample)
{
	return survey_plain(task, out, sample);
}

static void count(const struct tpd_count_task *task, struct tpd_count *out, uint8_t *kept)
{
	count_plain(task, out, kept);
}

static size_t between(const double *v, size_t n, double low, double high, double *out, size_t *out_above)
{
	return between_plain(v, n, low, high, out, out_above);
}

static size_t places(const uint8_t *kept, size_t n, uint32_t *out)
{
	return places_plain(kept, n, out);
}

const struct tpd_survey_kernels tpd_survey_scalar = {survey, count, between, places};

/* --- the bar --- */

#define GUESS_FROM 256u /* elements that are looked at */
#define NEIGHBOURS 4u    /* of so many each: the first takes longer to come from memory than all else */
#define GUESS_SIGMAS 3  /* of the share that they have above the bar: were they independent, one chunk in a thousand would be looked at twice */

/* A bar above which there are probably `keep` of the sampled elements; 0: none is known. */
static double guess_bar(const struct tpd_survey_task *task, size_t keep)
{
	double sizes[GUESS_FROM];
	uint64_t random = TPD_RANDOM_START;
	const double share = (double)keep * task->stride / (double)task->n;
	const size_t step = task->n / GUESS_FROM, width = tpd_dtype_width(task->dtype);
	size_t places[GUESS_FROM / NEIGHBOURS], above;

	for (size_t i = 0; i < TPD_ARRAY_LEN(places); i++) { /* a fixed distance might be that of rows */
		places[i] = i * NEIGHBOURS * step + (size_t)(tpd_random_next(&random) % (NEIGHBOURS * (step - 1) + 1));
		__builtin_prefetch(task->x + places[i] * width);
		__builtin_prefetch(task->w + places[i] * width);
	}
	for (size_t i = 0; i < GUESS_FROM; i++)
		sizes[i] = fabs(pair_difference(task->dtype, task->x, task->w, places[i / NEIGHBOURS] + i % NEIGHBOURS));
	above = (size_t)(share * GUESS_FROM + GUESS_SIGMAS * sqrt(share * (1 - share) * GUESS_FROM)) + 1;
	return tpd_stats_bar(sizes, GUESS_FROM, above);
}

void tpd_survey_chunk(const struct tpd_stats *stats, const uint8_t *x, const uint8_t *w1, size_t n, uint64_t first,
		      struct tpd_survey *out, double *sample, size_t *out_samples)
{
	struct tpd_survey_task task = {.dtype = stats->dtype, .x = x, .w = w1, .n = n, .first = first, .stride = stats->stride};
	fenv_t caller;

	assert(n <= TPD_STATS_CHUNK_MAX && first % TPD_STATS_BLOCK == 0 && (stats->has_delta || !w1));
	task.bar = stats->bar;
	fegetenv(&caller);
	fesetenv(FE_DFL_ENV); /* denormals are values, whatever somebody else in this process set */
	if (w1 && n >= 16 * GUESS_FROM && n / 2 / stats->stride >= stats->keep)
		task.bar = fmax(task.bar, guess_bar(&task, stats->keep));
	*out = (struct tpd_survey){.count = n};
	*out_samples = stats->kernels->survey(&task, out, sample);
	if (task.bar > stats->bar && *out_samples < stats->keep) {
		task.bar = stats->bar;
		*out = (struct tpd_survey){.count = n};
		*out_samples = stats->kernels->survey(&task, out, sample);
	}
	out->bar = task.bar;
	fesetenv(&caller);
}

void tpd_count_chunk(const struct tpd_stats *stats, const uint8_t *x, const uint8_t *w1, size_t n,
		     struct tpd_count *out, uint8_t *kept)
{
	const bool wholly = stats->total.abs_max == 0;
	struct tpd_count_task task = {.dtype = stats->dtype, .x = x, .w = w1, .n = n, .bar = stats->percentile[TPD_SPARSITY_PCT95]};
	fenv_t caller;

	assert(stats->has_delta && n <= TPD_STATS_CHUNK_MAX);
	*out = (struct tpd_count){0};
	fegetenv(&caller);
	fesetenv(FE_DFL_ENV);
	for (unsigned k = 0; k < TPD_SPARSITY_REAL; k++)
		task.limits[k] = wholly ? INFINITY : tpd_sparsity_thresholds[k] * stats->total.abs_max;
	stats->kernels->count(&task, out, kept);
	fesetenv(&caller);
}
