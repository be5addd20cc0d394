/*
 * scaled_encode.c - encoding `scaled`: factors, and how far elements lie from their prediction. SPEC.md sections 11 and 13.
 *
 * The problem: what an optimizer keeps of a weight changes by an amount that differs from element to element by orders of magnitude, so one step
 * for a row is too coarse for most and too fine for the others. But what that amount is about is known: for exp_avg from exp_avg_sq, for the rest
 * from the row and the column. All of it is counted in eighths of an octave, in integers; a row's part and a column's are the means of what is
 * left of the logarithm when the others are taken off.
 *
 * Rows that had no gradient at all (tokens of an embedding that did not occur) were only multiplied by a constant, the same for all: it is
 * looked for as the most frequent quotient, and such rows are counted in units in the last place.
 */
#include "base/tpd.h"

#include <fenv.h>
#include <string.h>

#include "codec/grid_kernel.h"
#include "codec/kernels.h"
#include "codec/predict.h"
#include "codec/scaled.h"

#define QUOTIENTS 65536u   /* of the upper halves of floats */
#define LOW_PART 1024u     /* so few of the quotients may be below the constant part of what only grows */
#define OWN_ULPS 16        /* from a prediction by the constant factor: the row had no gradient */
#define OWN_PART 8u        /* where at most this part of its elements is further away */
#define FACTOR_MAX 2.0     /* of a row */
#define COARSER 4          /* without a scale: eighths of an octave */
#define COARSER_ALONE 12
#define COLUMN_BITS 6u     /* that a column's part takes, about */
#define SPREAD 164         /* variance of one element's logarithm around the mean, in eighths of an octave: (1.6 * 8)^2 */

/* Elements as floats. */
static void widen(const struct tpd_codec *codec, enum tpd_dtype dtype, const uint8_t *from, size_t n, float *out)
{
	if (dtype == TPD_DTYPE_F32)
		memcpy(out, from, 4 * n);
	else
		codec->kernels->step_widen(dtype, from, n, out);
}

/* The first value that so many are at most; lowest: else the most frequent one, the first of several. */
static uint32_t pick(const uint32_t *counts, bool lowest, uint64_t total)
{
	uint32_t best = 0;
	uint64_t sum = 0;

	for (uint32_t i = 0; i < QUOTIENTS; i++) {
		sum += counts[i];
		if (lowest && sum > total / LOW_PART)
			return i;
		if (!lowest && counts[i] > counts[best])
			best = i;
	}
	return best;
}

/*
 * What x was multiplied by since it was p, where nothing else happened to it: of their quotients the most frequent, in two steps, of the upper half
 * and then of the lower one. only_grows: nothing lies below it, and the upper half is near the lowest. 1 when there is none.
 */
static enum tpd_status find_factor(struct tpd_codec *codec, const float *x, const float *p, size_t n, bool only_grows, float *quotients, float *out,
				   struct tpd_err *err)
{
	enum tpd_status status = tpd_scratch_need(&codec->fit, QUOTIENTS * sizeof(uint32_t), err);
	uint32_t *counts = (uint32_t *)(void *)codec->fit.data, upper, lower;
	uint64_t total = 0;

	*out = 1;
	if (status != TPD_OK)
		return status;
	memset(counts, 0, QUOTIENTS * sizeof(*counts));
	for (size_t i = 0; i < n; i++) {
		float q = x[i] / p[i]; /* also by 0: then it is not finite, and not counted */

		quotients[i] = q > 0 && q - q == 0 ? q : 0;
	}
	for (size_t i = 0; i < n; i++)
		counts[bits_of(quotients[i]) >> 16]++;
	counts[0] = 0;
	for (uint32_t i = 0; i < QUOTIENTS; i++)
		total += counts[i];
	if (total == 0)
		return TPD_OK;
	upper = pick(counts, only_grows, total);
	memset(counts, 0, QUOTIENTS * sizeof(*counts));
	for (size_t i = 0; i < n; i++)
		counts[bits_of(quotients[i]) & 0xffff] += bits_of(quotients[i]) >> 16 == upper;
	lower = pick(counts, false, 0);
	*out = float_of(upper << 16 | lower);
	return TPD_OK;
}

/* Rows that are the factor's multiple, but for rounding, get level 0. */
static void find_own_ulps(const struct tpd_scaled *s, const uint8_t *x)
{
	for (size_t i = 0; i < s->count; i++) {
		size_t start = tpd_piece_start(&s->pieces, i), end = tpd_piece_start(&s->pieces, i + 1), far = 0;

		for (size_t j = start; j < end; j++) {
			int64_t d = s->width == 4 ? (int64_t)tpd_get_u32(x + 4 * j) - tpd_get_u32(s->predicted + 4 * j) :
						    (int64_t)tpd_get_u16(x + 2 * j) - tpd_get_u16(s->predicted + 2 * j);

			far += d > OWN_ULPS || d < -OWN_ULPS;
		}
		s->levels[i] = far * OWN_PART > end - start;
	}
}

/* exp_avg: least squares, each element counting by what is expected of it. */
static void find_row_factors(const struct tpd_codec *codec, const struct tpd_scaled *s, const float *x, const float *p, float *ratio_x, float *ratio_p)
{
	codec->kernels->predict_ratio(x, s->v2, s->n, ratio_x);
	codec->kernels->predict_ratio(p, s->v2, s->n, ratio_p);
	for (size_t i = 0; i < s->count; i++) {
		size_t start = tpd_piece_start(&s->pieces, i), n = tpd_piece_start(&s->pieces, i + 1) - start;
		const float *arrays[2] = {ratio_p + start, ratio_x + start};
		double sums[3], factor = 0;

		codec->kernels->predict_products(arrays, 2, n, sums);
		if (sums[0] > 0)
			factor = sums[1] / sums[0];
		if (!(factor >= -FACTOR_MAX && factor <= FACTOR_MAX))
			factor = 0;
		s->row_factors[i] = tpd_coefficient(factor);
	}
}

/* Eighths of octaves of |x - prediction|, less what the scale says; INT16_MIN where they are equal or it is not finite. */
static void find_logs(const struct tpd_scaled *s, const float *x, const float *predicted, int16_t *out)
{
	for (size_t i = 0; i < s->n; i++) {
		float off = x[i] - predicted[i];
		uint32_t magnitude = bits_of(off) & 0x7fffffff;

		out[i] = INT16_MIN;
		if (magnitude > 0 && magnitude < 0x7f800000)
			out[i] = (int16_t)((int)(magnitude >> 20) - (s->form & TPD_SCALED_V2 ? s->scale[i] : 0));
	}
}

static int mean_of(int64_t sum, int64_t count)
{
	int64_t twice = 2 * sum + count;

	return (int)(twice >= 0 ? twice / (2 * count) : -((2 * count - 1 - twice) / (2 * count)));
}

/* Each row's mean; one without any differs nowhere and is counted in own ulps. */
static void find_row_means(const struct tpd_scaled *s, const int16_t *logs, int32_t *means)
{
	for (size_t i = 0; i < s->count; i++) {
		size_t end = tpd_piece_start(&s->pieces, i + 1);
		int64_t sum = 0, count = 0;

		for (size_t j = tpd_piece_start(&s->pieces, i); j < end && s->levels[i] > 0; j++) {
			sum += logs[j] == INT16_MIN ? 0 : logs[j];
			count += logs[j] != INT16_MIN;
		}
		means[i] = count > 0 ? mean_of(sum, count) : 0;
		if (count == 0)
			s->levels[i] = 0;
	}
}

/* Each column's mean of what is left; are they worth what they take? */
static bool find_columns(const struct tpd_scaled *s, const int16_t *logs, const int32_t *means, int64_t *sums, int64_t *counts)
{
	const size_t row = s->pieces.row;
	int64_t gain = 0; /* of squares of eighths of an octave */

	memset(sums, 0, row * sizeof(*sums));
	memset(counts, 0, row * sizeof(*counts));
	for (size_t i = 0; i < s->count; i++) {
		size_t start = tpd_piece_start(&s->pieces, i), n = tpd_piece_start(&s->pieces, i + 1) - start, column = tpd_scaled_column(s, i);

		for (size_t j = 0; j < n && s->levels[i] > 0; j++) {
			int log = logs[start + j];

			sums[column + j] += log == INT16_MIN ? 0 : log - means[i];
			counts[column + j] += log != INT16_MIN;
		}
	}
	for (size_t j = 0; j < row; j++) {
		int mean = counts[j] > 0 ? mean_of(sums[j], counts[j]) : 0;

		mean = TPD_MAX(-TPD_SCALED_COLUMN_MIDDLE, TPD_MIN(mean, TPD_SCALED_COLUMN_MIDDLE - 1));
		s->columns[j] = (uint8_t)(mean + TPD_SCALED_COLUMN_MIDDLE);
		if (counts[j] > 0)
			gain += counts[j] * mean * mean - SPREAD;
	}
	/* A step that is off by d octaves costs an element about 0.69 d^2 bits. */
	return gain > 0 && gain * 69 / 6400 > (int64_t)(COLUMN_BITS * row);
}

/* base, and levels above it. */
static void set_levels(struct tpd_scaled *s, bool alone, const int32_t *means)
{
	const int mantissa = s->dtype == TPD_DTYPE_F32 ? 23 : 7;
	int low = INT32_MAX;

	for (size_t i = 0; i < s->count; i++)
		if (s->levels[i] > 0)
			low = TPD_MIN(low, means[i]);
	s->base = 0;
	if (low == INT32_MAX)
		return;
	/* A step is an eighth of a standard deviation, and the mean of the logarithms is 0.9 octaves below that. */
	s->base = low - 1 + 8 * (mantissa - 3) + 7;
	/* Squares, which is what has no scale, spread twice as far in octaves: with steps as fine as that too many are beyond the last symbol. */
	if (!(s->form & TPD_SCALED_V2))
		s->base += alone ? COARSER_ALONE : COARSER;
	for (size_t i = 0; i < s->count; i++)
		if (s->levels[i] > 0)
			s->levels[i] = (uint8_t)TPD_MIN(means[i] - low + 1, 255);
}

/* All that a header says. x, p: n elements; alone: those of p are 0. */
static enum tpd_status fit(struct tpd_codec *codec, bool alone, unsigned terms, const struct tpd_inputs *inputs, const uint8_t *x, const uint8_t *p,
			   struct tpd_scaled *s, struct tpd_err *err)
{
	int16_t *logs = (int16_t *)(void *)s->v1; /* once the scale is made */
	int32_t *means = (int32_t *)(void *)s->sums;
	int64_t *column_sums = (int64_t *)(void *)s->sums + s->count + 8, *column_counts = column_sums + s->pieces.row;
	enum tpd_status status = TPD_OK;

	widen(codec, s->dtype, x, s->n, s->a);
	widen(codec, s->dtype, p, s->n, s->b);
	if (terms & TPD_TERM_SCALE) {
		s->form |= alone ? TPD_SCALED_V2 : TPD_SCALED_V2 | TPD_SCALED_ROWS;
		tpd_input_load(&inputs->of[TPD_INPUT_V2], s->n, s->v2);
		if (terms & TPD_TERM_CAME_IN && !alone) {
			s->form |= TPD_SCALED_V1;
			tpd_input_load(&inputs->of[TPD_INPUT_V1], s->n, s->v1);
			status = find_factor(codec, s->v2, s->v1, s->n, true, s->c, &s->share, err);
		}
		codec->kernels->scaled_scale(s->v2, s->form & TPD_SCALED_V1 ? s->v1 : NULL, s->share, s->n, s->scale);
	}
	if (status == TPD_OK && !alone)
		status = find_factor(codec, s->a, s->b, s->n, !(terms & TPD_TERM_SCALE), s->c, &s->factor, err);
	if (status != TPD_OK)
		return status;
	memset(s->levels, 0, s->count);
	tpd_scaled_predict(codec, s, p);
	find_own_ulps(s, x);
	if (s->form & TPD_SCALED_ROWS) {
		find_row_factors(codec, s, s->a, s->b, s->c, s->v1);
		tpd_scaled_predict(codec, s, p);
	}
	widen(codec, s->dtype, s->predicted, s->n, s->b);
	find_logs(s, s->a, s->b, logs);
	find_row_means(s, logs, means);
	if (s->form & TPD_SCALED_ROWS) /* rows that turned out to be the same */
		tpd_scaled_predict(codec, s, p);
	if (find_columns(s, logs, means, column_sums, column_counts))
		s->form |= TPD_SCALED_COLUMNS;
	set_levels(s, alone, means);
	tpd_scaled_steps(codec, s);
	return TPD_OK;
}

static uint8_t *put_float(uint8_t *out, float f)
{
	tpd_put_u32(out, bits_of(f));
	return out + 4;
}

static enum tpd_status put_stream(struct tpd_codec *codec, const uint8_t *bytes, size_t n, uint8_t **out, struct tpd_err *err)
{
	size_t part = 0;
	enum tpd_status status = tpd_symbols_encode(codec, bytes, n, *out, &part, err);

	*out += part;
	return status;
}

static enum tpd_status put_header(struct tpd_codec *codec, const struct tpd_scaled *s, uint8_t **out, struct tpd_err *err)
{
	enum tpd_status status = TPD_OK;

	*(*out)++ = (uint8_t)s->form;
	tpd_put_u16(*out, (uint16_t)s->pieces.row);
	tpd_put_u16(*out + 2, (uint16_t)s->pieces.first);
	*out = put_float(*out + 4, s->factor);
	if (s->form & TPD_SCALED_V1)
		*out = put_float(*out, s->share);
	tpd_put_u16(*out, (uint16_t)(int16_t)s->base);
	*out += 2;
	for (unsigned plane = 0; status == TPD_OK && s->form & TPD_SCALED_ROWS && plane < 2; plane++) {
		for (size_t i = 0; i < s->count; i++)
			s->sorted[i] = (uint8_t)(bits_of(s->row_factors[i]) >> (16 + 8 * plane));
		status = put_stream(codec, s->sorted, s->count, out, err);
	}
	if (status == TPD_OK)
		status = put_stream(codec, s->levels, s->count, out, err);
	if (status == TPD_OK && s->form & TPD_SCALED_COLUMNS)
		status = put_stream(codec, s->columns, s->pieces.row, out, err);
	return status;
}

static enum tpd_status put_symbols(struct tpd_codec *codec, const struct tpd_scaled *s, const uint8_t *symbols, uint8_t **out, struct tpd_err *err)
{
	size_t counts[TPD_SCALED_CLASSES] = {0}, next[TPD_SCALED_CLASSES], start = 0;
	enum tpd_status status = TPD_OK;

	for (size_t i = 0; i < s->n; i++)
		counts[s->classes[i]]++;
	for (unsigned c = 0; c < TPD_SCALED_CLASSES; c++) {
		next[c] = start;
		start += counts[c];
	}
	for (size_t i = 0; i < s->n; i++)
		s->sorted[next[s->classes[i]]++] = symbols[i];
	for (unsigned c = 0; status == TPD_OK && c < TPD_SCALED_CLASSES; c++)
		status = put_stream(codec, s->sorted + next[c] - counts[c], counts[c], out, err);
	return status;
}

enum tpd_status tpd_encode_scaled(struct tpd_codec *codec, const struct tpd_plan *plan, const struct tpd_chunk *chunk, const uint8_t *p,
				  size_t *out_len, struct tpd_err *err)
{
	const unsigned width = tpd_dtype_width(plan->dtype);
	const size_t n = chunk->len / width, left = chunk->len % width, lanes = tpd_whole_rounds(n);
	const struct tpd_pieces pieces = {.first = plan->row - (size_t)(chunk->element % plan->row), .row = plan->row, .n = n};
	const size_t fields_max = n * width + TPD_FIELDS_SLACK;
	struct tpd_scaled s = {0};
	uint8_t *out, *fields, *fields_end;
	uint32_t *values;
	fenv_t caller;
	enum tpd_status status =
		tpd_scratch_need(&codec->payload, TPD_SCALED_BOUND(n, tpd_piece_count(&pieces), pieces.row, width), err);

	if (status == TPD_OK)
		status = tpd_scaled_room(codec, plan->dtype, &pieces, &s, err);
	if (status == TPD_OK)
		status = tpd_scratch_need(&codec->symbols, n + 1, err);
	if (status == TPD_OK)
		status = tpd_scratch_need(&codec->fields, fields_max, err);
	if (status == TPD_OK)
		status = tpd_scratch_need(&codec->values, lanes * (sizeof(*values) + 1) + 1, err);
	if (status != TPD_OK)
		return status;
	fegetenv(&caller);
	fesetenv(FE_DFL_ENV);
	status = fit(codec, plan->encoding == TPD_ENCODING_SCALED_ALONE, plan->terms, chunk->inputs, chunk->x, p, &s, err);
	values = (uint32_t *)(void *)codec->values.data;
	if (status == TPD_OK)
		codec->kernels->scaled_encode(plan->dtype, s.steps, chunk->x, s.predicted, n, codec->symbols.data, values,
					      (uint8_t *)(values + lanes));
	fesetenv(&caller);
	if (status != TPD_OK)
		return status;
	fields_end = codec->fields.data + fields_max;
	fields = codec->kernels->fields_pack(values, (uint8_t *)(values + lanes), lanes / TPD_LANES, fields_end);
	out = codec->payload.data;
	status = put_header(codec, &s, &out, err);
	if (status == TPD_OK)
		status = put_symbols(codec, &s, codec->symbols.data, &out, err);
	if (status != TPD_OK)
		return status;
	memcpy(out, fields, (size_t)(fields_end - fields));
	out += fields_end - fields;
	memcpy(out, chunk->x + n * width, left);
	*out_len = (size_t)(out - codec->payload.data) + left;
	return TPD_OK;
}
