/*
 * store.h - the store directory: opening, locks, names and objects (FORMAT.md).
 *
 *     struct tpd_store *store;
 *     tpd_store_open(tpd_io_posix(), "/var/lib/tpded", TPD_STORE_CREATE, timeout_ms, &store, &err);
 *     ... tpd_store_close(store);
 *
 * A store handle holds the shared gc lock while it is open; it may be used by several threads.
 */
#ifndef TPD_STORE_STORE_H
#define TPD_STORE_STORE_H

#include "base/io.h"
#include "base/metrics.h"
#include "base/tpd.h"
#include "store/manifest.h"

#define TPD_STORE_VERSION 1

struct tpd_store;

enum tpd_store_flags {
	TPD_STORE_READ = 0,        /* never writes anything, works on a read-only mount (then without the lock) */
	TPD_STORE_WRITE = 1,
	TPD_STORE_CREATE = 1 | 2,  /* make it when the directory is missing, but not its parent, or empty; refuse a non-empty foreign one */
};

/*
 * TPD_NOT_FOUND: no such directory, or not a store; TPD_UNSUPPORTED: another version; TPD_BUSY: gc holds the lock for longer
 * than timeout_ms (-1: wait for ever).
 */
enum tpd_status tpd_store_open(const struct tpd_io *io, const char *path, enum tpd_store_flags flags, int64_t timeout_ms,
			       struct tpd_store **out_store, struct tpd_err *err);
void tpd_store_close(struct tpd_store *store);
const char *tpd_store_path(const struct tpd_store *store);
const struct tpd_io *tpd_store_io(const struct tpd_store *store);
int tpd_store_dir(const struct tpd_store *store); /* descriptor of its root, for io calls */
/* The single daemon's lock; held until close. TPD_BUSY: another daemon serves this store. */
enum tpd_status tpd_store_lock_daemon(struct tpd_store *store, struct tpd_err *err);

/* --- names: refs --- */

struct tpd_version {
	uint64_t step;
	uint32_t version; /* 1 ... */
	struct tpd_id id;
	int64_t time_ns;
	bool forgotten;
};

struct tpd_run {
	char *name;                    /* owned */
	struct tpd_version *versions;  /* in the order of their records; owned */
	size_t count;
	uint64_t valid_bytes;          /* of the refs file; more than that is a torn tail */
};
void tpd_run_release(struct tpd_run *run);

/* Names of all runs, sorted; free each and the array. */
enum tpd_status tpd_store_runs(struct tpd_store *store, char ***out_names, size_t *out_count, struct tpd_err *err);
/* TPD_NOT_FOUND when there is no such run. */
enum tpd_status tpd_store_run_read(struct tpd_store *store, const char *run, struct tpd_run *out, struct tpd_err *err);

/*
 * The run's writer lock. Creates the refs file (with its run record) when needed; cuts a torn tail; names published
 * checkpoints of this run that have no record yet. TPD_BUSY after timeout_ms.
 */
struct tpd_run_lock;
enum tpd_status tpd_store_run_lock(struct tpd_store *store, const char *run, int64_t timeout_ms,
				   struct tpd_run_lock **out_lock, struct tpd_err *err);
/*
 * Damaged refs (TPD_CORRUPT of tpd_store_run_read) become readable again: every valid record is kept, the damaged
 * file is copied to refs-damaged/ first. The next lock gives the others their names. *out_repaired: false when
 * nothing was wrong. TPD_UNSUPPORTED: a record of a later version must be understood; TPD_BUSY after timeout_ms.
 */
enum tpd_status tpd_store_run_repair(struct tpd_store *store, const char *run, int64_t timeout_ms, bool *out_repaired,
				     struct tpd_err *err);
/*
 * Runs for which a crash left something that their lock puts right: a checkpoint without a name, or a directory in
 * ingest/. Sorted; free each and the array. Needs no lock, lists all objects and reads all refs once; what damaged
 * refs named has no name.
 */
enum tpd_status tpd_store_unsettled(struct tpd_store *store, char ***out_names, size_t *out_count, struct tpd_err *err);
/* How many checkpoints no run names; with a name only those that were stored in this run, or in one below it (RUN/...). */
enum tpd_status tpd_store_unnamed(struct tpd_store *store, const char *run_or_null, uint64_t *out_count, struct tpd_err *err);
void tpd_store_run_unlock(struct tpd_run_lock *lock);
struct tpd_store *tpd_run_lock_store(const struct tpd_run_lock *lock); /* the store that it was taken on */
/* Append and fsync. The version number is the highest of that step plus 1. */
enum tpd_status tpd_store_add_version(struct tpd_run_lock *lock, uint64_t step, const struct tpd_id *id, int64_t time_ns,
				      uint32_t *out_version, struct tpd_err *err);

/* --- metrics: refs, too --- */

#define TPD_RUN_METRICS_MAX (1u << 22) /* of one run; what is above is not looked at */

struct tpd_checkpoint_metrics {
	struct tpd_id id;
	struct tpd_metrics metrics;
};

/* What is told of the checkpoints of a run, whether they have a name or not. */
struct tpd_run_metrics {
	struct tpd_checkpoint_metrics *items; /* by id; owned */
	size_t count;
};
/* TPD_NOT_FOUND when there is no such run. */
enum tpd_status tpd_store_metrics(struct tpd_store *store, const char *run, struct tpd_run_metrics *out, struct tpd_err *err);
void tpd_run_metrics_release(struct tpd_run_metrics *metrics);
/* Never NULL: an empty set where nothing is told. */
const struct tpd_metrics *tpd_run_metrics_of(const struct tpd_run_metrics *metrics, const struct tpd_id *id);
/*
 * Append, in one record, and fsync those that are not recorded yet with this value; nothing where all are. For a new
 * checkpoint before tpd_store_publish(): see FORMAT.md.
 */
enum tpd_status tpd_store_add_metrics(struct tpd_run_lock *lock, const struct tpd_id *id, const struct tpd_metrics *metrics,
				      struct tpd_err *err);

/* --- objects --- */

/* Does a checkpoint with this id exist? */
bool tpd_store_has(struct tpd_store *store, const struct tpd_id *id);
/* Does it exist with a valid manifest, and every payload with its digest, and so does all that it refers to? Reads all of that. */
bool tpd_store_sound(struct tpd_store *store, const struct tpd_id *id);
/* Calls fn for the id of every published checkpoint (each once), in no order; stops when fn fails. */
enum tpd_status tpd_store_each(struct tpd_store *store, enum tpd_status (*fn)(void *arg, const struct tpd_id *id,
			       struct tpd_err *err), void *arg, struct tpd_err *err);
/*
 * Its manifest; TPD_NOT_FOUND, or TPD_CORRUPT when it is not what its name says. tpd_store_manifest() leaves out what is only known
 * *about* segments (names, shapes, statistics), which is most of it; the other says how much is kept.
 */
enum tpd_status tpd_store_manifest(struct tpd_store *store, const struct tpd_id *id, struct tpd_manifest *out,
				   struct tpd_err *err);
enum tpd_status tpd_store_manifest_keep(struct tpd_store *store, const struct tpd_id *id, enum tpd_manifest_keep keep,
					struct tpd_manifest *out, struct tpd_err *err);
/* Its directory, for tpd_part_open; close through the io table. */
enum tpd_status tpd_store_object_dir(struct tpd_store *store, const struct tpd_id *id, int *out_dir, struct tpd_err *err);
/* Bytes on disk of manifest and parts. */
enum tpd_status tpd_store_object_bytes(struct tpd_store *store, const struct tpd_id *id, uint64_t *out_bytes,
				       struct tpd_err *err);

/* --- unfinished ingests --- */

struct tpd_begin {
	bool has_ref, has_w1;
	struct tpd_id ref, w1;
	uint64_t part_size;
};

/* Of an escaped run: with "@" and a step it is still a file name. */
#define TPD_STORE_NAME_MAX 234
/* The path of an unfinished checkpoint below the store, "ingest/RUN@STEP"; what failures of its files name. */
#define TPD_INGEST_PATH (TPD_STORE_NAME_MAX + 32) /* "ingest/", '@', a step, and the zero */
void tpd_store_ingest_path(const struct tpd_run_lock *lock, uint64_t step, char out[TPD_INGEST_PATH]);
/*
 * Open (or make) ingest/RUN@STEP. When a valid begin is there *out_begin is what it says and *out_resumed is true; else the
 * directory is emptied and `wanted` is written into begin. The run lock must be held.
 */
enum tpd_status tpd_store_ingest_open(struct tpd_run_lock *lock, uint64_t step, const struct tpd_begin *wanted,
				      struct tpd_begin *out_begin, bool *out_resumed, int *out_dir, struct tpd_err *err);
/* Is there an unfinished ingest of this step, and with which begin? */
enum tpd_status tpd_store_ingest_peek(struct tpd_run_lock *lock, uint64_t step, bool *out_found, struct tpd_begin *out_begin,
				      struct tpd_err *err);
/* Write the manifest, fsync, rename to objects/, fsync; then the version record. The checkpoint exists after this. */
enum tpd_status tpd_store_publish(struct tpd_run_lock *lock, const struct tpd_manifest *m, uint32_t *out_version,
				  struct tpd_err *err);
struct tpd_unfinished {
	char *run; /* owned */
	uint64_t step;
	uint64_t bytes; /* of the files in it */
};
/*
 * What lies in ingest/: checkpoints being written now, or begun and never finished (their source went away). They hold no name and are
 * taken up when the step is stored again. By name; free each run and the array. Needs no lock.
 */
enum tpd_status tpd_store_unfinished(struct tpd_store *store, struct tpd_unfinished **out, size_t *out_count,
				     struct tpd_err *err);
/* Remove ingest/RUN@STEP. */
enum tpd_status tpd_store_ingest_discard(struct tpd_run_lock *lock, uint64_t step, struct tpd_err *err);

#endif
