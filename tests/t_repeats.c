/*
 * t_repeats.c - tensors that a checkpoint holds twice: one is enough; a few elements that differ are told; what would take more than the
 * checkpoint before is not taken; and nobody is derived from what is derived.
 */
#include "base/tpd.h"

#include "lineage_help.h"

#define F32 TPD_DTYPE_F32
#define BF16 TPD_DTYPE_BF16
#define N 150000u /* of the large tensor: two chunks */

/* --- checkpoints of one large tensor and others like it --- */

static void write_two(const char *dir, const char *second_file, enum tpd_dtype dtype, const float *first, const float *second)
{
	const struct tensor a[] = {{"embed.weight", dtype, first, N}, {"norm.weight", dtype, first + N, 256}};
	const struct tensor b = {"head.weight", dtype, second, N};
	char path[512];

	mkdir(dir, 0755);
	snprintf(path, sizeof(path), "%s/model.safetensors", dir);
	if (second_file) {
		tensors_write(path, a, 2);
		snprintf(path, sizeof(path), "%s/%s", dir, second_file);
		tensors_write(path, &b, 1);
	} else {
		const struct tensor all[] = {a[0], a[1], b};

		tensors_write(path, all, 3);
	}
}

struct found {
	uint64_t stored;
	bool derived;
	enum tpd_encoding encoding;
};

static struct found look(const char *name, const char *tensor)
{
	struct tpd_manifest m = manifest_of(name);
	struct found found = {.stored = UINT64_MAX};

	for (uint32_t f = 0; f < m.file_count; f++) {
		const struct tpd_entry *entry = &m.entries[m.files[f]];

		for (uint32_t s = 1; s < entry->segment_count; s++)
			if (strcmp(entry->about[s].name, tensor) == 0)
				found = (struct found){entry->about[s].stored, entry->segments[s].has_ref && entry->segments[s].derived,
						       entry->about[s].planned};
	}
	tpd_manifest_release(&m);
	ck_assert_uint_ne(found.stored, UINT64_MAX);
	return found;
}

/* In one file and in two, of each type; a keyframe, deltas and an anchor. */
START_TEST(one_copy_is_enough)
{
	static const enum tpd_dtype types[] = {F32, BF16, TPD_DTYPE_F16};
	const enum tpd_dtype dtype = types[_i % 3];
	float *values = model_make(1);

	archive_open(2, 0, 2);
	for (uint64_t step = 0; step < 5; step++) {
		float *now = model_tune(values, 2, 1e-4 * (double)step);
		char name[32];
		const char *kept;

		snprintf(name, sizeof(name), "run@%d", (int)step);
		write_two(scratch("c"), _i < 3 ? NULL : "a.safetensors", dtype, now, now);
		kept = store_and_move(NULL, scratch("c"), "run", step);
		/* Of two that are the same the one that comes first serves the other. */
		ck_assert(look(name, _i < 3 ? "head.weight" : "embed.weight").derived);
		ck_assert_uint_eq(look(name, _i < 3 ? "head.weight" : "embed.weight").stored, 0);
		ck_assert_uint_gt(look(name, _i < 3 ? "embed.weight" : "head.weight").stored, 1000);
		check_against(name, kept);
		free(now);
	}
	ck_assert_uint_le(depth_of("run@4"), 2);
	free(values);
}
END_TEST

START_TEST(few_elements_differ)
{
	float *values = model_make(1), *other = model_tune(values, 1, 0);
	const char *kept;

	archive_open(16, 0, 2);
	for (unsigned i = 777; i < N; i += 3000)
		other[i] = -other[i] * 1.5f;
	write_two(scratch("c"), NULL, F32, values, other);
	kept = store_and_move(NULL, scratch("c"), "run", 0);
	ck_assert(look("run@0", "head.weight").derived);
	ck_assert_uint_gt(look("run@0", "head.weight").stored, 0);
	ck_assert_uint_lt(look("run@0", "head.weight").stored, N / 3000 * 8 + 2 * 64);
	check_against("run@0", kept);
	free(other);
	free(values);
}
END_TEST

/* An average: the same at first, and then nearer to what it was than to the weights. */
START_TEST(copies_that_part)
{
	float *values = model_make(1), *average = model_tune(values, 1, 0);

	archive_open(16, 0, 2);
	for (uint64_t step = 0; step < 4; step++) {
		float *now = model_tune(values, 2, 5e-3 * (double)step);
		char name[32];
		const char *kept;

		for (unsigned i = 1000; i < N; i++) /* its first elements never move, so that it looks the same at some places */
			average[i] += 1e-3f * (now[i] - average[i]);
		for (unsigned i = 0; i < 1000; i++)
			now[i] = values[i];
		snprintf(name, sizeof(name), "run@%d", (int)step);
		write_two(scratch("c"), "ema.safetensors", F32, now, average);
		kept = store_and_move(NULL, scratch("c"), "run", step);
		if (step == 0)
			ck_assert(look(name, "embed.weight").derived);
		else
			ck_assert(!look(name, "embed.weight").derived && !look(name, "head.weight").derived);
		check_against(name, kept);
		free(now);
	}
	free(average);
	free(values);
}
END_TEST

/* It differs from its twin in some elements, and from what it was in none. */
START_TEST(what_it_was_is_nearer)
{
	float *values = model_make(1), *other = model_tune(values, 1, 0);
	const char *kept;

	archive_open(16, 0, 2);
	for (unsigned i = 777; i < N; i += 300)
		other[i] += 1;
	for (uint64_t step = 0; step < 2; step++) {
		write_two(scratch("c"), NULL, F32, values, other);
		kept = store_and_move(NULL, scratch("c"), "run", step);
	}
	ck_assert(look("run@0", "head.weight").derived);
	ck_assert(!look("run@1", "head.weight").derived);
	ck_assert_uint_eq(look("run@1", "head.weight").stored, 0);
	check_against("run@1", kept);
	free(other);
	free(values);
}
END_TEST

/* The one that was there before serves the one that is new, whichever comes first. */
START_TEST(a_copy_that_is_new)
{
	float *values = model_make(1), *now = model_tune(values, 2, 2e-5);
	const struct tensor head = {"head.weight", F32, values, N};
	const char *kept;

	archive_open(16, 0, 2);
	mkdir(scratch("c"), 0755);
	tensors_write(scratch("c/model.safetensors"), &head, 1);
	store_and_move(NULL, scratch("c"), "run", 0);
	write_two(scratch("c"), NULL, F32, now, now);
	kept = store_and_move(NULL, scratch("c"), "run", 1);
	ck_assert(look("run@1", "embed.weight").derived);
	ck_assert_uint_eq(look("run@1", "embed.weight").stored, 0);
	ck_assert_uint_lt(look("run@1", "head.weight").stored * 4, look("run@0", "head.weight").stored * 3);
	check_against("run@1", kept);
	free(now);
	free(values);
}
END_TEST

/* Of constants there is nothing to save, and a sample of equal values says nothing. */
START_TEST(constants_stand_alone)
{
	float *values = calloc(VALUES, sizeof(*values));
	const char *kept;

	ck_assert_ptr_nonnull(values);
	archive_open(16, 0, 1);
	write_two(scratch("c"), NULL, F32, values, values);
	kept = store_and_move(NULL, scratch("c"), "run", 0);
	ck_assert(!look("run@0", "head.weight").derived);
	check_against("run@0", kept);
	free(values);
}
END_TEST

/* F32 masters, an average that equals them (1: not), and two BF16 copies (0: one): all from the masters, none from one that is derived. */
START_TEST(copies_of_masters)
{
	float *values = model_make(1);

	archive_open(2, 0, 2);
	for (uint64_t step = 0; step < 4; step++) {
		float *now = model_tune(values, 2, 1e-4 * (double)step);
		const struct tensor average = {"average.weight", F32, now, N}, model = {"embed.weight", BF16, now, N},
				    again = {"again.weight", BF16, now, N}, master = {"flat", F32, now, N};
		char name[32];
		const char *kept;

		mkdir(scratch("c"), 0755);
		if (_i != 1)
			tensors_write(scratch("c/average.safetensors"), &average, 1);
		tensors_write(scratch("c/master.safetensors"), &master, 1);
		tensors_write(scratch("c/model.safetensors"), &model, 1);
		if (_i != 0)
			tensors_write(scratch("c/model_again.safetensors"), &again, 1);
		kept = store_and_move(NULL, scratch("c"), "run", step);
		snprintf(name, sizeof(name), "run@%d", (int)step);
		ck_assert(look(name, "embed.weight").derived && look(name, "embed.weight").stored == 0);
		if (_i != 0)
			ck_assert(look(name, "again.weight").derived && look(name, "again.weight").stored == 0);
		if (_i == 0) { /* where each is a master of its own (2), none is derived */
			ck_assert(look(name, "average.weight").derived != look(name, "flat").derived);
			ck_assert(look(name, "average.weight").stored == 0 || look(name, "flat").stored == 0);
		}
		check_against(name, kept);
		free(now);
	}
	free(values);
}
END_TEST

/* Weights of another run, doubled here: the copy is of the tensor here, the tensor of the one there. */
START_TEST(copies_of_a_base)
{
	float *values = model_make(1), *tuned = model_tune(values, 3, 2e-5);
	const char *kept;

	archive_open(16, 0, 2);
	write_two(scratch("c"), NULL, F32, values, values);
	store_and_move(NULL, scratch("c"), "base", 0);
	write_two(scratch("c"), NULL, BF16, tuned, tuned);
	kept = store_and_move(NULL, scratch("c"), "tuned", 0);
	ck_assert_str_eq(reference_of("tuned@0"), "base@0");
	ck_assert(look("tuned@0", "head.weight").derived && !look("tuned@0", "embed.weight").derived);
	ck_assert_uint_eq(look("tuned@0", "head.weight").stored, 0);
	check_against("tuned@0", kept);
	free(tuned);
	free(values);
}
END_TEST

START_TEST(interrupted)
{
	struct tpd_capture *capture = NULL;
	struct tpd_ingest_result result = {0};
	float *values = model_make(1);
	uint64_t most_reused = 0;
	bool done = false;

	archive_open(16, 1 << 20, 1);
	write_two(scratch("c"), "z.safetensors", F32, values, values);
	OK(tpd_capture_open(scratch("c"), &capture, &err));
	for (int after = 1; after < 60 && !done; after++) {
		struct stopper stopper = {.after = after};
		struct tpd_progress progress = {.fn = stop_after, .arg = &stopper, .cancel = &stopper.cancel};
		enum tpd_status status = tpd_archive_ingest(archive, "run", 0, capture, &progress, &result, NULL, &err);

		done = status == TPD_OK;
		if (!done)
			ck_assert_int_eq(status, TPD_CANCELLED);
		most_reused = done ? result.parts_reused : 0;
	}
	tpd_capture_close(capture);
	ck_assert(done);
	ck_assert_uint_ge(most_reused, 1);
	ck_assert(look("run@0", "head.weight").derived);
	check_against("run@0", scratch("c"));
	free(values);
}
END_TEST

/* The one that serves is damaged: both are lost, and both are named. */
START_TEST(damage_is_found)
{
	float *values = model_make(1);
	struct tpd_archive_name which;

	archive_open(16, 0, 1);
	write_two(scratch("c"), "z.safetensors", F32, values, values);
	store_and_move(NULL, scratch("c"), "run", 0);
	file_flip(part_path("run@0", 0, 0), 300000);
	which = resolve("run@0");
	ck_assert_int_eq(tpd_archive_verify(archive, &which.id, NULL, &err), TPD_CORRUPT);
	ck_assert_int_eq(restore("run@0", scratch("out")), TPD_CORRUPT);
	ck_assert_ptr_nonnull(strstr(err.text, "model.safetensors"));
	free(values);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("repeats");
	TCase *tc = tcase_create("repeats");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 240);
	tcase_add_loop_test(tc, one_copy_is_enough, 0, 6);
	tcase_add_test(tc, few_elements_differ);
	tcase_add_test(tc, copies_that_part);
	tcase_add_test(tc, what_it_was_is_nearer);
	tcase_add_test(tc, a_copy_that_is_new);
	tcase_add_test(tc, constants_stand_alone);
	tcase_add_loop_test(tc, copies_of_masters, 0, 3);
	tcase_add_test(tc, copies_of_a_base);
	tcase_add_test(tc, interrupted);
	tcase_add_test(tc, damage_is_found);
	suite_add_tcase(suite, tc);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
