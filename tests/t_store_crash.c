/*
 * t_store_crash.c - what is left of a store when any call fails, or none comes after it, and how it is put right.
 */
#include "base/tpd.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store_help.h"

START_TEST(unnamed_objects_get_their_version)
{
	struct tpd_store *store = open_store(TPD_STORE_CREATE);
	struct tpd_run_lock *lock = lock_run(store, RUN), *other = lock_run(store, "other");
	struct tpd_run run = {0};
	struct tpd_buf refs = {0};
	struct tpd_id a, b, c;

	must_store(other, "other", 5, 1, 1);
	a = must_store(lock, RUN, 20, 1, 1);
	b = must_store(lock, RUN, 10, 2, 1);
	c = must_store(lock, RUN, 20, 3, 2);
	tpd_store_run_unlock(lock);
	tpd_store_run_unlock(other);

	/* All records but the run's and c's forget are lost. */
	put_run(&refs, RUN);
	put_record(&refs, 3, c.bytes, sizeof(c.bytes));
	put(RUN_FILE, refs.data, refs.len);
	lock = lock_run(store, RUN);
	tpd_store_run_unlock(lock);
	ck_assert_int_eq(tpd_store_run_read(store, RUN, &run, &err), TPD_OK);
	ck_assert_uint_eq(run.count, 2); /* in order of time, which these have of their steps; c stays forgotten */
	ck_assert(tpd_id_equal(&run.versions[0].id, &b) && tpd_id_equal(&run.versions[1].id, &a));
	ck_assert_uint_eq(run.versions[0].step, 10);
	ck_assert_int_eq(run.versions[0].time_ns, 1010);
	tpd_run_release(&run);
	tpd_store_run_unlock(lock_run(store, RUN)); /* nothing more to do */
	ck_assert_int_eq(tpd_store_run_read(store, RUN, &run, &err), TPD_OK);
	ck_assert_uint_eq(run.count, 2);
	tpd_run_release(&run);

	/* Another run's refs are damaged: this one is not kept from its own. */
	put("refs/other", "garbage that is no record at all", 32);
	put(RUN_FILE, refs.data, refs.len);
	tpd_store_run_unlock(lock_run(store, RUN));
	ck_assert_int_eq(tpd_store_run_read(store, RUN, &run, &err), TPD_OK);
	ck_assert_uint_eq(run.count, 2);
	tpd_run_release(&run);
	tpd_buf_release(&refs);
	tpd_store_close(store);
}
END_TEST

/* A forgotten checkpoint that is stored again gets a new version. */
START_TEST(stored_after_forgotten)
{
	struct tpd_store *store = open_store(TPD_STORE_CREATE);
	struct tpd_run_lock *lock = lock_run(store, RUN);
	struct tpd_id a = must_store(lock, RUN, 10, 1, 1);
	struct tpd_buf refs;

	tpd_store_run_unlock(lock);
	refs = get(RUN_FILE);
	put_record(&refs, 3, a.bytes, sizeof(a.bytes));
	put(RUN_FILE, refs.data, refs.len);
	lock = lock_run(store, RUN);
	must_store(lock, RUN, 10, 1, 2);
	must_store(lock, RUN, 10, 1, 2);
	tpd_store_run_unlock(lock);
	tpd_store_close(store);
	tpd_buf_release(&refs);
}
END_TEST

/* Store RUN@10, with a disk that fails; TPD_OK or what failed. */
static enum tpd_status try_to_store(const struct tpd_io *with, struct tpd_id *out_id)
{
	struct tpd_store *store = NULL;
	struct tpd_run_lock *lock = NULL;
	uint32_t version = 0;
	enum tpd_status status = tpd_store_open(with, path, TPD_STORE_CREATE, 0, &store, &err);

	if (status)
		return status;
	status = tpd_store_run_lock(store, RUN, 0, &lock, &err);
	if (!status) {
		status = store_one(lock, RUN, 10, 1, out_id, &version);
		ck_assert(status || version == 1);
	}
	tpd_store_run_unlock(lock);
	tpd_store_close(store);
	return status;
}

/* After anything whatever: the store opens, and has the checkpoint whole and named once, or not at all. */
static void check_whole_or_none(const struct tpd_id *id, bool must_have)
{
	struct tpd_store *store = open_store(TPD_STORE_CREATE);
	struct tpd_run_lock *lock = lock_run(store, RUN);
	struct tpd_manifest m = {0};
	struct tpd_run run = {0};
	struct tpd_id again;
	uint32_t version = 0;
	bool has = tpd_store_has(store, id);

	ck_assert(has || !must_have);
	ck_assert_int_eq(tpd_store_run_read(store, RUN, &run, &err), TPD_OK);
	ck_assert_uint_eq(run.count, has);
	if (has) {
		struct tpd_part *part = NULL;
		char name[128];
		int at = -1;

		ck_assert(tpd_id_equal(&run.versions[0].id, id));
		ck_assert_int_eq(tpd_store_manifest(store, id, &m, &err), TPD_OK);
		ck_assert_int_eq(tpd_store_object_dir(store, id, &at, &err), TPD_OK);
		ck_assert_int_eq(tpd_part_open(io, at, 0, 0, &part, &err), TPD_OK);
		ck_assert_int_eq(tpd_part_check_index(part, &err), TPD_OK);
		ck_assert_uint_eq(tpd_part_bytes(part), m.entries[0].parts[0].bytes);
		tpd_part_close(part);
		io->close(io, at);
		object_name(id, 0, name);
		ck_assert_uint_eq(entries_in(name), 2);
		ck_assert_uint_eq(entries_in("ingest"), 0);
		tpd_manifest_release(&m);
	}
	tpd_run_release(&run);
	/* And it can be stored now, under the same name. */
	ck_assert_msg(store_one(lock, RUN, 10, 1, &again, &version) == TPD_OK, "%s", err.text);
	ck_assert(tpd_id_equal(&again, id));
	ck_assert_uint_eq(version, 1);
	tpd_store_run_unlock(lock);
	ck_assert_int_eq(tpd_store_run_read(store, RUN, &run, &err), TPD_OK);
	ck_assert_uint_eq(run.count, 1);
	tpd_run_release(&run);
	tpd_store_close(store);
}

static const struct {
	int sys;
	bool forever; /* a crash: nothing after it happens */
} failures[] = {{EIO, false}, {ENOSPC, false}, {EIO, true}, {ENOSPC, true}};

START_TEST(any_call_fails)
{
	struct fault count = {.fail_at = -1};
	struct tpd_io counting = fault_io(&count);
	struct tpd_id id, got;
	unsigned failed = 0;

	ck_assert_int_eq(try_to_store(&counting, &id), TPD_OK);
	ck_assert_int_gt(count.calls, 50);
	check_whole_or_none(&id, true);
	for (int at = 0; at < count.calls; at++) {
		struct fault fault = {.fail_at = at, .sys = failures[_i].sys, .forever = failures[_i].forever};
		struct tpd_io bad = fault_io(&fault);
		enum tpd_status status;

		ck_assert_int_eq(tpd_io_remove_tree(io, dir, "s", NULL), TPD_OK);
		err = (struct tpd_err){0};
		status = try_to_store(&bad, &got);
		if (status) {
			failed++;
			ck_assert_msg(status == TPD_IO && err.sys == failures[_i].sys, "call %d: %s %s", at,
				      tpd_status_name(status), err.text);
		}
		check_whole_or_none(&id, status == TPD_OK);
	}
	ck_assert_uint_gt(failed, 50);
}
END_TEST

/*
 * What is lost when a process ends between any two of its calls, or when (_i) one call fails and the same process goes
 * on, is never a finished part.
 */
START_TEST(finished_parts_survive)
{
	struct tpd_manifest m = {0};
	uint32_t version = 0;

	for (int at = 0;; at++) {
		struct fault fault = {.fail_at = -1, .sys = EIO, .forever = _i == 0};
		struct tpd_io bad = fault_io(&fault);
		struct tpd_store *store = NULL;
		struct tpd_run_lock *lock;
		enum tpd_status status;

		ck_assert_int_eq(tpd_io_remove_tree(io, dir, "s", NULL), TPD_OK);
		ck_assert_int_eq(tpd_store_open(&bad, path, TPD_STORE_CREATE, 0, &store, &err), TPD_OK);
		lock = lock_run(store, RUN);
		ck_assert_int_eq(make_unfinished(lock, RUN, 10, 1, &m), TPD_OK);
		fault.fail_at = fault.calls + at;
		status = tpd_store_publish(lock, &m, &version, &err);
		if (status == TPD_OK && fault.calls <= fault.fail_at) { /* the failure would have come later */
			tpd_store_run_unlock(lock);
			tpd_store_close(store);
			tpd_manifest_release(&m);
			ck_assert_int_gt(at, 20);
			return;
		}
		if (_i == 0) {
			tpd_store_run_unlock(lock);
			tpd_store_close(store);
			store = open_store(TPD_STORE_WRITE);
			lock = lock_run(store, RUN);
		}
		if (!tpd_store_has(store, &m.id)) {
			struct tpd_begin got;
			bool resumed = false;
			int in = -1;

			ck_assert_int_eq(tpd_store_ingest_open(lock, 10, &begin, &got, &resumed, &in, &err), TPD_OK);
			io->close(io, in);
			ck_assert(resumed || _i == 1);
			if (resumed) {
				ck_assert(exists("ingest/sweep%2Flr3@10/f00000.p00000"));
				ck_assert_int_eq(tpd_store_publish(lock, &m, &version, &err), TPD_OK);
			}
		}
		ck_assert(tpd_store_has(store, &m.id));
		tpd_store_run_unlock(lock);
		tpd_store_close(store);
		tpd_manifest_release(&m);
	}
}
END_TEST

/* A mended copy whose publication was interrupted: it comes in beside the damaged one, and is not thrown away for it. */
START_TEST(mended_copies_survive)
{
	struct tpd_store *store = open_store(TPD_STORE_CREATE);
	struct tpd_run_lock *lock = lock_run(store, RUN);
	struct tpd_id id = must_store(lock, RUN, 10, 1, 1);
	struct tpd_buf part, manifest = {0};
	struct tpd_manifest m = {0};
	char name[128], file[160];

	object_name(&id, 0, name);
	snprintf(file, sizeof(file), "%s/f00000.p00000", name);
	part = get(file);
	part.data[TPD_PART_HEADER] ^= 1; /* its one payload: manifest, trailer and index are as they were */
	put(file, part.data, part.len);
	ck_assert(tpd_store_has(store, &id) && !tpd_store_sound(store, &id));
	ck_assert_int_eq(make_unfinished(lock, RUN, 10, 1, &m), TPD_OK);
	ck_assert_int_eq(tpd_manifest_write(&m, &manifest, &err), TPD_OK);
	put("ingest/sweep%2Flr3@10/manifest", manifest.data, manifest.len);
	tpd_store_run_unlock(lock); /* and here it ended */
	tpd_store_run_unlock(lock_run(store, RUN));
	object_name(&id, 1, name);
	ck_assert(exists(name) && tpd_store_sound(store, &id));
	ck_assert_uint_eq(entries_in("ingest"), 0);
	tpd_manifest_release(&m);
	tpd_buf_release(&manifest);
	tpd_buf_release(&part);
	tpd_store_close(store);
}
END_TEST

/* A torn record has at most the bytes of the largest; a file of megabytes behind a bad one is told at once, not searched. */
START_TEST(tails_of_any_length)
{
	const size_t record = 4 + 65536 + 8;
	struct tpd_buf refs = honest_refs();
	struct tpd_store *store = open_store(TPD_STORE_CREATE);
	struct tpd_run run = {0};
	size_t honest = refs.len, count;

	tpd_buf_u32(&refs, 65536);
	while (refs.len < honest + record)
		tpd_buf_u8(&refs, 7);
	put(RUN_FILE, refs.data, refs.len);
	ck_assert_int_eq(tpd_store_run_read(store, RUN, &run, &err), TPD_OK);
	ck_assert_uint_eq(run.valid_bytes, honest);
	tpd_run_release(&run);
	tpd_buf_u8(&refs, 7);
	put(RUN_FILE, refs.data, refs.len);
	ck_assert_int_eq(tpd_store_run_read(store, RUN, &run, &err), TPD_CORRUPT);
	for (count = 0; count < 8u << 20; count += 4) /* each could be a record of the largest kind */
		tpd_buf_u32(&refs, 0x00010000);
	put(RUN_FILE, refs.data, refs.len);
	ck_assert_int_eq(tpd_store_run_read(store, RUN, &run, &err), TPD_CORRUPT);
	tpd_buf_release(&refs);
	tpd_store_close(store);
}
END_TEST

/* An append that fails leaves the file as it was, and the next one works; after a failed fsync none does. */
START_TEST(appends_that_fail)
{
	struct fault fault = {.fail_at = -1, .sys = ENOSPC};
	struct tpd_io bad = fault_io(&fault);
	struct tpd_store *store = NULL;
	struct tpd_run_lock *lock;
	struct tpd_id id = {{1}};
	uint32_t version = 0;
	struct tpd_run run = {0};
	struct tpd_buf torn;
	int fd;

	ck_assert_int_eq(tpd_store_open(&bad, path, TPD_STORE_CREATE, 0, &store, &err), TPD_OK);
	lock = lock_run(store, RUN);
	ck_assert_int_eq(tpd_store_add_version(lock, 1, &id, 0, &version, &err), TPD_OK);
	fault.fail_at = fault.calls; /* pwrite, half of which arrives */
	ck_assert_int_eq(tpd_store_add_version(lock, 1, &id, 0, &version, &err), TPD_IO);
	ck_assert_ptr_nonnull(strstr(err.text, path));
	ck_assert_ptr_nonnull(strstr(err.text, "cannot write '" RUN_FILE "': No space left on device"));
	ck_assert_int_eq(tpd_store_add_version(lock, 1, &id, 0, &version, &err), TPD_OK);
	ck_assert_uint_eq(version, 2);
	fault.fail_at = fault.calls; /* and now the way back fails as well */
	fault.forever = true;
	ck_assert_int_eq(tpd_store_add_version(lock, 1, &id, 0, &version, &err), TPD_IO);
	ck_assert_int_eq(tpd_store_add_version(lock, 1, &id, 0, &version, &err), TPD_IO);
	fault.fail_at = -1;
	torn = get(RUN_FILE); /* more of it than the next record will cover */
	for (int i = 0; i < 200; i++)
		tpd_buf_u8(&torn, 0xee);
	fd = io->open(io, dir, inside(RUN_FILE), O_WRONLY, 0);
	ck_assert_int_eq(tpd_io_write_all(io, fd, torn.data, torn.len, 0, RUN_FILE, NULL), TPD_OK);
	io->close(io, fd);
	tpd_buf_release(&torn);
	ck_assert_int_eq(tpd_store_run_read(store, RUN, &run, &err), TPD_OK);
	ck_assert_uint_eq(run.count, 2);
	tpd_run_release(&run);
	ck_assert_int_eq(tpd_store_add_version(lock, 1, &id, 0, &version, &err), TPD_OK);
	ck_assert_uint_eq(version, 3);
	torn = get(RUN_FILE);
	ck_assert_int_eq(tpd_store_run_read(store, RUN, &run, &err), TPD_OK);
	ck_assert_uint_eq(run.valid_bytes, torn.len);
	tpd_run_release(&run);
	tpd_buf_release(&torn);
	fault.forever = false;
	fault.fail_at = fault.calls + 1; /* fsync */
	ck_assert_int_eq(tpd_store_add_version(lock, 1, &id, 0, &version, &err), TPD_IO);
	fault.fail_at = -1;
	ck_assert_int_eq(tpd_store_add_version(lock, 1, &id, 0, &version, &err), TPD_IO);
	tpd_store_run_unlock(lock);
	lock = lock_run(store, RUN);
	ck_assert_int_eq(tpd_store_add_version(lock, 1, &id, 0, &version, &err), TPD_OK);
	ck_assert_uint_eq(version, 4);
	tpd_store_run_unlock(lock);
	tpd_store_close(store);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("store crash");
	TCase *tests = tcase_create("store crash");
	SRunner *runner = srunner_create(suite);
	int failed;

	suite_add_tcase(suite, tests);
	tcase_add_checked_fixture(tests, set_up, tear_down);
	tcase_set_timeout(tests, 300);
	tcase_add_test(tests, unnamed_objects_get_their_version);
	tcase_add_test(tests, stored_after_forgotten);
	tcase_add_loop_test(tests, any_call_fails, 0, (int)TPD_ARRAY_LEN(failures));
	tcase_add_loop_test(tests, finished_parts_survive, 0, 2);
	tcase_add_test(tests, mended_copies_survive);
	tcase_add_test(tests, tails_of_any_length);
	tcase_add_test(tests, appends_that_fail);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
