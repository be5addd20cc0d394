/*
 * sql.h - inside of the catalog: the handle, and statements that are bound and read from left to right.
 *
 *     struct tpd_sql q;
 *     tpd_sql_prepare(catalog, &q, "SELECT run, step FROM checkpoints WHERE id = ?");
 *     tpd_sql_put_text(&q, id);
 *     while (tpd_sql_row(&q)) { run = tpd_sql_get_text(&q); step = tpd_sql_get_u64(&q); ... }
 *     return tpd_sql_end(&q, err);
 *
 * Like the buffers of base/bytes.h, nothing in between can be forgotten: the first failure stays in q, later calls do
 * nothing, and tpd_sql_end() tells it once, also when preparing failed.  tpd_sql_end() must always be called.
 */
#ifndef TPD_CATALOG_SQL_H
#define TPD_CATALOG_SQL_H

#include "base/tpd.h"
#include "catalog/catalog.h"
#include "catalog/vfs.h"

struct sqlite3;
struct sqlite3_stmt;

#define TPD_SQL_CACHE 32

struct tpd_catalog {
	struct sqlite3 *db;
	struct tpd_vfs *vfs;
	char *path; /* as the caller named it, for messages; owned */
	bool read_only;
	bool transaction; /* between tpd_catalog_begin() and its end */
	struct {
		const char *sql; /* compared by address */
		struct sqlite3_stmt *stmt;
		bool busy;
	} cache[TPD_SQL_CACHE];
	size_t cached;
};

struct tpd_sql {
	struct tpd_catalog *catalog;
	struct sqlite3_stmt *stmt;
	int rc; /* the first failure; else SQLITE_OK or, after the last row, SQLITE_DONE */
	int next_put, next_get;
	bool too_large; /* a number beyond 2^63 */
	bool write;
	bool *busy; /* in the cache, or NULL: ours to finalize */
};

/* `sql` must live as long as the catalog: statements are kept by its address. */
void tpd_sql_prepare(struct tpd_catalog *catalog, struct tpd_sql *q, const char *sql);
void tpd_sql_put_null(struct tpd_sql *q);
void tpd_sql_put_text(struct tpd_sql *q, const char *s); /* NULL: null; must live until tpd_sql_end() or _again() */
void tpd_sql_put_i64(struct tpd_sql *q, int64_t v);
void tpd_sql_put_u64(struct tpd_sql *q, uint64_t v); /* above INT64_MAX: TPD_LIMIT at the end */
void tpd_sql_put_f64(struct tpd_sql *q, double v);   /* NaN: null */
bool tpd_sql_row(struct tpd_sql *q);                 /* step; is there a row? */
const char *tpd_sql_get_text(struct tpd_sql *q);     /* NULL: null; until the next step */
int64_t tpd_sql_get_i64(struct tpd_sql *q);
uint64_t tpd_sql_get_u64(struct tpd_sql *q);
double tpd_sql_get_f64(struct tpd_sql *q); /* null: NaN */
bool tpd_sql_is_null(struct tpd_sql *q);   /* of the next column, which it does not consume */
/* Run to the end and make it ready for the next parameters. */
void tpd_sql_again(struct tpd_sql *q);
/* Run to the end what has not been run, and give it back. */
enum tpd_status tpd_sql_end(struct tpd_sql *q, struct tpd_err *err);
/* The same after a callback that said `status`: that one wins, unless it is TPD_OK. Rows that are left are dropped. */
enum tpd_status tpd_sql_stop(struct tpd_sql *q, enum tpd_status status, struct tpd_err *err);

/* Several statements without parameters or results. */
enum tpd_status tpd_sql_exec(struct tpd_catalog *catalog, const char *sql, bool write, struct tpd_err *err);
/* The one number that a statement gives. */
enum tpd_status tpd_sql_number(struct tpd_catalog *catalog, const char *sql, int64_t *out_v, struct tpd_err *err);
/* sqlite's code as a status with a sentence. */
enum tpd_status tpd_sql_fail(struct tpd_catalog *catalog, int rc, bool write, struct tpd_err *err);

/*
 * All or nothing, inside a transaction of the caller's or as one of its own:
 *     status = tpd_sql_enter(catalog, &nested, err);
 *     if (status == TPD_OK)
 *             status = tpd_sql_leave(catalog, nested, work(...), err);
 */
enum tpd_status tpd_sql_enter(struct tpd_catalog *catalog, bool *out_nested, struct tpd_err *err);
enum tpd_status tpd_sql_leave(struct tpd_catalog *catalog, bool nested, enum tpd_status status, struct tpd_err *err);

/*
 * What schema.sql says of tensors.layer and tensors.kind. kind has room for strlen(name) + 1; returns false, and kind
 * is the whole name, when there is no layer.
 */
bool tpd_catalog_layer(const char *name, int64_t *out_layer, char *kind);

#endif
