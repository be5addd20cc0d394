/*
 * chain_links.c - the manifests of a chain, from the checkpoint down to its keyframe.
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

static const struct tpd_segment *find_segment(const struct tpd_chain_link *link, uint32_t file, uint32_t segment)
{
	if (file >= link->manifest.file_count || segment >= entry_of(link, file)->segment_count)
		return NULL;
	return &entry_of(link, file)->segments[segment];
}

/* "not in it", "of another type or size", or NULL: what is wrong with a segment's reference to this link. */
static const char *fault_of_reference(const struct tpd_chain_link *base, const struct tpd_entry *entry, uint32_t s,
				      const struct tpd_segment *seg)
{
	unsigned width = tpd_dtype_width(seg->dtype);
	enum tpd_dtype dtype = seg->dtype; /* that all of them must be of */
	const struct tpd_segment *ref;

	if (!seg->in_slabs) {
		ref = find_segment(base, seg->ref_file, seg->ref_segment);
		if (!ref)
			return "that it does not have";
		return ref->dtype != seg->dtype || (s > 0 && ref->length != seg->length) ? "of another type or size" : NULL;
	}
	for (uint32_t i = 0; i < seg->ref_segment; i++) {
		const struct tpd_slab *slab = &entry->slabs[seg->ref_file + i];

		ref = find_segment(base, slab->file, slab->segment);
		if (!ref || slab->segment == 0)
			return "that it does not have";
		if (seg->converted && i == 0 && tpd_dtype_converts(ref->dtype, seg->dtype))
			dtype = ref->dtype;
		if (ref->dtype != dtype || (seg->converted && dtype == seg->dtype) ||
		    !tpd_slab_fits(slab, seg->length / width, ref->length / tpd_dtype_width(dtype)))
			return "of another type or size";
	}
	return NULL;
}

/* Is each reference of this link to a segment that the next one has, of the same type, and for tensors of the same size? */
static enum tpd_status check_references(const struct tpd_chain *chain, uint32_t link, struct tpd_err *err)
{
	const struct tpd_manifest *m = &chain->links[link].manifest, *base = &chain->links[link + 1].manifest;

	for (uint32_t f = 0; f < m->file_count; f++) {
		const struct tpd_entry *entry = entry_of(&chain->links[link], f);

		for (uint32_t s = 0; s < entry->segment_count; s++) {
			const struct tpd_segment seg = tpd_chain_segment(chain, link, f, s);
			const char *fault = seg.has_ref && !seg.derived ? fault_of_reference(&chain->links[link + 1], entry, s, &seg) : NULL;

			if (fault)
				return tpd_fail(err, TPD_CORRUPT, "%s@%llu: '%s' refers to a segment of %s@%llu %s", m->run,
						(unsigned long long)m->step, entry->path, base->run, (unsigned long long)base->step,
						fault);
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
	grown[chain->count] = (struct tpd_chain_link){0};
	return &grown[chain->count];
}

/* Does the last link go with those above it, and may there be another below? */
static enum tpd_status check_link(const struct tpd_chain *chain, struct tpd_err *err)
{
	const struct tpd_manifest *top = &chain->links[0].manifest, *m = &chain->links[chain->count - 1].manifest;
	enum tpd_status status = TPD_OK;

	if (chain->count > 1)
		status = check_references(chain, chain->count - 2, err);
	if (status || !m->has_ref)
		return status;
	for (uint32_t i = 0; i < chain->count; i++)
		if (tpd_id_equal(&m->ref, &chain->links[i].manifest.id))
			return tpd_fail(err, TPD_CORRUPT, "%s@%llu: its references form a cycle", top->run,
					(unsigned long long)top->step);
	if (chain->count == TPD_CHAIN_MAX)
		return tpd_fail(err, TPD_LIMIT, "%s@%llu: its chain is longer than %u", top->run,
				(unsigned long long)top->step, TPD_CHAIN_MAX);
	return TPD_OK;
}

static enum tpd_status load_link(struct tpd_chain *chain, const struct tpd_id *id, bool names, struct tpd_err *err)
{
	const struct tpd_manifest *top, *above;
	struct tpd_chain_link *link = add_link(chain);
	char hex[TPD_ID_HEX];
	enum tpd_status status;

	if (!link)
		return tpd_fail_nomem(err);
	status = tpd_object_load(chain->store, id, names ? TPD_MANIFEST_ABOUT : TPD_MANIFEST_SEGMENTS, &link->manifest,
				 &link->generation, err);
	if (!status) {
		chain->count++;
		status = check_link(chain, err);
		return status ? status : share_segments(chain, chain->count - 1, err);
	}
	if (status != TPD_NOT_FOUND || chain->count == 0)
		return status;
	top = &chain->links[0].manifest;
	above = &chain->links[chain->count - 1].manifest;
	tpd_id_hex(id, hex);
	return tpd_fail(err, TPD_MISSING_BASE, "%s@%llu needs %s@%llu (checkpoint %.16s), which is not in the store", top->run,
			(unsigned long long)top->step, above->ref_run ? above->ref_run : above->run,
			(unsigned long long)above->ref_step, hex);
}

enum tpd_status tpd_chain_open(struct tpd_store *store, const struct tpd_id *id, bool names, struct tpd_chain **out_chain,
			       struct tpd_err *err)
{
	struct tpd_chain *chain = calloc(1, sizeof(*chain));
	struct tpd_id next = *id;
	bool more = true;
	enum tpd_status status = TPD_OK;

	if (!chain)
		return tpd_fail_nomem(err);
	chain->store = store;
	pthread_mutex_init(&chain->lock, NULL);
	chain->cache = tpd_chain_cache_new(CACHE_BYTES);
	if (!chain->cache)
		status = tpd_fail_nomem(err);
	while (more && !status) {
		status = load_link(chain, &next, names && chain->count == 0, err);
		if (!status) {
			next = chain->links[chain->count - 1].manifest.ref;
			more = chain->links[chain->count - 1].manifest.has_ref;
		}
	}
	if (status) {
		tpd_chain_close(chain);
		return status;
	}
	*out_chain = chain;
	return TPD_OK;
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

