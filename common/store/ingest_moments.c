/*
 * ingest_moments.c - which tensor an optimizer's exp_avg (or momentum_buffer) belongs to.
 *
 * Guesses, the best first: the name (ingest_tie_names.c); what the checkpoint before was sure of; and among tensors of one shape ("a
 * class") the order, when there are as many states as tensors. Then the values (ingest_signs.c) confirm it, and where names do not
 * settle it they decide: of all pairs of a class those that fit best go first.
 *
 * Rejected: the order of HF Trainer's parameter groups (weights with decay, then those without): within a class it is the order that
 * we have; a full assignment problem: with the right pairs tens of sigma away from the others, the largest first is the same.
 */
#include "base/tpd.h"

#include "store/ingest_ties.h"

#include <stdlib.h>
#include <string.h>

#define SIGMA 6.0                  /* see ingest_signs.c */
#define CLASS_BITS (1ull << 27)    /* of all sign vectors of a class: 16 MiB */
#define SIGNS_MIN 4096u            /* elements that are looked at, where there are as many */
#define SEARCH_WORDS (1ull << 26)  /* 64 signs of one pair each, in a checkpoint: about a second */
#define KEPT 8u                    /* pairs of one state; where more fit, signs tell nothing apart */
#define CHECKED 64u                /* pairs that are checked at once: 4 MiB of signs */

struct pair {
	uint32_t state, owner; /* places in the class */
	double sigma;
};

/* States and tensors of one shape. */
struct class {
	struct tpd_ties *ties;
	const uint32_t *states, *owners; /* items, in natural order */
	uint32_t state_count, owner_count;
	/* while it is searched */
	size_t words;     /* of a vector; each has two, positive and negative, one behind the other */
	uint64_t *bits;   /* of the states, then of the owners */
	struct pair *pairs;
	size_t pair_count;
};

/* --- companions: exp_avg_sq and its exp_avg --- */

/*
 * By whose state it is, and by chunk. Numbers mean something in one file only; a parameter with a name may have its states in several
 * (DCP and megatron-core spread them over the ranks).
 */
static int compare_groups(const struct tpd_tied *x, const struct tpd_tied *y)
{
	int order;

	if (x->name.numbered != y->name.numbered)
		return x->name.numbered ? 1 : -1;
	if (x->name.numbered && x->file != y->file)
		return x->file < y->file ? -1 : 1;
	if (x->name.length != y->name.length)
		return x->name.length < y->name.length ? -1 : 1;
	order = memcmp(x->name.of, y->name.of, x->name.length);
	if (order)
		return order;
	if (x->name.chunk_length != y->name.chunk_length)
		return x->name.chunk_length < y->name.chunk_length ? -1 : 1;
	return memcmp(x->name.chunk, y->name.chunk, x->name.chunk_length);
}

static int compare_states(const void *a, const void *b, void *context)
{
	const struct tpd_tied *items = context, *x = &items[*(const uint32_t *)a], *y = &items[*(const uint32_t *)b];
	int order = compare_groups(x, y);

	if (order)
		return order;
	if (x->name.kind != y->name.kind)
		return x->name.kind < y->name.kind ? -1 : 1;
	return *(const uint32_t *)a < *(const uint32_t *)b ? -1 : 1;
}

/* --- order --- */

static int compare_shapes(const struct tpd_ties *ties, uint32_t a, uint32_t b)
{
	const struct tpd_tied *x = &ties->items[a], *y = &ties->items[b];
	const struct tpd_segment_about *of_x = tpd_tied_about(ties, x), *of_y = tpd_tied_about(ties, y);

	if (x->elements != y->elements)
		return x->elements < y->elements ? -1 : 1;
	if (of_x->ndim != of_y->ndim)
		return of_x->ndim < of_y->ndim ? -1 : 1;
	for (unsigned d = 0; d < of_x->ndim; d++)
		if (of_x->dims[d] != of_y->dims[d])
			return of_x->dims[d] < of_y->dims[d] ? -1 : 1;
	return 0;
}

static int compare_in_class(const void *a, const void *b, void *context)
{
	const struct tpd_ties *ties = context;
	uint32_t x = ties->items[*(const uint32_t *)a].place, y = ties->items[*(const uint32_t *)b].place;
	int order = compare_shapes(ties, *(const uint32_t *)a, *(const uint32_t *)b);

	return order ? order : (x > y) - (x < y);
}

bool tpd_ties_fit(const struct tpd_ties *ties, uint32_t state, uint32_t owner)
{
	const struct tpd_tied *x = &ties->items[state], *y = &ties->items[owner];

	return !y->owns && y->name.kind == TPD_STATE_NONE && x->elements == y->elements &&
	       (tpd_tied_about(ties, x)->ndim == 0 || tpd_tied_about(ties, y)->ndim == 0 || compare_shapes(ties, state, owner) == 0);
}

static void give(struct tpd_ties *ties, uint32_t state, uint32_t owner)
{
	ties->items[state].owner = owner;
	ties->items[owner].owns = true;
}

/* Whom the checkpoint before tied it to, if that one is to be had: sure: only what was checked then. */
static bool owner_in_w1(const struct tpd_ties *ties, uint32_t state, bool sure, uint32_t *out_owner)
{
	uint32_t known;
	const struct tpd_tie *tie = tpd_ties_in_w1(ties, &ties->items[state], &known);
	uint32_t owner;

	if (known != 1 || (sure && !tie->checked))
		return false;
	owner = tpd_ties_from_w1(ties, &tie->owner);
	if (owner == TPD_TIED_NONE || !tpd_ties_fit(ties, state, owner))
		return false;
	*out_owner = owner;
	return true;
}

/* Of what names and the past have settled: do the values agree? leaders: those that are asked, CHECKED at most. */
static enum tpd_status check(struct tpd_ties *ties, const uint32_t *leaders, size_t count, struct tpd_err *err)
{
	struct tpd_signs_wanted wanted[2 * CHECKED] = {0};
	TPD_AUTO_FREE uint64_t *bits = NULL;
	size_t words = 0, at = 0;
	enum tpd_status status;

	if (count == 0)
		return TPD_OK;
	for (size_t i = 0; i < count; i++) {
		size_t own = (size_t)((TPD_MIN(ties->items[leaders[i]].elements, (uint64_t)TPD_CHUNK_ELEMENTS) + 63) / 64);

		wanted[2 * i] = (struct tpd_signs_wanted){.item = leaders[i], .words = own};
		wanted[2 * i + 1] = (struct tpd_signs_wanted){.item = ties->items[leaders[i]].owner, .words = own, .change = true};
		words += 4 * own;
	}
	bits = calloc(words + 1, sizeof(*bits));
	if (!bits)
		return tpd_fail_nomem(err);
	for (size_t i = 0; i < 2 * count; i++) {
		wanted[i].bits = bits + at;
		at += 2 * wanted[i].words;
	}
	status = tpd_signs_read(ties, wanted, 2 * count, err);
	for (size_t i = 0; !status && i < count; i++)
		ties->items[leaders[i]].checked =
			tpd_signs_sigma(wanted[2 * i].bits, wanted[2 * i + 1].bits, wanted[2 * i].words, wanted[2 * i].words) >= SIGMA;
	return status;
}

/* --- one class --- */

static uint64_t *bits_of_state(const struct class *class, uint32_t s)
{
	return class->bits + 2 * class->words * s;
}

static uint64_t *bits_of_owner(const struct class *class, uint32_t o)
{
	return class->bits + 2 * class->words * (class->state_count + o);
}

/* Those of these states and owners; what has no w1 has none, and fits nothing. */
static enum tpd_status read_class(struct class *class, const uint32_t *states, uint32_t state_count, const uint32_t *owners,
				  uint32_t owner_count, struct tpd_err *err)
{
	TPD_AUTO_FREE struct tpd_signs_wanted *wanted = calloc((size_t)state_count + owner_count + 1, sizeof(*wanted));
	size_t count = 0;

	if (!wanted)
		return tpd_fail_nomem(err);
	for (uint32_t i = 0; i < state_count; i++)
		wanted[count++] = (struct tpd_signs_wanted){
			.item = class->states[states[i]], .words = class->words, .bits = bits_of_state(class, states[i])};
	for (uint32_t i = 0; i < owner_count; i++)
		if (tpd_tied_work(class->ties, &class->ties->items[class->owners[owners[i]]])->has_w1)
			wanted[count++] = (struct tpd_signs_wanted){.item = class->owners[owners[i]],
								    .words = class->words,
								    .change = true,
								    .bits = bits_of_owner(class, owners[i])};
	return tpd_signs_read(class->ties, wanted, count, err);
}

static int compare_pairs(const void *a, const void *b)
{
	const struct pair *x = a, *y = b;

	if (x->sigma > y->sigma || x->sigma < y->sigma)
		return x->sigma > y->sigma ? -1 : 1;
	if (x->state != y->state)
		return x->state < y->state ? -1 : 1;
	return (x->owner > y->owner) - (x->owner < y->owner);
}

/* Which owners of the class are still to be had, and which states want one: their places. */
static uint32_t still_free(const struct class *class, uint32_t *out)
{
	uint32_t n = 0;

	for (uint32_t o = 0; o < class->owner_count; o++)
		if (!class->ties->items[class->owners[o]].owns)
			out[n++] = o;
	return n;
}

static uint32_t still_wanting(const struct class *class, uint32_t *out)
{
	uint32_t n = 0;

	for (uint32_t s = 0; s < class->state_count; s++)
		if (class->ties->items[class->states[s]].owner == TPD_TIED_NONE)
			out[n++] = s;
	return n;
}

/* The best KEPT of one state, which begin at `first`. */
static void keep_pair(struct class *class, size_t first, uint32_t s, uint32_t o, double sigma)
{
	size_t at = class->pair_count;

	if (at - first == KEPT && class->pairs[at - 1].sigma >= sigma)
		return;
	if (at - first == KEPT)
		at--;
	else
		class->pair_count++;
	for (; at > first && class->pairs[at - 1].sigma < sigma; at--)
		class->pairs[at] = class->pairs[at - 1];
	class->pairs[at] = (struct pair){s, o, sigma};
}

/* Every pair, or where that would be too many those that stand near each other in order. */
static enum tpd_status find_pairs(struct class *class, const uint32_t *states, uint32_t state_count, const uint32_t *owners,
				  uint32_t owner_count, uint64_t *words_left, struct tpd_err *err)
{
	uint64_t pairs = (uint64_t)state_count * owner_count;
	uint32_t band = owner_count;
	size_t words = class->words;
	enum tpd_status status = TPD_OK;

	while (words > SIGNS_MIN / 64 && pairs * words > *words_left)
		words /= 2;
	if (pairs * words > *words_left)
		band = (uint32_t)TPD_MAX(*words_left / words / state_count, (uint64_t)1);
	*words_left -= TPD_MIN(*words_left, (uint64_t)state_count * band * words);
	for (uint32_t s = 0; !status && s < state_count; s++) {
		uint32_t middle = (uint32_t)((uint64_t)s * owner_count / state_count);
		uint32_t from = middle > band / 2 ? middle - band / 2 : 0;
		size_t first = class->pair_count;

		from = TPD_MIN(from, owner_count - band);
		for (uint32_t o = from; o < from + band; o++) {
			double sigma = tpd_signs_sigma(bits_of_state(class, states[s]), bits_of_owner(class, owners[o]), class->words, words);

			if (sigma >= SIGMA)
				keep_pair(class, first, states[s], owners[o], sigma);
		}
		status = tpd_ingest_progress(class->ties->job, 0, err);
	}
	if (class->pair_count > 1)
		qsort(class->pairs, class->pair_count, sizeof(*class->pairs), compare_pairs);
	return status;
}

static void take_pairs(struct class *class)
{
	struct tpd_ties *ties = class->ties;

	for (size_t i = 0; i < class->pair_count; i++) {
		uint32_t state = class->states[class->pairs[i].state], owner = class->owners[class->pairs[i].owner];

		if (ties->items[state].owner != TPD_TIED_NONE || ties->items[owner].owns)
			continue;
		give(ties, state, owner);
		ties->items[state].checked = true;
	}
}

/* What the values say, where there is a checkpoint before to ask. */
static enum tpd_status search(struct class *class, const uint32_t *states, uint32_t state_count, const uint32_t *owners,
			      uint32_t owner_count, uint64_t *words_left, struct tpd_err *err)
{
	uint32_t members = class->state_count + class->owner_count;
	uint64_t elements = TPD_MIN(class->ties->items[class->states[0]].elements, (uint64_t)TPD_CHUNK_ELEMENTS);
	enum tpd_status status;

	elements = TPD_MIN(elements, TPD_MAX(CLASS_BITS / 2 / members, (uint64_t)64));
	class->words = (size_t)((elements + 63) / 64);
	class->bits = calloc(members + 1u, 2 * class->words * sizeof(*class->bits));
	class->pairs = calloc((size_t)state_count * KEPT, sizeof(*class->pairs));
	status = class->bits && class->pairs ? read_class(class, states, state_count, owners, owner_count, err) : tpd_fail_nomem(err);
	if (!status)
		status = find_pairs(class, states, state_count, owners, owner_count, words_left, err);
	if (!status)
		take_pairs(class);
	free(class->bits);
	free(class->pairs);
	class->bits = NULL;
	class->pairs = NULL;
	return status;
}

/* What the checkpoint before said without being sure; then, when there are as many of both, the order. */
static void guess(struct class *class, uint32_t *states, uint32_t *owners)
{
	struct tpd_ties *ties = class->ties;
	uint32_t state_count, owner_count;

	for (uint32_t s = 0; s < class->state_count; s++) {
		uint32_t state = class->states[s], owner;

		if (ties->items[state].owner == TPD_TIED_NONE && owner_in_w1(ties, state, false, &owner))
			give(ties, state, owner);
	}
	state_count = still_wanting(class, states);
	owner_count = still_free(class, owners);
	if (state_count != owner_count) { /* of several F32 tensors the optimizer steps the masters */
		uint32_t masters = 0;

		for (uint32_t o = 0; o < owner_count; o++)
			if (ties->items[class->owners[owners[o]]].owner != TPD_TIED_NONE)
				owners[masters++] = owners[o];
		owner_count = masters;
	}
	for (uint32_t i = 0; state_count == owner_count && i < state_count; i++)
		give(ties, class->states[states[i]], class->owners[owners[i]]);
}

static enum tpd_status work_class(struct class *class, uint64_t *words_left, struct tpd_err *err)
{
	uint32_t state_count, owner_count;
	TPD_AUTO_FREE uint32_t *states = calloc(class->state_count + 1u, sizeof(*states));
	TPD_AUTO_FREE uint32_t *owners = calloc(class->owner_count + 1u, sizeof(*owners));
	enum tpd_status status = TPD_OK;

	if (!states || !owners)
		return tpd_fail_nomem(err);
	state_count = still_wanting(class, states);
	owner_count = still_free(class, owners);
	if (class->ties->job->w1 && state_count > 0 && owner_count > 0)
		status = search(class, states, state_count, owners, owner_count, words_left, err);
	if (!status)
		guess(class, states, owners);
	return status;
}

/* --- all of them --- */

/* Names first: they know; then what an earlier checkpoint was sure of. */
static enum tpd_status settle(struct tpd_ties *ties, const uint32_t *leaders, uint32_t leader_count, const uint32_t *weights,
			      uint32_t weight_count, struct tpd_err *err)
{
	struct tpd_tie_names names;
	uint32_t asked[CHECKED] = {0};
	size_t count = 0;
	enum tpd_status status = tpd_tie_names_make(ties, weights, weight_count, &names, err);

	if (status)
		return status;
	for (uint32_t i = 0; !status && i < leader_count; i++) {
		uint32_t owner = TPD_TIED_NONE;

		status = tpd_tie_names_find(&names, leaders[i], &owner, err);
		if (status || (owner == TPD_TIED_NONE && !owner_in_w1(ties, leaders[i], true, &owner)))
			continue;
		give(ties, leaders[i], owner);
		if (tpd_tied_work(ties, &ties->items[owner])->has_w1)
			asked[count++] = leaders[i];
		if (count == CHECKED) {
			status = check(ties, asked, count, err);
			count = 0;
		}
	}
	if (!status)
		status = check(ties, asked, count, err);
	tpd_tie_names_release(&names);
	return status;
}

/* Leaders and weights of one shape after the other; both are sorted by shape. */
static enum tpd_status work_classes(struct tpd_ties *ties, const uint32_t *leaders, uint32_t leader_count, const uint32_t *weights,
				    uint32_t weight_count, struct tpd_err *err)
{
	uint64_t words_left = SEARCH_WORDS;
	uint32_t s = 0, o = 0;
	enum tpd_status status = TPD_OK;

	while (!status && s < leader_count) {
		struct class class = {.ties = ties, .states = leaders + s};

		while (o < weight_count && compare_shapes(ties, weights[o], leaders[s]) < 0)
			o++;
		class.owners = weights + o;
		while (o + class.owner_count < weight_count && compare_shapes(ties, weights[o + class.owner_count], leaders[s]) == 0)
			class.owner_count++;
		while (s + class.state_count < leader_count && compare_shapes(ties, leaders[s + class.state_count], leaders[s]) == 0)
			class.state_count++;
		status = work_class(&class, &words_left, err);
		s += class.state_count;
		o += class.owner_count;
	}
	return status;
}

/* The end of the group that begins at `first`. */
static uint32_t group_end(const struct tpd_ties *ties, const uint32_t *states, uint32_t count, uint32_t first)
{
	uint32_t end = first + 1;

	while (end < count && compare_groups(&ties->items[states[first]], &ties->items[states[end]]) == 0)
		end++;
	return end;
}

/*
 * States that stand for the others of their parameter: exp_avg, or momentum_buffer where there is none; in a group of several files
 * each may have one. They stand together, by file: places [*out_from, *out_to).
 */
static void find_leaders(const struct tpd_ties *ties, const uint32_t *states, uint32_t first, uint32_t end, uint32_t *out_from,
			 uint32_t *out_to)
{
	enum tpd_state_kind kind = ties->items[states[first]].name.kind == TPD_STATE_EXP_AVG ? TPD_STATE_EXP_AVG : TPD_STATE_MOMENTUM;

	*out_from = *out_to = end;
	for (uint32_t i = first; i < end; i++) {
		if (ties->items[states[i]].name.kind != kind)
			continue;
		*out_from = TPD_MIN(*out_from, i);
		*out_to = i + 1;
	}
}

/* Whose owner is this state's, too: the leader in its file, else the only one; NULL: none. */
static const struct tpd_tied *leader_of(const struct tpd_ties *ties, const uint32_t *states, uint32_t from, uint32_t to,
					const struct tpd_tied *state)
{
	uint32_t low = from, high = to;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (ties->items[states[middle]].file < state->file)
			low = middle + 1;
		else
			high = middle;
	}
	if (to - from != 1 && (low == to || ties->items[states[low]].file != state->file))
		return NULL;
	low = to - from == 1 ? from : low;
	return ties->items[states[low]].elements == state->elements ? &ties->items[states[low]] : NULL;
}

static enum tpd_status add_group(struct tpd_ties *ties, const uint32_t *states, uint32_t first, uint32_t end, struct tpd_err *err)
{
	uint32_t from, to;
	enum tpd_status status = TPD_OK;

	find_leaders(ties, states, first, end, &from, &to);
	for (uint32_t i = first; !status && i < end; i++) {
		const struct tpd_tied *state = &ties->items[states[i]];
		const struct tpd_tied *leader = i >= from && i < to ? state : leader_of(ties, states, from, to, state);

		if (leader && leader->owner != TPD_TIED_NONE)
			status = tpd_ties_add(ties, state, 0, &ties->items[leader->owner], 0, state->elements, state->name.kind,
					      leader->checked, err);
	}
	return status;
}

enum tpd_status tpd_ties_moments(struct tpd_ties *ties, struct tpd_err *err)
{
	TPD_AUTO_FREE uint32_t *states = calloc(ties->count + 1u, sizeof(*states));
	TPD_AUTO_FREE uint32_t *leaders = calloc(ties->count + 1u, sizeof(*leaders));
	TPD_AUTO_FREE uint32_t *weights = calloc(ties->count + 1u, sizeof(*weights));
	uint32_t count = 0, leader_count = 0, weight_count = 0;
	enum tpd_status status;

	if (!states || !leaders || !weights)
		return tpd_fail_nomem(err);
	for (uint32_t i = 0; i < ties->count; i++) {
		if (ties->items[i].name.kind)
			states[count++] = i;
		else if (ties->items[i].master == TPD_TIED_NONE) /* else it is the master that the optimizer steps */
			weights[weight_count++] = i;
	}
	qsort_r(states, count, sizeof(*states), compare_states, ties->items);
	for (uint32_t first = 0, end, from, to; first < count; first = end) {
		end = group_end(ties, states, count, first);
		find_leaders(ties, states, first, end, &from, &to);
		for (uint32_t i = from; i < to; i++)
			leaders[leader_count++] = states[i];
	}
	qsort_r(leaders, leader_count, sizeof(*leaders), compare_in_class, ties);
	qsort_r(weights, weight_count, sizeof(*weights), compare_in_class, ties);
	status = settle(ties, leaders, leader_count, weights, weight_count, err);
	if (!status)
		status = work_classes(ties, leaders, leader_count, weights, weight_count, err);
	for (uint32_t first = 0, end; !status && first < count; first = end) {
		end = group_end(ties, states, count, first);
		status = add_group(ties, states, first, end, err);
	}
	return status;
}
