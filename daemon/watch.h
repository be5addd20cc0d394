/*
 * watch.h - when to look: inotify's events, a clock, and requests become looks of scan.h in libuv's pool, one at a
 * time.
 *
 *     tpd_watch_open(watch, loop, on_look, arg, &err);  tpd_watch_set(watch, ...);  tpd_watch_now(watch, false);
 *     ... tpd_watch_stop(watch), run the loop until its handles are closed, tpd_watch_release(watch)
 *
 * The loop thread only reads events and hands them on. All fields belong to it, but the scan while a look is under way.
 */
#ifndef TPD_DAEMON_WATCH_H
#define TPD_DAEMON_WATCH_H

#include "base/tpd.h"

#include <sys/types.h>
#include <uv.h>

#include "daemon/scan.h"

struct tpd_watch_ints {
	int *values; /* owned */
	size_t count, cap;
};

struct tpd_watch {
	uv_loop_t *loop;
	/* Called after each look. full: it was a full one. The result is the callee's to release. */
	void (*on_look)(void *arg, struct tpd_scan_result *result, bool full);
	void *arg;
	int inotify; /* -1: none */
	uv_poll_t poll;
	uv_timer_t interval, gap;
	bool polling, stopped;
	struct tpd_scan *scan;
	uint64_t interval_ms;
	/* for the next look */
	bool want_full, want_deep, lost_events;
	uint64_t overflows; /* of inotify's queue, since the start: events were lost, and everything was looked at */
	struct tpd_watch_ints hints, deletions, lost;
	char **looks;
	size_t look_count, look_cap;
	bool new_items;
	struct tpd_scan_watch *items; /* when new_items */
	size_t item_count;
	dev_t skip_dev;
	ino_t skip_ino;
	/* the look in work: read by its thread */
	uv_work_t work;
	bool busy;
	struct tpd_scan_watch *new_watches; /* NULL: as before; its strings are owned, too */
	size_t new_watch_count;
	struct tpd_scan_request request;
	struct tpd_scan_result result;
	unsigned credit;    /* looks that may begin at once */
	uint64_t earned_ms; /* up to here */
};

/* No inotify (EMFILE, ...) is no error: then everything is polled, and the states of looks say so. */
enum tpd_status tpd_watch_open(struct tpd_watch *watch, uv_loop_t *loop,
			       void (*on_look)(void *arg, struct tpd_scan_result *result, bool full), void *arg,
			       struct tpd_err *err);
/*
 * Look after these from the next look on. Takes the array and its strings (from malloc) over. The directory
 * skip_dev:skip_ino, the store, is left out.
 */
void tpd_watch_set(struct tpd_watch *watch, struct tpd_scan_watch *items, size_t count, uint64_t interval_ms,
		   dev_t skip_dev, ino_t skip_ino);
/* Look at everything as soon as possible, at every file when deep. */
void tpd_watch_now(struct tpd_watch *watch, bool deep);
/* Look at this checkpoint soon, and report it in any case. */
enum tpd_status tpd_watch_look(struct tpd_watch *watch, const char *path, struct tpd_err *err);
/* No more looks; a look under way still ends, without a report. Closes the handles. */
void tpd_watch_stop(struct tpd_watch *watch);
/* After the loop has ended. */
void tpd_watch_release(struct tpd_watch *watch);

#endif
