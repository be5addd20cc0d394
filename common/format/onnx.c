/*
 * onnx.c - initializers of ONNX models, in the model and in files beside it.
 *
 *     ModelProto.graph (7) -> GraphProto.initializer (5) -> TensorProto: dims 1, data_type 2, name 8, raw_data 9,
 *     external_data 13 -> {key 1, value 2}: "location", "offset", "length"; data_location 14 (1: external)
 *
 * (onnx/onnx.proto of 1.23.) A protobuf has no magic number, so only what is called .onnx is looked at. A model can
 * have 2 GB, so it is not read whole: fields are read through a small buffer, and what is not asked for is stepped
 * over. A field that must be there once and comes twice is a doubt, although protobuf would take the last; so are
 * groups, which are long gone. Tensors in branches of If and Loop, and data in other fields than raw_data, stay glue.
 *
 * Bounds: what is read rather than stepped over is at most TPD_FORMAT_MAX_GLUE bytes, as more would be too much glue,
 * and costs a step a byte; nesting is three functions deep, not as deep as the input says.
 */
#include "base/tpd.h"

#include "format/hints.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "format/parse.h"

#define BUFFER 4096u
#define GAP_MIN 4096u     /* bytes between ranges that are a segment rather than glue: exporters align to 64 KiB */
#define LOCATION_MAX 1024u
#define NUMBER_MAX 20u

enum wire { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };

/* --- a protobuf in a file --- */

struct onnx {
	tpd_format_read_fn read;
	void *ctx;
	struct tpd_err *err;
	enum tpd_status status; /* of the callback, or TPD_NOMEM */
	const char *doubt;
	uint64_t at, size;      /* of the file */
	uint64_t taken;         /* bytes that were read, not stepped over */
	uint64_t buffer_at;
	size_t buffered;
	uint8_t buffer[BUFFER];
	bool (*take)(struct onnx *onnx); /* of each initializer, which is in `tensor` */
	void *take_ctx;
	char name[TPD_FORMAT_MAX_NAME + 1], location[LOCATION_MAX + 1]; /* of the tensor, when it has them */
	struct {
		size_t name_length, location_length;
		uint64_t dims[TPD_FORMAT_MAX_DIMS], elements;
		unsigned ndim; /* also above TPD_FORMAT_MAX_DIMS */
		uint64_t type, raw_at, raw_length, offset, length;
		bool has_name, has_type, has_raw, has_location, has_offset, has_length, is_external;
	} tensor;
};

static bool doubt(struct onnx *onnx, const char *why)
{
	onnx->doubt = why;
	return false;
}

static bool fill_buffer(struct onnx *onnx)
{
	onnx->buffer_at = onnx->at;
	onnx->buffered = (size_t)TPD_MIN(onnx->size - onnx->at, (uint64_t)BUFFER);
	onnx->status = onnx->read(onnx->ctx, onnx->buffer, onnx->buffered, onnx->at, onnx->err);
	if (onnx->status)
		onnx->buffered = 0;
	return onnx->status == TPD_OK;
}

/* The next byte before `end`, which is within the file. */
static bool next_byte(struct onnx *onnx, uint64_t end, uint8_t *out)
{
	if (onnx->at >= end)
		return doubt(onnx, "a field reaches past the end of its message");
	if (++onnx->taken > TPD_FORMAT_MAX_GLUE)
		return doubt(onnx, "too much beside the tensors");
	if ((onnx->at < onnx->buffer_at || onnx->at - onnx->buffer_at >= onnx->buffered) && !fill_buffer(onnx))
		return false;
	*out = onnx->buffer[onnx->at++ - onnx->buffer_at];
	return true;
}

static bool read_varint(struct onnx *onnx, uint64_t end, uint64_t *out)
{
	uint64_t value = 0;
	uint8_t byte;

	for (unsigned shift = 0; shift < 70; shift += 7) {
		if (!next_byte(onnx, end, &byte))
			return false;
		if (shift == 63 && byte > 1)
			break;
		value |= (uint64_t)(byte & 0x7f) << shift;
		if (byte < 0x80) {
			*out = value;
			return true;
		}
	}
	return doubt(onnx, "a number of more than 64 bits");
}

struct field {
	uint64_t number;
	enum wire wire;
	uint64_t value; /* VARINT: it; else, where it begins */
	uint64_t length; /* bytes of the others */
};

/* The next field of a message that ends at `end`; onnx->at is then behind it. */
static bool next_field(struct onnx *onnx, uint64_t end, struct field *out)
{
	uint64_t tag;

	if (!read_varint(onnx, end, &tag))
		return false;
	*out = (struct field){.number = tag >> 3, .wire = (enum wire)(tag & 7)};
	if (out->number == 0)
		return doubt(onnx, "a field of number 0");
	switch (out->wire) {
	case VARINT:
		return read_varint(onnx, end, &out->value);
	case FIXED64:
		out->length = 8;
		break;
	case FIXED32:
		out->length = 4;
		break;
	case BYTES:
		if (!read_varint(onnx, end, &out->length))
			return false;
		break;
	default:
		return doubt(onnx, "a field of an unknown kind");
	}
	if (out->length > end - onnx->at)
		return doubt(onnx, "a field reaches past the end of its message");
	out->value = onnx->at;
	onnx->at += out->length;
	return true;
}

/* The bytes of a field into out with a zero behind them, when there are at most max. */
static bool read_text(struct onnx *onnx, const struct field *field, size_t max, char *out, size_t *out_length)
{
	uint64_t behind = onnx->at;

	if (field->wire != BYTES || field->length > max)
		return doubt(onnx, "a text that is none, or is too long");
	onnx->at = field->value;
	for (size_t i = 0; i < field->length; i++) {
		uint8_t byte;

		if (!next_byte(onnx, behind, &byte))
			return false;
		out[i] = (char)byte;
	}
	out[field->length] = 0;
	*out_length = (size_t)field->length;
	return true;
}

/* --- a tensor --- */

static bool add_dim(struct onnx *onnx, uint64_t dim)
{
	if (dim > INT64_MAX || TPD_MUL_OVERFLOW(onnx->tensor.elements, dim, &onnx->tensor.elements))
		return doubt(onnx, "the shape's product overflows");
	if (onnx->tensor.ndim < TPD_FORMAT_MAX_DIMS)
		onnx->tensor.dims[onnx->tensor.ndim] = dim;
	if (onnx->tensor.ndim <= TPD_FORMAT_MAX_DIMS)
		onnx->tensor.ndim++;
	return true;
}

/* Dimensions come one by one, or packed. */
static bool read_dims(struct onnx *onnx, const struct field *field)
{
	uint64_t behind = onnx->at, dim;

	if (field->wire == VARINT)
		return add_dim(onnx, field->value);
	if (field->wire != BYTES)
		return doubt(onnx, "dims that are no numbers");
	onnx->at = field->value;
	while (onnx->at < behind) {
		if (!read_varint(onnx, behind, &dim) || !add_dim(onnx, dim))
			return false;
	}
	return true;
}

static bool once(struct onnx *onnx, bool *seen)
{
	if (*seen)
		return doubt(onnx, "a field twice");
	*seen = true;
	return true;
}

/* One {key, value} of external_data. */
static bool read_external(struct onnx *onnx, const struct field *entry)
{
	uint64_t behind = onnx->at;
	char key[16] = "", number[NUMBER_MAX + 1];
	struct field value = {0}, field;
	size_t length = 0;

	if (entry->wire != BYTES)
		return doubt(onnx, "external_data that is none");
	onnx->at = entry->value;
	while (onnx->at < behind) {
		if (!next_field(onnx, behind, &field))
			return false;
		if (field.number == 1 && field.length <= sizeof key - 1 &&
		    !read_text(onnx, &field, sizeof key - 1, key, &length))
			return false;
		if (field.number == 2)
			value = field;
	}
	if (strcmp(key, "location") == 0)
		return once(onnx, &onnx->tensor.has_location) &&
		       read_text(onnx, &value, LOCATION_MAX, onnx->location, &onnx->tensor.location_length);
	if (strcmp(key, "offset") != 0 && strcmp(key, "length") != 0)
		return true;
	if (!once(onnx, key[0] == 'o' ? &onnx->tensor.has_offset : &onnx->tensor.has_length) ||
	    !read_text(onnx, &value, NUMBER_MAX, number, &length))
		return false;
	return tpd_text_parse_u64(number, key[0] == 'o' ? &onnx->tensor.offset : &onnx->tensor.length) ||
	       doubt(onnx, "an offset or length that is no number");
}

static bool read_tensor_field(struct onnx *onnx, const struct field *field)
{
	switch (field->number) {
	case 1:
		return read_dims(onnx, field);
	case 2:
		onnx->tensor.type = field->value;
		return once(onnx, &onnx->tensor.has_type) &&
			(field->wire == VARINT || doubt(onnx, "a type that is no number"));
	case 8:
		return once(onnx, &onnx->tensor.has_name) &&
		       read_text(onnx, field, TPD_FORMAT_MAX_NAME, onnx->name, &onnx->tensor.name_length);
	case 9:
		onnx->tensor.raw_at = field->value;
		onnx->tensor.raw_length = field->length;
		return once(onnx, &onnx->tensor.has_raw) &&
			(field->wire == BYTES || doubt(onnx, "raw_data that is none"));
	case 13: {
		uint64_t behind = onnx->at;

		if (!read_external(onnx, field))
			return false;
		onnx->at = behind;
		return true;
	}
	case 14:
		onnx->tensor.is_external = field->wire == VARINT && field->value == 1;
		return true;
	default:
		return true;
	}
}

/* Of TensorProto.DataType. */
static bool type_of(uint64_t number, enum tpd_dtype *out)
{
	static const enum tpd_dtype types[] = {
		[1] = TPD_DTYPE_F32,          [2] = TPD_DTYPE_U8,       [3] = TPD_DTYPE_I8,
		[4] = TPD_DTYPE_U16,          [5] = TPD_DTYPE_I16,      [6] = TPD_DTYPE_I32,
		[7] = TPD_DTYPE_I64,          [9] = TPD_DTYPE_BOOL,     [10] = TPD_DTYPE_F16,
		[11] = TPD_DTYPE_F64,         [12] = TPD_DTYPE_U32,     [13] = TPD_DTYPE_U64,
		[14] = TPD_DTYPE_C64,         [16] = TPD_DTYPE_BF16,    [17] = TPD_DTYPE_F8_E4M3,
		[18] = TPD_DTYPE_F8_E4M3FNUZ, [19] = TPD_DTYPE_F8_E5M2, [20] = TPD_DTYPE_F8_E5M2FNUZ,
		[24] = TPD_DTYPE_F8_E8M0,
	};

	if (number >= TPD_ARRAY_LEN(types) || types[number] == TPD_DTYPE_BYTES)
		return false;
	*out = types[number];
	return true;
}

/* The tensor as a segment of `length` bytes without a name; UINT64_MAX: as many as it must have. */
static bool describe(struct onnx *onnx, uint64_t offset, uint64_t length, struct tpd_format_segment *out)
{
	uint64_t bytes;

	*out = (struct tpd_format_segment){.offset = offset, .length = length};
	out->typed = type_of(onnx->tensor.type, &out->dtype);
	if (!out->typed)
		return length != UINT64_MAX || doubt(onnx, "a tensor of unknown length");
	if (TPD_MUL_OVERFLOW(onnx->tensor.elements, (uint64_t)tpd_dtype_width(out->dtype), &bytes) ||
	    (length != UINT64_MAX && bytes != length))
		return doubt(onnx, "a tensor's length is not what its shape and type say");
	out->length = bytes;
	if (onnx->tensor.ndim <= TPD_FORMAT_MAX_DIMS) {
		out->ndim = onnx->tensor.ndim;
		memcpy(out->dims, onnx->tensor.dims, sizeof out->dims);
	}
	return true;
}

/* The name, or "" when it is none: no UTF-8, or a zero byte in it. NULL: no memory, noted. */
static char *copy_name(struct onnx *onnx)
{
	size_t length = onnx->tensor.has_name ? onnx->tensor.name_length : 0, at = 0, n;
	const char *name = onnx->name;
	char *copy;

	while (at < length && name[at] && (n = tpd_text_utf8(name + at, length - at)) > 0)
		at += n;
	copy = strndup(name, at == length ? length : 0);
	if (!copy)
		onnx->status = tpd_fail_nomem(onnx->err);
	return copy;
}

/* --- the messages around them --- */

static bool read_tensor(struct onnx *onnx, uint64_t end)
{
	struct field field;

	memset(&onnx->tensor, 0, sizeof onnx->tensor);
	onnx->tensor.elements = 1;
	while (onnx->at < end) {
		if (!next_field(onnx, end, &field) || !read_tensor_field(onnx, &field))
			return false;
	}
	return onnx->take(onnx);
}

/* A sub-message that is a field just read. */
static bool enter(struct onnx *onnx, const struct field *field, bool (*read)(struct onnx *onnx, uint64_t end))
{
	uint64_t behind = onnx->at;

	if (field->wire != BYTES)
		return doubt(onnx, "a message that is none");
	onnx->at = field->value;
	return read(onnx, behind);
}

static bool read_graph(struct onnx *onnx, uint64_t end)
{
	struct field field;

	while (onnx->at < end) {
		if (!next_field(onnx, end, &field) || (field.number == 5 && !enter(onnx, &field, read_tensor)))
			return false;
	}
	return true;
}

static bool read_model(struct onnx *onnx)
{
	struct field field;
	bool graph = false;

	while (onnx->at < onnx->size) {
		if (!next_field(onnx, onnx->size, &field))
			return false;
		if (field.number == 7 && (!once(onnx, &graph) || !enter(onnx, &field, read_graph)))
			return false;
	}
	return graph || doubt(onnx, "no graph");
}

/* --- tensors in the model --- */

struct found {
	struct tpd_format_segment *segments;
	size_t count, cap;
};

static bool take_raw(struct onnx *onnx)
{
	struct found *found = onnx->take_ctx;
	struct tpd_format_segment segment;

	if (!onnx->tensor.has_raw || onnx->tensor.is_external || onnx->tensor.raw_length < TPD_FORMAT_MIN_SEGMENT)
		return true;
	if (!describe(onnx, onnx->tensor.raw_at, onnx->tensor.raw_length, &segment))
		return false;
	if (found->count == TPD_FORMAT_MAX_SEGMENTS)
		return doubt(onnx, "too many tensors");
	if (found->count == found->cap) {
		size_t cap = found->cap ? 2 * found->cap : 64;
		struct tpd_format_segment *grown = reallocarray(found->segments, cap, sizeof *grown);

		if (!grown) {
			onnx->status = tpd_fail_nomem(onnx->err);
			return false;
		}
		found->segments = grown;
		found->cap = cap;
	}
	segment.name = copy_name(onnx);
	if (segment.name)
		found->segments[found->count++] = segment;
	return segment.name != NULL;
}

static struct onnx *open_model(uint64_t size, tpd_format_read_fn read, void *ctx, struct tpd_err *err)
{
	struct onnx *onnx = calloc(1, sizeof *onnx);

	if (!onnx) {
		tpd_fail_nomem(err);
		return NULL;
	}
	onnx->size = size;
	onnx->read = read;
	onnx->ctx = ctx;
	onnx->err = err;
	return onnx;
}

enum tpd_status tpd_format_parse_onnx(uint64_t size, tpd_format_read_fn read, void *ctx,
				      struct tpd_format_layout *out_layout, struct tpd_err *err)
{
	TPD_AUTO_FREE struct onnx *onnx = open_model(size, read, ctx, err);
	struct found found = {0};

	if (!onnx)
		return TPD_NOMEM;
	onnx->take = take_raw;
	onnx->take_ctx = &found;
	if (read_model(onnx))
		return tpd_format_accept(out_layout, TPD_FORMAT_ONNX, size, found.segments, found.count, err);
	tpd_format_segments_free(found.segments, found.count);
	return onnx->status ? onnx->status : tpd_format_opaque(out_layout, "onnx: %s", onnx->doubt);
}

/* --- tensors beside the model --- */

struct beside {
	struct tpd_format_hints *hints;
	const char *path;
	char location[LOCATION_MAX + 1]; /* the last: a model has one file, or runs of tensors in one */
	bool has_location;
	uint32_t file;
};

static bool take_external(struct onnx *onnx)
{
	struct beside *beside = onnx->take_ctx;
	struct tpd_hint hint = {.zip = false};
	const char *location = onnx->location;
	size_t length = onnx->tensor.location_length;

	if (!onnx->tensor.is_external || !onnx->tensor.has_location)
		return true;
	if (!describe(onnx, onnx->tensor.offset, onnx->tensor.has_length ? onnx->tensor.length : UINT64_MAX,
		      &hint.segment))
		return false;
	if (length > 2 && memcmp(location, "./", 2) == 0) {
		location += 2;
		length -= 2;
	}
	if (!beside->has_location || strcmp(beside->location, location) != 0) {
		if (!tpd_hints_file(beside->hints, beside->path, location, length, &beside->file))
			return false;
		memcpy(beside->location, location, strlen(location) + 1);
		beside->has_location = true;
	}
	hint.file = beside->file;
	hint.segment.name = copy_name(onnx);
	return hint.segment.name && tpd_hints_add(beside->hints, &hint);
}

enum tpd_status tpd_hints_read_onnx(struct tpd_format_hints *hints, const char *path, uint64_t size,
				    tpd_format_read_fn read, void *ctx, struct tpd_err *err)
{
	TPD_AUTO_FREE struct onnx *onnx = open_model(size, read, ctx, err);
	struct beside beside = {.hints = hints, .path = path};

	if (!onnx)
		return TPD_NOMEM;
	onnx->take = take_external;
	onnx->take_ctx = &beside;
	if (!read_model(onnx) && onnx->doubt)
		hints->doubt = onnx->doubt;
	return onnx->status;
}

/* Padding before a tensor as a segment: it may be too much for the glue. */
static bool add_gap(struct found *found, uint64_t at, const struct tpd_format_segment *before)
{
	struct tpd_format_segment gap = {
		.offset = at, .length = before->offset - at, .typed = true, .dtype = TPD_DTYPE_BYTES};

	if (asprintf(&gap.name, "%.*s#before", TPD_FORMAT_MAX_NAME - 16, before->name) < 0)
		return false;
	found->segments[found->count++] = gap;
	return true;
}

/* One range; false: no memory. */
static bool add_range(struct found *found, uint64_t at, const struct tpd_format_segment *range)
{
	struct tpd_format_segment segment = *range;

	if (range->offset - at >= GAP_MIN && !add_gap(found, at, range))
		return false;
	segment.name = strdup(range->name);
	if (segment.name)
		found->segments[found->count++] = segment;
	return segment.name != NULL;
}

enum tpd_status tpd_format_parse_ranges(uint64_t size, const struct tpd_hint *items, size_t count,
					struct tpd_format_layout *out_layout, struct tpd_err *err)
{
	struct found found = {.segments = calloc(count, 2 * sizeof *found.segments)};
	const char *reason = NULL;
	bool nomem = !found.segments;
	uint64_t at = 0;

	for (size_t i = 0; i < count && !nomem && !reason; i++) {
		const struct tpd_format_segment *range = &items[i].segment;

		/* Tensors that share their data share the segment. */
		if (i > 0 && range->offset == items[i - 1].segment.offset &&
		    range->length == items[i - 1].segment.length)
			continue;
		if (range->offset < at || range->offset > size || range->length > size - range->offset) {
			reason = "onnx data: tensors overlap or are out of bounds";
		} else {
			nomem = !add_range(&found, at, range);
			at = range->offset + range->length;
		}
	}
	if (!nomem && !reason)
		return tpd_format_accept(out_layout, TPD_FORMAT_ONNX_DATA, size, found.segments, found.count, err);
	tpd_format_segments_free(found.segments, found.count);
	return nomem ? tpd_fail_nomem(err) : tpd_format_opaque(out_layout, "%s", reason);
}
