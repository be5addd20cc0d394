/*
 * t_codec_corrupt.c - what a decoder must refuse.  Each case builds honest bytes, asserts that they decode to what they
 * say, changes one field and expects one exact status.
 */
#include "base/tpd.h"

#include "codec/codec.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

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
	tpd_codec_free(codec);
}

/* ---- Zstandard ---- */

static size_t frame_of(const uint8_t *data, size_t len, int window_log, bool content_size, uint8_t *out, size_t cap)
{
	ZSTD_CCtx *context = ZSTD_createCCtx();
	size_t size;

	ck_assert(context);
	if (window_log)
		ck_assert(!ZSTD_isError(ZSTD_CCtx_setParameter(context, ZSTD_c_windowLog, window_log)));
	if (content_size) {
		size = ZSTD_compress2(context, out, cap, data, len);
	} else { /* a streamed frame does not know its size, so it names its window */
		ZSTD_inBuffer in = {.src = data, .size = len};
		ZSTD_outBuffer to = {.dst = out, .size = cap};

		while (in.pos < in.size)
			ck_assert(!ZSTD_isError(ZSTD_compressStream2(context, &to, &in, ZSTD_e_continue)));
		ck_assert_uint_eq(ZSTD_compressStream2(context, &to, &in, ZSTD_e_end), 0);
		size = to.pos;
	}
	ck_assert(!ZSTD_isError(size));
	ZSTD_freeCCtx(context);
	return size;
}

static enum tpd_status decode_zstd(const uint8_t *frame, size_t len, const uint8_t *ref, size_t ref_len, uint8_t *out,
				   size_t out_len)
{
	uint8_t *copy = malloc(len + 1);
	enum tpd_status status;

	ck_assert(copy);
	memcpy(copy, frame, len);
	status = tpd_decode_chunk(codec, ref ? TPD_ENCODING_ZSTD_REF : TPD_ENCODING_ZSTD, TPD_DTYPE_BYTES, copy, len,
				  ref, ref_len, out, out_len, NULL);
	free(copy);
	return status;
}

START_TEST(zstd_frames)
{
	enum { N = 3000 };
	uint8_t data[N], out[N + 1], frame[2 * N + 100], other[100];
	size_t len, skippable = 8 + 5;

	for (size_t i = 0; i < N; i++)
		data[i] = (uint8_t)(i * i >> 7);
	len = frame_of(data, N, 0, true, frame, sizeof frame);
	ck_assert_int_eq(decode_zstd(frame, len, NULL, 0, out, N), TPD_OK);
	ck_assert_mem_eq(out, data, N);
	ck_assert_int_eq(decode_zstd(frame, len, NULL, 0, out, N + 1), TPD_CORRUPT);
	ck_assert_int_eq(decode_zstd(frame, len, NULL, 0, out, N - 1), TPD_CORRUPT);
	for (size_t cut = 0; cut < len; cut++)
		ck_assert_int_eq(decode_zstd(frame, cut, NULL, 0, out, N), TPD_CORRUPT);
	frame[len] = 0;
	ck_assert_int_eq(decode_zstd(frame, len + 1, NULL, 0, out, N), TPD_CORRUPT);
	/* a second frame, be it one that decodes to nothing */
	memcpy(frame + len, "\x50\x2a\x4d\x18\5\0\0\0hello", skippable);
	ck_assert_int_eq(decode_zstd(frame, len + skippable, NULL, 0, out, N), TPD_CORRUPT);
	ck_assert_int_eq(decode_zstd(frame + len, skippable, NULL, 0, out, N), TPD_CORRUPT);
	memmove(frame + skippable, frame, len);
	memcpy(frame, "\x50\x2a\x4d\x18\5\0\0\0hello", skippable);
	ck_assert_int_eq(decode_zstd(frame, len + skippable, NULL, 0, out, N), TPD_CORRUPT);
	/* windows: 2^23 is the largest */
	len = frame_of(data, N, 23, false, frame, sizeof frame);
	ck_assert_int_eq(decode_zstd(frame, len, NULL, 0, out, N), TPD_OK);
	len = frame_of(data, N, 24, false, frame, sizeof frame);
	ck_assert_int_eq(decode_zstd(frame, len, NULL, 0, out, N), TPD_CORRUPT);
	/* an older format's magic number, and a reserved bit */
	len = frame_of(data, N, 0, true, frame, sizeof frame);
	frame[0] = 0x27;
	ck_assert_int_eq(decode_zstd(frame, len, NULL, 0, out, N), TPD_CORRUPT);
	frame[0] = 0x28;
	frame[4] |= 8;
	ck_assert_int_eq(decode_zstd(frame, len, NULL, 0, out, N), TPD_CORRUPT);
	ck_assert_uint_gt(frame_of(data, 10, 0, true, other, sizeof other), 10);
}
END_TEST

/* Four gigabytes of zeros in a few hundred kilobytes would be more than anybody asked for. */
START_TEST(zstd_bomb)
{
	enum { N = 1 << 22 };
	uint8_t *zeros = calloc(1, 2 * N), *frame = malloc(1 << 16), *out = malloc(N);
	size_t len;

	ck_assert(zeros && frame && out);
	len = frame_of(zeros, N, 0, true, frame, 1 << 16);
	ck_assert_int_eq(decode_zstd(frame, len, NULL, 0, out, N), TPD_OK);
	ck_assert_int_eq(decode_zstd(frame, len, NULL, 0, out, 1000), TPD_CORRUPT);
	len = frame_of(zeros, 2 * N, 0, false, frame, 1 << 16);
	ck_assert_int_eq(decode_zstd(frame, len, NULL, 0, out, N), TPD_CORRUPT);
	free(zeros);
	free(frame);
	free(out);
}
END_TEST

START_TEST(zstd_with_a_reference)
{
	uint8_t x[2000], ref[2000], out[2000], frame[3000];
	struct tpd_plan plan = {.encoding = TPD_ENCODING_ZSTD_REF, .dtype = TPD_DTYPE_BYTES, .row = 1};
	struct tpd_chunk chunk = {.x = x, .len = sizeof x, .p = ref, .ref_len = sizeof ref};
	enum tpd_encoding encoding;
	size_t len;

	for (size_t i = 0; i < sizeof ref; i++)
		ref[i] = x[i] = (uint8_t)next_random();
	x[1000] ^= 1;
	ck_assert_int_eq(tpd_encode_chunk(codec, &plan, &chunk, frame, &encoding, &len, NULL), TPD_OK);
	ck_assert_int_eq(encoding, TPD_ENCODING_SPARSE); /* shorter, for a change in place */
	memmove(x + 1, ref, sizeof x - 1);
	ck_assert_int_eq(tpd_encode_chunk(codec, &plan, &chunk, frame, &encoding, &len, NULL), TPD_OK);
	ck_assert_int_eq(encoding, TPD_ENCODING_ZSTD_REF);
	ck_assert_int_eq(decode_zstd(frame, len, ref, sizeof ref, out, sizeof out), TPD_OK);
	ck_assert_mem_eq(out, x, sizeof x);
	ck_assert_int_eq(decode_zstd(frame, len, ref, 0, out, sizeof out), TPD_CORRUPT);
	ck_assert_int_eq(decode_zstd(frame, len, ref, 10, out, sizeof out), TPD_CORRUPT);
	ck_assert_int_eq(decode_zstd(frame, len, NULL, 0, out, sizeof out), TPD_CORRUPT);
}
END_TEST

/* ---- raw, copy, and what a chunk is asked for ---- */

START_TEST(raw_and_copy)
{
	static const uint8_t bytes[] = {1, 2, 3, 4};
	uint8_t out[5];

	ck_assert_int_eq(tpd_decode_chunk(codec, TPD_ENCODING_RAW, TPD_DTYPE_F32, bytes, 4, NULL, 0, out, 4, NULL),
			 TPD_OK);
	ck_assert_mem_eq(out, bytes, 4);
	ck_assert_int_eq(tpd_decode_chunk(codec, TPD_ENCODING_RAW, TPD_DTYPE_F32, bytes, 4, NULL, 0, out, 3, NULL),
			 TPD_CORRUPT);
	ck_assert_int_eq(tpd_decode_chunk(codec, TPD_ENCODING_RAW, TPD_DTYPE_F32, bytes, 4, NULL, 0, out, 5, NULL),
			 TPD_CORRUPT);
	ck_assert_int_eq(tpd_decode_chunk(codec, TPD_ENCODING_COPY, TPD_DTYPE_F32, NULL, 0, bytes, 4, out, 4, NULL),
			 TPD_OK);
	ck_assert_mem_eq(out, bytes, 4);
	ck_assert_int_eq(tpd_decode_chunk(codec, TPD_ENCODING_COPY, TPD_DTYPE_F32, NULL, 0, bytes, 4, out, 3, NULL),
			 TPD_CORRUPT);
	ck_assert_int_eq(tpd_decode_chunk(codec, TPD_ENCODING_COPY, TPD_DTYPE_F32, NULL, 0, bytes, 3, out, 4, NULL),
			 TPD_CORRUPT);
	ck_assert_int_eq(tpd_decode_chunk(codec, TPD_ENCODING_COPY, TPD_DTYPE_F32, NULL, 0, NULL, 0, out, 4, NULL),
			 TPD_CORRUPT);
	ck_assert_int_eq(tpd_decode_chunk(codec, TPD_ENCODING_COPY, TPD_DTYPE_F32, bytes, 1, bytes, 4, out, 4, NULL),
			 TPD_CORRUPT);
	ck_assert_int_eq(tpd_decode_chunk(codec, (enum tpd_encoding)8, TPD_DTYPE_F32, (const uint8_t[]){1, 4, 0, 0}, 4, NULL, 0, out, 4, NULL),
			 TPD_UNSUPPORTED);
	ck_assert_int_eq(tpd_decode_chunk(codec, TPD_ENCODING_RAW, TPD_DTYPE_COUNT, bytes, 4, NULL, 0, out, 4, NULL),
			 TPD_UNSUPPORTED);
	ck_assert_int_eq(tpd_decode_chunk(codec, TPD_ENCODING_RAW, TPD_DTYPE_F32, bytes, 0, NULL, 0, out, 0, NULL),
			 TPD_CORRUPT);
}
END_TEST

/* ---- planes ---- */

static enum tpd_status decode_typed(enum tpd_encoding encoding, enum tpd_dtype dtype, const uint8_t *payload,
				    size_t len, const uint8_t *ref, size_t ref_len, uint8_t *out, size_t out_len)
{
	uint8_t *copy = malloc(len + (len == 0));
	enum tpd_status status;

	ck_assert(copy);
	if (len > 0)
		memcpy(copy, payload, len);
	status = tpd_decode_chunk(codec, encoding, dtype, copy, len, ref, ref_len, out, out_len, NULL);
	free(copy);
	return status;
}

START_TEST(planes_fields)
{
	/* two U16: 0x1234 and 0x1256, then a left-over byte: low bytes raw, high bytes constant */
	static const uint8_t honest[] = {0, 0, 0x34, 0x56, 1, 0x12, 0x99};
	static const uint8_t want[] = {0x34, 0x12, 0x56, 0x12, 0x99};
	/* rotated left by one, 0x8012 is 0x0025 */
	static const uint8_t rotated[] = {1, 0, 0x25, 0, 0x00};
	uint8_t bytes[sizeof honest + 1] = {0}, out[6];

	memcpy(bytes, honest, sizeof honest);
	ck_assert_int_eq(decode_typed(TPD_ENCODING_PLANES, TPD_DTYPE_U16, bytes, sizeof honest, NULL, 0, out, 5),
			 TPD_OK);
	ck_assert_mem_eq(out, want, 5);
	for (size_t cut = 0; cut < sizeof honest; cut++)
		ck_assert_int_eq(decode_typed(TPD_ENCODING_PLANES, TPD_DTYPE_U16, bytes, cut, NULL, 0, out, 5),
				 TPD_CORRUPT);
	ck_assert_int_eq(decode_typed(TPD_ENCODING_PLANES, TPD_DTYPE_U16, bytes, sizeof honest + 1, NULL, 0, out, 5),
			 TPD_CORRUPT);
	ck_assert_int_eq(decode_typed(TPD_ENCODING_PLANES, TPD_DTYPE_U16, bytes, sizeof honest, NULL, 0, out, 4),
			 TPD_CORRUPT);
	bytes[0] = 1; /* U16 must not be rotated */
	ck_assert_int_eq(decode_typed(TPD_ENCODING_PLANES, TPD_DTYPE_U16, bytes, sizeof honest, NULL, 0, out, 5),
			 TPD_CORRUPT);
	ck_assert_int_eq(decode_typed(TPD_ENCODING_PLANES, TPD_DTYPE_BF16, bytes, sizeof honest, NULL, 0, out, 5),
			 TPD_OK);
	bytes[0] = 2;
	ck_assert_int_eq(decode_typed(TPD_ENCODING_PLANES, TPD_DTYPE_BF16, bytes, sizeof honest, NULL, 0, out, 5),
			 TPD_CORRUPT);
	ck_assert_int_eq(decode_typed(TPD_ENCODING_PLANES, TPD_DTYPE_F16, rotated, sizeof rotated, NULL, 0, out, 2),
			 TPD_OK);
	ck_assert_uint_eq(tpd_get_u16(out), 0x8012);
}
END_TEST

/* ---- sparse ---- */

/* U16, ten elements of 1000 and a left-over byte: element 2 becomes 1003, element 6 becomes 0, element 9 is 0xbeef. */
static struct sparse_parts honest_sparse(void)
{
	/* Rice 1, gaps 3, 4, 3: 10 0 | 10 1 | 10 0, seven zeros */
	struct sparse_parts parts = {.code = 1,
				     .k = 1,
				     .m = 3,
				     .gaps_len = 2,
				     .gaps = {0x96, 0x00},
				     .gap_bytes = 2,
				     .symbols = {132, 2, 0},
				     .symbol_count = 3,
				     .words = 1,
				     .field_words = {0xbeef},
				     .word_count = 1,
				     .left = {0x77},
				     .left_len = 1};
	return parts;
}

static enum tpd_status decode_sparse(const struct sparse_parts *parts, uint8_t out[21])
{
	struct tpd_buf buf = {0};
	uint8_t ref[21] = {0};
	enum tpd_status status;

	for (size_t i = 0; i < 10; i++)
		tpd_put_u16(ref + 2 * i, 1000);
	build_sparse(&buf, parts);
	status = decode_typed(TPD_ENCODING_SPARSE, TPD_DTYPE_U16, buf.data, buf.len, ref, sizeof ref, out, 21);
	tpd_buf_release(&buf);
	return status;
}

START_TEST(sparse_fields)
{
	const struct sparse_parts honest = honest_sparse();
	struct sparse_parts parts = honest;
	struct tpd_buf buf = {0};
	uint8_t out[21], ref[21] = {0};

	ck_assert_int_eq(decode_sparse(&honest, out), TPD_OK);
	for (size_t i = 0; i < 10; i++)
		ck_assert_uint_eq(tpd_get_u16(out + 2 * i), i == 2 ? 1003 : i == 6 ? 0 : i == 9 ? 0xbeef : 1000);
	ck_assert_uint_eq(out[20], 0x77);

	parts.code = 2;
	ck_assert_int_eq(decode_sparse(&parts, out), TPD_UNSUPPORTED);
	parts = honest;
	parts.k = 32;
	ck_assert_int_eq(decode_sparse(&parts, out), TPD_CORRUPT);
	parts = honest;
	parts.code = 0; /* Elias delta has no parameter */
	ck_assert_int_eq(decode_sparse(&parts, out), TPD_CORRUPT);
	parts = honest;
	parts.m = 4; /* the zeros would be a fourth gap, but it is beyond n, and a symbol is missing */
	ck_assert_int_eq(decode_sparse(&parts, out), TPD_CORRUPT);
	parts = honest;
	parts.m = 2; /* what is left is no filling */
	ck_assert_int_eq(decode_sparse(&parts, out), TPD_CORRUPT);
	parts = honest;
	parts.m = 11; /* more than there are elements */
	ck_assert_int_eq(decode_sparse(&parts, out), TPD_CORRUPT);
	parts = honest;
	parts.m = UINT64_MAX;
	ck_assert_int_eq(decode_sparse(&parts, out), TPD_CORRUPT);
	parts.m = UINT64_C(1) << 60; /* not out of memory: nothing that large is asked for */
	ck_assert_int_eq(decode_sparse(&parts, out), TPD_CORRUPT);
	parts = honest;
	parts.gaps[1] = 1; /* filling that is not zero */
	ck_assert_int_eq(decode_sparse(&parts, out), TPD_CORRUPT);
	parts = honest;
	parts.gaps_len = parts.gap_bytes = 3; /* a byte too many */
	ck_assert_int_eq(decode_sparse(&parts, out), TPD_CORRUPT);
	parts = honest;
	parts.gaps_len = parts.gap_bytes = 1;
	ck_assert_int_eq(decode_sparse(&parts, out), TPD_CORRUPT);
	parts = honest;
	parts.gaps_len = UINT32_MAX;
	ck_assert_int_eq(decode_sparse(&parts, out), TPD_CORRUPT);
	parts = honest;
	parts.gaps[1] = 0x80; /* the last gap is 4: position 10 */
	ck_assert_int_eq(decode_sparse(&parts, out), TPD_CORRUPT);
	parts = honest;
	parts.symbols[0] = 1; /* "equal" is no change */
	ck_assert_int_eq(decode_sparse(&parts, out), TPD_CORRUPT);
	parts = honest;
	parts.symbols[0] = 0; /* a second escape, in another lane: no word for it */
	ck_assert_int_eq(decode_sparse(&parts, out), TPD_CORRUPT);
	parts = honest;
	parts.symbols[2] = 140; /* no escape: the word is left over */
	ck_assert_int_eq(decode_sparse(&parts, out), TPD_CORRUPT);
	parts = honest;
	parts.field_words[0] |= 0x10000; /* bits left in the queue */
	ck_assert_int_eq(decode_sparse(&parts, out), TPD_CORRUPT);
	parts = honest;
	parts.words = parts.word_count = 2;
	ck_assert_int_eq(decode_sparse(&parts, out), TPD_CORRUPT);
	parts = honest;
	parts.words = 0;
	ck_assert_int_eq(decode_sparse(&parts, out), TPD_CORRUPT);
	parts = honest;
	parts.words = UINT32_MAX;
	ck_assert_int_eq(decode_sparse(&parts, out), TPD_CORRUPT);
	parts = honest;
	parts.left_len = 0;
	ck_assert_int_eq(decode_sparse(&parts, out), TPD_CORRUPT);
	parts = honest;
	parts.left_len = 2;
	ck_assert_int_eq(decode_sparse(&parts, out), TPD_CORRUPT);

	build_sparse(&buf, &honest);
	for (size_t cut = 0; cut < buf.len; cut++)
		ck_assert_int_eq(decode_typed(TPD_ENCODING_SPARSE, TPD_DTYPE_U16, buf.data, cut, ref, 21, out, 21),
				 TPD_CORRUPT);
	/* no reference is a reference of zeros */
	ck_assert_int_eq(decode_typed(TPD_ENCODING_SPARSE, TPD_DTYPE_U16, buf.data, buf.len, NULL, 0, out, 21), TPD_OK);
	ck_assert_uint_eq(tpd_get_u16(out), 0);
	ck_assert_uint_eq(tpd_get_u16(out + 4), 3);
	tpd_buf_release(&buf);
}
END_TEST

START_TEST(sparse_without_changes)
{
	struct sparse_parts honest = {0}, parts;
	uint8_t out[21];

	honest.left_len = 1;
	ck_assert_int_eq(decode_sparse(&honest, out), TPD_OK);
	ck_assert_uint_eq(tpd_get_u16(out + 18), 1000);
	parts = honest;
	parts.gaps_len = parts.gap_bytes = 1;
	ck_assert_int_eq(decode_sparse(&parts, out), TPD_CORRUPT);
	parts = honest;
	parts.words = parts.word_count = 1;
	ck_assert_int_eq(decode_sparse(&parts, out), TPD_CORRUPT);
}
END_TEST

START_TEST(sparse_elias_codes)
{
	/* 0 10 0: a gap of 2, then zeros; BYTES, so that a chunk may be large */
	struct sparse_parts honest = {
		.m = 1, .gaps_len = 1, .gaps = {0x40}, .gap_bytes = 1, .symbols = {130}, .symbol_count = 1};
	struct sparse_parts parts;
	uint8_t out[3], ref[3] = {5, 6, 7};
	static const uint8_t bad[] = {0x00, 0x01, 0x02, 0x03, 0x20, 0x60, 0xc0, 0x41};
	struct tpd_buf buf = {0};

	build_sparse(&buf, &honest);
	ck_assert_int_eq(decode_typed(TPD_ENCODING_SPARSE, TPD_DTYPE_U8, buf.data, buf.len, ref, 3, out, 3), TPD_OK);
	ck_assert_mem_eq(out, "\5\7\7", 3);
	tpd_buf_release(&buf);
	for (size_t i = 0; i < sizeof bad; i++) {
		parts = honest;
		parts.gaps[0] = bad[i];
		build_sparse(&buf, &parts);
		ck_assert_int_eq(decode_typed(TPD_ENCODING_SPARSE, TPD_DTYPE_U8, buf.data, buf.len, ref, 3, out, 3),
				 TPD_CORRUPT);
		tpd_buf_release(&buf);
	}
	/* a length of 63 bits: 00000 111111 ..., in 64 bytes so that the fast way sees it */
	parts = honest;
	parts.gaps_len = parts.gap_bytes = 64;
	memset(parts.gaps, 0, 64);
	parts.gaps[0] = 0x07;
	parts.gaps[1] = 0xe0;
	build_sparse(&buf, &parts);
	ck_assert_int_eq(decode_typed(TPD_ENCODING_SPARSE, TPD_DTYPE_U8, buf.data, buf.len, ref, 3, out, 3),
			 TPD_CORRUPT);
	tpd_buf_release(&buf);
}
END_TEST

/* ---- grid ---- */

/* The worked example of SPEC.md section 12 with a third element, one row more, and a left-over byte. */
static struct grid_parts honest_grid(void)
{
	/* the third: p = 0x4000, x = 0x1234 escapes, 16 bits in lane 0 of the second piece; lane 1 comes first */
	struct grid_parts parts = {.row = 2,
				   .first = 2,
				   .steps = {127, 100},
				   .step_count = 2,
				   .symbols = {130, 128, 0},
				   .symbol_count = 3,
				   .words = 2,
				   .field_words = {1, 0x1234},
				   .word_count = 2,
				   .left = {0x55},
				   .left_len = 1};
	return parts;
}

static enum tpd_status decode_grid(const struct grid_parts *parts, enum tpd_dtype dtype, uint8_t out[7])
{
	static const uint8_t ref[] = {0x80, 0x3f, 0, 0, 0, 0x40, 0};
	struct tpd_buf buf = {0};
	enum tpd_status status;

	build_grid(&buf, parts);
	status = decode_typed(TPD_ENCODING_GRID, dtype, buf.data, buf.len, ref, sizeof ref, out, 7);
	tpd_buf_release(&buf);
	return status;
}

START_TEST(grid_fields)
{
	static const uint8_t want[] = {0x81, 0x3f, 0x01, 0x80, 0x34, 0x12, 0x55};
	const struct grid_parts honest = honest_grid();
	struct grid_parts parts = honest;
	struct tpd_buf buf = {0};
	uint8_t out[7];

	ck_assert_int_eq(decode_grid(&honest, TPD_DTYPE_BF16, out), TPD_OK);
	ck_assert_mem_eq(out, want, 7);

	parts.row = 0;
	ck_assert_int_eq(decode_grid(&parts, TPD_DTYPE_BF16, out), TPD_CORRUPT);
	parts = honest;
	parts.row = 8193;
	ck_assert_int_eq(decode_grid(&parts, TPD_DTYPE_BF16, out), TPD_CORRUPT);
	parts = honest;
	parts.first = 0;
	ck_assert_int_eq(decode_grid(&parts, TPD_DTYPE_BF16, out), TPD_CORRUPT);
	parts = honest;
	parts.first = 3; /* longer than a row */
	ck_assert_int_eq(decode_grid(&parts, TPD_DTYPE_BF16, out), TPD_CORRUPT);
	parts = honest;
	parts.row = parts.first = 3; /* one piece: the second T is taken for the symbols' coder, number 100 */
	ck_assert_int_eq(decode_grid(&parts, TPD_DTYPE_BF16, out), TPD_UNSUPPORTED);
	parts = honest;
	parts.steps[0] = 0;
	ck_assert_int_eq(decode_grid(&parts, TPD_DTYPE_BF16, out), TPD_CORRUPT);
	parts = honest;
	parts.steps[1] = 255;
	ck_assert_int_eq(decode_grid(&parts, TPD_DTYPE_BF16, out), TPD_CORRUPT);
	parts.steps[1] = 0; /* its element escapes, but T is checked all the same */
	ck_assert_int_eq(decode_grid(&parts, TPD_DTYPE_BF16, out), TPD_CORRUPT);
	parts.steps[1] = 254; /* its element escapes: T does not matter */
	ck_assert_int_eq(decode_grid(&parts, TPD_DTYPE_BF16, out), TPD_OK);
	ck_assert_mem_eq(out, want, 7);
	parts = honest;
	parts.field_words[0] = 15359; /* B - 1 */
	ck_assert_int_eq(decode_grid(&parts, TPD_DTYPE_BF16, out), TPD_OK);
	ck_assert_uint_eq(tpd_get_u16(out + 2), 0x8000 | 15359);
	parts.field_words[0] = 15360; /* B: not below the step */
	ck_assert_int_eq(decode_grid(&parts, TPD_DTYPE_BF16, out), TPD_CORRUPT);
	parts = honest;
	parts.field_words[0] = 1 << 14; /* a bit left in the queue */
	ck_assert_int_eq(decode_grid(&parts, TPD_DTYPE_BF16, out), TPD_CORRUPT);
	parts = honest;
	parts.field_words[1] |= 0x10000;
	ck_assert_int_eq(decode_grid(&parts, TPD_DTYPE_BF16, out), TPD_CORRUPT);
	parts = honest;
	parts.words = parts.word_count = 1;
	ck_assert_int_eq(decode_grid(&parts, TPD_DTYPE_BF16, out), TPD_CORRUPT);
	parts = honest;
	parts.words = parts.word_count = 3;
	ck_assert_int_eq(decode_grid(&parts, TPD_DTYPE_BF16, out), TPD_CORRUPT);
	parts = honest;
	parts.words = 3;
	ck_assert_int_eq(decode_grid(&parts, TPD_DTYPE_BF16, out), TPD_CORRUPT);
	parts = honest;
	parts.words = UINT32_C(0x80000000);
	ck_assert_int_eq(decode_grid(&parts, TPD_DTYPE_BF16, out), TPD_CORRUPT);
	parts = honest;
	parts.symbols[2] = 1; /* x = p: its word is left over */
	ck_assert_int_eq(decode_grid(&parts, TPD_DTYPE_BF16, out), TPD_CORRUPT);
	parts = honest;
	parts.left_len = 0;
	ck_assert_int_eq(decode_grid(&parts, TPD_DTYPE_BF16, out), TPD_CORRUPT);
	parts = honest;
	parts.left_len = 2;
	ck_assert_int_eq(decode_grid(&parts, TPD_DTYPE_BF16, out), TPD_CORRUPT);
	ck_assert_int_eq(decode_grid(&honest, TPD_DTYPE_I16, out), TPD_CORRUPT);
	ck_assert_int_eq(decode_grid(&honest, TPD_DTYPE_F16, out), TPD_CORRUPT); /* T = 127 is above F16's 30 */

	build_grid(&buf, &honest);
	for (size_t cut = 0; cut < buf.len; cut++)
		ck_assert_int_eq(decode_typed(TPD_ENCODING_GRID, TPD_DTYPE_BF16, buf.data, cut, want, 7, out, 7),
				 TPD_CORRUPT);
	tpd_buf_release(&buf);
}
END_TEST

/* A Q beyond the largest pattern: p = 0x7fff and d = 1 at a fine and at a coarse T. */
START_TEST(grid_overflow)
{
	static const uint8_t ref[] = {0xff, 0x7f};
	uint8_t out[2];

	for (unsigned t = 1; t <= 254; t += 11) {
		struct grid_parts parts = {.row = 1,
					   .first = 1,
					   .steps = {(uint8_t)t},
					   .step_count = 1,
					   .symbols = {128},
					   .symbol_count = 1};
		struct tpd_buf buf = {0};

		build_grid(&buf, &parts);
		ck_assert_int_eq(decode_typed(TPD_ENCODING_GRID, TPD_DTYPE_BF16, buf.data, buf.len, ref, 2, out, 2),
				 TPD_OK);
		ck_assert_uint_eq(tpd_get_u16(out), 0x7ffe);
		tpd_buf_release(&buf);
		if (t == 1) /* Q wraps around there: 7fff + 1 is the smallest, the NaN ffff */
			continue;
		parts.symbols[0] = 130;
		build_grid(&buf, &parts);
		ck_assert_int_eq(decode_typed(TPD_ENCODING_GRID, TPD_DTYPE_BF16, buf.data, buf.len, ref, 2, out, 2),
				 TPD_CORRUPT);
		tpd_buf_release(&buf);
	}
}
END_TEST

/* A chunk shorter than an element has no pieces and no symbols. */
START_TEST(grid_of_nothing)
{
	static const uint8_t honest[] = {8, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0x77};
	uint8_t bytes[sizeof honest], out[1];

	memcpy(bytes, honest, sizeof bytes);
	ck_assert_int_eq(decode_typed(TPD_ENCODING_GRID, TPD_DTYPE_BF16, bytes, sizeof bytes, NULL, 0, out, 1), TPD_OK);
	ck_assert_uint_eq(out[0], 0x77);
	bytes[4] = 1;
	ck_assert_int_eq(decode_typed(TPD_ENCODING_GRID, TPD_DTYPE_BF16, bytes, sizeof bytes, NULL, 0, out, 1),
			 TPD_CORRUPT);
}
END_TEST

/* ---- anything at all ---- */

static void make_chunk(enum tpd_dtype dtype, uint8_t *x, uint8_t *p, size_t len)
{
	for (size_t i = 0; i < len; i++)
		p[i] = (uint8_t)next_random();
	if (dtype == TPD_DTYPE_F32)
		for (size_t i = 0; i + 4 <= len; i += 4)
			tpd_put_u32(p + i, (tpd_get_u32(p + i) & 0x80ffffff) | 0x3c000000);
	memcpy(x, p, len);
	for (size_t i = 0; i < len; i += tpd_dtype_width(dtype))
		if (next_random() % 3 != 0)
			x[i] = (uint8_t)(x[i] + next_random() % 40);
}

/* Every prefix of a valid payload, and the payload with a byte more, is refused. */
START_TEST(every_truncation)
{
	static const enum tpd_dtype types[] = {TPD_DTYPE_BYTES, TPD_DTYPE_F32, TPD_DTYPE_BF16, TPD_DTYPE_F16,
					       TPD_DTYPE_F64,   TPD_DTYPE_I16, TPD_DTYPE_I64};
	static const size_t sizes[] = {61, 603, 2603};

	for (size_t s = 0; s < TPD_ARRAY_LEN(sizes); s++) {
		for (size_t d = 0; d < TPD_ARRAY_LEN(types); d++) {
			size_t size = sizes[s], len;
			uint8_t *x = malloc(size), *p = malloc(size), *out = malloc(size), *payload;
			struct tpd_chunk chunk = {.x = x, .len = size, .p = p, .ref_len = size, .element = 5};

			ck_assert(x && p && out);
			make_chunk(types[d], x, p, size);
			for (unsigned e = TPD_ENCODING_ZSTD; e < TPD_ENCODING_COUNT; e++) {
				struct tpd_plan plan = {
					.encoding = (enum tpd_encoding)e, .dtype = types[d], .row = 64, .grid_bias = 2, .terms = TPD_TERM_DECAY,
					.form = (uint8_t)(next_random() % 8)};

				if (!tpd_encoding_allows(plan.encoding, types[d]) || plan.encoding == TPD_ENCODING_STEPPED) /* t_stepped */
					continue;
				ck_assert_int_eq(tpd_encode_with(codec, &plan, &chunk, 0, &len, NULL), TPD_OK);
				if (len == SIZE_MAX)
					continue;
				payload = malloc(len + 1);
				ck_assert(payload);
				memcpy(payload, codec->payload.data, len);
				payload[len] = 0;
				for (size_t cut = 0; cut <= len + 1; cut++) {
					enum tpd_status status =
						decode_typed(plan.encoding, types[d], payload, cut, p, size, out, size);

					if (status != (cut == len ? TPD_OK : TPD_CORRUPT))
						ck_abort_msg("%s of %s: %zu of %zu bytes: %s", tpd_dtype_name(types[d]),
							     tpd_encoding_name(plan.encoding), cut, len,
							     tpd_status_name(status));
				}
				free(payload);
			}
			free(x);
			free(p);
			free(out);
		}
	}
}
END_TEST

/* Nothing that is decoded may crash, whatever it says; run under sanitizers. */
START_TEST(mutations)
{
	static const enum tpd_dtype types[] = {TPD_DTYPE_BYTES, TPD_DTYPE_F32, TPD_DTYPE_BF16, TPD_DTYPE_F16,
					       TPD_DTYPE_F64,   TPD_DTYPE_I16, TPD_DTYPE_U8,   TPD_DTYPE_I64};
	static const enum tpd_encoding encodings[] = {TPD_ENCODING_ZSTD,   TPD_ENCODING_ZSTD_REF, TPD_ENCODING_PLANES,      TPD_ENCODING_SPARSE,
						      TPD_ENCODING_GRID, TPD_ENCODING_INTEGERS, TPD_ENCODING_INTEGERS_REF};
	unsigned accepted = 0, refused = 0;

	for (unsigned round = 0; round < 400; round++) {
		enum tpd_dtype dtype = types[next_random() % TPD_ARRAY_LEN(types)];
		size_t size = 1 + next_random() % (round % 10 ? 700 : 40000), len,
		       ref_len = round % 3 ? size : next_random() % size;
		uint8_t *x = malloc(size), *p = malloc(size), *out = malloc(size), *payload, *ref = malloc(ref_len + 1);
		struct tpd_plan plan = {.dtype = dtype, .row = 1 + (uint32_t)(next_random() % 300), .grid_bias = 2, .terms = TPD_TERM_DECAY,
					.form = (uint8_t)(round % 8)};
		struct tpd_chunk chunk = {.x = x, .len = size, .p = p, .ref_len = size, .element = 5};

		ck_assert(x && p && out && ref);
		make_chunk(dtype, x, p, size);
		memcpy(ref, p, ref_len);
		do {
			plan.encoding = encodings[next_random() % TPD_ARRAY_LEN(encodings)];
		} while (!tpd_encoding_allows(plan.encoding, dtype));
		ck_assert_int_eq(tpd_encode_with(codec, &plan, &chunk, 0, &len, NULL), TPD_OK);
		if (len == SIZE_MAX)
			len = 0;
		payload = malloc(len + 8);
		ck_assert(payload);
		for (unsigned change = 0; change < 60; change++) {
			size_t changed_len = len;
			enum tpd_status status;

			memcpy(payload, codec->payload.data, len);
			for (uint64_t k = 1 + next_random() % 4; k > 0 && len > 0; k--) {
				/* headers are near the front */
				size_t at = next_random() % (next_random() % 2 ? len : TPD_MIN(len, (size_t)40));

				payload[at] = (uint8_t)(next_random() % 2 ? next_random()
									  : payload[at] ^ 1u << next_random() % 8);
			}
			if (next_random() % 8 == 0)
				changed_len = next_random() % (len + 1);
			status = decode_typed(plan.encoding, next_random() % 50 ? dtype : types[next_random() % TPD_ARRAY_LEN(types)],
					      payload, changed_len, ref, ref_len, out, size);
			if (status != TPD_OK && status != TPD_CORRUPT && status != TPD_UNSUPPORTED)
				ck_abort_msg("status %d", status);
			accepted += status == TPD_OK;
			refused += status != TPD_OK;
		}
		free(payload);
		free(x);
		free(p);
		free(out);
		free(ref);
	}
	ck_assert_uint_gt(accepted, 100);
	ck_assert_uint_gt(refused, 10000);
}
END_TEST

START_TEST(garbage)
{
	for (unsigned round = 0; round < 30000; round++) {
		uint8_t bytes[80], out[100], ref[100];
		size_t len = next_random() % sizeof bytes;

		for (size_t i = 0; i < sizeof bytes; i++)
			bytes[i] = (uint8_t)(next_random() % (round % 2 ? 256 : 4));
		memset(ref, (int)(next_random() & 255), sizeof ref);
		decode_typed((enum tpd_encoding)(next_random() % 8), (enum tpd_dtype)(next_random() % 24), bytes, len,
			     ref, next_random() % sizeof ref, out, 1 + next_random() % 99);
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("codec_corrupt");
	TCase *tcase = tcase_create("codec_corrupt");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tcase, 1200);
	tcase_add_checked_fixture(tcase, set_up, tear_down);
	tcase_add_test(tcase, zstd_frames);
	tcase_add_test(tcase, zstd_bomb);
	tcase_add_test(tcase, zstd_with_a_reference);
	tcase_add_test(tcase, raw_and_copy);
	tcase_add_test(tcase, planes_fields);
	tcase_add_test(tcase, sparse_fields);
	tcase_add_test(tcase, sparse_without_changes);
	tcase_add_test(tcase, sparse_elias_codes);
	tcase_add_test(tcase, grid_fields);
	tcase_add_test(tcase, grid_overflow);
	tcase_add_test(tcase, grid_of_nothing);
	tcase_add_test(tcase, every_truncation);
	tcase_add_test(tcase, mutations);
	tcase_add_test(tcase, garbage);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? 0 : 1;
}
