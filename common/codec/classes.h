/*
 * classes.h - which class an element of encoding `classes` or `stepped` is of, and the tables of classes, as both directions see them
 * (SPEC.md section 9).
 */
#ifndef TPD_CODEC_CLASSES_H
#define TPD_CODEC_CLASSES_H

#include "base/bytes.h"
#include "base/tpd.h"
#include "codec/grid_kernel.h"
#include "codec/internal.h"

/* Digits of a key: exponent, level of the row piece, reach. */
#define TPD_KEY_EXPONENTS 16u
#define TPD_KEY_LEVELS 9u
#define TPD_KEY_LEVEL_MIDDLE 4u /* of a row piece that changed as much as others */
#define TPD_KEY_REACHES 48u
#define TPD_KEYS (TPD_KEY_EXPONENTS * TPD_KEY_LEVELS * TPD_KEY_REACHES)

/* What keys are made from: tpd_class_rule_* of a payload, and arrays of the chunk. */
struct tpd_class_rule {
	unsigned by;            /* TPD_BY_* */
	unsigned base;          /* exponent field with the first digit 0 */
	float decay;            /* of v from v1 to v2; only for TPD_BY_INNOVATION */
	float noise;            /* likewise: how far an element whose v is all new may go beside its step */
	const uint8_t *levels;  /* a byte a piece; not for TPD_BY_INNOVATION */
	const float *steps;     /* an element each; not for TPD_BY_LEVEL */
	const float *v1, *v2;   /* likewise; only for TPD_BY_INNOVATION */
};

/* --- what an element is told by, also in sections 14 and 18 --- */

#define TPD_CLASS_BELOW_T 5u /* exponents from here on have first digits of their own */
#define TPD_REACH_FINEST 20  /* quarter octaves: 2^-5 of an ulp */

TPD_INLINE int32_t tpd_class_clamp(int32_t v, int32_t most)
{
	return v < 0 ? 0 : v > most ? most : v;
}

/* The exponent field of element i. */
TPD_INLINE unsigned tpd_class_exponent(const struct tpd_grid_type type, const uint8_t *p, size_t i)
{
	const uint32_t mask = (1u << (type.width - 1 - type.mantissa)) - 1;

	return (type.width == 32 ? tpd_get_u32(p + i * 4) : tpd_get_u16(p + i * 2)) >> type.mantissa & mask;
}

/* The exponent field, in F32, of an ulp of a 16-bit type, for an exponent field of that. */
TPD_INLINE int32_t tpd_class_ulp(const struct tpd_grid_type type, int32_t exponent)
{
	return (exponent > 0 ? exponent : 1) + (type.mantissa == 7 ? -7 : 112 - 10 /* of F16 */);
}

/* Quarter octaves: the exponent field, and two bits of the mantissa. */
TPD_INLINE int32_t tpd_class_quarters(float v)
{
	return (int32_t)((bits_of(v) & 0x7fffffffu) >> 21);
}

/* --- for encoding --- */

/* Where symbols say that something changed: room for n + 8. Returns how many. */
size_t tpd_class_places(const uint8_t *symbols, size_t n, uint32_t *places);
/* rule->decay and rule->noise, from what changed; the rest of the rule, and given->rests, are there. Rounds as it finds the mode. */
void tpd_class_innovation(enum tpd_dtype dtype, const uint8_t *p, const uint32_t *places, size_t changes, const struct tpd_class_given *given,
			  struct tpd_class_rule *rule);

/* --- tables --- */

#define TPD_TABLE_FREQUENCIES 254u
#define TPD_TABLE_SINGLE 255u
#define TPD_TABLE_CURVE 128u       /* + scale */
#define TPD_TABLE_SHORT 192u       /* + scale, TPD_SHORT_SCALES of them */
#define TPD_SHORT_SCALES 62u
#define TPD_TABLE_MAGNITUDES_MAX 126u
#define TPD_WEIGHT_LEVELS 64u /* 0: does not occur */

/* A mirrored table: levels of the escape, of "equal", of zero and of d = 0; and of d = -1 and 1, -2 and 2, ... */
struct tpd_class_levels {
	uint8_t special[4];
	uint8_t count; /* of magnitudes */
	uint8_t magnitude[TPD_TABLE_MAGNITUDES_MAX];
};

/* Frequencies that fall as a curve does. */
#define TPD_CURVE_SCALES 64u
#define TPD_CURVE_SHAPES 4u
#define TPD_CURVE_SKEWS 8u
struct tpd_class_curve {
	uint8_t scale, shape, skew;
	bool is_down; /* the side above is the rarer one */
	bool has_middle, has_escape, has_zero;
	uint8_t equal; /* level */
	uint8_t count; /* of magnitudes */
	int8_t centre; /* where it is highest; d = 0 but for predictions that fall short, or go too far */
};
#define TPD_CURVE_DISTANCES (2 * TPD_TABLE_MAGNITUDES_MAX + 1) /* from the centre, 0 among them */

/* Quarter octaves. level: 1 .. TPD_WEIGHT_LEVELS. */
TPD_INLINE uint32_t tpd_class_weight(unsigned level)
{
	static const uint8_t quarter[4] = {16, 19, 23, 27};

	return level == 0 ? 0 : (uint32_t)quarter[(level - 1) % 4] << (level - 1) / 4;
}

/* How the level changes from one magnitude to the next, by four bits. */
extern const int8_t tpd_class_steps[16];
/* How much of a curve's weight the rarer side has, in 64ths. */
extern const uint8_t tpd_class_skews[TPD_CURVE_SKEWS];

/* The frequencies that levels say; false: they say none, since fewer than two symbols occur, or too many. */
bool tpd_class_frequencies(const struct tpd_class_levels *levels, uint16_t freq[256]);
bool tpd_class_curve_frequencies(const struct tpd_class_curve *curve, uint16_t freq[256]);
/* What a short table does not say, from scale, shape and centre. */
void tpd_class_curve_short(struct tpd_class_curve *curve);
/* A table as it is written, to frequencies, of symbols of section 7. */
enum tpd_status tpd_class_read_table(struct tpd_rd *rd, uint16_t freq[256], struct tpd_err *err);
/* Weights of a curve at distances 0 .. count from its centre. */
void tpd_class_curve_weights(unsigned scale, unsigned shape, unsigned count, uint32_t weights[TPD_CURVE_DISTANCES]);

#endif
