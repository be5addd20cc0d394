/*
 * vfs.c - sqlite's file operations through struct tpd_io.
 *
 * The problem: crash enumeration and fault injection want every call that touches the disk, and sqlite makes
 * its own.  The approach: an sqlite VFS for the two kinds of files that a rollback-journal database has on
 * disk, the database and its journal; what else sqlite asks for (clock, sleep, randomness, full path names)
 * is the system VFS's.  Temporary files are refused: the connection keeps them in memory (temp_store).
 *
 * Locks are byte ranges at fixed offsets, the protocol of sqlite's unix VFS, so that the sqlite3 shell and we
 * exclude one another:
 *
 *     0x40000000   PENDING   a writer waits for readers to leave; new readers stay out
 *              +1  RESERVED  one connection prepares a change, readers go on
 *     +2 .. +511   SHARED    read-locked by every reader, write-locked by whoever changes the file
 *
 * Ours are OFD locks: they conflict with POSIX locks of other processes, and unlike those also between two
 * connections of this process, so the table of inodes that sqlite's own VFS needs is not needed here.
 *
 * After an fsync that failed nobody knows what is on disk, and the next fsync may well report success: from
 * then on this VFS refuses every change, also the removal of the journal, which is what saves the database
 * when somebody opens it afresh.
 *
 * Rejected: a shim that forwards to sqlite's unix VFS (its system calls would go past the table), and
 * overriding those by xSetSystemCall (one table for the whole process).
 */
#include "base/tpd.h"

#include "catalog/vfs.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PENDING_BYTE 0x40000000u
#define RESERVED_BYTE (PENDING_BYTE + 1)
#define SHARED_FIRST (PENDING_BYTE + 2)
#define SHARED_SIZE 510u
#define LOCKS_SIZE (2u + SHARED_SIZE) /* all of them, from PENDING_BYTE */
#define SECTOR_SIZE 4096              /* as sqlite's unix VFS: the journal's header fills one */
#define DATABASE_MODE 0644

struct tpd_vfs {
	sqlite3_vfs base; /* pAppData points back here */
	const struct tpd_io *io;
	sqlite3_vfs *system;
	bool read_fallback;
	bool sync_failed; /* no more changes */
	int sys;          /* first errno */
	mode_t mode;      /* of the database: its journal gets the same */
	char name[32];
};

struct file {
	sqlite3_file base;
	struct tpd_vfs *vfs;
	const char *path; /* sqlite's, valid until xClose */
	int fd;
	int level;           /* SQLITE_LOCK_NONE .. SQLITE_LOCK_EXCLUSIVE */
	bool sync_directory; /* a fresh journal: its name must be durable before it counts */
};

/* sqlite lends us the memory of a sqlite3_file that is szOsFile large; base is its first member. */
static struct file *file_of(sqlite3_file *base)
{
	return (struct file *)base;
}

static struct tpd_vfs *vfs_of(sqlite3_vfs *base)
{
	return base->pAppData;
}

/* Remember why, for the message; returns the sqlite code. */
static int fail(struct tpd_vfs *vfs, int64_t rc, int code)
{
	assert(rc < 0);
	if (vfs->sys == 0)
		vfs->sys = (int)-rc;
	return code;
}

static bool is_full(int64_t rc)
{
	return rc == -ENOSPC || rc == -EDQUOT;
}

static int sync_directory_of(struct tpd_vfs *vfs, const char *path)
{
	const struct tpd_io *io = vfs->io;
	const char *slash = strrchr(path, '/');
	TPD_AUTO_FREE char *name = NULL;
	int fd, rc;

	name = !slash ? strdup(".") : strndup(path, slash == path ? 1 : (size_t)(slash - path));
	if (!name)
		return SQLITE_NOMEM;
	fd = io->opendir(io, AT_FDCWD, name);
	if (fd < 0)
		return fail(vfs, fd, SQLITE_IOERR_DIR_FSYNC);
	rc = io->fsync(io, fd);
	io->close(io, fd);
	if (rc < 0) {
		vfs->sync_failed = true;
		return fail(vfs, rc, SQLITE_IOERR_DIR_FSYNC);
	}
	return SQLITE_OK;
}

/* --- one file --- */

static int file_close(sqlite3_file *base)
{
	struct file *file = file_of(base);
	const struct tpd_io *io = file->vfs->io;
	int rc = io->close(io, file->fd); /* its locks go with it */

	file->fd = -1;
	return rc < 0 ? fail(file->vfs, rc, SQLITE_IOERR_CLOSE) : SQLITE_OK;
}

static int file_read(sqlite3_file *base, void *buf, int amount, sqlite3_int64 offset)
{
	struct file *file = file_of(base);
	const struct tpd_io *io = file->vfs->io;
	size_t len = (size_t)amount, done = 0;

	while (done < len) {
		ssize_t n = io->pread(io, file->fd, (char *)buf + done, len - done, (uint64_t)offset + done);

		if (n < 0)
			return fail(file->vfs, n, SQLITE_IOERR_READ);
		if (n == 0) {
			memset((char *)buf + done, 0, len - done); /* sqlite counts on it */
			return SQLITE_IOERR_SHORT_READ;
		}
		done += (size_t)n;
	}
	return SQLITE_OK;
}

static int file_write(sqlite3_file *base, const void *buf, int amount, sqlite3_int64 offset)
{
	struct file *file = file_of(base);
	const struct tpd_io *io = file->vfs->io;
	size_t len = (size_t)amount, done = 0;

	if (file->vfs->sync_failed)
		return fail(file->vfs, -EIO, SQLITE_IOERR_WRITE);
	while (done < len) {
		ssize_t n = io->pwrite(io, file->fd, (const char *)buf + done, len - done, (uint64_t)offset + done);

		if (n == 0)
			n = -ENOSPC; /* POSIX leaves no other reason */
		if (n < 0)
			return fail(file->vfs, n, is_full(n) ? SQLITE_FULL : SQLITE_IOERR_WRITE);
		done += (size_t)n;
	}
	return SQLITE_OK;
}

static int file_truncate(sqlite3_file *base, sqlite3_int64 size)
{
	struct file *file = file_of(base);
	const struct tpd_io *io = file->vfs->io;
	int rc = file->vfs->sync_failed ? -EIO : io->ftruncate(io, file->fd, (uint64_t)size);

	return rc < 0 ? fail(file->vfs, rc, SQLITE_IOERR_TRUNCATE) : SQLITE_OK;
}

static int file_sync(sqlite3_file *base, TPD_UNUSED int flags)
{
	struct file *file = file_of(base);
	struct tpd_vfs *vfs = file->vfs;
	int rc;

	if (vfs->sync_failed)
		return fail(vfs, -EIO, SQLITE_IOERR_FSYNC);
	rc = vfs->io->fsync(vfs->io, file->fd);
	if (rc < 0) {
		vfs->sync_failed = true;
		return fail(vfs, rc, is_full(rc) ? SQLITE_FULL : SQLITE_IOERR_FSYNC);
	}
	if (file->sync_directory) {
		rc = sync_directory_of(vfs, file->path);
		if (rc != SQLITE_OK)
			return rc;
		file->sync_directory = false;
	}
	return SQLITE_OK;
}

static int file_size(sqlite3_file *base, sqlite3_int64 *out_size)
{
	struct file *file = file_of(base);
	const struct tpd_io *io = file->vfs->io;
	struct stat st;
	int rc = io->fstat(io, file->fd, &st);

	if (rc < 0)
		return fail(file->vfs, rc, SQLITE_IOERR_FSTAT);
	*out_size = st.st_size;
	return SQLITE_OK;
}

/* Set one range; SQLITE_BUSY when another holds it. */
static int set_lock(struct file *file, enum tpd_lock_kind kind, uint64_t start, uint64_t len, int code)
{
	const struct tpd_io *io = file->vfs->io;
	int rc = io->lock(io, file->fd, kind, start, len);

	if (rc == -EAGAIN)
		return SQLITE_BUSY;
	return rc < 0 ? fail(file->vfs, rc, code) : SQLITE_OK;
}

/* PENDING is taken and let go around it: while a writer holds that, no new reader comes in. */
static int lock_shared(struct file *file)
{
	int rc = set_lock(file, TPD_LOCK_SHARED, PENDING_BYTE, 1, SQLITE_IOERR_LOCK), unlocked;

	if (rc != SQLITE_OK)
		return rc;
	rc = set_lock(file, TPD_LOCK_SHARED, SHARED_FIRST, SHARED_SIZE, SQLITE_IOERR_LOCK);
	unlocked = set_lock(file, TPD_LOCK_NONE, PENDING_BYTE, 1, SQLITE_IOERR_UNLOCK);
	if (rc == SQLITE_OK && unlocked != SQLITE_OK) {
		set_lock(file, TPD_LOCK_NONE, SHARED_FIRST, SHARED_SIZE, SQLITE_IOERR_UNLOCK);
		rc = unlocked;
	}
	if (rc == SQLITE_OK)
		file->level = SQLITE_LOCK_SHARED;
	return rc;
}

static int file_lock(sqlite3_file *base, int level)
{
	struct file *file = file_of(base);
	int rc;

	if (file->level >= level)
		return SQLITE_OK;
	if (level == SQLITE_LOCK_SHARED)
		return lock_shared(file);
	assert(file->level >= SQLITE_LOCK_SHARED);
	if (level == SQLITE_LOCK_RESERVED) {
		rc = set_lock(file, TPD_LOCK_EXCLUSIVE, RESERVED_BYTE, 1, SQLITE_IOERR_LOCK);
		if (rc == SQLITE_OK)
			file->level = SQLITE_LOCK_RESERVED;
		return rc;
	}
	assert(level == SQLITE_LOCK_EXCLUSIVE); /* sqlite never asks for PENDING by name */
	if (file->level < SQLITE_LOCK_PENDING) {
		rc = set_lock(file, TPD_LOCK_EXCLUSIVE, PENDING_BYTE, 1, SQLITE_IOERR_LOCK);
		if (rc != SQLITE_OK)
			return rc;
		file->level = SQLITE_LOCK_PENDING; /* kept while readers leave */
	}
	rc = set_lock(file, TPD_LOCK_EXCLUSIVE, SHARED_FIRST, SHARED_SIZE, SQLITE_IOERR_LOCK);
	if (rc == SQLITE_OK)
		file->level = SQLITE_LOCK_EXCLUSIVE;
	return rc;
}

static int file_unlock(sqlite3_file *base, int level)
{
	struct file *file = file_of(base);
	int rc;

	assert(level == SQLITE_LOCK_NONE || level == SQLITE_LOCK_SHARED);
	if (file->level <= level)
		return SQLITE_OK;
	if (level == SQLITE_LOCK_NONE) {
		file->level = SQLITE_LOCK_NONE;
		return set_lock(file, TPD_LOCK_NONE, PENDING_BYTE, LOCKS_SIZE, SQLITE_IOERR_UNLOCK);
	}
	rc = set_lock(file, TPD_LOCK_SHARED, SHARED_FIRST, SHARED_SIZE, SQLITE_IOERR_RDLOCK);
	if (rc == SQLITE_OK)
		rc = set_lock(file, TPD_LOCK_NONE, PENDING_BYTE, 2, SQLITE_IOERR_UNLOCK);
	if (rc == SQLITE_OK)
		file->level = SQLITE_LOCK_SHARED;
	return rc == SQLITE_BUSY ? SQLITE_IOERR_RDLOCK : rc;
}

/* Is anybody, we included, preparing a change?  A journal with nobody behind it is a dead writer's. */
static int file_check_reserved(sqlite3_file *base, int *out_reserved)
{
	struct file *file = file_of(base);
	const struct tpd_io *io = file->vfs->io;
	int rc = 1;

	if (file->level < SQLITE_LOCK_RESERVED) {
		rc = io->lock_test(io, file->fd, TPD_LOCK_EXCLUSIVE, RESERVED_BYTE, 1);
		if (rc < 0)
			return fail(file->vfs, rc, SQLITE_IOERR_CHECKRESERVEDLOCK);
	}
	*out_reserved = rc;
	return SQLITE_OK;
}

/* Does the path no longer lead to the file that we have open? */
static int has_moved(struct file *file, int *out_moved)
{
	const struct tpd_io *io = file->vfs->io;
	struct stat ours, there;
	int rc = io->fstat(io, file->fd, &ours);

	if (rc == 0)
		rc = io->stat(io, AT_FDCWD, file->path, &there);
	if (rc < 0 && rc != -ENOENT)
		return fail(file->vfs, rc, SQLITE_IOERR_FSTAT);
	*out_moved = rc == -ENOENT || ours.st_ino != there.st_ino || ours.st_dev != there.st_dev;
	return SQLITE_OK;
}

static int file_control(sqlite3_file *base, int op, void *arg)
{
	struct file *file = file_of(base);

	switch (op) {
	case SQLITE_FCNTL_LOCKSTATE:
		*(int *)arg = file->level;
		return SQLITE_OK;
	case SQLITE_FCNTL_LAST_ERRNO:
		*(int *)arg = file->vfs->sys;
		return SQLITE_OK;
	case SQLITE_FCNTL_HAS_MOVED:
		return has_moved(file, arg);
	default:
		return SQLITE_NOTFOUND;
	}
}

static int file_sector_size(TPD_UNUSED sqlite3_file *base)
{
	return SECTOR_SIZE;
}

static int file_device(TPD_UNUSED sqlite3_file *base)
{
	return SQLITE_IOCAP_POWERSAFE_OVERWRITE; /* as sqlite's unix VFS: journals of both are read by both */
}

/* Version 1: no shared memory and no memory map, hence neither WAL nor mmap. */
static const sqlite3_io_methods methods = {
	.iVersion = 1,
	.xClose = file_close,
	.xRead = file_read,
	.xWrite = file_write,
	.xTruncate = file_truncate,
	.xSync = file_sync,
	.xFileSize = file_size,
	.xLock = file_lock,
	.xUnlock = file_unlock,
	.xCheckReservedLock = file_check_reserved,
	.xFileControl = file_control,
	.xSectorSize = file_sector_size,
	.xDeviceCharacteristics = file_device,
};

/* --- the file system --- */

static bool not_allowed(int rc)
{
	return rc == -EACCES || rc == -EPERM || rc == -EROFS;
}

static int vfs_open(sqlite3_vfs *base, const char *path, sqlite3_file *base_file, int flags, int *out_flags)
{
	struct tpd_vfs *vfs = vfs_of(base);
	const struct tpd_io *io = vfs->io;
	struct file *file = file_of(base_file);
	bool database = flags & SQLITE_OPEN_MAIN_DB, create = flags & SQLITE_OPEN_CREATE;
	int how = O_NOFOLLOW, fd, rc; /* the path is resolved already */
	struct stat st;

	base_file->pMethods = NULL;
	if (!path || !(flags & (SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_MAIN_JOURNAL)))
		return SQLITE_CANTOPEN; /* temporary files live in memory, other databases are not attached */
	how |= flags & SQLITE_OPEN_READWRITE ? O_RDWR : O_RDONLY;
	how |= create ? O_CREAT : 0;
	how |= create && (flags & SQLITE_OPEN_EXCLUSIVE) ? O_EXCL : 0;
	fd = io->open(io, AT_FDCWD, path, how, database ? DATABASE_MODE : vfs->mode);
	if (fd < 0 && database && vfs->read_fallback && (flags & SQLITE_OPEN_READWRITE) && not_allowed(fd)) {
		fd = io->open(io, AT_FDCWD, path, O_NOFOLLOW | O_RDONLY, 0);
		flags = (flags & ~(SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE)) | SQLITE_OPEN_READONLY;
	}
	if (fd < 0)
		return fail(vfs, fd, is_full(fd) ? SQLITE_FULL : SQLITE_CANTOPEN);
	rc = io->fstat(io, fd, &st);
	if (rc == 0 && !S_ISREG(st.st_mode))
		rc = S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL;
	if (rc < 0) {
		io->close(io, fd);
		return fail(vfs, rc, SQLITE_CANTOPEN);
	}
	if (database)
		vfs->mode = st.st_mode & 0666;
	*file = (struct file){
		.base.pMethods = &methods,
		.vfs = vfs,
		.path = path,
		.fd = fd,
		.level = SQLITE_LOCK_NONE,
		.sync_directory = create && !database,
	};
	if (out_flags)
		*out_flags = flags;
	return SQLITE_OK;
}

static int vfs_delete(sqlite3_vfs *base, const char *path, int sync_directory)
{
	struct tpd_vfs *vfs = vfs_of(base);
	int rc = vfs->sync_failed ? -EIO : vfs->io->unlink(vfs->io, AT_FDCWD, path);

	if (rc == -ENOENT)
		return SQLITE_IOERR_DELETE_NOENT;
	if (rc < 0)
		return fail(vfs, rc, SQLITE_IOERR_DELETE);
	return sync_directory ? sync_directory_of(vfs, path) : SQLITE_OK;
}

/* An empty file does not count: a journal of no bytes has nothing to roll back. */
static int vfs_access(sqlite3_vfs *base, const char *path, int flags, int *out_result)
{
	struct tpd_vfs *vfs = vfs_of(base);
	struct stat st;
	int rc = vfs->io->stat(vfs->io, AT_FDCWD, path, &st);

	if (rc < 0 && rc != -ENOENT && rc != -ENOTDIR)
		return fail(vfs, rc, SQLITE_IOERR_ACCESS);
	*out_result = rc == 0 && (flags != SQLITE_ACCESS_EXISTS || !S_ISREG(st.st_mode) || st.st_size > 0);
	return SQLITE_OK;
}

/* Symbolic links are resolved as the shell does it: both must look for the journal at the same place. */
static int vfs_full_path(sqlite3_vfs *base, const char *path, int size, char *out_path)
{
	sqlite3_vfs *system = vfs_of(base)->system;

	return system->xFullPathname(system, path, size, out_path);
}

static int vfs_randomness(sqlite3_vfs *base, int size, char *out)
{
	sqlite3_vfs *system = vfs_of(base)->system;

	return system->xRandomness(system, size, out);
}

static int vfs_sleep(sqlite3_vfs *base, int microseconds)
{
	sqlite3_vfs *system = vfs_of(base)->system;

	return system->xSleep(system, microseconds);
}

static int vfs_time(sqlite3_vfs *base, double *out_days)
{
	sqlite3_vfs *system = vfs_of(base)->system;

	return system->xCurrentTime(system, out_days);
}

static int vfs_time_ms(sqlite3_vfs *base, sqlite3_int64 *out_ms)
{
	sqlite3_vfs *system = vfs_of(base)->system;

	return system->xCurrentTimeInt64(system, out_ms);
}

static int vfs_last_error(sqlite3_vfs *base, TPD_UNUSED int size, TPD_UNUSED char *text)
{
	return vfs_of(base)->sys;
}

enum tpd_status tpd_vfs_new(const struct tpd_io *io, bool read_fallback, struct tpd_vfs **out_vfs, struct tpd_err *err)
{
	static atomic_uint count;
	sqlite3_vfs *system = sqlite3_vfs_find(NULL);
	struct tpd_vfs *vfs;

	if (!system || system->iVersion < 2)
		return tpd_fail(err, TPD_UNSUPPORTED, "this sqlite has no VFS to take the clock from");
	vfs = calloc(1, sizeof *vfs);
	if (!vfs)
		return tpd_fail_nomem(err);
	vfs->io = io;
	vfs->system = system;
	vfs->read_fallback = read_fallback;
	vfs->mode = DATABASE_MODE;
	snprintf(vfs->name, sizeof vfs->name, "tpd-%u", atomic_fetch_add(&count, 1));
	vfs->base = (sqlite3_vfs){
		.iVersion = 2,
		.szOsFile = (int)sizeof(struct file),
		.mxPathname = PATH_MAX,
		.zName = vfs->name,
		.pAppData = vfs,
		.xOpen = vfs_open,
		.xDelete = vfs_delete,
		.xAccess = vfs_access,
		.xFullPathname = vfs_full_path,
		.xRandomness = vfs_randomness,
		.xSleep = vfs_sleep,
		.xCurrentTime = vfs_time,
		.xGetLastError = vfs_last_error,
		.xCurrentTimeInt64 = vfs_time_ms,
	};
	if (sqlite3_vfs_register(&vfs->base, 0) != SQLITE_OK) {
		free(vfs);
		return tpd_fail_nomem(err);
	}
	*out_vfs = vfs;
	return TPD_OK;
}

void tpd_vfs_free(struct tpd_vfs *vfs)
{
	if (!vfs)
		return;
	sqlite3_vfs_unregister(&vfs->base);
	free(vfs);
}

const char *tpd_vfs_name(const struct tpd_vfs *vfs)
{
	return vfs->name;
}

int tpd_vfs_sys(const struct tpd_vfs *vfs)
{
	return vfs->sys;
}

void tpd_vfs_forget(struct tpd_vfs *vfs)
{
	vfs->sys = 0;
}
