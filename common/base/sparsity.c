/*
 * sparsity.c - the thresholds and percentiles that every layer means by an index.
 *
 * They are constants of the record, not settings: a history whose columns
 * change their meaning is no history.
 */
#include "base/tpd.h"

#include "base/sparsity.h"

const double tpd_sparsity_thresholds[TPD_SPARSITY_REAL] = {1e-5, 1e-4, 1e-3, 1e-2};
const double tpd_sparsity_percentiles[TPD_SPARSITY_PCTS] = {90, 92.5, 95, 97.5, 99, 99.5};
