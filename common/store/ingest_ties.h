/*
 * ingest_ties.h - what ingest_ties.c and those that look for ties share: which tensors are the optimizer's state of which.
 *
 *     masters    F32 tensors that a BF16 or F16 one is the rounding of          (values)
 *     moments    exp_avg and its like, and what the optimizer steps             (names, order, then values)
 *     flat       F32 partitions that hold many weights one behind the other     (values)
 *
 * On the calling thread, but for the reading of signs; the result does not depend on the number of threads.
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
	bool checked;    /* the values say that it belongs to its owner */
	bool owns;       /* a leader was given to it */
};

struct tpd_ties {
	struct tpd_ingest_job *job;
	struct tpd_tied *items; /* by file and segment */
	uint32_t count;
	uint32_t *by_w1, in_w1; /* those that are in w1, by where they are there */
	struct tpd_tie *ties;   /* found so far, in no order */
	size_t tie_count, tie_cap, tie_max;
	uint8_t **chunks;       /* one a thread: TPD_CHUNK_MAX_BYTES for w1, once it was needed */
};

const struct tpd_segment *tpd_tied_segment(const struct tpd_ties *ties, const struct tpd_tied *item);
const struct tpd_segment_about *tpd_tied_about(const struct tpd_ties *ties, const struct tpd_tied *item);
const struct tpd_segment_work *tpd_tied_work(const struct tpd_ties *ties, const struct tpd_tied *item);
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
/* w1's ties of this item as a state, ascending; NULL and *out_count 0: none. */
const struct tpd_tie *tpd_ties_in_w1(const struct tpd_ties *ties, const struct tpd_tied *item, uint32_t *out_count);

/* --- ingest_masters.c --- */
enum tpd_status tpd_ties_masters(struct tpd_ties *ties, struct tpd_err *err);

/* --- ingest_flat.c --- */
enum tpd_status tpd_ties_flat(struct tpd_ties *ties, struct tpd_err *err); /* after the moments */

/* --- ingest_tie_names.c --- */

/* Weights by the ends of their names. */
struct tpd_tie_names {
	const struct tpd_ties *ties; /* borrowed */
	uint32_t *by_place, *by_file; /* items, by name and then by one of these; blocks of one name are the same in both */
	uint32_t *next; /* of each of by_place: from where on there may be one that is still to be had */
	uint32_t count;
	char *name; /* a dot and the name that is looked for */
	size_t cap;
};

enum tpd_status tpd_tie_names_make(const struct tpd_ties *ties, const uint32_t *weights, uint32_t count, struct tpd_tie_names *out,
				   struct tpd_err *err);
void tpd_tie_names_release(struct tpd_tie_names *names);
/* NONE: no weight, or several, have a name that says so, or they do not fit. */
enum tpd_status tpd_tie_names_find(struct tpd_tie_names *names, uint32_t state, uint32_t *out_owner, struct tpd_err *err);

/* --- ingest_signs.c --- */

struct tpd_signs_wanted {
	uint32_t item;
	bool change;    /* of its values less those of w1, which must have it; false: of its values */
	size_t words;   /* of 64 elements, the first ones of it */
	uint64_t *bits; /* 2 * words, all 0: where they are above 0, and where below */
};

/* On all threads. */
enum tpd_status tpd_signs_read(struct tpd_ties *ties, const struct tpd_signs_wanted *wanted, size_t count, struct tpd_err *err);
/*
 * How opposite they are, in standard deviations of what has nothing to do with each other; 0 when that cannot be told. Of the first
 * `words` words; the second vector of each stands `stride` words behind the first.
 */
double tpd_signs_sigma(const uint64_t *state, const uint64_t *owner, size_t stride, size_t words);

/* --- ingest_moments.c --- */

/* May this state be of this weight: is it to be had, and of the same shape as far as both are known? */
bool tpd_ties_fit(const struct tpd_ties *ties, uint32_t state, uint32_t owner);
enum tpd_status tpd_ties_moments(struct tpd_ties *ties, struct tpd_err *err);

#endif
