/*
 * verify.c - everything that a checkpoint consists of, read again and compared.
 *
 * Payload and decoded digests are checked by the chain reader; here the decoded chunks are put in file order through SHA-256, as
 * the source's bytes were when it was stored. Two sets of buffers change places, so that one is decoded into while the other is hashed.
 */
#include "base/tpd.h"

#include "store/restore.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "store/chain.h"
#include "store/hasher.h"
#include "store/readers.h"

#define BATCH_BYTES (8u << 20)
#define BATCH_CHUNKS 64u

struct chunk_buffer {
	uint8_t *data;
	size_t cap, len;
	uint32_t segment;
	uint64_t chunk;
};

struct verifying {
	struct tpd_readers readers;
	struct tpd_chain *chain;
	const struct tpd_verify_options *options;
	struct tpd_hasher *hasher;
	struct chunk_buffer sets[2][BATCH_CHUNKS], *set;
	uint32_t file;
	const struct tpd_entry *entry;
	uint64_t done, total;
};

static enum tpd_status decode_chunk(void *ctx, size_t item, unsigned worker, struct tpd_err *err)
{
	struct verifying *v = ctx;
	struct chunk_buffer *buffer = &v->set[item];
	size_t need = tpd_chunk_bytes(v->entry->segments[buffer->segment].dtype);
	enum tpd_status status = tpd_room(&buffer->data, &buffer->cap, need, err);

	if (status)
		return status;
	return tpd_chain_read(v->chain, v->readers.workers[worker], v->file, buffer->segment, buffer->chunk, buffer->data,
			      &buffer->len, err);
}

/* A chunk of segment 0 of a file that has others. */
static enum tpd_status read_glue(void *arg, uint64_t chunk, uint8_t *out, struct tpd_err *err)
{
	struct verifying *v = arg;
	const struct tpd_segment *seg = &v->entry->segments[0];
	uint8_t *buffer = NULL;
	size_t len = 0;
	enum tpd_status status = tpd_readers_room(&v->readers, 0, tpd_chunk_bytes(seg->dtype), &buffer, err);

	if (!status)
		status = tpd_chain_read(v->chain, v->readers.workers[0], v->file, 0, chunk, buffer, &len, err);
	if (!status)
		memcpy(out, buffer, len); /* that of the chunk: the chain sees to it */
	return status;
}

/* Chunks from `number` on into v->set; returns how many. */
static size_t next_batch(struct verifying *v, uint64_t number, uint64_t chunks)
{
	size_t n = 0, bytes = 0;

	for (; number < chunks && n < BATCH_CHUNKS && bytes < BATCH_BYTES; number++, n++) {
		struct chunk_buffer *buffer = &v->set[n];

		tpd_entry_locate(v->entry, number, &buffer->segment, &buffer->chunk);
		bytes += tpd_segment_chunk_len(&v->entry->segments[buffer->segment], buffer->chunk);
	}
	return n;
}

static enum tpd_status verify_file(struct verifying *v, struct tpd_err *err)
{
	uint64_t chunks = tpd_entry_chunks(v->entry), number = 0;
	uint8_t digest[TPD_SHA256_LEN];
	struct tpd_feed feed;
	enum tpd_status status = TPD_OK, hashed;

	if (v->entry->segment_count > 1)
		number = tpd_segment_chunks(&v->entry->segments[0]);
	feed = tpd_feed_make(v->hasher, v->entry, read_glue, v);
	while (!status && number < chunks) {
		size_t n, bytes = 0;

		v->set = v->set == v->sets[0] ? v->sets[1] : v->sets[0];
		n = next_batch(v, number, chunks);
		status = tpd_pool_run(v->options->pool, n, decode_chunk, v, err);
		hashed = tpd_hasher_wait(v->hasher, status ? NULL : err);
		status = status ? status : hashed;
		for (size_t i = 0; !status && i < n; i++) {
			status = tpd_feed_chunk(&feed, v->set[i].segment, v->set[i].chunk, v->set[i].data, v->set[i].len, err);
			bytes += v->set[i].len;
		}
		if (status)
			break;
		tpd_hasher_start(v->hasher);
		number += n;
		v->done += bytes;
		status = tpd_readers_progress(&v->options->progress, v->done, v->total, err);
	}
	hashed = tpd_hasher_wait(v->hasher, status ? NULL : err);
	status = status ? status : hashed;
	if (!status)
		status = tpd_feed_rest(&feed, err);
	if (!status)
		status = tpd_hasher_end(v->hasher, digest, err);
	tpd_feed_release(&feed);
	if (!status && memcmp(digest, v->entry->sha256, sizeof(digest)) != 0)
		status = tpd_fail(err, TPD_CORRUPT, "'%s': its bytes do not have the recorded SHA-256", v->entry->path);
	return status;
}

enum tpd_status tpd_verify(struct tpd_store *store, const struct tpd_id *id, const struct tpd_verify_options *options,
			   struct tpd_err *err)
{
	struct verifying *v = calloc(1, sizeof(*v));
	enum tpd_status status;

	if (!v)
		return tpd_fail_nomem(err);
	v->options = options;
	status = tpd_chain_open(store, id, false, &v->chain, err);
	if (!status)
		status = tpd_chain_check_parts(v->chain, err);
	if (!status)
		status = tpd_readers_init(&v->readers, tpd_pool_threads(options->pool), err);
	if (!status)
		status = tpd_hasher_new(&v->hasher, err);
	if (!status) {
		const struct tpd_manifest *m = tpd_chain_manifest(v->chain);

		v->total = tpd_manifest_size(m);
		for (uint32_t f = 0; !status && f < m->file_count; f++) {
			v->file = f;
			v->entry = &m->entries[m->files[f]];
			status = verify_file(v, err);
		}
	}
	tpd_hasher_free(v->hasher);
	tpd_readers_release(&v->readers);
	for (size_t i = 0; i < 2 * BATCH_CHUNKS; i++)
		free(v->sets[i / BATCH_CHUNKS][i % BATCH_CHUNKS].data);
	tpd_chain_close(v->chain);
	free(v);
	return status;
}
