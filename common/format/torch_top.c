/*
 * torch_top.c - find the pickle in the zip and read it, as symbols (pickle.h).
 *
 * Rejected: opening the zip as torch_zip.c does, which proves of all members that they are storages; here one of them
 * is enough.
 */
#include "base/tpd.h"

#include "format/torch_top.h"

#include <stdlib.h>
#include <string.h>

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

enum tpd_status tpd_torch_top_open(uint64_t size, tpd_format_read_fn read, void *ctx, struct tpd_torch_top *out_top,
				   struct tpd_err *err)
{
	struct tpd_torch_top top = {.pickle = {.root = TPD_PICKLE_NOTHING, .doubt = "no pickle"}};
	enum tpd_status status = tpd_zip_open(size, read, ctx, &top.zip, err);

	if (status)
		return status;
	top.member = find_pickle(&top.zip);
	if (top.member) {
		top.bytes = malloc((size_t)top.member->length + 1);
		status = !top.bytes		   ? tpd_fail_nomem(err)
			 : top.member->length == 0 ? TPD_OK
						   : read(ctx, top.bytes, (size_t)top.member->length, top.member->data, err);
		if (!status)
			status = tpd_pickle_read(top.bytes, (size_t)top.member->length, TPD_PICKLE_MAX_OPS, &top.pickle, err);
	}
	if (status)
		tpd_torch_top_release(&top);
	else
		*out_top = top;
	return status;
}

void tpd_torch_top_release(struct tpd_torch_top *top)
{
	tpd_pickle_release(&top->pickle);
	free(top->bytes);
	tpd_zip_release(&top->zip);
}
