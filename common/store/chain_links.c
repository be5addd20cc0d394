/*
 * chain_links.c - the manifests of a chain, from the checkpoint down to its keyframe.
 *
 * They are loaded in the order in which they are named, each once: a link's reference, then what it names as w0, then those of the next
 * link. So a plain chain is in the order of its checkpoints.
 *
 * What a link takes grows with its tensors, and a chain may have many links; but nearly always all of them have the same
 * tensors in the same order, and each refers to the one of its own number below. So a link below the first keeps, for a
 * file of which that is true, only which of its tensors have a reference (a bit each) and its glue, and uses the segments
 * of the link above for the rest:
 *
 *      link 0   segments ◄──┬──────┐
 *      link 1   bits, glue ─┘      │       500,000 tensors: 20 MB, and 60 KB for each link more
 *      link 2   bits, glue ────────┘
 *      link 3   segments of its own        (the model was another one then)
 *
 * Where they lie in the file may differ: below link 0 only payloads are read.
 */
#include "base/tpd.h"

#include "store/chain.h"

#include <stdlib.h>
#include <string.h>

#include "store/chain_internal.h"
#include "store/internal.h"

/* Several threads at several places, each between what 16 others have in common (TPD_INGEST_SLAB_CHUNKS), in F32. */
#define CACHE_BYTES (32u << 20)

static void link_release(struct tpd_chain_link *link)
{
	for (uint32_t f = 0; link->shared && f < link->manifest.file_count; f++)
		free(link->shared[f].has_ref);
	free(link->shared);
	tpd_manifest_release(&link->manifest);
}

void tpd_chain_close(struct tpd_chain *chain)
{
	if (!chain)
		return;
	tpd_chain_close_files(chain);
	for (uint32_t i = 0; i < chain->count; i++)
		link_release(&chain->links[i]);
	free(chain->links);
	for (unsigned i = 0; i < TPD_CHAIN_SOURCES; i++)
		free(chain->sources[i]);
	free(chain->held);
	tpd_chain_cache_free(chain->cache);
	pthread_mutex_destroy(&chain->lock);
	free(chain);
}

static const struct tpd_entry *entry_of(const struct tpd_chain_link *link, uint32_t file)
{
	return &link->manifest.entries[link->manifest.files[file]];
}

struct tpd_segment tpd_chain_segment(const struct tpd_chain *chain, uint32_t link, uint32_t file, uint32_t segment)
{
	const struct tpd_chain_link *at = &chain->links[link];
	const struct tpd_chain_shared *shared = at->shared ? &at->shared[file] : NULL;
	struct tpd_segment seg;

	if (!shared || !shared->segments)
		return entry_of(at, file)->segments[segment];
	seg = segment == 0 ? shared->glue : shared->segments[segment];
	seg.ref_file = file;
	seg.ref_segment = segment;
	seg.in_slabs = seg.derived = seg.converted = false; /* those of the link above may be */
	seg.has_ref = shared->has_ref[segment / 8] >> segment % 8 & 1;
	return seg;
}

const struct tpd_predictor *tpd_chain_predictor(const struct tpd_chain *chain, uint32_t link, uint32_t file, uint32_t segment)
{
	return tpd_entry_predictor(entry_of(&chain->links[link], file), segment);
}

static bool find_segment(const struct tpd_chain *chain, uint32_t link, uint32_t file, uint32_t segment, struct tpd_segment *out)
{
	const struct tpd_chain_link *at = &chain->links[link];

	if (file >= at->manifest.file_count || segment >= entry_of(at, file)->segment_count)
		return false;
	*out = tpd_chain_segment(chain, link, file, segment);
	return true;
}

/* "not in it", "of another type or size", or NULL: what is wrong with a segment's reference to link `base`. */
static const char *fault_of_reference(const struct tpd_chain *chain, uint32_t base, const struct tpd_entry *entry, uint32_t s,
				      const struct tpd_segment *seg)
{
	unsigned width = tpd_dtype_width(seg->dtype);
	enum tpd_dtype dtype = seg->dtype; /* that all of them must be of */
	struct tpd_segment ref;

	if (!seg->in_slabs) {
		if (!find_segment(chain, base, seg->ref_file, seg->ref_segment, &ref))
			return "that it does not have";
		return ref.dtype != seg->dtype || (s > 0 && ref.length != seg->length) ? "of another type or size" : NULL;
	}
	for (uint32_t i = 0; i < seg->ref_segment; i++) {
		const struct tpd_slab *slab = &entry->slabs[seg->ref_file + i];

		if (slab->segment == 0 || !find_segment(chain, base, slab->file, slab->segment, &ref))
			return "that it does not have";
		if (seg->converted && i == 0 && tpd_dtype_converts(ref.dtype, seg->dtype))
			dtype = ref.dtype;
		if (ref.dtype != dtype || (seg->converted && dtype == seg->dtype) ||
		    !tpd_slab_fits(slab, seg->length / width, ref.length / tpd_dtype_width(dtype)))
			return "of another type or size";
	}
	return NULL;
}

static enum tpd_status bad_reference(const struct tpd_manifest *m, const struct tpd_entry *entry, const struct tpd_manifest *base,
				     const char *fault, struct tpd_err *err)
{
	return tpd_fail(err, TPD_CORRUPT, "%s@%llu: '%s' refers to a segment of %s@%llu %s", m->run, (unsigned long long)m->step, entry->path,
			base->run, (unsigned long long)base->step, fault);
}

/* Is each reference of this link to a segment that the one below has, of the same type, and for tensors of the same size? */
static enum tpd_status check_references(const struct tpd_chain *chain, uint32_t link, struct tpd_err *err)
{
	const uint32_t below = chain->links[link].below;
	const struct tpd_manifest *m = &chain->links[link].manifest;

	for (uint32_t f = 0; f < m->file_count; f++) {
		const struct tpd_entry *entry = entry_of(&chain->links[link], f);

		for (uint32_t s = 0; s < entry->segment_count; s++) {
			const struct tpd_segment seg = tpd_chain_segment(chain, link, f, s);
			const char *fault = seg.has_ref && !seg.derived ? fault_of_reference(chain, below, entry, s, &seg) : NULL;

			if (fault)
				return bad_reference(m, entry, &chain->links[below].manifest, fault, err);
		}
	}
	return TPD_OK;
}

/* Likewise each w0 of this link: of the type and size of the tensor. */
static enum tpd_status check_earlier(const struct tpd_chain *chain, uint32_t link, struct tpd_err *err)
{
	const uint32_t earlier = chain->links[link].earlier;
	const struct tpd_manifest *m = &chain->links[link].manifest;

	for (uint32_t f = 0; f < m->file_count; f++) {
		const struct tpd_entry *entry = entry_of(&chain->links[link], f);

		for (uint32_t i = 0; i < entry->predictor_count; i++) {
			const struct tpd_predictor *p = &entry->predictors[i];
			struct tpd_segment seg, w0;

			if (!(p->terms & TPD_TERM_STEP))
				continue;
			seg = tpd_chain_segment(chain, link, f, p->segment);
			if (!find_segment(chain, earlier, p->w0_file, p->w0_segment, &w0))
				return bad_reference(m, entry, &chain->links[earlier].manifest, "that it does not have", err);
			if (w0.dtype != seg.dtype || w0.length != seg.length)
				return bad_reference(m, entry, &chain->links[earlier].manifest, "of another type or size", err);
		}
	}
	return TPD_OK;
}

/* Can these be read as `count` segments of the link above, with bits for their references to file `file`? */
static bool same_segments(const struct tpd_segment *own, const struct tpd_segment *above, uint32_t count, uint32_t file)
{
	for (uint32_t s = 0; s < count; s++) {
		if (own[s].has_ref && (own[s].in_slabs || own[s].ref_file != file || own[s].ref_segment != s))
			return false;
		if (s > 0 && (own[s].length != above[s].length || own[s].dtype != above[s].dtype ||
			      own[s].first_chunk != above[s].first_chunk))
			return false;
	}
	return true;
}

/* Use the segments of the link above for each file of this one that has the same. */
static enum tpd_status share_segments(struct tpd_chain *chain, uint32_t number, struct tpd_err *err)
{
	struct tpd_chain_link *link = &chain->links[number];
	const struct tpd_chain_link *above = number > 0 ? link - 1 : NULL;

	if (!above)
		return TPD_OK;
	link->shared = calloc(link->manifest.file_count + 1u, sizeof(*link->shared));
	if (!link->shared)
		return tpd_fail_nomem(err);
	for (uint32_t f = 0; f < TPD_MIN(link->manifest.file_count, above->manifest.file_count); f++) {
		struct tpd_entry *entry = &link->manifest.entries[link->manifest.files[f]];
		bool shares = above->shared && above->shared[f].segments;
		const struct tpd_segment *segments = shares ? above->shared[f].segments : entry_of(above, f)->segments;
		struct tpd_chain_shared *shared = &link->shared[f];

		if (entry->segment_count != entry_of(above, f)->segment_count ||
		    !same_segments(entry->segments, segments, entry->segment_count, f))
			continue;
		shared->has_ref = calloc(entry->segment_count / 8 + 1u, 1);
		if (!shared->has_ref)
			return tpd_fail_nomem(err);
		for (uint32_t s = 0; s < entry->segment_count; s++)
			shared->has_ref[s / 8] |= (uint8_t)(entry->segments[s].has_ref << s % 8);
		shared->glue = entry->segments[0];
		shared->segments = segments;
		free(entry->segments);
		entry->segments = NULL;
	}
	return TPD_OK;
}

static struct tpd_chain_link *add_link(struct tpd_chain *chain)
{
	struct tpd_chain_link *grown = reallocarray(chain->links, chain->count + 1u, sizeof(*grown));

	if (!grown)
		return NULL;
	chain->links = grown;
	grown[chain->count] = (struct tpd_chain_link){.below = TPD_CHAIN_NONE, .earlier = TPD_CHAIN_NONE};
	return &grown[chain->count];
}

/* The link of that id; TPD_CHAIN_NONE: it is not loaded. */
static uint32_t find_link(const struct tpd_chain *chain, const struct tpd_id *id)
{
	for (uint32_t i = 0; i < chain->count; i++)
		if (tpd_id_equal(id, &chain->links[i].manifest.id))
			return i;
	return TPD_CHAIN_NONE;
}

/* run and step: as what needs it calls it; run may be NULL. */
static enum tpd_status missing(const struct tpd_chain *chain, const struct tpd_id *id, const char *run, uint64_t step, struct tpd_err *err)
{
	const struct tpd_manifest *top = &chain->links[0].manifest;
	char hex[TPD_ID_HEX];

	tpd_id_hex(id, hex);
	return tpd_fail(err, TPD_MISSING_BASE, "%s@%llu needs %s%s%llu (checkpoint %.16s), which is not in the store", top->run,
			(unsigned long long)top->step, run ? run : "step ", run ? "@" : "", (unsigned long long)step, hex);
}

static enum tpd_status load_link(struct tpd_chain *chain, const struct tpd_id *id, bool names, struct tpd_err *err)
{
	struct tpd_chain_link *link;
	enum tpd_status status;

	if (chain->count == TPD_CHAIN_MAX)
		return tpd_fail(err, TPD_LIMIT, "%s@%llu: its chain is longer than %u", chain->links[0].manifest.run,
				(unsigned long long)chain->links[0].manifest.step, TPD_CHAIN_MAX);
	link = add_link(chain);
	if (!link)
		return tpd_fail_nomem(err);
	status = tpd_object_load(chain->store, id, names ? TPD_MANIFEST_ABOUT : TPD_MANIFEST_SEGMENTS, &link->manifest,
				 &link->generation, err);
	if (!status)
		chain->count++;
	return status;
}

/* The link of that id, loaded if it is not yet. */
static enum tpd_status name_link(struct tpd_chain *chain, const struct tpd_id *id, const char *run, uint64_t step, uint32_t *out_link,
				 struct tpd_err *err)
{
	enum tpd_status status = TPD_OK;

	*out_link = find_link(chain, id);
	if (*out_link != TPD_CHAIN_NONE)
		return TPD_OK;
	status = load_link(chain, id, false, err);
	if (status == TPD_NOT_FOUND)
		return missing(chain, id, run, step, err);
	if ((status == TPD_CORRUPT || status == TPD_UNSUPPORTED) && err)
		tpd_err_prefix(err, "%s@%llu needs %s%s%llu", chain->links[0].manifest.run, (unsigned long long)chain->links[0].manifest.step,
			       run ? run : "step ", run ? "@" : "", (unsigned long long)step);
	*out_link = status ? TPD_CHAIN_NONE : chain->count - 1;
	return status;
}

static const char *run_of_reference(const struct tpd_manifest *m)
{
	return m->ref_run ? m->ref_run : m->run;
}

/* Of the earlier checkpoint, which names no run; it mostly is the reference's reference. NULL: it is not known. */
static const char *run_of_earlier(const struct tpd_chain *chain, uint32_t below, const struct tpd_id *earlier)
{
	const struct tpd_manifest *m = below == TPD_CHAIN_NONE ? NULL : &chain->links[below].manifest;

	return m && m->has_ref && tpd_id_equal(&m->ref, earlier) ? run_of_reference(m) : NULL;
}

/* What link `number` names, and whether that is as it says. */
static enum tpd_status load_named(struct tpd_chain *chain, uint32_t number, struct tpd_err *err)
{
	const struct tpd_manifest m = chain->links[number].manifest; /* the array moves */
	const uint32_t loaded = chain->count;
	uint32_t below = TPD_CHAIN_NONE, earlier = TPD_CHAIN_NONE;
	enum tpd_status status = TPD_OK;

	if (m.has_ref)
		status = name_link(chain, &m.ref, run_of_reference(&m), m.ref_step, &below, err);
	if (!status && m.has_earlier)
		status = name_link(chain, &m.earlier, run_of_earlier(chain, below, &m.earlier), m.earlier_step, &earlier, err);
	if (status)
		return status;
	chain->links[number].below = below;
	chain->links[number].earlier = earlier;
	for (uint32_t i = loaded; !status && i < chain->count; i++)
		status = share_segments(chain, i, err);
	if (!status && m.has_ref)
		status = check_references(chain, number, err);
	if (!status && m.has_earlier)
		status = check_earlier(chain, number, err);
	return status;
}

/* Depths, from those that refer to nothing up. What is on a circle never gets one. */
static enum tpd_status settle_depths(struct tpd_chain *chain, struct tpd_err *err)
{
	TPD_AUTO_FREE uint32_t *path = calloc(chain->count, sizeof(*path));
	TPD_AUTO_FREE uint8_t *visits = calloc(chain->count, sizeof(*visits)); /* how many of a link's two ways were gone; 3: all */
	uint32_t at = 1;

	if (!path || !visits)
		return tpd_fail_nomem(err);
	while (at > 0) {
		struct tpd_chain_link *link = &chain->links[path[at - 1]];
		uint8_t *visit = &visits[path[at - 1]];
		uint32_t next = *visit == 0 ? link->below : *visit == 1 ? link->earlier : TPD_CHAIN_NONE;

		if (*visit == 2) {
			const uint32_t ways[2] = {link->below, link->earlier};

			for (unsigned w = 0; w < 2; w++)
				if (ways[w] != TPD_CHAIN_NONE)
					link->depth = TPD_MAX(link->depth, chain->links[ways[w]].depth + 1);
			at--;
		}
		(*visit)++;
		if (next == TPD_CHAIN_NONE || visits[next] == 3)
			continue;
		if (visits[next] != 0)
			return tpd_fail(err, TPD_CORRUPT, "%s@%llu: its references form a cycle", chain->links[0].manifest.run,
					(unsigned long long)chain->links[0].manifest.step);
		path[at++] = next;
	}
	return TPD_OK;
}

enum tpd_status tpd_chain_open(struct tpd_store *store, const struct tpd_id *id, bool names, struct tpd_chain **out_chain,
			       struct tpd_err *err)
{
	struct tpd_chain *chain = calloc(1, sizeof(*chain));
	enum tpd_status status = TPD_OK;

	if (!chain)
		return tpd_fail_nomem(err);
	chain->store = store;
	pthread_mutex_init(&chain->lock, NULL);
	chain->cache = tpd_chain_cache_new(CACHE_BYTES);
	if (!chain->cache)
		status = tpd_fail_nomem(err);
	if (!status)
		status = load_link(chain, id, names, err);
	for (uint32_t i = 0; !status && i < chain->count; i++)
		status = load_named(chain, i, err);
	if (!status)
		status = settle_depths(chain, err);
	if (status) {
		tpd_chain_close(chain);
		return status;
	}
	*out_chain = chain;
	return TPD_OK;
}

uint32_t tpd_chain_depth(const struct tpd_chain *chain)
{
	return chain->links[0].depth;
}

uint32_t tpd_chain_depth_of(const struct tpd_chain *chain, uint32_t link)
{
	return chain->links[link].depth;
}

bool tpd_chain_below(const struct tpd_chain *chain, uint32_t link, uint32_t *out_below)
{
	*out_below = chain->links[link].below;
	return *out_below != TPD_CHAIN_NONE;
}

void tpd_chain_forget_names(struct tpd_chain *chain)
{
	tpd_manifest_forget_about(&chain->links[0].manifest);
}

const struct tpd_manifest *tpd_chain_manifest(const struct tpd_chain *chain)
{
	return &chain->links[0].manifest;
}

uint32_t tpd_chain_links(const struct tpd_chain *chain)
{
	return chain->count;
}

const struct tpd_manifest *tpd_chain_link(const struct tpd_chain *chain, uint32_t link)
{
	return &chain->links[link].manifest;
}

void tpd_chain_use_original(struct tpd_chain *chain, const char *path)
{
	free(chain->sources[TPD_CHAIN_ORIGINAL]);
	chain->sources[TPD_CHAIN_ORIGINAL] = strdup(path); /* without memory: not used */
}

void tpd_chain_use_files(struct tpd_chain *chain, const int *files, size_t count)
{
	free(chain->held);
	chain->held = count == chain->links[0].manifest.file_count ? malloc((count + 1) * sizeof(*files)) : NULL;
	if (chain->held)
		memcpy(chain->held, files, count * sizeof(*files));
}

void tpd_chain_use_copy(struct tpd_chain *chain, const char *path)
{
	free(chain->sources[TPD_CHAIN_COPY]);
	chain->sources[TPD_CHAIN_COPY] = strdup(path);
}

