/*
 * t_refs_repair.c - refs files that are damaged in their middle: what is kept, what comes back, and who may be at it
 * meanwhile.
 */
#include "base/tpd.h"

#include <check.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "store_help.h"

/* honest_refs(), then RUN@20~2, the forget of RUN@10~1 and a record of a later version that may be skipped */
static struct tpd_buf long_refs(void)
{
	struct tpd_buf refs = honest_refs();
	uint8_t id[32];

	put_version(&refs, 20, 2, 0xa3);
	memset(id, 0xa1, sizeof(id));
	put_record(&refs, 3, id, sizeof(id));
	put_record(&refs, 100, "later", 5);
	return refs;
}

static bool repaired(struct tpd_store *store)
{
	bool done = false;

	ck_assert_msg(tpd_store_run_repair(store, RUN, 0, &done, &err) == TPD_OK, "%s", err.text);
	return done;
}

static void assert_same(const char *name, const struct tpd_buf *want)
{
	struct tpd_buf got = get(name);

	ck_assert_uint_eq(got.len, want->len);
	ck_assert_mem_eq(got.data, want->data, got.len);
	tpd_buf_release(&got);
}

/* Whatever byte is hit: every record but that one is there afterwards, in its place. */
START_TEST(one_byte_costs_one_record)
{
	struct tpd_store *store = open_store(TPD_STORE_CREATE);
	struct tpd_buf honest = long_refs();
	size_t first = first_record(&honest), each = 4 + 43 + 8, last = honest.len - (4 + 6 + 8);

	for (size_t i = 0; i < last; i++) {
		struct tpd_buf refs = long_refs();
		struct tpd_run run = {0};
		size_t hit = i < first ? 0 : 1 + (i - first) / each, v = 0;
		char copy[64];

		refs.data[i] ^= 0x04;
		put(RUN_FILE, refs.data, refs.len);
		ck_assert_int_eq(tpd_store_run_read(store, RUN, &run, &err), TPD_CORRUPT);
		ck_assert_ptr_nonnull(strstr(err.text, "rebuild-catalog"));
		ck_assert(repaired(store));
		ck_assert(!repaired(store));
		snprintf(copy, sizeof(copy), "refs-damaged/%s@%zu", strchr(RUN_FILE, '/') + 1, i + 1);
		assert_same(copy, &refs);
		ck_assert_int_eq(tpd_store_run_read(store, RUN, &run, &err), TPD_OK);
		ck_assert_uint_eq(run.count, 3 - (hit >= 1 && hit <= 3));
		for (size_t record = 1; record <= 3; record++)
			if (record != hit) {
				ck_assert_uint_eq(run.versions[v].id.bytes[0], 0xa0 + record);
				ck_assert(run.versions[v].forgotten == (record == 1 && hit != 4));
				v++;
			}
		ck_assert_uint_eq(run.valid_bytes, honest.len - (hit == 0 ? 0 : hit == 4 ? 4 + 33 + 8 : each));
		if (hit == 0)
			assert_same(RUN_FILE, &honest);
		tpd_run_release(&run);
		tpd_buf_release(&refs);
	}
	tpd_buf_release(&honest);
	tpd_store_close(store);
}
END_TEST

START_TEST(what_is_not_repaired)
{
	struct tpd_store *store = open_store(TPD_STORE_CREATE);
	struct tpd_buf refs = long_refs();
	bool done = true;

	ck_assert_int_eq(tpd_store_run_repair(store, RUN, 0, &done, &err), TPD_NOT_FOUND);
	ck_assert(!exists(RUN_FILE));
	put(RUN_FILE, refs.data, refs.len - 3); /* a torn tail is a crash's, and the next writer's to cut */
	ck_assert(!repaired(store));
	put_record(&refs, 200, "must be understood", 18);
	refs.data[first_record(&refs) + 9] ^= 1;
	put(RUN_FILE, refs.data, refs.len);
	ck_assert_int_eq(tpd_store_run_repair(store, RUN, 0, &done, &err), TPD_UNSUPPORTED);
	assert_same(RUN_FILE, &refs);
	ck_assert(!exists("refs-damaged"));
	tpd_buf_release(&refs);
	tpd_store_close(store);
}
END_TEST

/* A file that came from another run: its versions are not ours, but what is forgotten stays forgotten. */
START_TEST(another_runs_file)
{
	struct tpd_store *store = open_store(TPD_STORE_CREATE);
	struct tpd_buf refs = {0};
	struct tpd_run run = {0};
	uint8_t id[32] = {7};

	put_run(&refs, "another");
	put_version(&refs, 10, 1, 0xb1);
	put_record(&refs, 3, id, sizeof(id));
	put_run(&refs, RUN);
	put_version(&refs, 30, 1, 0xb2);
	put_record(&refs, 2, "malformed", 9);
	put(RUN_FILE, refs.data, refs.len);
	ck_assert(repaired(store));
	ck_assert_int_eq(tpd_store_run_read(store, RUN, &run, &err), TPD_OK);
	ck_assert_uint_eq(run.count, 1);
	ck_assert_uint_eq(run.versions[0].step, 30);
	tpd_run_release(&run);
	tpd_buf_release(&refs);
	put_run(&refs, RUN);
	put_record(&refs, 3, id, sizeof(id));
	put_version(&refs, 30, 1, 0xb2);
	assert_same(RUN_FILE, &refs);
	tpd_buf_release(&refs);
	tpd_store_close(store);
}
END_TEST

/* The lost names come from the manifests, at the numbers that they had: the newest of a step stays the newest. */
START_TEST(names_come_back_as_they_were)
{
	struct tpd_store *store = open_store(TPD_STORE_CREATE);
	struct tpd_run_lock *lock = lock_run(store, RUN);
	struct tpd_id a = must_store(lock, RUN, 20, 1, 1), b = must_store(lock, RUN, 20, 2, 2);
	struct tpd_run run = {0};
	struct tpd_buf refs;
	uint32_t version = 0;

	tpd_store_run_unlock(lock);
	refs = get(RUN_FILE);
	refs.data[first_record(&refs) + 20] ^= 1; /* a's record */
	put(RUN_FILE, refs.data, refs.len);
	tpd_buf_release(&refs);
	ck_assert_int_eq(tpd_store_run_lock(store, RUN, 0, &lock, &err), TPD_CORRUPT);
	ck_assert(repaired(store));
	tpd_store_run_unlock(lock_run(store, RUN));
	ck_assert_int_eq(tpd_store_run_read(store, RUN, &run, &err), TPD_OK);
	ck_assert_uint_eq(run.count, 2);
	ck_assert(tpd_id_equal(&run.versions[0].id, &b) && run.versions[0].version == 2);
	ck_assert(tpd_id_equal(&run.versions[1].id, &a) && run.versions[1].version == 1);
	tpd_run_release(&run);
	lock = lock_run(store, RUN);
	ck_assert_int_eq(tpd_store_add_version(lock, 20, &a, 0, &version, &err), TPD_OK);
	ck_assert_uint_eq(version, 3);
	tpd_store_run_unlock(lock);
	tpd_store_close(store);
}
END_TEST

struct waiter {
	struct tpd_store *store;
	enum tpd_status status;
	uint32_t version;
};

static void *wait_and_add(void *arg)
{
	struct waiter *waiter = arg;
	struct tpd_run_lock *lock = NULL;
	struct tpd_id id = {{9}};

	waiter->status = tpd_store_run_lock(waiter->store, RUN, 20000, &lock, NULL);
	if (!waiter->status)
		waiter->status = tpd_store_add_version(lock, 20, &id, 0, &waiter->version, NULL);
	tpd_store_run_unlock(lock);
	return NULL;
}

/* A writer that waits for the old file's lock writes to the file that replaced it. */
START_TEST(waiting_writers_notice)
{
	struct waiter waiter = {.store = open_store(TPD_STORE_CREATE), .status = TPD_IO};
	struct tpd_buf refs = long_refs();
	struct tpd_run run = {0};
	pthread_t thread;
	int fd;

	put(RUN_FILE, refs.data, refs.len);
	fd = io->open(io, dir, inside(RUN_FILE), O_RDWR, 0);
	ck_assert_int_eq(io->lock(io, fd, TPD_LOCK_EXCLUSIVE, 0, 0), 0);
	ck_assert_int_eq(pthread_create(&thread, NULL, wait_and_add, &waiter), 0);
	nanosleep(&(struct timespec){.tv_nsec = 200000000}, NULL);
	put(RUN_FILE, refs.data, refs.len); /* as a repair does, by a rename */
	io->close(io, fd);
	ck_assert_int_eq(pthread_join(thread, NULL), 0);
	ck_assert_int_eq(waiter.status, TPD_OK);
	ck_assert_uint_eq(waiter.version, 3);
	ck_assert_int_eq(tpd_store_run_read(waiter.store, RUN, &run, &err), TPD_OK);
	ck_assert_uint_eq(run.count, 4);
	tpd_run_release(&run);
	tpd_buf_release(&refs);
	tpd_store_close(waiter.store);
}
END_TEST

/* Whichever call fails, and whether anything comes after it: the file is the damaged one or the repaired one. */
START_TEST(any_call_of_a_repair_fails)
{
	struct tpd_store *store = open_store(TPD_STORE_CREATE);
	struct tpd_buf refs = long_refs(), whole;
	int calls = 0;

	tpd_store_close(store);
	refs.data[first_record(&refs) + 9] ^= 1;
	for (int at = -1; at < calls; at++) {
		struct fault fault = {.fail_at = -1, .sys = EIO, .forever = _i == 0};
		struct tpd_io bad = fault_io(&fault);
		struct tpd_buf now;
		bool done = false;
		int before;

		ck_assert_int_eq(tpd_store_open(&bad, path, TPD_STORE_WRITE, 0, &store, &err), TPD_OK);
		put(RUN_FILE, refs.data, refs.len);
		before = fault.calls;
		if (at >= 0)
			fault.fail_at = before + at;
		if (tpd_store_run_repair(store, RUN, 0, &done, &err) == TPD_OK)
			ck_assert(done);
		else
			ck_assert_int_ge(at, 0);
		if (at < 0) {
			calls = fault.calls - before;
			whole = get(RUN_FILE);
		}
		tpd_store_close(store);
		now = get(RUN_FILE);
		ck_assert((now.len == refs.len && !memcmp(now.data, refs.data, now.len)) ||
			  (now.len == whole.len && !memcmp(now.data, whole.data, now.len)));
		tpd_buf_release(&now);
		store = open_store(TPD_STORE_WRITE);
		repaired(store);
		assert_same(RUN_FILE, &whole);
		tpd_store_close(store);
	}
	ck_assert_int_gt(calls, 15);
	tpd_buf_release(&whole);
	tpd_buf_release(&refs);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("refs repair");
	TCase *tests = tcase_create("refs repair");
	SRunner *runner = srunner_create(suite);
	int failed;

	suite_add_tcase(suite, tests);
	tcase_add_checked_fixture(tests, set_up, tear_down);
	tcase_set_timeout(tests, 300);
	tcase_add_test(tests, one_byte_costs_one_record);
	tcase_add_test(tests, what_is_not_repaired);
	tcase_add_test(tests, another_runs_file);
	tcase_add_test(tests, names_come_back_as_they_were);
	tcase_add_test(tests, waiting_writers_notice);
	tcase_add_loop_test(tests, any_call_of_a_repair_fails, 0, 2);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
