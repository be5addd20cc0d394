/*
 * chain_replay.c - read chunks through a chain of deltas.
 *
 * The problem: chunk c of a checkpoint may need chunk c of the one before, and so on down to a keyframe; and where a tensor is cut
 * differently there, several chunks, each of which may need several others. Replaying whole tensors or checkpoints link by link would
 * need memory by their size; so each chunk is replayed alone, in two phases and without recursion. First the graph of chunks
 * that it depends on is walked, depth first, with nothing but index entries; each chunk is in it once, and knows how many others need
 * it. Then they are decoded, those that are needed before those that need them, and what nobody needs any more gives its buffer back:
 * along a plain chain two buffers change places. Several chunks may be wanted at once, whose graphs are one then. Predicted weights need
 * up to six chunks instead of one (w1, w0, m1, v1, m2, v2), of this link, its reference and its earlier checkpoint; or, where tensors
 * were cut anew, what each of these is put together from.
 *
 *      link 0 (wanted)   grid ──────┐                  out
 *      link 1            copy ──┬── ┤  down: entries    ▲
 *      link 2            grid  grid │                   │ up: decode, check the digest of each
 *      link 3 (keyframe) planes planes ─────────────────┘
 *
 * A chunk whose bytes still lie in the original file needs nothing, nor does one that was decoded for another before (chain_cache.c): those
 * that others are put together from are kept for a while. Index entries are read one by one (32 bytes), so memory does not
 * depend on the number of chunks. Part files are taken for one read at a time (chain_files.c): that of a link is taken again on the
 * way up. Rejected: recursion, which would decode a chunk as often as there are ways to it.
 */
#include "base/tpd.h"

#include "store/chain.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "codec/rounding.h"
#include "store/chain_internal.h"

/*
 * What one read may take, whatever manifests say. An ingest keeps below: a plain chain has a node a link, and where tensors were cut anew,
 * or are derived from pieces, at most TPD_INGEST_SLAB_CHUNKS go on from there.
 */
#define NODES_MAX (32 * TPD_CHAIN_MAX)
#define HELD_MAX (384u << 20) /* bytes of chunks at a time */
#define SPARES 4u             /* buffers that a worker keeps from one read to the next */
#define NONE UINT32_MAX

struct buffer {
	uint8_t *data;
	size_t cap;
};

enum visit { VISIT_NEW, VISIT_OPEN, VISIT_DONE };

/* A chunk that has to be decoded. */
struct node {
	struct tpd_chunk_key key;
	struct tpd_part_entry entry; /* decoded_len 0: its segment has no such chunk */
	uint32_t first_need, needs;  /* nodes whose bytes it refers to, in worker->needs */
	uint32_t next_need;          /* of the walk */
	uint32_t users;              /* how many still need it */
	enum visit visit;
	bool is_raw;                 /* its bytes were found as they are */
	bool is_piece;               /* others are put together from it */
	struct buffer buffer;        /* bytes, once they are there; of the wanted ones: the caller's */
	struct tpd_cached_chunk *cached; /* then they are its, not the buffer's */
	size_t held;                 /* what of worker->held it is */
};

struct tpd_chain_worker {
	struct tpd_codec *codec;
	struct buffer payload, reference;
	struct buffer inputs[TPD_INPUT_COUNT]; /* put together from several chunks */
	struct buffer *spare; /* buffers that no node has */
	uint32_t spare_count, spare_cap;
	struct node *nodes;
	uint32_t count, cap;
	uint32_t *table; /* node numbers by hash; table_size is a power of two, more than twice count */
	uint32_t table_size;
	uint32_t *needs;
	uint32_t need_count, need_cap;
	uint32_t wanted;        /* the first nodes are what is asked for */
	uint32_t *path, *order; /* of the walk: from one of them to where it is; and what it has left; each has room for cap */
	uint32_t ordered;
	size_t held;
};

enum tpd_status tpd_chain_worker_new(struct tpd_chain_worker **out_worker, struct tpd_err *err)
{
	struct tpd_chain_worker *worker = calloc(1, sizeof(*worker));
	enum tpd_status status;

	if (!worker)
		return tpd_fail_nomem(err);
	status = tpd_codec_new(&worker->codec, err);
	if (status) {
		free(worker);
		return status;
	}
	*out_worker = worker;
	return TPD_OK;
}

void tpd_chain_worker_free(struct tpd_chain_worker *worker)
{
	if (!worker)
		return;
	tpd_codec_free(worker->codec);
	free(worker->payload.data);
	free(worker->reference.data);
	for (unsigned i = 0; i < TPD_INPUT_COUNT; i++)
		free(worker->inputs[i].data);
	for (uint32_t i = 0; i < worker->spare_count; i++)
		free(worker->spare[i].data);
	free(worker->spare);
	free(worker->nodes);
	free(worker->table);
	free(worker->needs);
	free(worker->path);
	free(worker->order);
	free(worker);
}

static enum tpd_status buffer_room(struct buffer *buffer, size_t len, struct tpd_err *err)
{
	return tpd_room(&buffer->data, &buffer->cap, len, err);
}

/* The node has so many bytes now. */
static enum tpd_status hold(struct tpd_chain_worker *worker, struct node *node, size_t bytes, struct tpd_err *err)
{
	node->held = bytes;
	worker->held += bytes;
	if (worker->held > HELD_MAX)
		return tpd_fail(err, TPD_LIMIT, "it needs more than %u bytes of other chunks at a time", HELD_MAX);
	return TPD_OK;
}

static bool is_wanted(const struct tpd_chain_worker *worker, const struct node *node)
{
	return node < worker->nodes + worker->wanted;
}

/* Room for the node's bytes. Those that are wanted have the caller's. */
static enum tpd_status take_buffer(struct tpd_chain_worker *worker, struct node *node, struct tpd_err *err)
{
	enum tpd_status status;

	if (node->buffer.data)
		return TPD_OK;
	/* A piece goes into the cache, which counts what a chunk needs: it has memory of just that size. */
	if (worker->spare_count > 0 && !node->is_piece)
		node->buffer = worker->spare[--worker->spare_count];
	status = buffer_room(&node->buffer, node->entry.decoded_len, err);
	return status ? status : hold(worker, node, node->buffer.cap, err);
}

static void give_buffer(struct tpd_chain *chain, struct tpd_chain_worker *worker, struct node *node)
{
	if (is_wanted(worker, node))
		return;
	worker->held -= node->held;
	node->held = 0;
	if (node->cached) {
		tpd_chain_cache_give(chain->cache, node->cached);
		node->cached = NULL;
	} else if (node->buffer.data) {
		assert(worker->spare_count < worker->spare_cap);
		worker->spare[worker->spare_count++] = node->buffer;
	}
	node->buffer = (struct buffer){0};
}

/* A piece that was decoded before: then its bytes are there, and it needs nothing. */
static enum tpd_status look_in_cache(struct tpd_chain *chain, struct tpd_chain_worker *worker, struct node *node, struct tpd_err *err)
{
	node->cached = tpd_chain_cache_take(chain->cache, &node->key);
	if (!node->cached)
		return TPD_OK;
	node->is_raw = true;
	node->entry.decoded_len = (uint32_t)node->cached->len;
	node->buffer = (struct buffer){.data = node->cached->data};
	return hold(worker, node, node->cached->len, err);
}

/* Its bytes are there: for others, too, from now on. Without memory for that it keeps them. */
static void put_into_cache(struct tpd_chain *chain, struct node *node)
{
	node->cached = tpd_chain_cache_put(chain->cache, &node->key, node->buffer.data, node->entry.decoded_len);
	if (node->cached)
		node->buffer = (struct buffer){.data = node->cached->data};
}

/* --- nodes --- */

/* Its place in the table: that of its number, or the free one where it belongs. */
static uint32_t *find_place(const struct tpd_chain_worker *worker, const struct tpd_chunk_key *key)
{
	for (uint32_t i = tpd_chunk_hash(key);; i++) {
		uint32_t *place = &worker->table[i & (worker->table_size - 1)];

		if (*place == NONE || tpd_chunk_equal(&worker->nodes[*place].key, key))
			return place;
	}
}

/* Room for one more node in all that counts them. */
static enum tpd_status grow(struct tpd_chain_worker *worker, struct tpd_err *err)
{
	uint32_t cap = worker->cap ? 2 * worker->cap : 32, size = 4 * cap;
	struct node *nodes = reallocarray(worker->nodes, cap, sizeof(*nodes));
	struct buffer *spare = NULL;
	uint32_t *table = NULL, *path = NULL, *order = NULL;

	if (nodes)
		worker->nodes = nodes;
	if (nodes && (spare = reallocarray(worker->spare, cap, sizeof(*spare))))
		worker->spare = spare;
	if (spare && (table = reallocarray(worker->table, size, sizeof(*table))))
		worker->table = table;
	if (table && (path = reallocarray(worker->path, cap, sizeof(*path))))
		worker->path = path;
	if (path && (order = reallocarray(worker->order, cap, sizeof(*order))))
		worker->order = order;
	if (!order)
		return tpd_fail_nomem(err);
	worker->cap = worker->spare_cap = cap;
	worker->table_size = size;
	memset(table, 0xff, size * sizeof(*table));
	for (uint32_t i = 0; i < worker->count; i++)
		*find_place(worker, &nodes[i].key) = i;
	return TPD_OK;
}

static enum tpd_status find_or_add(struct tpd_chain_worker *worker, const struct tpd_chunk_key *key, uint32_t *out_node,
				   struct tpd_err *err)
{
	uint32_t *place;

	if (worker->count == worker->cap) {
		enum tpd_status status = worker->count < NODES_MAX ?
						 grow(worker, err) :
						 tpd_fail(err, TPD_LIMIT, "it needs more than %u other chunks", NODES_MAX);

		if (status)
			return status;
	}
	place = find_place(worker, key);
	if (*place == NONE) {
		*place = worker->count;
		worker->nodes[worker->count++] = (struct node){.key = *key};
	}
	*out_node = *place;
	return TPD_OK;
}

/* Node `of`, whose needs are the last ones, needs this chunk of that link, too, and did not so far. */
static enum tpd_status add_need(struct tpd_chain_worker *worker, uint32_t of, const struct tpd_chunk_key *key, bool is_piece,
				struct tpd_err *err)
{
	uint32_t number = 0;
	enum tpd_status status = find_or_add(worker, key, &number, err);

	if (status)
		return status;
	if (worker->need_count == worker->need_cap) {
		uint32_t cap = worker->need_cap ? 2 * worker->need_cap : 64;
		uint32_t *needs = reallocarray(worker->needs, cap, sizeof(*needs));

		if (!needs)
			return tpd_fail_nomem(err);
		worker->needs = needs;
		worker->need_cap = cap;
	}
	worker->needs[worker->need_count++] = number;
	worker->nodes[of].needs++;
	worker->nodes[number].users++;
	worker->nodes[number].is_piece |= is_piece;
	return TPD_OK;
}

/* --- phase one: which chunks --- */

struct raw_read {
	int fd;
	uint64_t start;
	uint8_t *out;
	bool failed;
};

static void read_piece(void *arg, uint64_t file_offset, uint64_t at, uint64_t n)
{
	struct raw_read *raw = arg;

	if (!raw->failed)
		raw->failed = tpd_io_read_exact(tpd_io_posix(), raw->fd, raw->out + (at - raw->start), n, file_offset, "",
						NULL) != TPD_OK;
}

/* The chunk's bytes as they lie in a source of link 0, when they are still the recorded ones. */
static bool read_raw(struct tpd_chain *chain, enum tpd_chain_source source, const struct node *node)
{
	const struct tpd_manifest *m = &chain->links[0].manifest;
	const struct tpd_entry *entry = &m->entries[m->files[node->key.file]];
	struct raw_read read = {.out = node->buffer.data,
				.start = node->key.chunk * tpd_chunk_bytes(entry->segments[node->key.segment].dtype)};
	struct tpd_chain_file *file = tpd_chain_take_raw(chain, source, node->key.file);
	uint8_t digest[TPD_DECODED_DIGEST];

	if (!file)
		return false;
	read.fd = file->fd;
	tpd_entry_pieces(entry, node->key.segment, read.start, node->entry.decoded_len, read_piece, &read);
	tpd_chain_give(chain, file);
	if (read.failed)
		return false;
	tpd_xxh128_first(read.out, node->entry.decoded_len, digest, sizeof(digest));
	return memcmp(digest, node->entry.decoded_digest, sizeof(digest)) == 0;
}

/* node->is_raw: some source has it, and it is in the node's buffer. */
static enum tpd_status look_for_raw(struct tpd_chain *chain, struct tpd_chain_worker *worker, struct node *node, struct tpd_err *err)
{
	for (unsigned source = 0; !node->is_raw && source < TPD_CHAIN_SOURCES; source++) {
		enum tpd_status status;

		if (!chain->sources[source] && !(source == TPD_CHAIN_HELD && chain->held))
			continue;
		status = take_buffer(worker, node, err);
		if (status)
			return status;
		node->is_raw = read_raw(chain, (enum tpd_chain_source)source, node);
	}
	return TPD_OK;
}

/* What a node decodes to, in elements of its own type: what it refers to and is predicted from may be of another, but is as many. */
static size_t elements_of(const struct tpd_chain *chain, const struct node *node)
{
	const struct tpd_segment seg = tpd_chain_segment(chain, node->key.link, node->key.file, node->key.segment);

	return node->entry.decoded_len / tpd_dtype_width(seg.dtype);
}

/* The chunks of that link that hold what its slabs refer to; chunks of all types that may be there have as many elements. */
static enum tpd_status need_slabs(const struct tpd_chain *chain, struct tpd_chain_worker *worker, uint32_t number, uint32_t link,
				  const struct tpd_slab *slabs, uint32_t count, enum tpd_dtype dtype, struct tpd_err *err)
{
	const struct node *node = &worker->nodes[number];
	uint64_t chunk_elements = tpd_chunk_bytes(dtype) / tpd_dtype_width(dtype), low = node->key.chunk * chunk_elements;
	struct tpd_slab_chunk chunks[TPD_SLAB_CHUNKS_MAX];
	uint32_t found = 0;
	enum tpd_status status = tpd_slab_chunks(slabs, count, chunk_elements, low, low + elements_of(chain, node), chunks, &found, err);

	for (uint32_t i = 0; !status && i < found; i++) {
		const struct tpd_chunk_key key = {link, chunks[i].file, chunks[i].segment, chunks[i].chunk};

		status = add_need(worker, number, &key, true, err);
	}
	return status;
}

/* The same chunk of another segment. */
static enum tpd_status need_same(struct tpd_chain_worker *worker, uint32_t number, uint32_t link, uint32_t file, uint32_t segment,
				 struct tpd_err *err)
{
	const struct tpd_chunk_key key = {link, file, segment, worker->nodes[number].key.chunk};

	return add_need(worker, number, &key, false, err);
}

static uint32_t link_of_reference(const struct tpd_chain *chain, uint32_t link, const struct tpd_segment *seg)
{
	return seg->derived ? link : chain->links[link].below;
}

/* What a chunk of that segment refers to, which lies where the node's own does: one chunk, or those that it is put together from. */
static enum tpd_status need_reference_of(struct tpd_chain *chain, struct tpd_chain_worker *worker, uint32_t number, uint32_t link, uint32_t file,
					 const struct tpd_segment *seg, struct tpd_err *err)
{
	const struct tpd_manifest *m = &chain->links[link].manifest;
	const uint32_t below = link_of_reference(chain, link, seg);

	if (!seg->has_ref || below == TPD_CHAIN_NONE)
		return tpd_fail(err, TPD_CORRUPT, "it needs a reference, and its segment has none");
	if (!seg->in_slabs)
		return need_same(worker, number, below, seg->ref_file, seg->ref_segment, err);
	return need_slabs(chain, worker, number, below, m->entries[m->files[file]].slabs + seg->ref_file, seg->ref_segment, seg->dtype, err);
}

/* Where a prediction's input comes from. */
struct input_place {
	bool is_reference; /* what the segment refers to, not the segment itself */
	uint32_t link, file;
	uint32_t segment;
};

static struct input_place place_of_input(const struct tpd_chain *chain, const struct tpd_predictor *p, uint32_t link, enum tpd_input input)
{
	if (input == TPD_INPUT_W0)
		return (struct input_place){false, chain->links[link].earlier, p->w0_file, p->w0_segment};
	if (input == TPD_INPUT_M1 || input == TPD_INPUT_M2)
		return (struct input_place){input == TPD_INPUT_M1, link, p->m_file, p->m_segment};
	return (struct input_place){input == TPD_INPUT_V1, link, p->v_file, p->v_segment};
}

static enum tpd_status need_inputs(struct tpd_chain *chain, struct tpd_chain_worker *worker, uint32_t number, struct tpd_err *err)
{
	const struct tpd_chunk_key key = worker->nodes[number].key;
	const struct tpd_predictor *p = tpd_chain_predictor(chain, key.link, key.file, key.segment);
	enum tpd_status status = TPD_OK;

	if (!p && !tpd_encoding_needs_inputs(worker->nodes[number].entry.encoding)) /* it may do without */
		return TPD_OK;
	if (!p)
		return tpd_fail(err, TPD_CORRUPT, "it is predicted, and its segment is not");
	for (unsigned i = 0; !status && i < TPD_INPUT_COUNT; i++) {
		struct input_place at;
		struct tpd_segment from;

		if (!(tpd_terms_need(p->terms) >> i & 1))
			continue;
		at = place_of_input(chain, p, key.link, (enum tpd_input)i);
		if (!at.is_reference) {
			status = need_same(worker, number, at.link, at.file, at.segment, err);
			continue;
		}
		from = tpd_chain_segment(chain, at.link, at.file, at.segment);
		if (from.derived) /* then it is no moment (FORMAT.md) */
			return tpd_fail(err, TPD_CORRUPT, "it is predicted from what there is not");
		status = need_reference_of(chain, worker, number, at.link, at.file, &from, err);
	}
	return status;
}

/* All that its encoding needs. */
static enum tpd_status need_others(struct tpd_chain *chain, struct tpd_chain_worker *worker, uint32_t number,
				      const struct tpd_segment *seg, struct tpd_err *err)
{
	const struct tpd_chunk_key key = worker->nodes[number].key;
	const enum tpd_encoding encoding = worker->nodes[number].entry.encoding;
	enum tpd_status status = TPD_OK;

	worker->nodes[number].first_need = worker->need_count;
	if (tpd_encoding_needs_reference(encoding))
		status = need_reference_of(chain, worker, number, key.link, key.file, seg, err);
	return status || !tpd_encoding_takes_inputs(encoding) ? status : need_inputs(chain, worker, number, err);
}

/* Its index entry, its bytes if they lie somewhere as they are, else what it needs. */
static enum tpd_status enter(struct tpd_chain *chain, struct tpd_chain_worker *worker, uint32_t number, struct tpd_err *err)
{
	struct node *node = &worker->nodes[number];
	const struct tpd_segment seg = tpd_chain_segment(chain, node->key.link, node->key.file, node->key.segment);
	uint32_t link = node->key.link, file = node->key.file;
	uint64_t place = seg.first_chunk + node->key.chunk;
	enum tpd_status status;

	node->visit = VISIT_OPEN;
	if (node->key.chunk >= tpd_segment_chunks(&seg)) /* an empty reference */
		return TPD_OK;
	if (node->is_piece && !is_wanted(worker, node)) {
		status = look_in_cache(chain, worker, node, err);
		if (status || node->cached)
			return status;
	}
	status = tpd_chain_read_entry(chain, link, file, place, &node->entry, err);
	node->entry.decoded_len = tpd_segment_chunk_len(&seg, node->key.chunk);
	if (!status && node->entry.payload_len > node->entry.decoded_len)
		status = tpd_fail(err, TPD_CORRUPT, "its payload is longer than its bytes");
	if (!status && link == 0)
		status = look_for_raw(chain, worker, node, err);
	if (!status && !node->is_raw)
		status = need_others(chain, worker, number, &seg, err);
	if (status)
		tpd_chain_name_fault(chain, link, file, place, err);
	return status;
}

/* From a wanted node to all that it depends on, and was not seen yet: worker->order has each behind what it needs, the wanted one last. */
static enum tpd_status walk(struct tpd_chain *chain, struct tpd_chain_worker *worker, uint32_t from, struct tpd_err *err)
{
	uint32_t depth = worker->nodes[from].visit == VISIT_NEW ? 1 : 0;
	enum tpd_status status = TPD_OK;

	worker->path[0] = from;
	while (!status && depth > 0) {
		uint32_t number = worker->path[depth - 1], need;

		if (worker->nodes[number].visit == VISIT_NEW)
			status = enter(chain, worker, number, err);
		if (status)
			break;
		if (worker->nodes[number].next_need == worker->nodes[number].needs) {
			worker->nodes[number].visit = VISIT_DONE;
			worker->order[worker->ordered++] = number;
			depth--;
			continue;
		}
		need = worker->needs[worker->nodes[number].first_need + worker->nodes[number].next_need++];
		/* To the link below, or to what is neither derived nor predicted. */
		assert(worker->nodes[need].visit != VISIT_OPEN);
		if (worker->nodes[need].visit == VISIT_NEW)
			worker->path[depth++] = need;
	}
	return status;
}

/* --- phase two: their bytes --- */

struct needed {
	const struct tpd_chain_worker *worker;
	uint32_t link;
};

static enum tpd_status chunk_of_need(void *arg, uint32_t file, uint32_t segment, uint64_t chunk, const uint8_t **out_bytes,
				     size_t *out_len, struct tpd_err *err TPD_UNUSED)
{
	const struct needed *needed = arg;
	const struct tpd_chunk_key key = {needed->link, file, segment, chunk};
	uint32_t number = *find_place(needed->worker, &key);

	assert(number != NONE);
	*out_bytes = needed->worker->nodes[number].buffer.data;
	*out_len = needed->worker->nodes[number].entry.decoded_len;
	return TPD_OK;
}

/* What a chunk of a segment refers to, as many elements as the node has, from the chunks that it needs: one of them, or put together in `buffer`. */
static enum tpd_status find_reference_of(struct tpd_chain *chain, struct tpd_chain_worker *worker, const struct node *node, uint32_t link,
					 uint32_t file, const struct tpd_segment *seg, struct buffer *buffer, struct tpd_bytes *out,
					 struct tpd_err *err)
{
	const struct tpd_manifest *m = &chain->links[link].manifest;
	struct needed needed = {.worker = worker, .link = link_of_reference(chain, link, seg)};
	const unsigned width = tpd_dtype_width(seg->dtype);
	const size_t n = elements_of(chain, node);
	const struct tpd_slab *slabs;
	enum tpd_dtype dtype = seg->dtype; /* of what is put together */
	enum tpd_status status;

	if (!seg->in_slabs) {
		status = chunk_of_need(&needed, seg->ref_file, seg->ref_segment, node->key.chunk, &out->data, &out->len, err);
		if (out->len == 0)
			out->data = NULL;
		return status;
	}
	slabs = m->entries[m->files[file]].slabs + seg->ref_file;
	if (seg->derived || seg->converted)
		dtype = tpd_chain_segment(chain, needed.link, slabs->file, slabs->segment).dtype;
	out->len = n * width;
	status = buffer_room(buffer, n * 4, err); /* for widen() */
	out->data = buffer->data;
	if (!status)
		status = tpd_slab_gather(slabs, seg->ref_segment, dtype, seg->dtype, node->key.chunk * (tpd_chunk_bytes(seg->dtype) / width), n,
					 chunk_of_need, &needed, buffer->data, err);
	return status;
}

/* BF16 or F16 as F32, in `buffer`, where they are already if they were put together. */
static enum tpd_status widen(struct buffer *buffer, struct tpd_bytes *bytes, enum tpd_dtype dtype, struct tpd_err *err)
{
	const size_t n = bytes->len / 2;
	enum tpd_status status = TPD_OK;

	if (bytes->data != buffer->data) {
		status = buffer_room(buffer, 4 * n, err);
		if (status)
			return status;
		if (n > 0)
			memcpy(buffer->data, bytes->data, 2 * n);
	}
	tpd_widen_in_place(buffer->data, n, dtype == TPD_DTYPE_BF16);
	*bytes = (struct tpd_bytes){buffer->data, 4 * n};
	return TPD_OK;
}

/* A predicted node's other needs; what has no such chunk is empty. */
static enum tpd_status find_inputs(struct tpd_chain *chain, struct tpd_chain_worker *worker, const struct node *node,
				   struct tpd_inputs *out, struct tpd_err *err)
{
	static const uint8_t nothing[1];
	const struct tpd_predictor *p = tpd_chain_predictor(chain, node->key.link, node->key.file, node->key.segment);
	enum tpd_status status = TPD_OK;

	*out = (struct tpd_inputs){0};
	for (unsigned i = 0; p && !status && i < TPD_INPUT_COUNT; i++) {
		struct needed here = {.worker = worker};
		struct input_place at;
		struct tpd_segment from;

		if (!(tpd_terms_need(p->terms) >> i & 1))
			continue;
		at = place_of_input(chain, p, node->key.link, (enum tpd_input)i);
		here.link = at.link;
		from = tpd_chain_segment(chain, at.link, at.file, at.segment);
		if (at.is_reference) {
			status = find_reference_of(chain, worker, node, at.link, at.file, &from, &worker->inputs[i], &out->of[i], err);
		} else {
			status = chunk_of_need(&here, at.file, at.segment, node->key.chunk, &out->of[i].data, &out->of[i].len, err);
		}
		if (!status && tpd_dtype_width(from.dtype) == 2)
			status = widen(&worker->inputs[i], &out->of[i], from.dtype, err);
		if (out->of[i].len == 0)
			out->of[i].data = nothing;
	}
	return status;
}

static enum tpd_status read_payload(struct tpd_chain *chain, const struct node *node, uint64_t number, uint8_t *out,
				    struct tpd_err *err)
{
	struct tpd_chain_file *open = NULL;
	enum tpd_status status = tpd_chain_take_part(chain, node->key.link, node->key.file, number, &open, err);

	if (!status)
		status = tpd_part_payload_read(open->part, &node->entry, out, err);
	tpd_chain_give(chain, open);
	return status;
}

static enum tpd_status decode(struct tpd_chain *chain, struct tpd_chain_worker *worker, struct node *node, struct tpd_err *err)
{
	const struct tpd_segment seg = tpd_chain_segment(chain, node->key.link, node->key.file, node->key.segment);
	const struct tpd_part_entry *entry = &node->entry;
	struct tpd_references references = {0};
	struct tpd_bytes reference = {0};
	struct tpd_inputs inputs;
	uint8_t digest[TPD_DECODED_DIGEST];
	enum tpd_status status = take_buffer(worker, node, err);

	if (!status)
		status = buffer_room(&worker->payload, entry->payload_len, err);
	if (!status)
		status = read_payload(chain, node, seg.first_chunk + node->key.chunk, worker->payload.data, err);
	if (!status && tpd_encoding_needs_reference(entry->encoding))
		status = find_reference_of(chain, worker, node, node->key.link, node->key.file, &seg, &worker->reference, &reference, err);
	references.p = reference.data;
	references.len = reference.len;
	if (!status && tpd_encoding_takes_inputs(entry->encoding)) {
		status = find_inputs(chain, worker, node, &inputs, err);
		references.inputs = &inputs;
	}
	if (!status)
		status = tpd_decode_chunk_with(worker->codec, entry->encoding, seg.dtype, worker->payload.data, entry->payload_len, &references,
					       node->buffer.data, entry->decoded_len, err);
	if (!status) {
		tpd_xxh128_first(node->buffer.data, entry->decoded_len, digest, sizeof(digest));
		if (memcmp(digest, entry->decoded_digest, sizeof(digest)) != 0)
			status = tpd_fail(err, TPD_CORRUPT, "its decoded bytes do not have the recorded digest");
	}
	if (status)
		tpd_chain_name_fault(chain, node->key.link, node->key.file, seg.first_chunk + node->key.chunk, err);
	return status;
}

static enum tpd_status replay(struct tpd_chain *chain, struct tpd_chain_worker *worker, struct tpd_err *err)
{
	enum tpd_status status = TPD_OK;

	for (uint32_t i = 0; !status && i < worker->count; i++) {
		struct node *node = &worker->nodes[worker->order[i]];

		if (node->entry.decoded_len > 0 && !node->is_raw)
			status = decode(chain, worker, node, err);
		if (!status && node->is_piece && !is_wanted(worker, node) && !node->cached && node->buffer.data)
			put_into_cache(chain, node);
		for (uint32_t n = 0; n < node->needs; n++) {
			struct node *below = &worker->nodes[worker->needs[node->first_need + n]];

			if (--below->users == 0)
				give_buffer(chain, worker, below);
		}
	}
	return status;
}

static enum tpd_status want(struct tpd_chain_worker *worker, const struct tpd_chain_want *want, struct tpd_err *err)
{
	const struct tpd_chunk_key key = {.file = want->file, .segment = want->segment, .chunk = want->chunk};
	uint32_t number = 0;
	enum tpd_status status = find_or_add(worker, &key, &number, err);

	if (status)
		return status;
	assert(number == worker->wanted);
	worker->nodes[number].buffer.data = want->out;
	worker->wanted++;
	return TPD_OK;
}

enum tpd_status tpd_chain_read_together(struct tpd_chain *chain, struct tpd_chain_worker *worker, struct tpd_chain_want *wants,
					uint32_t count, struct tpd_err *err)
{
	enum tpd_status status = TPD_OK;

	assert(count <= TPD_CHAIN_WANTS_MAX);
	worker->count = worker->need_count = worker->wanted = worker->ordered = 0;
	worker->held = 0;
	if (worker->table)
		memset(worker->table, 0xff, worker->table_size * sizeof(*worker->table));
	for (uint32_t i = 0; !status && i < count; i++)
		status = want(worker, &wants[i], err);
	for (uint32_t i = 0; !status && i < count; i++)
		status = walk(chain, worker, i, err);
	if (!status)
		status = replay(chain, worker, err);
	for (uint32_t i = 0; !status && i < worker->wanted; i++)
		wants[i].len = worker->nodes[i].entry.decoded_len;
	for (uint32_t i = 0; i < worker->count; i++) /* after a failure */
		give_buffer(chain, worker, &worker->nodes[i]);
	while (worker->spare_count > SPARES)
		free(worker->spare[--worker->spare_count].data);
	return status;
}

enum tpd_status tpd_chain_read(struct tpd_chain *chain, struct tpd_chain_worker *worker, uint32_t file, uint32_t segment,
			       uint64_t chunk, uint8_t *out, size_t *out_len, struct tpd_err *err)
{
	struct tpd_chain_want want = {.file = file, .segment = segment, .chunk = chunk, .out = out};
	enum tpd_status status = tpd_chain_read_together(chain, worker, &want, 1, err);

	if (!status)
		*out_len = want.len;
	return status;
}

struct gathering {
	struct tpd_chain *chain;
	struct tpd_chain_worker *worker;
	struct tpd_cached_chunk *last;
};

/* The cache lends it, so that it is still there when the next slab, or another thread's chunk, asks for it. */
static enum tpd_status chunk_of_chain(void *arg, uint32_t file, uint32_t segment, uint64_t chunk, const uint8_t **out_bytes,
				      size_t *out_len, struct tpd_err *err)
{
	struct gathering *g = arg;
	struct tpd_chunk_key key = {.file = file, .segment = segment, .chunk = chunk};
	const struct tpd_segment seg = tpd_chain_segment(g->chain, 0, file, segment);
	enum tpd_status status;

	tpd_chain_cache_give(g->chain->cache, g->last);
	g->last = tpd_chain_cache_take(g->chain->cache, &key);
	if (!g->last) {
		uint8_t *bytes = malloc(chunk < tpd_segment_chunks(&seg) ? tpd_segment_chunk_len(&seg, chunk) : 1);

		status = bytes ? tpd_chain_read(g->chain, g->worker, file, segment, chunk, bytes, out_len, err) : tpd_fail_nomem(err);
		if (!status) {
			g->last = tpd_chain_cache_put(g->chain->cache, &key, bytes, *out_len);
			status = g->last ? TPD_OK : tpd_fail_nomem(err);
		}
		if (status) {
			free(bytes);
			return status;
		}
	}
	*out_bytes = g->last->data;
	*out_len = g->last->len;
	return TPD_OK;
}

enum tpd_status tpd_chain_gather(struct tpd_chain *chain, struct tpd_chain_worker *worker, const struct tpd_slab *slabs,
				 uint32_t count, enum tpd_dtype dtype, uint64_t low, uint64_t n, uint8_t *out, struct tpd_err *err)
{
	struct gathering g = {.chain = chain, .worker = worker};
	enum tpd_dtype from = tpd_chain_segment(chain, 0, slabs->file, slabs->segment).dtype;
	enum tpd_status status = tpd_slab_gather(slabs, count, from, dtype, low, n, chunk_of_chain, &g, out, err);

	tpd_chain_cache_give(chain->cache, g.last);
	return status;
}
