/*
 * settle.h - when is a checkpoint complete, and is it new? A pure state machine: no files, no clock, no loop; what was
 * seen and what time it is are arguments.
 *
 *                      changed                        void (changed while it was captured)
 *                   +-----------+          +--------------------------------------+
 *                   v           |          v                                      |
 *     seen ->  GROWING  --------+      GROWING                                    |
 *                   |                                                             |
 *                   | complete by its marker, or unchanged for settle_ms          |
 *                   v                                                             |
 *              CANDIDATE  -- next(): CAPTURE -->  CAPTURING  ---------------------+
 *                                                    | captured
 *                                                    v
 *                                                 CAPTURED  -- queued, already known, or stored -->  STORED
 *                                                    | refused                                           | changed
 *                                                    v                                                   v
 *                                                 REFUSED  -- changed, or asked for -->  GROWING      GROWING
 *
 * What the queue does with a capture needs nothing from here, except that it may find it void (tpd_settle_void). A
 * change after the capture begins a new cycle; each has a generation, so that late news about an older one is not
 * mistaken for news about this one. When files of a captured checkpoint only go away, that is rotation: no new version. Of one that was
 * refused, from CAPTURING or from CAPTURED, nothing is stored: then it may be the cure.
 *
 * Times are milliseconds of any clock that does not jump. The loop thread owns it.
 */
#ifndef TPD_DAEMON_SETTLE_H
#define TPD_DAEMON_SETTLE_H

#include "base/tpd.h"

enum tpd_readiness {
	TPD_SEEN_WAITING = 0, /* its framework will say when it is complete, and has not; time does not tell */
	TPD_SEEN_SETTLING,    /* complete when nothing changes for settle_ms */
	TPD_SEEN_COMPLETE     /* its framework says so */
};

/* What a checkpoint that is not complete waits for, for people. */
struct tpd_waits {
	char text[200];
};

/* What one look at a checkpoint's path showed. Strings are borrowed. */
struct tpd_seen {
	const char *path, *run;
	uint64_t step;
	uint32_t watch;
	enum tpd_readiness readiness;
	uint64_t signature;    /* of all names, sizes, times and inodes */
	uint64_t count, bytes; /* files */
	int64_t newest_ns;     /* latest mtime or ctime */
	uint64_t quiet_ms;     /* that long ago, where the clocks of file system and machine agree; else 0 */
	uint64_t ranks;        /* rng_state_R.pth: how many */
	uint64_t rank_span;    /* highest R + 1 */
	const char *framework; /* a literal: whose rules these are */
	struct tpd_waits waits; /* WAITING: for what; SETTLING: what speaks against it */
};

enum tpd_settle_action {
	TPD_SETTLE_NONE = 0,
	TPD_SETTLE_STALLED, /* it waits for `waits`, and nothing has changed for stall_ms: somebody should know. Once for each state */
	TPD_SETTLE_RESTLESS, /* it has been changing for stall_ms and never settled: nothing of it is stored. Once until it is captured */
	TPD_SETTLE_LOOK,   /* look at `path` again and report with tpd_settle_seen() or _gone() */
	TPD_SETTLE_CAPTURE /* open it, then tpd_settle_captured() or _void(), with this generation */
};

struct tpd_settle_order {
	enum tpd_settle_action action;
	const char *path, *run; /* valid until the next call */
	const char *framework;  /* as it was seen */
	uint64_t step;
	uint32_t watch, generation;
	uint64_t quiet_ms;     /* watch the descriptors for that long */
	uint64_t count, bytes; /* what the capture must hold to be whole */
	int64_t newest_ns;     /* and nothing in it may be newer: else it is not what was judged */
	const char *waits;     /* STALLED: for what; CAPTURE: what speaks against it though it came to rest, or "" */
	bool again;            /* CAPTURE: this path was captured before, as something else */
};

struct tpd_settle;

enum tpd_status tpd_settle_new(struct tpd_settle **out_settle, struct tpd_err *err);
void tpd_settle_free(struct tpd_settle *settle);
/*
 * How long the checkpoints of a watch must be unchanged to be complete (5000 unless set), or, if they wait for a marker, until
 * that is told as STALLED (600000 unless set).
 */
enum tpd_status tpd_settle_set_watch(struct tpd_settle *settle, uint32_t watch, uint64_t settle_ms, uint64_t stall_ms,
				     struct tpd_err *err);
/* Forget everything of a watch that is no more. */
void tpd_settle_drop_watch(struct tpd_settle *settle, uint32_t watch);

enum tpd_status tpd_settle_seen(struct tpd_settle *settle, const struct tpd_seen *seen, uint64_t now_ms,
				struct tpd_err *err);
/* The path is not there any more. A capture of it that was begun goes on. true: it had been complete, and is lost. */
bool tpd_settle_gone(struct tpd_settle *settle, const char *path);

/* Was it seen, never captured, and only to come to rest? Then nobody can know whether it was complete. */
bool tpd_settle_is_unsettled(const struct tpd_settle *settle, const char *path);

/* What is to be done now; call until NONE. may_capture=false: only looks. */
struct tpd_settle_order tpd_settle_next(struct tpd_settle *settle, uint64_t now_ms, bool may_capture);
/* When to call next() again though nothing happened; UINT64_MAX: never. */
uint64_t tpd_settle_due(const struct tpd_settle *settle);

/*
 * The capture is whole. false: news of an older generation; then it may still be stored (what it holds was complete).
 */
bool tpd_settle_captured(struct tpd_settle *settle, const char *path, uint32_t generation);
/*
 * It changed while it was opened, watched or read. Nothing when the generation is an older one. true: it is gone meanwhile, and so
 * lost for good.
 */
bool tpd_settle_void(struct tpd_settle *settle, const char *path, uint32_t generation, uint64_t now_ms);
/*
 * It could not be opened or read (no permission, no descriptors). It is tried again when it changes, or after a while: 5 s at first,
 * twice as long each time, at most 10 minutes. Returns that time in ms; *out_tries counts from 1, since it changed last. 0: it is
 * gone meanwhile, or the generation is an older one.
 */
uint64_t tpd_settle_failed(struct tpd_settle *settle, const char *path, uint32_t generation, uint64_t now_ms,
			   unsigned *out_tries);
/*
 * It cannot be stored as it is, and time does not help: nothing more to do until anything of it changes. Nothing when it is gone or has
 * changed meanwhile, or the generation is an older one.
 */
void tpd_settle_refused(struct tpd_settle *settle, const char *path, uint32_t generation);
/* Was it refused as it is there now? */
bool tpd_settle_is_refused(const struct tpd_settle *settle, const char *path);
/* What failed, or was refused, is tried again at once. Returns how many that are. */
size_t tpd_settle_retry(struct tpd_settle *settle, uint64_t now_ms);
/* It is queued, stored, known already, or missed: nothing more to do until it changes. */
void tpd_settle_done(struct tpd_settle *settle, const char *path, uint32_t generation);

/* Is there, as far as was seen, a checkpoint at this path? */
bool tpd_settle_is_there(const struct tpd_settle *settle, const char *path);

struct tpd_settle_counts {
	uint64_t runs, checkpoints, unfinished, refused; /* unfinished: not yet captured */
};
/* watch: one, or UINT32_MAX for all. */
struct tpd_settle_counts tpd_settle_count(const struct tpd_settle *settle, uint32_t watch);
/* Calls fn for every checkpoint that is there and not captured, in no order, at most `max` times. */
struct tpd_unfinished_sight {
	const char *path, *run, *framework;
	const char *waits; /* for what; "" : until nothing changes any more, or its turn comes */
	uint64_t step, since_ms; /* since_ms: of settle's clock: nothing changed since */
	uint64_t retry_ms; /* it could not be opened or read, and is tried again then; 0: it was not tried */
	uint32_t watch;
};
void tpd_settle_unfinished(const struct tpd_settle *settle, size_t max,
			   void (*fn)(void *arg, const struct tpd_unfinished_sight *sight), void *arg);
/* Is a capture of this run with a step below `step` under way? Its turn in the queue comes first. */
bool tpd_settle_capturing_below(const struct tpd_settle *settle, const char *run, uint64_t step);

#endif
