/*
 * t_store_open.c - the store directory: made, opened, told from what is none.
 */
#include "base/tpd.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store_help.h"

START_TEST(made_and_opened)
{
	struct tpd_store *store = NULL, *other = NULL;
	struct tpd_buf format;

	ck_assert_int_eq(tpd_store_open(io, path, TPD_STORE_READ, 0, &store, &err), TPD_NOT_FOUND);
	ck_assert_ptr_nonnull(strstr(err.text, "there is no store '"));
	ck_assert_int_eq(tpd_store_open(io, path, TPD_STORE_WRITE, 0, &store, &err), TPD_NOT_FOUND);
	store = open_store(TPD_STORE_CREATE);
	ck_assert_str_eq(tpd_store_path(store), path);
	ck_assert_ptr_eq(tpd_store_io(store), io);
	ck_assert_int_ge(tpd_store_dir(store), 0);
	ck_assert(exists("format") && exists("lock") && exists("refs") && exists("objects") && exists("ingest"));
	format = get("format");
	ck_assert_uint_eq(format.len, 12 + 3 + 32 + 1);
	ck_assert_mem_eq(format.data, "tpd-store 1\nid ", 15);
	tpd_store_close(store);
	store = open_store(TPD_STORE_CREATE); /* again: the same one */
	other = open_store(TPD_STORE_READ);
	tpd_store_close(other);
	tpd_store_close(store);
	{
		struct tpd_buf again = get("format");

		ck_assert_mem_eq(again.data, format.data, format.len);
		tpd_buf_release(&again);
	}
	tpd_buf_release(&format);
}
END_TEST

START_TEST(places_and_missing_pieces)
{
	struct tpd_store *store = NULL;

	strcat(path, "/a");
	ck_assert_int_eq(tpd_store_open(io, path, TPD_STORE_CREATE, 0, &store, &err), TPD_NOT_FOUND); /* a mistake, most likely */
	ck_assert_ptr_nonnull(strstr(err.text, "there is no directory"));
	ck_assert(!exists("."));
	ck_assert_int_eq(io->mkdir(io, dir, "s", 0755), 0);
	store = open_store(TPD_STORE_CREATE);
	tpd_store_close(store);
	ck_assert(exists("a/format"));
	ck_assert_int_eq(tpd_io_remove_tree(io, dir, "s/a/refs", NULL), TPD_OK);
	store = open_store(TPD_STORE_WRITE);
	tpd_store_close(store);
	ck_assert(exists("a/refs"));
}
END_TEST

START_TEST(foreign_directories_are_refused)
{
	struct tpd_store *store = NULL;
	char want[200];

	ck_assert_int_eq(io->mkdir(io, dir, "s", 0755), 0);
	snprintf(want, sizeof(want), "'%s' is not a tpded store", path);
	ck_assert_int_eq(tpd_store_open(io, path, TPD_STORE_READ, 0, &store, &err), TPD_NOT_FOUND);
	ck_assert_str_eq(err.text, want);
	put("thesis.tex", "x", 1);
	ck_assert_int_eq(tpd_store_open(io, path, TPD_STORE_CREATE, 0, &store, &err), TPD_USAGE);
	ck_assert_ptr_nonnull(strstr(err.text, "is not empty and not a tpded store"));
	ck_assert_uint_eq(entries_in("."), 1); /* nothing was made */
	put("format", "PNG", 3);
	ck_assert_int_eq(tpd_store_open(io, path, TPD_STORE_CREATE, 0, &store, &err), TPD_NOT_FOUND);
	ck_assert_str_eq(err.text, want);
	ck_assert_int_eq(io->unlink(io, dir, "s/format"), 0);
	ck_assert_int_eq(io->unlink(io, dir, "s/thesis.tex"), 0);
	/* What mkfs and a crash of ours leave is no obstacle. */
	put(".tmp-1-2", "x", 1);
	ck_assert_int_eq(io->mkdir(io, dir, "s/lost+found", 0700), 0);
	tpd_store_close(open_store(TPD_STORE_CREATE));
	/* A file in the store's place */
	strcat(path, "/format");
	ck_assert_int_eq(tpd_store_open(io, path, TPD_STORE_READ, 0, &store, &err), TPD_NOT_FOUND);
	ck_assert_ptr_nonnull(strstr(err.text, "is not a directory"));
}
END_TEST

/* What is lost is one file of two lines, not the store. */
START_TEST(a_lost_format_is_named)
{
	static const enum tpd_store_flags modes[] = {TPD_STORE_READ, TPD_STORE_WRITE, TPD_STORE_CREATE};
	static const char again[] = "tpd-store 1\nid 0123456789abcdef0123456789abcdef\n";
	struct tpd_store *store = NULL;

	tpd_store_close(open_store(TPD_STORE_CREATE));
	for (unsigned damaged = 0; damaged < 2; damaged++) {
		ck_assert_int_eq(io->unlink(io, dir, "s/format"), 0);
		if (damaged)
			put("format", "tpd-store ", 10);
		for (size_t m = 0; m < TPD_ARRAY_LEN(modes); m++) {
			ck_assert_int_eq(tpd_store_open(io, path, modes[m], 0, &store, &err), TPD_CORRUPT);
			ck_assert_ptr_nonnull(strstr(err.text, "write two lines there"));
		}
		if (damaged)
			ck_assert_int_eq(io->unlink(io, dir, "s/format"), 0);
		put("format", again, sizeof(again) - 1);
		tpd_store_close(open_store(TPD_STORE_WRITE));
	}
}
END_TEST

/* Its directories have names that a store's have too. Whoever wrote `format` there would let us write into it. */
START_TEST(a_repository_is_no_store)
{
	static const enum tpd_store_flags modes[] = {TPD_STORE_READ, TPD_STORE_WRITE, TPD_STORE_CREATE};
	struct tpd_store *store = NULL;

	ck_assert_int_eq(io->mkdir(io, dir, "s", 0755), 0);
	ck_assert_int_eq(io->mkdir(io, dir, "s/objects", 0755), 0);
	ck_assert_int_eq(io->mkdir(io, dir, "s/refs", 0755), 0);
	put("HEAD", "ref: refs/heads/main\n", 21);
	for (size_t m = 0; m < TPD_ARRAY_LEN(modes); m++) {
		ck_assert_int_eq(tpd_store_open(io, path, modes[m], 0, &store, &err), modes[m] == TPD_STORE_CREATE ? TPD_USAGE : TPD_NOT_FOUND);
		ck_assert_ptr_nonnull(strstr(err.text, "not a tpded store"));
		ck_assert_uint_eq(entries_in("."), 3);
	}
	/* But what is left of a store is one, though a copy may have lost `lock`, or directories in which there was nothing. */
	put("lock", "", 0);
	ck_assert_int_eq(tpd_store_open(io, path, TPD_STORE_READ, 0, &store, &err), TPD_CORRUPT);
	ck_assert_int_eq(io->unlink(io, dir, "s/lock"), 0);
	ck_assert_int_eq(io->mkdir(io, dir, "s/ingest", 0755), 0);
	ck_assert_int_eq(tpd_store_open(io, path, TPD_STORE_READ, 0, &store, &err), TPD_CORRUPT);
}
END_TEST

/* As if another process made the store between our first look and the next: it is not there yet, and then all of it is. */
static int open_too_early(const struct tpd_io *with, int at, const char *name, int flags, mode_t mode)
{
	unsigned *early = with->context;

	if (strcmp(name, "format") == 0 && *early > 0) {
		--*early;
		return -ENOENT;
	}
	return io->open(io, at, name, flags, mode);
}

START_TEST(two_make_one_store)
{
	unsigned early = 1;
	struct tpd_io with = *io;
	struct tpd_store *store = NULL;

	tpd_store_close(open_store(TPD_STORE_CREATE));
	with.context = &early;
	with.open = open_too_early;
	ck_assert_msg(tpd_store_open(&with, path, TPD_STORE_CREATE, 0, &store, &err) == TPD_OK, "%s", err.text);
	tpd_store_close(store);
	ck_assert_uint_eq(early, 0);
	early = 2; /* it is really lost */
	ck_assert_int_eq(tpd_store_open(&with, path, TPD_STORE_CREATE, 0, &store, &err), TPD_CORRUPT);
	ck_assert_ptr_nonnull(strstr(err.text, "write two lines there"));
}
END_TEST

static const struct {
	const char *text;
	enum tpd_status expect;
} formats[] = {
	{"tpd-store 1\nid 0123456789abcdef0123456789abcdef\n", TPD_OK},
	{"tpd-store 2\nid 0123456789abcdef0123456789abcdef\n", TPD_UNSUPPORTED},
	{"tpd-store 2\nwhatever version 2 has\n", TPD_UNSUPPORTED},
	{"tpd-store 99999999999999999999999\n", TPD_UNSUPPORTED},
	{"tpd-store 0\nid 0123456789abcdef0123456789abcdef\n", TPD_CORRUPT},
	{"tpd-store 1", TPD_CORRUPT},
	{"tpd-store 1\n", TPD_CORRUPT},
	{"tpd-store \n", TPD_CORRUPT},
	{"tpd-store -1\n", TPD_CORRUPT},
	{"tpd-store 1\nid 0123456789abcdef0123456789abcdef", TPD_CORRUPT},
	{"tpd-store 1\nid 0123456789abcdef0123456789abcdeg\n", TPD_CORRUPT},
	{"tpd-store 1\nid 0123456789abcdef0123456789abcdef\n\n", TPD_CORRUPT},
	{"tpd-store 1\nID 0123456789abcdef0123456789abcdef\n", TPD_CORRUPT},
	{"", TPD_NOT_FOUND},
	{"tpd", TPD_NOT_FOUND},
	{"something else\n", TPD_NOT_FOUND},
};

START_TEST(formats_are_told_apart)
{
	struct tpd_store *store = NULL;
	enum tpd_status status;

	ck_assert_int_eq(io->mkdir(io, dir, "s", 0755), 0);
	put("format", formats[_i].text, strlen(formats[_i].text));
	status = tpd_store_open(io, path, TPD_STORE_CREATE, 0, &store, &err);
	ck_assert_msg(status == formats[_i].expect, "'%s': %s %s", formats[_i].text, tpd_status_name(status), err.text);
	if (!status)
		tpd_store_close(store);
	if (_i == 1) {
		char want[200];

		snprintf(want, sizeof(want), "store '%s' has version 2; this tpded reads version 1", path);
		ck_assert_str_eq(err.text, want);
	}
}
END_TEST

/* A user with read permission only, and a copy without even a lock file. */
static int read_as_nobody(void)
{
	struct tpd_store *store = NULL;
	struct tpd_run run = {0};
	struct tpd_manifest m = {0};
	struct tpd_run_lock *lock = NULL;
	int fails = 0;

	if (geteuid() == 0 && (setegid(NOBODY) || seteuid(NOBODY)))
		return 1;
	fails |= (tpd_store_open(io, path, TPD_STORE_READ, 0, &store, &err) != TPD_OK) << 1;
	if (fails)
		return fails;
	fails |= (tpd_store_run_read(store, RUN, &run, &err) != TPD_OK) << 2;
	fails |= (run.count != 1 || tpd_store_manifest(store, &run.versions[0].id, &m, &err) != TPD_OK) << 3;
	fails |= (tpd_store_run_lock(store, RUN, 0, &lock, &err) != TPD_USAGE) << 4;
	fails |= (tpd_store_lock_daemon(store, &err) != TPD_USAGE) << 5;
	tpd_run_release(&run);
	tpd_manifest_release(&m);
	tpd_store_close(store);
	fails |= (tpd_store_open(io, path, TPD_STORE_WRITE, 0, &store, &err) != TPD_IO) << 6;
	fails |= (err.sys != EACCES || !strstr(err.text, "/lock'")) << 7;
	return fails;
}

static int in_child(int (*fn)(void))
{
	pid_t pid = fork();
	int status = 0;

	ck_assert_int_ge(pid, 0);
	if (pid == 0)
		_exit(fn());
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFEXITED(status));
	return WEXITSTATUS(status);
}

START_TEST(readers_need_only_read_permission)
{
	struct tpd_store *store = open_store(TPD_STORE_CREATE);
	struct tpd_run_lock *lock = lock_run(store, RUN);

	must_store(lock, RUN, 10, 1, 1);
	tpd_store_run_unlock(lock);
	tpd_store_close(store);
	if (geteuid() != 0) { /* the owner can be kept out of his own files */
		ck_assert_int_eq(chmod(path, 0555), 0);
		snprintf(path + strlen(path), 8, "/lock");
		ck_assert_int_eq(chmod(path, 0444), 0);
		path[strlen(path) - 5] = 0;
	}
	ck_assert_int_eq(in_child(read_as_nobody), 0);
	if (geteuid() != 0)
		ck_assert_int_eq(chmod(path, 0755), 0);
	ck_assert_int_eq(io->unlink(io, dir, "s/lock"), 0);
	store = open_store(TPD_STORE_READ);
	ck_assert(!exists("lock"));
	tpd_store_close(store);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("store open");
	TCase *tests = tcase_create("store open");
	SRunner *runner = srunner_create(suite);
	int failed;

	suite_add_tcase(suite, tests);
	tcase_add_checked_fixture(tests, set_up, tear_down);
	tcase_set_timeout(tests, 300);
	tcase_add_test(tests, made_and_opened);
	tcase_add_test(tests, places_and_missing_pieces);
	tcase_add_test(tests, foreign_directories_are_refused);
	tcase_add_test(tests, a_lost_format_is_named);
	tcase_add_test(tests, a_repository_is_no_store);
	tcase_add_test(tests, two_make_one_store);
	tcase_add_loop_test(tests, formats_are_told_apart, 0, (int)TPD_ARRAY_LEN(formats));
	tcase_add_test(tests, readers_need_only_read_permission);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
