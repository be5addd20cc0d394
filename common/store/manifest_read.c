/*
 * manifest_read.c - parse a manifest that somebody else may have written.
 *
 * The frame is unpacked once header and digest are right; then the fields are read, where a number that this version does
 * not know is TPD_UNSUPPORTED, and the rules of manifest.c are asked of each segment as it comes, whether it is kept or not.
 * Counts are compared with the bytes that remain, and weighed before anything is made for them, so that a small file
 * cannot ask for much memory.
 * Only a digest that is right makes a version count: a flipped bit in it is corrupt, not "newer".
 */
#include "base/tpd.h"

#include "store/manifest.h"

#include <stdlib.h>
#include <string.h>

#include "store/manifest_internal.h"

/* The fewest bytes that one of them takes. */
#define MIN_ENTRY 4
#define MIN_SEGMENT 10
#define MIN_PART 26
#define MIN_TIE 9
#define MIN_SLAB 6
#define MAX_STRING TPD_FORMAT_MAX_NAME /* the longest of all */
/* Zstandard's best case: a block of 128 KiB from 4 bytes. */
#define MAX_EXPANSION ((128u << 10) / 4)

struct reader {
	struct tpd_rd rd;
	unsigned version;
	enum tpd_manifest_keep keep;
	struct tpd_manifest_sums sums;
};

static enum tpd_status too_short(struct tpd_err *err)
{
	return tpd_fail(err, TPD_CORRUPT, "manifest: a field is cut short or not in its shortest form");
}

static enum tpd_status unknown(struct tpd_err *err, const char *what, uint64_t number)
{
	return tpd_fail(err, TPD_UNSUPPORTED, "manifest: %s %llu is unknown to this version", what,
			(unsigned long long)number);
}

/* Like tpd_rd_str(), but tells why. */
static enum tpd_status read_str(struct tpd_rd *rd, const char *what, char **out, struct tpd_err *err)
{
	uint64_t len = tpd_rd_varint(rd);
	const uint8_t *p = tpd_rd_bytes(rd, len);
	char *s;

	if (!p)
		return too_short(err);
	if (len > MAX_STRING) /* no rule allows it; seen before it is copied */
		return tpd_fail(err, TPD_CORRUPT, "manifest: a %s of %llu bytes", what, (unsigned long long)len);
	if (memchr(p, 0, (size_t)len))
		return tpd_fail(err, TPD_CORRUPT, "manifest: a %s holds a zero byte", what);
	s = malloc((size_t)len + 1);
	if (!s)
		return tpd_fail_nomem(err);
	memcpy(s, p, (size_t)len);
	s[len] = 0;
	*out = s;
	return TPD_OK;
}

static enum tpd_status read_u32(struct tpd_rd *rd, const char *what, uint32_t *out, struct tpd_err *err)
{
	uint64_t v = tpd_rd_varint(rd);

	if (!tpd_rd_ok(rd))
		return too_short(err);
	if (v > UINT32_MAX)
		return tpd_fail(err, TPD_CORRUPT, "manifest: %llu is too large for a %s", (unsigned long long)v, what);
	*out = (uint32_t)v;
	return TPD_OK;
}

/* How many there are: never more than the bytes that follow can hold. */
static enum tpd_status read_count(struct tpd_rd *rd, const char *what, size_t min, uint32_t max, uint32_t *out,
				  struct tpd_err *err)
{
	enum tpd_status status = read_u32(rd, what, out, err);

	if (!status && *out > max)
		return tpd_fail(err, TPD_CORRUPT, "manifest: %u times '%s', and at most %u can be", *out, what, max);
	if (!status && *out > tpd_rd_left(rd) / min)
		return tpd_fail(err, TPD_CORRUPT, "manifest: %u times '%s' in %zu bytes", *out, what, tpd_rd_left(rd));
	return status;
}

static enum tpd_status read_u8(struct tpd_rd *rd, const char *what, unsigned count, unsigned *out, struct tpd_err *err)
{
	uint8_t v = tpd_rd_u8(rd);

	if (!tpd_rd_ok(rd))
		return too_short(err);
	if (v >= count)
		return unknown(err, what, v);
	*out = v;
	return TPD_OK;
}

static enum tpd_status read_entry(struct tpd_rd *rd, struct tpd_entry *entry, struct tpd_err *err)
{
	enum tpd_status status = read_str(rd, "path", &entry->path, err);
	const uint8_t *sha;
	unsigned type = 0;

	if (!status)
		status = read_u8(rd, "entry type", TPD_ENTRY_DIR + 1, &type, err);
	if (!status)
		status = read_u32(rd, "mode", &entry->mode, err);
	if (status)
		return status;
	entry->type = (enum tpd_entry_type)type;
	if (entry->type == TPD_ENTRY_SYMLINK)
		return read_str(rd, "link", &entry->target, err);
	if (entry->type != TPD_ENTRY_FILE)
		return TPD_OK;
	entry->size = tpd_rd_varint(rd);
	sha = tpd_rd_bytes(rd, sizeof(entry->sha256));
	if (!sha)
		return too_short(err);
	memcpy(entry->sha256, sha, sizeof(entry->sha256));
	return TPD_OK;
}

static enum tpd_status read_logical(struct reader *r, struct tpd_manifest *m, struct tpd_err *err)
{
	struct tpd_rd *rd = &r->rd;
	const uint8_t *start = rd->p;
	uint32_t count = 0;
	unsigned kind = 0;
	enum tpd_status status = read_str(rd, "run", &m->run, err);

	if (status)
		return status;
	m->step = tpd_rd_varint(rd);
	status = read_u8(rd, "kind of checkpoint", TPD_CHECKPOINT_FILE + 1, &kind, err);
	if (!status)
		status = read_count(rd, "entry", MIN_ENTRY, TPD_MANIFEST_MAX_ENTRIES, &count, err);
	if (status)
		return status;
	m->kind = (enum tpd_checkpoint_kind)kind;
	m->entries = calloc(count + 1u, sizeof(*m->entries));
	if (!m->entries)
		return tpd_fail_nomem(err);
	while (!status && m->entry_count < count) {
		struct tpd_entry *entry = &m->entries[m->entry_count++];

		status = read_entry(rd, entry, err);
		if (!status)
			status = tpd_manifest_weigh(&r->sums, 1, tpd_entry_weight(entry), TPD_CORRUPT, err);
	}
	if (!status)
		status = tpd_manifest_identify(start, (size_t)(rd->p - start), &m->id, err);
	return status;
}

/* The reference or w1. *out_kind: below `kinds`; 0: there is none. */
static enum tpd_status read_id(struct tpd_rd *rd, unsigned kinds, unsigned *out_kind, struct tpd_id *out_id, uint64_t *out_step,
			       struct tpd_err *err)
{
	enum tpd_status status = read_u8(rd, "kind of reference", kinds, out_kind, err);
	const uint8_t *id;

	if (status || !*out_kind)
		return status;
	id = tpd_rd_bytes(rd, sizeof(out_id->bytes));
	*out_step = tpd_rd_varint(rd);
	if (!id || !tpd_rd_ok(rd))
		return too_short(err);
	memcpy(out_id->bytes, id, sizeof(out_id->bytes));
	return TPD_OK;
}

static void read_counts(struct tpd_rd *rd, uint64_t *out, size_t n)
{
	for (size_t i = 0; i < n; i++)
		out[i] = tpd_rd_varint(rd);
}

static enum tpd_status read_stats(struct tpd_rd *rd, bool delta, struct tpd_sparsity *out, struct tpd_err *err)
{
	enum tpd_status status;

	out->count = tpd_rd_varint(rd);
	out->nan = tpd_rd_varint(rd);
	out->inf = tpd_rd_varint(rd);
	out->value_min = tpd_rd_f64(rd);
	out->value_max = tpd_rd_f64(rd);
	out->value_rms = tpd_rd_f64(rd);
	out->has_delta = delta;
	if (!delta)
		return tpd_rd_ok(rd) ? TPD_OK : too_short(err);
	out->pairs = tpd_rd_varint(rd);
	out->zeros = tpd_rd_varint(rd);
	read_counts(rd, out->raw, TPD_SPARSITY_REAL);
	read_counts(rd, out->minmax, TPD_SPARSITY_REAL);
	read_counts(rd, out->ulps, TPD_SPARSITY_ULPS);
	out->delta_min = tpd_rd_f64(rd);
	out->delta_max = tpd_rd_f64(rd);
	out->delta_rms = tpd_rd_f64(rd);
	status = read_u32(rd, "stride", &out->percentile_stride, err);
	if (status)
		return status;
	for (size_t i = 0; i < TPD_SPARSITY_PCTS; i++)
		out->percentile[i] = tpd_rd_f64(rd);
	out->gap_count = tpd_rd_varint(rd);
	out->gap_elias_bits = tpd_rd_f64(rd);
	out->gap_rice_bits = tpd_rd_f64(rd);
	out->gap_entropy = tpd_rd_f64(rd);
	return tpd_rd_ok(rd) ? TPD_OK : too_short(err);
}

static enum tpd_status read_segment_ref(struct tpd_rd *rd, struct tpd_segment *seg, struct tpd_err *err)
{
	uint64_t first, elements;
	enum tpd_status status = read_u32(rd, "file number", &seg->ref_file, err);

	if (!status)
		status = read_u32(rd, "segment number", &seg->ref_segment, err);
	if (status)
		return status;
	first = tpd_rd_varint(rd);
	elements = tpd_rd_varint(rd);
	if (!tpd_rd_ok(rd))
		return too_short(err);
	if (first != 0)
		return unknown(err, "a reference to elements from", first);
	if (elements != seg->length / tpd_dtype_width(seg->dtype))
		return tpd_fail(err, TPD_CORRUPT, "manifest: a segment refers to %llu elements and has others",
				(unsigned long long)elements);
	return TPD_OK;
}

static enum tpd_status read_slab(struct tpd_rd *rd, struct tpd_slab *slab, struct tpd_err *err)
{
	enum tpd_status status = read_u32(rd, "file number", &slab->file, err);

	if (!status)
		status = read_u32(rd, "segment number", &slab->segment, err);
	if (status)
		return status;
	slab->start = tpd_rd_varint(rd);
	slab->ref_start = tpd_rd_varint(rd);
	slab->block = tpd_rd_varint(rd);
	slab->count = tpd_rd_varint(rd);
	slab->stride = slab->count > 1 ? tpd_rd_varint(rd) : 0;
	slab->ref_stride = slab->count > 1 ? tpd_rd_varint(rd) : 0;
	return tpd_rd_ok(rd) ? TPD_OK : too_short(err);
}

static enum tpd_status read_slabs(struct tpd_rd *rd, struct tpd_entry *entry, uint32_t s, bool derived, struct tpd_err *err)
{
	struct tpd_slab slabs[TPD_SLABS_MAX];
	uint32_t count = 0;
	enum tpd_status status = read_count(rd, "slab", MIN_SLAB, TPD_SLABS_MAX, &count, err);

	for (uint32_t i = 0; !status && i < count; i++)
		status = read_slab(rd, &slabs[i], err);
	return status ? status : tpd_entry_refer(entry, s, slabs, count, derived, err);
}

/* w0, weights of 16 bits, and exp_avg by exp_avg_sq alone. */
static bool is_of_version_6(const struct tpd_segment *seg, unsigned terms)
{
	if (terms & (TPD_TERM_SCALE | TPD_TERM_CAME_IN))
		return !seg->has_ref;
	return (terms & TPD_TERM_STEP) || seg->dtype != TPD_DTYPE_F32;
}

/* As far as it can be read alone; what it names is looked at when all is there. */
static enum tpd_status read_predictor(struct reader *r, struct tpd_entry *entry, uint32_t s, struct tpd_err *err)
{
	struct tpd_predictor predictor = {.segment = s};
	unsigned terms = 0;
	enum tpd_status status = read_u8(&r->rd, "terms", r->version >= 5 ? 2 * TPD_TERM_CAME_IN : 1u << TPD_TERM_COUNT, &terms, err);

	if (status || terms == 0)
		return status;
	if (r->version < 6 && is_of_version_6(&entry->segments[s], terms))
		return tpd_fail(err, TPD_CORRUPT, "manifest: segment %u is predicted in a way that this version does not know", s);
	predictor.terms = (uint8_t)terms;
	if (terms & TPD_TERM_STEP) {
		status = read_u32(&r->rd, "file number", &predictor.w0_file, err);
		if (!status)
			status = read_u32(&r->rd, "segment number", &predictor.w0_segment, err);
	}
	if (!status && terms & (TPD_TERM_BEFORE | TPD_TERM_NOW)) {
		status = read_u32(&r->rd, "file number", &predictor.m_file, err);
		if (!status)
			status = read_u32(&r->rd, "segment number", &predictor.m_segment, err);
	}
	if (!status && terms & (TPD_TERM_BEFORE | TPD_TERM_NOW | TPD_TERM_SCALE)) {
		status = read_u32(&r->rd, "file number", &predictor.v_file, err);
		if (!status)
			status = read_u32(&r->rd, "segment number", &predictor.v_segment, err);
	}
	if (!status)
		status = tpd_manifest_weigh(&r->sums, 1, TPD_MANIFEST_WEIGHT_PREDICTOR, TPD_CORRUPT, err);
	return status ? status : tpd_entry_predict(entry, &predictor, err);
}

static enum tpd_status read_second(struct tpd_rd *rd, struct tpd_segment_about *about, struct tpd_err *err)
{
	unsigned second = 0;
	enum tpd_status status = read_u32(rd, "comparison", &about->second_permille, err);

	if (status || about->second_permille == 0)
		return status;
	status = read_u8(rd, "encoding", TPD_ENCODING_COUNT, &second, err);
	about->second = (enum tpd_encoding)second;
	return !status && !tpd_encoding_is_known(about->second) ? unknown(err, "encoding", second) : status;
}

/* Up to the number of its payload bytes. */
static enum tpd_status read_outline(struct reader *r, struct tpd_segment *seg, struct tpd_segment_about *about, struct tpd_err *err)
{
	struct tpd_rd *rd = &r->rd;
	unsigned dtype = 0, planned = 0;
	enum tpd_status status = read_str(rd, "name", &about->name, err);

	if (!status)
		status = read_u8(rd, "element type", TPD_DTYPE_COUNT, &dtype, err);
	if (status)
		return status;
	seg->dtype = (enum tpd_dtype)dtype;
	seg->offset = tpd_rd_varint(rd);
	seg->length = tpd_rd_varint(rd);
	status = read_u32(rd, "number of dimensions", &about->ndim, err);
	if (!status && about->ndim > TPD_FORMAT_MAX_DIMS)
		status = tpd_fail(err, TPD_CORRUPT, "manifest: a segment has %u dimensions", about->ndim);
	if (status)
		return status;
	read_counts(rd, about->dims, about->ndim);
	status = read_u32(rd, "row length", &about->row, err);
	if (!status)
		status = read_u8(rd, "encoding", TPD_ENCODING_COUNT, &planned, err);
	about->planned = (enum tpd_encoding)planned;
	if (!status && !tpd_encoding_is_known(about->planned))
		status = unknown(err, "encoding", planned);
	if (!status && r->version >= 7)
		status = read_second(rd, about, err);
	about->stored = tpd_rd_varint(rd);
	return status;
}

static enum tpd_status read_segment(struct reader *r, struct tpd_entry *entry, uint32_t s, struct tpd_segment_about *about,
				    struct tpd_err *err)
{
	struct tpd_rd *rd = &r->rd;
	struct tpd_segment *seg = &entry->segments[s];
	unsigned ref = 0, stats = 0;
	enum tpd_status status = read_outline(r, seg, about, err);

	if (!status)
		status = read_u8(rd, "kind of reference", r->version >= 5 ? 5 : r->version >= 3 ? 4 : 2, &ref, err);
	if (!status && ref == 1) {
		seg->has_ref = true;
		status = read_segment_ref(rd, seg, err);
	} else if (!status && ref > 1) {
		status = read_slabs(rd, entry, s, ref == 3, err);
		seg->converted = ref == 4;
	}
	if (!status && r->version >= 4)
		status = read_predictor(r, entry, s, err);
	if (!status)
		status = read_u8(rd, "kind of statistics", 3, &stats, err);
	if (status || !stats)
		return status;
	about->stats = calloc(1, sizeof(*about->stats));
	return about->stats ? read_stats(rd, stats == 2, about->stats, err) : tpd_fail_nomem(err);
}

static enum tpd_status read_segments(struct reader *r, const struct tpd_manifest *m, struct tpd_entry *entry,
				     struct tpd_err *err)
{
	uint32_t count = 0;
	enum tpd_status status = read_count(&r->rd, "segment", MIN_SEGMENT, TPD_FORMAT_MAX_SEGMENTS + 1, &count, err);

	if (!status)
		status = tpd_manifest_weigh(&r->sums, count, TPD_MANIFEST_WEIGHT_SEGMENT, TPD_CORRUPT, err);
	if (status)
		return status;
	entry->segments = calloc(count + 1u, sizeof(*entry->segments));
	entry->about = r->keep >= TPD_MANIFEST_ABOUT ? calloc(count + 1u, sizeof(*entry->about)) : NULL;
	if (!entry->segments || (r->keep >= TPD_MANIFEST_ABOUT && !entry->about))
		return tpd_fail_nomem(err);
	while (!status && entry->segment_count < count) {
		uint32_t s = entry->segment_count++;
		struct tpd_segment_about passing = {0}, *about = entry->about ? &entry->about[s] : &passing;

		status = read_segment(r, entry, s, about, err);
		if (!status)
			status = tpd_manifest_check_segment(m, entry, s, about, &r->sums, TPD_CORRUPT, err);
		if (r->keep < TPD_MANIFEST_ALL) {
			free(about->stats);
			about->stats = NULL;
		}
		free(passing.name);
	}
	return status;
}

static enum tpd_status read_part(struct tpd_rd *rd, struct tpd_part_ref *part, struct tpd_err *err)
{
	const uint8_t *digest;

	part->first_chunk = tpd_rd_varint(rd);
	part->chunks = tpd_rd_varint(rd);
	part->bytes = tpd_rd_u64(rd);
	digest = tpd_rd_bytes(rd, TPD_XXH_LEN);
	if (!digest)
		return too_short(err);
	memcpy(part->trailer_digest, digest, TPD_XXH_LEN);
	return TPD_OK;
}

static enum tpd_status read_file(struct reader *r, const struct tpd_manifest *m, struct tpd_entry *entry, struct tpd_err *err)
{
	uint32_t parts = 0;
	unsigned format = 0;
	enum tpd_status status = read_u8(&r->rd, "file format", TPD_FORMAT_KINDS, &format, err);

	entry->format = (enum tpd_format_kind)format;
	if (!status)
		status = read_segments(r, m, entry, err);
	if (!status)
		status = read_count(&r->rd, "part", MIN_PART, UINT32_MAX, &parts, err);
	if (!status)
		status = tpd_manifest_weigh(&r->sums, parts, TPD_MANIFEST_WEIGHT_PART, TPD_CORRUPT, err);
	if (status)
		return status;
	entry->parts = calloc(parts + 1u, sizeof(*entry->parts));
	if (!entry->parts)
		return tpd_fail_nomem(err);
	while (!status && entry->part_count < parts)
		status = read_part(&r->rd, &entry->parts[entry->part_count++], err);
	return status ? status : tpd_manifest_check_file(entry, &r->sums, TPD_CORRUPT, err);
}

static enum tpd_status read_place(struct tpd_rd *rd, struct tpd_tie_end *place, struct tpd_err *err)
{
	enum tpd_status status = read_u32(rd, "file number", &place->file, err);

	if (!status)
		status = read_u32(rd, "segment number", &place->segment, err);
	place->first = tpd_rd_varint(rd);
	return status;
}

static enum tpd_status read_tie(struct tpd_rd *rd, struct tpd_tie *tie, struct tpd_err *err)
{
	unsigned kind = 0, checked = 0;
	enum tpd_status status = read_u8(rd, "kind of tie", TPD_STATE_KINDS, &kind, err);

	if (!status && kind == 0)
		status = tpd_fail(err, TPD_CORRUPT, "manifest: there is no tie of kind 0");
	if (!status)
		status = read_place(rd, &tie->state, err);
	if (!status)
		status = read_place(rd, &tie->owner, err);
	if (status)
		return status;
	tie->kind = (enum tpd_state_kind)kind;
	tie->elements = tpd_rd_varint(rd);
	status = read_u8(rd, "word on a tie", 2, &checked, err);
	tie->checked = checked;
	return status;
}

/* m's files are derived. */
static enum tpd_status read_ties(struct reader *r, struct tpd_manifest *m, struct tpd_err *err)
{
	struct tpd_tie before = {0}, tie = {0};
	uint32_t count = 0;
	enum tpd_status status = read_count(&r->rd, "tie", MIN_TIE, UINT32_MAX, &count, err);

	if (!status)
		status = tpd_manifest_weigh(&r->sums, count, TPD_MANIFEST_WEIGHT_TIE, TPD_CORRUPT, err);
	if (!status && r->keep >= TPD_MANIFEST_ABOUT) {
		m->ties = calloc(count + 1u, sizeof(*m->ties));
		if (!m->ties)
			return tpd_fail_nomem(err);
	}
	for (uint32_t t = 0; !status && t < count; t++) {
		status = read_tie(&r->rd, &tie, err);
		if (!status)
			status = tpd_manifest_check_tie(m, t ? &before : NULL, &tie, TPD_CORRUPT, err);
		if (!status && m->ties)
			m->ties[m->tie_count++] = tie;
		before = tie;
	}
	return status;
}

static enum tpd_status read_physical(struct reader *r, struct tpd_manifest *m, struct tpd_err *err)
{
	struct tpd_rd *rd = &r->rd;
	unsigned ref = 0, w1 = 0, earlier = 0;
	enum tpd_status status;

	m->created_ns = (int64_t)tpd_rd_u64(rd);
	status = read_str(rd, "source", &m->source, err);
	for (uint32_t i = 0; !status && i < m->entry_count; i++)
		m->entries[i].mtime_ns = (int64_t)tpd_rd_u64(rd);
	if (!status)
		status = read_id(rd, r->version >= 5 ? 3 : 2, &ref, &m->ref, &m->ref_step, err);
	if (!status && ref == 2)
		status = read_str(rd, "run", &m->ref_run, err);
	if (!status)
		status = read_id(rd, 2, &w1, &m->w1, &m->w1_step, err);
	if (!status && r->version >= 6)
		status = read_id(rd, 2, &earlier, &m->earlier, &m->earlier_step, err);
	m->has_ref = ref != 0;
	m->has_w1 = w1 != 0;
	m->has_earlier = earlier != 0;
	if (!status)
		status = read_u32(rd, "depth", &m->depth, err);
	if (!status)
		status = tpd_manifest_check_origin(m, TPD_CORRUPT, err);
	for (uint32_t i = 0; !status && i < m->entry_count; i++)
		if (m->entries[i].type == TPD_ENTRY_FILE)
			status = read_file(r, m, &m->entries[i], err);
	if (!status)
		status = tpd_manifest_derive(m, err);
	if (!status)
		status = tpd_manifest_check_within(m, TPD_CORRUPT, err);
	if (!status && r->version >= 2)
		status = read_ties(r, m, err);
	if (!status && tpd_rd_left(rd) > 0)
		status = tpd_fail(err, TPD_CORRUPT, "manifest: %zu bytes too many", tpd_rd_left(rd));
	return status;
}

static enum tpd_status read_body(const uint8_t *body, size_t len, unsigned version, enum tpd_manifest_keep keep,
				 struct tpd_manifest *m, struct tpd_err *err)
{
	struct reader r = {.rd = tpd_rd_make(body, len), .version = version, .keep = keep};
	enum tpd_status status = read_logical(&r, m, err);

	/* These rules first: what follows is about these entries. */
	if (!status)
		status = tpd_manifest_check_logical(m, TPD_CORRUPT, err);
	if (!status)
		status = read_physical(&r, m, err);
	return status;
}

/* *out_size: bytes of the body; the frame is all that follows the header. */
static enum tpd_status read_header(const uint8_t *data, size_t len, unsigned *out_version, size_t *out_size, struct tpd_err *err)
{
	uint8_t digest[TPD_XXH_LEN];
	uint64_t packed, size;

	if (len < TPD_MANIFEST_HEADER || memcmp(data, TPD_MANIFEST_MAGIC, 8) != 0)
		return tpd_fail(err, TPD_CORRUPT, "this is not a manifest");
	tpd_xxh128(data, TPD_MANIFEST_SIGNED, digest);
	if (memcmp(digest, data + TPD_MANIFEST_SIGNED, sizeof(digest)) != 0)
		return tpd_fail(err, TPD_CORRUPT, "manifest: its header does not have its digest");
	if (tpd_get_u32(data + 8) > TPD_MANIFEST_VERSION)
		return unknown(err, "version", tpd_get_u32(data + 8));
	if (tpd_get_u32(data + 8) == 0)
		return tpd_fail(err, TPD_CORRUPT, "manifest: there is no version 0");
	if (tpd_get_u32(data + 12) != 0)
		return unknown(err, "a flag of", tpd_get_u32(data + 12));
	packed = tpd_get_u64(data + 16);
	size = tpd_get_u64(data + 24);
	if (packed != len - TPD_MANIFEST_HEADER)
		return tpd_fail(err, TPD_CORRUPT, "manifest: %zu bytes behind its header instead of %llu",
				len - TPD_MANIFEST_HEADER, (unsigned long long)packed);
	if (size > TPD_MANIFEST_MAX_BODY || size / MAX_EXPANSION > packed)
		return tpd_fail(err, TPD_CORRUPT, "manifest: a body of %llu bytes cannot be", (unsigned long long)size);
	tpd_xxh128(data + TPD_MANIFEST_HEADER, (size_t)packed, digest);
	if (memcmp(digest, data + 32, sizeof(digest)) != 0)
		return tpd_fail(err, TPD_CORRUPT, "manifest: its body does not have its digest");
	*out_version = tpd_get_u32(data + 8);
	*out_size = (size_t)size;
	return TPD_OK;
}

enum tpd_status tpd_manifest_parse(const void *data, size_t len, enum tpd_manifest_keep keep, struct tpd_manifest *out,
				   struct tpd_err *err)
{
	const uint8_t *bytes = data;
	struct tpd_manifest m = {0};
	TPD_AUTO_FREE uint8_t *body = NULL;
	size_t size = 0;
	unsigned version = 0;
	enum tpd_status status = read_header(bytes, len, &version, &size, err);

	if (status)
		return status;
	body = malloc(size + 1);
	if (!body)
		return tpd_fail_nomem(err);
	status = tpd_zstd_unpack(bytes + TPD_MANIFEST_HEADER, len - TPD_MANIFEST_HEADER, body, size, err);
	if (status) {
		if (err)
			tpd_err_prefix(err, "manifest");
		return status;
	}
	status = read_body(body, size, version, keep, &m, err);
	if (status) {
		tpd_manifest_release(&m);
		return status;
	}
	*out = m;
	return TPD_OK;
}
