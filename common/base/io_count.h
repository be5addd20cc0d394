/*
 * io_count.h - a table in front of another that counts the calls which came back.
 *
 *     struct tpd_io_count count;
 *     tpd_io_count_init(&count, tpd_io_posix());
 *     ... use &count.io as the table ...
 *     tpd_io_count_calls(&count)       from any thread
 *
 * A number that rises says that whoever uses the table is getting on, also in the long stretches that report no progress of
 * their own (reading a part back, copying a tip, looking through a large store): the daemon's watchdog lives on it.
 */
#ifndef TPD_BASE_IO_COUNT_H
#define TPD_BASE_IO_COUNT_H

#include "base/io.h"
#include "base/tpd.h"

#include <stdatomic.h>

struct tpd_io_count {
	struct tpd_io io;           /* its context is this struct, which must not move */
	const struct tpd_io *below; /* borrowed */
	atomic_ullong calls;
};

void tpd_io_count_init(struct tpd_io_count *count, const struct tpd_io *below);
uint64_t tpd_io_count_calls(const struct tpd_io_count *count);

#endif
