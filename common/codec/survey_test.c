/*
 * survey_test.c - the known answers of the statistics' loops: what a form makes of a fixed piece must have the digest that stands here.
 * They were found with the scalar form (kernels.c, which asks before a form is used).
 */
#include "base/tpd.h"

#include "codec/stats_internal.h"

#include "base/bytes.h"
#include "base/digest.h"
#include "base/random.h"

#define ELEMENTS 1100u /* whole rounds, a block, and a part of one */

static const struct answer {
	enum tpd_dtype dtype;
	uint64_t digest;
} answers[] = {
	{TPD_DTYPE_F32, UINT64_C(0xc70d8d3662e8b056)},
	{TPD_DTYPE_BF16, UINT64_C(0xc154ad9c8793dc0d)},
	{TPD_DTYPE_F16, UINT64_C(0xd2c990cecb3a3221)},
	{TPD_DTYPE_F64, UINT64_C(0x6ee2c3b4c7a921e1)},
};

/* Values of about 2^-12 .. 2^-4 and small changes, some of them none; some elements of any kind. */
static void make_piece(enum tpd_dtype dtype, uint8_t *x, uint8_t *w)
{
	const unsigned width = tpd_dtype_width(dtype);
	uint64_t random = 0x9e3779b97f4a7c15u;

	for (size_t i = 0; i < ELEMENTS; i++) {
		uint64_t old = tpd_random_next(&random), kind = tpd_random_next(&random) >> 20, sign = old >> 63, power = kind >> 8 & 7, new;

		if (dtype == TPD_DTYPE_F64)
			old = sign << 63 | (1011 + power) << 52 | (old & 0xfffffffffffff);
		else if (dtype == TPD_DTYPE_F16)
			old = sign << 15 | (3 + power) << 10 | (old & 0x3ff);
		else
			old = (sign << 31 | (115 + power) << 23 | (old & 0x7fffff)) >> (32 - 8 * width);
		new = tpd_random_next(&random) & (dtype == TPD_DTYPE_F64 ? 0xffffffffffu : dtype == TPD_DTYPE_F32 ? 0xffffu : 15u);
		new = kind % 4 ? old + new : old;
		if (kind % 32 == 1)
			new = tpd_random_next(&random);
		for (unsigned b = 0; b < width; b++) {
			x[i * width + b] = (uint8_t)(new >> 8 * b);
			w[i * width + b] = (uint8_t)(old >> 8 * b);
		}
	}
}

static void put_survey(struct tpd_buf *buf, const struct tpd_survey *survey)
{
	const uint64_t counts[] = {survey->nan, survey->inf, survey->finite, survey->pairs, survey->sampled, survey->zeros};
	const double values[] = {survey->value_min, survey->value_max, survey->value_sum2, survey->delta_min,
				 survey->delta_max, survey->delta_sum2, survey->abs_max};

	for (size_t i = 0; i < TPD_ARRAY_LEN(counts); i++)
		tpd_buf_u64(buf, counts[i]);
	for (size_t i = 0; i < TPD_ARRAY_LEN(values); i++)
		tpd_buf_f64(buf, values[i]);
	for (size_t i = 0; i < TPD_SPARSITY_REAL; i++)
		tpd_buf_u64(buf, survey->raw[i]);
	for (size_t i = 0; i < TPD_SPARSITY_ULPS; i++)
		tpd_buf_u64(buf, survey->ulps[i]);
}

static void try_type(const struct tpd_survey_kernels *kernels, enum tpd_dtype dtype, struct tpd_buf *buf)
{
	uint8_t x[8 * ELEMENTS], w[8 * ELEMENTS], kept[ELEMENTS / 8 + 1] = {0};
	double sample[ELEMENTS + TPD_STATS_SLACK];
	struct tpd_survey_task task = {.dtype = dtype, .x = x, .n = ELEMENTS, .first = 128, .stride = 2, .bar = 1e-6};
	struct tpd_count_task again = {.dtype = dtype, .x = x, .w = w, .n = ELEMENTS, .bar = 1e-4};
	uint32_t places[ELEMENTS + TPD_STATS_SLACK];
	size_t samples, above, found;

	make_piece(dtype, x, w);
	for (unsigned with_w = 0; with_w < 2; with_w++) {
		struct tpd_survey survey = {0};

		task.w = with_w ? w : NULL;
		samples = kernels->survey(&task, &survey, sample);
		put_survey(buf, &survey);
	}
	for (unsigned narrow = 0; narrow < 2; narrow++) {
		struct tpd_count counted = {{0}};

		for (size_t i = 0; i < samples; i++)
			tpd_buf_f64(buf, sample[i]);
		for (unsigned k = 0; k < TPD_SPARSITY_REAL; k++)
			again.limits[k] = samples > 4 ? sample[k] : 1e-4; /* which are sure to be met */
		kernels->count(&again, &counted, kept);
		for (unsigned k = 0; k < TPD_SPARSITY_REAL; k++)
			tpd_buf_u64(buf, counted.minmax[k]);
		tpd_buf_put(buf, kept, sizeof kept);
		found = kernels->places(kept, ELEMENTS, places);
		for (size_t i = 0; i < found; i++)
			tpd_buf_u32(buf, places[i]);
		samples = kernels->between(sample, samples, 1e-5, 1e-3, sample, &above);
		tpd_buf_u64(buf, above);
		again.bar = again.limits[0];
	}
}

bool tpd_survey_test(const struct tpd_survey_kernels *kernels)
{
	bool good = true;

	for (size_t i = 0; i < TPD_ARRAY_LEN(answers); i++) {
		struct tpd_buf buf = {0};

		try_type(kernels, answers[i].dtype, &buf);
		good = good && !buf.failed && tpd_xxh64(buf.data, buf.len) == answers[i].digest;
		tpd_buf_release(&buf);
	}
	return good;
}
