/*
 * ingest_batch.c - chunks of the source and of its references, a batch at a time.
 *
 * Both passes of an ingest go through a file's chunks in order, in batches: the pool fills and works on the slots in parallel, then
 * the merging thread takes them in order. A batch is bounded in bytes, so that memory does not grow with threads or files.
 */
#include "base/tpd.h"

#include "store/ingest_internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

enum tpd_status tpd_ingest_changed(const struct tpd_file_work *file, struct tpd_err *err)
{
	return tpd_fail(err, TPD_CONFLICT, "'%s' in '%s' changed while it was read", file->entry->path, file->origin);
}

enum tpd_status tpd_ingest_pread(const struct tpd_file_work *file, void *buf, size_t len, uint64_t offset, struct tpd_err *err)
{
	enum tpd_status status = tpd_io_read_exact(tpd_io_posix(), file->fd, buf, len, offset, file->entry->path, err);

	if (status == TPD_CORRUPT)
		return tpd_fail(err, TPD_CONFLICT, "'%s' in '%s' became shorter while it was read", file->entry->path, file->origin);
	if (status)
		tpd_err_prefix(err, "'%s'", file->origin);
	return status;
}

struct piece_read {
	const struct tpd_file_work *file;
	uint8_t *out;
	uint64_t start; /* position in the segment of out[0] */
	enum tpd_status status;
	struct tpd_err *err;
};

static void read_piece(void *arg, uint64_t file_offset, uint64_t at, uint64_t n)
{
	struct piece_read *pr = arg;

	if (!pr->status)
		pr->status = tpd_ingest_pread(pr->file, pr->out + (at - pr->start), n, file_offset, pr->err);
}

static enum tpd_status read_range(const struct tpd_file_work *file, uint32_t segment, uint64_t pos, uint64_t len, uint8_t *out,
				  struct tpd_err *err)
{
	struct piece_read pr = {.file = file, .out = out, .start = pos, .err = err};

	tpd_entry_pieces(file->entry, segment, pos, len, read_piece, &pr);
	return pr.status;
}

enum tpd_status tpd_ingest_read_glue(void *arg, uint64_t chunk, uint8_t *out, struct tpd_err *err)
{
	const struct tpd_file_work *file = arg;
	const struct tpd_segment *seg = &file->entry->segments[0];
	uint32_t len = tpd_segment_chunk_len(seg, chunk);
	enum tpd_status status = read_range(file, 0, chunk * tpd_chunk_bytes(seg->dtype), len, out, err);

	if (!status && tpd_xxh64(out, len) != file->marks[chunk])
		status = tpd_ingest_changed(file, err);
	return status;
}

size_t tpd_ingest_batch(struct tpd_ingest_job *job, uint64_t number, uint64_t end)
{
	const struct tpd_entry *entry = job->file->entry;
	size_t n = 0, bytes = 0;
	uint32_t segment;
	uint64_t chunk;

	if (number >= end)
		return 0;
	tpd_entry_locate(entry, number, &segment, &chunk);
	for (; number < end && n < job->slot_count; number++) {
		struct tpd_slot *slot = &job->slots[n];
		const struct tpd_segment *seg;

		while (chunk >= tpd_segment_chunks(&entry->segments[segment])) {
			segment++;
			chunk = 0;
		}
		seg = &entry->segments[segment];
		slot->len = tpd_segment_chunk_len(seg, chunk);
		if (n > 0 && bytes + slot->len > TPD_INGEST_BATCH_BYTES)
			break;
		bytes += slot->len;
		slot->segment = segment;
		slot->chunk = chunk++;
		slot->number = number;
		n++;
	}
	return n;
}

enum tpd_status tpd_ingest_read_x(struct tpd_ingest_job *job, struct tpd_slot *slot, struct tpd_err *err)
{
	const struct tpd_file_work *file = job->file;
	const struct tpd_segment *seg = &file->entry->segments[slot->segment];
	uint64_t pos = slot->chunk * tpd_chunk_bytes(seg->dtype);
	enum tpd_status status = tpd_room(&slot->x, &slot->x_cap, slot->len, err);

	if (status)
		return status;
	status = read_range(file, slot->segment, pos, slot->len, slot->x, err);
	if (status)
		return status;
	slot->mark = tpd_xxh64(slot->x, slot->len);
	return TPD_OK;
}

/* Chunk `chunk` of a segment that is cut differently in an earlier checkpoint, or of another type. */
static enum tpd_status gather(struct tpd_ingest_job *job, struct tpd_chain *chain, const struct tpd_segment *seg,
			      const struct tpd_slab *slabs, uint32_t count, uint64_t chunk, unsigned worker, uint8_t *out,
			      size_t *out_len, struct tpd_err *err)
{
	unsigned width = tpd_dtype_width(seg->dtype);

	*out_len = tpd_segment_chunk_len(seg, chunk);
	return tpd_chain_gather(chain, job->chain_workers[worker], slabs, count, seg->dtype,
				chunk * (tpd_chunk_bytes(seg->dtype) / width), *out_len / width, out, err);
}

enum tpd_status tpd_ingest_read_w1(struct tpd_ingest_job *job, const struct tpd_segment *seg, const struct tpd_segment_work *work,
				   uint64_t chunk, unsigned worker, uint8_t *out, struct tpd_err *err)
{
	size_t len = 0;
	enum tpd_status status;

	if (work->w1_slabs)
		return gather(job, job->w1, seg, work->w1_slabs, work->w1_slab_count, chunk, worker, out, &len, err);
	status = tpd_chain_read(job->w1, job->chain_workers[worker], work->w1_file, work->w1_segment, chunk, out, &len, err);
	if (!status && len != tpd_segment_chunk_len(seg, chunk))
		status = tpd_fail(err, TPD_CORRUPT, "the previous checkpoint's chunk has another length");
	return status;
}

struct own_chunks {
	struct tpd_ingest_job *job;
	struct tpd_slot *slot;
};

enum tpd_status tpd_ingest_read_own(struct tpd_ingest_job *job, uint32_t file, uint32_t segment, uint64_t chunk, uint8_t *out,
				    struct tpd_err *err)
{
	const struct tpd_file_work *from = &job->files[file];
	const struct tpd_segment *seg = &from->entry->segments[segment];
	uint32_t len = tpd_segment_chunk_len(seg, chunk);
	enum tpd_status status = read_range(from, segment, chunk * tpd_chunk_bytes(seg->dtype), len, out, err);

	if (!status && job->dir >= 0 && tpd_xxh64(out, len) != from->marks[seg->first_chunk + chunk])
		status = tpd_ingest_changed(from, err);
	return status;
}

static enum tpd_status read_own_chunk(void *arg, uint32_t file, uint32_t segment, uint64_t chunk, const uint8_t **out_bytes, size_t *out_len,
				      struct tpd_err *err)
{
	const struct own_chunks *own = arg;
	uint32_t len = tpd_segment_chunk_len(&own->job->files[file].entry->segments[segment], chunk);
	enum tpd_status status = tpd_room(&own->slot->other, &own->slot->other_cap, len, err);

	if (!status)
		status = tpd_ingest_read_own(own->job, file, segment, chunk, own->slot->other, err);
	*out_bytes = own->slot->other;
	*out_len = len;
	return status;
}

/* From the masters, as the chain does it (chain_replay.c). */
static enum tpd_status derive(struct tpd_ingest_job *job, const struct tpd_segment *seg, struct tpd_slot *slot, struct tpd_err *err)
{
	const struct tpd_slab *slabs = job->file->entry->slabs + seg->ref_file;
	struct own_chunks own = {job, slot};
	enum tpd_dtype dtype = job->files[slabs->file].entry->segments[slabs->segment].dtype;
	uint64_t n = slot->len / tpd_dtype_width(seg->dtype);
	enum tpd_status status = tpd_room(&slot->p, &slot->p_cap, n * tpd_dtype_width(dtype), err);

	slot->p_len = slot->len;
	if (!status)
		status = tpd_slab_gather(slabs, seg->ref_segment, dtype, seg->dtype, slot->chunk * TPD_CHUNK_ELEMENTS, n, read_own_chunk, &own,
					 slot->p, err);
	return status;
}

enum tpd_status tpd_ingest_read_before(struct tpd_ingest_job *job, uint32_t file, uint32_t segment, uint64_t chunk, unsigned worker,
				       uint8_t *out, size_t *out_len, struct tpd_err *err)
{
	const struct tpd_entry *entry = job->files[file].entry;
	const struct tpd_segment *seg = &entry->segments[segment];

	if (seg->in_slabs)
		return gather(job, job->ref, seg, entry->slabs + seg->ref_file, seg->ref_segment, chunk, worker, out, out_len, err);
	return tpd_chain_read(job->ref, job->chain_workers[worker], seg->ref_file, seg->ref_segment, chunk, out, out_len, err);
}

/* Does the segment have the same in w1 as in the reference? */
static bool same_in_w1(const struct tpd_ingest_job *job, const struct tpd_segment *seg, const struct tpd_segment_work *work)
{
	if (!seg->has_ref || seg->derived || job->w1 != job->ref)
		return false;
	if (seg->in_slabs || work->w1_slabs) /* of one checkpoint they are the same */
		return seg->in_slabs && work->w1_slabs;
	return work->w1_file == seg->ref_file && work->w1_segment == seg->ref_segment;
}

enum tpd_status tpd_ingest_read_refs(struct tpd_ingest_job *job, struct tpd_slot *slot, unsigned worker, struct tpd_err *err)
{
	const struct tpd_segment *seg = &job->file->entry->segments[slot->segment];
	const struct tpd_segment_work *work = &job->file->segments[slot->segment];
	size_t room = tpd_chunk_bytes(seg->dtype);
	enum tpd_status status = TPD_OK;

	if (seg->converted)
		room = 4 * TPD_CHUNK_ELEMENTS;
	slot->p_len = 0;
	slot->w1 = NULL;
	if (seg->has_ref) {
		status = tpd_room(&slot->p, &slot->p_cap, room, err);
		if (!status && seg->derived)
			status = derive(job, seg, slot, err);
		else if (!status)
			status = tpd_ingest_read_before(job, (uint32_t)(job->file - job->files), slot->segment, slot->chunk, worker, slot->p,
							&slot->p_len, err);
	}
	if (status || !work->has_w1)
		return status;
	if (same_in_w1(job, seg, work)) {
		slot->w1 = slot->p;
		return TPD_OK;
	}
	status = tpd_room(&slot->w1_buffer, &slot->w1_cap, room, err);
	if (!status)
		status = tpd_ingest_read_w1(job, seg, work, slot->chunk, worker, slot->w1_buffer, err);
	slot->w1 = slot->w1_buffer;
	return status;
}

enum tpd_status tpd_ingest_progress(struct tpd_ingest_job *job, uint64_t bytes, struct tpd_err *err)
{
	const struct tpd_progress *progress = &job->options->progress;

	job->done += bytes;
	if (progress->fn)
		progress->fn(progress->arg, job->done, job->total);
	if (progress->cancel && atomic_load(progress->cancel))
		return tpd_fail(err, TPD_CANCELLED, "stopped on request");
	return TPD_OK;
}
