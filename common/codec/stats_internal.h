/*
 * stats_internal.h - a tensor's statistics while they are made: shared by stats.c (which adds up) and survey.c
 * (which only reads it, from any thread).
 */
#ifndef TPD_CODEC_STATS_INTERNAL_H
#define TPD_CODEC_STATS_INTERNAL_H

#include "codec/codec.h"
#include "codec/stats.h"

#define TPD_STATS_CHUNK_MAX TPD_CHUNK_ELEMENTS
#define TPD_STATS_GAPS 65536u /* gaps from here on are pooled by their bit length */

/* How often each length of a gap occurs. Made for the second pass only: many tensors may wait between the two. */
struct tpd_gaps {
	uint64_t pooled[65];      /* larger ones than have a count of their own, by bit length */
	uint64_t pooled_rice[32]; /* sum of (gap - 1) >> k of these */
	uint64_t count[];         /* of each gap below gap_kinds */
};

struct tpd_stats {
	enum tpd_dtype dtype;
	bool has_delta;
	uint32_t stride; /* every so many blocks of 64 elements is sampled */
	struct tpd_survey total;

	/* the largest |delta| of the sample */
	double *largest;  /* owned; NULL after tpd_stats_end_survey() */
	size_t kept, cap; /* how many are there, and fit */
	size_t keep;      /* how many can matter: a tenth of the sample and one */
	double bar;       /* what is not larger than this cannot matter any more; -1: everything can */
	uint64_t sampled;
	double percentile[TPD_SPARSITY_PCTS];

	struct tpd_count count;
	uint64_t element, last; /* next element to count; one past the last kept one */
	uint64_t gap_count;
	struct tpd_gaps *gaps; /* owned */
	size_t gap_kinds, gap_max;
};

#endif
