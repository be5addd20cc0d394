/*
 * cmd_retry.c - `tpdectl retry`: what the daemon has failed to store, or to open, is tried at once.
 *
 * After a failure that may pass (a full disk) it waits, each time longer, up to ten minutes: it cannot know that somebody has made room.
 * After any other it waits for a change of the checkpoint, though the reason may have been in the store.
 * That there is no daemon is an error here, since there is nobody else to do it.
 */
#include "base/tpd.h"

#include "tools/tools.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wire/wire.h"

static enum tpd_status ask(const struct tpd_ctl *ctl, struct tpd_reply *out, struct tpd_err *err)
{
	TPD_AUTO_FREE char *json = NULL;
	enum tpd_status status = tpd_wire_call(ctl->socket, "{\"command\":\"retry\"}", TPD_ANSWER_MS, &json, err);
	const char *why;

	if (status == TPD_OK)
		status = tpd_reply_parse(json, out, err);
	if (status)
		return status;
	why = tpd_reply_get(out, "error");
	if (!why && tpd_reply_get(out, "retried"))
		return TPD_OK;
	status = tpd_fail(err, TPD_UNSUPPORTED, "the daemon at '%s' says: %s", ctl->socket, why ? why : "nothing that is understood");
	tpd_reply_release(out);
	return status;
}

static int print_json(const struct tpd_ctl *ctl, uint64_t retried, const char *state)
{
	struct tpd_buf buf = {0};
	struct tpd_json_out out = tpd_json_out_make(&buf);

	tpd_json_begin_object(&out);
	tpd_json_key(&out, "retried");
	tpd_json_put_u64(&out, retried);
	tpd_json_key(&out, "state");
	tpd_json_put_string(&out, state);
	tpd_json_end_object(&out);
	return tpd_ctl_print_json(ctl, &buf, TPD_EXIT_DONE);
}

int tpd_cmd_retry(struct tpd_ctl *ctl, int argc TPD_UNUSED, char **argv TPD_UNUSED)
{
	struct tpd_reply reply = {0};
	struct tpd_err err = {0};
	enum tpd_status status = tpd_ctl_locate(ctl, &err);
	uint64_t retried;
	const char *state;
	int code = TPD_EXIT_DONE;

	if (status == TPD_OK)
		status = ask(ctl, &reply, &err);
	if (status)
		return tpd_ctl_fail(ctl, &err);
	retried = tpd_reply_u64(&reply, "retried");
	state = tpd_reply_get(&reply, "state");
	if (ctl->json)
		code = print_json(ctl, retried, state);
	else if (retried == 0)
		puts("nothing waits for another try");
	else
		printf("%llu %s tried again\n", (unsigned long long)retried, retried == 1 ? "is" : "are");
	if (retried > 0 && state && strcmp(state, "paused") == 0)
		tpd_ctl_note(ctl, "the daemon is paused: it begins nothing before it is resumed");
	tpd_reply_release(&reply);
	return code;
}
