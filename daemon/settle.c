/*
 * settle.c - the state machine of settle.h.
 *
 * Entries live in an open hash table by path, and in a list, since every question ("what is due?") is asked of all of
 * them: a few thousand entries are walked in microseconds, and a heap of due times would have to be kept right for
 * nothing. To bound even that, `due` is the earliest time at which any entry can have work; before it next() looks at
 * none.
 *
 * Ranks: other ranks than 0 write rng_state_R.pth without a barrier, also after trainer_state.json. The run's last
 * captured checkpoint says how many there must be; where none was, and the names show that there are several ranks,
 * only settling can tell.
 */
#include "base/tpd.h"

#include "daemon/settle.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/digest.h"

#define BUCKETS 4096
#define DEFAULT_SETTLE_MS 5000
#define DEFAULT_STALL_MS 600000
#define LOOK_AGAIN_MS 200            /* at least, when a look brought nothing */
#define VOIDS_AT_ONCE 3               /* captures that come to nothing though nothing changes: looked at again at once, ... */
#define VOID_MS 500                  /* then after this, twice as long each time, up to a minute */
#define VOID_MAX_MS 60000
#define RETRY_MIN_MS 5000            /* what cannot be read: tried again after this, ... */
#define RETRY_MAX_MS 600000          /* ... up to this */
#define QUIET_KNOWN_MAX_MS 86400000u /* longer at rest makes no difference */
#define QUIET_MAX_MS 1000            /* what a marker vouches for needs no more than this on the descriptors */

enum state { GROWING, CANDIDATE, CAPTURING, CAPTURED, STORED, REFUSED };

struct run {
	struct run *next;
	char *name;
	uint64_t entries;           /* that refer to it */
	bool has_ranks;             /* a checkpoint was captured: */
	uint64_t ranks_step, ranks; /* the highest such step, and its rank_span */
};

struct entry {
	struct entry *next_in_bucket;
	struct entry *next, **link; /* all entries */
	char *path;
	struct run *run;
	uint64_t step;
	uint32_t watch;
	enum state state;
	uint32_t generation;
	bool gone;             /* the path is not there; the entry lives for its capture */
	bool was_captured;     /* ever */
	bool wanted;           /* it was complete, and is not captured */
	bool void_later;       /* it changed while it was being captured */
	int64_t changed_ms;    /* nothing changed since; below 0: from before the clock began */
	uint64_t looked_ms;    /* last seen */
	uint64_t due_ms;       /* GROWING: when to look or decide; UINT64_MAX: only when something changes */
	uint64_t retry_ms;     /* not to be captured before, unless it changes; 0: at any time */
	unsigned failures;     /* captures that failed since it changed */
	unsigned voids;        /* captures that were void since it changed */
	bool stalled;          /* that it waits in vain was told since it changed */
	uint64_t restless_ms;  /* it has been changing since then and was not captured; 0: it has not */
	bool restless, told;   /* that it never settles: to be told; was told since it was captured */
	struct tpd_seen seen;  /* its strings are not used */
	struct tpd_seen taken; /* what the current or last capture was to hold */
};

struct tpd_settle {
	struct entry *buckets[BUCKETS];
	struct entry *all;
	struct run *runs;
	struct {
		uint64_t settle_ms, stall_ms;
	} *times; /* by watch */
	uint32_t watch_count;
	uint64_t due_ms; /* no entry has work before */
	bool held_back;  /* but for candidates that next() was not allowed to capture */
};

static uint64_t later(uint64_t a, uint64_t b)
{
	uint64_t sum;

	return TPD_ADD_OVERFLOW(a, b, &sum) ? UINT64_MAX : sum;
}

static uint64_t settle_ms(const struct tpd_settle *settle, uint32_t watch)
{
	return watch < settle->watch_count ? settle->times[watch].settle_ms : DEFAULT_SETTLE_MS;
}

static uint64_t stall_ms(const struct tpd_settle *settle, uint32_t watch)
{
	return watch < settle->watch_count ? settle->times[watch].stall_ms : DEFAULT_STALL_MS;
}

enum tpd_status tpd_settle_new(struct tpd_settle **out_settle, struct tpd_err *err)
{
	struct tpd_settle *settle = calloc(1, sizeof *settle);

	if (!settle)
		return tpd_fail_nomem(err);
	settle->due_ms = UINT64_MAX;
	*out_settle = settle;
	return TPD_OK;
}

static size_t bucket_number(const char *path)
{
	return (size_t)(tpd_xxh64(path, strlen(path)) % BUCKETS);
}

static struct entry **bucket_of(struct tpd_settle *settle, const char *path)
{
	return &settle->buckets[bucket_number(path)];
}

static struct entry *find(const struct tpd_settle *settle, const char *path)
{
	for (struct entry *entry = settle->buckets[bucket_number(path)]; entry; entry = entry->next_in_bucket) {
		if (strcmp(entry->path, path) == 0)
			return entry;
	}
	return NULL;
}

/* --- runs --- */

static struct run *get_run(struct tpd_settle *settle, const char *name)
{
	struct run *run;

	for (run = settle->runs; run; run = run->next) {
		if (strcmp(run->name, name) == 0)
			return run;
	}
	run = calloc(1, sizeof *run);
	if (!run)
		return NULL;
	run->name = strdup(name);
	if (!run->name) {
		free(run);
		return NULL;
	}
	run->next = settle->runs;
	settle->runs = run;
	return run;
}

/* A run without entries is kept: rotation may delete its last checkpoint, and the next one wants its ranks. */
static void put_run(struct run *run)
{
	assert(run->entries > 0);
	run->entries--;
}

/* Does a checkpoint that its marker calls complete lack ranks that we know of, or could it? */
static bool lacks_ranks(const struct entry *entry)
{
	const struct tpd_seen *seen = &entry->seen;

	if (entry->run->has_ranks && seen->step >= entry->run->ranks_step &&
	    (entry->run->ranks > 0 || seen->ranks == 0))
		return seen->ranks < TPD_MAX(seen->rank_span, entry->run->ranks);
	return seen->ranks > 0; /* several ranks, and nothing tells how many */
}

/* --- entries --- */

static struct entry *add_entry(struct tpd_settle *settle, const struct tpd_seen *seen)
{
	struct entry *entry = calloc(1, sizeof *entry), **bucket;

	if (!entry)
		return NULL;
	entry->path = strdup(seen->path);
	entry->run = get_run(settle, seen->run);
	if (!entry->path || !entry->run) {
		free(entry->path);
		free(entry);
		return NULL;
	}
	entry->run->entries++;
	entry->due_ms = UINT64_MAX;
	bucket = bucket_of(settle, entry->path);
	entry->next_in_bucket = *bucket;
	*bucket = entry;
	entry->next = settle->all;
	entry->link = &settle->all;
	if (settle->all)
		settle->all->link = &entry->next;
	settle->all = entry;
	return entry;
}

static void remove_entry(struct tpd_settle *settle, struct entry *entry)
{
	struct entry **place = bucket_of(settle, entry->path);

	while (*place != entry)
		place = &(*place)->next_in_bucket;
	*place = entry->next_in_bucket;
	*entry->link = entry->next;
	if (entry->next)
		entry->next->link = entry->link;
	put_run(entry->run);
	free(entry->path);
	free(entry);
}

void tpd_settle_free(struct tpd_settle *settle)
{
	if (!settle)
		return;
	while (settle->all)
		remove_entry(settle, settle->all);
	while (settle->runs) {
		struct run *run = settle->runs;

		settle->runs = run->next;
		free(run->name);
		free(run);
	}
	free(settle->times);
	free(settle);
}

static uint64_t unchanged_for(const struct entry *entry, uint64_t ms)
{
	int64_t at = entry->changed_ms + (int64_t)ms;

	return at < 0 ? 0 : (uint64_t)at;
}

/* When will the entry have been unchanged for its time? */
static uint64_t settled_at(const struct tpd_settle *settle, const struct entry *entry)
{
	return unchanged_for(entry, settle_ms(settle, entry->watch));
}

/* When does a GROWING entry want attention? Sets its due time and hence the machine's. */
static void plan(struct tpd_settle *settle, struct entry *entry)
{
	entry->due_ms = UINT64_MAX;
	if (entry->state == CANDIDATE || entry->restless)
		entry->due_ms = 0;
	else if (entry->state == GROWING && entry->seen.readiness != TPD_SEEN_WAITING)
		entry->due_ms = TPD_MAX(settled_at(settle, entry), entry->retry_ms);
	else if (entry->state == GROWING && !entry->stalled)
		entry->due_ms = unchanged_for(entry, stall_ms(settle, entry->watch));
	settle->due_ms = TPD_MIN(settle->due_ms, entry->due_ms);
}

enum tpd_status tpd_settle_set_watch(struct tpd_settle *settle, uint32_t watch, uint64_t ms, uint64_t stalled_ms,
				     struct tpd_err *err)
{
	if (watch >= settle->watch_count) {
		void *grown = reallocarray(settle->times, (size_t)watch + 1, sizeof *settle->times);

		if (!grown)
			return tpd_fail_nomem(err);
		settle->times = grown;
		for (uint32_t i = settle->watch_count; i <= watch; i++) {
			settle->times[i].settle_ms = DEFAULT_SETTLE_MS;
			settle->times[i].stall_ms = DEFAULT_STALL_MS;
		}
		settle->watch_count = watch + 1;
	}
	settle->times[watch].settle_ms = ms;
	settle->times[watch].stall_ms = stalled_ms;
	for (struct entry *entry = settle->all; entry; entry = entry->next)
		plan(settle, entry);
	return TPD_OK;
}

void tpd_settle_drop_watch(struct tpd_settle *settle, uint32_t watch)
{
	for (struct entry *entry = settle->all, *next; entry; entry = next) {
		next = entry->next;
		if (entry->watch != watch)
			continue;
		if (entry->state == CAPTURING || entry->state == CAPTURED)
			entry->gone = true;
		else
			remove_entry(settle, entry);
	}
}

/* --- what was seen --- */

/* Files went away and nothing else happened: the rest is no newer than what was taken. */
static bool only_deletions(const struct tpd_seen *taken, const struct tpd_seen *seen)
{
	return seen->count < taken->count && seen->bytes <= taken->bytes && seen->newest_ns <= taken->newest_ns;
}

static void decide(struct tpd_settle *settle, struct entry *entry)
{
	const struct tpd_seen *seen = &entry->seen;

	assert(entry->state == GROWING);
	if (seen->count == 0 || seen->readiness == TPD_SEEN_WAITING || entry->looked_ms < entry->retry_ms)
		return;
	/* Settled means: looked at again after the time was over, and still the same. */
	if (entry->looked_ms >= settled_at(settle, entry))
		entry->state = CANDIDATE;
	else if (seen->readiness == TPD_SEEN_COMPLETE && !lacks_ranks(entry))
		entry->state = CANDIDATE;
	entry->wanted = entry->wanted || entry->state == CANDIDATE;
}

enum tpd_status tpd_settle_seen(struct tpd_settle *settle, const struct tpd_seen *seen, uint64_t now_ms,
				struct tpd_err *err)
{
	struct entry *entry = find(settle, seen->path);
	bool is_new = !entry, changed;
	struct run *run;

	if (!entry) {
		entry = add_entry(settle, seen);
		if (!entry)
			return tpd_fail_nomem(err);
	}
	changed = is_new || entry->gone || seen->signature != entry->seen.signature;
	if (strcmp(entry->run->name, seen->run) != 0) {
		run = get_run(settle, seen->run);
		if (!run)
			return tpd_fail_nomem(err);
		put_run(entry->run);
		entry->run = run;
		run->entries++;
	}
	entry->step = seen->step;
	entry->watch = seen->watch;
	entry->gone = false;
	entry->seen = *seen;
	entry->seen.path = entry->seen.run = NULL;
	entry->looked_ms = now_ms;
	if (changed) {
		entry->changed_ms = (int64_t)now_ms - (int64_t)TPD_MIN(seen->quiet_ms, (uint64_t)QUIET_KNOWN_MAX_MS);
		entry->retry_ms = 0;
		entry->failures = entry->voids = 0;
		entry->stalled = false;
	}
	switch (entry->state) {
	case GROWING:
		break;
	case CANDIDATE:
		if (changed)
			entry->state = GROWING;
		break;
	case CAPTURING:
		if (changed && !only_deletions(&entry->taken, seen))
			entry->void_later = true;
		break;
	case CAPTURED:
	case STORED:
	case REFUSED:
		if (!changed || (entry->state != REFUSED && only_deletions(&entry->taken, seen)))
			return TPD_OK;
		entry->state = GROWING;
		break;
	}
	if (entry->state == GROWING)
		decide(settle, entry);
	if (entry->state == GROWING && changed && seen->readiness != TPD_SEEN_WAITING) {
		entry->restless_ms = entry->restless_ms ? entry->restless_ms : TPD_MAX(now_ms, (uint64_t)1);
		entry->restless = !entry->told && now_ms >= later(entry->restless_ms, stall_ms(settle, entry->watch));
	}
	plan(settle, entry);
	return TPD_OK;
}

bool tpd_settle_gone(struct tpd_settle *settle, const char *path)
{
	struct entry *entry = find(settle, path);
	bool lost;

	if (!entry)
		return false;
	if (entry->state == CAPTURING || entry->state == CAPTURED) {
		entry->gone = true;
		return false;
	}
	lost = entry->wanted;
	remove_entry(settle, entry);
	return lost;
}

bool tpd_settle_is_unsettled(const struct tpd_settle *settle, const char *path)
{
	const struct entry *entry = find(settle, path);

	return entry && entry->state == GROWING && entry->seen.readiness == TPD_SEEN_SETTLING && !entry->wanted && entry->generation == 0;
}

/* --- what to do --- */

static struct tpd_settle_order order_for(const struct tpd_settle *settle, const struct entry *entry,
					 enum tpd_settle_action action, uint64_t now_ms)
{
	uint64_t quiet_ms = TPD_MIN(settle_ms(settle, entry->watch), (uint64_t)QUIET_MAX_MS);
	uint64_t past_ms = (uint64_t)TPD_MAX((int64_t)now_ms - entry->changed_ms, (int64_t)0);

	return (struct tpd_settle_order){
		.action = action,
		.path = entry->path,
		.run = entry->run->name,
		.framework = entry->seen.framework,
		.step = entry->step,
		.watch = entry->watch,
		.generation = entry->generation,
		.quiet_ms = quiet_ms - TPD_MIN(quiet_ms, past_ms),
		.count = entry->seen.count,
		.bytes = entry->seen.bytes,
		.newest_ns = entry->seen.newest_ns,
		.waits = entry->seen.waits.text,
		.again = entry->was_captured,
	};
}

static int compare(const struct entry *a, const struct entry *b)
{
	int order = strcmp(a->run->name, b->run->name);

	return order != 0 ? order : (a->step > b->step) - (a->step < b->step);
}

struct tpd_settle_order tpd_settle_next(struct tpd_settle *settle, uint64_t now_ms, bool may_capture)
{
	struct entry *best = NULL;
	uint64_t due = UINT64_MAX;

	if (now_ms < settle->due_ms && !(may_capture && settle->held_back))
		return (struct tpd_settle_order){0};
	settle->held_back = false;
	settle->due_ms = 0; /* until all have been asked */
	for (struct entry *entry = settle->all; entry; entry = entry->next) {
		if (entry->restless) {
			entry->restless = false;
			entry->told = true;
			plan(settle, entry);
			return order_for(settle, entry, TPD_SETTLE_RESTLESS, now_ms);
		}
		if (entry->state == GROWING && entry->due_ms <= now_ms && entry->seen.readiness == TPD_SEEN_WAITING) {
			entry->stalled = true;
			plan(settle, entry);
			return order_for(settle, entry, TPD_SETTLE_STALLED, now_ms);
		}
		if (entry->state == GROWING && entry->due_ms <= now_ms) {
			/* Once for each time that is over; if nobody looks, again after another. */
			entry->due_ms =
				later(now_ms, TPD_MAX(settle_ms(settle, entry->watch), (uint64_t)LOOK_AGAIN_MS));
			return order_for(settle, entry, TPD_SETTLE_LOOK, now_ms);
		}
		if (entry->state != CANDIDATE)
			due = TPD_MIN(due, entry->due_ms);
		else if (!may_capture)
			settle->held_back = true;
		else if (!best || compare(entry, best) < 0)
			best = entry;
	}
	if (best) {
		best->state = CAPTURING;
		best->void_later = false;
		best->generation++;
		best->taken = best->seen;
		best->due_ms = UINT64_MAX;
		return order_for(settle, best, TPD_SETTLE_CAPTURE, now_ms);
	}
	settle->due_ms = due;
	return (struct tpd_settle_order){0};
}

uint64_t tpd_settle_due(const struct tpd_settle *settle)
{
	return settle->due_ms;
}

/* --- news about captures --- */

static struct entry *find_capture(struct tpd_settle *settle, const char *path, uint32_t generation)
{
	struct entry *entry = find(settle, path);

	return entry && entry->generation == generation && (entry->state == CAPTURING || entry->state == CAPTURED)
		? entry
		: NULL;
}

static void back_to_growing(struct tpd_settle *settle, struct entry *entry, uint64_t now_ms)
{
	entry->state = GROWING;
	entry->changed_ms = (int64_t)now_ms;
	entry->looked_ms = 0;
	/* The next look decides; it is due at once, since what was seen last is known to be old. If it is not, it may be so for long. */
	if (++entry->voids > VOIDS_AT_ONCE)
		entry->retry_ms =
			later(now_ms, tpd_clock_backoff_ms(VOID_MS, VOID_MAX_MS, entry->voids - VOIDS_AT_ONCE - 1));
	entry->due_ms = TPD_MAX(now_ms, entry->retry_ms);
	settle->due_ms = TPD_MIN(settle->due_ms, entry->due_ms);
}

bool tpd_settle_captured(struct tpd_settle *settle, const char *path, uint32_t generation)
{
	struct entry *entry = find_capture(settle, path, generation);

	if (!entry)
		return false;
	if (entry->taken.step >= entry->run->ranks_step) {
		entry->run->has_ranks = true;
		entry->run->ranks_step = entry->taken.step;
		entry->run->ranks = TPD_MAX(entry->taken.rank_span, entry->taken.ranks); /* files: a rank may write several */
	}
	entry->state = CAPTURED;
	entry->was_captured = true;
	entry->wanted = false;
	entry->restless_ms = 0;
	entry->told = false;
	return true;
}

bool tpd_settle_void(struct tpd_settle *settle, const char *path, uint32_t generation, uint64_t now_ms)
{
	struct entry *entry = find(settle, path);

	if (!entry || entry->generation != generation || entry->state == GROWING || entry->state == CANDIDATE)
		return false;
	if (entry->gone) {
		remove_entry(settle, entry);
		return true;
	}
	back_to_growing(settle, entry, now_ms);
	return false;
}

uint64_t tpd_settle_failed(struct tpd_settle *settle, const char *path, uint32_t generation, uint64_t now_ms,
			   unsigned *out_tries)
{
	struct entry *entry = find_capture(settle, path, generation);
	uint64_t delay_ms;

	if (!entry || entry->gone) {
		tpd_settle_void(settle, path, generation, now_ms);
		return 0;
	}
	delay_ms = tpd_clock_backoff_ms(RETRY_MIN_MS, RETRY_MAX_MS, entry->failures);
	*out_tries = ++entry->failures;
	entry->state = GROWING;
	entry->retry_ms = later(now_ms, delay_ms);
	plan(settle, entry);
	return delay_ms;
}

/* Of a capture that has come to its end; NULL: of an older generation, or its path is gone, and with it the entry. */
static struct entry *find_ended(struct tpd_settle *settle, const char *path, uint32_t generation)
{
	struct entry *entry = find_capture(settle, path, generation);

	if (entry && entry->gone) {
		remove_entry(settle, entry);
		return NULL;
	}
	return entry;
}

void tpd_settle_refused(struct tpd_settle *settle, const char *path, uint32_t generation)
{
	struct entry *entry = find_ended(settle, path, generation);

	if (!entry)
		return;
	entry->wanted = entry->void_later = false;
	/* It may have changed since it was taken: what went away was passed over as rotation. */
	entry->state = entry->seen.signature == entry->taken.signature ? REFUSED : GROWING;
	plan(settle, entry);
}

bool tpd_settle_is_refused(const struct tpd_settle *settle, const char *path)
{
	const struct entry *entry = find(settle, path);

	return entry && entry->state == REFUSED;
}

static bool waits_for_retry(const struct entry *entry, uint64_t now_ms)
{
	return entry->state == REFUSED || (entry->state == GROWING && entry->failures > 0 && entry->retry_ms > now_ms);
}

size_t tpd_settle_retry(struct tpd_settle *settle, uint64_t now_ms)
{
	size_t n = 0;

	for (struct entry *entry = settle->all; entry; entry = entry->next) {
		if (!waits_for_retry(entry, now_ms))
			continue;
		entry->state = GROWING;
		entry->retry_ms = 0;
		entry->due_ms = now_ms;
		settle->due_ms = TPD_MIN(settle->due_ms, now_ms);
		n++;
	}
	return n;
}

void tpd_settle_done(struct tpd_settle *settle, const char *path, uint32_t generation)
{
	struct entry *entry = find_ended(settle, path, generation);

	if (!entry)
		return;
	entry->state = STORED;
	entry->wanted = false;
	if (entry->void_later) { /* what was captured is whole; the change came after */
		entry->void_later = false;
		entry->state = GROWING;
		plan(settle, entry);
	}
}

/* --- questions --- */

bool tpd_settle_is_there(const struct tpd_settle *settle, const char *path)
{
	const struct entry *entry = find(settle, path);

	return entry && !entry->gone;
}

struct tpd_settle_counts tpd_settle_count(const struct tpd_settle *settle, uint32_t watch)
{
	struct tpd_settle_counts counts = {0};

	for (const struct entry *entry = settle->all; entry; entry = entry->next) {
		if (entry->gone || (watch != UINT32_MAX && entry->watch != watch))
			continue;
		counts.checkpoints++;
		counts.unfinished += entry->state == GROWING || entry->state == CANDIDATE || entry->state == CAPTURING;
		counts.refused += entry->state == REFUSED;
	}
	for (const struct run *run = settle->runs; run; run = run->next) {
		for (const struct entry *entry = settle->all; entry && run->entries > 0; entry = entry->next) {
			if (entry->run == run && !entry->gone && (watch == UINT32_MAX || entry->watch == watch)) {
				counts.runs++;
				break;
			}
		}
	}
	return counts;
}

bool tpd_settle_capturing_below(const struct tpd_settle *settle, const char *run, uint64_t step)
{
	for (const struct entry *entry = settle->all; entry; entry = entry->next) {
		if ((entry->state == CAPTURING || entry->state == CANDIDATE) && entry->step < step &&
		    strcmp(entry->run->name, run) == 0)
			return true;
	}
	return false;
}

void tpd_settle_unfinished(const struct tpd_settle *settle, size_t max,
			   void (*fn)(void *arg, const struct tpd_unfinished_sight *sight), void *arg)
{
	for (const struct entry *entry = settle->all; entry && max > 0; entry = entry->next) {
		struct tpd_unfinished_sight sight = {
			.path = entry->path,
			.run = entry->run->name,
			.framework = entry->seen.framework,
			.waits = entry->seen.readiness == TPD_SEEN_WAITING ? entry->seen.waits.text : "",
			.step = entry->step,
			.since_ms = (uint64_t)TPD_MAX(entry->changed_ms, (int64_t)0),
			.retry_ms = entry->failures > 0 ? entry->retry_ms : 0,
			.watch = entry->watch,
		};

		if (entry->gone || entry->state == CAPTURED || entry->state == STORED || entry->state == REFUSED)
			continue;
		fn(arg, &sight);
		max--;
	}
}
