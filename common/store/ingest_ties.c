/*
 * ingest_ties.c - which tensors of a checkpoint are the optimizer's state of which others (FORMAT.md section 2.2).
 *
 * Names tell it in some frameworks; in most there are numbers, or flat partitions, and only order, shapes and the values do. What
 * is found is written down in the manifest, with a mark where the values said so, and is the first guess for the next checkpoint. A
 * tie that is wrong costs nothing here: no byte is decoded by it.
 *
 * Rejected: the frameworks' own indices (param_groups, param_slice_mappings, param_shapes): each has another form and half of
 * them stand in files that need not be there, while the values say the same in all of them and cannot lie.
 */
#include "base/tpd.h"

#include "store/ingest_ties.h"

#include <stdlib.h>
#include <string.h>

#include "store/manifest_internal.h"

static const struct tpd_file_work *file_of(const struct tpd_ties *ties, const struct tpd_tied *item)
{
	return &ties->job->files[item->file];
}

const struct tpd_segment *tpd_tied_segment(const struct tpd_ties *ties, const struct tpd_tied *item)
{
	return &file_of(ties, item)->entry->segments[item->segment];
}

const struct tpd_segment_about *tpd_tied_about(const struct tpd_ties *ties, const struct tpd_tied *item)
{
	return &file_of(ties, item)->entry->about[item->segment];
}

const struct tpd_segment_work *tpd_tied_work(const struct tpd_ties *ties, const struct tpd_tied *item)
{
	return &file_of(ties, item)->segments[item->segment];
}

enum tpd_status tpd_tied_read(const struct tpd_ties *ties, const struct tpd_tied *item, uint64_t first, uint64_t n, void *out,
			      struct tpd_err *err)
{
	uint64_t width = tpd_dtype_width(item->dtype);

	return tpd_ingest_pread(file_of(ties, item), out, (size_t)(n * width), tpd_tied_segment(ties, item)->offset + first * width, err);
}

enum tpd_status tpd_ties_add(struct tpd_ties *ties, const struct tpd_tied *state, uint64_t first, const struct tpd_tied *owner,
			     uint64_t owner_first, uint64_t elements, enum tpd_state_kind kind, bool checked, struct tpd_err *err)
{
	if (ties->tie_count == ties->tie_max)
		return TPD_OK;
	if (ties->tie_count == ties->tie_cap) {
		size_t cap = ties->tie_cap ? 2 * ties->tie_cap : 64;
		struct tpd_tie *more = reallocarray(ties->ties, cap, sizeof(*more));

		if (!more)
			return tpd_fail_nomem(err);
		ties->ties = more;
		ties->tie_cap = cap;
	}
	ties->ties[ties->tie_count++] = (struct tpd_tie){
		.state = {state->file, state->segment, first},
		.owner = {owner->file, owner->segment, owner_first},
		.elements = elements,
		.kind = kind,
		.checked = checked,
	};
	return TPD_OK;
}

/* --- the earlier checkpoint --- */

static int compare_ends(const struct tpd_tie_end *a, const struct tpd_tie_end *b)
{
	if (a->file != b->file)
		return a->file < b->file ? -1 : 1;
	if (a->segment != b->segment)
		return a->segment < b->segment ? -1 : 1;
	return (a->first > b->first) - (a->first < b->first);
}

static int compare_ties(const void *a, const void *b)
{
	return compare_ends(&((const struct tpd_tie *)a)->state, &((const struct tpd_tie *)b)->state);
}

const struct tpd_tie *tpd_ties_in_w1(const struct tpd_ties *ties, const struct tpd_tied *item, uint32_t *out_count)
{
	const struct tpd_segment_work *work = tpd_tied_work(ties, item);

	*out_count = 0;
	if (!work->has_w1 || work->w1_slabs)
		return NULL;
	return tpd_manifest_ties(tpd_chain_manifest(ties->job->w1), work->w1_file, work->w1_segment, out_count);
}

static const struct tpd_segment_work *work_of(const struct tpd_ties *ties, uint32_t item)
{
	return tpd_tied_work(ties, &ties->items[item]);
}

static int compare_in_w1(const void *a, const void *b, void *context)
{
	const struct tpd_segment_work *x = work_of(context, *(const uint32_t *)a), *y = work_of(context, *(const uint32_t *)b);
	const struct tpd_tie_end of_x = {x->w1_file, x->w1_segment, 0}, of_y = {y->w1_file, y->w1_segment, 0};
	int order = compare_ends(&of_x, &of_y);

	return order ? order : *(const uint32_t *)a < *(const uint32_t *)b ? -1 : 1;
}

/* Shards move: which item is where in w1; what is cut differently there is nowhere. */
static enum tpd_status index_w1(struct tpd_ties *ties, struct tpd_err *err)
{
	ties->by_w1 = calloc(ties->count + 1u, sizeof(*ties->by_w1));
	if (!ties->by_w1)
		return tpd_fail_nomem(err);
	for (uint32_t i = 0; i < ties->count; i++)
		if (work_of(ties, i)->has_w1 && !work_of(ties, i)->w1_slabs)
			ties->by_w1[ties->in_w1++] = i;
	qsort_r(ties->by_w1, ties->in_w1, sizeof(*ties->by_w1), compare_in_w1, ties);
	return TPD_OK;
}

uint32_t tpd_ties_from_w1(const struct tpd_ties *ties, const struct tpd_tie_end *place)
{
	const struct tpd_tie_end key = {place->file, place->segment, 0};
	uint32_t low = 0, high = ties->in_w1;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		const struct tpd_segment_work *work = work_of(ties, ties->by_w1[middle]);
		const struct tpd_tie_end at = {work->w1_file, work->w1_segment, 0};
		int order = compare_ends(&at, &key);

		if (order == 0)
			return ties->by_w1[middle];
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return TPD_TIED_NONE;
}

/* --- what there is --- */

/*
 * Names in the order in which a model has them, as far as it can be told: a file by torch.save() keeps it, safetensors are sorted
 * (and spread over shards), so there numbers in the names are compared as numbers.
 */
static int compare_natural(const void *a, const void *b, void *context)
{
	const struct tpd_ties *ties = context;
	const struct tpd_tied *x = &ties->items[*(const uint32_t *)a], *y = &ties->items[*(const uint32_t *)b];
	const struct tpd_entry *of_x = file_of(ties, x)->entry, *of_y = file_of(ties, y)->entry;
	bool sorted_x = of_x->format == TPD_FORMAT_SAFETENSORS, sorted_y = of_y->format == TPD_FORMAT_SAFETENSORS;
	int order;

	if (sorted_x != sorted_y)
		return sorted_x ? -1 : 1;
	order = sorted_x ? strverscmp(tpd_tied_about(ties, x)->name, tpd_tied_about(ties, y)->name)
			 : strverscmp(of_x->path, of_y->path);
	if (order == 0 && x->name.numbered != y->name.numbered)
		order = x->name.numbered ? 1 : -1;
	if (order == 0 && x->name.numbered) /* state.9 before state.10, wherever they lie */
		order = strverscmp(tpd_tied_about(ties, x)->name, tpd_tied_about(ties, y)->name);
	if (order)
		return order;
	return *(const uint32_t *)a < *(const uint32_t *)b ? -1 : 1;
}

static enum tpd_status collect(struct tpd_ties *ties, struct tpd_err *err)
{
	const struct tpd_ingest_job *job = ties->job;
	TPD_AUTO_FREE uint32_t *order = NULL;
	size_t count = 0;

	for (uint32_t f = 0; f < job->manifest.file_count; f++)
		count += job->files[f].entry->segment_count;
	ties->items = calloc(count + 1, sizeof(*ties->items));
	order = calloc(count + 1, sizeof(*order));
	if (!ties->items || !order)
		return tpd_fail_nomem(err);
	for (uint32_t f = 0; f < job->manifest.file_count; f++) {
		const struct tpd_entry *entry = job->files[f].entry;

		for (uint32_t s = 1; s < entry->segment_count; s++) {
			struct tpd_tied *item = &ties->items[ties->count];

			if (!tpd_dtype_has_stats(entry->segments[s].dtype))
				continue;
			*item = (struct tpd_tied){
				.file = f,
				.segment = s,
				.elements = entry->segments[s].length / tpd_dtype_width(entry->segments[s].dtype),
				.dtype = entry->segments[s].dtype,
				.owner = TPD_TIED_NONE,
				.master = TPD_TIED_NONE,
			};
			tpd_state_name(entry->about[s].name, &item->name);
			order[ties->count] = ties->count;
			ties->count++;
		}
	}
	qsort_r(order, ties->count, sizeof(*order), compare_natural, ties);
	for (uint32_t i = 0; i < ties->count; i++)
		ties->items[order[i]].place = i;
	return TPD_OK;
}

/* Is there anything that could be tied? Most checkpoints of weights alone are done here. */
static bool worth_it(const struct tpd_ties *ties)
{
	bool wide = false, narrow = false, state = false;

	for (uint32_t i = 0; i < ties->count; i++) {
		state |= ties->items[i].name.kind != TPD_STATE_NONE;
		wide |= ties->items[i].dtype == TPD_DTYPE_F32;
		narrow |= ties->items[i].dtype == TPD_DTYPE_BF16 || ties->items[i].dtype == TPD_DTYPE_F16;
	}
	return state || (wide && narrow);
}

enum tpd_status tpd_ingest_ties(struct tpd_ingest_job *job, struct tpd_err *err)
{
	struct tpd_ties ties = {.job = job};
	struct tpd_manifest *m = &job->manifest;
	enum tpd_status status = collect(&ties, err);

	ties.tie_max = (size_t)TPD_MIN((TPD_MANIFEST_WEIGHT_MAX - TPD_MIN(job->weight, TPD_MANIFEST_WEIGHT_MAX)) / TPD_MANIFEST_WEIGHT_TIE,
				       (uint64_t)UINT32_MAX);
	if (!status && worth_it(&ties)) {
		ties.chunks = calloc(job->threads, sizeof(*ties.chunks));
		status = ties.chunks ? index_w1(&ties, err) : tpd_fail_nomem(err);
		if (!status)
			status = tpd_ties_masters(&ties, err);
		if (!status)
			status = tpd_ties_moments(&ties, err);
		if (!status)
			status = tpd_ties_flat(&ties, err);
	}
	if (!status) {
		if (ties.tie_count > 1)
			qsort(ties.ties, ties.tie_count, sizeof(*ties.ties), compare_ties);
		m->ties = ties.ties;
		m->tie_count = (uint32_t)ties.tie_count;
		ties.ties = NULL;
	}
	free(ties.ties);
	for (unsigned thread = 0; ties.chunks && thread < job->threads; thread++)
		free(ties.chunks[thread]);
	free(ties.chunks);
	free(ties.items);
	free(ties.by_w1);
	return status;
}
