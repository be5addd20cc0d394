/*
 * codec_pairs.h - one value p against all 65536 patterns x of a 16-bit type, through the real encoder and decoder,
 * for t_grid (a sample of p) and exhaustive_pairs (all of them).
 */
#ifndef TESTS_CODEC_PAIRS_H
#define TESTS_CODEC_PAIRS_H

#include "base/tpd.h"

#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "codec/internal.h"

#define PAIRS_X 65536u

struct pairs {
	uint8_t x[2 * PAIRS_X], p[2 * PAIRS_X], back[2 * PAIRS_X];
	char text[200]; /* what went wrong */
};

/* t == 0: `sparse`, else `grid` with that T. */
static inline bool pairs_check(struct pairs *pairs, struct tpd_codec *codec, enum tpd_dtype dtype, unsigned t,
			       uint16_t p)
{
	const struct tpd_plan plan = {
		.encoding = t ? TPD_ENCODING_GRID : TPD_ENCODING_SPARSE, .dtype = dtype, .row = 4096, .grid_bias = 2};
	const struct tpd_chunk chunk = {.x = pairs->x,
					.len = sizeof pairs->x,
					.p = pairs->p,
					.ref_len = sizeof pairs->p,
					.element = (uint64_t)p * 7};
	struct tpd_err err = {0};
	size_t len = 0;

	for (uint32_t i = 0; i < PAIRS_X; i++) {
		tpd_put_u16(pairs->x + 2 * (size_t)i, (uint16_t)i);
		tpd_put_u16(pairs->p + 2 * (size_t)i, p);
	}
	memset(pairs->back, 0xa5, sizeof pairs->back);
	if (tpd_encode_with(codec, &plan, &chunk, t, &len, &err) != TPD_OK ||
	    tpd_decode_chunk(codec, plan.encoding, dtype, codec->payload.data, len, pairs->p, sizeof pairs->p,
			     pairs->back, sizeof pairs->back, &err) != TPD_OK) {
		snprintf(pairs->text, sizeof pairs->text, "p = %04x, T = %u: %.100s", p, t, err.text);
		return false;
	}
	if (memcmp(pairs->x, pairs->back, sizeof pairs->x) == 0)
		return true;
	for (uint32_t i = 0; i < PAIRS_X; i++) {
		unsigned got = tpd_get_u16(pairs->back + 2 * (size_t)i);

		if (got != i)
			snprintf(pairs->text, sizeof pairs->text, "p = %04x, T = %u: x = %04x came back as %04x", p, t,
				 i, got);
	}
	return false;
}

#endif
