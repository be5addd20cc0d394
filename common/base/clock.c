/*
 * clock.c - see clock.h. The two clocks are always there on Linux, so nothing here can fail.
 */
#include "base/tpd.h"

#include "base/clock.h"

#include <time.h>

int64_t tpd_clock_wall_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

int64_t tpd_clock_steady_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

uint64_t tpd_clock_backoff_ms(uint64_t first_ms, uint64_t max_ms, unsigned times)
{
	uint64_t delay_ms = first_ms;

	for (unsigned i = 0; i < times && delay_ms < max_ms; i++)
		delay_ms *= 2;
	return TPD_MIN(delay_ms, max_ms);
}
