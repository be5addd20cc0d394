/*
 * dcp.c - PyTorch's distributed checkpoints (DCP; also Lightning, torchtitan, megatron-core's torch_dist).
 *
 *     .metadata       a pickle: Metadata(state_dict_metadata = {FQN: TensorStorageMetadata(chunks = [...], ...) or
 *                     BytesStorageMetadata()}, storage_data = {MetadataIndex(fqn, offset):
 *                     _StorageInfo(relative_path, offset, length)}, ...)
 *     __R_N.distcp    items, one behind the other, each a whole zip by torch.save(): of one tensor, a chunk of the
 *                     tensor FQN that begins at `offset` in it; or of any other value
 *
 * (torch/distributed/checkpoint/metadata.py, filesystem.py of PyTorch 2.13; the fields are those since 2.0.) A
 * segment is called after its FQN; where a tensor has several chunks, with the chunk's offset:
 * "model.0.weight[17,0]". What lies in a zip that is no tensor is called after the FQN and its own name: "rng.cpu".
 * Types and shapes are in the zips, which speak for themselves (but for a part of a transposed tensor, whose shape is left out); an item whose zip is doubted stays glue, so that a
 * .metadata that is older than the file makes it opaque.
 *
 * Hostile input: lookups in what can be shared, fields of an object, are bounded in length; texts are resolved once
 * for each time that they stand in the pickle, not for each use. So about as many steps as the pickle has cells,
 * times log2 for the sort of the FQNs.
 */
#include "base/tpd.h"

#include "format/hints.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/text.h"
#include "format/parse.h"
#include "format/pickle.h"
#include "format/torch_zip.h"

#define UNRESOLVED UINT32_MAX
enum { SINGLE, MANY, UNKNOWN }; /* chunks */

/* A tensor of state_dict_metadata. */
struct tensor {
	uint32_t fqn; /* a node */
};

struct metadata {
	struct tpd_format_hints *hints;
	const char *path;
	struct tpd_pickle pickle;
	struct tensor *tensors; /* by FQN */
	size_t count;
	uint8_t *chunks;  /* for each node that is an FQN: SINGLE or MANY, once that was asked */
	uint32_t *files;  /* for each node that is a path: the file, or UNRESOLVED */
};

static bool doubt(struct metadata *m, const char *why)
{
	m->hints->doubt = why;
	return false;
}

static int compare_texts(const struct tpd_pickle_node *x, const struct tpd_pickle_node *y)
{
	uint32_t length = TPD_MIN(x->u.text.length, y->u.text.length);
	int order = memcmp(x->u.text.at, y->u.text.at, length);

	return order ? order : (x->u.text.length > y->u.text.length) - (x->u.text.length < y->u.text.length);
}

static int compare_tensors(const void *a, const void *b, void *nodes)
{
	const struct tpd_pickle_node *node = nodes;

	return compare_texts(&node[((const struct tensor *)a)->fqn], &node[((const struct tensor *)b)->fqn]);
}

/* The tensors of {FQN: metadata}, each string once, by FQN. */
static bool read_tensors(struct metadata *m, uint32_t dict)
{
	const struct tpd_pickle *p = &m->pickle;
	uint32_t cell = tpd_pickle_kind_of(p, dict) == TPD_PICKLE_DICT ? p->nodes[dict].first : TPD_PICKLE_NOTHING;

	m->tensors = reallocarray(NULL, p->cell_count / 2 + 1, sizeof *m->tensors);
	if (!m->tensors) {
		m->hints->nomem = true;
		return false;
	}
	while (cell != TPD_PICKLE_NOTHING) {
		uint32_t key = p->cells[cell].node, value = p->cells[p->cells[cell].next].node;
		uint32_t chunks = tpd_pickle_field(p, value, "chunks");

		cell = p->cells[p->cells[cell].next].next;
		if (tpd_pickle_kind_of(p, key) != TPD_PICKLE_STRING)
			return doubt(m, "a tensor whose name is none");
		if (m->chunks[key] != UNKNOWN)
			return doubt(m, "a tensor twice");
		m->chunks[key] = tpd_pickle_item(p, chunks, 1) != TPD_PICKLE_NOTHING ? MANY : SINGLE;
		m->tensors[m->count++] = (struct tensor){key};
	}
	qsort_r(m->tensors, m->count, sizeof *m->tensors, compare_tensors, p->nodes);
	for (size_t i = 1; i < m->count; i++) {
		if (compare_tensors(&m->tensors[i - 1], &m->tensors[i], p->nodes) == 0)
			return doubt(m, "a tensor twice");
	}
	return true;
}

/* Has the tensor of this name more than one chunk? The answer is kept for the string. */
static bool has_many_chunks(struct metadata *m, uint32_t fqn)
{
	const struct tpd_pickle_node *nodes = m->pickle.nodes;
	size_t low = 0, high = m->count;

	if (m->chunks[fqn] != UNKNOWN)
		return m->chunks[fqn] == MANY;
	m->chunks[fqn] = SINGLE;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		int order = compare_texts(&nodes[m->tensors[middle].fqn], &nodes[fqn]);

		if (order == 0) {
			m->chunks[fqn] = m->chunks[m->tensors[middle].fqn];
			break;
		}
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return m->chunks[fqn] == MANY;
}

static bool resolve_file(struct metadata *m, uint32_t path, uint32_t *out_file)
{
	const struct tpd_pickle_node *node = &m->pickle.nodes[path];

	if (m->files[path] == UNRESOLVED &&
	    !tpd_hints_file(m->hints, m->path, node->u.text.at, node->u.text.length, &m->files[path]))
		return false;
	*out_file = m->files[path];
	return true;
}

/* "FQN[17,0]", or the FQN alone; *out_name NULL when it cannot be a name. false: no memory. */
static bool make_name(struct metadata *m, uint32_t fqn, unsigned ndim, const uint64_t *offsets, char **out_name)
{
	const struct tpd_pickle_node *node = &m->pickle.nodes[fqn];
	size_t at = 0, n, length = node->u.text.length;
	struct tpd_buf buf = {0};

	*out_name = NULL;
	if (length == 0 || length > TPD_FORMAT_MAX_NAME)
		return true;
	while (at < length && node->u.text.at[at] && (n = tpd_text_utf8(node->u.text.at + at, length - at)) > 0)
		at += n;
	if (at < length)
		return true;
	tpd_buf_put(&buf, node->u.text.at, length);
	tpd_format_put_offsets(&buf, ndim, offsets);
	tpd_buf_u8(&buf, 0);
	if (tpd_buf_status(&buf, NULL)) {
		m->hints->nomem = true;
		tpd_buf_release(&buf);
		return false;
	}
	*out_name = (char *)buf.data;
	return true;
}

/* One entry of storage_data. What is no item of a file that we understand is left out. */
static bool read_item(struct metadata *m, uint32_t index, uint32_t info)
{
	const struct tpd_pickle *p = &m->pickle;
	uint32_t fqn = tpd_pickle_field(p, index, "fqn"), path = tpd_pickle_field(p, info, "relative_path");
	struct tpd_hint hint = {.zip = true};
	uint64_t offsets[TPD_FORMAT_MAX_DIMS];
	unsigned ndim = 0;

	if (tpd_pickle_kind_of(p, fqn) != TPD_PICKLE_STRING || tpd_pickle_kind_of(p, path) != TPD_PICKLE_STRING ||
	    !tpd_pickle_u64(p, tpd_pickle_field(p, info, "offset"), &hint.segment.offset) ||
	    !tpd_pickle_u64(p, tpd_pickle_field(p, info, "length"), &hint.segment.length))
		return doubt(m, "an item without its place");
	hint.many = !tpd_pickle_sizes(p, tpd_pickle_field(p, index, "offset"), TPD_FORMAT_MAX_DIMS, &ndim, offsets);
	if (hint.many || !has_many_chunks(m, fqn))
		ndim = 0;
	hint.part = ndim > 0;
	if (!resolve_file(m, path, &hint.file) || !make_name(m, fqn, ndim, offsets, &hint.segment.name))
		return false;
	return !hint.segment.name || tpd_hints_add(m->hints, &hint);
}

static void read_metadata(struct metadata *m)
{
	const struct tpd_pickle *p = &m->pickle;
	uint32_t tensors = tpd_pickle_field(p, p->root, "state_dict_metadata");
	uint32_t dict = tpd_pickle_field(p, p->root, "storage_data"), cell;

	if (tpd_pickle_kind_of(p, dict) != TPD_PICKLE_DICT) {
		doubt(m, "no storage_data");
		return;
	}
	if (!read_tensors(m, tensors))
		return;
	for (cell = p->nodes[dict].first; cell != TPD_PICKLE_NOTHING; cell = p->cells[p->cells[cell].next].next) {
		if (!read_item(m, p->cells[cell].node, p->cells[p->cells[cell].next].node))
			return;
	}
}

static void read_bytes(struct tpd_format_hints *hints, const char *path, const uint8_t *bytes, size_t len)
{
	struct metadata m = {.hints = hints, .path = path};

	if (tpd_pickle_read(bytes, len, TPD_PICKLE_MAX_OPS_LARGE, &m.pickle, NULL)) {
		hints->nomem = true;
		return;
	}
	m.files = reallocarray(NULL, m.pickle.node_count + 1u, sizeof *m.files);
	m.chunks = malloc(m.pickle.node_count + 1u);
	if (!m.files || !m.chunks) {
		hints->nomem = true;
	} else if (m.pickle.doubt) {
		doubt(&m, m.pickle.doubt);
	} else {
		for (uint32_t i = 0; i < m.pickle.node_count; i++)
			m.files[i] = UNRESOLVED;
		memset(m.chunks, UNKNOWN, m.pickle.node_count);
		read_metadata(&m);
	}
	free(m.files);
	free(m.chunks);
	free(m.tensors);
	tpd_pickle_release(&m.pickle);
}

enum tpd_status tpd_hints_read_dcp(struct tpd_format_hints *hints, const char *path, uint64_t size,
				   tpd_format_read_fn read, void *ctx, struct tpd_err *err)
{
	TPD_AUTO_FREE uint8_t *bytes = NULL;
	enum tpd_status status;

	if (size > TPD_PICKLE_MAX_BYTES)
		return TPD_OK;
	bytes = malloc((size_t)size);
	if (!bytes)
		return tpd_fail_nomem(err);
	status = read(ctx, bytes, (size_t)size, 0, err);
	if (!status)
		read_bytes(hints, path, bytes, (size_t)size);
	return status;
}

/* --- a .distcp file --- */

#define NAMES_MAX TPD_FORMAT_MAX_GLUE /* bytes of all names of a file: as much text as any file may hold */

struct shard {
	uint64_t size;
	tpd_format_read_fn read;
	void *ctx;
	struct tpd_format_segment *segments; /* so far */
	size_t count, cap;
	size_t text;  /* bytes of their names: a name of 4 KiB may stand before those of a thousand members */
	bool crowded; /* more of either than a file may have */
};

/* The name of a storage in an item: the item's, or below it. The old one is freed. */
static bool rename_segment(struct tpd_format_segment *segment, const char *item, bool below)
{
	char *name = NULL;

	if (!below)
		name = strdup(item);
	else if (asprintf(&name, "%s.%s", item, segment->name) < 0)
		name = NULL;
	free(segment->name);
	segment->name = name;
	return name && strlen(name) <= TPD_FORMAT_MAX_NAME;
}

/* Takes the segments of an item over. A name that has become too long: they stay glue, up to NAMES_MAX of them. */
static enum tpd_status add_segments(struct shard *shard, const struct tpd_hint *item,
				    struct tpd_format_segment *segments, size_t count, struct tpd_err *err)
{
	if (shard->count + count > shard->cap) {
		size_t cap = 2 * (shard->count + count);
		struct tpd_format_segment *grown = reallocarray(shard->segments, cap, sizeof *grown);

		if (!grown)
			return tpd_fail_nomem(err);
		shard->segments = grown;
		shard->cap = cap;
	}
	for (size_t i = 0; i < count; i++) {
		struct tpd_format_segment *segment = &segments[i];
		bool fits;

		if (segment->length < TPD_FORMAT_MIN_SEGMENT)
			continue; /* glue in any case: not worth a name */
		fits = rename_segment(segment, item->segment.name, item->many || count > 1);
		if (!segment->name)
			return tpd_fail_nomem(err);
		/* One that is too long, too: it is held until the end of the item, which may have 200,000 members. */
		shard->text += strlen(segment->name) + 1;
		if (shard->text > NAMES_MAX || shard->count >= TPD_FORMAT_MAX_SEGMENTS) {
			shard->crowded = true;
			return TPD_OK;
		}
		if (!fits)
			continue;
		/* Its offsets are in the order of the tensor's dimensions, its own are not: no box can be made of the two. */
		if (item->part && segment->transposed)
			segment->ndim = 0;
		segment->part = item->part;
		segment->offset += item->segment.offset;
		shard->segments[shard->count++] = *segment;
		segment->name = NULL;
	}
	return TPD_OK;
}

static enum tpd_status read_zip(struct shard *shard, const struct tpd_hint *item, struct tpd_err *err)
{
	struct tpd_range range = {shard->read, shard->ctx, item->segment.offset};
	struct tpd_format_segment *segments = NULL;
	size_t count = 0;
	const char *reason = NULL;
	struct tpd_zip zip;
	enum tpd_status status = tpd_zip_open(item->segment.length, tpd_range_read, &range, &zip, err);

	if (status)
		return status;
	status = tpd_torch_zip_segments(&zip, tpd_range_read, &range, &segments, &count, &reason, err);
	if (!status && !reason)
		status = add_segments(shard, item, segments, count, err);
	tpd_format_segments_free(segments, count);
	tpd_zip_release(&zip);
	return status;
}

enum tpd_status tpd_format_parse_distcp(uint64_t size, tpd_format_read_fn read, void *ctx, const struct tpd_hint *items,
					size_t count, struct tpd_format_layout *out_layout, struct tpd_err *err)
{
	struct shard shard = {.size = size, .read = read, .ctx = ctx};
	uint64_t at = 0;

	for (size_t i = 0; i < count; i++) {
		const struct tpd_format_segment *range = &items[i].segment;
		enum tpd_status status;

		if (range->offset < at || range->offset > size || range->length > size - range->offset) {
			tpd_format_segments_free(shard.segments, shard.count);
			return tpd_format_opaque(out_layout, "torch distcp: items overlap or are out of bounds");
		}
		at = range->offset + range->length;
		status = read_zip(&shard, &items[i], err);
		if (status) {
			tpd_format_segments_free(shard.segments, shard.count);
			return status;
		}
		if (shard.crowded) {
			tpd_format_segments_free(shard.segments, shard.count);
			return tpd_format_opaque(out_layout, "torch distcp: too many tensors, or too long names");
		}
	}
	return tpd_format_accept(out_layout, TPD_FORMAT_TORCH_DISTCP, size, shard.segments, shard.count, err);
}
