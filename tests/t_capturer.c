/* t_capturer.c - the capturer's thread by itself: whose copy comes first. */
#include "base/tpd.h"

#include <check.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
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

static struct tpd_capture_task *answered(void)
{
	struct tpd_message *message = tpd_mailbox_take(&answers, PATIENCE_MS);
	struct tpd_capture_task *task = (struct tpd_capture_task *)message;

	ck_assert_ptr_nonnull(message);
	ck_assert_msg(task->status == TPD_OK, "%s", task->err.text);
	return task;
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

	scratch_make();
	spool = (struct tpd_spool){.io = tpd_io_posix(), .dir = open(scratch("."), O_RDONLY | O_DIRECTORY)};
	ck_assert_int_ge(spool.dir, 0);
	tpd_mailbox_init(&answers);
	ck_assert_int_eq(tpd_capturer_start(&spool, &answers, deliver, wake, NULL, &capturer, &err), TPD_OK);
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
	tpd_capturer_stop(capturer);
	tpd_mailbox_release(&answers);
	ck_assert_uint_eq(atomic_load(&spool.used), 0);
	close(spool.dir);
	scratch_remove();
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
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
