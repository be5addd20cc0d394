/* t_settle.c - every way through the state machine; time is whatever a test says. */
#include "base/tpd.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/settle.h"

#define PATH "/w/checkpoint-20"

static struct tpd_settle *settle;

static void make(void)
{
	ck_assert_int_eq(tpd_settle_new(&settle, NULL), TPD_OK);
	ck_assert_int_eq(tpd_settle_set_watch(settle, 0, 5000, 600000, NULL), TPD_OK);
}

static void drop(void)
{
	tpd_settle_free(settle);
}

/* A sight with everything at rest since long before the files' times matter. */
static struct tpd_seen sight(enum tpd_readiness readiness, uint64_t signature)
{
	return (struct tpd_seen){
		.path = PATH,
		.run = "r",
		.step = 20,
		.readiness = readiness,
		.signature = signature,
		.count = 8,
		.bytes = 800,
		.newest_ns = (int64_t)signature,
	};
}

static void see(struct tpd_seen seen, uint64_t now)
{
	ck_assert_int_eq(tpd_settle_seen(settle, &seen, now, NULL), TPD_OK);
}

static void expect_none(uint64_t now)
{
	struct tpd_settle_order order = tpd_settle_next(settle, now, true);

	ck_assert_msg(order.action == TPD_SETTLE_NONE, "%d for %s at %llu", order.action, order.path,
		      (unsigned long long)now);
}

static void expect_look(uint64_t now)
{
	struct tpd_settle_order order = tpd_settle_next(settle, now, true);

	ck_assert_int_eq(order.action, TPD_SETTLE_LOOK);
	ck_assert_str_eq(order.path, PATH);
	expect_none(now);
}

/* Returns the generation. */
static uint32_t expect_capture(uint64_t now)
{
	struct tpd_settle_order order = tpd_settle_next(settle, now, true);

	ck_assert_int_eq(order.action, TPD_SETTLE_CAPTURE);
	ck_assert_str_eq(order.path, PATH);
	ck_assert_str_eq(order.run, "r");
	ck_assert_uint_eq(order.step, 20);
	expect_none(now);
	return order.generation;
}

/* From nothing to STORED with signature 1. */
static void store_it(uint64_t now)
{
	uint32_t generation;

	see(sight(TPD_SEEN_COMPLETE, 1), now);
	generation = expect_capture(now);
	ck_assert(tpd_settle_captured(settle, PATH, generation));
	tpd_settle_done(settle, PATH, generation);
	expect_none(now + 1000000);
}

START_TEST(nothing)
{
	ck_assert_uint_eq(tpd_settle_due(settle), UINT64_MAX);
	expect_none(0);
	ck_assert(!tpd_settle_gone(settle, PATH));
	tpd_settle_done(settle, PATH, 1);
	tpd_settle_void(settle, PATH, 1, 5);
	ck_assert(!tpd_settle_captured(settle, PATH, 1));
}
END_TEST

START_TEST(complete_by_marker)
{
	struct tpd_settle_order order;

	see(sight(TPD_SEEN_WAITING, 1), 1000);
	ck_assert_uint_eq(tpd_settle_due(settle), 601000); /* time alone does nothing but tell */
	expect_none(600999);
	see(sight(TPD_SEEN_COMPLETE, 2), 1000000);
	order = tpd_settle_next(settle, 1000000, true);
	ck_assert_int_eq(order.action, TPD_SETTLE_CAPTURE);
	ck_assert_uint_eq(order.quiet_ms, 1000);
	ck_assert_uint_eq(order.count, 8);
	ck_assert_uint_eq(order.bytes, 800);
	expect_none(1000000);
}
END_TEST

/* A checkpoint that never gets its marker is told of, once for each state of it. */
/* Saved more often than it settles: for stall_ms nobody is told, then once, and again only after it was captured. */
START_TEST(restless_is_told_once)
{
	struct tpd_seen seen = sight(TPD_SEEN_SETTLING, 1);
	unsigned told = 0;
	uint64_t now = 1000;

	for (; now < 2000000; now += 3000) {
		enum tpd_settle_action action;

		seen.signature++;
		see(seen, now);
		action = tpd_settle_next(settle, now, true).action;
		if (action == TPD_SETTLE_RESTLESS)
			ck_assert_uint_ge(now, 601000);
		told += action == TPD_SETTLE_RESTLESS;
		ck_assert(action == TPD_SETTLE_RESTLESS || action == TPD_SETTLE_NONE);
		expect_none(now);
	}
	ck_assert_uint_eq(told, 1);
	see(seen, now + 10000); /* at rest, at last */
	ck_assert(tpd_settle_captured(settle, PATH, expect_capture(now + 10000)));
	seen.signature++;
	see(seen, now + 20000); /* the time begins anew */
	expect_none(now + 20000);
}
END_TEST

START_TEST(stalled_is_told_once)
{
	struct tpd_seen seen = sight(TPD_SEEN_WAITING, 1);
	struct tpd_settle_order order;

	strcpy(seen.waits.text, "its marker");
	see(seen, 1000);
	order = tpd_settle_next(settle, 601000, true);
	ck_assert_int_eq(order.action, TPD_SETTLE_STALLED);
	ck_assert_str_eq(order.waits, "its marker");
	ck_assert_str_eq(order.path, PATH);
	expect_none(10000000);
	see(seen, 10000000); /* seen again, and the same */
	expect_none(20000000);
	seen.signature = 2;
	see(seen, 20000000);
	expect_none(20599999);
	ck_assert_int_eq(tpd_settle_next(settle, 20600000, true).action, TPD_SETTLE_STALLED);
	see(sight(TPD_SEEN_COMPLETE, 3), 20600001); /* and yet */
	expect_capture(20600001);
}
END_TEST

static uint64_t told_retry_ms;

static void count_unfinished(void *arg, const struct tpd_unfinished_sight *sight)
{
	++*(unsigned *)arg;
	ck_assert_str_eq(sight->path, PATH);
	ck_assert_str_eq(sight->run, "r");
	told_retry_ms = sight->retry_ms;
}

START_TEST(unfinished_ones_are_listed)
{
	unsigned count = 0;
	uint32_t generation;

	see(sight(TPD_SEEN_COMPLETE, 1), 10);
	tpd_settle_unfinished(settle, 10, count_unfinished, &count);
	ck_assert_uint_eq(count, 1);
	generation = expect_capture(10);
	tpd_settle_captured(settle, PATH, generation);
	tpd_settle_unfinished(settle, 10, count_unfinished, &count);
	ck_assert_uint_eq(count, 1);
}
END_TEST

START_TEST(quiet_is_short_when_it_was_quiet_before)
{
	struct tpd_seen seen = sight(TPD_SEEN_COMPLETE, 1);
	struct tpd_settle_order order;

	seen.quiet_ms = 400;
	see(seen, 9000);
	order = tpd_settle_next(settle, 9000, true);
	ck_assert_uint_eq(order.quiet_ms, 600);
	/* and never longer than settle */
	tpd_settle_gone(settle, PATH);
	tpd_settle_done(settle, PATH, order.generation);
	tpd_settle_set_watch(settle, 0, 300, 600000, NULL);
	see(sight(TPD_SEEN_COMPLETE, 1), 20000);
	ck_assert_uint_eq(tpd_settle_next(settle, 20000, true).quiet_ms, 300);
}
END_TEST

START_TEST(settles)
{
	see(sight(TPD_SEEN_SETTLING, 1), 1000);
	ck_assert_uint_eq(tpd_settle_due(settle), 6000);
	expect_none(5999);
	expect_look(6000);
	see(sight(TPD_SEEN_SETTLING, 2), 6001); /* it had grown */
	ck_assert_uint_le(tpd_settle_due(settle), 11001);
	expect_none(11000);
	expect_look(11001);
	see(sight(TPD_SEEN_SETTLING, 2), 11002);
	expect_capture(11002);
}
END_TEST

START_TEST(a_look_before_the_time_proves_nothing)
{
	see(sight(TPD_SEEN_SETTLING, 1), 1000);
	see(sight(TPD_SEEN_SETTLING, 1), 5900);
	expect_none(5999);
	expect_look(6000);
	expect_look(11000); /* nobody looked: asked again, after another time */
}
END_TEST

START_TEST(at_rest_for_long)
{
	struct tpd_seen seen = sight(TPD_SEEN_SETTLING, 1);

	seen.quiet_ms = 5000;
	see(seen, 100); /* more than the clock itself says */
	seen.path = "/w/other";
	seen.quiet_ms = 4999;
	see(seen, 100);
	expect_capture(100);
}
END_TEST

START_TEST(settle_of_nothing)
{
	tpd_settle_set_watch(settle, 0, 0, 600000, NULL);
	see(sight(TPD_SEEN_SETTLING, 1), 50);
	expect_capture(50);
}
END_TEST

START_TEST(empty_is_no_checkpoint)
{
	struct tpd_seen seen = sight(TPD_SEEN_SETTLING, 1);

	seen.count = 0;
	see(seen, 1000);
	expect_look(6000);
	see(seen, 6000);
	expect_look(20000);
}
END_TEST

START_TEST(candidate_that_changes_before_it_is_captured)
{
	see(sight(TPD_SEEN_COMPLETE, 1), 10);
	ck_assert_int_eq(tpd_settle_next(settle, 10, false).action, TPD_SETTLE_NONE); /* no room for captures */
	see(sight(TPD_SEEN_SETTLING, 2), 20);
	expect_none(20);
	expect_look(5020);
}
END_TEST

START_TEST(room_for_captures)
{
	struct tpd_seen second = sight(TPD_SEEN_COMPLETE, 1);

	see(sight(TPD_SEEN_COMPLETE, 1), 10);
	ck_assert_int_eq(tpd_settle_next(settle, 10, false).action, TPD_SETTLE_NONE);
	ck_assert_uint_eq(tpd_settle_due(settle), UINT64_MAX); /* no timer helps: room does */
	second.path = "/w/second";
	second.step = 30;
	see(second, 10);
	ck_assert_int_eq(tpd_settle_next(settle, 10, false).action, TPD_SETTLE_NONE);
	ck_assert_uint_eq(tpd_settle_next(settle, 11, true).step, 20);
	ck_assert_uint_eq(tpd_settle_next(settle, 11, true).step, 30);
	expect_none(11);
}
END_TEST

/* Three are complete and there is never room for more than one: each gets its turn. */
START_TEST(all_get_room_in_the_end)
{
	static const char *const paths[] = {"/w/r/1", "/w/r/2", "/w/r/3"};

	for (size_t i = 0; i < TPD_ARRAY_LEN(paths); i++) {
		struct tpd_seen seen = sight(TPD_SEEN_COMPLETE, 1);

		seen.path = paths[i];
		seen.step = i + 1;
		see(seen, 0);
	}
	for (size_t i = 0; i < TPD_ARRAY_LEN(paths); i++) {
		struct tpd_settle_order order;

		ck_assert_int_eq(tpd_settle_next(settle, 10 * i, false).action, TPD_SETTLE_NONE);
		order = tpd_settle_next(settle, 10 * i + 1, true);
		ck_assert_int_eq(order.action, TPD_SETTLE_CAPTURE);
		ck_assert_str_eq(order.path, paths[i]);
		ck_assert_int_eq(tpd_settle_next(settle, 10 * i + 2, false).action, TPD_SETTLE_NONE);
		ck_assert(tpd_settle_captured(settle, paths[i], order.generation));
		tpd_settle_done(settle, paths[i], order.generation);
	}
}
END_TEST

START_TEST(change_during_capture_voids_it)
{
	uint32_t generation;

	see(sight(TPD_SEEN_COMPLETE, 1), 10);
	generation = expect_capture(10);
	tpd_settle_void(settle, PATH, generation, 500);
	expect_look(500);
	see(sight(TPD_SEEN_COMPLETE, 2), 501);
	ck_assert_uint_eq(expect_capture(501), generation + 1);
	tpd_settle_void(settle, PATH, generation, 600); /* late news of the first */
	expect_none(600);
	ck_assert(!tpd_settle_captured(settle, PATH, generation));
	ck_assert(tpd_settle_captured(settle, PATH, generation + 1));
}
END_TEST

/* What cannot be read is tried again, ever later; a change (its mode, say) begins anew. */
START_TEST(unreadable_is_tried_again_later)
{
	uint64_t now = 10, delay_ms, wanted = 5000;
	unsigned tries = 0;

	see(sight(TPD_SEEN_COMPLETE, 1), now);
	for (unsigned i = 1; i <= 9; i++) {
		delay_ms = tpd_settle_failed(settle, PATH, expect_capture(now), now, &tries);
		ck_assert_uint_eq(delay_ms, wanted);
		ck_assert_uint_eq(tries, i);
		wanted = TPD_MIN(2 * wanted, (uint64_t)600000);
		see(sight(TPD_SEEN_COMPLETE, 1), now + 1); /* the same again proves nothing */
		expect_none(now + delay_ms - 1);
		now += delay_ms;
		expect_look(now);
		see(sight(TPD_SEEN_COMPLETE, 1), now);
	}
	ck_assert_uint_eq(wanted, 600000);
	tpd_settle_failed(settle, PATH, expect_capture(now), now, &tries);
	see(sight(TPD_SEEN_COMPLETE, 2), now + 1);
	ck_assert_uint_eq(tpd_settle_failed(settle, PATH, expect_capture(now + 1), now + 1, &tries), 5000);
	ck_assert_uint_eq(tries, 1);
}
END_TEST

/* Or when somebody asks for it. */
START_TEST(unreadable_is_tried_again_on_request)
{
	unsigned tries = 0, count = 0;

	see(sight(TPD_SEEN_COMPLETE, 1), 10);
	ck_assert_uint_eq(tpd_settle_retry(settle, 10), 0);
	ck_assert_uint_eq(tpd_settle_failed(settle, PATH, expect_capture(10), 10, &tries), 5000);
	tpd_settle_unfinished(settle, 10, count_unfinished, &count);
	ck_assert_uint_eq(told_retry_ms, 5010);
	expect_none(20);
	ck_assert_uint_eq(tpd_settle_retry(settle, 20), 1);
	ck_assert_uint_eq(tpd_settle_retry(settle, 20), 0);
	expect_look(20);
	see(sight(TPD_SEEN_COMPLETE, 1), 21);
	ck_assert_uint_eq(tpd_settle_failed(settle, PATH, expect_capture(21), 21, &tries), 10000);
	ck_assert_uint_eq(tries, 2);
}
END_TEST

/* Captures that come to nothing though nothing changes must not keep a CPU busy. */
START_TEST(void_again_and_again)
{
	uint64_t now = 10;

	see(sight(TPD_SEEN_COMPLETE, 1), now);
	for (unsigned i = 1; i <= 12; i++) {
		uint64_t due;

		tpd_settle_void(settle, PATH, expect_capture(now), now);
		due = tpd_settle_due(settle);
		ck_assert_uint_eq(due - now, i <= 3 ? 0 : TPD_MIN(500ull << (i - 4), 60000ull));
		now = due;
		expect_look(now);
		see(sight(TPD_SEEN_COMPLETE, 1), now);
	}
	tpd_settle_void(settle, PATH, expect_capture(now), now);
	see(sight(TPD_SEEN_COMPLETE, 2), now + 1); /* it did change */
	expect_capture(now + 1);
}
END_TEST

/* Gone while it was captured, and the capture came to nothing: somebody must say so. */
START_TEST(lost_during_capture_is_told)
{
	uint32_t generation;
	unsigned tries = 0;

	see(sight(TPD_SEEN_COMPLETE, 1), 10);
	generation = expect_capture(10);
	ck_assert(!tpd_settle_gone(settle, PATH));
	ck_assert(tpd_settle_void(settle, PATH, generation, 20));
	ck_assert(!tpd_settle_void(settle, PATH, generation, 20)); /* once */
	see(sight(TPD_SEEN_COMPLETE, 1), 30);
	generation = expect_capture(30);
	ck_assert(!tpd_settle_gone(settle, PATH));
	ck_assert_uint_eq(tpd_settle_failed(settle, PATH, generation, 40, &tries), 0);
	ck_assert_uint_eq(tpd_settle_count(settle, UINT32_MAX).checkpoints, 0);
}
END_TEST

START_TEST(change_seen_during_capture_is_looked_at_afterwards)
{
	uint32_t generation;

	see(sight(TPD_SEEN_COMPLETE, 1), 10);
	generation = expect_capture(10);
	see(sight(TPD_SEEN_SETTLING, 2), 20);
	expect_none(9000);
	ck_assert(tpd_settle_captured(settle, PATH, generation)); /* the descriptors say that it is whole */
	tpd_settle_done(settle, PATH, generation);
	expect_look(9000);
	see(sight(TPD_SEEN_SETTLING, 2), 9000);
	expect_capture(9000);
}
END_TEST

START_TEST(rewritten_after_stored)
{
	store_it(10);
	see(sight(TPD_SEEN_COMPLETE, 1), 2000000); /* the same: nothing */
	expect_none(2000000);
	see(sight(TPD_SEEN_SETTLING, 2), 2000100); /* the old marker stands beside new files */
	expect_none(2005099);
	see(sight(TPD_SEEN_COMPLETE, 3), 2005099);
	ck_assert_uint_eq(expect_capture(2005099), 2);
}
END_TEST

START_TEST(rewritten_while_queued)
{
	uint32_t first, second;

	see(sight(TPD_SEEN_COMPLETE, 1), 10);
	first = expect_capture(10);
	ck_assert(tpd_settle_captured(settle, PATH, first));
	see(sight(TPD_SEEN_COMPLETE, 2), 20);
	second = expect_capture(20);
	tpd_settle_done(settle, PATH, first); /* says nothing about the second */
	ck_assert(tpd_settle_captured(settle, PATH, second));
	tpd_settle_done(settle, PATH, second);
	expect_none(1000000);
}
END_TEST

START_TEST(rotation_is_no_new_version)
{
	struct tpd_seen rest = sight(TPD_SEEN_COMPLETE, 7);

	store_it(10);
	rest.count = 5;
	rest.bytes = 500;
	rest.newest_ns = 1;
	see(rest, 20);
	expect_none(1000000);
	rest.signature = 8;
	rest.count = 1;
	see(rest, 21);
	expect_none(1000000);
	ck_assert(!tpd_settle_gone(settle, PATH));
	ck_assert_uint_eq(tpd_settle_count(settle, UINT32_MAX).checkpoints, 0);
}
END_TEST

/* From nothing to REFUSED with signature 7. */
static void refuse_it(uint64_t now)
{
	see(sight(TPD_SEEN_COMPLETE, 7), now);
	tpd_settle_refused(settle, PATH, expect_capture(now));
	ck_assert(tpd_settle_is_refused(settle, PATH));
	ck_assert_uint_eq(tpd_settle_count(settle, UINT32_MAX).refused, 1);
	ck_assert_uint_eq(tpd_settle_count(settle, UINT32_MAX).unfinished, 0);
	see(sight(TPD_SEEN_COMPLETE, 7), now + 1);
	expect_none(now + 1000000);
}

/* Of what was refused nothing is stored: a file that goes away may have been the reason. */
START_TEST(refused_is_taken_up_when_a_file_goes_away)
{
	struct tpd_seen rest = sight(TPD_SEEN_SETTLING, 8); /* its marker says nothing of a deletion */
	uint32_t generation;

	refuse_it(10);
	rest.count = 7;
	rest.newest_ns = 7;
	see(rest, 2000000);
	expect_none(2004999);
	expect_look(2005000);
	see(rest, 2005001);
	generation = expect_capture(2005001);
	ck_assert(tpd_settle_captured(settle, PATH, generation));
	rest.signature = 9; /* another one goes away while it waits, and what was captured cannot be stored either */
	rest.count = 6;
	see(rest, 2005100);
	tpd_settle_refused(settle, PATH, generation);
	ck_assert(!tpd_settle_is_refused(settle, PATH));
	expect_none(2010099);
	expect_look(2010100);
	see(rest, 2010100);
	expect_capture(2010100);
}
END_TEST

START_TEST(refused_is_taken_up_when_it_changes_or_on_request)
{
	uint32_t generation;

	refuse_it(10);
	ck_assert_uint_eq(tpd_settle_retry(settle, 2000000), 1);
	ck_assert_uint_eq(tpd_settle_retry(settle, 2000000), 0);
	expect_look(2000000);
	see(sight(TPD_SEEN_COMPLETE, 7), 2000001);
	tpd_settle_refused(settle, PATH, expect_capture(2000001));
	see(sight(TPD_SEEN_COMPLETE, 8), 3000000); /* written over: its marker tells, as ever */
	generation = expect_capture(3000000);
	tpd_settle_refused(settle, PATH, generation - 1); /* late news */
	ck_assert(!tpd_settle_gone(settle, PATH));
	tpd_settle_refused(settle, PATH, generation);
	ck_assert_uint_eq(tpd_settle_count(settle, UINT32_MAX).checkpoints, 0); /* gone meanwhile */
	refuse_it(4000000);
	ck_assert(!tpd_settle_gone(settle, PATH)); /* that it is not stored was told */
	ck_assert_uint_eq(tpd_settle_count(settle, UINT32_MAX).checkpoints, 0);
}
END_TEST

START_TEST(fewer_but_newer_files_are_new)
{
	struct tpd_seen next = sight(TPD_SEEN_COMPLETE, 7);

	store_it(10);
	next.count = 5;
	next.newest_ns = 2;
	see(next, 20);
	expect_capture(20);
}
END_TEST

START_TEST(deleted_while_captured)
{
	uint32_t generation;

	see(sight(TPD_SEEN_COMPLETE, 1), 10);
	generation = expect_capture(10);
	ck_assert(!tpd_settle_gone(settle, PATH)); /* the descriptors hold it: not lost */
	ck_assert_uint_eq(tpd_settle_count(settle, UINT32_MAX).checkpoints, 0);
	ck_assert(tpd_settle_captured(settle, PATH, generation));
	tpd_settle_done(settle, PATH, generation);
	ck_assert(!tpd_settle_captured(settle, PATH, generation)); /* forgotten */
}
END_TEST

START_TEST(deleted_and_void)
{
	uint32_t generation;

	see(sight(TPD_SEEN_COMPLETE, 1), 10);
	generation = expect_capture(10);
	tpd_settle_gone(settle, PATH);
	tpd_settle_void(settle, PATH, generation, 20);
	expect_none(1000000);
	see(sight(TPD_SEEN_COMPLETE, 1), 2000000); /* and it comes back */
	expect_capture(2000000);
}
END_TEST

START_TEST(lost)
{
	see(sight(TPD_SEEN_WAITING, 1), 10);
	ck_assert(!tpd_settle_gone(settle, PATH)); /* never complete */
	see(sight(TPD_SEEN_COMPLETE, 1), 10);
	ck_assert(tpd_settle_gone(settle, PATH)); /* complete, and nobody had it */
	expect_none(1000);
}
END_TEST

/* --- ranks --- */

static struct tpd_seen ranks(uint64_t step, uint64_t count, uint64_t span, char path[64])
{
	struct tpd_seen seen = sight(TPD_SEEN_COMPLETE, step * 100 + count);

	snprintf(path, 64, "/w/checkpoint-%llu", (unsigned long long)step);
	seen.path = path;
	seen.step = step;
	seen.ranks = count;
	seen.rank_span = span;
	return seen;
}

static void take(uint64_t now, uint64_t step)
{
	struct tpd_settle_order order = tpd_settle_next(settle, now, true);

	ck_assert_int_eq(order.action, TPD_SETTLE_CAPTURE);
	ck_assert_uint_eq(order.step, step);
	ck_assert(tpd_settle_captured(settle, order.path, order.generation));
	order = tpd_settle_next(settle, now, true);
	ck_assert_int_eq(order.action, TPD_SETTLE_NONE);
}

START_TEST(ranks_of_the_checkpoint_before)
{
	char a[64], b[64];

	/* the first: several ranks, nobody knows how many: settle */
	see(ranks(20, 1, 1, a), 1000);
	expect_none(5999);
	see(ranks(20, 4, 4, a), 1500);
	ck_assert_int_eq(tpd_settle_next(settle, 6500, true).action, TPD_SETTLE_LOOK);
	see(ranks(20, 4, 4, a), 6500);
	take(6500, 20);
	/* the next: complete with its fourth, whichever comes last */
	see(ranks(40, 1, 1, b), 7000);
	see(ranks(40, 3, 4, b), 7100);
	expect_none(7100);
	see(ranks(40, 4, 4, b), 7200);
	take(7200, 40);
	/* fewer ranks from now on: taken after the time to settle */
	see(ranks(60, 2, 2, a), 8000);
	expect_none(12999);
	ck_assert_int_eq(tpd_settle_next(settle, 13000, true).action, TPD_SETTLE_LOOK);
	see(ranks(60, 2, 2, a), 13000);
	take(13000, 60);
	see(ranks(80, 2, 2, b), 14000);
	take(14000, 80);
}
END_TEST

START_TEST(one_process)
{
	char a[64], b[64];

	see(ranks(20, 0, 0, a), 1000); /* rng_state.pth only */
	take(1000, 20);
	see(ranks(40, 0, 0, b), 1100);
	take(1100, 40);
	see(ranks(60, 1, 1, a), 1200); /* now with several: unknown again */
	expect_none(1200);
}
END_TEST

/* --- many --- */

START_TEST(captures_come_by_run_and_step)
{
	static const struct {
		const char *path, *run;
		uint64_t step;
	} all[] = {{"/w/b/9", "b", 9}, {"/w/a/100", "a", 100}, {"/w/a/20", "a", 20}, {"/w/b/1", "b", 1}};
	static const char *const order[] = {"/w/a/20", "/w/a/100", "/w/b/1", "/w/b/9"};

	for (size_t i = 0; i < TPD_ARRAY_LEN(all); i++) {
		struct tpd_seen seen = sight(TPD_SEEN_COMPLETE, 1);

		seen.path = all[i].path;
		seen.run = all[i].run;
		seen.step = all[i].step;
		seen.watch = all[i].run[0] == 'b';
		see(seen, 10);
	}
	ck_assert(tpd_settle_capturing_below(settle, "a", 100));
	ck_assert(!tpd_settle_capturing_below(settle, "a", 20));
	ck_assert_uint_eq(tpd_settle_count(settle, UINT32_MAX).runs, 2);
	ck_assert_uint_eq(tpd_settle_count(settle, UINT32_MAX).checkpoints, 4);
	ck_assert_uint_eq(tpd_settle_count(settle, 1).runs, 1);
	ck_assert_uint_eq(tpd_settle_count(settle, 1).unfinished, 2);
	for (size_t i = 0; i < TPD_ARRAY_LEN(order); i++) {
		struct tpd_settle_order next = tpd_settle_next(settle, 10, true);

		ck_assert_str_eq(next.path, order[i]);
		ck_assert(tpd_settle_captured(settle, next.path, next.generation));
		tpd_settle_done(settle, next.path, next.generation);
	}
	expect_none(10);
	ck_assert_uint_eq(tpd_settle_count(settle, UINT32_MAX).unfinished, 0);
	tpd_settle_drop_watch(settle, 1);
	ck_assert_uint_eq(tpd_settle_count(settle, UINT32_MAX).checkpoints, 2);
}
END_TEST

START_TEST(each_watch_has_its_time)
{
	struct tpd_seen seen = sight(TPD_SEEN_SETTLING, 1);

	tpd_settle_set_watch(settle, 3, 100, 600000, NULL);
	seen.watch = 3;
	see(seen, 1000);
	expect_look(1100);
	tpd_settle_set_watch(settle, 3, 2000, 600000, NULL); /* the configuration changed */
	expect_none(2999);
	expect_look(3000);
}
END_TEST

START_TEST(thousands)
{
	char path[64];

	for (unsigned i = 0; i < 5000; i++) {
		struct tpd_seen seen = sight(TPD_SEEN_SETTLING, i);

		snprintf(path, sizeof path, "/w/r%u/checkpoint-%u", i % 7, i);
		seen.path = path;
		seen.step = i;
		seen.quiet_ms = 60000;
		see(seen, 60000);
	}
	for (unsigned i = 0; i < 5000; i++) {
		struct tpd_settle_order order = tpd_settle_next(settle, 60000, true);

		ck_assert_int_eq(order.action, TPD_SETTLE_CAPTURE);
		snprintf(path, sizeof path, "%s", order.path);
		if (i % 2)
			tpd_settle_gone(settle, path);
		tpd_settle_done(settle, path, order.generation);
	}
	ck_assert_uint_eq(tpd_settle_count(settle, UINT32_MAX).checkpoints, 2500);
	expect_none(60000);
	ck_assert_uint_eq(tpd_settle_due(settle), UINT64_MAX);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("settle");
	TCase *tests = tcase_create("settle");
	SRunner *runner = srunner_create(suite);
	int failed;

	suite_add_tcase(suite, tests);
	tcase_add_checked_fixture(tests, make, drop);
	tcase_add_test(tests, nothing);
	tcase_add_test(tests, complete_by_marker);
	tcase_add_test(tests, stalled_is_told_once);
	tcase_add_test(tests, restless_is_told_once);
	tcase_add_test(tests, unfinished_ones_are_listed);
	tcase_add_test(tests, quiet_is_short_when_it_was_quiet_before);
	tcase_add_test(tests, settles);
	tcase_add_test(tests, a_look_before_the_time_proves_nothing);
	tcase_add_test(tests, at_rest_for_long);
	tcase_add_test(tests, settle_of_nothing);
	tcase_add_test(tests, empty_is_no_checkpoint);
	tcase_add_test(tests, candidate_that_changes_before_it_is_captured);
	tcase_add_test(tests, room_for_captures);
	tcase_add_test(tests, all_get_room_in_the_end);
	tcase_add_test(tests, change_during_capture_voids_it);
	tcase_add_test(tests, unreadable_is_tried_again_later);
	tcase_add_test(tests, lost_during_capture_is_told);
	tcase_add_test(tests, unreadable_is_tried_again_on_request);
	tcase_add_test(tests, void_again_and_again);
	tcase_add_test(tests, change_seen_during_capture_is_looked_at_afterwards);
	tcase_add_test(tests, rewritten_after_stored);
	tcase_add_test(tests, rewritten_while_queued);
	tcase_add_test(tests, rotation_is_no_new_version);
	tcase_add_test(tests, refused_is_taken_up_when_a_file_goes_away);
	tcase_add_test(tests, refused_is_taken_up_when_it_changes_or_on_request);
	tcase_add_test(tests, fewer_but_newer_files_are_new);
	tcase_add_test(tests, deleted_while_captured);
	tcase_add_test(tests, deleted_and_void);
	tcase_add_test(tests, lost);
	tcase_add_test(tests, ranks_of_the_checkpoint_before);
	tcase_add_test(tests, one_process);
	tcase_add_test(tests, captures_come_by_run_and_step);
	tcase_add_test(tests, each_watch_has_its_time);
	tcase_add_test(tests, thousands);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
