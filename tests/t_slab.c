/*
 * t_slab.c - slabs: which are allowed, how they are walked, and what is put together from them.
 */
#include "base/tpd.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "codec/codec.h"
#include "random_bits.h"
#include "store/slab.h"

#define ELEMENTS 1000u
#define REF_ELEMENTS 400000u /* of four chunks */
#define ROUNDS 3000

START_TEST(what_fits)
{
	struct tpd_slab slab = {.start = 10, .ref_start = 20, .block = 5, .count = 1};

	ck_assert(tpd_slab_fits(&slab, 15, 25));
	ck_assert(!tpd_slab_fits(&slab, 14, 25));
	ck_assert(!tpd_slab_fits(&slab, 15, 24));
	slab.stride = 1; /* of nothing */
	ck_assert(!tpd_slab_fits(&slab, 15, 25));
	slab.stride = 10;
	slab.ref_stride = 8;
	slab.count = 3;
	ck_assert(!tpd_slab_fits(&slab, 100, 100)); /* too small a block for several */
	slab.block = 8;
	ck_assert(tpd_slab_fits(&slab, 38, 44));
	ck_assert(!tpd_slab_fits(&slab, 37, 44));
	ck_assert(!tpd_slab_fits(&slab, 38, 43));
	slab.ref_stride = 7;
	ck_assert(!tpd_slab_fits(&slab, 38, 44));
	slab.ref_stride = UINT64_MAX / 2;
	ck_assert(!tpd_slab_fits(&slab, UINT64_MAX, UINT64_MAX));
	slab.ref_stride = UINT64_MAX;
	ck_assert(!tpd_slab_fits(&slab, UINT64_MAX, UINT64_MAX));
	slab.ref_stride = 8;
	slab.block = 0;
	ck_assert(!tpd_slab_fits(&slab, 100, 100));
	slab.block = 8;
	slab.count = 0;
	ck_assert(!tpd_slab_fits(&slab, 100, 100));
}
END_TEST

static struct tpd_slab random_slab(void)
{
	struct tpd_slab slab = {.block = TPD_SLAB_BLOCK_MIN + rnd(rnd(4) ? 30 : ELEMENTS), .count = 1 + rnd(rnd(2) ? 1 : 40)};

	if (slab.count > 1) {
		slab.stride = slab.block + rnd(20);
		slab.ref_stride = slab.block + rnd(rnd(2) ? 20 : REF_ELEMENTS / 40);
	}
	slab.start = rnd(ELEMENTS);
	slab.ref_start = rnd(REF_ELEMENTS);
	return slab;
}

/* All that was walked over, element by element, against the definition. */
START_TEST(walks_are_what_the_definition_says)
{
	static uint64_t expect[ELEMENTS], got[ELEMENTS];
	unsigned fitting = 0;

	for (int round = 0; round < ROUNDS; round++) {
		struct tpd_slab slab = random_slab();
		uint64_t low = rnd(ELEMENTS), high = low + rnd(ELEMENTS - low + 1), last = 0;
		struct tpd_slab_walk walk;
		struct tpd_slab_run run;

		if (!tpd_slab_fits(&slab, ELEMENTS, REF_ELEMENTS))
			continue;
		fitting++;
		memset(expect, 0, sizeof(expect));
		memset(got, 0, sizeof(got));
		for (uint64_t b = 0; b < slab.count; b++)
			for (uint64_t i = 0; i < slab.block; i++)
				if (slab.start + b * slab.stride + i >= low && slab.start + b * slab.stride + i < high)
					expect[slab.start + b * slab.stride + i] = 1 + slab.ref_start + b * slab.ref_stride + i;
		walk = tpd_slab_walk(&slab, low, high);
		while (tpd_slab_next(&walk, &run)) {
			ck_assert_uint_ge(run.at, TPD_MAX(last, low));
			ck_assert_uint_gt(run.n, 0);
			last = run.at + run.n;
			ck_assert_uint_le(last, high);
			for (uint64_t i = 0; i < run.n; i++)
				got[run.at + i] = 1 + run.ref_at + i;
		}
		ck_assert_mem_eq(expect, got, sizeof(got));
	}
	ck_assert_uint_gt(fitting, ROUNDS / 10);
}
END_TEST

/* A referenced segment whose elements are their own numbers, of 16 bits. */
struct numbers {
	uint16_t chunk[1u << 17];
	uint64_t have;
	unsigned asked;
	uint64_t elements; /* that there are */
};

static enum tpd_status number_chunk(void *arg, uint32_t file, uint32_t segment, uint64_t chunk, const uint8_t **out_bytes,
				    size_t *out_len, struct tpd_err *err)
{
	struct numbers *numbers = arg;
	uint64_t first = chunk << 17;

	if (file != 3)
		return tpd_fail(err, TPD_NOT_FOUND, "no file %u", file);
	ck_assert_uint_eq(segment, 4);
	numbers->asked++;
	if (numbers->have != chunk)
		for (size_t i = 0; i < 1u << 17; i++)
			numbers->chunk[i] = (uint16_t)(first + i);
	numbers->have = chunk;
	*out_bytes = (const uint8_t *)numbers->chunk;
	*out_len = (size_t)(first >= numbers->elements ? 0 : TPD_MIN(numbers->elements - first, (uint64_t)(1u << 17))) * 2;
	return TPD_OK;
}

START_TEST(gathering)
{
	static struct numbers numbers = {.have = UINT64_MAX, .elements = REF_ELEMENTS};
	uint16_t out[ELEMENTS], expect[ELEMENTS];

	for (int round = 0; round < ROUNDS / 10; round++) {
		struct tpd_slab slabs[4];
		uint32_t count = 0;
		uint64_t low = rnd(ELEMENTS), n = 1 + rnd(ELEMENTS - low);

		memset(expect, 0, sizeof(expect));
		for (unsigned i = 0; i < 4; i++) {
			struct tpd_slab slab = random_slab();
			struct tpd_slab_walk walk = tpd_slab_walk(&slab, low, low + n);
			struct tpd_slab_run run;

			slab.file = 3;
			slab.segment = 4;
			if (!tpd_slab_fits(&slab, ELEMENTS, REF_ELEMENTS))
				continue;
			slabs[count++] = slab;
			while (tpd_slab_next(&walk, &run))
				for (uint64_t j = 0; j < run.n; j++)
					expect[run.at - low + j] = (uint16_t)(run.ref_at + j);
		}
		memset(out, 0xee, sizeof(out));
		ck_assert_int_eq(tpd_slab_gather(slabs, count, TPD_DTYPE_BF16, TPD_DTYPE_BF16, low, n, number_chunk, &numbers, (uint8_t *)out, NULL),
				 TPD_OK);
		ck_assert_mem_eq(out, expect, n * 2);
		if (n < ELEMENTS)
			ck_assert_uint_eq(out[n], 0xeeee);
	}
}
END_TEST

/* A chunk is asked for once however many blocks of a slab lie in it; one that is too short is corrupt, and failures go through. */
START_TEST(asking_for_chunks)
{
	static struct numbers numbers = {.have = UINT64_MAX, .elements = REF_ELEMENTS};
	struct tpd_slab slab = {.file = 3, .segment = 4, .ref_start = (1u << 17) - 50, .block = 10, .stride = 10, .ref_stride = 10,
				.count = 10};
	uint16_t out[100];
	struct tpd_err err = {0};

	ck_assert_int_eq(tpd_slab_gather(&slab, 1, TPD_DTYPE_BF16, TPD_DTYPE_BF16, 0, 100, number_chunk, &numbers, (uint8_t *)out, &err), TPD_OK);
	ck_assert_uint_eq(numbers.asked, 2);
	numbers.elements = (1u << 17) + 40;
	ck_assert_int_eq(tpd_slab_gather(&slab, 1, TPD_DTYPE_BF16, TPD_DTYPE_BF16, 0, 90, number_chunk, &numbers, (uint8_t *)out, &err), TPD_OK);
	ck_assert_int_eq(tpd_slab_gather(&slab, 1, TPD_DTYPE_BF16, TPD_DTYPE_BF16, 0, 91, number_chunk, &numbers, (uint8_t *)out, &err), TPD_CORRUPT);
	slab.file = 2;
	ck_assert_int_eq(tpd_slab_gather(&slab, 1, TPD_DTYPE_BF16, TPD_DTYPE_BF16, 0, 90, number_chunk, &numbers, (uint8_t *)out, &err), TPD_NOT_FOUND);
}
END_TEST

/* Which chunks: each once, whichever slab asks for it. */
START_TEST(chunks_of_slabs)
{
	struct tpd_slab slabs[5] = {
		{.file = 1, .segment = 2, .block = 10, .count = 1, .ref_start = 95},
		{.file = 1, .segment = 2, .block = 10, .count = 5, .start = 10, .stride = 20, .ref_start = 90, .ref_stride = 40},
		{.file = 1, .segment = 3, .block = 10, .count = 5, .start = 20, .stride = 20, .ref_stride = 10},
	};
	const uint64_t expect[] = {0, 1, 2, 0};
	struct tpd_slab_chunk chunks[TPD_SLAB_CHUNKS_MAX];
	uint32_t count = 0;
	struct tpd_err err = {0};

	ck_assert_int_eq(tpd_slab_chunks(slabs, 3, 100, 0, 110, chunks, &count, &err), TPD_OK);
	ck_assert_uint_eq(count, 4);
	for (unsigned i = 0; i < 4; i++) {
		ck_assert_uint_eq(chunks[i].chunk, expect[i]);
		ck_assert_uint_eq(chunks[i].segment, i < 3 ? 2 : 3);
	}
	ck_assert_int_eq(tpd_slab_chunks(slabs, 3, 100, 30, 50, chunks, &count, &err), TPD_OK);
	ck_assert_uint_eq(count, 2);
	for (unsigned i = 0; i < 5; i++)
		slabs[i] = (struct tpd_slab){.file = 1, .segment = 2, .block = 10, .count = 1, .start = 10};
	ck_assert_int_eq(tpd_slab_chunks(slabs, 4, 100, 10, 20, chunks, &count, &err), TPD_OK);
	ck_assert_uint_eq(count, 1);
	ck_assert_int_eq(tpd_slab_chunks(slabs, 5, 100, 10, 20, chunks, &count, &err), TPD_CORRUPT);
	ck_assert_msg(strstr(err.text, "overlap") != NULL, "%s", err.text);
	slabs[0] = (struct tpd_slab){.file = 1, .segment = 2, .block = 8, .count = 65, .stride = 8, .ref_stride = 100};
	ck_assert_int_eq(tpd_slab_chunks(slabs, 1, 100, 0, 64 * 8, chunks, &count, &err), TPD_OK);
	ck_assert_uint_eq(count, 64);
	ck_assert_int_eq(tpd_slab_chunks(slabs, 1, 100, 0, 65 * 8, chunks, &count, &err), TPD_CORRUPT);
	ck_assert_msg(strstr(err.text, "more than 64 chunks") != NULL, "%s", err.text);
}
END_TEST

/* A tensor of 64 x 64 in chunks of 8 rows: as 8 columns of 8 before, and one of these columns from whole rows. */
START_TEST(what_it_takes)
{
	struct tpd_slab slabs[8];
	struct tpd_slab_cost cost;
	uint64_t budget = TPD_SLAB_BUDGET;

	for (unsigned i = 0; i < 8; i++)
		slabs[i] = (struct tpd_slab){.file = i, .segment = 1, .block = 8, .count = 64, .start = 8 * i, .stride = 64, .ref_stride = 8};
	cost = tpd_slab_weigh(slabs, 8, 512, 4096, &budget);
	ck_assert_uint_eq(cost.most, 8);
	ck_assert_uint_eq(cost.reads, 8); /* each column is one chunk, which all eight need */
	slabs[0] = (struct tpd_slab){.segment = 1, .block = 8, .count = 64, .stride = 8, .ref_stride = 64};
	cost = tpd_slab_weigh(slabs, 1, 512, 512, &budget);
	ck_assert_uint_eq(cost.most, 8);
	ck_assert_uint_eq(cost.reads, 8);
	slabs[0] = (struct tpd_slab){.segment = 1, .block = 4000, .count = 1, .ref_start = 96};
	cost = tpd_slab_weigh(slabs, 1, 512, 4000, &budget);
	ck_assert_uint_eq(cost.most, 2);
	ck_assert_uint_eq(cost.reads, 8);
	slabs[0] = (struct tpd_slab){.segment = 1, .block = 8, .count = 512, .stride = 8, .ref_stride = 512};
	ck_assert_uint_eq(tpd_slab_weigh(slabs, 1, 512, 4096, &budget).most, 64);
	ck_assert_uint_eq(tpd_slab_weigh(slabs, 1, 1024, 4096, &budget).most, 64);
	slabs[0].ref_stride = 1024;
	ck_assert_uint_eq(tpd_slab_weigh(slabs, 1, 1024, 4096, &budget).most, UINT64_MAX);
	budget = 8 * 9 + 8 * 64 + 1; /* looks at slabs, blocks */
	for (unsigned i = 0; i < 8; i++)
		slabs[i] = (struct tpd_slab){.file = i, .segment = 1, .block = 8, .count = 64, .start = 8 * i, .stride = 64, .ref_stride = 8};
	ck_assert_uint_eq(tpd_slab_weigh(slabs, 8, 512, 4095, &budget).most, 8);
	ck_assert_uint_eq(budget, 1);
	ck_assert_uint_eq(tpd_slab_weigh(slabs, 1, 512, 8, &budget).most, UINT64_MAX);
	budget = TPD_SLAB_BUDGET;
	slabs[0].count = UINT64_MAX / 512; /* more than anybody counts */
	slabs[1] = slabs[0];
	ck_assert_uint_eq(tpd_slab_weigh(slabs, 2, 512, UINT64_MAX, &budget).most, UINT64_MAX);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("slab");
	TCase *tests = tcase_create("slab");
	SRunner *runner = srunner_create(suite);
	int failed;

	suite_add_tcase(suite, tests);
	tcase_set_timeout(tests, 120);
	tcase_add_test(tests, what_fits);
	tcase_add_test(tests, walks_are_what_the_definition_says);
	tcase_add_test(tests, gathering);
	tcase_add_test(tests, asking_for_chunks);
	tcase_add_test(tests, chunks_of_slabs);
	tcase_add_test(tests, what_it_takes);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
