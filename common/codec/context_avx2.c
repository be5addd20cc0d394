/*
 * context_avx2.c - the loop of `context` for CPUs with AVX2.
 */
#include "base/tpd.h"

#include "codec/kernels_internal.h"

#if defined(__AVX2__)

#include "codec/context_mix_avx2.h"
#include "codec/context_kernel.h"

void tpd_avx2_context_encode(const struct tpd_context_ground *ground, struct tpd_context_model *model, const uint8_t *symbols,
			     struct tpd_context_coder *coder)
{
	context_encode(ground, model, symbols, coder);
}

bool tpd_avx2_context_decode(const struct tpd_context_ground *ground, struct tpd_context_model *model, struct tpd_context_coder *coder,
			     uint8_t *symbols)
{
	return context_decode(ground, model, coder, symbols);
}

#endif
