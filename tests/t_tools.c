/* t_tools.c - what tpdectl's commands share: tables, widths, the daemon's answer. */
#include "base/tpd.h"

#include <check.h>
#include <fcntl.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "tools/tools.h"

/* Standard output of `fn` as fresh text. */
static char *captured(void (*fn)(void *arg), void *arg)
{
	char path[] = "/tmp/t_tools.XXXXXX";
	int file = mkstemp(path), saved = dup(STDOUT_FILENO);
	char *text = calloc(1, 65536);

	ck_assert(file >= 0 && saved >= 0 && text != NULL);
	unlink(path);
	fflush(stdout);
	ck_assert_int_ge(dup2(file, STDOUT_FILENO), 0);
	fn(arg);
	fflush(stdout);
	ck_assert_int_ge(dup2(saved, STDOUT_FILENO), 0);
	ck_assert_int_ge(pread(file, text, 65535, 0), 0);
	close(saved);
	close(file);
	return text;
}

static void print_table(void *arg)
{
	ck_assert_int_eq(tpd_table_print(arg, 2, NULL), TPD_OK);
}

static void print_plain(void *arg)
{
	ck_assert_int_eq(tpd_table_print(arg, 0, NULL), TPD_OK);
}

START_TEST(columns_are_aligned)
{
	static const char *const titles[] = {"NAME", ">SIZE", "EMPTY", "LAST"};
	struct tpd_table table = tpd_table_make(titles, 4);
	char *text;

	tpd_table_add(&table, "größe");
	tpd_table_add_bytes(&table, 1234567);
	tpd_table_add(&table, "");
	tpd_table_add(&table, "x");
	tpd_table_add(&table, "模型");
	tpd_table_addf(&table, "%d", 7);
	tpd_table_add(&table, "");
	tpd_table_add(&table, "");
	text = captured(print_table, &table);
	ck_assert_str_eq(text, "  NAME      SIZE  LAST\n"
			       "  größe  1.23 MB  x\n"
			       "  模型         7\n");
	free(text);
	tpd_table_release(&table);
}
END_TEST

/* The same on a terminal of so many columns. */
static char *on_terminal(unsigned short columns, void (*fn)(void *arg), void *arg)
{
	int master = posix_openpt(O_RDWR | O_NOCTTY), terminal, saved = dup(STDOUT_FILENO);
	char *text = calloc(1, 65536);
	struct termios mode;
	size_t len = 0;

	ck_assert(master >= 0 && saved >= 0 && text && grantpt(master) == 0 && unlockpt(master) == 0);
	terminal = open(ptsname(master), O_RDWR | O_NOCTTY);
	ck_assert_int_ge(terminal, 0);
	ck_assert_int_eq(tcgetattr(terminal, &mode), 0);
	cfmakeraw(&mode);
	ck_assert_int_eq(tcsetattr(terminal, TCSANOW, &mode), 0);
	ck_assert_int_eq(ioctl(terminal, TIOCSWINSZ, &(struct winsize){.ws_row = 24, .ws_col = columns}), 0);
	fflush(stdout);
	ck_assert_int_ge(dup2(terminal, STDOUT_FILENO), 0);
	fn(arg);
	putchar(0); /* the end */
	fflush(stdout);
	ck_assert_int_ge(dup2(saved, STDOUT_FILENO), 0);
	do {
		ssize_t n = read(master, text + len, 65535 - len);

		ck_assert_int_gt(n, 0);
		len += (size_t)n;
	} while (text[len - 1] != 0);
	close(saved);
	close(terminal);
	close(master);
	return text;
}

START_TEST(tables_fit_the_terminal)
{
	static const char *const titles[] = {"NAME", ">SIZE", "EVENT"};
	static const struct {
		unsigned short columns;
		const char *wanted;
	} cases[] = {
		{80, "NAME     SIZE  EVENT\n"
		     "llm@40   7 kB  cannot write 'objects/ab/cdef': No space left on device\n"
		     "größe@7   7 B  模型模型模型模型模型模型模型模型\n"},
		{60, "NAME     SIZE  EVENT\n"
		     "llm@40   7 kB  cannot write 'objects/…o space left on device\n"
		     "größe@7   7 B  模型模型模型模型模型模型模型模型\n"},
		{40, "NAME     SIZE  EVENT\n"
		     "llm@40   7 kB  cannot write…ft on device\n"
		     "größe@7   7 B  模型模型模型…模型模型模型\n"},
		{39, "NAME     SIZE  EVENT\n"
		     "llm@40   7 kB  cannot write…t on device\n"
		     "größe@7   7 B  模型模型模型…型模型模型\n"},
		/* Not below what tells anything: a line that wraps all the same has all of it. */
		{26, "NAME     SIZE  EVENT\n"
		     "llm@40   7 kB  cannot write 'objects/ab/cdef': No space left on device\n"
		     "größe@7   7 B  模型模型模型模型模型模型模型模型\n"},
		{27, "NAME     SIZE  EVENT\n"
		     "llm@40   7 kB  cannot…evice\n"
		     "größe@7   7 B  模型模…模型\n"},
	};
	struct tpd_table table = tpd_table_make(titles, 3);
	char *text;

	if (!setlocale(LC_CTYPE, "C.UTF-8"))
		ck_abort_msg("no C.UTF-8");
	tpd_table_add(&table, "llm@40");
	tpd_table_add(&table, "7 kB");
	tpd_table_add(&table, "cannot write 'objects/ab/cdef': No space left on device");
	tpd_table_add(&table, "größe@7");
	tpd_table_add(&table, "7 B");
	tpd_table_add(&table, "模型模型模型模型模型模型模型模型");
	for (size_t i = 0; i < TPD_ARRAY_LEN(cases); i++) {
		text = on_terminal(cases[i].columns, print_plain, &table);
		ck_assert_str_eq(text, cases[i].wanted);
		free(text);
	}
	text = captured(print_plain, &table); /* a file has no width */
	ck_assert_str_eq(text, cases[0].wanted);
	free(text);
	setlocale(LC_CTYPE, "C");
	text = on_terminal(39, print_plain, &table);
	ck_assert_ptr_nonnull(strstr(text, "  cannot writ... on device\n"));
	free(text);
	tpd_table_release(&table);
}
END_TEST

START_TEST(names_cannot_command_the_terminal)
{
	static const struct {
		const char *from, *to;
	} cases[] = {
		{"plain", "plain"},
		{"a\033[31mb", "a?[31mb"},
		{"two\nlines\t\x7f", "two?lines??"},
		{"c1 \xc2\x9b 2J", "c1 ? 2J"},
		{"\xe2\x80\xaereversed", "?reversed"},
		{"not \xff utf-8 \xc3", "not ? utf-8 ?"},
		{"größe 模型", "größe 模型"},
	};

	for (size_t i = 0; i < TPD_ARRAY_LEN(cases); i++) {
		char *clean = tpd_text_clean(cases[i].from);

		ck_assert_str_eq(clean, cases[i].to);
		free(clean);
	}
}
END_TEST

START_TEST(widths_are_those_of_terminals)
{
	ck_assert_uint_eq(tpd_text_width("abc"), 3);
	ck_assert_uint_eq(tpd_text_width("größe"), 5);
	ck_assert_uint_eq(tpd_text_width("模型"), 4);
	ck_assert_uint_eq(tpd_text_width("e\xcc\x81"), 1); /* combining accent */
	ck_assert_uint_eq(tpd_text_width(""), 0);
}
END_TEST

START_TEST(savings_are_written)
{
	char text[TPD_SAVING_TEXT];

	ck_assert_str_eq(tpd_text_saving(1000000, 250000, text), "1.00 MB stored as 250 kB (4.00x, 75.0 % saved)");
	ck_assert_str_eq(tpd_text_saving(100, 130, text), "100 B stored as 130 B");
	ck_assert_str_eq(tpd_text_saving(0, 0, text), "0 B stored as 0 B");
}
END_TEST

START_TEST(answers_are_flattened)
{
	static const char json[] = "{\"ok\":true,\"pid\":42,\"queue\":{\"queued\":3,\"held\":null},"
				   "\"watches\":[{\"name\":\"a\\u00e9\",\"runs\":1},{\"name\":\"b\"}],\"x\":[1,[2,3]]}";
	struct tpd_reply reply = {0};
	struct tpd_buf buf = {0};
	struct tpd_json_out out = tpd_json_out_make(&buf);

	ck_assert_int_eq(tpd_reply_parse(json, &reply, NULL), TPD_OK);
	ck_assert_str_eq(tpd_reply_get(&reply, "ok"), "true");
	ck_assert_uint_eq(tpd_reply_u64(&reply, "queue.queued"), 3);
	ck_assert_ptr_null(tpd_reply_get(&reply, "queue.held"));
	ck_assert_str_eq(tpd_reply_get(&reply, "watches.%u.name", 0u), "aé");
	ck_assert_str_eq(tpd_reply_get(&reply, "watches.%u.name", 1u), "b");
	ck_assert_ptr_null(tpd_reply_get(&reply, "watches.2.name"));
	ck_assert_str_eq(tpd_reply_get(&reply, "x.1.1"), "3");
	ck_assert_uint_eq(tpd_reply_u64(&reply, "nothing"), 0);
	ck_assert_uint_eq(tpd_reply_u64(&reply, "watches.0.name"), 0);
	tpd_reply_release(&reply);

	ck_assert(tpd_reply_copy("{\"a\":[1,-2,0.5,\"x\",null,true]}", &out));
	tpd_buf_u8(&buf, 0);
	ck_assert_str_eq((const char *)buf.data, "{\"a\":[1,-2,0.5,\"x\",null,true]}");
	tpd_buf_release(&buf);
}
END_TEST

START_TEST(bad_answers_are_refused)
{
	static const char *const bad[] = {"", "{", "{\"a\":}", "[1,2", "{\"a\":1}}", "nonsense"};
	struct tpd_reply reply = {0};

	for (size_t i = 0; i < TPD_ARRAY_LEN(bad); i++) {
		struct tpd_err err = {0};

		ck_assert_int_eq(tpd_reply_parse(bad[i], &reply, &err), TPD_CORRUPT);
		ck_assert_ptr_null(reply.fields);
		ck_assert_str_ne(err.text, "");
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("tools");
	TCase *tcase = tcase_create("tools");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_test(tcase, columns_are_aligned);
	tcase_add_test(tcase, tables_fit_the_terminal);
	tcase_add_test(tcase, names_cannot_command_the_terminal);
	tcase_add_test(tcase, widths_are_those_of_terminals);
	tcase_add_test(tcase, savings_are_written);
	tcase_add_test(tcase, answers_are_flattened);
	tcase_add_test(tcase, bad_answers_are_refused);
	suite_add_tcase(suite, tcase);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
