/*
 * recall.c - metrics that refs have lost, read again from the stored checkpoints.
 *
 * What a trainer told stands in the refs alone, but where it told it is stored: trainer_state.json, Lightning's file, the name. So a
 * checkpoint without metrics is given to tpd_metrics_of() once more, as a source whose entries are replayed from the store in place of
 * being read from descriptors: the same function, with the same limits, as when it came. Only chunks that it asks for are replayed, and
 * a chain is opened only where it asks for any: most files of a run that tells nothing cost their manifest.
 *
 * It is asked of every checkpoint that has none, not only of runs whose refs were damaged just now: names that were lost come back with
 * the next writer of the run, too, and nothing tells afterwards that they were. What was recorded of another source than the first (a
 * link with a better name), or by a name that the manifest cannot hold, does not come back.
 */
#include "base/tpd.h"

#include "archive/internal.h"

#include <stdlib.h>
#include <string.h>

#include "codec/codec.h"
#include "store/chain.h"
#include "store/readers.h"

struct recall {
	struct tpd_store *store;
	struct tpd_manifest m;           /* of the checkpoint that is looked at */
	struct tpd_chain *chain;         /* its; NULL: nothing of it was asked for */
	struct tpd_chain_worker *worker; /* made with the first chain, for all */
	uint8_t *chunk;                  /* the one that was replayed last: chunk `number` of that file's segment */
	size_t chunk_len;                /* 0: none */
	uint32_t file, segment;
	uint64_t number;
	struct tpd_checkpoint_metrics *found; /* owned, as what is in it */
	size_t found_count;
};

/* --- a stored file, read at any place --- */

static enum tpd_status open_chain(struct recall *r, struct tpd_err *err)
{
	if (!r->chunk)
		r->chunk = malloc(TPD_CHUNK_MAX_BYTES);
	if (!r->chunk)
		return tpd_fail_nomem(err);
	if (!r->worker) {
		enum tpd_status status = tpd_chain_worker_new(&r->worker, err);

		if (status)
			return status;
	}
	return tpd_chain_open(r->store, &r->m.id, false, &r->chain, err);
}

/* The segment of a byte of the file, its position there, and how many bytes of the file go on there from it. */
static uint32_t locate(const struct tpd_entry *entry, uint64_t offset, uint64_t *out_pos, uint64_t *out_run)
{
	uint64_t before = 0; /* of tensors: glue is what lies in none */

	for (uint32_t s = 1; s < entry->segment_count; s++) {
		const struct tpd_segment *seg = &entry->segments[s];

		if (offset < seg->offset) {
			*out_pos = offset - before;
			*out_run = seg->offset - offset;
			return 0;
		}
		if (offset - seg->offset < seg->length) {
			*out_pos = offset - seg->offset;
			*out_run = seg->length - *out_pos;
			return s;
		}
		before += seg->length;
	}
	*out_pos = offset - before;
	*out_run = entry->size - offset;
	return 0;
}

static enum tpd_status replay(struct recall *r, uint32_t file, uint32_t segment, uint64_t number, struct tpd_err *err)
{
	if (r->chunk_len > 0 && r->file == file && r->segment == segment && r->number == number)
		return TPD_OK;
	r->file = file;
	r->segment = segment;
	r->number = number;
	r->chunk_len = 0;
	return tpd_chain_read(r->chain, r->worker, file, segment, number, r->chunk, &r->chunk_len, err);
}

static uint32_t file_number(const struct tpd_manifest *m, size_t entry)
{
	uint32_t file = 0;

	while (file < m->file_count && m->files[file] != entry)
		file++;
	return file;
}

/* tpd_source's read; arg: a struct recall. */
static enum tpd_status read_stored(void *arg, size_t number, void *buf, size_t len, uint64_t offset, struct tpd_err *err)
{
	struct recall *r = arg;
	const struct tpd_entry *entry = &r->m.entries[number];
	const uint32_t file = file_number(&r->m, number);
	enum tpd_status status = r->chain ? TPD_OK : open_chain(r, err);
	uint8_t *to = buf;

	if (!status && (offset > entry->size || len > entry->size - offset))
		status = tpd_fail(err, TPD_CORRUPT, "'%s' has no %zu bytes at %llu", entry->path, len, (unsigned long long)offset);
	while (!status && len > 0) {
		uint64_t pos, run, each;
		uint32_t segment = locate(entry, offset, &pos, &run);
		size_t n = 0;

		each = tpd_chunk_bytes(entry->segments[segment].dtype);
		status = replay(r, file, segment, pos / each, err);
		if (!status && pos % each >= r->chunk_len)
			status = tpd_fail(err, TPD_CORRUPT, "'%s' ends at %llu", entry->path, (unsigned long long)offset);
		if (!status) {
			n = (size_t)TPD_MIN(TPD_MIN(run, r->chunk_len - pos % each), len);
			memcpy(to, r->chunk + pos % each, n);
		}
		to += n;
		offset += n;
		len -= n;
	}
	return status;
}

/* --- what it tells --- */

static enum tpd_status ask(struct recall *r, struct tpd_metrics *out, struct tpd_err *err)
{
	TPD_AUTO_FREE struct tpd_source_entry *entries = calloc(r->m.entry_count + 1u, sizeof(*entries));
	struct tpd_source source = {
		.kind = r->m.kind,
		.origin = r->m.source,
		.entries = entries,
		.count = r->m.entry_count,
		.read = read_stored,
		.read_arg = r,
	};
	enum tpd_status status;

	if (!entries)
		return tpd_fail_nomem(err);
	for (uint32_t i = 0; i < r->m.entry_count; i++)
		entries[i] = (struct tpd_source_entry){.path = r->m.entries[i].path, .type = r->m.entries[i].type,
						       .size = r->m.entries[i].size, .fd = -1};
	r->chunk_len = 0;
	status = tpd_metrics_of(&source, out, err);
	tpd_chain_close(r->chain);
	r->chain = NULL;
	return status;
}

/* Takes over `metrics`. */
static enum tpd_status keep(struct recall *r, const struct tpd_id *id, struct tpd_metrics *metrics, struct tpd_err *err)
{
	struct tpd_checkpoint_metrics *grown = reallocarray(r->found, r->found_count + 1, sizeof(*grown));

	if (!grown) {
		tpd_metrics_release(metrics);
		return tpd_fail_nomem(err);
	}
	r->found = grown;
	grown[r->found_count++] = (struct tpd_checkpoint_metrics){*id, *metrics};
	return TPD_OK;
}

static void note(struct tpd_recalled *tally, uint64_t count, const struct tpd_err *fault)
{
	if (tally->failed == 0)
		tally->first = *fault;
	tally->failed += count;
}

/* One that has none on record. A checkpoint whose manifest cannot be read is told of by whoever records it. */
static enum tpd_status recall_version(struct recall *r, const char *run, const struct tpd_version *version,
				      struct tpd_recalled *tally, struct tpd_err *err)
{
	struct tpd_metrics metrics = {0};
	struct tpd_err fault = {0};
	enum tpd_status status;

	if (tpd_store_manifest(r->store, &version->id, &r->m, NULL) != TPD_OK)
		return TPD_OK;
	status = ask(r, &metrics, &fault);
	tpd_manifest_release(&r->m);
	if (!status && metrics.count > 0)
		return keep(r, &version->id, &metrics, err);
	tpd_metrics_release(&metrics);
	if (status == TPD_NOMEM) {
		if (err)
			*err = fault;
		return status;
	}
	if (status) {
		tpd_err_prefix(&fault, "%s@%llu~%u", run, (unsigned long long)version->step, version->version);
		note(tally, 1, &fault);
	}
	return TPD_OK;
}

/* All at once: each lock of a run looks through the whole store. */
static enum tpd_status record(struct recall *r, struct tpd_archive *archive, const char *run, struct tpd_recalled *tally,
			      struct tpd_err *err)
{
	struct tpd_run_lock *lock = NULL;
	struct tpd_err fault = {0};
	enum tpd_status status;

	if (r->found_count == 0)
		return TPD_OK;
	status = tpd_store_run_lock(archive->store, run, archive->options.lock_timeout_ms, &lock, &fault);
	for (size_t i = 0; !status && i < r->found_count; i++)
		status = tpd_store_add_metrics(lock, &r->found[i].id, &r->found[i].metrics, &fault);
	tpd_store_run_unlock(lock);
	if (!status) {
		tally->found += r->found_count;
	} else if (tpd_archive_is_local(&fault)) {
		note(tally, r->found_count, &fault);
		status = TPD_OK;
	} else if (err) {
		*err = fault;
	}
	return status;
}

enum tpd_status tpd_archive_recall(struct tpd_archive *archive, const char *run, const struct tpd_progress *progress,
				   struct tpd_recalled *tally, struct tpd_err *err)
{
	struct recall r = {.store = archive->store};
	struct tpd_run_metrics known = {0};
	struct tpd_run versions = {0};
	struct tpd_err fault = {0};
	enum tpd_status status = tpd_store_run_read(archive->store, run, &versions, &fault);

	if (!status)
		status = tpd_store_metrics(archive->store, run, &known, &fault);
	for (size_t v = 0; !status && v < versions.count; v++) {
		const struct tpd_version *version = &versions.versions[v];

		if (!version->forgotten && tpd_run_metrics_of(&known, &version->id)->count == 0)
			status = recall_version(&r, run, version, tally, &fault);
		if (!status && progress)
			status = tpd_readers_progress(progress, 0, versions.count, &fault);
	}
	if (!status)
		status = record(&r, archive, run, tally, &fault);
	else if (tpd_archive_is_local(&fault)) /* its refs: whoever records the run tells of them */
		status = TPD_OK;
	if (status && err)
		*err = fault;
	while (r.found_count > 0)
		tpd_metrics_release(&r.found[--r.found_count].metrics);
	free(r.found);
	free(r.chunk);
	tpd_chain_worker_free(r.worker);
	tpd_run_metrics_release(&known);
	tpd_run_release(&versions);
	return status;
}
