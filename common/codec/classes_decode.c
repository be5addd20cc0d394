/*
 * classes_decode.c - the way back from classes_encode.c. What is known says which class each element is of; so symbols are decoded in the
 * order of the elements, each with the table of its class, a row piece at a time.
 */
#include "base/tpd.h"

#include <fenv.h>
#include <string.h>

#include "codec/classes.h"
#include "codec/kernels.h"

struct classes {
	unsigned count, k;
	uint8_t of[TPD_KEYS];
};

static enum tpd_status corrupt(struct tpd_err *err, const char *what)
{
	return tpd_fail(err, TPD_CORRUPT, "classes: %s", what);
}

/* Levels, or what takes their place, and the base; levels: room for them. */
static enum tpd_status read_rule(struct tpd_codec *codec, struct tpd_rd *rd, const struct tpd_class_given *given, size_t pieces,
				 uint8_t *levels, struct tpd_class_rule *rule, struct tpd_err *err)
{
	enum tpd_status status = TPD_OK;

	*rule = (struct tpd_class_rule){.by = tpd_rd_u8(rd), .levels = levels};
	if (tpd_rd_ok(rd) && rule->by > TPD_BY_INNOVATION)
		return tpd_fail(err, TPD_UNSUPPORTED, "classes: told by an unknown rule %u", rule->by);
	if (rule->by != TPD_BY_LEVEL) {
		if (!given || (rule->by == TPD_BY_INNOVATION && (!given->v1 || !given->v2)))
			return corrupt(err, "told by what there is not");
		rule->steps = given->steps;
		rule->v1 = given->v1;
		rule->v2 = given->v2;
	}
	if (rule->by == TPD_BY_INNOVATION) {
		rule->decay = float_of((uint32_t)tpd_rd_u16(rd) << 16);
		rule->noise = float_of((uint32_t)tpd_rd_u16(rd) << 16);
	} else {
		status = tpd_symbols_decode(codec, rd, levels, pieces, err);
		for (size_t i = 0; status == TPD_OK && i < pieces; i++)
			if (levels[i] >= TPD_KEY_LEVELS)
				status = corrupt(err, "an unknown level");
	}
	rule->base = tpd_rd_u8(rd);
	return status;
}

static enum tpd_status read_bounds(struct tpd_rd *rd, struct classes *classes, struct tpd_err *err)
{
	unsigned key = 0;

	classes->count = tpd_rd_u8(rd);
	if (classes->count > TPD_CLASSES_MAX)
		return corrupt(err, "too many");
	for (unsigned c = 1; c < classes->count; c++) {
		uint64_t more = tpd_rd_varint(rd);

		if (more == 0 || more >= TPD_KEYS - key)
			return corrupt(err, "bounds that are no keys");
		memset(classes->of + key, (int)c - 1, (size_t)more);
		key += (unsigned)more;
	}
	memset(classes->of + key, classes->count > 0 ? (int)classes->count - 1 : 0, TPD_KEYS - key);
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

static bool read_curve(struct tpd_rd *rd, unsigned scale, struct tpd_class_curve *curve)
{
	unsigned bits = tpd_rd_u8(rd), equal = tpd_rd_u8(rd), count = tpd_rd_u8(rd);

	*curve = (struct tpd_class_curve){.scale = (uint8_t)scale, .shape = bits & 3, .skew = bits >> 2 & 7, .has_middle = bits >> 5 & 1,
					  .has_escape = bits >> 6 & 1, .has_zero = bits >> 7, .is_down = equal >> 7,
					  .equal = equal & 127, .count = count & 127};
	if (count & 128) {
		curve->centre = (int8_t)tpd_rd_u8(rd);
		if (curve->centre == 0 || curve->centre > (int)TPD_TABLE_MAGNITUDES_MAX || curve->centre < -(int)TPD_TABLE_MAGNITUDES_MAX)
			return false;
	}
	return curve->equal <= TPD_WEIGHT_LEVELS && curve->count <= TPD_TABLE_MAGNITUDES_MAX;
}

static bool read_short_curve(struct tpd_rd *rd, unsigned scale, struct tpd_class_curve *curve)
{
	const unsigned bits = tpd_rd_u8(rd), equal = bits >> 2 & 31;

	*curve = (struct tpd_class_curve){.scale = (uint8_t)scale, .shape = bits & 3, .equal = (uint8_t)(equal ? 2 * equal + 2 : 0)};
	if (bits >> 7) {
		curve->centre = (int8_t)tpd_rd_u8(rd);
		if (curve->centre == 0 || curve->centre > (int)TPD_TABLE_MAGNITUDES_MAX || curve->centre < -(int)TPD_TABLE_MAGNITUDES_MAX)
			return false;
	}
	tpd_class_curve_short(curve);
	return true;
}

enum tpd_status tpd_class_read_table(struct tpd_rd *rd, uint16_t freq[256], struct tpd_err *err)
{
	struct tpd_class_levels levels;
	struct tpd_class_curve curve;
	unsigned form = tpd_rd_u8(rd), first, last;
	bool good;

	if (form == TPD_TABLE_SINGLE) {
		memset(freq, 0, 256 * sizeof(freq[0]));
		freq[tpd_rd_u8(rd)] = TPD_RANS_SUM;
		return tpd_rd_ok(rd) ? TPD_OK : corrupt(err, "ends inside a table");
	}
	if (form == TPD_TABLE_FREQUENCIES) {
		first = tpd_rd_u8(rd);
		last = tpd_rd_u8(rd);
		if (!tpd_rd_ok(rd) || first >= last)
			return corrupt(err, "bad symbols");
		return tpd_rans_read_frequencies(rd, first, last, freq, err);
	}
	if (form <= TPD_TABLE_MAGNITUDES_MAX)
		good = read_levels(rd, form, &levels) && tpd_rd_ok(rd) && tpd_class_frequencies(&levels, freq);
	else if (form - TPD_TABLE_CURVE < TPD_CURVE_SCALES)
		good = read_curve(rd, form - TPD_TABLE_CURVE, &curve) && tpd_rd_ok(rd) && tpd_class_curve_frequencies(&curve, freq);
	else if (form >= TPD_TABLE_SHORT && form - TPD_TABLE_SHORT < TPD_SHORT_SCALES)
		good = read_short_curve(rd, form - TPD_TABLE_SHORT, &curve) && tpd_rd_ok(rd) && tpd_class_curve_frequencies(&curve, freq);
	else
		return corrupt(err, "a table of an unknown form");
	return good ? TPD_OK : corrupt(err, "a table that says nothing");
}

/* Tables, states and words. */
static enum tpd_status read_symbols(struct tpd_codec *codec, struct tpd_rd *rd, const struct classes *classes,
				    const struct tpd_pieces *pieces, const uint8_t *class_of, uint8_t *out, struct tpd_err *err)
{
	uint32_t *tables, states[TPD_RANS_LANES_MAX], count;
	const size_t piece_count = tpd_piece_count(pieces);
	const uint8_t *words, *end;
	const char *wrong;
	enum tpd_status status = tpd_scratch_need(&codec->tables, TPD_CLASSES_MAX * TPD_RANS_SUM * sizeof(*tables), err);

	if (status != TPD_OK)
		return status;
	tables = (uint32_t *)(void *)codec->tables.data;
	for (unsigned c = 0; c < classes->count; c++) {
		uint16_t freq[256];

		status = tpd_class_read_table(rd, freq, err);
		if (status != TPD_OK)
			return status;
		tpd_rans_mixed_table(freq, tables + c * TPD_RANS_SUM);
	}
	wrong = tpd_rans_read_states(rd, classes->k, states, &words, &count);
	if (wrong)
		return corrupt(err, wrong);
	end = words + (size_t)count * 2;
	for (size_t i = 0; i < piece_count; i++) {
		size_t start = tpd_piece_start(pieces, i);

		words = codec->kernels->rans_decode_mixed(words, end, classes->k, tables, states, class_of + start, out + start,
							  tpd_piece_start(pieces, i + 1) - start);
		if (!words)
			return corrupt(err, "the rANS words run out");
	}
	if (!tpd_rans_is_end(words, end, states, (size_t)1 << classes->k))
		return corrupt(err, "the rANS words do not end where they must");
	return TPD_OK;
}

enum tpd_status tpd_class_symbols_decode(struct tpd_codec *codec, enum tpd_dtype dtype, struct tpd_rd *rd, const uint8_t *p,
					 const struct tpd_class_given *given, uint8_t *symbols, const struct tpd_pieces *pieces,
					 struct tpd_err *err)
{
	const size_t n = pieces->n, count = tpd_piece_count(pieces);
	struct tpd_class_rule rule;
	struct classes classes;
	uint8_t *class_of, *levels;
	uint16_t *keys;
	fenv_t caller;
	enum tpd_status status = tpd_scratch_need(&codec->classes, n * sizeof(*keys) + n + count + 1, err);

	if (status != TPD_OK)
		return status;
	keys = (uint16_t *)(void *)codec->classes.data;
	class_of = (uint8_t *)(keys + n);
	levels = class_of + n;
	status = read_rule(codec, rd, given, count, levels, &rule, err);
	if (status == TPD_OK)
		status = read_bounds(rd, &classes, err);
	if (status == TPD_OK && classes.count == 0 && n > 0)
		status = corrupt(err, "there are none");
	if (status != TPD_OK)
		return status;
	fegetenv(&caller);
	fesetenv(FE_DFL_ENV);
	codec->kernels->class_keys(dtype, &rule, p, pieces, keys);
	fesetenv(&caller);
	for (size_t i = 0; i < n; i++)
		class_of[i] = classes.of[keys[i]];
	return read_symbols(codec, rd, &classes, pieces, class_of, symbols, err);
}
