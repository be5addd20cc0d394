/*
 * layer.c - layer and kind of a tensor, from its name.
 *
 *     model.layers.3.mlp.up_proj.weight      3     model.layers.mlp.up_proj.weight
 *     0.weight                               0     weight
 *     layer3                                 3     layer
 *     lm_head.weight                         -     lm_head.weight
 *     data/12                                -     data/12
 *
 * The layer is the first whole number in the name, wherever it is; of the two separators that it stood between, one
 * goes with it.  data/N is how torch numbers storages inside a file: no layer, and each is a kind of its own.
 */
#include "base/tpd.h"

#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "catalog/sql.h"

static bool is_separator(char c)
{
	return c != '\0' && strchr("./_-:", c);
}

static bool is_storage_key(const char *name)
{
	return strncmp(name, "data/", 5) == 0 && name[5] != '\0' && name[5 + strspn(name + 5, "0123456789")] == '\0';
}

bool tpd_catalog_layer(const char *name, int64_t *out_layer, char *kind)
{
	size_t start = strcspn(name, "0123456789"), len = strspn(name + start, "0123456789"), end = start + len;
	char digits[24];
	uint64_t layer;

	strcpy(kind, name);
	if (len == 0 || len >= sizeof digits || is_storage_key(name))
		return false;
	memcpy(digits, name + start, len);
	digits[len] = '\0';
	if (!tpd_text_parse_u64(digits, &layer) || layer > INT64_MAX)
		return false;
	if (start > 0 && is_separator(name[start - 1]) && (name[end] == '\0' || is_separator(name[end])))
		start--;
	else if (start == 0 && is_separator(name[end]))
		end++;
	strcpy(kind + start, name + end);
	*out_layer = (int64_t)layer;
	return true;
}
