/*
 * classes_encode.c - symbols of a grid, coded by how far apart the values around each element lie. SPEC.md section 9.
 *
 * An optimizer moves all weights of a row by about as much, so where ulps are small nearly all of them change, and where they are large
 * nearly none do. Each row piece has a level that says how much it changed against others, in half octaves; exponent field of the
 * reference and level together are an element's key, a class is a range of keys. Symbols are taken class by class, and all of them,
 * those that say "unchanged" too, go through rANS with frequencies of the class's own. So no positions are coded, and what is left is
 * close to the entropy given the key:
 *
 *     element    0  1  2  3  4  5 ...           class 0 (small)    1  3  4 ...     frequencies of their own,
 *     class      2  0  1  0  0  2 ...    ──►    class 1            2 ...           one coder, whose lanes go on
 *     symbol     =  +1 =  -2 =  =               class 2 (large)    0  5 ...        from one class to the next
 *
 * Neighbouring keys become one class where that saves more in tables than it costs. Rejected: Rice codes of gaps within a class (longer, no
 * faster); adaptive binary contexts (ten times slower); levels per column, too (2 % shorter).
 */
#include "base/tpd.h"

#include <string.h>

#include "codec/classes.h"
#include "codec/kernels.h"

#define K_BITS (1u << 18) /* a chunk of fewer has 4 lanes, others 16: a state is 4 bytes */
#define LEVEL_SHIFT 16u
#define CHANCE 4u

/* A run of keys, how often each symbol follows one of them, and the table. */
struct class {
	uint32_t counts[256];
	uint32_t n;
	unsigned first_key, first, last; /* symbols */
	unsigned form;                   /* as it is written */
	struct tpd_class_levels levels;  /* form: a number of magnitudes */
	uint16_t freq[256];              /* not for TPD_TABLE_SINGLE */
	uint64_t cost;                   /* bits: of the symbols, and of the table */
};

static void find_range(struct class *class)
{
	class->first = 0;
	class->last = 255;
	while (class->counts[class->first] == 0)
		class->first++;
	while (class->counts[class->last] == 0)
		class->last--;
}

/* The level whose weight is closest to count on a scale where `most` is the largest weight; at least 1. */
static unsigned level_of(uint64_t count, uint64_t most)
{
	uint64_t value = count * tpd_class_weight(TPD_WEIGHT_LEVELS) / most;
	unsigned octave = 0, level;

	if (value < 16)
		return 1;
	while (value >> octave >= 32)
		octave++;
	level = 4 * octave + 1;
	while (level < TPD_WEIGHT_LEVELS && (uint64_t)tpd_class_weight(level) + tpd_class_weight(level + 1) <= 2 * value)
		level++;
	return level;
}

/* From one level to the closest that a step can say; the step's number. */
static unsigned step_to(unsigned from, unsigned to, unsigned *out_level)
{
	unsigned best = 0, distance = UINT32_MAX;

	for (unsigned i = 0; i < 16; i++) {
		int level = (int)from + tpd_class_steps[i], off = level - (int)to;

		if (level < 1 || level > (int)TPD_WEIGHT_LEVELS)
			continue;
		off = off < 0 ? -off : off;
		if ((unsigned)off < distance) {
			distance = (unsigned)off;
			best = i;
			*out_level = (unsigned)level;
		}
	}
	return best;
}

/* Bytes of a mirrored table. */
static unsigned mirrored_len(unsigned magnitudes)
{
	return 1 + 4 + (magnitudes > 0 ? 1 + magnitudes / 2 : 0);
}

static void make_levels(const struct class *class, struct tpd_class_levels *levels)
{
	static const uint8_t special[4] = {TPD_SYMBOL_ESCAPE, TPD_SYMBOL_EQUAL, TPD_SYMBOL_ZERO, TPD_SYMBOL_MIDDLE};
	const uint32_t *counts = class->counts;
	uint64_t most = 0; /* twice */
	unsigned count = 0, level = 0;

	for (unsigned m = 1; m <= TPD_TABLE_MAGNITUDES_MAX; m++) {
		uint64_t both = (uint64_t)counts[TPD_SYMBOL_MIDDLE - m] + counts[TPD_SYMBOL_MIDDLE + m];

		if (both > 0)
			count = m;
		most = TPD_MAX(most, both);
	}
	for (unsigned i = 0; i < 4; i++)
		most = TPD_MAX(most, 2 * (uint64_t)counts[special[i]]);
	levels->count = (uint8_t)count;
	for (unsigned i = 0; i < 4; i++)
		levels->special[i] = counts[special[i]] ? (uint8_t)level_of(2 * (uint64_t)counts[special[i]], most) : 0;
	for (unsigned m = 1; m <= count; m++) {
		unsigned want = level_of((uint64_t)counts[TPD_SYMBOL_MIDDLE - m] + counts[TPD_SYMBOL_MIDDLE + m], most);

		if (m == 1)
			level = want;
		else
			step_to(level, want, &level);
		levels->magnitude[m - 1] = (uint8_t)level;
	}
}

/* Bits of the symbols under these frequencies, in 1/4096. */
static uint64_t symbol_bits(const struct tpd_codec *codec, const struct class *class, const uint16_t freq[256])
{
	uint64_t bits = 0;

	for (unsigned s = class->first; s <= class->last; s++)
		bits += (uint64_t)class->counts[s] * codec->cost[freq[s]];
	return bits;
}

/* Range, table and cost of a class with elements. */
static void finish(const struct tpd_codec *codec, struct class *class)
{
	uint64_t mirrored = UINT64_MAX, plain;
	unsigned table = 3; /* bytes */
	uint16_t freq[256];

	find_range(class);
	if (class->first == class->last) {
		class->form = TPD_TABLE_SINGLE;
		class->cost = 8 * 4;
		return;
	}
	tpd_rans_quantise(class->counts, class->n, class->first, class->last, freq);
	for (unsigned s = class->first; s <= class->last; s++)
		table += freq[s] == 0 ? freq[s - 1] != 0 ? 2 : 0 : freq[s] < 128 ? 1 : 2;
	plain = (symbol_bits(codec, class, freq) >> TPD_RANS_BITS) + 8 * table;
	make_levels(class, &class->levels);
	if (tpd_class_frequencies(&class->levels, class->freq))
		mirrored = (symbol_bits(codec, class, class->freq) >> TPD_RANS_BITS) + 8 * mirrored_len(class->levels.count);
	class->form = mirrored <= plain ? class->levels.count : TPD_TABLE_FREQUENCIES;
	class->cost = 16 + TPD_MIN(mirrored, plain); /* its bound */
	if (class->form == TPD_TABLE_FREQUENCIES)
		memcpy(class->freq, freq, sizeof(freq));
}

static void join(const struct tpd_codec *codec, const struct class *a, const struct class *b, struct class *out)
{
	for (unsigned s = 0; s < 256; s++)
		out->counts[s] = a->counts[s] + b->counts[s];
	out->n = a->n + b->n;
	out->first_key = a->first_key;
	finish(codec, out);
}

/* What joining class i with the next one saves, in bits. */
static int64_t gain_of(const struct tpd_codec *codec, const struct class *classes, size_t i)
{
	struct class both;

	join(codec, &classes[i], &classes[i + 1], &both);
	return (int64_t)(classes[i].cost + classes[i + 1].cost) - (int64_t)both.cost;
}

/* Join neighbours, whichever two save most first, until none do and there are few enough. Returns how many are left. */
static size_t join_classes(const struct tpd_codec *codec, struct class *classes, size_t count)
{
	int64_t gain[TPD_CLASS_KEYS];

	for (size_t i = 0; i + 1 < count; i++)
		gain[i] = gain_of(codec, classes, i);
	while (count > 1) {
		size_t best = 0;

		for (size_t i = 1; i + 1 < count; i++)
			if (gain[i] > gain[best])
				best = i;
		if (gain[best] <= 0 && count <= TPD_CLASSES_MAX)
			break;
		join(codec, &classes[best], &classes[best + 1], &classes[best]);
		count--;
		memmove(&classes[best + 1], &classes[best + 2], (count - best - 1) * sizeof(*classes));
		memmove(&gain[best], &gain[best + 1], (count - best - 1) * sizeof(*gain));
		if (best + 1 < count)
			gain[best] = gain_of(codec, classes, best);
		if (best > 0)
			gain[best - 1] = gain_of(codec, classes, best - 1);
	}
	return count;
}

/* --- levels --- */

struct rates {
	uint32_t all[256], changed[256]; /* by exponent field */
};

TPD_INLINE void count_changes(const uint8_t *p, const uint8_t *symbols, size_t n, const unsigned width, const unsigned mantissa,
			      uint8_t *exponents, struct rates *rates)
{
	memset(rates, 0, sizeof(*rates));
	for (size_t i = 0; i < n; i++) {
		unsigned exponent = classes_exponent(p, i, width, mantissa);

		exponents[i] = (uint8_t)exponent;
		rates->all[exponent]++;
		rates->changed[exponent] += symbols[i] != TPD_SYMBOL_EQUAL;
	}
}

/*
 * By how much a piece changed against what its exponents let expect: in half octaves, from a quarter below to a quarter above. Few changes say
 * little: what may be chance (variance of a Poisson distribution) is not worth a level. expected counts 2^-LEVEL_SHIFT.
 */
static unsigned choose_level(uint64_t changed, uint64_t expected)
{
	/* 2^(k/2 - 1/4) for k = -3 .. 4, in 1/4096 */
	static const uint32_t bounds[TPD_CLASS_LEVELS - 1] = {1218, 1722, 2435, 3444, 4871, 6889, 9742, 13777};
	const int64_t off = (int64_t)(changed << LEVEL_SHIFT) - (int64_t)expected;
	unsigned level = 0;

	if ((uint64_t)(off * off) <= CHANCE * (expected << LEVEL_SHIFT))
		return TPD_CLASS_LEVEL_MIDDLE;
	while (level < TPD_CLASS_LEVELS - 1 && changed << LEVEL_SHIFT << 12 >= expected * bounds[level])
		level++;
	return level;
}

/* One byte a piece into levels. */
static void choose_levels(const struct rates *rates, const uint8_t *exponents, const uint8_t *symbols, const struct tpd_pieces *pieces,
			  uint8_t *levels)
{
	const size_t count = tpd_piece_count(pieces);
	uint32_t expected[256];

	for (unsigned e = 0; e < 256; e++)
		expected[e] = rates->all[e] ? (uint32_t)(((uint64_t)rates->changed[e] << LEVEL_SHIFT) / rates->all[e]) : 0;
	for (size_t i = 0; i < count; i++) {
		size_t end = tpd_piece_start(pieces, i + 1);
		uint64_t sum = 0, changed = 0;

		for (size_t j = tpd_piece_start(pieces, i); j < end; j++) {
			sum += expected[exponents[j]];
			changed += symbols[j] != TPD_SYMBOL_EQUAL;
		}
		levels[i] = (uint8_t)choose_level(changed, sum);
	}
}

/* --- the stream --- */

/* The lowest and the highest key that may occur. n > 0. */
static void key_range(const struct rates *rates, unsigned *out_low, unsigned *out_high)
{
	unsigned low = 0, high = 255;

	while (low < high && rates->all[low] == 0)
		low++;
	while (high > low && rates->all[high] == 0)
		high--;
	*out_low = classes_key(low, TPD_CLASS_LEVELS - 1);
	*out_high = classes_key(high, 0);
}

static size_t make_classes(const struct tpd_codec *codec, uint32_t counts[TPD_CLASS_KEYS][256], unsigned low, unsigned high,
			   struct class *classes)
{
	size_t count = 0;

	for (unsigned key = low; key <= high; key++) {
		struct class *class = &classes[count];

		class->n = 0;
		for (unsigned s = 0; s < 256; s++)
			class->n += counts[key][s];
		if (class->n == 0)
			continue;
		memcpy(class->counts, counts[key], sizeof(class->counts));
		class->first_key = key;
		finish(codec, class);
		count++;
	}
	return join_classes(codec, classes, count);
}

static uint8_t *put_table(uint8_t *out, const struct class *class)
{
	unsigned level = 0;

	*out++ = (uint8_t)class->form;
	if (class->form == TPD_TABLE_SINGLE) {
		*out++ = (uint8_t)class->first;
		return out;
	}
	if (class->form == TPD_TABLE_FREQUENCIES) {
		*out++ = (uint8_t)class->first;
		*out++ = (uint8_t)class->last;
		return tpd_rans_put_frequencies(out, class->freq, class->first, class->last);
	}
	memcpy(out, class->levels.special, sizeof(class->levels.special));
	out += sizeof(class->levels.special);
	for (unsigned m = 0; m < class->form; m++) {
		unsigned step;

		if (m == 0) {
			level = *out++ = class->levels.magnitude[0];
			continue;
		}
		step = step_to(level, class->levels.magnitude[m], &level);
		if (m % 2 == 1)
			*out++ = (uint8_t)step;
		else
			out[-1] |= (uint8_t)(step << 4);
	}
	return out;
}

/* The symbols in the order of their classes; starts[c] gets where class c begins. */
static void sort_symbols(const struct class *classes, size_t count, const uint8_t *symbols, const uint8_t *exponents, const uint8_t *levels,
			 const struct tpd_pieces *pieces, uint8_t *sorted, size_t starts[TPD_CLASSES_MAX])
{
	uint8_t class_of[TPD_CLASS_KEYS];
	size_t next[TPD_CLASSES_MAX], start = 0;

	for (size_t c = 0; c < count; c++) {
		unsigned end = c + 1 < count ? classes[c + 1].first_key : TPD_CLASS_KEYS;

		for (unsigned key = c > 0 ? classes[c].first_key : 0; key < end; key++)
			class_of[key] = (uint8_t)c;
		starts[c] = next[c] = start;
		start += classes[c].n;
	}
	for (size_t i = 0, at = 0; at < pieces->n; i++)
		for (size_t end = tpd_piece_start(pieces, i + 1); at < end; at++)
			sorted[next[class_of[classes_key(exponents[at], levels[i])]]++] = symbols[at];
}

enum tpd_status tpd_class_symbols_encode(struct tpd_codec *codec, enum tpd_dtype dtype, const uint8_t *p, const uint8_t *symbols,
					 const struct tpd_pieces *pieces, uint8_t *out, size_t *out_len, struct tpd_err *err)
{
	const size_t n = pieces->n, piece_count = tpd_piece_count(pieces), words_max = 2 * n + TPD_WORDS_SLACK;
	uint32_t(*counts)[256], states[TPD_RANS_LANES_MAX];
	size_t count, starts[TPD_CLASSES_MAX], part;
	struct class *classes;
	uint8_t *words, *words_end, *exponents, *sorted, *levels, *begin = out;
	struct rates rates;
	uint64_t bits = 0;
	unsigned k, low, high;
	enum tpd_status status = tpd_scratch_need(&codec->words, words_max, err);

	if (status == TPD_OK)
		status = tpd_scratch_need(&codec->classes,
					  TPD_CLASS_KEYS * sizeof(*counts) + (TPD_CLASS_KEYS + 1) * sizeof(*classes) + 2 * n + piece_count, err);
	if (status != TPD_OK)
		return status;
	counts = (uint32_t(*)[256])(void *)codec->classes.data;
	classes = (struct class *)(void *)(codec->classes.data + TPD_CLASS_KEYS * sizeof(*counts));
	exponents = (uint8_t *)(classes + TPD_CLASS_KEYS + 1);
	sorted = exponents + n;
	levels = sorted + n;

	if (dtype == TPD_DTYPE_F32)
		count_changes(p, symbols, n, 4, 23, exponents, &rates);
	else if (dtype == TPD_DTYPE_BF16)
		count_changes(p, symbols, n, 2, 7, exponents, &rates);
	else
		count_changes(p, symbols, n, 2, 10, exponents, &rates);
	choose_levels(&rates, exponents, symbols, pieces, levels);
	key_range(&rates, &low, &high);
	memset(counts[low], 0, (high - low + 1) * sizeof(*counts));
	for (size_t i = 0, at = 0; at < n; i++)
		for (size_t end = tpd_piece_start(pieces, i + 1); at < end; at++)
			counts[classes_key(exponents[at], levels[i])][symbols[at]]++;
	count = make_classes(codec, counts, low, high, classes);
	sort_symbols(classes, count, symbols, exponents, levels, pieces, sorted, starts);

	for (size_t c = 0; c < count; c++)
		bits += classes[c].cost;
	k = bits >= K_BITS ? 4 : 2;
	*out++ = TPD_CLASSES_BY_EXPONENT;
	status = tpd_symbols_encode(codec, levels, piece_count, out, &part, err);
	if (status != TPD_OK)
		return status;
	out += part;
	*out++ = (uint8_t)count;
	for (size_t c = 1; c < count; c++, out += 2)
		tpd_put_u16(out, (uint16_t)classes[c].first_key);
	*out++ = (uint8_t)k;
	for (size_t c = 0; c < count; c++)
		out = put_table(out, &classes[c]);
	words = words_end = codec->words.data + words_max;
	for (unsigned lane = 0; lane < 1u << k; lane++)
		states[lane] = TPD_RANS_LOW;
	for (size_t c = count; c-- > 0;) /* what is coded last is decoded first */
		if (classes[c].form != TPD_TABLE_SINGLE)
			words = tpd_rans_encode_more(sorted + starts[c], classes[c].n, k, classes[c].freq, words, states);
	out = tpd_rans_put_states(out, (size_t)(words_end - words) / 2, k, states);
	memcpy(out, words, (size_t)(words_end - words));
	*out_len = (size_t)(out - begin) + (size_t)(words_end - words);
	return TPD_OK;
}
