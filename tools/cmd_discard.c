/*
 * cmd_discard.c - `tpdectl discard RUN@STEP`: what is left of a checkpoint that was begun and never finished.
 *
 * Nothing that has a name can be removed by this: a step of which the store has all is put to the others as soon as the
 * run's lock is taken, and then there is nothing to discard. Without --lock-timeout nobody is waited for: what is being
 * written just now is not what is meant.
 */
#include "base/tpd.h"

#include "tools/tools.h"

#include <stdio.h>
#include <string.h>

/* RUN@STEP and nothing else: a version or `latest` is of something that is stored. */
static bool parse(const char *text, struct tpd_archive_name *out)
{
	const char *at = strrchr(text, '@');
	size_t len = at ? (size_t)(at - text) : 0;

	if (!at || len >= sizeof(out->run) || !tpd_text_parse_u64(at + 1, &out->step))
		return false;
	memcpy(out->run, text, len);
	out->run[len] = 0;
	return tpd_text_is_run_name(out->run);
}

static int print_json(const struct tpd_ctl *ctl, const char *text, const struct tpd_archive_name *name, uint64_t bytes)
{
	struct tpd_buf buf = {0};
	struct tpd_json_out out = tpd_json_out_make(&buf);

	tpd_json_begin_object(&out);
	tpd_json_key(&out, "name");
	tpd_json_put_string(&out, text);
	tpd_json_key(&out, "run");
	tpd_json_put_string(&out, name->run);
	tpd_json_key(&out, "step");
	tpd_json_put_u64(&out, name->step);
	tpd_json_key(&out, "bytes");
	tpd_json_put_u64(&out, bytes);
	tpd_json_end_object(&out);
	return tpd_ctl_print_json(ctl, &buf, TPD_EXIT_DONE);
}

int tpd_cmd_discard(struct tpd_ctl *ctl, int argc TPD_UNUSED, char **argv)
{
	struct tpd_archive *archive = NULL;
	struct tpd_archive_name name = {0};
	struct tpd_err err = {0};
	char size[TPD_TEXT_SIZE];
	uint64_t bytes = 0;
	enum tpd_status status;

	if (!parse(argv[0], &name))
		return tpd_ctl_usage(ctl, "'%s' is not a name like RUN@STEP", argv[0]);
	status = tpd_ctl_open(ctl, TPD_ARCHIVE_WRITE, &archive, &err);
	if (status == TPD_OK)
		status = tpd_archive_discard(archive, name.run, name.step,
					     ctl->has_lock_timeout ? ctl->lock_timeout_ms : 0, &bytes, &err);
	tpd_archive_close(archive);
	if (status)
		return tpd_ctl_fail(ctl, &err);
	if (ctl->json)
		return print_json(ctl, argv[0], &name, bytes);
	printf("%s  discarded: %s\n", argv[0], tpd_text_bytes(bytes, size));
	return TPD_EXIT_DONE;
}
