/*
 * kernels_scalar.c - the kernels for any CPU, in plain C: in the headers below, rans_encode.c, rans_decode.c, and here.
 */
#include "base/tpd.h"

#include "codec/kernels.h"

#include <string.h>

#include "codec/classes_kernel.h"
#include "codec/fields.h"
#include "codec/grid_plain.h"
#include "codec/internal.h"
#include "codec/kernels_internal.h"
#include "codec/low_rank_kernel.h"
#include "codec/planes_kernel.h"
#include "codec/predict_kernel.h"
#include "codec/scaled_kernel.h"
#include "codec/sparse.h"
#include "codec/stats_internal.h"
#include "codec/step_kernel.h"

#define SCAN_GROUP 32u /* bytes */
#define FEW 1024u     /* symbols to count */

/* How many words each lane will have is known from its bits alone, so the stream is written forwards to where it ends. */
static uint8_t *fields_pack(const uint32_t *values, const uint8_t *bits, size_t rounds, uint8_t *end)
{
	struct tpd_fields_out fields;
	uint32_t total[TPD_LANES] = {0}, these[TPD_LANES];
	uint8_t *out = end - 4;

	for (size_t i = 0; i < rounds * TPD_LANES; i++)
		total[i % TPD_LANES] += bits[i];
	for (unsigned lane = 0; lane < TPD_LANES; lane++)
		out -= (total[lane] + 31) / 32 * 4;
	tpd_fields_start(&fields, out);
	for (size_t r = 0; r < rounds; r++) {
		for (unsigned lane = 0; lane < TPD_LANES; lane++)
			these[lane] = bits[r * TPD_LANES + lane];
		tpd_fields_push(&fields, values + r * TPD_LANES, these);
	}
	tpd_fields_finish(&fields);
	return out;
}

/* So few that eight tables would be most of the work. */
static void count_few(const uint8_t *symbols, size_t n, uint32_t counts[256])
{
	uint32_t other[256] = {0};
	size_t i = 0;

	memset(counts, 0, 256 * sizeof *counts);
	for (; i + 2 <= n; i += 2) {
		counts[symbols[i]]++;
		other[symbols[i + 1]]++;
	}
	if (i < n)
		counts[symbols[i]]++;
	for (unsigned s = 0; s < 256; s++)
		counts[s] += other[s];
}

void tpd_count_sample(const uint8_t *symbols, size_t n, uint32_t counts[256])
{
	uint32_t part[8][256]; /* eight tables: runs of one symbol would wait for their own increments */
	size_t i = 0;

	if (n <= FEW) {
		count_few(symbols, n, counts);
		return;
	}
	memset(part, 0, sizeof part);
	for (; i + TPD_COUNT_BLOCK <= n; i += TPD_COUNT_BLOCK) {
		if (!tpd_block_is_counted(i / TPD_COUNT_BLOCK, n))
			continue;
		for (size_t j = i; j < i + TPD_COUNT_BLOCK; j += 8) {
			uint64_t word = tpd_get_u64(symbols + j);

#pragma GCC unroll 8
			for (unsigned b = 0; b < 8; b++) /* as a loop, with shifts by a variable, it takes twice as long */
				part[b][word >> 8 * b & 255]++;
		}
	}
	for (; i < n; i++)
		part[0][symbols[i]]++;
	for (unsigned s = 0; s < 256; s++) {
		counts[s] = 0;
		for (unsigned b = 0; b < 8; b++)
			counts[s] += part[b][s];
	}
}

size_t tpd_count_bytes(const uint8_t *symbols, size_t n, uint32_t counts[256])
{
	size_t sum = 0;

	tpd_count_sample(symbols, n, counts);
	if (n > TPD_COUNT_ALL_MAX) {
		uint8_t occurs[256] = {0};

		for (size_t i = 0; i < n; i++)
			occurs[symbols[i]] = 1;
		for (unsigned s = 0; s < 256; s++)
			counts[s] = TPD_MAX(counts[s], occurs[s]);
	}
	for (unsigned s = 0; s < 256; s++)
		sum += counts[s];
	return sum;
}

/*
 * Groups of 32 equal bytes are skipped whole; inside a group that differs every element's position is written and
 * the count moves on only where it changed, since a branch there would be guessed wrong each time.
 */
TPD_INLINE size_t scan(const uint8_t *x, const uint8_t *p, size_t i, size_t n, const unsigned width, uint32_t *places)
{
	const size_t group = SCAN_GROUP / width;
	size_t m = 0;

	for (; i + group <= n; i += group) {
		if (memcmp(x + i * width, p + i * width, SCAN_GROUP) == 0)
			continue;
		for (size_t j = i; j < i + group; j++) {
			places[m] = (uint32_t)j;
			m += sparse_load(x, j, width) != sparse_load(p, j, width);
		}
	}
	for (; i < n; i++) {
		if (sparse_load(x, i, width) != sparse_load(p, i, width))
			places[m++] = (uint32_t)i;
	}
	return m;
}

size_t tpd_find_changes_from(const uint8_t *x, const uint8_t *p, size_t i, size_t n, unsigned width, uint32_t *places)
{
	switch (width) {
	case 4:
		return scan(x, p, i, n, 4, places);
	case 2:
		return scan(x, p, i, n, 2, places);
	default:
		return scan(x, p, i, n, 1, places);
	}
}

static size_t find_changes(const uint8_t *x, const uint8_t *p, size_t n, unsigned width, uint32_t *places)
{
	return tpd_find_changes_from(x, p, 0, n, width, places);
}

const struct tpd_kernels tpd_kernels_scalar = {
	.name = "scalar",
	.choose_t = choose_t,
	.grid_encode = grid_encode,
	.grid_decode = grid_decode,
	.fields_pack = fields_pack,
	.predict = predict,
	.predict_learn = predict_learn,
	.predict_ratio = predict_ratio,
	.predict_difference = predict_difference,
	.predict_apply = predict_apply,
	.predict_products = predict_products,
	.low_rank_square = low_rank_square,
	.low_rank_project = low_rank_project,
	.low_rank_products = low_rank_products,
	.low_rank_add = low_rank_add,
	.scaled_scale = scaled_scale,
	.scaled_predict = scaled_predict,
	.scaled_steps = scaled_steps,
	.scaled_quotients = scaled_quotients,
	.scaled_far = scaled_far,
	.scaled_learn = scaled_learn,
	.scaled_measure = scaled_measure,
	.scaled_columns = scaled_columns,
	.scaled_deal = scaled_deal,
	.scaled_sort = scaled_sort,
	.scaled_encode = scaled_encode,
	.scaled_decode = scaled_decode,
	.class_keys = class_keys,
	.step_widen = step_widen,
	.step_jump = step_jump,
	.step_target = step_target,
	.step_mirror = step_mirror,
	.step_choose = step_choose,
	.context = &tpd_context_scalar,
	.rans_encode = tpd_scalar_rans_encode,
	.rans_decode = tpd_scalar_rans_decode,
	.rans_encode_mixed = tpd_scalar_rans_encode_mixed,
	.rans_decode_mixed = tpd_scalar_rans_decode_mixed,
	.count_bytes = tpd_count_bytes,
	.planes_split = planes_split,
	.planes_join = planes_join,
	.find_changes = find_changes,
	.survey = &tpd_survey_scalar,
};
