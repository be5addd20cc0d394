/*
 * chain_cache.c - decoded chunks by hash, in a list by use.
 *
 *     buckets ─► chunk ─► chunk          oldest ◄─► ... ◄─► newest
 *
 * The list has what nobody uses: what is to make room is found at once, however much is in use.
 */
#include "base/tpd.h"

#include "store/chain_cache.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>

#define BUCKETS 1024u
#define CHUNKS_MAX 4096u /* however small */

struct tpd_chain_cache {
	pthread_mutex_t lock; /* guards all of it, and the cache's part of its chunks */
	struct tpd_cached_chunk *buckets[BUCKETS];
	struct tpd_cached_chunk *oldest, *newest;
	size_t bytes, budget;
	unsigned count;
};

struct tpd_chain_cache *tpd_chain_cache_new(size_t budget)
{
	struct tpd_chain_cache *cache = calloc(1, sizeof(*cache));

	if (!cache)
		return NULL;
	cache->budget = budget;
	pthread_mutex_init(&cache->lock, NULL);
	return cache;
}

void tpd_chain_cache_free(struct tpd_chain_cache *cache)
{
	if (!cache)
		return;
	for (struct tpd_cached_chunk *chunk = cache->oldest, *newer; chunk; chunk = newer) {
		assert(chunk->users == 0);
		newer = chunk->newer;
		free(chunk->data);
		free(chunk);
	}
	pthread_mutex_destroy(&cache->lock);
	free(cache);
}

static struct tpd_cached_chunk **bucket_of(struct tpd_chain_cache *cache, const struct tpd_chunk_key *key)
{
	return &cache->buckets[tpd_chunk_hash(key) % BUCKETS];
}

static void unlink_use(struct tpd_chain_cache *cache, struct tpd_cached_chunk *chunk)
{
	*(chunk->older ? &chunk->older->newer : &cache->oldest) = chunk->newer;
	*(chunk->newer ? &chunk->newer->older : &cache->newest) = chunk->older;
}

static void append_use(struct tpd_chain_cache *cache, struct tpd_cached_chunk *chunk)
{
	chunk->older = cache->newest;
	chunk->newer = NULL;
	*(cache->newest ? &cache->newest->newer : &cache->oldest) = chunk;
	cache->newest = chunk;
}

/* The lock is held. */
static struct tpd_cached_chunk *find(struct tpd_chain_cache *cache, const struct tpd_chunk_key *key)
{
	struct tpd_cached_chunk *chunk = *bucket_of(cache, key);

	while (chunk && !tpd_chunk_equal(&chunk->key, key))
		chunk = chunk->next;
	if (!chunk)
		return NULL;
	if (chunk->users++ == 0)
		unlink_use(cache, chunk);
	return chunk;
}

/* The lock is held. Let go of the oldest that nobody uses until the rest fits, or nothing is left but what is in use. */
static void make_room(struct tpd_chain_cache *cache)
{
	while (cache->oldest && (cache->bytes > cache->budget || cache->count > CHUNKS_MAX)) {
		struct tpd_cached_chunk *chunk = cache->oldest, **place = bucket_of(cache, &chunk->key);

		while (*place != chunk)
			place = &(*place)->next;
		*place = chunk->next;
		unlink_use(cache, chunk);
		cache->bytes -= chunk->len;
		cache->count--;
		free(chunk->data);
		free(chunk);
	}
}

struct tpd_cached_chunk *tpd_chain_cache_take(struct tpd_chain_cache *cache, const struct tpd_chunk_key *key)
{
	struct tpd_cached_chunk *chunk;

	pthread_mutex_lock(&cache->lock);
	chunk = find(cache, key);
	pthread_mutex_unlock(&cache->lock);
	return chunk;
}

struct tpd_cached_chunk *tpd_chain_cache_put(struct tpd_chain_cache *cache, const struct tpd_chunk_key *key, uint8_t *data, size_t len)
{
	struct tpd_cached_chunk *fresh = malloc(sizeof(*fresh)), *chunk, **place;

	if (!fresh)
		return NULL;
	*fresh = (struct tpd_cached_chunk){.key = *key, .data = data, .len = len, .users = 1};
	pthread_mutex_lock(&cache->lock);
	chunk = find(cache, key);
	if (!chunk) {
		place = bucket_of(cache, key);
		fresh->next = *place;
		*place = fresh;
		cache->bytes += len;
		cache->count++;
		make_room(cache);
	}
	pthread_mutex_unlock(&cache->lock);
	if (!chunk)
		return fresh;
	free(data);
	free(fresh);
	return chunk;
}

void tpd_chain_cache_give(struct tpd_chain_cache *cache, struct tpd_cached_chunk *chunk)
{
	if (!chunk)
		return;
	pthread_mutex_lock(&cache->lock);
	if (--chunk->users == 0) {
		append_use(cache, chunk);
		make_room(cache);
	}
	pthread_mutex_unlock(&cache->lock);
}
