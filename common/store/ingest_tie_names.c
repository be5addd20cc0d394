/*
 * ingest_tie_names.c - which weight an optimizer's state is of, by its name.
 *
 * "optim.layers.0.mlp.weight" is of the weight whose name has most parts in common with it at the end, "model.layers.0.mlp.weight". So
 * names are sorted from their last byte on: what ends alike stands together, and the longest common end is found beside the place where
 * the parameter's name would stand.
 *
 *     blocks of one end        model.layers.0.bias
 *                              ema.layers.0.weight      two names: the values must say which
 *                              model.layers.0.weight
 *                              model.layers.1.weight    rank 0 \
 *                              model.layers.1.weight    rank 1  one name in several files: the state's own, else the next one
 *                              model.layers.1.weight    rank 2 /
 */
#include "base/tpd.h"

#include "store/ingest_ties.h"

#include <stdlib.h>
#include <string.h>

#define TRIES 64u /* weights of one name but of other shapes */

/* The last byte first, so that names with the same end stand together. */
static int compare_backwards(const char *a, size_t a_length, const char *b, size_t b_length)
{
	while (a_length > 0 && b_length > 0) {
		unsigned char x = (unsigned char)a[--a_length], y = (unsigned char)b[--b_length];

		if (x != y)
			return x < y ? -1 : 1;
	}
	return (a_length > 0) - (b_length > 0);
}

static size_t name_length(const struct tpd_tied *item)
{
	return item->name.length + item->name.chunk_length;
}

static int compare_names(const struct tpd_tied *x, const struct tpd_tied *y)
{
	return compare_backwards(x->name.of, name_length(x), y->name.of, name_length(y));
}

static int compare_places(const void *a, const void *b, void *context)
{
	const struct tpd_tied *items = context, *x = &items[*(const uint32_t *)a], *y = &items[*(const uint32_t *)b];
	int order = compare_names(x, y);

	return order ? order : (x->place > y->place) - (x->place < y->place);
}

static int compare_files(const void *a, const void *b, void *context)
{
	const struct tpd_tied *items = context, *x = &items[*(const uint32_t *)a], *y = &items[*(const uint32_t *)b];
	int order = compare_names(x, y);

	return order ? order : (x->file > y->file) - (x->file < y->file);
}

enum tpd_status tpd_tie_names_make(const struct tpd_ties *ties, const uint32_t *weights, uint32_t count, struct tpd_tie_names *out,
				   struct tpd_err *err)
{
	struct tpd_tie_names names = {.ties = ties, .count = count};

	names.by_place = calloc(count + 1u, sizeof(*names.by_place));
	names.by_file = calloc(count + 1u, sizeof(*names.by_file));
	names.next = calloc(count + 1u, sizeof(*names.next));
	if (!names.by_place || !names.by_file || !names.next) {
		tpd_tie_names_release(&names);
		return tpd_fail_nomem(err);
	}
	memcpy(names.by_place, weights, count * sizeof(*weights));
	memcpy(names.by_file, weights, count * sizeof(*weights));
	qsort_r(names.by_place, count, sizeof(*names.by_place), compare_places, ties->items);
	qsort_r(names.by_file, count, sizeof(*names.by_file), compare_files, ties->items);
	for (uint32_t i = 0; i <= count; i++)
		names.next[i] = i;
	*out = names;
	return TPD_OK;
}

void tpd_tie_names_release(struct tpd_tie_names *names)
{
	free(names->by_place);
	free(names->by_file);
	free(names->next);
	free(names->name);
	*names = (struct tpd_tie_names){0};
}

/* Parts between dots that both names end with, and their bytes; a whole name counts as many. */
#define WHOLE 0x10000u
static unsigned common_parts(const char *a, size_t a_length, const char *b, size_t b_length, size_t *out_tail)
{
	unsigned parts = 0;
	size_t x = a_length, y = b_length;

	*out_tail = 0;
	for (;;) {
		size_t a_end = x, b_end = y;

		while (x > 0 && a[x - 1] != '.')
			x--;
		while (y > 0 && b[y - 1] != '.')
			y--;
		if (a_end - x != b_end - y || memcmp(a + x, b + y, a_end - x) != 0)
			return parts;
		parts++;
		*out_tail = a_length - x;
		if (x == 0 || y == 0)
			return WHOLE + parts;
		x--;
		y--;
	}
}

static const struct tpd_tied *at(const struct tpd_tie_names *names, uint32_t i)
{
	return &names->ties->items[names->by_place[i]];
}

/* The first name that is not before this one; ends: that does not even end with it, and stands behind those that do. */
static uint32_t bound(const struct tpd_tie_names *names, const char *name, size_t length, bool ends)
{
	uint32_t low = 0, high = names->count;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		const struct tpd_tied *item = at(names, middle);
		size_t own = name_length(item);
		int order = ends && own > length ? compare_backwards(item->name.of + own - length, length, name, length)
						 : compare_backwards(item->name.of, own, name, length);

		if (order < 0 || (ends && order == 0))
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* The next place from i on whose weight is still to be had. */
static uint32_t next_free(struct tpd_tie_names *names, uint32_t i)
{
	uint32_t to = i;

	while (to < names->count && at(names, to)->owns)
		to = names->next[to] > to ? names->next[to] : to + 1;
	while (i < to) { /* the way is short the next time */
		uint32_t after = names->next[i] > i ? names->next[i] : i + 1;

		names->next[i] = to;
		i = after;
	}
	return to;
}

/* One of the block [from, to) of one end: that in the state's own file, else the next one; NONE: several names, or no such shape. */
static uint32_t pick(struct tpd_tie_names *names, uint32_t from, uint32_t to, uint32_t state)
{
	const struct tpd_tied *item = &names->ties->items[state];
	uint32_t low = from, high = to;

	if (from >= to || compare_names(at(names, from), at(names, to - 1)) != 0)
		return TPD_TIED_NONE;
	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (names->ties->items[names->by_file[middle]].file < item->file)
			low = middle + 1;
		else
			high = middle;
	}
	if (low < to && names->ties->items[names->by_file[low]].file == item->file &&
	    tpd_ties_fit(names->ties, state, names->by_file[low]))
		return names->by_file[low];
	low = next_free(names, from);
	for (unsigned tries = 0; low < to && tries < TRIES; tries++, low = next_free(names, low + 1))
		if (tpd_ties_fit(names->ties, state, names->by_place[low]))
			return names->by_place[low];
	return TPD_TIED_NONE;
}

enum tpd_status tpd_tie_names_find(struct tpd_tie_names *names, uint32_t state, uint32_t *out_owner, struct tpd_err *err)
{
	const struct tpd_tied *item = &names->ties->items[state];
	size_t length = name_length(item), tail = 0;
	unsigned best = 0;
	const char *name;
	uint32_t here;

	*out_owner = TPD_TIED_NONE;
	if (item->name.length == 0)
		return TPD_OK;
	if (names->cap < length + 1) {
		free(names->name);
		names->name = malloc(2 * (length + 1));
		names->cap = names->name ? 2 * (length + 1) : 0;
		if (!names->name)
			return tpd_fail_nomem(err);
	}
	names->name[0] = '.';
	memcpy(names->name + 1, item->name.of, item->name.length);
	memcpy(names->name + 1 + item->name.length, item->name.chunk, item->name.chunk_length);
	name = names->name + 1;
	here = bound(names, name, length, false);
	for (uint32_t i = here > 0 ? here - 1 : 0; i < names->count && i <= here; i++) {
		size_t common;
		unsigned parts = common_parts(at(names, i)->name.of, name_length(at(names, i)), name, length, &common);

		if (parts > best) {
			best = parts;
			tail = common;
		}
	}
	/* Two parts, or all of one name; but a number alone is no name: "state.0" is not of the weight "0". */
	if (best < 2 || best == WHOLE + (item->name.numbered ? 1u : 0u))
		return TPD_OK;
	name += length - tail;
	*out_owner = pick(names, bound(names, name, tail, false), bound(names, name - 1, tail + 1, false), state);
	if (*out_owner == TPD_TIED_NONE)
		*out_owner = pick(names, bound(names, name - 1, tail + 1, false), bound(names, name - 1, tail + 1, true), state);
	return TPD_OK;
}
