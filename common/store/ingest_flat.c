/*
 * ingest_flat.c - where the weights of the model stand in the optimizer's flat partitions.
 *
 * ZeRO and distributed optimizers keep the F32 weights one behind the other in one tensor, cut where a rank's share ends. The model's
 * own are its rounding (or its copy), one by one or flat as well. So the first elements of every weight are looked for all along the
 * partition, and where they stand the weight is compared as far as it goes.
 *
 *     rank 0  | weight 1      | weight 2 | weight 3: its beg |        ZeRO-1 and 2: what is cut goes on in the next rank
 *     rank 1  |inning | weight 4   | weight 5       | padding|
 *
 *     rank 0  | weight 1: half | weight 2: half | weight 3: half |    ZeRO-3: every weight is cut, and the next rank has the next piece
 *     rank 1  | weight 1: rest | weight 2: rest | weight 3: rest |    at the same place
 *
 * So a partition is also asked whether what one of those before it (with tensor parallelism another model's stand between) ended with,
 * or has at the same place, goes on in it. Once found, samples are enough to see in the next checkpoint that it is still so; what lies
 * between the known runs is looked through again, as zero biases and the ones of norms say nothing before they were trained.
 *
 * Rejected: reading the tables of offsets that frameworks keep (param_slice_mappings, buckets): see ingest_ties.c.
 */
#include "base/tpd.h"

#include "store/ingest_ties.h"

#include <stdlib.h>
#include <string.h>

#define PROBE TPD_TIE_PROBE
#define FLAT_MIN 1024u        /* elements of what may be a partition */
#define SCAN (1u << 16)       /* elements that are read at once */
#define FILTER_BITS 20u
#define COMPARED_MAX 8u       /* elements that are compared, for each that there is: honest files need two */
#define EARLIER 16u           /* partitions that are remembered: ranks that share a model by tensor parallelism, mostly eight */

/* A weight that may stand in a partition, by its first elements. */
struct target {
	uint64_t digest; /* of the first PROBE */
	uint32_t item;
};

/* Elements of a partition that are those of a weight from `first` on. */
struct run {
	uint64_t at, length, first;
	uint32_t item;
};

struct runs {
	struct run *items;
	size_t count, cap;
};

struct flat {
	struct tpd_ties *ties;
	enum tpd_dtype dtype;   /* of the weights */
	unsigned width;
	struct target *targets; /* by digest */
	size_t count;
	uint64_t *filter;       /* a bit for each first eight bytes */
	uint8_t *window, *mine, *theirs; /* SCAN elements each, with room to round in */
	uint64_t compared, elements;     /* so far; of all */
	const struct tpd_tie *known;     /* what the checkpoint before knew of this partition */
	uint32_t known_count;
	struct runs found;               /* of this partition */
	struct {
		struct runs runs;
		uint64_t elements;
	} earlier[EARLIER];              /* of those before it, of the same name: a ring */
	size_t earlier_count;            /* so many were put into it */
};

static enum tpd_status add_run(struct runs *runs, struct run run, struct tpd_err *err)
{
	if (runs->count == runs->cap) {
		size_t cap = runs->cap ? 2 * runs->cap : 64;
		struct run *more = reallocarray(runs->items, cap, sizeof(*more));

		if (!more)
			return tpd_fail_nomem(err);
		runs->items = more;
		runs->cap = cap;
	}
	runs->items[runs->count++] = run;
	return TPD_OK;
}

/* Elements [at, end) of a partition: what is looked through. */
struct stretch {
	const struct tpd_tied *part;
	uint64_t at, end;
};

/* How many elements from `at` on are the weight's from `first` on. */
static enum tpd_status measure(struct flat *flat, const struct stretch *in, uint64_t at, const struct tpd_tied *weight, uint64_t first,
			       uint64_t *out_length, struct tpd_err *err)
{
	uint64_t length = 0, most;
	enum tpd_status status = TPD_OK;

	*out_length = 0;
	if (at >= in->end || first >= weight->elements)
		return TPD_OK;
	most = TPD_MIN(in->end - at, weight->elements - first);
	while (!status && length < most) {
		/* A first look at a few: what only begins alike is found out without reading much. */
		size_t n = (size_t)TPD_MIN(most - length, (uint64_t)(length ? SCAN : PROBE)), same = 0;

		if (flat->compared > COMPARED_MAX * flat->elements)
			return TPD_OK;
		flat->compared += n;
		status = tpd_tied_read_as(flat->ties, in->part, flat->dtype, at + length, n, flat->mine, err);
		if (!status)
			status = tpd_tied_read(flat->ties, weight, first + length, n, flat->theirs, err);
		if (!status)
			status = tpd_ingest_progress(flat->ties->job, 0, err);
		if (status)
			return status;
		if (memcmp(flat->mine, flat->theirs, n * flat->width) == 0) {
			length += n;
			continue;
		}
		while (memcmp(flat->mine + same * flat->width, flat->theirs + same * flat->width, flat->width) == 0)
			same++;
		length += same;
		break;
	}
	*out_length = length;
	return status;
}

/* --- the weights' first elements --- */

static size_t filter_place(const uint8_t *bytes)
{
	uint64_t word;

	memcpy(&word, bytes, sizeof(word));
	return (size_t)(word * 0x9e3779b97f4a7c15u >> (64 - FILTER_BITS));
}

static uint64_t digest_of(const struct flat *flat, const uint8_t *elements)
{
	uint8_t digest[TPD_XXH_LEN];
	uint64_t word;

	tpd_xxh128(elements, (size_t)PROBE * flat->width, digest);
	memcpy(&word, digest, sizeof(word));
	return word;
}

static int compare_targets(const void *a, const void *b)
{
	const struct target *x = a, *y = b;

	if (x->digest != y->digest)
		return x->digest < y->digest ? -1 : 1;
	return (x->item > y->item) - (x->item < y->item);
}

static bool may_stand_in_one(const struct flat *flat, const struct tpd_tied *item)
{
	return item->dtype == flat->dtype && item->name.kind == TPD_STATE_NONE && item->master == TPD_TIED_NONE && !item->owns &&
	       item->owner == TPD_TIED_NONE && item->elements >= PROBE;
}

static enum tpd_status find_targets(struct flat *flat, struct tpd_err *err)
{
	struct tpd_ties *ties = flat->ties;
	enum tpd_status status = TPD_OK;

	flat->count = 0;
	memset(flat->filter, 0, (1u << FILTER_BITS) / 8);
	for (uint32_t i = 0; !status && i < ties->count; i++) {
		const struct tpd_tied *item = &ties->items[i];

		if (!may_stand_in_one(flat, item))
			continue;
		status = tpd_tied_read(ties, item, 0, PROBE, flat->theirs, err);
		if (status || tpd_tied_dull(flat->theirs, PROBE, flat->width)) /* it would stand everywhere */
			continue;
		flat->targets[flat->count++] = (struct target){digest_of(flat, flat->theirs), i};
		flat->filter[filter_place(flat->theirs) / 64] |= 1ull << (filter_place(flat->theirs) % 64);
	}
	if (flat->count > 1)
		qsort(flat->targets, flat->count, sizeof(*flat->targets), compare_targets);
	return status;
}

/* Of all weights that begin with these PROBE elements the one that goes on the longest; run->length 0: none. */
static enum tpd_status find_here(struct flat *flat, const struct stretch *in, uint64_t at, const uint8_t *elements, struct run *run,
				 struct tpd_err *err)
{
	uint64_t digest = digest_of(flat, elements);
	size_t low = 0, high = flat->count;
	enum tpd_status status = TPD_OK;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (flat->targets[middle].digest < digest)
			low = middle + 1;
		else
			high = middle;
	}
	for (; !status && low < flat->count && flat->targets[low].digest == digest; low++) {
		uint64_t length = 0;

		status = measure(flat, in, at, &flat->ties->items[flat->targets[low].item], 0, &length, err);
		if (length > run->length)
			*run = (struct run){at, length, 0, flat->targets[low].item};
	}
	return status;
}

/* The first of these runs that is not before `at`. */
static size_t run_from(const struct runs *runs, uint64_t at)
{
	size_t low = 0, high = runs->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (runs->items[middle].at < at)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Does what an earlier partition has at this place, or ended with, go on here? */
static enum tpd_status find_rest(struct flat *flat, const struct stretch *in, uint64_t at, struct run *run, struct tpd_err *err)
{
	enum tpd_status status = TPD_OK;

	for (size_t e = 0; !status && e < TPD_MIN(flat->earlier_count, (size_t)EARLIER); e++) {
		const struct runs *runs = &flat->earlier[e].runs;
		const struct run *last = runs->count ? &runs->items[runs->count - 1] : NULL;
		size_t here = run_from(runs, at);

		for (unsigned way = 0; way < 2 && !status; way++) {
			const struct run *from = NULL;
			uint64_t length = 0;

			if (way == 0 && at == 0 && last && last->at + last->length == flat->earlier[e].elements)
				from = last;
			else if (way == 1 && here < runs->count && runs->items[here].at == at)
				from = &runs->items[here];
			if (from)
				status = measure(flat, in, at, &flat->ties->items[from->item], from->first + from->length, &length, err);
			if (from && length > run->length)
				*run = (struct run){at, length, from->first + from->length, from->item};
		}
	}
	return status;
}

/* --- one partition --- */

/* The next place from `at` on where something begins in an earlier one; UINT64_MAX: none. */
static uint64_t next_place(const struct flat *flat, uint64_t at)
{
	uint64_t place = UINT64_MAX;

	if (at == 0)
		return 0;
	for (size_t e = 0; e < TPD_MIN(flat->earlier_count, (size_t)EARLIER); e++) {
		const struct runs *runs = &flat->earlier[e].runs;
		size_t here = run_from(runs, at);

		if (here < runs->count)
			place = TPD_MIN(place, runs->items[here].at);
	}
	return place;
}

static enum tpd_status scan(struct flat *flat, const struct stretch *in, struct tpd_err *err)
{
	enum tpd_status status = TPD_OK;
	uint64_t at = in->at;

	while (!status && at + PROBE <= in->end && flat->compared <= COMPARED_MAX * flat->elements) {
		size_t n = (size_t)TPD_MIN(in->end - at, (uint64_t)SCAN), i;
		uint64_t place = next_place(flat, at);
		struct run run = {0};

		status = tpd_tied_read_as(flat->ties, in->part, flat->dtype, at, n, flat->window, err);
		if (!status)
			status = tpd_ingest_progress(flat->ties->job, 0, err);
		for (i = 0; !status && i + PROBE <= n; i++) {
			const uint8_t *here = flat->window + i * flat->width;
			size_t bit = filter_place(here);

			if (at + i == place) {
				status = find_rest(flat, in, at + i, &run, err);
				place = next_place(flat, at + i + 1);
			}
			if (!status && (flat->filter[bit / 64] >> (bit % 64) & 1))
				status = find_here(flat, in, at + i, here, &run, err);
			if (status || run.length >= PROBE)
				break;
			run = (struct run){0};
		}
		if (!status && run.length >= PROBE) {
			status = add_run(&flat->found, run, err);
			at = run.at + run.length;
		} else {
			at += i;
		}
	}
	return status;
}

/* What the checkpoint before knew of this partition, if samples say that it is still so. */
static enum tpd_status take_over(struct flat *flat, const struct tpd_tied *part, struct tpd_err *err)
{
	const struct tpd_tie *ties = flat->known;
	bool all = true;
	enum tpd_status status = TPD_OK;

	for (uint32_t t = 0; !status && all && t < flat->known_count; t++) {
		uint32_t weight = tpd_ties_from_w1(flat->ties, &ties[t].owner);
		struct run run = {ties[t].state.first, ties[t].elements, ties[t].owner.first, weight};

		all = ties[t].kind == TPD_STATE_MASTER && weight != TPD_TIED_NONE && may_stand_in_one(flat, &flat->ties->items[weight]) &&
		      run.length >= PROBE;
		for (unsigned i = 0; !status && all && i < 3; i++) { /* its first, middle and last elements */
			uint64_t at = i * (run.length - PROBE) / 2;

			status = tpd_tied_read_as(flat->ties, part, flat->dtype, run.at + at, PROBE, flat->mine, err);
			if (!status)
				status = tpd_tied_read(flat->ties, &flat->ties->items[weight], run.first + at, PROBE, flat->theirs, err);
			all = !status && memcmp(flat->mine, flat->theirs, (size_t)PROBE * flat->width) == 0;
		}
		if (!status && all)
			status = add_run(&flat->found, run, err);
	}
	if (!all)
		flat->found.count = 0;
	return status;
}

static int compare_runs(const void *a, const void *b)
{
	const struct run *x = a, *y = b;

	return (x->at > y->at) - (x->at < y->at);
}

/* What lies before, between and behind the runs that are known. */
static enum tpd_status scan_gaps(struct flat *flat, const struct tpd_tied *part, struct tpd_err *err)
{
	size_t known = flat->found.count;
	uint64_t at = 0;
	enum tpd_status status = TPD_OK;

	for (size_t i = 0; !status && i <= known; i++) {
		struct stretch gap = {part, at, part->elements};

		if (i < known) {
			gap.end = flat->found.items[i].at;
			at = gap.end + flat->found.items[i].length;
		}
		status = scan(flat, &gap, err);
	}
	if (flat->found.count > 1)
		qsort(flat->found.items, flat->found.count, sizeof(*flat->found.items), compare_runs);
	return status;
}

static enum tpd_status work_partition(struct flat *flat, uint32_t number, struct tpd_err *err)
{
	struct tpd_ties *ties = flat->ties;
	const struct tpd_tied *part = &ties->items[number];
	struct runs oldest;
	enum tpd_status status = take_over(flat, part, err);

	if (!status)
		status = scan_gaps(flat, part, err);
	for (size_t i = 0; !status && i < flat->found.count; i++) {
		const struct run *run = &flat->found.items[i];

		ties->items[number].owner = run->item;
		status = tpd_ties_add(ties, part, run->at, &ties->items[run->item], run->first, run->length, TPD_STATE_MASTER, true, err);
	}
	oldest = flat->earlier[flat->earlier_count % EARLIER].runs;
	flat->earlier[flat->earlier_count % EARLIER].runs = flat->found;
	flat->earlier[flat->earlier_count++ % EARLIER].elements = part->elements;
	flat->found = oldest;
	flat->found.count = 0;
	return status;
}

/* What type the weights have that the checkpoint before knew in it; BYTES: it knew none. */
static enum tpd_dtype known_type(const struct flat *flat)
{
	uint32_t weight = flat->known ? tpd_ties_from_w1(flat->ties, &flat->known->owner) : TPD_TIED_NONE;

	return weight == TPD_TIED_NONE ? TPD_DTYPE_BYTES : flat->ties->items[weight].dtype;
}

/* --- all of them --- */

/* Partitions of one group stand one behind the other, in the order of the ranks. */
static int compare_partitions(const void *a, const void *b, void *context)
{
	const struct tpd_ties *ties = context;
	const struct tpd_tied *x = &ties->items[*(const uint32_t *)a], *y = &ties->items[*(const uint32_t *)b];
	int order = strcmp(tpd_tied_about(ties, x)->name, tpd_tied_about(ties, y)->name);

	if (order)
		return order;
	return (x->place > y->place) - (x->place < y->place);
}

static enum tpd_status work_type(struct flat *flat, enum tpd_dtype dtype, const uint32_t *parts, uint32_t count, struct tpd_err *err)
{
	const struct tpd_ties *ties = flat->ties;
	const char *name = NULL;
	enum tpd_status status;

	flat->dtype = dtype;
	flat->width = tpd_dtype_width(dtype);
	status = find_targets(flat, err);
	for (uint32_t i = 0; !status && flat->count > 0 && i < count; i++) {
		const struct tpd_tied *part = &ties->items[parts[i]];
		enum tpd_dtype known;

		flat->known = tpd_ties_in_w1(ties, part, &flat->known_count);
		known = known_type(flat);
		if (part->owner != TPD_TIED_NONE || (known != TPD_DTYPE_BYTES && known != dtype))
			continue;
		if (!name || strcmp(name, tpd_tied_about(ties, part)->name) != 0) /* another group of parameters */
			flat->earlier_count = 0;
		name = tpd_tied_about(ties, part)->name;
		status = work_partition(flat, parts[i], err);
	}
	return status;
}

enum tpd_status tpd_ties_flat(struct tpd_ties *ties, struct tpd_err *err)
{
	static const enum tpd_dtype types[] = {TPD_DTYPE_BF16, TPD_DTYPE_F16, TPD_DTYPE_F32};
	struct flat flat = {.ties = ties};
	TPD_AUTO_FREE uint32_t *parts = calloc(ties->count + 1u, sizeof(*parts));
	uint32_t count = 0;
	enum tpd_status status = TPD_OK;

	for (uint32_t i = 0; parts && i < ties->count; i++) {
		const struct tpd_tied *item = &ties->items[i];

		flat.elements += item->elements;
		if (item->dtype == TPD_DTYPE_F32 && item->name.kind == TPD_STATE_NONE && item->owns && item->owner == TPD_TIED_NONE &&
		    item->elements >= FLAT_MIN && tpd_tied_about(ties, item)->ndim <= 1)
			parts[count++] = i;
	}
	if (parts && count == 0)
		return TPD_OK;
	flat.targets = calloc(ties->count + 1u, sizeof(*flat.targets));
	flat.filter = calloc((1u << FILTER_BITS) / 64, sizeof(*flat.filter));
	flat.window = malloc((size_t)SCAN * 6);
	flat.mine = malloc((size_t)SCAN * 6);
	flat.theirs = malloc((size_t)SCAN * 6);
	if (!parts || !flat.targets || !flat.filter || !flat.window || !flat.mine || !flat.theirs)
		status = tpd_fail_nomem(err);
	if (!status)
		qsort_r(parts, count, sizeof(*parts), compare_partitions, ties);
	for (size_t i = 0; !status && i < TPD_ARRAY_LEN(types); i++)
		status = work_type(&flat, types[i], parts, count, err);
	free(flat.targets);
	free(flat.filter);
	free(flat.window);
	free(flat.mine);
	free(flat.theirs);
	for (size_t e = 0; e < EARLIER; e++)
		free(flat.earlier[e].runs.items);
	free(flat.found.items);
	return status;
}
