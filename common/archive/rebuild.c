/*
 * rebuild.c - the catalog from the store: whole on request, and what is missing at every opening for writing.
 *
 * Both go through the refs run by run, under the run's lock: taking it names what a crash published without a name.
 */
#include "base/tpd.h"

#include "archive/internal.h"

#include <stdlib.h>

#include "store/readers.h"

struct pass {
	struct tpd_archive *archive;
	bool all;      /* every checkpoint, not only those that the catalog lacks */
	bool wait;     /* for a run's lock; else a run that is being written is passed over */
	uint64_t done, failed, total;
	const struct tpd_progress *progress;
	enum tpd_status first; /* of the checkpoints that could not be read */
	struct tpd_err first_err;
};

static enum tpd_status record_run(struct pass *pass, const char *name, struct tpd_err *err)
{
	struct tpd_archive *archive = pass->archive;
	struct tpd_run run = {0};
	struct tpd_run_lock *lock = NULL;
	enum tpd_status status =
		tpd_store_run_lock(archive->store, name, pass->wait ? archive->options.lock_timeout_ms : 0, &lock, err);

	if (status == TPD_BUSY && !pass->wait)
		return TPD_OK; /* its writer records what it stores */
	if (!status)
		status = tpd_store_run_read(archive->store, name, &run, err);
	for (size_t v = 0; !status && v < run.count; v++) {
		char hex[TPD_ID_HEX];
		struct tpd_err fault = {0};

		tpd_id_hex(&run.versions[v].id, hex);
		if (run.versions[v].forgotten || (!pass->all && tpd_catalog_has(archive->catalog, hex)))
			continue;
		status = tpd_archive_record(archive->store, archive->catalog, &run.versions[v].id, run.versions[v].version,
					    &fault);
		if (status == TPD_OK) {
			pass->done++;
		} else if (status == TPD_CORRUPT || status == TPD_NOT_FOUND || status == TPD_UNSUPPORTED) {
			if (pass->failed++ == 0) {
				pass->first = status == TPD_NOT_FOUND ? TPD_CORRUPT : status;
				pass->first_err = fault;
				pass->first_err.status = pass->first;
			}
			status = TPD_OK;
		} else if (err) {
			*err = fault;
		}
		if (!status && pass->progress)
			status = tpd_readers_progress(pass->progress, pass->done + pass->failed, pass->total, err);
	}
	tpd_run_release(&run);
	tpd_store_run_unlock(lock);
	return status;
}

static enum tpd_status record_runs(struct pass *pass, struct tpd_err *err)
{
	char **names = NULL;
	size_t count = 0;
	enum tpd_status status = tpd_store_runs(pass->archive->store, &names, &count, err);

	for (size_t i = 0; i < count; i++) {
		if (!status)
			status = record_run(pass, names[i], err);
		free(names[i]);
	}
	free(names);
	return status;
}

enum tpd_status tpd_archive_catch_up(struct tpd_archive *archive, struct tpd_err *err)
{
	struct pass pass = {.archive = archive};

	return record_runs(&pass, err);
}

static enum tpd_status count_one(void *arg, const struct tpd_id *id TPD_UNUSED, struct tpd_err *err TPD_UNUSED)
{
	++*(uint64_t *)arg;
	return TPD_OK;
}

enum tpd_status tpd_archive_rebuild(struct tpd_archive *archive, const struct tpd_progress *progress, uint64_t *out_done,
				    uint64_t *out_failed, struct tpd_err *err)
{
	struct pass pass = {.archive = archive, .all = true, .wait = true, .progress = progress};
	enum tpd_status status = tpd_store_each(archive->store, count_one, &pass.total, err);

	if (!status)
		status = tpd_catalog_begin(archive->catalog, err);
	if (!status)
		status = tpd_catalog_clear(archive->catalog, err);
	if (!status)
		status = record_runs(&pass, err);
	if (!status)
		status = tpd_catalog_commit(archive->catalog, err);
	if (status) {
		tpd_catalog_rollback(archive->catalog);
		return status;
	}
	*out_done = pass.done;
	*out_failed = pass.failed;
	if (pass.first && err)
		*err = pass.first_err;
	return pass.first;
}
