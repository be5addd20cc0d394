/*
 * notify.h - what systemd is told (sd_notify): one datagram to $NOTIFY_SOCKET, no library.
 *
 * Without $NOTIFY_SOCKET every call does nothing. Never blocks. The loop thread only.
 */
#ifndef TPD_DAEMON_NOTIFY_H
#define TPD_DAEMON_NOTIFY_H

#include "base/tpd.h"

struct tpd_notify {
	int fd;               /* connected, or -1 */
	uint64_t watchdog_ms; /* a WATCHDOG=1 is due within each; 0: none is wanted */
};

void tpd_notify_open(struct tpd_notify *notify);
void tpd_notify_close(struct tpd_notify *notify);
/* "READY=1\nSTATUS=..." as sd_notify(3) describes it. */
void tpd_notify_send(const struct tpd_notify *notify, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
