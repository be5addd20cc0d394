/*
 * sparsity.h - the statistics of one tensor at one checkpoint: the record that the codec
 * layer computes (codec/stats.h), the store keeps in the manifest and the catalog shows.
 *
 * Definition (once for the whole project).  x is the new value, w1 the value at the same
 * place in the checkpoint of the run's highest lower step at the time of ingest;
 * delta = x - w1 in double, over the `pairs` in which both are finite, zeros included; of types narrower than F64 rounded to
 * single precision, unless that makes it infinite, everywhere but for `zeros`, delta_min, delta_max and max|delta| (F32 and BF16 within a factor of two of
 * each other differ by such a number anyway).
 *   raw     |delta| < t
 *   minmax  |delta| < t * max|delta| of the tensor; a tensor whose max is 0 is wholly sparse
 *   log     |ord(x) - ord(w1)| < t ulps, ord() the order-preserving integer of the bit pattern
 * A share is count / pairs.  A percentile is the nearest-rank one of |delta|.
 * Without a w1 of the same type and size, has_delta is false and only the value fields hold.
 */
#ifndef TPD_BASE_SPARSITY_H
#define TPD_BASE_SPARSITY_H

#include "base/tpd.h"

#define TPD_SPARSITY_REAL 4  /* thresholds of raw and minmax */
#define TPD_SPARSITY_ULPS 17 /* thresholds 2^0 .. 2^16 of log */
#define TPD_SPARSITY_PCTS 6

extern const double tpd_sparsity_thresholds[TPD_SPARSITY_REAL]; /* 1e-5 1e-4 1e-3 1e-2 */
extern const double tpd_sparsity_percentiles[TPD_SPARSITY_PCTS]; /* 90 92.5 95 97.5 99 99.5 */
#define TPD_SPARSITY_PCT95 2 /* index of the 95th in it */

struct tpd_sparsity {
	/* values of x */
	uint64_t count;      /* elements */
	uint64_t nan, inf;   /* of x */
	double value_min, value_max, value_rms; /* over finite x; 0 when there is none */

	/* delta; all zero when !has_delta */
	bool has_delta;
	uint64_t pairs;      /* both finite */
	uint64_t zeros;      /* delta == 0 */
	uint64_t raw[TPD_SPARSITY_REAL];
	uint64_t minmax[TPD_SPARSITY_REAL];
	uint64_t ulps[TPD_SPARSITY_ULPS];
	double delta_min, delta_max, delta_rms; /* signed extremes */
	uint32_t percentile_stride; /* 1: percentiles are exact; s: from one of each s blocks of 64 elements */
	double percentile[TPD_SPARSITY_PCTS];

	/* gaps between the kept positions: |delta| > percentile[95] */
	uint64_t gap_count;
	double gap_elias_bits; /* mean bits a gap, Elias delta */
	double gap_rice_bits;  /* mean bits a gap, best Rice parameter */
	double gap_entropy;    /* bits a gap; gaps >= 65536 pooled by power of two */
};

#endif
