/*
 * refs_metrics.c - what trainers told of the checkpoints of a run (FORMAT.md section 4, type 4).
 *
 * In the refs and not in the manifest, since the id is the digest of what a checkpoint consists of: the same content,
 * stored again by somebody who knows more of it, stays the same checkpoint. In records of their own and not in the
 * version record, which older readers would call malformed. They are read when somebody asks, not with the versions:
 * most commands do without.
 *
 * All records of the file are laid flat into an array, sorted by id, name and order, and the last of each name is
 * taken. Names are borrowed from the file's bytes until then. Rejected: a set for each id while reading (quadratic in
 * what a hostile file repeats).
 */
#include "base/tpd.h"

#include "store/store.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/internal.h"

static enum tpd_status collect_one(struct tpd_refs_metrics *collect, const struct tpd_refs_metric *metric, struct tpd_err *err)
{
	if (collect->count >= TPD_RUN_METRICS_MAX)
		return TPD_OK;
	if (collect->count == collect->cap) {
		size_t cap = collect->cap ? 2 * collect->cap : 64;
		struct tpd_refs_metric *grown = reallocarray(collect->items, cap, sizeof(*grown));

		if (!grown)
			return tpd_fail_nomem(err);
		collect->items = grown;
		collect->cap = cap;
	}
	collect->items[collect->count] = *metric;
	collect->items[collect->count].order = (uint32_t)collect->count;
	collect->count++;
	return TPD_OK;
}

enum tpd_status tpd_refs_take_metrics(struct tpd_rd *rd, struct tpd_refs_metrics *collect, struct tpd_err *err)
{
	const uint8_t *id = tpd_rd_bytes(rd, sizeof(struct tpd_id));
	enum tpd_status status = TPD_OK;
	unsigned count = 0;

	while (!status && id && !tpd_rd_done(rd)) {
		struct tpd_refs_metric metric = {0};
		uint64_t length = tpd_rd_varint(rd);
		const uint8_t *name = tpd_rd_bytes(rd, length);

		metric.value = tpd_rd_f64(rd);
		if (!name || !tpd_rd_ok(rd) || !isfinite(metric.value) || ++count > TPD_METRICS_MAX ||
		    !tpd_metric_is_name((const char *)name, length))
			return tpd_fail(err, TPD_CORRUPT, "a metric record is malformed");
		memcpy(metric.id.bytes, id, sizeof(metric.id.bytes));
		metric.name = (const char *)name;
		metric.name_length = (uint32_t)length;
		if (collect)
			status = collect_one(collect, &metric, err);
	}
	if (!status && count == 0)
		return tpd_fail(err, TPD_CORRUPT, "a metric record is malformed");
	return status;
}

static int compare_metrics(const void *a, const void *b)
{
	const struct tpd_refs_metric *x = a, *y = b;
	int order = tpd_id_compare(&x->id, &y->id);

	if (order == 0)
		order = memcmp(x->name, y->name, TPD_MIN(x->name_length, y->name_length));
	if (order == 0 && x->name_length != y->name_length)
		return x->name_length < y->name_length ? -1 : 1;
	if (order == 0)
		return x->order < y->order ? -1 : x->order > y->order;
	return order;
}

static size_t count_ids(const struct tpd_refs_metrics *flat)
{
	size_t count = 0;

	for (size_t i = 0; i < flat->count; i++)
		count += i == 0 || !tpd_id_equal(&flat->items[i].id, &flat->items[i - 1].id);
	return count;
}

/* Of equal names the last wins: they come in the order of their records. */
static enum tpd_status group(struct tpd_refs_metrics *flat, struct tpd_run_metrics *out, struct tpd_err *err)
{
	enum tpd_status status = TPD_OK;

	if (flat->count == 0)
		return TPD_OK;
	qsort(flat->items, flat->count, sizeof(*flat->items), compare_metrics);
	out->items = calloc(count_ids(flat), sizeof(*out->items));
	if (!out->items)
		return tpd_fail_nomem(err);
	for (size_t i = 0; !status && i < flat->count; i++) {
		const struct tpd_refs_metric *metric = &flat->items[i];

		if (i == 0 || !tpd_id_equal(&metric->id, &flat->items[i - 1].id))
			out->items[out->count++].id = metric->id;
		status = tpd_metrics_set(&out->items[out->count - 1].metrics, metric->name, metric->name_length, metric->value,
					 err);
	}
	return status;
}

enum tpd_status tpd_store_metrics(struct tpd_store *store, const char *run, struct tpd_run_metrics *out, struct tpd_err *err)
{
	char path[TPD_STORE_NAME_MAX + 8];
	TPD_AUTO_FREE char *escaped = NULL;
	TPD_AUTO_FREE uint8_t *data = NULL;
	struct tpd_run_metrics metrics = {0};
	struct tpd_refs_metrics flat = {0};
	struct tpd_err fault = {0};
	enum tpd_status status = tpd_refs_escape(run, &escaped, &fault);
	size_t len = 0;

	if (!status) {
		snprintf(path, sizeof(path), "refs/%s", escaped);
		status = tpd_refs_read_file(store, path, &data, &len, &fault);
	}
	if (status == TPD_NOT_FOUND || status == TPD_LIMIT)
		return tpd_fail(err, TPD_NOT_FOUND, "there is no run '%s' in store '%s'", run, store->path);
	if (!status)
		status = tpd_refs_parse_metrics(data, len, &flat, &fault);
	if (!status)
		status = group(&flat, &metrics, &fault);
	free(flat.items);
	if (status) {
		tpd_run_metrics_release(&metrics);
		if (err)
			*err = fault;
		return tpd_store_fault(store, status, err);
	}
	*out = metrics;
	return TPD_OK;
}

void tpd_run_metrics_release(struct tpd_run_metrics *metrics)
{
	for (size_t i = 0; i < metrics->count; i++)
		tpd_metrics_release(&metrics->items[i].metrics);
	free(metrics->items);
	*metrics = (struct tpd_run_metrics){0};
}

static int compare_checkpoints(const void *a, const void *b)
{
	const struct tpd_checkpoint_metrics *x = a, *y = b;

	return tpd_id_compare(&x->id, &y->id);
}

const struct tpd_metrics *tpd_run_metrics_of(const struct tpd_run_metrics *metrics, const struct tpd_id *id)
{
	static const struct tpd_metrics none;
	const struct tpd_checkpoint_metrics key = {.id = *id}, *found = NULL;

	if (metrics->count > 0)
		found = bsearch(&key, metrics->items, metrics->count, sizeof(key), compare_checkpoints);
	return found ? &found->metrics : &none;
}

enum tpd_status tpd_store_add_metrics(struct tpd_run_lock *lock, const struct tpd_id *id, const struct tpd_metrics *metrics,
				      struct tpd_err *err)
{
	struct tpd_run_metrics recorded = {0};
	const struct tpd_metrics *known;
	struct tpd_buf body = {0};
	size_t added = 0, fresh = 0;
	enum tpd_status status;

	if (metrics->count == 0)
		return TPD_OK;
	status = tpd_store_metrics(lock->store, lock->run.name, &recorded, err);
	if (status)
		return status;
	known = tpd_run_metrics_of(&recorded, id);
	tpd_buf_put(&body, id->bytes, sizeof(id->bytes));
	for (size_t i = 0; i < metrics->count; i++) {
		const struct tpd_metric *was = tpd_metrics_find(known, metrics->items[i].name);

		if ((was && was->value == metrics->items[i].value) || (!was && known->count + fresh >= TPD_METRICS_MAX))
			continue;
		fresh += !was;
		tpd_buf_str(&body, metrics->items[i].name);
		tpd_buf_f64(&body, metrics->items[i].value);
		added++;
	}
	tpd_run_metrics_release(&recorded);
	if (added > 0)
		status = tpd_refs_append(lock, TPD_REFS_METRIC, &body, err);
	tpd_buf_release(&body);
	return status;
}
