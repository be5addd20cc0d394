/*
 * refs_name.c - published checkpoints that no run's refs mention: what a crash, or the loss of refs, left without a
 * name.
 *
 * To find them all ids in objects/ are listed, and those that any refs file mentions are taken away. That such a file
 * is append-only makes it cheap the second time: what it mentioned once is remembered in the handle. So a handle
 * reads all refs once, and later only when there is an id that it has not met, whoever published it. A run's lock has
 * its own file at hand and does not trust the memory about that one: should it have been lost or cut, its lock finds
 * out. Rejected: reading all refs at every run's lock (with 300 runs an opening that takes each lock in turn made 848
 * 000 calls).
 */
#include "base/tpd.h"

#include "store/store.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/digest.h"
#include "store/internal.h"

#define FEW 8 /* ids that are put in one by one; more are sorted with the others */

/* --- what is known to be mentioned --- */

static uint64_t run_key(const char *run)
{
	uint8_t digest[TPD_XXH_LEN];

	tpd_xxh128(run, strlen(run), digest);
	return tpd_get_u64(digest);
}

static int compare_named(const void *a, const void *b)
{
	const struct tpd_named *x = a, *y = b;

	return tpd_id_compare(&x->id, &y->id);
}

static struct tpd_named *find(const struct tpd_store *store, const struct tpd_id *id)
{
	struct tpd_named key = {.id = *id};

	if (store->named_count == 0)
		return NULL;
	return bsearch(&key, store->named, store->named_count, sizeof(key), compare_named);
}

static void insert(struct tpd_store *store, const struct tpd_named *named)
{
	size_t low = 0, high = store->named_count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (compare_named(&store->named[middle], named) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	memmove(store->named + low + 1, store->named + low, (store->named_count - low) * sizeof(*named));
	store->named[low] = *named;
	store->named_count++;
}

static void insert_many(struct tpd_store *store, const struct tpd_named *named, size_t count)
{
	size_t kept = 0, all = store->named_count + count;

	memcpy(store->named + store->named_count, named, count * sizeof(*named));
	qsort(store->named, all, sizeof(*named), compare_named);
	for (size_t i = 0; i < all; i++)
		if (kept == 0 || !tpd_id_equal(&store->named[kept - 1].id, &store->named[i].id))
			store->named[kept++] = store->named[i];
	store->named_count = kept;
}

static void remember(struct tpd_store *store, const struct tpd_named *named, size_t count)
{
	struct tpd_named *grown;

	if (count == 0)
		return;
	pthread_mutex_lock(&store->named_lock);
	grown = reallocarray(store->named, store->named_count + count, sizeof(*grown));
	if (grown) { /* without memory it is looked up again the next time */
		store->named = grown;
		if (count > FEW)
			insert_many(store, named, count);
		else
			for (size_t i = 0; i < count; i++)
				if (!find(store, &named[i].id))
					insert(store, &named[i]);
	}
	pthread_mutex_unlock(&store->named_lock);
}

void tpd_refs_remember(struct tpd_store *store, const char *run, const struct tpd_id *id)
{
	remember(store, &(struct tpd_named){.id = *id, .run = run_key(run)}, 1);
}

static void forget_all(struct tpd_store *store)
{
	pthread_mutex_lock(&store->named_lock);
	store->named_count = 0;
	pthread_mutex_unlock(&store->named_lock);
}

/* Leave those that are not known to be mentioned, by `own` or by the file of another run; how many. */
static size_t keep_unknown(struct tpd_store *store, const struct tpd_refs *own, struct tpd_id *ids, size_t count)
{
	uint64_t key = own ? run_key(own->run.name) : 0;
	size_t kept = 0;

	pthread_mutex_lock(&store->named_lock);
	for (size_t i = 0; i < count; i++) {
		const struct tpd_named *named = find(store, &ids[i]);

		if (named && (!own || named->run != key))
			continue;
		if (own && own->id_count > 0 &&
		    bsearch(&ids[i], own->ids, own->id_count, sizeof(*ids), tpd_id_compare))
			continue;
		ids[kept++] = ids[i];
	}
	pthread_mutex_unlock(&store->named_lock);
	return kept;
}

/* Every id that a run's refs mention. One run's damaged refs must not stop another: what they mention is not known then. */
static enum tpd_status read_all(struct tpd_store *store, struct tpd_err *err)
{
	struct tpd_buf files = {0}, all = {0};
	enum tpd_status status = tpd_refs_files(store, &files, err);

	for (size_t at = 0; !status && at < files.len; at += strlen((char *)files.data + at) + 1) {
		const char *file = (char *)files.data + at;
		TPD_AUTO_FREE char *run = tpd_refs_unescape(file);
		struct tpd_refs refs = {0};

		if (!run)
			status = tpd_fail_nomem(err);
		else if (tpd_refs_load(store, file, run, &refs, NULL) == TPD_OK)
			for (size_t i = 0; i < refs.id_count; i++) {
				struct tpd_named named = {.id = refs.ids[i], .run = run_key(run)};

				tpd_buf_put(&all, &named, sizeof(named));
			}
		tpd_refs_release(&refs);
	}
	tpd_buf_release(&files);
	if (!status)
		status = tpd_buf_status(&all, err);
	if (!status)
		remember(store, (struct tpd_named *)(void *)all.data, all.len / sizeof(struct tpd_named));
	tpd_buf_release(&all);
	return status;
}

/* --- what is not --- */

enum tpd_status tpd_refs_unnamed(struct tpd_store *store, const struct tpd_refs *own, struct tpd_id **out_ids,
				 size_t *out_count, struct tpd_err *err)
{
	struct tpd_id *ids = NULL;
	size_t count = 0;
	/* Names after objects: what is published meanwhile is not looked for. */
	enum tpd_status status = tpd_object_ids(store, &ids, &count, err);

	if (status)
		return status;
	if (!own)
		forget_all(store);
	count = keep_unknown(store, own, ids, count);
	if (count > 0) {
		status = read_all(store, err);
		count = keep_unknown(store, own, ids, count);
	}
	if (status) {
		free(ids);
		return status;
	}
	*out_ids = ids;
	*out_count = count;
	return TPD_OK;
}

/* Was it stored in this run, or in one below it? A damaged manifest does not say. */
static bool is_of(struct tpd_store *store, const struct tpd_id *id, const char *run)
{
	struct tpd_manifest m = {0};
	size_t len = strlen(run);
	bool is = tpd_store_manifest(store, id, &m, NULL) == TPD_OK && strncmp(m.run, run, len) == 0 &&
		  (m.run[len] == 0 || m.run[len] == '/');

	tpd_manifest_release(&m);
	return is;
}

enum tpd_status tpd_store_unnamed(struct tpd_store *store, const char *run_or_null, uint64_t *out_count, struct tpd_err *err)
{
	TPD_AUTO_FREE struct tpd_id *ids = NULL;
	size_t count = 0;
	uint64_t found = 0;
	enum tpd_status status = tpd_refs_unnamed(store, NULL, &ids, &count, err);

	for (size_t i = 0; !status && i < count; i++)
		found += !run_or_null || is_of(store, &ids[i], run_or_null);
	if (!status)
		*out_count = found;
	return status;
}

struct names {
	char **items;
	size_t count;
};

/* Takes over `name`. */
static enum tpd_status add_name(struct names *names, char *name, struct tpd_err *err)
{
	char **grown = name ? reallocarray(names->items, names->count + 1, sizeof(*grown)) : NULL;

	if (!grown) {
		free(name);
		return tpd_fail_nomem(err);
	}
	names->items = grown;
	grown[names->count++] = name;
	return TPD_OK;
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Each once, sorted. */
static void make_unique(struct names *names)
{
	size_t kept = 0;

	if (names->count > 1)
		qsort(names->items, names->count, sizeof(*names->items), compare_names);
	for (size_t i = 0; i < names->count; i++)
		if (kept == 0 || strcmp(names->items[kept - 1], names->items[i]) != 0)
			names->items[kept++] = names->items[i];
		else
			free(names->items[i]);
	names->count = kept;
}

static enum tpd_status runs_of_unnamed(struct tpd_store *store, struct names *names, struct tpd_err *err)
{
	TPD_AUTO_FREE struct tpd_id *ids = NULL;
	size_t count = 0;
	enum tpd_status status = tpd_refs_unnamed(store, NULL, &ids, &count, err);

	for (size_t i = 0; !status && i < count; i++) {
		struct tpd_manifest m = {0};

		/* A damaged manifest does not say whose it was. */
		if (tpd_store_manifest(store, &ids[i], &m, NULL) == TPD_OK)
			status = add_name(names, strdup(m.run), err);
		tpd_manifest_release(&m);
	}
	return status;
}

static enum tpd_status runs_of_unfinished(struct tpd_store *store, struct names *names, struct tpd_err *err)
{
	struct tpd_unfinished *items = NULL;
	size_t count = 0;
	enum tpd_status status = tpd_store_unfinished(store, &items, &count, err);

	for (size_t i = 0; i < count; i++) {
		if (!status)
			status = add_name(names, items[i].run, err);
		else
			free(items[i].run);
	}
	free(items);
	return status;
}

enum tpd_status tpd_store_unsettled(struct tpd_store *store, char ***out_names, size_t *out_count, struct tpd_err *err)
{
	struct names names = {0};
	enum tpd_status status = runs_of_unnamed(store, &names, err);

	if (!status)
		status = runs_of_unfinished(store, &names, err);
	make_unique(&names);
	if (status) {
		while (names.count > 0)
			free(names.items[--names.count]);
		free(names.items);
		return status;
	}
	*out_names = names.items;
	*out_count = names.count;
	return TPD_OK;
}
