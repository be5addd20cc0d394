/*
 * ingest_ties.h - what ingest_ties.c and the three that look for ties share: which tensors are the optimizer's state of which.
 *
 *     masters    F32 tensors that a BF16 or F16 one is the rounding of          (values)
 *     moments    exp_avg and its like, and what the optimizer steps             (names, order, then values)
 *     flat       F32 partitions that hold many weights one behind the other     (values)
 *
 * All of it on the calling thread; the result does not depend on the number of threads.
 */
#ifndef TPD_STORE_INGEST_TIES_H
#define TPD_STORE_INGEST_TIES_H

#include "base/tpd.h"
#include "format/state_name.h"
#include "store/ingest_internal.h"

#define TPD_TIED_NONE UINT32_MAX

/* A tensor of floats. */
struct tpd_tied {
	uint32_t file, segment;
	uint64_t elements;
	enum tpd_dtype dtype;
	struct tpd_state_name name;
	uint32_t place;  /* its place in natural order, among all of them */
	uint32_t owner;  /* of a moment, and of the master of one tensor: an item; NONE */
	uint32_t master; /* of a weight: an item; NONE */
	bool leads;      /* a state that stands for the others of its parameter: exp_avg, or momentum */
	bool checked;    /* the values say that it belongs to its owner */
	bool owns;       /* a leader was given to it */
};

struct tpd_ties {
	struct tpd_ingest_job *job;
	struct tpd_tied *items; /* by file and segment */
	uint32_t count;
	uint32_t *order;        /* all items in natural order */
	uint32_t *by_w1, in_w1; /* those that are in w1, by where they are there */
	struct tpd_tie *ties;   /* found so far, in no order */
	size_t tie_count, tie_cap, tie_max;
	uint8_t *chunk;         /* TPD_CHUNK_MAX_BYTES, for w1 */
};

const struct tpd_segment *tpd_tied_segment(const struct tpd_ties *ties, const struct tpd_tied *item);
const struct tpd_segment_about *tpd_tied_about(const struct tpd_ties *ties, const struct tpd_tied *item);
const struct tpd_file_work *tpd_tied_file(const struct tpd_ties *ties, const struct tpd_tied *item);
/* Elements [first, first + n) of it, as they are in the source. */
enum tpd_status tpd_tied_read(const struct tpd_ties *ties, const struct tpd_tied *item, uint64_t first, uint64_t n, void *out,
			      struct tpd_err *err);
/*
 * The same as elements of type dtype, BF16 or F16: what it has already, or the rounding of F32; or of its own type. out has room for n
 * elements of dtype, and 4 bytes each more where there is something to be rounded.
 */
#define TPD_TIE_PROBE 32u /* elements that are compared at once, and the fewest that say something */
enum tpd_status tpd_tied_read_as(const struct tpd_ties *ties, const struct tpd_tied *item, enum tpd_dtype dtype, uint64_t first, size_t n,
				 void *out, struct tpd_err *err);
/* Is it one value all along? */
bool tpd_tied_dull(const uint8_t *elements, size_t n, unsigned width);
/* One more; more than the manifest has room for are let go. */
enum tpd_status tpd_ties_add(struct tpd_ties *ties, const struct tpd_tied *state, uint64_t first, const struct tpd_tied *owner,
			     uint64_t owner_first, uint64_t elements, enum tpd_state_kind kind, bool checked, struct tpd_err *err);
/* The item of the current checkpoint that w1 has as this segment; NONE. */
uint32_t tpd_ties_from_w1(const struct tpd_ties *ties, const struct tpd_tie_end *place);
/* w1's ties of this item as a state, ascending; *out_count 0 when there are none. */
const struct tpd_tie *tpd_ties_in_w1(const struct tpd_ties *ties, const struct tpd_tied *item, size_t *out_count);

/* --- ingest_masters.c --- */
enum tpd_status tpd_ties_masters(struct tpd_ties *ties, struct tpd_err *err);

/* --- ingest_flat.c --- */
enum tpd_status tpd_ties_flat(struct tpd_ties *ties, struct tpd_err *err); /* after the moments */

/* --- ingest_moments.c --- */
enum tpd_status tpd_ties_moments(struct tpd_ties *ties, struct tpd_err *err);

#endif
