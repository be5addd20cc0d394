/*
 * integers_encode.c - elements of 2, 4 and 8 bytes as values, and values as bytes. SPEC.md section 17.
 *
 * Which form is best is tried on the sample (plan.c). What becomes a frame is text in the end, and there Zstandard's highest level without a large
 * window makes 5 % less than what is quick enough to be tried on everything: it is for chunks, of which few come so far.
 */
#include "base/tpd.h"

#include <string.h>

#include "codec/integers.h"

#define FRAME_LEVEL 12
#define FRAME_LEVEL_OF_CHUNKS 19 /* of more elements than a sample has */

bool tpd_integers_may(enum tpd_dtype dtype)
{
	return dtype == TPD_DTYPE_I16 || dtype == TPD_DTYPE_U16 || dtype == TPD_DTYPE_I32 || dtype == TPD_DTYPE_U32 || dtype == TPD_DTYPE_I64 ||
	       dtype == TPD_DTYPE_U64;
}

/* n values; how many bytes the largest has. */
static unsigned make_values(const uint8_t *x, const uint8_t *p, size_t n, unsigned width, unsigned form, uint64_t *values)
{
	const unsigned unused = 64 - 8 * width;
	uint64_t before = 0, any = 0;

	for (size_t i = 0; i < n; i++) {
		uint64_t v = tpd_integer_get(x + i * width, width), step;

		if (p)
			v -= tpd_integer_get(p + i * width, width);
		step = form & TPD_INTEGERS_BEFORE ? v - before : v;
		before = v;
		step <<= unused; /* to where the sign is that of 64 bits */
		if (form & TPD_INTEGERS_ZIGZAG)
			step = (step << 1) ^ ((0 - (step >> 63)) << unused);
		values[i] = step >> unused;
		any |= values[i];
	}
	return any == 0 ? 0 : (71 - (unsigned)__builtin_clzll(any)) / 8;
}

static enum tpd_status put_planes(struct tpd_codec *codec, const uint64_t *values, size_t n, unsigned bytes, uint8_t *out, size_t *out_len,
				  struct tpd_err *err)
{
	enum tpd_status status = TPD_OK;
	size_t part = 0;

	*out_len = 0;
	for (unsigned b = 0; status == TPD_OK && b < bytes; b++) {
		for (size_t i = 0; i < n; i++)
			codec->symbols.data[i] = (uint8_t)(values[i] >> 8 * b);
		status = tpd_symbols_encode(codec, codec->symbols.data, n, out + *out_len, &part, err);
		*out_len += part;
	}
	return status;
}

/* *out_len is SIZE_MAX where it does not fit into cap. */
static enum tpd_status put_frame(struct tpd_codec *codec, const uint64_t *values, size_t n, unsigned bytes, uint8_t *out, size_t cap,
				 size_t *out_len, struct tpd_err *err)
{
	const int level = n > TPD_SAMPLE_ELEMENTS ? FRAME_LEVEL_OF_CHUNKS : FRAME_LEVEL;
	uint8_t *to = codec->symbols.data;

	for (size_t i = 0; i < n; i++)
		for (unsigned b = 0; b < bytes; b++)
			*to++ = (uint8_t)(values[i] >> 8 * b);
	return tpd_zstd_encode(codec->zstd, level, NULL, 0, codec->symbols.data, n * bytes, out, cap, out_len, err);
}

enum tpd_status tpd_encode_integers(struct tpd_codec *codec, enum tpd_dtype dtype, unsigned form, const uint8_t *x, const uint8_t *p, size_t len,
				    size_t *out_len, struct tpd_err *err)
{
	const unsigned width = tpd_dtype_width(dtype);
	const size_t n = len / width, left = len % width, room = width * TPD_SYMBOLS_BOUND(n);
	unsigned bytes;
	uint64_t *values;
	size_t part = 0;
	uint8_t *out;
	enum tpd_status status = tpd_scratch_need(&codec->payload, 2 + room + left, err);

	if (status == TPD_OK)
		status = tpd_scratch_need(&codec->values, n * sizeof(*values), err);
	if (status == TPD_OK)
		status = tpd_scratch_need(&codec->symbols, n * width + 1, err);
	if (status != TPD_OK)
		return status;
	values = (uint64_t *)(void *)codec->values.data;
	bytes = make_values(x, p, n, width, form, values);
	out = codec->payload.data;
	*out++ = (uint8_t)form;
	*out++ = (uint8_t)bytes;
	if (form & TPD_INTEGERS_FRAME && bytes > 0)
		status = put_frame(codec, values, n, bytes, out, room, &part, err);
	else
		status = put_planes(codec, values, n, bytes, out, &part, err);
	*out_len = SIZE_MAX;
	if (status != TPD_OK || part == SIZE_MAX)
		return status;
	memcpy(out + part, x + n * width, left);
	*out_len = 2 + part + left;
	return TPD_OK;
}
