/*
 * second_context.h - the symbols of `context` for second_decoder.c.
 */
#ifndef TESTS_SECOND_CONTEXT_H
#define TESTS_SECOND_CONTEXT_H

#include "second_reader.h"

/* What an element is told by. r1, r2, v1, v2: NULL where there is none. */
struct second_known {
	const uint8_t *p; /* patterns */
	const float *s, *r1, *r2, *v1, *v2;
	size_t n, row;
	unsigned t;
};

/* K(n) into list. */
void second_context(struct reader *in, const struct layout *l, const struct second_known *known, uint8_t *list);

#endif
