/*
 * kernels_internal.h - what the forms of kernels.h share. What is called tpd_scalar_* is in the table of the scalar form, and in that of plain.
 */
#ifndef TPD_CODEC_KERNELS_INTERNAL_H
#define TPD_CODEC_KERNELS_INTERNAL_H

#include "base/tpd.h"
#include "codec/grid.h"
#include "codec/internal.h"

struct tpd_context_kernels;
struct tpd_prefetch;

/* name is NULL where it could not be built. */
extern const struct tpd_kernels tpd_kernels_avx2, tpd_kernels_avx512;
const struct tpd_kernels *tpd_kernels_plain_prepare(void); /* once; NULL where it could not be built */
void tpd_kernels_avx2_prepare(void); /* once, before it is used */

/* --- context.c, context_avx2.c --- */

extern const struct tpd_context_kernels tpd_context_scalar, tpd_context_avx2; /* the latter is empty where it could not be built */

/* --- grid.c --- */

#define TPD_EXPONENT_NONE 255 /* equal elements and differences that are not finite: left out of the median */

unsigned tpd_grid_t_of_exponent(const struct tpd_grid_type *type, unsigned exponent, unsigned bias);
/* T from the median of n exponents, by counting those that are at most so large. 1 when none is finite. */
unsigned tpd_grid_t_of_counts(const struct tpd_grid_type *type, const uint8_t *exponents, size_t n,
			      unsigned (*count_up_to)(const uint8_t *exponents, size_t n, uint8_t most), unsigned bias);

/* --- rans_encode.c, rans_decode.c --- */

uint8_t *tpd_scalar_rans_encode(const uint8_t *symbols, size_t n, unsigned k, const uint16_t freq[256], uint8_t *words_end,
				uint32_t *states);
bool tpd_scalar_rans_decode(const uint8_t *words, size_t count, unsigned k, const uint16_t freq[256], uint32_t *table, uint32_t *states,
			    const struct tpd_prefetch *soon, uint8_t *out, size_t n);
uint8_t *tpd_scalar_rans_encode_mixed(const uint8_t *symbols, const uint8_t *classes, size_t n, unsigned k, const uint32_t *steps,
				      uint8_t *words, uint32_t *states);
const uint8_t *tpd_scalar_rans_decode_mixed(const uint8_t *words, const uint8_t *end, unsigned k, const uint32_t *tables, uint32_t *states,
					    const uint8_t *classes, uint8_t *out, size_t n);
/* Symbols n - 1 down to `end`; and i .. n - 1, each word counted, NULL: they run out. */
uint8_t *tpd_rans_mixed_put(const uint8_t *symbols, const uint8_t *classes, size_t n, size_t end, size_t lanes, const uint32_t *steps,
			    uint8_t *words, uint32_t *states);
const uint8_t *tpd_rans_mixed_rest(const uint8_t *words, const uint8_t *end, size_t lanes, const uint32_t *tables, uint32_t *states,
				   const uint8_t *classes, uint8_t *out, size_t i, size_t n);
/* The next word, where the state is below what states are. false: there is none. */
static inline bool tpd_rans_refill(uint32_t *state, const uint8_t **words, const uint8_t *end)
{
	if (*state >= TPD_RANS_LOW)
		return true;
	if (*words == end)
		return false;
	*state = *state << 16 | tpd_get_u16(*words);
	*words += 2;
	return true;
}
/* One symbol of frequency f; returns where the words begin now. */
uint8_t *tpd_rans_encode_one(uint32_t *state, uint32_t f, uint32_t cum, uint8_t *words);
/* Symbols i .. n - 1, each word counted; and is the end as it must be? */
bool tpd_rans_decode_rest(const uint8_t *words, const uint8_t *end, size_t lanes, const uint32_t *table, uint32_t *states, uint8_t *out,
			  size_t i, size_t n);

/* --- kernels_scalar.c --- */

/*
 * Symbols whose frequencies are asked for come in blocks of 64. Of many a quarter is counted: what frequencies lose by that is some bytes a chunk.
 * Multiples of the golden ratio spread the blocks over rows of any length.
 */
#define TPD_COUNT_BLOCK 64u
#define TPD_COUNT_ALL_MAX (1u << 15)
static inline bool tpd_block_is_counted(size_t block, size_t n)
{
	return n <= TPD_COUNT_ALL_MAX || (uint16_t)(block * 40503u) < UINT16_MAX / 4;
}
/* The blocks that are counted, and what is left behind the last whole one. */
void tpd_count_sample(const uint8_t *symbols, size_t n, uint32_t counts[256]);
size_t tpd_count_bytes(const uint8_t *symbols, size_t n, uint32_t counts[256]);
/* From element i on; places counts from 0 of the array that it is given. */
size_t tpd_find_changes_from(const uint8_t *x, const uint8_t *p, size_t i, size_t n, unsigned width, uint32_t *places);

#endif
