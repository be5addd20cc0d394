/*
 * rebuild.c - the catalog from the store: whole on request, and what is missing at every opening for writing.
 *
 * A rebuild on request repairs damaged refs before all else. Where it cannot, the rows of that run stay as they are:
 * they are the last that names its checkpoints. Metrics that refs have lost it reads again from the stored files (recall.c).
 *
 * Both then take the lock of each run for which a crash left something, which names what was published without a
 * name, and let it go again; then they read the refs, which only ever grow. What a writer stores meanwhile it records
 * itself. So nobody waits for a writer while holding the catalog's transaction, for which that writer may be waiting.
 */
#include "base/tpd.h"

#include "archive/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "store/readers.h"

struct pass {
	struct tpd_archive *archive;
	bool all; /* every checkpoint, not only those that the catalog lacks */
	uint64_t done, failed, total, repaired, lost;
	char **unreadable; /* runs whose refs cannot be read: owned names */
	size_t unreadable_count;
	struct tpd_recalled recalled;
	const struct tpd_progress *progress;
	enum tpd_status first; /* of the checkpoints that could not be read */
	struct tpd_err first_err;
};

bool tpd_archive_is_local(const struct tpd_err *fault)
{
	switch (fault->status) {
	case TPD_CORRUPT:
	case TPD_NOT_FOUND:
	case TPD_UNSUPPORTED:
	case TPD_LIMIT: /* what the catalog cannot hold, or nobody would read */
		return true;
	case TPD_IO: /* somebody else's file: what another user made by hand, say */
		return fault->sys == EACCES || fault->sys == EPERM || fault->sys == EROFS;
	default:
		return false;
	}
}

static void note_failure(struct pass *pass, enum tpd_status status, const struct tpd_err *fault)
{
	if (pass->failed++ > 0)
		return;
	pass->first = status == TPD_NOT_FOUND ? TPD_CORRUPT : status;
	pass->first_err = *fault;
	pass->first_err.status = pass->first;
}

static void pass_release(struct pass *pass)
{
	for (size_t i = 0; i < pass->unreadable_count; i++)
		free(pass->unreadable[i]);
	free(pass->unreadable);
}

static bool is_unreadable(const struct pass *pass, const char *run)
{
	for (size_t i = 0; i < pass->unreadable_count; i++)
		if (strcmp(pass->unreadable[i], run) == 0)
			return true;
	return false;
}

static enum tpd_status note_unreadable(struct pass *pass, const char *run, struct tpd_err *err)
{
	char **grown = reallocarray(pass->unreadable, pass->unreadable_count + 1, sizeof(*grown));

	if (!grown)
		return tpd_fail_nomem(err);
	pass->unreadable = grown;
	grown[pass->unreadable_count] = strdup(run);
	if (!grown[pass->unreadable_count])
		return tpd_fail_nomem(err);
	pass->unreadable_count++;
	return TPD_OK;
}

/* Damaged refs made readable; where they stay unreadable that is noted as the run's failure. */
static enum tpd_status repair_run(struct pass *pass, const char *name, struct tpd_err *err)
{
	struct tpd_err fault = {0};
	bool repaired = false;
	enum tpd_status status = tpd_store_run_repair(pass->archive->store, name, pass->archive->options.lock_timeout_ms,
						      &repaired, &fault);

	pass->repaired += repaired;
	if (status && tpd_archive_is_local(&fault)) {
		note_failure(pass, status, &fault);
		return note_unreadable(pass, name, err);
	}
	if (status && err)
		*err = fault;
	return status;
}

/* What the catalog lacks of a checkpoint: all of it, or metrics that were told later. */
static enum tpd_status record_version(struct pass *pass, const struct tpd_version *version, const struct tpd_run_metrics *metrics,
				      bool *out_done, struct tpd_err *err)
{
	struct tpd_archive *archive = pass->archive;
	char hex[TPD_ID_HEX];

	tpd_id_hex(&version->id, hex);
	*out_done = pass->all || !tpd_catalog_has(archive->catalog, hex);
	if (*out_done)
		return tpd_archive_record(archive->store, archive->catalog, &version->id, version->version, metrics, err);
	return tpd_catalog_set_metrics(archive->catalog, hex, tpd_run_metrics_of(metrics, &version->id), err);
}

static enum tpd_status record_run(struct pass *pass, const char *name, struct tpd_err *err)
{
	struct tpd_archive *archive = pass->archive;
	struct tpd_run_metrics metrics = {0};
	struct tpd_run run = {0};
	struct tpd_err fault = {0};
	enum tpd_status status;

	if (is_unreadable(pass, name))
		return TPD_OK;
	status = tpd_store_run_read(archive->store, name, &run, &fault);
	if (!status)
		status = tpd_store_metrics(archive->store, name, &metrics, &fault);
	if (status && tpd_archive_is_local(&fault)) {
		note_failure(pass, status, &fault);
		tpd_run_release(&run);
		return TPD_OK;
	}
	for (size_t v = 0; !status && v < run.count; v++) {
		bool done = false;

		if (run.versions[v].forgotten)
			continue;
		status = record_version(pass, &run.versions[v], &metrics, &done, &fault);
		if (!status && !done)
			continue;
		if (status && tpd_archive_is_local(&fault)) {
			note_failure(pass, status, &fault);
			status = TPD_OK;
		} else if (!status) {
			pass->done++;
		}
		if (!status && pass->progress)
			status = tpd_readers_progress(pass->progress, pass->done + pass->failed, pass->total, &fault);
	}
	tpd_run_metrics_release(&metrics);
	tpd_run_release(&run);
	if (status && err)
		*err = fault;
	return status;
}

static enum tpd_status recall_run(struct pass *pass, const char *name, struct tpd_err *err)
{
	return tpd_archive_recall(pass->archive, name, pass->progress, &pass->recalled, err);
}

/* Calls fn for the name of every run. */
static enum tpd_status each_run(struct pass *pass, enum tpd_status (*fn)(struct pass *pass, const char *name, struct tpd_err *err),
				struct tpd_err *err)
{
	char **names = NULL;
	size_t count = 0;
	enum tpd_status status = tpd_store_runs(pass->archive->store, &names, &count, err);

	for (size_t i = 0; i < count; i++) {
		if (!status)
			status = fn(pass, names[i], err);
		free(names[i]);
	}
	free(names);
	return status;
}

/*
 * Taking a run's lock names what was published without a name. Damaged refs are told of when they are read; a file
 * that may only be read is recorded as it is.
 */
static enum tpd_status settle_run(struct tpd_archive *archive, const char *name, int64_t timeout_ms, struct tpd_err *err)
{
	struct tpd_run_lock *lock = NULL;
	struct tpd_err fault = {0};
	enum tpd_status status = tpd_store_run_lock(archive->store, name, timeout_ms, &lock, &fault);

	tpd_store_run_unlock(lock);
	if (status && tpd_archive_is_local(&fault))
		return TPD_OK;
	if (status && err)
		*err = fault;
	return status;
}

/* A file with a record at least: that is there before anything of the run is. */
static bool has_refs(struct tpd_archive *archive, const char *name)
{
	struct tpd_run run = {0};
	enum tpd_status status = tpd_store_run_read(archive->store, name, &run, NULL);
	bool has = status ? status != TPD_NOT_FOUND : run.valid_bytes > 0;

	tpd_run_release(&run);
	return has;
}

/*
 * Each run for which a crash may have left something. pass->all: also those whose refs are gone as a whole, which no
 * crash does, and wait for whoever writes; else a run that is being written is left to its writer.
 */
static enum tpd_status settle(struct pass *pass, struct tpd_err *err)
{
	struct tpd_archive *archive = pass->archive;
	char **names = NULL;
	size_t count = 0;
	enum tpd_status status = tpd_store_unsettled(archive->store, &names, &count, err);

	for (size_t i = 0; i < count; i++) {
		struct tpd_err fault = {0};
		bool had = has_refs(archive, names[i]);

		if (!status && (pass->all || had))
			status = settle_run(archive, names[i], pass->all ? archive->options.lock_timeout_ms : 0, &fault);
		pass->lost += !status && !had && has_refs(archive, names[i]);
		if (status == TPD_BUSY && !pass->all)
			status = TPD_OK;
		else if (fault.status && err)
			*err = fault;
		free(names[i]);
	}
	free(names);
	return status;
}

enum tpd_status tpd_archive_catch_up(struct tpd_archive *archive, struct tpd_err *err)
{
	struct pass pass = {.archive = archive};
	enum tpd_status status = settle(&pass, err);

	return status ? status : each_run(&pass, record_run, err);
}

/* --- everything anew --- */

struct ids {
	struct tpd_id *items; /* owned */
	size_t count, cap;
};

static enum tpd_status ids_add(struct ids *ids, const struct tpd_id *id, struct tpd_err *err)
{
	if (ids->count == ids->cap) {
		size_t cap = ids->cap ? 2 * ids->cap : 64;
		struct tpd_id *grown = realloc(ids->items, cap * sizeof(*grown));

		if (!grown)
			return tpd_fail_nomem(err);
		ids->items = grown;
		ids->cap = cap;
	}
	ids->items[ids->count++] = *id;
	return TPD_OK;
}

static enum tpd_status count_one(void *arg, const struct tpd_id *id TPD_UNUSED, struct tpd_err *err TPD_UNUSED)
{
	++*(uint64_t *)arg;
	return TPD_OK;
}

struct row_ids {
	const struct pass *pass;
	struct ids ids;
};

static enum tpd_status take_row(void *arg, const struct tpd_catalog_row *row, struct tpd_err *err)
{
	struct row_ids *rows = arg;
	struct tpd_id id;

	if (is_unreadable(rows->pass, row->run) || !tpd_unhex(row->id, id.bytes, sizeof(id.bytes)))
		return TPD_OK;
	return ids_add(&rows->ids, &id, err);
}

/* Empty the catalog, but for the rows of runs whose refs cannot be read. */
static enum tpd_status clear(const struct pass *pass, struct tpd_err *err)
{
	struct tpd_catalog *catalog = pass->archive->catalog;
	struct row_ids rows = {.pass = pass};
	enum tpd_status status;

	if (pass->unreadable_count == 0)
		return tpd_catalog_clear(catalog, err);
	status = tpd_catalog_list(catalog, NULL, take_row, &rows, err);
	for (size_t i = 0; !status && i < rows.ids.count; i++) {
		char hex[TPD_ID_HEX];

		tpd_id_hex(&rows.ids.items[i], hex);
		status = tpd_catalog_remove(catalog, hex, err);
	}
	free(rows.ids.items);
	return status;
}

static enum tpd_status record_all(struct pass *pass, struct tpd_err *err)
{
	struct tpd_catalog *catalog = pass->archive->catalog;
	enum tpd_status status = tpd_catalog_begin(catalog, err);

	if (!status)
		status = clear(pass, err);
	if (!status)
		status = each_run(pass, record_run, err);
	if (!status)
		status = tpd_catalog_commit(catalog, err);
	if (status)
		tpd_catalog_rollback(catalog);
	return status;
}

enum tpd_status tpd_archive_rebuild(struct tpd_archive *archive, const struct tpd_progress *progress,
				    struct tpd_archive_rebuilt *out, struct tpd_err *err)
{
	struct pass pass = {.archive = archive, .all = true, .progress = progress};
	enum tpd_status status = each_run(&pass, repair_run, err);

	if (!status)
		status = settle(&pass, err);
	if (!status)
		status = each_run(&pass, recall_run, err);
	if (!status)
		status = tpd_store_each(archive->store, count_one, &pass.total, err);
	if (!status && tpd_catalog_check(archive->catalog, NULL) == TPD_CORRUPT)
		status = tpd_archive_reopen_catalog(archive, err);
	if (!status)
		status = record_all(&pass, err);
	pass_release(&pass);
	if (status)
		return status;
	*out = (struct tpd_archive_rebuilt){
		.done = pass.done,
		.failed = pass.failed,
		.repaired = pass.repaired + pass.lost,
		.lost = pass.lost,
		.recalled = pass.recalled.found,
		.unrecalled = pass.recalled.failed,
		.recall_fault = pass.recalled.first,
	};
	if (pass.first && err)
		*err = pass.first_err;
	return pass.first;
}
