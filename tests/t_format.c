/* t_format.c - which parser a file gets, and the codec's row length. */
#include "base/tpd.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "format/format.h"
#include "format_file.h"

START_TEST(kind_names)
{
	ck_assert_str_eq(tpd_format_kind_name(TPD_FORMAT_OPAQUE), "opaque");
	ck_assert_str_eq(tpd_format_kind_name(TPD_FORMAT_SAFETENSORS), "safetensors");
	ck_assert_str_eq(tpd_format_kind_name(TPD_FORMAT_TORCH_ZIP), "torch-zip");
	ck_assert_str_eq(tpd_format_kind_name((enum tpd_format_kind)9), "?");
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
	tcase_add_test(tests, rows);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
