/*
 * t_catalog_faults.c - the catalog when others hold it, when the disk fails, when its writer is killed, and when it may
 * not be written.
 *
 * Each fault is tried at every call that a put makes.  Afterwards the catalog is what it was before or what the
 * put wanted, told apart by dumps of both; and whoever comes next, the sqlite3 shell or we, reads it.
 */
#include "base/tpd.h"

#include "catalog/catalog.h"

#include <pthread.h>

#include "catalog_help.h"

/* --- others --- */

START_TEST(a_second_writer_waits_or_is_told)
{
	struct tpd_catalog *a = help_open_catalog(tpd_io_posix(), TPD_CATALOG_WRITE), *b;
	struct tpd_catalog *c = help_open_catalog(tpd_io_posix(), TPD_CATALOG_READ);
	struct help_checkpoint h;
	struct tpd_err err;
	char expected[256];

	ck_assert_int_eq(tpd_catalog_open(tpd_io_posix(), help_path, TPD_CATALOG_WRITE, 50, &b, &err), TPD_OK);
	ck_assert_int_eq(tpd_catalog_begin(a, &err), TPD_OK);
	help_put(a, "run", 1, 10, 1, 0);
	help_make(&h, "run", 1, 20, 1, 0);
	ck_assert_int_eq(tpd_catalog_put(b, &h.c, &err), TPD_BUSY);
	snprintf(expected, sizeof expected, "catalog '%s' is locked by somebody else", help_path);
	ck_assert_str_eq(err.text, expected);
	ck_assert_int_eq(tpd_catalog_begin(b, &err), TPD_BUSY);
	ck_assert(!tpd_catalog_has(c, h.id)); /* readers go on */
	help_shell_says("SELECT count(*) FROM checkpoints", "0\n");
	ck_assert_int_eq(tpd_catalog_commit(a, &err), TPD_OK);
	ck_assert_int_eq(tpd_catalog_put(b, &h.c, &err), TPD_OK);
	help_shell_says("SELECT count(*) FROM checkpoints", "2\n"); /* beside three open handles */
	ck_assert(tpd_catalog_has(c, h.id));
	tpd_catalog_close(a);
	tpd_catalog_close(b);
	tpd_catalog_close(c);
}
END_TEST

static enum tpd_status put_from_here(void *arg, TPD_UNUSED const struct tpd_catalog_row *row, struct tpd_err *err)
{
	struct help_checkpoint h;

	help_make(&h, "run", 1, 20, 1, 0);
	return tpd_catalog_put(arg, &h.c, err);
}

/* A reader in the middle of its rows keeps a writer from committing, and the writer's handle is sound after that. */
START_TEST(a_reader_holds_up_a_commit)
{
	struct tpd_catalog *a = help_open_catalog(tpd_io_posix(), TPD_CATALOG_WRITE);
	struct tpd_catalog *b = help_open_catalog(tpd_io_posix(), TPD_CATALOG_READ);
	struct tpd_err err;

	help_put(a, "run", 1, 10, 1, 0);
	ck_assert_int_eq(tpd_catalog_list(b, NULL, put_from_here, a, &err), TPD_BUSY);
	help_shell_says("SELECT count(*) FROM checkpoints", "1\n");
	help_put(a, "run", 1, 20, 1, 10);
	tpd_catalog_close(a);
	tpd_catalog_close(b);
}
END_TEST

/* Two processes put at the same time, each with patience. */
START_TEST(two_processes)
{
	pid_t pids[2];
	struct tpd_catalog *catalog = help_open_catalog(tpd_io_posix(), TPD_CATALOG_WRITE);

	tpd_catalog_close(catalog);
	for (unsigned p = 0; p < 2; p++) {
		pids[p] = fork();
		if (pids[p] == 0) {
			struct help_checkpoint h;

			if (tpd_catalog_open(tpd_io_posix(), help_path, TPD_CATALOG_WRITE, -1, &catalog, NULL) !=
			    TPD_OK)
				_exit(1);
			for (uint64_t step = 1; step <= 20; step++) {
				help_make(&h, p ? "one" : "zero", p, step, 1, 0);
				if (tpd_catalog_put(catalog, &h.c, NULL) != TPD_OK)
					_exit(2);
			}
			tpd_catalog_close(catalog);
			_exit(0);
		}
	}
	for (unsigned p = 0; p < 2; p++) {
		int status;

		ck_assert_int_eq(waitpid(pids[p], &status, 0), pids[p]);
		ck_assert_int_eq(status, 0);
	}
	help_shell_says(
		"SELECT run, count(*) FROM checkpoints GROUP BY run; PRAGMA integrity_check; PRAGMA foreign_key_check",
		"one|20\nzero|20\nok\n");
}
END_TEST

static void *put_in_thread(void *arg)
{
	const unsigned *number = arg;

	for (uint64_t step = 1; step <= 20; step++) {
		struct tpd_catalog *catalog;
		struct help_checkpoint h;
		enum tpd_status status;

		if (tpd_catalog_open(tpd_io_posix(), help_path, TPD_CATALOG_WRITE, -1, &catalog, NULL) != TPD_OK)
			return arg;
		help_make(&h, *number ? "one" : "zero", *number, step, 1, 0);
		status = tpd_catalog_put(catalog, &h.c, NULL);
		tpd_catalog_close(catalog);
		if (status != TPD_OK)
			return arg;
	}
	return NULL;
}

/* Two threads of one process, each with handles of its own, exclude one another as processes do. */
START_TEST(two_threads)
{
	unsigned numbers[2] = { 0, 1 };
	pthread_t threads[2];

	for (unsigned i = 0; i < 2; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, put_in_thread, &numbers[i]), 0);
	for (unsigned i = 0; i < 2; i++) {
		void *failed;

		ck_assert_int_eq(pthread_join(threads[i], &failed), 0);
		ck_assert_ptr_null(failed);
	}
	help_shell_says("SELECT run, count(*) FROM checkpoints GROUP BY run; PRAGMA integrity_check",
			"one|20\nzero|20\nok\n");
}
END_TEST

/* --- a disk that fails --- */

static char *before, *after; /* dumps */

/* A catalog with something in it, and the dumps of it without and with what put_second() adds. */
static void put_second(struct help_checkpoint *h)
{
	help_make(h, "run", 1, 20, 1, 10);
	h->c.stored = 999; /* it is there already, with another number */
}

static char *copy_path(void)
{
	static char path[128];

	snprintf(path, sizeof path, "%s/copy", help_root);
	return path;
}

static void copy_file(const char *from, const char *to)
{
	uint8_t *data;
	size_t len;
	FILE *f;

	ck_assert_int_eq(tpd_io_read_file(tpd_io_posix(), AT_FDCWD, from, 1 << 24, &data, &len, NULL), TPD_OK);
	f = fopen(to, "w");
	ck_assert_ptr_nonnull(f);
	ck_assert_uint_eq(fwrite(data, 1, len, f), len);
	ck_assert_int_eq(fclose(f), 0);
	free(data);
}

static void start(void)
{
	struct tpd_catalog *catalog;
	struct help_checkpoint h;

	help_set_up();
	catalog = help_open_catalog(tpd_io_posix(), TPD_CATALOG_WRITE);
	for (uint64_t step = 10; step <= 30; step += 10)
		help_put(catalog, "run", 1, step, 1, step > 10 ? 10 : 0);
	copy_file(help_path, copy_path());
	before = help_shell(".dump");
	put_second(&h);
	ck_assert_int_eq(tpd_catalog_put(catalog, &h.c, NULL), TPD_OK);
	tpd_catalog_close(catalog);
	after = help_shell(".dump");
	ck_assert_str_ne(before, after);
}

static void start_again(void)
{
	unlink(help_journal);
	copy_file(copy_path(), help_path);
}

static void finish(void)
{
	free(before);
	free(after);
	help_tear_down();
}

/* Open with `io` and put; the status of the first that failed. */
static enum tpd_status put_with(const struct tpd_io *io, struct tpd_err *err)
{
	struct tpd_catalog *catalog;
	struct help_checkpoint h;
	enum tpd_status status = tpd_catalog_open(io, help_path, TPD_CATALOG_WRITE, 0, &catalog, err);

	if (status != TPD_OK)
		return status;
	put_second(&h);
	status = tpd_catalog_put(catalog, &h.c, err);
	tpd_catalog_close(catalog);
	return status;
}

static void check_dump(bool must_be_after, long call)
{
	char *dump = help_shell("PRAGMA integrity_check;\" .dump \"");

	ck_assert_msg(strncmp(dump, "ok\n", 3) == 0, "call %ld: %.200s", call, dump);
	ck_assert_msg(strcmp(dump + 3, after) == 0 || (!must_be_after && strcmp(dump + 3, before) == 0), "call %ld",
		      call);
	free(dump);
}

static const struct {
	int sys;
	bool for_good;
} faults[] = { { EIO, false }, { EIO, true }, { ENOSPC, false }, { ENOSPC, true } };

START_TEST(every_call_fails)
{
	struct help_io io;
	long call, refused = 0;

	for (call = 1;; call++) {
		struct tpd_err err = { 0 };
		enum tpd_status status;

		start_again();
		help_io_init(&io);
		io.fail_at = call;
		io.fail_with = faults[_i].sys;
		io.for_good = faults[_i].for_good;
		status = put_with(&io.table, &err);
		if (io.calls < call) { /* it got by without that call */
			ck_assert_int_eq(status, TPD_OK);
			break;
		}
		if (status != TPD_OK) {
			refused++;
			ck_assert_msg(status == TPD_IO && err.sys == faults[_i].sys, "call %ld: %s", call, err.text);
			ck_assert_msg(strncmp(err.text, "cannot ", 7) == 0, "%s", err.text);
			ck_assert_ptr_nonnull(strstr(err.text, help_path));
			ck_assert_ptr_nonnull(strstr(err.text, strerror(faults[_i].sys)));
		}
		check_dump(status == TPD_OK, call);
		/* The next handle is not affected. */
		ck_assert_int_eq(put_with(tpd_io_posix(), NULL), TPD_OK);
		if (call % 8 == 0)
			check_dump(true, call);
	}
	ck_assert_int_gt(call, 30);
	ck_assert_int_gt(refused, call / 2);
}
END_TEST

START_TEST(every_call_of_the_creation_fails)
{
	struct help_io io;
	long call;
	char *fresh;

	unlink(help_path);
	tpd_catalog_close(help_open_catalog(tpd_io_posix(), TPD_CATALOG_WRITE));
	fresh = help_shell(".dump");
	for (call = 1;; call++) {
		struct tpd_catalog *catalog;
		struct tpd_err err = { 0 };
		enum tpd_status status;
		char *dump;

		unlink(help_path);
		unlink(help_journal);
		help_io_init(&io);
		io.fail_at = call;
		io.fail_with = faults[_i].sys;
		io.for_good = faults[_i].for_good;
		status = tpd_catalog_open(&io.table, help_path, TPD_CATALOG_WRITE, 0, &catalog, &err);
		if (status == TPD_OK)
			tpd_catalog_close(catalog);
		if (io.calls < call)
			break;
		if (status != TPD_OK)
			ck_assert_msg(status == TPD_IO && err.sys == faults[_i].sys, "call %ld: %s", call, err.text);
		tpd_catalog_close(help_open_catalog(tpd_io_posix(), TPD_CATALOG_WRITE));
		dump = help_shell(".dump");
		ck_assert_str_eq(dump, fresh);
		free(dump);
	}
	ck_assert_int_gt(call, 30);
	free(fresh);
}
END_TEST

/* --- a writer that is killed --- */

/* A child dies at the given call of its put; false when it came through without that many. */
static bool die_at(long call)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		struct help_io io;

		help_io_init(&io);
		io.fail_at = call;
		_exit(put_with(&io.table, NULL) == TPD_OK ? 0 : 1);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 9));
	return WEXITSTATUS(status) == 9;
}

START_TEST(killed_at_every_call)
{
	long call, hot = 0;

	for (call = 1; start_again(), die_at(call); call++) {
		bool journal = access(help_journal, F_OK) == 0;

		if (_i == 0) { /* we come next, for reading */
			struct tpd_catalog *catalog = help_open_catalog(tpd_io_posix(), TPD_CATALOG_READ);
			struct tpd_catalog_totals totals;

			ck_assert_int_eq(tpd_catalog_totals(catalog, &totals, NULL), TPD_OK);
			ck_assert_uint_eq(totals.checkpoints, 3);
			hot += journal && access(help_journal, F_OK) != 0;
			tpd_catalog_close(catalog);
		}
		check_dump(false, call); /* the shell comes next */
		ck_assert_int_eq(put_with(tpd_io_posix(), NULL), TPD_OK);
		if (call % 8 == 0)
			check_dump(true, call);
	}
	ck_assert_int_gt(call, 30);
	if (_i == 0)
		ck_assert_int_gt(hot, 3); /* there was something to roll back */
}
END_TEST

/* A transaction larger than the cache spills pages into the database before it commits. */
START_TEST(killed_in_a_large_transaction)
{
	char *dump;

	start_again();
	for (long call = 3000; call < 3100; call += 37) {
		int status;
		pid_t pid = fork();

		if (pid == 0) {
			struct tpd_catalog *catalog;
			struct help_checkpoint h;
			struct help_io io;

			help_io_init(&io);
			io.fail_at = call;
			if (tpd_catalog_open(&io.table, help_path, TPD_CATALOG_WRITE, 0, &catalog, NULL) != TPD_OK ||
			    tpd_catalog_begin(catalog, NULL) != TPD_OK || tpd_catalog_clear(catalog, NULL) != TPD_OK)
				_exit(1);
			for (uint64_t step = 1;; step++) {
				help_make(&h, "large", 2, step, 1, 0);
				if (tpd_catalog_put(catalog, &h.c, NULL) != TPD_OK)
					_exit(2);
			}
		}
		ck_assert_int_eq(waitpid(pid, &status, 0), pid);
		ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 9);
		ck_assert_int_eq(access(help_journal, F_OK), 0);
		if (call % 2)
			tpd_catalog_close(help_open_catalog(tpd_io_posix(), TPD_CATALOG_READ));
		dump = help_shell(".dump");
		ck_assert_str_eq(dump, before);
		free(dump);
		ck_assert_int_ne(access(help_journal, F_OK), 0);
	}
}
END_TEST

/* --- somebody without the right to write --- */

static int read_as_nobody(char text[TPD_ERR_TEXT])
{
	struct tpd_catalog *catalog;
	struct tpd_catalog_totals totals;
	struct tpd_err err = { 0 };
	enum tpd_status status;

	if (geteuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0))
		return 100;
	status = tpd_catalog_open(tpd_io_posix(), help_path, TPD_CATALOG_READ, 0, &catalog, &err);
	if (status == TPD_OK) {
		status = tpd_catalog_totals(catalog, &totals, &err);
		tpd_catalog_close(catalog);
		if (status == TPD_OK && totals.checkpoints != 3)
			return 101;
	}
	memcpy(text, err.text, sizeof err.text);
	if (tpd_catalog_open(tpd_io_posix(), help_path, TPD_CATALOG_WRITE, 0, &catalog, &err) != TPD_IO)
		return 102;
	if (!strstr(err.text, "cannot open catalog") || !strstr(err.text, "Permission denied"))
		return 103;
	return -(int)status;
}

static int as_nobody(char text[TPD_ERR_TEXT])
{
	int ends[2], status;
	pid_t pid;

	ck_assert_int_eq(pipe(ends), 0);
	pid = fork();
	if (pid == 0) {
		char message[TPD_ERR_TEXT] = "";
		int rc = read_as_nobody(message);

		_exit(write(ends[1], message, sizeof message) == (ssize_t)sizeof message ? rc : 104);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(read(ends[0], text, TPD_ERR_TEXT), TPD_ERR_TEXT);
	close(ends[0]);
	close(ends[1]);
	ck_assert(WIFEXITED(status));
	return WEXITSTATUS(status);
}

START_TEST(reading_without_the_right_to_write)
{
	char text[TPD_ERR_TEXT], expected[TPD_ERR_TEXT];
	struct tpd_catalog *writer;

	ck_assert_int_eq(chmod(help_path, 0444), 0);
	ck_assert_int_eq(chmod(help_root, 0555), 0);
	ck_assert_int_eq(as_nobody(text), 0);
	ck_assert_int_eq(chmod(help_path, 0644), 0);
	ck_assert_int_eq(chmod(help_root, 0755), 0);
	if (geteuid() != 0)
		return; /* as ourselves we could write below */
	writer = help_open_catalog(tpd_io_posix(), TPD_CATALOG_WRITE);
	ck_assert_int_eq(tpd_catalog_begin(writer, NULL), TPD_OK);
	ck_assert_int_eq(tpd_catalog_clear(writer, NULL), TPD_OK);
	ck_assert_int_eq(as_nobody(text), 0); /* beside a living writer */
	tpd_catalog_close(writer);
	/* beside what a dead one left */
	start_again();
	for (long call = 100; call > 0; call--) {
		start_again();
		if (die_at(call) && access(help_journal, F_OK) == 0 && as_nobody(text) != 0)
			break;
	}
	ck_assert_int_eq(as_nobody(text), -TPD_IO);
	snprintf(expected, sizeof expected,
		 "cannot read catalog '%s': a writer died in the middle of a change, and to undo it needs the right to "
		 "write there",
		 help_path);
	ck_assert_str_eq(text, expected);
	check_dump(false, 0); /* root may, and did */
	ck_assert_int_eq(as_nobody(text), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("catalog_faults");
	TCase *tcase = tcase_create("others"), *disk = tcase_create("disk");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_checked_fixture(tcase, help_set_up, help_tear_down);
	tcase_add_test(tcase, a_second_writer_waits_or_is_told);
	tcase_add_test(tcase, a_reader_holds_up_a_commit);
	tcase_add_test(tcase, two_processes);
	tcase_add_test(tcase, two_threads);
	tcase_set_timeout(tcase, 60);
	suite_add_tcase(suite, tcase);
	tcase_add_checked_fixture(disk, start, finish);
	tcase_add_loop_test(disk, every_call_fails, 0, TPD_ARRAY_LEN(faults));
	tcase_add_loop_test(disk, every_call_of_the_creation_fails, 0, TPD_ARRAY_LEN(faults));
	tcase_add_loop_test(disk, killed_at_every_call, 0, 2);
	tcase_add_test(disk, killed_in_a_large_transaction);
	tcase_add_test(disk, reading_without_the_right_to_write);
	tcase_set_timeout(disk, 120);
	suite_add_tcase(suite, disk);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
