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
#define TRIES 256u        /* equal weights that are looked at for one master: copies of one tensor */

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
	return elements <= PROBE ? 0 : i * (elements - PROBE) / (PROBES - 1);
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
	enum tpd_status status = TPD_OK;

	for (unsigned i = 0; !status && i < PROBES; i++)
		status = tpd_tied_read_as(ties, item, dtype, probe_at(item->elements, i), n, bytes + i * n * width, err);
	if (status)
		return status;
	*out = (struct print){.item = number, .dtype = dtype, .dull = tpd_tied_dull(bytes, PROBES * n, width)};
	tpd_xxh128(bytes, PROBES * n * width, out->digest);
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

/* "module.layers.0.weight" and "master.layers.0.weight": all behind the first dot, or all. */
static bool same_end(const struct tpd_ties *ties, uint32_t a, uint32_t b)
{
	const char *x = tpd_tied_about(ties, &ties->items[a])->name, *y = tpd_tied_about(ties, &ties->items[b])->name;
	const char *dot_x = strchr(x, '.'), *dot_y = strchr(y, '.');

	return strcmp(x, y) == 0 || (dot_x && strcmp(dot_x + 1, y) == 0) || (dot_y && strcmp(x, dot_y + 1) == 0) ||
	       (dot_x && dot_y && strcmp(dot_x + 1, dot_y + 1) == 0);
}

static bool is_half(const struct tpd_tied *item)
{
	return item->dtype == TPD_DTYPE_BF16 || item->dtype == TPD_DTYPE_F16;
}

static enum tpd_status tie_master(struct tpd_ties *ties, uint32_t master, uint32_t weight, struct tpd_err *err)
{
	struct tpd_tied *of = &ties->items[master], *to = &ties->items[weight];

	of->owner = weight;
	to->master = master;
	return tpd_ties_add(ties, of, 0, to, 0, of->elements, TPD_STATE_MASTER, true, err);
}

/* Prints of masters and of weights in one order: equal ones belong together, in their order; dull ones by their names only. */
static enum tpd_status match_prints(struct tpd_ties *ties, const struct print *masters, size_t master_count, const struct print *weights,
				    size_t weight_count, struct tpd_err *err)
{
	size_t w = 0;
	enum tpd_status status = TPD_OK;

	for (size_t m = 0; !status && m < master_count; m++) {
		if (ties->items[masters[m].item].owner != TPD_TIED_NONE)
			continue;
		while (w < weight_count && compare_prints(ties, &weights[w], &masters[m]) < 0)
			w++;
		for (size_t i = w; i < weight_count && i - w < TRIES && compare_prints(ties, &weights[i], &masters[m]) == 0; i++) {
			if (ties->items[weights[i].item].master != TPD_TIED_NONE ||
			    (masters[m].dull && !same_end(ties, masters[m].item, weights[i].item)))
				continue;
			status = tie_master(ties, masters[m].item, weights[i].item, err);
			break;
		}
	}
	return status;
}

static int compare_sizes(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

enum tpd_status tpd_ties_masters(struct tpd_ties *ties, struct tpd_err *err)
{
	TPD_AUTO_FREE struct print *masters = calloc(2 * (size_t)ties->count + 1, sizeof(*masters));
	TPD_AUTO_FREE struct print *weights = calloc(ties->count + 1u, sizeof(*weights));
	TPD_AUTO_FREE uint64_t *sizes = calloc(ties->count + 1u, sizeof(*sizes));
	size_t master_count = 0, weight_count = 0;
	bool has[2] = {false, false};
	enum tpd_status status = masters && weights && sizes ? TPD_OK : tpd_fail_nomem(err);

	for (uint32_t i = 0; !status && i < ties->count; i++) {
		if (!is_half(&ties->items[i]) || ties->items[i].name.kind)
			continue;
		has[ties->items[i].dtype == TPD_DTYPE_F16] = true;
		sizes[weight_count] = ties->items[i].elements;
		status = take_print(ties, i, ties->items[i].dtype, &weights[weight_count++], err);
	}
	if (status || weight_count == 0)
		return status;
	qsort(sizes, weight_count, sizeof(*sizes), compare_sizes);
	for (uint32_t i = 0; !status && i < ties->count; i++) {
		const struct tpd_tied *item = &ties->items[i];

		if (item->dtype != TPD_DTYPE_F32 || item->name.kind ||
		    !bsearch(&item->elements, sizes, weight_count, sizeof(*sizes), compare_sizes))
			continue;
		if (has[0])
			status = take_print(ties, i, TPD_DTYPE_BF16, &masters[master_count++], err);
		if (!status && has[1])
			status = take_print(ties, i, TPD_DTYPE_F16, &masters[master_count++], err);
	}
	if (status)
		return status;
	qsort_r(masters, master_count, sizeof(*masters), compare_for_sort, ties);
	qsort_r(weights, weight_count, sizeof(*weights), compare_for_sort, ties);
	return match_prints(ties, masters, master_count, weights, weight_count, err);
}
