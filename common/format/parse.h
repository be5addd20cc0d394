/*
 * parse.h - how a parser of this directory ends: with the ranges that it found, or
 * with a doubt.  Private to format/.
 */
#ifndef TPD_FORMAT_PARSE_H
#define TPD_FORMAT_PARSE_H

#include "base/tpd.h"
#include "format/format.h"

/*
 * The layout of a file that is one opaque range.  The reason is for people and quotes nothing from the file.
 * Returns TPD_OK, so that a parser ends with `return tpd_format_opaque(...)`.
 */
enum tpd_status tpd_format_opaque(struct tpd_format_layout *out_layout, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/*
 * The layout of a file of `size` bytes with these segments, which must ascend and be disjoint.  Takes them over.
 * Those below TPD_FORMAT_MIN_SEGMENT are dropped, a name that comes again gets "#2" (an empty one "#1"); with too
 * many segments, or too much glue, or where a name that is made is there already, the file is opaque. Fails with
 * TPD_NOMEM only.
 */
enum tpd_status tpd_format_accept(struct tpd_format_layout *out_layout, enum tpd_format_kind kind, uint64_t size,
				  struct tpd_format_segment *segments, size_t count, struct tpd_err *err);

/* "[17,0]": where a part of a tensor begins in it. */
struct tpd_buf;
void tpd_format_put_offsets(struct tpd_buf *buf, unsigned ndim, const uint64_t *offsets);

/* A file within a file: tpd_range_read() reads from it with a struct tpd_range as its ctx. */
struct tpd_range {
	tpd_format_read_fn read; /* of the file around it */
	void *ctx;
	uint64_t offset;
};
enum tpd_status tpd_range_read(void *ctx, void *buf, size_t len, uint64_t offset, struct tpd_err *err);

/* Does a file with these first bytes belong to the parser? */
bool tpd_format_is_torch_legacy(const uint8_t *head, size_t len);

void tpd_format_segments_free(struct tpd_format_segment *segments, size_t count);

#endif
