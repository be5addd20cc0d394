/*
 * ledger.c - the queue on disk.
 *
 * One thread, so that calls take effect in the order in which the loop made them: a job is "running" in the catalog
 * before the worker begins, and "done" after the store has the checkpoint. After a crash that order tells what
 * happened: a job that was running may be stored or not, and every other one is what it says.
 */
#include "base/tpd.h"

#include "daemon/ledger.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "daemon/log.h"

struct tpd_ledger {
	struct tpd_mailbox box;
	struct tpd_message stop;
	pthread_t thread;
	struct tpd_ledger_options options;
	struct tpd_ledger_call *opened; /* until it is sent */
	atomic_ullong served;
	/* the thread's */
	struct tpd_archive *archive;
	struct tpd_catalog *catalog;
	int64_t base; /* what the loop knows as number N is N - base in this catalog */
};

/*
 * Numbers of one catalog file; after it was lost and made again, older ones belong to jobs that nothing is noted of any
 * more.
 */
#define NUMBERS ((int64_t)1 << 40)

struct tpd_ledger_call *tpd_ledger_call_new(enum tpd_ledger_kind kind)
{
	struct tpd_ledger_call *call = calloc(1, sizeof *call);

	if (call)
		call->kind = kind;
	return call;
}

void tpd_ledger_call_free(struct tpd_ledger_call *call)
{
	if (!call)
		return;
	for (size_t i = 0; i < call->job_count; i++) {
		free(call->jobs[i].run);
		free(call->jobs[i].path);
	}
	free(call->jobs);
	free(call->run);
	free(call->path);
	free(call->text);
	free(call);
}

static void answer(struct tpd_ledger *ledger, struct tpd_ledger_call *call)
{
	call->head.deliver = ledger->options.deliver;
	tpd_mailbox_put(ledger->options.answers, &call->head);
	ledger->options.wake(ledger->options.wake_arg);
}

/* --- what was left from before --- */

struct left {
	struct tpd_catalog *catalog;
	struct tpd_ledger_call *call;
	size_t cap;
};

static enum tpd_status take_job(void *arg, const struct tpd_job *job, struct tpd_err *err)
{
	struct left *left = arg;
	struct tpd_ledger_call *call = left->call;
	struct tpd_ledger_job *taken;

	if (!*job->fingerprint) /* it was no job; the first look finds what is there of it */
		return tpd_catalog_job_set(left->catalog, job->number, TPD_JOB_MISSED, tpd_clock_wall_ns(), NULL, NULL, err);
	if (call->job_count == left->cap) {
		size_t cap = left->cap ? left->cap * 2 : 32;
		struct tpd_ledger_job *grown = reallocarray(call->jobs, cap, sizeof *grown);

		if (!grown)
			return tpd_fail_nomem(err);
		call->jobs = grown;
		left->cap = cap;
	}
	taken = &call->jobs[call->job_count];
	*taken = (struct tpd_ledger_job){
		.number = job->number, /* base is 0 at the start */
		.changed_ns = job->changed_ns,
		.step = job->step,
		.was_running = job->state == TPD_JOB_RUNNING,
	};
	if (strlen(job->fingerprint) < sizeof taken->fingerprint)
		strcpy(taken->fingerprint, job->fingerprint);
	taken->run = strdup(job->run);
	taken->path = strdup(job->path);
	call->job_count++; /* so that what it holds is freed */
	return taken->run && taken->path ? TPD_OK : tpd_fail_nomem(err);
}

static enum tpd_status read_jobs(struct tpd_ledger *ledger, struct tpd_ledger_call *call)
{
	unsigned states = 1u << TPD_JOB_QUEUED | 1u << TPD_JOB_RUNNING | 1u << TPD_JOB_FAILED;
	struct left left = {.catalog = tpd_archive_catalog(ledger->archive), .call = call};
	uint64_t recovered;
	enum tpd_status status;

	ledger->catalog = left.catalog;
	status = tpd_catalog_jobs(ledger->catalog, states, take_job, &left, &call->err);
	if (status == TPD_OK)
		status = tpd_catalog_jobs_recover(ledger->catalog, tpd_clock_wall_ns(), &recovered, &call->err);
	return status;
}

static enum tpd_status open_archive(struct tpd_ledger *ledger, struct tpd_ledger_call *call)
{
	call->status = tpd_archive_open(&ledger->options.archive, &ledger->archive, &call->err);
	if (call->status != TPD_OK)
		return call->status;
	call->status = read_jobs(ledger, call);
	if (call->status == TPD_CORRUPT && call->job_count == 0 &&
	    tpd_archive_reopen_catalog(ledger->archive, &call->err) == TPD_OK)
		call->status = read_jobs(ledger, call);
	if (tpd_archive_catalog_fault(ledger->archive)->status != TPD_OK)
		tpd_log(TPD_LOG_WARNING, "%s", tpd_archive_catalog_fault(ledger->archive)->text);
	call->archive = ledger->archive;
	return call->status;
}

/* --- calls --- */

/* A job that is done says so only while the store has what it stored: the store is the truth. */
static enum tpd_status find_job(struct tpd_ledger *ledger, struct tpd_ledger_call *call)
{
	char checkpoint[TPD_CATALOG_ID];
	enum tpd_status status = tpd_catalog_job_find(ledger->catalog, call->run, call->path, call->fingerprint, &call->state,
						      checkpoint, &call->err);

	call->known = status == TPD_OK;
	if (call->known && call->state == TPD_JOB_DONE && tpd_archive_lost(ledger->archive, call->run, checkpoint))
		call->state = TPD_JOB_MISSED;
	return status == TPD_NOT_FOUND ? TPD_OK : status;
}

static enum tpd_status add_job(struct tpd_ledger *ledger, struct tpd_ledger_call *call)
{
	bool is_new = false;
	int64_t number = 0;
	enum tpd_status status = tpd_catalog_job_add(ledger->catalog, call->run, call->path, call->step,
						     call->fingerprint, tpd_clock_wall_ns(), &number, &is_new, &call->err);

	if (status != TPD_OK)
		return status;
	call->number = number + ledger->base;
	if (is_new)
		return TPD_OK;
	status = find_job(ledger, call);
	if (status == TPD_OK && call->known && (call->state == TPD_JOB_FAILED || call->state == TPD_JOB_MISSED))
		status = tpd_catalog_job_set(ledger->catalog, number, TPD_JOB_QUEUED, tpd_clock_wall_ns(), NULL, NULL, &call->err);
	return status;
}

static enum tpd_status set_job(struct tpd_ledger *ledger, struct tpd_ledger_call *call)
{
	if (call->number < ledger->base)
		return TPD_OK; /* its row went with the catalog that was lost; the store has the checkpoint */
	return tpd_catalog_job_set(ledger->catalog, call->number - ledger->base, call->state, tpd_clock_wall_ns(),
				   call->checkpoint[0] ? call->checkpoint : NULL, call->text, &call->err);
}

/* There is no fingerprint of what could not be opened. */
static enum tpd_status refuse(struct tpd_ledger *ledger, struct tpd_ledger_call *call)
{
	bool is_new;
	int64_t number;
	enum tpd_status status = tpd_catalog_jobs_supersede(ledger->catalog, call->run, call->path, "", tpd_clock_wall_ns(), &call->err);

	if (status == TPD_OK)
		status = tpd_catalog_job_add(ledger->catalog, call->run, call->path, call->step, "", tpd_clock_wall_ns(), &number, &is_new,
					     &call->err);
	if (status == TPD_OK)
		status = tpd_catalog_job_set(ledger->catalog, number, TPD_JOB_FAILED, tpd_clock_wall_ns(), NULL, call->text, &call->err);
	return status;
}

static enum tpd_status serve(struct tpd_ledger *ledger, struct tpd_ledger_call *call)
{
	enum tpd_status status;

	switch (call->kind) {
	case TPD_LEDGER_OPENED:
		break;
	case TPD_LEDGER_FIND:
		status = tpd_catalog_jobs_supersede(ledger->catalog, call->run, call->path, call->fingerprint, tpd_clock_wall_ns(), &call->err);
		return status == TPD_OK ? find_job(ledger, call) : status;
	case TPD_LEDGER_ADD:
		return add_job(ledger, call);
	case TPD_LEDGER_SET:
		return set_job(ledger, call);
	case TPD_LEDGER_REFUSE:
		return refuse(ledger, call);
	case TPD_LEDGER_GONE:
		return tpd_catalog_jobs_supersede(ledger->catalog, NULL, call->path, NULL, tpd_clock_wall_ns(), &call->err);
	case TPD_LEDGER_EVENT:
		return tpd_catalog_event(ledger->catalog, tpd_clock_wall_ns(), call->level, call->run, call->text, &call->err);
	}
	return TPD_OK;
}

/*
 * A call that failed for the catalog's sake: was its file removed, replaced or damaged? Then once more with a new one.
 */
static enum tpd_status serve_for_sure(struct tpd_ledger *ledger, struct tpd_ledger_call *call)
{
	enum tpd_status status = serve(ledger, call);
	struct tpd_err fault = {0};

	if (status != TPD_CORRUPT && (status != TPD_IO || !tpd_archive_catalog_lost(ledger->archive)))
		return status;
	if (tpd_archive_reopen_catalog(ledger->archive, &fault) != TPD_OK) {
		tpd_log(TPD_LOG_ERROR, "%s; nothing can be noted down: %s", call->err.text, fault.text);
		return status;
	}
	tpd_log(TPD_LOG_WARNING, "%s; it was opened anew, with what the store has", call->err.text);
	ledger->catalog = tpd_archive_catalog(ledger->archive);
	ledger->base += NUMBERS;
	return serve(ledger, call);
}

static void *ledger_main(void *arg)
{
	struct tpd_ledger *ledger = arg;
	struct tpd_ledger_call *call = ledger->opened;
	struct tpd_message *message;
	enum tpd_status opened;

	tpd_thread_lower(); /* the archive's pool begins here and inherits it */
	opened = open_archive(ledger, call);
	answer(ledger, call);
	while ((message = tpd_mailbox_take(&ledger->box, -1)) != &ledger->stop) {
		call = (struct tpd_ledger_call *)message;
		if (opened == TPD_OK)
			call->status = serve_for_sure(ledger, call);
		else
			call->status = tpd_fail(&call->err, opened, "the store is not open");
		atomic_fetch_add(&ledger->served, 1);
		if (call->kind >= TPD_LEDGER_REFUSE)
			tpd_ledger_call_free(call); /* that it cannot be written is no reason to stop */
		else
			answer(ledger, call);
	}
	tpd_archive_close(ledger->archive);
	return NULL;
}

enum tpd_status tpd_ledger_start(const struct tpd_ledger_options *options, struct tpd_ledger **out_ledger,
				 struct tpd_err *err)
{
	struct tpd_ledger *ledger = calloc(1, sizeof *ledger);
	enum tpd_status status = TPD_OK;

	if (ledger)
		ledger->opened = tpd_ledger_call_new(TPD_LEDGER_OPENED);
	if (!ledger || !ledger->opened) {
		free(ledger);
		return tpd_fail_nomem(err);
	}
	tpd_mailbox_init(&ledger->box);
	ledger->options = *options;
	atomic_init(&ledger->served, 0);
	status = tpd_thread_start(&ledger->thread, "tpded-ledger", ledger_main, ledger, err);
	if (status != TPD_OK) {
		tpd_ledger_call_free(ledger->opened);
		tpd_mailbox_release(&ledger->box);
		free(ledger);
		return status;
	}
	*out_ledger = ledger;
	return TPD_OK;
}

void tpd_ledger_send(struct tpd_ledger *ledger, struct tpd_ledger_call *call)
{
	tpd_mailbox_put(&ledger->box, &call->head);
}

void tpd_ledger_stop(struct tpd_ledger *ledger)
{
	struct tpd_message *message;

	if (!ledger)
		return;
	tpd_mailbox_put(&ledger->box, &ledger->stop);
	pthread_join(ledger->thread, NULL);
	while ((message = tpd_mailbox_take(&ledger->box, 0)) != NULL)
		tpd_ledger_call_free((struct tpd_ledger_call *)message);
	tpd_mailbox_release(&ledger->box);
	free(ledger);
}

uint64_t tpd_ledger_served(const struct tpd_ledger *ledger)
{
	return atomic_load(&ledger->served);
}
