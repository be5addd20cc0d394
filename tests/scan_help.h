/*
 * scan_help.h - for the tests of scan and frameworks: a watched directory, what is put into it, what a look shows.
 */
#ifndef TESTS_SCAN_HELP_H
#define TESTS_SCAN_HELP_H

#include "base/tpd.h"

#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/scan.h"
#include "files.h"

static struct tpd_scan *scan;
static struct tpd_scan_result result;
static int inotify;
/* Rules of the configuration for the next make(). */
static const char *complete_when, *step_regex;

static TPD_UNUSED void make_with(int fd)
{
	struct tpd_scan_watch watch = {.id = 7, .name = "run", .complete_when = complete_when, .step_regex = step_regex};
	struct stat st;

	scratch_make();
	mkdir(scratch("w"), 0755);
	mkdir(scratch("store"), 0755);
	watch.path = scratch("w");
	ck_assert_int_eq(stat(scratch("store"), &st), 0);
	inotify = fd;
	ck_assert_int_eq(tpd_scan_new(fd, "none here", &scan, NULL), TPD_OK);
	ck_assert_int_eq(tpd_scan_set_watches(scan, &watch, 1, st.st_dev, st.st_ino, NULL), TPD_OK);
}

static TPD_UNUSED void make(void)
{
	make_with(inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
}

static TPD_UNUSED void make_polling(void)
{
	make_with(-1);
}

static TPD_UNUSED void drop(void)
{
	tpd_scan_result_release(&result);
	tpd_scan_free(scan);
	if (inotify >= 0)
		close(inotify);
	scratch_remove();
}

static TPD_UNUSED void put(const char *path, const char *text)
{
	TPD_AUTO_FREE char *copy = strdup(scratch("w/%s", path));

	for (char *slash = copy + strlen(scratch("w/")); (slash = strchr(slash, '/')) != NULL; slash++) {
		*slash = 0;
		mkdir(copy, 0755);
		*slash = '/';
	}
	file_write(copy, text, strlen(text));
}

/* A file of 2000 bytes. */
static TPD_UNUSED void put_big(const char *path)
{
	char text[2001];

	memset(text, 'x', 2000);
	text[2000] = 0;
	put(path, text);
}

static TPD_UNUSED void run(const struct tpd_scan_request *request)
{
	tpd_scan_result_release(&result);
	tpd_scan_run(scan, request, &result);
	ck_assert_int_eq(result.status, TPD_OK);
}

static TPD_UNUSED void look_at_all(void)
{
	run(&(struct tpd_scan_request){.full = true});
}

/* What inotify says goes into the next look, as watch.c does it. Returns the number of events. */
static TPD_UNUSED int look_at_events(void)
{
	_Alignas(struct inotify_event) char buf[65536];
	int hints[1000], deletions[1000], lost[1000];
	struct tpd_scan_request request = {.descriptors = hints, .deletions = deletions, .lost = lost};
	ssize_t len = read(inotify, buf, sizeof buf);

	for (ssize_t at = 0; at < len;) {
		const struct inotify_event *event = (const void *)(buf + at);

		if (event->mask & IN_IGNORED)
			lost[request.lost_count++] = event->wd;
		else
			hints[request.descriptor_count++] = event->wd;
		if (event->mask & IN_DELETE)
			deletions[request.deletion_count++] = event->wd;
		at += (ssize_t)(sizeof *event + event->len);
	}
	run(&request);
	return (int)(request.descriptor_count + request.lost_count);
}

/* The sight of a path below the watched directory; NULL: not reported. */
static TPD_UNUSED const struct tpd_seen *seen(const char *path)
{
	for (size_t i = 0; i < result.seen_count; i++) {
		if (strcmp(result.seen[i].path, scratch("w/%s", path)) == 0)
			return &result.seen[i];
	}
	return NULL;
}

static TPD_UNUSED void expect(const char *path, const char *run_name, uint64_t step, enum tpd_readiness readiness)
{
	const struct tpd_seen *s = seen(path);

	ck_assert_msg(s != NULL, "%s is not reported", path);
	ck_assert_str_eq(s->run, run_name);
	ck_assert_uint_eq(s->step, step);
	ck_assert_uint_eq(s->watch, 7);
	ck_assert_msg(s->readiness == readiness, "%s: %d", path, s->readiness);
}

static TPD_UNUSED bool gone(const char *path)
{
	for (size_t i = 0; i < result.gone_count; i++) {
		if (strcmp(result.gone[i], scratch("w/%s", path)) == 0)
			return true;
	}
	return false;
}

static TPD_UNUSED void put_trainer(const char *dir)
{
	char path[200], state[100];

	snprintf(path, sizeof path, "%s/model.safetensors", dir);
	put_big(path);
	snprintf(path, sizeof path, "%s/training_args.bin", dir);
	put(path, "x");
	snprintf(path, sizeof path, "%s/trainer_state.json", dir);
	snprintf(state, sizeof state, "{\"global_step\":%s,\"loss\":NaN}", strrchr(dir, '-') + 1);
	put(path, state);
}

#endif
