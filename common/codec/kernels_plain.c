/*
 * kernels_plain.c - the loops in plain C once more, for a compiler that may use AVX2. A payload is proven by another form than the one that made it:
 * of what kernels_avx2.c makes that is this one, which shares no line of its loops with it, and decodes 1.5 times as fast as what is built for any CPU.
 */
#include "base/tpd.h"

#include "codec/kernels.h"

#include "codec/kernels_internal.h"

#if defined(__AVX2__)

#include "codec/kernels_plain.h"

const struct tpd_kernels tpd_kernels_plain = TPD_PLAIN_KERNELS("plain", &tpd_survey_avx2);

#else

const struct tpd_kernels tpd_kernels_plain = {.name = NULL}; /* not built for this CPU */

#endif
