/*
 * classes_table.c - frequencies from few bytes: changes up and down are as likely, and a few per cent of error in a frequency cost next to
 * nothing. SPEC.md section 9.
 *
 * Most classes are described by a curve: what an update leaves behind falls off like a bell or like a tent, or as something between them.
 */
#include "base/tpd.h"

#include <string.h>

#include "codec/classes.h"

#define WEIGHT_ONE (1u << 20) /* of a curve at 0 */
#define WEIGHT_SHORT (1u << 10) /* where a short one ends */

const int8_t tpd_class_steps[16] = {-28, -20, -14, -10, -7, -5, -4, -3, -2, -1, 0, 1, 2, 4, 8, 16};
const uint8_t tpd_class_skews[TPD_CURVE_SKEWS] = {64, 48, 32, 24, 16, 8, 4, 1};

/* exp(-4 * 2^(-scale / 5)), in 1/65536 */
static const uint16_t ratios[TPD_CURVE_SCALES] = {
	1200, 2015, 3162, 4681, 6588, 8869, 11490, 14395, 17516, 20778, 24109, 27441, 30715, 33881, 36901, 39750,
	42407, 44866, 47121, 49177, 51039, 52718, 54225, 55571, 56770, 57835, 58779, 59613, 60348, 60996, 61565, 62065,
	62504, 62889, 63225, 63520, 63777, 64002, 64199, 64370, 64520, 64651, 64765, 64864, 64950, 65026, 65092, 65149,
	65199, 65243, 65280, 65314, 65342, 65367, 65389, 65408, 65425, 65439, 65452, 65463, 65472, 65480, 65488, 65494,
};

/* Weights of symbols into frequencies: SPEC.md section 9. */
static bool normalise(const uint64_t weights[256], uint16_t freq[256])
{
	uint64_t sum = 0, most = 0;
	unsigned largest = 0, occur = 0;
	int32_t left = TPD_RANS_SUM;

	for (unsigned s = 0; s < 256; s++) {
		sum += weights[s];
		occur += weights[s] > 0;
		if (weights[s] > most) {
			most = weights[s];
			largest = s;
		}
	}
	memset(freq, 0, 256 * sizeof(freq[0]));
	if (occur < 2)
		return false;
	for (unsigned s = 0; s < 256; s++) {
		uint32_t f;

		if (weights[s] == 0)
			continue;
		f = (uint32_t)((weights[s] << TPD_RANS_BITS) / sum);
		f = TPD_MAX(f, 1u);
		freq[s] = (uint16_t)f;
		left -= (int32_t)f;
	}
	left += freq[largest];
	if (left < 1)
		return false;
	freq[largest] = (uint16_t)left;
	return true;
}

bool tpd_class_frequencies(const struct tpd_class_levels *levels, uint16_t freq[256])
{
	uint64_t weights[256] = {0};

	for (unsigned s = 0; s < 3; s++)
		weights[s] = tpd_class_weight(levels->special[s]);
	weights[TPD_SYMBOL_MIDDLE] = tpd_class_weight(levels->special[3]);
	for (unsigned m = 1; m <= levels->count; m++)
		weights[TPD_SYMBOL_MIDDLE - m] = weights[TPD_SYMBOL_MIDDLE + m] = tpd_class_weight(levels->magnitude[m - 1]);
	return normalise(weights, freq);
}

void tpd_class_curve_weights(unsigned scale, unsigned shape, unsigned count, uint32_t weights[TPD_CURVE_DISTANCES])
{
	static const int8_t bends[TPD_CURVE_SHAPES - 1] = {-5, 5, 15};
	uint32_t ratio = ratios[scale], bend = 65536;

	if (shape < TPD_CURVE_SHAPES - 1)
		bend = ratios[TPD_MIN((unsigned)TPD_MAX((int)scale + bends[shape], 0), TPD_CURVE_SCALES - 1)];
	weights[0] = WEIGHT_ONE;
	for (unsigned m = 1; m <= count; m++) {
		weights[m] = (uint32_t)((uint64_t)weights[m - 1] * ratio >> 16);
		ratio = (uint32_t)((uint64_t)ratio * bend >> 16);
		weights[m] = TPD_MAX(weights[m], 1u);
	}
}

void tpd_class_curve_short(struct tpd_class_curve *curve)
{
	const unsigned away = (unsigned)(curve->centre < 0 ? -curve->centre : curve->centre);
	uint32_t weights[TPD_CURVE_DISTANCES];
	unsigned m = 1;

	tpd_class_curve_weights(curve->scale, curve->shape, TPD_TABLE_MAGNITUDES_MAX, weights);
	while (m < TPD_TABLE_MAGNITUDES_MAX && weights[m] >= WEIGHT_SHORT)
		m++;
	curve->count = (uint8_t)TPD_MIN(away + m, TPD_TABLE_MAGNITUDES_MAX);
	curve->skew = 0;
	curve->is_down = curve->has_escape = curve->has_zero = false;
	curve->has_middle = true;
}

bool tpd_class_curve_frequencies(const struct tpd_class_curve *curve, uint16_t freq[256])
{
	const int count = curve->count, centre = curve->centre;
	uint32_t away[TPD_CURVE_DISTANCES];
	uint64_t weights[256] = {0}, sum = 0;

	tpd_class_curve_weights(curve->scale, curve->shape, (unsigned)(count + (centre < 0 ? -centre : centre)), away);
	for (int d = -count; d <= count; d++) {
		uint32_t weight = away[d < centre ? centre - d : d - centre];

		if (d != centre && (d > centre) == curve->is_down) {
			weight = (uint32_t)((uint64_t)weight * tpd_class_skews[curve->skew] >> 6);
			weight = TPD_MAX(weight, 1u);
		}
		if (d != 0 || curve->has_middle)
			sum += weights[(int)TPD_SYMBOL_MIDDLE + d] = weight;
	}
	sum = sum > 0 ? sum : WEIGHT_ONE;
	weights[TPD_SYMBOL_ESCAPE] = curve->has_escape;
	weights[TPD_SYMBOL_ZERO] = curve->has_zero;
	weights[TPD_SYMBOL_EQUAL] = sum * tpd_class_weight(curve->equal) >> 8;
	return normalise(weights, freq);
}
