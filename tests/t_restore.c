/*
 * t_restore.c - weights and moments that are read together: whatever files they are in, however many, and whichever are wanted.
 */
#include "base/tpd.h"

#include "archive_help.h"

#include <math.h>

#include "store/manifest.h"

#define WEIGHTS 70u /* more than a restore keeps files open */
#define N 4096u
#define STEPS 4u

static float w[WEIGHTS][N], m[WEIGHTS][N], v[WEIGHTS][N];
static uint64_t chance;

static void train(void)
{
	for (unsigned t = 0; t < WEIGHTS; t++)
		for (unsigned i = 0; i < N; i++)
			for (unsigned k = 0; k < 5; k++) {
				float g = (float)(0.001 * random_normal(&chance)) + 0.0005f * (float)(i % 7);

				m[t][i] = 0.9f * m[t][i] + 0.1f * g;
				v[t][i] = 0.99f * v[t][i] + 0.01f * g * g;
				w[t][i] -= 1e-4f * m[t][i] / (sqrtf(v[t][i]) + 1e-8f);
			}
}

struct tensor {
	char name[32];
	const float *values;
};

static void write_tensors(const char *path, const struct tensor *tensors, unsigned count)
{
	struct tpd_buf header = {0}, out = {0};

	tpd_buf_printf(&header, "{");
	for (unsigned t = 0; t < count; t++)
		tpd_buf_printf(&header, "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[64,64],\"data_offsets\":[%zu,%zu]}", t ? "," : "",
			       tensors[t].name, t * sizeof(w[0]), (t + 1) * sizeof(w[0]));
	tpd_buf_printf(&header, "}");
	tpd_buf_u64(&out, header.len);
	tpd_buf_put(&out, header.data, header.len);
	for (unsigned t = 0; t < count; t++)
		tpd_buf_put(&out, tensors[t].values, sizeof(w[0]));
	ck_assert_int_eq(tpd_buf_status(&out, NULL), TPD_OK);
	file_write(path, out.data, out.len);
	tpd_buf_release(&header);
	tpd_buf_release(&out);
}

/* The moments of each weight in a file of their own; of every second one in one that comes before the model. */
static const char *state_path(unsigned t)
{
	static char path[64];

	snprintf(path, sizeof(path), "%s/state-%02u.safetensors", t % 2 ? "a" : "optim", t);
	return path;
}

static void store_step(uint64_t step)
{
	struct tensor model[WEIGHTS];

	train();
	ck_assert_int_eq(mkdir(scratch("checkpoint-%d", (int)step), 0755), 0);
	ck_assert_int_eq(mkdir(scratch("checkpoint-%d/a", (int)step), 0755), 0);
	ck_assert_int_eq(mkdir(scratch("checkpoint-%d/optim", (int)step), 0755), 0);
	for (unsigned t = 0; t < WEIGHTS; t++) {
		struct tensor state[2] = {{.values = m[t]}, {.values = v[t]}};

		snprintf(model[t].name, sizeof(model[t].name), "l%02u.weight", t);
		model[t].values = w[t];
		snprintf(state[0].name, sizeof(state[0].name), "optim.l%02u.weight.exp_avg", t);
		snprintf(state[1].name, sizeof(state[1].name), "optim.l%02u.weight.exp_avg_sq", t);
		write_tensors(scratch("checkpoint-%d/%s", (int)step, state_path(t)), state, 2);
	}
	write_tensors(scratch("checkpoint-%d/model.safetensors", (int)step), model, WEIGHTS);
	file_write(scratch("checkpoint-%d/empty", (int)step), "", 0);
	ck_assert_int_eq(symlink("model.safetensors", scratch("checkpoint-%d/link", (int)step)), 0);
	OK(ingest(scratch("checkpoint-%d", (int)step), "run", step, NULL));
	rename(scratch("checkpoint-%d", (int)step), scratch("saved-%d", (int)step));
}

static void start(void)
{
	struct tpd_archive_options options = {.mode = TPD_ARCHIVE_CREATE, .threads = 2, .max_depth = 16, .effort = TPD_EFFORT_BALANCED,
					      .depend = TPD_DEPEND_OPTIMIZER};
	char store[512];

	chance = 11;
	memset(m, 0, sizeof(m));
	memset(v, 0, sizeof(v));
	for (unsigned t = 0; t < WEIGHTS; t++)
		for (unsigned i = 0; i < N; i++)
			w[t][i] = (float)(0.02 * random_normal(&chance));
	snprintf(store, sizeof(store), "%s", scratch("store"));
	options.store = store;
	OK(tpd_archive_open(&options, &archive, &err));
	for (uint64_t step = 0; step < STEPS; step++)
		store_step(step);
}

/* Weights that are predicted from their moments. */
static unsigned predicted(void)
{
	struct tpd_manifest manifest;
	struct tpd_archive_name which = resolve("run@3");
	unsigned count = 0;

	OK(tpd_store_manifest(tpd_archive_store(archive), &which.id, &manifest, &err));
	for (uint32_t f = 0; f < manifest.file_count; f++) {
		const struct tpd_entry *entry = &manifest.entries[manifest.files[f]];

		for (uint32_t i = 0; i < entry->predictor_count; i++)
			count += (entry->predictors[i].terms & TPD_TERM_NOW) != 0;
	}
	tpd_manifest_release(&manifest);
	return count;
}

static bool is_back(const char *to, const char *path)
{
	char a[600], b[600];

	snprintf(a, sizeof(a), "%s/%s", to, path);
	snprintf(b, sizeof(b), "%s", scratch("saved-3/%s", path));
	return file_exists(a) && file_equal(a, b);
}

/* Only these, NULL: all. */
static void check(const char *const *files, const char *out)
{
	struct tpd_archive_name which = resolve("run@3");
	char to[512];

	snprintf(to, sizeof(to), "%s", scratch("%s", out));
	ck_assert_msg(tpd_archive_restore(archive, &which.id, to, files, false, NULL, &err) == TPD_OK, "%s", err.text);
	for (unsigned t = 0; t < WEIGHTS; t++)
		ck_assert_int_eq(is_back(to, state_path(t)), tpd_restore_wants(files, state_path(t)));
	ck_assert_int_eq(is_back(to, "model.safetensors"), tpd_restore_wants(files, "model.safetensors"));
	ck_assert_int_eq(is_back(to, "empty"), tpd_restore_wants(files, "empty"));
}

START_TEST(all_and_some)
{
	start();
	ck_assert_uint_eq(predicted(), WEIGHTS);
	check(NULL, "all");
	check((const char *const[]){"model.safetensors", NULL}, "model");
	check((const char *const[]){"optim", NULL}, "optim");
	check((const char *const[]){"a/state-03.safetensors", "empty", NULL}, "one");
	check((const char *const[]){"model.safetensors", "a", NULL}, "some");
}
END_TEST

/* Whatever it is called, and whether it is there yet. */
START_TEST(into_the_store)
{
	start();
	ck_assert_int_eq(symlink("store", scratch("link")), 0);
	ck_assert_int_eq(restore("run@3", scratch("store")), TPD_USAGE);
	ck_assert(strstr(err.text, "lies in the store"));
	ck_assert_int_eq(restore("run@3", scratch("store/objects")), TPD_USAGE);
	ck_assert_int_eq(restore("run@3", scratch("store/new/deeper/still/")), TPD_USAGE);
	ck_assert_int_eq(restore("run@3", scratch("link/../link/new")), TPD_USAGE);
	ck_assert(!file_exists(scratch("store/model.safetensors")) && !file_exists(scratch("store/new")));
	OK(restore("run@3", scratch("store-too/out")));
}
END_TEST

/* The bytes of one weight at the beginning of the chain are wrong: nothing is left behind, whatever was open. */
START_TEST(damaged)
{
	struct tpd_archive_name which;

	start();
	which = resolve("run@3");
	ck_assert_int_eq(chmod(part_path("run@0", WEIGHTS / 2 + 1, 0), 0644), 0);
	file_flip(part_path("run@0", WEIGHTS / 2 + 1, 0), 600000);
	ck_assert_int_eq(restore("run@3", scratch("out")), TPD_CORRUPT);
	ck_assert(!file_exists(scratch("out/model.safetensors")) && !file_exists(scratch("out/a/state-01.safetensors")));
	OK(tpd_archive_restore(archive, &which.id, scratch("other"), (const char *const[]){"empty", NULL}, false, NULL, &err));
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {all_and_some, into_the_store, damaged};

	return run_tests("restore", tests, TPD_ARRAY_LEN(tests));
}
