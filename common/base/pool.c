/*
 * pool.c - threads that share one parallel loop.
 *
 *     run()  --- generation++, wake all ---->  workers 1 .. threads-1
 *       |  worker 0: take items                   | take items
 *       |<------------- busy == 0 ----------------|
 *
 * Items are handed out in rising order from one counter.  So when an item fails,
 * all lower ones have been started, and the lowest failure is known when the last
 * worker is done.  Everything is guarded by one mutex: items are chunks of a
 * tensor, some hundred microseconds each, against which a lock is nothing.
 * Rejected: a queue of tasks with futures (nobody here needs an order other
 * than "all of them"), and libuv's pool (common/ does not know libuv).
 */
#include "base/tpd.h"

#include "base/pool.h"

#include <assert.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

struct worker {
	struct tpd_pool *pool;
	pthread_t thread;
	unsigned number;
};

struct tpd_pool {
	pthread_mutex_t run_lock; /* held through a run: one loop at a time */
	pthread_mutex_t lock;     /* guards all below but workers and threads */
	pthread_cond_t start;     /* generation or stop changed */
	pthread_cond_t finished;  /* busy became 0 */
	struct worker *workers;   /* [0] is the caller's and has no thread */
	unsigned threads;
	uint64_t generation;      /* number of the current loop */
	bool stop;
	unsigned busy;            /* workers that have not left the current loop */

	/* the loop */
	tpd_pool_fn fn;
	void *ctx;
	size_t next, count;
	bool failed;
	size_t failed_item;
	enum tpd_status status;
	struct tpd_err failure;
};

/* Called, and returns, with the lock held. */
static void take_items(struct tpd_pool *pool, unsigned worker)
{
	while (!pool->failed && pool->next < pool->count) {
		struct tpd_err err = {.status = TPD_OK};
		size_t item = pool->next++;
		enum tpd_status status;

		pthread_mutex_unlock(&pool->lock);
		status = pool->fn(pool->ctx, item, worker, &err);
		pthread_mutex_lock(&pool->lock);
		if (status != TPD_OK && (!pool->failed || item < pool->failed_item)) {
			pool->failed = true;
			pool->failed_item = item;
			pool->status = status;
			pool->failure = err;
		}
	}
}

static void *worker_main(void *arg)
{
	struct worker *self = arg;
	struct tpd_pool *pool = self->pool;
	uint64_t seen = 0;

	pthread_mutex_lock(&pool->lock);
	for (;;) {
		while (!pool->stop && pool->generation == seen)
			pthread_cond_wait(&pool->start, &pool->lock);
		if (pool->stop)
			break;
		seen = pool->generation;
		take_items(pool, self->number);
		if (--pool->busy == 0)
			pthread_cond_signal(&pool->finished);
	}
	pthread_mutex_unlock(&pool->lock);
	return NULL;
}

static unsigned usable_cpus(void)
{
	cpu_set_t set;
	long n;

	if (sched_getaffinity(0, sizeof set, &set) == 0)
		n = CPU_COUNT(&set);
	else
		n = sysconf(_SC_NPROCESSORS_ONLN); /* more CPUs than a cpu_set_t has bits for */
	return n < 1 ? 1 : n > TPD_POOL_MAX ? TPD_POOL_MAX : (unsigned)n;
}

/* Signals belong to the program's own threads. */
static int create_without_signals(struct worker *worker)
{
	sigset_t all, before;
	int sys;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	sys = pthread_create(&worker->thread, NULL, worker_main, worker);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (sys == 0)
		pthread_setname_np(worker->thread, "tpd-pool"); /* else it would have that of whoever began it */
	return sys;
}

static void stop_and_free(struct tpd_pool *pool, unsigned started)
{
	pthread_mutex_lock(&pool->lock);
	pool->stop = true;
	pthread_cond_broadcast(&pool->start);
	pthread_mutex_unlock(&pool->lock);
	for (unsigned i = 1; i < started; i++)
		pthread_join(pool->workers[i].thread, NULL);
	pthread_cond_destroy(&pool->finished);
	pthread_cond_destroy(&pool->start);
	pthread_mutex_destroy(&pool->lock);
	pthread_mutex_destroy(&pool->run_lock);
	free(pool->workers);
	free(pool);
}

enum tpd_status tpd_pool_new(unsigned threads, struct tpd_pool **out_pool, struct tpd_err *err)
{
	struct tpd_pool *pool;

	if (threads > TPD_POOL_MAX)
		return tpd_fail(err, TPD_USAGE, "%u threads are more than the limit of %d", threads, TPD_POOL_MAX);
	if (threads == 0)
		threads = usable_cpus();
	pool = calloc(1, sizeof *pool);
	if (!pool)
		return tpd_fail_nomem(err);
	pool->workers = calloc(threads, sizeof *pool->workers);
	if (!pool->workers) {
		free(pool);
		return tpd_fail_nomem(err);
	}
	pool->threads = threads;
	/* With default attributes these four cannot fail on Linux. */
	pthread_mutex_init(&pool->run_lock, NULL);
	pthread_mutex_init(&pool->lock, NULL);
	pthread_cond_init(&pool->start, NULL);
	pthread_cond_init(&pool->finished, NULL);
	for (unsigned i = 1; i < threads; i++) {
		int sys;

		pool->workers[i] = (struct worker){.pool = pool, .number = i};
		sys = create_without_signals(&pool->workers[i]);
		if (sys != 0) {
			stop_and_free(pool, i);
			return tpd_fail_sys(err, sys, "cannot start thread %u of %u", i + 1, threads);
		}
	}
	*out_pool = pool;
	return TPD_OK;
}

void tpd_pool_free(struct tpd_pool *pool)
{
	if (pool)
		stop_and_free(pool, pool->threads);
}

unsigned tpd_pool_threads(const struct tpd_pool *pool)
{
	return pool->threads;
}

enum tpd_status tpd_pool_run(struct tpd_pool *pool, size_t n, tpd_pool_fn fn, void *ctx, struct tpd_err *err)
{
	enum tpd_status status = TPD_OK;

	pthread_mutex_lock(&pool->run_lock);
	pthread_mutex_lock(&pool->lock);
	assert(pool->busy == 0);
	pool->fn = fn;
	pool->ctx = ctx;
	pool->next = 0;
	pool->count = n;
	pool->failed = false;
	if (n > 1 && pool->threads > 1) {
		pool->busy = pool->threads - 1;
		pool->generation++;
		pthread_cond_broadcast(&pool->start);
	}
	take_items(pool, 0);
	while (pool->busy > 0)
		pthread_cond_wait(&pool->finished, &pool->lock);
	if (pool->failed) {
		status = pool->status;
		if (err)
			*err = pool->failure;
		if (err && err->status == TPD_OK) /* an item that failed without a word */
			tpd_fail(err, status, "item %zu failed: %s", pool->failed_item, tpd_status_name(status));
	}
	pthread_mutex_unlock(&pool->lock);
	pthread_mutex_unlock(&pool->run_lock);
	return status;
}
