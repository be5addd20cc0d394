/*
 * ingest.h - encode one captured checkpoint into the store.
 *
 * Two passes over each file, both in batches of chunks that the pool works on in parallel and one thread merges in
 * order: survey (statistics, samples, choice of encodings) and encode (payloads, SHA-256 in a thread of its
 * own, statistics that need the survey). The bytes written do not depend on the number of threads.
 */
#ifndef TPD_STORE_INGEST_H
#define TPD_STORE_INGEST_H

#include <stdatomic.h>

#include "base/effort.h"
#include "base/pool.h"
#include "base/tpd.h"
#include "store/store.h"

/* What is to be stored: descriptors that the caller opened and keeps open; borrowed for the call. */
struct tpd_source_entry {
	const char *path; /* relative and safe; entries are sorted by it */
	enum tpd_entry_type type;
	uint32_t mode;
	int64_t mtime_ns;
	const char *target; /* symlinks */
	int fd;             /* regular files */
	uint64_t size;
};

struct tpd_source {
	enum tpd_checkpoint_kind kind;
	const char *origin; /* absolute path, for the record */
	const struct tpd_source_entry *entries;
	size_t count;
	/* Asked before the checkpoint is published: TPD_CONFLICT when anything changed since the files were opened. May be NULL. */
	enum tpd_status (*check)(void *arg, struct tpd_err *err);
	void *check_arg;
	/*
	 * An earlier checkpoint whose files the caller still has open, perhaps deleted: read there when it is the reference. It may have
	 * one itself, where w0 is read. May be NULL.
	 */
	const struct tpd_source *held;
	struct tpd_id held_id;
	/*
	 * How all bytes [offset, offset + len) of entry number `entry` are read where entries have no descriptors, those of what is stored
	 * already: for whoever looks into it (archive/metrics.h). tpd_ingest() wants descriptors. NULL: they have.
	 */
	enum tpd_status (*read)(void *arg, size_t entry, void *buf, size_t len, uint64_t offset, struct tpd_err *err);
	void *read_arg;
};

struct tpd_progress {
	/* Called from the merging thread about once a batch; done and total in source bytes, both passes together. */
	void (*fn)(void *arg, uint64_t done, uint64_t total);
	void *arg;
	const atomic_bool *cancel; /* NULL, or: stop soon with TPD_CANCELLED when it becomes true */
};

/* What a run's first checkpoint may refer to, of other runs: what is most like it, nothing, or base_id (where that cannot be: the first). */
enum tpd_base { TPD_BASE_FIND, TPD_BASE_NONE, TPD_BASE_GIVEN };

struct tpd_ingest_options {
	struct tpd_pool *pool;   /* required */
	uint64_t part_size;      /* decoded bytes of a part, 1 MiB .. 4 GiB; 0: 256 MiB */
	uint32_t max_depth;      /* of a chain; 0: keyframes only */
	int64_t now_ns;          /* time of ingest for the record */
	const char *tip;         /* directory of raw copies of the run's newest checkpoint, TIP/ID/NUMBER; NULL: none */
	const struct tpd_metrics *metrics; /* recorded before the checkpoint has a name, or in addition where it exists; NULL: none */
	bool skip_remnants;      /* what is left of a checkpoint that is stored whole, as its names, sizes and times tell, is not stored (result.remnant) */
	bool no_original;        /* do not read the reference's originals, replay its chain (tests, measurements) */
	enum tpd_effort effort;
	enum tpd_depend depend;
	enum tpd_base base;
	struct tpd_id base_id;
	struct tpd_progress progress;
};

#define TPD_DEFAULT_MAX_DEPTH 16
#define TPD_DEFAULT_PART_SIZE (256ull << 20)

struct tpd_ingest_result {
	struct tpd_id id;
	uint32_t version;
	bool existed; /* the same content was already stored as this step (of any version): nothing was written */
	bool repaired; /* it had its name already, and was damaged: it is whole again */
	bool remnant; /* existed is true, too: id and version are of the whole checkpoint that this is what is left of */
	bool near_copy; /* it is all but an earlier version of this step (last.ckpt beside step=N.ckpt): later ones refer to that */
	struct tpd_err base_fault; /* why the base that was given could not be used; TPD_OK: none was, or needed, or it could */
	struct tpd_err reference_fault; /* why it does not refer to what it would have, and stands alone; TPD_OK: nothing was found damaged */
	uint64_t parts_reused; /* finished parts taken over from an interrupted ingest */
};

/*
 * What tpd_ingest() refuses before it begins, for whoever has not locked the run yet, which makes a file for it: TPD_USAGE where there is
 * no regular file, or a name or a step that cannot be stored; TPD_LIMIT where there is too much.
 */
enum tpd_status tpd_ingest_check(const char *run, uint64_t step, const struct tpd_source *source, struct tpd_err *err);
/*
 * The run lock must be held. TPD_CONFLICT: a file changed while it was read (the caller captures again);
 * on TPD_IO and TPD_CANCELLED what is finished stays in ingest/ for the next try.
 */
enum tpd_status tpd_ingest(struct tpd_run_lock *lock, const char *run, uint64_t step, const struct tpd_source *source,
			   const struct tpd_ingest_options *options, struct tpd_ingest_result *out, struct tpd_err *err);

#endif
