/*
 * manifest_internal.h - what manifest.c, manifest_write.c and manifest_read.c share.
 */
#ifndef TPD_STORE_MANIFEST_INTERNAL_H
#define TPD_STORE_MANIFEST_INTERNAL_H

#include "store/manifest.h"

#define TPD_MANIFEST_MAGIC "TPDMANI1"
#define TPD_MANIFEST_HEADER 64
#define TPD_MANIFEST_SIGNED 48 /* bytes of the header that its digest covers */
#define TPD_MANIFEST_PATH_MAX 4095
/* Sum of all file sizes, and of all parts: what an off_t can say, so that no sum of them overflows. */
#define TPD_MANIFEST_BYTES_MAX ((uint64_t)INT64_MAX)

/*
 * What a manifest weighs: about the memory that it takes when all of it is kept, in fixed units so that writer and reader
 * agree (FORMAT.md section 2). Without a limit a kilobyte of Zstandard could ask for a gigabyte. At the limit there is room for
 * 700,000 tensors with statistics; an ingest leaves tensors of further files unnamed before it comes to it.
 */
#define TPD_MANIFEST_WEIGHT_MAX (512ull << 20)
#define TPD_MANIFEST_WEIGHT_ENTRY 256u   /* and the bytes of path and target */
#define TPD_MANIFEST_WEIGHT_SEGMENT 192u /* and the bytes of the name */
#define TPD_MANIFEST_WEIGHT_STATS 432u   /* of a segment that has some */
#define TPD_MANIFEST_WEIGHT_PART 48u
#define TPD_MANIFEST_WEIGHT_TIE 64u
#define TPD_MANIFEST_WEIGHT_SLAB 64u
#define TPD_MANIFEST_WEIGHT_PREDICTOR 64u
#define TPD_MANIFEST_MAX_ENTRIES 65536u /* what one capture holds at most (archive/capture.h) */

/* What was added up on the way through a manifest; begins as zeros. */
struct tpd_manifest_sums {
	uint64_t weight;
	uint64_t bytes;                /* of all parts */
	uint64_t end, covered, stored; /* of the file in work: its last segment's end, bytes in tensors, payload bytes */
};

/*
 * The rules of FORMAT.md section 2 that are about values, not about bytes. `class` is what a broken rule is:
 * TPD_CORRUPT for what was read, TPD_USAGE for what is about to be written.
 */
enum tpd_status tpd_manifest_check_logical(const struct tpd_manifest *m, enum tpd_status class, struct tpd_err *err);
uint64_t tpd_entry_weight(const struct tpd_entry *entry);
/* Before `count` things of this weight are made. */
enum tpd_status tpd_manifest_weigh(struct tpd_manifest_sums *sums, uint64_t count, uint64_t weight, enum tpd_status class,
				   struct tpd_err *err);
/* Can a manifest hold this path as its source? */
bool tpd_manifest_is_source(const char *path);
/* created, source, references and depth. */
enum tpd_status tpd_manifest_check_origin(const struct tpd_manifest *m, enum tpd_status class, struct tpd_err *err);
/* Segment s of a file, in order, so that a reader can stop at the first that is wrong; then what they make up together. */
enum tpd_status tpd_manifest_check_segment(const struct tpd_manifest *m, const struct tpd_entry *entry, uint32_t s,
					   const struct tpd_segment_about *about, struct tpd_manifest_sums *sums,
					   enum tpd_status class, struct tpd_err *err);
enum tpd_status tpd_manifest_check_file(const struct tpd_entry *entry, struct tpd_manifest_sums *sums, enum tpd_status class,
					struct tpd_err *err);
/* What is derived or predicted from other tensors of this checkpoint. Files must be derived already. */
enum tpd_status tpd_manifest_check_within(const struct tpd_manifest *m, enum tpd_status class, struct tpd_err *err);
/* before: the tie that precedes it; NULL: it is the first. Files and first elements' segments must be derived already. */
enum tpd_status tpd_manifest_check_tie(const struct tpd_manifest *m, const struct tpd_tie *before, const struct tpd_tie *tie,
				       enum tpd_status class, struct tpd_err *err);
/* All of these, of a manifest in memory with its `about`. */
enum tpd_status tpd_manifest_check_physical(const struct tpd_manifest *m, enum tpd_status class, struct tpd_err *err);

/* Fill files, file_count and each first_chunk. */
enum tpd_status tpd_manifest_derive(struct tpd_manifest *m, struct tpd_err *err);

/* The id of a logical section. */
enum tpd_status tpd_manifest_identify(const uint8_t *logical, size_t len, struct tpd_id *out_id, struct tpd_err *err);
void tpd_manifest_put_logical(const struct tpd_manifest *m, struct tpd_buf *out);

#endif
