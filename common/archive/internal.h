/*
 * internal.h - what the files of the archive share.
 */
#ifndef TPD_ARCHIVE_INTERNAL_H
#define TPD_ARCHIVE_INTERNAL_H

#include <sys/types.h>

#include "archive/archive.h"

struct tpd_archive {
	struct tpd_store *store;
	struct tpd_catalog *catalog; /* of the thread that opened it; NULL in READ mode without a readable one */
	struct tpd_pool *pool;
	char *catalog_path;
	struct tpd_err catalog_fault; /* see tpd_archive_catalog_fault() */
	dev_t catalog_device; /* of its file when it was opened */
	ino_t catalog_inode;
	struct tpd_archive_options options; /* strings are not to be used after open */
};

/* One run's or one checkpoint's own affair, damage or a file that we may not open: the others go on. */
bool tpd_archive_is_local(const struct tpd_err *fault);
/* Put one stored checkpoint, read from its manifest, into the catalog as RUN@STEP~version; metrics: of its run. */
enum tpd_status tpd_archive_record(struct tpd_store *store, struct tpd_catalog *catalog, const struct tpd_id *id,
				   uint32_t version, const struct tpd_run_metrics *metrics, struct tpd_err *err);
/* Put into the catalog what the store's refs name and it does not have. */
enum tpd_status tpd_archive_catch_up(struct tpd_archive *archive, struct tpd_err *err);

struct tpd_recalled {
	uint64_t found;       /* checkpoints whose metrics were read again, and are on record */
	uint64_t failed;      /* those that could not be read, and may have had some */
	struct tpd_err first; /* of the latter, with its name */
};
/*
 * Of a run's checkpoints those that have no metrics on record are asked for them once more, from what is stored; adds to *tally. Takes the
 * run's lock where any are found. One checkpoint's damage is only tallied, nor is it a failure that the run's refs cannot be read.
 */
enum tpd_status tpd_archive_recall(struct tpd_archive *archive, const char *run, const struct tpd_progress *progress,
				   struct tpd_recalled *tally, struct tpd_err *err);

/*
 * Raw copies of each run's newest checkpoint in STORE/tip/ESCAPED-RUN/ID/NUMBER: what the next delta is encoded against when
 * the original is gone by then. Disposable: every chunk read from there must have its recorded digest.
 */
char *tpd_tip_path(const struct tpd_archive *archive, const char *run); /* fresh; NULL: no memory */
/* Replace the run's copy by this capture's files. A failure costs nothing but speed, so none is reported. */
void tpd_tip_put(struct tpd_archive *archive, const char *run, const struct tpd_id *id, const struct tpd_capture *capture);

/*
 * What `base` (as archive.h has it) means for this step of a run, into options->base and base_id; a model that is a path is stored.
 * TPD_CANCELLED and TPD_NOMEM as they are; whatever else is wrong with it, only *out_fault tells.
 */
enum tpd_status tpd_base_choose(struct tpd_archive *archive, const char *base, const char *run, uint64_t step,
				const struct tpd_progress *progress, struct tpd_ingest_options *options, struct tpd_err *out_fault);

#endif
