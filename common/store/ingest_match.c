/*
 * ingest_match.c - what a file is made of, and what of an earlier checkpoint belongs to it.
 *
 * Files are matched by path, else by role: their path with every run of digits that says the step taken out ("global_step20/x" and
 * "global_step40/x" are one role); the only file of a single-file checkpoint has the role of the other's only file. Tensors are
 * matched by name, within matched files or in any other (ingest_names.c), and must agree in type and length; parts of tensors that
 * were cut differently are put together (ingest_boxes.c); what finds no partner may find one of another float type, or starts afresh.
 */
#include "base/tpd.h"

#include "store/ingest_internal.h"
#include "store/manifest_internal.h"

#include <stdlib.h>
#include <string.h>

/* Smallest opaque file whose words are worth a guess at their type. */
#define GUESS_MIN 4096u
/* Chunks of a file that are compared to find out whether it is stored already under another name. */
#define SAMPLES 16u
/* A tensor of which less than this share is known from an earlier checkpoint starts afresh. */
#define REFERENCE_PERCENT 50u
/* Tensors from one look at whether to go on to the next. */
#define PAUSE 256u
/* What parts may weigh: at the usual size of a part, 80 TB of them. */
#define PARTS_WEIGHT (16u << 20)

struct role {
	char *text;
	uint32_t file;
};

struct roles {
	struct role *items; /* sorted by text */
	uint32_t count;
};

static int role_compare(const void *a, const void *b)
{
	return strcmp(((const struct role *)a)->text, ((const struct role *)b)->text);
}

static void roles_release(struct roles *roles)
{
	for (uint32_t i = 0; i < roles->count; i++)
		free(roles->items[i].text);
	free(roles->items);
	*roles = (struct roles){0};
}

static enum tpd_status roles_make(const struct tpd_manifest *m, struct roles *out, struct tpd_err *err)
{
	struct roles roles = {.items = calloc(m->file_count + 1u, sizeof(struct role))};

	if (!roles.items)
		return tpd_fail_nomem(err);
	for (uint32_t f = 0; f < m->file_count; f++) {
		const char *path = m->entries[m->files[f]].path;

		roles.items[f] = (struct role){
			.text = m->kind == TPD_CHECKPOINT_FILE ? strdup("") : tpd_ingest_role(path, strlen(path), m->step),
			.file = f,
		};
		if (!roles.items[f].text) {
			roles_release(&roles);
			return tpd_fail_nomem(err);
		}
		roles.count++;
	}
	qsort(roles.items, roles.count, sizeof(struct role), role_compare);
	*out = roles;
	return TPD_OK;
}

static bool roles_find(const struct roles *roles, const char *text, uint32_t *out_file)
{
	const struct role key = {.text = (char *)(uintptr_t)text};
	const struct role *found;

	if (roles->count == 0)
		return false;
	found = bsearch(&key, roles->items, roles->count, sizeof(key), role_compare);
	if (!found)
		return false;
	*out_file = found->file;
	return true;
}

static enum tpd_status read_source(void *ctx, void *buf, size_t len, uint64_t offset, struct tpd_err *err)
{
	return tpd_ingest_pread(ctx, buf, len, offset, err);
}

bool tpd_ingest_has_room_for(struct tpd_ingest_job *job, uint64_t weight)
{
	if (weight > TPD_MANIFEST_WEIGHT_MAX - TPD_MIN(job->weight, TPD_MANIFEST_WEIGHT_MAX))
		return false;
	job->weight += weight;
	return true;
}

/*
 * Can the manifest hold these tensors too? Where it cannot, the file is stored as one piece: less is saved, and nothing
 * refused at the very end.
 */
static bool has_room(struct tpd_ingest_job *job, const struct tpd_format_layout *layout)
{
	uint64_t weight = 0;

	for (size_t i = 0; i < layout->count; i++)
		weight += TPD_MANIFEST_WEIGHT_SEGMENT + TPD_MANIFEST_WEIGHT_STATS + strlen(layout->segments[i].name);
	return tpd_ingest_has_room_for(job, weight);
}

/* What entries, glue and parts weigh, before any tensor. */
static enum tpd_status weigh_files(struct tpd_ingest_job *job, struct tpd_err *err)
{
	const struct tpd_manifest *m = &job->manifest;

	job->weight = PARTS_WEIGHT;
	for (uint32_t i = 0; i < m->entry_count; i++)
		job->weight += tpd_entry_weight(&m->entries[i]) + TPD_MANIFEST_WEIGHT_SEGMENT + TPD_MANIFEST_WEIGHT_STATS;
	if (job->weight > TPD_MANIFEST_WEIGHT_MAX)
		return tpd_fail(err, TPD_LIMIT, "the checkpoint has too many entries, or too long ones");
	return TPD_OK;
}

/* Takes the segments' names over. */
static void take_segments(struct tpd_entry *entry, struct tpd_format_layout *layout, bool *typed, bool *part)
{
	entry->segments[0].length = entry->size;
	for (size_t i = 0; i < layout->count; i++) {
		struct tpd_format_segment *from = &layout->segments[i];
		struct tpd_segment_about *about = &entry->about[i + 1];

		entry->segments[i + 1] = (struct tpd_segment){
			.dtype = from->typed ? from->dtype : TPD_DTYPE_BYTES,
			.offset = from->offset,
			.length = from->length,
		};
		about->name = from->name;
		from->name = NULL;
		about->ndim = from->ndim;
		memcpy(about->dims, from->dims, sizeof(about->dims));
		typed[i + 1] = from->typed;
		part[i + 1] = from->part;
		entry->segments[0].length -= from->length;
	}
	entry->segments[0].dtype = TPD_DTYPE_BYTES;
	entry->segment_count = (uint32_t)(layout->count + 1);
}

/* Segments of one file as its format has them; what has no type is BYTES for now. */
static enum tpd_status parse_file(struct tpd_ingest_job *job, struct tpd_file_work *file, const struct tpd_format_hints *hints,
				  struct tpd_err *err)
{
	struct tpd_entry *entry = file->entry;
	struct tpd_format_layout layout;
	enum tpd_status status = tpd_format_parse(entry->path, entry->size, read_source, file, hints, &layout, err);
	bool *typed, *part;

	if (status)
		return status;
	if (!has_room(job, &layout)) {
		tpd_format_layout_release(&layout);
		layout = (struct tpd_format_layout){.kind = TPD_FORMAT_OPAQUE};
	}
	entry->format = layout.kind;
	entry->segments = calloc(layout.count + 1, sizeof(*entry->segments));
	entry->about = calloc(layout.count + 1, sizeof(*entry->about));
	typed = calloc(layout.count + 1, sizeof(*typed));
	part = calloc(layout.count + 1, sizeof(*part));
	if (entry->about)
		entry->about[0].name = strdup("");
	if (entry->segments && entry->about && entry->about[0].name && typed && part) {
		take_segments(entry, &layout, typed, part);
		typed[0] = layout.count > 0 || entry->size < GUESS_MIN; /* glue between tensors is bytes */
		file->typed = typed;
		file->part = part;
	} else {
		entry->segment_count = entry->about != NULL; /* what release has to look at */
		free(typed);
		free(part);
		status = tpd_fail_nomem(err);
	}
	tpd_format_layout_release(&layout);
	return status;
}

/* Read a sample of a segment laid out for 4-byte words and let the codec say what it is. */
static enum tpd_status guess(struct tpd_ingest_job *job, struct tpd_file_work *file, struct tpd_segment *seg, struct tpd_err *err)
{
	uint64_t words = seg->length / 4;
	size_t len = words <= TPD_SAMPLE_ELEMENTS ? (size_t)words * 4 : TPD_SAMPLE_STRETCHES * TPD_SAMPLE_STRETCH_ELEMENTS * 4u;
	TPD_AUTO_FREE uint8_t *bytes = malloc(len + 1);
	struct tpd_sample sample = {.x = bytes, .len = len, .stretch = len};
	enum tpd_status status = TPD_OK;

	if (!bytes)
		return tpd_fail_nomem(err);
	if (len == 0)
		return TPD_OK;
	if (words <= TPD_SAMPLE_ELEMENTS) {
		status = tpd_ingest_pread(file, bytes, len, seg->offset, err);
	} else {
		sample.stretch = TPD_SAMPLE_STRETCH_ELEMENTS * 4u;
		for (uint64_t i = 0; !status && i < TPD_SAMPLE_STRETCHES; i++)
			status = tpd_ingest_pread(file, bytes + i * sample.stretch, sample.stretch,
						  seg->offset + i * (words - TPD_SAMPLE_STRETCH_ELEMENTS) /
								  (TPD_SAMPLE_STRETCHES - 1) * 4,
						  err);
	}
	return status ? status : tpd_plan_guess_dtype(job->codecs[0], &sample, &seg->dtype, err);
}

/* An earlier checkpoint, and what in it belongs to the file in work. */
struct earlier {
	struct tpd_chain *chain; /* NULL: none */
	struct roles roles;
	struct tpd_ingest_directories directories;
	struct tpd_ingest_names names;
	struct tpd_ingest_boxes *boxes; /* made when they are first asked for */
	uint64_t derived;               /* of tpd_ingest_cost(); 0: not asked for yet */
	struct tpd_ingest_renaming renaming;
	/* of the file in work */
	const struct tpd_entry *entry; /* of the same role; NULL: none */
	uint32_t file, directory;      /* TPD_INGEST_NOWHERE: none */
};

static enum tpd_status earlier_make(struct tpd_chain *chain, struct earlier *out, struct tpd_err *err)
{
	enum tpd_status status;

	out->chain = chain;
	if (!chain)
		return TPD_OK;
	status = roles_make(tpd_chain_manifest(chain), &out->roles, err);
	if (!status)
		status = tpd_ingest_directories_make(tpd_chain_manifest(chain), &out->directories, err);
	return status ? status : tpd_ingest_names_make(tpd_chain_manifest(chain), &out->directories, &out->names, err);
}

static void earlier_release(struct earlier *earlier)
{
	roles_release(&earlier->roles);
	tpd_ingest_directories_release(&earlier->directories);
	tpd_ingest_names_release(&earlier->names);
	tpd_ingest_boxes_free(earlier->boxes);
	*earlier = (struct earlier){0};
}

/* The file of this very path; rank_100 of step 100 would have another role in step 200. */
static bool find_path(const struct tpd_manifest *m, const char *path, uint32_t *out_file)
{
	uint32_t low = 0, high = m->file_count;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		int order = strcmp(m->entries[m->files[middle]].path, path);

		if (order == 0) {
			*out_file = middle;
			return true;
		}
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return false;
}

/* What in the earlier checkpoint is this file of the job: of the same path, else of the same role; and where its directory is. */
static enum tpd_status find_partner(struct earlier *earlier, const struct tpd_ingest_job *job, const struct role *role, struct tpd_err *err)
{
	const struct tpd_manifest *m, *own = &job->manifest;

	earlier->entry = NULL;
	earlier->file = earlier->directory = TPD_INGEST_NOWHERE;
	if (!earlier->chain)
		return TPD_OK;
	m = tpd_chain_manifest(earlier->chain);
	if ((own->kind != TPD_CHECKPOINT_FILE && find_path(m, own->entries[own->files[role->file]].path, &earlier->file)) ||
	    roles_find(&earlier->roles, role->text, &earlier->file))
		earlier->entry = &m->entries[m->files[earlier->file]];
	return tpd_ingest_directories_find(&earlier->directories, own, role->file, &earlier->directory, err);
}

static bool same_shape(const struct tpd_segment_about *a, const struct tpd_segment_about *b)
{
	return a->ndim == b->ndim && memcmp(a->dims, b->dims, a->ndim * sizeof(a->dims[0])) == 0;
}

/* The segment there that belongs to segment s of the file in work; NULL: none. */
static const struct tpd_segment *counterpart(const struct earlier *earlier, const struct tpd_file_work *file, uint32_t s,
					     uint32_t *out_file, uint32_t *out_segment)
{
	const struct tpd_entry *entry = file->entry;
	const struct tpd_segment_about *about = &entry->about[s];
	const struct tpd_manifest *m;
	const struct tpd_entry *there;

	*out_file = *out_segment = 0;
	if (s == 0) { /* the glue of the same file, of whatever length */
		*out_file = earlier->entry ? earlier->file : 0;
		return earlier->entry ? &earlier->entry->segments[0] : NULL;
	}
	if (!tpd_ingest_names_find(&earlier->names, entry->about[s].name, earlier->file, earlier->directory, &entry->segments[s],
				   file->typed[s], out_file, out_segment))
		return NULL;
	m = tpd_chain_manifest(earlier->chain);
	there = &m->entries[m->files[*out_file]];
	/* A part that begins where it did and is as long may have other rows. */
	if (file->part[s] && !same_shape(about, &there->about[*out_segment]))
		return NULL;
	return &there->segments[*out_segment];
}

/* What a tensor that has no counterpart there has in common with its parts. */
static enum tpd_status find_cut(struct earlier *earlier, const struct tpd_file_work *file, uint32_t s, struct tpd_ingest_cut *out,
				struct tpd_err *err)
{
	enum tpd_status status = TPD_OK;

	out->count = 0;
	if (!earlier->chain || s == 0 || !file->typed[s])
		return TPD_OK;
	if (!earlier->boxes)
		status = tpd_ingest_boxes_make(earlier->chain, &earlier->directories, &earlier->boxes, err);
	if (!status)
		status = tpd_ingest_boxes_find(earlier->boxes, &file->entry->segments[s], &file->entry->about[s], file->part[s],
					       earlier->directory, out, err);
	return status;
}

/* Is enough of the tensor known for a reference, and can it be read? */
static bool is_reference(const struct earlier *ref, const struct tpd_segment *seg, const struct tpd_ingest_cut *cut)
{
	const uint64_t elements = seg->length / tpd_dtype_width(seg->dtype);

	return cut->count > 0 && cut->elements >= elements - elements / 100 * (100 - REFERENCE_PERCENT) &&
	       tpd_ingest_cost_fits(tpd_ingest_boxes_cost(ref->boxes), cut->cost.most, tpd_chunk_bytes(seg->dtype));
}

/* Statistics are not worth minutes of decoding: may w1 be put together for them, since it can be read as it is or takes no more than others? */
static bool is_at_hand(const struct tpd_ingest_job *job, const struct earlier *w1, const struct tpd_segment *seg,
		       const struct tpd_ingest_cut *cut)
{
	return tpd_chain_has_raw(w1->chain, cut->slabs[0].file) ||
	       tpd_ingest_replay(tpd_ingest_boxes_cost(w1->boxes), cut->cost.reads, tpd_segment_chunks(seg)) <=
		       tpd_ingest_replay_max(job->options->max_depth);
}

/* Parts of several tensors for one that has no counterpart: as the reference, and as w1 where they are all of it. */
static enum tpd_status match_cut(struct tpd_ingest_job *job, struct tpd_file_work *file, uint32_t s, struct earlier *ref,
				 struct earlier *w1, bool in_w1, struct tpd_err *err)
{
	const struct tpd_segment *seg = &file->entry->segments[s];
	struct tpd_segment_work *work = &file->segments[s];
	const bool both = ref->chain == w1->chain, alone = !seg->has_ref;
	struct tpd_ingest_cut cut;
	enum tpd_status status = TPD_OK;

	cut.count = 0; /* and not the whole of it for each of a million tensors */
	if (alone)
		status = find_cut(ref, file, s, &cut, err);
	if (!status && alone && is_reference(ref, seg, &cut) &&
	    tpd_ingest_has_room_for(job, (uint64_t)cut.count * TPD_MANIFEST_WEIGHT_SLAB))
		status = tpd_entry_refer(file->entry, s, cut.slabs, cut.count, false, err);
	if (status || in_w1 || !tpd_dtype_has_stats(seg->dtype))
		return status;
	if (!both)
		status = find_cut(w1, file, s, &cut, err);
	if (status || cut.count == 0 || cut.elements < seg->length / tpd_dtype_width(seg->dtype) || !is_at_hand(job, both ? ref : w1, seg, &cut))
		return status;
	work->w1_slabs = malloc(cut.count * sizeof(*cut.slabs));
	if (!work->w1_slabs)
		return tpd_fail_nomem(err);
	memcpy(work->w1_slabs, cut.slabs, cut.count * sizeof(*cut.slabs));
	work->w1_slab_count = cut.count;
	work->has_w1 = true;
	return TPD_OK;
}

/*
 * The tensor of the same name and elements, of another float type; of another run, also of a name that only begins otherwise. Another
 * type only where no chunk there is derived from several: such a step may be on the way down here as well, and there may be one.
 */
static enum tpd_status match_other(struct tpd_ingest_job *job, struct tpd_file_work *file, uint32_t s, struct earlier *ref,
				   struct tpd_err *err)
{
	struct tpd_segment *seg = &file->entry->segments[s];
	struct tpd_slab slab = {.count = 1, .block = seg->length / tpd_dtype_width(seg->dtype)};
	const char *name = file->entry->about[s].name;
	bool found, other = true;
	enum tpd_status status;

	if (!ref->chain || s == 0 || seg->has_ref || !file->typed[s] || file->part[s])
		return TPD_OK;
	found = tpd_ingest_names_find_other(&ref->names, name, ref->file, ref->directory, seg, &slab.file, &slab.segment);
	if (!found && strcmp(tpd_chain_manifest(ref->chain)->run, job->manifest.run) != 0)
		found = tpd_ingest_names_find_alike(&ref->names, &ref->renaming, name, ref->file, ref->directory, seg, &other, &slab.file,
						    &slab.segment);
	if (found && !other) {
		seg->has_ref = true;
		seg->ref_file = slab.file;
		seg->ref_segment = slab.segment;
	}
	if (!found || !other)
		return TPD_OK;
	if (ref->derived == 0)
		ref->derived = tpd_ingest_cost(ref->chain).derived;
	if (ref->derived > 1 || !tpd_ingest_has_room_for(job, TPD_MANIFEST_WEIGHT_SLAB))
		return TPD_OK;
	status = tpd_entry_refer(file->entry, s, &slab, 1, false, err);
	if (!status)
		seg->converted = true;
	return status;
}

/* A word to the caller before segment s: a checkpoint may have a million of them. */
static enum tpd_status pause_at(struct tpd_ingest_job *job, uint32_t s, struct tpd_err *err)
{
	return s % PAUSE == 0 ? tpd_ingest_progress(job, 0, err) : TPD_OK;
}

/* Row lengths, types of what is untyped, and the partners in the reference and in w1. */
static enum tpd_status match_file(struct tpd_ingest_job *job, struct tpd_file_work *file, struct earlier *ref,
				  struct earlier *w1, struct tpd_err *err)
{
	struct tpd_entry *entry = file->entry;
	const bool *typed = file->typed;
	uint64_t chunks = 0;

	for (uint32_t s = 0; s < entry->segment_count; s++) {
		struct tpd_segment *seg = &entry->segments[s];
		struct tpd_segment_about *about = &entry->about[s];
		struct tpd_segment_work *work = &file->segments[s];
		uint32_t ref_file, ref_segment;
		const struct tpd_segment *in_ref = counterpart(ref, file, s, &ref_file, &ref_segment);
		const struct tpd_segment *in_w1 = counterpart(w1, file, s, &work->w1_file, &work->w1_segment);
		enum tpd_status status = pause_at(job, s, err);

		if (!status && !typed[s]) { /* a type is inherited along the chain */
			if (in_ref && in_ref->length == seg->length)
				seg->dtype = in_ref->dtype;
			else if (in_w1 && in_w1->length == seg->length)
				seg->dtype = in_w1->dtype;
			else
				status = guess(job, file, seg, err);
		}
		if (status)
			return status;
		seg->first_chunk = chunks;
		chunks += tpd_segment_chunks(seg);
		about->row = tpd_format_row(about->ndim, about->dims, seg->length / tpd_dtype_width(seg->dtype));
		seg->has_ref = in_ref && seg->length > 0 && in_ref->length > 0 && in_ref->dtype == seg->dtype;
		seg->ref_file = ref_file;
		seg->ref_segment = ref_segment;
		/* Statistics are of tensors: what a file without any looks like says nothing to anybody. */
		work->has_w1 = s > 0 && in_w1 && tpd_dtype_has_stats(seg->dtype) && in_w1->dtype == seg->dtype;
		status = match_cut(job, file, s, ref, w1, work->has_w1, err);
		if (!status)
			status = match_other(job, file, s, ref, err);
		if (status)
			return status;
	}
	return TPD_OK;
}

/* What files say of others has to be known before any is parsed. *out_hints is the caller's to free, also on failure. */
static enum tpd_status read_hints(struct tpd_ingest_job *job, struct tpd_format_hints **out_hints, struct tpd_err *err)
{
	enum tpd_status status = TPD_OK;

	*out_hints = tpd_format_hints_new(err);
	if (!*out_hints)
		return TPD_NOMEM;
	for (uint32_t i = 0; !status && i < job->manifest.file_count; i++) {
		struct tpd_file_work *file = &job->files[i];

		status = tpd_format_hints_read(*out_hints, file->entry->path, file->entry->size, read_source, file, err);
	}
	return status;
}

enum tpd_status tpd_ingest_parse(struct tpd_ingest_job *job, struct tpd_err *err)
{
	struct tpd_format_hints *hints = NULL;
	struct roles own = {0};
	enum tpd_status status = weigh_files(job, err);

	if (!status)
		status = read_hints(job, &hints, err);
	if (!status)
		status = roles_make(&job->manifest, &own, err);
	for (uint32_t i = 0; !status && i < own.count; i++) {
		struct tpd_file_work *file = &job->files[own.items[i].file];

		status = parse_file(job, file, hints, err);
		if (!status) {
			file->segments = calloc(file->entry->segment_count, sizeof(*file->segments));
			if (!file->segments)
				status = tpd_fail_nomem(err);
		}
	}
	tpd_format_hints_free(hints);
	roles_release(&own);
	return status;
}

enum tpd_status tpd_ingest_match(struct tpd_ingest_job *job, struct tpd_err *err)
{
	struct earlier ref = {0}, w1 = {0};
	struct roles own = {0};
	enum tpd_status status = roles_make(&job->manifest, &own, err);

	if (!status)
		status = earlier_make(job->ref, &ref, err);
	if (!status)
		status = earlier_make(job->w1, &w1, err);
	for (uint32_t i = 0; !status && i < own.count; i++) {
		struct tpd_file_work *file = &job->files[own.items[i].file];

		status = find_partner(&ref, job, &own.items[i], err);
		if (!status)
			status = find_partner(&w1, job, &own.items[i], err);
		if (!status)
			status = match_file(job, file, &ref, &w1, err);
	}
	roles_release(&own);
	earlier_release(&ref);
	earlier_release(&w1);
	if (job->ref)
		tpd_chain_forget_names(job->ref);
	if (job->w1)
		tpd_chain_forget_names(job->w1);
	return status;
}

void tpd_ingest_unmatch(struct tpd_ingest_job *job)
{
	for (uint32_t f = 0; f < job->manifest.file_count; f++) {
		struct tpd_file_work *file = &job->files[f];
		struct tpd_entry *entry = file->entry;

		job->weight -= (uint64_t)entry->slab_count * TPD_MANIFEST_WEIGHT_SLAB;
		free(entry->slabs);
		entry->slabs = NULL;
		entry->slab_count = 0;
		for (uint32_t s = 0; s < entry->segment_count; s++) {
			struct tpd_segment *seg = &entry->segments[s];
			struct tpd_segment_work *work = &file->segments[s];

			seg->has_ref = seg->in_slabs = seg->derived = seg->converted = false;
			if (!file->typed[s])
				seg->dtype = TPD_DTYPE_BYTES;
			free(work->w1_slabs);
			work->w1_slabs = NULL;
			work->has_w1 = false;
		}
	}
}

/* --- what a reader would pay --- */

enum tpd_status tpd_ingest_is_costly(struct tpd_ingest_job *job, struct tpd_chain *chain, bool *out_costly, struct tpd_err *err)
{
	const double most = tpd_ingest_replay_max(job->options->max_depth);
	struct earlier there = {0};
	struct roles own = {0};
	uint64_t chunks = 0, reads = 0;
	bool cut_anew = false, costly = false;
	enum tpd_status status = roles_make(&job->manifest, &own, err);

	if (!status)
		status = earlier_make(chain, &there, err);
	for (uint32_t i = 0; !status && i < own.count; i++) {
		const struct tpd_file_work *file = &job->files[own.items[i].file];

		status = find_partner(&there, job, &own.items[i], err);
		for (uint32_t s = 0; !status && s < file->entry->segment_count; s++) {
			const struct tpd_segment *seg = &file->entry->segments[s];
			uint32_t in_file, in_segment;
			struct tpd_ingest_cut cut;

			cut.count = 0;
			status = pause_at(job, s, err);
			chunks += tpd_segment_chunks(seg);
			if (!status && !counterpart(&there, file, s, &in_file, &in_segment))
				status = find_cut(&there, file, s, &cut, err);
			reads += cut.count ? cut.cost.reads : tpd_segment_chunks(seg);
			cut_anew |= cut.count > 0;
			costly |= cut.count > 0 && !tpd_ingest_cost_fits(tpd_ingest_boxes_cost(there.boxes), cut.cost.most,
									 tpd_chunk_bytes(seg->dtype));
		}
	}
	if (!status && cut_anew)
		costly |= tpd_ingest_replay(tpd_ingest_boxes_cost(there.boxes), reads, chunks) > most;
	roles_release(&own);
	earlier_release(&there);
	*out_costly = costly;
	return status;
}

/* --- how much of it is there already --- */

struct likeness {
	struct earlier there;
	uint8_t *chunk;       /* room for one */
	double asked, equal;  /* bytes of what was sampled */
};

/* Are the bytes at `offset` of the file those of chunk `number` of segment `seg` of the file `in_file` there? */
static enum tpd_status compare_chunk(struct likeness *like, const struct tpd_file_work *file, uint64_t offset, uint32_t in_file,
				     const struct tpd_segment *seg, uint64_t number, bool *out_equal, struct tpd_err *err)
{
	uint32_t len = tpd_segment_chunk_len(seg, number);
	struct tpd_part_entry recorded;
	uint8_t digest[TPD_DECODED_DIGEST];
	enum tpd_status status = tpd_chain_entry(like->there.chain, in_file, seg->first_chunk + number, &recorded, err);

	if (!status)
		status = tpd_ingest_pread(file, like->chunk, len, offset, err);
	if (status)
		return status;
	tpd_xxh128_first(like->chunk, len, digest, sizeof(digest));
	*out_equal = memcmp(digest, recorded.decoded_digest, sizeof(digest)) == 0;
	return TPD_OK;
}

/* A file without tensors: up to SAMPLES of the chunks of the file of its role, if it is as long. */
static enum tpd_status compare_opaque(struct likeness *like, const struct tpd_file_work *file, struct tpd_err *err)
{
	const struct tpd_entry *own = file->entry, *entry = like->there.entry;
	const struct tpd_segment *seg = entry ? &entry->segments[0] : NULL;
	uint64_t chunks = seg ? tpd_segment_chunks(seg) : 0, asked = 0, equal = 0;
	enum tpd_status status = TPD_OK;

	like->asked += (double)own->size;
	if (!entry || entry->segment_count > 1 || entry->size != own->size)
		return TPD_OK;
	for (uint64_t c = 0; !status && c < chunks; c += 1 + chunks / SAMPLES) {
		bool same = false;

		status = compare_chunk(like, file, c * tpd_chunk_bytes(seg->dtype), like->there.file, seg, c, &same, err);
		equal += same;
		asked++;
	}
	if (asked)
		like->equal += (double)own->size * (double)equal / (double)asked;
	return status;
}

/* The first chunk of up to SAMPLES of its tensors, evenly spread; what has no counterpart counts as different. */
static enum tpd_status compare_file(struct likeness *like, const struct tpd_file_work *file, struct tpd_err *err)
{
	const struct tpd_entry *own = file->entry;
	const struct tpd_manifest *m = tpd_chain_manifest(like->there.chain);
	enum tpd_status status = TPD_OK;

	if (own->segment_count == 1)
		return compare_opaque(like, file, err);
	for (uint32_t s = 1; !status && s < own->segment_count; s += 1 + own->segment_count / SAMPLES) {
		const struct tpd_segment *seg = &own->segments[s];
		uint32_t in_file = 0, in_segment = 0;
		bool same = false;

		if (counterpart(&like->there, file, s, &in_file, &in_segment))
			status = compare_chunk(like, file, seg->offset, in_file,
					       &m->entries[m->files[in_file]].segments[in_segment], 0, &same, err);
		like->asked += (double)seg->length;
		like->equal += same ? (double)seg->length : 0;
	}
	return status;
}

enum tpd_status tpd_ingest_likeness(struct tpd_ingest_job *job, struct tpd_chain *chain, unsigned *out_percent,
				    struct tpd_err *err)
{
	TPD_AUTO_FREE uint8_t *chunk = malloc(TPD_CHUNK_MAX_BYTES);
	struct likeness like = {.chunk = chunk};
	struct roles own = {0};
	enum tpd_status status = chunk ? roles_make(&job->manifest, &own, err) : tpd_fail_nomem(err);

	if (!status)
		status = earlier_make(chain, &like.there, err);
	for (uint32_t i = 0; !status && i < own.count; i++) {
		status = find_partner(&like.there, job, &own.items[i], err);
		if (!status)
			status = compare_file(&like, &job->files[own.items[i].file], err);
	}
	roles_release(&own);
	earlier_release(&like.there);
	if (!status)
		*out_percent = like.asked > 0 ? (unsigned)(100 * like.equal / like.asked) : 0;
	return status;
}
