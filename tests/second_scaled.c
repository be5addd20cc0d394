/*
 * second_scaled.c - the part of the second decoder (second_decoder.c) that reads `scaled`, SPEC.md section 11: from the text alone, one element after
 * the other, without anything of the project.
 */
#include "second_decoder.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "second_reader.h"
#include "second_symbols.h"

struct header {
	unsigned form;
	size_t row, first, pieces;
	float factor, share;
	int base;
	uint8_t *low, *high, *levels, *columns; /* pieces of each, and row of the last, in one piece of memory */
};

static float four(struct reader *in)
{
	return float_of_bits(integer(in, 4));
}

static uint32_t pattern_of(float f)
{
	uint32_t bits;

	memcpy(&bits, &f, sizeof bits);
	return bits;
}

static void read_header(struct reader *in, const struct second_input inputs[5], size_t n, struct header *h)
{
	h->form = (unsigned)integer(in, 1);
	h->row = (size_t)integer(in, 2);
	h->first = (size_t)integer(in, 2);
	need(in->status, h->row >= 1 && h->row <= 8192 && h->first >= 1 && h->first <= h->row);
	if (!*in->status && h->form > 15)
		fail(in->status, SECOND_UNSUPPORTED);
	need(in->status, (h->form & 3) != 2);
	need(in->status, !(h->form & 1) || (inputs && inputs[4].data));
	need(in->status, !(h->form & 2) || (inputs && inputs[2].data));
	h->factor = four(in);
	if (h->form & 2)
		h->share = four(in);
	h->base = (int)(int16_t)(uint16_t)integer(in, 2);
	if (*in->status)
		return;
	h->pieces = n == 0 ? 0 : n <= h->first ? 1 : 1 + (n - h->first + h->row - 1) / h->row;
	h->low = calloc(3 * h->pieces + 8192 + 1, 1);
	if (!h->low)
		fail(in->status, SECOND_NOMEM);
	if (*in->status)
		return;
	h->high = h->low + h->pieces;
	h->levels = h->high + h->pieces;
	h->columns = h->levels + h->pieces;
	if (h->form & 8) {
		symbols(in, h->low, h->pieces);
		symbols(in, h->high, h->pieces);
	}
	symbols(in, h->levels, h->pieces);
	if (h->form & 4)
		symbols(in, h->columns, h->row);
}

/* The scale, from the inputs. */
static int scale_of(const struct header *h, const struct second_input inputs[5], size_t i)
{
	float v2 = float_at(inputs[4].data, inputs[4].len, i), v = v2 > 0 ? v2 : 0, came = v, s;

	if (h->form & 2)
		came = v - h->share * float_at(inputs[2].data, inputs[2].len, i);
	s = (came > 0 ? came : 0) + v / 64;
	return isfinite(s) ? (int)(pattern_of(s) >> 21) : 0;
}

/* What is predicted of an element that was p. */
static uint64_t predicted(const struct layout *l, uint64_t p, float factor)
{
	float f = factor * (l->width == 32 ? float_of_bits(p) : float_of_bits(p << 16));

	if (!isfinite(f))
		return p;
	if (l->width == 32)
		return pattern_of(f);
	return (pattern_of(f) >> 16) + ((pattern_of(f) & 0xffff) > 0x8000 || (pattern_of(f) & 0x1ffff) == 0x18000);
}

static int divide(int a, int by) /* rounded down */
{
	return a >= 0 ? a / by : -((by - 1 - a) / by);
}

/* T, and the class. */
static unsigned step_of(const struct layout *l, const struct header *h, const struct second_input inputs[5], size_t piece, size_t column, size_t i,
			unsigned *class)
{
	int k = h->base + h->levels[piece], t;

	*class = 2;
	if (h->levels[piece] == 0)
		return 0;
	if (h->form & 1)
		k += scale_of(h, inputs, i);
	if (h->form & 4)
		k += (int)h->columns[column] - 128;
	t = divide(k, 8);
	*class = (unsigned)divide(k, 4) & 1;
	if (t < (int)l->mantissa + 1)
		t = (int)l->mantissa + 1;
	return (unsigned)(t > 254 ? 254 : t);
}

/* Q; T = 0: the pattern. */
static int64_t q_of(const struct layout *l, uint64_t x, unsigned t)
{
	uint64_t magnitude = x & ((1ull << (l->width - 1)) - 1);

	if (t > 0)
		return second_to_grid(l, x, t);
	return x >> (l->width - 1) ? -1 - (int64_t)magnitude : (int64_t)magnitude;
}

static uint64_t element(const struct layout *l, unsigned symbol, unsigned t, uint64_t q, struct fields *b, size_t i)
{
	const uint64_t top = 1ull << (l->width - 1);
	uint64_t magnitude, x;
	int64_t at;

	if (symbol == 0)
		return second_field(b, i, l->width);
	if (symbol <= 2)
		return symbol == 1 ? q : 0;
	if (symbol >= 220) {
		int exponent = (int)t - (int)l->mantissa - 1 - (int)(symbol - 220) / 2;

		need(b->words.status, t > 0 && exponent >= 1);
		if (*b->words.status)
			return 0;
		return (symbol % 2 ? top : 0) | (uint64_t)exponent << l->mantissa | second_field(b, i, l->mantissa);
	}
	at = second_wrap(q_of(l, q, t) + (int64_t)symbol - 111, l->width);
	magnitude = (uint64_t)(at < 0 ? -1 - at : at);
	if (t == 0) {
		need(b->words.status, magnitude < top);
		return magnitude | (at < 0 ? top : 0);
	}
	need(b->words.status, magnitude > 0);
	if (*b->words.status)
		return 0;
	x = second_from_grid(l, at, t, b, i);
	return x;
}

void second_scaled(struct reader *in, const struct layout *l, bool alone, const struct second_input inputs[5], uint8_t *out, size_t n)
{
	const unsigned width = l->width / 8;
	struct header h = {0};
	uint8_t *steps = calloc(3, n + 1), *classes = steps + n + 1, *sorted = classes + n + 1;
	size_t counts[3] = {0}, next[3] = {0};
	struct fields b;

	if (!steps)
		fail(in->status, SECOND_NOMEM);
	read_header(in, inputs, n, &h);
	need(in->status, !(alone && h.form & (2 | 8)));
	for (size_t i = 0; i < n && !*in->status; i++) {
		size_t piece = i < h.first ? 0 : 1 + (i - h.first) / h.row;
		size_t column = i < h.first ? h.row - h.first + i : (i - h.first) % h.row;
		float factor = h.factor;
		unsigned class;

		steps[i] = (uint8_t)step_of(l, &h, inputs, piece, column, i, &class);
		classes[i] = (uint8_t)class;
		counts[class]++;
		if (h.form & 8 && h.levels[piece] > 0)
			factor = float_of_bits((uint64_t)h.low[piece] << 16 | (uint64_t)h.high[piece] << 24);
		store(out + i * width, width, predicted(l, load(out + i * width, width), factor));
	}
	for (unsigned c = 0, at = 0; c < 3 && !*in->status; c++) {
		next[c] = at;
		symbols(in, sorted + at, counts[c]);
		at += (unsigned)counts[c];
	}
	b = second_fields_open(in);
	for (size_t i = 0; i < n && !*in->status; i++)
		store(out + i * width, width, element(l, sorted[next[classes[i]]++], steps[i], load(out + i * width, width), &b, i));
	second_fields_close(&b);
	free(h.low);
	free(steps);
}
