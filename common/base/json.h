/*
 * json.h - a strict pull parser for JSON that allocates nothing but decoded
 * strings, and a writer.
 *
 * The parser exists because the headers that we read are hostile (a
 * safetensors header may be 100 MB): a tree of objects would cost ten times
 * the text.  It checks RFC 8259 whole: UTF-8, escapes, numbers, nesting of at
 * most TPD_JSON_DEPTH, nothing after the value.  Duplicate keys are the
 * caller's to refuse, since only it knows how many there may be.
 *
 *     struct tpd_json js = tpd_json_make(text, len);
 *     for (enum tpd_json_kind k; (k = tpd_json_next(&js)) != TPD_JSON_END; ) ...
 *
 * TPD_JSON_KEY and TPD_JSON_STRING: js.text/js.text_len hold the *raw* bytes between
 * the quotes; tpd_json_string() decodes them.  TPD_JSON_NUMBER: js.text holds
 * its literal.  After TPD_JSON_ERROR every call returns it again.
 */
#ifndef TPD_BASE_JSON_H
#define TPD_BASE_JSON_H

#include "base/bytes.h"
#include "base/tpd.h"

#define TPD_JSON_DEPTH 64

enum tpd_json_kind {
	TPD_JSON_END, /* the one value is complete and only white space followed */
	TPD_JSON_OBJECT,
	TPD_JSON_OBJECT_END,
	TPD_JSON_ARRAY,
	TPD_JSON_ARRAY_END,
	TPD_JSON_KEY,
	TPD_JSON_STRING,
	TPD_JSON_NUMBER,
	TPD_JSON_TRUE,
	TPD_JSON_FALSE,
	TPD_JSON_NULL,
	TPD_JSON_ERROR,
};

struct tpd_json {
	const char *p, *end;   /* where we are */
	const char *text;      /* of the last key, string or number */
	size_t text_len;
	unsigned depth;
	uint8_t stack[TPD_JSON_DEPTH]; /* private: what each level expects */
	uint8_t state;         /* private */
};

/*
 * JSON as Python writes it: NaN, Infinity and -Infinity, which RFC 8259 does not have, become an empty array outside of
 * strings: no number, and never a key. In place and of the same length. Before tpd_json_make().
 */
void tpd_json_tame(char *text, size_t len);
struct tpd_json tpd_json_make(const char *text, size_t len); /* text is borrowed */
enum tpd_json_kind tpd_json_next(struct tpd_json *js);
/* Skip the value whose first token `kind` was just returned; false on error. */
bool tpd_json_skip(struct tpd_json *js, enum tpd_json_kind kind);
/* Decode the last key or string: fresh, zero-terminated UTF-8; NULL: no memory, or it holds U+0000. */
char *tpd_json_string(const struct tpd_json *js);
/* Is the last key or string exactly this (compared after decoding, no allocation)? */
bool tpd_json_is(const struct tpd_json *js, const char *s);
/* The last number as an unsigned integer: digits only, no overflow, no leading zero. */
bool tpd_json_u64(const struct tpd_json *js, uint64_t *out_v);
/* The last number as a double. */
bool tpd_json_f64(const struct tpd_json *js, double *out_v);

/*
 * Writer: commas and indentation-free output by itself.  Keys inside objects, values inside arrays.
 * Strings that are not UTF-8 have their bad bytes written as U+FFFD.  NaN and infinities are written as null.
 */
struct tpd_json_out {
	struct tpd_buf *buf; /* borrowed */
	unsigned depth;
	uint64_t has_items; /* bit per level */
	bool after_key;
};

struct tpd_json_out tpd_json_out_make(struct tpd_buf *buf);
void tpd_json_begin_object(struct tpd_json_out *out);
void tpd_json_end_object(struct tpd_json_out *out);
void tpd_json_begin_array(struct tpd_json_out *out);
void tpd_json_end_array(struct tpd_json_out *out);
void tpd_json_key(struct tpd_json_out *out, const char *key);
void tpd_json_put_string(struct tpd_json_out *out, const char *s); /* NULL writes null */
void tpd_json_put_u64(struct tpd_json_out *out, uint64_t v);
void tpd_json_put_i64(struct tpd_json_out *out, int64_t v);
void tpd_json_put_f64(struct tpd_json_out *out, double v); /* shortest digits that read back equal */
void tpd_json_put_bool(struct tpd_json_out *out, bool v);
void tpd_json_put_null(struct tpd_json_out *out);

#endif
