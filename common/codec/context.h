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

/* t: the chunk's T. given: steps at least. *out_len is SIZE_MAX when it was given up. */
enum tpd_status tpd_context_symbols_encode(struct tpd_codec *codec, enum tpd_dtype dtype, unsigned t, const uint8_t *p,
					   const struct tpd_class_given *given, const uint8_t *symbols, const struct tpd_pieces *pieces,
					   uint8_t *out, size_t *out_len, struct tpd_err *err);
enum tpd_status tpd_context_symbols_decode(struct tpd_codec *codec, enum tpd_dtype dtype, unsigned t, struct tpd_rd *rd, const uint8_t *p,
					   const struct tpd_class_given *given, uint8_t *symbols, const struct tpd_pieces *pieces,
					   struct tpd_err *err);

#endif
