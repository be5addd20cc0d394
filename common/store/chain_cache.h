/*
 * chain_cache.h - decoded chunks that others are put together from, for as long as they are likely to be asked for again.
 *
 * Along a plain chain a chunk is needed once. Where tensors are cut differently, one chunk goes into several that follow one another, and
 * decoding it for each of them could take many times as long. So those, and only those, stay here, least recently used ones go first.
 * Any thread may call all of these at any time.
 */
#ifndef TPD_STORE_CHAIN_CACHE_H
#define TPD_STORE_CHAIN_CACHE_H

#include "base/tpd.h"

struct tpd_chain_cache;

/* Which chunk of a chain it is. */
struct tpd_chunk_key {
	uint32_t link, file, segment;
	uint64_t chunk;
};

/* Of all of it; where it is cut to fewer bits, use the low ones. */
static inline uint32_t tpd_chunk_hash(const struct tpd_chunk_key *key)
{
	uint64_t h = key->chunk * 0x9e3779b97f4a7c15u;

	h = (h ^ h >> 32 ^ key->link) * 0x9e3779b97f4a7c15u;
	h = (h ^ h >> 32 ^ ((uint64_t)key->file << 32 | key->segment)) * 0x9e3779b97f4a7c15u;
	return (uint32_t)(h >> 32);
}

static inline bool tpd_chunk_equal(const struct tpd_chunk_key *a, const struct tpd_chunk_key *b)
{
	return a->chunk == b->chunk && a->segment == b->segment && a->file == b->file && a->link == b->link;
}

struct tpd_cached_chunk {
	struct tpd_chunk_key key;
	uint8_t *data;
	size_t len;
	/* of the cache */
	unsigned users;
	struct tpd_cached_chunk *next;          /* of the same hash */
	struct tpd_cached_chunk *older, *newer; /* of those that nobody uses */
};

/* budget: bytes; what is in use is kept also beyond it. NULL: no memory. */
struct tpd_chain_cache *tpd_chain_cache_new(size_t budget);
void tpd_chain_cache_free(struct tpd_chain_cache *cache); /* nothing is in use any more; NULL is fine */

/* Its bytes do not change and stay until it is given back. NULL: it is not there. */
struct tpd_cached_chunk *tpd_chain_cache_take(struct tpd_chain_cache *cache, const struct tpd_chunk_key *key);
/*
 * Takes `data`, of malloc() and len bytes, over, and is taken by the caller as well. Where another thread was first, data is freed, and it is
 * the other's. NULL: no memory; data is still the caller's.
 */
struct tpd_cached_chunk *tpd_chain_cache_put(struct tpd_chain_cache *cache, const struct tpd_chunk_key *key, uint8_t *data, size_t len);
void tpd_chain_cache_give(struct tpd_chain_cache *cache, struct tpd_cached_chunk *chunk); /* NULL is fine */

#endif
