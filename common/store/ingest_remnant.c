/*
 * ingest_remnant.c - is this only what is left of a checkpoint that is stored whole?
 *
 * Whoever wants room deletes the optimizer's state of an old checkpoint, or is still at deleting all of it. The rest is no version of that
 * step: as the newest one it would hide the whole one. Names, types, sizes, modes and times tell, as the manifest has them from the same
 * path; digests would tell no more than these do of a checkpoint that nobody writes to, and take the reading of all that is left.
 */
#include "base/tpd.h"

#include "store/ingest_internal.h"

#include <string.h>

/* Times of directories change when something in them is deleted, and those of links no restore gives back. */
static bool same_entry(const struct tpd_entry *a, const struct tpd_entry *b)
{
	if (a->type != b->type)
		return false;
	switch (a->type) {
	case TPD_ENTRY_FILE:
		return a->size == b->size && a->mtime_ns == b->mtime_ns && a->mode == b->mode;
	case TPD_ENTRY_SYMLINK:
		return strcmp(a->target, b->target) == 0;
	case TPD_ENTRY_DIR:
		return a->mode == b->mode;
	}
	return false;
}

/* Has `whole`, read at the same path, all entries of `rest`, and more? Both are sorted by path. */
static bool is_left_of(const struct tpd_manifest *rest, const struct tpd_manifest *whole)
{
	uint32_t at = 0;

	if (rest->kind != TPD_CHECKPOINT_DIR || whole->kind != TPD_CHECKPOINT_DIR || rest->entry_count >= whole->entry_count ||
	    !*rest->source || strcmp(rest->source, whole->source) != 0)
		return false;
	for (uint32_t i = 0; i < rest->entry_count; i++, at++) {
		while (at < whole->entry_count && strcmp(whole->entries[at].path, rest->entries[i].path) < 0)
			at++;
		if (at == whole->entry_count || strcmp(whole->entries[at].path, rest->entries[i].path) != 0 ||
		    !same_entry(&rest->entries[i], &whole->entries[at]))
			return false;
	}
	return true;
}

enum tpd_status tpd_ingest_find_whole(struct tpd_ingest_job *job, const struct tpd_run *run, struct tpd_ingest_result *out,
				      struct tpd_err *err)
{
	for (size_t v = run->count; v-- > 0;) {
		struct tpd_manifest stored;
		bool ours, left;
		enum tpd_status status = tpd_ingest_read_version(job, &run->versions[v], &stored, &ours, err);

		if (status)
			return status;
		if (!ours)
			continue;
		left = is_left_of(&job->manifest, &stored);
		tpd_manifest_release(&stored);
		out->remnant = left && tpd_ingest_is_there(job, &run->versions[v], out);
		if (out->remnant)
			return TPD_OK;
	}
	return TPD_OK;
}
