/*
 * t_second_decoder.c - the codec against a decoder that was written apart from it.
 *
 * What the encoder writes must mean the same to both decoders, and a payload that was damaged must be refused by both
 * or give both the same bytes: else the text of the format and its implementation say different things. Data are
 * generated, with a fixed seed, so that every encoding, symbol coder and gap code is written at least once; that this
 * happens is asserted, since a codec that no longer chooses something would otherwise quietly leave it untested.
 */
#include "base/tpd.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/dtype.h"
#include "base/random.h"
#include "codec/internal.h"
#include "second_decoder.h"

/* How the chunk and its reference come about. */
enum relation {
	ALONE,     /* no reference */
	EQUAL,     /* the reference itself */
	STEPPED,   /* floats: every element moved by about one common step; others: by -3 .. 3 */
	FAR,       /* nothing to do with the reference */
	STRANGE,   /* patterns of NaN, Inf, denormals, zeros and signs, in both */
	SCATTERED, /* 1 % of the elements changed, independently */
	BURSTS,    /* changes in runs, far apart */
	SHORTER,   /* SCATTERED, and the reference ends early */
	LONGER,    /* SCATTERED, and the reference goes on */
	SHIFTED,   /* the reference's bytes, some way off: for zstd-ref */
	RELATIONS,
};

enum fill { VALUES, CONSTANT, TEXT, FILLS };

static uint64_t seed;

static uint64_t any(void)
{
	return tpd_random_next(&seed) * 0x2545f4914f6cdd1dull;
}

/* A number below n. */
static uint64_t below(uint64_t n)
{
	return (any() >> 11) % n;
}

/* About normal, with deviation 1. */
static double bell(void)
{
	double sum = 0;

	for (int i = 0; i < 12; i++)
		sum += (double)below(1u << 20) / (1u << 20);
	return sum - 6;
}

static void put(uint8_t *at, unsigned width, uint64_t v)
{
	for (unsigned i = 0; i < width; i++)
		at[i] = (uint8_t)(v >> (8 * i));
}

static uint64_t get(const uint8_t *at, unsigned width)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < width; i++)
		v |= (uint64_t)at[i] << (8 * i);
	return v;
}

/* The pattern of a value; the bits that a narrower type lacks are cut off. */
static uint64_t pattern(enum tpd_dtype dtype, double value)
{
	float single = (float)value;
	uint64_t wide;
	uint32_t bits;
	int exponent;

	memcpy(&bits, &single, sizeof(bits));
	memcpy(&wide, &value, sizeof(wide));
	switch (dtype) {
	case TPD_DTYPE_F32:
		return bits;
	case TPD_DTYPE_BF16:
		return bits >> 16;
	case TPD_DTYPE_F16:
		exponent = (int)(bits >> 23 & 255) - 112;
		if (exponent <= 0)
			return bits >> 31 << 15;
		return bits >> 31 << 15 | (uint32_t)TPD_MIN(exponent, 30) << 10 | (bits >> 13 & 1023);
	case TPD_DTYPE_F64:
		return wide;
	default:
		return (uint64_t)(int64_t)(value * 500);
	}
}

/* A pattern that is no ordinary number: all zeros, all ones, or one field of a float at its end. */
static uint64_t strange(enum tpd_dtype dtype)
{
	unsigned width = tpd_dtype_width(dtype) * 8;
	unsigned mantissa = tpd_dtype_mantissa_bits(dtype) > 0 ? tpd_dtype_mantissa_bits(dtype) : width / 2;
	uint64_t sign = any() << (width - 1), low = (1ull << mantissa) - 1;
	uint64_t exponent = ((1ull << (width - 1)) - 1) & ~low;

	switch (below(7)) {
	case 0:
		return sign; /* a zero */
	case 1:
		return sign | exponent; /* Inf */
	case 2:
		return sign | exponent | (any() & low); /* NaN */
	case 3:
		return sign | (any() & low); /* a denormal */
	case 4:
		return sign | below(4);
	case 5:
		return sign | (low + below(3) - 1); /* where the normal numbers begin */
	default:
		return pattern(dtype, 0.02 * bell());
	}
}

static void fill(enum tpd_dtype dtype, enum fill kind, bool odd, uint8_t *out, size_t len)
{
	static const char *const words[] = {"weight", ".bias", "layers.", "attention", "0", "1", ":{", "\"", "]}"};
	unsigned width = tpd_dtype_width(dtype);
	size_t i = 0;

	memset(out, 0x2a, len);
	if (kind == TEXT)
		while (i < len)
			for (const char *c = words[below(TPD_ARRAY_LEN(words))]; *c && i < len; c++)
				out[i++] = (uint8_t)*c;
	if (kind == VALUES)
		for (; i + width <= len; i += width)
			put(out + i, width, odd ? strange(dtype) : pattern(dtype, 0.02 * bell()));
}

/* Make x from p, both of len bytes. */
static void relate(enum tpd_dtype dtype, enum relation relation, const uint8_t *p, uint8_t *x, size_t len)
{
	unsigned width = tpd_dtype_width(dtype);
	bool is_float = tpd_dtype_mantissa_bits(dtype) > 0;
	size_t n = len / width, run = 0;
	uint64_t v, narrow = below(2) ? (UINT64_C(1) << 29) - 1 : 0; /* F64 that are made from F32 */

	memcpy(x, p, len);
	for (size_t i = 0; i < n; i++) {
		v = get(p + i * width, width);
		switch (relation) {
		case STEPPED:
			if (is_float && dtype == TPD_DTYPE_F32) {
				uint32_t bits = (uint32_t)v;
				float value;

				memcpy(&value, &bits, sizeof(value));
				v = pattern(dtype, isfinite(value) ? (double)value + 3e-5 * bell() : 1);
			} else if (dtype == TPD_DTYPE_F64) {
				double value;

				memcpy(&value, &v, sizeof(value));
				v = pattern(dtype, isfinite(value) ? value + 3e-5 * bell() : 1) & ~narrow;
			} else if (is_float) {
				v += below(3) == 0 ? below(9) - 4 : 0;
			} else {
				v += below(7) - 3;
			}
			break;
		case STRANGE:
			if (below(3) == 0)
				v = strange(dtype);
			break;
		case BURSTS:
			if (run == 0 && below(1500) == 0)
				run = 1 + below(40);
			v += run > 0 ? 1 : 0;
			run -= run > 0;
			break;
		default: /* SCATTERED, SHORTER, LONGER */
			if (below(100) == 0)
				v = below(12) == 0 ? 0 : below(12) == 0 ? any() : v + below(41) - 20;
			break;
		}
		put(x + i * width, width, v);
	}
	if (len % width > 0)
		x[len - 1] ^= (uint8_t)below(2);
}

struct seen {
	unsigned encoding[TPD_ENCODING_COUNT], coder[5], gaps[2];
	unsigned accepted, refused; /* damaged payloads */
};

/* Count what a payload uses; of several symbol streams only the first. */
static void note(struct seen *seen, enum tpd_encoding encoding, enum tpd_dtype dtype, const uint8_t *payload)
{
	size_t at;

	seen->encoding[encoding]++;
	if (encoding == TPD_ENCODING_PLANES)
		seen->coder[payload[1]]++;
	if (encoding == TPD_ENCODING_GRID)
		seen->coder[payload[dtype == TPD_DTYPE_F64 ? 5 : 4]]++;
	if (encoding == TPD_ENCODING_SPARSE) {
		seen->gaps[payload[0]]++;
		for (at = 2; payload[at] & 128; at++)
			;
		seen->coder[payload[at + 5 + get(payload + at + 1, 4)]]++;
	}
}

static struct tpd_inputs inputs; /* of the case at hand */

/*
 * Both decoders; true when both accept. Buffers have the exact size, so that a sanitizer sees any step beyond.
 *
 * Whether libzstd (1.5.4) notices that a damaged frame reads past the end of its sequence bits depends on its context:
 * it does when the prefix is at the address of the last one, else it takes a faster loop that does not. Both decoders
 * therefore begin `zstd-ref` with a fresh context; then what they accept must be the same here, too.
 */
static bool agree(struct tpd_codec *codec, unsigned encoding, enum tpd_dtype dtype, const uint8_t *payload,
		  size_t payload_len, const uint8_t *ref, size_t ref_len, uint8_t *out, size_t len)
{
	uint8_t *exact = malloc(payload_len), *second = malloc(len);
	struct tpd_codec *fresh = NULL;
	struct second_input seconds[TPD_INPUT_COUNT];
	enum tpd_status status;
	int other;

	ck_assert((exact || payload_len == 0) && second);
	if (encoding == TPD_ENCODING_ZSTD_REF) {
		ck_assert_int_eq(tpd_codec_new(&fresh, NULL), TPD_OK);
		codec = fresh;
	}
	if (payload_len > 0)
		memcpy(exact, payload, payload_len);
	status = tpd_decode_chunk_with(codec, (enum tpd_encoding)encoding, dtype, exact, payload_len,
				       &(struct tpd_references){ref, ref_len, &inputs}, out, len, NULL);
	for (unsigned i = 0; i < TPD_INPUT_COUNT; i++)
		seconds[i] = (struct second_input){inputs.of[i].data, inputs.of[i].len};
	other = second_decode_with(encoding, dtype, exact, payload_len, ref, ref_len, seconds, second, len);
	ck_assert_msg(status == TPD_OK || status == TPD_CORRUPT || status == TPD_UNSUPPORTED, "status %d", (int)status);
	ck_assert_int_ne(other, SECOND_NOMEM);
	ck_assert_msg((status == TPD_OK) == (other == SECOND_OK),
		      "encoding %u, type %s, %zu bytes from %zu, reference %zu: first %s, second %d", encoding,
		      tpd_dtype_name(dtype), len, payload_len, ref_len, tpd_status_name(status), other);
	if (status == TPD_OK)
		ck_assert_msg(memcmp(out, second, len) == 0, "encoding %u, type %s, %zu bytes: different bytes",
			      encoding, tpd_dtype_name(dtype), len);
	tpd_codec_free(fresh);
	free(exact);
	free(second);
	return status == TPD_OK;
}

/* Element i of a chunk as F32; of other types than F16 and BF16, its bits. */
static float as_float(enum tpd_dtype dtype, const uint8_t *p, size_t i)
{
	uint32_t bits = dtype == TPD_DTYPE_F16 || dtype == TPD_DTYPE_BF16 ? (uint32_t)get(p + 2 * i, 2) : (uint32_t)get(p + 4 * i, 4);
	float v;

	if (dtype == TPD_DTYPE_BF16)
		bits <<= 16;
	if (dtype == TPD_DTYPE_F16) /* normal numbers */
		bits = (bits & 0x8000) << 16 | (((bits & 0x7fff) << 13) + (112u << 23));
	memcpy(&v, &bits, 4);
	return v;
}

/*
 * What F32 weights may be predicted from, and 16-bit ones: the reference moved a little, moments of their size, and now and then anything; some are shorter,
 * and some are not there. Buffers have the exact size.
 */
static void make_inputs(enum tpd_dtype dtype, const uint8_t *p, size_t len)
{
	const bool narrow = dtype == TPD_DTYPE_F16 || dtype == TPD_DTYPE_BF16;

	len = narrow ? len / 2 * 4 : len;
	for (unsigned i = 0; i < TPD_INPUT_COUNT; i++) {
		size_t have = below(4) ? len : below(len + 1);
		uint8_t *data = malloc(have + 1);

		ck_assert_ptr_nonnull(data);
		for (size_t at = 0; at + 4 <= have; at += 4) {
			float v;
			uint32_t bits = (uint32_t)any();

			v = as_float(dtype, p, at / 4);
			if (i == TPD_INPUT_W0)
				v *= 1 + (float)below(100) * (narrow ? 1e-3f : 1e-6f);
			else
				v = (float)below(1000) * (i == TPD_INPUT_V1 || i == TPD_INPUT_V2 ? 1e-9f : 1e-6f);
			if (below(50) > 0)
				memcpy(&bits, &v, 4);
			memcpy(data + at, &bits, 4);
		}
		for (size_t at = have / 4 * 4; at < have; at++)
			data[at] = (uint8_t)any();
		free((void *)(uintptr_t)inputs.of[i].data);
		inputs.of[i] = (struct tpd_bytes){data, have};
		if (below(20) == 0) {
			free(data);
			inputs.of[i] = (struct tpd_bytes){0};
		}
	}
}

/* Damage a copy of the payload in `count` ways. */
static void damage(struct tpd_codec *codec, unsigned encoding, enum tpd_dtype dtype, const uint8_t *payload,
		   size_t payload_len, const struct tpd_chunk *chunk, unsigned count, struct seen *seen)
{
	uint8_t *copy = malloc(payload_len + 8), *out = malloc(chunk->len);

	ck_assert(copy && out);
	for (unsigned i = 0; i < count; i++) {
		size_t len = payload_len, span;
		unsigned as = encoding;

		memcpy(copy, payload, len);
		memset(copy + len, 0, 8);
		/* Half of the damage goes where the headers and tables are. */
		span = below(2) ? TPD_MIN(len, 48) : len;
		switch (below(span > 0 ? 6 : 2)) {
		case 0:
			len += 1 + below(8);
			break;
		case 1:
			as = (unsigned)below(TPD_ENCODING_COUNT + 1);
			break;
		case 2:
			len -= 1 + below(TPD_MIN(len, 9));
			break;
		case 3:
			copy[below(span)] ^= (uint8_t)(1u << below(8));
			break;
		case 4:
			copy[below(span)] = (uint8_t)any();
			copy[below(span)] = (uint8_t)any();
			break;
		default:
			copy[below(span)] = below(2) ? 0 : 255;
			break;
		}
		if (agree(codec, as, dtype, copy, len, chunk->p, chunk->ref_len, out, chunk->len))
			seen->accepted++;
		else
			seen->refused++;
	}
	free(copy);
	free(out);
}

static void check_chunk(struct tpd_codec *codec, const struct tpd_plan *plan, const struct tpd_chunk *chunk,
			unsigned count, struct seen *seen)
{
	size_t bound = tpd_encode_bound(chunk->len), len;
	uint8_t *payload = malloc(bound), *out = malloc(chunk->len);
	enum tpd_encoding encoding;

	ck_assert(payload && out);
	ck_assert_int_eq(tpd_encode_chunk(codec, plan, chunk, payload, &encoding, &len, NULL), TPD_OK);
	ck_assert(agree(codec, encoding, plan->dtype, payload, len, chunk->p, chunk->ref_len, out, chunk->len));
	ck_assert_mem_eq(out, chunk->x, chunk->len);
	note(seen, encoding, plan->dtype, payload);
	damage(codec, encoding, plan->dtype, payload, len, chunk, count, seen);
	free(payload);
	free(out);
}

/* One chunk of `len` bytes, under the plan that is chosen for it and under every other that its type allows. */
static void check_case(struct tpd_codec *codec, enum tpd_dtype dtype, enum relation relation, enum fill kind,
		       size_t len, unsigned count, struct seen *seen)
{
	static const uint32_t rows[] = {1, 7, 96, 768, 8192};
	static const uint8_t scales[] = {0, TPD_TERM_SCALE, TPD_TERM_SCALE | TPD_TERM_CAME_IN};
	unsigned width = tpd_dtype_width(dtype);
	size_t space = len + 100, whole;
	uint8_t *p = malloc(space), *x = malloc(space);
	struct tpd_chunk chunk = {.x = x, .len = len, .p = p, .ref_len = len, .element = below(1u << 20), .inputs = &inputs};
	struct tpd_sample sample = {.x = x};
	struct tpd_plan plan;
	uint64_t bytes, alone;

	ck_assert(p && x);
	fill(dtype, kind, relation == STRANGE, p, space);
	if (relation == ALONE || relation == EQUAL)
		memcpy(x, p, space);
	else if (relation == FAR)
		fill(dtype, kind, false, x, len);
	else if (relation == SHIFTED)
		memmove(x, p + 64, len);
	else
		relate(dtype, relation, p, x, len);
	make_inputs(dtype, p, len);
	if (relation == SHORTER)
		chunk.ref_len = len / 2 + below(len / 2 + 1);
	if (relation == LONGER)
		chunk.ref_len = len + 1 + below(99);
	if (relation == ALONE || chunk.ref_len == 0) {
		chunk.p = NULL;
		chunk.ref_len = 0;
	}

	/* The sample sees the chunk's beginning; what the reference lacks is zeros there too. */
	whole = TPD_MIN(len / width, TPD_SAMPLE_ELEMENTS) * width;
	if (whole > 0) {
		uint8_t *padded = calloc(1, whole);

		ck_assert_ptr_nonnull(padded);
		if (chunk.p)
			memcpy(padded, p, TPD_MIN(whole, chunk.ref_len));
		sample.p = chunk.p ? padded : NULL;
		sample.len = sample.stretch = whole;
		ck_assert_int_eq(tpd_plan_choose(codec, dtype, rows[below(TPD_ARRAY_LEN(rows))], &sample, &plan, &bytes,
						 &alone, NULL),
				 TPD_OK);
		check_chunk(codec, &plan, &chunk, count, seen);
		free(padded);
	}
	plan = (struct tpd_plan){.dtype = dtype, .row = rows[below(TPD_ARRAY_LEN(rows))], .grid_bias = 2};
	for (unsigned e = TPD_ENCODING_ZSTD; e < TPD_ENCODING_COUNT; e++) {
		if ((!chunk.p && tpd_encoding_needs_reference((enum tpd_encoding)e)) ||
		    !tpd_encoding_allows((enum tpd_encoding)e, dtype))
			continue;
		plan.nibbles = below(2);
		plan.form = (uint8_t)below(8);
		plan.low_rank = below(2);
		plan.terms = e == TPD_ENCODING_SCALED || e == TPD_ENCODING_SCALED_ALONE ? scales[below(TPD_ARRAY_LEN(scales))] : (uint8_t)(1 + below(15));
		plan.encoding = (enum tpd_encoding)e;
		check_chunk(codec, &plan, &chunk, count, seen);
	}
	free(p);
	free(x);
}

START_TEST(every_type_and_relation)
{
	static const size_t sizes[] = {1, 7, 64, 1003, 6002, 50001};
	enum tpd_dtype dtype = (enum tpd_dtype)_i;
	struct tpd_codec *codec;
	struct seen seen = {0};

	seed = 88172645463325252ull + (unsigned)_i;
	ck_assert_int_eq(tpd_codec_new(&codec, NULL), TPD_OK);
	for (unsigned relation = 0; relation < RELATIONS; relation++)
		for (unsigned i = 0; i < TPD_ARRAY_LEN(sizes); i++)
			for (unsigned kind = 0; kind < (relation == ALONE ? FILLS : 1); kind++)
				check_case(codec, dtype, (enum relation)relation, (enum fill)kind, sizes[i],
					   sizes[i] < 10000 ? 20 : 6, &seen);
	ck_assert_uint_eq(tpd_codec_mismatches(codec), 0);
	ck_assert_uint_gt(seen.accepted, 0);
	ck_assert_uint_gt(seen.refused, seen.accepted);
	tpd_codec_free(codec);
}
END_TEST

START_TEST(full_chunks_use_everything)
{
	static const enum tpd_dtype types[] = {TPD_DTYPE_BYTES, TPD_DTYPE_F32, TPD_DTYPE_BF16, TPD_DTYPE_F16,
					       TPD_DTYPE_I64, TPD_DTYPE_U8};
	struct tpd_codec *codec;
	struct seen seen = {0};

	seed = 0x9e3779b97f4a7c15ull;
	ck_assert_int_eq(tpd_codec_new(&codec, NULL), TPD_OK);
	for (unsigned relation = 0; relation < RELATIONS; relation++)
		for (unsigned i = 0; i < TPD_ARRAY_LEN(types); i++)
			check_case(codec, types[i], (enum relation)relation,
				   types[i] == TPD_DTYPE_BYTES ? TEXT : VALUES,
				   TPD_MIN(tpd_chunk_bytes(types[i]), 1u << 19), 2, &seen);
	/* Short ones: zstd as a coder is for at most 4096 symbols; one byte of two is constant in small integers. */
	for (unsigned i = 0; i < 40; i++)
		check_case(codec, i % 2 ? TPD_DTYPE_U8 : TPD_DTYPE_I16, ALONE, (enum fill)(i % FILLS), 1000 + 97 * i,
			   10, &seen);
	ck_assert_uint_eq(tpd_codec_mismatches(codec), 0);
	for (unsigned e = 0; e < TPD_ENCODING_COUNT; e++)
		ck_assert_msg(seen.encoding[e] > 0 || !tpd_encoding_is_known((enum tpd_encoding)e), "no payload is '%s'", tpd_encoding_name((enum tpd_encoding)e));
	for (unsigned c = 0; c < TPD_ARRAY_LEN(seen.coder); c++)
		ck_assert_msg(seen.coder[c] > 0, "no symbol stream has coder %u", c);
	for (unsigned c = 0; c < TPD_ARRAY_LEN(seen.gaps); c++)
		ck_assert_msg(seen.gaps[c] > 0, "no gap stream has code %u", c);
	tpd_codec_free(codec);
}
END_TEST

/* Payloads by hand: the example of the format's text, and what an encoder would not write. */
#define HEX(bytes) (const uint8_t *)(bytes), sizeof(bytes) - 1

static const struct {
	const char *what;
	unsigned encoding;
	enum tpd_dtype dtype;
	const uint8_t *payload;
	size_t payload_len;
	const uint8_t *ref;
	size_t ref_len;
	size_t len;
	const char *out; /* NULL: refused */
} by_hand[] = {
	{"the worked example", 6, TPD_DTYPE_BF16,
	 HEX("\2\0\2\0" "\1\x7f" "\0\x82\x80" "\1\0\0\0" "\1\0\0\0"), HEX("\x80\x3f\0\0"), 4, "\x81\x3f\1\x80"},
	{"|x| one below B", 6, TPD_DTYPE_BF16,
	 HEX("\2\0\2\0" "\1\x7f" "\0\x82\x80" "\1\0\0\0" "\xff\x3b\0\0"), HEX("\x80\x3f\0\0"), 4, "\x81\x3f\xff\xbb"},
	{"|x| at B", 6, TPD_DTYPE_BF16,
	 HEX("\2\0\2\0" "\1\x7f" "\0\x82\x80" "\1\0\0\0" "\0\x3c\0\0"), HEX("\x80\x3f\0\0"), 4, NULL},
	{"|x| below 2^15", 6, TPD_DTYPE_BF16,
	 HEX("\1\0\1\0" "\1\2" "\0\x82" "\0\0\0\0"), HEX("\xfe\x7f"), 2, "\xff\x7f"},
	{"|x| at 2^15", 6, TPD_DTYPE_BF16,
	 HEX("\1\0\1\0" "\1\2" "\0\x82" "\0\0\0\0"), HEX("\xff\x7f"), 2, NULL},
	{"a bit left in a queue", 6, TPD_DTYPE_BF16,
	 HEX("\2\0\2\0" "\1\x7f" "\0\x82\x80" "\1\0\0\0" "\1\x40\0\0"), HEX("\x80\x3f\0\0"), 4, NULL},
	{"a word left", 6, TPD_DTYPE_BF16,
	 HEX("\2\0\2\0" "\1\x7f" "\0\x82\x80" "\2\0\0\0" "\1\0\0\0\0\0\0\0"), HEX("\x80\x3f\0\0"), 4, NULL},
	{"T = 0", 6, TPD_DTYPE_BF16,
	 HEX("\2\0\2\0" "\1\0" "\0\x82\x80" "\1\0\0\0" "\1\0\0\0"), HEX("\x80\x3f\0\0"), 4, NULL},
	{"T = Tmax + 1", 6, TPD_DTYPE_BF16,
	 HEX("\2\0\2\0" "\1\xff" "\0\x82\x80" "\1\0\0\0" "\1\0\0\0"), HEX("\x80\x3f\0\0"), 4, NULL},
	{"first = row + 1", 6, TPD_DTYPE_BF16,
	 HEX("\2\0\3\0" "\1\x7f" "\0\x82\x80" "\1\0\0\0" "\1\0\0\0"), HEX("\x80\x3f\0\0"), 4, NULL},
	{"grid of integers", 6, TPD_DTYPE_I16,
	 HEX("\2\0\2\0" "\1\x7f" "\0\x82\x80" "\1\0\0\0" "\1\0\0\0"), HEX("\x80\x3f\0\0"), 4, NULL},
	{"grid: the words told short", 6, TPD_DTYPE_BF16,
	 HEX("\2\0\2\0" "\1\x7f" "\0\x82\x80" "\1\0\0\x80" "\0" "\1"), HEX("\x80\x3f\0\0"), 4, "\x81\x3f\1\x80"},
	{"grid: told short, and longer than it need be", 6, TPD_DTYPE_BF16,
	 HEX("\2\0\2\0" "\1\x7f" "\0\x82\x80" "\1\0\0\x80" "\1" "\1\0"), HEX("\x80\x3f\0\0"), 4, "\x81\x3f\1\x80"},
	{"grid: a length of a word that there is not", 6, TPD_DTYPE_BF16,
	 HEX("\2\0\2\0" "\1\x7f" "\0\x82\x80" "\1\0\0\x80" "\4" "\1"), HEX("\x80\x3f\0\0"), 4, NULL},
	{"grid: told short, and cut", 6, TPD_DTYPE_BF16,
	 HEX("\2\0\2\0" "\1\x7f" "\0\x82\x80" "\1\0\0\x80" "\1" "\1"), HEX("\x80\x3f\0\0"), 4, NULL},
	{"grid: told short, and a byte more", 6, TPD_DTYPE_BF16,
	 HEX("\2\0\2\0" "\1\x7f" "\0\x82\x80" "\1\0\0\x80" "\0" "\1\0"), HEX("\x80\x3f\0\0"), 4, NULL},
	{"grid: no words told short", 6, TPD_DTYPE_BF16, HEX("\1\0\1\0" "\1\2" "\0\x82" "\0\0\0\x80"), HEX("\xfe\x7f"), 2, "\xff\x7f"},
	{"grid: too many words told short", 6, TPD_DTYPE_BF16,
	 HEX("\1\0\1\0" "\1\2" "\0\x82" "\1\x08\0\x80"), HEX("\xfe\x7f"), 2, NULL},
	{"grid of no elements", 6, TPD_DTYPE_F32, HEX("\1\0\1\0" "\0" "\0" "\0\0\0\0" "abc"), HEX("zz"), 3, "abc"},
	{"grid of no elements with a T", 6, TPD_DTYPE_F32,
	 HEX("\1\0\1\0" "\1\1" "\0" "\0\0\0\0" "abc"), HEX("zz"), 3, NULL},
	{"sparse: nothing changed", 5, TPD_DTYPE_U8, HEX("\0\0\0" "\0\0\0\0" "\0" "\0\0\0\0"), HEX("ab"), 2, "ab"},
	{"sparse: zeros go on", 5, TPD_DTYPE_U8, HEX("\0\0\0" "\0\0\0\0" "\0" "\0\0\0\0"), HEX("ab"), 3, "ab\0"},
	{"sparse: the empty reference", 5, TPD_DTYPE_U8, HEX("\0\0\0" "\0\0\0\0" "\0" "\0\0\0\0"), HEX(""), 2, "\0\0"},
	{"sparse: a reference cut", 5, TPD_DTYPE_U8, HEX("\0\0\0" "\0\0\0\0" "\0" "\0\0\0\0"), HEX("abc"), 2, "ab"},
	{"sparse: d = 0", 5, TPD_DTYPE_U8, HEX("\0\0\1" "\1\0\0\0\x80" "\0\x81" "\0\0\0\0"), HEX("ab"), 2, "ab"},
	{"sparse: d = 1", 5, TPD_DTYPE_U8, HEX("\0\0\1" "\1\0\0\0\x80" "\0\x82" "\0\0\0\0"), HEX("ab"), 2, "bb"},
	{"sparse: symbol 1", 5, TPD_DTYPE_U8, HEX("\0\0\1" "\1\0\0\0\x80" "\0\1" "\0\0\0\0"), HEX("ab"), 2, NULL},
	{"sparse: +0 that was +0", 5, TPD_DTYPE_U8,
	 HEX("\0\0\1" "\1\0\0\0\x80" "\0\2" "\0\0\0\0"), HEX("\0b"), 2, "\0b"},
	{"sparse: a filling bit", 5, TPD_DTYPE_U8,
	 HEX("\0\0\1" "\1\0\0\0\x81" "\0\x82" "\0\0\0\0"), HEX("ab"), 2, NULL},
	{"sparse: a filling byte", 5, TPD_DTYPE_U8,
	 HEX("\0\0\1" "\2\0\0\0\x80\0" "\0\x82" "\0\0\0\0"), HEX("ab"), 2, NULL},
	{"sparse: a gap that is not there", 5, TPD_DTYPE_U8,
	 HEX("\0\0\1" "\0\0\0\0" "\0\x82" "\0\0\0\0"), HEX("ab"), 2, NULL},
	{"sparse: m in two bytes", 5, TPD_DTYPE_U8,
	 HEX("\0\0\x81\0" "\1\0\0\0\x80" "\0\x82" "\0\0\0\0"), HEX("ab"), 2, NULL},
	{"sparse: position n", 5, TPD_DTYPE_U8, HEX("\1\0\1" "\1\0\0\0\xc0" "\0\x82" "\0\0\0\0"), HEX("ab"), 2, NULL},
	{"sparse: Rice", 5, TPD_DTYPE_U8, HEX("\1\0\1" "\1\0\0\0\x80" "\0\x82" "\0\0\0\0"), HEX("ab"), 2, "ac"},
	{"sparse: Rice, k = 31", 5, TPD_DTYPE_U8,
	 HEX("\1\x1f\1" "\4\0\0\0\0\0\0\1" "\0\x82" "\0\0\0\0"), HEX("ab"), 2, "ac"},
	{"sparse: Rice, k = 32", 5, TPD_DTYPE_U8,
	 HEX("\1\x20\1" "\5\0\0\0\0\0\0\0\x80" "\0\x82" "\0\0\0\0"), HEX("ab"), 2, NULL},
	{"sparse: Elias delta with a k", 5, TPD_DTYPE_U8,
	 HEX("\0\1\1" "\1\0\0\0\x80" "\0\x82" "\0\0\0\0"), HEX("ab"), 2, NULL},
	{"sparse: code 2", 5, TPD_DTYPE_U8, HEX("\2\0\1" "\1\0\0\0\x80" "\0\x82" "\0\0\0\0"), HEX("ab"), 2, NULL},
	{"sparse: an escape to p", 5, TPD_DTYPE_U8,
	 HEX("\0\0\1" "\1\0\0\0\x80" "\0\0" "\1\0\0\0a\0\0\0"), HEX("ab"), 2, "ab"},
	{"planes: rotation of integers", 4, TPD_DTYPE_U8, HEX("\1" "\1z"), HEX(""), 3, NULL},
	{"planes: no element", 4, TPD_DTYPE_F32, HEX("\0" "\0\0\0\0" "abc"), HEX(""), 3, "abc"},
	{"planes: an empty constant", 4, TPD_DTYPE_F32, HEX("\0" "\1\0\0\0\0" "abc"), HEX(""), 3, NULL},
	{"planes: coder 5", 4, TPD_DTYPE_U8, HEX("\0" "\5z"), HEX(""), 3, NULL},
	{"rANS: one symbol", 4, TPD_DTYPE_U8,
	 HEX("\0" "\3\0\5\6" "\x80\x10\x80\x10" "\0\0\0\0" "\0\0\1\0"), HEX(""), 1, "\5"},
	{"rANS: another last state", 4, TPD_DTYPE_U8,
	 HEX("\0" "\3\0\5\6" "\x80\x10\x80\x10" "\0\0\0\0" "\1\0\1\0"), HEX(""), 1, NULL},
	{"rANS: a word too many", 4, TPD_DTYPE_U8,
	 HEX("\0" "\3\0\5\6" "\x80\x10\x80\x10" "\1\0\0\0" "\0\0\1\0" "\0\0"), HEX(""), 1, NULL},
	{"rANS: sum 4095", 4, TPD_DTYPE_U8,
	 HEX("\0" "\3\0\5\6" "\x80\x10\xff\x0f" "\0\0\0\0" "\0\0\1\0"), HEX(""), 1, NULL},
	{"rANS: first = last", 4, TPD_DTYPE_U8,
	 HEX("\0" "\3\0\5\5" "\x80\x20" "\0\0\0\0" "\0\x80\0\0"), HEX(""), 1, NULL},
	{"rANS: a frequency of 0 at the beginning", 4, TPD_DTYPE_U8,
	 HEX("\0" "\3\0\5\7" "\0\0" "\x80\x10\x80\x10" "\0\0\0\0" "\0\0\1\0"), HEX(""), 1, NULL},
	{"rANS: state 0, and the word that would mend it", 4, TPD_DTYPE_U8,
	 HEX("\0" "\3\0\5\6" "\x80\x10\x80\x10" "\1\0\0\0" "\0\0\0\0" "\0\x80"), HEX(""), 1, NULL},
	{"rANS: a state of 2^31 and more that ends well", 4, TPD_DTYPE_U8,
	 HEX("\0" "\3\0\5\7" "\1\x80\2\xff\x1d" "\0\0\0\0" "\0\x10\0\x80"), HEX(""), 2, NULL},
	{"rANS: zeros in two runs", 4, TPD_DTYPE_U8,
	 HEX("\0" "\3\0\5\x0a" "\x80\x10" "\0\1" "\0\1" "\x80\x10" "\0\0\0\0" "\0\0\1\0"), HEX(""), 1, "\5"},
	{"rANS: zeros up to the last", 4, TPD_DTYPE_U8,
	 HEX("\0" "\3\0\5\x0a" "\x80\x10" "\0\4" "\0\0\0\0" "\0\0\1\0"), HEX(""), 1, NULL},
	{"rANS: a frequency of 0 at the end", 4, TPD_DTYPE_U8,
	 HEX("\0" "\3\0\5\6" "\x80\x20" "\0\0" "\0\0\0\0" "\0\0\1\0"), HEX(""), 1, NULL},
	{"zstd: 5 bytes, window 2^23", 2, TPD_DTYPE_BYTES,
	 HEX("\x28\xb5\x2f\xfd\0\x68" "\x29\0\0" "hello"), HEX(""), 5, "hello"},
	{"zstd: window 2^23 + 2^20", 2, TPD_DTYPE_BYTES,
	 HEX("\x28\xb5\x2f\xfd\0\x69" "\x29\0\0" "hello"), HEX(""), 5, NULL},
	{"zstd: a skippable frame first", 2, TPD_DTYPE_BYTES,
	 HEX("\x50\x2a\x4d\x18\1\0\0\0x" "\x28\xb5\x2f\xfd\0\x68" "\x29\0\0" "hello"), HEX(""), 5, NULL},
	{"zstd: a skippable frame last", 2, TPD_DTYPE_BYTES,
	 HEX("\x28\xb5\x2f\xfd\0\x68" "\x29\0\0" "hello" "\x50\x2a\x4d\x18\1\0\0\0x"), HEX(""), 5, NULL},
	{"zstd: two frames", 2, TPD_DTYPE_BYTES,
	 HEX("\x28\xb5\x2f\xfd\0\x68" "\x11\0\0" "he" "\x28\xb5\x2f\xfd\0\x68" "\x19\0\0" "llo"), HEX(""), 5, NULL},
	{"zstd-ref: the empty reference", 3, TPD_DTYPE_BYTES,
	 HEX("\x28\xb5\x2f\xfd\0\x68" "\x29\0\0" "hello"), HEX(""), 5, NULL},
	{"copy of a longer reference", 1, TPD_DTYPE_BYTES, HEX(""), HEX("abc"), 2, NULL},
	{"raw, a byte short", 0, TPD_DTYPE_BYTES, HEX("ab"), HEX(""), 3, NULL},
	/* F64: 1.0 and the next but one: T = 1023, so that Q counts ulps of 1.0 */
	{"F64: two ulps", 6, TPD_DTYPE_F64,
	 HEX("\0" "\1\0\1\0" "\0\xff" "\0\3" "\0\x83" "\0\0\0\0"), HEX("\0\0\0\0\0\0\xf0\x3f"), 8, "\2\0\0\0\0\0\xf0\x3f"},
	{"F64: without its low 4 bits", 6, TPD_DTYPE_F64,
	 HEX("\4" "\1\0\1\0" "\0\xff" "\0\3" "\0\x83" "\0\0\0\0"), HEX("\7\0\0\0\0\0\xf0\x3f"), 8, "\x20\0\0\0\0\0\xf0\x3f"},
	{"F64: an escape of two words", 6, TPD_DTYPE_F64,
	 HEX("\0" "\1\0\1\0" "\0\1" "\0\0" "\0\0" "\2\0\0\0abcdefgh"), HEX(""), 8, "abcdefgh"},
	{"F64: all but its exponent and 1 bit cut", 6, TPD_DTYPE_F64,
	 HEX("\x33" "\1\0\1\0" "\0\1" "\0\0" "\0\0" "\1\0\0\0\1\0\0\0"), HEX(""), 8, "\0\0\0\0\0\0\x08\0"},
	{"F64: no bit left", 6, TPD_DTYPE_F64,
	 HEX("\x34" "\1\0\1\0" "\0\1" "\0\0" "\0\0" "\1\0\0\0\1\0\0\0"), HEX(""), 8, NULL},
	{"F64: T = 0", 6, TPD_DTYPE_F64, HEX("\0" "\1\0\1\0" "\0\0" "\0\0" "\0\1" "\0\0\0\0"), HEX(""), 8, NULL},
	{"F64: T = 2047", 6, TPD_DTYPE_F64, HEX("\0" "\1\0\1\0" "\0\xff" "\0\7" "\0\1" "\0\0\0\0"), HEX(""), 8, NULL},
	{"F64: |x| below 2^63", 6, TPD_DTYPE_F64,
	 HEX("\0" "\1\0\1\0" "\0\2" "\0\0" "\0\x82" "\0\0\0\0"), HEX("\xfe\xff\xff\xff\xff\xff\xff\x7f"), 8,
	 "\xff\xff\xff\xff\xff\xff\xff\x7f"},
	{"F64: |x| at 2^63", 6, TPD_DTYPE_F64,
	 HEX("\0" "\1\0\1\0" "\0\2" "\0\0" "\0\x82" "\0\0\0\0"), HEX("\xff\xff\xff\xff\xff\xff\xff\x7f"), 8, NULL},
	{"F64: |x| at B", 6, TPD_DTYPE_F64, /* T = 3: B = 4, 2 bits */
	 HEX("\0" "\1\0\1\0" "\0\3" "\0\0" "\0\x81" "\1\0\0\0\4\0\0\0"), HEX(""), 8, NULL},
	{"F64: |x| below B", 6, TPD_DTYPE_F64,
	 HEX("\0" "\1\0\1\0" "\0\3" "\0\0" "\0\x81" "\1\0\0\0\3\0\0\0"), HEX(""), 8, "\3\0\0\0\0\0\0\0"},
	{"integers: values", 14, TPD_DTYPE_I16, HEX("\0\1" "\0\1\2"), HEX("zzzz"), 4, "\1\0\2\0"},
	{"integers: zigzag", 14, TPD_DTYPE_I16, HEX("\2\1" "\0\1\2"), HEX(""), 4, "\xff\xff\1\0"},
	{"integers: from the one before", 14, TPD_DTYPE_I16, HEX("\3\1" "\0\4\1"), HEX(""), 4, "\2\0\1\0"},
	{"integers: and a byte behind them", 14, TPD_DTYPE_I16, HEX("\1\1" "\0\4\1" "x"), HEX(""), 5, "\4\0\5\0x"},
	{"integers: all bytes 0", 14, TPD_DTYPE_I64, HEX("\1\0"), HEX(""), 8, "\0\0\0\0\0\0\0\0"},
	{"integers: as many bytes as an element", 14, TPD_DTYPE_U16, HEX("\0\2" "\0\1" "\0\2"), HEX(""), 2, "\1\2"},
	{"integers: more than that", 14, TPD_DTYPE_U16, HEX("\0\3" "\0\1" "\0\2" "\0\0"), HEX(""), 2, NULL},
	{"integers: a byte too many", 14, TPD_DTYPE_U16, HEX("\0\1" "\0\1" "\0"), HEX(""), 2, NULL},
	{"integers: form 8", 14, TPD_DTYPE_U16, HEX("\x08\1" "\0\1"), HEX(""), 2, NULL},
	{"integers: a frame", 14, TPD_DTYPE_I16, HEX("\4\1" "\x28\xb5\x2f\xfd\0\x68" "\x11\0\0" "he"), HEX(""), 4, "h\0e\0"},
	{"integers: a frame and a byte behind it", 14, TPD_DTYPE_I16,
	 HEX("\4\1" "\x28\xb5\x2f\xfd\0\x68" "\x11\0\0" "he" "x"), HEX(""), 5, "h\0e\0x"},
	{"integers: a frame that is too long", 14, TPD_DTYPE_I16, HEX("\4\1" "\x28\xb5\x2f\xfd\0\x68" "\x19\0\0" "hel"), HEX(""), 4, NULL},
	{"integers: a frame of nothing", 14, TPD_DTYPE_I16, HEX("\4\0"), HEX(""), 4, "\0\0\0\0"},
	{"integers-ref: the reference itself", 15, TPD_DTYPE_I16, HEX("\0\0"), HEX("abcd"), 4, "abcd"},
	{"integers-ref: one more than it", 15, TPD_DTYPE_I16, HEX("\0\1" "\0\1\1"), HEX("\xff\xff"), 4, "\0\0\1\0"},
	{"integers-ref: sums of differences", 15, TPD_DTYPE_I16, HEX("\3\1" "\0\2\2"), HEX("\5\0\5\0"), 4, "\6\0\7\0"},
	{"integers of floats", 14, TPD_DTYPE_F16, HEX("\0\1" "\0\1"), HEX(""), 2, NULL},
	{"integers of bytes", 14, TPD_DTYPE_U8, HEX("\0\1" "\0\1"), HEX(""), 1, NULL},
	{"encoding 13", 13, TPD_DTYPE_I16, HEX("\0\1" "\0\1"), HEX(""), 2, NULL},
	{"encoding 7", 7, TPD_DTYPE_BYTES, HEX("ab"), HEX(""), 2, NULL},
};

START_TEST(payloads_by_hand)
{
	struct tpd_codec *codec;
	uint8_t out[8];
	bool accepted;
	int other;

	ck_assert_int_eq(tpd_codec_new(&codec, NULL), TPD_OK);
	other = second_decode(by_hand[_i].encoding, by_hand[_i].dtype, by_hand[_i].payload, by_hand[_i].payload_len,
			      by_hand[_i].ref, by_hand[_i].ref_len, out, by_hand[_i].len);
	ck_assert_msg((other == SECOND_OK) == (by_hand[_i].out != NULL), "%s: second %d", by_hand[_i].what, other);
	if (by_hand[_i].out)
		ck_assert_msg(memcmp(out, by_hand[_i].out, by_hand[_i].len) == 0, "%s: wrong bytes", by_hand[_i].what);
	accepted = agree(codec, by_hand[_i].encoding, by_hand[_i].dtype, by_hand[_i].payload, by_hand[_i].payload_len,
			 by_hand[_i].ref, by_hand[_i].ref_len, out, by_hand[_i].len);
	ck_assert_msg(accepted == (by_hand[_i].out != NULL), "%s", by_hand[_i].what);
	tpd_codec_free(codec);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("second_decoder");
	TCase *tc = tcase_create("all");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tc, 300);
	tcase_add_loop_test(tc, payloads_by_hand, 0, (int)TPD_ARRAY_LEN(by_hand));
	tcase_add_loop_test(tc, every_type_and_relation, 0, TPD_DTYPE_COUNT);
	tcase_add_test(tc, full_chunks_use_everything);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed > 0;
}
