/*
 * t_npy.c - headers as numpy writes them are understood, others are not; arrays in zips.
 */
#include "base/tpd.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "format/format.h"
#include "format_file.h"
#include "zip_build.h"

/* A .npy of version 1.0, or with major above, with this header and so many bytes behind it. */
static struct tpd_buf npy(uint8_t major, const char *header, size_t data)
{
	struct tpd_buf buf = {0};

	tpd_buf_put(&buf, "\x93NUMPY", 6);
	tpd_buf_u8(&buf, major);
	tpd_buf_u8(&buf, 0);
	if (major == 1)
		tpd_buf_u16(&buf, (uint16_t)strlen(header));
	else
		tpd_buf_u32(&buf, (uint32_t)strlen(header));
	tpd_buf_put(&buf, header, strlen(header));
	for (size_t i = 0; i < data; i++)
		tpd_buf_u8(&buf, (uint8_t)i);
	return buf;
}

#define H(descr, order, shape) "{'descr': " descr ", 'fortran_order': " order ", 'shape': " shape ", }   \n"
#define LONG_DATA "the data is not as long as its shape and type say"
#define BAD "a header that is not numpy's"

static const struct {
	const char *header;
	size_t data;
	const char *dtype, *shape; /* "": none */
	const char *reason;
} headers[] = {
	{H("'<f4'", "False", "(3, 8)"), 96, "F32", "3,8", ""},
	{H("'<f4'", "True", "(3, 8)"), 96, "F32", "8,3", ""},
	{H("'<f2'", "True", "(2, 3, 16)"), 192, "F16", "16,3,2", ""},
	{H("'<f8'", "False", "(8,)"), 64, "F64", "8", ""},
	{H("'|i1'", "False", "(64,)"), 64, "I8", "64", ""},
	{H("'|u1'", "False", "(64,)"), 64, "U8", "64", ""},
	{H("'|b1'", "False", "(64,)"), 64, "BOOL", "64", ""},
	{H("'<i2'", "False", "(32,)"), 64, "I16", "32", ""},
	{H("'<u2'", "False", "(32,)"), 64, "U16", "32", ""},
	{H("'<i4'", "False", "(16,)"), 64, "I32", "16", ""},
	{H("'<u4'", "False", "(16,)"), 64, "U32", "16", ""},
	{H("'<i8'", "False", "(8L,)"), 64, "I64", "8", ""},
	{H("'<u8'", "False", "(8,)"), 64, "U64", "8", ""},
	{H("'<c8'", "False", "(8,)"), 64, "C64", "8", ""},
	{H("'>f4'", "False", "(3, 8)"), 96, "", "", ""},
	{H("'<c16'", "False", "(8,)"), 128, "", "", ""},
	{H("'|V2'", "False", "(32,)"), 64, "", "", ""},
	{H("'<U16'", "False", "(1,)"), 64, "", "", ""},
	{H("'<M8[ns]'", "False", "(8,)"), 64, "", "", ""},
	{H("'|O'", "False", "(3,)"), 99, "", "", ""},
	{H("[('a', '<f4'), ('b', '<i4', (2, 2))]", "False", "(3,)"), 99, "", "", ""},
	{H("[('}]', '<f4')]", "False", "(3,)"), 99, "", "", ""},
	{H("'<f4'", "False", "(1,1,1,1,1,1,1,4,4)"), 64, "F32", "", ""}, /* more dimensions than we keep */
	{"{'shape': (16,), 'fortran_order': False, 'descr': '<f4'}", 64, "F32", "16", ""},
	{H("'<f4'", "False", "(3, 8)"), 95, "", "", LONG_DATA},
	{H("'<f4'", "False", "(3, 8)"), 97, "", "", LONG_DATA},
	{H("'>f4'", "False", "(3, 8)"), 97, "", "", LONG_DATA},
	{H("'<U17'", "False", "(1,)"), 64, "", "", LONG_DATA},
	{H("'<f4'", "False", "()"), 64, "", "", LONG_DATA},
	{H("'<f4'", "False", "(0,)"), 64, "", "", LONG_DATA},
	{H("'<f4'", "False", "(4611686018427387904,)"), 64, "", "", LONG_DATA}, /* 2^62: bytes overflow */
	{H("'<f4'", "False", "(4294967296, 4294967296)"), 64, "", "", BAD},
	{H("'<f4'", "False", "(18446744073709551616,)"), 64, "", "", BAD},
	{H("'<f4'", "False", "(-1,)"), 64, "", "", BAD},
	{H("'<f4'", "False", "(16"), 64, "", "", BAD},
	{H("'<f4'", "False", "16"), 64, "", "", BAD},
	{H("'<f4'", "false", "(16,)"), 64, "", "", BAD},
	{H("'<f4", "False", "(16,)"), 64, "", "", BAD},
	{H("'<f\\4'", "False", "(16,)"), 64, "", "", BAD},
	{H("<f4", "False", "(16,)"), 64, "", "", BAD},
	{H("[[[[", "False", "(16,)"), 64, "", "", BAD},
	{H("['a]", "False", "(16,)"), 64, "", "", BAD},
	{"{'descr': '<f4', 'descr': '<f4', 'shape': (16,)}", 64, "", "", BAD},
	{"{'descr': '<f4', 'shape': (16,)}", 64, "", "", BAD},
	{"{'descr': '<f4', 'fortran_order': False, 'shape': (16,), 'x': 1}", 64, "", "", BAD},
	{"{'descr': '<f4' 'fortran_order': False, 'shape': (16,)}", 64, "", "", BAD},
	{"{'descr': '<f4', 'fortran_order': False, 'shape': (16,)} x", 64, "", "", BAD},
	{"{'descr': '<f4', 'fortran_order': False, 'shape': (16,)", 64, "", "", BAD},
	{"{", 64, "", "", BAD},
	{" ", 64, "", "", BAD},
};

static void expect_segment(const struct tpd_format_segment *segment, const char *dtype, const char *shape)
{
	struct tpd_buf text = {0};

	ck_assert_str_eq(segment->typed ? tpd_dtype_name(segment->dtype) : "", dtype);
	for (unsigned i = 0; i < segment->ndim; i++)
		tpd_buf_printf(&text, "%s%llu", i ? "," : "", (unsigned long long)segment->dims[i]);
	tpd_buf_u8(&text, 0);
	ck_assert_str_eq((const char *)text.data, shape);
	tpd_buf_release(&text);
}

START_TEST(header_of_each_kind)
{
	for (uint8_t major = 1; major <= 3; major++) {
		struct tpd_buf buf = npy(major, headers[_i].header, headers[_i].data);
		struct tpd_format_layout layout = parse_bytes("x", buf.data, buf.len);

		ck_assert_str_eq(layout.reason[0] ? layout.reason + strlen("npy: ") : "", headers[_i].reason);
		if (!layout.reason[0]) {
			ck_assert_int_eq(layout.kind, TPD_FORMAT_NPY);
			ck_assert_uint_eq(layout.count, 1);
			ck_assert_str_eq(layout.segments[0].name, "array");
			ck_assert_uint_eq(layout.segments[0].length, headers[_i].data);
			expect_segment(&layout.segments[0], headers[_i].dtype, headers[_i].shape);
		}
		tpd_format_layout_release(&layout);
		tpd_buf_release(&buf);
	}
}
END_TEST

START_TEST(prefixes)
{
	struct tpd_buf buf = npy(2, H("'<f4'", "False", "(16,)"), 64);
	static const struct {
		unsigned at;
		uint8_t value;
		const char *reason;
	} changes[] = {{6, 0, "npy: no header"},     {6, 4, "npy: no header"},  {7, 1, "npy: no header"},
		       {11, 0xff, "npy: no header"}, {10, 1, "npy: no header"}, {5, 'X', ""}};

	for (size_t i = 0; i < TPD_ARRAY_LEN(changes); i++) {
		uint8_t was = buf.data[changes[i].at];
		struct tpd_format_layout layout;

		buf.data[changes[i].at] = changes[i].value;
		layout = parse_bytes("x", buf.data, buf.len);
		ck_assert_int_eq(layout.kind, TPD_FORMAT_OPAQUE);
		ck_assert_str_eq(layout.reason, changes[i].reason);
		tpd_format_layout_release(&layout);
		buf.data[changes[i].at] = was;
	}
	for (size_t size = 0; size < buf.len; size++) {
		struct tpd_format_layout layout = parse_bytes("x", buf.data, size);

		ck_assert_int_eq(layout.kind, TPD_FORMAT_OPAQUE);
		tpd_format_layout_release(&layout);
	}
	tpd_buf_release(&buf);
}
END_TEST

START_TEST(any_byte_changed)
{
	struct tpd_buf buf = npy(1, H("[('a', '<f4')]", "False", "(16,)"), 64);

	change_each_byte("x", buf.data, buf.len, buf.len - 64);
	tpd_buf_release(&buf);
}
END_TEST

/* ---- zips ---- */

static void add_npy(struct zip *zip, const char *name, const char *header, size_t data, enum how how)
{
	struct tpd_buf buf = npy(1, header, data);

	add_bytes(zip, name, buf.data, buf.len, how);
	tpd_buf_release(&buf);
}

START_TEST(arrays_in_a_zip)
{
	struct zip zip = {.count = 0};
	struct tpd_format_layout layout;
	const struct tpd_format_segment *s;

	add_npy(&zip, "layers/0.w.npy", H("'<f4'", "False", "(3, 8)"), 96, STORED);
	add_npy(&zip, "deflated.npy", H("'<f4'", "False", "(3, 8)"), 96, DEFLATED);
	add_npy(&zip, "lies.npy", H("'<f4'", "False", "(3, 9)"), 96, STORED);
	add_member(&zip, "other.npy", 100, STORED);
	add_npy(&zip, "\xff.npy", H("'<f4'", "False", "(3, 8)"), 96, STORED);
	add_npy(&zip, "small.npy", H("'<f4'", "False", "()"), 4, STORED);
	add_npy(&zip, "f.npy", H("'<f8'", "True", "(2, 8)"), 128, WIDE);
	finish(&zip, false, "");
	layout = parse_bytes("x.npz", zip.file.data, zip.file.len);
	ck_assert_int_eq(layout.kind, TPD_FORMAT_NPZ);
	ck_assert_uint_eq(layout.count, 2);
	s = layout.segments;
	ck_assert_str_eq(s[0].name, "layers/0.w");
	ck_assert_uint_eq(s[0].offset, zip.data_at[1] - 30 - strlen("deflated.npy") - 96);
	expect_segment(&s[0], "F32", "3,8");
	ck_assert_str_eq(s[1].name, "f");
	expect_segment(&s[1], "F64", "8,2");
	tpd_format_layout_release(&layout);
	tpd_buf_release(&zip.file);
}
END_TEST

START_TEST(other_zips)
{
	static const char *const names[] = {"a.txt", ".npy", "npy", "a.npy/b"};

	for (size_t i = 0; i < TPD_ARRAY_LEN(names); i++) {
		struct zip zip = {.count = 0};
		struct tpd_format_layout layout;

		add_npy(&zip, "a.npy", H("'<f4'", "False", "(3, 8)"), 96, STORED);
		add_npy(&zip, names[i], H("'<f4'", "False", "(3, 8)"), 96, STORED);
		finish(&zip, false, "");
		layout = parse_bytes("x.npz", zip.file.data, zip.file.len);
		ck_assert_str_eq(layout.reason, "torch zip: no directory that is common to all members");
		tpd_format_layout_release(&layout);
		tpd_buf_release(&zip.file);
	}
}
END_TEST

START_TEST(failing_reads_end_the_parse)
{
	struct zip zip = {.count = 0};
	int at = 0;

	add_npy(&zip, "a.npy", H("'<f4'", "False", "(3, 8)"), 96, STORED);
	add_npy(&zip, "b.npy", H("'<f4'", "False", "(3, 8)"), 96, STORED);
	finish(&zip, false, "");
	for (;;) {
		struct format_file file = {.data = zip.file.data, .size = zip.file.len, .fail_at = ++at};
		struct tpd_format_layout layout;

		if (tpd_format_parse("x", file.size, format_file_read, &file, NULL, &layout, NULL) == TPD_OK) {
			tpd_format_layout_release(&layout);
			break;
		}
	}
	/* the head; end, locator, directory; two a member; two an array; one that does not fail */
	ck_assert_int_eq(at, 1 + 3 + 2 * 2 + 2 * 2 + 1);
	tpd_buf_release(&zip.file);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("npy");
	TCase *tests = tcase_create("npy");
	SRunner *runner = srunner_create(suite);
	int failed;

	suite_add_tcase(suite, tests);
	tcase_set_timeout(tests, 120);
	tcase_add_loop_test(tests, header_of_each_kind, 0, (int)TPD_ARRAY_LEN(headers));
	tcase_add_test(tests, prefixes);
	tcase_add_test(tests, any_byte_changed);
	tcase_add_test(tests, arrays_in_a_zip);
	tcase_add_test(tests, other_zips);
	tcase_add_test(tests, failing_reads_end_the_parse);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
