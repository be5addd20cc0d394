/*
 * tpd.c - status words, the error value and the cleanup attributes.
 *
 * Every sentence is put together in a buffer of its own before it goes to
 * `err`, since callers may well quote the text that `err` already holds.  A
 * text that is too long is cut, never an error of its own.  Rejected: an error
 * on the heap or in a thread-local (someone would have to free or reset it).
 */
#include "base/tpd.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *tpd_status_name(enum tpd_status status)
{
	switch (status) {
#define TPD_STATUS_X(sym, num, word) \
	case TPD_##sym:              \
		return word;
		TPD_STATUS_LIST(TPD_STATUS_X)
#undef TPD_STATUS_X
	}
	return "unknown";
}

enum tpd_status tpd_fail(struct tpd_err *err, enum tpd_status status, const char *fmt, ...)
{
	char text[TPD_ERR_TEXT];
	va_list args;

	assert(status != TPD_OK);
	if (!err)
		return status;
	va_start(args, fmt);
	vsnprintf(text, sizeof text, fmt, args);
	va_end(args);
	err->status = status;
	err->sys = 0;
	memcpy(err->text, text, sizeof text);
	return status;
}

/* `head: tail` into err; the tail says why, so it is the head that is cut when both do not fit. */
static void set_joined(struct tpd_err *err, const char *head, const char *tail)
{
	char text[TPD_ERR_TEXT];
	size_t tail_len = strlen(tail), room;

	if (tail_len > sizeof text - 3)
		tail_len = sizeof text - 3;
	room = sizeof text - 3 - tail_len;
	snprintf(text, sizeof text, "%.*s: %.*s", (int)room, head, (int)tail_len, tail);
	memcpy(err->text, text, sizeof text);
}

enum tpd_status tpd_fail_sys(struct tpd_err *err, int sys, const char *fmt, ...)
{
	char head[TPD_ERR_TEXT], buf[128];
	va_list args;

	if (!err)
		return TPD_IO;
	va_start(args, fmt);
	vsnprintf(head, sizeof head, fmt, args);
	va_end(args);
	err->status = TPD_IO;
	err->sys = sys;
	set_joined(err, head, strerror_r(sys, buf, sizeof buf)); /* the GNU one: returns the text */
	return TPD_IO;
}

enum tpd_status tpd_err_prefix(struct tpd_err *err, const char *fmt, ...)
{
	char head[TPD_ERR_TEXT], tail[TPD_ERR_TEXT];
	va_list args;

	if (!err)
		return TPD_IO; /* whoever wants the class passes an err */
	assert(err->status != TPD_OK);
	va_start(args, fmt);
	vsnprintf(head, sizeof head, fmt, args);
	va_end(args);
	memcpy(tail, err->text, sizeof tail);
	set_joined(err, head, tail);
	return err->status;
}

enum tpd_status tpd_fail_nomem(struct tpd_err *err)
{
	return tpd_fail(err, TPD_NOMEM, "out of memory");
}

void tpd_auto_free(void *pointer_to_pointer)
{
	void *p;

	memcpy(&p, pointer_to_pointer, sizeof p);
	free(p);
}

void tpd_auto_close(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}
