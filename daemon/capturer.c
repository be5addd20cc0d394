/*
 * capturer.c - open, wait, compare.
 *
 * A thread of its own rather than libuv's pool: a rotation that comes a millisecond later does not wait until a scan of
 * ten thousand files is over. The waiting tasks are a list with the next one's time as the mailbox's timeout; while one of them is
 * being copied that is 0, so that a copy is made between two looks into the mailbox, a few MiB at a time.
 *
 * Which places are written over in place is known by their inodes and times of birth: the last few hundred captures are remembered. What
 * is replaced by a rename, or deleted and made anew, is another file, also where the number of its inode comes again; a descriptor is
 * enough to hold it.
 */
#include "base/tpd.h"

#include "daemon/capturer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "daemon/recognise.h"

#define PLACES_MAX 512 /* remembered: more than there are paths that are written over at one time */

struct place {
	uint64_t number; /* tpd_capture_place(); 0: none */
	char fingerprint[TPD_FINGERPRINT_LEN];
	bool in_place;
};

struct tpd_capturer {
	struct tpd_mailbox box;
	struct tpd_message stop;
	pthread_t thread;
	struct tpd_spool *spool;
	struct place places[PLACES_MAX]; /* the thread's, as all below */
	size_t next_place;
	struct tpd_mailbox *answers;
	void (*deliver)(void *owner, struct tpd_message *message);
	void (*wake)(void *arg);
	void *wake_arg;
	struct tpd_capture_task *watched;
};

void tpd_capture_task_free(struct tpd_capture_task *task)
{
	if (!task)
		return;
	tpd_capture_close(task->capture);
	free(task->path);
	free(task->run);
	free(task);
}

static void answer(struct tpd_capturer *capturer, struct tpd_capture_task *task)
{
	task->head.deliver = capturer->deliver;
	tpd_mailbox_put(capturer->answers, &task->head);
	capturer->wake(capturer->wake_arg);
}

/* In a directory of the checkpoint that looks leave out (.cache): they do not know how new it is. */
static bool in_ignored(const char *path)
{
	char name[256];

	for (const char *slash; (slash = strchr(path, '/')) != NULL; path = slash + 1) {
		snprintf(name, sizeof name, "%.*s", (int)TPD_MIN((size_t)(slash - path), sizeof name - 1), path);
		if (tpd_recognise_ignored(name))
			return true;
	}
	return false;
}

/* Is all that was seen in what was opened? */
static enum tpd_status check_whole(const struct tpd_capture_task *task, struct tpd_err *err)
{
	const struct tpd_source *source = tpd_capture_source(task->capture);
	uint64_t files = 0, bytes = 0;

	/* The path was found without following links; a link put there since may lead to what others may not read. */
	if (strcmp(source->origin, task->path) != 0)
		return tpd_fail(err, TPD_USAGE, "'%s' is a link to '%s'", task->path, source->origin);
	for (size_t i = 0; i < source->count; i++) {
		const struct tpd_source_entry *entry = &source->entries[i];

		if (entry->type != TPD_ENTRY_FILE || in_ignored(entry->path))
			continue;
		files++;
		bytes += entry->size;
		/* Replaced or written between the look and the opening: its step, too, may be another. */
		if (tpd_capture_changed_ns(task->capture, i) > task->newest_ns)
			return tpd_fail(err, TPD_CONFLICT, "'%s' in '%s' is newer than when it was looked at", entry->path, task->path);
	}
	if (files < task->count || bytes < task->bytes)
		return tpd_fail(err, TPD_CONFLICT, "less of '%s' was there when it was opened than before", task->path);
	return TPD_OK;
}

/* Was this very file, or directory, captured before with other content? */
static bool is_in_place(struct tpd_capturer *capturer, const struct tpd_capture_task *task)
{
	uint64_t number = tpd_capture_place(task->capture);
	struct place *place = NULL;

	for (size_t i = 0; i < PLACES_MAX && !place; i++)
		if (capturer->places[i].number == number)
			place = &capturer->places[i];
	if (!place) {
		place = &capturer->places[capturer->next_place];
		capturer->next_place = (capturer->next_place + 1) % PLACES_MAX;
		*place = (struct place){.number = number};
	} else if (strcmp(place->fingerprint, task->fingerprint) != 0) {
		place->in_place = true;
	}
	memcpy(place->fingerprint, task->fingerprint, sizeof place->fingerprint);
	return place->in_place;
}

static void open_task(struct tpd_capturer *capturer, struct tpd_capture_task *task)
{
	task->opened_ms = tpd_clock_steady_ms();
	task->status = tpd_capture_open(task->path, &task->capture, &task->err);
	if (task->status == TPD_OK)
		task->status = check_whole(task, &task->err);
	if (task->status == TPD_OK) {
		tpd_capture_fingerprint(task->capture, task->fingerprint);
		task->cloned = tpd_capture_clone(task->capture, capturer->spool->dir); /* where that can be had */
		task->in_place = is_in_place(capturer, task);
		tpd_capture_set_metrics_of(task->capture, task->metrics_of);
	} else {
		tpd_capture_close(task->capture);
		task->capture = NULL;
	}
	answer(capturer, task);
}

static int64_t due_ms(const struct tpd_capture_task *task)
{
	return task->opened_ms + (int64_t)task->quiet_ms;
}

static void begin_watch(struct tpd_capturer *capturer, struct tpd_capture_task *task)
{
	struct tpd_capture_task **link = &capturer->watched;

	if (task->copy && tpd_capture_copy_begin(task->capture, capturer->spool, task->spool_max, task->low_space,
						 &task->copy_fault) != TPD_OK)
		task->copy = false;
	while (*link) /* in their order: of equal ones the first is copied first */
		link = &(*link)->next;
	task->next = NULL;
	*link = task;
}

/*
 * A step of the copy that is nearest to its end. A small file passes a large one so, which loses little by it; behind it, the small one
 * would be written over long before its turn. false: there is none.
 */
static bool copy_on(struct tpd_capturer *capturer)
{
	struct tpd_capture_task *least = NULL;

	for (struct tpd_capture_task *task = capturer->watched; task; task = task->next)
		if (task->copy && (!least || tpd_capture_copy_left(task->capture) < tpd_capture_copy_left(least->capture)))
			least = task;
	if (least && tpd_capture_copy_step(least->capture, &least->copy, &least->copy_fault) != TPD_OK)
		least->copy = false;
	return least != NULL;
}

/* Answer for those whose time is over; returns the time until the next one, -1 when there is none. */
static int64_t serve_watched(struct tpd_capturer *capturer)
{
	bool copying = copy_on(capturer);
	int64_t now = tpd_clock_steady_ms(), next = -1;

	for (struct tpd_capture_task **link = &capturer->watched, *task; (task = *link) != NULL;) {
		if (task->copy) {
			link = &task->next;
			continue;
		}
		if (due_ms(task) > now) {
			next = next < 0 ? due_ms(task) - now : TPD_MIN(next, due_ms(task) - now);
			link = &task->next;
			continue;
		}
		*link = task->next;
		task->status = tpd_capture_detach(task->capture, &task->err);
		answer(capturer, task);
	}
	return copying ? 0 : next;
}

static void *capturer_main(void *arg)
{
	struct tpd_capturer *capturer = arg;
	struct tpd_message *message;
	struct tpd_capture_task *task;

	while ((message = tpd_mailbox_take(&capturer->box, serve_watched(capturer))) != &capturer->stop) {
		if (!message)
			continue;
		task = (struct tpd_capture_task *)message;
		switch (task->phase) {
		case TPD_CAPTURE_OPEN:
			open_task(capturer, task);
			break;
		case TPD_CAPTURE_WATCH:
			begin_watch(capturer, task);
			break;
		case TPD_CAPTURE_CLOSE:
			tpd_capture_task_free(task);
			break;
		}
	}
	while (capturer->watched) {
		task = capturer->watched;
		capturer->watched = task->next;
		tpd_capture_task_free(task);
	}
	return NULL;
}

enum tpd_status tpd_capturer_start(struct tpd_spool *spool, struct tpd_mailbox *answers,
				   void (*deliver)(void *owner, struct tpd_message *message), void (*wake)(void *arg),
				   void *wake_arg, struct tpd_capturer **out_capturer, struct tpd_err *err)
{
	struct tpd_capturer *capturer = calloc(1, sizeof *capturer);
	enum tpd_status status;

	if (!capturer)
		return tpd_fail_nomem(err);
	tpd_mailbox_init(&capturer->box);
	capturer->spool = spool;
	capturer->answers = answers;
	capturer->deliver = deliver;
	capturer->wake = wake;
	capturer->wake_arg = wake_arg;
	status = tpd_thread_start(&capturer->thread, "tpded-capture", capturer_main, capturer, err);
	if (status != TPD_OK) {
		tpd_mailbox_release(&capturer->box);
		free(capturer);
		return status;
	}
	*out_capturer = capturer;
	return TPD_OK;
}

void tpd_capturer_send(struct tpd_capturer *capturer, struct tpd_capture_task *task)
{
	tpd_mailbox_put(&capturer->box, &task->head);
}

void tpd_capturer_stop(struct tpd_capturer *capturer)
{
	struct tpd_message *message;

	if (!capturer)
		return;
	tpd_mailbox_put(&capturer->box, &capturer->stop);
	pthread_join(capturer->thread, NULL);
	while ((message = tpd_mailbox_take(&capturer->box, 0)) != NULL) /* sent after the stop */
		tpd_capture_task_free((struct tpd_capture_task *)message);
	tpd_mailbox_release(&capturer->box);
	free(capturer);
}
