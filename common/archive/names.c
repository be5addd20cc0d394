/*
 * names.c - RUN@STEP, RUN@STEP~VERSION, RUN@latest, RUN@best:METRIC and id prefixes, from the store's refs alone.
 *
 * The best is looked for among the versions that have a name, later steps first where two are equal, and what was found
 * must have a manifest that can be read: of a run of a thousand that is one manifest, not a thousand.
 */
#include "base/tpd.h"

#include "archive/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/bytes.h"
#include "base/text.h"

#define PREFIX_MIN 8u

struct list {
	struct tpd_archive_name *items;
	size_t count, cap;
};

static enum tpd_status list_add(struct list *list, const char *run, const struct tpd_version *version, struct tpd_err *err)
{
	struct tpd_archive_name *item;

	if (list->count == list->cap) {
		size_t cap = list->cap ? 2 * list->cap : 32;
		struct tpd_archive_name *grown = realloc(list->items, cap * sizeof(*grown));

		if (!grown)
			return tpd_fail_nomem(err);
		list->items = grown;
		list->cap = cap;
	}
	item = &list->items[list->count++];
	snprintf(item->run, sizeof(item->run), "%s", run);
	item->step = version->step;
	item->version = version->version;
	item->id = version->id;
	return TPD_OK;
}

static int compare_names(const void *a, const void *b)
{
	const struct tpd_archive_name *x = a, *y = b;
	int order = strcmp(x->run, y->run);

	if (order != 0)
		return order;
	if (x->step != y->step)
		return x->step < y->step ? -1 : 1;
	return x->version < y->version ? -1 : x->version > y->version;
}

static enum tpd_status add_run(struct tpd_archive *archive, const char *run, struct list *list, struct tpd_err *err)
{
	struct tpd_run versions = {0};
	enum tpd_status status = tpd_store_run_read(archive->store, run, &versions, err);

	for (size_t v = 0; !status && v < versions.count; v++)
		if (!versions.versions[v].forgotten)
			status = list_add(list, run, &versions.versions[v], err);
	tpd_run_release(&versions);
	return status;
}

static bool is_below(const char *run, const char *above_or_null)
{
	size_t len = above_or_null ? strlen(above_or_null) : 0;

	return !above_or_null || (strncmp(run, above_or_null, len) == 0 && run[len] == '/');
}

static void sort(struct list *list)
{
	if (list->count > 1)
		qsort(list->items, list->count, sizeof(*list->items), compare_names);
}

/* Every version of the runs below a name, or of all. */
static enum tpd_status add_below(struct tpd_archive *archive, const char *above_or_null, struct list *list,
				 struct tpd_err *err)
{
	char **names = NULL;
	size_t count = 0;
	enum tpd_status status = tpd_store_runs(archive->store, &names, &count, err);

	for (size_t i = 0; i < count; i++) {
		struct tpd_err fault = {0};

		if (!status && is_below(names[i], above_or_null) &&
		    (status = add_run(archive, names[i], list, &fault)) != TPD_OK) {
			if (tpd_archive_is_local(&fault)) /* hides no other run; check_runs tells of it */
				status = TPD_OK;
			else if (err)
				*err = fault;
		}
		free(names[i]);
	}
	free(names);
	sort(list);
	return status;
}

enum tpd_status tpd_archive_check_runs(struct tpd_archive *archive, const char *name_or_null, struct tpd_err *err)
{
	char **names = NULL;
	size_t count = 0, bad = 0;
	struct tpd_err first = {0};
	enum tpd_status status = tpd_store_runs(archive->store, &names, &count, err);

	if (status)
		return status;
	for (size_t i = 0; i < count; i++) {
		struct tpd_run run = {0};
		struct tpd_err fault = {0};

		status = TPD_OK;
		if (is_below(names[i], name_or_null) || strcmp(names[i], name_or_null) == 0)
			status = tpd_store_run_read(archive->store, names[i], &run, &fault);
		if (status && status != TPD_NOT_FOUND && bad++ == 0) {
			first = fault;
			tpd_err_prefix(&first, "run '%s' cannot be read", names[i]);
		}
		tpd_run_release(&run);
		free(names[i]);
	}
	free(names);
	if (bad == 0)
		return TPD_OK;
	if (bad > 1)
		tpd_err_prefix(&first, "%zu runs cannot be read; the first", bad);
	if (err)
		*err = first;
	return first.status;
}

enum tpd_status tpd_archive_check_names(struct tpd_archive *archive, const char *name_or_null, uint64_t *out_unnamed,
					struct tpd_err *err)
{
	const char *of = name_or_null ? " of run '" : "", *name = name_or_null ? name_or_null : "", *end = name_or_null ? "'" : "";
	enum tpd_status status = tpd_store_unnamed(archive->store, name_or_null, out_unnamed, err);

	if (!status && *out_unnamed > 0) { /* a writer may be between publishing and naming */
		nanosleep(&(struct timespec){.tv_sec = 2}, NULL);
		status = tpd_store_unnamed(archive->store, name_or_null, out_unnamed, err);
	}
	if (status || *out_unnamed == 0)
		return status;
	return tpd_fail(err, TPD_CORRUPT, "%llu checkpoint%s%s%s%s in the store that no run names: refs are damaged or lost, "
			"'tpdectl rebuild-catalog' repairs them", (unsigned long long)*out_unnamed, *out_unnamed == 1 ? "" : "s", of,
			name, end);
}

/* Has it one, or can that not be told? A first ingest that failed leaves a run without any. */
static bool has_checkpoint(struct tpd_archive *archive, const char *run)
{
	struct tpd_run versions = {0};
	bool has = tpd_store_run_read(archive->store, run, &versions, NULL) != TPD_OK;

	for (size_t v = 0; !has && v < versions.count; v++)
		has = !versions.versions[v].forgotten;
	tpd_run_release(&versions);
	return has;
}

static enum tpd_status no_run(struct tpd_archive *archive, const char *run, struct tpd_err *err)
{
	char **names = NULL;
	size_t count = 0, others = 0;
	uint64_t unnamed = 0;
	bool known = false;
	struct tpd_buf buf = {0};
	enum tpd_status status = tpd_archive_check_names(archive, run, &unnamed, err);

	if (!status)
		status = tpd_store_runs(archive->store, &names, &count, err);
	if (status)
		return status;
	for (size_t i = 0; i < count; i++) {
		bool same = strcmp(names[i], run) == 0;

		known |= same;
		if (!same && others <= 8 && has_checkpoint(archive, names[i]) && others++ < 8)
			tpd_buf_printf(&buf, "%s%s", others > 1 ? ", " : "", names[i]);
		free(names[i]);
	}
	free(names);
	tpd_buf_u8(&buf, 0);
	if (known)
		status = tpd_fail(err, TPD_NOT_FOUND, "run '%s' has no checkpoint yet", run);
	else if (others == 0 || buf.failed)
		status = tpd_fail(err, TPD_NOT_FOUND, "no run '%s': the store is empty", run);
	else
		status = tpd_fail(err, TPD_NOT_FOUND, "no run '%s'; there is %s%s", run, (const char *)buf.data,
				  others > 8 ? ", ..." : "");
	tpd_buf_release(&buf);
	return status;
}

static enum tpd_status no_step(const struct list *list, const char *run, const char *step, struct tpd_err *err)
{
	struct tpd_buf buf = {0};
	size_t shown = 0;
	enum tpd_status status;

	for (size_t i = 0; i < list->count; i++)
		if ((i == 0 || list->items[i].step != list->items[i - 1].step) && shown++ < 12)
			tpd_buf_printf(&buf, "%s%llu", shown > 1 ? ", " : "", (unsigned long long)list->items[i].step);
	tpd_buf_u8(&buf, 0);
	status = tpd_fail(err, TPD_NOT_FOUND, "run '%s' has no checkpoint '%s'; it has %s%s", run, step,
			  shown && !buf.failed ? (const char *)buf.data : "none", shown > 12 ? ", ..." : "");
	tpd_buf_release(&buf);
	return status;
}

static bool is_prefix(const char *name)
{
	size_t n = strspn(name, "0123456789abcdef");

	return name[n] == '\0' && n >= PREFIX_MIN && n <= 2 * TPD_SHA256_LEN;
}

static enum tpd_status by_prefix(struct tpd_archive *archive, const char *prefix, struct tpd_archive_name *out, bool *out_found,
				 struct tpd_err *err)
{
	struct list list = {0};
	size_t hits = 0;
	enum tpd_status status = add_below(archive, NULL, &list, err);

	for (size_t i = 0; !status && i < list.count; i++) {
		char hex[TPD_ID_HEX];

		tpd_id_hex(&list.items[i].id, hex);
		if (strncmp(hex, prefix, strlen(prefix)) != 0)
			continue;
		if (hits > 0 && tpd_id_equal(&list.items[i].id, &out->id))
			continue;
		*out = list.items[i];
		hits++;
	}
	free(list.items);
	if (!status && hits == 0) /* it may be one of a run that cannot be read */
		status = tpd_archive_check_runs(archive, NULL, err);
	*out_found = hits > 0;
	if (!status && hits > 1)
		status = tpd_fail(err, TPD_NOT_FOUND, "id '%s' is not unique", prefix);
	return status;
}

/* Items of one run that "STEP", "STEP~N" or "latest" covers: [*out_first, *out_first + *out_count) of the sorted list. */
static bool cover(const struct list *list, const char *step_text, size_t *out_first, size_t *out_count)
{
	char digits[32];
	const char *tilde = strchr(step_text, '~');
	size_t len = tilde ? (size_t)(tilde - step_text) : strlen(step_text);
	uint64_t step, version = 0;

	*out_count = 0;
	if (strcmp(step_text, "latest") == 0) {
		*out_first = list->count - (list->count > 0);
		*out_count = list->count > 0;
		return true;
	}
	if (len >= sizeof(digits))
		return false;
	memcpy(digits, step_text, len);
	digits[len] = '\0';
	if (!tpd_text_parse_u64(digits, &step) || (tilde && (!tpd_text_parse_u64(tilde + 1, &version) || version == 0)))
		return false;
	for (size_t i = 0; i < list->count; i++) {
		if (list->items[i].step != step || (version && list->items[i].version != version))
			continue;
		if ((*out_count)++ == 0)
			*out_first = i;
	}
	return true;
}

/* --- the best by a metric --- */

enum sense { BY_NAME, LEAST, MOST };

/* "best:METRIC" and its relatives. false: something else. */
static bool is_best(const char *step_text, enum sense *out_sense, const char **out_metric)
{
	static const struct {
		const char *word;
		enum sense sense;
	} words[] = {{"best:", BY_NAME}, {"min:", LEAST}, {"max:", MOST}};

	for (size_t i = 0; i < TPD_ARRAY_LEN(words); i++)
		if (strncmp(step_text, words[i].word, strlen(words[i].word)) == 0) {
			*out_sense = words[i].sense;
			*out_metric = step_text + strlen(words[i].word);
			return true;
		}
	return false;
}

/* Names of all metrics of the versions in the list, as far as a set holds; how many checkpoints each has is its value. */
static enum tpd_status known_metrics(const struct list *list, const struct tpd_run_metrics *metrics, struct tpd_metrics *out,
				     struct tpd_err *err)
{
	enum tpd_status status = TPD_OK;

	for (size_t i = 0; i < list->count; i++) {
		const struct tpd_metrics *own = tpd_run_metrics_of(metrics, &list->items[i].id);

		for (size_t m = 0; !status && m < own->count; m++) {
			const char *name = own->items[m].name;
			const struct tpd_metric *known = tpd_metrics_find(out, name);

			status = tpd_metrics_set(out, name, strlen(name), known ? known->value + 1 : 1, err);
		}
	}
	return status;
}

/* Those that have the asked one in them, or lie in it, stand first: "loss" is not "eval_loss", but may be meant. */
static enum tpd_status no_metric(const struct list *list, const struct tpd_run_metrics *metrics, const char *run,
				 const char *metric, struct tpd_err *err)
{
	struct tpd_metrics known = {0};
	struct tpd_buf buf = {0};
	size_t shown = 0;
	enum tpd_status status = known_metrics(list, metrics, &known, err);

	for (int similar = 1; similar >= 0; similar--)
		for (size_t i = 0; i < known.count; i++) {
			const char *name = known.items[i].name;

			if ((strcasestr(name, metric) || strcasestr(metric, name)) == similar && shown++ < 12)
				tpd_buf_printf(&buf, "%s%s", shown > 1 ? ", " : "", name);
		}
	tpd_buf_u8(&buf, 0);
	if (!status && shown == 0)
		status = tpd_fail(err, TPD_NOT_FOUND, "run '%s' has no metric '%s': none is known of its checkpoints", run,
				  metric);
	else if (!status)
		status = tpd_fail(err, TPD_NOT_FOUND, "run '%s' has no metric '%s'; it has %s%s", run, metric,
				  buf.failed ? "others" : (const char *)buf.data, shown > 12 ? ", ..." : "");
	tpd_buf_release(&buf);
	tpd_metrics_release(&known);
	return status;
}

/* Its manifest can be read. Damage and what is not there are its own affair; *out_fault: what was found. */
static enum tpd_status is_whole(struct tpd_archive *archive, const struct tpd_id *id, bool *out_whole, struct tpd_err *out_fault)
{
	struct tpd_manifest m = {0};
	struct tpd_err fault = {0};
	enum tpd_status status = tpd_store_manifest(archive->store, id, &m, &fault);

	*out_whole = status == TPD_OK;
	if (!status)
		tpd_manifest_release(&m);
	else
		*out_fault = fault;
	return status && tpd_archive_is_local(&fault) ? TPD_OK : status;
}

/* The best item of a sorted list; dead: those that are out; false: none is left that has the metric. */
static bool find_best(const struct list *list, const struct tpd_run_metrics *metrics, const char *metric, bool least,
		      const bool *dead, size_t *out_at)
{
	double best = 0;
	bool found = false;

	for (size_t i = 0; i < list->count; i++) {
		const struct tpd_metric *own = tpd_metrics_find(tpd_run_metrics_of(metrics, &list->items[i].id), metric);

		if (!own || dead[i] || (found && (least ? own->value > best : own->value < best)))
			continue;
		best = own->value; /* of equals the last, which is of the latest step */
		*out_at = i;
		found = true;
	}
	return found;
}

static enum tpd_status best_of(struct tpd_archive *archive, const struct list *list, const char *run, enum sense sense,
			       const char *metric, size_t *out_at, struct tpd_err *err)
{
	TPD_AUTO_FREE bool *dead = calloc(list->count, sizeof(*dead));
	bool least = sense == LEAST || (sense == BY_NAME && tpd_metric_is_lower_better(metric)), whole = false;
	struct tpd_run_metrics metrics = {0};
	struct tpd_err fault = {0};
	enum tpd_status status;

	if (!dead)
		return tpd_fail_nomem(err);
	status = tpd_store_metrics(archive->store, run, &metrics, err);
	while (!status && !whole && find_best(list, &metrics, metric, least, dead, out_at)) {
		status = is_whole(archive, &list->items[*out_at].id, &whole, &fault);
		dead[*out_at] = !whole;
	}
	if (!status && !whole && fault.status)
		status = tpd_fail(err, TPD_CORRUPT, "every checkpoint of run '%s' with a metric '%s' is damaged; see 'tpdectl verify'",
				  run, metric);
	else if (!status && !whole)
		status = no_metric(list, &metrics, run, metric, err);
	else if (status && fault.status && err)
		*err = fault;
	tpd_run_metrics_release(&metrics);
	return status;
}

/* Where a name's RUN ends: no run has a '@', but metrics have (recall@10). NULL: it is RUN alone. */
static const char *find_at(const char *name)
{
	const char *first = strchr(name, '@'), *metric;
	enum sense sense;

	return first && is_best(first + 1, &sense, &metric) ? first : strrchr(name, '@');
}

static enum tpd_status lookup(struct tpd_archive *archive, const char *name, struct list *list, size_t *out_first,
			      size_t *out_count, struct tpd_err *err)
{
	const char *at = find_at(name), *metric;
	enum sense sense;
	TPD_AUTO_FREE char *run = at ? strndup(name, (size_t)(at - name)) : strdup(name);
	enum tpd_status status;

	if (!run)
		return tpd_fail_nomem(err);
	if (!tpd_text_is_run_name(run))
		return tpd_fail(err, TPD_USAGE, "'%s' is not a name like RUN@STEP", name);
	status = add_run(archive, run, list, err);
	if (status && status != TPD_NOT_FOUND)
		return status;
	sort(list);
	if (!at) /* a watch of several runs has none of its own name */
		status = add_below(archive, run, list, err);
	if (status && status != TPD_NOT_FOUND)
		return status;
	*out_first = 0;
	*out_count = list->count;
	if (list->count == 0) /* only a first ingest that failed */
		return no_run(archive, run, err);
	if (!at)
		return TPD_OK;
	if (is_best(at + 1, &sense, &metric) && *metric) {
		*out_count = 1;
		return best_of(archive, list, run, sense, metric, out_first, err);
	}
	if (!cover(list, at + 1, out_first, out_count))
		return tpd_fail(err, TPD_USAGE,
				"'%s' is not a name like RUN@STEP, RUN@STEP~VERSION, RUN@latest or RUN@best:METRIC", name);
	return *out_count > 0 ? TPD_OK : no_step(list, run, at + 1, err);
}

enum tpd_status tpd_archive_resolve(struct tpd_archive *archive, const char *name, struct tpd_archive_name *out,
				    struct tpd_err *err)
{
	struct list list = {0};
	size_t first = 0, count = 0;
	enum tpd_status status;

	if (!strchr(name, '@')) {
		bool found = false;

		if (!is_prefix(name))
			return tpd_fail(err, TPD_USAGE, "'%s' is neither a name like RUN@STEP nor the first %u or more digits (0-9, a-f) of an id",
					name, PREFIX_MIN);
		status = by_prefix(archive, name, out, &found, err);
		if (!status && !found)
			status = tpd_fail(err, TPD_NOT_FOUND, "no checkpoint has an id that begins with '%s'", name);
		return status;
	}
	status = lookup(archive, name, &list, &first, &count, err);
	if (!status)
		*out = list.items[first + count - 1]; /* without ~VERSION: the newest */
	free(list.items);
	return status;
}

enum tpd_status tpd_archive_select(struct tpd_archive *archive, const char *name_or_null, struct tpd_archive_name **out,
				   size_t *out_count, struct tpd_err *err)
{
	struct list list = {0};
	size_t first = 0, count;
	enum tpd_status status;

	if (!name_or_null) {
		status = add_below(archive, NULL, &list, err);
		count = list.count;
	} else {
		bool found = false;
		struct tpd_archive_name one;

		status = TPD_OK;
		count = 0;
		if (is_prefix(name_or_null))
			status = by_prefix(archive, name_or_null, &one, &found, err);
		if (!status && found) {
			list.items = malloc(sizeof(one));
			if (!list.items)
				return tpd_fail_nomem(err);
			list.items[0] = one;
			count = 1;
		} else if (!status) {
			status = lookup(archive, name_or_null, &list, &first, &count, err);
		}
	}
	if (status) {
		free(list.items);
		return status;
	}
	if (first > 0)
		memmove(list.items, list.items + first, count * sizeof(*list.items));
	*out = list.items;
	*out_count = count;
	return TPD_OK;
}
