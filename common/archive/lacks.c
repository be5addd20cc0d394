/*
 * lacks.c - what a checkpoint does not have that the one before it has.
 *
 * A save that was told to leave something out looks like one that lost it, or like one of which a part had been deleted when it was
 * taken. Nobody can tell from here, so it is for somebody to hear of. Names are compared without their digits: shards and ranks
 * come in other numbers, and steps are in names.
 */
#include "base/tpd.h"

#include "archive/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/digest.h"

/* A digest of a path without its digits. */
static uint64_t key_of(const char *path)
{
	char text[4096];
	size_t len = 0;

	for (; *path && len < sizeof(text); path++)
		if (*path < '0' || *path > '9')
			text[len++] = *path;
	return tpd_xxh64(text, len);
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static enum tpd_status look(const struct tpd_manifest *m, const struct tpd_manifest *before, struct tpd_archive_lacks *out, struct tpd_err *err)
{
	TPD_AUTO_FREE uint64_t *keys = calloc(m->file_count + 1u, sizeof(*keys));

	if (!keys)
		return tpd_fail_nomem(err);
	for (uint32_t f = 0; f < m->file_count; f++)
		keys[f] = key_of(m->entries[m->files[f]].path);
	qsort(keys, m->file_count, sizeof(*keys), compare);
	for (uint32_t f = 0; f < before->file_count; f++) {
		const char *path = before->entries[before->files[f]].path;
		uint64_t key = key_of(path);

		if (bsearch(&key, keys, m->file_count, sizeof(*keys), compare))
			continue;
		if (out->count++ == 0)
			snprintf(out->first, sizeof(out->first), "%s", path);
	}
	return TPD_OK;
}

enum tpd_status tpd_archive_lacks(struct tpd_archive *archive, const struct tpd_id *id, struct tpd_archive_lacks *out, struct tpd_err *err)
{
	struct tpd_manifest m = {0}, before = {0};
	enum tpd_status status = tpd_store_manifest(archive->store, id, &m, err);

	*out = (struct tpd_archive_lacks){0};
	if (!status && m.has_w1 && m.kind == TPD_CHECKPOINT_DIR) {
		out->before_step = m.w1_step;
		status = tpd_store_manifest(archive->store, &m.w1, &before, err);
		if (!status && before.kind == TPD_CHECKPOINT_DIR)
			status = look(&m, &before, out, err);
	}
	tpd_manifest_release(&before);
	tpd_manifest_release(&m);
	return status;
}
