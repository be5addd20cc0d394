/*
 * t_classes.c - the encoding `classes`: a payload made by hand, each of its fields changed, and how close to the entropy it comes.
 */
#include "base/tpd.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "codec/classes.h"
#include "codec/internal.h"
#include "files.h"

static struct tpd_codec *codec;

static void set_up(void)
{
	ck_assert_int_eq(tpd_codec_new(&codec, NULL), TPD_OK);
}

static void tear_down(void)
{
	tpd_codec_free(codec);
}

/* Encoding `classes` of one row with T = 1, as SPEC.md section 9 has it; what is counted is written as it stands here. */
struct parts {
	unsigned by, level, base, count, bounds[4], k;
	unsigned tables, form[4]; /* of each table: its bytes stand below */
	uint8_t bytes[4][8];
	unsigned len[4];
	uint32_t words, states[4];
	unsigned word_count, field_words;
	uint32_t field[4];
	unsigned field_count, left, left_len;
};

static void build(struct tpd_buf *buf, const struct parts *parts)
{
	tpd_buf_u16(buf, 8192); /* row, first, T */
	tpd_buf_u16(buf, 8192);
	tpd_buf_u8(buf, TPD_CODER_RAW);
	tpd_buf_u8(buf, 1);
	tpd_buf_u8(buf, (uint8_t)parts->by);
	tpd_buf_u8(buf, TPD_CODER_RAW);
	tpd_buf_u8(buf, (uint8_t)parts->level);
	tpd_buf_u8(buf, (uint8_t)parts->base);
	tpd_buf_u8(buf, (uint8_t)parts->count);
	for (unsigned j = 0; j + 1 < parts->count && j < 4; j++)
		tpd_buf_varint(buf, parts->bounds[j]);
	tpd_buf_u8(buf, (uint8_t)parts->k);
	for (unsigned j = 0; j < parts->tables; j++) {
		tpd_buf_u8(buf, (uint8_t)parts->form[j]);
		tpd_buf_put(buf, parts->bytes[j], parts->len[j]);
	}
	tpd_buf_u32(buf, parts->words);
	for (unsigned lane = 0; lane < 1u << parts->k && lane < 4; lane++)
		tpd_buf_u32(buf, parts->states[lane]);
	for (unsigned i = 0; i < parts->word_count; i++)
		tpd_buf_u16(buf, 0);
	tpd_buf_u32(buf, parts->field_words);
	for (unsigned i = 0; i < parts->field_count; i++)
		tpd_buf_u32(buf, parts->field[i]);
	for (unsigned i = 0; i < parts->left_len; i++)
		tpd_buf_u8(buf, (uint8_t)(parts->left + i));
}

/* BF16: 1.0, 2^-20, 1.0, 2^-20, 2^-10: exponent fields 127, 107, 127, 107 and 117 */
static const uint16_t ref[5] = {0x3f80, 0x3580, 0x3f80, 0x3580, 0x3a80};

/*
 * With the base 107 and the level 4 the keys are 139, 4, 139, 4 and 94, and bounds at 50 and 120 make three classes: the small two become
 * 0; one escapes to 0xbeef; of the large ones the second is an ulp more. Their table is mirrored: "equal" has twice the weight of -1 and
 * 1, so that the frequencies are 1024, 2048 and 1024.
 */
static struct parts honest(void)
{
	struct parts parts = {.level = 4, .base = 107, .count = 3, .bounds = {50, 70}, .tables = 3, .form = {255, 255, 1},
			      .bytes = {{2}, {0}, {0, 5, 0, 0, 1}}, .len = {1, 1, 5}, .field_words = 1, .field = {0xbeef}, .field_count = 1,
			      .left = 0x77, .left_len = 1};
	uint32_t x = 1u << 15;

	x = (x / 1024 << 12) + x % 1024 + 3072; /* 130, which is decoded last, of frequency 1024 behind 1 and 128 */
	x = (x / 2048 << 12) + x % 2048;        /* and 1 before it */
	parts.states[0] = x;
	return parts;
}

/* The same frequencies by a curve: no more than one magnitude, and "equal" as often as all others. */
static struct parts curved(unsigned scale)
{
	struct parts parts = honest();

	parts.form[2] = 128 + scale;
	parts.len[2] = 3;
	memcpy(parts.bytes[2], (uint8_t[]){scale % 4, 17, 1}, 3);
	return parts;
}

static enum tpd_status decode(const struct parts *parts, uint8_t out[11])
{
	struct tpd_buf buf = {0};
	uint8_t p[11] = {0}, *exact;
	enum tpd_status status;

	for (unsigned i = 0; i < 5; i++)
		tpd_put_u16(p + 2 * i, ref[i]);
	build(&buf, parts);
	exact = malloc(buf.len);
	memcpy(exact, buf.data, buf.len);
	status = tpd_decode_chunk(codec, TPD_ENCODING_CLASSES, TPD_DTYPE_BF16, exact, buf.len, p, sizeof(p), out, 11, NULL);
	free(exact);
	tpd_buf_release(&buf);
	return status;
}

#define REFUSED(change, verdict)                              \
	do {                                                  \
		struct parts parts = honest();                \
		parts.change;                                 \
		ck_assert_int_eq(decode(&parts, out), verdict); \
	} while (0)

START_TEST(fields)
{
	static const uint16_t expect[5] = {0x3f80, 0, 0x3f81, 0, 0xbeef};
	struct parts good = honest();
	uint8_t out[11];

	ck_assert_int_eq(decode(&good, out), TPD_OK);
	for (unsigned i = 0; i < 5; i++)
		ck_assert_uint_eq(tpd_get_u16(out + 2 * i), expect[i]);
	ck_assert_uint_eq(out[10], 0x77);
	REFUSED(by = 1, TPD_CORRUPT); /* that is for `stepped` */
	REFUSED(by = 2, TPD_CORRUPT);
	REFUSED(by = 3, TPD_UNSUPPORTED);
	REFUSED(level = 9, TPD_CORRUPT);
	REFUSED(level = 0, TPD_OK); /* keys are 4 more */
	REFUSED(level = 8, TPD_OK); /* 4 less */
	REFUSED(base = 111, TPD_OK); /* the one in the middle has the key 58, ... */
	REFUSED(base = 112, TPD_CORRUPT); /* ... and 49 */
	REFUSED(count = 0, TPD_CORRUPT);
	REFUSED(count = 65, TPD_CORRUPT);
	REFUSED(bounds[0] = 0, TPD_CORRUPT);
	REFUSED(bounds[1] = 0, TPD_CORRUPT);
	REFUSED(bounds[1] = 89, TPD_OK); /* keys below 139 */
	REFUSED(bounds[1] = 90, TPD_CORRUPT);
	REFUSED(bounds[1] = 6912 - 50, TPD_CORRUPT);
	REFUSED(bounds[1] = 1u << 31, TPD_CORRUPT);
	REFUSED(bounds[0] = 3, TPD_CORRUPT); /* all five are of two classes, and more escapes */
	REFUSED(k = 7, TPD_CORRUPT);
	REFUSED(k = 1, TPD_CORRUPT); /* a second state, which is 0 */
	REFUSED(tables = 2, TPD_CORRUPT);
	REFUSED(form[2] = 127, TPD_CORRUPT);
	REFUSED(form[2] = 192, TPD_CORRUPT); /* other frequencies */
	REFUSED(form[2] = 253, TPD_CORRUPT);
	REFUSED(form[0] = 254, TPD_CORRUPT);
	REFUSED(bytes[2][1] = 0, TPD_CORRUPT); /* other frequencies */
	REFUSED(bytes[2][1] = 65, TPD_CORRUPT);
	REFUSED(bytes[2][4] = 0, TPD_CORRUPT);
	REFUSED(bytes[2][4] = 65, TPD_CORRUPT);
	REFUSED(len[2] = 4, TPD_CORRUPT);
	REFUSED(words = 1, TPD_CORRUPT);
	REFUSED(states[0] = 0x7fff, TPD_CORRUPT);
	REFUSED(states[0] |= 0x80000000u, TPD_CORRUPT);
	REFUSED(states[0] += 1, TPD_CORRUPT); /* it ends elsewhere */
	REFUSED(word_count = 1, TPD_CORRUPT);
	REFUSED(field_words = 0, TPD_CORRUPT);
	REFUSED(field_count = 0, TPD_CORRUPT);
	REFUSED(field[0] = 0x1beef, TPD_CORRUPT); /* a bit that nobody takes */
	REFUSED(left_len = 0, TPD_CORRUPT);
	REFUSED(left_len = 2, TPD_CORRUPT);
	{ /* a word that is not there for the last symbol */
		struct parts parts = honest();

		parts.states[0] = 1u << 15;
		ck_assert_int_eq(decode(&parts, out), TPD_CORRUPT);
	}
}
END_TEST

#undef REFUSED
#define REFUSED(change, verdict)                              \
	do {                                                  \
		struct parts parts = curved(7);               \
		parts.change;                                 \
		ck_assert_int_eq(decode(&parts, out), verdict); \
	} while (0)

START_TEST(curves)
{
	uint8_t out[11];

	for (unsigned scale = 0; scale < 64; scale++) {
		struct parts good = curved(scale);

		ck_assert_int_eq(decode(&good, out), TPD_OK);
		ck_assert_uint_eq(tpd_get_u16(out + 4), 0x3f81);
	}
	REFUSED(bytes[2][0] |= 1 << 2, TPD_CORRUPT); /* a side that is rarer: other frequencies */
	REFUSED(bytes[2][1] |= 128, TPD_OK); /* which side does not matter where both are alike */
	REFUSED(bytes[2][1] = 128 + 65, TPD_CORRUPT);
	REFUSED(bytes[2][0] |= 1 << 5, TPD_CORRUPT); /* and with 129, 0, 2 */
	REFUSED(bytes[2][0] |= 1 << 6, TPD_CORRUPT);
	REFUSED(bytes[2][0] |= 1 << 7, TPD_CORRUPT);
	REFUSED(bytes[2][1] = 18, TPD_CORRUPT);
	REFUSED(bytes[2][1] = 65, TPD_CORRUPT);
	REFUSED(bytes[2][2] = 2, TPD_CORRUPT);
	REFUSED(bytes[2][2] = 127, TPD_CORRUPT);
	REFUSED(bytes[2][2] = 0, TPD_CORRUPT); /* one symbol is no table */
	REFUSED(len[2] = 2, TPD_CORRUPT);
	/* With a centre: none, too far, other frequencies, and so far away that both sides are alike. */
	for (unsigned i = 0; i < 6; i++) {
		static const uint8_t centres[] = {0, 127, 128, 129, 1, 126};
		struct parts parts = curved(7);

		parts.len[2] = 4;
		parts.bytes[2][2] = 128 + 1;
		parts.bytes[2][3] = centres[i];
		ck_assert_int_eq(decode(&parts, out), i < 5 ? TPD_CORRUPT : TPD_OK);
	}
	REFUSED(bytes[2][2] = 128 + 127, TPD_CORRUPT);
}
END_TEST

/* A short curve, whose "equal" has the level 16: its symbols as in honest(), with the frequencies that it has. */
static struct parts shortened(unsigned scale, unsigned shape, int centre)
{
	struct tpd_class_curve curve = {.scale = (uint8_t)scale, .shape = (uint8_t)shape, .centre = (int8_t)centre, .equal = 16};
	struct parts parts = honest();
	const unsigned pushed[] = {130, 1};
	uint32_t x = 1u << 15;
	uint16_t freq[256];

	tpd_class_curve_short(&curve);
	ck_assert(tpd_class_curve_frequencies(&curve, freq));
	for (unsigned i = 0; i < 2; i++) {
		uint32_t cum = 0, f = freq[pushed[i]];

		for (unsigned s = 0; s < pushed[i]; s++)
			cum += freq[s];
		ck_assert_uint_gt(f, 0);
		x = (x / f << 12) + x % f + cum;
	}
	parts.states[0] = x;
	parts.form[2] = 192 + scale;
	parts.len[2] = centre ? 2 : 1;
	parts.bytes[2][0] = (uint8_t)(shape | 7 << 2 | (centre ? 128 : 0));
	parts.bytes[2][1] = (uint8_t)centre;
	return parts;
}

#undef REFUSED
#define REFUSED(change, verdict)                              \
	do {                                                  \
		struct parts parts = shortened(7, 1, 1);      \
		parts.change;                                 \
		ck_assert_int_eq(decode(&parts, out), verdict); \
	} while (0)

START_TEST(short_curves)
{
	static const struct {
		uint8_t scale, shape;
		int8_t centre;
		uint8_t count;
	} ends[] = {{0, 3, 0, 2}, {0, 3, -3, 5}, {20, 3, 0, 28}, {20, 3, 100, 126}, {61, 3, 0, 126}, {61, 3, 126, 126}};
	uint8_t out[11];

	for (size_t i = 0; i < TPD_ARRAY_LEN(ends); i++) { /* 1200/65536, of 2^20, is above 2^10, its square is not; 0.7788^27.7 is 2^-10 */
		struct tpd_class_curve curve = {.scale = ends[i].scale, .shape = ends[i].shape & 3, .centre = ends[i].centre, .skew = 5,
						.is_down = true, .has_escape = true, .has_zero = true, .equal = 30};

		tpd_class_curve_short(&curve);
		ck_assert_uint_eq(curve.count, ends[i].count);
		ck_assert(curve.skew == 0 && curve.has_middle && !curve.is_down && !curve.has_escape && !curve.has_zero);
		ck_assert_uint_eq(curve.equal, 30);
	}
	for (unsigned scale = 0; scale < 62; scale++)
		for (unsigned shape = 0; shape < 4; shape++)
			for (int centre = -2; centre <= 2; centre++) {
				struct parts good = shortened(scale, shape, centre);

				ck_assert_int_eq(decode(&good, out), TPD_OK);
				ck_assert_uint_eq(tpd_get_u16(out + 4), 0x3f81);
			}
	REFUSED(form[2] = 254, TPD_CORRUPT);
	REFUSED(form[2] = 192 + 8, TPD_CORRUPT); /* other frequencies */
	REFUSED(bytes[2][0] ^= 1, TPD_CORRUPT);
	REFUSED(bytes[2][0] ^= 4, TPD_CORRUPT);
	REFUSED(bytes[2][0] &= 3, TPD_CORRUPT);  /* "equal" does not occur, and there is no centre */
	REFUSED(bytes[2][1] = 0, TPD_CORRUPT);   /* no centre */
	REFUSED(bytes[2][1] = 127, TPD_CORRUPT); /* too far */
	REFUSED(bytes[2][1] = 128, TPD_CORRUPT);
	REFUSED(bytes[2][1] = 129, TPD_CORRUPT);
	REFUSED(len[2] = 1, TPD_CORRUPT);
	REFUSED(len[2] = 3, TPD_CORRUPT);
}
END_TEST

/* What the text of the format says of some curves. */
START_TEST(weights)
{
	uint32_t g[TPD_CURVE_DISTANCES];
	struct tpd_class_curve curve = {.scale = 20, .shape = 3, .equal = 64, .count = 126,
					.has_middle = true, .has_escape = true, .has_zero = true};
	uint16_t freq[256];
	unsigned sum = 0;

	tpd_class_curve_weights(20, 3, 126, g); /* R(20) = 51039: a tent */
	ck_assert_uint_eq(g[0], 1u << 20);
	ck_assert_uint_eq(g[1], 51039u << 4);
	ck_assert_uint_eq(g[2], (uint32_t)((uint64_t)(51039u << 4) * 51039 >> 16));
	tpd_class_curve_weights(20, 0, 126, g); /* b = R(15) = 39750: a bell */
	ck_assert_uint_eq(g[1], 51039u << 4);
	ck_assert_uint_eq(g[2], (uint32_t)((uint64_t)(51039u << 4) * ((uint64_t)51039 * 39750 >> 16) >> 16));
	ck_assert_uint_eq(g[126], 1);
	ck_assert(tpd_class_curve_frequencies(&curve, freq));
	for (unsigned s = 0; s < 256; s++) {
		ck_assert_uint_gt(freq[s], 0);
		sum += freq[s];
	}
	ck_assert_uint_eq(sum, 4096);
	ck_assert_uint_eq(freq[TPD_SYMBOL_ESCAPE], 1);
	curve = (struct tpd_class_curve){.scale = 20, .shape = 3, .skew = 2, .count = 1}; /* the rarer side has half */
	ck_assert(tpd_class_curve_frequencies(&curve, freq));
	ck_assert_uint_eq(freq[TPD_SYMBOL_MIDDLE + 1], 2731);
	ck_assert_uint_eq(freq[TPD_SYMBOL_MIDDLE - 1], 1365);
	curve.is_down = true;
	ck_assert(tpd_class_curve_frequencies(&curve, freq));
	ck_assert_uint_eq(freq[TPD_SYMBOL_MIDDLE + 1], 1365);
	ck_assert_uint_eq(freq[TPD_SYMBOL_MIDDLE - 1], 2731);
	curve = (struct tpd_class_curve){.scale = 20, .shape = 3, .count = 1, .centre = 1}; /* 1 and R(20)^2 */
	ck_assert(tpd_class_curve_frequencies(&curve, freq));
	ck_assert_uint_eq(freq[TPD_SYMBOL_MIDDLE + 1], 2550);
	ck_assert_uint_eq(freq[TPD_SYMBOL_MIDDLE - 1], 1546);
	curve = (struct tpd_class_curve){.scale = 20, .shape = 3, .skew = 2, .count = 3, .centre = -2, .has_middle = true};
	ck_assert(tpd_class_curve_frequencies(&curve, freq));
	ck_assert_uint_eq(freq[TPD_SYMBOL_MIDDLE - 3], freq[TPD_SYMBOL_MIDDLE - 1] / 2); /* the rarer side is that below the centre */
	ck_assert_uint_gt(freq[TPD_SYMBOL_MIDDLE - 2], freq[TPD_SYMBOL_MIDDLE - 1]);
	ck_assert_uint_gt(freq[TPD_SYMBOL_MIDDLE], freq[TPD_SYMBOL_MIDDLE + 1]);
	curve = (struct tpd_class_curve){.equal = 1};
	ck_assert(!tpd_class_curve_frequencies(&curve, freq));
	curve.has_zero = true;
	ck_assert(tpd_class_curve_frequencies(&curve, freq));
	ck_assert_uint_eq(freq[TPD_SYMBOL_EQUAL], 4095);
}
END_TEST

START_TEST(types)
{
	uint8_t x[64] = {1}, p[64] = {0};
	struct tpd_plan plan = {.encoding = TPD_ENCODING_CLASSES, .dtype = TPD_DTYPE_F64, .row = 8, .grid_bias = 2};
	struct tpd_chunk chunk = {.x = x, .len = 64, .p = p, .ref_len = 64};
	enum tpd_encoding encoding;
	uint8_t out[64];
	size_t len;

	ck_assert_int_eq(tpd_encode_chunk(codec, &plan, &chunk, out, &encoding, &len, NULL), TPD_USAGE);
	ck_assert_int_eq(tpd_decode_chunk(codec, TPD_ENCODING_CLASSES, TPD_DTYPE_I16, x, 64, p, 64, out, 64, NULL), TPD_CORRUPT);
	ck_assert(tpd_encoding_needs_reference(TPD_ENCODING_CLASSES));
}
END_TEST

#define N TPD_CHUNK_ELEMENTS

/* Weights of a normal distribution, moved by a step of one size for all, and rounded to nearest: what an optimizer in BF16 does. */
static void train(uint16_t *p, uint16_t *x, double step)
{
	uint64_t random = 1;

	for (size_t i = 0; i < N; i++) {
		float w = (float)(0.02 * random_normal(&random)), moved;
		uint32_t bits;

		memcpy(&bits, &w, sizeof(bits));
		p[i] = (uint16_t)(bits >> 16);
		bits &= 0xffff0000u;
		memcpy(&w, &bits, sizeof(w));
		moved = (float)(w + step * random_normal(&random));
		memcpy(&bits, &moved, sizeof(bits));
		x[i] = (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
	}
}

/* The entropy of x given p's exponent, in bytes, of what happens to an element in its own ulps; of a hundred and more, its bits. */
static double ideal(const uint16_t *p, const uint16_t *x)
{
	static unsigned counts[256][256];
	double bits = 0;

	memset(counts, 0, sizeof(counts));
	for (size_t i = 0; i < N; i++) {
		int a = p[i] & 0x8000 ? -1 - (p[i] & 0x7fff) : p[i], b = x[i] & 0x8000 ? -1 - (x[i] & 0x7fff) : x[i];
		bool far = b - a > 126 || b - a < -126;

		counts[p[i] >> 7 & 255][far ? 255 : b - a + 127]++;
		bits += far ? 16 : 0;
	}
	for (unsigned e = 0; e < 256; e++) {
		double all = 0;

		for (unsigned d = 0; d < 256; d++)
			all += counts[e][d];
		for (unsigned d = 0; d < 256; d++)
			if (counts[e][d] > 0)
				bits += counts[e][d] * log2(all / counts[e][d]);
	}
	return bits / 8;
}

/* Within 2 % and 150 bytes for tables, states and all; and a fifth shorter than gaps and values. */
START_TEST(close_to_the_entropy)
{
	static const double steps[] = {3e-6, 3e-5, 3e-4};
	static uint16_t p[N], x[N];
	static uint8_t out[2 * N];

	for (unsigned s = 0; s < TPD_ARRAY_LEN(steps); s++) {
		struct tpd_plan plan = {.encoding = TPD_ENCODING_CLASSES, .dtype = TPD_DTYPE_BF16, .row = 1024, .grid_bias = 2};
		struct tpd_chunk chunk = {.x = (uint8_t *)x, .len = sizeof(x), .p = (uint8_t *)p, .ref_len = sizeof(p)};
		enum tpd_encoding encoding;
		size_t len = 0, sparse = 0;

		train(p, x, steps[s]);
		ck_assert_int_eq(tpd_encode_chunk(codec, &plan, &chunk, out, &encoding, &len, NULL), TPD_OK);
		ck_assert_int_eq(encoding, TPD_ENCODING_CLASSES);
		ck_assert_msg((double)len < 1.02 * ideal(p, x) + 150, "step %g: %zu bytes for %.0f", steps[s], len, ideal(p, x));
		plan.encoding = TPD_ENCODING_SPARSE;
		ck_assert_int_eq(tpd_encode_chunk(codec, &plan, &chunk, out, &encoding, &sparse, NULL), TPD_OK);
		ck_assert_msg(len * 5 < sparse * 4, "step %g: %zu bytes, sparse %zu", steps[s], len, sparse);
	}
	ck_assert_uint_eq(tpd_codec_mismatches(codec), 0);
}
END_TEST

/* Few changes: gaps and values are shorter on a sample, which is told the same tables as a chunk four times as long, and that is what counts. */
START_TEST(a_sample_is_not_a_chunk)
{
	static uint16_t p[N], x[N];
	const size_t part = 2 * TPD_SAMPLE_ELEMENTS;
	const struct tpd_sample sample = {.x = (uint8_t *)x, .p = (uint8_t *)p, .len = part, .stretch = 2 * TPD_SAMPLE_STRETCH_ELEMENTS};
	const enum tpd_encoding encodings[2] = {TPD_ENCODING_SPARSE, TPD_ENCODING_CLASSES};
	size_t on_sample[2], on_chunk[2];
	uint64_t bytes, alone;
	struct tpd_plan plan;

	train(p, x, 3e-8);
	for (unsigned i = 0; i < 2; i++) {
		struct tpd_chunk chunk = {.x = (uint8_t *)x, .len = part, .p = (uint8_t *)p, .ref_len = part};

		plan = (struct tpd_plan){.encoding = encodings[i], .dtype = TPD_DTYPE_BF16, .row = 1024, .grid_bias = 2};
		ck_assert_int_eq(tpd_encode_with(codec, &plan, &chunk, 0, &on_sample[i], NULL), TPD_OK);
		chunk.len = chunk.ref_len = sizeof(x);
		ck_assert_int_eq(tpd_encode_with(codec, &plan, &chunk, 0, &on_chunk[i], NULL), TPD_OK);
	}
	ck_assert_msg(on_sample[0] < on_sample[1] && on_chunk[0] > on_chunk[1], "%zu %zu, %zu %zu", on_sample[0], on_sample[1], on_chunk[0],
		      on_chunk[1]);
	ck_assert_int_eq(tpd_plan_choose(codec, TPD_DTYPE_BF16, 1024, &sample, &plan, &bytes, &alone, NULL), TPD_OK);
	ck_assert_int_eq(plan.encoding, TPD_ENCODING_CLASSES);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("classes");
	TCase *tests = tcase_create("classes");
	SRunner *runner = srunner_create(suite);
	int failed;

	suite_add_tcase(suite, tests);
	tcase_add_checked_fixture(tests, set_up, tear_down);
	tcase_set_timeout(tests, 120);
	tcase_add_test(tests, fields);
	tcase_add_test(tests, curves);
	tcase_add_test(tests, short_curves);
	tcase_add_test(tests, weights);
	tcase_add_test(tests, types);
	tcase_add_test(tests, close_to_the_entropy);
	tcase_add_test(tests, a_sample_is_not_a_chunk);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
