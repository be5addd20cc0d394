/*
 * npy.c - numpy arrays: one in a .npy file, several in a .npz, which is a zip of stored .npy members.
 *
 *     | \x93NUMPY | u8 major, 0 | u16 length (major 1) or u32 | header \n | data |
 *     header: {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }
 *
 * (numpy/lib/format.py: versions 1.0 to 3.0.) The header is a Python literal; only what numpy writes is understood:
 * three keys, each once, in any order. The data must be as long as shape and type say, to the end of the file or
 * member. Types that we do not have, and big-endian ones, give a segment without a type; where the width is not known
 * either (records, pickled objects) it is the rest. An array in Fortran's order is in memory one of the reversed
 * shape.
 *
 * A member that is doubted stays glue; a .npy file that is doubted is opaque.
 */
#include "base/tpd.h"

#include "format/npy.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/text.h"
#include "format/parse.h"

#define HEADER_MAX 65536u /* bytes of text: numpy's own limit for trusting is 10,000 */
#define PREFIX_MAX 12u    /* before the text */

/* The text of a header. */
struct text {
	const char *at, *end;
};

static void skip_space(struct text *text)
{
	while (text->at < text->end && (*text->at == ' ' || *text->at == '\n'))
		text->at++;
}

static bool skip(struct text *text, char c)
{
	skip_space(text);
	if (text->at == text->end || *text->at != c)
		return false;
	text->at++;
	return true;
}

static bool skip_word(struct text *text, const char *word)
{
	size_t len = strlen(word);

	skip_space(text);
	if ((size_t)(text->end - text->at) < len || memcmp(text->at, word, len) != 0)
		return false;
	text->at += len;
	return true;
}

/* A string in single quotes, without escapes, as it lies in the text. */
static bool read_string(struct text *text, const char **out, size_t *out_length)
{
	const char *begin;

	if (!skip(text, '\''))
		return false;
	begin = text->at;
	while (text->at < text->end && *text->at != '\'' && *text->at != '\\')
		text->at++;
	*out = begin;
	*out_length = (size_t)(text->at - begin);
	return skip(text, '\'');
}

static bool read_number(struct text *text, uint64_t *out)
{
	uint64_t value = 0;
	const char *begin;

	skip_space(text);
	begin = text->at;
	for (; text->at < text->end && *text->at >= '0' && *text->at <= '9'; text->at++) {
		if (TPD_MUL_OVERFLOW(value, 10u, &value) ||
		    TPD_ADD_OVERFLOW(value, (uint64_t)(*text->at - '0'), &value))
			return false;
	}
	*out = value;
	return text->at > begin;
}

/* --- what the three keys say --- */

struct array {
	uint64_t width; /* bytes an element; 0: not known */
	bool typed;
	enum tpd_dtype dtype;
	bool fortran;
	uint64_t elements;
	unsigned ndim; /* also above TPD_FORMAT_MAX_DIMS */
	uint64_t dims[TPD_FORMAT_MAX_DIMS];
};

/* '<f4' and its like: byte order, kind, bytes, and perhaps a unit in brackets. */
static void read_type(const char *descr, size_t length, struct array *out)
{
	static const struct {
		const char *name;
		enum tpd_dtype dtype;
	} types[] = {
		{"f4", TPD_DTYPE_F32}, {"f2", TPD_DTYPE_F16}, {"f8", TPD_DTYPE_F64}, {"i1", TPD_DTYPE_I8},
		{"u1", TPD_DTYPE_U8},  {"i2", TPD_DTYPE_I16}, {"u2", TPD_DTYPE_U16}, {"i4", TPD_DTYPE_I32},
		{"u4", TPD_DTYPE_U32}, {"i8", TPD_DTYPE_I64}, {"u8", TPD_DTYPE_U64}, {"b1", TPD_DTYPE_BOOL},
		{"c8", TPD_DTYPE_C64},
	};
	struct text number = {descr + TPD_MIN(length, (size_t)2), descr + length};
	uint64_t width;

	if (length < 3 || !memchr("<>|=", descr[0], 4) || !memchr("fiubcSVUMm", descr[1], 10) ||
	    !read_number(&number, &width))
		return;
	out->width = descr[1] == 'U' && width > UINT64_MAX / 4 ? 0 : descr[1] == 'U' ? 4 * width : width;
	for (size_t i = 0; i < TPD_ARRAY_LEN(types); i++) {
		if (length == 3 && memcmp(descr + 1, types[i].name, 2) == 0 &&
		    (descr[0] == '<' || (descr[0] == '|' && width == 1))) {
			out->typed = true;
			out->dtype = types[i].dtype;
		}
	}
}

/* The type of a record: a list of anything, whose brackets and strings are counted only. */
static bool skip_list(struct text *text)
{
	size_t depth = 0;

	do {
		const char *string;
		size_t length;
		char c;

		skip_space(text);
		if (text->at == text->end)
			return false;
		c = *text->at;
		if (c == '\'') {
			if (!read_string(text, &string, &length))
				return false;
			continue;
		}
		text->at++;
		if (c == '[' || c == '(')
			depth++;
		else if (c == ']' || c == ')')
			depth--;
	} while (depth > 0);
	return true;
}

static bool read_descr(struct text *text, struct array *out)
{
	const char *descr;
	size_t length;

	skip_space(text);
	if (text->at < text->end && *text->at == '[')
		return skip_list(text);
	if (!read_string(text, &descr, &length))
		return false;
	read_type(descr, length, out);
	return true;
}

static bool read_order(struct text *text, struct array *out)
{
	out->fortran = skip_word(text, "True");
	return out->fortran || skip_word(text, "False");
}

static bool read_shape(struct text *text, struct array *out)
{
	uint64_t dim;

	out->elements = 1;
	if (!skip(text, '('))
		return false;
	while (!skip(text, ')')) {
		if (!read_number(text, &dim) || TPD_MUL_OVERFLOW(out->elements, dim, &out->elements))
			return false;
		skip(text, 'L'); /* Python 2 */
		if (out->ndim < TPD_FORMAT_MAX_DIMS)
			out->dims[out->ndim] = dim;
		out->ndim++;
		if (!skip(text, ',')) {
			if (!skip(text, ')'))
				return false;
			break;
		}
	}
	return true;
}

static bool read_header(struct text *text, struct array *out)
{
	static const struct {
		const char *name;
		bool (*read)(struct text *text, struct array *out);
	} keys[] = {{"'descr'", read_descr}, {"'fortran_order'", read_order}, {"'shape'", read_shape}};
	unsigned seen = 0;

	if (!skip(text, '{'))
		return false;
	for (unsigned n = 0; n < 3; n++) {
		unsigned key = 0;

		while (key < 3 && !skip_word(text, keys[key].name))
			key++;
		if (key == 3 || seen & 1u << key || !skip(text, ':') || !keys[key].read(text, out))
			return false;
		seen |= 1u << key;
		if (!skip(text, ',') && n < 2)
			return false;
	}
	if (!skip(text, '}'))
		return false;
	skip_space(text);
	return text->at == text->end;
}

/* --- a file or a member --- */

static void fill(const struct array *array, uint64_t begin, uint64_t length, struct tpd_format_segment *out)
{
	*out = (struct tpd_format_segment){
		.offset = begin, .length = length, .typed = array->typed, .dtype = array->dtype};
	if (!array->typed || array->ndim > TPD_FORMAT_MAX_DIMS)
		return;
	out->ndim = array->ndim;
	for (unsigned i = 0; i < array->ndim; i++)
		out->dims[array->fortran ? array->ndim - 1 - i : i] = array->dims[i];
}

enum tpd_status tpd_npy_read(uint64_t size, tpd_format_read_fn read, void *ctx, struct tpd_format_segment *out_segment,
			     const char **out_reason, struct tpd_err *err)
{
	TPD_AUTO_FREE char *header = NULL;
	struct array array = {0};
	uint8_t prefix[PREFIX_MAX];
	uint64_t length, begin, bytes;
	struct text text;
	enum tpd_status status;

	*out_reason = "no header";
	if (size < PREFIX_MAX)
		return TPD_OK;
	status = read(ctx, prefix, sizeof prefix, 0, err);
	if (status || memcmp(prefix, "\x93NUMPY", 6) != 0 || prefix[6] < 1 || prefix[6] > 3 || prefix[7] != 0)
		return status;
	length = prefix[6] == 1 ? tpd_get_u16(prefix + 8) : tpd_get_u32(prefix + 8);
	begin = prefix[6] == 1 ? 10 : 12;
	if (length > HEADER_MAX || length == 0 || length > size - begin)
		return TPD_OK;
	header = malloc((size_t)length);
	if (!header)
		return tpd_fail_nomem(err);
	status = read(ctx, header, (size_t)length, begin, err);
	if (status)
		return status;
	begin += length;
	text = (struct text){header, header + length};
	*out_reason = "a header that is not numpy's";
	if (!read_header(&text, &array))
		return TPD_OK;
	*out_reason = "the data is not as long as its shape and type say";
	if (array.width > 0 && (TPD_MUL_OVERFLOW(array.elements, array.width, &bytes) || bytes != size - begin))
		return TPD_OK;
	*out_reason = NULL;
	fill(&array, begin, size - begin, out_segment);
	return TPD_OK;
}

enum tpd_status tpd_format_parse_npy(uint64_t size, tpd_format_read_fn read, void *ctx,
				     struct tpd_format_layout *out_layout, struct tpd_err *err)
{
	struct tpd_format_segment *segment = calloc(1, sizeof *segment);
	const char *reason = NULL;
	enum tpd_status status = segment ? tpd_npy_read(size, read, ctx, segment, &reason, err) : tpd_fail_nomem(err);

	if (status || reason) {
		free(segment);
		return status ? status : tpd_format_opaque(out_layout, "npy: %s", reason);
	}
	segment->name = strdup("array");
	if (!segment->name) {
		free(segment);
		return tpd_fail_nomem(err);
	}
	return tpd_format_accept(out_layout, TPD_FORMAT_NPY, size, segment, 1, err);
}

/* --- npz --- */

static bool is_npy(const struct tpd_zip_member *member)
{
	return member->name_length > 4 && memcmp(member->name + member->name_length - 4, ".npy", 4) == 0;
}

bool tpd_npz_is(const struct tpd_zip *zip)
{
	for (size_t i = 0; i < zip->count; i++) {
		if (!is_npy(&zip->members[i]))
			return false;
	}
	return zip->count > 0;
}

/* A member's name without .npy; NULL in *out when it is none. false: no memory. */
static bool name_of(const struct tpd_zip_member *member, char **out)
{
	size_t length = member->name_length - 4u, at = 0, n;

	*out = NULL;
	while (at < length && member->name[at] && (n = tpd_text_utf8(member->name + at, length - at)) > 0)
		at += n;
	if (at < length || length > TPD_FORMAT_MAX_NAME)
		return true;
	*out = strndup(member->name, length);
	return *out != NULL;
}

/* *out_taken: is it a segment? */
static enum tpd_status read_member(const struct tpd_zip_member *member, tpd_format_read_fn read, void *ctx,
				   struct tpd_format_segment *out, bool *out_taken, struct tpd_err *err)
{
	struct tpd_range range = {read, ctx, member->data};
	const char *reason = NULL;
	enum tpd_status status;
	char *name = NULL;

	*out_taken = false;
	if (member->method != 0)
		return TPD_OK;
	if (!name_of(member, &name))
		return tpd_fail_nomem(err);
	if (!name)
		return TPD_OK;
	status = tpd_npy_read(member->length, tpd_range_read, &range, out, &reason, err);
	*out_taken = !status && !reason;
	if (!*out_taken) {
		free(name);
		return status;
	}
	out->offset += member->data;
	out->name = name;
	return TPD_OK;
}

enum tpd_status tpd_npz_read(uint64_t size, const struct tpd_zip *zip, tpd_format_read_fn read, void *ctx,
			     struct tpd_format_layout *out_layout, struct tpd_err *err)
{
	struct tpd_format_segment *segments = calloc(zip->count, sizeof *segments);
	size_t count = 0;

	if (!segments)
		return tpd_fail_nomem(err);
	for (size_t i = 0; i < zip->count; i++) {
		bool taken = false;
		enum tpd_status status = read_member(&zip->members[i], read, ctx, &segments[count], &taken, err);

		if (status) {
			tpd_format_segments_free(segments, count);
			return status;
		}
		count += taken;
	}
	return tpd_format_accept(out_layout, TPD_FORMAT_NPZ, size, segments, count, err);
}
