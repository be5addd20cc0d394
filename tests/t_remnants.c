/*
 * t_remnants.c - checkpoints of which something was deleted: what is left of what is stored, and what goes while it is read.
 */
#include "base/tpd.h"

#include "archive_help.h"

static void skip_remnants(void)
{
	struct tpd_archive_options options = {.store = scratch("store"), .mode = TPD_ARCHIVE_CREATE, .threads = 1, .max_depth = 16,
					      .skip_remnants = true};

	archive_close();
	OK(tpd_archive_open(&options, &archive, &err));
}

/* What was deleted of a stored checkpoint makes no version that would hide it, unless that is asked for; what was changed does. */
START_TEST(remnants_are_no_versions)
{
	struct tpd_ingest_result result;
	struct tpd_archive_name whole;

	skip_remnants();
	checkpoint_make(scratch("checkpoint-10"), 10, 7);
	mkdir(scratch("checkpoint-10/sub"), 0755);
	file_write(scratch("checkpoint-10/sub/a"), "a", 1);
	file_write(scratch("checkpoint-10/sub/b"), "b", 1);
	ck_assert_int_eq(symlink("sub/b", scratch("checkpoint-10/link")), 0);
	ck_assert_int_eq(rename(scratch("checkpoint-10"), scratch("c")), 0);
	OK(ingest(scratch("c"), "run", 10, &result));
	ck_assert(!result.existed && !result.remnant);
	whole = resolve("run@10");

	ck_assert_int_eq(unlink(scratch("c/optimizer.pt")), 0);
	ck_assert_int_eq(unlink(scratch("c/sub/a")), 0);
	OK(ingest(scratch("c"), "run", 10, &result));
	ck_assert(result.existed && result.remnant);
	ck_assert_uint_eq(result.version, 1);
	ck_assert(tpd_id_equal(&result.id, &whole.id));

	/* Of another run, another step, or at another path it is what it is. */
	OK(ingest(scratch("c"), "other", 10, &result));
	ck_assert(!result.existed);
	OK(ingest(scratch("c"), "run", 20, &result));
	ck_assert(!result.existed);
	ck_assert_int_eq(rename(scratch("c"), scratch("d")), 0);
	OK(ingest(scratch("d"), "run", 10, &result));
	ck_assert(!result.existed && !result.remnant);
	ck_assert_uint_eq(result.version, 2);
	ck_assert_int_eq(rename(scratch("d"), scratch("c")), 0);
	/* That is equal now: which is asked first. */
	OK(ingest(scratch("c"), "run", 10, &result));
	ck_assert(result.existed && !result.remnant);
	ck_assert_uint_eq(result.version, 2);

	/* Something less, and something else than it was: of the same size, another mode, another target, a new name. */
	ck_assert_int_eq(unlink(scratch("c/trainer_state.json")), 0);
	OK(ingest(scratch("c"), "run", 10, &result));
	ck_assert(result.remnant);
	ck_assert_int_eq(chmod(scratch("c/sub/b"), 0600), 0);
	OK(ingest(scratch("c"), "run", 10, &result));
	ck_assert(!result.existed);
	ck_assert_uint_eq(result.version, 3);
	ck_assert_int_eq(unlink(scratch("c/link")), 0);
	OK(ingest(scratch("c"), "run", 10, &result));
	ck_assert(result.remnant);
	ck_assert_uint_eq(result.version, 3);
	ck_assert_int_eq(symlink("sub/c", scratch("c/link")), 0);
	OK(ingest(scratch("c"), "run", 10, &result));
	ck_assert(!result.existed);
	ck_assert_uint_eq(result.version, 4);
	ck_assert_int_eq(unlink(scratch("c/link")), 0);
	file_write(scratch("c/sub/b"), "c", 1);
	OK(ingest(scratch("c"), "run", 10, &result));
	ck_assert(!result.existed);
	ck_assert_uint_eq(result.version, 5);
	ck_assert_int_eq(unlink(scratch("c/model.safetensors")), 0);
	file_write(scratch("c/new"), "n", 1);
	OK(ingest(scratch("c"), "run", 10, &result));
	ck_assert(!result.existed);
	ck_assert_uint_eq(result.version, 6);

	/* A user says what is to be stored. */
	archive_close();
	archive_open(16, 0, 1);
	ck_assert_int_eq(unlink(scratch("c/new")), 0);
	OK(ingest(scratch("c"), "run", 10, &result));
	ck_assert(!result.existed);
	ck_assert_uint_eq(result.version, 7);
}
END_TEST

/* What is whole no more is no reason to leave out what is left. */
START_TEST(remnants_of_what_is_damaged_are_stored)
{
	struct tpd_ingest_result result;

	skip_remnants();
	ingest_step(10);
	ck_assert_int_eq(unlink(scratch("checkpoint-10/trainer_state.json")), 0);
	file_flip(part_path("run@10", 0, 0), 5000);
	OK(ingest(scratch("checkpoint-10"), "run", 10, &result));
	ck_assert(!result.existed);
	ck_assert_uint_eq(result.version, 2);
}
END_TEST

/* All that was captured is there, but not all may have been captured. */
START_TEST(deleted_while_captured)
{
	struct tpd_capture *capture = NULL;

	checkpoint_make(scratch("checkpoint-20"), 20, 7);
	mkdir(scratch("checkpoint-20/sub"), 0755);
	ck_assert_int_eq(link(scratch("checkpoint-20/optimizer.pt"), scratch("other")), 0);
	for (int i = 0; i < 3; i++) {
		OK(tpd_capture_open(scratch("checkpoint-20"), &capture, &err));
		ck_assert(!tpd_capture_is_deleted(capture));
		if (i == 0) /* which has another name */
			ck_assert_int_eq(unlink(scratch("checkpoint-20/optimizer.pt")), 0);
		else if (i == 1)
			ck_assert_int_eq(unlink(scratch("checkpoint-20/model.safetensors")), 0);
		else
			ck_assert_int_eq(rename(scratch("checkpoint-20"), scratch("checkpoint-30")), 0);
		OK(tpd_capture_check(capture, &err));
		ck_assert(tpd_capture_is_deleted(capture));
		tpd_capture_close(capture);
	}
	/* A single file is all there, once it is open. */
	OK(tpd_capture_open(scratch("other"), &capture, &err));
	ck_assert_int_eq(unlink(scratch("other")), 0);
	ck_assert(!tpd_capture_is_deleted(capture));
	tpd_capture_close(capture);
}
END_TEST

/* The files of one checkpoint, and of the next: what that lacks. */
static void check_lacks(uint64_t step, const char *const *names, uint64_t count, const char *first)
{
	struct tpd_archive_lacks lacks;
	struct tpd_ingest_result result;
	char dir[600];

	snprintf(dir, sizeof(dir), "%s", scratch("step-%d", (int)step));
	mkdir(dir, 0755);
	for (; *names; names++) {
		char path[800];

		snprintf(path, sizeof(path), "%s/%s", dir, *names);
		file_write(path, *names, strlen(*names));
	}
	OK(ingest(dir, "run", step, &result));
	OK(tpd_archive_lacks(archive, &result.id, &lacks, &err));
	ck_assert_uint_eq(lacks.count, count);
	ck_assert_str_eq(lacks.first, first);
	ck_assert(lacks.count == 0 || lacks.before_step < step);
}

START_TEST(what_the_one_before_has)
{
	skip_remnants();
	check_lacks(10, (const char *const[]){"model-1-of-3.bin", "model-2-of-3.bin", "model-3-of-3.bin", "optim-10.pt", "state", NULL}, 0, "");
	check_lacks(20, (const char *const[]){"model-1-of-1.bin", "optim-20.pt", "state", "more", NULL}, 0, "");
	check_lacks(30, (const char *const[]){"model-1-of-1.bin", "optim-30.pt", NULL}, 2, "more");
	check_lacks(40, (const char *const[]){"optim-40.pt", NULL}, 1, "model-1-of-1.bin");
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		remnants_are_no_versions,
		remnants_of_what_is_damaged_are_stored,
		deleted_while_captured,
		what_the_one_before_has,
	};

	return run_tests("remnants", tests, TPD_ARRAY_LEN(tests));
}
