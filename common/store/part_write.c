/*
 * part_write.c - write a part in one pass (FORMAT.md section 3).
 *
 * Payloads go to the file as they come; the index is kept in memory (32 bytes a chunk) and follows them, then the
 * trailer. Before the part gets its name it is read back from the disk: what comes from the page cache would prove
 * nothing, so the cached pages are dropped first, which they can be once the fsync has made them clean. The directory
 * is not fsynced here: a part whose name a power loss takes away is made again, and publishing syncs the directory
 * anyway.
 */
#include "base/tpd.h"

#include "store/part.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "store/part_internal.h"

/* What is read back at once, apart from a single larger payload. */
#define READ_BACK (256u << 10)

struct tpd_part_writer {
	const struct tpd_io *io;
	int dir, fd; /* dir is borrowed */
	char name[TPD_PART_NAME], tmp[TPD_PART_NAME + 4];
	char *shown; /* WHERE/tmp, for messages; owned */
	uint32_t file, part, chunks;
	uint64_t first_chunk, at, decoded; /* at: end of the payloads so far */
	struct tpd_buf index;
};

void tpd_part_name(uint32_t file, uint32_t part, char out[TPD_PART_NAME])
{
	snprintf(out, TPD_PART_NAME, "f%05u.p%05u", file, part);
}

static void free_writer(struct tpd_part_writer *w)
{
	tpd_buf_release(&w->index);
	free(w->shown);
	free(w);
}

enum tpd_status tpd_part_create(const struct tpd_io *io, int dir, const char *where, uint32_t file, uint32_t part,
				uint64_t first_chunk, struct tpd_part_writer **out_writer, struct tpd_err *err)
{
	struct tpd_part_writer *w = calloc(1, sizeof(*w));
	uint8_t header[TPD_PART_HEADER] = TPD_PART_MAGIC;
	enum tpd_status status;
	int rc;

	if (!w)
		return tpd_fail_nomem(err);
	*w = (struct tpd_part_writer){.io = io, .dir = dir, .fd = -1, .file = file, .part = part,
				      .first_chunk = first_chunk, .at = TPD_PART_HEADER};
	tpd_part_name(file, part, w->name);
	snprintf(w->tmp, sizeof(w->tmp), "%s.tmp", w->name);
	if (asprintf(&w->shown, "%s/%s", where, w->tmp) < 0) {
		w->shown = NULL;
		free_writer(w);
		return tpd_fail_nomem(err);
	}
	rc = io->unlink(io, dir, w->tmp);
	if (rc >= 0 || rc == -ENOENT)
		rc = w->fd = io->open(io, dir, w->tmp, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0644);
	if (rc < 0) {
		status = tpd_fail_sys(err, -rc, "cannot create '%s'", w->shown);
		free_writer(w);
		return status;
	}
	tpd_put_u32(header + 8, TPD_PART_VERSION);
	status = tpd_io_write_all(io, w->fd, header, sizeof(header), 0, w->shown, err);
	if (status) {
		tpd_part_abandon(w);
		return status;
	}
	*out_writer = w;
	return TPD_OK;
}

enum tpd_status tpd_part_append(struct tpd_part_writer *w, const struct tpd_part_entry *entry, const void *payload,
				struct tpd_err *err)
{
	struct tpd_part_entry placed = *entry;
	uint8_t bytes[TPD_PART_ENTRY];
	enum tpd_status status;

	assert(entry->decoded_len > 0 && entry->decoded_len <= TPD_CHUNK_MAX_BYTES);
	assert(tpd_encoding_is_known(entry->encoding) && entry->payload_len <= TPD_CHUNK_MAX_BYTES);
	if (w->chunks == UINT32_MAX || w->at > UINT32_MAX)
		return tpd_fail(err, TPD_LIMIT, "'%s' has too many chunks", w->shown);
	status = tpd_io_write_all(w->io, w->fd, payload, entry->payload_len, w->at, w->shown, err);
	if (status)
		return status;
	placed.offset = (uint32_t)w->at;
	tpd_part_entry_put(&placed, bytes);
	tpd_buf_put(&w->index, bytes, sizeof(bytes));
	status = tpd_buf_status(&w->index, err);
	if (status)
		return status;
	w->at += entry->payload_len;
	w->decoded += entry->decoded_len;
	w->chunks++;
	return TPD_OK;
}

uint64_t tpd_part_decoded(const struct tpd_part_writer *w)
{
	return w->decoded;
}

static void make_trailer(const struct tpd_part_writer *w, uint8_t out[TPD_PART_TRAILER])
{
	memset(out, 0, TPD_PART_TRAILER);
	tpd_put_u64(out, w->at);
	tpd_put_u32(out + 8, w->chunks);
	tpd_put_u32(out + 12, w->file);
	tpd_put_u32(out + 16, w->part);
	tpd_put_u64(out + 24, w->first_chunk);
	tpd_xxh128(w->index.data, w->index.len, out + 40);
	tpd_xxh128(out, TPD_PART_SIGNED, out + TPD_PART_SIGNED);
	memcpy(out + 72, TPD_PART_END_MAGIC, 8);
}

/* Everything behind the payloads, and the header, as they must be. */
static enum tpd_status compare(const struct tpd_part_writer *w, const uint8_t *wanted, size_t len, uint64_t offset,
			       uint8_t *buf, struct tpd_err *err)
{
	for (size_t done = 0; done < len;) {
		size_t n = TPD_MIN(len - done, (size_t)READ_BACK);
		enum tpd_status status = tpd_io_read_exact(w->io, w->fd, buf, n, offset + done, w->shown, err);

		if (status)
			return status;
		if (memcmp(buf, wanted + done, n) != 0)
			return tpd_fail(err, TPD_CORRUPT, "'%s' does not read back as it was written", w->shown);
		done += n;
	}
	return TPD_OK;
}

/* Payloads by their digests, as many at once as fit the buffer. */
static enum tpd_status read_back_payloads(const struct tpd_part_writer *w, uint8_t *buf, size_t cap,
					  struct tpd_err *err)
{
	for (uint32_t first = 0, end; first < w->chunks; first = end) {
		size_t bytes = 0;
		uint64_t start = 0;
		enum tpd_status status;

		for (end = first; end < w->chunks; end++) {
			struct tpd_part_entry entry;

			tpd_part_entry_get(w->index.data + (size_t)end * TPD_PART_ENTRY, &entry);
			if (end == first)
				start = entry.offset;
			else if (bytes + entry.payload_len > cap)
				break;
			bytes += entry.payload_len;
		}
		status = tpd_io_read_exact(w->io, w->fd, buf, bytes, start, w->shown, err);
		if (status)
			return status;
		for (uint32_t i = first; i < end; i++) {
			struct tpd_part_entry entry;
			uint8_t digest[TPD_PAYLOAD_DIGEST];

			tpd_part_entry_get(w->index.data + (size_t)i * TPD_PART_ENTRY, &entry);
			tpd_xxh128_first(buf + (entry.offset - start), entry.payload_len, digest, sizeof(digest));
			if (memcmp(digest, entry.payload_digest, sizeof(digest)) != 0)
				return tpd_fail(err, TPD_CORRUPT,
						"'%s': chunk %llu does not read back as it was written",
						w->shown, (unsigned long long)(w->first_chunk + i));
		}
	}
	return TPD_OK;
}

static enum tpd_status read_back(const struct tpd_part_writer *w, const uint8_t trailer[TPD_PART_TRAILER],
				 struct tpd_err *err)
{
	uint8_t header[TPD_PART_HEADER] = TPD_PART_MAGIC;
	size_t cap = READ_BACK;
	TPD_AUTO_FREE uint8_t *buf = NULL;
	enum tpd_status status;

	for (uint32_t i = 0; i < w->chunks; i++) {
		struct tpd_part_entry entry;

		tpd_part_entry_get(w->index.data + (size_t)i * TPD_PART_ENTRY, &entry);
		cap = TPD_MAX(cap, (size_t)entry.payload_len);
	}
	buf = malloc(cap);
	if (!buf)
		return tpd_fail_nomem(err);
	tpd_put_u32(header + 8, TPD_PART_VERSION);
	w->io->drop_cache(w->io, w->fd, 0, 0);
	status = compare(w, header, sizeof(header), 0, buf, err);
	if (!status)
		status = read_back_payloads(w, buf, cap, err);
	if (!status)
		status = compare(w, w->index.data, w->index.len, w->at, buf, err);
	if (!status)
		status = compare(w, trailer, TPD_PART_TRAILER, w->at + w->index.len, buf, err);
	w->io->drop_cache(w->io, w->fd, 0, 0);
	return status;
}

enum tpd_status tpd_part_finish(struct tpd_part_writer *w, uint64_t *out_chunks, uint64_t *out_bytes,
				uint8_t out_trailer_digest[TPD_XXH_LEN], struct tpd_err *err)
{
	uint8_t trailer[TPD_PART_TRAILER];
	enum tpd_status status;
	int rc;

	make_trailer(w, trailer);
	status = tpd_io_write_all(w->io, w->fd, w->index.data, w->index.len, w->at, w->shown, err);
	if (!status)
		status = tpd_io_write_all(w->io, w->fd, trailer, sizeof(trailer), w->at + w->index.len, w->shown, err);
	if (!status && (rc = w->io->fsync(w->io, w->fd)) < 0)
		status = tpd_fail_sys(err, -rc, "cannot fsync '%s'", w->shown);
	if (!status)
		status = read_back(w, trailer, err);
	if (!status && (rc = w->io->rename(w->io, w->dir, w->tmp, w->dir, w->name, true)) < 0)
		status = tpd_fail_sys(err, -rc, "cannot rename '%s' to '%s'", w->shown, w->name);
	if (status) {
		tpd_part_abandon(w);
		return status;
	}
	*out_chunks = w->chunks;
	*out_bytes = w->at + w->index.len + sizeof(trailer);
	tpd_xxh128(trailer, sizeof(trailer), out_trailer_digest);
	w->io->close(w->io, w->fd);
	free_writer(w);
	return TPD_OK;
}

void tpd_part_abandon(struct tpd_part_writer *w)
{
	if (!w)
		return;
	w->io->close(w->io, w->fd);
	w->io->unlink(w->io, w->dir, w->tmp);
	free_writer(w);
}
