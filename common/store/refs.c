/*
 * refs.c - write a run's records: its writer lock, what is repaired when it is taken, and new versions.
 *
 * The lock is on the refs file itself, which only a repair replaces (refs_repair.c). So whoever gets the lock looks
 * whether it is still on the file of that name, and begins anew when it is not. Then it may find what a crash left:
 *
 *     a torn record at the end                       is cut off
 *     a complete manifest in ingest/ESCAPED@STEP     is published
 *     an object of this run that no record mentions  gets its version record
 *
 * The last are found by refs_name.c; only the manifests of the few that nobody mentions are read.
 *
 * A record is appended behind the last valid one and fsynced. When writing fails, the file is cut back. When fsync
 * fails, what is on the disk is unknown and this descriptor can no longer tell: the lock refuses to write, and the next
 * one starts from what it reads.
 */
#include "base/tpd.h"

#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/digest.h"
#include "base/text.h"
#include "store/internal.h"

#define CHECK_LEN 8
#define REPLACED_MAX 16 /* times that a repair may come in between: once is rare */

static const struct tpd_io *io_of(const struct tpd_run_lock *lock)
{
	return lock->store->io;
}

/* Cut off whatever lies behind the last valid record. */
static enum tpd_status cut_tail(struct tpd_run_lock *lock, struct tpd_err *err)
{
	int rc = io_of(lock)->ftruncate(io_of(lock), lock->fd, lock->run.valid_bytes);

	if (rc < 0)
		return tpd_fail_sys(err, -rc, "cannot truncate '%s'", lock->path);
	rc = io_of(lock)->fsync(io_of(lock), lock->fd);
	if (rc < 0) {
		lock->broken = true;
		return tpd_fail_sys(err, -rc, "cannot fsync '%s'", lock->path);
	}
	lock->dirty = false;
	return TPD_OK;
}

void tpd_refs_put_record(struct tpd_buf *out, enum tpd_refs_type type, const struct tpd_buf *body)
{
	size_t begin = out->len;
	uint8_t check[CHECK_LEN];

	tpd_buf_u32(out, (uint32_t)body->len + 1);
	tpd_buf_u8(out, (uint8_t)type);
	tpd_buf_put(out, body->data, body->len);
	if (!out->failed)
		tpd_xxh128_first(out->data + begin, out->len - begin, check, sizeof(check));
	tpd_buf_put(out, check, sizeof(check));
}

void tpd_refs_put_run(struct tpd_buf *out, const char *run)
{
	struct tpd_buf body = {0};

	tpd_buf_str(&body, run);
	tpd_refs_put_record(out, TPD_REFS_RUN, &body);
	out->failed |= body.failed;
	tpd_buf_release(&body);
}

enum tpd_status tpd_refs_append(struct tpd_run_lock *lock, enum tpd_refs_type type, const struct tpd_buf *body,
				struct tpd_err *err)
{
	struct tpd_buf record = {0};
	enum tpd_status status = tpd_buf_status(body, err);
	int rc;

	if (!status && lock->broken)
		status = tpd_fail(err, TPD_IO, "'%s' could not be fsynced before", lock->path);
	if (!status && lock->dirty)
		status = cut_tail(lock, err);
	if (status)
		return status;
	tpd_refs_put_record(&record, type, body);
	status = tpd_buf_status(&record, err);
	if (!status) {
		lock->dirty = true;
		status = tpd_io_write_all(io_of(lock), lock->fd, record.data, record.len, lock->run.valid_bytes,
					  lock->path, err);
	}
	if (!status && (rc = io_of(lock)->fsync(io_of(lock), lock->fd)) < 0) {
		lock->broken = true;
		status = tpd_fail_sys(err, -rc, "cannot fsync '%s'", lock->path);
	}
	if (!status) {
		lock->run.valid_bytes += record.len;
		lock->dirty = false;
	} else if (lock->dirty) {
		io_of(lock)->ftruncate(io_of(lock), lock->fd, lock->run.valid_bytes);
	}
	tpd_buf_release(&record);
	return tpd_store_fault(lock->store, status, err);
}

/* Append the record of this version, and take it up. */
static enum tpd_status record_version(struct tpd_run_lock *lock, const struct tpd_version *version, struct tpd_err *err)
{
	struct tpd_run *run = &lock->run;
	struct tpd_version *grown = reallocarray(run->versions, run->count + 1, sizeof(*grown));
	struct tpd_buf body = {0};
	enum tpd_status status;

	if (!grown)
		return tpd_fail_nomem(err);
	run->versions = grown;
	tpd_buf_varint(&body, version->step);
	tpd_buf_varint(&body, version->version);
	tpd_buf_put(&body, version->id.bytes, sizeof(version->id.bytes));
	tpd_buf_u64(&body, (uint64_t)version->time_ns);
	status = tpd_refs_append(lock, TPD_REFS_VERSION, &body, err);
	tpd_buf_release(&body);
	if (!status) {
		run->versions[run->count++] = *version;
		tpd_refs_remember(lock->store, run->name, &version->id);
	}
	return status;
}

enum tpd_status tpd_store_add_version(struct tpd_run_lock *lock, uint64_t step, const struct tpd_id *id,
				      int64_t time_ns, uint32_t *out_version, struct tpd_err *err)
{
	struct tpd_version version = {.step = step, .id = *id, .time_ns = time_ns};
	const struct tpd_run *run = &lock->run;
	enum tpd_status status;

	for (size_t i = 0; i < run->count; i++)
		if (run->versions[i].step == step)
			version.version = TPD_MAX(version.version, run->versions[i].version);
	if (version.version == UINT32_MAX)
		return tpd_fail(err, TPD_LIMIT, "%s@%llu has too many versions", run->name, (unsigned long long)step);
	version.version++;
	status = record_version(lock, &version, err);
	if (!status)
		*out_version = version.version;
	return status;
}

/* --- published, and not named --- */

struct unnamed {
	struct tpd_id id;
	uint64_t step;
	int64_t created_ns;
};

static int compare_unnamed(const void *a, const void *b)
{
	const struct unnamed *x = a, *y = b;

	if (x->created_ns != y->created_ns)
		return x->created_ns < y->created_ns ? -1 : 1;
	return x->step != y->step ? (x->step < y->step ? -1 : 1) : tpd_id_compare(&x->id, &y->id);
}

/*
 * Versions of a step are numbered without a gap, so a gap is what a damaged record left. The lowest free number fills
 * it: with the highest, an old checkpoint would become the newest of its step.
 */
static uint32_t free_version(const struct tpd_run *run, uint64_t step)
{
	uint32_t number = 1;

	for (size_t i = 0; i < run->count; i++)
		if (run->versions[i].step == step && run->versions[i].version == number) {
			number++;
			i = SIZE_MAX; /* from the beginning: they may stand in any order */
		}
	return number;
}

static enum tpd_status name_unnamed(struct tpd_run_lock *lock, const struct tpd_refs *own, struct tpd_err *err)
{
	TPD_AUTO_FREE struct tpd_id *ids = NULL;
	TPD_AUTO_FREE struct unnamed *found = NULL;
	size_t count = 0, found_count = 0;
	enum tpd_status status = tpd_refs_unnamed(lock->store, own, &ids, &count, err);

	if (!status) {
		found = calloc(count + 1, sizeof(*found));
		if (!found)
			status = tpd_fail_nomem(err);
	}
	for (size_t i = 0; !status && i < count; i++) {
		struct tpd_manifest m = {0};

		/* One that cannot be read does not exist, as far as this run is concerned. */
		if (tpd_store_manifest(lock->store, &ids[i], &m, NULL) == TPD_OK && strcmp(m.run, lock->run.name) == 0)
			found[found_count++] = (struct unnamed){ids[i], m.step, m.created_ns};
		tpd_manifest_release(&m);
	}
	if (found_count > 1)
		qsort(found, found_count, sizeof(*found), compare_unnamed);
	for (size_t i = 0; !status && i < found_count; i++) {
		struct tpd_version version = {.step = found[i].step, .version = free_version(&lock->run, found[i].step),
					      .id = found[i].id, .time_ns = found[i].created_ns};

		status = tpd_store_fault(lock->store, tpd_object_sync(lock->store, &found[i].id, err), err);
		if (!status)
			status = record_version(lock, &version, err);
	}
	return status;
}

/* --- the lock --- */

/* Is the file that was locked still the one of that name? */
static enum tpd_status is_current(const struct tpd_run_lock *lock, bool *out_current, struct tpd_err *err)
{
	struct stat mine, named;
	int rc = io_of(lock)->fstat(io_of(lock), lock->fd, &mine);

	if (rc >= 0)
		rc = io_of(lock)->stat(io_of(lock), lock->store->dir, lock->path, &named);
	if (rc < 0 && rc != -ENOENT)
		return tpd_fail_sys(err, -rc, "cannot stat '%s/%s'", lock->store->path, lock->path);
	*out_current = rc >= 0 && mine.st_dev == named.st_dev && mine.st_ino == named.st_ino;
	return TPD_OK;
}

static enum tpd_status open_refs(struct tpd_run_lock *lock, const char *run, int64_t timeout_ms, struct tpd_err *err)
{
	struct tpd_err why = {0};
	enum tpd_status status;

	lock->fd = io_of(lock)->open(io_of(lock), lock->store->dir, lock->path, O_RDWR | O_CREAT | O_NOFOLLOW, 0644);
	if (lock->fd < 0)
		return tpd_fail_sys(err, -lock->fd, "cannot open '%s/%s'", lock->store->path, lock->path);
	status = tpd_io_lock_wait(io_of(lock), lock->fd, TPD_LOCK_EXCLUSIVE, timeout_ms, lock->path, &why);
	if (status == TPD_BUSY)
		return tpd_fail(err, TPD_BUSY, "another process is writing to run '%s'", run);
	if (status)
		return tpd_fail_sys(err, why.sys, "cannot lock '%s/%s'", lock->store->path, lock->path);
	return TPD_OK;
}

/* Open and lock the file, again when it was replaced while we waited. */
static enum tpd_status lock_refs(struct tpd_run_lock *lock, const char *run, int64_t timeout_ms, struct tpd_err *err)
{
	bool current = false;

	for (int tries = 0; tries < REPLACED_MAX; tries++) {
		enum tpd_status status = open_refs(lock, run, timeout_ms, err);

		if (!status)
			status = is_current(lock, &current, err);
		if (status || current)
			return status;
		io_of(lock)->close(io_of(lock), lock->fd);
		lock->fd = -1;
	}
	return tpd_fail(err, TPD_BUSY, "'%s/%s' is replaced again and again", lock->store->path, lock->path);
}

/* The records were read: the file's torn end is cut off, a new file begun. */
static enum tpd_status take_over(struct tpd_run_lock *lock, const char *run, struct tpd_err *err)
{
	struct tpd_buf body = {0};
	struct stat st;
	enum tpd_status status = TPD_OK;
	int rc = io_of(lock)->fstat(io_of(lock), lock->fd, &st);

	if (rc < 0)
		return tpd_fail_sys(err, -rc, "cannot stat '%s/%s'", lock->store->path, lock->path);
	if ((uint64_t)st.st_size > lock->run.valid_bytes)
		status = cut_tail(lock, err);
	if (!status && lock->run.valid_bytes == 0) /* the file's name first: a record in it says that it was done */
		status = tpd_io_sync_dir(io_of(lock), lock->store->dir, "refs", err);
	if (status || lock->run.valid_bytes > 0)
		return tpd_store_fault(lock->store, status, err);
	tpd_buf_str(&body, run);
	status = tpd_refs_append(lock, TPD_REFS_RUN, &body, err);
	tpd_buf_release(&body);
	return status;
}

enum tpd_status tpd_run_lock_take(struct tpd_store *store, const char *run, int64_t timeout_ms,
				  struct tpd_run_lock **out_lock, struct tpd_err *err)
{
	struct tpd_run_lock *lock;
	enum tpd_status status;

	if (!store->writable)
		return tpd_fail(err, TPD_USAGE, "store '%s' is open for reading only", store->path);
	if (!tpd_text_is_run_name(run))
		return tpd_fail(err, TPD_USAGE, "'%s' cannot be the name of a run", run);
	lock = calloc(1, sizeof(*lock));
	if (!lock)
		return tpd_fail_nomem(err);
	*lock = (struct tpd_run_lock){.store = store, .fd = -1};
	status = tpd_refs_escape(run, &lock->escaped, err);
	if (!status)
		snprintf(lock->path, sizeof(lock->path), "refs/%s", lock->escaped);
	if (!status)
		status = lock_refs(lock, run, timeout_ms, err);
	if (status) {
		tpd_store_run_unlock(lock);
		return status;
	}
	*out_lock = lock;
	return TPD_OK;
}

/* What is to be put right before anybody writes. */
static enum tpd_status put_right(struct tpd_run_lock *lock, const char *run, struct tpd_err *err)
{
	struct tpd_refs refs = {0};
	enum tpd_status status = tpd_refs_load(lock->store, lock->escaped, run, &refs, err);

	if (status)
		return status;
	if (refs.id_count > 1)
		qsort(refs.ids, refs.id_count, sizeof(*refs.ids), tpd_id_compare);
	lock->run = refs.run;
	status = take_over(lock, run, err);
	if (!status)
		status = tpd_ingest_dir_finish(lock, err);
	if (!status) {
		refs.run = lock->run;
		status = name_unnamed(lock, &refs, err);
	}
	free(refs.ids); /* the rest is the lock's */
	return status;
}

enum tpd_status tpd_store_run_lock(struct tpd_store *store, const char *run, int64_t timeout_ms,
				   struct tpd_run_lock **out_lock, struct tpd_err *err)
{
	struct tpd_run_lock *lock = NULL;
	enum tpd_status status = tpd_run_lock_take(store, run, timeout_ms, &lock, err);

	if (!status)
		status = put_right(lock, run, err);
	if (status) {
		tpd_store_run_unlock(lock);
		return status;
	}
	*out_lock = lock;
	return TPD_OK;
}

void tpd_store_run_unlock(struct tpd_run_lock *lock)
{
	if (!lock)
		return;
	if (lock->fd >= 0)
		io_of(lock)->close(io_of(lock), lock->fd);
	tpd_run_release(&lock->run);
	free(lock->escaped);
	free(lock);
}

struct tpd_store *tpd_run_lock_store(const struct tpd_run_lock *lock)
{
	return lock->store;
}
