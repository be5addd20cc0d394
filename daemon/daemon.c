/*
 * daemon.c - the life of the daemon: begin, signals, end.
 *
 * Beginning, in this order: the lock on the store (a second daemon must not touch anything), the control socket (its
 * mode needs the process's umask, so before there are threads), the threads, the first look. Ending: no new work; the
 * job in work is cancelled and goes back to the queue on disk; then the threads, then the handles. All handles are
 * closed before the loop is: uv_loop_close() must find nothing.
 */
#include "base/tpd.h"

#include "daemon/daemon.h"

#include <assert.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "daemon/log.h"

#define LOCK_MS 5000         /* for locks that tpdectl holds; then the job is tried again later */
#define TICK_MS 5000         /* to systemd, when there is one */
#define DESCRIPTORS_MAX 4096 /* of captures in the queue */
#define DESCRIPTORS_RESERVED 256

int tpd_daemon_exit_code(enum tpd_status status)
{
	switch (status) {
	case TPD_OK:
	case TPD_CANCELLED:
		return 0;
	case TPD_USAGE:
		return 2;
	case TPD_CORRUPT:
		return 5;
	case TPD_BUSY:
		return 6;
	default:
		return 1;
	}
}

void tpd_daemon_wake(void *daemon)
{
	uv_async_send(&((struct tpd_daemon *)daemon)->wake);
}

static void on_wake(uv_async_t *async)
{
	struct tpd_daemon *daemon = async->data;
	struct tpd_message *message;

	while ((message = tpd_mailbox_take(&daemon->inbox, 0)) != NULL)
		message->deliver(daemon, message);
}

/* As many descriptors as we may have: captures hold them. */
static size_t raise_descriptor_limit(void)
{
	struct rlimit limit;
	size_t usable;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return DESCRIPTORS_MAX / 4;
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit) < 0 && getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return DESCRIPTORS_MAX / 4;
	usable = limit.rlim_cur > 4 * DESCRIPTORS_MAX ? 4 * DESCRIPTORS_MAX : (size_t)limit.rlim_cur;
	usable = usable > DESCRIPTORS_RESERVED ? (usable - DESCRIPTORS_RESERVED) / 2 : 0;
	return TPD_MIN(usable, (size_t)DESCRIPTORS_MAX);
}

/* --- reading the configuration again --- */

static void read_in_pool(uv_work_t *work)
{
	struct tpd_daemon *daemon = work->data;

	daemon->reload_status =
		tpd_config_read(daemon->config.file, TPD_CONFIG_PATHS, &daemon->new_config, &daemon->reload_err);
}

static bool same_text(const char *a, const char *b)
{
	return a == b || (a && b && strcmp(a, b) == 0);
}

static void warn_fixed(const struct tpd_config *now, const struct tpd_config *wanted)
{
	if (!same_text(now->store_path, wanted->store_path) || !same_text(now->catalog_path, wanted->catalog_path) ||
	    !same_text(now->control_socket, wanted->control_socket) || now->threads != wanted->threads ||
	    now->max_depth != wanted->max_depth || now->part_size != wanted->part_size ||
	    now->tip_cache != wanted->tip_cache || now->effort != wanted->effort || now->depend != wanted->depend)
		tpd_log(TPD_LOG_WARNING,
			"changes in [store], [codec], control_socket= and threads= take effect at the next start");
}

/* Of the new configuration only the watches, the scan interval, low_space and spool_copies; the rest of the old one is in use. */
static void take_config(struct tpd_daemon *daemon)
{
	struct tpd_config *now = &daemon->config, *wanted = &daemon->new_config;
	struct tpd_config_watch *watches = now->watches;
	size_t count = now->watch_count;
	struct tpd_err err = {0};

	tpd_report_over(daemon, TPD_ABOUT_CONFIG);
	warn_fixed(now, wanted);
	now->watches = wanted->watches;
	now->watch_count = wanted->watch_count;
	now->scan_interval_ms = wanted->scan_interval_ms;
	now->low_space = wanted->low_space;
	now->spool_copies = wanted->spool_copies;
	wanted->watches = watches;
	wanted->watch_count = count;
	if (tpd_intake_configure(daemon, &err) != TPD_OK)
		tpd_report_error(daemon, NULL, TPD_ABOUT_CONFIG, err.text);
	else
		tpd_dispatch_event(daemon, "info", NULL, "configuration read again: %zu watch%s", now->watch_count,
				   now->watch_count == 1 ? "" : "es");
	tpd_room_go_on(daemon);
	tpd_config_release(wanted);
}

static void reload(struct tpd_daemon *daemon);

static void after_read(uv_work_t *work, TPD_UNUSED int status)
{
	struct tpd_daemon *daemon = work->data;

	daemon->reloading = false;
	if (daemon->reload_status == TPD_OK && !daemon->stopping) {
		take_config(daemon);
	} else if (daemon->reload_status == TPD_OK) {
		tpd_config_release(&daemon->new_config);
	} else {
		tpd_log(TPD_LOG_ERROR, "the configuration stays as it was: %s", daemon->reload_err.text);
		tpd_report_error(daemon, NULL, TPD_ABOUT_CONFIG, daemon->reload_err.text);
	}
	if (daemon->reload_again && !daemon->stopping) {
		daemon->reload_again = false;
		reload(daemon);
	}
}

static void reload(struct tpd_daemon *daemon)
{
	if (daemon->reloading) {
		daemon->reload_again = true;
		return;
	}
	daemon->reloading = true;
	daemon->reload.data = daemon;
	uv_queue_work(&daemon->loop, &daemon->reload, read_in_pool, after_read);
}

/* --- the end --- */

static void stop_parts(struct tpd_daemon *daemon)
{
	if (daemon->parts_stopped)
		return;
	daemon->parts_stopped = true;
	/* Nothing waits for long here: the worker has no job, the ledger only what was asked before. */
	tpd_worker_stop(daemon->worker);
	tpd_capturer_stop(daemon->capturer);
	tpd_ledger_stop(daemon->ledger);
	on_wake(&daemon->wake); /* what they answered at last; nobody answers any more */
	uv_close((uv_handle_t *)&daemon->wake, NULL);
}

void tpd_daemon_stop(struct tpd_daemon *daemon, enum tpd_status status)
{
	if (status != TPD_OK && daemon->exit_code == 0)
		daemon->exit_code = tpd_daemon_exit_code(status);
	if (!daemon->stopping) {
		daemon->stopping = true;
		tpd_notify_send(&daemon->notify, "STOPPING=1\nSTATUS=stopping");
		tpd_watch_stop(&daemon->watch);
		tpd_control_close(&daemon->control);
		for (size_t i = 0; i < TPD_ARRAY_LEN(daemon->signals); i++)
			uv_close((uv_handle_t *)&daemon->signals[i], NULL);
		uv_close((uv_handle_t *)&daemon->settle_timer, NULL);
		uv_close((uv_handle_t *)&daemon->queue_timer, NULL);
		uv_close((uv_handle_t *)&daemon->park_timer, NULL);
		uv_close((uv_handle_t *)&daemon->room_timer, NULL);
		uv_close((uv_handle_t *)&daemon->tick, NULL);
		if (daemon->worker)
			tpd_worker_cancel(daemon->worker);
	}
	if (!daemon->running || !daemon->working)
		stop_parts(daemon);
}

static void on_signal(uv_signal_t *handle, int number)
{
	struct tpd_daemon *daemon = handle->data;

	if (number == SIGHUP) {
		reload(daemon);
		return;
	}
	tpd_log(TPD_LOG_NOTICE, "%s: stopping", number == SIGTERM ? "SIGTERM" : "SIGINT");
	/* From now on the same signal ends the process at once, as it does any other. */
	tpd_daemon_stop(daemon, TPD_OK);
}

static void on_tick(uv_timer_t *timer)
{
	tpd_report_tick(timer->data);
}

/* --- the beginning --- */

static enum tpd_status lock_store(struct tpd_daemon *daemon, struct tpd_err *err)
{
	enum tpd_status status = tpd_store_open(tpd_io_posix(), daemon->config.store_path, TPD_STORE_CREATE, LOCK_MS,
						&daemon->guard, err);

	return status == TPD_OK ? tpd_store_lock_daemon(daemon->guard, err) : status;
}

static enum tpd_status start_threads(struct tpd_daemon *daemon, struct tpd_err *err)
{
	const struct tpd_config *config = &daemon->config;
	struct tpd_ledger_options options = {
		.archive =
			{
				.io = &daemon->io.io,
				.store = config->store_path,
				.catalog = config->catalog_path,
				.mode = TPD_ARCHIVE_CREATE,
				.lock_timeout_ms = LOCK_MS,
				.threads = config->threads,
				.max_depth = config->max_depth,
				.effort = config->effort,
				.depend = config->depend,
				.part_size = config->part_size,
				.skip_remnants = true,
				.tip_cache = config->tip_cache,
			},
		.answers = &daemon->inbox,
		.deliver = tpd_dispatch_on_call,
		.wake = tpd_daemon_wake,
		.wake_arg = daemon,
	};
	enum tpd_status status;

	daemon->spool.io = tpd_io_posix();
	daemon->spool.dir = tpd_store_dir(daemon->guard);
	if (daemon->config.spool_copies && !tpd_spool_works(&daemon->spool))
		tpd_log(TPD_LOG_NOTICE, "the store's file system has no files without names (O_TMPFILE): what is written over in place "
					"before it is stored cannot be copied, and is missed");
	status =
		tpd_capturer_start(&daemon->spool, &daemon->inbox, tpd_intake_on_task, tpd_daemon_wake,
				   daemon, &daemon->capturer, err);

	return status == TPD_OK ? tpd_ledger_start(&options, &daemon->ledger, err) : status;
}

static void init_timer(struct tpd_daemon *daemon, uv_timer_t *timer)
{
	uv_timer_init(&daemon->loop, timer);
	timer->data = daemon;
}

static void init_handles(struct tpd_daemon *daemon)
{
	static const int numbers[] = {SIGTERM, SIGINT, SIGHUP};

	uv_async_init(&daemon->loop, &daemon->wake, on_wake);
	daemon->wake.data = daemon;
	for (size_t i = 0; i < TPD_ARRAY_LEN(numbers); i++) {
		uv_signal_init(&daemon->loop, &daemon->signals[i]);
		daemon->signals[i].data = daemon;
		uv_signal_start(&daemon->signals[i], on_signal, numbers[i]);
	}
	init_timer(daemon, &daemon->settle_timer);
	init_timer(daemon, &daemon->queue_timer);
	init_timer(daemon, &daemon->park_timer);
	init_timer(daemon, &daemon->room_timer);
	init_timer(daemon, &daemon->tick);
}

static enum tpd_status begin(struct tpd_daemon *daemon, struct tpd_err *err)
{
	enum tpd_status status = tpd_settle_new(&daemon->settle, err);
	uint64_t tick_ms = TICK_MS;

	if (status == TPD_OK)
		status = tpd_control_open(&daemon->control, &daemon->loop, daemon->config.control_socket,
					  tpd_report_answer, daemon, err);
	if (status == TPD_OK)
		status = start_threads(daemon, err);
	if (status == TPD_OK)
		status = tpd_intake_configure(daemon, err);
	if (status != TPD_OK)
		return status;
	if (daemon->notify.watchdog_ms > 0)
		tick_ms = TPD_MIN(tick_ms, TPD_MAX(daemon->notify.watchdog_ms / 4, (uint64_t)1));
	if (daemon->notify.fd >= 0)
		uv_timer_start(&daemon->tick, on_tick, tick_ms, tick_ms);
	daemon->life_ms = uv_now(&daemon->loop);
	return TPD_OK;
}

static void release(struct tpd_daemon *daemon)
{
	int rc = uv_loop_close(&daemon->loop);

	if (rc != 0)
		tpd_log(TPD_LOG_ERROR, "the event loop ended with open handles: %s", uv_strerror(rc));
	assert(rc == 0);
	tpd_queue_item_free(daemon->running);
	tpd_queue_release(&daemon->queue);
	tpd_tips_release(&daemon->tips);
	tpd_intake_release(daemon);
	tpd_watch_release(&daemon->watch);
	tpd_control_release(&daemon->control);
	tpd_store_close(daemon->guard);
	tpd_mailbox_release(&daemon->inbox);
	tpd_notify_close(&daemon->notify);
	tpd_config_release(&daemon->config);
}

int tpd_daemon_run(struct tpd_daemon_options *options)
{
	struct tpd_daemon *daemon = calloc(1, sizeof *daemon);
	struct tpd_err err = {0};
	enum tpd_status status;
	int exit_code;

	if (!daemon || uv_loop_init(&daemon->loop) < 0) {
		free(daemon);
		tpd_log(TPD_LOG_ERROR, "out of memory");
		return 1;
	}
	signal(SIGPIPE, SIG_IGN);
	daemon->config = *options->config;
	if (daemon->config.watch_count == 0)
		tpd_log(TPD_LOG_WARNING, "'%s' watches nothing: it has no [watch:NAME] section", daemon->config.file);
	*options->config = (struct tpd_config){0};
	daemon->since_ns = tpd_clock_wall_ns();
	tpd_io_count_init(&daemon->io, tpd_io_posix());
	daemon->descriptors_max = raise_descriptor_limit();
	tpd_mailbox_init(&daemon->inbox);
	tpd_queue_init(&daemon->queue);
	tpd_notify_open(&daemon->notify);
	init_handles(daemon);
	status = tpd_watch_open(&daemon->watch, &daemon->loop, tpd_intake_on_look, daemon, &err);
	if (status != TPD_OK) {
		tpd_log(TPD_LOG_ERROR, "%s", err.text);
		exit(1); /* nothing was begun */
	}
	status = lock_store(daemon, &err);
	if (status == TPD_OK)
		status = begin(daemon, &err);
	if (status != TPD_OK) {
		tpd_log(TPD_LOG_ERROR, "%s", err.text);
		tpd_daemon_stop(daemon, status);
	}
	uv_run(&daemon->loop, UV_RUN_DEFAULT);
	exit_code = daemon->exit_code;
	release(daemon);
	free(daemon);
	if (exit_code == 0)
		tpd_log(TPD_LOG_NOTICE, "stopped");
	return exit_code;
}
