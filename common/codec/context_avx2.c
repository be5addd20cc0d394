/*
 * context_avx2.c - the loop of `context` for CPUs with AVX2.
 */
#include "base/tpd.h"

#include "codec/context_model.h"
#include "codec/kernels_internal.h"

#if defined(__AVX2__)

#include "codec/context_mix_avx2.h"
#include "codec/context_kernel.h"

const struct tpd_context_kernels tpd_context_avx2 = {context_encode, context_decode};

#else

const struct tpd_context_kernels tpd_context_avx2 = {0}; /* not built for this CPU */

#endif
