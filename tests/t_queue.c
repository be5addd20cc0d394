/* t_queue.c - whose turn it is. */
#include "base/tpd.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/queue.h"
#include "files.h"

static struct tpd_queue queue;
static const char *refused; /* a run that is not ready */

static struct tpd_queue_item *put(const char *run, uint64_t step, int64_t number)
{
	struct tpd_queue_item *item = tpd_queue_item_new(run, "/p", step, "fingerprint");

	ck_assert_ptr_nonnull(item);
	item->number = number;
	tpd_queue_put(&queue, item);
	return item;
}

static bool ready(TPD_UNUSED void *arg, const struct tpd_queue_item *item)
{
	return !refused || strcmp(item->run, refused) != 0;
}

/* Takes the next item; its number, or 0 for none. */
static int64_t take(uint64_t now, uint64_t *due)
{
	struct tpd_queue_item *item = tpd_queue_take(&queue, now, ready, NULL, due);
	int64_t number = item ? item->number : 0;

	tpd_queue_item_free(item);
	return number;
}

START_TEST(order)
{
	static const int64_t wanted[] = {1, 4, 6, 2, 5, 3, 7};
	uint64_t due;

	put("a", 30, 3);
	put("b", 7, 5);
	put("a", 20, 2); /* of one step, the older job first */
	put("a", 30, 7);
	put("b", 5, 4);
	put("c", 1, 6);
	put("a", 10, 1);
	ck_assert_uint_eq(queue.count, 7);
	ck_assert_uint_eq(tpd_queue_find(&queue, 5)->step, 7);
	ck_assert_ptr_null(tpd_queue_find(&queue, 8));
	ck_assert(tpd_queue_has_path(&queue, tpd_queue_find(&queue, 5)->path));
	ck_assert(!tpd_queue_has_path(&queue, "/elsewhere"));
	for (size_t i = 0; i < TPD_ARRAY_LEN(wanted); i++)
		ck_assert_int_eq(take(0, &due), wanted[i]);
	ck_assert_int_eq(take(0, &due), 0);
	ck_assert_uint_eq(due, UINT64_MAX);
	ck_assert_uint_eq(queue.count, 0);
}
END_TEST

START_TEST(retries)
{
	struct tpd_queue_item *item = put("a", 10, 1);
	uint64_t due;

	item->retry_ms = 500;
	item->attempts = 1;
	put("a", 20, 2);
	ck_assert_uint_eq(tpd_queue_retrying(&queue), 1);
	ck_assert_int_eq(take(499, &due), 2); /* does not wait for the first */
	ck_assert_int_eq(take(499, &due), 0);
	ck_assert_uint_eq(due, 500);
	ck_assert_int_eq(take(500, &due), 1);
	ck_assert_uint_eq(tpd_queue_delay_ms(1), 5000);
	ck_assert_uint_eq(tpd_queue_delay_ms(2), 10000);
	ck_assert_uint_eq(tpd_queue_delay_ms(1000), 600000);
}
END_TEST

/* Whose reason for failing is gone does not wait; what it learned stays. */
START_TEST(tried_on_request)
{
	struct tpd_queue_item *item = put("a", 10, 1);
	uint64_t due;

	put("b", 10, 2);
	ck_assert_uint_eq(tpd_queue_retry(&queue, 0), 0);
	ck_assert_uint_eq(tpd_queue_failed(item, 100, "no space"), 5000);
	ck_assert_uint_eq(tpd_queue_failed(item, 100, "no space at all"), 10000);
	ck_assert_str_eq(item->why, "no space at all");
	ck_assert_int_eq(take(10099, &due), 2);
	ck_assert_int_eq(take(10099, &due), 0);
	ck_assert_uint_eq(tpd_queue_retry(&queue, 10099), 1);
	ck_assert_uint_eq(tpd_queue_retry(&queue, 10099), 0);
	ck_assert_uint_eq(item->attempts, 2);
	ck_assert_int_eq(take(10099, &due), 1);
}
END_TEST

START_TEST(not_ready)
{
	uint64_t due;

	put("a", 10, 1);
	put("b", 10, 2);
	refused = "a";
	ck_assert_int_eq(take(0, &due), 2);
	ck_assert_int_eq(take(0, &due), 0);
	refused = NULL;
	ck_assert_int_eq(take(0, &due), 1);
}
END_TEST

START_TEST(held)
{
	struct tpd_queue_item *item = put("a", 10, 1);
	struct tpd_capture *capture = NULL;

	scratch_make();
	checkpoint_make(scratch("checkpoint-10"), 10, 1);
	ck_assert_int_eq(tpd_capture_open(scratch("checkpoint-10"), &capture, NULL), TPD_OK);
	ck_assert_ptr_null(tpd_queue_hold(&queue, item, capture));
	ck_assert_uint_eq(queue.held, 1);
	ck_assert_uint_eq(queue.descriptors, tpd_capture_source(capture)->count);
	ck_assert_ptr_eq(tpd_queue_hold(&queue, item, NULL), capture);
	ck_assert_uint_eq(queue.held + queue.descriptors, 0);
	ck_assert_ptr_null(tpd_queue_hold(&queue, item, capture)); /* released with the queue */
	scratch_remove();
}
END_TEST

static void make(void)
{
	tpd_queue_init(&queue);
	refused = NULL;
}

static void drop(void)
{
	tpd_queue_release(&queue);
}

int main(void)
{
	Suite *suite = suite_create("queue");
	TCase *tests = tcase_create("queue");
	SRunner *runner = srunner_create(suite);
	int failed;

	suite_add_tcase(suite, tests);
	tcase_add_checked_fixture(tests, make, drop);
	tcase_add_test(tests, order);
	tcase_add_test(tests, retries);
	tcase_add_test(tests, tried_on_request);
	tcase_add_test(tests, not_ready);
	tcase_add_test(tests, held);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
