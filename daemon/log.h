/*
 * log.h - the daemon's log: one line an event, on stderr.
 *
 * Under systemd (stderr is the journal's stream) each line goes to the journal directly, with its priority and the
 * fields TPDED_RUN= and TPDED_STEP= where it is about a checkpoint; when that fails, to stderr with an "<N>" prefix.
 * Elsewhere lines are plain. Any thread may log.
 */
#ifndef TPD_DAEMON_LOG_H
#define TPD_DAEMON_LOG_H

#include "base/tpd.h"

/* syslog's numbers, which the journal takes as they are. */
enum tpd_log_level { TPD_LOG_ERROR = 3, TPD_LOG_WARNING = 4, TPD_LOG_NOTICE = 5, TPD_LOG_INFO = 6, TPD_LOG_DEBUG = 7 };

/* Before the first line, and before any thread. Lines above `most` are dropped. */
void tpd_log_open(enum tpd_log_level most);
void tpd_log_close(void);
void tpd_log(enum tpd_log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* About a run, or (has_step) about one of its checkpoints. */
void tpd_log_run(enum tpd_log_level level, const char *run, bool has_step, uint64_t step, const char *fmt, ...)
	__attribute__((format(printf, 5, 6)));

#endif
