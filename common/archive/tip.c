/*
 * tip.c - raw copies of the newest checkpoints.
 *
 * The problem: rotation often deletes a checkpoint before the next one is stored, and then the next delta's reference has to be replayed
 * through the chain. A raw copy makes that a plain read. It costs the room of one checkpoint a run, so it is off unless configured, and
 * bounded; on file systems with shared extents the copy is a reflink and costs nothing while the original is there.
 */
#include "base/tpd.h"

#include "archive/internal.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/text.h"

#define COPY_SIZE (1u << 20)

static char *relative_path(const char *run)
{
	TPD_AUTO_FREE char *escaped = tpd_text_escape(run);
	char *path = NULL;

	if (!escaped || asprintf(&path, "tip/%s", escaped) < 0)
		return NULL;
	return path;
}

char *tpd_tip_path(const struct tpd_archive *archive, const char *run)
{
	TPD_AUTO_FREE char *relative = relative_path(run);
	char *path = NULL;

	if (!relative || asprintf(&path, "%s/%s", tpd_store_path(archive->store), relative) < 0)
		return NULL;
	return path;
}

static bool copy_file(const struct tpd_io *io, int from, int dir, const char *path, uint64_t size, uint8_t *buffer)
{
	int to = io->open(io, dir, path, O_WRONLY | O_CREAT | O_EXCL, 0600);
	bool good = to >= 0;

	if (!good)
		return false;
	if (ioctl(to, FICLONE, from) != 0) {
		for (uint64_t at = 0; good && at < size;) {
			ssize_t got = pread(from, buffer, COPY_SIZE, (off_t)at);

			good = got > 0 && tpd_io_write_all(io, to, buffer, (size_t)got, at, path, NULL) == TPD_OK;
			at += got > 0 ? (uint64_t)got : 0;
		}
		io->drop_cache(io, to, 0, size);
	}
	io->close(io, to);
	return good;
}

void tpd_tip_put(struct tpd_archive *archive, const char *run, const struct tpd_id *id, const struct tpd_capture *capture)
{
	const struct tpd_io *io = tpd_store_io(archive->store);
	const struct tpd_source *source = tpd_capture_source(capture);
	int dir = tpd_store_dir(archive->store);
	TPD_AUTO_FREE char *base = relative_path(run);
	TPD_AUTO_FREE char *copy = NULL;
	TPD_AUTO_FREE uint8_t *buffer = NULL;
	char hex[TPD_ID_HEX];
	unsigned number = 0;
	bool good;

	if (!base || (archive->options.tip_cache == 0 && faccessat(dir, base, F_OK, 0) != 0))
		return;
	tpd_io_remove_tree(io, dir, base, NULL); /* the copy of the one before */
	if (tpd_capture_bytes(capture) > archive->options.tip_cache)
		return;
	tpd_id_hex(id, hex);
	if (asprintf(&copy, "%s/%s", base, hex) < 0) {
		copy = NULL;
		return;
	}
	buffer = malloc(COPY_SIZE);
	good = buffer && tpd_io_mkdirs(io, dir, copy, NULL) == TPD_OK;
	for (size_t i = 0; good && i < source->count; i++) {
		TPD_AUTO_FREE char *path = NULL;

		if (source->entries[i].type != TPD_ENTRY_FILE)
			continue;
		if (asprintf(&path, "%s/%05u", copy, number++) < 0) {
			path = NULL;
			good = false;
		} else {
			good = copy_file(io, source->entries[i].fd, dir, path, source->entries[i].size, buffer);
		}
	}
	if (!good) /* half a copy would only be read in vain */
		tpd_io_remove_tree(io, dir, base, NULL);
}
