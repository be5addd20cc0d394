/*
 * text.c - sizes, times and durations as people write them, and names that are
 * safe as one path element.
 *
 * Fractions are read as integers over a power of ten, so that 1.5G is exact on
 * every machine.  Rejected: strtod (locale, hex, "inf", leading space), and
 * names kept as they are with "bad" characters replaced (two runs would meet
 * in one directory; percent-encoding keeps them apart).
 */
#include "base/tpd.h"

#include "base/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#define FRACTION_DIGITS 6     /* times 1024^4 it stays below 2^64 */
#define RUN_NAME_MAX 200
#define PATH_LENGTH_MAX 4095  /* PATH_MAX less the zero */
#define DURATION_MAX 1e12     /* seconds that still fit TPD_TEXT_SIZE */

const char *tpd_text_bytes(uint64_t bytes, char out[TPD_TEXT_SIZE])
{
	static const char units[][3] = {"kB", "MB", "GB", "TB", "PB", "EB"};
	double v = (double)bytes / 1000;
	unsigned unit = 0;

	if (bytes < 1000) {
		snprintf(out, TPD_TEXT_SIZE, "%u B", (unsigned)bytes);
		return out;
	}
	for (; v >= 999.5 && unit + 1 < TPD_ARRAY_LEN(units); unit++)
		v /= 1000;
	/* The bounds are where rounding would bring a fourth digit. */
	snprintf(out, TPD_TEXT_SIZE, "%.*f %s", v < 9.995 ? 2 : v < 99.95 ? 1 : 0, v, units[unit]);
	return out;
}

const char *tpd_text_duration(double seconds, char out[TPD_TEXT_SIZE])
{
	uint64_t s;

	if (!(seconds >= 0))
		seconds = 0; /* NaN too */
	s = (uint64_t)(seconds < DURATION_MAX ? seconds : DURATION_MAX);
	if (s < 3600)
		snprintf(out, TPD_TEXT_SIZE, "%u:%02u", (unsigned)(s / 60), (unsigned)(s % 60));
	else
		snprintf(out, TPD_TEXT_SIZE, "%llu:%02u:%02u", (unsigned long long)(s / 3600),
			 (unsigned)(s / 60 % 60), (unsigned)(s % 60));
	return out;
}

const char *tpd_text_time(int64_t unix_ns, char out[TPD_TEXT_SIZE])
{
	int64_t ns_per_s = 1000000000;
	time_t s = unix_ns / ns_per_s - (unix_ns % ns_per_s < 0);
	struct tm tm;

	if (!gmtime_r(&s, &tm) || strftime(out, TPD_TEXT_SIZE, "%Y-%m-%d %H:%M:%S", &tm) == 0)
		snprintf(out, TPD_TEXT_SIZE, "?"); /* no int64_t of nanoseconds gets here */
	return out;
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* Digits at *s (at least one); moves *s behind them. */
static bool parse_digits(const char **s, uint64_t *out_v)
{
	uint64_t v = 0;

	if (!is_digit(**s))
		return false;
	for (; is_digit(**s); (*s)++) {
		if (TPD_MUL_OVERFLOW(v, (uint64_t)10, &v) || TPD_ADD_OVERFLOW(v, (uint64_t)(**s - '0'), &v))
			return false;
	}
	*out_v = v;
	return true;
}

struct unit {
	const char *name; /* in any case of letters */
	uint64_t factor;
};

/* "1.5G" by a table of units; what is left below one is dropped.  A fraction of a unit of 1 is nonsense. */
static bool parse_scaled(const char *s, const struct unit *units, size_t count, uint64_t *out_v)
{
	uint64_t whole, fraction = 0, scale = 1, v;
	const char *digits;
	bool has_fraction;

	if (!parse_digits(&s, &whole))
		return false;
	has_fraction = *s == '.';
	if (has_fraction) {
		digits = ++s;
		if (!parse_digits(&s, &fraction) || s - digits > FRACTION_DIGITS)
			return false;
		for (; digits < s; digits++)
			scale *= 10;
	}
	for (size_t i = 0; i < count; i++) {
		if (strcasecmp(s, units[i].name) != 0)
			continue;
		if (has_fraction && units[i].factor == 1)
			return false;
		if (TPD_MUL_OVERFLOW(whole, units[i].factor, &v) ||
		    TPD_ADD_OVERFLOW(v, fraction * units[i].factor / scale, &v))
			return false;
		*out_v = v;
		return true;
	}
	return false;
}

bool tpd_text_parse_bytes(const char *s, uint64_t *out_bytes)
{
	static const struct unit units[] = {
		{"", 1},
		{"B", 1},
		{"K", 1ull << 10},
		{"M", 1ull << 20},
		{"G", 1ull << 30},
		{"T", 1ull << 40},
		{"KiB", 1ull << 10},
		{"MiB", 1ull << 20},
		{"GiB", 1ull << 30},
		{"TiB", 1ull << 40},
		{"KB", 1000},
		{"MB", 1000000},
		{"GB", 1000000000},
		{"TB", 1000000000000},
	};

	return parse_scaled(s, units, TPD_ARRAY_LEN(units), out_bytes);
}

bool tpd_text_parse_duration(const char *s, uint64_t *out_ms)
{
	static const struct unit units[] = {{"", 1000}, {"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}};

	return parse_scaled(s, units, TPD_ARRAY_LEN(units), out_ms);
}

bool tpd_text_parse_u64(const char *s, uint64_t *out_v)
{
	uint64_t v;

	if (!parse_digits(&s, &v) || *s != 0)
		return false;
	*out_v = v;
	return true;
}

bool tpd_text_parse_step(const char *s, uint64_t *out_step)
{
	uint64_t v;

	if (!tpd_text_parse_u64(s, &v) || v > TPD_STEP_MAX)
		return false;
	*out_step = v;
	return true;
}

bool tpd_text_parse_bool(const char *s, bool *out_v)
{
	static const char *const yes[] = {"yes", "true", "on", "1"}, *const no[] = {"no", "false", "off", "0"};

	for (size_t i = 0; i < TPD_ARRAY_LEN(yes); i++) {
		if (strcasecmp(s, yes[i]) == 0 || strcasecmp(s, no[i]) == 0) {
			*out_v = strcasecmp(s, yes[i]) == 0;
			return true;
		}
	}
	return false;
}

/* The Unicode Standard, table 3-7: no overlong forms, no surrogates, nothing above U+10FFFF. */
size_t tpd_text_utf8(const char *s, size_t len)
{
	const uint8_t *p = (const uint8_t *)s;
	uint8_t low = 0x80, high = 0xbf; /* bounds of the second byte */
	size_t n;

	if (len == 0)
		return 0;
	if (p[0] < 0x80)
		return 1;
	if (p[0] < 0xc2 || p[0] > 0xf4)
		return 0;
	n = p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
	if (len < n)
		return 0;
	if (p[0] == 0xe0)
		low = 0xa0;
	else if (p[0] == 0xed)
		high = 0x9f;
	else if (p[0] == 0xf0)
		low = 0x90;
	else if (p[0] == 0xf4)
		high = 0x8f;
	if (p[1] < low || p[1] > high)
		return 0;
	for (size_t i = 2; i < n; i++) {
		if (p[i] < 0x80 || p[i] > 0xbf)
			return 0;
	}
	return n;
}

uint32_t tpd_text_code_point(const char *s, size_t len)
{
	static const uint8_t mask[] = {0, 0x7f, 0x1f, 0x0f, 0x07};
	uint32_t c = (uint8_t)s[0] & mask[len];

	for (size_t i = 1; i < len; i++)
		c = c << 6 | ((uint8_t)s[i] & 0x3f);
	return c;
}

static bool in(uint32_t c, uint32_t first, uint32_t last)
{
	return c >= first && c <= last;
}

/* Controls of both kinds, and what turns the direction of writing around. */
static bool is_control(uint32_t c)
{
	return c < 0x20 || in(c, 0x7f, 0x9f) || in(c, 0x200e, 0x200f) || in(c, 0x2028, 0x202e) || in(c, 0x2066, 0x2069);
}

char *tpd_text_scrub(char *s)
{
	size_t left = strlen(s);
	char *to = s; /* never ahead of what is read: a character becomes itself or one byte */

	for (const char *from = s; left > 0;) {
		size_t n = tpd_text_utf8(from, left);

		if (n == 0 || is_control(tpd_text_code_point(from, n))) {
			*to++ = '?';
			n = n ? n : 1;
		} else {
			memmove(to, from, n);
			to += n;
		}
		from += n;
		left -= n;
	}
	*to = 0;
	return s;
}

bool tpd_text_is_run_name(const char *s)
{
	size_t len = strlen(s);
	bool begins = true; /* a part begins here */

	if (len == 0 || len > RUN_NAME_MAX)
		return false;
	for (size_t i = 0; i < len;) {
		const uint8_t *p = (const uint8_t *)s + i;
		size_t n = tpd_text_utf8(s + i, len - i);

		if (n == 0 || *p < 0x20 || *p == 0x7f || (*p == 0xc2 && p[1] < 0xa0)) /* C0, DEL, C1 */
			return false;
		if (*p == '@' || *p == '~' || *p == '\\')
			return false;
		if (begins && (*p == '/' || *p == '.' || *p == '-'))
			return false;
		begins = *p == '/';
		i += n;
	}
	return !begins;
}

bool tpd_text_is_safe_path(const char *s)
{
	if (strlen(s) > PATH_LENGTH_MAX)
		return false;
	for (;;) {
		size_t n = strcspn(s, "/");

		if (n == 0 || (n == 1 && s[0] == '.') || (n == 2 && s[0] == '.' && s[1] == '.'))
			return false;
		if (s[n] == 0)
			return true;
		s += n + 1;
	}
}

bool tpd_text_has_suffix(const char *s, const char *suffix)
{
	size_t len = strlen(s), n = strlen(suffix);

	return len >= n && strcmp(s + len - n, suffix) == 0;
}

static bool is_plain(char c)
{
	return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || is_digit(c) || c == '.' || c == '_' || c == '-';
}

char *tpd_text_escape(const char *s)
{
	static const char digits[] = "0123456789ABCDEF";
	bool only_dots = strcmp(s, ".") == 0 || strcmp(s, "..") == 0;
	char *out = calloc(strlen(s) + 2, 3), *p = out;

	if (!out)
		return NULL;
	if (!*s)
		memcpy(out, "%00", 3); /* no other string gives it */
	for (; *s; s++) {
		uint8_t c = (uint8_t)*s;

		if (is_plain(*s) && !only_dots) {
			*p++ = *s;
			continue;
		}
		*p++ = '%';
		*p++ = digits[c >> 4];
		*p++ = digits[c & 15];
	}
	return out;
}

bool tpd_text_trailing_number(const char *s, uint64_t *out_v)
{
	size_t end = strlen(s), begin;
	const char *p;
	uint64_t v;

	while (end > 0 && !is_digit(s[end - 1]))
		end--;
	for (begin = end; begin > 0 && is_digit(s[begin - 1]);)
		begin--;
	p = s + begin;
	if (!parse_digits(&p, &v) || v > TPD_STEP_MAX)
		return false;
	*out_v = v;
	return true;
}
