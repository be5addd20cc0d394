/*
 * random_bits.h - a generator for tests: the same numbers in every run.
 */
#ifndef TESTS_RANDOM_BITS_H
#define TESTS_RANDOM_BITS_H

#include "base/random.h"
#include "base/tpd.h"

/* Each test sets its own start, not 0. */
static uint64_t random_state TPD_UNUSED = 0x2545f4914f6cdd1d;

static inline uint64_t next_random(void)
{
	return tpd_random_next(&random_state);
}

/* 0 .. below - 1. */
static inline uint64_t rnd(uint64_t below)
{
	return next_random() % below;
}

#endif
