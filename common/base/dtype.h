/*
 * dtype.h - element types, as every layer names them.
 *
 * Numbers are on disk (manifest, chunk tables): assigned once, never reused.
 * X(symbol, number, name, bits an element, exponent bits, mantissa bits);
 * exponent bits are 0 for what is no IEEE-like binary float that the codec
 * maps to a grid.  Names are those of safetensors; BYTES is our own, for what
 * has no type.
 */
#ifndef TPD_BASE_DTYPE_H
#define TPD_BASE_DTYPE_H

#include "base/tpd.h"

#define TPD_DTYPE_LIST(X)                    \
	X(BYTES, 0, "BYTES", 8, 0, 0)        \
	X(F32, 1, "F32", 32, 8, 23)          \
	X(F16, 2, "F16", 16, 5, 10)          \
	X(BF16, 3, "BF16", 16, 8, 7)         \
	X(F64, 4, "F64", 64, 0, 0)           \
	X(I8, 5, "I8", 8, 0, 0)              \
	X(U8, 6, "U8", 8, 0, 0)              \
	X(I16, 7, "I16", 16, 0, 0)           \
	X(U16, 8, "U16", 16, 0, 0)           \
	X(I32, 9, "I32", 32, 0, 0)           \
	X(U32, 10, "U32", 32, 0, 0)          \
	X(I64, 11, "I64", 64, 0, 0)          \
	X(U64, 12, "U64", 64, 0, 0)          \
	X(BOOL, 13, "BOOL", 8, 0, 0)         \
	X(F8_E4M3, 14, "F8_E4M3", 8, 0, 0)   \
	X(F8_E5M2, 15, "F8_E5M2", 8, 0, 0)   \
	X(F8_E8M0, 16, "F8_E8M0", 8, 0, 0)   \
	X(F8_E4M3FNUZ, 17, "F8_E4M3FNUZ", 8, 0, 0) \
	X(F8_E5M2FNUZ, 18, "F8_E5M2FNUZ", 8, 0, 0) \
	X(C64, 19, "C64", 64, 0, 0)          \
	X(F4, 20, "F4", 4, 0, 0)             \
	X(F6_E2M3, 21, "F6_E2M3", 6, 0, 0)   \
	X(F6_E3M2, 22, "F6_E3M2", 6, 0, 0)

enum tpd_dtype {
#define TPD_DTYPE_X(sym, num, name, bits, exp, man) TPD_DTYPE_##sym = (num),
	TPD_DTYPE_LIST(TPD_DTYPE_X)
#undef TPD_DTYPE_X
	TPD_DTYPE_COUNT
};

const char *tpd_dtype_name(enum tpd_dtype dtype);                      /* "BF16"; "?" when unknown */
bool tpd_dtype_from_name(const char *name, size_t len, enum tpd_dtype *out_dtype);
unsigned tpd_dtype_bits(enum tpd_dtype dtype);                         /* bits an element, 0 when unknown */
/* Bytes of the word that the codec works on: 1, 2, 4 or 8 (types below 8 bits, and BYTES, are bytes). */
unsigned tpd_dtype_width(enum tpd_dtype dtype);
unsigned tpd_dtype_exponent_bits(enum tpd_dtype dtype);                /* 0: no grid */
unsigned tpd_dtype_mantissa_bits(enum tpd_dtype dtype);
/* F32 F16 BF16 F64: values that sparsity statistics are kept for. */
bool tpd_dtype_has_stats(enum tpd_dtype dtype);

#endif
