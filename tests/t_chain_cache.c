/*
 * t_chain_cache.c - the cache of decoded chunks: what it keeps, what it lets go of, and threads that ask for the same chunk.
 */
#include "base/tpd.h"

#include <check.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "store/chain_cache.h"

#define LEN 1000u

static struct tpd_chunk_key key(uint64_t chunk)
{
	return (struct tpd_chunk_key){.link = 1, .file = 2, .segment = 3, .chunk = chunk};
}

/* Of bytes that tell which it is. */
static struct tpd_cached_chunk *put(struct tpd_chain_cache *cache, const struct tpd_chunk_key *k)
{
	uint8_t *data = malloc(LEN);

	memset(data, (int)(k->chunk & 0xff), LEN);
	return tpd_chain_cache_put(cache, k, data, LEN);
}

static bool has(struct tpd_chain_cache *cache, const struct tpd_chunk_key *k)
{
	struct tpd_cached_chunk *chunk = tpd_chain_cache_take(cache, k);

	if (!chunk)
		return false;
	ck_assert_uint_eq(chunk->len, LEN);
	ck_assert_uint_eq(chunk->data[LEN - 1], k->chunk & 0xff);
	tpd_chain_cache_give(cache, chunk);
	return true;
}

START_TEST(the_oldest_goes_first)
{
	struct tpd_chain_cache *cache = tpd_chain_cache_new(4 * LEN);

	for (uint64_t c = 0; c < 4; c++) {
		struct tpd_chunk_key k = key(c);

		tpd_chain_cache_give(cache, put(cache, &k));
	}
	ck_assert(has(cache, &(struct tpd_chunk_key){1, 2, 3, 0})); /* now 1 is the oldest */
	tpd_chain_cache_give(cache, put(cache, &(struct tpd_chunk_key){1, 2, 3, 4}));
	for (uint64_t c = 0; c < 5; c++) {
		struct tpd_chunk_key k = key(c);

		ck_assert_int_eq(has(cache, &k), c != 1);
	}
	ck_assert(!has(cache, &(struct tpd_chunk_key){2, 2, 3, 0}));
	ck_assert(!has(cache, &(struct tpd_chunk_key){1, 1, 3, 0}));
	ck_assert(!has(cache, &(struct tpd_chunk_key){1, 2, 2, 0}));
	tpd_chain_cache_free(cache);
	tpd_chain_cache_free(NULL);
}
END_TEST

/* What is in use stays, beyond the budget if it must; then it goes as the others do. */
START_TEST(what_is_in_use_stays)
{
	struct tpd_chain_cache *cache = tpd_chain_cache_new(2 * LEN);
	struct tpd_cached_chunk *used[5];

	for (uint64_t c = 0; c < 5; c++) {
		struct tpd_chunk_key k = key(c);

		used[c] = put(cache, &k);
		ck_assert_ptr_nonnull(used[c]);
	}
	for (uint64_t c = 0; c < 5; c++)
		ck_assert_uint_eq(used[c]->data[0], c);
	for (uint64_t c = 0; c < 5; c++)
		tpd_chain_cache_give(cache, used[c]);
	for (uint64_t c = 0; c < 5; c++) {
		struct tpd_chunk_key k = key(c);

		ck_assert_int_eq(has(cache, &k), c >= 3);
	}
	tpd_chain_cache_give(cache, NULL);
	tpd_chain_cache_free(cache);
}
END_TEST

/* Of two that decoded the same chunk the second gets the first one's. */
START_TEST(the_first_stays)
{
	struct tpd_chain_cache *cache = tpd_chain_cache_new(10 * LEN);
	struct tpd_chunk_key k = key(7);
	struct tpd_cached_chunk *first = put(cache, &k), *second = put(cache, &k);

	ck_assert_ptr_eq(first, second);
	tpd_chain_cache_give(cache, first);
	ck_assert_uint_eq(second->data[0], 7);
	tpd_chain_cache_give(cache, second);
	tpd_chain_cache_free(cache);
}
END_TEST

static void *use(void *arg)
{
	struct tpd_chain_cache *cache = arg;
	uint32_t state = (uint32_t)(uintptr_t)&cache;

	for (int i = 0; i < 20000; i++) {
		struct tpd_chunk_key k;
		struct tpd_cached_chunk *chunk;

		state = state * 1664525u + 1013904223u;
		k = key(state >> 28);
		chunk = tpd_chain_cache_take(cache, &k);
		if (!chunk)
			chunk = put(cache, &k);
		if (chunk->data[0] != k.chunk || chunk->data[LEN - 1] != k.chunk)
			return (void *)(uintptr_t)1;
		tpd_chain_cache_give(cache, chunk);
	}
	return NULL;
}

START_TEST(threads)
{
	struct tpd_chain_cache *cache = tpd_chain_cache_new(6 * LEN);
	pthread_t thread[4];

	for (unsigned t = 0; t < 4; t++)
		ck_assert_int_eq(pthread_create(&thread[t], NULL, use, cache), 0);
	for (unsigned t = 0; t < 4; t++) {
		void *fault = NULL;

		ck_assert_int_eq(pthread_join(thread[t], &fault), 0);
		ck_assert_ptr_null(fault);
	}
	tpd_chain_cache_free(cache);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("chain cache");
	TCase *tests = tcase_create("chain cache");
	SRunner *runner = srunner_create(suite);
	int failed;

	suite_add_tcase(suite, tests);
	tcase_set_timeout(tests, 120);
	tcase_add_test(tests, the_oldest_goes_first);
	tcase_add_test(tests, what_is_in_use_stays);
	tcase_add_test(tests, the_first_stays);
	tcase_add_test(tests, threads);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
