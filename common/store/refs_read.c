/*
 * refs_read.c - read the records of a run (FORMAT.md section 4), which runs there are, and how their files are called.
 *
 * The file only ever grows, record by record, so a crash leaves a torn record only at its end. Whether a bad record is
 * that or damage is told by what follows: if a valid record begins at any later byte, or if there is more than one record can
 * have, it is damage; so it is where the first record, which is known, has other bytes than it should. Rejected: trusting the bad record's own length to find the next one (it may be just what is bad), and
 * looking through all that follows (a file of megabytes took minutes: each byte may begin a record of 64 KiB).
 */
#include "base/tpd.h"

#include "store/store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "store/internal.h"

#define REFS_MAX (1ull << 30) /* of one run's file: ten million records */
#define CHECK_LEN 8           /* of a record */

void tpd_run_release(struct tpd_run *run)
{
	free(run->name);
	free(run->versions);
	*run = (struct tpd_run){0};
}

void tpd_refs_release(struct tpd_refs *refs)
{
	tpd_run_release(&refs->run);
	free(refs->ids);
	*refs = (struct tpd_refs){0};
}

enum tpd_status tpd_refs_escape(const char *run, char **out_escaped, struct tpd_err *err)
{
	char *escaped = tpd_text_escape(run);

	if (!escaped)
		return tpd_fail_nomem(err);
	if (strlen(escaped) > TPD_STORE_NAME_MAX) {
		free(escaped);
		return tpd_fail(err, TPD_LIMIT, "the run name '%s' is too long to be a file's name", run);
	}
	*out_escaped = escaped;
	return TPD_OK;
}

static int hex_digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

char *tpd_refs_unescape(const char *escaped)
{
	char *name = malloc(strlen(escaped) + 1), *to = name;
	TPD_AUTO_FREE char *again = NULL;

	for (const char *p = escaped; name && *p; p++) {
		int high, low;

		if (*p != '%') {
			*to++ = *p;
			continue;
		}
		high = hex_digit(p[1]);
		low = high < 0 ? -1 : hex_digit(p[2]);
		if (low < 0) {
			free(name);
			return NULL;
		}
		*to++ = (char)(high << 4 | low);
		p += 2;
	}
	if (!name)
		return NULL;
	*to = 0;
	if (tpd_text_is_run_name(name))
		again = tpd_text_escape(name);
	if (!again || strcmp(again, escaped) != 0) { /* a temporary file, or another spelling */
		free(name);
		return NULL;
	}
	return name;
}

/* --- records --- */

struct record {
	uint8_t type;
	const uint8_t *body;
	size_t len;  /* of the body */
	size_t size; /* of the whole record */
};

/* Does a whole and valid record begin here? */
static bool take_record(const uint8_t *data, size_t left, struct record *out)
{
	uint8_t check[CHECK_LEN];
	uint32_t n;

	if (left < 4)
		return false;
	n = tpd_get_u32(data);
	if (n < 1 || n > TPD_REFS_MAX_RECORD || left - 4 < (size_t)n + CHECK_LEN)
		return false;
	tpd_xxh128_first(data, 4 + (size_t)n, check, sizeof(check));
	if (memcmp(check, data + 4 + n, sizeof(check)) != 0)
		return false;
	*out = (struct record){.type = data[4], .body = data + 5, .len = n - 1, .size = 4 + (size_t)n + CHECK_LEN};
	return true;
}

/* What follows the first byte of a bad record: can it not be the rest of one that was torn while it was appended? */
static bool is_damage(const uint8_t *data, size_t len)
{
	struct record record;

	if (len >= 4 + TPD_REFS_MAX_RECORD + CHECK_LEN) /* more than one record */
		return true;
	for (size_t at = 0; at < len; at++)
		if (take_record(data + at, len - at, &record))
			return true;
	return false;
}

/*
 * A file without a valid record: a crash left the first bytes of the run's record, or zeros where bytes of it did not arrive. Anything
 * else was not ours, or is no more, and has checkpoints behind it perhaps.
 */
static enum tpd_status check_torn_run(const uint8_t *data, size_t len, const char *run, struct tpd_err *err)
{
	struct tpd_buf whole = {0};
	bool torn;
	enum tpd_status status;

	tpd_refs_put_run(&whole, run);
	status = tpd_buf_status(&whole, err);
	torn = len <= whole.len;
	for (size_t i = 0; !status && torn && i < len; i++)
		torn = data[i] == whole.data[i] || data[i] == 0;
	tpd_buf_release(&whole);
	return status || torn ? status : tpd_fail(err, TPD_CORRUPT, "the record at byte 0 is damaged");
}

/* Room for one more of an array that doubles. */
static void *room(void *array, size_t count, size_t size)
{
	if (count & (count - 1) || count == 1)
		return array;
	return reallocarray(array, count ? 2 * count : 2, size);
}

static enum tpd_status add_id(struct tpd_refs *refs, const uint8_t *bytes, struct tpd_err *err)
{
	struct tpd_id *ids = room(refs->ids, refs->id_count, sizeof(*ids));

	if (!ids)
		return tpd_fail_nomem(err);
	refs->ids = ids;
	memcpy(ids[refs->id_count++].bytes, bytes, sizeof(ids->bytes));
	return TPD_OK;
}

static enum tpd_status take_version(struct tpd_refs *refs, struct tpd_rd *rd, struct tpd_err *err)
{
	struct tpd_version version = {0}, *versions;
	uint64_t number;
	const uint8_t *id;

	version.step = tpd_rd_varint(rd);
	number = tpd_rd_varint(rd);
	id = tpd_rd_bytes(rd, sizeof(version.id.bytes));
	version.time_ns = (int64_t)tpd_rd_u64(rd);
	if (!id || !tpd_rd_done(rd) || number < 1 || number > UINT32_MAX)
		return tpd_fail(err, TPD_CORRUPT, "a version record is malformed");
	version.version = (uint32_t)number;
	memcpy(version.id.bytes, id, sizeof(version.id.bytes));
	versions = room(refs->run.versions, refs->run.count, sizeof(*versions));
	if (!versions)
		return tpd_fail_nomem(err);
	refs->run.versions = versions;
	versions[refs->run.count++] = version;
	return add_id(refs, id, err);
}

/* It speaks of what was recorded before it: the same content stored again later is a new version. */
static enum tpd_status take_forget(struct tpd_refs *refs, struct tpd_rd *rd, struct tpd_err *err)
{
	const uint8_t *id = tpd_rd_bytes(rd, sizeof(struct tpd_id));

	if (!id || !tpd_rd_done(rd))
		return tpd_fail(err, TPD_CORRUPT, "a forget record is malformed");
	for (size_t i = 0; i < refs->run.count; i++)
		if (memcmp(refs->run.versions[i].id.bytes, id, sizeof(struct tpd_id)) == 0)
			refs->run.versions[i].forgotten = true;
	return add_id(refs, id, err);
}

static enum tpd_status take_run(struct tpd_rd *rd, const char *run, struct tpd_err *err)
{
	TPD_AUTO_FREE char *name = tpd_rd_str(rd, TPD_REFS_MAX_RECORD);

	if (!name || !tpd_rd_done(rd))
		return tpd_fail(err, TPD_CORRUPT, "the run record is malformed");
	if (strcmp(name, run) != 0)
		return tpd_fail(err, TPD_CORRUPT, "it is the file of another run, '%s'", name);
	return TPD_OK;
}

static enum tpd_status take(struct tpd_refs *refs, const struct record *record, bool first, const char *run,
			    struct tpd_err *err)
{
	struct tpd_rd rd = tpd_rd_make(record->body, record->len);

	if (first != (record->type == TPD_REFS_RUN))
		return tpd_fail(err, TPD_CORRUPT, first ? "its first record is not the run's" : "a second run record");
	switch (record->type) {
	case TPD_REFS_RUN:
		return take_run(&rd, run, err);
	case TPD_REFS_VERSION:
		return take_version(refs, &rd, err);
	case TPD_REFS_FORGET:
		return take_forget(refs, &rd, err);
	case TPD_REFS_METRIC: /* it mentions an id, but names nothing: refs->ids has it not */
		return tpd_refs_take_metrics(&rd, NULL, err);
	default:
		if (record->type >= TPD_REFS_MUST_KNOW)
			return tpd_fail(err, TPD_UNSUPPORTED, "records of type %u are unknown to this version",
					record->type);
		return TPD_OK;
	}
}

static enum tpd_status parse(const uint8_t *data, size_t len, const char *run, struct tpd_refs *refs,
			     struct tpd_err *err)
{
	struct record record;
	size_t at = 0;

	for (; at < len && take_record(data + at, len - at, &record); at += record.size) {
		enum tpd_status status = take(refs, &record, at == 0, run, err);

		if (status)
			return status;
	}
	if (at < len && is_damage(data + at + 1, len - at - 1))
		return tpd_fail(err, TPD_CORRUPT, "the record at byte %zu is damaged", at);
	refs->run.valid_bytes = at;
	return at == 0 ? check_torn_run(data, len, run, err) : TPD_OK;
}

enum tpd_status tpd_refs_parse_metrics(const uint8_t *data, size_t len, struct tpd_refs_metrics *out, struct tpd_err *err)
{
	enum tpd_status status = TPD_OK;
	struct record record;

	for (size_t at = 0; !status && at < len && take_record(data + at, len - at, &record); at += record.size) {
		struct tpd_rd rd = tpd_rd_make(record.body, record.len);

		if (record.type == TPD_REFS_METRIC)
			status = tpd_refs_take_metrics(&rd, out, err);
	}
	return status;
}

enum tpd_status tpd_refs_salvage(const uint8_t *data, size_t len, const char *run, struct tpd_buf *out_records,
				 struct tpd_err *err)
{
	struct tpd_refs refs = {0};
	struct record record;
	bool ours = true; /* the versions, as far as run records tell */
	enum tpd_status status = TPD_OK;

	for (size_t at = 0; !status && at < len;) {
		if (!take_record(data + at, len - at, &record)) {
			at++;
			continue;
		}
		status = record.type == TPD_REFS_RUN ? TPD_OK : take(&refs, &record, false, run, err);
		if (record.type == TPD_REFS_RUN) {
			struct tpd_rd rd = tpd_rd_make(record.body, record.len);

			ours = take_run(&rd, run, NULL) == TPD_OK;
		} else if (status == TPD_CORRUPT) {
			status = TPD_OK; /* not a record of this format, though it has its digest: it says nothing */
		} else if (!status && (ours || record.type == TPD_REFS_FORGET || record.type == TPD_REFS_METRIC)) {
			tpd_buf_put(out_records, data + at, record.size);
		}
		at += record.size;
	}
	tpd_refs_release(&refs);
	return status ? status : tpd_buf_status(out_records, err);
}

enum tpd_status tpd_refs_read_file(struct tpd_store *store, const char *path, uint8_t **out_data, size_t *out_len,
				   struct tpd_err *err)
{
	return tpd_io_read_file(store->io, store->dir, path, REFS_MAX, out_data, out_len, err);
}

enum tpd_status tpd_refs_load(struct tpd_store *store, const char *escaped, const char *run, struct tpd_refs *out,
			      struct tpd_err *err)
{
	char path[TPD_STORE_NAME_MAX + 8];
	TPD_AUTO_FREE uint8_t *data = NULL;
	struct tpd_refs refs = {0};
	struct tpd_err why = {0};
	enum tpd_status status;
	size_t len = 0;

	snprintf(path, sizeof(path), "refs/%s", escaped);
	status = tpd_refs_read_file(store, path, &data, &len, err);
	if (status == TPD_NOT_FOUND)
		return tpd_fail(err, TPD_NOT_FOUND, "there is no run '%s' in store '%s'", run, store->path);
	if (status)
		return tpd_store_fault(store, status, err);
	refs.run.name = strdup(run);
	status = refs.run.name ? parse(data, len, run, &refs, &why) : tpd_fail_nomem(&why);
	if (status) {
		tpd_refs_release(&refs);
		return tpd_fail(err, status, "'%s/%s': %s%s", store->path, path, why.text,
				status == TPD_CORRUPT ? "; 'tpdectl rebuild-catalog' repairs it" : "");
	}
	*out = refs;
	return TPD_OK;
}

enum tpd_status tpd_refs_files(struct tpd_store *store, struct tpd_buf *out_names, struct tpd_err *err)
{
	struct tpd_buf names = {0};
	enum tpd_status status = tpd_store_list(store, store->dir, "refs", &names, err);

	for (size_t at = 0; !status && at < names.len; at += strlen((char *)names.data + at) + 1) {
		const char *name = (char *)names.data + at;
		char *run = tpd_refs_unescape(name);

		if (run)
			tpd_buf_put(out_names, name, strlen(name) + 1);
		free(run);
	}
	tpd_buf_release(&names);
	if (!status)
		status = tpd_buf_status(out_names, err);
	return tpd_store_fault(store, status, err);
}

enum tpd_status tpd_store_run_read(struct tpd_store *store, const char *run, struct tpd_run *out, struct tpd_err *err)
{
	TPD_AUTO_FREE char *escaped = NULL;
	struct tpd_refs refs = {0};
	enum tpd_status status = tpd_refs_escape(run, &escaped, err);

	if (status == TPD_LIMIT)
		return tpd_fail(err, TPD_NOT_FOUND, "there is no run '%s' in store '%s'", run, store->path);
	if (!status)
		status = tpd_refs_load(store, escaped, run, &refs, err);
	if (status)
		return status;
	*out = refs.run;
	free(refs.ids);
	return TPD_OK;
}

static int compare_names(const void *a, const void *b)
{
	const char *x, *y;

	memcpy(&x, a, sizeof(x));
	memcpy(&y, b, sizeof(y));
	return strcmp(x, y);
}

enum tpd_status tpd_store_runs(struct tpd_store *store, char ***out_names, size_t *out_count, struct tpd_err *err)
{
	struct tpd_buf files = {0};
	enum tpd_status status = tpd_refs_files(store, &files, err);
	char **names = status ? NULL : calloc(files.len / 2 + 1, sizeof(*names));
	size_t count = 0;

	if (!status && !names)
		status = tpd_fail_nomem(err);
	for (size_t at = 0; !status && at < files.len; at += strlen((char *)files.data + at) + 1) {
		names[count] = tpd_refs_unescape((char *)files.data + at);
		if (names[count])
			count++;
		else
			status = tpd_fail_nomem(err); /* it was a name a moment ago */
	}
	tpd_buf_release(&files);
	if (status) {
		while (count > 0)
			free(names[--count]);
		free(names);
		return status;
	}
	qsort(names, count, sizeof(*names), compare_names);
	*out_names = names;
	*out_count = count;
	return TPD_OK;
}
