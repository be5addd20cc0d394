/*
 * prefetch_kernel.h - asking for memory before it is read, for the loops of every form.
 */
#ifndef TPD_CODEC_PREFETCH_KERNEL_H
#define TPD_CODEC_PREFETCH_KERNEL_H

#include "base/tpd.h"
#include "codec/fields.h"
#include "codec/kernels.h"

#define AHEAD 2048u /* bytes: hardware does not look beyond a page */
#define PREFETCH_INLINE static inline __attribute__((always_inline))

/* What will be read soon, where it is there: into the first cache. */
PREFETCH_INLINE void ahead(const uint8_t *at)
{
	__builtin_prefetch((const void *)((uintptr_t)at + AHEAD), 0, 3);
}

/* Of so many bytes, of both. w: NULL where there is none. */
PREFETCH_INLINE void ahead_of(const uint8_t *x, const uint8_t *w, size_t bytes)
{
	for (size_t at = 0; at < bytes; at += 64) {
		ahead(x + at);
		if (w)
			ahead(w + at);
	}
}

/* Element i of each, into the second cache. NULL: nothing. */
PREFETCH_INLINE void prefetch_of(const struct tpd_prefetch *soon, size_t i)
{
	for (unsigned k = 0; soon && k < soon->count; k++)
		__builtin_prefetch((const void *)((uintptr_t)soon->of[k] + i * sizeof(float)), 0, 2);
}

/* While rANS takes symbols from i on, 64 at a time. */
PREFETCH_INLINE void prefetch_share(const struct tpd_prefetch *soon, size_t i)
{
	if (soon && i % (TPD_PREFETCH_SHARE * TPD_LANES) == 0)
		prefetch_of(soon, i / TPD_PREFETCH_SHARE);
}

#endif
