/*
 * effort.c - the words of effort.h.
 */
#include "base/tpd.h"

#include "base/effort.h"

#include <string.h>

static const char *const efforts[] = {[TPD_EFFORT_BALANCED] = "balanced", [TPD_EFFORT_FAST] = "fast", [TPD_EFFORT_MAX] = "max"};
static const char *const depends[] = {
	[TPD_DEPEND_OPTIMIZER] = "optimizer", [TPD_DEPEND_WEIGHTS] = "weights", [TPD_DEPEND_NONE] = "none"};

static bool find_word(const char *const *words, size_t count, const char *text, size_t *out)
{
	for (size_t i = 0; i < count; i++)
		if (strcmp(text, words[i]) == 0) {
			*out = i;
			return true;
		}
	return false;
}

bool tpd_effort_parse(const char *text, enum tpd_effort *out)
{
	size_t i = 0;

	if (!find_word(efforts, TPD_ARRAY_LEN(efforts), text, &i))
		return false;
	*out = (enum tpd_effort)i;
	return true;
}

bool tpd_depend_parse(const char *text, enum tpd_depend *out)
{
	size_t i = 0;

	if (!find_word(depends, TPD_ARRAY_LEN(depends), text, &i))
		return false;
	*out = (enum tpd_depend)i;
	return true;
}
