/*
 * kernels.c - which form of the kernels this process uses, and whether it can be trusted.
 *
 * Before a form is used it codes a fixed piece of each kind, and what comes out must have the digests that stand here, and decode
 * again. They were found with the scalar form. So a CPU that says that it can what it cannot, or a compiler that makes something else
 * of it, is seen before it touches anybody's data.
 */
#include "base/tpd.h"

#include "codec/kernels.h"

#include <fenv.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/digest.h"
#include "base/random.h"
#include "codec/classes.h"
#include "codec/context.h"
#include "codec/fields.h"
#include "codec/grid_kernel.h"
#include "codec/internal.h"
#include "codec/kernels_internal.h"
#include "codec/predict.h"
#include "codec/scaled.h"
#include "codec/stats_internal.h"

#define FORMS 4u
#define ELEMENTS 1100u /* of a piece: rounds, whole ones and a part of one */
#define ROUNDS ((ELEMENTS + TPD_LANES - 1) / TPD_LANES)

static struct {
	pthread_once_t once;
	const struct tpd_kernels *all[FORMS];
	size_t count;
	const struct tpd_kernels *use, *proof, *broken; /* broken: one that does not give the known answers, or NULL */
	char asked[32]; /* what TPD_CPU names, when that cannot be had */
	bool is_known;  /* it is a form that there is, on some CPU */
	bool is_here;   /* on this one */
} state = {.once = PTHREAD_ONCE_INIT};

/* --- known answers --- */

static const struct answer {
	enum tpd_dtype dtype;
	uint64_t digest; /* of all that the kernels make of the piece of this type */
} answers[] = {
	{TPD_DTYPE_F32, UINT64_C(0xfdf50744806e7f91)},
	{TPD_DTYPE_BF16, UINT64_C(0xd3fe7be836ab2713)},
	{TPD_DTYPE_F16, UINT64_C(0xc0bb8f09c0addfb5)},
};

/* Weights of all sizes and their updates; some equal, some zero, some of another sign, some not finite. */
static void make_piece(enum tpd_dtype dtype, uint8_t *x, uint8_t *p)
{
	uint64_t random = 0x9e3779b97f4a7c15u;

	for (size_t i = 0; i < ELEMENTS; i++) {
		uint32_t old = (uint32_t)tpd_random_next(&random), kind = (uint32_t)(tpd_random_next(&random) >> 20) % 32, new;

		old = (old & 0x80ffffffu) | (0x3c000000u + ((uint32_t)(tpd_random_next(&random) >> 30) % 6 << 23)); /* 2^-7 .. 2^-2 */
		if (dtype == TPD_DTYPE_F16)
			old = (old >> 16 & 0x83ffu) | (8u + (uint32_t)(tpd_random_next(&random) >> 30) % 6) << 10;
		else if (dtype == TPD_DTYPE_BF16)
			old >>= 16;
		new = old + (uint32_t)(tpd_random_next(&random) >> 40) % (dtype == TPD_DTYPE_F32 ? 4096u : 9u);
		if (kind < 5)
			new = (uint32_t[]){old, 0, old ^ (dtype == TPD_DTYPE_F32 ? 0x80000000u : 0x8000u), 3,
					   dtype == TPD_DTYPE_F32 ? 0x7fc00001u : dtype == TPD_DTYPE_F16 ? 0x7e01u : 0x7fc1u}[kind];
		if (dtype == TPD_DTYPE_F32) {
			tpd_put_u32(x + 4 * i, new);
			tpd_put_u32(p + 4 * i, old);
		} else {
			tpd_put_u16(x + 2 * i, (uint16_t)new);
			tpd_put_u16(p + 2 * i, (uint16_t)old);
		}
	}
}

/* What a form makes of a piece, one behind the other, and what it makes of that again. */
struct trial {
	uint8_t x[4 * ELEMENTS], p[4 * ELEMENTS], back[4 * ELEMENTS + 64];
	uint32_t values[ROUNDS * TPD_LANES], places[ELEMENTS + TPD_PLACES_SLACK], counts[256], states[TPD_RANS_LANES_MAX];
	uint32_t table[TPD_RANS_SUM], steps[3 * 256], tables[3 * TPD_RANS_SUM];
	uint8_t bits[ROUNDS * TPD_LANES], symbols[ELEMENTS], classes[ELEMENTS], decoded[ELEMENTS];
	uint8_t planes[4 * ELEMENTS], fields[4 * ROUNDS * TPD_LANES + TPD_FIELDS_SLACK], words[2 * ELEMENTS + TPD_WORDS_SLACK];
	uint8_t levels[ELEMENTS];
	uint16_t keys[ELEMENTS];
	float w1[ELEMENTS], terms[2][ELEMENTS], predicted[ELEMENTS], learnt[4 * TPD_TERM_ROOM], basis[2 * 83 * TPD_LOW_RANK_LANES];
	struct tpd_buf made;
};

/* Each symbol that occurs once, and one more often: any frequencies do. */
static void make_frequencies(const uint32_t counts[256], uint16_t freq[256])
{
	uint32_t sum = 0;
	unsigned most = 0;

	for (unsigned s = 0; s < 256; s++) {
		freq[s] = counts[s] > 0;
		sum += freq[s];
		if (counts[s] > counts[most])
			most = s;
	}
	freq[most] = (uint16_t)(freq[most] + TPD_RANS_SUM - sum);
}

static bool try_grid(const struct tpd_kernels *kernels, enum tpd_dtype dtype, struct trial *trial)
{
	const size_t width = tpd_dtype_width(dtype);
	const uint8_t t = (uint8_t)kernels->choose_t(dtype, trial->x, trial->p, ELEMENTS, 2);
	const struct tpd_pieces halves = {ROUNDS / 2 * TPD_LANES, ELEMENTS, ELEMENTS}; /* of one T, the same as one piece */
	uint8_t *end = trial->fields + sizeof trial->fields, *out;
	struct tpd_fields_in in;

	kernels->grid_encode(dtype, t, trial->x, trial->p, ELEMENTS, NULL, trial->symbols, trial->values, trial->bits);
	out = kernels->fields_pack(trial->values, trial->bits, ROUNDS, end);
	tpd_buf_u8(&trial->made, t);
	tpd_buf_put(&trial->made, trial->symbols, ELEMENTS);
	tpd_buf_put(&trial->made, out, (size_t)(end - out));
	tpd_fields_open(&in, out + 4, (size_t)(end - out) - 4);
	return kernels->grid_decode(dtype, (const uint8_t[]){t, t}, &halves, trial->p, trial->symbols, NULL, trial->back, &in) &&
	       tpd_fields_done(&in) && memcmp(trial->back, trial->x, ELEMENTS * width) == 0;
}

static bool code_rans(const struct tpd_kernels *kernels, const uint8_t *symbols, const uint16_t freq[256], struct trial *trial)
{
	uint8_t *end = trial->words + sizeof trial->words, *words = kernels->rans_encode(symbols, ELEMENTS, 6, freq, end, trial->states);

	tpd_buf_put(&trial->made, words, (size_t)(end - words));
	for (unsigned lane = 0; lane < TPD_RANS_LANES_MAX; lane++)
		tpd_buf_u32(&trial->made, trial->states[lane]);
	return kernels->rans_decode(words, (size_t)(end - words) / 2, 6, freq, trial->table, trial->states, NULL, trial->decoded, ELEMENTS) &&
	       memcmp(trial->decoded, symbols, ELEMENTS) == 0;
}

/* The symbols that try_grid() made. */
static bool try_rans(const struct tpd_kernels *kernels, struct trial *trial)
{
	uint16_t freq[256];

	kernels->count_bytes(trial->symbols, ELEMENTS, trial->counts);
	make_frequencies(trial->counts, freq);
	for (unsigned s = 0; s < 256; s++)
		tpd_buf_u32(&trial->made, trial->counts[s]);
	return code_rans(kernels, trial->symbols, freq, trial);
}

/*
 * A form may have several ways, and takes one by the frequencies: these are for the short tables, the long ones and the gathers of
 * rans_avx512.h, and for stretches, with rare symbols, and the table of rans_avx2.h.
 * All symbols that there are occur, and one of two are as frequent as is said.
 */
static bool try_ways_of_rans(const struct tpd_kernels *kernels, struct trial *trial)
{
	static const unsigned reaches[] = {40, 126, 128}; /* to both sides; the last one's symbols are all alike */
	uint64_t random = 0x853c49e6748fea9bu;
	bool good = true;

	for (unsigned way = 0; good && way < TPD_ARRAY_LEN(reaches); way++) {
		const unsigned reach = reaches[way], first = way == 2 ? 0 : TPD_SYMBOL_MIDDLE - reach, symbols = way == 2 ? 256 : 2 * reach + 1;
		uint16_t freq[256] = {0};
		unsigned left = TPD_RANS_SUM;

		for (unsigned s = first; s < first + symbols; s++) {
			const unsigned d = s < TPD_SYMBOL_MIDDLE ? TPD_SYMBOL_MIDDLE - s : s - TPD_SYMBOL_MIDDLE;

			freq[s] = (uint16_t)(way == 2 ? TPD_RANS_SUM / 256 : TPD_MAX(600u >> TPD_MIN(d, 16u), 1u));
			left -= freq[s];
		}
		freq[TPD_SYMBOL_MIDDLE] = (uint16_t)(freq[TPD_SYMBOL_MIDDLE] + left);
		tpd_rans_decode_table(freq, trial->table);
		for (size_t i = 0; i < ELEMENTS; i++)
			trial->classes[i] = (uint8_t)(i % 2 ? first + i / 2 % symbols : trial->table[tpd_random_next(&random) >> (64 - TPD_RANS_BITS)]);
		good = code_rans(kernels, trial->classes, freq, trial);
	}
	return good;
}

/* The same symbols in three classes: the third has one symbol only, that of the element before it stands for. */
static bool try_mixed(const struct tpd_kernels *kernels, struct trial *trial)
{
	uint8_t *end = trial->words + sizeof trial->words, *words;
	const uint8_t *at;
	uint16_t freq[3][256] = {{0}};

	make_frequencies(trial->counts, freq[0]);
	for (unsigned s = 0; s < 256; s++) /* upside down, but for what occurs */
		freq[1][s] = freq[0][s] > 0;
	freq[1][TPD_SYMBOL_ESCAPE] = 1;
	freq[1][255] = 0;
	for (unsigned s = 0, sum = 0; s < 256; s++) {
		sum += freq[1][s];
		if (s == 255)
			freq[1][s] = (uint16_t)(TPD_RANS_SUM - sum);
	}
	freq[2][TPD_SYMBOL_EQUAL] = TPD_RANS_SUM;
	for (unsigned c = 0; c < 3; c++) {
		uint32_t cum = 0;

		for (unsigned s = 0; s < 256; s++) {
			trial->steps[c << 8 | s] = freq[c][s] | cum << 16;
			cum += freq[c][s];
		}
		tpd_rans_mixed_table(freq[c], trial->tables + c * TPD_RANS_SUM);
	}
	for (size_t i = 0; i < ELEMENTS; i++)
		trial->classes[i] = (uint8_t)(trial->symbols[i] == TPD_SYMBOL_EQUAL && i % 3 ? 2 : i / 7 % 2);
	for (unsigned lane = 0; lane < TPD_LANES; lane++)
		trial->states[lane] = TPD_RANS_LOW;
	words = kernels->rans_encode_mixed(trial->symbols, trial->classes, ELEMENTS, 4, trial->steps, end, trial->states);
	tpd_buf_put(&trial->made, words, (size_t)(end - words));
	for (unsigned lane = 0; lane < TPD_LANES; lane++)
		tpd_buf_u32(&trial->made, trial->states[lane]);
	at = kernels->rans_decode_mixed(words, end, 4, trial->tables, trial->states, trial->classes, trial->decoded, ELEMENTS);
	return at && tpd_rans_is_end(at, end, trial->states, TPD_LANES) && memcmp(trial->decoded, trial->symbols, ELEMENTS) == 0;
}

static bool try_bytes(const struct tpd_kernels *kernels, enum tpd_dtype dtype, struct trial *trial)
{
	const unsigned width = tpd_dtype_width(dtype);
	const uint8_t *planes[4];
	size_t changes = kernels->find_changes(trial->x, trial->p, ELEMENTS, width, trial->places);

	for (size_t i = 0; i < changes; i++)
		tpd_buf_u32(&trial->made, trial->places[i]);
	kernels->planes_split(trial->x, ELEMENTS, width, true, trial->planes);
	tpd_buf_put(&trial->made, trial->planes, width * ELEMENTS);
	for (unsigned b = 0; b < width; b++)
		planes[b] = trial->planes + b * ELEMENTS;
	kernels->planes_join(planes, ELEMENTS, width, true, trial->back);
	return memcmp(trial->back, trial->x, width * ELEMENTS) == 0;
}

/* Rows and a basis from w1. */
static void try_low_rank(const struct tpd_kernels *kernels, struct trial *trial)
{
	enum { ROWS = 6, COLUMNS = 83 };
	float scales[ROWS], out[ROWS * TPD_LOW_RANK_LANES];
	float *basis = trial->basis, *sums = trial->basis + COLUMNS * TPD_LOW_RANK_LANES;
	double products[TPD_LOW_RANK_LANES * TPD_LOW_RANK_LANES];

	for (size_t i = 0; i < COLUMNS * TPD_LOW_RANK_LANES; i++) {
		basis[i] = trial->w1[i * 5 % ELEMENTS];
		sums[i] = 0;
	}
	for (size_t r = 0; r < ROWS; r++)
		scales[r] = 0.25f * (float)(1 << r);
	kernels->low_rank_square(trial->w1, COLUMNS, ROWS, scales, basis, sums);
	kernels->low_rank_project(trial->w1, COLUMNS, ROWS, basis, out);
	kernels->low_rank_products(sums, COLUMNS, products);
	kernels->low_rank_add(out, ROWS, basis, 3, COLUMNS, trial->predicted);
	tpd_buf_put(&trial->made, sums, COLUMNS * TPD_LOW_RANK_LANES * sizeof(*sums));
	tpd_buf_put(&trial->made, out, sizeof(out));
	for (size_t i = 0; i < TPD_ARRAY_LEN(products); i++)
		tpd_buf_f64(&trial->made, products[i]);
	tpd_buf_put(&trial->made, trial->predicted, COLUMNS * sizeof(float));
}

/* From weights that are finite: what NaN looks like differs between kinds of CPU. */
static void try_predict(const struct tpd_kernels *kernels, struct trial *trial)
{
	const float *const terms[4] = {trial->w1, trial->terms[0], trial->terms[1], NULL};
	const float coefficients[4] = {0.25f, -1e-3f, 3e-4f, 0};
	struct tpd_predict_from from = {.terms = 15, .w1 = trial->p};
	double sums[TPD_PRODUCTS];

	memcpy(trial->w1, trial->p, sizeof trial->w1);
	for (size_t i = 0; i < ELEMENTS; i++)
		trial->predicted[i] = i % 7 ? trial->w1[i] * trial->w1[i] : -trial->w1[i];
	kernels->predict_ratio(trial->w1, trial->predicted, ELEMENTS, trial->terms[1]);
	kernels->predict_difference(trial->w1, trial->terms[1], ELEMENTS, trial->terms[0]);
	kernels->predict_apply(trial->w1, terms, coefficients, ELEMENTS, trial->predicted);
	kernels->predict_products(terms, 3, ELEMENTS, sums);
	tpd_buf_put(&trial->made, trial->predicted, sizeof trial->predicted);
	for (size_t i = 0; i < 6; i++)
		tpd_buf_f64(&trial->made, sums[i]);
	for (unsigned i = 0; i < TPD_INPUT_COUNT; i++)
		from.of[i] = (const uint8_t *)(i % 2 ? trial->predicted : trial->terms[i / 2 % 2]);
	kernels->predict_learn(&from, 0, (const uint8_t *)trial->terms[0], TPD_MIN(ELEMENTS, TPD_LEARN_MAX), trial->learnt, sums);
	for (size_t i = 0; i < TPD_PRODUCTS; i++) /* products of large ones are infinite in single precision, and their sums may be NaN */
		tpd_buf_f64(&trial->made, sums[i] - sums[i] == 0 ? sums[i] : 0);
	kernels->predict(&from, 0, coefficients, ELEMENTS, trial->learnt);
	tpd_buf_put(&trial->made, trial->learnt, ELEMENTS * sizeof(float));
	try_low_rank(kernels, trial);
}

/* Keys of the reference by all rules; steps are about as far as some ulps. */
static void try_keys(const struct tpd_kernels *kernels, enum tpd_dtype dtype, struct trial *trial)
{
	const struct tpd_pieces pieces = {.first = 100, .row = 300, .n = ELEMENTS};
	struct tpd_class_rule rule = {.base = dtype == TPD_DTYPE_F16 ? 7 : 118, .decay = 0.98f, .noise = 1e-4f, .levels = trial->levels,
				      .steps = trial->w1, .v1 = trial->terms[0], .v2 = trial->terms[1]};

	for (size_t i = 0; i < ELEMENTS; i++) {
		trial->levels[i] = (uint8_t)(i % TPD_KEY_LEVELS);
		trial->w1[i] = (float)(int)(i % 29) * 3e-5f - 4e-4f;
		trial->terms[0][i] = (float)(i % 17) * 1e-9f;
		trial->terms[1][i] = trial->terms[0][i] * (0.97f + (float)(i % 11) * 0.01f);
	}
	for (rule.by = TPD_BY_LEVEL; rule.by <= (dtype == TPD_DTYPE_F32 ? TPD_BY_LEVEL : TPD_BY_INNOVATION); rule.by++) {
		kernels->class_keys(dtype, &rule, trial->p, &pieces, trial->keys);
		for (size_t i = 0; i < ELEMENTS; i++)
			tpd_buf_u16(&trial->made, trial->keys[i]);
	}
	if (dtype == TPD_DTYPE_F32)
		return;
	kernels->step_jump(trial->w1, trial->terms[0], trial->terms[1], ELEMENTS, trial->predicted);
	tpd_buf_put(&trial->made, trial->predicted, sizeof trial->predicted);
}

/* What an encoder asks of a piece, from the same. */
static void try_looks(const struct tpd_kernels *kernels, enum tpd_dtype dtype, const int16_t *scale, struct trial *trial)
{
	const uint8_t *v2 = (const uint8_t *)trial->terms[1];
	int32_t found[2], sums[2 * ELEMENTS] = {0};
	int16_t logs[ELEMENTS];
	double products[2];

	found[0] = (int32_t)kernels->scaled_far(dtype, trial->x, trial->p, 1, 16, ELEMENTS);
	tpd_buf_u32(&trial->made, (uint32_t)found[0]);
	found[0] = (int32_t)kernels->scaled_measure(dtype, trial->x, trial->p, 0.75f, scale, ELEMENTS, logs, &found[1]);
	kernels->scaled_columns(logs, 3, ELEMENTS, sums, sums + ELEMENTS);
	kernels->scaled_quotients(dtype, trial->p, trial->x, ELEMENTS, trial->predicted);
	kernels->scaled_learn(dtype, trial->p, trial->p, v2, ELEMENTS, products); /* of what is finite: see try_predict() */
	for (unsigned i = 0; i < 2; i++) {
		tpd_buf_u32(&trial->made, (uint32_t)found[i]);
		tpd_buf_f64(&trial->made, products[i]);
	}
	for (size_t i = 0; i < ELEMENTS; i++) {
		tpd_buf_u32(&trial->made, (uint32_t)sums[i]);
		tpd_buf_u32(&trial->made, (uint32_t)sums[ELEMENTS + i]);
	}
	tpd_buf_put(&trial->made, trial->predicted, sizeof trial->predicted);
}

/* A T for each element, some of them 0, from what try_keys() left and from columns. */
static bool try_scaled(const struct tpd_kernels *kernels, enum tpd_dtype dtype, struct trial *trial)
{
	const size_t width = tpd_dtype_width(dtype);
	uint8_t *end = trial->fields + sizeof trial->fields, *out, streams[2][ELEMENTS + TPD_SCALED_SLACK];
	struct tpd_fields_in in;
	int16_t scale[ELEMENTS];
	size_t odd;

	kernels->scaled_scale((const uint8_t *)trial->terms[1], (const uint8_t *)trial->terms[0], 0.98f, ELEMENTS, scale);
	kernels->scaled_predict(dtype, trial->p, 0.75f, ELEMENTS, trial->planes);
	odd = kernels->scaled_steps(dtype, dtype == TPD_DTYPE_F32 ? 300 : 200, scale, trial->levels, ELEMENTS, trial->decoded, trial->classes);
	for (size_t i = 0; i < ELEMENTS; i++)
		trial->decoded[i] = i % 5 ? trial->decoded[i] : 0;
	kernels->scaled_encode(dtype, trial->decoded, trial->x, trial->planes, ELEMENTS, trial->symbols, trial->values, trial->bits);
	out = kernels->fields_pack(trial->values, trial->bits, ROUNDS, end);
	for (size_t i = 0; i < ELEMENTS; i++)
		tpd_buf_u16(&trial->made, (uint16_t)scale[i]);
	tpd_buf_put(&trial->made, trial->planes, width * ELEMENTS);
	tpd_buf_put(&trial->made, trial->decoded, ELEMENTS);
	tpd_buf_put(&trial->made, trial->classes, ELEMENTS);
	tpd_buf_put(&trial->made, trial->symbols, ELEMENTS);
	tpd_buf_put(&trial->made, out, (size_t)(end - out));
	try_looks(kernels, dtype, scale, trial);
	if (kernels->scaled_sort(trial->classes, trial->symbols, ELEMENTS, streams[0], streams[1]) != odd)
		return false;
	tpd_buf_put(&trial->made, streams[0], ELEMENTS - odd);
	tpd_buf_put(&trial->made, streams[1], odd);
	memset(trial->symbols, 0, ELEMENTS);
	if (kernels->scaled_deal(trial->classes, ELEMENTS, streams[0], streams[1], trial->symbols) != odd)
		return false;
	tpd_fields_open(&in, out + 4, (size_t)(end - out) - 4);
	return kernels->scaled_decode(dtype, trial->decoded, trial->planes, trial->symbols, ELEMENTS, trial->back, &in) && tpd_fields_done(&in) &&
	       memcmp(trial->back, trial->x, ELEMENTS * width) == 0;
}

bool tpd_kernels_test(const struct tpd_kernels *kernels)
{
	struct trial *trial = calloc(1, sizeof *trial);
	bool good = trial != NULL;
	fenv_t caller;

	fegetenv(&caller);
	fesetenv(FE_DFL_ENV);
	for (size_t i = 0; good && i < TPD_ARRAY_LEN(answers); i++) {
		make_piece(answers[i].dtype, trial->x, trial->p);
		trial->made.len = 0;
		good = try_grid(kernels, answers[i].dtype, trial) && try_rans(kernels, trial) && try_mixed(kernels, trial) &&
		       try_bytes(kernels, answers[i].dtype, trial);
		if (answers[i].dtype == TPD_DTYPE_F32) {
			good = good && try_ways_of_rans(kernels, trial);
			try_predict(kernels, trial);
		}
		try_keys(kernels, answers[i].dtype, trial);
		if (answers[i].dtype != TPD_DTYPE_F16)
			good = good && try_scaled(kernels, answers[i].dtype, trial);
		good = good && !trial->made.failed && tpd_xxh64(trial->made.data, trial->made.len) == answers[i].digest;
	}
	good = good && tpd_survey_test(kernels->survey) && tpd_context_test(kernels);
	fesetenv(&caller);
	if (trial)
		tpd_buf_release(&trial->made);
	free(trial);
	return good;
}

/* --- which --- */

static void find_all(void)
{
	state.all[state.count++] = &tpd_kernels_scalar;
#if defined(__x86_64__)
	__builtin_cpu_init();
	if (!__builtin_cpu_supports("bmi2") || !__builtin_cpu_supports("popcnt")) /* what all others are built with */
		return;
	if (tpd_kernels_avx2.name && __builtin_cpu_supports("avx2")) {
		state.all[state.count++] = tpd_kernels_plain_prepare();
		tpd_kernels_avx2_prepare();
		state.all[state.count++] = &tpd_kernels_avx2;
	}
	if (tpd_kernels_avx512.name && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
	    __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vbmi") &&
	    __builtin_cpu_supports("avx512vbmi2") && __builtin_cpu_supports("avx512cd"))
		state.all[state.count++] = &tpd_kernels_avx512;
#endif
}

static bool is_form(const struct tpd_kernels *form, const char *name)
{
	return strcmp(form->name, name) == 0;
}

static const struct tpd_kernels *find_form(const struct tpd_kernels *const *good, size_t count, const char *name)
{
	for (size_t i = 0; i < count; i++)
		if (is_form(good[i], name))
			return good[i];
	return NULL;
}

/*
 * What proves the i-th of those that are good: plain what avx2 made, avx2 what any other did, else another one where there is another. `context`, if
 * it is the same in both, is plain's.
 */
static const struct tpd_kernels *proof_of(const struct tpd_kernels *const *good, size_t count, size_t i)
{
	static struct tpd_kernels mixed;
	const struct tpd_kernels *plain = find_form(good, count, "plain"), *proof = is_form(good[i], "avx2") ? plain : find_form(good, count, "avx2");

	if (!proof)
		proof = good[i > 0 ? i - 1 : count > 1 ? 1 : 0];
	if (!plain || proof->context != good[i]->context)
		return proof;
	mixed = *proof;
	mixed.context = plain->context;
	return &mixed;
}

static void choose(void)
{
	const char *asked = getenv("TPD_CPU");
	const struct tpd_kernels *good[FORMS];
	size_t count = 0;

	find_all();
	for (size_t i = 0; i < state.count; i++) {
		state.is_here |= asked && strcmp(asked, state.all[i]->name) == 0;
		if (tpd_kernels_test(state.all[i]))
			good[count++] = state.all[i];
		else
			state.broken = state.all[i];
	}
	for (size_t i = 0; i < count; i++) {
		if (asked && asked[0] ? !is_form(good[i], asked) : is_form(good[i], "plain"))
			continue; /* plain is there to prove, and is not taken unless it is asked for */
		state.use = good[i];
		state.proof = proof_of(good, count, i);
	}
	if (asked)
		snprintf(state.asked, sizeof state.asked, "%s", asked);
	for (size_t i = 0; i < FORMS; i++)
		state.is_known |= strcmp(state.asked, (const char *[]){"scalar", "plain", "avx2", "avx512"}[i]) == 0;
}

const struct tpd_kernels *const *tpd_kernels_all(size_t *out_count)
{
	pthread_once(&state.once, choose);
	*out_count = state.count;
	return state.all;
}

enum tpd_status tpd_kernels_get(const struct tpd_kernels **out_use, const struct tpd_kernels **out_proof, struct tpd_err *err)
{
	pthread_once(&state.once, choose);
	if (!state.use && !state.asked[0])
		return tpd_fail(err, TPD_UNSUPPORTED, "the codec does not give its known answers on this machine");
	if (!state.use && state.is_here)
		return tpd_fail(err, TPD_UNSUPPORTED, "TPD_CPU=%s: it does not give its known answers on this machine", state.asked);
	if (!state.use && state.is_known)
		return tpd_fail(err, TPD_UNSUPPORTED, "TPD_CPU=%s: this CPU cannot do that", state.asked);
	if (!state.use)
		return tpd_fail(err, TPD_USAGE, "TPD_CPU=%s: it may be scalar, plain, avx2 or avx512", state.asked);
	*out_use = state.use;
	*out_proof = state.proof;
	return TPD_OK;
}

enum tpd_status tpd_codec_forms(const char **out_use, const char **out_proof, const char **out_broken, struct tpd_err *err)
{
	const struct tpd_kernels *use = NULL, *proof = NULL;
	enum tpd_status status = tpd_kernels_get(&use, &proof, err);

	if (status != TPD_OK)
		return status;
	*out_use = use->name;
	*out_proof = proof->name;
	*out_broken = state.broken ? state.broken->name : NULL;
	return TPD_OK;
}
