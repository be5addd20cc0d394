/*
 * ingest_moments.c - which tensor an optimizer's exp_avg (or momentum_buffer) belongs to.
 *
 * Guesses, the best first: what the checkpoint before said; the name; and among tensors of one shape ("a class") the order, when there
 * are as many states as tensors. Then the values: an optimizer moves each weight against its exp_avg, so the sign of w - w1 and the
 * sign of the state are opposite more often than not, element by element, and only for the tensor that the state belongs to. For
 * a class the signs are bit vectors, each pair's 2 x 2 table four population counts; its phi coefficient times the square root of the
 * number of elements is a standard normal when they have nothing to do with each other. Where names do not settle it, the pairs with
 * the largest go first. Signs are used rather than sums of products since a few large elements cannot speak for all, and since
 * counts are the same on every machine.
 *
 *                    w - w1 > 0   < 0
 *     state > 0          a          b        sigma = (b c - a d) sqrt(n) / sqrt((a + b)(c + d)(a + c)(b + d))
 *     state < 0          c          d
 *
 * Rejected: the order of HF Trainer's parameter groups (weights with decay, then those without): within a class it is the order that
 * we have; a full assignment problem: with the right pairs tens of sigma away from the others, the largest first is the same.
 */
#include "base/tpd.h"

#include "store/ingest_ties.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SIGMA 6.0                  /* one wrong pair in 10^9 */
#define CLASS_BITS (1ull << 27)    /* of all sign vectors of a class: 16 MiB */
#define SIGNS_MIN 4096u            /* elements that are looked at, where there are as many */
#define SEARCH_WORDS (1ull << 26)  /* 64 signs of one pair each, in a checkpoint: about a second */

struct signs {
	uint64_t *positive, *negative; /* NULL: not known */
};

struct pair {
	uint32_t state, owner; /* places in the class */
	double sigma;
};

/* States and tensors of one shape. */
struct class {
	struct tpd_ties *ties;
	const uint32_t *states, *owners; /* items, in natural order */
	uint32_t state_count, owner_count;
	size_t words;
	struct signs *of_states, *of_owners;
	uint64_t *bits;
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

/* States of one optimizer by their numbers; all else as it comes. */
static int compare_in_class(const void *a, const void *b, void *context)
{
	const struct tpd_ties *ties = context;
	const struct tpd_tied *x = &ties->items[*(const uint32_t *)a], *y = &ties->items[*(const uint32_t *)b];
	int order = compare_shapes(ties, *(const uint32_t *)a, *(const uint32_t *)b);

	if (order)
		return order;
	if (x->file == y->file && x->name.numbered && y->name.numbered) {
		const char *of_x = tpd_tied_about(ties, x)->name, *of_y = tpd_tied_about(ties, y)->name;

		order = strverscmp(of_x, of_y); /* "state.9" before "state.10" */
		if (order)
			return order;
	}
	return (x->place > y->place) - (x->place < y->place);
}

/* --- names --- */

/* The last byte first, so that names with the same end stand together. */
static int compare_ends_of_names(const char *a, size_t a_length, const char *b, size_t b_length)
{
	while (a_length > 0 && b_length > 0) {
		unsigned char x = (unsigned char)a[--a_length], y = (unsigned char)b[--b_length];

		if (x != y)
			return x < y ? -1 : 1;
	}
	return (a_length > 0) - (b_length > 0);
}

static size_t name_length(const struct tpd_tied *item)
{
	return item->name.length + item->name.chunk_length;
}

/* Of a weight, whose name is all of it; of a state, whose parameter's name and chunk may stand apart, the caller's. */
static int compare_named(const void *a, const void *b, void *context)
{
	const struct tpd_tied *items = context, *x = &items[*(const uint32_t *)a], *y = &items[*(const uint32_t *)b];
	int order = compare_ends_of_names(x->name.of, name_length(x), y->name.of, name_length(y));

	return order ? order : *(const uint32_t *)a < *(const uint32_t *)b ? -1 : 1;
}

/* Parts between dots that both names end with; a whole name counts as many. */
#define WHOLE 0x10000u
static unsigned common_parts(const char *a, size_t a_length, const char *b, size_t b_length)
{
	unsigned parts = 0;

	for (;;) {
		size_t x = a_length, y = b_length;

		while (x > 0 && a[x - 1] != '.')
			x--;
		while (y > 0 && b[y - 1] != '.')
			y--;
		if (a_length - x != b_length - y || memcmp(a + x, b + y, a_length - x) != 0)
			return parts;
		parts++;
		if (x == 0 || y == 0)
			return WHOLE + parts;
		a_length = x - 1;
		b_length = y - 1;
	}
}

struct by_name {
	const struct tpd_ties *ties;
	uint32_t *items; /* weights, by the ends of their names */
	uint32_t count;
	char *name;      /* of the parameter that is looked for, with its chunk */
	size_t cap;
};

static bool same_elements(const struct tpd_ties *ties, uint32_t state, uint32_t owner)
{
	const struct tpd_tied *x = &ties->items[state], *y = &ties->items[owner];

	return x->elements == y->elements &&
	       (tpd_tied_about(ties, x)->ndim == 0 || tpd_tied_about(ties, y)->ndim == 0 || compare_shapes(ties, state, owner) == 0);
}

/*
 * The free weight whose name has most in common with the parameter's: at least two parts, or all of one name, but that a number
 * alone is no name ("state.0" is not of the weight "0").
 */
static enum tpd_status find_by_name(struct by_name *names, uint32_t state, uint32_t *out_owner, struct tpd_err *err)
{
	const struct tpd_tied *item = &names->ties->items[state];
	size_t length = name_length(item);
	uint32_t low = 0, high = names->count, best = TPD_TIED_NONE;
	unsigned best_parts = 1;

	*out_owner = TPD_TIED_NONE;
	if (item->name.length == 0)
		return TPD_OK;
	if (names->cap < length) {
		free(names->name);
		names->name = malloc(2 * length);
		names->cap = names->name ? 2 * length : 0;
		if (!names->name)
			return tpd_fail_nomem(err);
	}
	memcpy(names->name, item->name.of, item->name.length);
	memcpy(names->name + item->name.length, item->name.chunk, item->name.chunk_length);
	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		const struct tpd_tied *at = &names->ties->items[names->items[middle]];

		if (compare_ends_of_names(at->name.of, name_length(at), names->name, length) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	/* What has more in common stands nearer: a few on each side, of which several may be of other shapes. */
	for (uint32_t i = low > 8 ? low - 8 : 0; i < names->count && i < low + 8; i++) {
		const struct tpd_tied *at = &names->ties->items[names->items[i]];
		unsigned parts = common_parts(at->name.of, name_length(at), names->name, length);
		bool nearer = parts == best_parts && best != TPD_TIED_NONE && names->ties->items[best].file != item->file &&
			      at->file == item->file;

		if (item->name.numbered && parts == WHOLE + 1)
			continue;
		if ((parts > best_parts || nearer) && !at->owns && same_elements(names->ties, state, names->items[i])) {
			best = names->items[i];
			best_parts = parts;
		}
	}
	*out_owner = best;
	return TPD_OK;
}

static void give(struct tpd_ties *ties, uint32_t state, uint32_t owner)
{
	ties->items[state].owner = owner;
	ties->items[owner].owns = true;
}

/* Whom the checkpoint before tied it to, if that one is to be had: sure: only what was checked then. */
static bool owner_in_w1(const struct tpd_ties *ties, uint32_t state, bool sure, uint32_t *out_owner)
{
	size_t known;
	const struct tpd_tie *tie = tpd_ties_in_w1(ties, &ties->items[state], &known);
	uint32_t owner;

	if (known != 1 || (sure && !tie->checked))
		return false;
	owner = tpd_ties_from_w1(ties, &tie->owner);
	if (owner == TPD_TIED_NONE || ties->items[owner].owns || ties->items[owner].name.kind || !same_elements(ties, state, owner))
		return false;
	*out_owner = owner;
	return true;
}

/* --- values --- */

static enum tpd_status read_w1(struct tpd_ties *ties, const struct tpd_tied *item, size_t *out_elements, struct tpd_err *err)
{
	const struct tpd_segment_work *work = &tpd_tied_file(ties, item)->segments[item->segment];
	size_t len = 0;
	enum tpd_status status = tpd_chain_read(ties->job->w1, ties->job->chain_workers[0], work->w1_file, work->w1_segment, 0,
						ties->chunk, &len, err);

	*out_elements = len / tpd_dtype_width(item->dtype);
	return status;
}

static uint64_t word_at(const uint8_t *bytes, unsigned width, size_t i)
{
	uint64_t word = 0;

	memcpy(&word, bytes + i * width, width); /* of a little-endian file, on a little-endian machine (base/tpd.h) */
	return word;
}

/* Floats in the order of their values, as integers: both zeros are one. */
static int64_t ordered(uint64_t bits, unsigned width)
{
	uint64_t sign = 1ull << (8 * width - 1);
	int64_t magnitude = (int64_t)(bits & (sign - 1));

	return bits & sign ? -magnitude : magnitude;
}

/* The signs of its first 64 * words elements, into words and words of bits: of its values, or (change) of what is more than in w1. */
static enum tpd_status read_signs(struct tpd_ties *ties, const struct tpd_tied *item, bool change, size_t words, uint64_t *bits,
				  struct signs *signs, struct tpd_err *err)
{
	unsigned width = tpd_dtype_width(item->dtype);
	size_t n = (size_t)TPD_MIN(item->elements, (uint64_t)words * 64), known = n;
	TPD_AUTO_FREE uint8_t *values = malloc(n * width + 1);
	enum tpd_status status;

	if (!values)
		return tpd_fail_nomem(err);
	status = tpd_tied_read(ties, item, 0, n, values, err);
	if (!status && change)
		status = read_w1(ties, item, &known, err);
	if (!status)
		status = tpd_ingest_progress(ties->job, 0, err);
	if (status)
		return status;
	*signs = (struct signs){bits, bits + words};
	for (size_t i = 0; i < TPD_MIN(n, known); i++) {
		int64_t value = ordered(word_at(values, width, i), width);
		int64_t zero = change ? ordered(word_at(ties->chunk, width, i), width) : 0;

		signs->positive[i / 64] |= (uint64_t)(value > zero) << (i % 64);
		signs->negative[i / 64] |= (uint64_t)(value < zero) << (i % 64);
	}
	return TPD_OK;
}

static unsigned ones(uint64_t v)
{
	v -= v >> 1 & 0x5555555555555555u;
	v = (v & 0x3333333333333333u) + (v >> 2 & 0x3333333333333333u);
	return (unsigned)(((v + (v >> 4)) & 0x0f0f0f0f0f0f0f0fu) * 0x0101010101010101u >> 56);
}

static double sigma_of(const struct signs *state, const struct signs *owner, size_t words)
{
	uint64_t a = 0, b = 0, c = 0, d = 0;
	double product;

	for (size_t i = 0; i < words; i++) {
		a += ones(state->positive[i] & owner->positive[i]);
		b += ones(state->positive[i] & owner->negative[i]);
		c += ones(state->negative[i] & owner->positive[i]);
		d += ones(state->negative[i] & owner->negative[i]);
	}
	product = (double)(a + b) * (double)(c + d) * (double)(a + c) * (double)(b + d);
	if (product == 0)
		return 0;
	return ((double)b * (double)c - (double)a * (double)d) * sqrt((double)(a + b + c + d)) / sqrt(product);
}

static bool has_w1(const struct tpd_ties *ties, const struct tpd_tied *item)
{
	return ties->job->w1 && tpd_tied_file(ties, item)->segments[item->segment].has_w1;
}

/* Of what is settled: do the values agree? */
static enum tpd_status check(struct tpd_ties *ties, struct tpd_tied *state, struct tpd_err *err)
{
	const struct tpd_tied *owner = &ties->items[state->owner];
	size_t words = (size_t)((TPD_MIN(state->elements, (uint64_t)TPD_CHUNK_ELEMENTS) + 63) / 64);
	TPD_AUTO_FREE uint64_t *bits = NULL;
	struct signs of_state, of_owner;
	enum tpd_status status;

	if (!has_w1(ties, owner))
		return TPD_OK;
	bits = calloc(4 * words, sizeof(*bits));
	if (!bits)
		return tpd_fail_nomem(err);
	status = read_signs(ties, state, false, words, bits, &of_state, err);
	if (!status)
		status = read_signs(ties, owner, true, words, bits + 2 * words, &of_owner, err);
	if (!status)
		state->checked = sigma_of(&of_state, &of_owner, words) >= SIGMA;
	return status;
}

/* --- one class --- */

static enum tpd_status need_state(struct class *class, uint32_t s, struct tpd_err *err)
{
	return read_signs(class->ties, &class->ties->items[class->states[s]], false, class->words,
			  class->bits + 2 * class->words * s, &class->of_states[s], err);
}

static enum tpd_status need_owner(struct class *class, uint32_t o, struct tpd_err *err)
{
	const struct tpd_tied *owner = &class->ties->items[class->owners[o]];

	if (!has_w1(class->ties, owner))
		return TPD_OK;
	return read_signs(class->ties, owner, true, class->words, class->bits + 2 * class->words * (class->state_count + o),
			  &class->of_owners[o], err);
}

static double sigma_at(const struct class *class, uint32_t s, uint32_t o, size_t words)
{
	if (!class->of_states[s].positive || !class->of_owners[o].positive)
		return 0;
	return sigma_of(&class->of_states[s], &class->of_owners[o], words);
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

static enum tpd_status add_pair(struct class *class, uint32_t s, uint32_t o, double sigma, size_t *cap, struct tpd_err *err)
{
	if (class->pair_count == *cap) {
		size_t more = *cap ? 2 * *cap : 64;
		struct pair *pairs = reallocarray(class->pairs, more, sizeof(*pairs));

		if (!pairs)
			return tpd_fail_nomem(err);
		class->pairs = pairs;
		*cap = more;
	}
	class->pairs[class->pair_count++] = (struct pair){s, o, sigma};
	return TPD_OK;
}

/* Every pair, or where that would be too many those that stand near each other in order. */
static enum tpd_status search(struct class *class, const uint32_t *states, uint32_t state_count, const uint32_t *owners,
			      uint32_t owner_count, uint64_t *words_left, struct tpd_err *err)
{
	uint64_t pairs = (uint64_t)state_count * owner_count;
	uint32_t band = owner_count;
	size_t words = class->words, cap = 0;
	enum tpd_status status = TPD_OK;

	while (words > SIGNS_MIN / 64 && pairs * words > *words_left)
		words /= 2;
	if (pairs * words > *words_left)
		band = (uint32_t)TPD_MAX(*words_left / words / state_count, (uint64_t)1);
	*words_left -= TPD_MIN(*words_left, (uint64_t)state_count * band * words);
	for (uint32_t s = 0; !status && s < state_count; s++)
		status = need_state(class, states[s], err);
	for (uint32_t o = 0; !status && o < owner_count; o++)
		status = need_owner(class, owners[o], err);
	for (uint32_t s = 0; !status && s < state_count; s++) {
		uint32_t middle = (uint32_t)((uint64_t)s * owner_count / state_count);
		uint32_t from = middle > band / 2 ? middle - band / 2 : 0;

		from = TPD_MIN(from, owner_count - band);
		for (uint32_t o = from; !status && o < from + band; o++) {
			double sigma = sigma_at(class, states[s], owners[o], words);

			if (sigma >= SIGMA)
				status = add_pair(class, states[s], owners[o], sigma, &cap, err);
		}
		if (!status)
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
	uint32_t members = class->state_count + class->owner_count, state_count, owner_count;
	TPD_AUTO_FREE uint32_t *states = calloc(class->state_count + 1u, sizeof(*states));
	TPD_AUTO_FREE uint32_t *owners = calloc(class->owner_count + 1u, sizeof(*owners));
	uint64_t elements = class->ties->items[class->states[0]].elements;
	enum tpd_status status = TPD_OK;

	elements = TPD_MIN(elements, (uint64_t)TPD_CHUNK_ELEMENTS);
	elements = TPD_MIN(elements, TPD_MAX(CLASS_BITS / 2 / members, (uint64_t)64));
	class->words = (size_t)((elements + 63) / 64);
	class->of_states = calloc(class->state_count + 1u, sizeof(*class->of_states));
	class->of_owners = calloc(class->owner_count + 1u, sizeof(*class->of_owners));
	class->bits = calloc(members + 1u, 2 * class->words * sizeof(*class->bits));
	if (!states || !owners || !class->of_states || !class->of_owners || !class->bits)
		return tpd_fail_nomem(err);
	state_count = still_wanting(class, states);
	owner_count = still_free(class, owners);
	if (class->ties->job->w1 && state_count > 0 && owner_count > 0)
		status = search(class, states, state_count, owners, owner_count, words_left, err);
	take_pairs(class);
	guess(class, states, owners);
	return status;
}

/* --- all of them --- */

/* Names first: they know; then what an earlier checkpoint was sure of. */
static enum tpd_status settle(struct tpd_ties *ties, const uint32_t *leaders, uint32_t leader_count, const uint32_t *weights,
			      uint32_t weight_count, struct tpd_err *err)
{
	struct by_name names = {.ties = ties, .items = calloc(weight_count + 1u, sizeof(uint32_t)), .count = weight_count};
	enum tpd_status status = names.items ? TPD_OK : tpd_fail_nomem(err);

	if (!status) {
		memcpy(names.items, weights, weight_count * sizeof(*weights));
		qsort_r(names.items, weight_count, sizeof(*names.items), compare_named, ties->items);
	}
	for (uint32_t i = 0; !status && i < leader_count; i++) {
		struct tpd_tied *state = &ties->items[leaders[i]];
		uint32_t owner = TPD_TIED_NONE;

		status = find_by_name(&names, leaders[i], &owner, err);
		if (status || (owner == TPD_TIED_NONE && !owner_in_w1(ties, leaders[i], true, &owner)))
			continue;
		give(ties, leaders[i], owner);
		status = check(ties, state, err);
	}
	free(names.items);
	free(names.name);
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
		free(class.of_states);
		free(class.of_owners);
		free(class.bits);
		free(class.pairs);
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
 * exp_avg, or momentum_buffer where there is none; in a group of several files each may have one. They stand together, by file:
 * places [*out_from, *out_to).
 */
static void find_leaders(struct tpd_ties *ties, const uint32_t *states, uint32_t first, uint32_t end, uint32_t *out_from, uint32_t *out_to)
{
	enum tpd_state_kind kind = ties->items[states[first]].name.kind == TPD_STATE_EXP_AVG ? TPD_STATE_EXP_AVG : TPD_STATE_MOMENTUM;

	*out_from = *out_to = end;
	for (uint32_t i = first; i < end; i++) {
		if (ties->items[states[i]].name.kind != kind)
			continue;
		ties->items[states[i]].leads = true;
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
		const struct tpd_tied *leader = state->leads ? state : leader_of(ties, states, from, to, state);

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
	}
	for (uint32_t i = 0; i < count; i++)
		if (ties->items[states[i]].leads)
			leaders[leader_count++] = states[i];
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
