/*
 * classes_fit.h - a class while it is made: what its symbols are, and the table that they get. For classes_encode.c.
 */
#ifndef TPD_CODEC_CLASSES_FIT_H
#define TPD_CODEC_CLASSES_FIT_H

#include "base/tpd.h"
#include "codec/classes.h"
#include "codec/internal.h"

/* A run of keys, how often each symbol follows one of them, and the table. */
struct tpd_class {
	uint32_t counts[256];
	uint32_t n;
	unsigned first_key, first, last; /* symbols */
	unsigned form;                   /* as it is written */
	struct tpd_class_levels levels;  /* form: a number of magnitudes */
	struct tpd_class_curve curve;    /* form: TPD_TABLE_CURVE and more, or TPD_TABLE_SHORT and more */
	uint16_t freq[256];
	uint64_t cost;                   /* bits: of the symbols, and of the table */
};

/* Mean magnitudes of all curves, without d = 0 and with half of it, for the codec. */
void tpd_class_curve_means(uint32_t means[TPD_CURVE_SHAPES][TPD_CURVE_SCALES][2]);
/* From counts and n to form, frequencies and cost. n > 0. */
void tpd_class_fit(const struct tpd_codec *codec, struct tpd_class *class);
uint8_t *tpd_class_put_table(uint8_t *out, const struct tpd_class *class);

#endif
