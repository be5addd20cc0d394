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

int main(void)
{
	Suite *suite = suite_create("ingest_formats");
	TCase *tests = tcase_create("ingest_formats");
	SRunner *runner = srunner_create(suite);
	int failed;

	suite_add_tcase(suite, tests);
	tcase_add_checked_fixture(tests, set_up, tear_down);
	tcase_add_test(tests, distributed_checkpoint);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
