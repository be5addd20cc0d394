/*
 * second_context.c - section 18 of the chunk format for the second decoder, written from the text: slow, and in 64 bits throughout.
 */
#include "second_context.h"

#include <stdlib.h>

/* Kinds of bits. */
enum { CHANGED, MOVES, SIGN, LENGTH, FIRST = LENGTH + 7, SECOND = FIRST + 7, OTHER = SECOND + 16, KINDS };
enum { A, B, C, D, E, H, CONTEXTS };
#define VALUES 4096 /* of a context, at most */

struct slot {
	int64_t p, n;
};

struct mean {
	int64_t m, n;
};

struct model {
	struct slot slots[CONTEXTS][VALUES][KINDS];
	struct mean means[48 * 48];
	int64_t weights[2][48][KINDS][8];
	/* the coder */
	struct reader bytes;
	uint64_t low, high, value, beyond;
	/* the element */
	size_t context[CONTEXTS];
	int64_t e, reach, noise, slope;
};

static int64_t clamp(int64_t low, int64_t v, int64_t high)
{
	return v < low ? low : v > high ? high : v;
}

/* v / 2^by, rounded down. */
static int64_t down(int64_t v, unsigned by)
{
	const int64_t unit = INT64_C(1) << by;

	return v >= 0 ? v / unit : -((-v + unit - 1) / unit);
}

static int64_t logarithm(int64_t v)
{
	int64_t w = 0, f;

	while (v >> (w + 1))
		w++;
	f = v * (1 << (16 - w)) - 65536;
	return 65536 * w + f + (((f * (65536 - f)) >> 16) * 22544 >> 16);
}

static int64_t stretch(int64_t p)
{
	return down(logarithm(p) - logarithm(65536 - p), 8);
}

static int64_t squash(int64_t x)
{
	int64_t y, u, q, m;

	x = clamp(-4095, x, 4095);
	y = x < 0 ? -x : x;
	u = 256 - y % 256;
	q = (65536 + 256 * u - (u * (256 - u) * 22544 >> 16)) >> (y / 256 + 1);
	m = 65536 * q / (65536 + q);
	m = m < 8 ? 8 : m;
	return x < 0 ? m : 65536 - m;
}

/* --- the coder --- */

static uint64_t another_byte(struct model *model)
{
	if (model->bytes.left == 0) {
		model->beyond++;
		return 0;
	}
	return integer(&model->bytes, 1);
}

static int64_t plain_bit(struct model *model, int64_t chance)
{
	const uint64_t middle = model->low + ((model->high - model->low) * (uint64_t)chance >> 16);
	const int64_t b = model->value <= middle;

	if (b)
		model->high = middle;
	else
		model->low = middle + 1;
	while (model->low >> 24 == model->high >> 24) {
		model->low = (model->low & 0xffffff) << 8;
		model->high = (model->high & 0xffffff) << 8 | 255;
		model->value = (model->value & 0xffffff) << 8 | another_byte(model);
	}
	return b;
}

static int64_t rate(int64_t n)
{
	return 131072 / (2 * n + 3);
}

/* A bit with contexts; i6: of CHANGED, else what x is is told by its chance. */
static int64_t mixed_bit(struct model *model, int kind, int64_t expected, int64_t i6)
{
	int64_t inputs[8], x[2], b;
	struct slot *slots[CONTEXTS];

	for (int k = 0; k < CONTEXTS; k++) {
		slots[k] = &model->slots[k][model->context[k]][kind];
		if (slots[k]->n == 0)
			*slots[k] = (struct slot){.p = 64 * expected, .n = 2};
		inputs[k] = stretch(slots[k]->p / 64);
	}
	inputs[6] = i6;
	inputs[7] = 256;
	for (int set = 0; set < 2; set++) {
		const int64_t *w = model->weights[set][set == 0 ? model->e : model->reach][kind];
		int64_t sum = 0;

		for (int k = 0; k < 8; k++)
			sum += down(w[k] * inputs[k], 8);
		x[set] = clamp(-4095, down(sum, 8), 4095);
	}
	b = plain_bit(model, squash(down(x[0] + x[1], 1)));
	for (int set = 0; set < 2; set++) {
		int64_t *w = model->weights[set][set == 0 ? model->e : model->reach][kind];

		for (int k = 0; k < 8; k++)
			w[k] = clamp(-(1 << 18), w[k] + down(inputs[k] * (65536 * b - squash(x[set])) + (1 << 14), 15), 1 << 18);
	}
	for (int k = 0; k < CONTEXTS; k++) {
		slots[k]->p = clamp(512, slots[k]->p + down((b * (1 << 22) - slots[k]->p) * rate(slots[k]->n), 16), 4193792);
		slots[k]->n = clamp(0, slots[k]->n + 1, 255);
	}
	return b;
}

/* --- what is expected --- */

static int64_t at_least(const struct model *model, int64_t j)
{
	int64_t x = model->slope * (2 * j - 1) / 2;

	return j == 0 ? 65536 : 2 * squash(x > 4095 ? -4095 : -x);
}

/* h < 0: there is none. */
static int64_t share_above(const struct model *model, int64_t j, int64_t l, int64_t h)
{
	int64_t above = h < 0 ? 0 : at_least(model, h), all = at_least(model, l) - above;

	return all < 64 ? 32768 : clamp(64, 65536 * (at_least(model, j) - above) / all, 65472);
}

static int64_t bit_of(struct model *model, int kind, int64_t expected)
{
	return mixed_bit(model, kind, expected, stretch(expected));
}

/* A symbol that is not 1; L + 2 and so on in *beside. */
static unsigned changed_symbol(struct reader *in, struct model *model, uint8_t *beside)
{
	struct mean *mean = &model->means[model->context[A]];
	int64_t length = 0, size = 0, negative = 0;

	if (mean->n == 0)
		*mean = (struct mean){.n = 6, .m = 358 + (((4 + model->noise % 4) << (model->noise / 4)) * 35 >> 8)};
	model->slope = 135168 / mean->m;
	*beside = 1;
	if (bit_of(model, MOVES, share_above(model, 1, 0, -1))) {
		while (length < 7 && bit_of(model, LENGTH + (int)length, share_above(model, INT64_C(2) << length, INT64_C(1) << length, -1)))
			length++;
		*beside = (uint8_t)(length + 2 > 7 ? 7 : length + 2);
		if (length == 7)
			return bit_of(model, OTHER, 32768) ? 2 : 0;
		negative = bit_of(model, SIGN, 32768);
		size = INT64_C(1) << length;
		for (int64_t i = length - 1, first = 0; i >= 0; i--) {
			int64_t expected = share_above(model, size + (INT64_C(1) << i), size, size + (INT64_C(2) << i)), b;

			if (i == length - 1)
				b = first = bit_of(model, FIRST + (int)length, expected);
			else if (i == length - 2)
				b = bit_of(model, SECOND + 2 * (int)length + (int)first, expected);
			else
				b = plain_bit(model, expected);
			size += b << i;
		}
	}
	mean->m = mean->m + down((256 * size - mean->m) * rate(mean->n), 16);
	mean->m = mean->m < 77 ? 77 : mean->m;
	mean->n = clamp(0, mean->n + 1, 255);
	need(in->status, size < 127);
	return (unsigned)(129 + (negative ? -size : size)) & 255;
}

/* --- contexts --- */

/* Bits of its absolute value. */
static int64_t pattern_of(float z)
{
	uint32_t pattern;

	memcpy(&pattern, &z, sizeof pattern);
	return pattern & 0x7fffffff;
}

static int64_t half(float z)
{
	return pattern_of(z) >> 22;
}

static int64_t floor_most(float v, int64_t most)
{
	return v >= 0 && v < (float)most ? (int64_t)v : most;
}

/* e and reach, and what contexts are made from besides. */
static void look(struct model *model, const struct layout *l, const struct second_known *known, size_t i, unsigned base, float decay, float noise,
		 const uint8_t *beside)
{
	const int64_t f = (int64_t)(load(known->p + 2 * i, 2) >> l->mantissa & (l->mantissa == 7 ? 255 : 31)), below = l->mantissa == 7 ? -7 : 102;
	const int64_t u = (f < 1 ? 1 : f) + below, t = (int64_t)known->t + below, g = u > t ? u : t;
	const float a = fabsf(known->s[i]), r1 = known->r1 ? known->r1[i] : 0, r2 = known->r2 ? known->r2[i] : 0;
	float share = 0, k, z = a, square = a * a, room;
	int64_t n, q;

	if (known->v1 && known->v2 && known->v2[i] > 0) {
		float part = decay * known->v1[i];

		share = (known->v2[i] - part) / known->v2[i];
		share = share > 0 ? share : 0;
	}
	k = noise * noise;
	k = k * share;
	if (known->v1 && known->v2 && known->v2[i] > 0) {
		z = square + k;
		z = sqrtf(z);
	}
	model->e = clamp(0, f - (int64_t)base, 15);
	model->reach = clamp(0, (pattern_of(z) >> 21) - 4 * u + 20, 47);
	n = half(k) + 254;
	model->noise = clamp(0, n - 4 * g + 28, 47);
	q = floor_most(sqrtf(share) * 16, 15);
	room = ldexpf(a, (int)(130 - (g < 4 ? 4 : g)));
	square = square * 0.5f;
	square = square + k;
	model->context[A] = (size_t)(clamp(0, (pattern_of(a) >> 21) - 4 * u + 20, 47) * 48 + clamp(0, n - 4 * u + 20, 47));
	model->context[B] = (size_t)(model->e * 48 + model->reach);
	model->context[C] = (size_t)(q * 256 + clamp(0, half(r2) - 244, 15) * 16 + clamp(0, half(r1) - 244, 15) / 2 * 2 + ((r1 < 0) == (r2 < 0)));
	model->context[D] = (size_t)(clamp(0, half(square) + 254 - 4 * t + 28, 47) * 8 + clamp(0, model->e - 2, 7));
	model->context[E] = (size_t)(floor_most(room, 63) * 16 + q);
	model->context[H] = (size_t)(i % known->row > 0 ? beside[i - 1] : 0) * 128 + (size_t)(i >= known->row ? beside[i - known->row] : 0) * 16 +
			    (size_t)model->e;
}

static void open_model(struct model *model, struct reader bytes)
{
	for (int set = 0; set < 2; set++)
		for (int i = 0; i < 48; i++)
			for (int kind = 0; kind < KINDS; kind++)
				for (int k = 0; k < 7; k++)
					model->weights[set][i][kind][k] = 9216;
	model->bytes = bytes;
	model->high = UINT32_MAX;
	for (int i = 0; i < 4; i++)
		model->value = model->value << 8 | another_byte(model);
}

void second_context(struct reader *in, const struct layout *l, const struct second_known *known, uint8_t *list)
{
	const unsigned base = (unsigned)integer(in, 1);
	const float decay = float_of_bits(integer(in, 2) << 16), noise = float_of_bits(integer(in, 2) << 16);
	const size_t c = (size_t)integer(in, 1);
	uint8_t lows[16] = {0}, *beside = calloc(1, known->n + 1);
	struct model *model = calloc(1, sizeof *model);

	if (!beside || !model)
		fail(in->status, SECOND_NOMEM);
	need(in->status, c <= 16);
	for (size_t i = 0; i < c && !*in->status; i++) {
		lows[i] = (uint8_t)integer(in, 1);
		need(in->status, lows[i] <= 48);
	}
	if (!*in->status)
		open_model(model, take(in, integer(in, 4)));
	for (size_t i = 0; i < known->n && !*in->status; i++) {
		int64_t x;

		list[i] = 1;
		look(model, l, known, i, base, decay, noise, beside);
		if ((size_t)model->e >= c || model->reach < lows[model->e])
			continue;
		x = -1848 + 352 * clamp(0, model->reach - 25, 8) + 96 * clamp(0, model->reach - 33, 14);
		if (mixed_bit(model, CHANGED, squash(x), x))
			list[i] = (uint8_t)changed_symbol(in, model, &beside[i]);
	}
	if (!*in->status)
		need(in->status, model->bytes.left == 0 && model->beyond <= 4);
	free(model);
	free(beside);
}
