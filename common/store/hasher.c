/*
 * hasher.c - one thread that does nothing but SHA-256.
 *
 * The problem: at about 2 GB/s SHA-256 would stand in line with reading, coding and writing. The buffers of a batch are
 * handed over once they are filled, and waited for before they are filled again; so no copy is made and nothing is ever queued without
 * bound. A pipe or a general task queue would only have hidden that.
 */
#include "base/tpd.h"

#include "store/hasher.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#define READ_SIZE (1u << 20)

struct span {
	const void *data;
	size_t len;
};

struct tpd_hasher {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool busy, stop; /* guarded by lock */

	/* The caller's while not busy, the thread's while busy. */
	struct tpd_sha256 *sha;
	struct span *spans;
	size_t count, cap;
	int fd;  /* -1: none */
	int sys; /* errno of a failed read */
	uint8_t *buffer;
};

static void hash_all(struct tpd_hasher *h)
{
	for (size_t i = 0; i < h->count; i++)
		tpd_sha256_update(h->sha, h->spans[i].data, h->spans[i].len);
	h->count = 0;
	for (uint64_t at = 0; h->fd >= 0;) {
		ssize_t got = pread(h->fd, h->buffer, READ_SIZE, (off_t)at);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			h->sys = errno;
		if (got <= 0)
			break;
		tpd_sha256_update(h->sha, h->buffer, (size_t)got);
		at += (uint64_t)got;
	}
	h->fd = -1;
}

static void *run(void *arg)
{
	struct tpd_hasher *h = arg;

	pthread_mutex_lock(&h->lock);
	for (;;) {
		while (!h->busy && !h->stop)
			pthread_cond_wait(&h->changed, &h->lock);
		if (h->stop)
			break;
		pthread_mutex_unlock(&h->lock);
		hash_all(h);
		pthread_mutex_lock(&h->lock);
		h->busy = false;
		pthread_cond_broadcast(&h->changed);
	}
	pthread_mutex_unlock(&h->lock);
	return NULL;
}

enum tpd_status tpd_hasher_new(struct tpd_hasher **out_hasher, struct tpd_err *err)
{
	struct tpd_hasher *h = calloc(1, sizeof(*h));
	int sys;

	if (!h)
		return tpd_fail_nomem(err);
	h->fd = -1;
	h->sha = tpd_sha256_new();
	h->buffer = malloc(READ_SIZE);
	pthread_mutex_init(&h->lock, NULL);
	pthread_cond_init(&h->changed, NULL);
	sys = h->sha && h->buffer ? pthread_create(&h->thread, NULL, run, h) : ENOMEM;
	if (sys != 0) {
		tpd_sha256_free(h->sha);
		free(h->buffer);
		pthread_mutex_destroy(&h->lock);
		pthread_cond_destroy(&h->changed);
		free(h);
		return tpd_fail_sys(err, sys, "cannot start a thread");
	}
	*out_hasher = h;
	return TPD_OK;
}

void tpd_hasher_free(struct tpd_hasher *h)
{
	if (!h)
		return;
	pthread_mutex_lock(&h->lock);
	while (h->busy)
		pthread_cond_wait(&h->changed, &h->lock);
	h->stop = true;
	pthread_cond_broadcast(&h->changed);
	pthread_mutex_unlock(&h->lock);
	pthread_join(h->thread, NULL);
	pthread_mutex_destroy(&h->lock);
	pthread_cond_destroy(&h->changed);
	tpd_sha256_free(h->sha);
	free(h->spans);
	free(h->buffer);
	free(h);
}

enum tpd_status tpd_hasher_add(struct tpd_hasher *h, const void *data, size_t len, struct tpd_err *err)
{
	if (len == 0)
		return TPD_OK;
	if (h->count == h->cap) {
		size_t cap = h->cap ? 2 * h->cap : 64;
		struct span *grown = realloc(h->spans, cap * sizeof(*grown));

		if (!grown)
			return tpd_fail_nomem(err);
		h->spans = grown;
		h->cap = cap;
	}
	h->spans[h->count++] = (struct span){data, len};
	return TPD_OK;
}

void tpd_hasher_add_fd(struct tpd_hasher *h, int fd)
{
	h->fd = fd;
}

void tpd_hasher_start(struct tpd_hasher *h)
{
	pthread_mutex_lock(&h->lock);
	h->busy = true;
	pthread_cond_broadcast(&h->changed);
	pthread_mutex_unlock(&h->lock);
}

enum tpd_status tpd_hasher_wait(struct tpd_hasher *h, struct tpd_err *err)
{
	int sys;

	pthread_mutex_lock(&h->lock);
	while (h->busy)
		pthread_cond_wait(&h->changed, &h->lock);
	sys = h->sys;
	h->sys = 0;
	pthread_mutex_unlock(&h->lock);
	return sys ? tpd_fail_sys(err, sys, "cannot read back") : TPD_OK;
}

enum tpd_status tpd_hasher_end(struct tpd_hasher *h, uint8_t out_digest[TPD_SHA256_LEN], struct tpd_err *err)
{
	enum tpd_status status = tpd_hasher_wait(h, err);

	for (size_t i = 0; i < h->count; i++) /* added, never started */
		tpd_sha256_update(h->sha, h->spans[i].data, h->spans[i].len);
	h->count = 0;
	tpd_sha256_final(h->sha, out_digest);
	return status;
}

struct tpd_feed tpd_feed_make(struct tpd_hasher *hasher, const struct tpd_entry *file, tpd_feed_glue_fn read_glue, void *arg)
{
	return (struct tpd_feed){.hasher = hasher, .file = file, .read_glue = read_glue, .arg = arg};
}

void tpd_feed_release(struct tpd_feed *feed)
{
	tpd_hasher_wait(feed->hasher, NULL);
	free(feed->glue);
	feed->glue = NULL;
}

/* Chunk `chunk` of the glue into feed->glue. What was fed of the one before is hashed first. */
static enum tpd_status turn_glue(struct tpd_feed *feed, uint64_t chunk, struct tpd_err *err)
{
	enum tpd_status status = TPD_OK;

	if (feed->glue && feed->glue_chunk == chunk)
		return TPD_OK;
	if (feed->glue) {
		tpd_hasher_start(feed->hasher);
		status = tpd_hasher_wait(feed->hasher, err);
	} else {
		feed->glue = malloc(tpd_segment_chunk_len(&feed->file->segments[0], 0)); /* no other is longer */
		status = feed->glue ? TPD_OK : tpd_fail_nomem(err);
	}
	if (!status)
		status = feed->read_glue(feed->arg, chunk, feed->glue, err);
	feed->glue_chunk = chunk;
	return status;
}

/* All glue from feed->at up to `until` in the file. */
static enum tpd_status feed_glue(struct tpd_feed *feed, uint64_t until, struct tpd_err *err)
{
	const struct tpd_segment *seg = &feed->file->segments[0];
	uint64_t size = tpd_chunk_bytes(seg->dtype);
	enum tpd_status status = TPD_OK;

	while (!status && feed->at < until) {
		uint64_t chunk = feed->glue_at / size, from = feed->glue_at % size;
		uint64_t n = TPD_MIN(until - feed->at, tpd_segment_chunk_len(seg, chunk) - from);

		status = turn_glue(feed, chunk, err);
		if (!status)
			status = tpd_hasher_add(feed->hasher, feed->glue + from, (size_t)n, err);
		feed->at += n;
		feed->glue_at += n;
	}
	return status;
}

enum tpd_status tpd_feed_chunk(struct tpd_feed *feed, uint32_t segment, uint64_t chunk, const uint8_t *data, size_t len,
			       struct tpd_err *err)
{
	const struct tpd_segment *seg = &feed->file->segments[segment];
	enum tpd_status status = TPD_OK;

	if (segment == 0 && feed->file->segment_count > 1)
		return TPD_OK;
	if (segment > 0)
		status = feed_glue(feed, seg->offset + chunk * tpd_chunk_bytes(seg->dtype), err);
	if (status)
		return status;
	feed->at += len;
	return tpd_hasher_add(feed->hasher, data, len, err);
}

enum tpd_status tpd_feed_rest(struct tpd_feed *feed, struct tpd_err *err)
{
	return feed_glue(feed, feed->file->size, err);
}
