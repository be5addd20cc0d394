/*
 * catalog.h - the sqlite file: what is stored, its statistics, the daemon's jobs and events.
 *
 * The only place of SQL in the project.  Everything but jobs and events can be made again from the store
 * (archive/rebuild).  Rollback journal, synchronous=FULL, busy timeout; all file access through struct tpd_io by a
 * VFS of our own (vfs.c) whose OFD locks agree with those of the sqlite3 shell.  A handle belongs to one thread at a time.
 *
 * Ids are text in the database: 64 lower-case hex digits.
 */
#ifndef TPD_CATALOG_CATALOG_H
#define TPD_CATALOG_CATALOG_H

#include "base/io.h"
#include "base/metrics.h"
#include "base/sparsity.h"
#include "base/tpd.h"

#define TPD_CATALOG_VERSION 3 /* PRAGMA user_version */

struct tpd_catalog;

enum tpd_catalog_mode { TPD_CATALOG_READ = 0, TPD_CATALOG_WRITE = 1 /* made and migrated when needed */ };

/*
 * READ: TPD_NOT_FOUND when absent. A newer user_version: TPD_UNSUPPORTED. Not a database: TPD_CORRUPT. A lock held longer than
 * timeout_ms: TPD_BUSY, here and in every call.
 */
enum tpd_status tpd_catalog_open(const struct tpd_io *io, const char *path, enum tpd_catalog_mode mode, int64_t timeout_ms,
				 struct tpd_catalog **out_catalog, struct tpd_err *err);
void tpd_catalog_close(struct tpd_catalog *catalog);
/* Reads all of it: TPD_CORRUPT when sqlite finds it damaged. Takes a second for each 100 MB or so. */
enum tpd_status tpd_catalog_check(struct tpd_catalog *catalog, struct tpd_err *err);

/* --- what is stored --- */

struct tpd_catalog_tensor {
	const char *name; /* "" for the bytes between tensors */
	uint32_t file, segment; /* index of its file in `files` (all entries), and its place in that file */
	const char *dtype, *encoding;
	const char *shape; /* "[256,688]", or NULL: unknown */
	uint64_t size, stored; /* bytes */
	bool has_stats;
	struct tpd_sparsity stats;
};

struct tpd_catalog_file {
	const char *path;
	const char *type;   /* "file" "symlink" "dir" */
	const char *format; /* "safetensors" ...; NULL for others than files */
	const char *target; /* of a symlink, else NULL */
	uint32_t mode;
	int64_t mtime_ns;
	uint64_t size, stored;
	const char *sha256; /* hex; NULL for others than files */
};

struct tpd_catalog_checkpoint {
	const char *id, *run, *kind /* "dir" "file" */, *source;
	uint64_t step;
	uint32_t version;
	int64_t created_ns;
	uint64_t size, stored; /* bytes of the files; bytes of the objects on disk, manifest included */
	uint32_t depth;
	const char *ref_id; /* NULL: keyframe */
	const char *w1_id;  /* statistics' w1, or NULL */
	uint64_t w1_step;
	const struct tpd_catalog_file *files;
	size_t file_count;
	const struct tpd_catalog_tensor *tensors;
	size_t tensor_count;
	const struct tpd_metrics *metrics; /* NULL: none */
};

/* Insert, or replace what has this id. One transaction. */
enum tpd_status tpd_catalog_put(struct tpd_catalog *catalog, const struct tpd_catalog_checkpoint *checkpoint,
				struct tpd_err *err);
enum tpd_status tpd_catalog_remove(struct tpd_catalog *catalog, const char *id, struct tpd_err *err);
/* What it has of a checkpoint becomes this; nothing is written where it is already. TPD_NOT_FOUND: no such checkpoint. */
enum tpd_status tpd_catalog_set_metrics(struct tpd_catalog *catalog, const char *id, const struct tpd_metrics *metrics,
					struct tpd_err *err);
/*
 * Remove all runs, checkpoints, files, tensors, references, metrics and statistics, keep jobs and events: before a
 * rebuild, in its transaction.
 */
enum tpd_status tpd_catalog_begin(struct tpd_catalog *catalog, struct tpd_err *err);
enum tpd_status tpd_catalog_commit(struct tpd_catalog *catalog, struct tpd_err *err);
void tpd_catalog_rollback(struct tpd_catalog *catalog); /* no transaction: nothing happens */
enum tpd_status tpd_catalog_clear(struct tpd_catalog *catalog, struct tpd_err *err);
bool tpd_catalog_has(struct tpd_catalog *catalog, const char *id);

/* --- queries: rows come through a callback; strings live until it returns --- */

struct tpd_catalog_row {
	const char *id, *run, *kind, *ref_id, *w1_id, *source;
	uint64_t step, size, stored;
	uint32_t version, depth, files, tensors;
	int64_t created_ns;
};
typedef enum tpd_status (*tpd_catalog_row_fn)(void *arg, const struct tpd_catalog_row *row, struct tpd_err *err);

/* run NULL: all. By run, step, version. */
enum tpd_status tpd_catalog_list(struct tpd_catalog *catalog, const char *run, tpd_catalog_row_fn fn, void *arg,
				 struct tpd_err *err);

struct tpd_catalog_run_row {
	const char *run;
	uint64_t checkpoints, first_step, last_step, size, stored;
	uint32_t max_depth;
	int64_t last_created_ns;
};
enum tpd_status tpd_catalog_runs(struct tpd_catalog *catalog,
				 enum tpd_status (*fn)(void *arg, const struct tpd_catalog_run_row *row, struct tpd_err *err),
				 void *arg, struct tpd_err *err);

/* Files and tensors of one checkpoint, in order. */
enum tpd_status tpd_catalog_files(struct tpd_catalog *catalog, const char *id,
				  enum tpd_status (*fn)(void *arg, const struct tpd_catalog_file *file, struct tpd_err *err),
				  void *arg, struct tpd_err *err);
enum tpd_status tpd_catalog_tensors(struct tpd_catalog *catalog, const char *id,
				    enum tpd_status (*fn)(void *arg, const struct tpd_catalog_tensor *tensor,
							  struct tpd_err *err),
				    void *arg, struct tpd_err *err);

/* Sparsity of a run by step, summed over the tensors that have a delta: for `tpdectl stats`. */
struct tpd_catalog_step_stats {
	uint64_t step, w1_step, tensors, pairs, zeros, nan, inf;
	uint32_t version;
	uint64_t raw[TPD_SPARSITY_REAL], minmax[TPD_SPARSITY_REAL], ulps[TPD_SPARSITY_ULPS];
	double delta_rms, value_rms;
	double gap_elias_bits, gap_rice_bits, gap_entropy; /* means over all gaps */
	uint64_t gap_count, size, stored;
};
enum tpd_status tpd_catalog_stats(struct tpd_catalog *catalog, const char *run,
				  enum tpd_status (*fn)(void *arg, const struct tpd_catalog_step_stats *row,
							struct tpd_err *err),
				  void *arg, struct tpd_err *err);

/* Sum over everything. */
struct tpd_catalog_totals {
	uint64_t runs, checkpoints, size, stored, jobs_queued, jobs_running, jobs_failed;
};
enum tpd_status tpd_catalog_totals(struct tpd_catalog *catalog, struct tpd_catalog_totals *out, struct tpd_err *err);

/* --- the daemon's queue --- */

enum tpd_job_state { TPD_JOB_QUEUED = 0, TPD_JOB_RUNNING = 1, TPD_JOB_DONE = 2, TPD_JOB_FAILED = 3, TPD_JOB_MISSED = 4 };
const char *tpd_job_state_name(enum tpd_job_state state);

struct tpd_job {
	int64_t number;
	const char *run, *path;
	uint64_t step;
	const char *fingerprint; /* names, sizes and mtimes of what was captured: the same again is the same job; "": FAILED before that */
	enum tpd_job_state state;
	uint32_t attempts;
	int64_t queued_ns, changed_ns;
	const char *message; /* last error, or NULL */
	const char *checkpoint; /* id when done, or NULL */
};

/* Add, unless a job of the same run, path and fingerprint is there (then its number, *out_new = false). */
enum tpd_status tpd_catalog_job_add(struct tpd_catalog *catalog, const char *run, const char *path, uint64_t step,
				    const char *fingerprint, int64_t now_ns, int64_t *out_number, bool *out_new,
				    struct tpd_err *err);
enum tpd_status tpd_catalog_job_set(struct tpd_catalog *catalog, int64_t number, enum tpd_job_state state, int64_t now_ns,
				    const char *checkpoint, const char *message, struct tpd_err *err);
/* Jobs in any of the states given as bits (1u << state), by run and step; state RUNNING found at start becomes QUEUED by recover. */
enum tpd_status tpd_catalog_jobs(struct tpd_catalog *catalog, unsigned states,
				 enum tpd_status (*fn)(void *arg, const struct tpd_job *job, struct tpd_err *err), void *arg,
				 struct tpd_err *err);
enum tpd_status tpd_catalog_jobs_recover(struct tpd_catalog *catalog, int64_t now_ns, uint64_t *out_count,
					 struct tpd_err *err);
/* What failed of this path in another state than `fingerprint`, or under another run than `run` (NULL: in and under any), is not there any more: it becomes MISSED. */
enum tpd_status tpd_catalog_jobs_supersede(struct tpd_catalog *catalog, const char *run, const char *path, const char *fingerprint,
					   int64_t now_ns, struct tpd_err *err);
/* The job with this run, path and fingerprint: its state, and the checkpoint's id in hex ("" for none); TPD_NOT_FOUND. */
#define TPD_CATALOG_ID 65
enum tpd_status tpd_catalog_job_find(struct tpd_catalog *catalog, const char *run, const char *path, const char *fingerprint,
				     enum tpd_job_state *out_state, char out_checkpoint[TPD_CATALOG_ID],
				     struct tpd_err *err);

/* --- events: what happened, for people --- */

/* level: "info" "warning" "error". Old ones beyond 10000 are dropped. */
enum tpd_status tpd_catalog_event(struct tpd_catalog *catalog, int64_t now_ns, const char *level, const char *run,
				  const char *text, struct tpd_err *err);
enum tpd_status tpd_catalog_events(struct tpd_catalog *catalog, unsigned last,
				   enum tpd_status (*fn)(void *arg, int64_t time_ns, const char *level, const char *run,
							 const char *text, struct tpd_err *err),
				   void *arg, struct tpd_err *err);

#endif
