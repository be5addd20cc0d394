/*
 * fault_io.h - the operating system's I/O table with one call that fails, for tests.
 *
 *     struct fault fault = {.fail_at = 7, .sys = ENOSPC};      the eighth call gives -ENOSPC
 *     struct tpd_io io = fault_io(&fault);
 *
 * Every call but close and drop_cache counts; fail_at -1 only counts. With `forever` all later calls fail as well (a
 * disk that is gone, or a process that died there: nothing it would still have done happens). flip_at: the byte at
 * that file offset is inverted on its way to the disk.
 */
#ifndef TESTS_FAULT_IO_H
#define TESTS_FAULT_IO_H

#include "base/tpd.h"

#include <stdlib.h>
#include <string.h>

#include "base/io.h"

struct fault {
	int fail_at, sys, calls;
	bool forever, flip;
	uint64_t flip_at;
};

static inline int fault_next(const struct tpd_io *io)
{
	struct fault *fault = io->context;
	int call = fault->calls++;

	if (fault->fail_at < 0 || call < fault->fail_at || (call > fault->fail_at && !fault->forever))
		return 0;
	return -fault->sys;
}

#define FAULT_CALL(io, call)                     \
	do {                                     \
		int fault_rc = fault_next(io);   \
		return fault_rc ? fault_rc : tpd_io_posix()->call; \
	} while (0)

static inline int fault_open(const struct tpd_io *io, int dir, const char *path, int flags, mode_t mode)
{
	FAULT_CALL(io, open(tpd_io_posix(), dir, path, flags, mode));
}

static inline int fault_opendir(const struct tpd_io *io, int dir, const char *path)
{
	FAULT_CALL(io, opendir(tpd_io_posix(), dir, path));
}

static inline ssize_t fault_pread(const struct tpd_io *io, int fd, void *buf, size_t len, uint64_t offset)
{
	FAULT_CALL(io, pread(tpd_io_posix(), fd, buf, len, offset));
}

static inline ssize_t fault_pwrite(const struct tpd_io *io, int fd, const void *buf, size_t len, uint64_t offset)
{
	struct fault *fault = io->context;
	int rc = fault_next(io);
	uint8_t *copy;
	ssize_t n;

	if (rc && len > 1) /* a full disk takes some of it first */
		tpd_io_posix()->pwrite(tpd_io_posix(), fd, buf, len / 2, offset);
	if (rc)
		return rc;
	if (!fault->flip || fault->flip_at < offset || fault->flip_at - offset >= len)
		return tpd_io_posix()->pwrite(tpd_io_posix(), fd, buf, len, offset);
	copy = malloc(len);
	if (!copy)
		abort();
	memcpy(copy, buf, len);
	copy[fault->flip_at - offset] ^= 0x10;
	n = tpd_io_posix()->pwrite(tpd_io_posix(), fd, copy, len, offset);
	free(copy);
	return n;
}

static inline int fault_fsync(const struct tpd_io *io, int fd)
{
	FAULT_CALL(io, fsync(tpd_io_posix(), fd));
}

static inline int fault_ftruncate(const struct tpd_io *io, int fd, uint64_t size)
{
	FAULT_CALL(io, ftruncate(tpd_io_posix(), fd, size));
}

static inline int fault_fstat(const struct tpd_io *io, int fd, struct stat *out_st)
{
	FAULT_CALL(io, fstat(tpd_io_posix(), fd, out_st));
}

static inline int fault_stat(const struct tpd_io *io, int dir, const char *path, struct stat *out_st)
{
	FAULT_CALL(io, stat(tpd_io_posix(), dir, path, out_st));
}

static inline int fault_rename(const struct tpd_io *io, int old_dir, const char *old_path, int new_dir,
			       const char *new_path, bool replace)
{
	FAULT_CALL(io, rename(tpd_io_posix(), old_dir, old_path, new_dir, new_path, replace));
}

static inline int fault_unlink(const struct tpd_io *io, int dir, const char *path)
{
	FAULT_CALL(io, unlink(tpd_io_posix(), dir, path));
}

static inline int fault_mkdir(const struct tpd_io *io, int dir, const char *path, mode_t mode)
{
	FAULT_CALL(io, mkdir(tpd_io_posix(), dir, path, mode));
}

static inline int fault_rmdir(const struct tpd_io *io, int dir, const char *path)
{
	FAULT_CALL(io, rmdir(tpd_io_posix(), dir, path));
}

static inline int fault_list(const struct tpd_io *io, int dir, const char *path, int (*fn)(const char *name, void *arg),
			     void *arg)
{
	FAULT_CALL(io, list(tpd_io_posix(), dir, path, fn, arg));
}

static inline int fault_lock(const struct tpd_io *io, int fd, enum tpd_lock_kind kind, uint64_t start, uint64_t len)
{
	FAULT_CALL(io, lock(tpd_io_posix(), fd, kind, start, len));
}

static inline struct tpd_io fault_io(struct fault *fault)
{
	struct tpd_io io = *tpd_io_posix();

	io.context = fault;
	io.open = fault_open;
	io.opendir = fault_opendir;
	io.pread = fault_pread;
	io.pwrite = fault_pwrite;
	io.fsync = fault_fsync;
	io.ftruncate = fault_ftruncate;
	io.fstat = fault_fstat;
	io.stat = fault_stat;
	io.rename = fault_rename;
	io.unlink = fault_unlink;
	io.mkdir = fault_mkdir;
	io.rmdir = fault_rmdir;
	io.list = fault_list;
	io.lock = fault_lock;
	return io;
}

#endif
