/*
 * json_out.c - the JSON writer.
 *
 * It appends to a tpd_buf, whose one check at the end also covers this.
 * Commas come from one bit a level.  Misuse (a value where a key must be) is
 * a mistake in our code and asserted.  What cannot be said in JSON is replaced
 * by what can: bytes that are not UTF-8 by U+FFFD, NaN and infinities by null.
 */
#include "base/tpd.h"

#include "base/json.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

struct tpd_json_out tpd_json_out_make(struct tpd_buf *buf)
{
	return (struct tpd_json_out){.buf = buf};
}

/* Before every item of a level: the comma, if it is not the first. */
static void separate(struct tpd_json_out *out)
{
	uint64_t bit = (uint64_t)1 << out->depth;

	if (out->after_key) {
		out->after_key = false;
		return;
	}
	if (out->has_items & bit)
		tpd_buf_u8(out->buf, ',');
	out->has_items |= bit;
}

static void begin(struct tpd_json_out *out, char c)
{
	separate(out);
	tpd_buf_u8(out->buf, (uint8_t)c);
	assert(out->depth < 63);
	out->depth++;
	out->has_items &= ~((uint64_t)1 << out->depth);
}

static void end(struct tpd_json_out *out, char c)
{
	assert(out->depth > 0 && !out->after_key);
	out->depth--;
	tpd_buf_u8(out->buf, (uint8_t)c);
}

void tpd_json_begin_object(struct tpd_json_out *out)
{
	begin(out, '{');
}

void tpd_json_end_object(struct tpd_json_out *out)
{
	end(out, '}');
}

void tpd_json_begin_array(struct tpd_json_out *out)
{
	begin(out, '[');
}

void tpd_json_end_array(struct tpd_json_out *out)
{
	end(out, ']');
}

static void put_quoted(struct tpd_buf *buf, const char *s)
{
	size_t len = strlen(s);

	tpd_buf_u8(buf, '"');
	while (len > 0) {
		size_t n = tpd_text_utf8(s, len);

		if (n == 0) {
			tpd_buf_put(buf, "\xef\xbf\xbd", 3); /* U+FFFD */
			n = 1;
		} else if (*s == '"' || *s == '\\') {
			tpd_buf_u8(buf, '\\');
			tpd_buf_u8(buf, (uint8_t)*s);
		} else if (*s == '\n') {
			tpd_buf_put(buf, "\\n", 2);
		} else if (*s == '\t') {
			tpd_buf_put(buf, "\\t", 2);
		} else if ((uint8_t)*s < 0x20) {
			tpd_buf_printf(buf, "\\u%04x", (unsigned)(uint8_t)*s);
		} else {
			tpd_buf_put(buf, s, n);
		}
		s += n;
		len -= n;
	}
	tpd_buf_u8(buf, '"');
}

void tpd_json_key(struct tpd_json_out *out, const char *key)
{
	assert(out->depth > 0 && !out->after_key);
	separate(out);
	put_quoted(out->buf, key);
	tpd_buf_u8(out->buf, ':');
	out->after_key = true;
}

void tpd_json_put_string(struct tpd_json_out *out, const char *s)
{
	if (!s) {
		tpd_json_put_null(out);
		return;
	}
	separate(out);
	put_quoted(out->buf, s);
}

void tpd_json_put_u64(struct tpd_json_out *out, uint64_t v)
{
	separate(out);
	tpd_buf_printf(out->buf, "%llu", (unsigned long long)v);
}

void tpd_json_put_i64(struct tpd_json_out *out, int64_t v)
{
	separate(out);
	tpd_buf_printf(out->buf, "%lld", (long long)v);
}

void tpd_json_put_f64(struct tpd_json_out *out, double v)
{
	char text[32];

	if (!isfinite(v)) {
		tpd_json_put_null(out);
		return;
	}
	separate(out);
	for (int digits = 1; digits <= 17; digits++) { /* 17 always do */
		snprintf(text, sizeof text, "%.*g", digits, v);
		if (strtod(text, NULL) == v)
			break;
	}
	tpd_buf_put(out->buf, text, strlen(text));
}

void tpd_json_put_bool(struct tpd_json_out *out, bool v)
{
	separate(out);
	if (v)
		tpd_buf_put(out->buf, "true", 4);
	else
		tpd_buf_put(out->buf, "false", 5);
}

void tpd_json_put_null(struct tpd_json_out *out)
{
	separate(out);
	tpd_buf_put(out->buf, "null", 4);
}
