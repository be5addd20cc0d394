/*
 * archive.h - store and catalog together: what the daemon and the command do.
 *
 *     struct tpd_archive *archive;
 *     tpd_archive_open(&(struct tpd_archive_options){ .store = path, .mode = TPD_ARCHIVE_WRITE, ... }, &archive, &err);
 *     tpd_archive_ingest / restore / verify / rebuild ...
 *     tpd_archive_close(archive);
 *
 * Store first, catalog second: opening for writing puts into the catalog what a crash left out.  A handle may be used by several
 * threads, except that tpd_archive_catalog() is for the thread that opened it.  Names of checkpoints are
 * RUN@STEP, RUN@STEP~VERSION, RUN@latest, RUN@best:METRIC (less or more of it, as tpd_metric_is_lower_better() has it),
 * RUN@min:METRIC, RUN@max:METRIC, or an id prefix of at least 8 hex digits.
 */
#ifndef TPD_ARCHIVE_ARCHIVE_H
#define TPD_ARCHIVE_ARCHIVE_H

#include "archive/capture.h"
#include "base/pool.h"
#include "base/tpd.h"
#include "catalog/catalog.h"
#include "store/ingest.h"
#include "store/restore.h"
#include "store/store.h"

enum tpd_archive_mode {
	TPD_ARCHIVE_READ = 0,  /* store read-only; the catalog read-only, or none at all (tpd_archive_catalog gives NULL) */
	TPD_ARCHIVE_WRITE = 1, /* a missing catalog is made again; a damaged one too, it is kept beside as *.damaged */
	TPD_ARCHIVE_CREATE = 2 /* WRITE, and a missing store is made */
};

struct tpd_archive_options {
	const struct tpd_io *io; /* NULL: the operating system's */
	const char *store;     /* directory */
	const char *catalog;   /* file, or NULL: STORE/catalog.sqlite */
	enum tpd_archive_mode mode;
	int64_t lock_timeout_ms; /* -1: wait for ever */
	unsigned threads;      /* of the pool; 0: one a CPU */
	uint32_t max_depth;    /* for ingest; TPD_DEFAULT_MAX_DEPTH unless configured */
	uint64_t part_size;    /* 0: default */
	enum tpd_effort effort; /* likewise, and what weights may be decoded from */
	enum tpd_depend depend;
	bool skip_remnants;    /* as ingest.h has it: for who stores whatever lies there, not for who was told what to store */
	uint64_t tip_cache;    /* keep a raw copy of a run's newest checkpoint up to this many bytes; 0: none */
};

struct tpd_archive;

enum tpd_status tpd_archive_open(const struct tpd_archive_options *options, struct tpd_archive **out_archive,
				 struct tpd_err *err);
void tpd_archive_close(struct tpd_archive *archive);
struct tpd_store *tpd_archive_store(struct tpd_archive *archive);
struct tpd_catalog *tpd_archive_catalog(struct tpd_archive *archive);
/*
 * What was wrong with the catalog's file when it was opened last, a sentence for people; its status is TPD_OK: nothing.
 * After a READ opening that file is left alone and not used, otherwise it is kept under the name that the sentence gives.
 */
const struct tpd_err *tpd_archive_catalog_fault(const struct tpd_archive *archive);
/* Is the catalog's file another one than when it was opened, or gone? */
bool tpd_archive_catalog_lost(const struct tpd_archive *archive);
/*
 * Open the catalog anew, and put in what it lacks: after its file was removed, replaced or damaged under a handle that lives on (a
 * damaged one is kept as *.damaged). For the thread that opened the archive. On failure the old handle stays.
 */
enum tpd_status tpd_archive_reopen_catalog(struct tpd_archive *archive, struct tpd_err *err);

/* "RUN@STEP~N" and its relatives to an id; TPD_NOT_FOUND with a sentence that says what there is; from the store's refs alone. */
struct tpd_archive_name {
	char run[256];
	uint64_t step;
	uint32_t version;
	struct tpd_id id;
};
enum tpd_status tpd_archive_resolve(struct tpd_archive *archive, const char *name, struct tpd_archive_name *out,
				    struct tpd_err *err);
/*
 * Every version that NAME covers: all of a run (RUN) and of the runs below it (RUN/...), all versions of a step...
 * NULL: everything. Sorted by run, step, version.
 * The caller frees the array.
 */
enum tpd_status tpd_archive_select(struct tpd_archive *archive, const char *name_or_null, struct tpd_archive_name **out,
				   size_t *out_count, struct tpd_err *err);

/*
 * Can the refs be read of every run that NAME covers (NULL: of all)? tpd_archive_select() leaves out those below NAME
 * that cannot. The status of the first one, with a sentence that names it.
 */
enum tpd_status tpd_archive_check_runs(struct tpd_archive *archive, const char *name_or_null, struct tpd_err *err);
/*
 * Is any checkpoint in the store that no run names (of the run NAME and those below it; NULL: of any)? Of refs that were lost, or lost
 * their end, nothing else tells: all that they still say is true. TPD_CORRUPT with a sentence that says so, and *out_unnamed how many.
 */
enum tpd_status tpd_archive_check_names(struct tpd_archive *archive, const char *name_or_null, uint64_t *out_unnamed,
					struct tpd_err *err);

/*
 * Store a capture as RUN@step and record it. Uses a run lock of its own and, in any thread, a catalog handle of its
 * own. What is in the store is stored: when only the catalog fails, the call returns TPD_OK, and *out_unrecorded
 * tells why there is no row yet (its status is TPD_OK when there is one; may be NULL). The next opening for writing
 * puts the row in.
 */
enum tpd_status tpd_archive_ingest(struct tpd_archive *archive, const char *run, uint64_t step,
				   const struct tpd_capture *capture, const struct tpd_progress *progress,
				   struct tpd_ingest_result *out, struct tpd_err *out_unrecorded, struct tpd_err *err);
/*
 * The same. base: what the run's first checkpoint may refer to (nothing else does): NULL or "auto": the checkpoint of another run that is
 * most like it, if one is; "none"; the name of one, where RUN alone is its latest; or the absolute path of a model, which is stored first,
 * as step 0 of the run "models/" and its last part, where it is not yet. One that is not there, or cannot be read, keeps nothing out:
 * out->base_fault says so.
 */
enum tpd_status tpd_archive_ingest_from(struct tpd_archive *archive, const char *base, const char *run, uint64_t step,
					const struct tpd_capture *capture, const struct tpd_progress *progress,
					struct tpd_ingest_result *out, struct tpd_err *out_unrecorded, struct tpd_err *err);
/* As it resolves a base that is no word and no path; a mistake is TPD_USAGE or TPD_NOT_FOUND. */
enum tpd_status tpd_archive_resolve_base(struct tpd_archive *archive, const char *base, struct tpd_archive_name *out, struct tpd_err *err);
/*
 * Remove what an ingest of RUN@step left that did not finish, for good; *out_bytes of files. TPD_NOT_FOUND: nothing
 * is left (what was complete is stored now); TPD_BUSY: somebody is writing to the run for longer than timeout_ms.
 */
enum tpd_status tpd_archive_discard(struct tpd_archive *archive, const char *run, uint64_t step, int64_t timeout_ms,
				    uint64_t *out_bytes, struct tpd_err *err);
enum tpd_status tpd_archive_restore(struct tpd_archive *archive, const struct tpd_id *id, const char *to,
				    const char *const *files /* as in restore.h */, bool force,
				    const struct tpd_progress *progress, struct tpd_err *err);
enum tpd_status tpd_archive_verify(struct tpd_archive *archive, const struct tpd_id *id, const struct tpd_progress *progress,
				   struct tpd_err *err);

/* Files that the run's checkpoint before has, and this one has not; digits in names do not count. */
struct tpd_archive_lacks {
	uint64_t count; /* 0: none, or there is none before */
	char first[256]; /* path of the first, cut where it is longer */
	uint64_t before_step;
};
enum tpd_status tpd_archive_lacks(struct tpd_archive *archive, const struct tpd_id *id, struct tpd_archive_lacks *out, struct tpd_err *err);

struct tpd_archive_rebuilt {
	uint64_t done;     /* checkpoints that are in the catalog now */
	uint64_t failed;   /* checkpoints, and runs, that could not be read */
	uint64_t repaired; /* runs whose refs were damaged or gone, and are whole again */
	uint64_t lost;     /* those of them that were gone, or empty: nothing is kept of these */
	uint64_t recalled; /* checkpoints whose metrics were lost, and are read again from their files */
	uint64_t unrecalled; /* those that had none on record, and whose files cannot be read */
	struct tpd_err recall_fault; /* of the first of these, with its name */
};
/*
 * Make the catalog again from the store alone (jobs and events stay unless the file is damaged; it is kept as
 * *.damaged then). Before that, damaged refs are repaired (the damaged file is kept in STORE/refs-damaged/), lost ones made again:
 * checkpoints that no run names are named again, as their manifests say, and those that have no metrics on record are asked for
 * them as when they came. What cannot be read is left out and counted,
 * but rows of a run whose refs stay unreadable are kept; the call then returns the first such status after it has
 * done all it could. *out holds as soon as that was begun.
 */
enum tpd_status tpd_archive_rebuild(struct tpd_archive *archive, const struct tpd_progress *progress,
				    struct tpd_archive_rebuilt *out, struct tpd_err *err);
/*
 * Is the checkpoint with this id, once stored for this run, in the store no more, though nobody asked to forget it? So what the catalog
 * remembers as done must be done again (the store was lost or put back to an older state, the catalog was not).
 */
bool tpd_archive_lost(struct tpd_archive *archive, const char *run, const char *id_hex);

#endif
