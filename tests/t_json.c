/* t_json.c - the parser takes all of RFC 8259 and nothing else; the writer is read back by it. */
#include "base/tpd.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/random.h"

/* One letter a token: { } [ ] k s n t f 0, then . for the end or ! for an error. */
static const char *tokens(const char *text, size_t len)
{
	static const char letters[] = ".{}[]ksntf0!";
	static char out[256];
	struct tpd_json js = tpd_json_make(text, len);
	enum tpd_json_kind kind;
	size_t n = 0;

	do {
		kind = tpd_json_next(&js);
		ck_assert_uint_lt(n, sizeof out - 1);
		out[n++] = letters[kind];
	} while (kind != TPD_JSON_END && kind != TPD_JSON_ERROR);
	ck_assert_int_eq(tpd_json_next(&js), kind); /* and again */
	out[n] = 0;
	return out;
}

#define TOKENS(text) tokens((text), sizeof(text) - 1)

START_TEST(accepts)
{
	ck_assert_str_eq(TOKENS("{}"), "{}.");
	ck_assert_str_eq(TOKENS(" [ ] \r\n\t"), "[].");
	ck_assert_str_eq(TOKENS("null"), "0.");
	ck_assert_str_eq(TOKENS("\"\""), "s.");
	ck_assert_str_eq(TOKENS("[true,false,null,1,\"a\"]"), "[tf0ns].");
	ck_assert_str_eq(TOKENS("{\"a\" : {\"b\":[1 ,{}]} , \"a\":2}"), "{k{k[n{}]}kn}.");
	ck_assert_str_eq(TOKENS("[0,-0,-1.5e+10,1E5,0.25,10e-2]"), "[nnnnnn].");
	ck_assert_str_eq(TOKENS("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\ud83d\\ude00\xc3\xa9\x7f\""), "s.");
	ck_assert_str_eq(TOKENS("\"\xe2\x82\xac\xf0\x9f\x98\x80\xf4\x8f\xbf\xbf\""), "s.");
}
END_TEST

/* Each is one step away from something valid. */
static const struct {
	const char *text;
	size_t len;
} refused[] = {
#define BAD(s) {(s), sizeof(s) - 1}
	BAD(""), BAD(" "), BAD("{"), BAD("["), BAD("\""), BAD("[1"), BAD("[1,"), BAD("[1,]"), BAD("[,1]"),
	BAD("[1 2]"), BAD("{\"a\"}"), BAD("{\"a\":}"), BAD("{\"a\":1,}"), BAD("{,}"), BAD("{1:2}"),
	BAD("{\"a\" 1}"), BAD("{a:1}"), BAD("[}"), BAD("{]"), BAD("]"), BAD("{}{}"), BAD("{} x"), BAD("1 2"),
	BAD("nul"), BAD("nulL"), BAD("True"), BAD("01"), BAD("-"), BAD("+1"), BAD(".5"), BAD("1."),
	BAD("1.e5"), BAD("1e"), BAD("1e+"), BAD("0x10"), BAD("-01"), BAD("NaN"), BAD("Infinity"), BAD("'a'"),
	BAD("\"a\nb\""), BAD("\"a\tb\""), BAD("\"a\0b\""), BAD("\"\\x\""), BAD("\"\\u12\""),
	BAD("\"\\u12g4\""), BAD("\"\\\""), BAD("\"\\ud800\""), BAD("\"\\udc00\""), BAD("\"\\ud800\\u0041\""),
	BAD("\"\\ud800x\""), BAD("\"\x80\""), BAD("\"\xc0\x80\""), BAD("\"\xc3\""), BAD("\"\xe0\x80\x80\""),
	BAD("\"\xed\xa0\x80\""), BAD("\"\xf4\x90\x80\x80\""), BAD("\"\xff\""), BAD("\xef\xbb\xbf{}"),
	BAD("[1]\0"), BAD("/**/1"), BAD("\"\\"), BAD("\"\\u123"), BAD("{\"a\":1"), BAD("{\"a\""),
	BAD("{\"a\":"), BAD("tru"),
#undef BAD
};

START_TEST(refuses)
{
	const char *got = tokens(refused[_i].text, refused[_i].len);

	ck_assert_msg(got[strlen(got) - 1] == '!', "case %d: %s gave %s", _i, refused[_i].text, got);
}
END_TEST

START_TEST(depth_is_bounded)
{
	char text[2 * (TPD_JSON_DEPTH + 1)];

	memset(text, '[', TPD_JSON_DEPTH);
	memset(text + TPD_JSON_DEPTH, ']', TPD_JSON_DEPTH);
	ck_assert_ptr_nonnull(strchr(tokens(text, (size_t)2 * TPD_JSON_DEPTH), '.'));
	memset(text, '[', TPD_JSON_DEPTH + 1);
	memset(text + TPD_JSON_DEPTH + 1, ']', TPD_JSON_DEPTH + 1);
	ck_assert_ptr_nonnull(strchr(tokens(text, sizeof text), '!'));
}
END_TEST

static struct tpd_json scalar(const char *text)
{
	struct tpd_json js = tpd_json_make(text, strlen(text));

	ck_assert_int_ne(tpd_json_next(&js), TPD_JSON_ERROR);
	return js;
}

START_TEST(strings_decode)
{
	struct tpd_json js = scalar("\"a\\n\\u00e9\\ud83d\\ude00\\/\xe2\x82\xac\"");
	char *s = tpd_json_string(&js);

	ck_assert_str_eq(s, "a\n\xc3\xa9\xf0\x9f\x98\x80/\xe2\x82\xac");
	ck_assert(tpd_json_is(&js, s));
	ck_assert(!tpd_json_is(&js, "a\n"));
	ck_assert(!tpd_json_is(&js, "a\n\xc3\xa9\xf0\x9f\x98\x80/\xe2\x82\xac."));
	free(s);
	js = scalar("\"\\u0041\"");
	ck_assert(tpd_json_is(&js, "A"));
	js = scalar("\"\"");
	ck_assert(tpd_json_is(&js, ""));
	js = scalar("\"a\\u0000\"");
	ck_assert_ptr_null(tpd_json_string(&js));
	ck_assert(!tpd_json_is(&js, "a"));
}
END_TEST

START_TEST(numbers_convert)
{
	struct tpd_json js = scalar("18446744073709551615");
	char text[1201];
	uint64_t u = 1;
	double d = 0;

	ck_assert(tpd_json_u64(&js, &u) && u == UINT64_MAX);
	js = scalar("18446744073709551616");
	ck_assert(!tpd_json_u64(&js, &u));
	js = scalar("-0");
	ck_assert(!tpd_json_u64(&js, &u));
	ck_assert(tpd_json_f64(&js, &d) && d == 0 && signbit(d));
	js = scalar("1e3");
	ck_assert(!tpd_json_u64(&js, &u));
	ck_assert(tpd_json_f64(&js, &d) && d == 1000);
	js = scalar("0");
	ck_assert(tpd_json_u64(&js, &u) && u == 0);
	js = scalar("1e999");
	ck_assert(!tpd_json_f64(&js, &d));
	js = scalar("2.5 ");
	ck_assert(tpd_json_f64(&js, &d) && d == 2.5);
	memset(text, '1', sizeof text - 1); /* longer than what is converted, and valid all the same */
	text[sizeof text - 1] = 0;
	js = scalar(text);
	ck_assert(!tpd_json_f64(&js, &d));
	ck_assert(!tpd_json_u64(&js, &u));
	ck_assert(d == 2.5 && u == 0);
}
END_TEST

START_TEST(skip_passes_whole_values)
{
	const char *text = "{\"a\":[1,{\"b\":[]},[[]]],\"c\":\"x\",\"d\":7}";
	struct tpd_json js = tpd_json_make(text, strlen(text));
	uint64_t v = 0;

	ck_assert_int_eq(tpd_json_next(&js), TPD_JSON_OBJECT);
	for (int i = 0; i < 2; i++) {
		ck_assert_int_eq(tpd_json_next(&js), TPD_JSON_KEY);
		ck_assert(tpd_json_skip(&js, tpd_json_next(&js)));
	}
	ck_assert_int_eq(tpd_json_next(&js), TPD_JSON_KEY);
	ck_assert(tpd_json_is(&js, "d"));
	ck_assert_int_eq(tpd_json_next(&js), TPD_JSON_NUMBER);
	ck_assert(tpd_json_u64(&js, &v) && v == 7);
	ck_assert_int_eq(tpd_json_next(&js), TPD_JSON_OBJECT_END);
	ck_assert(!tpd_json_skip(&js, TPD_JSON_OBJECT_END));
	ck_assert_int_eq(tpd_json_next(&js), TPD_JSON_END);

	js = tpd_json_make("[[1,}", 5);
	ck_assert(!tpd_json_skip(&js, tpd_json_next(&js)));
}
END_TEST

START_TEST(writer)
{
	struct tpd_buf buf = {0};
	struct tpd_json_out out = tpd_json_out_make(&buf);

	tpd_json_begin_object(&out);
	tpd_json_key(&out, "a\"b");
	tpd_json_begin_array(&out);
	tpd_json_put_u64(&out, UINT64_MAX);
	tpd_json_put_i64(&out, INT64_MIN);
	tpd_json_put_string(&out, "\\ \n\t\x01\xc3\xa9 \xff.");
	tpd_json_put_string(&out, NULL);
	tpd_json_begin_object(&out);
	tpd_json_end_object(&out);
	tpd_json_begin_array(&out);
	tpd_json_end_array(&out);
	tpd_json_end_array(&out);
	tpd_json_key(&out, "t");
	tpd_json_put_bool(&out, true);
	tpd_json_key(&out, "f");
	tpd_json_put_bool(&out, false);
	tpd_json_key(&out, "n");
	tpd_json_put_f64(&out, (double)NAN);
	tpd_json_end_object(&out);
	tpd_buf_u8(&buf, 0);
	ck_assert_int_eq(tpd_buf_status(&buf, NULL), TPD_OK);
	ck_assert_str_eq((char *)buf.data,
			 "{\"a\\\"b\":[18446744073709551615,-9223372036854775808,"
			 "\"\\\\ \\n\\t\\u0001\xc3\xa9 \xef\xbf\xbd.\",null,{},[]],\"t\":true,\"f\":false,\"n\":null}");
	ck_assert_str_eq(tokens((char *)buf.data, buf.len - 1), "{k[nns0{}[]]ktkfk0}.");
	tpd_buf_release(&buf);
}
END_TEST

static void double_is(double v, const char *want)
{
	struct tpd_buf buf = {0};
	struct tpd_json_out out = tpd_json_out_make(&buf);
	struct tpd_json js;
	double back = 0;

	tpd_json_put_f64(&out, v);
	js = tpd_json_make((char *)buf.data, buf.len);
	ck_assert_int_eq(tpd_json_next(&js), TPD_JSON_NUMBER);
	ck_assert(tpd_json_f64(&js, &back));
	ck_assert(memcmp(&v, &back, sizeof v) == 0);
	tpd_buf_u8(&buf, 0);
	if (want)
		ck_assert_str_eq((char *)buf.data, want);
	tpd_buf_release(&buf);
}

START_TEST(doubles_read_back_equal)
{
	uint64_t state = 88172645463325252ull;

	double_is(0.1, "0.1");
	double_is(-0.0, "-0");
	double_is(1e300, "1e+300");
	double_is(92.5, "92.5");
	double_is(5e-324, "5e-324");
	double_is(1.0 / 3, "0.3333333333333333");
	for (int i = 0; i < 2000; i++) {
		double v;

		tpd_random_next(&state);
		memcpy(&v, &state, sizeof v);
		if (isfinite(v))
			double_is(v, NULL);
	}
}
END_TEST

/* What random damage does to a text: an answer, never a crash; the sanitizers are the judges. */
START_TEST(mutations_are_survived)
{
	static const char honest[] =
		"{\"__metadata__\":{\"format\":\"pt\"},\"a.weight\":{\"dtype\":\"F32\",\"shape\":[2,-3.5e1],"
		"\"x\":[true,false,null,\"\\u00e9\\ud83d\\ude00\xc3\xa9\"]}}";
	uint64_t state = 7;
	char *text = malloc(sizeof honest);

	ck_assert_ptr_nonnull(text);
	ck_assert_ptr_nonnull(strchr(tokens(honest, sizeof honest - 1), '.'));
	for (int i = 0; i < 20000; i++) {
		struct tpd_json js;
		enum tpd_json_kind kind;
		size_t len = sizeof honest - 1;

		memcpy(text, honest, sizeof honest);
		for (int m = 0; m < 3; m++) {
			state = state * 6364136223846793005ull + 1442695040888963407ull;
			text[(state >> 33) % len] = "{}[]\",:\\u0e-.\xc3\xff"[(state >> 20) % 16];
		}
		if (i % 4 == 0)
			len = (state >> 40) % len;
		js = tpd_json_make(text, len);
		while ((kind = tpd_json_next(&js)) != TPD_JSON_END && kind != TPD_JSON_ERROR) {
			if (kind == TPD_JSON_KEY || kind == TPD_JSON_STRING)
				free(tpd_json_string(&js));
		}
	}
	free(text);
}
END_TEST

START_TEST(python_is_tamed)
{
	static const struct {
		const char *from, *to;
	} cases[] = {
		{"[NaN,Infinity,-Infinity]", "[[ ],[      ],[       ]]"},
		{"{\"NaN\":\"\\\" Infinity\",\"a\":NaN}", "{\"NaN\":\"\\\" Infinity\",\"a\":[ ]}"},
		{"{NaN:1}", "{[ ]:1}"}, /* and no JSON still */
		{"[Na", "[Na"},
		{"\"\\", "\"\\"},
		{"", ""},
	};

	for (size_t i = 0; i < TPD_ARRAY_LEN(cases); i++) {
		char text[64];

		snprintf(text, sizeof(text), "%s", cases[i].from);
		tpd_json_tame(text, strlen(text));
		ck_assert_str_eq(text, cases[i].to);
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("json");
	TCase *tests = tcase_create("json");
	SRunner *runner = srunner_create(suite);
	int failed;

	suite_add_tcase(suite, tests);
	tcase_add_test(tests, accepts);
	tcase_add_loop_test(tests, refuses, 0, (int)TPD_ARRAY_LEN(refused));
	tcase_add_test(tests, depth_is_bounded);
	tcase_add_test(tests, strings_decode);
	tcase_add_test(tests, numbers_convert);
	tcase_add_test(tests, skip_passes_whole_values);
	tcase_add_test(tests, writer);
	tcase_add_test(tests, doubles_read_back_equal);
	tcase_add_test(tests, mutations_are_survived);
	tcase_add_test(tests, python_is_tamed);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
