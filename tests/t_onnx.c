/*
 * t_onnx.c - initializers in models and beside them: honest ones are found, what lies is opaque, for exactly that
 * reason.
 */
#include "base/tpd.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "format/format.h"
#include "format/hints.h"
#include "format_file.h"

/* ---- the builder: fields of protobuf ---- */

static void put_number(struct tpd_buf *buf, unsigned field, uint64_t value)
{
	tpd_buf_varint(buf, field << 3);
	tpd_buf_varint(buf, value);
}

static void put_bytes(struct tpd_buf *buf, unsigned field, const void *bytes, size_t len)
{
	tpd_buf_varint(buf, field << 3 | 2);
	tpd_buf_varint(buf, len);
	tpd_buf_put(buf, bytes, len);
}

static void put_text(struct tpd_buf *buf, unsigned field, const char *text)
{
	put_bytes(buf, field, text, strlen(text));
}

/* Takes the message over. */
static void put_message(struct tpd_buf *buf, unsigned field, struct tpd_buf *message)
{
	put_bytes(buf, field, message->data, message->len);
	tpd_buf_release(message);
}

static void put_pair(struct tpd_buf *buf, const char *key, const char *value)
{
	struct tpd_buf pair = {0};

	put_text(&pair, 1, key);
	put_text(&pair, 2, value);
	put_message(buf, 13, &pair);
}

struct tensor {
	const char *name;
	uint64_t dims[3]; /* 0: no more */
	uint64_t type;
	size_t raw;       /* bytes of raw_data; 0: none */
	const char *location, *offset, *length;
};

static void put_tensor(struct tpd_buf *graph, const struct tensor *tensor)
{
	struct tpd_buf buf = {0};
	uint8_t *raw = calloc(1, tensor->raw + 1);

	ck_assert_ptr_nonnull(raw);
	for (unsigned i = 0; i < 3 && tensor->dims[i]; i++)
		put_number(&buf, 1, tensor->dims[i]);
	put_number(&buf, 2, tensor->type);
	put_text(&buf, 8, tensor->name);
	if (tensor->raw)
		put_bytes(&buf, 9, raw, tensor->raw);
	if (tensor->location)
		put_pair(&buf, "location", tensor->location);
	if (tensor->offset)
		put_pair(&buf, "offset", tensor->offset);
	if (tensor->length)
		put_pair(&buf, "length", tensor->length);
	if (tensor->location)
		put_number(&buf, 14, 1);
	put_message(graph, 5, &buf);
	free(raw);
}

/* A model around this graph, which is taken over: fields of every kind before and behind it. */
static struct tpd_buf put_model(struct tpd_buf *graph)
{
	struct tpd_buf buf = {0};

	put_number(&buf, 1, 8);
	put_text(&buf, 2, "a test");
	tpd_buf_varint(&buf, 100 << 3 | 1);
	tpd_buf_u64(&buf, 0);
	tpd_buf_varint(&buf, 101 << 3 | 5);
	tpd_buf_u32(&buf, 0);
	put_message(&buf, 7, graph);
	put_text(&buf, 8, "");
	return buf;
}

static struct tpd_buf model_of(const struct tensor *tensors, size_t count)
{
	struct tpd_buf graph = {0};

	put_text(&graph, 2, "main");
	for (size_t i = 0; i < count; i++)
		put_tensor(&graph, &tensors[i]);
	put_text(&graph, 11, "x");
	return put_model(&graph);
}

/* ---- tensors in the model ---- */

START_TEST(tensors_in_the_model)
{
	static const struct tensor tensors[] = {
		{"w", {4, 5}, 1, 80, NULL, NULL, NULL},
		{"small", {4}, 1, 16, NULL, NULL, NULL},
		{"external", {4, 5}, 1, 0, "x.data", "0", "80"},
		{"h", {64}, 10, 128, NULL, NULL, NULL},
		{"int4", {200}, 22, 100, NULL, NULL, NULL},
		{"far", {3000}, 16, 6000, NULL, NULL, NULL}, /* longer than the buffer */
		{"w", {32}, 3, 32 * 3, NULL, NULL, NULL},
	};
	struct tpd_buf buf = model_of(tensors, TPD_ARRAY_LEN(tensors) - 1);
	struct tpd_format_layout layout = parse_bytes("a/m.onnx", buf.data, buf.len);
	const struct tpd_format_segment *s = layout.segments;

	ck_assert_str_eq(layout.reason, "");
	ck_assert_int_eq(layout.kind, TPD_FORMAT_ONNX);
	ck_assert_uint_eq(layout.count, 4);
	ck_assert_str_eq(s[0].name, "w");
	ck_assert(s[0].typed && s[0].dtype == TPD_DTYPE_F32 && s[0].ndim == 2 && s[0].dims[1] == 5);
	ck_assert_uint_eq(s[0].length, 80);
	ck_assert_str_eq(s[1].name, "h");
	ck_assert(s[1].typed && s[1].dtype == TPD_DTYPE_F16);
	ck_assert_str_eq(s[2].name, "int4");
	ck_assert(!s[2].typed && s[2].ndim == 0);
	ck_assert_str_eq(s[3].name, "far");
	ck_assert(s[3].typed && s[3].dtype == TPD_DTYPE_BF16 && s[3].length == 6000);
	for (size_t i = 0; i < layout.count; i++) /* raw_data is zeros, and a tag and a length before it are none */
		ck_assert(buf.data[s[i].offset] == 0 && buf.data[s[i].offset - 1] != 0);
	tpd_format_layout_release(&layout);
	layout = parse_bytes("m.bin", buf.data, buf.len);
	ck_assert_int_eq(layout.kind, TPD_FORMAT_OPAQUE);
	ck_assert_str_eq(layout.reason, "");
	tpd_format_layout_release(&layout);
	tpd_buf_release(&buf);
	buf = model_of(tensors, TPD_ARRAY_LEN(tensors));
	layout = parse_bytes("m.onnx", buf.data, buf.len);
	ck_assert_str_eq(layout.reason, "onnx: a tensor's length is not what its shape and type say");
	tpd_format_layout_release(&layout);
	tpd_buf_release(&buf);
}
END_TEST

/* ---- bytes that are no honest model ---- */

static const struct {
	const char *bytes; /* of a tensor, in a graph, in a model; or of the model itself */
	size_t len;
	bool model;
	const char *reason;
} oddities[] = {
#define T(bytes, reason) {bytes, sizeof(bytes) - 1, false, reason}
#define M(bytes, reason) {bytes, sizeof(bytes) - 1, true, reason}
	T("\x0a\3\2\3\4", ""), /* packed dims */
	T("\x0a\0", ""),
	T("\x42\1w", ""),
	T("", ""),
	T("\x42\1w\x42\1w", "a field twice"),
	T("\x4a\0\x4a\0", "a field twice"),
	T("\x10\1\x10\1", "a field twice"),
	T("\x40\1", "a text that is none, or is too long"),
	T("\x42\2w", "a field reaches past the end of its message"),
	T("\x42\xff\xff\xff\xff\xff\xff\xff\xff\xff\1", "a field reaches past the end of its message"),
	T("\x42\x80\x80\x80\x80\x80\x80\x80\x80\x80\2", "a number of more than 64 bits"),
	T("\x42\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\1", "a number of more than 64 bits"),
	T("\x80", "a field reaches past the end of its message"),
	T("\0\1", "a field of number 0"),
	T("\x0b\x0c", "a field of an unknown kind"), /* a group */
	T("\x0f", "a field of an unknown kind"),
	T("\x48\1", "raw_data that is none"),
	T("\x12\1x", "a type that is no number"),
	T("\x0d\1\2\3\4", "dims that are no numbers"),
	T("\x0a\1\x80", "a field reaches past the end of its message"),
	T("\x8\xff\xff\xff\xff\xff\xff\xff\xff\xff\1", "the shape's product overflows"), /* -1 */
	T("\x8\x80\x80\x80\x80\x10\x8\x80\x80\x80\x80\x10", "the shape's product overflows"),
	T("\x68\1", "external_data that is none"),
	T("\x6a\2\x0a\5", "a field reaches past the end of its message"),
	T("\x6a\x0a\x0a\x8location", "a text that is none, or is too long"),
	T("\x6a\xd\x0a\6offset\x12\3" "1 2", "an offset or length that is no number"),
	T("\x6a\xd\x0a\6offset\x12\3" "-12", "an offset or length that is no number"),
	T("\x6a\x1f\x0a\6offset\x12\x15" "123456789012345678901", "a text that is none, or is too long"),
	T("\x6a\x1e\x0a\6offset\x12\x14" "18446744073709551616", "an offset or length that is no number"),
	T("\x6a\xb\x0a\6offset\x12\1" "1\x6a\xb\x0a\6offset\x12\1" "1", "a field twice"),
	T("\x6a\x16\x0a\x14" "a_key_that_is_longer", ""),
	M("", "no graph"),
	M("\x8\1", "no graph"),
	M("\x38\1", "a message that is none"),
	M("\x3a\0\x3a\0", "a field twice"),
	M("\x3a\1", "a field reaches past the end of its message"),
	M("\x3a\2\x28\1", "a message that is none"),
#undef T
#undef M
};

START_TEST(oddity)
{
	struct tpd_buf model = {0}, graph = {0};
	struct tpd_format_layout layout;

	if (oddities[_i].model) {
		tpd_buf_put(&model, oddities[_i].bytes, oddities[_i].len);
	} else {
		put_bytes(&graph, 5, oddities[_i].bytes, oddities[_i].len);
		put_message(&model, 7, &graph);
	}
	layout = parse_bytes("x.onnx", model.data, model.len);
	ck_assert_str_eq(layout.reason[0] ? layout.reason + strlen("onnx: ") : "", oddities[_i].reason);
	tpd_format_layout_release(&layout);
	tpd_buf_release(&model);
}
END_TEST

START_TEST(too_much_beside)
{
	struct tpd_buf graph = {0}, model;
	struct tpd_format_layout layout;
	struct format_file file;

	for (size_t i = 0; i < TPD_FORMAT_MAX_GLUE / 2 + 100; i++)
		put_bytes(&graph, 5, "", 0); /* tensors of two bytes each */
	model = put_model(&graph);
	file = (struct format_file){.data = model.data, .size = model.len};
	ck_assert_int_eq(tpd_format_parse("x.onnx", file.size, format_file_read, &file, NULL, &layout, NULL), TPD_OK);
	ck_assert_str_eq(layout.reason, "onnx: too much beside the tensors");
	ck_assert_uint_lt(file.bytes_read, TPD_FORMAT_MAX_GLUE + 10000);
	tpd_format_layout_release(&layout);
	tpd_buf_release(&model);
}
END_TEST

START_TEST(truncated_and_changed)
{
	static const struct tensor tensors[] = {
		{"w", {4, 5}, 1, 80, NULL, NULL, NULL},
		{"external", {4, 5}, 1, 0, "x.data", "0", "80"},
	};
	struct tpd_buf buf = model_of(tensors, TPD_ARRAY_LEN(tensors));

	for (size_t at = 0; at < buf.len; at++) {
		uint8_t was = buf.data[at];
		struct tpd_format_layout layout = parse_bytes("x.onnx", buf.data, at);

		tpd_format_layout_release(&layout);
		for (unsigned value = 0; value < 256; value++) {
			struct tpd_format_hints *hints = tpd_format_hints_new(NULL);
			struct format_file file = {.data = buf.data, .size = buf.len};

			buf.data[at] = (uint8_t)value;
			layout = parse_bytes("x.onnx", buf.data, buf.len);
			tpd_format_layout_release(&layout);
			ck_assert_int_eq(tpd_format_hints_read(hints, "x.onnx", buf.len, format_file_read, &file, NULL),
					 TPD_OK);
			tpd_format_hints_free(hints);
		}
		buf.data[at] = was;
	}
	tpd_buf_release(&buf);
}
END_TEST

/* ---- tensors beside it ---- */

static struct tpd_format_layout parse_data(const char *model_path, const struct tpd_buf *model, const char *path,
					   uint64_t size)
{
	struct tpd_format_hints *hints = tpd_format_hints_new(NULL);
	struct format_file file = {.data = model->data, .size = model->len},
			   data = {.data = calloc(1, size + 1), .size = size};
	struct tpd_format_layout layout;

	ck_assert_ptr_nonnull(data.data);
	ck_assert_int_eq(tpd_format_hints_read(hints, model_path, file.size, format_file_read, &file, NULL), TPD_OK);
	ck_assert_int_eq(tpd_format_parse(path, size, format_file_read, &data, hints, &layout, NULL), TPD_OK);
	check_layout(&layout, size);
	tpd_format_hints_free(hints);
	free((void *)(uintptr_t)data.data);
	return layout;
}

START_TEST(tensors_beside_the_model)
{
	static const struct tensor tensors[] = {
		{"b", {4, 5}, 1, 0, "x.data", "65536", "80"},
		{"a", {64}, 10, 0, "./x.data", NULL, "128"},
		{"tied", {64}, 10, 0, "x.data", "0", NULL},  /* its length follows from its shape */
		{"int4", {200}, 22, 0, "x.data", "65616", "100"},
		{"inside", {4, 5}, 1, 80, NULL, NULL, NULL},
		{"other", {4, 5}, 1, 0, "y.data", "0", "80"},
	};
	struct tpd_buf model = model_of(tensors, TPD_ARRAY_LEN(tensors));
	struct tpd_format_layout layout = parse_data("a/m.onnx", &model, "a/x.data", 65800);
	const struct tpd_format_segment *s = layout.segments;

	ck_assert_str_eq(layout.reason, "");
	ck_assert_int_eq(layout.kind, TPD_FORMAT_ONNX_DATA);
	ck_assert_uint_eq(layout.count, 4);
	ck_assert_str_eq(s[0].name, "a"); /* of two tensors of one range the first by name */
	ck_assert(s[0].typed && s[0].dtype == TPD_DTYPE_F16 && s[0].offset == 0 && s[0].length == 128);
	ck_assert_str_eq(s[1].name, "b#before");
	ck_assert(s[1].typed && s[1].dtype == TPD_DTYPE_BYTES && s[1].offset == 128 && s[1].length == 65408);
	ck_assert_str_eq(s[2].name, "b");
	ck_assert(s[2].ndim == 2 && s[2].dims[0] == 4 && s[2].offset == 65536);
	ck_assert_str_eq(s[3].name, "int4");
	ck_assert(!s[3].typed && s[3].length == 100);
	tpd_format_layout_release(&layout);
	layout = parse_data("m.onnx", &model, "a/x.data", 65800);
	ck_assert_int_eq(layout.kind, TPD_FORMAT_OPAQUE);
	tpd_format_layout_release(&layout);
	layout = parse_data("a/m.onnx", &model, "a/x.data", 65700);
	ck_assert_str_eq(layout.reason, "onnx data: tensors overlap or are out of bounds");
	tpd_format_layout_release(&layout);
	tpd_buf_release(&model);
}
END_TEST

/* Each makes the whole model a companion that says nothing, or the data opaque. */
START_TEST(lies_about_data)
{
	static const struct {
		struct tensor tensor;
		const char *reason;
	} lies[] = {
		{{"w", {4, 5}, 1, 0, "../x.data", "0", "80"}, ""},
		{{"w", {4, 5}, 1, 0, "/x.data", "0", "80"}, ""},
		{{"w", {4, 5}, 1, 0, "", "0", "80"}, ""},
		{{"w", {4, 5}, 1, 0, "x.data", "0", "81"}, ""},
		{{"w", {4, 5}, 8, 0, "x.data", "0", NULL}, ""},
		{{"w", {4, 5}, 1, 0, "x.data", "18446744073709551615", "80"},
		 "onnx data: tensors overlap or are out of bounds"},
		{{"w", {4, 5}, 1, 0, "x.data", "79", "80"}, "onnx data: tensors overlap or are out of bounds"},
		{{"w", {4, 5}, 8, 0, "x.data", "80", "18446744073709551614"},
		 "onnx data: tensors overlap or are out of bounds"},
	};

	for (size_t i = 0; i < TPD_ARRAY_LEN(lies); i++) {
		struct tensor tensors[2] = {{"v", {4, 5}, 1, 0, "x.data", "0", "80"}, lies[i].tensor};
		struct tpd_buf model = model_of(tensors, 2);
		struct tpd_format_layout layout = parse_data("m.onnx", &model, "x.data", 160);

		ck_assert_int_eq(layout.kind, TPD_FORMAT_OPAQUE);
		ck_assert_str_eq(layout.reason, lies[i].reason);
		tpd_format_layout_release(&layout);
		tpd_buf_release(&model);
	}
}
END_TEST

START_TEST(failing_reads_end_it)
{
	static const struct tensor tensors[] = {
		{"far", {3000}, 16, 6000, NULL, NULL, NULL},
		{"external", {4, 5}, 1, 0, "x.data", "0", "80"},
	};
	struct tpd_buf model = model_of(tensors, TPD_ARRAY_LEN(tensors));

	for (int at = 1; at <= 3; at++) {
		struct tpd_format_hints *hints = tpd_format_hints_new(NULL);
		struct format_file file = {.data = model.data, .size = model.len, .fail_at = at}, again = file;
		struct tpd_format_layout layout;

		ck_assert_int_eq(tpd_format_parse("x.onnx", file.size, format_file_read, &file, NULL, &layout, NULL),
				 TPD_BUSY);
		ck_assert_int_eq(tpd_format_hints_read(hints, "x.onnx", again.size, format_file_read, &again, NULL),
				 at < 3 ? TPD_BUSY : TPD_OK); /* no head is read */
		ck_assert_uint_eq(hints->count, at < 3 ? 0 : 1);
		tpd_format_hints_free(hints);
	}
	tpd_buf_release(&model);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("onnx");
	TCase *tests = tcase_create("onnx");
	SRunner *runner = srunner_create(suite);
	int failed;

	suite_add_tcase(suite, tests);
	tcase_set_timeout(tests, 120);
	tcase_add_test(tests, tensors_in_the_model);
	tcase_add_loop_test(tests, oddity, 0, (int)TPD_ARRAY_LEN(oddities));
	tcase_add_test(tests, too_much_beside);
	tcase_add_test(tests, truncated_and_changed);
	tcase_add_test(tests, tensors_beside_the_model);
	tcase_add_test(tests, lies_about_data);
	tcase_add_test(tests, failing_reads_end_it);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
