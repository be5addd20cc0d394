/*
 * classes_kernel.h - what is known of an element before it is decoded, as one small number, its key (SPEC.md section 9), in plain C, which
 * every form of the kernels compiles with its own instruction sets.
 *
 * Three digits: the exponent of the reference says how large its ulp is; the level of its row piece, how far updates went here; and how
 * far it may go, in its own ulps, whether it moves at all. Everything comes from bits of floats.
 */
#ifndef TPD_CODEC_CLASSES_KERNEL_H
#define TPD_CODEC_CLASSES_KERNEL_H

#include <math.h>

#include "base/bytes.h"
#include "base/tpd.h"
#include "codec/classes.h"
#include "codec/grid_kernel.h"

#ifdef __FAST_MATH__
#error "an innovation needs IEEE arithmetic"
#endif

#define KEY_BLOCK 256u

/* The exponent fields of n elements. */
TPD_INLINE void load_exponents(const uint8_t *p, size_t n, const struct tpd_grid_type type, int32_t *exponents)
{
	for (size_t i = 0; i < n; i++)
		exponents[i] = (int32_t)tpd_class_exponent(type, p, i);
}

/* Of a block: first digits into keys. */
TPD_INLINE void first_digits(const struct tpd_class_rule *rule, const int32_t *exponents, size_t n, unsigned scale, uint16_t *keys)
{
	const int32_t base = (int32_t)rule->base;

	for (size_t i = 0; i < n; i++)
		keys[i] = (uint16_t)(tpd_class_clamp(exponents[i] - base, TPD_KEY_EXPONENTS - 1) * (int32_t)scale);
}

/* How far an element may go: the step that is expected, and beside it, at a right angle, what the new share of v says of noise. */
TPD_INLINE void make_reach(const struct tpd_class_rule *rule, size_t at, size_t n, float *reach)
{
	const float *steps = rule->steps + at, noise = rule->noise * rule->noise;

	for (size_t i = 0; i < n; i++)
		reach[i] = float_of(bits_of(steps[i]) & 0x7fffffffu);
	if (rule->by != TPD_BY_INNOVATION)
		return;
	for (size_t i = 0; i < n; i++) {
		float whole = rule->v2[at + i] > 0 ? rule->v2[at + i] : 1, part = rule->decay * rule->v1[at + i];
		float share = (whole - part) / whole, both = sqrtf(steps[i] * steps[i] + noise * (share > 0 ? share : 0));

		reach[i] = rule->v2[at + i] > 0 ? both : reach[i];
	}
}

TPD_INLINE void add_reach(const struct tpd_grid_type type, const float *reach, const int32_t *exponents, size_t n, uint16_t *keys)
{
	for (size_t i = 0; i < n; i++) {
		const int32_t reaches = tpd_class_quarters(reach[i]) - 4 * tpd_class_ulp(type, exponents[i]) + TPD_REACH_FINEST;

		keys[i] = (uint16_t)(keys[i] + tpd_class_clamp(reaches, TPD_KEY_REACHES - 1));
	}
}

TPD_INLINE void make_keys(const struct tpd_grid_type type, const struct tpd_class_rule *rule, const uint8_t *p,
			  const struct tpd_pieces *pieces, uint16_t *keys)
{
	const size_t count = tpd_piece_count(pieces), width = type.width / 8;
	const unsigned scale = rule->by == TPD_BY_LEVEL ? 1 : TPD_KEY_REACHES; /* of the level */
	const unsigned first = rule->by == TPD_BY_INNOVATION ? scale : scale * TPD_KEY_LEVELS; /* of the exponent */
	int32_t exponents[KEY_BLOCK];
	float reach[KEY_BLOCK];

	for (size_t r = 0; r < count; r++) {
		const size_t end = tpd_piece_start(pieces, r + 1);
		const unsigned level = rule->by == TPD_BY_INNOVATION ? 0 : (TPD_KEY_LEVELS - 1 - rule->levels[r]) * scale;

		for (size_t at = tpd_piece_start(pieces, r); at < end; at += KEY_BLOCK) {
			const size_t n = TPD_MIN(end - at, (size_t)KEY_BLOCK);

			load_exponents(p + at * width, n, type, exponents);
			first_digits(rule, exponents, n, first, keys + at);
			for (size_t i = 0; i < n; i++)
				keys[at + i] = (uint16_t)(keys[at + i] + level);
			if (rule->by == TPD_BY_LEVEL)
				continue;
			make_reach(rule, at, n, reach);
			add_reach(type, reach, exponents, n, keys + at);
		}
	}
}

static void class_keys(enum tpd_dtype dtype, const struct tpd_class_rule *rule, const uint8_t *p, const struct tpd_pieces *pieces,
		       uint16_t *keys)
{
	if (dtype == TPD_DTYPE_F32)
		make_keys(TYPE_F32, rule, p, pieces, keys);
	else if (dtype == TPD_DTYPE_BF16)
		make_keys(TYPE_BF16, rule, p, pieces, keys);
	else
		make_keys(TYPE_F16, rule, p, pieces, keys);
}

#endif
