/*
 * integers_decode.c - the way back from integers_encode.c: bytes, values, elements.
 */
#include "base/tpd.h"

#include <string.h>

#include "codec/integers.h"

static enum tpd_status corrupt(struct tpd_err *err, const char *what)
{
	return tpd_fail(err, TPD_CORRUPT, "integers: %s", what);
}

/* Elements from values, in the places of which they stand. */
static void make_elements(const uint64_t *values, const uint8_t *p, size_t n, unsigned width, unsigned form, uint8_t *out)
{
	uint64_t before = 0;

	for (size_t i = 0; i < n; i++) {
		uint64_t v = values[i];

		if (form & TPD_INTEGERS_ZIGZAG)
			v = v >> 1 ^ (0 - (v & 1));
		if (form & TPD_INTEGERS_BEFORE)
			v += before;
		before = v;
		tpd_integer_put(out + i * width, width, p ? v + tpd_integer_get(p + i * width, width) : v);
	}
}

static enum tpd_status read_planes(struct tpd_codec *codec, struct tpd_rd *rd, size_t n, unsigned bytes, uint64_t *values, struct tpd_err *err)
{
	enum tpd_status status = TPD_OK;

	for (unsigned b = 0; status == TPD_OK && b < bytes; b++) {
		status = tpd_symbols_decode(codec, rd, codec->symbols.data, n, err);
		for (size_t i = 0; status == TPD_OK && i < n; i++)
			values[i] |= (uint64_t)codec->symbols.data[i] << 8 * b;
	}
	return status;
}

static enum tpd_status read_frame(struct tpd_codec *codec, struct tpd_rd *rd, size_t frame_len, size_t n, unsigned bytes, uint64_t *values,
				  struct tpd_err *err)
{
	const uint8_t *frame = tpd_rd_bytes(rd, frame_len), *from = codec->symbols.data;
	enum tpd_status status = tpd_zstd_decode(codec->zstd, NULL, 0, frame, frame_len, codec->symbols.data, n * bytes, err);

	for (size_t i = 0; status == TPD_OK && i < n; i++)
		for (unsigned b = 0; b < bytes; b++)
			values[i] |= (uint64_t)*from++ << 8 * b;
	return status;
}

enum tpd_status tpd_decode_integers(struct tpd_codec *codec, enum tpd_dtype dtype, struct tpd_rd *rd, const uint8_t *p, uint8_t *out, size_t len,
				    struct tpd_err *err)
{
	const unsigned width = tpd_dtype_width(dtype), form = tpd_rd_u8(rd), bytes = tpd_rd_u8(rd);
	const size_t n = len / width, left = len % width;
	uint64_t *values;
	enum tpd_status status;

	if (!tpd_rd_ok(rd))
		return corrupt(err, "ends inside its header");
	if (form >= TPD_INTEGERS_FORMS)
		return tpd_fail(err, TPD_UNSUPPORTED, "integers: an unknown form %u", form);
	if (bytes > width || tpd_rd_left(rd) < left)
		return corrupt(err, "bad header");
	status = tpd_scratch_need(&codec->values, n * sizeof(*values) + 1, err);
	if (status == TPD_OK)
		status = tpd_scratch_need(&codec->symbols, n * width + 1, err);
	if (status != TPD_OK)
		return status;
	values = (uint64_t *)(void *)codec->values.data;
	memset(values, 0, n * sizeof(*values));
	if (!(form & TPD_INTEGERS_FRAME))
		status = read_planes(codec, rd, n, bytes, values, err);
	else if (n > 0 && bytes > 0)
		status = read_frame(codec, rd, (size_t)tpd_rd_left(rd) - left, n, bytes, values, err);
	if (status != TPD_OK)
		return status;
	if (tpd_rd_left(rd) != left)
		return corrupt(err, "the payload has the wrong length");
	make_elements(values, p, n, width, form, out);
	memcpy(out + n * width, tpd_rd_bytes(rd, left), left);
	return TPD_OK;
}
