/*
 * report.c - what is told: to tpdectl by the control socket, to systemd by its notify socket.
 *
 * The watchdog is fed by work, not by the loop alone: while a job is in work or calls wait for the ledger, there must
 * have been progress (a batch of chunks, a call served) within the last interval; a worker that hangs is then restarted
 * although the loop is well.
 */
#include "base/tpd.h"

#include "daemon/daemon.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/text.h"

#define LISTED_MAX 50 /* of checkpoints that are not complete, and of jobs that failed, in one answer */

const char *tpd_report_state(const struct tpd_daemon *daemon)
{
	if (daemon->stopping)
		return "stopping";
	if (!daemon->ready || !daemon->first_wave)
		return "starting";
	if (daemon->running)
		return "working";
	return daemon->paused ? "paused" : "idle";
}

void tpd_report_error(struct tpd_daemon *daemon, const char *run, const char *about, const char *text)
{
	daemon->last_error.any = true;
	daemon->last_error.time_ns = tpd_clock_wall_ns();
	snprintf(daemon->last_error.run, sizeof daemon->last_error.run, "%s", run ? run : "");
	snprintf(daemon->last_error.about, sizeof daemon->last_error.about, "%s", about);
	snprintf(daemon->last_error.text, sizeof daemon->last_error.text, "%s", text);
}

void tpd_report_over(struct tpd_daemon *daemon, const char *about)
{
	if (strcmp(daemon->last_error.about, about) == 0)
		daemon->last_error.any = false;
}

/* --- status --- */

static void put_u64(struct tpd_json_out *out, const char *key, uint64_t v)
{
	tpd_json_key(out, key);
	tpd_json_put_u64(out, v);
}

static void put_string(struct tpd_json_out *out, const char *key, const char *s)
{
	tpd_json_key(out, key);
	tpd_json_put_string(out, s);
}

static void put_time(struct tpd_json_out *out, const char *key, int64_t ns)
{
	tpd_json_key(out, key);
	tpd_json_put_i64(out, ns);
}

/* By the clock on the wall. None: nothing keeps it waiting. */
static void put_next_try(struct tpd_json_out *out, uint64_t retry_ms, uint64_t now_ms)
{
	tpd_json_key(out, "next_try");
	if (retry_ms > now_ms)
		tpd_json_put_i64(out, tpd_clock_wall_ns() + (int64_t)(retry_ms - now_ms) * 1000000);
	else
		tpd_json_put_null(out);
}

struct unfinished {
	struct tpd_json_out *out;
	uint64_t now_ms;
};

static void put_unfinished(void *arg, const struct tpd_unfinished_sight *sight)
{
	struct unfinished *unfinished = arg;
	struct tpd_json_out *out = unfinished->out;

	tpd_json_begin_object(out);
	put_string(out, "run", sight->run);
	put_u64(out, "step", sight->step);
	put_string(out, "path", sight->path);
	put_string(out, "framework", sight->framework);
	put_string(out, "waits_for", *sight->waits ? sight->waits : NULL);
	put_u64(out, "unchanged_ms", unfinished->now_ms - TPD_MIN(sight->since_ms, unfinished->now_ms));
	put_next_try(out, sight->retry_ms, unfinished->now_ms);
	tpd_json_end_object(out);
}

static void put_watches(const struct tpd_daemon *daemon, struct tpd_json_out *out)
{
	tpd_json_key(out, "watches");
	tpd_json_begin_array(out);
	for (size_t i = 0; i < daemon->watch_count; i++) {
		const struct tpd_daemon_watch *watch = &daemon->watches[i];
		struct tpd_settle_counts counts = tpd_settle_count(daemon->settle, watch->id);

		tpd_json_begin_object(out);
		put_string(out, "name", watch->name);
		put_string(out, "path", watch->path);
		put_string(out, "mode", watch->state.polling ? "polling" : "inotify");
		put_string(out, "reason", watch->state.reason);
		tpd_json_key(out, "missing_since");
		if (watch->state.missing_ns)
			tpd_json_put_i64(out, watch->state.missing_ns);
		else
			tpd_json_put_null(out);
		put_u64(out, "runs", counts.runs);
		put_u64(out, "checkpoints", counts.checkpoints);
		put_u64(out, "unfinished", counts.unfinished);
		put_u64(out, "directories", watch->state.directories);
		put_u64(out, "files", watch->state.files);
		tpd_json_end_object(out);
	}
	tpd_json_end_array(out);
	tpd_json_key(out, "unfinished");
	tpd_json_begin_array(out);
	tpd_settle_unfinished(daemon->settle, LISTED_MAX, put_unfinished,
			      &(struct unfinished){.out = out, .now_ms = uv_now(&daemon->loop)});
	tpd_json_end_array(out);
}

static void put_queue(const struct tpd_daemon *daemon, struct tpd_json_out *out)
{
	tpd_json_key(out, "queue");
	tpd_json_begin_object(out);
	put_u64(out, "queued", daemon->queue.count);
	put_u64(out, "running", daemon->running ? 1 : 0);
	put_u64(out, "failed", tpd_settle_count(daemon->settle, UINT32_MAX).refused);
	put_u64(out, "retrying", tpd_queue_retrying(&daemon->queue));
	put_u64(out, "done", daemon->done);
	put_u64(out, "missed", daemon->missed);
	put_u64(out, "held", daemon->queue.held);
	put_u64(out, "tips", daemon->tips.count);
	put_u64(out, "copied", atomic_load(&daemon->spool.used));
	tpd_json_end_object(out);
}

/* Jobs that failed and wait for another try. */
static void put_retries(const struct tpd_daemon *daemon, struct tpd_json_out *out)
{
	size_t left = LISTED_MAX;

	tpd_json_key(out, "retries");
	tpd_json_begin_array(out);
	for (const struct tpd_queue_item *item = daemon->queue.first; item && left > 0; item = item->next) {
		if (item->attempts == 0)
			continue;
		tpd_json_begin_object(out);
		put_string(out, "run", item->run);
		put_u64(out, "step", item->step);
		put_string(out, "path", item->path);
		put_u64(out, "tries", item->attempts);
		put_next_try(out, item->retry_ms, uv_now(&daemon->loop));
		put_string(out, "error", item->why);
		tpd_json_end_object(out);
		left--;
	}
	tpd_json_end_array(out);
}

static void put_job(const struct tpd_daemon *daemon, struct tpd_json_out *out)
{
	const struct tpd_queue_item *item = daemon->running;
	uint64_t done = 0, total = 0, ticks;
	double seconds;

	tpd_json_key(out, "job");
	if (!item) {
		tpd_json_put_null(out);
		return;
	}
	if (daemon->working)
		tpd_worker_progress(daemon->worker, &done, &total, &ticks);
	seconds = (double)(tpd_clock_wall_ns() - daemon->job_begun_ns) / 1e9;
	tpd_json_begin_object(out);
	put_string(out, "run", item->run);
	put_u64(out, "step", item->step);
	put_string(out, "path", item->path);
	put_u64(out, "done", done);
	put_u64(out, "total", total);
	put_u64(out, "rate", daemon->working && seconds > 0 ? (uint64_t)((double)done / seconds) : 0);
	put_time(out, "started", daemon->working ? daemon->job_begun_ns : tpd_clock_wall_ns());
	tpd_json_end_object(out);
}

static void put_last(const struct tpd_daemon *daemon, struct tpd_json_out *out)
{
	tpd_json_key(out, "last_stored");
	if (daemon->last_stored.any) {
		tpd_json_begin_object(out);
		put_string(out, "run", daemon->last_stored.run);
		put_u64(out, "step", daemon->last_stored.step);
		put_u64(out, "version", daemon->last_stored.version);
		put_string(out, "id", daemon->last_stored.id);
		put_time(out, "time", daemon->last_stored.time_ns);
		tpd_json_key(out, "existed");
		tpd_json_put_bool(out, daemon->last_stored.existed);
		tpd_json_end_object(out);
	} else {
		tpd_json_put_null(out);
	}
	tpd_json_key(out, "last_error");
	if (daemon->last_error.any) {
		tpd_json_begin_object(out);
		put_time(out, "time", daemon->last_error.time_ns);
		put_string(out, "run", daemon->last_error.run[0] ? daemon->last_error.run : NULL);
		put_string(out, "text", daemon->last_error.text);
		tpd_json_end_object(out);
	} else {
		tpd_json_put_null(out);
	}
}

static void put_status(const struct tpd_daemon *daemon, struct tpd_json_out *out)
{
	tpd_json_key(out, "pid");
	tpd_json_put_i64(out, getpid());
	put_string(out, "version", TPD_VERSION);
	put_time(out, "since", daemon->since_ns);
	put_string(out, "store", daemon->config.store_path);
	put_string(out, "config", daemon->config.file);
	put_string(out, "state", tpd_report_state(daemon));
	put_watches(daemon, out);
	put_u64(out, "overflows", daemon->watch.overflows);
	put_queue(daemon, out);
	put_retries(daemon, out);
	put_job(daemon, out);
	put_last(daemon, out);
}

/* --- commands --- */

static void answer_status(struct tpd_daemon *daemon, struct tpd_json_out *out)
{
	put_status(daemon, out);
}

static void answer_pause(struct tpd_daemon *daemon, struct tpd_json_out *out)
{
	if (!daemon->paused)
		tpd_dispatch_event(daemon, "info", NULL, "paused on request");
	daemon->paused = true;
	put_string(out, "state", tpd_report_state(daemon));
}

static void answer_resume(struct tpd_daemon *daemon, struct tpd_json_out *out)
{
	if (daemon->paused)
		tpd_dispatch_event(daemon, "info", NULL, "resumed on request");
	daemon->paused = false;
	tpd_dispatch_go_on(daemon);
	put_string(out, "state", tpd_report_state(daemon));
}

/* What waits after a failure, or was refused: its reason may be gone, and somebody knows. */
static void answer_retry(struct tpd_daemon *daemon, struct tpd_json_out *out)
{
	uint64_t now_ms = uv_now(&daemon->loop);
	size_t n = tpd_queue_retry(&daemon->queue, now_ms) + tpd_settle_retry(daemon->settle, now_ms);

	daemon->not_before_ms = 0;
	if (n > 0)
		tpd_dispatch_event(daemon, "info", NULL, "%zu %s tried again on request", n, n == 1 ? "is" : "are");
	tpd_intake_go_on(daemon);
	put_u64(out, "retried", n);
	put_string(out, "state", tpd_report_state(daemon));
}

static void answer_scan(struct tpd_daemon *daemon, TPD_UNUSED struct tpd_json_out *out)
{
	tpd_watch_now(&daemon->watch, true);
}

bool tpd_report_answer(void *arg, const char *command, struct tpd_json_out *out, struct tpd_err *err)
{
	static const struct {
		const char *name;
		void (*answer)(struct tpd_daemon *daemon, struct tpd_json_out *out);
	} commands[] = {
		{"status", answer_status},
		{"pause", answer_pause},
		{"resume", answer_resume},
		{"retry", answer_retry},
		{"scan", answer_scan},
	};

	for (size_t i = 0; i < TPD_ARRAY_LEN(commands); i++) {
		if (strcmp(commands[i].name, command) == 0) {
			commands[i].answer(arg, out);
			return true;
		}
	}
	tpd_fail(err, TPD_USAGE, "there is no command '%s'; there are status, pause, resume, retry and scan", command);
	return false;
}

/* --- systemd --- */

/*
 * Was there a sign of life from whoever has work to do, within the watchdog's interval? A step of an ingest, an answer of the ledger, or
 * any call to the disk that came back: reading a large part back or copying a tip are no steps, but calls.
 */
static bool alive(struct tpd_daemon *daemon)
{
	uint64_t now_ms = uv_now(&daemon->loop), done, total, ticks = 0, signs;

	if (daemon->worker)
		tpd_worker_progress(daemon->worker, &done, &total, &ticks);
	signs = ticks + tpd_ledger_served(daemon->ledger) + tpd_io_count_calls(&daemon->io);
	if (signs != daemon->signs_seen || (!daemon->working && daemon->calls == 0))
		daemon->life_ms = now_ms;
	daemon->signs_seen = signs;
	return now_ms - daemon->life_ms < daemon->notify.watchdog_ms;
}

void tpd_report_tick(struct tpd_daemon *daemon)
{
	const struct tpd_queue_item *item = daemon->running;

	if (daemon->notify.fd < 0)
		return;
	if (!daemon->ready && !daemon->stopping) { /* rebuilding a large catalog takes its time */
		tpd_notify_send(&daemon->notify, "EXTEND_TIMEOUT_USEC=60000000\nSTATUS=opening the store");
		daemon->life_ms = uv_now(&daemon->loop);
		return;
	}
	if (item)
		tpd_notify_send(&daemon->notify, "STATUS=storing %s@%llu, %zu more queued", item->run,
				(unsigned long long)item->step, daemon->queue.count);
	else
		tpd_notify_send(&daemon->notify, "STATUS=%s, %zu queued, %llu stored since the start",
				tpd_report_state(daemon), daemon->queue.count, (unsigned long long)daemon->done);
	if (daemon->notify.watchdog_ms > 0 && alive(daemon))
		tpd_notify_send(&daemon->notify, "WATCHDOG=1");
}
