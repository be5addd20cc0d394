/*
 * zip.h - the members of a zip file, from its central directory, strictly.  Private to
 * format/.
 *
 * No member is inflated and no CRC is looked at: PyTorch may leave CRCs wrong on purpose.
 */
#ifndef TPD_FORMAT_ZIP_H
#define TPD_FORMAT_ZIP_H

#include "base/tpd.h"
#include "format/format.h"

struct tpd_zip_member {
	const char *name;       /* borrowed from the directory: name_length bytes as they are, no final zero */
	uint16_t name_length;
	uint16_t flags, method; /* method 0: stored */
	uint64_t header;        /* where the local header begins */
	uint64_t data, length;  /* the bytes as they lie in the file */
	uint64_t plain_length;  /* what they become; equals length when stored */
};

struct tpd_zip {
	uint8_t *directory; /* owned */
	struct tpd_zip_member *members; /* by ascending place in the file, disjoint; owned */
	size_t count;
	const char *doubt;  /* NULL, or why the file is not to be trusted; then there are no members */
};

/* Fails as the callback does, or with TPD_NOMEM.  Release it after TPD_OK, also when there is a doubt. */
enum tpd_status tpd_zip_open(uint64_t size, tpd_format_read_fn read, void *ctx, struct tpd_zip *out_zip,
			     struct tpd_err *err);
void tpd_zip_release(struct tpd_zip *zip);

#endif
