/*
 * gguf.c - the header of a GGUF file (llama.cpp), versions 2 and 3, little-endian.
 *
 *     | "GGUF" | u32 version | u64 tensors | u64 pairs | pairs ... | infos ... | padding | tensor | padding | ... |
 *     0                                                       a multiple of general.alignment, or of 32 ^
 *
 *     string   u64 length, bytes                  pair   string key, u32 type, value
 *     array    u32 type, u64 count, values        info   string name, u32 n, u64 dims[n], u32 type, u64 offset there
 *
 * (ggml's docs/gguf.md; types and block sizes as in gguf-py/gguf/constants.py 0.19.) Pairs are skipped, with every
 * length checked against what is left; only the alignment is looked at. ggml has the innermost dimension first.
 * Quantised tensors are U8 of the length that their blocks have, and a row of them is as many bytes as its blocks. A type that we do not
 * know has no length, and makes the file opaque. So does an array of arrays, which the format allows and nobody writes: skipping it would
 * need a stack.
 *
 * A vocabulary in the pairs can have megabytes, so how long the header is shows only when it is read: a window at the
 * file's beginning is read, and a larger one where that was too short, at most TPD_FORMAT_MAX_GLUE. Each byte of it
 * costs a step.
 */
#include "base/tpd.h"

#include "format/format.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/text.h"
#include "format/parse.h"

#define WINDOW_FIRST (256u << 10)
#define WINDOW_GROWTH 8u
#define DIMS_MAX 4u
#define ALIGNMENT 32u
#define INFO_MIN 24u /* bytes of a tensor info without name and dims */

enum {
	TYPE_U8, TYPE_I8, TYPE_U16, TYPE_I16, TYPE_U32, TYPE_I32, TYPE_F32, TYPE_BOOL, TYPE_STRING, TYPE_ARRAY,
	TYPE_U64, TYPE_I64, TYPE_F64
};

struct gguf {
	struct tpd_rd rd;
	uint64_t size; /* of the file */
	uint64_t alignment;
	struct tpd_format_segment *segments; /* offsets count from the data until they are all known */
	size_t count, cap;
	bool nomem;
	bool cut;          /* the doubt is that something is missing at the end */
	const char *doubt; /* set by whoever returns false, unless it ran out of memory or of the window */
};

static bool doubt(struct gguf *gguf, const char *why)
{
	gguf->doubt = why;
	return false;
}

/* --- pairs --- */

static bool skip_string(struct gguf *gguf)
{
	return tpd_rd_bytes(&gguf->rd, tpd_rd_u64(&gguf->rd)) != NULL;
}

/* Bytes of a value of this type; 0: it has a length of its own, or is unknown. */
static unsigned width_of(uint32_t type)
{
	static const uint8_t widths[] = {
		[TYPE_U8] = 1,  [TYPE_I8] = 1,   [TYPE_U16] = 2, [TYPE_I16] = 2, [TYPE_U32] = 4, [TYPE_I32] = 4,
		[TYPE_F32] = 4, [TYPE_BOOL] = 1, [TYPE_U64] = 8, [TYPE_I64] = 8, [TYPE_F64] = 8};

	return type < TPD_ARRAY_LEN(widths) ? widths[type] : 0;
}

static bool skip_array(struct gguf *gguf)
{
	uint32_t type = tpd_rd_u32(&gguf->rd);
	uint64_t count = tpd_rd_u64(&gguf->rd), bytes;

	if (!tpd_rd_ok(&gguf->rd))
		return false;
	if (type == TYPE_STRING) {
		while (count > 0 && skip_string(gguf))
			count--;
		return count == 0;
	}
	if (width_of(type) == 0)
		return doubt(gguf, "an array of an unknown type, or of arrays");
	if (TPD_MUL_OVERFLOW(count, (uint64_t)width_of(type), &bytes) || bytes > gguf->size)
		return doubt(gguf, "an array that is longer than the file");
	return tpd_rd_bytes(&gguf->rd, bytes) != NULL;
}

static bool read_alignment(struct gguf *gguf, uint32_t type)
{
	gguf->alignment = type == TYPE_U32 ? tpd_rd_u32(&gguf->rd) : 0;
	if (!tpd_rd_ok(&gguf->rd))
		return false;
	return (gguf->alignment > 0 && gguf->alignment % 8 == 0) || doubt(gguf, "an alignment that is none");
}

static bool skip_pair(struct gguf *gguf)
{
	static const char alignment[] = "general.alignment";
	uint64_t length = tpd_rd_u64(&gguf->rd);
	const uint8_t *key = tpd_rd_bytes(&gguf->rd, length);
	uint32_t type = tpd_rd_u32(&gguf->rd);

	if (!tpd_rd_ok(&gguf->rd))
		return false;
	if (length == sizeof alignment - 1 && memcmp(key, alignment, sizeof alignment - 1) == 0)
		return read_alignment(gguf, type);
	if (type == TYPE_STRING)
		return skip_string(gguf);
	if (type == TYPE_ARRAY)
		return skip_array(gguf);
	if (width_of(type) == 0)
		return doubt(gguf, "a value of an unknown type");
	return tpd_rd_bytes(&gguf->rd, width_of(type)) != NULL;
}

/* --- tensors --- */

struct type {
	uint32_t number;
	uint16_t elements, bytes; /* of a block */
	enum tpd_dtype dtype;     /* BYTES: quantised */
};

static const struct type *find_type(uint32_t number)
{
	static const struct type types[] = {
		{0, 1, 4, TPD_DTYPE_F32},
		{1, 1, 2, TPD_DTYPE_F16},
		{2, 32, 18, TPD_DTYPE_BYTES},    /* Q4_0 */
		{3, 32, 20, TPD_DTYPE_BYTES},    /* Q4_1 */
		{6, 32, 22, TPD_DTYPE_BYTES},    /* Q5_0 */
		{7, 32, 24, TPD_DTYPE_BYTES},    /* Q5_1 */
		{8, 32, 34, TPD_DTYPE_BYTES},    /* Q8_0 */
		{10, 256, 84, TPD_DTYPE_BYTES},  /* Q2_K */
		{11, 256, 110, TPD_DTYPE_BYTES}, /* Q3_K */
		{12, 256, 144, TPD_DTYPE_BYTES}, /* Q4_K */
		{13, 256, 176, TPD_DTYPE_BYTES}, /* Q5_K */
		{14, 256, 210, TPD_DTYPE_BYTES}, /* Q6_K */
		{15, 256, 292, TPD_DTYPE_BYTES}, /* Q8_K */
		{16, 256, 66, TPD_DTYPE_BYTES},  /* IQ2_XXS */
		{17, 256, 74, TPD_DTYPE_BYTES},  /* IQ2_XS */
		{18, 256, 98, TPD_DTYPE_BYTES},  /* IQ3_XXS */
		{19, 256, 50, TPD_DTYPE_BYTES},  /* IQ1_S */
		{20, 32, 18, TPD_DTYPE_BYTES},   /* IQ4_NL */
		{21, 256, 110, TPD_DTYPE_BYTES}, /* IQ3_S */
		{22, 256, 82, TPD_DTYPE_BYTES},  /* IQ2_S */
		{23, 256, 136, TPD_DTYPE_BYTES}, /* IQ4_XS */
		{24, 1, 1, TPD_DTYPE_I8},
		{25, 1, 2, TPD_DTYPE_I16},
		{26, 1, 4, TPD_DTYPE_I32},
		{27, 1, 8, TPD_DTYPE_I64},
		{28, 1, 8, TPD_DTYPE_F64},
		{29, 256, 56, TPD_DTYPE_BYTES},  /* IQ1_M */
		{30, 1, 2, TPD_DTYPE_BF16},
		{34, 256, 54, TPD_DTYPE_BYTES},  /* TQ1_0 */
		{35, 256, 66, TPD_DTYPE_BYTES},  /* TQ2_0 */
		{39, 32, 17, TPD_DTYPE_BYTES},   /* MXFP4 */
		{40, 64, 36, TPD_DTYPE_BYTES},   /* NVFP4 */
		{41, 128, 18, TPD_DTYPE_BYTES},  /* Q1_0 */
	};

	for (size_t i = 0; i < TPD_ARRAY_LEN(types); i++) {
		if (types[i].number == number)
			return &types[i];
	}
	return NULL;
}

static bool is_name(const uint8_t *bytes, uint64_t length)
{
	const char *text = (const char *)bytes;
	size_t at = 0, n;

	if (length > TPD_FORMAT_MAX_NAME)
		return false;
	while (at < length && text[at] && (n = tpd_text_utf8(text + at, (size_t)length - at)) > 0)
		at += n;
	return at == length;
}

/* Type, shape and length of a tensor whose dims are the innermost first. */
static bool describe(struct gguf *gguf, struct tpd_format_segment *out, unsigned ndim, const uint64_t *dims,
		     uint32_t number)
{
	const struct type *type = find_type(number);
	uint64_t blocks, row_bytes;

	if (!type)
		return doubt(gguf, "a tensor of an unknown type");
	if ((ndim > 0 ? dims[0] : 1) % type->elements != 0)
		return doubt(gguf, "a row that is no whole number of blocks");
	blocks = (ndim > 0 ? dims[0] : 1) / type->elements;
	if (TPD_MUL_OVERFLOW(blocks, (uint64_t)type->bytes, &row_bytes))
		return doubt(gguf, "the shape's size overflows");
	for (unsigned i = 1; i < ndim; i++) {
		if (TPD_MUL_OVERFLOW(blocks, dims[i], &blocks))
			return doubt(gguf, "the shape's product overflows");
	}
	if (TPD_MUL_OVERFLOW(blocks, (uint64_t)type->bytes, &out->length))
		return doubt(gguf, "the shape's size overflows");
	out->typed = true;
	out->dtype = type->dtype == TPD_DTYPE_BYTES ? TPD_DTYPE_U8 : type->dtype;
	out->ndim = ndim;
	for (unsigned i = 0; i < out->ndim; i++)
		out->dims[i] = dims[ndim - 1 - i];
	if (type->dtype == TPD_DTYPE_BYTES && ndim > 0)
		out->dims[ndim - 1] = row_bytes;
	return true;
}

static bool read_info(struct gguf *gguf, struct tpd_format_segment *out)
{
	struct tpd_rd *rd = &gguf->rd;
	uint64_t length = tpd_rd_u64(rd), dims[DIMS_MAX];
	const uint8_t *name = tpd_rd_bytes(rd, length);
	uint32_t ndim = tpd_rd_u32(rd), type;

	if (!tpd_rd_ok(rd))
		return false;
	if (!is_name(name, length))
		return doubt(gguf, "a name that is none");
	if (ndim > DIMS_MAX)
		return doubt(gguf, "more than four dimensions");
	for (uint32_t i = 0; i < ndim; i++)
		dims[i] = tpd_rd_u64(rd);
	type = tpd_rd_u32(rd);
	out->offset = tpd_rd_u64(rd);
	if (!tpd_rd_ok(rd) || !describe(gguf, out, ndim, dims, type))
		return false;
	if (out->offset % gguf->alignment != 0)
		return doubt(gguf, "a tensor that is not aligned");
	out->name = strndup((const char *)name, (size_t)length);
	gguf->nomem = !out->name;
	return !gguf->nomem;
}

static bool add_info(struct gguf *gguf)
{
	if (gguf->count == gguf->cap) {
		size_t cap = gguf->cap ? 2 * gguf->cap : 64;
		struct tpd_format_segment *grown = reallocarray(gguf->segments, cap, sizeof *grown);

		if (!grown) {
			gguf->nomem = true;
			return false;
		}
		gguf->segments = grown;
		gguf->cap = cap;
	}
	gguf->segments[gguf->count] = (struct tpd_format_segment){.name = NULL};
	return read_info(gguf, &gguf->segments[gguf->count++]);
}

/* Tensors without elements share their offset with the next one, and come before it. */
static int compare_places(const void *a, const void *b)
{
	const struct tpd_format_segment *x = a, *y = b;

	if (x->offset != y->offset)
		return x->offset < y->offset ? -1 : 1;
	return (x->length > y->length) - (x->length < y->length);
}

static bool check_places(struct gguf *gguf, uint64_t header)
{
	uint64_t data = header + (gguf->alignment - header % gguf->alignment) % gguf->alignment, at = data;

	if (gguf->count > 1)
		qsort(gguf->segments, gguf->count, sizeof *gguf->segments, compare_places);
	for (size_t i = 0; i < gguf->count; i++) {
		struct tpd_format_segment *segment = &gguf->segments[i];

		if (TPD_ADD_OVERFLOW(segment->offset, data, &segment->offset) || segment->offset > gguf->size ||
		    segment->length > gguf->size - segment->offset) {
			gguf->cut = true;
			return doubt(gguf, "a tensor reaches past the end of the file");
		}
		if (segment->offset < at)
			return doubt(gguf, "tensors overlap");
		at = segment->offset + segment->length;
	}
	return true;
}

/* --- the whole --- */

static bool read_header(struct gguf *gguf, const uint8_t *bytes)
{
	struct tpd_rd *rd = &gguf->rd;
	uint32_t version;
	uint64_t tensors, pairs;

	tpd_rd_u32(rd);
	version = tpd_rd_u32(rd);
	tensors = tpd_rd_u64(rd);
	pairs = tpd_rd_u64(rd);
	if (!tpd_rd_ok(rd))
		return false;
	if (version != 2 && version != 3)
		return doubt(gguf, "another version than 2 and 3, or big-endian");
	if (tensors > TPD_FORMAT_MAX_GLUE / INFO_MIN || pairs > TPD_FORMAT_MAX_GLUE)
		return doubt(gguf, "more tensors or pairs than a header has room for");
	for (; pairs > 0; pairs--) {
		if (!skip_pair(gguf))
			return false;
	}
	for (; tensors > 0; tensors--) {
		if (!add_info(gguf))
			return false;
	}
	return check_places(gguf, (uint64_t)(rd->p - bytes));
}

/* With a header within the first `window` bytes. *out_short: it is longer. */
static enum tpd_status parse_window(uint64_t size, size_t window, tpd_format_read_fn read, void *ctx, bool *out_short,
				    struct tpd_format_layout *out_layout, struct tpd_err *err)
{
	TPD_AUTO_FREE uint8_t *bytes = malloc(window);
	struct gguf gguf = {.size = size, .alignment = ALIGNMENT};
	enum tpd_status status;

	if (!bytes)
		return tpd_fail_nomem(err);
	status = read(ctx, bytes, window, 0, err);
	if (status)
		return status;
	gguf.rd = tpd_rd_make(bytes, window);
	if (read_header(&gguf, bytes))
		return tpd_format_accept(out_layout, TPD_FORMAT_GGUF, size, gguf.segments, gguf.count, err);
	tpd_format_segments_free(gguf.segments, gguf.count);
	*out_short = !gguf.nomem && !gguf.doubt;
	if (gguf.nomem)
		return tpd_fail_nomem(err);
	tpd_format_opaque(out_layout, "gguf: %s", gguf.doubt ? gguf.doubt : "the header ends too early, or is too long");
	out_layout->cut = gguf.cut || (*out_short && window == size);
	return TPD_OK;
}

enum tpd_status tpd_format_parse_gguf(uint64_t size, tpd_format_read_fn read, void *ctx,
				      struct tpd_format_layout *out_layout, struct tpd_err *err)
{
	uint64_t most = TPD_MIN(size, (uint64_t)TPD_FORMAT_MAX_GLUE), window = TPD_MIN(most, (uint64_t)WINDOW_FIRST);

	for (;;) {
		bool is_short = false;
		enum tpd_status status = parse_window(size, (size_t)window, read, ctx, &is_short, out_layout, err);

		if (status || !is_short || window == most)
			return status;
		window = TPD_MIN(window * WINDOW_GROWTH, most);
	}
}
