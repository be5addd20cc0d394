/*
 * step.c - the step of step.h: coefficients, and what they make of the terms.
 *
 * Least squares over the elements whose ulps are as small as their updates: where ulps are larger most changes are rounded away, and what
 * is left says little of how far a weight wanted to go. One set of coefficients for a chunk; rows of their own do not pay here, where few
 * elements of a row say anything.
 */
#include "base/tpd.h"

#include "codec/step.h"

#include <fenv.h>
#include <string.h>

#include "codec/grid_kernel.h"
#include "codec/kernels.h"
#include "codec/predict.h"

#define TERMS ((unsigned)TPD_TERM_COUNT)
#define MOMENTS ((unsigned)TPD_TERM_BEFORE | (unsigned)TPD_TERM_NOW)
#define FINE 2u /* exponents below T: what is learnt from */
#define FAR_BITS 0x5d800000u /* 2^60 */

/* Arrays of floats in codec->inputs. */
enum {
	ROOM_W1,
	ROOM_W0, /* from here on as enum tpd_input */
	ROOM_M1,
	ROOM_V1,
	ROOM_M2,
	ROOM_V2,
	ROOM_TERMS,
	ROOM_FIT = ROOM_TERMS + TPD_TERM_COUNT, /* terms, and the change, of what is learnt from; later what is left */
	ROOM_ZERO = ROOM_FIT + TPD_TERM_COUNT + 1,
	ROOM_STEP,
	ROOMS
};

static float *room(struct tpd_codec *codec, unsigned which, size_t n)
{
	return (float *)(void *)codec->inputs.data + which * (n + 16);
}

/* The terms that are used, and where they are; the others are NULL. */
static enum tpd_status make_terms(struct tpd_codec *codec, enum tpd_dtype dtype, unsigned terms, const uint8_t *p,
				  const struct tpd_inputs *inputs, size_t n, const float *out[TERMS], struct tpd_err *err)
{
	const struct tpd_kernels *kernels = codec->kernels;
	const unsigned need = tpd_terms_need(terms);
	enum tpd_status status = tpd_scratch_need(&codec->inputs, ROOMS * (n + 16) * sizeof(float), err);

	if (status == TPD_OK)
		status = tpd_scratch_need(&codec->predicted, 2 * n + 1, err);
	if (status != TPD_OK)
		return status;
	kernels->step_widen(dtype, p, n, room(codec, ROOM_W1, n));
	for (unsigned i = 0; i < TPD_INPUT_COUNT; i++)
		if (need >> i & 1)
			tpd_input_load(&inputs->of[i], n, room(codec, ROOM_W0 + i, n));
	for (unsigned k = 0; k < TERMS; k++) {
		float *term = room(codec, ROOM_TERMS + k, n);

		out[k] = NULL;
		if (!(terms >> k & 1))
			continue;
		out[k] = term;
		if (k == 0)
			kernels->step_jump(room(codec, ROOM_M2, n), room(codec, ROOM_V1, n), room(codec, ROOM_V2, n), n, term);
		else if (k == 1)
			kernels->predict_difference(room(codec, ROOM_W1, n), room(codec, ROOM_W0, n), n, term);
		else if (k == 2)
			kernels->predict_ratio(room(codec, ROOM_M1, n), room(codec, ROOM_V1, n), n, term);
		else
			kernels->predict_ratio(room(codec, ROOM_M2, n), room(codec, ROOM_V2, n), n, term);
	}
	return TPD_OK;
}

/* Steps, and the patterns that they lead to. */
static void apply(struct tpd_codec *codec, enum tpd_dtype dtype, unsigned terms, const uint8_t *p, const float *const arrays[TERMS],
		  const float coefficients[TERMS], size_t n, struct tpd_steps *out)
{
	float *zero = room(codec, ROOM_ZERO, n), *step = room(codec, ROOM_STEP, n);
	memset(zero, 0, n * sizeof(*zero));
	codec->kernels->predict_apply(zero, arrays, coefficients, n, step); /* 0 where it is not finite */
	codec->kernels->step_target(dtype, room(codec, ROOM_W1, n), step, p, n, codec->predicted.data);
	*out = (struct tpd_steps){.steps = step, .predicted = codec->predicted.data,
				  .given = {.steps = step, .zeros = zero, .before = arrays[2], .now = arrays[3]}};
	if ((terms & MOMENTS) == MOMENTS) {
		out->given.v1 = room(codec, ROOM_V1, n);
		out->given.v2 = room(codec, ROOM_V2, n);
	}
}

/* --- fitting --- */

unsigned tpd_step_terms(unsigned terms)
{
	terms &= ~(unsigned)TPD_STEP_TERM_JUMP;
	return (terms & MOMENTS) == MOMENTS ? terms | TPD_STEP_TERM_JUMP : terms;
}

/* All ones where it is finite, and not so large that it is no update. */
static uint32_t near(float v)
{
	return 0u - (uint32_t)((bits_of(v) & 0x7fffffffu) < FAR_BITS);
}

/* Those of v, or 0, into out. Loops over arrays that are known to lie apart, which is what compilers make vectors of. */
static void take_learnt(const float *restrict v, const uint32_t *restrict learn, size_t n, float *restrict out)
{
	for (size_t i = 0; i < n; i++)
		out[i] = float_of(bits_of(v[i]) & learn[i]);
}

static void leave_out(const float *restrict v, size_t n, uint32_t *restrict learn)
{
	for (size_t i = 0; i < n; i++)
		learn[i] &= near(v[i]);
}

/* Coefficients from the elements whose exponent field is at most `most`. */
static void fit(struct tpd_codec *codec, enum tpd_dtype dtype, const uint8_t *x, const uint8_t *p, const float *const arrays[TERMS],
		size_t n, unsigned most, float coefficients[TERMS])
{
	const unsigned mantissa = dtype == TPD_DTYPE_BF16 ? 7 : 10;
	const float *w1 = room(codec, ROOM_W1, n), *fitted[TERMS + 1];
	float *change = room(codec, ROOM_FIT + TPD_TERM_COUNT, n);
	uint32_t *learn = (uint32_t *)(void *)room(codec, ROOM_ZERO, n); /* all ones, or nothing */
	double sums[TPD_PRODUCTS], c[TERMS] = {0};
	struct tpd_normal normal;
	unsigned used[TERMS], count = 0;

	codec->kernels->step_widen(dtype, x, n, change);
	for (unsigned k = 0; k < TERMS; k++)
		if (arrays[k]) {
			fitted[count] = room(codec, ROOM_FIT + count, n);
			used[count++] = k;
		}
	fitted[count] = change;
	codec->kernels->predict_difference(change, w1, n, change);
	for (size_t i = 0; i < n; i++)
		learn[i] = 0u - (uint32_t)((tpd_get_u16(p + 2 * i) & 0x7fffu) >> mantissa <= most);
	leave_out(change, n, learn);
	for (unsigned k = 0; k < count; k++)
		leave_out(arrays[used[k]], n, learn);
	for (unsigned k = 0; k < count; k++)
		take_learnt(arrays[used[k]], learn, n, room(codec, ROOM_FIT + k, n));
	for (size_t i = 0; i < n; i++)
		change[i] = float_of(bits_of(change[i]) & learn[i]);
	codec->kernels->predict_products(fitted, count + 1, n, sums);
	tpd_normal_unpack(sums, count, &normal);
	tpd_normal_solve(&normal, count, c);
	for (unsigned k = 0; k < count; k++)
		coefficients[used[k]] = tpd_coefficient(c[k]);
}

/* x - w1 - step. */
static const float *find_rests(struct tpd_codec *codec, enum tpd_dtype dtype, const uint8_t *x, size_t n)
{
	float *rest = room(codec, ROOM_FIT, n), *went = room(codec, ROOM_FIT + 1, n);

	codec->kernels->step_widen(dtype, x, n, rest);
	codec->kernels->predict_difference(rest, room(codec, ROOM_W1, n), n, went);
	codec->kernels->predict_difference(went, room(codec, ROOM_STEP, n), n, rest);
	return rest;
}

enum tpd_status tpd_step_encode(struct tpd_codec *codec, const struct tpd_plan *plan, const struct tpd_chunk *chunk, const uint8_t *p,
				size_t n, unsigned t, uint8_t *out, size_t *out_len, struct tpd_steps *steps, struct tpd_err *err)
{
	const unsigned terms = tpd_step_terms(plan->terms);
	const float *arrays[TERMS];
	float coefficients[TERMS] = {0};
	uint8_t *begin = out;
	fenv_t caller;
	enum tpd_status status;

	fegetenv(&caller);
	fesetenv(FE_DFL_ENV);
	status = make_terms(codec, plan->dtype, terms, p, chunk->inputs, n, arrays, err);
	if (status == TPD_OK) {
		if (terms != 0)
			fit(codec, plan->dtype, chunk->x, p, arrays, n, t > FINE ? t - FINE : 0, coefficients);
		apply(codec, plan->dtype, terms, p, arrays, coefficients, n, steps);
		steps->given.rests = find_rests(codec, plan->dtype, chunk->x, n);
		*out++ = (uint8_t)terms;
		for (unsigned k = 0; k < TERMS; k++) {
			if (!(terms >> k & 1))
				continue;
			tpd_put_u16(out, (uint16_t)(bits_of(coefficients[k]) >> 16));
			out += 2;
		}
	}
	fesetenv(&caller);
	*out_len = (size_t)(out - begin);
	return status;
}

enum tpd_status tpd_step_decode(struct tpd_codec *codec, enum tpd_encoding encoding, enum tpd_dtype dtype, struct tpd_rd *rd,
				const uint8_t *p, const struct tpd_inputs *inputs, size_t n, struct tpd_steps *steps, struct tpd_err *err)
{
	unsigned terms = tpd_rd_u8(rd);
	const float *arrays[TERMS];
	float coefficients[TERMS];
	fenv_t caller;
	enum tpd_status status;

	if (!tpd_rd_ok(rd) || (terms == 0 && encoding == TPD_ENCODING_STEPPED) || terms >= 1u << TERMS)
		return tpd_fail(err, TPD_CORRUPT, "%s: bad terms", tpd_encoding_name(encoding));
	if (!tpd_terms_have(terms, inputs) || (terms & TPD_STEP_TERM_JUMP && (terms & MOMENTS) != MOMENTS))
		return tpd_fail(err, TPD_CORRUPT, "%s: it needs what there is not", tpd_encoding_name(encoding));
	for (unsigned k = 0; k < TERMS; k++)
		coefficients[k] = terms >> k & 1 ? float_of((uint32_t)tpd_rd_u16(rd) << 16) : 0;
	if (!tpd_rd_ok(rd))
		return tpd_fail(err, TPD_CORRUPT, "%s: ends inside its coefficients", tpd_encoding_name(encoding));
	fegetenv(&caller);
	fesetenv(FE_DFL_ENV);
	status = make_terms(codec, dtype, terms, p, inputs, n, arrays, err);
	if (status == TPD_OK)
		apply(codec, dtype, terms, p, arrays, coefficients, n, steps);
	fesetenv(&caller);
	return status;
}

/* p where x is that, else what is predicted. */
static void choose_away(const uint8_t *restrict x, const uint8_t *restrict p, const uint8_t *restrict predicted, size_t n, uint8_t *restrict out)
{
	for (size_t i = 0; i < n; i++) {
		const uint16_t old = tpd_get_u16(p + 2 * i), other = (uint16_t)(0u - (unsigned)(tpd_get_u16(x + 2 * i) != old));

		tpd_put_u16(out + 2 * i, (uint16_t)((old & ~other) | (tpd_get_u16(predicted + 2 * i) & other)));
	}
}

enum tpd_status tpd_step_away(struct tpd_codec *codec, const struct tpd_steps *steps, const uint8_t *x, const uint8_t **p, size_t n,
			      struct tpd_err *err)
{
	enum tpd_status status = tpd_scratch_need(&codec->towards, 2 * n + 1, err);

	if (status != TPD_OK)
		return status;
	choose_away(x, *p, steps->predicted, n, codec->towards.data);
	*p = codec->towards.data;
	return TPD_OK;
}

enum tpd_status tpd_step_towards(struct tpd_codec *codec, const struct tpd_steps *steps, const uint8_t **p, size_t n, struct tpd_err *err)
{
	enum tpd_status status = tpd_scratch_need(&codec->towards, 2 * n + 1, err);

	if (status != TPD_OK)
		return status;
	codec->kernels->step_mirror(steps->steps, n, codec->symbols.data);
	codec->kernels->step_choose(codec->symbols.data, *p, steps->predicted, n, codec->towards.data);
	*p = codec->towards.data;
	return TPD_OK;
}
