/*
 * t_predict_types.c - predictions where weights, exp_avg and exp_avg_sq are of different types, and the optimizer's state is cut
 * anew from step to step: each input is as many elements as what is predicted, not as many bytes. And weights that are `context`, of
 * which few change, with all that they may be made from.
 */
#include "base/tpd.h"

#include "reshard_help.h"

#include <fcntl.h>
#include <math.h>

#include "codec/rounding.h"
#include "store/part.h"

#define ROWS 240u
#define COLUMNS 640u
#define N (ROWS * COLUMNS) /* more than a chunk, and the last chunk is short */
#define STEPS 5u

static float w[N], m[N], v[N], slope[N];

struct types {
	const char *w, *m, *v;
	enum tpd_depend depend;
};

static void start(uint64_t *chance)
{
	for (unsigned i = 0; i < N; i++) {
		w[i] = (float)(0.02 * random_normal(chance));
		slope[i] = (float)(0.001 * random_normal(chance));
		m[i] = v[i] = 0;
	}
}

/* So many updates, of rows that differ in size; is_rounded: the weights have no more bits than BF16. */
static void train_with(float rate, unsigned updates, bool is_rounded, uint64_t *chance)
{
	for (unsigned i = 0; i < N; i++)
		for (unsigned k = 0; k < updates; k++) {
			float g = (float)(1 + i / COLUMNS % 7) * (slope[i] + (float)(0.002 * random_normal(chance)));
			uint32_t bits;

			m[i] = 0.9f * m[i] + 0.1f * g;
			v[i] = 0.99f * v[i] + 0.01f * g * g;
			w[i] -= rate * m[i] / (sqrtf(v[i]) + 1e-8f);
			if (!is_rounded)
				continue;
			memcpy(&bits, &w[i], sizeof(bits));
			bits = (uint32_t)tpd_round_bf16(bits) << 16;
			memcpy(&w[i], &bits, sizeof(bits));
		}
}

static void train(uint64_t *chance)
{
	train_with(1e-5f, 10, false, chance);
}

static struct piece rows_of(const char *name, const char *dtype, const float *values, unsigned rank, unsigned ranks)
{
	return (struct piece){.name = name, .dtype = dtype, .ndim = 2, .is_part = ranks > 1, .at = {ROWS / ranks * rank, 0},
			      .size = {ROWS / ranks, COLUMNS}, .whole = {ROWS, COLUMNS}, .values = values};
}

/* The state in a file for each rank, the weights likewise or whole. */
static void save(uint64_t step, const struct types *types, unsigned ranks, bool cut_weights)
{
	ck_assert_int_eq(mkdir(scratch("checkpoint-%d", (int)step), 0755), 0);
	for (unsigned r = 0; r < ranks; r++) {
		const struct piece model = rows_of("a.weight", types->w, w, r, cut_weights ? ranks : 1);
		const struct piece state[2] = {rows_of("optim.a.weight.exp_avg", types->m, m, r, ranks),
					       rows_of("optim.a.weight.exp_avg_sq", types->v, v, r, ranks)};

		write_pieces(scratch("checkpoint-%d/optim_%u.safetensors", (int)step, r), step, state, 2);
		if (cut_weights || r == 0)
			write_pieces(scratch("checkpoint-%d/model_%u.safetensors", (int)step, r), step, &model, 1);
	}
	OK(ingest(scratch("checkpoint-%d", (int)step), "run", step, NULL));
	rename(scratch("checkpoint-%d", (int)step), scratch("saved-%d", (int)step));
}

/* What of that file is predicted from moments that came before. */
static unsigned predicted(uint64_t step, const char *file)
{
	char name[32];
	struct tpd_archive_name which;
	struct tpd_manifest manifest;
	unsigned count = 0;

	snprintf(name, sizeof(name), "run@%d", (int)step);
	which = resolve(name);
	OK(tpd_store_manifest_keep(tpd_archive_store(archive), &which.id, TPD_MANIFEST_ALL, &manifest, &err));
	for (uint32_t f = 0; f < manifest.file_count; f++) {
		const struct tpd_entry *entry = &manifest.entries[manifest.files[f]];

		for (uint32_t i = 0; strcmp(entry->path, file) == 0 && i < entry->predictor_count; i++)
			count += (entry->predictors[i].terms & (TPD_TERM_BEFORE | TPD_TERM_CAME_IN)) != 0;
	}
	tpd_manifest_release(&manifest);
	return count;
}

static void check_restored(uint64_t step, const char *format, unsigned files)
{
	for (unsigned i = 0; i < files; i++) {
		char file[32];

		snprintf(file, sizeof(file), format, i);
		check_file(step, file);
	}
}

static void check_types(const struct types *types, bool cut_weights)
{
	static const unsigned ranks[STEPS] = {2, 2, 1, 1, 2};
	char store[512];
	struct tpd_archive_options options = {.store = store, .mode = TPD_ARCHIVE_CREATE, .threads = 2, .max_depth = 16, .depend = types->depend};
	uint64_t chance = 11;

	scratch_remove();
	scratch_make();
	snprintf(store, sizeof(store), "%s", scratch("store"));
	OK(tpd_archive_open(&options, &archive, &err));
	start(&chance);
	for (uint64_t step = 0; step < STEPS; step++) {
		const bool tied = ranks[step] == 1 || cut_weights; /* pieces of a state belong to pieces of weights */

		train(&chance);
		save(step, types, ranks[step], cut_weights);
		if (step < 2)
			continue;
		ck_assert_uint_eq(predicted(step, "model_0.safetensors"), tied && types->depend == TPD_DEPEND_OPTIMIZER);
		ck_assert_msg(predicted(step, "optim_0.safetensors") == tied, "%s %s %s %d at %d", types->w, types->m, types->v, cut_weights, (int)step);
		ck_assert_uint_eq(look(step).in_slabs > 0, ranks[step] != ranks[step - 1]);
	}
	for (uint64_t step = 0; step < STEPS; step++) {
		ck_assert_msg(verdict(step) == TPD_OK, "%s %s %s: %s", types->w, types->m, types->v, err.text);
		check_restored(step, "model_%u.safetensors", cut_weights ? ranks[step] : 1);
		check_restored(step, "optim_%u.safetensors", ranks[step]);
	}
	archive_close();
}

/* The default depends on moments for moments only; weights by moments have to be asked for. */
START_TEST(types_that_differ)
{
	static const struct types all[] = {
		{"F32", "F32", "F32", TPD_DEPEND_OPTIMIZER},
		{"BF16", "F32", "F32", TPD_DEPEND_OPTIMIZER},
		{"F32", "BF16", "BF16", TPD_DEPEND_OPTIMIZER},
		{"F32", "BF16", "F32", TPD_DEPEND_OPTIMIZER},
		{"BF16", "BF16", "F32", TPD_DEPEND_OPTIMIZER},
		{"BF16", "BF16", "F32", TPD_DEPEND_WEIGHTS},
	};

	for (size_t i = 0; i < TPD_ARRAY_LEN(all); i++)
		for (unsigned cut = 0; cut < 2; cut++)
			check_types(&all[i], cut);
	archive_open(16, 0, 2);
}
END_TEST

/* --- `context` --- */

#define RATE 6e-6f
#define UPDATES 20

static void open_with(enum tpd_effort effort, uint64_t part_size)
{
	char store[512];
	struct tpd_archive_options options = {.store = store, .mode = TPD_ARCHIVE_CREATE, .threads = 2, .max_depth = 16, .effort = effort,
					      .depend = TPD_DEPEND_OPTIMIZER, .part_size = part_size};

	snprintf(store, sizeof(store), "%s", scratch("store"));
	OK(tpd_archive_open(&options, &archive, &err));
}

/* Updates that are small beside an ulp, so that few weights change: steps 0 .. STEPS - 1. */
static void save_steps_of(float rate, enum tpd_effort effort)
{
	const struct types types = {"BF16", "F32", "F32", TPD_DEPEND_OPTIMIZER};
	uint64_t chance = 11;

	scratch_remove();
	scratch_make();
	open_with(effort, 0);
	start(&chance);
	for (uint64_t step = 0; step < STEPS; step++) {
		train_with(rate, UPDATES, true, &chance);
		save(step, &types, 1, false);
	}
}

static void save_small_steps(enum tpd_effort effort)
{
	save_steps_of(RATE, effort);
}

/* The terms of the weights' prediction, if they are coded as `context`, else -1. */
static int context_terms(uint64_t step)
{
	char name[32];
	struct tpd_archive_name which;
	struct tpd_manifest manifest;
	int terms = -1;

	snprintf(name, sizeof(name), "run@%d", (int)step);
	which = resolve(name);
	OK(tpd_store_manifest_keep(tpd_archive_store(archive), &which.id, TPD_MANIFEST_ALL, &manifest, &err));
	for (uint32_t f = 0; f < manifest.file_count; f++) {
		const struct tpd_entry *entry = &manifest.entries[manifest.files[f]];

		if (strcmp(entry->path, "model_0.safetensors") != 0)
			continue;
		ck_assert_uint_eq(entry->segment_count, 2);
		if (entry->about[1].planned == TPD_ENCODING_CONTEXT)
			terms = tpd_entry_predictor(entry, 1) ? tpd_entry_predictor(entry, 1)->terms : 0;
	}
	tpd_manifest_release(&manifest);
	return terms;
}

/* balanced replays no chain for the weights of the checkpoint before the last. */
static void check_weights_by_context(enum tpd_effort effort)
{
	const int terms = TPD_TERM_BEFORE | TPD_TERM_NOW;

	save_small_steps(effort);
	ck_assert_int_eq(context_terms(0), -1);
	ck_assert_int_eq(context_terms(1), terms);
	for (uint64_t step = 2; step < STEPS; step++)
		ck_assert_int_eq(context_terms(step), effort == TPD_EFFORT_MAX ? terms | TPD_TERM_STEP : terms);
	archive_close();
	open_with(effort, 0); /* nothing is known but what lies in the store */
	for (uint64_t step = STEPS; step-- > 0;) {
		ck_assert_msg(verdict(step) == TPD_OK, "%d: %s", (int)step, err.text);
		check_restored(step, "model_%u.safetensors", 1);
		check_restored(step, "optim_%u.safetensors", 1);
	}
}

START_TEST(weights_by_context)
{
	check_weights_by_context(TPD_EFFORT_BALANCED);
}
END_TEST

START_TEST(weights_by_context_at_most)
{
	check_weights_by_context(TPD_EFFORT_MAX);
}
END_TEST

/* So few change that `stepped` gains nothing by the moments, or is best without them: `context` takes them all the same. */
START_TEST(terms_are_of_context)
{
	const int terms = TPD_TERM_BEFORE | TPD_TERM_NOW;

	for (unsigned i = 0; i < 2; i++) {
		unsigned without = 0;

		save_steps_of(RATE / 20, i ? TPD_EFFORT_MAX : TPD_EFFORT_BALANCED);
		ck_assert_int_eq(context_terms(1), terms);
		for (uint64_t step = 2; step < STEPS; step++) {
			ck_assert_int_eq(context_terms(step) & ~(i ? TPD_TERM_STEP : 0), terms);
			without += context_terms(step) == terms;
		}
		ck_assert_uint_gt(without, 0); /* with max, too: where w0 costs more than it tells */
		archive_close();
		open_with(TPD_EFFORT_BALANCED, 0);
		for (uint64_t step = STEPS; step-- > 0;)
			check_restored(step, "model_%u.safetensors", 1);
		if (i == 0)
			archive_close();
	}
}
END_TEST

START_TEST(not_by_context)
{
	save_small_steps(TPD_EFFORT_FAST);
	for (uint64_t step = 0; step < STEPS; step++)
		ck_assert_int_eq(context_terms(step), -1);
}
END_TEST

/* Moments of the step itself, those of the one before, and the weights of the one before that: without them there are no weights. */
START_TEST(inputs_that_are_gone)
{
	static const struct {
		uint64_t step;
		unsigned file;
	} inputs[] = {{3, 1}, {2, 1}, {1, 0}};

	save_small_steps(TPD_EFFORT_MAX);
	ck_assert_int_eq(context_terms(3), TPD_TERM_STEP | TPD_TERM_BEFORE | TPD_TERM_NOW);
	for (size_t i = 0; i < TPD_ARRAY_LEN(inputs); i++) {
		char name[32], part[512], away[600], to[512];

		snprintf(name, sizeof(name), "run@%d", (int)inputs[i].step);
		snprintf(part, sizeof(part), "%s", part_path(name, inputs[i].file, 0));
		snprintf(away, sizeof(away), "%s.away", part);
		snprintf(to, sizeof(to), "%s", scratch("out"));
		ck_assert_int_eq(chmod(part, 0644), 0);
		for (unsigned gone = 0; gone < 2; gone++) {
			archive_close();
			if (gone)
				ck_assert_int_eq(rename(part, away), 0);
			else
				file_flip(part, 1000);
			open_with(TPD_EFFORT_MAX, 0);
			ck_assert_msg(verdict(3) == TPD_CORRUPT, "%zu %u: %s", i, gone, err.text);
			ck_assert_msg(restore("run@3", to) == TPD_CORRUPT, "%zu %u: %s", i, gone, err.text);
			ck_assert_int_ne(access(to, F_OK), 0);
			ck_assert_msg(verdict(inputs[i].step - 1) == TPD_OK, "%s", err.text);
			archive_close();
			if (gone)
				ck_assert_int_eq(rename(away, part), 0);
			else
				file_flip(part, 1000);
			open_with(TPD_EFFORT_MAX, 0);
			ck_assert_msg(verdict(3) == TPD_OK, "%s", err.text);
		}
	}
}
END_TEST

/* As training goes, but for the rows of the last chunk: they stay, and most elements of some of them are moved at random. */
static void train_apart(uint64_t step, uint64_t *chance)
{
	static float before[N];

	memcpy(before, w, sizeof(w));
	train_with(RATE, UPDATES, true, chance);
	for (unsigned i = TPD_CHUNK_ELEMENTS / COLUMNS * COLUMNS; i < N; i++) {
		uint32_t bits;

		w[i] = before[i];
		if (i / COLUMNS % 4 != step % 4 || random_next(chance) % 100 >= 60)
			continue;
		memcpy(&bits, &w[i], sizeof(bits));
		bits += random_next(chance) & 1 ? UINT32_C(0x10000) : UINT32_C(0xffff0000);
		memcpy(&w[i], &bits, sizeof(bits));
	}
}

/* How many chunks of the first file of so many parts are coded so. */
static unsigned count_chunks(const char *name, uint32_t parts, enum tpd_encoding encoding)
{
	const struct tpd_io *io = tpd_store_io(tpd_archive_store(archive));
	char path[512];
	unsigned count = 0;
	int dir;

	snprintf(path, sizeof(path), "%s", part_path(name, 0, 0));
	*strrchr(path, '/') = 0;
	dir = io->opendir(io, AT_FDCWD, path);
	ck_assert_int_ge(dir, 0);
	for (uint32_t i = 0; i < parts; i++) {
		struct tpd_part *part = NULL;

		OK(tpd_part_open(io, dir, 0, i, &part, &err));
		for (uint64_t c = 0; c < tpd_part_chunks(part); c++) {
			struct tpd_part_entry at;

			OK(tpd_part_entry_read(part, tpd_part_first_chunk(part) + c, &at, &err));
			count += at.encoding == encoding;
		}
		tpd_part_close(part);
	}
	io->close(io, dir);
	return count;
}

/* A chunk of a tensor that is `context` may have become `stepped`: its part, once finished, is taken over like any other. */
START_TEST(interrupted)
{
	const struct types types = {"BF16", "F32", "F32", TPD_DEPEND_OPTIMIZER};
	const struct piece model = rows_of("a.weight", types.w, w, 0, 1);
	const struct piece state[2] = {rows_of("optim.a.weight.exp_avg", types.m, m, 0, 1), rows_of("optim.a.weight.exp_avg_sq", types.v, v, 0, 1)};
	struct tpd_ingest_result result = {0};
	struct tpd_capture *capture = NULL;
	struct tpd_archive_name which;
	struct tpd_manifest manifest;
	enum tpd_status status;
	uint64_t chance = 11, parts = 0;
	int after = 0;

	scratch_remove();
	scratch_make();
	open_with(TPD_EFFORT_MAX, 1 << 17);
	start(&chance);
	for (uint64_t step = 0; step < 3; step++) {
		train_apart(step, &chance);
		save(step, &types, 1, false);
	}
	train_apart(3, &chance);
	ck_assert_int_eq(mkdir(scratch("checkpoint-3"), 0755), 0);
	write_pieces(scratch("checkpoint-3/model_0.safetensors"), 3, &model, 1);
	write_pieces(scratch("checkpoint-3/optim_0.safetensors"), 3, state, 2);
	OK(tpd_capture_open(scratch("checkpoint-3"), &capture, &err));
	do {
		struct stopper stopper = {.after = ++after};
		struct tpd_progress progress = {.fn = stop_after, .arg = &stopper, .cancel = &stopper.cancel};

		status = tpd_archive_ingest(archive, "run", 3, capture, &progress, &result, NULL, &err);
		ck_assert(status == TPD_OK || status == TPD_CANCELLED);
	} while (status != TPD_OK);
	tpd_capture_close(capture);
	which = resolve("run@3");
	OK(tpd_store_manifest_keep(tpd_archive_store(archive), &which.id, TPD_MANIFEST_ALL, &manifest, &err));
	for (uint32_t f = 0; f < manifest.file_count; f++)
		parts += manifest.entries[manifest.files[f]].part_count;
	ck_assert_int_gt(context_terms(3), 0);
	ck_assert_uint_eq(count_chunks("run@3", manifest.entries[manifest.files[0]].part_count, TPD_ENCODING_CONTEXT), 1);
	ck_assert_uint_eq(count_chunks("run@3", manifest.entries[manifest.files[0]].part_count, TPD_ENCODING_STEPPED), 1);
	ck_assert_uint_ge(result.parts_reused, parts - 1); /* but the last one */
	tpd_manifest_release(&manifest);
	rename(scratch("checkpoint-3"), scratch("saved-3"));
	check_restored(3, "model_%u.safetensors", 1);
	check_restored(3, "optim_%u.safetensors", 1);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		types_that_differ,
		weights_by_context,
		weights_by_context_at_most,
		terms_are_of_context,
		not_by_context,
		inputs_that_are_gone,
		interrupted,
	};

	return run_tests("predict_types", tests, TPD_ARRAY_LEN(tests));
}
