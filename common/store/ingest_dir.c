/*
 * ingest_dir.c - ingest/RUN@STEP, where a checkpoint is put together, and its way from there to objects/.
 *
 *     begin                     written first: an interrupted ingest is taken up again with the same references
 *     fNNNNN.pNNNNN             finished parts
 *     manifest                  when everything else is there; from here on it can be published without its source
 *     (begin and all that the manifest does not name is removed)
 *     ──rename──► objects/XX/ID.G                 the checkpoint exists
 *     version record                              it has a name
 *
 * The manifest becomes durable before `begin` goes, so a crash finds one or the other, and the parts are never lost:
 * whoever takes the run's lock next publishes every directory whose manifest is valid and names just the parts that
 * lie beside it. A manifest that fails this (parts that were written anew beside an old one) is left alone, and removed
 * when the ingest is taken up again.
 *
 * Generation: 0, unless a directory of this id exists already. If that is valid, ours is not needed; if it is damaged,
 * ours becomes the next generation and readers find it first.
 */
#include "base/tpd.h"

#include "store/store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/digest.h"
#include "base/text.h"
#include "store/internal.h"
#include "store/part.h"

#define BEGIN_MAGIC "TPDBEGN1"
#define BEGIN_CHECK 8
#define BEGIN_MAX 4096
void tpd_store_ingest_path(const struct tpd_run_lock *lock, uint64_t step, char out[TPD_INGEST_PATH])
{
	snprintf(out, TPD_INGEST_PATH, "ingest/%s@%llu", lock->escaped, (unsigned long long)step);
}

/* One of the files in it, published; called by its path below the store, which is what a failure names. */
static enum tpd_status publish_file(const struct tpd_run_lock *lock, uint64_t step, const char *name, const struct tpd_buf *bytes,
				    struct tpd_err *err)
{
	char dir[TPD_INGEST_PATH], path[TPD_INGEST_PATH + 16];

	tpd_store_ingest_path(lock, step, dir);
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return tpd_io_publish(lock->store->io, lock->store->dir, path, bytes->data, bytes->len, true, err);
}

/* --- begin --- */

static void put_reference(struct tpd_buf *out, bool has, const struct tpd_id *id)
{
	tpd_buf_u8(out, has);
	if (has)
		tpd_buf_put(out, id->bytes, sizeof(id->bytes));
}

static enum tpd_status write_begin(const struct tpd_run_lock *lock, uint64_t step,
				   const struct tpd_begin *begin, struct tpd_err *err)
{
	struct tpd_buf out = {0};
	uint8_t check[BEGIN_CHECK];
	enum tpd_status status;

	tpd_buf_put(&out, BEGIN_MAGIC, 8);
	tpd_buf_str(&out, lock->run.name);
	tpd_buf_varint(&out, step);
	put_reference(&out, begin->has_ref, &begin->ref);
	put_reference(&out, begin->has_w1, &begin->w1);
	tpd_buf_varint(&out, begin->part_size);
	tpd_buf_varint(&out, TPD_CODEC_VERSION);
	status = tpd_buf_status(&out, err);
	if (!status) {
		tpd_xxh128_first(out.data, out.len, check, sizeof(check));
		tpd_buf_put(&out, check, sizeof(check));
		status = tpd_buf_status(&out, err);
	}
	if (!status)
		status = publish_file(lock, step, "begin", &out, err);
	tpd_buf_release(&out);
	return status;
}

static bool take_reference(struct tpd_rd *rd, bool *out_has, struct tpd_id *out_id)
{
	uint8_t has = tpd_rd_u8(rd);
	const uint8_t *id;

	*out_has = has == 1;
	if (has != 1)
		return has == 0 && tpd_rd_ok(rd);
	id = tpd_rd_bytes(rd, sizeof(out_id->bytes));
	if (id)
		memcpy(out_id->bytes, id, sizeof(out_id->bytes));
	return id != NULL;
}

/* False for whatever one cannot go on from: damage, another codec's version, another checkpoint's. */
static bool parse_begin(const uint8_t *data, size_t len, const char *run, uint64_t step, struct tpd_begin *out)
{
	struct tpd_begin begin = {0};
	uint8_t check[BEGIN_CHECK];
	struct tpd_rd rd;
	bool same;
	char *name;

	if (len < 8 + BEGIN_CHECK || memcmp(data, BEGIN_MAGIC, 8) != 0)
		return false;
	tpd_xxh128_first(data, len - BEGIN_CHECK, check, sizeof(check));
	if (memcmp(check, data + len - BEGIN_CHECK, sizeof(check)) != 0)
		return false;
	rd = tpd_rd_make(data + 8, len - 8 - BEGIN_CHECK);
	name = tpd_rd_str(&rd, BEGIN_MAX);
	same = name && strcmp(name, run) == 0;
	free(name);
	if (!same || tpd_rd_varint(&rd) != step || !take_reference(&rd, &begin.has_ref, &begin.ref) ||
	    !take_reference(&rd, &begin.has_w1, &begin.w1))
		return false;
	begin.part_size = tpd_rd_varint(&rd);
	if (tpd_rd_varint(&rd) != TPD_CODEC_VERSION || !tpd_rd_done(&rd) || begin.part_size == 0 ||
	    begin.part_size > TPD_PART_MAX)
		return false;
	*out = begin;
	return true;
}

static enum tpd_status read_begin(const struct tpd_run_lock *lock, uint64_t step, bool *out_found,
				  struct tpd_begin *out_begin, struct tpd_err *err)
{
	char dir[TPD_INGEST_PATH], path[TPD_INGEST_PATH + 8];
	TPD_AUTO_FREE uint8_t *data = NULL;
	enum tpd_status status;
	size_t len = 0;

	tpd_store_ingest_path(lock, step, dir);
	snprintf(path, sizeof(path), "%s/begin", dir);
	status = tpd_io_read_file(lock->store->io, lock->store->dir, path, BEGIN_MAX, &data, &len, err);
	if (status && status != TPD_NOT_FOUND && status != TPD_LIMIT)
		return tpd_store_fault(lock->store, status, err);
	*out_found = !status && parse_begin(data, len, lock->run.name, step, out_begin);
	return TPD_OK;
}

/* --- from here to objects/ --- */

static int compare_part_names(const void *a, const void *b)
{
	return strcmp(a, b);
}

/* Names of the parts that a manifest has, sorted, TPD_PART_NAME bytes each. */
static enum tpd_status part_names(const struct tpd_manifest *m, char **out_names, size_t *out_count,
				  struct tpd_err *err)
{
	size_t count = 0;
	char *names;

	for (uint32_t f = 0; f < m->file_count; f++)
		count += m->entries[m->files[f]].part_count;
	names = calloc(count + 1, TPD_PART_NAME);
	if (!names)
		return tpd_fail_nomem(err);
	count = 0;
	for (uint32_t f = 0; f < m->file_count; f++)
		for (uint32_t p = 0; p < m->entries[m->files[f]].part_count; p++)
			tpd_part_name(f, p, names + TPD_PART_NAME * count++);
	qsort(names, count, TPD_PART_NAME, compare_part_names);
	*out_names = names;
	*out_count = count;
	return TPD_OK;
}

/* Is every part there, and the one that is meant? */
static enum tpd_status check_parts(const struct tpd_io *io, int dir, const struct tpd_manifest *m, struct tpd_err *err)
{
	for (uint32_t f = 0; f < m->file_count; f++) {
		const struct tpd_entry *entry = &m->entries[m->files[f]];

		for (uint32_t p = 0; p < entry->part_count; p++) {
			struct tpd_part *part = NULL;
			uint8_t digest[TPD_XXH_LEN];
			enum tpd_status status = tpd_part_open(io, dir, f, p, &part, err);

			if (status == TPD_NOT_FOUND)
				return tpd_fail(err, TPD_CORRUPT, "part %u of '%s' is missing", p, entry->path);
			if (status)
				return status;
			tpd_part_trailer_digest(part, digest);
			if (tpd_part_bytes(part) != entry->parts[p].bytes ||
			    memcmp(digest, entry->parts[p].trailer_digest, sizeof(digest)) != 0)
				status = tpd_fail(err, TPD_CORRUPT, "part %u of '%s' is not the one that is named", p,
						  entry->path);
			tpd_part_close(part);
			if (status)
				return status;
		}
	}
	return TPD_OK;
}

/* Take away what the manifest does not name: begin, temporary files, parts of an earlier try. */
static enum tpd_status remove_others(const struct tpd_store *store, int dir, const struct tpd_manifest *m,
				     struct tpd_err *err)
{
	TPD_AUTO_FREE char *parts = NULL;
	struct tpd_buf names = {0};
	size_t count = 0;
	enum tpd_status status = part_names(m, &parts, &count, err);
	int rc;

	if (!status)
		status = tpd_store_list(store, dir, ".", &names, err);
	for (size_t at = 0; !status && at < names.len; at += strlen((char *)names.data + at) + 1) {
		const char *name = (char *)names.data + at;

		if (strcmp(name, "manifest") != 0 && !bsearch(name, parts, count, TPD_PART_NAME, compare_part_names))
			status = tpd_io_remove_tree(store->io, dir, name, err);
	}
	tpd_buf_release(&names);
	if (!status && (rc = store->io->fsync(store->io, dir)) < 0)
		status = tpd_fail_sys(err, -rc, "cannot fsync an unfinished checkpoint's directory");
	return status;
}

/* The one rename that makes a checkpoint exist. The directory is whole and durable. */
static enum tpd_status move_to_objects(const struct tpd_run_lock *lock, const char *from, const struct tpd_id *id,
				       struct tpd_err *err)
{
	const struct tpd_store *store = lock->store;
	char shelf[TPD_STORE_PATH], to[TPD_STORE_PATH];
	uint32_t generation = 0;
	enum tpd_status status;
	int rc;

	tpd_object_shelf(id, shelf);
	status = tpd_io_mkdirs(store->io, store->dir, shelf, err);
	if (!status)
		status = tpd_object_next_generation(lock->store, id, &generation, err);
	if (status)
		return status;
	tpd_object_path(id, generation, to);
	rc = store->io->rename(store->io, store->dir, from, store->dir, to, false);
	if (rc < 0)
		return tpd_fail_sys(err, -rc, "cannot rename '%s' to '%s'", from, to);
	status = tpd_object_sync(lock->store, id, err);
	return status ? status : tpd_io_sync_dir(store->io, store->dir, "ingest", err);
}

static enum tpd_status remove_dir(const struct tpd_run_lock *lock, const char *path, struct tpd_err *err)
{
	const struct tpd_store *store = lock->store;
	enum tpd_status status = tpd_io_remove_tree(store->io, store->dir, path, err);

	if (!status)
		status = tpd_io_sync_dir(store->io, store->dir, "ingest", err);
	return status;
}

/* Publish the directory `path`, whose manifest is written and whose parts were checked. */
static enum tpd_status publish_dir(const struct tpd_run_lock *lock, const char *path, int dir,
				   const struct tpd_manifest *m, struct tpd_err *err)
{
	enum tpd_status status = remove_others(lock->store, dir, m, err);

	return status ? status : move_to_objects(lock, path, &m->id, err);
}

static enum tpd_status write_manifest(const struct tpd_run_lock *lock, const struct tpd_manifest *m, struct tpd_err *err)
{
	struct tpd_buf bytes = {0};
	enum tpd_status status = tpd_manifest_write(m, &bytes, err);

	if (!status)
		status = publish_file(lock, m->step, "manifest", &bytes, err);
	tpd_buf_release(&bytes);
	return status;
}

/* The version record of a checkpoint that exists, unless there is one. */
static enum tpd_status name_it(struct tpd_run_lock *lock, const struct tpd_manifest *m, uint32_t *out_version,
			       struct tpd_err *err)
{
	for (size_t i = 0; i < lock->run.count; i++) {
		const struct tpd_version *version = &lock->run.versions[i];

		if (!version->forgotten && version->step == m->step && tpd_id_equal(&version->id, &m->id)) {
			*out_version = version->version;
			return TPD_OK;
		}
	}
	return tpd_store_add_version(lock, m->step, &m->id, m->created_ns, out_version, err);
}

enum tpd_status tpd_store_publish(struct tpd_run_lock *lock, const struct tpd_manifest *m, uint32_t *out_version,
				  struct tpd_err *err)
{
	struct tpd_store *store = lock->store;
	char path[TPD_INGEST_PATH];
	enum tpd_status status;
	int dir;

	if (strcmp(m->run, lock->run.name) != 0)
		return tpd_fail(err, TPD_USAGE, "the lock of run '%s' cannot publish for run '%s'", lock->run.name,
				m->run);
	tpd_store_ingest_path(lock, m->step, path);
	if (tpd_store_sound(store, &m->id)) {
		status = tpd_object_sync(store, &m->id, err);
		if (!status)
			status = remove_dir(lock, path, err);
		return status ? tpd_store_fault(store, status, err) : name_it(lock, m, out_version, err);
	}
	dir = store->io->opendir(store->io, store->dir, path);
	if (dir < 0)
		return tpd_fail_sys(err, -dir, "cannot open '%s/%s'", store->path, path);
	status = check_parts(store->io, dir, m, err);
	if (!status)
		status = write_manifest(lock, m, err);
	if (!status)
		status = publish_dir(lock, path, dir, m, err);
	store->io->close(store->io, dir);
	if (status)
		return tpd_store_fault(store, status, err);
	return name_it(lock, m, out_version, err);
}

/* --- after a crash --- */

/* Is this worth stopping for? What is merely not whole is left to the ingest that will be taken up again. */
static bool is_grave(enum tpd_status status)
{
	return status == TPD_IO || status == TPD_NOMEM;
}

static enum tpd_status finish_one(struct tpd_run_lock *lock, uint64_t step, struct tpd_err *err)
{
	const struct tpd_store *store = lock->store;
	char path[TPD_INGEST_PATH];
	TPD_AUTO_FREE uint8_t *data = NULL;
	struct tpd_manifest m = {0};
	struct tpd_err why = {0};
	enum tpd_status status;
	size_t len = 0;
	int dir;

	tpd_store_ingest_path(lock, step, path);
	dir = store->io->opendir(store->io, store->dir, path);
	if (dir == -ENOENT || dir == -ENOTDIR)
		return TPD_OK;
	if (dir < 0)
		return tpd_fail_sys(err, -dir, "cannot open '%s/%s'", store->path, path);
	status = tpd_io_read_file(store->io, dir, "manifest", TPD_MANIFEST_MAX_FILE, &data, &len, &why);
	if (!status)
		status = tpd_manifest_parse(data, len, TPD_MANIFEST_SEGMENTS, &m, &why);
	if (!status && (strcmp(m.run, lock->run.name) != 0 || m.step != step))
		status = tpd_fail(&why, TPD_CORRUPT, "it is the manifest of another checkpoint");
	if (!status)
		status = check_parts(store->io, dir, &m, &why);
	if (!status) {
		if (tpd_store_sound(lock->store, &m.id)) /* as when it is published: a damaged one is what it may mend */
			status = remove_dir(lock, path, &why);
		else
			status = publish_dir(lock, path, dir, &m, &why);
		if (status && !is_grave(status))
			status = tpd_fail(&why, TPD_IO, "cannot finish '%s'", path);
	}
	store->io->close(store->io, dir);
	tpd_manifest_release(&m);
	if (!is_grave(status))
		return TPD_OK;
	if (err)
		*err = why;
	return tpd_store_fault(store, status, err);
}

enum tpd_status tpd_ingest_dir_finish(struct tpd_run_lock *lock, struct tpd_err *err)
{
	struct tpd_buf names = {0};
	size_t prefix = strlen(lock->escaped);
	enum tpd_status status = tpd_store_list(lock->store, lock->store->dir, "ingest", &names, err);

	for (size_t at = 0; !status && at < names.len; at += strlen((char *)names.data + at) + 1) {
		const char *name = (char *)names.data + at;
		uint64_t step;

		if (strncmp(name, lock->escaped, prefix) == 0 && name[prefix] == '@' &&
		    tpd_text_parse_u64(name + prefix + 1, &step))
			status = finish_one(lock, step, err);
	}
	tpd_buf_release(&names);
	return status;
}

/* --- unfinished ones --- */

/* A directory of our own without anything in it; its descriptor. */
static enum tpd_status make_afresh(const struct tpd_run_lock *lock, const char *path, int *out_dir, struct tpd_err *err)
{
	const struct tpd_store *store = lock->store;
	enum tpd_status status = tpd_io_remove_tree(store->io, store->dir, path, err);
	int dir;

	if (!status)
		status = tpd_io_mkdirs(store->io, store->dir, path, err);
	if (status)
		return status;
	dir = store->io->opendir(store->io, store->dir, path);
	if (dir < 0)
		return tpd_fail_sys(err, -dir, "cannot open directory '%s'", path);
	*out_dir = dir;
	return TPD_OK;
}

/* Go on in the directory that is there; a manifest in it is of an earlier try. */
static enum tpd_status take_up(const struct tpd_run_lock *lock, const char *path, int *out_dir, struct tpd_err *err)
{
	const struct tpd_store *store = lock->store;
	int rc, dir = store->io->opendir(store->io, store->dir, path);

	if (dir < 0)
		return tpd_fail_sys(err, -dir, "cannot open directory '%s'", path);
	rc = store->io->unlink(store->io, dir, "manifest");
	if (rc >= 0)
		rc = store->io->fsync(store->io, dir);
	if (rc < 0 && rc != -ENOENT) {
		store->io->close(store->io, dir);
		return tpd_fail_sys(err, -rc, "cannot remove an old manifest from '%s'", path);
	}
	*out_dir = dir;
	return TPD_OK;
}

enum tpd_status tpd_store_ingest_open(struct tpd_run_lock *lock, uint64_t step, const struct tpd_begin *wanted,
				      struct tpd_begin *out_begin, bool *out_resumed, int *out_dir, struct tpd_err *err)
{
	struct tpd_begin begin = *wanted;
	bool found = false;
	char path[TPD_INGEST_PATH];
	int dir = -1;
	enum tpd_status status = read_begin(lock, step, &found, &begin, err);

	tpd_store_ingest_path(lock, step, path);
	if (!status && !found) /* publishing it may have failed after begin was removed */
		status = finish_one(lock, step, err);
	if (status)
		return status;
	status = found ? take_up(lock, path, &dir, err) : make_afresh(lock, path, &dir, err);
	if (!status && !found) {
		begin = *wanted;
		status = write_begin(lock, step, wanted, err);
		if (status)
			lock->store->io->close(lock->store->io, dir);
	}
	if (status)
		return tpd_store_fault(lock->store, status, err);
	*out_begin = begin;
	*out_resumed = found;
	*out_dir = dir;
	return TPD_OK;
}

enum tpd_status tpd_store_ingest_peek(struct tpd_run_lock *lock, uint64_t step, bool *out_found,
				      struct tpd_begin *out_begin, struct tpd_err *err)
{
	struct tpd_begin begin = {0};
	bool found = false;
	enum tpd_status status = read_begin(lock, step, &found, &begin, err);

	if (status)
		return status;
	*out_found = found;
	if (found)
		*out_begin = begin;
	return TPD_OK;
}

enum tpd_status tpd_store_ingest_discard(struct tpd_run_lock *lock, uint64_t step, struct tpd_err *err)
{
	char path[TPD_INGEST_PATH];

	tpd_store_ingest_path(lock, step, path);
	return tpd_store_fault(lock->store, remove_dir(lock, path, err), err);
}

/* --- looking at them --- */

static uint64_t bytes_in(const struct tpd_store *store, const char *name)
{
	struct tpd_buf names = {0};
	char path[TPD_INGEST_PATH];
	uint64_t bytes = 0;
	int dir;

	snprintf(path, sizeof(path), "ingest/%s", name);
	dir = store->io->opendir(store->io, store->dir, path);
	if (dir < 0)
		return 0; /* finished meanwhile */
	if (tpd_store_list(store, dir, ".", &names, NULL) == TPD_OK)
		for (size_t at = 0; at < names.len; at += strlen((char *)names.data + at) + 1) {
			struct stat st;

			if (store->io->stat(store->io, dir, (char *)names.data + at, &st) >= 0 && S_ISREG(st.st_mode))
				bytes += (uint64_t)st.st_size;
		}
	tpd_buf_release(&names);
	store->io->close(store->io, dir);
	return bytes;
}

static enum tpd_status add_unfinished(const struct tpd_store *store, const char *name, struct tpd_unfinished *out,
				      struct tpd_err *err)
{
	const char *at = strrchr(name, '@');
	TPD_AUTO_FREE char *escaped = at ? strndup(name, (size_t)(at - name)) : NULL;

	*out = (struct tpd_unfinished){0};
	if (!at || strlen(name) >= TPD_STORE_NAME_MAX + 24 || !tpd_text_parse_u64(at + 1, &out->step))
		return TPD_OK; /* nothing of ours */
	if (!escaped)
		return tpd_fail_nomem(err);
	out->run = tpd_refs_unescape(escaped);
	out->bytes = bytes_in(store, name);
	return TPD_OK;
}

static int compare_unfinished(const void *a, const void *b)
{
	const struct tpd_unfinished *x = a, *y = b;
	int order = strcmp(x->run, y->run);

	return order ? order : (x->step > y->step) - (x->step < y->step);
}

enum tpd_status tpd_store_unfinished(struct tpd_store *store, struct tpd_unfinished **out, size_t *out_count,
				     struct tpd_err *err)
{
	struct tpd_unfinished *items = NULL;
	struct tpd_buf names = {0};
	size_t count = 0, cap = 0;
	enum tpd_status status = tpd_store_list(store, store->dir, "ingest", &names, err);

	for (size_t at = 0; !status && at < names.len; at += strlen((char *)names.data + at) + 1) {
		if (count == cap) {
			struct tpd_unfinished *grown = reallocarray(items, cap ? 2 * cap : 8, sizeof(*grown));

			if (!grown) {
				status = tpd_fail_nomem(err);
				break;
			}
			items = grown;
			cap = cap ? 2 * cap : 8;
		}
		status = add_unfinished(store, (char *)names.data + at, &items[count], err);
		count += !status && items[count].run != NULL;
	}
	tpd_buf_release(&names);
	if (status) {
		for (size_t i = 0; i < count; i++)
			free(items[i].run);
		free(items);
		return status;
	}
	if (count > 1)
		qsort(items, count, sizeof(*items), compare_unfinished);
	*out = items;
	*out_count = count;
	return TPD_OK;
}
