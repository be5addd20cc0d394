/*
 * survey_avx512.c - the loops of the statistics for CPUs with AVX-512 F, BW, DQ, VL, VBMI, VBMI2 and CD.
 *
 * Sixteen elements to a register, as floats; these are widened to doubles for what is summed up, in the lanes of the plain loops.
 * A round of 64 elements that are all there and finite, as is their difference in single precision, is known by its largest size; the
 * others are done apart, with masks for those that take part.
 *
 *     thresholds  are compared as floats: a difference, which is in single precision, is below a double where it is below the next float above that.
 *     extremes    of the difference are looked for in a round only where its largest size may be one.
 *     ulps        a distance whose leading bit is copied to all below it has bit k where it is 2^k or more. So 64 registers of them are added
 *                 up as carry-save adders do, by bits, and only their carries are counted.
 *     memory      is asked for two kilobytes ahead: half of the first pass was spent waiting for the first loads of a round.
 *
 * F64 takes the plain loops. Rejected: a counter in memory for each bit length (an access for each element); adding 1 by mask
 * for each of the 17 thresholds (34 operations instead of 6 for a register); halves widened from memory instead of from registers (no gain),
 * masks of thresholds stored and counted later (a tenth slower);
 * comparisons of doubles beside vcompresspd (a family 25 model 17 needs 6 cycles for the two, 4 when the sign of a difference of their
 * bits makes the mask).
 */
#include "base/tpd.h"

#include "codec/stats_internal.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__) && defined(__AVX512VBMI2__) && \
	defined(__AVX512CD__)

#include <float.h>
#include <immintrin.h>

#include "codec/prefetch_kernel.h"
#include "codec/survey_kernel.h"

INLINE __m512i set(uint32_t v)
{
	return _mm512_set1_epi32((int32_t)v);
}

/* --- elements --- */

/* Bits of the elements of these lanes, zeros in the others. */
INLINE __m512i load_bits(const enum tpd_dtype dtype, const uint8_t *from, __mmask16 lanes)
{
	if (dtype == TPD_DTYPE_F32)
		return lanes == 0xffff ? _mm512_loadu_si512(from) : _mm512_maskz_loadu_epi32(lanes, from);
	return _mm512_cvtepu16_epi32(lanes == 0xffff ? _mm256_loadu_si256((const __m256i *)(const void *)from)
						     : _mm256_maskz_loadu_epi16(lanes, from));
}

INLINE __m512 float_of(const enum tpd_dtype dtype, __m512i bits)
{
	if (dtype == TPD_DTYPE_F32)
		return _mm512_castsi512_ps(bits);
	if (dtype == TPD_DTYPE_BF16)
		return _mm512_castsi512_ps(_mm512_slli_epi32(bits, 16));
	return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(bits));
}

INLINE __m512d low_doubles(__m512 v)
{
	return _mm512_cvtps_pd(_mm512_castps512_ps256(v));
}

INLINE __m512d high_doubles(__m512 v)
{
	return _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1));
}

/* The same of elements in memory, which for F32 costs less than to take them out of a register. */
INLINE __m512d doubles_at(const enum tpd_dtype dtype, const uint8_t *from, __m512 v, bool high)
{
	if (dtype == TPD_DTYPE_F32)
		return _mm512_cvtps_pd(_mm256_castsi256_ps(_mm256_loadu_si256((const __m256i *)(const void *)(from + (high ? 32 : 0)))));
	return high ? high_doubles(v) : low_doubles(v);
}

INLINE __m512i magnitude_of(const enum tpd_dtype dtype, __m512i bits)
{
	return _mm512_and_si512(bits, set(dtype == TPD_DTYPE_F32 ? 0x7fffffffu : 0x7fffu));
}

/* |x - w| in single precision: as the definition has it, unless that is infinite. */
INLINE __m512 single_size(__m512 x, __m512 w)
{
	return _mm512_abs_ps(_mm512_sub_ps(x, w));
}

INLINE __mmask16 both_halves(__mmask8 low, __mmask8 high)
{
	return (__mmask16)(low | high << 8);
}

/* |x - w| as sums and counts have it: of finite ones in single precision, unless that is infinite. */
INLINE void sizes_of(__m512 x, __m512 w, __m512d *out_low, __m512d *out_high)
{
	const __m512 single = single_size(x, w);
	const __mmask16 large = _mm512_cmp_ps_mask(single, _mm512_set1_ps(FLT_MAX), _CMP_GT_OQ);

	*out_low = _mm512_mask_abs_pd(low_doubles(single), (__mmask8)large, _mm512_sub_pd(low_doubles(x), low_doubles(w)));
	*out_high = _mm512_mask_abs_pd(high_doubles(single), (__mmask8)(large >> 8), _mm512_sub_pd(high_doubles(x), high_doubles(w)));
}

INLINE __mmask16 below_of(__m512d low, __m512d high, double limit)
{
	const __m512d t = _mm512_set1_pd(limit);

	return both_halves(_mm512_cmp_pd_mask(low, t, _CMP_LT_OQ), _mm512_cmp_pd_mask(high, t, _CMP_LT_OQ));
}

INLINE __mmask16 first_lanes(size_t n)
{
	return (__mmask16)(n >= BLOCK ? 0xffffu : (1u << n) - 1);
}

INLINE __m512i least_of(const __m512i v[4])
{
	return _mm512_min_epu32(_mm512_min_epu32(v[0], v[1]), _mm512_min_epu32(v[2], v[3]));
}

INLINE __m512i most_of(const __m512i v[4])
{
	return _mm512_max_epu32(_mm512_max_epu32(v[0], v[1]), _mm512_max_epu32(v[2], v[3]));
}

INLINE bool any_zero(__m512i v)
{
	return _mm512_testn_epi32_mask(v, v) != 0;
}

/* --- first pass --- */

#define BITS TPD_SPARSITY_ULPS
#define UPPER 2u /* thresholds from this one on are often above all of a round */
#define ROUND_BLOCKS 4u
#define ROUND (ROUND_BLOCKS * BLOCK)
_Static_assert(ROUND == TPD_STATS_BLOCK, "one is sampled as a whole");
#define LARGEST UINT32_C(0x7f7fffff) /* finite float */
#define EACH for (unsigned b = 0; b < ROUND_BLOCKS; b++)

/* a + b + c by bits: sum and carry. */
INLINE __m512i add3(__m512i *sum, __m512i b, __m512i c)
{
	__m512i a = *sum;

	*sum = _mm512_ternarylogic_epi32(a, b, c, 0x96);
	return _mm512_ternarylogic_epi32(a, b, c, 0xe8);
}

/* How often each bit is set in 16 words, `times` times, is added. */
INLINE void count_bits(__m512i words, uint64_t times, uint64_t counts[BITS])
{
	for (unsigned k = 0; k < BITS; k++)
		counts[k] += times * (uint64_t)(unsigned)_mm_popcnt_u32(_mm512_test_epi32_mask(words, set(1u << k)));
}

/* Four words of one weight; returns what has four times that. */
INLINE __m512i add4(__m512i *ones, __m512i *twos, const __m512i words[4])
{
	__m512i low = add3(ones, words[0], words[1]), high = add3(ones, words[2], words[3]);

	return add3(twos, low, high);
}

/* What is summed up: kept in registers. */
struct sums {
	__m512d value2[2], delta2[2];
	__m512 min, max; /* of the value */
	uint64_t below[TPD_SPARSITY_REAL];
};

/* What is seldom changed. */
struct rest {
	double delta_min, delta_max;
	struct tpd_survey *out;
	double *sample;
	size_t samples;
};

struct context {
	__m512i thresholds[TPD_SPARSITY_REAL]; /* bits of floats, whose order is theirs */
	__m512d bar;
};

/* The order-preserving integer: what is negative is subtracted from 0. Both zeros are 0. */
INLINE __m512i order_of(const enum tpd_dtype dtype, __m512i bits)
{
	const __m512i top = set(dtype == TPD_DTYPE_F32 ? UINT32_C(0x80000000) : UINT32_C(0x8000));

	return _mm512_mask_sub_epi32(bits, _mm512_test_epi32_mask(bits, top), top, bits);
}

/*
 * Distance in ulps, modulo 2^32, which makes none small that is not, with all bits below the leading one. Of F32 the patterns do as they are: of one
 * sign they are as far from each other as their orders; of two signs they come out further than all thresholds, as they are, unless neither is further
 * than that from zero (off_zero()).
 */
INLINE __m512i smeared_distance(__m512i x_order, __m512i w_order)
{
	return _mm512_srlv_epi32(set(UINT32_MAX), _mm512_lzcnt_epi32(_mm512_abs_epi32(_mm512_sub_epi32(x_order, w_order))));
}

/* 0 where both are within 2^16 ulps of zero. */
INLINE __m512i off_zero(__m512i x, __m512i w)
{
	return _mm512_ternarylogic_epi32(x, w, set(UINT32_C(0x7fff0000)), 0xa8); /* (a | b) & c */
}

INLINE __m512i add_where(__m512i counts, __mmask16 lanes)
{
	return _mm512_mask_sub_epi32(counts, lanes, counts, set(UINT32_MAX));
}

/* Which are above the bar, none being negative: by their bits, since a comparison of doubles gets in the way of what compresses. */
INLINE __mmask8 above_of(__m512d size, __m512d bar)
{
	return _mm512_movepi64_mask(_mm512_sub_epi64(_mm512_castpd_si512(bar), _mm512_castpd_si512(size)));
}

/* Those above the bar, appended. */
INLINE size_t put_above(__m512d size, __mmask8 lanes, __m512d bar, double *out)
{
	const __mmask8 above = lanes & above_of(size, bar);

	_mm512_storeu_pd(out, _mm512_maskz_compress_pd(above, size));
	return (size_t)(unsigned)_mm_popcnt_u32(above);
}

/* How many of a round are smaller. Counted as bits: a register for each threshold would be one too many. */
INLINE uint64_t count_below(const __m512i size[4], __m512i threshold)
{
	const __mmask32 low = _mm512_kunpackw(_mm512_cmplt_epu32_mask(size[1], threshold), _mm512_cmplt_epu32_mask(size[0], threshold));
	const __mmask32 high = _mm512_kunpackw(_mm512_cmplt_epu32_mask(size[3], threshold), _mm512_cmplt_epu32_mask(size[2], threshold));

	return (uint64_t)_mm_popcnt_u64(_mm512_kunpackd(high, low));
}

/* A round in which some are not there or not finite, or their difference is not in single precision. */
static __attribute__((noinline, cold)) void survey_odd(const enum tpd_dtype dtype, const uint8_t *x, const uint8_t *w, size_t n, bool sampled,
						       const struct context *context, struct sums *sums, struct rest *rest, __m512i near[4])
{
	const __m512i infinite = set((uint32_t)exponent_mask(dtype));
	const size_t width = dtype == TPD_DTYPE_F32 ? 4 : 2;

	EACH {
		const __mmask16 lanes = n > b * BLOCK ? first_lanes(n - b * BLOCK) : 0;
		__m512i bits = load_bits(dtype, x + b * BLOCK * width, lanes), old, magnitude = magnitude_of(dtype, bits);
		__mmask16 finite = _mm512_mask_cmplt_epu32_mask(lanes, magnitude, infinite), pairs;
		__m512 v = float_of(dtype, bits), w1;
		__m512d v0 = low_doubles(v), v1 = high_doubles(v), d0, d1, s0, s1;
		unsigned inf = (unsigned)_mm_popcnt_u32(_mm512_mask_cmpeq_epi32_mask(lanes, magnitude, infinite));
		unsigned count = (unsigned)_mm_popcnt_u32(finite);

		rest->out->inf += inf;
		rest->out->nan += (unsigned)_mm_popcnt_u32(lanes) - count - inf;
		rest->out->finite += count;
		sums->value2[0] = _mm512_mask3_fmadd_pd(v0, v0, sums->value2[0], (__mmask8)finite);
		sums->value2[1] = _mm512_mask3_fmadd_pd(v1, v1, sums->value2[1], (__mmask8)(finite >> 8));
		sums->min = _mm512_mask_min_ps(sums->min, finite, v, sums->min);
		sums->max = _mm512_mask_max_ps(sums->max, finite, v, sums->max);
		if (!w)
			continue;
		old = load_bits(dtype, w + b * BLOCK * width, lanes);
		pairs = _mm512_mask_cmplt_epu32_mask(finite, magnitude_of(dtype, old), infinite);
		count = (unsigned)_mm_popcnt_u32(pairs);
		rest->out->pairs += count;
		rest->out->sampled += sampled ? count : 0;
		w1 = float_of(dtype, old);
		d0 = _mm512_sub_pd(v0, low_doubles(w1));
		d1 = _mm512_sub_pd(v1, high_doubles(w1));
		sizes_of(v, w1, &s0, &s1);
		sums->delta2[0] = _mm512_mask_add_pd(sums->delta2[0], (__mmask8)pairs, sums->delta2[0], _mm512_mul_pd(s0, s0));
		sums->delta2[1] = _mm512_mask_add_pd(sums->delta2[1], (__mmask8)(pairs >> 8), sums->delta2[1], _mm512_mul_pd(s1, s1));
		rest->delta_min = fmin(rest->delta_min, _mm512_mask_reduce_min_pd((__mmask8)pairs, d0));
		rest->delta_min = fmin(rest->delta_min, _mm512_mask_reduce_min_pd((__mmask8)(pairs >> 8), d1));
		rest->delta_max = fmax(rest->delta_max, _mm512_mask_reduce_max_pd((__mmask8)pairs, d0));
		rest->delta_max = fmax(rest->delta_max, _mm512_mask_reduce_max_pd((__mmask8)(pairs >> 8), d1));
		if (sampled) {
			rest->samples += put_above(s0, (__mmask8)pairs, context->bar, rest->sample + rest->samples);
			rest->samples += put_above(s1, (__mmask8)(pairs >> 8), context->bar, rest->sample + rest->samples);
		}
		for (unsigned k = 0; k < TPD_SPARSITY_REAL; k++)
			rest->out->raw[k] += (unsigned)_mm_popcnt_u32(pairs & below_of(s0, s1, tpd_sparsity_thresholds[k]));
		near[b] = _mm512_maskz_mov_epi32(pairs, smeared_distance(order_of(dtype, bits), order_of(dtype, old)));
	}
}

/* A round that may have a new extreme. Returns the size below which no other one has. */
static __attribute__((noinline, cold)) float new_extremes(const enum tpd_dtype dtype, const uint8_t *x, const uint8_t *w, struct rest *rest)
{
	const size_t width = dtype == TPD_DTYPE_F32 ? 4 : 2;
	__m512d min = _mm512_set1_pd(rest->delta_min), max = _mm512_set1_pd(rest->delta_max);

	EACH {
		__m512 v = float_of(dtype, load_bits(dtype, x + b * BLOCK * width, 0xffff));
		__m512 w1 = float_of(dtype, load_bits(dtype, w + b * BLOCK * width, 0xffff));
		__m512d low = _mm512_sub_pd(low_doubles(v), low_doubles(w1)), high = _mm512_sub_pd(high_doubles(v), high_doubles(w1));

		min = _mm512_min_pd(min, _mm512_min_pd(low, high));
		max = _mm512_max_pd(max, _mm512_max_pd(low, high));
	}
	rest->delta_min = _mm512_reduce_min_pd(min);
	rest->delta_max = _mm512_reduce_max_pd(max);
	return rest->delta_min < 0 && rest->delta_max > 0 ? (float)fmin(-rest->delta_min, rest->delta_max) : 0;
}

/* 64 elements, as survey_vectors() wants them. all: they are above the bar; small: below the upper thresholds. */
INLINE void survey_round(const enum tpd_dtype dtype, const bool with_delta, const bool sampled, const bool all, const bool small,
			 const uint8_t *x, const uint8_t *w, const struct context *context, const __m512i size[4], struct sums *sums, struct rest *rest, __m512i near[4])
{
	const size_t width = dtype == TPD_DTYPE_F32 ? 4 : 2;
	double *sample = rest->sample + rest->samples;
	__m512i off[4];

	EACH {
		const __m512i bits = load_bits(dtype, x + b * BLOCK * width, 0xffff);
		const __m512 v = float_of(dtype, bits);
		const __m512d v0 = doubles_at(dtype, x + b * BLOCK * width, v, false), v1 = doubles_at(dtype, x + b * BLOCK * width, v, true);

		sums->value2[0] = _mm512_fmadd_pd(v0, v0, sums->value2[0]); /* v * v is exact, of any float */
		sums->value2[1] = _mm512_fmadd_pd(v1, v1, sums->value2[1]);
		sums->min = _mm512_min_ps(v, sums->min);
		sums->max = _mm512_max_ps(v, sums->max);
		if (with_delta) {
			const __m512i old = load_bits(dtype, w + b * BLOCK * width, 0xffff);
			const __m512d d0 = low_doubles(_mm512_castsi512_ps(size[b])), d1 = high_doubles(_mm512_castsi512_ps(size[b]));

			sums->delta2[0] = _mm512_fmadd_pd(d0, d0, sums->delta2[0]);
			sums->delta2[1] = _mm512_fmadd_pd(d1, d1, sums->delta2[1]);
			if (sampled && all) {
				_mm512_storeu_pd(sample + b * BLOCK, d0);
				_mm512_storeu_pd(sample + b * BLOCK + 8, d1);
			} else if (sampled) {
				sample += put_above(d0, 0xff, context->bar, sample);
				sample += put_above(d1, 0xff, context->bar, sample);
			}
			near[b] = dtype == TPD_DTYPE_F32 ? smeared_distance(bits, old) : smeared_distance(order_of(dtype, bits), order_of(dtype, old));
			off[b] = off_zero(bits, old);
		}
	}
	if (with_delta && dtype == TPD_DTYPE_F32 && __builtin_expect(any_zero(least_of(off)), 0))
		EACH near[b] = smeared_distance(order_of(dtype, load_bits(dtype, x + b * BLOCK * width, 0xffff)),
						order_of(dtype, load_bits(dtype, w + b * BLOCK * width, 0xffff)));
	for (unsigned k = 0; with_delta && k < (small ? UPPER : TPD_SPARSITY_REAL); k++)
		sums->below[k] += count_below(size, context->thresholds[k]);
	rest->samples = (size_t)(sample - rest->sample) + (sampled && all ? ROUND : 0);
}

INLINE size_t survey_vectors(const enum tpd_dtype dtype, const bool with_delta, const struct tpd_survey_task *task, struct lanes *lanes,
			     struct tpd_survey *out, double *sample)
{
	const size_t width = dtype == TPD_DTYPE_F32 ? 4 : 2;
	const __m512i zero = _mm512_setzero_si512(), largest = set(LARGEST);
	__m512i ones[3] = {zero, zero, zero}, twos[3] = {zero, zero, zero}, wait[2][4];
	uint64_t far[BITS] = {0};
	struct context context = {{zero}, _mm512_set1_pd(task->bar)};
	struct rest rest = {INFINITY, -INFINITY, out, sample, 0};
	struct sums sums;
	__m512i extreme = zero;
	size_t round = 0;
	uint64_t plain = 0, plain_sampled = 0, plain_small = 0; /* rounds in which all are finite */

	for (unsigned h = 0; h < 2; h++)
		sums.value2[h] = sums.delta2[h] = _mm512_setzero_pd();
	sums.min = _mm512_set1_ps(INFINITY);
	sums.max = _mm512_set1_ps(-INFINITY);
	for (unsigned k = 0; k < TPD_SPARSITY_REAL; k++) {
		sums.below[k] = 0;
		context.thresholds[k] = set(float_from(tpd_sparsity_thresholds[k]));
	}
	for (size_t i = 0; i < task->n; i += ROUND) {
		const uint8_t *x = task->x + i * width, *w = with_delta ? task->w + i * width : NULL;
		const bool sampled = with_delta && tpd_stats_sampled((task->first + i) / TPD_STATS_BLOCK, task->stride);
		__m512i near[4], size[4], most = set(UINT32_MAX);

		if (task->n - i >= ROUND) {
			ahead_of(x, w, ROUND * width);
			EACH {
				__m512 v = float_of(dtype, load_bits(dtype, x + b * BLOCK * width, 0xffff));

				if (with_delta)
					v = _mm512_sub_ps(v, float_of(dtype, load_bits(dtype, w + b * BLOCK * width, 0xffff)));
				size[b] = _mm512_castps_si512(_mm512_abs_ps(v));
			}
			most = most_of(size);
		} else {
			EACH size[b] = most;
		}
		if (__builtin_expect(_mm512_cmpgt_epu32_mask(most, largest) != 0, 0)) {
			struct sums copy = sums;

			survey_odd(dtype, x, w, task->n - i, sampled, &context, &copy, &rest, near);
			sums = copy;
		} else {
			const bool all = sampled && task->bar == 0 && !any_zero(least_of(size));
			const bool small = !all && _mm512_cmpge_epu32_mask(most, context.thresholds[UPPER]) == 0;

			plain++;
			plain_sampled += sampled;
			plain_small += with_delta && small;
			if (all)
				survey_round(dtype, with_delta, true, true, false, x, w, &context, size, &sums, &rest, near);
			else if (sampled && small)
				survey_round(dtype, with_delta, true, false, true, x, w, &context, size, &sums, &rest, near);
			else if (sampled)
				survey_round(dtype, with_delta, true, false, false, x, w, &context, size, &sums, &rest, near);
			else if (small)
				survey_round(dtype, with_delta, false, false, true, x, w, &context, size, &sums, &rest, near);
			else
				survey_round(dtype, with_delta, false, false, false, x, w, &context, size, &sums, &rest, near);
			if (with_delta && __builtin_expect(_mm512_cmpge_epu32_mask(most, extreme) != 0, 0))
				extreme = _mm512_castps_si512(_mm512_set1_ps(new_extremes(dtype, x, w, &rest)));
		}
		if (!with_delta)
			continue;
		wait[0][round++ % 4] = add4(&ones[0], &twos[0], near);
		if (round % 4 != 0)
			continue;
		wait[1][(round / 4 - 1) % 4] = add4(&ones[1], &twos[1], wait[0]);
		if (round % 16 == 0)
			count_bits(add4(&ones[2], &twos[2], wait[1]), 64, far);
	}
	for (size_t r = 0; with_delta && r < round % 4; r++)
		count_bits(wait[0][r], 4, far);
	for (size_t r = 0; with_delta && r < round / 4 % 4; r++)
		count_bits(wait[1][r], 16, far);
	for (unsigned level = 0; with_delta && level < 3; level++) {
		count_bits(ones[level], UINT64_C(1) << 2 * level, far);
		count_bits(twos[level], UINT64_C(2) << 2 * level, far);
	}
	out->finite += plain * ROUND;
	out->pairs += with_delta ? plain * ROUND : 0;
	out->sampled += plain_sampled * ROUND;
	for (unsigned k = 0; with_delta && k < BITS; k++)
		out->ulps[k] = out->pairs - far[k];
	out->zeros = out->ulps[0];
	for (unsigned k = 0; k < TPD_SPARSITY_REAL; k++)
		out->raw[k] += sums.below[k] + (k < UPPER ? 0 : plain_small * ROUND);
	for (unsigned h = 0; h < 2; h++) {
		_mm512_storeu_pd(lanes->value_sum2 + 8 * h, sums.value2[h]);
		_mm512_storeu_pd(lanes->delta_sum2 + 8 * h, sums.delta2[h]);
	}
	lanes->delta_min[0] = rest.delta_min;
	lanes->delta_max[0] = rest.delta_max;
	lanes->value_min[0] = (double)_mm512_reduce_min_ps(sums.min);
	lanes->value_max[0] = (double)_mm512_reduce_max_ps(sums.max);
	return rest.samples;
}

INLINE size_t survey_dtype(const enum tpd_dtype dtype, const struct tpd_survey_task *task, struct lanes *lanes, struct tpd_survey *out,
			   double *sample)
{
	return task->w ? survey_vectors(dtype, true, task, lanes, out, sample) : survey_vectors(dtype, false, task, lanes, out, sample);
}

static size_t survey(const struct tpd_survey_task *task, struct tpd_survey *out, double *sample)
{
	struct lanes lanes;
	size_t samples;

	if (task->dtype == TPD_DTYPE_F64)
		return survey_plain(task, out, sample);
	lanes_begin(&lanes);
	if (task->dtype == TPD_DTYPE_F32)
		samples = survey_dtype(TPD_DTYPE_F32, task, &lanes, out, sample);
	else if (task->dtype == TPD_DTYPE_BF16)
		samples = survey_dtype(TPD_DTYPE_BF16, task, &lanes, out, sample);
	else
		samples = survey_dtype(TPD_DTYPE_F16, task, &lanes, out, sample);
	take_values(&lanes, out);
	return samples;
}

/* --- second pass --- */

/* Both finite. */
INLINE __mmask16 pairs_of(const enum tpd_dtype dtype, __m512i x, __m512i w)
{
	const __m512i infinite = set((uint32_t)exponent_mask(dtype));

	return _mm512_mask_cmplt_epu32_mask(_mm512_cmplt_epu32_mask(magnitude_of(dtype, x), infinite), magnitude_of(dtype, w), infinite);
}

INLINE void put_kept(uint8_t *kept, uint64_t bits, size_t n)
{
	for (size_t b = 0; b < n; b += 8)
		*kept++ = (uint8_t)(bits >> b);
}

/* As survey_odd(). Returns which are kept. */
static __attribute__((noinline, cold)) uint64_t count_odd(const enum tpd_dtype dtype, const uint8_t *x, const uint8_t *w, size_t n,
							  const struct tpd_count_task *task, struct tpd_count *out)
{
	const size_t width = dtype == TPD_DTYPE_F32 ? 4 : 2;
	const __m512d bar = _mm512_set1_pd(task->bar);
	uint64_t kept = 0;

	EACH {
		const __mmask16 lanes = n > b * BLOCK ? first_lanes(n - b * BLOCK) : 0;
		const __m512i bits = load_bits(dtype, x + b * BLOCK * width, lanes), old_bits = load_bits(dtype, w + b * BLOCK * width, lanes);
		const __m512 new = float_of(dtype, bits), old = float_of(dtype, old_bits);
		const __mmask16 pairs = lanes & pairs_of(dtype, bits, old_bits);
		__m512d low, high;

		sizes_of(new, old, &low, &high);
		for (unsigned k = 0; k < TPD_SPARSITY_REAL; k++)
			out->minmax[k] += (unsigned)_mm_popcnt_u32(pairs & below_of(low, high, task->limits[k]));
		kept |= (uint64_t)(pairs & both_halves(_mm512_cmp_pd_mask(low, bar, _CMP_GT_OQ), _mm512_cmp_pd_mask(high, bar, _CMP_GT_OQ))) << b * BLOCK;
	}
	return kept;
}

INLINE void count_vectors(const enum tpd_dtype dtype, const struct tpd_count_task *task, struct tpd_count *out, uint8_t *kept)
{
	const size_t width = dtype == TPD_DTYPE_F32 ? 4 : 2;
	const __m512i largest = set(LARGEST), bar = set(float_to(task->bar)); /* positive floats are ordered as their bits are */
	__m512i limits[TPD_SPARSITY_REAL], below[TPD_SPARSITY_REAL], lower;

	for (unsigned k = 0; k < TPD_SPARSITY_REAL; k++) {
		below[k] = _mm512_setzero_si512();
		limits[k] = set(float_from(task->limits[k]));
	}
	lower = _mm512_max_epu32(limits[0], limits[1]);
	for (size_t i = 0; i < task->n; i += ROUND) {
		const uint8_t *x = task->x + i * width, *w = task->w + i * width;
		__m512i size[4];
		__mmask64 over;

		if (task->n - i < ROUND) {
			put_kept(kept + i / 8, count_odd(dtype, x, w, task->n - i, task, out), task->n - i);
			break;
		}
		ahead_of(x, w, ROUND * width);
		EACH size[b] = _mm512_castps_si512(single_size(float_of(dtype, load_bits(dtype, x + b * BLOCK * width, 0xffff)),
							       float_of(dtype, load_bits(dtype, w + b * BLOCK * width, 0xffff))));
		if (__builtin_expect(_mm512_cmpgt_epu32_mask(most_of(size), largest) != 0, 0)) {
			tpd_put_u64(kept + i / 8, count_odd(dtype, x, w, ROUND, task, out));
			continue;
		}
		if (_mm512_cmplt_epu32_mask(least_of(size), lower) != 0) /* there are seldom any below the lower ones */
			EACH {
				below[0] = add_where(below[0], _mm512_cmplt_epu32_mask(size[b], limits[0]));
				below[1] = add_where(below[1], _mm512_cmplt_epu32_mask(size[b], limits[1]));
			}
		EACH {
			below[2] = add_where(below[2], _mm512_cmplt_epu32_mask(size[b], limits[2]));
			below[3] = add_where(below[3], _mm512_cmplt_epu32_mask(size[b], limits[3]));
		}
		over = _mm512_kunpackd(_mm512_kunpackw(_mm512_cmpgt_epu32_mask(size[3], bar), _mm512_cmpgt_epu32_mask(size[2], bar)),
				       _mm512_kunpackw(_mm512_cmpgt_epu32_mask(size[1], bar), _mm512_cmpgt_epu32_mask(size[0], bar)));
		_store_mask64((__mmask64 *)(void *)(kept + i / 8), over);
	}
	for (unsigned k = 0; k < TPD_SPARSITY_REAL; k++)
		out->minmax[k] += (uint32_t)_mm512_reduce_add_epi32(below[k]);
}

static void count(const struct tpd_count_task *task, struct tpd_count *out, uint8_t *kept)
{
	if (task->dtype == TPD_DTYPE_F64)
		count_plain(task, out, kept);
	else if (task->dtype == TPD_DTYPE_F32)
		count_vectors(TPD_DTYPE_F32, task, out, kept);
	else if (task->dtype == TPD_DTYPE_BF16)
		count_vectors(TPD_DTYPE_BF16, task, out, kept);
	else
		count_vectors(TPD_DTYPE_F16, task, out, kept);
}

/* --- selection --- */

static size_t places(const uint8_t *kept, size_t n, uint32_t *out)
{
	static const uint8_t numbers[64] = {0,  1,  2,	3,  4,	5,  6,	7,  8,	9,  10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
					    22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43,
					    44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63};
	const __m512i order = _mm512_loadu_si512(numbers);
	size_t found = 0;

	for (size_t i = 0; i < n; i += 64) {
		const uint64_t word = kept_word(kept, i, n);
		const size_t count = (size_t)_mm_popcnt_u64(word);
		const __m512i in = _mm512_maskz_compress_epi8(word, order), first = set((uint32_t)i);

		_mm512_storeu_si512(out + found, _mm512_add_epi32(_mm512_cvtepu8_epi32(_mm512_castsi512_si128(in)), first));
		if (count > 16)
			_mm512_storeu_si512(out + found + 16, _mm512_add_epi32(_mm512_cvtepu8_epi32(_mm512_extracti32x4_epi32(in, 1)), first));
		if (count > 32)
			_mm512_storeu_si512(out + found + 32, _mm512_add_epi32(_mm512_cvtepu8_epi32(_mm512_extracti32x4_epi32(in, 2)), first));
		if (count > 48)
			_mm512_storeu_si512(out + found + 48, _mm512_add_epi32(_mm512_cvtepu8_epi32(_mm512_extracti32x4_epi32(in, 3)), first));
		found += count;
	}
	return found;
}

static size_t count_above(const double *v, size_t n, double high)
{
	const __m512d to = _mm512_set1_pd(high);
	const __m512i minus = _mm512_set1_epi64(-1);
	__m512i sums[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
	size_t i = 0;

	for (; i + 16 <= n; i += 16)
		for (unsigned h = 0; h < 2; h++)
			sums[h] = _mm512_mask_sub_epi64(sums[h], above_of(_mm512_loadu_pd(v + i + 8 * h), to), sums[h], minus);
	for (; i < n; i += 8) {
		const __mmask8 lanes = (__mmask8)first_lanes(n - i);

		sums[0] = _mm512_mask_sub_epi64(sums[0], lanes & above_of(_mm512_maskz_loadu_pd(lanes, v + i), to), sums[0], minus);
	}
	return (size_t)_mm512_reduce_add_epi64(_mm512_add_epi64(sums[0], sums[1]));
}

INLINE size_t take_between(__m512d values, __mmask8 lanes, __m512d low, __m512d high, double *out, __m512i *above)
{
	const __mmask8 larger = lanes & above_of(values, high), found = lanes & above_of(values, low) & (__mmask8)~larger;

	*above = _mm512_mask_sub_epi64(*above, larger, *above, _mm512_set1_epi64(-1));
	_mm512_storeu_pd(out, _mm512_maskz_compress_pd(found, values));
	return (size_t)(unsigned)_mm_popcnt_u32(found);
}

static size_t between(const double *v, size_t n, double low, double high, double *out, size_t *out_above)
{
	const __m512d from = _mm512_set1_pd(low), to = _mm512_set1_pd(high);
	__m512i above = _mm512_setzero_si512();
	size_t taken = 0, i = 0;

	if (low >= high) {
		*out_above = count_above(v, n, high);
		return 0;
	}
	if (high == (double)INFINITY) { /* nothing is above */
		for (; i + 8 <= n; i += 8)
			taken += put_above(_mm512_loadu_pd(v + i), 0xff, from, out + taken);
	}
	for (; i + 8 <= n; i += 8)
		taken += take_between(_mm512_loadu_pd(v + i), 0xff, from, to, out + taken, &above);
	if (i < n) {
		const __mmask8 lanes = (__mmask8)first_lanes(n - i);

		taken += take_between(_mm512_maskz_loadu_pd(lanes, v + i), lanes, from, to, out + taken, &above);
	}
	*out_above = (size_t)_mm512_reduce_add_epi64(above);
	return taken;
}

const struct tpd_survey_kernels tpd_survey_avx512 = {survey, count, between, places};

#else

const struct tpd_survey_kernels tpd_survey_avx512 = {0}; /* not built for this CPU */

#endif
