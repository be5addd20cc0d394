/*
 * archive_help.h - for the tests of the archive: one in a scratch directory, checkpoints into it and back.
 */
#ifndef TESTS_ARCHIVE_HELP_H
#define TESTS_ARCHIVE_HELP_H

#include "base/tpd.h"

#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "archive/archive.h"
#include "base/bytes.h"
#include "files.h"
#include "store/chain.h"
#include "store/part.h"

static struct tpd_err err;
static struct tpd_archive *archive;

#define OK(call) ck_assert_msg((call) == TPD_OK, "%s", err.text)

static TPD_UNUSED void archive_open(uint32_t max_depth, uint64_t part_size, unsigned threads)
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

static TPD_UNUSED void archive_close(void)
{
	tpd_archive_close(archive);
	archive = NULL;
}

static TPD_UNUSED enum tpd_status ingest(const char *path, const char *run, uint64_t step, struct tpd_ingest_result *out)
{
	struct tpd_capture *capture = NULL;
	struct tpd_ingest_result result;
	enum tpd_status status = tpd_capture_open(path, &capture, &err);

	if (!status)
		status = tpd_archive_ingest(archive, run, step, capture, NULL, out ? out : &result, NULL, &err);
	tpd_capture_close(capture);
	return status;
}

static TPD_UNUSED void ingest_step(uint64_t step)
{
	checkpoint_make(scratch("checkpoint-%d", (int)step), step, 7);
	OK(ingest(scratch("checkpoint-%d", (int)step), "run", step, NULL));
}

static TPD_UNUSED struct tpd_archive_name resolve(const char *name)
{
	struct tpd_archive_name out = {0};

	OK(tpd_archive_resolve(archive, name, &out, &err));
	return out;
}

static TPD_UNUSED enum tpd_status restore(const char *name, const char *to)
{
	struct tpd_archive_name which = resolve(name);

	return tpd_archive_restore(archive, &which.id, to, NULL, false, NULL, &err);
}

static TPD_UNUSED void assert_restores(const char *name, const char *original)
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

static TPD_UNUSED uint32_t depth_of(const char *name)
{
	struct tpd_archive_name which = resolve(name);
	struct tpd_manifest m;
	uint32_t depth;

	OK(tpd_store_manifest(tpd_archive_store(archive), &which.id, &m, &err));
	depth = m.depth;
	tpd_manifest_release(&m);
	return depth;
}

static TPD_UNUSED void setup(void)
{
	scratch_make();
	memset(&err, 0, sizeof(err));
}

static TPD_UNUSED void teardown(void)
{
	archive_close();
	scratch_remove();
}

/* Path of a part of a checkpoint in the store. */
static TPD_UNUSED const char *part_path(const char *name, unsigned file, unsigned part)
{
	struct tpd_archive_name which = resolve(name);
	char hex[TPD_ID_HEX];

	tpd_id_hex(&which.id, hex);
	return scratch("store/objects/%.2s/%s.0/f%05u.p%05u", hex, hex, file, part);
}

static TPD_UNUSED enum tpd_status count_row(void *arg, const struct tpd_catalog_row *row TPD_UNUSED, struct tpd_err *e TPD_UNUSED)
{
	++*(unsigned *)arg;
	return TPD_OK;
}

struct stopper {
	atomic_bool cancel;
	int after;
};

static TPD_UNUSED void stop_after(void *arg, uint64_t done TPD_UNUSED, uint64_t total TPD_UNUSED)
{
	struct stopper *stopper = arg;

	if (--stopper->after <= 0)
		atomic_store(&stopper->cancel, true);
}

/* A test program's main: every test with a fresh directory. */
static TPD_UNUSED int run_tests(const char *name, const TTest *const *tests, size_t count)
{
	Suite *suite = suite_create(name);
	TCase *tc = tcase_create(name);
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 600); /* a thread sanitizer on a busy machine */
	for (size_t i = 0; i < count; i++)
		tcase_add_test(tc, tests[i]);
	suite_add_tcase(suite, tc);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* A stored manifest that was changed, in the place of what is there, as by somebody who can make checksums right; or the writer refuses it. */
static TPD_UNUSED void forge_manifest(const struct tpd_manifest *m, enum tpd_status expect)
{
	struct tpd_buf out = {0};
	char hex[TPD_ID_HEX];

	tpd_id_hex(&m->id, hex);
	ck_assert_int_eq(tpd_manifest_write(m, &out, &err), expect);
	if (expect == TPD_OK) {
		ck_assert_int_eq(unlink(scratch("store/objects/%.2s/%s.0/manifest", hex, hex)), 0);
		file_write(scratch("store/objects/%.2s/%s.0/manifest", hex, hex), out.data, out.len);
	}
	tpd_buf_release(&out);
}

#endif
