/*
 * capture_internal.h - what capture.c and capture_spool.c share: a capture, and what it has in a spool.
 *
 *                 entries[].fd   spooled[]             originals[]
 *     opened      originals      -                     -
 *     cloned      originals      clones                -
 *     copying     originals      copies, half made     -
 *     detached    clones         -                     -            the originals are closed
 *     detached    copies         -                     originals    until tpd_capture_take_originals()
 */
#ifndef TPD_ARCHIVE_CAPTURE_INTERNAL_H
#define TPD_ARCHIVE_CAPTURE_INTERNAL_H

#include "base/tpd.h"

#include <sys/stat.h>

#include "archive/capture.h"

struct tpd_capture {
	char *path;
	dev_t device; /* of the path itself when it was opened */
	ino_t inode;
	int64_t born_ns; /* 0: the file system does not tell */
	tpd_metrics_fn *metrics_of; /* NULL: whosever they are */
	struct tpd_source source;
	struct tpd_source_entry *entries; /* own their strings and descriptors */
	struct stat *stats;               /* of each entry when it was opened */
	size_t cap;
	uint64_t bytes;
	/* capture_spool.c */
	int *spooled;   /* of each entry, -1: none; NULL: nothing is */
	int *originals; /* likewise */
	bool detached;  /* what is read is in the spool: nothing that happens to the originals matters any more */
	struct tpd_spool *spool; /* of copies; NULL: there are none */
	uint64_t reserved;       /* bytes of spool->used that are ours */
	struct {
		size_t entry; /* in work; source.count: all are copied */
		uint64_t at, left; /* in it, in all */
		uint64_t low_space;
		uint8_t *buffer; /* NULL: nothing is being copied */
	} copy;
};

/* Close what is in the spool, or what was there before it, and free the tables. */
void tpd_capture_drop_spooled(struct tpd_capture *capture);

#endif
