/*
 * context.h - symbols of a grid coded bit by bit, each with a chance that several contexts mix (SPEC.md section 18).
 */
#ifndef TPD_CODEC_CONTEXT_H
#define TPD_CODEC_CONTEXT_H

#include "base/bytes.h"
#include "base/tpd.h"
#include "codec/internal.h"

/* Bytes of K(n) at most; what would be longer is given up. */
#define TPD_CONTEXT_SYMBOLS_BOUND(n) (2 * (n) + TPD_CONTEXT_HEADER)
#define TPD_CONTEXT_HEADER (1u + 4u + 1u + 16u + 4u)

#define TPD_CONTEXT_PERCENT 99u /* of what is quicker it may take, for a tensor and for a chunk */

/*
 * t: the chunk's T. given: steps, and zeros where v1 or v2 is not; for encoding with both of these, rests. *out_len is SIZE_MAX when it was
 * given up.
 */
enum tpd_status tpd_context_symbols_encode(struct tpd_codec *codec, enum tpd_dtype dtype, unsigned t, const uint8_t *p,
					   const struct tpd_class_given *given, const uint8_t *symbols, const struct tpd_pieces *pieces,
					   uint8_t *out, size_t *out_len, struct tpd_err *err);
enum tpd_status tpd_context_symbols_decode(struct tpd_codec *codec, enum tpd_dtype dtype, unsigned t, struct tpd_rd *rd, const uint8_t *p,
					   const struct tpd_class_given *given, uint8_t *symbols, const struct tpd_pieces *pieces,
					   struct tpd_err *err);

/*
 * Do these kernels, with what stands in context.c, give the known answer? tpd_kernels_test() asks. A form that can do all but `context` is not taken
 * for good: it would restore some checkpoints and not others, and what makes wrong code of this need not have spared the rest.
 */
bool tpd_context_test(const struct tpd_kernels *kernels); /* false also where there is no memory */

#endif
