/*
 * t_archive_mend.c - what is damaged or lost, in store or catalog: found, told of, and made again as far as it can be.
 */
#include "base/tpd.h"

#include "archive_help.h"

#include <errno.h>

#include "base/io_count.h"

START_TEST(damage_is_found_where_it_is)
{
	struct tpd_archive_name base, delta;
	struct stat st;
	uint8_t *bytes;
	size_t len;
	char path[600];

	archive_open(16, 0, 2);
	ingest_step(10);
	ingest_step(20);
	base = resolve("run@10");
	delta = resolve("run@20");
	snprintf(path, sizeof(path), "%s", part_path("run@10", 0, 0));
	bytes = file_read(path, &len);
	ck_assert_int_eq(rename(scratch("checkpoint-10"), scratch("moved-10")), 0);
	OK(tpd_archive_verify(archive, &delta.id, NULL, &err));
	ck_assert_int_eq(chmod(path, 0644), 0);
	for (uint64_t at = 0; at < len; at += len / 13) {
		file_flip(path, at);
		ck_assert_int_eq(tpd_archive_verify(archive, &base.id, NULL, &err), TPD_CORRUPT);
		ck_assert_int_eq(tpd_archive_restore(archive, &base.id, scratch("bad"), NULL, false, NULL, &err), TPD_CORRUPT);
		ck_assert(!file_exists(scratch("bad/model.safetensors")));
		file_flip(path, at);
	}
	OK(tpd_archive_verify(archive, &base.id, NULL, &err));
	ck_assert_int_eq(truncate(path, (off_t)len - 1), 0);
	ck_assert_int_eq(tpd_archive_verify(archive, &base.id, NULL, &err), TPD_CORRUPT);
	ck_assert_int_eq(tpd_archive_verify(archive, &delta.id, NULL, &err), TPD_CORRUPT);
	ck_assert_int_eq(unlink(path), 0);
	ck_assert_int_eq(tpd_archive_verify(archive, &base.id, NULL, &err), TPD_CORRUPT);
	file_write(path, bytes, len);
	free(bytes);
	OK(tpd_archive_verify(archive, &delta.id, NULL, &err));
	/* A manifest that was exchanged for another checkpoint's. */
	{
		char hex[TPD_ID_HEX], other[TPD_ID_HEX];

		tpd_id_hex(&base.id, hex);
		tpd_id_hex(&delta.id, other);
		bytes = file_read(scratch("store/objects/%.2s/%s.0/manifest", other, other), &len);
		ck_assert_int_eq(unlink(scratch("store/objects/%.2s/%s.0/manifest", hex, hex)), 0);
		file_write(scratch("store/objects/%.2s/%s.0/manifest", hex, hex), bytes, len);
		free(bytes);
		ck_assert_int_eq(tpd_archive_verify(archive, &base.id, NULL, &err), TPD_CORRUPT);
	}
	ck_assert_int_eq(stat(path, &st), 0);
}
END_TEST

/* The newest source is what people still have: stored again, it is whole without what is damaged below it. */
START_TEST(damage_below_is_mended_from_above)
{
	struct tpd_ingest_result result;
	struct tpd_archive_name which;

	archive_open(16, 0, 2);
	for (uint64_t step = 10; step <= 40; step += 10)
		ingest_step(step);
	ck_assert_uint_eq(depth_of("run@40"), 3);
	ck_assert_int_eq(chmod(part_path("run@20", 0, 0), 0644), 0);
	file_flip(part_path("run@20", 0, 0), 5000);
	for (uint64_t step = 10; step <= 30; step += 10)
		rename(scratch("checkpoint-%d", (int)step), scratch("moved-%d", (int)step));
	which = resolve("run@30");
	ck_assert_int_eq(tpd_archive_verify(archive, &which.id, NULL, &err), TPD_CORRUPT);
	OK(ingest(scratch("checkpoint-40"), "run", 40, &result));
	ck_assert(!result.existed);
	ck_assert_uint_eq(result.version, 1);
	rename(scratch("checkpoint-40"), scratch("moved-40"));
	which = resolve("run@40");
	OK(tpd_archive_verify(archive, &which.id, NULL, &err));
	assert_restores("run@40", scratch("moved-40"));
	which = resolve("run@30");
	ck_assert_int_eq(tpd_archive_verify(archive, &which.id, NULL, &err), TPD_CORRUPT);
	which = resolve("run@10");
	OK(tpd_archive_verify(archive, &which.id, NULL, &err));
	/* And then it is stored already. */
	OK(ingest(scratch("moved-40"), "run", 40, &result));
	ck_assert(result.existed);
}
END_TEST

START_TEST(catalog_comes_back)
{
	struct tpd_archive_rebuilt built = {0};
	unsigned rows = 0;

	archive_open(16, 0, 1);
	ingest_step(10);
	ingest_step(20);
	archive_close();
	ck_assert_int_eq(unlink(scratch("store/catalog.sqlite")), 0);
	archive_open(16, 0, 1); /* opening for writing puts in what is missing */
	OK(tpd_catalog_list(tpd_archive_catalog(archive), "run", count_row, &rows, &err));
	ck_assert_uint_eq(rows, 2);
	OK(tpd_archive_rebuild(archive, NULL, &built, &err));
	ck_assert_uint_eq(built.done, 2);
	ck_assert_uint_eq(built.failed, 0);
	rows = 0;
	OK(tpd_catalog_list(tpd_archive_catalog(archive), NULL, count_row, &rows, &err));
	ck_assert_uint_eq(rows, 2);
}
END_TEST

/* What is stored is stored, whatever the catalog says; the next opening records it. */
START_TEST(stored_without_a_row)
{
	struct tpd_archive_options options = {
		.store = scratch("store"), .mode = TPD_ARCHIVE_CREATE, .threads = 1, .max_depth = 16, .lock_timeout_ms = 50,
	};
	struct tpd_capture *capture = NULL;
	struct tpd_ingest_result result;
	struct tpd_catalog *other = NULL;
	struct tpd_err unrecorded = {0};
	unsigned rows = 0;

	OK(tpd_archive_open(&options, &archive, &err));
	checkpoint_make(scratch("checkpoint-10"), 10, 7);
	OK(tpd_catalog_open(tpd_io_posix(), scratch("store/catalog.sqlite"), TPD_CATALOG_WRITE, 0, &other, &err));
	OK(tpd_catalog_begin(other, &err)); /* somebody writes to it for long */
	OK(tpd_capture_open(scratch("checkpoint-10"), &capture, &err));
	OK(tpd_archive_ingest(archive, "run", 10, capture, NULL, &result, &unrecorded, &err));
	tpd_capture_close(capture);
	ck_assert_int_eq(unrecorded.status, TPD_BUSY);
	ck_assert(!result.existed);
	tpd_catalog_rollback(other);
	tpd_catalog_close(other);
	assert_restores("run@10", scratch("checkpoint-10"));
	archive_close();
	archive_open(16, 0, 1);
	OK(tpd_catalog_list(tpd_archive_catalog(archive), "run", count_row, &rows, &err));
	ck_assert_uint_eq(rows, 1);
}
END_TEST

/* A store that was put back to an older state, beside a catalog that was not. */
START_TEST(lost_checkpoints_are_known)
{
	char hex[TPD_ID_HEX];
	struct tpd_archive_name which;

	archive_open(16, 0, 1);
	ingest_step(10);
	which = resolve("run@10");
	tpd_id_hex(&which.id, hex);
	ck_assert(!tpd_archive_lost(archive, "run", hex));
	ck_assert(!tpd_archive_lost(archive, "run", ""));
	ck_assert(!tpd_archive_lost(archive, "run", "not an id"));
	ck_assert_int_eq(rename(scratch("store/objects"), scratch("moved")), 0);
	mkdir(scratch("store/objects"), 0755);
	ck_assert(tpd_archive_lost(archive, "run", hex));
	ck_assert(tpd_archive_lost(archive, "other", hex));
}
END_TEST

/* A rebuild that cannot have a run's lock has not touched the catalog, and holds nobody up meanwhile. */
START_TEST(rebuild_waits_before_it_begins)
{
	struct tpd_run_lock *lock = NULL;
	struct tpd_store *other = NULL;
	struct tpd_archive_rebuilt built = {0};
	unsigned rows = 0;

	archive_open(16, 0, 1);
	ingest_step(10);
	OK(tpd_store_open(tpd_io_posix(), scratch("store"), TPD_STORE_WRITE, 0, &other, &err));
	OK(tpd_store_run_lock(other, "run", 0, &lock, &err));
	OK(tpd_archive_rebuild(archive, NULL, &built, &err)); /* there is nothing to put right: it needs no lock */
	mkdir(scratch("store/ingest/run@20"), 0755);
	ck_assert_int_eq(tpd_archive_rebuild(archive, NULL, &built, &err), TPD_BUSY);
	OK(tpd_catalog_list(tpd_archive_catalog(archive), NULL, count_row, &rows, &err));
	ck_assert_uint_eq(rows, 1);
	tpd_store_run_unlock(lock);
	OK(tpd_archive_rebuild(archive, NULL, &built, &err));
	ck_assert_uint_eq(built.done, 1);
	tpd_store_close(other);
}
END_TEST

/* Refs that were lost: the manifests still say what each checkpoint is. */
START_TEST(names_come_back)
{
	struct tpd_archive_rebuilt built = {0};
	struct tpd_archive_name name;
	uint64_t unnamed = 0;

	archive_open(16, 0, 1);
	ingest_step(10);
	ingest_step(20);
	OK(ingest(scratch("checkpoint-20"), "other", 20, NULL));
	OK(tpd_archive_check_names(archive, NULL, &unnamed, &err));
	ck_assert_uint_eq(unnamed, 0);
	for (size_t i = 0; i < 4; i++) { /* gone, empty, short garbage, more zeros than a first record has */
		static const char left[32] = "garbage\n";
		bool gone = i < 2;

		archive_close();
		ck_assert_int_eq(unlink(scratch("store/refs/run")), 0);
		if (i > 0)
			file_write(scratch("store/refs/run"), left, i == 1 ? 0 : i == 2 ? 8 : sizeof(left));
		archive_open(16, 0, 1);
		ck_assert_int_eq(tpd_archive_check_names(archive, NULL, &unnamed, &err), TPD_CORRUPT);
		ck_assert_uint_eq(unnamed, 2);
		ck_assert_int_eq(tpd_archive_check_names(archive, "run", &unnamed, &err), TPD_CORRUPT);
		ck_assert_uint_eq(unnamed, 2);
		OK(tpd_archive_check_names(archive, "ru", &unnamed, &err));
		ck_assert_uint_eq(unnamed, 0);
		ck_assert_int_eq(tpd_archive_resolve(archive, "run@10", &name, &err), TPD_CORRUPT);
		ck_assert_ptr_nonnull(strstr(err.text, "rebuild-catalog"));
		ck_assert_int_eq(tpd_archive_resolve(archive, "nobody@10", &name, &err), TPD_NOT_FOUND);
		OK(tpd_archive_rebuild(archive, NULL, &built, &err));
		ck_assert_uint_eq(built.done, 3);
		ck_assert_uint_eq(built.repaired, 1);
		ck_assert_uint_eq(built.lost, gone);
		ck_assert(file_exists(scratch("store/refs-damaged/run@%d", (int)i - 1)) == !gone);
		OK(tpd_archive_check_names(archive, NULL, &unnamed, &err));
		ck_assert_uint_eq(unnamed, 0);
		assert_restores("run@10", scratch("checkpoint-10"));
		assert_restores("run@20~1", scratch("checkpoint-20"));
		OK(tpd_archive_rebuild(archive, NULL, &built, &err));
		ck_assert_uint_eq(built.repaired, 0);
	}
}
END_TEST

START_TEST(damaged_catalog_is_put_aside)
{
	unsigned rows = 0;

	archive_open(16, 0, 1);
	ingest_step(10);
	archive_close();
	file_write(scratch("store/catalog.sqlite"), "this is no database, but it is long enough", 42);
	archive_open(16, 0, 1);
	OK(tpd_catalog_list(tpd_archive_catalog(archive), NULL, count_row, &rows, &err));
	ck_assert_uint_eq(rows, 1);
	ck_assert(file_exists(scratch("store/catalog.sqlite.damaged")));
	/* And one that vanishes under the handle. */
	ck_assert(!tpd_archive_catalog_lost(archive));
	ck_assert_int_eq(unlink(scratch("store/catalog.sqlite")), 0);
	ck_assert(tpd_archive_catalog_lost(archive));
	OK(tpd_archive_reopen_catalog(archive, &err));
	ck_assert(!tpd_archive_catalog_lost(archive));
	rows = 0;
	OK(tpd_catalog_list(tpd_archive_catalog(archive), NULL, count_row, &rows, &err));
	ck_assert_uint_eq(rows, 1);
}
END_TEST

/* Every byte but the trailer's of a part, so that its payloads and index cannot be right. */
static void damage(const char *name, unsigned file)
{
	file_flip(part_path(name, file, 0), 5000);
	file_flip(part_path(name, file, 0), 20000);
}

START_TEST(damaged_reference_does_not_keep_new_ones_out)
{
	struct tpd_ingest_result result;

	archive_open(16, 0, 1);
	ingest_step(10);
	damage("run@10", 0);
	ck_assert_int_eq(rename(scratch("checkpoint-10"), scratch("gone")), 0);
	checkpoint_make(scratch("checkpoint-20"), 20, 7);
	OK(ingest(scratch("checkpoint-20"), "run", 20, &result));
	ck_assert_int_eq(result.reference_fault.status, TPD_CORRUPT); /* and it is told */
	ck_assert_ptr_nonnull(strstr(result.reference_fault.text, "run@10"));
	ck_assert_uint_eq(depth_of("run@20"), 0);
	assert_restores("run@20", scratch("checkpoint-20"));
	checkpoint_make(scratch("checkpoint-30"), 30, 7);
	OK(ingest(scratch("checkpoint-30"), "run", 30, &result));
	ck_assert_int_eq(result.reference_fault.status, TPD_OK);
	ck_assert_uint_eq(depth_of("run@30"), 1);
	assert_restores("run@30", scratch("checkpoint-30"));
}
END_TEST

/* Files that are still open serve as the reference, though they are deleted and what was stored of them cannot be read. */
START_TEST(held_files_are_read_instead_of_the_chain)
{
	struct tpd_capture *held = NULL, *capture = NULL;
	struct tpd_ingest_result first, second;
	struct tpd_manifest m;

	archive_open(16, 0, 1);
	checkpoint_make(scratch("checkpoint-10"), 10, 7);
	OK(tpd_capture_open(scratch("checkpoint-10"), &held, &err));
	OK(tpd_archive_ingest(archive, "run", 10, held, NULL, &first, NULL, &err));
	ck_assert_int_eq(rename(scratch("checkpoint-10"), scratch("kept")), 0);
	damage("run@10", 0);
	damage("run@10", 1);
	checkpoint_make(scratch("checkpoint-20"), 20, 7);
	OK(tpd_capture_open(scratch("checkpoint-20"), &capture, &err));
	tpd_capture_set_held(capture, held, &first.id);
	OK(tpd_archive_ingest(archive, "run", 20, capture, NULL, &second, NULL, &err));
	OK(tpd_store_manifest(tpd_archive_store(archive), &second.id, &m, &err));
	ck_assert(m.has_ref && tpd_id_equal(&m.ref, &first.id));
	tpd_manifest_release(&m);
	tpd_capture_close(capture);
	tpd_capture_close(held);
	OK(ingest(scratch("kept"), "run", 10, NULL)); /* mended */
	assert_restores("run@20", scratch("checkpoint-20"));
}
END_TEST

/* Whoever restores one is told which other one is damaged. */
START_TEST(damaged_manifest_is_told_by_name)
{
	struct tpd_archive_name which;
	char hex[TPD_ID_HEX];

	archive_open(16, 0, 1);
	ingest_step(10);
	ingest_step(20);
	ck_assert_uint_eq(depth_of("run@20"), 1);
	which = resolve("run@10");
	tpd_id_hex(&which.id, hex);
	archive_close();
	file_flip(scratch("store/objects/%.2s/%s.0/manifest", hex, hex), 100);
	archive_open(16, 0, 1);
	ck_assert_int_eq(restore("run@20", scratch("out")), TPD_CORRUPT);
	ck_assert_msg(strncmp(err.text, "run@20 needs run@10: ", 21) == 0, "%s", err.text);
}
END_TEST

START_TEST(storing_again_mends)
{
	struct tpd_archive_name which;
	struct tpd_ingest_result result;

	archive_open(16, 0, 1);
	ingest_step(10);
	which = resolve("run@10");
	damage("run@10", 0);
	ck_assert_int_eq(tpd_archive_verify(archive, &which.id, NULL, &err), TPD_CORRUPT);
	OK(ingest(scratch("checkpoint-10"), "run", 10, &result));
	ck_assert(tpd_id_equal(&result.id, &which.id));
	ck_assert_uint_eq(result.version, 1);
	ck_assert(result.repaired);
	OK(tpd_archive_verify(archive, &which.id, NULL, &err));
	OK(ingest(scratch("checkpoint-10"), "run", 10, &result));
	ck_assert(result.existed && !result.repaired);
	checkpoint_make(scratch("checkpoint-20"), 20, 7);
	OK(ingest(scratch("checkpoint-20"), "run", 20, &result));
	ck_assert(!result.existed && !result.repaired);
}
END_TEST

static enum tpd_status take_depth(void *arg, const struct tpd_catalog_row *row, struct tpd_err *e TPD_UNUSED)
{
	if (row->step == 20)
		*(uint32_t *)arg = row->depth;
	return TPD_OK;
}

/* Its row tells of the generation that readers take. */
START_TEST(mended_ones_are_recorded_anew)
{
	uint32_t depth = 99;

	archive_open(16, 0, 1);
	ingest_step(10);
	ingest_step(20);
	OK(tpd_catalog_list(tpd_archive_catalog(archive), "run", take_depth, &depth, &err));
	ck_assert_uint_eq(depth, 1);
	damage("run@10", 0);
	damage("run@20", 0);
	ck_assert_int_eq(rename(scratch("checkpoint-10"), scratch("gone")), 0);
	OK(ingest(scratch("checkpoint-20"), "run", 20, NULL)); /* a keyframe: what it could refer to is damaged */
	ck_assert_uint_eq(depth_of("run@20"), 0);
	OK(tpd_catalog_list(tpd_archive_catalog(archive), "run", take_depth, &depth, &err));
	ck_assert_uint_eq(depth, 0);
}
END_TEST

START_TEST(one_runs_damaged_refs_leave_the_others_alone)
{
	struct tpd_archive_name *all = NULL, out;
	struct tpd_archive_rebuilt built = {0};
	size_t count = 0;

	archive_open(16, 0, 1);
	ingest_step(10);
	OK(ingest(scratch("checkpoint-10"), "other", 10, NULL));
	OK(ingest(scratch("checkpoint-10"), "run", 11, NULL));
	OK(tpd_archive_check_runs(archive, NULL, &err));
	archive_close();
	file_flip(scratch("store/refs/run"), 20);
	archive_open(16, 0, 1);
	OK(ingest(scratch("checkpoint-10"), "other", 12, NULL));
	OK(tpd_archive_select(archive, NULL, &all, &count, &err));
	ck_assert_uint_eq(count, 2);
	free(all);
	ck_assert_int_eq(tpd_archive_check_runs(archive, NULL, &err), TPD_CORRUPT);
	ck_assert_ptr_nonnull(strstr(err.text, "run 'run'"));
	ck_assert_int_eq(tpd_archive_resolve(archive, "run@10", &out, &err), TPD_CORRUPT);
	ck_assert_int_eq(tpd_archive_resolve(archive, "00000000", &out, &err), TPD_CORRUPT); /* may be one of them */
	ck_assert_int_eq(tpd_archive_resolve(archive, "other@13", &out, &err), TPD_NOT_FOUND);
	OK(tpd_archive_rebuild(archive, NULL, &built, &err));
	ck_assert_uint_eq(built.done, 4);
	ck_assert_uint_eq(built.failed, 0);
	ck_assert_uint_eq(built.repaired, 1);
	OK(tpd_archive_check_runs(archive, NULL, &err));
	assert_restores("run@10~1", scratch("checkpoint-10"));
	assert_restores("run@11~1", scratch("checkpoint-10"));
	OK(tpd_archive_rebuild(archive, NULL, &built, &err));
	ck_assert_uint_eq(built.repaired, 0);
}
END_TEST

/* Opening for writing looks at each run once, not at each run once a run. */
START_TEST(opening_is_linear_in_the_runs)
{
	static struct tpd_io_count count;
	struct tpd_archive_options options = {
		.io = &count.io, .mode = TPD_ARCHIVE_WRITE, .threads = 1, .max_depth = 16,
	};
	int64_t calls[3];

	mkdir(scratch("small-1"), 0755);
	file_write(scratch("small-1/data"), "small", 5);
	tpd_io_count_init(&count, tpd_io_posix());
	for (int i = 0; i < 3; i++) {
		uint64_t before;

		archive_open(16, 0, 1);
		for (int r = 0; r < 20; r++) {
			char run[16];

			snprintf(run, sizeof(run), "run%d", 20 * i + r);
			OK(ingest(scratch("small-1"), run, 1, NULL));
		}
		archive_close();
		before = tpd_io_count_calls(&count);
		options.store = scratch("store");
		OK(tpd_archive_open(&options, &archive, &err));
		calls[i] = (int64_t)(tpd_io_count_calls(&count) - before);
		archive_close();
	}
	ck_assert_int_lt(calls[2] - calls[1] - (calls[1] - calls[0]), 200);
	ck_assert_int_lt(calls[2], 3000);
}
END_TEST

static int forbidden; /* of refs/run: 0 nothing, 1 to write, 2 to read too */

static int guarded_open(const struct tpd_io *io TPD_UNUSED, int dir, const char *path, int flags, mode_t mode)
{
	bool write = (flags & O_ACCMODE) != O_RDONLY;

	if (strcmp(path, "refs/run") == 0 && (forbidden > 1 || (forbidden == 1 && write)))
		return write ? -EROFS : -EACCES;
	return tpd_io_posix()->open(tpd_io_posix(), dir, path, flags, mode);
}

/* A run whose refs belong to somebody else: its own affair, and recorded as far as it can be read. */
START_TEST(refs_that_may_not_be_opened)
{
	static struct tpd_io io; /* the archive is closed after this function */
	struct tpd_archive_options options = {
		.io = &io, .store = scratch("store"), .mode = TPD_ARCHIVE_WRITE, .threads = 1, .max_depth = 16,
	};
	struct tpd_archive_name *all = NULL;
	struct tpd_archive_rebuilt built = {0};
	size_t count = 0;

	io = *tpd_io_posix();
	io.open = guarded_open;
	archive_open(16, 0, 1);
	ingest_step(10);
	OK(ingest(scratch("checkpoint-10"), "other", 10, NULL));
	for (forbidden = 1; forbidden <= 2; forbidden++) {
		unsigned rows = 0;

		archive_close();
		if (forbidden == 1)
			ck_assert_int_eq(unlink(scratch("store/catalog.sqlite")), 0);
		OK(tpd_archive_open(&options, &archive, &err));
		OK(tpd_catalog_list(tpd_archive_catalog(archive), NULL, count_row, &rows, &err));
		ck_assert_uint_eq(rows, 1 + (unsigned)forbidden);
		OK(ingest(scratch("checkpoint-10"), "other", 10 + (uint64_t)forbidden, NULL));
		ck_assert_int_eq(ingest(scratch("checkpoint-10"), "run", 99, NULL), TPD_IO);
		ck_assert_int_eq(tpd_archive_check_runs(archive, NULL, &err), forbidden == 1 ? TPD_OK : TPD_IO);
		OK(tpd_archive_select(archive, NULL, &all, &count, &err));
		ck_assert_uint_eq(count, 3); /* two and one of run, or all three of other */
		free(all);
		ck_assert_int_eq(tpd_archive_rebuild(archive, NULL, &built, &err), forbidden == 1 ? TPD_OK : TPD_IO);
		ck_assert_uint_eq(built.failed, forbidden == 2);
		ck_assert_uint_eq(built.done, 3);
		rows = 0;
		OK(tpd_catalog_list(tpd_archive_catalog(archive), "run", count_row, &rows, &err));
		ck_assert_uint_eq(rows, 1);
	}
}
END_TEST

/* Refs that cannot be repaired, with a record that only a later version understands: the rows are all that is left. */
START_TEST(rows_of_unreadable_runs_stay)
{
	struct tpd_archive_rebuilt built = {0};
	uint8_t *refs;
	size_t len;
	unsigned rows = 0;

	archive_open(16, 0, 1);
	ingest_step(10);
	OK(ingest(scratch("checkpoint-10"), "other", 10, NULL));
	refs = file_read(scratch("store/refs/run"), &len);
	{
		struct tpd_buf file = {0};
		uint8_t digest[TPD_XXH_LEN];
		size_t at = len;

		tpd_buf_put(&file, refs, len);
		tpd_buf_u32(&file, 1);
		tpd_buf_u8(&file, 200);
		tpd_xxh128(file.data + at, file.len - at, digest);
		tpd_buf_put(&file, digest, 8);
		file_write(scratch("store/refs/run"), file.data, file.len);
		tpd_buf_release(&file);
	}
	free(refs);
	ck_assert_int_eq(tpd_archive_rebuild(archive, NULL, &built, &err), TPD_UNSUPPORTED);
	ck_assert_uint_eq(built.done, 1);
	ck_assert_uint_eq(built.failed, 1);
	OK(tpd_catalog_list(tpd_archive_catalog(archive), "run", count_row, &rows, &err));
	ck_assert_uint_eq(rows, 1);
	OK(tpd_catalog_list(tpd_archive_catalog(archive), "other", count_row, &rows, &err));
	ck_assert_uint_eq(rows, 2);
}
END_TEST

/* Two tensors whose names change places between a stopped ingest and the next try: no part of the first may be taken over. */
START_TEST(parts_are_adopted_only_if_they_decode)
{
	static const char *const titles[2][2] = {{"a", "b"}, {"b", "a"}};
	struct tpd_capture *capture = NULL;
	struct stopper stopper = {.after = 6};
	struct tpd_progress progress = {.fn = stop_after, .arg = &stopper, .cancel = &stopper.cancel};
	struct tpd_ingest_result result;
	enum { N = 400000 };

	archive_open(16, 1 << 20, 1);
	for (unsigned step = 1; step <= 3; step++) { /* 3: the second try at step 2 */
		struct tpd_buf file = {0};
		char header[200];
		uint64_t state = 9;
		int len = snprintf(header, sizeof(header),
				   "{\"%s\":{\"dtype\":\"F32\",\"shape\":[%d],\"data_offsets\":[0,%d]},"
				   "\"%s\":{\"dtype\":\"F32\",\"shape\":[%d],\"data_offsets\":[%d,%d]}}",
				   titles[step == 3][0], N, 4 * N, titles[step == 3][1], N, 4 * N, 8 * N);

		tpd_buf_u64(&file, (uint64_t)len);
		tpd_buf_put(&file, header, (size_t)len);
		for (int i = 0; i < 2 * N; i++) {
			float x = (float)(0.05 * random_normal(&state)) + (step > 1 ? (float)(i % 7) * 1e-5f : 0);
			uint32_t bits;

			memcpy(&bits, &x, 4);
			tpd_buf_u32(&file, bits);
		}
		mkdir(scratch("swap-%u", step), 0755);
		file_write(scratch("swap-%u/model.safetensors", step), file.data, file.len);
		tpd_buf_release(&file);
	}
	OK(ingest(scratch("swap-1"), "run", 1, NULL));
	OK(tpd_capture_open(scratch("swap-2"), &capture, &err));
	ck_assert_int_eq(tpd_archive_ingest(archive, "run", 2, capture, &progress, &result, NULL, &err), TPD_CANCELLED);
	tpd_capture_close(capture);
	ck_assert(file_exists(scratch("store/ingest/run@2/f00000.p00000")));
	OK(ingest(scratch("swap-3"), "run", 2, &result));
	OK(tpd_archive_verify(archive, &result.id, NULL, &err));
	OK(restore("run@2", scratch("out")));
	ck_assert(file_equal(scratch("out/model.safetensors"), scratch("swap-3/model.safetensors")));
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		damage_is_found_where_it_is,
		damage_below_is_mended_from_above,
		catalog_comes_back,
		stored_without_a_row,
		lost_checkpoints_are_known,
		rebuild_waits_before_it_begins,
		names_come_back,
		damaged_catalog_is_put_aside,
		damaged_reference_does_not_keep_new_ones_out,
		held_files_are_read_instead_of_the_chain,
		damaged_manifest_is_told_by_name,
		storing_again_mends,
		mended_ones_are_recorded_anew,
		one_runs_damaged_refs_leave_the_others_alone,
		rows_of_unreadable_runs_stay,
		refs_that_may_not_be_opened,
		opening_is_linear_in_the_runs,
		parts_are_adopted_only_if_they_decode,
	};

	return run_tests("archive_mend", tests, TPD_ARRAY_LEN(tests));
}
