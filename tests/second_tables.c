/*
 * second_tables.c - the second decoder's tables of classes: section 9 of common/codec/SPEC.md, and coder 4 of section 3, as second_decoder.c
 * has the others.
 */
#include "second_symbols.h"

#include <stdlib.h>

/* Section 9: from weights to frequencies. */
static void weighted(int *status, const uint64_t weight[256], struct table *t)
{
	uint64_t sum = 0, most = 0;
	unsigned occur = 0, largest = 0;
	int left = 4096;

	for (unsigned s = 0; s < 256; s++) {
		sum += weight[s];
		occur += weight[s] > 0;
		if (weight[s] > most) {
			most = weight[s];
			largest = s;
		}
	}
	need(status, occur >= 2);
	for (unsigned s = 0; s < 256 && !*status; s++) {
		t->f[s] = (uint32_t)(weight[s] * 4096 / sum);
		if (t->f[s] == 0 && weight[s] > 0)
			t->f[s] = 1;
		left -= (int)t->f[s];
	}
	left += (int)t->f[largest];
	need(status, left >= 1);
	if (*status)
		return;
	t->f[largest] = (uint32_t)left;
	for (unsigned s = 0, at = 0; s < 256; s++) {
		t->cum[s] = at;
		memset(t->byte_at + at, (int)s, t->f[s]);
		at += t->f[s];
	}
}

static uint64_t level_weight(uint64_t v)
{
	static const unsigned quarter[4] = {16, 19, 23, 27};

	return v == 0 ? 0 : (uint64_t)quarter[(v - 1) % 4] << ((v - 1) / 4);
}

/* A mirrored table of that many magnitudes. */
static void mirrored(struct reader *in, unsigned magnitudes, struct table *t)
{
	static const int steps[16] = {-28, -20, -14, -10, -7, -5, -4, -3, -2, -1, 0, 1, 2, 4, 8, 16};
	static const unsigned special[4] = {0, 1, 2, 129};
	uint64_t weight[256] = {0}, pair = 0;
	int level = 0;

	for (unsigned i = 0; i < 4; i++) {
		uint64_t v = integer(in, 1);

		need(in->status, v <= 64);
		if (!*in->status)
			weight[special[i]] = level_weight(v);
	}
	for (unsigned m = 1; m <= magnitudes && !*in->status; m++) {
		if (m == 1) {
			level = (int)integer(in, 1);
		} else {
			if (m % 2 == 0)
				pair = integer(in, 1);
			level += steps[m % 2 == 0 ? pair % 16 : pair / 16];
		}
		need(in->status, level >= 1 && level <= 64);
		if (!*in->status)
			weight[129 - m] = weight[129 + m] = level_weight((uint64_t)level);
	}
	need(in->status, magnitudes == 0 || magnitudes % 2 == 1 || pair / 16 == 0);
	weighted(in->status, weight, t);
}

static void curve(struct reader *in, int scale, struct table *t)
{
	static const uint16_t r[64] = {
		1200, 2015, 3162, 4681, 6588, 8869, 11490, 14395, 17516, 20778, 24109, 27441, 30715, 33881, 36901, 39750,
		42407, 44866, 47121, 49177, 51039, 52718, 54225, 55571, 56770, 57835, 58779, 59613, 60348, 60996, 61565, 62065,
		62504, 62889, 63225, 63520, 63777, 64002, 64199, 64370, 64520, 64651, 64765, 64864, 64950, 65026, 65092, 65149,
		65199, 65243, 65280, 65314, 65342, 65367, 65389, 65408, 65425, 65439, 65452, 65463, 65472, 65480, 65488, 65494,
	};
	static const int offset[3] = {-5, 5, 15};
	static const unsigned other[8] = {64, 48, 32, 24, 16, 8, 4, 1};
	uint64_t bits = integer(in, 1), equal, magnitudes, weight[256] = {0}, sum, g = 1 << 20;
	uint64_t q, b = 65536, rarer;
	bool is_short = scale >= 64;
	int centre = 0;

	if (is_short) {
		scale -= 64;
		equal = bits >> 2 & 31;
		equal = equal ? 2 * (equal + 1) : 0;
		magnitudes = bits & 128;
		bits = (bits & 3) | 32;
	} else {
		equal = integer(in, 1);
		magnitudes = integer(in, 1);
	}
	q = r[scale];
	if (magnitudes >= 128) {
		centre = (int)(int8_t)(uint8_t)integer(in, 1);
		need(in->status, centre != 0 && centre >= -126 && centre <= 126);
		magnitudes -= 128;
	}
	need(in->status, equal % 128 <= 64 && magnitudes <= 126);
	if (*in->status)
		return;
	if (bits % 4 < 3) {
		int at = scale + offset[bits % 4];

		b = r[at < 0 ? 0 : at > 63 ? 63 : at];
	}
	if (is_short) {
		uint64_t ratio = q, height = g;

		do {
			magnitudes++;
			height = height * ratio >> 16;
			ratio = ratio * b >> 16;
		} while (height >= 1024 && magnitudes < 126);
		magnitudes += (uint64_t)abs(centre);
		magnitudes = magnitudes > 126 ? 126 : magnitudes;
	}
	sum = 0;
	for (int j = 0; j <= 252; j++) {
		rarer = g * other[bits >> 2 & 7] >> 6;
		rarer = rarer < 1 ? 1 : rarer;
		for (int up = 0; up < 2; up++) {
			int d = up ? centre + j : centre - j;

			if (d < -(int)magnitudes || d > (int)magnitudes || (j == 0 && up) || (d == 0 && !(bits >> 5 & 1)))
				continue;
			weight[129 + d] = j == 0 || (up == 1) == (equal < 128) ? g : rarer;
			sum += weight[129 + d];
		}
		g = g * q >> 16;
		g = g < 1 ? 1 : g;
		q = q * b >> 16;
	}
	weight[0] = bits >> 6 & 1;
	weight[2] = bits >> 7;
	weight[1] = (sum > 0 ? sum : 1 << 20) * level_weight(equal % 128) >> 8;
	weighted(in->status, weight, t);
}

/* A table of any form. */
void second_class_table(struct reader *in, struct table *t)
{
	unsigned form = (unsigned)integer(in, 1), first, last;

	memset(t, 0, sizeof *t);
	if (form == 255) {
		first = (unsigned)integer(in, 1);
		t->f[first] = 4096;
		memset(t->byte_at, (int)first, 4096);
	} else if (form == 254) {
		first = (unsigned)integer(in, 1);
		last = (unsigned)integer(in, 1);
		need(in->status, first < last);
		if (!*in->status)
			frequencies(in, first, last, t);
	} else if (form <= 126) {
		mirrored(in, form, t);
	} else {
		need(in->status, form >= 128);
		if (!*in->status)
			curve(in, (int)form - 128, t);
	}
}

void second_curve_coder(struct reader *in, uint8_t *out, size_t n)
{
	unsigned k = (unsigned)integer(in, 1), middle = (unsigned)integer(in, 1);
	struct table told, table;
	struct coder c = {.lanes = 1};
	uint64_t w;

	need(in->status, k <= 6 && middle >= 3);
	if (!*in->status)
		second_class_table(in, &told);
	if (*in->status)
		return;
	memset(&table, 0, sizeof table);
	for (unsigned s = 0; s < 256; s++) {
		int byte = s < 3 ? (int)s : (int)s - 129 + (int)middle;

		if (told.f[s] == 0)
			continue;
		need(in->status, told.f[s] < 4096 && byte <= 255 && (s < 3 || byte >= 3));
		if (*in->status)
			return;
		table.f[byte] = told.f[s];
	}
	for (unsigned s = 0, at = 0; s < 256; s++) {
		table.cum[s] = at;
		memset(table.byte_at + at, (int)s, table.f[s]);
		at += table.f[s];
	}
	w = varint(in);
	coder_states(in, k, &c);
	need(in->status, w <= UINT32_MAX);
	if (*in->status)
		return;
	c.words = take(in, 2 * w);
	for (size_t i = 0; i < n && !*in->status; i++)
		out[i] = code_back(&c, i, &table);
	coder_close(&c);
}
