/*
 * rows_encode.c - elements of one byte, told row piece by row piece from where they are known best. SPEC.md section 15.
 *
 * What is quantised has a scale for each row or block, so rows differ: in how much they changed, in how wide they are, in whether they say
 * anything new at all (two rows of an optimizer's state often differ by their scale alone, and are the same bytes then). So each piece is told
 * from the reference, from a piece before it, or from nothing; pieces that look alike share a group, and a group has frequencies for each
 * range of the values that its elements are told from:
 *
 *     piece 0  from p       ┐ group 0: nearly nothing changed     keys 1 .. 6, 7 .. 15 (F8: ulps shrink with the exponent)
 *     piece 1  from p       ┘
 *     piece 2  from piece 0   group 1: a third changed            one table
 *     piece 3  from p         group 2: all changed                keys 1 .. 2, 3 .. 15
 *
 * All symbols go in element order through one coder, each with its own table. Rejected: adaptive frequencies (five times slower to
 * read); a ratio for each row, since scales move (7 % shorter for U8 with zero points, nothing for I8); conditional on p's value itself (more
 * in tables than it saves).
 */
#include "base/tpd.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "codec/internal.h"
#include "codec/kernels.h"
#include "codec/rows.h"

#define GROUPS_TRY 8u
#define GROUP_PIECES 4u /* there are at most a fourth as many groups as pieces */
#define ROUNDS 3u
#define PREFIX 64u      /* elements, by which a piece before is found */
#define PREFIX_MIN 8u   /* so many must agree */
#define ONE 4096u       /* a bit */
#define PIECE_BITS 22u  /* of a piece's number */
#define K_LONG 4u
#define K_LONG_MIN 16384u /* elements */

/* A symbol of a piece and how often it occurs there. */
struct occurrence {
	uint16_t count; /* a piece has at most 8192 */
	uint8_t symbol;
};

struct group {
	uint32_t counts[256];
	uint32_t n, pieces;
	uint64_t cost;
};

struct table {
	uint32_t counts[256];
	uint32_t n;
	uint64_t cost;
	uint16_t freq[256];
	uint8_t first_key, first, last;
};

struct step { /* coding one symbol, as in rans_encode.c */
	uint64_t reciprocal;
	uint32_t last;
	uint16_t rest, cum;
};

struct work {
	const struct tpd_codec *codec;
	struct tpd_rows_type type;
	const struct tpd_pieces *pieces;
	size_t count;
	const uint8_t *x, *p;
	/* in codec->rows */
	struct step *steps;         /* 256 a table */
	struct table *tables;       /* TPD_ROWS_TABLES, of all groups one behind the other */
	struct table *keyed;        /* of one group: TPD_ROWS_KEYS and one more */
	struct group *groups;       /* TPD_ROWS_GROUPS and one more */
	uint64_t *order;            /* of pieces: cost << PIECE_BITS | piece */
	uint32_t *starts;           /* of each piece's occurrences, count + 1 */
	struct occurrence *occurrences;
	uint8_t *sources, *group_of; /* of pieces */
	uint8_t *symbols, *table_of; /* of elements */
	size_t table_count, group_count, table_end[TPD_ROWS_GROUPS];
};

/* log2(v) in 1/4096 bit; v > 0. */
static uint32_t log_of(const struct tpd_codec *codec, uint32_t v)
{
	unsigned shift = 0;

	while (v >> shift >= TPD_RANS_SUM)
		shift++;
	return (TPD_RANS_BITS + shift) * ONE - codec->cost[v >> shift];
}

/* Bits of symbols that occur so often, and of a table for them, in 1/4096. */
static uint64_t cost_of(const struct tpd_codec *codec, const uint32_t counts[256], uint32_t n)
{
	uint64_t bits = 16;
	bool zeros = true;
	uint64_t sum = 0;

	if (n == 0)
		return 0;
	for (unsigned s = 0; s < 256; s++) {
		uint32_t c = counts[s];

		if (c == 0) {
			bits += zeros ? 0 : 16;
			zeros = true;
			continue;
		}
		zeros = false;
		bits += (uint64_t)c * 32 < n ? 8 : 16;
		sum += (uint64_t)c * log_of(codec, c);
	}
	return (uint64_t)n * log_of(codec, n) + bits * ONE - sum;
}

/* --- sources --- */

/* Entropy of the symbols' lengths, and the bits below their highest. */
static uint64_t source_cost(const struct work *work, const uint8_t *x, const uint8_t *s, size_t n)
{
	uint32_t counts[256] = {0}, by_length[9] = {0};
	uint64_t bits = 0;

	for (size_t i = 0; i < n; i++)
		counts[tpd_rows_symbol(&work->type, x[i], s ? s[i] : 0)]++;
	for (unsigned v = 0; v < 256; v++) {
		unsigned length = v == 0 ? 0 : 32 - (unsigned)__builtin_clz(v);

		by_length[length] += counts[v];
		bits += (uint64_t)counts[v] * (length > 1 ? length - 1 : 0) * ONE;
	}
	bits += (uint64_t)n * log_of(work->codec, (uint32_t)n);
	for (unsigned length = 0; length < 9; length++)
		if (by_length[length] > 0)
			bits -= (uint64_t)by_length[length] * log_of(work->codec, by_length[length]);
	return bits;
}

/* How many of n bytes are the same; n: up to 64, whole eights. Eight at once: a byte of `differ` counts those that do not at its place. */
static unsigned agreeing(const uint8_t *a, const uint8_t *b, size_t n)
{
	const uint64_t ones = UINT64_C(0x0101010101010101), low = 0x7f * ones;
	uint64_t differ = 0;

	for (size_t i = 0; i < n; i += 8) {
		uint64_t off = tpd_get_u64(a + i) ^ tpd_get_u64(b + i);

		differ += (((off & low) + low) | off) >> 7 & ones;
	}
	return (unsigned)n - (unsigned)(differ * ones >> 56);
}

/* The distance, in rows, of the piece before that is most like this one; 0: none is. */
static unsigned find_like(const struct work *work, size_t start, size_t n)
{
	const size_t prefix = TPD_MIN(n / 8 * 8, (size_t)PREFIX), row = work->pieces->row;
	unsigned best = 0, most = PREFIX_MIN - 1;

	if (prefix == 0)
		return 0;
	for (unsigned k = 1; k <= TPD_ROWS_SOURCE_FAR && k * row <= start; k++) {
		unsigned same = agreeing(work->x + start, work->x + start - k * row, prefix);

		if (same > most) {
			most = same;
			best = k;
		}
	}
	return best;
}

static void choose_source(struct work *work, size_t i)
{
	const size_t start = tpd_piece_start(work->pieces, i), n = tpd_piece_start(work->pieces, i + 1) - start;
	const uint8_t *x = work->x + start, *from = NULL;
	uint64_t best = source_cost(work, x, NULL, n), cost;
	unsigned source = TPD_ROWS_SOURCE_NONE, like;

	if (work->p) {
		cost = source_cost(work, x, work->p + start, n);
		if (cost < best) {
			best = cost;
			source = TPD_ROWS_SOURCE_REF;
			from = work->p + start;
		}
	}
	like = best > n * ONE / 8 ? find_like(work, start, n) : 0;
	if (like > 0 && source_cost(work, x, x - like * work->pieces->row, n) < best) {
		source = like;
		from = x - like * work->pieces->row;
	}
	work->sources[i] = (uint8_t)source;
	for (size_t j = 0; j < n; j++) {
		work->symbols[start + j] = tpd_rows_symbol(&work->type, x[j], from ? from[j] : 0);
		work->table_of[start + j] = work->type.key[from ? from[j] : 0];
	}
}

/* --- groups --- */

static void count_occurrences(struct work *work)
{
	struct occurrence *out = work->occurrences;

	for (size_t i = 0; i < work->count; i++) {
		const size_t end = tpd_piece_start(work->pieces, i + 1);
		uint16_t counts[256] = {0};

		for (size_t j = tpd_piece_start(work->pieces, i); j < end; j++)
			counts[work->symbols[j]]++;
		work->starts[i] = (uint32_t)(out - work->occurrences);
		for (unsigned s = 0; s < 256; s++)
			if (counts[s] > 0)
				*out++ = (struct occurrence){.count = counts[s], .symbol = (uint8_t)s};
	}
	work->starts[work->count] = (uint32_t)(out - work->occurrences);
}

static void count_groups(struct work *work)
{
	memset(work->groups, 0, work->group_count * sizeof(*work->groups));
	for (size_t i = 0; i < work->count; i++) {
		struct group *group = &work->groups[work->group_of[i]];

		group->pieces++;
		for (uint32_t j = work->starts[i]; j < work->starts[i + 1]; j++) {
			group->counts[work->occurrences[j].symbol] += work->occurrences[j].count;
			group->n += work->occurrences[j].count;
		}
	}
}

/* What a symbol costs in each group; one that does not occur there as if it did half a time. */
static void group_prices(const struct work *work, uint32_t prices[256][TPD_ROWS_GROUPS])
{
	for (size_t g = 0; g < work->group_count; g++) {
		const struct group *group = &work->groups[g];
		const uint32_t all = group->n > 0 ? log_of(work->codec, group->n) : 64 * ONE;

		for (unsigned s = 0; s < 256; s++)
			prices[s][g] = group->counts[s] > 0 ? all - log_of(work->codec, group->counts[s]) : all + ONE;
	}
}

static int by_value(const void *a, const void *b)
{
	const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* Pieces by what an element of them costs under the frequencies of all, in groups of equal size. */
static void first_groups(struct work *work)
{
	uint32_t prices[256][TPD_ROWS_GROUPS];
	const size_t groups = TPD_MAX(TPD_MIN((size_t)GROUPS_TRY, work->count / GROUP_PIECES), (size_t)1);

	work->group_count = 1;
	memset(work->group_of, 0, work->count);
	count_groups(work);
	group_prices(work, prices);
	for (size_t i = 0; i < work->count; i++) {
		uint64_t cost = 0, n = 0;

		for (uint32_t j = work->starts[i]; j < work->starts[i + 1]; j++) {
			cost += (uint64_t)work->occurrences[j].count * prices[work->occurrences[j].symbol][0];
			n += work->occurrences[j].count;
		}
		work->order[i] = cost / n << PIECE_BITS | i;
	}
	qsort(work->order, work->count, sizeof(*work->order), by_value);
	for (size_t i = 0; i < work->count; i++)
		work->group_of[work->order[i] & ((1u << PIECE_BITS) - 1)] = (uint8_t)(i * groups / work->count);
	work->group_count = groups;
}

static void move_pieces(struct work *work)
{
	uint32_t prices[256][TPD_ROWS_GROUPS];

	group_prices(work, prices);
	for (size_t i = 0; i < work->count; i++) {
		uint64_t cost[TPD_ROWS_GROUPS] = {0};
		unsigned best = 0;

		for (uint32_t j = work->starts[i]; j < work->starts[i + 1]; j++) {
			const struct occurrence *it = &work->occurrences[j];

			for (size_t g = 0; g < work->group_count; g++)
				cost[g] += (uint64_t)it->count * prices[it->symbol][g];
		}
		for (unsigned g = 1; g < work->group_count; g++)
			if (cost[g] < cost[best])
				best = g;
		work->group_of[i] = (uint8_t)best;
	}
}

/* Bits that it takes to tell a from b, for all their pieces. */
static uint64_t label_cost(const struct tpd_codec *codec, uint32_t a, uint32_t b)
{
	if (a == 0 || b == 0)
		return 0;
	return (uint64_t)(a + b) * log_of(codec, a + b) - (uint64_t)a * log_of(codec, a) - (uint64_t)b * log_of(codec, b);
}

static void unite(const struct tpd_codec *codec, const struct group *a, const struct group *b, struct group *out)
{
	for (unsigned s = 0; s < 256; s++)
		out->counts[s] = a->counts[s] + b->counts[s];
	out->n = a->n + b->n;
	out->pieces = a->pieces + b->pieces;
	out->cost = cost_of(codec, out->counts, out->n);
}

/* The two whose union saves most become one, the last takes the free place; false: none saves anything. */
static bool join_groups(struct work *work)
{
	struct group *groups = work->groups, *both = &groups[TPD_ROWS_GROUPS];
	size_t a = 0, b = 0, last = work->group_count - 1;
	int64_t most = 0;

	for (size_t i = 0; i < work->group_count; i++) {
		for (size_t j = i + 1; j < work->group_count; j++) {
			int64_t gain;

			unite(work->codec, &groups[i], &groups[j], both);
			gain = (int64_t)(groups[i].cost + groups[j].cost + label_cost(work->codec, groups[i].pieces, groups[j].pieces)) -
			       (int64_t)both->cost;
			if (groups[i].pieces == 0 || groups[j].pieces == 0)
				gain = INT64_MAX;
			if (gain > most) {
				most = gain;
				a = i;
				b = j;
			}
		}
	}
	if (most == 0)
		return false;
	unite(work->codec, &groups[a], &groups[b], both);
	groups[a] = *both;
	groups[b] = groups[last];
	for (size_t i = 0; i < work->count; i++) {
		if (work->group_of[i] == b)
			work->group_of[i] = (uint8_t)a;
		if (work->group_of[i] == last && b != last)
			work->group_of[i] = (uint8_t)b;
	}
	work->group_count--;
	return true;
}

static void make_groups(struct work *work)
{
	count_occurrences(work);
	first_groups(work);
	for (unsigned round = 0; round < ROUNDS && work->group_count > 1; round++) {
		count_groups(work);
		move_pieces(work);
	}
	count_groups(work);
	for (size_t g = 0; g < work->group_count; g++)
		work->groups[g].cost = cost_of(work->codec, work->groups[g].counts, work->groups[g].n);
	while (work->group_count > 1 && join_groups(work))
		;
}

/* --- tables of a group --- */

static void finish(const struct tpd_codec *codec, struct table *table)
{
	table->first = 0;
	table->last = 255;
	while (table->counts[table->first] == 0)
		table->first++;
	while (table->counts[table->last] == 0)
		table->last--;
	table->cost = cost_of(codec, table->counts, table->n) + 8 * ONE; /* its bound */
}

static int64_t gain_of(const struct tpd_codec *codec, const struct table *a, const struct table *b, struct table *both)
{
	for (unsigned s = 0; s < 256; s++)
		both->counts[s] = a->counts[s] + b->counts[s];
	both->n = a->n + b->n;
	both->first_key = a->first_key;
	finish(codec, both);
	return (int64_t)(a->cost + b->cost) - (int64_t)both->cost;
}

/* Of group g, behind those that there are; the elements' keys become their tables' numbers. */
static void make_tables(struct work *work, unsigned g)
{
	const size_t most = TPD_ROWS_TABLES / work->group_count;
	struct table *tables = work->keyed, *both = &tables[TPD_ROWS_KEYS];
	uint8_t number[TPD_ROWS_KEYS];
	size_t count = 0;

	memset(tables, 0, TPD_ROWS_KEYS * sizeof(*tables));
	for (size_t i = 0; i < work->count; i++) {
		const size_t end = work->group_of[i] == g ? tpd_piece_start(work->pieces, i + 1) : 0;

		for (size_t j = tpd_piece_start(work->pieces, i); j < end; j++)
			tables[work->table_of[j]].counts[work->symbols[j]]++;
	}
	for (unsigned key = 0; key < TPD_ROWS_KEYS; key++) {
		struct table *table = &tables[count];

		if (count < key)
			*table = tables[key];
		table->n = 0;
		for (unsigned s = 0; s < 256; s++)
			table->n += table->counts[s];
		if (table->n == 0)
			continue;
		table->first_key = (uint8_t)key;
		finish(work->codec, table);
		count++;
	}
	while (count > 1) {
		int64_t largest = INT64_MIN;
		size_t best = 0;

		for (size_t i = 0; i + 1 < count; i++) {
			int64_t gain = gain_of(work->codec, &tables[i], &tables[i + 1], both);

			if (gain > largest) {
				largest = gain;
				best = i;
			}
		}
		if (largest <= 0 && count <= most)
			break;
		gain_of(work->codec, &tables[best], &tables[best + 1], both);
		tables[best] = *both;
		count--;
		memmove(&tables[best + 1], &tables[best + 2], (count - best - 1) * sizeof(*tables));
	}
	tables[0].first_key = 0;
	for (size_t t = 0; t < count; t++)
		for (unsigned key = tables[t].first_key; key < TPD_ROWS_KEYS; key++)
			number[key] = (uint8_t)(work->table_count + t);
	for (size_t i = 0; i < work->count; i++) {
		const size_t end = work->group_of[i] == g ? tpd_piece_start(work->pieces, i + 1) : 0;

		for (size_t j = tpd_piece_start(work->pieces, i); j < end; j++)
			work->table_of[j] = number[work->table_of[j]];
	}
	memcpy(&work->tables[work->table_count], tables, count * sizeof(*tables));
	work->table_count += count;
	work->table_end[g] = work->table_count;
}

/* --- the stream --- */

static void make_steps(struct table *table, struct step steps[256])
{
	uint32_t cum = 0;

	if (table->first == table->last) {
		memset(table->freq, 0, sizeof(table->freq));
		table->freq[table->first] = TPD_RANS_SUM;
	} else {
		tpd_rans_quantise(table->counts, table->n, table->first, table->last, table->freq);
	}
	for (unsigned s = table->first; s <= table->last; s++) {
		const uint32_t f = table->freq[s];

		steps[s] = (struct step){.reciprocal = f > 0 ? (UINT64_C(1) << 43) / f + 1 : 0,
					 .last = (f << 19) - 1,
					 .rest = (uint16_t)(TPD_RANS_SUM - f),
					 .cum = (uint16_t)cum};
		cum += f;
	}
	assert(cum == TPD_RANS_SUM);
}

/* As in rans_encode.c, with a table for each element, and lanes that are counted from where a piece begins. */
static uint8_t *encode_symbols(const struct work *work, unsigned k, uint8_t *words, uint32_t *states)
{
	const size_t mask = ((size_t)1 << k) - 1;

	for (size_t i = work->count; i-- > 0;) {
		const size_t start = tpd_piece_start(work->pieces, i);

		for (size_t j = tpd_piece_start(work->pieces, i + 1); j-- > start;) {
			const struct step *step = &work->steps[(size_t)work->table_of[j] << 8 | work->symbols[j]];
			uint32_t *state = &states[(j - start) & mask], x = *state, out = (step->last - x) >> 31;

			tpd_put_u16(words - 2, (uint16_t)x);
			words -= (size_t)out << 1;
			x >>= out << 4;
			*state = x + step->cum + (uint32_t)(x * step->reciprocal >> 43) * step->rest;
		}
	}
	return words;
}

static uint8_t *put_tables(const struct work *work, uint8_t *out)
{
	for (size_t g = 0, t = 0; g < work->group_count; g++) {
		*out++ = (uint8_t)(work->table_end[g] - t - 1);
		for (size_t b = t + 1; b < work->table_end[g]; b++)
			*out++ = work->tables[b].first_key;
		for (; t < work->table_end[g]; t++) {
			const struct table *table = &work->tables[t];

			*out++ = table->first;
			*out++ = table->last;
			if (table->first < table->last)
				out = tpd_rans_put_frequencies(out, table->freq, table->first, table->last);
		}
	}
	return out;
}

/* Memory for all of it: what needs most alignment first. */
static enum tpd_status prepare(struct tpd_codec *codec, struct work *work, struct tpd_err *err)
{
	const size_t n = work->pieces->n, count = work->count;
	size_t size = TPD_ROWS_TABLES * 256 * sizeof(*work->steps) +
		      (TPD_ROWS_TABLES + TPD_ROWS_KEYS + 1) * sizeof(*work->tables) + (TPD_ROWS_GROUPS + 1) * sizeof(*work->groups) +
		      count * sizeof(*work->order) + (count + 2) * sizeof(*work->starts) + n * sizeof(*work->occurrences) + 2 * count + 2 * n;
	enum tpd_status status = tpd_scratch_need(&codec->rows, size, err);

	if (status != TPD_OK)
		return status;
	work->steps = (struct step *)(void *)codec->rows.data;
	work->tables = (struct table *)(void *)(work->steps + TPD_ROWS_TABLES * 256);
	work->keyed = work->tables + TPD_ROWS_TABLES;
	work->groups = (struct group *)(void *)(work->keyed + TPD_ROWS_KEYS + 1);
	work->order = (uint64_t *)(void *)(work->groups + TPD_ROWS_GROUPS + 1);
	work->starts = (uint32_t *)(void *)(work->order + count);
	work->occurrences = (struct occurrence *)(void *)(work->starts + count + 2);
	work->sources = (uint8_t *)(work->occurrences + n);
	work->group_of = work->sources + count;
	work->symbols = work->group_of + count;
	work->table_of = work->symbols + n;
	return TPD_OK;
}

/* Elements of one form; out: where the payload goes on, in codec->payload, which has room. */
static enum tpd_status encode_elements(struct tpd_codec *codec, struct work *work, uint8_t *out, size_t *out_len, struct tpd_err *err)
{
	const size_t words_max = 2 * work->pieces->n + TPD_WORDS_SLACK;
	const unsigned k = work->pieces->n >= K_LONG_MIN ? K_LONG : 2;
	uint8_t *words, *words_end, *const begin = out;
	uint32_t states[TPD_RANS_LANES_MAX];
	size_t part;
	enum tpd_status status = prepare(codec, work, err);

	if (status == TPD_OK)
		status = tpd_scratch_need(&codec->words, words_max, err);
	if (status != TPD_OK)
		return status;
	for (size_t i = 0; i < work->count; i++)
		choose_source(work, i);
	make_groups(work);
	for (unsigned g = 0; g < work->group_count; g++)
		make_tables(work, g);
	for (size_t t = 0; t < work->table_count; t++)
		make_steps(&work->tables[t], &work->steps[t * 256]);

	*out++ = (uint8_t)work->group_count;
	status = tpd_symbols_encode(codec, work->sources, work->count, out, &part, err);
	out += part;
	if (status == TPD_OK)
		status = tpd_symbols_encode(codec, work->group_of, work->count, out, &part, err);
	if (status != TPD_OK)
		return status;
	out += part;
	out = put_tables(work, out);
	*out++ = (uint8_t)k;
	words = words_end = codec->words.data + words_max; /* tpd_symbols_encode() is done with it */
	for (unsigned lane = 0; lane < 1u << k; lane++)
		states[lane] = TPD_RANS_LOW;
	words = encode_symbols(work, k, words, states);
	part = (size_t)(words_end - words);
	out = tpd_rans_put_states(out, part / 2, k, states);
	memcpy(out, words, part);
	*out_len = (size_t)(out - begin) + part;
	return TPD_OK;
}

enum tpd_status tpd_encode_rows(struct tpd_codec *codec, enum tpd_dtype dtype, bool nibbles, const uint8_t *x, const uint8_t *p,
				const struct tpd_pieces *pieces, size_t *out_len, struct tpd_err *err)
{
	const size_t each = nibbles ? 2 : 1, n = pieces->n;
	const struct tpd_pieces parts = {pieces->first * each, pieces->row * each, n * each};
	struct work work = {.codec = codec, .pieces = &parts, .count = tpd_piece_count(&parts), .x = x, .p = p};
	uint8_t *out, *split;
	enum tpd_status status =
		tpd_scratch_need(&codec->payload, 16 + 2 * TPD_SYMBOLS_BOUND(work.count) + TPD_ROWS_TABLES * 516 +
							  4 * TPD_RANS_LANES_MAX + 2 * parts.n + TPD_WORDS_SLACK, err);

	if (status == TPD_OK)
		status = tpd_scratch_need(&codec->symbols, nibbles ? 4 * n : 1, err);
	if (status != TPD_OK)
		return status;
	if (nibbles) {
		split = codec->symbols.data;
		tpd_rows_split(x, n, split);
		work.x = split;
		if (p) {
			tpd_rows_split(p, n, split + 2 * n);
			work.p = split + 2 * n;
		}
	}
	tpd_rows_type(dtype, nibbles, &work.type);
	out = codec->payload.data;
	out[0] = nibbles ? TPD_ROWS_NIBBLES : TPD_ROWS_BYTES;
	tpd_put_u16(out + 1, (uint16_t)pieces->row);
	tpd_put_u16(out + 3, (uint16_t)pieces->first);
	status = encode_elements(codec, &work, out + 5, out_len, err);
	*out_len += 5;
	return status;
}
