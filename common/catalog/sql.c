/*
 * sql.c - statements, transactions, and what sqlite's errors mean to people.
 *
 * The problem: with sqlite's own calls each bound value and each column is a line with a number and a result to
 * check, and a put has some eighty of them.  The approach: a cursor that counts, keeps the first failure and
 * tells it at the end.  Statements stay prepared in the handle, found by the address of their text; one that is
 * in use (a callback asked the same again) is prepared a second time and thrown away after.
 *
 * Errors: sqlite says which step failed ("disk I/O error"), the VFS remembers why ("No space left on device"),
 * and only the latter helps.
 */
#include "base/tpd.h"

#include "catalog/sql.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <sqlite3.h>

/* A sentence for what the system refused. */
static enum tpd_status fail_system(struct tpd_catalog *catalog, int rc, bool write, struct tpd_err *err)
{
	const char *verb = write ? "write" : "read";
	int sys = tpd_vfs_sys(catalog->vfs);

	if (rc == SQLITE_READONLY_ROLLBACK || rc == SQLITE_READONLY_CANTLOCK)
		return tpd_fail(
			err, TPD_IO,
			"cannot read catalog '%s': a writer died in the middle of a change, and to undo it needs "
			"the right to write there",
			catalog->path);
	if (rc == SQLITE_READONLY_DBMOVED)
		return tpd_fail(err, TPD_IO, "cannot write catalog '%s': the file was removed or replaced meanwhile",
				catalog->path);
	if ((rc & 0xff) == SQLITE_READONLY && catalog->read_only)
		return tpd_fail(err, TPD_USAGE, "cannot write catalog '%s': it was opened for reading", catalog->path);
	if (sys == 0)
		sys = (rc & 0xff) == SQLITE_FULL ? ENOSPC : (rc & 0xff) == SQLITE_READONLY ? EROFS : EIO;
	return tpd_fail_sys(err, sys, "cannot %s catalog '%s'", verb, catalog->path);
}

enum tpd_status tpd_sql_fail(struct tpd_catalog *catalog, int rc, bool write, struct tpd_err *err)
{
	const char *text = catalog->db ? sqlite3_errmsg(catalog->db) : sqlite3_errstr(rc);

	if (rc == SQLITE_IOERR_NOMEM)
		return tpd_fail_nomem(err);
	switch (rc & 0xff) {
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return tpd_fail(err, TPD_BUSY, "catalog '%s' is locked by somebody else", catalog->path);
	case SQLITE_NOTADB:
		return tpd_fail(err, TPD_CORRUPT, "'%s' is not a catalog: %s", catalog->path, text);
	case SQLITE_NOMEM:
		return tpd_fail_nomem(err);
	case SQLITE_TOOBIG:
		return tpd_fail(err, TPD_LIMIT, "catalog '%s': %s", catalog->path, text);
	case SQLITE_CONSTRAINT:
		return tpd_fail(err, TPD_CONFLICT, "catalog '%s': %s", catalog->path, text);
	case SQLITE_INTERRUPT:
	case SQLITE_ABORT: /* a callback rolled back what its query was reading */
		return tpd_fail(err, TPD_CANCELLED, "catalog '%s': %s", catalog->path, text);
	case SQLITE_FULL:
	case SQLITE_READONLY:
	case SQLITE_CANTOPEN:
	case SQLITE_PERM:
	case SQLITE_IOERR:
		return fail_system(catalog, rc, write, err);
	default: /* our SQL is fixed: what it does not fit is a damaged or foreign database */
		return tpd_fail(err, TPD_CORRUPT, "catalog '%s' is damaged: %s; 'tpdectl rebuild-catalog' makes it again", catalog->path, text);
	}
}

/* --- statements --- */

/* The kept statement of this text, or a new one; SQLITE_OK. */
static int find_statement(struct tpd_catalog *catalog, struct tpd_sql *q, const char *sql)
{
	size_t i;
	int rc;

	for (i = 0; i < catalog->cached; i++)
		if (catalog->cache[i].sql == sql)
			break;
	if (i < catalog->cached && !catalog->cache[i].busy) {
		q->stmt = catalog->cache[i].stmt;
		q->busy = &catalog->cache[i].busy;
		*q->busy = true;
		return SQLITE_OK;
	}
	rc = sqlite3_prepare_v3(catalog->db, sql, -1, SQLITE_PREPARE_PERSISTENT, &q->stmt, NULL);
	if (rc == SQLITE_OK && i == catalog->cached && i < TPD_SQL_CACHE) {
		catalog->cache[i].sql = sql;
		catalog->cache[i].stmt = q->stmt;
		q->busy = &catalog->cache[i].busy;
		*q->busy = true;
		catalog->cached++;
	}
	return rc;
}

void tpd_sql_prepare(struct tpd_catalog *catalog, struct tpd_sql *q, const char *sql)
{
	*q = (struct tpd_sql){.catalog = catalog};
	tpd_vfs_forget(catalog->vfs);
	q->rc = find_statement(catalog, q, sql);
	q->write = q->rc == SQLITE_OK && !sqlite3_stmt_readonly(q->stmt);
}

/* After a bind: which parameter comes next, and did it work? */
static void bound(struct tpd_sql *q, int rc)
{
	assert(rc != SQLITE_RANGE && rc != SQLITE_MISUSE);
	if (rc != SQLITE_OK)
		q->rc = rc;
}

void tpd_sql_put_null(struct tpd_sql *q)
{
	if (q->rc == SQLITE_OK)
		bound(q, sqlite3_bind_null(q->stmt, ++q->next_put));
}

void tpd_sql_put_text(struct tpd_sql *q, const char *s)
{
	if (q->rc == SQLITE_OK)
		bound(q, sqlite3_bind_text(q->stmt, ++q->next_put, s, -1, SQLITE_STATIC));
}

void tpd_sql_put_i64(struct tpd_sql *q, int64_t v)
{
	if (q->rc == SQLITE_OK)
		bound(q, sqlite3_bind_int64(q->stmt, ++q->next_put, v));
}

void tpd_sql_put_u64(struct tpd_sql *q, uint64_t v)
{
	if (v > INT64_MAX && q->rc == SQLITE_OK) {
		q->too_large = true;
		q->rc = SQLITE_TOOBIG;
	}
	tpd_sql_put_i64(q, (int64_t)(v & INT64_MAX));
}

void tpd_sql_put_f64(struct tpd_sql *q, double v)
{
	if (q->rc == SQLITE_OK)
		bound(q, sqlite3_bind_double(q->stmt, ++q->next_put, v));
}

bool tpd_sql_row(struct tpd_sql *q)
{
	int rc;

	if (q->rc != SQLITE_OK)
		return false;
	assert(q->next_put == sqlite3_bind_parameter_count(q->stmt));
	rc = sqlite3_step(q->stmt);
	q->next_get = 0;
	if (rc != SQLITE_ROW)
		q->rc = rc;
	return rc == SQLITE_ROW;
}

const char *tpd_sql_get_text(struct tpd_sql *q)
{
	return (const char *)sqlite3_column_text(q->stmt, q->next_get++);
}

int64_t tpd_sql_get_i64(struct tpd_sql *q)
{
	return sqlite3_column_int64(q->stmt, q->next_get++);
}

uint64_t tpd_sql_get_u64(struct tpd_sql *q)
{
	return (uint64_t)tpd_sql_get_i64(q);
}

double tpd_sql_get_f64(struct tpd_sql *q)
{
	if (!tpd_sql_is_null(q))
		return sqlite3_column_double(q->stmt, q->next_get++);
	q->next_get++;
	return (double)NAN;
}

bool tpd_sql_is_null(struct tpd_sql *q)
{
	return sqlite3_column_type(q->stmt, q->next_get) == SQLITE_NULL;
}

void tpd_sql_again(struct tpd_sql *q)
{
	while (tpd_sql_row(q))
		;
	if (q->rc != SQLITE_DONE)
		return;
	sqlite3_reset(q->stmt);
	q->rc = SQLITE_OK;
	q->next_put = 0;
}

static void give_back(struct tpd_sql *q)
{
	if (!q->busy) {
		sqlite3_finalize(q->stmt);
		return;
	}
	sqlite3_reset(q->stmt);
	sqlite3_clear_bindings(q->stmt);
	*q->busy = false;
}

enum tpd_status tpd_sql_end(struct tpd_sql *q, struct tpd_err *err)
{
	enum tpd_status status = TPD_OK;

	if (q->rc == SQLITE_OK && q->next_put == sqlite3_bind_parameter_count(q->stmt))
		while (tpd_sql_row(q))
			;
	if (q->too_large)
		status = tpd_fail(err, TPD_LIMIT, "catalog '%s' cannot hold a number beyond 2^63", q->catalog->path);
	else if (q->rc != SQLITE_OK && q->rc != SQLITE_DONE)
		status = tpd_sql_fail(q->catalog, q->rc, q->write, err);
	give_back(q);
	return status;
}

enum tpd_status tpd_sql_stop(struct tpd_sql *q, enum tpd_status status, struct tpd_err *err)
{
	if (status == TPD_OK)
		return tpd_sql_end(q, err);
	give_back(q);
	return status;
}

enum tpd_status tpd_sql_exec(struct tpd_catalog *catalog, const char *sql, bool write, struct tpd_err *err)
{
	int rc;

	tpd_vfs_forget(catalog->vfs);
	rc = sqlite3_exec(catalog->db, sql, NULL, NULL, NULL);
	return rc == SQLITE_OK ? TPD_OK : tpd_sql_fail(catalog, rc, write, err);
}

enum tpd_status tpd_sql_number(struct tpd_catalog *catalog, const char *sql, int64_t *out_v, struct tpd_err *err)
{
	struct tpd_sql q;
	enum tpd_status status;
	int64_t v = 0;

	tpd_sql_prepare(catalog, &q, sql);
	if (tpd_sql_row(&q))
		v = tpd_sql_get_i64(&q);
	status = tpd_sql_end(&q, err);
	if (status == TPD_OK)
		*out_v = v;
	return status;
}

/* --- transactions --- */

static enum tpd_status fail_lost(struct tpd_catalog *catalog, struct tpd_err *err)
{
	return tpd_fail(err, TPD_IO, "cannot write catalog '%s': an earlier failure undid the transaction",
			catalog->path);
}

enum tpd_status tpd_sql_enter(struct tpd_catalog *catalog, bool *out_nested, struct tpd_err *err)
{
	bool nested = !sqlite3_get_autocommit(catalog->db);
	enum tpd_status status;

	if (catalog->transaction && !nested)
		return fail_lost(catalog, err);
	/* IMMEDIATE: waiting for other writers is possible here and nowhere later, where it would be a deadlock. */
	status = tpd_sql_exec(catalog, nested ? "SAVEPOINT tpd" : "BEGIN IMMEDIATE", true, err);
	if (status == TPD_OK)
		*out_nested = nested;
	return status;
}

enum tpd_status tpd_sql_leave(struct tpd_catalog *catalog, bool nested, enum tpd_status status, struct tpd_err *err)
{
	if (status == TPD_OK)
		status = tpd_sql_exec(catalog, nested ? "RELEASE tpd" : "COMMIT", true, err);
	/* A full disk and the like make sqlite roll back everything by itself. */
	if (status != TPD_OK && !sqlite3_get_autocommit(catalog->db))
		sqlite3_exec(catalog->db, nested ? "ROLLBACK TO tpd; RELEASE tpd" : "ROLLBACK", NULL, NULL, NULL);
	return status;
}

enum tpd_status tpd_catalog_begin(struct tpd_catalog *catalog, struct tpd_err *err)
{
	enum tpd_status status;
	bool nested;

	assert(!catalog->transaction);
	status = tpd_sql_enter(catalog, &nested, err);
	if (status == TPD_OK)
		catalog->transaction = true;
	return status;
}

enum tpd_status tpd_catalog_commit(struct tpd_catalog *catalog, struct tpd_err *err)
{
	assert(catalog->transaction);
	catalog->transaction = false;
	if (sqlite3_get_autocommit(catalog->db))
		return fail_lost(catalog, err);
	return tpd_sql_leave(catalog, false, TPD_OK, err);
}

void tpd_catalog_rollback(struct tpd_catalog *catalog)
{
	catalog->transaction = false;
	if (!sqlite3_get_autocommit(catalog->db))
		sqlite3_exec(catalog->db, "ROLLBACK", NULL, NULL, NULL);
}
