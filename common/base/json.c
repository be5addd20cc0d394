/*
 * json.c - a strict pull parser for JSON (RFC 8259).
 *
 * A state machine over borrowed text: one byte a level says whether that level
 * is an object or an array, `state` says what may come next.  Every string is
 * checked when it is passed (UTF-8, escapes, surrogate pairs), so that decoding
 * it later cannot fail on its form.  A lone surrogate is refused: it has no
 * UTF-8.  Rejected: a tree (ten times the text for a hostile header), recursion
 * (the input would choose its depth), and a library (json-c and jansson build
 * trees, and accept more than the standard).
 */
#include "base/tpd.h"

#include "base/json.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

#define NUMBER_TEXT 1100 /* the longest exact double has 767 significant digits; longer literals are not converted */

enum state {
	STATE_VALUE,        /* a value must come */
	STATE_FIRST_ITEM,   /* a value or ] */
	STATE_FIRST_KEY,    /* a key or } */
	STATE_COLON,        /* : and a value, after a key */
	STATE_AFTER,        /* after a value inside something: , or the end of it */
	STATE_DONE,         /* the outermost value is complete */
	STATE_ERROR,
};

enum level { LEVEL_OBJECT, LEVEL_ARRAY };

struct tpd_json tpd_json_make(const char *text, size_t len)
{
	return (struct tpd_json){.p = text, .end = len ? text + len : text, .state = STATE_VALUE};
}

static enum tpd_json_kind fail(struct tpd_json *js)
{
	js->state = STATE_ERROR;
	return TPD_JSON_ERROR;
}

static void skip_space(struct tpd_json *js)
{
	while (js->p < js->end && (*js->p == ' ' || *js->p == '\n' || *js->p == '\r' || *js->p == '\t'))
		js->p++;
}

/* The byte at p, or 0 at the end (a zero byte is valid nowhere). */
static char peek(const struct tpd_json *js)
{
	return js->p < js->end ? *js->p : 0;
}

/* Four hex digits at p, of which `left` bytes are there. */
static bool hex4(const char *p, size_t left, uint32_t *out_v)
{
	uint32_t v = 0;

	if (left < 4)
		return false;
	for (int i = 0; i < 4; i++) {
		char c = p[i];

		if (c >= '0' && c <= '9')
			v = v << 4 | (uint32_t)(c - '0');
		else if (c >= 'a' && c <= 'f')
			v = v << 4 | (uint32_t)(c - 'a' + 10);
		else if (c >= 'A' && c <= 'F')
			v = v << 4 | (uint32_t)(c - 'A' + 10);
		else
			return false;
	}
	*out_v = v;
	return true;
}

static size_t put_utf8(uint32_t c, char out[4])
{
	if (c < 0x80) {
		out[0] = (char)c;
		return 1;
	}
	if (c < 0x800) {
		out[0] = (char)(0xc0 | c >> 6);
		out[1] = (char)(0x80 | (c & 0x3f));
		return 2;
	}
	if (c < 0x10000) {
		out[0] = (char)(0xe0 | c >> 12);
		out[1] = (char)(0x80 | (c >> 6 & 0x3f));
		out[2] = (char)(0x80 | (c & 0x3f));
		return 3;
	}
	out[0] = (char)(0xf0 | c >> 18);
	out[1] = (char)(0x80 | (c >> 12 & 0x3f));
	out[2] = (char)(0x80 | (c >> 6 & 0x3f));
	out[3] = (char)(0x80 | (c & 0x3f));
	return 4;
}

/*
 * One character of a string's raw text at p: *out_used bytes of it, decoded to the returned number of
 * bytes.  0: ill-formed.
 */
static size_t decode_char(const char *p, size_t left, size_t *out_used, char out[4])
{
	static const char escapes[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
	const char *e;
	uint32_t c, second;
	size_t n;

	if (*p != '\\') {
		n = tpd_text_utf8(p, left);
		if (n == 0 || (uint8_t)*p < 0x20)
			return 0;
		memcpy(out, p, n);
		*out_used = n;
		return n;
	}
	if (left < 2 || p[1] == 0)
		return 0;
	e = strchr(escapes, p[1]);
	if (e) {
		out[0] = meanings[e - escapes];
		*out_used = 2;
		return 1;
	}
	if (p[1] != 'u' || !hex4(p + 2, left - 2, &c))
		return 0;
	*out_used = 6;
	if (c >= 0xd800 && c <= 0xdfff) {
		if (c >= 0xdc00 || left < 12 || p[6] != '\\' || p[7] != 'u' || !hex4(p + 8, left - 8, &second) ||
		    second < 0xdc00 || second > 0xdfff)
			return 0;
		c = 0x10000 + ((c - 0xd800) << 10) + (second - 0xdc00);
		*out_used = 12;
	}
	return put_utf8(c, out);
}

/* p is at the opening quote; it moves behind the closing one. */
static bool scan_string(struct tpd_json *js)
{
	const char *p = js->p + 1;
	char decoded[4];
	size_t used;

	js->text = p;
	while (p < js->end) {
		if (*p == '"') {
			js->text_len = (size_t)(p - js->text);
			js->p = p + 1;
			return true;
		}
		if ((uint8_t)*p >= 0x20 && (uint8_t)*p < 0x80 && *p != '\\') {
			p++; /* nearly all of them */
			continue;
		}
		if (decode_char(p, (size_t)(js->end - p), &used, decoded) == 0)
			return false;
		p += used;
	}
	return false;
}

static bool skip_digits(struct tpd_json *js)
{
	const char *begin = js->p;

	while (peek(js) >= '0' && peek(js) <= '9')
		js->p++;
	return js->p > begin;
}

static bool scan_number(struct tpd_json *js)
{
	js->text = js->p;
	if (peek(js) == '-')
		js->p++;
	if (peek(js) == '0')
		js->p++;
	else if (!skip_digits(js))
		return false;
	if (peek(js) == '.') {
		js->p++;
		if (!skip_digits(js))
			return false;
	}
	if (peek(js) == 'e' || peek(js) == 'E') {
		js->p++;
		if (peek(js) == '+' || peek(js) == '-')
			js->p++;
		if (!skip_digits(js))
			return false;
	}
	js->text_len = (size_t)(js->p - js->text);
	return true;
}

static bool scan_word(struct tpd_json *js, const char *word)
{
	size_t len = strlen(word);

	if ((size_t)(js->end - js->p) < len || memcmp(js->p, word, len) != 0)
		return false;
	js->p += len;
	return true;
}

static void after_value(struct tpd_json *js)
{
	js->state = js->depth ? STATE_AFTER : STATE_DONE;
}

static enum tpd_json_kind open_level(struct tpd_json *js, enum level level)
{
	if (js->depth == TPD_JSON_DEPTH)
		return fail(js);
	js->p++;
	js->stack[js->depth++] = (uint8_t)level;
	js->state = level == LEVEL_OBJECT ? STATE_FIRST_KEY : STATE_FIRST_ITEM;
	return level == LEVEL_OBJECT ? TPD_JSON_OBJECT : TPD_JSON_ARRAY;
}

static enum tpd_json_kind close_level(struct tpd_json *js)
{
	enum level level = js->stack[--js->depth];

	js->p++;
	after_value(js);
	return level == LEVEL_OBJECT ? TPD_JSON_OBJECT_END : TPD_JSON_ARRAY_END;
}

static enum tpd_json_kind read_value(struct tpd_json *js)
{
	enum tpd_json_kind kind;
	bool good;

	switch (peek(js)) {
	case '{':
		return open_level(js, LEVEL_OBJECT);
	case '[':
		return open_level(js, LEVEL_ARRAY);
	case '"':
		kind = TPD_JSON_STRING;
		good = scan_string(js);
		break;
	case 't':
		kind = TPD_JSON_TRUE;
		good = scan_word(js, "true");
		break;
	case 'f':
		kind = TPD_JSON_FALSE;
		good = scan_word(js, "false");
		break;
	case 'n':
		kind = TPD_JSON_NULL;
		good = scan_word(js, "null");
		break;
	default:
		kind = TPD_JSON_NUMBER;
		good = scan_number(js);
		break;
	}
	if (!good)
		return fail(js);
	after_value(js);
	return kind;
}

static enum tpd_json_kind read_key(struct tpd_json *js)
{
	if (peek(js) != '"' || !scan_string(js))
		return fail(js);
	js->state = STATE_COLON;
	return TPD_JSON_KEY;
}

enum tpd_json_kind tpd_json_next(struct tpd_json *js)
{
	enum level level;

	if (js->state == STATE_ERROR)
		return TPD_JSON_ERROR;
	skip_space(js);
	switch ((enum state)js->state) {
	case STATE_VALUE:
		return read_value(js);
	case STATE_FIRST_ITEM:
		return peek(js) == ']' ? close_level(js) : read_value(js);
	case STATE_FIRST_KEY:
		return peek(js) == '}' ? close_level(js) : read_key(js);
	case STATE_COLON:
		if (peek(js) != ':')
			return fail(js);
		js->p++;
		skip_space(js);
		return read_value(js);
	case STATE_AFTER:
		level = js->stack[js->depth - 1];
		if (peek(js) == (level == LEVEL_OBJECT ? '}' : ']'))
			return close_level(js);
		if (peek(js) != ',')
			return fail(js);
		js->p++;
		skip_space(js);
		return level == LEVEL_OBJECT ? read_key(js) : read_value(js);
	case STATE_DONE:
		return js->p == js->end ? TPD_JSON_END : fail(js);
	case STATE_ERROR:
		break;
	}
	return TPD_JSON_ERROR;
}

bool tpd_json_skip(struct tpd_json *js, enum tpd_json_kind kind)
{
	unsigned outside;

	switch (kind) {
	case TPD_JSON_STRING:
	case TPD_JSON_NUMBER:
	case TPD_JSON_TRUE:
	case TPD_JSON_FALSE:
	case TPD_JSON_NULL:
		return true;
	case TPD_JSON_OBJECT:
	case TPD_JSON_ARRAY:
		break;
	default:
		return false; /* no value begins with these */
	}
	outside = js->depth - 1;
	while (js->depth > outside) {
		if (tpd_json_next(js) == TPD_JSON_ERROR)
			return false;
	}
	return true;
}

char *tpd_json_string(const struct tpd_json *js)
{
	const char *p = js->text, *end = p + js->text_len;
	char *s = malloc(js->text_len + 1), *to = s; /* decoded text is never longer than its escapes */
	char decoded[4];
	size_t used, n;

	if (!s)
		return NULL;
	for (; p < end; p += used) {
		n = decode_char(p, (size_t)(end - p), &used, decoded);
		if (n == 0 || decoded[0] == 0) {
			free(s);
			return NULL;
		}
		memcpy(to, decoded, n);
		to += n;
	}
	*to = 0;
	return s;
}

bool tpd_json_is(const struct tpd_json *js, const char *s)
{
	const char *p = js->text, *end = p + js->text_len;
	char decoded[4];
	size_t used, n;

	for (; p < end; p += used) {
		n = decode_char(p, (size_t)(end - p), &used, decoded);
		if (n == 0 || decoded[0] == 0 || strncmp(s, decoded, n) != 0)
			return false;
		s += n;
	}
	return *s == 0;
}

bool tpd_json_u64(const struct tpd_json *js, uint64_t *out_v)
{
	uint64_t v = 0;

	if (js->text_len == 0 || (js->text_len > 1 && js->text[0] == '0'))
		return false;
	for (size_t i = 0; i < js->text_len; i++) {
		char c = js->text[i];

		if (c < '0' || c > '9' || TPD_MUL_OVERFLOW(v, (uint64_t)10, &v) ||
		    TPD_ADD_OVERFLOW(v, (uint64_t)(c - '0'), &v))
			return false;
	}
	*out_v = v;
	return true;
}

bool tpd_json_f64(const struct tpd_json *js, double *out_v)
{
	char text[NUMBER_TEXT], *end;
	int saved = errno;
	double v;

	if (js->text_len == 0 || js->text_len >= sizeof text)
		return false;
	memcpy(text, js->text, js->text_len);
	text[js->text_len] = 0;
	v = strtod(text, &end);
	errno = saved;
	if (*end != 0 || !isfinite(v))
		return false;
	*out_v = v;
	return true;
}

void tpd_json_tame(char *text, size_t len)
{
	static const char *const words[] = {"-Infinity", "Infinity", "NaN"};
	bool in_string = false;

	for (size_t i = 0; i < len; i++) {
		if (in_string && text[i] == '\\') {
			i++;
			continue;
		}
		if (text[i] == '"')
			in_string = !in_string;
		for (size_t w = 0; w < TPD_ARRAY_LEN(words) && !in_string; w++) {
			size_t n = strlen(words[w]);

			if (len - i >= n && memcmp(text + i, words[w], n) == 0) {
				memset(text + i, ' ', n);
				text[i] = '['; /* null does not fit into NaN */
				text[i + n - 1] = ']';
				break;
			}
		}
	}
}
