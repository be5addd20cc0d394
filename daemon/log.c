/*
 * log.c - lines for people and for the journal.
 *
 * A line is put together in a buffer of its own and leaves by one system call, so that lines of several threads never
 * mix. The journal's native protocol is one datagram of FIELD=value lines; it needs no library. A value that holds a
 * newline would need its length in binary; names of files can hold one, and what commands a terminal, so controls and
 * ill-formed UTF-8 become '?'. Rejected: syslog() (blocks, loses fields), libsystemd.
 */
#include "base/tpd.h"

#include "daemon/log.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/text.h"

#define LINE 2048
#define JOURNAL_SOCKET "/run/systemd/journal/socket"

/* Written by tpd_log_open() and tpd_log_close() only, while there is one thread. */
static struct {
	enum tpd_log_level most;
	bool prefix; /* "<N>" in front: stderr is the journal's stream */
	int journal; /* connected datagram socket, or -1 */
} logger = {.most = TPD_LOG_INFO, .journal = -1};

/* $JOURNAL_STREAM is "DEVICE:INODE" of the stream that systemd gave us; a shell may have redirected stderr since. */
static bool stderr_is_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long long device, inode;
	struct stat st;

	return stream && sscanf(stream, "%llu:%llu", &device, &inode) == 2 && fstat(STDERR_FILENO, &st) == 0 &&
		st.st_dev == device && st.st_ino == inode;
}

void tpd_log_open(enum tpd_log_level most)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = JOURNAL_SOCKET};
	int fd;

	logger.most = most;
	logger.prefix = stderr_is_journal();
	if (!logger.prefix)
		return;
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof address) < 0) {
		close(fd);
		fd = -1;
	}
	logger.journal = fd;
}

void tpd_log_close(void)
{
	if (logger.journal >= 0)
		close(logger.journal);
	logger.journal = -1;
}

static void write_line(enum tpd_log_level level, const char *run, bool has_step, uint64_t step, char *text)
{
	char line[LINE + 512];
	int len;

	tpd_text_scrub(text);
	if (logger.journal >= 0) {
		len = snprintf(line, sizeof line, "MESSAGE=%s\nPRIORITY=%d\nSYSLOG_IDENTIFIER=tpded\n", text,
			       (int)level);
		if (run)
			len += snprintf(line + len, sizeof line - (size_t)len, "TPDED_RUN=%s\n", run);
		if (run && has_step)
			len += snprintf(line + len, sizeof line - (size_t)len, "TPDED_STEP=%llu\n",
					(unsigned long long)step);
		/* Never waits: a journal that is stuck must not stop the loop. */
		if (send(logger.journal, line, (size_t)len, MSG_DONTWAIT | MSG_NOSIGNAL) == len)
			return;
	}
	if (logger.prefix)
		len = snprintf(line, sizeof line, "<%d>%s\n", (int)level, text);
	else
		len = snprintf(line, sizeof line, "tpded: %s%s\n",
			       level <= TPD_LOG_ERROR             ? "error: "
				       : level == TPD_LOG_WARNING ? "warning: "
								  : "",
			       text);
	if (write(STDERR_FILENO, line, (size_t)len) < 0)
		return; /* there is nobody left to tell */
}

void tpd_log(enum tpd_log_level level, const char *fmt, ...)
{
	char text[LINE];
	va_list args;

	if (level > logger.most)
		return;
	va_start(args, fmt);
	vsnprintf(text, sizeof text, fmt, args);
	va_end(args);
	write_line(level, NULL, false, 0, text);
}

void tpd_log_run(enum tpd_log_level level, const char *run, bool has_step, uint64_t step, const char *fmt, ...)
{
	char text[LINE];
	va_list args;

	if (level > logger.most)
		return;
	va_start(args, fmt);
	vsnprintf(text, sizeof text, fmt, args);
	va_end(args);
	write_line(level, run, has_step, step, text);
}
