/*
 * chain_files.c - the files that a chain is read from: parts of every link, and originals of the first.
 *
 * A chain of depth 15 over a file of 75 parts has 1200 of them, more than a process may have open. So a bounded set is
 * kept, and the one that was not used for the longest time is closed when another is wanted. Who reads from one has
 * taken it, and what is taken is not closed: with more threads than there is room for, the set is larger by as many,
 * until they give back. A reader takes one at a time, never one while it holds another, so the set is bounded by a
 * constant and the threads. Directories of objects are not kept open at all: opening one costs little beside the two
 * reads of a part's ends.
 *
 * Rejected: a set for each thread (they mostly read the same parts at the same time).
 */
#include "base/tpd.h"

#include "store/chain.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store/chain_internal.h"
#include "store/internal.h"

/*
 * Chunks go through a file in order, so each link needs one part at a time, and two where one ends. An ingest reads two
 * chains at once, and the usual limit of a process is 1024 descriptors.
 */
#define OPEN_MIN 64u
#define OPEN_MAX 256u

static uint32_t open_limit(const struct tpd_chain *chain)
{
	return TPD_MAX(OPEN_MIN, TPD_MIN(2 * chain->count, OPEN_MAX));
}

static void file_close(struct tpd_chain_file *file)
{
	if (file->part) {
		tpd_part_drop_cache(file->part);
		tpd_part_close(file->part);
	}
	if (file->fd >= 0)
		close(file->fd);
	free(file);
}

void tpd_chain_close_files(struct tpd_chain *chain)
{
	for (uint32_t i = 0; i < chain->open_count; i++)
		file_close(chain->open[i]);
	free(chain->open);
	for (unsigned i = 0; i < TPD_CHAIN_SOURCES; i++)
		free(chain->lost[i]);
}

/* Close the files that were not used for the longest time, until no more than `most` are open or all are in use. */
static void shrink(struct tpd_chain *chain, uint32_t most)
{
	while (chain->open_count > most) {
		uint32_t oldest = UINT32_MAX;

		for (uint32_t i = 0; i < chain->open_count; i++)
			if (chain->open[i]->users == 0 &&
			    (oldest == UINT32_MAX || chain->open[i]->used < chain->open[oldest]->used))
				oldest = i;
		if (oldest == UINT32_MAX)
			return;
		file_close(chain->open[oldest]);
		chain->open[oldest] = chain->open[--chain->open_count];
	}
}

static struct tpd_chain_file *take_open(struct tpd_chain *chain, uint32_t link, int source, uint32_t file,
					uint32_t number)
{
	for (uint32_t i = 0; i < chain->open_count; i++) {
		struct tpd_chain_file *open = chain->open[i];

		if (open->file == file && open->number == number && open->link == link && open->source == source) {
			open->users++;
			open->used = ++chain->takings;
			return open;
		}
	}
	return NULL;
}

/* A place for one more, in use and still without a file. */
static struct tpd_chain_file *add(struct tpd_chain *chain, uint32_t link, int source, uint32_t file, uint32_t number)
{
	struct tpd_chain_file *added;

	shrink(chain, open_limit(chain) - 1);
	if (chain->open_count == chain->open_cap) {
		uint32_t cap = chain->open_cap ? 2 * chain->open_cap : OPEN_MIN;
		struct tpd_chain_file **grown = reallocarray(chain->open, cap, sizeof(struct tpd_chain_file *));

		if (!grown)
			return NULL;
		chain->open = grown;
		chain->open_cap = cap;
	}
	added = calloc(1, sizeof(*added));
	if (!added)
		return NULL;
	*added = (struct tpd_chain_file){.link = link, .source = source, .file = file, .number = number, .fd = -1,
					 .users = 1, .used = ++chain->takings};
	chain->open[chain->open_count++] = added;
	return added;
}

/* It was the one added last, and could not be opened. */
static void take_back(struct tpd_chain *chain)
{
	file_close(chain->open[--chain->open_count]);
}

static enum tpd_status open_part(struct tpd_chain *chain, struct tpd_chain_file *file, struct tpd_err *err)
{
	const struct tpd_chain_link *link = &chain->links[file->link];
	const struct tpd_part_ref *ref = &link->manifest.entries[link->manifest.files[file->file]].parts[file->number];
	const struct tpd_io *io = tpd_store_io(chain->store);
	uint8_t digest[TPD_XXH_LEN];
	int dir = -1;
	enum tpd_status status = tpd_object_open(chain->store, &link->manifest.id, link->generation, &dir, err);

	if (status)
		return status;
	status = tpd_part_open(io, dir, file->file, file->number, &file->part, err);
	io->close(io, dir);
	if (status == TPD_NOT_FOUND)
		return tpd_fail(err, TPD_CORRUPT, "part %u is missing", file->number);
	if (status)
		return status;
	tpd_part_trailer_digest(file->part, digest);
	if (memcmp(digest, ref->trailer_digest, sizeof(digest)) != 0 ||
	    tpd_part_first_chunk(file->part) != ref->first_chunk || tpd_part_chunks(file->part) != ref->chunks)
		return tpd_fail(err, TPD_CORRUPT, "part %u is not the one that the manifest names", file->number);
	return TPD_OK;
}

enum tpd_status tpd_chain_take_part(struct tpd_chain *chain, uint32_t link, uint32_t file, uint64_t number,
				    struct tpd_chain_file **out_file, struct tpd_err *err)
{
	const struct tpd_manifest *m = &chain->links[link].manifest;
	const struct tpd_entry *entry = &m->entries[m->files[file]];
	uint32_t low = 0, high = entry->part_count;
	enum tpd_status status = TPD_OK;
	struct tpd_chain_file *found;

	while (high - low > 1) {
		uint32_t middle = low + (high - low) / 2;

		if (entry->parts[middle].first_chunk <= number)
			low = middle;
		else
			high = middle;
	}
	pthread_mutex_lock(&chain->lock);
	found = take_open(chain, link, TPD_CHAIN_SOURCES, file, low);
	if (!found) {
		found = add(chain, link, TPD_CHAIN_SOURCES, file, low);
		status = found ? open_part(chain, found, err) : tpd_fail_nomem(err);
		if (found && status)
			take_back(chain);
	}
	pthread_mutex_unlock(&chain->lock);
	if (!status)
		*out_file = found;
	return status;
}

/* Descriptor of a file of link 0 in this source; -1: not there, or of another size. */
static int open_raw(const struct tpd_chain *chain, enum tpd_chain_source source, uint32_t file)
{
	const int flags = O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
	const struct tpd_manifest *m = &chain->links[0].manifest;
	const struct tpd_entry *entry = &m->entries[m->files[file]];
	const char *root = chain->sources[source];
	char number[16];
	struct stat st;
	int fd = -1;

	snprintf(number, sizeof(number), "%05u", file);
	if (source == TPD_CHAIN_HELD) {
		fd = fcntl(chain->held[file], F_DUPFD_CLOEXEC, 0);
	} else if (source == TPD_CHAIN_ORIGINAL && m->kind == TPD_CHECKPOINT_FILE) {
		fd = open(root, flags);
	} else {
		int dir = open(root, O_RDONLY | O_CLOEXEC | O_DIRECTORY);

		if (dir >= 0) {
			fd = openat(dir, source == TPD_CHAIN_COPY ? number : entry->path, flags);
			close(dir);
		}
	}
	if (fd >= 0 && (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || (uint64_t)st.st_size != entry->size)) {
		close(fd);
		fd = -1;
	}
	return fd;
}

struct tpd_chain_file *tpd_chain_take_raw(struct tpd_chain *chain, enum tpd_chain_source source, uint32_t file)
{
	struct tpd_chain_file *found = NULL;

	pthread_mutex_lock(&chain->lock);
	if (!chain->lost[source])
		chain->lost[source] = calloc(chain->links[0].manifest.file_count + 1u, sizeof(bool));
	if (chain->lost[source] && !chain->lost[source][file]) {
		found = take_open(chain, 0, (int)source, file, 0);
		if (!found) {
			found = add(chain, 0, (int)source, file, 0);
			if (found)
				found->fd = open_raw(chain, source, file);
			if (found && found->fd < 0) {
				take_back(chain);
				found = NULL;
				chain->lost[source][file] = true;
			}
		}
	}
	pthread_mutex_unlock(&chain->lock);
	return found;
}

bool tpd_chain_has_raw(struct tpd_chain *chain, uint32_t file)
{
	for (unsigned source = 0; source < TPD_CHAIN_SOURCES; source++) {
		struct tpd_chain_file *found = NULL;

		if (chain->sources[source] || (source == TPD_CHAIN_HELD && chain->held))
			found = tpd_chain_take_raw(chain, (enum tpd_chain_source)source, file);
		tpd_chain_give(chain, found);
		if (found)
			return true;
	}
	return false;
}

void tpd_chain_give(struct tpd_chain *chain, struct tpd_chain_file *file)
{
	if (!file)
		return;
	pthread_mutex_lock(&chain->lock);
	file->users--;
	shrink(chain, open_limit(chain));
	pthread_mutex_unlock(&chain->lock);
}
