/* t_copies.c - which captures are copied. */
#include "base/tpd.h"

#include <check.h>
#include <stdlib.h>

#include "daemon/copies.h"

#define SMALL (10ull << 20)
#define HUGE (40ull << 30)

START_TEST(what_is_copied)
{
	static const struct {
		struct tpd_copy_case which;
		bool wanted;
	} cases[] = {
		/* single_file, named_step, in_place, at_once, bytes */
		{{true, false, false, true, SMALL}, true},
		{{true, true, false, true, SMALL}, true},
		{{true, false, false, true, HUGE}, false}, /* its job begins now */
		{{true, false, false, false, HUGE}, true},
		{{true, true, true, true, HUGE}, true},    /* and yet it was written over before */
		{{false, true, false, false, SMALL}, false}, /* checkpoint-20/ */
		{{false, true, false, false, HUGE}, false},
		{{false, true, true, false, HUGE}, true},
		{{false, false, false, false, HUGE}, true}, /* last.ckpt/ */
		{{false, false, false, true, HUGE}, false},
		{{false, false, false, true, SMALL}, true},
		{{false, false, true, true, HUGE}, true},
	};

	for (size_t i = 0; i < TPD_ARRAY_LEN(cases); i++)
		ck_assert_msg(tpd_copies_wanted(&cases[i].which) == cases[i].wanted, "case %zu", i);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("copies");
	TCase *tests = tcase_create("copies");
	SRunner *runner = srunner_create(suite);
	int failed;

	suite_add_tcase(suite, tests);
	tcase_add_test(tests, what_is_copied);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
