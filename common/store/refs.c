/*
 * refs.c - write a run's records: its writer lock, what is repaired when it is taken, and new versions.
 *
 * The lock is on the refs file itself, which is never renamed or removed. Whoever gets it may find what a crash left:
 *
 *     a torn record at the end                       is cut off
 *     a complete manifest in ingest/ESCAPED@STEP     is published
 *     an object of this run that no record mentions  gets its version record
 *
 * To find the last, all ids in objects/ are listed and those that any run's refs mention are taken away; only the
 * manifests of the few that are left are read. Another run's damaged refs must not stop this run: what they mention is
 * then looked at like the rest.
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

static enum tpd_status append(struct tpd_run_lock *lock, enum tpd_refs_type type, const struct tpd_buf *body,
			      struct tpd_err *err)
{
	struct tpd_buf record = {0};
	uint8_t digest[TPD_XXH_LEN];
	enum tpd_status status = tpd_buf_status(body, err);
	int rc;

	if (!status && lock->broken)
		status = tpd_fail(err, TPD_IO, "'%s' could not be fsynced before", lock->path);
	if (!status && lock->dirty)
		status = cut_tail(lock, err);
	if (status)
		return status;
	tpd_buf_u32(&record, (uint32_t)body->len + 1);
	tpd_buf_u8(&record, (uint8_t)type);
	tpd_buf_put(&record, body->data, body->len);
	if (!record.failed)
		tpd_xxh128(record.data, record.len, digest);
	tpd_buf_put(&record, digest, CHECK_LEN);
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

enum tpd_status tpd_store_add_version(struct tpd_run_lock *lock, uint64_t step, const struct tpd_id *id,
				      int64_t time_ns, uint32_t *out_version, struct tpd_err *err)
{
	struct tpd_version *grown, version = {.step = step, .id = *id, .time_ns = time_ns};
	struct tpd_run *run = &lock->run;
	struct tpd_buf body = {0};
	enum tpd_status status;

	for (size_t i = 0; i < run->count; i++)
		if (run->versions[i].step == step)
			version.version = TPD_MAX(version.version, run->versions[i].version);
	if (version.version == UINT32_MAX)
		return tpd_fail(err, TPD_LIMIT, "%s@%llu has too many versions", run->name, (unsigned long long)step);
	version.version++;
	grown = reallocarray(run->versions, run->count + 1, sizeof(*grown));
	if (!grown)
		return tpd_fail_nomem(err);
	run->versions = grown;
	tpd_buf_varint(&body, step);
	tpd_buf_varint(&body, version.version);
	tpd_buf_put(&body, id->bytes, sizeof(id->bytes));
	tpd_buf_u64(&body, (uint64_t)time_ns);
	status = append(lock, TPD_REFS_VERSION, &body, err);
	tpd_buf_release(&body);
	if (status)
		return status;
	run->versions[run->count++] = version;
	*out_version = version.version;
	return TPD_OK;
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

/* Every id that a run's refs mention. */
static enum tpd_status mentioned_ids(struct tpd_store *store, struct tpd_buf *out_ids, struct tpd_err *err)
{
	struct tpd_buf files = {0};
	enum tpd_status status = tpd_refs_files(store, &files, err);

	for (size_t at = 0; !status && at < files.len; at += strlen((char *)files.data + at) + 1) {
		const char *file = (char *)files.data + at;
		TPD_AUTO_FREE char *run = tpd_refs_unescape(file);
		struct tpd_refs refs = {0};

		if (!run)
			status = tpd_fail_nomem(err);
		else if (tpd_refs_load(store, file, run, &refs, NULL) == TPD_OK)
			tpd_buf_put(out_ids, refs.ids, refs.id_count * sizeof(*refs.ids));
		tpd_refs_release(&refs);
	}
	tpd_buf_release(&files);
	return status ? status : tpd_buf_status(out_ids, err);
}

static enum tpd_status name_unnamed(struct tpd_run_lock *lock, struct tpd_err *err)
{
	TPD_AUTO_FREE struct tpd_id *ids = NULL;
	TPD_AUTO_FREE struct unnamed *found = NULL;
	struct tpd_buf known = {0};
	size_t count = 0, found_count = 0, known_count = 0;
	enum tpd_status status = tpd_object_ids(lock->store, &ids, &count, err);

	if (!status && count > 0)
		status = mentioned_ids(lock->store, &known, err);
	if (!status) {
		known_count = known.len / sizeof(struct tpd_id);
		if (known_count > 0)
			qsort(known.data, known_count, sizeof(struct tpd_id), tpd_id_compare);
		found = calloc(count + 1, sizeof(*found));
		if (!found)
			status = tpd_fail_nomem(err);
	}
	for (size_t i = 0; !status && i < count; i++) {
		struct tpd_manifest m = {0};

		if (known_count > 0 && bsearch(&ids[i], known.data, known_count, sizeof(struct tpd_id), tpd_id_compare))
			continue;
		/* One that cannot be read does not exist, as far as this run is concerned. */
		if (tpd_store_manifest(lock->store, &ids[i], &m, NULL) == TPD_OK && strcmp(m.run, lock->run.name) == 0)
			found[found_count++] = (struct unnamed){ids[i], m.step, m.created_ns};
		tpd_manifest_release(&m);
	}
	tpd_buf_release(&known);
	if (found_count > 1)
		qsort(found, found_count, sizeof(*found), compare_unnamed);
	for (size_t i = 0; !status && i < found_count; i++) {
		uint32_t version;

		status = tpd_store_fault(lock->store, tpd_object_sync(lock->store, &found[i].id, err), err);
		if (!status)
			status = tpd_store_add_version(lock, found[i].step, &found[i].id, found[i].created_ns, &version,
						       err);
	}
	return status;
}

/* --- the lock --- */

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

/* The file's records, its torn end cut off, a new file begun. */
static enum tpd_status take_over(struct tpd_run_lock *lock, const char *run, struct tpd_err *err)
{
	struct tpd_refs refs = {0};
	struct tpd_buf body = {0};
	struct stat st;
	enum tpd_status status = tpd_refs_load(lock->store, lock->escaped, run, &refs, err);
	int rc;

	if (status)
		return status;
	lock->run = refs.run;
	free(refs.ids);
	rc = io_of(lock)->fstat(io_of(lock), lock->fd, &st);
	if (rc < 0)
		return tpd_fail_sys(err, -rc, "cannot stat '%s/%s'", lock->store->path, lock->path);
	if ((uint64_t)st.st_size > lock->run.valid_bytes)
		status = cut_tail(lock, err);
	if (!status && lock->run.valid_bytes == 0) /* the file's name first: a record in it says that it was done */
		status = tpd_io_sync_dir(io_of(lock), lock->store->dir, "refs", err);
	if (status || lock->run.valid_bytes > 0)
		return tpd_store_fault(lock->store, status, err);
	tpd_buf_str(&body, run);
	status = append(lock, TPD_REFS_RUN, &body, err);
	tpd_buf_release(&body);
	return status;
}

enum tpd_status tpd_store_run_lock(struct tpd_store *store, const char *run, int64_t timeout_ms,
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
		status = open_refs(lock, run, timeout_ms, err);
	if (!status)
		status = take_over(lock, run, err);
	if (!status)
		status = tpd_ingest_dir_finish(lock, err);
	if (!status)
		status = name_unnamed(lock, err);
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
