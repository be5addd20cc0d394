/*
 * rans_avx2.h - rANS in registers of eight lanes, or of sixteen halves. Only kernels_avx2.c includes it.
 *
 * Tables are looked up one entry at a time: gathers of AVX2 take longer, many times so where a CPU's microcode guards them. Where few symbols
 * are most of what there is, as in the exponents of a keyframe, none is looked up in memory: a slot is compared with where each symbol begins,
 * and what it is then indexes tables of 16 that are in registers. Rare symbols that are neighbours count as one there, without a frequency; a
 * round that has one looks it up.
 * Rejected: symbols of 4096 slots by their upper bits first, as AVX-512 has them (tables of 64 take four shuffles each here).
 */
#ifndef TPD_CODEC_RANS_AVX2_H
#define TPD_CODEC_RANS_AVX2_H

#if defined(__AVX2__) /* elsewhere this is empty, as what includes it is */

#include <immintrin.h>
#include <stddef.h>
#include <string.h>

#include "base/bytes.h"
#include "base/tpd.h"
#include "codec/internal.h"
#include "codec/kernels_internal.h"
#include "codec/vector_avx2.h"

/* --- rANS: 64 lanes in eight registers; other numbers of lanes are short streams --- */

#define REGISTERS (TPD_RANS_LANES_MAX / HALF)

VECTOR_INLINE __m128i four_entries(const uint32_t *table, size_t a, size_t b, size_t c, size_t d)
{
	const __m128i low = _mm_insert_epi32(_mm_cvtsi32_si128((int)table[a]), (int)table[b], 1);
	const __m128i high = _mm_insert_epi32(_mm_cvtsi32_si128((int)table[c]), (int)table[d], 1);

	return _mm_unpacklo_epi64(low, high);
}

/* Entries of a table at places in memory, and at those of lanes. */
VECTOR_INLINE __m256i entries_at(const uint32_t *table, const uint8_t at[HALF])
{
	return _mm256_setr_m128i(four_entries(table, at[0], at[1], at[2], at[3]), four_entries(table, at[4], at[5], at[6], at[7]));
}

VECTOR_INLINE __m128i entries_of_four(const uint32_t *table, __m128i lanes)
{
	const uint64_t low = (uint64_t)_mm_cvtsi128_si64(lanes), high = (uint64_t)_mm_extract_epi64(lanes, 1);

	return four_entries(table, (uint32_t)low, low >> 32, (uint32_t)high, high >> 32);
}

VECTOR_INLINE __m256i entries_of(const uint32_t *table, __m256i lanes)
{
	return _mm256_setr_m128i(entries_of_four(table, _mm256_castsi256_si128(lanes)), entries_of_four(table, _mm256_extracti128_si256(lanes, 1)));
}

/* steps: f and cum << 16. The quotient is the single precision one, right or one off to either side. */
VECTOR_INLINE __m256i rans_step(__m256i x, __m256i step, uint8_t **words)
{
	__m256i f = _mm256_and_si256(step, set(0xffff)), quotient, rest, over, under, low;
	__m256i full = _mm256_cmpgt_epi32(x, _mm256_sub_epi32(left(f, 31 - TPD_RANS_BITS), set(1)));
	unsigned mask = mask_of(full);

	low = _mm256_permute4x64_epi64(_mm256_packus_epi32(_mm256_and_si256(x, set(0xffff)), _mm256_setzero_si256()), 0xd8);
	_mm_storeu_si128((__m128i *)(void *)(*words - 16),
			 _mm_shuffle_epi8(_mm256_castsi256_si128(low), load_128(tables.words_to_top[mask])));
	*words -= 2 * (size_t)__builtin_popcount(mask);
	x = choose_lanes(x, right(x, 16), full);
	quotient = _mm256_cvttps_epi32(_mm256_div_ps(_mm256_cvtepi32_ps(x), _mm256_cvtepi32_ps(f)));
	rest = _mm256_sub_epi32(x, _mm256_mullo_epi32(quotient, f));
	under = _mm256_cmpgt_epi32(_mm256_setzero_si256(), rest);
	quotient = _mm256_add_epi32(quotient, under);
	rest = _mm256_add_epi32(rest, _mm256_and_si256(under, f));
	over = _mm256_cmpgt_epi32(rest, _mm256_sub_epi32(f, set(1)));
	quotient = _mm256_sub_epi32(quotient, over);
	rest = _mm256_sub_epi32(rest, _mm256_and_si256(over, f));
	return _mm256_add_epi32(left(quotient, TPD_RANS_BITS), _mm256_add_epi32(rest, right(step, 16)));
}

static uint8_t *rans_encode(const uint8_t *symbols, size_t n, unsigned k, const uint16_t freq[256], uint8_t *words_end, uint32_t *states)
{
	uint32_t steps[256], cum = 0;
	size_t i = n / TPD_RANS_LANES_MAX * TPD_RANS_LANES_MAX;
	__m256i state[REGISTERS];
	uint8_t *words = words_end;

	if (k != 6)
		return tpd_scalar_rans_encode(symbols, n, k, freq, words_end, states);
	for (unsigned s = 0; s < 256; s++) {
		steps[s] = freq[s] | cum << 16;
		cum += freq[s];
	}
	for (unsigned lane = 0; lane < TPD_RANS_LANES_MAX; lane++)
		states[lane] = TPD_RANS_LOW;
	for (size_t last = n; last-- > i;)
		words = tpd_rans_encode_one(&states[last % TPD_RANS_LANES_MAX], freq[symbols[last]], steps[symbols[last]] >> 16, words);
	for (unsigned v = 0; v < REGISTERS; v++)
		state[v] = load_256(states + HALF * v);
	while (i > 0) {
		i -= TPD_RANS_LANES_MAX;
#pragma GCC unroll 8
		for (unsigned v = REGISTERS; v-- > 0;)
			state[v] = rans_step(state[v], entries_at(steps, symbols + i + HALF * v), &words);
	}
	for (unsigned v = 0; v < REGISTERS; v++)
		store_256(states + HALF * v, state[v]);
	return words;
}

/* The next words for lanes of a mask. */
VECTOR_INLINE __m128i next_words(unsigned mask, const uint8_t **words)
{
	const __m128i more = _mm_shuffle_epi8(load_128(*words), load_128(tables.words_expand[mask]));

	*words += 2 * (size_t)__builtin_popcount(mask);
	return more;
}

/* States with the next word where they are below what states are. */
VECTOR_INLINE __m256i refilled(__m256i x, const uint8_t **words)
{
	const __m256i need = _mm256_cmpgt_epi32(set(TPD_RANS_LOW), x);

	return choose_lanes(x, _mm256_or_si256(left(x, 16), _mm256_cvtepu16_epi32(next_words(mask_of(need), words))), need);
}

/* --- 64 lanes where few symbols are most of what there is: registers of 16 halves of states --- */

#define HALVES (TPD_RANS_LANES_MAX / (2 * HALF))
#define BOUNDS 16u
#define RARE_MOST 96u /* slots of all that are rare: with more, the rounds that have one take longer than what the others save */
#define PLACE 256u    /* slots of a place */
#define PLACES (TPD_RANS_SUM / PLACE)

/* All symbols, ascending. */
struct slot_symbols {
	unsigned count;
	uint16_t freq[256];
	uint8_t symbol[256];
};

/*
 * The 4096 slots are cut into stretches, each of one symbol, or of several rare ones that are neighbours. Which one a slot is in comes from its
 * place, 256 slots, and from where stretches begin: of those that begin within a place the first is looked up by the place, and every slot is
 * compared with the beginnings of all others. Tables that shuffles look up are of bytes: words have a table of low ones and one of high ones.
 */
struct slot_bounds {
	uint8_t before[PLACES];                  /* stretches that begin at its first slot or below, but for that of slot 0 and for `others` */
	uint8_t last[2][PLACES];                 /* the last slot before the stretch that is looked up by it */
	unsigned others;                         /* in `above`; even */
	int16_t above[BOUNDS][2 * HALF];         /* the last slot before each of the others, in all lanes */
	uint8_t freq[2][BOUNDS], cum[2][BOUNDS]; /* of each stretch; frequencies times 16, 0: several rare symbols */
	uint8_t symbol[BOUNDS];
};

/* How many stretches there are if symbols of at least so many slots have one of their own; above BOUNDS, too, if the others are not rare. */
static unsigned count_stretches(const struct slot_symbols *symbols, unsigned least)
{
	unsigned count = 0, rare = 0;
	bool is_own = true;

	for (unsigned i = 0; i < symbols->count; i++) {
		const bool was_own = is_own;

		is_own = symbols->freq[i] >= least;
		count += is_own | was_own;
		rare += is_own ? 0 : symbols->freq[i];
	}
	return rare > RARE_MOST ? BOUNDS + 1 : count;
}

static void put_word(uint8_t table[2][16], unsigned place, unsigned word)
{
	table[0][place] = (uint8_t)word;
	table[1][place] = (uint8_t)(word >> 8);
}

/* A stretch begins at `from`, above 0. has_one: places by which one is looked up already. */
static void put_bound(struct slot_bounds *bounds, unsigned from, bool has_one[PLACES])
{
	const unsigned place = from / PLACE;

	if (from % PLACE > 0 && has_one[place]) {
		for (unsigned lane = 0; lane < 2 * HALF; lane++)
			bounds->above[bounds->others][lane] = (int16_t)(from - 1);
		bounds->others++;
		return;
	}
	if (from % PLACE > 0) {
		put_word(bounds->last, place, from - 1);
		has_one[place] = true;
	}
	for (unsigned later = (from + PLACE - 1) / PLACE; later < PLACES; later++)
		bounds->before[later]++;
}

/* With stretches that count_stretches() counted, at most BOUNDS. */
static void bound_stretches(const struct slot_symbols *symbols, unsigned least, struct slot_bounds *bounds)
{
	bool has_one[PLACES] = {false}, is_own = true;
	unsigned cum = 0, stretch = 0;

	memset(bounds, 0, sizeof *bounds);
	for (unsigned place = 0; place < PLACES; place++)
		put_word(bounds->last, place, INT16_MAX);
	memset(bounds->above, INT8_MAX, sizeof bounds->above); /* no slot is above */
	for (unsigned i = 0; i < symbols->count; i++) {
		const bool was_own = is_own;

		is_own = symbols->freq[i] >= least;
		if (is_own || was_own) {
			if (cum > 0)
				put_bound(bounds, cum, has_one);
			put_word(bounds->freq, stretch, is_own ? symbols->freq[i] * 16u : 0);
			put_word(bounds->cum, stretch, cum);
			bounds->symbol[stretch++] = symbols->symbol[i];
		}
		cum += symbols->freq[i];
	}
	bounds->others += bounds->others % 2;
}

/*
 * As many symbols as there is room for get a stretch of their own, but none of 1 or 2 slots: it would take longer to compare all with it.
 * false: there are more stretches than BOUNDS, or rare ones take more than RARE_MOST slots, whatever counts as rare.
 */
static bool bound_slots(const uint16_t freq[256], struct slot_bounds *bounds)
{
	struct slot_symbols symbols = {0};

	for (unsigned s = 0; s < 256; s++) {
		symbols.freq[symbols.count] = freq[s];
		symbols.symbol[symbols.count] = (uint8_t)s;
		symbols.count += freq[s] > 0;
	}
	for (unsigned least = 3; least <= RARE_MOST / 2; least += least / 2) {
		if (count_stretches(&symbols, least) > BOUNDS)
			continue;
		bound_stretches(&symbols, least, bounds);
		return true;
	}
	return false;
}

/* What is known of 32 symbols: 16 f, the slot's own place, the symbol twice. */
struct told_symbols {
	__m256i freq[2], place[2], symbol[2];
};

/* A bit for each of 32 words. */
VECTOR_INLINE uint32_t lanes_of(const __m256i words[2])
{
	return (uint32_t)_mm256_movemask_epi8(_mm256_permute4x64_epi64(_mm256_packs_epi16(words[0], words[1]), 0xd8));
}

/* Those without a frequency are looked up. */
static __attribute__((noinline)) void tell_rare(const uint32_t *table, uint32_t rare, const __m256i lower[2],
						struct told_symbols *told)
{
	for (; rare; rare &= rare - 1) {
		const size_t at = 2 * (size_t)__builtin_ctz(rare);
		const uint32_t entry = table[tpd_get_u16((const uint8_t *)lower + at) & (TPD_RANS_SUM - 1)];

		tpd_put_u16((uint8_t *)told->freq + at, (uint16_t)((entry >> 8 & 0xfff) << 4));
		tpd_put_u16((uint8_t *)told->place + at, (uint16_t)(entry >> 20));
		tpd_put_u16((uint8_t *)told->symbol + at, (uint16_t)((entry & 255) * 0x101));
	}
}

VECTOR_INLINE __m256i both_halves(const uint8_t table[16])
{
	return _mm256_broadcastsi128_si256(load_128(table));
}

/* Words of two tables of bytes; both bytes of a word have the same place. */
VECTOR_INLINE __m256i words_of(__m256i low, __m256i high, __m256i places)
{
	return _mm256_blendv_epi8(_mm256_shuffle_epi8(low, places), _mm256_shuffle_epi8(high, places), _mm256_set1_epi16((short)0xff00));
}

/* 16 states as halves, and back. */
VECTOR_INLINE void split_states(const uint32_t *states, __m256i *upper, __m256i *lower)
{
	const __m256i a = load_256(states), b = load_256(states + HALF), low = set(0xffff);

	*upper = _mm256_permute4x64_epi64(_mm256_packus_epi32(right(a, 16), right(b, 16)), 0xd8);
	*lower = _mm256_permute4x64_epi64(_mm256_packus_epi32(_mm256_and_si256(a, low), _mm256_and_si256(b, low)), 0xd8);
}

VECTOR_INLINE void join_states(__m256i upper, __m256i lower, uint32_t *states)
{
	upper = _mm256_permute4x64_epi64(upper, 0xd8);
	lower = _mm256_permute4x64_epi64(lower, 0xd8);
	store_256(states, _mm256_unpacklo_epi16(lower, upper));
	store_256(states + HALF, _mm256_unpackhi_epi16(lower, upper));
}

/* The tables of slot_bounds. */
struct bound_registers {
	__m256i before, last[2], freq[2], cum[2], symbol;
};

/* One symbol of each of 32 lanes; returns where the words begin now. */
VECTOR_INLINE const uint8_t *decode_by_bounds(const struct slot_bounds *bounds, const struct bound_registers *by, const uint32_t *table,
					      const uint8_t *words, __m256i upper[2], __m256i lower[2], uint8_t *out)
{
	const __m256i zero = _mm256_setzero_si256(), above = _mm256_set1_epi16((short)-TPD_RANS_SUM);
	const __m256i upper_bytes = _mm256_broadcastsi128_si256(_mm_setr_epi8(1, 1, 3, 3, 5, 5, 7, 7, 9, 9, 11, 11, 13, 13, 15, 15));
	__m256i slot[2], at[2], low[2], high[2], need[2], none;
	struct told_symbols told;
	__m128i more[4];
	uint32_t mask;

#pragma GCC unroll 2
	for (unsigned v = 0; v < 2; v++) {
		__m256i place;

		slot[v] = _mm256_andnot_si256(above, lower[v]);
		place = _mm256_shuffle_epi8(slot[v], upper_bytes); /* in both bytes, and so is what it counts */
		at[v] = _mm256_sub_epi8(_mm256_shuffle_epi8(by->before, place),
					_mm256_cmpgt_epi16(slot[v], words_of(by->last[0], by->last[1], place)));
	}
	for (unsigned b = 0; b < bounds->others; b += 2) {
		const __m256i first = load_256(bounds->above[b]), second = load_256(bounds->above[b + 1]);

#pragma GCC unroll 2
		for (unsigned v = 0; v < 2; v++)
			at[v] = _mm256_sub_epi8(at[v], _mm256_add_epi8(_mm256_cmpgt_epi16(slot[v], first), _mm256_cmpgt_epi16(slot[v], second)));
	}
#pragma GCC unroll 2
	for (unsigned v = 0; v < 2; v++) {
		told.freq[v] = words_of(by->freq[0], by->freq[1], at[v]);
		told.place[v] = _mm256_sub_epi16(slot[v], words_of(by->cum[0], by->cum[1], at[v]));
		told.symbol[v] = _mm256_shuffle_epi8(by->symbol, at[v]);
	}
	none = _mm256_cmpeq_epi16(_mm256_min_epu16(told.freq[0], told.freq[1]), zero);
	if (__builtin_expect(!_mm256_testz_si256(none, none), 0)) {
		const __m256i rare[2] = {_mm256_cmpeq_epi16(told.freq[0], zero), _mm256_cmpeq_epi16(told.freq[1], zero)};
		const __m256i lower_there[2] = {lower[0], lower[1]}; /* what has an address is in memory: only here */
		struct told_symbols told_there = told;

		tell_rare(table, lanes_of(rare), lower_there, &told_there);
		told = told_there;
	}
#pragma GCC unroll 2
	for (unsigned v = 0; v < 2; v++) {
		/* f * (X >> 12) + slot - cum; f stands 4 bits higher: what it takes of the low half is below 2^16 */
		const __m256i f = told.freq[v];
		const __m256i rest = _mm256_add_epi16(told.place[v], _mm256_mulhi_epu16(f, _mm256_and_si256(lower[v], above)));
		__m256i stays;

		low[v] = _mm256_add_epi16(_mm256_mullo_epi16(f, upper[v]), rest);
		stays = _mm256_cmpeq_epi16(_mm256_max_epu16(low[v], rest), low[v]); /* nothing is carried */
		high[v] = _mm256_add_epi16(_mm256_sub_epi16(_mm256_mulhi_epu16(f, upper[v]), _mm256_set1_epi16(-1)), stays);
		_Static_assert(TPD_RANS_LOW == 0x8000, "a state is below it where nothing is above, and the sign bit of the low half is 0");
		need[v] = _mm256_andnot_si256(_mm256_srai_epi16(low[v], 15), _mm256_cmpeq_epi16(high[v], zero));
	}
	mask = lanes_of(need);
#pragma GCC unroll 4
	for (unsigned b = 0; b < 4; b++)
		more[b] = next_words(mask >> 8 * b & 255, &words);
#pragma GCC unroll 2
	for (unsigned v = 0; v < 2; v++) {
		const __m256i next = _mm256_inserti128_si256(_mm256_castsi128_si256(more[2 * v]), more[2 * v + 1], 1);

		upper[v] = choose_lanes(high[v], low[v], need[v]);
		lower[v] = choose_lanes(low[v], next, need[v]);
	}
	store_256(out, _mm256_permute4x64_epi64(_mm256_packus_epi16(_mm256_srli_epi16(told.symbol[0], 8), _mm256_srli_epi16(told.symbol[1], 8)), 0xd8));
	return words;
}

/* Whole rounds of 64 symbols, while no lane can run out of words; returns where it ends. */
static __attribute__((noinline)) size_t decode_rounds_by_bounds(const struct slot_bounds *bounds, const uint32_t *table,
								const uint8_t **words_from, const uint8_t *end, uint32_t *states,
								const struct tpd_prefetch *soon, uint8_t *out, size_t n)
{
	const struct bound_registers by = {
		both_halves(bounds->before),
		{both_halves(bounds->last[0]), both_halves(bounds->last[1])},
		{both_halves(bounds->freq[0]), both_halves(bounds->freq[1])},
		{both_halves(bounds->cum[0]), both_halves(bounds->cum[1])},
		both_halves(bounds->symbol),
	};
	__m256i upper[HALVES], lower[HALVES];
	const uint8_t *words = *words_from;
	size_t i = 0;

	for (unsigned v = 0; v < HALVES; v++)
		split_states(states + 2 * HALF * v, &upper[v], &lower[v]);
	for (; i + TPD_RANS_LANES_MAX <= n && (size_t)(end - words) >= 2 * TPD_RANS_LANES_MAX; i += TPD_RANS_LANES_MAX) {
		prefetch_share(soon, i);
		words = decode_by_bounds(bounds, &by, table, words, upper, lower, out + i);
		words = decode_by_bounds(bounds, &by, table, words, upper + 2, lower + 2, out + i + TPD_RANS_LANES_MAX / 2);
	}
	for (unsigned v = 0; v < HALVES; v++)
		join_states(upper[v], lower[v], states + 2 * HALF * v);
	*words_from = words;
	return i;
}

/* The same of any symbols. */
VECTOR_INLINE size_t decode_by_table(const uint32_t *table, const uint8_t **words_from, const uint8_t *end, uint32_t *states,
				     const struct tpd_prefetch *soon, uint8_t *out, size_t n)
{
	const uint8_t *words = *words_from;
	__m256i state[REGISTERS];
	size_t i = 0;

	for (unsigned v = 0; v < REGISTERS; v++)
		state[v] = load_256(states + HALF * v);
	for (; i + TPD_RANS_LANES_MAX <= n && (size_t)(end - words) >= 2 * TPD_RANS_LANES_MAX; i += TPD_RANS_LANES_MAX) {
		__m256i entry[2];

		prefetch_share(soon, i);
#pragma GCC unroll 8
		for (unsigned v = 0; v < REGISTERS; v++) {
			__m256i x;

			entry[v % 2] = entries_of(table, _mm256_and_si256(state[v], set(TPD_RANS_SUM - 1)));
			x = _mm256_mullo_epi32(_mm256_and_si256(right(entry[v % 2], 8), set(0xfff)), right(state[v], TPD_RANS_BITS));
			x = _mm256_add_epi32(x, right(entry[v % 2], 20));
			state[v] = refilled(x, &words);
			if (v % 2)
				_mm_storeu_si128((__m128i *)(void *)(out + i + HALF * (v - 1)),
						 narrow(_mm256_and_si256(entry[0], set(255)), _mm256_and_si256(entry[1], set(255))));
		}
	}
	for (unsigned v = 0; v < REGISTERS; v++)
		store_256(states + HALF * v, state[v]);
	*words_from = words;
	return i;
}

static bool rans_decode(const uint8_t *words, size_t count, unsigned k, const uint16_t freq[256], uint32_t *table, uint32_t *states,
			const struct tpd_prefetch *soon, uint8_t *out, size_t n)
{
	const uint8_t *end = words + 2 * count;
	struct slot_bounds bounds;
	size_t i;

	if (k != 6)
		return tpd_scalar_rans_decode(words, count, k, freq, table, states, soon, out, n);
	tpd_rans_decode_table(freq, table);
	if (bound_slots(freq, &bounds))
		i = decode_rounds_by_bounds(&bounds, table, &words, end, states, soon, out, n);
	else
		i = decode_by_table(table, &words, end, states, soon, out, n);
	return tpd_rans_decode_rest(words, end, TPD_RANS_LANES_MAX, table, states, out, i, n);
}

/* --- rANS with mixed classes: 16 lanes in two registers --- */

static uint8_t *rans_encode_mixed(const uint8_t *symbols, const uint8_t *classes, size_t n, unsigned k, const uint32_t *steps,
				  uint8_t *words, uint32_t *states)
{
	size_t i = n / TPD_LANES * TPD_LANES;
	__m256i state[2];

	if (k != 4)
		return tpd_scalar_rans_encode_mixed(symbols, classes, n, k, steps, words, states);
	words = tpd_rans_mixed_put(symbols, classes, n, i, TPD_LANES, steps, words, states);
	for (unsigned v = 0; v < 2; v++)
		state[v] = load_256(states + HALF * v);
	while (i > 0) {
		i -= TPD_LANES;
#pragma GCC unroll 2
		for (unsigned v = 2; v-- > 0;) {
			__m256i place = _mm256_or_si256(left(permutation(classes + i + HALF * v), 8), permutation(symbols + i + HALF * v));

			state[v] = rans_step(state[v], entries_of(steps, place), &words);
		}
	}
	for (unsigned v = 0; v < 2; v++)
		store_256(states + HALF * v, state[v]);
	return words;
}

static const uint8_t *rans_decode_mixed(const uint8_t *words, const uint8_t *end, unsigned k, const uint32_t *tables_of, uint32_t *states,
					const uint8_t *classes, uint8_t *out, size_t n)
{
	size_t i = 0;
	__m256i state[2];

	if (k != 4)
		return tpd_scalar_rans_decode_mixed(words, end, k, tables_of, states, classes, out, n);
	for (unsigned v = 0; v < 2; v++)
		state[v] = load_256(states + HALF * v);
	for (; i + TPD_LANES <= n && (size_t)(end - words) >= 2 * TPD_LANES; i += TPD_LANES) {
		__m256i entry[2];

#pragma GCC unroll 2
		for (unsigned v = 0; v < 2; v++) {
			__m256i place = _mm256_or_si256(left(permutation(classes + i + HALF * v), TPD_RANS_BITS),
							_mm256_and_si256(state[v], set(TPD_RANS_SUM - 1))), x;

			entry[v] = entries_of(tables_of, place);
			x = _mm256_add_epi32(_mm256_and_si256(right(entry[v], 8), set(0xfff)), set(1));
			x = _mm256_add_epi32(_mm256_mullo_epi32(x, right(state[v], TPD_RANS_BITS)), right(entry[v], 20));
			state[v] = refilled(x, &words);
		}
		_mm_storeu_si128((__m128i *)(void *)(out + i),
				 narrow(_mm256_and_si256(entry[0], set(255)), _mm256_and_si256(entry[1], set(255))));
	}
	for (unsigned v = 0; v < 2; v++)
		store_256(states + HALF * v, state[v]);
	return tpd_rans_mixed_rest(words, end, TPD_LANES, tables_of, states, classes, out, i, n);
}

#endif

#endif
