/*
 * second_symbols.h - how the second decoder reads symbols: Zstandard frames, frequencies, rANS (sections 2 and 3). For second_*.c.
 */
#ifndef TESTS_SECOND_SYMBOLS_H
#define TESTS_SECOND_SYMBOLS_H

#include <zstd.h>

#include "second_reader.h"

/* Section 2: all that `in` holds is one frame, of exactly n bytes, with a window of at most 2^23. */
static inline void zstd_frame(struct reader in, const uint8_t *ref, size_t ref_len, uint8_t *out, size_t n)
{
	size_t size = (size_t)in.left;
	uint64_t window = n; /* a frame of a single segment: its content */
	ZSTD_DCtx *ctx;

	/* A skippable frame is no Zstandard frame, but the library would skip it: hence the magic number. */
	need(in.status, size >= 6 && load(in.at, 4) == 0xfd2fb528);
	if (*in.status)
		return;
	if (!(in.at[4] & 0x20)) {
		window = 1ull << (10 + (in.at[5] >> 3));
		window += window / 8 * (in.at[5] & 7);
	}
	need(in.status, window <= 1u << 23 && ZSTD_findFrameCompressedSize(in.at, size) == size);
	ctx = ZSTD_createDCtx();
	if (!ctx || (ref_len > 0 && ZSTD_isError(ZSTD_DCtx_refPrefix(ctx, ref, ref_len))))
		fail(in.status, SECOND_NOMEM);
	if (!*in.status)
		need(in.status, ZSTD_decompressDCtx(ctx, out, n, in.at, size) == n);
	ZSTD_freeDCtx(ctx);
}

/* Section 3: what a coder knows of each byte value. */
struct table {
	uint32_t f[256], cum[256];
	uint8_t byte_at[4096];
};

/* From `first` to `last`, of which both occur. */
static inline void frequencies(struct reader *in, unsigned first, unsigned last, struct table *t)
{
	uint32_t sum = 0;

	memset(t, 0, sizeof *t);
	for (unsigned s = first; s <= last && !*in->status; s++) {
		uint64_t v = varint(in);

		need(in->status, v <= 4096 - sum);
		if (*in->status)
			return;
		t->f[s] = (uint32_t)v;
		t->cum[s] = sum;
		memset(t->byte_at + sum, (int)s, t->f[s]);
		sum += t->f[s];
		if (v == 0) {
			s += (unsigned)integer(in, 1);
			need(in->status, s < last);
		}
	}
	need(in->status, sum == 4096 && t->f[first] > 0 && t->f[last] > 0);
}

/* Section 3: the lanes. */
struct coder {
	unsigned lanes;
	uint32_t state[64];
	struct reader words;
};

static inline void coder_states(struct reader *in, unsigned k, struct coder *c)
{
	c->lanes = 1u << k;
	for (unsigned lane = 0; lane < c->lanes; lane++) {
		c->state[lane] = (uint32_t)integer(in, 4);
		need(in->status, c->state[lane] >= 1u << 15 && c->state[lane] < 1u << 31);
	}
}

static inline struct coder coder_open(struct reader *in, unsigned k)
{
	struct coder c = {.lanes = 1};
	uint64_t w = integer(in, 4);

	coder_states(in, k, &c);
	c.words = take(in, 2 * w);
	return c;
}

static inline uint8_t code_back(struct coder *c, size_t i, const struct table *t)
{
	uint32_t *x = &c->state[i % c->lanes];
	uint32_t slot = *x % 4096;
	uint8_t s = t->byte_at[slot];

	*x = t->f[s] * (*x >> 12) + slot - t->cum[s];
	if (*x < 1u << 15)
		*x = *x << 16 | (uint32_t)integer(&c->words, 2);
	return s;
}

static inline void coder_close(const struct coder *c)
{
	need(c->words.status, c->words.left == 0);
	for (unsigned lane = 0; lane < c->lanes; lane++)
		need(c->words.status, c->state[lane] == 1u << 15);
}

/* Section 3, coder 3. */
static inline void rans(struct reader *in, uint8_t *out, size_t n)
{
	unsigned k = (unsigned)integer(in, 1), first = (unsigned)integer(in, 1), last = (unsigned)integer(in, 1);
	struct table table;
	struct coder c;

	need(in->status, k <= 6 && first < last);
	if (!*in->status)
		frequencies(in, first, last, &table);
	if (*in->status)
		return;
	c = coder_open(in, k);
	for (size_t i = 0; i < n && !*in->status; i++)
		out[i] = code_back(&c, i, &table);
	coder_close(&c);
}

/* Section 9: a table of any form (second_tables.c). */
void second_class_table(struct reader *in, struct table *t);
/* Section 3, coder 4. */
void second_curve_coder(struct reader *in, uint8_t *out, size_t n);

/* Section 3: S(n). */
static inline void symbols(struct reader *in, uint8_t *out, size_t n)
{
	uint64_t coder = integer(in, 1);
	struct reader part;

	if (coder > 4)
		fail(in->status, SECOND_UNSUPPORTED);
	need(in->status, n > 0 || coder == 0);
	if (n == 0 || *in->status)
		return;
	if (coder == 0) {
		part = take(in, n);
		memcpy(out, part.at, (size_t)part.left);
	} else if (coder == 1) {
		memset(out, (int)integer(in, 1), n);
	} else if (coder == 2) {
		part = take(in, integer(in, 4));
		zstd_frame(part, NULL, 0, out, n);
	} else if (coder == 3) {
		rans(in, out, n);
	} else {
		second_curve_coder(in, out, n);
	}
}

#endif
