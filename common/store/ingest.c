/*
 * ingest.c - one captured checkpoint into the store, from the choice of its reference to its publication.
 *
 *     known content, or what is left of one? ── yes ──► existed
 *        │ no
 *     parse ─► reference (an interrupted ingest's, an older version of this step if it is alike, the highest lower step, the
 *        │       lowest higher one; at the limit of what reading may take the chain's keyframe: an anchor)
 *     match ─► survey ─► anchor worth it? ─► encode ─► unchanged meanwhile? ─► publish
 *
 * Statistics are always against the highest lower step (w1), whatever the reference is.
 */
#include "base/tpd.h"

#include "store/ingest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "store/ingest_internal.h"
#include "store/manifest_internal.h"

/* An older version of the same step is the reference when it has at least this share of the bytes, by samples. */
#define LIKENESS_PERCENT 50u
/* One that took less than this part of its size is a copy, but for its file names and the like. */
#define NEAR_COPY_PART 64u

/* An anchor that does not save a tenth of a keyframe's bytes is made a keyframe instead; a reference to another run, if it saves nothing. */
#define ANCHOR_GAIN_PERCENT 90u
#define BASE_GAIN_PERCENT 99u

#define HASH_READ (8u << 20)

static void job_release(struct tpd_ingest_job *job)
{
	for (uint32_t f = 0; job->files && f < job->manifest.file_count; f++) {
		struct tpd_file_work *file = &job->files[f];

		for (uint32_t s = 0; file->segments && s < file->entry->segment_count; s++) {
			tpd_stats_free(file->segments[s].stats);
			free(file->segments[s].sample_x);
			free(file->segments[s].sample_p);
			free(file->segments[s].w1_slabs);
			for (unsigned i = 0; i < TPD_INPUT_COUNT; i++)
				free(file->segments[s].sample_inputs[i]);
		}
		free(file->segments);
		free(file->typed);
		free(file->part);
		free(file->marks);
	}
	free(job->files);
	tpd_chain_close(job->earlier);
	if (job->w1 != job->ref)
		tpd_chain_close(job->w1);
	tpd_chain_close(job->ref);
	for (unsigned t = 0; t < job->threads; t++) {
		if (job->chain_workers)
			tpd_chain_worker_free(job->chain_workers[t]);
		if (job->codecs)
			tpd_codec_free(job->codecs[t]);
	}
	free(job->chain_workers);
	free(job->codecs);
	for (size_t i = 0; job->slots && i < job->slot_count; i++) {
		free(job->slots[i].x);
		free(job->slots[i].p);
		free(job->slots[i].w1_buffer);
		free(job->slots[i].payload);
		free(job->slots[i].kept);
		free(job->slots[i].other);
		free(job->slots[i].sample);
		for (unsigned k = 0; k < TPD_INPUT_COUNT; k++)
			free(job->slots[i].input[k]);
	}
	free(job->slots);
	free(job->where);
	tpd_hasher_free(job->hasher);
	if (job->dir >= 0)
		tpd_store_io(job->store)->close(tpd_store_io(job->store), job->dir);
	tpd_manifest_release(&job->manifest);
}

static enum tpd_status start_workers(struct tpd_ingest_job *job, struct tpd_err *err)
{
	enum tpd_status status = tpd_hasher_new(&job->hasher, err);

	job->threads = tpd_pool_threads(job->options->pool);
	job->slot_count = (size_t)job->threads * TPD_INGEST_SLOTS_PER_THREAD;
	job->slots = calloc(job->slot_count, sizeof(*job->slots));
	job->codecs = calloc(job->threads, sizeof(*job->codecs));
	job->chain_workers = calloc(job->threads, sizeof(*job->chain_workers));
	if (!status && (!job->slots || !job->codecs || !job->chain_workers))
		status = tpd_fail_nomem(err);
	for (unsigned t = 0; !status && t < job->threads; t++) {
		status = tpd_codec_new(&job->codecs[t], err);
		if (!status)
			status = tpd_chain_worker_new(&job->chain_workers[t], err);
	}
	return status;
}

/* The manifest's entries from the source, still without segments. */
static enum tpd_status take_entries(struct tpd_ingest_job *job, const char *run, uint64_t step, struct tpd_err *err)
{
	const struct tpd_source *source = job->source;
	const char *origin = source->origin ? source->origin : "";
	struct tpd_manifest *m = &job->manifest;
	enum tpd_status status;
	uint32_t files = 0;

	if (step > TPD_STEP_MAX) /* no catalog could hold it */
		return tpd_fail(err, TPD_USAGE, "step %llu is more than 2^63 - 1", (unsigned long long)step);
	m->run = strdup(run);
	m->step = step;
	m->kind = source->kind;
	m->created_ns = job->options->now_ns;
	/* It is only for people, and to find the original again: a name that a manifest cannot hold keeps nothing out. */
	m->source = strdup(tpd_manifest_is_source(origin) ? origin : "");
	m->entries = calloc(source->count + 1, sizeof(*m->entries));
	m->files = calloc(source->count + 1, sizeof(*m->files));
	job->files = calloc(source->count + 1, sizeof(*job->files));
	if (!m->run || !m->source || !m->entries || !m->files || !job->files)
		return tpd_fail_nomem(err);
	if (source->count > UINT32_MAX / 2)
		return tpd_fail(err, TPD_LIMIT, "'%s' has too many entries", origin);
	for (size_t i = 0; i < source->count; i++) {
		const struct tpd_source_entry *from = &source->entries[i];
		struct tpd_entry *to = &m->entries[i];

		to->path = strdup(from->path);
		m->entry_count = (uint32_t)(i + 1);
		if (!to->path)
			return tpd_fail_nomem(err);
		to->type = from->type;
		to->mode = from->mode & 07777;
		to->mtime_ns = from->mtime_ns;
		if (from->type == TPD_ENTRY_SYMLINK) {
			to->target = strdup(from->target);
			if (!to->target)
				return tpd_fail_nomem(err);
		} else if (from->type == TPD_ENTRY_FILE) {
			to->size = from->size;
			job->total += 2 * from->size;
			m->files[files] = (uint32_t)i;
			job->files[files] = (struct tpd_file_work){.entry = to, .fd = from->fd, .origin = origin};
			m->file_count = ++files;
		}
	}
	if (m->file_count == 0)
		return tpd_fail(err, TPD_USAGE, "'%s' holds no regular file", origin);
	status = tpd_manifest_check_logical(m, TPD_USAGE, err); /* names that cannot be stored, before the work */
	if (status)
		tpd_err_prefix(err, "'%s'", origin);
	return status;
}

enum tpd_status tpd_ingest_check(const char *run, uint64_t step, const struct tpd_source *source, struct tpd_err *err)
{
	const struct tpd_ingest_options options = {0};
	struct tpd_ingest_job job = {.source = source, .options = &options, .dir = -1};
	enum tpd_status status = take_entries(&job, run, step, err);

	job_release(&job);
	return status;
}

bool tpd_ingest_lost_reference(enum tpd_status status)
{
	return status == TPD_CORRUPT || status == TPD_NOT_FOUND || status == TPD_MISSING_BASE || status == TPD_UNSUPPORTED ||
	       status == TPD_LIMIT;
}

/* Same names, types, modes, targets and sizes? */
static bool same_outline(const struct tpd_manifest *a, const struct tpd_manifest *b)
{
	if (a->kind != b->kind || a->entry_count != b->entry_count)
		return false;
	for (uint32_t i = 0; i < a->entry_count; i++) {
		const struct tpd_entry *x = &a->entries[i], *y = &b->entries[i];

		if (strcmp(x->path, y->path) != 0 || x->type != y->type || x->mode != y->mode || x->size != y->size ||
		    strcmp(x->target ? x->target : "", y->target ? y->target : "") != 0)
			return false;
	}
	return true;
}

/* SHA-256 of every file, with a word to the caller now and then: this may take minutes. */
static enum tpd_status hash_source(struct tpd_ingest_job *job, struct tpd_err *err)
{
	struct tpd_sha256 *sha = tpd_sha256_new();
	TPD_AUTO_FREE uint8_t *buffer = malloc(HASH_READ);
	enum tpd_status status = sha && buffer ? TPD_OK : tpd_fail_nomem(err);

	for (uint32_t f = 0; !status && f < job->manifest.file_count; f++) {
		const struct tpd_file_work *file = &job->files[f];

		for (uint64_t at = 0; !status && at < file->entry->size;) {
			size_t n = (size_t)TPD_MIN(file->entry->size - at, (uint64_t)HASH_READ);

			status = tpd_ingest_pread(file, buffer, n, at, err);
			if (!status)
				tpd_sha256_update(sha, buffer, n);
			at += n;
			if (!status)
				status = tpd_ingest_progress(job, 0, err);
		}
		if (!status)
			tpd_sha256_final(sha, file->entry->sha256);
	}
	tpd_sha256_free(sha);
	return status;
}

enum tpd_status tpd_ingest_read_version(struct tpd_ingest_job *job, const struct tpd_version *version, struct tpd_manifest *stored,
					bool *out_is_ours, struct tpd_err *err)
{
	enum tpd_status status;

	*out_is_ours = false;
	if (version->step != job->manifest.step || version->forgotten)
		return TPD_OK;
	status = tpd_store_manifest(job->store, &version->id, stored, err);
	*out_is_ours = !status;
	return tpd_ingest_lost_reference(status) ? TPD_OK : status;
}

bool tpd_ingest_is_there(struct tpd_ingest_job *job, const struct tpd_version *version, struct tpd_ingest_result *out)
{
	if (!tpd_store_sound(job->store, &version->id))
		return false;
	out->existed = true;
	out->id = version->id;
	out->version = version->version;
	return true;
}

/*
 * Does a version of this step with exactly this content exist, whole? Reads the source only when the outline fits. One that
 * is damaged does not count: storing the content again mends it.
 */
static enum tpd_status find_equal(struct tpd_ingest_job *job, const struct tpd_run *run, struct tpd_ingest_result *out,
				  struct tpd_err *err)
{
	bool hashed = false;

	out->existed = false;
	for (size_t v = 0; v < run->count; v++) {
		struct tpd_manifest stored;
		bool ours, same;
		enum tpd_status status = tpd_ingest_read_version(job, &run->versions[v], &stored, &ours, err);

		if (status)
			return status;
		if (!ours)
			continue;
		same = same_outline(&job->manifest, &stored);
		if (same && !hashed)
			status = hash_source(job, err);
		if (status) {
			tpd_manifest_release(&stored);
			return status;
		}
		hashed |= same;
		for (uint32_t f = 0; same && f < job->manifest.file_count; f++)
			same = memcmp(job->files[f].entry->sha256, stored.entries[stored.files[f]].sha256,
				      TPD_SHA256_LEN) == 0;
		tpd_manifest_release(&stored);
		job->mending |= same;
		if (same && tpd_ingest_is_there(job, &run->versions[v], out))
			return TPD_OK;
	}
	return TPD_OK;
}

/* The newest version of the highest step below `step`, or of the lowest one above it. */
static const struct tpd_version *neighbour(const struct tpd_run *run, uint64_t step, bool above)
{
	const struct tpd_version *best = NULL;

	for (size_t v = 0; v < run->count; v++) {
		const struct tpd_version *version = &run->versions[v];

		if (version->forgotten || version->step == step || (version->step > step) != above)
			continue;
		if (!best || (above ? version->step < best->step : version->step > best->step) || version->step == best->step)
			best = version;
	}
	return best;
}

static enum tpd_status use_held(struct tpd_chain *chain, const struct tpd_source *held, struct tpd_err *err)
{
	TPD_AUTO_FREE int *files = malloc((held->count + 1) * sizeof(*files));
	size_t count = 0;

	if (!files)
		return tpd_fail_nomem(err);
	for (size_t i = 0; i < held->count; i++)
		if (held->entries[i].type == TPD_ENTRY_FILE)
			files[count++] = held->entries[i].fd;
	tpd_chain_use_files(chain, files, count);
	return TPD_OK;
}

enum tpd_status tpd_ingest_open_reference(struct tpd_ingest_job *job, const struct tpd_id *id, struct tpd_chain **out, struct tpd_err *err)
{
	enum tpd_status status = tpd_chain_open(job->store, id, true, out, err);

	if (!status && !job->options->no_original && tpd_chain_manifest(*out)->source[0])
		tpd_chain_use_original(*out, tpd_chain_manifest(*out)->source);
	if (!status && job->options->tip) {
		TPD_AUTO_FREE char *copy = NULL;
		char hex[TPD_ID_HEX];

		tpd_id_hex(id, hex);
		if (asprintf(&copy, "%s/%s", job->options->tip, hex) < 0)
			copy = NULL;
		else
			tpd_chain_use_copy(*out, copy);
	}
	for (const struct tpd_source *source = job->source; !status && source->held; source = source->held)
		if (tpd_id_equal(&source->held_id, id))
			status = use_held(*out, source->held, err);
	if (status) {
		tpd_chain_close(*out);
		*out = NULL;
	}
	return status;
}

/* Is a checkpoint that is stored all but an earlier version of its step? */
static bool is_near_copy(const struct tpd_manifest *m)
{
	return m->has_ref && !m->ref_run && m->ref_step == m->step && tpd_manifest_stored(m) < tpd_manifest_size(m) / NEAR_COPY_PART;
}

/*
 * last.ckpt of the step of step=N.ckpt: what comes next refers to the first of them. The other would cost as little as a reference, but
 * each step would make the chain two links deeper.
 */
static enum tpd_status to_first_of_copies(struct tpd_ingest_job *job, const struct tpd_run *run, struct tpd_chain **chain,
					  struct tpd_err *err)
{
	while (is_near_copy(tpd_chain_manifest(*chain))) {
		const struct tpd_manifest *m = tpd_chain_manifest(*chain);
		struct tpd_chain *first = NULL;
		enum tpd_status status;
		bool named = false;

		for (size_t v = 0; v < run->count; v++)
			named |= !run->versions[v].forgotten && tpd_id_equal(&run->versions[v].id, &m->ref);
		if (!named)
			return TPD_OK;
		status = tpd_ingest_open_reference(job, &m->ref, &first, err);
		if (status)
			return status;
		tpd_chain_close(*chain);
		*chain = first;
	}
	return TPD_OK;
}

/* An older version of this step that is alike, when there is one. */
static enum tpd_status find_alike(struct tpd_ingest_job *job, const struct tpd_run *run, struct tpd_err *err)
{
	for (size_t v = run->count; v-- > 0 && !job->ref;) {
		const struct tpd_version *version = &run->versions[v];
		struct tpd_chain *chain = NULL;
		unsigned percent = 0;
		enum tpd_status status;

		if (version->step != job->manifest.step || version->forgotten)
			continue;
		status = tpd_ingest_open_reference(job, &version->id, &chain, err);
		if (!status)
			status = tpd_ingest_likeness(job, chain, &percent, err);
		if (!status && percent >= LIKENESS_PERCENT)
			job->ref = chain;
		else
			tpd_chain_close(chain);
		if (!status && job->ref)
			status = to_first_of_copies(job, run, &job->ref, err);
		if (status)
			return status;
	}
	return TPD_OK;
}

/* To that checkpoint instead of job->ref; NULL: to none. */
static enum tpd_status refer_to(struct tpd_ingest_job *job, const struct tpd_id *id, struct tpd_err *err)
{
	struct tpd_chain *chain = NULL;
	enum tpd_status status = TPD_OK;

	if (id && job->w1 && tpd_id_equal(&tpd_chain_manifest(job->w1)->id, id))
		chain = job->w1;
	else if (id)
		status = tpd_ingest_open_reference(job, id, &chain, err);
	if (job->ref != job->w1)
		tpd_chain_close(job->ref);
	job->ref = chain;
	return status;
}

/*
 * At the depth limit, or where tensors are cut so that it would take much to read them: an anchor, to the chain's keyframe, or to where the
 * run began in a chain of others.
 */
static enum tpd_status limit_reading(struct tpd_ingest_job *job, struct tpd_err *err)
{
	const uint32_t depth = tpd_chain_depth(job->ref);
	uint32_t last = 0, link;
	struct tpd_id anchor, keyframe;
	bool costly = depth >= job->options->max_depth;
	enum tpd_status status = TPD_OK;

	if (!costly && depth > 0)
		status = tpd_ingest_is_costly(job, job->ref, &costly, err);
	if (status || !costly)
		return status;
	if (job->options->max_depth == 0)
		return refer_to(job, NULL, err);
	while (tpd_chain_below(job->ref, last, &link))
		last = link;
	link = tpd_ingest_anchor_link(job);
	keyframe = tpd_chain_link(job->ref, last)->id;
	anchor = tpd_chain_link(job->ref, link)->id;
	job->anchoring = true;
	status = refer_to(job, &anchor, err);
	if (!status && link != last) {
		status = tpd_ingest_is_costly(job, job->ref, &costly, err);
		if (!status && costly)
			status = refer_to(job, &keyframe, err);
	}
	return status;
}

/* Fill job->w1 and job->ref. */
static enum tpd_status choose_references(struct tpd_ingest_job *job, const struct tpd_run *run, struct tpd_err *err)
{
	const struct tpd_version *below = neighbour(run, job->manifest.step, false);
	const struct tpd_version *above = neighbour(run, job->manifest.step, true);
	struct tpd_begin begin = {0};
	bool resumed = false;
	enum tpd_status status;

	if (job->alone)
		return tpd_store_ingest_discard(job->lock, job->manifest.step, err);
	if (job->mending) {
		status = tpd_store_ingest_discard(job->lock, job->manifest.step, err);
		return status || !below ? status : tpd_ingest_open_reference(job, &below->id, &job->w1, err);
	}
	status = tpd_store_ingest_peek(job->lock, job->manifest.step, &resumed, &begin, err);

	if (status)
		return status;
	if (resumed && (begin.has_w1 ? tpd_store_has(job->store, &begin.w1) : below == NULL) &&
	    (!begin.has_ref || tpd_store_has(job->store, &begin.ref))) {
		job->ref_fixed = true;
		job->based = begin.has_ref;
		job->begin = begin;
		if (begin.has_w1)
			status = tpd_ingest_open_reference(job, &begin.w1, &job->w1, err);
		if (!status && begin.has_ref && begin.has_w1 && tpd_id_equal(&begin.ref, &begin.w1))
			job->ref = job->w1;
		else if (!status && begin.has_ref)
			status = tpd_ingest_open_reference(job, &begin.ref, &job->ref, err);
		return status;
	}
	if (resumed)
		status = tpd_store_ingest_discard(job->lock, job->manifest.step, err);
	if (!status && below)
		status = tpd_ingest_open_reference(job, &below->id, &job->w1, err);
	if (!status && below)
		status = to_first_of_copies(job, run, &job->w1, err);
	if (!status)
		status = find_alike(job, run, err);
	if (!status && !job->ref)
		job->ref = job->w1;
	if (!status && !job->ref && above)
		status = tpd_ingest_open_reference(job, &above->id, &job->ref, err);
	if (!status && job->ref)
		status = limit_reading(job, err);
	else if (!status)
		status = tpd_ingest_lineage(job, err);
	return status;
}

/* Take the reference away from every segment, and take the plans that do without. */
static void make_keyframe(struct tpd_ingest_job *job)
{
	for (uint32_t f = 0; f < job->manifest.file_count; f++) {
		struct tpd_file_work *file = &job->files[f];

		for (uint32_t s = 0; s < file->entry->segment_count; s++) {
			if (file->entry->segments[s].derived)
				continue;
			file->entry->segments[s].has_ref = false;
			file->segments[s].plan = file->segments[s].plan_alone;
		}
	}
	if (job->ref != job->w1)
		tpd_chain_close(job->ref);
	job->ref = NULL;
}

/* After the survey: is the reference worth having? Segments whose plan needs none let go of it. */
static void weigh_reference(struct tpd_ingest_job *job)
{
	double with = 0, alone = 0;
	bool used = false;

	if (!job->ref)
		return;
	for (uint32_t f = 0; f < job->manifest.file_count; f++) {
		struct tpd_file_work *file = &job->files[f];

		for (uint32_t s = 0; s < file->entry->segment_count; s++) {
			struct tpd_segment *seg = &file->entry->segments[s];
			const struct tpd_segment_work *work = &file->segments[s];

			if (seg->derived && !tpd_encoding_needs_reference(work->plan.encoding))
				seg->has_ref = seg->derived = false;
			if (work->sample_bytes == 0 || seg->derived)
				continue;
			with += (double)work->cost * (double)seg->length / (double)work->sample_bytes;
			alone += (double)work->cost_alone * (double)seg->length / (double)work->sample_bytes;
			if (!tpd_encoding_needs_reference(work->plan.encoding))
				seg->has_ref = false;
			used |= seg->has_ref;
		}
	}
	if (job->ref_fixed)
		return;
	if (!used || (job->anchoring && with * 100 > alone * (job->based ? BASE_GAIN_PERCENT : ANCHOR_GAIN_PERCENT)))
		make_keyframe(job);
}

static enum tpd_status name_references(struct tpd_ingest_job *job, struct tpd_err *err)
{
	struct tpd_manifest *m = &job->manifest;

	m->has_ref = job->ref != NULL;
	if (job->ref) {
		const struct tpd_manifest *ref = tpd_chain_manifest(job->ref);

		m->ref = ref->id;
		m->ref_step = ref->step;
		m->depth = tpd_chain_depth(job->ref) + 1;
		if (strcmp(ref->run, m->run) != 0) {
			m->ref_run = strdup(ref->run);
			if (!m->ref_run)
				return tpd_fail_nomem(err);
		}
	}
	m->has_w1 = job->w1 != NULL;
	if (job->w1) {
		m->w1 = tpd_chain_manifest(job->w1)->id;
		m->w1_step = tpd_chain_manifest(job->w1)->step;
	}
	return TPD_OK;
}

static enum tpd_status open_unfinished(struct tpd_ingest_job *job, struct tpd_err *err)
{
	const struct tpd_manifest *m = &job->manifest;
	uint64_t part_size = job->options->part_size ? job->options->part_size : TPD_DEFAULT_PART_SIZE;
	struct tpd_begin wanted = {.has_ref = m->has_ref, .has_w1 = m->has_w1, .ref = m->ref, .w1 = m->w1,
				   .part_size = job->ref_fixed ? job->begin.part_size : TPD_MIN(part_size, TPD_PART_MAX)};
	char path[TPD_INGEST_PATH];
	bool resumed;

	tpd_store_ingest_path(job->lock, m->step, path);
	if (asprintf(&job->where, "%s/%s", tpd_store_path(job->store), path) < 0) {
		job->where = NULL;
		return tpd_fail_nomem(err);
	}
	return tpd_store_ingest_open(job->lock, m->step, &wanted, &job->begin, &resumed, &job->dir, err);
}

/*
 * What was told of the source, for the checkpoint of this id. Of one that exists already: unless the source changed since
 * it was asked.
 */
static enum tpd_status add_metrics(struct tpd_ingest_job *job, const struct tpd_id *id, bool existed, struct tpd_err *err)
{
	const struct tpd_source *source = job->source;

	if (!job->options->metrics || (existed && source->check && source->check(source->check_arg, NULL) != TPD_OK))
		return TPD_OK;
	return tpd_store_add_metrics(job->lock, id, job->options->metrics, err);
}

static enum tpd_status work(struct tpd_ingest_job *job, const struct tpd_run *run, struct tpd_ingest_result *out,
			    struct tpd_err *err)
{
	enum tpd_status status = find_equal(job, run, out, err);

	if (!status && out->existed)
		return add_metrics(job, &out->id, true, err);
	if (!status && job->options->skip_remnants)
		status = tpd_ingest_find_whole(job, run, out, err);
	if (status || out->existed)
		return status;
	status = tpd_ingest_parse(job, err);
	if (!status)
		status = choose_references(job, run, err);
	if (!status)
		status = tpd_ingest_match(job, err);
	if (!status)
		status = tpd_ingest_ties(job, err);
	if (!status)
		status = tpd_ingest_derive(job, err);
	if (!status)
		status = tpd_ingest_predict(job, err);
	if (!status)
		status = tpd_ingest_repeats(job, err);
	if (!status)
		status = tpd_ingest_survey(job, err);
	if (!status)
		status = tpd_ingest_take_twins(job, err);
	if (status)
		return status;
	weigh_reference(job);
	status = name_references(job, err);
	if (!status)
		status = tpd_ingest_name_predictors(job, err);
	if (!status)
		status = open_unfinished(job, err);
	if (!status)
		status = tpd_ingest_encode(job, err);
	if (!status && job->source->check)
		status = job->source->check(job->source->check_arg, err);
	if (!status)
		status = tpd_manifest_seal(&job->manifest, err);
	if (!status)
		status = add_metrics(job, &job->manifest.id, false, err);
	if (!status)
		status = tpd_store_publish(job->lock, &job->manifest, &out->version, err);
	if (status)
		return status;
	out->id = job->manifest.id;
	for (size_t v = 0; v < run->count; v++)
		out->repaired |= !run->versions[v].forgotten && tpd_id_equal(&run->versions[v].id, &out->id);
	out->near_copy = is_near_copy(&job->manifest);
	out->parts_reused = job->parts_reused;
	out->base_fault = job->base_fault;
	return TPD_OK;
}

static enum tpd_status ingest_once(struct tpd_run_lock *lock, const char *run, uint64_t step, const struct tpd_source *source,
			   const struct tpd_ingest_options *options, bool alone, bool *out_referred, bool *out_based,
			   struct tpd_ingest_result *out, struct tpd_err *err)
{
	struct tpd_ingest_job job = {.lock = lock, .store = tpd_run_lock_store(lock), .source = source, .options = options,
				     .dir = -1, .alone = alone};
	struct tpd_ingest_result result = {0};
	struct tpd_run versions = {0};
	enum tpd_status status = take_entries(&job, run, step, err);

	if (!status)
		status = tpd_store_run_read(job.store, run, &versions, err);
	if (!status)
		status = start_workers(&job, err);
	if (!status)
		status = work(&job, &versions, &result, err);
	*out_referred = versions.count > 0 || job.based;
	*out_based = job.based;
	tpd_run_release(&versions);
	job_release(&job);
	if (!status)
		*out = result;
	return status;
}

enum tpd_status tpd_ingest(struct tpd_run_lock *lock, const char *run, uint64_t step, const struct tpd_source *source,
			   const struct tpd_ingest_options *options, struct tpd_ingest_result *out, struct tpd_err *err)
{
	struct tpd_err fault = {0};
	bool referred = false, based = false, ignored;
	enum tpd_status status = ingest_once(lock, run, step, source, options, false, &referred, &based, out, &fault);

	/* An older checkpoint that is damaged must not keep new ones out: this one stands alone then. */
	if (tpd_ingest_lost_reference(status) && referred) {
		status = ingest_once(lock, run, step, source, options, true, &referred, &ignored, out, err);
		if (!status && based && options->base == TPD_BASE_GIVEN)
			out->base_fault = fault;
		else if (!status && !out->existed)
			out->reference_fault = fault;
		return status;
	}
	if (status && err)
		*err = fault;
	return status;
}
