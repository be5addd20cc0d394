/*
 * t_metrics_of.c - what a checkpoint tells of how good it is: trainer_state.json, Lightning's files, names; honest ones,
 * and such as no trainer wrote.
 */
#include "base/tpd.h"

#include <check.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "archive/capture.h"
#include "archive/trainer_state.h"
#include "files.h"
#include "format/format.h"
#include "format_file.h"
#include "pickle_build.h"
#include "zip_build.h"

static struct tpd_err err;

#define OK(call) ck_assert_msg((call) == TPD_OK, "%s", err.text)

/* "bleu=31 loss=0.5", by name */
static const char *text_of(struct tpd_metrics *metrics)
{
	static char text[4096];
	size_t at = 0;

	text[0] = 0;
	for (size_t i = 0; i < metrics->count && at < sizeof(text); i++)
		at += (size_t)snprintf(text + at, sizeof(text) - at, "%s%s=%.9g", i ? " " : "", metrics->items[i].name,
				       metrics->items[i].value);
	tpd_metrics_release(metrics);
	return text;
}

/* --- trainer_state.json --- */

static const char *state(const char *json, size_t len)
{
	struct tpd_metrics metrics = {0};
	char *copy = malloc(len + 1); /* exactly as much: a read behind it is seen */

	ck_assert_ptr_nonnull(copy);
	memcpy(copy, json, len);
	OK(tpd_trainer_state_metrics(copy, len, &metrics, &err));
	free(copy);
	return text_of(&metrics);
}

START_TEST(trainer_states)
{
	static const struct {
		const char *json, *metrics;
	} cases[] = {
		{"{\"global_step\": 20, \"log_history\": ["
		 "{\"epoch\": 0.5, \"grad_norm\": 2, \"learning_rate\": 5e-05, \"loss\": 3.5, \"step\": 10},"
		 "{\"epoch\": 1.0, \"grad_norm\": 1.5, \"learning_rate\": 0.0, \"loss\": 2.5, \"step\": 20},"
		 "{\"epoch\": 1.0, \"eval_accuracy\": 0.25, \"eval_loss\": 2.25, \"eval_runtime\": 1.5,"
		 " \"eval_samples_per_second\": 7.1, \"eval_steps_per_second\": 3.5, \"eval_model_preparation_time\": 0.1,"
		 " \"step\": 20}]}",
		 "eval_accuracy=0.25 eval_loss=2.25 grad_norm=1.5 learning_rate=0 loss=2.5"},
		/* the history before the step, an entry's step behind its numbers, of equal names the last */
		{"{\"log_history\": [{\"loss\": 1, \"step\": 7}, {\"loss\": 3, \"step\": 7}, {\"step\": 6, \"loss\": 9}], \"global_step\": 7}",
		 "loss=3"},
		/* as Python writes what is not finite */
		{"{\"best_metric\": NaN, \"global_step\": 7, \"log_history\": [{\"loss\": NaN, \"step\": 7, \"eval_loss\": 0.5,"
		 " \"a\": Infinity, \"b\": -Infinity, \"c\": 0}]}",
		 "c=0 eval_loss=0.5"},
		/* values and entries of other types; numbers that no double holds; names that cannot be */
		{"{\"global_step\": 7, \"log_history\": [7, null, \"loss\", [{\"loss\": 1, \"step\": 7}], {}, {\"step\": 7},"
		 " {\"step\": \"7\", \"loss\": 1}, {\"step\": 7.0, \"loss\": 1}, {\"loss\": 1}, {\"step\": 7, \"a\": \"1\", \"b\": true,"
		 " \"c\": null, \"d\": [1], \"e\": {\"f\": 1}, \"g\": 1e999, \"\": 1, \"h\\u0000\": 1, \"i\\n\": 1, \"j\\u00e9\": -1e-300}]}",
		 "j\xc3\xa9=-1e-300"},
		{"{\"global_step\": 7, \"log_history\": {\"loss\": 1, \"step\": 7}}", ""},
		{"{\"global_step\": 7, \"log_history\": \"none\"}", ""},
		{"{\"global_step\": 7}", ""},
		{"{\"global_step\": \"7\", \"log_history\": [{\"loss\": 1, \"step\": 7}]}", ""},
		{"{\"log_history\": [{\"loss\": 1, \"step\": 0}]}", ""}, /* no step: not 0 */
		{"[{\"global_step\": 7, \"log_history\": [{\"loss\": 1, \"step\": 7}]}]", ""},
		/* not whole, or no JSON */
		{"{\"global_step\": 7, \"log_history\": [{\"loss\": 1, \"step\": 7}]", ""},
		{"{\"global_step\": 7, \"log_history\": [{\"loss\": 1, \"step\": 7}]} x", ""},
		{"{\"global_step\": 7, \"log_history\": [{\"loss\": 1 \"step\": 7}]}", ""},
		{"{\"global_step\": 7, \"log_history\": [{\"loss\": NaNN, \"step\": 7}]}", ""},
		{"{\"global_step\": 7, \"log_history\": [{NaN: 1, \"step\": 7}]}", ""},
		{"", ""},
		{"\xff", ""},
	};

	for (size_t i = 0; i < TPD_ARRAY_LEN(cases); i++)
		ck_assert_str_eq(state(cases[i].json, strlen(cases[i].json)), cases[i].metrics);
	for (size_t len = 0; len < strlen(cases[0].json); len++) /* every cut of an honest one */
		ck_assert_str_eq(state(cases[0].json, len), "");
}
END_TEST

START_TEST(deep_and_large_states)
{
	struct tpd_buf buf = {0};
	struct tpd_metrics metrics = {0};
	uint64_t step = 0;

	tpd_buf_printf(&buf, "{\"global_step\": 7, \"log_history\": [{\"step\": 7, \"loss\": 1, \"x\": ");
	for (unsigned i = 0; i < 1u << 20; i++)
		tpd_buf_u8(&buf, '[');
	ck_assert_str_eq(state((char *)buf.data, buf.len), "");
	tpd_buf_release(&buf);

	/* a long run's: 20 MB of history, and more metrics than a checkpoint may have */
	tpd_buf_printf(&buf, "{\"log_history\": [");
	for (unsigned i = 0; i < 200000; i++)
		tpd_buf_printf(&buf, "{\"epoch\": 0.1, \"grad_norm\": 1.0, \"learning_rate\": 1e-05, \"loss\": %u.5, \"step\": %u},\n", i, i);
	tpd_buf_printf(&buf, "{\"step\": 199999");
	for (unsigned i = 0; i < 1000; i++)
		tpd_buf_printf(&buf, ", \"m%u\": %u", i, i);
	tpd_buf_printf(&buf, "}], \"global_step\": 199999}");
	OK(tpd_trainer_state_metrics((char *)buf.data, buf.len, &metrics, &err));
	ck_assert_uint_eq(metrics.count, TPD_METRICS_MAX);
	ck_assert(tpd_metrics_find(&metrics, "loss")->value == 199999.5);
	ck_assert(tpd_trainer_state_step((char *)buf.data, buf.len, &step) && step == 199999);
	tpd_metrics_release(&metrics);
	tpd_buf_release(&buf);
}
END_TEST

/* --- names --- */

static const char *of_name(const char *origin)
{
	struct tpd_source source = {.kind = TPD_CHECKPOINT_DIR, .origin = origin};
	struct tpd_metrics metrics = {0};

	OK(tpd_metrics_of_name(&source, &metrics, &err));
	return text_of(&metrics);
}

START_TEST(names)
{
	static const struct {
		const char *origin, *metrics;
	} cases[] = {
		{"/r/epoch=3-val_loss=0.42.ckpt", "val_loss=0.42"},
		{"/r/epoch=3-step=100-val_loss=-1.5e-05-val_acc=1-v2.ckpt", "val_acc=1 val_loss=-1.5e-05"},
		{"/r/epoch=3-step=100-val/acc=0.9.ckpt", "val/acc=0.9"},
		{"/r/epoch=3/acc=0.9.ckpt", "acc=0.9"}, /* a directory that is whole by itself */
		{"/r/epoch=3-loss=1/acc=0.9.ckpt", "acc=0.9"},
		{"/r/best-val_loss=0.3.ckpt", "val_loss=0.3"}, /* a prefix */
		{"/r/epoch=3-recall@10=0.5.ckpt", "recall@10=0.5"},
		{"/r/epoch=3-val.loss=2.ckpt", "val.loss=2"},
		{"/r/epoch=3-val_loss=nan-acc=0.5.ckpt", "acc=0.5"},
		{"/r/epoch=3-val_loss=-inf.ckpt", ""},
		{"epoch=1-loss=2.ckpt", "loss=2"},
		{"/loss=2.ckpt", "loss=2"},
		/* counters */
		{"/r/epoch=3-step=100.ckpt", ""},
		{"/r/epoch=3-global_step=100.ckpt", ""},
		{"/r/last.ckpt", ""},
		{"/r/last-v1.ckpt", ""},
		{"/", ""},
		/* of others only where an epoch or a step stands beside */
		{"/r/step=100-loss=0.5.pt", "loss=0.5"},
		{"/r/step=100-loss=0.5.safetensors", "loss=0.5"},
		{"/r/step=100-loss=0.5", "loss=0.5"},
		{"/r/lr=0.1.pt", ""},
		{"/r/model_loss=0.5.pt", ""},
		/* what may mean something else */
		{"/r/epoch=3-loss=0.5_bs=3.ckpt", ""},
		{"/r/epoch=3-loss=0.4.2.ckpt", ""},
		{"/r/epoch=3-loss=tensor(0.4).ckpt", ""},
		{"/r/epoch=3-loss=.ckpt", ""},
		{"/r/epoch=3-=0.4.ckpt", ""},
		{"/r/epoch=3-0=0.4.ckpt", ""},
		{"/r/epoch=3-a b=0.4.ckpt", ""},
		{"/r/epoch=3-loss==0.4.ckpt", ""},
		{"/r/epoch=3-loss=0x10.ckpt", ""},
	};

	for (size_t i = 0; i < TPD_ARRAY_LEN(cases); i++) {
		const char *got = of_name(cases[i].origin);

		ck_assert_msg(strcmp(got, cases[i].metrics) == 0, "%s: '%s'", cases[i].origin, got);
	}
}
END_TEST

/* --- Lightning's files --- */

struct score {
	const char *path;        /* in best_k_models */
	const char *type;        /* of the storage; NULL: a plain number */
	double plain;
	uint64_t numel, offset;
	unsigned ndim;
	const char *byteorder;
	const void *bytes;       /* of data/0 */
	size_t len;
};

static const struct score honest = {.path = "/t/ck/epoch=1-val_loss=0.42.ckpt", .type = "FloatStorage", .numel = 1,
				    .byteorder = "little", .bytes = "\x00\x00\xd8\x3e", .len = 4}; /* 0.421875 */

static void put_score(struct tpd_buf *p, const struct score *score)
{
	struct pk_tensor tensor = {.type = score->type, .key = "0", .numel = score->numel, .offset = score->offset,
				   .ndim = score->ndim, .size = {1}, .stride = {1}};
	uint64_t bits;

	if (score->type) {
		pk_tensor(p, &tensor);
		return;
	}
	memcpy(&bits, &score->plain, sizeof(bits));
	tpd_buf_u8(p, 'G');
	tpd_buf_u64(p, __builtin_bswap64(bits));
}

/* A file as Lightning saves it: two ModelCheckpoints, of which one saved another file, and a callback of another kind. */
static struct tpd_buf lightning_file(const struct score *score)
{
	struct zip zip = {.count = 0};
	struct tpd_buf p = {0};

	pk_proto(&p, 2);
	pk(&p, EMPTY_DICT);
	pk(&p, MARK);
	pk_str(&p, "global_step");
	pk_int(&p, 20);
	pk_str(&p, "callbacks");
	pk(&p, EMPTY_DICT);
	pk(&p, MARK);
	pk_str(&p, "EarlyStopping{'monitor': 'val_loss', 'mode': 'min'}");
	pk(&p, EMPTY_DICT);
	for (int other = 1; other >= 0; other--) {
		pk_str(&p, other ? "MyOwnCheckpoint{'monitor': 'val_acc'}" : "ModelCheckpoint{'monitor': 'val_loss'}");
		pk(&p, EMPTY_DICT);
		pk(&p, MARK);
		pk_str(&p, "monitor");
		pk_str(&p, other ? "val_acc" : "val_loss");
		pk_str(&p, "current_score"); /* of whichever step: not to be taken */
		tpd_buf_u8(&p, 'G');
		tpd_buf_put(&p, "\x40\x08\0\0\0\0\0\0", 8);
		pk_str(&p, "best_k_models");
		pk(&p, EMPTY_DICT);
		pk(&p, MARK);
		pk_str(&p, "/t/ck/epoch=0-val_loss=0.99.ckpt");
		pk_int(&p, 99);
		if (!other) {
			pk_str(&p, score->path);
			put_score(&p, score);
		}
		pk(&p, SETITEMS);
		pk(&p, SETITEMS);
	}
	pk(&p, SETITEMS);
	pk(&p, SETITEMS);
	pk(&p, STOP);
	add_bytes(&zip, "epoch=1/data.pkl", p.data, p.len, ALIGNED);
	if (score->byteorder)
		add_bytes(&zip, "epoch=1/byteorder", score->byteorder, strlen(score->byteorder), ALIGNED);
	add_bytes(&zip, "epoch=1/data/0", score->bytes, score->len, ALIGNED);
	finish(&zip, false, "");
	tpd_buf_release(&p);
	return zip.file;
}

static enum tpd_status take(void *arg, const char *monitor, size_t length, double value, struct tpd_err *e)
{
	return tpd_metrics_set(arg, monitor, length, value, e);
}

static const char *scores(const char *name, const struct tpd_buf *bytes)
{
	struct format_file file = {.data = bytes->data, .size = bytes->len};
	struct tpd_metrics metrics = {0};

	OK(tpd_format_torch_scores(name, bytes->len, format_file_read, &file, take, &metrics, &err));
	return text_of(&metrics);
}

static const char *score_of(struct score score)
{
	struct tpd_buf file = lightning_file(&score);
	const char *text = scores("epoch=1-val_loss=0.42.ckpt", &file);

	tpd_buf_release(&file);
	return text;
}

START_TEST(scores_of_lightning)
{
	struct tpd_buf file = lightning_file(&honest);
	struct score score;

	ck_assert_str_eq(scores("epoch=1-val_loss=0.42.ckpt", &file), "val_loss=0.421875");
	ck_assert_str_eq(scores("epoch=0-val_loss=0.99.ckpt", &file), "val_acc=99 val_loss=99");
	ck_assert_str_eq(scores("last.ckpt", &file), ""); /* what it monitors is known, but of which step is not */
	ck_assert_str_eq(scores("loss=0.42.ckpt", &file), "");
	for (size_t len = 0; len < file.len; len++) {
		struct tpd_buf cut = {.data = file.data, .len = len};

		ck_assert_str_eq(scores("epoch=1-val_loss=0.42.ckpt", &cut), "");
	}
	tpd_buf_release(&file);
#define WITH(...) (score = honest, __VA_ARGS__, score_of(score))
	ck_assert_str_eq(WITH(score.type = NULL, score.plain = -0.1), "val_loss=-0.1");
	ck_assert_str_eq(WITH(score.type = NULL, score.plain = NAN), "");
	ck_assert_str_eq(WITH(score.path = "epoch=1-val_loss=0.42.ckpt"), "val_loss=0.421875");
	ck_assert_str_eq(WITH(score.path = "/t/ck/my-epoch=1-val_loss=0.42.ckpt"), "");
	ck_assert_str_eq(WITH(score.type = "DoubleStorage", score.bytes = "\0\0\0\0\0\0\xdb\x3f", score.len = 8), "val_loss=0.421875");
	ck_assert_str_eq(WITH(score.type = "BFloat16Storage", score.bytes = "\xd8\x3e", score.len = 2), "val_loss=0.421875");
	ck_assert_str_eq(WITH(score.type = "HalfStorage", score.bytes = "\xc0\x36", score.len = 2), "val_loss=0.421875");
	ck_assert_str_eq(WITH(score.type = "HalfStorage", score.bytes = "\x01\x80", score.len = 2), "val_loss=-5.96046448e-08");
	ck_assert_str_eq(WITH(score.type = "HalfStorage", score.bytes = "\x00\x7c", score.len = 2), "");
	ck_assert_str_eq(WITH(score.bytes = "\x00\x00\x80\x7f"), ""); /* infinite */
	ck_assert_str_eq(WITH(score.byteorder = NULL), "val_loss=0.421875");
	ck_assert_str_eq(WITH(score.byteorder = "big"), "");
	ck_assert_str_eq(WITH(score.byteorder = "bigger"), "");
	ck_assert_str_eq(WITH(score.numel = 2, score.offset = 1, score.bytes = "\0\0\0\0\x00\x00\xd8\x3e", score.len = 8), "val_loss=0.421875");
	ck_assert_str_eq(WITH(score.numel = 2, score.offset = 1), "");            /* beyond the member */
	ck_assert_str_eq(WITH(score.numel = 1, score.offset = 1, score.len = 4), ""); /* beyond the storage */
	ck_assert_str_eq(WITH(score.numel = 1ull << 62, score.offset = (1ull << 62) - 1), "");
	ck_assert_str_eq(WITH(score.len = 3), "");
	ck_assert_str_eq(WITH(score.ndim = 1), ""); /* no plain number */
	ck_assert_str_eq(WITH(score.type = "LongStorage", score.bytes = "\1\0\0\0\0\0\0\0", score.len = 8), "");
	ck_assert_str_eq(WITH(score.type = "NoStorage"), "");
#undef WITH
}
END_TEST

/* --- whole checkpoints, by their descriptors --- */

static const char *of_capture(const struct tpd_capture *capture)
{
	struct tpd_metrics metrics = {0};

	OK(tpd_capture_metrics(capture, &metrics, &err));
	return text_of(&metrics);
}

START_TEST(captures)
{
	static const char json[] = "{\"global_step\": 7, \"log_history\": [{\"eval_loss\": 0.5, \"step\": 7}]}";
	struct tpd_capture *capture = NULL;
	struct tpd_buf file = lightning_file(&honest);

	/* Deleted after it was opened: by path there is nothing. */
	ck_assert_int_eq(mkdir(scratch("epoch=1-loss=9"), 0755), 0);
	file_write(scratch("epoch=1-loss=9/trainer_state.json"), json, strlen(json));
	OK(tpd_capture_open(scratch("epoch=1-loss=9"), &capture, &err));
	ck_assert_int_eq(unlink(scratch("epoch=1-loss=9/trainer_state.json")), 0);
	ck_assert_int_eq(rmdir(scratch("epoch=1-loss=9")), 0);
	ck_assert_str_eq(of_capture(capture), "eval_loss=0.5");
	tpd_capture_set_metrics_of(capture, tpd_metrics_of_name);
	ck_assert_str_eq(of_capture(capture), "loss=9");
	tpd_capture_close(capture);

	/* The exact score in place of the rounded one; also in the directory of a distributed checkpoint. */
	file_write(scratch("epoch=1-val_loss=0.42.ckpt"), file.data, file.len);
	OK(tpd_capture_open(scratch("epoch=1-val_loss=0.42.ckpt"), &capture, &err));
	ck_assert_str_eq(of_capture(capture), "val_loss=0.421875");
	tpd_capture_close(capture);
	ck_assert_int_eq(mkdir(scratch("d"), 0755), 0);
	ck_assert_int_eq(mkdir(scratch("d/epoch=1-val_loss=0.42.ckpt"), 0755), 0);
	file_write(scratch("d/epoch=1-val_loss=0.42.ckpt/meta.pt"), file.data, file.len);
	OK(tpd_capture_open(scratch("d/epoch=1-val_loss=0.42.ckpt"), &capture, &err));
	ck_assert_str_eq(of_capture(capture), "val_loss=0.421875");
	tpd_capture_close(capture);

	/* Not what they are called; a link in place of the file is not followed. */
	file_write(scratch("epoch=2-acc=1.ckpt"), "PK\3\4", 4);
	OK(tpd_capture_open(scratch("epoch=2-acc=1.ckpt"), &capture, &err));
	ck_assert_str_eq(of_capture(capture), "acc=1");
	tpd_capture_close(capture);
	ck_assert_int_eq(mkdir(scratch("checkpoint-7"), 0755), 0);
	file_write(scratch("state.json"), json, strlen(json));
	ck_assert_int_eq(symlink("../state.json", scratch("checkpoint-7/trainer_state.json")), 0);
	OK(tpd_capture_open(scratch("checkpoint-7"), &capture, &err));
	ck_assert_str_eq(of_capture(capture), "");
	tpd_capture_close(capture);
	ck_assert_int_eq(unlink(scratch("checkpoint-7/trainer_state.json")), 0);
	file_write(scratch("checkpoint-7/trainer_state.json"), json, strlen(json));
	ck_assert_int_eq(truncate(scratch("checkpoint-7/trainer_state.json"), (off_t)TPD_TRAINER_STATE_MAX + 1), 0);
	OK(tpd_capture_open(scratch("checkpoint-7"), &capture, &err));
	ck_assert_str_eq(of_capture(capture), ""); /* too large */
	tpd_capture_close(capture);
	tpd_buf_release(&file);
}
END_TEST

static void set_up(void)
{
	scratch_make();
}

int main(void)
{
	Suite *suite = suite_create("metrics of");
	TCase *tests = tcase_create("metrics of");
	SRunner *runner = srunner_create(suite);
	int failed;

	suite_add_tcase(suite, tests);
	tcase_add_checked_fixture(tests, set_up, scratch_remove);
	tcase_set_timeout(tests, 120);
	tcase_add_test(tests, trainer_states);
	tcase_add_test(tests, deep_and_large_states);
	tcase_add_test(tests, names);
	tcase_add_test(tests, scores_of_lightning);
	tcase_add_test(tests, captures);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
