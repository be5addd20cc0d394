/*
 * step.h - how far a 16-bit weight is expected to go: a step from earlier weights and the optimizer's state. SPEC.md section 14.
 *
 * Such weights move by few ulps, or not at all. So the step is not only where a weight is looked for, but also, in its own ulps, what tells
 * whether it moves. Terms and arithmetic are those of predict.h.
 */
#ifndef TPD_CODEC_STEP_H
#define TPD_CODEC_STEP_H

#include "base/tpd.h"
#include "codec/codec.h"
#include "codec/internal.h"

/* Of all elements, in the codec's memory. */
struct tpd_steps {
	const float *steps;
	const uint8_t *predicted; /* patterns */
	struct tpd_class_given given;
};

/* In place of TPD_TERM_DECAY, which is far below an ulp: how v grew. Only together with the terms of both moments. */
#define TPD_STEP_TERM_JUMP 1
/* The terms that a payload has where a plan has these; 0: it is none. */
unsigned tpd_step_terms(unsigned terms);

#define TPD_STEP_BOUND (1 + 2 * TPD_TERM_COUNT)

/*
 * Fit and predict. p: the reference, n elements; t: T without a prediction, which says what is learnt from. out: room for
 * TPD_STEP_BOUND bytes of what stands before the grid's payload. The chunk has its inputs.
 */
enum tpd_status tpd_step_encode(struct tpd_codec *codec, const struct tpd_plan *plan, const struct tpd_chunk *chunk, const uint8_t *p,
				size_t n, unsigned t, uint8_t *out, size_t *out_len, struct tpd_steps *steps, struct tpd_err *err);
/* `context` may have no terms. */
enum tpd_status tpd_step_decode(struct tpd_codec *codec, enum tpd_encoding encoding, enum tpd_dtype dtype, struct tpd_rd *rd,
				const uint8_t *p, const struct tpd_inputs *inputs, size_t n, struct tpd_steps *steps, struct tpd_err *err);

/* From the reference *p to what each element is coded against, when it is known which are equal to it; in codec->towards, where *p is not. */
enum tpd_status tpd_step_away(struct tpd_codec *codec, const struct tpd_steps *steps, const uint8_t *x, const uint8_t **p, size_t n,
			      struct tpd_err *err);
/* The same, from the symbols in codec->symbols, which are mirrored back before. */
enum tpd_status tpd_step_towards(struct tpd_codec *codec, const struct tpd_steps *steps, const uint8_t **p, size_t n, struct tpd_err *err);

#endif
