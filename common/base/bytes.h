/*
 * bytes.h - a growing byte buffer to write little-endian fields into, and a
 * bounded reader over bytes that somebody else wrote.
 *
 * Writer: append calls never fail on their own; running out of memory makes
 * the buffer `failed`, later appends do nothing, and tpd_buf_status() tells
 * once at the end.  Reader: the same idea, a read past the end makes it
 * `failed` and yields 0; check tpd_rd_ok() before the values are used to
 * allocate or index.  varint: LEB128, at most 10 bytes, shortest form only
 * (a longer one fails the reader), so that one value has one encoding.
 */
#ifndef TPD_BASE_BYTES_H
#define TPD_BASE_BYTES_H

#include "base/tpd.h"

#include <string.h>

struct tpd_buf {
	uint8_t *data; /* owned */
	size_t len, cap;
	bool failed;
};

void tpd_buf_release(struct tpd_buf *buf);                      /* frees data; the struct is zeroed and usable again */
void tpd_buf_reserve(struct tpd_buf *buf, size_t extra);        /* room for extra more bytes */
void tpd_buf_put(struct tpd_buf *buf, const void *data, size_t len);
void tpd_buf_u8(struct tpd_buf *buf, uint8_t v);
void tpd_buf_u16(struct tpd_buf *buf, uint16_t v);
void tpd_buf_u32(struct tpd_buf *buf, uint32_t v);
void tpd_buf_u64(struct tpd_buf *buf, uint64_t v);
void tpd_buf_f64(struct tpd_buf *buf, double v);                /* IEEE bits as u64 */
void tpd_buf_varint(struct tpd_buf *buf, uint64_t v);
void tpd_buf_str(struct tpd_buf *buf, const char *s);           /* varint length, bytes, no zero */
void tpd_buf_printf(struct tpd_buf *buf, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
enum tpd_status tpd_buf_status(const struct tpd_buf *buf, struct tpd_err *err); /* TPD_NOMEM when failed */

/* Room for len bytes in a buffer that is used again and again (*buffer NULL and *cap 0 at first); what was in it may be lost. */
enum tpd_status tpd_room(uint8_t **buffer, size_t *cap, size_t len, struct tpd_err *err);

struct tpd_rd {
	const uint8_t *p, *end; /* borrowed */
	bool failed;
};

struct tpd_rd tpd_rd_make(const void *data, size_t len);
uint8_t tpd_rd_u8(struct tpd_rd *rd);
uint16_t tpd_rd_u16(struct tpd_rd *rd);
uint32_t tpd_rd_u32(struct tpd_rd *rd);
uint64_t tpd_rd_u64(struct tpd_rd *rd);
double tpd_rd_f64(struct tpd_rd *rd);
uint64_t tpd_rd_varint(struct tpd_rd *rd);
const uint8_t *tpd_rd_bytes(struct tpd_rd *rd, uint64_t len);   /* NULL when fewer remain */
char *tpd_rd_str(struct tpd_rd *rd, size_t max);                /* fresh, zero-terminated; fails on an inner zero */
size_t tpd_rd_left(const struct tpd_rd *rd);
bool tpd_rd_ok(const struct tpd_rd *rd);                        /* nothing failed so far */
bool tpd_rd_done(const struct tpd_rd *rd);                      /* ok, and all consumed */

/*
 * Unaligned little-endian loads and stores.  By memcpy, which every compiler turns into one instruction; single
 * bytes are not always put together again, and these stand in the codec's innermost loops.
 */
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define TPD_LE16(v) (v)
#define TPD_LE32(v) (v)
#define TPD_LE64(v) (v)
#else
#define TPD_LE16(v) __builtin_bswap16(v)
#define TPD_LE32(v) __builtin_bswap32(v)
#define TPD_LE64(v) __builtin_bswap64(v)
#endif

static inline uint16_t tpd_get_u16(const uint8_t *p)
{
	uint16_t v;

	memcpy(&v, p, sizeof v);
	return TPD_LE16(v);
}
static inline uint32_t tpd_get_u32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof v);
	return TPD_LE32(v);
}
static inline uint64_t tpd_get_u64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof v);
	return TPD_LE64(v);
}
static inline void tpd_put_u16(uint8_t *p, uint16_t v)
{
	v = TPD_LE16(v);
	memcpy(p, &v, sizeof v);
}
static inline void tpd_put_u32(uint8_t *p, uint32_t v)
{
	v = TPD_LE32(v);
	memcpy(p, &v, sizeof v);
}
static inline void tpd_put_u64(uint8_t *p, uint64_t v)
{
	v = TPD_LE64(v);
	memcpy(p, &v, sizeof v);
}

#endif
