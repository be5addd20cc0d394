/* t_bytes.c - the writer and the bounded reader. */
#include "base/tpd.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

START_TEST(fields_round_trip)
{
	struct tpd_buf buf = {0};
	struct tpd_rd rd;
	char *s;

	tpd_buf_u8(&buf, 0xab);
	tpd_buf_u16(&buf, 0x1234);
	tpd_buf_u32(&buf, 0xdeadbeef);
	tpd_buf_u64(&buf, 0x0123456789abcdefull);
	tpd_buf_f64(&buf, -0.0);
	tpd_buf_varint(&buf, 300);
	tpd_buf_str(&buf, "name");
	tpd_buf_printf(&buf, "%d-%s", 42, "x");
	ck_assert_int_eq(tpd_buf_status(&buf, NULL), TPD_OK);
	ck_assert_uint_eq(buf.len, 1 + 2 + 4 + 8 + 8 + 2 + 5 + 4);
	ck_assert_mem_eq(buf.data, "\xab\x34\x12\xef\xbe\xad\xde\xef\xcd\xab\x89\x67\x45\x23\x01", 15);
	ck_assert_mem_eq(buf.data + 23, "\xac\x02\x04name42-x", 11);

	rd = tpd_rd_make(buf.data, buf.len);
	ck_assert_uint_eq(tpd_rd_u8(&rd), 0xab);
	ck_assert_uint_eq(tpd_rd_u16(&rd), 0x1234);
	ck_assert_uint_eq(tpd_rd_u32(&rd), 0xdeadbeef);
	ck_assert(tpd_rd_u64(&rd) == 0x0123456789abcdefull);
	ck_assert(signbit(tpd_rd_f64(&rd)));
	ck_assert_uint_eq(tpd_rd_varint(&rd), 300);
	s = tpd_rd_str(&rd, 4);
	ck_assert_str_eq(s, "name");
	free(s);
	ck_assert_uint_eq(tpd_rd_left(&rd), 4);
	ck_assert(tpd_rd_ok(&rd) && !tpd_rd_done(&rd));
	ck_assert_mem_eq(tpd_rd_bytes(&rd, 4), "42-x", 4);
	ck_assert(tpd_rd_done(&rd));
	tpd_buf_release(&buf);
	ck_assert_ptr_null(buf.data);
	tpd_buf_u8(&buf, 1); /* usable again */
	ck_assert_uint_eq(buf.len, 1);
	tpd_buf_release(&buf);
}
END_TEST

START_TEST(reading_past_the_end_sticks)
{
	struct tpd_rd rd = tpd_rd_make("\1\2\3", 3);

	ck_assert_uint_eq(tpd_rd_u32(&rd), 0);
	ck_assert(!tpd_rd_ok(&rd));
	ck_assert_uint_eq(tpd_rd_u8(&rd), 0); /* although a byte is there */
	ck_assert(!tpd_rd_done(&rd));
	rd = tpd_rd_make("\1\2\3", 3);
	ck_assert_ptr_null(tpd_rd_bytes(&rd, UINT64_MAX));
	ck_assert(!tpd_rd_ok(&rd));
	rd = tpd_rd_make(NULL, 0);
	ck_assert(tpd_rd_done(&rd));
	ck_assert_ptr_nonnull(tpd_rd_bytes(&rd, 0));
	ck_assert(tpd_rd_done(&rd));
	ck_assert_uint_eq(tpd_rd_u8(&rd), 0);
	ck_assert(!tpd_rd_ok(&rd));
}
END_TEST

START_TEST(varint_round_trip)
{
	for (unsigned bit = 0; bit <= 64; bit++) {
		for (int delta = -1; delta <= 1; delta++) {
			uint64_t v = (bit == 64 ? 0 : (uint64_t)1 << bit) + (uint64_t)(int64_t)delta;
			struct tpd_buf buf = {0};
			struct tpd_rd rd;

			tpd_buf_varint(&buf, v);
			ck_assert_uint_le(buf.len, 10);
			rd = tpd_rd_make(buf.data, buf.len);
			ck_assert(tpd_rd_varint(&rd) == v);
			ck_assert(tpd_rd_done(&rd));
			for (size_t cut = 0; cut < buf.len; cut++) {
				rd = tpd_rd_make(buf.data, cut);
				ck_assert(tpd_rd_varint(&rd) == 0);
				ck_assert(!tpd_rd_ok(&rd));
			}
			tpd_buf_release(&buf);
		}
	}
}
END_TEST

static bool varint_is_read(const char *bytes, size_t len)
{
	struct tpd_rd rd = tpd_rd_make(bytes, len);

	tpd_rd_varint(&rd);
	return tpd_rd_done(&rd);
}

START_TEST(varint_has_one_form)
{
	ck_assert(varint_is_read("\x00", 1));
	ck_assert(!varint_is_read("\x80\x00", 2));
	ck_assert(!varint_is_read("\xff\x80\x00", 3));
	ck_assert(varint_is_read("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 10));
	ck_assert(!varint_is_read("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 10));
	ck_assert(!varint_is_read("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00", 10));
	ck_assert(!varint_is_read("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x81\x00", 11));
}
END_TEST

static bool str_is_read(const char *bytes, size_t len, size_t max)
{
	struct tpd_rd rd = tpd_rd_make(bytes, len);
	char *s = tpd_rd_str(&rd, max);
	bool ok = tpd_rd_done(&rd);

	ck_assert_int_eq(ok, s != NULL);
	free(s);
	return ok;
}

START_TEST(strings_are_bounded)
{
	ck_assert(str_is_read("\3abc", 4, 3));
	ck_assert(!str_is_read("\3abc", 4, 2));
	ck_assert(!str_is_read("\4abc", 4, 9));
	ck_assert(!str_is_read("\3a\0c", 4, 9));
	ck_assert(str_is_read("\0", 1, 0));
	ck_assert(!str_is_read("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 10, SIZE_MAX));
}
END_TEST

START_TEST(no_memory_sticks)
{
	struct tpd_buf buf = {0};
	struct tpd_err err = {.status = TPD_OK};

	tpd_buf_u32(&buf, 7);
	tpd_buf_reserve(&buf, SIZE_MAX - 2); /* the sum overflows */
	ck_assert(buf.failed);
	tpd_buf_u32(&buf, 8);
	tpd_buf_printf(&buf, "%s", "more");
	ck_assert_uint_eq(buf.len, 4);
	ck_assert_int_eq(tpd_buf_status(&buf, &err), TPD_NOMEM);
	ck_assert_int_eq(err.status, TPD_NOMEM);
	tpd_buf_release(&buf);
	ck_assert(!buf.failed);
}
END_TEST

START_TEST(grows)
{
	struct tpd_buf buf = {0};

	for (uint32_t i = 0; i < 100000; i++)
		tpd_buf_u32(&buf, i);
	tpd_buf_put(&buf, NULL, 0);
	ck_assert_uint_eq(buf.len, 400000);
	for (uint32_t i = 0; i < 100000; i++)
		ck_assert_uint_eq(tpd_get_u32(buf.data + 4 * i), i);
	tpd_buf_release(&buf);
}
END_TEST

START_TEST(room_is_kept)
{
	uint8_t *buffer = NULL, *first;
	size_t cap = 0;

	ck_assert_int_eq(tpd_room(&buffer, &cap, 100, NULL), TPD_OK);
	ck_assert(buffer && cap == 100);
	first = buffer;
	ck_assert_int_eq(tpd_room(&buffer, &cap, 7, NULL), TPD_OK);
	ck_assert(buffer == first && cap == 100);
#ifndef __SANITIZE_ADDRESS__ /* which ends the program over such a size, and shall: nothing of ours asks for one */
	ck_assert_int_eq(tpd_room(&buffer, &cap, SIZE_MAX / 2, NULL), TPD_NOMEM);
	ck_assert(!buffer && cap == 0);
#endif
	ck_assert_int_eq(tpd_room(&buffer, &cap, 1, NULL), TPD_OK);
	free(buffer);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("bytes");
	TCase *tests = tcase_create("bytes");
	SRunner *runner = srunner_create(suite);
	int failed;

	suite_add_tcase(suite, tests);
	tcase_add_test(tests, fields_round_trip);
	tcase_add_test(tests, reading_past_the_end_sticks);
	tcase_add_test(tests, varint_round_trip);
	tcase_add_test(tests, varint_has_one_form);
	tcase_add_test(tests, strings_are_bounded);
	tcase_add_test(tests, no_memory_sticks);
	tcase_add_test(tests, grows);
	tcase_add_test(tests, room_is_kept);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
