/*
 * hints.c - see hints.h and format.h.
 *
 * Some formats keep what a file consists of in another file: PyTorch DCP in .metadata, ONNX in the model. Companions
 * are read first; what they say is kept as a list of ranges, sorted by file and place, and a parser of the file
 * itself checks it against the bytes. A companion that is doubted has said nothing. Texts are compared only in the
 * sort of the paths, each of which was in a companion once, so that a path that a million ranges share costs no more
 * than one that is used once.
 */
#include "base/tpd.h"

#include "format/hints.h"

#include <stdlib.h>
#include <string.h>

#include "base/text.h"

struct tpd_format_hints *tpd_format_hints_new(struct tpd_err *err)
{
	struct tpd_format_hints *hints = calloc(1, sizeof *hints);

	if (!hints)
		tpd_fail_nomem(err);
	return hints;
}

/* Everything from these numbers on. */
static void drop(struct tpd_format_hints *hints, size_t file_count, size_t count)
{
	while (hints->count > count)
		free(hints->items[--hints->count].segment.name);
	while (hints->file_count > file_count)
		free(hints->files[--hints->file_count]);
}

void tpd_format_hints_free(struct tpd_format_hints *hints)
{
	if (!hints)
		return;
	drop(hints, 0, 0);
	free(hints->files);
	free(hints->items);
	free(hints);
}

static bool doubt(struct tpd_format_hints *hints, const char *why)
{
	hints->doubt = why;
	return false;
}

static bool nomem(struct tpd_format_hints *hints)
{
	hints->nomem = true;
	return false;
}

static bool pay_text(struct tpd_format_hints *hints, size_t bytes)
{
	if (bytes > TPD_HINTS_MAX_TEXT - hints->text)
		return doubt(hints, "too many names");
	hints->text += bytes;
	return true;
}

/* The name of a file without its directory. */
static const char *base_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* Room for one more item of an array of `size` bytes each. */
static bool grow(struct tpd_format_hints *hints, void **array, size_t *cap, size_t count, size_t size)
{
	size_t larger = *cap ? 2 * *cap : 64;
	void *grown;

	if (count < *cap)
		return true;
	grown = reallocarray(*array, larger, size);
	if (!grown)
		return nomem(hints);
	*array = grown;
	*cap = larger;
	return true;
}

bool tpd_hints_file(struct tpd_format_hints *hints, const char *companion, const char *relative, size_t length,
		    uint32_t *out_file)
{
	size_t directory = (size_t)(base_of(companion) - companion);
	void *files = hints->files;
	char *path;

	if (length > TPD_FORMAT_MAX_NAME)
		return doubt(hints, "a path that leads elsewhere");
	if (hints->file_count == TPD_HINTS_MAX_FILES)
		return doubt(hints, "too many files");
	if (!pay_text(hints, directory + length + 1) ||
	    !grow(hints, &files, &hints->file_cap, hints->file_count, sizeof *hints->files))
		return false;
	hints->files = files;
	path = malloc(directory + length + 1);
	if (!path)
		return nomem(hints);
	memcpy(path, companion, directory);
	memcpy(path + directory, relative, length);
	path[directory + length] = 0;
	if (memchr(relative, 0, length) || !tpd_text_is_safe_path(path + directory)) {
		free(path);
		return doubt(hints, "a path that leads elsewhere");
	}
	*out_file = (uint32_t)hints->file_count;
	hints->files[hints->file_count++] = path;
	return true;
}

bool tpd_hints_add(struct tpd_format_hints *hints, struct tpd_hint *hint)
{
	void *items = hints->items;
	bool good = hints->count < TPD_HINTS_MAX || doubt(hints, "too many ranges");

	good = good && pay_text(hints, strlen(hint->segment.name) + 1) &&
	       grow(hints, &items, &hints->cap, hints->count, sizeof *hints->items);
	hints->items = items;
	if (good)
		hints->items[hints->count++] = *hint;
	else
		free(hint->segment.name);
	return good;
}

/* --- order --- */

struct ranked {
	char *path;
	uint32_t was;
};

static int compare_paths(const void *a, const void *b)
{
	const struct ranked *x = a, *y = b;

	return strcmp(x->path, y->path);
}

static int compare_items(const void *a, const void *b)
{
	const struct tpd_hint *x = a, *y = b;

	if (x->file != y->file)
		return x->file < y->file ? -1 : 1;
	if (x->segment.offset != y->segment.offset)
		return x->segment.offset < y->segment.offset ? -1 : 1;
	if (x->segment.length != y->segment.length)
		return x->segment.length < y->segment.length ? -1 : 1;
	return strcmp(x->segment.name, y->segment.name); /* whatever order a companion has them in */
}

/* Files by path; the items of equal paths all belong to the first of them. */
static bool sort(struct tpd_format_hints *hints)
{
	TPD_AUTO_FREE struct ranked *ranked = reallocarray(NULL, hints->file_count + 1, sizeof *ranked);
	TPD_AUTO_FREE uint32_t *new_of = reallocarray(NULL, hints->file_count + 1, sizeof *new_of);
	uint32_t first = 0;

	if (!ranked || !new_of)
		return nomem(hints);
	for (uint32_t i = 0; i < hints->file_count; i++)
		ranked[i] = (struct ranked){hints->files[i], i};
	qsort(ranked, hints->file_count, sizeof *ranked, compare_paths);
	for (uint32_t i = 0; i < hints->file_count; i++) {
		if (strcmp(ranked[i].path, ranked[first].path) != 0)
			first = i;
		hints->files[i] = ranked[i].path;
		new_of[ranked[i].was] = first;
	}
	for (size_t i = 0; i < hints->count; i++)
		hints->items[i].file = new_of[hints->items[i].file];
	if (hints->count > 1)
		qsort(hints->items, hints->count, sizeof *hints->items, compare_items);
	return true;
}

const struct tpd_hint *tpd_hints_find(const struct tpd_format_hints *hints, const char *path, size_t *out_count)
{
	size_t low = 0, high = hints->file_count, from;

	*out_count = 0;
	while (low < high) { /* the first file that is not before it */
		size_t middle = low + (high - low) / 2;

		if (strcmp(hints->files[middle], path) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == hints->file_count || strcmp(hints->files[low], path) != 0)
		return NULL;
	from = 0;
	high = hints->count;
	while (from < high) { /* its first item */
		size_t middle = from + (high - from) / 2;

		if (hints->items[middle].file < low)
			from = middle + 1;
		else
			high = middle;
	}
	while (from + *out_count < hints->count && hints->items[from + *out_count].file == low)
		++*out_count;
	return *out_count > 0 ? &hints->items[from] : NULL;
}

/* --- companions --- */

typedef enum tpd_status read_companion_fn(struct tpd_format_hints *hints, const char *path, uint64_t size,
					  tpd_format_read_fn read, void *ctx, struct tpd_err *err);

/* Which reader a companion has, by its name; NULL: it is none. */
static read_companion_fn *reader_of(const char *path)
{
	if (strcmp(base_of(path), ".metadata") == 0)
		return tpd_hints_read_dcp;
	if (tpd_text_has_suffix(path, ".onnx"))
		return tpd_hints_read_onnx;
	return NULL;
}

enum tpd_status tpd_format_hints_read(struct tpd_format_hints *hints, const char *path, uint64_t size,
				      tpd_format_read_fn read, void *ctx, struct tpd_err *err)
{
	size_t file_count = hints->file_count, count = hints->count, text = hints->text;
	read_companion_fn *reader = reader_of(path);
	enum tpd_status status;

	if (!reader || size == 0)
		return TPD_OK;
	hints->doubt = NULL;
	status = reader(hints, path, size, read, ctx, err);
	if (!status && !hints->doubt && !hints->nomem && hints->file_count > file_count)
		sort(hints);
	if (hints->nomem && !status)
		status = tpd_fail_nomem(err);
	if (status || hints->doubt) {
		drop(hints, file_count, count);
		hints->text = text;
	}
	hints->nomem = false;
	return status;
}
