/*
 * t_catalog.c - the catalog: opening, checkpoints, views, jobs, events, and who may do what at the same time.
 *
 * The sqlite3 shell is the second opinion: what we wrote is read with it, by view and by dump.
 */
#include "base/tpd.h"

#include "catalog/catalog.h"

#include <math.h>

#include "catalog/sql.h"
#include "catalog_help.h"

/* --- opening --- */

static enum tpd_status try_open(enum tpd_catalog_mode mode, struct tpd_err *err)
{
	struct tpd_catalog *catalog = NULL;
	enum tpd_status status = tpd_catalog_open(tpd_io_posix(), help_path, mode, 0, &catalog, err);

	ck_assert_int_eq(status == TPD_OK, catalog != NULL);
	tpd_catalog_close(catalog);
	return status;
}

static void check_text(const struct tpd_err *err, const char *before, const char *after)
{
	char expected[TPD_ERR_TEXT];

	snprintf(expected, sizeof expected, "%s'%s'%s", before, help_path, after);
	ck_assert_str_eq(err->text, expected);
}

static void write_file(const char *path, const void *data, size_t len)
{
	FILE *f = fopen(path, "w");

	ck_assert_ptr_nonnull(f);
	ck_assert_uint_eq(fwrite(data, 1, len, f), len);
	ck_assert_int_eq(fclose(f), 0);
}

START_TEST(opening)
{
	struct tpd_err err;

	ck_assert_int_eq(try_open(TPD_CATALOG_READ, &err), TPD_NOT_FOUND);
	check_text(&err, "there is no catalog ", "");
	ck_assert_int_ne(access(help_path, F_OK), 0);
	write_file(help_path, "", 0);
	ck_assert_int_eq(try_open(TPD_CATALOG_READ, &err), TPD_NOT_FOUND);
	check_text(&err, "catalog ", " is empty");
	ck_assert_int_eq(try_open(TPD_CATALOG_WRITE, &err), TPD_OK);
	ck_assert_int_eq(try_open(TPD_CATALOG_READ, &err), TPD_OK);
	ck_assert_int_eq(try_open(TPD_CATALOG_WRITE, &err), TPD_OK);
	help_shell_says("PRAGMA user_version; PRAGMA journal_mode; PRAGMA foreign_key_check; PRAGMA integrity_check",
			"3\ndelete\nok\n");
}
END_TEST

START_TEST(a_newer_version_is_left_alone)
{
	struct tpd_err err;

	ck_assert_int_eq(try_open(TPD_CATALOG_WRITE, &err), TPD_OK);
	free(help_shell("PRAGMA user_version = 7"));
	for (int mode = 0; mode < 2; mode++) {
		ck_assert_int_eq(try_open((enum tpd_catalog_mode)mode, &err), TPD_UNSUPPORTED);
		check_text(&err, "catalog ", " has version 7; this tpded knows 3: move it away, and "
			   "'tpdectl rebuild-catalog' makes a new one");
	}
	help_shell_says("PRAGMA user_version", "7\n");
	free(help_shell("PRAGMA user_version = 3"));
	ck_assert_int_eq(try_open(TPD_CATALOG_WRITE, &err), TPD_OK);
}
END_TEST

/* Jobs as version 2 had them, found by path and fingerprint alone; and version 1, before there were metrics. */
#define TO_VERSION_2 \
	"ALTER TABLE jobs RENAME TO newer; DROP INDEX jobs_by_state; CREATE TABLE jobs (number INTEGER NOT NULL PRIMARY KEY, " \
	"run TEXT NOT NULL, path TEXT NOT NULL, step INTEGER NOT NULL CHECK (step >= 0), fingerprint TEXT NOT NULL, state TEXT NOT NULL, " \
	"attempts INTEGER NOT NULL, queued_ns INTEGER NOT NULL, changed_ns INTEGER NOT NULL, message TEXT, checkpoint TEXT, " \
	"UNIQUE (path, fingerprint)) STRICT; CREATE INDEX jobs_by_state ON jobs (state); INSERT INTO jobs SELECT * FROM newer; " \
	"DROP TABLE newer; PRAGMA user_version = 2"
#define TO_VERSION_1 TO_VERSION_2 "; DROP VIEW metric_history; DROP TABLE metrics; PRAGMA user_version = 1"

/* What was made before: the same schema as a new one, and all that was in it. */
START_TEST(older_versions_are_brought_up)
{
	static const char *const older[] = {NULL, TO_VERSION_1, TO_VERSION_2};
	struct tpd_catalog *catalog = help_open_catalog(tpd_io_posix(), TPD_CATALOG_WRITE);
	char *schema, *dump, *now, text[80];
	struct tpd_err err;
	int64_t number;
	bool is_new;

	help_put(catalog, "run", 1, 10, 1, 3);
	ck_assert_int_eq(tpd_catalog_job_add(catalog, "run", "/r/20", 20, "f", 100, &number, &is_new, &err), TPD_OK);
	ck_assert_int_eq(tpd_catalog_job_add(catalog, "run", "/r/40", 40, "f", 101, &number, &is_new, &err), TPD_OK);
	ck_assert_int_eq(tpd_catalog_job_set(catalog, number, TPD_JOB_DONE, 102, "id", "why", &err), TPD_OK);
	tpd_catalog_close(catalog);
	schema = help_shell(".schema");
	dump = help_shell(".dump");
	for (int version = 2; version >= 1; version--) {
		help_shell_says(older[version], "");
		ck_assert_int_eq(try_open(TPD_CATALOG_READ, &err), TPD_UNSUPPORTED);
		snprintf(text, sizeof text, " has the old version %d; any command that writes brings it up", version);
		check_text(&err, "catalog ", text);
		ck_assert_int_eq(try_open(TPD_CATALOG_WRITE, &err), TPD_OK);
		ck_assert_int_eq(try_open(TPD_CATALOG_READ, &err), TPD_OK);
		now = help_shell(".schema");
		ck_assert_str_eq(now, schema);
		free(now);
		now = help_shell(".dump");
		ck_assert_str_eq(now, dump);
		free(now);
		help_shell_says("PRAGMA user_version; PRAGMA integrity_check", "3\nok\n");
	}
	free(schema);
	free(dump);
}
END_TEST

START_TEST(metrics_of_checkpoints)
{
	static const char sql[] = "SELECT run, step, version, metric, value FROM metric_history; SELECT count(*) FROM metrics";
	struct tpd_catalog *catalog = help_open_catalog(tpd_io_posix(), TPD_CATALOG_WRITE);
	struct tpd_metrics metrics = {0}, none = {0};
	char id[65];

	help_put(catalog, "run", 1, 10, 1, 0);
	help_put(catalog, "run", 1, 20, 1, 0);
	help_id(id, 1, 20, 1);
	ck_assert_int_eq(tpd_metrics_set(&metrics, "loss", 4, 0.5, NULL), TPD_OK);
	ck_assert_int_eq(tpd_metrics_set(&metrics, "bleu", 4, 31, NULL), TPD_OK);
	ck_assert_int_eq(tpd_catalog_set_metrics(catalog, id, &metrics, NULL), TPD_OK);
	help_shell_says(sql, "run|20|1|bleu|31.0\nrun|20|1|loss|0.5\n2\n");
	ck_assert_int_eq(tpd_metrics_set(&metrics, "loss", 4, 0.25, NULL), TPD_OK);
	ck_assert_int_eq(tpd_catalog_set_metrics(catalog, id, &metrics, NULL), TPD_OK);
	help_shell_says(sql, "run|20|1|bleu|31.0\nrun|20|1|loss|0.25\n2\n");
	help_put(catalog, "run", 1, 20, 1, 0); /* replaced as a whole */
	help_shell_says(sql, "0\n");
	ck_assert_int_eq(tpd_catalog_set_metrics(catalog, id, &metrics, NULL), TPD_OK);
	ck_assert_int_eq(tpd_catalog_set_metrics(catalog, id, &none, NULL), TPD_OK);
	help_shell_says(sql, "0\n");
	ck_assert_int_eq(tpd_catalog_set_metrics(catalog, id, &metrics, NULL), TPD_OK);
	ck_assert_int_eq(tpd_catalog_remove(catalog, id, NULL), TPD_OK);
	help_shell_says(sql, "0\n");
	ck_assert_int_eq(tpd_catalog_set_metrics(catalog, id, &metrics, NULL), TPD_NOT_FOUND);
	tpd_metrics_release(&metrics);
	tpd_catalog_close(catalog);
}
END_TEST

START_TEST(what_is_no_catalog)
{
	char text[4096];
	struct tpd_err err;

	memset(text, 'x', sizeof text);
	write_file(help_path, text, sizeof text);
	for (int mode = 0; mode < 2; mode++) {
		ck_assert_int_eq(try_open((enum tpd_catalog_mode)mode, &err), TPD_CORRUPT);
		check_text(&err, "", " is not a catalog: file is not a database");
	}
	ck_assert_int_eq(unlink(help_path), 0);
	free(help_shell("CREATE TABLE somebody (elses INTEGER)"));
	for (int mode = 0; mode < 2; mode++) {
		ck_assert_int_eq(try_open((enum tpd_catalog_mode)mode, &err), TPD_CORRUPT);
		check_text(&err, "", " is a database, but not a catalog");
	}
	help_shell_says(".tables", "somebody\n");
}
END_TEST

START_TEST(wal_mode_is_told)
{
	struct tpd_err err;

	ck_assert_int_eq(try_open(TPD_CATALOG_WRITE, &err), TPD_OK);
	free(help_shell("PRAGMA journal_mode = WAL"));
	ck_assert_int_eq(try_open(TPD_CATALOG_READ, &err), TPD_UNSUPPORTED);
	ck_assert_ptr_nonnull(strstr(err.text, "WAL mode"));
	free(help_shell("PRAGMA journal_mode = DELETE"));
	ck_assert_int_eq(try_open(TPD_CATALOG_READ, &err), TPD_OK);
}
END_TEST

START_TEST(where_it_cannot_be)
{
	struct tpd_err err;

	ck_assert_int_eq(mkdir(help_path, 0755), 0);
	ck_assert_int_eq(try_open(TPD_CATALOG_WRITE, &err), TPD_IO);
	check_text(&err, "cannot open catalog ", ": Is a directory");
	ck_assert_int_eq(err.sys, EISDIR);
	ck_assert_int_eq(try_open(TPD_CATALOG_READ, &err), TPD_IO);
	strcat(help_path, "/none/catalog.sqlite");
	ck_assert_int_eq(try_open(TPD_CATALOG_READ, &err), TPD_NOT_FOUND);
	ck_assert_int_eq(try_open(TPD_CATALOG_WRITE, &err), TPD_IO);
	check_text(&err, "cannot open catalog ", ": No such file or directory");
}
END_TEST

START_TEST(a_name_is_no_uri)
{
	struct tpd_catalog *catalog;

	ck_assert_int_eq(chdir(help_root), 0);
	ck_assert_int_eq(tpd_catalog_open(tpd_io_posix(), "file:x?mode=memory", TPD_CATALOG_WRITE, 0, &catalog, NULL),
			 TPD_OK);
	tpd_catalog_close(catalog);
	ck_assert_int_eq(access("file:x?mode=memory", F_OK), 0);
}
END_TEST

START_TEST(damage_is_told)
{
	struct tpd_catalog *catalog = help_open_catalog(tpd_io_posix(), TPD_CATALOG_WRITE);
	uint8_t junk[4096];
	struct tpd_err err;
	enum tpd_status status;
	FILE *f;

	for (uint64_t step = 1; step < 40; step++)
		help_put(catalog, "run", 1, step, 1, 0);
	tpd_catalog_close(catalog);
	ck_assert_int_eq(try_open(TPD_CATALOG_READ, &err), TPD_OK);
	memset(junk, 0xa5, sizeof junk);
	f = fopen(help_path, "r+");
	ck_assert_ptr_nonnull(f);
	ck_assert_int_eq(fseek(f, 0, SEEK_END), 0);
	for (long pages = ftell(f) / 4096, page = 1; page < pages;
	     page++) { /* all but the first, where the schema begins */
		ck_assert_int_eq(fseek(f, page * 4096, SEEK_SET), 0);
		ck_assert_uint_eq(fwrite(junk, 1, sizeof junk, f), sizeof junk);
	}
	fclose(f);
	status = tpd_catalog_open(tpd_io_posix(), help_path, TPD_CATALOG_READ, 0, &catalog, &err);
	if (status == TPD_OK) {
		struct tpd_catalog_totals totals;

		status = tpd_catalog_totals(catalog, &totals, &err);
		tpd_catalog_close(catalog);
	}
	ck_assert_int_eq(status, TPD_CORRUPT);
	check_text(&err, "catalog ", " is damaged: database disk image is malformed; 'tpdectl rebuild-catalog' makes it again");
}
END_TEST

/* --- checkpoints --- */

static bool same_text(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) == 0 : a == b;
}

struct expected {
	const struct help_checkpoint *h;
	size_t n;
};

static enum tpd_status check_file(void *arg, const struct tpd_catalog_file *f, TPD_UNUSED struct tpd_err *err)
{
	struct expected *e = arg;
	const struct tpd_catalog_file *want = &e->h->files[e->n++];

	ck_assert_str_eq(f->path, want->path);
	ck_assert_str_eq(f->type, want->type);
	ck_assert(same_text(f->format, want->format) && same_text(f->target, want->target));
	ck_assert(same_text(f->sha256, want->sha256));
	ck_assert_uint_eq(f->mode, want->mode);
	ck_assert_int_eq(f->mtime_ns, want->mtime_ns);
	ck_assert_uint_eq(f->size, want->size);
	ck_assert_uint_eq(f->stored, want->stored);
	return TPD_OK;
}

static enum tpd_status check_tensor(void *arg, const struct tpd_catalog_tensor *t, TPD_UNUSED struct tpd_err *err)
{
	struct expected *e = arg;
	const struct tpd_catalog_tensor *want = &e->h->tensors[e->n++];
	const struct tpd_sparsity *s = &t->stats, *w = &want->stats;

	ck_assert_str_eq(t->name, want->name);
	ck_assert(t->file == want->file && t->segment == want->segment);
	ck_assert_str_eq(t->dtype, want->dtype);
	ck_assert_str_eq(t->encoding, want->encoding);
	ck_assert(same_text(t->shape, want->shape));
	ck_assert(t->size == want->size && t->stored == want->stored && t->has_stats == want->has_stats);
	ck_assert(s->count == w->count && s->nan == w->nan && s->inf == w->inf && s->value_min == w->value_min);
	ck_assert(s->value_max == w->value_max && s->value_rms == w->value_rms && s->has_delta == w->has_delta);
	ck_assert(s->pairs == w->pairs && s->zeros == w->zeros);
	ck_assert_mem_eq(s->raw, w->raw, sizeof s->raw);
	ck_assert_mem_eq(s->minmax, w->minmax, sizeof s->minmax);
	ck_assert_mem_eq(s->ulps, w->ulps, sizeof s->ulps);
	ck_assert(s->delta_min == w->delta_min && s->delta_max == w->delta_max && s->delta_rms == w->delta_rms);
	ck_assert_uint_eq(s->percentile_stride, w->percentile_stride);
	ck_assert_mem_eq(s->percentile, w->percentile, sizeof s->percentile);
	ck_assert(s->gap_count == w->gap_count && s->gap_elias_bits == w->gap_elias_bits);
	ck_assert(s->gap_rice_bits == w->gap_rice_bits && s->gap_entropy == w->gap_entropy);
	return TPD_OK;
}

static enum tpd_status check_row(void *arg, const struct tpd_catalog_row *row, TPD_UNUSED struct tpd_err *err)
{
	struct expected *e = arg;
	const struct tpd_catalog_checkpoint *c = &e->h->c;

	e->n++;
	ck_assert_str_eq(row->id, c->id);
	ck_assert_str_eq(row->run, c->run);
	ck_assert_str_eq(row->kind, c->kind);
	ck_assert_str_eq(row->source, c->source);
	ck_assert(same_text(row->ref_id, c->ref_id) && same_text(row->w1_id, c->w1_id));
	ck_assert(row->step == c->step && row->version == c->version && row->depth == c->depth);
	ck_assert(row->size == c->size && row->stored == c->stored && row->created_ns == c->created_ns);
	ck_assert_uint_eq(row->files, HELP_FILES);
	ck_assert_uint_eq(row->tensors, HELP_TENSORS - 2); /* without the two that have no name */
	return TPD_OK;
}

static void check_all(struct tpd_catalog *catalog, const struct help_checkpoint *h)
{
	struct expected e = { h, 0 };

	ck_assert(tpd_catalog_has(catalog, h->id));
	ck_assert_int_eq(tpd_catalog_list(catalog, h->c.run, check_row, &e, NULL), TPD_OK);
	ck_assert_uint_eq(e.n, 1);
	e.n = 0;
	ck_assert_int_eq(tpd_catalog_files(catalog, h->id, check_file, &e, NULL), TPD_OK);
	ck_assert_uint_eq(e.n, HELP_FILES);
	e.n = 0;
	ck_assert_int_eq(tpd_catalog_tensors(catalog, h->id, check_tensor, &e, NULL), TPD_OK);
	ck_assert_uint_eq(e.n, HELP_TENSORS);
}

START_TEST(what_is_put_comes_back)
{
	struct tpd_catalog *catalog = help_open_catalog(tpd_io_posix(), TPD_CATALOG_WRITE);
	struct help_checkpoint h;
	struct tpd_err err;
	struct expected e;

	help_make(&h, "sweep/lr3", 1, 20, 1, 10);
	ck_assert(!tpd_catalog_has(catalog, h.id));
	ck_assert_int_eq(tpd_catalog_put(catalog, &h.c, &err), TPD_OK);
	check_all(catalog, &h);
	h.c.stored = 77; /* the same id again replaces */
	h.c.run = "elsewhere";
	h.tensors[1].stats.raw[2] = 5;
	ck_assert_int_eq(tpd_catalog_put(catalog, &h.c, &err), TPD_OK);
	check_all(catalog, &h);
	help_shell_says("SELECT * FROM runs", "elsewhere\n");
	ck_assert_int_eq(tpd_catalog_remove(catalog, h.id, &err), TPD_OK);
	ck_assert(!tpd_catalog_has(catalog, h.id));
	ck_assert_int_eq(tpd_catalog_remove(catalog, h.id, &err), TPD_NOT_FOUND);
	e = (struct expected){ &h, 0 };
	ck_assert_int_eq(tpd_catalog_files(catalog, h.id, check_file, &e, &err), TPD_NOT_FOUND);
	ck_assert_int_eq(tpd_catalog_tensors(catalog, h.id, check_tensor, &e, &err), TPD_NOT_FOUND);
	tpd_catalog_close(catalog);
	help_shell_says(
		"SELECT (SELECT count(*) FROM runs) + (SELECT count(*) FROM checkpoints) + (SELECT count(*) FROM refs) "
		"+ (SELECT count(*) FROM files) + (SELECT count(*) FROM tensors) + (SELECT count(*) FROM sparsity)",
		"0\n");
}
END_TEST

START_TEST(what_cannot_be_put)
{
	struct tpd_catalog *catalog = help_open_catalog(tpd_io_posix(), TPD_CATALOG_WRITE);
	struct help_checkpoint h, other;
	struct tpd_err err;

	help_make(&h, "run", 1, 20, 1, 0);
	ck_assert_int_eq(tpd_catalog_put(catalog, &h.c, &err), TPD_OK);
	help_make(&other, "run", 2, 20, 1, 0); /* another id under the same name */
	ck_assert_int_eq(tpd_catalog_put(catalog, &other.c, &err), TPD_CONFLICT);
	ck_assert_ptr_eq(strstr(err.text, "run@20~1: catalog "), err.text);
	other.c.version = 2;
	other.c.id = "abc";
	ck_assert_int_eq(tpd_catalog_put(catalog, &other.c, &err), TPD_USAGE);
	other.c.id = other.id;
	other.tensors[4].size = (uint64_t)INT64_MAX + 1; /* found out when half of it is in */
	ck_assert_int_eq(tpd_catalog_put(catalog, &other.c, &err), TPD_LIMIT);
	check_text(&err, "catalog ", " cannot hold a number beyond 2^63");
	other.tensors[4].size = 1;
	other.tensors[4].file = 3; /* there is no such file */
	ck_assert_int_eq(tpd_catalog_put(catalog, &other.c, &err), TPD_CONFLICT);
	other.tensors[4].file = 2;
	check_all(catalog, &h);
	other.c.step = INT64_MAX;
	ck_assert_int_eq(tpd_catalog_put(catalog, &other.c, &err), TPD_OK);
	tpd_catalog_close(catalog);
	catalog = help_open_catalog(tpd_io_posix(), TPD_CATALOG_READ);
	ck_assert_int_eq(tpd_catalog_put(catalog, &other.c, &err), TPD_USAGE);
	check_text(&err, "cannot write catalog ", ": it was opened for reading");
	tpd_catalog_close(catalog);
}
END_TEST

/* Two ids that share the 63 bits from which the number of a checkpoint is made. */
START_TEST(numbers_that_collide)
{
	struct tpd_catalog *catalog = help_open_catalog(tpd_io_posix(), TPD_CATALOG_WRITE);
	struct help_checkpoint a, b;

	help_make(&a, "run-a", 1, 20, 1, 0);
	help_make(&b, "run-b", 2, 20, 1, 0);
	memset(a.id, 'f', 64);
	memset(b.id, 'f', 64);
	b.id[63] = '0';
	ck_assert_int_eq(tpd_catalog_put(catalog, &a.c, NULL), TPD_OK);
	ck_assert_int_eq(tpd_catalog_put(catalog, &b.c, NULL), TPD_OK);
	check_all(catalog, &a);
	check_all(catalog, &b);
	help_shell_says("SELECT checkpoint, run FROM checkpoints ORDER BY run", "9223372036854775807|run-a\n0|run-b\n");
	tpd_catalog_close(catalog);
}
END_TEST

START_TEST(what_is_not_finite)
{
	struct tpd_catalog *catalog = help_open_catalog(tpd_io_posix(), TPD_CATALOG_WRITE);
	struct help_checkpoint h;

	help_make(&h, "run", 1, 20, 1, 10);
	h.tensors[1].stats.value_rms = (double)INFINITY;
	h.tensors[1].stats.delta_rms = (double)NAN;
	h.tensors[2].stats.pairs = 0;
	ck_assert_int_eq(tpd_catalog_put(catalog, &h.c, NULL), TPD_OK);
	tpd_catalog_close(catalog);
	help_shell_says("SELECT value_rms, delta_rms IS NULL FROM sparsity WHERE segment = 1;"
			"SELECT count(*), count(sparsity) FROM sparsity_history",
			"Inf|1\n50|25\n");
}
END_TEST

/* --- transactions --- */

static uint64_t checkpoints_in(struct tpd_catalog *catalog)
{
	struct tpd_catalog_totals totals;

	ck_assert_int_eq(tpd_catalog_totals(catalog, &totals, NULL), TPD_OK);
	return totals.checkpoints;
}

START_TEST(transactions)
{
	struct tpd_catalog *catalog = help_open_catalog(tpd_io_posix(), TPD_CATALOG_WRITE);
	struct tpd_catalog *reader = help_open_catalog(tpd_io_posix(), TPD_CATALOG_READ);
	struct help_checkpoint bad;
	struct tpd_err err;
	int64_t number;
	bool is_new;

	help_put(catalog, "run", 1, 10, 1, 0);
	ck_assert_int_eq(tpd_catalog_job_add(catalog, "run", "/p", 1, "f", 5, &number, &is_new, &err), TPD_OK);
	tpd_catalog_rollback(catalog); /* of nothing */
	ck_assert_int_eq(tpd_catalog_begin(catalog, &err), TPD_OK);
	ck_assert_int_eq(tpd_catalog_clear(catalog, &err), TPD_OK);
	help_put(catalog, "run", 1, 20, 1, 0);
	help_make(&bad, "run", 1, 25, 1, 0);
	bad.tensors[4].size = UINT64_MAX;
	ck_assert_int_eq(tpd_catalog_put(catalog, &bad.c, &err), TPD_LIMIT); /* undoes itself alone */
	help_put(catalog, "run", 1, 30, 1, 20);
	ck_assert_uint_eq(checkpoints_in(catalog), 2);
	ck_assert_uint_eq(checkpoints_in(reader), 1);
	tpd_catalog_rollback(catalog);
	ck_assert_uint_eq(checkpoints_in(catalog), 1);
	ck_assert_int_eq(tpd_catalog_begin(catalog, &err), TPD_OK);
	ck_assert_int_eq(tpd_catalog_clear(catalog, &err), TPD_OK);
	ck_assert_int_eq(tpd_catalog_commit(catalog, &err), TPD_OK);
	ck_assert_uint_eq(checkpoints_in(reader), 0);
	tpd_catalog_close(catalog);
	tpd_catalog_close(reader);
	help_shell_says("SELECT count(*) FROM jobs; SELECT count(*) FROM sparsity", "1\n0\n");
}
END_TEST

/* --- views --- */

START_TEST(layers_and_kinds)
{
	static const struct {
		const char *name;
		int64_t layer; /* -1: none */
		const char *kind;
	} cases[] = {
		{ "model.layers.3.mlp.up_proj.weight", 3, "model.layers.mlp.up_proj.weight" },
		{ "h.11.attn.c_attn.weight", 11, "h.attn.c_attn.weight" },
		{ "0.weight", 0, "weight" },
		{ "encoder.layer.007", 7, "encoder.layer" },
		{ "transformer/block_12/kernel", 12, "transformer/block/kernel" },
		{ "layer3.weight", 3, "layer.weight" },
		{ "experts.1.w2", 1, "experts.w2" },
		{ "lm_head.weight", -1, "lm_head.weight" },
		{ "", -1, "" },
		{ "5", 5, "" },
		{ "data/12", -1, "data/12" },
		{ "data/12/x", 12, "data/x" },
		{ "data/", -1, "data/" },
		{ "x.99999999999999999999999999.y", -1, "x.99999999999999999999999999.y" },
		{ "x.9223372036854775808", -1, "x.9223372036854775808" },
		{ "x.9223372036854775807", INT64_MAX, "x" },
	};

	for (size_t i = 0; i < TPD_ARRAY_LEN(cases); i++) {
		char kind[64];
		int64_t layer = -1;

		ck_assert_msg(tpd_catalog_layer(cases[i].name, &layer, kind) == (cases[i].layer >= 0), "%s",
			      cases[i].name);
		ck_assert_int_eq(layer, cases[i].layer);
		ck_assert_str_eq(kind, cases[i].kind);
	}
}
END_TEST

START_TEST(views)
{
	struct tpd_catalog *catalog = help_open_catalog(tpd_io_posix(), TPD_CATALOG_WRITE);

	help_put(catalog, "a", 1, 10, 1, 0);
	help_put(catalog, "a", 1, 20, 1, 10);
	help_put(catalog, "a", 1, 20, 2, 15); /* of something that is not there */
	help_put(catalog, "b", 2, 5, 1, 0);
	tpd_catalog_close(catalog);
	help_shell_says(
		"SELECT run, step, version, depth, kind, substr(reference, 1, 16), size, stored, ratio FROM chain",
		"a|10|1|0|keyframe||12298|5120|2.402\n"
		"a|20|1|1|delta|a@10~1|12308|5120|2.404\n"
		"a|20|2|1|delta|9e3779b100000f01|12308|5120|2.404\n"
		"b|5|1|0|keyframe||12293|5120|2.401\n");
	help_shell_says("SELECT * FROM savings",
			"a|3|10|20|1|36914|15360|21554|58.4|2.403\nb|1|5|5|0|12293|5120|7173|58.4|2.401\n");
	/* 997 + 20 pairs; raw 1e-4 is 200 + 20 of them, ulps 2 40 + 20. The head's seed is 40. */
	help_shell_says("SELECT * FROM sparsity_history WHERE version = 1 AND (threshold = 1e-4 OR threshold = 2)",
			"a|20|3|model.layers.mlp.up_proj.weight|model.layers.3.mlp.up_proj.weight|0.0001|raw|"
			"0.216322517207473|1|model.safetensors\n"
			"a|20||lm_head.weight|lm_head.weight|0.0001|raw|0.231436837029894|1|model.safetensors\n"
			"a|20|3|model.layers.mlp.up_proj.weight|model.layers.3.mlp.up_proj.weight|0.0001|min-max|"
			"0.117994100294985|1|model.safetensors\n"
			"a|20||lm_head.weight|lm_head.weight|0.0001|min-max|0.135004821600771|1|model.safetensors\n"
			"a|20|3|model.layers.mlp.up_proj.weight|model.layers.3.mlp.up_proj.weight|2.0|log|"
			"0.0589970501474926|1|model.safetensors\n"
			"a|20||lm_head.weight|lm_head.weight|2.0|log|0.077145612343298|1|model.safetensors\n");
	/* Every column of every branch: 2 checkpoints x 2 tensors x 25, and each share is its own count. */
	help_shell_says("SELECT normalisation, count(*), count(DISTINCT threshold), min(threshold), max(threshold), "
			"round(sum(sparsity * pairs)) FROM sparsity_history AS h JOIN tensor_statistics AS s "
			"USING (run, step, version, tensor) WHERE version = 1 GROUP BY normalisation",
			"log|34|17|1.0|65536.0|7140.0\nmin-max|8|4|1.0e-05|0.01|1240.0\nraw|8|4|1.0e-05|0.01|2240.0\n");
	help_shell_says(
		"SELECT threshold, round(sparsity * 1017) FROM sparsity_history WHERE layer = 3 AND version = 1 "
		"AND normalisation = 'log' AND threshold IN (1, 4, 1024, 65536) ORDER BY threshold",
		"1.0|40.0\n4.0|80.0\n1024.0|240.0\n65536.0|360.0\n");
}
END_TEST

/* A query for one threshold must not read the other 24 branches, each a scan of everything. */
START_TEST(one_threshold_is_one_branch)
{
	struct tpd_catalog *catalog = help_open_catalog(tpd_io_posix(), TPD_CATALOG_WRITE);
	char *all, *one;
	int all_steps, one_steps;

	for (uint64_t step = 2; step < 60; step++)
		help_put(catalog, "a", 1, step, 1, 1);
	tpd_catalog_close(catalog);
	all = help_shell(".stats vmstep\" \"SELECT count(*) FROM sparsity_history");
	one = help_shell(".stats vmstep\" \"SELECT avg(sparsity) FROM sparsity_history "
			 "WHERE normalisation = 'raw' AND threshold = 1e-3");
	ck_assert_ptr_nonnull(strstr(all, "VM-steps: "));
	ck_assert_ptr_nonnull(strstr(one, "VM-steps: "));
	all_steps = atoi(strstr(all, "VM-steps: ") + 10);
	one_steps = atoi(strstr(one, "VM-steps: ") + 10);
	ck_assert_int_gt(one_steps, 0);
	ck_assert_int_lt(one_steps * 10, all_steps);
	free(all);
	free(one);
}
END_TEST

static enum tpd_status check_stats(void *arg, const struct tpd_catalog_step_stats *row, TPD_UNUSED struct tpd_err *err)
{
	int *n = arg;

	++*n;
	ck_assert(row->step == 20 && row->version == 1 && row->w1_step == 10 && row->tensors == 2);
	ck_assert_uint_eq(row->pairs, 997 + 20 + 997 + 40);
	ck_assert_uint_eq(row->zeros, 10 + 20 + 10 + 40);
	ck_assert(row->nan == 2 && row->inf == 4 && row->gap_count == 100 && row->size == 6000 && row->stored == 984);
	for (unsigned i = 0; i < TPD_SPARSITY_REAL; i++)
		ck_assert(row->raw[i] == 200 * (i + 1) + 60 && row->minmax[i] == 100 * (i + 1) + 60);
	for (unsigned i = 0; i < TPD_SPARSITY_ULPS; i++)
		ck_assert_uint_eq(row->ulps[i], 40 * (i + 1) + 60);
	/* delta_rms was 0.0625 in the one and 0.25 in the other */
	ck_assert_double_eq_tol(row->delta_rms, sqrt((0.0625 * 0.0625 * 1017 + 0.25 * 0.25 * 1037) / 2054), 1e-12);
	ck_assert_double_eq_tol(row->value_rms, 0.5, 1e-12);
	ck_assert_double_eq_tol(row->gap_elias_bits, 9.5, 1e-12);
	ck_assert_double_eq_tol(row->gap_rice_bits, 7.25, 1e-12);
	ck_assert_double_eq_tol(row->gap_entropy, 6.75, 1e-12);
	return TPD_OK;
}

static enum tpd_status check_run(void *arg, const struct tpd_catalog_run_row *row, TPD_UNUSED struct tpd_err *err)
{
	int *n = arg;

	ck_assert_str_eq(row->run, *n == 0 ? "a" : "b");
	ck_assert_uint_eq(row->checkpoints, *n == 0 ? 2 : 1);
	ck_assert(row->first_step == (*n == 0 ? 10 : 5) && row->last_step == (*n == 0 ? 20 : 5));
	ck_assert_uint_eq(row->size, *n == 0 ? 24606 : 12293);
	ck_assert_uint_eq(row->stored, *n == 0 ? 10240 : 5120);
	ck_assert_uint_eq(row->max_depth, *n == 0);
	ck_assert_int_eq(row->last_created_ns, 1700000000000000000 + (*n == 0 ? 20 : 5));
	++*n;
	return TPD_OK;
}

START_TEST(sums)
{
	struct tpd_catalog *catalog = help_open_catalog(tpd_io_posix(), TPD_CATALOG_WRITE);
	struct tpd_catalog_totals totals;
	struct help_checkpoint h;
	int n = 0;

	help_put(catalog, "a", 1, 10, 1, 0); /* no delta: no row */
	help_make(&h, "a", 1, 20, 1, 10);
	h.tensors[2].stats.delta_rms = 0.25;
	ck_assert_int_eq(tpd_catalog_put(catalog, &h.c, NULL), TPD_OK);
	help_put(catalog, "b", 2, 5, 1, 0);
	ck_assert_int_eq(tpd_catalog_stats(catalog, "a", check_stats, &n, NULL), TPD_OK);
	ck_assert_int_eq(n, 1);
	n = 0;
	ck_assert_int_eq(tpd_catalog_runs(catalog, check_run, &n, NULL), TPD_OK);
	ck_assert_int_eq(n, 2);
	ck_assert_int_eq(tpd_catalog_totals(catalog, &totals, NULL), TPD_OK);
	ck_assert(totals.runs == 2 && totals.checkpoints == 3 && totals.size == 36899 && totals.stored == 15360);
	tpd_catalog_close(catalog);
}
END_TEST

static enum tpd_status stop_at_second(void *arg, TPD_UNUSED const struct tpd_catalog_row *row, struct tpd_err *err)
{
	int *n = arg;

	return ++*n == 2 ? tpd_fail(err, TPD_CANCELLED, "enough") : TPD_OK;
}

struct nested {
	struct tpd_catalog *catalog;
	int outer, inner;
};

static enum tpd_status count_inner(void *arg, TPD_UNUSED const struct tpd_catalog_row *row,
				   TPD_UNUSED struct tpd_err *err)
{
	((struct nested *)arg)->inner++;
	return TPD_OK;
}

static enum tpd_status list_again(void *arg, TPD_UNUSED const struct tpd_catalog_row *row, struct tpd_err *err)
{
	struct nested *nested = arg;

	nested->outer++;
	return tpd_catalog_list(nested->catalog, "a", count_inner, nested, err);
}

START_TEST(callbacks_may_stop_and_ask)
{
	struct tpd_catalog *catalog = help_open_catalog(tpd_io_posix(), TPD_CATALOG_WRITE);
	struct nested nested = { catalog, 0, 0 };
	struct tpd_err err;
	int n = 0;

	for (uint64_t step = 1; step < 5; step++)
		help_put(catalog, "a", 1, step, 1, 0);
	ck_assert_int_eq(tpd_catalog_list(catalog, NULL, stop_at_second, &n, &err), TPD_CANCELLED);
	ck_assert_str_eq(err.text, "enough");
	ck_assert_int_eq(n, 2);
	ck_assert_int_eq(tpd_catalog_list(catalog, NULL, list_again, &nested, &err), TPD_OK);
	ck_assert(nested.outer == 4 && nested.inner == 16);
	help_put(catalog, "a", 1, 9, 1, 0); /* no lock was left behind */
	tpd_catalog_close(catalog);
}
END_TEST

START_TEST(the_order_does_not_show)
{
	static const unsigned orders[][6] = { { 1, 2, 3, 4, 5, 6 }, { 6, 3, 1, 5, 2, 4 }, { 4, 5, 6, 1, 2, 3 } };
	char *dumps[TPD_ARRAY_LEN(orders)];

	for (size_t o = 0; o < TPD_ARRAY_LEN(orders); o++) {
		struct tpd_catalog *catalog = help_open_catalog(tpd_io_posix(), TPD_CATALOG_WRITE);
		struct tpd_catalog_checkpoint gone;
		struct help_checkpoint h;

		for (size_t i = 0; i < 6; i++) {
			unsigned k = orders[o][i];

			help_put(catalog, k % 2 ? "odd" : "even", k % 2, k * 10, 1, k > 2 ? (k - 2) * 10 : 0);
			if (k == 3 && o > 0) { /* something came and went */
				help_make(&h, "gone", 9, 1, 1, 0);
				gone = h.c;
				ck_assert_int_eq(tpd_catalog_put(catalog, &gone, NULL), TPD_OK);
			}
		}
		if (o > 0)
			ck_assert_int_eq(tpd_catalog_remove(catalog, h.id, NULL), TPD_OK);
		if (o == 2) { /* rebuilt in place */
			ck_assert_int_eq(tpd_catalog_begin(catalog, NULL), TPD_OK);
			ck_assert_int_eq(tpd_catalog_clear(catalog, NULL), TPD_OK);
			for (unsigned k = 6; k > 0; k--)
				help_put(catalog, k % 2 ? "odd" : "even", k % 2, k * 10, 1, k > 2 ? (k - 2) * 10 : 0);
			ck_assert_int_eq(tpd_catalog_commit(catalog, NULL), TPD_OK);
		}
		tpd_catalog_close(catalog);
		dumps[o] = help_shell(".dump");
		ck_assert_ptr_nonnull(strstr(dumps[o], "INSERT INTO sparsity VALUES"));
		ck_assert_int_eq(unlink(help_path), 0);
	}
	for (size_t o = 1; o < TPD_ARRAY_LEN(orders); o++) {
		size_t at = 0, line = 0;

		for (; dumps[o][at] && dumps[o][at] == dumps[0][at]; at++)
			line = dumps[o][at] == '\n' ? at + 1 : line;
		ck_assert_msg(dumps[o][at] == dumps[0][at], "%.200s\nis not\n%.200s", dumps[o] + line, dumps[0] + line);
		free(dumps[o]);
	}
	free(dumps[0]);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("catalog");
	TCase *tcase = tcase_create("all");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_checked_fixture(tcase, help_set_up, help_tear_down);
	tcase_add_test(tcase, opening);
	tcase_add_test(tcase, a_newer_version_is_left_alone);
	tcase_add_test(tcase, older_versions_are_brought_up);
	tcase_add_test(tcase, metrics_of_checkpoints);
	tcase_add_test(tcase, what_is_no_catalog);
	tcase_add_test(tcase, wal_mode_is_told);
	tcase_add_test(tcase, where_it_cannot_be);
	tcase_add_test(tcase, a_name_is_no_uri);
	tcase_add_test(tcase, damage_is_told);
	tcase_add_test(tcase, what_is_put_comes_back);
	tcase_add_test(tcase, what_cannot_be_put);
	tcase_add_test(tcase, numbers_that_collide);
	tcase_add_test(tcase, what_is_not_finite);
	tcase_add_test(tcase, transactions);
	tcase_add_test(tcase, layers_and_kinds);
	tcase_add_test(tcase, views);
	tcase_add_test(tcase, one_threshold_is_one_branch);
	tcase_add_test(tcase, sums);
	tcase_add_test(tcase, callbacks_may_stop_and_ask);
	tcase_add_test(tcase, the_order_does_not_show);
	tcase_set_timeout(tcase, 60);
	suite_add_tcase(suite, tcase);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
