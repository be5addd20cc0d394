/*
 * ingest_names.c - where a tensor was in an earlier checkpoint: by its name, in whatever file.
 *
 * Frameworks move tensors: a model that grew is saved in more shards, a file is called after its step or its number of parts. So
 * all names of a checkpoint are one sorted list. The file of the same path or role comes first (ranks have files with the same names
 * in them), then any other of the same directory (two models of one checkpoint may have the same names in them), then any; only a tensor
 * of the same length and type is the same tensor.
 */
#include "base/tpd.h"

#include "store/ingest_internal.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- roles and directories --- */

char *tpd_ingest_role(const char *path, size_t len, uint64_t step)
{
	char *out = malloc(len + 1), *to = out;
	const char *stop = path + len;

	while (out && path < stop) {
		const char *end = path;
		uint64_t value = 0;
		bool big = false;

		while (end < stop && isdigit((unsigned char)*end)) {
			big |= TPD_MUL_OVERFLOW(value, 10u, &value) || TPD_ADD_OVERFLOW(value, (uint64_t)(*end - '0'), &value);
			end++;
		}
		if (end > path && !big && value == step) {
			*to++ = '*';
		} else {
			if (end == path)
				end++;
			memcpy(to, path, (size_t)(end - path));
			to += end - path;
		}
		path = end;
	}
	if (out)
		*to = '\0';
	return out;
}

/* Bytes of the path that are its directory's. */
static size_t directory_len(const struct tpd_manifest *m, uint32_t file)
{
	const char *path = m->entries[m->files[file]].path, *slash = strrchr(path, '/');

	return slash && m->kind == TPD_CHECKPOINT_DIR ? (size_t)(slash - path) : 0;
}

#define PREFIX_MAX 64u /* bytes of a first part of names */
#define PARTS_MAX 3u   /* that are taken away from the front of a name */
#define ALIKE_KEY (PREFIX_MAX + TPD_FORMAT_MAX_NAME + 1)
#define ALIKE_MISSES 4096u /* of names, before no more are tried: each takes a fraction of a millisecond */

struct tpd_ingest_directory {
	char *path, *role; /* owned */
	uint32_t file;
};

static int compare_paths(const void *a, const void *b)
{
	const struct tpd_ingest_directory *x = a, *y = b;
	int order = strcmp(x->path, y->path);

	return order ? order : (x->file > y->file) - (x->file < y->file);
}

static int compare_roles(const void *a, const void *b)
{
	const struct tpd_ingest_directory *const *x = a, *const *y = b;
	int order = strcmp((*x)->role, (*y)->role);

	return order ? order : compare_paths(*x, *y);
}

enum tpd_status tpd_ingest_directories_make(const struct tpd_manifest *m, struct tpd_ingest_directories *out, struct tpd_err *err)
{
	out->items = calloc(m->file_count + 1u, sizeof(*out->items));
	out->by_role = calloc(m->file_count + 1u, sizeof(*out->by_role));
	out->of_file = calloc(m->file_count + 1u, sizeof(*out->of_file));
	if (!out->items || !out->by_role || !out->of_file)
		return tpd_fail_nomem(err);
	for (uint32_t f = 0; f < m->file_count; f++) {
		const char *path = m->entries[m->files[f]].path;
		size_t len = directory_len(m, f);

		out->items[f] = (struct tpd_ingest_directory){strndup(path, len), tpd_ingest_role(path, len, m->step), f};
		out->count = f + 1;
		if (!out->items[f].path || !out->items[f].role)
			return tpd_fail_nomem(err);
	}
	qsort(out->items, out->count, sizeof(*out->items), compare_paths);
	for (uint32_t i = 0, first = 0; i < out->count; i++) { /* files of one directory have the number of its first */
		if (i > 0 && strcmp(out->items[i - 1].path, out->items[i].path) != 0)
			first = i;
		out->of_file[out->items[i].file] = first;
		out->by_role[i] = &out->items[i];
	}
	qsort(out->by_role, out->count, sizeof(*out->by_role), compare_roles);
	return TPD_OK;
}

void tpd_ingest_directories_release(struct tpd_ingest_directories *directories)
{
	for (uint32_t i = 0; i < directories->count; i++) {
		free(directories->items[i].path);
		free(directories->items[i].role);
	}
	free(directories->items);
	free(directories->by_role);
	free(directories->of_file);
	*directories = (struct tpd_ingest_directories){0};
}

/* The first of this path; NULL: none. */
static const struct tpd_ingest_directory *find_directory(const struct tpd_ingest_directories *directories, const char *path, size_t len)
{
	uint32_t low = 0, high = directories->count;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		int order = strncmp(directories->items[middle].path, path, len);

		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == directories->count || strncmp(directories->items[low].path, path, len) != 0 || directories->items[low].path[len])
		return NULL;
	return &directories->items[low];
}

static const struct tpd_ingest_directory *find_role(const struct tpd_ingest_directories *directories, const char *role)
{
	uint32_t low = 0, high = directories->count;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (strcmp(directories->by_role[middle]->role, role) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low < directories->count && strcmp(directories->by_role[low]->role, role) == 0 ? directories->by_role[low] : NULL;
}

enum tpd_status tpd_ingest_directories_find(const struct tpd_ingest_directories *directories, const struct tpd_manifest *own, uint32_t file,
					    uint32_t *out_number, struct tpd_err *err)
{
	const char *path = own->entries[own->files[file]].path;
	const struct tpd_ingest_directory *found = find_directory(directories, path, directory_len(own, file));
	TPD_AUTO_FREE char *role = tpd_ingest_role(path, directory_len(own, file), own->step);

	if (!role)
		return tpd_fail_nomem(err);
	if (!found)
		found = find_role(directories, role);
	*out_number = found ? directories->of_file[found->file] : TPD_INGEST_NOWHERE;
	return TPD_OK;
}

/* --- names --- */

struct tpd_ingest_name {
	const char *name; /* borrowed from the manifest */
	uint64_t length;
	uint32_t directory, file, segment;
};

static int compare(const void *a, const void *b)
{
	const struct tpd_ingest_name *x = a, *y = b;
	int order = strcmp(x->name, y->name);

	if (order == 0)
		order = (x->length > y->length) - (x->length < y->length);
	if (order == 0)
		order = (x->directory > y->directory) - (x->directory < y->directory);
	if (order == 0)
		order = (x->file > y->file) - (x->file < y->file);
	return order ? order : (x->segment > y->segment) - (x->segment < y->segment);
}

/* The names are sorted, so those of one first part stand together. */
static void find_prefixes(struct tpd_ingest_names *names)
{
	for (size_t from = 0, to; from < names->count; from = to) {
		const char *text = names->items[from].name, *dot = strchr(text, '.');
		size_t len = dot ? (size_t)(dot + 1 - text) : 0, at = TPD_INGEST_PREFIXES;

		for (to = from + 1; to < names->count && len > 0 && strncmp(names->items[to].name, text, len) == 0;)
			to++;
		if (len == 0 || len > PREFIX_MAX)
			continue;
		while (at > 0 && to - from > names->prefixes[at - 1].count)
			at--;
		if (at == TPD_INGEST_PREFIXES)
			continue;
		memmove(&names->prefixes[at + 1], &names->prefixes[at], (TPD_INGEST_PREFIXES - 1 - at) * sizeof(names->prefixes[0]));
		names->prefixes[at].text = text;
		names->prefixes[at].len = len;
		names->prefixes[at].count = to - from;
	}
}

enum tpd_status tpd_ingest_names_make(const struct tpd_manifest *m, const struct tpd_ingest_directories *directories,
				      struct tpd_ingest_names *out, struct tpd_err *err)
{
	struct tpd_ingest_names names = {.manifest = m, .directories = directories};
	size_t count = 0;

	for (uint32_t f = 0; f < m->file_count; f++)
		count += m->entries[m->files[f]].segment_count;
	names.items = calloc(count + 1, sizeof(*names.items));
	if (!names.items)
		return tpd_fail_nomem(err);
	for (uint32_t f = 0; f < m->file_count; f++) {
		const struct tpd_entry *entry = &m->entries[m->files[f]];

		for (uint32_t s = 1; s < entry->segment_count; s++)
			names.items[names.count++] = (struct tpd_ingest_name){.name = entry->about[s].name,
									      .length = entry->segments[s].length,
									      .directory = directories->of_file[f],
									      .file = f,
									      .segment = s};
	}
	qsort(names.items, names.count, sizeof(*names.items), compare);
	find_prefixes(&names);
	*out = names;
	return TPD_OK;
}

void tpd_ingest_names_release(struct tpd_ingest_names *names)
{
	free(names->items);
	*names = (struct tpd_ingest_names){0};
}

/* The first item that is not before `key`, has its name and length, and is of that type (NULL: any). NULL: none. */
static const struct tpd_ingest_name *first_from(const struct tpd_ingest_names *names, const struct tpd_ingest_name *key,
						const enum tpd_dtype *dtype)
{
	const struct tpd_manifest *m = names->manifest;
	size_t low = 0, high = names->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (compare(&names->items[middle], key) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	for (; low < names->count; low++) {
		const struct tpd_ingest_name *item = &names->items[low];

		if (item->length != key->length || strcmp(item->name, key->name) != 0)
			return NULL;
		if (!dtype || m->entries[m->files[item->file]].segments[item->segment].dtype == *dtype)
			return item;
	}
	return NULL;
}

bool tpd_ingest_names_find(const struct tpd_ingest_names *names, const char *name, uint32_t file, uint32_t directory,
			   const struct tpd_segment *seg, bool typed, uint32_t *out_file, uint32_t *out_segment)
{
	const enum tpd_dtype *dtype = typed ? &seg->dtype : NULL;
	struct tpd_ingest_name key = {.name = name, .length = seg->length};
	const struct tpd_ingest_name *found = NULL;

	if (!names->items)
		return false;
	if (file != TPD_INGEST_NOWHERE) {
		key.directory = names->directories->of_file[file];
		key.file = file;
		found = first_from(names, &key, dtype);
		if (found && found->file != file)
			found = NULL;
	}
	if (!found && directory != TPD_INGEST_NOWHERE) {
		key.directory = directory;
		key.file = 0;
		found = first_from(names, &key, dtype);
		if (found && found->directory != directory)
			found = NULL;
	}
	if (!found) {
		key.directory = key.file = 0;
		found = first_from(names, &key, dtype);
	}
	if (!found)
		return false;
	*out_file = found->file;
	*out_segment = found->segment;
	return true;
}

bool tpd_ingest_names_find_other(const struct tpd_ingest_names *names, const char *name, uint32_t file, uint32_t directory,
				 const struct tpd_segment *seg, uint32_t *out_file, uint32_t *out_segment)
{
	static const enum tpd_dtype types[] = {TPD_DTYPE_F32, TPD_DTYPE_BF16, TPD_DTYPE_F16};
	const uint64_t elements = seg->length / tpd_dtype_width(seg->dtype);

	for (size_t i = 0; i < TPD_ARRAY_LEN(types); i++) {
		struct tpd_segment other = {.dtype = types[i]};

		if (!tpd_dtype_converts(types[i], seg->dtype) || seg->length % tpd_dtype_width(seg->dtype) != 0 ||
		    TPD_MUL_OVERFLOW(elements, (uint64_t)tpd_dtype_width(types[i]), &other.length))
			continue;
		if (tpd_ingest_names_find(names, name, file, directory, &other, true, out_file, out_segment))
			return true;
	}
	return false;
}

/* Without its first `taken` parts and behind that prefix (0: none); false: that is no name. */
static bool rename_to(const struct tpd_ingest_names *names, const char *name, unsigned taken, size_t prefix, char key[ALIKE_KEY])
{
	size_t len = prefix > 0 ? names->prefixes[prefix - 1].len : 0;

	for (unsigned i = 0; i < taken; i++) {
		name = strchr(name, '.');
		if (!name || !strchr(++name, '.')) /* "weight" alone is everybody's */
			return false;
	}
	if (len == 0 && (prefix > 0 || taken == 0))
		return false;
	snprintf(key, ALIKE_KEY, "%.*s%s", (int)len, len ? names->prefixes[prefix - 1].text : "", name);
	return true;
}

bool tpd_ingest_names_find_alike(const struct tpd_ingest_names *names, struct tpd_ingest_renaming *last, const char *name, uint32_t file,
				 uint32_t directory, const struct tpd_segment *seg, bool *out_other, uint32_t *out_file,
				 uint32_t *out_segment)
{
	const unsigned ways = (PARTS_MAX + 1) * (TPD_INGEST_PREFIXES + 1);
	char key[ALIKE_KEY];

	if (!names->items || last->misses >= ALIKE_MISSES)
		return false;
	for (unsigned i = 0; i < ways; i++) { /* as it was the last time first: most names of a file differ in the same way */
		unsigned way = (last->way + i) % ways;

		if (!rename_to(names, name, way / (TPD_INGEST_PREFIXES + 1), way % (TPD_INGEST_PREFIXES + 1), key))
			continue;
		*out_other = !tpd_ingest_names_find(names, key, file, directory, seg, true, out_file, out_segment);
		if (!*out_other || tpd_ingest_names_find_other(names, key, file, directory, seg, out_file, out_segment)) {
			last->way = way;
			return true;
		}
	}
	last->misses++;
	return false;
}
