/*
 * context.c - symbols of a grid, one bit after the other, each with the chance that its contexts give it. SPEC.md section 18.
 *
 * What is known of an element is more than one key of classes_encode.c can hold: how far its step goes, and how much of exp_avg_sq is new, each
 * in its own ulps and in units of T, what the moments say of each other, what its neighbours did. A table for each combination
 * would learn nothing from the few thousand elements that change. So each bit of a symbol has a count in each of several contexts, and
 * weights that learn mix these. Elements whose reach is so small that none of them changed (most, in a fine-tune) are told in the header, and
 * neither looked at nor coded.
 *
 * Both directions are one text, of which the compiler makes two. Rejected: a last correction of the chances (0.2 % shorter), a curve with
 * a centre and curves of more contexts (0.2 %), more terms and a robust fit for the step (0.4 %); magnitudes so far by row and column, the size
 * of exp_avg_sq, the reference's mantissa, the last step (none shorter: contexts that say little cost what they have to learn).
 */
#include "base/tpd.h"

#include "codec/context.h"

#include <fenv.h>
#include <math.h>
#include <string.h>

#include "codec/classes.h"
#include "codec/context_model.h"
#include "codec/kernels.h"

#define REACHES TPD_KEY_REACHES
#define EXPONENTS TPD_KEY_EXPONENTS
#define NEVER ((uint8_t)REACHES)
#define OTHER_LENGTH 7u /* of what is no d */
#define HIGHEST 126u    /* |d| */
#define MAGNITUDE_MOST 7u
#define CODE_BYTES 4u   /* of the coder's state */

/* --- the coder of bits --- */

/* From low to high, both included; decoding: value lies between. */
struct coder {
	uint32_t low, high, value;
	const uint8_t *at, *end;  /* decoding */
	size_t beyond;            /* decoding: bytes that were asked for, and are not there */
	uint8_t *out, *out_end;   /* encoding; out == out_end: given up */
};

TPD_INLINE uint32_t next_byte(struct coder *coder)
{
	if (coder->at < coder->end)
		return *coder->at++;
	coder->beyond++;
	return 0;
}

TPD_INLINE unsigned code_chance(struct coder *coder, uint32_t chance, unsigned is, bool decoding)
{
	const uint32_t middle = coder->low + (uint32_t)(((uint64_t)(coder->high - coder->low) * chance) >> 16);

	if (decoding)
		is = coder->value <= middle;
	if (is)
		coder->high = middle;
	else
		coder->low = middle + 1;
	while ((coder->low ^ coder->high) >> 24 == 0) {
		if (decoding)
			coder->value = coder->value << 8 | next_byte(coder);
		else if (coder->out < coder->out_end)
			*coder->out++ = (uint8_t)(coder->high >> 24);
		coder->low <<= 8;
		coder->high = coder->high << 8 | 255;
	}
	return is;
}

static void open_coder(struct coder *coder, const uint8_t *data, size_t len)
{
	*coder = (struct coder){.high = UINT32_MAX, .at = data, .end = data + len};
	for (unsigned i = 0; i < CODE_BYTES; i++)
		coder->value = coder->value << 8 | next_byte(coder);
}

/* As few bytes as say which value it is, when zeros follow. */
static void close_coder(struct coder *coder)
{
	unsigned bytes = 0;

	while (bytes < CODE_BYTES && (bytes == 0 ? 0 : coder->high >> (32 - 8 * bytes) << (32 - 8 * bytes)) < coder->low)
		bytes++;
	for (unsigned i = 0; i < bytes && coder->out < coder->out_end; i++)
		*coder->out++ = (uint8_t)(coder->high >> (24 - 8 * i));
}

/* --- places --- */

/* All that elements are told by. */
struct ground {
	const struct tpd_class_given *given;
	enum tpd_dtype dtype;
	struct tpd_grid_type type;
	const uint8_t *p;
	size_t n, row;
	int32_t t_ulp;          /* the exponent field, in F32, of a unit of T */
	struct tpd_class_rule rule;
	uint8_t lows[16];       /* of each exponent: the smallest reach of what changed */
	uint16_t *keys;         /* exponent, reach */
	uint8_t *magnitudes;    /* of what is coded */
};

/* Half octaves; of a square, quarter octaves of its root. */
TPD_INLINE int32_t halves(float v)
{
	return (int32_t)((bits_of(v) & 0x7fffffffu) >> 22);
}

#define ROOT_OF_SQUARE 254 /* of what halves() says, to make of it what tpd_class_quarters() would of the root */

/* v, which is not negative, or NaN, rounded down; at most `most`. */
TPD_INLINE uint32_t whole(float v, uint32_t most)
{
	return v < (float)most ? (uint32_t)v : most;
}

static void find_place(const struct ground *ground, struct context_model *model, size_t i, struct context_place *place)
{
	const struct tpd_class_given *given = ground->given;
	const unsigned key = ground->keys[i];
	const int32_t ulp = tpd_class_ulp(ground->type, (int32_t)tpd_class_exponent(ground->type, ground->p, i)), unit = TPD_MAX(ulp, ground->t_ulp);
	const float step = float_of(bits_of(given->steps[i]) & 0x7fffffffu), now = given->now ? given->now[i] : 0;
	const float before = given->before ? given->before[i] : 0;
	float share = 0, square;
	uint32_t e = key / REACHES, reach = key % REACHES, part, step_size, noise_size, left, above;
	int32_t both_size, noise;

	if (given->v2 && given->v2[i] > 0) {
		share = (given->v2[i] - ground->rule.decay * given->v1[i]) / given->v2[i];
		share = share > 0 ? share : 0;
	}
	square = ground->rule.noise * ground->rule.noise * share;
	part = whole(sqrtf(share) * 16, 15);
	noise = halves(square) + ROOT_OF_SQUARE;
	step_size = (uint32_t)tpd_class_clamp(tpd_class_quarters(step) - 4 * ulp + TPD_REACH_FINEST, 47);
	noise_size = (uint32_t)tpd_class_clamp(noise - 4 * ulp + TPD_REACH_FINEST, 47);
	both_size = tpd_class_clamp(halves(step * step * 0.5f + square) + ROOT_OF_SQUARE - 4 * ground->t_ulp + 28, 47);
	left = i % ground->row ? ground->magnitudes[i - 1] : 0;
	above = i >= ground->row ? ground->magnitudes[i - ground->row] : 0;

	place->exponent = e;
	place->reach = reach;
	place->noise = (unsigned)tpd_class_clamp(noise - 4 * unit + 28, 47);
	place->expected = -1848 + 352 * tpd_class_clamp((int32_t)reach - 25, 8) + 96 * tpd_class_clamp((int32_t)reach - 33, 14);
	place->contexts[0] = CONTEXT_STEP + step_size * 48 + noise_size;
	place->contexts[1] = CONTEXT_REACH + key;
	place->contexts[2] = CONTEXT_MOMENTS + part * 256 + (uint32_t)tpd_class_clamp(halves(now) - 244, 15) * 16 +
			     (uint32_t)tpd_class_clamp(halves(before) - 244, 15) / 2 * 2 + ((now < 0) == (before < 0));
	place->contexts[3] = CONTEXT_SIZE + (uint32_t)both_size * 8 + (uint32_t)tpd_class_clamp((int32_t)e - 2, 7);
	place->contexts[4] = CONTEXT_PLACE + whole(step * float_of((uint32_t)(257 - TPD_MAX(unit, 4)) << 23), 63) * 16 + part;
	place->contexts[5] = CONTEXT_BESIDE + (left * 8 + above) * 16 + e;
	place->scale = &model->scales[place->contexts[0] - CONTEXT_STEP];
}

/* --- symbols --- */

TPD_INLINE unsigned code_bit(struct context_model *model, struct coder *coder, const struct context_place *place, unsigned node,
			     uint32_t expected, unsigned is, bool decoding)
{
	struct context_bit bit;

	context_find_slots(model, place, node, &bit);
	is = code_chance(coder, context_chance(model, &bit, expected, context_stretch(expected)), is, decoding);
	context_learn(model, &bit, is);
	return is;
}

TPD_INLINE unsigned code_flag(struct context_model *model, struct coder *coder, const struct context_place *place, unsigned is, bool decoding)
{
	struct context_bit bit;

	context_find_flags(model, place, &bit);
	is = code_chance(coder, context_chance(model, &bit, context_squash(model, place->expected), place->expected), is, decoding);
	context_learn(model, &bit, is);
	return is;
}

/* A symbol that is not "equal"; when decoding, what it is, or TPD_SYMBOL_EQUAL for what cannot be. */
TPD_INLINE unsigned code_change(struct context_model *model, struct coder *coder, struct context_place *place, unsigned symbol,
				unsigned *out_magnitude, bool decoding)
{
	const bool is_other = symbol < TPD_SYMBOL_FIRST;
	const unsigned down = symbol < TPD_SYMBOL_MIDDLE;
	const uint32_t d = down ? TPD_SYMBOL_MIDDLE - symbol : symbol - TPD_SYMBOL_MIDDLE;
	uint32_t length = 0, magnitude, highest, sign;

	highest = decoding ? 0 : is_other ? OTHER_LENGTH : 31u - (uint32_t)__builtin_clz(d | 1);
	context_find_curve(place);
	if (!code_bit(model, coder, place, NODE_MOVES, context_split(model, place, 0, 1, 0), is_other || d > 0, decoding)) {
		context_learn_scale(model, place, 0);
		*out_magnitude = 1;
		return TPD_SYMBOL_MIDDLE;
	}
	while (length < OTHER_LENGTH && code_bit(model, coder, place, NODE_LENGTH + length, context_split(model, place, 1u << length, 2u << length, 0),
						 highest > length, decoding))
		length++;
	*out_magnitude = TPD_MIN(length + 2, MAGNITUDE_MOST);
	if (length == OTHER_LENGTH)
		return code_bit(model, coder, place, NODE_OTHER, 32768, symbol == TPD_SYMBOL_ZERO, decoding) ? TPD_SYMBOL_ZERO : TPD_SYMBOL_ESCAPE;
	sign = code_bit(model, coder, place, NODE_SIGN, 32768, down, decoding);
	magnitude = 1u << length;
	for (unsigned j = length; j-- > 0;) {
		const uint32_t middle = magnitude + (1u << j), expected = context_split(model, place, magnitude, middle, magnitude + (2u << j));
		unsigned is = d >> j & 1;

		if (j + 1 == length)
			is = code_bit(model, coder, place, NODE_FIRST + length - 1, expected, is, decoding);
		else if (j + 2 == length)
			is = code_bit(model, coder, place, NODE_SECOND + (length - 2) * 2 + (magnitude >> (j + 1) & 1), expected, is, decoding);
		else
			is = code_chance(coder, expected, is, decoding);
		magnitude += is << j;
	}
	context_learn_scale(model, place, magnitude);
	if (magnitude > HIGHEST)
		return TPD_SYMBOL_EQUAL;
	return sign ? TPD_SYMBOL_MIDDLE - magnitude : TPD_SYMBOL_MIDDLE + magnitude;
}

/* All symbols; false: one that cannot be. */
TPD_INLINE bool code_symbols(const struct ground *ground, struct context_model *model, struct coder *coder, const uint8_t *symbols, uint8_t *out,
			     bool decoding)
{
	uint16_t lows[EXPONENTS]; /* keys */

	for (unsigned e = 0; e < EXPONENTS; e++)
		lows[e] = (uint16_t)(e * REACHES + ground->lows[e]);
	for (size_t i = 0; i < ground->n; i++) {
		const unsigned key = ground->keys[i];
		struct context_place place;
		unsigned symbol, magnitude;

		if (key < lows[key / REACHES])
			continue;
		find_place(ground, model, i, &place);
		if (!code_flag(model, coder, &place, decoding ? 0 : symbols[i] != TPD_SYMBOL_EQUAL, decoding))
			continue;
		symbol = code_change(model, coder, &place, decoding ? TPD_SYMBOL_MIDDLE : symbols[i], &magnitude, decoding);
		ground->magnitudes[i] = (uint8_t)magnitude;
		if (decoding && symbol == TPD_SYMBOL_EQUAL)
			return false;
		if (decoding)
			out[i] = (uint8_t)symbol;
	}
	return true;
}

/* --- both directions --- */

static struct ground ground_of(enum tpd_dtype dtype, unsigned t, const uint8_t *p, const struct tpd_class_given *given,
			       const struct tpd_pieces *pieces)
{
	struct ground ground = {.given = given, .dtype = dtype, .p = p, .n = pieces->n, .row = pieces->row,
				.rule = {.by = TPD_BY_INNOVATION, .steps = given->steps, .v1 = given->v1, .v2 = given->v2}};

	tpd_grid_type(dtype, &ground.type);
	ground.t_ulp = tpd_class_ulp(ground.type, (int32_t)t);
	return ground;
}

/* What the codec's memory has. */
static enum tpd_status lay_out(struct tpd_codec *codec, size_t n, size_t places, struct ground *ground, struct context_model **out_model,
			       uint32_t **out_places, struct tpd_err *err)
{
	enum tpd_status status = tpd_scratch_need(&codec->classes, (places + 8) * sizeof(**out_places) + n * (sizeof(*ground->keys) + 1) + 1, err);

	if (status == TPD_OK)
		status = tpd_scratch_need(&codec->tables, sizeof(**out_model), err);
	if (status != TPD_OK)
		return status;
	*out_places = (uint32_t *)(void *)codec->classes.data;
	ground->keys = (uint16_t *)(*out_places + places + 8);
	ground->magnitudes = (uint8_t *)(ground->keys + n);
	memset(ground->magnitudes, 0, n);
	*out_model = (struct context_model *)(void *)codec->tables.data;
	return TPD_OK;
}

/* Exponents and reaches. Without v, reach is the step alone. */
static void make_keys(const struct tpd_codec *codec, const struct ground *ground, const struct tpd_pieces *pieces)
{
	struct tpd_class_rule use = ground->rule;

	if (!use.v1 || !use.v2)
		use.v1 = use.v2 = ground->given->zeros;
	codec->kernels->class_keys(ground->dtype, &use, ground->p, pieces, ground->keys);
}

/* For each exponent, where changes begin. Returns for how many there are any. */
static unsigned find_lows(struct ground *ground, const uint32_t *places, size_t changes)
{
	unsigned count = EXPONENTS;

	memset(ground->lows, NEVER, sizeof(ground->lows));
	for (size_t i = 0; i < changes; i++) {
		const unsigned key = ground->keys[places[i]];

		ground->lows[key / REACHES] = (uint8_t)TPD_MIN(ground->lows[key / REACHES], key % REACHES);
	}
	while (count > 0 && ground->lows[count - 1] == NEVER)
		count--;
	return count;
}

enum tpd_status tpd_context_symbols_encode(struct tpd_codec *codec, enum tpd_dtype dtype, unsigned t, const uint8_t *p,
					   const struct tpd_class_given *given, const uint8_t *symbols, const struct tpd_pieces *pieces,
					   uint8_t *out, size_t *out_len, struct tpd_err *err)
{
	struct ground ground = ground_of(dtype, t, p, given, pieces);
	struct coder coder = {.high = UINT32_MAX, .out_end = out + TPD_CONTEXT_SYMBOLS_BOUND(pieces->n)};
	struct context_model *model;
	uint32_t *places;
	uint8_t *begin = out;
	size_t changes;
	unsigned count;
	fenv_t caller;
	enum tpd_status status = lay_out(codec, pieces->n, pieces->n, &ground, &model, &places, err);

	if (status != TPD_OK)
		return status;
	ground.rule.base = t > TPD_CLASS_BELOW_T ? t - TPD_CLASS_BELOW_T : 0;
	changes = tpd_class_places(symbols, pieces->n, places);
	fegetenv(&caller);
	fesetenv(FE_DFL_ENV);
	if (given->v1 && given->v2)
		tpd_class_innovation(dtype, p, places, changes, given, &ground.rule);
	make_keys(codec, &ground, pieces);
	count = find_lows(&ground, places, changes);
	*out++ = (uint8_t)ground.rule.base;
	tpd_put_u16(out, (uint16_t)(bits_of(ground.rule.decay) >> 16));
	tpd_put_u16(out + 2, (uint16_t)(bits_of(ground.rule.noise) >> 16));
	out += 4;
	*out++ = (uint8_t)count;
	memcpy(out, ground.lows, count);
	out += count;
	coder.out = out + 4;
	context_open(model);
	code_symbols(&ground, model, &coder, symbols, NULL, false);
	close_coder(&coder);
	fesetenv(&caller);
	tpd_put_u32(out, (uint32_t)(coder.out - out - 4));
	*out_len = coder.out == coder.out_end ? SIZE_MAX : (size_t)(coder.out - begin);
	return TPD_OK;
}

static enum tpd_status corrupt(struct tpd_err *err, const char *what)
{
	return tpd_fail(err, TPD_CORRUPT, "context: %s", what);
}

enum tpd_status tpd_context_symbols_decode(struct tpd_codec *codec, enum tpd_dtype dtype, unsigned t, struct tpd_rd *rd, const uint8_t *p,
					   const struct tpd_class_given *given, uint8_t *symbols, const struct tpd_pieces *pieces,
					   struct tpd_err *err)
{
	struct ground ground = ground_of(dtype, t, p, given, pieces);
	struct context_model *model;
	uint32_t *places;
	struct coder coder;
	const uint8_t *data;
	bool valid;
	unsigned count;
	size_t len;
	fenv_t caller;
	enum tpd_status status = lay_out(codec, pieces->n, 0, &ground, &model, &places, err);

	if (status != TPD_OK)
		return status;
	ground.rule.base = tpd_rd_u8(rd);
	ground.rule.decay = float_of((uint32_t)tpd_rd_u16(rd) << 16);
	ground.rule.noise = float_of((uint32_t)tpd_rd_u16(rd) << 16);
	count = tpd_rd_u8(rd);
	if (!tpd_rd_ok(rd) || count > EXPONENTS)
		return corrupt(err, "bad header");
	memset(ground.lows, NEVER, sizeof(ground.lows));
	for (unsigned e = 0; e < count; e++) {
		ground.lows[e] = tpd_rd_u8(rd);
		if (ground.lows[e] > NEVER)
			return corrupt(err, "a reach that is none");
	}
	len = tpd_rd_u32(rd);
	data = tpd_rd_bytes(rd, len);
	if (!data)
		return corrupt(err, "ends inside its bits");
	open_coder(&coder, data, len);
	fegetenv(&caller);
	fesetenv(FE_DFL_ENV);
	make_keys(codec, &ground, pieces);
	context_open(model);
	memset(symbols, TPD_SYMBOL_EQUAL, pieces->n);
	valid = code_symbols(&ground, model, &coder, NULL, symbols, true);
	fesetenv(&caller);
	if (!valid)
		return corrupt(err, "a change that is none");
	/* The encoder's last bytes are as few as will do: up to four more are taken for zeros. */
	if (coder.at != coder.end || coder.beyond > CODE_BYTES)
		return corrupt(err, "its bits do not end where they must");
	return TPD_OK;
}
