/*
 * watch.c - events and time into looks.
 *
 * An event only says in which directory something happened. It is not believed further: names may be gone, queues
 * overflow, and a mount may have no events at all; what counts is what a look finds. While one is under way events are
 * collected for the next. After a completion marker each millisecond counts, so an event is served at once; but a
 * trainer that logs a thousand times a second must not cost a thousand looks: there is credit for a burst, and without
 * any left looks are a gap apart.
 *
 * Rejected: uv_fs_event (no IN_CLOSE_WRITE, loses overflows without a word, adds its watches on the loop thread).
 */
#include "base/tpd.h"

#include "daemon/watch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "daemon/log.h"

#define GAP_MS 10       /* each earns one look */
#define CREDIT_MAX 300  /* looks at once: a checkpoint of a hundred files, as it is written */
#define READS 32        /* of inotify's queue, before the loop gets its turn */
#define ALIKE 16        /* last events that one more is compared with */
#define HINTS_MAX 65536 /* then everything is looked at instead */

static void start_look(struct tpd_watch *watch);
static void on_interval(uv_timer_t *timer);

static bool add_int(struct tpd_watch_ints *ints, int value)
{
	for (size_t i = 0; i < TPD_MIN(ints->count, (size_t)ALIKE); i++) {
		if (ints->values[ints->count - 1 - i] == value)
			return true;
	}
	if (ints->count == ints->cap) {
		size_t cap = ints->cap ? ints->cap * 2 : 64;
		int *grown = reallocarray(ints->values, cap, sizeof *grown);

		if (!grown)
			return false;
		ints->values = grown;
		ints->cap = cap;
	}
	ints->values[ints->count++] = value;
	return true;
}

static void drop_ints(struct tpd_watch_ints *ints)
{
	free(ints->values);
	*ints = (struct tpd_watch_ints){0};
}

/* --- a look --- */

static bool has_work(const struct tpd_watch *watch)
{
	return watch->want_full || watch->hints.count > 0 || watch->lost.count > 0 || watch->look_count > 0 ||
		watch->new_items;
}

static void on_gap(uv_timer_t *timer)
{
	start_look(timer->data);
}

static void look_in_pool(uv_work_t *work)
{
	struct tpd_watch *watch = work->data;
	struct tpd_err err = {0};

	if (watch->new_watches &&
	    tpd_scan_set_watches(watch->scan, watch->new_watches, watch->new_watch_count, watch->skip_dev,
				 watch->skip_ino, &err) != TPD_OK)
		tpd_log(TPD_LOG_ERROR, "cannot take the watches over: %s", err.text);
	tpd_scan_run(watch->scan, &watch->request, &watch->result);
}

static void release_request(struct tpd_scan_request *request)
{
	for (size_t i = 0; i < request->look_count; i++)
		free(request->looks[i]);
	free((void *)(uintptr_t)request->looks);
	free((void *)(uintptr_t)request->descriptors);
	free((void *)(uintptr_t)request->deletions);
	free((void *)(uintptr_t)request->lost);
	*request = (struct tpd_scan_request){0};
}

static void after_look(uv_work_t *work, TPD_UNUSED int status)
{
	struct tpd_watch *watch = work->data;
	struct tpd_scan_result result = watch->result;
	bool full = watch->request.full;

	watch->busy = false;
	watch->result = (struct tpd_scan_result){0};
	release_request(&watch->request);
	tpd_scan_watches_free(watch->new_watches, watch->new_watch_count);
	watch->new_watches = NULL;
	if (watch->stopped) {
		tpd_scan_result_release(&result);
		return;
	}
	if (full)
		uv_timer_start(&watch->interval, on_interval, watch->interval_ms, 0);
	watch->on_look(watch->arg, &result, full);
	start_look(watch);
}

static void earn_credit(struct tpd_watch *watch, uint64_t now_ms)
{
	uint64_t earned = (now_ms - watch->earned_ms) / GAP_MS;

	watch->earned_ms += earned * GAP_MS;
	watch->credit = (unsigned)TPD_MIN(watch->credit + earned, (uint64_t)CREDIT_MAX);
}

static void start_look(struct tpd_watch *watch)
{
	uint64_t now_ms = uv_now(watch->loop);
	bool was_new = watch->new_items;

	if (watch->busy || watch->stopped || !has_work(watch))
		return;
	earn_credit(watch, now_ms);
	if (watch->credit == 0) {
		if (!uv_is_active((uv_handle_t *)&watch->gap))
			uv_timer_start(&watch->gap, on_gap, GAP_MS, 0);
		return;
	}
	watch->credit--;
	watch->request = (struct tpd_scan_request){
		.full = watch->want_full || watch->lost_events || was_new,
		.deep = watch->want_deep || watch->lost_events,
		.descriptors = watch->hints.values,
		.descriptor_count = watch->hints.count,
		.deletions = watch->deletions.values,
		.deletion_count = watch->deletions.count,
		.lost = watch->lost.values,
		.lost_count = watch->lost.count,
		.looks = watch->looks,
		.look_count = watch->look_count,
	};
	watch->hints = watch->deletions = watch->lost = (struct tpd_watch_ints){0};
	watch->looks = NULL;
	watch->look_count = watch->look_cap = 0;
	watch->want_full = watch->want_deep = watch->lost_events = false;
	if (was_new) {
		watch->new_watches = watch->items;
		watch->new_watch_count = watch->item_count;
		watch->items = NULL;
		watch->new_items = false;
	}
	watch->busy = true;
	watch->work.data = watch;
	uv_queue_work(watch->loop, &watch->work, look_in_pool, after_look);
}

/* --- events --- */

static void take_event(struct tpd_watch *watch, const struct inotify_event *event)
{
	bool ok = true;

	if (event->mask & IN_Q_OVERFLOW) {
		tpd_log(TPD_LOG_NOTICE, "inotify's queue overflowed: looking at everything");
		watch->overflows++;
		watch->lost_events = watch->want_full = true;
	} else if (event->mask & IN_IGNORED) {
		ok = add_int(&watch->lost, event->wd);
	} else {
		ok = add_int(&watch->hints, event->wd) && (!(event->mask & IN_DELETE) || add_int(&watch->deletions, event->wd));
	}
	if (!ok || watch->hints.count > HINTS_MAX) {
		watch->lost_events = watch->want_full = true;
		drop_ints(&watch->hints);
		drop_ints(&watch->deletions);
	}
}

static void on_readable(uv_poll_t *poll, TPD_UNUSED int status, TPD_UNUSED int events)
{
	struct tpd_watch *watch = poll->data;
	_Alignas(struct inotify_event) char buf[16384];

	for (int i = 0; i < READS; i++) {
		ssize_t len = read(watch->inotify, buf, sizeof buf);

		if (len <= 0)
			break;
		for (ssize_t at = 0; at < len;) {
			const struct inotify_event *event = (const void *)(buf + at);

			take_event(watch, event);
			at += (ssize_t)(sizeof *event + event->len);
		}
	}
	start_look(watch);
}

static void on_interval(uv_timer_t *timer)
{
	tpd_watch_now(timer->data, false);
}

/* --- life --- */

enum tpd_status tpd_watch_open(struct tpd_watch *watch, uv_loop_t *loop,
			       void (*on_look)(void *arg, struct tpd_scan_result *result, bool full), void *arg,
			       struct tpd_err *err)
{
	const char *reason = NULL;
	enum tpd_status status;

	*watch = (struct tpd_watch){.loop = loop, .on_look = on_look, .arg = arg, .interval_ms = 60000};
	watch->credit = CREDIT_MAX;
	watch->earned_ms = uv_now(loop);
	watch->inotify = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (watch->inotify < 0)
		reason = errno == EMFILE
			? "the limit of inotify instances, /proc/sys/fs/inotify/max_user_instances, is reached"
			: "inotify is not available";
	status = tpd_scan_new(watch->inotify, reason, &watch->scan, err);
	if (status != TPD_OK) {
		if (watch->inotify >= 0)
			close(watch->inotify);
		return status;
	}
	uv_timer_init(loop, &watch->interval);
	watch->interval.data = watch;
	uv_timer_init(loop, &watch->gap);
	watch->gap.data = watch;
	if (watch->inotify >= 0 && uv_poll_init(loop, &watch->poll, watch->inotify) == 0) {
		watch->polling = true;
		watch->poll.data = watch;
		uv_poll_start(&watch->poll, UV_READABLE, on_readable);
	}
	return TPD_OK;
}

void tpd_watch_set(struct tpd_watch *watch, struct tpd_scan_watch *items, size_t count, uint64_t interval_ms,
		   dev_t skip_dev, ino_t skip_ino)
{
	tpd_scan_watches_free(watch->items, watch->item_count);
	watch->items = items;
	watch->item_count = count;
	watch->interval_ms = interval_ms;
	if (!watch->busy) { /* it is the same at every call: the store does not move */
		watch->skip_dev = skip_dev;
		watch->skip_ino = skip_ino;
	}
	watch->new_items = true;
	start_look(watch);
}

void tpd_watch_now(struct tpd_watch *watch, bool deep)
{
	watch->want_full = true;
	watch->want_deep = watch->want_deep || deep;
	start_look(watch);
}

enum tpd_status tpd_watch_look(struct tpd_watch *watch, const char *path, struct tpd_err *err)
{
	char *copy = strdup(path);

	if (copy && watch->look_count == watch->look_cap) {
		size_t cap = watch->look_cap ? watch->look_cap * 2 : 16;
		char **grown = reallocarray(watch->looks, cap, sizeof *grown);

		if (!grown) {
			free(copy);
			return tpd_fail_nomem(err);
		}
		watch->looks = grown;
		watch->look_cap = cap;
	}
	if (!copy)
		return tpd_fail_nomem(err);
	watch->looks[watch->look_count++] = copy;
	start_look(watch);
	return TPD_OK;
}

void tpd_watch_stop(struct tpd_watch *watch)
{
	if (watch->stopped)
		return;
	watch->stopped = true;
	if (watch->polling)
		uv_close((uv_handle_t *)&watch->poll, NULL);
	uv_close((uv_handle_t *)&watch->interval, NULL);
	uv_close((uv_handle_t *)&watch->gap, NULL);
}

void tpd_watch_release(struct tpd_watch *watch)
{
	struct tpd_scan_request rest = {.looks = watch->looks, .look_count = watch->look_count};

	release_request(&rest);
	drop_ints(&watch->hints);
	drop_ints(&watch->deletions);
	drop_ints(&watch->lost);
	tpd_scan_free(watch->scan);
	tpd_scan_watches_free(watch->items, watch->item_count);
	if (watch->inotify >= 0)
		close(watch->inotify);
}
