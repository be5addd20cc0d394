/*
 * torch_top.h - the pickle of a file by torch.save() (since PyTorch 1.6), for what stands at its top. Private to
 * format/.
 */
#ifndef TPD_FORMAT_TORCH_TOP_H
#define TPD_FORMAT_TORCH_TOP_H

#include "base/tpd.h"
#include "format/format.h"
#include "format/pickle.h"
#include "format/zip.h"

struct tpd_torch_top {
	struct tpd_zip zip;
	const struct tpd_zip_member *member; /* PREFIX/data.pkl, stored; NULL: no such file */
	uint8_t *bytes; /* of it; owned */
	struct tpd_pickle pickle; /* with a doubt: nothing can be asked of it */
};

/*
 * A pickle above TPD_FORMAT_MAX_GLUE bytes is not read. Fails as the callback does, or with TPD_NOMEM. Release it after
 * TPD_OK, also when there is nothing in it.
 */
enum tpd_status tpd_torch_top_open(uint64_t size, tpd_format_read_fn read, void *ctx, struct tpd_torch_top *out_top,
				   struct tpd_err *err);
void tpd_torch_top_release(struct tpd_torch_top *top);

#endif
