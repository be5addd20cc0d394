/*
 * survey_avx2.c - the loops of the statistics for CPUs with AVX2.
 *
 * As survey_avx512.c has them, with eight floats to a register: a round of 64 elements that are all there and finite, as is their difference in
 * single precision, is known by its largest size. Other rounds, F16 and F64 take the plain loops, which are four to five times slower even where the
 * compiler makes vectors of them: differences are in double, counters of 64 bits, and each element's bit length is an access to memory.
 *
 *     thresholds  are compared as floats, and those above all of a round, as the upper ones often are, not at all.
 *     ulps        the bit length of a distance is the exponent of its float, and becomes as many ones; these are added up as carry-save adders do,
 *                 by bits, so that only the carries of 64 registers are counted.
 *     selection   what is above a bar is moved to the front by a table of the 16 ways in which four doubles can be chosen.
 *
 * Rejected: pext to choose (some hundred cycles on a family 23).
 */
#include "base/tpd.h"

#include "codec/stats_internal.h"

#if defined(__AVX2__)

#include <immintrin.h>

#include "codec/prefetch_kernel.h"
#include "codec/survey_kernel.h"

#define WORDS 8u                       /* elements of a register */
#define ROUND TPD_STATS_BLOCK          /* one is sampled as a whole */
#define PARTS (ROUND / WORDS)
#define UPPER 2u                       /* thresholds from this one on are often above all of a round */
#define LARGEST UINT32_C(0x7f7fffff)   /* finite float */
#define BITS TPD_SPARSITY_ULPS
#define LEVELS 3u
/* gcc keeps arrays in registers only where it unrolls all that goes through them. */
#define EACH _Pragma("GCC unroll 8") for (unsigned b = 0; b < PARTS; b++)
#define EACH_OTHER _Pragma("GCC unroll 8") for (unsigned b = 1; b < PARTS; b++)
#define EACH_PAIR _Pragma("GCC unroll 4") for (unsigned b = 0; b < PARTS; b += 2)
#define EACH_SUM _Pragma("GCC unroll 4") for (unsigned q = 0; q < 4; q++)

INLINE __m256i set(uint32_t v)
{
	return _mm256_set1_epi32((int32_t)v);
}

INLINE __m256i load_bits(const enum tpd_dtype dtype, const uint8_t *from)
{
	if (dtype == TPD_DTYPE_F32)
		return _mm256_loadu_si256((const __m256i *)(const void *)from);
	return _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)from));
}

INLINE __m256 float_of(const enum tpd_dtype dtype, __m256i bits)
{
	return _mm256_castsi256_ps(dtype == TPD_DTYPE_F32 ? bits : _mm256_slli_epi32(bits, 16));
}

INLINE __m256d low_doubles(__m256 v)
{
	return _mm256_cvtps_pd(_mm256_castps256_ps128(v));
}

INLINE __m256d high_doubles(__m256 v)
{
	return _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1));
}

/* |x - w| as bits, which are ordered as it is. */
INLINE __m256i size_of(__m256 x, __m256 w)
{
	return _mm256_and_si256(_mm256_castps_si256(_mm256_sub_ps(x, w)), set(0x7fffffffu));
}

/* Is any larger? None is negative. */
INLINE bool any_above(__m256i v, __m256i limit)
{
	return _mm256_movemask_epi8(_mm256_cmpgt_epi32(v, limit)) != 0;
}

INLINE bool all_below(__m256i v, __m256i limit)
{
	return _mm256_movemask_epi8(_mm256_cmpgt_epi32(limit, v)) == -1;
}

INLINE __m256i most_of(const __m256i v[PARTS])
{
	__m256i most = v[0];

	EACH_OTHER most = _mm256_max_epi32(most, v[b]);
	return most;
}

/* --- selection --- */

#define PAIR(i) 2 * (i), 2 * (i) + 1
/* The halves of the doubles that are chosen, by which of four these are. */
static const uint32_t chosen[16][8] = {
	{0},
	{PAIR(0)},
	{PAIR(1)},
	{PAIR(0), PAIR(1)},
	{PAIR(2)},
	{PAIR(0), PAIR(2)},
	{PAIR(1), PAIR(2)},
	{PAIR(0), PAIR(1), PAIR(2)},
	{PAIR(3)},
	{PAIR(0), PAIR(3)},
	{PAIR(1), PAIR(3)},
	{PAIR(0), PAIR(1), PAIR(3)},
	{PAIR(2), PAIR(3)},
	{PAIR(0), PAIR(2), PAIR(3)},
	{PAIR(1), PAIR(2), PAIR(3)},
	{PAIR(0), PAIR(1), PAIR(2), PAIR(3)},
};

/* Those of four that `which` says; four are written. Returns how many they are. */
INLINE size_t put_chosen(__m256d v, unsigned which, double *out)
{
	const __m256i order = _mm256_loadu_si256((const __m256i *)(const void *)chosen[which]);

	_mm256_storeu_pd(out, _mm256_castps_pd(_mm256_permutevar8x32_ps(_mm256_castpd_ps(v), order)));
	return (size_t)(unsigned)_mm_popcnt_u32(which);
}

/* Sizes above the bar, appended. */
INLINE size_t put_above(__m256i size, __m256i bar, double *out)
{
	const unsigned above = (unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(size, bar)));
	const __m256 v = _mm256_castsi256_ps(size);
	size_t taken = put_chosen(low_doubles(v), above & 15, out);

	return taken + put_chosen(high_doubles(v), above >> 4, out + taken);
}

/* --- distances in ulps --- */

/* How often each of the lowest bits is set in words, which are added up by bits. */
struct tally {
	__m256i ones[LEVELS], twos[LEVELS]; /* of weight 4^level, and twice that */
	__m256i wait[LEVELS - 1][4];        /* of weight 4^(level + 1) */
	unsigned waiting[LEVELS - 1];
	uint64_t counts[BITS];
};

/* a + b + c by bits: sum, and carry. */
INLINE __m256i add3(__m256i *sum, __m256i b, __m256i c)
{
	const __m256i a = *sum, either = _mm256_xor_si256(a, b);

	*sum = _mm256_xor_si256(either, c);
	return _mm256_or_si256(_mm256_and_si256(a, b), _mm256_and_si256(either, c));
}

/* Four words of one weight; returns what has four times that. */
INLINE __m256i add4(struct tally *tally, unsigned level, const __m256i words[4])
{
	const __m256i low = add3(&tally->ones[level], words[0], words[1]), high = add3(&tally->ones[level], words[2], words[3]);

	return add3(&tally->twos[level], low, high);
}

static void count_bits(struct tally *tally, __m256i words, uint64_t times)
{
	for (unsigned k = 0; k < BITS; k++) {
		const __m256i top = _mm256_sll_epi32(words, _mm_cvtsi32_si128((int32_t)(31 - k)));

		tally->counts[k] += times * (unsigned)_mm_popcnt_u32((unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(top)));
	}
}

INLINE void add_words(struct tally *tally, const __m256i words[4])
{
	tally->wait[0][tally->waiting[0]++] = add4(tally, 0, words);
	if (tally->waiting[0] < 4)
		return;
	tally->waiting[0] = 0;
	tally->wait[1][tally->waiting[1]++] = add4(tally, 1, tally->wait[0]);
	if (tally->waiting[1] < 4)
		return;
	tally->waiting[1] = 0;
	count_bits(tally, add4(tally, 2, tally->wait[1]), 64);
}

static void end_tally(struct tally *tally)
{
	for (unsigned level = 0; level < LEVELS; level++) {
		count_bits(tally, tally->ones[level], UINT64_C(1) << 2 * level);
		count_bits(tally, tally->twos[level], UINT64_C(2) << 2 * level);
		for (unsigned i = 0; level + 1 < LEVELS && i < tally->waiting[level]; i++)
			count_bits(tally, tally->wait[level][i], UINT64_C(4) << 2 * level);
	}
}

/* The order-preserving integer: what is negative is subtracted from 0. Both zeros are 0. */
INLINE __m256i order_of(const enum tpd_dtype dtype, __m256i bits)
{
	const __m256i top = set(dtype == TPD_DTYPE_F32 ? UINT32_C(0x80000000) : UINT32_C(0x8000));
	const __m256i negative = dtype == TPD_DTYPE_F32 ? _mm256_srai_epi32(bits, 31) : _mm256_cmpgt_epi32(bits, set(0x7fff));

	return _mm256_blendv_epi8(bits, _mm256_sub_epi32(top, bits), negative);
}

/* As many ones as the distance has bits, which is cut off where no threshold is; see survey_avx512.c, also for off_zero(). */
INLINE __m256i ones_of_distance(__m256i x_order, __m256i w_order)
{
	const __m256i far = _mm256_abs_epi32(_mm256_sub_epi32(x_order, w_order)), near = _mm256_min_epu32(far, set(UINT32_C(1) << FAR_BITS));
	const __m256i exponent = _mm256_srli_epi32(_mm256_castps_si256(_mm256_cvtepi32_ps(near)), 23);

	return _mm256_srlv_epi32(set(UINT32_MAX), _mm256_sub_epi32(set(126 + 32), exponent));
}

INLINE __m256i off_zero(__m256i x, __m256i w)
{
	return _mm256_and_si256(_mm256_or_si256(x, w), set(UINT32_C(0x7fff0000)));
}

INLINE void add_distances(const enum tpd_dtype dtype, const uint8_t *x, const uint8_t *w, struct tally *tally)
{
	const size_t each = WORDS * (dtype == TPD_DTYPE_F32 ? 4 : 2);
	__m256i words[PARTS], off = set(UINT32_MAX);

	EACH {
		const __m256i new = load_bits(dtype, x + b * each), old = load_bits(dtype, w + b * each);

		if (dtype == TPD_DTYPE_F32) {
			words[b] = ones_of_distance(new, old);
			off = _mm256_min_epu32(off, off_zero(new, old));
		} else {
			words[b] = ones_of_distance(order_of(dtype, new), order_of(dtype, old));
		}
	}
	if (dtype == TPD_DTYPE_F32 && __builtin_expect(_mm256_movemask_epi8(_mm256_cmpeq_epi32(off, _mm256_setzero_si256())) != 0, 0))
		EACH words[b] = ones_of_distance(order_of(dtype, load_bits(dtype, x + b * each)), order_of(dtype, load_bits(dtype, w + b * each)));
	add_words(tally, words);
	add_words(tally, words + 4);
}

/* --- first pass --- */

struct ends {
	double min, max; /* of the difference */
	float least;     /* no difference of a smaller size has one */
};

/* A round that may have a new extreme. */
static __attribute__((noinline, cold)) void new_extremes(const enum tpd_dtype dtype, const uint8_t *x, const uint8_t *w, struct ends *ends)
{
	const size_t each = WORDS * (dtype == TPD_DTYPE_F32 ? 4 : 2);
	__m256d min = _mm256_set1_pd(ends->min), max = _mm256_set1_pd(ends->max);
	double found[2][4];

	for (unsigned b = 0; b < PARTS; b++) {
		const __m256 v = float_of(dtype, load_bits(dtype, x + b * each)), w1 = float_of(dtype, load_bits(dtype, w + b * each));
		const __m256d low = _mm256_sub_pd(low_doubles(v), low_doubles(w1)), high = _mm256_sub_pd(high_doubles(v), high_doubles(w1));

		min = _mm256_min_pd(min, _mm256_min_pd(low, high));
		max = _mm256_max_pd(max, _mm256_max_pd(low, high));
	}
	_mm256_storeu_pd(found[0], min);
	_mm256_storeu_pd(found[1], max);
	for (unsigned j = 0; j < 4; j++) {
		ends->min = found[0][j] < ends->min ? found[0][j] : ends->min;
		ends->max = found[1][j] > ends->max ? found[1][j] : ends->max;
	}
	ends->least = ends->min < 0 && ends->max > 0 ? (float)fmin(-ends->min, ends->max) : 0;
}

/* Squares of 16 elements, each in its lane; they are exact, of any float. */
INLINE void add_squares(__m256 low, __m256 high, __m256d sums[4])
{
	const __m256d v[4] = {low_doubles(low), high_doubles(low), low_doubles(high), high_doubles(high)};

	EACH_SUM sums[q] = _mm256_add_pd(sums[q], _mm256_mul_pd(v[q], v[q]));
}

INLINE void load_sums(const double lanes[BLOCK], __m256d sums[4])
{
	EACH_SUM sums[q] = _mm256_loadu_pd(lanes + 4 * q);
}

INLINE void store_sums(const __m256d sums[4], double lanes[BLOCK])
{
	EACH_SUM _mm256_storeu_pd(lanes + 4 * q, sums[q]);
}

INLINE void add_values(const enum tpd_dtype dtype, const uint8_t *x, struct lanes *lanes, __m256 *min, __m256 *max)
{
	const size_t each = WORDS * (dtype == TPD_DTYPE_F32 ? 4 : 2);
	__m256d sums[4];

	load_sums(lanes->value_sum2, sums);
	EACH_PAIR {
		const __m256 low = float_of(dtype, load_bits(dtype, x + b * each)), high = float_of(dtype, load_bits(dtype, x + (b + 1) * each));

		add_squares(low, high, sums);
		*min = _mm256_min_ps(*min, _mm256_min_ps(low, high));
		*max = _mm256_max_ps(*max, _mm256_max_ps(low, high));
	}
	store_sums(sums, lanes->value_sum2);
}

INLINE void add_sizes(const __m256i size[PARTS], struct lanes *lanes)
{
	__m256d sums[4];

	load_sums(lanes->delta_sum2, sums);
	EACH_PAIR add_squares(_mm256_castsi256_ps(size[b]), _mm256_castsi256_ps(size[b + 1]), sums);
	store_sums(sums, lanes->delta_sum2);
}

INLINE void count_below(const __m256i size[PARTS], __m256i threshold, __m256i *counts)
{
	EACH *counts = _mm256_sub_epi32(*counts, _mm256_cmpgt_epi32(threshold, size[b]));
}

static uint64_t sum_of(__m256i counts)
{
	uint32_t each[WORDS];
	uint64_t sum = 0;

	_mm256_storeu_si256((__m256i *)(void *)each, counts);
	for (unsigned j = 0; j < WORDS; j++)
		sum += each[j];
	return sum;
}

/* What the plain loops make of some elements from i on. */
static __attribute__((noinline, cold)) size_t survey_odd(const enum tpd_dtype dtype, const struct tpd_survey_task *task, size_t i, size_t n,
							 struct lanes *lanes, struct tpd_survey *out, double *sample)
{
	const size_t width = dtype == TPD_DTYPE_F32 ? 4 : 2;
	struct tpd_survey_task part = *task;

	part.x += i * width;
	part.w = part.w ? part.w + i * width : NULL;
	part.first += i;
	part.n = n;
	return dtype == TPD_DTYPE_F32 ? survey_type(TPD_DTYPE_F32, &part, lanes, out, sample) : survey_type(TPD_DTYPE_BF16, &part, lanes, out, sample);
}

INLINE size_t survey_vectors(const enum tpd_dtype dtype, const bool with_delta, const struct tpd_survey_task *task, struct tpd_survey *out,
			     double *sample)
{
	const size_t width = dtype == TPD_DTYPE_F32 ? 4 : 2, each = WORDS * width;
	const __m256i largest = set(LARGEST), bar = set(float_to(task->bar));
	__m256i thresholds[TPD_SPARSITY_REAL], below[TPD_SPARSITY_REAL];
	__m256 min = _mm256_set1_ps(INFINITY), max = _mm256_set1_ps(-INFINITY);
	struct ends ends = {INFINITY, -INFINITY, 0};
	struct tally tally = {.waiting = {0}};
	struct lanes lanes;
	float values[2][WORDS];
	uint64_t plain = 0, plain_sampled = 0, plain_small = 0; /* rounds in which all are finite */
	size_t samples = 0;

	lanes_begin(&lanes);
	for (unsigned k = 0; k < TPD_SPARSITY_REAL; k++) {
		below[k] = _mm256_setzero_si256();
		thresholds[k] = set(float_from(tpd_sparsity_thresholds[k]));
	}
	for (size_t i = 0; i < task->n; i += ROUND) {
		const uint8_t *x = task->x + i * width, *w = with_delta ? task->w + i * width : NULL;
		const bool sampled = with_delta && tpd_stats_sampled((task->first + i) / TPD_STATS_BLOCK, task->stride);
		__m256i size[PARTS], most;

		if (task->n - i < ROUND) {
			samples += survey_odd(dtype, task, i, task->n - i, &lanes, out, sample + samples);
			break;
		}
		ahead_of(x, w, ROUND * width);
		EACH size[b] = size_of(float_of(dtype, load_bits(dtype, x + b * each)),
				       with_delta ? float_of(dtype, load_bits(dtype, w + b * each)) : _mm256_setzero_ps());
		most = most_of(size);
		if (__builtin_expect(any_above(most, largest), 0)) {
			samples += survey_odd(dtype, task, i, ROUND, &lanes, out, sample + samples);
			continue;
		}
		plain++;
		add_values(dtype, x, &lanes, &min, &max);
		if (!with_delta)
			continue;
		add_sizes(size, &lanes);
		for (unsigned k = 0; k < UPPER; k++)
			count_below(size, thresholds[k], &below[k]);
		if (all_below(most, thresholds[UPPER]))
			plain_small++;
		else
			for (unsigned k = UPPER; k < TPD_SPARSITY_REAL; k++)
				count_below(size, thresholds[k], &below[k]);
		if (sampled) {
			plain_sampled++;
			for (unsigned b = 0; b < PARTS; b++)
				samples += put_above(size[b], bar, sample + samples);
		}
		add_distances(dtype, x, w, &tally);
		if (__builtin_expect(!all_below(most, _mm256_castps_si256(_mm256_set1_ps(ends.least))), 0))
			new_extremes(dtype, x, w, &ends);
	}
	end_tally(&tally);
	out->finite += plain * ROUND;
	out->pairs += with_delta ? plain * ROUND : 0;
	out->sampled += plain_sampled * ROUND;
	_mm256_storeu_ps(values[0], min);
	_mm256_storeu_ps(values[1], max);
	for (unsigned j = 0; j < WORDS; j++) {
		lanes.value_min[j] = fmin(lanes.value_min[j], (double)values[0][j]);
		lanes.value_max[j] = fmax(lanes.value_max[j], (double)values[1][j]);
	}
	lanes.delta_min[0] = fmin(lanes.delta_min[0], ends.min);
	lanes.delta_max[0] = fmax(lanes.delta_max[0], ends.max);
	take_values(&lanes, out);
	take_counts(&lanes, out);
	for (unsigned k = 0; with_delta && k < TPD_SPARSITY_REAL; k++)
		out->raw[k] += sum_of(below[k]) + (k < UPPER ? 0 : plain_small * ROUND);
	for (unsigned k = 0; with_delta && k < BITS; k++)
		out->ulps[k] += plain * ROUND - tally.counts[k];
	out->zeros = out->ulps[0];
	return samples;
}

static size_t survey(const struct tpd_survey_task *task, struct tpd_survey *out, double *sample)
{
	if (task->dtype == TPD_DTYPE_F32)
		return task->w ? survey_vectors(TPD_DTYPE_F32, true, task, out, sample) : survey_vectors(TPD_DTYPE_F32, false, task, out, sample);
	if (task->dtype == TPD_DTYPE_BF16)
		return task->w ? survey_vectors(TPD_DTYPE_BF16, true, task, out, sample) : survey_vectors(TPD_DTYPE_BF16, false, task, out, sample);
	return survey_plain(task, out, sample);
}

/* --- second pass --- */

/* Of some elements from i on. */
static __attribute__((noinline, cold)) void count_odd(const struct tpd_count_task *task, size_t width, size_t i, size_t n, struct tpd_count *out,
						      uint8_t *kept)
{
	struct tpd_count_task part = *task;

	part.x += i * width;
	part.w += i * width;
	part.n = n;
	count_plain(&part, out, kept + i / 8);
}

INLINE void count_vectors(const enum tpd_dtype dtype, const struct tpd_count_task *task, struct tpd_count *out, uint8_t *kept)
{
	const size_t width = dtype == TPD_DTYPE_F32 ? 4 : 2, each = WORDS * width;
	const __m256i largest = set(LARGEST), bar = set(float_to(task->bar));
	__m256i limits[TPD_SPARSITY_REAL], below[TPD_SPARSITY_REAL], lower;

	for (unsigned k = 0; k < TPD_SPARSITY_REAL; k++) {
		below[k] = _mm256_setzero_si256();
		limits[k] = set(float_from(task->limits[k]));
	}
	lower = _mm256_max_epi32(limits[0], limits[1]);
	for (size_t i = 0; i < task->n; i += ROUND) {
		const uint8_t *x = task->x + i * width, *w = task->w + i * width;
		__m256i size[PARTS], least;

		if (task->n - i < ROUND) {
			count_odd(task, width, i, task->n - i, out, kept);
			break;
		}
		ahead_of(x, w, ROUND * width);
		EACH size[b] = size_of(float_of(dtype, load_bits(dtype, x + b * each)), float_of(dtype, load_bits(dtype, w + b * each)));
		if (__builtin_expect(any_above(most_of(size), largest), 0)) {
			count_odd(task, width, i, ROUND, out, kept);
			continue;
		}
		least = size[0];
		EACH_OTHER least = _mm256_min_epi32(least, size[b]);
		for (unsigned k = any_above(lower, least) ? 0 : 2; k < TPD_SPARSITY_REAL; k++) /* there are seldom any below the lower ones */
			count_below(size, limits[k], &below[k]);
		EACH kept[i / 8 + b] = (uint8_t)_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(size[b], bar)));
	}
	for (unsigned k = 0; k < TPD_SPARSITY_REAL; k++)
		out->minmax[k] += sum_of(below[k]);
}

static void count(const struct tpd_count_task *task, struct tpd_count *out, uint8_t *kept)
{
	if (task->dtype == TPD_DTYPE_F32)
		count_vectors(TPD_DTYPE_F32, task, out, kept);
	else if (task->dtype == TPD_DTYPE_BF16)
		count_vectors(TPD_DTYPE_BF16, task, out, kept);
	else
		count_plain(task, out, kept);
}

/* --- selection of what is sampled --- */

static size_t between(const double *v, size_t n, double low, double high, double *out, size_t *out_above)
{
	const __m256d from = _mm256_set1_pd(low), to = _mm256_set1_pd(high);
	size_t taken = 0, above = 0, rest_above, i = 0;

	for (; i + 4 <= n; i += 4) {
		const __m256d values = _mm256_loadu_pd(v + i);
		const unsigned larger = (unsigned)_mm256_movemask_pd(_mm256_cmp_pd(values, to, _CMP_GT_OQ));
		const unsigned found = (unsigned)_mm256_movemask_pd(_mm256_cmp_pd(values, from, _CMP_GT_OQ));

		above += (unsigned)_mm_popcnt_u32(larger);
		taken += put_chosen(values, found & ~larger, out + taken);
	}
	taken += between_plain(v + i, n - i, low, high, out + taken, &rest_above);
	*out_above = above + rest_above;
	return taken;
}

static size_t places(const uint8_t *kept, size_t n, uint32_t *out)
{
	return places_plain(kept, n, out);
}

const struct tpd_survey_kernels tpd_survey_avx2 = {survey, count, between, places};

#else

const struct tpd_survey_kernels tpd_survey_avx2 = {0}; /* not built for this CPU */

#endif
