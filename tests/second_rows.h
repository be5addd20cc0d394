/*
 * second_rows.h - `rows` and `rows-ref` for second_decoder.c. ref: the reference's n bytes, or NULL; x and of: room for 2 n bytes each.
 */
#ifndef TESTS_SECOND_ROWS_H
#define TESTS_SECOND_ROWS_H

#include <stddef.h>
#include <stdint.h>

struct reader;

void second_rows(struct reader *in, unsigned dtype, const uint8_t *ref, uint8_t *out, size_t n, uint8_t *x, uint8_t *of);

#endif
