/*
 * query.c - what is stored, read back.
 *
 * Each query is one statement, hence one consistent view; it holds a shared lock until its last row, so writers of
 * other handles wait while a callback runs.
 */
#include "base/tpd.h"

#include "catalog/catalog.h"

#include <math.h>

#include "catalog/sql.h"

enum tpd_status tpd_catalog_list(struct tpd_catalog *catalog, const char *run, tpd_catalog_row_fn fn, void *arg,
				 struct tpd_err *err)
{
	enum tpd_status status = TPD_OK;
	struct tpd_sql q;

	tpd_sql_prepare(
		catalog, &q,
		"SELECT c.id, c.run, c.kind, b.target, w.target, c.source, c.step, c.size, c.stored, c.version, "
		"c.depth, c.files, c.tensors, c.created_ns FROM checkpoints AS c "
		"LEFT JOIN refs AS b ON b.checkpoint = c.checkpoint AND b.role = 'base' "
		"LEFT JOIN refs AS w ON w.checkpoint = c.checkpoint AND w.role = 'w1' "
		"WHERE ?1 IS NULL OR c.run = ?1 ORDER BY c.run, c.step, c.version");
	tpd_sql_put_text(&q, run);
	while (status == TPD_OK && tpd_sql_row(&q)) {
		struct tpd_catalog_row row;

		row.id = tpd_sql_get_text(&q);
		row.run = tpd_sql_get_text(&q);
		row.kind = tpd_sql_get_text(&q);
		row.ref_id = tpd_sql_get_text(&q);
		row.w1_id = tpd_sql_get_text(&q);
		row.source = tpd_sql_get_text(&q);
		row.step = tpd_sql_get_u64(&q);
		row.size = tpd_sql_get_u64(&q);
		row.stored = tpd_sql_get_u64(&q);
		row.version = (uint32_t)tpd_sql_get_u64(&q);
		row.depth = (uint32_t)tpd_sql_get_u64(&q);
		row.files = (uint32_t)tpd_sql_get_u64(&q);
		row.tensors = (uint32_t)tpd_sql_get_u64(&q);
		row.created_ns = tpd_sql_get_i64(&q);
		status = fn(arg, &row, err);
	}
	return tpd_sql_stop(&q, status, err);
}

enum tpd_status tpd_catalog_runs(struct tpd_catalog *catalog,
				 enum tpd_status (*fn)(void *arg, const struct tpd_catalog_run_row *row,
						       struct tpd_err *err),
				 void *arg, struct tpd_err *err)
{
	enum tpd_status status = TPD_OK;
	struct tpd_sql q;

	tpd_sql_prepare(
		catalog, &q,
		"SELECT run, count(*), min(step), max(step), sum(size), sum(stored), max(depth), max(created_ns) "
		"FROM checkpoints GROUP BY run ORDER BY run");
	while (status == TPD_OK && tpd_sql_row(&q)) {
		struct tpd_catalog_run_row row;

		row.run = tpd_sql_get_text(&q);
		row.checkpoints = tpd_sql_get_u64(&q);
		row.first_step = tpd_sql_get_u64(&q);
		row.last_step = tpd_sql_get_u64(&q);
		row.size = tpd_sql_get_u64(&q);
		row.stored = tpd_sql_get_u64(&q);
		row.max_depth = (uint32_t)tpd_sql_get_u64(&q);
		row.last_created_ns = tpd_sql_get_i64(&q);
		status = fn(arg, &row, err);
	}
	return tpd_sql_stop(&q, status, err);
}

static enum tpd_status check_id(struct tpd_catalog *catalog, const char *id, struct tpd_err *err)
{
	struct tpd_sql q;
	enum tpd_status status;
	bool found;

	tpd_sql_prepare(catalog, &q, "SELECT 1 FROM checkpoints WHERE id = ?");
	tpd_sql_put_text(&q, id);
	found = tpd_sql_row(&q);
	status = tpd_sql_end(&q, err);
	if (status == TPD_OK && !found)
		status = tpd_fail(err, TPD_NOT_FOUND, "catalog '%s' has no checkpoint %s", catalog->path, id);
	return status;
}

enum tpd_status tpd_catalog_files(struct tpd_catalog *catalog, const char *id,
				  enum tpd_status (*fn)(void *arg, const struct tpd_catalog_file *file,
							struct tpd_err *err),
				  void *arg, struct tpd_err *err)
{
	enum tpd_status status = check_id(catalog, id, err);
	struct tpd_sql q;

	if (status != TPD_OK)
		return status;
	tpd_sql_prepare(catalog, &q,
			"SELECT path, type, format, target, mode, mtime_ns, size, stored, sha256 FROM files "
			"WHERE checkpoint = (SELECT checkpoint FROM checkpoints WHERE id = ?) ORDER BY file");
	tpd_sql_put_text(&q, id);
	while (status == TPD_OK && tpd_sql_row(&q)) {
		struct tpd_catalog_file file;

		file.path = tpd_sql_get_text(&q);
		file.type = tpd_sql_get_text(&q);
		file.format = tpd_sql_get_text(&q);
		file.target = tpd_sql_get_text(&q);
		file.mode = (uint32_t)tpd_sql_get_u64(&q);
		file.mtime_ns = tpd_sql_get_i64(&q);
		file.size = tpd_sql_get_u64(&q);
		file.stored = tpd_sql_get_u64(&q);
		file.sha256 = tpd_sql_get_text(&q);
		status = fn(arg, &file, err);
	}
	return tpd_sql_stop(&q, status, err);
}

/* The columns of sparsity from `elements` on. */
static void get_sparsity(struct tpd_sql *q, struct tpd_sparsity *s)
{
	s->count = tpd_sql_get_u64(q);
	s->nan = tpd_sql_get_u64(q);
	s->inf = tpd_sql_get_u64(q);
	s->value_min = tpd_sql_get_f64(q);
	s->value_max = tpd_sql_get_f64(q);
	s->value_rms = tpd_sql_get_f64(q);
	s->has_delta = !tpd_sql_is_null(q);
	if (!s->has_delta)
		return;
	s->pairs = tpd_sql_get_u64(q);
	s->zeros = tpd_sql_get_u64(q);
	for (size_t i = 0; i < TPD_SPARSITY_REAL; i++)
		s->raw[i] = tpd_sql_get_u64(q);
	for (size_t i = 0; i < TPD_SPARSITY_REAL; i++)
		s->minmax[i] = tpd_sql_get_u64(q);
	for (size_t i = 0; i < TPD_SPARSITY_ULPS; i++)
		s->ulps[i] = tpd_sql_get_u64(q);
	s->delta_min = tpd_sql_get_f64(q);
	s->delta_max = tpd_sql_get_f64(q);
	s->delta_rms = tpd_sql_get_f64(q);
	s->percentile_stride = (uint32_t)tpd_sql_get_u64(q);
	for (size_t i = 0; i < TPD_SPARSITY_PCTS; i++)
		s->percentile[i] = tpd_sql_get_f64(q);
	s->gap_count = tpd_sql_get_u64(q);
	s->gap_elias_bits = tpd_sql_get_f64(q);
	s->gap_rice_bits = tpd_sql_get_f64(q);
	s->gap_entropy = tpd_sql_get_f64(q);
}

enum tpd_status tpd_catalog_tensors(struct tpd_catalog *catalog, const char *id,
				    enum tpd_status (*fn)(void *arg, const struct tpd_catalog_tensor *tensor,
							  struct tpd_err *err),
				    void *arg, struct tpd_err *err)
{
	enum tpd_status status = check_id(catalog, id, err);
	struct tpd_sql q;

	if (status != TPD_OK)
		return status;
	/* The key columns of s come twice, last as part of s.*: where they are is what get_sparsity() starts behind. */
	tpd_sql_prepare(
		catalog, &q,
		"SELECT t.name, t.file, t.segment, t.dtype, t.encoding, t.shape, t.size, t.stored, s.* "
		"FROM tensors AS t LEFT JOIN sparsity AS s "
		"ON s.checkpoint = t.checkpoint AND s.file = t.file AND s.segment = t.segment "
		"WHERE t.checkpoint = (SELECT checkpoint FROM checkpoints WHERE id = ?) ORDER BY t.file, t.segment");
	tpd_sql_put_text(&q, id);
	while (status == TPD_OK && tpd_sql_row(&q)) {
		struct tpd_catalog_tensor tensor = {0};

		tensor.name = tpd_sql_get_text(&q);
		tensor.file = (uint32_t)tpd_sql_get_u64(&q);
		tensor.segment = (uint32_t)tpd_sql_get_u64(&q);
		tensor.dtype = tpd_sql_get_text(&q);
		tensor.encoding = tpd_sql_get_text(&q);
		tensor.shape = tpd_sql_get_text(&q);
		tensor.size = tpd_sql_get_u64(&q);
		tensor.stored = tpd_sql_get_u64(&q);
		tensor.has_stats = !tpd_sql_is_null(&q);
		if (tensor.has_stats) {
			for (int key = 0; key < 3; key++)
				tpd_sql_get_u64(&q);
			get_sparsity(&q, &tensor.stats);
		}
		status = fn(arg, &tensor, err);
	}
	return tpd_sql_stop(&q, status, err);
}

/* A mean of squares, or of anything weighted, from its sum. */
static double mean(double sum, uint64_t n)
{
	return n ? sum / (double)n : 0.0;
}

static void get_step_stats(struct tpd_sql *q, struct tpd_catalog_step_stats *row)
{
	uint64_t finite;

	row->step = tpd_sql_get_u64(q);
	row->version = (uint32_t)tpd_sql_get_u64(q);
	row->w1_step = tpd_sql_get_u64(q);
	row->tensors = tpd_sql_get_u64(q);
	row->size = tpd_sql_get_u64(q);
	row->stored = tpd_sql_get_u64(q);
	row->nan = tpd_sql_get_u64(q);
	row->inf = tpd_sql_get_u64(q);
	finite = tpd_sql_get_u64(q);
	row->value_rms = sqrt(mean(tpd_sql_get_f64(q), finite));
	row->pairs = tpd_sql_get_u64(q);
	row->zeros = tpd_sql_get_u64(q);
	row->delta_rms = sqrt(mean(tpd_sql_get_f64(q), row->pairs));
	row->gap_count = tpd_sql_get_u64(q);
	row->gap_elias_bits = mean(tpd_sql_get_f64(q), row->gap_count);
	row->gap_rice_bits = mean(tpd_sql_get_f64(q), row->gap_count);
	row->gap_entropy = mean(tpd_sql_get_f64(q), row->gap_count);
	for (size_t i = 0; i < TPD_SPARSITY_REAL; i++)
		row->raw[i] = tpd_sql_get_u64(q);
	for (size_t i = 0; i < TPD_SPARSITY_REAL; i++)
		row->minmax[i] = tpd_sql_get_u64(q);
	for (size_t i = 0; i < TPD_SPARSITY_ULPS; i++)
		row->ulps[i] = tpd_sql_get_u64(q);
}

enum tpd_status tpd_catalog_stats(struct tpd_catalog *catalog, const char *run,
				  enum tpd_status (*fn)(void *arg, const struct tpd_catalog_step_stats *row,
							struct tpd_err *err),
				  void *arg, struct tpd_err *err)
{
	enum tpd_status status = TPD_OK;
	struct tpd_sql q;

	/* total() is a double that never overflows, sum() of integers an exact one that fails when it does. */
	tpd_sql_prepare(
		catalog, &q,
		"SELECT c.step, c.version, coalesce(w.step, 0), count(*), sum(t.size), sum(t.stored), "
		"sum(s.nan), sum(s.inf), sum(s.elements - s.nan - s.inf), "
		"total(s.value_rms * s.value_rms * (s.elements - s.nan - s.inf)), "
		"sum(s.pairs), sum(s.zeros), total(s.delta_rms * s.delta_rms * s.pairs), sum(s.gap_count), "
		"total(s.gap_elias_bits * s.gap_count), total(s.gap_rice_bits * s.gap_count), "
		"total(s.gap_entropy * s.gap_count), "
		"sum(s.raw_1e5), sum(s.raw_1e4), sum(s.raw_1e3), sum(s.raw_1e2), "
		"sum(s.minmax_1e5), sum(s.minmax_1e4), sum(s.minmax_1e3), sum(s.minmax_1e2), "
		"sum(s.ulps_0), sum(s.ulps_1), sum(s.ulps_2), sum(s.ulps_3), sum(s.ulps_4), sum(s.ulps_5), "
		"sum(s.ulps_6), sum(s.ulps_7), sum(s.ulps_8), sum(s.ulps_9), sum(s.ulps_10), sum(s.ulps_11), "
		"sum(s.ulps_12), sum(s.ulps_13), sum(s.ulps_14), sum(s.ulps_15), sum(s.ulps_16) "
		"FROM checkpoints AS c "
		"LEFT JOIN refs AS w ON w.checkpoint = c.checkpoint AND w.role = 'w1' "
		"JOIN tensors AS t ON t.checkpoint = c.checkpoint "
		"JOIN sparsity AS s ON s.checkpoint = t.checkpoint AND s.file = t.file AND s.segment = t.segment "
		"WHERE c.run = ? AND s.pairs IS NOT NULL GROUP BY c.step, c.version ORDER BY c.step, c.version");
	tpd_sql_put_text(&q, run);
	while (status == TPD_OK && tpd_sql_row(&q)) {
		struct tpd_catalog_step_stats row;

		get_step_stats(&q, &row);
		status = fn(arg, &row, err);
	}
	return tpd_sql_stop(&q, status, err);
}

enum tpd_status tpd_catalog_totals(struct tpd_catalog *catalog, struct tpd_catalog_totals *out, struct tpd_err *err)
{
	struct tpd_catalog_totals totals = {0};
	enum tpd_status status;
	struct tpd_sql q;

	tpd_sql_prepare(
		catalog, &q,
		"SELECT (SELECT count(*) FROM runs), count(*), coalesce(sum(size), 0), coalesce(sum(stored), 0), "
		"(SELECT count(*) FROM jobs WHERE state = 'queued'), "
		"(SELECT count(*) FROM jobs WHERE state = 'running'), "
		"(SELECT count(*) FROM jobs WHERE state = 'failed') FROM checkpoints");
	if (tpd_sql_row(&q)) {
		totals.runs = tpd_sql_get_u64(&q);
		totals.checkpoints = tpd_sql_get_u64(&q);
		totals.size = tpd_sql_get_u64(&q);
		totals.stored = tpd_sql_get_u64(&q);
		totals.jobs_queued = tpd_sql_get_u64(&q);
		totals.jobs_running = tpd_sql_get_u64(&q);
		totals.jobs_failed = tpd_sql_get_u64(&q);
	}
	status = tpd_sql_end(&q, err);
	if (status == TPD_OK)
		*out = totals;
	return status;
}
