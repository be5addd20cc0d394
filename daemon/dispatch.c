/*
 * dispatch.c - from jobs in the queue to checkpoints in the store.
 *
 *     queue -> ledger SET running -> worker -> ledger SET done | queued (again later) | failed | missed
 *
 * Each arrow ends before the next begins, so that the catalog never says less than has happened but for the one job
 * that is in work. A failure that may pass (no space, no memory, a lock held by tpdectl) is tried again with growing
 * delays; whatever else fails waits for a change of the checkpoint, for `tpdectl retry`, or the next start.
 */
#include "base/tpd.h"

#include "daemon/daemon.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/text.h"
#include "daemon/log.h"

#define PAUSE_MS 1000 /* between a failure and the next job: a full disk fails them all */

static void finish(struct tpd_daemon *daemon);

/* --- the ledger --- */

void tpd_dispatch_call(struct tpd_daemon *daemon, struct tpd_ledger_call *call)
{
	daemon->calls++;
	tpd_ledger_send(daemon->ledger, call);
}

void tpd_dispatch_event(struct tpd_daemon *daemon, const char *level, const char *run, const char *fmt, ...)
{
	struct tpd_ledger_call *call = tpd_ledger_call_new(TPD_LEDGER_EVENT);
	char text[1024];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof text, fmt, args);
	va_end(args);
	tpd_log_run(strcmp(level, "info") == 0            ? TPD_LOG_INFO
			    : strcmp(level, "error") == 0 ? TPD_LOG_ERROR
							  : TPD_LOG_WARNING,
		    run, false, 0, "%s", text);
	if (!call)
		return;
	call->level = level; /* a literal */
	call->text = strdup(text);
	call->run = run ? strdup(run) : NULL;
	if (call->text && (call->run || !run))
		tpd_ledger_send(daemon->ledger, call);
	else
		tpd_ledger_call_free(call);
}

void tpd_dispatch_refuse(struct tpd_daemon *daemon, const struct tpd_capture_task *task)
{
	struct tpd_ledger_call *call = tpd_ledger_call_new(TPD_LEDGER_REFUSE);

	if (!call)
		return; /* the log has it */
	call->step = task->step;
	call->run = strdup(task->run);
	call->path = strdup(task->path);
	call->text = strdup(task->err.text);
	if (call->run && call->path && call->text)
		tpd_ledger_send(daemon->ledger, call);
	else
		tpd_ledger_call_free(call);
}

void tpd_dispatch_gone(struct tpd_daemon *daemon, const char *path)
{
	struct tpd_ledger_call *call = tpd_ledger_call_new(TPD_LEDGER_GONE);

	if (!call)
		return; /* the next start finds out */
	call->path = strdup(path);
	if (call->path)
		tpd_ledger_send(daemon->ledger, call);
	else
		tpd_ledger_call_free(call);
}

/* Note a job's state down; the answer comes to on_set(). text and checkpoint may be NULL. */
static void set_job(struct tpd_daemon *daemon, const struct tpd_queue_item *item, enum tpd_job_state state,
		    const char *checkpoint, const char *text)
{
	struct tpd_ledger_call *call = tpd_ledger_call_new(TPD_LEDGER_SET);

	if (call && text)
		call->text = strdup(text);
	if (!call || (text && !call->text)) {
		tpd_ledger_call_free(call);
		tpd_daemon_stop(daemon, TPD_NOMEM); /* the next start finds the job as it is noted */
		return;
	}
	call->number = item->number;
	call->state = state;
	if (checkpoint)
		memcpy(call->checkpoint, checkpoint, strnlen(checkpoint, sizeof call->checkpoint - 1));
	tpd_dispatch_call(daemon, call);
}

/* --- the start --- */

static void take_left_jobs(struct tpd_daemon *daemon, const struct tpd_ledger_call *call)
{
	for (size_t i = 0; i < call->job_count; i++) {
		const struct tpd_ledger_job *job = &call->jobs[i];
		struct tpd_queue_item *item = tpd_queue_item_new(job->run, job->path, job->step, job->fingerprint);

		if (!item) {
			tpd_daemon_stop(daemon, TPD_NOMEM);
			return;
		}
		item->number = job->number;
		item->begun_ns = job->was_running ? job->changed_ns : 0;
		tpd_queue_put(&daemon->queue, item);
	}
	if (call->job_count > 0)
		tpd_log(TPD_LOG_INFO, "%zu job%s left from before", call->job_count,
			call->job_count == 1 ? " is" : "s are");
}

static void on_opened(struct tpd_daemon *daemon, struct tpd_ledger_call *call)
{
	struct tpd_worker_options options = {
		.archive = call->archive,
		.answers = &daemon->inbox,
		.deliver = tpd_dispatch_on_work,
		.wake = tpd_daemon_wake,
		.wake_arg = daemon,
	};
	struct tpd_err err = {0};

	if (call->status == TPD_OK && !daemon->stopping) {
		call->status = tpd_worker_start(&options, &daemon->worker, &err);
		if (call->status != TPD_OK)
			call->err = err;
	}
	if (call->status != TPD_OK) {
		tpd_log(TPD_LOG_ERROR, "%s", call->err.text);
		tpd_daemon_stop(daemon, call->status);
		return;
	}
	if (daemon->stopping)
		return;
	daemon->archive = call->archive;
	take_left_jobs(daemon, call);
	daemon->ready = true;
	tpd_notify_send(&daemon->notify, "READY=1\nSTATUS=%s", tpd_report_state(daemon));
	tpd_log(TPD_LOG_NOTICE, "tpded %s serves store '%s', watching %zu director%s", TPD_VERSION,
		daemon->config.store_path, daemon->watch_count, daemon->watch_count == 1 ? "y" : "ies");
	tpd_intake_go_on(daemon);
}

/* --- a job's end --- */

static void free_running(struct tpd_daemon *daemon)
{
	tpd_queue_item_free(daemon->running);
	daemon->running = NULL;
	daemon->working = false;
	finish(daemon);
}

static void on_done(struct tpd_daemon *daemon, const struct tpd_work *work)
{
	struct tpd_queue_item *item = daemon->running;
	char size[TPD_TEXT_SIZE], rate[TPD_TEXT_SIZE];

	daemon->done++;
	tpd_report_over(daemon, item->path);
	daemon->last_stored.any = true;
	daemon->last_stored.step = item->step;
	daemon->last_stored.version = work->result.version;
	daemon->last_stored.existed = work->result.existed;
	daemon->last_stored.time_ns = tpd_clock_wall_ns();
	snprintf(daemon->last_stored.run, sizeof daemon->last_stored.run, "%s", item->run);
	tpd_id_hex(&work->result.id, daemon->last_stored.id);
	set_job(daemon, item, TPD_JOB_DONE, daemon->last_stored.id, NULL);
	if (work->result.remnant)
		tpd_dispatch_event(daemon, "info", item->run, "%s@%llu: what is left of '%s' is stored whole as %s@%llu~%u", item->run,
				   (unsigned long long)item->step, item->path, item->run, (unsigned long long)item->step,
				   work->result.version);
	else if (work->result.existed)
		tpd_dispatch_event(daemon, "info", item->run, "%s@%llu~%u was stored already", item->run,
				   (unsigned long long)item->step, work->result.version);
	else
		tpd_dispatch_event(daemon, "info", item->run, "%s %s@%llu~%u%s: %s in %.1f s (%s/s)",
				   work->result.repaired ? "repaired" : "stored", item->run, (unsigned long long)item->step,
				   work->result.version, work->result.repaired ? ", which was damaged" : "",
				   tpd_text_bytes(work->bytes, size), (double)work->elapsed_ms / 1000,
				   tpd_text_bytes(work->bytes * 1000 / (uint64_t)TPD_MAX(work->elapsed_ms, (int64_t)1),
						  rate));
	if (work->result.base_fault.status)
		tpd_dispatch_event(daemon, "warning", item->run, "%s@%llu~%u is stored without its base: %s", item->run,
				   (unsigned long long)item->step, work->result.version, work->result.base_fault.text);
	if (work->result.reference_fault.status)
		tpd_dispatch_event(daemon, "warning", item->run, "%s@%llu~%u stands alone, since what it %s is damaged: %s", item->run,
				   (unsigned long long)item->step, work->result.version,
				   work->result.repaired ? "was, or referred to," : "would refer to", work->result.reference_fault.text);
	if (work->lacks.count > 0)
		tpd_dispatch_event(daemon, "warning", item->run, "%s@%llu~%u has no '%s'%s, as %s@%llu has", item->run,
				   (unsigned long long)item->step, work->result.version, work->lacks.first,
				   work->lacks.count > 1 ? " and other files" : "", item->run, (unsigned long long)work->lacks.before_step);
	if (work->unrecorded.status) /* the next start puts it in */
		tpd_dispatch_event(daemon, "warning", item->run, "%s@%llu~%u is not in the catalog yet: %s", item->run,
				   (unsigned long long)item->step, work->result.version, work->unrecorded.text);
	tpd_settle_done(daemon->settle, item->path, item->generation);
}

void tpd_dispatch_drop(struct tpd_daemon *daemon, struct tpd_queue_item *item)
{
	tpd_queue_remove(&daemon->queue, item);
	set_job(daemon, item, TPD_JOB_MISSED, NULL, "its files were deleted or written over, and the disk was getting full");
	tpd_report_over(daemon, item->path);
	tpd_settle_done(daemon->settle, item->path, item->generation);
	tpd_intake_close_capture(daemon, item->capture);
	item->capture = NULL;
	tpd_queue_item_free(item);
}

/* The files changed, or went away, before they were read. */
static void on_lost(struct tpd_daemon *daemon, const struct tpd_work *work)
{
	struct tpd_queue_item *item = daemon->running;

	set_job(daemon, item, TPD_JOB_MISSED, NULL, work->err.text);
	tpd_report_over(daemon, item->path);
	if (work->status == TPD_CONFLICT &&
	    !tpd_settle_void(daemon->settle, item->path, item->generation, uv_now(&daemon->loop))) {
		tpd_dispatch_event(daemon, "info", item->run, "%s@%llu is captured again: %s", item->run,
				   (unsigned long long)item->step, work->err.text);
		tpd_watch_look(&daemon->watch, item->path, NULL);
		return;
	}
	daemon->missed++;
	tpd_dispatch_event(daemon, "warning", item->run, "%s@%llu is missed: %s", item->run,
			   (unsigned long long)item->step, work->err.text);
	tpd_settle_done(daemon->settle, item->path, item->generation);
}

static bool may_pass(enum tpd_status status)
{
	return status == TPD_IO || status == TPD_BUSY || status == TPD_NOMEM || status == TPD_CANCELLED;
}

/* Back into the queue. */
static void on_transient(struct tpd_daemon *daemon, struct tpd_work *work)
{
	struct tpd_queue_item *item = daemon->running;
	uint64_t now_ms = uv_now(&daemon->loop), delay_ms;

	set_job(daemon, item, TPD_JOB_QUEUED, NULL, work->status == TPD_CANCELLED ? NULL : work->err.text);
	daemon->running = NULL;
	daemon->working = false;
	if (work->status != TPD_CANCELLED) {
		delay_ms = tpd_queue_failed(item, now_ms, work->err.text);
		daemon->not_before_ms = now_ms + PAUSE_MS;
		tpd_report_error(daemon, item->run, item->path, work->err.text);
		tpd_dispatch_event(daemon, "warning", item->run, "%s@%llu is tried again in %llu s: %s", item->run,
				   (unsigned long long)item->step, (unsigned long long)delay_ms / 1000, work->err.text);
	}
	/* A descriptor that went stale never recovers; its path may. */
	if (work->err.sys == ESTALE || work->status == TPD_CANCELLED) {
		tpd_queue_put(&daemon->queue, item);
	} else {
		item->capture = work->capture;
		work->capture = NULL;
		tpd_queue_put(&daemon->queue, item);
		if (work->err.sys == ENOSPC || work->err.sys == EDQUOT) /* copies may hold the room that all of them wait for */
			tpd_room_give_back(daemon);
	}
	finish(daemon);
}

/* Keep what was stored last of a run open for the next delta; what has to go for it is closed elsewhere. */
static void keep_tip(struct tpd_daemon *daemon, struct tpd_tip *tip)
{
	tpd_intake_close_tips(daemon, tpd_tips_put(&daemon->tips, tip, daemon->descriptors_max / 2));
	tpd_room_go_on(daemon);
}

/* Copies end with their job: of what was copied, the originals are kept. */
static void keep_newest(struct tpd_daemon *daemon, struct tpd_work *work)
{
	struct tpd_tip *old = work->tip, *tip = NULL;
	struct tpd_capture *kept = work->capture;

	work->tip = NULL;
	/* A copy of what was stored before it is no reference: that is, and its files are still open. What is left of one has not all of them. */
	if (work->status == TPD_OK && kept && !daemon->stopping && !(work->result.near_copy && old) && !work->result.remnant) {
		if (tpd_capture_copied(kept) > 0)
			kept = tpd_capture_take_originals(kept);
		tip = kept ? tpd_tip_new(work->run, work->path, &work->result.id, kept) : NULL;
		if (!tip && kept != work->capture)
			tpd_intake_close_capture(daemon, kept);
	}
	if (tip) {
		if (kept == work->capture)
			work->capture = NULL;
		if (old)
			tpd_intake_close_tips(daemon, tpd_tip_put_behind(tip, old));
		keep_tip(daemon, tip);
	} else if (old) {
		keep_tip(daemon, old);
	}
}

static void on_failed(struct tpd_daemon *daemon, const struct tpd_work *work)
{
	struct tpd_queue_item *item = daemon->running;

	set_job(daemon, item, TPD_JOB_FAILED, NULL, work->err.text);
	tpd_report_error(daemon, item->run, item->path, work->err.text);
	tpd_dispatch_event(daemon, "error", item->run, "%s@%llu cannot be stored: %s", item->run,
			   (unsigned long long)item->step, work->err.text);
	tpd_settle_refused(daemon->settle, item->path, item->generation);
	if (item->generation > 0 && !tpd_settle_is_refused(daemon->settle, item->path)) /* what is there is not what failed */
		tpd_dispatch_gone(daemon, item->path);
}

void tpd_dispatch_on_work(void *owner, struct tpd_message *message)
{
	struct tpd_daemon *daemon = owner;
	struct tpd_work *work = (struct tpd_work *)message;
	bool ended = true;

	keep_newest(daemon, work);

	if (work->status == TPD_OK) {
		on_done(daemon, work);
	} else if (work->status == TPD_CONFLICT || work->missed) {
		on_lost(daemon, work);
	} else if (may_pass(work->status)) {
		on_transient(daemon, work);
		ended = false;
	} else {
		on_failed(daemon, work);
	}
	tpd_intake_close_capture(daemon, work->capture);
	work->capture = NULL;
	tpd_work_free(work);
	if (ended)
		free_running(daemon);
	tpd_intake_go_on(daemon);
}

/* When the daemon is stopping and its last job has ended: the rest can end. */
static void finish(struct tpd_daemon *daemon)
{
	if (daemon->stopping)
		tpd_daemon_stop(daemon, TPD_OK);
	else
		tpd_report_tick(daemon);
}

/* --- a job's beginning --- */

static bool its_turn(void *arg, const struct tpd_queue_item *item)
{
	struct tpd_daemon *daemon = arg;

	return !tpd_settle_capturing_below(daemon->settle, item->run, item->step);
}

static void on_due(uv_timer_t *timer)
{
	tpd_dispatch_go_on(timer->data);
}

void tpd_dispatch_go_on(struct tpd_daemon *daemon)
{
	uint64_t now_ms = uv_now(&daemon->loop), due_ms = daemon->not_before_ms;

	if (daemon->stopping || daemon->paused || daemon->running || !daemon->worker || !daemon->first_wave)
		return;
	if (now_ms >= daemon->not_before_ms) {
		daemon->running = tpd_queue_take(&daemon->queue, now_ms, its_turn, daemon, &due_ms);
		if (daemon->running) {
			set_job(daemon, daemon->running, TPD_JOB_RUNNING, NULL, NULL);
			return;
		}
	}
	if (due_ms == UINT64_MAX)
		uv_timer_stop(&daemon->queue_timer);
	else
		uv_timer_start(&daemon->queue_timer, on_due, due_ms > now_ms ? due_ms - now_ms : 1, 0);
}

/* The job is noted down as running: now it may. */
static void hand_to_worker(struct tpd_daemon *daemon)
{
	struct tpd_queue_item *item = daemon->running;
	const struct tpd_config_watch *watch = tpd_config_watch_of(&daemon->config, item->run);
	const char *base = watch ? watch->base : NULL;
	struct tpd_work *work = calloc(1, sizeof *work);

	if (work) {
		work->run = strdup(item->run);
		work->path = strdup(item->path);
		work->base = base ? strdup(base) : NULL;
	}
	if (!work || !work->run || !work->path || (base && !work->base)) {
		tpd_work_free(work);
		tpd_daemon_stop(daemon, TPD_NOMEM);
		return;
	}
	work->step = item->step;
	memcpy(work->fingerprint, item->fingerprint, sizeof work->fingerprint);
	work->begun_ns = item->begun_ns;
	work->tip = tpd_tips_take(&daemon->tips, item->run);
	work->capture = item->capture;
	item->capture = NULL;
	daemon->working = true;
	daemon->job_begun_ns = tpd_clock_wall_ns();
	tpd_worker_send(daemon->worker, work);
	tpd_report_tick(daemon);
}

static void on_set(struct tpd_daemon *daemon, const struct tpd_ledger_call *call)
{
	struct tpd_queue_item *item = daemon->running;

	if (call->state != TPD_JOB_RUNNING) {
		if (call->status != TPD_OK) /* the store has it, or the next start tries it again */
			tpd_report_error(daemon, NULL, TPD_ABOUT_CATALOG, call->err.text);
		else
			tpd_report_over(daemon, TPD_ABOUT_CATALOG);
		return;
	}
	if (!item || item->number != call->number)
		return;
	if (call->status == TPD_OK && !daemon->stopping) {
		hand_to_worker(daemon);
		return;
	}
	/* Cannot be noted down (disk full?), or the end has come: not begun. */
	if (call->status != TPD_OK) {
		tpd_report_error(daemon, item->run, item->path, call->err.text);
		tpd_queue_failed(item, uv_now(&daemon->loop), call->err.text);
		daemon->not_before_ms = uv_now(&daemon->loop) + PAUSE_MS;
	}
	daemon->running = NULL;
	tpd_queue_put(&daemon->queue, item);
	finish(daemon);
}

/* Every answer of the ledger. */
void tpd_dispatch_on_call(void *owner, struct tpd_message *message)
{
	struct tpd_daemon *daemon = owner;
	struct tpd_ledger_call *call = (struct tpd_ledger_call *)message;

	switch (call->kind) {
	case TPD_LEDGER_OPENED:
		on_opened(daemon, call);
		break;
	case TPD_LEDGER_FIND:
		daemon->calls--;
		tpd_intake_on_found(daemon, call);
		break;
	case TPD_LEDGER_ADD:
		daemon->calls--;
		tpd_intake_on_added(daemon, call);
		break;
	case TPD_LEDGER_SET:
		daemon->calls--;
		on_set(daemon, call);
		break;
	case TPD_LEDGER_REFUSE:
	case TPD_LEDGER_GONE:
	case TPD_LEDGER_EVENT:
		break;
	}
	tpd_ledger_call_free(call);
	tpd_intake_go_on(daemon);
}
