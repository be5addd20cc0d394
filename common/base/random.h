/*
 * random.h - numbers that look like chance and are the same in every run, to choose samples and pivots with. Not for secrets.
 */
#ifndef TPD_BASE_RANDOM_H
#define TPD_BASE_RANDOM_H

#include "base/tpd.h"

#define TPD_RANDOM_START UINT64_C(0x9e3779b97f4a7c15)

/* The next one; *state is not 0.  G. Marsaglia, "Xorshift RNGs" (13, 7, 17), Journal of Statistical Software 8 (2003). */
static inline uint64_t tpd_random_next(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

#endif
