/*
 * ingest_survey.c - the first pass: statistics, and the choice of an encoding for each tensor.
 *
 * Two of the statistics need the whole tensor before they can be counted, and the choice of an encoding needs a sample from all over
 * it; both come from one reading of source and references. Samples are cut out of the chunks as they pass, so that a
 * reference is never decoded for the sample alone. Tensors whose last chunk was in the batch are then planned in parallel.
 */
#include "base/tpd.h"

#include "store/ingest_internal.h"

#include <stdlib.h>
#include <string.h>

/* Untyped bytes have no elements to pick: few long stretches say more about what Zstandard will do. */
#define BYTES_STRETCHES 4u
#define BYTES_STRETCH 32768u

struct geometry {
	uint64_t stretches; /* 1: the whole segment */
	uint64_t stretch;   /* bytes */
	uint64_t width, elements;
};

static struct geometry sample_geometry(const struct tpd_segment *seg)
{
	uint64_t width = tpd_dtype_width(seg->dtype), elements = seg->length / width, times = tpd_sample_times(seg->dtype);

	if (seg->dtype == TPD_DTYPE_BYTES && elements > BYTES_STRETCHES * BYTES_STRETCH)
		return (struct geometry){BYTES_STRETCHES, BYTES_STRETCH, 1, elements};
	if (seg->dtype != TPD_DTYPE_BYTES && elements > TPD_SAMPLE_ELEMENTS * times)
		return (struct geometry){TPD_SAMPLE_STRETCHES, TPD_SAMPLE_STRETCH_ELEMENTS * width * times, width, elements};
	return (struct geometry){1, seg->length, width, elements};
}

/* The same elements of what it is predicted from, which is F32 whatever it is itself. */
static struct geometry geometry_of_inputs(const struct geometry *g)
{
	return (struct geometry){g->stretches, g->stretch / g->width * 4, 4, g->elements};
}

/* Where stretch i begins, in bytes of the segment. */
static uint64_t stretch_start(const struct geometry *g, uint64_t i)
{
	if (g->stretches == 1)
		return 0;
	return i * (g->elements - g->stretch / g->width) / (g->stretches - 1) * g->width;
}

/* Copy what of the sample lies in bytes [pos, pos + len) of the segment; a shorter source is continued with zeros. */
static void cut_sample(const struct geometry *g, uint64_t pos, uint64_t len, const uint8_t *from, uint64_t from_len,
		       uint8_t *sample)
{
	for (uint64_t i = 0; i < g->stretches; i++) {
		uint64_t start = stretch_start(g, i), end = start + g->stretch;
		uint64_t low = TPD_MAX(start, pos), high = TPD_MIN(end, pos + len), have;

		if (low >= high)
			continue;
		have = low - pos >= from_len ? 0 : TPD_MIN(high - low, from_len - (low - pos));
		if (have > 0)
			memcpy(sample + i * g->stretch + (low - start), from + (low - pos), have);
		memset(sample + i * g->stretch + (low - start) + have, 0, high - low - have);
	}
}

enum tpd_status tpd_ingest_read_sample(struct tpd_ingest_job *job, uint32_t file, uint32_t segment, uint8_t *out, struct tpd_err *err)
{
	const struct tpd_segment *seg = &job->files[file].entry->segments[segment];
	const struct geometry g = sample_geometry(seg);
	enum tpd_status status = TPD_OK;

	for (uint64_t i = 0; !status && i < g.stretches; i++)
		status = tpd_ingest_pread(&job->files[file], out + i * g.stretch, g.stretch, seg->offset + stretch_start(&g, i), err);
	return status;
}

/* Is any of the sample in that chunk? */
static bool has_sample(const struct tpd_segment *seg, uint64_t chunk)
{
	struct geometry g = sample_geometry(seg);
	uint64_t pos = chunk * tpd_chunk_bytes(seg->dtype), end = pos + tpd_segment_chunk_len(seg, chunk);

	for (uint64_t i = 0; i < g.stretches; i++)
		if (stretch_start(&g, i) < end && stretch_start(&g, i) + g.stretch > pos)
			return true;
	return false;
}

static enum tpd_status survey_slot(void *ctx, size_t item, unsigned worker, struct tpd_err *err)
{
	struct tpd_ingest_job *job = ctx;
	struct tpd_slot *slot = &job->slots[item];
	const struct tpd_segment *seg = &job->file->entry->segments[slot->segment];
	const struct tpd_segment_work *work = &job->file->segments[slot->segment];
	size_t n = slot->len / tpd_dtype_width(seg->dtype);
	enum tpd_status status = tpd_ingest_read_x(job, slot, err);

	if (!status)
		status = tpd_ingest_read_refs(job, slot, worker, err);
	if (!status && work->predictor.terms && has_sample(seg, slot->chunk))
		status = tpd_ingest_read_inputs(job, slot, work->predictor.terms, worker, err);
	if (status || !work->stats)
		return status;
	if (slot->sample_cap < n) {
		free(slot->sample);
		slot->sample_cap = 0;
		slot->sample = malloc((n + TPD_STATS_SLACK) * sizeof(*slot->sample));
		if (!slot->sample)
			return tpd_fail_nomem(err);
		slot->sample_cap = n;
	}
	tpd_survey_chunk(work->stats, slot->x, slot->w1, n, slot->chunk * TPD_CHUNK_ELEMENTS, &slot->survey, slot->sample,
			 &slot->samples);
	return TPD_OK;
}

/* Before the first chunk of a segment is merged. */
static enum tpd_status open_segment(const struct tpd_segment *seg, bool is_tensor, struct tpd_segment_work *work,
				    struct tpd_err *err)
{
	struct geometry g = sample_geometry(seg);

	if (is_tensor && tpd_dtype_has_stats(seg->dtype) && !work->stats) {
		enum tpd_status status = tpd_stats_new(seg->dtype, g.elements, work->has_w1, &work->stats, err);

		if (status)
			return status;
	}
	if (work->sample_x)
		return TPD_OK;
	work->sample_bytes = g.stretches * g.stretch;
	work->sample_x = malloc(work->sample_bytes);
	work->sample_p = seg->has_ref ? malloc(work->sample_bytes) : NULL;
	if (!work->sample_x || (seg->has_ref && !work->sample_p))
		return tpd_fail_nomem(err);
	for (unsigned i = 0; i < TPD_INPUT_COUNT; i++) {
		if (!(tpd_terms_need(work->predictor.terms) >> i & 1))
			continue;
		work->sample_inputs[i] = malloc(work->sample_bytes / g.width * 4 + 1);
		if (!work->sample_inputs[i])
			return tpd_fail_nomem(err);
	}
	return TPD_OK;
}

static enum tpd_status merge_slot(struct tpd_ingest_job *job, const struct tpd_slot *slot, struct tpd_err *err)
{
	const struct tpd_segment *seg = &job->file->entry->segments[slot->segment];
	struct tpd_segment_work *work = &job->file->segments[slot->segment];
	const struct geometry g = sample_geometry(seg), inputs = geometry_of_inputs(&g);
	uint64_t pos = slot->chunk * tpd_chunk_bytes(seg->dtype);

	job->file->marks[slot->number] = slot->mark;
	cut_sample(&g, pos, slot->len, slot->x, slot->len, work->sample_x);
	if (work->sample_p)
		cut_sample(&g, pos, slot->len, slot->p, slot->p_len, work->sample_p);
	for (unsigned i = 0; i < TPD_INPUT_COUNT; i++)
		if (work->sample_inputs[i] && has_sample(seg, slot->chunk))
			cut_sample(&inputs, pos / g.width * 4, slot->len / g.width * 4, slot->inputs.of[i].data, slot->inputs.of[i].len,
				   work->sample_inputs[i]);
	if (work->stats)
		return tpd_stats_add_survey(work->stats, &slot->survey, slot->sample, slot->samples, err);
	return TPD_OK;
}

static const unsigned context_parts[] = {[TPD_EFFORT_FAST] = 0, [TPD_EFFORT_BALANCED] = TPD_CONTEXT_PART, [TPD_EFFORT_MAX] = TPD_CONTEXT_PART_MAX};

struct planning {
	struct tpd_ingest_job *job;
	const uint32_t *segments;
};

static enum tpd_status plan_segment(void *ctx, size_t item, unsigned worker, struct tpd_err *err)
{
	const struct planning *planning = ctx;
	struct tpd_ingest_job *job = planning->job;
	uint32_t s = planning->segments[item];
	const struct tpd_segment *seg = &job->file->entry->segments[s];
	uint32_t row = job->file->entry->about[s].row;
	struct tpd_segment_work *work = &job->file->segments[s];
	struct geometry g = sample_geometry(seg);
	struct tpd_sample sample = {.x = work->sample_x, .p = work->sample_p, .len = work->sample_bytes, .stretch = g.stretch};
	struct tpd_inputs inputs;
	uint8_t sets[TPD_INGEST_TERM_SETS];
	enum tpd_status status;

	if (work->stats)
		tpd_stats_end_survey(work->stats);
	/* Alone it depends on nothing. */
	sample.try_scaled = work->may_be_scaled && (!sample.p || job->options->depend != TPD_DEPEND_NONE);
	sample.try_low_rank = job->options->effort == TPD_EFFORT_MAX;
	sample.context_part = work->may_be_scaled ? 0 : context_parts[job->options->effort];
	if (work->predictor.terms) {
		for (unsigned i = 0; i < TPD_INPUT_COUNT; i++)
			inputs.of[i] = (struct tpd_bytes){work->sample_inputs[i],
							  work->sample_inputs[i] ? work->sample_bytes / g.width * 4 : 0};
		sample.inputs = &inputs;
		sample.term_sets = sets;
		sample.term_set_count = work->may_be_scaled ? 0 : tpd_ingest_term_sets(job, work, sets);
		sample.scaled_terms = work->may_be_scaled ? work->predictor.terms : 0;
	}
	status = tpd_plan_choose(job->codecs[worker], seg->dtype, row, &sample, &work->plan, &work->cost,
				 &work->cost_alone, err);
	if (!status && job->anchoring && work->sample_p && !seg->derived) { /* a keyframe may still win */
		uint64_t cost, cost_alone;

		sample.p = NULL;
		sample.term_set_count = 0;
		sample.try_scaled = work->may_be_scaled;
		sample.scaled_terms &= TPD_TERM_SCALE;
		status = tpd_plan_choose(job->codecs[worker], seg->dtype, row, &sample, &work->plan_alone, &cost,
					 &cost_alone, err);
	} else {
		work->plan_alone = work->plan;
	}
	if (!status && work->has_twin)
		status = tpd_ingest_try_twin(job, s, &sample, worker, err);
	free(work->sample_x);
	free(work->sample_p);
	work->sample_x = work->sample_p = NULL;
	for (unsigned i = 0; i < TPD_INPUT_COUNT; i++) {
		free(work->sample_inputs[i]);
		work->sample_inputs[i] = NULL;
	}
	return status;
}

static enum tpd_status survey_file(struct tpd_ingest_job *job, struct tpd_file_work *file, struct tpd_err *err)
{
	uint64_t chunks = tpd_entry_chunks(file->entry);
	TPD_AUTO_FREE uint32_t *complete = calloc(job->slot_count, sizeof(*complete));
	enum tpd_status status = TPD_OK;

	file->marks = malloc((chunks + 1) * sizeof(*file->marks));
	if (!file->marks || !complete)
		return tpd_fail_nomem(err);
	job->file = file;
	for (uint64_t number = 0; !status && number < chunks;) {
		size_t n = tpd_ingest_batch(job, number, chunks), planned = 0, bytes = 0;
		struct planning planning = {.job = job, .segments = complete};

		for (size_t i = 0; !status && i < n; i++)
			status = open_segment(&file->entry->segments[job->slots[i].segment], job->slots[i].segment > 0,
					      &file->segments[job->slots[i].segment], err);
		if (!status)
			status = tpd_pool_run(job->options->pool, n, survey_slot, job, err);
		for (size_t i = 0; !status && i < n; i++) {
			const struct tpd_slot *slot = &job->slots[i];

			status = merge_slot(job, slot, err);
			bytes += slot->len;
			if (slot->chunk + 1 == tpd_segment_chunks(&file->entry->segments[slot->segment]))
				complete[planned++] = slot->segment;
		}
		if (!status)
			status = tpd_pool_run(job->options->pool, planned, plan_segment, &planning, err);
		if (!status)
			status = tpd_ingest_progress(job, bytes, err);
		number += n;
	}
	job->file = NULL;
	return status;
}

enum tpd_status tpd_ingest_survey(struct tpd_ingest_job *job, struct tpd_err *err)
{
	enum tpd_status status = TPD_OK;

	for (uint32_t f = 0; !status && f < job->manifest.file_count; f++)
		status = survey_file(job, &job->files[f], err);
	return status;
}
