/*
 * t_archive.c - whole checkpoints through ingest, restore, verify and rebuild, without the programs.
 */
#include "base/tpd.h"

#include "archive/archive.h"

#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "files.h"
#include "store/chain.h"
#include "store/part.h"

static struct tpd_err err;
static struct tpd_archive *archive;

#define OK(call) ck_assert_msg((call) == TPD_OK, "%s", err.text)

static void archive_open(uint32_t max_depth, uint64_t part_size, unsigned threads)
{
	struct tpd_archive_options options = {
		.store = scratch("store"),
		.mode = TPD_ARCHIVE_CREATE,
		.threads = threads,
		.max_depth = max_depth,
		.part_size = part_size,
	};

	OK(tpd_archive_open(&options, &archive, &err));
}

static void archive_close(void)
{
	tpd_archive_close(archive);
	archive = NULL;
}

static enum tpd_status ingest(const char *path, const char *run, uint64_t step, struct tpd_ingest_result *out)
{
	struct tpd_capture *capture = NULL;
	struct tpd_ingest_result result;
	enum tpd_status status = tpd_capture_open(path, &capture, &err);

	if (!status)
		status = tpd_archive_ingest(archive, run, step, capture, NULL, out ? out : &result, &err);
	tpd_capture_close(capture);
	return status;
}

static void ingest_step(uint64_t step)
{
	checkpoint_make(scratch("checkpoint-%d", (int)step), step, 7);
	OK(ingest(scratch("checkpoint-%d", (int)step), "run", step, NULL));
}

static struct tpd_archive_name resolve(const char *name)
{
	struct tpd_archive_name out = {0};

	OK(tpd_archive_resolve(archive, name, &out, &err));
	return out;
}

static enum tpd_status restore(const char *name, const char *to)
{
	struct tpd_archive_name which = resolve(name);

	return tpd_archive_restore(archive, &which.id, to, NULL, false, NULL, &err);
}

static void assert_restores(const char *name, const char *original)
{
	static const char *const files[] = {"model.safetensors", "optimizer.pt", "trainer_state.json"};
	static int number;
	char to[512];

	snprintf(to, sizeof(to), "%s", scratch("out-%d", number++));
	ck_assert_msg(restore(name, to) == TPD_OK, "%s: %s", name, err.text);
	for (size_t i = 0; i < TPD_ARRAY_LEN(files); i++) {
		char a[600], b[600];
		struct stat x, y;

		snprintf(a, sizeof(a), "%s/%s", original, files[i]);
		snprintf(b, sizeof(b), "%s/%s", to, files[i]);
		ck_assert_msg(file_equal(a, b), "%s of %s differs", files[i], name);
		ck_assert_int_eq(stat(a, &x), 0);
		ck_assert_int_eq(stat(b, &y), 0);
		ck_assert_int_eq(x.st_mode, y.st_mode);
		ck_assert_int_eq(x.st_mtim.tv_sec, y.st_mtim.tv_sec);
		ck_assert_int_eq(x.st_mtim.tv_nsec, y.st_mtim.tv_nsec);
	}
}

static uint32_t depth_of(const char *name)
{
	struct tpd_archive_name which = resolve(name);
	struct tpd_manifest m;
	uint32_t depth;

	OK(tpd_store_manifest(tpd_archive_store(archive), &which.id, &m, &err));
	depth = m.depth;
	tpd_manifest_release(&m);
	return depth;
}

static void setup(void)
{
	scratch_make();
	memset(&err, 0, sizeof(err));
}

static void teardown(void)
{
	archive_close();
	scratch_remove();
}

START_TEST(chain_restores_at_every_depth)
{
	static const uint32_t depths[] = {0, 1, 2, 1, 2, 1};
	uint64_t size = 0, stored = 0;

	archive_open(2, 1 << 20, 2);
	for (uint64_t step = 10; step <= 60; step += 10)
		ingest_step(step);
	for (int i = 0; i < 6; i++) {
		char name[32];
		struct tpd_archive_name which;
		struct tpd_manifest m;

		snprintf(name, sizeof(name), "run@%d", 10 * (i + 1));
		ck_assert_uint_eq(depth_of(name), depths[i]);
		assert_restores(name, scratch("checkpoint-%d", 10 * (i + 1)));
		which = resolve(name);
		OK(tpd_archive_verify(archive, &which.id, NULL, &err));
		OK(tpd_store_manifest(tpd_archive_store(archive), &which.id, &m, &err));
		size += i ? tpd_manifest_size(&m) : 0;
		stored += i ? tpd_manifest_stored(&m) : 0;
		tpd_manifest_release(&m);
	}
	ck_assert_uint_lt(stored * 10, size * 8); /* deltas of these moves save at least a fifth */
}
END_TEST

START_TEST(grid_is_what_the_deltas_use)
{
	struct tpd_archive_name which;
	struct tpd_manifest m;

	archive_open(16, 0, 2);
	ingest_step(10);
	ingest_step(20);
	which = resolve("run@latest");
	ck_assert_uint_eq(which.step, 20);
	OK(tpd_store_manifest(tpd_archive_store(archive), &which.id, &m, &err));
	ck_assert_uint_eq(m.file_count, 3);
	ck_assert_uint_eq(m.entries[0].segment_count, 5);
	ck_assert_str_eq(m.entries[0].segments[1].name, "layers.0.w");
	ck_assert_int_eq(m.entries[0].segments[1].planned, TPD_ENCODING_GRID);
	ck_assert(m.entries[0].segments[1].has_ref);
	ck_assert(m.entries[0].segments[1].stats.has_delta);
	ck_assert_uint_eq(m.entries[0].segments[1].stats.count, 300 * 256);
	ck_assert_int_eq(m.entries[1].segments[0].dtype, TPD_DTYPE_F32); /* guessed: floats without a header */
	tpd_manifest_release(&m);
}
END_TEST

START_TEST(bytes_do_not_depend_on_threads)
{
	char a[600], b[600];
	struct tpd_archive_name which;
	char hex[TPD_ID_HEX];

	for (unsigned threads = 1; threads <= 3; threads += 2) {
		archive_open(16, 1 << 20, threads);
		ingest_step(10);
		ingest_step(20);
		which = resolve("run@20");
		archive_close();
		ck_assert_int_eq(rename(scratch("store"), scratch("store-%u", threads)), 0);
	}
	tpd_id_hex(&which.id, hex);
	for (unsigned part = 0; part < 1; part++) {
		snprintf(a, sizeof(a), "%s/objects/%.2s/%s.0/f00000.p%05u", scratch("store-1"), hex, hex, part);
		snprintf(b, sizeof(b), "%s/objects/%.2s/%s.0/f00000.p%05u", scratch("store-3"), hex, hex, part);
		ck_assert(file_equal(a, b));
	}
}
END_TEST

START_TEST(out_of_order_and_rewritten)
{
	struct tpd_ingest_result result;

	archive_open(16, 0, 2);
	ingest_step(40);
	ingest_step(20); /* refers to 40: the only one there is */
	ck_assert_uint_eq(depth_of("run@20"), 1);
	ingest_step(30);
	assert_restores("run@20", scratch("checkpoint-20"));
	assert_restores("run@30", scratch("checkpoint-30"));

	/* The same content again is nothing new. */
	OK(ingest(scratch("checkpoint-30"), "run", 30, &result));
	ck_assert(result.existed);
	ck_assert_uint_eq(result.version, 1);

	/* Other content for the same step is a new version; the old one stays. */
	checkpoint_make(scratch("again"), 30, 8);
	OK(ingest(scratch("again"), "run", 30, &result));
	ck_assert(!result.existed);
	ck_assert_uint_eq(result.version, 2);
	assert_restores("run@30~1", scratch("checkpoint-30"));
	assert_restores("run@30~2", scratch("again"));
	assert_restores("run@30", scratch("again"));

	/* A version that differs in one small file refers to the one before it, and is nearly free. */
	file_write(scratch("again/trainer_state.json"), "{\"global_step\": 30}", 19);
	OK(ingest(scratch("again"), "run", 30, &result));
	ck_assert_uint_eq(result.version, 3);
	{
		struct tpd_manifest m;

		OK(tpd_store_manifest(tpd_archive_store(archive), &result.id, &m, &err));
		ck_assert_uint_lt(tpd_manifest_stored(&m), 20000);
		tpd_manifest_release(&m);
	}
	assert_restores("run@30~3", scratch("again"));
}
END_TEST

struct stopper {
	atomic_bool cancel;
	int after;
};

static void stop_after(void *arg, uint64_t done TPD_UNUSED, uint64_t total TPD_UNUSED)
{
	struct stopper *stopper = arg;

	if (--stopper->after <= 0)
		atomic_store(&stopper->cancel, true);
}

START_TEST(interrupted_ingest_goes_on)
{
	struct tpd_capture *capture = NULL;
	uint64_t most_reused = 0;
	bool done = false;

	archive_open(16, 1 << 20, 1);
	ingest_step(10);
	checkpoint_make(scratch("checkpoint-20"), 20, 7);
	OK(tpd_capture_open(scratch("checkpoint-20"), &capture, &err));
	for (int after = 1; after < 40 && !done; after++) {
		struct stopper stopper = {.after = after};
		struct tpd_progress progress = {.fn = stop_after, .arg = &stopper, .cancel = &stopper.cancel};
		struct tpd_ingest_result result = {0};
		enum tpd_status status = tpd_archive_ingest(archive, "run", 20, capture, &progress, &result, &err);

		done = status == TPD_OK;
		if (!done)
			ck_assert_int_eq(status, TPD_CANCELLED);
		most_reused = done ? result.parts_reused : 0;
		archive_close(); /* as after a restart */
		archive_open(16, 1 << 20, 1);
	}
	tpd_capture_close(capture);
	ck_assert(done);
	ck_assert_uint_ge(most_reused, 1); /* finished parts were not encoded again */
	assert_restores("run@20", scratch("checkpoint-20"));
}
END_TEST

START_TEST(changed_while_captured)
{
	struct tpd_capture *capture = NULL;
	struct tpd_ingest_result result;

	archive_open(16, 0, 1);
	checkpoint_make(scratch("checkpoint-20"), 20, 7);
	OK(tpd_capture_open(scratch("checkpoint-20"), &capture, &err));
	file_flip(scratch("checkpoint-20/model.safetensors"), 5000);
	ck_assert_int_eq(tpd_archive_ingest(archive, "run", 20, capture, NULL, &result, &err), TPD_CONFLICT);
	tpd_capture_close(capture);
	OK(tpd_capture_open(scratch("checkpoint-20"), &capture, &err));
	file_write(scratch("checkpoint-20/late.bin"), "x", 1);
	ck_assert_int_eq(tpd_archive_ingest(archive, "run", 20, capture, NULL, &result, &err), TPD_CONFLICT);
	tpd_capture_close(capture);
}
END_TEST

START_TEST(deleted_after_capture_is_stored_whole)
{
	struct tpd_capture *capture = NULL;
	struct tpd_ingest_result result;

	archive_open(16, 0, 1);
	checkpoint_make(scratch("checkpoint-20"), 20, 7);
	checkpoint_make(scratch("kept"), 20, 7);
	OK(tpd_capture_open(scratch("checkpoint-20"), &capture, &err));
	ck_assert_int_eq(unlink(scratch("checkpoint-20/model.safetensors")), 0);
	ck_assert_int_eq(unlink(scratch("checkpoint-20/optimizer.pt")), 0);
	OK(tpd_archive_ingest(archive, "run", 20, capture, NULL, &result, &err));
	tpd_capture_close(capture);
	OK(restore("run@20", scratch("out")));
	ck_assert(file_equal(scratch("out/model.safetensors"), scratch("kept/model.safetensors")));
}
END_TEST

/* Path of a part of a checkpoint in the store. */
static const char *part_path(const char *name, unsigned file, unsigned part)
{
	struct tpd_archive_name which = resolve(name);
	char hex[TPD_ID_HEX];

	tpd_id_hex(&which.id, hex);
	return scratch("store/objects/%.2s/%s.0/f%05u.p%05u", hex, hex, file, part);
}

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

START_TEST(restore_stays_inside_and_refuses_to_overwrite)
{
	struct tpd_archive_name which;

	archive_open(16, 0, 1);
	ingest_step(10);
	which = resolve("run@10");
	mkdir(scratch("to"), 0755);
	file_write(scratch("to/optimizer.pt"), "mine", 4);
	ck_assert_int_eq(tpd_archive_restore(archive, &which.id, scratch("to"), NULL, false, NULL, &err), TPD_CONFLICT);
	ck_assert(!file_exists(scratch("to/model.safetensors")));
	OK(tpd_archive_restore(archive, &which.id, scratch("to"), "trainer_state.json", false, NULL, &err));
	ck_assert(file_exists(scratch("to/trainer_state.json")));
	ck_assert(!file_exists(scratch("to/model.safetensors")));
	ck_assert_int_eq(tpd_archive_restore(archive, &which.id, scratch("to"), "nothing", false, NULL, &err), TPD_NOT_FOUND);
	OK(tpd_archive_restore(archive, &which.id, scratch("to"), NULL, true, NULL, &err));
	ck_assert(file_equal(scratch("to/optimizer.pt"), scratch("checkpoint-10/optimizer.pt")));
}
END_TEST

START_TEST(links_and_directories)
{
	struct stat st;
	char target[64] = {0};

	archive_open(16, 0, 1);
	mkdir(scratch("c-5"), 0755);
	mkdir(scratch("c-5/sub"), 0750);
	mkdir(scratch("c-5/empty"), 0700);
	file_write(scratch("c-5/sub/a"), "hello", 5);
	file_write(scratch("c-5/none"), "", 0);
	ck_assert_int_eq(chmod(scratch("c-5/none"), 0600), 0);
	ck_assert_int_eq(symlink("../../outside", scratch("c-5/link")), 0);
	OK(ingest(scratch("c-5"), "run", 5, NULL));
	OK(restore("run@5", scratch("out")));
	ck_assert(file_equal(scratch("out/sub/a"), scratch("c-5/sub/a")));
	ck_assert_int_eq(stat(scratch("out/sub"), &st), 0);
	ck_assert_int_eq(st.st_mode & 07777, 0750);
	ck_assert_int_eq(stat(scratch("out/empty"), &st), 0);
	ck_assert_int_eq(st.st_mode & 07777, 0700);
	ck_assert_int_eq(stat(scratch("out/none"), &st), 0);
	ck_assert_int_eq(st.st_mode & 07777, 0600);
	ck_assert_int_eq(st.st_size, 0);
	ck_assert_int_gt(readlink(scratch("out/link"), target, sizeof(target) - 1), 0);
	ck_assert_str_eq(target, "../../outside");
	/* A link in the way is not followed, even when told to replace. */
	mkdir(scratch("trap"), 0755);
	mkdir(scratch("elsewhere"), 0755);
	ck_assert_int_eq(symlink("../elsewhere", scratch("trap/sub")), 0);
	{
		struct tpd_archive_name which = resolve("run@5");

		ck_assert_int_ne(tpd_archive_restore(archive, &which.id, scratch("trap"), NULL, true, NULL, &err), TPD_OK);
		ck_assert(!file_exists(scratch("elsewhere/a")));
	}
}
END_TEST

START_TEST(opaque_files_use_the_parent)
{
	static uint8_t text[3 << 20];
	uint64_t state = 5;
	struct tpd_manifest m;
	struct tpd_archive_name which;

	archive_open(16, 0, 2);
	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = (uint8_t)(random_next(&state) & 0x7F);
	mkdir(scratch("s-1"), 0755);
	mkdir(scratch("s-2"), 0755);
	file_write(scratch("s-1/blob"), text, sizeof(text));
	memmove(text + 100, text, sizeof(text) - 100); /* everything moved by 100 bytes */
	memset(text, 0, 100);
	file_write(scratch("s-2/blob"), text, sizeof(text));
	OK(ingest(scratch("s-1"), "blobs", 1, NULL));
	OK(ingest(scratch("s-2"), "blobs", 2, NULL));
	which = resolve("blobs@2");
	OK(tpd_store_manifest(tpd_archive_store(archive), &which.id, &m, &err));
	ck_assert_uint_lt(tpd_manifest_stored(&m), sizeof(text) / 20);
	tpd_manifest_release(&m);
	OK(restore("blobs@2", scratch("out")));
	ck_assert(file_equal(scratch("out/blob"), scratch("s-2/blob")));
}
END_TEST

/* Without its original, the reference comes from the raw copy when there is one, else from the chain: the same bytes. */
START_TEST(reference_without_its_original)
{
	for (int copy = 0; copy < 2; copy++) {
		struct tpd_archive_options options = {
			.store = scratch("store-%d", copy), .mode = TPD_ARCHIVE_CREATE, .threads = 1, .max_depth = 16,
			.tip_cache = copy ? 100 << 20 : 0,
		};
		struct tpd_archive_name which;
		char hex[TPD_ID_HEX];

		OK(tpd_archive_open(&options, &archive, &err));
		for (uint64_t step = 10; step <= 30; step += 10) {
			ingest_step(step);
			which = resolve("run@latest");
			tpd_id_hex(&which.id, hex);
			ck_assert_int_eq(file_exists(scratch("store-%d/tip/run/%s/00002", copy, hex)), copy);
			ck_assert_int_eq(rename(scratch("checkpoint-%d", (int)step), scratch("gone-%d-%d", copy, (int)step)), 0);
		}
		assert_restores("run@30", scratch("gone-%d-30", copy));
		ck_assert_uint_eq(depth_of("run@30"), 2);
		archive_close();
	}
}
END_TEST

START_TEST(names)
{
	struct tpd_archive_name *all = NULL, out;
	size_t count = 0;
	char hex[TPD_ID_HEX];

	archive_open(16, 0, 1);
	ingest_step(10);
	ingest_step(20);
	out = resolve("run@10");
	tpd_id_hex(&out.id, hex);
	hex[12] = '\0';
	ck_assert_uint_eq(resolve(hex).step, 10);
	ck_assert_int_eq(tpd_archive_resolve(archive, "run@15", &out, &err), TPD_NOT_FOUND);
	ck_assert_str_eq(err.text, "run 'run' has no checkpoint '15'; it has 10, 20");
	ck_assert_int_eq(tpd_archive_resolve(archive, "walk@15", &out, &err), TPD_NOT_FOUND);
	ck_assert_str_eq(err.text, "no run 'walk'; there is run");
	ck_assert_int_eq(tpd_archive_resolve(archive, "run@x", &out, &err), TPD_USAGE);
	ck_assert_int_eq(tpd_archive_resolve(archive, "run", &out, &err), TPD_USAGE);
	ck_assert_int_eq(tpd_archive_resolve(archive, "run@10~2", &out, &err), TPD_NOT_FOUND);
	OK(tpd_archive_select(archive, NULL, &all, &count, &err));
	ck_assert_uint_eq(count, 2);
	ck_assert_uint_eq(all[1].step, 20);
	free(all);
	OK(tpd_archive_select(archive, "run", &all, &count, &err));
	ck_assert_uint_eq(count, 2);
	free(all);
	OK(tpd_archive_select(archive, "run@20", &all, &count, &err));
	ck_assert_uint_eq(count, 1);
	ck_assert_uint_eq(all[0].step, 20);
	free(all);
}
END_TEST

static enum tpd_status count_row(void *arg, const struct tpd_catalog_row *row TPD_UNUSED, struct tpd_err *e TPD_UNUSED)
{
	++*(unsigned *)arg;
	return TPD_OK;
}

START_TEST(catalog_comes_back)
{
	uint64_t done = 0, failed = 0;
	unsigned rows = 0;

	archive_open(16, 0, 1);
	ingest_step(10);
	ingest_step(20);
	archive_close();
	ck_assert_int_eq(unlink(scratch("store/catalog.sqlite")), 0);
	archive_open(16, 0, 1); /* opening for writing puts in what is missing */
	OK(tpd_catalog_list(tpd_archive_catalog(archive), "run", count_row, &rows, &err));
	ck_assert_uint_eq(rows, 2);
	OK(tpd_archive_rebuild(archive, NULL, &done, &failed, &err));
	ck_assert_uint_eq(done, 2);
	ck_assert_uint_eq(failed, 0);
	rows = 0;
	OK(tpd_catalog_list(tpd_archive_catalog(archive), NULL, count_row, &rows, &err));
	ck_assert_uint_eq(rows, 2);
}
END_TEST

/* Refs that were lost: the manifests still say what each checkpoint is. */
START_TEST(names_come_back)
{
	uint64_t done = 0, failed = 0, unnamed = 0;

	archive_open(16, 0, 1);
	ingest_step(10);
	ingest_step(20);
	OK(tpd_archive_unnamed(archive, &unnamed, &err));
	ck_assert_uint_eq(unnamed, 0);
	archive_close();
	ck_assert_int_eq(unlink(scratch("store/refs/run")), 0);
	archive_open(16, 0, 1);
	OK(tpd_archive_unnamed(archive, &unnamed, &err));
	ck_assert_uint_eq(unnamed, 2);
	OK(tpd_archive_rebuild(archive, NULL, &done, &failed, &err));
	ck_assert_uint_eq(done, 2);
	OK(tpd_archive_unnamed(archive, &unnamed, &err));
	ck_assert_uint_eq(unnamed, 0);
	assert_restores("run@10", scratch("checkpoint-10"));
	assert_restores("run@20~1", scratch("checkpoint-20"));
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
	archive_open(16, 0, 1);
	ingest_step(10);
	damage("run@10", 0);
	ck_assert_int_eq(rename(scratch("checkpoint-10"), scratch("gone")), 0);
	ingest_step(20);
	ck_assert_uint_eq(depth_of("run@20"), 0);
	assert_restores("run@20", scratch("checkpoint-20"));
	ingest_step(30);
	ck_assert_uint_eq(depth_of("run@30"), 1);
	assert_restores("run@30", scratch("checkpoint-30"));
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
	OK(tpd_archive_verify(archive, &which.id, NULL, &err));
	OK(ingest(scratch("checkpoint-10"), "run", 10, &result));
	ck_assert(result.existed);
}
END_TEST

START_TEST(one_runs_damaged_refs_leave_the_others_alone)
{
	struct tpd_archive_name *all = NULL;
	uint64_t done = 0, failed = 0;
	size_t count = 0;

	archive_open(16, 0, 1);
	ingest_step(10);
	OK(ingest(scratch("checkpoint-10"), "other", 10, NULL));
	OK(ingest(scratch("checkpoint-10"), "run", 11, NULL));
	archive_close();
	file_flip(scratch("store/refs/run"), 20);
	archive_open(16, 0, 1);
	OK(ingest(scratch("checkpoint-10"), "other", 12, NULL));
	OK(tpd_archive_select(archive, NULL, &all, &count, &err));
	ck_assert_uint_eq(count, 2);
	free(all);
	ck_assert_int_eq(tpd_archive_rebuild(archive, NULL, &done, &failed, &err), TPD_CORRUPT);
	ck_assert_uint_eq(done, 2);
	ck_assert_uint_eq(failed, 1);
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
	ck_assert_int_eq(tpd_archive_ingest(archive, "run", 2, capture, &progress, &result, &err), TPD_CANCELLED);
	tpd_capture_close(capture);
	ck_assert(file_exists(scratch("store/ingest/run@2/f00000.p00000")));
	OK(ingest(scratch("swap-3"), "run", 2, &result));
	OK(tpd_archive_verify(archive, &result.id, NULL, &err));
	OK(restore("run@2", scratch("out")));
	ck_assert(file_equal(scratch("out/model.safetensors"), scratch("swap-3/model.safetensors")));
}
END_TEST

START_TEST(replaced_while_captured)
{
	struct tpd_capture *capture = NULL;

	checkpoint_make(scratch("checkpoint-20"), 20, 7);
	OK(tpd_capture_open(scratch("checkpoint-20"), &capture, &err));
	OK(tpd_capture_check(capture, &err));
	file_write(scratch("new"), "another", 7);
	ck_assert_int_eq(rename(scratch("new"), scratch("checkpoint-20/optimizer.pt")), 0);
	ck_assert_int_eq(tpd_capture_check(capture, &err), TPD_CONFLICT);
	tpd_capture_close(capture);
}
END_TEST

START_TEST(steps_of_paths)
{
	uint64_t step = 0;

	mkdir(scratch("checkpoint-7"), 0755);
	OK(tpd_capture_step(scratch("checkpoint-7"), &step, &err));
	ck_assert_uint_eq(step, 7);
	file_write(scratch("checkpoint-7/trainer_state.json"), "{\"global_step\": 9}", 18);
	OK(tpd_capture_step(scratch("checkpoint-7"), &step, &err));
	ck_assert_uint_eq(step, 9);
	file_write(scratch("checkpoint-7/trainer_state.json"), "{\"global_step\": 9", 17);
	OK(tpd_capture_step(scratch("checkpoint-7"), &step, &err));
	ck_assert_uint_eq(step, 7);
	mkdir(scratch("last"), 0755);
	ck_assert_int_eq(tpd_capture_step(scratch("last"), &step, &err), TPD_NOT_FOUND);
	ck_assert_int_eq(tpd_capture_step(scratch("nothing-5"), &step, &err), TPD_NOT_FOUND);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("archive");
	TCase *tc = tcase_create("whole checkpoints");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 240);
	tcase_add_test(tc, chain_restores_at_every_depth);
	tcase_add_test(tc, grid_is_what_the_deltas_use);
	tcase_add_test(tc, bytes_do_not_depend_on_threads);
	tcase_add_test(tc, out_of_order_and_rewritten);
	tcase_add_test(tc, interrupted_ingest_goes_on);
	tcase_add_test(tc, changed_while_captured);
	tcase_add_test(tc, deleted_after_capture_is_stored_whole);
	tcase_add_test(tc, damage_is_found_where_it_is);
	tcase_add_test(tc, restore_stays_inside_and_refuses_to_overwrite);
	tcase_add_test(tc, links_and_directories);
	tcase_add_test(tc, opaque_files_use_the_parent);
	tcase_add_test(tc, reference_without_its_original);
	tcase_add_test(tc, names);
	tcase_add_test(tc, catalog_comes_back);
	tcase_add_test(tc, names_come_back);
	tcase_add_test(tc, damaged_catalog_is_put_aside);
	tcase_add_test(tc, damaged_reference_does_not_keep_new_ones_out);
	tcase_add_test(tc, storing_again_mends);
	tcase_add_test(tc, one_runs_damaged_refs_leave_the_others_alone);
	tcase_add_test(tc, parts_are_adopted_only_if_they_decode);
	tcase_add_test(tc, replaced_while_captured);
	tcase_add_test(tc, steps_of_paths);
	suite_add_tcase(suite, tc);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
