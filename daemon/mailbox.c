/*
 * mailbox.c - a queue of messages under one lock, and threads that read them.
 *
 * Messages are whole requests or answers, a few a second, so a mutex and a condition are all that is needed. Waiting
 * uses the monotonic clock: a step of the wall clock must neither end nor prolong it.
 */
#include "base/tpd.h"

#include "daemon/mailbox.h"

#include <errno.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define WORKER_NICE 10
#define IOPRIO_WHO_PROCESS 1
#define IOPRIO_IDLE (3 << 13) /* class idle: disk time that nobody else wants */

void tpd_mailbox_init(struct tpd_mailbox *box)
{
	pthread_condattr_t attributes;

	/* None of these can fail on Linux with these arguments. */
	pthread_mutex_init(&box->lock, NULL);
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&box->wake, &attributes);
	pthread_condattr_destroy(&attributes);
	box->first = NULL;
	box->last = &box->first;
}

void tpd_mailbox_release(struct tpd_mailbox *box)
{
	pthread_cond_destroy(&box->wake);
	pthread_mutex_destroy(&box->lock);
}

void tpd_mailbox_put(struct tpd_mailbox *box, struct tpd_message *message)
{
	message->next = NULL;
	pthread_mutex_lock(&box->lock);
	*box->last = message;
	box->last = &message->next;
	pthread_cond_signal(&box->wake);
	pthread_mutex_unlock(&box->lock);
}

static struct timespec deadline_in(int64_t ms)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	ts.tv_sec += ms / 1000;
	ts.tv_nsec += (long)(ms % 1000) * 1000000;
	if (ts.tv_nsec >= 1000000000) {
		ts.tv_sec++;
		ts.tv_nsec -= 1000000000;
	}
	return ts;
}

struct tpd_message *tpd_mailbox_take(struct tpd_mailbox *box, int64_t timeout_ms)
{
	struct timespec deadline = timeout_ms > 0 ? deadline_in(timeout_ms) : (struct timespec){0};
	struct tpd_message *message;

	pthread_mutex_lock(&box->lock);
	while (!box->first && timeout_ms != 0) {
		if (timeout_ms < 0)
			pthread_cond_wait(&box->wake, &box->lock);
		else if (pthread_cond_timedwait(&box->wake, &box->lock, &deadline) == ETIMEDOUT)
			break;
	}
	message = box->first;
	if (message) {
		box->first = message->next;
		if (!box->first)
			box->last = &box->first;
	}
	pthread_mutex_unlock(&box->lock);
	return message;
}

enum tpd_status tpd_thread_start(pthread_t *out_thread, const char *name, void *(*fn)(void *arg), void *arg,
				 struct tpd_err *err)
{
	sigset_t all, before;
	pthread_t thread;
	int sys;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	sys = pthread_create(&thread, NULL, fn, arg);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (sys != 0)
		return tpd_fail_sys(err, sys, "cannot start the thread '%s'", name);
	pthread_setname_np(thread, name);
	*out_thread = thread;
	return TPD_OK;
}

void tpd_thread_lower(void)
{
	pid_t tid = (pid_t)syscall(SYS_gettid);
	int sys;

	/*
	 * On Linux both belong to a thread and pass on to the threads that it makes. Best effort: a container may
	 * forbid them.
	 */
	errno = 0;
	sys = getpriority(PRIO_PROCESS, (id_t)tid);
	if (errno == 0 && sys < WORKER_NICE && setpriority(PRIO_PROCESS, (id_t)tid, WORKER_NICE) < 0)
		errno = 0;
	if (syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_IDLE) < 0)
		errno = 0;
}
