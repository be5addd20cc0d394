/*
 * copies.h - is a capture worth a copy? Pure: no files, no clock. copies.c says when and why.
 */
#ifndef TPD_DAEMON_COPIES_H
#define TPD_DAEMON_COPIES_H

#include "base/tpd.h"

struct tpd_copy_case {
	bool single_file;  /* not a directory */
	bool named_step;   /* its name tells its step: another step has another name */
	bool in_place;     /* it is known to have been written over under this name */
	bool at_once;      /* nothing else is stored or waits: its job begins now */
	uint64_t bytes;
};

bool tpd_copies_wanted(const struct tpd_copy_case *which);

#endif
