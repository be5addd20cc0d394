/*
 * slab.h - which elements of an earlier checkpoint stand for which of a tensor, where the two are cut differently.
 *
 * A distributed checkpoint cuts a tensor into boxes, one a rank; with other ranks the boxes are others. What a new box has in common
 * with an old one is, in memory order, `count` blocks of `block` elements at constant distances on either side: a hyperslab of
 * one dimension, in the words of HDF5 (start, stride, count, block). FORMAT.md section 2 has the rules; a slab that obeys them is good
 * for every function here.
 */
#ifndef TPD_STORE_SLAB_H
#define TPD_STORE_SLAB_H

#include "base/dtype.h"
#include "base/tpd.h"

/* All numbers count elements. */
struct tpd_slab {
	uint64_t start, stride;         /* here; stride is 0 for a count of 1 */
	uint64_t ref_start, ref_stride; /* in the referenced segment */
	uint64_t block, count;
	uint32_t file, segment; /* the referenced one */
};

#define TPD_SLABS_MAX 256u      /* of one segment */
#define TPD_SLAB_OVERLAP_MAX 4u /* elements that slabs may name for each that there is: where they overlap the later one holds */
#define TPD_SLAB_BLOCK_MIN 8u   /* elements, of a slab of several blocks: what they may cost a reader */
#define TPD_SLAB_CHUNKS_MAX 64u /* of referenced segments that one chunk may be put together from */

/* Do all its blocks lie, in ascending order, inside `elements` here and inside `ref_elements` there? */
bool tpd_slab_fits(const struct tpd_slab *slab, uint64_t elements, uint64_t ref_elements);

/* A run of elements without a gap on either side. */
struct tpd_slab_run {
	uint64_t at, ref_at, n;
};

/* What of a slab lies in elements [low, high) here, run by run in ascending order:  walk = tpd_slab_walk(...); while (next) ... */
struct tpd_slab_walk {
	const struct tpd_slab *slab;
	uint64_t low, high, next; /* next: number of a block */
};
struct tpd_slab_walk tpd_slab_walk(const struct tpd_slab *slab, uint64_t low, uint64_t high);
bool tpd_slab_next(struct tpd_slab_walk *walk, struct tpd_slab_run *out_run);

/* A chunk of a referenced segment. */
struct tpd_slab_chunk {
	uint32_t file, segment;
	uint64_t chunk;
};

/*
 * Those that elements [low, high) are put together from, each once: at most TPD_SLAB_CHUNKS_MAX. TPD_CORRUPT: they are more, or slabs
 * overlap more than they may. chunk_elements: of chunks here and there.
 */
enum tpd_status tpd_slab_chunks(const struct tpd_slab *slabs, uint32_t count, uint64_t chunk_elements, uint64_t low, uint64_t high,
				struct tpd_slab_chunk out_chunks[TPD_SLAB_CHUNKS_MAX], uint32_t *out_count, struct tpd_err *err);

/* What it takes to put a tensor together, chunk by chunk. */
struct tpd_slab_cost {
	uint64_t most;  /* chunks of others for one of its own; UINT64_MAX: more than it may need, or too much to look at */
	uint64_t reads; /* of chunks, when those that the chunk before needed, too, are still at hand */
};
/* budget: of what looking at it may take, in blocks and in slabs for a chunk, less what it took; what would take more is too much. */
struct tpd_slab_cost tpd_slab_weigh(const struct tpd_slab *slabs, uint32_t count, uint64_t chunk_elements, uint64_t elements,
				    uint64_t *budget);
#define TPD_SLAB_BUDGET (UINT64_C(1) << 28)

/*
 * Put elements [low, low + n) of type `to` together from others of type `from`, which is the same, or F32 where `to` is BF16 or F16: they
 * are rounded then; or the other way round: they are widened. Zeros where no slab says anything; where slabs overlap the later one holds.
 * `chunk` gives the bytes of a chunk of a referenced segment, borrowed until it is called again; it is asked for the same chunk several
 * times only after another one.
 * out: room for n elements of the wider type. Fails as `chunk` does, and with TPD_CORRUPT where a chunk is shorter than it must be.
 */
typedef enum tpd_status (*tpd_slab_chunk_fn)(void *arg, uint32_t file, uint32_t segment, uint64_t chunk, const uint8_t **out_bytes,
					     size_t *out_len, struct tpd_err *err);
enum tpd_status tpd_slab_gather(const struct tpd_slab *slabs, uint32_t count, enum tpd_dtype from, enum tpd_dtype to, uint64_t low,
				uint64_t n, tpd_slab_chunk_fn chunk, void *arg, uint8_t *out, struct tpd_err *err);

#endif
