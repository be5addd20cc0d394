/*
 * context_mix.h - one bit's chance, from slots and weights, in plain C; context_mix_avx2.h has the same for registers. For context_kernel.h.
 */
#ifndef TPD_CODEC_CONTEXT_MIX_H
#define TPD_CODEC_CONTEXT_MIX_H

#include "codec/context_model.h"

/* One bit's, kept until it is known. */
struct context_inputs {
	int32_t of[INPUTS], logits[2];
};

/* log2 v in 1/65536, 0 < v < 65536: its whole part and its first bits are where a float has them. */
TPD_INLINE uint32_t context_log(uint32_t v)
{
	const uint32_t log = (bits_of((float)(int32_t)v) >> 7) - (127u << 16), part = log & 0xffff;

	return log + ((part * (65536 - part) >> 16) * 22544 >> 16);
}

TPD_INLINE int32_t context_stretch(uint32_t chance)
{
	return ((int32_t)context_log(chance) - (int32_t)context_log(65536 - chance)) >> 8;
}

/* From slots, and what is expected, to the chance. logit: of what is expected, where it is not the chance that tells it. */
TPD_INLINE uint32_t context_chance(const struct tpd_context_model *model, const struct context_bit *bit, uint32_t expected, const int32_t *logit,
				   struct context_inputs *out)
{
	int32_t sums[2] = {0, 0};

	for (unsigned k = 0; k < MIXED; k++) {
		uint32_t slot = *bit->slots[k];

		if ((slot & 1023) == 0)
			*bit->slots[k] = slot = expected << 16 | COUNT_FIRST;
		out->of[k] = (int32_t)(slot >> 16);
	}
	out->of[MIXED] = out->of[MIXED + 1] = (int32_t)expected;
	for (unsigned k = 0; k < INPUTS; k++)
		out->of[k] = context_stretch((uint32_t)out->of[k]);
	if (logit)
		out->of[MIXED] = *logit;
	out->of[MIXED + 1] = CONSTANT;
	for (unsigned m = 0; m < 2; m++) {
		for (unsigned k = 0; k < INPUTS; k++)
			sums[m] += out->of[k] * bit->mixes[m]->weights[k] >> 8;
		out->logits[m] = TPD_MAX(-LOGIT_MOST, TPD_MIN(sums[m] >> 8, LOGIT_MOST));
	}
	return context_squash(model, (out->logits[0] + out->logits[1]) >> 1);
}

TPD_INLINE void context_learn(const struct tpd_context_model *model, const struct context_bit *bit, const struct context_inputs *inputs,
			      unsigned is)
{
	for (unsigned m = 0; m < 2; m++) {
		const int32_t off = (int32_t)(is << 16) - (int32_t)context_squash(model, inputs->logits[m]);

		for (unsigned k = 0; k < INPUTS; k++) {
			int32_t weight = bit->mixes[m]->weights[k] + ((inputs->of[k] * off + (1 << 14)) >> 15);

			bit->mixes[m]->weights[k] = TPD_MAX(-WEIGHT_MOST, TPD_MIN(weight, WEIGHT_MOST));
		}
	}
	for (unsigned k = 0; k < MIXED; k++) {
		const uint32_t slot = *bit->slots[k], count = slot & 1023, chance = slot >> 10;
		const int64_t off = (int64_t)(is << 22) - (int64_t)chance;
		uint32_t now = (uint32_t)((int64_t)chance + (off * model->share[count] >> 16));

		now = TPD_MAX((uint32_t)CHANCE_LEAST << 6, TPD_MIN(now, (65536u - CHANCE_LEAST) << 6));
		*bit->slots[k] = now << 10 | (count + (count < COUNT_MOST));
	}
}

#endif
