/*
 * wire.h - the control socket's messages: one JSON object a message, each behind a u32 (little-endian) of its length, at most
 * TPD_WIRE_MAX. A client sends {"command": "status"}, the daemon answers {"ok": true, ...} or {"ok": false, "error": "..."}; the
 * fields are listed in README.md. A connection may carry several requests, one after the other.
 */
#ifndef TPD_WIRE_WIRE_H
#define TPD_WIRE_WIRE_H

#include "base/tpd.h"

#define TPD_WIRE_MAX (1u << 20)

/* Client: one request, one reply (fresh, zero-terminated). TPD_NOT_FOUND: nobody listens at the socket; TPD_BUSY: no answer in time. */
enum tpd_status tpd_wire_call(const char *socket_path, const char *request, int64_t timeout_ms, char **out_reply,
			      struct tpd_err *err);

/* Framing for both ends, over any byte stream. Feed bytes; take messages out. */
struct tpd_wire_in {
	uint8_t *data; /* owned */
	size_t len, cap;
};
void tpd_wire_in_release(struct tpd_wire_in *in);
/* TPD_LIMIT: a message above TPD_WIRE_MAX: close the connection. */
enum tpd_status tpd_wire_in_feed(struct tpd_wire_in *in, const void *data, size_t len, struct tpd_err *err);
/* A complete message as fresh zero-terminated text in *out_message, or NULL when there is none yet. */
enum tpd_status tpd_wire_in_take(struct tpd_wire_in *in, char **out_message, struct tpd_err *err);
/* The frame of a message: 4 + len bytes in fresh memory. */
enum tpd_status tpd_wire_frame(const char *message, uint8_t **out, size_t *out_len, struct tpd_err *err);

#endif
