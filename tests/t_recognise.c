/* t_recognise.c - names of frameworks, and files that are whole or not. */
#include "base/tpd.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "daemon/recognise.h"
#include "files.h"

START_TEST(ignored)
{
	static const char *const yes[] = {".tmpAbC",
					  ".metadata.tmp",
					  ".git",
					  "tmp-checkpoint-20",
					  "model.tmp",
					  "x.lock",
					  "model.__lock",
					  "20.orbax-checkpoint-tmp",
					  "20.orbax-checkpoint-tmp-1699",
					  "step-20-unfinished",
					  "notes~"};
	static const char *const no[] = {"checkpoint-20", "model.safetensors", "tmpfile.pt", "20",
					 "lock",          "step=20.ckpt"};

	for (size_t i = 0; i < TPD_ARRAY_LEN(yes); i++)
		ck_assert_msg(tpd_recognise_ignored(yes[i]), "%s", yes[i]);
	for (size_t i = 0; i < TPD_ARRAY_LEN(no); i++)
		ck_assert_msg(!tpd_recognise_ignored(no[i]), "%s", no[i]);
}
END_TEST

START_TEST(file_names)
{
	static const struct {
		const char *name;
		enum tpd_file_role role;
		uint64_t step;
		bool step_like;
	} all[] = {
		{"step=20.ckpt", TPD_FILE_CHECKPOINT, 20, true},
		{"epoch=0-step=20.ckpt", TPD_FILE_CHECKPOINT, 20, true},
		{"epoch=0-step=20-v1.ckpt", TPD_FILE_CHECKPOINT, 20, true}, /* a second file of this step */
		{"epoch=3.ckpt", TPD_FILE_CHECKPOINT, 3, true},
		{"step-20.pt", TPD_FILE_CHECKPOINT, 20, true},
		{"global_step20.pt", TPD_FILE_CHECKPOINT, 20, true},
		{"checkpoint_000120.pth", TPD_FILE_CHECKPOINT, 120, true},
		{"ckpt-7.bin", TPD_FILE_CHECKPOINT, 7, true},
		{"iter_0000020.safetensors", TPD_FILE_CHECKPOINT, 20, true},
		{"steps_300.pt", TPD_FILE_CHECKPOINT, 300, true},
		{"model_100.pt", TPD_FILE_CHECKPOINT, 100, false},
		{"100.pt", TPD_FILE_CHECKPOINT, 100, false},
		{"net-12.safetensors", TPD_FILE_CHECKPOINT, 12, false},
		{"last.ckpt", TPD_FILE_UNNUMBERED, 0, false},
		{"best.pt", TPD_FILE_UNNUMBERED, 0, false},
		{"weights-bf16.safetensors", TPD_FILE_UNNUMBERED, 0, false},
		{"llama.int8.bin", TPD_FILE_UNNUMBERED, 0, false},
		{"99999999999999999999.pt", TPD_FILE_UNNUMBERED, 0, false}, /* no uint64 */
		{"model.safetensors", TPD_FILE_PART, 0, false},
		{"model-00001-of-00002.safetensors", TPD_FILE_PART, 0, false},
		{"optimizer.pt", TPD_FILE_PART, 0, false},
		{"rng_state_3.pth", TPD_FILE_PART, 0, false},
		{"random_states_0.bin", TPD_FILE_PART, 0, false},
		{"training_args.bin", TPD_FILE_PART, 0, false},
		{"mp_rank_00_model_states.pt", TPD_FILE_PART, 0, false},
		{"bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt", TPD_FILE_PART, 0, false},
		{"cp-0010.weights.h5", TPD_FILE_CHECKPOINT, 10, false},
		{"epoch_3.keras", TPD_FILE_CHECKPOINT, 3, true},
		{"latest.keras", TPD_FILE_UNNUMBERED, 0, false},
		{"net-step20-q8_0.gguf", TPD_FILE_CHECKPOINT, 20, true},
		{"net-q8_0.gguf", TPD_FILE_OTHER, 0, false}, /* a type */
		{"ckpt-7.npz", TPD_FILE_CHECKPOINT, 7, true},
		{"faces-100.npz", TPD_FILE_OTHER, 0, false}, /* data */
		{"step_4.msgpack", TPD_FILE_CHECKPOINT, 4, true},
		{"step_4.h5", TPD_FILE_CHECKPOINT, 4, true},
		{"net-step20.onnx", TPD_FILE_OTHER, 0, false}, /* without its .data? */
		{"trainer_state.json", TPD_FILE_OTHER, 0, false},
		{"step-20.txt", TPD_FILE_OTHER, 0, false},
		{"step-20", TPD_FILE_OTHER, 0, false},
		{".pt", TPD_FILE_OTHER, 0, false},
		{"__0_0.distcp", TPD_FILE_OTHER, 0, false},
	};

	for (size_t i = 0; i < TPD_ARRAY_LEN(all); i++) {
		uint64_t step = 0;

		ck_assert_msg(tpd_recognise_file(all[i].name, &step) == all[i].role, "%s", all[i].name);
		if (all[i].role == TPD_FILE_CHECKPOINT)
			ck_assert_msg(step == all[i].step, "%s: %llu", all[i].name, (unsigned long long)step);
		ck_assert_msg(tpd_recognise_step_file(all[i].name) == all[i].step_like, "%s", all[i].name);
	}
}
END_TEST

START_TEST(ranks)
{
	uint64_t rank = 99;

	ck_assert(tpd_recognise_rank("rng_state_0.pth", &rank));
	ck_assert_uint_eq(rank, 0);
	ck_assert(tpd_recognise_rank("rng_state_1023.pth", &rank));
	ck_assert_uint_eq(rank, 1023);
	ck_assert(!tpd_recognise_rank("rng_state.pth", &rank));
	ck_assert(!tpd_recognise_rank("rng_state_.pth", &rank));
	ck_assert(!tpd_recognise_rank("rng_state_x.pth", &rank));
	ck_assert(!tpd_recognise_rank("rng_state_1.pt", &rank));
}
END_TEST

START_TEST(payload)
{
	ck_assert(tpd_recognise_payload("weights.npz", 1024));
	ck_assert(tpd_recognise_payload("__0_0.distcp", 5000));
	ck_assert(!tpd_recognise_payload("weights.npz", 1023));
	ck_assert(!tpd_recognise_payload("train.log", 100000));
	ck_assert(!tpd_recognise_payload("events.out.tfevents.1700000000.host.1.0", 100000));
	ck_assert(!tpd_recognise_payload("config.yaml", 100000));
	ck_assert(!tpd_recognise_payload(".tmpXYZ", 100000));
	ck_assert(tpd_recognise_weights("model-00001-of-00002.safetensors"));
	ck_assert(tpd_recognise_weights("adapter_model.safetensors"));
	ck_assert(!tpd_recognise_weights("optimizer.pt"));
	ck_assert(!tpd_recognise_weights("model.safetensors.index.json"));
}
END_TEST

/*
 * Which facts a directory has, by letter: p payload, c checkpoints below, n numbered files. (What frameworks claim: t_scan.c.)
 */
static struct tpd_dir_facts facts(const char *name, const char *letters)
{
	return (struct tpd_dir_facts){
		.name = name,
		.payload = strchr(letters, 'p') != NULL,
		.checkpoints = strchr(letters, 'c') != NULL,
		.numbered_files = strchr(letters, 'n') != NULL,
	};
}

START_TEST(directories)
{
	static const struct {
		const char *name, *letters;
		bool is_one;
		uint64_t step;
	} all[] = {
		{"checkpoint-20", "p", true, 20}, /* somebody else's */
		{"checkpoint-20", "", false, 0},
		{"checkpoint-best", "p", false, 0},
		{"step-20", "p", true, 20},
		{"step-20", "pn", true, 20},
		{"step-20", "", false, 0},
		{"global_step20", "p", true, 20},
		{"20", "p", true, 20},
		{"epoch=0-step=20.ckpt", "p", true, 20}, /* Lightning's FSDP */
		{"model-7", "p", true, 7},
		{"iter_0000020", "p", true, 20},
		{"model", "p", false, 0},
		{"model-bf16", "p", false, 0},
		{"seed42", "pc", false, 0}, /* a run: its checkpoints are below */
		{"version_0", "pcn", false, 0},
		{"run7", "pn", false, 0}, /* run7/model_100.pt */
		{"run7", "p", false, 0},  /* its checkpoints are gone, or still to come */
		{"llama-Exp-3", "p", false, 0},
		{"seed_42", "p", false, 0},
		{"v2", "p", false, 0},
		{"dev-7", "p", true, 7},
		{"run1-step-20", "p", true, 20},
	};

	for (size_t i = 0; i < TPD_ARRAY_LEN(all); i++) {
		struct tpd_dir_facts f = facts(all[i].name, all[i].letters);
		uint64_t step = 0;

		ck_assert_msg(tpd_recognise_dir(&f, &step) == all[i].is_one, "%s %s", all[i].name, all[i].letters);
		if (all[i].is_one)
			ck_assert_msg(step == all[i].step, "%s: %llu", all[i].name, (unsigned long long)step);
	}
	ck_assert(tpd_recognise_step_dir("checkpoint-20") && tpd_recognise_step_dir("20") &&
		  tpd_recognise_step_dir("epoch_3"));
	ck_assert(!tpd_recognise_step_dir("optimizer_0") && !tpd_recognise_step_dir("pytorch_model_fsdp_0"));
	ck_assert(!tpd_recognise_step_dir("tmp-checkpoint-20") && !tpd_recognise_step_dir("seed42"));
}
END_TEST

/* --- contents --- */

static bool whole(const char *name, const void *data, size_t len)
{
	file_write(scratch("%s", name), data, len);
	return tpd_recognise_whole_file(scratch("%s", name));
}

/* An honest safetensors file: header, then `data` bytes. */
static size_t safetensors(uint8_t out[256], size_t data)
{
	char header[128];
	int len = snprintf(
		header, sizeof header,
		"{\"__metadata__\":{\"format\":\"pt\"},\"w\":{\"dtype\":\"U8\",\"shape\":[%zu],\"data_offsets\":[0,%zu]}}",
		data, data);

	memset(out, 0xa5, 256);
	tpd_put_u32(out, (uint32_t)len);
	tpd_put_u32(out + 4, 0);
	memcpy(out + 8, header, (size_t)len);
	return 8 + (size_t)len + data;
}

START_TEST(whole_safetensors)
{
	uint8_t file[256];
	size_t len = safetensors(file, 50);

	ck_assert(whole("a.safetensors", file, len));
	for (size_t cut = 0; cut < len; cut++)
		ck_assert_msg(!whole("a.safetensors", file, cut), "%zu of %zu bytes", cut, len);
	ck_assert(whole("a.safetensors", file, len + 1)); /* odd, but nothing is missing */
	/* only named so: others may have their reasons */
	memset(file, 7, sizeof file);
	ck_assert(whole("b.safetensors", file, sizeof file));
}
END_TEST

START_TEST(whole_zip)
{
	uint8_t file[200] = {'P', 'K', 3, 4};
	size_t end = sizeof file - 22;

	ck_assert(!whole("a.pt", file, sizeof file));
	tpd_put_u32(file + end, 0x06054b50);
	ck_assert(whole("a.pt", file, sizeof file));
	ck_assert(!whole("a.pt", file, sizeof file - 1));
	tpd_put_u16(file + end + 20, 1); /* a comment that is not there yet */
	ck_assert(!whole("a.pt", file, sizeof file));
	tpd_put_u32(file + end, 0);
	tpd_put_u32(file + end - 1, 0x06054b50);
	tpd_put_u16(file + end + 19, 1); /* one that is */
	ck_assert(whole("a.pt", file, sizeof file));
	ck_assert(!whole("a.pt", file, 4));
	ck_assert(!whole("a.pt", file, 0));
	ck_assert(whole("b.pt", "pickle", 6)); /* a legacy file: no zip, no opinion */
	ck_assert(tpd_recognise_whole_file(scratch("absent")));
}
END_TEST

START_TEST(whole_hdf5)
{
	uint8_t file[200] = {0x89, 'H', 'D', 'F', '\r', '\n', 0x1a, '\n'};

	memset(file + 100, 7, 100);
	file[13] = 8;
	tpd_put_u64(file + 40, sizeof file);
	ck_assert(whole("a.weights.h5", file, sizeof file));
	ck_assert(!whole("a.weights.h5", file, sizeof file - 1));
	file[20] = 1; /* open for writing */
	ck_assert(!whole("a.weights.h5", file, sizeof file));
	file[20] = 0;
	file[13] = 4; /* short addresses: no opinion */
	ck_assert(whole("a.weights.h5", file, 100));
	/* A newer superblock. */
	file[8] = 3;
	file[9] = 8;
	tpd_put_u64(file + 28, sizeof file);
	ck_assert(whole("a.h5", file, sizeof file));
	ck_assert(!whole("a.h5", file, sizeof file - 1));
	file[11] = 5;
	ck_assert(!whole("a.h5", file, sizeof file));
	file[0] = 0; /* its first page comes last */
	ck_assert(!whole("a.h5", file, sizeof file));
	file[0] = 'x'; /* only named so */
	ck_assert(whole("a.h5", file, sizeof file));
	ck_assert(!whole("a.h5", file, 20));
}
END_TEST

START_TEST(whole_gguf)
{
	uint8_t file[128] = {'G', 'G', 'U', 'F', 3};

	tpd_put_u64(file + 8, 1); /* one tensor, "w", of 16 F32 */
	tpd_put_u64(file + 24, 1);
	file[32] = 'w';
	tpd_put_u32(file + 33, 1);
	tpd_put_u64(file + 37, 16);
	ck_assert(whole("a.gguf", file, sizeof file)); /* type and offset are 0; the data begin at 64 */
	for (size_t cut = 4; cut < sizeof file; cut++)
		ck_assert_msg(!whole("a.gguf", file, cut), "%zu bytes", cut);
	file[4] = 9; /* another version: no opinion */
	ck_assert(whole("a.gguf", file, 100));
}
END_TEST

START_TEST(json)
{
	static const struct {
		const char *text;
		bool good;
	} all[] = {
		{"{\"global_step\": 20}", true},
		{"{\"loss\": NaN, \"x\": [Infinity, -Infinity]}", true},
		{"{\"text\": \"NaN, \\\" Infinity\"}", true},
		{"{\"loss\": NaNa}", false},
		{"{\"loss\": --Infinity}", false},
		{"{\"global_step\": 20", false},
		{"{\"global_step\": 20}}", false},
		{"", false},
	};

	for (size_t i = 0; i < TPD_ARRAY_LEN(all); i++) {
		file_write(scratch("s.json"), all[i].text, strlen(all[i].text));
		ck_assert_msg(tpd_recognise_json(scratch("s.json")) == all[i].good, "%s", all[i].text);
	}
	ck_assert(!tpd_recognise_json(scratch("absent")));
}
END_TEST

static bool has(void *arg, const char *name)
{
	(*(unsigned *)arg)++;
	return strcmp(name, "missing") != 0;
}

START_TEST(shards)
{
	static const char good[] =
		"{\"metadata\":{\"total_size\":5},\"weight_map\":{\"a\":\"one\",\"b\":\"two\",\"c\":\"one\"}}";
	static const char lacking[] = "{\"weight_map\":{\"a\":\"one\",\"b\":\"missing\"}}";
	static const char *const bad[] = {"{\"weight_map\":{\"a\":1}}", "{\"weight_map\":{\"a\":\"one\"}", "[]", ""};
	unsigned asked = 0;

	file_write(scratch("i.json"), good, strlen(good));
	ck_assert(tpd_recognise_shards(scratch("i.json"), has, &asked));
	ck_assert_uint_eq(asked, 3);
	file_write(scratch("i.json"), lacking, strlen(lacking));
	ck_assert(!tpd_recognise_shards(scratch("i.json"), has, &asked));
	for (size_t i = 0; i < TPD_ARRAY_LEN(bad); i++) {
		file_write(scratch("i.json"), bad[i], strlen(bad[i]));
		ck_assert_msg(!tpd_recognise_shards(scratch("i.json"), has, &asked), "%s", bad[i]);
	}
	ck_assert(!tpd_recognise_shards(scratch("absent"), has, &asked));
}
END_TEST

static void make(void)
{
	scratch_make();
}

int main(void)
{
	Suite *suite = suite_create("recognise");
	TCase *tests = tcase_create("recognise");
	SRunner *runner = srunner_create(suite);
	int failed;

	suite_add_tcase(suite, tests);
	tcase_add_checked_fixture(tests, make, scratch_remove);
	tcase_add_test(tests, ignored);
	tcase_add_test(tests, file_names);
	tcase_add_test(tests, ranks);
	tcase_add_test(tests, payload);
	tcase_add_test(tests, directories);
	tcase_add_test(tests, whole_safetensors);
	tcase_add_test(tests, whole_zip);
	tcase_add_test(tests, whole_hdf5);
	tcase_add_test(tests, whole_gguf);
	tcase_add_test(tests, json);
	tcase_add_test(tests, shards);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
