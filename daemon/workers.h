/*
 * workers.h - the thread that stores: one job at a time, with the archive's pool for the chunks.
 *
 * One job at a time is one writer a run without further locks, steps in order, and memory that does not grow with the
 * number of runs; the chunks of one checkpoint keep all `threads=` busy.
 */
#ifndef TPD_DAEMON_WORKERS_H
#define TPD_DAEMON_WORKERS_H

#include "archive/archive.h"
#include "base/tpd.h"
#include "daemon/mailbox.h"
#include "daemon/tips.h"

struct tpd_work {
	struct tpd_message head;
	void *context; /* the caller's */
	/* asked */
	char *run, *path; /* owned */
	char *base;       /* as archive.h has it; owned; may be NULL */
	uint64_t step;
	char fingerprint[TPD_FINGERPRINT_LEN];
	struct tpd_capture *capture; /* owned; NULL: open the path again; it must be what it was */
	struct tpd_tip *tip;         /* of the run, to be read instead of its chain; owned; comes back. NULL: none */
	int64_t begun_ns;            /* a process before this one had begun it then; 0: none */
	/* answered */
	enum tpd_status status;
	struct tpd_err err;
	bool missed; /* with a failure: the checkpoint is not there any more, or not the same */
	struct tpd_ingest_result result;
	struct tpd_archive_lacks lacks; /* of what is newly stored */
	struct tpd_err unrecorded; /* stored, but not in the catalog yet: why; TPD_OK: it is */
	uint64_t bytes;
	int64_t elapsed_ms;
};

struct tpd_worker;

struct tpd_worker_options {
	struct tpd_archive *archive; /* stays open until the worker is stopped */
	struct tpd_mailbox *answers;
	void (*deliver)(void *owner, struct tpd_message *message);
	void (*wake)(void *arg);
	void *wake_arg;
};

enum tpd_status tpd_worker_start(const struct tpd_worker_options *options, struct tpd_worker **out_worker,
				 struct tpd_err *err);
void tpd_worker_send(struct tpd_worker *worker, struct tpd_work *work);
/* From now on the job in work, and every later one, ends soon with TPD_CANCELLED. Any thread. */
void tpd_worker_cancel(struct tpd_worker *worker);
/* Ends the thread after the job in work; cancel first. */
void tpd_worker_stop(struct tpd_worker *worker);
/* Of the job in work. Any thread. `ticks` grows with every sign of life. */
void tpd_worker_progress(const struct tpd_worker *worker, uint64_t *out_done, uint64_t *out_total, uint64_t *out_ticks);
void tpd_work_free(struct tpd_work *work);

#endif
