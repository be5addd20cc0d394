/*
 * classes_table.c - frequencies from few bytes: changes up and down are as likely, and a few per cent of error in a frequency cost next to
 * nothing. SPEC.md section 9.
 */
#include "base/tpd.h"

#include <string.h>

#include "codec/classes.h"

const int8_t tpd_class_steps[16] = {-28, -20, -14, -10, -7, -5, -4, -3, -2, -1, 0, 1, 2, 4, 8, 16};

bool tpd_class_frequencies(const struct tpd_class_levels *levels, uint16_t freq[256])
{
	uint32_t weights[256] = {0}, most = 0;
	uint64_t sum = 0;
	unsigned first = TPD_SYMBOL_MIDDLE - levels->count, last = TPD_SYMBOL_MIDDLE + levels->count, largest = 0, occur = 0;
	int32_t left = TPD_RANS_SUM;

	memset(freq, 0, 256 * sizeof(freq[0]));
	for (unsigned s = 0; s < 3; s++)
		weights[s] = tpd_class_weight(levels->special[s]);
	weights[TPD_SYMBOL_MIDDLE] = tpd_class_weight(levels->special[3]);
	for (unsigned m = 1; m <= levels->count; m++)
		weights[TPD_SYMBOL_MIDDLE - m] = weights[TPD_SYMBOL_MIDDLE + m] = tpd_class_weight(levels->magnitude[m - 1]);
	for (unsigned s = 0; s <= last; s = s == 2 ? first : s + 1) {
		sum += weights[s];
		occur += weights[s] > 0;
		if (weights[s] > most) {
			most = weights[s];
			largest = s;
		}
	}
	if (occur < 2)
		return false;
	for (unsigned s = 0; s <= last; s = s == 2 ? first : s + 1) {
		uint32_t f = (uint32_t)(((uint64_t)weights[s] << TPD_RANS_BITS) / sum);

		if (f == 0 && weights[s] > 0)
			f = 1;
		freq[s] = (uint16_t)f;
		left -= (int32_t)f;
	}
	left += freq[largest];
	if (left < 1)
		return false;
	freq[largest] = (uint16_t)left;
	return true;
}
