/*
 * t_catalog_jobs.c - the daemon's queue and its events.
 */
#include "base/tpd.h"

#include "catalog/catalog.h"

#include "catalog_help.h"

static struct tpd_catalog *catalog;

static void set_up(void)
{
	help_set_up();
	catalog = help_open_catalog(tpd_io_posix(), TPD_CATALOG_WRITE);
}

static void tear_down(void)
{
	tpd_catalog_close(catalog);
	help_tear_down();
}

static int64_t add(const char *run, const char *path, uint64_t step, const char *fingerprint, bool expect_new)
{
	struct tpd_err err = { 0 };
	int64_t number = -1;
	bool is_new;

	ck_assert_msg(tpd_catalog_job_add(catalog, run, path, step, fingerprint, 100, &number, &is_new, &err) == TPD_OK,
		      "%s", err.text);
	ck_assert_int_eq(is_new, expect_new);
	return number;
}

struct seen {
	int64_t numbers[16];
	size_t n;
	struct tpd_job last; /* numbers only: its strings are gone */
	bool finish;
};

static enum tpd_status see(void *arg, const struct tpd_job *job, struct tpd_err *err)
{
	struct seen *seen = arg;

	ck_assert_uint_lt(seen->n, TPD_ARRAY_LEN(seen->numbers));
	seen->numbers[seen->n++] = job->number;
	seen->last = *job;
	return seen->finish ? tpd_catalog_job_set(catalog, job->number, TPD_JOB_QUEUED, 1, NULL, "seen", err) : TPD_OK;
}

static struct seen jobs(unsigned states)
{
	struct seen seen = { 0 };

	ck_assert_int_eq(tpd_catalog_jobs(catalog, states, see, &seen, NULL), TPD_OK);
	return seen;
}

START_TEST(the_same_again_is_the_same_job)
{
	int64_t a = add("run", "/r/checkpoint-20", 20, "f1", true);
	char checkpoint[TPD_CATALOG_ID];
	enum tpd_job_state state;
	struct tpd_err err;
	int64_t b;

	ck_assert_int_eq(add("run", "/r/checkpoint-20", 20, "f1", false), a);
	b = add("run", "/r/checkpoint-20", 20, "f2", true);
	ck_assert_int_gt(b, a);
	ck_assert_int_gt(add("run", "/r/checkpoint-40", 40, "f1", true), b);
	ck_assert_int_eq(tpd_catalog_job_set(catalog, a, TPD_JOB_DONE, 7, "id", NULL, NULL), TPD_OK);
	ck_assert_int_eq(add("run", "/r/checkpoint-20", 20, "f1", false), a); /* done for good */
	ck_assert_int_eq(tpd_catalog_job_find(catalog, "run", "/r/checkpoint-20", "f1", &state, checkpoint, NULL), TPD_OK);
	ck_assert_str_eq(checkpoint, "id");
	ck_assert_int_eq(state, TPD_JOB_DONE);
	ck_assert_int_eq(tpd_catalog_job_find(catalog, "run", "/r/checkpoint-20", "f3", &state, checkpoint, &err), TPD_NOT_FOUND);
	ck_assert_int_eq(err.status, TPD_NOT_FOUND);
	ck_assert_ptr_nonnull(strstr(err.text, "/r/checkpoint-20"));
}
END_TEST

/* The watch has another name now: nothing of it is known under that, and what failed under the old one is over. */
START_TEST(under_another_run_it_is_another_job)
{
	int64_t a = add("run", "/r/20", 20, "f", true), b = add("renamed", "/r/20", 20, "f", true);
	char checkpoint[TPD_CATALOG_ID];
	enum tpd_job_state state;

	ck_assert_int_gt(b, a);
	ck_assert_int_eq(add("renamed", "/r/20", 20, "f", false), b);
	ck_assert_int_eq(add("run", "/r/20", 20, "f", false), a);
	ck_assert_int_eq(tpd_catalog_job_set(catalog, a, TPD_JOB_DONE, 7, "id", NULL, NULL), TPD_OK);
	ck_assert_int_eq(tpd_catalog_job_find(catalog, "run", "/r/20", "f", &state, checkpoint, NULL), TPD_OK);
	ck_assert_int_eq(state, TPD_JOB_DONE);
	ck_assert_int_eq(tpd_catalog_job_find(catalog, "renamed", "/r/20", "f", &state, checkpoint, NULL), TPD_OK);
	ck_assert_int_eq(state, TPD_JOB_QUEUED);
	ck_assert_int_eq(tpd_catalog_job_find(catalog, "third", "/r/20", "f", &state, checkpoint, NULL), TPD_NOT_FOUND);
	ck_assert_int_eq(tpd_catalog_job_set(catalog, a, TPD_JOB_FAILED, 8, NULL, "why", NULL), TPD_OK);
	ck_assert_int_eq(tpd_catalog_jobs_supersede(catalog, "run", "/r/20", "f", 9, NULL), TPD_OK);
	ck_assert_uint_eq(jobs(1u << TPD_JOB_FAILED).n, 1);
	ck_assert_int_eq(tpd_catalog_jobs_supersede(catalog, "renamed", "/r/20", "f", 9, NULL), TPD_OK);
	ck_assert_uint_eq(jobs(1u << TPD_JOB_FAILED).n, 0);
	ck_assert_int_eq(jobs(1u << TPD_JOB_MISSED).numbers[0], a);
}
END_TEST

static enum tpd_status check_job(void *arg, const struct tpd_job *job, TPD_UNUSED struct tpd_err *err)
{
	int *n = arg;

	++*n;
	ck_assert_str_eq(job->run, "run");
	ck_assert_str_eq(job->path, "/r/20");
	ck_assert_str_eq(job->fingerprint, "f");
	ck_assert(job->step == 20 && job->state == TPD_JOB_FAILED && job->attempts == 2);
	ck_assert(job->queued_ns == 100 && job->changed_ns == 203);
	ck_assert_str_eq(job->message, "disk full");
	ck_assert_ptr_null(job->checkpoint);
	return TPD_OK;
}

/* What failed, and is not as it was any more, or not there, is no failure that anybody can do something about. */
START_TEST(what_failed_is_superseded)
{
	int64_t a = add("run", "/r/20", 20, "", true), b = add("run", "/r/20", 20, "f2", true);
	int64_t done = add("run", "/r/20", 20, "f3", true), other = add("run", "/r/40", 40, "f1", true);

	for (int64_t number = a; number <= other; number++)
		ck_assert_int_eq(tpd_catalog_job_set(catalog, number, number == done ? TPD_JOB_DONE : TPD_JOB_FAILED, 7, NULL, "why", NULL), TPD_OK);
	ck_assert_int_eq(tpd_catalog_jobs_supersede(catalog, "run", "/r/20", "f2", 8, NULL), TPD_OK);
	ck_assert_uint_eq(jobs(1u << TPD_JOB_FAILED).n, 2);
	ck_assert_int_eq(jobs(1u << TPD_JOB_FAILED).numbers[0], b);
	ck_assert_int_eq(jobs(1u << TPD_JOB_MISSED).numbers[0], a);
	ck_assert_int_eq(tpd_catalog_jobs_supersede(catalog, NULL, "/r/20", NULL, 9, NULL), TPD_OK);
	ck_assert_uint_eq(jobs(1u << TPD_JOB_FAILED).n, 1);
	ck_assert_int_eq(jobs(1u << TPD_JOB_FAILED).numbers[0], other);
	ck_assert_int_eq(jobs(1u << TPD_JOB_DONE).numbers[0], done);
}
END_TEST

START_TEST(a_job_has_its_history)
{
	int64_t number = add("run", "/r/20", 20, "f", true);
	struct tpd_err err;
	int n = 0;

	ck_assert_int_eq(tpd_catalog_job_set(catalog, number, TPD_JOB_RUNNING, 200, NULL, NULL, NULL), TPD_OK);
	ck_assert_int_eq(tpd_catalog_job_set(catalog, number, TPD_JOB_QUEUED, 201, NULL, "once more", NULL), TPD_OK);
	ck_assert_int_eq(tpd_catalog_job_set(catalog, number, TPD_JOB_RUNNING, 202, NULL, NULL, NULL), TPD_OK);
	ck_assert_int_eq(tpd_catalog_job_set(catalog, number, TPD_JOB_FAILED, 203, NULL, "disk full", NULL), TPD_OK);
	ck_assert_int_eq(tpd_catalog_jobs(catalog, ~0u, check_job, &n, NULL), TPD_OK);
	ck_assert_int_eq(n, 1);
	ck_assert_int_eq(tpd_catalog_job_set(catalog, number + 1, TPD_JOB_DONE, 1, NULL, NULL, &err), TPD_NOT_FOUND);
	ck_assert_str_eq(tpd_job_state_name(TPD_JOB_MISSED), "missed");
}
END_TEST

START_TEST(the_queue_is_in_order)
{
	int64_t b20 = add("b", "/b/20", 20, "f", true), a40 = add("a", "/a/40", 40, "f", true);
	int64_t a20 = add("a", "/a/20", 20, "f", true), a100 = add("a", "/a/100", 100, "f", true);
	const int64_t order[] = { a20, a40, a100, b20 };
	struct tpd_catalog_totals totals;
	struct seen seen = jobs(1u << TPD_JOB_QUEUED);
	uint64_t count;

	ck_assert_uint_eq(seen.n, 4);
	ck_assert_mem_eq(seen.numbers, order, sizeof order);
	tpd_catalog_job_set(catalog, a40, TPD_JOB_RUNNING, 1, NULL, NULL, NULL);
	tpd_catalog_job_set(catalog, b20, TPD_JOB_RUNNING, 1, NULL, NULL, NULL);
	tpd_catalog_job_set(catalog, a20, TPD_JOB_FAILED, 1, NULL, NULL, NULL);
	ck_assert_uint_eq(jobs(0).n, 0);
	ck_assert_uint_eq(jobs(1u << TPD_JOB_QUEUED).n, 1);
	ck_assert_uint_eq(jobs(1u << TPD_JOB_RUNNING | 1u << TPD_JOB_FAILED).n, 3);
	ck_assert_int_eq(tpd_catalog_totals(catalog, &totals, NULL), TPD_OK);
	ck_assert(totals.jobs_queued == 1 && totals.jobs_running == 2 && totals.jobs_failed == 1);
	/* as the daemon's start does after kill -9 */
	tpd_catalog_close(catalog);
	catalog = help_open_catalog(tpd_io_posix(), TPD_CATALOG_WRITE);
	ck_assert_int_eq(tpd_catalog_jobs_recover(catalog, 9, &count, NULL), TPD_OK);
	ck_assert_uint_eq(count, 2);
	ck_assert_uint_eq(jobs(1u << TPD_JOB_QUEUED).n, 3);
	ck_assert_int_eq(tpd_catalog_jobs_recover(catalog, 9, &count, NULL), TPD_OK);
	ck_assert_uint_eq(count, 0);
}
END_TEST

START_TEST(a_callback_may_change_jobs)
{
	struct seen seen = { .finish = true };

	for (uint64_t step = 1; step <= 8; step++)
		add("run", "/r", step, (char[]){ (char)('a' + step), '\0' }, true);
	ck_assert_int_eq(tpd_catalog_jobs(catalog, 1u << TPD_JOB_QUEUED, see, &seen, NULL), TPD_OK);
	ck_assert_uint_eq(seen.n, 8); /* each once, though each stays queued */
}
END_TEST

struct events {
	unsigned n;
	int64_t first, last;
};

static enum tpd_status see_event(void *arg, int64_t time_ns, const char *level, const char *run, const char *text,
				 TPD_UNUSED struct tpd_err *err)
{
	struct events *events = arg;

	if (events->n++ == 0)
		events->first = time_ns;
	events->last = time_ns;
	ck_assert_str_eq(level, time_ns % 2 ? "warning" : "info");
	ck_assert_str_eq(text, "it's stored");
	ck_assert(time_ns % 2 ? run == NULL : strcmp(run, "run") == 0);
	return TPD_OK;
}

START_TEST(events_end_at_ten_thousand)
{
	struct events all = { 0 }, some = { 0 };

	ck_assert_int_eq(tpd_catalog_begin(catalog, NULL), TPD_OK);
	for (int64_t i = 1; i <= 10005; i++)
		ck_assert_int_eq(tpd_catalog_event(catalog, i, i % 2 ? "warning" : "info", i % 2 ? NULL : "run",
						   "it's stored", NULL),
				 TPD_OK);
	ck_assert_int_eq(tpd_catalog_commit(catalog, NULL), TPD_OK);
	ck_assert_int_eq(tpd_catalog_events(catalog, 20000, see_event, &all, NULL), TPD_OK);
	ck_assert(all.n == 10000 && all.first == 6 && all.last == 10005);
	ck_assert_int_eq(tpd_catalog_events(catalog, 3, see_event, &some, NULL), TPD_OK);
	ck_assert(some.n == 3 && some.first == 10003 && some.last == 10005);
	ck_assert_int_eq(tpd_catalog_event(catalog, 1, "fatal", NULL, "no such level", NULL), TPD_CONFLICT);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("catalog_jobs");
	TCase *tcase = tcase_create("all");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_checked_fixture(tcase, set_up, tear_down);
	tcase_add_test(tcase, the_same_again_is_the_same_job);
	tcase_add_test(tcase, under_another_run_it_is_another_job);
	tcase_add_test(tcase, what_failed_is_superseded);
	tcase_add_test(tcase, a_job_has_its_history);
	tcase_add_test(tcase, the_queue_is_in_order);
	tcase_add_test(tcase, a_callback_may_change_jobs);
	tcase_add_test(tcase, events_end_at_ten_thousand);
	tcase_set_timeout(tcase, 60);
	suite_add_tcase(suite, tcase);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
