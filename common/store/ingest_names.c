/*
 * ingest_names.c - where a tensor was in an earlier checkpoint: by its name, in whatever file.
 *
 * Frameworks move tensors: a model that grew is saved in more shards, a file is called after its step or its number of parts. So
 * all names of a checkpoint are one sorted list. The file of the same role comes first (ranks have files with the same names in
 * them), then any other; only a tensor of the same length and type is the same tensor.
 */
#include "base/tpd.h"

#include "store/ingest_internal.h"

#include <stdlib.h>
#include <string.h>

struct tpd_ingest_name {
	const char *name; /* borrowed from the manifest */
	uint32_t file, segment;
};

static int compare(const void *a, const void *b)
{
	const struct tpd_ingest_name *x = a, *y = b;
	int order = strcmp(x->name, y->name);

	if (order == 0)
		order = (x->file > y->file) - (x->file < y->file);
	return order ? order : (x->segment > y->segment) - (x->segment < y->segment);
}

enum tpd_status tpd_ingest_names_make(const struct tpd_manifest *m, struct tpd_ingest_names *out, struct tpd_err *err)
{
	struct tpd_ingest_names names = {.manifest = m};
	size_t count = 0;

	for (uint32_t f = 0; f < m->file_count; f++)
		count += m->entries[m->files[f]].segment_count;
	names.items = calloc(count + 1, sizeof(*names.items));
	if (!names.items)
		return tpd_fail_nomem(err);
	for (uint32_t f = 0; f < m->file_count; f++) {
		const struct tpd_entry *entry = &m->entries[m->files[f]];

		for (uint32_t s = 1; s < entry->segment_count; s++)
			names.items[names.count++] = (struct tpd_ingest_name){entry->about[s].name, f, s};
	}
	qsort(names.items, names.count, sizeof(*names.items), compare);
	*out = names;
	return TPD_OK;
}

void tpd_ingest_names_release(struct tpd_ingest_names *names)
{
	free(names->items);
	*names = (struct tpd_ingest_names){0};
}

/* The first item that is not before this name and file. */
static size_t lower_bound(const struct tpd_ingest_names *names, const char *name, uint32_t file)
{
	const struct tpd_ingest_name key = {name, file, 0};
	size_t low = 0, high = names->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (compare(&names->items[middle], &key) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static bool fits(const struct tpd_ingest_names *names, const struct tpd_ingest_name *item, const struct tpd_segment *seg, bool typed)
{
	const struct tpd_manifest *m = names->manifest;
	const struct tpd_segment *other = &m->entries[m->files[item->file]].segments[item->segment];

	return other->length == seg->length && (!typed || other->dtype == seg->dtype);
}

bool tpd_ingest_names_find(const struct tpd_ingest_names *names, const char *name, uint32_t file, const struct tpd_segment *seg,
			   bool typed, uint32_t *out_file, uint32_t *out_segment)
{
	const struct tpd_ingest_name *found = NULL;
	size_t at;

	if (!names->items)
		return false;
	at = lower_bound(names, name, file);
	if (at < names->count && names->items[at].file == file && strcmp(names->items[at].name, name) == 0 &&
	    fits(names, &names->items[at], seg, typed))
		found = &names->items[at];
	for (at = lower_bound(names, name, 0); !found && at < names->count && strcmp(names->items[at].name, name) == 0; at++)
		if (fits(names, &names->items[at], seg, typed))
			found = &names->items[at];
	if (!found)
		return false;
	*out_file = found->file;
	*out_segment = found->segment;
	return true;
}
