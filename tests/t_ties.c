/*
 * t_ties.c - which tensors a stored checkpoint says are the optimizer's state of which others: by name, by order, by values, in flat
 * partitions, and what the checkpoint before said. The tensors move as training moves them: against their exp_avg.
 */
#include "base/tpd.h"

#include <check.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "codec/rounding.h"
#include "files.h"
#include "store/ingest.h"
#include "store_help.h"

#define TENSORS_MAX 1024u

struct tensor {
	const char *file, *name;
	enum tpd_dtype dtype;
	uint64_t rows, columns; /* rows 0: one dimension */
	const float *values;    /* F32 here, whatever it is in the file */
};

static struct tpd_store *store;
static struct tpd_run_lock *lock;
static struct tpd_pool *pool;
static uint64_t chance;
static struct tensor tensors[TENSORS_MAX]; /* of the checkpoint that is put together; in the order of files */
static size_t tensor_count;

static void start(void)
{
	set_up();
	store = open_store(TPD_STORE_CREATE);
	lock = lock_run(store, RUN);
	ck_assert_int_eq(tpd_pool_new(2, &pool, &err), TPD_OK);
	chance = 5;
	tensor_count = 0;
}

static void stop(void)
{
	tpd_pool_free(pool);
	tpd_store_run_unlock(lock);
	tpd_store_close(store);
	tear_down();
}

/* --- a checkpoint of safetensors --- */

static void add(const char *file, const char *name, enum tpd_dtype dtype, uint64_t rows, uint64_t columns, const float *values)
{
	ck_assert_uint_lt(tensor_count, TENSORS_MAX);
	tensors[tensor_count++] = (struct tensor){file, name, dtype, rows, columns, values};
}

static uint64_t elements_of(const struct tensor *tensor)
{
	return (tensor->rows ? tensor->rows : 1) * tensor->columns;
}

static void put_values(struct tpd_buf *out, const struct tensor *tensor)
{
	for (uint64_t i = 0; i < elements_of(tensor); i++) {
		uint32_t bits;

		memcpy(&bits, &tensor->values[i], sizeof(bits));
		if (tensor->dtype == TPD_DTYPE_F32)
			tpd_buf_u32(out, bits);
		else
			tpd_buf_u16(out, tensor->dtype == TPD_DTYPE_BF16 ? tpd_round_bf16(bits) : tpd_round_f16(bits));
	}
}

/* Tensors [from, to) as a file of that name. */
static struct tpd_source_entry put_file(size_t from, size_t to)
{
	struct tpd_source_entry entry = {.path = tensors[from].file, .type = TPD_ENTRY_FILE, .mode = 0644};
	struct tpd_buf data = {0}, out = {0};
	static char header[1 << 18];
	size_t at = (size_t)snprintf(header, sizeof(header), "{");

	for (size_t t = from; t < to; t++) {
		size_t begins = data.len;

		put_values(&data, &tensors[t]);
		at += (size_t)snprintf(header + at, sizeof(header) - at, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[", t > from ? "," : "",
				       tensors[t].name, tpd_dtype_name(tensors[t].dtype));
		if (tensors[t].rows)
			at += (size_t)snprintf(header + at, sizeof(header) - at, "%llu,", (unsigned long long)tensors[t].rows);
		at += (size_t)snprintf(header + at, sizeof(header) - at, "%llu],\"data_offsets\":[%zu,%zu]}",
				       (unsigned long long)tensors[t].columns, begins, data.len);
	}
	at += (size_t)snprintf(header + at, sizeof(header) - at, "}");
	ck_assert_uint_lt(at, sizeof(header));
	tpd_buf_u64(&out, at);
	tpd_buf_put(&out, header, at);
	tpd_buf_put(&out, data.data, data.len);
	ck_assert_int_eq(tpd_buf_status(&out, NULL), TPD_OK);
	ck_assert_int_eq(tpd_io_publish(io, dir, entry.path, out.data, out.len, true, NULL), TPD_OK);
	entry.size = out.len;
	entry.fd = io->open(io, dir, entry.path, O_RDONLY, 0);
	ck_assert_int_ge(entry.fd, 0);
	tpd_buf_release(&data);
	tpd_buf_release(&out);
	return entry;
}

/* Store what was added as a checkpoint of this step, and forget it; its manifest is the caller's. */
static struct tpd_manifest keep(uint64_t step)
{
	static struct tpd_source_entry entries[TENSORS_MAX];
	struct tpd_source source = {.kind = TPD_CHECKPOINT_DIR, .origin = "/nowhere", .entries = entries};
	struct tpd_ingest_options options = {.pool = pool, .max_depth = 16, .now_ns = 1};
	struct tpd_ingest_result result;
	struct tpd_manifest m = {0};

	for (size_t from = 0, to; from < tensor_count; from = to) {
		for (to = from + 1; to < tensor_count && strcmp(tensors[to].file, tensors[from].file) == 0; to++)
			;
		entries[source.count++] = put_file(from, to);
	}
	ck_assert_msg(tpd_ingest(lock, RUN, step, &source, &options, &result, &err) == TPD_OK, "%s", err.text);
	for (size_t i = 0; i < source.count; i++)
		io->close(io, entries[i].fd);
	ck_assert_int_eq(tpd_store_manifest_keep(store, &result.id, TPD_MANIFEST_ABOUT, &m, &err), TPD_OK);
	tensor_count = 0;
	return m;
}

/* --- what it says --- */

static const struct tpd_segment_about *about(const struct tpd_manifest *m, const struct tpd_tie_end *end)
{
	return &m->entries[m->files[end->file]].about[end->segment];
}

/* The nth tie of the tensor of that name in that file; NULL: it has fewer. */
static const struct tpd_tie *tie_of(const struct tpd_manifest *m, const char *file, const char *name, unsigned n)
{
	for (uint32_t t = 0; t < m->tie_count; t++)
		if (strcmp(m->entries[m->files[m->ties[t].state.file]].path, file) == 0 &&
		    strcmp(about(m, &m->ties[t].state)->name, name) == 0 && n-- == 0)
			return &m->ties[t];
	return NULL;
}

static void expect(const struct tpd_manifest *m, const char *name, const char *owner, bool checked)
{
	const struct tpd_tie *tie = tie_of(m, "optimizer.safetensors", name, 0);

	ck_assert_msg(tie != NULL, "'%s' is tied to nothing", name);
	ck_assert_msg(strcmp(about(m, &tie->owner)->name, owner) == 0, "'%s' is tied to '%s', not to '%s'", name, about(m, &tie->owner)->name,
		      owner);
	ck_assert_msg(tie->checked == checked, "'%s' is %schecked", name, tie->checked ? "" : "un");
	ck_assert_ptr_null(tie_of(m, "optimizer.safetensors", name, 1));
}

/* --- training --- */

struct parameter {
	float *w, *m, *v;
	uint64_t rows, columns;
};

static struct parameter fresh(uint64_t rows, uint64_t columns)
{
	uint64_t n = (rows ? rows : 1) * columns;
	struct parameter p = {malloc(n * 4), malloc(n * 4), malloc(n * 4), rows, columns};

	ck_assert(p.w && p.m && p.v);
	for (uint64_t i = 0; i < n; i++) {
		p.w[i] = (float)(0.02 * random_normal(&chance));
		p.m[i] = (float)(1e-4 * random_normal(&chance));
		p.v[i] = p.m[i] * p.m[i];
	}
	return p;
}

static void done(struct parameter *p)
{
	free(p->w);
	free(p->m);
	free(p->v);
}

/* Some steps of something like Adam; noise: how much else moves the weights. */
static void train(struct parameter *p, double noise)
{
	for (uint64_t i = 0; i < (p->rows ? p->rows : 1) * p->columns; i++) {
		p->m[i] = (float)(0.5 * (double)p->m[i] + 5e-5 * random_normal(&chance));
		p->v[i] = p->m[i] * p->m[i];
		p->w[i] -= (float)(0.1 * (double)p->m[i] + noise * 1e-5 * random_normal(&chance));
	}
}

static void add_state(const char *file, const char *name_m, const char *name_v, const struct parameter *p)
{
	add(file, name_m, TPD_DTYPE_F32, p->rows, p->columns, p->m);
	add(file, name_v, TPD_DTYPE_F32, p->rows, p->columns, p->v);
}

/* Numbers as HF Trainer has them; the weights' names sort otherwise than the optimizer's numbers do. */
static void add_numbered(const struct parameter *q, const struct parameter *k, const struct parameter *norm)
{
	add("model.safetensors", "layers.0.k.weight", TPD_DTYPE_F32, 64, 64, k->w);
	add("model.safetensors", "layers.0.norm.weight", TPD_DTYPE_F32, 0, 256, norm->w);
	add("model.safetensors", "layers.0.q.weight", TPD_DTYPE_F32, 64, 64, q->w);
	add_state("optimizer.safetensors", "state.0.exp_avg", "state.0.exp_avg_sq", q);
	add_state("optimizer.safetensors", "state.1.exp_avg", "state.1.exp_avg_sq", k);
	add_state("optimizer.safetensors", "state.2.exp_avg", "state.2.exp_avg_sq", norm);
}

START_TEST(numbers_are_settled_by_the_values)
{
	struct parameter q = fresh(64, 64), k = fresh(64, 64), norm = fresh(0, 256);
	struct tpd_manifest m;

	add_numbered(&q, &k, &norm);
	m = keep(1); /* nothing moved yet: order, which is wrong here, and says that it is no more than that */
	ck_assert_uint_eq(m.tie_count, 6);
	expect(&m, "state.0.exp_avg", "layers.0.k.weight", false);
	expect(&m, "state.2.exp_avg", "layers.0.norm.weight", false);
	tpd_manifest_release(&m);
	train(&q, 1), train(&k, 1), train(&norm, 0);
	add_numbered(&q, &k, &norm);
	m = keep(2);
	ck_assert_uint_eq(m.tie_count, 6);
	expect(&m, "state.0.exp_avg", "layers.0.q.weight", true);
	expect(&m, "state.0.exp_avg_sq", "layers.0.q.weight", true);
	expect(&m, "state.1.exp_avg", "layers.0.k.weight", true);
	expect(&m, "state.1.exp_avg_sq", "layers.0.k.weight", true);
	expect(&m, "state.2.exp_avg", "layers.0.norm.weight", true);
	ck_assert_int_eq(tie_of(&m, "optimizer.safetensors", "state.1.exp_avg_sq", 0)->kind, TPD_STATE_EXP_AVG_SQ);
	ck_assert_uint_eq(tie_of(&m, "optimizer.safetensors", "state.1.exp_avg_sq", 0)->elements, 64 * 64);
	tpd_manifest_release(&m);
	add_numbered(&q, &k, &norm); /* nothing moved: what was known stays known, but for this one time it is not seen */
	m = keep(3);
	expect(&m, "state.0.exp_avg", "layers.0.q.weight", false);
	expect(&m, "state.1.exp_avg_sq", "layers.0.k.weight", false);
	tpd_manifest_release(&m);
	train(&q, 50), train(&k, 50), train(&norm, 50); /* far more noise than a checkpoint's distance makes */
	add_numbered(&q, &k, &norm);
	m = keep(4);
	expect(&m, "state.0.exp_avg", "layers.0.q.weight", false);
	tpd_manifest_release(&m);
	done(&q), done(&k), done(&norm);
}
END_TEST

/* Frozen weights have no state: as many states as weights is not to be hoped for. */
START_TEST(frozen_weights)
{
	struct parameter p[4];
	struct tpd_manifest m = {0};

	for (unsigned i = 0; i < 4; i++)
		p[i] = fresh(64, 64);
	for (uint64_t step = 1; step <= 2; step++) {
		static const char *const names[] = {"a.weight", "b.weight", "c.weight", "d.weight"};

		for (unsigned i = 0; i < 4; i++)
			add("model.safetensors", names[i], TPD_DTYPE_F32, 64, 64, p[i].w);
		add_state("optimizer.safetensors", "state.0.exp_avg", "state.0.exp_avg_sq", &p[3]);
		add_state("optimizer.safetensors", "state.1.exp_avg", "state.1.exp_avg_sq", &p[1]);
		tpd_manifest_release(&m);
		m = keep(step);
		if (step == 1)
			ck_assert_uint_eq(m.tie_count, 0);
		train(&p[1], 1), train(&p[3], 1);
		for (uint64_t i = 0; i < 64 * 64; i++) /* a little like d, as layers are that see the same data: d is the better one */
			p[0].w[i] -= (float)(0.03 * (double)p[3].m[i] + 1e-5 * random_normal(&chance));
	}
	ck_assert_uint_eq(m.tie_count, 4);
	expect(&m, "state.0.exp_avg", "d.weight", true);
	expect(&m, "state.1.exp_avg_sq", "b.weight", true);
	tpd_manifest_release(&m);
	for (unsigned i = 0; i < 4; i++)
		done(&p[i]);
}
END_TEST

/* As torch.distributed.checkpoint names them; there are tensors of the same shape and end that it is not. */
START_TEST(names)
{
	struct parameter p = fresh(64, 64), other = fresh(64, 64), momentum = fresh(8, 64);
	struct tpd_manifest m;

	add("model.safetensors", "ema.mlp.weight", TPD_DTYPE_F32, 64, 64, other.w);
	add("model.safetensors", "model.layers.0.mlp.weight", TPD_DTYPE_F32, 64, 64, p.w);
	add("model.safetensors", "model.layers.1.mlp.weight", TPD_DTYPE_F32, 64, 64, other.w);
	add("model.safetensors", "0", TPD_DTYPE_F32, 6, 64, momentum.w);
	add("model.safetensors", "1", TPD_DTYPE_F32, 6, 64, momentum.v);
	add("model.safetensors", "model.list.0", TPD_DTYPE_F32, 5, 64, momentum.w);
	add("model.safetensors", "model.list.1", TPD_DTYPE_F32, 5, 64, momentum.v);
	add("model.safetensors", "model.layers.2.mlp.weight[8,0]", TPD_DTYPE_F32, 8, 64, momentum.w);
	add("optimizer.safetensors", "optim.state.exp_avg.layers.1.mlp.weight", TPD_DTYPE_F32, 64, 64, other.m);
	add("optimizer.safetensors", "optim.layers.0.mlp.weight.exp_avg", TPD_DTYPE_F32, 64, 64, p.m);
	add("optimizer.safetensors", "optim.layers.0.mlp.weight.exp_avg_sq", TPD_DTYPE_F32, 64, 64, p.v);
	add("optimizer.safetensors", "optim.layers.0.mlp.weight.max_exp_avg_sq", TPD_DTYPE_F32, 64, 64, p.v);
	add("optimizer.safetensors", "optim.layers.2.mlp.weight.momentum_buffer[8,0]", TPD_DTYPE_F32, 8, 64, momentum.m);
	add("optimizer.safetensors", "optim.layers.9.mlp.bias.exp_avg", TPD_DTYPE_F32, 7, 64, momentum.m);
	add("optimizer.safetensors", "optim.list.1.exp_avg", TPD_DTYPE_F32, 5, 64, momentum.m);
	add("optimizer.safetensors", "state.1.exp_avg", TPD_DTYPE_F32, 6, 64, momentum.m);
	add("other.safetensors", "optim.state.exp_avg_sq.layers.1.mlp.weight", TPD_DTYPE_F32, 64, 64, other.v); /* in another rank's file */
	m = keep(1);
	ck_assert_uint_eq(m.tie_count, 7);
	ck_assert_ptr_nonnull(tie_of(&m, "other.safetensors", "optim.state.exp_avg_sq.layers.1.mlp.weight", 0));
	expect(&m, "optim.list.1.exp_avg", "model.list.1", false); /* and there is no weight for state.1, as there are two */
	expect(&m, "optim.layers.0.mlp.weight.exp_avg", "model.layers.0.mlp.weight", false);
	expect(&m, "optim.layers.0.mlp.weight.exp_avg_sq", "model.layers.0.mlp.weight", false);
	expect(&m, "optim.layers.0.mlp.weight.max_exp_avg_sq", "model.layers.0.mlp.weight", false);
	expect(&m, "optim.state.exp_avg.layers.1.mlp.weight", "model.layers.1.mlp.weight", false);
	expect(&m, "optim.layers.2.mlp.weight.momentum_buffer[8,0]", "model.layers.2.mlp.weight[8,0]", false);
	tpd_manifest_release(&m);
	done(&p), done(&other), done(&momentum);
}
END_TEST

/* Ranks that all call theirs the same, in one file each or apart: more of them than stand near each other. */
#define RANKS 12u
START_TEST(names_of_many_ranks)
{
	static char files[3][RANKS][40];
	struct parameter p[RANKS];
	struct tpd_manifest m = {0};

	for (unsigned r = 0; r < RANKS; r++) {
		snprintf(files[0][r], sizeof files[0][r], "both_%02u.safetensors", r);
		snprintf(files[1][r], sizeof files[1][r], "model_%02u.safetensors", r);
		snprintf(files[2][r], sizeof files[2][r], "optimizer_%02u.safetensors", r);
		p[r] = fresh(64, 64);
	}
	for (uint64_t step = 1; step <= 2; step++) {
		for (unsigned part = 0; part < 2; part++)
			for (unsigned r = 0; r < RANKS; r++) {
				if (_i == 0 && part == 1)
					continue;
				if (part == 0)
					add(files[_i ? 1 : 0][r], "model.layers.0.weight", TPD_DTYPE_F32, 64, 64, p[r].w);
				if (_i == 0 || part == 1)
					add_state(files[_i ? 2 : 0][r], "optim.layers.0.weight.exp_avg",
						  "optim.layers.0.weight.exp_avg_sq", &p[r]);
			}
		tpd_manifest_release(&m);
		m = keep(step);
		for (unsigned r = 0; r < RANKS; r++) {
			const struct tpd_tie *tie = tie_of(&m, files[_i ? 2 : 0][r], "optim.layers.0.weight.exp_avg", 0);

			ck_assert_msg(tie != NULL, "rank %u of step %u", r, (unsigned)step);
			ck_assert_str_eq(m.entries[m.files[tie->owner.file]].path, files[_i ? 1 : 0][r]);
			ck_assert(tie->checked == (step == 2));
			train(&p[r], 1);
		}
	}
	tpd_manifest_release(&m);
	for (unsigned r = 0; r < RANKS; r++)
		done(&p[r]);
}
END_TEST

/* Norms that nearly all shrink, with states that are nearly all of one sign: coincidences say nothing, and displace nothing. */
#define NORMS 48u
START_TEST(signs_that_say_nothing)
{
	static char names_of[3][NORMS][32];
	struct parameter p[NORMS];
	struct tpd_manifest m = {0};

	for (unsigned i = 0; i < NORMS; i++) {
		snprintf(names_of[0][i], sizeof names_of[0][i], "layers.%02u.norm", i);
		snprintf(names_of[1][i], sizeof names_of[1][i], "state.%u.exp_avg", i);
		snprintf(names_of[2][i], sizeof names_of[2][i], "state.%u.exp_avg_sq", i);
		p[i] = fresh(0, 768);
	}
	for (uint64_t step = 1; step <= 2; step++) {
		for (unsigned i = 0; i < NORMS; i++)
			add("model.safetensors", names_of[0][i], TPD_DTYPE_F32, 0, 768, p[i].w);
		for (unsigned i = 0; i < NORMS; i++) {
			for (unsigned j = 0; j < 768; j++)
				p[i].m[j] = random_next(&chance) % 100 ? 1e-4F : -1e-4F;
			add_state("optimizer.safetensors", names_of[1][i], names_of[2][i], &p[i]);
		}
		tpd_manifest_release(&m);
		m = keep(step);
		for (unsigned i = 0; i < NORMS; i++) {
			expect(&m, names_of[1][i], names_of[0][i], false);
			for (unsigned j = 0; j < 768; j++)
				p[i].w[j] += random_next(&chance) % 300 ? -1e-5F : 1e-5F;
		}
	}
	tpd_manifest_release(&m);
	for (unsigned i = 0; i < NORMS; i++)
		done(&p[i]);
}
END_TEST

/* --- masters --- */

/* More tensors of one value than anybody tries one by one, named in another order than they come. */
START_TEST(many_that_say_nothing)
{
	static char names_of[2][400][32];
	static float ones[64];
	struct tpd_manifest m;
	unsigned tied = 0;

	for (unsigned j = 0; j < 64; j++)
		ones[j] = 1;
	for (unsigned i = 0; i < 400; i++) {
		snprintf(names_of[0][i], sizeof names_of[0][i], "m.l%u.norm", i);
		add("model.safetensors", names_of[0][i], TPD_DTYPE_BF16, 0, 64, ones);
	}
	for (unsigned i = 0; i < 400; i++) {
		snprintf(names_of[1][i], sizeof names_of[1][i], "fp32.l%u.norm", 399 - i);
		add("optimizer.safetensors", names_of[1][i], TPD_DTYPE_F32, 0, 64, ones);
	}
	m = keep(1);
	for (unsigned i = 0; i < 400; i++) {
		const struct tpd_tie *tie = tie_of(&m, "optimizer.safetensors", names_of[1][i], 0);

		tied += tie && strcmp(about(&m, &tie->owner)->name, names_of[0][399 - i]) == 0 && !tie->checked;
	}
	ck_assert_uint_eq(tied, 400);
	tpd_manifest_release(&m);
}
END_TEST

START_TEST(masters_by_their_rounding)
{
	struct parameter a = fresh(64, 64), b = fresh(64, 64), half = fresh(0, 1000);
	float ones[64], other[64];
	struct tpd_manifest m;

	for (unsigned i = 0; i < 64; i++)
		ones[i] = other[i] = 1;
	/* Named after nothing, and in another order; norms all ones, where only the name can tell. */
	add("model.safetensors", "m.first", TPD_DTYPE_BF16, 64, 64, a.w);
	add("model.safetensors", "m.l.norm1", TPD_DTYPE_BF16, 0, 64, ones);
	add("model.safetensors", "m.l.norm2", TPD_DTYPE_BF16, 0, 64, other);
	add("model.safetensors", "m.second", TPD_DTYPE_BF16, 64, 64, b.w);
	add("model.safetensors", "m.third", TPD_DTYPE_F16, 0, 1000, half.w);
	add("optimizer.safetensors", "fp32.0", TPD_DTYPE_F32, 64, 64, b.w);
	add("optimizer.safetensors", "fp32.1", TPD_DTYPE_F32, 64, 64, a.w);
	add("optimizer.safetensors", "fp32.2", TPD_DTYPE_F32, 0, 1000, half.w);
	add("optimizer.safetensors", "fp32.3", TPD_DTYPE_F32, 0, 1000, half.v); /* nothing's */
	add("optimizer.safetensors", "fp32.l.norm2", TPD_DTYPE_F32, 0, 64, other);
	add("optimizer.safetensors", "fp32.l.norm3", TPD_DTYPE_F32, 0, 64, ones);
	add("optimizer.safetensors", "late.copy", TPD_DTYPE_F32, 64, 64, a.w); /* one master is enough */
	add("optimizer.safetensors", "state.0.exp_avg", TPD_DTYPE_F32, 64, 64, b.m);
	add("optimizer.safetensors", "state.1.exp_avg", TPD_DTYPE_F32, 64, 64, a.m);
	m = keep(1);
	expect(&m, "fp32.0", "m.second", true);
	expect(&m, "fp32.1", "m.first", true);
	expect(&m, "fp32.2", "m.third", true);
	expect(&m, "fp32.l.norm2", "m.l.norm2", false); /* the name alone says so */
	ck_assert_ptr_null(tie_of(&m, "optimizer.safetensors", "fp32.l.norm3", 0));
	ck_assert_ptr_null(tie_of(&m, "optimizer.safetensors", "late.copy", 0));
	expect(&m, "state.0.exp_avg", "fp32.0", false); /* what the optimizer steps is the master */
	expect(&m, "state.1.exp_avg", "fp32.1", false);
	ck_assert_uint_eq(m.tie_count, 6);
	ck_assert_int_eq(tie_of(&m, "optimizer.safetensors", "fp32.2", 0)->kind, TPD_STATE_MASTER);
	tpd_manifest_release(&m);
	done(&a), done(&b), done(&half);
}
END_TEST

/* --- flat partitions --- */

#define WEIGHTS 4u
static const uint64_t sizes[WEIGHTS] = {3000, 70000, 5000, 4096};
#define ALL (3000u + 70000u + 5000u + 4096u)
static const unsigned in_order[WEIGHTS] = {0, 1, 2, 3};
static const char *const weight_names[WEIGHTS] = {"w0", "w1", "w2", "w3"};

struct partitions {
	struct parameter w[WEIGHTS];
	struct parameter part[2];
};

static void expect_range(const struct tpd_manifest *m, const char *file, unsigned n, uint64_t first, const char *owner,
			 uint64_t owner_first, uint64_t elements)
{
	const struct tpd_tie *tie = tie_of(m, file, "flat", n);

	ck_assert_msg(tie != NULL, "%s: no tie %u", file, n);
	ck_assert_int_eq(tie->kind, TPD_STATE_MASTER);
	ck_assert_str_eq(about(m, &tie->owner)->name, owner);
	ck_assert_msg(tie->state.first == first && tie->owner.first == owner_first && tie->elements == elements,
		      "%s, tie %u: %llu of %llu at %llu", file, n, (unsigned long long)tie->elements, (unsigned long long)tie->owner.first,
		      (unsigned long long)tie->state.first);
	ck_assert(tie->checked);
}

static void add_partitions(const struct partitions *p, enum tpd_dtype dtype, bool flat_model)
{
	static const char *const files[] = {"rank_0.safetensors", "rank_1.safetensors"};
	static const float zeros[64];
	static float whole[ALL];
	size_t at = 0;

	for (unsigned i = 0; i < WEIGHTS; i++) {
		memcpy(whole + at, p->w[i].w, sizes[i] * 4);
		at += sizes[i];
		if (!flat_model)
			add("model.safetensors", weight_names[i], dtype, 0, sizes[i], p->w[i].w);
	}
	add("model.safetensors", "zeros", dtype, 0, 64, zeros); /* as the padding has them */
	if (flat_model)
		add("model.safetensors", "module", dtype, 0, ALL, whole);
	for (unsigned r = 0; r < 2; r++) {
		add(files[r], "flat", TPD_DTYPE_F32, 0, p->part[r].columns, p->part[r].w);
		add_state(files[r], "state.0.exp_avg", "state.0.exp_avg_sq", &p->part[r]);
	}
}

/* Partitions as ZeRO-1 and 2 have them: one behind the other, cut in the middle, padded at the end. */
static void fill_one_behind_the_other(struct partitions *p, const unsigned order[WEIGHTS])
{
	uint64_t half = (ALL + 100) / 2, at = 0;

	for (unsigned r = 0; r < 2; r++)
		memset(p->part[r].w, 0, half * 4);
	for (unsigned i = 0; i < WEIGHTS; i++)
		for (uint64_t j = 0; j < sizes[order[i]]; j++, at++)
			p->part[at / half].w[at % half] = p->w[order[i]].w[j];
}

static struct partitions fresh_partitions(uint64_t each)
{
	struct partitions p;

	for (unsigned i = 0; i < WEIGHTS; i++)
		p.w[i] = fresh(0, sizes[i]);
	for (unsigned r = 0; r < 2; r++)
		p.part[r] = fresh(0, each);
	return p;
}

static void partitions_done(struct partitions *p)
{
	for (unsigned i = 0; i < WEIGHTS; i++)
		done(&p->w[i]);
	for (unsigned r = 0; r < 2; r++)
		done(&p->part[r]);
}

static void expect_one_behind_the_other(const struct tpd_manifest *m)
{
	uint64_t half = (ALL + 100) / 2, cut = half - 3000;

	expect_range(m, "rank_0.safetensors", 0, 0, "w0", 0, 3000);
	expect_range(m, "rank_0.safetensors", 1, 3000, "w1", 0, cut);
	ck_assert_ptr_null(tie_of(m, "rank_0.safetensors", "flat", 2));
	expect_range(m, "rank_1.safetensors", 0, 0, "w1", cut, 70000 - cut);
	expect_range(m, "rank_1.safetensors", 1, 70000 - cut, "w2", 0, 5000);
	expect_range(m, "rank_1.safetensors", 2, 70000 - cut + 5000, "w3", 0, 4096);
	ck_assert_ptr_null(tie_of(m, "rank_1.safetensors", "flat", 3));
}

START_TEST(partitions_one_behind_the_other)
{
	static const enum tpd_dtype types[] = {TPD_DTYPE_BF16, TPD_DTYPE_F16, TPD_DTYPE_F32};
	struct partitions p = fresh_partitions((ALL + 100) / 2);
	const struct tpd_tie *tie;
	struct tpd_manifest m;

	fill_one_behind_the_other(&p, in_order);
	add_partitions(&p, types[_i], false);
	m = keep(1);
	expect_one_behind_the_other(&m);
	for (unsigned n = 0; n < 2; n++) {
		tie = tie_of(&m, n ? "rank_1.safetensors" : "rank_0.safetensors", "state.0.exp_avg_sq", 0);
		ck_assert_ptr_nonnull(tie);
		ck_assert_str_eq(about(&m, &tie->owner)->name, "flat");
		ck_assert_uint_eq(tie->owner.file, tie->state.file);
		ck_assert_uint_eq(tie->elements, (ALL + 100) / 2);
	}
	tpd_manifest_release(&m);
	train(&p.w[0], 1); /* the same layout again, with other values in a part of it */
	fill_one_behind_the_other(&p, in_order);
	add_partitions(&p, types[_i], false);
	m = keep(2);
	expect_one_behind_the_other(&m);
	tpd_manifest_release(&m);
	fill_one_behind_the_other(&p, (const unsigned[]){2, 0, 3, 1}); /* another layout: it is seen, and found anew */
	add_partitions(&p, types[_i], false);
	m = keep(3);
	expect_range(&m, "rank_0.safetensors", 0, 0, "w2", 0, 5000);
	expect_range(&m, "rank_0.safetensors", 1, 5000, "w0", 0, 3000);
	expect_range(&m, "rank_0.safetensors", 2, 8000, "w3", 0, 4096);
	expect_range(&m, "rank_0.safetensors", 3, 12096, "w1", 0, (ALL + 100) / 2 - 12096);
	expect_range(&m, "rank_1.safetensors", 0, 0, "w1", (ALL + 100) / 2 - 12096, 70000 + 12096 - (ALL + 100) / 2);
	tpd_manifest_release(&m);
	partitions_done(&p);
}
END_TEST

START_TEST(a_flat_model_and_its_partitions)
{
	struct partitions p = fresh_partitions((ALL + 100) / 2);
	uint64_t half = (ALL + 100) / 2;
	struct tpd_manifest m;

	fill_one_behind_the_other(&p, in_order);
	add("copy.safetensors", "w0", TPD_DTYPE_BF16, 0, 3000, p.w[0].w); /* begins as the flat one does, and is not all of it */
	add_partitions(&p, TPD_DTYPE_BF16, true);
	m = keep(1);
	expect_range(&m, "rank_0.safetensors", 0, 0, "module", 0, half);
	expect_range(&m, "rank_1.safetensors", 0, 0, "module", half, ALL - half);
	tpd_manifest_release(&m);
	partitions_done(&p);
}
END_TEST

/* ZeRO-3: each weight is cut, its pieces at the same place of each rank. */
START_TEST(partitions_side_by_side)
{
	uint64_t each = 0, at = 0;
	struct partitions p;
	struct tpd_manifest m;

	for (unsigned i = 0; i < WEIGHTS; i++)
		each += (sizes[i] + 1) / 2;
	p = fresh_partitions(each);
	for (unsigned i = 0; i < WEIGHTS; i++) {
		uint64_t piece = (sizes[i] + 1) / 2;

		memcpy(p.part[0].w + at, p.w[i].w, piece * 4);
		memcpy(p.part[1].w + at, p.w[i].w + piece, (sizes[i] - piece) * 4);
		at += piece;
	}
	add_partitions(&p, TPD_DTYPE_BF16, false);
	m = keep(1);
	at = 0;
	for (unsigned i = 0; i < WEIGHTS; i++) {
		uint64_t piece = (sizes[i] + 1) / 2;

		expect_range(&m, "rank_0.safetensors", i, at, weight_names[i], 0, piece);
		expect_range(&m, "rank_1.safetensors", i, at, weight_names[i], piece, sizes[i] - piece);
		at += piece;
	}
	tpd_manifest_release(&m);
	partitions_done(&p);
}
END_TEST

/* Zeros stand everywhere; once they were trained they have their place, too. */
START_TEST(weights_that_were_nothing_first)
{
	struct parameter a = fresh(0, 3000), bias = fresh(0, 500), b = fresh(0, 4000), part = fresh(0, 7500);
	struct tpd_manifest m;

	memset(bias.w, 0, 500 * 4);
	for (uint64_t step = 1; step <= 3; step++) {
		memcpy(part.w, a.w, 3000 * 4);
		memcpy(part.w + 3000, bias.w, 500 * 4);
		memcpy(part.w + 3500, b.w, 4000 * 4);
		add("model.safetensors", "a", TPD_DTYPE_BF16, 0, 3000, a.w);
		add("model.safetensors", "b", TPD_DTYPE_BF16, 0, 4000, b.w);
		add("model.safetensors", "bias", TPD_DTYPE_BF16, 0, 500, bias.w);
		add("optimizer.safetensors", "flat", TPD_DTYPE_F32, 0, 7500, part.w);
		add_state("optimizer.safetensors", "state.0.exp_avg", "state.0.exp_avg_sq", &part);
		m = keep(step);
		expect_range(&m, "optimizer.safetensors", 0, 0, "a", 0, 3000);
		if (step > 1)
			expect_range(&m, "optimizer.safetensors", 1, 3000, "bias", 0, 500);
		expect_range(&m, "optimizer.safetensors", step > 1 ? 2 : 1, 3500, "b", 0, 4000);
		ck_assert_ptr_null(tie_of(&m, "optimizer.safetensors", "flat", step > 1 ? 3 : 2));
		tpd_manifest_release(&m);
		train(&a, 1), train(&bias, 1), train(&b, 1);
	}
	done(&a), done(&bias), done(&b), done(&part);
}
END_TEST

/* Two models of tensor-parallel ranks: what is cut goes on two files further on. */
START_TEST(partitions_of_two_models)
{
	static const char *const files[] = {"p0_t0.safetensors", "p0_t1.safetensors", "p1_t0.safetensors", "p1_t1.safetensors"};
	static const char *const names_of[] = {"t0", "t1"};
	struct parameter w[2] = {fresh(0, 9000), fresh(0, 9000)}, part[4];
	struct tpd_manifest m;

	for (unsigned f = 0; f < 4; f++) {
		part[f] = fresh(0, 4500);
		memcpy(part[f].w, w[f % 2].w + (f / 2) * 4500, 4500 * 4);
	}
	for (unsigned t = 0; t < 2; t++)
		add("model.safetensors", names_of[t], TPD_DTYPE_BF16, 0, 9000, w[t].w);
	for (unsigned f = 0; f < 4; f++) {
		add(files[f], "flat", TPD_DTYPE_F32, 0, 4500, part[f].w);
		add_state(files[f], "state.0.exp_avg", "state.0.exp_avg_sq", &part[f]);
	}
	m = keep(1);
	for (unsigned f = 0; f < 4; f++)
		expect_range(&m, files[f], 0, 0, names_of[f % 2], (f / 2) * 4500, 4500);
	tpd_manifest_release(&m);
	for (unsigned i = 0; i < 4; i++)
		done(&part[i]);
	done(&w[0]), done(&w[1]);
}
END_TEST

/* Weights that begin alike, by the thousand, and partitions full of that beginning: it ends, and says nothing wrong. */
START_TEST(beginnings_that_are_everywhere)
{
	struct parameter part = fresh(0, 1u << 19), w[8];
	struct tpd_manifest m;
	static const char *const names_of[] = {"a", "b", "c", "d", "e", "f", "g", "h"};

	for (uint64_t i = 0; i < part.columns; i++)
		part.w[i] = (float)(i % 32);
	for (unsigned i = 0; i < 8; i++) {
		w[i] = fresh(0, 1000);
		for (unsigned j = 0; j < 40; j++)
			w[i].w[j] = (float)(j % 32);
		add("model.safetensors", names_of[i], TPD_DTYPE_BF16, 0, 1000, w[i].w);
	}
	add("optimizer.safetensors", "flat", TPD_DTYPE_F32, 0, part.columns, part.w);
	add_state("optimizer.safetensors", "state.0.exp_avg", "state.0.exp_avg_sq", &part);
	m = keep(1);
	for (uint32_t t = 0; t < m.tie_count; t++)
		ck_assert_uint_le(m.ties[t].elements, m.ties[t].kind == TPD_STATE_MASTER ? 40 : part.columns);
	tpd_manifest_release(&m);
	done(&part);
	for (unsigned i = 0; i < 8; i++)
		done(&w[i]);
}
END_TEST

START_TEST(nothing_of_it_for_weights_alone)
{
	struct parameter p = fresh(64, 64);
	struct tpd_manifest m;

	add("model.safetensors", "exp_avg_pool.weight", TPD_DTYPE_F32, 64, 64, p.w);
	add("model.safetensors", "layers.0.weight", TPD_DTYPE_F32, 64, 64, p.m);
	m = keep(1);
	ck_assert_uint_eq(m.tie_count, 0);
	tpd_manifest_release(&m);
	done(&p);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("ties");
	TCase *tests = tcase_create("ties");
	SRunner *runner = srunner_create(suite);
	int failed;

	suite_add_tcase(suite, tests);
	tcase_add_checked_fixture(tests, start, stop);
	tcase_set_timeout(tests, 60);
	tcase_add_test(tests, numbers_are_settled_by_the_values);
	tcase_add_test(tests, frozen_weights);
	tcase_add_test(tests, names);
	tcase_add_test(tests, masters_by_their_rounding);
	tcase_add_loop_test(tests, partitions_one_behind_the_other, 0, 3);
	tcase_add_test(tests, a_flat_model_and_its_partitions);
	tcase_add_test(tests, partitions_side_by_side);
	tcase_add_test(tests, beginnings_that_are_everywhere);
	tcase_add_test(tests, nothing_of_it_for_weights_alone);
	tcase_add_loop_test(tests, names_of_many_ranks, 0, 2);
	tcase_add_test(tests, signs_that_say_nothing);
	tcase_add_test(tests, many_that_say_nothing);
	tcase_add_test(tests, weights_that_were_nothing_first);
	tcase_add_test(tests, partitions_of_two_models);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
