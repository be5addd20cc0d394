/*
 * part_read.c - read a part, which somebody else may have written or damaged (FORMAT.md section 3).
 *
 *      | header | payloads ...           | index          | trailer |
 *      0        16                       ^ index_at                 size
 *
 * Opening costs two small reads, an entry and its payload one each: nothing grows with the number of chunks, so that a
 * part in a bucket can be read the same way by ranges. What carries a right check and yet a number that is not
 * known was written by a newer version: TPD_UNSUPPORTED; everything else that is wrong is TPD_CORRUPT.
 */
#include "base/tpd.h"

#include "store/part.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "store/part_internal.h"

struct tpd_part {
	const struct tpd_io *io;
	int fd;
	char name[TPD_PART_NAME];
	uint64_t size, index_at, first_chunk;
	uint32_t chunks;
	uint8_t index_digest[TPD_XXH_LEN], trailer_digest[TPD_XXH_LEN];
};

void tpd_part_entry_check(const uint8_t in[TPD_PART_ENTRY], uint8_t out_check[4])
{
	uint8_t rest[TPD_PART_ENTRY - 4];

	memcpy(rest, in, 8);
	memcpy(rest + 8, in + 12, sizeof(rest) - 8);
	tpd_xxh128_first(rest, sizeof(rest), out_check, 4);
}

void tpd_part_entry_put(const struct tpd_part_entry *entry, uint8_t out[TPD_PART_ENTRY])
{
	tpd_put_u32(out, entry->offset);
	tpd_put_u32(out + 4, entry->payload_len | (uint32_t)entry->encoding << 24);
	memcpy(out + 12, entry->payload_digest, TPD_PAYLOAD_DIGEST);
	memcpy(out + 20, entry->decoded_digest, TPD_DECODED_DIGEST);
	tpd_part_entry_check(out, out + 8);
}

void tpd_part_entry_get(const uint8_t in[TPD_PART_ENTRY], struct tpd_part_entry *out)
{
	out->offset = tpd_get_u32(in);
	out->payload_len = tpd_get_u32(in + 4) & 0xffffff;
	out->decoded_len = 0;
	out->encoding = (enum tpd_encoding)in[7];
	memcpy(out->payload_digest, in + 12, TPD_PAYLOAD_DIGEST);
	memcpy(out->decoded_digest, in + 20, TPD_DECODED_DIGEST);
}

/* Bytes of the index to an entry that can be worked with. */
static enum tpd_status take_entry(const struct tpd_part *part, const uint8_t in[TPD_PART_ENTRY],
				  struct tpd_part_entry *out, struct tpd_err *err)
{
	struct tpd_part_entry entry;
	uint8_t check[4];

	tpd_part_entry_check(in, check);
	if (memcmp(check, in + 8, sizeof(check)) != 0)
		return tpd_fail(err, TPD_CORRUPT, "'%s': an index entry does not have its check", part->name);
	tpd_part_entry_get(in, &entry);
	if (!tpd_encoding_is_known(entry.encoding))
		return tpd_fail(err, TPD_UNSUPPORTED, "'%s': encoding %u is unknown to this version", part->name,
				(unsigned)entry.encoding);
	if (entry.payload_len > TPD_CHUNK_MAX_BYTES)
		return tpd_fail(err, TPD_CORRUPT, "'%s': a payload of %u bytes cannot be", part->name, entry.payload_len);
	if (entry.offset < TPD_PART_HEADER || entry.offset > part->index_at ||
	    entry.payload_len > part->index_at - entry.offset)
		return tpd_fail(err, TPD_CORRUPT, "'%s': a payload lies outside", part->name);
	*out = entry;
	return TPD_OK;
}

static enum tpd_status take_trailer(struct tpd_part *part, const uint8_t in[TPD_PART_TRAILER], uint32_t file,
				    uint32_t number, struct tpd_err *err)
{
	uint8_t digest[TPD_XXH_LEN];
	uint64_t end;

	tpd_xxh128(in, TPD_PART_SIGNED, digest);
	if (memcmp(in + 72, TPD_PART_END_MAGIC, 8) != 0 || memcmp(digest, in + TPD_PART_SIGNED, sizeof(digest)) != 0)
		return tpd_fail(err, TPD_CORRUPT, "'%s' has no valid trailer", part->name);
	if (tpd_get_u32(in + 20) != 0 || tpd_get_u64(in + 32) != 0)
		return tpd_fail(err, TPD_UNSUPPORTED, "'%s': its trailer is unknown to this version", part->name);
	part->index_at = tpd_get_u64(in);
	part->chunks = tpd_get_u32(in + 8);
	part->first_chunk = tpd_get_u64(in + 24);
	if (tpd_get_u32(in + 12) != file || tpd_get_u32(in + 16) != number)
		return tpd_fail(err, TPD_CORRUPT, "'%s' is part %u of file %u", part->name, tpd_get_u32(in + 16),
				tpd_get_u32(in + 12));
	if (part->index_at < TPD_PART_HEADER || part->index_at > part->size ||
	    part->size - part->index_at != (uint64_t)part->chunks * TPD_PART_ENTRY + TPD_PART_TRAILER ||
	    TPD_ADD_OVERFLOW(part->first_chunk, (uint64_t)part->chunks, &end))
		return tpd_fail(err, TPD_CORRUPT, "'%s': its index is not where the trailer says", part->name);
	memcpy(part->index_digest, in + 40, TPD_XXH_LEN);
	tpd_xxh128(in, TPD_PART_TRAILER, part->trailer_digest);
	return TPD_OK;
}

static enum tpd_status take_header(const struct tpd_part *part, const uint8_t in[TPD_PART_HEADER], struct tpd_err *err)
{
	uint32_t version = tpd_get_u32(in + 8);

	if (memcmp(in, TPD_PART_MAGIC, 8) != 0 || version == 0)
		return tpd_fail(err, TPD_CORRUPT, "'%s' does not begin as a part does", part->name);
	if (version > TPD_PART_VERSION || tpd_get_u32(in + 12) != 0)
		return tpd_fail(err, TPD_UNSUPPORTED, "'%s': version %u with flags %u is unknown to this version",
				part->name, version, tpd_get_u32(in + 12));
	return TPD_OK;
}

static enum tpd_status read_ends(struct tpd_part *part, uint32_t file, uint32_t number, struct tpd_err *err)
{
	uint8_t header[TPD_PART_HEADER], trailer[TPD_PART_TRAILER];
	enum tpd_status status;
	struct stat st;
	int rc = part->io->fstat(part->io, part->fd, &st);

	if (rc < 0)
		return tpd_fail_sys(err, -rc, "cannot stat '%s'", part->name);
	if (!S_ISREG(st.st_mode) || st.st_size < TPD_PART_HEADER + TPD_PART_TRAILER)
		return tpd_fail(err, TPD_CORRUPT, "'%s' is too short for a part", part->name);
	part->size = (uint64_t)st.st_size;
	status = tpd_io_read_exact(part->io, part->fd, trailer, sizeof(trailer), part->size - sizeof(trailer),
				   part->name, err);
	if (!status)
		status = take_trailer(part, trailer, file, number, err);
	if (!status)
		status = tpd_io_read_exact(part->io, part->fd, header, sizeof(header), 0, part->name, err);
	return status ? status : take_header(part, header, err);
}

enum tpd_status tpd_part_open(const struct tpd_io *io, int dir, uint32_t file, uint32_t part,
			      struct tpd_part **out_part, struct tpd_err *err)
{
	struct tpd_part *p = calloc(1, sizeof(*p));
	enum tpd_status status;

	if (!p)
		return tpd_fail_nomem(err);
	p->io = io;
	tpd_part_name(file, part, p->name);
	p->fd = io->open(io, dir, p->name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0);
	if (p->fd == -ENOENT)
		status = tpd_fail(err, TPD_NOT_FOUND, "there is no '%s'", p->name);
	else if (p->fd < 0)
		status = tpd_fail_sys(err, -p->fd, "cannot open '%s'", p->name);
	else
		status = read_ends(p, file, part, err);
	if (status) {
		tpd_part_close(p);
		return status;
	}
	*out_part = p;
	return TPD_OK;
}

void tpd_part_close(struct tpd_part *part)
{
	if (!part)
		return;
	if (part->fd >= 0)
		part->io->close(part->io, part->fd);
	free(part);
}

uint64_t tpd_part_first_chunk(const struct tpd_part *part)
{
	return part->first_chunk;
}

uint64_t tpd_part_chunks(const struct tpd_part *part)
{
	return part->chunks;
}

uint64_t tpd_part_bytes(const struct tpd_part *part)
{
	return part->size;
}

void tpd_part_trailer_digest(const struct tpd_part *part, uint8_t out[TPD_XXH_LEN])
{
	memcpy(out, part->trailer_digest, TPD_XXH_LEN);
}

enum tpd_status tpd_part_entry_read(const struct tpd_part *part, uint64_t chunk, struct tpd_part_entry *out,
				    struct tpd_err *err)
{
	uint8_t bytes[TPD_PART_ENTRY];
	enum tpd_status status;

	if (chunk < part->first_chunk || chunk - part->first_chunk >= part->chunks)
		return tpd_fail(err, TPD_CORRUPT, "'%s' does not hold chunk %llu", part->name,
				(unsigned long long)chunk);
	status = tpd_io_read_exact(part->io, part->fd, bytes, sizeof(bytes),
				   part->index_at + (chunk - part->first_chunk) * TPD_PART_ENTRY, part->name, err);
	return status ? status : take_entry(part, bytes, out, err);
}

enum tpd_status tpd_part_payload_read(const struct tpd_part *part, const struct tpd_part_entry *entry, void *buf,
				      struct tpd_err *err)
{
	uint8_t digest[TPD_PAYLOAD_DIGEST];
	enum tpd_status status;

	status = tpd_io_read_exact(part->io, part->fd, buf, entry->payload_len, entry->offset, part->name, err);
	if (status)
		return status;
	tpd_xxh128_first(buf, entry->payload_len, digest, sizeof(digest));
	if (memcmp(digest, entry->payload_digest, sizeof(digest)) != 0)
		return tpd_fail(err, TPD_CORRUPT, "'%s': a payload does not have its digest", part->name);
	return TPD_OK;
}

enum tpd_status tpd_part_check_index(const struct tpd_part *part, struct tpd_err *err)
{
	size_t len = (size_t)part->chunks * TPD_PART_ENTRY; /* no more than the file has */
	TPD_AUTO_FREE uint8_t *index = malloc(len + 1);
	uint8_t digest[TPD_XXH_LEN];
	uint64_t at = TPD_PART_HEADER;
	enum tpd_status status;

	if (!index)
		return tpd_fail_nomem(err);
	status = tpd_io_read_exact(part->io, part->fd, index, len, part->index_at, part->name, err);
	if (status)
		return status;
	tpd_xxh128(index, len, digest);
	if (memcmp(digest, part->index_digest, sizeof(digest)) != 0)
		return tpd_fail(err, TPD_CORRUPT, "'%s': its index does not have its digest", part->name);
	for (uint32_t i = 0; i < part->chunks; i++) {
		struct tpd_part_entry entry;

		status = take_entry(part, index + (size_t)i * TPD_PART_ENTRY, &entry, err);
		if (status)
			return status;
		if (entry.offset != at)
			return tpd_fail(err, TPD_CORRUPT, "'%s': its payloads do not follow one another", part->name);
		at += entry.payload_len;
	}
	if (at != part->index_at)
		return tpd_fail(err, TPD_CORRUPT, "'%s': its payloads do not end where the index begins", part->name);
	return TPD_OK;
}

void tpd_part_drop_cache(const struct tpd_part *part)
{
	part->io->drop_cache(part->io, part->fd, 0, 0);
}
