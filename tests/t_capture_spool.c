/*
 * t_capture_spool.c - copies of captures: what they outlive, what they may cost, and that nothing is left of them.
 * (Clones: t_archive.c, on a file system that has them.)
 */
#include "base/tpd.h"

#include <dirent.h>
#include <errno.h>

#include "archive/capture_internal.h"
#include "archive_help.h"
#include "fault_io.h"

#define ALL UINT64_MAX

static struct tpd_spool spool;
static struct tpd_capture *capture;

static void begin(void)
{
	archive_open(16, 0, 1);
	spool.io = tpd_io_posix();
	spool.dir = tpd_store_dir(tpd_archive_store(archive));
	atomic_store(&spool.used, 0);
	checkpoint_make(scratch("checkpoint-20"), 20, 7);
	checkpoint_make(scratch("kept"), 20, 7);
	OK(tpd_capture_open(scratch("checkpoint-20"), &capture, &err));
}

static void copy_all(void)
{
	bool more = true;

	OK(tpd_capture_copy_begin(capture, &spool, ALL, 0, &err));
	while (more)
		OK(tpd_capture_copy_step(capture, &more, &err));
}

static size_t names_in(const char *path)
{
	DIR *dir = opendir(path);
	size_t count = 0;

	ck_assert_ptr_nonnull(dir);
	while (readdir(dir))
		count++;
	closedir(dir);
	return count;
}

static void assert_stored(const struct tpd_capture *which)
{
	struct tpd_ingest_result result;

	OK(tpd_archive_ingest(archive, "run", 20, which, NULL, &result, NULL, &err));
	OK(restore("run@20", scratch("back")));
	ck_assert(file_equal(scratch("kept/optimizer.pt"), scratch("back/optimizer.pt")));
	ck_assert(file_equal(scratch("kept/model.safetensors"), scratch("back/model.safetensors")));
}

/* Over-written in place after the capture, before it is read: what was there is stored all the same, on any file system. */
START_TEST(copies_outlive_what_is_written_over)
{
	size_t names;

	begin();
	names = names_in(scratch("store"));
	copy_all();
	ck_assert_uint_eq(atomic_load(&spool.used), tpd_capture_bytes(capture));
	ck_assert_uint_eq(tpd_capture_copied(capture), 0); /* not yet: it is the original that is read */
	OK(tpd_capture_detach(capture, &err));
	ck_assert_uint_eq(tpd_capture_copied(capture), tpd_capture_bytes(capture));
	ck_assert_uint_eq(names_in(scratch("store")), names); /* whatever ends the process leaves nothing */
	checkpoint_make(scratch("checkpoint-20"), 20, 8);
	assert_stored(capture);
	tpd_capture_close(capture);
	ck_assert_uint_eq(atomic_load(&spool.used), 0);
}
END_TEST

/* Detach makes the steps that are left. */
START_TEST(detach_ends_a_copy)
{
	begin();
	OK(tpd_capture_copy_begin(capture, &spool, ALL, 0, &err));
	OK(tpd_capture_detach(capture, &err));
	checkpoint_make(scratch("checkpoint-20"), 20, 8);
	assert_stored(capture);
	tpd_capture_close(capture);
}
END_TEST

START_TEST(changed_before_the_end_is_void)
{
	bool more = true;

	begin();
	OK(tpd_capture_copy_begin(capture, &spool, ALL, 0, &err));
	OK(tpd_capture_copy_step(capture, &more, &err));
	file_flip(scratch("checkpoint-20/optimizer.pt"), 5000);
	ck_assert_int_eq(tpd_capture_detach(capture, &err), TPD_CONFLICT);
	tpd_capture_close(capture);
	ck_assert_uint_eq(atomic_load(&spool.used), 0);
	/* Shorter: told by the step, and again by detach. */
	OK(tpd_capture_open(scratch("checkpoint-20"), &capture, &err));
	OK(tpd_capture_copy_begin(capture, &spool, ALL, 0, &err));
	ck_assert_int_eq(truncate(scratch("checkpoint-20/model.safetensors"), 0), 0);
	while (tpd_capture_copy_step(capture, &more, &err) == TPD_OK)
		ck_assert(more);
	ck_assert_int_eq(err.status, TPD_CONFLICT);
	ck_assert_uint_eq(atomic_load(&spool.used), 0);
	ck_assert_int_eq(tpd_capture_detach(capture, &err), TPD_CONFLICT);
	tpd_capture_close(capture);
}
END_TEST

START_TEST(bounds)
{
	struct tpd_capture *second = NULL;
	uint64_t bytes;
	bool more;

	begin();
	bytes = tpd_capture_bytes(capture);
	ck_assert_int_eq(tpd_capture_copy_begin(capture, &spool, bytes - 1, 0, &err), TPD_LIMIT);
	ck_assert_int_eq(tpd_capture_copy_begin(capture, &spool, ALL, ALL, &err), TPD_LIMIT); /* low_space */
	ck_assert_ptr_nonnull(strstr(err.text, "free"));
	ck_assert_uint_eq(atomic_load(&spool.used), 0);
	OK(tpd_capture_copy_begin(capture, &spool, 2 * bytes - 1, 0, &err));
	ck_assert_int_eq(tpd_capture_copy_begin(capture, &spool, ALL, 0, &err), TPD_USAGE);
	OK(tpd_capture_open(scratch("kept"), &second, &err));
	ck_assert_int_eq(tpd_capture_copy_begin(second, &spool, 2 * bytes - 1, 0, &err), TPD_LIMIT); /* with the first */
	tpd_capture_close(capture);
	OK(tpd_capture_copy_begin(second, &spool, 2 * bytes - 1, 0, &err));
	OK(tpd_capture_copy_step(second, &more, &err));
	tpd_capture_close(second); /* in the middle of it */
	ck_assert_uint_eq(atomic_load(&spool.used), 0);
}
END_TEST

/* A disk that gets full, at each call: the copy is given up, and the capture is what it was. */
/* Room is asked for again before each step: a disk fills while GBs are copied. */
START_TEST(low_space_while_it_is_copied)
{
	bool more = true;

	begin();
	OK(tpd_capture_copy_begin(capture, &spool, UINT64_MAX, 0, &err));
	OK(tpd_capture_copy_step(capture, &more, &err));
	ck_assert(more);
	capture->copy.low_space = UINT64_MAX - tpd_capture_copy_left(capture);
	ck_assert_int_eq(tpd_capture_copy_step(capture, &more, &err), TPD_LIMIT);
	ck_assert(!more);
	ck_assert_uint_eq(atomic_load(&spool.used), 0);
	ck_assert_uint_eq(tpd_capture_copy_left(capture), 0);
	tpd_capture_close(capture);
}
END_TEST

START_TEST(full_disk)
{
	struct fault fault = {.sys = ENOSPC};
	struct tpd_io io = fault_io(&fault);
	bool failed = true;
	int calls = 0;

	begin();
	spool.io = &io;
	for (; failed; calls++) {
		bool more = true;

		fault = (struct fault){.fail_at = calls, .sys = ENOSPC};
		OK(tpd_capture_copy_begin(capture, &spool, ALL, 0, &err));
		failed = false;
		while (!failed && more)
			failed = tpd_capture_copy_step(capture, &more, &err) != TPD_OK;
		if (failed) {
			ck_assert_int_eq(err.status, TPD_IO);
			ck_assert_int_eq(err.sys, ENOSPC);
			ck_assert_uint_eq(atomic_load(&spool.used), 0);
			OK(tpd_capture_check(capture, &err));
		}
	}
	ck_assert_int_ge(calls, 6); /* three files, each opened and written */
	OK(tpd_capture_detach(capture, &err));
	assert_stored(capture);
	tpd_capture_close(capture);
}
END_TEST

START_TEST(originals_can_be_had_again)
{
	struct tpd_capture *plain;

	begin();
	ck_assert_ptr_null(tpd_capture_take_originals(capture));
	copy_all();
	OK(tpd_capture_detach(capture, &err));
	ck_assert(!tpd_capture_takes_room(capture, true));
	ck_assert_int_eq(unlink(scratch("checkpoint-20/optimizer.pt")), 0);
	ck_assert(tpd_capture_takes_room(capture, true));
	plain = tpd_capture_take_originals(capture);
	ck_assert_ptr_nonnull(plain);
	ck_assert_ptr_null(tpd_capture_take_originals(capture));
	ck_assert(!tpd_capture_takes_room(capture, false));
	ck_assert(tpd_capture_takes_room(plain, true));
	OK(tpd_capture_check(plain, &err));
	tpd_capture_close(capture);
	ck_assert_uint_eq(atomic_load(&spool.used), 0);
	assert_stored(plain);
	file_flip(scratch("checkpoint-20/model.safetensors"), 5000);
	ck_assert_int_eq(tpd_capture_check(plain, &err), TPD_CONFLICT);
	tpd_capture_close(plain);
}
END_TEST

/* The place of a checkpoint is the same when it is written over in place, and another when it was replaced. */
START_TEST(places)
{
	char before[TPD_FINGERPRINT_LEN], after[TPD_FINGERPRINT_LEN];
	struct tpd_capture *first = NULL, *second = NULL;
	uint64_t places_seen[8];

	file_write(scratch("last.ckpt"), "one", 3);
	OK(tpd_capture_open(scratch("last.ckpt"), &first, &err));
	file_write(scratch("last.ckpt"), "three", 5);
	OK(tpd_capture_open(scratch("last.ckpt"), &second, &err));
	tpd_capture_fingerprint(first, before);
	tpd_capture_fingerprint(second, after);
	ck_assert_uint_eq(tpd_capture_place(first), tpd_capture_place(second));
	ck_assert_str_ne(before, after);
	tpd_capture_close(second);
	file_write(scratch("new"), "three", 5);
	ck_assert_int_eq(rename(scratch("new"), scratch("last.ckpt")), 0);
	OK(tpd_capture_open(scratch("last.ckpt"), &second, &err));
	ck_assert_uint_ne(tpd_capture_place(first), tpd_capture_place(second));
	for (unsigned i = 0; i < 8; i++) { /* the number of an inode comes again; its birth does not */
		tpd_capture_close(first);
		first = second;
		file_write(scratch("new"), "three", 5);
		ck_assert_int_eq(rename(scratch("new"), scratch("last.ckpt")), 0);
		OK(tpd_capture_open(scratch("last.ckpt"), &second, &err));
		ck_assert_uint_ne(tpd_capture_place(first), tpd_capture_place(second));
		for (unsigned j = 0; j < i; j++)
			ck_assert_uint_ne(places_seen[j], tpd_capture_place(second));
		places_seen[i] = tpd_capture_place(second);
	}
	tpd_capture_close(first);
	tpd_capture_close(second);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		copies_outlive_what_is_written_over,
		detach_ends_a_copy,
		changed_before_the_end_is_void,
		bounds,
		low_space_while_it_is_copied,
		full_disk,
		originals_can_be_had_again,
		places,
	};

	return run_tests("capture_spool", tests, TPD_ARRAY_LEN(tests));
}
