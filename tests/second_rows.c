/*
 * second_rows.c - the second decoder's `rows` and `rows-ref`: section 15 of common/codec/SPEC.md, as second_decoder.c has the others.
 */
#include "second_rows.h"

#include <stdlib.h>

#include "second_symbols.h"

enum { DTYPE_I8 = 5, DTYPE_U8 = 6, DTYPE_E4M3 = 14, DTYPE_E5M2 = 15, DTYPE_E4M3FNUZ = 17, DTYPE_E5M2FNUZ = 18, DTYPE_F4 = 20 };

/* Section 14, the table of types: the key of s, and the element that a symbol says. */
static unsigned rows_key(bool f8, unsigned dtype, bool halves, unsigned s)
{
	unsigned size = s < 128 ? s : 256 - s, exponent = (s & 127) / (dtype == DTYPE_E4M3 || dtype == DTYPE_E4M3FNUZ ? 8 : 4);

	if (halves)
		return s;
	if (f8)
		return exponent > 1 ? exponent : 1;
	return dtype == DTYPE_I8 ? (size < 127 ? size : 127) / 8 : s / 16;
}

static unsigned rows_element(bool f8, unsigned dtype, bool halves, unsigned symbol, unsigned s)
{
	bool negative = !halves && (f8 || dtype == DTYPE_I8) && s >= 128;
	int e = symbol % 2 ? -(int)(symbol / 2) - 1 : (int)(symbol / 2), q = (int)(f8 && s >= 128 ? s ^ 127 : s);
	unsigned v = (unsigned)(negative ? q - e : q + e) & (halves ? 15 : 255);

	return f8 && v >= 128 ? v ^ 127 : v;
}

/* Section 14. ref: the reference, or NULL; x: room for the elements, 2 n; of: for the pieces' sources and groups, 2 n. */
void second_rows(struct reader *in, unsigned dtype, const uint8_t *ref, uint8_t *out, size_t n, uint8_t *x, uint8_t *of)
{
	size_t form = (size_t)integer(in, 1), row = (size_t)integer(in, 2), first = (size_t)integer(in, 2), groups = (size_t)integer(in, 1);
	bool f8 = dtype == DTYPE_E4M3 || dtype == DTYPE_E5M2 || dtype == DTYPE_E4M3FNUZ || dtype == DTYPE_E5M2FNUZ;
	size_t r, end = 0, each = form + 1, piece = 0, lane = 0;
	struct table *tables = calloc(64, sizeof *tables);
	unsigned count = 0, begin[17] = {0}, bound[64] = {0}, k;
	struct coder c;

	if (!tables || form > 1)
		fail(in->status, tables ? SECOND_UNSUPPORTED : SECOND_NOMEM);
	need(in->status, form == 0 || dtype == DTYPE_I8 || dtype == DTYPE_U8 || dtype == DTYPE_F4);
	need(in->status, row >= 1 && row <= 8192 && first >= 1 && first <= row && groups >= 1 && groups <= 16);
	r = *in->status ? 0 : n <= first ? 1 : 1 + (n - first + row - 1) / row;
	for (unsigned i = 0; i < 2 && !*in->status; i++)
		symbols(in, of + i * n, r);
	for (size_t g = 0; g < groups && !*in->status; g++) {
		unsigned b = (unsigned)integer(in, 1);

		need(in->status, b <= 31 && count + b + 1 <= 64);
		for (unsigned j = 1; j <= b && !*in->status; j++) {
			bound[count + j] = (unsigned)integer(in, 1);
			need(in->status, bound[count + j] > (j > 1 ? bound[count + j - 1] : 0) && bound[count + j] <= 31);
		}
		for (unsigned j = 0; j <= b && !*in->status; j++, count++) {
			unsigned low = (unsigned)integer(in, 1), high = (unsigned)integer(in, 1);

			need(in->status, low <= high && high < (form ? 16 : 256));
			if (low < high && !*in->status)
				frequencies(in, low, high, &tables[count]);
			tables[count].f[low] = low < high ? tables[count].f[low] : 4096;
			if (low == high)
				memset(tables[count].byte_at, (int)low, 4096);
		}
		begin[g + 1] = count;
	}
	k = (unsigned)integer(in, 1);
	need(in->status, k <= 6);
	c = coder_open(in, *in->status ? 0 : k);
	for (size_t i = 0; i < each * n && !*in->status; i++, lane++) {
		unsigned s = 0, t;

		if (i == end) { /* a piece begins */
			piece = i == 0 ? 0 : piece + 1;
			need(in->status, of[n + piece] < groups && (of[piece] == 255 ? ref != NULL : of[piece] * row * each <= i));
			end += (i == 0 ? first : row) * each;
			lane = 0;
		}
		if (*in->status)
			break;
		if (of[piece] > 0) /* form 1: of the reference's bytes, the half at this place */
			s = (unsigned)(of[piece] < 255 ? x[i - of[piece] * row * each] : form ? (ref[i / 2] >> (i % 2 * 4)) & 15 : ref[i]);
		for (t = begin[of[n + piece]]; t + 1 < begin[of[n + piece] + 1] && bound[t + 1] <= rows_key(f8, dtype, form == 1, s);)
			t++;
		x[i] = (uint8_t)rows_element(f8, dtype, form == 1, code_back(&c, lane, &tables[t]), s);
	}
	coder_close(&c);
	for (size_t i = 0; i < n && !*in->status; i++)
		out[i] = (uint8_t)(form ? x[2 * i] | x[2 * i + 1] << 4 : x[i]);
	free(tables);
}
