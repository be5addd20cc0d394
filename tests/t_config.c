/* t_config.c - every key, every mistake with its file, line and key. */
#include "base/tpd.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "files.h"
#include "wire/config.h"

static struct tpd_config config;
static struct tpd_err err;

static enum tpd_status parse(const char *text, enum tpd_config_check check)
{
	file_write(scratch("c.conf"), text, strlen(text));
	err = (struct tpd_err){0};
	return tpd_config_read(scratch("c.conf"), check, &config, &err);
}

START_TEST(defaults)
{
	ck_assert_int_eq(parse("", TPD_CONFIG_SYNTAX), TPD_OK);
	ck_assert_str_eq(config.file, scratch("c.conf"));
	ck_assert_str_eq(config.store_path, TPD_CONFIG_DEFAULT_STORE);
	ck_assert_str_eq(config.control_socket, TPD_CONFIG_DEFAULT_SOCKET);
	ck_assert_ptr_null(config.catalog_path);
	ck_assert_uint_eq(config.max_depth, 16);
	ck_assert(config.effort == TPD_EFFORT_BALANCED && config.depend == TPD_DEPEND_WEIGHTS);
	ck_assert_uint_eq(config.part_size, 256u << 20);
	ck_assert_uint_eq(config.tip_cache, 0);
	ck_assert_uint_eq(config.threads, 0);
	ck_assert_uint_eq(config.scan_interval_ms, 60000);
	ck_assert_uint_eq(config.low_space, 4ull << 30);
	ck_assert_uint_eq(config.spool_copies, 4ull << 30);
	ck_assert_uint_eq(config.watch_count, 0);
	tpd_config_release(&config);
	ck_assert_ptr_null(config.store_path);
}
END_TEST

START_TEST(every_key)
{
	const char *text = "# a comment\n"
			   "; another\n"
			   "[store]\n"
			   "path = /srv/store/\n"
			   "catalog=/srv/catalog.sqlite\n"
			   "max_depth = 2\n"
			   "part_size=8M\n"
			   "tip_cache = 20G\n"
			   "\n"
			   "[daemon]\n"
			   "control_socket=/tmp/s.sock ; inline\n"
			   "threads=3\n"
			   "scan_interval=2m\n"
			   "low_space=20G\n"
			   "spool_copies=0\n"
			   "[watch:llama]\n"
			   "  path=/data/with space/llama\n"
			   "settle = 1.5\n"
			   "complete_when = DONE ../%s.done\n"
			   "step_regex = it([0-9]+)$\n"
			   "stalled_after = 1h\n"
			   "base = llama/7b@latest\n"
			   "[watch:sweep/a very long name of a watch that is longer than fifty bytes]\r\n"
			   "path=/data/b\r\n"
			   "settle=0";

	ck_assert_msg(parse(text, TPD_CONFIG_SYNTAX) == TPD_OK, "%s", err.text);
	ck_assert_str_eq(config.store_path, "/srv/store");
	ck_assert_str_eq(config.catalog_path, "/srv/catalog.sqlite");
	ck_assert_uint_eq(config.max_depth, 2);
	ck_assert_uint_eq(config.part_size, 8u << 20);
	ck_assert_uint_eq(config.tip_cache, 20ull << 30);
	ck_assert_str_eq(config.control_socket, "/tmp/s.sock");
	ck_assert_uint_eq(config.threads, 3);
	ck_assert_uint_eq(config.scan_interval_ms, 120000);
	ck_assert_uint_eq(config.low_space, 20ull << 30);
	ck_assert_uint_eq(config.spool_copies, 0);
	ck_assert_uint_eq(config.watch_count, 2);
	ck_assert_str_eq(config.watches[0].name, "llama");
	ck_assert_str_eq(config.watches[0].path, "/data/with space/llama");
	ck_assert_uint_eq(config.watches[0].settle_ms, 1500);
	ck_assert_str_eq(config.watches[0].complete_when, "DONE ../%s.done");
	ck_assert_str_eq(config.watches[0].step_regex, "it([0-9]+)$");
	ck_assert_uint_eq(config.watches[0].stalled_ms, 3600000);
	ck_assert_uint_eq(config.watches[0].line, 16);
	ck_assert_str_eq(config.watches[0].base, "llama/7b@latest");
	ck_assert_ptr_null(config.watches[1].base);
	ck_assert_ptr_eq(tpd_config_watch_of(&config, "llama"), &config.watches[0]);
	ck_assert_ptr_eq(tpd_config_watch_of(&config, "llama/x"), &config.watches[0]);
	ck_assert_ptr_null(tpd_config_watch_of(&config, "llamas"));
	ck_assert_ptr_null(tpd_config_watch_of(&config, "sweep"));
	ck_assert_ptr_null(config.watches[1].complete_when);
	ck_assert_uint_eq(config.watches[1].stalled_ms, 600000);
	ck_assert_str_eq(config.watches[1].name, "sweep/a very long name of a watch that is longer than fifty bytes");
	ck_assert_str_eq(config.watches[1].path, "/data/b");
	ck_assert_uint_eq(config.watches[1].settle_ms, 0);
	tpd_config_release(&config);
}
END_TEST

/* Of two that begin a run's name, the longer. */
START_TEST(watch_of_a_run)
{
	ck_assert_int_eq(parse("[watch:a]\npath=/a\n[watch:a/b/c]\npath=/c\n[watch:a/b]\npath=/b\n", TPD_CONFIG_SYNTAX), TPD_OK);
	ck_assert_ptr_eq(tpd_config_watch_of(&config, "a/x"), &config.watches[0]);
	ck_assert_ptr_eq(tpd_config_watch_of(&config, "a/b/c/d"), &config.watches[1]);
	ck_assert_ptr_eq(tpd_config_watch_of(&config, "a/b"), &config.watches[2]);
	ck_assert_ptr_eq(tpd_config_watch_of(&config, "a/b/cd"), &config.watches[2]);
	tpd_config_release(&config);
	ck_assert_int_eq(parse("[watch:a]\npath=/a\nbase=/models/b c/\n", TPD_CONFIG_SYNTAX), TPD_OK);
	ck_assert_str_eq(config.watches[0].base, "/models/b c");
	tpd_config_release(&config);
}
END_TEST

/* Text, and what the message says behind "FILE:". */
static const struct {
	const char *text, *message;
} mistakes[] = {
	{"[store]\nfoo=1\n", "2: [store] foo: unknown key"},
	{"[store]\npath=/a\nsettle=5\n", "3: [store] settle: unknown key"},
	{"\n[strore]\n", "2: [strore]: unknown section (there are [store], [codec], [daemon] and [watch:NAME])"},
	{"path=/a\n", "1: path: stands before the first section"},
	{"[store]\npath=store\n", "2: [store] path: must be an absolute path, not 'store'"},
	{"[store]\npath=\n", "2: [store] path: has no value"},
	{"[store]\npath=/a\npath=/b\n", "3: [store] path: given twice, the first time in line 2"},
	{"[store]\npath=/a\n[daemon]\n[store]\n", "4: [store]: this section began in line 1 already"},
	{"[store]\nmax_depth=-1\n", "2: [store] max_depth: must be a whole number from 0 to 1000, not '-1'"},
	{"[store]\nmax_depth=1001\n", "2: [store] max_depth: must be a whole number from 0 to 1000, not '1001'"},
	{"[codec]\neffort=fastest\n", "2: [codec] effort: must be fast, balanced or max, not 'fastest'"},
	{"[codec]\ndepend=\n", "2: [codec] depend: has no value"},
	{"[codec]\ndepend=all\n", "2: [codec] depend: must be none, weights or optimizer, not 'all'"},
	{"[store]\npart_size=1\n", "2: [store] part_size: must be a size from 1M to 4G, such as 256M, not '1'"},
	{"[store]\npart_size=5G\n", "2: [store] part_size: must be a size from 1M to 4G, such as 256M, not '5G'"},
	{"[daemon]\nthreads=two\n", "2: [daemon] threads: must be a whole number from 0 (one a CPU) to 64, not 'two'"},
	{"[daemon]\nthreads=65\n", "2: [daemon] threads: must be a whole number from 0 (one a CPU) to 64, not '65'"},
	{"[daemon]\nscan_interval=10ms\n",
	 "2: [daemon] scan_interval: must be a time from 100ms to 24h, such as 60 (seconds) or 5m, not '10ms'"},
	{"[daemon]\nnonsense\n", "2: neither 'key = value' nor a [section]"},
	{"[watch:a]\npath=/a\nsettle=2h\n",
	 "3: [watch:a] settle: must be a time from 0 to 1h, such as 5 (seconds) or 500ms, not '2h'"},
	{"[watch:a]\npath=/a\nsettle=-1\n",
	 "3: [watch:a] settle: must be a time from 0 to 1h, such as 5 (seconds) or 500ms, not '-1'"},
	{"[watch:a]\npath=/a\nstalled_after=0\n",
	 "3: [watch:a] stalled_after: must be a time from 1s to 168h, such as 10m, not '0'"},
	{"[watch:a]\npath=/a\ncomplete_when=a/b\n",
	 "3: [watch:a] complete_when: must be names, such as DONE or *.done, or ../%s.done for one beside the checkpoint, not "
	 "'a/b'"},
	{"[watch:a]\npath=/a\nstep_regex=it([0-9]+\n",
	 "3: [watch:a] step_regex: must be a POSIX extended regular expression, not 'it([0-9]+'"},
	{"[watch:a]\npath=/a\nstep_regex=it[0-9]+\n",
	 "3: [watch:a] step_regex: must have a group that is the step, such as run_([0-9]+)$, not 'it[0-9]+'"},
	{"[watch:a]\npath=/a\nbase=b@\n", "3: [watch:a] base: must be RUN, RUN@STEP, the absolute path of a model, auto or none, not 'b@'"},
	{"[watch:a]\npath=/a\nbase=./b\n",
	 "3: [watch:a] base: must be RUN, RUN@STEP, the absolute path of a model, auto or none, not './b'"},
	{"[daemon]\nspool_copies=some\n", "2: [daemon] spool_copies: must be a size, such as 4G, or 0, not 'some'"},
	{"[daemon]\nlow_space=much\n", "2: [daemon] low_space: must be a size, such as 4G, or 0, not 'much'"},
	{"\n[watch:a]\nsettle=1\n", "2: [watch:a] path: is missing"},
	{"[watch:a]\npath=/a\n[watch:a]\npath=/b\n", "3: [watch:a]: there is one of this name in line 1 already"},
	{"[watch:a]\npath=/a\n[watch:b]\npath=/a/b\n",
	 "4: [watch:b] path: '/a/b' and '/a' of [watch:a] lie in one another"},
	{"[watch:a]\npath=/a/b\n[watch:b]\npath=/a\n",
	 "4: [watch:b] path: '/a' and '/a/b' of [watch:a] lie in one another"},
	{"[watch:a]\npath=/var/lib/tpded/x\n",
	 "2: [watch:a] path: '/var/lib/tpded/x' lies in the store '/var/lib/tpded'"},
};

START_TEST(one_mistake)
{
	char wanted[1024];

	snprintf(wanted, sizeof wanted, "%s:%s", scratch("c.conf"), mistakes[_i].message);
	config.file = (char *)1; /* not written on failure */
	ck_assert_int_eq(parse(mistakes[_i].text, TPD_CONFIG_SYNTAX), TPD_USAGE);
	ck_assert_str_eq(err.text, wanted);
	ck_assert_ptr_eq(config.file, (char *)1);
}
END_TEST

START_TEST(names_that_no_run_may_have)
{
	static const char *const names[] = {"", "a@b", "a~b", "/a", "a/", "a//b", ".a", "-a", "a/.b", "a\\b"};

	for (size_t i = 0; i < TPD_ARRAY_LEN(names); i++) {
		char text[200];

		snprintf(text, sizeof text, "[watch:%s]\npath=/a\n", names[i]);
		ck_assert_msg(parse(text, TPD_CONFIG_SYNTAX) == TPD_USAGE, "'%s' was taken", names[i]);
		ck_assert_ptr_nonnull(strstr(err.text, "becomes the name of a run"));
	}
	/* neighbours are no nest */
	ck_assert_int_eq(parse("[watch:a]\npath=/a\n[watch:b]\npath=/ab\n", TPD_CONFIG_SYNTAX), TPD_OK);
	tpd_config_release(&config);
}
END_TEST

START_TEST(odd_files)
{
	TPD_AUTO_FREE char *text = malloc(20000);

	ck_assert_int_eq(tpd_config_read(scratch("absent"), TPD_CONFIG_SYNTAX, &config, &err), TPD_NOT_FOUND);
	ck_assert_ptr_nonnull(strstr(err.text, scratch("absent")));
	file_write(scratch("c.conf"), "[store]\0path=/a\n", 16);
	ck_assert_int_eq(tpd_config_read(scratch("c.conf"), TPD_CONFIG_SYNTAX, &config, &err), TPD_USAGE);
	/* a path of 2000 bytes is fine, a line of 10,000 is not */
	memset(text, 'x', 20000);
	memcpy(text, "[watch:a]\npath=/", 16);
	text[2000] = 0;
	ck_assert_msg(parse(text, TPD_CONFIG_SYNTAX) == TPD_OK, "%s", err.text);
	ck_assert_uint_eq(strlen(config.watches[0].path), 2000 - 15);
	tpd_config_release(&config);
	text[2000] = 'x';
	text[10000] = 0;
	ck_assert_int_eq(parse(text, TPD_CONFIG_SYNTAX), TPD_USAGE);
	ck_assert_ptr_nonnull(strstr(err.text, ":2: the line is too long"));
	/* a socket's path is short */
	snprintf(text, 20000, "[daemon]\ncontrol_socket=/%0107d\n", 1);
	ck_assert_int_eq(parse(text, TPD_CONFIG_SYNTAX), TPD_USAGE);
	ck_assert_ptr_nonnull(strstr(err.text, ":2: [daemon] control_socket: is longer than"));
}
END_TEST

static void expect_paths(const char *store, const char *watch, const char *message)
{
	char text[2048], wanted[2048];

	snprintf(text, sizeof text, "[store]\npath=%s\n[watch:a]\nsettle=1\npath=%s\n", store, watch);
	if (!message) {
		ck_assert_msg(parse(text, TPD_CONFIG_PATHS) == TPD_OK, "%s", err.text);
		tpd_config_release(&config);
		return;
	}
	snprintf(wanted, sizeof wanted, "%s:%s", scratch("c.conf"), message);
	ck_assert_int_eq(parse(text, TPD_CONFIG_PATHS), TPD_USAGE);
	ck_assert_str_eq(err.text, wanted);
}

START_TEST(paths)
{
	char message[1024];

	mkdir(scratch("run"), 0755);
	file_write(scratch("file"), "", 0);
	expect_paths(scratch("new"), scratch("run"), NULL); /* the store is made later */
	snprintf(message, sizeof message, "5: [watch:a] path: directory '%s': No such file or directory",
		 scratch("none"));
	expect_paths(scratch("new"), scratch("none"), message);
	snprintf(message, sizeof message, "5: [watch:a] path: directory '%s': Not a directory", scratch("file"));
	expect_paths(scratch("new"), scratch("file"), message);
	snprintf(message, sizeof message, "2: [store] path: directory '%s': No such file or directory",
		 scratch("none"));
	expect_paths(scratch("none/new"), scratch("run"), message);
	/* a link leads into another watch, or into the store, as well */
	ck_assert_int_eq(mkdir(scratch("run/deeper"), 0755), 0);
	ck_assert_int_eq(symlink(scratch("run/deeper"), scratch("link")), 0);
	snprintf(message, sizeof message, "[watch:a]\npath=%s\n[watch:b]\npath=%s\n", scratch("run"), scratch("link"));
	ck_assert_int_eq(parse(message, TPD_CONFIG_SYNTAX), TPD_OK);
	tpd_config_release(&config);
	ck_assert_int_eq(parse(message, TPD_CONFIG_PATHS), TPD_USAGE);
	snprintf(message, sizeof message, "%s:4: [watch:b] path: '%s' and '%s' of [watch:a] lie in one another",
		 scratch("c.conf"), scratch("link"), scratch("run"));
	ck_assert_str_eq(err.text, message);
	snprintf(message, sizeof message, "5: [watch:a] path: '%s' lies in the store '%s'", scratch("link"),
		 scratch("run"));
	expect_paths(scratch("run"), scratch("link"), message);
	snprintf(message, sizeof message, "5: [watch:a] path: '%s' lies in the store '%s'", scratch("run/deeper"),
		 scratch("link"));
	expect_paths(scratch("link"), scratch("run/deeper"), message);
	ck_assert_int_eq(unlink(scratch("link")), 0);
	/* only the syntax: nothing needs to exist */
	ck_assert_int_eq(parse("[store]\npath=/none/none\n[watch:a]\npath=/none\n", TPD_CONFIG_SYNTAX), TPD_OK);
	tpd_config_release(&config);
}
END_TEST

START_TEST(the_example)
{
	const char *path = "config/tpded.conf"; /* the tests run from the top */

	if (!file_exists(path))
		return;
	ck_assert_msg(tpd_config_read(path, TPD_CONFIG_SYNTAX, &config, &err) == TPD_OK, "%s", err.text);
	ck_assert_str_eq(config.store_path, TPD_CONFIG_DEFAULT_STORE);
	tpd_config_release(&config);
}
END_TEST

static void make(void)
{
	scratch_make();
	config = (struct tpd_config){0};
}

int main(void)
{
	Suite *suite = suite_create("config");
	TCase *tests = tcase_create("config");
	SRunner *runner = srunner_create(suite);
	int failed;

	suite_add_tcase(suite, tests);
	tcase_add_checked_fixture(tests, make, scratch_remove);
	tcase_add_test(tests, defaults);
	tcase_add_test(tests, every_key);
	tcase_add_loop_test(tests, one_mistake, 0, (int)TPD_ARRAY_LEN(mistakes));
	tcase_add_test(tests, watch_of_a_run);
	tcase_add_test(tests, names_that_no_run_may_have);
	tcase_add_test(tests, odd_files);
	tcase_add_test(tests, paths);
	tcase_add_test(tests, the_example);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
