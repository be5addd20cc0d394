/*
 * torch_step.c - which step a file by torch.save() says that it is of.
 *
 * Lightning's last.ckpt has no number in its name, but "global_step" at the top of what was saved; so do the files of
 * many loops of one's own ("step", "iteration"). Read from the zip's pickle, as symbols (pickle.h).
 */
#include "base/tpd.h"

#include "format/format.h"

#include <stdlib.h>
#include <string.h>

#include "format/pickle.h"
#include "format/zip.h"

static const struct tpd_zip_member *find_pickle(const struct tpd_zip *zip)
{
	static const char ending[] = "/data.pkl";
	const size_t len = sizeof ending - 1;

	for (size_t i = 0; i < zip->count; i++) {
		const struct tpd_zip_member *member = &zip->members[i];

		if (member->method == 0 && member->length <= TPD_FORMAT_MAX_GLUE && member->name_length > len &&
		    memcmp(member->name + member->name_length - len, ending, len) == 0)
			return member;
	}
	return NULL;
}

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
	struct tpd_zip zip;
	struct tpd_pickle pickle;
	TPD_AUTO_FREE uint8_t *bytes = NULL;
	const struct tpd_zip_member *member;
	enum tpd_status status = tpd_zip_open(size, read, ctx, &zip, err);

	*out_found = false;
	if (status)
		return status;
	member = find_pickle(&zip);
	if (member) {
		bytes = malloc((size_t)member->length + 1);
		status = !bytes		       ? tpd_fail_nomem(err)
			 : member->length == 0 ? TPD_OK
					       : read(ctx, bytes, (size_t)member->length, member->data, err);
		if (!status)
			status = tpd_pickle_read(bytes, (size_t)member->length, TPD_PICKLE_MAX_OPS, &pickle, err);
		if (!status) {
			*out_found = step_in(&pickle, out_step);
			tpd_pickle_release(&pickle);
		}
	}
	tpd_zip_release(&zip);
	return status;
}
