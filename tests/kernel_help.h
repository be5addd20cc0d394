/*
 * kernel_help.h - for tests of the kernels: all forms that this CPU can run, and memory that is no larger than it is said to be.
 */
#ifndef TESTS_KERNEL_HELP_H
#define TESTS_KERNEL_HELP_H

#include "base/tpd.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "codec/kernels.h"

static const struct tpd_kernels *const *forms; /* the scalar one first */
static size_t form_count;

/* Once, before any test. */
static inline void find_forms(void)
{
	forms = tpd_kernels_all(&form_count);
	for (size_t f = 0; f < form_count; f++)
		printf("%s%s", f ? ", " : "kernels: ", forms[f]->name);
	printf("\n");
}

/* Of its own, so that a sanitizer sees what goes beyond. */
static inline void *memory(size_t size)
{
	void *p = malloc(size ? size : 1);

	ck_assert_ptr_nonnull(p);
	return p;
}

#endif
