/*
 * ingest_predict.c - which weights may be predicted, which moments have a scale, and from what.
 *
 * Ties (ingest_ties.c) say which segments are exp_avg and exp_avg_sq of which weights; references say where all of these were in the last
 * checkpoint, and its references where the weights were before that (w0). What is to be had is offered to the planner, which tries it on a
 * sample (codec/plan.c): a tie that is wrong predicts nothing and is not taken. What was taken is named in the manifest, since the chunks
 * are decoded from it; w0 by its checkpoint's id, as the reference may be damaged one day, stored again, and refer to nothing then.
 *
 * Reading w0 must not mean to replay its chain for each checkpoint that is stored: unless `effort` is max it is offered only where its
 * file still lies somewhere as it is.
 */
#include "base/tpd.h"

#include "store/ingest_internal.h"
#include "store/manifest_internal.h"

#include <stdlib.h>

#include "base/bytes.h"
#include "codec/rounding.h"

enum { HAS_M = 1, HAS_V = 2 };

static const struct tpd_segment *segment_of(const struct tpd_ingest_job *job, uint32_t file, uint32_t segment)
{
	return &job->files[file].entry->segments[segment];
}

static struct tpd_segment_work *work_of(const struct tpd_ingest_job *job, const struct tpd_tie_end *end)
{
	return &job->files[end->file].segments[end->segment];
}

static uint64_t elements_of(const struct tpd_segment *seg)
{
	return seg->length / tpd_dtype_width(seg->dtype);
}

/* Has it a reference in the checkpoint before? */
static bool has_before(const struct tpd_segment *seg)
{
	return seg->has_ref && !seg->derived;
}

/* Which may be a moment. */
static bool is_float(const struct tpd_segment *seg)
{
	return seg->dtype == TPD_DTYPE_F32 || seg->dtype == TPD_DTYPE_BF16;
}

/* What may be coded with others' help at all. */
static bool is_worth_it(const struct tpd_segment *seg)
{
	return elements_of(seg) >= TPD_PREDICT_MIN && has_before(seg);
}

/* A keyframe's, too. */
static bool may_be_scaled(const struct tpd_segment *seg)
{
	return is_float(seg) && elements_of(seg) >= TPD_PREDICT_MIN && !(seg->has_ref && seg->derived);
}

static bool may_be_predicted(const struct tpd_segment *seg)
{
	return (is_float(seg) || seg->dtype == TPD_DTYPE_F16) && is_worth_it(seg);
}

/* The whole of a moment, and the whole of its owner. */
static bool is_whole(const struct tpd_ingest_job *job, const struct tpd_tie *tie)
{
	const struct tpd_segment *state = segment_of(job, tie->state.file, tie->state.segment);
	const struct tpd_segment *owner = segment_of(job, tie->owner.file, tie->owner.segment);

	return tie->state.first == 0 && tie->owner.first == 0 && is_float(state) && elements_of(state) == tie->elements &&
	       elements_of(owner) == tie->elements;
}

/* What the reference refers to. Where it cannot be read there is none. */
static enum tpd_status open_earlier(struct tpd_ingest_job *job, struct tpd_err *err)
{
	const struct tpd_manifest *ref = tpd_chain_manifest(job->ref);
	enum tpd_status status;

	if (!ref->has_ref)
		return TPD_OK;
	status = tpd_ingest_open_reference(job, &ref->ref, &job->earlier, err);
	return tpd_ingest_lost_reference(status) ? TPD_OK : status;
}

/* Where the tensor was in job->earlier, whole; false: nowhere that is worth reading. */
static bool find_earlier(const struct tpd_ingest_job *job, const struct tpd_segment *seg, struct tpd_predictor *p)
{
	const struct tpd_manifest *ref = tpd_chain_manifest(job->ref);
	const struct tpd_segment *before;

	if (!job->earlier || seg->in_slabs)
		return false;
	before = &ref->entries[ref->files[seg->ref_file]].segments[seg->ref_segment];
	if (!before->has_ref || before->derived || before->in_slabs ||
	    !(job->options->effort == TPD_EFFORT_MAX || tpd_chain_has_raw(job->earlier, before->ref_file)))
		return false;
	p->w0_file = before->ref_file;
	p->w0_segment = before->ref_segment;
	return true;
}

/* Which terms may the weights' prediction have? */
static unsigned terms_of(const struct tpd_ingest_job *job, const struct tpd_segment *seg, struct tpd_predictor *p, unsigned moments)
{
	unsigned terms = seg->dtype == TPD_DTYPE_F32 ? TPD_TERM_DECAY : 0; /* of 16 bits: far below an ulp */

	if (find_earlier(job, seg, p))
		terms |= TPD_TERM_STEP;
	if (job->options->depend != TPD_DEPEND_OPTIMIZER || moments != (HAS_M | HAS_V))
		return terms;
	terms |= TPD_TERM_NOW;
	if (has_before(segment_of(job, p->m_file, p->m_segment)) && has_before(segment_of(job, p->v_file, p->v_segment)))
		terms |= TPD_TERM_BEFORE;
	return terms;
}

/* --- exp_avg, by the exp_avg_sq of the same weights, whole or a flat partition of several --- */

static int compare_owners(const struct tpd_tie *a, const struct tpd_tie *b)
{
	const struct tpd_tie_end *x = &a->owner, *y = &b->owner;

	if (x->file != y->file)
		return x->file < y->file ? -1 : 1;
	if (x->segment != y->segment)
		return x->segment < y->segment ? -1 : 1;
	return x->first < y->first ? -1 : x->first > y->first;
}

static int compare_ties(const void *a, const void *b)
{
	return compare_owners(*(const struct tpd_tie *const *)a, *(const struct tpd_tie *const *)b);
}

static void offer_scale(struct tpd_ingest_job *job, const struct tpd_tie *m, const struct tpd_tie *v)
{
	const struct tpd_segment *avg = segment_of(job, m->state.file, m->state.segment), *sq = segment_of(job, v->state.file, v->state.segment);
	struct tpd_predictor *p = &work_of(job, &m->state)->predictor;

	if (!is_float(sq) || elements_of(avg) != elements_of(sq) || avg->derived || sq->derived || m->elements != v->elements ||
	    !tpd_ingest_has_room_for(job, TPD_MANIFEST_WEIGHT_PREDICTOR))
		return;
	*p = (struct tpd_predictor){.segment = m->state.segment, .v_file = v->state.file, .v_segment = v->state.segment};
	p->terms = has_before(avg) && has_before(sq) ? TPD_TERM_SCALE | TPD_TERM_CAME_IN : TPD_TERM_SCALE;
}

static bool is_first_of(const struct tpd_tie *tie, enum tpd_state_kind kind)
{
	return tie->kind == kind && tie->state.first == 0;
}

static enum tpd_status offer_scales(struct tpd_ingest_job *job, struct tpd_err *err)
{
	const struct tpd_manifest *m = &job->manifest;
	TPD_AUTO_FREE const struct tpd_tie **squares = calloc(m->tie_count + 1u, sizeof(*squares));
	size_t count = 0;

	if (!squares)
		return tpd_fail_nomem(err);
	for (uint32_t t = 0; t < m->tie_count; t++)
		if (is_first_of(&m->ties[t], TPD_STATE_EXP_AVG_SQ))
			squares[count++] = &m->ties[t];
	qsort(squares, count, sizeof(*squares), compare_ties);
	for (uint32_t t = 0; t < m->tie_count; t++) {
		const struct tpd_tie *tie = &m->ties[t], *const *found;

		if (!is_first_of(tie, TPD_STATE_EXP_AVG) || !may_be_scaled(segment_of(job, tie->state.file, tie->state.segment)))
			continue;
		found = bsearch(&tie, squares, count, sizeof(*squares), compare_ties);
		if (found)
			offer_scale(job, tie, *found);
	}
	return TPD_OK;
}

/* --- all of them --- */

/* Moments are not predicted as weights are; a master copy is a weight. */
static bool is_state(const struct tpd_manifest *m, uint32_t file, uint32_t segment)
{
	uint32_t count = 0;
	const struct tpd_tie *ties = tpd_manifest_ties(m, file, segment, &count);

	for (uint32_t i = 0; i < count; i++)
		if (ties[i].kind != TPD_STATE_MASTER)
			return true;
	return false;
}

static void note_moments(struct tpd_ingest_job *job)
{
	const struct tpd_manifest *m = &job->manifest;

	for (uint32_t t = 0; t < m->tie_count; t++) {
		const struct tpd_tie *tie = &m->ties[t];
		struct tpd_segment_work *owner = work_of(job, &tie->owner);

		if (tie->kind != TPD_STATE_EXP_AVG && tie->kind != TPD_STATE_EXP_AVG_SQ)
			continue;
		work_of(job, &tie->state)->may_be_scaled = may_be_scaled(segment_of(job, tie->state.file, tie->state.segment));
		if (!is_whole(job, tie))
			continue;
		if (tie->kind == TPD_STATE_EXP_AVG) {
			owner->predictor.m_file = tie->state.file;
			owner->predictor.m_segment = tie->state.segment;
			owner->moments |= HAS_M;
		} else {
			owner->predictor.v_file = tie->state.file;
			owner->predictor.v_segment = tie->state.segment;
			owner->moments |= HAS_V;
		}
	}
}

enum tpd_status tpd_ingest_predict(struct tpd_ingest_job *job, struct tpd_err *err)
{
	const struct tpd_manifest *m = &job->manifest;
	enum tpd_status status;

	if (job->options->effort == TPD_EFFORT_FAST)
		return TPD_OK;
	note_moments(job);
	if (job->options->depend == TPD_DEPEND_NONE)
		return TPD_OK;
	if (!job->ref)
		return offer_scales(job, err);
	status = open_earlier(job, err);
	if (status)
		return status;
	for (uint32_t f = 0; f < m->file_count; f++) {
		const struct tpd_entry *entry = job->files[f].entry;

		for (uint32_t s = 1; s < entry->segment_count; s++) {
			const struct tpd_segment *seg = &entry->segments[s];
			struct tpd_segment_work *work = &job->files[f].segments[s];

			if (!may_be_predicted(seg) || is_state(m, f, s) ||
			    !tpd_ingest_has_room_for(job, TPD_MANIFEST_WEIGHT_PREDICTOR))
				continue;
			work->predictor.segment = s;
			work->predictor.terms = (uint8_t)terms_of(job, seg, &work->predictor, work->moments);
		}
	}
	return offer_scales(job, err);
}

size_t tpd_ingest_term_sets(const struct tpd_ingest_job *job, const struct tpd_segment_work *work, uint8_t sets[TPD_INGEST_TERM_SETS])
{
	const uint8_t terms = work->predictor.terms, weights = terms & (TPD_TERM_DECAY | TPD_TERM_STEP);
	size_t count = 0;

	if (terms)
		sets[count++] = terms;
	if (job->options->effort != TPD_EFFORT_MAX)
		return count;
	if (weights && weights != terms)
		sets[count++] = weights;
	if (terms & TPD_TERM_STEP && (terms & ~weights)) /* w0 costs more than it tells where little moves */
		sets[count++] = terms & (uint8_t)~TPD_TERM_STEP;
	if (terms & TPD_TERM_DECAY && weights != TPD_TERM_DECAY)
		sets[count++] = TPD_TERM_DECAY;
	return count;
}

static void name_earlier(struct tpd_ingest_job *job)
{
	const struct tpd_manifest *earlier = tpd_chain_manifest(job->earlier);

	job->manifest.has_earlier = true;
	job->manifest.earlier = earlier->id;
	job->manifest.earlier_step = earlier->step;
}

enum tpd_status tpd_ingest_name_predictors(struct tpd_ingest_job *job, struct tpd_err *err)
{
	enum tpd_status status = TPD_OK;

	for (uint32_t f = 0; f < job->manifest.file_count; f++) {
		struct tpd_file_work *file = &job->files[f];

		for (uint32_t s = 1; !status && s < file->entry->segment_count; s++) {
			const struct tpd_segment_work *work = &file->segments[s];
			struct tpd_predictor predictor = work->predictor;

			if (!tpd_encoding_takes_inputs(work->plan.encoding) || work->plan.terms == 0)
				continue;
			predictor.segment = s;
			predictor.terms = work->plan.terms;
			/* Which they may have let go of, since they were coded without. */
			if (predictor.terms & TPD_TERM_BEFORE)
				job->files[predictor.m_file].entry->segments[predictor.m_segment].has_ref = true;
			if (predictor.terms & (TPD_TERM_BEFORE | TPD_TERM_CAME_IN))
				job->files[predictor.v_file].entry->segments[predictor.v_segment].has_ref = true;
			if (predictor.terms & TPD_TERM_STEP)
				name_earlier(job);
			else
				predictor.w0_file = predictor.w0_segment = 0;
			if (!(predictor.terms & (TPD_TERM_BEFORE | TPD_TERM_NOW)))
				predictor.m_file = predictor.m_segment = 0;
			if (!(predictor.terms & (TPD_TERM_BEFORE | TPD_TERM_NOW | TPD_TERM_SCALE)))
				predictor.v_file = predictor.v_segment = 0;
			status = tpd_entry_predict(file->entry, &predictor, err);
		}
	}
	return status;
}

/* --- reading --- */

/* What a slot was read as in `input`, F32 from then on. */
static void widen(struct tpd_slot *slot, enum tpd_input input, enum tpd_dtype dtype)
{
	size_t *len = &slot->inputs.of[input].len;

	if (tpd_dtype_width(dtype) != 2)
		return;
	tpd_widen_in_place(slot->input[input], *len / 2, dtype == TPD_DTYPE_BF16);
	*len *= 2;
}

/* That of a moment of this checkpoint, or of the one before. */
static enum tpd_status read_moment(struct tpd_ingest_job *job, struct tpd_slot *slot, uint32_t file, uint32_t segment, bool before,
				   enum tpd_input input, unsigned worker, struct tpd_err *err)
{
	const struct tpd_segment *seg = segment_of(job, file, segment);
	size_t *len = &slot->inputs.of[input].len;
	enum tpd_status status;

	if (before) {
		status = tpd_ingest_read_before(job, file, segment, slot->chunk, worker, slot->input[input], len, err);
	} else {
		*len = tpd_segment_chunk_len(seg, slot->chunk);
		status = tpd_ingest_read_own(job, file, segment, slot->chunk, slot->input[input], err);
	}
	if (!status)
		widen(slot, input, seg->dtype);
	return status;
}

static enum tpd_status read_earlier(struct tpd_ingest_job *job, struct tpd_slot *slot, const struct tpd_predictor *p, unsigned worker,
				    struct tpd_err *err)
{
	enum tpd_status status = tpd_chain_read(job->earlier, job->chain_workers[worker], p->w0_file, p->w0_segment, slot->chunk,
						slot->input[TPD_INPUT_W0], &slot->inputs.of[TPD_INPUT_W0].len, err);

	if (!status)
		widen(slot, TPD_INPUT_W0, job->file->entry->segments[slot->segment].dtype);
	return status;
}

enum tpd_status tpd_ingest_read_inputs(struct tpd_ingest_job *job, struct tpd_slot *slot, unsigned terms, unsigned worker,
				       struct tpd_err *err)
{
	const struct tpd_predictor *p = &job->file->segments[slot->segment].predictor;
	const unsigned need = tpd_terms_need(terms);
	enum tpd_status status = TPD_OK;

	slot->inputs = (struct tpd_inputs){0};
	for (unsigned i = 0; !status && i < TPD_INPUT_COUNT; i++) {
		const enum tpd_input input = (enum tpd_input)i;

		if (!(need >> i & 1))
			continue;
		status = tpd_room(&slot->input[i], &slot->input_cap[i], tpd_chunk_bytes(TPD_DTYPE_F32), err);
		if (status)
			break;
		slot->inputs.of[i].data = slot->input[i];
		if (input == TPD_INPUT_W0)
			status = read_earlier(job, slot, p, worker, err);
		else if (input == TPD_INPUT_M1 || input == TPD_INPUT_M2)
			status = read_moment(job, slot, p->m_file, p->m_segment, input == TPD_INPUT_M1, input, worker, err);
		else
			status = read_moment(job, slot, p->v_file, p->v_segment, input == TPD_INPUT_V1, input, worker, err);
	}
	return status;
}
