/*
 * internal.h - what store.c, objects.c, chain_links.c, chain_files.c, refs*.c and ingest_dir.c share.
 */
#ifndef TPD_STORE_INTERNAL_H
#define TPD_STORE_INTERNAL_H

#include <pthread.h>

#include "base/bytes.h"
#include "store/store.h"

#define TPD_STORE_PATH 160      /* "objects/XX/ID.GENERATION" and the like, with its zero */

struct tpd_named {
	struct tpd_id id;
	uint64_t run; /* a digest of the name of the run whose file it was */
};

struct tpd_store {
	const struct tpd_io *io;
	char *path;
	int dir, lock, daemon_lock; /* descriptors; -1: none */
	bool writable;
	pthread_mutex_t named_lock;
	struct tpd_named *named; /* what refs were seen to mention, by id; owned; under named_lock */
	size_t named_count;
};

/* Owned by one thread. */
struct tpd_run_lock {
	struct tpd_store *store;
	char *escaped;     /* the run's name as a file's */
	char path[TPD_STORE_NAME_MAX + 8]; /* refs/ESCAPED */
	int fd;            /* of that file, locked */
	struct tpd_run run; /* what the file says, kept up to date */
	bool dirty;        /* there may be bytes behind valid_bytes */
	bool broken;       /* an fsync failed: nothing more is written through this descriptor */
};

/* --- store.c --- */

/* Put the store's path before what `err` holds; returns `status`. */
enum tpd_status tpd_store_fault(const struct tpd_store *store, enum tpd_status status, struct tpd_err *err);
/* Names in a directory of the store, each with its zero, one behind the other; an absent directory has none. */
enum tpd_status tpd_store_list(const struct tpd_store *store, int dir, const char *path, struct tpd_buf *out_names,
			       struct tpd_err *err);

/* --- objects.c --- */

/* objects/XX, and objects/XX/ID.G */
void tpd_object_shelf(const struct tpd_id *id, char out[TPD_STORE_PATH]);
void tpd_object_path(const struct tpd_id *id, uint32_t generation, char out[TPD_STORE_PATH]);
/* The first generation that no directory has. */
enum tpd_status tpd_object_next_generation(struct tpd_store *store, const struct tpd_id *id, uint32_t *out_generation,
					   struct tpd_err *err);
/* Make the directory entry of a published checkpoint last, also when whoever published it could not any more. */
enum tpd_status tpd_object_sync(struct tpd_store *store, const struct tpd_id *id, struct tpd_err *err);
/* The highest valid generation and its manifest; when none is valid, what is wrong with the highest. */
enum tpd_status tpd_object_load(struct tpd_store *store, const struct tpd_id *id, enum tpd_manifest_keep keep,
				struct tpd_manifest *out, uint32_t *out_generation, struct tpd_err *err);
/* The directory of one generation. */
enum tpd_status tpd_object_open(struct tpd_store *store, const struct tpd_id *id, uint32_t generation, int *out_dir,
				struct tpd_err *err);
/* All ids in objects/, ascending, each once. */
enum tpd_status tpd_object_ids(struct tpd_store *store, struct tpd_id **out_ids, size_t *out_count,
			       struct tpd_err *err);

/* --- refs_read.c --- */

struct tpd_refs {
	struct tpd_run run;
	struct tpd_id *ids; /* every id that a record mentions, in any way; owned */
	size_t id_count;
};

/* One metric of a record, as it stands there. */
struct tpd_refs_metric {
	struct tpd_id id;
	const char *name; /* borrowed from the file's bytes, no final zero */
	uint32_t name_length, order; /* order: of the records */
	double value;
};

struct tpd_refs_metrics {
	struct tpd_refs_metric *items; /* owned */
	size_t count, cap;
};

enum tpd_refs_type { TPD_REFS_RUN = 1, TPD_REFS_VERSION = 2, TPD_REFS_FORGET = 3, TPD_REFS_METRIC = 4 };
#define TPD_REFS_MAX_RECORD 65536u
#define TPD_REFS_MUST_KNOW 128u /* types from here on must be understood */

void tpd_refs_release(struct tpd_refs *refs);
/* TPD_LIMIT: the name is too long for a file. *out_escaped is fresh. */
enum tpd_status tpd_refs_escape(const char *run, char **out_escaped, struct tpd_err *err);
/* The records of refs/ESCAPED. An empty file, or one whose first record is torn, has no records: valid_bytes is 0. */
enum tpd_status tpd_refs_load(struct tpd_store *store, const char *escaped, const char *run, struct tpd_refs *out,
			      struct tpd_err *err);
/*
 * What is readable of a damaged file, in its order: all valid records but run records. Version records behind another
 * run's run record are left out (the manifests know better), forget and metric records never. TPD_UNSUPPORTED: one
 * that must be understood.
 */
enum tpd_status tpd_refs_salvage(const uint8_t *data, size_t len, const char *run, struct tpd_buf *out_records,
				 struct tpd_err *err);
/* All bytes of refs/ESCAPED, which `path` is. */
enum tpd_status tpd_refs_read_file(struct tpd_store *store, const char *path, uint8_t **out_data, size_t *out_len,
				   struct tpd_err *err);
/* File names in refs/ that stand for runs, each with its zero, one behind the other. */
enum tpd_status tpd_refs_files(struct tpd_store *store, struct tpd_buf *out_names, struct tpd_err *err);
char *tpd_refs_unescape(const char *escaped); /* NULL: not an escaped run name, or no memory */

/* The metric records of a file, up to its first bad record: whether that is damage is tpd_refs_load()'s to say. */
enum tpd_status tpd_refs_parse_metrics(const uint8_t *data, size_t len, struct tpd_refs_metrics *out, struct tpd_err *err);

/* --- refs_metrics.c --- */

/* The body of a metric record; collect NULL: it is only looked at. */
enum tpd_status tpd_refs_take_metrics(struct tpd_rd *rd, struct tpd_refs_metrics *collect, struct tpd_err *err);

/* --- refs_name.c --- */

/* This run's file mentions the id: this handle need not look for it again. */
void tpd_refs_remember(struct tpd_store *store, const char *run, const struct tpd_id *id);
/*
 * Ids in objects/ that no refs mention, ascending, fresh. own: the locked run's records, their ids sorted; the files
 * of other runs are read when there are ids that this handle has not seen mentioned. own NULL: all files are read
 * again.
 */
enum tpd_status tpd_refs_unnamed(struct tpd_store *store, const struct tpd_refs *own, struct tpd_id **out_ids,
				 size_t *out_count, struct tpd_err *err);

/* --- refs.c --- */

/* The run's file opened and locked, made when it is absent, and nothing of it read: what tpd_store_run_lock() begins with. */
enum tpd_status tpd_run_lock_take(struct tpd_store *store, const char *run, int64_t timeout_ms,
				  struct tpd_run_lock **out_lock, struct tpd_err *err);
/* A record behind the last valid one of the locked file, fsynced. */
enum tpd_status tpd_refs_append(struct tpd_run_lock *lock, enum tpd_refs_type type, const struct tpd_buf *body, struct tpd_err *err);
/* A whole record, appended to `out`; and the run's, which is the first of every file. */
void tpd_refs_put_record(struct tpd_buf *out, enum tpd_refs_type type, const struct tpd_buf *body);
void tpd_refs_put_run(struct tpd_buf *out, const char *run);

/* --- ingest_dir.c --- */

/* Publish every unfinished checkpoint of this run whose manifest is complete; what is not is left alone. */
enum tpd_status tpd_ingest_dir_finish(struct tpd_run_lock *lock, struct tpd_err *err);

#endif
