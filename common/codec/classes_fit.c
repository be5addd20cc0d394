/*
 * classes_fit.c - the table of a class: the cheapest of the forms that SPEC.md section 9 has for it.
 */
#include "base/tpd.h"

#include <string.h>

#include "codec/classes_fit.h"

#define CURVE_LEN 4u    /* bytes of its table, without a centre */
#define SHORT_LEN 2u
#define MEAN_ONE 4096u /* of a mean magnitude */

static void find_range(struct tpd_class *class)
{
	class->first = 0;
	class->last = 255;
	while (class->counts[class->first] == 0)
		class->first++;
	while (class->counts[class->last] == 0)
		class->last--;
}

/* The level whose weight is closest to count on a scale where `most` is the largest weight; at least 1. */
static unsigned level_of(uint64_t count, uint64_t most)
{
	uint64_t value = count * tpd_class_weight(TPD_WEIGHT_LEVELS) / most;
	unsigned octave = 0, level;

	if (value < 16)
		return 1;
	while (value >> octave >= 32)
		octave++;
	level = 4 * octave + 1;
	while (level < TPD_WEIGHT_LEVELS && (uint64_t)tpd_class_weight(level) + tpd_class_weight(level + 1) <= 2 * value)
		level++;
	return TPD_MIN(level, TPD_WEIGHT_LEVELS);
}

/* From one level to the closest that a step can say; the step's number. */
static unsigned step_to(unsigned from, unsigned to, unsigned *out_level)
{
	unsigned best = 0, distance = UINT32_MAX;

	for (unsigned i = 0; i < 16; i++) {
		int level = (int)from + tpd_class_steps[i], off = level - (int)to;

		if (level < 1 || level > (int)TPD_WEIGHT_LEVELS)
			continue;
		off = off < 0 ? -off : off;
		if ((unsigned)off < distance) {
			distance = (unsigned)off;
			best = i;
			*out_level = (unsigned)level;
		}
	}
	return best;
}

/* Bytes of a mirrored table. */
static unsigned mirrored_len(unsigned magnitudes)
{
	return 1 + 4 + (magnitudes > 0 ? 1 + magnitudes / 2 : 0);
}

/* The largest magnitude that occurs. */
static unsigned magnitudes_of(const uint32_t counts[256])
{
	unsigned m = TPD_TABLE_MAGNITUDES_MAX;

	while (m > 0 && counts[TPD_SYMBOL_MIDDLE - m] == 0 && counts[TPD_SYMBOL_MIDDLE + m] == 0)
		m--;
	return m;
}

static void make_levels(const struct tpd_class *class, struct tpd_class_levels *levels)
{
	static const uint8_t special[4] = {TPD_SYMBOL_ESCAPE, TPD_SYMBOL_EQUAL, TPD_SYMBOL_ZERO, TPD_SYMBOL_MIDDLE};
	const uint32_t *counts = class->counts;
	uint64_t most = 0; /* twice */
	unsigned count = magnitudes_of(counts), level = 0;

	for (unsigned m = 1; m <= count; m++)
		most = TPD_MAX(most, (uint64_t)counts[TPD_SYMBOL_MIDDLE - m] + counts[TPD_SYMBOL_MIDDLE + m]);
	for (unsigned i = 0; i < 4; i++)
		most = TPD_MAX(most, 2 * (uint64_t)counts[special[i]]);
	levels->count = (uint8_t)count;
	for (unsigned i = 0; i < 4; i++)
		levels->special[i] = counts[special[i]] ? (uint8_t)level_of(2 * (uint64_t)counts[special[i]], most) : 0;
	for (unsigned m = 1; m <= count; m++) {
		unsigned want = level_of((uint64_t)counts[TPD_SYMBOL_MIDDLE - m] + counts[TPD_SYMBOL_MIDDLE + m], most);

		if (m == 1)
			level = want;
		else
			step_to(level, want, &level);
		levels->magnitude[m - 1] = (uint8_t)level;
	}
}

/* Bits of the symbols under these frequencies. */
static uint64_t symbol_bits(const struct tpd_codec *codec, const struct tpd_class *class, const uint16_t freq[256])
{
	uint64_t bits = 0;

	for (unsigned s = class->first; s <= class->last; s++)
		bits += (uint64_t)class->counts[s] * codec->cost[freq[s] & (TPD_RANS_SUM - 1)];
	return bits >> TPD_RANS_BITS;
}

/* --- curves --- */

void tpd_class_curve_means(uint32_t means[TPD_CURVE_SHAPES][TPD_CURVE_SCALES][2])
{
	for (unsigned shape = 0; shape < TPD_CURVE_SHAPES; shape++)
		for (unsigned scale = 0; scale < TPD_CURVE_SCALES; scale++) {
			uint32_t weights[TPD_CURVE_DISTANCES];
			uint64_t all = 0, moment = 0;

			tpd_class_curve_weights(scale, shape, TPD_TABLE_MAGNITUDES_MAX, weights);
			for (unsigned m = 1; m <= TPD_TABLE_MAGNITUDES_MAX; m++) {
				all += weights[m];
				moment += (uint64_t)m * weights[m];
			}
			means[shape][scale][0] = (uint32_t)(moment * MEAN_ONE / all);
			means[shape][scale][1] = (uint32_t)(moment * MEAN_ONE / (all + weights[0] / 2));
		}
}

/* The first scale at which curves of this shape have a mean magnitude of at least sum / n; halves are counted for d = 0. */
static unsigned scale_of(const struct tpd_codec *codec, unsigned shape, bool has_middle, uint64_t sum, uint64_t n)
{
	unsigned low = 0, high = TPD_CURVE_SCALES - 1;

	while (low < high) {
		unsigned scale = (low + high) / 2;

		if (codec->curve_means[shape][scale][has_middle] * n < sum * MEAN_ONE)
			low = scale + 1;
		else
			high = scale;
	}
	return low;
}

static unsigned skew_of(uint64_t often, uint64_t rarely)
{
	unsigned skew = 0;

	while (skew + 1 < TPD_CURVE_SKEWS && 128 * rarely < often * (tpd_class_skews[skew] + (uint64_t)tpd_class_skews[skew + 1]))
		skew++;
	return skew;
}

static uint64_t curve_bits(const struct tpd_codec *codec, const struct tpd_class *class, const struct tpd_class_curve *curve,
			   uint16_t freq[256])
{
	return tpd_class_curve_frequencies(curve, freq) ? symbol_bits(codec, class, freq) : UINT64_MAX;
}

static unsigned distance(int d, int centre)
{
	return (unsigned)(d < centre ? centre - d : d - centre);
}

/* Around curve->centre: what there is on each side, and the best scale and shape. *best: bits of the best curve so far, with its table. */
static void try_centre(const struct tpd_codec *codec, struct tpd_class *class, struct tpd_class_curve *curve, uint64_t *best,
		       uint16_t best_freq[256])
{
	const uint32_t *counts = class->counts + TPD_SYMBOL_MIDDLE;
	const int most = curve->count, centre = curve->centre;
	uint64_t sum = 0, up = 0, down = 0, n;

	for (int d = -most; d <= most; d++) {
		up += d > centre ? counts[d] : 0;
		down += d < centre ? counts[d] : 0;
		sum += (uint64_t)distance(d, centre) * counts[d];
	}
	n = up + down;
	if (n == 0)
		return;
	curve->skew = (uint8_t)skew_of(TPD_MAX(up, down), TPD_MIN(up, down));
	curve->is_down = curve->skew > 0 && down > up;
	for (unsigned shape = 0; shape < TPD_CURVE_SHAPES; shape++) {
		unsigned middle = scale_of(codec, shape, centre != 0 || curve->has_middle, sum, n + counts[centre] / 2);

		for (unsigned scale = middle > 0 ? middle - 1 : 0; scale <= middle + 1 && scale < TPD_CURVE_SCALES; scale++) {
			uint16_t freq[256];
			uint64_t bits;

			curve->shape = (uint8_t)shape;
			curve->scale = (uint8_t)scale;
			bits = curve_bits(codec, class, curve, freq);
			if (bits == UINT64_MAX)
				continue;
			bits += 8 * (centre == 0 ? CURVE_LEN : CURVE_LEN + 1);
			if (bits >= *best)
				continue;
			*best = bits;
			class->curve = *curve;
			memcpy(best_freq, freq, 256 * sizeof(freq[0]));
		}
	}
}

/* The rounded mean of d where it is not the escape, and so on. */
static int mean_of(const struct tpd_class *class, int most)
{
	const uint32_t *counts = class->counts + TPD_SYMBOL_MIDDLE;
	int64_t sum = 0, n = 0;

	for (int d = -most; d <= most; d++) {
		sum += (int64_t)d * counts[d];
		n += counts[d];
	}
	return (int)(n == 0 ? 0 : sum >= 0 ? (sum + n / 2) / n : -((n / 2 - sum) / n));
}

/* The d that is most frequent together with its neighbours; the lowest of several. */
static int mode_of(const struct tpd_class *class, int most)
{
	const uint32_t *counts = class->counts + TPD_SYMBOL_MIDDLE;
	uint64_t highest = 0;
	int mode = 0;

	for (int d = -most; d <= most; d++) {
		uint64_t height = 2 * (uint64_t)counts[d] + (d > -most ? counts[d - 1] : 0) + (d < most ? counts[d + 1] : 0);

		if (height > highest) {
			highest = height;
			mode = d;
		}
	}
	return mode;
}

/* The best curve, its frequencies, and what symbols and table cost then; UINT64_MAX: there is none. */
static uint64_t make_curve(const struct tpd_codec *codec, struct tpd_class *class, uint16_t best_freq[256])
{
	const uint32_t *counts = class->counts;
	uint64_t best = UINT64_MAX, rest = class->n - counts[TPD_SYMBOL_EQUAL];
	struct tpd_class_curve curve = {.count = (uint8_t)magnitudes_of(counts), .has_middle = counts[TPD_SYMBOL_MIDDLE] > 0,
					.has_escape = counts[TPD_SYMBOL_ESCAPE] > 0, .has_zero = counts[TPD_SYMBOL_ZERO] > 0};
	const int mean = mean_of(class, curve.count), mode = mode_of(class, curve.count), centres[] = {mean, mode, (mean + mode) / 2};

	if (curve.count == 0)
		return UINT64_MAX;
	if (counts[TPD_SYMBOL_EQUAL] > 0) { /* weight 256 is as often as all others */
		uint64_t value = (uint64_t)counts[TPD_SYMBOL_EQUAL] * 256 / rest;

		curve.equal = (uint8_t)level_of(value, tpd_class_weight(TPD_WEIGHT_LEVELS));
	}
	try_centre(codec, class, &curve, &best, best_freq);
	for (size_t i = 0; i < TPD_ARRAY_LEN(centres) && curve.count > 1; i++) {
		bool tried = centres[i] == 0;

		for (size_t j = 0; j < i; j++)
			tried |= centres[j] == centres[i];
		curve.centre = (int8_t)centres[i];
		if (!tried)
			try_centre(codec, class, &curve, &best, best_freq);
	}
	return best;
}

/* What a short table can say instead of the best curve, where that is less; *cost is of that curve. Returns whether it is. */
static bool make_short(const struct tpd_codec *codec, struct tpd_class *class, uint64_t *cost, uint16_t best_freq[256])
{
	const struct tpd_class_curve from = class->curve;
	const unsigned table = 8 * (from.centre == 0 ? SHORT_LEN : SHORT_LEN + 1);
	bool found = false;

	if (from.has_escape || from.has_zero)
		return false;
	for (unsigned scale = from.scale > 0 ? from.scale - 1u : 0; scale <= from.scale + 1u && scale < TPD_SHORT_SCALES; scale++)
		for (unsigned up = 0; up <= (from.equal % 2 && from.equal < TPD_WEIGHT_LEVELS); up++) {
			struct tpd_class_curve curve = from;
			uint16_t freq[256];
			uint64_t bits;

			curve.scale = (uint8_t)scale;
			curve.equal = (uint8_t)(from.equal == 0 ? 0 : TPD_MAX((from.equal + up) / 2 * 2, 4u));
			tpd_class_curve_short(&curve);
			if (curve.count < from.count)
				continue;
			bits = curve_bits(codec, class, &curve, freq);
			if (bits == UINT64_MAX || bits + table >= *cost)
				continue;
			*cost = bits + table;
			class->curve = curve;
			memcpy(best_freq, freq, 256 * sizeof(freq[0]));
			found = true;
		}
	return found;
}

void tpd_class_fit(const struct tpd_codec *codec, struct tpd_class *class)
{
	uint64_t mirrored = UINT64_MAX, plain, curve;
	unsigned table = 3 /* bytes */, curve_form = TPD_TABLE_CURVE;
	uint16_t plain_freq[256], mirrored_freq[256], curve_freq[256];

	find_range(class);
	memset(class->freq, 0, sizeof(class->freq));
	if (class->first == class->last) {
		class->form = TPD_TABLE_SINGLE;
		class->freq[class->first] = TPD_RANS_SUM;
		class->cost = 8 * 2;
		return;
	}
	tpd_rans_quantise(class->counts, class->n, class->first, class->last, plain_freq);
	for (unsigned s = class->first; s <= class->last; s++)
		table += plain_freq[s] == 0 ? plain_freq[s - 1] != 0 ? 2 : 0 : plain_freq[s] < 128 ? 1 : 2;
	plain = symbol_bits(codec, class, plain_freq) + 8 * table;
	make_levels(class, &class->levels);
	if (tpd_class_frequencies(&class->levels, mirrored_freq))
		mirrored = symbol_bits(codec, class, mirrored_freq) + 8 * mirrored_len(class->levels.count);
	curve = make_curve(codec, class, curve_freq);
	if (curve != UINT64_MAX && make_short(codec, class, &curve, curve_freq))
		curve_form = TPD_TABLE_SHORT;
	class->cost = TPD_MIN(TPD_MIN(curve, mirrored), plain);
	if (class->cost == curve) {
		class->form = curve_form + class->curve.scale;
		memcpy(class->freq, curve_freq, sizeof(curve_freq));
	} else if (class->cost == mirrored) {
		class->form = class->levels.count;
		memcpy(class->freq, mirrored_freq, sizeof(mirrored_freq));
	} else {
		class->form = TPD_TABLE_FREQUENCIES;
		memcpy(class->freq, plain_freq, sizeof(plain_freq));
	}
}

static uint8_t *put_levels(uint8_t *out, const struct tpd_class_levels *levels)
{
	unsigned level = 0;

	memcpy(out, levels->special, sizeof(levels->special));
	out += sizeof(levels->special);
	for (unsigned m = 0; m < levels->count; m++) {
		unsigned step;

		if (m == 0) {
			level = *out++ = levels->magnitude[0];
			continue;
		}
		step = step_to(level, levels->magnitude[m], &level);
		if (m % 2 == 1)
			*out++ = (uint8_t)step;
		else
			out[-1] |= (uint8_t)(step << 4);
	}
	return out;
}

uint8_t *tpd_class_put_table(uint8_t *out, const struct tpd_class *class)
{
	const struct tpd_class_curve *curve = &class->curve;

	*out++ = (uint8_t)class->form;
	if (class->form == TPD_TABLE_SINGLE) {
		*out++ = (uint8_t)class->first;
		return out;
	}
	if (class->form == TPD_TABLE_FREQUENCIES) {
		*out++ = (uint8_t)class->first;
		*out++ = (uint8_t)class->last;
		return tpd_rans_put_frequencies(out, class->freq, class->first, class->last);
	}
	if (class->form < TPD_TABLE_CURVE)
		return put_levels(out, &class->levels);
	if (class->form >= TPD_TABLE_SHORT) {
		*out++ = (uint8_t)(curve->shape | (curve->equal ? curve->equal / 2 - 1 : 0) << 2 | (curve->centre != 0) << 7);
		if (curve->centre != 0)
			*out++ = (uint8_t)curve->centre;
		return out;
	}
	*out++ = (uint8_t)(curve->shape | curve->skew << 2 | curve->has_middle << 5 | curve->has_escape << 6 | curve->has_zero << 7);
	*out++ = (uint8_t)(curve->equal | curve->is_down << 7);
	*out++ = (uint8_t)(curve->count | (curve->centre != 0) << 7);
	if (curve->centre != 0)
		*out++ = (uint8_t)curve->centre;
	return out;
}
