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

#include "base/tpd.h"
#include "store/ingest.h"

#define TPD_CAPTURE_MAX_FILES 65536u /* entries */
#define TPD_CAPTURE_MAX_DEPTH 16u    /* levels of directories */

struct tpd_capture; /* owns descriptors and names */

/* TPD_NOT_FOUND: not there (any more); TPD_LIMIT: too many entries; TPD_IO: cannot be read (the message names the file). */
enum tpd_status tpd_capture_open(const char *path, struct tpd_capture **out_capture, struct tpd_err *err);
void tpd_capture_close(struct tpd_capture *capture);
/* While this one is stored, `held` (which must outlive that) serves the reads of the stored checkpoint `id`. NULL: none. */
void tpd_capture_set_held(struct tpd_capture *capture, const struct tpd_capture *held, const struct tpd_id *id);
const struct tpd_source *tpd_capture_source(const struct tpd_capture *capture);
uint64_t tpd_capture_bytes(const struct tpd_capture *capture);
/* TPD_CONFLICT when anything changed since open; files that were only deleted are fine. */
enum tpd_status tpd_capture_check(const struct tpd_capture *capture, struct tpd_err *err);
/*
 * Where file systems share blocks (Btrfs, XFS): copies of all files, made at once, into files without names in the directory `spool`,
 * which must lie on the same file system. false: it cannot be had, nothing is changed. The originals stay what is read until
 * tpd_capture_detach(), which checks them once more (TPD_CONFLICT) and lets them go: from then on the checkpoint may be over-written in
 * place, and this capture holds what it was. Without clones detach is check.
 */
bool tpd_capture_clone(struct tpd_capture *capture, int spool);
enum tpd_status tpd_capture_detach(struct tpd_capture *capture, struct tpd_err *err);
/*
 * Do its files take room that closing them gives back: was one of them deleted, or replaced? Clones cannot tell that themselves: they do
 * unless a checkpoint is `there`, at its path, whose blocks they share.
 */
bool tpd_capture_takes_room(const struct tpd_capture *capture, bool there);
/* Hex XXH3-128 over names, sizes and mtimes: the same again is the same content, as far as one can tell without reading. */
#define TPD_FINGERPRINT_LEN 33
void tpd_capture_fingerprint(const struct tpd_capture *capture, char out[TPD_FINGERPRINT_LEN]);

/* The "global_step" of a trainer_state.json; false: it is not there, no whole JSON, or tells none. */
bool tpd_capture_trainer_step(const char *file, uint64_t *out_step);
/*
 * The step of a checkpoint path: "global_step" in its trainer_state.json, or without such a file the trailing number
 * of its name. TPD_NOT_FOUND: neither; TPD_USAGE: the file is there and does not tell, so somebody else must.
 */
enum tpd_status tpd_capture_step(const char *path, uint64_t *out_step, struct tpd_err *err);

#endif
