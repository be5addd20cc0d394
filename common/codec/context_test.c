/*
 * context_test.c - the known answer of `context`: what becomes of fixed symbols must have the digest that stands here, and decode to them again.
 * It was found with the scalar form (kernels.c, which asks before anything is coded).
 *
 * Both directions of context_kernel.h are one text, and much of it is all forms': that one direction proves what the other made says nothing of a
 * compiler that makes something else of both.
 */
#include "base/tpd.h"

#include "codec/context.h"

#include <stdlib.h>
#include <string.h>

#include "base/digest.h"
#include "base/random.h"
#include "codec/grid_kernel.h"

#define ELEMENTS 400u
#define EXPONENT 116u /* of T, in F32 */

#define DIGEST UINT64_C(0x2af8eb79f84884f2) /* of the stream */

struct trial {
	struct tpd_codec codec;
	uint8_t p[2 * ELEMENTS], symbols[ELEMENTS], decoded[ELEMENTS], out[TPD_CONTEXT_SYMBOLS_BOUND(ELEMENTS)];
	float steps[ELEMENTS], v1[ELEMENTS], v2[ELEMENTS], before[ELEMENTS], now[ELEMENTS], rests[ELEMENTS];
};

/* A float of 2^(exponent - 127), about, of any sign. */
static float make_float(uint64_t random, uint32_t exponent)
{
	return float_of((uint32_t)(random >> 63) << 31 | (exponent + (uint32_t)(random >> 60 & 3)) << 23 | (uint32_t)(random >> 30 & 0x7fffff));
}

/* Small elements change, and far; large ones rarely. All symbols that there are occur, or their likes. */
static unsigned make_symbol(uint64_t random, unsigned size)
{
	const unsigned length = (unsigned)(random >> 10) % 7, d = 1u << length | ((unsigned)(random >> 20) & ((1u << length) - 1));

	if ((unsigned)(random >> 50) % 12 < size)
		return TPD_SYMBOL_EQUAL;
	if ((random >> 40) % 16 < 2)
		return (random >> 40) % 16 ? TPD_SYMBOL_ESCAPE : TPD_SYMBOL_ZERO;
	if ((random >> 40) % 16 == 2)
		return TPD_SYMBOL_MIDDLE;
	return random >> 63 ? TPD_SYMBOL_MIDDLE + TPD_MIN(d, 126u) : TPD_SYMBOL_MIDDLE - TPD_MIN(d, 126u);
}

static void make_piece(struct trial *trial)
{
	uint64_t random = 0x9e3779b97f4a7c15u;

	for (size_t i = 0; i < ELEMENTS; i++) {
		const uint64_t old = tpd_random_next(&random), moments = tpd_random_next(&random);
		const unsigned size = (unsigned)(old >> 40) % 14; /* of its ulps: below T's, and above */

		tpd_put_u16(trial->p + 2 * i, (uint16_t)((old >> 63) << 15 | (EXPONENT - 4 + size) << 7 | (old >> 20 & 0x7f)));
		trial->symbols[i] = (uint8_t)make_symbol(tpd_random_next(&random), size);
		trial->steps[i] = make_float(tpd_random_next(&random), EXPONENT - 8 - (unsigned)(moments % 4));
		trial->v1[i] = float_of(bits_of(make_float(moments, 80)) & 0x7fffffffu);
		trial->v2[i] = i % 37 ? trial->v1[i] * (0.98f + (float)(moments >> 20 & 63) * 0.01f) : 0;
		trial->before[i] = make_float(tpd_random_next(&random), 124);
		trial->now[i] = make_float(tpd_random_next(&random), 124);
		trial->rests[i] = make_float(tpd_random_next(&random), EXPONENT - 10);
	}
}

static enum tpd_status try_stream(struct trial *trial)
{
	const struct tpd_pieces pieces = {.first = 30, .row = 90, .n = ELEMENTS};
	const struct tpd_class_given given = {.steps = trial->steps, .v1 = trial->v1, .v2 = trial->v2, .before = trial->before,
					      .now = trial->now, .rests = trial->rests};
	struct tpd_rd rd;
	size_t len;
	enum tpd_status status = tpd_context_symbols_encode(&trial->codec, TPD_DTYPE_BF16, EXPONENT, trial->p, &given, trial->symbols, &pieces,
							    trial->out, &len, NULL);

	if (status)
		return status;
	if (len > sizeof(trial->out) || tpd_xxh64(trial->out, len) != DIGEST)
		return TPD_CORRUPT;
	rd = tpd_rd_make(trial->out, len);
	status = tpd_context_symbols_decode(&trial->codec, TPD_DTYPE_BF16, EXPONENT, &rd, trial->p, &given, trial->decoded, &pieces, NULL);
	if (status)
		return status;
	return tpd_rd_done(&rd) && memcmp(trial->decoded, trial->symbols, ELEMENTS) == 0 ? TPD_OK : TPD_CORRUPT;
}

bool tpd_context_test(const struct tpd_kernels *kernels)
{
	struct trial *trial = calloc(1, sizeof(*trial));
	enum tpd_status status;

	if (!trial)
		return false;
	trial->codec.kernels = kernels;
	make_piece(trial);
	status = try_stream(trial);
	free(trial->codec.classes.data);
	free(trial->codec.tables.data);
	free(trial);
	return status == TPD_OK;
}
