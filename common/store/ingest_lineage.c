/*
 * ingest_lineage.c - what a run's first checkpoint refers to: one of another run.
 *
 * A fine-tune begins where a base model, or another run, ended; nothing says so but its values. So the store's other runs are asked, at
 * most RUNS_MAX, those that were written to last: which have tensors of the same names and sizes; of the few that have most, a sample of
 * elements is coded against theirs, as the planner would do it, and the one that saves most bytes is taken, if it saves a tenth.
 *
 * Only where a run begins, so it may take a second. What cannot be read is passed over. Objects never change, so another run is read without
 * its lock. Rejected: digests alone (every weight of a fine-tune has moved), and the catalog (it may be missing, and the same store must
 * give the same checkpoint).
 */
#include "base/tpd.h"

#include "store/ingest_internal.h"

#include <stdlib.h>
#include <string.h>

#define RUNS_MAX 256u          /* whose names are compared */
#define SEGMENTS_MAX (1u << 21) /* of them altogether: a manifest may have a million */
#define COMMON_PART 16u        /* this part of the bytes must have a counterpart by name */
#define KIN_MAX 6u             /* runs whose values are compared */
#define PICKS_MAX 3u           /* checkpoints of each */
#define PLACES 24u             /* where values are compared, evenly over all that have a counterpart */
#define PLACE_ELEMENTS (1u << 14)
#define GAIN_PERCENT 90u       /* of what they take alone: more than this is not worth another run */

/* A run that may be related. */
struct kin {
	char *run;       /* owned */
	int64_t newest;  /* when it was written to last */
	struct tpd_id picks[PICKS_MAX]; /* its latest checkpoint first; then the highest up to our step, and its first */
	uint32_t pick_count;
	uint64_t common; /* bytes that have a counterpart in its latest one */
};

struct kinship {
	struct kin *items;
	size_t count;
};

static void kinship_release(struct kinship *kinship)
{
	for (size_t i = 0; i < kinship->count; i++)
		free(kinship->items[i].run);
	free(kinship->items);
}

static int by_time(const void *a, const void *b)
{
	const struct kin *x = a, *y = b;

	if (x->newest != y->newest)
		return x->newest > y->newest ? -1 : 1;
	return strcmp(x->run, y->run);
}

static int by_common(const void *a, const void *b)
{
	const struct kin *x = a, *y = b;

	if (x->common != y->common)
		return x->common > y->common ? -1 : 1;
	return by_time(a, b);
}

static void pick(struct kin *kin, const struct tpd_version *version)
{
	for (uint32_t i = 0; i < kin->pick_count; i++)
		if (tpd_id_equal(&kin->picks[i], &version->id))
			return;
	kin->picks[kin->pick_count++] = version->id;
}

static void pick_all(struct kin *kin, const struct tpd_run *run, uint64_t step)
{
	const struct tpd_version *latest = NULL, *below = NULL, *first = NULL;

	for (size_t v = 0; v < run->count; v++) {
		const struct tpd_version *version = &run->versions[v];

		if (version->forgotten)
			continue;
		kin->newest = TPD_MAX(kin->newest, version->time_ns);
		if (!latest || version->step >= latest->step)
			latest = version;
		if (!first || version->step < first->step)
			first = version;
		if (version->step <= step && (!below || version->step >= below->step))
			below = version;
	}
	if (latest)
		pick(kin, latest);
	if (below)
		pick(kin, below);
	if (first)
		pick(kin, first);
}

/* All other runs that have a checkpoint, those that were written to last first. */
static enum tpd_status list_runs(struct tpd_ingest_job *job, struct kinship *out, struct tpd_err *err)
{
	char **names = NULL;
	size_t count = 0;
	enum tpd_status status = tpd_store_runs(job->store, &names, &count, err);

	if (status)
		return status;
	out->items = calloc(count + 1, sizeof(*out->items));
	if (!out->items)
		status = tpd_fail_nomem(err);
	for (size_t i = 0; i < count; i++) {
		struct kin *kin = out->items + out->count;
		struct tpd_run run = {0};

		if (!status && strcmp(names[i], job->manifest.run) != 0 &&
		    tpd_store_run_read(job->store, names[i], &run, NULL) == TPD_OK)
			pick_all(kin, &run, job->manifest.step);
		tpd_run_release(&run);
		if (!status && kin->pick_count > 0) {
			kin->run = names[i];
			out->count++;
		} else {
			free(names[i]);
		}
	}
	free(names);
	if (!status && out->count > 1)
		qsort(out->items, out->count, sizeof(*out->items), by_time);
	return status;
}

static bool has_counterpart(const struct tpd_ingest_names *names, struct tpd_ingest_renaming *renaming, const struct tpd_file_work *file,
			    uint32_t s)
{
	const struct tpd_segment *seg = &file->entry->segments[s];
	const char *name = file->entry->about[s].name;
	const uint32_t any = TPD_INGEST_NOWHERE;
	uint32_t ignored[2];
	bool other;

	if (tpd_ingest_names_find(names, name, any, any, seg, file->typed[s], &ignored[0], &ignored[1]))
		return true;
	if (!file->typed[s] || file->part[s])
		return false;
	return tpd_ingest_names_find_other(names, name, any, any, seg, &ignored[0], &ignored[1]) ||
	       tpd_ingest_names_find_alike(names, renaming, name, any, any, seg, &other, &ignored[0], &ignored[1]);
}

/* Bytes of tensors that have a counterpart in `m`, by name and size, whatever float type it has, and whatever its name begins with. */
static enum tpd_status find_common(const struct tpd_ingest_job *job, const struct tpd_manifest *m, uint64_t *out_bytes, struct tpd_err *err)
{
	struct tpd_ingest_directories directories = {0};
	struct tpd_ingest_names names = {0};
	struct tpd_ingest_renaming renaming = {0};
	enum tpd_status status = tpd_ingest_directories_make(m, &directories, err);

	*out_bytes = 0;
	if (!status)
		status = tpd_ingest_names_make(m, &directories, &names, err);
	for (uint32_t f = 0; !status && f < job->manifest.file_count; f++) {
		const struct tpd_file_work *file = &job->files[f];

		for (uint32_t s = 1; s < file->entry->segment_count; s++)
			if (has_counterpart(&names, &renaming, file, s))
				*out_bytes += file->entry->segments[s].length;
	}
	tpd_ingest_names_release(&names);
	tpd_ingest_directories_release(&directories);
	return status;
}

/* The runs whose tensors are most like ours by their names, the likeliest first. */
static enum tpd_status shortlist(struct tpd_ingest_job *job, struct kinship *kinship, struct tpd_err *err)
{
	const uint64_t least = TPD_MAX(tpd_manifest_size(&job->manifest) / COMMON_PART, (uint64_t)1);
	uint64_t segments = 0;
	enum tpd_status status = TPD_OK;

	for (size_t i = 0; !status && i < TPD_MIN(kinship->count, (size_t)RUNS_MAX) && segments < SEGMENTS_MAX; i++) {
		struct kin *kin = &kinship->items[i];
		struct tpd_manifest m = {0};

		status = tpd_store_manifest_keep(job->store, &kin->picks[0], TPD_MANIFEST_ABOUT, &m, err);
		if (tpd_ingest_lost_reference(status)) {
			status = TPD_OK;
			continue;
		}
		if (!status)
			status = find_common(job, &m, &kin->common, err);
		for (uint32_t f = 0; f < m.file_count; f++)
			segments += m.entries[m.files[f]].segment_count;
		tpd_manifest_release(&m);
		if (kin->common < least)
			kin->common = 0;
		if (!status)
			status = tpd_ingest_progress(job, 0, err);
	}
	if (!status && kinship->count > 1)
		qsort(kinship->items, kinship->count, sizeof(*kinship->items), by_common);
	return status;
}

/* --- what a reference would save --- */

struct weighing {
	uint64_t bytes;      /* of tensors that have a reference */
	double with, alone;  /* what their elements take, as a part of what they are */
	unsigned places;
};

/* At byte `pos` of a tensor: some elements of that chunk, with the reference and without. */
static enum tpd_status weigh_place(struct tpd_ingest_job *job, struct tpd_file_work *file, uint32_t s, uint64_t pos, struct weighing *sum,
				   struct tpd_err *err)
{
	const struct tpd_segment *seg = &file->entry->segments[s];
	struct tpd_slot *slot = &job->slots[0];
	const size_t width = tpd_dtype_width(seg->dtype), most = PLACE_ELEMENTS * width;
	struct tpd_sample sample;
	struct tpd_plan plan;
	uint64_t with = 0, alone = 0;
	size_t at;
	enum tpd_status status;

	slot->segment = s;
	slot->chunk = pos / tpd_chunk_bytes(seg->dtype);
	slot->number = seg->first_chunk + slot->chunk;
	slot->len = tpd_segment_chunk_len(seg, slot->chunk);
	job->file = file;
	status = tpd_ingest_read_x(job, slot, err);
	if (!status)
		status = tpd_ingest_read_refs(job, slot, 0, err);
	job->file = NULL;
	if (status || slot->p_len != slot->len)
		return status;
	at = TPD_MIN((size_t)(pos % tpd_chunk_bytes(seg->dtype)), slot->len - TPD_MIN(slot->len, most)) / width * width;
	sample = (struct tpd_sample){.x = slot->x + at, .p = slot->p + at, .len = TPD_MIN(slot->len, most)};
	sample.len -= sample.len % width;
	sample.stretch = sample.len;
	if (sample.len == 0)
		return TPD_OK;
	status = tpd_plan_choose(job->codecs[0], seg->dtype, file->entry->about[s].row, &sample, &plan, &with, &alone, err);
	sum->with += (double)with / (double)sample.len;
	sum->alone += (double)alone / (double)sample.len;
	sum->places++;
	return status;
}

static bool is_weighed(const struct tpd_segment *seg)
{
	return seg->has_ref && seg->dtype != TPD_DTYPE_BYTES;
}

/* With job->ref, as it is matched. */
static enum tpd_status weigh(struct tpd_ingest_job *job, struct weighing *out, struct tpd_err *err)
{
	uint64_t passed = 0;
	enum tpd_status status = TPD_OK;

	*out = (struct weighing){0};
	for (uint32_t f = 0; f < job->manifest.file_count; f++)
		for (uint32_t s = 1; s < job->files[f].entry->segment_count; s++)
			if (is_weighed(&job->files[f].entry->segments[s]))
				out->bytes += job->files[f].entry->segments[s].length;
	for (uint32_t f = 0, place = 0; !status && f < job->manifest.file_count; f++) {
		struct tpd_file_work *file = &job->files[f];

		for (uint32_t s = 1; !status && s < file->entry->segment_count; s++) {
			const struct tpd_segment *seg = &file->entry->segments[s];

			if (!is_weighed(seg))
				continue;
			for (; !status && place < PLACES; place++) {
				/* The middle of each of PLACES equal parts, without an overflow. */
				uint64_t at = out->bytes / PLACES * place + out->bytes / (2 * PLACES);

				if (at >= passed + seg->length)
					break;
				status = weigh_place(job, file, s, at > passed ? at - passed : 0, out, err);
			}
			passed += seg->length;
		}
	}
	return status ? status : tpd_ingest_progress(job, 0, err);
}

/* --- which --- */

/* Is it this step of this run, perhaps damaged, that the chain comes from? What is stored now may be the same, and no base of itself. */
static bool comes_from_us(const struct tpd_ingest_job *job, const struct tpd_chain *chain)
{
	for (uint32_t i = 0; i < tpd_chain_links(chain); i++) {
		const struct tpd_manifest *m = tpd_chain_link(chain, i);

		if (m->step == job->manifest.step && strcmp(m->run, job->manifest.run) == 0)
			return true;
	}
	return false;
}

/* That checkpoint; at the depth limit the one nearest to it in its chain that is below. */
static enum tpd_status open_base(struct tpd_ingest_job *job, const struct tpd_id *id, struct tpd_chain **out, struct tpd_err *err)
{
	struct tpd_chain *chain = NULL;
	struct tpd_id below;
	uint32_t link = 0, next;
	bool costly = false;
	enum tpd_status status = tpd_ingest_open_reference(job, id, &chain, err);

	if (!status && tpd_chain_depth(chain) >= job->options->max_depth) {
		while (tpd_chain_depth_of(chain, link) >= job->options->max_depth && tpd_chain_below(chain, link, &next))
			link = next;
		below = tpd_chain_link(chain, link)->id;
		tpd_chain_close(chain);
		chain = NULL;
		status = tpd_ingest_open_reference(job, &below, &chain, err);
	}
	if (!status && comes_from_us(job, chain))
		status = tpd_fail(err, TPD_CORRUPT, "%s@%llu refers to %s@%llu itself", tpd_chain_manifest(chain)->run,
				  (unsigned long long)tpd_chain_manifest(chain)->step, job->manifest.run,
				  (unsigned long long)job->manifest.step);
	if (!status)
		status = tpd_ingest_is_costly(job, chain, &costly, err);
	if (!status && costly)
		status = tpd_fail(err, TPD_LIMIT, "to read it through %s@%llu, whose tensors are cut differently, would take too much",
				  tpd_chain_manifest(chain)->run, (unsigned long long)tpd_chain_manifest(chain)->step);
	if (status) {
		tpd_chain_close(chain);
		return status;
	}
	*out = chain;
	return TPD_OK;
}

/* How many bytes that checkpoint would save; 0: too few, or it cannot be read. */
static enum tpd_status try_base(struct tpd_ingest_job *job, const struct tpd_id *id, double *out_saved, struct tpd_err *err)
{
	struct weighing sum = {0};
	enum tpd_status status = open_base(job, id, &job->ref, err);

	*out_saved = 0;
	if (!status)
		status = tpd_ingest_match(job, err);
	if (!status)
		status = weigh(job, &sum, err);
	if (!status && sum.places > 0 && sum.with * 100 <= sum.alone * GAIN_PERCENT)
		*out_saved = (double)sum.bytes * (sum.alone - sum.with) / sum.places;
	tpd_ingest_unmatch(job);
	tpd_chain_close(job->ref);
	job->ref = NULL;
	return tpd_ingest_lost_reference(status) ? TPD_OK : status;
}

static enum tpd_status find_base(struct tpd_ingest_job *job, struct tpd_err *err)
{
	struct kinship kinship = {0};
	struct tpd_id best;
	double most = 0;
	enum tpd_status status = list_runs(job, &kinship, err);

	if (!status)
		status = shortlist(job, &kinship, err);
	for (size_t i = 0; !status && i < TPD_MIN(kinship.count, (size_t)KIN_MAX) && kinship.items[i].common > 0; i++)
		for (uint32_t k = 0; !status && k < kinship.items[i].pick_count; k++) {
			double saved;

			status = try_base(job, &kinship.items[i].picks[k], &saved, err);
			if (status || saved <= most)
				continue;
			most = saved;
			best = kinship.items[i].picks[k];
		}
	kinship_release(&kinship);
	return status || most == 0 ? status : open_base(job, &best, &job->ref, err);
}

enum tpd_status tpd_ingest_lineage(struct tpd_ingest_job *job, struct tpd_err *err)
{
	struct tpd_err fault = {0};
	enum tpd_status status = TPD_OK;

	if (job->options->base == TPD_BASE_NONE || job->options->max_depth == 0)
		return TPD_OK;
	job->based = true;
	if (job->options->base == TPD_BASE_GIVEN) {
		status = open_base(job, &job->options->base_id, &job->ref, &fault);
		if (tpd_ingest_lost_reference(status)) {
			job->base_fault = fault;
			status = TPD_OK;
		} else if (status && err) {
			*err = fault;
		}
	}
	if (!status && !job->ref)
		status = find_base(job, err);
	job->anchoring = job->ref != NULL;
	return status;
}

uint32_t tpd_ingest_anchor_link(const struct tpd_ingest_job *job)
{
	uint32_t own = 0, last = 0, next; /* own: the last of this run on the way */

	while (tpd_chain_below(job->ref, last, &next)) {
		last = next;
		if (strcmp(tpd_chain_link(job->ref, last)->run, job->manifest.run) == 0)
			own = last;
	}
	return tpd_chain_depth_of(job->ref, own) > job->options->max_depth / 2 ? last : own;
}
