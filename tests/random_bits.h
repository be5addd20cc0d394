/*
 * random_bits.h - a generator for tests: the same numbers in every run.  G. Marsaglia, "Xorshift RNGs" (13, 7, 17).
 */
#ifndef TESTS_RANDOM_BITS_H
#define TESTS_RANDOM_BITS_H

#include "base/tpd.h"

/* Each test sets its own start, not 0. */
static uint64_t random_state TPD_UNUSED = 0x2545f4914f6cdd1d;

static inline uint64_t next_random(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

#endif
