/*
 * capture_spool.c - a capture that outlives being written over.
 *
 * The problem: descriptors survive deletion, not truncation in place, and a trainer that saves to the same path again does just that while
 * the capture waits in a queue or is being encoded. So what was captured has to be somewhere else. Where file systems share blocks, that
 * is a clone of each file: made at once, at no cost. Elsewhere it is a copy, made in steps so that its thread can open another
 * checkpoint in between, within bounds that the caller sets, and void like any capture when an original changed before its end.
 *
 * Both lie in files without names (O_TMPFILE): they are gone when they are closed, however the process ends, and nothing ever takes them
 * for a checkpoint. Rejected: named files in a directory of their own, which somebody would have to sweep after a crash and to tell
 * apart from those of a process that lives; and copy_file_range(), which on one file system moves no less bytes and cannot be paused
 * where the time goes, in one call. Nothing is fsynced: nobody reads a copy after a crash.
 *
 * The originals of copies stay open until somebody takes them: they, not the copies, are what is kept of a stored checkpoint for the next
 * one's delta, since they cost no room of ours.
 */
#include "base/tpd.h"

#include "archive/capture_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/io.h"
#include "base/text.h"

#define STEP_SIZE (4u << 20)   /* some milliseconds, if the disk is not at its limit */
#define DROP_EVERY (32u << 20) /* written pages are let go of in stretches: writing them out begins with that */

static void close_all(int *files, size_t count)
{
	for (size_t i = 0; files && i < count; i++)
		if (files[i] >= 0)
			close(files[i]);
	free(files);
}

void tpd_capture_drop_spooled(struct tpd_capture *capture)
{
	close_all(capture->spooled, capture->source.count);
	close_all(capture->originals, capture->source.count);
	capture->spooled = capture->originals = NULL;
	free(capture->copy.buffer);
	capture->copy.buffer = NULL;
	if (capture->spool)
		atomic_fetch_sub(&capture->spool->used, capture->reserved);
	capture->spool = NULL;
	capture->reserved = 0;
}

static int *no_files(size_t count)
{
	int *files = malloc((count + 1) * sizeof(*files));

	for (size_t i = 0; files && i < count; i++)
		files[i] = -1;
	return files;
}

static int open_nameless(const struct tpd_io *io, int dir)
{
	return io->open(io, dir, ".", O_TMPFILE | O_RDWR, 0600);
}

bool tpd_spool_works(const struct tpd_spool *spool)
{
	int fd = open_nameless(spool->io, spool->dir);

	if (fd >= 0)
		spool->io->close(spool->io, fd);
	return fd >= 0;
}

bool tpd_capture_clone(struct tpd_capture *capture, int spool)
{
	size_t count = capture->source.count;
	bool good;

	if (spool < 0 || capture->spooled || capture->detached)
		return capture->spooled != NULL;
	capture->spooled = no_files(count);
	good = capture->spooled != NULL;
	for (size_t i = 0; good && i < count; i++) {
		if (capture->entries[i].type != TPD_ENTRY_FILE)
			continue;
		capture->spooled[i] = open_nameless(tpd_io_posix(), spool);
		good = capture->spooled[i] >= 0 && ioctl(capture->spooled[i], FICLONE, capture->entries[i].fd) == 0;
	}
	if (!good)
		tpd_capture_drop_spooled(capture);
	return good;
}

/* --- copies --- */

/* Would `bytes` more leave the file system of the spool with less than low_space? */
static enum tpd_status check_space(const struct tpd_spool *spool, uint64_t bytes, uint64_t low_space, struct tpd_err *err)
{
	struct statvfs fs;
	uint64_t available, wanted;
	char size[TPD_TEXT_SIZE];

	if (fstatvfs(spool->dir, &fs) != 0)
		return tpd_fail_sys(err, errno, "cannot ask for the free space of the store");
	available = (uint64_t)fs.f_bavail * fs.f_frsize;
	if (!TPD_ADD_OVERFLOW(bytes, low_space, &wanted) && available >= wanted)
		return TPD_OK;
	return tpd_fail(err, TPD_LIMIT, "only %s are free where the store lies", tpd_text_bytes(available, size));
}

enum tpd_status tpd_capture_copy_begin(struct tpd_capture *capture, struct tpd_spool *spool, uint64_t spool_max, uint64_t low_space,
				       struct tpd_err *err)
{
	uint64_t used = atomic_load(&spool->used);
	char size[TPD_TEXT_SIZE], most[TPD_TEXT_SIZE];
	enum tpd_status status;

	if (capture->spooled || capture->detached)
		return tpd_fail(err, TPD_USAGE, "'%s' is in the spool already", capture->path);
	if (capture->bytes > spool_max - TPD_MIN(used, spool_max))
		return tpd_fail(err, TPD_LIMIT, "its %s and what is copied already are more than %s",
				tpd_text_bytes(capture->bytes, size), tpd_text_bytes(spool_max, most));
	status = check_space(spool, capture->bytes, low_space, err);
	if (status)
		return status;
	capture->spooled = no_files(capture->source.count);
	capture->copy.buffer = malloc(STEP_SIZE);
	if (!capture->spooled || !capture->copy.buffer) {
		tpd_capture_drop_spooled(capture);
		return tpd_fail_nomem(err);
	}
	capture->spool = spool;
	capture->reserved = capture->copy.left = capture->bytes;
	capture->copy.low_space = low_space;
	capture->copy.entry = 0;
	capture->copy.at = 0;
	atomic_fetch_add(&spool->used, capture->reserved);
	return TPD_OK;
}

/* Up to STEP_SIZE bytes of the entry in work. */
static enum tpd_status copy_some(struct tpd_capture *capture, struct tpd_err *err)
{
	const struct tpd_io *io = capture->spool->io;
	const struct tpd_source_entry *entry = &capture->entries[capture->copy.entry];
	int *to = &capture->spooled[capture->copy.entry];
	uint64_t at = capture->copy.at, stretch = at / DROP_EVERY * DROP_EVERY;
	size_t len = (size_t)TPD_MIN(entry->size - at, (uint64_t)STEP_SIZE);
	ssize_t got = 0;
	enum tpd_status status;

	if (*to < 0)
		*to = open_nameless(io, capture->spool->dir);
	if (*to < 0)
		return tpd_fail_sys(err, -*to, "cannot make a file without a name in the store");
	if (len > 0)
		got = tpd_io_posix()->pread(tpd_io_posix(), entry->fd, capture->copy.buffer, len, at);
	if (got < 0)
		return tpd_fail_sys(err, (int)-got, "cannot read '%s' in '%s'", entry->path, capture->path);
	if (len > 0 && got == 0)
		return tpd_fail(err, TPD_CONFLICT, "'%s' in '%s' became shorter while it was copied", entry->path, capture->path);
	status = tpd_io_write_all(io, *to, capture->copy.buffer, (size_t)got, at, entry->path, err);
	if (status) {
		tpd_err_prefix(err, "copy in the store");
		return status;
	}
	at += (uint64_t)got;
	capture->copy.at = at;
	capture->copy.left -= (uint64_t)got;
	if (at == entry->size)
		io->drop_cache(io, *to, 0, 0);
	else if (at >= stretch + DROP_EVERY)
		io->drop_cache(io, *to, stretch, DROP_EVERY);
	return TPD_OK;
}

static bool to_be_copied(const struct tpd_capture *capture)
{
	const struct tpd_source_entry *entry = &capture->entries[capture->copy.entry];

	return entry->type == TPD_ENTRY_FILE && (capture->copy.at < entry->size || capture->spooled[capture->copy.entry] < 0);
}

enum tpd_status tpd_capture_copy_step(struct tpd_capture *capture, bool *out_more, struct tpd_err *err)
{
	enum tpd_status status = TPD_OK;

	*out_more = false;
	if (!capture->copy.buffer)
		return TPD_OK;
	while (capture->copy.entry < capture->source.count && !to_be_copied(capture)) {
		capture->copy.entry++;
		capture->copy.at = 0;
	}
	if (capture->copy.entry < capture->source.count) {
		*out_more = true;
		status = check_space(capture->spool, capture->copy.left, capture->copy.low_space, err);
		if (!status)
			status = copy_some(capture, err);
		if (!status)
			return TPD_OK;
		*out_more = false;
		tpd_capture_drop_spooled(capture);
		return status;
	}
	free(capture->copy.buffer);
	capture->copy.buffer = NULL;
	return TPD_OK;
}

uint64_t tpd_capture_copy_left(const struct tpd_capture *capture)
{
	return capture->copy.buffer ? capture->copy.left : 0;
}

size_t tpd_capture_descriptors(const struct tpd_capture *capture)
{
	return capture->source.count * (capture->originals || capture->spooled ? 2 : 1);
}

enum tpd_status tpd_capture_detach(struct tpd_capture *capture, struct tpd_err *err)
{
	bool more = true, copies = capture->spool != NULL;
	enum tpd_status status = TPD_OK;

	while (!status && more) /* what is left of a copy */
		status = tpd_capture_copy_step(capture, &more, NULL);
	status = tpd_capture_check(capture, err);
	if (status || !capture->spooled)
		return status;
	for (size_t i = 0; i < capture->source.count; i++) {
		int spooled = capture->spooled[i];

		if (spooled < 0)
			continue;
		capture->spooled[i] = capture->entries[i].fd;
		capture->entries[i].fd = spooled;
	}
	if (copies) {
		capture->originals = capture->spooled;
		capture->spooled = NULL;
	} else {
		tpd_capture_drop_spooled(capture);
	}
	capture->detached = true;
	return TPD_OK;
}

/* --- afterwards --- */

uint64_t tpd_capture_copied(const struct tpd_capture *capture)
{
	return capture->detached ? capture->reserved : 0;
}

struct tpd_capture *tpd_capture_take_originals(struct tpd_capture *capture)
{
	size_t count = capture->source.count;
	struct tpd_capture *plain = capture->originals ? calloc(1, sizeof(*plain)) : NULL;
	bool good;

	if (!plain)
		return NULL;
	*plain = (struct tpd_capture){
		.path = strdup(capture->path),
		.device = capture->device,
		.inode = capture->inode,
		.born_ns = capture->born_ns,
		.source = capture->source,
		.entries = calloc(count + 1, sizeof(*plain->entries)),
		.stats = calloc(count + 1, sizeof(*plain->stats)),
		.cap = count + 1,
		.bytes = capture->bytes,
	};
	good = plain->path && plain->entries && plain->stats;
	plain->source.entries = plain->entries;
	plain->source.origin = plain->path;
	plain->source.check_arg = plain;
	plain->source.held = NULL;
	plain->source.count = 0;
	for (size_t i = 0; good && i < count; i++) {
		const struct tpd_source_entry *from = &capture->entries[i];
		struct tpd_source_entry *to = &plain->entries[i];

		*to = *from;
		to->fd = -1;
		to->path = strdup(from->path);
		to->target = from->target ? strdup(from->target) : NULL;
		plain->stats[i] = capture->stats[i];
		plain->source.count++;
		good = to->path && (to->target || !from->target);
	}
	if (!good) {
		tpd_capture_close(plain);
		return NULL;
	}
	for (size_t i = 0; i < count; i++)
		plain->entries[i].fd = capture->originals[i];
	free(capture->originals);
	capture->originals = NULL;
	return plain;
}

bool tpd_capture_takes_room(const struct tpd_capture *capture, bool there)
{
	if (capture->detached && !capture->reserved)
		return !there;
	for (size_t i = 0; i < capture->source.count; i++) {
		int fd = capture->originals ? capture->originals[i] : capture->detached ? -1 : capture->entries[i].fd;
		struct stat st;

		if (capture->entries[i].type == TPD_ENTRY_FILE && fd >= 0 && fstat(fd, &st) == 0 && st.st_nlink == 0)
			return true;
	}
	return false;
}
