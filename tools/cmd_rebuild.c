/*
 * cmd_rebuild.c - `tpdectl rebuild-catalog`: the catalog again, from the store alone.
 */
#include "base/tpd.h"

#include "tools/tools.h"

#include <stdio.h>

int tpd_cmd_rebuild(struct tpd_ctl *ctl, int argc TPD_UNUSED, char **argv TPD_UNUSED)
{
	struct tpd_archive *archive = NULL;
	struct tpd_buf buf = {0};
	struct tpd_json_out out = tpd_json_out_make(&buf);
	struct tpd_progress progress = {.cancel = tpd_ctl_cancellable()};
	struct tpd_err err = {0};
	uint64_t done = 0, failed = 0;
	int code = TPD_EXIT_DONE;
	enum tpd_status status = tpd_ctl_open(ctl, TPD_ARCHIVE_WRITE, &archive, &err);

	if (status == TPD_OK)
		status = tpd_archive_rebuild(archive, &progress, &done, &failed, &err);
	tpd_archive_close(archive);
	if (status)
		code = tpd_ctl_fail(ctl, &err);
	if (status && failed == 0)
		return code;
	if (failed > 0 && done > 0)
		code = TPD_EXIT_PARTLY;
	if (!ctl->json) {
		if (!ctl->quiet)
			printf("%llu checkpoint%s in the catalog", (unsigned long long)done, done == 1 ? "" : "s");
		if (!ctl->quiet && failed > 0)
			printf(", %llu could not be read: see 'tpdectl verify'", (unsigned long long)failed);
		if (!ctl->quiet)
			putchar('\n');
		return code;
	}
	tpd_json_begin_object(&out);
	tpd_json_key(&out, "checkpoints");
	tpd_json_put_u64(&out, done);
	tpd_json_key(&out, "failed");
	tpd_json_put_u64(&out, failed);
	tpd_json_end_object(&out);
	return tpd_ctl_print_json(ctl, &buf, code);
}
