/*
 * second_decoder.c - the chunk format, decoded a second time from the text of the format alone.
 *
 * A round trip does not notice a mistake that an encoder and its decoder share; two decoders written apart do. So
 * this one includes nothing of the project, takes one element after the other, and follows the words of the format in
 * their order; wherever speed and obviousness disagree, speed has lost. (A slower build of the first decoder was
 * rejected: it would inherit its readings.) The section numbers below are those of common/codec/SPEC.md.
 *
 * The first thing that goes wrong stays in `status`; later steps do nothing harmful and cannot undo it. Reading past an
 * end gives 0, and loops run over sizes of the output, never over unchecked numbers of the input.
 */
#include "second_decoder.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "second_context.h"
#include "second_rows.h"
#include "second_symbols.h"
#include "second_wide.h"

enum { DTYPE_F32 = 1, DTYPE_F16 = 2, DTYPE_BF16 = 3, DTYPE_F64 = 4, DTYPE_I16 = 7, DTYPE_U64 = 12, DTYPES = 23 };

static const uint8_t width_of[DTYPES] = {1, 4, 2, 2, 8, 1, 1, 2, 2, 4, 4, 8, 8, 1, 1, 1, 1, 1, 1, 8, 1, 1, 1};

struct fields second_fields_open(struct reader *in)
{
	uint64_t w = integer(in, 4), t;
	struct fields b = {.words = {.status = in->status}};
	uint8_t len[20] = {0};

	if (w < 1u << 31) {
		b.words = take(in, 4 * w);
		return b;
	}
	w -= 1u << 31;
	need(in->status, w <= 2048);
	t = w < 20 ? w : 20;
	for (unsigned i = 0; i < (t + 3) / 4 * 4 && !*in->status; i += 4) {
		uint64_t four = integer(in, 1);

		for (unsigned k = i; k < i + 4; k++, four /= 4) {
			need(in->status, k < t || four == 0);
			len[k] = (uint8_t)(1 + four % 4);
		}
	}
	if (*in->status)
		return b;
	b.words = take(in, 4 * (w - t));
	for (unsigned i = 0; i < t && !*in->status; i++) {
		uint64_t word = integer(in, len[i]);

		for (unsigned k = 0; k < 4; k++)
			b.last[4 * i + k] = (uint8_t)(word >> 8 * k);
	}
	b.last_len = 4 * (unsigned)t;
	return b;
}

uint64_t second_field(struct fields *b, size_t index, unsigned bits)
{
	size_t lane = index % 16;
	uint64_t v;

	while (b->held[lane] < bits) { /* bits <= 32, so there is room for 32 more */
		if (b->words.left == 0 && b->last_at < b->last_len) {
			b->queue[lane] |= load(b->last + b->last_at, 4) << b->held[lane];
			b->last_at += 4;
		} else {
			b->queue[lane] |= integer(&b->words, 4) << b->held[lane];
		}
		b->held[lane] += 32;
	}
	v = b->queue[lane] & ((1ull << bits) - 1);
	b->queue[lane] >>= bits;
	b->held[lane] -= bits;
	return v;
}

void second_fields_close(const struct fields *b)
{
	need(b->words.status, b->words.left == 0 && b->last_at == b->last_len);
	for (unsigned lane = 0; lane < 16; lane++)
		need(b->words.status, b->queue[lane] == 0);
}

/* v modulo 2^width, taken as signed. */
int64_t second_wrap(int64_t v, unsigned width)
{
	uint64_t u = (uint64_t)v & ((1ull << width) - 1);

	return u >> (width - 1) ? (int64_t)u - (int64_t)(1ull << width) : (int64_t)u;
}

/* Section 5: Q(x). */
int64_t second_to_grid(const struct layout *l, uint64_t x, unsigned t)
{
	uint64_t magnitude = x & ((1ull << (l->width - 1)) - 1), f, e, a, g;
	unsigned m = l->mantissa;

	if (m == 0)
		return second_wrap((int64_t)x, l->width);
	f = magnitude >> m;
	e = f > 1 ? f : 1;
	a = (magnitude & ((1ull << m) - 1)) + (f > 0 ? 1ull << m : 0);
	if (e >= t)
		g = magnitude - ((uint64_t)(t - 1) << m);
	else
		g = t - e < 64 ? a >> (t - e) : 0;
	return x >> (l->width - 1) ? -1 - (int64_t)g : (int64_t)g;
}

/* Section 5, backwards: the pattern of the element that lies at q and whose remaining bits are the next field. */
uint64_t second_from_grid(const struct layout *l, int64_t q, unsigned t, struct fields *b, size_t index)
{
	uint64_t g = (uint64_t)(q < 0 ? -1 - q : q), below, magnitude, x;
	unsigned m = l->mantissa, k, log2 = 0, bits = 0;

	if (m == 0)
		return (uint64_t)q & ((1ull << l->width) - 1);
	if (g >= 1ull << m) {
		magnitude = g + ((uint64_t)(t - 1) << m);
	} else if (g > 0) {
		while (g >> (log2 + 1) > 0)
			log2++;
		k = m - log2 < t - 1 ? m - log2 : t - 1;
		magnitude = ((uint64_t)(t - k - 1) << m) + ((g << k) | second_field(b, index, k));
	} else {
		below = t > m ? (uint64_t)(t - m) << m : 1ull << (t - 1);
		while ((below - 1) >> bits > 0)
			bits++;
		magnitude = second_field(b, index, bits);
		need(b->words.status, magnitude < below);
	}
	x = magnitude | (q < 0 ? 1ull << (l->width - 1) : 0);
	need(b->words.status, magnitude < 1ull << (l->width - 1) && second_to_grid(l, x, t) == q);
	return x;
}

/* Section 7: the element at `at` holds p and becomes x. */
static void change(const struct layout *l, unsigned symbol, unsigned t, struct fields *b, size_t index, uint8_t *at)
{
	uint64_t x = load(at, l->width / 8);

	if (symbol == 0)
		x = second_field(b, index, l->width);
	else if (symbol == 2)
		x = 0;
	else if (symbol >= 3)
		x = second_from_grid(l, second_wrap(second_to_grid(l, x, t) + (int64_t)symbol - 129, l->width), t, b, index);
	store(at, l->width / 8, x);
}

/* The next bits of the gap stream, the most significant of a byte first; `at` counts them. */
static uint64_t bits(const struct reader *gaps, uint64_t *at, unsigned n)
{
	uint64_t v = 0;

	for (; n > 0; n--, ++*at) {
		need(gaps->status, *at < 8 * gaps->left);
		if (*gaps->status)
			return 0;
		v = v << 1 | (gaps->at[*at / 8] >> (7 - *at % 8) & 1);
	}
	return v;
}

/* Section 7: one gap, 1 .. most. */
static uint64_t gap(const struct reader *gaps, uint64_t *at, unsigned code, unsigned k, uint64_t most)
{
	uint64_t n, quotient = 0;
	unsigned l = 0, length;

	if (code == 0) {
		while (!*gaps->status && bits(gaps, at, 1) == 0)
			need(gaps->status, ++l < 6); /* 6: a gap of at least 2^63 */
		length = 1u << l | (unsigned)bits(gaps, at, l);
		n = 1ull << (length - 1) | bits(gaps, at, length - 1);
	} else {
		while (bits(gaps, at, 1) == 1)
			need(gaps->status, ++quotient <= most >> k);
		n = (quotient << k | bits(gaps, at, k)) + 1;
	}
	need(gaps->status, n <= most);
	return n;
}

static void sparse(struct reader *in, const struct layout *l, uint8_t *out, size_t n, uint8_t *list)
{
	unsigned code = (unsigned)integer(in, 1), k = (unsigned)integer(in, 1);
	uint64_t m = varint(in), at = 0, next = 0; /* next: the first position that a change may have now */
	struct reader gaps = take(in, integer(in, 4));
	struct fields b;

	need(in->status, code <= 1 && k <= (code == 1 ? 31 : 0) && m <= n);
	if (*in->status)
		return;
	symbols(in, list, (size_t)m);
	b = second_fields_open(in);
	for (size_t j = 0; j < m && !*in->status; j++) {
		next += gap(&gaps, &at, code, k, n - next);
		need(in->status, list[j] != 1);
		if (!*in->status)
			change(l, list[j], 1, &b, j, out + (next - 1) * (l->width / 8));
	}
	second_fields_close(&b);
	need(in->status, 8 * gaps.left - at < 8 && bits(&gaps, &at, (unsigned)(8 * gaps.left - at)) == 0);
}

/* Section 14: what is known of elements beside p. */
struct expected {
	const float *s;          /* NULL: this is `classes` */
	const uint16_t *pattern; /* of the prediction */
	const struct second_input *v1, *v2;
	struct second_known *known; /* of `context`, else NULL */
};

/* Section 13: the last digit of a key. */
static uint64_t reach(const struct layout *l, const struct expected *e, unsigned by, float decay, float noise, uint64_t exponent, size_t i)
{
	float z = fabsf(e->s[i]);
	int64_t u = (int64_t)(exponent > 0 ? exponent : 1) + (l->mantissa == 7 ? -7 : 102), digit;
	uint32_t bits;

	if (by == 2) {
		float v1 = float_at(e->v1->data, e->v1->len, i), v2 = float_at(e->v2->data, e->v2->len, i), part = decay * v1, rest = v2 - part;

		if (v2 > 0) {
			float share = rest / v2;

			part = noise * noise;
			part = part * (share > 0 ? share : 0);
			rest = e->s[i] * e->s[i];
			z = sqrtf(rest + part);
		}
	}
	memcpy(&bits, &z, sizeof bits);
	digit = (bits & 0x7fffffff) >> 21;
	digit = digit - 4 * u + 20;
	return (uint64_t)(digit < 0 ? 0 : digit > 47 ? 47 : digit);
}

/* Section 9: C(n). p: the reference; list: 2 n bytes, of which the first n get the symbols. */
static void class_symbols(struct reader *in, const struct layout *l, const uint8_t *p, const struct expected *e, size_t first, size_t row,
			  uint8_t *list, size_t n)
{
	uint64_t by = integer(in, 1), count, bound[64] = {0}, k, base;
	size_t pieces = n == 0 ? 0 : n <= first ? 1 : 1 + (n - first + row - 1) / row;
	uint8_t *level = calloc(pieces + 1, 1);
	struct table *tables = calloc(64, sizeof *tables);
	float decay = 0, noise = 0;
	struct coder c;

	if (!tables || !level)
		fail(in->status, SECOND_NOMEM);
	if (by > 2)
		fail(in->status, SECOND_UNSUPPORTED);
	need(in->status, by == 0 || (e->s && (by == 1 || (e->v1 && e->v2))));
	if (!*in->status && by < 2)
		symbols(in, level, pieces);
	for (size_t i = 0; i < pieces && !*in->status; i++)
		need(in->status, level[i] <= 8);
	if (by == 2) {
		decay = float_of_bits(integer(in, 2) << 16);
		noise = float_of_bits(integer(in, 2) << 16);
	}
	base = integer(in, 1);
	count = integer(in, 1);
	need(in->status, count <= 64 && (count > 0 || n == 0));
	for (unsigned j = 1; j < count && !*in->status; j++) {
		uint64_t more = varint(in);

		need(in->status, more > 0 && more < 6912 - bound[j - 1]);
		bound[j] = bound[j - 1] + more;
	}
	k = integer(in, 1);
	need(in->status, k <= 6);
	for (unsigned j = 0; j < count && !*in->status; j++)
		second_class_table(in, &tables[j]);
	if (!*in->status)
		c = coder_open(in, (unsigned)k);
	for (size_t i = 0, lane = 0; i < n && !*in->status; i++, lane++) {
		uint64_t exponent = (load(p + i * (l->width / 8), l->width / 8) & ((1ull << (l->width - 1)) - 1)) >> l->mantissa, key;
		unsigned j = 0;

		if (i >= first && (i - first) % row == 0)
			lane = 0;
		key = exponent < base ? 0 : exponent - base > 15 ? 15 : exponent - base;
		if (by < 2)
			key = 9 * key + 8u - level[i < first ? 0 : 1 + (i - first) / row];
		if (by > 0)
			key = 48 * key + reach(l, e, (unsigned)by, decay, noise, exponent, i);
		while (j + 1 < count && bound[j + 1] <= key)
			j++;
		list[i] = code_back(&c, lane, &tables[j]);
	}
	if (!*in->status)
		coder_close(&c);
	free(tables);
	free(level);
}

/* Sections 8, 9 and 14; e: not of `grid` itself. */
static void grid(struct reader *in, const struct layout *l, const struct expected *e, uint8_t *out, size_t n, uint8_t *list, uint8_t *ts)
{
	size_t row = (size_t)integer(in, 2), first = (size_t)integer(in, 2), end = 0;
	struct fields b;

	need(in->status, l->mantissa > 0 && row >= 1 && row <= 8192 && first >= 1 && first <= row);
	if (*in->status)
		return;
	symbols(in, ts, n == 0 ? 0 : n <= first ? 1 : 1 + (n - first + row - 1) / row);
	if (e && e->known) {
		e->known->row = row;
		e->known->t = ts[0];
		second_context(in, l, e->known, list);
	} else if (e)
		class_symbols(in, l, out, e, first, row, list, n);
	else
		symbols(in, list, n);
	b = second_fields_open(in);
	for (size_t i = 0, lane = 0, piece = 0; i < n && !*in->status; i++, lane++) {
		if (i == end) { /* a piece begins */
			piece = i == 0 ? 0 : piece + 1;
			end += i == 0 ? first : row;
			lane = 0;
			need(in->status, ts[piece] >= 1 && ts[piece] <= l->tmax);
		}
		if (e && e->s && list[i] != 1)
			store(out + i * 2, 2, e->pattern[i]);
		if (e && e->s && list[i] >= 3 && e->s[i] < 0)
			list[i] = (uint8_t)(258 - list[i]);
		if (!*in->status)
			change(l, list[i], ts[piece], &b, lane, out + i * (l->width / 8));
	}
	second_fields_close(&b);
}

/* Section 10: are the terms valid, and is what they need there? */
static void check_terms(int *status, unsigned terms, const struct second_input inputs[5])
{
	need(status, terms >= 1 && terms <= 15);
	need(status, !(terms & 2) || (inputs && inputs[0].data));
	need(status, !(terms & 4) || (inputs && inputs[1].data && inputs[2].data));
	need(status, !(terms & 8) || (inputs && inputs[3].data && inputs[4].data));
}

/* Section 10: about 1 / sqrt(v). */
static float inverse_root(float v)
{
	uint32_t pattern;
	float y, r;

	memcpy(&pattern, &v, 4);
	pattern = 0x5f1ffff9 - (pattern >> 1);
	memcpy(&y, &pattern, 4);
	r = v * y;
	r = r * y;
	r = 2.38924456f - r;
	y = y * 0.703952253f;
	return y * r;
}

/* Section 10: s of element i. */
static float sum_of_terms(unsigned terms, const float c[4], const struct second_input inputs[5], float w1, size_t i)
{
	float sum = 0;

	for (unsigned k = 0; k < 4; k++) {
		float f = w1;

		if (!(terms >> k & 1))
			continue;
		if (k == 1)
			f = w1 - float_at(inputs[0].data, inputs[0].len, i);
		if (k >= 2) {
			const struct second_input *m = &inputs[2 * k - 3], *v = m + 1;
			float under = float_at(v->data, v->len, i);

			f = under > 0 ? float_at(m->data, m->len, i) * inverse_root(under) : 0;
		}
		sum = sum + c[k] * f;
	}
	return sum;
}

/* Section 10: the low-rank part, added to the prediction in out. */
static void add_low_rank(struct reader *in, uint8_t *out, size_t n)
{
	const size_t rank = (size_t)integer(in, 1), row = (size_t)integer(in, 2), first = (size_t)integer(in, 2);
	uint8_t shift[32], *exponent, *a, *b;
	size_t r;

	need(in->status, rank >= 1 && rank <= 32 && row >= 32 && row <= 8192 && first >= 1 && first <= row);
	if (*in->status)
		return;
	for (size_t k = 0; k < rank; k++)
		shift[k] = (uint8_t)integer(in, 1);
	r = n == 0 ? 0 : n <= first ? 1 : 1 + (n - first + row - 1) / row;
	exponent = calloc(1, r + rank * (r + row) + 1);
	if (!exponent) {
		fail(in->status, SECOND_NOMEM);
		return;
	}
	a = exponent + r;
	b = a + rank * r;
	symbols(in, exponent, r);
	if (!*in->status)
		symbols(in, a, rank * r);
	if (!*in->status)
		symbols(in, b, rank * row);
	for (size_t i = 0; i < n && !*in->status; i++) {
		size_t piece = i < first ? 0 : 1 + (i - first) / row, column = i < first ? row - first + i : (i - first) % row;
		float p = float_at(out, n * 4, i), l = 0;

		for (size_t k = 0; k < rank; k++) {
			int field = exponent[piece] + shift[k] - 128;
			float scale = float_of_bits((uint64_t)(field < 1 ? 1 : field > 254 ? 254 : field) << 23);
			float factor = (float)(a[k * r + piece] - 128) * scale;

			l = l + factor * (float)(b[k * row + column] - 128);
		}
		p = p + l;
		if (isfinite(p))
			memcpy(out + i * 4, &p, sizeof p);
	}
	free(exponent);
}

/* Section 10: in out, which holds w1, the prediction. */
static void predict(struct reader *in, const struct second_input inputs[5], uint8_t *out, size_t n)
{
	unsigned terms = (unsigned)integer(in, 1), form = (unsigned)integer(in, 1);
	size_t row = n > 0 ? n : 1, first = row, rows = 1;
	uint8_t *bytes = NULL;
	float all[4] = {0};

	check_terms(in->status, terms, inputs);
	if (form > 3)
		fail(in->status, SECOND_UNSUPPORTED);
	if (*in->status)
		return;
	if (form & 1) {
		row = (size_t)integer(in, 2);
		first = (size_t)integer(in, 2);
		need(in->status, row >= 1 && row <= 8192 && first >= 1 && first <= row);
		if (*in->status)
			return;
		rows = n == 0 ? 0 : n <= first ? 1 : 1 + (n - first + row - 1) / row;
	}
	bytes = calloc(8, rows + 1);
	if (!bytes)
		fail(in->status, SECOND_NOMEM);
	for (unsigned k = 0; k < 4 && !*in->status; k++) {
		if (!(terms >> k & 1))
			continue;
		if (form & 1) {
			symbols(in, bytes + 2 * k * rows, rows);
			symbols(in, bytes + (2 * k + 1) * rows, rows);
		} else {
			struct reader part = take(in, 4);

			all[k] = float_at(part.at, (size_t)part.left, 0);
		}
	}
	for (size_t i = 0; i < n && !*in->status; i++) {
		size_t r = i < first ? 0 : 1 + (i - first) / row;
		float w1 = float_at(out, n * 4, i), c[4], p;

		for (unsigned k = 0; k < 4; k++) {
			c[k] = all[k];
			if ((form & 1) && (terms >> k & 1))
				c[k] = float_of_bits((uint64_t)bytes[2 * k * rows + r] << 16 | (uint64_t)bytes[(2 * k + 1) * rows + r] << 24);
		}
		p = w1 + sum_of_terms(terms, c, inputs, w1, i);
		if (isfinite(p))
			memcpy(out + i * 4, &p, sizeof p);
	}
	free(bytes);
	if (form & 2 && !*in->status)
		add_low_rank(in, out, n);
}

/* Section 14: term 0. */
static float jump(const struct second_input inputs[5], size_t i)
{
	float v1 = float_at(inputs[2].data, inputs[2].len, i), v2 = float_at(inputs[4].data, inputs[4].len, i), size = 0;

	if (v2 > 0 && v2 > v1)
		size = sqrtf((v2 - v1) / v2);
	return copysignf(size, float_at(inputs[3].data, inputs[3].len, i));
}

/* Section 10, f of terms 2 and 3, or what stands in inputs[which] when it is none of these; NULL without memory. */
static float *all_of(const struct second_input inputs[5], unsigned which, bool is_ratio, size_t n)
{
	float *all = calloc(n + 1, sizeof *all);

	for (size_t i = 0; all && i < n; i++) {
		const float v = float_at(inputs[which].data, inputs[which].len, i);
		const float under = is_ratio ? float_at(inputs[which + 1].data, inputs[which + 1].len, i) : 1;

		all[i] = under > 0 ? is_ratio ? v * inverse_root(under) : v : 0;
	}
	return all;
}

/* Section 18: what it knows beside s. */
static void context_grid(struct reader *in, const struct layout *l, const struct second_input inputs[5], unsigned terms, struct expected *e,
			 uint8_t *out, size_t n, uint8_t *list, uint8_t *ts)
{
	const bool both = (terms & 12) == 12;
	uint8_t *p = malloc(2 * n + 1);
	float *r1 = terms & 4 ? all_of(inputs, 1, true, n) : NULL, *r2 = terms & 8 ? all_of(inputs, 3, true, n) : NULL;
	float *v1 = both ? all_of(inputs, 2, false, n) : NULL, *v2 = both ? all_of(inputs, 4, false, n) : NULL;
	struct second_known known = {.p = p, .s = e->s, .r1 = r1, .r2 = r2, .v1 = v1, .v2 = v2, .n = n};

	if (!p || (terms & 4 && !r1) || (terms & 8 && !r2) || (both && (!v1 || !v2)))
		fail(in->status, SECOND_NOMEM);
	if (!*in->status) {
		memcpy(p, out, 2 * n);
		e->known = &known;
		grid(in, l, e, out, n, list, ts);
	}
	free(p);
	free(r1);
	free(r2);
	free(v1);
	free(v2);
}

/* Section 14, or 18. */
static void stepped(struct reader *in, const struct layout *l, bool is_context, const struct second_input inputs[5], uint8_t *out, size_t n,
		    uint8_t *list, uint8_t *ts)
{
	unsigned terms = (unsigned)integer(in, 1);
	uint16_t *pattern = calloc(n + 1, sizeof *pattern);
	float c[4] = {0}, *s = calloc(n + 1, sizeof *s);
	struct expected e = {.s = s, .pattern = pattern};

	if (!pattern || !s)
		fail(in->status, SECOND_NOMEM);
	if (!is_context || terms > 0)
		check_terms(in->status, terms, inputs);
	need(in->status, !(terms & 1) || (terms & 12) == 12);
	for (unsigned k = 0; k < 4; k++)
		c[k] = terms >> k & 1 ? float_of_bits(integer(in, 2) << 16) : 0;
	for (size_t i = 0; i < n && !*in->status; i++) {
		float w1 = widen(l, (uint32_t)load(out + 2 * i, 2));

		s[i] = terms & 1 ? c[0] * jump(inputs, i) : 0;
		for (unsigned k = 1; k < 4; k++)
			s[i] = s[i] + (terms >> k & 1 ? sum_of_terms(1u << k, c, inputs, w1, i) : 0);
		s[i] = isfinite(s[i]) ? s[i] : 0;
		pattern[i] = closest(l, w1 + s[i], (uint16_t)load(out + 2 * i, 2));
	}
	if ((terms & 12) == 12) {
		e.v1 = &inputs[2];
		e.v2 = &inputs[4];
	}
	if (!*in->status && is_context)
		context_grid(in, l, inputs, terms, &e, out, n, list, ts);
	else if (!*in->status)
		grid(in, l, &e, out, n, list, ts);
	free(pattern);
	free(s);
}

/* Section 6. */
static void planes(struct reader *in, unsigned dtype, unsigned width, uint8_t *out, size_t n, uint8_t *plane)
{
	uint64_t rotate = integer(in, 1), v;

	need(in->status, rotate == 0 || (rotate == 1 && dtype >= DTYPE_F32 && dtype <= DTYPE_F64));
	for (unsigned b = 0; b < width && !*in->status; b++) {
		symbols(in, plane, n);
		for (size_t i = 0; i < n && !*in->status; i++)
			out[i * width + b] = plane[i];
	}
	for (size_t i = 0; i < n && rotate == 1 && !*in->status; i++) {
		v = load(out + i * width, width);
		store(out + i * width, width, v >> 1 | (v & 1) << (8 * width - 1));
	}
}

int second_decode(unsigned encoding, unsigned dtype, const uint8_t *payload, size_t payload_len, const uint8_t *ref,
		  size_t ref_len, uint8_t *out, size_t out_len)
{
	return second_decode_with(encoding, dtype, payload, payload_len, ref, ref_len, NULL, out, out_len);
}

int second_decode_with(unsigned encoding, unsigned dtype, const uint8_t *payload, size_t payload_len, const uint8_t *ref, size_t ref_len,
		       const struct second_input inputs[5], uint8_t *out, size_t out_len)
{
	static const struct layout floats[] = {
		[DTYPE_F32] = {32, 23, 254}, [DTYPE_F16] = {16, 10, 30}, [DTYPE_BF16] = {16, 7, 254}};
	int status = SECOND_OK;
	struct reader in = {.at = payload, .left = payload_len, .status = &status};
	struct layout layout = {0};
	uint8_t *scratch;
	size_t n, tail;

	if (encoding > 16 || dtype >= DTYPES)
		return SECOND_UNSUPPORTED;
	if (out_len == 0)
		return SECOND_CORRUPT;
	layout.width = 8u * width_of[dtype];
	if (encoding == 5 && layout.width == 64)
		layout.width = 32; /* two words */
	if (dtype >= DTYPE_F32 && dtype <= DTYPE_BF16)
		layout = floats[dtype];
	n = out_len / (layout.width / 8);
	tail = out_len % (layout.width / 8);
	scratch = calloc(5, out_len); /* the symbols, what of them is known, and the T of the pieces: at most n each; `rows`: 2 n and 2 n */
	if (!scratch)
		return SECOND_NOMEM;

	if (encoding == 0) {
		need(&status, payload_len == out_len);
		if (!status)
			memcpy(out, payload, out_len);
	} else if (encoding == 1) {
		need(&status, payload_len == 0 && ref_len == out_len);
		if (!status)
			memcpy(out, ref, out_len);
	} else if (encoding == 2) {
		zstd_frame(in, NULL, 0, out, out_len);
	} else if (encoding == 3) {
		need(&status, ref_len > 0);
		zstd_frame(in, ref, ref_len, out, out_len);
	} else {
		if (encoding != 4) { /* p, in the place where x will stand */
			memset(out, 0, out_len);
			if (ref_len > 0 && encoding != 14 && encoding != 16)
				memcpy(out, ref, ref_len < out_len ? ref_len : out_len);
		}
		need(&status, encoding != 8 || dtype == DTYPE_F32);
		need(&status, (encoding != 9 && encoding != 16) || dtype == DTYPE_F32 || dtype == DTYPE_BF16);
		need(&status, (encoding != 11 && encoding != 12) || (dtype != 0 && layout.width == 8));
		need(&status, (encoding != 14 && encoding != 15) || (dtype >= DTYPE_I16 && dtype <= DTYPE_U64));
		need(&status, (encoding != 10 && encoding != 13) || dtype == DTYPE_F16 || dtype == DTYPE_BF16);
		if (encoding == 8 && !status)
			predict(&in, inputs, out, n);
		if (status)
			; /* nothing to go on with */
		else if (encoding == 14 || encoding == 15)
			second_integers(&in, layout.width / 8, out, n, tail, scratch);
		else if (encoding == 11 || encoding == 12)
			second_rows(&in, dtype, encoding == 12 ? out : NULL, out, n, scratch, scratch + 2 * out_len);
		else if (encoding == 4)
			planes(&in, dtype, layout.width / 8, out, n, scratch);
		else if (encoding == 5)
			sparse(&in, &layout, out, n, scratch);
		else if (encoding == 9 || encoding == 16)
			second_scaled(&in, &layout, encoding == 16, inputs, out, n);
		else if (encoding == 10 || encoding == 13)
			stepped(&in, &layout, encoding == 13, inputs, out, n, scratch, scratch + 2 * out_len);
		else if (encoding == 6 && dtype == DTYPE_F64)
			second_grid64(&in, out, n, scratch, scratch + n);
		else
			grid(&in, &layout, encoding == 7 ? &(struct expected){0} : NULL, out, n, scratch, scratch + 2 * out_len);
		need(&status, in.left == tail);
		if (!status && tail > 0)
			memcpy(out + out_len - tail, in.at, tail);
	}
	free(scratch);
	return status;
}
