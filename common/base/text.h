/*
 * text.h - small things about text that several layers need: sizes, times and
 * durations as people write them, and names that are safe as one path element.
 */
#ifndef TPD_BASE_TEXT_H
#define TPD_BASE_TEXT_H

#include "base/tpd.h"

#define TPD_TEXT_SIZE 24

/* 1234567 -> "1.23 MB" (powers of 1000, three significant digits). Returns out. */
const char *tpd_text_bytes(uint64_t bytes, char out[TPD_TEXT_SIZE]);
/* Seconds -> "0:07", "12:34", "3:02:01". */
const char *tpd_text_duration(double seconds, char out[TPD_TEXT_SIZE]);
/* Unix nanoseconds -> "2026-11-23 18:59:33" UTC. */
const char *tpd_text_time(int64_t unix_ns, char out[TPD_TEXT_SIZE]);

/* "64K", "8M", "1.5G", "4GiB", "300MB", plain bytes.
   K M G T are powers of 1024; KB MB GB TB of 1000. false: not a size. */
bool tpd_text_parse_bytes(const char *s, uint64_t *out_bytes);
/* "250ms", "5", "5s", "2m", "1h" -> milliseconds; no unit means seconds, fractions allowed. */
bool tpd_text_parse_duration(const char *s, uint64_t *out_ms);
/* Decimal digits only, no sign, no overflow. */
bool tpd_text_parse_u64(const char *s, uint64_t *out_v);
/* A checkpoint's step: the same, up to TPD_STEP_MAX, which sqlite and all who count steps have signed integers for. */
#define TPD_STEP_MAX ((uint64_t)INT64_MAX)
bool tpd_text_parse_step(const char *s, uint64_t *out_step);
bool tpd_text_parse_bool(const char *s, bool *out_v); /* yes/no true/false on/off 1/0 */

/* Bytes (1..4) of the well-formed UTF-8 character at s, of which len bytes are there; 0: ill-formed, or len is 0. */
size_t tpd_text_utf8(const char *s, size_t len);
/* The character of the `len` bytes at s, as tpd_text_utf8() counted them. */
uint32_t tpd_text_code_point(const char *s, size_t len);
/*
 * In place: every control character, every one that turns the direction of writing, and every byte of ill-formed UTF-8
 * becomes one '?'. For text that reaches a terminal or a log. Returns s.
 */
char *tpd_text_scrub(char *s);
/*
 * Is s a valid run name: 1..200 bytes of UTF-8 without control characters, '@', '~' or '\\'; '/' may divide it into
 * parts ("sweep/lr3"), none of which is empty or begins with '.' or '-'.
 */
bool tpd_text_is_run_name(const char *s);
/* Is s a relative path that stays below its root: no empty, "." or ".." component, no leading '/', no
   zero, <= 4095 bytes. */
bool tpd_text_is_safe_path(const char *s);
/* Does s end in suffix (or is it that)? */
bool tpd_text_has_suffix(const char *s, const char *suffix);
/* Percent-encode s into one path element of [A-Za-z0-9._-] (never "." or ".."); fresh memory, NULL: out of memory. */
char *tpd_text_escape(const char *s);
/* The last run of decimal digits in s as a step ("checkpoint-120" -> 120, "step=20.ckpt" -> 20). false: none, or beyond TPD_STEP_MAX. */
bool tpd_text_trailing_number(const char *s, uint64_t *out_v);

#endif
