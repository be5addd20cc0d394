/*
 * hints.h - what companion files say of their siblings: named ranges. Private to format/; what callers see is in
 * format.h.
 *
 * A reader of companions (dcp.c, onnx.c) calls tpd_hints_file() once for each sibling and tpd_hints_add() for each
 * range in it. Both return false when something is wrong: hints->nomem, or else hints->doubt says what; the reader
 * ends then, and tpd_format_hints_read() takes back all that this companion has added.
 */
#ifndef TPD_FORMAT_HINTS_H
#define TPD_FORMAT_HINTS_H

#include "base/tpd.h"
#include "format/format.h"

#define TPD_HINTS_MAX (1u << 18)            /* ranges, of all companions */
#define TPD_HINTS_MAX_FILES (1u << 16)
#define TPD_HINTS_MAX_TEXT (32u << 20)      /* bytes of all names and paths */

struct tpd_hint {
	uint32_t file;
	bool zip;                   /* what lies there is a zip by torch.save(); false: the elements themselves */
	bool part;                  /* zip: of a tensor, and called so: "NAME[17,0]" */
	bool many;                  /* zip: all its storages go below the name, not just one by the name itself */
	struct tpd_format_segment segment; /* name, offset, length; and, unless it is a zip, type and shape */
};

struct tpd_format_hints {
	char **files; /* paths as tpd_format_parse() gets them; owned, as is each. Ascending, once read; may be equal */
	size_t file_count, file_cap;
	struct tpd_hint *items; /* by file, then offset, once read */
	size_t count, cap;
	size_t text; /* bytes so far */
	const char *doubt;
	bool nomem;
};

/*
 * The sibling that the companion calls `relative`, below the companion's directory. It need not exist. false also
 * when that is no path that stays below it.
 */
bool tpd_hints_file(struct tpd_format_hints *hints, const char *companion, const char *relative, size_t length,
		    uint32_t *out_file);
/* Takes hint->segment.name over in any case. */
bool tpd_hints_add(struct tpd_format_hints *hints, struct tpd_hint *hint);
/* What is known of a file: *out_count items by ascending offset, borrowed. */
const struct tpd_hint *tpd_hints_find(const struct tpd_format_hints *hints, const char *path, size_t *out_count);

/* Readers of companions. Fail as the callback does; a lack of memory may also be noted in hints->nomem. */
enum tpd_status tpd_hints_read_dcp(struct tpd_format_hints *hints, const char *path, uint64_t size,
				   tpd_format_read_fn read, void *ctx, struct tpd_err *err);
enum tpd_status tpd_hints_read_onnx(struct tpd_format_hints *hints, const char *path, uint64_t size,
				    tpd_format_read_fn read, void *ctx, struct tpd_err *err);

/* Parsers of the files themselves. Contract as in format.h. */
enum tpd_status tpd_format_parse_distcp(uint64_t size, tpd_format_read_fn read, void *ctx, const struct tpd_hint *items,
					size_t count, struct tpd_format_layout *out_layout, struct tpd_err *err);
enum tpd_status tpd_format_parse_ranges(uint64_t size, const struct tpd_hint *items, size_t count,
					struct tpd_format_layout *out_layout, struct tpd_err *err);

#endif
