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

#include "codec/fields.h"
#include "codec/grid_kernel.h"
#include "codec/kernels.h"
#include "codec/predict.h"
#include "codec/scaled.h"

#define QUOTIENTS 65536u   /* of the upper halves of floats */
#define LOW_PART 1024u     /* so few of the quotients may be below the constant part of what only grows */
#define LOOK_BLOCK 64u     /* quotients are of so many elements in each of some blocks */
#define LOOK_BLOCKS 128u   /* at least, and at most twice as many, where there are more than that */
#define LOOK_MAX (2 * LOOK_BLOCKS * LOOK_BLOCK)
#define OWN_ULPS 16        /* from a prediction by the constant factor: the row had no gradient */
#define OWN_PART 8u        /* where at most this part of its elements is further away */
#define FACTOR_MAX 2.0     /* of a row */
#define COARSER 4          /* without a scale: eighths of an octave */
#define COARSER_ALONE 12
#define COLUMN_BITS 6u     /* that a column's part takes, about */
#define SPREAD 164         /* variance of one element's logarithm around the mean, in eighths of an octave: (1.6 * 8)^2 */

/* x / p of some elements; returns how many. */
static size_t find_quotients(const struct tpd_codec *codec, enum tpd_dtype dtype, const uint8_t *x, const uint8_t *p, size_t n, float out[LOOK_MAX])
{
	const size_t width = tpd_dtype_width(dtype), blocks = (n + LOOK_BLOCK - 1) / LOOK_BLOCK;
	const size_t step = (blocks / LOOK_BLOCKS) | 1; /* odd: rows often come in powers of two */
	size_t count = 0;

	for (size_t b = step / 2; b < blocks; b += step) {
		const size_t start = b * LOOK_BLOCK, len = TPD_MIN(n - start, (size_t)LOOK_BLOCK);

		codec->kernels->scaled_quotients(dtype, x + start * width, p + start * width, len, out + count);
		count += len;
	}
	return count;
}

/* Of upper halves from `low` to `high`, which are cleared, the first that so many are at most; else the most frequent one, the first of several. */
static uint32_t pick(uint32_t *counts, uint32_t low, uint32_t high, bool lowest, uint64_t total)
{
	uint32_t best = low, most = 0;
	uint64_t sum = 0;

	for (uint32_t i = low; i <= high; i++) {
		const uint32_t count = counts[i];

		counts[i] = 0;
		if (lowest && sum <= total / LOW_PART)
			best = i;
		if (!lowest && count > most)
			best = i;
		most = TPD_MAX(most, count);
		sum += count;
	}
	return best;
}

/*
 * What x was multiplied by since it was p, where nothing else happened to it: of their quotients the most frequent, in two steps, of the upper half
 * and then of the lower one. only_grows: nothing lies below it, and the upper half is near the lowest. 1 when there is none.
 */
static enum tpd_status find_factor(struct tpd_codec *codec, enum tpd_dtype dtype, const uint8_t *x, const uint8_t *p, size_t n, bool only_grows,
				   float *out, struct tpd_err *err)
{
	enum tpd_status status = tpd_scratch_need(&codec->fit, QUOTIENTS * sizeof(uint32_t) + LOOK_MAX * sizeof(float), err);
	uint32_t *counts = (uint32_t *)(void *)codec->fit.data, low = QUOTIENTS, high = 0, upper, lower = 0, most = 0;
	float *quotients = (float *)(void *)(counts + QUOTIENTS);
	uint64_t total = 0;
	size_t looked;

	*out = 1;
	if (status != TPD_OK)
		return status;
	looked = find_quotients(codec, dtype, x, p, n, quotients);
	memset(counts, 0, QUOTIENTS * sizeof(*counts));
	for (size_t i = 0; i < looked; i++) {
		const uint32_t bits = bits_of(quotients[i]), half = bits >> 16;

		if (bits == 0)
			continue;
		low = TPD_MIN(low, half);
		high = TPD_MAX(high, half);
		counts[half]++;
		total++;
	}
	if (total == 0)
		return TPD_OK;
	upper = pick(counts, low, high, only_grows, total);
	for (size_t i = 0; i < looked; i++)
		if (bits_of(quotients[i]) >> 16 == upper)
			counts[bits_of(quotients[i]) & 0xffff]++;
	for (size_t i = 0; i < looked; i++) {
		const uint32_t bits = bits_of(quotients[i]), half = bits & 0xffff;

		if (bits >> 16 != upper || counts[half] < most || (counts[half] == most && half >= lower))
			continue;
		most = counts[half];
		lower = half;
	}
	*out = float_of(upper << 16 | lower);
	return TPD_OK;
}

static int mean_of(int64_t sum, int64_t count)
{
	int64_t twice = 2 * sum + count;

	return (int)(twice >= 0 ? twice / (2 * count) : -((2 * count - 1 - twice) / (2 * count)));
}

/* exp_avg: least squares, each element counting by what is expected of it. */
static float find_row_factor(const struct tpd_kernels *kernels, enum tpd_dtype dtype, const uint8_t *x, const uint8_t *p, const uint8_t *v2,
			     size_t n)
{
	double sums[2], factor = 0;

	kernels->scaled_learn(dtype, x, p, v2, n, sums);
	if (sums[0] > 0)
		factor = sums[1] / sums[0];
	return factor >= -FACTOR_MAX && factor <= FACTOR_MAX ? tpd_coefficient(factor) : 0;
}

/*
 * A piece's level as far as 0 and others are told, its factor, and the logarithms of what is left by it, with their mean. Rows that are the factor's
 * multiple, but for rounding, get level 0, and so do those that differ nowhere.
 */
static void look_at_piece(const struct tpd_kernels *kernels, struct tpd_scaled *s, const uint8_t *x, const uint8_t *p, size_t i)
{
	const size_t start = tpd_piece_start(&s->pieces, i), n = tpd_piece_start(&s->pieces, i + 1) - start;
	const uint8_t *new = x + start * s->width, *old = p + start * s->width, *v2 = s->v2 ? s->v2 + 4 * start : NULL;
	int16_t *scale = s->v2 ? s->scale + start : NULL;
	float factor = s->factor;
	int32_t sum;
	size_t count;

	s->levels[i] = 0;
	s->means[i] = 0;
	s->row_factors[i] = 0;
	if (kernels->scaled_far(s->dtype, new, old, factor, OWN_ULPS, n) * OWN_PART <= n)
		return;
	if (s->form & TPD_SCALED_ROWS)
		factor = s->row_factors[i] = find_row_factor(kernels, s->dtype, new, old, v2, n);
	if (scale)
		kernels->scaled_scale(v2, s->v1 ? s->v1 + 4 * start : NULL, s->share, n, scale);
	count = kernels->scaled_measure(s->dtype, new, old, factor, scale, n, s->logs + start, &sum);
	if (count == 0)
		return;
	s->levels[i] = 1;
	s->means[i] = mean_of(sum, (int64_t)count);
}

/* Each column's mean of what is left; are they worth what they take? */
static bool find_columns(const struct tpd_kernels *kernels, const struct tpd_scaled *s)
{
	const size_t row = s->pieces.row;
	int32_t *sums = s->column_sums, *counts = sums + row;
	int64_t gain = 0; /* of squares of eighths of an octave */

	memset(sums, 0, 2 * row * sizeof(*sums));
	for (size_t i = 0; i < s->count; i++) {
		size_t start = tpd_piece_start(&s->pieces, i), n = tpd_piece_start(&s->pieces, i + 1) - start, column = tpd_scaled_column(s, i);

		if (s->levels[i] > 0)
			kernels->scaled_columns(s->logs + start, s->means[i], n, sums + column, counts + column);
	}
	for (size_t j = 0; j < row; j++) {
		int mean = counts[j] > 0 ? mean_of(sums[j], counts[j]) : 0;

		mean = TPD_MAX(-TPD_SCALED_COLUMN_MIDDLE, TPD_MIN(mean, TPD_SCALED_COLUMN_MIDDLE - 1));
		s->columns[j] = (uint8_t)(mean + TPD_SCALED_COLUMN_MIDDLE);
		if (counts[j] > 0)
			gain += (int64_t)counts[j] * mean * mean - SPREAD;
	}
	/* A step that is off by d octaves costs an element about 0.69 d^2 bits. */
	return gain > 0 && gain * 69 / 6400 > (int64_t)(COLUMN_BITS * row);
}

/* base, and levels above it. */
static void set_levels(struct tpd_scaled *s, bool alone)
{
	const int mantissa = s->dtype == TPD_DTYPE_F32 ? 23 : 7;
	int low = INT32_MAX;

	for (size_t i = 0; i < s->count; i++)
		if (s->levels[i] > 0)
			low = TPD_MIN(low, s->means[i]);
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
			s->levels[i] = (uint8_t)TPD_MIN(s->means[i] - low + 1, 255);
}

/* All that a header says. x, p: n elements; alone: those of p are 0. */
static enum tpd_status fit(struct tpd_codec *codec, bool alone, unsigned terms, const struct tpd_inputs *inputs, const uint8_t *x, const uint8_t *p,
			   struct tpd_scaled *s, struct tpd_err *err)
{
	enum tpd_status status;

	if (terms & TPD_TERM_SCALE)
		s->form |= TPD_SCALED_V2;
	if (terms & TPD_TERM_SCALE && !alone)
		s->form |= TPD_SCALED_ROWS | (terms & TPD_TERM_CAME_IN ? TPD_SCALED_V1 : 0u);
	status = tpd_scaled_inputs(codec, inputs, s, err);
	if (status == TPD_OK && s->form & TPD_SCALED_V1)
		status = find_factor(codec, TPD_DTYPE_F32, s->v2, s->v1, s->n, true, &s->share, err);
	if (status == TPD_OK && !alone)
		status = find_factor(codec, s->dtype, x, p, s->n, !(terms & TPD_TERM_SCALE), &s->factor, err);
	if (status != TPD_OK)
		return status;
	for (size_t i = 0; i < s->count; i++)
		look_at_piece(codec->kernels, s, x, p, i);
	if (find_columns(codec->kernels, s))
		s->form |= TPD_SCALED_COLUMNS;
	set_levels(s, alone);
	tpd_scaled_steps(codec->kernels, s, s->scale);
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
			s->sorted[0][i] = (uint8_t)(bits_of(s->row_factors[i]) >> (16 + 8 * plane));
		status = put_stream(codec, s->sorted[0], s->count, out, err);
	}
	if (status == TPD_OK)
		status = put_stream(codec, s->levels, s->count, out, err);
	if (status == TPD_OK && s->form & TPD_SCALED_COLUMNS)
		status = put_stream(codec, s->columns, s->pieces.row, out, err);
	return status;
}

static enum tpd_status put_symbols(struct tpd_codec *codec, const struct tpd_scaled *s, uint8_t **out, struct tpd_err *err)
{
	uint8_t *next[TPD_SCALED_CLASSES];
	enum tpd_status status = TPD_OK;

	for (unsigned c = 0; c < TPD_SCALED_CLASSES; c++)
		next[c] = s->sorted[c];
	for (size_t i = 0; i < s->count; i++) {
		const size_t start = tpd_piece_start(&s->pieces, i), n = tpd_piece_start(&s->pieces, i + 1) - start;
		size_t odd;

		if (s->levels[i] == 0) {
			memcpy(next[TPD_SCALED_OWN_ULPS], s->symbols + start, n);
			next[TPD_SCALED_OWN_ULPS] += n;
			continue;
		}
		odd = codec->kernels->scaled_sort(s->classes + start, s->symbols + start, n, next[0], next[1]);
		next[1] += odd;
		next[0] += n - odd;
	}
	for (unsigned c = 0; status == TPD_OK && c < TPD_SCALED_CLASSES; c++)
		status = put_stream(codec, s->sorted[c], s->counts[c], out, err);
	return status;
}

enum tpd_status tpd_encode_scaled(struct tpd_codec *codec, const struct tpd_plan *plan, const struct tpd_chunk *chunk, const uint8_t *p,
				  size_t *out_len, struct tpd_err *err)
{
	const unsigned width = tpd_dtype_width(plan->dtype);
	const size_t n = chunk->len / width, left = chunk->len % width, lanes = tpd_whole_rounds(n);
	const struct tpd_pieces pieces = tpd_pieces_of(plan->row, chunk->element, n);
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
		status = tpd_scratch_need(&codec->fields, fields_max, err);
	if (status == TPD_OK)
		status = tpd_scratch_need(&codec->values, lanes * (sizeof(*values) + 1) + 1, err);
	if (status != TPD_OK)
		return status;
	fegetenv(&caller);
	fesetenv(FE_DFL_ENV);
	status = fit(codec, plan->encoding == TPD_ENCODING_SCALED_ALONE, plan->terms, chunk->inputs, chunk->x, p, &s, err);
	values = (uint32_t *)(void *)codec->values.data;
	for (size_t start = 0; status == TPD_OK && start < n; start += TPD_SCALED_STRETCH) {
		const size_t part = TPD_MIN(n - start, (size_t)TPD_SCALED_STRETCH);

		tpd_scaled_predict(codec->kernels, &s, p, start, part);
		codec->kernels->scaled_encode(plan->dtype, s.steps + start, chunk->x + start * width, s.made, part, s.symbols + start, values + start,
					      (uint8_t *)(values + lanes) + start);
	}
	fesetenv(&caller);
	if (status != TPD_OK)
		return status;
	fields_end = codec->fields.data + fields_max;
	fields = codec->kernels->fields_pack(values, (uint8_t *)(values + lanes), lanes / TPD_LANES, fields_end);
	out = codec->payload.data;
	status = put_header(codec, &s, &out, err);
	if (status == TPD_OK)
		status = put_symbols(codec, &s, &out, err);
	if (status != TPD_OK)
		return status;
	out = tpd_fields_write(out, fields);
	memcpy(out, chunk->x + n * width, left);
	*out_len = (size_t)(out - codec->payload.data) + left;
	return TPD_OK;
}
