/*
 * put.c - checkpoints into the catalog and out of it.
 *
 * The problem: a rebuilt catalog must be the same as one that grew, so nothing may depend on the order of the calls.
 * The number of a checkpoint, which stands in every row below it in place of the 64 digits of its id, is therefore
 * taken from the id; should two ids ever share 63 bits, the second takes the next free number, which is then the
 * one thing that does depend on order.  Rejected: numbers counted up (order), the id itself in every row (half as
 * large again), names of tensors in a table of their own (whoever removes a checkpoint must find out which are
 * still used).  A run exists while it has a checkpoint.
 */
#include "base/tpd.h"

#include "catalog/catalog.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/digest.h"
#include "catalog/sql.h"

/* Where the id is now; *out_found tells whether. */
static enum tpd_status find_id(struct tpd_catalog *catalog, const char *id, bool *out_found, int64_t *out_number,
			       struct tpd_err *err)
{
	struct tpd_sql q;
	bool found;

	tpd_sql_prepare(catalog, &q, "SELECT checkpoint FROM checkpoints WHERE id = ?");
	tpd_sql_put_text(&q, id);
	found = tpd_sql_row(&q);
	if (found)
		*out_number = tpd_sql_get_i64(&q);
	*out_found = found;
	return tpd_sql_end(&q, err);
}

static enum tpd_status free_number(struct tpd_catalog *catalog, const char *id, int64_t *out_number,
				   struct tpd_err *err)
{
	uint8_t bytes[TPD_SHA256_LEN];
	uint64_t number = 0;
	enum tpd_status status = TPD_OK;
	bool taken = true;

	if (!tpd_unhex(id, bytes, sizeof bytes))
		return tpd_fail(err, TPD_USAGE, "'%s' is not the id of a checkpoint", id);
	for (size_t i = 0; i < sizeof number; i++)
		number = number << 8 | bytes[i];
	for (number >>= 1; taken && status == TPD_OK; number = (number + 1) & INT64_MAX) {
		struct tpd_sql q;

		tpd_sql_prepare(catalog, &q, "SELECT 1 FROM checkpoints WHERE checkpoint = ?");
		tpd_sql_put_u64(&q, number);
		taken = tpd_sql_row(&q);
		status = tpd_sql_end(&q, err);
		*out_number = (int64_t)number;
	}
	return status;
}

static enum tpd_status delete_checkpoint(struct tpd_catalog *catalog, int64_t number, struct tpd_err *err)
{
	struct tpd_sql q;
	enum tpd_status status;

	tpd_sql_prepare(catalog, &q, "DELETE FROM checkpoints WHERE checkpoint = ?");
	tpd_sql_put_i64(&q, number);
	status = tpd_sql_end(&q, err);
	if (status == TPD_OK) {
		tpd_sql_prepare(catalog, &q,
				"DELETE FROM runs WHERE NOT EXISTS "
				"(SELECT 1 FROM checkpoints AS c WHERE c.run = runs.run)");
		status = tpd_sql_end(&q, err);
	}
	return status;
}

static enum tpd_status put_run(struct tpd_catalog *catalog, const char *run, struct tpd_err *err)
{
	struct tpd_sql q;

	tpd_sql_prepare(catalog, &q, "INSERT INTO runs (run) VALUES (?) ON CONFLICT DO NOTHING");
	tpd_sql_put_text(&q, run);
	return tpd_sql_end(&q, err);
}

static enum tpd_status put_checkpoint(struct tpd_catalog *catalog, int64_t number,
				      const struct tpd_catalog_checkpoint *c, struct tpd_err *err)
{
	uint64_t named = 0;
	struct tpd_sql q;

	for (size_t i = 0; i < c->tensor_count; i++)
		named += c->tensors[i].name[0] != '\0';
	tpd_sql_prepare(catalog, &q,
			"INSERT INTO checkpoints (checkpoint, id, run, step, version, kind, source, created_ns, "
			"size, stored, depth, files, tensors) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)");
	tpd_sql_put_i64(&q, number);
	tpd_sql_put_text(&q, c->id);
	tpd_sql_put_text(&q, c->run);
	tpd_sql_put_u64(&q, c->step);
	tpd_sql_put_u64(&q, c->version);
	tpd_sql_put_text(&q, c->kind);
	tpd_sql_put_text(&q, c->source);
	tpd_sql_put_i64(&q, c->created_ns);
	tpd_sql_put_u64(&q, c->size);
	tpd_sql_put_u64(&q, c->stored);
	tpd_sql_put_u64(&q, c->depth);
	tpd_sql_put_u64(&q, c->file_count);
	tpd_sql_put_u64(&q, named);
	return tpd_sql_end(&q, err);
}

static void put_ref(struct tpd_sql *q, int64_t number, const char *role, const char *target, const uint64_t *step)
{
	if (!target)
		return;
	tpd_sql_put_i64(q, number);
	tpd_sql_put_text(q, role);
	tpd_sql_put_text(q, target);
	if (step)
		tpd_sql_put_u64(q, *step);
	else
		tpd_sql_put_null(q);
	tpd_sql_again(q);
}

static enum tpd_status put_refs(struct tpd_catalog *catalog, int64_t number, const struct tpd_catalog_checkpoint *c,
				struct tpd_err *err)
{
	struct tpd_sql q;

	tpd_sql_prepare(catalog, &q, "INSERT INTO refs (checkpoint, role, target, step) VALUES (?,?,?,?)");
	put_ref(&q, number, "base", c->ref_id, NULL);
	put_ref(&q, number, "w1", c->w1_id, &c->w1_step);
	return tpd_sql_end(&q, err);
}

static enum tpd_status put_files(struct tpd_catalog *catalog, int64_t number, const struct tpd_catalog_checkpoint *c,
				 struct tpd_err *err)
{
	struct tpd_sql q;

	tpd_sql_prepare(catalog, &q,
			"INSERT INTO files (checkpoint, file, path, type, format, target, mode, mtime_ns, size, "
			"stored, sha256) VALUES (?,?,?,?,?,?,?,?,?,?,?)");
	for (size_t i = 0; i < c->file_count; i++) {
		const struct tpd_catalog_file *f = &c->files[i];

		tpd_sql_put_i64(&q, number);
		tpd_sql_put_u64(&q, i);
		tpd_sql_put_text(&q, f->path);
		tpd_sql_put_text(&q, f->type);
		tpd_sql_put_text(&q, f->format);
		tpd_sql_put_text(&q, f->target);
		tpd_sql_put_u64(&q, f->mode);
		tpd_sql_put_i64(&q, f->mtime_ns);
		tpd_sql_put_u64(&q, f->size);
		tpd_sql_put_u64(&q, f->stored);
		tpd_sql_put_text(&q, f->sha256);
		tpd_sql_again(&q);
	}
	return tpd_sql_end(&q, err);
}

static enum tpd_status put_tensors(struct tpd_catalog *catalog, int64_t number, const struct tpd_catalog_checkpoint *c,
				   struct tpd_err *err)
{
	TPD_AUTO_FREE char *kind = NULL;
	size_t longest = 0;
	struct tpd_sql q;

	for (size_t i = 0; i < c->tensor_count; i++)
		longest = TPD_MAX(longest, strlen(c->tensors[i].name));
	kind = malloc(longest + 1);
	if (!kind)
		return tpd_fail_nomem(err);
	tpd_sql_prepare(catalog, &q,
			"INSERT INTO tensors (checkpoint, file, segment, name, layer, kind, dtype, encoding, "
			"shape, size, stored) VALUES (?,?,?,?,?,?,?,?,?,?,?)");
	for (size_t i = 0; i < c->tensor_count; i++) {
		const struct tpd_catalog_tensor *t = &c->tensors[i];
		int64_t layer;

		tpd_sql_put_i64(&q, number);
		tpd_sql_put_u64(&q, t->file);
		tpd_sql_put_u64(&q, t->segment);
		tpd_sql_put_text(&q, t->name);
		if (tpd_catalog_layer(t->name, &layer, kind))
			tpd_sql_put_i64(&q, layer);
		else
			tpd_sql_put_null(&q);
		tpd_sql_put_text(&q, kind);
		tpd_sql_put_text(&q, t->dtype);
		tpd_sql_put_text(&q, t->encoding);
		tpd_sql_put_text(&q, t->shape);
		tpd_sql_put_u64(&q, t->size);
		tpd_sql_put_u64(&q, t->stored);
		tpd_sql_again(&q);
	}
	return tpd_sql_end(&q, err);
}

/* The columns of sparsity from `pairs` on, in their order. */
static void put_delta(struct tpd_sql *q, const struct tpd_sparsity *s)
{
	tpd_sql_put_u64(q, s->pairs);
	tpd_sql_put_u64(q, s->zeros);
	for (size_t i = 0; i < TPD_SPARSITY_REAL; i++)
		tpd_sql_put_u64(q, s->raw[i]);
	for (size_t i = 0; i < TPD_SPARSITY_REAL; i++)
		tpd_sql_put_u64(q, s->minmax[i]);
	for (size_t i = 0; i < TPD_SPARSITY_ULPS; i++)
		tpd_sql_put_u64(q, s->ulps[i]);
	tpd_sql_put_f64(q, s->delta_min);
	tpd_sql_put_f64(q, s->delta_max);
	tpd_sql_put_f64(q, s->delta_rms);
	tpd_sql_put_u64(q, s->percentile_stride);
	for (size_t i = 0; i < TPD_SPARSITY_PCTS; i++)
		tpd_sql_put_f64(q, s->percentile[i]);
	tpd_sql_put_u64(q, s->gap_count);
	tpd_sql_put_f64(q, s->gap_elias_bits);
	tpd_sql_put_f64(q, s->gap_rice_bits);
	tpd_sql_put_f64(q, s->gap_entropy);
}

static enum tpd_status put_sparsity(struct tpd_catalog *catalog, int64_t number, const struct tpd_catalog_checkpoint *c,
				    struct tpd_err *err)
{
	struct tpd_sql q, value;
	enum tpd_status status;

	tpd_sql_prepare(catalog, &q,
			"INSERT INTO sparsity VALUES (?,?,?, ?,?,?,?,?,?, ?,?, ?,?,?,?, ?,?,?,?, "
			"?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?, ?,?,?, ?, ?,?,?,?,?,?, ?,?,?,?)");
	tpd_sql_prepare(catalog, &value,
			"INSERT INTO sparsity (checkpoint, file, segment, elements, nan, inf, value_min, "
			"value_max, value_rms) VALUES (?,?,?, ?,?,?,?,?,?)");
	for (size_t i = 0; i < c->tensor_count; i++) {
		const struct tpd_catalog_tensor *t = &c->tensors[i];
		const struct tpd_sparsity *s = &t->stats;
		struct tpd_sql *to = s->has_delta ? &q : &value;

		if (!t->has_stats)
			continue;
		tpd_sql_put_i64(to, number);
		tpd_sql_put_u64(to, t->file);
		tpd_sql_put_u64(to, t->segment);
		tpd_sql_put_u64(to, s->count);
		tpd_sql_put_u64(to, s->nan);
		tpd_sql_put_u64(to, s->inf);
		tpd_sql_put_f64(to, s->value_min);
		tpd_sql_put_f64(to, s->value_max);
		tpd_sql_put_f64(to, s->value_rms);
		if (s->has_delta)
			put_delta(to, s);
		tpd_sql_again(to);
	}
	status = tpd_sql_end(&q, err);
	return tpd_sql_stop(&value, status, err);
}

static enum tpd_status put_metrics(struct tpd_catalog *catalog, int64_t number, const struct tpd_metrics *metrics,
				   struct tpd_err *err)
{
	struct tpd_sql q;

	tpd_sql_prepare(catalog, &q, "INSERT INTO metrics (checkpoint, metric, value) VALUES (?,?,?)");
	for (size_t i = 0; metrics && i < metrics->count; i++) {
		tpd_sql_put_i64(&q, number);
		tpd_sql_put_text(&q, metrics->items[i].name);
		tpd_sql_put_f64(&q, metrics->items[i].value);
		tpd_sql_again(&q);
	}
	return tpd_sql_end(&q, err);
}

static enum tpd_status put_all(struct tpd_catalog *catalog, const struct tpd_catalog_checkpoint *c, struct tpd_err *err)
{
	bool found;
	int64_t number = 0;
	enum tpd_status status = find_id(catalog, c->id, &found, &number, err);

	if (status == TPD_OK && found)
		status = delete_checkpoint(catalog, number, err);
	if (status == TPD_OK)
		status = free_number(catalog, c->id, &number, err);
	if (status == TPD_OK)
		status = put_run(catalog, c->run, err);
	if (status == TPD_OK)
		status = put_checkpoint(catalog, number, c, err);
	if (status == TPD_OK)
		status = put_refs(catalog, number, c, err);
	if (status == TPD_OK)
		status = put_files(catalog, number, c, err);
	if (status == TPD_OK)
		status = put_tensors(catalog, number, c, err);
	if (status == TPD_OK)
		status = put_sparsity(catalog, number, c, err);
	if (status == TPD_OK)
		status = put_metrics(catalog, number, c->metrics, err);
	return status;
}

enum tpd_status tpd_catalog_put(struct tpd_catalog *catalog, const struct tpd_catalog_checkpoint *checkpoint,
				struct tpd_err *err)
{
	bool nested;
	enum tpd_status status = tpd_sql_enter(catalog, &nested, err);

	if (status == TPD_OK)
		status = tpd_sql_leave(catalog, nested, put_all(catalog, checkpoint, err), err);
	if (status == TPD_CONFLICT)
		tpd_err_prefix(err, "%s@%llu~%u", checkpoint->run, (unsigned long long)checkpoint->step,
			       (unsigned)checkpoint->version);
	return status;
}

static enum tpd_status get_metrics(struct tpd_catalog *catalog, int64_t number, struct tpd_metrics *out, struct tpd_err *err)
{
	enum tpd_status status = TPD_OK;
	struct tpd_sql q;

	tpd_sql_prepare(catalog, &q, "SELECT metric, value FROM metrics WHERE checkpoint = ?");
	tpd_sql_put_i64(&q, number);
	while (status == TPD_OK && tpd_sql_row(&q)) {
		const char *name = tpd_sql_get_text(&q);

		if (name)
			status = tpd_metrics_set(out, name, strlen(name), tpd_sql_get_f64(&q), err);
	}
	return tpd_sql_stop(&q, status, err);
}

static enum tpd_status replace_metrics(struct tpd_catalog *catalog, int64_t number, const struct tpd_metrics *metrics,
				       struct tpd_err *err)
{
	enum tpd_status status;
	struct tpd_sql q;
	bool nested;

	status = tpd_sql_enter(catalog, &nested, err);
	if (status != TPD_OK)
		return status;
	tpd_sql_prepare(catalog, &q, "DELETE FROM metrics WHERE checkpoint = ?");
	tpd_sql_put_i64(&q, number);
	status = tpd_sql_end(&q, err);
	if (status == TPD_OK)
		status = put_metrics(catalog, number, metrics, err);
	return tpd_sql_leave(catalog, nested, status, err);
}

enum tpd_status tpd_catalog_set_metrics(struct tpd_catalog *catalog, const char *id, const struct tpd_metrics *metrics,
					struct tpd_err *err)
{
	struct tpd_metrics there = {0};
	int64_t number = 0;
	bool found;
	enum tpd_status status = find_id(catalog, id, &found, &number, err);

	if (status == TPD_OK && !found)
		return tpd_fail(err, TPD_NOT_FOUND, "catalog '%s' has no checkpoint %s", catalog->path, id);
	if (status == TPD_OK)
		status = get_metrics(catalog, number, &there, err);
	if (status == TPD_OK && !tpd_metrics_equal(&there, metrics))
		status = replace_metrics(catalog, number, metrics, err);
	tpd_metrics_release(&there);
	return status;
}

static enum tpd_status remove_id(struct tpd_catalog *catalog, const char *id, struct tpd_err *err)
{
	bool found;
	int64_t number = 0;
	enum tpd_status status = find_id(catalog, id, &found, &number, err);

	if (status == TPD_OK && !found)
		status = tpd_fail(err, TPD_NOT_FOUND, "catalog '%s' has no checkpoint %s", catalog->path, id);
	return status == TPD_OK ? delete_checkpoint(catalog, number, err) : status;
}

enum tpd_status tpd_catalog_remove(struct tpd_catalog *catalog, const char *id, struct tpd_err *err)
{
	bool nested;
	enum tpd_status status = tpd_sql_enter(catalog, &nested, err);

	return status == TPD_OK ? tpd_sql_leave(catalog, nested, remove_id(catalog, id, err), err) : status;
}

enum tpd_status tpd_catalog_clear(struct tpd_catalog *catalog, struct tpd_err *err)
{
	bool nested;
	enum tpd_status status = tpd_sql_enter(catalog, &nested, err);

	/* From the leaves up: row by row each, but without a cascade for every row. */
	if (status == TPD_OK)
		status = tpd_sql_leave(catalog, nested,
				       tpd_sql_exec(catalog,
						    "DELETE FROM metrics; DELETE FROM sparsity; DELETE FROM tensors; DELETE FROM files;"
						    "DELETE FROM refs; DELETE FROM checkpoints; DELETE FROM runs",
						    true, err),
				       err);
	return status;
}

bool tpd_catalog_has(struct tpd_catalog *catalog, const char *id)
{
	bool found;
	int64_t number = 0;

	return find_id(catalog, id, &found, &number, NULL) == TPD_OK && found;
}
