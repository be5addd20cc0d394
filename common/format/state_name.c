/*
 * state_name.c - see state_name.h.
 *
 * A name is parts between dots. The state's key is one whole part, so that "exp_avg_sq" is not taken for "exp_avg" and a layer called
 * "exp_avg_pool" for no state at all. Rejected: patterns for each framework; new ones keep torch.optim's keys and change the rest.
 */
#include "base/tpd.h"

#include "format/state_name.h"

#include <ctype.h>
#include <string.h>

static const char *const keys[TPD_STATE_KINDS] = {
	[TPD_STATE_EXP_AVG] = "exp_avg",
	[TPD_STATE_EXP_AVG_SQ] = "exp_avg_sq",
	[TPD_STATE_MAX_EXP_AVG_SQ] = "max_exp_avg_sq",
	[TPD_STATE_MOMENTUM] = "momentum_buffer",
};

const char *tpd_state_kind_name(enum tpd_state_kind kind)
{
	if (kind == TPD_STATE_MASTER)
		return "master";
	return kind < TPD_STATE_KINDS && keys[kind] ? keys[kind] : "?";
}

static enum tpd_state_kind kind_of(const char *part, size_t length)
{
	for (unsigned kind = 0; kind < TPD_STATE_KINDS; kind++)
		if (keys[kind] && strlen(keys[kind]) == length && memcmp(keys[kind], part, length) == 0)
			return (enum tpd_state_kind)kind;
	return TPD_STATE_NONE;
}

/* The length of name without a chunk's offsets. */
static size_t cut_chunk(const char *name, size_t length)
{
	size_t at = length;

	if (length == 0 || name[length - 1] != ']')
		return length;
	for (at = length - 1; at > 0 && (isdigit((unsigned char)name[at - 1]) || name[at - 1] == ','); at--)
		;
	return at > 0 && at < length - 1 && name[at - 1] == '[' ? at - 1 : length;
}

/* Digits only in the last part, and few enough of them. */
static void find_number(struct tpd_state_name *out)
{
	size_t at = out->length;

	while (at > 0 && isdigit((unsigned char)out->of[at - 1]))
		at--;
	if (at == out->length || out->length - at > 9 || (at > 0 && out->of[at - 1] != '.'))
		return;
	out->numbered = true;
}

void tpd_state_name(const char *name, struct tpd_state_name *out)
{
	size_t all = strlen(name), length = cut_chunk(name, all);

	*out = (struct tpd_state_name){.of = name, .length = length, .chunk = name + length, .chunk_length = all - length};
	for (size_t end = length; end > 0;) { /* the last part that is a key */
		size_t at = end;

		while (at > 0 && name[at - 1] != '.')
			at--;
		out->kind = kind_of(name + at, end - at);
		if (out->kind && end == length) { /* behind the parameter */
			out->length = at ? at - 1 : 0;
			break;
		}
		if (out->kind) { /* before it */
			out->of = name + end + 1;
			out->length = length - end - 1;
			break;
		}
		end = at ? at - 1 : 0;
	}
	if (out->kind)
		find_number(out);
}
