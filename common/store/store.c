/*
 * store.c - a store directory: making it, opening it, and the two locks that are the whole store's.
 *
 * A directory is a store from the moment that it holds `format`, which appears by one rename; everything else is made
 * by whoever opens it for writing and does not find it. So a crash while a store is made leaves either an empty
 * directory (but for a temporary) or a store. Rejected: making the subdirectories first and `format` last (then a
 * half-made store could not be told from somebody's directory).
 *
 * A reader needs no more than read permission: a shared OFD lock needs a descriptor open for reading only, and
 * where there is not even that (a read-only copy without `lock`), nothing will unlink anything either.
 */
#include "base/tpd.h"

#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/digest.h"
#include "base/text.h"
#include "store/internal.h"

#define FORMAT_MAX 4096 /* of the file `format`; a later version may say more than ours */
#define FORMAT_WORD "tpd-store "
#define ID_BYTES 16

enum tpd_status tpd_store_fault(const struct tpd_store *store, enum tpd_status status, struct tpd_err *err)
{
	if (status && err)
		tpd_err_prefix(err, "store '%s'", store->path);
	return status;
}

enum tpd_status tpd_store_list(const struct tpd_store *store, int dir, const char *path, struct tpd_buf *out_names,
			       struct tpd_err *err)
{
	int rc = tpd_io_list_names(store->io, dir, path, out_names);

	if (rc == -ENOENT)
		return TPD_OK;
	return rc < 0 ? tpd_fail_sys(err, -rc, "cannot list directory '%s'", path) : TPD_OK;
}

static bool has(const struct tpd_store *store, const char *name, mode_t type)
{
	struct stat st;

	return store->io->stat(store->io, store->dir, name, &st) >= 0 && (st.st_mode & S_IFMT) == type;
}

/* A bare git repository has `objects` and `refs` as well. Copies may be without empty directories, or without `lock`. */
static bool has_objects(const struct tpd_store *store)
{
	return has(store, "objects", S_IFDIR) && has(store, "refs", S_IFDIR) && (has(store, "ingest", S_IFDIR) || has(store, "lock", S_IFREG));
}

/* What is in it is whole all the same; nothing but this file says that it is a store, so nobody makes it unasked. */
static enum tpd_status lost_format(const struct tpd_store *store, struct tpd_err *err)
{
	return tpd_fail(err, TPD_CORRUPT, "'%s/format' is missing or damaged: put it back, or write two lines there, "
			"'tpd-store %u' and 'id ' with 32 digits of 0-9a-f", store->path, TPD_STORE_VERSION);
}

static enum tpd_status no_store(const struct tpd_store *store, struct tpd_err *err)
{
	return has_objects(store) ? lost_format(store, err) : tpd_fail(err, TPD_NOT_FOUND, "'%s' is not a tpded store", store->path);
}

/* --- making one --- */

/* May this directory become a store? Only what is left of an earlier try, and of mkfs, may be there. */
static enum tpd_status check_empty(const struct tpd_store *store, struct tpd_err *err)
{
	struct tpd_buf names = {0};
	enum tpd_status status = has_objects(store) ? lost_format(store, err) : tpd_store_list(store, store->dir, ".", &names, err);

	for (size_t at = 0; !status && at < names.len; at += strlen((char *)names.data + at) + 1) {
		const char *name = (char *)names.data + at;

		if (strncmp(name, TPD_IO_TMP_PREFIX, strlen(TPD_IO_TMP_PREFIX)) != 0 && strcmp(name, "lost+found") != 0)
			status = tpd_fail(err, TPD_USAGE,
					  "'%s' is not empty and not a tpded store: will not make one there",
					  store->path);
	}
	tpd_buf_release(&names);
	return status;
}

static enum tpd_status make_format(const struct tpd_store *store, struct tpd_err *err)
{
	uint8_t id[ID_BYTES];
	char hex[2 * ID_BYTES + 1], text[128];
	enum tpd_status status = check_empty(store, err);
	int n;

	if (status)
		return status;
	if (getrandom(id, sizeof(id), 0) != sizeof(id))
		return tpd_fail_sys(err, errno, "cannot get random bytes");
	tpd_hex(id, sizeof(id), hex);
	n = snprintf(text, sizeof(text), FORMAT_WORD "%u\nid %s\n", TPD_STORE_VERSION, hex);
	status = tpd_io_publish(store->io, store->dir, "format", text, (size_t)n, false, err);
	if (status == TPD_CONFLICT) /* another process was quicker, with the same intention */
		return TPD_OK;
	return tpd_store_fault(store, status, err);
}

static enum tpd_status make_directories(const struct tpd_store *store, struct tpd_err *err)
{
	static const char *const names[] = {"refs", "objects", "ingest", "tip"};
	enum tpd_status status = TPD_OK;

	for (size_t i = 0; !status && i < TPD_ARRAY_LEN(names); i++) {
		struct stat st;
		int rc = store->io->stat(store->io, store->dir, names[i], &st);

		if (rc == -ENOENT)
			status = tpd_io_mkdirs(store->io, store->dir, names[i], err);
		else if (rc < 0)
			status = tpd_fail_sys(err, -rc, "cannot stat '%s'", names[i]);
	}
	return tpd_store_fault(store, status, err);
}

/* --- opening one --- */

/* "tpd-store 1\nid HEX\n" */
static enum tpd_status check_format(const struct tpd_store *store, const char *text, size_t len, struct tpd_err *err)
{
	uint8_t id[ID_BYTES];
	char version[24];
	size_t word = strlen(FORMAT_WORD), digits;
	uint64_t number;

	if (len < word || memcmp(text, FORMAT_WORD, word) != 0)
		return no_store(store, err);
	text += word;
	len -= word;
	digits = strspn(text, "0123456789");
	if (digits == 0 || digits >= sizeof(version) || text[digits] != '\n')
		return lost_format(store, err);
	memcpy(version, text, digits);
	version[digits] = 0;
	if (!tpd_text_parse_u64(version, &number) || number > TPD_STORE_VERSION)
		return tpd_fail(err, TPD_UNSUPPORTED, "store '%s' has version %s; this tpded reads version %u",
				store->path, version, TPD_STORE_VERSION);
	text += digits + 1;
	len -= digits + 1;
	if (number == 0 || len != 3 + 2 * sizeof(id) + 1 || memcmp(text, "id ", 3) != 0 || text[len - 1] != '\n' ||
	    memchr(text, 0, len) || strspn(text + 3, "0123456789abcdef") != 2 * sizeof(id))
		return lost_format(store, err);
	return TPD_OK;
}

/* Read `format`, and make it first when it is absent and wanted. */
static enum tpd_status read_format(const struct tpd_store *store, bool create, struct tpd_err *err)
{
	TPD_AUTO_FREE uint8_t *text = NULL;
	size_t len = 0;
	enum tpd_status status = tpd_io_read_file(store->io, store->dir, "format", FORMAT_MAX, &text, &len, err);

	if (status == TPD_NOT_FOUND && create) {
		struct tpd_err why = {0};
		enum tpd_status made = make_format(store, &why);

		/* What is in the way may be another's store that was none a moment ago: its `format` came first. */
		status = tpd_io_read_file(store->io, store->dir, "format", FORMAT_MAX, &text, &len, made ? NULL : err);
		if (made && status) {
			if (err)
				*err = why;
			return made;
		}
	}
	if (status == TPD_NOT_FOUND || status == TPD_LIMIT)
		return no_store(store, err);
	if (status)
		return tpd_store_fault(store, status, err);
	return check_format(store, (char *)text, len, err);
}

/* A new store stands in a directory that is there: a mistake in its path is not to become another store. */
static enum tpd_status has_place(const struct tpd_store *store, struct tpd_err *err)
{
	TPD_AUTO_FREE char *parent = strdup(store->path);
	size_t end = parent ? strlen(parent) : 0;
	int dir;

	if (!parent)
		return tpd_fail_nomem(err);
	while (end > 0 && parent[end - 1] == '/')
		end--;
	while (end > 0 && parent[end - 1] != '/')
		end--;
	parent[end] = 0;
	dir = store->io->opendir(store->io, AT_FDCWD, end > 0 ? parent : ".");
	if (dir == -ENOENT)
		return tpd_fail(err, TPD_NOT_FOUND, "cannot make the store '%s': there is no directory '%s'", store->path, parent);
	if (dir >= 0)
		store->io->close(store->io, dir);
	return TPD_OK; /* what else is wrong with it is told by what comes next */
}

static enum tpd_status open_root(struct tpd_store *store, bool create, struct tpd_err *err)
{
	store->dir = store->io->opendir(store->io, AT_FDCWD, store->path);
	if (store->dir == -ENOENT && create) {
		enum tpd_status status = has_place(store, err);

		if (!status)
			status = tpd_io_mkdirs(store->io, AT_FDCWD, store->path, err);
		if (status)
			return status;
		store->dir = store->io->opendir(store->io, AT_FDCWD, store->path);
	}
	if (store->dir == -ENOENT)
		return tpd_fail(err, TPD_NOT_FOUND, "there is no store '%s'", store->path);
	if (store->dir == -ENOTDIR)
		return tpd_fail(err, TPD_NOT_FOUND, "'%s' is not a directory", store->path);
	if (store->dir < 0)
		return tpd_fail_sys(err, -store->dir, "cannot open store '%s'", store->path);
	return TPD_OK;
}

/* Errors that a file system gives which has no locks, or none for us. */
static bool is_without_locks(int sys)
{
	return sys == EROFS || sys == ENOLCK || sys == EOPNOTSUPP || sys == ENOSYS || sys == EINVAL || sys == EACCES ||
	       sys == EPERM;
}

static enum tpd_status lock_shared(struct tpd_store *store, int64_t timeout_ms, struct tpd_err *err)
{
	int flags = store->writable ? O_RDWR | O_CREAT : O_RDONLY;
	struct tpd_err why = {0};
	enum tpd_status status;

	store->lock = store->io->open(store->io, store->dir, "lock", flags | O_NOFOLLOW, 0644);
	if (store->lock < 0 && !store->writable && (store->lock == -ENOENT || is_without_locks(-store->lock)))
		return TPD_OK;
	if (store->lock < 0)
		return tpd_fail_sys(err, -store->lock, "cannot open '%s/lock'", store->path);
	status = tpd_io_lock_wait(store->io, store->lock, TPD_LOCK_SHARED, timeout_ms, "lock", &why);
	if (!status || (status == TPD_IO && !store->writable && is_without_locks(why.sys)))
		return TPD_OK;
	if (status == TPD_BUSY)
		return tpd_fail(err, TPD_BUSY, "store '%s' is being cleaned up by another process", store->path);
	return tpd_fail_sys(err, why.sys, "cannot lock '%s/lock'", store->path);
}

enum tpd_status tpd_store_open(const struct tpd_io *io, const char *path, enum tpd_store_flags flags,
			       int64_t timeout_ms, struct tpd_store **out_store, struct tpd_err *err)
{
	struct tpd_store *store = calloc(1, sizeof(*store));
	bool create = (flags & TPD_STORE_CREATE) == TPD_STORE_CREATE;
	enum tpd_status status;

	if (!store)
		return tpd_fail_nomem(err);
	*store = (struct tpd_store){.io = io, .dir = -1, .lock = -1, .daemon_lock = -1,
				    .writable = (flags & TPD_STORE_WRITE) != 0, .path = strdup(path)};
	pthread_mutex_init(&store->named_lock, NULL);
	status = store->path ? open_root(store, create, err) : tpd_fail_nomem(err);
	if (!status)
		status = read_format(store, create, err);
	if (!status)
		status = lock_shared(store, timeout_ms, err);
	if (!status && store->writable)
		status = make_directories(store, err);
	if (status) {
		tpd_store_close(store);
		return status;
	}
	*out_store = store;
	return TPD_OK;
}

void tpd_store_close(struct tpd_store *store)
{
	if (!store)
		return;
	if (store->daemon_lock >= 0)
		store->io->close(store->io, store->daemon_lock);
	if (store->lock >= 0)
		store->io->close(store->io, store->lock);
	if (store->dir >= 0)
		store->io->close(store->io, store->dir);
	pthread_mutex_destroy(&store->named_lock);
	free(store->named);
	free(store->path);
	free(store);
}

const char *tpd_store_path(const struct tpd_store *store)
{
	return store->path;
}

const struct tpd_io *tpd_store_io(const struct tpd_store *store)
{
	return store->io;
}

int tpd_store_dir(const struct tpd_store *store)
{
	return store->dir;
}

enum tpd_status tpd_store_lock_daemon(struct tpd_store *store, struct tpd_err *err)
{
	struct tpd_err why = {0};
	enum tpd_status status;
	int fd;

	if (store->daemon_lock >= 0)
		return TPD_OK;
	if (!store->writable)
		return tpd_fail(err, TPD_USAGE, "store '%s' is open for reading only", store->path);
	fd = store->io->open(store->io, store->dir, "daemon.lock", O_RDWR | O_CREAT | O_NOFOLLOW, 0644);
	if (fd < 0)
		return tpd_fail_sys(err, -fd, "cannot open '%s/daemon.lock'", store->path);
	status = tpd_io_lock_wait(store->io, fd, TPD_LOCK_EXCLUSIVE, 0, "daemon.lock", &why);
	if (!status) {
		store->daemon_lock = fd;
		return TPD_OK;
	}
	store->io->close(store->io, fd);
	if (status == TPD_BUSY)
		return tpd_fail(err, TPD_BUSY, "another tpded already serves store '%s'", store->path);
	return tpd_fail_sys(err, why.sys, "cannot lock '%s/daemon.lock'", store->path);
}
