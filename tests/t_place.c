/*
 * t_place.c - where restored files go: is every new name made to last?
 *
 * fsync is this program's own here: it notes the path of what it is asked for and passes it on.
 */
#include "base/tpd.h"

#include <check.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "files.h"
#include "store/place.h"

#define SEEN 64

static char seen[SEEN][PATH_MAX];
static size_t seen_count;
static char top[PATH_MAX]; /* the scratch directory, without links on the way */
static struct tpd_err err;

int fsync(int fd)
{
	char link[64];
	ssize_t len;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	len = seen_count < SEEN ? readlink(link, seen[seen_count], PATH_MAX - 1) : -1;
	if (len >= 0)
		seen[seen_count++][len] = 0;
	return (int)syscall(SYS_fsync, fd);
}

/* How often the directory `below` the scratch one was synced. */
static unsigned syncs_of(const char *below)
{
	char path[PATH_MAX + 64];
	unsigned times = 0;

	snprintf(path, sizeof(path), "%s%s", top, below);
	for (size_t i = 0; i < seen_count; i++)
		times += strcmp(seen[i], path) == 0;
	return times;
}

START_TEST(every_new_name_lasts)
{
	struct tpd_entry entries[] = {
		{.path = (char[]){"a/deep/one"}, .type = TPD_ENTRY_FILE, .mode = 0644},
		{.path = (char[]){"a/deep/two"}, .type = TPD_ENTRY_FILE, .mode = 0644},
		{.path = (char[]){"a/link"}, .type = TPD_ENTRY_SYMLINK, .target = (char[]){"deep"}},
		{.path = (char[]){"empty"}, .type = TPD_ENTRY_DIR, .mode = 0700},
		{.path = (char[]){"there/three"}, .type = TPD_ENTRY_FILE, .mode = 0644},
	};
	struct tpd_place *place = NULL;

	ck_assert_int_eq(tpd_place_open(scratch("made/root"), &place, &err), TPD_OK);
	ck_assert_uint_eq(syncs_of("/made"), 1); /* it holds root */
	ck_assert_uint_eq(syncs_of(""), 1);
	mkdir(scratch("made/root/there"), 0755);
	seen_count = 0;
	for (size_t i = 0; i < TPD_ARRAY_LEN(entries); i++) {
		int fd = -1;

		if (entries[i].type != TPD_ENTRY_FILE) {
			ck_assert_int_eq(tpd_place_add(place, &entries[i], &err), TPD_OK);
			continue;
		}
		ck_assert_int_eq(tpd_place_create(place, &entries[i], &fd, &err), TPD_OK);
		ck_assert_int_eq(tpd_place_seal(place, fd, &err), TPD_OK);
	}
	seen_count = 0;
	ck_assert_msg(tpd_place_commit(place, false, &err) == TPD_OK, "%s", err.text);
	ck_assert_uint_eq(syncs_of("/made/root/a/deep"), 1);
	ck_assert_uint_eq(syncs_of("/made/root/a"), 1);
	ck_assert_uint_eq(syncs_of("/made/root/there"), 1);
	ck_assert_uint_eq(syncs_of("/made/root/empty"), 1); /* for its mode and time */
	ck_assert_uint_ge(syncs_of("/made/root"), 1);
	ck_assert_uint_eq(seen_count, 5 + (syncs_of("/made/root") - 1));
	tpd_place_close(place);
	ck_assert(file_exists(scratch("made/root/a/deep/two")));
}
END_TEST

static void set_up(void)
{
	ck_assert_ptr_nonnull(realpath(scratch_make(), top));
}

int main(void)
{
	Suite *suite = suite_create("place");
	TCase *tests = tcase_create("place");
	SRunner *runner = srunner_create(suite);
	int failed;

	suite_add_tcase(suite, tests);
	tcase_add_checked_fixture(tests, set_up, scratch_remove);
	tcase_add_test(tests, every_new_name_lasts);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
