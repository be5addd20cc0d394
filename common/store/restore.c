/*
 * restore.c - a checkpoint back into files.
 *
 * Chunks are replayed in parallel and written where they belong; the SHA-256 of a written file is taken by the hasher's thread from
 * the file itself while the next one is replayed. Only when every file has its digest do they get their names.
 */
#include "base/tpd.h"

#include "store/restore.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store/chain.h"
#include "store/hasher.h"
#include "store/place.h"
#include "store/readers.h"

struct restoring {
	struct tpd_readers readers;
	struct tpd_chain *chain;
	const struct tpd_restore_options *options;
	struct tpd_place *place;
	struct tpd_hasher *hasher;
	uint64_t done, total;
	/* the file in work */
	uint32_t file;
	const struct tpd_entry *entry;
	int fd;
	uint64_t first; /* chunk number of item 0 */
	/* the file whose digest is being taken */
	const struct tpd_entry *hashed;
	int hashed_fd;
};

struct piece_write {
	int fd;
	const uint8_t *from;
	uint64_t start;
	int sys;
};

static void write_piece(void *arg, uint64_t file_offset, uint64_t at, uint64_t n)
{
	struct piece_write *pw = arg;

	while (n > 0 && !pw->sys) {
		ssize_t put = pwrite(pw->fd, pw->from + (at - pw->start), n, (off_t)file_offset);

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0) {
			pw->sys = errno;
			return;
		}
		at += (uint64_t)put;
		file_offset += (uint64_t)put;
		n -= (uint64_t)put;
	}
}

static enum tpd_status restore_chunk(void *ctx, size_t item, unsigned worker, struct tpd_err *err)
{
	struct restoring *r = ctx;
	struct piece_write pw = {.fd = r->fd};
	uint8_t *out = NULL;
	size_t len = 0;
	uint32_t segment;
	uint64_t chunk;
	enum tpd_status status;

	tpd_entry_locate(r->entry, r->first + item, &segment, &chunk);
	status = tpd_readers_room(&r->readers, worker, &r->entry->segments[segment], &out, err);
	if (!status)
		status = tpd_chain_read(r->chain, r->readers.workers[worker], r->file, segment, chunk, out, &len, err);
	if (status)
		return status;
	pw.from = out;
	pw.start = chunk * tpd_chunk_bytes(r->entry->segments[segment].dtype);
	tpd_entry_pieces(r->entry, segment, pw.start, len, write_piece, &pw);
	return pw.sys ? tpd_fail_sys(err, pw.sys, "cannot write '%s'", r->entry->path) : TPD_OK;
}

/* Wait for the digest of the file before; compare, and give it its mode and time. */
static enum tpd_status settle_hashed(struct restoring *r, struct tpd_err *err)
{
	uint8_t digest[TPD_SHA256_LEN];
	enum tpd_status status;

	if (!r->hashed)
		return TPD_OK;
	status = tpd_hasher_end(r->hasher, digest, err);
	if (!status && memcmp(digest, r->hashed->sha256, sizeof(digest)) != 0)
		status = tpd_fail(err, TPD_CORRUPT, "'%s': the restored bytes do not have the recorded SHA-256", r->hashed->path);
	if (!status)
		status = tpd_place_seal(r->place, r->hashed_fd, err);
	r->hashed = NULL;
	return status;
}

static enum tpd_status restore_file(struct restoring *r, struct tpd_err *err)
{
	uint64_t chunks = tpd_entry_chunks(r->entry), done = r->done;
	enum tpd_status status = tpd_place_create(r->place, r->entry, &r->fd, err);

	for (uint64_t at = 0; !status && at < chunks;) {
		size_t n = (size_t)TPD_MIN(chunks - at, 8u * tpd_pool_threads(r->options->pool));

		r->first = at;
		status = tpd_pool_run(r->options->pool, n, restore_chunk, r, err);
		at += n;
		if (!status)
			status = tpd_readers_progress(&r->options->progress, done + r->entry->size * at / chunks, r->total, err);
	}
	r->done = done + r->entry->size;
	if (status)
		return status;
	status = settle_hashed(r, err);
	if (status)
		return status;
	r->hashed = r->entry;
	r->hashed_fd = r->fd;
	tpd_hasher_add_fd(r->hasher, r->fd);
	tpd_hasher_start(r->hasher);
	return TPD_OK;
}

bool tpd_restore_covers(const char *name, const char *path)
{
	size_t len;

	while (name[0] == '.' && (name[1] == '/' || name[1] == 0))
		name += name[1] == 0 ? 1 : 1 + strspn(name + 1, "/");
	len = strlen(name);
	while (len > 0 && name[len - 1] == '/')
		len--;
	return len == 0 || (strncmp(name, path, len) == 0 && (path[len] == 0 || path[len] == '/'));
}

bool tpd_restore_wants(const char *const *files, const char *path)
{
	for (size_t i = 0; files && files[i]; i++)
		if (tpd_restore_covers(files[i], path))
			return true;
	return !files;
}

static bool wanted(const struct restoring *r, const struct tpd_entry *entry)
{
	return tpd_restore_wants(r->options->files, entry->path);
}

static enum tpd_status check_names(const struct restoring *r, const struct tpd_manifest *m, struct tpd_err *err)
{
	const char *const *files = r->options->files;

	for (size_t f = 0; files && files[f]; f++) {
		uint32_t i = 0;

		while (i < m->entry_count && !tpd_restore_covers(files[f], m->entries[i].path))
			i++;
		if (i == m->entry_count)
			return tpd_fail(err, TPD_NOT_FOUND, "%s@%llu holds no '%s'", m->run,
					(unsigned long long)m->step, files[f]);
	}
	return TPD_OK;
}

static enum tpd_status restore_all(struct restoring *r, const char *to, struct tpd_err *err)
{
	const struct tpd_manifest *m = tpd_chain_manifest(r->chain);
	enum tpd_status status = check_names(r, m, err);

	if (status)
		return status;
	for (uint32_t i = 0; i < m->entry_count; i++)
		if (m->entries[i].type == TPD_ENTRY_FILE && wanted(r, &m->entries[i]))
			r->total += m->entries[i].size;
	status = tpd_place_open(to, &r->place, err);
	for (uint32_t i = 0; !status && i < m->entry_count; i++)
		if (wanted(r, &m->entries[i]))
			status = tpd_place_check(r->place, &m->entries[i], r->options->force, err);
	for (uint32_t i = 0, file = 0; !status && i < m->entry_count; i++) {
		const struct tpd_entry *entry = &m->entries[i];

		if (wanted(r, entry) && entry->type != TPD_ENTRY_FILE) {
			status = tpd_place_add(r->place, entry, err);
		} else if (wanted(r, entry)) {
			r->file = file;
			r->entry = entry;
			status = restore_file(r, err);
		}
		file += entry->type == TPD_ENTRY_FILE;
	}
	if (!status)
		status = settle_hashed(r, err);
	if (!status)
		status = tpd_place_commit(r->place, r->options->force, err);
	return status;
}

enum tpd_status tpd_restore(struct tpd_store *store, const struct tpd_id *id, const char *to,
			    const struct tpd_restore_options *options, struct tpd_err *err)
{
	struct restoring r = {.options = options};
	enum tpd_status status = tpd_chain_open(store, id, false, &r.chain, err);

	if (!status)
		status = tpd_readers_init(&r.readers, tpd_pool_threads(options->pool), err);
	if (!status)
		status = tpd_hasher_new(&r.hasher, err);
	if (!status)
		status = restore_all(&r, to, err);
	tpd_hasher_free(r.hasher); /* before the descriptors that it reads are closed */
	tpd_place_close(r.place);
	tpd_readers_release(&r.readers);
	tpd_chain_close(r.chain);
	return status;
}
