/* t_base.c - the error value, element types, digests and hex, the constants of sparsity. */
#include "base/tpd.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/digest.h"
#include "base/dtype.h"
#include "base/sparsity.h"

START_TEST(status_names)
{
	ck_assert_str_eq(tpd_status_name(TPD_OK), "ok");
	ck_assert_str_eq(tpd_status_name(TPD_MISSING_BASE), "missing-base");
	ck_assert_str_eq(tpd_status_name(TPD_CANCELLED), "cancelled");
	ck_assert_str_eq(tpd_status_name((enum tpd_status)-99), "unknown");
}
END_TEST

START_TEST(fail_fills_err)
{
	struct tpd_err err = {.sys = 7};

	ck_assert_int_eq(tpd_fail(&err, TPD_CORRUPT, "manifest of '%s': bad magic", "x"), TPD_CORRUPT);
	ck_assert_int_eq(err.status, TPD_CORRUPT);
	ck_assert_int_eq(err.sys, 0);
	ck_assert_str_eq(err.text, "manifest of 'x': bad magic");
	ck_assert_int_eq(tpd_fail_sys(&err, ENOSPC, "cannot rename '%s' to '%s'", "a", "b"), TPD_IO);
	ck_assert_int_eq(err.sys, ENOSPC);
	ck_assert_str_eq(err.text, "cannot rename 'a' to 'b': No space left on device");
	ck_assert_int_eq(tpd_err_prefix(&err, "run %d", 7), TPD_IO);
	ck_assert_str_eq(err.text, "run 7: cannot rename 'a' to 'b': No space left on device");
	ck_assert_int_eq(err.sys, ENOSPC);
	ck_assert_int_eq(tpd_fail_nomem(&err), TPD_NOMEM);
	ck_assert_str_eq(err.text, "out of memory");
}
END_TEST

START_TEST(fail_may_quote_itself)
{
	struct tpd_err err;

	tpd_fail(&err, TPD_IO, "inner");
	tpd_fail(&err, TPD_CORRUPT, "outer (%s)", err.text);
	ck_assert_str_eq(err.text, "outer (inner)");
	tpd_err_prefix(&err, "%s", err.text);
	ck_assert_str_eq(err.text, "outer (inner): outer (inner)");
}
END_TEST

START_TEST(fail_without_err)
{
	ck_assert_int_eq(tpd_fail(NULL, TPD_BUSY, "x"), TPD_BUSY);
	ck_assert_int_eq(tpd_fail_sys(NULL, EIO, "x"), TPD_IO);
	ck_assert_int_eq(tpd_fail_nomem(NULL), TPD_NOMEM);
	ck_assert_int_ne(tpd_err_prefix(NULL, "x"), TPD_OK);
}
END_TEST

START_TEST(long_texts_are_cut_at_the_head)
{
	char name[2 * TPD_ERR_TEXT];
	struct tpd_err err;

	memset(name, 'n', sizeof name);
	name[sizeof name - 1] = 0;
	tpd_fail_sys(&err, ENOSPC, "cannot open '%s'", name);
	ck_assert_uint_eq(strlen(err.text), TPD_ERR_TEXT - 1);
	ck_assert_ptr_nonnull(strstr(err.text, "nnn: No space left on device"));
	tpd_fail(&err, TPD_IO, "%s", name);
	tpd_err_prefix(&err, "%s", "where");
	ck_assert_uint_eq(strlen(err.text), TPD_ERR_TEXT - 1);
}
END_TEST

START_TEST(cleanup_attributes)
{
	int fd;

	{
		TPD_AUTO_CLOSE int scoped = open("/dev/null", O_RDONLY | O_CLOEXEC);
		TPD_AUTO_CLOSE TPD_UNUSED int never = -1;
		TPD_AUTO_FREE char *p = malloc(3); /* LeakSanitizer is the judge */

		ck_assert_ptr_nonnull(p);
		fd = scoped;
		ck_assert_int_ge(fd, 0);
	}
	ck_assert_int_eq(fcntl(fd, F_GETFD), -1);
	ck_assert_int_eq(errno, EBADF);
}
END_TEST

START_TEST(dtypes)
{
	enum tpd_dtype dtype = TPD_DTYPE_BYTES;

	ck_assert_str_eq(tpd_dtype_name(TPD_DTYPE_BF16), "BF16");
	ck_assert_str_eq(tpd_dtype_name((enum tpd_dtype)TPD_DTYPE_COUNT), "?");
	ck_assert_str_eq(tpd_dtype_name((enum tpd_dtype)-1), "?");
	ck_assert(tpd_dtype_from_name("F32xx", 3, &dtype));
	ck_assert_int_eq(dtype, TPD_DTYPE_F32);
	ck_assert(!tpd_dtype_from_name("F3", 2, &dtype));
	ck_assert(!tpd_dtype_from_name("f32", 3, &dtype));
	ck_assert_int_eq(dtype, TPD_DTYPE_F32);
	for (unsigned i = 0; i < TPD_DTYPE_COUNT; i++) {
		enum tpd_dtype d = (enum tpd_dtype)i;
		const char *name = tpd_dtype_name(d);
		unsigned width = tpd_dtype_width(d);

		ck_assert(tpd_dtype_from_name(name, strlen(name), &dtype));
		ck_assert_uint_eq(dtype, i);
		ck_assert(width == 1 || width == 2 || width == 4 || width == 8);
		ck_assert(tpd_dtype_bits(d) < 8 || tpd_dtype_bits(d) == 8 * width);
		if (tpd_dtype_exponent_bits(d))
			ck_assert_uint_eq(tpd_dtype_bits(d),
					  1 + tpd_dtype_exponent_bits(d) + tpd_dtype_mantissa_bits(d));
	}
	ck_assert_uint_eq(tpd_dtype_bits(TPD_DTYPE_F6_E2M3), 6);
	ck_assert_uint_eq(tpd_dtype_width(TPD_DTYPE_F4), 1);
	ck_assert_uint_eq(tpd_dtype_mantissa_bits(TPD_DTYPE_F32), 23);
	ck_assert_uint_eq(tpd_dtype_exponent_bits(TPD_DTYPE_F64), 0);
	ck_assert_uint_eq(tpd_dtype_bits((enum tpd_dtype)99), 0);
	ck_assert(tpd_dtype_has_stats(TPD_DTYPE_F64));
	ck_assert(!tpd_dtype_has_stats(TPD_DTYPE_I64));
}
END_TEST

START_TEST(sparsity_constants)
{
	ck_assert_double_eq(tpd_sparsity_thresholds[0], 1e-5);
	ck_assert_double_eq(tpd_sparsity_thresholds[TPD_SPARSITY_REAL - 1], 1e-2);
	ck_assert_double_eq(tpd_sparsity_percentiles[TPD_SPARSITY_PCT95], 95);
}
END_TEST

/* The digests' own published test values. */
START_TEST(digests)
{
	char hex[TPD_SHA256_HEX], hex2[TPD_SHA256_HEX];
	uint8_t xxh[TPD_XXH_LEN], sha[TPD_SHA256_LEN];
	struct tpd_sha256 *running = tpd_sha256_new();

	tpd_xxh128("", 0, xxh);
	tpd_hex(xxh, sizeof xxh, hex);
	ck_assert_str_eq(hex, "99aa06d3014798d86001c324468d497f");
	tpd_xxh128(NULL, 0, xxh);
	tpd_hex(xxh, sizeof xxh, hex2);
	ck_assert_str_eq(hex, hex2);
	ck_assert(tpd_xxh64("", 0) == 0x2d06800538d394c2ull);
	tpd_sha256_once("abc", 3, sha);
	tpd_hex(sha, sizeof sha, hex);
	ck_assert_str_eq(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");

	ck_assert_ptr_nonnull(running);
	for (int round = 0; round < 2; round++) { /* final makes it ready for the next one */
		tpd_sha256_update(running, "a", 1);
		tpd_sha256_update(running, NULL, 0);
		tpd_sha256_update(running, "bc", 2);
		tpd_sha256_final(running, sha);
		tpd_hex(sha, sizeof sha, hex2);
		ck_assert_str_eq(hex, hex2);
	}
	tpd_sha256_final(running, sha);
	tpd_hex(sha, sizeof sha, hex);
	ck_assert_str_eq(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
	tpd_sha256_once(NULL, 0, sha);
	tpd_hex(sha, sizeof sha, hex2);
	ck_assert_str_eq(hex, hex2);
	tpd_sha256_free(running);
	tpd_sha256_free(NULL);
}
END_TEST

START_TEST(hex)
{
	uint8_t out[2] = {0};

	ck_assert(tpd_unhex("00fF", out, 2));
	ck_assert_uint_eq(out[0], 0);
	ck_assert_uint_eq(out[1], 255);
	ck_assert(!tpd_unhex("00f", out, 2));
	ck_assert(!tpd_unhex("00ff0", out, 2));
	ck_assert(!tpd_unhex("00fg", out, 2));
	ck_assert(!tpd_unhex("", out, 2));
	ck_assert(tpd_unhex("", out, 0));
}
END_TEST

START_TEST(clocks)
{
	int64_t wall = tpd_clock_wall_ns(), steady = tpd_clock_steady_ms();

	usleep(2000);
	ck_assert_int_gt(wall, 1600000000000000000);
	ck_assert_int_ge(tpd_clock_steady_ms() - steady, 1);
	ck_assert_int_le(tpd_clock_steady_ms() - steady, 60000);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("base");
	TCase *tests = tcase_create("base");
	SRunner *runner = srunner_create(suite);
	int failed;

	suite_add_tcase(suite, tests);
	tcase_add_test(tests, status_names);
	tcase_add_test(tests, fail_fills_err);
	tcase_add_test(tests, fail_may_quote_itself);
	tcase_add_test(tests, fail_without_err);
	tcase_add_test(tests, long_texts_are_cut_at_the_head);
	tcase_add_test(tests, cleanup_attributes);
	tcase_add_test(tests, dtypes);
	tcase_add_test(tests, sparsity_constants);
	tcase_add_test(tests, digests);
	tcase_add_test(tests, hex);
	tcase_add_test(tests, clocks);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
