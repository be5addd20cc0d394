/*
 * control.c - a few short requests from people at terminals.
 *
 * The socket's mode keeps strangers out; SO_PEERCRED is asked all the same, since a mode can be changed and the
 * kernel's answer cannot. The socket is made here and handed to libuv: uv_pipe_bind() gives no control over its mode
 * between bind and chmod, and says EADDRINUSE for a left-over as for a living daemon. A client may send requests
 * without reading answers: what it has not read is bounded.
 */
#include "base/tpd.h"

#include "daemon/control.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon/log.h"
#include "wire/wire.h"

#define CLIENTS_MAX 32
#define BACKLOG 16
#define UNSENT_MAX (4u << 20)

/*
 * The thread sanitizer keeps account of descriptors by number, and sees neither libuv's close (a bare system call) nor
 * anybody's openat(); so a number that served a client and then a file looks like two threads at odds. These are about
 * descriptors only (gcc's names, and clang's).
 */
#if defined(__has_feature)
#define HAS_FEATURE(x) __has_feature(x)
#else
#define HAS_FEATURE(x) 0
#endif
#if defined(__SANITIZE_THREAD__) || HAS_FEATURE(thread_sanitizer)
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
	return "race:interceptor_accept4\nrace:interceptor_close\nrace:^accept4$\nrace:^close$\nrace:^closedir$\n";
}
#endif

struct tpd_control_client {
	struct tpd_control_client *next;
	struct tpd_control *control;
	uv_pipe_t pipe;
	struct tpd_wire_in in;
	char buf[4096];
};

struct sending {
	uv_write_t request;
	uint8_t *frame; /* owned */
};

/* --- one client --- */

static void on_client_closed(uv_handle_t *handle)
{
	struct tpd_control_client *client = handle->data, **link = &client->control->clients;

	while (*link != client)
		link = &(*link)->next;
	*link = client->next;
	client->control->client_count--;
	tpd_wire_in_release(&client->in);
	free(client);
}

static void close_client(struct tpd_control_client *client)
{
	if (!uv_is_closing((uv_handle_t *)&client->pipe))
		uv_close((uv_handle_t *)&client->pipe, on_client_closed);
}

static void on_sent(uv_write_t *request, int status)
{
	struct sending *sending = request->data;
	struct tpd_control_client *client = request->handle->data;

	free(sending->frame);
	free(sending);
	if (status < 0)
		close_client(client);
}

static enum tpd_status send_text(struct tpd_control_client *client, const char *text, struct tpd_err *err)
{
	struct sending *sending = calloc(1, sizeof *sending);
	enum tpd_status status;
	uv_buf_t buf;
	size_t len;

	if (!sending)
		return tpd_fail_nomem(err);
	status = tpd_wire_frame(text, &sending->frame, &len, err);
	if (status != TPD_OK) {
		free(sending);
		return status;
	}
	sending->request.data = sending;
	buf = uv_buf_init((char *)sending->frame, (unsigned)len);
	if (uv_write(&sending->request, (uv_stream_t *)&client->pipe, &buf, 1, on_sent) < 0) {
		free(sending->frame);
		free(sending);
		return tpd_fail(err, TPD_IO, "cannot write to a client of the control socket");
	}
	return TPD_OK;
}

/* The string behind "command" in an object; fresh, NULL: it is no such request. */
static char *command_of(const char *message)
{
	struct tpd_json js = tpd_json_make(message, strlen(message));
	enum tpd_json_kind kind;
	char *command = NULL;

	if (tpd_json_next(&js) != TPD_JSON_OBJECT)
		return NULL;
	while ((kind = tpd_json_next(&js)) == TPD_JSON_KEY) {
		bool wanted = tpd_json_is(&js, "command") && !command;

		kind = tpd_json_next(&js);
		if (wanted && kind == TPD_JSON_STRING)
			command = tpd_json_string(&js);
		else if (!tpd_json_skip(&js, kind))
			break;
	}
	if (kind == TPD_JSON_OBJECT_END && tpd_json_next(&js) == TPD_JSON_END)
		return command;
	free(command);
	return NULL;
}

static void put_failure(struct tpd_buf *buf, const struct tpd_err *why)
{
	struct tpd_json_out out = tpd_json_out_make(buf);

	tpd_json_begin_object(&out);
	tpd_json_key(&out, "ok");
	tpd_json_put_bool(&out, false);
	tpd_json_key(&out, "error");
	tpd_json_put_string(&out, why->text);
	tpd_json_key(&out, "status");
	tpd_json_put_string(&out, tpd_status_name(why->status));
	tpd_json_end_object(&out);
}

static enum tpd_status answer_one(struct tpd_control_client *client, const char *message, struct tpd_err *err)
{
	struct tpd_control *control = client->control;
	struct tpd_err why = {0};
	struct tpd_buf buf = {0};
	struct tpd_json_out out = tpd_json_out_make(&buf);
	TPD_AUTO_FREE char *command = command_of(message);
	enum tpd_status status;

	tpd_json_begin_object(&out);
	tpd_json_key(&out, "ok");
	tpd_json_put_bool(&out, true);
	if (!command)
		tpd_fail(&why, TPD_USAGE, "a request is a JSON object with a \"command\"");
	if (command && control->answer(control->arg, command, &out, &why)) {
		tpd_json_end_object(&out);
	} else {
		tpd_buf_release(&buf);
		put_failure(&buf, &why);
	}
	tpd_buf_u8(&buf, 0);
	status = tpd_buf_status(&buf, err);
	if (status == TPD_OK)
		status = send_text(client, (const char *)buf.data, err);
	tpd_buf_release(&buf);
	return status;
}

static enum tpd_status serve(struct tpd_control_client *client, struct tpd_err *err)
{
	for (;;) {
		TPD_AUTO_FREE char *message = NULL;
		enum tpd_status status = tpd_wire_in_take(&client->in, &message, err);

		if (status != TPD_OK || !message)
			return status;
		if (uv_stream_get_write_queue_size((uv_stream_t *)&client->pipe) > UNSENT_MAX)
			return tpd_fail(err, TPD_LIMIT, "a client of the control socket does not read its answers");
		status = answer_one(client, message, err);
		if (status != TPD_OK)
			return status;
	}
}

static void on_alloc(uv_handle_t *handle, TPD_UNUSED size_t suggested, uv_buf_t *out_buf)
{
	struct tpd_control_client *client = handle->data;

	*out_buf = uv_buf_init(client->buf, sizeof client->buf);
}

static void on_read(uv_stream_t *stream, ssize_t len, const uv_buf_t *buf)
{
	struct tpd_control_client *client = stream->data;
	struct tpd_err err = {0};

	if (len == 0)
		return;
	if (len < 0) {
		close_client(client);
		return;
	}
	if (tpd_wire_in_feed(&client->in, buf->base, (size_t)len, &err) != TPD_OK || serve(client, &err) != TPD_OK) {
		tpd_log(TPD_LOG_WARNING, "control socket: %s", err.text);
		close_client(client);
	}
}

/* Root, our own user, our own group. */
static bool may_ask(uv_pipe_t *pipe)
{
	struct ucred peer;
	socklen_t len = sizeof peer;
	uv_os_fd_t fd;

	if (uv_fileno((uv_handle_t *)pipe, &fd) < 0 || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
		return false;
	if (peer.uid == 0 || peer.uid == geteuid() || peer.gid == getegid())
		return true;
	tpd_log(TPD_LOG_WARNING, "control socket: user %u (process %d) may not ask", (unsigned)peer.uid, (int)peer.pid);
	return false;
}

static void on_connection(uv_stream_t *server, int status)
{
	struct tpd_control *control = server->data;
	struct tpd_control_client *client;

	if (status < 0)
		return;
	client = calloc(1, sizeof *client);
	if (!client)
		return; /* libuv offers it again */
	client->control = control;
	uv_pipe_init(server->loop, &client->pipe, 0);
	client->pipe.data = client;
	client->next = control->clients;
	control->clients = client;
	control->client_count++;
	if (uv_accept(server, (uv_stream_t *)&client->pipe) < 0 || control->client_count > CLIENTS_MAX ||
	    !may_ask(&client->pipe) || uv_read_start((uv_stream_t *)&client->pipe, on_alloc, on_read) < 0)
		close_client(client);
}

/* --- the socket --- */

static bool somebody_listens(const struct sockaddr_un *address)
{
	TPD_AUTO_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	return fd >= 0 && (connect(fd, (const struct sockaddr *)address, sizeof *address) == 0 || errno == EAGAIN);
}

static void make_directory(const char *path)
{
	TPD_AUTO_FREE char *dir = strdup(path);
	char *slash = dir ? strrchr(dir, '/') : NULL;

	if (!slash || slash == dir)
		return;
	*slash = 0;
	if (mkdir(dir, 0755) < 0)
		return; /* it is there, or binding tells why not */
}

static enum tpd_status bind_socket(struct tpd_control *control, int fd, struct tpd_err *err)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	const char *path = control->path;
	struct stat st;
	mode_t mask;
	int rc, sys;

	if (strlen(path) >= sizeof address.sun_path)
		return tpd_fail(err, TPD_USAGE, "the control socket's path '%s' is too long", path);
	strcpy(address.sun_path, path);
	if (lstat(path, &st) == 0) {
		if (!S_ISSOCK(st.st_mode))
			return tpd_fail(err, TPD_USAGE, "'%s' exists and is no socket", path);
		if (somebody_listens(&address))
			return tpd_fail(err, TPD_BUSY, "another process listens at the control socket '%s'", path);
		if (unlink(path) < 0)
			return tpd_fail_sys(err, errno, "cannot replace the control socket '%s'", path);
	} else {
		make_directory(path);
	}
	mask = umask(0117); /* 0660 from the first moment on */
	rc = bind(fd, (const struct sockaddr *)&address, sizeof address);
	sys = errno;
	umask(mask);
	if (rc < 0)
		return tpd_fail_sys(err, sys, "cannot make the control socket '%s'", path);
	if (lstat(path, &st) == 0) {
		control->dev = st.st_dev;
		control->ino = st.st_ino;
	}
	return TPD_OK;
}

enum tpd_status tpd_control_open(struct tpd_control *control, uv_loop_t *loop, const char *path,
				 bool (*answer)(void *arg, const char *command, struct tpd_json_out *out,
						struct tpd_err *err),
				 void *arg, struct tpd_err *err)
{
	enum tpd_status status;
	int fd, rc;

	*control = (struct tpd_control){.answer = answer, .arg = arg};
	control->path = strdup(path);
	if (!control->path)
		return tpd_fail_nomem(err);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	status = fd < 0 ? tpd_fail_sys(err, errno, "cannot make a socket") : bind_socket(control, fd, err);
	if (status != TPD_OK) {
		if (fd >= 0)
			close(fd);
		tpd_control_release(control);
		return status;
	}
	uv_pipe_init(loop, &control->server, 0);
	control->server.data = control;
	control->open = true;
	rc = uv_pipe_open(&control->server, fd);
	if (rc == 0)
		rc = uv_listen((uv_stream_t *)&control->server, BACKLOG, on_connection);
	else
		close(fd);
	if (rc == 0)
		return TPD_OK;
	tpd_control_close(control);
	return tpd_fail(err, TPD_IO, "cannot listen at '%s': %s", path, uv_strerror(rc));
}

void tpd_control_close(struct tpd_control *control)
{
	struct stat st;

	if (!control->open)
		return;
	control->open = false;
	if (lstat(control->path, &st) == 0 && st.st_dev == control->dev && st.st_ino == control->ino)
		unlink(control->path);
	uv_close((uv_handle_t *)&control->server, NULL);
	for (struct tpd_control_client *client = control->clients; client; client = client->next)
		close_client(client);
}

void tpd_control_release(struct tpd_control *control)
{
	free(control->path);
	control->path = NULL;
}
