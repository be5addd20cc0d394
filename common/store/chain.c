/*
 * chain.c - read chunks through a chain of deltas.
 *
 * The problem: chunk c of a checkpoint may need chunk c of the one before, and so on down to a keyframe. Replaying whole tensors
 * or checkpoints link by link would need memory by their size; so each chunk is replayed alone, in two phases and without
 * recursion: go down the links until a chunk that needs nothing (or whose bytes still lie in the original file),
 * noting each index entry; then decode upwards with two buffers that change places.
 *
 *      link 0 (wanted)   grid ──┐                 out
 *      link 1            copy ──┤  down: entries   ▲
 *      link 2            grid ──┤                  │ up: decode, check the digest of each
 *      link 3 (keyframe) planes ┘ ─────────────────┘
 *
 * Index entries are read one by one (56 bytes), so memory does not depend on the number of chunks. Part files are taken for one
 * read at a time (chain_files.c): that of a link is taken again on the way up.
 */
#include "base/tpd.h"

#include "store/chain.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "store/chain_internal.h"

struct step {
	struct tpd_part_entry entry;
	uint32_t link, file, segment;
};

struct tpd_chain_worker {
	struct tpd_codec *codec;
	uint8_t *payload, *buffer[2];
	size_t payload_cap, buffer_cap[2];
	struct step *steps;
	uint32_t step_cap;
};

enum tpd_status tpd_chain_worker_new(struct tpd_chain_worker **out_worker, struct tpd_err *err)
{
	struct tpd_chain_worker *worker = calloc(1, sizeof(*worker));
	enum tpd_status status;

	if (!worker)
		return tpd_fail_nomem(err);
	status = tpd_codec_new(&worker->codec, err);
	if (status) {
		free(worker);
		return status;
	}
	*out_worker = worker;
	return TPD_OK;
}

void tpd_chain_worker_free(struct tpd_chain_worker *worker)
{
	if (!worker)
		return;
	tpd_codec_free(worker->codec);
	free(worker->payload);
	free(worker->buffer[0]);
	free(worker->buffer[1]);
	free(worker->steps);
	free(worker);
}

struct raw_read {
	int fd;
	uint64_t start;
	uint8_t *out;
	bool failed;
};

static void read_piece(void *arg, uint64_t file_offset, uint64_t at, uint64_t n)
{
	struct raw_read *raw = arg;

	if (!raw->failed)
		raw->failed = tpd_io_read_exact(tpd_io_posix(), raw->fd, raw->out + (at - raw->start), n, file_offset, "",
						NULL) != TPD_OK;
}

/* The chunk's bytes as they lie in a source of link 0, when they are still the recorded ones. */
static bool read_raw(struct tpd_chain *chain, enum tpd_chain_source source, const struct step *step, uint64_t chunk, uint8_t *out)
{
	const struct tpd_manifest *m = &chain->links[0].manifest;
	const struct tpd_entry *entry = &m->entries[m->files[step->file]];
	struct raw_read read = {.out = out, .start = chunk * tpd_chunk_bytes(entry->segments[step->segment].dtype)};
	struct tpd_chain_file *file = tpd_chain_take_raw(chain, source, step->file);
	uint8_t digest[TPD_XXH_LEN];

	if (!file)
		return false;
	read.fd = file->fd;
	tpd_entry_pieces(entry, step->segment, read.start, step->entry.decoded_len, read_piece, &read);
	tpd_chain_give(chain, file);
	if (read.failed)
		return false;
	tpd_xxh128(out, step->entry.decoded_len, digest);
	return memcmp(digest, step->entry.decoded_digest, sizeof(digest)) == 0;
}

static enum tpd_status name_fault(const struct tpd_chain *chain, uint32_t link, uint32_t file, uint64_t number,
				  struct tpd_err *err)
{
	const struct tpd_manifest *m = &chain->links[link].manifest;

	return tpd_err_prefix(err, "%s@%llu: '%s', chunk %llu", m->run, (unsigned long long)m->step,
			      m->entries[m->files[file]].path, (unsigned long long)number);
}

static enum tpd_status read_entry(struct tpd_chain *chain, uint32_t link, uint32_t file, uint64_t number,
				  struct tpd_part_entry *out, struct tpd_err *err)
{
	struct tpd_chain_file *open = NULL;
	enum tpd_status status = tpd_chain_take_part(chain, link, file, number, &open, err);

	if (!status)
		status = tpd_part_entry_read(open->part, number, out, err);
	tpd_chain_give(chain, open);
	return status;
}

static enum tpd_status read_payload(struct tpd_chain *chain, const struct step *step, uint64_t number, uint8_t *out,
				    struct tpd_err *err)
{
	struct tpd_chain_file *open = NULL;
	enum tpd_status status = tpd_chain_take_part(chain, step->link, step->file, number, &open, err);

	if (!status)
		status = tpd_part_payload_read(open->part, &step->entry, out, err);
	tpd_chain_give(chain, open);
	return status;
}

/*
 * Phase one: from the wanted chunk down to one that stands alone. *out_count steps are filled; *out_base: the last of them was
 * read from the original into buffer 0 already.
 */
static enum tpd_status descend(struct tpd_chain *chain, struct tpd_chain_worker *worker, uint32_t file, uint32_t segment,
			       uint64_t chunk, uint32_t *out_count, bool *out_base, struct tpd_err *err)
{
	uint32_t count = 0;
	enum tpd_status status;

	*out_base = false;
	for (uint32_t l = 0;; l++) {
		const struct tpd_segment seg = tpd_chain_segment(chain, l, file, segment);
		struct step *step = &worker->steps[count];
		uint64_t number = seg.first_chunk + chunk;

		if (chunk >= tpd_segment_chunks(&seg)) /* an empty reference */
			break;
		step->link = l;
		step->file = file;
		step->segment = segment;
		status = read_entry(chain, l, file, number, &step->entry, err);
		if (!status && step->entry.decoded_len != tpd_segment_chunk_len(&seg, chunk))
			status = tpd_fail(err, TPD_CORRUPT, "its index says %u bytes where %u belong", step->entry.decoded_len,
					  tpd_segment_chunk_len(&seg, chunk));
		if (!status && step->entry.payload_len > step->entry.decoded_len)
			status = tpd_fail(err, TPD_CORRUPT, "its payload is longer than its bytes");
		if (status) {
			name_fault(chain, l, file, number, err);
			return status;
		}
		count++;
		for (unsigned source = 0; l == 0 && !*out_base && source < TPD_CHAIN_SOURCES; source++) {
			if (!chain->sources[source] && !(source == TPD_CHAIN_HELD && chain->held))
				continue;
			status = tpd_room(&worker->buffer[0], &worker->buffer_cap[0], step->entry.decoded_len, err);
			if (status)
				return status;
			*out_base = read_raw(chain, (enum tpd_chain_source)source, step, chunk, worker->buffer[0]);
		}
		if (*out_base)
			break;
		if (!tpd_encoding_needs_reference(step->entry.encoding))
			break;
		if (!seg.has_ref || l + 1 >= chain->count) {
			status = tpd_fail(err, TPD_CORRUPT, "it needs a reference, and its segment has none");
			name_fault(chain, l, file, number, err);
			return status;
		}
		file = seg.ref_file;
		segment = seg.ref_segment;
	}
	*out_count = count;
	return TPD_OK;
}

enum tpd_status tpd_chain_read(struct tpd_chain *chain, struct tpd_chain_worker *worker, uint32_t file, uint32_t segment,
			       uint64_t chunk, uint8_t *out, size_t *out_len, struct tpd_err *err)
{
	uint32_t count = 0;
	unsigned have = 0; /* which buffer holds what was decoded last */
	size_t have_len = 0;
	bool base = false;
	enum tpd_status status;

	if (worker->step_cap < chain->count) {
		struct step *grown = realloc(worker->steps, chain->count * sizeof(*grown));

		if (!grown)
			return tpd_fail_nomem(err);
		worker->steps = grown;
		worker->step_cap = chain->count;
	}
	status = descend(chain, worker, file, segment, chunk, &count, &base, err);
	if (status)
		return status;
	if (count == 0) {
		*out_len = 0;
		return TPD_OK;
	}
	if (base) {
		count--;
		have_len = worker->steps[count].entry.decoded_len;
		if (count == 0) {
			memcpy(out, worker->buffer[0], have_len);
			*out_len = have_len;
			return TPD_OK;
		}
	}
	while (count-- > 0) {
		const struct step *step = &worker->steps[count];
		const struct tpd_part_entry *entry = &step->entry;
		const struct tpd_segment seg = tpd_chain_segment(chain, step->link, step->file, step->segment);
		unsigned next = have ^ 1;
		uint8_t digest[TPD_XXH_LEN];
		uint8_t *to = out;

		status = tpd_room(&worker->payload, &worker->payload_cap, entry->payload_len, err);
		if (!status && count > 0) {
			status = tpd_room(&worker->buffer[next], &worker->buffer_cap[next], entry->decoded_len, err);
			to = worker->buffer[next];
		}
		if (status)
			return status;
		status = read_payload(chain, step, seg.first_chunk + chunk, worker->payload, err);
		if (!status)
			status = tpd_decode_chunk(worker->codec, entry->encoding, seg.dtype, worker->payload, entry->payload_len,
						  have_len ? worker->buffer[have] : NULL, have_len, to, entry->decoded_len, err);
		if (!status) {
			tpd_xxh128(to, entry->decoded_len, digest);
			if (memcmp(digest, entry->decoded_digest, sizeof(digest)) != 0)
				status = tpd_fail(err, TPD_CORRUPT, "its decoded bytes do not have the recorded digest");
		}
		if (status) {
			name_fault(chain, step->link, step->file, seg.first_chunk + chunk, err);
			return status;
		}
		have = next;
		have_len = entry->decoded_len;
	}
	*out_len = have_len;
	return TPD_OK;
}

enum tpd_status tpd_chain_entry(struct tpd_chain *chain, uint32_t file, uint64_t number, struct tpd_part_entry *out,
				struct tpd_err *err)
{
	enum tpd_status status = read_entry(chain, 0, file, number, out, err);

	if (status)
		name_fault(chain, 0, file, number, err);
	return status;
}

static enum tpd_status check_part(struct tpd_chain *chain, uint32_t file, uint32_t number, struct tpd_err *err)
{
	const struct tpd_manifest *m = &chain->links[0].manifest;
	const struct tpd_part_ref *ref = &m->entries[m->files[file]].parts[number];
	struct tpd_chain_file *open = NULL;
	enum tpd_status status = tpd_chain_take_part(chain, 0, file, ref->first_chunk, &open, err);

	if (!status && tpd_part_bytes(open->part) != ref->bytes)
		status = tpd_fail(err, TPD_CORRUPT, "part %u has %llu bytes where the manifest says %llu", number,
				  (unsigned long long)tpd_part_bytes(open->part), (unsigned long long)ref->bytes);
	if (!status)
		status = tpd_part_check_index(open->part, err);
	tpd_chain_give(chain, open);
	return status;
}

enum tpd_status tpd_chain_check_parts(struct tpd_chain *chain, struct tpd_err *err)
{
	const struct tpd_manifest *m = &chain->links[0].manifest;

	for (uint32_t f = 0; f < m->file_count; f++) {
		const struct tpd_entry *entry = &m->entries[m->files[f]];

		for (uint32_t p = 0; p < entry->part_count; p++) {
			enum tpd_status status = check_part(chain, f, p, err);

			if (status) {
				tpd_err_prefix(err, "%s@%llu: '%s'", m->run, (unsigned long long)m->step, entry->path);
				return status;
			}
		}
	}
	return TPD_OK;
}
