/*
 * catalog.c - opening the file: creation, versions, settings.
 *
 * The version lies in PRAGMA user_version, the mark that it is ours in PRAGMA application_id; both are part of the
 * transaction that makes the tables, so a crash leaves an empty file or a catalog, nothing between.  An older
 * version is brought up step by step in one transaction, a newer one is left alone.
 *
 * Settings: rollback journal, not WAL, which needs a shared-memory file that a reader without the right to write
 * cannot make, and does not work on network file systems.  A reader opens the file for writing where it may, to
 * be able to roll back what a dead writer left; query_only keeps its statements from changing anything.
 */
#include "base/tpd.h"

#include "catalog/catalog.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "catalog/sql.h"
#include "schema_sql.h"

#define APPLICATION_ID 0x74706463 /* "tpdc" */
#define TEXT_OF(x) #x
#define TEXT_OF_VALUE(x) TEXT_OF(x)

/* As in schema.sql, to the byte: sqlite keeps the text. */
static const char version_2[] =
	"CREATE TABLE metrics (\n"
	"\t-- What a checkpoint's trainer told of it: eval_loss and the like.\n"
	"\tcheckpoint INTEGER NOT NULL REFERENCES checkpoints (checkpoint) ON DELETE CASCADE,\n"
	"\tmetric TEXT NOT NULL,\n"
	"\tvalue REAL NOT NULL,\n"
	"\tPRIMARY KEY (checkpoint, metric)\n"
	") STRICT, WITHOUT ROWID;\n"
	"\n"
	"CREATE VIEW metric_history AS\n"
	"\t-- The table metrics with the names of the checkpoints.\n"
	"\tSELECT c.run, c.step, c.version, m.metric, m.value\n"
	"\tFROM checkpoints AS c\n"
	"\tJOIN metrics AS m ON m.checkpoint = c.checkpoint\n"
	"\tORDER BY c.run, m.metric, c.step, c.version;\n";

static const char version_3[] =
	"ALTER TABLE jobs RENAME TO jobs_2;\n"
	"DROP INDEX jobs_by_state;\n"
	"CREATE TABLE jobs (\n"
	"\t-- The daemon's queue. A job is one state of one path, for one run: the same path with the same fingerprint is no new job.\n"
	"\tnumber INTEGER NOT NULL PRIMARY KEY,\n"
	"\trun TEXT NOT NULL,\n"
	"\tpath TEXT NOT NULL,\n"
	"\tstep INTEGER NOT NULL CHECK (step >= 0),\n"
	"\tfingerprint TEXT NOT NULL, -- of the names, sizes and times of what was captured\n"
	"\tstate TEXT NOT NULL CHECK (state IN ('queued', 'running', 'done', 'failed', 'missed')),\n"
	"\tattempts INTEGER NOT NULL, -- times it was started\n"
	"\tqueued_ns INTEGER NOT NULL,\n"
	"\tchanged_ns INTEGER NOT NULL,\n"
	"\tmessage TEXT, -- the last error\n"
	"\tcheckpoint TEXT, -- the id, when done\n"
	"\tUNIQUE (path, fingerprint, run)\n"
	") STRICT;\n"
	"CREATE INDEX jobs_by_state ON jobs (state);\n"
	"INSERT INTO jobs SELECT * FROM jobs_2;\n"
	"DROP TABLE jobs_2;\n";

/* steps[v] makes version v + 1 of version v.  Version 0 is the empty file, which schema.sql makes the newest. */
static const char *const steps[] = {
	NULL,
	version_2,
	version_3,
};
_Static_assert(TPD_ARRAY_LEN(steps) == TPD_CATALOG_VERSION, "one step for each version");

static const char settings[] = "PRAGMA temp_store = MEMORY;"
			       "PRAGMA trusted_schema = OFF;"
			       "PRAGMA cell_size_check = ON;"
			       "PRAGMA foreign_keys = ON;";

/* These read the file. */
static const char file_settings[] = "PRAGMA journal_mode = DELETE;"
				    "PRAGMA synchronous = FULL;";

struct mark {
	int64_t application, version, objects;
};

static enum tpd_status read_mark(struct tpd_catalog *catalog, struct mark *out, struct tpd_err *err)
{
	struct tpd_sql q;
	struct mark mark = {0};
	enum tpd_status status;

	tpd_sql_prepare(catalog, &q,
			"SELECT a.application_id, v.user_version, (SELECT count(*) FROM sqlite_schema) "
			"FROM pragma_application_id AS a, pragma_user_version AS v");
	if (tpd_sql_row(&q)) {
		mark.application = tpd_sql_get_i64(&q);
		mark.version = tpd_sql_get_i64(&q);
		mark.objects = tpd_sql_get_i64(&q);
	}
	status = tpd_sql_end(&q, err);
	if (status == TPD_OK)
		*out = mark;
	return status;
}

static bool is_empty(const struct mark *mark)
{
	return mark->application == 0 && mark->version == 0 && mark->objects == 0;
}

static enum tpd_status check_mark(struct tpd_catalog *catalog, const struct mark *mark, struct tpd_err *err)
{
	if (mark->application != APPLICATION_ID || mark->version < 1)
		return tpd_fail(err, TPD_CORRUPT, "'%s' is a database, but not a catalog", catalog->path);
	if (mark->version > TPD_CATALOG_VERSION)
		return tpd_fail(err, TPD_UNSUPPORTED,
				"catalog '%s' has version %lld; this tpded knows %d: move it away, and "
				"'tpdectl rebuild-catalog' makes a new one",
				catalog->path, (long long)mark->version, TPD_CATALOG_VERSION);
	return TPD_OK;
}

/* Inside a transaction, with the marks read again: somebody may have been faster. */
static enum tpd_status bring_up(struct tpd_catalog *catalog, struct tpd_err *err)
{
	struct mark mark;
	enum tpd_status status = read_mark(catalog, &mark, err);

	if (status != TPD_OK)
		return status;
	if (is_empty(&mark)) {
		status = tpd_sql_exec(catalog, tpd_schema_sql, true, err);
	} else {
		status = check_mark(catalog, &mark, err);
		for (int64_t v = mark.version; status == TPD_OK && v < TPD_CATALOG_VERSION; v++)
			status = tpd_sql_exec(catalog, steps[v], true, err);
	}
	if (status == TPD_OK)
		status = tpd_sql_exec(catalog,
				      "PRAGMA application_id = " TEXT_OF_VALUE(
					      APPLICATION_ID) ";"
							      "PRAGMA user_version = " TEXT_OF_VALUE(
								      TPD_CATALOG_VERSION),
				      true, err);
	return status;
}

static enum tpd_status check_version(struct tpd_catalog *catalog, struct tpd_err *err)
{
	struct mark mark;
	enum tpd_status status = read_mark(catalog, &mark, err);
	bool nested;

	if (status != TPD_OK)
		return status;
	if (catalog->read_only && is_empty(&mark))
		return tpd_fail(err, TPD_NOT_FOUND, "catalog '%s' is empty", catalog->path);
	if (!is_empty(&mark)) {
		status = check_mark(catalog, &mark, err);
		if (status != TPD_OK || mark.version == TPD_CATALOG_VERSION)
			return status;
	}
	if (catalog->read_only)
		return tpd_fail(err, TPD_UNSUPPORTED,
				"catalog '%s' has the old version %lld; any command that writes brings it up",
				catalog->path, (long long)mark.version);
	status = tpd_sql_enter(catalog, &nested, err);
	if (status == TPD_OK)
		status = tpd_sql_leave(catalog, nested, bring_up(catalog, err), err);
	return status;
}

/* Bytes 18 and 19 of a database's header are 2 for WAL, which sqlite can only call "unable to open" without it. */
static bool is_wal(const struct tpd_io *io, const char *path)
{
	uint8_t format[2] = {0};
	int fd = io->open(io, AT_FDCWD, path, O_RDONLY, 0);
	ssize_t n;

	if (fd < 0)
		return false;
	n = io->pread(io, fd, format, sizeof format, 18);
	io->close(io, fd);
	return n == (ssize_t)sizeof format && format[0] == 2 && format[1] == 2;
}

/* sqlite3_open_v2() takes "file:..." for a URI where it was built to. */
static char *plain_path(const char *path)
{
	char *plain;

	return asprintf(&plain, "%s%s", path[0] == '/' ? "" : "./", path) < 0 ? NULL : plain;
}

static enum tpd_status open_file(const struct tpd_io *io, struct tpd_catalog *catalog, int64_t timeout_ms,
				 struct tpd_err *err)
{
	TPD_AUTO_FREE char *path = plain_path(catalog->path);
	/* Private to one thread, hence without sqlite's mutexes. */
	int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, rc;
	enum tpd_status status;

	if (!path)
		return tpd_fail_nomem(err);
	status = tpd_vfs_new(io, catalog->read_only, &catalog->vfs, err);
	if (status != TPD_OK)
		return status;
	if (!catalog->read_only)
		flags |= SQLITE_OPEN_CREATE;
	rc = sqlite3_open_v2(path, &catalog->db, flags, tpd_vfs_name(catalog->vfs));
	if (rc != SQLITE_OK) {
		int sys = tpd_vfs_sys(catalog->vfs);

		if ((rc & 0xff) != SQLITE_CANTOPEN || sys == 0)
			return tpd_sql_fail(catalog, rc, false, err);
		if (sys == ENOENT && catalog->read_only)
			return tpd_fail(err, TPD_NOT_FOUND, "there is no catalog '%s'", catalog->path);
		return tpd_fail_sys(err, sys, "cannot open catalog '%s'", catalog->path);
	}
	sqlite3_extended_result_codes(catalog->db, 1);
	sqlite3_busy_timeout(catalog->db, timeout_ms < 0 || timeout_ms > INT_MAX ? INT_MAX : (int)timeout_ms);
	sqlite3_db_config(catalog->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
	status = tpd_sql_exec(catalog, settings, false, err);
	if (status == TPD_OK)
		status = check_version(catalog, err);
	if (status == TPD_IO && is_wal(io, catalog->path))
		return tpd_fail(
			err, TPD_UNSUPPORTED,
			"catalog '%s' was put into WAL mode; 'PRAGMA journal_mode = DELETE' in the sqlite3 shell "
			"undoes it",
			catalog->path);
	if (status == TPD_OK)
		status = tpd_sql_exec(catalog, file_settings, false, err);
	if (status == TPD_OK && catalog->read_only)
		status = tpd_sql_exec(catalog, "PRAGMA query_only = ON", false, err);
	return status;
}

enum tpd_status tpd_catalog_open(const struct tpd_io *io, const char *path, enum tpd_catalog_mode mode,
				 int64_t timeout_ms, struct tpd_catalog **out_catalog, struct tpd_err *err)
{
	struct tpd_catalog *catalog = calloc(1, sizeof *catalog);
	enum tpd_status status;

	if (!catalog)
		return tpd_fail_nomem(err);
	catalog->read_only = mode == TPD_CATALOG_READ;
	catalog->path = strdup(path);
	status = catalog->path ? open_file(io, catalog, timeout_ms, err) : tpd_fail_nomem(err);
	if (status != TPD_OK) {
		tpd_catalog_close(catalog);
		return status;
	}
	*out_catalog = catalog;
	return TPD_OK;
}

enum tpd_status tpd_catalog_check(struct tpd_catalog *catalog, struct tpd_err *err)
{
	struct tpd_sql q;
	char verdict[256] = "";
	enum tpd_status status;

	tpd_sql_prepare(catalog, &q, "PRAGMA integrity_check(1)");
	if (tpd_sql_row(&q)) {
		const char *text = tpd_sql_get_text(&q);

		snprintf(verdict, sizeof(verdict), "%s", text ? text : "");
	}
	status = tpd_sql_end(&q, err);
	if (status == TPD_OK && strcmp(verdict, "ok") != 0)
		status = tpd_fail(err, TPD_CORRUPT, "catalog '%s' is damaged: %s", catalog->path, verdict);
	return status;
}

void tpd_catalog_close(struct tpd_catalog *catalog)
{
	int rc;

	if (!catalog)
		return;
	for (size_t i = 0; i < catalog->cached; i++)
		sqlite3_finalize(catalog->cache[i].stmt);
	rc = sqlite3_close(catalog->db); /* rolls back what is open */
	assert(rc == SQLITE_OK);
	(void)rc;
	tpd_vfs_free(catalog->vfs);
	free(catalog->path);
	free(catalog);
}
