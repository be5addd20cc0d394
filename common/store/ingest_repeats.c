/*
 * ingest_repeats.c - tensors that a checkpoint holds more than once.
 *
 * A head that is tied to the embedding and saved beside it, weights in a model file and again in a trainer's own, an average that has just
 * begun: one copy serves for all. A few bytes of every tensor say which may be the same; of those one stays as it is, and each other may
 * refer to it, in this checkpoint, if that takes less of the planner's sample than what it would refer to otherwise. Whether they are equal
 * is found when they are encoded, chunk by chunk: what is costs nothing, and what differs in a few elements tells these.
 *
 * Rejected: the digests that the survey has of every chunk (one element that differs hides the rest, and then it is too late for a sample).
 */
#include "base/tpd.h"

#include "store/ingest_internal.h"
#include "store/manifest_internal.h"

#include <stdlib.h>
#include <string.h>

#define REPEAT_MIN 4096u /* bytes of a tensor that is worth it */
#define PROBES 4u        /* evenly from its beginning to its end */
#define PROBE 64u        /* bytes */
#define GAIN_MIN 32u     /* bytes that it must save: what a manifest takes to say so, and some */
#define PAUSE 256u

struct print {
	uint32_t file, segment;
	uint8_t digest[TPD_XXH_LEN];
};

static const struct tpd_segment *segment_of(const struct tpd_ingest_job *job, const struct print *print)
{
	return &job->files[print->file].entry->segments[print->segment];
}

static int by_place(const struct print *x, const struct print *y)
{
	if (x->file != y->file)
		return x->file < y->file ? -1 : 1;
	return (x->segment > y->segment) - (x->segment < y->segment);
}

static int compare_sizes(const struct tpd_ingest_job *job, const struct print *x, const struct print *y)
{
	const struct tpd_segment *a = segment_of(job, x), *b = segment_of(job, y);

	if (a->length != b->length)
		return a->length < b->length ? -1 : 1;
	return (a->dtype > b->dtype) - (a->dtype < b->dtype);
}

static int by_size(const void *a, const void *b, void *job)
{
	int order = compare_sizes(job, a, b);

	return order ? order : by_place(a, b);
}

static int by_digest(const void *a, const void *b, void *arg TPD_UNUSED)
{
	const struct print *x = a, *y = b;
	int order = memcmp(x->digest, y->digest, sizeof(x->digest));

	return order ? order : by_place(x, y);
}

/* false in *out_says: one value all along, as of a new norm; that costs nothing anyway. */
static enum tpd_status take_print(struct tpd_ingest_job *job, struct print *print, bool *out_says, struct tpd_err *err)
{
	const struct tpd_segment *seg = segment_of(job, print);
	const unsigned width = tpd_dtype_width(seg->dtype);
	uint8_t bytes[PROBES * PROBE];
	enum tpd_status status = TPD_OK;

	for (uint64_t i = 0; !status && i < PROBES; i++) {
		uint64_t at = (seg->length - PROBE) / (PROBES - 1) * i;

		status = tpd_ingest_pread(&job->files[print->file], bytes + i * PROBE, PROBE, seg->offset + at / width * width, err);
	}
	if (status)
		return status;
	tpd_xxh128(bytes, sizeof(bytes), print->digest);
	*out_says = memcmp(bytes, bytes + width, sizeof(bytes) - width) != 0;
	return TPD_OK;
}

/* How much it matters that it stays as it is: others are derived from it, it is derived, it may be predicted or predict, it has a reference. */
static unsigned rank_of(const struct tpd_ingest_job *job, const struct print *print)
{
	const struct tpd_segment_work *work = &job->files[print->file].segments[print->segment];

	const struct tpd_segment *seg = segment_of(job, print);

	if (work->serves)
		return 4;
	if (seg->has_ref && seg->derived)
		return 3;
	return work->is_moment || work->predictor.terms & (TPD_TERM_BEFORE | TPD_TERM_NOW) ? 2 : seg->has_ref;
}

/* Which of these does: the first of the highest rank. */
static const struct print *choose_original(const struct tpd_ingest_job *job, const struct print *prints, size_t count)
{
	const struct print *best = &prints[0];

	for (size_t i = 1; i < count; i++)
		if (rank_of(job, &prints[i]) > rank_of(job, best))
			best = &prints[i];
	return best;
}

/* Prints of one size and type: those of one digest may be the same. */
static void pair(struct tpd_ingest_job *job, struct print *prints, size_t count)
{
	if (count > 1)
		qsort_r(prints, count, sizeof(*prints), by_digest, NULL);
	for (size_t from = 0, to; from < count; from = to) {
		const struct print *original;

		for (to = from + 1; to < count && memcmp(prints[to].digest, prints[from].digest, TPD_XXH_LEN) == 0;)
			to++;
		original = choose_original(job, prints + from, to - from);
		for (size_t i = from; i < to; i++) {
			struct tpd_segment_work *work = &job->files[prints[i].file].segments[prints[i].segment];

			if (&prints[i] == original || work->serves || segment_of(job, &prints[i])->derived)
				continue;
			work->has_twin = true;
			work->twin_file = original->file;
			work->twin_segment = original->segment;
		}
	}
}

/* What others are derived from must not be derived; nor should moments be that weights may be predicted from. */
static void mark_servants(struct tpd_ingest_job *job)
{
	for (uint32_t f = 0; f < job->manifest.file_count; f++) {
		const struct tpd_entry *entry = job->files[f].entry;

		for (uint32_t s = 1; s < entry->segment_count; s++) {
			const struct tpd_segment *seg = &entry->segments[s];
			const struct tpd_predictor *p = &job->files[f].segments[s].predictor;

			if (p->terms & (TPD_TERM_BEFORE | TPD_TERM_NOW))
				job->files[p->m_file].segments[p->m_segment].is_moment = true;
			if (p->terms & (TPD_TERM_BEFORE | TPD_TERM_NOW | TPD_TERM_SCALE))
				job->files[p->v_file].segments[p->v_segment].is_moment = true;
			for (uint32_t i = 0; seg->has_ref && seg->derived && i < seg->ref_segment; i++) {
				const struct tpd_slab *slab = &entry->slabs[seg->ref_file + i];

				job->files[slab->file].segments[slab->segment].serves = true;
			}
		}
	}
}

static size_t list_tensors(const struct tpd_ingest_job *job, struct print *out)
{
	size_t count = 0;

	for (uint32_t f = 0; f < job->manifest.file_count; f++)
		for (uint32_t s = 1; s < job->files[f].entry->segment_count; s++) {
			const struct tpd_segment *seg = &job->files[f].entry->segments[s];

			if (seg->dtype == TPD_DTYPE_BYTES || seg->length < REPEAT_MIN || seg->length % tpd_dtype_width(seg->dtype) != 0)
				continue;
			if (out)
				out[count] = (struct print){.file = f, .segment = s};
			count++;
		}
	return count;
}

enum tpd_status tpd_ingest_repeats(struct tpd_ingest_job *job, struct tpd_err *err)
{
	const size_t all = list_tensors(job, NULL);
	TPD_AUTO_FREE struct print *prints = calloc(all + 1, sizeof(*prints));
	enum tpd_status status = prints ? TPD_OK : tpd_fail_nomem(err);
	size_t looked_at = 0;

	if (status || all < 2)
		return status;
	mark_servants(job);
	list_tensors(job, prints);
	qsort_r(prints, all, sizeof(*prints), by_size, job);
	for (size_t from = 0, to; !status && from < all; from = to) {
		size_t kept = 0;

		for (to = from + 1; to < all && compare_sizes(job, &prints[from], &prints[to]) == 0;)
			to++;
		if (to - from < 2)
			continue;
		for (size_t i = from; !status && i < to; i++) {
			struct print print = prints[i];
			bool says = false;

			status = take_print(job, &print, &says, err);
			if (!status && says)
				prints[from + kept++] = print;
			if (!status && ++looked_at % PAUSE == 0)
				status = tpd_ingest_progress(job, 0, err);
		}
		if (!status)
			pair(job, prints + from, kept);
	}
	return status;
}

enum tpd_status tpd_ingest_try_twin(struct tpd_ingest_job *job, uint32_t s, const struct tpd_sample *own, unsigned worker,
				    struct tpd_err *err)
{
	const struct tpd_segment *seg = &job->file->entry->segments[s];
	struct tpd_segment_work *work = &job->file->segments[s];
	TPD_AUTO_FREE uint8_t *bytes = malloc(own->len + 1);
	struct tpd_sample sample = {.x = own->x, .p = bytes, .len = own->len, .stretch = own->stretch};
	uint64_t cost, ignored;
	enum tpd_status status;

	if (!bytes)
		return tpd_fail_nomem(err);
	status = tpd_ingest_read_sample(job, work->twin_file, work->twin_segment, bytes, err);
	if (!status)
		status = tpd_plan_choose(job->codecs[worker], seg->dtype, job->file->entry->about[s].row, &sample, &work->twin_plan, &cost,
					 &ignored, err);
	if (status)
		return status;
	work->takes_twin = cost < work->cost && tpd_encoding_needs_reference(work->twin_plan.encoding) &&
			   (double)(work->cost - cost) * (double)seg->length >= (double)GAIN_MIN * (double)own->len;
	return TPD_OK;
}

/* Those that others are predicted from, or scaled by, must not be derived. */
static void keep_moments(struct tpd_ingest_job *job)
{
	for (uint32_t f = 0; f < job->manifest.file_count; f++)
		for (uint32_t s = 1; s < job->files[f].entry->segment_count; s++) {
			const struct tpd_segment_work *work = &job->files[f].segments[s];
			const struct tpd_predictor *p = &work->predictor;

			if (work->takes_twin || !tpd_encoding_takes_inputs(work->plan.encoding))
				continue;
			if (work->plan.terms & (TPD_TERM_BEFORE | TPD_TERM_NOW))
				job->files[p->m_file].segments[p->m_segment].takes_twin = false;
			if (work->plan.terms & (TPD_TERM_BEFORE | TPD_TERM_NOW | TPD_TERM_SCALE))
				job->files[p->v_file].segments[p->v_segment].takes_twin = false;
		}
}

enum tpd_status tpd_ingest_take_twins(struct tpd_ingest_job *job, struct tpd_err *err)
{
	enum tpd_status status = TPD_OK;

	keep_moments(job);
	for (uint32_t f = 0; !status && f < job->manifest.file_count; f++) {
		struct tpd_entry *entry = job->files[f].entry;

		for (uint32_t s = 1; !status && s < entry->segment_count; s++) {
			struct tpd_segment_work *work = &job->files[f].segments[s];
			const struct tpd_entry *of = job->files[work->twin_file].entry;
			const struct tpd_segment *twin = &of->segments[work->twin_segment];
			struct tpd_slab slabs[TPD_SLABS_MAX] = {
				{.file = work->twin_file, .segment = work->twin_segment, .count = 1}};
			uint32_t count = 1;

			if (!work->takes_twin)
				continue;
			slabs[0].block = twin->length / tpd_dtype_width(twin->dtype);
			if (twin->has_ref && twin->derived) { /* from the same, then */
				count = twin->ref_segment;
				memcpy(slabs, of->slabs + twin->ref_file, count * sizeof(*slabs));
			}
			if (!tpd_ingest_has_room_for(job, (uint64_t)count * TPD_MANIFEST_WEIGHT_SLAB))
				continue;
			status = tpd_entry_refer(entry, s, slabs, count, true, err);
			work->plan = work->plan_alone = work->twin_plan;
		}
	}
	return status;
}
