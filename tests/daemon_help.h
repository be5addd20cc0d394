/*
 * daemon_help.h - for the tests of the daemon in a process of its own, asked over its control socket and told by signals.
 */
#ifndef TESTS_DAEMON_HELP_H
#define TESTS_DAEMON_HELP_H

#include "base/tpd.h"

#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "daemon/daemon.h"
#include "daemon/log.h"
#include "files.h"
#include "wire/wire.h"

#define PATIENCE_MS 60000 /* for a busy machine under a sanitizer; nothing here is measured */

static pid_t child;

static TPD_UNUSED void nap(long ms)
{
	nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

static TPD_UNUSED void write_config(const char *extra)
{
	char text[4096];

	snprintf(
		text, sizeof text,
		"[store]\npath=%s\n[daemon]\ncontrol_socket=%s\nthreads=2\nscan_interval=1h\n[watch:a]\npath=%s\nsettle=100ms\n%s",
		scratch("store"), scratch("run/c.sock"), scratch("a"), extra);
	file_write(scratch("c.conf"), text, strlen(text));
}

static TPD_UNUSED void start(void)
{
	child = fork();
	ck_assert_int_ge(child, 0);
	if (child == 0) {
		struct tpd_config config;
		struct tpd_err err = {0};
		int code;

		if (!getenv("TPD_TEST_LOG") && !freopen(scratch("log"), "a", stderr))
			exit(99);
		tpd_log_open(TPD_LOG_DEBUG);
		if (tpd_config_read(scratch("c.conf"), TPD_CONFIG_PATHS, &config, &err) != TPD_OK) {
			tpd_log(TPD_LOG_ERROR, "%s", err.text);
			exit(2);
		}
		code = tpd_daemon_run(&(struct tpd_daemon_options){.config = &config});
		tpd_log_close();
		exit(code); /* with the leak check of a sanitizer build */
	}
}

static TPD_UNUSED int stop(int signal_number)
{
	int status;

	if (signal_number)
		kill(child, signal_number);
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	child = 0;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

/* The reply's text; fails when none comes. Fresh. */
/* A daemon that is no more is told at once, with the end of its log. */
static TPD_UNUSED void check_alive(void)
{
	int status;
	size_t len = 0;
	uint8_t *log;

	if (waitpid(child, &status, WNOHANG) != child)
		return;
	log = file_exists(scratch("log")) ? file_read(scratch("log"), &len) : NULL;
	ck_abort_msg("the daemon ended, status 0x%x: %.*s", (unsigned)status, (int)TPD_MIN(len, (size_t)3000),
		     log ? (const char *)log + (len > 3000 ? len - 3000 : 0) : "");
}

static TPD_UNUSED char *ask(const char *request)
{
	char *reply = NULL;
	struct tpd_err err = {0};

	for (int waited = 0;; waited += 20) {
		enum tpd_status status = tpd_wire_call(scratch("run/c.sock"), request, PATIENCE_MS, &reply, &err);

		if (status == TPD_OK)
			return reply;
		check_alive();
		ck_assert_msg((status == TPD_NOT_FOUND || status == TPD_CORRUPT || status == TPD_IO) &&
				      waited < PATIENCE_MS,
			      "%s", err.text);
		nap(20);
	}
}

/* Ask for the status until it holds `text`. */
static TPD_UNUSED void await(const char *text)
{
	for (int waited = 0;; waited += 20) {
		char *reply = ask("{\"command\":\"status\"}");
		bool found = strstr(reply, text) != NULL;

		ck_assert_msg(waited < PATIENCE_MS, "no %s in %s", text, reply);
		free(reply);
		if (found)
			return;
		nap(20);
	}
}

static TPD_UNUSED void expect_reply(const char *request, const char *wanted)
{
	char *reply = ask(request);

	ck_assert_str_eq(reply, wanted);
	free(reply);
}

static TPD_UNUSED void make(void)
{
	scratch_make();
	mkdir(scratch("a"), 0755);
	write_config("");
}

static TPD_UNUSED void drop(void)
{
	if (child > 0) {
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
	}
	child = 0;
	scratch_remove();
}

static TPD_UNUSED int run_daemon_tests(const char *name, const TTest *const *tests, size_t count)
{
	Suite *suite = suite_create(name);
	TCase *all = tcase_create(name);
	SRunner *runner = srunner_create(suite);
	int failed;

	suite_add_tcase(suite, all);
	tcase_add_checked_fixture(all, make, drop);
	tcase_set_timeout(all, 120);
	for (size_t i = 0; i < count; i++)
		tcase_add_test(all, tests[i]);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

#endif
