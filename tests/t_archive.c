/*
 * t_archive.c - whole checkpoints through ingest and restore, without the programs. Damage and mending: t_archive_mend.c.
 */
#include "base/tpd.h"

#include <sys/resource.h>

#include "archive_help.h"
#include "base/text.h"

/* sqlite's integers have a sign: what no catalog could hold is not stored. */
START_TEST(steps_have_an_end)
{
	checkpoint_make(scratch("checkpoint-1"), 1, 7);
	archive_open(16, 0, 1);
	ck_assert_int_eq(ingest(scratch("checkpoint-1"), "run", TPD_STEP_MAX + 1, NULL), TPD_USAGE);
	ck_assert_ptr_nonnull(strstr(err.text, "2^63"));
	OK(ingest(scratch("checkpoint-1"), "run", TPD_STEP_MAX, NULL));
	OK(ingest(scratch("checkpoint-1"), "run", 1, NULL));
}
END_TEST

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
	OK(tpd_store_manifest_keep(tpd_archive_store(archive), &which.id, TPD_MANIFEST_ALL, &m, &err));
	ck_assert_uint_eq(m.file_count, 3);
	ck_assert_uint_eq(m.entries[0].segment_count, 5);
	ck_assert_str_eq(m.entries[0].about[1].name, "layers.0.w");
	ck_assert_int_eq(m.entries[0].about[1].planned, TPD_ENCODING_GRID);
	ck_assert(m.entries[0].segments[1].has_ref);
	ck_assert(m.entries[0].about[1].stats->has_delta);
	ck_assert_uint_eq(m.entries[0].about[1].stats->count, 300 * 256);
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
		enum tpd_status status = tpd_archive_ingest(archive, "run", 20, capture, &progress, &result, NULL, &err);

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

START_TEST(what_is_unfinished_can_be_discarded)
{
	struct tpd_ingest_result result;
	struct tpd_capture *capture = NULL;
	struct tpd_archive_name which;
	uint64_t bytes = 0;
	char hex[TPD_ID_HEX], object[512];

	archive_open(16, 1 << 20, 1);
	ingest_step(10);
	checkpoint_make(scratch("checkpoint-20"), 20, 7);
	OK(tpd_capture_open(scratch("checkpoint-20"), &capture, &err));
	for (int after = 3; !file_exists(scratch("store/ingest/run@20")); after++) { /* until it comes as far as that */
		struct stopper stopper = {.after = after};
		struct tpd_progress progress = {.fn = stop_after, .arg = &stopper, .cancel = &stopper.cancel};

		ck_assert_int_eq(tpd_archive_ingest(archive, "run", 20, capture, &progress, &result, NULL, &err), TPD_CANCELLED);
	}
	tpd_capture_close(capture);
	ck_assert_int_eq(tpd_archive_discard(archive, "run", 30, 0, &bytes, &err), TPD_NOT_FOUND);
	OK(tpd_archive_discard(archive, "run", 20, 0, &bytes, &err));
	ck_assert_uint_gt(bytes, 0);
	ck_assert(!file_exists(scratch("store/ingest/run@20")));
	ck_assert_int_eq(tpd_archive_discard(archive, "run", 20, 0, &bytes, &err), TPD_NOT_FOUND);

	/* What is whole, and only lacks the last rename, is no rubbish. */
	which = resolve("run@10");
	tpd_id_hex(&which.id, hex);
	snprintf(object, sizeof(object), "%s", scratch("store/objects/%.2s/%s.0", hex, hex));
	ck_assert_int_eq(rename(object, scratch("store/ingest/run@10")), 0);
	ck_assert_int_eq(tpd_archive_discard(archive, "run", 10, 0, &bytes, &err), TPD_NOT_FOUND);
	assert_restores("run@10", scratch("checkpoint-10"));
}
END_TEST

/* Whoever reads of it has but this line. */
START_TEST(failures_say_where)
{
	struct rlimit limit, few;
	struct tpd_capture *capture = NULL;
	char text[1024];
	int next;

	archive_open(16, 0, 1);
	checkpoint_make(scratch("checkpoint-20"), 20, 7);
	file_write(scratch("checkpoint-20/x\xff"), "x", 1);
	ck_assert_int_eq(ingest(scratch("checkpoint-20"), "run", 20, NULL), TPD_USAGE);
	snprintf(text, sizeof(text), "'%s': manifest: the path 'x\xff' is not UTF-8", scratch("checkpoint-20"));
	ck_assert_str_eq(err.text, text);

	/* Room for one descriptor: the directory, or that of a single file. */
	next = dup(0);
	ck_assert_int_ge(next, 0);
	close(next);
	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
	few = limit;
	few.rlim_cur = (rlim_t)next + 1;
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
	ck_assert_int_eq(tpd_capture_open(scratch("checkpoint-20"), &capture, &err), TPD_IO);
	snprintf(text, sizeof(text), "cannot open '%s/", scratch("checkpoint-20"));
	ck_assert_msg(strncmp(err.text, text, strlen(text)) == 0, "%s", err.text);
	ck_assert_int_eq(tpd_capture_open(scratch("checkpoint-20/optimizer.pt"), &capture, &err), TPD_IO);
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	snprintf(text, sizeof(text), "cannot open '%s/optimizer.pt': Too many open files", scratch("checkpoint-20"));
	ck_assert_str_eq(err.text, text);
}
END_TEST

START_TEST(changed_while_captured)
{
	struct tpd_capture *capture = NULL;
	struct tpd_ingest_result result;
	char text[1024];

	archive_open(16, 0, 1);
	checkpoint_make(scratch("checkpoint-20"), 20, 7);
	OK(tpd_capture_open(scratch("checkpoint-20"), &capture, &err));
	file_flip(scratch("checkpoint-20/model.safetensors"), 5000);
	ck_assert_int_eq(tpd_archive_ingest(archive, "run", 20, capture, NULL, &result, NULL, &err), TPD_CONFLICT);
	snprintf(text, sizeof(text), "'model.safetensors' in '%s' changed while it was read", scratch("checkpoint-20"));
	ck_assert_str_eq(err.text, text);
	tpd_capture_close(capture);
	OK(tpd_capture_open(scratch("checkpoint-20"), &capture, &err));
	file_write(scratch("checkpoint-20/late.bin"), "x", 1);
	ck_assert_int_eq(tpd_archive_ingest(archive, "run", 20, capture, NULL, &result, NULL, &err), TPD_CONFLICT);
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
	OK(tpd_archive_ingest(archive, "run", 20, capture, NULL, &result, NULL, &err));
	tpd_capture_close(capture);
	OK(restore("run@20", scratch("out")));
	ck_assert(file_equal(scratch("out/model.safetensors"), scratch("kept/model.safetensors")));
}
END_TEST

START_TEST(restore_stays_inside_and_refuses_to_overwrite)
{
	const char *const one[] = {"trainer_state.json", NULL}, *const none[] = {"nothing", NULL};
	struct tpd_archive_name which;

	archive_open(16, 0, 1);
	ingest_step(10);
	which = resolve("run@10");
	mkdir(scratch("to"), 0755);
	file_write(scratch("to/optimizer.pt"), "mine", 4);
	ck_assert_int_eq(tpd_archive_restore(archive, &which.id, scratch("to"), NULL, false, NULL, &err), TPD_CONFLICT);
	ck_assert(!file_exists(scratch("to/model.safetensors")));
	OK(tpd_archive_restore(archive, &which.id, scratch("to"), one, false, NULL, &err));
	ck_assert(file_exists(scratch("to/trainer_state.json")));
	ck_assert(!file_exists(scratch("to/model.safetensors")));
	ck_assert_int_eq(tpd_archive_restore(archive, &which.id, scratch("to"), none, false, NULL, &err), TPD_NOT_FOUND);
	OK(tpd_archive_restore(archive, &which.id, scratch("to"), NULL, true, NULL, &err));
	ck_assert(file_equal(scratch("to/optimizer.pt"), scratch("checkpoint-10/optimizer.pt")));
}
END_TEST

/* What cannot be replaced is said before anything is written, also with force. */
START_TEST(force_replaces_no_directory)
{
	struct tpd_archive_name which;

	archive_open(16, 0, 1);
	checkpoint_make(scratch("checkpoint-10"), 10, 7);
	mkdir(scratch("checkpoint-10/sub"), 0755);
	OK(ingest(scratch("checkpoint-10"), "run", 10, NULL));
	which = resolve("run@10");
	mkdir(scratch("to"), 0755);
	mkdir(scratch("to/trainer_state.json"), 0755);
	ck_assert_int_eq(tpd_archive_restore(archive, &which.id, scratch("to"), NULL, true, NULL, &err), TPD_CONFLICT);
	ck_assert_ptr_nonnull(strstr(err.text, "is a directory"));
	ck_assert(!file_exists(scratch("to/model.safetensors")));
	ck_assert_int_eq(rmdir(scratch("to/trainer_state.json")), 0);
	file_write(scratch("to/sub"), "mine", 4);
	ck_assert_int_eq(tpd_archive_restore(archive, &which.id, scratch("to"), NULL, true, NULL, &err), TPD_CONFLICT);
	ck_assert(!file_exists(scratch("to/model.safetensors")));
	ck_assert_int_eq(unlink(scratch("to/sub")), 0);
	OK(tpd_archive_restore(archive, &which.id, scratch("to"), NULL, true, NULL, &err));
	ck_assert(file_equal(scratch("to/optimizer.pt"), scratch("checkpoint-10/optimizer.pt")));
}
END_TEST

START_TEST(setuid_does_not_become_roots)
{
	struct stat st;

	archive_open(16, 0, 1);
	checkpoint_make(scratch("checkpoint-10"), 10, 7);
	ck_assert_int_eq(chmod(scratch("checkpoint-10/optimizer.pt"), 06755), 0);
	OK(ingest(scratch("checkpoint-10"), "run", 10, NULL));
	OK(restore("run@10", scratch("to")));
	ck_assert_int_eq(stat(scratch("to/optimizer.pt"), &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, geteuid() == 0 ? 0755 : 06755);
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

/* Above the checkpoint there may be names that are not UTF-8: its files have none of it. */
START_TEST(directories_of_any_name)
{
	struct tpd_ingest_result result;
	struct tpd_manifest m;
	char top[512], dir[600];

	archive_open(16, 0, 2);
	snprintf(top, sizeof(top), "%s", scratch("r\xe9sultats"));
	ck_assert_int_eq(mkdir(top, 0755), 0);
	for (uint64_t step = 10; step <= 20; step += 10) {
		snprintf(dir, sizeof(dir), "%s/checkpoint-%d", top, (int)step);
		checkpoint_make(dir, step, 7);
		OK(ingest(dir, "run", step, &result));
	}
	OK(tpd_store_manifest(tpd_archive_store(archive), &result.id, &m, &err));
	ck_assert_str_eq(m.source, "");
	ck_assert_uint_eq(m.depth, 1);
	tpd_manifest_release(&m);
	assert_restores("run@20", dir);
}
END_TEST

/* A step that comes again under another file name, as nothing but a part of it changed: alike by role, as the layout sees it. */
START_TEST(rewritten_under_another_name)
{
	struct tpd_ingest_result first, second;
	struct tpd_manifest m;

	archive_open(16, 0, 2);
	checkpoint_make(scratch("files"), 30, 7);
	OK(ingest(scratch("files/model.safetensors"), "run", 30, &first));
	ck_assert_int_eq(rename(scratch("files/model.safetensors"), scratch("files/best.safetensors")), 0);
	file_flip(scratch("files/best.safetensors"), 300000);
	OK(ingest(scratch("files/best.safetensors"), "run", 30, &second));
	ck_assert_uint_eq(second.version, 2);
	OK(tpd_store_manifest(tpd_archive_store(archive), &second.id, &m, &err));
	ck_assert(m.has_ref && tpd_id_equal(&m.ref, &first.id));
	ck_assert_uint_lt(tpd_manifest_stored(&m), 20000);
	tpd_manifest_release(&m);
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

/* What can be seen at once to be no checkpoint makes neither a run nor stores its base. A run without any is not offered. */
START_TEST(refused_before_anything_is_made)
{
	struct tpd_capture *capture = NULL;
	struct tpd_ingest_result result;
	struct tpd_run_lock *lock = NULL;
	struct tpd_archive_name out;

	archive_open(16, 0, 1);
	mkdir(scratch("empty-1"), 0755);
	mkdir(scratch("empty-1/sub"), 0755);
	checkpoint_make(scratch("model"), 1, 7);
	OK(tpd_capture_open(scratch("empty-1"), &capture, &err));
	ck_assert_int_eq(tpd_archive_ingest_from(archive, scratch("model"), "x", 1, capture, NULL, &result, NULL, &err), TPD_USAGE);
	ck_assert_ptr_nonnull(strstr(err.text, "holds no regular file"));
	tpd_capture_close(capture);
	ck_assert(!file_exists(scratch("store/refs/x")));
	ck_assert(!file_exists(scratch("store/refs/models%%2Fmodel")));
	OK(tpd_store_run_lock(tpd_archive_store(archive), "idle", 0, &lock, &err));
	tpd_store_run_unlock(lock);
	ck_assert_int_eq(tpd_archive_resolve(archive, "nobody@1", &out, &err), TPD_NOT_FOUND);
	ck_assert_str_eq(err.text, "no run 'nobody': the store is empty");
	ingest_step(10);
	ck_assert_int_eq(tpd_archive_resolve(archive, "nobody@1", &out, &err), TPD_NOT_FOUND);
	ck_assert_str_eq(err.text, "no run 'nobody'; there is run");
	ck_assert_int_eq(tpd_archive_resolve(archive, "idle@1", &out, &err), TPD_NOT_FOUND);
	ck_assert_str_eq(err.text, "run 'idle' has no checkpoint yet");
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

/* Over-written in place after the capture, before it is read: where blocks are shared, what was there is stored all the same. */
START_TEST(clones_outlive_what_is_written_over)
{
	struct tpd_capture *capture = NULL;
	struct tpd_ingest_result result;
	int spool;
	bool cloned;

	archive_open(16, 0, 1);
	spool = tpd_store_dir(tpd_archive_store(archive));
	checkpoint_make(scratch("checkpoint-20"), 20, 7);
	checkpoint_make(scratch("kept"), 20, 7);
	OK(tpd_capture_open(scratch("checkpoint-20"), &capture, &err));
	cloned = tpd_capture_clone(capture, spool);
	ck_assert_msg(cloned || !getenv("TPD_TEST_REFLINKS"), "no clones on a file system that has them");
	OK(tpd_capture_detach(capture, &err));
	checkpoint_make(scratch("checkpoint-20"), 20, 8);
	if (cloned) {
		OK(tpd_archive_ingest(archive, "run", 20, capture, NULL, &result, NULL, &err));
		OK(restore("run@20", scratch("back")));
		ck_assert(file_equal(scratch("kept/optimizer.pt"), scratch("back/optimizer.pt")));
		ck_assert(file_equal(scratch("kept/model.safetensors"), scratch("back/model.safetensors")));
	} else {
		ck_assert_int_eq(tpd_archive_ingest(archive, "run", 20, capture, NULL, &result, NULL, &err), TPD_CONFLICT);
	}
	tpd_capture_close(capture);
	/* Changed between opening and detaching: void, with clones or without. */
	OK(tpd_capture_open(scratch("checkpoint-20"), &capture, &err));
	tpd_capture_clone(capture, spool);
	file_flip(scratch("checkpoint-20/optimizer.pt"), 5000);
	ck_assert_int_eq(tpd_capture_detach(capture, &err), TPD_CONFLICT);
	tpd_capture_close(capture);
}
END_TEST

/* A link on the way to a path is followed once, when it is made real, and never after. */
START_TEST(single_file_by_its_directory)
{
	struct tpd_capture *capture = NULL;

	mkdir(scratch("d"), 0755);
	file_write(scratch("d/step-1.bin"), "x", 1);
	ck_assert_int_eq(symlink("d", scratch("l")), 0);
	OK(tpd_capture_open(scratch("l/step-1.bin"), &capture, &err));
	ck_assert_ptr_nonnull(strstr(tpd_capture_source(capture)->origin, "/d/step-1.bin"));
	ck_assert_uint_eq(tpd_capture_source(capture)->count, 1);
	tpd_capture_close(capture);
}
END_TEST

/* A safetensors file of F32 tensors of 4096 elements called by `letters`, each of which moves a little with step. */
static void write_shard(const char *path, const char *letters, int step)
{
	struct tpd_buf header = {0}, file = {0};
	size_t count = strlen(letters);

	tpd_buf_u8(&header, '{');
	for (size_t i = 0; i < count; i++)
		tpd_buf_printf(&header, "%s\"%c\":{\"dtype\":\"F32\",\"shape\":[64,64],\"data_offsets\":[%zu,%zu]}", i ? "," : "",
			       letters[i], i * 16384, (i + 1) * 16384);
	tpd_buf_u8(&header, '}');
	tpd_buf_u64(&file, header.len);
	tpd_buf_put(&file, header.data, header.len);
	for (size_t i = 0; i < count; i++) {
		uint64_t start = (uint64_t)letters[i], change = (uint64_t)(letters[i] + step);

		for (int k = 0; k < 4096; k++) {
			float value = (float)(random_normal(&start) + 1e-4 * random_normal(&change));

			tpd_buf_put(&file, &value, sizeof(value));
		}
	}
	ck_assert_int_eq(tpd_buf_status(&file, &err), TPD_OK);
	file_write(path, file.data, file.len);
	tpd_buf_release(&header);
	tpd_buf_release(&file);
}

/* The model is saved in other shards than before: its tensors are found where they were. */
START_TEST(tensors_move_between_files)
{
	struct tpd_archive_name which;
	struct tpd_manifest m;
	unsigned deltas = 0;

	archive_open(16, 0, 1);
	mkdir(scratch("c-1"), 0755);
	write_shard(scratch("c-1/model-1-of-2.safetensors"), "abc", 1);
	write_shard(scratch("c-1/model-2-of-2.safetensors"), "de", 1);
	mkdir(scratch("c-2"), 0755);
	write_shard(scratch("c-2/model-1-of-3.safetensors"), "ab", 2);
	write_shard(scratch("c-2/model-2-of-3.safetensors"), "cd", 2);
	write_shard(scratch("c-2/model-3-of-3.safetensors"), "ef", 2); /* f is new */
	OK(ingest(scratch("c-1"), "run", 1, NULL));
	OK(ingest(scratch("c-2"), "run", 2, NULL));
	which = resolve("run@2");
	OK(tpd_store_manifest_keep(tpd_archive_store(archive), &which.id, TPD_MANIFEST_ALL, &m, &err));
	for (uint32_t f = 0; f < m.file_count; f++) {
		const struct tpd_entry *entry = &m.entries[m.files[f]];

		for (uint32_t s = 1; s < entry->segment_count; s++) {
			bool is_new = strcmp(entry->about[s].name, "f") == 0;

			ck_assert(entry->segments[s].has_ref == !is_new);
			ck_assert(entry->about[s].stats && entry->about[s].stats->has_delta == !is_new);
			deltas += entry->segments[s].has_ref;
		}
		ck_assert_ptr_null(entry->about[0].stats); /* what is beside the tensors is none */
	}
	ck_assert_uint_eq(deltas, 5);
	tpd_manifest_release(&m);
	OK(restore("run@2", scratch("back")));
	ck_assert(file_equal(scratch("c-2/model-2-of-3.safetensors"), scratch("back/model-2-of-3.safetensors")));
	ck_assert(file_equal(scratch("c-2/model-3-of-3.safetensors"), scratch("back/model-3-of-3.safetensors")));
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		steps_have_an_end,
		chain_restores_at_every_depth,
		grid_is_what_the_deltas_use,
		bytes_do_not_depend_on_threads,
		out_of_order_and_rewritten,
		interrupted_ingest_goes_on,
		what_is_unfinished_can_be_discarded,
		failures_say_where,
		changed_while_captured,
		deleted_after_capture_is_stored_whole,
		restore_stays_inside_and_refuses_to_overwrite,
		force_replaces_no_directory,
		setuid_does_not_become_roots,
		links_and_directories,
		directories_of_any_name,
		rewritten_under_another_name,
		opaque_files_use_the_parent,
		reference_without_its_original,
		refused_before_anything_is_made,
		names,
		replaced_while_captured,
		clones_outlive_what_is_written_over,
		single_file_by_its_directory,
		tensors_move_between_files,
	};

	return run_tests("archive", tests, TPD_ARRAY_LEN(tests));
}
