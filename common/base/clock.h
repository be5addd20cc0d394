/*
 * clock.h - what time it is: for the record by the wall clock, for waiting by one that nobody sets.
 */
#ifndef TPD_BASE_CLOCK_H
#define TPD_BASE_CLOCK_H

#include "base/tpd.h"

int64_t tpd_clock_wall_ns(void);   /* Unix time in nanoseconds */
int64_t tpd_clock_steady_ms(void); /* milliseconds since some moment; never goes back */

#endif
