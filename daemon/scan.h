/*
 * scan.h - what lies in the watched directories: a tree kept in memory, brought up to date by looking.
 *
 *     tpd_scan_new(inotify, &scan, &err);
 *     tpd_scan_set_watches(scan, watches, count, skip_dev, skip_ino, &err);
 *     tpd_scan_run(scan, &request, &result);  ... tpd_scan_result_release(&result);
 *
 * One call at a time, from any thread (libuv's pool), since it blocks: stat, readdir and a look into small files,
 * nothing else. The events of inotify are hints: they name the directories to be read again. A full look asks each
 * directory for its times, and reads again those that changed, those that send no events, and a sixteenth of the others
 * in turn.
 *
 * New directories get their inotify watch before they are read, so that nothing between the two is lost.
 */
#ifndef TPD_DAEMON_SCAN_H
#define TPD_DAEMON_SCAN_H

#include "base/tpd.h"

#include <sys/types.h>

#include "daemon/settle.h"

struct tpd_scan;

struct tpd_scan_watch {
	uint32_t id; /* the caller's; the same in every tpd_seen */
	const char *name, *path;
	const char *complete_when, *step_regex; /* of the configuration (wire/config.h); NULL: none */
};

/* Of an array on the heap with strings on the heap: all of it. NULL is fine. */
void tpd_scan_watches_free(struct tpd_scan_watch *watches, size_t count);

/* inotify: a descriptor from inotify_init1(), borrowed, or -1 with `no_inotify` saying why. */
enum tpd_status tpd_scan_new(int inotify, const char *no_inotify, struct tpd_scan **out_scan, struct tpd_err *err);
void tpd_scan_free(struct tpd_scan *scan);
/*
 * From now on these; what is known of those that stay (same id) is kept. The directory skip_dev:skip_ino (the store) is
 * left out.
 */
enum tpd_status tpd_scan_set_watches(struct tpd_scan *scan, const struct tpd_scan_watch *watches, size_t count,
				     dev_t skip_dev, ino_t skip_ino, struct tpd_err *err);

struct tpd_scan_request {
	bool full;              /* look at every directory */
	bool deep;              /* and at every file */
	const int *descriptors; /* inotify watch descriptors of directories where something happened */
	size_t descriptor_count;
	const int *deletions; /* likewise, where something was deleted */
	size_t deletion_count;
	const int *lost; /* descriptors that the kernel has removed (IN_IGNORED) */
	size_t lost_count;
	char *const *looks; /* paths of checkpoints: report them, changed or not */
	size_t look_count;
};

struct tpd_scan_note {
	bool warning;
	char *run; /* or the watch's name */
	char *text;
};

struct tpd_scan_state {
	uint32_t id;
	bool polling;
	const char *reason; /* static; NULL when not polling */
	int64_t missing_ns; /* wall clock: the watched directory has not been there since; 0: it is */
	uint64_t directories, files;
};

struct tpd_scan_result {
	struct tpd_seen *seen; /* path and run are owned here */
	size_t seen_count, seen_cap;
	char **gone;
	size_t gone_count, gone_cap;
	struct tpd_scan_note *notes;
	size_t note_count, note_cap;
	struct tpd_scan_state *states;
	size_t state_count;
	enum tpd_status status; /* TPD_NOMEM: it is not complete */
};

void tpd_scan_run(struct tpd_scan *scan, const struct tpd_scan_request *request, struct tpd_scan_result *out_result);
void tpd_scan_result_release(struct tpd_scan_result *result);

#endif
