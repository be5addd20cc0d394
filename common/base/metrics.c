/*
 * metrics.c - a small sorted set of names and numbers.
 *
 * A checkpoint has a dozen; an array with a binary search and an insertion is all that it takes. Rejected: a hash table;
 * asking the user for each metric whether more of it is better (RUN@min: and RUN@max: are for what the name does not
 * tell).
 */
#include "base/tpd.h"

#include "base/metrics.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/text.h"

bool tpd_metric_is_name(const char *name, size_t len)
{
	if (len == 0 || len > TPD_METRIC_NAME_MAX)
		return false;
	for (size_t i = 0, n; i < len; i += n) {
		const uint8_t *p = (const uint8_t *)name + i;

		n = tpd_text_utf8(name + i, len - i);
		if (n == 0 || *p < 0x20 || *p == 0x7f || (*p == 0xc2 && p[1] < 0xa0)) /* C0, DEL, C1 */
			return false;
	}
	return true;
}

/* The first item that is not before this name. */
static size_t place_of(const struct tpd_metrics *metrics, const char *name, size_t len, bool *out_there)
{
	size_t low = 0, high = metrics->count;

	*out_there = false;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		const char *other = metrics->items[middle].name;
		int order = strncmp(other, name, len);

		if (order == 0)
			order = other[len] != 0;
		*out_there |= order == 0;
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

enum tpd_status tpd_metrics_set(struct tpd_metrics *metrics, const char *name, size_t len, double value,
				struct tpd_err *err)
{
	struct tpd_metric *grown;
	bool there;
	char *own;
	size_t at;

	if (!isfinite(value) || !tpd_metric_is_name(name, len))
		return TPD_OK;
	at = place_of(metrics, name, len, &there);
	if (there) {
		metrics->items[at].value = value;
		return TPD_OK;
	}
	if (metrics->count >= TPD_METRICS_MAX)
		return TPD_OK;
	own = strndup(name, len);
	grown = own ? reallocarray(metrics->items, metrics->count + 1, sizeof(*grown)) : NULL;
	if (!grown) {
		free(own);
		return tpd_fail_nomem(err);
	}
	metrics->items = grown;
	memmove(grown + at + 1, grown + at, (metrics->count - at) * sizeof(*grown));
	grown[at] = (struct tpd_metric){.name = own, .value = value};
	metrics->count++;
	return TPD_OK;
}

const struct tpd_metric *tpd_metrics_find(const struct tpd_metrics *metrics, const char *name)
{
	bool there;
	size_t at = place_of(metrics, name, strlen(name), &there);

	return there ? &metrics->items[at] : NULL;
}

bool tpd_metrics_equal(const struct tpd_metrics *a, const struct tpd_metrics *b)
{
	if (a->count != b->count)
		return false;
	for (size_t i = 0; i < a->count; i++)
		if (strcmp(a->items[i].name, b->items[i].name) != 0 || a->items[i].value != b->items[i].value)
			return false;
	return true;
}

void tpd_metrics_release(struct tpd_metrics *metrics)
{
	for (size_t i = 0; i < metrics->count; i++)
		free(metrics->items[i].name);
	free(metrics->items);
	*metrics = (struct tpd_metrics){0};
}

static bool is_word_char(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (unsigned char)c >= 0x80;
}

bool tpd_metric_is_lower_better(const char *name)
{
	static const char *const words[] = {"loss", "losses", "perplexity", "ppl", "error", "errors", "err",
					    "wer",  "cer",    "ter",        "eer", "mse",   "rmse",   "mae",
					    "mape", "nll",    "bpb",        "bpc", "bpw",   "entropy", "fid"};
	size_t len = strlen(name);

	if (len >= 4 && strcasecmp(name + len - 4, "loss") == 0)
		return true;
	for (size_t at = 0; at < len;) {
		size_t n = 0;

		while (is_word_char(name[at + n]))
			n++;
		for (size_t w = 0; w < TPD_ARRAY_LEN(words); w++)
			if (strlen(words[w]) == n && strncasecmp(name + at, words[w], n) == 0)
				return true;
		at += n + 1;
	}
	return false;
}
