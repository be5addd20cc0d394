/*
 * second_wide.c - the second decoder's `grid` of F64, `integers` and `integers-ref`: sections 16 and 17 of common/codec/SPEC.md, as
 * second_decoder.c has the others.
 */
#include "second_wide.h"

#include <stdlib.h>

#include "second_symbols.h"

/* What is left of F64 patterns that lost `cut` bits. */
struct wide {
	unsigned bits, m; /* of all, of the mantissa */
};

static uint64_t low_bits(uint64_t v, unsigned bits)
{
	return bits >= 64 ? v : v & ((1ull << bits) - 1);
}

/* Section 5: G of a pattern's absolute value. */
static uint64_t g_of(struct wide w, uint64_t magnitude, unsigned t)
{
	uint64_t f = magnitude >> w.m, e = f > 1 ? f : 1, a = low_bits(magnitude, w.m) + (f > 0 ? 1ull << w.m : 0);

	if (e >= t)
		return magnitude - ((uint64_t)(t - 1) << w.m);
	return t - e < 64 ? a >> (t - e) : 0;
}

/* Section 5: patterns below the first step. */
static uint64_t patterns_below(struct wide w, unsigned t)
{
	return t > w.m ? (uint64_t)(t - w.m) << w.m : 1ull << (t - 1);
}

/* One element while its block is read. */
struct one {
	bool coded, negative;
	uint64_t g, field;
	unsigned size, k;
};

static struct one look(struct wide w, unsigned symbol, unsigned t, uint64_t p)
{
	struct one e = {.size = symbol == 0 ? w.bits : 0};
	uint64_t magnitude = low_bits(p, w.bits - 1), q, below;
	unsigned log2 = 0;

	if (symbol < 3)
		return e;
	e.coded = true;
	q = g_of(w, magnitude, t);
	if (magnitude != p)
		q = ~q; /* -1 - G */
	q = low_bits(q + symbol - 129, w.bits);
	e.negative = q >> (w.bits - 1);
	e.g = e.negative ? low_bits(~q, w.bits) : q;
	if (e.g == 0) {
		below = patterns_below(w, t) - 1;
		while (e.size < 64 && below >> e.size > 0)
			e.size++;
	} else if (e.g < 1ull << w.m) {
		while (e.g >> (log2 + 1) > 0)
			log2++;
		e.k = w.m - log2 < t - 1 ? w.m - log2 : t - 1;
		e.size = e.k;
	}
	return e;
}

static uint64_t finish(struct wide w, const struct one *e, unsigned symbol, unsigned t, uint64_t p, int *status)
{
	uint64_t magnitude;

	if (!e->coded)
		return symbol == 0 ? e->field : symbol == 1 ? p : 0;
	if (e->g >= 1ull << w.m) {
		magnitude = e->g + ((uint64_t)(t - 1) << w.m);
	} else if (e->g > 0) {
		magnitude = ((uint64_t)(t - e->k - 1) << w.m) + ((e->g << e->k) | e->field);
	} else {
		magnitude = e->field;
		need(status, magnitude < patterns_below(w, t));
	}
	need(status, magnitude < 1ull << (w.bits - 1) && g_of(w, magnitude, t) == e->g);
	return magnitude | (e->negative ? 1ull << (w.bits - 1) : 0);
}

void second_grid64(struct reader *in, uint8_t *out, size_t n, uint8_t *list, uint8_t *ts)
{
	unsigned cut = (unsigned)integer(in, 1), t = 1;
	size_t row = (size_t)integer(in, 2), first = (size_t)integer(in, 2), pieces, piece = 0, end = 0;
	struct wide w = {64 - cut, 52 - cut};
	struct fields b;

	need(in->status, cut <= 51 && row >= 1 && row <= 8192 && first >= 1 && first <= row);
	if (*in->status)
		return;
	pieces = n == 0 ? 0 : n <= first ? 1 : 1 + (n - first + row - 1) / row;
	symbols(in, ts, pieces);
	symbols(in, ts + n, pieces);
	symbols(in, list, n);
	b = second_fields_open(in);
	for (size_t i = 0; i < n && !*in->status;) {
		struct one block[16];
		size_t count;

		if (i == end) { /* a piece begins */
			t = ts[piece] + 256u * ts[n + piece];
			end = piece == 0 ? first : end + row;
			end = end < n ? end : n;
			piece++;
			need(in->status, t >= 1 && t <= 2046);
			if (*in->status)
				return;
		}
		count = end - i < 16 ? end - i : 16;
		for (size_t j = 0; j < count; j++)
			block[j] = look(w, list[i + j], t, load(out + (i + j) * 8, 8) >> cut);
		for (size_t j = 0; j < count; j++)
			block[j].field = second_field(&b, j, block[j].size < 32 ? block[j].size : 32);
		for (size_t j = 0; j < count; j++)
			block[j].field |= second_field(&b, j, block[j].size > 32 ? block[j].size - 32 : 0) << 32;
		for (size_t j = 0; j < count; j++, i++)
			store(out + i * 8, 8, finish(w, &block[j], list[i], t, load(out + i * 8, 8) >> cut, in->status) << cut);
	}
	second_fields_close(&b);
}

void second_integers(struct reader *in, unsigned width, uint8_t *out, size_t n, size_t left, uint8_t *bytes)
{
	unsigned form = (unsigned)integer(in, 1), b = (unsigned)integer(in, 1);
	uint64_t last = 0;
	uint8_t *values = calloc(n + 1, 8);

	if (form > 7)
		fail(in->status, SECOND_UNSUPPORTED);
	need(in->status, b <= width && in->left >= left);
	if (!values)
		fail(in->status, SECOND_NOMEM);
	if (!*in->status && form & 4 && n > 0 && b > 0) {
		uint8_t *frame = calloc(n, b);

		if (!frame)
			fail(in->status, SECOND_NOMEM);
		else
			zstd_frame(take(in, in->left - left), NULL, 0, frame, n * b);
		for (size_t i = 0; i < n && !*in->status; i++)
			memcpy(values + 8 * i, frame + i * b, b);
		free(frame);
	} else {
		for (unsigned k = 0; k < b && !(form & 4) && !*in->status; k++) {
			symbols(in, bytes, n);
			for (size_t i = 0; i < n && !*in->status; i++)
				values[8 * i + k] = bytes[i];
		}
	}
	for (size_t i = 0; i < n && !*in->status; i++) {
		uint64_t v = load(values + 8 * i, 8), p = load(out + i * width, width);

		if (form & 2)
			v = v % 2 ? ~(v / 2) : v / 2;
		if (form & 1)
			v += last;
		last = v;
		store(out + i * width, width, v + p);
	}
	free(values);
}
