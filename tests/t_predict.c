/*
 * t_predict.c - weights that are predicted: a model that Adam trains is stored step by step, replayed, damaged and forged.
 */
#include "base/tpd.h"

#include "archive_help.h"

#include <math.h>

#include "store/manifest.h"

#define ROWS 240u
#define COLUMNS 640u
#define N (ROWS * COLUMNS) /* more than a chunk */
#define STEPS 6u

static float w[2][N], m[2][N], v[2][N], slope[2][N];
static uint64_t chance;

static void start(void)
{
	chance = 7;
	for (unsigned t = 0; t < 2; t++)
		for (unsigned i = 0; i < N; i++) {
			w[t][i] = (float)(0.02 * random_normal(&chance));
			slope[t][i] = (float)(0.001 * random_normal(&chance));
			m[t][i] = v[t][i] = 0;
		}
}

/* Ten updates. The rows' sizes differ, one never has a gradient, and here and there is a value that is none. */
static void train(void)
{
	for (unsigned t = 0; t < 2; t++)
		for (unsigned i = 0; i < N; i++)
			for (unsigned k = 0; k < 10; k++) {
				unsigned row = i / COLUMNS;
				float scale = row == 3 ? 0 : 1 + (float)(row % 7), g = scale * (slope[t][i] + (float)(0.002 * random_normal(&chance)));

				m[t][i] = 0.9f * m[t][i] + 0.1f * g;
				v[t][i] = 0.99f * v[t][i] + 0.01f * g * g;
				w[t][i] -= 1e-5f * (m[t][i] / (sqrtf(v[t][i]) + 1e-8f) + 0.1f * w[t][i]);
			}
	w[0][5] = NAN;
	v[1][700] = -1;
	m[1][701] = INFINITY;
}

/* with_state: the moments, too, in a file of their own. */
static void write_step(uint64_t step, bool with_state)
{
	static const char *const names[2] = {"a.weight", "b.weight"};

	ck_assert_int_eq(mkdir(scratch("checkpoint-%d", (int)step), 0755), 0);
	for (unsigned file = 0; file < (with_state ? 2 : 1); file++) {
		struct tpd_buf header = {0}, out = {0};
		size_t at = 0;

		tpd_buf_printf(&header, "{");
		for (unsigned t = 0; t < 2; t++)
			for (unsigned k = 0; k < (file ? 2 : 1); k++, at += 4 * N)
				tpd_buf_printf(&header, "%s\"%s%s%s\":{\"dtype\":\"F32\",\"shape\":[%u,%u],\"data_offsets\":[%zu,%zu]}", at ? "," : "",
					       file ? "optim." : "", names[t], file ? k ? ".exp_avg_sq" : ".exp_avg" : "", ROWS, COLUMNS, at,
					       at + 4 * (size_t)N);
		tpd_buf_printf(&header, "}");
		tpd_buf_u64(&out, header.len);
		tpd_buf_put(&out, header.data, header.len);
		for (unsigned t = 0; t < 2; t++) {
			tpd_buf_put(&out, file ? m[t] : w[t], sizeof(w[t]));
			if (file)
				tpd_buf_put(&out, v[t], sizeof(v[t]));
		}
		ck_assert_int_eq(tpd_buf_status(&out, NULL), TPD_OK);
		file_write(scratch("checkpoint-%d/%s.safetensors", (int)step, file ? "optim" : "model"), out.data, out.len);
		tpd_buf_release(&header);
		tpd_buf_release(&out);
	}
}

static void open_with(enum tpd_effort effort, enum tpd_depend depend, uint64_t part_size)
{
	char store[512];
	struct tpd_archive_options options = {
		.store = store, .mode = TPD_ARCHIVE_CREATE, .threads = 2, .max_depth = 16, .part_size = part_size, .effort = effort, .depend = depend};

	snprintf(store, sizeof(store), "%s", scratch("store"));
	OK(tpd_archive_open(&options, &archive, &err));
}

/* Away with the original, so that all is replayed. */
static void store_step(uint64_t step, bool with_state)
{
	train();
	write_step(step, with_state);
	OK(ingest(scratch("checkpoint-%d", (int)step), "run", step, NULL));
	rename(scratch("checkpoint-%d", (int)step), scratch("saved-%d", (int)step));
}

struct seen {
	unsigned scaled;           /* exp_avg of the optimizer */
	unsigned alone;            /* segments of the optimizer that are "scaled-alone" */
	uint64_t moments;          /* stored of it */
	unsigned predicted, terms; /* segments of the model, and the terms of all of them */
	uint64_t stored;           /* of the model's tensors */
};

static struct seen look(uint64_t step)
{
	struct seen seen = {0};
	struct tpd_manifest manifest;
	char name[32];
	struct tpd_archive_name which;

	snprintf(name, sizeof(name), "run@%d", (int)step);
	which = resolve(name);
	OK(tpd_store_manifest_keep(tpd_archive_store(archive), &which.id, TPD_MANIFEST_ALL, &manifest, &err));
	for (uint32_t f = 0; f < manifest.file_count; f++) {
		const struct tpd_entry *entry = &manifest.entries[manifest.files[f]];

		if (strcmp(entry->path, "model.safetensors") != 0) {
			/* Each exp_avg by its exp_avg_sq, a keyframe's by that alone, and nothing else. */
			for (uint32_t i = 0; i < entry->predictor_count; i++) {
				ck_assert_uint_eq(entry->predictors[i].terms,
						  manifest.has_ref ? TPD_TERM_SCALE | TPD_TERM_CAME_IN : TPD_TERM_SCALE);
				ck_assert_uint_eq(entry->predictors[i].v_segment, entry->predictors[i].segment + 1);
			}
			seen.scaled = entry->predictor_count;
			for (uint32_t s = 1; s < entry->segment_count; s++) {
				seen.alone += entry->about[s].planned == TPD_ENCODING_SCALED_ALONE;
				seen.moments += entry->about[s].stored;
			}
			continue;
		}
		seen.predicted = entry->predictor_count;
		for (uint32_t i = 0; i < entry->predictor_count; i++)
			seen.terms |= entry->predictors[i].terms;
		for (uint32_t s = 1; s < entry->segment_count; s++) {
			seen.stored += entry->about[s].stored;
			ck_assert_int_eq(entry->about[s].planned == TPD_ENCODING_PREDICTED, tpd_entry_predictor(entry, s) != NULL);
		}
	}
	tpd_manifest_release(&manifest);
	return seen;
}

static enum tpd_status verdict(uint64_t step)
{
	char name[32];
	struct tpd_archive_name which;

	snprintf(name, sizeof(name), "run@%d", (int)step);
	which = resolve(name);
	return tpd_archive_verify(archive, &which.id, NULL, &err);
}

static void check_step(uint64_t step, bool with_state)
{
	char name[32], to[512];

	snprintf(name, sizeof(name), "run@%d", (int)step);
	snprintf(to, sizeof(to), "%s", scratch("out-%d", (int)step));
	ck_assert_msg(restore(name, to) == TPD_OK, "%s: %s", name, err.text);
	ck_assert(file_equal(scratch("out-%d/model.safetensors", (int)step), scratch("saved-%d/model.safetensors", (int)step)));
	if (with_state)
		ck_assert(file_equal(scratch("out-%d/optim.safetensors", (int)step), scratch("saved-%d/optim.safetensors", (int)step)));
	ck_assert_msg(verdict(step) == TPD_OK, "%s: %s", name, err.text);
}

static void check_step_again(uint64_t step)
{
	OK(tpd_io_remove_tree(tpd_io_posix(), AT_FDCWD, scratch("out-%d", (int)step), &err));
	check_step(step, false);
}

/* What the model takes at the last of STEPS steps. */
static uint64_t model_bytes(enum tpd_effort effort, enum tpd_depend depend, bool with_state, struct seen *out_last)
{
	scratch_remove();
	scratch_make();
	start();
	open_with(effort, depend, 0);
	for (uint64_t step = 0; step < STEPS; step++)
		store_step(step, with_state);
	*out_last = look(STEPS - 1);
	for (uint64_t step = 0; step < STEPS; step++)
		check_step(step, with_state);
	archive_close();
	return out_last->stored;
}

START_TEST(what_is_predicted_from_what)
{
	struct seen seen;
	uint64_t plain = model_bytes(TPD_EFFORT_BALANCED, TPD_DEPEND_NONE, true, &seen), best, weights;

	ck_assert_uint_eq(seen.predicted, 0);
	ck_assert_uint_eq(model_bytes(TPD_EFFORT_FAST, TPD_DEPEND_OPTIMIZER, true, &seen), plain);
	best = model_bytes(TPD_EFFORT_BALANCED, TPD_DEPEND_OPTIMIZER, true, &seen); /* w0 would have to be replayed */
	ck_assert_uint_eq(seen.predicted, 2);
	ck_assert_uint_eq(seen.terms, TPD_TERM_DECAY | TPD_TERM_BEFORE | TPD_TERM_NOW);
	ck_assert_uint_ge(seen.scaled, 1);
	ck_assert_uint_lt(best * 100, plain * 90);
	ck_assert_uint_le(model_bytes(TPD_EFFORT_MAX, TPD_DEPEND_OPTIMIZER, true, &seen), best);
	ck_assert_uint_eq(seen.terms, TPD_TERM_DECAY | TPD_TERM_STEP | TPD_TERM_BEFORE | TPD_TERM_NOW);
	weights = model_bytes(TPD_EFFORT_BALANCED, TPD_DEPEND_WEIGHTS, true, &seen);
	ck_assert_uint_eq(seen.terms & ~(unsigned)TPD_TERM_DECAY, 0);
	ck_assert_uint_ge(seen.scaled, 1);
	ck_assert_uint_le(weights, plain);
	ck_assert_uint_gt(weights, best);
	ck_assert_uint_eq(model_bytes(TPD_EFFORT_BALANCED, TPD_DEPEND_OPTIMIZER, false, &seen), weights); /* nothing else is there */
	best = model_bytes(TPD_EFFORT_MAX, TPD_DEPEND_WEIGHTS, true, &seen);
	ck_assert_uint_eq(seen.predicted, 2);
	ck_assert_uint_eq(seen.terms, TPD_TERM_DECAY | TPD_TERM_STEP);
	ck_assert_uint_lt(best * 100, weights * 98);
	open_with(TPD_EFFORT_BALANCED, TPD_DEPEND_OPTIMIZER, 0);
}
END_TEST

/* What there is nothing before for. */
static void ask_for_the_past(const char *name)
{
	const struct tpd_archive_name which = resolve(name);
	struct tpd_manifest manifest;
	struct tpd_buf again = {0};

	OK(tpd_store_manifest_keep(tpd_archive_store(archive), &which.id, TPD_MANIFEST_ALL, &manifest, &err));
	for (uint32_t f = 0; f < manifest.file_count; f++) {
		struct tpd_entry *entry = &manifest.entries[manifest.files[f]];

		if (entry->predictor_count == 0)
			continue;
		OK(tpd_manifest_write(&manifest, &again, &err));
		tpd_buf_release(&again);
		entry->predictors[0].terms |= TPD_TERM_CAME_IN;
		ck_assert_int_eq(tpd_manifest_write(&manifest, &again, &err), TPD_USAGE);
		tpd_buf_release(&again);
		entry->predictors[0].terms = TPD_TERM_SCALE;
	}
	tpd_manifest_release(&manifest);
}

/* The first step's moments have sizes, though no past: those of exp_avg are told by exp_avg_sq where that is allowed. */
START_TEST(keyframes)
{
	static const enum tpd_depend depends[] = {TPD_DEPEND_NONE, TPD_DEPEND_WEIGHTS, TPD_DEPEND_OPTIMIZER};
	struct seen seen[TPD_ARRAY_LEN(depends)], fast;

	for (unsigned d = 0; d < TPD_ARRAY_LEN(depends); d++) {
		scratch_remove();
		scratch_make();
		start();
		open_with(TPD_EFFORT_BALANCED, depends[d], 0);
		store_step(0, true);
		check_step(0, true);
		seen[d] = look(0);
		ck_assert_uint_eq(seen[d].alone, depends[d] == TPD_DEPEND_NONE ? 2 : 4); /* rows that differ do for exp_avg_sq */
		ck_assert_uint_eq(seen[d].scaled, depends[d] == TPD_DEPEND_NONE ? 0 : 2);
		ask_for_the_past("run@0");
		archive_close();
	}
	ck_assert_uint_lt(seen[1].moments * 100, seen[0].moments * 99);
	ck_assert_uint_eq(seen[2].moments, seen[1].moments);
	scratch_remove();
	scratch_make();
	start();
	open_with(TPD_EFFORT_FAST, TPD_DEPEND_OPTIMIZER, 0);
	store_step(0, true);
	fast = look(0);
	ck_assert_uint_eq(fast.alone + fast.scaled, 0);
	ck_assert_uint_lt(seen[0].moments * 100, fast.moments * 99);
}
END_TEST

/* Where what w0 is read from lies there as it is, w0 is taken by default. */
START_TEST(earlier_weights)
{
	struct seen seen = {0};

	start();
	open_with(TPD_EFFORT_BALANCED, TPD_DEPEND_WEIGHTS, 0);
	for (uint64_t step = 0; step < STEPS; step++) {
		train();
		write_step(step, true);
		OK(ingest(scratch("checkpoint-%d", (int)step), "run", step, NULL));
		seen = look(step);
		ck_assert_int_eq((seen.terms & TPD_TERM_STEP) != 0, step > 1); /* the one before the first two there is not */
	}
	for (uint64_t step = 0; step < STEPS; step++)
		rename(scratch("checkpoint-%d", (int)step), scratch("saved-%d", (int)step));
	for (uint64_t step = 0; step < STEPS; step++)
		check_step(step, true);
}
END_TEST

/* Of the model's payload. */
static void damage(uint64_t step)
{
	char name[32];

	snprintf(name, sizeof(name), "run@%d", (int)step);
	ck_assert_int_eq(chmod(part_path(name, 0, 0), 0644), 0);
	file_flip(part_path(name, 0, 0), 100000);
}

static void store_again(uint64_t step, bool expect_existed)
{
	struct tpd_ingest_result result;

	OK(ingest(scratch("saved-%d", (int)step), "run", step, &result));
	ck_assert_int_eq(result.existed, expect_existed);
	ck_assert_uint_eq(result.version, 1);
}

/* What w0 is read from is named by its id: it is found whatever the one between refers to by now. */
START_TEST(earlier_weights_outlive_damage)
{
	start();
	open_with(TPD_EFFORT_MAX, TPD_DEPEND_WEIGHTS, 0);
	for (uint64_t step = 0; step < 5; step++)
		store_step(step, false);
	for (uint64_t step = 2; step < 5; step++)
		ck_assert_uint_ne(look(step).terms & TPD_TERM_STEP, 0);
	damage(2);
	for (uint64_t step = 2; step < 5; step++)
		ck_assert_int_eq(verdict(step), TPD_CORRUPT);
	store_again(2, false);
	for (uint64_t step = 0; step < 5; step++)
		check_step_again(step);
	store_again(2, true);
	store_again(4, true);
	/* 3 refers to 2, which is whole, and is predicted with 1, which is not. */
	damage(1);
	OK(verdict(2));
	ck_assert_int_eq(verdict(3), TPD_CORRUPT);
	store_again(3, false);
	OK(verdict(3));
	OK(verdict(4));
	ck_assert_int_eq(verdict(1), TPD_CORRUPT);
	store_again(1, false);
	for (uint64_t step = 0; step < 5; step++)
		check_step_again(step);
	for (uint64_t step = 0; step < 5; step++)
		store_again(step, true);
	/* And on it goes. */
	store_step(5, false);
	ck_assert_uint_ne(look(5).terms & TPD_TERM_STEP, 0);
	check_step_again(5);
}
END_TEST

/* Bytes that the tensors of a file of the last step take; *out_predicted: how many of them are. */
static uint64_t file_bytes(const char *path, unsigned *out_predicted)
{
	struct tpd_manifest manifest;
	struct tpd_archive_name which = resolve("run@5");
	uint64_t stored = UINT64_MAX;

	OK(tpd_store_manifest_keep(tpd_archive_store(archive), &which.id, TPD_MANIFEST_ALL, &manifest, &err));
	for (uint32_t f = 0; f < manifest.file_count; f++) {
		const struct tpd_entry *entry = &manifest.entries[manifest.files[f]];

		if (strcmp(entry->path, path) != 0)
			continue;
		*out_predicted = entry->predictor_count;
		stored = 0;
		for (uint32_t s = 1; s < entry->segment_count; s++)
			stored += entry->about[s].stored;
	}
	tpd_manifest_release(&manifest);
	ck_assert_uint_ne(stored, UINT64_MAX);
	return stored;
}

/* Weights and moments once more, in a file that comes first and whose names say nothing. */
static void write_copies(uint64_t step)
{
	const float *all[] = {w[0], w[1], m[0], m[1], v[0], v[1]};
	struct tpd_buf header = {0}, out = {0};

	tpd_buf_printf(&header, "{");
	for (size_t i = 0; i < TPD_ARRAY_LEN(all); i++)
		tpd_buf_printf(&header, "%s\"x.%zu\":{\"dtype\":\"F32\",\"shape\":[%u],\"data_offsets\":[%zu,%zu]}", i ? "," : "", i, N,
			       i * 4 * N, (i + 1) * 4 * N);
	tpd_buf_printf(&header, "}");
	tpd_buf_u64(&out, header.len);
	tpd_buf_put(&out, header.data, header.len);
	for (size_t i = 0; i < TPD_ARRAY_LEN(all); i++)
		tpd_buf_put(&out, all[i], sizeof(w[0]));
	ck_assert_int_eq(tpd_buf_status(&out, NULL), TPD_OK);
	file_write(scratch("checkpoint-%d/0.safetensors", (int)step), out.data, out.len);
	tpd_buf_release(&header);
	tpd_buf_release(&out);
}

/* What is predicted, and what it is predicted from, stays as it is; copies of both take nothing. */
START_TEST(copies_beside)
{
	uint64_t plain[2];
	unsigned predicted;
	struct seen seen;

	start();
	open_with(TPD_EFFORT_BALANCED, TPD_DEPEND_OPTIMIZER, 0);
	for (uint64_t step = 0; step < STEPS; step++)
		store_step(step, true);
	plain[0] = file_bytes("model.safetensors", &predicted);
	ck_assert_uint_eq(predicted, 2);
	plain[1] = file_bytes("optim.safetensors", &predicted);
	archive_close();
	scratch_remove();
	scratch_make();
	start();
	open_with(TPD_EFFORT_BALANCED, TPD_DEPEND_OPTIMIZER, 0);
	for (uint64_t step = 0; step < STEPS; step++) {
		train();
		write_step(step, true);
		write_copies(step);
		OK(ingest(scratch("checkpoint-%d", (int)step), "run", step, NULL));
		rename(scratch("checkpoint-%d", (int)step), scratch("saved-%d", (int)step));
	}
	ck_assert_uint_eq(file_bytes("model.safetensors", &predicted), plain[0]);
	ck_assert_uint_eq(predicted, 2);
	ck_assert_uint_eq(file_bytes("optim.safetensors", &predicted), plain[1]);
	ck_assert_uint_eq(file_bytes("0.safetensors", &predicted), 0);
	for (uint64_t step = 0; step < STEPS; step++)
		check_step(step, true);
	ck_assert(file_equal(scratch("out-5/0.safetensors"), scratch("saved-5/0.safetensors")));
	seen = look(0);
	ck_assert_uint_eq(seen.predicted, 0);
}
END_TEST

/* Two weights that are not the same, and move alike: each is predicted from moments of its own, so neither pair may be derived. */
START_TEST(moments_that_are_the_same)
{
	static float apart[N];
	unsigned predicted;

	start();
	for (unsigned i = 0; i < N; i++)
		apart[i] = w[1][i] - w[0][i];
	open_with(TPD_EFFORT_BALANCED, TPD_DEPEND_OPTIMIZER, 0);
	for (uint64_t step = 0; step < STEPS; step++) {
		train();
		for (unsigned i = 0; i < N; i++)
			w[1][i] = w[0][i] + apart[i];
		memcpy(m[1], m[0], sizeof(m[0]));
		memcpy(v[1], v[0], sizeof(v[0]));
		write_step(step, true);
		OK(ingest(scratch("checkpoint-%d", (int)step), "run", step, NULL));
		rename(scratch("checkpoint-%d", (int)step), scratch("saved-%d", (int)step));
	}
	file_bytes("model.safetensors", &predicted);
	ck_assert_uint_eq(predicted, 2);
	for (uint64_t step = 0; step < STEPS; step++)
		check_step(step, true);
}
END_TEST

/* Each time it gets further, and what comes out is what would have come at once. */
START_TEST(interrupted)
{
	struct tpd_ingest_result result;
	struct tpd_capture *capture = NULL;
	uint64_t reused = 0;
	int tries = 0;

	start();
	open_with(TPD_EFFORT_BALANCED, TPD_DEPEND_OPTIMIZER, 1u << 20);
	store_step(0, true);
	store_step(1, true);
	train();
	write_step(2, true);
	OK(tpd_capture_open(scratch("checkpoint-2"), &capture, &err));
	for (int after = 6;; after += 2, tries++) {
		struct stopper stopper = {.after = after};
		struct tpd_progress progress = {.fn = stop_after, .arg = &stopper, .cancel = &stopper.cancel};
		enum tpd_status status = tpd_archive_ingest(archive, "run", 2, capture, &progress, &result, NULL, &err);

		if (status == TPD_OK)
			break;
		ck_assert_int_eq(status, TPD_CANCELLED);
	}
	tpd_capture_close(capture);
	reused = result.parts_reused;
	ck_assert_int_gt(tries, 1);
	ck_assert_uint_gt(reused, 0);
	rename(scratch("checkpoint-2"), scratch("saved-2"));
	ck_assert_uint_eq(look(2).predicted, 2);
	check_step(2, true);
}
END_TEST

/* The manifest of a step, changed by somebody who can make its checksums right. */
static void forge(uint64_t step, void (*change)(struct tpd_manifest *m, struct tpd_entry *model))
{
	struct tpd_manifest manifest;
	struct tpd_archive_name which;
	char name[32];

	snprintf(name, sizeof(name), "run@%d", (int)step);
	which = resolve(name);
	OK(tpd_store_manifest_keep(tpd_archive_store(archive), &which.id, TPD_MANIFEST_ALL, &manifest, &err));
	for (uint32_t f = 0; f < manifest.file_count; f++)
		if (strcmp(manifest.entries[manifest.files[f]].path, "model.safetensors") == 0)
			change(&manifest, &manifest.entries[manifest.files[f]]);
	forge_manifest(&manifest, TPD_OK);
	tpd_manifest_release(&manifest);
}

static void without(struct tpd_manifest *manifest TPD_UNUSED, struct tpd_entry *model)
{
	model->predictor_count = 0;
}

static void from_others(struct tpd_manifest *manifest TPD_UNUSED, struct tpd_entry *model)
{
	model->predictors[0].m_segment = 3;
}

static void from_less(struct tpd_manifest *manifest TPD_UNUSED, struct tpd_entry *model)
{
	model->predictors[0].terms = TPD_TERM_DECAY;
}

static void in_slabs(struct tpd_manifest *manifest, struct tpd_entry *model)
{
	const struct tpd_slab slab = {.segment = 1, .block = N, .count = 1};

	without(manifest, model);
	OK(tpd_entry_refer(model, 1, &slab, 1, false, &err));
}

START_TEST(forged)
{
	static void (*const changes[])(struct tpd_manifest *, struct tpd_entry *) = {without, from_others, from_less, in_slabs};

	for (size_t i = 0; i < TPD_ARRAY_LEN(changes); i++) {
		scratch_remove();
		scratch_make();
		start();
		open_with(TPD_EFFORT_BALANCED, TPD_DEPEND_OPTIMIZER, 0);
		store_step(0, true);
		store_step(1, true);
		ck_assert_uint_eq(look(1).predicted, 2);
		OK(verdict(1));
		forge(1, changes[i]);
		ck_assert_msg(verdict(1) == TPD_CORRUPT, "change %zu: %s", i, err.text);
		archive_close();
	}
	open_with(TPD_EFFORT_BALANCED, TPD_DEPEND_OPTIMIZER, 0);
}
END_TEST

static void of_no_segment(struct tpd_manifest *manifest TPD_UNUSED, struct tpd_entry *model)
{
	model->predictors[0].w0_segment = 3;
}

static void of_no_file(struct tpd_manifest *manifest TPD_UNUSED, struct tpd_entry *model)
{
	model->predictors[0].w0_file = 1;
}

static void of_glue(struct tpd_manifest *manifest TPD_UNUSED, struct tpd_entry *model)
{
	model->predictors[0].w0_segment = 0; /* of another size */
}

static void of_another(struct tpd_manifest *manifest TPD_UNUSED, struct tpd_entry *model)
{
	model->predictors[0].w0_segment = 2;
}

static void of_itself(struct tpd_manifest *manifest, struct tpd_entry *model TPD_UNUSED)
{
	manifest->earlier = manifest->id;
}

static void of_one_above(struct tpd_manifest *manifest, struct tpd_entry *model TPD_UNUSED)
{
	manifest->earlier = resolve("run@3").id;
}

static void of_one_that_is_gone(struct tpd_manifest *manifest, struct tpd_entry *model TPD_UNUSED)
{
	manifest->earlier.bytes[7] ^= 1;
}

START_TEST(forged_earlier)
{
	static const struct {
		void (*change)(struct tpd_manifest *, struct tpd_entry *);
		enum tpd_status expect;
		const char *why;
	} changes[] = {
		{of_no_segment, TPD_CORRUPT, "does not have"},     {of_no_file, TPD_CORRUPT, "does not have"},
		{of_glue, TPD_CORRUPT, "another type or size"},    {of_another, TPD_CORRUPT, ", chunk "},
		{of_itself, TPD_CORRUPT, "cycle"},                 {of_one_above, TPD_CORRUPT, "cycle"},
		{of_one_that_is_gone, TPD_MISSING_BASE, "needs step 0 ("},
	};

	for (size_t i = 0; i < TPD_ARRAY_LEN(changes); i++) {
		struct tpd_archive_name which;

		scratch_remove();
		scratch_make();
		start();
		open_with(TPD_EFFORT_BALANCED, TPD_DEPEND_WEIGHTS, 0);
		for (uint64_t step = 0; step < 4; step++) {
			train();
			write_step(step, false);
			OK(ingest(scratch("checkpoint-%d", (int)step), "run", step, NULL));
		}
		for (uint64_t step = 0; step < 4; step++)
			rename(scratch("checkpoint-%d", (int)step), scratch("saved-%d", (int)step));
		forge(2, changes[i].change);
		for (uint64_t step = 2; step < 4; step++) {
			ck_assert_msg(verdict(step) == changes[i].expect && strstr(err.text, changes[i].why), "change %zu: %s", i, err.text);
		}
		which = resolve("run@3");
		ck_assert(!tpd_store_sound(tpd_archive_store(archive), &which.id) || changes[i].change == of_another);
		archive_close();
	}
	open_with(TPD_EFFORT_BALANCED, TPD_DEPEND_OPTIMIZER, 0);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		what_is_predicted_from_what,
		keyframes,
		earlier_weights,
		earlier_weights_outlive_damage,
		copies_beside,
		moments_that_are_the_same,
		interrupted,
		forged,
		forged_earlier,
	};

	return run_tests("predict", tests, TPD_ARRAY_LEN(tests));
}
