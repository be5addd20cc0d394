/*
 * stats_internal.h - a tensor's statistics while they are made: shared by stats.c (which adds up) and survey.c
 * (which only reads it, from any thread); and the loops over elements, in as many forms as kernels.h has.
 */
#ifndef TPD_CODEC_STATS_INTERNAL_H
#define TPD_CODEC_STATS_INTERNAL_H

#include "codec/codec.h"
#include "codec/stats.h"

#define TPD_STATS_CHUNK_MAX TPD_CHUNK_ELEMENTS
#define TPD_STATS_BLOCK 64u   /* elements: of so many of these blocks one is sampled */
#define TPD_STATS_GAPS 65536u /* gaps from here on are pooled by their bit length */

/* A chunk. w: NULL without delta. first: a multiple of TPD_STATS_BLOCK. */
struct tpd_survey_task {
	enum tpd_dtype dtype;
	const uint8_t *x, *w;
	size_t n;
	uint64_t first;
	uint32_t stride; /* a power of two */
	double bar; /* not negative: sampled |delta| that are not larger are left out */
};

struct tpd_count_task {
	enum tpd_dtype dtype;
	const uint8_t *x, *w;
	size_t n;
	double limits[TPD_SPARSITY_REAL]; /* INFINITY: every pair is below */
	double bar;
};

/* Is this block of the sample? One of each group of `stride` is: which one the leading bits of the group's number times 2^32 / phi say. */
static inline bool tpd_stats_sampled(uint64_t block, uint32_t stride)
{
	const unsigned bits = (unsigned)__builtin_ctz(stride);
	const uint32_t spread = (uint32_t)(block >> bits) * UINT32_C(0x9e3779b1);

	return (block & (stride - 1)) == (uint64_t)spread << bits >> 32;
}

/* The loops: all forms give the same bits. Their caller has set the floating-point mode, and out to zeros. */
struct tpd_survey_kernels {
	/* Returns how many |delta| are in sample; out->count is not set. */
	size_t (*survey)(const struct tpd_survey_task *task, struct tpd_survey *out, double *sample);
	void (*count)(const struct tpd_count_task *task, struct tpd_count *out, uint8_t *kept);
	/*
	 * Those of n values, none negative, with low < v <= high, in order, to out, which has room for TPD_STATS_SLACK more and may be v
	 * itself; returns how many. *out_above: values above high.
	 */
	size_t (*between)(const double *v, size_t n, double low, double high, double *out, size_t *out_above);
	/* Which of n bits are set, ascending; room for n + TPD_STATS_SLACK. */
	size_t (*places)(const uint8_t *kept, size_t n, uint32_t *out);
};

extern const struct tpd_survey_kernels tpd_survey_scalar, tpd_survey_avx2, tpd_survey_avx512;
/* Does this form give the known answers? In the default floating-point mode. */
bool tpd_survey_test(const struct tpd_survey_kernels *kernels);

/* stats.c: the largest of these values that has so many larger ones; 0: none has. Puts them in another order. */
double tpd_stats_bar(double *v, size_t n, size_t above);

/* How often each length of a gap occurs. Made for the second pass only: many tensors may wait between the two. */
struct tpd_gaps {
	uint64_t pooled[65];      /* larger ones than have a count of their own, by bit length */
	uint64_t pooled_rice[32]; /* sum of (gap - 1) >> k of these */
	size_t room;              /* counts; grows with the largest gap, up to gap_kinds */
	uint64_t count[];         /* of each gap below gap_kinds */
};

struct tpd_stats {
	enum tpd_dtype dtype;
	bool has_delta;
	uint64_t elements;
	uint32_t stride; /* of so many blocks one is sampled; a power of two */
	const struct tpd_survey_kernels *kernels;
	struct tpd_survey total;

	/* the largest |delta| of the sample; zeros are not among them */
	double *largest;  /* owned; NULL after tpd_stats_end_survey() */
	size_t kept, cap; /* how many are there, and fit (TPD_STATS_SLACK aside) */
	size_t keep;      /* how many can matter: a tenth of the sample and one */
	double bar;       /* what is not larger than this cannot matter any more; 0: only zeros */
	double percentile[TPD_SPARSITY_PCTS];

	struct tpd_count count;
	uint64_t element, last; /* next element to count; one past the last kept one */
	uint64_t gap_count;
	struct tpd_gaps *gaps; /* owned */
	size_t gap_kinds;
};

#endif
