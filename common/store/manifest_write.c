/*
 * manifest_write.c - the bytes of a manifest (FORMAT.md section 2).
 *
 * A plain list of fields in the order of the format; what would break a rule is refused before a byte is made.
 */
#include "base/tpd.h"

#include "store/manifest.h"

#include <assert.h>
#include <stdlib.h>

#include "store/manifest_internal.h"

void tpd_manifest_put_logical(const struct tpd_manifest *m, struct tpd_buf *out)
{
	tpd_buf_str(out, m->run);
	tpd_buf_varint(out, m->step);
	tpd_buf_u8(out, (uint8_t)m->kind);
	tpd_buf_varint(out, m->entry_count);
	for (uint32_t i = 0; i < m->entry_count; i++) {
		const struct tpd_entry *entry = &m->entries[i];

		tpd_buf_str(out, entry->path);
		tpd_buf_u8(out, (uint8_t)entry->type);
		tpd_buf_varint(out, entry->mode);
		if (entry->type == TPD_ENTRY_FILE) {
			tpd_buf_varint(out, entry->size);
			tpd_buf_put(out, entry->sha256, sizeof(entry->sha256));
		} else if (entry->type == TPD_ENTRY_SYMLINK) {
			tpd_buf_str(out, entry->target);
		}
	}
}

static void put_id(struct tpd_buf *out, uint8_t kind, const struct tpd_id *id, uint64_t step)
{
	tpd_buf_u8(out, kind);
	if (!kind)
		return;
	tpd_buf_put(out, id->bytes, sizeof(id->bytes));
	tpd_buf_varint(out, step);
}

static void put_counts(struct tpd_buf *out, const uint64_t *counts, size_t n)
{
	for (size_t i = 0; i < n; i++)
		tpd_buf_varint(out, counts[i]);
}

static void put_stats(struct tpd_buf *out, const struct tpd_sparsity *stats)
{
	put_counts(out, (const uint64_t[]){stats->count, stats->nan, stats->inf}, 3);
	tpd_buf_f64(out, stats->value_min);
	tpd_buf_f64(out, stats->value_max);
	tpd_buf_f64(out, stats->value_rms);
	if (!stats->has_delta)
		return;
	put_counts(out, (const uint64_t[]){stats->pairs, stats->zeros}, 2);
	put_counts(out, stats->raw, TPD_SPARSITY_REAL);
	put_counts(out, stats->minmax, TPD_SPARSITY_REAL);
	put_counts(out, stats->ulps, TPD_SPARSITY_ULPS);
	tpd_buf_f64(out, stats->delta_min);
	tpd_buf_f64(out, stats->delta_max);
	tpd_buf_f64(out, stats->delta_rms);
	tpd_buf_varint(out, stats->percentile_stride);
	for (size_t i = 0; i < TPD_SPARSITY_PCTS; i++)
		tpd_buf_f64(out, stats->percentile[i]);
	tpd_buf_varint(out, stats->gap_count);
	tpd_buf_f64(out, stats->gap_elias_bits);
	tpd_buf_f64(out, stats->gap_rice_bits);
	tpd_buf_f64(out, stats->gap_entropy);
}

static void put_slab(struct tpd_buf *out, const struct tpd_slab *slab)
{
	put_counts(out, (const uint64_t[]){slab->file, slab->segment, slab->start, slab->ref_start, slab->block, slab->count}, 6);
	if (slab->count > 1)
		put_counts(out, (const uint64_t[]){slab->stride, slab->ref_stride}, 2);
}

static void put_reference(struct tpd_buf *out, const struct tpd_entry *entry, const struct tpd_segment *seg)
{
	tpd_buf_u8(out, !seg->has_ref ? 0 : !seg->in_slabs ? 1 : seg->derived ? 3 : seg->converted ? 4 : 2);
	if (seg->has_ref && seg->in_slabs) {
		tpd_buf_varint(out, seg->ref_segment);
		for (uint32_t i = 0; i < seg->ref_segment; i++)
			put_slab(out, &entry->slabs[seg->ref_file + i]);
	} else if (seg->has_ref) {
		tpd_buf_varint(out, seg->ref_file);
		tpd_buf_varint(out, seg->ref_segment);
		tpd_buf_varint(out, 0); /* first element */
		tpd_buf_varint(out, seg->length / tpd_dtype_width(seg->dtype));
	}
}

static void put_predictor(struct tpd_buf *out, const struct tpd_predictor *p)
{
	tpd_buf_u8(out, p ? p->terms : 0);
	if (p && p->terms & TPD_TERM_STEP)
		put_counts(out, (const uint64_t[]){p->w0_file, p->w0_segment}, 2);
	if (p && p->terms & (TPD_TERM_BEFORE | TPD_TERM_NOW))
		put_counts(out, (const uint64_t[]){p->m_file, p->m_segment}, 2);
	if (p && p->terms & (TPD_TERM_BEFORE | TPD_TERM_NOW | TPD_TERM_SCALE))
		put_counts(out, (const uint64_t[]){p->v_file, p->v_segment}, 2);
}

static void put_segment(struct tpd_buf *out, const struct tpd_entry *entry, uint32_t s)
{
	const struct tpd_segment *seg = &entry->segments[s];
	const struct tpd_segment_about *about = &entry->about[s];

	tpd_buf_str(out, about->name);
	tpd_buf_u8(out, (uint8_t)seg->dtype);
	tpd_buf_varint(out, seg->offset);
	tpd_buf_varint(out, seg->length);
	tpd_buf_varint(out, about->ndim);
	put_counts(out, about->dims, about->ndim);
	tpd_buf_varint(out, about->row);
	tpd_buf_u8(out, (uint8_t)about->planned);
	tpd_buf_varint(out, about->second_permille);
	if (about->second_permille)
		tpd_buf_u8(out, (uint8_t)about->second);
	tpd_buf_varint(out, about->stored);
	put_reference(out, entry, seg);
	put_predictor(out, tpd_entry_predictor(entry, s));
	tpd_buf_u8(out, !about->stats ? 0 : about->stats->has_delta ? 2 : 1);
	if (about->stats)
		put_stats(out, about->stats);
}

static void put_file(struct tpd_buf *out, const struct tpd_entry *entry)
{
	tpd_buf_u8(out, (uint8_t)entry->format);
	tpd_buf_varint(out, entry->segment_count);
	for (uint32_t s = 0; s < entry->segment_count; s++)
		put_segment(out, entry, s);
	tpd_buf_varint(out, entry->part_count);
	for (uint32_t p = 0; p < entry->part_count; p++) {
		tpd_buf_varint(out, entry->parts[p].first_chunk);
		tpd_buf_varint(out, entry->parts[p].chunks);
		tpd_buf_u64(out, entry->parts[p].bytes);
		tpd_buf_put(out, entry->parts[p].trailer_digest, TPD_XXH_LEN);
	}
}

static void put_place(struct tpd_buf *out, const struct tpd_tie_end *place)
{
	put_counts(out, (const uint64_t[]){place->file, place->segment, place->first}, 3);
}

static void put_ties(struct tpd_buf *out, const struct tpd_manifest *m)
{
	tpd_buf_varint(out, m->tie_count);
	for (uint32_t t = 0; t < m->tie_count; t++) {
		const struct tpd_tie *tie = &m->ties[t];

		tpd_buf_u8(out, (uint8_t)tie->kind);
		put_place(out, &tie->state);
		put_place(out, &tie->owner);
		tpd_buf_varint(out, tie->elements);
		tpd_buf_u8(out, tie->checked);
	}
}

static void put_physical(struct tpd_buf *out, const struct tpd_manifest *m)
{
	tpd_buf_u64(out, (uint64_t)m->created_ns);
	tpd_buf_str(out, m->source);
	for (uint32_t i = 0; i < m->entry_count; i++)
		tpd_buf_u64(out, (uint64_t)m->entries[i].mtime_ns);
	put_id(out, !m->has_ref ? 0 : m->ref_run ? 2 : 1, &m->ref, m->ref_step);
	if (m->ref_run)
		tpd_buf_str(out, m->ref_run);
	put_id(out, m->has_w1, &m->w1, m->w1_step);
	put_id(out, m->has_earlier, &m->earlier, m->earlier_step);
	tpd_buf_varint(out, m->depth);
	for (uint32_t f = 0; f < m->file_count; f++)
		put_file(out, &m->entries[m->files[f]]);
	put_ties(out, m);
}

/* The header and the packed body. */
static enum tpd_status put_object(const struct tpd_buf *body, struct tpd_buf *out, struct tpd_err *err)
{
	TPD_AUTO_FREE uint8_t *frame = NULL;
	uint8_t digest[TPD_XXH_LEN];
	size_t frame_len = 0, start = out->len;
	enum tpd_status status = tpd_zstd_pack(body->data, body->len, &frame, &frame_len, err);

	if (status)
		return status;
	tpd_buf_reserve(out, TPD_MANIFEST_HEADER + frame_len);
	tpd_buf_put(out, TPD_MANIFEST_MAGIC, 8);
	tpd_buf_u32(out, TPD_MANIFEST_VERSION);
	tpd_buf_u32(out, 0);
	tpd_buf_u64(out, frame_len);
	tpd_buf_u64(out, body->len);
	tpd_xxh128(frame, frame_len, digest);
	tpd_buf_put(out, digest, sizeof(digest));
	if (!out->failed) {
		tpd_xxh128(out->data + start, TPD_MANIFEST_SIGNED, digest);
		tpd_buf_put(out, digest, sizeof(digest));
		tpd_buf_put(out, frame, frame_len);
	}
	return tpd_buf_status(out, err);
}

enum tpd_status tpd_manifest_write(const struct tpd_manifest *m, struct tpd_buf *out, struct tpd_err *err)
{
	struct tpd_buf body = {0};
	enum tpd_status status;
	struct tpd_id id;

	status = tpd_manifest_check_logical(m, TPD_USAGE, err);
	if (!status)
		status = tpd_manifest_check_physical(m, TPD_USAGE, err);
	if (status)
		return status;
	tpd_manifest_put_logical(m, &body);
	status = tpd_buf_status(&body, err);
	if (!status)
		status = tpd_manifest_identify(body.data, body.len, &id, err);
	if (!status) {
		assert(tpd_id_equal(&id, &m->id)); /* changed since it was sealed? */
		put_physical(&body, m);
		status = tpd_buf_status(&body, err);
	}
	if (!status && body.len > TPD_MANIFEST_MAX_BODY)
		status = tpd_fail(err, TPD_LIMIT, "the manifest of %s@%llu would have %zu bytes, more than %u", m->run,
				  (unsigned long long)m->step, body.len, TPD_MANIFEST_MAX_BODY);
	if (!status)
		status = put_object(&body, out, err);
	tpd_buf_release(&body);
	return status;
}
