/*
 * io_posix.c - the I/O table of the operating system.
 *
 * Each entry is one system call with EINTR taken care of and errno turned into
 * a return value (and put back, so that a caller's errno is its own).  Locks
 * are "open file description" locks: unlike the older POSIX ones they belong
 * to the descriptor, so two threads exclude one another and closing some other
 * descriptor of the file releases nothing.
 */
#include "base/tpd.h"

#include "base/io.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define RETRY(rc, call)                  \
	do {                             \
		(rc) = (call);           \
	} while ((rc) < 0 && errno == EINTR)

/* What a table function returns for what a system call returned; errno becomes again what it was. */
static ssize_t result(ssize_t rc, int saved_errno)
{
	if (rc < 0)
		rc = -errno;
	errno = saved_errno;
	return rc;
}

/*
 * What root makes in somebody else's directory becomes theirs: one `tpdectl ingest` as root must not lock the daemon, which runs as a
 * user of its own, out of its store. fd is of what was made just now, so nothing that was there before changes hands.
 */
static void give_to_owner(int dir, const char *path, int fd)
{
	const char *slash = strrchr(path, '/');
	char parent[PATH_MAX];
	struct stat st;

	if (geteuid() != 0 || (slash && (size_t)(slash - path) >= sizeof parent - 1))
		return;
	if (!slash)
		strcpy(parent, ".");
	else
		snprintf(parent, sizeof parent, "%.*s", slash == path ? 1 : (int)(slash - path), path);
	if (fstatat(dir, parent, &st, 0) == 0 && st.st_uid != 0 && fchown(fd, st.st_uid, st.st_gid) < 0)
		return; /* a file system without owners */
}

static int posix_open(TPD_UNUSED const struct tpd_io *io, int dir, const char *path, int flags, mode_t mode)
{
	int saved = errno, rc;

	if ((flags & O_CREAT) && !(flags & O_EXCL)) {
		/* In two steps, to know whether it was there. */
		RETRY(rc, openat(dir, path, (flags & ~O_CREAT) | O_CLOEXEC));
		if (rc >= 0 || errno != ENOENT)
			return (int)result(rc, saved);
		RETRY(rc, openat(dir, path, flags | O_EXCL | O_CLOEXEC, mode));
		if (rc < 0 && errno == EEXIST) {
			RETRY(rc, openat(dir, path, flags | O_CLOEXEC, mode));
			return (int)result(rc, saved);
		}
	} else {
		RETRY(rc, openat(dir, path, flags | O_CLOEXEC, mode));
	}
	if (rc >= 0 && (flags & O_CREAT))
		give_to_owner(dir, path, rc);
	return (int)result(rc, saved);
}

static int posix_opendir(const struct tpd_io *io, int dir, const char *path)
{
	return posix_open(io, dir, path, O_RDONLY | O_DIRECTORY, 0);
}

static int posix_close(TPD_UNUSED const struct tpd_io *io, int fd)
{
	int saved = errno, rc = close(fd);

	if (rc < 0 && errno == EINTR)
		rc = 0; /* on Linux the descriptor is gone all the same */
	return (int)result(rc, saved);
}

static ssize_t posix_pread(TPD_UNUSED const struct tpd_io *io, int fd, void *buf, size_t len, uint64_t offset)
{
	int saved = errno;
	ssize_t rc;

	if (offset > INT64_MAX)
		return -EOVERFLOW;
	RETRY(rc, pread(fd, buf, len, (off_t)offset));
	return result(rc, saved);
}

static ssize_t posix_pwrite(TPD_UNUSED const struct tpd_io *io, int fd, const void *buf, size_t len, uint64_t offset)
{
	int saved = errno;
	ssize_t rc;

	if (offset > INT64_MAX)
		return -EFBIG;
	RETRY(rc, pwrite(fd, buf, len, (off_t)offset));
	return result(rc, saved);
}

static int posix_fsync(TPD_UNUSED const struct tpd_io *io, int fd)
{
	int saved = errno, rc;

	RETRY(rc, fsync(fd));
	return (int)result(rc, saved);
}

static int posix_ftruncate(TPD_UNUSED const struct tpd_io *io, int fd, uint64_t size)
{
	int saved = errno, rc;

	if (size > INT64_MAX)
		return -EFBIG;
	RETRY(rc, ftruncate(fd, (off_t)size));
	return (int)result(rc, saved);
}

static int posix_fstat(TPD_UNUSED const struct tpd_io *io, int fd, struct stat *out_st)
{
	int saved = errno;

	return (int)result(fstat(fd, out_st), saved);
}

static int posix_stat(TPD_UNUSED const struct tpd_io *io, int dir, const char *path, struct stat *out_st)
{
	int saved = errno;

	return (int)result(fstatat(dir, path, out_st, AT_SYMLINK_NOFOLLOW), saved);
}

/*
 * For file systems without RENAME_NOREPLACE.  A file: link() never replaces, so the second name
 * appears or EEXIST does.  A directory can have no second name: look, then rename; what appears in
 * between is replaced only if it is an empty directory.
 */
static int rename_by_hand(int old_dir, const char *old_path, int new_dir, const char *new_path)
{
	struct stat st;

	if (fstatat(old_dir, old_path, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return -1;
	if (!S_ISDIR(st.st_mode)) {
		if (linkat(old_dir, old_path, new_dir, new_path, 0) < 0)
			return -1;
		if (unlinkat(old_dir, old_path, 0) < 0) {
			int why = errno;

			unlinkat(new_dir, new_path, 0);
			errno = why;
			return -1;
		}
		return 0;
	}
	if (fstatat(new_dir, new_path, &st, AT_SYMLINK_NOFOLLOW) == 0) {
		errno = EEXIST;
		return -1;
	}
	if (errno != ENOENT)
		return -1;
	return renameat(old_dir, old_path, new_dir, new_path);
}

static int posix_rename(TPD_UNUSED const struct tpd_io *io, int old_dir, const char *old_path, int new_dir,
			const char *new_path, bool replace)
{
	int saved = errno, rc;

	if (replace)
		return (int)result(renameat(old_dir, old_path, new_dir, new_path), saved);
	rc = renameat2(old_dir, old_path, new_dir, new_path, RENAME_NOREPLACE);
	if (rc < 0 && (errno == EINVAL || errno == ENOSYS))
		rc = rename_by_hand(old_dir, old_path, new_dir, new_path);
	return (int)result(rc, saved);
}

static int posix_unlink(TPD_UNUSED const struct tpd_io *io, int dir, const char *path)
{
	int saved = errno;

	return (int)result(unlinkat(dir, path, 0), saved);
}

static int posix_mkdir(TPD_UNUSED const struct tpd_io *io, int dir, const char *path, mode_t mode)
{
	int saved = errno, rc = mkdirat(dir, path, mode), fd;

	if (rc == 0 && geteuid() == 0) {
		RETRY(fd, openat(dir, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
		if (fd >= 0) {
			give_to_owner(dir, path, fd);
			close(fd);
		}
	}
	return (int)result(rc, saved);
}

static int posix_rmdir(TPD_UNUSED const struct tpd_io *io, int dir, const char *path)
{
	int saved = errno;

	return (int)result(unlinkat(dir, path, AT_REMOVEDIR), saved);
}

static int posix_list(const struct tpd_io *io, int dir, const char *path, int (*fn)(const char *name, void *arg),
		      void *arg)
{
	int saved = errno, rc = 0, fd = posix_opendir(io, dir, path);
	DIR *stream;

	if (fd < 0)
		return fd;
	stream = fdopendir(fd);
	if (!stream) {
		rc = -errno;
		close(fd);
		errno = saved;
		return rc;
	}
	while (rc == 0) {
		const struct dirent *entry;

		errno = 0;
		entry = readdir(stream);
		if (!entry) {
			rc = -errno; /* 0 at the end */
			break;
		}
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		errno = saved;
		rc = fn(entry->d_name, arg);
	}
	closedir(stream);
	errno = saved;
	return rc;
}

static short lock_type(enum tpd_lock_kind kind)
{
	switch (kind) {
	case TPD_LOCK_SHARED:
		return F_RDLCK;
	case TPD_LOCK_EXCLUSIVE:
		return F_WRLCK;
	case TPD_LOCK_NONE:
		break;
	}
	return F_UNLCK;
}

/* l_pid must be 0 for OFD locks. */
static bool make_flock(enum tpd_lock_kind kind, uint64_t start, uint64_t len, struct flock *out_lock)
{
	if (start > INT64_MAX || len > INT64_MAX)
		return false;
	*out_lock = (struct flock){
		.l_type = lock_type(kind),
		.l_whence = SEEK_SET,
		.l_start = (off_t)start,
		.l_len = (off_t)len,
	};
	return true;
}

static int posix_lock(TPD_UNUSED const struct tpd_io *io, int fd, enum tpd_lock_kind kind, uint64_t start, uint64_t len)
{
	int saved = errno, rc;
	struct flock lock;

	if (!make_flock(kind, start, len, &lock))
		return -EOVERFLOW;
	RETRY(rc, fcntl(fd, F_OFD_SETLK, &lock));
	rc = (int)result(rc, saved);
	return rc == -EACCES ? -EAGAIN : rc; /* POSIX allows either for "held by another" */
}

static int posix_lock_test(TPD_UNUSED const struct tpd_io *io, int fd, enum tpd_lock_kind kind, uint64_t start,
			   uint64_t len)
{
	int saved = errno, rc;
	struct flock lock;

	if (kind == TPD_LOCK_NONE)
		return 0;
	if (!make_flock(kind, start, len, &lock))
		return -EOVERFLOW;
	RETRY(rc, fcntl(fd, F_OFD_GETLK, &lock));
	rc = (int)result(rc, saved);
	return rc < 0 ? rc : lock.l_type != F_UNLCK;
}

static void posix_drop_cache(TPD_UNUSED const struct tpd_io *io, int fd, uint64_t offset, uint64_t len)
{
	if (offset <= INT64_MAX && len <= INT64_MAX)
		posix_fadvise(fd, (off_t)offset, (off_t)len, POSIX_FADV_DONTNEED); /* returns its error */
}

const struct tpd_io *tpd_io_posix(void)
{
	static const struct tpd_io table = {
		.open = posix_open,
		.opendir = posix_opendir,
		.close = posix_close,
		.pread = posix_pread,
		.pwrite = posix_pwrite,
		.fsync = posix_fsync,
		.ftruncate = posix_ftruncate,
		.fstat = posix_fstat,
		.stat = posix_stat,
		.rename = posix_rename,
		.unlink = posix_unlink,
		.mkdir = posix_mkdir,
		.rmdir = posix_rmdir,
		.list = posix_list,
		.lock = posix_lock,
		.lock_test = posix_lock_test,
		.drop_cache = posix_drop_cache,
	};

	return &table;
}
