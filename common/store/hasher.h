/*
 * hasher.h - SHA-256 of files in a thread of its own, and the order in which a file's bytes come.
 *
 * SHA-256 is slower than the rest of the pipeline, and sequential. A hasher takes a list of buffers and goes through them while the
 * caller does something else:
 *
 *     tpd_hasher_begin(h);                      a new file
 *     tpd_hasher_add(h, data, len) ...          queue buffers (borrowed until wait)
 *     tpd_hasher_start(h); ...; tpd_hasher_wait(h);
 *     tpd_hasher_end(h, digest);
 *
 * A feed (struct tpd_feed) puts chunks, which come segment by segment with the glue first, back into file order: the tensors are given
 * as they come, and the glue between them is asked for once more, a chunk at a time. So memory does not depend on how much glue there is:
 * 70 MB beside 50,000 tensors of a .distcp.
 */
#ifndef TPD_STORE_HASHER_H
#define TPD_STORE_HASHER_H

#include "base/digest.h"
#include "base/tpd.h"
#include "store/manifest.h"

struct tpd_hasher; /* used by one thread */

enum tpd_status tpd_hasher_new(struct tpd_hasher **out_hasher, struct tpd_err *err);
void tpd_hasher_free(struct tpd_hasher *h);
enum tpd_status tpd_hasher_add(struct tpd_hasher *h, const void *data, size_t len, struct tpd_err *err);
/* All of a file by descriptor, read by the thread itself; alone, not together with add. */
void tpd_hasher_add_fd(struct tpd_hasher *h, int fd);
void tpd_hasher_start(struct tpd_hasher *h);
/* Waits for what was started; TPD_IO when reading a descriptor failed. Harmless when nothing was started. */
enum tpd_status tpd_hasher_wait(struct tpd_hasher *h, struct tpd_err *err);
/* The digest of everything since the last end; waits first. */
enum tpd_status tpd_hasher_end(struct tpd_hasher *h, uint8_t out_digest[TPD_SHA256_LEN], struct tpd_err *err);

/* Chunk `chunk` of segment 0 into `out`, which has room for it: the same bytes that were stored. */
typedef enum tpd_status (*tpd_feed_glue_fn)(void *arg, uint64_t chunk, uint8_t *out, struct tpd_err *err);

struct tpd_feed {
	struct tpd_hasher *hasher;
	const struct tpd_entry *file;
	tpd_feed_glue_fn read_glue; /* asked in order, each chunk once; never when the file has only segment 0 */
	void *arg;
	uint8_t *glue;        /* the chunk of it that is being fed; owned */
	uint64_t glue_chunk;
	uint64_t glue_at, at; /* fed so far: of the glue, of the file */
};

struct tpd_feed tpd_feed_make(struct tpd_hasher *hasher, const struct tpd_entry *file, tpd_feed_glue_fn read_glue, void *arg);
void tpd_feed_release(struct tpd_feed *feed); /* waits for the hasher */
/* Chunk `chunk` of `segment`, in chunk order; glue chunks of a file with other segments are passed over. */
enum tpd_status tpd_feed_chunk(struct tpd_feed *feed, uint32_t segment, uint64_t chunk, const uint8_t *data, size_t len,
			       struct tpd_err *err);
/* What follows the last chunk. */
enum tpd_status tpd_feed_rest(struct tpd_feed *feed, struct tpd_err *err);

#endif
