/*
 * io.c - what is built on the I/O table: whole transfers, small files read and
 * published at once, directories made and removed, waiting for a lock.
 *
 * Publishing, in the only order that survives a crash at any point:
 *
 *     create .tmp-PID-N (O_EXCL) -> write -> fsync -> close -> rename -> fsync of the directory
 *
 * Before the rename a crash leaves a temporary, which anyone may delete, after
 * it the whole file.  When fsync fails, the kernel may already have dropped the
 * dirty pages and would report success the next time; so the temporary is
 * given up, never synced again.
 */
#include "base/tpd.h"

#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"

#define TREE_DEPTH 16          /* deeper trees are none of ours */
#define TMP_TRIES 1000         /* left-overs of a dead process with our pid */
#define READ_SLACK 4096        /* room for a file that says 0 and has more, as those of /proc */
#define LOCK_SLEEP_MS 5        /* the first sleep; doubled up to the longest */
#define LOCK_SLEEP_MAX_MS 100

enum tpd_status tpd_io_read_exact(const struct tpd_io *io, int fd, void *buf, size_t len, uint64_t offset,
				  const char *what, struct tpd_err *err)
{
	uint8_t *p = buf;
	size_t done = 0;

	while (done < len) {
		ssize_t n = io->pread(io, fd, p + done, len - done, offset + done);

		if (n < 0)
			return tpd_fail_sys(err, (int)-n, "cannot read '%s'", what);
		if (n == 0)
			return tpd_fail(err, TPD_CORRUPT, "'%s' ends at byte %llu, %zu bytes too early", what,
					(unsigned long long)(offset + done), len - done);
		done += (size_t)n;
	}
	return TPD_OK;
}

enum tpd_status tpd_io_write_all(const struct tpd_io *io, int fd, const void *buf, size_t len, uint64_t offset,
				 const char *what, struct tpd_err *err)
{
	const uint8_t *p = buf;
	size_t done = 0;

	while (done < len) {
		ssize_t n = io->pwrite(io, fd, p + done, len - done, offset + done);

		if (n <= 0)
			return tpd_fail_sys(err, n < 0 ? (int)-n : EIO, "cannot write '%s'", what);
		done += (size_t)n;
	}
	return TPD_OK;
}

/* All bytes of an open file; *out_data is fresh also when it is empty. */
static enum tpd_status read_to_end(const struct tpd_io *io, int fd, const char *path, uint64_t size, uint64_t max,
				   struct tpd_buf *out_buf, struct tpd_err *err)
{
	tpd_buf_reserve(out_buf, (size_t)size + 1);
	for (;;) {
		ssize_t n;

		if (out_buf->cap - out_buf->len < 2)
			tpd_buf_reserve(out_buf, READ_SLACK);
		if (out_buf->failed)
			return tpd_fail_nomem(err);
		n = io->pread(io, fd, out_buf->data + out_buf->len, out_buf->cap - out_buf->len - 1, out_buf->len);
		if (n < 0)
			return tpd_fail_sys(err, (int)-n, "cannot read '%s'", path);
		if (n == 0)
			break;
		out_buf->len += (size_t)n;
		if (out_buf->len > max)
			return tpd_fail(err, TPD_LIMIT, "'%s' is larger than %llu bytes", path,
					(unsigned long long)max);
	}
	out_buf->data[out_buf->len] = 0;
	return TPD_OK;
}

enum tpd_status tpd_io_read_file(const struct tpd_io *io, int dir, const char *path, uint64_t max, uint8_t **out_data,
				 size_t *out_len, struct tpd_err *err)
{
	struct tpd_buf buf = {0};
	enum tpd_status status;
	struct stat st;
	int fd, rc;

	fd = io->open(io, dir, path, O_RDONLY, 0);
	if (fd == -ENOENT)
		return tpd_fail(err, TPD_NOT_FOUND, "there is no '%s'", path);
	if (fd < 0)
		return tpd_fail_sys(err, -fd, "cannot open '%s'", path);
	rc = io->fstat(io, fd, &st);
	if (rc < 0)
		status = tpd_fail_sys(err, -rc, "cannot stat '%s'", path);
	else if (S_ISDIR(st.st_mode))
		status = tpd_fail_sys(err, EISDIR, "cannot read '%s'", path);
	else if ((uint64_t)st.st_size > max || (uint64_t)st.st_size > SIZE_MAX / 2)
		status = tpd_fail(err, TPD_LIMIT, "'%s' is larger than %llu bytes", path, (unsigned long long)max);
	else
		status = read_to_end(io, fd, path, (uint64_t)st.st_size, max, &buf, err);
	io->close(io, fd);
	if (status != TPD_OK) {
		tpd_buf_release(&buf);
		return status;
	}
	*out_data = buf.data;
	*out_len = buf.len;
	return TPD_OK;
}

/* "a/b/c" -> a descriptor of "a/b", and *out_name = "c". */
static enum tpd_status open_parent(const struct tpd_io *io, int dir, const char *path, const char **out_name,
				   int *out_fd, struct tpd_err *err)
{
	const char *slash = strrchr(path, '/');
	TPD_AUTO_FREE char *parent = NULL;
	int fd;

	if (!slash)
		parent = strdup(".");
	else
		parent = strndup(path, slash == path ? 1 : (size_t)(slash - path));
	if (!parent)
		return tpd_fail_nomem(err);
	fd = io->opendir(io, dir, parent);
	if (fd < 0)
		return tpd_fail_sys(err, -fd, "cannot open the directory of '%s'", path);
	*out_name = slash ? slash + 1 : path;
	*out_fd = fd;
	return TPD_OK;
}

/* A new file of a name that nobody has. */
static int create_temporary(const struct tpd_io *io, int dir, char name[64])
{
	static atomic_uint counter;
	int fd = -EEXIST;

	for (int i = 0; i < TMP_TRIES && fd == -EEXIST; i++) {
		snprintf(name, 64, TPD_IO_TMP_PREFIX "%ld-%u", (long)getpid(), atomic_fetch_add(&counter, 1));
		fd = io->open(io, dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0644);
	}
	return fd;
}

static enum tpd_status publish_in(const struct tpd_io *io, int dir, const char *name, const char *path,
				  const void *data, size_t len, bool replace, struct tpd_err *err)
{
	enum tpd_status status;
	char tmp[64];
	int rc, fd = create_temporary(io, dir, tmp);

	if (fd < 0)
		return tpd_fail_sys(err, -fd, "cannot create a temporary file for '%s'", path);
	status = tpd_io_write_all(io, fd, data, len, 0, path, err);
	if (status == TPD_OK && (rc = io->fsync(io, fd)) < 0)
		status = tpd_fail_sys(err, -rc, "cannot fsync '%s'", path);
	rc = io->close(io, fd);
	if (status == TPD_OK && rc < 0)
		status = tpd_fail_sys(err, -rc, "cannot close '%s'", path);
	if (status != TPD_OK)
		goto fail;
	rc = io->rename(io, dir, tmp, dir, name, replace);
	if (rc == -EEXIST && !replace) {
		status = tpd_fail(err, TPD_CONFLICT, "'%s' already exists", path);
		goto fail;
	}
	if (rc < 0) {
		status = tpd_fail_sys(err, -rc, "cannot rename '%s' to '%s'", tmp, path);
		goto fail;
	}
	rc = io->fsync(io, dir);
	if (rc < 0)
		return tpd_fail_sys(err, -rc, "cannot fsync the directory of '%s'", path);
	return TPD_OK;
fail:
	io->unlink(io, dir, tmp);
	return status;
}

enum tpd_status tpd_io_publish(const struct tpd_io *io, int dir, const char *path, const void *data, size_t len,
			       bool replace, struct tpd_err *err)
{
	enum tpd_status status;
	const char *name;
	int parent;

	status = open_parent(io, dir, path, &name, &parent, err);
	if (status != TPD_OK)
		return status;
	status = publish_in(io, parent, name, path, data, len, replace, err);
	io->close(io, parent);
	return status;
}

enum tpd_status tpd_io_sync_dir(const struct tpd_io *io, int dir, const char *path, struct tpd_err *err)
{
	int rc, fd = io->opendir(io, dir, path);

	if (fd < 0)
		return tpd_fail_sys(err, -fd, "cannot open directory '%s'", path);
	rc = io->fsync(io, fd);
	io->close(io, fd);
	return rc < 0 ? tpd_fail_sys(err, -rc, "cannot fsync directory '%s'", path) : TPD_OK;
}

/* One level: made, and its own entry and itself made to last; an existing one is left alone. */
static enum tpd_status make_level(const struct tpd_io *io, int dir, const char *level, struct tpd_err *err)
{
	enum tpd_status status;
	const char *name;
	int rc, parent;

	rc = io->mkdir(io, dir, level, 0755);
	if (rc == -EEXIST)
		return TPD_OK;
	if (rc < 0)
		return tpd_fail_sys(err, -rc, "cannot make directory '%s'", level);
	status = tpd_io_sync_dir(io, dir, level, err);
	if (status != TPD_OK)
		return status;
	status = open_parent(io, dir, level, &name, &parent, err);
	if (status != TPD_OK)
		return status;
	rc = io->fsync(io, parent);
	io->close(io, parent);
	return rc < 0 ? tpd_fail_sys(err, -rc, "cannot fsync the directory of '%s'", level) : TPD_OK;
}

enum tpd_status tpd_io_mkdirs(const struct tpd_io *io, int dir, const char *path, struct tpd_err *err)
{
	TPD_AUTO_FREE char *level = strdup(path);
	int fd;

	if (!level)
		return tpd_fail_nomem(err);
	for (size_t i = 1; i <= strlen(path); i++) {
		enum tpd_status status;

		if ((path[i] != '/' && path[i] != 0) || path[i - 1] == '/')
			continue; /* inside a name, or after an empty one */
		level[i] = 0;
		status = make_level(io, dir, level, err);
		if (status != TPD_OK)
			return status;
		level[i] = path[i];
	}
	fd = io->opendir(io, dir, path); /* what was there may be no directory */
	if (fd < 0)
		return tpd_fail_sys(err, -fd, "cannot open directory '%s'", path);
	io->close(io, fd);
	return TPD_OK;
}

static int add_name(const char *name, void *arg)
{
	struct tpd_buf *names = arg;

	tpd_buf_put(names, name, strlen(name) + 1);
	return names->failed ? -ENOMEM : 0;
}

int tpd_io_list_names(const struct tpd_io *io, int dir, const char *path, struct tpd_buf *out_names)
{
	return io->list(io, dir, path, add_name, out_names);
}

static enum tpd_status remove_entry(const struct tpd_io *io, int dir, const char *name, unsigned depth,
				    struct tpd_err *err);

/* The names are collected first: whether a listing survives deletions depends on the file system. */
static enum tpd_status remove_contents(const struct tpd_io *io, int dir, const char *name, unsigned depth,
				       struct tpd_err *err)
{
	struct tpd_buf names = {0};
	enum tpd_status status = TPD_OK;
	int rc = tpd_io_list_names(io, dir, ".", &names);

	if (rc < 0)
		status = tpd_fail_sys(err, -rc, "cannot list directory '%s'", name);
	for (size_t at = 0; status == TPD_OK && at < names.len; at += strlen((char *)names.data + at) + 1)
		status = remove_entry(io, dir, (char *)names.data + at, depth, err);
	tpd_buf_release(&names);
	return status;
}

static enum tpd_status remove_directory(const struct tpd_io *io, int dir, const char *name, const struct stat *seen,
					unsigned depth, struct tpd_err *err)
{
	enum tpd_status status;
	struct stat st;
	int rc, fd;

	if (depth >= TREE_DEPTH)
		return tpd_fail(err, TPD_LIMIT, "cannot remove '%s': more than %d levels", name, TREE_DEPTH);
	fd = io->opendir(io, dir, name);
	if (fd == -ENOENT)
		return TPD_OK;
	if (fd < 0)
		return tpd_fail_sys(err, -fd, "cannot open directory '%s'", name);
	rc = io->fstat(io, fd, &st);
	if (rc < 0)
		status = tpd_fail_sys(err, -rc, "cannot stat '%s'", name);
	else if (st.st_dev != seen->st_dev || st.st_ino != seen->st_ino) /* now a link to somewhere else? */
		status = tpd_fail(err, TPD_CONFLICT, "'%s' was replaced while it was being removed", name);
	else
		status = remove_contents(io, fd, name, depth + 1, err);
	io->close(io, fd);
	if (status != TPD_OK)
		return status;
	rc = io->rmdir(io, dir, name);
	return rc < 0 && rc != -ENOENT ? tpd_fail_sys(err, -rc, "cannot remove directory '%s'", name) : TPD_OK;
}

static enum tpd_status remove_entry(const struct tpd_io *io, int dir, const char *name, unsigned depth,
				    struct tpd_err *err)
{
	struct stat st;
	int rc = io->stat(io, dir, name, &st);

	if (rc == -ENOENT)
		return TPD_OK;
	if (rc < 0)
		return tpd_fail_sys(err, -rc, "cannot stat '%s'", name);
	if (S_ISDIR(st.st_mode))
		return remove_directory(io, dir, name, &st, depth, err);
	rc = io->unlink(io, dir, name);
	return rc < 0 && rc != -ENOENT ? tpd_fail_sys(err, -rc, "cannot remove '%s'", name) : TPD_OK;
}

enum tpd_status tpd_io_remove_tree(const struct tpd_io *io, int dir, const char *path, struct tpd_err *err)
{
	return remove_entry(io, dir, path, 0, err);
}

enum tpd_status tpd_io_lock_wait(const struct tpd_io *io, int fd, enum tpd_lock_kind kind, int64_t timeout_ms,
				 const char *what, struct tpd_err *err)
{
	int64_t begin = tpd_clock_steady_ms(), sleep_ms = LOCK_SLEEP_MS;

	/* Polling: F_OFD_SETLKW could only be ended by a signal. */
	for (;;) {
		int rc = io->lock(io, fd, kind, 0, 0);
		int64_t waited;

		if (rc >= 0)
			return TPD_OK;
		if (rc != -EAGAIN)
			return tpd_fail_sys(err, -rc, "cannot lock '%s'", what);
		waited = tpd_clock_steady_ms() - begin;
		if (timeout_ms >= 0 && waited >= timeout_ms)
			return tpd_fail(err, TPD_BUSY, "'%s' is locked by another process", what);
		if (timeout_ms >= 0)
			sleep_ms = TPD_MIN(sleep_ms, timeout_ms - waited);
		nanosleep(&(struct timespec){.tv_sec = 0, .tv_nsec = (long)sleep_ms * 1000000}, NULL);
		sleep_ms = TPD_MIN(sleep_ms * 2, LOCK_SLEEP_MAX_MS);
	}
}
