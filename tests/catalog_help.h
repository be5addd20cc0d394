/*
 * catalog_help.h - for the tests of the catalog: a directory, an I/O table that fails or dies at the n-th call, the
 * sqlite3 shell, and checkpoints to put.
 */
#ifndef TESTS_CATALOG_HELP_H
#define TESTS_CATALOG_HELP_H

#include "base/tpd.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "catalog/catalog.h"

/* --- a fresh directory for each test: every test is a process of its own, unless CK_FORK=no --- */

static char help_root[64], help_path[96], help_journal[112];

static TPD_UNUSED void help_set_up(void)
{
	/* Thousands of transactions: in memory, where fsync costs nothing, if there is such a place. */
	snprintf(help_root, sizeof help_root, "%s/t_catalog-XXXXXX",
		 access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
	ck_assert_ptr_nonnull(mkdtemp(help_root));
	ck_assert_int_eq(chmod(help_root, 0755), 0);
	snprintf(help_path, sizeof help_path, "%s/catalog.sqlite", help_root);
	snprintf(help_journal, sizeof help_journal, "%s-journal", help_path);
}

static TPD_UNUSED void help_tear_down(void)
{
	chmod(help_root, 0755);
	ck_assert_int_eq(tpd_io_remove_tree(tpd_io_posix(), AT_FDCWD, help_root, NULL), TPD_OK);
}

/* --- the shell --- */

/* What `sqlite3 CATALOG SQL` prints, errors included; fresh memory. */
static TPD_UNUSED char *help_shell(const char *sql)
{
	char command[8192], *out = calloc(1, 1 << 20);
	FILE *pipe;
	size_t n;

	ck_assert_ptr_nonnull(out);
	ck_assert_int_lt(snprintf(command, sizeof command, "sqlite3 '%s' \"%s\" 2>&1", help_path, sql),
			 (int)sizeof command);
	pipe = popen(command, "r");
	ck_assert_ptr_nonnull(pipe);
	n = fread(out, 1, (1 << 20) - 1, pipe);
	out[n] = '\0';
	pclose(pipe);
	return out;
}

static TPD_UNUSED void help_shell_says(const char *sql, const char *expected)
{
	char *out = help_shell(sql);

	ck_assert_str_eq(out, expected);
	free(out);
}

/* --- an I/O table that fails --- */

struct help_io {
	struct tpd_io table;
	long calls;   /* so far */
	long fail_at; /* this call and, if `for_good`, all after it; 0: none */
	bool for_good;
	int fail_with;  /* errno; 0: the process ends there, in a write after half of it */
	size_t at_most; /* bytes a transfer; 0: no bound */
	void (*seen)(struct help_io *io, const char *call, const char *path, int fd);
};

static struct help_io *help_io_of(const struct tpd_io *io)
{
	return io->context;
}

static bool help_fails(const struct tpd_io *table, const char *call, const char *path, int fd)
{
	struct help_io *io = help_io_of(table);
	bool fails;

	io->calls++;
	fails = io->fail_at && (io->calls == io->fail_at || (io->for_good && io->calls > io->fail_at));
	if (fails && io->fail_with == 0)
		_exit(9);
	if (!fails && io->seen)
		io->seen(io, call, path, fd);
	return fails;
}

#define HELP_CALL(call, path, fd, ...) \
	(help_fails(io, #call, path, fd) ? -help_io_of(io)->fail_with \
					 : tpd_io_posix()->call(tpd_io_posix(), __VA_ARGS__))

static int help_open(const struct tpd_io *io, int dir, const char *path, int flags, mode_t mode)
{
	int fd = HELP_CALL(open, NULL, -1, dir, path, flags, mode);

	if (fd >= 0 && help_io_of(io)->seen)
		help_io_of(io)->seen(help_io_of(io), flags & O_CREAT ? "create" : "open", path, fd);
	return fd;
}

static int help_opendir(const struct tpd_io *io, int dir, const char *path)
{
	int fd = HELP_CALL(opendir, NULL, -1, dir, path);

	if (fd >= 0 && help_io_of(io)->seen)
		help_io_of(io)->seen(help_io_of(io), "opendir", path, fd);
	return fd;
}

static int help_close(const struct tpd_io *io, int fd)
{
	if (help_io_of(io)->seen)
		help_io_of(io)->seen(help_io_of(io), "close", NULL, fd);
	return tpd_io_posix()->close(tpd_io_posix(), fd);
}

static size_t help_bound(const struct tpd_io *io, size_t len)
{
	size_t most = help_io_of(io)->at_most;

	return most ? TPD_MIN(len, most) : len;
}

static ssize_t help_pread(const struct tpd_io *io, int fd, void *buf, size_t len, uint64_t offset)
{
	return HELP_CALL(pread, NULL, fd, fd, buf, help_bound(io, len), offset);
}

static ssize_t help_pwrite(const struct tpd_io *io, int fd, const void *buf, size_t len, uint64_t offset)
{
	struct help_io *help = help_io_of(io);

	if (help->fail_at == help->calls + 1 && help->fail_with == 0)
		tpd_io_posix()->pwrite(tpd_io_posix(), fd, buf, len / 2, offset);
	return HELP_CALL(pwrite, NULL, fd, fd, buf, help_bound(io, len), offset);
}

static int help_fsync(const struct tpd_io *io, int fd)
{
	return HELP_CALL(fsync, NULL, fd, fd);
}

static int help_ftruncate(const struct tpd_io *io, int fd, uint64_t size)
{
	return HELP_CALL(ftruncate, NULL, fd, fd, size);
}

static int help_fstat(const struct tpd_io *io, int fd, struct stat *out_st)
{
	return HELP_CALL(fstat, NULL, fd, fd, out_st);
}

static int help_stat(const struct tpd_io *io, int dir, const char *path, struct stat *out_st)
{
	return HELP_CALL(stat, path, -1, dir, path, out_st);
}

static int help_unlink(const struct tpd_io *io, int dir, const char *path)
{
	return HELP_CALL(unlink, path, -1, dir, path);
}

static int help_lock(const struct tpd_io *io, int fd, enum tpd_lock_kind kind, uint64_t start, uint64_t len)
{
	return HELP_CALL(lock, NULL, fd, fd, kind, start, len);
}

static int help_lock_test(const struct tpd_io *io, int fd, enum tpd_lock_kind kind, uint64_t start, uint64_t len)
{
	return HELP_CALL(lock_test, NULL, fd, fd, kind, start, len);
}

/* The calls that the catalog has no use for stay NULL: it would crash here if it began to. */
static TPD_UNUSED void help_io_init(struct help_io *io)
{
	*io = (struct help_io){
		.table =
			{
				.context = io,
				.open = help_open,
				.opendir = help_opendir,
				.close = help_close,
				.pread = help_pread,
				.pwrite = help_pwrite,
				.fsync = help_fsync,
				.ftruncate = help_ftruncate,
				.fstat = help_fstat,
				.stat = help_stat,
				.unlink = help_unlink,
				.lock = help_lock,
				.lock_test = help_lock_test,
			},
	};
}

/* --- checkpoints --- */

#define HELP_FILES 3
#define HELP_TENSORS 5

struct help_checkpoint {
	struct tpd_catalog_checkpoint c;
	struct tpd_catalog_file files[HELP_FILES];
	struct tpd_catalog_tensor tensors[HELP_TENSORS];
	char id[65], ref[65], w1[65];
};

/* An id whose digits tell run, step and version to whoever looks at a failed test. */
static TPD_UNUSED void help_id(char out[65], unsigned run, uint64_t step, uint32_t version)
{
	snprintf(out, 65, "%08x%06llx%02x%048x", run * 2654435761u, (unsigned long long)step & 0xffffff, version & 0xff,
		 0xabcdu);
}

static TPD_UNUSED struct tpd_sparsity help_stats(uint64_t seed, bool has_delta)
{
	struct tpd_sparsity s = {
		.count = 1000 + seed,
		.nan = 1,
		.inf = 2,
		.value_min = -1.5,
		.value_max = 2.25,
		.value_rms = 0.5,
	};

	if (!has_delta)
		return s;
	s.has_delta = true;
	s.pairs = 997 + seed;
	s.zeros = 10 + seed;
	for (unsigned i = 0; i < TPD_SPARSITY_REAL; i++) {
		s.raw[i] = 100 * (i + 1) + seed;
		s.minmax[i] = 50 * (i + 1) + seed;
	}
	for (unsigned i = 0; i < TPD_SPARSITY_ULPS; i++)
		s.ulps[i] = 20 * (i + 1) + seed;
	s.delta_min = -0.125;
	s.delta_max = 0.25;
	s.delta_rms = 0.0625;
	s.percentile_stride = 16;
	for (unsigned i = 0; i < TPD_SPARSITY_PCTS; i++)
		s.percentile[i] = 0.1 + 0.01 * i;
	s.gap_count = 50;
	s.gap_elias_bits = 9.5;
	s.gap_rice_bits = 7.25;
	s.gap_entropy = 6.75;
	return s;
}

/* base and w1 are the step `of`; 0: a keyframe. run_number gives the id. */
static TPD_UNUSED void help_make(struct help_checkpoint *h, const char *run, unsigned run_number, uint64_t step,
				 uint32_t version, uint64_t of)
{
	static const char sha[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

	*h = (struct help_checkpoint){ 0 };
	help_id(h->id, run_number, step, version);
	help_id(h->ref, run_number, of, 1);
	help_id(h->w1, run_number, of, 1);
	h->files[0] = (struct tpd_catalog_file){ "latest", "symlink", NULL, "model.safetensors", 0777, -5, 0, 0, NULL };
	h->files[1] = (struct tpd_catalog_file){ "model.safetensors", "file",      "safetensors", NULL, 0644,
						 1700000000000000001, 4096 + step, 1024,          sha };
	h->files[2] = (struct tpd_catalog_file){ "optimizer.pt", "file", "torch", NULL, 0600, 17, 8192, 4096, sha };
	h->tensors[0] = (struct tpd_catalog_tensor){ "", 1, 0, "BYTES", "zstd", NULL, 96, 40, false, { 0 } };
	h->tensors[1] = (struct tpd_catalog_tensor){ "model.layers.3.mlp.up_proj.weight",
						     1,
						     1,
						     "F32",
						     "grid",
						     "[10,100]",
						     4000,
						     900,
						     true,
						     help_stats(step, of > 0) };
	h->tensors[2] = (struct tpd_catalog_tensor){ "lm_head.weight", 1,    2,  "BF16", "sparse",
						     "[1000]",         2000, 84, true,   help_stats(2 * step, of > 0) };
	h->tensors[3] = (struct tpd_catalog_tensor){ "", 2, 0, "BYTES", "zstd", NULL, 192, 96, false, { 0 } };
	h->tensors[4] = (struct tpd_catalog_tensor){ "data/12", 2, 1, "F32", "grid", NULL, 8000, 4000, false, { 0 } };
	h->c = (struct tpd_catalog_checkpoint){
		.id = h->id,
		.run = run,
		.kind = "dir",
		.source = "/train/run/checkpoint",
		.step = step,
		.version = version,
		.created_ns = 1700000000000000000 + (int64_t)step,
		.size = 12288 + step,
		.stored = 5120,
		.depth = of > 0,
		.ref_id = of ? h->ref : NULL,
		.w1_id = of ? h->w1 : NULL,
		.w1_step = of,
		.files = h->files,
		.file_count = HELP_FILES,
		.tensors = h->tensors,
		.tensor_count = HELP_TENSORS,
	};
}

static TPD_UNUSED struct tpd_catalog *help_open_catalog(const struct tpd_io *io, enum tpd_catalog_mode mode)
{
	struct tpd_catalog *catalog = NULL;
	struct tpd_err err = { 0 };

	ck_assert_msg(tpd_catalog_open(io, help_path, mode, 0, &catalog, &err) == TPD_OK, "%s", err.text);
	return catalog;
}

static TPD_UNUSED void help_put(struct tpd_catalog *catalog, const char *run, unsigned run_number, uint64_t step,
				uint32_t version, uint64_t of)
{
	struct help_checkpoint h;
	struct tpd_err err = { 0 };

	help_make(&h, run, run_number, step, version, of);
	ck_assert_msg(tpd_catalog_put(catalog, &h.c, &err) == TPD_OK, "%s", err.text);
}

#endif
