/*
 * second_reader.h - what the second decoder reads with: bytes, integers and numbers, checked. For second_decoder.c and second_scaled.c, and what they
 * share.
 */
#ifndef TESTS_SECOND_READER_H
#define TESTS_SECOND_READER_H

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "second_decoder.h"

/* How the patterns of an element are laid out; mantissa is 0 for what is not F32, F16 or BF16 (Q is the pattern). */
struct layout {
	unsigned width, mantissa, tmax; /* width and mantissa in bits */
};

struct reader {
	const uint8_t *at;
	uint64_t left;
	int *status;
};

static inline void fail(int *status, int why)
{
	if (*status == SECOND_OK)
		*status = why;
}

static inline void need(int *status, bool rule)
{
	if (!rule)
		fail(status, SECOND_CORRUPT);
}

/* The next n bytes as a reader of their own; an empty one when there are fewer. */
static inline struct reader take(struct reader *in, uint64_t n)
{
	struct reader part = {.at = in->at, .left = n <= in->left ? n : 0, .status = in->status};

	need(in->status, n <= in->left);
	if (part.left > 0)
		in->at += part.left;
	in->left -= part.left;
	return part;
}

static inline uint64_t load(const uint8_t *at, unsigned bytes)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < bytes; i++)
		v |= (uint64_t)at[i] << (8 * i);
	return v;
}

static inline void store(uint8_t *at, unsigned bytes, uint64_t v)
{
	for (unsigned i = 0; i < bytes; i++)
		at[i] = (uint8_t)(v >> (8 * i));
}

static inline uint64_t integer(struct reader *in, unsigned bytes)
{
	struct reader part = take(in, bytes);

	return load(part.at, (unsigned)part.left);
}

/* LEB128 of 64 bits in its shortest form: the last byte of several is not 0. */
static inline uint64_t varint(struct reader *in)
{
	uint64_t v = 0, byte = 128;

	for (unsigned i = 0; i < 10 && byte >= 128; i++) {
		byte = integer(in, 1);
		need(in->status, (i == 0 || byte > 0) && (i < 9 || byte == 1));
		v |= (byte & 127) << (7 * i);
	}
	return v;
}

static inline float float_of_bits(uint64_t bits)
{
	uint32_t narrow = (uint32_t)bits;
	float v;

	memcpy(&v, &narrow, sizeof v);
	return v;
}

static inline float float_at(const uint8_t *data, size_t len, size_t i)
{
	return float_of_bits(data && (i + 1) * 4 <= len ? load(data + i * 4, 4) : 0);
}

/* A 16-bit pattern as a number, and the pattern that is closest to a number, ties to the even one. */
static inline float widen(const struct layout *l, uint32_t x)
{
	uint32_t exponent = x >> l->mantissa & (l->mantissa == 7 ? 255 : 31), low = x & ((1u << l->mantissa) - 1);

	if (l->mantissa == 7)
		return float_of_bits((uint64_t)x << 16);
	if (exponent == 31)
		return low ? NAN : x >> 15 ? -INFINITY : INFINITY;
	return ldexpf((x >> 15 ? -1.0f : 1.0f) * (float)(low + (exponent > 0 ? 1024 : 0)), (int)(exponent > 0 ? exponent : 1) - 25);
}

static inline uint16_t closest(const struct layout *l, float v, uint16_t otherwise)
{
	uint32_t low = 0, high = (l->tmax + 1) << l->mantissa; /* of absolute values: infinite */
	uint16_t sign = signbit(v) ? 0x8000 : 0;
	double size = fabs((double)v), middle;

	if (!isfinite(v))
		return otherwise;
	while (high - low > 1) { /* the largest that is not above it */
		uint32_t between = (low + high) / 2;

		if ((double)widen(l, between) <= size)
			low = between;
		else
			high = between;
	}
	/* Where the next one is infinite, it stands for the number that would follow. */
	middle = (double)widen(l, low) + ldexp(1, (int)(low >> l->mantissa ? low >> l->mantissa : 1) - (l->mantissa == 7 ? 134 : 25)) / 2;
	if (size > middle || (size == middle && low % 2 == 1))
		low++;
	return low == (l->tmax + 1) << l->mantissa ? otherwise : (uint16_t)(sign | low);
}

/* --- second_decoder.c --- */

/* Section 4: B. */
struct fields {
	struct reader words;
	uint8_t last[80];           /* then these, in whole words */
	unsigned last_at, last_len; /* bytes */
	uint64_t queue[16]; /* of each lane; its front is the least significant bit */
	unsigned held[16];  /* bits in the queue, at most 63 */
};

uint64_t second_field(struct fields *b, size_t index, unsigned bits);
struct fields second_fields_open(struct reader *in);
void second_fields_close(const struct fields *b);
int64_t second_wrap(int64_t v, unsigned width);
int64_t second_to_grid(const struct layout *l, uint64_t x, unsigned t);
uint64_t second_from_grid(const struct layout *l, int64_t q, unsigned t, struct fields *b, size_t index);

/* --- second_scaled.c: section 11, in out, which holds p; alone: that is 0 --- */

void second_scaled(struct reader *in, const struct layout *l, bool alone, const struct second_input inputs[5], uint8_t *out, size_t n);

#endif
