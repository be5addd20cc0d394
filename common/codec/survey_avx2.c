/*
 * survey_avx2.c - the loops of the statistics for CPUs with AVX2: the plain ones, which the compiler makes vectors of.
 */
#include "base/tpd.h"

#include "codec/stats_internal.h"

#if defined(__AVX2__)

#include "codec/survey_kernel.h"

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

const struct tpd_survey_kernels tpd_survey_avx2 = {survey, count, between, places};

#else

const struct tpd_survey_kernels tpd_survey_avx2 = {0}; /* not built for this CPU */

#endif
