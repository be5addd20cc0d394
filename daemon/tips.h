/*
 * tips.h - the newest stored checkpoint of each run, its files still open: what the next delta is taken against.
 *
 * The problem: with save_total_limit=1 a checkpoint is deleted before the next one is stored, and the reference of the next
 * would have to be replayed through its whole chain, twice. Its descriptors, kept open, read as plainly as the day they were
 * written. They cost the room of a deleted checkpoint on the trainer's disk, so there are few, and room.c closes them first
 * when that disk gets full. What they hold is proven chunk by chunk by the recorded digests; a wrong one costs time only.
 *
 * Weights are predicted from those of the checkpoint before as well (ingest_predict.c), so a tip has the one before it behind it.
 *
 * A list, newest use first. The loop thread owns it; while a job uses a tip, the job owns it. No files, no clock.
 */
#ifndef TPD_DAEMON_TIPS_H
#define TPD_DAEMON_TIPS_H

#include "archive/capture.h"
#include "base/tpd.h"
#include "store/manifest.h"

#define TPD_TIPS_MAX 32 /* runs that are trained at once on one node are fewer */

struct tpd_tip {
	struct tpd_tip *next;
	char *run, *path; /* owned */
	struct tpd_id id;
	struct tpd_capture *capture; /* owned */
	struct tpd_tip *earlier;     /* the run's tip before this one, owned; it has none itself; NULL: none */
};

struct tpd_tips {
	struct tpd_tip *first;
	size_t count, descriptors;
};

/* NULL: no memory; then the capture is still the caller's. */
struct tpd_tip *tpd_tip_new(const char *run, const char *path, const struct tpd_id *id, struct tpd_capture *capture);
void tpd_tip_free(struct tpd_tip *tip); /* closes, the earlier one, too; NULL is fine */
/* `earlier` becomes what is behind the tip, or where both are one checkpoint what is behind it; returns what has to go for it, or NULL. */
struct tpd_tip *tpd_tip_put_behind(struct tpd_tip *tip, struct tpd_tip *earlier);
/*
 * Takes the tip over; returns a list of those that have to go for it: the run's old one, and beyond TPD_TIPS_MAX or max_descriptors what is
 * behind the least used ones, then these (it itself, if need be). The caller frees them, where closing may block.
 */
struct tpd_tip *tpd_tips_put(struct tpd_tips *tips, struct tpd_tip *tip, size_t max_descriptors);
/* The run's tip, out of the list; NULL: none. */
struct tpd_tip *tpd_tips_take(struct tpd_tips *tips, const char *run);
/* The least used one for which wanted(arg, tip), out of the list; NULL: none. */
struct tpd_tip *tpd_tips_take_oldest(struct tpd_tips *tips, bool (*wanted)(void *arg, const struct tpd_tip *tip), void *arg);
void tpd_tips_release(struct tpd_tips *tips); /* closes all */

#endif
