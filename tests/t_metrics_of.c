/*
 * t_metrics_of.c - what a checkpoint tells of how good it is: trainer_state.json, Lightning's files, names; honest ones,
 * and such as no trainer wrote.
 */
#include "base/tpd.h"

#include <math.h>

#include "archive/trainer_state.h"
#include "format/format.h"
#include "format_file.h"
#include "pickle_build.h"
#include "zip_build.h"
#include "archive_help.h" /* last: its err would be shadowed in the others */

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

/* --- stored ones, when the refs have lost what was told --- */

static void put_state(const char *directory, uint64_t step, size_t spaces)
{
	struct tpd_buf json = {0};

	tpd_buf_printf(&json, "{\"global_step\": %d, \"log_history\": [{\"eval_loss\": 0.%d,", (int)step, (int)step);
	while (json.len < spaces)
		tpd_buf_u8(&json, ' ');
	tpd_buf_printf(&json, "\"step\": %d}]}", (int)step);
	mkdir(directory, 0755);
	file_write(scratch("%s/trainer_state.json", strrchr(directory, '/') + 1), json.data, json.len);
	tpd_buf_release(&json);
}

static const char *of_run(const char *run)
{
	struct tpd_run_metrics metrics = {0};
	static char all[8192];

	all[0] = 0;
	OK(tpd_store_metrics(tpd_archive_store(archive), run, &metrics, &err));
	for (size_t i = 0; i < metrics.count; i++)
		snprintf(all + strlen(all), sizeof(all) - strlen(all), "%s;", text_of(&metrics.items[i].metrics));
	tpd_run_metrics_release(&metrics);
	return all;
}

static void lose_refs(void)
{
	static const char *const runs[] = {"file", "dir", "hf", "name"};

	archive_close();
	for (size_t i = 0; i < TPD_ARRAY_LEN(runs); i++)
		ck_assert_int_eq(unlink(scratch("store/refs/%s", runs[i])), 0);
	archive_open(16, 0, 1);
}

/* Each is replayed from the store, chunk by chunk, and read as when it came; what cannot be is told. */
START_TEST(stored_ones_tell_it_again)
{
	uint8_t storage[256] = {[3 * 4 + 2] = 0xd8, [3 * 4 + 3] = 0x3e}; /* large enough to be a segment of its own */
	const struct score view = {.path = honest.path, .type = "FloatStorage", .numel = 64, .offset = 3, .bytes = storage, .len = 256};
	struct tpd_archive_rebuilt built = {0};
	struct tpd_buf file = lightning_file(&view);
	struct tpd_manifest m = {0};
	struct tpd_archive_name name;

	archive_open(16, 0, 1);
	mkdir(scratch("epoch=1-val_loss=0.42.ckpt"), 0755);
	file_write(scratch("epoch=1-val_loss=0.42.ckpt/meta.pt"), file.data, file.len);
	OK(ingest(scratch("epoch=1-val_loss=0.42.ckpt"), "dir", 1, NULL));
	ck_assert_int_eq(rename(scratch("epoch=1-val_loss=0.42.ckpt"), scratch("gone")), 0);
	file_write(scratch("epoch=1-val_loss=0.42.ckpt"), file.data, file.len);
	OK(ingest(scratch("epoch=1-val_loss=0.42.ckpt"), "file", 1, NULL));
	put_state(scratch("checkpoint-5"), 5, 5u << 20); /* more than a chunk */
	OK(ingest(scratch("checkpoint-5"), "hf", 5, NULL));
	put_state(scratch("checkpoint-7"), 7, 5u << 20); /* a delta */
	OK(ingest(scratch("checkpoint-7"), "hf", 7, NULL));
	ck_assert_uint_eq(depth_of("hf@7"), 1);
	file_write(scratch("epoch=2-acc=0.5.bin"), file.data, file.len);
	OK(ingest(scratch("epoch=2-acc=0.5.bin"), "name", 2, NULL));
	name = resolve("file@1");
	OK(tpd_store_manifest(tpd_archive_store(archive), &name.id, &m, &err));
	ck_assert_uint_eq(m.entries[0].segment_count, 2);
	tpd_manifest_release(&m);
	tpd_buf_release(&file);

	lose_refs();
	OK(tpd_archive_rebuild(archive, NULL, &built, &err));
	ck_assert_uint_eq(built.recalled, 5);
	ck_assert_uint_eq(built.unrecalled, 0);
	ck_assert_str_eq(of_run("dir"), "val_loss=0.421875;");
	ck_assert_str_eq(of_run("file"), "val_loss=0.421875;");
	ck_assert_str_eq(of_run("name"), "acc=0.5;");
	ck_assert_uint_eq(resolve("hf@best:eval_loss").step, 5);
	ck_assert_uint_eq(resolve("hf@max:eval_loss").step, 7);
	OK(tpd_archive_rebuild(archive, NULL, &built, &err));
	ck_assert_uint_eq(built.recalled, 0);

	lose_refs();
	OK(tpd_archive_rebuild(archive, NULL, &built, &err)); /* for the names of the parts */
	file_flip(part_path("hf@7", 0, 0), 30);
	file_flip(part_path("file@1", 0, 0), 30);
	lose_refs();
	OK(tpd_archive_rebuild(archive, NULL, &built, &err));
	ck_assert_uint_eq(built.recalled, 3);
	ck_assert_uint_eq(built.unrecalled, 2);
	ck_assert_msg(strncmp(built.recall_fault.text, "file@1~1: ", 10) == 0, "%s", built.recall_fault.text);
	ck_assert_int_eq(built.recall_fault.status, TPD_CORRUPT);
	ck_assert_str_eq(of_run("file"), "");
	ck_assert_str_eq(of_run("hf"), "eval_loss=0.5;");
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {trainer_states, deep_and_large_states, names, scores_of_lightning, captures,
				      stored_ones_tell_it_again};

	return run_tests("metrics of", tests, TPD_ARRAY_LEN(tests));
}
