/*
 * metrics.c - metrics of a checkpoint, by its framework.
 *
 * The daemon knows the framework from its table (daemon/frameworks.c); `tpdectl ingest`, and a job that outlived its
 * daemon, have what was captured and nothing else, so tpd_metrics_of() finds out by that. Rejected: looking into every
 * file (a figure in a file of somebody's own means what nobody knows), and events.out.tfevents (it lies elsewhere, and
 * says nothing of checkpoints).
 */
#include "base/tpd.h"

#include "archive/metrics.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "archive/step.h"
#include "archive/trainer_state.h"
#include "base/text.h"
#include "format/format.h"

static const struct tpd_source_entry *find_file(const struct tpd_source *source, const char *path)
{
	for (size_t i = 0; i < source->count; i++)
		if (source->entries[i].type == TPD_ENTRY_FILE && strcmp(source->entries[i].path, path) == 0)
			return &source->entries[i];
	return NULL;
}

struct reading {
	const struct tpd_source *source;
	const struct tpd_source_entry *entry;
};

/* ctx: a struct reading. */
static enum tpd_status read_entry(void *ctx, void *buf, size_t len, uint64_t offset, struct tpd_err *err)
{
	const struct reading *reading = ctx;
	const struct tpd_source *source = reading->source;
	const struct tpd_source_entry *entry = reading->entry;
	uint8_t *to = buf;

	if (source->read)
		return source->read(source->read_arg, (size_t)(entry - source->entries), buf, len, offset, err);
	while (len > 0) {
		ssize_t n = pread(entry->fd, to, len, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return tpd_fail_sys(err, errno, "cannot read '%s'", entry->path);
		if (n == 0)
			return tpd_fail(err, TPD_CONFLICT, "'%s' became shorter while it was read", entry->path);
		to += n;
		len -= (size_t)n;
		offset += (uint64_t)n;
	}
	return TPD_OK;
}

/* --- the Trainer of transformers --- */

enum tpd_status tpd_metrics_of_trainer(const struct tpd_source *source, struct tpd_metrics *out, struct tpd_err *err)
{
	const struct tpd_source_entry *entry = find_file(source, TPD_TRAINER_STATE);
	struct reading reading = {.source = source, .entry = entry};
	TPD_AUTO_FREE char *text = NULL;
	enum tpd_status status;

	if (!entry || source->kind != TPD_CHECKPOINT_DIR || entry->size == 0 || entry->size > TPD_TRAINER_STATE_MAX)
		return TPD_OK;
	text = malloc((size_t)entry->size);
	if (!text)
		return tpd_fail_nomem(err);
	status = read_entry(&reading, text, (size_t)entry->size, 0, err);
	return status ? status : tpd_trainer_state_metrics(text, (size_t)entry->size, out, err);
}

/* --- names --- */

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* Bytes of the number at s: -12, 0.42, 1e-05; 0: none. */
static size_t number_length(const char *s)
{
	const char *p = s + (*s == '-'), *digits = p;

	while (is_digit(*p))
		p++;
	if (p == digits)
		return 0;
	if (*p == '.' && is_digit(p[1]))
		for (p++; is_digit(*p);)
			p++;
	if (*p == 'e' || *p == 'E') {
		const char *e = p + 1 + (p[1] == '-' || p[1] == '+');

		if (is_digit(*e))
			for (p = e; is_digit(*p);)
				p++;
	}
	return (size_t)(p - s);
}

/* What counts, and says nothing of how good it is. */
static bool is_counter(const char *name, size_t len)
{
	static const char *const names[] = {"epoch", "step", "global_step", "epochs", "steps", "iter", "iteration"};

	for (size_t i = 0; i < TPD_ARRAY_LEN(names); i++)
		if (strlen(names[i]) == len && strncmp(names[i], name, len) == 0)
			return true;
	return false;
}

/* Letters, digits, and what stands in the names of metrics; a letter at least. */
static bool is_plain(const char *name, size_t len)
{
	bool letter = false;

	for (size_t i = 0; i < len; i++) {
		char c = name[i];
		bool alpha = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');

		if (!alpha && !is_digit(c) && !strchr("_./@", c))
			return false;
		letter |= alpha;
	}
	return letter;
}

struct pairs {
	struct tpd_metrics metrics;
	bool counter; /* there was one for epoch or step */
};

/* false: it does not say so unmistakably. What stands in front of the first pair is a prefix. */
static bool read_pairs(const char *stem, struct pairs *out, enum tpd_status *out_status, struct tpd_err *err)
{
	const char *p = stem;

	for (const char *equals; (equals = strchr(p, '=')) != NULL;) {
		const char *name = equals;
		size_t length = number_length(equals + 1), n;
		const char *next = equals + 1 + length;

		while (name > p && name[-1] != '-')
			name--;
		n = (size_t)(equals - name);
		if (!is_plain(name, n) || (p != stem && name != p)) /* "epoch=1-val-loss=0.4": of "loss", or of "val-loss"? */
			return false;
		if (length == 0 && strncmp(next, "nan", 3) != 0 && strncmp(next, "inf", 3) != 0 && strncmp(next, "-inf", 4) != 0)
			return false;
		next += length ? 0 : 3 + (*next == '-');
		if (*next != 0 && *next != '-')
			return false;
		if (is_counter(name, n))
			out->counter = true;
		else if (length > 0)
			*out_status = tpd_metrics_set(&out->metrics, name, n, strtod(equals + 1, NULL), err);
		if (*out_status)
			return false;
		p = next + (*next == '-');
	}
	return true;
}

/* "epoch=3-val", which a metric with a slash in its name makes of the directory. */
static bool begins_name(const char *directory)
{
	const char *dash = strrchr(directory, '-');

	return (strncmp(directory, "epoch=", 6) == 0 || strncmp(directory, "step=", 5) == 0) && dash && dash[1] &&
	       !strchr(dash, '=');
}

/* The name without its extension, with the directory where that begins it; NULL: no memory. */
static char *stem_of(const struct tpd_source *source, bool *out_ckpt)
{
	const char *name = base_name(source->origin);
	TPD_AUTO_FREE char *own = tpd_step_stem(name);
	TPD_AUTO_FREE char *above = strndup(source->origin, (size_t)(name - source->origin) - (name > source->origin));
	const char *directory = above ? base_name(above) : "";
	bool joined = begins_name(directory);
	char *stem = NULL;

	*out_ckpt = tpd_text_has_suffix(name, ".ckpt");
	if (!own)
		own = tpd_step_other_stem(name);
	if (!above || asprintf(&stem, "%s%s%s", joined ? directory : "", joined ? "/" : "", own ? own : name) < 0)
		return NULL;
	return stem;
}

enum tpd_status tpd_metrics_of_name(const struct tpd_source *source, struct tpd_metrics *out, struct tpd_err *err)
{
	bool ckpt;
	TPD_AUTO_FREE char *stem = stem_of(source, &ckpt);
	struct pairs pairs = {0};
	enum tpd_status status = TPD_OK;

	if (!stem)
		return tpd_fail_nomem(err);
	if (read_pairs(stem, &pairs, &status, err) && (ckpt || pairs.counter))
		for (size_t i = 0; !status && i < pairs.metrics.count; i++)
			status = tpd_metrics_set(out, pairs.metrics.items[i].name, strlen(pairs.metrics.items[i].name),
						 pairs.metrics.items[i].value, err);
	tpd_metrics_release(&pairs.metrics);
	return status;
}

/* --- Lightning --- */

static enum tpd_status take_score(void *arg, const char *monitor, size_t length, double value, struct tpd_err *err)
{
	return tpd_metrics_set(arg, monitor, length, value, err);
}

enum tpd_status tpd_metrics_of_lightning(const struct tpd_source *source, struct tpd_metrics *out, struct tpd_err *err)
{
	const struct tpd_source_entry *entry = find_file(source, TPD_STEP_META);
	enum tpd_status status = tpd_metrics_of_name(source, out, err);
	struct reading reading = {.source = source, .entry = entry};

	if (source->kind == TPD_CHECKPOINT_FILE && source->count == 1)
		reading.entry = entry = source->entries;
	if (status || !entry || entry->type != TPD_ENTRY_FILE)
		return status;
	return tpd_format_torch_scores(base_name(source->origin), entry->size, read_entry, &reading, take_score, out, err);
}

/* --- whosever it is --- */

enum tpd_status tpd_metrics_of(const struct tpd_source *source, struct tpd_metrics *out, struct tpd_err *err)
{
	if (source->kind == TPD_CHECKPOINT_DIR && find_file(source, TPD_TRAINER_STATE))
		return tpd_metrics_of_trainer(source, out, err);
	if (tpd_text_has_suffix(source->origin, ".ckpt"))
		return tpd_metrics_of_lightning(source, out, err);
	return tpd_metrics_of_name(source, out, err);
}
