/*
 * rebuild.c - the catalog from the store: whole on request, and what is missing at every opening for writing.
 *
 * Both first take each run's lock once, which names what a crash published without a name, and let it go again; then they read
 * the refs, which only ever grow. What a writer stores meanwhile it records itself. So nobody waits for a writer while
 * holding the catalog's transaction, for which that writer may be waiting.
 */
#include "base/tpd.h"

#include "archive/internal.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "store/readers.h"

struct pass {
	struct tpd_archive *archive;
	bool all; /* every checkpoint, not only those that the catalog lacks */
	uint64_t done, failed, total;
	const struct tpd_progress *progress;
	enum tpd_status first; /* of the checkpoints that could not be read */
	struct tpd_err first_err;
};

/* One run's or one checkpoint's own affair: the others go on. */
static bool is_local(enum tpd_status status)
{
	return status == TPD_CORRUPT || status == TPD_NOT_FOUND || status == TPD_UNSUPPORTED;
}

static void note_failure(struct pass *pass, enum tpd_status status, const struct tpd_err *fault)
{
	if (pass->failed++ > 0)
		return;
	pass->first = status == TPD_NOT_FOUND ? TPD_CORRUPT : status;
	pass->first_err = *fault;
	pass->first_err.status = pass->first;
}

static enum tpd_status record_run(struct pass *pass, const char *name, struct tpd_err *err)
{
	struct tpd_archive *archive = pass->archive;
	struct tpd_run run = {0};
	struct tpd_err fault = {0};
	enum tpd_status status = tpd_store_run_read(archive->store, name, &run, &fault);

	if (is_local(status)) {
		note_failure(pass, status, &fault);
		return TPD_OK;
	}
	for (size_t v = 0; !status && v < run.count; v++) {
		char hex[TPD_ID_HEX];

		tpd_id_hex(&run.versions[v].id, hex);
		if (run.versions[v].forgotten || (!pass->all && tpd_catalog_has(archive->catalog, hex)))
			continue;
		status = tpd_archive_record(archive->store, archive->catalog, &run.versions[v].id, run.versions[v].version,
					    &fault);
		if (is_local(status)) {
			note_failure(pass, status, &fault);
			status = TPD_OK;
		} else if (!status) {
			pass->done++;
		}
		if (!status && pass->progress)
			status = tpd_readers_progress(pass->progress, pass->done + pass->failed, pass->total, &fault);
	}
	tpd_run_release(&run);
	if (status && err)
		*err = fault;
	return status;
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

/* Taking a run's lock names what was published without a name. Damaged refs are told of when they are read. */
static enum tpd_status settle_run(struct tpd_archive *archive, const char *name, int64_t timeout_ms, struct tpd_err *err)
{
	struct tpd_run_lock *lock = NULL;
	struct tpd_err fault = {0};
	enum tpd_status status = tpd_store_run_lock(archive->store, name, timeout_ms, &lock, &fault);

	tpd_store_run_unlock(lock);
	if (is_local(status))
		return TPD_OK;
	if (status && err)
		*err = fault;
	return status;
}

/* A run that is being written has a writer who sees to it. */
static enum tpd_status settle_if_free(struct pass *pass, const char *name, struct tpd_err *err)
{
	struct tpd_err fault = {0};
	enum tpd_status status = settle_run(pass->archive, name, 0, &fault);

	if (status == TPD_BUSY)
		return TPD_OK;
	if (status && err)
		*err = fault;
	return status;
}

static enum tpd_status settle(struct pass *pass, const char *name, struct tpd_err *err)
{
	return settle_run(pass->archive, name, pass->archive->options.lock_timeout_ms, err);
}

enum tpd_status tpd_archive_catch_up(struct tpd_archive *archive, struct tpd_err *err)
{
	struct pass pass = {.archive = archive};
	enum tpd_status status = each_run(&pass, settle_if_free, err);

	return status ? status : each_run(&pass, record_run, err);
}

/* --- checkpoints that no run names: their refs file was lost --- */

struct ids {
	struct tpd_id *items; /* sorted */
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

struct naming {
	struct tpd_archive *archive;
	struct ids known;
	uint64_t unnamed;
	bool repair;
};

static enum tpd_status gather_known(struct naming *naming, struct tpd_err *err)
{
	char **names = NULL;
	size_t count = 0;
	enum tpd_status status = tpd_store_runs(naming->archive->store, &names, &count, err);

	for (size_t i = 0; i < count; i++) {
		struct tpd_run run = {0};

		if (!status)
			status = tpd_store_run_read(naming->archive->store, names[i], &run, err);
		if (status == TPD_CORRUPT || status == TPD_UNSUPPORTED)
			status = TPD_OK; /* what it named counts as unnamed */
		for (size_t v = 0; !status && v < run.count; v++)
			status = ids_add(&naming->known, &run.versions[v].id, err);
		tpd_run_release(&run);
		free(names[i]);
	}
	free(names);
	if (!status && naming->known.count > 1)
		qsort(naming->known.items, naming->known.count, sizeof(struct tpd_id), tpd_id_compare);
	return status;
}

static enum tpd_status list_one(void *arg, const struct tpd_id *id, struct tpd_err *err)
{
	return ids_add(arg, id, err);
}

static enum tpd_status name_one(struct naming *naming, const struct tpd_id *id, struct tpd_err *err)
{
	struct tpd_manifest m;
	enum tpd_status status;

	if (naming->known.count > 0 &&
	    bsearch(id, naming->known.items, naming->known.count, sizeof(*id), tpd_id_compare))
		return TPD_OK;
	naming->unnamed++;
	if (!naming->repair || tpd_store_manifest(naming->archive->store, id, &m, NULL) != TPD_OK)
		return TPD_OK; /* a damaged manifest does not say whose it was */
	status = settle_run(naming->archive, m.run, naming->archive->options.lock_timeout_ms, err);
	tpd_manifest_release(&m);
	return status;
}

static enum tpd_status name_all(struct tpd_archive *archive, bool repair, uint64_t *out_unnamed, struct tpd_err *err)
{
	struct naming naming = {.archive = archive, .repair = repair};
	struct ids there = {0};
	enum tpd_status status = tpd_store_each(archive->store, list_one, &there, err);

	/* Names after objects: whatever is published meanwhile is not looked for. */
	if (!status)
		status = gather_known(&naming, err);
	for (size_t i = 0; !status && i < there.count; i++)
		status = name_one(&naming, &there.items[i], err);
	free(there.items);
	free(naming.known.items);
	if (!status)
		*out_unnamed = naming.unnamed;
	return status;
}

enum tpd_status tpd_archive_unnamed(struct tpd_archive *archive, uint64_t *out_count, struct tpd_err *err)
{
	enum tpd_status status = name_all(archive, false, out_count, err);

	if (status || *out_count == 0)
		return status;
	/* A writer may be between publishing and naming. */
	nanosleep(&(struct timespec){.tv_sec = 2}, NULL);
	return name_all(archive, false, out_count, err);
}

static enum tpd_status count_one(void *arg, const struct tpd_id *id TPD_UNUSED, struct tpd_err *err TPD_UNUSED)
{
	++*(uint64_t *)arg;
	return TPD_OK;
}

enum tpd_status tpd_archive_rebuild(struct tpd_archive *archive, const struct tpd_progress *progress, uint64_t *out_done,
				    uint64_t *out_failed, struct tpd_err *err)
{
	struct pass pass = {.archive = archive, .all = true, .progress = progress};
	uint64_t unnamed;
	enum tpd_status status = each_run(&pass, settle, err);

	if (!status)
		status = name_all(archive, true, &unnamed, err);
	if (!status)
		status = tpd_store_each(archive->store, count_one, &pass.total, err);
	if (!status && tpd_catalog_check(archive->catalog, NULL) == TPD_CORRUPT)
		status = tpd_archive_reopen_catalog(archive, err);
	if (!status)
		status = tpd_catalog_begin(archive->catalog, err);
	if (!status)
		status = tpd_catalog_clear(archive->catalog, err);
	if (!status)
		status = each_run(&pass, record_run, err);
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
