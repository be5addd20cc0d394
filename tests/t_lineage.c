/*
 * t_lineage.c - a run's first checkpoint refers to one of another run: given, or found; and what happens when that is far, damaged, gone,
 * or would lead back to itself.
 */
#include "base/tpd.h"

#include "lineage_help.h"


/* base@0, and in `tuned` a fine-tune of it with moments. */
static float *store_base(void)
{
	float *values = model_make(1);

	model_write(scratch("base"), values, TPD_DTYPE_F32, NULL);
	store_and_move(NULL, scratch("base"), "base", 0);
	return values;
}

static void write_tuned(const char *dir, const float *base, uint64_t seed, double by)
{
	float *values = model_tune(base, seed, by), *moments = model_make(seed + 100);

	model_write(dir, values, TPD_DTYPE_F32, moments);
	free(values);
	free(moments);
}

static void same_dump(void)
{
	struct tpd_archive_rebuilt built;
	unsigned before = 0, after = 0;

	OK(tpd_catalog_list(tpd_archive_catalog(archive), NULL, count_row, &before, &err));
	OK(tpd_archive_rebuild(archive, NULL, &built, &err));
	OK(tpd_catalog_list(tpd_archive_catalog(archive), NULL, count_row, &after, &err));
	ck_assert_uint_gt(before, 0);
	ck_assert_uint_eq(before, after);
	ck_assert_uint_eq(built.done, before);
}

START_TEST(a_base_that_is_given)
{
	static const char *const names[] = {"base@0", "base@latest", "base", "base@0~1", "the id"};
	struct tpd_archive_name base;
	float *values;

	archive_open(16, 0, 2);
	values = store_base();
	base = resolve("base@0");
	write_tuned(scratch("alone"), values, 2, 2e-5);
	store_and_move("none", scratch("alone"), "alone", 20);
	ck_assert_str_eq(reference_of("alone@20"), "");
	for (unsigned i = 0; i < TPD_ARRAY_LEN(names); i++) {
		char run[16], name[32], id[TPD_ID_HEX];
		struct tpd_manifest m;
		const char *kept;

		tpd_id_hex(&base.id, id);
		id[12] = 0;
		snprintf(run, sizeof(run), "tuned-%u", i);
		snprintf(name, sizeof(name), "%s@20", run);
		write_tuned(scratch("tuned"), values, 2, 2e-5);
		kept = store_and_move(i + 1 < TPD_ARRAY_LEN(names) ? names[i] : id, scratch("tuned"), run, 20);
		m = manifest_of(name);
		ck_assert(m.has_ref && tpd_id_equal(&m.ref, &base.id));
		ck_assert_str_eq(m.ref_run, "base");
		ck_assert_uint_eq(m.depth, 1);
		ck_assert(!m.has_w1); /* statistics are of a run's own steps */
		tpd_manifest_release(&m);
		/* Weights are deltas, moments begin anew. */
		ck_assert_uint_lt(stored_of(name, 0) * 3, stored_of("alone@20", 0) * 2);
		ck_assert_uint_eq(stored_of(name, 1), stored_of("alone@20", 1));
		check_against(name, kept);
	}
	same_dump();
	free(values);
}
END_TEST

/* A path is stored once, as long as it holds the same. */
START_TEST(a_base_that_is_a_path)
{
	struct tpd_archive_name *names = NULL;
	struct tpd_ingest_result result;
	float *values = model_make(1), *newer = model_tune(values, 8, 1e-3);
	size_t count = 0;
	char path[512];

	archive_open(16, 0, 2);
	snprintf(path, sizeof(path), "%s", scratch(".tiny llama@7b"));
	model_write(path, values, TPD_DTYPE_F32, NULL);
	for (unsigned i = 0; i < 3; i++) {
		char run[16], name[32];

		snprintf(run, sizeof(run), "tuned-%u", i);
		snprintf(name, sizeof(name), "%s@20", run);
		if (i == 2) {
			model_write(path, newer, TPD_DTYPE_F32, NULL);
			strcat(path, "//");
		}
		write_tuned(scratch("tuned"), i == 2 ? newer : values, 2 + i, 2e-5);
		check_against(name, store_and_move(path, scratch("tuned"), run, 20));
		ck_assert_str_eq(reference_of(name), "models/_tiny llama_7b@0");
		write_tuned(scratch("tuned"), values, 2 + i, 2.1e-5);
		store_and_move(path, scratch("tuned"), run, 40);
	}
	OK(tpd_archive_select(archive, "models", &names, &count, &err));
	ck_assert_uint_eq(count, 2); /* versions */
	free(names);
	write_tuned(scratch("tuned"), values, 9, 2e-5);
	OK(store_from(scratch("nowhere"), scratch("tuned"), "lost", 20, &result));
	ck_assert_int_eq(result.base_fault.status, TPD_NOT_FOUND);
	ck_assert_ptr_nonnull(strstr(reference_of("lost@20"), "@"));
	OK(store_from("/", scratch("tuned"), "root", 20, &result));
	ck_assert_int_eq(result.base_fault.status, TPD_USAGE);
	free(newer);
	free(values);
}
END_TEST

/* Of a stranger, a cousin, an elder and the parent; and then from the run itself, which is nearer than any of them. */
START_TEST(a_base_that_is_found)
{
	float *values, *other, *elder;
	const char *kept;

	archive_open(16, 0, 2);
	values = store_base();
	other = model_make(77);
	model_write(scratch("stranger"), other, TPD_DTYPE_F32, NULL);
	store_and_move(NULL, scratch("stranger"), "stranger", 0);
	ck_assert_str_eq(reference_of("stranger@0"), "");
	elder = model_tune(values, 5, 1e-3);
	model_write(scratch("elder"), elder, TPD_DTYPE_F32, NULL);
	store_and_move(NULL, scratch("elder"), "elder", 500);
	ck_assert_str_eq(reference_of("elder@500"), "base@0");
	write_tuned(scratch("cousin"), values, 9, 2e-4);
	store_and_move(NULL, scratch("cousin"), "cousin", 20);
	ck_assert_str_eq(reference_of("cousin@20"), "base@0");

	write_tuned(scratch("tuned"), values, 3, 2e-5);
	kept = store_and_move("auto", scratch("tuned"), "tuned", 20);
	ck_assert_str_eq(reference_of("tuned@20"), "base@0");
	check_against("tuned@20", kept);
	write_tuned(scratch("tuned"), values, 3, 2.1e-5);
	kept = store_and_move(NULL, scratch("tuned"), "tuned", 40);
	ck_assert_str_eq(reference_of("tuned@40"), "tuned@20");
	ck_assert_uint_eq(depth_of("tuned@40"), 2);
	check_against("tuned@40", kept);
	/* A base is of no use to a run that has a checkpoint. */
	write_tuned(scratch("tuned"), values, 3, 2.2e-5);
	store_and_move("stranger@0", scratch("tuned"), "tuned", 60);
	ck_assert_str_eq(reference_of("tuned@60"), "tuned@40");
	/* What goes on from the middle of a run begins there. */
	write_tuned(scratch("branch"), values, 3, 2.101e-5);
	store_and_move(NULL, scratch("branch"), "branch", 50);
	ck_assert_str_eq(reference_of("branch@50"), "tuned@40");
	same_dump();
	free(elder);
	free(other);
	free(values);
}
END_TEST

/* A model of other tensors, one of other sizes, one without tensors, and one that is not asked. */
START_TEST(nothing_to_refer_to)
{
	float *values, *other;
	struct tensor small = {"model.embed.weight", TPD_DTYPE_F32, NULL, 1000};

	archive_open(16, 0, 1);
	values = store_base();
	small.values = values;
	mkdir(scratch("small"), 0755);
	tensors_write(scratch("small/model.safetensors"), &small, 1);
	store_and_move(NULL, scratch("small"), "small", 1);
	ck_assert_str_eq(reference_of("small@1"), "");
	mkdir(scratch("text"), 0755);
	file_write(scratch("text/notes.bin"), values, 5000);
	store_and_move(NULL, scratch("text"), "text", 1);
	ck_assert_str_eq(reference_of("text@1"), "");
	write_tuned(scratch("tuned"), values, 2, 2e-5);
	store_and_move("none", scratch("tuned"), "tuned", 1);
	ck_assert_str_eq(reference_of("tuned@1"), "");
	/* It has moved so far that it would save a twentieth: taken where it is named, not worth being found. */
	other = model_tune(values, 79, 1e-2);
	model_write(scratch("far"), other, TPD_DTYPE_F32, NULL);
	store_and_move(NULL, scratch("far"), "far", 1);
	ck_assert_str_eq(reference_of("far@1"), "");
	model_write(scratch("far"), other, TPD_DTYPE_F32, NULL);
	store_and_move("base@0", scratch("far"), "further", 1);
	ck_assert_str_eq(reference_of("further@1"), "base@0");
	free(other);
	/* Given, it is tried; and not kept, where it saves nothing. */
	other = model_make(78);
	model_write(scratch("stranger"), other, TPD_DTYPE_F32, NULL);
	store_and_move("base", scratch("stranger"), "stranger", 1);
	ck_assert_str_eq(reference_of("stranger@1"), "");
	archive_close();
	archive_open(0, 0, 1); /* keyframes only */
	write_tuned(scratch("tuned"), values, 4, 2e-5);
	store_and_move("base", scratch("tuned"), "keyframes", 1);
	ck_assert_str_eq(reference_of("keyframes@1"), "");
	free(other);
	free(values);
}
END_TEST

/* The base's chain is at the limit already; and anchors of a run that began in another refer to where it began. */
START_TEST(depth_has_its_limit)
{
	float *values = model_make(1), *next;
	char run[32];
	const char *kept;

	archive_open(4, 0, 2);
	for (uint64_t step = 0; step < 5; step++) {
		next = model_tune(values, 50 + step, 1e-3);
		free(values);
		values = next;
		model_write(scratch("base"), values, TPD_DTYPE_F32, NULL);
		store_and_move(NULL, scratch("base"), "base", step);
	}
	ck_assert_uint_eq(depth_of("base@3"), 3);
	ck_assert_uint_eq(depth_of("base@4"), 4);
	write_tuned(scratch("deep"), values, 60, 2e-5);
	kept = store_and_move("base@4", scratch("deep"), "deep", 1);
	ck_assert_str_eq(reference_of("deep@1"), "base@3");
	ck_assert_uint_eq(depth_of("deep@1"), 4);
	check_against("deep@1", kept);
	write_tuned(scratch("deep"), values, 60, 2.1e-5);
	kept = store_and_move(NULL, scratch("deep"), "deep", 2);
	ck_assert_uint_le(depth_of("deep@2"), 4);
	check_against("deep@2", kept);
	/* A base without a chain leaves room. */
	for (uint64_t step = 1; step < 9; step++) {
		snprintf(run, sizeof(run), "shallow@%d", (int)step);
		write_tuned(scratch("shallow"), values, 61, 2e-5 + 1e-7 * (double)step);
		kept = store_and_move("base@0", scratch("shallow"), "shallow", step);
		ck_assert_uint_le(depth_of(run), 4);
		check_against(run, kept);
	}
	ck_assert_str_eq(reference_of("shallow@1"), "base@0");
	ck_assert_uint_eq(depth_of("shallow@4"), 4);
	ck_assert_str_eq(reference_of("shallow@5"), "shallow@1"); /* the anchor */
	ck_assert_uint_eq(depth_of("shallow@5"), 2);
	free(values);
}
END_TEST

static void remove_object(const char *name)
{
	struct tpd_archive_name which = resolve(name);
	char hex[TPD_ID_HEX];

	tpd_id_hex(&which.id, hex);
	ck_assert_int_eq(tpd_io_remove_tree(tpd_io_posix(), AT_FDCWD, scratch("store/objects/%.2s/%s.0", hex, hex), NULL), TPD_OK);
}

START_TEST(a_base_that_is_gone)
{
	struct tpd_archive_name tuned;
	struct tpd_ingest_result result;
	float *values;
	const char *kept;

	archive_open(16, 0, 1);
	values = store_base();
	write_tuned(scratch("tuned"), values, 2, 2e-5);
	store_and_move("base", scratch("tuned"), "tuned", 20);
	tuned = resolve("tuned@20");
	remove_object("base@0");
	ck_assert_int_eq(restore("tuned@20", scratch("out")), TPD_MISSING_BASE);
	ck_assert_msg(strstr(err.text, "tuned@20 needs base@0 (checkpoint ") && strstr(err.text, "not in the store"), "%s", err.text);
	ck_assert_int_eq(tpd_archive_verify(archive, &tuned.id, NULL, &err), TPD_MISSING_BASE);
	/* It keeps nothing out: neither what comes next, nor what is to begin from it. */
	write_tuned(scratch("next"), values, 2, 2.1e-5);
	kept = store_and_move(NULL, scratch("next"), "tuned", 40);
	ck_assert_str_eq(reference_of("tuned@40"), "");
	check_against("tuned@40", kept);
	write_tuned(scratch("second"), values, 3, 2e-5);
	OK(store_from("base@0", scratch("second"), "second", 20, &result));
	ck_assert_int_eq(result.base_fault.status, TPD_NOT_FOUND);
	ck_assert_str_eq(reference_of("second@20"), "tuned@40"); /* found instead */
	write_tuned(scratch("third"), values, 3, 2.2e-5);
	OK(store_from("never@3", scratch("third"), "third", 20, &result));
	ck_assert_int_eq(result.base_fault.status, TPD_NOT_FOUND);
	ck_assert_ptr_nonnull(strstr(result.base_fault.text, "never"));
	/* Stored again it serves what refers to it. */
	model_write(scratch("base"), values, TPD_DTYPE_F32, NULL);
	OK(store_from("none", scratch("base"), "base", 0, NULL));
	OK(restore("tuned@20", scratch("out")));
	free(values);
}
END_TEST

/* It is there, its values are not what they were: only reading them tells. */
START_TEST(a_base_that_is_damaged)
{
	struct tpd_ingest_result result;
	float *values;
	const char *kept;

	archive_open(16, 0, 2);
	values = store_base();
	for (unsigned at = 0; at < 3; at++)
		file_flip(part_path("base@0", 0, 0), 200000 + 150000 * at);
	write_tuned(scratch("given"), values, 2, 2e-5);
	OK(store_from("base@0", scratch("given"), "given", 20, &result));
	ck_assert_int_eq(result.base_fault.status, TPD_CORRUPT);
	ck_assert_ptr_nonnull(strstr(result.base_fault.text, "base@0"));
	ck_assert_str_eq(reference_of("given@20"), "");
	check_against("given@20", scratch("given"));
	remove_object("given@20");
	write_tuned(scratch("tuned"), values, 3, 2e-5);
	kept = store_and_move(NULL, scratch("tuned"), "found", 20);
	ck_assert_str_eq(reference_of("found@20"), "");
	check_against("found@20", kept);
	free(values);
}
END_TEST

/* Stopped anywhere, it goes on with the reference that it began with, whatever is asked for, or is nearer, meanwhile. */
START_TEST(interrupted_it_goes_on)
{
	struct tpd_capture *capture = NULL;
	struct tpd_ingest_result result = {0};
	uint64_t most_reused = 0;
	float *values, *nearer;
	bool done = false;

	archive_open(16, 1 << 20, 1);
	values = store_base();
	write_tuned(scratch("tuned"), values, 2, 2e-5);
	nearer = model_tune(values, 2, 2e-5);
	OK(tpd_capture_open(scratch("tuned"), &capture, &err));
	for (int after = 1; after < 60 && !done; after++) {
		struct stopper stopper = {.after = after};
		struct tpd_progress progress = {.fn = stop_after, .arg = &stopper, .cancel = &stopper.cancel};
		bool begun = file_exists(scratch("store/ingest/tuned@20/begin"));
		enum tpd_status status = tpd_archive_ingest_from(archive, begun ? "none" : "base", "tuned", 20, capture, &progress, &result,
								 NULL, &err);

		done = status == TPD_OK;
		if (!done)
			ck_assert_int_eq(status, TPD_CANCELLED);
		most_reused = done ? result.parts_reused : 0;
		archive_close();
		archive_open(16, 1 << 20, 1);
		if (begun && !file_exists(scratch("nearer"))) {
			model_write(scratch("nearer"), nearer, TPD_DTYPE_F32, NULL);
			OK(store_from("none", scratch("nearer"), "nearer", 0, NULL));
		}
	}
	tpd_capture_close(capture);
	ck_assert(done && file_exists(scratch("nearer")));
	ck_assert_uint_ge(most_reused, 1);
	ck_assert_str_eq(reference_of("tuned@20"), "base@0");
	check_against("tuned@20", scratch("tuned"));
	free(nearer);
	free(values);
}
END_TEST

/* The base is damaged while the ingest is interrupted. */
START_TEST(interrupted_and_its_base_lost)
{
	struct tpd_capture *capture = NULL;
	struct tpd_ingest_result result = {0};
	float *values;

	archive_open(16, 1 << 20, 1);
	values = store_base();
	write_tuned(scratch("tuned"), values, 2, 2e-5);
	OK(tpd_capture_open(scratch("tuned"), &capture, &err));
	for (int after = 1; !file_exists(scratch("store/ingest/tuned@20/begin")); after++) {
		struct stopper stopper = {.after = after};
		struct tpd_progress progress = {.fn = stop_after, .arg = &stopper, .cancel = &stopper.cancel};

		ck_assert_int_eq(tpd_archive_ingest(archive, "tuned", 20, capture, &progress, &result, NULL, &err), TPD_CANCELLED);
	}
	for (unsigned at = 0; at < 3; at++)
		file_flip(part_path("base@0", 0, 0), 200000 + 150000 * at);
	OK(tpd_archive_ingest(archive, "tuned", 20, capture, NULL, &result, NULL, &err));
	tpd_capture_close(capture);
	ck_assert_str_eq(reference_of("tuned@20"), "");
	check_against("tuned@20", scratch("tuned"));
	free(values);
}
END_TEST

/* What comes from a step of this run is no base of it: this may be that very step, to be mended. */
START_TEST(no_way_leads_back)
{
	struct tpd_ingest_result result;
	float *values, *other;

	archive_open(16, 0, 1);
	values = store_base();
	write_tuned(scratch("tuned"), values, 2, 2e-5);
	store_and_move("base@0", scratch("tuned"), "tuned", 20);
	ck_assert_str_eq(reference_of("tuned@20"), "base@0");
	/* Another version of base@0, alike tuned@20, unlike base@0~1 by its digests. */
	other = model_tune(values, 2, 2e-5);
	model_write(scratch("base"), other, TPD_DTYPE_F32, NULL);
	OK(store_from("tuned@20", scratch("base"), "base", 0, &result));
	ck_assert_uint_eq(result.version, 2);
	ck_assert_str_eq(reference_of("base@0"), "");
	ck_assert_int_eq(result.base_fault.status, TPD_CORRUPT);
	/* And the first one, damaged, stored again: alone. */
	for (unsigned at = 0; at < 3; at++)
		file_flip(part_path("base@0~1", 0, 0), 200000 + 150000 * at);
	model_write(scratch("first"), values, TPD_DTYPE_F32, NULL);
	OK(store_from("tuned@20", scratch("first"), "base", 0, &result));
	ck_assert_uint_eq(result.version, 1);
	ck_assert_str_eq(reference_of("base@0~1"), "");
	check_against("base@0~1", scratch("first"));
	OK(restore("tuned@20", scratch("out")));
	free(other);
	free(values);
}
END_TEST

/* The same bytes in the same step of another run: all but nothing, and no copy of a version of its own. */
START_TEST(the_same_checkpoint_in_another_run)
{
	struct tpd_ingest_result result;
	float *values;

	archive_open(16, 0, 2);
	values = store_base();
	model_write(scratch("fork"), values, TPD_DTYPE_F32, NULL);
	OK(store_from(NULL, scratch("fork"), "fork", 0, &result));
	ck_assert(!result.existed && !result.near_copy);
	ck_assert_str_eq(reference_of("fork@0"), "base@0");
	ck_assert_uint_eq(stored_of("fork@0", 0), 0);
	check_against("fork@0", scratch("fork"));
	write_tuned(scratch("next"), values, 2, 2e-5);
	OK(store_from(NULL, scratch("next"), "fork", 20, &result));
	ck_assert_str_eq(reference_of("fork@20"), "fork@0");
	free(values);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		a_base_that_is_given,
		a_base_that_is_a_path,
		a_base_that_is_found,
		nothing_to_refer_to,
		depth_has_its_limit,
		a_base_that_is_gone,
		a_base_that_is_damaged,
		interrupted_it_goes_on,
		interrupted_and_its_base_lost,
		no_way_leads_back,
		the_same_checkpoint_in_another_run,
	};

	return run_tests("lineage", tests, TPD_ARRAY_LEN(tests));
}
