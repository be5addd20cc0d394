/*
 * mailbox.h - how the daemon's threads talk: by messages, each owned by one thread at a time.
 *
 * A thread of its own (capturer, ledger, worker) sleeps on its mailbox; the loop thread has one, too, and is woken by a
 * uv_async_t. Nothing else is shared between threads but what a header names as atomic.
 *
 *     struct my_message { struct tpd_message head; ... };     head first: a message is its head's address
 */
#ifndef TPD_DAEMON_MAILBOX_H
#define TPD_DAEMON_MAILBOX_H

#include "base/tpd.h"

#include <pthread.h>

struct tpd_message {
	struct tpd_message *next; /* the mailbox's */
	/* For messages to the loop: called there; takes the message over. */
	void (*deliver)(void *owner, struct tpd_message *message);
};

struct tpd_mailbox {
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct tpd_message *first, **last; /* under lock */
};

void tpd_mailbox_init(struct tpd_mailbox *box);
void tpd_mailbox_release(struct tpd_mailbox *box); /* must be empty, and nobody's any more */
void tpd_mailbox_put(struct tpd_mailbox *box, struct tpd_message *message);
/* The oldest message. timeout_ms: 0 does not wait, -1 waits for ever; NULL when none came. */
struct tpd_message *tpd_mailbox_take(struct tpd_mailbox *box, int64_t timeout_ms);

/* Start a thread that gets no signals (they are the loop's), named for ps and gdb (at most 15 bytes). */
enum tpd_status tpd_thread_start(pthread_t *out_thread, const char *name, void *(*fn)(void *arg), void *arg,
				 struct tpd_err *err);
/* Make the calling thread, and the threads that it starts, low in CPU and disk priority where that is permitted. */
void tpd_thread_lower(void);

#endif
