/*
 * refs_repair.c - a refs file that is damaged, and not by a crash, becomes one that can be read.
 *
 * The problem: the file is append-only, so a bad record in front of a valid one is never the trace of a crash, and
 * nobody may cut it off: behind it may stand forget records, which no manifest knows. So all records that have their
 * digest are kept, in their order, and written to a new file; what the bad ones named gets its name from the
 * manifests by the next lock (refs.c), at the version number that is free. The damaged file is kept beside, in
 * refs-damaged/.
 *
 * The new file replaces the old one by a rename, while the old one is locked. Who waits for that lock then finds that
 * it is on a file without a name, and opens the new one. Rejected: rewriting in place (a crash would leave neither).
 */
#include "base/tpd.h"

#include "store/store.h"

#include <stdio.h>
#include <stdlib.h>

#include "store/internal.h"

#define COPY_DIR "refs-damaged"
#define COPIES_MAX 1000u /* of one run; who has that many has other sorrows */

/* The damaged bytes into refs-damaged/ESCAPED@N, at the first N that is free: '@' is in no run's escaped name. */
static enum tpd_status keep_copy(const struct tpd_run_lock *lock, const uint8_t *data, size_t len, struct tpd_err *err)
{
	const struct tpd_store *store = lock->store;
	char path[sizeof(COPY_DIR) + TPD_STORE_NAME_MAX + 16];
	enum tpd_status status = tpd_io_mkdirs(store->io, store->dir, COPY_DIR, err);

	for (unsigned n = 1; !status && n <= COPIES_MAX; n++) {
		snprintf(path, sizeof(path), COPY_DIR "/%s@%u", lock->escaped, n);
		status = tpd_io_publish(store->io, store->dir, path, data, len, false, err);
		if (status != TPD_CONFLICT)
			return status;
		status = TPD_OK;
	}
	return status ? status : tpd_fail(err, TPD_LIMIT, "there are %u copies in '" COPY_DIR "' already", COPIES_MAX);
}

/* The file anew: the run's record, and what is left of the others. */
static enum tpd_status rewrite(const struct tpd_run_lock *lock, const char *run, const struct tpd_buf *records,
			       struct tpd_err *err)
{
	const struct tpd_store *store = lock->store;
	struct tpd_buf file = {0};
	enum tpd_status status;

	tpd_refs_put_run(&file, run);
	tpd_buf_put(&file, records->data, records->len);
	status = tpd_buf_status(&file, err);
	if (!status)
		status = tpd_io_publish(store->io, store->dir, lock->path, file.data, file.len, true, err);
	tpd_buf_release(&file);
	return status;
}

static enum tpd_status repair(const struct tpd_run_lock *lock, const char *run, struct tpd_err *err)
{
	TPD_AUTO_FREE uint8_t *data = NULL;
	struct tpd_buf records = {0};
	size_t len = 0;
	enum tpd_status status = tpd_refs_read_file(lock->store, lock->path, &data, &len, err);

	if (!status)
		status = tpd_refs_salvage(data, len, run, &records, err);
	if (!status)
		status = keep_copy(lock, data, len, err);
	if (!status)
		status = rewrite(lock, run, &records, err);
	tpd_buf_release(&records);
	return tpd_store_fault(lock->store, status, err);
}

static enum tpd_status judge(struct tpd_store *store, const char *run, struct tpd_err *err)
{
	struct tpd_run refs = {0};
	enum tpd_status status = tpd_store_run_read(store, run, &refs, err);

	tpd_run_release(&refs);
	return status;
}

enum tpd_status tpd_store_run_repair(struct tpd_store *store, const char *run, int64_t timeout_ms, bool *out_repaired,
				     struct tpd_err *err)
{
	struct tpd_run_lock *lock = NULL;
	enum tpd_status status = judge(store, run, err);

	if (status == TPD_CORRUPT) {
		status = tpd_run_lock_take(store, run, timeout_ms, &lock, err);
		if (!status)
			status = judge(store, run, err); /* another may have been quicker */
	}
	if (status == TPD_CORRUPT && lock) {
		status = repair(lock, run, err);
		if (!status)
			*out_repaired = true;
	} else if (!status) {
		*out_repaired = false;
	}
	tpd_store_run_unlock(lock);
	return status;
}
