/* t_text.c - sizes, durations, times, names. */
#include "base/tpd.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

START_TEST(bytes_are_written)
{
	static const struct {
		uint64_t bytes;
		const char *text;
	} cases[] = {
		{0, "0 B"},           {999, "999 B"},         {1000, "1.00 kB"},      {1234567, "1.23 MB"},
		{9994, "9.99 kB"},    {9996, "10.0 kB"},      {99949, "99.9 kB"},     {99960, "100 kB"},
		{999499, "999 kB"},   {999500, "1.00 MB"},    {34000000, "34.0 MB"},  {4000000000, "4.00 GB"},
		{UINT64_MAX, "18.4 EB"},
	};
	char out[TPD_TEXT_SIZE];

	for (size_t i = 0; i < TPD_ARRAY_LEN(cases); i++)
		ck_assert_str_eq(tpd_text_bytes(cases[i].bytes, out), cases[i].text);
}
END_TEST

START_TEST(nothing_in_it_commands_a_terminal)
{
	static const char *const cases[][2] = {
		{"", ""},
		{"größe 模型", "größe 模型"},
		{"a\033[31mb\nc\x7f", "a?[31mb?c?"},
		{"c1 \xc2\x9b 2J", "c1 ? 2J"},
		{"\xe2\x80\xaereversed", "?reversed"},
		{"\xff\xfe \xc3", "?? ?"},
	};

	for (size_t i = 0; i < TPD_ARRAY_LEN(cases); i++) {
		char text[64];

		strcpy(text, cases[i][0]);
		ck_assert_str_eq(tpd_text_scrub(text), cases[i][1]);
	}
	ck_assert_uint_eq(tpd_text_code_point("\xe6\xa8\xa1", 3), 0x6a21);
}
END_TEST

START_TEST(durations_are_written)
{
	char out[TPD_TEXT_SIZE];

	ck_assert_str_eq(tpd_text_duration(7, out), "0:07");
	ck_assert_str_eq(tpd_text_duration(754.9, out), "12:34");
	ck_assert_str_eq(tpd_text_duration(10921, out), "3:02:01");
	ck_assert_str_eq(tpd_text_duration(-1, out), "0:00");
	ck_assert_str_eq(tpd_text_duration(1e300, out), "277777777:46:40");
}
END_TEST

START_TEST(times_are_written)
{
	char out[TPD_TEXT_SIZE];

	ck_assert_str_eq(tpd_text_time(1795460373123456789, out), "2026-11-23 18:59:33");
	ck_assert_str_eq(tpd_text_time(0, out), "1970-01-01 00:00:00");
	ck_assert_str_eq(tpd_text_time(-1, out), "1969-12-31 23:59:59");
	ck_assert_str_eq(tpd_text_time(INT64_MAX, out), "2262-04-11 23:47:16");
	ck_assert_str_eq(tpd_text_time(INT64_MIN, out), "1677-09-21 00:12:43");
}
END_TEST

static const struct {
	const char *text;
	bool good;
	uint64_t value;
} sizes[] = {
	{"0", true, 0},
	{"17", true, 17},
	{"100B", true, 100},
	{"64K", true, 65536},
	{"8M", true, 8u << 20},
	{"1.5G", true, 1610612736},
	{"4GiB", true, 4ull << 30},
	{"300MB", true, 300000000},
	{"2tb", true, 2000000000000},
	{"0.1K", true, 102},
	{"0.999999T", true, 1099510528264},
	{"18446744073709551615", true, UINT64_MAX},
	{"18446744073709551616", false, 0},
	{"16777216T", false, 0},
	{"16777215.999999T", true, 18446744073708452104ull},
	{"", false, 0},
	{"K", false, 0},
	{"1.5", false, 0},
	{"1.5B", false, 0},
	{"1.K", false, 0},
	{".5K", false, 0},
	{"1.0000001K", false, 0},
	{"-1", false, 0},
	{"+1", false, 0},
	{" 1", false, 0},
	{"1 K", false, 0},
	{"1KK", false, 0},
	{"0x10", false, 0},
	{"1e3", false, 0},
};

START_TEST(sizes_are_read)
{
	uint64_t v = 4711;

	ck_assert_int_eq(tpd_text_parse_bytes(sizes[_i].text, &v), sizes[_i].good);
	ck_assert_msg(v == (sizes[_i].good ? sizes[_i].value : 4711), "'%s' gave %llu", sizes[_i].text,
		      (unsigned long long)v);
}
END_TEST

static const struct {
	const char *text;
	bool good;
	uint64_t value;
} durations[] = {
	{"250ms", true, 250},
	{"5", true, 5000},
	{"5s", true, 5000},
	{"2m", true, 120000},
	{"1h", true, 3600000},
	{"0.5", true, 500},
	{"1.5h", true, 5400000},
	{"0.25m", true, 15000},
	{"0", true, 0},
	{"18446744073709551s", true, 18446744073709551000ull},
	{"18446744073709552s", false, 0},
	{"0.5ms", false, 0},
	{"5d", false, 0},
	{"", false, 0},
	{"s", false, 0},
	{"-5", false, 0},
};

START_TEST(durations_are_read)
{
	uint64_t v = 4711;

	ck_assert_int_eq(tpd_text_parse_duration(durations[_i].text, &v), durations[_i].good);
	ck_assert_msg(v == (durations[_i].good ? durations[_i].value : 4711), "'%s' gave %llu", durations[_i].text,
		      (unsigned long long)v);
}
END_TEST

START_TEST(plain_values_are_read)
{
	uint64_t v = 0;
	bool b = false;

	ck_assert(tpd_text_parse_u64("18446744073709551615", &v) && v == UINT64_MAX);
	ck_assert(tpd_text_parse_u64("007", &v) && v == 7);
	ck_assert(!tpd_text_parse_u64("18446744073709551616", &v));
	ck_assert(tpd_text_parse_step("9223372036854775807", &v) && v == TPD_STEP_MAX);
	ck_assert(!tpd_text_parse_step("9223372036854775808", &v) && v == TPD_STEP_MAX);
	ck_assert(!tpd_text_parse_u64("", &v));
	ck_assert(!tpd_text_parse_u64("1 ", &v));
	ck_assert(!tpd_text_parse_u64("-1", &v));
	ck_assert(tpd_text_parse_bool("Yes", &b) && b);
	ck_assert(tpd_text_parse_bool("off", &b) && !b);
	ck_assert(tpd_text_parse_bool("1", &b) && b);
	ck_assert(!tpd_text_parse_bool("", &b));
	ck_assert(!tpd_text_parse_bool("yess", &b));
}
END_TEST

START_TEST(run_names)
{
	char name[202];

	ck_assert(tpd_text_is_run_name("llama"));
	ck_assert(tpd_text_is_run_name("sweep/lr3 b.2"));
	ck_assert(tpd_text_is_run_name("\xc3\xa9t\xc3\xa9"));
	ck_assert(!tpd_text_is_run_name(""));
	ck_assert(!tpd_text_is_run_name("a@b"));
	ck_assert(!tpd_text_is_run_name("a~1"));
	ck_assert(!tpd_text_is_run_name("a\\b"));
	ck_assert(!tpd_text_is_run_name("/a"));
	ck_assert(!tpd_text_is_run_name("a/"));
	ck_assert(!tpd_text_is_run_name("a//b"));
	ck_assert(!tpd_text_is_run_name("a/../b"));
	ck_assert(!tpd_text_is_run_name(".a"));
	ck_assert(!tpd_text_is_run_name("a/-b"));
	ck_assert(!tpd_text_is_run_name("a\nb"));
	ck_assert(!tpd_text_is_run_name("a\x7f"));
	ck_assert(!tpd_text_is_run_name("a\xc2\x85"));
	ck_assert(!tpd_text_is_run_name("a\xff"));
	memset(name, 'n', 201);
	name[201] = 0;
	ck_assert(!tpd_text_is_run_name(name));
	name[200] = 0;
	ck_assert(tpd_text_is_run_name(name));
}
END_TEST

START_TEST(safe_paths)
{
	char path[4097];

	ck_assert(tpd_text_is_safe_path("a"));
	ck_assert(tpd_text_is_safe_path("a/..b/.c/..."));
	ck_assert(!tpd_text_is_safe_path(""));
	ck_assert(!tpd_text_is_safe_path("/a"));
	ck_assert(!tpd_text_is_safe_path("a/"));
	ck_assert(!tpd_text_is_safe_path("a//b"));
	ck_assert(!tpd_text_is_safe_path("."));
	ck_assert(!tpd_text_is_safe_path(".."));
	ck_assert(!tpd_text_is_safe_path("a/./b"));
	ck_assert(!tpd_text_is_safe_path("a/.."));
	ck_assert(!tpd_text_is_safe_path("../a"));
	memset(path, 'n', 4096);
	path[4096] = 0;
	ck_assert(!tpd_text_is_safe_path(path));
	path[4095] = 0;
	ck_assert(tpd_text_is_safe_path(path));
}
END_TEST

static void escapes_to(const char *s, const char *want)
{
	char *got = tpd_text_escape(s);

	ck_assert_str_eq(got, want);
	free(got);
}

START_TEST(escapes)
{
	escapes_to("Az09._-", "Az09._-");
	escapes_to("sweep/lr 3%", "sweep%2Flr%203%25");
	escapes_to("\xc3\xa9", "%C3%A9");
	escapes_to(".", "%2E");
	escapes_to("..", "%2E%2E");
	escapes_to("...", "...");
	escapes_to("", "%00");
}
END_TEST

START_TEST(trailing_numbers)
{
	uint64_t v = 4711;

	ck_assert(!tpd_text_trailing_number("checkpoint-9223372036854775808", &v));
	ck_assert_uint_eq(v, 4711);
	ck_assert(tpd_text_trailing_number("checkpoint-120", &v) && v == 120);
	ck_assert(tpd_text_trailing_number("step=20.ckpt", &v) && v == 20);
	ck_assert(tpd_text_trailing_number("epoch=3-step=0042.ckpt", &v) && v == 42);
	ck_assert(tpd_text_trailing_number("7", &v) && v == 7);
	ck_assert(!tpd_text_trailing_number("last.ckpt", &v));
	ck_assert(!tpd_text_trailing_number("", &v));
	ck_assert(!tpd_text_trailing_number("a99999999999999999999", &v));
	ck_assert_uint_eq(v, 7);
}
END_TEST

START_TEST(utf8)
{
	ck_assert_uint_eq(tpd_text_utf8("a", 1), 1);
	ck_assert_uint_eq(tpd_text_utf8("a", 0), 0);
	ck_assert_uint_eq(tpd_text_utf8("\xc3\xa9", 2), 2);
	ck_assert_uint_eq(tpd_text_utf8("\xc3\xa9", 1), 0);
	ck_assert_uint_eq(tpd_text_utf8("\xe2\x82\xac", 3), 3);
	ck_assert_uint_eq(tpd_text_utf8("\xf0\x9f\x98\x80", 4), 4);
	ck_assert_uint_eq(tpd_text_utf8("\xf0\x9f\x98\x80", 3), 0);
	ck_assert_uint_eq(tpd_text_utf8("\xc1\xbf", 2), 0);
	ck_assert_uint_eq(tpd_text_utf8("\xf0\x8f\xbf\xbf", 4), 0);
	ck_assert_uint_eq(tpd_text_utf8("\xf5\x80\x80\x80", 4), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("text");
	TCase *tests = tcase_create("text");
	SRunner *runner = srunner_create(suite);
	int failed;

	suite_add_tcase(suite, tests);
	tcase_add_test(tests, bytes_are_written);
	tcase_add_test(tests, nothing_in_it_commands_a_terminal);
	tcase_add_test(tests, durations_are_written);
	tcase_add_test(tests, times_are_written);
	tcase_add_loop_test(tests, sizes_are_read, 0, (int)TPD_ARRAY_LEN(sizes));
	tcase_add_loop_test(tests, durations_are_read, 0, (int)TPD_ARRAY_LEN(durations));
	tcase_add_test(tests, plain_values_are_read);
	tcase_add_test(tests, run_names);
	tcase_add_test(tests, safe_paths);
	tcase_add_test(tests, escapes);
	tcase_add_test(tests, trailing_numbers);
	tcase_add_test(tests, utf8);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
