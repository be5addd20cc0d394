/*
 * stats.h - sparsity statistics of a tensor, chunk by chunk (definitions: base/sparsity.h).
 *
 * Two passes, because two of the definitions need the whole tensor first (its max |delta| and its 95th percentile):
 *
 *     survey:  tpd_survey_chunk() for every chunk, in any thread; tpd_stats_add_survey() in chunk order; then
 *              tpd_stats_end_survey().
 *     count:   tpd_count_chunk() for every chunk, in any thread; tpd_stats_add_count() in chunk order; then
 *              tpd_stats_finish().
 *
 * Sums of squares are formed within a chunk in 16 lanes (element number in the chunk modulo 16), added up pairwise
 * (8 apart, then 4, 2, 1), and then in chunk order, so the result does not depend on threads or on the width of
 * vectors.  Squares and samples are of deltas in single precision, where base/sparsity.h has them so.  ord() of the log thresholds gives
 * both zeros 0, so `zeros` equals the count below 1 ulp.
 * Percentiles need only the largest tenth of the sampled |delta|, which is kept in a bounded buffer. The sample is everything below
 * 2 * TPD_STATS_SAMPLE_LEAST elements. From there on percentile_stride, a power of two, says of how many blocks of 64 elements one is
 * sampled: the largest stride up to 16 that leaves TPD_STATS_SAMPLE_LEAST, then 32, 64 ... where TPD_STATS_SAMPLE_MAX would be exceeded.
 * Which one of a group of so many is spread evenly (tpd_stats_sampled()), since rows are often as long as a few blocks.
 * A percentile p of m independent elements is off by sqrt(p (1 - p) / m) in rank: of 2^15 by 0.17 in a hundred at the 90th, 0.12 at the
 * 95th, 0.04 at the 99.5th. Neighbours are not quite independent; README.md says what was measured.
 */
#ifndef TPD_CODEC_STATS_H
#define TPD_CODEC_STATS_H

#include "base/dtype.h"
#include "base/sparsity.h"
#include "base/tpd.h"

#define TPD_STATS_SLACK 16u               /* doubles behind a sample that may be written */
#define TPD_STATS_SAMPLE_LEAST (1u << 15) /* sampled elements at least, where not all are */
#define TPD_STATS_SAMPLE_MAX (1u << 26)   /* sampled elements at most; a tenth of them, 8 bytes each, are kept twice at most */

/* What one chunk of at most TPD_CHUNK_ELEMENTS elements gives the survey. Plain data, no ownership. */
struct tpd_survey {
	uint64_t count, nan, inf, finite;
	double value_min, value_max, value_sum2;
	uint64_t pairs, sampled, zeros, raw[TPD_SPARSITY_REAL], ulps[TPD_SPARSITY_ULPS];
	double delta_min, delta_max, delta_sum2, abs_max;
	double bar; /* what is not larger was left out of the sample, since it cannot matter */
};

struct tpd_count {
	uint64_t minmax[TPD_SPARSITY_REAL];
};

struct tpd_stats; /* of one tensor, while it is made */

/* elements: of the whole tensor, which decides the percentile stride. has_delta: a w1 of the same type and size exists. */
enum tpd_status tpd_stats_new(enum tpd_dtype dtype, uint64_t elements, bool has_delta, struct tpd_stats **out_stats,
			      struct tpd_err *err);
void tpd_stats_free(struct tpd_stats *stats);

/*
 * x, w1: n elements (w1 NULL without delta).  sample: room for n + TPD_STATS_SLACK doubles; the |delta| of the sampled finite
 * pairs, as far as it can matter to a percentile, is put there in element order, *out_samples says how many.  first: element
 * number of x[0] in the tensor, a multiple of 64.  Not while tpd_stats_add_survey() runs.
 */
void tpd_survey_chunk(const struct tpd_stats *stats, const uint8_t *x, const uint8_t *w1, size_t n, uint64_t first,
		      struct tpd_survey *out, double *sample, size_t *out_samples);
/* Both in chunk order, from one thread at a time. The sample is used up. */
enum tpd_status tpd_stats_add_survey(struct tpd_stats *stats, const struct tpd_survey *survey, double *sample, size_t samples,
				     struct tpd_err *err);
void tpd_stats_end_survey(struct tpd_stats *stats); /* percentiles and max are known; sample memory is freed */

/* kept: bitmap of n bits (bit i of byte i/8), set where |delta| > 95th percentile; ignored pairs are not kept. */
void tpd_count_chunk(const struct tpd_stats *stats, const uint8_t *x, const uint8_t *w1, size_t n, struct tpd_count *out,
		     uint8_t *kept);
enum tpd_status tpd_stats_add_count(struct tpd_stats *stats, const struct tpd_count *count, const uint8_t *kept, size_t n,
				    struct tpd_err *err);
void tpd_stats_finish(struct tpd_stats *stats, struct tpd_sparsity *out);

#endif
