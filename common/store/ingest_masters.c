/*
 * ingest_masters.c - which F32 tensor is the master copy of which weight of the model.
 *
 * Mixed precision keeps weights twice: the optimizer's in F32 and the model's in BF16 or F16, which is its rounding, bit for bit. So
 * values decide: of tensors of one size those belong together whose samples, rounded, are equal. A tensor with one value all along (the
 * ones of a new norm) says nothing; there the names must agree too. Partitions that hold many weights: ingest_flat.c.
 */
#include "base/tpd.h"

#include "codec/rounding.h"
#include "store/ingest_ties.h"

#include <stdlib.h>
#include <string.h>

#define PROBES 8u         /* of a tensor, evenly from its first to its last elements */
#define PROBE TPD_TIE_PROBE

enum tpd_status tpd_tied_read_as(const struct tpd_ties *ties, const struct tpd_tied *item, enum tpd_dtype dtype, uint64_t first, size_t n,
				 void *out, struct tpd_err *err)
{
	uint8_t *bytes = out;
	enum tpd_status status;

	if (item->dtype == dtype)
		return tpd_tied_read(ties, item, first, n, out, err);
	/* Read where the last one's bytes end, so that none is written over before it was read. */
	status = tpd_tied_read(ties, item, first, n, bytes + 2 * n, err);
	for (size_t i = 0; !status && i < n; i++) {
		uint32_t bits;
		uint16_t half;

		memcpy(&bits, bytes + 2 * n + 4 * i, 4);
		half = dtype == TPD_DTYPE_BF16 ? tpd_round_bf16(bits) : tpd_round_f16(bits);
		memcpy(bytes + 2 * i, &half, 2);
	}
	return status;
}

bool tpd_tied_dull(const uint8_t *elements, size_t n, unsigned width)
{
	return n < 2 || memcmp(elements, elements + width, (n - 1) * width) == 0;
}

/* Where probe i begins. */
static uint64_t probe_at(uint64_t elements, unsigned i)
{
	return i == 0 ? 0 : i * (elements - PROBE) / (PROBES - 1);
}

/* --- tensors of one size --- */

struct print {
	uint32_t item;
	enum tpd_dtype dtype; /* as which it was looked at */
	uint8_t digest[TPD_XXH_LEN];
	bool dull;            /* one value all along: says nothing */
};

static enum tpd_status take_print(const struct tpd_ties *ties, uint32_t number, enum tpd_dtype dtype, struct print *out,
				  struct tpd_err *err)
{
	const struct tpd_tied *item = &ties->items[number];
	uint8_t bytes[PROBES * PROBE * 2 + PROBE * 4]; /* and room to round in */
	unsigned width = tpd_dtype_width(dtype);
	size_t n = (size_t)TPD_MIN(item->elements, (uint64_t)PROBE);
	unsigned probes = item->elements > PROBE ? PROBES : 1;
	enum tpd_status status = TPD_OK;

	for (unsigned i = 0; !status && i < probes; i++)
		status = tpd_tied_read_as(ties, item, dtype, probe_at(item->elements, i), n, bytes + i * n * width, err);
	if (status)
		return status;
	*out = (struct print){.item = number, .dtype = dtype, .dull = tpd_tied_dull(bytes, probes * n, width)};
	tpd_xxh128(bytes, probes * n * width, out->digest);
	return tpd_ingest_progress(ties->job, 0, err);
}

static int compare_prints(const struct tpd_ties *ties, const struct print *x, const struct print *y)
{
	uint64_t of_x = ties->items[x->item].elements, of_y = ties->items[y->item].elements;

	if (of_x != of_y)
		return of_x < of_y ? -1 : 1;
	if (x->dtype != y->dtype)
		return x->dtype < y->dtype ? -1 : 1;
	return memcmp(x->digest, y->digest, sizeof(x->digest));
}

static int compare_for_sort(const void *a, const void *b, void *context)
{
	const struct tpd_ties *ties = context;
	const struct print *x = a, *y = b;
	int order = compare_prints(ties, x, y);

	if (order)
		return order;
	return ties->items[x->item].place < ties->items[y->item].place ? -1 : 1;
}

/* "layers.0.weight" of "module.layers.0.weight": what is left when the first part is a prefix; all of it when there is one part only. */
static const char *behind_prefix(const char *name)
{
	const char *dot = strchr(name, '.');

	return dot && strchr(dot + 1, '.') ? dot + 1 : name;
}

static const char *whole_name(const char *name)
{
	return name;
}

static bool is_half(const struct tpd_tied *item)
{
	return item->dtype == TPD_DTYPE_BF16 || item->dtype == TPD_DTYPE_F16;
}

static enum tpd_status tie_master(struct tpd_ties *ties, uint32_t master, uint32_t weight, bool checked, struct tpd_err *err)
{
	struct tpd_tied *of = &ties->items[master], *to = &ties->items[weight];

	of->owner = weight;
	to->master = master;
	return tpd_ties_add(ties, of, 0, to, 0, of->elements, TPD_STATE_MASTER, checked, err);
}

/* What of a group still has no partner, for the next attempt. */
static size_t still_free(const struct tpd_ties *ties, struct print *prints, size_t count, bool masters)
{
	size_t left = 0;

	for (size_t i = 0; i < count; i++)
		if ((masters ? ties->items[prints[i].item].owner : ties->items[prints[i].item].master) == TPD_TIED_NONE)
			prints[left++] = prints[i];
	return left;
}

struct naming {
	const struct tpd_ties *ties;
	const char *(*part)(const char *name);
};

static int compare_naming(const void *a, const void *b, void *context)
{
	const struct naming *naming = context;
	const struct print *x = a, *y = b;
	int order = strcmp(naming->part(tpd_tied_about(naming->ties, &naming->ties->items[x->item])->name),
			   naming->part(tpd_tied_about(naming->ties, &naming->ties->items[y->item])->name));

	if (order)
		return order;
	return naming->ties->items[x->item].place < naming->ties->items[y->item].place ? -1 : 1;
}

/* Of equal prints that say nothing, those of one name; only the name says so. */
static enum tpd_status match_names(struct tpd_ties *ties, struct print *masters, size_t *master_count, struct print *weights,
				   size_t *weight_count, const char *(*part)(const char *name), struct tpd_err *err)
{
	struct naming naming = {ties, part};
	enum tpd_status status = TPD_OK;

	qsort_r(masters, *master_count, sizeof(*masters), compare_naming, &naming);
	qsort_r(weights, *weight_count, sizeof(*weights), compare_naming, &naming);
	for (size_t m = 0, w = 0; !status && m < *master_count && w < *weight_count;) {
		int order = strcmp(part(tpd_tied_about(ties, &ties->items[masters[m].item])->name),
				   part(tpd_tied_about(ties, &ties->items[weights[w].item])->name));

		if (order == 0)
			status = tie_master(ties, masters[m].item, weights[w].item, false, err);
		m += order <= 0;
		w += order >= 0;
	}
	*master_count = still_free(ties, masters, *master_count, true);
	*weight_count = still_free(ties, weights, *weight_count, false);
	return status;
}

/* Masters and weights of one print: in their order, or by their names. */
static enum tpd_status match_group(struct tpd_ties *ties, struct print *masters, size_t master_count, struct print *weights,
				   size_t weight_count, struct tpd_err *err)
{
	enum tpd_status status = TPD_OK;

	master_count = still_free(ties, masters, master_count, true);
	weight_count = still_free(ties, weights, weight_count, false);
	if (master_count == 0 || weight_count == 0)
		return TPD_OK;
	if (masters[0].dull) {
		status = match_names(ties, masters, &master_count, weights, &weight_count, whole_name, err);
		return status ? status : match_names(ties, masters, &master_count, weights, &weight_count, behind_prefix, err);
	}
	for (size_t i = 0; !status && i < TPD_MIN(master_count, weight_count); i++)
		status = tie_master(ties, masters[i].item, weights[i].item, true, err);
	return status;
}

/* Prints of masters and of weights in one order: group by group. */
static enum tpd_status match_prints(struct tpd_ties *ties, struct print *masters, size_t master_count, struct print *weights,
				    size_t weight_count, struct tpd_err *err)
{
	enum tpd_status status = TPD_OK;

	for (size_t m = 0, w = 0; !status && m < master_count && w < weight_count;) {
		int order = compare_prints(ties, &masters[m], &weights[w]);
		size_t masters_end = m + 1, weights_end = w + 1;

		while (masters_end < master_count && compare_prints(ties, &masters[m], &masters[masters_end]) == 0)
			masters_end++;
		while (weights_end < weight_count && compare_prints(ties, &weights[w], &weights[weights_end]) == 0)
			weights_end++;
		if (order == 0)
			status = match_group(ties, masters + m, masters_end - m, weights + w, weights_end - w, err);
		m = order <= 0 ? masters_end : m;
		w = order >= 0 ? weights_end : w;
	}
	return status;
}

static int compare_sizes(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* Sizes of the tensors that may be masters (F32), or weights of one (BF16, F16), ascending. */
static size_t list_sizes(const struct tpd_ties *ties, bool masters, uint64_t *sizes)
{
	size_t count = 0;

	for (uint32_t i = 0; i < ties->count; i++)
		if (ties->items[i].name.kind == TPD_STATE_NONE &&
		    (masters ? ties->items[i].dtype == TPD_DTYPE_F32 : is_half(&ties->items[i])))
			sizes[count++] = ties->items[i].elements;
	if (count > 1)
		qsort(sizes, count, sizeof(*sizes), compare_sizes);
	return count;
}

static bool has_size(const uint64_t *sizes, size_t count, const struct tpd_tied *item)
{
	return count > 0 && bsearch(&item->elements, sizes, count, sizeof(*sizes), compare_sizes) != NULL;
}

enum tpd_status tpd_ties_masters(struct tpd_ties *ties, struct tpd_err *err)
{
	TPD_AUTO_FREE struct print *masters = calloc(2 * (size_t)ties->count + 1, sizeof(*masters));
	TPD_AUTO_FREE struct print *weights = calloc(ties->count + 1u, sizeof(*weights));
	TPD_AUTO_FREE uint64_t *master_sizes = calloc(ties->count + 1u, sizeof(*master_sizes));
	TPD_AUTO_FREE uint64_t *weight_sizes = calloc(ties->count + 1u, sizeof(*weight_sizes));
	size_t master_count = 0, weight_count = 0, master_size_count, weight_size_count;
	bool has[2] = {false, false};
	enum tpd_status status = TPD_OK;

	if (!masters || !weights || !master_sizes || !weight_sizes)
		return tpd_fail_nomem(err);
	master_size_count = list_sizes(ties, true, master_sizes);
	weight_size_count = list_sizes(ties, false, weight_sizes);
	for (uint32_t i = 0; !status && i < ties->count; i++) {
		const struct tpd_tied *item = &ties->items[i];

		if (!is_half(item) || item->name.kind || !has_size(master_sizes, master_size_count, item))
			continue;
		has[item->dtype == TPD_DTYPE_F16] = true;
		status = take_print(ties, i, item->dtype, &weights[weight_count++], err);
	}
	for (uint32_t i = 0; !status && weight_count > 0 && i < ties->count; i++) {
		const struct tpd_tied *item = &ties->items[i];

		if (item->dtype != TPD_DTYPE_F32 || item->name.kind || !has_size(weight_sizes, weight_size_count, item))
			continue;
		if (has[0])
			status = take_print(ties, i, TPD_DTYPE_BF16, &masters[master_count++], err);
		if (!status && has[1])
			status = take_print(ties, i, TPD_DTYPE_F16, &masters[master_count++], err);
	}
	if (status || weight_count == 0 || master_count == 0)
		return status;
	qsort_r(masters, master_count, sizeof(*masters), compare_for_sort, ties);
	qsort_r(weights, weight_count, sizeof(*weights), compare_for_sort, ties);
	return match_prints(ties, masters, master_count, weights, weight_count, err);
}
