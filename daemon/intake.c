/*
 * intake.c - from what a look found to jobs in the queue.
 *
 *     look -> settle -> capturer OPEN -> ledger FIND -> capturer WATCH -> ledger ADD -> queue
 *                                          |                |
 *                                    done already        changed: back to settle
 *
 * A ledger that cannot answer (a full disk, a lock held by somebody) voids no capture: rotation may have taken the path by
 * then. The task is parked with its descriptors and asks again.
 *
 * FIND comes before the waiting: at a start most of what is found was stored by the process before, and is let go at
 * once. What is held open is bounded; beyond that a job waits without descriptors and its path is opened again when its
 * turn comes.
 */
#include "base/tpd.h"

#include "daemon/daemon.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "archive/step.h"
#include "daemon/copies.h"
#include "daemon/frameworks.h"
#include "daemon/log.h"

#define TASKS_MAX 64 /* captures under way at once */
#define HELD_MAX 64  /* captures held in the queue */
#define PARK_MS 2000 /* until the ledger is asked again */

/* --- configuration --- */

static struct tpd_daemon_watch *find_watch(struct tpd_daemon *daemon, uint32_t id)
{
	for (size_t i = 0; i < daemon->watch_count; i++) {
		if (daemon->watches[i].id == id)
			return &daemon->watches[i];
	}
	return NULL;
}

static void release_watches(struct tpd_daemon_watch *watches, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		free(watches[i].name);
		free(watches[i].path);
	}
	free(watches);
}

/* One of the configuration's watches: the one that is there already, or a new one. */
static enum tpd_status take_watch(struct tpd_daemon *daemon, const struct tpd_config_watch *wanted,
				  struct tpd_daemon_watch *out, struct tpd_err *err)
{
	out->id = UINT32_MAX;
	for (size_t i = 0; i < daemon->watch_count; i++) {
		const struct tpd_daemon_watch *old = &daemon->watches[i];

		if (strcmp(old->name, wanted->name) == 0 && strcmp(old->path, wanted->path) == 0) {
			out->id = old->id;
			out->state = old->state;
		}
	}
	if (out->id == UINT32_MAX) {
		out->id = daemon->next_watch_id++;
		out->state.id = out->id;
	}
	out->name = strdup(wanted->name);
	out->path = strdup(wanted->path);
	if (!out->name || !out->path)
		return tpd_fail_nomem(err);
	return tpd_settle_set_watch(daemon->settle, out->id, wanted->settle_ms, wanted->stalled_ms, err);
}

static bool copy_rule(const char *from, const char **out)
{
	*out = from ? strdup(from) : NULL;
	return !from || *out;
}

static enum tpd_status hand_to_watch(struct tpd_daemon *daemon, struct tpd_err *err)
{
	struct tpd_scan_watch *items = calloc(daemon->watch_count + 1, sizeof *items);
	struct stat st = {0};

	if (!items)
		return tpd_fail_nomem(err);
	for (size_t i = 0; i < daemon->watch_count; i++) {
		const struct tpd_config_watch *rules = &daemon->config.watches[i]; /* in the same order */

		items[i].id = daemon->watches[i].id;
		if (copy_rule(daemon->watches[i].name, &items[i].name) && copy_rule(daemon->watches[i].path, &items[i].path) &&
		    copy_rule(rules->complete_when, &items[i].complete_when) &&
		    copy_rule(rules->step_regex, &items[i].step_regex))
			continue;
		tpd_scan_watches_free(items, i + 1);
		return tpd_fail_nomem(err);
	}
	if (fstat(tpd_store_dir(daemon->guard), &st) < 0)
		st = (struct stat){0}; /* then it is looked into, and nothing in it is a checkpoint */
	tpd_watch_set(&daemon->watch, items, daemon->watch_count, daemon->config.scan_interval_ms, st.st_dev,
		      st.st_ino);
	return TPD_OK;
}

enum tpd_status tpd_intake_configure(struct tpd_daemon *daemon, struct tpd_err *err)
{
	const struct tpd_config *config = &daemon->config;
	struct tpd_daemon_watch *watches = calloc(config->watch_count + 1, sizeof *watches), *old = daemon->watches;
	size_t old_count = daemon->watch_count;
	enum tpd_status status = watches ? TPD_OK : tpd_fail_nomem(err);

	for (size_t i = 0; i < config->watch_count && status == TPD_OK; i++)
		status = take_watch(daemon, &config->watches[i], &watches[i], err);
	if (status != TPD_OK) {
		release_watches(watches, watches ? config->watch_count : 0);
		return status;
	}
	daemon->watches = watches;
	daemon->watch_count = config->watch_count;
	for (size_t i = 0; i < old_count; i++) {
		if (!find_watch(daemon, old[i].id))
			tpd_settle_drop_watch(daemon->settle, old[i].id);
	}
	release_watches(old, old_count);
	return hand_to_watch(daemon, err);
}

void tpd_intake_release(struct tpd_daemon *daemon)
{
	while (daemon->parked) {
		struct tpd_capture_task *task = daemon->parked;

		daemon->parked = task->next;
		tpd_capture_task_free(task);
	}
	release_watches(daemon->watches, daemon->watch_count);
	tpd_settle_free(daemon->settle);
}

/* --- looks --- */

static void take_states(struct tpd_daemon *daemon, const struct tpd_scan_result *result)
{
	for (size_t i = 0; i < result->state_count; i++) {
		const struct tpd_scan_state *state = &result->states[i];
		struct tpd_daemon_watch *watch = find_watch(daemon, state->id);

		if (!watch)
			continue;
		if (state->polling && !watch->state.polling)
			tpd_log(TPD_LOG_NOTICE, "watch %s: looking every %llu s instead of waiting for events: %s",
				watch->name, (unsigned long long)daemon->config.scan_interval_ms / 1000, state->reason);
		watch->state = *state;
	}
}

/* Is there a job of this path, whether or not the path is there? */
static bool is_waiting(const struct tpd_daemon *daemon, const char *path)
{
	return tpd_queue_has_path(&daemon->queue, path) || (daemon->running && strcmp(daemon->running->path, path) == 0);
}

void tpd_intake_on_look(void *arg, struct tpd_scan_result *result, bool full)
{
	struct tpd_daemon *daemon = arg;
	uint64_t now_ms = uv_now(&daemon->loop);
	struct tpd_err err = {0};
	const char *unsettled = NULL;
	size_t unsettled_count = 0;

	if (result->status != TPD_OK) {
		tpd_report_error(daemon, NULL, TPD_ABOUT_LOOKS, "a look at the watched directories ran out of memory");
		tpd_watch_now(&daemon->watch, true);
	} else {
		tpd_report_over(daemon, TPD_ABOUT_LOOKS);
	}
	/* A path may be both, gone as one thing and seen as another: in this order it stays. */
	for (size_t i = 0; i < result->gone_count; i++) {
		if (tpd_settle_is_unsettled(daemon->settle, result->gone[i])) {
			unsettled = result->gone[i];
			unsettled_count++;
		}
		tpd_dispatch_gone(daemon, result->gone[i]);
		if (!is_waiting(daemon, result->gone[i]))
			tpd_report_over(daemon, result->gone[i]);
		if (!tpd_settle_gone(daemon->settle, result->gone[i]))
			continue;
		daemon->missed++;
		tpd_dispatch_event(daemon, "warning", NULL, "'%s' is missed: it was deleted before it could be opened",
				   result->gone[i]);
	}
	if (unsettled_count > 0)
		tpd_dispatch_event(daemon, "warning", NULL,
				   "'%s'%s not stored: deleted before nothing had changed for settle=, and nothing else tells when it is complete",
				   unsettled, unsettled_count > 1 ? " and others are" : " is");
	for (size_t i = 0; i < result->seen_count; i++) {
		if (find_watch(daemon, result->seen[i].watch) &&
		    tpd_settle_seen(daemon->settle, &result->seen[i], now_ms, &err) != TPD_OK)
			tpd_report_error(daemon, result->seen[i].run, TPD_ABOUT_LOOKS, err.text);
	}
	for (size_t i = 0; i < result->note_count; i++)
		tpd_dispatch_event(daemon, result->notes[i].warning ? "warning" : "info", result->notes[i].run, "%s",
				   result->notes[i].text);
	take_states(daemon, result);
	tpd_scan_result_release(result);
	if (full)
		daemon->first_look = true;
	tpd_intake_go_on(daemon);
}

/* --- captures --- */

static void close_task(struct tpd_daemon *daemon, struct tpd_capture_task *task)
{
	daemon->capturing--;
	daemon->capturing_files -= task->count;
	task->phase = TPD_CAPTURE_CLOSE;
	tpd_capturer_send(daemon->capturer, task);
}

void tpd_intake_close_capture(struct tpd_daemon *daemon, struct tpd_capture *capture)
{
	struct tpd_capture_task *task = capture && !daemon->parts_stopped ? calloc(1, sizeof *task) : NULL;

	if (!task) {
		tpd_capture_close(capture);
		return;
	}
	task->capture = capture;
	task->phase = TPD_CAPTURE_CLOSE;
	tpd_capturer_send(daemon->capturer, task);
}

void tpd_intake_close_tips(struct tpd_daemon *daemon, struct tpd_tip *tips)
{
	while (tips) {
		struct tpd_tip *next = tips->next;

		tpd_intake_close_tips(daemon, tips->earlier);
		tips->earlier = NULL;
		tpd_intake_close_capture(daemon, tips->capture);
		tips->capture = NULL;
		tpd_tip_free(tips);
		tips = next;
	}
}

static void begin_capture(struct tpd_daemon *daemon, const struct tpd_settle_order *order)
{
	struct tpd_capture_task *task = calloc(1, sizeof *task);

	if (task) {
		task->path = strdup(order->path);
		task->run = strdup(order->run);
	}
	if (!task || !task->path || !task->run) {
		tpd_capture_task_free(task);
		tpd_report_error(daemon, order->run, order->path, "out of memory");
		return;
	}
	if (order->again && *order->waits) /* a save over an old one that died, or takes longer than settle= between two files */
		tpd_dispatch_event(daemon, "warning", order->run, "%s@%llu is stored again as it came to rest, but may be of two saves: %s ('%s')",
				   order->run, (unsigned long long)order->step, order->waits, order->path);
	task->phase = TPD_CAPTURE_OPEN;
	task->step = order->step;
	task->watch = order->watch;
	task->generation = order->generation;
	task->quiet_ms = order->quiet_ms;
	task->count = order->count;
	task->bytes = order->bytes;
	task->newest_ns = order->newest_ns;
	task->metrics_of = tpd_framework_metrics_of(order->framework);
	daemon->capturing++;
	daemon->capturing_files += task->count;
	tpd_capturer_send(daemon->capturer, task);
}

/* One is always allowed, however many files it has. */
static bool may_capture(const struct tpd_daemon *daemon)
{
	return daemon->archive && daemon->capturing < TASKS_MAX &&
		(daemon->capturing == 0 || daemon->capturing_files < daemon->descriptors_max);
}

static void on_due(uv_timer_t *timer)
{
	tpd_intake_go_on(timer->data);
}

void tpd_intake_go_on(struct tpd_daemon *daemon)
{
	uint64_t now_ms = uv_now(&daemon->loop), due_ms;
	struct tpd_settle_order order;

	if (daemon->stopping)
		return;
	while ((order = tpd_settle_next(daemon->settle, now_ms, may_capture(daemon))).action != TPD_SETTLE_NONE) {
		if (order.action == TPD_SETTLE_CAPTURE)
			begin_capture(daemon, &order);
		else if (order.action == TPD_SETTLE_STALLED)
			tpd_dispatch_event(daemon, "warning", order.run, "%s@%llu is not complete, and nothing changes: %s ('%s')",
					   order.run, (unsigned long long)order.step, order.waits, order.path);
		else if (order.action == TPD_SETTLE_RESTLESS)
			tpd_dispatch_event(daemon, "warning", order.run,
					   "'%s' is written again and again and never at rest for its settle=: nothing of it is stored",
					   order.path);
		else if (tpd_watch_look(&daemon->watch, order.path, NULL) != TPD_OK)
			break;
	}
	due_ms = tpd_settle_due(daemon->settle);
	if (due_ms == UINT64_MAX)
		uv_timer_stop(&daemon->settle_timer);
	else
		uv_timer_start(&daemon->settle_timer, on_due, due_ms > now_ms ? due_ms - now_ms : 1, 0);
	if (!daemon->first_wave && daemon->archive && daemon->first_look && daemon->capturing == 0) {
		daemon->first_wave = true;
		tpd_report_tick(daemon);
	}
	tpd_dispatch_go_on(daemon);
}

static void missed(struct tpd_daemon *daemon, const struct tpd_capture_task *task)
{
	daemon->missed++;
	tpd_report_over(daemon, task->path);
	tpd_dispatch_event(daemon, "warning", task->run, "%s@%llu is missed: %s", task->run, (unsigned long long)task->step,
			   task->err.text);
}

/* It cannot be read now; said once for each state of it, since it is tried again and again. */
static void try_later(struct tpd_daemon *daemon, const struct tpd_capture_task *task)
{
	unsigned tries = 0;
	uint64_t delay_ms =
		tpd_settle_failed(daemon->settle, task->path, task->generation, uv_now(&daemon->loop), &tries);

	tpd_report_error(daemon, task->run, task->path, task->err.text);
	if (delay_ms == 0)
		missed(daemon, task);
	else if (tries == 1)
		tpd_dispatch_event(daemon, "warning", task->run, "%s@%llu is tried again in %llu s, and then later: %s",
				   task->run, (unsigned long long)task->step, (unsigned long long)delay_ms / 1000,
				   task->err.text);
}

/* A capture that came to nothing. */
static void give_up(struct tpd_daemon *daemon, struct tpd_capture_task *task)
{
	switch (task->status) {
	case TPD_CONFLICT: /* still being written */
		tpd_log_run(TPD_LOG_DEBUG, task->run, true, task->step, "%s", task->err.text);
		if (tpd_settle_void(daemon->settle, task->path, task->generation, uv_now(&daemon->loop)))
			missed(daemon, task);
		break;
	case TPD_NOT_FOUND:
		missed(daemon, task);
		tpd_settle_done(daemon->settle, task->path, task->generation);
		break;
	case TPD_IO:
	case TPD_NOMEM: /* no permission, no descriptors: may go away */
		try_later(daemon, task);
		break;
	default:
		tpd_report_error(daemon, task->run, task->path, task->err.text);
		tpd_dispatch_event(daemon, "error", task->run, "%s@%llu cannot be stored: %s", task->run,
				   (unsigned long long)task->step, task->err.text);
		tpd_settle_refused(daemon->settle, task->path, task->generation);
		if (tpd_settle_is_refused(daemon->settle, task->path))
			tpd_dispatch_refuse(daemon, task);
		break;
	}
	close_task(daemon, task);
}

static void ask_again(uv_timer_t *timer);

/* Nothing could be noted down of this capture: it waits, whole, until something can. */
static void park(struct tpd_daemon *daemon, struct tpd_capture_task *task, const char *why)
{
	if (!daemon->parked)
		tpd_log_run(TPD_LOG_ERROR, task->run, true, task->step, "%s@%llu is held and not yet queued: %s", task->run,
			    (unsigned long long)task->step, why);
	tpd_report_error(daemon, task->run, task->path, why);
	task->next = daemon->parked;
	daemon->parked = task;
	uv_timer_start(&daemon->park_timer, ask_again, PARK_MS, 0);
}

/* FIND after OPEN, ADD after WATCH. */
static void ask_ledger(struct tpd_daemon *daemon, struct tpd_capture_task *task)
{
	struct tpd_ledger_call *call =
		tpd_ledger_call_new(task->phase == TPD_CAPTURE_OPEN ? TPD_LEDGER_FIND : TPD_LEDGER_ADD);

	if (call) {
		call->context = task;
		call->step = task->step;
		memcpy(call->fingerprint, task->fingerprint, sizeof call->fingerprint);
		call->path = strdup(task->path);
		call->run = strdup(task->run);
	}
	if (!call || !call->path || !call->run) {
		tpd_ledger_call_free(call);
		park(daemon, task, "out of memory");
		return;
	}
	tpd_dispatch_call(daemon, call);
}

static void ask_again(uv_timer_t *timer)
{
	struct tpd_daemon *daemon = timer->data;
	struct tpd_capture_task *task = daemon->parked;

	daemon->parked = NULL;
	while (task) {
		struct tpd_capture_task *next = task->next;

		ask_ledger(daemon, task);
		task = next;
	}
}

/* The daemon is stopping: the task ends here. */
static bool too_late(struct tpd_daemon *daemon, struct tpd_capture_task *task)
{
	if (!daemon->stopping)
		return false;
	daemon->capturing--;
	tpd_capture_task_free(task);
	return true;
}

/* An answer of the capturer. */
void tpd_intake_on_task(void *owner, struct tpd_message *message)
{
	struct tpd_daemon *daemon = owner;
	struct tpd_capture_task *task = (struct tpd_capture_task *)message;

	if (too_late(daemon, task))
		return;
	if (task->copy_fault.status != TPD_OK)
		tpd_log_run(TPD_LOG_INFO, task->run, true, task->step, "%s@%llu waits without a copy, and is lost if it is written over: %s",
			    task->run, (unsigned long long)task->step, task->copy_fault.text);
	if (task->status != TPD_OK)
		give_up(daemon, task);
	else
		ask_ledger(daemon, task);
	tpd_intake_go_on(daemon);
}

/* --- the ledger's answers --- */

static bool answer_is_bad(struct tpd_daemon *daemon, struct tpd_ledger_call *call, struct tpd_capture_task *task)
{
	if (call->status == TPD_OK)
		return false;
	park(daemon, task, call->err.text);
	return true;
}

static bool wants_copy(const struct tpd_daemon *daemon, const struct tpd_capture_task *task)
{
	const char *name = strrchr(task->path, '/');
	struct tpd_copy_case which = {
		.single_file = tpd_capture_source(task->capture)->kind == TPD_CHECKPOINT_FILE,
		.in_place = task->in_place,
		.at_once = !daemon->running && !daemon->paused && daemon->first_wave && daemon->queue.count == 0 && daemon->capturing == 1,
		.bytes = tpd_capture_bytes(task->capture),
	};
	uint64_t step;

	which.named_step = !which.single_file && name && tpd_step_dir_name(name + 1, &step);
	return !task->cloned && daemon->config.spool_copies > 0 && tpd_copies_wanted(&which);
}

void tpd_intake_on_found(struct tpd_daemon *daemon, struct tpd_ledger_call *call)
{
	struct tpd_capture_task *task = call->context;

	if (too_late(daemon, task) || answer_is_bad(daemon, call, task))
		return;
	if (call->known && call->state == TPD_JOB_DONE) {
		tpd_report_over(daemon, task->path);
		tpd_settle_done(daemon->settle, task->path, task->generation);
		close_task(daemon, task);
		return;
	}
	task->phase = TPD_CAPTURE_WATCH;
	task->copy = wants_copy(daemon, task);
	task->spool_max = daemon->config.spool_copies;
	task->low_space = daemon->config.low_space;
	tpd_capturer_send(daemon->capturer, task);
}

/* Hold the capture for this item as long as there is room for its descriptors. */
static void give_capture(struct tpd_daemon *daemon, struct tpd_queue_item *item, struct tpd_capture_task *task)
{
	size_t files = tpd_capture_descriptors(task->capture);

	if (item->capture || daemon->queue.held >= HELD_MAX ||
	    daemon->queue.descriptors + files > daemon->descriptors_max)
		return; /* it stays with the task, which closes it */
	tpd_intake_close_capture(daemon, tpd_queue_hold(&daemon->queue, item, task->capture));
	task->capture = NULL;
	tpd_room_go_on(daemon);
}

void tpd_intake_on_added(struct tpd_daemon *daemon, struct tpd_ledger_call *call)
{
	struct tpd_capture_task *task = call->context;
	struct tpd_queue_item *item;

	if (too_late(daemon, task) || answer_is_bad(daemon, call, task))
		return;
	tpd_settle_captured(daemon->settle, task->path, task->generation);
	if (call->known && call->state == TPD_JOB_DONE) {
		tpd_report_over(daemon, task->path);
		tpd_settle_done(daemon->settle, task->path, task->generation);
		close_task(daemon, task);
		return;
	}
	item = tpd_queue_find(&daemon->queue, call->number);
	if (!item && daemon->running && daemon->running->number == call->number) {
		item = daemon->running; /* it has what it needs */
	} else if (!item) {
		item = tpd_queue_item_new(task->run, task->path, task->step, task->fingerprint);
		if (!item) {
			task->status = tpd_fail_nomem(&task->err);
			give_up(daemon, task);
			return;
		}
		item->number = call->number;
		tpd_queue_put(&daemon->queue, item);
		tpd_log_run(TPD_LOG_INFO, item->run, true, item->step, "%s@%llu is complete and queued", item->run,
			    (unsigned long long)item->step);
	}
	item->generation = task->generation;
	if (item != daemon->running) {
		item->begun_ns = 0; /* its path is there */
		give_capture(daemon, item, task);
	}
	close_task(daemon, task);
}
