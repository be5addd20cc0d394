/*
 * t_safetensors.c - honest headers are understood; each with one thing changed is opaque, for
 * exactly the reason that was made.
 */
#include "base/tpd.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "format/format.h"
#include "format_file.h"

/* A file of this header text and `data_size` bytes of data. */
static struct tpd_buf build(const char *json, size_t data_size)
{
	struct tpd_buf buf = {0};

	tpd_buf_u64(&buf, strlen(json));
	tpd_buf_put(&buf, json, strlen(json));
	for (size_t i = 0; i < data_size; i++)
		tpd_buf_u8(&buf, (uint8_t)(i * 7));
	ck_assert_int_eq(tpd_buf_status(&buf, NULL), TPD_OK);
	return buf;
}

static struct tpd_format_layout parse_json(const char *json, size_t data_size)
{
	struct tpd_buf buf = build(json, data_size);
	struct tpd_format_layout layout = parse_bytes("model.safetensors", buf.data, buf.len);

	tpd_buf_release(&buf);
	return layout;
}

static const char honest[] =
	"{\"__metadata__\":{\"format\":\"pt\"},"
	"\"b.bias\":{\"dtype\":\"BF16\",\"shape\":[50],\"data_offsets\":[96,196]},"
	"\"a.weight\":{\"dtype\":\"F32\",\"shape\":[2,12],\"data_offsets\":[0,96]},"
	"\"small\":{\"shape\":[],\"data_offsets\":[196,200],\"dtype\":\"F32\"},"
	"\"empty\":{\"dtype\":\"F16\",\"shape\":[3,0],\"data_offsets\":[96,96]},"
	"\"packed\":{\"dtype\":\"F4\",\"shape\":[2,64],\"data_offsets\":[200,264]}}   ";
#define HONEST_DATA 264

START_TEST(honest_is_understood)
{
	struct tpd_format_layout layout = parse_json(honest, HONEST_DATA);
	const struct tpd_format_segment *s = layout.segments;
	uint64_t base = 8 + sizeof honest - 1;

	ck_assert_int_eq(layout.kind, TPD_FORMAT_SAFETENSORS);
	ck_assert_uint_eq(layout.count, 3); /* small and empty stay in the glue */
	ck_assert_str_eq(s[0].name, "a.weight");
	ck_assert_uint_eq(s[0].offset, base);
	ck_assert_uint_eq(s[0].length, 96);
	ck_assert(s[0].typed);
	ck_assert_int_eq(s[0].dtype, TPD_DTYPE_F32);
	ck_assert_uint_eq(s[0].ndim, 2);
	ck_assert_uint_eq(s[0].dims[0], 2);
	ck_assert_uint_eq(s[0].dims[1], 12);
	ck_assert_str_eq(s[1].name, "b.bias");
	ck_assert_uint_eq(s[1].offset, base + 96);
	ck_assert_int_eq(s[1].dtype, TPD_DTYPE_BF16);
	ck_assert_str_eq(s[2].name, "packed");
	ck_assert_uint_eq(s[2].offset, base + 200);
	ck_assert_uint_eq(s[2].length, 64);
	ck_assert_int_eq(s[2].dtype, TPD_DTYPE_F4);
	tpd_format_layout_release(&layout);
	ck_assert_ptr_null(layout.segments);
	ck_assert_uint_eq(layout.count, 0);
}
END_TEST

START_TEST(names_are_decoded)
{
	struct tpd_format_layout layout =
		parse_json("{\"\\u0061/\xc3\xa9\":{\"dtype\":\"U8\",\"shape\":[64],\"data_offsets\":[0,64]}}", 64);

	ck_assert_uint_eq(layout.count, 1);
	ck_assert_str_eq(layout.segments[0].name, "a/\xc3\xa9");
	tpd_format_layout_release(&layout);
}
END_TEST

/* Names of three tensors under this DCP_SHARDING_INFO, which is a JSON string's inside. */
static void check_parts(const char *info, const char *a, const char *b, const char *c)
{
	struct tpd_format_layout layout;
	char json[1000];

	snprintf(json, sizeof json, "{\"__metadata__\":{\"format\":\"pt\",\"DCP_SHARDING_INFO\":\"%s\",\"DCP_VERSION\":\"1.0\"},"
		 "\"w\":{\"dtype\":\"U8\",\"shape\":[2,32],\"data_offsets\":[128,192]},"
		 "\"b\":{\"dtype\":\"U8\",\"shape\":[64],\"data_offsets\":[64,128]},"
		 "\"\\u00e9\":{\"dtype\":\"U8\",\"shape\":[1,64],\"data_offsets\":[0,64]}}", info);
	layout = parse_json(json, 192);
	ck_assert_int_eq(layout.kind, TPD_FORMAT_SAFETENSORS);
	ck_assert_uint_eq(layout.count, 3);
	ck_assert_str_eq(layout.segments[0].name, a);
	ck_assert_str_eq(layout.segments[1].name, b);
	ck_assert_str_eq(layout.segments[2].name, c);
	tpd_format_layout_release(&layout);
}

/* As torch.distributed.checkpoint writes it; and what is wrong with it changes no name, up to where it is wrong. */
START_TEST(parts_say_which)
{
#define OFFSETS(name, offsets) "\\\"" name "\\\": {\\\"saved_offsets\\\": " offsets "}"
	check_parts("{" OFFSETS("w", "[17, 0]") ", " OFFSETS("b", "[0]") ", " OFFSETS("\\\\u00e9", "[0, 64]") "}",
		    "\xc3\xa9[0,64]", "b", "w[17,0]");
	check_parts("{" OFFSETS("b", "[9]") "}", "\xc3\xa9", "b[9]", "w");
	check_parts("{" OFFSETS("other", "[9]") ", " OFFSETS("b", "[9, 1]") ", " OFFSETS("w", "[9]") "}", "\xc3\xa9", "b", "w");
	check_parts("{" OFFSETS("b", "[9]") ", " OFFSETS("b", "[8]") "}", "\xc3\xa9", "b[9]", "w");
	check_parts("", "\xc3\xa9", "b", "w");
	check_parts("[]", "\xc3\xa9", "b", "w");
	check_parts("{" OFFSETS("b", "[9]") ", " OFFSETS("w", "[-1, 0]") "}", "\xc3\xa9", "b[9]", "w");
	check_parts("{" OFFSETS("w", "9") ", " OFFSETS("b", "[9]") "}", "\xc3\xa9", "b", "w");
	check_parts("{" OFFSETS("w", "[1,1,1,1,1,1,1,1,1]") "}", "\xc3\xa9", "b", "w");
	check_parts("{\\\"w\\\": {\\\"saved_offsets\\\": [1, 2], \\\"more\\\": 1}}", "\xc3\xa9", "b", "w");
	check_parts("{\\\"w\\\": [1, 2]}", "\xc3\xa9", "b", "w");
	check_parts("{" OFFSETS("w", "[18446744073709551615, 0]") "}", "\xc3\xa9", "b", "w[18446744073709551615,0]");
#undef OFFSETS
}
END_TEST

START_TEST(many_dimensions_are_no_shape)
{
	struct tpd_format_layout layout = parse_json(
		"{\"a\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,2,32],\"data_offsets\":[0,64]},"
		"\"b\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,2,32],\"data_offsets\":[64,128]}}", 128);

	ck_assert_uint_eq(layout.count, 2);
	ck_assert_uint_eq(layout.segments[0].ndim, 8);
	ck_assert_uint_eq(layout.segments[0].dims[7], 32);
	ck_assert_uint_eq(layout.segments[1].ndim, 0);
	ck_assert_uint_eq(layout.segments[1].dims[0], 0);
	tpd_format_layout_release(&layout);
}
END_TEST

START_TEST(every_dtype)
{
	for (unsigned i = 1; i < TPD_DTYPE_COUNT; i++) {
		enum tpd_dtype dtype = (enum tpd_dtype)i;
		unsigned bytes = 64 * tpd_dtype_bits(dtype) / 8;
		struct tpd_format_layout layout;
		char json[200];

		snprintf(json, sizeof json, "{\"a\":{\"dtype\":\"%s\",\"shape\":[4,64],\"data_offsets\":[0,%u]}}",
			 tpd_dtype_name(dtype), 4 * bytes);
		layout = parse_json(json, (size_t)4 * bytes);
		ck_assert_uint_eq(layout.count, 1);
		ck_assert_int_eq(layout.segments[0].dtype, dtype);
		tpd_format_layout_release(&layout);
	}
}
END_TEST

/* One tensor "a" (U8, 64 bytes) whose parts can be replaced. */
#define TENSOR(name, dtype, shape, offsets) \
	"\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"
#define A TENSOR("a", "U8", "[64]", "[0,64]")

static const struct {
	const char *json;
	size_t data_size;
	const char *reason; /* NULL: valid */
} changes[] = {
	{"{" A "}", 64, NULL},
	{"{" A "}", 65, "bytes follow the last tensor (after 1 tensors)"},
	{"{" A "}", 63, "a tensor reaches past the end of the file (after 1 tensors)"},
	{"[" "1" "]", 0, "the header is no JSON object (after 0 tensors)"},
	{"{" A "} x", 64, "bad JSON (after 1 tensors)"},
	{"{" A ",}", 64, "bad JSON (after 1 tensors)"},
	{"{" A, 64, "bad JSON (after 1 tensors)"},
	{"{\"a\":{\"dtype\":\"U8\",\"shape\":[64],\"data_offsets\":[0,64]", 64,
	 "bad JSON in a tensor (after 1 tensors)"},
	/* duplicates, also in disguise */
	{"{" A "," TENSOR("b", "U8", "[64]", "[64,128]") "}", 128, NULL},
	{"{" A "," TENSOR("a", "U8", "[64]", "[64,128]") "}", 128, "a name occurs twice (after 2 tensors)"},
	{"{" A "," TENSOR("\\u0061", "U8", "[64]", "[64,128]") "}", 128, "a name occurs twice (after 2 tensors)"},
	{"{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[64],\"data_offsets\":[0,64]}}", 64,
	 "a tensor's key is unknown or occurs twice (after 1 tensors)"},
	{"{\"a\":{\"dtype\":\"U8\",\"shape\":[64],\"sh\\u0061pe\":[64],\"data_offsets\":[0,64]}}", 64,
	 "a tensor's key is unknown or occurs twice (after 1 tensors)"},
	{"{\"a\":{\"dtype\":\"U8\",\"shape\":[64],\"data_offsets\":[0,64],\"data_offsets\":[0,64]}}", 64,
	 "a tensor's key is unknown or occurs twice (after 1 tensors)"},
	{"{\"a\":{\"dtype\":\"U8\",\"shape\":[64],\"data_offsets\":[0,64],\"x\":1}}", 64,
	 "a tensor's key is unknown or occurs twice (after 1 tensors)"},
	/* __metadata__ */
	{"{\"__metadata__\":{}," A "}", 64, NULL},
	{"{" A ",\"__metadata__\":{\"a\":\"b\",\"c\":\"\"}}", 64, NULL},
	{"{\"__metadata__\":{},\"__metadata__\":{}," A "}", 64, "a second __metadata__ (after 0 tensors)"},
	{"{\"__metadata__\":1," A "}", 64, "__metadata__ is no object (after 0 tensors)"},
	{"{\"__metadata__\":[]," A "}", 64, "__metadata__ is no object (after 0 tensors)"},
	{"{\"__metadata__\":{\"a\":1}," A "}", 64, "__metadata__ holds something else than strings (after 0 tensors)"},
	{"{\"__metadata__\":{\"a\":{}}," A "}", 64, "__metadata__ holds something else than strings (after 0 tensors)"},
	{"{\"__metadata__\":{\"a\":\"b\",}," A "}", 64, "bad JSON in __metadata__ (after 0 tensors)"},
	/* missing and mistyped */
	{"{\"a\":1}", 0, "a tensor is no object (after 1 tensors)"},
	{"{\"a\":{}}", 0, "a tensor without dtype, shape or data_offsets (after 1 tensors)"},
	{"{\"a\":{\"shape\":[64],\"data_offsets\":[0,64]}}", 64,
	 "a tensor without dtype, shape or data_offsets (after 1 tensors)"},
	{"{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,64]}}", 64,
	 "a tensor without dtype, shape or data_offsets (after 1 tensors)"},
	{"{\"a\":{\"dtype\":\"U8\",\"shape\":[64]}}", 64,
	 "a tensor without dtype, shape or data_offsets (after 1 tensors)"},
	{"{" TENSOR("a", "U9", "[64]", "[0,64]") "}", 64, "unknown dtype (after 1 tensors)"},
	{"{" TENSOR("a", "u8", "[64]", "[0,64]") "}", 64, "unknown dtype (after 1 tensors)"},
	{"{" TENSOR("a", "BYTES", "[64]", "[0,64]") "}", 64, "unknown dtype (after 1 tensors)"},
	{"{\"a\":{\"dtype\":1,\"shape\":[64],\"data_offsets\":[0,64]}}", 64, "unknown dtype (after 1 tensors)"},
	{"{" TENSOR("a", "U8", "64", "[0,64]") "}", 64, "shape is no array (after 1 tensors)"},
	{"{" TENSOR("a", "U8", "[-64]", "[0,64]") "}", 64, "a dimension is no unsigned integer (after 1 tensors)"},
	{"{" TENSOR("a", "U8", "[64.0]", "[0,64]") "}", 64, "a dimension is no unsigned integer (after 1 tensors)"},
	{"{" TENSOR("a", "U8", "[6.4e1]", "[0,64]") "}", 64, "a dimension is no unsigned integer (after 1 tensors)"},
	{"{" TENSOR("a", "U8", "[\"64\"]", "[0,64]") "}", 64, "bad JSON in a shape (after 1 tensors)"},
	{"{" TENSOR("a", "U8", "[[64]]", "[0,64]") "}", 64, "bad JSON in a shape (after 1 tensors)"},
	{"{" TENSOR("a", "U8", "[64]", "{}") "}", 64, "data_offsets is no array (after 1 tensors)"},
	{"{" TENSOR("a", "U8", "[64]", "[0]") "}", 64, "an offset is no unsigned integer (after 1 tensors)"},
	{"{" TENSOR("a", "U8", "[64]", "[0,-64]") "}", 64, "an offset is no unsigned integer (after 1 tensors)"},
	{"{" TENSOR("a", "U8", "[64]", "[0,18446744073709551616]") "}", 64,
	 "an offset is no unsigned integer (after 1 tensors)"},
	{"{" TENSOR("a", "U8", "[64]", "[0,64,64]") "}", 64, "data_offsets has not two numbers (after 1 tensors)"},
	{"{" TENSOR("a", "U8", "[64]", "[64,0]") "}", 64, "a tensor ends before it begins (after 1 tensors)"},
	/* lengths */
	{"{" TENSOR("a", "U8", "[65]", "[0,64]") "}", 64,
	 "a tensor's length is not what its shape and dtype say (after 1 tensors)"},
	{"{" TENSOR("a", "F32", "[16]", "[0,64]") "}", 64, NULL},
	{"{" TENSOR("a", "F32", "[64]", "[0,64]") "}", 64,
	 "a tensor's length is not what its shape and dtype say (after 1 tensors)"},
	{"{" TENSOR("a", "F4", "[128]", "[0,64]") "}", 64, NULL},
	{"{" TENSOR("a", "F4", "[129]", "[0,64]") "}", 64,
	 "a tensor's length is not what its shape and dtype say (after 1 tensors)"},
	{"{" TENSOR("a", "F6_E2M3", "[88]", "[0,66]") "}", 66, NULL},
	{"{" TENSOR("a", "F6_E2M3", "[87]", "[0,65]") "}", 65,
	 "a tensor's length is not what its shape and dtype say (after 1 tensors)"},
	/* overflow: without the checks each of these would come to 64 bytes */
	{"{" TENSOR("a", "U8", "[18446744073709551615,18446744073709551615,64]", "[0,64]") "}", 64,
	 "the shape's product overflows (after 1 tensors)"},
	{"{" TENSOR("a", "U8", "[4294967296,4294967296,0]", "[0,0]") "}", 0,
	 "the shape's product overflows (after 1 tensors)"},
	{"{" TENSOR("a", "U8", "[2305843009213694016]", "[0,64]") "}", 64,
	 "the shape's size overflows (after 1 tensors)"},
	{"{" TENSOR("a", "U8", "[18446744073709551616]", "[0,64]") "}", 64,
	 "a dimension is no unsigned integer (after 1 tensors)"},
	/* places */
	{"{" TENSOR("a", "U8", "[64]", "[1,65]") "}", 65, "the tensors overlap or leave a gap (after 1 tensors)"},
	{"{" A "," TENSOR("b", "U8", "[64]", "[65,129]") "}", 129,
	 "the tensors overlap or leave a gap (after 2 tensors)"},
	{"{" A "," TENSOR("b", "U8", "[64]", "[63,127]") "}", 127,
	 "the tensors overlap or leave a gap (after 2 tensors)"},
	{"{" A "," TENSOR("b", "U8", "[64]", "[0,64]") "}", 64, "the tensors overlap or leave a gap (after 2 tensors)"},
	{"{" TENSOR("a", "U8", "[0]", "[0,0]") "," TENSOR("b", "U8", "[0]", "[0,0]") "}", 0, NULL},
	{"{" A "," TENSOR("e", "U8", "[0]", "[64,64]") "}", 64, NULL},
	{"{" A "," TENSOR("e", "U8", "[0]", "[32,32]") "}", 64, "the tensors overlap or leave a gap (after 2 tensors)"},
	{"{" TENSOR("a", "U8", "[18446744073709551615]", "[0,18446744073709551615]") "}", 64,
	 "the shape's size overflows (after 1 tensors)"},
	{"{" TENSOR("a", "U8", "[1152921504606846976]", "[0,1152921504606846976]") "}", 64,
	 "a tensor reaches past the end of the file (after 1 tensors)"},
	{"{" TENSOR("a\\u0000b", "U8", "[64]", "[0,64]") "}", 64, "a name holds U+0000 (after 1 tensors)"},
	{"{" TENSOR("a\xff", "U8", "[64]", "[0,64]") "}", 64, "bad JSON (after 0 tensors)"},
	{"{}", 0, NULL},
	{"{}", 1, "bytes follow the last tensor (after 0 tensors)"},
};

START_TEST(one_change)
{
	struct tpd_format_layout layout = parse_json(changes[_i].json, changes[_i].data_size);

	if (changes[_i].reason) {
		ck_assert_str_eq(layout.reason + strlen("safetensors header: "), changes[_i].reason);
		ck_assert_int_eq(layout.kind, TPD_FORMAT_OPAQUE);
	} else {
		ck_assert_str_eq(layout.reason, "");
		ck_assert_int_eq(layout.kind, TPD_FORMAT_SAFETENSORS);
	}
	tpd_format_layout_release(&layout);
}
END_TEST

START_TEST(long_names)
{
	char name[TPD_FORMAT_MAX_NAME + 2], json[sizeof name + 100];

	for (size_t len = TPD_FORMAT_MAX_NAME; len <= TPD_FORMAT_MAX_NAME + 1; len++) {
		struct tpd_format_layout layout;

		memset(name, 'n', len);
		name[len] = 0;
		snprintf(json, sizeof json, "{" TENSOR("%s", "U8", "[64]", "[0,64]") "}", name);
		layout = parse_json(json, 64);
		ck_assert_uint_eq(layout.count, len == TPD_FORMAT_MAX_NAME);
		tpd_format_layout_release(&layout);
	}
}
END_TEST

START_TEST(header_length)
{
	struct tpd_buf buf = build(honest, HONEST_DATA);
	uint64_t right = sizeof honest - 1;
	const struct {
		uint64_t length;
		const char *reason;
	} lengths[] = {
		{right, ""},
		{right - 1, "safetensors header: bytes follow the last tensor (after 5 tensors)"},
		{right + 1, "safetensors header: bad JSON (after 5 tensors)"},
		{0, "safetensors header: the header is no JSON object (after 0 tensors)"},
		{buf.len - 8, "safetensors header: bad JSON (after 5 tensors)"},
		{buf.len - 7, "safetensors: the header reaches past the end of the file"},
		{UINT64_MAX, "safetensors: the header reaches past the end of the file"},
		{UINT64_MAX - 7, "safetensors: the header reaches past the end of the file"},
		{(uint64_t)1 << 63, "safetensors: the header reaches past the end of the file"},
	};

	for (size_t i = 0; i < TPD_ARRAY_LEN(lengths); i++) {
		struct tpd_format_layout layout;

		tpd_put_u64(buf.data, lengths[i].length);
		layout = parse_bytes("m.safetensors", buf.data, buf.len);
		ck_assert_str_eq(layout.reason, lengths[i].reason);
		tpd_format_layout_release(&layout);
	}
	tpd_buf_release(&buf);
}
END_TEST

START_TEST(truncated_anywhere)
{
	struct tpd_buf buf = build(honest, HONEST_DATA);

	for (size_t size = 0; size < buf.len; size++) {
		struct tpd_format_layout layout = parse_bytes("m.safetensors", buf.data, size);

		ck_assert_int_eq(layout.kind, TPD_FORMAT_OPAQUE);
		ck_assert_str_ne(layout.reason, "");
		tpd_format_layout_release(&layout);
	}
	tpd_buf_release(&buf);
}
END_TEST

START_TEST(failing_reads_end_the_parse)
{
	struct tpd_buf buf = build(honest, HONEST_DATA);

	for (int at = 1; at <= 3; at++) {
		struct format_file file = {.data = buf.data, .size = buf.len, .fail_at = at};
		struct tpd_format_layout layout;
		struct tpd_err err;

		ck_assert_int_eq(tpd_format_parse("x", buf.len, format_file_read, &file, NULL, &layout, &err), TPD_BUSY);
		ck_assert_int_eq(file.reads, at);
	}
	tpd_buf_release(&buf);
}
END_TEST

/* A file whose header is `length` bytes of one JSON string that never ends; nothing of it exists. */
struct endless {
	uint64_t length, bytes_read;
};

static enum tpd_status read_endless(void *ctx, void *buf, size_t len, uint64_t offset,
				    TPD_UNUSED struct tpd_err *err)
{
	struct endless *file = ctx;
	uint8_t head[10];

	tpd_put_u64(head, file->length);
	head[8] = '{';
	head[9] = '"';
	for (size_t i = 0; i < len; i++)
		((uint8_t *)buf)[i] = offset + i < sizeof head ? head[offset + i] : 'a';
	file->bytes_read += len;
	return TPD_OK;
}

START_TEST(huge_headers_are_not_read)
{
	const struct {
		uint64_t length, most_read;
		const char *reason;
	} cases[] = {
		{100000000, 100, "safetensors: a header of 100000000 bytes is more than 16777216"},
		{TPD_FORMAT_MAX_HEADER + 1, 100, "safetensors: a header of 16777217 bytes is more than 16777216"},
		{TPD_FORMAT_MAX_HEADER, TPD_FORMAT_MAX_HEADER + 100, "safetensors header: bad JSON (after 0 tensors)"},
		{100000001, 100, "safetensors: a header of 100000001 bytes is more than the format has"},
	};

	for (size_t i = 0; i < TPD_ARRAY_LEN(cases); i++) {
		struct endless file = {.length = cases[i].length};
		struct tpd_format_layout layout;

		ck_assert_int_eq(tpd_format_parse("m.safetensors", 300000000,
						  read_endless, &file, NULL, &layout, NULL),
				 TPD_OK);
		ck_assert_str_eq(layout.reason, cases[i].reason);
		ck_assert_uint_le(file.bytes_read, cases[i].most_read);
		tpd_format_layout_release(&layout);
	}
}
END_TEST

/* As many tensors as a header of nearly the limit holds, in the worst order for sorting. */
START_TEST(very_many_tensors)
{
	struct tpd_buf buf = {0};
	struct tpd_format_layout layout;
	unsigned n = 240000, tensor = 64;

	tpd_buf_u64(&buf, 0);
	tpd_buf_u8(&buf, '{');
	for (unsigned i = n; i-- > 0;)
		tpd_buf_printf(&buf, "\"%x\":{\"dtype\":\"U8\",\"shape\":[64],\"data_offsets\":[%u,%u]}%s",
			       i, i * tensor, (i + 1) * tensor, i ? "," : "}");
	ck_assert_int_eq(tpd_buf_status(&buf, NULL), TPD_OK);
	ck_assert_uint_lt(buf.len, TPD_FORMAT_MAX_HEADER);
	tpd_put_u64(buf.data, buf.len - 8);
	tpd_buf_reserve(&buf, (size_t)n * tensor);
	memset(buf.data + buf.len, 1, (size_t)n * tensor);
	buf.len += (size_t)n * tensor;
	layout = parse_bytes("x", buf.data, buf.len);
	ck_assert_str_eq(layout.reason, "");
	ck_assert_uint_eq(layout.count, n);
	ck_assert_str_eq(layout.segments[255].name, "ff");
	tpd_format_layout_release(&layout);
	tpd_buf_release(&buf);
}
END_TEST

/* Tensors of 63 bytes are glue, and glue has a limit. */
START_TEST(too_much_glue)
{
	struct tpd_buf buf = {0};
	struct tpd_format_layout layout;
	unsigned n = 180000, tensor = 63;

	tpd_buf_u64(&buf, 0);
	tpd_buf_u8(&buf, '{');
	for (unsigned i = 0; i < n; i++)
		tpd_buf_printf(&buf, "\"%x\":{\"dtype\":\"U8\",\"shape\":[63],\"data_offsets\":[%u,%u]}%s",
			       i, i * tensor, (i + 1) * tensor, i + 1 < n ? "," : "}");
	tpd_put_u64(buf.data, buf.len - 8);
	tpd_buf_reserve(&buf, (size_t)n * tensor);
	memset(buf.data + buf.len, 1, (size_t)n * tensor);
	buf.len += (size_t)n * tensor;
	layout = parse_bytes("x", buf.data, buf.len);
	ck_assert_ptr_nonnull(strstr(layout.reason, "bytes beside the tensors are more than 16777216"));
	tpd_format_layout_release(&layout);
	tpd_buf_release(&buf);
}
END_TEST

/* Seeded damage: any answer that keeps the contract, never a step outside. */
START_TEST(mutations_are_survived)
{
	struct tpd_buf buf = build(honest, HONEST_DATA);
	uint8_t *copy = malloc(buf.len);
	uint64_t state = 20261123;
	unsigned opaque = 0;

	ck_assert_ptr_nonnull(copy);
	for (int i = 0; i < 8000; i++) {
		struct tpd_format_layout layout;

		memcpy(copy, buf.data, buf.len);
		damage(copy, buf.len - HONEST_DATA, 16, &state);
		layout = parse_bytes(i % 2 ? "x" : "x.safetensors", copy, buf.len);
		opaque += layout.kind == TPD_FORMAT_OPAQUE;
		tpd_format_layout_release(&layout);
	}
	ck_assert_uint_gt(opaque, 4000);
	ck_assert_uint_lt(opaque, 8000); /* a changed name, say, is a valid file */
	free(copy);
	tpd_buf_release(&buf);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("safetensors");
	TCase *tests = tcase_create("safetensors");
	SRunner *runner = srunner_create(suite);
	int failed;

	suite_add_tcase(suite, tests);
	tcase_set_timeout(tests, 120);
	tcase_add_test(tests, honest_is_understood);
	tcase_add_test(tests, names_are_decoded);
	tcase_add_test(tests, parts_say_which);
	tcase_add_test(tests, many_dimensions_are_no_shape);
	tcase_add_test(tests, every_dtype);
	tcase_add_loop_test(tests, one_change, 0, (int)TPD_ARRAY_LEN(changes));
	tcase_add_test(tests, long_names);
	tcase_add_test(tests, header_length);
	tcase_add_test(tests, truncated_anywhere);
	tcase_add_test(tests, failing_reads_end_the_parse);
	tcase_add_test(tests, huge_headers_are_not_read);
	tcase_add_test(tests, very_many_tensors);
	tcase_add_test(tests, too_much_glue);
	tcase_add_test(tests, mutations_are_survived);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
