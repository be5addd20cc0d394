/* t_capturer.c - the capturer's thread by itself: whose copy comes first, and what was not as it was seen. */
#include "base/tpd.h"

#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "daemon/capturer.h"
#include "files.h"

#define LARGE (256u << 20) /* a hole: 64 steps of a copy, and no bytes on the disk that it is read from */
#define PATIENCE_MS 60000

static struct tpd_mailbox answers;
static struct tpd_capturer *capturer;
static struct tpd_spool spool;
static struct tpd_err err;

static void deliver(TPD_UNUSED void *owner, TPD_UNUSED struct tpd_message *message)
{
}

static void wake(TPD_UNUSED void *arg)
{
}

static struct tpd_capture_task *any_answer(void)
{
	struct tpd_message *message = tpd_mailbox_take(&answers, PATIENCE_MS);

	ck_assert_ptr_nonnull(message);
	return (struct tpd_capture_task *)message;
}

static struct tpd_capture_task *answered(void)
{
	struct tpd_capture_task *task = any_answer();

	ck_assert_msg(task->status == TPD_OK, "%s", task->err.text);
	return task;
}

static void start(void)
{
	scratch_make();
	spool = (struct tpd_spool){.io = tpd_io_posix(), .dir = open(scratch("."), O_RDONLY | O_DIRECTORY)};
	ck_assert_int_ge(spool.dir, 0);
	tpd_mailbox_init(&answers);
	ck_assert_int_eq(tpd_capturer_start(&spool, &answers, deliver, wake, NULL, &capturer, &err), TPD_OK);
}

static void end(void)
{
	tpd_capturer_stop(capturer);
	tpd_mailbox_release(&answers);
	ck_assert_uint_eq(atomic_load(&spool.used), 0);
	close(spool.dir);
	scratch_remove();
}

/* A file of this size, opened and to be copied. */
static struct tpd_capture_task *opened(const char *name, off_t size)
{
	struct tpd_capture_task *task = calloc(1, sizeof *task);

	ck_assert_ptr_nonnull(task);
	file_write(scratch("%s", name), "x", 1);
	ck_assert_int_eq(truncate(scratch("%s", name), size), 0);
	task->path = realpath(scratch("%s", name), NULL);
	task->newest_ns = INT64_MAX;
	tpd_capturer_send(capturer, task);
	ck_assert_ptr_eq(answered(), task);
	task->phase = TPD_CAPTURE_WATCH;
	task->copy = true;
	task->spool_max = UINT64_MAX;
	return task;
}

/* It would be written over long before its turn, if it had to wait for the large one. */
START_TEST(a_small_one_passes_a_large_one)
{
	struct tpd_capture_task *large, *small, *first, *second;

	start();
	large = opened("large.pt", LARGE);
	small = opened("small.pt", 200000);
	if (!large->cloned && !small->cloned) {
		tpd_capturer_send(capturer, large);
		tpd_capturer_send(capturer, small);
		first = answered();
		second = answered();
		ck_assert_msg(first == small && second == large, "the large one was copied first");
		ck_assert_uint_eq(tpd_capture_copied(small->capture), 200000);
		ck_assert_uint_eq(tpd_capture_copied(large->capture), LARGE);
		ck_assert_uint_eq(tpd_capture_descriptors(large->capture), 2);
	}
	tpd_capture_task_free(large);
	tpd_capture_task_free(small);
	end();
}
END_TEST

static int64_t changed_ns(const char *path)
{
	struct stat st;

	ck_assert_int_eq(stat(path, &st), 0);
	return (int64_t)st.st_ctim.tv_sec * 1000000000 + st.st_ctim.tv_nsec;
}

/* w/: two files of 1000 bytes that were seen, and one in .cache, which looks leave out. What became of opening it. */
static enum tpd_status status_of_opening(int64_t newest_ns)
{
	struct tpd_capture_task *task = calloc(1, sizeof *task);
	enum tpd_status status;

	ck_assert_ptr_nonnull(task);
	task->path = realpath(scratch("w"), NULL);
	task->newest_ns = newest_ns;
	task->count = 2;
	task->bytes = 2000;
	tpd_capturer_send(capturer, task);
	ck_assert_ptr_eq(any_answer(), task);
	status = task->status;
	tpd_capture_task_free(task);
	return status;
}

START_TEST(not_as_it_was_seen)
{
	const struct timespec old[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
	char bytes[5000] = {1};
	int64_t seen_ns;

	start();
	mkdir(scratch("w"), 0755);
	mkdir(scratch("w/.cache"), 0755);
	file_write(scratch("w/.cache/x"), bytes, sizeof bytes);
	file_write(scratch("w/a"), bytes, 1000);
	file_write(scratch("w/b"), bytes, 1000);
	seen_ns = TPD_MAX(changed_ns(scratch("w/a")), changed_ns(scratch("w/b")));
	ck_assert_int_eq(status_of_opening(seen_ns), TPD_OK);
	/* what looks leave out does not stand for what is gone */
	ck_assert_int_eq(rename(scratch("w/b"), scratch("b")), 0);
	ck_assert_int_eq(status_of_opening(seen_ns), TPD_CONFLICT);
	/* another in its place, with an old time */
	usleep(30000);
	file_write(scratch("w/b"), bytes, 1000);
	ck_assert_int_eq(utimensat(AT_FDCWD, scratch("w/b"), old, 0), 0);
	ck_assert_int_eq(status_of_opening(seen_ns), TPD_CONFLICT);
	ck_assert_int_eq(status_of_opening(changed_ns(scratch("w/b"))), TPD_OK);
	end();
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("capturer");
	TCase *tests = tcase_create("capturer");
	SRunner *runner = srunner_create(suite);
	int failed;

	suite_add_tcase(suite, tests);
	tcase_set_timeout(tests, 120);
	tcase_add_test(tests, a_small_one_passes_a_large_one);
	tcase_add_test(tests, not_as_it_was_seen);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
