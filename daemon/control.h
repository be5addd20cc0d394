/*
 * control.h - the control socket: framing (wire.h), who may ask, and one reply a request.
 *
 * The loop thread only. What the commands mean is the owner's: it is given the command's word and writes the reply.
 */
#ifndef TPD_DAEMON_CONTROL_H
#define TPD_DAEMON_CONTROL_H

#include "base/bytes.h"
#include "base/json.h"
#include "base/tpd.h"

#include <sys/types.h>
#include <uv.h>

struct tpd_control_client;

struct tpd_control {
	uv_pipe_t server;
	bool open;
	char *path; /* owned */
	dev_t dev;  /* of the socket's name: it is only removed while it is ours */
	ino_t ino;
	struct tpd_control_client *clients;
	unsigned client_count;
	/*
	 * Write the reply's members, after "ok", into out; false with *err: the command failed (TPD_USAGE: there is
	 * none of that name).
	 */
	bool (*answer)(void *arg, const char *command, struct tpd_json_out *out, struct tpd_err *err);
	void *arg;
};

/*
 * Makes the directory of the socket when it can; replaces the socket of a process that is gone. TPD_BUSY: somebody
 * listens there.
 */
enum tpd_status tpd_control_open(struct tpd_control *control, uv_loop_t *loop, const char *path,
				 bool (*answer)(void *arg, const char *command, struct tpd_json_out *out,
						struct tpd_err *err),
				 void *arg, struct tpd_err *err);
/*
 * Closes all connections and removes the socket; done when the loop has run its handles' closing. Call release after
 * that.
 */
void tpd_control_close(struct tpd_control *control);
void tpd_control_release(struct tpd_control *control);

#endif
