/*
 * torch_zip.h - the storages of one zip by torch.save(), for those who find such zips in other files. Private to
 * format/.
 */
#ifndef TPD_FORMAT_TORCH_ZIP_H
#define TPD_FORMAT_TORCH_ZIP_H

#include "base/tpd.h"
#include "format/format.h"
#include "format/zip.h"

/*
 * Of a zip that was opened (tpd_zip_open) with this callback: its storages of any length as segments by ascending
 * offset, which the caller frees (tpd_format_segments_free). Or *out_reason, why it is none of torch's, and no
 * segments; also zip->doubt. Fails as the callback does, or with TPD_NOMEM.
 */
enum tpd_status tpd_torch_zip_segments(const struct tpd_zip *zip, tpd_format_read_fn read, void *ctx,
				       struct tpd_format_segment **out_segments, size_t *out_count,
				       const char **out_reason, struct tpd_err *err);

#endif
