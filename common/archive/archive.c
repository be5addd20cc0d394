/*
 * archive.c - opening, and the calls that touch both store and catalog.
 *
 * Store first, catalog second: an ingest is done when the store has it; the row follows, and whatever a crash left out is put in by the next
 * opening for writing (catch_up). So a catalog that is missing, stale or deleted is never a loss.
 */
#include "base/tpd.h"

#include "archive/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

static enum tpd_status open_catalog(struct tpd_archive *archive, struct tpd_catalog **out, struct tpd_err *err)
{
	bool write = archive->options.mode != TPD_ARCHIVE_READ;

	return tpd_catalog_open(archive->options.io, archive->catalog_path, write ? TPD_CATALOG_WRITE : TPD_CATALOG_READ,
				archive->options.lock_timeout_ms, out, err);
}

static enum tpd_status put_aside(const struct tpd_archive *archive, struct tpd_err *err)
{
	static const char *const endings[] = {"-journal", ""}; /* the file itself last: as long as it is there, both are */
	const struct tpd_io *io = archive->options.io;

	for (size_t i = 0; i < TPD_ARRAY_LEN(endings); i++) {
		TPD_AUTO_FREE char *from = NULL;
		TPD_AUTO_FREE char *to = NULL;
		int rc;

		if (asprintf(&from, "%s%s", archive->catalog_path, endings[i]) < 0) {
			from = NULL;
			return tpd_fail_nomem(err);
		}
		if (asprintf(&to, "%s.damaged%s", archive->catalog_path, endings[i]) < 0) {
			to = NULL;
			return tpd_fail_nomem(err);
		}
		rc = io->rename(io, AT_FDCWD, from, AT_FDCWD, to, true);
		if (rc < 0 && rc != -ENOENT)
			return tpd_fail_sys(err, -rc, "cannot put the damaged catalog '%s' aside", archive->catalog_path);
	}
	return TPD_OK;
}

/*
 * The same; a file that is damaged, or no catalog, is put aside and a new one made, since the store has all that was in it. doubt: look
 * through all of it, not only at its beginning.
 */
static enum tpd_status open_or_replace_catalog(struct tpd_archive *archive, bool doubt, struct tpd_catalog **out,
					       struct tpd_err *err)
{
	struct tpd_err fault = {0};
	enum tpd_status status = open_catalog(archive, out, &fault);

	archive->catalog_fault = (struct tpd_err){0};
	if (!status && doubt) {
		status = tpd_catalog_check(*out, &fault);
		if (status)
			tpd_catalog_close(*out);
	}
	if (status == TPD_CORRUPT && archive->options.mode != TPD_ARCHIVE_READ) {
		status = put_aside(archive, err);
		if (status)
			return status;
		tpd_fail(&archive->catalog_fault, TPD_CORRUPT,
			 "the catalog was damaged: it is kept as '%s.damaged', and made again from the store",
			 archive->catalog_path);
		return open_catalog(archive, out, err);
	}
	if (status && status != TPD_NOT_FOUND)
		archive->catalog_fault = fault;
	if (status && err)
		*err = fault;
	return status;
}

static void remember_file(struct tpd_archive *archive)
{
	struct stat st;

	if (archive->options.io->stat(archive->options.io, AT_FDCWD, archive->catalog_path, &st) == 0) {
		archive->catalog_device = st.st_dev;
		archive->catalog_inode = st.st_ino;
	}
}

bool tpd_archive_catalog_lost(const struct tpd_archive *archive)
{
	struct stat st;

	return archive->options.io->stat(archive->options.io, AT_FDCWD, archive->catalog_path, &st) != 0 ||
	       st.st_dev != archive->catalog_device || st.st_ino != archive->catalog_inode;
}

enum tpd_status tpd_archive_open(const struct tpd_archive_options *options, struct tpd_archive **out_archive,
				 struct tpd_err *err)
{
	struct tpd_archive *archive = calloc(1, sizeof(*archive));
	enum tpd_store_flags flags = options->mode == TPD_ARCHIVE_READ	  ? TPD_STORE_READ
				     : options->mode == TPD_ARCHIVE_WRITE ? TPD_STORE_WRITE
									  : TPD_STORE_CREATE;
	enum tpd_status status;

	if (!archive)
		return tpd_fail_nomem(err);
	archive->options = *options;
	archive->options.store = archive->options.catalog = NULL;
	if (!archive->options.io)
		archive->options.io = tpd_io_posix();
	if (asprintf(&archive->catalog_path, "%s%s", options->catalog ? options->catalog : options->store,
		     options->catalog ? "" : "/catalog.sqlite") < 0)
		archive->catalog_path = NULL;
	status = archive->catalog_path ? TPD_OK : tpd_fail_nomem(err);
	if (!status)
		status = tpd_store_open(archive->options.io, options->store, flags, options->lock_timeout_ms, &archive->store, err);
	if (!status)
		status = tpd_pool_new(options->threads, &archive->pool, err);
	if (!status) {
		status = open_or_replace_catalog(archive, false, &archive->catalog, err);
		if (status && options->mode == TPD_ARCHIVE_READ && status != TPD_BUSY)
			status = TPD_OK; /* the store tells all, only slower */
	}
	if (!status && options->mode != TPD_ARCHIVE_READ) {
		remember_file(archive);
		status = tpd_archive_catch_up(archive, err);
	}
	if (status) {
		tpd_archive_close(archive);
		return status;
	}
	*out_archive = archive;
	return TPD_OK;
}

void tpd_archive_close(struct tpd_archive *archive)
{
	if (!archive)
		return;
	tpd_catalog_close(archive->catalog);
	tpd_pool_free(archive->pool);
	tpd_store_close(archive->store);
	free(archive->catalog_path);
	free(archive);
}

struct tpd_store *tpd_archive_store(struct tpd_archive *archive)
{
	return archive->store;
}

const struct tpd_err *tpd_archive_catalog_fault(const struct tpd_archive *archive)
{
	return &archive->catalog_fault;
}

struct tpd_catalog *tpd_archive_catalog(struct tpd_archive *archive)
{
	return archive->catalog;
}

enum tpd_status tpd_archive_reopen_catalog(struct tpd_archive *archive, struct tpd_err *err)
{
	struct tpd_catalog *fresh = NULL, *old = archive->catalog;
	enum tpd_status status = open_or_replace_catalog(archive, true, &fresh, err);

	if (status)
		return status;
	archive->catalog = fresh;
	status = tpd_archive_catch_up(archive, err);
	if (status) {
		archive->catalog = old;
		old = fresh;
	} else {
		remember_file(archive);
	}
	tpd_catalog_close(old);
	return status;
}

/* With a catalog handle of this thread's own. */
static enum tpd_status record(struct tpd_archive *archive, const char *run, const struct tpd_ingest_result *result,
			      struct tpd_err *err)
{
	struct tpd_run_metrics metrics = {0};
	struct tpd_catalog *catalog = NULL;
	char hex[TPD_ID_HEX];
	enum tpd_status status = open_catalog(archive, &catalog, err);

	if (status)
		return status;
	tpd_id_hex(&result->id, hex);
	status = tpd_store_metrics(archive->store, run, &metrics, err);
	/* What was stored anew beside a damaged generation has a row already, which tells of that one. */
	if (!status && result->existed && tpd_catalog_has(catalog, hex))
		status = tpd_catalog_set_metrics(catalog, hex, tpd_run_metrics_of(&metrics, &result->id), err);
	else if (!status)
		status = tpd_archive_record(archive->store, catalog, &result->id, result->version, &metrics, err);
	tpd_run_metrics_release(&metrics);
	tpd_catalog_close(catalog);
	return status;
}

enum tpd_status tpd_archive_ingest(struct tpd_archive *archive, const char *run, uint64_t step,
				   const struct tpd_capture *capture, const struct tpd_progress *progress,
				   struct tpd_ingest_result *out, struct tpd_err *out_unrecorded, struct tpd_err *err)
{
	return tpd_archive_ingest_from(archive, NULL, run, step, capture, progress, out, out_unrecorded, err);
}

enum tpd_status tpd_archive_ingest_from(struct tpd_archive *archive, const char *base, const char *run, uint64_t step,
					const struct tpd_capture *capture, const struct tpd_progress *progress,
					struct tpd_ingest_result *out, struct tpd_err *out_unrecorded, struct tpd_err *err)
{
	struct tpd_ingest_options options = {
		.pool = archive->pool,
		.part_size = archive->options.part_size,
		.max_depth = archive->options.max_depth,
		.effort = archive->options.effort,
		.depend = archive->options.depend,
		.skip_remnants = archive->options.skip_remnants,
		.now_ns = tpd_clock_wall_ns(),
	};
	struct tpd_ingest_result result = {0};
	struct tpd_run_lock *lock = NULL;
	struct tpd_metrics metrics = {0};
	struct tpd_err unrecorded = {0}, no_base = {0};
	TPD_AUTO_FREE char *tip = tpd_tip_path(archive, run);
	/* First: a base may be stored, and the lock makes a file for the run. */
	enum tpd_status status = tpd_ingest_check(run, step, tpd_capture_source(capture), err);

	if (status)
		return status;
	if (progress)
		options.progress = *progress;
	options.tip = tip;
	options.metrics = &metrics;
	status = tpd_base_choose(archive, base, run, step, progress, &options, &no_base);
	if (status && err)
		*err = no_base;
	if (!status)
		status = tpd_capture_metrics(capture, &metrics, err);
	if (!status)
		status = tpd_store_run_lock(archive->store, run, archive->options.lock_timeout_ms, &lock, err);
	if (!status)
		status = tpd_ingest(lock, run, step, tpd_capture_source(capture), &options, &result, err);
	if (!status && !result.existed && !result.near_copy)
		tpd_tip_put(archive, run, &result.id, capture);
	tpd_store_run_unlock(lock);
	tpd_metrics_release(&metrics);
	if (status)
		return status;
	record(archive, run, &result, &unrecorded);
	if (out_unrecorded)
		*out_unrecorded = unrecorded;
	if (no_base.status)
		result.base_fault = no_base;
	*out = result;
	return TPD_OK;
}

static enum tpd_status find_unfinished(struct tpd_store *store, const char *run, uint64_t step, uint64_t *out_bytes,
				       struct tpd_err *err)
{
	struct tpd_unfinished *items = NULL;
	size_t count = 0;
	bool found = false;
	enum tpd_status status = tpd_store_unfinished(store, &items, &count, err);

	for (size_t i = 0; i < count; i++) {
		if (items[i].step == step && strcmp(items[i].run, run) == 0) {
			found = true;
			*out_bytes = items[i].bytes;
		}
		free(items[i].run);
	}
	free(items);
	if (!status && !found)
		status = tpd_fail(err, TPD_NOT_FOUND, "no checkpoint %s@%llu was begun and left unfinished", run,
				  (unsigned long long)step);
	return status;
}

enum tpd_status tpd_archive_discard(struct tpd_archive *archive, const char *run, uint64_t step, int64_t timeout_ms,
				    uint64_t *out_bytes, struct tpd_err *err)
{
	struct tpd_run_lock *lock = NULL;
	uint64_t bytes = 0;
	/* Before the lock, which makes a file for a run that there is none of; and again, since it publishes what is whole. */
	enum tpd_status status = find_unfinished(archive->store, run, step, &bytes, err);

	if (!status)
		status = tpd_store_run_lock(archive->store, run, timeout_ms, &lock, err);
	if (!status)
		status = find_unfinished(archive->store, run, step, &bytes, err);
	if (!status)
		status = tpd_store_ingest_discard(lock, step, err);
	tpd_store_run_unlock(lock);
	if (!status)
		*out_bytes = bytes;
	return status;
}

bool tpd_archive_lost(struct tpd_archive *archive, const char *run, const char *id_hex)
{
	struct tpd_run names = {0};
	bool forgotten = false;
	struct tpd_id id;
	int dir;

	if (strlen(id_hex) != TPD_ID_HEX - 1 || !tpd_unhex(id_hex, id.bytes, sizeof(id.bytes)))
		return false;
	switch (tpd_store_object_dir(archive->store, &id, &dir, NULL)) {
	case TPD_OK:
		tpd_store_io(archive->store)->close(tpd_store_io(archive->store), dir);
		return false;
	case TPD_NOT_FOUND:
		break;
	default: /* there is something, or it cannot be told */
		return false;
	}
	if (tpd_store_run_read(archive->store, run, &names, NULL) == TPD_OK)
		for (size_t v = 0; v < names.count; v++)
			forgotten |= names.versions[v].forgotten && tpd_id_equal(&names.versions[v].id, &id);
	tpd_run_release(&names);
	return !forgotten;
}

enum tpd_status tpd_archive_restore(struct tpd_archive *archive, const struct tpd_id *id, const char *to,
				    const char *const *files, bool force, const struct tpd_progress *progress,
				    struct tpd_err *err)
{
	struct tpd_restore_options options = {.pool = archive->pool, .files = files, .force = force};

	if (progress)
		options.progress = *progress;
	return tpd_restore(archive->store, id, to, &options, err);
}

enum tpd_status tpd_archive_verify(struct tpd_archive *archive, const struct tpd_id *id, const struct tpd_progress *progress,
				   struct tpd_err *err)
{
	struct tpd_verify_options options = {.pool = archive->pool};

	if (progress)
		options.progress = *progress;
	return tpd_verify(archive->store, id, &options, err);
}
