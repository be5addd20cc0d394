/*
 * t_manifest_limits.c - how much a manifest may hold, how much of it a reader keeps, and earlier versions.
 */
#include "base/tpd.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "manifest_build.h"
#include "store/manifest.h"

static void check_refused(const struct tpd_buf *body, const char *why)
{
	struct tpd_buf object = wrap(body->data, body->len);
	struct tpd_manifest m = {0};
	struct tpd_err err = {0};

	ck_assert_int_eq(tpd_manifest_parse(object.data, object.len, TPD_MANIFEST_SEGMENTS, &m, &err), TPD_CORRUPT);
	ck_assert_msg(strstr(err.text, why) != NULL, "%s", err.text);
	tpd_buf_release(&object);
}

/* The logical section of files "0" to "9" of this size, and the physical one up to the first file's record. */
static struct tpd_buf begin_files(unsigned files, uint64_t size)
{
	struct tpd_buf out = {0};

	tpd_buf_str(&out, "r");
	tpd_buf_varint(&out, 1);
	tpd_buf_u8(&out, 0);
	tpd_buf_varint(&out, files);
	for (unsigned f = 0; f < files; f++) {
		tpd_buf_str(&out, (char[]){(char)('0' + f), 0});
		tpd_buf_u8(&out, 0);
		tpd_buf_varint(&out, 0644);
		tpd_buf_varint(&out, size);
		fill(&out, 0, 32);
	}
	tpd_buf_u64(&out, 0);
	tpd_buf_str(&out, "");
	fill(&out, 0, 8 * files);
	fill(&out, 0, 4); /* no references, depth 0 */
	return out;
}

static void put_plain_segment(struct tpd_buf *out, uint64_t offset, uint64_t length)
{
	tpd_buf_str(out, "");
	tpd_buf_u8(out, 1);
	tpd_buf_varint(out, offset);
	tpd_buf_varint(out, length);
	tpd_buf_varint(out, 0);
	tpd_buf_varint(out, 1);
	fill(out, 0, 6); /* encoding, its comparison, stored, reference, terms, statistics */
}

START_TEST(entries_have_a_limit)
{
	struct tpd_buf body = {0};

	tpd_buf_str(&body, "r");
	tpd_buf_varint(&body, 1);
	tpd_buf_u8(&body, 0);
	tpd_buf_varint(&body, 65537);
	fill(&body, 0, 65537 * 4);
	check_refused(&body, "65537 times 'entry', and at most 65536");
	tpd_buf_release(&body);
}
END_TEST

START_TEST(segments_have_a_limit)
{
	struct tpd_buf body = begin_files(1, 1);

	tpd_buf_u8(&body, 0);
	tpd_buf_varint(&body, (1u << 20) + 2);
	fill(&body, 0, ((1u << 20) + 2) * 10);
	check_refused(&body, "1048578 times 'segment', and at most 1048577");
	tpd_buf_release(&body);
}
END_TEST

/* Files that are all within the limit and together ask for more memory than a manifest may; and the first wrong one ends it. */
START_TEST(all_files_have_one_limit)
{
	const uint64_t count = 1000000;
	struct tpd_buf body = begin_files(3, count * 64);

	for (unsigned f = 0; f < 3; f++) {
		tpd_buf_u8(&body, 1);
		tpd_buf_varint(&body, count + 1);
		put_plain_segment(&body, 0, 0);
		for (uint64_t s = 0; s < count; s++)
			put_plain_segment(&body, s * 64, 64);
		tpd_buf_varint(&body, 1);
		tpd_buf_varint(&body, 0);
		tpd_buf_varint(&body, count);
		tpd_buf_u64(&body, 96 + 32 * count);
		fill(&body, 0, 16);
	}
	check_refused(&body, "more than there is room for");
	tpd_buf_release(&body);
	body = begin_files(1, 1000);
	tpd_buf_u8(&body, 0);
	tpd_buf_varint(&body, 4);
	put_plain_segment(&body, 0, 1000 - 3 * 64);
	put_plain_segment(&body, 64, 64);
	put_plain_segment(&body, 0, 64);
	put_plain_segment(&body, 128, 64); /* and no parts: this was not come to */
	check_refused(&body, "segment 2 is not behind the one before");
	tpd_buf_release(&body);
}
END_TEST

/* Whoever only restores does not keep names and statistics, and refuses what everybody refuses. */
START_TEST(kept_in_part)
{
	struct tpd_buf object = honest_object();
	struct tpd_manifest all = {0}, slim = {0};

	ck_assert_int_eq(parse(object.data, object.len, &all), TPD_OK);
	ck_assert_int_eq(tpd_manifest_parse(object.data, object.len, TPD_MANIFEST_ABOUT, &slim, NULL), TPD_OK);
	ck_assert_str_eq(slim.entries[3].about[1].name, "layers.0.weight");
	ck_assert_ptr_null(slim.entries[3].about[1].stats);
	tpd_manifest_forget_about(&slim);
	ck_assert_ptr_null(slim.entries[3].about);
	tpd_manifest_release(&slim);
	ck_assert_int_eq(tpd_manifest_parse(object.data, object.len, TPD_MANIFEST_SEGMENTS, &slim, NULL), TPD_OK);
	ck_assert_ptr_null(slim.entries[3].about);
	ck_assert(tpd_id_equal(&slim.id, &all.id));
	for (uint32_t s = 0; s < 3; s++)
		ck_assert_mem_eq(&slim.entries[3].segments[s], &all.entries[3].segments[s], sizeof(struct tpd_segment));
	tpd_manifest_release(&slim);
	tpd_manifest_release(&all);
	tpd_buf_release(&object);
}
END_TEST

/* Version 1 is this without ties and slabs. */
START_TEST(version_1_stays_readable)
{
	struct tpd_buf body = {0}, object;
	struct tpd_manifest m = {0};

	version = 2;
	build_logical(&body);
	build_physical(&body);
	object = wrap(body.data, body.len);
	ck_assert_int_eq(verdict(object.data, object.len), TPD_CORRUPT); /* as version 2 */
	object.data[8] = 1;
	reseal(&object);
	ck_assert_int_eq(parse(object.data, object.len, &m), TPD_OK);
	ck_assert_uint_eq(m.tie_count, 0);
	ck_assert_uint_eq(m.entries[3].segment_count, 3);
	ck_assert_uint_eq(m.depth, 3);
	tpd_manifest_release(&m);
	build_ties(&body);
	tpd_buf_release(&object);
	object = wrap(body.data, body.len);
	ck_assert_int_eq(verdict(object.data, object.len), TPD_OK);
	object.data[8] = 1; /* which has nothing behind the files */
	reseal(&object);
	ck_assert_int_eq(verdict(object.data, object.len), TPD_CORRUPT);
	tpd_buf_release(&body);
	tpd_buf_release(&object);
}
END_TEST

/* Version 4 is this without another run's name, version 3 without predictors, version 2 without slabs, too. */
START_TEST(versions_2_to_6_stay_readable)
{
	struct tpd_err err = {0};
	struct tpd_buf body, object;
	struct tpd_manifest m = {0};
	size_t logical;

	version = 2;
	body = build_body(&logical);
	object = wrap(body.data, body.len);
	ck_assert_int_eq(parse(object.data, object.len, &m), TPD_OK);
	ck_assert_uint_eq(m.tie_count, 2);
	ck_assert_uint_eq(m.entries[3].slab_count, 0);
	ck_assert(!m.entries[3].segments[2].has_ref);
	tpd_manifest_release(&m);
	tpd_buf_release(&body);
	tpd_buf_release(&object);
	version = 3;
	body = build_body(&logical);
	object = wrap(body.data, body.len);
	ck_assert_int_eq(parse(object.data, object.len, &m), TPD_OK);
	ck_assert_uint_eq(m.entries[3].slab_count, 2);
	ck_assert_uint_eq(m.entries[3].predictor_count, 0);
	tpd_manifest_release(&m);
	object.data[8] = 4; /* which has something more about each segment */
	reseal(&object);
	ck_assert_int_ne(verdict(object.data, object.len), TPD_OK);
	object.data[8] = 2; /* which knows no slabs */
	reseal(&object);
	ck_assert_int_eq(verdict(object.data, object.len), TPD_UNSUPPORTED);
	tpd_buf_release(&body);
	tpd_buf_release(&object);
	version = 4;
	body = build_body(&logical);
	object = wrap(body.data, body.len);
	ck_assert_int_eq(parse(object.data, object.len, &m), TPD_OK);
	ck_assert_uint_eq(m.entries[3].predictor_count, 1);
	ck_assert(m.has_ref && !m.ref_run);
	tpd_manifest_release(&m);
	tpd_buf_release(&body);
	tpd_buf_release(&object);
	version = 5;
	body = build_body(&logical);
	object = wrap(body.data, body.len);
	ck_assert_int_eq(parse(object.data, object.len, &m), TPD_OK);
	ck_assert(!m.has_earlier && m.ref_run);
	tpd_manifest_release(&m);
	object.data[8] = 6; /* which may name an earlier checkpoint */
	reseal(&object);
	ck_assert_int_ne(verdict(object.data, object.len), TPD_OK);
	tpd_buf_release(&body);
	tpd_buf_release(&object);
	change = &(struct change){.label = "3.1.terms", .number = 2}; /* and of which w0 has no name */
	body = build_body(&logical);
	change = NULL;
	object = wrap(body.data, body.len);
	ck_assert_int_eq(verdict(object.data, object.len), TPD_CORRUPT);
	tpd_buf_release(&body);
	tpd_buf_release(&object);
	change = &(struct change){.label = "3.2.terms", .number = TPD_TERM_BEFORE}; /* of 16 bits */
	body = build_body(&logical);
	change = NULL;
	object = wrap(body.data, body.len);
	ck_assert_int_eq(tpd_manifest_parse(object.data, object.len, TPD_MANIFEST_ALL, &m, &err), TPD_CORRUPT);
	ck_assert_ptr_nonnull(strstr(err.text, "segment 2 is predicted in a way"));
	tpd_buf_release(&body);
	tpd_buf_release(&object);
	version = 6;
	body = build_body(&logical);
	object = wrap(body.data, body.len);
	ck_assert_int_eq(parse(object.data, object.len, &m), TPD_OK);
	ck_assert(m.has_earlier && m.entries[3].about[1].second_permille == 0);
	tpd_manifest_release(&m);
	object.data[8] = 7; /* which compares encodings */
	reseal(&object);
	ck_assert_int_ne(verdict(object.data, object.len), TPD_OK);
	tpd_buf_release(&body);
	tpd_buf_release(&object);
	object = honest_object();
	object.data[8] = 4; /* which knows no other runs */
	reseal(&object);
	ck_assert_int_eq(verdict(object.data, object.len), TPD_UNSUPPORTED);
	tpd_buf_release(&object);
	version = 7;
}
END_TEST

static enum tpd_status with_predictor(const struct tpd_predictor *predictor, void (*alter)(struct tpd_entry *entry))
{
	struct tpd_manifest m = {0};
	struct tpd_buf object = honest_object(), again = {0};
	enum tpd_status status;

	ck_assert_int_eq(parse(object.data, object.len, &m), TPD_OK);
	m.entries[3].predictors[0] = *predictor;
	if (alter)
		alter(&m.entries[3]);
	status = tpd_manifest_write(&m, &again, NULL);
	tpd_buf_release(&again);
	tpd_buf_release(&object);
	tpd_manifest_release(&m);
	return status;
}

static void without_reference(struct tpd_entry *entry)
{
	entry->segments[1].has_ref = false;
}

static void as_moments(struct tpd_entry *entry)
{
	entry->segments[2].dtype = TPD_DTYPE_F32; /* of another length */
}

static void as_integers(struct tpd_entry *entry)
{
	entry->segments[2].dtype = TPD_DTYPE_I16;
}

/* What a tensor may be predicted from. */
START_TEST(predictors_have_rules)
{
	ck_assert_int_eq(with_predictor(&(struct tpd_predictor){.segment = 1, .terms = 3}, NULL), TPD_OK);
	ck_assert_int_eq(with_predictor(&(struct tpd_predictor){.segment = 1, .terms = 1}, NULL), TPD_OK);
	ck_assert_int_eq(with_predictor(&(struct tpd_predictor){.segment = 1, .terms = 0}, NULL), TPD_USAGE);
	ck_assert_int_eq(with_predictor(&(struct tpd_predictor){.segment = 1, .terms = 16}, NULL), TPD_USAGE);
	ck_assert_int_eq(with_predictor(&(struct tpd_predictor){.segment = 2, .terms = 1}, NULL), TPD_USAGE); /* BF16, and slabs */
	ck_assert_int_eq(with_predictor(&(struct tpd_predictor){.segment = 2, .terms = 2}, NULL), TPD_OK); /* stepped */
	ck_assert_int_eq(with_predictor(&(struct tpd_predictor){.segment = 2, .terms = 2}, as_integers), TPD_USAGE);
	ck_assert_int_eq(with_predictor(&(struct tpd_predictor){.segment = 1, .terms = 1}, without_reference), TPD_USAGE);
	/* Moments: no such file, no such segment, another type, another length, itself. */
	ck_assert_int_eq(with_predictor(&(struct tpd_predictor){1, 3, 1, 3, 1, 8, 0, 0}, NULL), TPD_USAGE);
	ck_assert_int_eq(with_predictor(&(struct tpd_predictor){1, 1, 3, 1, 3, 8, 0, 0}, NULL), TPD_USAGE);
	ck_assert_int_eq(with_predictor(&(struct tpd_predictor){1, 1, 2, 1, 2, 8, 0, 0}, NULL), TPD_USAGE);
	ck_assert_int_eq(with_predictor(&(struct tpd_predictor){1, 1, 2, 1, 2, 8, 0, 0}, as_moments), TPD_USAGE);
	ck_assert_int_eq(with_predictor(&(struct tpd_predictor){1, 1, 1, 1, 1, 8, 0, 0}, NULL), TPD_USAGE);
	ck_assert_int_eq(with_predictor(&(struct tpd_predictor){1, 1, 0, 1, 0, 8, 0, 0}, NULL), TPD_USAGE);
}
END_TEST

/* Few bytes that ask for many slabs, and segments that ask for them one after the other. */
START_TEST(slabs_have_a_limit)
{
	struct tpd_manifest m = {0};
	struct tpd_buf object = honest_object();
	struct tpd_slab slabs[TPD_SLABS_MAX + 1];
	struct tpd_buf again = {0};
	struct tpd_entry *entry;

	for (size_t i = 0; i < TPD_ARRAY_LEN(slabs); i++)
		slabs[i] = (struct tpd_slab){.block = 1, .count = 1, .start = i};
	ck_assert_int_eq(parse(object.data, object.len, &m), TPD_OK);
	entry = &m.entries[3];
	ck_assert_int_eq(tpd_entry_refer(entry, 2, slabs, TPD_SLABS_MAX, false, NULL), TPD_OK);
	ck_assert_int_eq(tpd_manifest_write(&m, &again, NULL), TPD_OK);
	ck_assert_int_eq(verdict(again.data, again.len), TPD_OK);
	tpd_buf_release(&again);
	ck_assert_int_eq(tpd_entry_refer(entry, 2, slabs, TPD_SLABS_MAX + 1, false, NULL), TPD_OK);
	ck_assert_int_eq(tpd_manifest_write(&m, &again, NULL), TPD_USAGE);
	tpd_buf_release(&again);
	ck_assert_int_eq(tpd_entry_refer(entry, 0, slabs, 1, false, NULL), TPD_OK); /* glue */
	ck_assert_int_eq(tpd_manifest_write(&m, &again, NULL), TPD_USAGE);
	tpd_buf_release(&again);
	tpd_manifest_release(&m);
	tpd_buf_release(&object);
}
END_TEST

START_TEST(ties_are_kept_with_the_names)
{
	struct tpd_buf object = honest_object();
	struct tpd_manifest m = {0};

	for (unsigned keep = TPD_MANIFEST_SEGMENTS; keep <= TPD_MANIFEST_ALL; keep++) {
		ck_assert_int_eq(tpd_manifest_parse(object.data, object.len, keep, &m, NULL), TPD_OK);
		ck_assert_uint_eq(m.tie_count, keep == TPD_MANIFEST_SEGMENTS ? 0 : 2);
		if (m.tie_count) {
			ck_assert_int_eq(m.ties[0].kind, TPD_STATE_MASTER);
			ck_assert_uint_eq(m.ties[0].owner.segment, 2);
			ck_assert_uint_eq(m.ties[0].owner.first, 10);
			ck_assert(m.ties[0].checked && !m.ties[1].checked);
			ck_assert_uint_eq(m.ties[1].state.first, 1000);
			ck_assert_uint_eq(m.ties[1].elements, T2_LEN / 2 - 5000);
		}
		tpd_manifest_release(&m);
	}
	tpd_buf_release(&object);
}
END_TEST

/* Those of one tensor, however many there are before it and behind it. */
START_TEST(ties_are_found)
{
	struct tpd_tie ties[] = {
		{.state = {0, 2, 0}}, {.state = {1, 1, 0}},  {.state = {1, 3, 0}},
		{.state = {1, 3, 8}}, {.state = {1, 3, 40}}, {.state = {4, 1, 7}},
	};
	static const struct {
		uint32_t file, segment, first, count;
	} rows[] = {{0, 2, 0, 1}, {1, 1, 1, 1}, {1, 3, 2, 3}, {4, 1, 5, 1}, {0, 1, 0, 0}, {0, 3, 0, 0},
		    {1, 2, 0, 0}, {1, 4, 0, 0}, {2, 1, 0, 0}, {4, 0, 0, 0}, {4, 2, 0, 0}, {5, 1, 0, 0}};
	const struct tpd_manifest m = {.ties = ties, .tie_count = TPD_ARRAY_LEN(ties)}, none = {0};
	uint32_t count;

	for (size_t i = 0; i < TPD_ARRAY_LEN(rows); i++) {
		ck_assert_ptr_eq(tpd_manifest_ties(&m, rows[i].file, rows[i].segment, &count), rows[i].count ? ties + rows[i].first : NULL);
		ck_assert_uint_eq(count, rows[i].count);
	}
	ck_assert_ptr_null(tpd_manifest_ties(&none, 0, 1, &count));
	ck_assert_uint_eq(count, 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("manifest limits");
	TCase *tests = tcase_create("manifest limits");
	SRunner *runner = srunner_create(suite);
	int failed;

	suite_add_tcase(suite, tests);
	tcase_set_timeout(tests, 120);
	tcase_add_test(tests, entries_have_a_limit);
	tcase_add_test(tests, segments_have_a_limit);
	tcase_add_test(tests, all_files_have_one_limit);
	tcase_add_test(tests, kept_in_part);
	tcase_add_test(tests, version_1_stays_readable);
	tcase_add_test(tests, versions_2_to_6_stay_readable);
	tcase_add_test(tests, slabs_have_a_limit);
	tcase_add_test(tests, predictors_have_rules);
	tcase_add_test(tests, ties_are_kept_with_the_names);
	tcase_add_test(tests, ties_are_found);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
