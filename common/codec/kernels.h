/*
 * kernels.h - the inner loops of the codec, in as many forms as there are kinds of CPU that deserve one.
 *
 * All forms give the same bytes; which one is used is decided once a process, from what the CPU can do, or by TPD_CPU in the
 * environment: scalar, avx2, avx512, or plain, which is there to prove what avx2 makes (kernels_plain.c). Kernels trust their caller: memory,
 * sizes and numbers are checked before. Those that the scalar form does in plain C, and nothing more, are where it says so; other
 * forms take them over as they are.
 */
#ifndef TPD_CODEC_KERNELS_H
#define TPD_CODEC_KERNELS_H

#include "base/dtype.h"
#include "base/tpd.h"

struct tpd_class_rule;
struct tpd_context_kernels;
struct tpd_fields_in;
struct tpd_predict_from;
struct tpd_pieces;
struct tpd_survey_kernels;

#define TPD_FIELDS_SLACK 128u /* bytes: the count, a word that each lane begins, and a register that is stored whole */
#define TPD_WORDS_SLACK 32u   /* bytes: likewise */
#define TPD_PLACES_SLACK 32u /* positions behind the last that find_changes() may write */

/*
 * What is read next, F32: while a kernel takes element i of its own it asks for the line of element i of these. Asked for all at once, lines wait
 * for each other, and nothing is computed meanwhile. They may end before that, as nothing is read.
 */
#define TPD_PREFETCH_MAX 8u
#define TPD_PREFETCH_SHARE 8u
struct tpd_prefetch {
	unsigned count;
	const uint8_t *of[TPD_PREFETCH_MAX];
};

struct tpd_kernels {
	const char *name;

	/* --- grid, SPEC.md section 8: pieces of 1 .. TPD_ROW_MAX elements --- */

	/* T of a piece, SPEC.md section 13. bias: 2 or 3. The caller has set the floating-point mode. */
	unsigned (*choose_t)(enum tpd_dtype dtype, const uint8_t *x, const uint8_t *p, size_t n, unsigned bias);
	/*
	 * n symbols, and for each round of TPD_LANES elements the fields that follow, bits[i] of values[i], which has no others. Lanes behind
	 * the last element have none: both arrays have room for whole rounds. soon: NULL, or what is read after this piece.
	 */
	void (*grid_encode)(enum tpd_dtype dtype, unsigned t, const uint8_t *x, const uint8_t *p, size_t n, const struct tpd_prefetch *soon,
			    uint8_t *symbols, uint32_t *values, uint8_t *bits);
	/*
	 * The way back, of pieces that lie one after the other, with a T each; false: not valid (fields run out, or no pattern has this Q).
	 * soon: NULL, or what is read after the only piece, of which p is in the cache.
	 */
	bool (*grid_decode)(enum tpd_dtype dtype, const uint8_t *steps, const struct tpd_pieces *pieces, const uint8_t *p,
			    const uint8_t *symbols, const struct tpd_prefetch *soon, uint8_t *out, struct tpd_fields_in *fields);
	/*
	 * The remainder stream (section 4) of so many rounds, its count included: it ends at `end`, before which there is room for as
	 * many bytes as the fields take, and TPD_FIELDS_SLACK. Returns where it begins.
	 */
	uint8_t *(*fields_pack)(const uint32_t *values, const uint8_t *bits, size_t rounds, uint8_t *end);

	/* --- prediction, section 10 (predict_kernel.h) --- */

	/* Of n elements from `start` on; a float each. */
	void (*predict)(const struct tpd_predict_from *from, size_t start, const float coefficients[4], size_t n, float *out);
	/*
	 * Terms of at most TPD_LEARN_MAX elements from `start` on, that of bit k at terms + k * TPD_TERM_ROOM, and there w1 itself in any case; and the sums that
	 * learn_products() of predict_kernel.h makes of those that are used, and of x - w1. May write whole registers.
	 */
	void (*predict_learn)(const struct tpd_predict_from *from, size_t start, const uint8_t *x, size_t n, float *terms, double *products);
	/* The parts of both. */
	void (*predict_ratio)(const float *m, const float *v, size_t n, float *out);
	void (*predict_difference)(const float *a, const float *b, size_t n, float *out);
	void (*predict_apply)(const float *w1, const float *const terms[4], const float coefficients[4], size_t n, float *out);
	/* count (count + 1) / 2 sums. */
	void (*predict_products)(const float *const *arrays, unsigned count, size_t n, double *out);

	/* --- what rows have in common, section 10 (low_rank_kernel.h): bases have TPD_LOW_RANK_LANES columns, side by side --- */

	/* sums += for each of `rows` rows of n elements: itself times its scale times its products with the basis. */
	void (*low_rank_square)(const float *z, size_t n, size_t rows, const float *scales, const float *basis, float *sums);
	/* out: the products of each row with the basis. */
	void (*low_rank_project)(const float *z, size_t n, size_t rows, const float *basis, float *out);
	/* out: the products of each two columns of `rows` rows. */
	void (*low_rank_products)(const float *rows_of, size_t rows, double *out);
	/* p of n elements, the first of which is in column `column`, += factors times columns, as tpd_low_rank_columns() leaves them. */
	void (*low_rank_add)(const float *factors, size_t rank, const float *columns, size_t column, size_t n, float *p);

	/* --- scale, section 11 (scaled_kernel.h): F32 and BF16 --- */

	void (*scaled_scale)(const uint8_t *v2, const uint8_t *v1, float share, size_t n, int16_t *out);
	void (*scaled_predict)(enum tpd_dtype dtype, const uint8_t *p, float factor, size_t n, uint8_t *out);
	size_t (*scaled_steps)(enum tpd_dtype dtype, int base, const int16_t *scale, const uint8_t *columns, size_t n, uint8_t *steps,
			       uint8_t *classes);
	void (*scaled_quotients)(enum tpd_dtype dtype, const uint8_t *x, const uint8_t *p, size_t n, float *out);
	size_t (*scaled_far)(enum tpd_dtype dtype, const uint8_t *x, const uint8_t *p, float factor, unsigned ulps, size_t n);
	void (*scaled_learn)(enum tpd_dtype dtype, const uint8_t *x, const uint8_t *p, const uint8_t *v2, size_t n, double sums[2]);
	size_t (*scaled_measure)(enum tpd_dtype dtype, const uint8_t *x, const uint8_t *p, float factor, const int16_t *scale, size_t n,
				 int16_t *logs, int32_t *sum);
	void (*scaled_columns)(const int16_t *logs, int mean, size_t n, int32_t *sums, int32_t *counts);
	size_t (*scaled_deal)(const uint8_t *classes, size_t n, const uint8_t *even, const uint8_t *odd, uint8_t *out);
	size_t (*scaled_sort)(const uint8_t *classes, const uint8_t *symbols, size_t n, uint8_t *even, uint8_t *odd);
	/* As the grid's, for elements with a T each; values and bits have room for whole rounds. */
	void (*scaled_encode)(enum tpd_dtype dtype, const uint8_t *steps, const uint8_t *x, const uint8_t *p, size_t n, uint8_t *symbols,
			      uint32_t *values, uint8_t *bits);
	bool (*scaled_decode)(enum tpd_dtype dtype, const uint8_t *steps, const uint8_t *p, const uint8_t *symbols, size_t n, uint8_t *out,
			      struct tpd_fields_in *fields);

	/* --- classes, section 9 (classes_kernel.h) --- */

	/* The keys of all elements. The caller has set the floating-point mode. */
	void (*class_keys)(enum tpd_dtype dtype, const struct tpd_class_rule *rule, const uint8_t *p, const struct tpd_pieces *pieces,
			   uint16_t *keys);

	/* --- steps of 16-bit types, section 14 (step_kernel.h) --- */

	void (*step_widen)(enum tpd_dtype dtype, const uint8_t *p, size_t n, float *out);
	void (*step_jump)(const float *m2, const float *v1, const float *v2, size_t n, float *out);
	/* w1 + steps, rounded to the type; p where that is not finite. */
	void (*step_target)(enum tpd_dtype dtype, const float *w1, const float *steps, const uint8_t *p, size_t n, uint8_t *out);
	/* Symbols 3 .. 255 of elements that are expected to go down, mirrored: both ways. */
	void (*step_mirror)(const float *steps, size_t n, uint8_t *symbols);
	/* p where the symbol is "equal", else what is predicted. */
	void (*step_choose)(const uint8_t *symbols, const uint8_t *p, const uint8_t *predicted, size_t n, uint8_t *out);

	/* --- context, section 18 (context_model.h) --- */

	const struct tpd_context_kernels *context;

	/* --- rANS, section 3 --- */

	/*
	 * Code n symbols in 2^k lanes; freq: 256 values with the sum 4096, none of them 4096. words_end: end of a buffer of 2 * n +
	 * TPD_WORDS_SLACK bytes, filled downwards. Returns the first word's place; states gets 2^k values.
	 */
	uint8_t *(*rans_encode)(const uint8_t *symbols, size_t n, unsigned k, const uint16_t freq[256], uint8_t *words_end,
				uint32_t *states);
	/*
	 * freq: as above; table: room for 4096 entries, which forms that look symbols up there fill; states: in range. false: words run out or are
	 * left over, or a state is wrong at the end. soon: NULL, or what is read then, of which the first 1/TPD_PREFETCH_SHARE is asked for (a
	 * second cache has room for that).
	 */
	bool (*rans_decode)(const uint8_t *words, size_t count, unsigned k, const uint16_t freq[256], uint32_t *table, uint32_t *states,
			    const struct tpd_prefetch *soon, uint8_t *out, size_t n);

	/*
	 * The same where each symbol has the table of its class; a row piece at a time, of which element i is in lane i mod 2^k. States are taken
	 * over from the piece behind it (encoding: steps[class << 8 | symbol] is f | cum << 16, and words are filled downwards) or before it
	 * (decoding: tables of tpd_rans_mixed_table(), 4096 entries a class; NULL: words run out). Frequencies may be 4096.
	 */
	uint8_t *(*rans_encode_mixed)(const uint8_t *symbols, const uint8_t *classes, size_t n, unsigned k, const uint32_t *steps,
				      uint8_t *words, uint32_t *states);
	const uint8_t *(*rans_decode_mixed)(const uint8_t *words, const uint8_t *end, unsigned k, const uint32_t *tables, uint32_t *states,
					    const uint8_t *classes, uint8_t *out, size_t n);

	/* --- bytes --- */

	/* How often each byte value occurs in the sample of SPEC.md section 13, 0 only for those that n symbols do not have. Returns the counts' sum. */
	size_t (*count_bytes)(const uint8_t *symbols, size_t n, uint32_t counts[256]);
	/* Section 6: width 1, 2, 4 or 8; plane b goes to planes + b * n, and comes from planes[b]. */
	void (*planes_split)(const uint8_t *x, size_t n, unsigned width, bool rotate, uint8_t *planes);
	void (*planes_join)(const uint8_t *const *planes, size_t n, unsigned width, bool rotate, uint8_t *out);
	/* Positions of elements of 1, 2 or 4 bytes that differ, ascending; returns how many. Room for n + TPD_PLACES_SLACK of them. */
	size_t (*find_changes)(const uint8_t *x, const uint8_t *p, size_t n, unsigned width, uint32_t *places);

	/* --- sparsity statistics (stats_internal.h) --- */

	const struct tpd_survey_kernels *survey;
};

extern const struct tpd_kernels tpd_kernels_scalar;
/* What this CPU can run, best last, whether it gives the known answers or not; *out_count at least 1. */
const struct tpd_kernels *const *tpd_kernels_all(size_t *out_count);
/*
 * The form to use, and the one that proves what it made: another one where there is another. Each has passed its known-answer test. Fails
 * with TPD_USAGE when TPD_CPU names one that there is not, TPD_UNSUPPORTED when it is not this CPU's or did not pass.
 */
enum tpd_status tpd_kernels_get(const struct tpd_kernels **out_use, const struct tpd_kernels **out_proof, struct tpd_err *err);
/* Does this form give the known answers? */
bool tpd_kernels_test(const struct tpd_kernels *kernels);

#endif
