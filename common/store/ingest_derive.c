/*
 * ingest_derive.c - weights that are the rounding of a master copy in the same checkpoint.
 *
 * Mixed precision keeps weights twice, and ties (ingest_masters.c, ingest_flat.c) say which F32 elements are the masters of which BF16 or
 * F16 ones. Where the values confirmed them, and they are all of a tensor, it refers to its masters instead of the checkpoint before: what it
 * is decoded against is their rounding, so a chunk that is that is a `copy` and takes no bytes, and what is not is told as any
 * other change is. So a master that is not quite one costs bytes, and nothing else.
 */
#include "base/tpd.h"

#include "store/ingest_internal.h"
#include "store/manifest_internal.h"

#include <stdlib.h>
#include <string.h>

#define DERIVED_BYTES (4 * TPD_CHUNK_ELEMENTS) /* of a chunk of masters */

static int compare_owners(const void *a, const void *b)
{
	const struct tpd_tie *x = *(const struct tpd_tie *const *)a, *y = *(const struct tpd_tie *const *)b;

	if (x->owner.file != y->owner.file)
		return x->owner.file < y->owner.file ? -1 : 1;
	if (x->owner.segment != y->owner.segment)
		return x->owner.segment < y->owner.segment ? -1 : 1;
	return (x->owner.first > y->owner.first) - (x->owner.first < y->owner.first);
}

/* The ties of one owner as slabs, if they are all of it, one behind the other; *out_count 0: they are not. */
static void make_slabs(const struct tpd_manifest *m, const struct tpd_ingest_cost *masters, const struct tpd_tie *const *ties, size_t count,
		       struct tpd_slab slabs[TPD_SLABS_MAX], uint32_t *out_count)
{
	const struct tpd_entry *entry = &m->entries[m->files[ties[0]->owner.file]];
	const struct tpd_segment *seg = &entry->segments[ties[0]->owner.segment];
	uint64_t elements = seg->length / tpd_dtype_width(seg->dtype), next = 0, most, budget = TPD_SLAB_BUDGET;

	*out_count = 0;
	if (count > TPD_SLABS_MAX || seg->length % tpd_dtype_width(seg->dtype) != 0)
		return;
	for (size_t i = 0; i < count; i++) {
		const struct tpd_tie_end *state = &ties[i]->state;
		enum tpd_dtype dtype = m->entries[m->files[state->file]].segments[state->segment].dtype;

		if (ties[i]->owner.first != next || dtype != TPD_DTYPE_F32 || dtype == seg->dtype || !tpd_dtype_derives(dtype, seg->dtype))
			return;
		slabs[i] = (struct tpd_slab){.file = state->file, .segment = state->segment, .start = next, .ref_start = state->first,
					     .block = ties[i]->elements, .count = 1};
		next += ties[i]->elements;
	}
	if (next != elements)
		return;
	most = tpd_slab_weigh(slabs, (uint32_t)count, TPD_CHUNK_ELEMENTS, elements, &budget).most;
	if (most <= TPD_INGEST_SLAB_CHUNKS && (masters->width == 1 || tpd_ingest_cost_fits(masters, most, DERIVED_BYTES)))
		*out_count = (uint32_t)count;
}

enum tpd_status tpd_ingest_derive(struct tpd_ingest_job *job, struct tpd_err *err)
{
	const struct tpd_manifest *m = &job->manifest;
	TPD_AUTO_FREE const struct tpd_tie **masters = calloc(m->tie_count + 1u, sizeof(*masters));
	struct tpd_slab slabs[TPD_SLABS_MAX];
	enum tpd_status status = masters ? TPD_OK : tpd_fail_nomem(err);
	struct tpd_ingest_cost cost;
	size_t count = 0;

	for (uint32_t t = 0; !status && t < m->tie_count; t++)
		if (m->ties[t].kind == TPD_STATE_MASTER && m->ties[t].checked)
			masters[count++] = &m->ties[t];
	if (status || count == 0)
		return status;
	cost = tpd_ingest_cost(job->ref);
	cost.width *= TPD_MAX(tpd_ingest_width_of(m), (uint64_t)1);
	cost.derived = 1; /* masters are not derived, nor is what they refer to */
	qsort(masters, count, sizeof(*masters), compare_owners);
	for (size_t from = 0, to; !status && from < count; from = to) {
		const struct tpd_tie_end *owner = &masters[from]->owner;
		uint32_t n = 0;

		for (to = from + 1; to < count && masters[to]->owner.file == owner->file && masters[to]->owner.segment == owner->segment;)
			to++;
		make_slabs(m, &cost, masters + from, to - from, slabs, &n);
		if (n > 0 && tpd_ingest_has_room_for(job, (uint64_t)n * TPD_MANIFEST_WEIGHT_SLAB))
			status = tpd_entry_refer(job->files[owner->file].entry, owner->segment, slabs, n, true, err);
	}
	return status;
}
