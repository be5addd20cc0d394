/*
 * room.c - the trainer's disk must not become full because of us.
 *
 * A file that rotation has deleted keeps its room for as long as somebody has it open, and we do: for jobs that wait, and for the
 * references of the next ones (tips.h). While anything is held, the free space of the watched file systems is asked for
 * every few seconds, in libuv's pool since a dead mount may hang. Below low_space= what was deleted is let go: first the
 * tips, which only save time, then the captures of waiting jobs, the oldest first. Those are lost, and reported as missed.
 * The job in work keeps its files: it gives the room back soon.
 *
 * Of a capture that was copied (copies.h) only the originals lie there, and they are not needed any more: letting them go loses nothing.
 * Where the store lies on that file system as well, the copies take its room, too; one goes when the original is still as it was
 * captured, and is held as before, else it is lost like a deleted one.
 */
#include "base/tpd.h"

#include "daemon/daemon.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "base/text.h"

#define ROOM_MS 3000
#define ENOUGH_AT_ONCE 4 /* captures let go before the space is asked for again: closing frees it */

struct tpd_room_query {
	uv_work_t work;
	struct tpd_daemon *daemon;
	size_t count;
	struct {
		char *path;
		uint64_t free; /* for users without privileges; UINT64_MAX: not to be told */
		bool with_spool; /* the copies take room of it */
	} watches[];
};

static void ask_in_pool(uv_work_t *work)
{
	struct tpd_room_query *query = work->data;
	struct stat spool;
	bool known = fstat(query->daemon->spool.dir, &spool) == 0;

	for (size_t i = 0; i < query->count; i++) {
		struct statvfs fs;
		struct stat st;

		query->watches[i].with_spool =
			known && stat(query->watches[i].path, &st) == 0 && st.st_dev == spool.st_dev;
		query->watches[i].free = UINT64_MAX;
		if (statvfs(query->watches[i].path, &fs) == 0)
			query->watches[i].free = (uint64_t)fs.f_bavail * fs.f_frsize;
	}
}

static bool is_below(const char *path, const char *directory)
{
	size_t len = strlen(directory);

	return strncmp(path, directory, len) == 0 && path[len] == '/';
}

struct low {
	struct tpd_daemon *daemon;
	const char *directory;
	bool with_spool;
};

/*
 * Only what is deleted, or replaced under its name, takes room that closing gives back. The descriptors say so; a local file's do at
 * once, and where they may not, on a network, whoever holds a file there keeps no deleted one.
 */
static bool tip_takes_room(void *arg, const struct tpd_tip *tip)
{
	const struct low *low = arg;

	return (is_below(tip->path, low->directory) &&
		tpd_capture_takes_room(tip->capture, tpd_settle_is_there(low->daemon->settle, tip->path))) ||
	       (tip->earlier && tip_takes_room(arg, tip->earlier));
}

static bool item_takes_room(const struct low *low, const struct tpd_queue_item *item)
{
	if (!item->capture)
		return false;
	return (low->with_spool && tpd_capture_copied(item->capture) > 0) ||
	       (is_below(item->path, low->directory) &&
		tpd_capture_takes_room(item->capture, tpd_settle_is_there(low->daemon->settle, item->path)));
}

/* Of a copied capture: what takes room and is not needed. false: all of it is. */
static bool let_half_go(const struct low *low, struct tpd_queue_item *item)
{
	struct tpd_capture *originals = tpd_capture_take_originals(item->capture);

	if (!originals)
		return false;
	if (!low->with_spool) {
		tpd_intake_close_capture(low->daemon, originals);
		return true;
	}
	if (tpd_capture_check(originals, NULL) == TPD_OK) {
		tpd_intake_close_capture(low->daemon, tpd_queue_hold(&low->daemon->queue, item, originals));
		return true;
	}
	tpd_intake_close_capture(low->daemon, originals);
	return false;
}

void tpd_room_give_back(struct tpd_daemon *daemon)
{
	const struct low low = {.daemon = daemon, .with_spool = true};

	for (struct tpd_queue_item *item = daemon->queue.first; item; item = item->next)
		if (item->capture)
			let_half_go(&low, item);
}

/* The waiting capture that was queued first; its job's number grows with time. */
static struct tpd_queue_item *oldest_held(const struct low *low)
{
	struct tpd_queue_item *oldest = NULL;

	for (struct tpd_queue_item *item = low->daemon->queue.first; item; item = item->next) {
		if (item_takes_room(low, item) && (!oldest || item->number < oldest->number))
			oldest = item;
	}
	return oldest;
}

/* Lets something go. false: there is nothing. */
static bool let_go(struct low *low, uint64_t available)
{
	struct tpd_daemon *daemon = low->daemon;
	struct tpd_tip *tip = tpd_tips_take_oldest(&daemon->tips, tip_takes_room, low);
	struct tpd_queue_item *item;
	char size[TPD_TEXT_SIZE];

	if (tip) {
		tpd_intake_close_tips(daemon, tip);
		return true;
	}
	item = oldest_held(low);
	if (!item)
		return false;
	if (let_half_go(low, item))
		return true;
	daemon->missed++;
	tpd_dispatch_event(daemon, "warning", item->run,
			   "%s@%llu is missed: only %s are free below '%s', and its files were deleted or written over",
			   item->run, (unsigned long long)item->step, tpd_text_bytes(available, size), low->directory);
	tpd_dispatch_drop(daemon, item);
	return true;
}

static void free_query(struct tpd_room_query *query)
{
	for (size_t i = 0; i < query->count; i++)
		free(query->watches[i].path);
	free(query);
}

static void after_query(uv_work_t *work, TPD_UNUSED int status)
{
	struct tpd_room_query *query = work->data;
	struct tpd_daemon *daemon = query->daemon;

	daemon->asking_room = false;
	for (size_t i = 0; i < query->count && !daemon->stopping; i++) {
		struct low low = {daemon, query->watches[i].path, query->watches[i].with_spool};

		for (int n = 0; query->watches[i].free < daemon->config.low_space && n < ENOUGH_AT_ONCE; n++) {
			if (!let_go(&low, query->watches[i].free))
				break;
		}
	}
	free_query(query);
	if (!daemon->stopping)
		tpd_room_go_on(daemon);
}

static void on_timer(uv_timer_t *timer)
{
	struct tpd_daemon *daemon = timer->data;
	struct tpd_room_query *query = calloc(1, sizeof *query + daemon->watch_count * sizeof query->watches[0]);

	if (!query)
		return;
	for (size_t i = 0; i < daemon->watch_count; i++) {
		query->watches[i].path = strdup(daemon->watches[i].path);
		if (!query->watches[i].path) {
			free_query(query);
			return;
		}
		query->count++;
	}
	query->work.data = query;
	query->daemon = daemon;
	daemon->asking_room = true;
	uv_queue_work(&daemon->loop, &query->work, ask_in_pool, after_query);
}

void tpd_room_go_on(struct tpd_daemon *daemon)
{
	bool holding = daemon->queue.held > 0 || daemon->tips.count > 0;

	if (daemon->stopping || daemon->asking_room || uv_is_active((uv_handle_t *)&daemon->room_timer))
		return;
	if (holding && daemon->config.low_space > 0)
		uv_timer_start(&daemon->room_timer, on_timer, ROOM_MS, 0);
}
