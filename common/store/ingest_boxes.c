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

/* Earlier boxes that one is compared with at most: more of them than could become slabs. */
#define LOOKS_MAX 4096u

struct box {
	const char *name; /* borrowed */
	size_t base;      /* bytes of it that are the tensor's own name */
	bool is_part;
	unsigned ndim;
	enum tpd_dtype dtype;
	uint32_t directory;
	uint64_t start[TPD_FORMAT_MAX_DIMS];
	const uint64_t *dims; /* borrowed */
	uint64_t key;         /* start[] in the dimension that its group is sorted by */
	unsigned size;        /* log2 of dims[] in it */
	uint64_t elements;
	uint32_t file, segment;
};

/*
 * The boxes of one tensor in one directory that are about as large in one dimension: by their starts in it. reach: of the largest, which
 * is less than twice the smallest, so that of those that lie close enough few have nothing in common.
 */
struct group {
	size_t first, count;
	unsigned dimension;
	uint64_t reach;
};

struct tpd_ingest_boxes {
	struct box *items;
	size_t count;
	struct group *groups; /* by tensor, directory and size */
	size_t group_count;
	struct tpd_ingest_cost cost;
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

/* false: its shape is not known, or not all of it. named: its name may say where it begins. */
static bool make_box(const struct tpd_segment *seg, const struct tpd_segment_about *about, bool named, struct box *out)
{
	uint64_t bytes = tpd_dtype_width(seg->dtype);

	*out = (struct box){.name = about->name, .base = strlen(about->name), .ndim = about->ndim, .dtype = seg->dtype,
			    .dims = about->dims, .elements = seg->length / bytes};
	for (unsigned d = 0; d < about->ndim; d++)
		if (TPD_MUL_OVERFLOW(bytes, about->dims[d], &bytes))
			return false;
	if (about->ndim == 0 || bytes != seg->length)
		return false;
	if (named)
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

static int compare_places(const struct box *a, const struct box *b)
{
	int order = compare_tensors(a, b);

	return order ? order : (a->directory > b->directory) - (a->directory < b->directory);
}

static int compare_boxes(const void *pa, const void *pb)
{
	const struct box *a = pa, *b = pb;
	int order = compare_places(a, b);

	if (order == 0)
		order = (a->size > b->size) - (a->size < b->size);
	if (order == 0)
		order = (a->key > b->key) - (a->key < b->key);
	if (order == 0)
		order = compare_numbers(a->start, b->start, a->ndim);
	if (order == 0)
		order = compare_numbers(a->dims, b->dims, a->ndim);
	if (order == 0)
		order = (a->file > b->file) - (a->file < b->file);
	return order ? order : (a->segment > b->segment) - (a->segment < b->segment);
}

/* What several ranks hold alike is one box. The boxes are sorted. */
static void drop_copies(struct tpd_ingest_boxes *boxes)
{
	size_t kept = 0;

	for (size_t i = 0; i < boxes->count; i++) {
		const struct box *box = &boxes->items[i], *last = kept ? &boxes->items[kept - 1] : NULL;

		if (last && compare_places(last, box) == 0 && compare_numbers(last->start, box->start, box->ndim) == 0 &&
		    compare_numbers(last->dims, box->dims, box->ndim) == 0)
			continue;
		boxes->items[kept++] = *box;
	}
	boxes->count = kept;
}

static unsigned log2_of(uint64_t value)
{
	unsigned log = 0;

	while (value >> log > 1)
		log++;
	return log;
}

/* The dimension in which boxes are smallest, measured by all of them together. */
static unsigned choose_dimension(const struct box *items, size_t count)
{
	double smallest = 2;
	unsigned best = 0;

	for (unsigned d = 0; d < items->ndim; d++) {
		uint64_t low = UINT64_MAX, high = 0;
		double sum = 0;

		for (size_t i = 0; i < count; i++) {
			low = TPD_MIN(low, items[i].start[d]);
			high = TPD_MAX(high, items[i].start[d] + items[i].dims[d]);
			sum += (double)items[i].dims[d];
		}
		if (sum / (double)count < smallest * (double)(high - low)) {
			smallest = sum / (double)count / (double)(high - low);
			best = d;
		}
	}
	return best;
}

/* Sort the boxes of one place into groups. */
static void make_groups_of(struct tpd_ingest_boxes *boxes, size_t first, size_t count)
{
	struct box *items = boxes->items + first;
	const unsigned dimension = choose_dimension(items, count);

	for (size_t i = 0; i < count; i++) {
		items[i].key = items[i].start[dimension];
		items[i].size = log2_of(items[i].dims[dimension]);
	}
	qsort(items, count, sizeof(*items), compare_boxes);
	for (size_t i = 0; i < count; i++) {
		struct group *group = &boxes->groups[boxes->group_count - 1];

		if (i == 0 || items[i - 1].size != items[i].size) {
			group = &boxes->groups[boxes->group_count++];
			*group = (struct group){.first = first + i, .dimension = dimension};
		}
		group->count++;
		group->reach = TPD_MAX(group->reach, items[i].dims[dimension]);
	}
}

static void make_groups(struct tpd_ingest_boxes *boxes)
{
	for (size_t from = 0, to; from < boxes->count; from = to) {
		for (to = from + 1; to < boxes->count && compare_places(&boxes->items[from], &boxes->items[to]) == 0;)
			to++;
		make_groups_of(boxes, from, to - from);
	}
}

enum tpd_status tpd_ingest_boxes_make(const struct tpd_chain *chain, const struct tpd_ingest_directories *directories,
				      struct tpd_ingest_boxes **out_boxes, struct tpd_err *err)
{
	const struct tpd_manifest *m = tpd_chain_manifest(chain);
	struct tpd_ingest_boxes *boxes = calloc(1, sizeof(*boxes));
	size_t count = 1;

	for (uint32_t f = 0; f < m->file_count; f++)
		count += m->entries[m->files[f]].segment_count;
	if (boxes) {
		boxes->items = calloc(count, sizeof(*boxes->items));
		boxes->groups = calloc(count, sizeof(*boxes->groups));
	}
	if (!boxes || !boxes->items || !boxes->groups) {
		tpd_ingest_boxes_free(boxes);
		return tpd_fail_nomem(err);
	}
	boxes->cost = tpd_ingest_cost(chain);
	for (uint32_t f = 0; f < m->file_count; f++) {
		const struct tpd_entry *entry = &m->entries[m->files[f]];
		/* "b[3]" is a part in a checkpoint whose files can say so; in others it is a name like any other. */
		bool named = entry->format == TPD_FORMAT_TORCH_DISTCP || entry->format == TPD_FORMAT_SAFETENSORS;

		for (uint32_t s = 1; s < entry->segment_count; s++) {
			struct box *box = &boxes->items[boxes->count];

			if (!make_box(&entry->segments[s], &entry->about[s], named, box))
				continue;
			box->directory = directories->of_file[f];
			box->file = f;
			box->segment = s;
			boxes->count++;
		}
	}
	qsort(boxes->items, boxes->count, sizeof(*boxes->items), compare_boxes);
	drop_copies(boxes);
	make_groups(boxes);
	*out_boxes = boxes;
	return TPD_OK;
}

void tpd_ingest_boxes_free(struct tpd_ingest_boxes *boxes)
{
	if (!boxes)
		return;
	free(boxes->items);
	free(boxes->groups);
	free(boxes);
}

const struct tpd_ingest_cost *tpd_ingest_boxes_cost(const struct tpd_ingest_boxes *boxes)
{
	return &boxes->cost;
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
	if (outer > TPD_SLABS_MAX - *count || (slab.block < TPD_SLAB_BLOCK_MIN && slab.count > 1))
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

/* The first group that is not before those of the box's tensor in its directory. */
static size_t group_from(const struct tpd_ingest_boxes *boxes, const struct box *box)
{
	size_t low = 0, high = boxes->group_count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (compare_places(&boxes->items[boxes->groups[middle].first], box) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Of the group's boxes the first that may reach beyond `low` in their dimension. */
static size_t first_within(const struct tpd_ingest_boxes *boxes, const struct group *group, uint64_t low)
{
	size_t from = group->first, to = group->first + group->count;

	while (from < to) {
		size_t middle = from + (to - from) / 2;

		if (boxes->items[middle].key + group->reach <= low)
			from = middle + 1;
		else
			to = middle;
	}
	return from;
}

/* Do two common parts of one box overlap in it? */
static bool overlap(const struct common *a, const struct common *b, unsigned ndim)
{
	for (unsigned d = 0; d < ndim; d++)
		if (a->at[d] >= b->at[d] + b->size[d] || b->at[d] >= a->at[d] + a->size[d])
			return false;
	return true;
}

/* One search: what was found so far. */
struct finding {
	const struct tpd_ingest_boxes *boxes;
	struct box own;
	struct tpd_ingest_cut *cut;
	struct common *taken; /* TPD_SLABS_MAX */
	size_t taken_count;
	unsigned looks;
	bool parts; /* one of the two is called a part */
};

static void look_through(struct finding *f, const struct group *group)
{
	const struct tpd_ingest_boxes *boxes = f->boxes;
	const uint64_t low = f->own.start[group->dimension], high = low + f->own.dims[group->dimension];
	const size_t end = group->first + group->count;

	for (size_t i = first_within(boxes, group, low); i < end && boxes->items[i].key < high; i++) {
		const struct box *ref = &boxes->items[i];
		struct common c = intersect(&f->own, ref);
		bool again = false;

		if (f->cut->count == TPD_SLABS_MAX || f->looks++ == LOOKS_MAX)
			return;
		for (size_t t = 0; c.elements > 0 && !again && t < f->taken_count; t++)
			again = overlap(&f->taken[t], &c, f->own.ndim);
		/* What is in too many small pieces is left out, and the rest stays. */
		if (c.elements == 0 || again || !add_slabs(&f->own, ref, &c, f->cut->slabs, &f->cut->count))
			continue;
		f->taken[f->taken_count++] = c;
		f->parts |= ref->is_part;
		f->cut->elements += c.elements;
	}
}

enum tpd_status tpd_ingest_boxes_find(const struct tpd_ingest_boxes *boxes, const struct tpd_segment *seg,
				      const struct tpd_segment_about *about, bool part, uint32_t directory, struct tpd_ingest_cut *out,
				      struct tpd_err *err)
{
	struct finding f = {.boxes = boxes, .cut = out, .parts = part};
	TPD_AUTO_FREE struct common *taken = NULL;
	uint64_t budget = TPD_SLAB_BUDGET;
	struct box first;
	size_t own, g;

	out->count = 0;
	out->elements = 0;
	if (!make_box(seg, about, part, &f.own))
		return TPD_OK;
	f.own.directory = directory;
	first = f.own;
	first.directory = 0;
	own = group_from(boxes, &f.own);
	g = group_from(boxes, &first);
	if (g == boxes->group_count || compare_tensors(&boxes->items[boxes->groups[g].first], &f.own) != 0)
		return TPD_OK;
	taken = f.taken = malloc(TPD_SLABS_MAX * sizeof(*taken));
	if (!taken)
		return tpd_fail_nomem(err);
	/* Its own directory first; where that has not all of it, as when each rank has a directory, the others. */
	for (; own < boxes->group_count && compare_places(&boxes->items[boxes->groups[own].first], &f.own) == 0; own++)
		look_through(&f, &boxes->groups[own]);
	for (; out->elements < f.own.elements && g < boxes->group_count; g++) {
		const struct box *box = &boxes->items[boxes->groups[g].first];

		if (compare_tensors(box, &f.own) != 0)
			break;
		if (box->directory != directory)
			look_through(&f, &boxes->groups[g]);
	}
	out->cost = tpd_slab_weigh(out->slabs, out->count, tpd_chunk_bytes(seg->dtype) / tpd_dtype_width(seg->dtype), f.own.elements, &budget);
	if (!f.parts || out->cost.most > TPD_INGEST_SLAB_CHUNKS)
		out->count = 0;
	return TPD_OK;
}
