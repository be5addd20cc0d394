/*
 * ingest_boxes.c - what a tensor has in common with earlier ones that were cut differently.
 *
 * Ranks of a distributed checkpoint hold boxes of tensors, and a box is called after its tensor and where it begins in it: "NAME[17,0]"
 * (format/dcp.c, format/safetensors.c). With another number of ranks all boxes are others, and their elements are the same. So
 * boxes of one NAME, number of dimensions and type are laid over one another, and each common part becomes slabs (slab.h):
 *
 *       before          now              a slab for each earlier box: blocks of common rows, or of common parts of rows
 *      ┌───────┐      ┌───┬───┐
 *      │   A   │      │   │   │          left box:   A: count 2, block 4, stride 4, ref_stride 8
 *      ├───────┤      │   │   │                      B: the same, behind them
 *      │   B   │      │   │   │
 *      └───────┘      └───┴───┘
 *
 * A tensor that merely has another size now is another tensor: one of the two must be called a part, or the file of the new one must say
 * that it may be one. Names are all that is believed, and a wrong one costs bytes: what is stored is decoded against whatever the slabs say.
 */
#include "base/tpd.h"

#include "store/ingest_internal.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

/* Smaller blocks cost more time than they are worth. */
#define BLOCK_MIN 8u
/* Links of a chain at which tensors were cut anew: each makes the graph that a reader walks wider. */
#define CUTS_MAX 4u
#define WIDTH_LINKS_MAX (1u << 16)  /* chunks that one may need */
#define WIDTH_BYTES_MAX (128u << 20) /* of them at a time */

struct box {
	const char *name; /* borrowed */
	size_t base;      /* bytes of it that are the tensor's own name */
	bool is_part;
	unsigned ndim;
	enum tpd_dtype dtype;
	uint64_t start[TPD_FORMAT_MAX_DIMS];
	const uint64_t *dims; /* borrowed */
	uint64_t elements;
	uint32_t file, segment;
};

struct tpd_ingest_boxes {
	struct box *items; /* by name, start and size; several may be the same */
	size_t count;
	bool usable; /* the chain may get another link at which tensors are cut anew */
	uint64_t width; /* of the chain */
	uint32_t links;
};

/* "[17,0]" with as many numbers as the box has dimensions, at the end of its name. */
static void read_start(struct box *box)
{
	const char *open = strrchr(box->name, '['), *at = open;
	uint64_t start[TPD_FORMAT_MAX_DIMS];

	if (!open || open == box->name)
		return;
	for (unsigned d = 0; d < box->ndim; d++) {
		uint64_t value = 0;

		at++; /* '[' or ',' */
		if (!isdigit((unsigned char)*at))
			return;
		while (isdigit((unsigned char)*at)) {
			if (TPD_MUL_OVERFLOW(value, 10u, &value) || TPD_ADD_OVERFLOW(value, (uint64_t)(*at - '0'), &value))
				return;
			at++;
		}
		if (*at != (d + 1 < box->ndim ? ',' : ']') || TPD_ADD_OVERFLOW(value, box->dims[d], &start[d]))
			return;
		start[d] = value;
	}
	if (at[1])
		return;
	memcpy(box->start, start, box->ndim * sizeof(start[0]));
	box->base = (size_t)(open - box->name);
	box->is_part = true;
}

/* false: its shape is not known, or not all of it. */
static bool make_box(const struct tpd_segment *seg, const struct tpd_segment_about *about, struct box *out)
{
	uint64_t bytes = tpd_dtype_width(seg->dtype);

	*out = (struct box){.name = about->name, .base = strlen(about->name), .ndim = about->ndim, .dtype = seg->dtype,
			    .dims = about->dims, .elements = seg->length / bytes};
	for (unsigned d = 0; d < about->ndim; d++)
		if (TPD_MUL_OVERFLOW(bytes, about->dims[d], &bytes))
			return false;
	if (about->ndim == 0 || bytes != seg->length)
		return false;
	read_start(out);
	return true;
}

static int compare_tensors(const struct box *a, const struct box *b)
{
	int order = memcmp(a->name, b->name, TPD_MIN(a->base, b->base));

	if (order == 0)
		order = (a->base > b->base) - (a->base < b->base);
	if (order == 0)
		order = (a->ndim > b->ndim) - (a->ndim < b->ndim);
	return order ? order : (a->dtype > b->dtype) - (a->dtype < b->dtype);
}

static int compare_numbers(const uint64_t *a, const uint64_t *b, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (a[i] != b[i])
			return a[i] < b[i] ? -1 : 1;
	return 0;
}

static int compare_boxes(const void *pa, const void *pb)
{
	const struct box *a = pa, *b = pb;
	int order = compare_tensors(a, b);

	if (order == 0)
		order = compare_numbers(a->start, b->start, a->ndim);
	if (order == 0)
		order = compare_numbers(a->dims, b->dims, a->ndim);
	if (order == 0)
		order = (a->file > b->file) - (a->file < b->file);
	return order ? order : (a->segment > b->segment) - (a->segment < b->segment);
}

/* What has slabs has segments of its own in every link of a chain. */
static uint64_t width_of_file(const struct tpd_entry *entry)
{
	uint64_t width = 0;

	for (uint32_t s = 0; entry->slab_count > 0 && s < entry->segment_count; s++) {
		const struct tpd_segment *seg = &entry->segments[s];

		if (seg->has_ref && seg->in_slabs && !seg->derived)
			width = TPD_MAX(width, tpd_slab_most_chunks(entry->slabs + seg->ref_file, seg->ref_segment,
								    tpd_chunk_bytes(seg->dtype) / tpd_dtype_width(seg->dtype),
								    seg->length / tpd_dtype_width(seg->dtype)));
	}
	return width;
}

uint64_t tpd_ingest_width_of(const struct tpd_manifest *m)
{
	uint64_t width = 0;

	for (uint32_t f = 0; f < m->file_count; f++)
		width = TPD_MAX(width, width_of_file(&m->entries[m->files[f]]));
	return width;
}

uint64_t tpd_ingest_width(const struct tpd_chain *chain, uint32_t *out_cuts)
{
	uint64_t product = 1;

	*out_cuts = 0;
	for (uint32_t l = 0; chain && l < tpd_chain_links(chain); l++) {
		uint64_t width = tpd_ingest_width_of(tpd_chain_link(chain, l));

		*out_cuts += width > 0;
		product = TPD_MIN(product * TPD_MAX(width, (uint64_t)1), (uint64_t)UINT32_MAX);
	}
	return product;
}

/*
 * Below its first cut a chunk needs at most `width` chunks of each link, and those that wait at all cuts are less than twice as many: each
 * cut has at least twice as many as the one above it, or no more than that. A reader's limits (chain_replay.c) are twice as high.
 */
bool tpd_ingest_width_fits(uint64_t width, uint32_t links, uint32_t chunk_bytes)
{
	return width * links <= WIDTH_LINKS_MAX && 2 * width * chunk_bytes <= WIDTH_BYTES_MAX;
}

enum tpd_status tpd_ingest_boxes_make(const struct tpd_chain *chain, struct tpd_ingest_boxes **out_boxes, struct tpd_err *err)
{
	const struct tpd_manifest *m = tpd_chain_manifest(chain);
	struct tpd_ingest_boxes *boxes = calloc(1, sizeof(*boxes));
	size_t count = 0;
	uint32_t cuts = 0;

	for (uint32_t f = 0; f < m->file_count; f++)
		count += m->entries[m->files[f]].segment_count;
	if (boxes)
		boxes->items = calloc(count + 1, sizeof(*boxes->items));
	if (!boxes || !boxes->items) {
		free(boxes);
		return tpd_fail_nomem(err);
	}
	boxes->width = tpd_ingest_width(chain, &cuts);
	boxes->links = tpd_chain_links(chain);
	boxes->usable = cuts < CUTS_MAX;
	for (uint32_t f = 0; f < m->file_count && boxes->usable; f++) {
		const struct tpd_entry *entry = &m->entries[m->files[f]];

		for (uint32_t s = 1; s < entry->segment_count; s++) {
			struct box *box = &boxes->items[boxes->count];

			if (!make_box(&entry->segments[s], &entry->about[s], box))
				continue;
			box->file = f;
			box->segment = s;
			boxes->count++;
		}
	}
	qsort(boxes->items, boxes->count, sizeof(*boxes->items), compare_boxes);
	*out_boxes = boxes;
	return TPD_OK;
}

void tpd_ingest_boxes_free(struct tpd_ingest_boxes *boxes)
{
	if (!boxes)
		return;
	free(boxes->items);
	free(boxes);
}

/* What two boxes have in common, as sizes and where it begins in each; elements: 0 when it is nothing. */
struct common {
	uint64_t size[TPD_FORMAT_MAX_DIMS], at[TPD_FORMAT_MAX_DIMS], ref_at[TPD_FORMAT_MAX_DIMS];
	uint64_t elements;
};

static struct common intersect(const struct box *own, const struct box *ref)
{
	struct common c = {.elements = 1};

	for (unsigned d = 0; d < own->ndim; d++) {
		uint64_t low = TPD_MAX(own->start[d], ref->start[d]);
		uint64_t high = TPD_MIN(own->start[d] + own->dims[d], ref->start[d] + ref->dims[d]);

		if (low >= high)
			return (struct common){0};
		c.size[d] = high - low;
		c.at[d] = low - own->start[d];
		c.ref_at[d] = low - ref->start[d];
		c.elements *= c.size[d];
	}
	return c;
}

/* Memory order: elements from one to the next in each dimension. */
static void strides_of(const struct box *box, uint64_t out[TPD_FORMAT_MAX_DIMS])
{
	uint64_t stride = 1;

	for (unsigned d = box->ndim; d-- > 0;) {
		out[d] = stride;
		stride *= box->dims[d];
	}
}

/* Append the slabs of what is common; false: there are too many, or their blocks are too small. */
static bool add_slabs(const struct box *own, const struct box *ref, const struct common *c, struct tpd_slab *slabs, uint32_t *count)
{
	uint64_t stride[TPD_FORMAT_MAX_DIMS], ref_stride[TPD_FORMAT_MAX_DIMS], index[TPD_FORMAT_MAX_DIMS] = {0}, outer = 1;
	struct tpd_slab slab = {.file = ref->file, .segment = ref->segment, .block = 1, .count = 1};
	unsigned inner = own->ndim, d; /* dimensions from `inner` on are in the block; those before d have slabs of their own */

	strides_of(own, stride);
	strides_of(ref, ref_stride);
	do {
		inner--;
		slab.block *= c->size[inner];
	} while (inner > 0 && c->size[inner] == own->dims[inner] && c->size[inner] == ref->dims[inner]);
	d = inner;
	if (d > 0) {
		slab.stride = stride[d - 1];
		slab.ref_stride = ref_stride[d - 1];
		do {
			d--;
			slab.count *= c->size[d];
		} while (d > 0 && c->size[d] == own->dims[d] && c->size[d] == ref->dims[d]);
	}
	if (slab.count == 1)
		slab.stride = slab.ref_stride = 0;
	for (unsigned i = 0; i < d; i++)
		if (TPD_MUL_OVERFLOW(outer, c->size[i], &outer))
			return false;
	if (outer > TPD_SLABS_MAX - *count || (slab.block < BLOCK_MIN && slab.count > 1))
		return false;
	for (uint64_t i = 0; i < outer; i++) {
		slab.start = slab.ref_start = 0;
		for (unsigned j = 0; j < own->ndim; j++) {
			slab.start += (c->at[j] + index[j]) * stride[j];
			slab.ref_start += (c->ref_at[j] + index[j]) * ref_stride[j];
		}
		slabs[(*count)++] = slab;
		for (unsigned j = d; j-- > 0 && ++index[j] == c->size[j];)
			index[j] = 0;
	}
	return true;
}

uint32_t tpd_ingest_boxes_find(const struct tpd_ingest_boxes *boxes, const struct tpd_segment *seg,
			       const struct tpd_segment_about *about, bool part, struct tpd_slab slabs[TPD_SLABS_MAX],
			       uint64_t *out_elements)
{
	struct box own;
	size_t low = 0, high = boxes->count;
	uint32_t count = 0;
	uint64_t most;
	bool parts;

	*out_elements = 0;
	if (!make_box(seg, about, &own))
		return 0;
	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (compare_tensors(&boxes->items[middle], &own) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	parts = part || own.is_part;
	for (size_t i = low; i < boxes->count && compare_tensors(&boxes->items[i], &own) == 0; i++) {
		const struct box *ref = &boxes->items[i];
		struct common c = intersect(&own, ref);

		if (i > low && compare_numbers(ref[-1].start, ref->start, ref->ndim) == 0 &&
		    compare_numbers(ref[-1].dims, ref->dims, ref->ndim) == 0)
			continue; /* held by several ranks */
		parts |= ref->is_part;
		if (c.elements > 0 && !add_slabs(&own, ref, &c, slabs, &count))
			return 0;
		*out_elements += c.elements;
	}
	if (!parts)
		return 0;
	most = tpd_slab_most_chunks(slabs, count, tpd_chunk_bytes(seg->dtype) / tpd_dtype_width(seg->dtype), own.elements);
	return most <= TPD_INGEST_SLAB_CHUNKS && tpd_ingest_width_fits(boxes->width * most, boxes->links, tpd_chunk_bytes(seg->dtype)) ?
		       count :
		       0;
}
