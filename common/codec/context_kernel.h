/*
 * context_kernel.h - all symbols of a chunk, bit by bit (SPEC.md section 18). Chances are made by context_mix.h, or by context_mix_avx2.h where
 * that is included before: two forms, of which one proves what the other made. Places and the coder are the same text for both.
 *
 * Both directions are one text, of which the compiler makes two.
 */
#ifndef TPD_CODEC_CONTEXT_KERNEL_H
#define TPD_CODEC_CONTEXT_KERNEL_H

#include <math.h>
#include <string.h>

#include "base/tpd.h"
#include "codec/classes.h"
#include "codec/context.h"
#include "codec/context_model.h"
#ifndef TPD_CODEC_CONTEXT_MIX_AVX2_H
#include "codec/context_mix.h"
#endif

#define REACHES TPD_KEY_REACHES
#define EXPONENTS TPD_KEY_EXPONENTS
#define OTHER_LENGTH 7u /* of what is no d */
#define HIGHEST 126u    /* |d| */
#define MAGNITUDE_MOST 7u

/* --- the coder of bits --- */

TPD_INLINE uint32_t next_byte(struct tpd_context_coder *coder)
{
	if (coder->at < coder->end)
		return *coder->at++;
	coder->beyond++;
	return 0;
}

TPD_INLINE unsigned code_chance(struct tpd_context_coder *coder, uint32_t chance, unsigned is, bool decoding)
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

/* --- places --- */

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

TPD_INLINE void find_place(const struct tpd_context_ground *ground, struct tpd_context_model *model, size_t i, struct context_place *place)
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

/* A function: a copy of it in each of 14 places is no faster. */
static __attribute__((noinline)) unsigned code_bit(struct tpd_context_model *model, struct tpd_context_coder *coder,
						   const struct context_place *place, unsigned node, uint32_t expected, unsigned is, bool decoding)
{
	struct context_bit bit;
	struct context_inputs inputs;

	context_find_slots(model, place, node, &bit);
	is = code_chance(coder, context_chance(model, &bit, expected, NULL, &inputs), is, decoding);
	context_learn(model, &bit, &inputs, is);
	return is;
}

TPD_INLINE unsigned code_flag(struct tpd_context_model *model, struct tpd_context_coder *coder, const struct context_place *place, unsigned is,
			      bool decoding)
{
	struct context_bit bit;
	struct context_inputs inputs;

	context_find_flags(model, place, &bit);
	is = code_chance(coder, context_chance(model, &bit, context_squash(model, place->expected), &place->expected, &inputs), is, decoding);
	context_learn(model, &bit, &inputs, is);
	return is;
}

/* A symbol that is not "equal"; when decoding, what it is, or TPD_SYMBOL_EQUAL for what cannot be. */
TPD_INLINE unsigned code_change(struct tpd_context_model *model, struct tpd_context_coder *coder, struct context_place *place, unsigned symbol,
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
TPD_INLINE bool code_symbols(const struct tpd_context_ground *ground, struct tpd_context_model *model, struct tpd_context_coder *coder,
			     const uint8_t *symbols, uint8_t *out, bool decoding)
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

static void context_encode(const struct tpd_context_ground *ground, struct tpd_context_model *model, const uint8_t *symbols,
			   struct tpd_context_coder *coder)
{
	code_symbols(ground, model, coder, symbols, NULL, false);
}

static bool context_decode(const struct tpd_context_ground *ground, struct tpd_context_model *model, struct tpd_context_coder *coder,
			   uint8_t *symbols)
{
	return code_symbols(ground, model, coder, NULL, symbols, true);
}

#endif
