/*
 * capture.h - hold a checkpoint that somebody else wrote, against deletion and change.
 *
 * tpd_capture_open() opens every file of a directory (or one file) at once and keeps the descriptors: what rotation
 * deletes a moment later is still readable. Links are recorded, never followed; other kinds of files (sockets, devices, fifos)
 * are left out. tpd_capture_check() says whether anything changed since: size, mtime, ctime, inode
 * by descriptor, and for directories that still exist the set of names. Nothing in the watched directory is ever
 * created, linked or touched.
 */
#ifndef TPD_ARCHIVE_CAPTURE_H
#define TPD_ARCHIVE_CAPTURE_H

#include "archive/metrics.h"
#include "base/tpd.h"

#include <stdatomic.h>

#include "base/io.h"
#include "store/ingest.h"

#define TPD_CAPTURE_MAX_FILES 65536u /* entries */
#define TPD_CAPTURE_MAX_DEPTH 16u    /* levels of directories */

struct tpd_capture; /* owns descriptors and names */

/*
 * TPD_NOT_FOUND: not there (any more); TPD_CONFLICT: something in it went while it was opened; TPD_LIMIT: too many entries; TPD_IO: cannot be
 * read (the message names the file).
 */
enum tpd_status tpd_capture_open(const char *path, struct tpd_capture **out_capture, struct tpd_err *err);
void tpd_capture_close(struct tpd_capture *capture);
/* While this one is stored, `held` (which must outlive that) serves the reads of the stored checkpoint `id`. NULL: none. */
void tpd_capture_set_held(struct tpd_capture *capture, const struct tpd_capture *held, const struct tpd_id *id);
const struct tpd_source *tpd_capture_source(const struct tpd_capture *capture);
/* Whose metrics these are, where that is known: tpd_capture_metrics() asks it instead of tpd_metrics_of(). A literal function. */
void tpd_capture_set_metrics_of(struct tpd_capture *capture, tpd_metrics_fn *metrics_of);
/* What the files tell of how good it is (metrics.h). */
enum tpd_status tpd_capture_metrics(const struct tpd_capture *capture, struct tpd_metrics *out, struct tpd_err *err);
uint64_t tpd_capture_bytes(const struct tpd_capture *capture);
/* When an entry of its source changed last, ns since 1970, as of its opening: mtime or ctime, which an old mtime does not hide. */
int64_t tpd_capture_changed_ns(const struct tpd_capture *capture, size_t entry);
/* TPD_CONFLICT when anything changed since open; files that were only deleted are fine. */
enum tpd_status tpd_capture_check(const struct tpd_capture *capture, struct tpd_err *err);
/*
 * Of a directory that was not detached: was it being deleted since it was opened, by links that its files lost or a path that is there no
 * more? Then something may have gone before that, which is not in the capture. (One that was moved away looks the same.)
 */
bool tpd_capture_is_deleted(const struct tpd_capture *capture);
/*
 * Against being written over, two ways to have all files once more, in files without names in the directory `spool`; nothing but closing
 * the capture is ever needed to be rid of them. The originals stay what is read until tpd_capture_detach(), which checks them
 * once more (TPD_CONFLICT): from then on the checkpoint may be over-written in place, and this capture holds what it was. Without a clone
 * or a copy detach is check.
 *
 * Where file systems share blocks (Btrfs, XFS), a clone, at once; spool must lie on the same file system. false: it cannot be
 * had, nothing is changed.
 */
bool tpd_capture_clone(struct tpd_capture *capture, int spool);
/*
 * Elsewhere a copy, in steps:
 *
 *     if (tpd_capture_copy_begin(...) == TPD_OK)
 *             while (tpd_capture_copy_step(capture, &more, &err) == TPD_OK && more)
 *                     ...something else that does not wait...
 *     tpd_capture_detach()        makes the steps that are left, if any
 *
 * begin: TPD_LIMIT when all copies of the spool would be more than spool_max bytes, or less than low_space would be left free where it
 * lies; that is asked again before each step. A step that fails (TPD_LIMIT, TPD_IO: the disk is full; TPD_CONFLICT: shorter than it was)
 * leaves the capture as it was before begin. One thread begins copies in a spool; they end in any.
 */
struct tpd_spool {
	const struct tpd_io *io;
	int dir;                /* borrowed; -1: there is none */
	_Atomic(uint64_t) used; /* bytes of all copies, those not made yet included */
};
/* Can there be files without names? Not on NFS and some FUSE and overlay file systems: then there are no copies. */
bool tpd_spool_works(const struct tpd_spool *spool);
enum tpd_status tpd_capture_copy_begin(struct tpd_capture *capture, struct tpd_spool *spool, uint64_t spool_max, uint64_t low_space,
				       struct tpd_err *err);
enum tpd_status tpd_capture_copy_step(struct tpd_capture *capture, bool *out_more, struct tpd_err *err);
enum tpd_status tpd_capture_detach(struct tpd_capture *capture, struct tpd_err *err);
/* Bytes of the spool that closing a detached capture gives back; 0: what it holds are no copies. */
uint64_t tpd_capture_copied(const struct tpd_capture *capture);
/*
 * The originals of a detached copy, as a capture of their own; what is left reads its copies. They may have changed:
 * tpd_capture_check() says. NULL: there are none (any more), or no memory.
 */
struct tpd_capture *tpd_capture_take_originals(struct tpd_capture *capture);
/*
 * Do its files take room, where they lie, that closing them gives back: was one of them deleted, or replaced? Clones cannot tell that
 * themselves: they do unless a checkpoint is `there`, at its path, whose blocks they share. Copies do not count.
 */
bool tpd_capture_takes_room(const struct tpd_capture *capture, bool there);
/* Bytes that are still to be copied; 0 when it is not being copied. */
uint64_t tpd_capture_copy_left(const struct tpd_capture *capture);
/* Descriptors that it holds: of copies and of their originals. */
size_t tpd_capture_descriptors(const struct tpd_capture *capture);
/* A number for its path, the inode there and, where the file system tells it, its birth: the same with another fingerprint is a checkpoint that was written over in place. */
uint64_t tpd_capture_place(const struct tpd_capture *capture);
/* Hex XXH3-128 over names, sizes and mtimes: the same again is the same content, as far as one can tell without reading. */
#define TPD_FINGERPRINT_LEN 33
void tpd_capture_fingerprint(const struct tpd_capture *capture, char out[TPD_FINGERPRINT_LEN]);

#endif
