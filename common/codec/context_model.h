/*
 * context_model.h - the chance that a bit is 1: counted in several contexts, and mixed by weights that learn which of them to trust
 * (SPEC.md section 18). For context_kernel.h.
 *
 *     slots of six contexts ──┐ stretch
 *     curve, or reach ────────┼──────────► weights of the exponent ──┐
 *     1 ──────────────────────┘ ─────────► weights of the reach ─────┴─► mean ─► squash ─► chance
 *
 * All in integers: chances are 16 bits, their logits 256ths of an octave of odds. After M. Mahoney's lpaq. What makes it learn from few
 * elements: a slot that is new begins where a logistic curve of the element's expected scale is, not at one half.
 */
#ifndef TPD_CODEC_CONTEXT_MODEL_H
#define TPD_CODEC_CONTEXT_MODEL_H

#include <string.h>

#include "base/bytes.h"
#include "base/tpd.h"
#include "codec/classes.h"
#include "codec/grid_kernel.h"

/* Contexts, and how many values each has. */
enum {
	CONTEXT_STEP = 0,                        /* step and noise, in own ulps */
	CONTEXT_REACH = CONTEXT_STEP + 48 * 48,  /* exponent, reach */
	CONTEXT_MOMENTS = CONTEXT_REACH + 16 * 48,
	CONTEXT_SIZE = CONTEXT_MOMENTS + 16 * 16 * 16, /* of step and noise together, in units of T; exponent */
	CONTEXT_PLACE = CONTEXT_SIZE + 48 * 8,   /* how far the step goes, linearly; share */
	CONTEXT_BESIDE = CONTEXT_PLACE + 64 * 16, /* the elements before and above; exponent */
	CONTEXTS = CONTEXT_BESIDE + 8 * 8 * 16
};
#define MIXED 6u  /* contexts */
#define INPUTS 8u /* those, the expectation, and a constant */

/* What a bit says: d is not 0; its sign; floor(log2) is more than j; the next bits; which of the two that are no d. */
enum { NODE_MOVES, NODE_SIGN, NODE_LENGTH, NODE_FIRST = NODE_LENGTH + 7, NODE_SECOND = NODE_FIRST + 6, NODE_OTHER = NODE_SECOND + 10, NODES };

#define CHANCE_LEAST 8
#define LOGIT_MOST 4095
#define CURVE_LEAST 64
#define WEIGHT_MOST (1 << 18)
#define WEIGHT_FIRST 9216 /* 65536: 1 */
#define CONSTANT 256
#define COUNT_MOST 255u
#define COUNT_FIRST 2u    /* a new slot trusts what it was expected to be as much as so many bits */
#define SCALE_COUNT_FIRST 6u
#define SCALE_LEAST 77u   /* of 256: 1 */
#define SCALE_SLOPE 135168u

struct context_mix {
	int32_t weights[INPUTS];
};

/* Mean magnitude of d, in 1/256, from so many. */
struct context_scale {
	uint32_t mean;
	uint32_t count;
};

struct tpd_context_model {
	uint16_t squash[2 * LOGIT_MOST + 1];
	uint32_t share[COUNT_MOST + 1];         /* of what is new after so many */
	struct context_mix flag_mix[16 + 48], mix[(16 + 48) * NODES];
	struct context_scale scales[48 * 48];   /* of CONTEXT_STEP */
	uint32_t flags[CONTEXTS];               /* did it change? Chance << 10 | count */
	uint32_t slots[CONTEXTS * NODES];
};

/* The coder of bits: from low to high, both included; decoding: value lies between. */
struct tpd_context_coder {
	uint32_t low, high, value;
	const uint8_t *at, *end;  /* decoding */
	size_t beyond;            /* decoding: bytes that were asked for, and are not there */
	uint8_t *out, *out_end;   /* encoding; out == out_end: given up */
};

/* All that elements are told by. */
struct tpd_context_ground {
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

/* A form's loops (kernels.h); that of CPUs with AVX-512 is AVX2's. */
struct tpd_context_kernels {
	/* Symbols bit by bit, behind what the coder has; the model is as context_open() leaves it. The caller has set the floating-point mode. */
	void (*encode)(const struct tpd_context_ground *ground, struct tpd_context_model *model, const uint8_t *symbols,
		       struct tpd_context_coder *coder);
	/* The way back, where all symbols are "equal" before; false: not valid. */
	bool (*decode)(const struct tpd_context_ground *ground, struct tpd_context_model *model, struct tpd_context_coder *coder, uint8_t *symbols);
};

/* Where an element stands. */
struct context_place {
	uint32_t contexts[MIXED]; /* of all CONTEXTS */
	unsigned exponent, reach;
	int32_t expected;         /* logit: whether it changes */
	uint32_t slope;           /* of the curve */
	struct context_scale *scale;
	unsigned noise;           /* in quarter octaves, 28: one unit of d */
};

/* What a bit is told by. */
struct context_bit {
	uint32_t *slots[MIXED];
	struct context_mix *mixes[2];
};

TPD_INLINE uint32_t context_squash(const struct tpd_context_model *model, int32_t logit)
{
	return model->squash[TPD_MAX(-LOGIT_MOST, TPD_MIN(logit, LOGIT_MOST)) + LOGIT_MOST];
}

static inline void context_open(struct tpd_context_model *model)
{
	for (int32_t logit = -LOGIT_MOST; logit <= LOGIT_MOST; logit++) {
		const uint32_t size = (uint32_t)(logit < 0 ? -logit : logit), up = 256 - (size & 255);
		const uint32_t odds = (65536 + (up << 8) - (up * (256 - up) * 22544 >> 16)) >> (size / 256 + 1);
		const uint32_t small = TPD_MAX((uint32_t)(((uint64_t)odds << 16) / (65536 + odds)), (uint32_t)CHANCE_LEAST);

		model->squash[logit + LOGIT_MOST] = (uint16_t)(logit < 0 ? small : 65536 - small);
	}
	for (uint32_t count = 0; count <= COUNT_MOST; count++)
		model->share[count] = 131072 / (2 * count + 3);
	for (size_t i = 0; i < TPD_ARRAY_LEN(model->mix); i++)
		for (unsigned k = 0; k < INPUTS; k++)
			model->mix[i].weights[k] = k + 1 < INPUTS ? WEIGHT_FIRST : 0;
	memcpy(model->flag_mix, model->mix, sizeof(model->flag_mix));
	memset(model->scales, 0, sizeof(model->scales));
	memset(model->flags, 0, sizeof(model->flags));
	memset(model->slots, 0, sizeof(model->slots));
}

/* --- the curve of |d| --- */

/* The chance, of 65536, that |d| is at least a. */
TPD_INLINE uint32_t context_tail(const struct tpd_context_model *model, const struct context_place *place, uint32_t a)
{
	return a == 0 ? 65536 : 2 * context_squash(model, -(int32_t)TPD_MIN(place->slope * (2 * a - 1) >> 1, (uint32_t)LOGIT_MOST));
}

/* The chance of middle <= |d|, when it is known that from <= |d| < to; to = 0: without end. */
TPD_INLINE uint32_t context_split(const struct tpd_context_model *model, const struct context_place *place, uint32_t from, uint32_t middle,
				  uint32_t to)
{
	const uint32_t beyond = to ? context_tail(model, place, to) : 0, all = context_tail(model, place, from) - beyond;
	const uint32_t upper = context_tail(model, place, middle) - beyond;

	if (all < CURVE_LEAST)
		return 32768;
	return TPD_MIN(TPD_MAX((uint32_t)(((uint64_t)upper << 16) / all), (uint32_t)CURVE_LEAST), 65536u - CURVE_LEAST);
}

/* The curve of a place, before it is asked for. */
TPD_INLINE void context_find_curve(struct context_place *place)
{
	struct context_scale *scale = place->scale;

	if (scale->count == 0) {
		scale->mean = 358 + (((4 + (place->noise & 3)) << (place->noise >> 2)) * 35 >> 8);
		scale->count = SCALE_COUNT_FIRST;
	}
	place->slope = SCALE_SLOPE / scale->mean;
}

TPD_INLINE void context_learn_scale(const struct tpd_context_model *model, struct context_place *place, uint32_t magnitude)
{
	struct context_scale *scale = place->scale;
	const int32_t off = (int32_t)(magnitude << 8) - (int32_t)scale->mean;

	scale->mean = TPD_MAX(scale->mean + (uint32_t)(off * (int32_t)model->share[scale->count] >> 16), SCALE_LEAST);
	scale->count += scale->count < COUNT_MOST;
}

/* --- one bit --- */

TPD_INLINE void context_find_slots(struct tpd_context_model *model, const struct context_place *place, unsigned node, struct context_bit *bit)
{
	for (unsigned k = 0; k < MIXED; k++)
		bit->slots[k] = &model->slots[place->contexts[k] * NODES + node];
	bit->mixes[0] = &model->mix[place->exponent * NODES + node];
	bit->mixes[1] = &model->mix[(16 + place->reach) * NODES + node];
}

TPD_INLINE void context_find_flags(struct tpd_context_model *model, const struct context_place *place, struct context_bit *bit)
{
	for (unsigned k = 0; k < MIXED; k++)
		bit->slots[k] = &model->flags[place->contexts[k]];
	bit->mixes[0] = &model->flag_mix[place->exponent];
	bit->mixes[1] = &model->flag_mix[16 + place->reach];
}

#endif
