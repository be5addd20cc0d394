/*
 * ingest_encode.c - the second pass: payloads into parts, SHA-256, and the statistics that needed the first.
 *
 * Where a part ends follows from the sizes of the chunks alone, so an ingest that was interrupted finds the same parts again: a finished
 * part whose decoded digests equal the source's is taken over, and its chunks only go through SHA-256 and the statistics.
 */
#include "base/tpd.h"

#include "store/ingest_internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

static enum tpd_status read_slot(void *ctx, size_t item, unsigned worker TPD_UNUSED, struct tpd_err *err)
{
	struct tpd_ingest_job *job = ctx;
	struct tpd_slot *slot = &job->slots[item];
	enum tpd_status status = tpd_ingest_read_x(job, slot, err);

	if (!status && slot->mark != job->file->marks[slot->number])
		return tpd_ingest_changed(job->file, err);
	return status;
}

static enum tpd_status encode_slot(void *ctx, size_t item, unsigned worker, struct tpd_err *err)
{
	struct tpd_ingest_job *job = ctx;
	struct tpd_slot *slot = &job->slots[item];
	const struct tpd_segment *seg = &job->file->entry->segments[slot->segment];
	const struct tpd_segment_work *work = &job->file->segments[slot->segment];
	struct tpd_chunk chunk = {.x = slot->x, .len = slot->len, .inputs = &slot->inputs};
	enum tpd_status status = TPD_OK;
	size_t payload_len = 0;

	if (!job->adopt || (work->stats && work->has_w1))
		status = tpd_ingest_read_refs(job, slot, worker, err);
	if (status)
		return status;
	if (work->stats && work->has_w1) {
		size_t n = slot->len / tpd_dtype_width(seg->dtype);

		status = tpd_room(&slot->kept, &slot->kept_cap, n / 8 + 1, err);
		if (status)
			return status;
		tpd_count_chunk(work->stats, slot->x, slot->w1, n, &slot->count, slot->kept);
	}
	if (job->adopt)
		return TPD_OK;
	slot->inputs = (struct tpd_inputs){0};
	if (tpd_encoding_takes_inputs(work->plan.encoding))
		status = tpd_ingest_read_inputs(job, slot, work->plan.terms, worker, err);
	if (!status)
		status = tpd_room(&slot->payload, &slot->payload_cap, tpd_encode_bound(slot->len), err);
	if (status)
		return status;
	if (seg->has_ref) {
		chunk.p = slot->p;
		chunk.ref_len = slot->p_len;
	}
	chunk.element = slot->chunk * TPD_CHUNK_ELEMENTS;
	status = tpd_encode_chunk(job->codecs[worker], &work->plan, &chunk, slot->payload, &slot->entry.encoding, &payload_len,
				  err);
	if (status)
		return status;
	slot->entry.payload_len = (uint32_t)payload_len;
	slot->entry.decoded_len = (uint32_t)slot->len;
	tpd_xxh128_first(slot->payload, payload_len, slot->entry.payload_digest, TPD_PAYLOAD_DIGEST);
	tpd_xxh128_first(slot->x, slot->len, slot->entry.decoded_digest, TPD_DECODED_DIGEST);
	return TPD_OK;
}

/* Chunks [number, end): encode into `writer`, or only account for them when they were adopted (writer NULL). */
static enum tpd_status code_range(struct tpd_ingest_job *job, uint64_t number, uint64_t end, struct tpd_part_writer *writer,
				  struct tpd_feed *feed, struct tpd_err *err)
{
	struct tpd_file_work *file = job->file;
	enum tpd_status status = TPD_OK;

	job->adopt = writer == NULL;
	while (!status && number < end) {
		size_t n = tpd_ingest_batch(job, number, end), bytes = 0;
		enum tpd_status hashed;

		status = tpd_pool_run(job->options->pool, n, read_slot, job, err);
		for (size_t i = 0; !status && i < n; i++)
			status = tpd_feed_chunk(feed, job->slots[i].segment, job->slots[i].chunk, job->slots[i].x,
						job->slots[i].len, err);
		if (status)
			return status;
		tpd_hasher_start(job->hasher);
		status = tpd_pool_run(job->options->pool, n, encode_slot, job, err);
		hashed = tpd_hasher_wait(job->hasher, status ? NULL : err);
		if (!status)
			status = hashed;
		for (size_t i = 0; !status && i < n; i++) {
			struct tpd_slot *slot = &job->slots[i];
			const struct tpd_segment *seg = &file->entry->segments[slot->segment];
			struct tpd_segment_about *about = &file->entry->about[slot->segment];
			struct tpd_segment_work *work = &file->segments[slot->segment];

			bytes += slot->len;
			if (work->stats && work->has_w1)
				status = tpd_stats_add_count(work->stats, &slot->count, slot->kept,
							     slot->len / tpd_dtype_width(seg->dtype), err);
			if (!status && work->stats && slot->chunk + 1 == tpd_segment_chunks(seg)) {
				about->stats = malloc(sizeof(*about->stats));
				if (about->stats)
					tpd_stats_finish(work->stats, about->stats);
				else
					status = tpd_fail_nomem(err);
				tpd_stats_free(work->stats);
				work->stats = NULL;
			}
			if (!writer || status)
				continue;
			about->stored += slot->entry.payload_len;
			status = tpd_part_append(writer, &slot->entry, slot->payload, err);
		}
		if (!status)
			status = tpd_ingest_progress(job, bytes, err);
		number += n;
	}
	return status;
}

/* Could a chunk that was planned so have become this one? A chunk of a tensor that is `context` may be `stepped`, from the same inputs. */
static bool may_be(enum tpd_encoding encoding, enum tpd_encoding planned)
{
	return !tpd_encoding_takes_inputs(encoding) || encoding == planned ||
	       (planned == TPD_ENCODING_CONTEXT && encoding == TPD_ENCODING_STEPPED);
}

/* The first chunk behind the part that begins at `first`. */
static uint64_t part_end(const struct tpd_entry *entry, uint64_t first, uint64_t chunks, uint64_t part_size)
{
	uint64_t bytes = 0, chunk;
	uint32_t segment;

	tpd_entry_locate(entry, first, &segment, &chunk);
	while (first < chunks && bytes < part_size) {
		while (chunk >= tpd_segment_chunks(&entry->segments[segment])) {
			segment++;
			chunk = 0;
		}
		bytes += tpd_segment_chunk_len(&entry->segments[segment], chunk++);
		first++;
	}
	return first;
}

struct adoption {
	struct tpd_ingest_job *job;
	const struct tpd_part *part;
};

static enum tpd_status compare_slot(void *ctx, size_t item, unsigned worker, struct tpd_err *err)
{
	const struct adoption *adoption = ctx;
	struct tpd_ingest_job *job = adoption->job;
	struct tpd_slot *slot = &job->slots[item];
	const struct tpd_segment *seg = &job->file->entry->segments[slot->segment];
	const struct tpd_plan *plan = &job->file->segments[slot->segment].plan;
	struct tpd_references references = {.inputs = &slot->inputs};
	uint8_t digest[TPD_DECODED_DIGEST];
	enum tpd_status status = read_slot(job, item, worker, err);

	if (!status)
		status = tpd_part_entry_read(adoption->part, slot->number, &slot->entry, err);
	if (status)
		return status;
	slot->entry.decoded_len = (uint32_t)slot->len;
	tpd_xxh128_first(slot->x, slot->len, digest, sizeof(digest));
	if (memcmp(digest, slot->entry.decoded_digest, sizeof(digest)) != 0 ||
	    slot->entry.payload_len > slot->len ||
	    (tpd_encoding_needs_reference(slot->entry.encoding) && !seg->has_ref) ||
	    !may_be(slot->entry.encoding, plan->encoding))
		return tpd_fail(err, TPD_CORRUPT, "not this part");
	/* It must decode against what the manifest is going to name, not against what it was made with. */
	status = tpd_ingest_read_refs(job, slot, worker, err);
	if (!status && tpd_encoding_takes_inputs(slot->entry.encoding))
		status = tpd_ingest_read_inputs(job, slot, plan->terms, worker, err);
	references.p = slot->p_len ? slot->p : NULL;
	references.len = slot->p_len;
	if (!status)
		status = tpd_room(&slot->payload, &slot->payload_cap, slot->entry.payload_len + 1u, err);
	if (!status)
		status = tpd_room(&slot->kept, &slot->kept_cap, slot->len, err);
	if (!status)
		status = tpd_part_payload_read(adoption->part, &slot->entry, slot->payload, err);
	if (!status)
		status = tpd_decode_chunk_with(job->codecs[worker], slot->entry.encoding, seg->dtype, slot->payload,
					       slot->entry.payload_len, &references, slot->kept, slot->len, err);
	if (!status && memcmp(slot->kept, slot->x, slot->len) != 0)
		status = tpd_fail(err, TPD_CORRUPT, "not this part");
	return status;
}

/* Is there a finished part for chunks [first, end) from an interrupted ingest? Then account for its sizes. */
static bool adopt_part(struct tpd_ingest_job *job, uint32_t file_number, uint32_t part_number, uint64_t first, uint64_t end,
		       struct tpd_part_ref *out_ref)
{
	struct adoption adoption = {.job = job};
	struct tpd_part *part = NULL;
	TPD_AUTO_FREE uint64_t *stored = calloc(job->file->entry->segment_count, sizeof(*stored));
	bool same;

	if (!stored ||
	    tpd_part_open(tpd_store_io(job->store), job->dir, file_number, part_number, &part, NULL) != TPD_OK)
		return false;
	adoption.part = part;
	same = tpd_part_first_chunk(part) == first && tpd_part_chunks(part) == end - first &&
	       tpd_part_check_index(part, NULL) == TPD_OK;
	for (uint64_t number = first; same && number < end;) {
		size_t n = tpd_ingest_batch(job, number, end);

		same = tpd_pool_run(job->options->pool, n, compare_slot, &adoption, NULL) == TPD_OK;
		for (size_t i = 0; i < n; i++)
			stored[job->slots[i].segment] += job->slots[i].entry.payload_len;
		number += n;
	}
	if (same) {
		for (uint32_t s = 0; s < job->file->entry->segment_count; s++)
			job->file->entry->about[s].stored += stored[s];
		*out_ref = (struct tpd_part_ref){.first_chunk = first, .chunks = end - first, .bytes = tpd_part_bytes(part)};
		tpd_part_trailer_digest(part, out_ref->trailer_digest);
	}
	tpd_part_close(part);
	return same;
}

static enum tpd_status write_part(struct tpd_ingest_job *job, uint32_t file_number, uint32_t part_number, uint64_t first,
				  uint64_t end, struct tpd_feed *feed, struct tpd_part_ref *out_ref, struct tpd_err *err)
{
	struct tpd_part_writer *writer = NULL;
	enum tpd_status status = tpd_part_create(tpd_store_io(job->store), job->dir, job->where, file_number, part_number, first, &writer,
						 err);

	if (!status)
		status = code_range(job, first, end, writer, feed, err);
	if (status) {
		tpd_part_abandon(writer);
		return status;
	}
	out_ref->first_chunk = first;
	return tpd_part_finish(writer, &out_ref->chunks, &out_ref->bytes, out_ref->trailer_digest, err);
}

static enum tpd_status encode_file(struct tpd_ingest_job *job, uint32_t file_number, struct tpd_err *err)
{
	struct tpd_file_work *file = &job->files[file_number];
	struct tpd_entry *entry = file->entry;
	uint64_t chunks = tpd_entry_chunks(entry);
	struct tpd_feed feed;
	enum tpd_status status = TPD_OK;

	job->file = file;
	for (uint32_t s = 0; s < entry->segment_count; s++) {
		entry->about[s].planned = file->segments[s].plan.encoding;
		entry->about[s].second = file->segments[s].plan.second;
		entry->about[s].second_permille = entry->segments[s].derived ? 0 : file->segments[s].plan.second_permille; /* that is no choice */
	}
	feed = tpd_feed_make(job->hasher, entry, tpd_ingest_read_glue, file);
	for (uint64_t first = 0; !status && first < chunks;) {
		uint64_t end = part_end(entry, first, chunks, job->begin.part_size);
		struct tpd_part_ref *grown = realloc(entry->parts, (entry->part_count + 1u) * sizeof(*grown));

		if (!grown) {
			status = tpd_fail_nomem(err);
			break;
		}
		entry->parts = grown;
		if (adopt_part(job, file_number, entry->part_count, first, end, &grown[entry->part_count])) {
			status = code_range(job, first, end, NULL, &feed, err);
			job->parts_reused++;
		} else {
			status = write_part(job, file_number, entry->part_count, first, end, &feed, &grown[entry->part_count],
					    err);
		}
		if (!status)
			entry->part_count++;
		first = end;
	}
	for (uint32_t s = 0; !status && s < entry->segment_count; s++)
		if (entry->about[s].stored == 0 && entry->segments[s].length > 0) { /* no chunk had to say anything */
			entry->about[s].planned = TPD_ENCODING_COPY;
			entry->about[s].second_permille = 0;
		}
	if (!status)
		status = tpd_feed_rest(&feed, err);
	if (!status)
		status = tpd_hasher_end(job->hasher, entry->sha256, err);
	tpd_feed_release(&feed);
	job->file = NULL;
	return status;
}

enum tpd_status tpd_ingest_encode(struct tpd_ingest_job *job, struct tpd_err *err)
{
	enum tpd_status status = TPD_OK;

	for (uint32_t f = 0; !status && f < job->manifest.file_count; f++)
		status = encode_file(job, f, err);
	return status;
}
