/* t_pool.c - every item once, worker numbers never shared, the lowest failure wins. */
#include "base/tpd.h"

#include <check.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/pool.h"

#define ITEMS 20000

struct job {
	unsigned threads;
	uint8_t *hits;                       /* one an item: written without a lock, each by one worker */
	uint64_t sums[TPD_POOL_MAX];         /* one a worker: its scratch memory */
	atomic_uint active[TPD_POOL_MAX];    /* is this worker number in use? */
	size_t fail_a, fail_b;               /* items that fail */
	atomic_size_t started;
};

static enum tpd_status work(void *ctx, size_t item, unsigned worker, struct tpd_err *err)
{
	struct job *job = ctx;

	ck_assert_uint_lt(worker, job->threads);
	ck_assert_uint_eq(atomic_fetch_add(&job->active[worker], 1), 0);
	atomic_fetch_add(&job->started, 1);
	job->hits[item]++;
	job->sums[worker] += item;
	atomic_fetch_sub(&job->active[worker], 1);
	if (item == job->fail_a || item == job->fail_b)
		return tpd_fail(err, item == job->fail_a ? TPD_CORRUPT : TPD_LIMIT, "item %zu", item);
	return TPD_OK;
}

static struct tpd_pool *new_pool(unsigned threads)
{
	struct tpd_pool *pool = NULL;

	ck_assert_int_eq(tpd_pool_new(threads, &pool, NULL), TPD_OK);
	return pool;
}

static const unsigned thread_counts[] = {1, 2, 3, 8};

START_TEST(every_item_once)
{
	struct tpd_pool *pool = new_pool(thread_counts[_i]);
	struct job job = {.threads = thread_counts[_i], .fail_a = SIZE_MAX, .fail_b = SIZE_MAX};
	uint64_t sum = 0;

	ck_assert_uint_eq(tpd_pool_threads(pool), thread_counts[_i]);
	job.hits = calloc(ITEMS, 1);
	for (int round = 0; round < 3; round++)
		ck_assert_int_eq(tpd_pool_run(pool, ITEMS, work, &job, NULL), TPD_OK);
	for (size_t i = 0; i < ITEMS; i++)
		ck_assert_uint_eq(job.hits[i], 3);
	for (unsigned w = 0; w < TPD_POOL_MAX; w++)
		sum += job.sums[w];
	ck_assert(sum == 3ull * ITEMS * (ITEMS - 1) / 2);
	free(job.hits);
	tpd_pool_free(pool);
}
END_TEST

START_TEST(lowest_failure_wins)
{
	struct tpd_pool *pool = new_pool(thread_counts[_i]);

	for (int round = 0; round < 200; round++) {
		struct job job = {.threads = thread_counts[_i], .fail_a = 100, .fail_b = 101};
		struct tpd_err err = {.status = TPD_OK};

		job.hits = calloc(ITEMS, 1);
		ck_assert_int_eq(tpd_pool_run(pool, ITEMS, work, &job, &err), TPD_CORRUPT);
		ck_assert_int_eq(err.status, TPD_CORRUPT);
		ck_assert_str_eq(err.text, "item 100");
		for (size_t i = 0; i <= 100; i++)
			ck_assert_uint_eq(job.hits[i], 1);
		if (thread_counts[_i] == 1)
			ck_assert_uint_eq(job.started, 101); /* the rest is skipped */
		free(job.hits);
	}
	tpd_pool_free(pool);
}
END_TEST

static enum tpd_status fail_silently(TPD_UNUSED void *ctx, size_t item, TPD_UNUSED unsigned worker,
				     TPD_UNUSED struct tpd_err *err)
{
	return item == 3 ? TPD_CANCELLED : TPD_OK;
}

START_TEST(small_loops)
{
	struct tpd_pool *pool = new_pool(4);
	struct job job = {.threads = 4, .fail_a = SIZE_MAX, .fail_b = SIZE_MAX};
	struct tpd_err err = {.status = TPD_OK};

	job.hits = calloc(ITEMS, 1);
	ck_assert_int_eq(tpd_pool_run(pool, 0, work, &job, &err), TPD_OK);
	ck_assert_uint_eq(job.started, 0);
	for (size_t n = 1; n < 300; n++)
		ck_assert_int_eq(tpd_pool_run(pool, n, work, &job, &err), TPD_OK);
	ck_assert_uint_eq(job.started, 299 * 300 / 2);
	ck_assert_int_eq(err.status, TPD_OK); /* untouched */
	ck_assert_int_eq(tpd_pool_run(pool, 9, fail_silently, NULL, &err), TPD_CANCELLED);
	ck_assert_int_eq(err.status, TPD_CANCELLED);
	ck_assert_int_eq(tpd_pool_run(pool, 9, fail_silently, NULL, NULL), TPD_CANCELLED);
	free(job.hits);
	tpd_pool_free(pool);
}
END_TEST

static void *run_beside(void *arg)
{
	struct tpd_pool *pool = arg;
	struct job *job = calloc(1, sizeof *job);

	job->threads = 3;
	job->fail_a = job->fail_b = SIZE_MAX;
	job->hits = calloc(ITEMS, 1);
	for (int i = 0; i < 20; i++)
		ck_assert_int_eq(tpd_pool_run(pool, 500, work, job, NULL), TPD_OK);
	for (size_t i = 0; i < 500; i++)
		ck_assert_uint_eq(job->hits[i], 20);
	free(job->hits);
	free(job);
	return NULL;
}

/* Two callers take turns: one loop at a time. */
START_TEST(two_callers)
{
	struct tpd_pool *pool = new_pool(3);
	pthread_t other;

	ck_assert_int_eq(pthread_create(&other, NULL, run_beside, pool), 0);
	run_beside(pool);
	pthread_join(other, NULL);
	tpd_pool_free(pool);
}
END_TEST

START_TEST(bounds)
{
	struct tpd_pool *pool = NULL;
	struct tpd_err err = {.status = TPD_OK};

	ck_assert_int_eq(tpd_pool_new(TPD_POOL_MAX + 1, &pool, &err), TPD_USAGE);
	ck_assert_ptr_null(pool);
	ck_assert_int_eq(tpd_pool_new(0, &pool, &err), TPD_OK);
	ck_assert_uint_ge(tpd_pool_threads(pool), 1);
	tpd_pool_free(pool);
	tpd_pool_free(NULL);
	for (int i = 0; i < 50; i++) /* born and gone without a run */
		tpd_pool_free(new_pool(1 + (unsigned)i % 8));
}
END_TEST

static enum tpd_status signals_are_blocked(TPD_UNUSED void *ctx, TPD_UNUSED size_t item, unsigned worker,
					   struct tpd_err *err)
{
	sigset_t set;

	pthread_sigmask(SIG_SETMASK, NULL, &set);
	if (sigismember(&set, SIGTERM) != (worker != 0))
		return tpd_fail(err, TPD_USAGE, "worker %u", worker);
	return TPD_OK;
}

START_TEST(workers_take_no_signals)
{
	struct tpd_pool *pool = new_pool(4);

	ck_assert_int_eq(tpd_pool_run(pool, 1000, signals_are_blocked, NULL, NULL), TPD_OK);
	tpd_pool_free(pool);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("pool");
	TCase *tests = tcase_create("pool");
	SRunner *runner = srunner_create(suite);
	int failed;

	suite_add_tcase(suite, tests);
	tcase_set_timeout(tests, 60);
	tcase_add_loop_test(tests, every_item_once, 0, (int)TPD_ARRAY_LEN(thread_counts));
	tcase_add_loop_test(tests, lowest_failure_wins, 0, (int)TPD_ARRAY_LEN(thread_counts));
	tcase_add_test(tests, small_loops);
	tcase_add_test(tests, two_callers);
	tcase_add_test(tests, bounds);
	tcase_add_test(tests, workers_take_no_signals);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
