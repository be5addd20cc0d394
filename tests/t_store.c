/*
 * t_store.c - the store directory: locks, refs, objects, unfinished checkpoints. Opening it is in t_store_open.c, crashes in
 * t_store_crash.c.
 */
#include "base/tpd.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store_help.h"

/* --- locks --- */

START_TEST(locks_exclude)
{
	struct tpd_store *a = open_store(TPD_STORE_CREATE), *b = open_store(TPD_STORE_WRITE), *c = NULL;
	struct tpd_run_lock *run_a, *run_b = NULL;
	char want[200];
	int gc;

	ck_assert_int_eq(tpd_store_lock_daemon(a, &err), TPD_OK);
	ck_assert_int_eq(tpd_store_lock_daemon(a, &err), TPD_OK);
	ck_assert_int_eq(tpd_store_lock_daemon(b, &err), TPD_BUSY);
	snprintf(want, sizeof(want), "another tpded already serves store '%s'", path);
	ck_assert_str_eq(err.text, want);

	run_a = lock_run(a, RUN);
	ck_assert_int_eq(tpd_store_run_lock(b, RUN, 0, &run_b, &err), TPD_BUSY);
	ck_assert_str_eq(err.text, "another process is writing to run '" RUN "'");
	ck_assert_int_eq(tpd_store_run_lock(a, RUN, 20, &run_b, &err), TPD_BUSY); /* another thread's, too */
	run_b = lock_run(b, "other");
	tpd_store_run_unlock(run_b);
	tpd_store_run_unlock(run_a);
	run_b = lock_run(b, RUN);
	ck_assert_ptr_eq(tpd_run_lock_store(run_b), b);
	tpd_store_run_unlock(run_b);

	/* Whoever unlinks waits for handles that are open, and they for it. */
	gc = io->open(io, dir, "s/lock", O_RDWR, 0);
	ck_assert_int_eq(io->lock(io, gc, TPD_LOCK_EXCLUSIVE, 0, 0), -EAGAIN);
	tpd_store_close(a);
	ck_assert_int_eq(tpd_store_lock_daemon(b, &err), TPD_OK); /* free since the close */
	tpd_store_close(b);
	ck_assert_int_eq(io->lock(io, gc, TPD_LOCK_EXCLUSIVE, 0, 0), 0);
	ck_assert_int_eq(tpd_store_open(io, path, TPD_STORE_READ, 20, &c, &err), TPD_BUSY);
	ck_assert_ptr_nonnull(strstr(err.text, "is being cleaned up by another process"));
	io->close(io, gc);
	tpd_store_close(open_store(TPD_STORE_READ));
}
END_TEST

START_TEST(run_names)
{
	static const char *const bad[] = {"", "/a", "a//b", ".hidden", "a@1", "a~2", "a\nb", "a\xff"};
	struct tpd_store *store = open_store(TPD_STORE_CREATE);
	struct tpd_run_lock *lock = NULL;
	struct tpd_run run;
	char name[201], **names = NULL;
	size_t count = 99;

	ck_assert_int_eq(tpd_store_runs(store, &names, &count, &err), TPD_OK);
	ck_assert_uint_eq(count, 0);
	free(names);
	for (size_t i = 0; i < TPD_ARRAY_LEN(bad); i++)
		ck_assert_int_eq(tpd_store_run_lock(store, bad[i], 0, &lock, &err), TPD_USAGE);
	ck_assert_int_eq(tpd_store_run_read(store, "none", &run, &err), TPD_NOT_FOUND);
	ck_assert_ptr_nonnull(strstr(err.text, "there is no run 'none'"));
	ck_assert_int_eq(tpd_store_run_read(store, "../format", &run, &err), TPD_NOT_FOUND);
	memset(name, 'x', 200); /* the longest plain one */
	name[200] = 0;
	tpd_store_run_unlock(lock_run(store, name));
	memset(name, ' ', 200); /* three bytes each */
	ck_assert_int_eq(tpd_store_run_lock(store, name, 0, &lock, &err), TPD_LIMIT);
	ck_assert_int_eq(tpd_store_run_read(store, name, &run, &err), TPD_NOT_FOUND);
	tpd_store_run_unlock(lock_run(store, RUN));
	tpd_store_run_unlock(lock_run(store, "100%\xc3\xa4"));
	ck_assert(exists(RUN_FILE) && exists("refs/100%25%C3%A4"));
	put("refs/.tmp-4-5", "x", 1); /* not runs */
	put("refs/a%2f", "x", 1);
	put("refs/a%2", "x", 1);
	ck_assert_int_eq(tpd_store_runs(store, &names, &count, &err), TPD_OK);
	ck_assert_uint_eq(count, 3);
	ck_assert_str_eq(names[0], "100%\xc3\xa4");
	ck_assert_str_eq(names[1], RUN);
	ck_assert_uint_eq(strlen(names[2]), 200);
	while (count > 0)
		free(names[--count]);
	free(names);
	tpd_store_close(store);
}
END_TEST

/* --- refs --- */

static enum tpd_status read_refs(const struct tpd_buf *refs, struct tpd_run *out)
{
	struct tpd_store *store = open_store(TPD_STORE_WRITE);
	enum tpd_status status;

	put(RUN_FILE, refs->data, refs->len);
	status = tpd_store_run_read(store, RUN, out, &err);
	tpd_store_close(store);
	return status;
}

/* Status alone; *out_count versions. */
static enum tpd_status refs_verdict(const struct tpd_buf *refs, size_t *out_count)
{
	struct tpd_run run = {0};
	enum tpd_status status = read_refs(refs, &run);

	*out_count = run.count;
	tpd_run_release(&run);
	return status;
}

START_TEST(refs_are_read)
{
	struct tpd_buf refs = honest_refs();
	struct tpd_run run = {0};
	uint8_t id[32];

	tpd_store_close(open_store(TPD_STORE_CREATE));
	put_version(&refs, 20, 2, 0xa3);
	memset(id, 0xa2, sizeof(id));
	put_record(&refs, 3, id, sizeof(id));
	put_record(&refs, 100, "whatever", 8); /* a later version's, to be skipped */
	put_record(&refs, 0, NULL, 0);
	put_version(&refs, 30, 1, 0xa2); /* stored again: not forgotten */
	ck_assert_int_eq(read_refs(&refs, &run), TPD_OK);
	ck_assert_str_eq(run.name, RUN);
	ck_assert_uint_eq(run.valid_bytes, refs.len);
	ck_assert_uint_eq(run.count, 4);
	ck_assert_uint_eq(run.versions[0].step, 10);
	ck_assert_uint_eq(run.versions[0].id.bytes[31], 0xa1);
	ck_assert_int_eq(run.versions[0].time_ns, 77);
	ck_assert(!run.versions[0].forgotten && run.versions[1].forgotten);
	ck_assert(!run.versions[2].forgotten && !run.versions[3].forgotten);
	ck_assert_uint_eq(run.versions[2].version, 2);
	tpd_run_release(&run);
	tpd_buf_release(&refs);
}
END_TEST

START_TEST(torn_tails_are_ignored_and_cut)
{
	struct tpd_buf refs = honest_refs();
	size_t first = first_record(&refs), second = first + (refs.len - first) / 2, count;
	struct tpd_store *store;
	struct tpd_run_lock *lock;
	struct tpd_run run = {0};
	struct tpd_id id = {{1}};
	uint32_t version = 0;

	tpd_store_close(open_store(TPD_STORE_CREATE));
	for (size_t len = 0; len <= refs.len; len++) {
		struct tpd_buf torn = {.data = refs.data, .len = len};

		ck_assert_int_eq(refs_verdict(&torn, &count), TPD_OK);
		ck_assert_uint_eq(count, len == refs.len ? 2 : len >= second ? 1 : 0);
	}
	/* Of the first record nothing but itself or zeros: no crash leaves anything else of a file that is new. */
	for (size_t i = 0; i < first; i++) {
		struct tpd_buf torn = {.data = refs.data, .len = first};
		uint8_t was = refs.data[i];

		refs.data[i] = 0;
		ck_assert_int_eq(refs_verdict(&torn, &count), TPD_OK);
		ck_assert_uint_eq(count, 0);
		refs.data[i] = was ^ 0x04;
		ck_assert_int_eq(refs_verdict(&torn, &count), was == 4 ? TPD_OK : TPD_CORRUPT);
		refs.data[i] = was;
	}
	/* As long as it should be, with other bytes in it: what a power loss makes of it. */
	memset(refs.data + second, 0, refs.len - second);
	ck_assert_int_eq(refs_verdict(&refs, &count), TPD_OK);
	ck_assert_uint_eq(count, 1);

	store = open_store(TPD_STORE_WRITE);
	lock = lock_run(store, RUN);
	{
		struct tpd_buf cut = get(RUN_FILE);

		ck_assert_uint_eq(cut.len, second);
		tpd_buf_release(&cut);
	}
	ck_assert_int_eq(tpd_store_add_version(lock, 10, &id, 5, &version, &err), TPD_OK);
	ck_assert_uint_eq(version, 2);
	tpd_store_run_unlock(lock);
	ck_assert_int_eq(tpd_store_run_read(store, RUN, &run, &err), TPD_OK);
	ck_assert_uint_eq(run.count, 2);
	ck_assert(tpd_id_equal(&run.versions[1].id, &id));
	tpd_run_release(&run);

	/* Not even the first record: the run begins again. */
	put(RUN_FILE, refs.data, first - 1);
	lock = lock_run(store, RUN);
	ck_assert_int_eq(tpd_store_add_version(lock, 10, &id, 5, &version, &err), TPD_OK);
	ck_assert_uint_eq(version, 1);
	tpd_store_run_unlock(lock);
	tpd_store_close(store);
	tpd_buf_release(&refs);
}
END_TEST

START_TEST(damage_in_the_middle_is_corrupt)
{
	struct tpd_buf refs = honest_refs();
	size_t first = first_record(&refs), second = first + (refs.len - first) / 2, count;
	struct tpd_run_lock *lock = NULL;
	struct tpd_store *store;

	tpd_store_close(open_store(TPD_STORE_CREATE));
	for (size_t i = 0; i < second; i++) {
		refs.data[i] ^= 0x04;
		ck_assert_int_eq(refs_verdict(&refs, &count), TPD_CORRUPT);
		refs.data[i] ^= 0x04;
	}
	refs.data[first + 8] ^= 1;
	put(RUN_FILE, refs.data, refs.len);
	store = open_store(TPD_STORE_WRITE);
	ck_assert_int_eq(tpd_store_run_lock(store, RUN, 0, &lock, &err), TPD_CORRUPT);
	ck_assert_ptr_nonnull(strstr(err.text, "/" RUN_FILE "': the record at byte "));
	{
		struct tpd_buf same = get(RUN_FILE); /* nothing was cut */

		ck_assert_uint_eq(same.len, refs.len);
		tpd_buf_release(&same);
	}
	tpd_store_run_unlock(lock_run(store, "other")); /* other runs go on */
	tpd_store_close(store);
	tpd_buf_release(&refs);
}
END_TEST

START_TEST(records_that_are_wrong)
{
	struct tpd_buf refs = {0}, body = {0};
	size_t count;

	tpd_store_close(open_store(TPD_STORE_CREATE));
	put_version(&refs, 1, 1, 1); /* no run record */
	ck_assert_int_eq(refs_verdict(&refs, &count), TPD_CORRUPT);
	tpd_buf_release(&refs);
	put_run(&refs, "another");
	ck_assert_int_eq(refs_verdict(&refs, &count), TPD_CORRUPT);
	tpd_buf_release(&refs);
	refs = honest_refs();
	put_run(&refs, RUN);
	ck_assert_int_eq(refs_verdict(&refs, &count), TPD_CORRUPT);
	tpd_buf_release(&refs);
	refs = honest_refs();
	put_record(&refs, 128, "x", 1);
	ck_assert_int_eq(refs_verdict(&refs, &count), TPD_UNSUPPORTED);
	tpd_buf_release(&refs);
	refs = honest_refs();
	put_version(&refs, 1, 0, 1);
	ck_assert_int_eq(refs_verdict(&refs, &count), TPD_CORRUPT);
	tpd_buf_release(&refs);
	refs = honest_refs();
	put_record(&refs, 3, refs.data, 31); /* an id too short */
	ck_assert_int_eq(refs_verdict(&refs, &count), TPD_CORRUPT);
	tpd_buf_release(&refs);
	refs = honest_refs();
	for (int i = 0; i < 50; i++)
		tpd_buf_u8(&body, 1);
	put_record(&refs, 2, body.data, body.len); /* bytes left over */
	ck_assert_int_eq(refs_verdict(&refs, &count), TPD_CORRUPT);
	tpd_buf_release(&refs);
	tpd_buf_release(&body);
}
END_TEST

START_TEST(refs_of_the_largest_records)
{
	struct tpd_buf refs = honest_refs(), body = {0};
	size_t count;

	tpd_store_close(open_store(TPD_STORE_CREATE));
	for (int i = 0; i < 65535; i++)
		tpd_buf_u8(&body, 9);
	put_record(&refs, 99, body.data, body.len);
	put_version(&refs, 40, 1, 1);
	ck_assert_int_eq(refs_verdict(&refs, &count), TPD_OK);
	ck_assert_uint_eq(count, 3);
	tpd_buf_release(&refs);
	refs = honest_refs();
	tpd_buf_u8(&body, 9);
	put_record(&refs, 99, body.data, body.len); /* one byte more */
	put_version(&refs, 40, 1, 1);
	ck_assert_int_eq(refs_verdict(&refs, &count), TPD_CORRUPT);
	tpd_buf_release(&refs);
	tpd_buf_release(&body);
}
END_TEST

/* --- objects --- */

struct seen {
	struct tpd_id ids[8];
	size_t count;
};

static enum tpd_status see(void *arg, const struct tpd_id *id, struct tpd_err *error)
{
	struct seen *seen = arg;

	if (seen->count == TPD_ARRAY_LEN(seen->ids))
		return tpd_fail(error, TPD_LIMIT, "enough");
	seen->ids[seen->count++] = *id;
	return TPD_OK;
}

START_TEST(published_and_found)
{
	struct tpd_store *store = open_store(TPD_STORE_CREATE);
	struct tpd_run_lock *lock = lock_run(store, RUN);
	struct tpd_id a = must_store(lock, RUN, 10, 1, 1), b = must_store(lock, RUN, 20, 2, 1);
	struct tpd_id none = {{0xab}};
	struct tpd_manifest m = {0};
	struct tpd_run run = {0};
	struct seen seen = {.count = 0};
	struct tpd_part *part = NULL;
	char name[128];
	uint64_t bytes = 0;
	struct stat st;
	int at = -1;

	ck_assert(!tpd_id_equal(&a, &b));
	must_store(lock, RUN, 10, 3, 2); /* the same step, other content */
	ck_assert(tpd_store_has(store, &a) && tpd_store_has(store, &b) && !tpd_store_has(store, &none));
	ck_assert_int_eq(tpd_store_manifest(store, &none, &m, &err), TPD_NOT_FOUND);
	ck_assert_ptr_nonnull(strstr(err.text, "there is no checkpoint ab00000000000000 in store"));
	ck_assert_int_eq(tpd_store_object_dir(store, &none, &at, &err), TPD_NOT_FOUND);
	ck_assert_int_eq(tpd_store_object_bytes(store, &none, &bytes, &err), TPD_NOT_FOUND);
	ck_assert_int_eq(tpd_store_manifest(store, &a, &m, &err), TPD_OK);
	ck_assert_uint_eq(m.step, 10);
	tpd_manifest_release(&m);
	ck_assert_int_eq(tpd_store_object_dir(store, &a, &at, &err), TPD_OK);
	ck_assert_int_eq(tpd_part_open(io, at, 0, 0, &part, &err), TPD_OK);
	ck_assert_int_eq(tpd_store_object_bytes(store, &a, &bytes, &err), TPD_OK);
	ck_assert_int_eq(io->stat(io, at, "manifest", &st), 0);
	ck_assert_uint_eq(bytes, (uint64_t)st.st_size + tpd_part_bytes(part));
	tpd_part_close(part);
	io->close(io, at);
	object_name(&a, 0, name);
	ck_assert_uint_eq(entries_in(name), 2); /* nothing but manifest and part */
	ck_assert_uint_eq(entries_in("ingest"), 0);
	ck_assert_int_eq(tpd_store_each(store, see, &seen, &err), TPD_OK);
	ck_assert_uint_eq(seen.count, 3);
	seen.count = 6;
	ck_assert_int_eq(tpd_store_each(store, see, &seen, &err), TPD_LIMIT);
	ck_assert_str_eq(err.text, "enough");
	ck_assert_int_eq(tpd_store_run_read(store, RUN, &run, &err), TPD_OK);
	ck_assert_uint_eq(run.count, 3);
	ck_assert_uint_eq(run.versions[2].version, 2);
	ck_assert_int_eq(run.versions[1].time_ns, 1020);
	tpd_run_release(&run);
	tpd_store_run_unlock(lock);
	tpd_store_close(store);
}
END_TEST

START_TEST(published_twice)
{
	struct tpd_store *store = open_store(TPD_STORE_CREATE);
	struct tpd_run_lock *lock = lock_run(store, RUN);
	struct tpd_id a = must_store(lock, RUN, 10, 1, 1), b = must_store(lock, RUN, 10, 1, 1);
	struct tpd_run run = {0};

	ck_assert(tpd_id_equal(&a, &b));
	ck_assert_uint_eq(entries_in("ingest"), 0);
	ck_assert_int_eq(tpd_store_run_read(store, RUN, &run, &err), TPD_OK);
	ck_assert_uint_eq(run.count, 1);
	tpd_run_release(&run);
	tpd_store_run_unlock(lock);
	tpd_store_close(store);
}
END_TEST

/* The same files at the same step of another run are another checkpoint; and one's lock does not serve the other. */
START_TEST(runs_do_not_mix)
{
	struct tpd_store *store = open_store(TPD_STORE_CREATE);
	struct tpd_run_lock *lock = lock_run(store, RUN), *other = lock_run(store, "other");
	struct tpd_id a = must_store(lock, RUN, 10, 1, 1), b = must_store(other, "other", 10, 1, 1), id;
	uint32_t version;

	ck_assert(!tpd_id_equal(&a, &b));
	ck_assert_int_eq(store_one(lock, "other", 20, 1, &id, &version), TPD_USAGE);
	tpd_store_run_unlock(lock);
	tpd_store_run_unlock(other);
	tpd_store_close(store);
}
END_TEST

/* Another generation serves while one is damaged; publishing again makes one. */
START_TEST(generations)
{
	struct tpd_store *store = open_store(TPD_STORE_CREATE);
	struct tpd_run_lock *lock = lock_run(store, RUN);
	struct tpd_id id = must_store(lock, RUN, 10, 1, 1);
	struct tpd_manifest m = {0};
	struct tpd_buf manifest;
	struct seen seen = {.count = 0};
	char name[128], file[160];
	int at = -1;

	object_name(&id, 0, name);
	snprintf(file, sizeof(file), "%s/manifest", name);
	manifest = get(file);
	manifest.data[20] ^= 1;
	put(file, manifest.data, manifest.len);
	ck_assert(!tpd_store_has(store, &id));
	ck_assert_int_eq(tpd_store_manifest(store, &id, &m, &err), TPD_CORRUPT);
	ck_assert_ptr_nonnull(strstr(err.text, file));
	must_store(lock, RUN, 10, 1, 1);
	object_name(&id, 1, name);
	ck_assert(exists(name) && tpd_store_has(store, &id));
	ck_assert_int_eq(tpd_store_each(store, see, &seen, &err), TPD_OK);
	ck_assert_uint_eq(seen.count, 1);
	ck_assert_int_eq(tpd_store_object_dir(store, &id, &at, &err), TPD_OK);
	ck_assert_int_eq(io->unlink(io, at, "manifest"), 0); /* now 1 is no checkpoint either */
	io->close(io, at);
	ck_assert(!exists("objects/x") && !tpd_store_has(store, &id));
	manifest.data[20] ^= 1;
	put(file, manifest.data, manifest.len);
	ck_assert(tpd_store_has(store, &id));
	ck_assert_int_eq(tpd_store_object_dir(store, &id, &at, &err), TPD_OK);
	{
		struct stat st;

		ck_assert_int_eq(io->stat(io, at, "manifest", &st), 0); /* 0, not 1 */
	}
	io->close(io, at);
	tpd_buf_release(&manifest);
	tpd_store_run_unlock(lock);
	tpd_store_close(store);
}
END_TEST

START_TEST(a_manifest_under_another_id)
{
	struct tpd_store *store = open_store(TPD_STORE_CREATE);
	struct tpd_run_lock *lock = lock_run(store, RUN);
	struct tpd_id a = must_store(lock, RUN, 10, 1, 1), wrong = {{0x12, 0x34}};
	char from[128], to[128];
	struct tpd_manifest m = {0};

	object_name(&a, 0, from);
	object_name(&wrong, 0, to);
	ck_assert_int_eq(tpd_io_mkdirs(io, dir, "s/objects/12", NULL), TPD_OK);
	ck_assert_int_eq(io->rename(io, dir, inside(from), dir, inside(to), false), 0);
	ck_assert_int_eq(tpd_store_manifest(store, &wrong, &m, &err), TPD_CORRUPT);
	ck_assert_int_eq(tpd_store_manifest(store, &a, &m, &err), TPD_NOT_FOUND);
	tpd_store_run_unlock(lock);
	tpd_store_close(store);
}
END_TEST

/* --- ingests --- */

START_TEST(begin_is_kept)
{
	struct tpd_store *store = open_store(TPD_STORE_CREATE);
	struct tpd_run_lock *lock = lock_run(store, RUN);
	struct tpd_begin first = {.has_ref = true, .ref = {{1, 2}}, .has_w1 = true, .w1 = {{3}},
				  .part_size = 12345}, got = {0};
	struct tpd_buf bytes;
	bool resumed = true, found = true;
	int at = -1;

	ck_assert_int_eq(tpd_store_ingest_peek(lock, 30, &found, &got, &err), TPD_OK);
	ck_assert(!found);
	ck_assert_int_eq(tpd_store_ingest_open(lock, 30, &first, &got, &resumed, &at, &err), TPD_OK);
	ck_assert(!resumed && got.part_size == 12345);
	ck_assert_int_eq(tpd_io_publish(io, at, "f00000.p00000", "part", 4, true, NULL), TPD_OK);
	ck_assert_int_eq(tpd_io_publish(io, at, "manifest", "stale", 5, true, NULL), TPD_OK);
	io->close(io, at);
	tpd_store_run_unlock(lock);
	lock = lock_run(store, RUN); /* a manifest that is none hinders nobody */
	ck_assert_int_eq(tpd_store_ingest_peek(lock, 30, &found, &got, &err), TPD_OK);
	ck_assert(found && got.has_ref && got.has_w1 && tpd_id_equal(&got.ref, &first.ref) && tpd_id_equal(&got.w1,
													   &first.w1));
	ck_assert_int_eq(tpd_store_ingest_peek(lock, 31, &found, &got, &err), TPD_OK);
	ck_assert(!found);
	got = (struct tpd_begin){0};
	ck_assert_int_eq(tpd_store_ingest_open(lock, 30, &begin, &got, &resumed, &at, &err), TPD_OK);
	ck_assert(resumed && got.part_size == 12345 && got.has_ref && tpd_id_equal(&got.ref, &first.ref));
	io->close(io, at);
	ck_assert(exists("ingest/sweep%2Flr3@30/f00000.p00000") && !exists("ingest/sweep%2Flr3@30/manifest"));

	/* Any byte of begin changed, or any missing: everything anew. */
	bytes = get("ingest/sweep%2Flr3@30/begin");
	for (size_t i = 0; i < bytes.len; i += 5) {
		bytes.data[i] ^= 0x20;
		put("ingest/sweep%2Flr3@30/begin", bytes.data, bytes.len);
		bytes.data[i] ^= 0x20;
		ck_assert_int_eq(tpd_store_ingest_peek(lock, 30, &found, &got, &err), TPD_OK);
		ck_assert(!found);
		put("ingest/sweep%2Flr3@30/begin", bytes.data, i);
		ck_assert_int_eq(tpd_store_ingest_peek(lock, 30, &found, &got, &err), TPD_OK);
		ck_assert(!found);
	}
	ck_assert_int_eq(tpd_store_ingest_open(lock, 30, &begin, &got, &resumed, &at, &err), TPD_OK);
	ck_assert(!resumed && !got.has_ref && got.part_size == begin.part_size);
	io->close(io, at);
	ck_assert(!exists("ingest/sweep%2Flr3@30/f00000.p00000"));

	/* Another step's begin is not this one's. */
	put("ingest/sweep%2Flr3@30/begin", bytes.data, bytes.len);
	ck_assert_int_eq(io->rename(io, dir, "s/ingest/sweep%2Flr3@30", dir, "s/ingest/sweep%2Flr3@40", false), 0);
	ck_assert_int_eq(tpd_store_ingest_peek(lock, 40, &found, &got, &err), TPD_OK);
	ck_assert(!found);
	ck_assert_int_eq(tpd_store_ingest_discard(lock, 40, &err), TPD_OK);
	ck_assert_int_eq(tpd_store_ingest_discard(lock, 40, &err), TPD_OK);
	ck_assert_uint_eq(entries_in("ingest"), 0);
	tpd_buf_release(&bytes);
	tpd_store_run_unlock(lock);
	tpd_store_close(store);
}
END_TEST

/* Parts that an earlier try left and the manifest does not name do not get into the object; missing ones stop it. */
START_TEST(only_what_is_named)
{
	struct tpd_store *store = open_store(TPD_STORE_CREATE);
	struct tpd_run_lock *lock = lock_run(store, RUN);
	struct tpd_manifest m = {0};
	uint32_t version = 0;
	char name[128];

	ck_assert_int_eq(make_unfinished(lock, RUN, 10, 1, &m), TPD_OK);
	put("ingest/sweep%2Flr3@10/f00000.p00001", "old", 3);
	put("ingest/sweep%2Flr3@10/f00003.p00000.tmp", "old", 3);
	ck_assert_int_eq(tpd_store_publish(lock, &m, &version, &err), TPD_OK);
	object_name(&m.id, 0, name);
	ck_assert_uint_eq(entries_in(name), 2);
	tpd_manifest_release(&m);

	ck_assert_int_eq(make_unfinished(lock, RUN, 20, 1, &m), TPD_OK);
	m.entries[0].parts[0].trailer_digest[0] ^= 1;
	ck_assert_int_eq(tpd_store_publish(lock, &m, &version, &err), TPD_CORRUPT);
	m.entries[0].parts[0].trailer_digest[0] ^= 1;
	ck_assert_int_eq(io->unlink(io, dir, "s/ingest/sweep%2Flr3@20/f00000.p00000"), 0);
	ck_assert_int_eq(tpd_store_publish(lock, &m, &version, &err), TPD_CORRUPT);
	ck_assert(!tpd_store_has(store, &m.id));
	tpd_manifest_release(&m);
	tpd_store_run_unlock(lock);
	tpd_store_close(store);
}
END_TEST

/* Somebody must be able to see what room they take. */
START_TEST(unfinished_ones_are_told)
{
	struct tpd_store *store = open_store(TPD_STORE_CREATE);
	struct tpd_run_lock *lock = lock_run(store, RUN);
	struct tpd_manifest m = {0};
	struct tpd_unfinished *items = NULL;
	size_t count = 9;

	ck_assert_int_eq(tpd_store_unfinished(store, &items, &count, &err), TPD_OK);
	ck_assert_uint_eq(count, 0);
	free(items);
	ck_assert_int_eq(make_unfinished(lock, RUN, 20, 1, &m), TPD_OK);
	tpd_manifest_release(&m);
	ck_assert_int_eq(make_unfinished(lock, RUN, 9, 1, &m), TPD_OK);
	put("ingest/stray", "not ours", 8);
	ck_assert_int_eq(tpd_store_unfinished(store, &items, &count, &err), TPD_OK);
	ck_assert_uint_eq(count, 2);
	ck_assert_str_eq(items[0].run, RUN);
	ck_assert(items[0].step == 9 && items[1].step == 20);
	ck_assert_uint_gt(items[0].bytes, tpd_manifest_stored(&m)); /* its part, and begin */
	for (size_t i = 0; i < count; i++)
		free(items[i].run);
	free(items);
	tpd_manifest_release(&m);
	tpd_store_run_unlock(lock);
	tpd_store_close(store);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("store");
	TCase *tests = tcase_create("store");
	SRunner *runner = srunner_create(suite);
	int failed;

	suite_add_tcase(suite, tests);
	tcase_add_checked_fixture(tests, set_up, tear_down);
	tcase_set_timeout(tests, 300);
	tcase_add_test(tests, locks_exclude);
	tcase_add_test(tests, run_names);
	tcase_add_test(tests, refs_are_read);
	tcase_add_test(tests, torn_tails_are_ignored_and_cut);
	tcase_add_test(tests, damage_in_the_middle_is_corrupt);
	tcase_add_test(tests, records_that_are_wrong);
	tcase_add_test(tests, refs_of_the_largest_records);
	tcase_add_test(tests, published_and_found);
	tcase_add_test(tests, published_twice);
	tcase_add_test(tests, runs_do_not_mix);
	tcase_add_test(tests, generations);
	tcase_add_test(tests, a_manifest_under_another_id);
	tcase_add_test(tests, begin_is_kept);
	tcase_add_test(tests, only_what_is_named);
	tcase_add_test(tests, unfinished_ones_are_told);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
