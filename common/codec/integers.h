/*
 * integers.h - encodings `integers` and `integers-ref` (SPEC.md section 17): elements of 2, 4 and 8 bytes that are no floats.
 *
 * Sorted indices have small differences, counters change by little from one checkpoint to the next, token numbers use the low of eight bytes,
 * and repeat. So what is coded is a value or a difference, as bytes, each by what comes of it: symbols, or Zstandard over all of them.
 */
#ifndef TPD_CODEC_INTEGERS_H
#define TPD_CODEC_INTEGERS_H

#include "base/dtype.h"
#include "base/tpd.h"
#include "codec/internal.h"

/* The form byte. */
enum { TPD_INTEGERS_BEFORE = 1, TPD_INTEGERS_ZIGZAG = 2, TPD_INTEGERS_FRAME = 4, TPD_INTEGERS_FORMS = 8 };

bool tpd_integers_may(enum tpd_dtype dtype);

/* p: NULL for `integers`, else as long as the chunk. */
enum tpd_status tpd_encode_integers(struct tpd_codec *codec, enum tpd_dtype dtype, unsigned form, const uint8_t *x, const uint8_t *p, size_t len,
				    size_t *out_len, struct tpd_err *err);
enum tpd_status tpd_decode_integers(struct tpd_codec *codec, enum tpd_dtype dtype, struct tpd_rd *rd, const uint8_t *p, uint8_t *out, size_t len,
				    struct tpd_err *err);

/* An element of `width` bytes, and back: nothing but loads and stores once the width is known. */
static inline uint64_t tpd_integer_get(const uint8_t *from, unsigned width)
{
	switch (width) {
	case 2:
		return tpd_get_u16(from);
	case 4:
		return tpd_get_u32(from);
	default:
		return tpd_get_u64(from);
	}
}

static inline void tpd_integer_put(uint8_t *to, unsigned width, uint64_t v)
{
	switch (width) {
	case 2:
		tpd_put_u16(to, (uint16_t)v);
		break;
	case 4:
		tpd_put_u32(to, (uint32_t)v);
		break;
	default:
		tpd_put_u64(to, v);
		break;
	}
}

#endif
