/*
 * clock.h - what time it is: for the record by the wall clock, for waiting by one that nobody sets; and how long to wait.
 */
#ifndef TPD_BASE_CLOCK_H
#define TPD_BASE_CLOCK_H

#include "base/tpd.h"

int64_t tpd_clock_wall_ns(void);   /* Unix time in nanoseconds */
int64_t tpd_clock_steady_ms(void); /* milliseconds since some moment; never goes back */
/* How long to wait before trying again: first_ms, doubled `times` times, at most max_ms (first_ms > 0). */
uint64_t tpd_clock_backoff_ms(uint64_t first_ms, uint64_t max_ms, unsigned times);

#endif
