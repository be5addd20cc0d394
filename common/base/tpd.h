/*
 * tpd.h - what every file of the project includes first: language set-up,
 * the status codes, the error value and the cleanup attributes.
 *
 * Convention for every fallible function of the project
 *
 *     enum tpd_status tpd_module_verb(inputs..., outputs..., struct tpd_err *err);
 *
 * It returns TPD_OK (0) or a negative class.  `err` may be NULL; on failure it
 * is filled with the class, the errno that caused it (0 if none) and one whole
 * sentence fit to be printed as it is ("cannot rename 'a' to 'b': No space left
 * on device").  On success `err` is untouched.  Outputs are named out_* and are
 * written on success only, unless a header says otherwise.
 *
 * Names of lifetime: init/release (the caller owns the struct), new/free (the
 * heap), open/close (files and what stands for them).
 */
#ifndef TPD_BASE_TPD_H
#define TPD_BASE_TPD_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1 /* O_TMPFILE, renameat2, F_OFD_SETLK */
#endif
#define _FILE_OFFSET_BITS 64

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__FAST_MATH__)
#error "tpded needs strict IEEE 754 arithmetic: do not build it with -ffast-math"
#endif

#define TPD_VERSION "0.1.0"

/*
 * The classes of failure.  X(symbol, number, word).  Numbers are part of the
 * interface between the programs (--json prints the word); never reuse one.
 */
#define TPD_STATUS_LIST(X)                                                     \
	X(OK, 0, "ok")                                                         \
	X(IO, -1, "io")                       /* the system said no; errno is set */  \
	X(CORRUPT, -2, "corrupt")             /* bytes are not what they must be */   \
	X(UNSUPPORTED, -3, "unsupported")     /* a newer version, an unknown id */    \
	X(MISSING_BASE, -4, "missing-base")   /* a reference that is not there */     \
	X(NOT_FOUND, -5, "not-found")         /* no such run, checkpoint, file */     \
	X(BUSY, -6, "busy")                   /* somebody else holds the lock */      \
	X(CONFLICT, -7, "conflict")           /* it exists, or changed underway */    \
	X(LIMIT, -8, "limit")                 /* larger than a named bound */         \
	X(NOMEM, -9, "no-memory")                                              \
	X(USAGE, -10, "usage")                /* the caller, or a configuration */    \
	X(CANCELLED, -11, "cancelled")        /* stopped on request */

enum tpd_status {
#define TPD_STATUS_X(sym, num, word) TPD_##sym = (num),
	TPD_STATUS_LIST(TPD_STATUS_X)
#undef TPD_STATUS_X
};

/* The word of a status ("corrupt"), never NULL. */
const char *tpd_status_name(enum tpd_status status);

#define TPD_ERR_TEXT 512

struct tpd_err {
	enum tpd_status status; /* TPD_OK while nothing failed */
	int sys;                /* errno, or 0 */
	char text[TPD_ERR_TEXT];
};

/*
 * Fill `err` (NULL allowed) and return `status`, so that a failure is one line:
 *     return tpd_fail(err, TPD_CORRUPT, "manifest of '%s': bad magic", name);
 */
enum tpd_status tpd_fail(struct tpd_err *err, enum tpd_status status, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* The same for a system call: class TPD_IO, ": strerror(sys)" is appended. */
enum tpd_status tpd_fail_sys(struct tpd_err *err, int sys, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Put "what: " before the text that `err` holds; returns its status. */
enum tpd_status tpd_err_prefix(struct tpd_err *err, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* "out of memory" */
enum tpd_status tpd_fail_nomem(struct tpd_err *err);

/* Cleanup attributes.  TPD_AUTO_FREE char *p = ...; TPD_AUTO_CLOSE int fd = -1; */
void tpd_auto_free(void *pointer_to_pointer);
void tpd_auto_close(int *fd);
#define TPD_AUTO_FREE __attribute__((cleanup(tpd_auto_free)))
#define TPD_AUTO_CLOSE __attribute__((cleanup(tpd_auto_close)))

#define TPD_UNUSED __attribute__((unused))
#define TPD_MIN(a, b) ((a) < (b) ? (a) : (b))
#define TPD_MAX(a, b) ((a) > (b) ? (a) : (b))
#define TPD_ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

/* Checked arithmetic: true when the exact result does not fit. */
#define TPD_ADD_OVERFLOW(a, b, out) __builtin_add_overflow((a), (b), (out))
#define TPD_MUL_OVERFLOW(a, b, out) __builtin_mul_overflow((a), (b), (out))

#endif
