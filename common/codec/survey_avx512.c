/*
 * survey_avx512.c - the loops of the statistics for CPUs with AVX-512 F, BW, DQ, VL, VBMI2 and CD.
 *
 * Sixteen elements to a register, as floats; their values and differences also as doubles, for what is summed up, in the lanes of the plain
 * loops. Which elements take part (they exist, they are finite) is a mask, so there is no second way for those that do not.
 *
 *     thresholds  are compared with the difference in single precision. Rounding keeps order, so that decides for all but the few floats
 *                 that a threshold, or a neighbour of it, rounds to. A table has these at places that their bits name, so that
 *                 one look-up finds out that none of them is there; else the doubles are compared.
 *     ulps        a distance whose leading bit is copied to all below it has bit k where it is 2^k or more. So 16 registers of them are added
 *                 up as carry-save adders do, by bits, and only their carries are counted.
 *
 * F64 takes the plain loops. Rejected: a counter in memory for each bit length (an access for each element); adding 1 by mask
 * for each of the 17 thresholds (34 operations instead of 6 for a register).
 */
#include "base/tpd.h"

#include "codec/stats_internal.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__) && defined(__AVX512VBMI2__) && \
	defined(__AVX512CD__)

#include <float.h>
#include <immintrin.h>

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
		return _mm512_maskz_loadu_epi32(lanes, from);
	return _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, from));
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

INLINE __m512i magnitude_of(const enum tpd_dtype dtype, __m512i bits)
{
	return _mm512_and_si512(bits, set(dtype == TPD_DTYPE_F32 ? 0x7fffffffu : 0x7fffu));
}

/* |x - w| in single precision, and as doubles, exactly as the definition has it. */
INLINE __m512 single_size(__m512 x, __m512 w)
{
	return _mm512_abs_ps(_mm512_sub_ps(x, w));
}

INLINE __mmask16 both_halves(__mmask8 low, __mmask8 high)
{
	return (__mmask16)(low | high << 8);
}

/* Lanes where |x - w| < limit, or with `above` where it is larger. */
INLINE __mmask16 exactly(__m512 x, __m512 w, double limit, bool above)
{
	__m512d low = _mm512_abs_pd(_mm512_sub_pd(low_doubles(x), low_doubles(w))), t = _mm512_set1_pd(limit);
	__m512d high = _mm512_abs_pd(_mm512_sub_pd(high_doubles(x), high_doubles(w)));

	if (above)
		return both_halves(_mm512_cmp_pd_mask(low, t, _CMP_GT_OQ), _mm512_cmp_pd_mask(high, t, _CMP_GT_OQ));
	return both_halves(_mm512_cmp_pd_mask(low, t, _CMP_LT_OQ), _mm512_cmp_pd_mask(high, t, _CMP_LT_OQ));
}

INLINE __mmask16 first_lanes(size_t n)
{
	return (__mmask16)(n >= BLOCK ? 0xffffu : (1u << n) - 1);
}

/* --- floats that do not decide --- */

#define DOUBTS_MAX 16u

struct doubts {
	uint32_t list[DOUBTS_MAX];
	unsigned count;
	/* a float at the place that 4 of its bits name; what is in no place is all ones, which is the size of nothing */
	uint32_t table[16];
	unsigned shift;
	bool all; /* there is no such table: everything is in doubt */
};

static float shift_double(double v, int by)
{
	uint64_t bits;

	memcpy(&bits, &v, sizeof bits);
	bits += (uint64_t)(int64_t)by;
	memcpy(&v, &bits, sizeof v);
	return (float)v;
}

/* Floats to which something rounds that in double may be this limit (positive), or on the other side of it than the float is. */
static void doubt(struct doubts *doubts, double limit)
{
	if (limit == 0 || limit == (double)INFINITY) /* a difference that rounds to 0 is 0; and infinite ones are looked at in any case */
		return;
	for (int by = -1; by <= 1; by++) {
		float f = shift_double(limit, by);
		uint32_t bits;
		bool known = false;

		memcpy(&bits, &f, sizeof bits);
		for (unsigned i = 0; i < doubts->count; i++)
			known |= doubts->list[i] == bits;
		if (!known)
			doubts->list[doubts->count++] = bits;
	}
}

static void make_table(struct doubts *doubts)
{
	for (doubts->shift = 0; doubts->shift < 28; doubts->shift++) {
		bool clash = false;

		for (unsigned i = 0; i < 16; i++)
			doubts->table[i] = UINT32_MAX;
		for (unsigned i = 0; i < doubts->count; i++) {
			uint32_t *place = &doubts->table[doubts->list[i] >> doubts->shift & 15];

			clash |= *place != UINT32_MAX;
			*place = doubts->list[i];
		}
		if (!clash)
			return;
	}
	doubts->all = true;
}

INLINE __mmask16 in_doubt(__m512 size, __m512i table, __m128i shift, __mmask16 all)
{
	__m512i bits = _mm512_castps_si512(size);

	return all | _mm512_cmpeq_epi32_mask(_mm512_permutexvar_epi32(_mm512_srl_epi32(bits, shift), table), bits);
}

/* --- first pass --- */

#define BITS TPD_SPARSITY_ULPS

/* a + b + c by bits: sum and carry. */
INLINE __m512i add3(__m512i *sum, __m512i b, __m512i c)
{
	__m512i a = *sum;

	*sum = _mm512_ternarylogic_epi32(a, b, c, 0x96);
	return _mm512_ternarylogic_epi32(a, b, c, 0xe8);
}

/* How often each bit is set in 16 words, `times` times. */
INLINE void count_bits(__m512i words, uint64_t times, uint64_t counts[BITS])
{
	for (unsigned k = 0; k < BITS; k++)
		counts[k] += times * (uint64_t)(unsigned)__builtin_popcount(_mm512_test_epi32_mask(words, set(1u << k)));
}

struct sums {
	__m512d value2[2], delta2[2], delta_min[2], delta_max[2];
	__m512 value_min, value_max;
	__m512i below[TPD_SPARSITY_REAL];
};

struct context {
	__m512i table;
	__m128i shift;
	__mmask16 all;
	__m512 thresholds[TPD_SPARSITY_REAL];
	__m512d bar;
};

INLINE size_t put_above(__m512d size, __mmask8 lanes, __m512d bar, double *out)
{
	__mmask8 above = _mm512_mask_cmp_pd_mask(lanes, size, bar, _CMP_GT_OQ);

	_mm512_storeu_pd(out, _mm512_maskz_compress_pd(above, size));
	return (size_t)(unsigned)_mm_popcnt_u32(above);
}

/* 16 elements or fewer. Returns their distances in ulps, each with all bits below the leading one. */
INLINE __m512i survey_block(const enum tpd_dtype dtype, const bool with_delta, const struct context *context, struct sums *sums, const uint8_t *x,
			    const uint8_t *w, __mmask16 lanes, bool sampled, struct tpd_survey *out, double *sample, size_t *samples)
{
	const __m512i infinite = set((uint32_t)exponent_mask(dtype));
	__m512i bits = load_bits(dtype, x, lanes), old_bits, magnitude = magnitude_of(dtype, bits), old_magnitude, distance;
	__mmask16 finite = _mm512_mask_cmplt_epu32_mask(lanes, magnitude, infinite), pairs, signs;
	__m512 v = float_of(dtype, bits), w1, size;
	__m512d v0 = low_doubles(v), v1 = high_doubles(v), d0, d1;
	__mmask8 f0 = (__mmask8)finite, f1 = (__mmask8)(finite >> 8), p0, p1;

	sums->value2[0] = _mm512_mask3_fmadd_pd(v0, v0, sums->value2[0], f0); /* v * v is exact, of any float */
	sums->value2[1] = _mm512_mask3_fmadd_pd(v1, v1, sums->value2[1], f1);
	sums->value_min = _mm512_mask_min_ps(sums->value_min, finite, v, sums->value_min);
	sums->value_max = _mm512_mask_max_ps(sums->value_max, finite, v, sums->value_max);
	if (__builtin_expect(finite != 0xffffu, 0)) {
		unsigned absent = (unsigned)_mm_popcnt_u32((uint16_t)~finite), inf;

		inf = (unsigned)_mm_popcnt_u32(_mm512_mask_cmpeq_epi32_mask(lanes, magnitude, infinite));
		out->inf += inf;
		out->nan += (unsigned)_mm_popcnt_u32(lanes) - (BLOCK - absent) - inf;
		out->finite -= absent;
	}
	if (!with_delta)
		return magnitude;
	old_bits = load_bits(dtype, w, lanes);
	old_magnitude = magnitude_of(dtype, old_bits);
	pairs = _mm512_mask_cmplt_epu32_mask(finite, old_magnitude, infinite);
	if (__builtin_expect(pairs != 0xffffu, 0)) {
		out->pairs -= BLOCK - (unsigned)_mm_popcnt_u32(pairs);
		out->sampled -= sampled ? BLOCK - (unsigned)_mm_popcnt_u32(pairs) : 0;
	}
	p0 = (__mmask8)pairs;
	p1 = (__mmask8)(pairs >> 8);
	w1 = float_of(dtype, old_bits);
	d0 = _mm512_sub_pd(v0, low_doubles(w1));
	d1 = _mm512_sub_pd(v1, high_doubles(w1));
	sums->delta2[0] = _mm512_mask_add_pd(sums->delta2[0], p0, sums->delta2[0], _mm512_mul_pd(d0, d0));
	sums->delta2[1] = _mm512_mask_add_pd(sums->delta2[1], p1, sums->delta2[1], _mm512_mul_pd(d1, d1));
	sums->delta_min[0] = _mm512_mask_min_pd(sums->delta_min[0], p0, d0, sums->delta_min[0]);
	sums->delta_min[1] = _mm512_mask_min_pd(sums->delta_min[1], p1, d1, sums->delta_min[1]);
	sums->delta_max[0] = _mm512_mask_max_pd(sums->delta_max[0], p0, d0, sums->delta_max[0]);
	sums->delta_max[1] = _mm512_mask_max_pd(sums->delta_max[1], p1, d1, sums->delta_max[1]);
	if (sampled) {
		*samples += put_above(_mm512_abs_pd(d0), p0, context->bar, sample + *samples);
		*samples += put_above(_mm512_abs_pd(d1), p1, context->bar, sample + *samples);
	}
	size = single_size(v, w1);
	if (__builtin_expect(in_doubt(size, context->table, context->shift, context->all) != 0, 0)) {
		for (unsigned k = 0; k < TPD_SPARSITY_REAL; k++)
			sums->below[k] = _mm512_mask_sub_epi32(sums->below[k], pairs & exactly(v, w1, tpd_sparsity_thresholds[k], false),
							       sums->below[k], set(UINT32_MAX));
	} else {
		for (unsigned k = 0; k < TPD_SPARSITY_REAL; k++)
			sums->below[k] = _mm512_mask_sub_epi32(sums->below[k],
							       _mm512_mask_cmp_ps_mask(pairs, size, context->thresholds[k], _CMP_LT_OQ),
							       sums->below[k], set(UINT32_MAX));
	}
	signs = _mm512_test_epi32_mask(_mm512_xor_si512(bits, old_bits), set(dtype == TPD_DTYPE_F32 ? 0x80000000u : 0x8000u));
	distance = _mm512_abs_epi32(_mm512_sub_epi32(magnitude, old_magnitude));
	distance = _mm512_mask_add_epi32(distance, signs, magnitude, old_magnitude);
	return _mm512_maskz_srlv_epi32(pairs, set(UINT32_MAX), _mm512_lzcnt_epi32(distance));
}

#define ROUND (4 * BLOCK)
_Static_assert(ROUND == TPD_STATS_BLOCK, "one is sampled as a whole");

INLINE size_t survey_vectors(const enum tpd_dtype dtype, const bool with_delta, const struct tpd_survey_task *task, const struct doubts *doubts,
			     struct lanes *lanes, struct tpd_survey *out, double *sample)
{
	const size_t width = dtype == TPD_DTYPE_F32 ? 4 : 2;
	const __m512i zero = _mm512_setzero_si512();
	__m512i ones = zero, twos = zero, fours = zero, eights = zero, quads[4], eight;
	uint64_t far[BITS] = {0};
	struct context context = {_mm512_loadu_si512(doubts->table), _mm_cvtsi32_si128((int)doubts->shift), doubts->all ? 0xffff : 0,
				  {_mm512_setzero_ps()}, _mm512_set1_pd(task->bar)};
	struct sums sums;
	size_t samples = 0, round = 0;

	for (unsigned h = 0; h < 2; h++) {
		sums.value2[h] = sums.delta2[h] = _mm512_setzero_pd();
		sums.delta_min[h] = _mm512_set1_pd(INFINITY);
		sums.delta_max[h] = _mm512_set1_pd(-INFINITY);
	}
	sums.value_min = _mm512_set1_ps(INFINITY);
	sums.value_max = _mm512_set1_ps(-INFINITY);
	for (unsigned k = 0; k < TPD_SPARSITY_REAL; k++) {
		sums.below[k] = zero;
		context.thresholds[k] = _mm512_set1_ps((float)tpd_sparsity_thresholds[k]);
	}
	for (size_t i = 0; i < task->n; i += ROUND) {
		const bool sampled = with_delta && (task->first + i) / TPD_STATS_BLOCK % task->stride == 0;
		__m512i near[4], two[2];

		for (unsigned b = 0; b < 4; b++) {
			size_t at = i + b * BLOCK;
			__mmask16 there = at < task->n ? first_lanes(task->n - at) : 0;

			near[b] = survey_block(dtype, with_delta, &context, &sums, task->x + at * width, with_delta ? task->w + at * width : NULL,
					       there, sampled, out, sample, &samples);
		}
		out->finite += ROUND;
		if (!with_delta)
			continue;
		out->pairs += ROUND;
		out->sampled += sampled ? ROUND : 0;
		two[0] = add3(&ones, near[0], near[1]);
		two[1] = add3(&ones, near[2], near[3]);
		quads[round++ % 4] = add3(&twos, two[0], two[1]);
		if (round % 4 != 0)
			continue;
		eight = add3(&fours, quads[0], quads[1]);
		count_bits(add3(&eights, eight, add3(&fours, quads[2], quads[3])), 16, far);
	}
	for (size_t r = 0; r < round % 4; r++)
		count_bits(quads[r], 4, far);
	count_bits(ones, 1, far);
	count_bits(twos, 2, far);
	count_bits(fours, 4, far);
	count_bits(eights, 8, far);
	for (unsigned k = 0; with_delta && k < BITS; k++)
		out->ulps[k] = out->pairs - far[k];
	out->zeros = out->ulps[0];
	for (unsigned k = 0; k < TPD_SPARSITY_REAL; k++)
		out->raw[k] = (uint32_t)_mm512_reduce_add_epi32(sums.below[k]);
	for (unsigned h = 0; h < 2; h++) {
		_mm512_storeu_pd(lanes->value_sum2 + 8 * h, sums.value2[h]);
		_mm512_storeu_pd(lanes->delta_sum2 + 8 * h, sums.delta2[h]);
		_mm512_storeu_pd(lanes->delta_min + 8 * h, sums.delta_min[h]);
		_mm512_storeu_pd(lanes->delta_max + 8 * h, sums.delta_max[h]);
	}
	_mm512_storeu_pd(lanes->value_min, low_doubles(sums.value_min));
	_mm512_storeu_pd(lanes->value_min + 8, high_doubles(sums.value_min));
	_mm512_storeu_pd(lanes->value_max, low_doubles(sums.value_max));
	_mm512_storeu_pd(lanes->value_max + 8, high_doubles(sums.value_max));
	return samples;
}

INLINE size_t survey_dtype(const enum tpd_dtype dtype, const struct tpd_survey_task *task, const struct doubts *doubts, struct lanes *lanes,
			   struct tpd_survey *out, double *sample)
{
	return task->w ? survey_vectors(dtype, true, task, doubts, lanes, out, sample)
		       : survey_vectors(dtype, false, task, doubts, lanes, out, sample);
}

static size_t survey(const struct tpd_survey_task *task, struct tpd_survey *out, double *sample)
{
	struct doubts doubts = {.count = 0};
	struct lanes lanes;
	size_t samples;

	if (task->dtype == TPD_DTYPE_F64)
		return survey_plain(task, out, sample);
	for (unsigned k = 0; k < TPD_SPARSITY_REAL; k++)
		doubt(&doubts, tpd_sparsity_thresholds[k]);
	make_table(&doubts);
	lanes_begin(&lanes);
	if (task->dtype == TPD_DTYPE_F32)
		samples = survey_dtype(TPD_DTYPE_F32, task, &doubts, &lanes, out, sample);
	else if (task->dtype == TPD_DTYPE_BF16)
		samples = survey_dtype(TPD_DTYPE_BF16, task, &doubts, &lanes, out, sample);
	else
		samples = survey_dtype(TPD_DTYPE_F16, task, &doubts, &lanes, out, sample);
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

INLINE void count_vectors(const enum tpd_dtype dtype, const struct tpd_count_task *task, const struct doubts *doubts, struct tpd_count *out,
			  uint8_t *kept)
{
	const size_t width = dtype == TPD_DTYPE_F32 ? 4 : 2;
	const __m512i table = _mm512_loadu_si512(doubts->table), minus = set(UINT32_MAX);
	const __m128i shift = _mm_cvtsi32_si128((int)doubts->shift);
	const __m512 largest = _mm512_set1_ps(FLT_MAX), bar = _mm512_set1_ps((float)task->bar);
	const __mmask16 all = doubts->all ? 0xffff : 0;
	__m512 limits[TPD_SPARSITY_REAL];
	__m512i below[TPD_SPARSITY_REAL];

	for (unsigned k = 0; k < TPD_SPARSITY_REAL; k++) {
		below[k] = _mm512_setzero_si512();
		limits[k] = _mm512_set1_ps((float)task->limits[k]);
	}
	for (size_t i = 0; i < task->n; i += BLOCK) {
		const __mmask16 lanes = first_lanes(task->n - i);
		const __m512i x = load_bits(dtype, task->x + i * width, lanes), w = load_bits(dtype, task->w + i * width, lanes);
		const __m512 new = float_of(dtype, x), old = float_of(dtype, w), size = single_size(new, old);
		__mmask16 under[TPD_SPARSITY_REAL], over;

		for (unsigned k = 0; k < TPD_SPARSITY_REAL; k++)
			under[k] = _mm512_mask_cmp_ps_mask(lanes, size, limits[k], _CMP_LT_OQ);
		over = _mm512_mask_cmp_ps_mask(lanes, size, bar, _CMP_GT_OQ);
		if (__builtin_expect((in_doubt(size, table, shift, all) | _mm512_cmp_ps_mask(size, largest, _CMP_NLE_UQ)) != 0, 0)) {
			const __mmask16 pairs = lanes & pairs_of(dtype, x, w);

			for (unsigned k = 0; k < TPD_SPARSITY_REAL; k++)
				under[k] = pairs & exactly(new, old, task->limits[k], false);
			over = pairs & exactly(new, old, task->bar, true);
		}
		for (unsigned k = 0; k < TPD_SPARSITY_REAL; k++)
			below[k] = _mm512_mask_sub_epi32(below[k], under[k], below[k], minus);
		kept[i / 8] = (uint8_t)over;
		if (task->n - i > 8)
			kept[i / 8 + 1] = (uint8_t)(over >> 8);
	}
	for (unsigned k = 0; k < TPD_SPARSITY_REAL; k++)
		out->minmax[k] = (uint32_t)_mm512_reduce_add_epi32(below[k]);
}

static void count(const struct tpd_count_task *task, struct tpd_count *out, uint8_t *kept)
{
	struct doubts doubts = {.count = 0};

	if (task->dtype == TPD_DTYPE_F64) {
		count_plain(task, out, kept);
		return;
	}
	for (unsigned k = 0; k < TPD_SPARSITY_REAL; k++)
		doubt(&doubts, task->limits[k]);
	doubt(&doubts, task->bar);
	make_table(&doubts);
	if (task->dtype == TPD_DTYPE_F32)
		count_vectors(TPD_DTYPE_F32, task, &doubts, out, kept);
	else if (task->dtype == TPD_DTYPE_BF16)
		count_vectors(TPD_DTYPE_BF16, task, &doubts, out, kept);
	else
		count_vectors(TPD_DTYPE_F16, task, &doubts, out, kept);
}

/* --- selection --- */

static size_t between(const double *v, size_t n, double low, double high, double *out, size_t *out_above)
{
	const __m512d from = _mm512_set1_pd(low), to = _mm512_set1_pd(high);
	size_t taken = 0, above = 0;

	for (size_t i = 0; i < n; i += 8) {
		__mmask8 lanes = (__mmask8)first_lanes(n - i), larger, found;
		__m512d values = _mm512_maskz_loadu_pd(lanes, v + i);

		larger = _mm512_mask_cmp_pd_mask(lanes, values, to, _CMP_GT_OQ);
		found = _mm512_mask_cmp_pd_mask(lanes, values, from, _CMP_GT_OQ) & (__mmask8)~larger;
		_mm512_storeu_pd(out + taken, _mm512_maskz_compress_pd(found, values));
		taken += (size_t)(unsigned)_mm_popcnt_u32(found);
		above += (size_t)(unsigned)_mm_popcnt_u32(larger);
	}
	*out_above = above;
	return taken;
}

const struct tpd_survey_kernels tpd_survey_avx512 = {survey, count, between};

#else

const struct tpd_survey_kernels tpd_survey_avx512 = {0}; /* not built for this CPU */

#endif
