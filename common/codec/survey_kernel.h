/*
 * survey_kernel.h - the loops of the statistics (stats.h) in plain C, which every form of the kernels compiles with its own instruction sets.
 *
 * Blocks of 16 elements in which all values are finite (nearly all) take a way without branches that compilers
 * vectorise; the others, and the last, go element by element through the same lanes, so both ways add the
 * same numbers in the same order.  Distances in ulps are counted by their bit length and summed up to thresholds at
 * the end.
 */
#ifndef TPD_CODEC_SURVEY_KERNEL_H
#define TPD_CODEC_SURVEY_KERNEL_H

#include <float.h>
#include <math.h>
#include <string.h>

#include "base/bytes.h"
#include "base/tpd.h"
#include "codec/stats_internal.h"

#define BLOCK 16u
#define FAR_BITS 20u     /* distances in ulps are cut off at 2^20, above the largest threshold */
#define BUCKETS (FAR_BITS + 2)

#define INLINE static inline __attribute__((always_inline))

/* --- thresholds as floats, not negative: bits of these, whose order is theirs --- */

INLINE uint32_t float_bits_next_to(float f, double limit, bool up)
{
	uint32_t bits;

	memcpy(&bits, &f, sizeof bits);
	if (up ? (double)f < limit : (double)f > limit)
		bits += up ? 1u : 0u - 1u;
	return bits;
}

/* The least float that is not below this; a finite float is below the one where it is below the other. */
INLINE uint32_t float_from(double limit)
{
	return float_bits_next_to((float)limit, limit, true);
}

/* The largest float that is not above this. */
INLINE uint32_t float_to(double limit)
{
	return float_bits_next_to((float)limit, limit, false);
}

struct lanes {
	double value_sum2[BLOCK], value_min[BLOCK], value_max[BLOCK];
	double delta_sum2[BLOCK], delta_min[BLOCK], delta_max[BLOCK];
	uint64_t raw[TPD_SPARSITY_REAL][BLOCK];
	uint32_t distances[4][BUCKETS];
};

INLINE double double_of(uint64_t bits)
{
	double v;

	memcpy(&v, &bits, sizeof v);
	return v;
}

INLINE uint64_t load(const enum tpd_dtype dtype, const uint8_t *p, size_t i)
{
	if (dtype == TPD_DTYPE_F64)
		return tpd_get_u64(p + 8 * i);
	return dtype == TPD_DTYPE_F32 ? tpd_get_u32(p + 4 * i) : tpd_get_u16(p + 2 * i);
}

INLINE uint64_t exponent_mask(const enum tpd_dtype dtype)
{
	switch (dtype) {
	case TPD_DTYPE_F64:
		return UINT64_C(0x7ff) << 52;
	case TPD_DTYPE_F32:
		return UINT64_C(0xff) << 23;
	case TPD_DTYPE_BF16:
		return UINT64_C(0xff) << 7;
	default:
		return UINT64_C(0x1f) << 10;
	}
}

/* A finite pattern as double, exactly. */
INLINE double value_of(const enum tpd_dtype dtype, uint64_t bits)
{
	uint32_t word = (uint32_t)bits;
	float f;

	if (dtype == TPD_DTYPE_F64)
		return double_of(bits);
	if (dtype == TPD_DTYPE_F16) /* its exponent and mantissa where a double has them; 1008 = 1023 - 15 */
		return double_of((bits >> 15) << 63 | (bits & 0x7fff) << 42) * 0x1p1008;
	if (dtype == TPD_DTYPE_BF16)
		word <<= 16;
	memcpy(&f, &word, sizeof f);
	return (double)f;
}

/* The distance in ulps, at most 2^20. */
INLINE uint32_t distance_of(const enum tpd_dtype dtype, uint64_t x, uint64_t w)
{
	if (dtype == TPD_DTYPE_F64) {
		const uint64_t top = UINT64_C(1) << 63;
		uint64_t a = x & ~top, b = w & ~top;
		uint64_t d = (x ^ w) & top ? a + b : a > b ? a - b : b - a;

		return d >> FAR_BITS ? UINT32_C(1) << FAR_BITS : (uint32_t)d;
	} else {
		const unsigned width = dtype == TPD_DTYPE_F32 ? 32 : 16;
		const uint32_t magnitude = (UINT32_C(1) << (width - 1)) - 1;
		uint32_t sign_x = 0u - ((uint32_t)x >> (width - 1)), sign_w = 0u - ((uint32_t)w >> (width - 1));
		int32_t a = (int32_t)((((uint32_t)x & magnitude) ^ sign_x) - sign_x);
		int32_t b = (int32_t)((((uint32_t)w & magnitude) ^ sign_w) - sign_w);
		uint32_t less = 0u - (uint32_t)(a < b), d = (((uint32_t)a - (uint32_t)b) ^ less) - less;
		uint32_t far = 0u - (uint32_t)(d >> FAR_BITS != 0);

		return (d & ~far) | (UINT32_C(1) << FAR_BITS & far);
	}
}

/* Bit length of a distance: below 2^20 + 1 the conversion is exact. */
INLINE uint32_t bucket_of(uint32_t distance)
{
	float f = (float)(int32_t)distance;
	uint32_t bits;

	memcpy(&bits, &f, sizeof bits);
	return ((bits >> 23) - 126) & (0u - (uint32_t)(distance != 0));
}

INLINE void add_value(struct lanes *lanes, unsigned lane, double v)
{
	lanes->value_sum2[lane] += v * v;
	lanes->value_min[lane] = v < lanes->value_min[lane] ? v : lanes->value_min[lane];
	lanes->value_max[lane] = v > lanes->value_max[lane] ? v : lanes->value_max[lane];
}

/* A difference as sums, counts and samples have it: of narrow types rounded to single precision, unless that makes it infinite. */
INLINE double rounded(const enum tpd_dtype dtype, double d)
{
	const double single = (double)(float)d;

	return dtype == TPD_DTYPE_F64 || fabs(single) > (double)FLT_MAX ? d : single;
}

INLINE void add_delta(const enum tpd_dtype dtype, struct lanes *lanes, unsigned lane, double d)
{
	const double r = rounded(dtype, d);

	lanes->delta_sum2[lane] += r * r;
	lanes->delta_min[lane] = d < lanes->delta_min[lane] ? d : lanes->delta_min[lane];
	lanes->delta_max[lane] = d > lanes->delta_max[lane] ? d : lanes->delta_max[lane];
}

/* 0 where one of them is not finite. */
INLINE double pair_difference(enum tpd_dtype dtype, const uint8_t *x, const uint8_t *w, size_t i)
{
	const uint64_t mask = exponent_mask(dtype);
	uint64_t new = load(dtype, x, i), old = load(dtype, w, i);

	return (new &mask) == mask || (old & mask) == mask ? 0 : value_of(dtype, new) - value_of(dtype, old);
}

/* Any elements, one by one.  sample: NULL, or room for n.  Returns how many |delta| above bar went there. */
INLINE size_t survey_slow(const enum tpd_dtype dtype, const uint8_t *x, const uint8_t *w, size_t n, struct lanes *lanes,
			  struct tpd_survey *out, double bar, double *sample)
{
	const uint64_t mask = exponent_mask(dtype), mantissa = (mask & (0 - mask)) - 1;
	size_t samples = 0;

	for (size_t i = 0; i < n; i++) {
		uint64_t bits = load(dtype, x, i), old = w ? load(dtype, w, i) : 0;
		double v, d;

		if ((bits & mask) == mask) {
			if ((bits & mantissa) != 0)
				out->nan++;
			else
				out->inf++;
			continue;
		}
		v = value_of(dtype, bits);
		out->finite++;
		add_value(lanes, (unsigned)i, v);
		if (!w || (old & mask) == mask)
			continue;
		d = v - value_of(dtype, old);
		out->pairs++;
		add_delta(dtype, lanes, (unsigned)i, d);
		d = fabs(rounded(dtype, d));
		for (unsigned k = 0; k < TPD_SPARSITY_REAL; k++)
			lanes->raw[k][0] += d < tpd_sparsity_thresholds[k];
		lanes->distances[0][bucket_of(distance_of(dtype, bits, old))]++;
		out->sampled += sample != NULL;
		if (sample && d > bar)
			sample[samples++] = d;
	}
	return samples;
}

/* 16 narrow patterns as values; returns not 0 when one of them is not finite (its value then means nothing). */
INLINE uint32_t narrow_values(const enum tpd_dtype dtype, const uint8_t *p, uint32_t bits[BLOCK], double value[BLOCK])
{
	const uint32_t mask = (uint32_t)exponent_mask(dtype), lowest = mask & (0u - mask);
	uint32_t special = 0;
	float f[BLOCK];

	if (dtype == TPD_DTYPE_F32) {
		memcpy(bits, p, BLOCK * sizeof *bits);
		for (unsigned j = 0; j < BLOCK; j++)
			bits[j] = TPD_LE32(bits[j]);
	} else {
		uint16_t half[BLOCK];

		memcpy(half, p, sizeof half);
		for (unsigned j = 0; j < BLOCK; j++)
			bits[j] = TPD_LE16(half[j]);
	}
	for (unsigned j = 0; j < BLOCK; j++) /* an exponent of all ones carries into the bit above it */
		special |= ((bits[j] & mask) + lowest) & (mask + lowest);
	for (unsigned j = 0; j < BLOCK; j++) {
		uint32_t word = bits[j];

		if (dtype == TPD_DTYPE_BF16)
			word <<= 16;
		else if (dtype == TPD_DTYPE_F16)
			word = (word >> 15) << 31 | (word & 0x7fff) << 13;
		memcpy(&f[j], &word, sizeof f[j]);
	}
	for (unsigned j = 0; j < BLOCK; j++)
		value[j] = dtype == TPD_DTYPE_F16 ? (double)f[j] * 0x1p112 : (double)f[j];
	return special;
}

INLINE uint32_t wide_values(const uint8_t *p, uint64_t bits[BLOCK], double value[BLOCK])
{
	const uint64_t mask = exponent_mask(TPD_DTYPE_F64);
	uint32_t special = 0;

	for (unsigned j = 0; j < BLOCK; j++) {
		bits[j] = tpd_get_u64(p + (size_t)8 * j);
		value[j] = double_of(bits[j]);
		special |= (bits[j] & mask) == mask;
	}
	return special;
}

/* 16 elements, the size of whose changes, rounded, is in size; false, and nothing done, when one of them is not finite. */
INLINE bool survey_fast(const enum tpd_dtype dtype, const uint8_t *x, const uint8_t *w, const bool with_delta,
			struct lanes *lanes, double size[BLOCK])
{
	uint64_t wide[BLOCK], wide_old[BLOCK];
	uint32_t narrow[BLOCK], narrow_old[BLOCK], special, bucket[BLOCK];
	double value[BLOCK], old[BLOCK];

	special = dtype == TPD_DTYPE_F64 ? wide_values(x, wide, value) : narrow_values(dtype, x, narrow, value);
	if (with_delta)
		special |= dtype == TPD_DTYPE_F64 ? wide_values(w, wide_old, old)
						  : narrow_values(dtype, w, narrow_old, old);
	if (special)
		return false;
	for (unsigned j = 0; j < BLOCK; j++)
		add_value(lanes, j, value[j]);
	if (!with_delta)
		return true;
	for (unsigned j = 0; j < BLOCK; j++) {
		double d = value[j] - old[j];

		size[j] = fabs(d);
		add_delta(dtype, lanes, j, d);
	}
	for (unsigned j = 0; j < BLOCK; j++) /* in a loop of its own: gcc 12 for aarch64 at -O3 mixes the elements up in the one above */
		size[j] = rounded(dtype, size[j]);
	for (unsigned k = 0; k < TPD_SPARSITY_REAL; k++) {
		const double threshold = tpd_sparsity_thresholds[k];

		for (unsigned j = 0; j < BLOCK; j++)
			lanes->raw[k][j] += size[j] < threshold;
	}
	for (unsigned j = 0; j < BLOCK; j++)
		bucket[j] = bucket_of(dtype == TPD_DTYPE_F64 ? distance_of(dtype, wide[j], wide_old[j])
							     : distance_of(dtype, narrow[j], narrow_old[j]));
	for (unsigned j = 0; j < BLOCK; j++)
		lanes->distances[j % 4][bucket[j]]++;
	return true;
}

/* Written always, counted only when it is above: the branch would be guessed wrong too often. */
INLINE size_t take_above(const double *v, size_t n, double bar, double *out)
{
	size_t taken = 0;

	for (size_t i = 0; i < n; i++) {
		double value = v[i];

		out[taken] = value;
		taken += value > bar;
	}
	return taken;
}

INLINE size_t survey_type(const enum tpd_dtype dtype, const struct tpd_survey_task *task, struct lanes *lanes, struct tpd_survey *out,
			  double *sample)
{
	const size_t width = dtype == TPD_DTYPE_F64 ? 8 : dtype == TPD_DTYPE_F32 ? 4 : 2;
	size_t samples = 0;

	for (size_t i = 0; i < task->n; i += BLOCK) {
		const uint8_t *new = task->x + i *width, *old = task->w ? task->w + i *width : NULL;
		size_t count = TPD_MIN(task->n - i, (size_t)BLOCK);
		bool sampled = old && tpd_stats_sampled((task->first + i) / TPD_STATS_BLOCK, task->stride);
		double *to = sampled ? sample + samples : NULL, size[BLOCK];

		if (count == BLOCK && (old ? survey_fast(dtype, new, old, true, lanes, size)
					   : survey_fast(dtype, new, NULL, false, lanes, size))) {
			out->finite += BLOCK;
			out->pairs += old ? BLOCK : 0;
			if (sampled) {
				out->sampled += BLOCK;
				samples += take_above(size, BLOCK, task->bar, to);
			}
		} else {
			samples += survey_slow(dtype, new, old, count, lanes, out, task->bar, to);
		}
	}
	return samples;
}

static double sum_lanes(const double lane[BLOCK])
{
	double sum[BLOCK];

	memcpy(sum, lane, sizeof sum);
	for (unsigned half = BLOCK / 2; half > 0; half /= 2)
		for (unsigned j = 0; j < half; j++)
			sum[j] += sum[j + half];
	return sum[0];
}

/* Adding +0 makes -0 into +0: which of two equal zeros a minimum returns is anybody's choice. */
static double min_lanes(const double lane[BLOCK])
{
	double min = lane[0];

	for (unsigned j = 1; j < BLOCK; j++)
		min = lane[j] < min ? lane[j] : min;
	return min + 0.0;
}

static double max_lanes(const double lane[BLOCK])
{
	double max = lane[0];

	for (unsigned j = 1; j < BLOCK; j++)
		max = lane[j] > max ? lane[j] : max;
	return max + 0.0;
}

INLINE void lanes_begin(struct lanes *lanes)
{
	*lanes = (struct lanes){0};
	for (unsigned j = 0; j < BLOCK; j++) {
		lanes->value_min[j] = lanes->delta_min[j] = INFINITY;
		lanes->value_max[j] = lanes->delta_max[j] = -INFINITY;
	}
}

/* Sums and extremes; then counts. */
INLINE void take_values(const struct lanes *lanes, struct tpd_survey *out)
{
	out->value_sum2 = sum_lanes(lanes->value_sum2);
	out->delta_sum2 = sum_lanes(lanes->delta_sum2);
	if (out->finite > 0) {
		out->value_min = min_lanes(lanes->value_min);
		out->value_max = max_lanes(lanes->value_max);
	}
	if (out->pairs > 0) {
		out->delta_min = min_lanes(lanes->delta_min);
		out->delta_max = max_lanes(lanes->delta_max);
		out->abs_max = fmax(-out->delta_min, out->delta_max) + 0.0;
	}
}

INLINE void take_counts(const struct lanes *lanes, struct tpd_survey *out)
{
	uint64_t below = 0;

	for (unsigned k = 0; k < TPD_SPARSITY_REAL; k++)
		for (unsigned j = 0; j < BLOCK; j++)
			out->raw[k] += lanes->raw[k][j];
	for (unsigned b = 0; b < TPD_SPARSITY_ULPS; b++) {
		below += (uint64_t)lanes->distances[0][b] + lanes->distances[1][b] + lanes->distances[2][b] +
			lanes->distances[3][b];
		out->ulps[b] = below; /* distances of at most b bits are below 2^b */
	}
	out->zeros = out->ulps[0];
}

INLINE size_t survey_plain(const struct tpd_survey_task *task, struct tpd_survey *out, double *sample)
{
	struct lanes lanes;
	size_t samples;

	lanes_begin(&lanes);
	switch (task->dtype) {
	case TPD_DTYPE_F32:
		samples = survey_type(TPD_DTYPE_F32, task, &lanes, out, sample);
		break;
	case TPD_DTYPE_BF16:
		samples = survey_type(TPD_DTYPE_BF16, task, &lanes, out, sample);
		break;
	case TPD_DTYPE_F16:
		samples = survey_type(TPD_DTYPE_F16, task, &lanes, out, sample);
		break;
	default:
		samples = survey_type(TPD_DTYPE_F64, task, &lanes, out, sample);
	}
	take_values(&lanes, out);
	take_counts(&lanes, out);
	return samples;
}

/* ---- second pass ---- */

/* |delta|, rounded, of any count of elements; NaN, which is neither below nor above anything, where there is none. */
INLINE void count_slow(const enum tpd_dtype dtype, const uint8_t *x, const uint8_t *w, size_t count, double size[BLOCK])
{
	const uint64_t mask = exponent_mask(dtype);

	for (unsigned j = 0; j < BLOCK; j++) {
		uint64_t new = j < count ? load(dtype, x, j) : mask, old = j < count ? load(dtype, w, j) : mask;

		size[j] = NAN;
		if ((new &mask) != mask && (old & mask) != mask)
			size[j] = fabs(rounded(dtype, value_of(dtype, new) - value_of(dtype, old)));
	}
}

/* 16 elements; false when one of them is not finite. */
INLINE bool count_fast(const enum tpd_dtype dtype, const uint8_t *x, const uint8_t *w, double size[BLOCK])
{
	uint64_t wide[BLOCK];
	uint32_t narrow[BLOCK], special;
	double value[BLOCK], old[BLOCK];

	if (dtype == TPD_DTYPE_F64)
		special = wide_values(x, wide, value) | wide_values(w, wide, old);
	else
		special = narrow_values(dtype, x, narrow, value) | narrow_values(dtype, w, narrow, old);
	for (unsigned j = 0; j < BLOCK; j++)
		size[j] = fabs(value[j] - old[j]);
	for (unsigned j = 0; j < BLOCK; j++) /* as above */
		size[j] = rounded(dtype, size[j]);
	return special == 0;
}

INLINE void count_type(const enum tpd_dtype dtype, const struct tpd_count_task *task, struct tpd_count *out, uint8_t *kept)
{
	const size_t width = dtype == TPD_DTYPE_F64 ? 8 : dtype == TPD_DTYPE_F32 ? 4 : 2;
	const uint8_t *x = task->x, *w = task->w;
	uint64_t below[TPD_SPARSITY_REAL][BLOCK] = {{0}};

	for (size_t i = 0; i < task->n; i += BLOCK, x += BLOCK * width, w += BLOCK * width) {
		size_t count = TPD_MIN(task->n - i, (size_t)BLOCK);
		double size[BLOCK];
		uint32_t bits = 0;

		if (count < BLOCK || !count_fast(dtype, x, w, size))
			count_slow(dtype, x, w, count, size);
		for (unsigned k = 0; k < TPD_SPARSITY_REAL; k++) {
			const double limit = task->limits[k];

			for (unsigned j = 0; j < BLOCK; j++)
				below[k][j] += size[j] < limit;
		}
		for (unsigned j = 0; j < BLOCK; j++)
			bits |= (uint32_t)(size[j] > task->bar) << j;
		kept[i / 8] = (uint8_t)bits;
		if (count > 8)
			kept[i / 8 + 1] = (uint8_t)(bits >> 8);
	}
	for (unsigned k = 0; k < TPD_SPARSITY_REAL; k++)
		for (unsigned j = 0; j < BLOCK; j++)
			out->minmax[k] += below[k][j];
}

INLINE void count_plain(const struct tpd_count_task *task, struct tpd_count *out, uint8_t *kept)
{
	switch (task->dtype) {
	case TPD_DTYPE_F32:
		count_type(TPD_DTYPE_F32, task, out, kept);
		break;
	case TPD_DTYPE_BF16:
		count_type(TPD_DTYPE_BF16, task, out, kept);
		break;
	case TPD_DTYPE_F16:
		count_type(TPD_DTYPE_F16, task, out, kept);
		break;
	default:
		count_type(TPD_DTYPE_F64, task, out, kept);
	}
}

INLINE size_t between_plain(const double *v, size_t n, double low, double high, double *out, size_t *out_above)
{
	size_t taken = 0, above = 0;

	for (size_t i = 0; i < n; i++) {
		double value = v[i];

		out[taken] = value;
		taken += (value > low) & (value <= high);
		above += value > high;
	}
	*out_above = above;
	return taken;
}

INLINE uint64_t kept_word(const uint8_t *kept, size_t from, size_t n)
{
	uint8_t bytes[8] = {0};

	if (n - from >= 64)
		return tpd_get_u64(kept + from / 8);
	memcpy(bytes, kept + from / 8, (n - from + 7) / 8);
	return tpd_get_u64(bytes) & ((UINT64_C(1) << (n - from)) - 1);
}

#define PLACES_STEP 8u /* of a twentieth of 64 elements there are seldom more */

/* The bits of a word; a few are written in any case, since how many there are can seldom be guessed. */
INLINE size_t put_places(uint64_t word, uint32_t first, uint32_t *out)
{
	const uint64_t top = UINT64_C(1) << 63;
	uint64_t pairs = word - (word >> 1 & UINT64_C(0x5555555555555555));
	size_t n = 0, count;

	pairs = (pairs & UINT64_C(0x3333333333333333)) + (pairs >> 2 & UINT64_C(0x3333333333333333));
	count = (size_t)(((pairs + (pairs >> 4)) & UINT64_C(0x0f0f0f0f0f0f0f0f)) * UINT64_C(0x0101010101010101) >> 56);
	while (n < count) {
		for (unsigned i = 0; i < PLACES_STEP; i++, word &= word - 1)
			out[n + i] = first + (uint32_t)__builtin_ctzll(word | top);
		n += PLACES_STEP;
	}
	return count;
}

INLINE size_t places_plain(const uint8_t *kept, size_t n, uint32_t *out)
{
	size_t found = 0;

	for (size_t i = 0; i < n; i += 64)
		found += put_places(kept_word(kept, i, n), (uint32_t)i, out + found);
	return found;
}

#endif
