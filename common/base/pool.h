/*
 * pool.h - a fixed set of threads that run one parallel loop at a time.
 *
 * tpd_pool_run() calls fn(ctx, item, worker) for every item in [0, n) and
 * returns when all are done.  `worker` in [0, threads) names the thread, so
 * that each can own its scratch memory.  The caller's thread takes part as
 * worker 0; with threads == 1 there are no others.  The first failing item
 * (lowest number) decides the returned status and err; items not yet started
 * after a failure are skipped.  Results must not depend on which worker ran
 * what: whoever needs an order merges by item number afterwards.
 */
#ifndef TPD_BASE_POOL_H
#define TPD_BASE_POOL_H

#include "base/tpd.h"

#define TPD_POOL_MAX 64

struct tpd_pool;

typedef enum tpd_status (*tpd_pool_fn)(void *ctx, size_t item, unsigned worker, struct tpd_err *err);

/* threads in [1, TPD_POOL_MAX]; 0: one a CPU that we may run on. */
enum tpd_status tpd_pool_new(unsigned threads, struct tpd_pool **out_pool, struct tpd_err *err);
void tpd_pool_free(struct tpd_pool *pool);
unsigned tpd_pool_threads(const struct tpd_pool *pool);
enum tpd_status tpd_pool_run(struct tpd_pool *pool, size_t n, tpd_pool_fn fn, void *ctx, struct tpd_err *err);

#endif
