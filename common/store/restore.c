/*
 * restore.c - a checkpoint back into files.
 *
 * Chunks are replayed in parallel and written where they belong; the SHA-256 of a written file is taken by the hasher's thread from
 * the file itself while others are replayed. Only when every file has its digest do they get their names.
 *
 * Weights that are predicted are read through the chains of their moments, at each link. So a weight's chunk is replayed together with those
 * of its exp_avg and exp_avg_sq, whatever files these are in, and each link of the three is decoded once. Files are therefore not
 * written one after the other: each is open from the first of its chunks that is written to the last.
 */
#include "base/tpd.h"

#include "store/restore.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "store/chain.h"
#include "store/hasher.h"
#include "store/place.h"
#include "store/readers.h"

#define TOGETHER 3u     /* chunks that are replayed at once: a weight's, and of its two moments */
#define OPEN_MAX 64u    /* files; what is in others is replayed for itself */
#define BATCH_ITEMS 8u  /* a thread */

/* One of the checkpoint's regular files. */
struct file_work {
	const struct tpd_entry *entry;
	bool wanted, is_open, ended;
	int fd;          /* the place's */
	uint8_t *done;   /* a bit a chunk: it is written, or in the batch; owned while it is open */
	uint64_t left;   /* chunks that are not */
};

/* A moment that is read together with what is predicted from it. */
struct companion {
	uint32_t file, segment;
	bool by_state;                /* it is an exp_avg that names it, not the weights: those go first */
	uint32_t of_file, of_segment; /* whose predictor names it */
};

struct item {
	struct tpd_chain_want wants[TOGETHER];
	uint32_t count;
};

struct restoring {
	struct tpd_readers readers;
	struct tpd_chain *chain;
	const struct tpd_restore_options *options;
	struct tpd_place *place;
	struct tpd_hasher *hasher;
	uint64_t done, total;
	struct file_work *files; /* the manifest's file_count */
	uint32_t open_count;
	struct companion *companions; /* by file and segment, one of each */
	size_t companion_count, companion_cap;
	struct item *items; /* of the batch */
	size_t item_count;
	struct file_work *hashed; /* the file whose digest is being taken */
};

/* --- what is read together --- */

static int compare_segments(const void *a, const void *b)
{
	const struct companion *x = a, *y = b;

	if (x->file != y->file)
		return x->file < y->file ? -1 : 1;
	return (x->segment > y->segment) - (x->segment < y->segment);
}

static int compare_companions(const void *a, const void *b)
{
	const struct companion *x = a, *y = b;
	int order = compare_segments(a, b);

	if (order)
		return order;
	if (x->by_state != y->by_state)
		return x->by_state ? 1 : -1;
	if (x->of_file != y->of_file)
		return x->of_file < y->of_file ? -1 : 1;
	return (x->of_segment > y->of_segment) - (x->of_segment < y->of_segment);
}

static bool names_exp_avg(const struct tpd_predictor *p)
{
	return p->terms & (TPD_TERM_BEFORE | TPD_TERM_NOW);
}

static bool names_exp_avg_sq(const struct tpd_predictor *p)
{
	return p->terms & (TPD_TERM_BEFORE | TPD_TERM_NOW | TPD_TERM_SCALE);
}

static enum tpd_status add_companion(struct restoring *r, struct companion companion, struct tpd_err *err)
{
	if (r->companion_count == r->companion_cap) {
		size_t cap = r->companion_cap ? 2 * r->companion_cap : 64;
		struct companion *grown = reallocarray(r->companions, cap, sizeof(*grown));

		if (!grown)
			return tpd_fail_nomem(err);
		r->companions = grown;
		r->companion_cap = cap;
	}
	r->companions[r->companion_count++] = companion;
	return TPD_OK;
}

static enum tpd_status find_companions(struct restoring *r, struct tpd_err *err)
{
	const struct tpd_manifest *m = tpd_chain_manifest(r->chain);
	enum tpd_status status = TPD_OK;
	size_t kept = 0;

	for (uint32_t f = 0; !status && f < m->file_count; f++) {
		const struct tpd_entry *entry = r->files[f].entry;

		for (uint32_t i = 0; !status && i < entry->predictor_count; i++) {
			const struct tpd_predictor *p = &entry->predictors[i];
			const bool by_state = !names_exp_avg(p);

			if (names_exp_avg_sq(p))
				status = add_companion(r, (struct companion){p->v_file, p->v_segment, by_state, f, p->segment}, err);
			if (!status && names_exp_avg(p))
				status = add_companion(r, (struct companion){p->m_file, p->m_segment, by_state, f, p->segment}, err);
		}
	}
	if (r->companion_count > 1)
		qsort(r->companions, r->companion_count, sizeof(*r->companions), compare_companions);
	for (size_t i = 0; i < r->companion_count; i++)
		if (kept == 0 || compare_segments(&r->companions[i], &r->companions[kept - 1]) != 0)
			r->companions[kept++] = r->companions[i];
	r->companion_count = kept;
	return status;
}

/* --- files --- */

static enum tpd_status open_file(struct restoring *r, struct file_work *file, struct tpd_err *err)
{
	enum tpd_status status;

	file->left = tpd_entry_chunks(file->entry);
	file->done = calloc(file->left / 8 + 1, 1);
	if (!file->done)
		return tpd_fail_nomem(err);
	status = tpd_place_create(r->place, file->entry, &file->fd, err);
	if (status)
		return status;
	file->is_open = true;
	r->open_count++;
	return TPD_OK;
}

/* Wait for the digest of the file before; compare, and give it its mode and time. */
static enum tpd_status settle_hashed(struct restoring *r, struct tpd_err *err)
{
	uint8_t digest[TPD_SHA256_LEN];
	struct file_work *hashed = r->hashed;
	enum tpd_status status;

	if (!hashed)
		return TPD_OK;
	status = tpd_hasher_end(r->hasher, digest, err);
	if (!status && memcmp(digest, hashed->entry->sha256, sizeof(digest)) != 0)
		status = tpd_fail(err, TPD_CORRUPT, "'%s': the restored bytes do not have the recorded SHA-256", hashed->entry->path);
	if (!status)
		status = tpd_place_seal(r->place, hashed->fd, err);
	r->hashed = NULL;
	r->open_count--;
	return status;
}

/* All of it is written. */
static enum tpd_status end_file(struct restoring *r, struct file_work *file, struct tpd_err *err)
{
	enum tpd_status status = settle_hashed(r, err);

	free(file->done);
	file->done = NULL;
	file->is_open = false;
	file->ended = true;
	if (status)
		return status;
	r->hashed = file;
	tpd_hasher_add_fd(r->hasher, file->fd);
	tpd_hasher_start(r->hasher);
	return TPD_OK;
}

/* --- a batch of chunks --- */

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

static enum tpd_status restore_item(void *ctx, size_t number, unsigned worker, struct tpd_err *err)
{
	struct restoring *r = ctx;
	struct item *item = &r->items[number];
	uint8_t *out = NULL;
	size_t room[TOGETHER], all = 0;
	enum tpd_status status;

	for (uint32_t i = 0; i < item->count; i++) {
		room[i] = tpd_segment_chunk_len(&r->files[item->wants[i].file].entry->segments[item->wants[i].segment], item->wants[i].chunk);
		all += room[i];
	}
	status = tpd_readers_room(&r->readers, worker, all, &out, err);
	for (uint32_t i = 0; !status && i < item->count; i++) {
		item->wants[i].out = out;
		out += room[i];
	}
	if (!status)
		status = tpd_chain_read_together(r->chain, r->readers.workers[worker], item->wants, item->count, err);
	for (uint32_t i = 0; !status && i < item->count; i++) {
		const struct tpd_chain_want *want = &item->wants[i];
		const struct file_work *file = &r->files[want->file];
		struct piece_write pw = {.fd = file->fd, .from = want->out};

		pw.start = want->chunk * tpd_chunk_bytes(file->entry->segments[want->segment].dtype);
		tpd_entry_pieces(file->entry, want->segment, pw.start, want->len, write_piece, &pw);
		if (pw.sys)
			status = tpd_fail_sys(err, pw.sys, "cannot write '%s'", file->entry->path);
	}
	return status;
}

/* This chunk into the item, unless it is written already or there is no place for it; must: open its file whatever else is open. */
static enum tpd_status add_chunk(struct restoring *r, struct item *item, uint32_t f, uint32_t segment, uint64_t chunk, bool must,
				 struct tpd_err *err)
{
	struct file_work *file = &r->files[f];
	const struct tpd_segment *seg = &file->entry->segments[segment];
	const uint64_t number = seg->first_chunk + chunk;
	enum tpd_status status = TPD_OK;

	if (!file->wanted || chunk >= tpd_segment_chunks(seg))
		return TPD_OK;
	if (!file->is_open) {
		/* One that is complete has none left, and no bits any more. */
		if (file->ended || (!must && r->open_count >= OPEN_MAX))
			return TPD_OK;
		status = open_file(r, file, err);
	}
	if (status || file->done[number / 8] >> number % 8 & 1)
		return status;
	file->done[number / 8] |= (uint8_t)(1u << number % 8);
	item->wants[item->count++] = (struct tpd_chain_want){.file = f, .segment = segment, .chunk = chunk};
	return TPD_OK;
}

/* Chunk `chunk` of a segment, with what it is read together with. */
static enum tpd_status add_item(struct restoring *r, uint32_t f, uint32_t segment, uint64_t chunk, struct tpd_err *err)
{
	struct item *item = &r->items[r->item_count];
	const struct companion key = {.file = f, .segment = segment}, *found = NULL;
	const struct tpd_predictor *p;
	uint32_t first_file = f, first = segment;
	enum tpd_status status;

	if (r->companion_count > 0)
		found = bsearch(&key, r->companions, r->companion_count, sizeof(key), compare_segments);
	if (found) {
		first_file = found->of_file;
		first = found->of_segment;
	}
	item->count = 0;
	status = add_chunk(r, item, first_file, first, chunk, first_file == f, err);
	p = tpd_entry_predictor(r->files[first_file].entry, first);
	if (!status && p && names_exp_avg(p))
		status = add_chunk(r, item, p->m_file, p->m_segment, chunk, p->m_file == f, err);
	if (!status && p && names_exp_avg_sq(p))
		status = add_chunk(r, item, p->v_file, p->v_segment, chunk, p->v_file == f, err);
	r->item_count += item->count > 0;
	return status;
}

static enum tpd_status run_batch(struct restoring *r, struct tpd_err *err)
{
	enum tpd_status status = tpd_pool_run(r->options->pool, r->item_count, restore_item, r, err);

	for (size_t i = 0; !status && i < r->item_count; i++)
		for (uint32_t w = 0; !status && w < r->items[i].count; w++) {
			struct file_work *file = &r->files[r->items[i].wants[w].file];

			r->done += r->items[i].wants[w].len;
			if (--file->left == 0)
				status = end_file(r, file, err);
		}
	r->item_count = 0;
	return status ? status : tpd_readers_progress(&r->options->progress, r->done, r->total, err);
}

/* What of it is not written yet, and what is read together with that. */
static enum tpd_status restore_file(struct restoring *r, uint32_t f, struct tpd_err *err)
{
	struct file_work *file = &r->files[f];
	const uint64_t chunks = tpd_entry_chunks(file->entry);
	const size_t most = BATCH_ITEMS * (size_t)tpd_pool_threads(r->options->pool);
	enum tpd_status status = TPD_OK;

	if (!file->is_open && !file->ended)
		status = open_file(r, file, err);
	if (!status && file->is_open && chunks == 0)
		status = end_file(r, file, err);
	for (uint64_t number = 0; !status && number < chunks && !file->ended; number++) {
		uint32_t segment;
		uint64_t chunk;

		if (file->done[number / 8] >> number % 8 & 1)
			continue;
		tpd_entry_locate(file->entry, number, &segment, &chunk);
		status = add_item(r, f, segment, chunk, err);
		if (!status && r->item_count == most)
			status = run_batch(r, err);
	}
	return status || r->item_count == 0 ? status : run_batch(r, err);
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
	r->files = calloc(m->file_count + 1u, sizeof(*r->files));
	r->items = calloc(BATCH_ITEMS * (size_t)tpd_pool_threads(r->options->pool), sizeof(*r->items));
	if (!r->files || !r->items)
		return tpd_fail_nomem(err);
	for (uint32_t f = 0; f < m->file_count; f++) {
		const struct tpd_entry *entry = &m->entries[m->files[f]];

		r->files[f] = (struct file_work){.entry = entry, .wanted = wanted(r, entry)};
		r->total += r->files[f].wanted ? entry->size : 0;
	}
	status = find_companions(r, err);
	if (!status)
		status = tpd_place_open(to, &r->place, err);
	for (uint32_t i = 0; !status && i < m->entry_count; i++)
		if (wanted(r, &m->entries[i]))
			status = tpd_place_check(r->place, &m->entries[i], r->options->force, err);
	for (uint32_t i = 0; !status && i < m->entry_count; i++)
		if (m->entries[i].type != TPD_ENTRY_FILE && wanted(r, &m->entries[i]))
			status = tpd_place_add(r->place, &m->entries[i], err);
	for (uint32_t f = 0; !status && f < m->file_count; f++)
		if (r->files[f].wanted)
			status = restore_file(r, f, err);
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
	enum tpd_status status = tpd_place_check_outside(to, store, err);

	if (!status)
		status = tpd_chain_open(store, id, false, &r.chain, err);
	if (!status)
		status = tpd_readers_init(&r.readers, tpd_pool_threads(options->pool), err);
	if (!status)
		status = tpd_hasher_new(&r.hasher, err);
	if (!status)
		status = restore_all(&r, to, err);
	tpd_hasher_free(r.hasher); /* before the descriptors that it reads are closed */
	tpd_place_close(r.place);
	for (uint32_t f = 0; r.files && f < tpd_chain_manifest(r.chain)->file_count; f++)
		free(r.files[f].done);
	free(r.files);
	free(r.companions);
	free(r.items);
	tpd_readers_release(&r.readers);
	tpd_chain_close(r.chain);
	return status;
}
