/*
 * trained_weights.h - 16-bit weights that Adam moved, with its moments: for t_stepped.c and t_context.c.
 */
#ifndef TESTS_TRAINED_WEIGHTS_H
#define TESTS_TRAINED_WEIGHTS_H

#include <math.h>
#include <string.h>

#include "base/tpd.h"
#include "codec/codec.h"
#include "codec/rounding.h"
#include "files.h"

#define N (1u << 16)
#define STEPS 20

struct training {
	uint16_t p[N], x[N];
	float w0[N], m1[N], v1[N], m2[N], v2[N];
};

/* Weights in a 16-bit type, and their Adam for so many steps, from gradients that are half signal and half noise. */
static inline void train(enum tpd_dtype dtype, struct training *t)
{
	const bool is_bf16 = dtype == TPD_DTYPE_BF16;
	uint64_t random = 7;

	for (size_t i = 0; i < N; i++) {
		double signal = random_normal(&random), m = 0, v = 0;
		double w = 0.02 * random_normal(&random);

		for (unsigned step = 0; step < 3 * STEPS; step++) {
			double g = signal + random_normal(&random);
			float to;
			uint32_t bits;

			m = 0.9 * m + 0.1 * g;
			v = 0.99 * v + 0.01 * g * g;
			to = (float)(w - (is_bf16 ? 3e-6 : 6e-7) * m / sqrt(v + 1e-12));
			memcpy(&bits, &to, 4);
			bits = is_bf16 ? (uint32_t)tpd_round_bf16(bits) << 16 : tpd_round_f16(bits);
			t->x[i] = (uint16_t)(is_bf16 ? bits >> 16 : bits);
			if (!is_bf16) {
				uint32_t exponent = bits >> 10 & 31;

				w = ldexp((double)((bits & 1023) + (exponent ? 1024 : 0)), (int)(exponent ? exponent : 1) - 25) * (bits >> 15 ? -1 : 1);
			} else {
				memcpy(&to, &bits, 4);
				w = (double)to;
			}
			if (step == STEPS - 1)
				t->w0[i] = (float)w;
			if (step == 2 * STEPS - 1) {
				t->p[i] = t->x[i];
				t->m1[i] = (float)m;
				t->v1[i] = (float)v;
			}
		}
		t->m2[i] = (float)m;
		t->v2[i] = (float)v;
	}
}

static inline struct tpd_inputs inputs_of(const struct training *t)
{
	return (struct tpd_inputs){.of = {[TPD_INPUT_W0] = {(const uint8_t *)t->w0, 4 * N}, [TPD_INPUT_M1] = {(const uint8_t *)t->m1, 4 * N},
					  [TPD_INPUT_V1] = {(const uint8_t *)t->v1, 4 * N}, [TPD_INPUT_M2] = {(const uint8_t *)t->m2, 4 * N},
					  [TPD_INPUT_V2] = {(const uint8_t *)t->v2, 4 * N}}};
}

/* Of all of it, for a plan, with one of these sets of terms; inputs stay NULL. */
static inline struct tpd_sample sample_of(const struct training *t, const uint8_t *term_sets, size_t count)
{
	return (struct tpd_sample){.x = (const uint8_t *)t->x, .p = (const uint8_t *)t->p, .len = 2 * TPD_SAMPLE_ELEMENTS,
				   .stretch = 2 * TPD_SAMPLE_ELEMENTS, .term_sets = term_sets, .term_set_count = count};
}

#endif
