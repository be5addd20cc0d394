/*
 * t_codec.c - chunks through the real encoder and decoder: every encoding, type and small size, determinism, plans.
 * What a decoder must refuse is in t_codec_corrupt.c.
 */
#include "base/tpd.h"

#include "codec/codec.h"

#include <check.h>
#include <fenv.h>
#include <stdlib.h>
#include <string.h>

#include "codec_build.h"
#include "random_bits.h"

static struct tpd_codec *codec;

static void set_up(void)
{
	random_state = 0x2545f4914f6cdd1d;
	ck_assert_int_eq(tpd_codec_new(&codec, NULL), TPD_OK);
}

static void tear_down(void)
{
	ck_assert_uint_eq(tpd_codec_mismatches(codec), 0);
	tpd_codec_free(codec);
}

/* ---- data ---- */

enum kind { KIND_RANDOM, KIND_SMOOTH, KIND_FEW, KIND_EQUAL, KIND_SPECIAL, KIND_ZERO, KINDS };

static void fill_floats(enum tpd_dtype dtype, uint8_t *x, size_t len)
{
	size_t width = tpd_dtype_width(dtype);

	for (size_t i = 0; i < len; i++)
		x[i] = (uint8_t)next_random();
	for (size_t i = 0; i + width <= len; i += width) { /* exponents of weights */
		unsigned small = (unsigned)(next_random() % 6);

		if (dtype == TPD_DTYPE_F32)
			tpd_put_u32(x + i, (tpd_get_u32(x + i) & 0x807fffff) | (117 + small) << 23);
		else if (dtype == TPD_DTYPE_BF16)
			tpd_put_u16(x + i, (uint16_t)((tpd_get_u16(x + i) & 0x807f) | (117 + small) << 7));
		else if (dtype == TPD_DTYPE_F16)
			tpd_put_u16(x + i, (uint16_t)((tpd_get_u16(x + i) & 0x83ff) | (5 + small) << 10));
	}
}

/* x from p */
static void fill(enum tpd_dtype dtype, enum kind kind, uint8_t *x, const uint8_t *p, size_t len)
{
	static const uint32_t special[] = {0,          0x80000000, 1,          0x7f800000, 0xff800000,
					   0x7fc00000, 0x7f800001, 0x00800000, 0x7fff8000};

	memcpy(x, p, len);
	switch (kind) {
	case KIND_RANDOM:
		fill_floats(dtype, x, len);
		break;
	case KIND_SMOOTH: /* a low part of most elements moves */
		for (size_t i = 0; i < len; i += tpd_dtype_width(dtype))
			x[i] = (uint8_t)(x[i] + (next_random() & 31));
		break;
	case KIND_FEW:
		for (size_t i = 0; i < len; i++)
			if (next_random() % 50 == 0)
				x[i] ^= (uint8_t)(1 + next_random() % 255);
		break;
	case KIND_SPECIAL:
		for (size_t i = 0; i + 4 <= len; i += 4)
			if (next_random() % 3 == 0)
				tpd_put_u32(x + i, special[next_random() % TPD_ARRAY_LEN(special)]);
		break;
	case KIND_ZERO:
		memset(x, 0, len);
		break;
	default:
		break;
	}
}

/* ---- round trips ---- */

static void check_chunk(const struct tpd_plan *plan, const struct tpd_chunk *chunk, unsigned *seen)
{
	uint8_t *out = malloc(tpd_encode_bound(chunk->len)), *back = malloc(chunk->len);
	enum tpd_encoding encoding = TPD_ENCODING_COUNT;
	struct tpd_err err = {0};
	size_t len = 0;

	ck_assert(out && back);
	if (tpd_encode_chunk(codec, plan, chunk, out, &encoding, &len, &err) != TPD_OK)
		ck_abort_msg("%s of %s: %s", tpd_dtype_name(plan->dtype), tpd_encoding_name(plan->encoding), err.text);
	if (len > chunk->len || (len == chunk->len && encoding != TPD_ENCODING_RAW))
		ck_abort_msg("%zu bytes became %zu", chunk->len, len);
	memset(back, 0x5a, chunk->len);
	if (tpd_decode_chunk(codec, encoding, plan->dtype, out, len, chunk->p, chunk->p ? chunk->ref_len : 0, back,
			     chunk->len, &err) != TPD_OK)
		ck_abort_msg("%s of %s: %s", tpd_dtype_name(plan->dtype), tpd_encoding_name(encoding), err.text);
	if (memcmp(back, chunk->x, chunk->len) != 0)
		ck_abort_msg("%s of %s: %zu bytes came back different", tpd_dtype_name(plan->dtype),
			     tpd_encoding_name(encoding), chunk->len);
	*seen |= 1u << encoding;
	free(out);
	free(back);
}

/*
 * The encoder is forced into the encoding even where it does not pay, and what it makes must decode. `stepped` is told from weights that came
 * from 0: of an input of no bytes all are.
 */
static void check_forced(const struct tpd_plan *asked, const struct tpd_chunk *of)
{
	const uint8_t nothing = 0;
	const struct tpd_inputs inputs = {.of = {[TPD_INPUT_W0] = {&nothing, 0}}};
	struct tpd_chunk chunk_of_it = *of, *chunk = &chunk_of_it;
	struct tpd_plan plan_of_it = *asked, *plan = &plan_of_it;
	struct tpd_references references;
	struct tpd_err err = {0};
	size_t len = 0;
	uint8_t *back = malloc(chunk->len);

	ck_assert(back);
	if (plan->encoding == TPD_ENCODING_STEPPED) {
		plan->terms = TPD_TERM_STEP;
		chunk->inputs = &inputs;
	}
	references = (struct tpd_references){chunk->p, chunk->ref_len, chunk->inputs};
	if (tpd_encode_with(codec, plan, chunk, 0, &len, &err) != TPD_OK)
		ck_abort_msg("%s", err.text);
	if (len != SIZE_MAX) {
		if (tpd_decode_chunk_with(codec, plan->encoding, plan->dtype, codec->payload.data, len, &references, back, chunk->len, &err) !=
		    TPD_OK)
			ck_abort_msg("%zu bytes of %s of %s: %s", chunk->len, tpd_dtype_name(plan->dtype),
				     tpd_encoding_name(plan->encoding), err.text);
		if (memcmp(back, chunk->x, chunk->len) != 0)
			ck_abort_msg("%zu bytes of %s of %s came back different", chunk->len,
				     tpd_dtype_name(plan->dtype), tpd_encoding_name(plan->encoding));
	}
	free(back);
}

START_TEST(every_encoding_type_and_small_size)
{
	const enum tpd_dtype dtype = (enum tpd_dtype)_i;
	unsigned seen = 0;

	for (size_t len = 1; len <= 300; len++) {
		for (unsigned kind = 0; kind < KINDS; kind++) {
			/* exact allocations, so that a sanitizer sees one byte too many */
			size_t ref_len = next_random() % 4 ? len : (size_t)(next_random() % (2 * len + 1));
			uint8_t *x = malloc(len), *p = malloc(TPD_MAX(ref_len, (size_t)1)), *whole = malloc(len);
			struct tpd_chunk chunk = {
				.x = x, .len = len, .p = p, .ref_len = ref_len, .element = next_random() % 100000};
			uint32_t row = 1 + (uint32_t)(next_random() % (kind ? 100 : TPD_ROW_MAX));

			ck_assert(x && p && whole);
			fill_floats(dtype, whole, len);
			fill_floats(dtype, p, ref_len);
			memcpy(p, whole, TPD_MIN(len, ref_len));
			fill(dtype, (enum kind)kind, x, whole, len);
			for (unsigned encoding = 0; encoding < TPD_ENCODING_COUNT; encoding++) {
				struct tpd_plan plan = {.encoding = (enum tpd_encoding)encoding,
							.dtype = dtype,
							.row = row,
							.terms = TPD_TERM_DECAY,
							.grid_bias = 2};

				if (!tpd_encoding_allows(plan.encoding, dtype))
					continue;
				check_chunk(&plan, &chunk, &seen);
				if (ref_len > 0 || !tpd_encoding_needs_reference(plan.encoding))
					check_forced(&plan, &chunk);
			}
			free(x);
			free(p);
			free(whole);
		}
	}
	ck_assert(seen & 1u << TPD_ENCODING_COPY && seen & 1u << TPD_ENCODING_RAW && seen & 1u << TPD_ENCODING_SPARSE &&
		  seen & 1u << TPD_ENCODING_ZSTD && seen & 1u << TPD_ENCODING_ZSTD_REF &&
		  seen & 1u << TPD_ENCODING_PLANES);
	ck_assert(!tpd_encoding_allows(TPD_ENCODING_GRID, dtype) || seen & 1u << TPD_ENCODING_GRID);
}
END_TEST

START_TEST(without_a_reference)
{
	static const enum tpd_encoding encodings[] = {TPD_ENCODING_GRID, TPD_ENCODING_SPARSE, TPD_ENCODING_ZSTD_REF,
						      TPD_ENCODING_COPY};
	uint8_t x[4000];
	unsigned seen = 0;

	fill_floats(TPD_DTYPE_F32, x, sizeof x);
	for (size_t i = 0; i < TPD_ARRAY_LEN(encodings); i++) {
		struct tpd_plan plan = {.encoding = encodings[i], .dtype = TPD_DTYPE_F32, .row = 64, .grid_bias = 2};
		struct tpd_chunk chunk = {.x = x, .len = sizeof x};

		check_chunk(&plan, &chunk, &seen);
		chunk.p = x; /* a reference of no length is none */
		check_chunk(&plan, &chunk, &seen);
	}
	ck_assert(seen & 1u << TPD_ENCODING_PLANES);
	ck_assert(!(seen & (1u << TPD_ENCODING_GRID | 1u << TPD_ENCODING_SPARSE | 1u << TPD_ENCODING_COPY)));
}
END_TEST

START_TEST(chunk_borders)
{
	static const size_t elements[] = {TPD_CHUNK_ELEMENTS - 1, TPD_CHUNK_ELEMENTS, TPD_CHUNK_ELEMENTS + 1};
	const enum tpd_dtype dtype = (enum tpd_dtype)_i;
	size_t width = tpd_dtype_width(dtype);
	unsigned seen = 0;

	for (size_t e = 0; e < TPD_ARRAY_LEN(elements); e++) {
		size_t len = elements[e] * width;
		uint8_t *x = malloc(len), *p = malloc(len);

		ck_assert(x && p);
		fill_floats(dtype, p, len);
		for (unsigned kind = 0; kind < KINDS; kind++) {
			struct tpd_chunk chunk = {.x = x, .len = len, .p = p, .ref_len = len, .element = 77};

			fill(dtype, (enum kind)kind, x, p, len);
			for (unsigned encoding = TPD_ENCODING_ZSTD; encoding < TPD_ENCODING_COUNT; encoding++) {
				struct tpd_plan plan = {.encoding = (enum tpd_encoding)encoding,
							.dtype = dtype,
							.row = 768,
							.terms = TPD_TERM_DECAY,
							.grid_bias = 3};

				if (!tpd_encoding_allows(plan.encoding, dtype))
					continue;
				check_chunk(&plan, &chunk, &seen);
				check_forced(&plan, &chunk);
			}
		}
		free(x);
		free(p);
	}
	ck_assert(seen != 0);
}
END_TEST

START_TEST(largest_chunk_of_bytes)
{
	size_t len = TPD_CHUNK_BYTES, shift = 12345;
	uint8_t *x = malloc(len), *p = malloc(len), *out = malloc(len);
	struct tpd_plan plan = {.encoding = TPD_ENCODING_ZSTD_REF, .dtype = TPD_DTYPE_BYTES, .row = 1};
	struct tpd_chunk chunk = {.x = x, .len = len, .p = p, .ref_len = len};
	enum tpd_encoding encoding;
	size_t out_len;
	unsigned seen = 0;

	ck_assert(x && p && out);
	for (size_t i = 0; i < len; i++)
		p[i] = (uint8_t)next_random();
	memcpy(x + shift, p, len - shift); /* the contents moved */
	memcpy(x, p + 99, shift);
	check_chunk(&plan, &chunk, &seen);
	ck_assert_int_eq(tpd_encode_chunk(codec, &plan, &chunk, out, &encoding, &out_len, NULL), TPD_OK);
	ck_assert_int_eq(encoding, TPD_ENCODING_ZSTD_REF);
	ck_assert_uint_lt(out_len, len / 50);
	for (unsigned e = TPD_ENCODING_ZSTD; e <= TPD_ENCODING_SPARSE; e++) {
		plan.encoding = (enum tpd_encoding)e;
		check_chunk(&plan, &chunk, &seen);
		check_forced(&plan, &chunk);
	}
	ck_assert_uint_eq(tpd_chunk_bytes(TPD_DTYPE_BYTES), len);
	ck_assert_uint_eq(tpd_chunk_bytes(TPD_DTYPE_F64), 1 << 20);
	ck_assert_uint_eq(tpd_chunk_bytes(TPD_DTYPE_BF16), 1 << 18);
	ck_assert_uint_eq(tpd_chunk_bytes(TPD_DTYPE_F4), 1 << 17);
	chunk.len = len + 1;
	ck_assert_int_eq(tpd_encode_chunk(codec, &plan, &chunk, out, &encoding, &out_len, NULL), TPD_USAGE);
	free(x);
	free(p);
	free(out);
}
END_TEST

START_TEST(same_input_gives_the_same_bytes)
{
	enum { LEN = 4 * 40000 };
	uint8_t *x = malloc(LEN), *p = malloc(LEN), *out[2];
	struct tpd_codec *other;

	out[0] = malloc(LEN);
	out[1] = malloc(LEN);
	ck_assert(x && p && out[0] && out[1]);
	for (unsigned round = 0; round < 60; round++) {
		enum tpd_dtype dtype = (enum tpd_dtype)(next_random() % TPD_DTYPE_COUNT);
		struct tpd_chunk chunk = {.x = x, .p = p, .element = round * 1000};
		enum tpd_encoding encoding[2];
		size_t len[2];
		struct tpd_plan plan[2];

		chunk.len = chunk.ref_len = 1 + next_random() % LEN;
		fill_floats(dtype, p, chunk.len);
		fill(dtype, (enum kind)(round % KINDS), x, p, chunk.len);
		ck_assert_int_eq(tpd_codec_new(&other, NULL), TPD_OK);
		for (unsigned k = 0; k < 2; k++) { /* a codec with a past, and a new one in another rounding mode */
			struct tpd_sample sample = {.x = x, .p = p, .len = chunk.len, .stretch = chunk.len};
			struct tpd_codec *use = k ? other : codec;
			uint64_t bytes, alone;

			ck_assert_int_eq(fesetround(k ? FE_UPWARD : FE_TONEAREST), 0);
			ck_assert_int_eq(tpd_plan_choose(use, dtype, 200, &sample, &plan[k], &bytes, &alone, NULL),
					 TPD_OK);
			ck_assert_int_eq(tpd_encode_chunk(use, &plan[k], &chunk, out[k], &encoding[k], &len[k], NULL),
					 TPD_OK);
			ck_assert_int_eq(fegetround(), k ? FE_UPWARD : FE_TONEAREST);
			ck_assert_int_eq(fesetround(FE_TONEAREST), 0);
		}
		ck_assert_int_eq(plan[0].encoding, plan[1].encoding);
		ck_assert_int_eq(plan[0].grid_bias, plan[1].grid_bias);
		ck_assert_int_eq(encoding[0], encoding[1]);
		ck_assert_uint_eq(len[0], len[1]);
		ck_assert_mem_eq(out[0], out[1], len[0]);
		ck_assert_uint_eq(tpd_codec_mismatches(other), 0);
		tpd_codec_free(other);
	}
	free(x);
	free(p);
	free(out[0]);
	free(out[1]);
}
END_TEST

/* 1 - 2^-30 is 1 to the nearest, and less than 1 towards zero: T would be another one. */
START_TEST(rounding_mode_of_the_caller_does_not_matter)
{
	static const int modes[] = {FE_TONEAREST, FE_TOWARDZERO, FE_DOWNWARD, FE_UPWARD};
	struct tpd_plan plan = {.encoding = TPD_ENCODING_GRID, .dtype = TPD_DTYPE_F32, .row = 64, .grid_bias = 2};
	uint8_t x[256], p[256], first[300];
	struct tpd_chunk chunk = {.x = x, .len = sizeof x, .p = p, .ref_len = sizeof p};
	size_t len, first_len = 0;

	for (size_t i = 0; i < sizeof x; i += 4) {
		tpd_put_u32(x + i, 127u << 23);
		tpd_put_u32(p + i, 97u << 23);
	}
	for (size_t k = 0; k < TPD_ARRAY_LEN(modes); k++) {
		ck_assert_int_eq(fesetround(modes[k]), 0);
		ck_assert_int_eq(tpd_encode_with(codec, &plan, &chunk, 0, &len, NULL), TPD_OK);
		ck_assert_int_eq(fegetround(), modes[k]);
		ck_assert_int_eq(fesetround(FE_TONEAREST), 0);
		ck_assert_uint_le(len, sizeof first);
		if (k == 0)
			memcpy(first, codec->payload.data, first_len = len);
		ck_assert_uint_eq(len, first_len);
		ck_assert_mem_eq(codec->payload.data, first, len);
	}
	ck_assert_uint_eq(first[5], 127 + 21); /* S(1) of T: raw, T */
}
END_TEST

/* SPEC.md section 12 */
START_TEST(worked_example)
{
	static const uint8_t payload[] = {0x02, 0x00, 0x02, 0x00, 0x00, 0x7f, 0x00, 0x82, 0x80, 1, 0, 0, 0x80, 0, 1};
	static const uint8_t p[] = {0x80, 0x3f, 0x00, 0x00}, x[] = {0x81, 0x3f, 0x01, 0x80};
	struct tpd_plan plan = {.encoding = TPD_ENCODING_GRID, .dtype = TPD_DTYPE_BF16, .row = 2, .grid_bias = 2};
	struct tpd_chunk chunk = {.x = x, .len = 4, .p = p, .ref_len = 4};
	uint8_t back[4];
	size_t len;

	ck_assert_int_eq(tpd_decode_chunk(codec, TPD_ENCODING_GRID, TPD_DTYPE_BF16, payload, sizeof payload, p, 4, back,
					  4, NULL),
			 TPD_OK);
	ck_assert_mem_eq(back, x, 4);
	ck_assert_int_eq(tpd_encode_with(codec, &plan, &chunk, 127, &len, NULL), TPD_OK);
	ck_assert_uint_eq(len, sizeof payload);
	ck_assert_mem_eq(codec->payload.data, payload, len);
}
END_TEST

/* ---- plans ---- */

static struct tpd_plan choose(enum tpd_dtype dtype, const uint8_t *x, const uint8_t *p, size_t len, uint64_t *out_bytes,
			      uint64_t *out_alone)
{
	struct tpd_sample sample = {
		.x = x, .p = p, .len = len, .stretch = len > 1 << 17 ? 1024 * tpd_dtype_width(dtype) : len};
	struct tpd_plan plan;

	ck_assert_int_eq(tpd_plan_choose(codec, dtype, 256, &sample, &plan, out_bytes, out_alone, NULL), TPD_OK);
	ck_assert_int_eq(plan.dtype, dtype);
	ck_assert_uint_eq(plan.row, 256);
	return plan;
}

START_TEST(plans)
{
	enum { LEN = 4 * 32768 };
	uint8_t *x = malloc(LEN), *p = malloc(LEN);
	uint64_t bytes, alone;

	ck_assert(x && p);
	fill_floats(TPD_DTYPE_F32, p, LEN);
	fill(TPD_DTYPE_F32, KIND_SMOOTH, x, p, LEN);
	ck_assert_int_eq(choose(TPD_DTYPE_F32, x, p, LEN, &bytes, &alone).encoding, TPD_ENCODING_GRID);
	ck_assert_uint_lt(bytes, LEN / 4);
	ck_assert_uint_gt(alone, LEN / 2);
	ck_assert_int_eq(choose(TPD_DTYPE_F32, x, NULL, LEN, &bytes, &alone).encoding, TPD_ENCODING_PLANES);
	ck_assert_uint_eq(bytes, alone);
	ck_assert_uint_lt(bytes, LEN);
	memcpy(x, p, LEN);
	for (size_t i = 0; i < LEN; i += 4 * (1 + next_random() % 60))
		tpd_put_u32(x + i, tpd_get_u32(x + i) + 1);
	ck_assert_int_eq(choose(TPD_DTYPE_I64, x, p, LEN, &bytes, &alone).encoding, TPD_ENCODING_SPARSE);
	ck_assert_int_eq(choose(TPD_DTYPE_F32, p, p, LEN, &bytes, &alone).encoding, TPD_ENCODING_SPARSE);
	ck_assert_uint_lt(bytes, 20);
	ck_assert_int_eq(choose(TPD_DTYPE_BYTES, x, p, LEN, &bytes, &alone).encoding, TPD_ENCODING_ZSTD_REF);
	for (size_t i = 0; i < LEN; i++)
		x[i] = (uint8_t)next_random();
	ck_assert_int_eq(choose(TPD_DTYPE_U8, x, NULL, LEN, &bytes, &alone).encoding, TPD_ENCODING_RAW);
	ck_assert_uint_eq(bytes, LEN);
	ck_assert_int_eq(choose(TPD_DTYPE_BYTES, x, x, LEN, &bytes, &alone).encoding, TPD_ENCODING_ZSTD_REF);
	ck_assert_uint_eq(alone, LEN);
	for (size_t i = 100; i < 5000; i++)
		x[i] = x[i - 100];
	ck_assert_int_eq(choose(TPD_DTYPE_BYTES, x, NULL, 5000, &bytes, &alone).encoding, TPD_ENCODING_ZSTD);
	free(x);
	free(p);
}
END_TEST

/* What a chunk takes at least as this encoding, of what plans choose from; UINT64_MAX: it is none of those. */
static uint64_t taken_by(enum tpd_encoding encoding, enum tpd_dtype dtype, const struct tpd_chunk *chunk)
{
	uint64_t least = UINT64_MAX;

	if (encoding == TPD_ENCODING_RAW)
		return chunk->len;
	if (encoding == TPD_ENCODING_COPY || tpd_encoding_takes_inputs(encoding) || !tpd_encoding_allows(encoding, dtype) ||
	    (tpd_encoding_needs_reference(encoding) && !chunk->p) || (encoding == TPD_ENCODING_CLASSES && tpd_dtype_width(dtype) != 2) ||
	    (encoding == TPD_ENCODING_SPARSE && dtype == TPD_DTYPE_BYTES))
		return least;
	for (uint8_t bias = 2; bias <= 3; bias++) {
		const struct tpd_plan plan = {.encoding = encoding, .dtype = dtype, .row = 256, .grid_bias = bias};
		size_t len = SIZE_MAX;

		ck_assert_int_eq(tpd_encode_with(codec, &plan, chunk, 0, &len, NULL), TPD_OK);
		least = TPD_MIN(least, len);
	}
	return least < chunk->len ? least : UINT64_MAX;
}

/* What is said of the best of the others is what it takes. */
START_TEST(second_best)
{
	static const enum tpd_dtype dtypes[] = {TPD_DTYPE_F32, TPD_DTYPE_BF16, TPD_DTYPE_BYTES};
	enum { LEN = 20000 };
	uint8_t x[LEN], p[LEN];

	for (unsigned round = 0; round < 30; round++) {
		const enum tpd_dtype dtype = dtypes[round % 3];
		const struct tpd_chunk chunk = {.x = x, .len = LEN, .p = round % 4 ? p : NULL, .ref_len = round % 4 ? LEN : 0};
		uint64_t bytes, alone, others = UINT64_MAX;
		struct tpd_plan plan;

		for (size_t i = 0; i < LEN; i++) {
			p[i] = (uint8_t)(i % 2 ? 0x38 | next_random() % 8 : next_random());
			x[i] = i % 2 == 0 && next_random() % (1 + round) == 0 ? (uint8_t)(p[i] + 1) : p[i];
		}
		plan = choose(dtype, x, chunk.p, LEN, &bytes, &alone);
		ck_assert_uint_eq(taken_by(plan.encoding, dtype, &chunk), bytes);
		for (unsigned e = 0; e < TPD_ENCODING_COUNT; e++)
			if (tpd_encoding_is_known((enum tpd_encoding)e) && e != plan.encoding)
				others = TPD_MIN(others, taken_by((enum tpd_encoding)e, dtype, &chunk));
		if (others == UINT64_MAX) {
			ck_assert_int_eq(plan.encoding, TPD_ENCODING_RAW);
			ck_assert_uint_eq(plan.second_permille, 0);
			continue;
		}
		if (dtype == TPD_DTYPE_BYTES && chunk.p) {
			ck_assert_uint_eq(plan.second_permille, 0); /* that is no choice */
			continue;
		}
		ck_assert_uint_eq(taken_by(plan.second, dtype, &chunk), others);
		ck_assert_uint_eq(plan.second_permille, others * 1000 / bytes);
	}
}
END_TEST

/* Bytes of which a few more are below 128: `percent` of them. */
static unsigned coder_of_skewed(uint8_t *x, size_t n, unsigned percent)
{
	uint8_t *out = malloc(n + 1);
	unsigned coder;
	size_t len = 0;

	for (size_t i = 0; i < n; i++) {
		const uint64_t random = next_random();

		x[i] = (uint8_t)((random & 127) | ((random >> 20) % 100 >= percent ? 128 : 0));
	}
	ck_assert_int_eq(tpd_symbols_encode(codec, x, n, out, &len, NULL), TPD_OK);
	coder = out[0];
	free(out);
	return coder;
}

/* Where 62 % of 131072 are below 128, 0.53 % are to be had, of which the header takes 0.4; where 68 % are, 1.2 %. */
START_TEST(long_streams_of_little_gain_stay_raw)
{
	enum { N = 131072 };
	uint8_t *x = malloc(N);

	ck_assert_uint_eq(coder_of_skewed(x, N, 50), TPD_CODER_RAW);
	ck_assert_uint_eq(coder_of_skewed(x, N, 62), TPD_CODER_RAW);
	ck_assert_uint_eq(coder_of_skewed(x, N, 68), TPD_CODER_RANS);
	free(x);
}
END_TEST

START_TEST(bad_plans)
{
	uint8_t x[8] = {1, 2, 3, 4, 5, 6, 7, 8}, out[8];
	struct tpd_sample sample = {.x = x, .len = 8, .stretch = 8};
	struct tpd_chunk chunk = {.x = x, .len = 8, .p = out, .ref_len = 8};
	struct tpd_plan plan = {.encoding = TPD_ENCODING_GRID, .dtype = TPD_DTYPE_F32, .row = 8, .grid_bias = 2};
	uint64_t bytes, alone;
	enum tpd_encoding encoding;
	size_t len;

	memset(out, 9, sizeof out);
	ck_assert_int_eq(tpd_plan_choose(codec, TPD_DTYPE_F32, 8192, &sample, &plan, &bytes, &alone, NULL), TPD_OK);
	ck_assert_int_eq(tpd_plan_choose(codec, TPD_DTYPE_F32, 8193, &sample, &plan, &bytes, &alone, NULL), TPD_USAGE);
	ck_assert_int_eq(tpd_plan_choose(codec, TPD_DTYPE_F32, 0, &sample, &plan, &bytes, &alone, NULL), TPD_USAGE);
	plan = (struct tpd_plan){.encoding = TPD_ENCODING_GRID, .dtype = TPD_DTYPE_F32, .row = 0};
	ck_assert_int_eq(tpd_encode_chunk(codec, &plan, &chunk, out, &encoding, &len, NULL), TPD_USAGE);
	plan = (struct tpd_plan){.encoding = TPD_ENCODING_GRID, .dtype = TPD_DTYPE_I32, .row = 8};
	ck_assert_int_eq(tpd_encode_chunk(codec, &plan, &chunk, out, &encoding, &len, NULL), TPD_USAGE);
	plan = (struct tpd_plan){.encoding = TPD_ENCODING_RAW, .dtype = TPD_DTYPE_I32, .row = 8};
	chunk.len = 0;
	ck_assert_int_eq(tpd_encode_chunk(codec, &plan, &chunk, out, &encoding, &len, NULL), TPD_USAGE);
}
END_TEST

/* About normal, as weights are; `square`: as second moments are. */
static uint32_t weight_pattern(enum tpd_dtype dtype, bool square)
{
	float f = 0;
	uint32_t word, magnitude;

	for (unsigned j = 0; j < 8; j++)
		f += (float)(next_random() & 0xffff) / 65536 - 0.5f;
	f *= 0.02f;
	f = square ? f * f : f;
	memcpy(&word, &f, 4);
	if (dtype == TPD_DTYPE_F32)
		return word;
	if (dtype == TPD_DTYPE_BF16)
		return word >> 16;
	magnitude = word & 0x7fffffff; /* F16 by truncation; what is denormal there becomes zero */
	magnitude = magnitude > 113u << 23 ? (magnitude - (112u << 23)) >> 13 : 0;
	return (word >> 31) << 15 | magnitude;
}

/* Loop: 0 dense, 1 mostly rows of zeros, 2 and 3 the same of squares. */
START_TEST(guessed_types)
{
	enum { LEN = 1 << 17, ROW = 1024 };
	static const enum tpd_dtype types[] = {TPD_DTYPE_F32, TPD_DTYPE_BF16, TPD_DTYPE_F16, TPD_DTYPE_BYTES};
	uint8_t *x = malloc(LEN);

	ck_assert(x);
	for (size_t k = 0; k < TPD_ARRAY_LEN(types); k++) {
		struct tpd_sample sample = {.x = x, .len = LEN, .stretch = 4096};
		enum tpd_dtype dtype = TPD_DTYPE_COUNT;
		size_t width = tpd_dtype_width(types[k]);

		if (types[k] == TPD_DTYPE_F16 && _i >= 2)
			continue; /* squares of weights are nothing in F16 */
		memset(x, 0, LEN);
		for (size_t i = 0; i < LEN; i += width) {
			if (_i % 2 == 1 && i / ROW % 8 != 3)
				continue;
			if (types[k] == TPD_DTYPE_BYTES)
				x[i] = (uint8_t)next_random();
			else if (types[k] == TPD_DTYPE_F32)
				tpd_put_u32(x + i, weight_pattern(types[k], _i >= 2));
			else
				tpd_put_u16(x + i, (uint16_t)weight_pattern(types[k], _i >= 2));
		}
		ck_assert_int_eq(tpd_plan_guess_dtype(codec, &sample, &dtype, NULL), TPD_OK);
		ck_assert_str_eq(tpd_dtype_name(dtype), tpd_dtype_name(types[k]));
	}
	free(x);
}
END_TEST

START_TEST(packing)
{
	uint8_t data[5000], back[5000], *frame = NULL;
	size_t len = 0;

	for (size_t i = 0; i < sizeof data; i++)
		data[i] = (uint8_t)(i / 10);
	for (size_t n = 0; n <= sizeof data; n += 1250) {
		ck_assert_int_eq(tpd_zstd_pack(data, n, &frame, &len, NULL), TPD_OK);
		ck_assert_int_eq(tpd_zstd_unpack(frame, len, back, n, NULL), TPD_OK);
		ck_assert_mem_eq(back, data, n);
		ck_assert_int_eq(tpd_zstd_unpack(frame, len - 1, back, n, NULL), TPD_CORRUPT);
		ck_assert_int_eq(tpd_zstd_unpack(frame, len, back, n + 1, NULL), TPD_CORRUPT);
		if (n > 0)
			ck_assert_int_eq(tpd_zstd_unpack(frame, len, back, n - 1, NULL), TPD_CORRUPT);
		free(frame);
	}
}
END_TEST

START_TEST(names)
{
	ck_assert_str_eq(tpd_encoding_name(TPD_ENCODING_ZSTD_REF), "zstd-ref");
	ck_assert_str_eq(tpd_encoding_name((enum tpd_encoding)99), "?");
	ck_assert(tpd_encoding_needs_reference(TPD_ENCODING_GRID) &&
		  !tpd_encoding_needs_reference(TPD_ENCODING_PLANES));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("codec");
	TCase *tcase = tcase_create("codec");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tcase, 1200);
	tcase_add_checked_fixture(tcase, set_up, tear_down);
	tcase_add_loop_test(tcase, every_encoding_type_and_small_size, 0, TPD_DTYPE_COUNT);
	tcase_add_test(tcase, without_a_reference);
	tcase_add_loop_test(tcase, chunk_borders, 0, TPD_DTYPE_COUNT);
	tcase_add_test(tcase, largest_chunk_of_bytes);
	tcase_add_test(tcase, same_input_gives_the_same_bytes);
	tcase_add_test(tcase, rounding_mode_of_the_caller_does_not_matter);
	tcase_add_test(tcase, worked_example);
	tcase_add_test(tcase, plans);
	tcase_add_test(tcase, second_best);
	tcase_add_test(tcase, long_streams_of_little_gain_stay_raw);
	tcase_add_test(tcase, bad_plans);
	tcase_add_loop_test(tcase, guessed_types, 0, 4);
	tcase_add_test(tcase, packing);
	tcase_add_test(tcase, names);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? 0 : 1;
}
