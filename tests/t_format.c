/* t_format.c - which parser a file gets, and the codec's row length. */
#include "base/tpd.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "format/format.h"
#include "format/parse.h"
#include "format_file.h"

START_TEST(kind_names)
{
	ck_assert_str_eq(tpd_format_kind_name(TPD_FORMAT_OPAQUE), "opaque");
	ck_assert_str_eq(tpd_format_kind_name(TPD_FORMAT_SAFETENSORS), "safetensors");
	ck_assert_str_eq(tpd_format_kind_name(TPD_FORMAT_TORCH_ZIP), "torch-zip");
	ck_assert_str_eq(tpd_format_kind_name(TPD_FORMAT_ONNX_DATA), "onnx-data");
	ck_assert_str_eq(tpd_format_kind_name(TPD_FORMAT_KINDS), "?");
	for (int kind = 0; kind < TPD_FORMAT_KINDS; kind++)
		ck_assert_str_ne(tpd_format_kind_name((enum tpd_format_kind)kind), "?");
}
END_TEST

static void is_opaque(const char *path, const char *data, size_t size, const char *reason)
{
	struct tpd_format_layout layout = parse_bytes(path, data, size);

	ck_assert_int_eq(layout.kind, TPD_FORMAT_OPAQUE);
	ck_assert_str_eq(layout.reason, reason);
	tpd_format_layout_release(&layout);
}

START_TEST(dispatch)
{
	struct tpd_format_layout layout = parse_bytes("x", "\2\0\0\0\0\0\0\0{}", 10);

	ck_assert_int_eq(layout.kind, TPD_FORMAT_SAFETENSORS);
	ck_assert_uint_eq(layout.count, 0);
	tpd_format_layout_release(&layout);
	is_opaque("x", NULL, 0, "");
	is_opaque(NULL, "PK\3\4", 4, "");
	is_opaque("x.pt", "{\"a\": [1, 2, 3]}", 16, "");
	is_opaque("x", "PK\3\4.....", 9, "torch zip: no end record");
	is_opaque("x", "\x01\xe1\xf5\x05\0\0\0\0{", 9, ""); /* a length of 100,000,001 */
	is_opaque("x", "\x00\xe1\xf5\x05\0\0\0\0{", 9, "safetensors: the header reaches past the end of the file");
	is_opaque("a/x.safetensors", "\xff\xff\xff\xff\xff\xff\xff\xff{", 9,
		  "safetensors: the header reaches past the end of the file");
	is_opaque("x.safetensors", "", 0, "safetensors: shorter than a header's length");
	is_opaque("x.safetensors", "\0\0\0\0\0\0\0\0", 8,
		  "safetensors header: the header is no JSON object (after 0 tensors)");
	is_opaque("x.safetensors.tmp", "", 0, "");
}
END_TEST

/* ---- names ---- */

/* Segments of 64 bytes each, one behind the other, with these names; the layout's kind. */
static struct tpd_format_layout accept(const char *const *names, size_t count)
{
	struct tpd_format_segment *segments = calloc(count, sizeof *segments);
	struct tpd_format_layout layout;

	ck_assert_ptr_nonnull(segments);
	for (size_t i = 0; i < count; i++)
		segments[i] = (struct tpd_format_segment){.name = strdup(names[i]), .offset = 64 * i, .length = 64};
	ck_assert_int_eq(tpd_format_accept(&layout, TPD_FORMAT_TORCH_ZIP, 64 * count, segments, count, NULL), TPD_OK);
	return layout;
}

START_TEST(names_are_made_unique)
{
	static const struct {
		const char *given[4], *made[4]; /* made[0] NULL: opaque */
	} cases[] = {
		{{"a", "b", "c", "d"}, {"a", "b", "c", "d"}},
		{{"w", "w", "w", "a"}, {"w", "w#2", "w#3", "a"}},
		{{"w", "v", "w", "v"}, {"w", "v", "w#2", "v#2"}},
		{{"w#2", "w", "x", "y"}, {"w#2", "w", "x", "y"}},
		{{"w", "w", "w#3", "x"}, {"w", "w#2", "w#3", "x"}},
		{{"w", "w", "w#2", "x"}, {NULL}}, /* what is made is there already: nobody's checkpoint */
		{{"x", "", "", "y"}, {"x", "#1", "#2", "y"}}, /* the glue is "" */
		{{"x", "", "#1", "y"}, {NULL}},
	};

	for (size_t i = 0; i < TPD_ARRAY_LEN(cases); i++) {
		struct tpd_format_layout layout = accept(cases[i].given, 4);

		ck_assert_str_eq(layout.reason, cases[i].made[0] ? "" : "two tensors of one name");
		ck_assert_uint_eq(layout.count, cases[i].made[0] ? 4 : 0);
		for (size_t k = 0; k < layout.count; k++) {
			ck_assert_str_eq(layout.segments[k].name, cases[i].made[k]);
			ck_assert_uint_eq(layout.segments[k].offset, 64 * k);
		}
		tpd_format_layout_release(&layout);
	}
}
END_TEST

/* A name of the greatest length has no room for a number. */
START_TEST(long_names_have_no_number)
{
	char name[TPD_FORMAT_MAX_NAME + 1];
	const char *names[] = {name, name};
	struct tpd_format_layout layout;

	memset(name, 'w', TPD_FORMAT_MAX_NAME);
	name[TPD_FORMAT_MAX_NAME] = 0;
	layout = accept(names, 2);
	ck_assert_str_eq(layout.reason, "two tensors of one name");
	name[TPD_FORMAT_MAX_NAME - 2] = 0;
	layout = accept(names, 2);
	ck_assert_uint_eq(layout.count, 2);
	tpd_format_layout_release(&layout);
}
END_TEST

START_TEST(many_equal_names)
{
	size_t count = 100000;
	const char **names = calloc(count, sizeof *names);
	struct tpd_format_layout layout;

	ck_assert_ptr_nonnull(names);
	for (size_t i = 0; i < count; i++)
		names[i] = "w";
	layout = accept(names, count);
	ck_assert_uint_eq(layout.count, count);
	ck_assert_str_eq(layout.segments[0].name, "w");
	ck_assert_str_eq(layout.segments[count - 1].name, "w#100000");
	tpd_format_layout_release(&layout);
	free(names);
}
END_TEST

static uint32_t row(unsigned ndim, uint64_t a, uint64_t b, uint64_t c, uint64_t elements)
{
	uint64_t dims[3] = {a, b, c};

	return tpd_format_row(ndim, dims, elements);
}

START_TEST(rows)
{
	ck_assert_uint_eq(tpd_format_row(0, NULL, 5000), 1024);
	ck_assert_uint_eq(row(1, 256, 0, 0, 256), 256);
	ck_assert_uint_eq(row(1, 8192, 0, 0, 8192), 8192);
	ck_assert_uint_eq(row(2, 7200, 256, 0, 7200 * 256), 256);
	ck_assert_uint_eq(row(2, 100, 64, 0, 6400), 64);
	ck_assert_uint_eq(row(2, 100, 63, 0, 6300), 6300); /* merged */
	ck_assert_uint_eq(row(3, 64, 3, 3, 576), 576);
	ck_assert_uint_eq(row(3, 512, 32, 3, 49152), 96);
	ck_assert_uint_eq(row(1, 10, 0, 0, 10), 10);
	ck_assert_uint_eq(row(1, 8193, 0, 0, 8193), 2731);  /* 3 parts */
	ck_assert_uint_eq(row(2, 2, 11008, 0, 22016), 5504);
	ck_assert_uint_eq(row(2, 2, 53248, 0, 106496), 6656); /* 8 parts where 7 would not be even */
	ck_assert_uint_eq(row(1, 50261, 0, 0, 50261), 7181);  /* a prime: 7 parts, the last one shorter */
	ck_assert_uint_eq(row(2, 3, 1000003, 0, 3000009), 8131);
	ck_assert_uint_eq(row(1, 0, 0, 0, 0), 1024);
	ck_assert_uint_eq(row(2, 5, 0, 0, 0), 1024);
	ck_assert_uint_eq(row(1, 100, 0, 0, 99), 1024); /* not this storage's shape */
	ck_assert_uint_eq(row(2, UINT64_MAX, 63, 0, 4096), 1024);
	ck_assert_uint_eq(row(1, UINT64_MAX, 0, 0, UINT64_MAX), 8192);
	for (uint64_t n = 1; n < 100000; n++) {
		uint32_t r = row(1, n, 0, 0, n);

		ck_assert(r >= 1 && r <= 8192);
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("format");
	TCase *tests = tcase_create("format");
	SRunner *runner = srunner_create(suite);
	int failed;

	suite_add_tcase(suite, tests);
	tcase_add_test(tests, kind_names);
	tcase_add_test(tests, dispatch);
	tcase_add_test(tests, names_are_made_unique);
	tcase_add_test(tests, long_names_have_no_number);
	tcase_add_test(tests, many_equal_names);
	tcase_add_test(tests, rows);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
