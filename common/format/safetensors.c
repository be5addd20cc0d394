/*
 * safetensors.c - the header of a safetensors file, strictly.
 *
 *     0        8            8 + N                                size
 *     | u64 N  | JSON, N B  | tensor | tensor | ...              |
 *
 * Valid if and only if: N is within the limit and the file; the JSON is one
 * object of NAME -> {"dtype", "shape", "data_offsets"} and perhaps
 * "__metadata__" -> object of strings; no key occurs twice; each tensor's
 * length is what its shape and type say; and the tensors, sorted by offset,
 * fill the data from its first byte to its last.  Anything else: opaque.
 *
 * PyTorch's distributed checkpoints in this format (torch/distributed/checkpoint/filesystem.py) say under "DCP_SHARDING_INFO" in
 * "__metadata__", as JSON in a string, of which part of a tensor each entry is: {NAME: {"saved_offsets": [17, 0]}}. A part that
 * does not begin at the tensor's beginning is called as in dcp.c: "NAME[17,0]"; of one that does nobody tells whether it is all of it. What is
 * wrong with it is not believed, and the rest stays.
 *
 * Memory is bounded by the header's length (TPD_FORMAT_MAX_HEADER): its text,
 * and about 110 bytes for each entry, of which there can be one in 50 bytes of
 * text.  Duplicate names are found by sorting, since a hash table would have
 * to withstand chosen names.
 */
#include "base/tpd.h"

#include "format/format.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/json.h"
#include "format/parse.h"

#define HEADER_MAX 100000000 /* the format's own limit */
#define ENTRIES_FIRST 64

struct header {
	struct tpd_json js;
	struct tpd_format_segment *entries; /* offsets count from the first data byte until they are all checked */
	size_t count, capacity;
	bool has_metadata;
	char *sharding; /* what DCP_SHARDING_INFO holds, owned; or NULL */
	const char *doubt; /* set by whoever returns false, unless it ran out of memory */
};

static bool doubt(struct header *header, const char *reason)
{
	header->doubt = reason;
	return false;
}

/* "__metadata__" has just been read. */
static bool parse_metadata(struct header *header)
{
	enum tpd_json_kind kind;

	if (header->has_metadata)
		return doubt(header, "a second __metadata__");
	header->has_metadata = true;
	if (tpd_json_next(&header->js) != TPD_JSON_OBJECT)
		return doubt(header, "__metadata__ is no object");
	while ((kind = tpd_json_next(&header->js)) == TPD_JSON_KEY) {
		bool sharding = tpd_json_is(&header->js, "DCP_SHARDING_INFO") && !header->sharding;

		if (tpd_json_next(&header->js) != TPD_JSON_STRING)
			return doubt(header, "__metadata__ holds something else than strings");
		if (sharding)
			header->sharding = tpd_json_string(&header->js); /* NULL: without it */
	}
	return kind == TPD_JSON_OBJECT_END || doubt(header, "bad JSON in __metadata__");
}

static bool parse_dtype(struct header *header, struct tpd_format_segment *entry)
{
	if (tpd_json_next(&header->js) != TPD_JSON_STRING ||
	    !tpd_dtype_from_name(header->js.text, header->js.text_len, &entry->dtype) ||
	    entry->dtype == TPD_DTYPE_BYTES) /* a name of ours, not of the format's */
		return doubt(header, "unknown dtype");
	return true;
}

/* Also *out_elements, the product.  More dimensions than we keep: the shape counts as unknown. */
static bool parse_shape(struct header *header, struct tpd_format_segment *entry, uint64_t *out_elements)
{
	enum tpd_json_kind kind;
	uint64_t product = 1, dim;
	size_t ndim = 0;

	if (tpd_json_next(&header->js) != TPD_JSON_ARRAY)
		return doubt(header, "shape is no array");
	while ((kind = tpd_json_next(&header->js)) == TPD_JSON_NUMBER) {
		if (!tpd_json_u64(&header->js, &dim))
			return doubt(header, "a dimension is no unsigned integer");
		if (TPD_MUL_OVERFLOW(product, dim, &product))
			return doubt(header, "the shape's product overflows");
		if (ndim < TPD_FORMAT_MAX_DIMS)
			entry->dims[ndim] = dim;
		ndim++;
	}
	if (kind != TPD_JSON_ARRAY_END)
		return doubt(header, "bad JSON in a shape");
	if (ndim > TPD_FORMAT_MAX_DIMS) {
		memset(entry->dims, 0, sizeof entry->dims);
		ndim = 0;
	}
	entry->ndim = (unsigned)ndim;
	*out_elements = product;
	return true;
}

static bool parse_offsets(struct header *header, struct tpd_format_segment *entry)
{
	uint64_t at[2];

	if (tpd_json_next(&header->js) != TPD_JSON_ARRAY)
		return doubt(header, "data_offsets is no array");
	for (int i = 0; i < 2; i++) {
		if (tpd_json_next(&header->js) != TPD_JSON_NUMBER || !tpd_json_u64(&header->js, &at[i]))
			return doubt(header, "an offset is no unsigned integer");
	}
	if (tpd_json_next(&header->js) != TPD_JSON_ARRAY_END)
		return doubt(header, "data_offsets has not two numbers");
	if (at[0] > at[1])
		return doubt(header, "a tensor ends before it begins");
	entry->offset = at[0];
	entry->length = at[1] - at[0];
	return true;
}

static bool parse_tensor(struct header *header, struct tpd_format_segment *entry)
{
	bool has_dtype = false, has_shape = false, has_offsets = false;
	uint64_t elements = 0, bits;
	enum tpd_json_kind kind;

	if (tpd_json_next(&header->js) != TPD_JSON_OBJECT)
		return doubt(header, "a tensor is no object");
	while ((kind = tpd_json_next(&header->js)) == TPD_JSON_KEY) {
		if (tpd_json_is(&header->js, "dtype") && !has_dtype)
			has_dtype = parse_dtype(header, entry);
		else if (tpd_json_is(&header->js, "shape") && !has_shape)
			has_shape = parse_shape(header, entry, &elements);
		else if (tpd_json_is(&header->js, "data_offsets") && !has_offsets)
			has_offsets = parse_offsets(header, entry);
		else
			return doubt(header, "a tensor's key is unknown or occurs twice");
		if (header->doubt)
			return false;
	}
	if (kind != TPD_JSON_OBJECT_END)
		return doubt(header, "bad JSON in a tensor");
	if (!has_dtype || !has_shape || !has_offsets)
		return doubt(header, "a tensor without dtype, shape or data_offsets");
	if (TPD_MUL_OVERFLOW(elements, (uint64_t)tpd_dtype_bits(entry->dtype), &bits))
		return doubt(header, "the shape's size overflows");
	if (bits % 8 != 0 || bits / 8 != entry->length)
		return doubt(header, "a tensor's length is not what its shape and dtype say");
	entry->typed = true;
	return true;
}

/* The key just read; false without a doubt: out of memory. */
static bool copy_name(struct header *header, struct tpd_format_segment *entry)
{
	entry->name = tpd_json_string(&header->js);
	if (!entry->name) {
		if (memmem(header->js.text, header->js.text_len, "\\u0000", 6))
			doubt(header, "a name holds U+0000");
		return false;
	}
	return strlen(entry->name) <= TPD_FORMAT_MAX_NAME || doubt(header, "a name is too long");
}

static struct tpd_format_segment *add_entry(struct header *header)
{
	if (header->count == header->capacity) {
		size_t capacity = header->capacity ? 2 * header->capacity : ENTRIES_FIRST;
		struct tpd_format_segment *entries = realloc(header->entries, capacity * sizeof *entries);

		if (!entries)
			return NULL;
		header->entries = entries;
		header->capacity = capacity;
	}
	header->entries[header->count] = (struct tpd_format_segment){.name = NULL};
	return &header->entries[header->count++];
}

static bool parse_entries(struct header *header)
{
	enum tpd_json_kind kind;

	if (tpd_json_next(&header->js) != TPD_JSON_OBJECT)
		return doubt(header, "the header is no JSON object");
	while ((kind = tpd_json_next(&header->js)) == TPD_JSON_KEY) {
		struct tpd_format_segment *entry;

		if (tpd_json_is(&header->js, "__metadata__")) {
			if (!parse_metadata(header))
				return false;
			continue;
		}
		entry = add_entry(header);
		if (!entry || !copy_name(header, entry) || !parse_tensor(header, entry))
			return false;
	}
	if (kind != TPD_JSON_OBJECT_END || tpd_json_next(&header->js) != TPD_JSON_END)
		return doubt(header, "bad JSON");
	return true;
}

static int compare_names(const void *a, const void *b)
{
	const char *const *x = a, *const *y = b;

	return strcmp(*x, *y);
}

/* false without a doubt: out of memory. */
static bool check_names(struct header *header)
{
	const char **names;
	bool unique = true;

	if (header->count < 2)
		return true;
	names = malloc(header->count * sizeof *names);
	if (!names)
		return false;
	for (size_t i = 0; i < header->count; i++)
		names[i] = header->entries[i].name;
	qsort(names, header->count, sizeof *names, compare_names);
	for (size_t i = 1; i < header->count && unique; i++)
		unique = strcmp(names[i - 1], names[i]) != 0;
	free(names);
	return unique || doubt(header, "a name occurs twice");
}

static int compare_entries(const void *a, const void *b)
{
	return strcmp(((const struct tpd_format_segment *)a)->name, ((const struct tpd_format_segment *)b)->name);
}

/* {"saved_offsets": [17, 0]}, whose opening brace was just read; false: anything else. */
static bool read_saved_offsets(struct tpd_json *js, uint64_t offsets[TPD_FORMAT_MAX_DIMS], unsigned *out_count)
{
	enum tpd_json_kind kind;

	*out_count = 0;
	if (tpd_json_next(js) != TPD_JSON_KEY || !tpd_json_is(js, "saved_offsets") || tpd_json_next(js) != TPD_JSON_ARRAY)
		return false;
	while ((kind = tpd_json_next(js)) == TPD_JSON_NUMBER) {
		if (*out_count == TPD_FORMAT_MAX_DIMS || !tpd_json_u64(js, &offsets[*out_count]))
			return false;
		++*out_count;
	}
	return kind == TPD_JSON_ARRAY_END && tpd_json_next(js) == TPD_JSON_OBJECT_END;
}

/* *out_name: "NAME[17,0]", or NULL when it begins at zeros or that were too long; false: no memory. */
static bool make_part_name(const struct tpd_format_segment *entry, const uint64_t *offsets, char **out_name)
{
	struct tpd_buf buf = {0};
	bool begins = true;

	for (unsigned d = 0; d < entry->ndim; d++)
		begins &= offsets[d] == 0;
	if (begins)
		return true;
	tpd_buf_put(&buf, entry->name, strlen(entry->name));
	tpd_format_put_offsets(&buf, entry->ndim, offsets);
	tpd_buf_u8(&buf, 0);
	if (tpd_buf_status(&buf, NULL) || buf.len > TPD_FORMAT_MAX_NAME) {
		bool nomem = buf.failed;

		tpd_buf_release(&buf);
		return !nomem;
	}
	*out_name = (char *)buf.data;
	return true;
}

/* From DCP_SHARDING_INFO: names[i] for those of the entries, which are sorted by name, that are parts. false: no memory. */
static bool read_sharding(struct header *header, char **names)
{
	struct tpd_json js = tpd_json_make(header->sharding, strlen(header->sharding));
	bool fits = true;

	if (tpd_json_next(&js) != TPD_JSON_OBJECT)
		return true;
	while (fits && tpd_json_next(&js) == TPD_JSON_KEY) {
		struct tpd_format_segment key = {.name = tpd_json_string(&js)}, *entry = NULL;
		uint64_t offsets[TPD_FORMAT_MAX_DIMS];
		unsigned count = 0;

		if (key.name)
			entry = bsearch(&key, header->entries, header->count, sizeof key, compare_entries);
		free(key.name);
		if (tpd_json_next(&js) != TPD_JSON_OBJECT || !read_saved_offsets(&js, offsets, &count))
			break;
		if (entry && count == entry->ndim && !entry->part) {
			entry->part = true;
			fits = make_part_name(entry, offsets, &names[entry - header->entries]);
		}
	}
	return fits;
}

/* Entries that are parts get names that say which. false: no memory. */
static bool name_parts(struct header *header)
{
	char **names;
	bool fits;

	if (!header->sharding || header->count == 0)
		return true;
	names = calloc(header->count, sizeof *names);
	if (!names)
		return false;
	qsort(header->entries, header->count, sizeof *header->entries, compare_entries);
	fits = read_sharding(header, names);
	for (size_t i = 0; i < header->count; i++) {
		if (!names[i])
			continue;
		free(header->entries[i].name);
		header->entries[i].name = names[i];
	}
	free(names);
	return fits;
}

/* Tensors without elements share their offset with the next one, and come before it. */
static int compare_places(const void *a, const void *b)
{
	const struct tpd_format_segment *x = a, *y = b;

	if (x->offset != y->offset)
		return x->offset < y->offset ? -1 : 1;
	return (x->length > y->length) - (x->length < y->length);
}

static bool check_places(struct header *header, uint64_t data_begin, uint64_t data_size)
{
	uint64_t at = 0;

	if (header->count > 1)
		qsort(header->entries, header->count, sizeof *header->entries, compare_places);
	for (size_t i = 0; i < header->count; i++) {
		struct tpd_format_segment *entry = &header->entries[i];

		if (entry->offset != at)
			return doubt(header, "the tensors overlap or leave a gap");
		if (entry->length > data_size - at)
			return doubt(header, "a tensor reaches past the end of the file");
		at += entry->length;
		entry->offset += data_begin;
	}
	return at == data_size || doubt(header, "bytes follow the last tensor");
}

static enum tpd_status give_up(struct header *header, struct tpd_format_layout *out_layout, struct tpd_err *err)
{
	size_t count = header->count;

	free(header->sharding);
	tpd_format_segments_free(header->entries, count);
	if (!header->doubt)
		return tpd_fail_nomem(err);
	return tpd_format_opaque(out_layout, "safetensors header: %s (after %zu tensors)", header->doubt, count);
}

enum tpd_status tpd_format_parse_safetensors(uint64_t size, tpd_format_read_fn read, void *ctx,
					     struct tpd_format_layout *out_layout, struct tpd_err *err)
{
	struct header header = {.doubt = NULL};
	TPD_AUTO_FREE char *text = NULL;
	enum tpd_status status;
	uint8_t prefix[8];
	uint64_t length;

	if (size < sizeof prefix)
		return tpd_format_opaque(out_layout, "safetensors: shorter than a header's length");
	status = read(ctx, prefix, sizeof prefix, 0, err);
	if (status != TPD_OK)
		return status;
	length = tpd_get_u64(prefix);
	if (length > size - sizeof prefix)
		return tpd_format_opaque(out_layout, "safetensors: the header reaches past the end of the file");
	if (length > HEADER_MAX)
		return tpd_format_opaque(out_layout, "safetensors: a header of %llu bytes is more than the format has",
					 (unsigned long long)length);
	if (length > TPD_FORMAT_MAX_HEADER)
		return tpd_format_opaque(out_layout, "safetensors: a header of %llu bytes is more than %u",
					 (unsigned long long)length, TPD_FORMAT_MAX_HEADER);
	text = malloc((size_t)length + 1);
	if (!text)
		return tpd_fail_nomem(err);
	status = length ? read(ctx, text, (size_t)length, sizeof prefix, err) : TPD_OK;
	if (status != TPD_OK)
		return status;
	header.js = tpd_json_make(text, (size_t)length);
	if (!parse_entries(&header) || !check_names(&header) || !name_parts(&header) ||
	    !check_places(&header, sizeof prefix + length, size - sizeof prefix - length))
		return give_up(&header, out_layout, err);
	free(header.sharding);
	return tpd_format_accept(out_layout, TPD_FORMAT_SAFETENSORS, size, header.entries, header.count, err);
}
