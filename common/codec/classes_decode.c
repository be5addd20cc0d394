/*
 * classes_decode.c - the way back from classes_encode.c. Reference and levels say which class each element is of, and how many each has; so
 * the classes are decoded one behind the other, and then dealt out to the elements in order.
 */
#include "base/tpd.h"

#include <string.h>

#include "codec/classes.h"

struct classes {
	unsigned count, k;
	uint8_t of[TPD_CLASS_KEYS];
	size_t n[TPD_CLASSES_MAX];
};

/* Of a class; single: its only symbol, or -1. */
struct table {
	int single;
	uint16_t freq[256];
};

static enum tpd_status corrupt(struct tpd_err *err, const char *what)
{
	return tpd_fail(err, TPD_CORRUPT, "classes: %s", what);
}

static enum tpd_status read_bounds(struct tpd_rd *rd, struct classes *classes, struct tpd_err *err)
{
	unsigned key = 0;

	classes->count = tpd_rd_u8(rd);
	if (classes->count > TPD_CLASSES_MAX)
		return corrupt(err, "too many");
	for (unsigned c = 1; c < classes->count; c++) {
		unsigned bound = tpd_rd_u16(rd);

		if (bound <= key || bound >= TPD_CLASS_KEYS)
			return corrupt(err, "bounds that do not ascend");
		while (key < bound)
			classes->of[key++] = (uint8_t)(c - 1);
	}
	while (key < TPD_CLASS_KEYS)
		classes->of[key++] = (uint8_t)(classes->count > 0 ? classes->count - 1 : 0); /* of nothing: never asked */
	classes->k = tpd_rd_u8(rd);
	return tpd_rd_ok(rd) && classes->k <= 6 ? TPD_OK : corrupt(err, "bad header");
}

static bool read_levels(struct tpd_rd *rd, unsigned magnitudes, struct tpd_class_levels *levels)
{
	int level = 0;
	unsigned pair = 0;

	levels->count = (uint8_t)magnitudes;
	for (unsigned i = 0; i < 4; i++) {
		levels->special[i] = tpd_rd_u8(rd);
		if (levels->special[i] > TPD_WEIGHT_LEVELS)
			return false;
	}
	for (unsigned m = 0; m < magnitudes; m++) {
		if (m == 0) {
			level = tpd_rd_u8(rd);
		} else {
			pair = m % 2 == 1 ? tpd_rd_u8(rd) : pair >> 4;
			level += tpd_class_steps[pair & 15];
		}
		if (level < 1 || level > (int)TPD_WEIGHT_LEVELS)
			return false;
		levels->magnitude[m] = (uint8_t)level;
	}
	/* Of an even number the last pair is half empty. */
	return magnitudes < 2 || magnitudes % 2 == 1 || pair >> 4 == 0;
}

static enum tpd_status read_table(struct tpd_rd *rd, struct table *table, struct tpd_err *err)
{
	struct tpd_class_levels levels;
	unsigned form = tpd_rd_u8(rd), first, last;

	table->single = -1;
	if (form == TPD_TABLE_SINGLE) {
		table->single = tpd_rd_u8(rd);
		return tpd_rd_ok(rd) ? TPD_OK : corrupt(err, "ends inside a table");
	}
	if (form == TPD_TABLE_FREQUENCIES) {
		first = tpd_rd_u8(rd);
		last = tpd_rd_u8(rd);
		if (!tpd_rd_ok(rd) || first >= last)
			return corrupt(err, "bad symbols");
		return tpd_rans_read_frequencies(rd, first, last, table->freq, err);
	}
	if (form > TPD_TABLE_MAGNITUDES_MAX)
		return corrupt(err, "a table of an unknown form");
	if (!read_levels(rd, form, &levels) || !tpd_rd_ok(rd) || !tpd_class_frequencies(&levels, table->freq))
		return corrupt(err, "levels that are none");
	return TPD_OK;
}

TPD_INLINE void count_elements(struct classes *classes, const uint8_t *levels, const uint8_t *p, const struct tpd_pieces *pieces,
			       const unsigned width, const unsigned mantissa)
{
	uint32_t counts[TPD_CLASS_KEYS] = {0};

	for (size_t i = 0, at = 0; at < pieces->n; i++)
		for (size_t end = tpd_piece_start(pieces, i + 1); at < end; at++)
			counts[classes_key(classes_exponent(p, at, width, mantissa), levels[i])]++;
	for (unsigned key = 0; key < TPD_CLASS_KEYS; key++)
		classes->n[classes->of[key]] += counts[key];
}

/* The symbols of all classes, class by class. */
static enum tpd_status read_symbols(struct tpd_codec *codec, struct tpd_rd *rd, const struct classes *classes, uint8_t *out,
				    struct tpd_err *err)
{
	struct table tables[TPD_CLASSES_MAX];
	uint32_t states[TPD_RANS_LANES_MAX], count;
	const uint8_t *words, *end;
	const char *wrong;

	for (unsigned c = 0; c < classes->count; c++) {
		enum tpd_status status = classes->n[c] > 0 ? read_table(rd, &tables[c], err) : TPD_OK;

		if (status)
			return status;
	}
	wrong = tpd_rans_read_states(rd, classes->k, states, &words, &count);
	if (wrong)
		return corrupt(err, wrong);
	end = words + (size_t)count * 2;
	for (unsigned c = 0; c < classes->count; c++) {
		if (classes->n[c] == 0)
			continue;
		if (tables[c].single >= 0) {
			memset(out, tables[c].single, classes->n[c]);
		} else {
			tpd_rans_decode_table(tables[c].freq, codec->rans_decode);
			words = tpd_rans_decode_more(words, end, classes->k, codec->rans_decode, states, out, classes->n[c]);
			if (!words)
				return corrupt(err, "the rANS words run out");
		}
		out += classes->n[c];
	}
	if (!tpd_rans_is_end(words, end, states, (size_t)1 << classes->k))
		return corrupt(err, "the rANS words do not end where they must");
	return TPD_OK;
}

TPD_INLINE void deal_out(const struct classes *classes, const uint8_t *levels, const uint8_t *sorted, const uint8_t *p,
			 const struct tpd_pieces *pieces, const unsigned width, const unsigned mantissa, uint8_t *symbols)
{
	const uint8_t *next[TPD_CLASSES_MAX];

	for (unsigned c = 0; c < classes->count; c++) {
		next[c] = sorted;
		sorted += classes->n[c];
	}
	for (size_t i = 0, at = 0; at < pieces->n; i++)
		for (size_t end = tpd_piece_start(pieces, i + 1); at < end; at++)
			symbols[at] = *next[classes->of[classes_key(classes_exponent(p, at, width, mantissa), levels[i])]]++;
}

enum tpd_status tpd_class_symbols_decode(struct tpd_codec *codec, enum tpd_dtype dtype, struct tpd_rd *rd, const uint8_t *p, uint8_t *symbols,
					 const struct tpd_pieces *pieces, struct tpd_err *err)
{
	const size_t count = tpd_piece_count(pieces);
	struct classes classes = {.count = 0};
	unsigned by = tpd_rd_u8(rd);
	uint8_t *sorted, *levels;
	enum tpd_status status = tpd_scratch_need(&codec->classes, pieces->n + count + 1, err);

	if (status != TPD_OK)
		return status;
	sorted = codec->classes.data;
	levels = sorted + pieces->n;
	if (tpd_rd_ok(rd) && by != TPD_CLASSES_BY_EXPONENT)
		return tpd_fail(err, TPD_UNSUPPORTED, "classes: told by an unknown rule %u", by);
	status = tpd_symbols_decode(codec, rd, levels, count, err);
	for (size_t i = 0; status == TPD_OK && i < count; i++)
		if (levels[i] >= TPD_CLASS_LEVELS)
			status = corrupt(err, "an unknown level");
	if (status == TPD_OK)
		status = read_bounds(rd, &classes, err);
	if (status == TPD_OK && classes.count == 0 && pieces->n > 0)
		status = corrupt(err, "there are none");
	if (status != TPD_OK)
		return status;
	if (dtype == TPD_DTYPE_F32)
		count_elements(&classes, levels, p, pieces, 4, 23);
	else if (dtype == TPD_DTYPE_BF16)
		count_elements(&classes, levels, p, pieces, 2, 7);
	else
		count_elements(&classes, levels, p, pieces, 2, 10);
	status = read_symbols(codec, rd, &classes, sorted, err);
	if (status != TPD_OK)
		return status;
	if (dtype == TPD_DTYPE_F32)
		deal_out(&classes, levels, sorted, p, pieces, 4, 23, symbols);
	else if (dtype == TPD_DTYPE_BF16)
		deal_out(&classes, levels, sorted, p, pieces, 2, 7, symbols);
	else
		deal_out(&classes, levels, sorted, p, pieces, 2, 10, symbols);
	return TPD_OK;
}
