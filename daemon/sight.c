/*
 * sight.c - from the tree to checkpoints: which nodes and files are any, of which run and step, and how complete they
 * look.
 *
 * A directory is judged by its name and by what is below it (recognise.h), so from the bottom up; once one is a
 * checkpoint, all below belongs to it. Only what was stirred since the last report is looked at. The signature is a sum
 * of hashes, one a file: it needs no order and no memory.
 */
#include "base/tpd.h"

#include "daemon/tree.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/digest.h"
#include "base/text.h"

#define MARKER "trainer_state.json"

/* --- what a directory holds --- */

static void gather(const struct tpd_node *node, struct tpd_dir_facts *facts)
{
	for (size_t i = 0; i < node->file_count; i++) {
		const struct tpd_file *file = &node->files[i];

		facts->payload = facts->payload || tpd_recognise_payload(file->name, file->size);
		facts->checkpoints = facts->checkpoints || tpd_recognise_step_file(file->name);
	}
	for (const struct tpd_node *child = node->children; child; child = child->next) {
		facts->checkpoints = facts->checkpoints || tpd_recognise_step_dir(child->name);
		gather(child, facts);
	}
}

static bool holds_marker(const struct tpd_node *node)
{
	return tpd_tree_file(node, MARKER) != NULL;
}

static enum tpd_dir_class classify(const struct tpd_node *node, uint64_t *out_step)
{
	struct tpd_dir_facts facts = {.name = node->parent ? node->name : NULL};

	if (!facts.name)
		return TPD_DIR_CONTAINER;
	gather(node, &facts);
	facts.trainer_state = holds_marker(node);
	facts.trainer_files = tpd_tree_file(node, "training_args.bin") ||
		(tpd_tree_file(node, "optimizer.pt") && tpd_tree_file(node, "scheduler.pt"));
	for (const struct tpd_node *child = node->parent->children; child && !facts.trainer_siblings;
	     child = child->next)
		facts.trainer_siblings =
			child != node && strncmp(child->name, "checkpoint-", 11) == 0 && holds_marker(child);
	for (size_t i = 0; i < node->file_count; i++)
		facts.numbered_files = facts.numbered_files || node->files[i].role == TPD_FILE_CHECKPOINT;
	return tpd_recognise_dir(&facts, out_step);
}

/* --- how complete it is --- */

struct sum {
	struct tpd_seen *seen;
	int64_t newest_other_ns; /* mtime of the newest file but the marker and the ranks' states */
	bool unfinished_names; /* files named as temporary */
};

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

static void add_up(const struct tpd_node *node, uint64_t above, struct sum *sum)
{
	for (size_t i = 0; i < node->file_count; i++) {
		const struct tpd_file *file = &node->files[i];
		uint64_t rank;

		add_to_seen(sum->seen, file, above);
		sum->unfinished_names = sum->unfinished_names || tpd_recognise_ignored(file->name);
		if (tpd_recognise_rank(file->name, &rank)) {
			sum->seen->ranks++;
			sum->seen->rank_span = TPD_MAX(sum->seen->rank_span, rank + 1);
		} else if (strcmp(file->name, MARKER) != 0) {
			sum->newest_other_ns = TPD_MAX(sum->newest_other_ns, file->mtime_ns);
		}
	}
	for (const struct tpd_node *child = node->children; child; child = child->next) {
		uint64_t key[2] = {above, tpd_xxh64(child->name, strlen(child->name))};

		add_up(child, tpd_xxh64(key, sizeof key), sum);
	}
}

static bool has_file(void *arg, const char *name)
{
	const struct tpd_node *node = arg;

	return tpd_tree_file(node, name) != NULL;
}

/* By the HF Trainer's own order: weights, optimizer, ..., trainer_state.json last. */
static enum tpd_readiness trainer_readiness(struct tpd_node *node, const char *path, const struct sum *sum)
{
	struct tpd_file *marker = tpd_tree_file(node, MARKER);
	TPD_AUTO_FREE char *file_path = NULL;
	bool weights = node->children != NULL; /* sharded and DeepSpeed states lie in directories */

	if (!marker)
		return TPD_SEEN_WAITING;
	if (!marker->checked) {
		if (asprintf(&file_path, "%s/%s", path, MARKER) < 0)
			file_path = NULL;
		marker->valid = file_path && tpd_recognise_json(file_path);
		marker->checked = file_path != NULL;
	}
	if (!marker->valid)
		return TPD_SEEN_WAITING;
	for (size_t i = 0; i < node->file_count; i++) {
		const char *name = node->files[i].name, *end = strstr(name, ".index.json");
		TPD_AUTO_FREE char *index = NULL;

		weights = weights || tpd_recognise_weights(name);
		if (!end || strcmp(end, ".index.json") != 0)
			continue;
		if (asprintf(&index, "%s/%s", path, name) < 0)
			index = NULL;
		if (!index || !tpd_recognise_shards(index, has_file, node))
			return TPD_SEEN_WAITING;
	}
	/*
	 * A marker older than what it marks is a left-over: the checkpoint is being re-written, or was copied in
	 * another order.
	 */
	if (!weights || sum->unfinished_names || marker->mtime_ns < sum->newest_other_ns)
		return TPD_SEEN_SETTLING;
	return TPD_SEEN_COMPLETE;
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
		node->known = false;
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

static void report_directory(struct tpd_scan *scan, struct tpd_node *node, enum tpd_dir_class class, uint64_t step,
			     const char *run, const char *path)
{
	struct tpd_seen seen = {.step = step, .watch = node->root->id};
	struct sum sum = {.seen = &seen};

	bool look = node->look;

	retract(scan, node, false);
	settle_marks(node);
	if (!name_is_fit(scan, node, run, path))
		return;
	add_up(node, 0, &sum);
	if (node->known && node->signature == seen.signature && !look)
		return; /* read again, and the same */
	node->signature = seen.signature;
	seen.quiet_ms = quiet_ms(scan, node, seen.newest_ns);
	seen.readiness = class == TPD_DIR_TRAINER ? trainer_readiness(node, path, &sum) : TPD_SEEN_SETTLING;
	add_seen(scan, &seen, path, run);
	node->known = true;
}

static void report_file(struct tpd_scan *scan, struct tpd_node *node, struct tpd_file *file, const char *run,
			const char *directory)
{
	struct tpd_seen seen = {.step = file->step, .watch = node->root->id};
	TPD_AUTO_FREE char *path = NULL;

	if (asprintf(&path, "%s/%s", strcmp(directory, "/") == 0 ? "" : directory, file->name) < 0) {
		path = NULL;
		scan->result->status = TPD_NOMEM;
		return;
	}
	file->changed = file->look = false;
	if (!name_is_fit(scan, node, run, path))
		return;
	add_to_seen(&seen, file, 0);
	seen.quiet_ms = quiet_ms(scan, node, seen.newest_ns);
	seen.readiness = tpd_recognise_whole_file(path) ? TPD_SEEN_SETTLING : TPD_SEEN_WAITING;
	add_seen(scan, &seen, path, run);
	file->known = true;
}

static void report(struct tpd_scan *scan, struct tpd_node *node, const char *run, const char *path);

static void report_files(struct tpd_scan *scan, struct tpd_node *node, const char *run, const char *path)
{
	for (size_t i = 0; i < node->file_count; i++) {
		struct tpd_file *file = &node->files[i];

		if (file->role == TPD_FILE_CHECKPOINT && !tpd_recognise_ignored(file->name)) {
			if (file->changed || file->look)
				report_file(scan, node, file, run, path);
		} else if (file->role == TPD_FILE_UNNUMBERED && !tpd_recognise_ignored(file->name) && !file->noted) {
			tpd_scan_note(scan, false, run, "'%s/%s' is not stored: its name tells no step", path,
				      file->name);
			file->noted = true;
		}
	}
}

static void report_children(struct tpd_scan *scan, struct tpd_node *node, const char *run, const char *path)
{
	for (struct tpd_node *child = node->children; child; child = child->next) {
		enum tpd_dir_class class;
		uint64_t step = 0;
		char *child_path = NULL, *child_run = NULL;

		if (!child->stirred)
			continue;
		class = classify(child, &step);
		if (asprintf(&child_path, "%s/%s", strcmp(path, "/") == 0 ? "" : path, child->name) < 0)
			child_path = NULL;
		if (asprintf(&child_run, "%s/%s", run, child->name) < 0)
			child_run = NULL;
		if (!child_path || !child_run) {
			scan->result->status = TPD_NOMEM;
		} else if (class != TPD_DIR_CONTAINER) {
			report_directory(scan, child, class, step, run, child_path);
		} else {
			if (child->known)
				tpd_scan_gone(scan, strdup(child_path));
			child->known = false;
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
	node->stirred = node->look = false;
}

void tpd_sight_report(struct tpd_scan *scan, struct tpd_root *root)
{
	if (root->node && root->node->stirred)
		report(scan, root->node, root->name, root->node->name);
}
