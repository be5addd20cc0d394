/*
 * rows.c - checkpoints as rows, for list and status.
 *
 * What exists is what the store's refs say; what there is to say about it comes from the catalog when that has it and
 * from the manifest otherwise. So a catalog that is missing, damaged or behind changes the speed and nothing else,
 * and people who may only read the store need no catalog at all.
 */
#include "base/tpd.h"

#include "tools/tools.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int by_id(const void *a, const void *b)
{
	const struct tpd_archive_name *x = a, *y = b;

	return memcmp(x->id.bytes, y->id.bytes, sizeof(x->id.bytes));
}

static int by_row_id(const void *a, const void *b)
{
	struct tpd_row *const *x = a, *const *y = b;

	return memcmp((*x)->name.id.bytes, (*y)->name.id.bytes, sizeof((*x)->name.id.bytes));
}

struct lookup {
	struct tpd_row **by_id; /* sorted */
	size_t count;
};

static bool fill(struct tpd_row *row, const char *kind, const char *source, const char *ref)
{
	row->kind = strdup(kind);
	row->source = strdup(source ? source : "");
	row->ref = ref ? strdup(ref) : NULL;
	return row->kind && row->source && (row->ref || !ref);
}

static enum tpd_status from_catalog(void *arg, const struct tpd_catalog_row *in, struct tpd_err *err)
{
	const struct lookup *lookup = arg;
	struct tpd_row wanted, *key = &wanted, **found, *row;

	if (!tpd_unhex(in->id, wanted.name.id.bytes, sizeof(wanted.name.id.bytes)))
		return tpd_fail(err, TPD_CORRUPT, "the catalog has '%s' for an id", in->id);
	found = bsearch(&key, lookup->by_id, lookup->count, sizeof(struct tpd_row *), by_row_id);
	if (!found || (*found)->kind)
		return TPD_OK;
	row = *found;
	row->size = in->size;
	row->stored = in->stored;
	row->files = in->files;
	row->depth = in->depth;
	row->created_ns = in->created_ns;
	return fill(row, in->kind, in->source, in->ref_id) ? TPD_OK : tpd_fail_nomem(err);
}

/* A name that leads nowhere: the store gave the name, so it has lost the checkpoint. */
static enum tpd_status lost(const struct tpd_archive_name *name, struct tpd_err *err)
{
	char text[TPD_NAME_TEXT], hex[TPD_ID_HEX];

	tpd_id_hex(&name->id, hex);
	return tpd_fail(err, TPD_CORRUPT, "%s has a name, but its checkpoint %.16s is not in the store any more",
			tpd_name_text(name, text), hex);
}

enum tpd_status tpd_named_manifest(struct tpd_archive *archive, const struct tpd_archive_name *name,
				   enum tpd_manifest_keep keep, struct tpd_manifest *out, struct tpd_err *err)
{
	enum tpd_status status = tpd_store_manifest_keep(tpd_archive_store(archive), &name->id, keep, out, err);
	char text[TPD_NAME_TEXT];

	if (status == TPD_NOT_FOUND)
		return lost(name, err);
	return status == TPD_CORRUPT || status == TPD_UNSUPPORTED ? tpd_err_prefix(err, "%s", tpd_name_text(name, text)) : status;
}

/* What the catalog knows may be lost all the same. */
static enum tpd_status check_there(struct tpd_store *store, const struct tpd_archive_name *name, struct tpd_err *err)
{
	struct tpd_err fault = {0};
	int dir;

	switch (tpd_store_object_dir(store, &name->id, &dir, &fault)) {
	case TPD_OK:
		tpd_store_io(store)->close(tpd_store_io(store), dir);
		return TPD_OK;
	case TPD_NOT_FOUND:
		return lost(name, err);
	default: /* not to be told here; reading it will */
		return TPD_OK;
	}
}

static enum tpd_status from_manifest(struct tpd_archive *archive, struct tpd_row *row, struct tpd_err *err)
{
	struct tpd_store *store = tpd_archive_store(archive);
	struct tpd_manifest m = {0};
	enum tpd_status status = tpd_named_manifest(archive, &row->name, TPD_MANIFEST_SEGMENTS, &m, err);
	char ref[TPD_ID_HEX];

	if (status == TPD_OK)
		status = tpd_store_object_bytes(store, &row->name.id, &row->stored, err);
	if (status == TPD_OK) {
		row->size = tpd_manifest_size(&m);
		row->files = m.file_count;
		row->depth = m.depth;
		row->created_ns = m.created_ns;
		tpd_id_hex(&m.ref, ref);
		if (!fill(row, m.kind == TPD_CHECKPOINT_DIR ? "dir" : "file", m.source, m.has_ref ? ref : NULL))
			status = tpd_fail_nomem(err);
	}
	tpd_manifest_release(&m);
	return status;
}

static enum tpd_status read_catalog(struct tpd_archive *archive, const char *run, struct tpd_rows *rows,
				    struct tpd_err *err)
{
	struct tpd_catalog *catalog = tpd_archive_catalog(archive);
	struct lookup lookup = {.count = rows->count};
	struct tpd_err fault = {0};
	enum tpd_status status;

	rows->catalog_fault = *tpd_archive_catalog_fault(archive);
	if (!catalog || rows->count == 0)
		return TPD_OK;
	lookup.by_id = calloc(rows->count, sizeof(struct tpd_row *));
	if (!lookup.by_id)
		return tpd_fail_nomem(err);
	for (size_t i = 0; i < rows->count; i++)
		lookup.by_id[i] = &rows->rows[i];
	qsort(lookup.by_id, lookup.count, sizeof(struct tpd_row *), by_row_id);
	status = tpd_catalog_list(catalog, run, from_catalog, &lookup, &fault);
	free(lookup.by_id);
	if (status == TPD_CORRUPT) { /* the manifests know it all */
		rows->catalog_fault = fault;
		return TPD_OK;
	}
	if (status && err)
		*err = fault;
	return status;
}

enum tpd_status tpd_rows_names(struct tpd_archive *archive, struct tpd_rows *out, struct tpd_err *err)
{
	struct tpd_rows rows = {0};
	enum tpd_status status = tpd_archive_select(archive, NULL, &rows.all, &rows.all_count, err);

	if (status)
		return status;
	if (rows.all_count > 0)
		qsort(rows.all, rows.all_count, sizeof(*rows.all), by_id);
	*out = rows;
	return TPD_OK;
}

/* Sorted by run: the name of the run that they are all of, or NULL. */
static const char *only_run(const struct tpd_rows *rows)
{
	const struct tpd_row *first = rows->rows, *last = rows->rows + rows->count;

	return rows->count > 0 && !strcmp(first->name.run, last[-1].name.run) ? first->name.run : NULL;
}

enum tpd_status tpd_rows_read(struct tpd_archive *archive, const char *name, struct tpd_rows *out, struct tpd_err *err)
{
	struct tpd_rows rows = {0};
	TPD_AUTO_FREE struct tpd_archive_name *chosen = NULL;
	enum tpd_status status = tpd_rows_names(archive, &rows, err);

	if (status == TPD_OK)
		status = tpd_archive_select(archive, name, &chosen, &rows.count, err);
	if (status == TPD_OK) {
		rows.rows = calloc(rows.count + 1, sizeof(*rows.rows));
		if (!rows.rows)
			status = tpd_fail_nomem(err);
	}
	if (status) {
		free(rows.all);
		return status;
	}
	for (size_t i = 0; i < rows.count; i++)
		rows.rows[i].name = chosen[i];
	status = read_catalog(archive, only_run(&rows), &rows, err);
	for (size_t i = 0; status == TPD_OK && i < rows.count; i++) {
		struct tpd_row *row = &rows.rows[i];

		if (row->kind)
			row->status = check_there(tpd_archive_store(archive), &row->name, err);
		else
			row->status = from_manifest(archive, row, err);
		if (row->status == TPD_NOMEM)
			status = TPD_NOMEM;
	}
	if (status == TPD_OK)
		*out = rows;
	else
		tpd_rows_release(&rows);
	return status;
}

enum tpd_status tpd_rows_metrics(struct tpd_archive *archive, struct tpd_rows *rows, struct tpd_err *err)
{
	enum tpd_status status = TPD_OK;

	rows->metrics = calloc(rows->count + 1, sizeof(*rows->metrics)); /* their places do not change: rows point there */
	if (!rows->metrics)
		return tpd_fail_nomem(err);
	for (size_t i = 0; status == TPD_OK && i < rows->count; i++) {
		if (i == 0 || strcmp(rows->rows[i].name.run, rows->rows[i - 1].name.run) != 0)
			status = tpd_store_metrics(tpd_archive_store(archive), rows->rows[i].name.run,
						   &rows->metrics[rows->metrics_count++], err);
		if (status == TPD_OK)
			rows->rows[i].metrics = tpd_run_metrics_of(&rows->metrics[rows->metrics_count - 1], &rows->rows[i].name.id);
	}
	return status;
}

void tpd_rows_put_metrics(struct tpd_json_out *out, const struct tpd_metrics *metrics)
{
	tpd_json_begin_object(out);
	for (size_t i = 0; i < metrics->count; i++) {
		tpd_json_key(out, metrics->items[i].name);
		tpd_json_put_f64(out, metrics->items[i].value);
	}
	tpd_json_end_object(out);
}

void tpd_rows_release(struct tpd_rows *rows)
{
	for (size_t i = 0; i < rows->metrics_count; i++)
		tpd_run_metrics_release(&rows->metrics[i]);
	free(rows->metrics);

	for (size_t i = 0; i < rows->count; i++) {
		free(rows->rows[i].kind);
		free(rows->rows[i].source);
		free(rows->rows[i].ref);
	}
	free(rows->rows);
	free(rows->all);
	*rows = (struct tpd_rows){0};
}

const char *tpd_name_text(const struct tpd_archive_name *name, char out[TPD_NAME_TEXT])
{
	snprintf(out, TPD_NAME_TEXT, "%.200s@%llu~%u", name->run, (unsigned long long)name->step, name->version);
	return out;
}

static bool has_versions(const struct tpd_rows *rows, const struct tpd_archive_name *name)
{
	if (name->version > 1)
		return true;
	for (size_t i = 0; i < rows->all_count; i++)
		if (rows->all[i].version > 1 && rows->all[i].step == name->step && !strcmp(rows->all[i].run, name->run))
			return true;
	return false;
}

const char *tpd_rows_name(const struct tpd_rows *rows, const struct tpd_archive_name *name, bool brief,
			  char out[TPD_NAME_TEXT])
{
	tpd_name_text(name, out);
	if (brief && !has_versions(rows, name))
		*strrchr(out, '~') = 0;
	return out;
}

const char *tpd_rows_name_of_id(const struct tpd_rows *rows, const char *id, bool brief, char out[TPD_NAME_TEXT])
{
	struct tpd_archive_name wanted, *found = NULL;

	if (rows->all_count > 0 && tpd_unhex(id, wanted.id.bytes, sizeof(wanted.id.bytes)))
		found = bsearch(&wanted, rows->all, rows->all_count, sizeof(wanted), by_id);
	if (found)
		return tpd_rows_name(rows, found, brief, out);
	snprintf(out, TPD_NAME_TEXT, "%.12s", id);
	return out;
}
