/*
 * rans_avx512.h - rANS decoded without gathers, for AVX-512: which symbol a slot belongs to is told by tables that are in registers.
 * Only kernels_avx512.c includes it.
 *
 * A gather takes longer than everything else that a symbol needs, and a permutation of words looks up 32 of 64 at once. There are 4096 slots, but
 * where a symbol has many of them there is little to tell. So there are three tables, each for a part of the slots:
 *
 *     coarse   all slots, 64 places of 64
 *     middle   512 of them, 64 places of 8    around the rare symbols: the last slots and the first, which are neighbours modulo 4096
 *     fine     128 of them, one a place       likewise
 *
 * A place of more than one slot tells the first slot's symbol and where the next symbol begins: with (index * slots + slots - that) there, the
 * slot's own place in it is added, and what is carried makes the index one larger. The fine table has frequency and place in it at once, of
 * symbols of less than 16 slots; others have 0 there, and are told by the middle or the coarse one. Symbols with all slots in the fine table
 * need no index. Where a coarse place has more than two symbols the middle table must reach, and the fine one where the middle has. Where
 * that is not enough, both are twice as long, which takes a fifth longer; where that is not, or more than 64 indices are needed, there are
 * gathers as ever.
 *
 * States are kept as two halves, 32 of each to a register: products of words are all that it takes, and a word that is taken becomes the lower
 * half, while what was there becomes the upper. Bits above the slot's are left in, and no look-up sees them.
 */
#ifndef TPD_CODEC_RANS_AVX512_H
#define TPD_CODEC_RANS_AVX512_H

#if defined(__AVX512VBMI__) && defined(__AVX512VBMI2__) /* elsewhere this is empty, as what includes it is */

#include <immintrin.h>
#include <string.h>

#include "base/bytes.h"
#include "base/tpd.h"
#include "codec/internal.h"
#include "codec/kernels_internal.h"
#include "codec/vector_avx512.h"

#define PLACES 64u
#define MIDDLE 8u /* slots of a place */
#define FINE 128u
#define FINE_MOST 15u /* slots of a symbol that the fine table tells */

struct slot_tables {
	/* All symbols, ascending: which one a slot belongs to, and what they are. */
	uint8_t rank[TPD_RANS_SUM], symbol_of[256];
	uint16_t freq_of[256], cum_of[256];
	/* As the loop looks them up; those of symbols are by index, frequencies times 16. */
	uint16_t coarse[PLACES], middle[2 * PLACES], freq[PLACES], cum[PLACES];
	uint8_t symbol[PLACES], fine[2 * FINE], fine_symbol[2 * FINE];
	uint16_t middle_from, fine_from; /* what is added to a slot to count from a table's first one, modulo 4096 */
	bool wide;                       /* middle and fine are used as a whole, else half of them */
};

/*
 * The stretch, modulo their number, of those places from slot `from` on, of `size` slots each, that have more than two symbols: the shortest that
 * has all of them. Returns its length.
 */
static unsigned crowded_places(const uint8_t *rank, unsigned from, unsigned places, unsigned size, unsigned *out_first)
{
	unsigned longest = 0, run = 0;

	*out_first = 0;
	for (unsigned i = 0; i < 2 * places && longest < places; i++) { /* it lies around the longest run of others */
		const uint8_t *slots = rank + (from + i % places * size) % TPD_RANS_SUM;

		run = slots[size - 1] - slots[0] > 1 ? 0 : run + 1;
		if (run > longest) {
			longest = run;
			*out_first = (i + 1) % places;
		}
	}
	return places - longest;
}

/* index: of each rank. */
static void fill_places(const uint8_t *rank, const uint8_t index[256], unsigned from, unsigned places, unsigned size, uint16_t *out)
{
	for (unsigned place = 0; place < places; place++) {
		const uint8_t *slots = rank + (from + place * size) % TPD_RANS_SUM;
		unsigned first = index[slots[0]], next = size;

		while (index[slots[next - 1]] != first)
			next--;
		out[place] = (uint16_t)(first * size + size - next - place * size);
	}
}

/* All symbols, in order. */
static unsigned rank_symbols(const uint16_t freq[256], struct slot_tables *tables)
{
	unsigned ranks = 0, cum = 0;

	for (unsigned s = 0; s < 256; s++) {
		if (freq[s] == 0)
			continue;
		memset(tables->rank + cum, (int)ranks, freq[s]);
		tables->symbol_of[ranks] = (uint8_t)s;
		tables->freq_of[ranks] = freq[s];
		tables->cum_of[ranks++] = (uint16_t)cum;
		cum += freq[s];
	}
	return ranks;
}

/* Where the middle and the fine table begin, for these lengths. false: no such place will do. */
static bool place_tables(struct slot_tables *tables, unsigned places, unsigned fine, unsigned *out_from)
{
	unsigned first, from, length;

	length = crowded_places(tables->rank, 0, PLACES, TPD_RANS_SUM / PLACES, &first);
	if (length * (TPD_RANS_SUM / PLACES) > places * MIDDLE)
		return false;
	from = first * (TPD_RANS_SUM / PLACES);
	length = crowded_places(tables->rank, from, places, MIDDLE, &first);
	if (length * MIDDLE > fine || first + length > places)
		return false;
	*out_from = from;
	tables->middle_from = (uint16_t)(TPD_RANS_SUM - from);
	/* What must be there is in its middle, so that it has symbols of both sides. */
	tables->fine_from = (uint16_t)((2 * TPD_RANS_SUM - from - first * MIDDLE + (fine - length * MIDDLE) / 2) % TPD_RANS_SUM);
	return true;
}

/* false: these symbols are none for tables so long. */
static bool fill_tables_of(unsigned ranks, bool wide, struct slot_tables *tables)
{
	const unsigned places = wide ? 2 * PLACES : PLACES, fine = wide ? 2 * FINE : FINE;
	unsigned count = 0, from;
	uint8_t index[256];

	if (!place_tables(tables, places, fine, &from))
		return false;
	tables->wide = wide;
	memset(tables->freq, 0, sizeof tables->freq);
	memset(tables->cum, 0, sizeof tables->cum);
	memset(tables->symbol, 0, sizeof tables->symbol);
	for (unsigned r = 0; r < ranks; r++) {
		const unsigned f = tables->freq_of[r];

		if (f <= FINE_MOST && (tables->cum_of[r] + tables->fine_from) % TPD_RANS_SUM + f <= fine) {
			index[r] = (uint8_t)(count > 0 ? count - 1 : 0); /* to the other tables it belongs to its neighbour */
			continue;
		}
		if (count == PLACES)
			return false;
		index[r] = (uint8_t)count;
		tables->freq[count] = (uint16_t)(f << 4);
		tables->cum[count] = tables->cum_of[r];
		tables->symbol[count++] = tables->symbol_of[r];
	}
	fill_places(tables->rank, index, 0, PLACES, TPD_RANS_SUM / PLACES, tables->coarse);
	fill_places(tables->rank, index, from, places, MIDDLE, tables->middle);
	for (unsigned i = 0; i < fine; i++) {
		const unsigned slot = (TPD_RANS_SUM - tables->fine_from + i) % TPD_RANS_SUM, r = tables->rank[slot], f = tables->freq_of[r];

		tables->fine[i] = (uint8_t)(f <= FINE_MOST ? f << 4 | (slot - tables->cum_of[r]) : 0);
		tables->fine_symbol[i] = tables->symbol_of[r];
	}
	return true;
}

/* false: these symbols are none for such tables. */
static bool fill_slot_tables(const uint16_t freq[256], struct slot_tables *tables)
{
	unsigned ranks = rank_symbols(freq, tables);

	return fill_tables_of(ranks, false, tables) || fill_tables_of(ranks, true, tables);
}

/* Symbols [i, n), each word counted. NULL: they run out. */
static const uint8_t *rans_decode_last(const struct slot_tables *tables, const uint8_t *words, const uint8_t *end, uint32_t *states, uint8_t *out,
				       size_t i, size_t n)
{
	for (; i < n; i++) {
		uint32_t *state = &states[i % TPD_RANS_LANES_MAX], slot = *state & (TPD_RANS_SUM - 1);
		const unsigned rank = tables->rank[slot];

		*state = tables->freq_of[rank] * (*state >> TPD_RANS_BITS) + slot - tables->cum_of[rank];
		out[i] = tables->symbol_of[rank];
		if (!tpd_rans_refill(state, &words, end))
			return NULL;
	}
	return words;
}

/* A table of 64 words, from which 32 are looked up. */
struct words_table {
	__m512i low, high;
};

VECTOR_INLINE struct words_table words_of(const uint16_t table[PLACES])
{
	return (struct words_table){_mm512_loadu_si512(table), _mm512_loadu_si512(table + PLACES / 2)};
}

VECTOR_INLINE __m512i looked_up(const struct words_table *table, __m512i places)
{
	return _mm512_permutex2var_epi16(table->low, places, table->high);
}

/* The same of 128 bytes. */
VECTOR_INLINE struct words_table bytes_of(const uint8_t table[FINE])
{
	return (struct words_table){_mm512_loadu_si512(table), _mm512_loadu_si512(table + FINE / 2)};
}

VECTOR_INLINE __m512i byte_looked_up(const struct words_table *table, __m512i places)
{
	return _mm512_permutex2var_epi8(table->low, places, table->high);
}

/* 32 states: the upper and the lower half of each. */
struct half_states {
	__m512i high, low;
};

VECTOR_INLINE struct half_states halves_of(const uint32_t *states)
{
	const __m512i a = _mm512_loadu_si512(states), b = _mm512_loadu_si512(states + 16);

	return (struct half_states){
		_mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi32_epi16(_mm512_srli_epi32(a, 16))), _mm512_cvtepi32_epi16(_mm512_srli_epi32(b, 16)), 1),
		_mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi32_epi16(a)), _mm512_cvtepi32_epi16(b), 1),
	};
}

VECTOR_INLINE void put_states(const struct half_states *state, uint32_t *states)
{
	for (unsigned v = 0; v < 2; v++) {
		__m512i high = _mm512_cvtepu16_epi32(v ? _mm512_extracti64x4_epi64(state->high, 1) : _mm512_castsi512_si256(state->high));
		__m512i low = _mm512_cvtepu16_epi32(v ? _mm512_extracti64x4_epi64(state->low, 1) : _mm512_castsi512_si256(state->low));

		_mm512_storeu_si512(states + 16 * v, _mm512_or_si512(_mm512_slli_epi32(high, 16), low));
	}
}

/* The even bytes of two registers, for a permutation. */
VECTOR_INLINE __m512i even_bytes(void)
{
	const __m512i up = _mm512_cvtepu8_epi16(_mm256_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22,
								 23, 24, 25, 26, 27, 28, 29, 30, 31));
	const __m512i both = _mm512_or_si512(_mm512_slli_epi16(up, 2), _mm512_slli_epi16(_mm512_set1_epi16(2), 8));

	return _mm512_or_si512(both, _mm512_slli_epi16(_mm512_slli_epi16(up, 2), 8));
}

/* Whole rounds of 64 symbols, while no lane can run out of words; returns where it ends. */
VECTOR_INLINE size_t decode_rounds_by_places(const struct slot_tables *tables, const bool wide, const uint8_t **words_from, const uint8_t *end,
					     uint32_t *states, const struct tpd_prefetch *soon, uint8_t *out, size_t n)
{
	const struct words_table coarse = words_of(tables->coarse), freq = words_of(tables->freq), cum = words_of(tables->cum);
	const struct words_table middle = words_of(tables->middle), middle_2 = wide ? words_of(tables->middle + PLACES) : middle;
	const struct words_table fine = bytes_of(tables->fine), fine_2 = wide ? bytes_of(tables->fine + FINE) : fine;
	const struct words_table rare = bytes_of(tables->fine_symbol), rare_2 = wide ? bytes_of(tables->fine_symbol + FINE) : rare;
	const __m512i symbol = _mm512_loadu_si512(tables->symbol);
	const __m512i middle_from = _mm512_set1_epi16((short)tables->middle_from), fine_from = _mm512_set1_epi16((short)tables->fine_from);
	const __m512i in_middle = _mm512_set1_epi16(TPD_RANS_SUM - (wide ? 2 * PLACES : PLACES) * MIDDLE);
	const __m512i in_fine = _mm512_set1_epi16(TPD_RANS_SUM - (wide ? 2 * FINE : FINE));
	const __m512i slots = _mm512_set1_epi16(TPD_RANS_SUM - 1), above = _mm512_set1_epi16((short)-TPD_RANS_SUM);
	const __m512i fine_freq = _mm512_set1_epi16(FINE_MOST << 4), fine_place = _mm512_set1_epi16(FINE_MOST);
	const __m512i lowest = _mm512_set1_epi16((short)TPD_RANS_LOW), even = even_bytes();
	struct half_states state[2] = {halves_of(states), halves_of(states + 32)};
	const uint8_t *words = *words_from;
	size_t i = 0;

	for (; i + TPD_RANS_LANES_MAX <= n && (size_t)(end - words) >= 2 * TPD_RANS_LANES_MAX; i += TPD_RANS_LANES_MAX) {
		__m512i at[2], u[2], found, told;
		__mmask32 is_fine[2];

		prefetch_share(soon, i);
#pragma GCC unroll 2
		for (unsigned v = 0; v < 2; v++) {
			const __m512i high = state[v].high, low = state[v].low;
			__m512i f, t = _mm512_add_epi16(low, middle_from), x, more, entry;
			__mmask32 is_middle = _mm512_testn_epi16_mask(t, in_middle), need;

			u[v] = _mm512_add_epi16(low, fine_from);
			entry = byte_looked_up(&fine, u[v]);
			if (wide)
				entry = _mm512_mask_mov_epi16(entry, _mm512_test_epi16_mask(u[v], _mm512_set1_epi16(FINE)),
							      byte_looked_up(&fine_2, u[v]));
			is_fine[v] = _mm512_mask_test_epi16_mask(_mm512_testn_epi16_mask(u[v], in_fine), entry, fine_freq);
			x = looked_up(&middle, _mm512_srli_epi16(t, 3));
			if (wide)
				x = _mm512_mask_mov_epi16(x, _mm512_test_epi16_mask(t, _mm512_set1_epi16(PLACES * MIDDLE)),
							  looked_up(&middle_2, _mm512_srli_epi16(t, 3)));
			at[v] = _mm512_srli_epi16(_mm512_add_epi16(looked_up(&coarse, _mm512_srli_epi16(low, 6)), low), 6);
			at[v] = _mm512_mask_srli_epi16(at[v], is_middle, _mm512_add_epi16(x, t), 3);
			/* f * (X >> 12) + slot - cum; f stands 4 bits higher: what it takes of the low half is below 2^16 */
			f = _mm512_mask_mov_epi16(looked_up(&freq, at[v]), is_fine[v], _mm512_and_si512(entry, fine_freq));
			more = _mm512_and_si512(_mm512_sub_epi16(low, looked_up(&cum, at[v])), slots);
			more = _mm512_mask_mov_epi16(more, is_fine[v], _mm512_and_si512(entry, fine_place));
			more = _mm512_add_epi16(more, _mm512_mulhi_epu16(f, _mm512_and_si512(low, above)));
			x = _mm512_mullo_epi16(f, high);
			f = _mm512_mulhi_epu16(f, high);
			/* Below TPD_RANS_LOW: nothing above, and a low half that comes to less even where it may not wrap. */
			need = _mm512_mask_testn_epi16_mask(_mm512_testn_epi16_mask(f, f), _mm512_adds_epu16(x, more), lowest);
			x = _mm512_add_epi16(x, more);
			f = _mm512_mask_sub_epi16(f, _mm512_cmplt_epu16_mask(x, more), f, _mm512_set1_epi16(-1));
			state[v].high = _mm512_mask_mov_epi16(f, need, x);
			state[v].low = _mm512_mask_expand_epi16(x, need, _mm512_loadu_si512(words));
			words += 2 * (size_t)_mm_popcnt_u32(need);
		}
		/* All 64 symbols at once. */
		found = _mm512_permutexvar_epi8(_mm512_permutex2var_epi8(at[0], even, at[1]), symbol);
		u[0] = _mm512_permutex2var_epi8(u[0], even, u[1]);
		told = byte_looked_up(&rare, u[0]);
		if (wide)
			told = _mm512_mask_mov_epi8(told, _mm512_movepi8_mask(u[0]), byte_looked_up(&rare_2, u[0]));
		found = _mm512_mask_mov_epi8(found, _mm512_kunpackd(is_fine[1], is_fine[0]), told);
		_mm512_storeu_si512(out + i, found);
	}
	put_states(&state[0], states);
	put_states(&state[1], states + 32);
	*words_from = words;
	return i;
}

static __attribute__((noinline)) size_t decode_by_short_tables(const struct slot_tables *tables, const uint8_t **words, const uint8_t *end,
							       uint32_t *states, const struct tpd_prefetch *soon, uint8_t *out, size_t n)
{
	return decode_rounds_by_places(tables, false, words, end, states, soon, out, n);
}

static __attribute__((noinline)) size_t decode_by_long_tables(const struct slot_tables *tables, const uint8_t **words, const uint8_t *end,
							      uint32_t *states, const struct tpd_prefetch *soon, uint8_t *out, size_t n)
{
	return decode_rounds_by_places(tables, true, words, end, states, soon, out, n);
}

static size_t rans_decode_by_places(const struct slot_tables *tables, const uint8_t **words, const uint8_t *end, uint32_t *states,
				    const struct tpd_prefetch *soon, uint8_t *out, size_t n)
{
	return (tables->wide ? decode_by_long_tables : decode_by_short_tables)(tables, words, end, states, soon, out, n);
}

#endif

#endif
