/*
 * jobs.c - the daemon's queue, and what it tells people.
 *
 * A job is found by run, path and fingerprint for as long as the catalog lives: that is how a scan knows that what lies
 * there was stored already, under that name.  So jobs are never deleted, and their numbers, counted up, never used twice.
 */
#include "base/tpd.h"

#include "catalog/catalog.h"

#include <stdio.h>
#include <string.h>

#include "catalog/sql.h"

static const char *const states[] = {
	[TPD_JOB_QUEUED] = "queued", [TPD_JOB_RUNNING] = "running", [TPD_JOB_DONE] = "done",
	[TPD_JOB_FAILED] = "failed", [TPD_JOB_MISSED] = "missed",
};

const char *tpd_job_state_name(enum tpd_job_state state)
{
	return (size_t)state < TPD_ARRAY_LEN(states) ? states[state] : "unknown";
}

static enum tpd_job_state state_of(const char *name)
{
	for (size_t i = 0; i < TPD_ARRAY_LEN(states); i++)
		if (name && strcmp(name, states[i]) == 0)
			return (enum tpd_job_state)i;
	return TPD_JOB_FAILED; /* the table's CHECK lets no other word in */
}

/* TPD_NOT_FOUND without a message when there is none: the usual case. */
static enum tpd_status find_job(struct tpd_catalog *catalog, const char *run, const char *path, const char *fingerprint,
				int64_t *out_number, enum tpd_job_state *out_state, char out_checkpoint[TPD_CATALOG_ID],
				struct tpd_err *err)
{
	struct tpd_sql q;
	enum tpd_status status;
	enum tpd_job_state state = TPD_JOB_QUEUED;
	char checkpoint[TPD_CATALOG_ID] = "";
	const char *text;
	int64_t number = 0;
	bool found;

	tpd_sql_prepare(catalog, &q, "SELECT number, state, checkpoint FROM jobs WHERE path = ? AND fingerprint = ? AND run = ?");
	tpd_sql_put_text(&q, path);
	tpd_sql_put_text(&q, fingerprint);
	tpd_sql_put_text(&q, run);
	found = tpd_sql_row(&q);
	if (found) {
		number = tpd_sql_get_i64(&q);
		state = state_of(tpd_sql_get_text(&q));
		text = tpd_sql_get_text(&q);
		if (text)
			snprintf(checkpoint, sizeof(checkpoint), "%s", text);
	}
	status = tpd_sql_end(&q, err);
	if (status != TPD_OK)
		return status;
	if (!found)
		return TPD_NOT_FOUND;
	*out_number = number;
	*out_state = state;
	memcpy(out_checkpoint, checkpoint, sizeof(checkpoint));
	return TPD_OK;
}

static enum tpd_status insert_job(struct tpd_catalog *catalog, const char *run, const char *path, uint64_t step,
				  const char *fingerprint, int64_t now_ns, int64_t *out_number, struct tpd_err *err)
{
	struct tpd_sql q;
	int64_t number = 0;
	enum tpd_status status;

	tpd_sql_prepare(catalog, &q,
			"INSERT INTO jobs (run, path, step, fingerprint, state, attempts, queued_ns, changed_ns) "
			"VALUES (?,?,?,?,'queued',0,?,?) RETURNING number");
	tpd_sql_put_text(&q, run);
	tpd_sql_put_text(&q, path);
	tpd_sql_put_u64(&q, step);
	tpd_sql_put_text(&q, fingerprint);
	tpd_sql_put_i64(&q, now_ns);
	tpd_sql_put_i64(&q, now_ns);
	if (tpd_sql_row(&q))
		number = tpd_sql_get_i64(&q);
	status = tpd_sql_end(&q, err);
	if (status == TPD_OK)
		*out_number = number;
	return status;
}

enum tpd_status tpd_catalog_job_add(struct tpd_catalog *catalog, const char *run, const char *path, uint64_t step,
				    const char *fingerprint, int64_t now_ns, int64_t *out_number, bool *out_new,
				    struct tpd_err *err)
{
	char checkpoint[TPD_CATALOG_ID];
	enum tpd_job_state state;
	enum tpd_status status;
	int64_t number;
	bool nested, is_new;

	/* A scan asks this of everything it sees: first without a write lock. */
	status = find_job(catalog, run, path, fingerprint, &number, &state, checkpoint, err);
	is_new = status == TPD_NOT_FOUND;
	if (is_new) {
		status = tpd_sql_enter(catalog, &nested, err);
		if (status != TPD_OK)
			return status;
		status = find_job(catalog, run, path, fingerprint, &number, &state, checkpoint, err);
		is_new = status == TPD_NOT_FOUND;
		if (is_new)
			status = insert_job(catalog, run, path, step, fingerprint, now_ns, &number, err);
		status = tpd_sql_leave(catalog, nested, status, err);
	}
	if (status != TPD_OK)
		return status;
	*out_number = number;
	*out_new = is_new;
	return TPD_OK;
}

static enum tpd_status set_job(struct tpd_catalog *catalog, int64_t number, enum tpd_job_state state, int64_t now_ns,
			       const char *checkpoint, const char *message, struct tpd_err *err)
{
	struct tpd_sql q;
	enum tpd_status status;
	bool found;

	tpd_sql_prepare(catalog, &q,
			"UPDATE jobs SET state = ?, attempts = attempts + ?, changed_ns = ?, checkpoint = ?, "
			"message = ? WHERE number = ? RETURNING 1");
	tpd_sql_put_text(&q, tpd_job_state_name(state));
	tpd_sql_put_i64(&q, state == TPD_JOB_RUNNING);
	tpd_sql_put_i64(&q, now_ns);
	tpd_sql_put_text(&q, checkpoint);
	tpd_sql_put_text(&q, message);
	tpd_sql_put_i64(&q, number);
	found = tpd_sql_row(&q);
	status = tpd_sql_end(&q, err);
	if (status == TPD_OK && !found)
		status = tpd_fail(err, TPD_NOT_FOUND, "catalog '%s' has no job %lld", catalog->path, (long long)number);
	return status;
}

enum tpd_status tpd_catalog_job_set(struct tpd_catalog *catalog, int64_t number, enum tpd_job_state state,
				    int64_t now_ns, const char *checkpoint, const char *message, struct tpd_err *err)
{
	bool nested;
	enum tpd_status status = tpd_sql_enter(catalog, &nested, err);

	if (status != TPD_OK)
		return status;
	return tpd_sql_leave(catalog, nested, set_job(catalog, number, state, now_ns, checkpoint, message, err), err);
}

enum tpd_status tpd_catalog_jobs(struct tpd_catalog *catalog, unsigned wanted,
				 enum tpd_status (*fn)(void *arg, const struct tpd_job *job, struct tpd_err *err),
				 void *arg, struct tpd_err *err)
{
	enum tpd_status status = TPD_OK;
	struct tpd_sql q;

	/* No index has this order, so the rows are sorted before the first comes: a callback may change jobs. */
	tpd_sql_prepare(catalog, &q,
			"SELECT number, run, path, step, fingerprint, state, attempts, queued_ns, changed_ns, "
			"message, checkpoint FROM jobs WHERE state IN (?,?,?,?,?) ORDER BY +run, step, number");
	for (size_t i = 0; i < TPD_ARRAY_LEN(states); i++)
		tpd_sql_put_text(&q, wanted & 1u << i ? states[i] : NULL);
	while (status == TPD_OK && tpd_sql_row(&q)) {
		struct tpd_job job;

		job.number = tpd_sql_get_i64(&q);
		job.run = tpd_sql_get_text(&q);
		job.path = tpd_sql_get_text(&q);
		job.step = tpd_sql_get_u64(&q);
		job.fingerprint = tpd_sql_get_text(&q);
		job.state = state_of(tpd_sql_get_text(&q));
		job.attempts = (uint32_t)tpd_sql_get_u64(&q);
		job.queued_ns = tpd_sql_get_i64(&q);
		job.changed_ns = tpd_sql_get_i64(&q);
		job.message = tpd_sql_get_text(&q);
		job.checkpoint = tpd_sql_get_text(&q);
		status = fn(arg, &job, err);
	}
	return tpd_sql_stop(&q, status, err);
}

static enum tpd_status recover(struct tpd_catalog *catalog, int64_t now_ns, uint64_t *out_count, struct tpd_err *err)
{
	struct tpd_sql q;

	tpd_sql_prepare(catalog, &q,
			"UPDATE jobs SET state = 'queued', changed_ns = ? WHERE state = 'running' RETURNING 1");
	tpd_sql_put_i64(&q, now_ns);
	while (tpd_sql_row(&q))
		++*out_count;
	return tpd_sql_end(&q, err);
}

enum tpd_status tpd_catalog_jobs_recover(struct tpd_catalog *catalog, int64_t now_ns, uint64_t *out_count,
					 struct tpd_err *err)
{
	uint64_t count = 0;
	bool nested;
	enum tpd_status status = tpd_sql_enter(catalog, &nested, err);

	if (status == TPD_OK)
		status = tpd_sql_leave(catalog, nested, recover(catalog, now_ns, &count, err), err);
	if (status == TPD_OK)
		*out_count = count;
	return status;
}

#define SUPERSEDED " WHERE path = ? AND (fingerprint IS NOT ? OR run IS NOT ?) AND state = 'failed'"

static void put_superseded(struct tpd_sql *q, const char *run, const char *path, const char *fingerprint)
{
	tpd_sql_put_text(q, path);
	tpd_sql_put_text(q, fingerprint);
	tpd_sql_put_text(q, run);
}

static enum tpd_status supersede(struct tpd_catalog *catalog, const char *run, const char *path, const char *fingerprint,
				 int64_t now_ns, struct tpd_err *err)
{
	struct tpd_sql q;

	tpd_sql_prepare(catalog, &q, "UPDATE jobs SET state = 'missed', changed_ns = ?" SUPERSEDED);
	tpd_sql_put_i64(&q, now_ns);
	put_superseded(&q, run, path, fingerprint);
	return tpd_sql_end(&q, err);
}

enum tpd_status tpd_catalog_jobs_supersede(struct tpd_catalog *catalog, const char *run, const char *path, const char *fingerprint,
					   int64_t now_ns, struct tpd_err *err)
{
	struct tpd_sql q;
	enum tpd_status status;
	bool nested, any;

	/* A scan asks this, too, of everything it sees: first without a write lock. */
	tpd_sql_prepare(catalog, &q, "SELECT 1 FROM jobs" SUPERSEDED);
	put_superseded(&q, run, path, fingerprint);
	any = tpd_sql_row(&q);
	status = tpd_sql_end(&q, err);
	if (status != TPD_OK || !any)
		return status;
	status = tpd_sql_enter(catalog, &nested, err);
	if (status != TPD_OK)
		return status;
	return tpd_sql_leave(catalog, nested, supersede(catalog, run, path, fingerprint, now_ns, err), err);
}

enum tpd_status tpd_catalog_job_find(struct tpd_catalog *catalog, const char *run, const char *path, const char *fingerprint,
				     enum tpd_job_state *out_state, char out_checkpoint[TPD_CATALOG_ID],
				     struct tpd_err *err)
{
	int64_t number;
	enum tpd_status status = find_job(catalog, run, path, fingerprint, &number, out_state, out_checkpoint, err);

	if (status == TPD_NOT_FOUND)
		tpd_fail(err, status, "catalog '%s' has no job of run '%s' for this state of '%s'", catalog->path, run, path);
	return status;
}

/* --- events --- */

static enum tpd_status put_event(struct tpd_catalog *catalog, int64_t now_ns, const char *level, const char *run,
				 const char *text, struct tpd_err *err)
{
	struct tpd_sql q;
	enum tpd_status status;

	tpd_sql_prepare(catalog, &q, "INSERT INTO events (time_ns, level, run, text) VALUES (?,?,?,?)");
	tpd_sql_put_i64(&q, now_ns);
	tpd_sql_put_text(&q, level);
	tpd_sql_put_text(&q, run);
	tpd_sql_put_text(&q, text);
	status = tpd_sql_end(&q, err);
	if (status == TPD_OK) {
		tpd_sql_prepare(catalog, &q,
				"DELETE FROM events WHERE number <= (SELECT max(number) FROM events) - 10000");
		status = tpd_sql_end(&q, err);
	}
	return status;
}

enum tpd_status tpd_catalog_event(struct tpd_catalog *catalog, int64_t now_ns, const char *level, const char *run,
				  const char *text, struct tpd_err *err)
{
	bool nested;
	enum tpd_status status = tpd_sql_enter(catalog, &nested, err);

	if (status == TPD_OK)
		status = tpd_sql_leave(catalog, nested, put_event(catalog, now_ns, level, run, text, err), err);
	return status;
}

enum tpd_status tpd_catalog_events(struct tpd_catalog *catalog, unsigned last,
				   enum tpd_status (*fn)(void *arg, int64_t time_ns, const char *level, const char *run,
							 const char *text, struct tpd_err *err),
				   void *arg, struct tpd_err *err)
{
	enum tpd_status status = TPD_OK;
	struct tpd_sql q;

	tpd_sql_prepare(catalog, &q,
			"SELECT time_ns, level, run, text FROM "
			"(SELECT * FROM events ORDER BY number DESC LIMIT ?) ORDER BY number");
	tpd_sql_put_i64(&q, last);
	while (status == TPD_OK && tpd_sql_row(&q)) {
		int64_t time_ns = tpd_sql_get_i64(&q);
		const char *level = tpd_sql_get_text(&q), *run = tpd_sql_get_text(&q), *text = tpd_sql_get_text(&q);

		status = fn(arg, time_ns, level, run, text, err);
	}
	return tpd_sql_stop(&q, status, err);
}
