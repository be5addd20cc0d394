/*
 * t_lineage_types.c - references to tensors of another float type: BF16 and F16 models tuned from an F32 one, and F32 from those; and what
 * somebody who can make checksums right might claim of them.
 */
#include "base/tpd.h"

#include "lineage_help.h"

#include <math.h>

#define BF16 TPD_DTYPE_BF16
#define F16 TPD_DTYPE_F16
#define F32 TPD_DTYPE_F32

/* NaN, infinite, denormal and zero, of each sign, in three places. */
static void put_oddities(float *values)
{
	static const uint32_t odd[] = {0x7fc00000u, 0xffa12345u, 0x7f800000u, 0xff800000u, 0x00000001u, 0x807fffffu,
				       0x80000000u, 0x00000000u, 0x33800001u, 0xb3ffffffu, 0x477fefffu, 0x477ff000u};

	for (unsigned at = 1000; at < VALUES; at += 100000)
		memcpy(values + at, odd, sizeof(odd));
}

/* A model of one type and its fine-tune in another; what the latter takes alone and from the former. */
static void tune_in(enum tpd_dtype from, enum tpd_dtype to, double by, uint64_t *out_alone, uint64_t *out_from)
{
	float *values = model_make(1), *tuned;
	const char *kept;
	struct tpd_manifest m;

	put_oddities(values);
	for (unsigned i = 0; from != F32 && i < VALUES; i++) { /* what a run begins from is what the file says */
		uint32_t bits = bits_of(values[i]);

		bits = from == BF16 ? tpd_widen_bf16(tpd_round_bf16(bits)) : tpd_widen_f16(tpd_round_f16(bits));
		memcpy(&values[i], &bits, 4);
	}
	tuned = model_tune(values, 4, by);
	model_write(scratch("base"), values, from, NULL);
	store_and_move(NULL, scratch("base"), "base", 0);
	model_write(scratch("alone"), tuned, to, NULL);
	store_and_move("none", scratch("alone"), "alone", 20);
	model_write(scratch("tuned"), tuned, to, NULL);
	kept = store_and_move("base", scratch("tuned"), "tuned", 20);
	ck_assert_str_eq(reference_of("tuned@20"), "base@0");
	m = manifest_of("tuned@20");
	for (uint32_t s = 1; s < m.entries[0].segment_count; s++)
		ck_assert(!m.entries[0].segments[s].has_ref || m.entries[0].segments[s].converted);
	ck_assert(m.entries[0].segments[1].has_ref);
	tpd_manifest_release(&m);
	check_against("tuned@20", kept);
	*out_alone = stored_of("alone@20", 0);
	*out_from = stored_of("tuned@20", 0);
	free(tuned);
	free(values);
}

START_TEST(halves_of_an_f32_model)
{
	uint64_t alone, from;

	archive_open(16, 0, 2);
	tune_in(F32, _i ? F16 : BF16, _i ? 2e-7 : 2e-6, &alone, &from);
	ck_assert_uint_lt(from * 6, alone);
}
END_TEST

START_TEST(f32_of_a_half_model)
{
	uint64_t alone, from;

	archive_open(16, 0, 2);
	tune_in(_i ? F16 : BF16, F32, 2e-6, &alone, &from);
	ck_assert_uint_lt(from * 3, alone * 2);
}
END_TEST

/* The rounding itself takes nothing, and it is found; a chain of it goes on as any other, also to where the limit is. */
START_TEST(the_rounding_itself)
{
	float *values = model_make(1), *tuned;
	const char *kept;

	archive_open(3, 0, 2);
	model_write(scratch("base"), values, F32, NULL);
	store_and_move(NULL, scratch("base"), "base", 0);
	model_write(scratch("rounded"), values, BF16, NULL);
	kept = store_and_move(NULL, scratch("rounded"), "rounded", 0);
	ck_assert_str_eq(reference_of("rounded@0"), "base@0");
	ck_assert_uint_eq(stored_of("rounded@0", 0), 0);
	check_against("rounded@0", kept);
	for (uint64_t step = 1; step < 6; step++) {
		char name[32];

		tuned = model_tune(values, 4, 1e-6 * (double)step);
		snprintf(name, sizeof(name), "rounded@%d", (int)step);
		model_write(scratch("rounded"), tuned, BF16, NULL);
		kept = store_and_move(NULL, scratch("rounded"), "rounded", step);
		ck_assert_uint_le(depth_of(name), 3);
		check_against(name, kept);
		free(tuned);
	}
	/* And back: an F32 run from the last of them, three types deep. */
	tuned = model_tune(values, 4, 5.1e-6);
	model_write(scratch("wide"), tuned, F32, NULL);
	kept = store_and_move("rounded", scratch("wide"), "wide", 0);
	check_against("wide@0", kept);
	free(tuned);
	free(values);
}
END_TEST

/* The base's BF16 weights are put together from masters in two partitions, so that each chunk is one of several: no second such step. */
START_TEST(what_is_put_together_there)
{
	float *values = model_make(1), *tuned = model_tune(values, 4, 2e-6);
	float *moments = model_make(9);
	const struct tensor flat[2][2] = {
		{{"flat", F32, values, VALUES / 2}, {"state.0.exp_avg", F32, moments, VALUES / 2}},
		{{"flat", F32, values + VALUES / 2, VALUES / 2}, {"state.0.exp_avg", F32, moments + VALUES / 2, VALUES / 2}},
	};
	struct tpd_manifest m;

	archive_open(16, 0, 2);
	model_write(scratch("base"), values, BF16, NULL);
	for (unsigned rank = 0; rank < 2; rank++)
		tensors_write(scratch("base/rank_%u.safetensors", rank), flat[rank], 2);
	store_and_move(NULL, scratch("base"), "base", 0);
	m = manifest_of("base@0");
	ck_assert(m.entries[0].segments[1].derived && m.entries[0].segments[1].ref_segment == 2);
	tpd_manifest_release(&m);
	model_write(scratch("tuned"), tuned, F32, NULL);
	store_and_move("base", scratch("tuned"), "tuned", 20);
	ck_assert_str_eq(reference_of("tuned@20"), "");
	free(moments);
	free(tuned);
	free(values);
}
END_TEST

/* Wrapped, unwrapped, and wrapped otherwise; each tensor, of the same type and of another. */
START_TEST(names_that_begin_otherwise)
{
	static const char *const prefixes[][2] = {{"", "module."}, {"module.", ""}, {"_orig_mod.", "state_dict."}, {"", "a.b.c."}};
	float *values = model_make(1), *tuned = model_tune(values, 4, 2e-6);

	archive_open(16, 0, 2);
	for (unsigned i = 0; i < TPD_ARRAY_LEN(prefixes); i++)
		for (unsigned half = 0; half < 2; half++) {
			char base[16], run[16], name[32];
			struct tpd_manifest m;
			const char *kept;

			snprintf(base, sizeof(base), "base-%u-%u", i, half);
			snprintf(run, sizeof(run), "tuned-%u-%u", i, half);
			snprintf(name, sizeof(name), "%s@0", run);
			name_prefix = prefixes[i][0];
			model_write(scratch("c"), values, F32, NULL);
			store_and_move("none", scratch("c"), base, 0);
			name_prefix = prefixes[i][1];
			model_write(scratch("c"), tuned, half ? BF16 : F32, NULL);
			kept = store_and_move(base, scratch("c"), run, 0);
			m = manifest_of(name);
			for (uint32_t s = 1; s < m.entries[0].segment_count; s++)
				ck_assert(m.entries[0].segments[s].has_ref && m.entries[0].segments[s].converted == half);
			tpd_manifest_release(&m);
			check_against(name, kept);
			/* What it is called the next time is another tensor, within a run. */
			name_prefix = "other.";
			model_write(scratch("c"), tuned, half ? BF16 : F32, NULL);
			store_and_move(NULL, scratch("c"), run, 1);
			snprintf(name, sizeof(name), "%s@1", run);
			ck_assert_uint_gt(stored_of(name, 0), 1000);
		}
	name_prefix = "wrapped.";
	model_write(scratch("c"), values, F32, NULL);
	store_and_move(NULL, scratch("c"), "found", 0);
	ck_assert_uint_eq(stored_of("found@0", 0), 0);
	name_prefix = "";
	free(tuned);
	free(values);
}
END_TEST

/* Of another length there is nothing to convert; integers and glue have no other type. */
START_TEST(what_cannot_be_converted)
{
	float *values = model_make(1);
	struct tensor longer = {"model.embed.weight", BF16, values, 200000};
	struct tpd_manifest m;

	archive_open(16, 0, 1);
	model_write(scratch("base"), values, F32, NULL);
	store_and_move(NULL, scratch("base"), "base", 0);
	mkdir(scratch("longer"), 0755);
	tensors_write(scratch("longer/model.safetensors"), &longer, 1);
	store_and_move("base", scratch("longer"), "longer", 0);
	m = manifest_of("longer@0");
	ck_assert(!m.has_ref && !m.entries[0].segments[1].has_ref);
	tpd_manifest_release(&m);
	free(values);
}
END_TEST

/* --- forged --- */

static void forge(const char *name, void (*change)(struct tpd_manifest *m), enum tpd_status expect)
{
	struct tpd_manifest m = manifest_of(name);

	change(&m);
	forge_manifest(&m, expect);
	tpd_manifest_release(&m);
}

static void of_its_own_type(struct tpd_manifest *m)
{
	m->entries[0].segments[1].converted = false; /* and it is of F32 */
}

static void of_two_types(struct tpd_manifest *m)
{
	const struct tpd_slab slabs[2] = {{.file = 0, .segment = 1, .block = 1000, .count = 1},
					  {.file = 1, .segment = 1, .start = 1000, .block = 1000, .count = 1}};

	OK(tpd_entry_refer(&m->entries[0], 1, slabs, 2, false, &err));
	m->entries[0].segments[1].converted = true;
}

static void of_the_same_type(struct tpd_manifest *m)
{
	OK(tpd_entry_refer(&m->entries[0], 1, &(struct tpd_slab){.file = 1, .segment = 1, .block = 1000, .count = 1}, 1, false, &err));
	m->entries[0].segments[1].converted = true;
}

static void from_behind_its_end(struct tpd_manifest *m)
{
	const struct tpd_slab slab = {.segment = 1, .ref_start = 1, .block = 150000, .count = 1};

	OK(tpd_entry_refer(&m->entries[0], 1, &slab, 1, false, &err));
	m->entries[0].segments[1].converted = true;
}

static void from_elsewhere(struct tpd_manifest *m)
{
	const struct tpd_slab slab = {.segment = 1, .ref_start = 1, .block = 149999, .count = 1};

	OK(tpd_entry_refer(&m->entries[0], 1, &slab, 1, false, &err));
	m->entries[0].segments[1].converted = true;
}

static void of_this_checkpoint(struct tpd_manifest *m)
{
	m->entries[0].segments[1].derived = true;
}

static void without_slabs(struct tpd_manifest *m)
{
	m->entries[0].segments[1].in_slabs = false;
}

static void of_integers(struct tpd_manifest *m)
{
	m->entries[0].segments[1].dtype = TPD_DTYPE_I16;
}

START_TEST(forged)
{
	static const struct {
		void (*change)(struct tpd_manifest *m);
		enum tpd_status written; /* what is OK there is found by the chain */
		const char *text;
	} rows[] = {
		{of_its_own_type, TPD_OK, "of another type or size"},
		{of_two_types, TPD_OK, "of another type or size"},
		{of_the_same_type, TPD_OK, "of another type or size"},
		{from_behind_its_end, TPD_OK, "of another type or size"},
		{from_elsewhere, TPD_OK, "recorded digest"},
		{of_this_checkpoint, TPD_USAGE, NULL},
		{without_slabs, TPD_USAGE, NULL},
		{of_integers, TPD_USAGE, NULL},
	};
	float *values = model_make(1), *tuned = model_tune(values, 4, 2e-6);
	struct tensor extra = {"z.weight", BF16, tuned, 150000};
	struct tpd_archive_name which;

	archive_open(16, 0, 1);
	model_write(scratch("base"), values, F32, NULL);
	tensors_write(scratch("base/z.safetensors"), &extra, 1); /* a BF16 that there is, too */
	store_and_move(NULL, scratch("base"), "base", 0);
	for (size_t i = 0; i < TPD_ARRAY_LEN(rows); i++) {
		char run[16], name[32];

		snprintf(run, sizeof(run), "tuned-%zu", i);
		snprintf(name, sizeof(name), "%s@20", run);
		model_write(scratch("tuned"), values, BF16, NULL);
		store_and_move("base", scratch("tuned"), run, 20);
		forge(name, rows[i].change, rows[i].written);
		if (rows[i].written)
			continue;
		which = resolve(name);
		ck_assert_int_eq(tpd_archive_verify(archive, &which.id, NULL, &err), TPD_CORRUPT);
		ck_assert_msg(strstr(err.text, rows[i].text) != NULL, "%zu: %s", i, err.text);
	}
	free(tuned);
	free(values);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("lineage types");
	TCase *tc = tcase_create("lineage types");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 240);
	tcase_add_loop_test(tc, halves_of_an_f32_model, 0, 2);
	tcase_add_loop_test(tc, f32_of_a_half_model, 0, 2);
	tcase_add_test(tc, the_rounding_itself);
	tcase_add_test(tc, what_is_put_together_there);
	tcase_add_test(tc, names_that_begin_otherwise);
	tcase_add_test(tc, what_cannot_be_converted);
	tcase_add_test(tc, forged);
	suite_add_tcase(suite, tc);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
