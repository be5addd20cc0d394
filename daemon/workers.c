/*
 * workers.c - a job from a capture, or from its path, into the archive.
 *
 * A job without a capture (the queue was longer than descriptors may be held, or the process before this one was
 * killed) opens its path again. Only what has the same fingerprint is the same checkpoint: what was re-written since is
 * another job, found by the scan. When the path is gone, and the process before had begun this job, the checkpoint may
 * have been published in its last moments: then the store's own records say so.
 */
#include "base/tpd.h"

#include "daemon/workers.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

struct tpd_worker {
	struct tpd_mailbox box;
	struct tpd_message stop;
	pthread_t thread;
	struct tpd_worker_options options;
	atomic_bool cancel;
	atomic_ullong done, total, ticks;
};

void tpd_work_free(struct tpd_work *work)
{
	if (!work)
		return;
	tpd_capture_close(work->capture);
	tpd_tip_free(work->tip);
	free(work->run);
	free(work->path);
	free(work->base);
	free(work);
}

static void on_progress(void *arg, uint64_t done, uint64_t total)
{
	struct tpd_worker *worker = arg;

	atomic_store(&worker->done, done);
	atomic_store(&worker->total, total);
	atomic_fetch_add(&worker->ticks, 1);
}

/* Did the process that had begun this job store it before it died? */
static bool was_stored(struct tpd_worker *worker, struct tpd_work *work)
{
	struct tpd_run run = {0};
	bool found = false;

	if (work->begun_ns == 0 ||
	    tpd_store_run_read(tpd_archive_store(worker->options.archive), work->run, &run, NULL) != TPD_OK)
		return false;
	for (size_t i = 0; i < run.count; i++) {
		const struct tpd_version *version = &run.versions[i];

		if (version->step != work->step || version->time_ns < work->begun_ns || version->forgotten)
			continue;
		work->result =
			(struct tpd_ingest_result){.id = version->id, .version = version->version, .existed = true};
		found = true;
	}
	tpd_run_release(&run);
	return found;
}

/* A capture for a job that has none. */
static enum tpd_status open_again(struct tpd_work *work, struct tpd_err *err)
{
	char fingerprint[TPD_FINGERPRINT_LEN];
	enum tpd_status status = tpd_capture_open(work->path, &work->capture, err);

	work->missed = status == TPD_NOT_FOUND;
	if (status != TPD_OK)
		return status;
	tpd_capture_fingerprint(work->capture, fingerprint);
	if (strcmp(fingerprint, work->fingerprint) == 0)
		return TPD_OK;
	work->missed = true;
	return tpd_fail(err, TPD_NOT_FOUND, "'%s' was re-written or partly deleted before it could be stored",
			work->path);
}

static enum tpd_status do_work(struct tpd_worker *worker, struct tpd_work *work)
{
	struct tpd_progress progress = {.fn = on_progress, .arg = worker, .cancel = &worker->cancel};
	enum tpd_status status;

	if (atomic_load(&worker->cancel))
		return tpd_fail(&work->err, TPD_CANCELLED, "stopped on request");
	if (!work->capture) {
		status = open_again(work, &work->err);
		if (status == TPD_NOT_FOUND && was_stored(worker, work)) {
			work->missed = false;
			return TPD_OK;
		}
		if (status != TPD_OK)
			return status;
	}
	work->bytes = tpd_capture_bytes(work->capture);
	if (work->tip)
		tpd_capture_set_held(work->capture, work->tip->capture, &work->tip->id);
	status = tpd_archive_ingest_from(worker->options.archive, work->base, work->run, work->step, work->capture, &progress,
					 &work->result, &work->unrecorded, &work->err);
	if (status == TPD_OK && !work->result.existed) /* only to be told of */
		tpd_archive_lacks(worker->options.archive, &work->result.id, &work->lacks, NULL);
	return status;
}

static void *worker_main(void *arg)
{
	struct tpd_worker *worker = arg;
	struct tpd_message *message;

	tpd_thread_lower();
	while ((message = tpd_mailbox_take(&worker->box, -1)) != &worker->stop) {
		struct tpd_work *work = (struct tpd_work *)message;
		int64_t begun_ms = tpd_clock_steady_ms();

		atomic_store(&worker->done, 0);
		atomic_store(&worker->total, 0);
		work->status = do_work(worker, work);
		if (work->capture)
			tpd_capture_set_held(work->capture, NULL, NULL);
		work->elapsed_ms = tpd_clock_steady_ms() - begun_ms;
		atomic_fetch_add(&worker->ticks, 1);
		work->head.deliver = worker->options.deliver;
		tpd_mailbox_put(worker->options.answers, &work->head);
		worker->options.wake(worker->options.wake_arg);
	}
	return NULL;
}

enum tpd_status tpd_worker_start(const struct tpd_worker_options *options, struct tpd_worker **out_worker,
				 struct tpd_err *err)
{
	struct tpd_worker *worker = calloc(1, sizeof *worker);
	enum tpd_status status;

	if (!worker)
		return tpd_fail_nomem(err);
	tpd_mailbox_init(&worker->box);
	worker->options = *options;
	atomic_init(&worker->cancel, false);
	atomic_init(&worker->done, 0);
	atomic_init(&worker->total, 0);
	atomic_init(&worker->ticks, 0);
	status = tpd_thread_start(&worker->thread, "tpded-worker", worker_main, worker, err);
	if (status != TPD_OK) {
		tpd_mailbox_release(&worker->box);
		free(worker);
		return status;
	}
	*out_worker = worker;
	return TPD_OK;
}

void tpd_worker_send(struct tpd_worker *worker, struct tpd_work *work)
{
	tpd_mailbox_put(&worker->box, &work->head);
}

void tpd_worker_cancel(struct tpd_worker *worker)
{
	atomic_store(&worker->cancel, true);
}

void tpd_worker_stop(struct tpd_worker *worker)
{
	struct tpd_message *message;

	if (!worker)
		return;
	tpd_mailbox_put(&worker->box, &worker->stop);
	pthread_join(worker->thread, NULL);
	while ((message = tpd_mailbox_take(&worker->box, 0)) != NULL)
		tpd_work_free((struct tpd_work *)message);
	tpd_mailbox_release(&worker->box);
	free(worker);
}

void tpd_worker_progress(const struct tpd_worker *worker, uint64_t *out_done, uint64_t *out_total, uint64_t *out_ticks)
{
	*out_done = atomic_load(&worker->done);
	*out_total = atomic_load(&worker->total);
	*out_ticks = atomic_load(&worker->ticks);
}
