/*
 * second_wide.h - `grid` of F64, `integers` and `integers-ref` for second_decoder.c. out holds p, or zeros where there is none.
 */
#ifndef TESTS_SECOND_WIDE_H
#define TESTS_SECOND_WIDE_H

#include <stddef.h>
#include <stdint.h>

struct reader;

/* list: room for n symbols; ts: for 2 n bytes. */
void second_grid64(struct reader *in, uint8_t *out, size_t n, uint8_t *list, uint8_t *ts);
/* width: bytes of an element; left: those behind the last one; bytes: room for n of them. */
void second_integers(struct reader *in, unsigned width, uint8_t *out, size_t n, size_t left, uint8_t *bytes);

#endif
