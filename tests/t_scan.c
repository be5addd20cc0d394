/* t_scan.c - looks at real directories: what is reported of them, and how few of them are read when nothing happens. */
#include "base/tpd.h"

#include "scan_help.h"

START_TEST(layouts)
{
	put_trainer("checkpoint-20");
	put_trainer("seed1/checkpoint-40");
	put_trainer("a/b/checkpoint-60");
	put_big("a/step-10/shard_0.bin");
	put_big("a/step-10/optimizer/0.bin");
	put_big("lightning_logs/version_0/checkpoints/epoch=0-step=5.ckpt");
	put_big("lightning_logs/version_0/checkpoints/last.ckpt");
	put_big("model_3.pt");
	put_big("notes/readme.bin");
	put_big("tmp-checkpoint-80/model.safetensors");
	put_big(".cache/step-9/x");
	put("trainer_state.json", "{}");
	put_big("model.safetensors");
	ck_assert_int_eq(symlink(scratch("store"), scratch("w/step-99")), 0);
	ck_assert_int_eq(symlink("model_3.pt", scratch("w/model_4.pt")), 0);
	look_at_all();
	expect("checkpoint-20", "run", 20, TPD_SEEN_COMPLETE);
	expect("seed1/checkpoint-40", "run/seed1", 40, TPD_SEEN_COMPLETE);
	expect("a/b/checkpoint-60", "run/a/b", 60, TPD_SEEN_COMPLETE);
	expect("a/step-10", "run/a", 10, TPD_SEEN_SETTLING);
	expect("lightning_logs/version_0/checkpoints/epoch=0-step=5.ckpt", "run/lightning_logs/version_0/checkpoints",
	       5, TPD_SEEN_SETTLING);
	expect("model_3.pt", "run", 3, TPD_SEEN_SETTLING);
	ck_assert_uint_eq(result.seen_count, 6);
	ck_assert_uint_eq(seen("a/step-10")->count, 2);
	ck_assert_uint_eq(seen("a/step-10")->bytes, 4000);
	ck_assert_uint_eq(result.note_count, 2); /* readme.bin, last.ckpt */
	for (size_t i = 0; i < result.note_count; i++)
		ck_assert(!result.notes[i].warning && strstr(result.notes[i].text, "tells no step"));
	look_at_all(); /* said once, and nothing changed */
	ck_assert_uint_eq(result.seen_count + result.gone_count + result.note_count, 0);
	ck_assert_uint_eq(result.state_count, 1);
	ck_assert_uint_eq(result.states[0].files, 17); /* links and what is ignored apart */
}
END_TEST

START_TEST(trainer_in_its_order)
{
	put("checkpoint-20/config.json", "{}");
	look_at_all();
	ck_assert_ptr_null(seen("checkpoint-20")); /* could be anything */
	put_big("checkpoint-20/model-00001-of-00002.safetensors");
	look_at_all();
	expect("checkpoint-20", "run", 20, TPD_SEEN_SETTLING); /* still */
	put("checkpoint-20/model.safetensors.index.json",
	    "{\"weight_map\":{\"a\":\"model-00001-of-00002.safetensors\",\"b\":\"model-00002-of-00002.safetensors\"}}");
	put("checkpoint-20/training_args.bin", "x");
	look_at_all();
	expect("checkpoint-20", "run", 20, TPD_SEEN_WAITING); /* now it is the trainer's */
	put("checkpoint-20/rng_state_1.pth", "x");
	put("checkpoint-20/trainer_state.json", "{\"global_step\":");
	look_at_all();
	expect("checkpoint-20", "run", 20, TPD_SEEN_WAITING); /* half a document */
	put("checkpoint-20/trainer_state.json", "{\"global_step\":20}");
	look_at_all();
	expect("checkpoint-20", "run", 20, TPD_SEEN_WAITING); /* a shard is missing */
	put_big("checkpoint-20/model-00002-of-00002.safetensors");
	put("checkpoint-20/trainer_state.json", "{\"global_step\":20 }");
	look_at_all();
	expect("checkpoint-20", "run", 20, TPD_SEEN_COMPLETE);
	ck_assert_uint_eq(seen("checkpoint-20")->ranks, 1);
	ck_assert_uint_eq(seen("checkpoint-20")->rank_span, 2);
	/* the next one is known for what it is from its first file on */
	put_big("checkpoint-40/model.safetensors");
	look_at_all();
	expect("checkpoint-40", "run", 40, TPD_SEEN_WAITING);
}
END_TEST

START_TEST(left_over_marker)
{
	struct timespec old[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};

	put_trainer("checkpoint-20");
	utimensat(AT_FDCWD, scratch("w/checkpoint-20/trainer_state.json"), old, 0);
	look_at_all();
	expect("checkpoint-20", "run", 20, TPD_SEEN_SETTLING);
	put_trainer("checkpoint-40");
	put("checkpoint-40/.tmpAbCdEf", "x");
	look_at_all();
	expect("checkpoint-40", "run", 40, TPD_SEEN_SETTLING);
	unlink(scratch("w/checkpoint-40/.tmpAbCdEf"));
	unlink(scratch("w/checkpoint-40/model.safetensors"));
	look_at_all();
	expect("checkpoint-40", "run", 40, TPD_SEEN_WAITING); /* no weights */
}
END_TEST

/* Past the grain of the file system's clock, so that what comes next has another time. */
static void pass_a_tick(void)
{
	usleep(30000);
}

START_TEST(a_deletion_that_has_begun)
{
	/* it was never seen whole: trainer_state.json is the last to go */
	put_big("checkpoint-20/optimizer.pt");
	put_trainer("checkpoint-20");
	pass_a_tick();
	unlink(scratch("w/checkpoint-20/optimizer.pt"));
	look_at_all();
	expect("checkpoint-20", "run", 20, TPD_SEEN_SETTLING);
	ck_assert_uint_lt(seen("checkpoint-20")->quiet_ms, 20000);
	/* in a directory below, and that itself */
	put_big("checkpoint-40/global_step40/shard.pt");
	put_trainer("checkpoint-40");
	put_trainer("checkpoint-60");
	mkdir(scratch("w/checkpoint-60/global_step60"), 0755);
	put_big("checkpoint-80/global_step80/shard.pt");
	put_trainer("checkpoint-80");
	pass_a_tick();
	unlink(scratch("w/checkpoint-40/global_step40/shard.pt"));
	ck_assert_int_eq(rmdir(scratch("w/checkpoint-60/global_step60")), 0);
	look_at_all();
	expect("checkpoint-40", "run", 40, TPD_SEEN_SETTLING);
	expect("checkpoint-60", "run", 60, TPD_SEEN_SETTLING);
	expect("checkpoint-80", "run", 80, TPD_SEEN_COMPLETE);
	/* temporary files of a save that goes on; renamed into place, linked */
	put_trainer("checkpoint-100");
	put("checkpoint-100/a.lock", "");
	pass_a_tick();
	unlink(scratch("w/checkpoint-100/a.lock"));
	put_big("checkpoint-100/b.tmp");
	ck_assert_int_eq(rename(scratch("w/checkpoint-100/b.tmp"), scratch("w/checkpoint-100/b")), 0);
	pass_a_tick();
	put("checkpoint-100/trainer_state.json", "{\"global_step\":100 }");
	look_at_all();
	expect("checkpoint-100", "run", 100, TPD_SEEN_COMPLETE);
	/* what looks leave out is no newer than what it lies in */
	put_big("checkpoint-120/optimizer.pt");
	put_big("checkpoint-120/.cache/x");
	put_trainer("checkpoint-120");
	pass_a_tick();
	unlink(scratch("w/checkpoint-120/optimizer.pt"));
	pass_a_tick();
	unlink(scratch("w/checkpoint-120/.cache/x"));
	look_at_all();
	expect("checkpoint-120", "run", 120, TPD_SEEN_SETTLING);
}
END_TEST

/* However soon: what was seen before is not there any more, or an event tells of it. */
START_TEST(a_deletion_within_a_tick)
{
	put_big("checkpoint-20/optimizer.pt");
	put_trainer("checkpoint-20");
	look_at_all();
	expect("checkpoint-20", "run", 20, TPD_SEEN_COMPLETE);
	put_trainer("checkpoint-20");
	unlink(scratch("w/checkpoint-20/optimizer.pt"));
	look_at_all();
	expect("checkpoint-20", "run", 20, TPD_SEEN_SETTLING);
	look_at_events();
	put_trainer("checkpoint-40");
	look_at_all();
	look_at_events();
	put_big("checkpoint-40/optimizer.pt");
	put_trainer("checkpoint-40");
	unlink(scratch("w/checkpoint-40/optimizer.pt"));
	look_at_events();
	expect("checkpoint-40", "run", 40, TPD_SEEN_SETTLING);
	/* the save goes on; renamed is not deleted */
	pass_a_tick();
	put_big("checkpoint-40/b.tmp");
	look_at_events();
	ck_assert_int_eq(rename(scratch("w/checkpoint-40/b.tmp"), scratch("w/checkpoint-40/b")), 0);
	put_trainer("checkpoint-40");
	look_at_events();
	expect("checkpoint-40", "run", 40, TPD_SEEN_COMPLETE);
	/* a directory below goes whole */
	put_big("checkpoint-60/global_step60/shard.pt");
	put_trainer("checkpoint-60");
	look_at_all();
	unlink(scratch("w/checkpoint-60/global_step60/shard.pt"));
	rmdir(scratch("w/checkpoint-60/global_step60"));
	look_at_all();
	expect("checkpoint-60", "run", 60, TPD_SEEN_SETTLING);
}
END_TEST

/* Listed, but nothing in it can be looked at: told once, and what was known stays. */
START_TEST(not_to_be_searched)
{
	if (geteuid() != 0)
		return;
	chmod(scratch("w"), 0755);
	chmod(scratch("."), 0755);
	put_trainer("checkpoint-20");
	look_at_all();
	expect("checkpoint-20", "run", 20, TPD_SEEN_COMPLETE);
	chmod(scratch("w/checkpoint-20"), 0744);
	ck_assert_int_eq(seteuid(65534), 0);
	look_at_all();
	ck_assert_uint_eq(result.note_count, 1);
	ck_assert(result.notes[0].warning && strstr(result.notes[0].text, "checkpoint-20"));
	ck_assert_uint_eq(result.gone_count, 0);
	look_at_all();
	ck_assert_uint_eq(result.note_count, 0);
	ck_assert_int_eq(seteuid(0), 0);
}
END_TEST

START_TEST(at_rest)
{
	struct timespec past[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};

	put_big("step-1/x");
	utimensat(AT_FDCWD, scratch("w/step-1/x"), past, 0);
	look_at_all();
	ck_assert_uint_lt(seen("step-1")->quiet_ms, 60000); /* by its ctime: a file's mtime can be anything */
}
END_TEST

START_TEST(changes_and_deletions)
{
	uint64_t before;

	put_big("step-1/x");
	put_big("ckpt-5.pt");
	look_at_all();
	before = seen("step-1")->signature;
	put("ckpt-5.pt", "shorter");
	look_at_all();
	ck_assert_uint_eq(result.seen_count, 1);
	ck_assert_uint_eq(seen("ckpt-5.pt")->bytes, 7);
	put("step-1/deep/er/y", "y");
	look_at_all();
	ck_assert_uint_ne(seen("step-1")->signature, before);
	ck_assert_uint_eq(seen("step-1")->count, 2);
	rename(scratch("w/step-1/x"), scratch("w/step-1/z"));
	before = seen("step-1")->signature;
	look_at_all();
	ck_assert_uint_ne(seen("step-1")->signature, before); /* a name is a change */
	unlink(scratch("w/ckpt-5.pt"));
	rename(scratch("w/step-1"), scratch("w/step-2"));
	look_at_all();
	ck_assert(gone("ckpt-5.pt") && gone("step-1"));
	expect("step-2", "run", 2, TPD_SEEN_SETTLING);
}
END_TEST

START_TEST(a_checkpoint_becomes_a_run)
{
	put_big("llama-42/optimizer_state");
	look_at_all();
	expect("llama-42", "run", 42, TPD_SEEN_SETTLING); /* an unknown directory with a number */
	put_trainer("llama-42/checkpoint-20");
	look_at_all();
	ck_assert(gone("llama-42"));
	expect("llama-42/checkpoint-20", "run/llama-42", 20, TPD_SEEN_COMPLETE);
	/* and the other way: a file's directory turns out to be the checkpoint */
	put_big("x-9/model_1.pt");
	look_at_all();
	expect("x-9/model_1.pt", "run/x-9", 1, TPD_SEEN_SETTLING);
	rename(scratch("w/x-9"), scratch("w/step-9"));
	look_at_all();
	ck_assert(gone("x-9/model_1.pt"));
	expect("step-9", "run", 9, TPD_SEEN_SETTLING);
}
END_TEST

START_TEST(asked_for)
{
	static const char *const paths[] = {"w/step-1", "w/a/ckpt-5.pt", "w/step-7", "elsewhere"};
	char *looks[4];

	put_big("step-1/x");
	put_big("a/ckpt-5.pt");
	look_at_all();
	for (size_t i = 0; i < 4; i++)
		looks[i] = strdup(scratch("%s", paths[i]));
	run(&(struct tpd_scan_request){.looks = looks, .look_count = 4});
	for (size_t i = 0; i < 4; i++)
		free(looks[i]);
	ck_assert_uint_eq(result.seen_count, 2);
	expect("step-1", "run", 1, TPD_SEEN_SETTLING);
	expect("a/ckpt-5.pt", "run/a", 5, TPD_SEEN_SETTLING);
	ck_assert_uint_eq(result.gone_count, 2); /* never were there */
	ck_assert(gone("step-7"));
}
END_TEST

START_TEST(impossible_run_names)
{
	put_big("-odd/step-1/x");
	put_big("a@b/step-1/x");
	look_at_all();
	ck_assert_uint_eq(result.seen_count, 0);
	ck_assert_uint_eq(result.note_count, 2);
	ck_assert(result.notes[0].warning && strstr(result.notes[0].text, "cannot be the name of a run"));
	look_at_all();
	ck_assert_uint_eq(result.note_count, 0);
}
END_TEST

START_TEST(the_store_is_left_out)
{
	struct tpd_scan_watch watch = {.id = 7, .name = "run", .path = scratch("w")};
	struct stat st;

	put_big("store/step-1/x");
	put_big("step-2/x");
	ck_assert_int_eq(stat(scratch("w/store"), &st), 0);
	ck_assert_int_eq(tpd_scan_set_watches(scan, &watch, 1, st.st_dev, st.st_ino, NULL), TPD_OK);
	look_at_all();
	ck_assert_uint_eq(result.seen_count, 1);
}
END_TEST

START_TEST(the_watched_directory_comes_and_goes)
{
	int64_t since;

	put_big("step-1/x");
	look_at_all();
	ck_assert_uint_eq(result.seen_count, 1);
	ck_assert_int_eq(result.states[0].missing_ns, 0);
	rename(scratch("w"), scratch("v"));
	look_at_all();
	ck_assert(gone("step-1"));
	ck_assert_uint_eq(result.note_count, 1);
	since = result.states[0].missing_ns;
	ck_assert_int_gt(since, 0);
	look_at_all();
	ck_assert_uint_eq(result.note_count, 0);
	ck_assert_int_eq(result.states[0].missing_ns, since);
	rename(scratch("v"), scratch("w"));
	look_at_all();
	expect("step-1", "run", 1, TPD_SEEN_SETTLING);
	ck_assert_int_eq(result.states[0].missing_ns, 0);
	ck_assert_uint_eq(result.note_count, 1);
	/* Events come as before, of it and of what is new in it. */
	while (look_at_events() > 0)
		continue;
	put_big("step-2/x");
	while (look_at_events() > 0 && !seen("step-2"))
		continue;
	expect("step-2", "run", 2, TPD_SEEN_SETTLING);
}
END_TEST

START_TEST(other_watches)
{
	struct tpd_scan_watch two[2] = {{.id = 7, .name = "run", .path = scratch("w")},
					{.id = 8, .name = "new", .path = scratch("v")}};

	put_big("step-1/x");
	mkdir(scratch("v"), 0755);
	mkdir(scratch("v/step-3"), 0755);
	put_big("../v/step-3/x");
	look_at_all();
	ck_assert_int_eq(tpd_scan_set_watches(scan, two, 2, 0, 0, NULL), TPD_OK);
	look_at_all();
	ck_assert_uint_eq(result.seen_count, 1); /* the first is known */
	ck_assert_str_eq(result.seen[0].run, "new");
	ck_assert_int_eq(tpd_scan_set_watches(scan, two + 1, 1, 0, 0, NULL), TPD_OK);
	put_big("step-2/x");
	look_at_all();
	ck_assert_uint_eq(result.seen_count, 0);
	ck_assert_uint_eq(result.state_count, 1);
	ck_assert_uint_eq(result.states[0].id, 8);
}
END_TEST

/* --- by events alone --- */

START_TEST(events)
{
	look_at_all();
	ck_assert(!result.states[0].polling);
	put_big("a/b/step-1/x"); /* made at once: only a's creation is told */
	ck_assert_int_gt(look_at_events(), 0);
	expect("a/b/step-1", "run/a/b", 1, TPD_SEEN_SETTLING);
	look_at_events();
	put_big("a/b/step-1/x"); /* re-written in place: the directory's times stay */
	ck_assert_int_gt(look_at_events(), 0);
	ck_assert_uint_eq(result.seen_count, 1);
	ck_assert_int_eq(look_at_events(), 0);
	ck_assert_uint_eq(result.seen_count, 0);
	put_big("b/y");
	rename(scratch("w/b"), scratch("w/a/b/step-2")); /* arrives by rename */
	look_at_events();
	expect("a/b/step-2", "run/a/b", 2, TPD_SEEN_SETTLING);
	unlink(scratch("w/a/b/step-1/x"));
	rmdir(scratch("w/a/b/step-1"));
	look_at_events();
	ck_assert(gone("a/b/step-1"));
	rename(scratch("w/a"), scratch("away"));
	look_at_events();
	ck_assert(gone("a/b/step-2"));
}
END_TEST

START_TEST(made_again_under_the_same_number)
{
	put_big("step-1/x");
	look_at_all();
	look_at_events();
	for (int i = 0; i < 20; i++) { /* file systems like to give the inode's number out again */
		unlink(scratch("w/step-1/x"));
		rmdir(scratch("w/step-1"));
		mkdir(scratch("w/step-1"), 0755);
		look_at_events();
		look_at_events();
		put_big("step-1/x");
		ck_assert_int_gt(look_at_events(), 0);
		ck_assert_ptr_nonnull(seen("step-1"));
		ck_assert(!result.states[0].polling);
	}
}
END_TEST

START_TEST(without_inotify)
{
	put_big("step-1/x");
	look_at_all();
	ck_assert(result.states[0].polling);
	ck_assert_str_eq(result.states[0].reason, "none here");
	put_big("step-1/x"); /* no event, no change of the directory */
	look_at_all();
	ck_assert_uint_eq(result.seen_count, 1);
	look_at_all();
	ck_assert_uint_eq(result.seen_count, 0);
	put("step-1/x", "too small to be a checkpoint");
	look_at_all();
	ck_assert(gone("step-1"));
}
END_TEST

START_TEST(a_lost_event_is_found_in_time)
{
	bool found = false;

	put_big("step-1/x");
	look_at_all();
	sleep(3); /* the directory's times are old enough to be believed */
	look_at_all();
	put_big("step-1/x");
	for (int i = 0; i < 16 && !found; i++) {
		look_at_all();
		found = seen("step-1") != NULL;
	}
	ck_assert(found);
	/* or at once, when everything is to be looked at */
	put_big("step-1/x");
	run(&(struct tpd_scan_request){.full = true, .deep = true});
	ck_assert_ptr_nonnull(seen("step-1"));
}
END_TEST

/* In a directory that is there before its files are, nothing has been waiting for long. */
START_TEST(an_empty_one_is_new)
{
	put_trainer("checkpoint-10"); /* by which the next one is known */
	mkdir(scratch("w/checkpoint-20"), 0755);
	look_at_all();
	expect("checkpoint-20", "run", 20, TPD_SEEN_WAITING);
	ck_assert_msg(seen("checkpoint-20")->quiet_ms < 60000, "%llu of %llu", (unsigned long long)seen("checkpoint-20")->quiet_ms, (unsigned long long)seen("checkpoint-20")->count);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("scan");
	TCase *tests = tcase_create("scan"), *polling = tcase_create("polling");
	SRunner *runner = srunner_create(suite);
	int failed;

	suite_add_tcase(suite, tests);
	tcase_add_checked_fixture(tests, make, drop);
	tcase_set_timeout(tests, 30);
	tcase_add_test(tests, layouts);
	tcase_add_test(tests, trainer_in_its_order);
	tcase_add_test(tests, left_over_marker);
	tcase_add_test(tests, a_deletion_that_has_begun);
	tcase_add_test(tests, a_deletion_within_a_tick);
	tcase_add_test(tests, not_to_be_searched);
	tcase_add_test(tests, at_rest);
	tcase_add_test(tests, changes_and_deletions);
	tcase_add_test(tests, a_checkpoint_becomes_a_run);
	tcase_add_test(tests, asked_for);
	tcase_add_test(tests, impossible_run_names);
	tcase_add_test(tests, the_store_is_left_out);
	tcase_add_test(tests, the_watched_directory_comes_and_goes);
	tcase_add_test(tests, other_watches);
	tcase_add_test(tests, events);
	tcase_add_test(tests, made_again_under_the_same_number);
	tcase_add_test(tests, a_lost_event_is_found_in_time);
	tcase_add_test(tests, an_empty_one_is_new);
	suite_add_tcase(suite, polling);
	tcase_add_checked_fixture(polling, make_polling, drop);
	tcase_add_test(polling, without_inotify);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
