/*
 * format.c - which parser a file gets, what every parser's result goes through, and
 * the codec's row length.
 *
 * The first bytes decide, not the name: a torch zip is called .pt, .pth, .bin,
 * .ckpt or anything.  A name that ends in .safetensors is only used to give a
 * reason where the bytes do not even look like it.  Only ONNX, which has no magic
 * number, goes by its name, and what companions speak of by what they say.
 */
#include "base/tpd.h"

#include "format/format.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/io.h"
#include "base/text.h"
#include "format/hints.h"
#include "format/npy.h"
#include "format/parse.h"
#include "format/torch_zip.h"
#include "format/zip.h"

#define SAFETENSORS_HEADER_MAX 100000000 /* of the format itself: what claims more is something else */
#define HEAD_MIN 9  /* bytes of a file that is anything but opaque */
#define HEAD_MAX 32 /* as many as tell the formats apart */
#define ROW_SHORT 64     /* a row has a byte of its own: that should serve some elements */
#define ROW_SHAPELESS 1024
#define ROW_LONG 8192    /* the scale of a long row varies: that is worth a byte more */
#define ROW_SPLIT_TRIES 64

enum tpd_status tpd_format_read_fd(void *ctx, void *buf, size_t len, uint64_t offset, struct tpd_err *err)
{
	return tpd_io_read_exact(tpd_io_posix(), *(const int *)ctx, buf, len, offset, "", err);
}

const char *tpd_format_kind_name(enum tpd_format_kind kind)
{
	static const char *const names[] = {
		[TPD_FORMAT_OPAQUE] = "opaque",
		[TPD_FORMAT_SAFETENSORS] = "safetensors",
		[TPD_FORMAT_TORCH_ZIP] = "torch-zip",
		[TPD_FORMAT_TORCH_DISTCP] = "torch-distcp",
		[TPD_FORMAT_TORCH_LEGACY] = "torch-legacy",
		[TPD_FORMAT_NPZ] = "npz",
		[TPD_FORMAT_NPY] = "npy",
		[TPD_FORMAT_GGUF] = "gguf",
		[TPD_FORMAT_ONNX] = "onnx",
		[TPD_FORMAT_ONNX_DATA] = "onnx-data",
	};

	return (size_t)kind < TPD_ARRAY_LEN(names) ? names[kind] : "?";
}

void tpd_format_segments_free(struct tpd_format_segment *segments, size_t count)
{
	for (size_t i = 0; i < count; i++)
		free(segments[i].name);
	free(segments);
}

void tpd_format_layout_release(struct tpd_format_layout *layout)
{
	tpd_format_segments_free(layout->segments, layout->count);
	*layout = (struct tpd_format_layout){.kind = TPD_FORMAT_OPAQUE};
}

enum tpd_status tpd_format_opaque(struct tpd_format_layout *out_layout, const char *fmt, ...)
{
	va_list args;

	*out_layout = (struct tpd_format_layout){.kind = TPD_FORMAT_OPAQUE};
	va_start(args, fmt);
	vsnprintf(out_layout->reason, sizeof out_layout->reason, fmt, args);
	va_end(args);
	return TPD_OK;
}

/* --- names, each once --- */

static int compare_names(const void *a, const void *b)
{
	const struct tpd_format_segment *x = *(struct tpd_format_segment *const *)a;
	const struct tpd_format_segment *y = *(struct tpd_format_segment *const *)b;
	int order = strcmp(x->name, y->name);

	return order ? order : (x->offset > y->offset) - (x->offset < y->offset);
}

/* "w" becomes "w#2" in place. */
static enum tpd_status number_name(struct tpd_format_segment *segment, size_t number, struct tpd_err *err)
{
	char *name = NULL;

	if (asprintf(&name, "%s#%zu", segment->name, number) < 0)
		return tpd_fail_nomem(err);
	free(segment->name);
	segment->name = name;
	return TPD_OK;
}

/* The second "w" of a file, in its order, becomes "w#2"; the first "" becomes "#1": the name of the glue is "". */
static enum tpd_status number_names(struct tpd_format_segment **sorted, size_t count, bool *out_unique,
				    struct tpd_err *err)
{
	enum tpd_status status = TPD_OK;
	bool changed = false;
	size_t first = 0;

	for (; !status && first < count && !*sorted[first]->name; first++) {
		status = number_name(sorted[first], first + 1, err);
		changed = true;
	}
	for (size_t i = first + 1; !status && i < count; i++) {
		if (strcmp(sorted[i]->name, sorted[first]->name) != 0) {
			first = i;
			continue;
		}
		status = number_name(sorted[i], i - first + 1, err);
		changed = true;
	}
	if (changed)
		qsort(sorted, count, sizeof *sorted, compare_names);
	*out_unique = true;
	for (size_t i = 1; changed && i < count; i++)
		*out_unique = *out_unique && strcmp(sorted[i - 1]->name, sorted[i]->name) != 0 &&
			      strlen(sorted[i]->name) <= TPD_FORMAT_MAX_NAME;
	return status;
}

static enum tpd_status make_unique(struct tpd_format_segment *segments, size_t count, bool *out_unique,
				   struct tpd_err *err)
{
	struct tpd_format_segment **sorted = reallocarray(NULL, count + 1, sizeof *sorted);
	enum tpd_status status;

	if (!sorted)
		return tpd_fail_nomem(err);
	for (size_t i = 0; i < count; i++)
		sorted[i] = &segments[i];
	qsort(sorted, count, sizeof *sorted, compare_names);
	status = number_names(sorted, count, out_unique, err);
	free(sorted);
	return status;
}

enum tpd_status tpd_format_accept(struct tpd_format_layout *out_layout, enum tpd_format_kind kind, uint64_t size,
				  struct tpd_format_segment *segments, size_t count, struct tpd_err *err)
{
	uint64_t glue = size;
	TPD_UNUSED uint64_t at = 0; /* asserted only */
	bool unique = true;
	size_t kept = 0;
	enum tpd_status status;

	for (size_t i = 0; i < count; i++) {
		assert(segments[i].offset >= at && segments[i].length <= size - segments[i].offset);
		at = segments[i].offset + segments[i].length;
		if (segments[i].length < TPD_FORMAT_MIN_SEGMENT) {
			free(segments[i].name);
			continue;
		}
		glue -= segments[i].length;
		if (kept != i)
			segments[kept] = segments[i];
		kept++;
	}
	if (kind == TPD_FORMAT_TORCH_DISTCP)
		glue = 0; /* each item is a zip, with a pickle and a directory of its own that were looked at */
	if (kept > TPD_FORMAT_MAX_SEGMENTS || glue > TPD_FORMAT_MAX_GLUE) {
		tpd_format_segments_free(segments, kept);
		if (kept > TPD_FORMAT_MAX_SEGMENTS)
			return tpd_format_opaque(out_layout, "%zu tensors are more than %u", kept,
						 TPD_FORMAT_MAX_SEGMENTS);
		return tpd_format_opaque(out_layout, "%llu bytes beside the tensors are more than %u",
					 (unsigned long long)glue, TPD_FORMAT_MAX_GLUE);
	}
	status = make_unique(segments, kept, &unique, err);
	if (status || !unique) {
		tpd_format_segments_free(segments, kept);
		return status ? status : tpd_format_opaque(out_layout, "two tensors of one name");
	}
	*out_layout = (struct tpd_format_layout){.kind = kind, .segments = segments, .count = kept};
	return TPD_OK;
}

enum tpd_status tpd_range_read(void *ctx, void *buf, size_t len, uint64_t offset, struct tpd_err *err)
{
	const struct tpd_range *range = ctx;

	return range->read(range->ctx, buf, len, range->offset + offset, err);
}

enum tpd_status tpd_format_parse_zip(uint64_t size, tpd_format_read_fn read, void *ctx,
				     struct tpd_format_layout *out_layout, struct tpd_err *err)
{
	struct tpd_format_segment *segments = NULL;
	size_t count = 0;
	const char *reason = NULL;
	struct tpd_zip zip;
	enum tpd_status status = tpd_zip_open(size, read, ctx, &zip, err);

	if (status)
		return status;
	status = tpd_torch_zip_segments(&zip, read, ctx, &segments, &count, &reason, err);
	if (!status && !reason)
		status = tpd_format_accept(out_layout, TPD_FORMAT_TORCH_ZIP, size, segments, count, err);
	else if (!status && tpd_npz_is(&zip))
		status = tpd_npz_read(size, &zip, read, ctx, out_layout, err);
	else if (!status)
		status = tpd_format_opaque(out_layout, "torch zip: %s", reason);
	tpd_zip_release(&zip);
	return status;
}

enum tpd_status tpd_format_parse(const char *path, uint64_t size, tpd_format_read_fn read, void *ctx,
				 const struct tpd_format_hints *hints, struct tpd_format_layout *out_layout,
				 struct tpd_err *err)
{
	const struct tpd_hint *items = NULL;
	size_t count = 0;
	uint8_t head[HEAD_MAX] = {0};
	size_t head_len = (size_t)TPD_MIN(size, (uint64_t)sizeof head);
	enum tpd_status status;

	if (size >= HEAD_MIN) {
		status = read(ctx, head, head_len, 0, err);
		if (status != TPD_OK)
			return status;
	}
	if (hints && path)
		items = tpd_hints_find(hints, path, &count);
	if (items && !items->zip)
		return tpd_format_parse_ranges(size, items, count, out_layout, err);
	if (memcmp(head, "PK\3\4", 4) == 0) {
		if (items && items->zip)
			return tpd_format_parse_distcp(size, read, ctx, items, count, out_layout, err);
		if (path && tpd_text_has_suffix(path, ".distcp"))
			return tpd_format_opaque(out_layout, "torch distcp: no .metadata speaks of it");
		return tpd_format_parse_zip(size, read, ctx, out_layout, err);
	}
	if (memcmp(head, "GGUF", 4) == 0)
		return tpd_format_parse_gguf(size, read, ctx, out_layout, err);
	if (memcmp(head, "\x93NUMPY", 6) == 0)
		return tpd_format_parse_npy(size, read, ctx, out_layout, err);
	if (tpd_format_is_torch_legacy(head, head_len))
		return tpd_format_parse_torch_legacy(size, read, ctx, out_layout, err);
	if ((head[8] == '{' && tpd_get_u64(head) <= SAFETENSORS_HEADER_MAX) ||
	    (path && tpd_text_has_suffix(path, ".safetensors")))
		return tpd_format_parse_safetensors(size, read, ctx, out_layout, err);
	if (path && tpd_text_has_suffix(path, ".onnx"))
		return tpd_format_parse_onnx(size, read, ctx, out_layout, err);
	*out_layout = (struct tpd_format_layout){.kind = TPD_FORMAT_OPAQUE};
	return TPD_OK;
}

void tpd_format_put_offsets(struct tpd_buf *buf, unsigned ndim, const uint64_t *offsets)
{
	for (unsigned i = 0; i < ndim; i++)
		tpd_buf_printf(buf, "%c%llu%s", i ? ',' : '[', (unsigned long long)offsets[i], i + 1 == ndim ? "]" : "");
}

uint32_t tpd_format_row(unsigned ndim, const uint64_t *dims, uint64_t elements)
{
	uint64_t row, parts;

	if (ndim == 0)
		return ROW_SHAPELESS;
	row = dims[--ndim];
	while (row < ROW_SHORT && ndim > 0) {
		if (TPD_MUL_OVERFLOW(row, dims[--ndim], &row))
			return ROW_SHAPELESS;
	}
	if (row == 0 || row > elements) /* no elements, or not the shape of this storage */
		return ROW_SHAPELESS;
	if (row <= ROW_LONG)
		return (uint32_t)row;
	parts = (row - 1) / ROW_LONG + 1;
	/* A divisor keeps the ends of rows together for the whole tensor: 53248 as 8 x 6656, not as 7 x 7607. */
	for (uint64_t k = parts; k <= 2 * parts && k - parts < ROW_SPLIT_TRIES; k++) {
		if (row % k == 0)
			return (uint32_t)(row / k);
	}
	return (uint32_t)((row - 1) / parts + 1);
}
