/*
 * t_frameworks.c - each framework's checkpoints, file after file in the order in which it writes them: when are they complete, and
 * of which step? (Orders were traced on the frameworks themselves.)
 */
#include "base/tpd.h"

#include "daemon/frameworks.h"
#include "pickle_build.h"
#include "scan_help.h"
#include "zip_build.h"

static const char *waits_for(const char *path)
{
	const struct tpd_seen *s = seen(path);

	ck_assert_msg(s && s->readiness == TPD_SEEN_WAITING, "%s does not wait", path);
	return s->waits.text;
}

static void expect_waiting(const char *path, const char *text)
{
	look_at_all();
	ck_assert_msg(strstr(waits_for(path), text) != NULL, "%s waits for: %s", path, waits_for(path));
}

static void expect_now(const char *path, uint64_t step, enum tpd_readiness readiness)
{
	look_at_all();
	expect(path, "run", step, readiness);
}

/* Seconds since some day, as a file's mtime. */
static void set_time(const char *path, int seconds)
{
	struct timespec times[2] = {{.tv_sec = 1700000000 + seconds}, {.tv_sec = 1700000000 + seconds}};

	ck_assert_int_eq(utimensat(AT_FDCWD, scratch("w/%s", path), times, 0), 0);
}

START_TEST(trainer)
{
	put_trainer("checkpoint-20"); /* the run is known to be the Trainer's */
	put_big("checkpoint-40/model.safetensors");
	expect_waiting("checkpoint-40", "trainer_state.json is not there");
	put("checkpoint-40/trainer_state.json", "{\"global_step\": 40, \"log_hist");
	expect_waiting("checkpoint-40", "not whole");
	put("checkpoint-40/trainer_state.json", "{\"global_step\": 40}");
	expect_now("checkpoint-40", 40, TPD_SEEN_COMPLETE);
	/* A directory of another name: its marker tells the step. */
	put_big("final/model.safetensors");
	put("final/trainer_state.json", "{\"global_step\": 57}");
	expect_now("final", 57, TPD_SEEN_COMPLETE);
	/* The run itself, with a last model in it, is none. */
	put_trainer("sub/checkpoint-7");
	put_big("sub/model.safetensors");
	put("sub/trainer_state.json", "{\"global_step\": 7}");
	look_at_all();
	ck_assert_ptr_null(seen("sub"));
	ck_assert_ptr_nonnull(seen("sub/checkpoint-7"));
}
END_TEST

START_TEST(trainer_with_shards_and_deepspeed)
{
	put_trainer("checkpoint-20");
	put("checkpoint-20/model.safetensors.index.json", "{\"weight_map\":{\"a\":\"model-00001-of-00001.safetensors\"}}");
	put("checkpoint-20/trainer_state.json", "{\"global_step\":20}");
	expect_waiting("checkpoint-20", "a shard that model.safetensors.index.json names");
	put_big("checkpoint-20/model-00001-of-00001.safetensors");
	put("checkpoint-20/trainer_state.json", "{\"global_step\":20}");
	expect_now("checkpoint-20", 20, TPD_SEEN_COMPLETE);
	put("checkpoint-20/global_step20/zero_pp_rank_0_mp_rank_00_optim_states.pt", "x");
	put("checkpoint-20/trainer_state.json", "{\"global_step\":20}");
	expect_waiting("checkpoint-20", "'latest' does not name global_step20");
	put("checkpoint-20/latest", "global_step20");
	put("checkpoint-20/trainer_state.json", "{\"global_step\":20}");
	expect_now("checkpoint-20", 20, TPD_SEEN_COMPLETE);
}
END_TEST

START_TEST(distributed_checkpoint)
{
	put_big("step-10/__0_0.distcp");
	put_big("step-10/__1_0.distcp");
	expect_waiting("step-10", ".metadata is not there");
	put("step-10/.metadata.tmp", "x");
	ck_assert_int_eq(rename(scratch("w/step-10/.metadata.tmp"), scratch("w/step-10/.metadata")), 0);
	expect_now("step-10", 10, TPD_SEEN_COMPLETE);
	/* Over-written in place: the old .metadata stands while shards change. */
	set_time("step-10/.metadata", 100);
	set_time("step-10/__0_0.distcp", 99);
	set_time("step-10/__1_0.distcp", 200);
	expect_waiting("step-10", "older than its shards");
	set_time("step-10/.metadata", 200);
	expect_now("step-10", 10, TPD_SEEN_COMPLETE);
	/* What the trainer adds of its own, afterwards. */
	put_big("step-10/extra_state.pt");
	expect_now("step-10", 10, TPD_SEEN_SETTLING);
}
END_TEST

START_TEST(lightning_directory)
{
	put_big("epoch=0-step=30.ckpt/__0_0.distcp");
	expect_waiting("epoch=0-step=30.ckpt", ".metadata");
	put("epoch=0-step=30.ckpt/.metadata", "x");
	expect_waiting("epoch=0-step=30.ckpt", "meta.pt");
	put("epoch=0-step=30.ckpt/meta.pt", "PK\3\4 and no end");
	expect_waiting("epoch=0-step=30.ckpt", "meta.pt has no end");
	put("epoch=0-step=30.ckpt/meta.pt", "some old pickle");
	expect_now("epoch=0-step=30.ckpt", 30, TPD_SEEN_COMPLETE);
}
END_TEST

START_TEST(megatron)
{
	put_big("iter_0000040/common.pt");
	expect_waiting("iter_0000040", ".metadata"); /* a failed save leaves just this */
	put_big("iter_0000040/__0_0.distcp");
	put("iter_0000040/.metadata", "x");
	expect_waiting("iter_0000040", "metadata.json");
	put("iter_0000040/metadata.json", "{\"sharded_backend\": \"torch_dist\"");
	expect_waiting("iter_0000040", "metadata.json");
	put("iter_0000040/metadata.json", "{\"sharded_backend\": \"torch_dist\"}");
	expect_now("iter_0000040", 40, TPD_SEEN_COMPLETE);
}
END_TEST

START_TEST(megatron_ranks)
{
	put_big("iter_0000040/mp_rank_00/model_optim_rng.pt");
	expect_waiting("iter_0000040", "'latest_checkpointed_iteration.txt' does not name iter_0000040");
	put("latest_checkpointed_iteration.txt", "20");
	put_big("iter_0000040/mp_rank_01/model_optim_rng.pt");
	expect_waiting("iter_0000040", "does not name");
	put("latest_checkpointed_iteration.txt", "40");
	expect_now("iter_0000040", 40, TPD_SEEN_COMPLETE);
	/* Written again under the tracker of the last time. */
	set_time("latest_checkpointed_iteration.txt", 100);
	put_big("iter_0000040/mp_rank_01/distrib_optim.pt");
	expect_now("iter_0000040", 40, TPD_SEEN_SETTLING);
	/* A later iteration does not take the word back. */
	put("latest_checkpointed_iteration.txt", "60\n");
	put("iter_0000040/note", "x");
	put("latest_checkpointed_iteration.txt", "60\n");
	expect_now("iter_0000040", 40, TPD_SEEN_COMPLETE);
}
END_TEST

START_TEST(accelerate_fsdp)
{
	put_big("checkpoint_3/pytorch_model_fsdp_0/__0_0.distcp");
	expect_waiting("checkpoint_3", "pytorch_model_fsdp_0/.metadata");
	put("checkpoint_3/pytorch_model_fsdp_0/.metadata", "x");
	expect_waiting("checkpoint_3", "checkpoint_3/optimizer_0 is not there"); /* it is gathered for minutes */
	put_big("checkpoint_3/optimizer_0/__0_0.distcp");
	expect_waiting("checkpoint_3", "optimizer_0/.metadata");
	put("checkpoint_3/optimizer_0/.metadata", "x");
	expect_now("checkpoint_3", 3, TPD_SEEN_SETTLING); /* random states of ranks follow, without a marker */
	/* Saved without an optimizer: they tell that none follows. */
	put_big("checkpoint_4/pytorch_model_fsdp_0/__0_0.distcp");
	put("checkpoint_4/pytorch_model_fsdp_0/.metadata", "x");
	expect_waiting("checkpoint_4", "optimizer_0");
	put_big("checkpoint_4/random_states_1.pkl");
	expect_now("checkpoint_4", 4, TPD_SEEN_SETTLING);
}
END_TEST

START_TEST(deepspeed)
{
	put("global_step5/mp_rank_00_model_states.pt", "whole");
	put("global_step5/bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt", "whole");
	expect_waiting("global_step5", "'latest' does not name");
	put("latest", "global_step5");
	expect_waiting("global_step5", "1 of 2 ranks");
	put("global_step5/bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt", "PK\3\4 and no end");
	expect_waiting("global_step5", "has no end");
	put("global_step5/bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt", "whole");
	expect_now("global_step5", 5, TPD_SEEN_SETTLING); /* a rank that was late: after latest */
	set_time("global_step5/bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt", 0);
	expect_now("global_step5", 5, TPD_SEEN_COMPLETE);
	ck_assert_uint_eq(seen("global_step5")->ranks, 2);
	ck_assert_uint_eq(seen("global_step5")->rank_span, 2);
	/* A `latest` of another time: the run was put back, or the same tag is saved again. */
	set_time("latest", 100);
	put("global_step5/mp_rank_00_model_states.pt", "saved again");
	expect_now("global_step5", 5, TPD_SEEN_SETTLING);
	/* Two files a rank, with model parallelism: the files count. */
	put("global_step5/bf16_zero_pp_rank_0_mp_rank_01_optim_states.pt", "whole");
	put("global_step5/bf16_zero_pp_rank_1_mp_rank_01_optim_states.pt", "whole");
	put("latest", "global_step5");
	expect_now("global_step5", 5, TPD_SEEN_COMPLETE);
	ck_assert_uint_eq(seen("global_step5")->ranks, 4);
	/* A later one does not take the word back. */
	put("global_step6/mp_rank_00_model_states.pt", "whole");
	put("latest", "global_step6");
	expect_now("global_step6", 6, TPD_SEEN_COMPLETE);
	put("global_step5/zero_to_fp32.py", "x");
	put("latest", "global_step6");
	expect_now("global_step5", 5, TPD_SEEN_COMPLETE);
}
END_TEST

START_TEST(markers_beside)
{
	put_big("step-4/weights.bin");
	put("step-4-unfinished", "");
	expect_waiting("step-4", "step-4-unfinished lies beside it");
	unlink(scratch("w/step-4-unfinished"));
	expect_now("step-4", 4, TPD_SEEN_SETTLING);
	/* Of NeMo's files, one marker holds back two; it goes away, and nothing else changes. */
	put_big("gpt-step=6.ckpt");
	put_big("gpt-step=6-EMA.ckpt");
	put("gpt-step=6-unfinished", "");
	expect_waiting("gpt-step=6.ckpt", "gpt-step=6-unfinished lies beside it");
	ck_assert_str_eq(waits_for("gpt-step=6-EMA.ckpt"), "gpt-step=6-unfinished lies beside it");
	while (look_at_events() > 0)
		continue;
	unlink(scratch("w/gpt-step=6-unfinished"));
	look_at_events();
	expect("gpt-step=6.ckpt", "run", 6, TPD_SEEN_SETTLING);
	expect("gpt-step=6-EMA.ckpt", "run", 6, TPD_SEEN_SETTLING);
	put("gpt-step=6-unfinished", ""); /* it is about to be deleted; written again meanwhile, it is not whole */
	put_big("gpt-step=6.ckpt");
	expect_waiting("gpt-step=6.ckpt", "lies beside it");
	put_big("8/default/manifest.ocdbt");
	put("8/_CHECKPOINT_METADATA", "{}");
	put("8/params/.zarray", "{}"); /* no half-made file */
	expect_now("8", 8, TPD_SEEN_COMPLETE);
}
END_TEST

/* NeMo with model-parallel ranks: a directory a rank, and one marker beside them for the files of all. */
START_TEST(markers_above_ranks)
{
	put("exp_7/step=6-unfinished", ""); /* 7 is no step */
	put_big("exp_7/mp_rank_00/step=6.ckpt");
	put_big("exp_7/mp_rank_01/step=6.ckpt");
	put_big("exp_7/mp_rank_01/step=6-EMA.ckpt");
	put_big("exp_7/tp_rank_00_pp_rank_001/step=6.ckpt");
	put_big("exp_7/fsdp_shard_00000/step=6.ckpt");
	put_big("exp_7/other/step=6.ckpt");
	expect_waiting("exp_7/mp_rank_00/step=6.ckpt", "step=6-unfinished lies beside mp_rank_00");
	ck_assert_ptr_null(seen("exp_7"));
	ck_assert_uint_eq(result.note_count, 0);
	ck_assert_str_eq(waits_for("exp_7/mp_rank_01/step=6-EMA.ckpt"), "step=6-unfinished lies beside mp_rank_01");
	waits_for("exp_7/tp_rank_00_pp_rank_001/step=6.ckpt");
	waits_for("exp_7/fsdp_shard_00000/step=6.ckpt");
	expect("exp_7/other/step=6.ckpt", "run/exp_7/other", 6, TPD_SEEN_SETTLING);
	while (look_at_events() > 0)
		continue;
	/* It goes away; in the directories of the ranks nothing changes. */
	unlink(scratch("w/exp_7/step=6-unfinished"));
	look_at_events();
	expect("exp_7/mp_rank_00/step=6.ckpt", "run/exp_7/mp_rank_00", 6, TPD_SEEN_SETTLING);
	expect("exp_7/mp_rank_01/step=6.ckpt", "run/exp_7/mp_rank_01", 6, TPD_SEEN_SETTLING);
	expect("exp_7/mp_rank_01/step=6-EMA.ckpt", "run/exp_7/mp_rank_01", 6, TPD_SEEN_SETTLING);
	expect("exp_7/tp_rank_00_pp_rank_001/step=6.ckpt", "run/exp_7/tp_rank_00_pp_rank_001", 6, TPD_SEEN_SETTLING);
	expect("exp_7/fsdp_shard_00000/step=6.ckpt", "run/exp_7/fsdp_shard_00000", 6, TPD_SEEN_SETTLING);
	/* The watched directory may be the one that holds them. */
	put_big("mp_rank_00/step=8.ckpt");
	put("step=8-unfinished", "");
	expect_waiting("mp_rank_00/step=8.ckpt", "step=8-unfinished lies beside mp_rank_00");
}
END_TEST

START_TEST(keras_backup)
{
	uint8_t h5[100] = {0x89, 'H', 'D', 'F', '\r', '\n', 0x1a, '\n'};

	h5[13] = 8;
	h5[20] = 1;
	h5[40] = sizeof h5;
	mkdir(scratch("w/backup"), 0755);
	file_write(scratch("w/backup/latest.weights.h5"), h5, sizeof h5);
	put("backup/training_metadata.json", "{\"epoch\": 2, \"batch\": 0}");
	expect_waiting("backup", "latest.weights.h5 is not whole");
	h5[20] = 0;
	file_write(scratch("w/backup/latest.weights.h5"), h5, sizeof h5);
	set_time("backup/training_metadata.json", 0); /* of the epoch before */
	expect_waiting("backup", "training_metadata.json is not whole, or older");
	put("backup/training_metadata.json", "");
	expect_waiting("backup", "training_metadata.json is not whole");
	put("backup/training_metadata.json", "{\"epoch\": 3, \"batch\": 0}");
	expect_now("backup", 3, TPD_SEEN_SETTLING);
}
END_TEST

START_TEST(shards_of_any_index)
{
	put_big("step-2/model-00001-of-00002.safetensors");
	put("step-2/model.safetensors.index.json", "{\"weight_map\":{\"b\":\"model-00002-of-00002.safetensors\"}}");
	expect_waiting("step-2", "model.safetensors.index.json");
	put_big("step-2/model-00002-of-00002.safetensors");
	expect_now("step-2", 2, TPD_SEEN_SETTLING);
}
END_TEST

static void make_by_marker(void)
{
	complete_when = "DONE ../%s.done";
	make();
}

START_TEST(own_marker)
{
	put_big("step-3/x");
	expect_waiting("step-3", "complete_when=DONE");
	put("step-3/DONE", "");
	expect_now("step-3", 3, TPD_SEEN_COMPLETE);
	set_time("step-3/DONE", 0); /* left over */
	expect_now("step-3", 3, TPD_SEEN_SETTLING);
	put_big("step-4/x");
	expect_waiting("step-4", "complete_when");
	put("step-4.done", "");
	expect_now("step-4", 4, TPD_SEEN_COMPLETE);
	/* A model alone, in Accelerate's layout with FSDP. */
	put_big("checkpoint_5/pytorch_model_fsdp_0/__0_0.distcp");
	put("checkpoint_5/pytorch_model_fsdp_0/.metadata", "x");
	expect_waiting("checkpoint_5", "complete_when");
	put("checkpoint_5/DONE", "");
	expect_now("checkpoint_5", 5, TPD_SEEN_COMPLETE);
}
END_TEST

/* A file by torch.save() of what Lightning saves, as far as matters here; whole: to its end. */
static void put_ckpt(const char *path, const void *step, size_t step_len, bool whole)
{
	struct tpd_buf pickle = {0};
	struct zip zip = {0};

	pk_proto(&pickle, 2);
	pk(&pickle, EMPTY_DICT);
	pk(&pickle, MARK);
	pk_str(&pickle, "epoch");
	pk_int(&pickle, 7);
	pk_str(&pickle, "global_step");
	tpd_buf_put(&pickle, step, step_len);
	pk(&pickle, SETITEMS);
	pk(&pickle, STOP);
	add_bytes(&zip, "archive/data.pkl", pickle.data, pickle.len, ALIGNED);
	finish(&zip, false, "");
	file_write(scratch("w/%s", path), zip.file.data, whole ? zip.file.len : zip.file.len - 30);
	tpd_buf_release(&zip.file);
	tpd_buf_release(&zip.central);
	tpd_buf_release(&pickle);
}

/* last.ckpt, with the step in it, written again and again. */
START_TEST(lightning_last)
{
	put_ckpt("last.ckpt", "K\x0a", 2, false);
	look_at_all();
	ck_assert_uint_eq(result.seen_count + result.note_count, 0); /* what it is cannot be told yet */
	put_ckpt("last.ckpt", "K\x0a", 2, true);
	expect_now("last.ckpt", 10, TPD_SEEN_SETTLING);
	put_ckpt("last.ckpt", "M\x10\x27", 3, false); /* in place */
	expect_waiting("last.ckpt", "no end yet");
	put_ckpt("last.ckpt", "M\x10\x27", 3, true);
	expect_now("last.ckpt", 10000, TPD_SEEN_SETTLING);
	put_ckpt("last.ckpt", "J\x40\x42\x0f\0", 5, true);
	expect_now("last.ckpt", 1000000, TPD_SEEN_SETTLING);
	put_ckpt("last.ckpt", "J\xff\xff\xff\xff", 5, true); /* -1 */
	look_at_all();
	ck_assert(!seen("last.ckpt") && gone("last.ckpt"));
	ck_assert_uint_eq(result.note_count, 1);
	put_ckpt("other.ckpt", "G????????", 9, true); /* a float */
	put_big("best.pt");
	put("empty.ckpt", "");
	look_at_all();
	ck_assert_uint_eq(result.seen_count, 0);
	ck_assert_uint_eq(result.note_count, 2); /* what is empty may still become something */
}
END_TEST

/* last.ckpt/, written again and again: its step is in meta.pt. */
START_TEST(lightning_last_directory)
{
	put_big("last.ckpt/__0_0.distcp");
	put("last.ckpt/.metadata", "x");
	expect_waiting("last.ckpt", "meta.pt");
	ck_assert_uint_eq(result.note_count, 0);
	put_ckpt("last.ckpt/meta.pt", "K\x1e", 2, true);
	expect_now("last.ckpt", 30, TPD_SEEN_COMPLETE);
	set_time("last.ckpt/__0_0.distcp", 100);
	set_time("last.ckpt/.metadata", 100);
	set_time("last.ckpt/meta.pt", 99);
	expect_waiting("last.ckpt", "meta.pt");
	put_ckpt("last.ckpt/meta.pt", "K\x28", 2, true);
	set_time("last.ckpt/meta.pt", 100);
	expect_now("last.ckpt", 40, TPD_SEEN_COMPLETE);
	put("last.ckpt/meta.pt", "some old pickle"); /* whole, and tells none */
	set_time("last.ckpt/meta.pt", 200);
	look_at_all();
	ck_assert_uint_eq(result.note_count, 2); /* nor does the file, now that the directory is no checkpoint */
}
END_TEST

static void make_by_regex(void)
{
	complete_when = NULL;
	step_regex = "^exp_[0-9]+/it([0-9]+)(\\.dat)?$";
	make();
}

START_TEST(own_steps)
{
	put_big("exp_1/it0042/x");
	put_big("exp_1/it0043.dat");
	put_big("exp_1/step-9/x");
	put_big("other-7/x");
	look_at_all();
	expect("exp_1/it0042", "run/exp_1", 42, TPD_SEEN_SETTLING);
	expect("exp_1/it0043.dat", "run/exp_1", 43, TPD_SEEN_SETTLING);
	ck_assert_uint_eq(result.seen_count, 2);
}
END_TEST

/* A number may count experiments; a file that is written again and again tells its own steps. */
START_TEST(numbered_runs)
{
	put_big("exp1/latest.pt");
	put_big("seed-2/last.ckpt");
	put_big("step-3/latest.pt");
	put_big("4/last.pt");
	put_big("exp5/weights.pt"); /* a run by its name */
	put_big("dev5/weights.pt");
	look_at_all();
	ck_assert_ptr_null(seen("exp1"));
	ck_assert_ptr_null(seen("seed-2"));
	expect("step-3", "run", 3, TPD_SEEN_SETTLING);
	expect("4", "run", 4, TPD_SEEN_SETTLING);
	ck_assert_ptr_null(seen("exp5"));
	expect("dev5", "run", 5, TPD_SEEN_SETTLING);
}
END_TEST

/* A framework that a look knows by this name is asked for its metrics in its own way; others by what was captured. */
START_TEST(who_tells_metrics)
{
	put_trainer("checkpoint-20");
	expect_now("checkpoint-20", 20, TPD_SEEN_COMPLETE);
	ck_assert_ptr_eq(tpd_framework_metrics_of(seen("checkpoint-20")->framework), tpd_metrics_of_trainer);
	ck_assert_ptr_eq(tpd_framework_metrics_of("lightning"), tpd_metrics_of_lightning);
	ck_assert_ptr_null(tpd_framework_metrics_of("orbax"));
	ck_assert_ptr_null(tpd_framework_metrics_of("file"));
}
END_TEST

static void drop_rules(void)
{
	complete_when = step_regex = NULL;
	drop();
}

int main(void)
{
	Suite *suite = suite_create("frameworks");
	TCase *tests = tcase_create("frameworks"), *marker = tcase_create("complete_when"), *regex = tcase_create("step_regex");
	SRunner *runner = srunner_create(suite);
	int failed;

	suite_add_tcase(suite, tests);
	tcase_add_checked_fixture(tests, make, drop);
	tcase_add_test(tests, trainer);
	tcase_add_test(tests, trainer_with_shards_and_deepspeed);
	tcase_add_test(tests, distributed_checkpoint);
	tcase_add_test(tests, lightning_directory);
	tcase_add_test(tests, lightning_last_directory);
	tcase_add_test(tests, megatron);
	tcase_add_test(tests, megatron_ranks);
	tcase_add_test(tests, accelerate_fsdp);
	tcase_add_test(tests, deepspeed);
	tcase_add_test(tests, markers_beside);
	tcase_add_test(tests, markers_above_ranks);
	tcase_add_test(tests, keras_backup);
	tcase_add_test(tests, shards_of_any_index);
	tcase_add_test(tests, lightning_last);
	tcase_add_test(tests, who_tells_metrics);
	tcase_add_test(tests, numbered_runs);
	suite_add_tcase(suite, marker);
	tcase_add_checked_fixture(marker, make_by_marker, drop_rules);
	tcase_add_test(marker, own_marker);
	suite_add_tcase(suite, regex);
	tcase_add_checked_fixture(regex, make_by_regex, drop_rules);
	tcase_add_test(regex, own_steps);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
