/* second_decoder.h - a second decoder of the chunk format, for tests. It shares no code with the first. */
#ifndef SECOND_DECODER_H
#define SECOND_DECODER_H

#include <stddef.h>
#include <stdint.h>

enum second_status {
	SECOND_OK = 0,
	SECOND_CORRUPT = 1,
	SECOND_UNSUPPORTED = 2,
	SECOND_NOMEM = 3,
};

/*
 * Decodes one chunk payload into exactly out_len bytes at out. `encoding` and `dtype` are the numbers on disk. The
 * reference is only looked at by the encodings that have one; no reference is one of length 0. `out` overlaps nothing.
 * Returns an enum second_status; unless it is SECOND_OK, the content of out is undefined.
 */
int second_decode(unsigned encoding, unsigned dtype, const uint8_t *payload, size_t payload_len, const uint8_t *ref,
		  size_t ref_len, uint8_t *out, size_t out_len);

/*
 * The same with what a prediction is made from: w0, m1, v1, m2, v2, NULL where there is none; each as the reference. inputs may be NULL.
 */
struct second_input {
	const uint8_t *data;
	size_t len;
};
int second_decode_with(unsigned encoding, unsigned dtype, const uint8_t *payload, size_t payload_len, const uint8_t *ref, size_t ref_len,
		       const struct second_input inputs[5], uint8_t *out, size_t out_len);

#endif
