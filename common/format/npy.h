/*
 * npy.h - numpy arrays in files and in zips. Private to format/.
 */
#ifndef TPD_FORMAT_NPY_H
#define TPD_FORMAT_NPY_H

#include "base/tpd.h"
#include "format/format.h"
#include "format/zip.h"

/*
 * The data of a .npy of `size` bytes by this callback, as a segment without a name; or *out_reason, why it is none.
 * Fails as the callback does, or with TPD_NOMEM.
 */
enum tpd_status tpd_npy_read(uint64_t size, tpd_format_read_fn read, void *ctx, struct tpd_format_segment *out_segment,
			     const char **out_reason, struct tpd_err *err);

/* Are all members called .npy? Then tpd_npz_read() makes the layout of the file that the zip is. */
bool tpd_npz_is(const struct tpd_zip *zip);
enum tpd_status tpd_npz_read(uint64_t size, const struct tpd_zip *zip, tpd_format_read_fn read, void *ctx,
			     struct tpd_format_layout *out_layout, struct tpd_err *err);

#endif
