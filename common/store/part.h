/*
 * part.h - payload objects (FORMAT.md section 3): written in one pass, read from the trailer.
 */
#ifndef TPD_STORE_PART_H
#define TPD_STORE_PART_H

#include "base/digest.h"
#include "base/io.h"
#include "base/tpd.h"
#include "codec/codec.h"

#define TPD_PART_HEADER 16
#define TPD_PART_ENTRY 32
#define TPD_PART_TRAILER 80
#define TPD_PART_MAX ((1ull << 32) - 2 * TPD_CHUNK_MAX_BYTES) /* decoded bytes that close it, so that offsets have 32 bits */
#define TPD_PAYLOAD_DIGEST 8  /* bytes of the xxh128 that are kept */
#define TPD_DECODED_DIGEST 12

struct tpd_part_entry {
	uint32_t offset, payload_len;
	uint32_t decoded_len; /* not in the object: whoever reads an entry says it */
	enum tpd_encoding encoding;
	uint8_t payload_digest[TPD_PAYLOAD_DIGEST], decoded_digest[TPD_DECODED_DIGEST];
};

/* fNNNNN.pNNNNN */
#define TPD_PART_NAME 24
void tpd_part_name(uint32_t file, uint32_t part, char out[TPD_PART_NAME]);

/*
 * Writer. One thread. The file is made as NAME.tmp (replacing an old .tmp) and gets its name in finish. where: what messages call
 * `dir`, its path.
 */
struct tpd_part_writer;
enum tpd_status tpd_part_create(const struct tpd_io *io, int dir, const char *where, uint32_t file, uint32_t part,
				uint64_t first_chunk, struct tpd_part_writer **out_writer, struct tpd_err *err);
/* Append one chunk; entry->offset is set by the writer. */
enum tpd_status tpd_part_append(struct tpd_part_writer *w, const struct tpd_part_entry *entry, const void *payload,
				struct tpd_err *err);
uint64_t tpd_part_decoded(const struct tpd_part_writer *w); /* decoded bytes so far */
/*
 * Index, trailer, fsync, drop the cached pages, read everything back and compare payload digests, rename to its name (replacing an
 * invalid old one). Frees the writer in every case. *out_bytes: size of the object.
 */
enum tpd_status tpd_part_finish(struct tpd_part_writer *w, uint64_t *out_chunks, uint64_t *out_bytes,
				uint8_t out_trailer_digest[TPD_XXH_LEN], struct tpd_err *err);
/* Give up: close, unlink the .tmp, free. NULL is fine. */
void tpd_part_abandon(struct tpd_part_writer *w);

/* Reader. Thread-safe after open (pread only). */
struct tpd_part;
/* Opens and checks the trailer (not the index as a whole: see tpd_part_check_index). */
enum tpd_status tpd_part_open(const struct tpd_io *io, int dir, uint32_t file, uint32_t part, struct tpd_part **out_part,
			      struct tpd_err *err);
void tpd_part_close(struct tpd_part *part);
uint64_t tpd_part_first_chunk(const struct tpd_part *part);
uint64_t tpd_part_chunks(const struct tpd_part *part);
uint64_t tpd_part_bytes(const struct tpd_part *part); /* size of the object */
void tpd_part_trailer_digest(const struct tpd_part *part, uint8_t out[TPD_XXH_LEN]);
/* Entry of chunk number (in the file) `chunk`, but for decoded_len; checks bounds and the entry's check. */
enum tpd_status tpd_part_entry_read(const struct tpd_part *part, uint64_t chunk, struct tpd_part_entry *out,
				    struct tpd_err *err);
/* The payload, digest verified, into buf of at least entry->payload_len bytes. */
enum tpd_status tpd_part_payload_read(const struct tpd_part *part, const struct tpd_part_entry *entry, void *buf,
				      struct tpd_err *err);
/* The index as a whole: its digest, and that payloads follow one another without gaps. */
enum tpd_status tpd_part_check_index(const struct tpd_part *part, struct tpd_err *err);
/* Drop its pages from the page cache. */
void tpd_part_drop_cache(const struct tpd_part *part);

#endif
