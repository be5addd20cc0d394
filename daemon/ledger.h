/*
 * ledger.h - the thread that owns the archive and writes the queue down: jobs and events in the catalog.
 *
 * It opens the store (and rebuilds a missing catalog, which may take a while), tells the loop, and then serves calls in
 * their order. Each call is a message that comes back answered. Nothing else in the daemon touches the archive's
 * catalog handle; the worker uses the archive's other calls.
 */
#ifndef TPD_DAEMON_LEDGER_H
#define TPD_DAEMON_LEDGER_H

#include "archive/archive.h"
#include "base/tpd.h"
#include "daemon/mailbox.h"

enum tpd_ledger_kind {
	TPD_LEDGER_OPENED, /* the first answer, without a call: archive, jobs; or status */
	TPD_LEDGER_FIND,   /* run, path, fingerprint -> known, state; DONE is MISSED when the store has it no more. Other states: as GONE */
	TPD_LEDGER_ADD,    /* run, path, step, fingerprint -> number, known, state; one FAILED or MISSED becomes QUEUED */
	TPD_LEDGER_SET,    /* number, state, checkpoint, text (the message) */
	TPD_LEDGER_REFUSE, /* run, path, step, text: FAILED before it was a job. No answer, as of all below: the call is freed */
	TPD_LEDGER_GONE,   /* path: what FAILED of it is MISSED */
	TPD_LEDGER_EVENT   /* level, run, text */
};

/* A job that was left from before. */
struct tpd_ledger_job {
	int64_t number, changed_ns;
	char *run, *path; /* owned */
	uint64_t step;
	char fingerprint[TPD_FINGERPRINT_LEN];
	bool was_running; /* when the last process ended */
};

struct tpd_ledger_call {
	struct tpd_message head;
	enum tpd_ledger_kind kind;
	void *context; /* the caller's */
	/* asked; strings are owned */
	char *run, *path, *text;
	const char *level;
	uint64_t step;
	char fingerprint[TPD_FINGERPRINT_LEN];
	char checkpoint[TPD_ID_HEX]; /* "" for none */
	int64_t number;
	enum tpd_job_state state;
	/* answered */
	bool known;
	enum tpd_status status;
	struct tpd_err err;
	struct tpd_archive *archive;
	struct tpd_ledger_job *jobs; /* sorted by run and step */
	size_t job_count;
};

struct tpd_ledger;

struct tpd_ledger_options {
	struct tpd_archive_options archive; /* strings live until the ledger is stopped */
	struct tpd_mailbox *answers;
	void (*deliver)(void *owner, struct tpd_message *message);
	void (*wake)(void *arg);
	void *wake_arg;
};

enum tpd_status tpd_ledger_start(const struct tpd_ledger_options *options, struct tpd_ledger **out_ledger,
				 struct tpd_err *err);
void tpd_ledger_send(struct tpd_ledger *ledger, struct tpd_ledger_call *call);
/* Serves what was sent before, closes the archive, ends the thread. */
void tpd_ledger_stop(struct tpd_ledger *ledger);
/* Calls served so far: for the watchdog. Any thread. */
uint64_t tpd_ledger_served(const struct tpd_ledger *ledger);
struct tpd_ledger_call *tpd_ledger_call_new(enum tpd_ledger_kind kind);
void tpd_ledger_call_free(struct tpd_ledger_call *call);

#endif
