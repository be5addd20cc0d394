/*
 * io.h - the one table through which store and catalog touch the disk.
 *
 * Every call that can change or read what survives a crash goes through a
 * struct tpd_io, so that a test can record the calls, fail the n-th one, or
 * replay a prefix of them into a fresh directory.  tpd_io_posix() is the real
 * one.  Functions return a value >= 0, or -errno; they never set errno and
 * never retry except for EINTR.  Paths are relative to `dir`, a descriptor that
 * the table itself returned from opendir (or AT_FDCWD).
 *
 * The reading of watched directories (other people's files) does not go
 * through here: it cannot lose anything of ours.
 */
#ifndef TPD_BASE_IO_H
#define TPD_BASE_IO_H

#include "base/tpd.h"

#include <sys/stat.h>
#include <sys/types.h>

enum tpd_lock_kind { TPD_LOCK_NONE = 0, TPD_LOCK_SHARED = 1, TPD_LOCK_EXCLUSIVE = 2 };

struct tpd_io {
	void *context; /* the implementation's own */

	/* open(2); O_CLOEXEC is added. >= 0: descriptor. What root makes, here and by mkdir, gets the owner of the directory it lies in. */
	int (*open)(const struct tpd_io *io, int dir, const char *path, int flags, mode_t mode);
	/* A directory, for use as `dir` and with fsync. */
	int (*opendir)(const struct tpd_io *io, int dir, const char *path);
	int (*close)(const struct tpd_io *io, int fd);
	/* Bytes moved; short counts are possible as with the system calls. */
	ssize_t (*pread)(const struct tpd_io *io, int fd, void *buf, size_t len, uint64_t offset);
	ssize_t (*pwrite)(const struct tpd_io *io, int fd, const void *buf, size_t len, uint64_t offset);
	int (*fsync)(const struct tpd_io *io, int fd); /* a file or a directory */
	int (*ftruncate)(const struct tpd_io *io, int fd, uint64_t size);
	int (*fstat)(const struct tpd_io *io, int fd, struct stat *out_st);
	int (*stat)(const struct tpd_io *io, int dir, const char *path, struct stat *out_st); /* not followed */
	int (*rename)(const struct tpd_io *io, int old_dir, const char *old_path, int new_dir, const char *new_path,
		      bool replace); /* without replace: -EEXIST when new_path is there */
	int (*unlink)(const struct tpd_io *io, int dir, const char *path);
	int (*mkdir)(const struct tpd_io *io, int dir, const char *path, mode_t mode);
	int (*rmdir)(const struct tpd_io *io, int dir, const char *path);
	/* Calls fn for every entry but . and ..; stops when fn returns non-zero, and returns that. */
	int (*list)(const struct tpd_io *io, int dir, const char *path, int (*fn)(const char *name, void *arg),
		    void *arg);
	/* One OFD lock on [start, start + len), never waiting: -EAGAIN when held by another. */
	int (*lock)(const struct tpd_io *io, int fd, enum tpd_lock_kind kind, uint64_t start, uint64_t len);
	/* 1 when another open file description holds a lock that conflicts with `kind`, else 0. */
	int (*lock_test)(const struct tpd_io *io, int fd, enum tpd_lock_kind kind, uint64_t start, uint64_t len);
	/* posix_fadvise(POSIX_FADV_DONTNEED); a hint, errors are not reported. */
	void (*drop_cache)(const struct tpd_io *io, int fd, uint64_t offset, uint64_t len);
};

/* The table of the operating system; static, never freed. */
const struct tpd_io *tpd_io_posix(void);

/* Whole transfers. `what` names the file in the message. A short file on read is TPD_CORRUPT. */
enum tpd_status tpd_io_read_exact(const struct tpd_io *io, int fd, void *buf, size_t len, uint64_t offset,
				  const char *what, struct tpd_err *err);
enum tpd_status tpd_io_write_all(const struct tpd_io *io, int fd, const void *buf, size_t len, uint64_t offset,
				 const char *what, struct tpd_err *err);

/*
 * Read all of a file of at most `max` bytes (more: TPD_LIMIT; absent: TPD_NOT_FOUND) into fresh memory that
 * the caller frees; one zero byte follows the contents.
 */
enum tpd_status tpd_io_read_file(const struct tpd_io *io, int dir, const char *path, uint64_t max, uint8_t **out_data,
				 size_t *out_len, struct tpd_err *err);

/* Temporary files of tpd_io_publish() begin with this; what is left of them after a crash may be deleted. */
#define TPD_IO_TMP_PREFIX ".tmp-"

/*
 * The only way a single small file is published: O_EXCL temporary beside it, write, fsync, rename, fsync of
 * the directory.  replace=false: TPD_CONFLICT when `path` exists.
 */
enum tpd_status tpd_io_publish(const struct tpd_io *io, int dir, const char *path, const void *data, size_t len,
			       bool replace, struct tpd_err *err);

/* mkdir -p below dir, each new level fsynced; 0755. */
enum tpd_status tpd_io_mkdirs(const struct tpd_io *io, int dir, const char *path, struct tpd_err *err);

/* Names in a directory, each with its zero, one behind the other; returns what io->list() says. */
struct tpd_buf;
int tpd_io_list_names(const struct tpd_io *io, int dir, const char *path, struct tpd_buf *out_names);

/* fsync of a directory by name. */
enum tpd_status tpd_io_sync_dir(const struct tpd_io *io, int dir, const char *path, struct tpd_err *err);

/* rm -r below dir; absent is fine. Depth at most 16. */
enum tpd_status tpd_io_remove_tree(const struct tpd_io *io, int dir, const char *path, struct tpd_err *err);

/*
 * Take an OFD lock of the whole file, trying again for at most timeout_ms (-1: for ever, 0: once).
 * TPD_BUSY when it stays held; `what` names it in the message.
 */
enum tpd_status tpd_io_lock_wait(const struct tpd_io *io, int fd, enum tpd_lock_kind kind, int64_t timeout_ms,
				 const char *what, struct tpd_err *err);

#endif
