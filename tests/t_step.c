/*
 * t_step.c - which step is a checkpoint: by trainer_state.json, name, and what was saved; and that the daemon's view of names is the same.
 */
#include "base/tpd.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "archive/step.h"
#include "daemon/recognise.h"
#include "files.h"
#include "pickle_build.h"
#include "zip_build.h"

#define NONE_TOLD UINT64_MAX

static struct tpd_err err;

#define OK(call) ck_assert_msg((call) == TPD_OK, "%s", err.text)

/* What torch.save({key: value}) writes. */
static void put_torch(const char *path, const char *key, uint64_t value)
{
	struct tpd_buf pickle = {0};
	struct zip zip = {.count = 0};

	pk_proto(&pickle, 2);
	pk(&pickle, EMPTY_DICT);
	pk(&pickle, MARK);
	pk_str(&pickle, key);
	pk_int(&pickle, value);
	pk(&pickle, SETITEMS);
	pk(&pickle, STOP);
	add_bytes(&zip, "archive/data.pkl", pickle.data, pickle.len, DESCRIPTOR | ALIGNED);
	finish(&zip, true, "");
	file_write(path, zip.file.data, zip.file.len);
	tpd_buf_release(&zip.file);
	tpd_buf_release(&pickle);
}

static const struct {
	const char *name;
	uint64_t step; /* NONE_TOLD: none */
} files[] = {
	{"step=20.ckpt", 20},
	{"epoch=1-step=20.ckpt", 20},
	{"epoch=1-step=20-v1.ckpt", 20}, /* not 1 */
	{"step=20-loss=1.25.ckpt", 20},  /* not 25 */
	{"checkpoint_5_of_run_7.pt", 5},
	{"model-12.pt", 12},
	{"iter_0000040.pt", 40},
	{"ckpt-3.safetensors", 3},
	{"model-bf16.safetensors", NONE_TOLD},
	{"model-12-best.pt", NONE_TOLD},
	{"last.ckpt", NONE_TOLD},
	{"acc=0.90.ckpt", NONE_TOLD}, /* of "epoch=3-val/acc=0.90.ckpt" */
	{"best-val_loss=0.37.pt", NONE_TOLD},
	{"lr=1e-05.pt", NONE_TOLD},
	{"val_loss=0.37-20.pt", NONE_TOLD},
};

/* The daemon goes by the same number as `tpdectl ingest`. */
START_TEST(daemon_and_command_agree)
{
	for (size_t i = 0; i < TPD_ARRAY_LEN(files); i++) {
		const char *name = files[i].name;
		uint64_t by_daemon = NONE_TOLD, by_command = NONE_TOLD;
		struct tpd_dir_facts facts = {.payload = true};
		char dir[100];

		tpd_recognise_file(name, &by_daemon);
		file_write(scratch("%s", name), "x", 1);
		tpd_step_of(scratch("%s", name), &by_command, &err);
		ck_assert_msg(by_daemon == files[i].step, "%s: %llu", name, (unsigned long long)by_daemon);
		ck_assert_msg(by_command == files[i].step, "%s: %llu", name, (unsigned long long)by_command);
		/* The same as a directory, without its extension and with it. */
		for (int with = 0; with < 2; with++) {
			snprintf(dir, sizeof dir, "%.*s", with ? (int)strlen(name) : (int)(strrchr(name, '.') - name), name);
			mkdir(scratch("d"), 0755);
			mkdir(scratch("d/%s", dir), 0755);
			facts.name = dir;
			by_daemon = by_command = NONE_TOLD;
			tpd_recognise_dir(&facts, &by_daemon);
			tpd_step_of(scratch("d/%s", dir), &by_command, &err);
			ck_assert_msg(by_daemon == files[i].step && by_command == files[i].step, "%s/: %llu, %llu", dir,
				      (unsigned long long)by_daemon, (unsigned long long)by_command);
		}
	}
}
END_TEST

/* Files that only the command takes. */
START_TEST(other_extensions)
{
	uint64_t step = 0;

	file_write(scratch("model-12.gguf"), "x", 1);
	OK(tpd_step_of(scratch("model-12.gguf"), &step, &err));
	ck_assert_uint_eq(step, 12);
	ck_assert(tpd_step_file_name("weights-3", &step) && step == 3);
	ck_assert(tpd_step_file_name("v1.12", &step) && step == 12);
	ck_assert(!tpd_step_dir_name("model-12.gguf", &step)); /* a directory's name has no extension */
}
END_TEST

START_TEST(what_was_saved)
{
	uint64_t step = 0;

	put_torch(scratch("last.ckpt"), "global_step", 42);
	OK(tpd_step_of(scratch("last.ckpt"), &step, &err));
	ck_assert_uint_eq(step, 42);
	ck_assert(tpd_step_torch(scratch("last.ckpt"), &step));
	put_torch(scratch("step=7.ckpt"), "global_step", 42); /* the name has the word */
	OK(tpd_step_of(scratch("step=7.ckpt"), &step, &err));
	ck_assert_uint_eq(step, 7);
	put_torch(scratch("final.pt"), "epochs", 3);
	ck_assert_int_eq(tpd_step_of(scratch("final.pt"), &step, &err), TPD_NOT_FOUND);
	/* Lightning's directory. */
	mkdir(scratch("d"), 0755);
	mkdir(scratch("d/last.ckpt"), 0755);
	ck_assert_int_eq(tpd_step_of(scratch("d/last.ckpt"), &step, &err), TPD_NOT_FOUND);
	put_torch(scratch("d/last.ckpt/meta.pt"), "global_step", 43);
	OK(tpd_step_of(scratch("d/last.ckpt"), &step, &err));
	ck_assert_uint_eq(step, 43);
}
END_TEST

START_TEST(steps_of_paths)
{
	uint64_t step = 0;

	mkdir(scratch("checkpoint-7"), 0755);
	OK(tpd_step_of(scratch("checkpoint-7"), &step, &err));
	ck_assert_uint_eq(step, 7);
	file_write(scratch("checkpoint-7/trainer_state.json"), "{\"global_step\": 9}", 18);
	OK(tpd_step_of(scratch("checkpoint-7"), &step, &err));
	ck_assert_uint_eq(step, 9);
	{ /* as Python writes it */
		static const char state[] = "{\"best_metric\": NaN, \"log_history\": [{\"loss\": -Infinity, \"note\": \"NaN\"}], "
					    "\"global_step\": 20}";

		file_write(scratch("checkpoint-7/trainer_state.json"), state, strlen(state));
		OK(tpd_step_of(scratch("checkpoint-7"), &step, &err));
		ck_assert_uint_eq(step, 20);
	}
	/* There, and silent: the name must not answer for it. */
	file_write(scratch("checkpoint-7/trainer_state.json"), "{\"global_step\": 9", 17);
	ck_assert_int_eq(tpd_step_of(scratch("checkpoint-7"), &step, &err), TPD_USAGE);
	ck_assert_ptr_nonnull(strstr(err.text, "trainer_state.json"));
	file_write(scratch("checkpoint-7/trainer_state.json"), "{\"epoch\": 9}", 12);
	ck_assert_int_eq(tpd_step_of(scratch("checkpoint-7"), &step, &err), TPD_USAGE);
	ck_assert_int_eq(unlink(scratch("checkpoint-7/trainer_state.json")), 0);
	mkdir(scratch("checkpoint-7/trainer_state.json"), 0755);
	ck_assert_int_eq(tpd_step_of(scratch("checkpoint-7"), &step, &err), TPD_USAGE);
	file_write(scratch("model-12.pt"), "x", 1);
	OK(tpd_step_of(scratch("model-12.pt"), &step, &err));
	ck_assert_uint_eq(step, 12);
	mkdir(scratch("last"), 0755);
	ck_assert_int_eq(tpd_step_of(scratch("last"), &step, &err), TPD_NOT_FOUND);
	ck_assert_int_eq(tpd_step_of(scratch("nothing-5"), &step, &err), TPD_NOT_FOUND);
}
END_TEST

/* Keras' BackupAndRestore. */
START_TEST(epochs_of_keras)
{
	static const char text[] = "{\"batch\": 7, \"more\": {\"epoch\": 9}, \"epoch\": 3}";
	uint64_t step = 99;

	mkdir(scratch("backup"), 0755);
	file_write(scratch("backup/training_metadata.json"), text, strlen(text));
	OK(tpd_step_of(scratch("backup"), &step, &err));
	ck_assert_uint_eq(step, 3);
	file_write(scratch("backup/training_metadata.json"), text, strlen(text) - 1);
	ck_assert(!tpd_step_keras(scratch("backup/training_metadata.json"), &step));
	ck_assert(!tpd_step_keras(scratch("absent"), &step));
	ck_assert_int_eq(tpd_step_of(scratch("backup"), &step, &err), TPD_NOT_FOUND);
	ck_assert_uint_eq(step, 3);
	ck_assert(tpd_step_file_name("cp-0007.weights.h5", &step));
	ck_assert_uint_eq(step, 7);
	ck_assert(tpd_step_file_name("model-8.keras", &step));
	ck_assert_uint_eq(step, 8);
}
END_TEST

static void make(void)
{
	scratch_make();
}

int main(void)
{
	Suite *suite = suite_create("step");
	TCase *tests = tcase_create("step");
	SRunner *runner = srunner_create(suite);
	int failed;

	suite_add_tcase(suite, tests);
	tcase_add_checked_fixture(tests, make, scratch_remove);
	tcase_add_test(tests, daemon_and_command_agree);
	tcase_add_test(tests, other_extensions);
	tcase_add_test(tests, what_was_saved);
	tcase_add_test(tests, steps_of_paths);
	tcase_add_test(tests, epochs_of_keras);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
