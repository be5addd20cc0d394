/*
 * internal.h - what the files of this directory share, and the entries by which tests reach below codec.h.
 *
 * Kernels (kernels.h, tpd_gaps_*) are pure loops over memory that somebody else checked and allocated.  Everything else is a
 * binding: it validates, takes scratch memory and reports.
 */
#ifndef TPD_CODEC_INTERNAL_H
#define TPD_CODEC_INTERNAL_H

#include "base/tpd.h"

#include <string.h>

#include "base/bytes.h"
#include "base/dtype.h"
#include "codec/codec.h"
#include "codec/grid.h"

/* ---- scratch memory (codec.c) ---- */

struct tpd_scratch {
	uint8_t *data; /* owned */
	size_t cap;
};

/* Room for at least `size` bytes; what was there is lost when it grows. */
enum tpd_status tpd_scratch_need(struct tpd_scratch *scratch, size_t size, struct tpd_err *err);

/* ---- rANS (rans_encode.c, rans_decode.c) ---- */

#define TPD_RANS_BITS 12u
#define TPD_RANS_SUM (1u << TPD_RANS_BITS)
/*
 * The smallest state, and the first one of the encoder.  All states and bounds are below 2^31, so the sign of a
 * difference tells which is larger: a subtraction and a shift, where compilers make of a comparison a branch that is
 * guessed wrong half the time, or a byte in a register whose old value it then has to wait for.
 */
#define TPD_RANS_LOW (1u << 15)
#define TPD_RANS_LANES_MAX 64u

/* freq: 256 values with the sum 4096, none of them 4096. An entry is (slot - cum) << 20 | f << 8 | symbol. */
void tpd_rans_decode_table(const uint16_t freq[256], uint32_t table[TPD_RANS_SUM]);

/* The frequencies of counts with the sum n, of which at least two are not 0: those of first and last, and none outside. */
void tpd_rans_quantise(const uint32_t counts[256], size_t n, unsigned first, unsigned last, uint16_t freq[256]);
/* As they stand in a stream: at most 2 bytes for each from first to last. */
uint8_t *tpd_rans_put_frequencies(uint8_t *out, const uint16_t freq[256], unsigned first, unsigned last);
enum tpd_status tpd_rans_read_frequencies(struct tpd_rd *rd, unsigned first, unsigned last, uint16_t freq[256], struct tpd_err *err);
/* What stands behind them: the number of words, the state of each of 2^k lanes; then the words follow. */
uint8_t *tpd_rans_put_states(uint8_t *out, size_t word_count, unsigned k, const uint32_t *states);
/* The same, and where the words are. Returns what is wrong with them, or NULL. */
const char *tpd_rans_read_states(struct tpd_rd *rd, unsigned k, uint32_t *states, const uint8_t **out_words, uint32_t *out_count);

/* For kernels' rans_decode_mixed(): frequencies with the sum 4096. An entry is (slot - cum) << 20 | (f - 1) << 8 | symbol. */
void tpd_rans_mixed_table(const uint16_t freq[256], uint32_t table[TPD_RANS_SUM]);
/* After the last part: is all used up, and every lane where it began? */
bool tpd_rans_is_end(const uint8_t *words, const uint8_t *end, const uint32_t *states, size_t lanes);

/* ---- the thread's codec ---- */

struct tpd_zstd; /* zstd.c */

struct tpd_kernels;

struct tpd_codec {
	const struct tpd_kernels *kernels; /* in use */
	const struct tpd_kernels *encoder, *proof; /* what makes payloads and reads others'; what proves what was made */
	struct tpd_zstd *zstd;      /* owned */
	struct tpd_scratch payload; /* the payload while it is made */
	struct tpd_scratch check;   /* what it decodes to */
	struct tpd_scratch ref;     /* a reference continued with zeros */
	struct tpd_scratch symbols; /* symbols, or byte planes */
	struct tpd_scratch steps;   /* T of the pieces */
	struct tpd_scratch words;   /* rANS words while they are made */
	struct tpd_scratch fields;  /* remainder stream while it is made */
	struct tpd_scratch values;  /* fields before they are packed: uint32_t each, then a byte each for their bits */
	struct tpd_scratch heat;    /* a part of a sample */
	struct tpd_scratch inputs;  /* what a prediction is made from, as floats */
	struct tpd_scratch towards; /* `stepped`: what each element is coded against */
	struct tpd_scratch predicted, fit; /* the prediction; its coefficients while they are found or read */
	struct tpd_scratch low_rank; /* its factors, and what they are found with */
	struct tpd_scratch classes; /* what tells classes apart */
	struct tpd_scratch tables;  /* of all classes */
	struct tpd_scratch scaled;  /* all that `scaled` makes of a header */
	struct tpd_scratch places;  /* changed positions, uint32_t */
	struct tpd_scratch rows;    /* tables, and what they are made from */
	uint64_t mismatches;
	uint16_t cost[TPD_RANS_SUM]; /* cost[f]: log2(4096 / f) in 1/4096 bit, rounded down; f > 0 */
	uint32_t rans_decode[TPD_RANS_SUM];
	uint32_t curve_means[4][64][2]; /* classes_fit.h */
};

#define TPD_TAKE_ALIGN 64u

/* The next `size` bytes of a scratch that `at` goes through, and aligned for vectors; each may take TPD_TAKE_ALIGN more. */
static inline void *tpd_take(uint8_t **at, size_t size)
{
	uint8_t *from = *at;

	*at += (size + TPD_TAKE_ALIGN - 1) / TPD_TAKE_ALIGN * TPD_TAKE_ALIGN;
	return from;
}

/* log2(x), x > 0 and normal, to some 0.01, the same bits everywhere: the exponent, and a parabola for the mantissa. */
static inline double tpd_log2_near(double x)
{
	uint64_t bits;
	double mantissa;

	memcpy(&bits, &x, sizeof(bits));
	mantissa = (double)(bits & ((UINT64_C(1) << 52) - 1)) / (double)(UINT64_C(1) << 52);
	return (double)(bits >> 52) - 1023 + mantissa + 0.344 * mantissa * (1 - mantissa);
}

/* ---- symbol streams, SPEC.md section 3 (symbols_encode.c, symbols_decode.c) ---- */

enum { TPD_CODER_RAW = 0, TPD_CODER_CONSTANT = 1, TPD_CODER_ZSTD = 2, TPD_CODER_RANS = 3, TPD_CODER_CURVE = 4 };

#define TPD_SYMBOLS_BOUND(n) ((n) + 1) /* bytes of S(n) at most */

struct tpd_prefetch;

enum tpd_status tpd_symbols_encode(struct tpd_codec *codec, const uint8_t *symbols, size_t n, uint8_t *out,
				   size_t *out_len, struct tpd_err *err);
/* The same beside so many other bytes of a payload: where it is little to them, coders that take long and save little are not tried. */
enum tpd_status tpd_symbols_encode_beside(struct tpd_codec *codec, const uint8_t *symbols, size_t n, size_t beside, uint8_t *out,
					  size_t *out_len, struct tpd_err *err);
enum tpd_status tpd_symbols_decode(struct tpd_codec *codec, struct tpd_rd *rd, uint8_t *out, size_t n,
				   struct tpd_err *err);
/* The same before something else is read that soon (NULL: nothing) says: kernels.h. */
enum tpd_status tpd_symbols_decode_before(struct tpd_codec *codec, struct tpd_rd *rd, const struct tpd_prefetch *soon, uint8_t *out, size_t n,
					  struct tpd_err *err);
#define TPD_SYMBOL_NOWHERE 256u
/* Coder 4: where a symbol around `from` is around `to`; those of no d stay. TPD_SYMBOL_NOWHERE: no byte is that. */
unsigned tpd_symbol_moved(unsigned symbol, unsigned from, unsigned to);
/* Coder 4's table of section 9's symbols as one of bytes around `middle`; false: it reaches beyond them. */
bool tpd_symbols_move_table(const uint16_t from[256], unsigned middle, uint16_t to[256]);
/* The same where they need not be moved: *out_symbols is `out`, or where they stand raw. */
enum tpd_status tpd_symbols_view(struct tpd_codec *codec, struct tpd_rd *rd, uint8_t *out, size_t n, const uint8_t **out_symbols,
				 struct tpd_err *err);

/* ---- row pieces of a chunk, SPEC.md section 8 ---- */

struct tpd_pieces {
	size_t first, row, n; /* elements: of the first piece, of the others, of all */
};

/* Rows of so many elements, the first element's number in its storage, and how many there are. */
static inline struct tpd_pieces tpd_pieces_of(uint32_t row, uint64_t element, size_t n)
{
	return (struct tpd_pieces){.first = row - (size_t)(element % row), .row = row, .n = n};
}

static inline size_t tpd_piece_count(const struct tpd_pieces *pieces)
{
	if (pieces->n <= pieces->first)
		return pieces->n > 0;
	return 1 + (pieces->n - pieces->first + pieces->row - 1) / pieces->row;
}

/* i may be their number: the end of the last one. */
static inline size_t tpd_piece_start(const struct tpd_pieces *pieces, size_t i)
{
	return i == 0 ? 0 : TPD_MIN(pieces->first + (i - 1) * pieces->row, pieces->n);
}

/* ---- symbols by classes, SPEC.md section 9 (classes_encode.c, classes_decode.c, classes_fit.c, classes_table.c) ---- */

#define TPD_CLASSES_MAX 64u
enum { TPD_BY_LEVEL = 0, TPD_BY_STEP = 1, TPD_BY_INNOVATION = 2 }; /* how they are told */

/*
 * Beside the reference: steps that are expected, an element each, and v1 and v2, or NULL; for `context` zeros, and m1 / sqrt(v1) and
 * m2 / sqrt(v2), or NULL; and for encoding what steps left over.
 */
struct tpd_class_given {
	const float *steps, *v1, *v2, *zeros, *before, *now, *rests;
};

/* Bytes of C(n) at most: levels, header and tables, words, states. */
#define TPD_CLASS_SYMBOLS_BOUND(n, pieces) (2 * (n) + TPD_SYMBOLS_BOUND(pieces) + TPD_CLASSES_MAX * 517u + 4u * TPD_RANS_LANES_MAX + 16u)

/* The reference p has pieces->n elements of a type that the grid knows. t: the chunk's T. given may be NULL. */
enum tpd_status tpd_class_symbols_encode(struct tpd_codec *codec, enum tpd_dtype dtype, unsigned t, const uint8_t *p,
					 const struct tpd_class_given *given, const uint8_t *symbols, const struct tpd_pieces *pieces,
					 uint8_t *out, size_t *out_len, struct tpd_err *err);
enum tpd_status tpd_class_symbols_decode(struct tpd_codec *codec, enum tpd_dtype dtype, struct tpd_rd *rd, const uint8_t *p,
					 const struct tpd_class_given *given, uint8_t *symbols, const struct tpd_pieces *pieces,
					 struct tpd_err *err);

/* ---- gaps, SPEC.md section 7 (gaps_encode.c, gaps_decode.c) ---- */

enum { TPD_GAPS_ELIAS = 0, TPD_GAPS_RICE = 1 };
#define TPD_RICE_MAX 31u

uint64_t tpd_gaps_elias_bits(const uint32_t *gaps, size_t m);
uint64_t tpd_gaps_rice_bits(const uint32_t *gaps, size_t m, unsigned k);
/* The shorter code and its parameter; returns its bits. */
uint64_t tpd_gaps_choose(const uint32_t *gaps, size_t m, uint8_t *out_code, uint8_t *out_k);
/* Room for (bits + 7) / 8 + 8 bytes at out; returns the bytes written. */
size_t tpd_gaps_encode(const uint32_t *gaps, size_t m, unsigned code, unsigned k, uint8_t *out);
/* m positions below n from all `len` bytes; false: they are not valid. */
bool tpd_gaps_decode(const uint8_t *in, size_t len, unsigned code, unsigned k, size_t m, uint32_t n, uint32_t *places);

/* ---- encodings (encode.c, sparse_encode.c, decode.c, sparse_decode.c) ---- */

/* Width of an element in bytes for an encoding (8-byte types are words of 4 for `sparse`). */
unsigned tpd_element_width(enum tpd_encoding encoding, enum tpd_dtype dtype);
/* May `planes` rotate it? */
bool tpd_planes_may_rotate(enum tpd_dtype dtype);
/* `grid` whose symbols are coded by classes, with one T a chunk? */
bool tpd_encoding_has_classes(enum tpd_encoding encoding);
/* ... whose elements are told from an expected step? */
bool tpd_encoding_has_steps(enum tpd_encoding encoding);
/* May this type be coded so at all? */
bool tpd_encoding_allows(enum tpd_encoding encoding, enum tpd_dtype dtype);

/*
 * The payload of one encoding, into codec->payload.  *out_len may exceed the chunk's, and is SIZE_MAX when
 * the encoding was given up.  force_t: 0, or the T of every piece of `grid` (tests).
 */
enum tpd_status tpd_encode_with(struct tpd_codec *codec, const struct tpd_plan *plan, const struct tpd_chunk *chunk,
				unsigned force_t, size_t *out_len, struct tpd_err *err);
enum tpd_status tpd_encode_sparse(struct tpd_codec *codec, enum tpd_dtype dtype, const uint8_t *x, const uint8_t *p,
				  size_t len, size_t *out_len, struct tpd_err *err);
/* The reference, or a copy of it continued with zeros to len. */
enum tpd_status tpd_padded_reference(struct tpd_codec *codec, const uint8_t *ref, size_t ref_len, size_t len,
				     const uint8_t **out_p, struct tpd_err *err);

enum tpd_status tpd_decode_planes(struct tpd_codec *codec, enum tpd_dtype dtype, struct tpd_rd *rd, uint8_t *out,
				  size_t len, struct tpd_err *err);
enum tpd_status tpd_decode_sparse(struct tpd_codec *codec, enum tpd_dtype dtype, struct tpd_rd *rd, const uint8_t *p,
				  uint8_t *out, size_t len, struct tpd_err *err);
/* `grid`, `classes`, or what is left of `predicted`, `stepped` and `context`: with what was read of it, the others NULL. */
struct tpd_prediction;
struct tpd_steps;
enum tpd_status tpd_decode_grid(struct tpd_codec *codec, enum tpd_encoding encoding, enum tpd_dtype dtype, struct tpd_rd *rd,
				const uint8_t *p, const struct tpd_steps *steps, struct tpd_prediction *prediction, uint8_t *out, size_t len,
				struct tpd_err *err);

/* ---- `rows` and `rows-ref`, SPEC.md section 15 (rows_encode.c, rows_decode.c); p: NULL for `rows`, else as long as the chunk ---- */

enum tpd_status tpd_encode_rows(struct tpd_codec *codec, enum tpd_dtype dtype, bool nibbles, const uint8_t *x, const uint8_t *p,
				const struct tpd_pieces *pieces, size_t *out_len, struct tpd_err *err);
enum tpd_status tpd_decode_rows(struct tpd_codec *codec, enum tpd_dtype dtype, struct tpd_rd *rd, const uint8_t *p, uint8_t *out, size_t len,
				struct tpd_err *err);

/* ---- Zstandard (zstd.c) ---- */

#define TPD_ZSTD_WINDOW_LOG 23 /* SPEC.md section 2 */

enum tpd_status tpd_zstd_new(struct tpd_zstd **out_zstd, struct tpd_err *err);
void tpd_zstd_free(struct tpd_zstd *zstd);
/* One frame into out; *out_len = SIZE_MAX when it does not fit into cap.  ref_len > 0: with a prefix. */
enum tpd_status tpd_zstd_encode(struct tpd_zstd *zstd, int level, const uint8_t *ref, size_t ref_len,
				const uint8_t *data, size_t len, uint8_t *out, size_t cap, size_t *out_len,
				struct tpd_err *err);
enum tpd_status tpd_zstd_decode(struct tpd_zstd *zstd, const uint8_t *ref, size_t ref_len, const uint8_t *frame,
				size_t frame_len, uint8_t *out, size_t len, struct tpd_err *err);

#endif
