/*
 * capturer.h - the thread that opens checkpoints: everything of one at once, as soon as it is asked.
 *
 * A task goes to and fro between loop and capturer and is owned by whoever has it:
 *
 *     loop: OPEN -> opens, names the fingerprint        status NOT_FOUND: not there; CONFLICT: less of it than was seen, or newer
 *     loop: WATCH -> copies it if `copy` says so; waits for quiet_ms since the opening; then compares    status CONFLICT: it changed
 *     loop: CLOSE -> closes the descriptors and frees the task; no answer
 *
 * Waiting for one task does not hold up another, nor does copying: it goes on in steps, and what was sent meanwhile comes first.
 */
#ifndef TPD_DAEMON_CAPTURER_H
#define TPD_DAEMON_CAPTURER_H

#include "archive/capture.h"
#include "base/tpd.h"
#include "daemon/mailbox.h"

enum tpd_capture_phase { TPD_CAPTURE_OPEN, TPD_CAPTURE_WATCH, TPD_CAPTURE_CLOSE };

struct tpd_capture_task {
	struct tpd_message head;
	struct tpd_capture_task *next; /* the capturer's: those it watches */
	enum tpd_capture_phase phase;
	/* asked */
	char *path, *run; /* owned */
	uint64_t step, quiet_ms, count, bytes;
	int64_t newest_ns;
	uint32_t watch, generation;
	bool copy; /* WATCH: what stays below these two is copied into the spool; where it cannot be, copy_fault says why */
	uint64_t spool_max, low_space;
	tpd_metrics_fn *metrics_of; /* of its framework; may be NULL */
	/* answered */
	struct tpd_capture *capture; /* owned by the task; NULL: none */
	char fingerprint[TPD_FINGERPRINT_LEN];
	bool cloned;   /* OPEN: blocks are shared, so no copy is needed */
	bool in_place; /* OPEN: the same file or directory was captured before, with other content */
	struct tpd_err copy_fault;
	enum tpd_status status;
	struct tpd_err err;
	int64_t opened_ms; /* monotonic */
};

struct tpd_capturer; /* a mailbox and a thread */

/*
 * spool: for clones and copies, borrowed. Answers go to `answers` by `deliver`, after which `wake(wake_arg)` is called (from the
 * capturer's thread).
 */
enum tpd_status tpd_capturer_start(struct tpd_spool *spool, struct tpd_mailbox *answers,
				   void (*deliver)(void *owner, struct tpd_message *message), void (*wake)(void *arg),
				   void *wake_arg, struct tpd_capturer **out_capturer, struct tpd_err *err);
void tpd_capturer_send(struct tpd_capturer *capturer, struct tpd_capture_task *task);
/* Ends the thread; what it still had is closed. Waits for it: it may hang in a file system that does not answer. */
void tpd_capturer_stop(struct tpd_capturer *capturer);
void tpd_capture_task_free(struct tpd_capture_task *task);

#endif
