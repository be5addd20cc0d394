/*
 * wire.c - messages over a stream socket: framing for both ends, and the client's call.
 *
 * A message is a u32 of its length and that many bytes of JSON. A length in front (rather than a newline behind) lets
 * the reader refuse an oversized message before it holds it, and needs no look at the text. The client is blocking with
 * one deadline for the whole call, by poll(); the daemon feeds what its loop gives it.
 */
#include "base/tpd.h"

#include "wire/wire.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"

#define HEAD 4 /* bytes of the length */

void tpd_wire_in_release(struct tpd_wire_in *in)
{
	free(in->data);
	*in = (struct tpd_wire_in){0};
}

/* The length of the message that begins the buffer, or 0 when not even that is there. */
static size_t head_len(const struct tpd_wire_in *in)
{
	return in->len < HEAD ? 0 : tpd_get_u32(in->data);
}

static enum tpd_status check_head(const struct tpd_wire_in *in, struct tpd_err *err)
{
	if (head_len(in) > TPD_WIRE_MAX)
		return tpd_fail(err, TPD_LIMIT, "a message of %zu bytes is larger than the %u that are allowed",
				head_len(in), TPD_WIRE_MAX);
	return TPD_OK;
}

enum tpd_status tpd_wire_in_feed(struct tpd_wire_in *in, const void *data, size_t len, struct tpd_err *err)
{
	size_t need, cap;
	uint8_t *grown;

	if (TPD_ADD_OVERFLOW(in->len, len, &need))
		return tpd_fail_nomem(err);
	if (need > in->cap) {
		cap = TPD_MAX(need, TPD_MAX(in->cap * 2, (size_t)256));
		grown = realloc(in->data, cap);
		if (!grown)
			return tpd_fail_nomem(err);
		in->data = grown;
		in->cap = cap;
	}
	if (len > 0)
		memcpy(in->data + in->len, data, len);
	in->len = need;
	return check_head(in, err);
}

enum tpd_status tpd_wire_in_take(struct tpd_wire_in *in, char **out_message, struct tpd_err *err)
{
	enum tpd_status status = check_head(in, err);
	size_t len = head_len(in);
	char *message;

	if (status != TPD_OK)
		return status;
	if (in->len < HEAD || in->len - HEAD < len) {
		*out_message = NULL;
		return TPD_OK;
	}
	message = malloc(len + 1);
	if (!message)
		return tpd_fail_nomem(err);
	memcpy(message, in->data + HEAD, len);
	message[len] = 0;
	in->len -= HEAD + len;
	memmove(in->data, in->data + HEAD + len, in->len);
	*out_message = message;
	return TPD_OK;
}

enum tpd_status tpd_wire_frame(const char *message, uint8_t **out, size_t *out_len, struct tpd_err *err)
{
	size_t len = strlen(message);
	uint8_t *frame;

	if (len > TPD_WIRE_MAX)
		return tpd_fail(err, TPD_LIMIT, "a message of %zu bytes is larger than the %u that are allowed", len,
				TPD_WIRE_MAX);
	frame = malloc(HEAD + len);
	if (!frame)
		return tpd_fail_nomem(err);
	tpd_put_u32(frame, (uint32_t)len);
	memcpy(frame + HEAD, message, len);
	*out = frame;
	*out_len = HEAD + len;
	return TPD_OK;
}

/* --- the client --- */

static enum tpd_status wait_for(int fd, short events, int64_t deadline_ms, const char *socket_path, struct tpd_err *err)
{
	for (;;) {
		struct pollfd pfd = {.fd = fd, .events = events};
		int64_t left = deadline_ms - tpd_clock_steady_ms();
		int rc = poll(&pfd, 1, (int)TPD_MAX(0, TPD_MIN(left, (int64_t)INT32_MAX)));

		if (rc > 0)
			return TPD_OK;
		if (rc == 0)
			return tpd_fail(err, TPD_BUSY, "no answer in time from the daemon at '%s'", socket_path);
		if (errno != EINTR)
			return tpd_fail_sys(err, errno, "cannot wait for '%s'", socket_path);
	}
}

static enum tpd_status send_all(int fd, const uint8_t *data, size_t len, int64_t deadline_ms, const char *socket_path,
				struct tpd_err *err)
{
	while (len > 0) {
		ssize_t n = send(fd, data, len, MSG_NOSIGNAL);
		enum tpd_status status;

		if (n > 0) {
			data += n;
			len -= (size_t)n;
			continue;
		}
		if (errno == EINTR)
			continue;
		if (errno != EAGAIN)
			return tpd_fail_sys(err, errno, "cannot write to '%s'", socket_path);
		status = wait_for(fd, POLLOUT, deadline_ms, socket_path, err);
		if (status != TPD_OK)
			return status;
	}
	return TPD_OK;
}

static enum tpd_status receive(int fd, int64_t deadline_ms, const char *socket_path, struct tpd_wire_in *in,
			       char **out_reply, struct tpd_err *err)
{
	for (;;) {
		enum tpd_status status = tpd_wire_in_take(in, out_reply, err);
		uint8_t buf[4096];
		ssize_t n;

		if (status != TPD_OK || *out_reply)
			return status;
		n = recv(fd, buf, sizeof buf, 0);
		if (n == 0)
			return tpd_fail(err, TPD_CORRUPT, "the daemon at '%s' closed the connection", socket_path);
		if (n > 0)
			status = tpd_wire_in_feed(in, buf, (size_t)n, err);
		else if (errno == EAGAIN)
			status = wait_for(fd, POLLIN, deadline_ms, socket_path, err);
		else if (errno != EINTR)
			status = tpd_fail_sys(err, errno, "cannot read from '%s'", socket_path);
		if (status != TPD_OK)
			return status;
	}
}

static enum tpd_status connect_to(int fd, const char *socket_path, struct tpd_err *err)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	if (strlen(socket_path) >= sizeof address.sun_path)
		return tpd_fail(err, TPD_USAGE, "the socket's path '%s' is too long", socket_path);
	memcpy(address.sun_path, socket_path, strlen(socket_path) + 1);
	if (connect(fd, (const struct sockaddr *)&address, sizeof address) == 0)
		return TPD_OK;
	if (errno == ENOENT || errno == ENOTDIR || errno == ECONNREFUSED)
		return tpd_fail(err, TPD_NOT_FOUND, "no daemon listens at '%s'", socket_path);
	if (errno == EAGAIN) /* its queue of connections is full */
		return tpd_fail(err, TPD_BUSY, "no answer in time from the daemon at '%s'", socket_path);
	return tpd_fail_sys(err, errno, "cannot connect to '%s'", socket_path);
}

enum tpd_status tpd_wire_call(const char *socket_path, const char *request, int64_t timeout_ms, char **out_reply,
			      struct tpd_err *err)
{
	int64_t deadline_ms = tpd_clock_steady_ms() + (timeout_ms < 0 ? INT32_MAX : timeout_ms);
	TPD_AUTO_FREE uint8_t *frame = NULL;
	TPD_AUTO_CLOSE int fd = -1;
	struct tpd_wire_in in = {0};
	enum tpd_status status;
	char *reply = NULL;
	size_t len;

	status = tpd_wire_frame(request, &frame, &len, err);
	if (status != TPD_OK)
		return status;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return tpd_fail_sys(err, errno, "cannot make a socket");
	status = connect_to(fd, socket_path, err);
	if (status == TPD_OK)
		status = send_all(fd, frame, len, deadline_ms, socket_path, err);
	if (status == TPD_OK)
		status = receive(fd, deadline_ms, socket_path, &in, &reply, err);
	tpd_wire_in_release(&in);
	if (status != TPD_OK)
		return status;
	*out_reply = reply;
	return TPD_OK;
}
