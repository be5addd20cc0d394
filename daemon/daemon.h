/*
 * daemon.h - the whole daemon: what its parts are and how they meet. README.md has the picture.
 *
 *     tpd_daemon_run(&options)     from start to end; returns the program's exit code
 *
 * The rest is shared by daemon.c (life), intake.c (from looks to jobs), dispatch.c (from jobs to the store) and
 * report.c (what is told). Everything here belongs to the loop thread.
 */
#ifndef TPD_DAEMON_DAEMON_H
#define TPD_DAEMON_DAEMON_H

#include "base/io_count.h"
#include "base/tpd.h"

#include <limits.h>
#include <stdatomic.h>
#include <uv.h>

#include "daemon/capturer.h"
#include "daemon/control.h"
#include "daemon/ledger.h"
#include "daemon/mailbox.h"
#include "daemon/notify.h"
#include "daemon/queue.h"
#include "daemon/settle.h"
#include "daemon/tips.h"
#include "daemon/watch.h"
#include "daemon/workers.h"
#include "store/store.h"
#include "wire/config.h"

struct tpd_daemon_watch {
	uint32_t id;
	char *name, *path; /* owned */
	struct tpd_scan_state state;
};

struct tpd_daemon {
	uv_loop_t loop;
	uv_async_t wake; /* the other threads' messages */
	uv_signal_t signals[3];
	uv_timer_t settle_timer, queue_timer, park_timer, room_timer, tick;
	struct tpd_mailbox inbox;
	struct tpd_config config;
	int64_t since_ns;
	uint64_t begun_ms; /* loop time */
	int exit_code;
	bool stopping, parts_stopped, ready, paused;

	/* intake.c */
	struct tpd_watch watch;
	struct tpd_settle *settle;
	struct tpd_capturer *capturer;
	struct tpd_spool spool; /* in the store's directory */
	struct tpd_daemon_watch *watches;
	size_t watch_count;
	uint32_t next_watch_id;
	struct tpd_capture_task *parked; /* whole captures of which nothing could be noted down; asked again by park_timer */
	unsigned capturing;          /* tasks under way, the parked ones too */
	size_t capturing_files;      /* in them */
	bool first_look, first_wave; /* the first look is over; and what it found is queued */
	size_t descriptors_max;      /* to be held in the queue */

	/* dispatch.c */
	struct tpd_store *guard; /* holds the daemon's lock on the store */
	struct tpd_io_count io;  /* what the archive's threads use */
	struct tpd_ledger *ledger;
	struct tpd_archive *archive; /* the ledger's; NULL until it is open */
	struct tpd_worker *worker;
	struct tpd_queue queue;
	unsigned calls;                 /* of the ledger, under way */
	struct tpd_queue_item *running; /* owned */
	struct tpd_tips tips;           /* but for the one that the job in work has */
	bool asking_room;               /* room.c: a question is under way */
	bool working;                   /* the worker has it; else the ledger notes it down first, or afterwards */
	int64_t job_begun_ns;
	uint64_t not_before_ms; /* a failure that may be everybody's */

	/* report.c */
	struct tpd_control control;
	struct tpd_notify notify;
	uint64_t done, missed;
	struct {
		bool any;
		char run[256];
		char id[TPD_ID_HEX];
		uint64_t step;
		uint32_t version;
		bool existed;
		int64_t time_ns;
	} last_stored;
	struct {
		bool any;
		char run[256]; /* "" for none */
		char about[PATH_MAX];
		char text[TPD_ERR_TEXT];
		int64_t time_ns;
	} last_error;
	uint64_t signs_seen, life_ms; /* for the watchdog: signs of life so far, and when the last one was */

	/* a configuration that is being read again */
	uv_work_t reload;
	bool reloading, reload_again;
	struct tpd_config new_config;
	enum tpd_status reload_status;
	struct tpd_err reload_err;
};

struct tpd_daemon_options {
	struct tpd_config *config; /* taken over */
};
int tpd_daemon_run(struct tpd_daemon_options *options);
/* The exit code of a failure to start. */
int tpd_daemon_exit_code(enum tpd_status status);
/* Begin to end; `status` other than TPD_OK decides the exit code. */
void tpd_daemon_stop(struct tpd_daemon *daemon, enum tpd_status status);
/* Wakes the loop for a message in its inbox. Any thread. */
void tpd_daemon_wake(void *daemon);

/* --- intake.c --- */

/* Watch what the configuration says now: at the start, and again after it was read anew. */
enum tpd_status tpd_intake_configure(struct tpd_daemon *daemon, struct tpd_err *err);
void tpd_intake_on_look(void *arg, struct tpd_scan_result *result, bool full);
void tpd_intake_on_task(void *owner, struct tpd_message *message);
/* Do what settle says is due. */
void tpd_intake_go_on(struct tpd_daemon *daemon);
/* Answers of the ledger to intake's calls. */
void tpd_intake_on_found(struct tpd_daemon *daemon, struct tpd_ledger_call *call);
void tpd_intake_on_added(struct tpd_daemon *daemon, struct tpd_ledger_call *call);
/* Closed by the capturer's thread, since closing may block. NULL is fine. */
void tpd_intake_close_capture(struct tpd_daemon *daemon, struct tpd_capture *capture);
/* A list of tips that are not needed any more; closed by the capturer's thread. NULL is fine. */
void tpd_intake_close_tips(struct tpd_daemon *daemon, struct tpd_tip *tips);
void tpd_intake_release(struct tpd_daemon *daemon);

/* --- dispatch.c --- */

void tpd_dispatch_on_call(void *owner, struct tpd_message *message);
void tpd_dispatch_on_work(void *owner, struct tpd_message *message);
/* Give the worker a job if it has none. */
void tpd_dispatch_go_on(struct tpd_daemon *daemon);
/* A job that waits is given up: out of the queue, its capture closed, noted down as missed. */
void tpd_dispatch_drop(struct tpd_daemon *daemon, struct tpd_queue_item *item);
/* It could not be opened, and time does not help: noted down as failed, until it is opened or gone. */
void tpd_dispatch_refuse(struct tpd_daemon *daemon, const struct tpd_capture_task *task);
/* The path is not there any more, or not as it was: what failed of it is noted down as missed. */
void tpd_dispatch_gone(struct tpd_daemon *daemon, const char *path);
/* A call to the ledger; NULL call (out of memory) stops the daemon. */
void tpd_dispatch_call(struct tpd_daemon *daemon, struct tpd_ledger_call *call);
/* An event for people, into catalog and log. has_step: about RUN@step. */
void tpd_dispatch_event(struct tpd_daemon *daemon, const char *level, const char *run, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/* --- room.c --- */

/* Look after the free space of the watched file systems for as long as deleted files are held. */
void tpd_room_go_on(struct tpd_daemon *daemon);
/* The store's disk is full: copies of captures whose originals are unchanged are closed, the originals are read instead. */
void tpd_room_give_back(struct tpd_daemon *daemon);

/* --- report.c --- */

bool tpd_report_answer(void *arg, const char *command, struct tpd_json_out *out, struct tpd_err *err);
/* What an error is about: a checkpoint's path, or one of these. */
#define TPD_ABOUT_CATALOG "catalog"
#define TPD_ABOUT_CONFIG "configuration"
#define TPD_ABOUT_LOOKS "looks"
/* The last error, until what it is about has gone well, or has come to its end otherwise, of which an event tells. */
void tpd_report_error(struct tpd_daemon *daemon, const char *run, const char *about, const char *text);
void tpd_report_over(struct tpd_daemon *daemon, const char *about);
/* Tell systemd the state; feed the watchdog if there were signs of life. */
void tpd_report_tick(struct tpd_daemon *daemon);
const char *tpd_report_state(const struct tpd_daemon *daemon);

#endif
