/*
 * notify.c - sd_notify(3) in one datagram.
 *
 * $WATCHDOG_USEC holds for the process $WATCHDOG_PID only; a child that inherits both must not feed it. An address
 * beginning with '@' is an abstract socket.
 */
#include "base/tpd.h"

#include "daemon/notify.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/text.h"

void tpd_notify_open(struct tpd_notify *notify)
{
	const char *path = getenv("NOTIFY_SOCKET"), *usec = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	uint64_t v;
	size_t len;

	*notify = (struct tpd_notify){.fd = -1};
	if (!path || (path[0] != '/' && path[0] != '@') || strlen(path) >= sizeof address.sun_path)
		return;
	len = strlen(path);
	memcpy(address.sun_path, path, len);
	if (path[0] == '@')
		address.sun_path[0] = 0;
	notify->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (notify->fd < 0)
		return;
	if (connect(notify->fd, (const struct sockaddr *)&address,
		    (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + (path[0] == '/'))) < 0) {
		tpd_notify_close(notify);
		return;
	}
	if (usec && tpd_text_parse_u64(usec, &v) && v >= 1000 && (!pid || strtol(pid, NULL, 10) == (long)getpid()))
		notify->watchdog_ms = v / 1000;
}

void tpd_notify_close(struct tpd_notify *notify)
{
	if (notify->fd >= 0)
		close(notify->fd);
	notify->fd = -1;
}

void tpd_notify_send(const struct tpd_notify *notify, const char *fmt, ...)
{
	char text[1024];
	va_list args;
	int len;

	if (notify->fd < 0)
		return;
	va_start(args, fmt);
	len = vsnprintf(text, sizeof text, fmt, args);
	va_end(args);
	if (len > 0 && send(notify->fd, text, TPD_MIN((size_t)len, sizeof text - 1), MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		return; /* systemd reads it or not; there is nothing else to do */
}
