/*
 * torch_step.c - which step a file by torch.save() says that it is of.
 *
 * Lightning's last.ckpt has no number in its name, but "global_step" at the top of what was saved; so do the files of
 * many loops of one's own ("step", "iteration"). Read from the zip's pickle, as symbols (pickle.h).
 */
#include "base/tpd.h"

#include "format/format.h"

#include "format/torch_top.h"

static bool step_in(const struct tpd_pickle *pickle, uint64_t *out_step)
{
	static const char *const keys[] = {"global_step", "step", "iteration"};

	for (size_t i = 0; !pickle->doubt && i < TPD_ARRAY_LEN(keys); i++) {
		if (tpd_pickle_u64(pickle, tpd_pickle_lookup(pickle, pickle->root, keys[i]), out_step))
			return true;
	}
	return false;
}

enum tpd_status tpd_format_torch_step(uint64_t size, tpd_format_read_fn read, void *ctx, bool *out_found, uint64_t *out_step,
				      struct tpd_err *err)
{
	struct tpd_torch_top top;
	enum tpd_status status = tpd_torch_top_open(size, read, ctx, &top, err);

	*out_found = false;
	if (status)
		return status;
	*out_found = step_in(&top.pickle, out_step);
	tpd_torch_top_release(&top);
	return TPD_OK;
}
