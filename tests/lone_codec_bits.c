/*
 * lone_codec_bits.c - the same chunks through the codec of any build on any kind of CPU; tests/arches/run.sh compares what comes out.
 *
 *     lone_codec_bits make CHUNKS          the chunks, once: no build's arithmetic may decide what the others are given
 *     lone_codec_bits encode CHUNKS OUT    all that the codec decides and writes about them
 *     lone_codec_bits decode CHUNKS OUT    is every payload of OUT, whoever wrote it, the chunk again?
 *
 * The chunks are a layer of a model that Adam trains (weights, and both moments, in F32), the same fine-tuned, in BF16 and F16 as well,
 * the same with whatever a float can be strewn over it, and some of every other type. Each goes through every encoding that its type
 * allows, with every set of terms and each grid_bias, through the choice of a plan, and through the statistics. A new encoding is taken up
 * by itself; one that no chunk here is good enough for (it needs inputs of another kind, say) is a failure: give it a chunk.
 */
#include "base/tpd.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "codec/codec.h"
#include "codec/integers.h"
#include "codec/internal.h"
#include "codec/rounding.h"
#include "codec/stats.h"
#include "random_bits.h"

#define N_MAX TPD_CHUNK_ELEMENTS
#define LARGE 51200u /* more than is tried, or counted, as a whole (TPD_SAMPLE_ELEMENTS, TPD_COUNT_ALL_MAX); more only takes longer under qemu */
#define MADE_BY 10u /* updates from one checkpoint to the next */
#define FLOATS_OF_A_LINE 48u /* elements of a row that are hostile together */
#define TERM_SETS (1u << TPD_TERM_COUNT)
#define FILE_MAX (512u << 20)

static struct tpd_err err;

_Noreturn static void fail(const char *what)
{
	fprintf(stderr, "lone_codec_bits: %s%s%s\n", what, err.text[0] ? ": " : "", err.text);
	exit(1);
}

static void must(enum tpd_status status, const char *what)
{
	if (status != TPD_OK)
		fail(what);
}

/* ---- files ---- */

static uint8_t *read_whole(const char *path, size_t *out_len)
{
	FILE *file = fopen(path, "rb");
	uint8_t *data;
	long len;

	if (!file || fseek(file, 0, SEEK_END) != 0 || (len = ftell(file)) < 0 || len > (long)FILE_MAX || fseek(file, 0, SEEK_SET) != 0)
		fail(path);
	data = malloc((size_t)len + 1);
	if (!data || fread(data, 1, (size_t)len, file) != (size_t)len)
		fail(path);
	fclose(file);
	*out_len = (size_t)len;
	return data;
}

static void write_whole(const char *path, struct tpd_buf *buf)
{
	FILE *file = fopen(path, "wb");

	must(tpd_buf_status(buf, &err), "no memory");
	if (!file || fwrite(buf->data, 1, buf->len, file) != buf->len || fclose(file) != 0)
		fail(path);
	tpd_buf_release(buf);
}

/* ---- make ---- */

/* A layer while it is trained, and what its last three checkpoints hold of it. */
struct layer {
	size_t n;
	float w[N_MAX], m[N_MAX], v[N_MAX], slope[N_MAX];
	float w0[N_MAX], w1[N_MAX], x[N_MAX], m1[N_MAX], v1[N_MAX], m2[N_MAX], v2[N_MAX];
};

static struct layer layer;
static struct tpd_buf out;

/* About normal: mean 0, variance 1. */
static float normal(void)
{
	uint64_t r = next_random();

	return ((float)(r & 0xffff) + (float)(r >> 16 & 0xffff) + (float)(r >> 32 & 0xffff) + (float)(r >> 48) - 131070.0f) / 37837.0f;
}

static void update(float rate, size_t row)
{
	for (size_t i = 0; i < layer.n; i++) {
		float scale = i / row % 11 == 3 ? 0 : 1.0f / (float)(1 + i / row % 7), g = scale * (layer.slope[i] + 0.002f * normal());

		layer.m[i] = 0.9f * layer.m[i] + 0.1f * g;
		layer.v[i] = 0.99f * layer.v[i] + 0.01f * g * g;
		layer.w[i] -= rate * (layer.m[i] / (sqrtf(layer.v[i]) + 1e-8f) + 0.1f * layer.w[i]);
	}
}

static void train(size_t n, float rate, size_t row)
{
	const size_t len = n * sizeof(float);

	layer.n = n;
	for (size_t i = 0; i < n; i++) {
		layer.w[i] = 0.02f * normal();
		layer.slope[i] = 0.001f * normal();
		layer.m[i] = layer.v[i] = 0;
	}
	for (unsigned step = 0; step < 4; step++) {
		for (unsigned k = 0; k < MADE_BY; k++)
			update(rate, row);
		memcpy(layer.w0, layer.w1, len);
		memcpy(layer.w1, layer.x, len);
		memcpy(layer.m1, layer.m2, len);
		memcpy(layer.v1, layer.v2, len);
		memcpy(layer.x, layer.w, len);
		memcpy(layer.m2, layer.m, len);
		memcpy(layer.v2, layer.v, len);
	}
}

/* Any pattern, and the odd ones often. */
static float odd_float(void)
{
	static const uint32_t patterns[] = {0x00000000, 0x80000000, 0x00000001, 0x80000001, 0x007fffff, 0x00800000, 0x7f7fffff, 0xff7fffff,
					    0x7f800000, 0xff800000, 0x7fc00000, 0xffc12345, 0x7f800001, 0x3f800000, 0x33d6bf95, 0x1e3ce508};
	uint64_t r = next_random();
	uint32_t bits = r & 3 ? patterns[r >> 8 & 15] : (uint32_t)(r >> 16);
	float v;

	if ((r & 15) == 15)
		bits &= 0x807fffff; /* a denormal */
	memcpy(&v, &bits, sizeof v);
	return v;
}

/* Here and there one of an array, and whole stretches where a row is hit. */
static void strew(float *values, size_t n, unsigned seldom)
{
	for (size_t i = 0; i < n; i++) {
		size_t stretch = next_random() % (40 * (uint64_t)seldom) == 0 ? FLOATS_OF_A_LINE : (size_t)(next_random() % seldom == 0);

		for (; stretch > 0 && i < n; stretch--)
			values[i++] = odd_float();
	}
}

/* Rows go with each other to a part that is as large as what else they do. */
static void agree(size_t row, float size)
{
	static float columns[2][8192];

	for (size_t j = 0; j < row; j++)
		for (unsigned k = 0; k < 2; k++)
			columns[k][j] = size * normal();
	for (size_t i = 0; i < layer.n; i += row) {
		const float first = normal(), second = normal();

		for (size_t j = 0; j < row && i + j < layer.n; j++)
			layer.x[i + j] = layer.x[i + j] + (first * columns[0][j] + second * columns[1][j]);
	}
}

static void put_bytes(const void *data, size_t len)
{
	tpd_buf_u32(&out, (uint32_t)len);
	tpd_buf_put(&out, data, len);
}

/* w0 is of the chunk's own type; what is left of the inputs are the layer's moments. ref_len 0: no reference, no inputs. */
static void put_case(enum tpd_dtype dtype, uint32_t row, uint64_t element, const void *x, size_t len, const void *p, size_t ref_len,
		     const void *w0)
{
	const float *const moments[] = {layer.m1, layer.v1, layer.m2, layer.v2};

	tpd_buf_u8(&out, (uint8_t)dtype);
	tpd_buf_u32(&out, row);
	tpd_buf_u64(&out, element);
	put_bytes(x, len);
	put_bytes(p, ref_len);
	tpd_buf_u8(&out, ref_len > 0 && w0);
	if (ref_len == 0 || !w0)
		return;
	put_bytes(w0, ref_len);
	for (unsigned i = 1; i < TPD_INPUT_COUNT; i++)
		put_bytes(moments[(i - 1) % TPD_ARRAY_LEN(moments)], layer.n * sizeof(float));
}

/* Weights, and each moment against the one before. */
static void put_layer(uint32_t row, uint64_t element, size_t left_over)
{
	const size_t len = layer.n * sizeof(float);

	put_case(TPD_DTYPE_F32, row, element, layer.x, len - left_over, layer.w1, len, layer.w0);
	put_case(TPD_DTYPE_F32, row, element, layer.m2, len, layer.m1, len, layer.w1);
	put_case(TPD_DTYPE_F32, row, element, layer.v2, len, layer.v1, len, layer.w1);
}

static void to_halves(enum tpd_dtype dtype, const float *from, size_t n, uint8_t *to)
{
	for (size_t i = 0; i < n; i++) {
		uint32_t bits;

		memcpy(&bits, &from[i], sizeof bits);
		tpd_put_u16(to + 2 * i, dtype == TPD_DTYPE_BF16 ? tpd_round_bf16(bits) : tpd_round_f16(bits));
	}
}

static void put_halves(uint32_t row, uint64_t element, size_t left_over)
{
	static uint8_t halves[3][2 * N_MAX];
	static const enum tpd_dtype types[] = {TPD_DTYPE_BF16, TPD_DTYPE_F16};
	const float *const from[3] = {layer.x, layer.w1, layer.w0};

	for (unsigned t = 0; t < TPD_ARRAY_LEN(types); t++) {
		for (unsigned k = 0; k < 3; k++)
			to_halves(types[t], from[k], layer.n, halves[k]);
		put_case(types[t], row, element, halves[0], 2 * layer.n - left_over, halves[1], 2 * layer.n, halves[2]);
	}
}

/* F64 that end in zeros, since they were F32. */
static void put_wide(uint32_t row, uint64_t element)
{
	static double x[N_MAX], p[N_MAX];

	for (size_t i = 0; i < layer.n; i++) {
		x[i] = (double)layer.x[i];
		p[i] = (double)layer.w1[i];
	}
	put_case(TPD_DTYPE_F64, row, element, x, 8 * layer.n - 3, p, 8 * layer.n, NULL);
}

/* Numbers that are no floats, or floats of a type that the grid has not got: some of them have changed by a little. */
static void put_other_types(void)
{
	static uint8_t x[8 * 20000], p[8 * 20000];

	for (unsigned type = 0; type < TPD_DTYPE_COUNT; type++) {
		const enum tpd_dtype dtype = (enum tpd_dtype)type;
		const size_t width = tpd_dtype_width(dtype), n = width == 1 ? 20000 : 9000;

		if (tpd_dtype_exponent_bits(dtype) > 0)
			continue;
		for (size_t i = 0; i < n; i++) {
			double value = 40.0 * (double)normal();
			int64_t whole = (int64_t)value, later = whole + (next_random() % 5 == 0 ? (int64_t)(next_random() % 7) - 3 : 0);

			if (dtype == TPD_DTYPE_F64) {
				memcpy(&whole, &value, sizeof whole);
				value *= 1 + 1e-5 * (double)normal();
				memcpy(&later, &value, sizeof later);
			}
			for (size_t b = 0; b < width; b++) {
				p[i * width + b] = (uint8_t)((uint64_t)whole >> 8 * b);
				x[i * width + b] = (uint8_t)((uint64_t)later >> 8 * b);
			}
		}
		put_case(dtype, 1000, 500, x, n * width, p, n * width, NULL);
		put_case(dtype, 1000, 0, x, n * width - (width > 1), p, n * width / 2, NULL);
	}
}

static void make(const char *path)
{
	static float noise[9000];
	static const char text[] = "{\"step\": %u, \"loss\": %u.%u, \"learning_rate\": 0.000%u, \"epoch\": %u},\n";
	struct tpd_buf log = {0}, moved = {0};

	train(LARGE, 5e-4f, 640);
	put_layer(640, 0, 0);
	train(30011, 2e-5f, 1024);
	put_layer(1024, 131072 * 3 + 777, 3);
	put_halves(1024, 131072 * 3 + 777, 1);
	put_case(TPD_DTYPE_F32, 1024, 0, layer.x, 4 * layer.n, NULL, 0, NULL);             /* the first of its run */
	put_case(TPD_DTYPE_F32, 1024, 0, layer.x, 4 * layer.n, layer.x, 4 * layer.n, NULL); /* unchanged */
	put_case(TPD_DTYPE_F32, 8192, 0, layer.x, 4 * layer.n, layer.w1, 2 * layer.n, layer.w0);
	train(30000, 2e-5f, 192);
	agree(192, 1e-4f);
	put_layer(192, 191, 1);
	train(20000, 2e-4f, 80);
	put_halves(80, 0, 0);
	put_wide(80, 17);
	strew(layer.x, layer.n, 150);
	strew(layer.w1, layer.n, 400);
	strew(layer.w0, layer.n, 400);
	strew(layer.m1, layer.n, 400);
	strew(layer.m2, layer.n, 400);
	strew(layer.v1, layer.n, 400);
	strew(layer.v2, layer.n, 400);
	put_layer(80, 40, 0);
	put_halves(80, 40, 0);
	train(9000, 1e-3f, 64);
	for (float *const *a = (float *const[]){layer.x, layer.w1, layer.w0, layer.m1, layer.m2, layer.v1, layer.v2, NULL}; *a; a++)
		strew(*a, layer.n, 2);
	put_layer(64, 0, 0);
	put_halves(64, 0, 0);
	put_wide(64, 0);
	for (size_t i = 0; i < TPD_ARRAY_LEN(noise); i++) {
		uint32_t bits = (uint32_t)(next_random() >> 20);

		memcpy(&noise[i], &bits, sizeof bits);
	}
	put_case(TPD_DTYPE_F32, 64, 0, noise, sizeof noise, layer.w1, 4 * layer.n, layer.w0);
	put_case(TPD_DTYPE_F32, 1, 0, layer.x, 4, layer.w1, 4, layer.w0); /* one element */
	put_case(TPD_DTYPE_BF16, 64, 0, layer.x, 3, layer.w1, 3, NULL);
	put_other_types();
	for (unsigned i = 0; i < 800; i++)
		tpd_buf_printf(&log, text, i, (unsigned)(next_random() % 10), (unsigned)(next_random() % 100000), (unsigned)(next_random() % 1000), i / 9);
	tpd_buf_put(&moved, "moved by these bytes", 20);
	tpd_buf_put(&moved, log.data, log.len);
	put_case(TPD_DTYPE_BYTES, 1024, 0, moved.data, moved.len, log.data, log.len, NULL);
	put_case(TPD_DTYPE_BYTES, 1024, 0, log.data, log.len, NULL, 0, NULL);
	tpd_buf_release(&log);
	tpd_buf_release(&moved);
	write_whole(path, &out);
}

/* ---- reading the chunks ---- */

struct test_case {
	enum tpd_dtype dtype;
	uint32_t row;
	struct tpd_chunk chunk;
	struct tpd_inputs inputs;
};

static struct tpd_bytes get_bytes(struct tpd_rd *rd)
{
	uint32_t len = tpd_rd_u32(rd);

	return (struct tpd_bytes){.data = tpd_rd_bytes(rd, len), .len = len};
}

/* false: there are no more. What it points to is the file's. */
static bool next_case(struct tpd_rd *rd, struct test_case *test)
{
	struct tpd_bytes x, p;

	if (tpd_rd_left(rd) == 0)
		return false;
	memset(test, 0, sizeof *test);
	test->dtype = (enum tpd_dtype)tpd_rd_u8(rd);
	test->row = tpd_rd_u32(rd);
	test->chunk.element = tpd_rd_u64(rd);
	x = get_bytes(rd);
	p = get_bytes(rd);
	test->chunk.x = x.data;
	test->chunk.len = x.len;
	test->chunk.p = p.len > 0 ? p.data : NULL;
	test->chunk.ref_len = p.len;
	if (tpd_rd_u8(rd)) {
		for (unsigned i = 0; i < TPD_INPUT_COUNT; i++)
			test->inputs.of[i] = get_bytes(rd);
		test->chunk.inputs = &test->inputs;
	}
	if (!tpd_rd_ok(rd))
		fail("the file of chunks is cut off");
	return true;
}

/* ---- encode ---- */

/*
 * OUT: records of u8 kind, u32 number of the chunk, then for a payload u8 encoding; u32 length, so many bytes. Notes are there to be compared:
 * what was asked for, what was chosen, what was counted.
 */
enum { RECORD_PAYLOAD = 1, RECORD_NOTE = 2 };

static struct {
	struct tpd_codec *codec;
	uint8_t payload[TPD_CHUNK_MAX_BYTES];
	uint64_t made[TPD_ENCODING_COUNT], chosen[TPD_ENCODING_COUNT], payloads, bytes;
} run;

static struct tpd_buf note;

static void put_note(uint32_t number)
{
	must(tpd_buf_status(&note, &err), "no memory");
	tpd_buf_u8(&out, RECORD_NOTE);
	tpd_buf_u32(&out, number);
	put_bytes(note.data, note.len);
	note.len = 0;
}

/* What became of it stands in the note; the payload follows where it is new: nothing else was taken instead, or that was the choice. */
static void encode_as(uint32_t number, const struct test_case *test, const struct tpd_plan *plan, bool is_choice)
{
	enum tpd_encoding encoding = TPD_ENCODING_RAW;
	size_t len = 0;

	must(tpd_encode_chunk(run.codec, plan, &test->chunk, run.payload, &encoding, &len, &err), "encoding failed");
	if (tpd_codec_mismatches(run.codec) > 0) {
		snprintf(err.text, sizeof err.text, "chunk %u, %s as %s, terms %u", number, tpd_dtype_name(test->dtype),
			 tpd_encoding_name(plan->encoding), plan->terms);
		fail("a payload did not decode to its chunk");
	}
	run.made[encoding]++;
	run.chosen[encoding] += is_choice;
	tpd_buf_u8(&note, (uint8_t)plan->encoding);
	tpd_buf_u8(&note, plan->grid_bias);
	tpd_buf_u8(&note, plan->terms);
	tpd_buf_u8(&note, plan->form);
	tpd_buf_u8(&note, (uint8_t)encoding);
	tpd_buf_u64(&note, len);
	put_note(number);
	if (encoding != plan->encoding && !is_choice)
		return;
	run.payloads++;
	run.bytes += len;
	tpd_buf_u8(&out, RECORD_PAYLOAD);
	tpd_buf_u32(&out, number);
	tpd_buf_u8(&out, (uint8_t)encoding);
	put_bytes(run.payload, len);
}

/*
 * Terms and grid_bias are tried for the encodings that are known to look at them, and for those that came later. One that cannot do with what
 * it gets becomes another by itself.
 */
static void encode_all(uint32_t number, const struct test_case *test)
{
	for (unsigned encoding = 0; encoding < TPD_ENCODING_COUNT; encoding++) {
		const bool has_bias = encoding >= TPD_ENCODING_GRID, has_terms = encoding >= TPD_ENCODING_PREDICTED && test->chunk.inputs;
		const bool has_forms = encoding == TPD_ENCODING_INTEGERS || encoding == TPD_ENCODING_INTEGERS_REF;
		struct tpd_plan plan = {.encoding = (enum tpd_encoding)encoding, .dtype = test->dtype, .row = test->row};

		if (!tpd_encoding_allows(plan.encoding, plan.dtype))
			continue;
		for (unsigned bias = 2; bias <= (has_bias ? 3u : 2u); bias++)
			for (unsigned terms = encoding == TPD_ENCODING_PREDICTED; terms < (has_terms ? TERM_SETS : 1u); terms++) {
				if (has_terms && terms + 1 < TERM_SETS && bias == 3)
					continue;
				plan.grid_bias = (uint8_t)bias;
				plan.nibbles = bias == 3; /* `rows` looks at this instead */
				plan.terms = (uint8_t)terms;
				plan.low_rank = encoding == TPD_ENCODING_PREDICTED && terms % 2;
				for (unsigned form = 0; form < (has_forms ? TPD_INTEGERS_FORMS : 1u); form++) {
					plan.form = (uint8_t)form;
					encode_as(number, test, &plan, false);
				}
			}
	}
}

/* The choice of a plan: from all of the chunk where it is small, from the stretches of codec.h where it is not. */
static void choose(uint32_t number, const struct test_case *test)
{
	static uint8_t parts[2 + TPD_INPUT_COUNT][TPD_CHUNK_MAX_BYTES], sets[TERM_SETS];
	const size_t width = tpd_dtype_width(test->dtype), elements = test->chunk.len / width;
	const bool is_whole = elements <= TPD_SAMPLE_ELEMENTS;
	const size_t stretch = is_whole ? elements : TPD_SAMPLE_STRETCH_ELEMENTS, stretches = is_whole ? 1 : TPD_SAMPLE_STRETCHES;
	struct tpd_inputs inputs = {0};
	struct tpd_sample sample = {.x = parts[0], .p = test->chunk.p ? parts[1] : NULL, .len = stretch * stretches * width, .stretch = stretch * width};
	struct tpd_plan plan;
	enum tpd_dtype guess = test->dtype;
	uint64_t bytes, alone;

	if (elements == 0)
		return;
	for (unsigned k = 0; k < 2 + TPD_INPUT_COUNT; k++) {
		/* An input but w0 is F32 whatever the chunk is. */
		const size_t each = k < 3 ? width : sizeof(float);
		const struct tpd_bytes from = k == 0   ? (struct tpd_bytes){test->chunk.x, test->chunk.len}
					      : k == 1 ? (struct tpd_bytes){test->chunk.p, test->chunk.ref_len}
						       : test->inputs.of[k - 2];

		memset(parts[k], 0, stretch * stretches * each);
		for (size_t s = 0; from.data && s < stretches; s++) {
			size_t at = (is_whole ? 0 : s * (elements - stretch) / (stretches - 1)) * each;

			if (at < from.len)
				memcpy(parts[k] + s * stretch * each, from.data + at, TPD_MIN(stretch * each, from.len - at));
		}
		if (k >= 2 && from.data)
			inputs.of[k - 2] = (struct tpd_bytes){parts[k], stretch * stretches * each};
	}
	sample.context_part = number % 2 ? TPD_CONTEXT_PART_MAX : 0;
	if (test->chunk.inputs) {
		for (unsigned terms = 1; terms < TERM_SETS; terms++)
			sets[sample.term_set_count++] = (uint8_t)terms;
		sample.inputs = &inputs;
		sample.term_sets = sets;
	}
	must(tpd_plan_choose(run.codec, test->dtype, test->row, &sample, &plan, &bytes, &alone, &err), "no plan");
	if (width == sizeof(uint32_t))
		must(tpd_plan_guess_dtype(run.codec, &sample, &guess, &err), "no type");
	tpd_buf_u8(&note, (uint8_t)plan.encoding);
	tpd_buf_u8(&note, plan.grid_bias);
	tpd_buf_u8(&note, plan.terms);
	tpd_buf_u8(&note, plan.form);
	tpd_buf_u32(&note, plan.row);
	tpd_buf_u64(&note, bytes);
	tpd_buf_u64(&note, alone);
	tpd_buf_u8(&note, (uint8_t)guess);
	put_note(number);
	plan.row = test->row; /* that of the sample may be shorter */
	encode_as(number, test, &plan, true);
}

static void note_stats(const struct tpd_sparsity *stats)
{
	const double reals[] = {stats->value_min,      stats->value_max,     stats->value_rms,  stats->delta_min, stats->delta_max,
				stats->delta_rms, stats->gap_elias_bits, stats->gap_rice_bits, stats->gap_entropy};
	const uint64_t counts[] = {stats->count, stats->nan, stats->inf, stats->pairs, stats->zeros, stats->percentile_stride, stats->gap_count};

	for (size_t i = 0; i < TPD_ARRAY_LEN(counts); i++)
		tpd_buf_u64(&note, counts[i]);
	for (size_t i = 0; i < TPD_SPARSITY_REAL; i++) {
		tpd_buf_u64(&note, stats->raw[i]);
		tpd_buf_u64(&note, stats->minmax[i]);
	}
	for (size_t i = 0; i < TPD_SPARSITY_ULPS; i++)
		tpd_buf_u64(&note, stats->ulps[i]);
	for (size_t i = 0; i < TPD_ARRAY_LEN(reals); i++)
		tpd_buf_f64(&note, reals[i]);
	for (size_t i = 0; i < TPD_SPARSITY_PCTS; i++)
		tpd_buf_f64(&note, stats->percentile[i]);
}

static void count(uint32_t number, const struct test_case *test)
{
	static double sample[N_MAX + TPD_STATS_SLACK];
	static uint8_t kept[N_MAX / 8 + 1];
	const size_t n = test->chunk.len / tpd_dtype_width(test->dtype);
	const uint8_t *w1 = test->chunk.ref_len >= test->chunk.len ? test->chunk.p : NULL;
	struct tpd_survey survey;
	struct tpd_count counted;
	struct tpd_sparsity sparsity = {0};
	struct tpd_stats *stats;
	size_t samples = 0;

	if (!tpd_dtype_has_stats(test->dtype) || n == 0)
		return;
	must(tpd_stats_new(test->dtype, n, w1 != NULL, &stats, &err), "no statistics");
	tpd_survey_chunk(stats, test->chunk.x, w1, n, 0, &survey, sample, &samples);
	must(tpd_stats_add_survey(stats, &survey, sample, samples, &err), "no statistics");
	tpd_stats_end_survey(stats);
	if (w1) {
		tpd_count_chunk(stats, test->chunk.x, w1, n, &counted, kept);
		must(tpd_stats_add_count(stats, &counted, kept, n, &err), "no statistics");
	}
	tpd_stats_finish(stats, &sparsity);
	tpd_stats_free(stats);
	note_stats(&sparsity);
	put_note(number);
}

static void encode(struct tpd_rd *rd, const char *path)
{
	struct test_case test;
	uint32_t number = 0, missing = 0;

	for (; next_case(rd, &test); number++) {
		encode_all(number, &test);
		choose(number, &test);
		count(number, &test);
	}
	write_whole(path, &out);
	printf("%u chunks, %" PRIu64 " payloads, %" PRIu64 " bytes", number, run.payloads, run.bytes);
	for (unsigned i = 0; i < TPD_ENCODING_COUNT; i++)
		if (tpd_encoding_is_known((enum tpd_encoding)i))
			printf(", %s %" PRIu64 " (%" PRIu64 " chosen)", tpd_encoding_name((enum tpd_encoding)i), run.made[i], run.chosen[i]);
	printf("\n");
	for (unsigned i = 0; i < TPD_ENCODING_COUNT; i++) {
		if (run.made[i] > 0 || !tpd_encoding_is_known((enum tpd_encoding)i))
			continue;
		fprintf(stderr, "lone_codec_bits: no chunk became '%s': give it one\n", tpd_encoding_name((enum tpd_encoding)i));
		missing++;
	}
	if (missing > 0)
		exit(1);
}

/* ---- decode ---- */

static void decode(struct tpd_rd *rd, const char *path)
{
	static uint8_t back[TPD_CHUNK_MAX_BYTES];
	size_t len;
	uint8_t *made = read_whole(path, &len);
	struct tpd_rd records = tpd_rd_make(made, len);
	struct test_case test = {0};
	uint32_t number = 0, at;
	bool is_open = next_case(rd, &test);

	while (tpd_rd_left(&records) > 0) {
		unsigned kind = tpd_rd_u8(&records), encoding;
		struct tpd_bytes payload;

		at = tpd_rd_u32(&records);
		encoding = kind == RECORD_PAYLOAD ? tpd_rd_u8(&records) : 0;
		payload = get_bytes(&records);
		for (; number < at && is_open; number++)
			is_open = next_case(rd, &test);
		if (!tpd_rd_ok(&records) || !is_open || number != at)
			fail("the file of payloads is not of these chunks");
		if (kind != RECORD_PAYLOAD)
			continue;
		must(tpd_decode_chunk_with(run.codec, (enum tpd_encoding)encoding, test.dtype, payload.data, payload.len,
					   &(struct tpd_references){test.chunk.p, test.chunk.ref_len, test.chunk.inputs}, back, test.chunk.len, &err),
		     "decoding failed");
		if (memcmp(back, test.chunk.x, test.chunk.len) != 0) {
			snprintf(err.text, sizeof err.text, "chunk %u, %s as %s", number, tpd_dtype_name(test.dtype),
				 tpd_encoding_name((enum tpd_encoding)encoding));
			fail("a payload is not its chunk");
		}
		run.payloads++;
	}
	if (run.payloads == 0)
		fail("no payload in it");
	free(made);
}

int main(int argc, char **argv)
{
	const bool encodes = argc == 4 && strcmp(argv[1], "encode") == 0, decodes = argc == 4 && strcmp(argv[1], "decode") == 0;
	struct tpd_rd rd;
	uint8_t *chunks;
	size_t len;

	if (argc == 3 && strcmp(argv[1], "make") == 0) {
		make(argv[2]);
		return 0;
	}
	if (!encodes && !decodes) {
		fputs("usage: lone_codec_bits make CHUNKS | encode CHUNKS OUT | decode CHUNKS OUT\n", stderr);
		return 2;
	}
	chunks = read_whole(argv[2], &len);
	rd = tpd_rd_make(chunks, len);
	must(tpd_codec_new(&run.codec, &err), "no codec");
	if (encodes)
		encode(&rd, argv[3]);
	else
		decode(&rd, argv[3]);
	tpd_codec_free(run.codec);
	free(chunks);
	return 0;
}
