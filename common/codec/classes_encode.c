/*
 * classes_encode.c - symbols of a grid, coded by what is known of each element. SPEC.md section 9.
 *
 * An optimizer moves all weights of a row by about as much, so where ulps are small nearly all of them change, and where they are large
 * nearly none do. Exponent of the reference, level of the row, and how far the element may go (for `stepped`) make its key, a class is a
 * range of keys. All symbols, those that say "unchanged" too, go through rANS in the order of the elements, each with the frequencies
 * of its class. So no positions are coded, and what is left is close to the entropy given the key:
 *
 *     element    0  1  2  3  4  5 ...           class 0 (small)    frequencies of its own,
 *     class      2  0  1  0  0  2 ...    ──►    class 1            one coder, which takes those of
 *     symbol     =  +1 =  -2 =  =               class 2 (large)    2, 0, 1, 0, 0, 2, ...
 *
 * Neighbouring keys become one class where that saves more in tables than it costs. Rejected: Rice codes of gaps within a class (longer, no
 * faster); symbols sorted by class (to deal them out again takes as long as to decode them); what changed beside and above an element
 * as a digit of its key, and levels of rows and columns that follow what was decoded (longer); levels per column, too (no shorter);
 * bounds and tables that are coded with chances which learn from class to class (0.3 % shorter: neighbours' tables are too unlike);
 * adaptive binary contexts (ten times slower); of steps and noise two digits instead of one (shorter but for the tables: longer).
 */
#include "base/tpd.h"

#include <fenv.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "codec/classes.h"
#include "codec/classes_fit.h"
#include "codec/kernels.h"
#include "codec/rounding.h"

#define K_BITS (1u << 16)     /* a chunk of fewer has 4 lanes, others 16: each costs two bytes */
#define LEVEL_SHIFT 16u
#define CHANCE 4u
#define SLOTS_MAX 600u        /* ranges of keys before they are joined */
#define SLOT_CHANGES 16u      /* a slot ends when it has so many, ... */
#define SLOT_SHARE 256u       /* ... and at least this part of all; or this part of all elements */
#define CLASS_BITS 64u       /* what a class costs beside its symbols, about */
#define LEVELS_BITS 128u      /* of their stream, beside them, about */
#define NOISE 2.0             /* of what is left, squared, to how far an element may go */
#define FAR 1e30
#define DECAY_RANK 256u       /* so many have a smaller v2 / v1 */

/* What is worked on. */
struct work {
	const struct tpd_codec *codec;
	enum tpd_dtype dtype;
	const uint8_t *p, *symbols;
	const struct tpd_pieces *pieces;
	uint16_t *keys;
	uint8_t *class_of, *levels;
	uint64_t level_bits;                    /* what levels take, about */
	uint32_t *places;                       /* of changes */
	size_t changes;
	uint32_t (*totals)[2];                  /* of each key: all, changed */
	uint16_t *slot_of;                      /* of each key */
	struct tpd_class *slots;                /* SLOTS_MAX + 1 */
};

/* One way of telling classes apart, and what came of it. */
struct attempt {
	struct tpd_class_rule rule;
	size_t count;
	uint64_t bits;
	struct tpd_class classes[TPD_CLASSES_MAX];
};

/* --- joining --- */

/* n log2 n, in 1/4096 bit. */
static uint64_t n_log_n(const struct tpd_codec *codec, uint32_t n)
{
	unsigned shift = 0;

	if (n < 2)
		return 0;
	while (n >> shift >= TPD_RANS_SUM)
		shift++;
	return (uint64_t)n * (((TPD_RANS_BITS + shift) << TPD_RANS_BITS) - codec->cost[n >> shift]);
}

/* Bits of two slots as one class, or of one (b NULL), in 1/4096. */
static uint64_t entropy(const struct tpd_codec *codec, const struct tpd_class *a, const struct tpd_class *b)
{
	unsigned first = b ? TPD_MIN(a->first, b->first) : a->first, last = b ? TPD_MAX(a->last, b->last) : a->last;
	uint64_t bits = n_log_n(codec, a->n + (b ? b->n : 0)), parts = 0;

	for (unsigned s = first; s <= last; s++) {
		uint32_t count = a->counts[s] + (b ? b->counts[s] : 0);

		if (count > 1)
			parts += n_log_n(codec, count);
	}
	return bits - TPD_MIN(bits, parts);
}

static int64_t gain_of(const struct tpd_codec *codec, const struct tpd_class *a, const struct tpd_class *b)
{
	return (int64_t)(a->cost + b->cost + (CLASS_BITS << TPD_RANS_BITS)) - (int64_t)entropy(codec, a, b);
}

static void add_slot(struct tpd_class *to, const struct tpd_class *from)
{
	to->first = TPD_MIN(to->first, from->first);
	to->last = TPD_MAX(to->last, from->last);
	to->n += from->n;
	for (unsigned s = from->first; s <= from->last; s++)
		to->counts[s] += from->counts[s];
}

/* Join neighbours, whichever two save most first, until none do and there are few enough. Returns how many are left, first in order[]. */
static size_t join_slots(const struct tpd_codec *codec, struct tpd_class *slots, size_t count, uint16_t *order)
{
	int64_t gain[SLOTS_MAX + 1];

	for (size_t i = 0; i < count; i++) {
		order[i] = (uint16_t)i;
		slots[i].cost = entropy(codec, &slots[i], NULL);
	}
	for (size_t i = 0; i + 1 < count; i++)
		gain[i] = gain_of(codec, &slots[i], &slots[i + 1]);
	while (count > 1) {
		size_t best = 0;

		for (size_t i = 1; i + 1 < count; i++)
			if (gain[i] > gain[best])
				best = i;
		if (gain[best] <= 0 && count <= TPD_CLASSES_MAX)
			break;
		add_slot(&slots[order[best]], &slots[order[best + 1]]);
		slots[order[best]].cost = entropy(codec, &slots[order[best]], NULL);
		count--;
		memmove(&order[best + 1], &order[best + 2], (count - best - 1) * sizeof(*order));
		memmove(&gain[best], &gain[best + 1], (count - best - 1) * sizeof(*gain));
		if (best + 1 < count)
			gain[best] = gain_of(codec, &slots[order[best]], &slots[order[best + 1]]);
		if (best > 0)
			gain[best - 1] = gain_of(codec, &slots[order[best - 1]], &slots[order[best]]);
	}
	return count;
}

/* --- slots --- */

static void open_slot(struct tpd_class *slot, unsigned key)
{
	memset(slot->counts, 0, sizeof(slot->counts));
	slot->n = 0;
	slot->first_key = key;
	slot->first = slot->last = TPD_SYMBOL_EQUAL;
}

/* Runs of keys that have enough elements to say something. */
static size_t make_slots(const struct work *work)
{
	const uint32_t changes = TPD_MAX(SLOT_CHANGES, (uint32_t)(work->changes / SLOT_SHARE));
	const uint32_t all = TPD_MAX(SLOT_CHANGES, (uint32_t)(work->pieces->n / SLOT_SHARE));
	size_t count = 0;
	uint32_t changed = 0;

	memset(work->totals, 0, TPD_KEYS * sizeof(*work->totals));
	for (size_t i = 0; i < work->pieces->n; i++)
		work->totals[work->keys[i]][0]++;
	for (size_t i = 0; i < work->changes; i++)
		work->totals[work->keys[work->places[i]]][1]++;
	open_slot(&work->slots[0], 0);
	for (unsigned key = 0; key < TPD_KEYS; key++) {
		struct tpd_class *slot = &work->slots[count];

		work->slot_of[key] = (uint16_t)count;
		slot->n += work->totals[key][0];
		changed += work->totals[key][1];
		slot->counts[TPD_SYMBOL_EQUAL] += work->totals[key][0] - work->totals[key][1];
		if (changed < changes && slot->n < all)
			continue;
		changed = 0;
		open_slot(&work->slots[++count], key + 1);
	}
	if (work->slots[count].n > 0)
		count++;
	for (size_t i = 0; i < work->changes; i++) {
		struct tpd_class *slot = &work->slots[work->slot_of[work->keys[work->places[i]]]];
		unsigned symbol = work->symbols[work->places[i]];

		slot->counts[symbol]++;
		slot->first = TPD_MIN(slot->first, symbol);
		slot->last = TPD_MAX(slot->last, symbol);
	}
	return count;
}

/* Classes by a rule whose keys are made, without their tables; bits: about. */
static void make_classes(const struct work *work, struct attempt *attempt)
{
	uint16_t order[SLOTS_MAX + 1];
	size_t slots = make_slots(work);

	attempt->bits = attempt->rule.by == TPD_BY_INNOVATION ? 32 : work->level_bits;
	attempt->count = join_slots(work->codec, work->slots, slots, order);
	for (size_t c = 0; c < attempt->count; c++) {
		attempt->classes[c] = work->slots[order[c]];
		attempt->bits += (attempt->classes[c].cost >> TPD_RANS_BITS) + CLASS_BITS;
	}
}

/* --- levels --- */

struct rates {
	uint32_t all[256], changed[256]; /* by exponent field */
};

TPD_INLINE unsigned exponent_of(enum tpd_dtype dtype, const uint8_t *p, size_t i)
{
	if (dtype == TPD_DTYPE_F32)
		return tpd_class_exponent(TYPE_F32, p, i);
	return dtype == TPD_DTYPE_BF16 ? tpd_class_exponent(TYPE_BF16, p, i) : tpd_class_exponent(TYPE_F16, p, i);
}

/*
 * By how much a piece changed against what its exponents let expect: in half octaves, from a quarter below to a quarter above. Few changes
 * say little: what may be chance (variance of a Poisson distribution) is not worth a level. expected counts 2^-LEVEL_SHIFT.
 */
static unsigned choose_level(uint64_t changed, uint64_t expected)
{
	/* 2^(k/2 - 1/4) for k = -3 .. 4, in 1/4096 */
	static const uint32_t bounds[TPD_KEY_LEVELS - 1] = {1218, 1722, 2435, 3444, 4871, 6889, 9742, 13777};
	const int64_t off = (int64_t)(changed << LEVEL_SHIFT) - (int64_t)expected;
	unsigned level = 0;

	if ((uint64_t)(off * off) <= CHANCE * (expected << LEVEL_SHIFT))
		return TPD_KEY_LEVEL_MIDDLE;
	while (level < TPD_KEY_LEVELS - 1 && changed << LEVEL_SHIFT << 12 >= expected * bounds[level])
		level++;
	return level;
}

/* One byte a piece into levels. */
static void choose_levels(struct work *work)
{
	const struct tpd_pieces *pieces = work->pieces;
	const size_t count = tpd_piece_count(pieces);
	uint32_t expected[256];
	uint32_t counts[TPD_KEY_LEVELS] = {0};
	struct rates rates = {{0}, {0}};
	size_t place = 0;

	for (size_t i = 0; i < pieces->n; i++)
		rates.all[exponent_of(work->dtype, work->p, i)]++;
	for (size_t i = 0; i < work->changes; i++)
		rates.changed[exponent_of(work->dtype, work->p, work->places[i])]++;
	for (unsigned e = 0; e < 256; e++)
		expected[e] = rates.all[e] ? (uint32_t)(((uint64_t)rates.changed[e] << LEVEL_SHIFT) / rates.all[e]) : 0;
	for (size_t i = 0; i < count; i++) {
		size_t end = tpd_piece_start(pieces, i + 1), before = place;
		uint64_t sum = 0;

		for (size_t j = tpd_piece_start(pieces, i); j < end; j++)
			sum += expected[exponent_of(work->dtype, work->p, j)];
		while (place < work->changes && work->places[place] < end)
			place++;
		work->levels[i] = (uint8_t)choose_level(place - before, sum);
		counts[work->levels[i]]++;
	}
	work->level_bits = n_log_n(work->codec, (uint32_t)count);
	for (unsigned l = 0; l < TPD_KEY_LEVELS; l++)
		work->level_bits -= n_log_n(work->codec, counts[l]);
	work->level_bits = (work->level_bits >> TPD_RANS_BITS) + LEVELS_BITS;
}

/* --- innovation --- */

/*
 * From v2 / v1 as BF16: what nearly none is below is how much v decays. Then, from elements with small ulps, how far they were from
 * where they were expected, for what share of v was new.
 */
void tpd_class_innovation(enum tpd_dtype dtype, const uint8_t *p, const uint32_t *places, size_t changes, const struct tpd_class_given *given,
			  struct tpd_class_rule *rule)
{
	enum { SHIFT = 16, FIRST = 0x3e800000 >> SHIFT, RATIOS = (0x3f800000 >> SHIFT) - FIRST }; /* 1/4 .. 1 */
	const unsigned most = rule->base + TPD_CLASS_BELOW_T;
	uint32_t ratios[RATIOS + 1] = {0}, live = 0, below = 0;
	double off = 0, shares = 0;
	unsigned at = 0;

	for (size_t i = 0; i < changes; i++) {
		float before = rule->v1[places[i]], after = rule->v2[places[i]], ratio = before > 0 && after > 0 ? after / before : 0;
		int32_t place = (int32_t)(bits_of(ratio) >> SHIFT) - FIRST;

		if (!(ratio > 0))
			continue;
		ratios[place < 0 ? 0 : place > RATIOS ? RATIOS : place]++;
		live++;
	}
	while (at < RATIOS && (below += ratios[at]) * DECAY_RANK < live)
		at++;
	rule->decay = float_of((uint32_t)(FIRST + at) << SHIFT);
	for (size_t i = 0; i < changes; i++) {
		size_t place = places[i];
		float after = rule->v2[place], whole = after > 0 ? after : 1, part = rule->decay * rule->v1[place], share = (whole - part) / whole;
		double rest = (double)given->rests[place];

		if (exponent_of(dtype, p, place) > most || !(after > 0 && share > 0 && rest * rest < FAR))
			continue;
		off += rest * rest;
		shares += (double)share;
	}
	rule->noise = shares > 0 ? (float)(NOISE * sqrt(off / shares)) : 0;
	rule->noise = rule->noise < FAR ? float_of((uint32_t)tpd_round_bf16(bits_of(rule->noise)) << 16) : 0;
}

/* --- the stream --- */

/* Where symbols say that something changed. */
size_t tpd_class_places(const uint8_t *symbols, size_t n, uint32_t *places)
{
	const uint64_t all_equal = UINT64_C(0x0101010101010101) * TPD_SYMBOL_EQUAL;
	size_t count = 0, i = 0;

	for (; i + 8 <= n; i += 8) {
		if (tpd_get_u64(symbols + i) == all_equal)
			continue;
		for (size_t j = i; j < i + 8; j++) {
			places[count] = (uint32_t)j;
			count += symbols[j] != TPD_SYMBOL_EQUAL;
		}
	}
	for (; i < n; i++)
		if (symbols[i] != TPD_SYMBOL_EQUAL)
			places[count++] = (uint32_t)i;
	return count;
}

/* Memory for it all, in one piece. */
static enum tpd_status lay_out(struct tpd_codec *codec, struct work *work, struct tpd_err *err)
{
	const size_t n = work->pieces->n;
	size_t slots = (SLOTS_MAX + 1) * sizeof(*work->slots), totals = TPD_KEYS * sizeof(*work->totals);
	enum tpd_status status = tpd_scratch_need(&codec->classes, slots + totals + (n + 8) * sizeof(*work->places) + n * sizeof(*work->keys) +
							  TPD_KEYS * sizeof(*work->slot_of) + n + tpd_piece_count(work->pieces), err);

	if (status != TPD_OK)
		return status;
	work->slots = (struct tpd_class *)(void *)codec->classes.data;
	work->totals = (uint32_t(*)[2])(void *)(codec->classes.data + slots);
	work->places = (uint32_t *)(void *)(codec->classes.data + slots + totals);
	work->keys = (uint16_t *)(work->places + n + 8);
	work->slot_of = work->keys + n;
	work->class_of = (uint8_t *)(work->slot_of + TPD_KEYS);
	work->levels = work->class_of + n;
	return TPD_OK;
}

/* The best rule: that of levels and steps also where innovations are to be had. Its keys are made. */
static void choose_rule(struct work *work, const struct tpd_class_given *given, unsigned base, struct attempt *best, struct attempt *other)
{
	struct tpd_class_rule rule = {.by = given ? TPD_BY_STEP : TPD_BY_LEVEL, .base = base, .levels = work->levels};

	if (given) {
		rule.steps = given->steps;
		rule.v1 = given->v1;
		rule.v2 = given->v2;
	}
	choose_levels(work);
	best->rule = rule;
	work->codec->kernels->class_keys(work->dtype, &rule, work->p, work->pieces, work->keys);
	make_classes(work, best);
	if (!given || !given->v1 || !given->v2)
		return;
	rule.by = TPD_BY_INNOVATION;
	tpd_class_innovation(work->dtype, work->p, work->places, work->changes, given, &rule);
	other->rule = rule;
	work->codec->kernels->class_keys(work->dtype, &rule, work->p, work->pieces, work->keys);
	make_classes(work, other);
	if (other->bits < best->bits)
		*best = *other;
	else
		work->codec->kernels->class_keys(work->dtype, &best->rule, work->p, work->pieces, work->keys);
}

static enum tpd_status put_rule(struct tpd_codec *codec, const struct work *work, const struct attempt *attempt, unsigned k, uint8_t **out,
				struct tpd_err *err)
{
	const struct tpd_class_rule *rule = &attempt->rule;
	uint8_t *to = *out;
	size_t part;

	*to++ = (uint8_t)rule->by;
	if (rule->by == TPD_BY_INNOVATION) {
		tpd_put_u16(to, (uint16_t)(bits_of(rule->decay) >> 16));
		tpd_put_u16(to + 2, (uint16_t)(bits_of(rule->noise) >> 16));
		to += 4;
	} else {
		enum tpd_status status = tpd_symbols_encode(codec, work->levels, tpd_piece_count(work->pieces), to, &part, err);

		if (status != TPD_OK)
			return status;
		to += part;
	}
	*to++ = (uint8_t)rule->base;
	*to++ = (uint8_t)attempt->count;
	for (size_t c = 1; c < attempt->count; c++) {
		unsigned more = attempt->classes[c].first_key - (c > 1 ? attempt->classes[c - 1].first_key : 0);

		while (more >= 128) {
			*to++ = (uint8_t)(more | 128);
			more >>= 7;
		}
		*to++ = (uint8_t)more;
	}
	*to++ = (uint8_t)k;
	for (size_t c = 0; c < attempt->count; c++)
		to = tpd_class_put_table(to, &attempt->classes[c]);
	*out = to;
	return TPD_OK;
}

/* The words, from the last piece to the first; states get what is written before them. */
static uint8_t *put_words(const struct work *work, const struct attempt *attempt, unsigned k, uint32_t *steps, uint8_t *words,
			  uint32_t *states)
{
	uint8_t class_of_key[TPD_KEYS];

	for (size_t c = 0; c < attempt->count; c++) {
		unsigned begin = c > 0 ? attempt->classes[c].first_key : 0;
		unsigned end = c + 1 < attempt->count ? attempt->classes[c + 1].first_key : TPD_KEYS;
		uint32_t cum = 0;

		memset(class_of_key + begin, (int)c, end - begin);
		for (unsigned s = 0; s < 256; s++) {
			steps[c << 8 | s] = attempt->classes[c].freq[s] | cum << 16;
			cum += attempt->classes[c].freq[s];
		}
	}
	for (size_t i = 0; i < work->pieces->n; i++)
		work->class_of[i] = class_of_key[work->keys[i]];
	for (unsigned lane = 0; lane < 1u << k; lane++)
		states[lane] = TPD_RANS_LOW;
	for (size_t i = tpd_piece_count(work->pieces); i-- > 0;) { /* what is coded last is decoded first */
		size_t start = tpd_piece_start(work->pieces, i);

		words = work->codec->kernels->rans_encode_mixed(work->symbols + start, work->class_of + start,
								tpd_piece_start(work->pieces, i + 1) - start, k, steps, words, states);
	}
	return words;
}

enum tpd_status tpd_class_symbols_encode(struct tpd_codec *codec, enum tpd_dtype dtype, unsigned t, const uint8_t *p,
					 const struct tpd_class_given *given, const uint8_t *symbols, const struct tpd_pieces *pieces,
					 uint8_t *out, size_t *out_len, struct tpd_err *err)
{
	const size_t n = pieces->n, words_max = 2 * n + TPD_WORDS_SLACK;
	struct work work = {.codec = codec, .dtype = dtype, .p = p, .symbols = symbols, .pieces = pieces};
	uint32_t states[TPD_RANS_LANES_MAX];
	uint8_t *words, *words_end, *begin = out;
	struct attempt *attempts;
	fenv_t caller;
	unsigned k;
	enum tpd_status status = tpd_scratch_need(&codec->words, words_max, err);

	if (status == TPD_OK)
		status = lay_out(codec, &work, err);
	if (status == TPD_OK)
		status = tpd_scratch_need(&codec->tables, 2 * sizeof(*attempts) + TPD_CLASSES_MAX * 256 * sizeof(uint32_t), err);
	if (status != TPD_OK)
		return status;
	attempts = (struct attempt *)(void *)codec->tables.data;
	work.changes = tpd_class_places(symbols, n, work.places);
	fegetenv(&caller);
	fesetenv(FE_DFL_ENV);
	choose_rule(&work, given, t > TPD_CLASS_BELOW_T ? t - TPD_CLASS_BELOW_T : 0, &attempts[0], &attempts[1]);
	fesetenv(&caller);
	for (size_t c = 0; c < attempts[0].count; c++)
		tpd_class_fit(codec, &attempts[0].classes[c]);
	k = attempts[0].bits >= K_BITS ? 4 : 2;
	status = put_rule(codec, &work, &attempts[0], k, &out, err);
	if (status != TPD_OK)
		return status;
	words_end = codec->words.data + words_max;
	words = put_words(&work, &attempts[0], k, (uint32_t *)(void *)(attempts + 2), words_end, states);
	out = tpd_rans_put_states(out, (size_t)(words_end - words) / 2, k, states);
	memcpy(out, words, (size_t)(words_end - words));
	*out_len = (size_t)(out - begin) + (size_t)(words_end - words);
	return TPD_OK;
}
