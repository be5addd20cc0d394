/*
 * manifest.h - a checkpoint's manifest in memory, and its bytes (FORMAT.md section 2).
 */
#ifndef TPD_STORE_MANIFEST_H
#define TPD_STORE_MANIFEST_H

#include "base/bytes.h"
#include "base/digest.h"
#include "base/dtype.h"
#include "base/sparsity.h"
#include "base/tpd.h"
#include "codec/codec.h"
#include "format/format.h"
#include "format/state_name.h"
#include "store/slab.h"

#define TPD_MANIFEST_VERSION 7
#define TPD_MANIFEST_MAX_BODY (1u << 30)
#define TPD_MANIFEST_MAX_FILE ((uint64_t)TPD_MANIFEST_MAX_BODY + (16u << 20)) /* a body that does not compress, and the header */

struct tpd_id {
	uint8_t bytes[TPD_SHA256_LEN];
};
#define TPD_ID_HEX TPD_SHA256_HEX
bool tpd_id_equal(const struct tpd_id *a, const struct tpd_id *b);
int tpd_id_compare(const void *a, const void *b); /* for qsort and bsearch */
void tpd_id_hex(const struct tpd_id *id, char out[TPD_ID_HEX]);

enum tpd_entry_type { TPD_ENTRY_FILE = 0, TPD_ENTRY_SYMLINK = 1, TPD_ENTRY_DIR = 2 };
enum tpd_checkpoint_kind { TPD_CHECKPOINT_DIR = 0, TPD_CHECKPOINT_FILE = 1 };

/*
 * Where a segment lies and what its chunks may refer to: all that reading it takes. Readers hold one such array a file and
 * link of a chain, so its size is what their memory grows with: 40 bytes.
 */
struct tpd_segment {
	uint64_t offset, length; /* bytes; segment 0: offset 0, length of all glue */
	uint64_t first_chunk;    /* derived: its first chunk's number in the file */
	uint32_t ref_file, ref_segment; /* in the referenced checkpoint; in_slabs: the first of the entry's slabs, and how many */
	enum tpd_dtype dtype;
	bool has_ref, in_slabs, derived; /* derived: the slabs are of this checkpoint */
	bool converted;                  /* they are of the referenced one, and of another type */
};

/* What else is known of it: for matching, for the catalog and for people. */
struct tpd_segment_about {
	char *name; /* owned; "" for segment 0 */
	unsigned ndim;
	uint32_t row;
	uint64_t dims[TPD_FORMAT_MAX_DIMS];
	enum tpd_encoding planned, second; /* second: the best of the others on the sample, unless second_permille is 0 */
	uint32_t second_permille;          /* what that took, in thousandths of what `planned` did; at most TPD_SECOND_MAX; 0: there was none */
	uint64_t stored;
	struct tpd_sparsity *stats; /* owned; NULL: none */
};

/* Where a range of elements begins: file number, segment (not 0), first element. */
struct tpd_tie_end {
	uint32_t file, segment;
	uint64_t first;
};

/* These elements are the optimizer's state of those (FORMAT.md section 2.2). */
struct tpd_tie {
	struct tpd_tie_end state, owner; /* of `elements` each, in one order */
	uint64_t elements;
	enum tpd_state_kind kind;
	bool checked; /* the values said so; false: names, shapes and order alone */
};

/* What a tensor's chunks may be predicted from, beside its reference (FORMAT.md section 2). */
struct tpd_predictor {
	uint32_t segment;
	uint32_t m_file, m_segment, v_file, v_segment; /* exp_avg and exp_avg_sq, where terms need them: TPD_TERM_SCALE the latter only */
	uint8_t terms;                                 /* TPD_TERM_* */
	uint32_t w0_file, w0_segment; /* TPD_TERM_STEP: of the earlier checkpoint, where the others are of this one */
};

struct tpd_part_ref {
	uint64_t first_chunk, chunks, bytes;
	uint8_t trailer_digest[TPD_XXH_LEN];
};

struct tpd_entry {
	char *path; /* owned */
	enum tpd_entry_type type;
	uint32_t mode;
	int64_t mtime_ns;
	char *target; /* symlinks; owned */
	/* regular files */
	uint64_t size;
	uint8_t sha256[TPD_SHA256_LEN];
	enum tpd_format_kind format;
	struct tpd_segment *segments;
	struct tpd_segment_about *about; /* one a segment; NULL when they were left out */
	uint32_t segment_count;
	struct tpd_slab *slabs; /* of all segments whose references are put together */
	uint32_t slab_count;
	struct tpd_predictor *predictors; /* ascending by segment */
	uint32_t predictor_count;
	struct tpd_part_ref *parts;
	uint32_t part_count;
};

struct tpd_manifest {
	struct tpd_id id; /* computed by seal and by parse */
	char *run;        /* owned, as everything below */
	uint64_t step;
	enum tpd_checkpoint_kind kind;
	int64_t created_ns;
	char *source;
	bool has_ref;
	struct tpd_id ref;
	uint64_t ref_step;
	char *ref_run; /* of another run: its name; NULL: of this one */
	bool has_w1; /* w1 of the statistics */
	struct tpd_id w1;
	uint64_t w1_step;
	bool has_earlier; /* a second reference: what was before `ref` (w0) */
	struct tpd_id earlier;
	uint64_t earlier_step;
	uint32_t depth;
	struct tpd_entry *entries; /* ascending by path */
	uint32_t entry_count;
	struct tpd_tie *ties; /* by state; NULL when they were left out */
	uint32_t tie_count;
	uint32_t *files; /* derived: entry index of each regular file, in order; file_count of them */
	uint32_t file_count;
};

void tpd_manifest_release(struct tpd_manifest *m); /* safe on a zeroed struct; zeroes it */

/* Fill the derived fields and the id of a manifest that was put together by hand (entries must be sorted). */
enum tpd_status tpd_manifest_seal(struct tpd_manifest *m, struct tpd_err *err);
/* The object's bytes. m must be sealed. */
enum tpd_status tpd_manifest_write(const struct tpd_manifest *m, struct tpd_buf *out, struct tpd_err *err);
/* How much of it is kept; all of it is checked in any case. */
enum tpd_manifest_keep {
	TPD_MANIFEST_SEGMENTS, /* `about` is NULL: enough to restore */
	TPD_MANIFEST_ABOUT,    /* and what there is to know of segments, without statistics; and the ties */
	TPD_MANIFEST_ALL,
};
/* Parse and check everything FORMAT.md section 2 says; on success *out is owned by the caller. */
enum tpd_status tpd_manifest_parse(const void *data, size_t len, enum tpd_manifest_keep keep, struct tpd_manifest *out,
				   struct tpd_err *err);
/* Free the `about` of all files; ties stay. */
void tpd_manifest_forget_about(struct tpd_manifest *m);
/* The ties of a file's segment as a state, ascending; NULL and *out_count 0: none. */
const struct tpd_tie *tpd_manifest_ties(const struct tpd_manifest *m, uint32_t file, uint32_t segment, uint32_t *out_count);

/* Append to the entry's slabs and let the segment refer to them; `converted` is for the caller to say then. count: 1..TPD_SLABS_MAX. */
enum tpd_status tpd_entry_refer(struct tpd_entry *entry, uint32_t segment, const struct tpd_slab *slabs, uint32_t count, bool derived,
				struct tpd_err *err);
/* Append a predictor; segments ascend. */
enum tpd_status tpd_entry_predict(struct tpd_entry *entry, const struct tpd_predictor *predictor, struct tpd_err *err);
/* That of a segment; NULL: none. */
const struct tpd_predictor *tpd_entry_predictor(const struct tpd_entry *entry, uint32_t segment);
/* May a tensor of one type be derived from one of another: the same, or its rounding? */
bool tpd_dtype_derives(enum tpd_dtype from, enum tpd_dtype to);
/* May it refer to one of another type: a rounding, or of a rounding? */
bool tpd_dtype_converts(enum tpd_dtype from, enum tpd_dtype to);

/* What a tensor was planned to be coded as; "derived" where it is derived: what encodes the few differences tells little then. */
const char *tpd_segment_encoding(const struct tpd_segment *seg, const struct tpd_segment_about *about);

/* Geometry. */
uint64_t tpd_segment_chunks(const struct tpd_segment *seg);                     /* number of chunks; 0 when empty */
uint32_t tpd_segment_chunk_len(const struct tpd_segment *seg, uint64_t chunk);  /* bytes of that chunk */
uint64_t tpd_entry_chunks(const struct tpd_entry *file);                        /* of all segments */
/* Which segment and chunk of it has this number in the file? number < tpd_entry_chunks(). */
void tpd_entry_locate(const struct tpd_entry *file, uint64_t number, uint32_t *out_segment, uint64_t *out_chunk);
/*
 * The pieces of the file that make up bytes [pos, pos + len) of a segment (one piece but for glue): calls
 * fn(arg, file_offset, position in the segment, length) in ascending order.
 */
void tpd_entry_pieces(const struct tpd_entry *file, uint32_t segment, uint64_t pos, uint64_t len,
		      void (*fn)(void *arg, uint64_t file_offset, uint64_t at, uint64_t n), void *arg);

uint64_t tpd_manifest_size(const struct tpd_manifest *m);   /* bytes of all regular files */
uint64_t tpd_manifest_stored(const struct tpd_manifest *m); /* bytes of all its parts */

#endif
