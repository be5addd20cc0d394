/*
 * t_gguf.c - headers as llama.cpp writes them are understood; each with one field that lies is opaque, for exactly
 * that reason.
 */
#include "base/tpd.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "format/format.h"
#include "format_file.h"

/* ---- the builder ---- */

enum { U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 };

static void put_string(struct tpd_buf *buf, const char *text)
{
	tpd_buf_u64(buf, strlen(text));
	tpd_buf_put(buf, text, strlen(text));
}

static void put_key(struct tpd_buf *buf, const char *key, uint32_t type)
{
	put_string(buf, key);
	tpd_buf_u32(buf, type);
}

static void put_zeros(struct tpd_buf *buf, size_t count)
{
	while (count-- > 0)
		tpd_buf_u8(buf, 0);
}

struct info {
	const char *name;
	uint32_t ndim;
	uint64_t dims[5];
	uint32_t type;
	uint64_t offset;
};

/* An honest header, and what of it shall be otherwise: what is 0 stays as it is. */
struct model {
	uint32_t version;
	uint64_t tensors, pairs;
	uint32_t alignment;
	uint32_t alignment_type, other_type;
	uint32_t array_type;
	uint64_t array_count, string_length;
	size_t vocabulary; /* strings of 2 bytes */
	struct info info;  /* the third: wte, 64 x 3 floats, after the two others */
	size_t data;       /* bytes behind the header's padding */
};

#define PAIRS 17
#define TENSORS 3
#define DATA (34 * 4 + 24 + 128 + 32 + 64 * 3 * 4)

/* Pairs of every type. */
static void put_pairs(struct tpd_buf *buf, const struct model *model)
{
	static const uint8_t widths[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

	for (uint32_t type = U8; type <= F64; type++) {
		if (type == STRING || type == ARRAY)
			continue;
		put_key(buf, "scalar", type);
		put_zeros(buf, widths[type]);
	}
	put_key(buf, "general.name", STRING);
	put_string(buf, "a model");
	put_key(buf, "ids", ARRAY);
	tpd_buf_u32(buf, model->array_type ? model->array_type : I32);
	tpd_buf_u64(buf, model->array_count ? model->array_count : 5);
	put_zeros(buf, 20);
	put_key(buf, "tokens", ARRAY);
	tpd_buf_u32(buf, STRING);
	tpd_buf_u64(buf, model->vocabulary + 1);
	for (size_t i = 0; i < model->vocabulary; i++)
		put_string(buf, "to");
	tpd_buf_u64(buf, model->string_length ? model->string_length : 3);
	tpd_buf_put(buf, "ken", 3);
	put_key(buf, "general.alignment", model->alignment_type ? model->alignment_type : U32);
	tpd_buf_u32(buf, model->alignment ? model->alignment : 32);
	put_key(buf, "empty", ARRAY);
	tpd_buf_u32(buf, U8);
	tpd_buf_u64(buf, 0);
	put_key(buf, "other", model->other_type ? model->other_type : U32);
	put_zeros(buf, 4);
}

static void put_info(struct tpd_buf *buf, const struct info *info)
{
	put_string(buf, info->name);
	tpd_buf_u32(buf, info->ndim);
	for (uint32_t i = 0; i < TPD_MIN(info->ndim, 5u); i++)
		tpd_buf_u64(buf, info->dims[i]);
	tpd_buf_u32(buf, info->type);
	tpd_buf_u64(buf, info->offset);
}

/* *out_data: where the data begins. */
static struct tpd_buf build(const struct model *model, size_t *out_data)
{
	static const struct info q = {"q", 2, {64, 2}, 8, 0}, h = {"h", 1, {64}, 1, 160},
				 w = {"wte", 2, {64, 3}, 0, 320};
	struct tpd_buf buf = {0};
	size_t alignment = model->alignment ? model->alignment : 32;

	tpd_buf_put(&buf, "GGUF", 4);
	tpd_buf_u32(&buf, model->version ? model->version : 3);
	tpd_buf_u64(&buf, model->tensors ? model->tensors : TENSORS);
	tpd_buf_u64(&buf, model->pairs ? model->pairs : PAIRS);
	put_pairs(&buf, model);
	put_info(&buf, model->info.name ? &model->info : &w);
	put_info(&buf, &h);
	put_info(&buf, &q);
	while (buf.len % alignment != 0)
		tpd_buf_u8(&buf, 0);
	*out_data = buf.len;
	put_zeros(&buf, model->data ? model->data : DATA);
	return buf;
}

/* ---- */

static const struct {
	struct model model;
	const char *reason; /* "": understood */
} models[] = {
	{{.version = 3}, ""},
	{{.version = 2}, ""},
	{{.alignment = 8}, ""},
	{{.vocabulary = 50000}, ""},  /* 500 KB: more than the first window */
	{{.vocabulary = 250000}, ""}, /* more than the second */
	{{.data = DATA + 24}, ""},
	{{.version = 1}, "another version than 2 and 3, or big-endian"},
	{{.version = 0x03000000}, "another version than 2 and 3, or big-endian"},
	{{.tensors = UINT64_MAX}, "more tensors or pairs than a header has room for"},
	{{.pairs = UINT64_MAX}, "more tensors or pairs than a header has room for"},
	{{.tensors = 600000}, "the header ends too early, or is too long"},
	{{.pairs = PAIRS + 1}, "the header ends too early, or is too long"}, /* an info is taken for a pair */
	{{.alignment = 12}, "an alignment that is none"},
	{{.alignment_type = I32}, "an alignment that is none"},
	{{.alignment = 64}, "a tensor that is not aligned"},
	{{.other_type = 13}, "a value of an unknown type"},
	{{.other_type = UINT32_MAX}, "a value of an unknown type"},
	{{.array_type = ARRAY}, "an array of an unknown type, or of arrays"},
	{{.array_type = 13}, "an array of an unknown type, or of arrays"},
	{{.array_count = UINT64_MAX}, "an array that is longer than the file"},
	{{.array_count = 1ull << 62}, "an array that is longer than the file"},
	{{.array_count = 100000}, "an array that is longer than the file"},
	{{.string_length = UINT64_MAX}, "the header ends too early, or is too long"},
	{{.string_length = 1ull << 40}, "the header ends too early, or is too long"},
	{{.data = DATA - 1}, "a tensor reaches past the end of the file"},
	{{.info = {"w", 2, {64, 3}, 0, 256}}, "tensors overlap"},
	{{.info = {"w", 2, {64, 3}, 0, 321}}, "a tensor that is not aligned"},
	{{.info = {"w", 2, {64, 3}, 0, UINT64_MAX - 31}}, "a tensor reaches past the end of the file"},
	{{.info = {"w", 5, {1, 1, 1, 1, 1}, 0, 320}}, "more than four dimensions"},
	{{.info = {"w", UINT32_MAX, {1}, 0, 320}}, "more than four dimensions"},
	{{.info = {"w", 2, {64, 3}, 4, 320}}, "a tensor of an unknown type"}, /* Q4_2, which is no more */
	{{.info = {"w", 2, {64, 3}, UINT32_MAX, 320}}, "a tensor of an unknown type"},
	{{.info = {"w", 2, {64, 3}, 10, 320}}, "a row that is no whole number of blocks"},
	{{.info = {"w", 0, {0}, 10, 320}}, "a row that is no whole number of blocks"},
	{{.info = {"w", 3, {64, 1ull << 32, 1ull << 32}, 0, 320}}, "the shape's product overflows"},
	{{.info = {"w", 2, {64, 1ull << 57}, 0, 320}}, "the shape's size overflows"},
	{{.info = {"\xff", 2, {64, 3}, 0, 320}}, "a name that is none"},
};

START_TEST(model_of_each_kind)
{
	size_t data;
	struct tpd_buf buf = build(&models[_i].model, &data);
	struct tpd_format_layout layout = parse_bytes("x", buf.data, buf.len);
	const struct tpd_format_segment *s = layout.segments;

	ck_assert_str_eq(layout.reason[0] ? layout.reason + strlen("gguf: ") : "", models[_i].reason);
	if (!models[_i].reason[0]) {
		ck_assert_int_eq(layout.kind, TPD_FORMAT_GGUF);
		ck_assert_uint_eq(layout.count, 3);
		ck_assert_str_eq(s[0].name, "q");
		ck_assert(s[0].typed && s[0].dtype == TPD_DTYPE_U8 && s[0].ndim == 2);
		ck_assert_uint_eq(s[0].dims[0], 2);
		ck_assert_uint_eq(s[0].dims[1], 2 * 34);
		ck_assert_uint_eq(s[0].offset, data);
		ck_assert_uint_eq(s[0].length, 4 * 34);
		ck_assert_str_eq(s[1].name, "h");
		ck_assert(s[1].typed && s[1].dtype == TPD_DTYPE_F16 && s[1].ndim == 1);
		ck_assert_str_eq(s[2].name, "wte");
		ck_assert(s[2].typed && s[2].dtype == TPD_DTYPE_F32 && s[2].ndim == 2);
		ck_assert_uint_eq(s[2].dims[0], 3); /* outermost first */
		ck_assert_uint_eq(s[2].dims[1], 64);
		ck_assert_uint_eq(s[2].offset, data + 320);
	}
	tpd_format_layout_release(&layout);
	tpd_buf_release(&buf);
}
END_TEST

START_TEST(no_tensors)
{
	struct tpd_format_layout layout = parse_bytes("x", "GGUF\3\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 24);

	ck_assert_int_eq(layout.kind, TPD_FORMAT_GGUF);
	ck_assert_uint_eq(layout.count, 0);
	tpd_format_layout_release(&layout);
}
END_TEST

START_TEST(truncated_anywhere)
{
	size_t data;
	struct tpd_buf buf = build(&models[0].model, &data);

	for (size_t size = 0; size < buf.len; size++) {
		struct tpd_format_layout layout = parse_bytes("x", buf.data, size);

		ck_assert_int_eq(layout.kind, TPD_FORMAT_OPAQUE);
		ck_assert_int_eq(layout.reason[0] != 0, size >= 9);
		tpd_format_layout_release(&layout);
	}
	tpd_buf_release(&buf);
}
END_TEST

START_TEST(any_byte_changed)
{
	size_t data;
	struct tpd_buf buf = build(&models[0].model, &data);

	change_each_byte("x", buf.data, buf.len, data);
	tpd_buf_release(&buf);
}
END_TEST

START_TEST(failing_reads_end_the_parse)
{
	size_t data;
	struct tpd_buf buf = build(&models[3].model, &data);
	int at = 0;

	for (;;) {
		struct format_file file = {.data = buf.data, .size = buf.len, .fail_at = ++at};
		struct tpd_format_layout layout;

		if (tpd_format_parse("x", file.size, format_file_read, &file, NULL, &layout, NULL) == TPD_OK) {
			tpd_format_layout_release(&layout);
			break;
		}
	}
	ck_assert_int_eq(at, 1 + 2 + 1); /* the head, two windows; one that does not fail */
	tpd_buf_release(&buf);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("gguf");
	TCase *tests = tcase_create("gguf");
	SRunner *runner = srunner_create(suite);
	int failed;

	suite_add_tcase(suite, tests);
	tcase_set_timeout(tests, 120);
	tcase_add_loop_test(tests, model_of_each_kind, 0, (int)TPD_ARRAY_LEN(models));
	tcase_add_test(tests, no_tensors);
	tcase_add_test(tests, truncated_anywhere);
	tcase_add_test(tests, any_byte_changed);
	tcase_add_test(tests, failing_reads_end_the_parse);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
