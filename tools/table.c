/*
 * table.c - text for terminals: aligned columns, widths, ratios.
 *
 * Cells are collected first and printed when the widths are known. Widths count UTF-8 characters, wide and
 * combining ones by ranges, good enough for names of files: wcwidth() knows more, but nothing at all in the C
 * locale. Everything that is printed is cleaned on the way in, since names come from checkpoints that somebody else
 * wrote and a terminal obeys them.
 *
 * What is too wide for the terminal is shortened in the middle, in the widest column of text and until all fits, as a line that wraps is no
 * row of a table any more: names differ at both ends, and messages have the reason at theirs. Never where no terminal is written to.
 */
#include "base/tpd.h"

#include "tools/tools.h"

#include <assert.h>
#include <langinfo.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define GAP 2        /* spaces between columns */
#define SHORTEST 12u /* columns that are left of a text, at least */

static bool in(uint32_t c, uint32_t first, uint32_t last)
{
	return c >= first && c <= last;
}

static unsigned columns_of(uint32_t c)
{
	if (in(c, 0x300, 0x36f) || in(c, 0x200b, 0x200d) || in(c, 0x20d0, 0x20f0) || in(c, 0xfe00, 0xfe0f))
		return 0;
	if (in(c, 0x1100, 0x115f) || in(c, 0x2e80, 0xa4cf) || in(c, 0xac00, 0xd7a3) || in(c, 0xf900, 0xfaff) ||
	    in(c, 0xfe30, 0xfe6f) || in(c, 0xff00, 0xff60) || in(c, 0xffe0, 0xffe6) || in(c, 0x1f300, 0x1faff) ||
	    in(c, 0x20000, 0x3fffd))
		return 2;
	return 1;
}

/* The bytes of the first character of a text that is not empty. */
static size_t character(const char *s, unsigned *out_columns)
{
	size_t n = tpd_text_utf8(s, strlen(s));

	*out_columns = n ? columns_of(tpd_text_code_point(s, n)) : 1;
	return n ? n : 1;
}

size_t tpd_text_width(const char *s)
{
	size_t width = 0;
	unsigned columns;

	while (*s) {
		s += character(s, &columns);
		width += columns;
	}
	return width;
}

/* The text in at most `width` columns, with an ellipsis for its middle; fresh memory, NULL: out of memory. */
static char *shortened(const char *s, size_t width)
{
	const char *dots = strcmp(nl_langinfo(CODESET), "UTF-8") == 0 ? "\u2026" : "...", *tail = s;
	size_t keep = width - TPD_MIN(width, tpd_text_width(dots)), left = tpd_text_width(s), used = 0, head = 0;
	unsigned columns;
	char *out = NULL;

	while (s[head]) {
		size_t n = character(s + head, &columns);

		if (used + columns > keep - keep / 2)
			break;
		used += columns;
		head += n;
	}
	while (*tail) {
		size_t n = character(tail, &columns);

		if (left <= keep / 2 && columns > 0) /* a mark without its letter is none */
			break;
		left -= columns;
		tail += n;
	}
	return asprintf(&out, "%.*s%s%s", (int)head, s, dots, tail) < 0 ? NULL : out;
}

char *tpd_text_clean(const char *s)
{
	char *copy = strdup(s);

	return copy ? tpd_text_scrub(copy) : NULL;
}

double tpd_text_ratio(uint64_t size, uint64_t stored)
{
	return stored ? (double)size / (double)stored : 0;
}

const char *tpd_text_saving(uint64_t size, uint64_t stored, char out[TPD_SAVING_TEXT])
{
	char a[TPD_TEXT_SIZE], b[TPD_TEXT_SIZE];
	double saved = size ? 100 * (1 - (double)stored / (double)size) : 0;

	if (saved > 0)
		snprintf(out, TPD_SAVING_TEXT, "%s stored as %s (%.2fx, %.1f %% saved)", tpd_text_bytes(size, a),
			 tpd_text_bytes(stored, b), tpd_text_ratio(size, stored), saved);
	else
		snprintf(out, TPD_SAVING_TEXT, "%s stored as %s", tpd_text_bytes(size, a), tpd_text_bytes(stored, b));
	return out;
}

unsigned tpd_terminal_width(int fd)
{
	struct winsize size;

	if (!isatty(fd))
		return 0;
	return ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

/* --- the table --- */

struct tpd_table tpd_table_make(const char *const *titles, size_t columns)
{
	return (struct tpd_table){.titles = titles, .columns = columns};
}

void tpd_table_release(struct tpd_table *table)
{
	for (size_t i = 0; i < table->cells; i++)
		free(table->cell[i]);
	free(table->cell);
	*table = (struct tpd_table){.titles = table->titles, .columns = table->columns};
}

void tpd_table_add(struct tpd_table *table, const char *text)
{
	char *copy;

	if (table->failed)
		return;
	if (table->cells == table->cap) {
		size_t cap = table->cap ? 2 * table->cap : 64;
		char **more = reallocarray(table->cell, cap, sizeof(*more));

		if (!more) {
			table->failed = true;
			return;
		}
		table->cell = more;
		table->cap = cap;
	}
	copy = tpd_text_clean(text);
	if (copy)
		table->cell[table->cells++] = copy;
	else
		table->failed = true;
}

void tpd_table_addf(struct tpd_table *table, const char *fmt, ...)
{
	TPD_AUTO_FREE char *text = NULL;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0) {
		text = NULL;
		table->failed = true;
	}
	va_end(ap);
	if (text)
		tpd_table_add(table, text);
}

void tpd_table_add_bytes(struct tpd_table *table, uint64_t bytes)
{
	char text[TPD_TEXT_SIZE];

	tpd_table_add(table, tpd_text_bytes(bytes, text));
}

void tpd_table_add_ratio(struct tpd_table *table, uint64_t size, uint64_t stored)
{
	double ratio = tpd_text_ratio(size, stored);

	if (stored && size)
		tpd_table_addf(table, ratio < 99.95 ? "%.2f" : "%.0f", ratio);
	else
		tpd_table_add(table, "-");
}

/* Is it worth nothing when a part of it is missing? */
static bool is_whole(const struct tpd_table *table, size_t column)
{
	return table->titles[column][0] == '>' || table->titles[column][0] == '=';
}

static const char *title_of(const struct tpd_table *table, size_t column, bool *out_right)
{
	*out_right = table->titles[column][0] == '>';
	return table->titles[column] + (is_whole(table, column) ? 1 : 0);
}

/* One line of cells, or of titles when `cell` is NULL. */
static void print_line(const struct tpd_table *table, const size_t *width, unsigned indent, char *const *cell)
{
	size_t owed = indent; /* spaces are written before the next text, so that no line ends in them */

	for (size_t c = 0; c < table->columns; c++) {
		bool right;
		const char *title = title_of(table, c, &right), *text = cell ? cell[c] : title;
		TPD_AUTO_FREE char *cut = NULL;
		size_t pad;

		if (width[c] == 0)
			continue;
		if (tpd_text_width(text) > width[c])
			cut = shortened(text, width[c]);
		text = cut ? cut : text;
		pad = width[c] - TPD_MIN(width[c], tpd_text_width(text));
		if (*text)
			printf("%*s%s", (int)(owed + (right ? pad : 0)), "", text);
		owed = *text ? GAP + (right ? 0 : pad) : owed + width[c] + GAP;
	}
	putchar('\n');
}

static size_t least_width(const struct tpd_table *table, const size_t *width, size_t column)
{
	bool right;

	if (is_whole(table, column))
		return width[column];
	return TPD_MIN(width[column], TPD_MAX((size_t)SHORTEST, tpd_text_width(title_of(table, column, &right))));
}

/* Into a terminal of that many columns. What does not fit at its shortest wraps anyway, and stays whole. */
static void fit(const struct tpd_table *table, size_t *width, unsigned indent, unsigned columns)
{
	size_t all = indent, least = indent;

	for (size_t c = 0; c < table->columns; c++) {
		all += width[c] > 0 ? width[c] + GAP : 0;
		least += width[c] > 0 ? least_width(table, width, c) + GAP : 0;
	}
	if (least > (size_t)columns + GAP)
		return;
	for (; all > (size_t)columns + GAP; all--) {
		size_t widest = table->columns;

		for (size_t c = 0; c < table->columns; c++) {
			if (width[c] > least_width(table, width, c) && (widest == table->columns || width[c] > width[widest]))
				widest = c;
		}
		assert(widest < table->columns); /* or it would not fit at its least */
		width[widest]--;
	}
}

enum tpd_status tpd_table_print(const struct tpd_table *table, unsigned indent, struct tpd_err *err)
{
	TPD_AUTO_FREE size_t *width = calloc(table->columns, sizeof(*width));
	unsigned columns = tpd_terminal_width(STDOUT_FILENO);
	bool right;

	if (table->failed || !width)
		return tpd_fail_nomem(err);
	assert(table->cells % table->columns == 0);
	for (size_t i = 0; i < table->cells; i++)
		width[i % table->columns] = TPD_MAX(width[i % table->columns], tpd_text_width(table->cell[i]));
	for (size_t c = 0; c < table->columns; c++)
		if (width[c] > 0)
			width[c] = TPD_MAX(width[c], tpd_text_width(title_of(table, c, &right)));
	if (columns > 0)
		fit(table, width, indent, columns);
	print_line(table, width, indent, NULL);
	for (size_t i = 0; i < table->cells; i += table->columns)
		print_line(table, width, indent, table->cell + i);
	return TPD_OK;
}
