/* t_tips.c - which captures are kept open for the next delta, and which go for them. */
#include "base/tpd.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "daemon/tips.h"
#include "files.h"

static struct tpd_tips tips;

/* A tip of two files. */
static struct tpd_tip *make_tip(const char *run)
{
	struct tpd_capture *capture = NULL;
	struct tpd_id id = {{1}};
	struct tpd_err err = {0};
	struct tpd_tip *tip;

	ck_assert_msg(tpd_capture_open(scratch("c"), &capture, &err) == TPD_OK, "%s", err.text);
	tip = tpd_tip_new(run, scratch("c"), &id, capture);
	ck_assert_ptr_nonnull(tip);
	return tip;
}

static unsigned free_all(struct tpd_tip *list)
{
	unsigned count = 0;

	while (list) {
		struct tpd_tip *next = list->next;

		tpd_tip_free(list);
		list = next;
		count++;
	}
	return count;
}

START_TEST(one_a_run)
{
	struct tpd_tip *tip;

	ck_assert_ptr_null(tpd_tips_put(&tips, make_tip("a"), 100));
	ck_assert_ptr_null(tpd_tips_put(&tips, make_tip("b"), 100));
	ck_assert_uint_eq(tips.descriptors, 4);
	ck_assert_uint_eq(free_all(tpd_tips_put(&tips, make_tip("a"), 100)), 1);
	ck_assert_uint_eq(tips.count, 2);
	tip = tpd_tips_take(&tips, "b");
	ck_assert_ptr_nonnull(tip);
	ck_assert_ptr_null(tpd_tips_take(&tips, "b"));
	ck_assert_uint_eq(tips.descriptors, 2);
	tpd_tip_free(tip);
}
END_TEST

/* The one before stays behind the newest, and goes first when there are too many descriptors. */
START_TEST(two_deep)
{
	struct tpd_tip *first = make_tip("a"), *second = make_tip("a"), *third = make_tip("a"), *again = make_tip("a"), *gone;

	second->id.bytes[0] = again->id.bytes[0] = 2;
	third->id.bytes[0] = 3;
	ck_assert_ptr_null(tpd_tip_put_behind(second, first));
	ck_assert_ptr_eq(tpd_capture_source(second->capture)->held, tpd_capture_source(first->capture));
	ck_assert_ptr_eq(tpd_tip_put_behind(again, second), second);
	ck_assert_ptr_eq(again->earlier, first);
	ck_assert_ptr_eq(tpd_capture_source(again->capture)->held, tpd_capture_source(first->capture));
	tpd_tip_free(second);
	second = again;
	ck_assert_ptr_eq(tpd_tip_put_behind(third, second), first);
	ck_assert_ptr_null(tpd_capture_source(second->capture)->held);
	ck_assert_ptr_eq(tpd_capture_source(third->capture)->held, tpd_capture_source(second->capture));
	tpd_tip_free(first);
	ck_assert_ptr_null(tpd_tips_put(&tips, third, 100));
	ck_assert_uint_eq(tips.descriptors, 4);
	gone = tpd_tips_put(&tips, make_tip("b"), 5);
	ck_assert_ptr_eq(gone, second);
	ck_assert_ptr_null(third->earlier);
	ck_assert_ptr_null(tpd_capture_source(third->capture)->held);
	ck_assert_uint_eq(free_all(gone), 1);
	ck_assert_uint_eq(tips.descriptors, 4);
	ck_assert_uint_eq(tips.count, 2);
	ck_assert_uint_eq(free_all(tpd_tips_put(&tips, make_tip("c"), 5)), 1);
	ck_assert_uint_eq(tips.count, 2);
}
END_TEST

static bool is_named(void *arg, const struct tpd_tip *tip)
{
	return strcmp(tip->run, arg) == 0;
}

START_TEST(the_least_used_goes)
{
	struct tpd_tip *tip;
	char name[16];

	for (unsigned i = 0; i < TPD_TIPS_MAX; i++) {
		snprintf(name, sizeof name, "r%u", i);
		ck_assert_ptr_null(tpd_tips_put(&tips, make_tip(name), 1000));
	}
	tip = tpd_tips_put(&tips, make_tip("more"), 1000);
	ck_assert_str_eq(tip->run, "r0");
	ck_assert_uint_eq(free_all(tip), 1);
	ck_assert_uint_eq(free_all(tpd_tips_put(&tips, make_tip("few"), 6)), TPD_TIPS_MAX - 2); /* three of two files */
	ck_assert_uint_eq(tips.count, 3);
	name[0] = 0;
	tip = tpd_tips_take_oldest(&tips, is_named, strcpy(name, "more"));
	ck_assert_str_eq(tip->run, "more");
	tpd_tip_free(tip);
	ck_assert_uint_eq(free_all(tpd_tips_put(&tips, make_tip("none"), 1)), 3); /* not even itself */
	ck_assert_uint_eq(tips.count + tips.descriptors, 0);
}
END_TEST

static void make(void)
{
	scratch_make();
	mkdir(scratch("c"), 0755);
	file_write(scratch("c/a"), "a", 1);
	file_write(scratch("c/b"), "b", 1);
}

static void drop(void)
{
	tpd_tips_release(&tips);
	scratch_remove();
}

int main(void)
{
	Suite *suite = suite_create("tips");
	TCase *tests = tcase_create("tips");
	SRunner *runner = srunner_create(suite);
	int failed;

	suite_add_tcase(suite, tests);
	tcase_add_checked_fixture(tests, make, drop);
	tcase_add_test(tests, one_a_run);
	tcase_add_test(tests, two_deep);
	tcase_add_test(tests, the_least_used_goes);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
