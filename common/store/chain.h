/*
 * chain.h - read chunks of a stored checkpoint, whatever they refer to.
 *
 * tpd_chain_open() loads the manifests of all that the checkpoint refers to, down to its keyframe (at most TPD_CHAIN_MAX; a cycle is
 * TPD_CORRUPT). Nearly always they are a list: what a checkpoint names as w0 is what its reference refers to. Where that was damaged and is
 * stored again, it may refer to nothing, and w0 is a link of its own.
 * tpd_chain_read() replays one chunk through all links, iteratively: memory does not depend on depth or size, only on how often along
 * the chain tensors were cut anew; where they were, a chain keeps decoded chunks for a while (chain_cache.h). Chunks may be read by
 * several threads at once, each with a tpd_chain_worker of its own.
 */
#ifndef TPD_STORE_CHAIN_H
#define TPD_STORE_CHAIN_H

#include "base/tpd.h"
#include "store/store.h"

#define TPD_CHAIN_MAX 4096u

struct tpd_chain;
struct tpd_chain_worker; /* codec, payload and chunk buffers; owned by one thread */

/* names: the checkpoint's own manifest keeps what is known about its segments, but for statistics; those below never do. */
enum tpd_status tpd_chain_open(struct tpd_store *store, const struct tpd_id *id, bool names, struct tpd_chain **out_chain,
			       struct tpd_err *err);
void tpd_chain_forget_names(struct tpd_chain *chain);
void tpd_chain_close(struct tpd_chain *chain);
/* The checkpoint's own manifest, borrowed. */
const struct tpd_manifest *tpd_chain_manifest(const struct tpd_chain *chain);
uint32_t tpd_chain_links(const struct tpd_chain *chain); /* manifests loaded */
uint32_t tpd_chain_depth(const struct tpd_chain *chain); /* the longest way down; 0: a keyframe */
uint32_t tpd_chain_depth_of(const struct tpd_chain *chain, uint32_t link);
/* The link that a link refers to; false: none, it is a keyframe. */
bool tpd_chain_below(const struct tpd_chain *chain, uint32_t link, uint32_t *out_below);
const struct tpd_manifest *tpd_chain_link(const struct tpd_chain *chain, uint32_t link); /* 0: itself; others may lack segments */

/*
 * Where the original may still lie (path of the directory, or of the single file): chunks are then read there when their
 * bytes have the recorded digest, and replayed otherwise. Never fails: what cannot be opened is not used.
 */
void tpd_chain_use_original(struct tpd_chain *chain, const char *path);
/* The same for files that somebody still has open, in the manifest's order, borrowed; another count than the manifest's: not used. */
void tpd_chain_use_files(struct tpd_chain *chain, const int *files, size_t count);
/* The same for a raw copy: a directory whose files are named by their number (00000, 00001, ...). All of these may be given. */
void tpd_chain_use_copy(struct tpd_chain *chain, const char *path);

/* Does that file lie in one of these places as it is, by its size? */
bool tpd_chain_has_raw(struct tpd_chain *chain, uint32_t file);

enum tpd_status tpd_chain_worker_new(struct tpd_chain_worker **out_worker, struct tpd_err *err);
void tpd_chain_worker_free(struct tpd_chain_worker *worker);

/*
 * Chunk `chunk` of a segment of regular file number `file`, verified against its decoded digest, into out (room for
 * what that chunk has, at most TPD_CHUNK_MAX_BYTES). A segment without chunk `chunk` gives *out_len = 0. tpd_err names file and chunk.
 */
enum tpd_status tpd_chain_read(struct tpd_chain *chain, struct tpd_chain_worker *worker, uint32_t file, uint32_t segment,
			       uint64_t chunk, uint8_t *out, size_t *out_len, struct tpd_err *err);

/*
 * The same for several chunks that are decoded from each other, or from the same ones (a weight's, and those of its moments): together they
 * take what the dearest of them takes. All of them or none; no chunk twice.
 */
#define TPD_CHAIN_WANTS_MAX 4u
struct tpd_chain_want {
	uint32_t file, segment;
	uint64_t chunk;
	uint8_t *out;
	size_t len; /* out */
};
enum tpd_status tpd_chain_read_together(struct tpd_chain *chain, struct tpd_chain_worker *worker, struct tpd_chain_want *wants,
					uint32_t count, struct tpd_err *err);

/*
 * Elements [low, low + n) of a tensor that is cut differently in this checkpoint, or of another type, put together from its chunks as slabs
 * say (they must obey FORMAT.md section 2 against it) in type dtype; zeros where they say nothing. n: at most a chunk's. out: room for
 * so many of the wider type.
 */
struct tpd_slab;
enum tpd_status tpd_chain_gather(struct tpd_chain *chain, struct tpd_chain_worker *worker, const struct tpd_slab *slabs,
				 uint32_t count, enum tpd_dtype dtype, uint64_t low, uint64_t n, uint8_t *out, struct tpd_err *err);

/* The own digest and encoding of one chunk of the checkpoint itself (file-wide chunk number). */
struct tpd_part_entry;
enum tpd_status tpd_chain_entry(struct tpd_chain *chain, uint32_t file, uint64_t number, struct tpd_part_entry *out,
				struct tpd_err *err);
/* Every part of the checkpoint itself: trailer as the manifest says, index whole, sizes right. */
enum tpd_status tpd_chain_check_parts(struct tpd_chain *chain, struct tpd_err *err);

#endif
