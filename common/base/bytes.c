/*
 * bytes.c - the growing little-endian writer and the bounded reader.
 *
 * Both are "sticky": one failed step makes all later ones do nothing, so that
 * a record is written or read as a plain list of fields with one check at the
 * end.  Rejected: a status from every call (five times the lines, and the one
 * forgotten check is the bug).
 */
#include "base/tpd.h"

#include "base/bytes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BUF_FIRST 256 /* first allocation: most records are small */

void tpd_buf_release(struct tpd_buf *buf)
{
	free(buf->data);
	*buf = (struct tpd_buf){0};
}

void tpd_buf_reserve(struct tpd_buf *buf, size_t extra)
{
	size_t need, cap;
	uint8_t *data;

	if (buf->failed)
		return;
	if (TPD_ADD_OVERFLOW(buf->len, extra, &need)) {
		buf->failed = true;
		return;
	}
	if (need <= buf->cap)
		return;
	if (TPD_MUL_OVERFLOW(buf->cap, (size_t)2, &cap) || cap < need)
		cap = need;
	if (cap < BUF_FIRST)
		cap = BUF_FIRST;
	data = realloc(buf->data, cap);
	if (!data) {
		buf->failed = true;
		return;
	}
	buf->data = data;
	buf->cap = cap;
}

void tpd_buf_put(struct tpd_buf *buf, const void *data, size_t len)
{
	tpd_buf_reserve(buf, len);
	if (buf->failed || len == 0)
		return;
	memcpy(buf->data + buf->len, data, len);
	buf->len += len;
}

void tpd_buf_u8(struct tpd_buf *buf, uint8_t v)
{
	tpd_buf_put(buf, &v, 1);
}

void tpd_buf_u16(struct tpd_buf *buf, uint16_t v)
{
	uint8_t b[2];

	tpd_put_u16(b, v);
	tpd_buf_put(buf, b, sizeof b);
}

void tpd_buf_u32(struct tpd_buf *buf, uint32_t v)
{
	uint8_t b[4];

	tpd_put_u32(b, v);
	tpd_buf_put(buf, b, sizeof b);
}

void tpd_buf_u64(struct tpd_buf *buf, uint64_t v)
{
	uint8_t b[8];

	tpd_put_u64(b, v);
	tpd_buf_put(buf, b, sizeof b);
}

void tpd_buf_f64(struct tpd_buf *buf, double v)
{
	uint64_t bits;

	memcpy(&bits, &v, sizeof bits);
	tpd_buf_u64(buf, bits);
}

void tpd_buf_varint(struct tpd_buf *buf, uint64_t v)
{
	uint8_t b[10];
	size_t n = 0;

	for (; v >= 0x80; v >>= 7)
		b[n++] = (uint8_t)(v | 0x80);
	b[n++] = (uint8_t)v;
	tpd_buf_put(buf, b, n);
}

void tpd_buf_str(struct tpd_buf *buf, const char *s)
{
	size_t len = strlen(s);

	tpd_buf_varint(buf, len);
	tpd_buf_put(buf, s, len);
}

void tpd_buf_printf(struct tpd_buf *buf, const char *fmt, ...)
{
	va_list args;
	int n;

	va_start(args, fmt);
	n = vsnprintf(NULL, 0, fmt, args);
	va_end(args);
	if (n < 0) {
		buf->failed = true;
		return;
	}
	tpd_buf_reserve(buf, (size_t)n + 1); /* vsnprintf wants room for its zero, which is not counted */
	if (buf->failed)
		return;
	va_start(args, fmt);
	vsnprintf((char *)buf->data + buf->len, (size_t)n + 1, fmt, args);
	va_end(args);
	buf->len += (size_t)n;
}

enum tpd_status tpd_buf_status(const struct tpd_buf *buf, struct tpd_err *err)
{
	return buf->failed ? tpd_fail_nomem(err) : TPD_OK;
}

enum tpd_status tpd_room(uint8_t **buffer, size_t *cap, size_t len, struct tpd_err *err)
{
	if (len <= *cap)
		return TPD_OK;
	free(*buffer);
	*cap = 0;
	*buffer = malloc(len);
	if (!*buffer)
		return tpd_fail_nomem(err);
	*cap = len;
	return TPD_OK;
}

struct tpd_rd tpd_rd_make(const void *data, size_t len)
{
	const uint8_t *p = data;

	return (struct tpd_rd){.p = p, .end = len ? p + len : p};
}

const uint8_t *tpd_rd_bytes(struct tpd_rd *rd, uint64_t len)
{
	const uint8_t *p = rd->p;

	if (rd->failed || len > tpd_rd_left(rd)) {
		rd->failed = true;
		return NULL;
	}
	if (len)
		rd->p += len;
	return p ? p : (const uint8_t *)""; /* nothing of nothing is no failure */
}

uint8_t tpd_rd_u8(struct tpd_rd *rd)
{
	const uint8_t *p = tpd_rd_bytes(rd, 1);

	return p ? *p : 0;
}

uint16_t tpd_rd_u16(struct tpd_rd *rd)
{
	const uint8_t *p = tpd_rd_bytes(rd, 2);

	return p ? tpd_get_u16(p) : 0;
}

uint32_t tpd_rd_u32(struct tpd_rd *rd)
{
	const uint8_t *p = tpd_rd_bytes(rd, 4);

	return p ? tpd_get_u32(p) : 0;
}

uint64_t tpd_rd_u64(struct tpd_rd *rd)
{
	const uint8_t *p = tpd_rd_bytes(rd, 8);

	return p ? tpd_get_u64(p) : 0;
}

double tpd_rd_f64(struct tpd_rd *rd)
{
	uint64_t bits = tpd_rd_u64(rd);
	double v;

	memcpy(&v, &bits, sizeof v);
	return v;
}

uint64_t tpd_rd_varint(struct tpd_rd *rd)
{
	uint64_t v = 0;

	for (unsigned shift = 0; shift < 70; shift += 7) {
		uint8_t b = tpd_rd_u8(rd);

		if (rd->failed)
			return 0;
		if (shift == 63 && b > 1)
			break; /* bits beyond 64, or an eleventh byte */
		v |= (uint64_t)(b & 0x7f) << shift;
		if (b & 0x80)
			continue;
		if (b == 0 && shift > 0)
			break; /* a shorter form exists */
		return v;
	}
	rd->failed = true;
	return 0;
}

char *tpd_rd_str(struct tpd_rd *rd, size_t max)
{
	uint64_t len = tpd_rd_varint(rd);
	const uint8_t *p;
	char *s;

	if (len > max)
		rd->failed = true;
	p = tpd_rd_bytes(rd, len);
	if (!p)
		return NULL;
	if (memchr(p, 0, (size_t)len)) {
		rd->failed = true;
		return NULL;
	}
	s = malloc((size_t)len + 1);
	if (!s) {
		rd->failed = true;
		return NULL;
	}
	memcpy(s, p, (size_t)len);
	s[len] = 0;
	return s;
}

size_t tpd_rd_left(const struct tpd_rd *rd)
{
	return rd->p ? (size_t)(rd->end - rd->p) : 0;
}

bool tpd_rd_ok(const struct tpd_rd *rd)
{
	return !rd->failed;
}

bool tpd_rd_done(const struct tpd_rd *rd)
{
	return !rd->failed && tpd_rd_left(rd) == 0;
}
