/*
 * queue.c - a sorted list.
 *
 * A backlog is tens of items, in the worst case the few thousand checkpoints found at the first start, so a list does.
 * A job that waits for another try does not hold up later steps of its run: its checkpoint then gets its reference from
 * what is there.
 */
#include "base/tpd.h"

#include "daemon/queue.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

#define DELAY_MS 5000 /* after the first failure; doubled with each */
#define DELAY_MAX_MS 600000

void tpd_queue_init(struct tpd_queue *queue)
{
	*queue = (struct tpd_queue){0};
}

struct tpd_queue_item *tpd_queue_item_new(const char *run, const char *path, uint64_t step, const char *fingerprint)
{
	struct tpd_queue_item *item = calloc(1, sizeof *item);

	if (!item)
		return NULL;
	item->run = strdup(run);
	item->path = strdup(path);
	item->step = step;
	memcpy(item->fingerprint, fingerprint, strnlen(fingerprint, sizeof item->fingerprint - 1));
	if (!item->run || !item->path) {
		tpd_queue_item_free(item);
		return NULL;
	}
	return item;
}

void tpd_queue_item_free(struct tpd_queue_item *item)
{
	if (!item)
		return;
	tpd_capture_close(item->capture);
	free(item->run);
	free(item->path);
	free(item->why);
	free(item);
}

void tpd_queue_release(struct tpd_queue *queue)
{
	while (queue->first) {
		struct tpd_queue_item *item = queue->first;

		queue->first = item->next;
		tpd_queue_item_free(item);
	}
	free(queue->last_run);
	*queue = (struct tpd_queue){0};
}

static int compare(const struct tpd_queue_item *a, const struct tpd_queue_item *b)
{
	int order = strcmp(a->run, b->run);

	if (order == 0)
		order = (a->step > b->step) - (a->step < b->step);
	return order != 0 ? order : (a->number > b->number) - (a->number < b->number);
}

static void count(struct tpd_queue *queue, const struct tpd_queue_item *item, bool in)
{
	size_t files = item->capture ? tpd_capture_source(item->capture)->count : 0;

	queue->count += in ? 1 : (size_t)-1;
	if (item->capture) {
		queue->held += in ? 1 : (size_t)-1;
		queue->descriptors += in ? files : (size_t)0 - files;
	}
}

void tpd_queue_put(struct tpd_queue *queue, struct tpd_queue_item *item)
{
	struct tpd_queue_item **link = &queue->first;

	while (*link && compare(*link, item) <= 0)
		link = &(*link)->next;
	item->next = *link;
	*link = item;
	count(queue, item, true);
}

struct tpd_queue_item *tpd_queue_find(const struct tpd_queue *queue, int64_t number)
{
	struct tpd_queue_item *item;

	for (item = queue->first; item && item->number != number; item = item->next)
		;
	return item;
}

bool tpd_queue_has_path(const struct tpd_queue *queue, const char *path)
{
	const struct tpd_queue_item *item;

	for (item = queue->first; item && strcmp(item->path, path) != 0; item = item->next)
		;
	return item != NULL;
}

struct tpd_capture *tpd_queue_hold(struct tpd_queue *queue, struct tpd_queue_item *item, struct tpd_capture *capture)
{
	struct tpd_capture *old = item->capture;

	count(queue, item, false);
	item->capture = capture;
	count(queue, item, true);
	return old;
}

/* The next item of a run that comes after `run` in the round (any run when NULL). */
static struct tpd_queue_item **find_ready(struct tpd_queue *queue, const char *run, uint64_t now_ms,
					  bool (*ready)(void *arg, const struct tpd_queue_item *item), void *arg,
					  uint64_t *due_ms)
{
	for (struct tpd_queue_item **link = &queue->first; *link; link = &(*link)->next) {
		struct tpd_queue_item *item = *link;

		if (run && strcmp(item->run, run) <= 0)
			continue;
		if (item->retry_ms > now_ms) {
			*due_ms = TPD_MIN(*due_ms, item->retry_ms);
			continue;
		}
		if (ready(arg, item))
			return link;
	}
	return NULL;
}

struct tpd_queue_item *tpd_queue_take(struct tpd_queue *queue, uint64_t now_ms,
				      bool (*ready)(void *arg, const struct tpd_queue_item *item), void *arg,
				      uint64_t *out_due_ms)
{
	struct tpd_queue_item **link = NULL, *item;
	uint64_t due_ms = UINT64_MAX;

	if (queue->last_run)
		link = find_ready(queue, queue->last_run, now_ms, ready, arg, &due_ms);
	if (!link)
		link = find_ready(queue, NULL, now_ms, ready, arg, &due_ms);
	*out_due_ms = due_ms;
	if (!link)
		return NULL;
	item = *link;
	*link = item->next;
	item->next = NULL;
	count(queue, item, false);
	free(queue->last_run);
	queue->last_run = strdup(item->run); /* NULL: the round begins anew */
	return item;
}

void tpd_queue_remove(struct tpd_queue *queue, struct tpd_queue_item *item)
{
	struct tpd_queue_item **link = &queue->first;

	while (*link != item)
		link = &(*link)->next;
	*link = item->next;
	item->next = NULL;
	count(queue, item, false);
}

size_t tpd_queue_retrying(const struct tpd_queue *queue)
{
	size_t n = 0;

	for (const struct tpd_queue_item *item = queue->first; item; item = item->next)
		n += item->attempts > 0;
	return n;
}

uint64_t tpd_queue_failed(struct tpd_queue_item *item, uint64_t now_ms, const char *text)
{
	uint64_t delay_ms = tpd_queue_delay_ms(++item->attempts);

	item->retry_ms = now_ms + delay_ms;
	free(item->why);
	item->why = strdup(text); /* NULL: then it is not told */
	return delay_ms;
}

size_t tpd_queue_retry(struct tpd_queue *queue, uint64_t now_ms)
{
	size_t n = 0;

	for (struct tpd_queue_item *item = queue->first; item; item = item->next) {
		n += item->retry_ms > now_ms;
		item->retry_ms = 0;
	}
	return n;
}

uint64_t tpd_queue_delay_ms(unsigned attempts)
{
	return tpd_clock_backoff_ms(DELAY_MS, DELAY_MAX_MS, attempts > 0 ? attempts - 1 : 0);
}
