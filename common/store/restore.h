/*
 * restore.h - a stored checkpoint back into files, or through all of its digests.
 */
#ifndef TPD_STORE_RESTORE_H
#define TPD_STORE_RESTORE_H

#include "base/pool.h"
#include "base/tpd.h"
#include "store/ingest.h"
#include "store/store.h"

struct tpd_restore_options {
	struct tpd_pool *pool;
	/*
	 * Only these entries and, where one is a directory, all below it: paths in the checkpoint, ended by NULL. NULL
	 * for all. One that names nothing is TPD_NOT_FOUND before anything is written.
	 */
	const char *const *files;
	bool force;       /* replace what is there */
	struct tpd_progress progress; /* bytes written */
};

/* Does `name` of `files` cover the entry `path`? "./name" is "name", "name/" too, "." is everything. */
bool tpd_restore_covers(const char *name, const char *path);
/* Does any of `files`, or is it NULL? */
bool tpd_restore_wants(const char *const *files, const char *path);

/*
 * Put the checkpoint's files directly into directory `to` (made when missing). Each file is written under a temporary name
 * in its directory, read again for its SHA-256, given mode and mtime, and renamed; without force an existing name is
 * TPD_CONFLICT before anything is written, and a `to` in the store is TPD_USAGE. Nothing outside `to` is ever touched: every
 * component is opened without following links. Directories that we made get their modes and mtimes last.
 */
enum tpd_status tpd_restore(struct tpd_store *store, const struct tpd_id *id, const char *to,
			    const struct tpd_restore_options *options, struct tpd_err *err);

struct tpd_verify_options {
	struct tpd_pool *pool;
	struct tpd_progress progress;
};
/*
 * Re-read everything that the checkpoint itself consists of, decode every chunk, compare payload, decoded and file
 * digests and the id. The first fault is returned.
 */
enum tpd_status tpd_verify(struct tpd_store *store, const struct tpd_id *id, const struct tpd_verify_options *options,
			   struct tpd_err *err);

#endif
