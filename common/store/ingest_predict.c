/*
 * ingest_predict.c - which weights may be predicted, and from what.
 *
 * Ties (ingest_ties.c) say which segments are exp_avg and exp_avg_sq of which weights; references say where all of these were in the last
 * checkpoint. What is to be had is offered to the planner, which tries it on a sample (codec/plan.c): a tie that is wrong predicts nothing
 * and is not taken. What was taken is named in the manifest, since the chunks are decoded from it.
 */
#include "base/tpd.h"

#include "store/ingest_internal.h"
#include "store/manifest_internal.h"

#include <assert.h>

#include "base/bytes.h"

/* Tensors of fewer elements are all header. */
#define PREDICT_MIN 4096u

/* The whole of a segment, and the whole of its owner. */
static bool is_whole(const struct tpd_manifest *m, const struct tpd_tie *tie)
{
	const struct tpd_segment *state = &m->entries[m->files[tie->state.file]].segments[tie->state.segment];
	const struct tpd_segment *owner = &m->entries[m->files[tie->owner.file]].segments[tie->owner.segment];

	return tie->state.first == 0 && tie->owner.first == 0 && state->dtype == TPD_DTYPE_F32 && owner->dtype == TPD_DTYPE_F32 &&
	       state->length == owner->length && tie->elements == owner->length / 4;
}

/* Has it a reference to a whole segment, in the checkpoint before? */
static bool has_before(const struct tpd_segment *seg)
{
	return seg->has_ref && !seg->in_slabs;
}

static const struct tpd_segment *segment_of(const struct tpd_ingest_job *job, uint32_t file, uint32_t segment)
{
	return &job->files[file].entry->segments[segment];
}

/*
 * Which terms may the segment's prediction have? TPD_TERM_STEP is not offered: w0 is what the reference refers to, and a reference that was
 * damaged and is stored again refers to nothing, though its content is the same.
 */
static unsigned terms_of(const struct tpd_ingest_job *job, const struct tpd_predictor *p, bool has_m, bool has_v)
{
	unsigned terms = TPD_TERM_DECAY;

	if (job->options->depend == TPD_DEPEND_WEIGHTS || !has_m || !has_v)
		return terms;
	terms |= TPD_TERM_NOW;
	if (has_before(segment_of(job, p->m_file, p->m_segment)) && has_before(segment_of(job, p->v_file, p->v_segment)))
		terms |= TPD_TERM_BEFORE;
	return terms;
}

enum tpd_status tpd_ingest_predict(struct tpd_ingest_job *job, struct tpd_err *err TPD_UNUSED)
{
	enum { HAS_M = 1, HAS_V = 2 };
	const struct tpd_manifest *m = &job->manifest;

	if (!job->ref || job->options->depend == TPD_DEPEND_NONE || job->options->effort == TPD_EFFORT_FAST)
		return TPD_OK;
	for (uint32_t t = 0; t < m->tie_count; t++) {
		const struct tpd_tie *tie = &m->ties[t];
		struct tpd_segment_work *work = &job->files[tie->owner.file].segments[tie->owner.segment];

		if (!is_whole(m, tie))
			continue;
		if (tie->kind == TPD_STATE_EXP_AVG) {
			work->predictor.m_file = tie->state.file;
			work->predictor.m_segment = tie->state.segment;
			work->moments |= HAS_M;
		} else if (tie->kind == TPD_STATE_EXP_AVG_SQ) {
			work->predictor.v_file = tie->state.file;
			work->predictor.v_segment = tie->state.segment;
			work->moments |= HAS_V;
		}
	}
	for (uint32_t f = 0; f < m->file_count; f++) {
		const struct tpd_entry *entry = job->files[f].entry;

		for (uint32_t s = 1; s < entry->segment_count; s++) {
			const struct tpd_segment *seg = &entry->segments[s];
			struct tpd_segment_work *work = &job->files[f].segments[s];

			work->predictor.segment = s;
			/* A moment is not predicted itself: nothing could be in a circle then. */
			if (seg->dtype != TPD_DTYPE_F32 || seg->length / 4 < PREDICT_MIN || !has_before(seg) || tpd_manifest_ties(m, f, s, &(uint32_t){0}))
				continue;
			if (!tpd_ingest_has_room_for(job, TPD_MANIFEST_WEIGHT_PREDICTOR))
				continue;
			work->predictor.terms = (uint8_t)terms_of(job, &work->predictor, work->moments & HAS_M, work->moments & HAS_V);
		}
	}
	return TPD_OK;
}

size_t tpd_ingest_term_sets(const struct tpd_ingest_job *job, const struct tpd_segment_work *work, uint8_t sets[TPD_INGEST_TERM_SETS])
{
	const uint8_t terms = work->predictor.terms;
	size_t count = 0;

	if (terms & TPD_TERM_NOW)
		sets[count++] = terms;
	if (terms & TPD_TERM_DECAY && (count == 0 || job->options->effort == TPD_EFFORT_MAX))
		sets[count++] = TPD_TERM_DECAY;
	return count;
}

enum tpd_status tpd_ingest_name_predictors(struct tpd_ingest_job *job, struct tpd_err *err)
{
	enum tpd_status status = TPD_OK;

	for (uint32_t f = 0; f < job->manifest.file_count; f++) {
		struct tpd_file_work *file = &job->files[f];

		for (uint32_t s = 1; !status && s < file->entry->segment_count; s++) {
			const struct tpd_segment_work *work = &file->segments[s];
			struct tpd_predictor predictor = work->predictor;

			if (work->plan.encoding != TPD_ENCODING_PREDICTED)
				continue;
			predictor.terms = work->plan.terms;
			if (predictor.terms & TPD_TERM_BEFORE) { /* which they may have let go of, since they were coded without */
				job->files[predictor.m_file].entry->segments[predictor.m_segment].has_ref = true;
				job->files[predictor.v_file].entry->segments[predictor.v_segment].has_ref = true;
			}
			if (!(predictor.terms & (TPD_TERM_BEFORE | TPD_TERM_NOW)))
				predictor.m_file = predictor.m_segment = predictor.v_file = predictor.v_segment = 0;
			status = tpd_entry_predict(file->entry, &predictor, err);
		}
	}
	return status;
}

/* --- reading --- */

/* That of a moment of this checkpoint, or of the one before. */
static enum tpd_status read_moment(struct tpd_ingest_job *job, struct tpd_slot *slot, uint32_t file, uint32_t segment, bool before,
				   enum tpd_input input, unsigned worker, struct tpd_err *err)
{
	const struct tpd_segment *seg = segment_of(job, file, segment);

	if (before)
		return tpd_chain_read(job->ref, job->chain_workers[worker], seg->ref_file, seg->ref_segment, slot->chunk,
				      slot->input[input], &slot->inputs.of[input].len, err);
	slot->inputs.of[input].len = tpd_segment_chunk_len(seg, slot->chunk);
	return tpd_ingest_read_own(job, file, segment, slot->chunk, slot->input[input], err);
}

enum tpd_status tpd_ingest_read_inputs(struct tpd_ingest_job *job, struct tpd_slot *slot, unsigned terms, unsigned worker,
				       struct tpd_err *err)
{
	const struct tpd_predictor *p = &job->file->segments[slot->segment].predictor;
	const unsigned need = tpd_terms_need(terms);
	enum tpd_status status = TPD_OK;

	assert(!(need >> TPD_INPUT_W0 & 1)); /* of TPD_TERM_STEP, which is not offered */
	slot->inputs = (struct tpd_inputs){0};
	for (unsigned i = 0; !status && i < TPD_INPUT_COUNT; i++) {
		const enum tpd_input input = (enum tpd_input)i;

		if (!(need >> i & 1))
			continue;
		status = tpd_room(&slot->input[i], &slot->input_cap[i], tpd_chunk_bytes(TPD_DTYPE_F32), err);
		if (status)
			break;
		slot->inputs.of[i].data = slot->input[i];
		if (input == TPD_INPUT_M1 || input == TPD_INPUT_M2)
			status = read_moment(job, slot, p->m_file, p->m_segment, input == TPD_INPUT_M1, input, worker, err);
		else
			status = read_moment(job, slot, p->v_file, p->v_segment, input == TPD_INPUT_V1, input, worker, err);
	}
	return status;
}
