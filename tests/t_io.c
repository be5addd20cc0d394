/*
 * t_io.c - the I/O table on a real directory, and what is built on it with calls recorded and failed.
 *
 * Each test has a fresh directory of its own, removed at the end by tpd_io_remove_tree().
 */
#include "base/tpd.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "base/io_count.h"

#define NOBODY 65534u

static const struct tpd_io *io;
static char root[] = "/tmp/t_io-XXXXXX";
static int dir;

static void set_up(void)
{
	io = tpd_io_posix();
	ck_assert_ptr_nonnull(mkdtemp(root));
	dir = io->opendir(io, AT_FDCWD, root);
	ck_assert_int_ge(dir, 0);
}

static void tear_down(void)
{
	io->close(io, dir);
	ck_assert_int_eq(tpd_io_remove_tree(io, AT_FDCWD, root, NULL), TPD_OK);
}

static void put(const char *path, const char *text)
{
	ck_assert_int_eq(tpd_io_publish(io, dir, path, text, strlen(text), true, NULL), TPD_OK);
}

static bool holds(const char *path, const char *text)
{
	uint8_t *data = NULL;
	size_t len = 0;
	bool equal;

	if (tpd_io_read_file(io, dir, path, 1000, &data, &len, NULL) != TPD_OK)
		return false;
	equal = len == strlen(text) && strcmp((char *)data, text) == 0;
	free(data);
	return equal;
}

static bool exists(const char *path)
{
	struct stat st;

	return io->stat(io, dir, path, &st) == 0;
}

static int count_name(const char *name, void *arg)
{
	ck_assert_str_ne(name, ".");
	ck_assert_str_ne(name, "..");
	++*(int *)arg;
	return 0;
}

static int entries(void)
{
	int n = 0;

	ck_assert_int_eq(io->list(io, dir, ".", count_name, &n), 0);
	return n;
}

static int stop_at_second(TPD_UNUSED const char *name, void *arg)
{
	return ++*(int *)arg == 2 ? 77 : 0;
}

START_TEST(table_basics)
{
	char buf[8] = "";
	struct stat st;
	int n = 0, fd = io->open(io, dir, "f", O_RDWR | O_CREAT | O_EXCL, 0600);

	ck_assert_int_ge(fd, 0);
	errno = 12345;
	ck_assert_int_eq(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	ck_assert_int_eq(io->open(io, dir, "f", O_RDWR | O_CREAT | O_EXCL, 0600), -EEXIST);
	ck_assert_int_eq(io->opendir(io, dir, "f"), -ENOTDIR);
	ck_assert_int_eq(io->opendir(io, dir, "g"), -ENOENT);
	ck_assert_int_eq(io->pwrite(io, fd, "hello", 5, 3), 5);
	ck_assert_int_eq(io->pread(io, fd, buf, sizeof buf, 4), 4);
	ck_assert_str_eq(buf, "ello");
	ck_assert_int_eq(io->pread(io, fd, buf, 1, 8), 0);
	ck_assert_int_eq(io->pread(io, fd, buf, 1, UINT64_MAX), -EOVERFLOW);
	ck_assert_int_eq(io->pwrite(io, fd, buf, 1, UINT64_MAX), -EFBIG);
	ck_assert_int_eq(io->fsync(io, fd), 0);
	ck_assert_int_eq(io->fsync(io, dir), 0);
	ck_assert_int_eq(io->ftruncate(io, fd, 2), 0);
	ck_assert_int_eq(io->ftruncate(io, fd, UINT64_MAX), -EFBIG);
	ck_assert_int_eq(io->fstat(io, fd, &st), 0);
	ck_assert_int_eq(st.st_size, 2);
	io->drop_cache(io, fd, 0, 0);
	ck_assert_int_eq(io->close(io, fd), 0);
	ck_assert_int_eq(io->close(io, fd), -EBADF);
	ck_assert_int_eq(io->mkdir(io, dir, "d", 0755), 0);
	ck_assert_int_eq(io->mkdir(io, dir, "d", 0755), -EEXIST);
	ck_assert_int_eq(entries(), 2);
	ck_assert_int_eq(io->list(io, dir, ".", stop_at_second, &n), 77);
	ck_assert_int_eq(n, 2);
	ck_assert_int_eq(io->list(io, dir, "x", count_name, &n), -ENOENT);
	ck_assert_int_eq(io->rmdir(io, dir, "d"), 0);
	ck_assert_int_eq(io->unlink(io, dir, "f"), 0);
	ck_assert_int_eq(io->unlink(io, dir, "f"), -ENOENT);
	ck_assert_int_eq(symlinkat("nowhere", dir, "l"), 0);
	ck_assert_int_eq(io->stat(io, dir, "l", &st), 0); /* the link itself */
	ck_assert(S_ISLNK(st.st_mode));
	ck_assert_int_eq(errno, 12345);
}
END_TEST

/* The same expectations of rename, whatever the kernel offers. */
static void check_renames(void)
{
	put("a", "A");
	put("b", "B");
	ck_assert_int_eq(io->mkdir(io, dir, "d", 0755), 0);
	ck_assert_int_eq(io->mkdir(io, dir, "e", 0755), 0);
	ck_assert_int_eq(io->rename(io, dir, "a", dir, "b", false), -EEXIST);
	ck_assert(holds("a", "A") && holds("b", "B"));
	ck_assert_int_eq(io->rename(io, dir, "a", dir, "c", false), 0);
	ck_assert(!exists("a") && holds("c", "A"));
	ck_assert_int_eq(io->rename(io, dir, "c", dir, "b", true), 0);
	ck_assert(!exists("c") && holds("b", "A"));
	ck_assert_int_eq(io->rename(io, dir, "d", dir, "e", false), -EEXIST);
	ck_assert_int_eq(io->rename(io, dir, "d", dir, "b", false), -EEXIST);
	ck_assert_int_eq(io->rename(io, dir, "d", dir, "f", false), 0);
	ck_assert(!exists("d") && exists("f"));
	ck_assert_int_eq(io->rename(io, dir, "f", dir, "f/g", false), -EINVAL); /* into itself */
	ck_assert_int_eq(io->rename(io, dir, "none", dir, "g", false), -ENOENT);
	ck_assert_int_eq(io->rename(io, dir, "b", dir, "none/g", false), -ENOENT);
	ck_assert_int_eq(io->rename(io, dir, "b", dir, "f/b", false), 0);
	ck_assert(holds("f/b", "A"));
	ck_assert_int_eq(entries(), 2);
}

START_TEST(rename_without_replace)
{
	check_renames();
}
END_TEST

/* From here on renameat2() fails in this process as it does on file systems without the flag. */
static bool refuse_renameat2(int why)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_renameat2, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)why),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {.len = TPD_ARRAY_LEN(filter), .filter = filter};

	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

static const int no_flag[] = {EINVAL, ENOSYS};

/* In a child: a filter cannot be taken off again. */
START_TEST(rename_without_the_flag)
{
	int status;
	pid_t pid = fork();

	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		if (!refuse_renameat2(no_flag[_i]))
			_exit(99);
		/* glibc makes EINVAL of ENOSYS; without the filter it would be ENOENT. */
		if (renameat2(dir, "x", dir, "y", RENAME_NOREPLACE) != -1 || errno == ENOENT)
			_exit(98);
		check_renames();
		_exit(0);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 99) {
		fprintf(stderr, "t_io: no seccomp filters here, the fallback of rename is not tested\n");
		return;
	}
	ck_assert_int_eq(status, 0);
}
END_TEST

/* What root makes in another user's directory is that user's; what was there keeps its owner. */
START_TEST(root_makes_nothing_of_its_own)
{
	struct stat st;
	int fd;

	if (geteuid() != 0)
		return;
	ck_assert_int_eq(io->mkdir(io, dir, "theirs", 0755), 0);
	ck_assert_int_eq(fchownat(dir, "theirs", NOBODY, NOBODY, 0), 0);
	ck_assert_int_eq(io->mkdir(io, dir, "theirs/sub", 0755), 0);
	fd = io->open(io, dir, "theirs/sub/file", O_RDWR | O_CREAT, 0644);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(fstat(fd, &st), 0);
	ck_assert(st.st_uid == NOBODY && st.st_gid == NOBODY);
	ck_assert_int_eq(fchown(fd, 0, 0), 0);
	close(fd);
	fd = io->open(io, dir, "theirs/sub/file", O_RDWR | O_CREAT, 0644);
	ck_assert_int_eq(fstat(fd, &st), 0);
	ck_assert_uint_eq(st.st_uid, 0);
	close(fd);
	fd = io->open(io, dir, "theirs/sub/file", O_RDWR | O_CREAT | O_EXCL, 0644);
	ck_assert_int_eq(fd, -EEXIST);
	fd = io->open(io, dir, "ours", O_RDWR | O_CREAT, 0644);
	ck_assert_int_eq(fstat(fd, &st), 0);
	ck_assert_uint_eq(st.st_uid, 0);
	close(fd);
}
END_TEST

START_TEST(counted_calls_are_handed_on)
{
	struct tpd_io_count count;
	const struct tpd_io *counted = &count.io;
	char buf[3] = "";
	int fd;

	tpd_io_count_init(&count, io);
	fd = counted->open(counted, dir, "f", O_RDWR | O_CREAT, 0644);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(counted->pwrite(counted, fd, "abc", 3, 0), 3);
	ck_assert_int_eq(counted->pread(counted, fd, buf, 3, 0), 3);
	ck_assert_mem_eq(buf, "abc", 3);
	ck_assert_int_eq(counted->close(counted, fd), 0);
	ck_assert_int_eq(counted->unlink(counted, dir, "none"), -ENOENT);
	ck_assert_uint_eq(tpd_io_count_calls(&count), 5);
}
END_TEST

START_TEST(whole_transfers)
{
	struct tpd_err err = {.status = TPD_OK};
	int fd = io->open(io, dir, "f", O_RDWR | O_CREAT, 0600);
	char buf[8];

	ck_assert_int_eq(tpd_io_write_all(io, fd, "0123456789", 10, 0, "f", &err), TPD_OK);
	ck_assert_int_eq(tpd_io_read_exact(io, fd, buf, 8, 2, "f", &err), TPD_OK);
	ck_assert_mem_eq(buf, "23456789", 8);
	ck_assert_int_eq(tpd_io_read_exact(io, fd, buf, 8, 3, "f", &err), TPD_CORRUPT);
	ck_assert_str_eq(err.text, "'f' ends at byte 10, 1 bytes too early");
	ck_assert_int_eq(tpd_io_read_exact(io, fd, buf, 0, 100, "f", &err), TPD_OK);
	io->close(io, fd);
	ck_assert_int_eq(tpd_io_read_exact(io, fd, buf, 1, 0, "f", &err), TPD_IO);
	ck_assert_int_eq(err.sys, EBADF);
	ck_assert_int_eq(tpd_io_write_all(io, fd, "x", 1, 0, "f", &err), TPD_IO);
	ck_assert_str_eq(err.text, "cannot write 'f': Bad file descriptor");
}
END_TEST

START_TEST(read_file)
{
	struct tpd_err err = {.status = TPD_OK};
	uint8_t *data = NULL;
	size_t len = 0;

	put("f", "12345");
	put("empty", "");
	ck_assert_int_eq(tpd_io_read_file(io, dir, "f", 5, &data, &len, &err), TPD_OK);
	ck_assert_uint_eq(len, 5);
	ck_assert_mem_eq(data, "12345", 6); /* with the zero */
	free(data);
	ck_assert_int_eq(tpd_io_read_file(io, dir, "empty", 0, &data, &len, &err), TPD_OK);
	ck_assert_uint_eq(len, 0);
	ck_assert_uint_eq(data[0], 0);
	free(data);
	ck_assert_int_eq(tpd_io_read_file(io, dir, "f", 4, &data, &len, &err), TPD_LIMIT);
	ck_assert_int_eq(tpd_io_read_file(io, dir, "g", 4, &data, &len, &err), TPD_NOT_FOUND);
	ck_assert_int_eq(tpd_io_read_file(io, dir, ".", 4, &data, &len, &err), TPD_IO);
	ck_assert_int_eq(err.sys, EISDIR);
	/* A file that says it is empty and is not. */
	ck_assert_int_eq(tpd_io_read_file(io, AT_FDCWD, "/proc/self/stat", 1 << 20, &data, &len, &err), TPD_OK);
	ck_assert_uint_gt(len, 20);
	ck_assert_uint_eq(data[len], 0);
	free(data);
	ck_assert_int_eq(tpd_io_read_file(io, AT_FDCWD, "/proc/self/stat", 20, &data, &len, &err), TPD_LIMIT);
}
END_TEST

START_TEST(mkdirs)
{
	struct tpd_err err = {.status = TPD_OK};
	char path[64];

	ck_assert_int_eq(tpd_io_mkdirs(io, dir, "a/b//c/", &err), TPD_OK);
	ck_assert_int_eq(tpd_io_mkdirs(io, dir, "a/b/c", &err), TPD_OK);
	ck_assert_int_eq(tpd_io_mkdirs(io, dir, ".", &err), TPD_OK);
	put("a/b/c/f", "x");
	snprintf(path, sizeof path, "%s/abs/x", root);
	ck_assert_int_eq(tpd_io_mkdirs(io, AT_FDCWD, path, &err), TPD_OK);
	ck_assert(exists("abs/x"));
	ck_assert_int_eq(err.status, TPD_OK);
	ck_assert_int_eq(tpd_io_mkdirs(io, dir, "a/b/c/f", &err), TPD_IO);
	ck_assert_int_eq(err.sys, ENOTDIR);
	ck_assert_int_eq(tpd_io_mkdirs(io, dir, "a/b/c/f/g", &err), TPD_IO);
	ck_assert_int_eq(tpd_io_mkdirs(io, dir, "", &err), TPD_IO);
	ck_assert_int_eq(tpd_io_sync_dir(io, dir, "a/b", &err), TPD_OK);
	ck_assert_int_eq(tpd_io_sync_dir(io, dir, "none", &err), TPD_IO);
}
END_TEST

START_TEST(remove_tree)
{
	struct tpd_err err = {.status = TPD_OK};
	char path[3 * 16 + 1] = "";

	ck_assert_int_eq(tpd_io_remove_tree(io, dir, "none", &err), TPD_OK);
	ck_assert_int_eq(tpd_io_mkdirs(io, dir, "t/u/v", &err), TPD_OK);
	ck_assert_int_eq(tpd_io_mkdirs(io, dir, "keep", &err), TPD_OK);
	put("keep/f", "kept");
	ck_assert_int_eq(symlinkat("../keep", dir, "t/link"), 0);
	for (int i = 0; i < 200; i++) {
		snprintf(path, sizeof path, "t/u/%d", i);
		put(path, "x");
	}
	ck_assert_int_eq(tpd_io_remove_tree(io, dir, "t", &err), TPD_OK);
	ck_assert(!exists("t"));
	ck_assert(holds("keep/f", "kept")); /* links are not followed */
	ck_assert_int_eq(tpd_io_remove_tree(io, dir, "keep/f", &err), TPD_OK);
	ck_assert(!exists("keep/f"));

	for (int i = 0; i < 16; i++) /* sixteen levels are the limit */
		memcpy(path + 2 * i, i < 15 ? "a/" : "a", i < 15 ? 2 : 2);
	ck_assert_int_eq(tpd_io_mkdirs(io, dir, path, &err), TPD_OK);
	ck_assert_int_eq(tpd_io_remove_tree(io, dir, "a", &err), TPD_OK);
	strcat(path, "/a");
	ck_assert_int_eq(tpd_io_mkdirs(io, dir, path, &err), TPD_OK);
	ck_assert_int_eq(tpd_io_remove_tree(io, dir, "a", &err), TPD_LIMIT);
	ck_assert_int_eq(tpd_io_remove_tree(io, dir, "a/a", &err), TPD_OK);
}
END_TEST

START_TEST(locks)
{
	struct tpd_err err = {.status = TPD_OK};
	int a = io->open(io, dir, "lock", O_RDWR | O_CREAT, 0600), b = io->open(io, dir, "lock", O_RDWR, 0);

	/* Two descriptions of one process exclude each other: that is what "OFD" means. */
	ck_assert_int_eq(io->lock(io, a, TPD_LOCK_SHARED, 0, 0), 0);
	ck_assert_int_eq(io->lock(io, b, TPD_LOCK_SHARED, 0, 0), 0);
	ck_assert_int_eq(io->lock(io, a, TPD_LOCK_EXCLUSIVE, 0, 0), -EAGAIN);
	ck_assert_int_eq(io->lock_test(io, a, TPD_LOCK_EXCLUSIVE, 0, 0), 1);
	ck_assert_int_eq(io->lock_test(io, a, TPD_LOCK_SHARED, 0, 0), 0);
	ck_assert_int_eq(io->lock(io, b, TPD_LOCK_NONE, 0, 0), 0);
	ck_assert_int_eq(io->lock(io, a, TPD_LOCK_EXCLUSIVE, 0, 0), 0);
	ck_assert_int_eq(io->lock_test(io, b, TPD_LOCK_SHARED, 0, 0), 1);
	ck_assert_int_eq(io->lock_test(io, b, TPD_LOCK_NONE, 0, 0), 0);
	ck_assert_int_eq(tpd_io_lock_wait(io, b, TPD_LOCK_SHARED, 0, "lock", &err), TPD_BUSY);
	ck_assert_str_eq(err.text, "'lock' is locked by another process");
	ck_assert_int_eq(tpd_io_lock_wait(io, b, TPD_LOCK_SHARED, 30, "lock", &err), TPD_BUSY);
	ck_assert_int_eq(io->close(io, a), 0); /* releases */
	ck_assert_int_eq(tpd_io_lock_wait(io, b, TPD_LOCK_EXCLUSIVE, 0, "lock", &err), TPD_OK);
	a = io->open(io, dir, "lock", O_RDWR, 0);
	ck_assert_int_eq(io->lock(io, b, TPD_LOCK_NONE, 0, 0), 0);
	ck_assert_int_eq(io->lock(io, a, TPD_LOCK_EXCLUSIVE, 10, 5), 0); /* ranges */
	ck_assert_int_eq(io->lock(io, b, TPD_LOCK_EXCLUSIVE, 15, 1), 0);
	ck_assert_int_eq(io->lock(io, b, TPD_LOCK_EXCLUSIVE, 14, 1), -EAGAIN);
	ck_assert_int_eq(io->lock(io, b, TPD_LOCK_SHARED, UINT64_MAX, 1), -EOVERFLOW);
	io->close(io, a);
	io->close(io, b);
	ck_assert_int_eq(tpd_io_lock_wait(io, b, TPD_LOCK_SHARED, -1, "lock", &err), TPD_IO);
}
END_TEST

START_TEST(lock_wait_gets_it_in_the_end)
{
	int ready[2], fd = io->open(io, dir, "lock", O_RDWR | O_CREAT, 0600);
	pid_t pid;
	char c;

	ck_assert_int_eq(pipe(ready), 0);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		int own = io->open(io, dir, "lock", O_RDWR, 0);

		io->close(io, fd);
		if (io->lock(io, own, TPD_LOCK_EXCLUSIVE, 0, 0) != 0 || write(ready[1], "x", 1) != 1)
			_exit(1);
		usleep(50000);
		_exit(0); /* its death releases the lock */
	}
	ck_assert_int_eq(read(ready[0], &c, 1), 1);
	ck_assert_int_eq(tpd_io_lock_wait(io, fd, TPD_LOCK_EXCLUSIVE, -1, "lock", NULL), TPD_OK);
	waitpid(pid, NULL, 0);
	io->close(io, fd);
	close(ready[0]);
	close(ready[1]);
}
END_TEST

/* ---- publishing: which calls in which order, and what is left when the n-th of them fails ---- */

struct fault {
	char trace[32]; /* a letter a call */
	int fail_at;    /* index of the call that fails; -1: none */
};

static bool fails(const struct tpd_io *faulty, char letter)
{
	struct fault *fault = faulty->context;
	size_t n = strlen(fault->trace);

	ck_assert_uint_lt(n, sizeof fault->trace - 1);
	fault->trace[n] = letter;
	fault->trace[n + 1] = 0;
	return (int)n == fault->fail_at;
}

static int faulty_open(const struct tpd_io *faulty, int at, const char *path, int flags, mode_t mode)
{
	return fails(faulty, 'o') ? -EIO : io->open(io, at, path, flags, mode);
}

static int faulty_opendir(const struct tpd_io *faulty, int at, const char *path)
{
	return fails(faulty, 'd') ? -EIO : io->opendir(io, at, path);
}

static int faulty_close(const struct tpd_io *faulty, int fd)
{
	bool bad = fails(faulty, 'c');
	int rc = io->close(io, fd); /* it is closed also when it reports an error */

	return bad ? -EIO : rc;
}

/* At most three bytes at a time: short counts are legal. */
static ssize_t faulty_pwrite(const struct tpd_io *faulty, int fd, const void *buf, size_t len, uint64_t offset)
{
	return fails(faulty, 'w') ? -ENOSPC : io->pwrite(io, fd, buf, TPD_MIN(len, (size_t)3), offset);
}

static int faulty_fsync(const struct tpd_io *faulty, int fd)
{
	return fails(faulty, 's') ? -EIO : io->fsync(io, fd);
}

static int faulty_rename(const struct tpd_io *faulty, int old_dir, const char *old_path, int new_dir,
			 const char *new_path, bool replace)
{
	return fails(faulty, 'r') ? -EIO : io->rename(io, old_dir, old_path, new_dir, new_path, replace);
}

static int faulty_unlink(const struct tpd_io *faulty, int at, const char *path)
{
	return fails(faulty, 'u') ? -EIO : io->unlink(io, at, path);
}

static struct tpd_io faulty_io(struct fault *fault)
{
	struct tpd_io faulty = *io;

	faulty.context = fault;
	faulty.open = faulty_open;
	faulty.opendir = faulty_opendir;
	faulty.close = faulty_close;
	faulty.pwrite = faulty_pwrite;
	faulty.fsync = faulty_fsync;
	faulty.rename = faulty_rename;
	faulty.unlink = faulty_unlink;
	return faulty;
}

START_TEST(publish_replaces_or_not)
{
	struct tpd_err err = {.status = TPD_OK};

	ck_assert_int_eq(tpd_io_publish(io, dir, "f", "one", 3, false, &err), TPD_OK);
	ck_assert(holds("f", "one"));
	ck_assert_int_eq(tpd_io_publish(io, dir, "f", "two", 3, false, &err), TPD_CONFLICT);
	ck_assert_str_eq(err.text, "'f' already exists");
	ck_assert(holds("f", "one"));
	ck_assert_int_eq(tpd_io_publish(io, dir, "f", "two", 3, true, &err), TPD_OK);
	ck_assert(holds("f", "two"));
	ck_assert_int_eq(entries(), 1);
	ck_assert_int_eq(tpd_io_publish(io, dir, "none/f", "x", 1, true, &err), TPD_IO);
	ck_assert_int_eq(err.sys, ENOENT);
	/* A dead process with our pid left its temporaries. */
	for (int i = 0; i < 20; i++) {
		char name[64];
		int fd;

		snprintf(name, sizeof name, TPD_IO_TMP_PREFIX "%ld-%d", (long)getpid(), i);
		fd = io->open(io, dir, name, O_WRONLY | O_CREAT, 0600);
		ck_assert_int_ge(fd, 0);
		io->close(io, fd);
	}
	ck_assert_int_eq(tpd_io_publish(io, dir, "f", "three", 5, true, &err), TPD_OK);
	ck_assert(holds("f", "three"));
}
END_TEST

START_TEST(publish_in_the_safe_order)
{
	struct fault fault = {.fail_at = -1};
	struct tpd_io faulty = faulty_io(&fault);

	ck_assert_int_eq(tpd_io_publish(&faulty, dir, "f", "12345678", 8, false, NULL), TPD_OK);
	ck_assert_str_eq(fault.trace, "dowwwscrsc");
	ck_assert(holds("f", "12345678"));
}
END_TEST

static const struct {
	int fail_at;
	int sys;
	bool published;
	const char *trace;
	const char *text;
} steps[] = {
	{0, EIO, false, "d", "cannot open the directory of 'f': Input/output error"},
	{1, EIO, false, "doc", "cannot create a temporary file for 'f': Input/output error"},
	{2, ENOSPC, false, "dowcuc", "cannot write 'f': No space left on device"},
	{4, ENOSPC, false, "dowwwcuc", "cannot write 'f': No space left on device"},
	{5, EIO, false, "dowwwscuc", "cannot fsync 'f': Input/output error"}, /* and never again */
	{6, EIO, false, "dowwwscuc", "cannot close 'f': Input/output error"},
	{7, EIO, false, "dowwwscruc", NULL},
	{8, EIO, true, "dowwwscrsc", "cannot fsync the directory of 'f': Input/output error"},
};

START_TEST(publish_survives_any_failure)
{
	struct fault fault = {.fail_at = steps[_i].fail_at};
	struct tpd_io faulty = faulty_io(&fault);
	struct tpd_err err = {.status = TPD_OK};

	put("f", "old");
	ck_assert_int_eq(tpd_io_publish(&faulty, dir, "f", "12345678", 8, true, &err), TPD_IO);
	ck_assert_int_eq(err.sys, steps[_i].sys);
	ck_assert_str_eq(fault.trace, steps[_i].trace);
	if (steps[_i].text)
		ck_assert_str_eq(err.text, steps[_i].text);
	ck_assert(holds("f", steps[_i].published ? "12345678" : "old"));
	ck_assert_int_eq(entries(), 1); /* no temporary */
}
END_TEST

START_TEST(mkdirs_are_made_to_last)
{
	struct fault fault = {.fail_at = -1};
	struct tpd_io faulty = faulty_io(&fault);

	ck_assert_int_eq(tpd_io_mkdirs(io, dir, "a", NULL), TPD_OK);
	ck_assert_int_eq(tpd_io_mkdirs(&faulty, dir, "a/b/c", NULL), TPD_OK);
	ck_assert_str_eq(fault.trace, "dscdscdscdscdc"); /* b and its parent, c and its parent, the last look */
	for (int at = 0; at < 14; at++) {
		struct fault once = {.fail_at = at};
		bool checked = fault.trace[at] != 'c';

		faulty.context = &once;
		ck_assert_int_eq(tpd_io_remove_tree(io, dir, "a/b", NULL), TPD_OK);
		ck_assert_int_eq(tpd_io_mkdirs(&faulty, dir, "a/b/c", NULL), checked ? TPD_IO : TPD_OK);
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("io");
	TCase *tests = tcase_create("io");
	SRunner *runner = srunner_create(suite);
	int failed;

	suite_add_tcase(suite, tests);
	tcase_add_checked_fixture(tests, set_up, tear_down);
	tcase_set_timeout(tests, 60);
	tcase_add_test(tests, table_basics);
	tcase_add_test(tests, rename_without_replace);
	tcase_add_loop_test(tests, rename_without_the_flag, 0, (int)TPD_ARRAY_LEN(no_flag));
	tcase_add_test(tests, root_makes_nothing_of_its_own);
	tcase_add_test(tests, counted_calls_are_handed_on);
	tcase_add_test(tests, whole_transfers);
	tcase_add_test(tests, read_file);
	tcase_add_test(tests, mkdirs);
	tcase_add_test(tests, remove_tree);
	tcase_add_test(tests, locks);
	tcase_add_test(tests, lock_wait_gets_it_in_the_end);
	tcase_add_test(tests, publish_replaces_or_not);
	tcase_add_test(tests, publish_in_the_safe_order);
	tcase_add_loop_test(tests, publish_survives_any_failure, 0, (int)TPD_ARRAY_LEN(steps));
	tcase_add_test(tests, mkdirs_are_made_to_last);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
