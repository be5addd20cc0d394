/*
 * objects.c - published checkpoints by id.
 *
 * A checkpoint is a directory objects/XX/ID.G; several generations G of one may stand side by side while it is being
 * re-encoded, and any of them serves. The highest one is taken whose manifest is valid and says ID; only where there
 * is a choice is the manifest read to make it. Names that are not of this form are nobody's business here.
 */
#include "base/tpd.h"

#include "store/store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "store/internal.h"

void tpd_object_shelf(const struct tpd_id *id, char out[TPD_STORE_PATH])
{
	snprintf(out, TPD_STORE_PATH, "objects/%02x", id->bytes[0]);
}

void tpd_object_path(const struct tpd_id *id, uint32_t generation, char out[TPD_STORE_PATH])
{
	char hex[TPD_ID_HEX];

	tpd_id_hex(id, hex);
	snprintf(out, TPD_STORE_PATH, "objects/%.2s/%s.%u", hex, hex, generation);
}

/* "ID.G" in its only spelling. */
static bool parse_name(const char *name, struct tpd_id *out_id, uint32_t *out_generation)
{
	char again[TPD_ID_HEX + 16], hex[TPD_ID_HEX];
	uint64_t generation;

	if (strlen(name) < TPD_ID_HEX + 1 || name[TPD_ID_HEX - 1] != '.')
		return false;
	memcpy(hex, name, TPD_ID_HEX - 1);
	hex[TPD_ID_HEX - 1] = 0;
	if (!tpd_unhex(hex, out_id->bytes, sizeof(out_id->bytes)) ||
	    !tpd_text_parse_u64(name + TPD_ID_HEX, &generation) || generation >= UINT32_MAX)
		return false;
	*out_generation = (uint32_t)generation;
	tpd_id_hex(out_id, hex);
	snprintf(again, sizeof(again), "%s.%u", hex, *out_generation);
	return strcmp(name, again) == 0;
}

static int compare_generations(const void *a, const void *b)
{
	uint32_t x, y;

	memcpy(&x, a, sizeof(x));
	memcpy(&y, b, sizeof(y));
	return (x < y) - (x > y); /* the highest first */
}

/* The generations of a checkpoint that have a directory, the highest first. */
static enum tpd_status list_generations(struct tpd_store *store, const struct tpd_id *id, uint32_t **out,
					size_t *out_count, struct tpd_err *err)
{
	struct tpd_buf names = {0};
	char shelf[TPD_STORE_PATH];
	uint32_t *found = NULL;
	size_t count = 0;
	enum tpd_status status;

	tpd_object_shelf(id, shelf);
	status = tpd_store_list(store, store->dir, shelf, &names, err);
	if (!status) {
		found = calloc(names.len / (TPD_ID_HEX + 1) + 1, sizeof(*found));
		if (!found)
			status = tpd_fail_nomem(err);
	}
	for (size_t at = 0; !status && at < names.len; at += strlen((char *)names.data + at) + 1) {
		struct tpd_id other;
		uint32_t generation;

		if (parse_name((char *)names.data + at, &other, &generation) && tpd_id_equal(id, &other))
			found[count++] = generation;
	}
	tpd_buf_release(&names);
	if (status) {
		free(found);
		return tpd_store_fault(store, status, err);
	}
	qsort(found, count, sizeof(*found), compare_generations);
	*out = found;
	*out_count = count;
	return TPD_OK;
}

enum tpd_status tpd_object_next_generation(struct tpd_store *store, const struct tpd_id *id, uint32_t *out_generation,
					   struct tpd_err *err)
{
	TPD_AUTO_FREE uint32_t *generations = NULL;
	size_t count = 0;
	enum tpd_status status = list_generations(store, id, &generations, &count, err);

	if (!status)
		*out_generation = count ? generations[0] + 1 : 0;
	return status;
}

enum tpd_status tpd_object_sync(struct tpd_store *store, const struct tpd_id *id, struct tpd_err *err)
{
	char shelf[TPD_STORE_PATH];
	enum tpd_status status;

	tpd_object_shelf(id, shelf);
	status = tpd_io_sync_dir(store->io, store->dir, shelf, err);
	if (!status)
		status = tpd_io_sync_dir(store->io, store->dir, "objects", err);
	return status;
}

static enum tpd_status not_there(const struct tpd_store *store, const struct tpd_id *id, struct tpd_err *err)
{
	char hex[TPD_ID_HEX];

	tpd_id_hex(id, hex);
	return tpd_fail(err, TPD_NOT_FOUND, "there is no checkpoint %.16s in store '%s'", hex, store->path);
}

static enum tpd_status read_manifest(struct tpd_store *store, const struct tpd_id *id, uint32_t generation,
				     enum tpd_manifest_keep keep, struct tpd_manifest *out, struct tpd_err *err)
{
	char dir[TPD_STORE_PATH], path[TPD_STORE_PATH + 16];
	TPD_AUTO_FREE uint8_t *data = NULL;
	struct tpd_manifest m = {0};
	enum tpd_status status;
	size_t len = 0;

	tpd_object_path(id, generation, dir);
	snprintf(path, sizeof(path), "%s/manifest", dir);
	status = tpd_io_read_file(store->io, store->dir, path, TPD_MANIFEST_MAX_FILE, &data, &len, err);
	if (status == TPD_NOT_FOUND || status == TPD_LIMIT)
		status = tpd_fail(err, TPD_CORRUPT, "'%s' is %s", path, status == TPD_LIMIT ? "too large" : "missing");
	if (status)
		return tpd_store_fault(store, status, err);
	status = tpd_manifest_parse(data, len, keep, &m, err);
	if (!status && !tpd_id_equal(&m.id, id)) {
		tpd_manifest_release(&m);
		status = tpd_fail(err, TPD_CORRUPT, "it is that of another checkpoint");
	}
	if (status) {
		if (err)
			tpd_err_prefix(err, "'%s/%s'", store->path, path);
		return status;
	}
	*out = m;
	return TPD_OK;
}

enum tpd_status tpd_object_load(struct tpd_store *store, const struct tpd_id *id, enum tpd_manifest_keep keep,
				struct tpd_manifest *out, uint32_t *out_generation, struct tpd_err *err)
{
	TPD_AUTO_FREE uint32_t *generations = NULL;
	size_t count = 0;
	enum tpd_status status = list_generations(store, id, &generations, &count, err), first = TPD_OK;

	if (status)
		return status;
	for (size_t i = 0; i < count; i++) {
		status = read_manifest(store, id, generations[i], keep, out, first ? NULL : err);
		if (!status) {
			*out_generation = generations[i];
			return TPD_OK;
		}
		if (!first)
			first = status;
	}
	return first ? first : not_there(store, id, err);
}

enum tpd_status tpd_store_manifest(struct tpd_store *store, const struct tpd_id *id, struct tpd_manifest *out,
				   struct tpd_err *err)
{
	return tpd_store_manifest_keep(store, id, TPD_MANIFEST_SEGMENTS, out, err);
}

enum tpd_status tpd_store_manifest_keep(struct tpd_store *store, const struct tpd_id *id, enum tpd_manifest_keep keep,
					struct tpd_manifest *out, struct tpd_err *err)
{
	uint32_t generation;

	return tpd_object_load(store, id, keep, out, &generation, err);
}

bool tpd_store_has(struct tpd_store *store, const struct tpd_id *id)
{
	struct tpd_manifest m = {0};
	bool has = tpd_store_manifest(store, id, &m, NULL) == TPD_OK;

	tpd_manifest_release(&m);
	return has;
}

enum tpd_status tpd_object_open(struct tpd_store *store, const struct tpd_id *id, uint32_t generation, int *out_dir,
				struct tpd_err *err)
{
	char path[TPD_STORE_PATH];
	int fd;

	tpd_object_path(id, generation, path);
	fd = store->io->opendir(store->io, store->dir, path);
	if (fd < 0)
		return tpd_fail_sys(err, -fd, "cannot open '%s/%s'", store->path, path);
	*out_dir = fd;
	return TPD_OK;
}

enum tpd_status tpd_store_object_dir(struct tpd_store *store, const struct tpd_id *id, int *out_dir,
				     struct tpd_err *err)
{
	TPD_AUTO_FREE uint32_t *generations = NULL;
	uint32_t generation = 0;
	size_t count = 0;
	enum tpd_status status = list_generations(store, id, &generations, &count, err);

	if (!status && count == 0)
		status = not_there(store, id, err);
	if (!status && count == 1) {
		generation = generations[0];
	} else if (!status) {
		struct tpd_manifest m = {0};

		status = tpd_object_load(store, id, TPD_MANIFEST_SEGMENTS, &m, &generation, err);
		tpd_manifest_release(&m);
	}
	if (status)
		return status;
	return tpd_object_open(store, id, generation, out_dir, err);
}

enum tpd_status tpd_store_object_bytes(struct tpd_store *store, const struct tpd_id *id, uint64_t *out_bytes,
				       struct tpd_err *err)
{
	struct tpd_buf names = {0};
	uint64_t bytes = 0;
	int dir = -1;
	enum tpd_status status = tpd_store_object_dir(store, id, &dir, err);

	if (status)
		return status;
	status = tpd_store_list(store, dir, ".", &names, err);
	for (size_t at = 0; !status && at < names.len; at += strlen((char *)names.data + at) + 1) {
		const char *name = (char *)names.data + at;
		struct stat st;
		int rc = store->io->stat(store->io, dir, name, &st);

		if (rc < 0)
			status = tpd_fail_sys(err, -rc, "cannot stat '%s'", name);
		else
			bytes += (uint64_t)st.st_size;
	}
	store->io->close(store->io, dir);
	tpd_buf_release(&names);
	if (status)
		return tpd_store_fault(store, status, err);
	*out_bytes = bytes;
	return TPD_OK;
}

/* Ids in one directory objects/XX, appended as bytes. */
static enum tpd_status shelf_ids(struct tpd_store *store, const char *shelf, struct tpd_buf *ids, struct tpd_err *err)
{
	struct tpd_buf names = {0};
	char path[TPD_STORE_PATH];
	enum tpd_status status;

	snprintf(path, sizeof(path), "objects/%s", shelf);
	status = tpd_store_list(store, store->dir, path, &names, err);
	for (size_t at = 0; !status && at < names.len; at += strlen((char *)names.data + at) + 1) {
		const char *name = (char *)names.data + at;
		struct tpd_id id;
		uint32_t generation;

		if (parse_name(name, &id, &generation) && memcmp(name, shelf, 2) == 0)
			tpd_buf_put(ids, id.bytes, sizeof(id.bytes));
	}
	tpd_buf_release(&names);
	return status;
}

enum tpd_status tpd_object_ids(struct tpd_store *store, struct tpd_id **out_ids, size_t *out_count, struct tpd_err *err)
{
	struct tpd_buf shelves = {0}, ids = {0};
	enum tpd_status status = tpd_store_list(store, store->dir, "objects", &shelves, err);
	struct tpd_id *array = NULL;
	size_t count = 0, all;

	for (size_t at = 0; !status && at < shelves.len; at += strlen((char *)shelves.data + at) + 1) {
		const char *shelf = (char *)shelves.data + at;

		if (strlen(shelf) == 2 && strspn(shelf, "0123456789abcdef") == 2)
			status = shelf_ids(store, shelf, &ids, err);
	}
	tpd_buf_release(&shelves);
	if (!status)
		status = tpd_buf_status(&ids, err);
	all = ids.len / sizeof(*array);
	if (!status) {
		array = calloc(all + 1, sizeof(*array));
		if (!array)
			status = tpd_fail_nomem(err);
	}
	if (status) {
		tpd_buf_release(&ids);
		return tpd_store_fault(store, status, err);
	}
	if (all)
		memcpy(array, ids.data, ids.len);
	tpd_buf_release(&ids);
	qsort(array, all, sizeof(*array), tpd_id_compare);
	for (size_t i = 0; i < all; i++)
		if (count == 0 || !tpd_id_equal(&array[count - 1], &array[i]))
			array[count++] = array[i];
	*out_ids = array;
	*out_count = count;
	return TPD_OK;
}

enum tpd_status tpd_store_each(struct tpd_store *store, enum tpd_status (*fn)(void *arg, const struct tpd_id *id,
			       struct tpd_err *err), void *arg, struct tpd_err *err)
{
	TPD_AUTO_FREE struct tpd_id *ids = NULL;
	size_t count = 0;
	enum tpd_status status = tpd_object_ids(store, &ids, &count, err);

	for (size_t i = 0; !status && i < count; i++)
		status = fn(arg, &ids[i], err);
	return status;
}
