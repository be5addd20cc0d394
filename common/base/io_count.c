/*
 * io_count.c - see io_count.h. Every function hands its arguments on and counts when the call is back: one that hangs, on a dead
 * disk or a lost mount, counts nothing.
 */
#include "base/tpd.h"

#include "base/io_count.h"

static struct tpd_io_count *of(const struct tpd_io *io)
{
	return io->context;
}

/* HAND_ON(type, name, parameters after io, arguments after io) */
#define HAND_ON(type, name, parameters, arguments)                                                                     \
	static type count_##name parameters                                                                            \
	{                                                                                                              \
		type result = of(io)->below->name arguments;                                                           \
                                                                                                                       \
		atomic_fetch_add_explicit(&of(io)->calls, 1, memory_order_relaxed);                                    \
		return result;                                                                                         \
	}
#define BELOW of(io)->below

HAND_ON(int, open, (const struct tpd_io *io, int dir, const char *path, int flags, mode_t mode),
	(BELOW, dir, path, flags, mode))
HAND_ON(int, opendir, (const struct tpd_io *io, int dir, const char *path), (BELOW, dir, path))
HAND_ON(int, close, (const struct tpd_io *io, int fd), (BELOW, fd))
HAND_ON(ssize_t, pread, (const struct tpd_io *io, int fd, void *buf, size_t len, uint64_t offset),
	(BELOW, fd, buf, len, offset))
HAND_ON(ssize_t, pwrite, (const struct tpd_io *io, int fd, const void *buf, size_t len, uint64_t offset),
	(BELOW, fd, buf, len, offset))
HAND_ON(int, fsync, (const struct tpd_io *io, int fd), (BELOW, fd))
HAND_ON(int, ftruncate, (const struct tpd_io *io, int fd, uint64_t size), (BELOW, fd, size))
HAND_ON(int, fstat, (const struct tpd_io *io, int fd, struct stat *out_st), (BELOW, fd, out_st))
HAND_ON(int, stat, (const struct tpd_io *io, int dir, const char *path, struct stat *out_st), (BELOW, dir, path, out_st))
HAND_ON(int, rename,
	(const struct tpd_io *io, int old_dir, const char *old_path, int new_dir, const char *new_path, bool replace),
	(BELOW, old_dir, old_path, new_dir, new_path, replace))
HAND_ON(int, unlink, (const struct tpd_io *io, int dir, const char *path), (BELOW, dir, path))
HAND_ON(int, mkdir, (const struct tpd_io *io, int dir, const char *path, mode_t mode), (BELOW, dir, path, mode))
HAND_ON(int, rmdir, (const struct tpd_io *io, int dir, const char *path), (BELOW, dir, path))
HAND_ON(int, list,
	(const struct tpd_io *io, int dir, const char *path, int (*fn)(const char *name, void *arg), void *arg),
	(BELOW, dir, path, fn, arg))
HAND_ON(int, lock, (const struct tpd_io *io, int fd, enum tpd_lock_kind kind, uint64_t start, uint64_t len),
	(BELOW, fd, kind, start, len))
HAND_ON(int, lock_test, (const struct tpd_io *io, int fd, enum tpd_lock_kind kind, uint64_t start, uint64_t len),
	(BELOW, fd, kind, start, len))

static void count_drop_cache(const struct tpd_io *io, int fd, uint64_t offset, uint64_t len)
{
	BELOW->drop_cache(BELOW, fd, offset, len);
}

void tpd_io_count_init(struct tpd_io_count *count, const struct tpd_io *below)
{
	count->io = (struct tpd_io){
		.context = count,
		.open = count_open,
		.opendir = count_opendir,
		.close = count_close,
		.pread = count_pread,
		.pwrite = count_pwrite,
		.fsync = count_fsync,
		.ftruncate = count_ftruncate,
		.fstat = count_fstat,
		.stat = count_stat,
		.rename = count_rename,
		.unlink = count_unlink,
		.mkdir = count_mkdir,
		.rmdir = count_rmdir,
		.list = count_list,
		.lock = count_lock,
		.lock_test = count_lock_test,
		.drop_cache = count_drop_cache,
	};
	count->below = below;
	atomic_init(&count->calls, 0);
}

uint64_t tpd_io_count_calls(const struct tpd_io_count *count)
{
	return atomic_load_explicit(&count->calls, memory_order_relaxed);
}
