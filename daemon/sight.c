/*
 * sight.c - from the tree to checkpoints: which nodes and files are any, of which run and step, and how complete they
 * look.
 *
 * A directory is judged by its name and by what is below it (recognise.h), so from the bottom up; once one is a
 * checkpoint, all below belongs to it. Only what was stirred since the last report is looked at. The signature is a sum
 * of hashes, one a file: it needs no order and no memory.
 */
#include "base/tpd.h"

#include "daemon/frameworks.h"
#include "daemon/tree.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "archive/step.h"
#include "base/digest.h"
#include "base/text.h"

/* --- how complete it is --- */

static void add_to_seen(struct tpd_seen *seen, const struct tpd_file *file, uint64_t above)
{
	uint64_t key[6] = {above,
			   tpd_xxh64(file->name, strlen(file->name)),
			   file->size,
			   (uint64_t)file->mtime_ns,
			   (uint64_t)file->ctime_ns,
			   (uint64_t)file->ino};

	seen->signature += tpd_xxh64(key, sizeof key);
	seen->count++;
	seen->bytes += file->size;
	seen->newest_ns = TPD_MAX(seen->newest_ns, TPD_MAX(file->mtime_ns, file->ctime_ns));
}

static void add_up(const struct tpd_node *node, uint64_t above, const struct tpd_framework *framework, struct tpd_seen *seen)
{
	for (size_t i = 0; i < node->file_count; i++) {
		const struct tpd_file *file = &node->files[i];
		uint64_t rank;

		add_to_seen(seen, file, above);
		if (framework->rank_of && framework->rank_of(file->name, &rank)) {
			seen->ranks++;
			seen->rank_span = TPD_MAX(seen->rank_span, rank + 1);
		}
	}
	for (const struct tpd_node *child = node->children; child; child = child->next) {
		uint64_t key[2] = {above, tpd_xxh64(child->name, strlen(child->name))};

		add_up(child, tpd_xxh64(key, sizeof key), framework, seen);
	}
}

/* When something was last taken away, here or below, as far as that can be seen; 0: never. */
static int64_t removed_ns(const struct tpd_node *node)
{
	int64_t last = node->removed_ns;

	for (const struct tpd_node *child = node->children; child; child = child->next)
		last = TPD_MAX(last, removed_ns(child));
	return last;
}

/* A directory of one model-parallel rank's files, as NeMo names them. */
static bool is_of_a_rank(const struct tpd_node *node)
{
	static const char *const prefixes[] = {"mp_rank_", "tp_rank_", "fsdp_shard_"};

	for (size_t i = 0; i < TPD_ARRAY_LEN(prefixes); i++) {
		if (strncmp(node->name, prefixes[i], strlen(prefixes[i])) == 0)
			return node->parent != NULL;
	}
	return false;
}

/*
 * NeMo and others put NAME-unfinished beside what they write, and while they delete it. To NeMo's NAME neither .ckpt nor, before
 * that, -EMA belongs: both files have one marker. And so have those of all ranks of a model-parallel run, which lie in directories of
 * their own: it lies beside these.
 */
static bool is_marked_unfinished(const struct tpd_node *parent, const char *name, struct tpd_waits *why)
{
	static const char *const endings[] = {"", ".ckpt", "-EMA.ckpt", "-EMA"};
	const struct tpd_node *above = is_of_a_rank(parent) ? parent->parent : NULL;

	for (size_t i = 0; i < TPD_ARRAY_LEN(endings); i++) {
		TPD_AUTO_FREE char *marker = NULL;

		if (!tpd_text_has_suffix(name, endings[i]))
			continue;
		if (asprintf(&marker, "%.*s-unfinished", (int)(strlen(name) - strlen(endings[i])), name) < 0)
			marker = NULL;
		if (!marker || !(tpd_tree_file(parent, marker) || (above && tpd_tree_file(above, marker))))
			continue;
		snprintf(why->text, sizeof why->text, "%.150s lies beside %s", marker,
			 tpd_tree_file(parent, marker) ? "it" : parent->name);
		return true;
	}
	return false;
}

static uint64_t quiet_ms(const struct tpd_scan *scan, const struct tpd_node *node, int64_t newest_ns)
{
	if (node->remote || newest_ns >= scan->now_ns)
		return 0;
	return (uint64_t)(scan->now_ns - newest_ns) / 1000000;
}

/* --- reporting --- */

static void add_seen(struct tpd_scan *scan, struct tpd_seen *seen, const char *path, const char *run)
{
	struct tpd_scan_result *result = scan->result;

	if (result->seen_count == result->seen_cap) {
		size_t cap = result->seen_cap ? result->seen_cap * 2 : 16;
		struct tpd_seen *grown = reallocarray(result->seen, cap, sizeof *grown);

		if (!grown) {
			result->status = TPD_NOMEM;
			return;
		}
		result->seen = grown;
		result->seen_cap = cap;
	}
	seen->path = strdup(path);
	seen->run = strdup(run);
	if (!seen->path || !seen->run) {
		free((char *)(uintptr_t)seen->path);
		free((char *)(uintptr_t)seen->run);
		result->status = TPD_NOMEM;
		return;
	}
	result->seen[result->seen_count++] = *seen;
}

/* Is the run's name one that the store takes? Said once. */
static bool name_is_fit(struct tpd_scan *scan, struct tpd_node *node, const char *run, const char *path)
{
	if (tpd_text_is_run_name(run))
		return true;
	if (!node->noted_run)
		tpd_scan_note(scan, true, node->root->name, "'%s' is not stored: '%s' cannot be the name of a run",
			      path, run);
	node->noted_run = true;
	return false;
}

/* Nothing in here or below is a checkpoint of its own any more. */
static void retract(struct tpd_scan *scan, struct tpd_node *node, bool itself)
{
	if (itself && node->known) {
		tpd_scan_gone(scan, tpd_tree_path(node, NULL));
		node->known = node->waiting = false;
	}
	for (size_t i = 0; i < node->file_count; i++) {
		if (node->files[i].known)
			tpd_scan_gone(scan, tpd_tree_path(node, node->files[i].name));
		node->files[i].known = false;
	}
	for (struct tpd_node *child = node->children; child; child = child->next)
		retract(scan, child, true);
}

static void settle_marks(struct tpd_node *node)
{
	node->stirred = node->look = false;
	for (struct tpd_node *child = node->children; child; child = child->next)
		settle_marks(child);
}

static void report_directory(struct tpd_scan *scan, struct tpd_node *node, const struct tpd_framework *framework,
			     uint64_t step, const char *run, const char *path)
{
	struct tpd_seen seen = {.step = step, .watch = node->root->id, .framework = framework->name};
	const int64_t removed = removed_ns(node);
	bool look = node->look;

	retract(scan, node, false);
	settle_marks(node);
	if (!name_is_fit(scan, node, run, path))
		return;
	add_up(node, 0, framework, &seen);
	seen.readiness = is_marked_unfinished(node->parent, node->name, &seen.waits) ? TPD_SEEN_WAITING
										      : framework->complete(node, path, &seen.waits);
	/* A marker vouches for what was there when it was written. It may be the last to go in a deletion that has begun. */
	if (seen.readiness == TPD_SEEN_COMPLETE && removed > seen.newest_ns)
		seen.readiness = TPD_SEEN_SETTLING;
	node->waiting = seen.readiness == TPD_SEEN_WAITING;
	if (node->waiting) /* what it waits for may change though nothing in it does */
		seen.signature += tpd_xxh64(seen.waits.text, strlen(seen.waits.text));
	if (node->known && node->signature == seen.signature && !look)
		return; /* read again, and the same */
	node->signature = seen.signature;
	/* With nothing in it yet it is as new as itself: else it would have waited for its marker since 1970. */
	seen.quiet_ms = quiet_ms(scan, node, TPD_MAX(TPD_MAX(seen.newest_ns, removed), TPD_MAX(node->mtime_ns, node->ctime_ns)));
	add_seen(scan, &seen, path, run);
	node->known = true;
}

static void report_file(struct tpd_scan *scan, struct tpd_node *node, struct tpd_file *file, const char *run,
			const char *directory)
{
	struct tpd_seen seen = {.step = file->step, .watch = node->root->id, .framework = "file"};
	TPD_AUTO_FREE char *path = tpd_tree_join(directory, file->name);

	if (!path) {
		scan->result->status = TPD_NOMEM;
		return;
	}
	file->changed = file->look = false;
	if (!name_is_fit(scan, node, run, path))
		return;
	add_to_seen(&seen, file, 0);
	seen.quiet_ms = quiet_ms(scan, node, seen.newest_ns);
	file->waiting = is_marked_unfinished(node, file->name, &seen.waits);
	seen.readiness = !file->waiting && tpd_recognise_whole_file(path) ? TPD_SEEN_SETTLING : TPD_SEEN_WAITING;
	if (seen.readiness == TPD_SEEN_WAITING && !file->waiting)
		snprintf(seen.waits.text, sizeof seen.waits.text, "it has no end yet");
	add_seen(scan, &seen, path, run);
	file->known = true;
}

static void report(struct tpd_scan *scan, struct tpd_node *node, const char *run, const char *path);

/* A file's step: by the configuration's pattern where there is one, else by its name. */
static bool file_is_one(struct tpd_node *node, struct tpd_file *file, const char *directory)
{
	TPD_AUTO_FREE char *path = NULL;
	bool applies = false;

	if (!node->root->has_step_regex)
		return file->role == TPD_FILE_CHECKPOINT;
	path = tpd_tree_join(directory, file->name);
	return path && tpd_framework_regex_step(node->root, path, &applies, &file->step);
}

/*
 * last.ckpt: what it holds tells the step, once it is whole; until then an older one that was reported is one that is written again. Its
 * step is read again at each look, so also at the one after which it counts as settled.
 */
static void report_unnumbered(struct tpd_scan *scan, struct tpd_node *node, struct tpd_file *file, const char *run,
			      const char *directory)
{
	TPD_AUTO_FREE char *path = tpd_tree_join(directory, file->name);
	bool whole;

	if (!path) {
		scan->result->status = TPD_NOMEM;
		return;
	}
	whole = tpd_recognise_whole_file(path);
	if (whole ? tpd_step_torch(path, &file->step) : file->known) {
		report_file(scan, node, file, run, directory);
		return;
	}
	if (file->known)
		tpd_scan_gone(scan, strdup(path));
	if (whole && !file->noted)
		tpd_scan_note(scan, false, run, "'%s' is not stored: it tells no step", path);
	file->noted = file->noted || whole;
	file->changed = file->look = file->known = false;
}

static void report_files(struct tpd_scan *scan, struct tpd_node *node, const char *run, const char *path)
{
	for (size_t i = 0; i < node->file_count; i++) {
		struct tpd_file *file = &node->files[i];

		if (tpd_recognise_ignored(file->name))
			continue;
		if (!file->changed && !file->look && !file->waiting)
			continue;
		if (file_is_one(node, file, path))
			report_file(scan, node, file, run, path);
		else if (file->role == TPD_FILE_UNNUMBERED && !node->root->has_step_regex)
			report_unnumbered(scan, node, file, run, path);
	}
}

static void report_children(struct tpd_scan *scan, struct tpd_node *node, const char *run, const char *path)
{
	for (struct tpd_node *child = node->children; child; child = child->next) {
		const struct tpd_framework *framework = NULL;
		const char *nameless = NULL;
		uint64_t step = 0;
		char *child_path, *child_run = NULL;

		if (!child->stirred && !child->waiting)
			continue;
		child_path = tpd_tree_join(path, child->name);
		if (asprintf(&child_run, "%s/%s", run, child->name) < 0)
			child_run = NULL;
		if (child_path)
			framework = tpd_framework_of(child, child_path, &step, &nameless);
		if (nameless && !child->noted_step)
			tpd_scan_note(scan, false, run, "'%s' (%s) is not stored: it tells no step", child_path, nameless);
		child->noted_step = child->noted_step || nameless;
		if (!child_path || !child_run) {
			scan->result->status = TPD_NOMEM;
		} else if (framework) {
			report_directory(scan, child, framework, step, run, child_path);
		} else {
			if (child->known)
				tpd_scan_gone(scan, strdup(child_path));
			child->known = child->waiting = false;
			report(scan, child, child_run, child_path);
		}
		free(child_path);
		free(child_run);
	}
}

/* A container and what is below it. */
static void report(struct tpd_scan *scan, struct tpd_node *node, const char *run, const char *path)
{
	report_files(scan, node, run, path);
	report_children(scan, node, run, path);
	node->stirred = node->look = node->waiting = false;
	for (size_t i = 0; i < node->file_count; i++)
		node->waiting = node->waiting || node->files[i].waiting; /* for what may lie above */
}

void tpd_sight_report(struct tpd_scan *scan, struct tpd_root *root)
{
	if (root->node && root->node->stirred)
		report(scan, root->node, root->name, root->node->name);
}
