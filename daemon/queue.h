/*
 * queue.h - the jobs that wait, in the order in which they are to be done. In memory; the ledger has them on disk.
 *
 * Within a run lower steps come first, so that each has the one before as its reference; between runs it goes round, so
 * that a run with a long backlog does not hold up the others. The loop thread owns it. No files, no clock.
 */
#ifndef TPD_DAEMON_QUEUE_H
#define TPD_DAEMON_QUEUE_H

#include "archive/capture.h"
#include "base/tpd.h"

struct tpd_queue_item {
	struct tpd_queue_item *next;
	int64_t number;   /* of the job in the catalog */
	char *run, *path; /* owned */
	uint64_t step;
	char fingerprint[TPD_FINGERPRINT_LEN];
	struct tpd_capture *capture; /* owned; NULL: not held */
	uint32_t generation;         /* of settle's entry; 0: left from before, or not seen since */
	unsigned attempts;           /* that failed */
	uint64_t retry_ms;           /* not before; loop time */
	char *why;                   /* the last of them failed; owned; NULL: none did */
	int64_t begun_ns;            /* by a process before this one */
};

struct tpd_queue {
	struct tpd_queue_item *first;    /* by run, step, number */
	size_t count, held, descriptors; /* items; those with a capture; the captures' files */
	char *last_run;                  /* served last; owned */
};

void tpd_queue_init(struct tpd_queue *queue);
void tpd_queue_release(struct tpd_queue *queue); /* closes what is held */
struct tpd_queue_item *tpd_queue_item_new(const char *run, const char *path, uint64_t step, const char *fingerprint);
void tpd_queue_item_free(struct tpd_queue_item *item);
/* Takes the item over. */
void tpd_queue_put(struct tpd_queue *queue, struct tpd_queue_item *item);
struct tpd_queue_item *tpd_queue_find(const struct tpd_queue *queue, int64_t number);
bool tpd_queue_has_path(const struct tpd_queue *queue, const char *path);
/* Give an item a capture, or take it away (NULL; returns the old one). */
struct tpd_capture *tpd_queue_hold(struct tpd_queue *queue, struct tpd_queue_item *item, struct tpd_capture *capture);
/*
 * Take out the next item whose time has come; ready(arg, item) false: not this run's turn now. NULL: none; *out_due_ms
 * is when to ask again, UINT64_MAX when nothing but a change can help.
 */
struct tpd_queue_item *tpd_queue_take(struct tpd_queue *queue, uint64_t now_ms,
				      bool (*ready)(void *arg, const struct tpd_queue_item *item), void *arg,
				      uint64_t *out_due_ms);
/* Take this item out; it is the caller's. */
void tpd_queue_remove(struct tpd_queue *queue, struct tpd_queue_item *item);
/* Items that failed and wait for another try. */
size_t tpd_queue_retrying(const struct tpd_queue *queue);
/* An attempt at this item failed: not again before its delay is over, which is returned. `text` says why. */
uint64_t tpd_queue_failed(struct tpd_queue_item *item, uint64_t now_ms, const char *text);
/* None waits any longer. Returns how many did. */
size_t tpd_queue_retry(struct tpd_queue *queue, uint64_t now_ms);
/* How long to wait after the n-th failed attempt. */
uint64_t tpd_queue_delay_ms(unsigned attempts);

#endif
