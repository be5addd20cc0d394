/*
 * t_torch_legacy.c - files as torch.save() wrote them before PyTorch 1.6: honest ones are understood, each with one
 * thing wrong is opaque, for exactly that reason.
 */
#include "base/tpd.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "format/format.h"
#include "format_file.h"
#include "pickle_build.h"

struct wrong {
	uint8_t protocol;          /* of the magic's pickle; 0: 2 */
	uint64_t version;          /* 0: 1001 */
	bool big_endian;
	const char *type;          /* of the first storage; NULL: FloatStorage */
	const char *keys[3];       /* [0] NULL: the two that there are */
	uint64_t numel, count;     /* of the first storage, in the pickle and before the data; 0: 30 */
	uint64_t data;             /* bytes of the second; 0: 128 */
	bool tuple;                /* the keys are one */
	size_t padding;            /* bytes of a text in the object */
};

static void put_magic(struct tpd_buf *buf, uint8_t protocol)
{
	pk_proto(buf, protocol);
	if (protocol >= 4) {
		tpd_buf_u8(buf, 0x95);
		tpd_buf_u64(buf, 13);
	}
	tpd_buf_put(buf, "\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", 13);
}

static void put_system(struct tpd_buf *buf, bool big_endian)
{
	pk_proto(buf, 2);
	pk(buf, EMPTY_DICT);
	pk(buf, MARK);
	pk_str(buf, "protocol_version");
	pk_int(buf, 1001);
	pk_str(buf, "little_endian");
	pk(buf, big_endian ? FALSE_ : TRUE_);
	pk(buf, SETITEMS);
	pk(buf, STOP);
}

/* {"w": 5 x 6 floats in storage 711, "h": 64 halves in storage 255}, and the keys. */
static void put_object(struct tpd_buf *buf, const struct wrong *wrong)
{
	struct pk_tensor w = {"FloatStorage", "711", 30, 0, 2, {5, 6}, {6, 1}, NULL};
	struct pk_tensor h = {"HalfStorage", "255", 64, 0, 1, {64}, {1}, NULL};
	static const char *const keys[3] = {"711", "255", NULL};
	const char *const *key = wrong->keys[0] ? wrong->keys : keys;

	if (wrong->type)
		w.type = wrong->type;
	if (wrong->numel)
		w.numel = wrong->numel;
	pk_proto(buf, 2);
	pk(buf, EMPTY_DICT);
	pk(buf, MARK);
	pk_str(buf, "h");
	pk_tensor(buf, &h);
	pk_str(buf, "w");
	pk_tensor(buf, &w);
	pk(buf, SETITEMS);
	if (wrong->padding) {
		pk_str(buf, "note");
		tpd_buf_u8(buf, 'X');
		tpd_buf_u32(buf, (uint32_t)wrong->padding);
		for (size_t i = 0; i < wrong->padding; i++)
			tpd_buf_u8(buf, 'x');
		pk(buf, SETITEM);
	}
	pk(buf, STOP);
	pk_proto(buf, 2);
	pk(buf, MARK);
	for (; *key; key++)
		pk_str(buf, *key);
	pk(buf, wrong->tuple ? TUPLE : LIST);
	pk(buf, STOP);
}

static void put_data(struct tpd_buf *buf, uint64_t count, uint64_t bytes)
{
	tpd_buf_u64(buf, count);
	for (uint64_t i = 0; i < bytes; i++)
		tpd_buf_u8(buf, (uint8_t)i);
}

static struct tpd_buf build(const struct wrong *wrong)
{
	struct tpd_buf buf = {0};

	put_magic(&buf, wrong->protocol ? wrong->protocol : 2);
	pk_proto(&buf, 2);
	pk_int(&buf, wrong->version ? wrong->version : 1001);
	pk(&buf, STOP);
	put_system(&buf, wrong->big_endian);
	put_object(&buf, wrong);
	put_data(&buf, wrong->count ? wrong->count : 30, 120);
	put_data(&buf, 64, wrong->data ? wrong->data : 128);
	return buf;
}

static const struct {
	struct wrong wrong;
	size_t segments;
	const char *reason;
} files[] = {
	{{.protocol = 0}, 2, ""},
	{{.protocol = 3}, 2, ""},
	{{.protocol = 4}, 2, ""},
	{{.padding = 300000}, 2, ""},           /* more than the first window */
	{{.padding = 3000000}, 2, ""},          /* more than the second */
	{{.version = 1000}, 0, "another protocol than 1001"},
	{{.big_endian = true}, 0, "it is not little-endian"},
	{{.tuple = true}, 0, "its keys are no list"},
	{{.type = "OtherStorage"}, 0, "a storage of unknown length"},
	{{.type = "DoubleStorage"}, 0, "a storage reaches past the end of the file"}, /* the second, then */
	{{.keys = {"711", "712"}}, 0, "a storage of unknown length"},
	{{.keys = {"711"}}, 0, "bytes follow the last storage"},
	{{.keys = {"711", "711"}}, 0, "a storage twice"},
	{{.numel = 31}, 0, "a storage of two lengths"},
	{{.count = 31}, 0, "a storage of two lengths"},
	{{.count = UINT64_MAX}, 0, "a storage of two lengths"},
	{{.numel = 1ull << 61}, 0, "a storage reaches past the end of the file"},
	{{.numel = 1ull << 62}, 0, "a storage of unknown length"},
	{{.numel = UINT64_MAX}, 0, "a storage of unknown length"},
	{{.data = 127}, 0, "a storage reaches past the end of the file"},
	{{.data = 129}, 0, "bytes follow the last storage"},
};

START_TEST(file_of_each_kind)
{
	struct tpd_buf buf = build(&files[_i].wrong);
	struct tpd_format_layout layout = parse_bytes("x", buf.data, buf.len);
	const char *skip = "torch legacy: ";

	ck_assert_str_eq(layout.reason[0] ? layout.reason + strlen(skip) : "", files[_i].reason);
	ck_assert_uint_eq(layout.count, files[_i].segments);
	if (layout.count > 0) {
		ck_assert_int_eq(layout.kind, TPD_FORMAT_TORCH_LEGACY);
		ck_assert_str_eq(layout.segments[0].name, "w");
		ck_assert_int_eq(layout.segments[0].dtype, TPD_DTYPE_F32);
		ck_assert_uint_eq(layout.segments[0].ndim, 2);
		ck_assert_uint_eq(layout.segments[0].dims[1], 6);
		ck_assert_uint_eq(layout.segments[0].offset, buf.len - 128 - 8 - 120);
		ck_assert_str_eq(layout.segments[1].name, "h");
		ck_assert_int_eq(layout.segments[1].dtype, TPD_DTYPE_F16);
		ck_assert_uint_eq(layout.segments[1].offset, buf.len - 128);
	}
	tpd_format_layout_release(&layout);
	tpd_buf_release(&buf);
}
END_TEST

START_TEST(truncated_anywhere)
{
	struct tpd_buf buf = build(&files[0].wrong);

	for (size_t size = 0; size < buf.len; size++) {
		struct tpd_format_layout layout = parse_bytes("x", buf.data, size);

		ck_assert_int_eq(layout.kind, TPD_FORMAT_OPAQUE);
		ck_assert_int_eq(layout.reason[0] != 0, size >= 15);
		tpd_format_layout_release(&layout);
	}
	tpd_buf_release(&buf);
}
END_TEST

START_TEST(any_byte_changed)
{
	struct tpd_buf buf = build(&files[0].wrong);

	change_each_byte("x", buf.data, buf.len, buf.len);
	tpd_buf_release(&buf);
}
END_TEST

START_TEST(failing_reads_end_the_parse)
{
	struct wrong large = {.padding = 300000};
	struct tpd_buf buf = build(&large);
	int at = 0;

	for (;;) {
		struct format_file file = {.data = buf.data, .size = buf.len, .fail_at = ++at};
		struct tpd_format_layout layout;

		if (tpd_format_parse("x", file.size, format_file_read, &file, NULL, &layout, NULL) == TPD_OK) {
			tpd_format_layout_release(&layout);
			break;
		}
	}
	ck_assert_int_eq(at, 1 + 2 + 2 + 1); /* the head, two windows, two counts; one that does not fail */
	tpd_buf_release(&buf);
}
END_TEST

/* A pickle without an end: no more is read than may be glue, and a seventh of it before. */
START_TEST(endless_pickle)
{
	struct tpd_buf buf = {0};
	struct format_file file;
	struct tpd_format_layout layout;

	put_magic(&buf, 2);
	for (size_t i = 0; i < TPD_FORMAT_MAX_GLUE + 1000; i++)
		tpd_buf_u8(&buf, 'N');
	file = (struct format_file){.data = buf.data, .size = buf.len};
	ck_assert_int_eq(tpd_format_parse("x", file.size, format_file_read, &file, NULL, &layout, NULL), TPD_OK);
	ck_assert_int_eq(layout.kind, TPD_FORMAT_OPAQUE);
	ck_assert_str_eq(layout.reason, "torch legacy: too many opcodes");
	ck_assert_uint_lt(file.bytes_read, TPD_FORMAT_MAX_GLUE + TPD_FORMAT_MAX_GLUE / 7 + 32);
	tpd_format_layout_release(&layout);
	tpd_buf_release(&buf);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("torch_legacy");
	TCase *tests = tcase_create("torch_legacy");
	SRunner *runner = srunner_create(suite);
	int failed;

	suite_add_tcase(suite, tests);
	tcase_set_timeout(tests, 120);
	tcase_add_loop_test(tests, file_of_each_kind, 0, (int)TPD_ARRAY_LEN(files));
	tcase_add_test(tests, truncated_anywhere);
	tcase_add_test(tests, any_byte_changed);
	tcase_add_test(tests, failing_reads_end_the_parse);
	tcase_add_test(tests, endless_pickle);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
