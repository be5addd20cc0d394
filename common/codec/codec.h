/*
 * codec.h - lossless TPDE for one chunk: encode, decode, and the choice of an
 * encoding for a tensor.  The format is SPEC.md.
 *
 * Calling sequence, one tpd_codec a thread (it owns all scratch memory):
 *
 *     struct tpd_codec *codec;           tpd_codec_new(&codec, &err);
 *     struct tpd_plan plan;              tpd_plan_choose(codec, dtype, row, sample_x, sample_p, ..., &plan, &err);
 *     for each chunk:
 *             tpd_encode_chunk(codec, &plan, &chunk, out, cap, &encoding, &out_len, &err);
 *             tpd_decode_chunk(codec, encoding, dtype, payload, len, ref, ref_len, out, out_len, &err);
 *     tpd_codec_free(codec);
 *
 * Everything is deterministic: one version of libzstd, same input, same bytes,
 * whatever the thread or the machine.  Decoding trusts nothing: any payload
 * gives TPD_OK, TPD_CORRUPT or TPD_UNSUPPORTED, never a read or write out of
 * bounds.  Method: position gaps and Elias delta after TPDE (Temporal Position Delta
 * Encoding); the lossless grid is SPEC.md section 5; rANS after J. Duda,
 * "Asymmetric numeral systems" (arXiv:1311.2540), word-wise interleaved after
 * F. Giesen (arXiv:1402.3392).
 */
#ifndef TPD_CODEC_CODEC_H
#define TPD_CODEC_CODEC_H

#include "base/dtype.h"
#include "base/tpd.h"

#define TPD_CODEC_VERSION 1
#define TPD_CHUNK_ELEMENTS (1u << 17) /* of a typed storage */
#define TPD_CHUNK_BYTES (1u << 22)    /* of untyped bytes: also the zstd-ref window, <= 8 MiB */
#define TPD_ROW_MAX 8192u

/* On disk; assigned once.  X(symbol, number, name). */
#define TPD_ENCODING_LIST(X) \
	X(RAW, 0, "raw")     \
	X(COPY, 1, "copy")   \
	X(ZSTD, 2, "zstd")   \
	X(ZSTD_REF, 3, "zstd-ref") \
	X(PLANES, 4, "planes") \
	X(SPARSE, 5, "sparse") \
	X(GRID, 6, "grid") \
	X(CLASSES, 7, "classes") \
	X(PREDICTED, 8, "predicted") \
	X(SCALED, 9, "scaled") \
	X(STEPPED, 10, "stepped") \
	X(ROWS, 11, "rows") \
	X(ROWS_REF, 12, "rows-ref") \
	X(CONTEXT, 13, "context") \
	X(INTEGERS, 14, "integers") \
	X(INTEGERS_REF, 15, "integers-ref") \
	X(SCALED_ALONE, 16, "scaled-alone")

enum tpd_encoding {
#define TPD_ENCODING_X(sym, num, name) TPD_ENCODING_##sym = (num),
	TPD_ENCODING_LIST(TPD_ENCODING_X)
#undef TPD_ENCODING_X
	TPD_ENCODING_COUNT /* one more than the last */
};

const char *tpd_encoding_name(enum tpd_encoding encoding); /* "grid"; "?" when unknown */
bool tpd_encoding_is_known(enum tpd_encoding encoding);    /* not every number below TPD_ENCODING_COUNT is one's */
bool tpd_encoding_needs_reference(enum tpd_encoding encoding);
bool tpd_encoding_needs_inputs(enum tpd_encoding encoding); /* struct tpd_inputs, beside the reference */
bool tpd_encoding_takes_inputs(enum tpd_encoding encoding); /* those, and what may do without */

/* Bytes of a full chunk of a type: 2^17 elements, or 2^22 bytes for BYTES; sub-byte types count 2^17 bytes. */
uint32_t tpd_chunk_bytes(enum tpd_dtype dtype);
#define TPD_CHUNK_MAX_BYTES (1u << 22)

/*
 * Which form of the inner loops this process uses, which one proves what it made, and one of those that this CPU should be able to run
 * that does not give its known answers: "avx512", "avx2", "plain", "scalar"; *out_broken: NULL where all do. Fails as tpd_codec_new() does: the
 * environment's TPD_CPU names one that there is not, or none is good.
 */
enum tpd_status tpd_codec_forms(const char **out_use, const char **out_proof, const char **out_broken, struct tpd_err *err);

struct tpd_codec; /* scratch of one thread: some MiB, grown on first use to what the chunks need */

enum tpd_status tpd_codec_new(struct tpd_codec **out_codec, struct tpd_err *err);
void tpd_codec_free(struct tpd_codec *codec);

/* What weights are predicted from, beside the reference: earlier weights, and Adam's moments before and now. */
enum tpd_input { TPD_INPUT_W0, TPD_INPUT_M1, TPD_INPUT_V1, TPD_INPUT_M2, TPD_INPUT_V2, TPD_INPUT_COUNT };

struct tpd_bytes {
	const uint8_t *data; /* borrowed; NULL: not there */
	size_t len;
};

/* Chunks of F32, whatever type the chunk itself has, of the elements at its place; what is shorter is continued with zeros. */
struct tpd_inputs {
	struct tpd_bytes of[TPD_INPUT_COUNT];
};

#define TPD_PREDICT_MIN 1024u /* elements: predictions of smaller tensors, and moments of fewer, would be all header */

/* Terms of a prediction (SPEC.md section 10): w1, w1 - w0, about m1 / sqrt(v1), about m2 / sqrt(v2). */
enum { TPD_TERM_DECAY = 1, TPD_TERM_STEP = 2, TPD_TERM_BEFORE = 4, TPD_TERM_NOW = 8, TPD_TERM_COUNT = 4 };
/* For `scaled` (section 11), alone: exp_avg's size by v2, and by what came in since v1. */
enum { TPD_TERM_SCALE = 16, TPD_TERM_CAME_IN = 32 };
/* Which inputs they need: bit i for input i. */
unsigned tpd_terms_need(unsigned terms);
bool tpd_terms_have(unsigned terms, const struct tpd_inputs *inputs); /* are they all there? inputs may be NULL */

#define TPD_SECOND_MAX 1000000u /* a thousand times as much: more tells nobody more */

/* How a tensor is to be coded. */
struct tpd_plan {
	enum tpd_encoding encoding; /* what to try first */
	enum tpd_dtype dtype;
	uint32_t row;               /* row length in elements, 1..TPD_ROW_MAX */
	uint8_t grid_bias;          /* T = median exponent + M - grid_bias; 2 or 3 */
	uint8_t terms;              /* predicted, stepped, context and scaled only */
	bool low_rank;              /* predicted: look for what rows have in common */
	bool nibbles;               /* rows, rows-ref: elements are two values of 4 bits */
	uint8_t form;               /* integers, integers-ref: section 17's */
	/* Why it was chosen, for people: the best of the other encodings, and what that takes, in thousandths of this; 0: there was no choice. */
	enum tpd_encoding second;
	uint32_t second_permille; /* at most TPD_SECOND_MAX; below 1000: it would be less, but not by enough to make reading dearer */
};

/*
 * A sample of a tensor: stretches of whole elements, each `stretch` bytes long but the last, one after
 * the other in x (and p).  p == NULL: there is no reference.  len counts bytes.
 */
struct tpd_sample {
	const uint8_t *x, *p;
	size_t len, stretch;
	const struct tpd_inputs *inputs; /* of the same stretches, or NULL */
	const uint8_t *term_sets;        /* with inputs: predictions to try, TPD_TERM_* each */
	size_t term_set_count;
	bool try_low_rank;               /* of a prediction: it takes about as long again to find */
	unsigned context_part;           /* 16-bit weights that change in few places: each bit by itself, which is slow, where others take at
					    most len / context_part; 0: nowhere */
	bool try_scaled;                 /* it is a moment, or may be like one */
	uint8_t scaled_terms;            /* of TPD_TERM_SCALE and TPD_TERM_CAME_IN */
};

/*
 * Where other encodings take 1/24 of a chunk, their tables are 2 % of that; where they take less, tables are more, and there is less to do bit by
 * bit. Where they take 1/8 it is still smaller by some per cent, at a fraction of their speed.
 */
#define TPD_CONTEXT_PART 24u
#define TPD_CONTEXT_PART_MAX 8u /* with effort = max */

#define TPD_SAMPLE_ELEMENTS (1u << 15)         /* a tensor of at most so many is its own sample (one stretch) */
#define TPD_SAMPLE_STRETCHES 32u               /* otherwise: so many stretches ... */
#define TPD_SAMPLE_STRETCH_ELEMENTS (1u << 10) /* ... of so many elements, the i-th beginning at element
						  floor(i * (elements - 1024) / 31) */
/* Of types of one byte both are four times as much: tables for all byte values are half of what a smaller sample takes, and little of a chunk. */
static inline uint32_t tpd_sample_times(enum tpd_dtype dtype)
{
	return tpd_dtype_width(dtype) == 1 && dtype != TPD_DTYPE_BYTES ? 4 : 1;
}

/*
 * Choose by trying every encoding that the type allows on the sample, or on an eighth of it when it is far behind there.  out_bytes: what
 * the sample costs under the plan; out_bytes_alone: under the best encoding without a reference (equal when p is NULL), estimated from
 * that eighth when it was not tried on more.  Types of two bytes are compared by what a whole chunk would take, told from the sample and
 * that eighth: tables weigh less there.  Ties go to the lower encoding number. A prediction is tried where `grid` is the best of the
 * others (16-bit types: or `classes`, or `sparse`), and must save 3 % of it: it makes reading dearer. TPD_TERM_DECAY is not used for
 * 16-bit types (step.h). `scaled`, or `scaled-alone` where p is NULL, must save 1 % of the best, 3 % with inputs. With try_low_rank an F32 tensor of enough
 * rows that could be predicted is, whatever that saves: a sample has no rows that lie beside each other, and each chunk sees for itself what
 * its rows have in common. With a context_part a tensor that is `stepped`, `classes` or `sparse`, in at most that part of its bytes, becomes
 * `context` where that saves 1 %, with the same terms or another set that is offered; so does each of its chunks, but where `classes` (without terms), or `stepped` (with them,
 * where most rows stay as they were, or `context` is longer than the chunk) is within 1 % of that or shorter.
 */
enum tpd_status tpd_plan_choose(struct tpd_codec *codec, enum tpd_dtype dtype, uint32_t row, const struct tpd_sample *sample,
				struct tpd_plan *out_plan, uint64_t *out_bytes, uint64_t *out_bytes_alone,
				struct tpd_err *err);

/*
 * Find the type of a storage that its format does not tell, among F32, BF16, F16 and BYTES, by what each makes of
 * the sample's byte planes (BYTES unless another's are at least 2 % smaller and its exponents lie together; F32 must
 * be 2 % smaller than the halves).  Zeros do not matter, so that moments of parameters that were never used keep
 * their type.  The sample must be laid out for 4-byte elements.
 */
enum tpd_status tpd_plan_guess_dtype(struct tpd_codec *codec, const struct tpd_sample *sample, enum tpd_dtype *out_dtype,
				     struct tpd_err *err);

struct tpd_chunk {
	const uint8_t *x;   /* len bytes, 1..TPD_CHUNK_MAX_BYTES */
	size_t len;
	const uint8_t *p;   /* reference, ref_len bytes; NULL: none */
	size_t ref_len;
	uint64_t element;   /* number in its storage of the chunk's first element: rows are counted from 0 */
	const struct tpd_inputs *inputs; /* for `predicted`, `stepped` and `context`: those that the plan's terms need, or NULL */
};

/*
 * Encode.  out must hold tpd_encode_bound(chunk->len) bytes.  The result is decoded again and compared before it is
 * returned; a difference (a bug, a broken CPU) silently becomes `raw`, and is counted in tpd_codec_mismatches().
 */
enum tpd_status tpd_encode_chunk(struct tpd_codec *codec, const struct tpd_plan *plan, const struct tpd_chunk *chunk,
				 uint8_t *out, enum tpd_encoding *out_encoding, size_t *out_len, struct tpd_err *err);
size_t tpd_encode_bound(size_t len);
uint64_t tpd_codec_mismatches(const struct tpd_codec *codec);

/*
 * Decode exactly out_len bytes into out.  ref may be NULL when ref_len is 0.  out must not overlap ref or payload.
 */
enum tpd_status tpd_decode_chunk(struct tpd_codec *codec, enum tpd_encoding encoding, enum tpd_dtype dtype,
				 const uint8_t *payload, size_t payload_len, const uint8_t *ref, size_t ref_len,
				 uint8_t *out, size_t out_len, struct tpd_err *err);

/* The same where a chunk may be `predicted`, `stepped` or `context`: with what it was predicted from. */
struct tpd_references {
	const uint8_t *p;
	size_t len;
	const struct tpd_inputs *inputs; /* NULL: none */
};
enum tpd_status tpd_decode_chunk_with(struct tpd_codec *codec, enum tpd_encoding encoding, enum tpd_dtype dtype, const uint8_t *payload,
				      size_t payload_len, const struct tpd_references *references, uint8_t *out, size_t out_len,
				      struct tpd_err *err);

/* Zstandard for what is no chunk (manifests): one frame, level 3; out is fresh memory that the caller frees. */
enum tpd_status tpd_zstd_pack(const void *data, size_t len, uint8_t **out, size_t *out_len, struct tpd_err *err);
/* The reverse: the frame must decode to exactly `len` bytes. */
enum tpd_status tpd_zstd_unpack(const void *frame, size_t frame_len, uint8_t *out, size_t len, struct tpd_err *err);

#endif
