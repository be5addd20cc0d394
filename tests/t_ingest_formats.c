/* t_ingest_formats.c - what companion files say reaches the store: the segments of a directory's files, as they are stored. */
#include "base/tpd.h"

#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "dcp_build.h"
#include "store/ingest.h"
#include "store/restore.h"
#include "store_help.h"

static struct tpd_source_entry regular(const char *name, const struct tpd_buf *bytes)
{
	struct tpd_source_entry entry = {.path = name, .type = TPD_ENTRY_FILE, .mode = 0644, .size = bytes->len};

	ck_assert_int_eq(tpd_io_publish(io, dir, name, bytes->data, bytes->len, true, NULL), TPD_OK);
	entry.fd = io->open(io, dir, name, O_RDONLY, 0);
	ck_assert_int_ge(entry.fd, 0);
	return entry;
}

START_TEST(distributed_checkpoint)
{
	static const char *const names[] = {"", "one", "two[3,0]", "rng.data/0"};
	struct tpd_buf file = {0}, metadata = {0};
	struct item items[ITEMS];
	struct tpd_store *store = open_store(TPD_STORE_CREATE);
	struct tpd_run_lock *lock = lock_run(store, RUN);
	struct tpd_pool *pool = NULL;
	struct tpd_ingest_result result;
	struct tpd_manifest m = {0};
	const struct tpd_entry *entry;

	build(&file, items);
	put_metadata(&metadata, items, ITEMS);
	{
		struct tpd_source_entry entries[] = {regular(".metadata", &metadata), regular(FILE_NAME, &file)};
		struct tpd_source source = {
			.kind = TPD_CHECKPOINT_DIR, .origin = "/x", .entries = entries, .count = TPD_ARRAY_LEN(entries)};
		struct tpd_ingest_options options = {.now_ns = 1};

		ck_assert_int_eq(tpd_pool_new(2, &pool, &err), TPD_OK);
		options.pool = pool;
		ck_assert_msg(tpd_ingest(lock, RUN, 1, &source, &options, &result, &err) == TPD_OK, "%s", err.text);
		for (size_t i = 0; i < TPD_ARRAY_LEN(entries); i++)
			io->close(io, entries[i].fd);
	}
	ck_assert_int_eq(tpd_store_manifest_keep(store, &result.id, TPD_MANIFEST_ALL, &m, &err), TPD_OK);
	ck_assert_uint_eq(m.file_count, 2);
	ck_assert_int_eq(m.entries[m.files[0]].format, TPD_FORMAT_OPAQUE);
	entry = &m.entries[m.files[1]];
	ck_assert_int_eq(entry->format, TPD_FORMAT_TORCH_DISTCP);
	ck_assert_uint_eq(entry->segment_count, TPD_ARRAY_LEN(names));
	for (uint32_t s = 0; s < entry->segment_count; s++) {
		ck_assert_str_eq(entry->about[s].name, names[s]);
		ck_assert_int_eq(entry->segments[s].dtype, s == 0 ? TPD_DTYPE_BYTES : TPD_DTYPE_F32);
	}
	tpd_manifest_release(&m);
	tpd_pool_free(pool);
	tpd_store_run_unlock(lock);
	tpd_store_close(store);
	tpd_buf_release(&file);
	tpd_buf_release(&metadata);
}
END_TEST

/* A file of one tensor by torch.save(): its members' prefix, the word in its pickle that differs, and which weights. */
static void put_saved(struct tpd_buf *file, const char *prefix, const char *word, uint64_t seed)
{
	struct pk_tensor tensor = {"FloatStorage", "0", 65536, 0, 2, {256, 256}, {256, 1}, NULL};
	struct tpd_buf pickle = {0}, weights = {0};
	struct zip zip = {.count = 0};
	uint64_t state = seed;
	char name[100];

	for (size_t i = 0; i < 65536; i++) {
		float value;

		state = state * 6364136223846793005u + 1442695040888963407u;
		value = (float)(int32_t)(state >> 32) / 4e9f;
		tpd_buf_put(&weights, &value, sizeof(value));
	}
	pk_proto(&pickle, 2);
	pk(&pickle, EMPTY_DICT);
	pk(&pickle, MARK);
	pk_str(&pickle, "path");
	pk_str(&pickle, word);
	pk_str(&pickle, "weight");
	pk_tensor(&pickle, &tensor);
	pk(&pickle, SETITEMS);
	pk(&pickle, STOP);
	snprintf(name, sizeof(name), "%s/data.pkl", prefix);
	add_bytes(&zip, name, pickle.data, pickle.len, DESCRIPTOR | ALIGNED);
	snprintf(name, sizeof(name), "%s/data/0", prefix);
	add_bytes(&zip, name, weights.data, weights.len, DESCRIPTOR | ALIGNED);
	finish(&zip, true, "");
	tpd_buf_put(file, zip.file.data, zip.file.len);
	tpd_buf_release(&zip.file);
	tpd_buf_release(&pickle);
	tpd_buf_release(&weights);
}

static struct tpd_ingest_result ingest_one(struct tpd_run_lock *lock, struct tpd_pool *pool, uint64_t step, const char *name,
					  enum tpd_checkpoint_kind kind, const struct tpd_buf *bytes)
{
	struct tpd_source_entry entry = regular(name, bytes);
	struct tpd_source source = {.kind = kind, .origin = "/x", .entries = &entry, .count = 1};
	struct tpd_ingest_options options = {.now_ns = 1, .pool = pool, .max_depth = 16, .no_original = true};
	struct tpd_ingest_result result = {0};

	ck_assert_msg(tpd_ingest(lock, RUN, step, &source, &options, &result, &err) == TPD_OK, "%s", err.text);
	ck_assert(!result.existed);
	io->close(io, entry.fd);
	return result;
}

/* Lightning's step=N.ckpt and last.ckpt: the same tensors in files of other names and lengths. In both orders; in directories, too. */
START_TEST(two_files_of_one_step)
{
	static const char *const names[] = {"step=7.ckpt", "last.ckpt"};
	static const char *const prefixes[] = {"step=7", "a_longer_prefix_that_moves_the_data_by_more_than_64_bytes_and_no_less"};
	enum tpd_checkpoint_kind kind = _i & 2 ? TPD_CHECKPOINT_DIR : TPD_CHECKPOINT_FILE;
	unsigned first = (unsigned)_i & 1, second = 1 - first;
	struct tpd_store *store = open_store(TPD_STORE_CREATE);
	struct tpd_run_lock *lock = lock_run(store, RUN);
	struct tpd_ingest_result results[3];
	struct tpd_pool *pool = NULL;
	struct tpd_buf files[3] = {{0}, {0}, {0}};
	struct tpd_manifest m = {0};

	ck_assert_int_eq(tpd_pool_new(2, &pool, &err), TPD_OK);
	put_saved(&files[0], prefixes[0], "", 7);
	put_saved(&files[1], prefixes[1], "/data/step=7.ckpt", 7);
	put_saved(&files[2], "step=8", "", 8);
	ck_assert_uint_ne(files[0].len, files[1].len);
	results[0] = ingest_one(lock, pool, 7, names[first], kind, &files[first]);
	ck_assert(!results[0].near_copy);
	results[1] = ingest_one(lock, pool, 7, names[second], kind, &files[second]);
	ck_assert(results[1].near_copy);
	ck_assert_uint_eq(results[1].version, 2);
	ck_assert_int_eq(tpd_store_manifest(store, &results[1].id, &m, &err), TPD_OK);
	ck_assert(m.has_ref && tpd_id_equal(&m.ref, &results[0].id));
	ck_assert_uint_eq(m.depth, 1);
	ck_assert_uint_lt(tpd_manifest_stored(&m), 3000); /* of 262,144 bytes of weights */
	tpd_manifest_release(&m);
	/* The next step refers to the first of the two: the chain does not grow by two links a step. */
	results[2] = ingest_one(lock, pool, 8, "step=8.ckpt", TPD_CHECKPOINT_FILE, &files[2]);
	ck_assert_int_eq(tpd_store_manifest(store, &results[2].id, &m, &err), TPD_OK);
	ck_assert(m.has_w1 && tpd_id_equal(&m.w1, &results[0].id));
	tpd_manifest_release(&m);
	for (size_t i = 0; i < 3; i++)
		tpd_buf_release(&files[i]);
	tpd_pool_free(pool);
	tpd_store_run_unlock(lock);
	tpd_store_close(store);
}
END_TEST

static struct tpd_id ingest_many(struct tpd_run_lock *lock, struct tpd_pool *pool, uint64_t step, unsigned count, uint8_t seed,
				 uint8_t digest[TPD_SHA256_LEN])
{
	struct tpd_buf file = {0}, metadata = {0};
	struct tpd_ingest_options options = {.now_ns = 1, .pool = pool, .max_depth = 16, .part_size = 1 << 20, .no_original = true};
	struct tpd_sha256 *sha = tpd_sha256_new();
	struct tpd_ingest_result result;

	build_many(&file, &metadata, count, 4, seed);
	tpd_sha256_update(sha, file.data, file.len);
	tpd_sha256_final(sha, digest);
	tpd_sha256_free(sha);
	{
		struct tpd_source_entry entries[] = {regular(".metadata", &metadata), regular(FILE_NAME, &file)};
		struct tpd_source source = {
			.kind = TPD_CHECKPOINT_DIR, .origin = "/x", .entries = entries, .count = TPD_ARRAY_LEN(entries)};

		ck_assert_msg(tpd_ingest(lock, RUN, step, &source, &options, &result, &err) == TPD_OK, "%s", err.text);
		for (size_t i = 0; i < TPD_ARRAY_LEN(entries); i++)
			io->close(io, entries[i].fd);
	}
	tpd_buf_release(&file);
	tpd_buf_release(&metadata);
	return result.id;
}

/* More glue than a chunk, and more than other files may have, woven in between the tensors again: the file's own SHA-256. */
START_TEST(much_glue)
{
	enum { COUNT = 31000 };
	struct tpd_store *store = open_store(TPD_STORE_CREATE);
	struct tpd_run_lock *lock = lock_run(store, RUN);
	struct tpd_verify_options options = {0};
	struct tpd_pool *pool = NULL;

	ck_assert_int_eq(tpd_pool_new(2, &pool, &err), TPD_OK);
	options.pool = pool;
	for (uint8_t step = 1; step <= 2; step++) {
		uint8_t digest[TPD_SHA256_LEN];
		struct tpd_id id = ingest_many(lock, pool, step, COUNT, (uint8_t)(step - 1), digest);
		struct tpd_manifest m = {0};
		const struct tpd_entry *entry;

		ck_assert_int_eq(tpd_store_manifest_keep(store, &id, TPD_MANIFEST_SEGMENTS, &m, &err), TPD_OK);
		entry = &m.entries[m.files[1]];
		ck_assert_int_eq(entry->format, TPD_FORMAT_TORCH_DISTCP);
		ck_assert_uint_eq(entry->segment_count, COUNT + 1);
		ck_assert_uint_gt(entry->segments[0].length, TPD_FORMAT_MAX_GLUE);
		ck_assert_mem_eq(entry->sha256, digest, sizeof(digest));
		ck_assert_uint_eq(m.depth, step - 1u);
		tpd_manifest_release(&m);
		ck_assert_msg(tpd_verify(store, &id, &options, &err) == TPD_OK, "%s", err.text);
	}
	tpd_pool_free(pool);
	tpd_store_run_unlock(lock);
	tpd_store_close(store);
}
END_TEST

/* A disk that gets full, at each call: the message says where the file lies that could not be written. */
START_TEST(failures_name_the_path)
{
	struct fault fault = {.fail_at = -1};
	struct tpd_io faulty = fault_io(&fault);
	unsigned parts = 0, manifests = 0, begins = 0;
	struct tpd_pool *pool = NULL;
	struct tpd_buf file = {0};
	bool fired = true;

	ck_assert_int_eq(tpd_pool_new(1, &pool, &err), TPD_OK);
	put_saved(&file, "step=7", "", 7);
	tpd_store_close(open_store(TPD_STORE_CREATE));
	for (int call = 0; fired; call++) { /* each as a step of its own: some failures may pass */
		struct tpd_source_entry entry = regular("step=7.ckpt", &file);
		struct tpd_source source = {.kind = TPD_CHECKPOINT_FILE, .origin = "/x", .entries = &entry, .count = 1};
		struct tpd_ingest_options options = {.now_ns = 1, .pool = pool};
		struct tpd_store *store = NULL;
		struct tpd_run_lock *lock = NULL;
		struct tpd_ingest_result result;
		char where[1200];
		bool failed;

		fault.fail_at = -1;
		ck_assert_int_eq(tpd_store_open(&faulty, path, TPD_STORE_CREATE, 0, &store, &err), TPD_OK);
		ck_assert_msg(tpd_store_run_lock(store, RUN, 0, &lock, &err) == TPD_OK, "%d: %s", call, err.text);
		fault = (struct fault){.fail_at = call, .sys = ENOSPC};
		failed = tpd_ingest(lock, RUN, (uint64_t)call, &source, &options, &result, &err) != TPD_OK;
		fired = fault.calls > call;
		fault.fail_at = -1;
		if (failed && strstr(err.text, "f00000.p00000.tmp")) { /* reading one is told with its checkpoint and file */
			snprintf(where, sizeof(where), "'%s/ingest/sweep%%2Flr3@%d/f00000.p00000.tmp'", path, call);
			ck_assert_msg(strstr(err.text, where) != NULL, "%s", err.text);
			parts++;
		}
		if (failed && strstr(err.text, "manifest'")) {
			snprintf(where, sizeof(where), "ingest/sweep%%2Flr3@%d/manifest'", call);
			ck_assert_msg(strstr(err.text, where) != NULL, "%s", err.text);
			manifests++;
		}
		if (failed && strstr(err.text, "begin'") && !strstr(err.text, "cannot stat") && !strstr(err.text, "cannot remove")) {
			snprintf(where, sizeof(where), "ingest/sweep%%2Flr3@%d/begin'", call);
			ck_assert_msg(strstr(err.text, where) != NULL, "%s", err.text);
			begins++;
		}
		tpd_store_ingest_discard(lock, (uint64_t)call, NULL);
		tpd_store_run_unlock(lock);
		tpd_store_close(store);
		io->close(io, entry.fd);
	}
	ck_assert_msg(parts > 4 && manifests > 2 && begins > 2, "%u parts, %u manifests, %u begins", parts, manifests, begins);
	tpd_buf_release(&file);
	tpd_pool_free(pool);
}
END_TEST

/* A file that cannot be read is told of with its checkpoint. */
START_TEST(an_unreadable_source_is_named)
{
	struct tpd_store *store = open_store(TPD_STORE_CREATE);
	struct tpd_source_entry entry = {.path = "model.bin", .type = TPD_ENTRY_FILE, .mode = 0644, .size = 1000, .fd = -1};
	struct tpd_source source = {.kind = TPD_CHECKPOINT_DIR, .origin = "/runs/checkpoint-7", .entries = &entry, .count = 1};
	struct tpd_ingest_options options = {.now_ns = 1};
	struct tpd_run_lock *lock = NULL;
	struct tpd_ingest_result result;

	ck_assert_int_eq(tpd_pool_new(1, &options.pool, &err), TPD_OK);
	ck_assert_int_eq(tpd_store_run_lock(store, RUN, 0, &lock, &err), TPD_OK);
	ck_assert_int_eq(tpd_ingest(lock, RUN, 7, &source, &options, &result, &err), TPD_IO);
	ck_assert_str_eq(err.text, "'/runs/checkpoint-7': cannot read 'model.bin': Bad file descriptor");
	tpd_store_run_unlock(lock);
	tpd_store_close(store);
	tpd_pool_free(options.pool);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("ingest_formats");
	TCase *tests = tcase_create("ingest_formats");
	SRunner *runner = srunner_create(suite);
	int failed;

	suite_add_tcase(suite, tests);
	tcase_add_checked_fixture(tests, set_up, tear_down);
	tcase_set_timeout(tests, 120);
	tcase_add_test(tests, distributed_checkpoint);
	tcase_add_test(tests, failures_name_the_path);
	tcase_add_test(tests, an_unreadable_source_is_named);
	tcase_add_test(tests, much_glue);
	tcase_add_loop_test(tests, two_files_of_one_step, 0, 4);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
