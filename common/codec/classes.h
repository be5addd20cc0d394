/*
 * classes.h - which class an element of encoding `classes` is of, and the tables of classes, as both directions see them (SPEC.md section 9).
 */
#ifndef TPD_CODEC_CLASSES_H
#define TPD_CODEC_CLASSES_H

#include "base/bytes.h"
#include "base/tpd.h"
#include "codec/grid_kernel.h"
#include "codec/internal.h"

#define TPD_CLASSES_BY_EXPONENT 0u /* how they are told */
#define TPD_CLASS_KEYS 512u
#define TPD_CLASS_LEVELS 9u        /* of a row piece; the middle one says that it changed as much as others */
#define TPD_CLASS_LEVEL_MIDDLE 4u

/* The exponent field of element i. width and mantissa: of a type of 2 or 4 bytes, constants. */
TPD_INLINE unsigned classes_exponent(const uint8_t *p, size_t i, const unsigned width, const unsigned mantissa)
{
	uint32_t bits = width == 4 ? tpd_get_u32(p + i * 4) : tpd_get_u16(p + i * 2);

	return bits >> mantissa & ((1u << (8 * width - 1 - mantissa)) - 1);
}

TPD_INLINE unsigned classes_key(unsigned exponent, unsigned level)
{
	return TPD_MIN(2 * exponent + TPD_CLASS_LEVELS - 1 - level, TPD_CLASS_KEYS - 1);
}

/* --- tables --- */

#define TPD_TABLE_FREQUENCIES 254u
#define TPD_TABLE_SINGLE 255u
#define TPD_TABLE_MAGNITUDES_MAX 126u
#define TPD_WEIGHT_LEVELS 64u /* 0: does not occur */

/* A mirrored table: levels of the escape, of "equal", of zero and of d = 0; and of d = -1 and 1, -2 and 2, ... */
struct tpd_class_levels {
	uint8_t special[4];
	uint8_t count; /* of magnitudes */
	uint8_t magnitude[TPD_TABLE_MAGNITUDES_MAX];
};

/* Quarter octaves. level: 1 .. TPD_WEIGHT_LEVELS. */
TPD_INLINE uint32_t tpd_class_weight(unsigned level)
{
	static const uint8_t quarter[4] = {16, 19, 23, 27};

	return level == 0 ? 0 : (uint32_t)quarter[(level - 1) % 4] << (level - 1) / 4;
}

/* How the level changes from one magnitude to the next, by four bits. */
extern const int8_t tpd_class_steps[16];

/* The frequencies that levels say; false: they say none, since fewer than two symbols occur, or too many. */
bool tpd_class_frequencies(const struct tpd_class_levels *levels, uint16_t freq[256]);

#endif
