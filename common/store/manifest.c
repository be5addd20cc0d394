/*
 * manifest.c - a manifest in memory: its life, its id, its geometry, and the rules that its values obey.
 *
 * The rules stand here once and are used from both sides: the parser asks them of what it read, the writer of what it
 * is about to write, so that nothing is ever stored which could not be read back. Rejected: checks woven into the
 * parser (the writer would have its own, slightly different ones).
 *
 * Geometry of a file with two tensors; glue is one byte string, the pieces g put together:
 *
 *      file     | g0 | tensor 1      | g1 | tensor 2  | g2 |
 *      segment  0: g0 g1 g2     1: tensor 1     2: tensor 2
 *      chunks   0               1 2 3           4 5               numbered through
 */
#include "base/tpd.h"

#include "store/manifest.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "store/manifest_internal.h"
#include "store/part.h"

bool tpd_id_equal(const struct tpd_id *a, const struct tpd_id *b)
{
	return memcmp(a->bytes, b->bytes, sizeof(a->bytes)) == 0;
}

int tpd_id_compare(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct tpd_id));
}

void tpd_id_hex(const struct tpd_id *id, char out[TPD_ID_HEX])
{
	tpd_hex(id->bytes, sizeof(id->bytes), out);
}

void tpd_manifest_forget_about(struct tpd_manifest *m)
{
	for (uint32_t i = 0; m->entries && i < m->entry_count; i++) {
		struct tpd_entry *entry = &m->entries[i];

		for (uint32_t s = 0; entry->about && s < entry->segment_count; s++) {
			free(entry->about[s].name);
			free(entry->about[s].stats);
		}
		free(entry->about);
		entry->about = NULL;
	}
}

void tpd_manifest_release(struct tpd_manifest *m)
{
	tpd_manifest_forget_about(m);
	for (uint32_t i = 0; m->entries && i < m->entry_count; i++) {
		struct tpd_entry *entry = &m->entries[i];

		free(entry->segments);
		free(entry->slabs);
		free(entry->predictors);
		free(entry->parts);
		free(entry->path);
		free(entry->target);
	}
	free(m->entries);
	free(m->ties);
	free(m->files);
	free(m->run);
	free(m->source);
	free(m->ref_run);
	*m = (struct tpd_manifest){0};
}

bool tpd_dtype_derives(enum tpd_dtype from, enum tpd_dtype to)
{
	if (from == TPD_DTYPE_BYTES)
		return false;
	return from == to || (from == TPD_DTYPE_F32 && (to == TPD_DTYPE_BF16 || to == TPD_DTYPE_F16));
}

bool tpd_dtype_converts(enum tpd_dtype from, enum tpd_dtype to)
{
	return (from == TPD_DTYPE_F32 && (to == TPD_DTYPE_BF16 || to == TPD_DTYPE_F16)) ||
	       (to == TPD_DTYPE_F32 && (from == TPD_DTYPE_BF16 || from == TPD_DTYPE_F16));
}

enum tpd_status tpd_entry_refer(struct tpd_entry *entry, uint32_t segment, const struct tpd_slab *slabs, uint32_t count, bool derived,
				struct tpd_err *err)
{
	struct tpd_segment *seg = &entry->segments[segment];
	struct tpd_slab *grown;

	if (count > UINT32_MAX - entry->slab_count)
		return tpd_fail(err, TPD_LIMIT, "'%s' has too many references", entry->path);
	grown = reallocarray(entry->slabs, (size_t)entry->slab_count + count, sizeof(*grown));
	if (!grown)
		return tpd_fail_nomem(err);
	memcpy(grown + entry->slab_count, slabs, count * sizeof(*grown));
	entry->slabs = grown;
	seg->has_ref = seg->in_slabs = true;
	seg->derived = derived;
	seg->converted = false;
	seg->ref_file = entry->slab_count;
	seg->ref_segment = count;
	entry->slab_count += count;
	return TPD_OK;
}

enum tpd_status tpd_entry_predict(struct tpd_entry *entry, const struct tpd_predictor *predictor, struct tpd_err *err)
{
	struct tpd_predictor *grown = reallocarray(entry->predictors, entry->predictor_count + 1u, sizeof(*grown));

	if (!grown)
		return tpd_fail_nomem(err);
	entry->predictors = grown;
	grown[entry->predictor_count++] = *predictor;
	return TPD_OK;
}

const struct tpd_predictor *tpd_entry_predictor(const struct tpd_entry *entry, uint32_t segment)
{
	uint32_t low = 0, high = entry->predictor_count;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (entry->predictors[middle].segment < segment)
			low = middle + 1;
		else
			high = middle;
	}
	return low < entry->predictor_count && entry->predictors[low].segment == segment ? &entry->predictors[low] : NULL;
}

const char *tpd_segment_encoding(const struct tpd_segment *seg, const struct tpd_segment_about *about)
{
	return seg->has_ref && seg->derived ? "derived" : tpd_encoding_name(about->planned);
}

uint64_t tpd_segment_chunks(const struct tpd_segment *seg)
{
	uint64_t chunk = tpd_chunk_bytes(seg->dtype);

	return seg->length / chunk + (seg->length % chunk != 0);
}

uint32_t tpd_segment_chunk_len(const struct tpd_segment *seg, uint64_t chunk)
{
	uint32_t full = tpd_chunk_bytes(seg->dtype);

	assert(chunk < tpd_segment_chunks(seg));
	return (uint32_t)TPD_MIN((uint64_t)full, seg->length - chunk * full);
}

uint64_t tpd_entry_chunks(const struct tpd_entry *file)
{
	uint64_t chunks = 0;

	for (uint32_t s = 0; s < file->segment_count; s++)
		chunks += tpd_segment_chunks(&file->segments[s]);
	return chunks;
}

void tpd_entry_locate(const struct tpd_entry *file, uint64_t number, uint32_t *out_segment, uint64_t *out_chunk)
{
	uint32_t low = 0, high = file->segment_count;

	/* The last one that begins at or before it: of several with the same first chunk only the last is not empty. */
	assert(high > 0);
	while (high - low > 1) {
		uint32_t middle = low + (high - low) / 2;

		if (file->segments[middle].first_chunk <= number)
			low = middle;
		else
			high = middle;
	}
	assert(number - file->segments[low].first_chunk < tpd_segment_chunks(&file->segments[low]));
	*out_segment = low;
	*out_chunk = number - file->segments[low].first_chunk;
}

void tpd_entry_pieces(const struct tpd_entry *file, uint32_t segment, uint64_t pos, uint64_t len,
		      void (*fn)(void *arg, uint64_t file_offset, uint64_t at, uint64_t n), void *arg)
{
	uint64_t glue = 0, file_at = 0, end = pos + len; /* glue bytes and file bytes passed */

	assert(segment < file->segment_count && pos <= file->segments[segment].length &&
	       len <= file->segments[segment].length - pos);
	if (segment > 0) {
		if (len > 0)
			fn(arg, file->segments[segment].offset + pos, pos, len);
		return;
	}
	for (uint32_t s = 1; s <= file->segment_count && glue < end; s++) {
		bool last = s == file->segment_count;
		uint64_t gap = (last ? file->size : file->segments[s].offset) - file_at;
		uint64_t from = TPD_MAX(pos, glue), to = TPD_MIN(end, glue + gap);

		if (from < to)
			fn(arg, file_at + (from - glue), from, to - from);
		glue += gap;
		if (!last)
			file_at = file->segments[s].offset + file->segments[s].length;
	}
}

uint64_t tpd_manifest_size(const struct tpd_manifest *m)
{
	uint64_t size = 0;

	for (uint32_t f = 0; f < m->file_count; f++)
		size += m->entries[m->files[f]].size;
	return size;
}

uint64_t tpd_manifest_stored(const struct tpd_manifest *m)
{
	uint64_t bytes = 0;

	for (uint32_t f = 0; f < m->file_count; f++) {
		const struct tpd_entry *entry = &m->entries[m->files[f]];

		for (uint32_t p = 0; p < entry->part_count; p++)
			bytes += entry->parts[p].bytes;
	}
	return bytes;
}

enum tpd_status tpd_manifest_derive(struct tpd_manifest *m, struct tpd_err *err)
{
	uint32_t *files = malloc(((size_t)m->entry_count + 1) * sizeof(*files));

	if (!files)
		return tpd_fail_nomem(err);
	free(m->files);
	m->files = files;
	m->file_count = 0;
	for (uint32_t i = 0; i < m->entry_count; i++) {
		struct tpd_entry *entry = &m->entries[i];
		uint64_t chunk = 0;

		if (entry->type != TPD_ENTRY_FILE)
			continue;
		files[m->file_count++] = i;
		for (uint32_t s = 0; s < entry->segment_count; s++) {
			entry->segments[s].first_chunk = chunk;
			chunk += tpd_segment_chunks(&entry->segments[s]);
		}
	}
	return TPD_OK;
}

enum tpd_status tpd_manifest_identify(const uint8_t *logical, size_t len, struct tpd_id *out_id, struct tpd_err *err)
{
	static const char domain[] = "tpd-checkpoint-1"; /* with its zero */
	struct tpd_sha256 *sha = tpd_sha256_new();

	if (!sha)
		return tpd_fail_nomem(err);
	tpd_sha256_update(sha, domain, sizeof(domain));
	tpd_sha256_update(sha, logical, len);
	tpd_sha256_final(sha, out_id->bytes);
	tpd_sha256_free(sha);
	return TPD_OK;
}

enum tpd_status tpd_manifest_seal(struct tpd_manifest *m, struct tpd_err *err)
{
	struct tpd_buf logical = {0};
	enum tpd_status status = tpd_manifest_check_logical(m, TPD_USAGE, err);

	if (!status)
		status = tpd_manifest_derive(m, err);
	if (!status) {
		tpd_manifest_put_logical(m, &logical);
		status = tpd_buf_status(&logical, err);
	}
	if (!status)
		status = tpd_manifest_identify(logical.data, logical.len, &m->id, err);
	tpd_buf_release(&logical);
	return status;
}

/* --- the rules --- */

static bool is_utf8(const char *s, size_t max)
{
	size_t len = strlen(s);

	if (len > max)
		return false;
	for (size_t i = 0, n; i < len; i += n) {
		n = tpd_text_utf8(s + i, len - i);
		if (n == 0)
			return false;
	}
	return true;
}

uint64_t tpd_entry_weight(const struct tpd_entry *entry)
{
	return TPD_MANIFEST_WEIGHT_ENTRY + strlen(entry->path) + (entry->target ? strlen(entry->target) : 0);
}

static enum tpd_status check_entry(const struct tpd_entry *entry, enum tpd_status class, struct tpd_err *err)
{
	if (!entry->path || !tpd_text_is_safe_path(entry->path))
		return tpd_fail(err, class, "manifest: '%s' is not a path below the checkpoint",
				entry->path ? entry->path : "");
	if (!is_utf8(entry->path, TPD_MANIFEST_PATH_MAX))
		return tpd_fail(err, class, "manifest: the path '%s' is not UTF-8", entry->path);
	if (entry->type > TPD_ENTRY_DIR)
		return tpd_fail(err, class, "manifest: '%s' has an unknown type", entry->path);
	if (entry->mode > 07777)
		return tpd_fail(err, class, "manifest: '%s' has mode 0%o", entry->path, entry->mode);
	if (entry->type == TPD_ENTRY_SYMLINK &&
	    (!entry->target || !entry->target[0] || !is_utf8(entry->target, TPD_MANIFEST_PATH_MAX)))
		return tpd_fail(err, class, "manifest: the target of the link '%s' is empty, too long or not UTF-8",
				entry->path);
	return TPD_OK;
}

enum tpd_status tpd_manifest_check_logical(const struct tpd_manifest *m, enum tpd_status class, struct tpd_err *err)
{
	uint64_t total = 0;

	if (!m->run || !tpd_text_is_run_name(m->run))
		return tpd_fail(err, class, "manifest: '%s' is not a run name", m->run ? m->run : "");
	if (m->entry_count > TPD_MANIFEST_MAX_ENTRIES)
		return tpd_fail(err, class, "manifest: %u entries are more than %u", m->entry_count, TPD_MANIFEST_MAX_ENTRIES);
	for (uint32_t i = 0; i < m->entry_count; i++) {
		const struct tpd_entry *entry = &m->entries[i];
		enum tpd_status status = check_entry(entry, class, err);

		if (status)
			return status;
		if (i > 0 && strcmp(m->entries[i - 1].path, entry->path) >= 0)
			return tpd_fail(err, class, "manifest: '%s' and '%s' are not in ascending order",
					m->entries[i - 1].path, entry->path);
		if (entry->type != TPD_ENTRY_FILE)
			continue;
		if (TPD_ADD_OVERFLOW(total, entry->size, &total) || total > TPD_MANIFEST_BYTES_MAX)
			return tpd_fail(err, class, "manifest: the size of '%s' cannot be", entry->path);
	}
	if (m->kind > TPD_CHECKPOINT_FILE ||
	    (m->kind == TPD_CHECKPOINT_FILE && (m->entry_count != 1 || m->entries[0].type != TPD_ENTRY_FILE)))
		return tpd_fail(err, class, "manifest: a checkpoint of a single file must hold just that");
	return TPD_OK;
}

enum tpd_status tpd_manifest_weigh(struct tpd_manifest_sums *sums, uint64_t count, uint64_t weight, enum tpd_status class,
				   struct tpd_err *err)
{
	if (weight > 0 && count > (TPD_MANIFEST_WEIGHT_MAX - sums->weight) / weight)
		return tpd_fail(err, class, "manifest: it holds more than there is room for");
	sums->weight += count * weight;
	return TPD_OK;
}

static enum tpd_status check_about(const struct tpd_manifest *m, const struct tpd_entry *entry, uint32_t s,
				   const struct tpd_segment_about *about, enum tpd_status class, struct tpd_err *err)
{
	if (!about->name || !is_utf8(about->name, TPD_FORMAT_MAX_NAME) || (s == 0 && about->name[0]))
		return tpd_fail(err, class, "manifest: '%s': the name of segment %u is wrong", entry->path, s);
	if (!tpd_encoding_is_known(about->planned) || !tpd_encoding_is_known(about->second))
		return tpd_fail(err, class, "manifest: '%s': segment %u has an unknown encoding", entry->path, s);
	if (about->second_permille > TPD_SECOND_MAX)
		return tpd_fail(err, class, "manifest: '%s': segment %u compares its encoding with what takes %u thousandths of it", entry->path, s,
				about->second_permille);
	if (about->ndim > TPD_FORMAT_MAX_DIMS)
		return tpd_fail(err, class, "manifest: '%s': segment %u has %u dimensions", entry->path, s, about->ndim);
	if (about->row < 1 || about->row > TPD_ROW_MAX)
		return tpd_fail(err, class, "manifest: '%s': segment %u has rows of %u elements", entry->path, s,
				about->row);
	if (about->stats && about->stats->has_delta && !m->has_w1)
		return tpd_fail(err, class, "manifest: '%s': segment %u has statistics against nothing", entry->path,
				s);
	return TPD_OK;
}

/* Segments 1.. ascending and disjoint inside the file, segment 0 exactly what they leave. */
static enum tpd_status check_place(const struct tpd_entry *entry, uint32_t s, struct tpd_manifest_sums *sums,
				   enum tpd_status class, struct tpd_err *err)
{
	const struct tpd_segment *seg = &entry->segments[s];

	if (s == 0) {
		sums->end = sums->covered = sums->stored = 0;
		if (seg->offset != 0)
			return tpd_fail(err, class, "manifest: '%s': segment 0 begins at %llu", entry->path,
					(unsigned long long)seg->offset);
		return TPD_OK;
	}
	if (seg->length == 0)
		return tpd_fail(err, class, "manifest: '%s': segment %u is empty", entry->path, s);
	if (seg->offset < sums->end || seg->offset > entry->size || seg->length > entry->size - seg->offset)
		return tpd_fail(err, class, "manifest: '%s': segment %u is not behind the one before and inside the file",
				entry->path, s);
	sums->end = seg->offset + seg->length;
	sums->covered += seg->length;
	return TPD_OK;
}

/* As far as it can be told without the referenced checkpoint. */
static enum tpd_status check_slabs(const struct tpd_entry *entry, uint32_t s, struct tpd_manifest_sums *sums,
				   enum tpd_status class, struct tpd_err *err)
{
	const struct tpd_segment *seg = &entry->segments[s];
	unsigned width = tpd_dtype_width(seg->dtype);
	uint64_t left = TPD_SLAB_OVERLAP_MAX * (seg->length / width); /* elements that slabs may still name */

	if (s == 0 || seg->length % width != 0 || seg->ref_segment < 1 || seg->ref_segment > TPD_SLABS_MAX)
		return tpd_fail(err, class, "manifest: '%s': segment %u cannot refer to %u slabs", entry->path, s,
				seg->ref_segment);
	for (uint32_t i = 0; i < seg->ref_segment; i++) {
		const struct tpd_slab *slab = &entry->slabs[seg->ref_file + i];

		if (!tpd_slab_fits(slab, seg->length / width, UINT64_MAX))
			return tpd_fail(err, class, "manifest: '%s': a slab of segment %u is not inside it", entry->path, s);
		if (slab->block * slab->count > left)
			return tpd_fail(err, class, "manifest: '%s': slabs of segment %u overlap too often", entry->path, s);
		left -= slab->block * slab->count;
	}
	return tpd_manifest_weigh(sums, seg->ref_segment, TPD_MANIFEST_WEIGHT_SLAB, class, err);
}

enum tpd_status tpd_manifest_check_segment(const struct tpd_manifest *m, const struct tpd_entry *entry, uint32_t s,
					   const struct tpd_segment_about *about, struct tpd_manifest_sums *sums,
					   enum tpd_status class, struct tpd_err *err)
{
	const struct tpd_segment *seg = &entry->segments[s];
	enum tpd_status status = check_about(m, entry, s, about, class, err);

	if (!status)
		status = check_place(entry, s, sums, class, err);
	if (status)
		return status;
	if (seg->dtype >= TPD_DTYPE_COUNT)
		return tpd_fail(err, class, "manifest: '%s': segment %u has an unknown type", entry->path, s);
	if (seg->has_ref && !seg->derived && !m->has_ref)
		return tpd_fail(err, class, "manifest: '%s': segment %u has a reference, the checkpoint none",
				entry->path, s);
	if (seg->has_ref && seg->converted &&
	    (!seg->in_slabs || seg->derived || (seg->dtype != TPD_DTYPE_F32 && !tpd_dtype_converts(TPD_DTYPE_F32, seg->dtype))))
		return tpd_fail(err, class, "manifest: '%s': segment %u cannot refer to another type", entry->path, s);
	if (seg->has_ref && seg->in_slabs) {
		status = check_slabs(entry, s, sums, class, err);
		if (status)
			return status;
	}
	if (TPD_ADD_OVERFLOW(sums->stored, about->stored, &sums->stored))
		return tpd_fail(err, class, "manifest: '%s': segment %u cannot be stored in %llu bytes", entry->path, s,
				(unsigned long long)about->stored);
	return tpd_manifest_weigh(sums, 1, strlen(about->name) + (about->stats ? TPD_MANIFEST_WEIGHT_STATS : 0), class,
				  err);
}

/* Parts hold the file's chunks one after the other, and just the payloads that the segments say. */
static enum tpd_status check_parts(const struct tpd_entry *entry, struct tpd_manifest_sums *sums, enum tpd_status class,
				   struct tpd_err *err)
{
	uint64_t chunks = tpd_entry_chunks(entry), next = 0, payload = 0;

	for (uint32_t p = 0; p < entry->part_count; p++) {
		const struct tpd_part_ref *part = &entry->parts[p];
		uint64_t frame;

		if (part->first_chunk != next || part->chunks == 0 || part->chunks > chunks - next)
			return tpd_fail(err, class, "manifest: '%s': part %u does not hold the chunks that follow",
					entry->path, p);
		next += part->chunks;
		if (part->chunks > UINT32_MAX) /* what a trailer can say */
			return tpd_fail(err, class, "manifest: '%s': part %u has too many chunks", entry->path, p);
		frame = TPD_PART_HEADER + part->chunks * TPD_PART_ENTRY + TPD_PART_TRAILER;
		if (part->bytes < frame || TPD_ADD_OVERFLOW(sums->bytes, part->bytes, &sums->bytes) ||
		    sums->bytes > TPD_MANIFEST_BYTES_MAX)
			return tpd_fail(err, class, "manifest: '%s': part %u cannot have %llu bytes", entry->path, p,
					(unsigned long long)part->bytes);
		payload += part->bytes - frame;
	}
	if (next != chunks)
		return tpd_fail(err, class, "manifest: '%s': its parts hold %llu of %llu chunks", entry->path,
				(unsigned long long)next, (unsigned long long)chunks);
	if (sums->stored != payload)
		return tpd_fail(err, class,
				"manifest: '%s': its segments are stored in %llu bytes, its parts hold %llu",
				entry->path, (unsigned long long)sums->stored, (unsigned long long)payload);
	return TPD_OK;
}

enum tpd_status tpd_manifest_check_file(const struct tpd_entry *entry, struct tpd_manifest_sums *sums, enum tpd_status class,
					struct tpd_err *err)
{
	if (entry->format >= TPD_FORMAT_KINDS)
		return tpd_fail(err, class, "manifest: '%s' has an unknown format", entry->path);
	if (entry->segment_count == 0 || entry->segments[0].length != entry->size - sums->covered)
		return tpd_fail(err, class, "manifest: '%s': its segments do not make up the file", entry->path);
	return check_parts(entry, sums, class, err);
}

bool tpd_manifest_is_source(const char *path)
{
	return is_utf8(path, TPD_MANIFEST_PATH_MAX);
}

enum tpd_status tpd_manifest_check_origin(const struct tpd_manifest *m, enum tpd_status class, struct tpd_err *err)
{
	if (!m->source || !tpd_manifest_is_source(m->source))
		return tpd_fail(err, class, "manifest: the source's path is too long or not UTF-8");
	if ((m->depth == 0) != !m->has_ref)
		return tpd_fail(err, class, "manifest: depth %u, and %s reference", m->depth, m->has_ref ? "a" : "no");
	if (m->ref_run && (!m->has_ref || !tpd_text_is_run_name(m->ref_run) || strcmp(m->ref_run, m->run) == 0))
		return tpd_fail(err, class, "manifest: '%s' is not the name of another run", m->ref_run);
	if (m->has_earlier && !m->has_ref)
		return tpd_fail(err, class, "manifest: an earlier checkpoint, and no reference");
	return TPD_OK;
}

/* Is there such a segment, with these elements? */
static bool holds(const struct tpd_manifest *m, const struct tpd_tie_end *place, uint64_t elements)
{
	const struct tpd_entry *entry;
	uint64_t all;

	if (place->file >= m->file_count)
		return false;
	entry = &m->entries[m->files[place->file]];
	if (place->segment < 1 || place->segment >= entry->segment_count)
		return false;
	all = entry->segments[place->segment].length / tpd_dtype_width(entry->segments[place->segment].dtype);
	return elements > 0 && place->first < all && elements <= all - place->first;
}

enum tpd_status tpd_manifest_check_tie(const struct tpd_manifest *m, const struct tpd_tie *before, const struct tpd_tie *tie,
				       enum tpd_status class, struct tpd_err *err)
{
	const struct tpd_tie_end *state = &tie->state, *owner = &tie->owner;

	if (!holds(m, state, tie->elements) || !holds(m, owner, tie->elements))
		return tpd_fail(err, class, "manifest: a tie of elements that there are not");
	if (state->file == owner->file && state->segment == owner->segment)
		return tpd_fail(err, class, "manifest: a tensor that is tied to itself");
	if (!before)
		return TPD_OK;
	if (before->state.file < state->file || (before->state.file == state->file && before->state.segment < state->segment))
		return TPD_OK;
	if (before->state.file == state->file && before->state.segment == state->segment && state->first >= before->state.first &&
	    state->first - before->state.first >= before->elements)
		return TPD_OK;
	return tpd_fail(err, class, "manifest: ties that overlap or do not ascend");
}

/* Slabs of this checkpoint: from what is not derived itself, so that there is no circle. */
static enum tpd_status check_derived(const struct tpd_manifest *m, const struct tpd_entry *entry, uint32_t s, enum tpd_status class,
				     struct tpd_err *err)
{
	const struct tpd_segment *seg = &entry->segments[s];

	for (uint32_t i = 0; i < seg->ref_segment; i++) {
		const struct tpd_slab *slab = &entry->slabs[seg->ref_file + i];
		const struct tpd_entry *file = slab->file < m->file_count ? &m->entries[m->files[slab->file]] : NULL;
		const struct tpd_segment *from =
			file && slab->segment > 0 && slab->segment < file->segment_count ? &file->segments[slab->segment] : NULL;

		if (!from || (from->has_ref && from->derived) || !tpd_dtype_derives(from->dtype, seg->dtype) ||
		    !tpd_slab_fits(slab, seg->length / tpd_dtype_width(seg->dtype), from->length / tpd_dtype_width(from->dtype)))
			return tpd_fail(err, class, "manifest: '%s': segment %u cannot be derived from that", entry->path, s);
	}
	return TPD_OK;
}

#define SCALES (TPD_TERM_SCALE | TPD_TERM_CAME_IN)
#define MOMENTS (TPD_TERM_BEFORE | TPD_TERM_NOW)

/*
 * A moment of a tensor: as long as it, of a float type, and not derived; before: it has one in the referenced checkpoint, too. Nothing is in a
 * circle, since an exp_avg (scaled) may itself be read with an exp_avg_sq, and that with no other of its checkpoint.
 */
static bool is_moment(const struct tpd_manifest *m, const struct tpd_segment *of, uint32_t file, uint32_t segment, bool scaled, bool before)
{
	const struct tpd_entry *entry = file < m->file_count ? &m->entries[m->files[file]] : NULL;
	const struct tpd_predictor *own;
	const struct tpd_segment *seg;

	if (!entry || segment < 1 || segment >= entry->segment_count)
		return false;
	seg = &entry->segments[segment];
	own = tpd_entry_predictor(entry, segment);
	if (own && !(scaled && (own->terms & ~SCALES) == 0))
		return false;
	return (seg->dtype == TPD_DTYPE_F32 || seg->dtype == TPD_DTYPE_BF16) &&
	       seg->length / tpd_dtype_width(seg->dtype) == of->length / tpd_dtype_width(of->dtype) && !(seg->has_ref && seg->derived) &&
	       (!before || seg->has_ref);
}

static bool is_predictor(const struct tpd_manifest *m, const struct tpd_segment *seg, const struct tpd_predictor *p)
{
	const bool before = p->terms & TPD_TERM_BEFORE;

	if (p->terms == 0 || p->terms > (SCALES | ((1u << TPD_TERM_COUNT) - 1)) || (seg->has_ref && seg->derived))
		return false;
	if (!seg->has_ref && p->terms != TPD_TERM_SCALE)
		return false;
	if (p->terms & SCALES) /* an exp_avg */
		return (p->terms & ~SCALES) == 0 && p->terms & TPD_TERM_SCALE && (seg->dtype == TPD_DTYPE_F32 || seg->dtype == TPD_DTYPE_BF16) &&
		       is_moment(m, seg, p->v_file, p->v_segment, false, p->terms & TPD_TERM_CAME_IN);
	if (!(seg->dtype == TPD_DTYPE_F32 || ((seg->dtype == TPD_DTYPE_BF16 || seg->dtype == TPD_DTYPE_F16) && !(p->terms & TPD_TERM_DECAY))))
		return false;
	if (p->terms & TPD_TERM_STEP && !m->has_earlier)
		return false;
	return !(p->terms & MOMENTS) ||
	       (is_moment(m, seg, p->m_file, p->m_segment, true, before) && is_moment(m, seg, p->v_file, p->v_segment, false, before));
}

static enum tpd_status check_predictors(const struct tpd_manifest *m, const struct tpd_entry *entry, enum tpd_status class, struct tpd_err *err)
{
	for (uint32_t i = 0; i < entry->predictor_count; i++)
		if (!is_predictor(m, &entry->segments[entry->predictors[i].segment], &entry->predictors[i]))
			return tpd_fail(err, class, "manifest: '%s': segment %u cannot be predicted from that", entry->path,
					entry->predictors[i].segment);
	return TPD_OK;
}

enum tpd_status tpd_manifest_check_within(const struct tpd_manifest *m, enum tpd_status class, struct tpd_err *err)
{
	enum tpd_status status = TPD_OK;

	for (uint32_t f = 0; !status && f < m->file_count; f++) {
		const struct tpd_entry *entry = &m->entries[m->files[f]];

		status = check_predictors(m, entry, class, err);
		for (uint32_t s = 0; !status && entry->slab_count > 0 && s < entry->segment_count; s++)
			if (entry->segments[s].has_ref && entry->segments[s].derived)
				status = check_derived(m, entry, s, class, err);
	}
	return status;
}

static enum tpd_status check_one(const struct tpd_manifest *m, const struct tpd_entry *entry, struct tpd_manifest_sums *sums,
				 enum tpd_status class, struct tpd_err *err)
{
	enum tpd_status status = TPD_OK;

	if (entry->segment_count > TPD_FORMAT_MAX_SEGMENTS + 1 || !entry->about)
		return tpd_fail(err, class, "manifest: '%s': %u segments, %s names", entry->path, entry->segment_count,
				entry->about ? "with" : "without");
	status = tpd_manifest_weigh(sums, entry->segment_count, TPD_MANIFEST_WEIGHT_SEGMENT, class, err);
	for (uint32_t s = 0; !status && s < entry->segment_count; s++)
		status = tpd_manifest_check_segment(m, entry, s, &entry->about[s], sums, class, err);
	if (!status)
		status = tpd_manifest_weigh(sums, entry->predictor_count, TPD_MANIFEST_WEIGHT_PREDICTOR, class, err);
	if (!status)
		status = tpd_manifest_weigh(sums, entry->part_count, TPD_MANIFEST_WEIGHT_PART, class, err);
	return status ? status : tpd_manifest_check_file(entry, sums, class, err);
}

enum tpd_status tpd_manifest_check_physical(const struct tpd_manifest *m, enum tpd_status class, struct tpd_err *err)
{
	struct tpd_manifest_sums sums = {0};
	enum tpd_status status = tpd_manifest_check_origin(m, class, err);

	for (uint32_t i = 0; !status && i < m->entry_count; i++)
		status = tpd_manifest_weigh(&sums, 1, tpd_entry_weight(&m->entries[i]), class, err);
	for (uint32_t f = 0; !status && f < m->file_count; f++)
		status = check_one(m, &m->entries[m->files[f]], &sums, class, err);
	if (!status)
		status = tpd_manifest_check_within(m, class, err);
	if (!status)
		status = tpd_manifest_weigh(&sums, m->tie_count, TPD_MANIFEST_WEIGHT_TIE, class, err);
	for (uint32_t t = 0; !status && t < m->tie_count; t++) {
		if (m->ties[t].kind < TPD_STATE_EXP_AVG || m->ties[t].kind >= TPD_STATE_KINDS)
			return tpd_fail(err, class, "manifest: a tie of an unknown kind");
		status = tpd_manifest_check_tie(m, t ? &m->ties[t - 1] : NULL, &m->ties[t], class, err);
	}
	return status;
}
