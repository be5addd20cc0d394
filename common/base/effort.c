/*
 * effort.c - the words of effort.h.
 */
#include "base/tpd.h"

#include "base/effort.h"

#include <string.h>

static const char *const efforts[] = {[TPD_EFFORT_BALANCED] = "balanced", [TPD_EFFORT_FAST] = "fast", [TPD_EFFORT_MAX] = "max"};
static const char *const depends[] = {
	[TPD_DEPEND_OPTIMIZER] = "optimizer", [TPD_DEPEND_WEIGHTS] = "weights", [TPD_DEPEND_NONE] = "none"};

bool tpd_effort_parse(const char *text, enum tpd_effort *out)
{
	for (size_t i = 0; i < TPD_ARRAY_LEN(efforts); i++)
		if (strcmp(text, efforts[i]) == 0) {
			*out = (enum tpd_effort)i;
			return true;
		}
	return false;
}

bool tpd_depend_parse(const char *text, enum tpd_depend *out)
{
	for (size_t i = 0; i < TPD_ARRAY_LEN(depends); i++)
		if (strcmp(text, depends[i]) == 0) {
			*out = (enum tpd_depend)i;
			return true;
		}
	return false;
}
