/*
 * frameworks.c - the table of frameworks.h.
 *
 * Rules of completion, and why no simpler ones: a file that was closed may be opened again (safetensors closes after its rename,
 * DCP's consolidation closes a header first), a size that is final may be a file full of holes, and every framework that
 * overwrites a directory leaves the old marker standing while it does. So a marker counts only if it is not older than what it marks,
 * and what has several writers without a barrier must have all of them.
 *
 * Rejected: rules in a configuration file for all of them (they need more than patterns). What is not in the table can be taught
 * with complete_when= and step_regex=.
 */
#include "base/tpd.h"

#include "daemon/frameworks.h"

#include <fcntl.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "archive/step.h"
#include "archive/trainer_state.h"
#include "base/text.h"

#define MARKER TPD_TRAINER_STATE
#define TRACKER "latest_checkpointed_iteration.txt"
#define BACKUP_WEIGHTS "latest.weights.h5"
#define BACKUP_STATE TPD_STEP_KERAS
#define LATEST_MAX 256 /* bytes of a file that names the newest checkpoint */

static enum tpd_readiness wait_for(struct tpd_waits *why, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static enum tpd_readiness wait_for(struct tpd_waits *why, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(why->text, sizeof why->text, fmt, args);
	va_end(args);
	return TPD_SEEN_WAITING;
}

static bool has_file(void *arg, const char *name)
{
	const struct tpd_node *node = arg;

	return tpd_tree_file(node, name) != NULL;
}

/* The step in its trainer_state.json, read once for each state of it. NULL: there is no such file. */
static const struct tpd_file *read_marker(struct tpd_node *node, const char *path)
{
	struct tpd_file *marker = tpd_tree_file(node, MARKER);

	if (marker && !marker->checked) {
		TPD_AUTO_FREE char *full = tpd_tree_join(path, MARKER);

		marker->valid = full && tpd_step_trainer_state(full, &marker->step);
		marker->checked = full != NULL;
	}
	return marker;
}

/* As tpd_step_of() says, of what is in the tree: a trainer_state.json has the word, then the name. */
static bool plain_step(struct tpd_node *node, const char *path, uint64_t *out_step)
{
	const struct tpd_file *marker = read_marker(node, path);

	if (!marker)
		return tpd_step_dir_name(node->name, out_step);
	*out_step = marker->step;
	return marker->valid;
}

/* --- what several of them share --- */

/* The newest mtime in it and below, but for files that skip() names. */
static int64_t newest(const struct tpd_node *node, bool (*skip)(const char *name))
{
	int64_t ns = INT64_MIN;

	for (size_t i = 0; i < node->file_count; i++) {
		if (!skip || !skip(node->files[i].name))
			ns = TPD_MAX(ns, node->files[i].mtime_ns);
	}
	for (const struct tpd_node *child = node->children; child; child = child->next)
		ns = TPD_MAX(ns, newest(child, skip));
	return ns;
}

/* A file's contents looked at once for each state of it. */
static bool check_once(struct tpd_file *file, const char *path, bool (*check)(const char *path))
{
	if (!file->checked) {
		TPD_AUTO_FREE char *full = tpd_tree_join(path, file->name);

		file->valid = full && check(full);
		file->checked = full != NULL;
	}
	return file->valid;
}

/* Every shard that an index names is there. */
static bool shards_there(struct tpd_node *node, const char *path, struct tpd_waits *why)
{
	for (size_t i = 0; i < node->file_count; i++) {
		TPD_AUTO_FREE char *index = NULL;

		if (!tpd_text_has_suffix(node->files[i].name, ".index.json"))
			continue;
		index = tpd_tree_join(path, node->files[i].name);
		if (index && tpd_recognise_shards(index, has_file, node))
			continue;
		wait_for(why, "a shard that %s names is missing", node->files[i].name);
		return false;
	}
	return true;
}

/* Names of what is not finished, in it or below. */
static bool has_temporary(const struct tpd_node *node)
{
	for (size_t i = 0; i < node->file_count; i++) {
		const char *name = node->files[i].name;

		/* Names that begin with another dot are no half-made files: .metadata, .zarray, what a network file system leaves. */
		if (tpd_recognise_ignored(name) && (name[0] != '.' || strncmp(name, ".tmp", 4) == 0))
			return true;
	}
	for (const struct tpd_node *child = node->children; child; child = child->next) {
		if (has_temporary(child))
			return true;
	}
	return false;
}

/*
 * Does the file `beside` next to the directory name it, or one of a later step? Since when: *out_ns. A number alone is a name, too: that
 * of an iteration.
 */
static bool is_latest(const struct tpd_node *node, const char *path, const char *beside, int64_t *out_ns)
{
	TPD_AUTO_FREE char *latest = NULL;
	TPD_AUTO_CLOSE int fd = -1;
	char text[LATEST_MAX + 1];
	uint64_t said, own;
	struct stat st;
	ssize_t len;

	if (asprintf(&latest, "%.*s/%s", (int)(strlen(path) - strlen(node->name) - 1), path, beside) < 0) {
		latest = NULL;
		return false;
	}
	fd = open(latest, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	len = fd < 0 ? -1 : pread(fd, text, LATEST_MAX, 0);
	if (len <= 0 || fstat(fd, &st) < 0)
		return false;
	*out_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
	text[len] = 0;
	text[strcspn(text, " \t\r\n")] = 0;
	if (strcmp(text, node->name) == 0)
		return true;
	if (!tpd_text_trailing_number(text, &said) || !tpd_text_trailing_number(node->name, &own))
		return false;
	return said > own || (said == own && strspn(text, "0123456789") == strlen(text));
}

/* --- PyTorch's distributed checkpoint: __R_N.distcp, then .metadata by rename --- */

static bool is_no_shard(const char *name)
{
	return !tpd_text_has_suffix(name, ".distcp") && !tpd_text_has_suffix(name, ".safetensors");
}

/* What is written after it on purpose: the markers of those who put more on top. */
static bool is_metadata(const char *name)
{
	return strcmp(name, ".metadata") == 0 || strcmp(name, "metadata.json") == 0 || strcmp(name, TPD_STEP_META) == 0;
}

static bool is_dcp(const struct tpd_node *node)
{
	if (tpd_tree_file(node, ".metadata"))
		return true;
	for (size_t i = 0; i < node->file_count; i++) {
		if (tpd_text_has_suffix(node->files[i].name, ".distcp"))
			return true;
	}
	return false;
}

/* A .metadata that is older than a shard is that of the checkpoint which this directory held before. */
static enum tpd_readiness dcp_complete(struct tpd_node *node, TPD_UNUSED const char *path, struct tpd_waits *why)
{
	const struct tpd_file *metadata = tpd_tree_file(node, ".metadata");

	if (!metadata)
		return wait_for(why, "%s/.metadata is not there yet", node->name);
	if (metadata->mtime_ns < newest(node, is_no_shard))
		return wait_for(why, "%s/.metadata is older than its shards", node->name);
	/* Something of the trainer's own that follows it: nothing says when that is whole. */
	return metadata->mtime_ns < newest(node, is_metadata) ? TPD_SEEN_SETTLING : TPD_SEEN_COMPLETE;
}

/* Directories of Lightning with FSDP or model-parallel strategies: a distributed checkpoint, then meta.pt. */
static bool is_lightning_dir(const struct tpd_node *node)
{
	return is_dcp(node) && (tpd_tree_file(node, TPD_STEP_META) || tpd_text_has_suffix(node->name, ".ckpt"));
}

/*
 * last.ckpt/ has its step in meta.pt, which is written again with it: read at each look. As long as that is not there or not whole, it
 * is not complete, and of step 0 for those who look at it.
 */
static bool lightning_step(struct tpd_node *node, const char *path, uint64_t *out_step)
{
	TPD_AUTO_FREE char *meta = tpd_tree_join(path, TPD_STEP_META);

	if (plain_step(node, path, out_step))
		return true;
	if (tpd_tree_file(node, MARKER) || !meta)
		return false;
	*out_step = 0;
	if (!node->root->complete_when && (!tpd_tree_file(node, TPD_STEP_META) || !tpd_recognise_whole_file(meta)))
		return true;
	return tpd_step_torch(meta, out_step);
}

static enum tpd_readiness lightning_complete(struct tpd_node *node, const char *path, struct tpd_waits *why)
{
	struct tpd_file *meta = tpd_tree_file(node, TPD_STEP_META);
	enum tpd_readiness readiness = dcp_complete(node, path, why);

	if (readiness == TPD_SEEN_WAITING)
		return readiness;
	if (!meta || meta->mtime_ns < newest(node, is_no_shard))
		return wait_for(why, "%s/meta.pt is not there yet", node->name);
	if (!check_once(meta, path, tpd_recognise_whole_file))
		return wait_for(why, "%s/meta.pt has no end yet", node->name);
	return readiness;
}

/* megatron-core's torch_dist: common.pt, shards, .metadata, then metadata.json. */
static bool is_megatron(const struct tpd_node *node)
{
	return tpd_tree_file(node, "common.pt") != NULL;
}

static enum tpd_readiness megatron_complete(struct tpd_node *node, const char *path, struct tpd_waits *why)
{
	struct tpd_file *last = tpd_tree_file(node, "metadata.json");
	enum tpd_readiness readiness = dcp_complete(node, path, why);

	if (readiness == TPD_SEEN_WAITING)
		return readiness;
	if (!last || last->mtime_ns < newest(node, is_no_shard) || !check_once(last, path, tpd_recognise_json))
		return wait_for(why, "%s/metadata.json is not there yet", node->name);
	return readiness;
}

/*
 * Megatron-LM's older format: each rank writes into mp_rank_NN/ without a barrier; after one, rank 0 writes the iteration into the file
 * beside iter_N/. NeMo has these directories the other way round: NAME.ckpt of each step in them, so what holds them is a run.
 */
static bool holds_megatron_ranks(const struct tpd_node *node)
{
	bool ranks = false;

	for (const struct tpd_node *child = node->children; child; child = child->next) {
		if (strncmp(child->name, "mp_rank_", 8) != 0)
			continue;
		ranks = true;
		for (size_t i = 0; i < child->file_count; i++) {
			if (tpd_text_has_suffix(child->files[i].name, ".ckpt"))
				return false;
		}
	}
	return ranks;
}

static enum tpd_readiness megatron_ranks_complete(struct tpd_node *node, const char *path, struct tpd_waits *why)
{
	int64_t latest_ns = 0;

	if (!is_latest(node, path, TRACKER, &latest_ns))
		return wait_for(why, "the file '" TRACKER "' does not name %s yet", node->name);
	return latest_ns < newest(node, NULL) ? TPD_SEEN_SETTLING : TPD_SEEN_COMPLETE; /* one of another time, as with DeepSpeed */
}

/*
 * Accelerate with FSDP: a directory of several distributed checkpoints, first the model's, long after it the optimizer's, and no marker for
 * the whole. The ranks' random states come last.
 *
 * A model alone waits in vain. Rejected: taking it when it is at rest and no other checkpoint of the run has an optimizer's directory. So
 * it is, too, where every save so far has died on the way to its optimizer (it is the larger part, and gathered for minutes), be it the
 * first one or the tenth after as many starts; and that a later one was begun says only that a process was.
 */
static bool is_accelerate_part(const struct tpd_node *node, const char *prefix)
{
	return strncmp(node->name, prefix, strlen(prefix)) == 0 && is_dcp(node);
}

static bool holds_dcp(const struct tpd_node *node)
{
	for (const struct tpd_node *child = node->children; child; child = child->next) {
		if (is_accelerate_part(child, "pytorch_model_fsdp") || is_accelerate_part(child, "optimizer"))
			return true; /* and no run, whose checkpoints are named after their steps */
	}
	return false;
}

static bool has_random_states(const struct tpd_node *node)
{
	for (size_t i = 0; i < node->file_count; i++) {
		if (strncmp(node->files[i].name, "random_states_", 14) == 0)
			return true;
	}
	return false;
}

static enum tpd_readiness accelerate_complete(struct tpd_node *node, const char *path, struct tpd_waits *why)
{
	bool optimizer = false;

	for (struct tpd_node *child = node->children; child; child = child->next) {
		if (is_dcp(child) && dcp_complete(child, path, why) == TPD_SEEN_WAITING)
			return TPD_SEEN_WAITING;
		optimizer = optimizer || is_accelerate_part(child, "optimizer");
	}
	if (!optimizer && !has_random_states(node))
		return wait_for(why, "%s/optimizer_0 is not there yet", node->name);
	return TPD_SEEN_SETTLING;
}

/* --- DeepSpeed: a file a rank, without a barrier, and then the directory's name in `latest` beside it --- */

static bool is_deepspeed(const struct tpd_node *node)
{
	for (size_t i = 0; i < node->file_count; i++) {
		const char *name = node->files[i].name;

		if (tpd_text_has_suffix(name, "_optim_states.pt") || tpd_text_has_suffix(name, "_model_states.pt"))
			return true;
	}
	return false;
}

/* "bf16_zero_pp_rank_3_mp_rank_00_optim_states.pt" -> 3 */
static bool deepspeed_rank(const char *name, uint64_t *out_rank)
{
	const char *at = strstr(name, "zero_pp_rank_");
	char digits[24];
	size_t n;

	if (!at || !tpd_text_has_suffix(name, "_optim_states.pt"))
		return false;
	at += strlen("zero_pp_rank_");
	n = strspn(at, "0123456789");
	if (n == 0 || n >= sizeof digits)
		return false;
	memcpy(digits, at, n);
	digits[n] = 0;
	return tpd_text_parse_u64(digits, out_rank);
}

static enum tpd_readiness deepspeed_complete(struct tpd_node *node, const char *path, struct tpd_waits *why)
{
	uint64_t ranks = 0, span = 0, rank;
	int64_t latest_ns = 0;

	if (!is_latest(node, path, "latest", &latest_ns))
		return wait_for(why, "the file 'latest' does not name %s yet", node->name);
	for (size_t i = 0; i < node->file_count; i++) {
		struct tpd_file *file = &node->files[i];

		if (deepspeed_rank(file->name, &rank)) {
			ranks++;
			span = TPD_MAX(span, rank + 1);
		}
		if (tpd_text_has_suffix(file->name, ".pt") && !check_once(file, path, tpd_recognise_whole_file))
			return wait_for(why, "%s/%s has no end yet", node->name, file->name);
	}
	if (ranks < span)
		return wait_for(why, "states of %llu of %llu ranks are there", (unsigned long long)ranks, (unsigned long long)span);
	/*
	 * An older `latest` is of another save: of a later step that the run was put back before, or of the one that is being
	 * over-written. A rank that closes its file after it was written makes it look so, too: then time tells.
	 */
	return latest_ns < newest(node, NULL) ? TPD_SEEN_SETTLING : TPD_SEEN_COMPLETE;
}

/* --- the Trainer of transformers: weights, optimizer, scheduler, the ranks' random states, trainer_state.json --- */

static bool named_checkpoint(const char *name)
{
	uint64_t step;

	return strncmp(name, "checkpoint-", 11) == 0 && tpd_text_parse_u64(name + 11, &step);
}

static bool has_weights(const struct tpd_node *node)
{
	for (size_t i = 0; i < node->file_count; i++) {
		if (tpd_recognise_weights(node->files[i].name))
			return true;
	}
	return false;
}

static bool has_checkpoint_below(const struct tpd_node *node)
{
	for (const struct tpd_node *child = node->children; child; child = child->next) {
		if (named_checkpoint(child->name))
			return true;
	}
	return false;
}

/* checkpoint-N; and any directory with a marker and weights of its own that is not a run: "best", "final". */
static bool is_trainer(const struct tpd_node *node)
{
	bool marker = tpd_tree_file(node, MARKER) != NULL;

	if (!named_checkpoint(node->name))
		return marker && has_weights(node) && !has_checkpoint_below(node);
	if (marker || tpd_tree_file(node, "training_args.bin") ||
	    (tpd_tree_file(node, "optimizer.pt") && tpd_tree_file(node, "scheduler.pt")))
		return true;
	for (const struct tpd_node *child = node->parent->children; child; child = child->next) {
		if (child != node && named_checkpoint(child->name) && tpd_tree_file(child, MARKER))
			return true; /* the run has others: this one was just begun */
	}
	return false;
}

static bool trainer_step(struct tpd_node *node, const char *path, uint64_t *out_step)
{
	const struct tpd_file *marker = read_marker(node, path);

	/* It is not complete without a valid one; until then its name is good enough to speak of it. */
	if (!marker || !marker->valid)
		return tpd_step_dir_name(node->name, out_step);
	*out_step = marker->step;
	return true;
}

/* The marker, and what other ranks write without a barrier. */
static bool is_late(const char *name)
{
	uint64_t rank;

	return strcmp(name, MARKER) == 0 || tpd_recognise_rank(name, &rank);
}

static enum tpd_readiness trainer_complete(struct tpd_node *node, const char *path, struct tpd_waits *why)
{
	struct tpd_file *marker = tpd_tree_file(node, MARKER);
	uint64_t step;

	if (!marker)
		return wait_for(why, MARKER " is not there yet");
	trainer_step(node, path, &step);
	if (!marker->valid)
		return wait_for(why, MARKER " is not whole");
	if (!has_weights(node) && !node->children) /* sharded and DeepSpeed states lie in directories */
		return wait_for(why, "no weights are there yet");
	if (!shards_there(node, path, why))
		return TPD_SEEN_WAITING;
	/* A marker older than what it marks is a left-over: it is being re-written, or was copied in another order. */
	if (has_temporary(node))
		return TPD_SEEN_SETTLING;
	if (marker->mtime_ns < newest(node, is_late)) {
		snprintf(why->text, sizeof why->text, MARKER " is older than what it marks");
		return TPD_SEEN_SETTLING;
	}
	for (struct tpd_node *child = node->children; child; child = child->next) {
		TPD_AUTO_FREE char *below = tpd_tree_join(path, child->name);

		if (below && is_deepspeed(child) && deepspeed_complete(child, below, why) == TPD_SEEN_WAITING)
			return TPD_SEEN_WAITING;
	}
	return TPD_SEEN_COMPLETE;
}

/* --- Orbax: the directory gets its name when it is complete --- */

static bool is_orbax(const struct tpd_node *node)
{
	return tpd_tree_file(node, "_CHECKPOINT_METADATA") || tpd_tree_file(node, "commit_success.txt");
}

static enum tpd_readiness orbax_complete(struct tpd_node *node, TPD_UNUSED const char *path, struct tpd_waits *why)
{
	return has_temporary(node) ? wait_for(why, "a part of it has a temporary name") : TPD_SEEN_COMPLETE;
}

/* --- Keras' BackupAndRestore: one checkpoint, written again and again; what it is of is in the second of its files --- */

static bool is_keras_backup(const struct tpd_node *node)
{
	return tpd_tree_file(node, BACKUP_WEIGHTS) && tpd_tree_file(node, BACKUP_STATE);
}

static bool keras_step(struct tpd_node *node, const char *path, uint64_t *out_step)
{
	struct tpd_file *state = tpd_tree_file(node, BACKUP_STATE);

	if (!state->checked) {
		TPD_AUTO_FREE char *full = tpd_tree_join(path, BACKUP_STATE);

		state->valid = full && tpd_step_keras(full, &state->step);
		state->checked = full != NULL;
	}
	*out_step = state->valid ? state->step : 0; /* it is truncated and written anew: then it waits */
	return true;
}

static enum tpd_readiness keras_complete(struct tpd_node *node, const char *path, struct tpd_waits *why)
{
	struct tpd_file *weights = tpd_tree_file(node, BACKUP_WEIGHTS), *state = tpd_tree_file(node, BACKUP_STATE);

	if (!check_once(weights, path, tpd_recognise_whole_file))
		return wait_for(why, "%s/" BACKUP_WEIGHTS " is not whole", node->name);
	if (!state->valid || state->mtime_ns < weights->mtime_ns)
		return wait_for(why, "%s/" BACKUP_STATE " is not whole, or older than the weights", node->name);
	return TPD_SEEN_SETTLING;
}

/* --- what is not in the table --- */

static enum tpd_readiness settles(struct tpd_node *node, const char *path, struct tpd_waits *why)
{
	return shards_there(node, path, why) ? TPD_SEEN_SETTLING : TPD_SEEN_WAITING;
}

/* complete_when= of the watch: patterns, one of which must match a name in the directory, or with %s beside it. */
static bool marked(const struct tpd_node *node, const char *pattern, int64_t *newest_ns)
{
	const struct tpd_node *in = node;
	bool found = false;
	char name[512];
	const char *percent;

	if (strncmp(pattern, "../", 3) == 0) {
		in = node->parent;
		pattern += 3;
	}
	percent = strstr(pattern, "%s");
	if (percent)
		snprintf(name, sizeof name, "%.*s%s%s", (int)(percent - pattern), pattern, node->name, percent + 2);
	else
		snprintf(name, sizeof name, "%s", pattern);
	for (size_t i = 0; i < in->file_count; i++) {
		if (fnmatch(name, in->files[i].name, 0) != 0)
			continue;
		*newest_ns = TPD_MAX(*newest_ns, in->files[i].mtime_ns);
		found = true;
	}
	return found;
}

static enum tpd_readiness user_complete(struct tpd_node *node, TPD_UNUSED const char *path, struct tpd_waits *why)
{
	TPD_AUTO_FREE char *patterns = strdup(node->root->complete_when);
	int64_t marker_ns = INT64_MIN;
	bool found = false;
	char *save = NULL;

	for (char *pattern = patterns ? strtok_r(patterns, " \t", &save) : NULL; pattern; pattern = strtok_r(NULL, " \t", &save))
		found = marked(node, pattern, &marker_ns) || found;
	if (found)
		return marker_ns < newest(node, NULL) ? TPD_SEEN_SETTLING : TPD_SEEN_COMPLETE;
	return wait_for(why, "nothing matches complete_when=%s", node->root->complete_when);
}

/* --- the table --- */

static const struct tpd_framework frameworks[] = {
	{"hf-trainer", is_trainer, trainer_step, trainer_complete, tpd_recognise_rank, tpd_metrics_of_trainer},
	{"lightning", is_lightning_dir, lightning_step, lightning_complete, NULL, tpd_metrics_of_lightning},
	{"megatron", is_megatron, plain_step, megatron_complete, NULL, NULL},
	{"megatron-ranks", holds_megatron_ranks, plain_step, megatron_ranks_complete, NULL, NULL},
	{"dcp", is_dcp, plain_step, dcp_complete, NULL, NULL},
	{"accelerate-fsdp", holds_dcp, plain_step, accelerate_complete, NULL, NULL},
	{"deepspeed", is_deepspeed, plain_step, deepspeed_complete, deepspeed_rank, NULL},
	{"orbax", is_orbax, plain_step, orbax_complete, NULL, NULL},
	{"keras-backup", is_keras_backup, keras_step, keras_complete, NULL, NULL},
};
static const struct tpd_framework by_settling = {"directory", NULL, plain_step, settles, NULL, NULL};
static const struct tpd_framework by_user = {"complete_when", NULL, plain_step, user_complete, NULL, NULL};

tpd_metrics_fn *tpd_framework_metrics_of(const char *name)
{
	for (size_t i = 0; i < TPD_ARRAY_LEN(frameworks); i++) {
		if (strcmp(frameworks[i].name, name) == 0)
			return frameworks[i].metrics_of;
	}
	return NULL;
}

bool tpd_framework_regex_step(const struct tpd_root *root, const char *path, bool *out_applies, uint64_t *out_step)
{
	const char *below = path + strlen(root->node->name);
	regmatch_t match[2];
	char digits[24];
	size_t n;

	*out_applies = root->has_step_regex;
	if (!root->has_step_regex)
		return false;
	below += *below == '/';
	if (regexec(&root->step_regex, below, 2, match, 0) != 0 || match[1].rm_so < 0)
		return false;
	n = (size_t)(match[1].rm_eo - match[1].rm_so);
	if (n == 0 || n >= sizeof digits)
		return false;
	memcpy(digits, below + match[1].rm_so, n);
	digits[n] = 0;
	return tpd_text_parse_step(digits, out_step);
}

/* What lies in it and below, for the rules on names of what no framework of the table wrote. */
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

/* latest.pt, last.ckpt: written again and again, of whatever step it tells. */
static bool is_rolling(const struct tpd_file *file)
{
	return file->role == TPD_FILE_UNNUMBERED &&
	       (strncasecmp(file->name, "last", 4) == 0 || strncasecmp(file->name, "latest", 6) == 0);
}

/* "exp1", "seed-2": a number that counts something else than steps may end it. */
static bool may_be_a_run(const char *name)
{
	uint64_t step;

	return !tpd_step_word(name, &step) && strspn(name, "0123456789") < strlen(name);
}

static bool is_unknown_checkpoint(struct tpd_node *node, const char *path, uint64_t *out_step)
{
	struct tpd_dir_facts facts = {.name = node->name};

	gather(node, &facts);
	for (size_t i = 0; i < node->file_count; i++)
		facts.numbered_files = facts.numbered_files || node->files[i].role == TPD_FILE_CHECKPOINT ||
				       (is_rolling(&node->files[i]) && may_be_a_run(node->name));
	return tpd_recognise_dir(&facts, out_step) && plain_step(node, path, out_step);
}

const struct tpd_framework *tpd_framework_of(struct tpd_node *node, const char *path, uint64_t *out_step,
					     const char **out_nameless)
{
	const struct tpd_framework *found = NULL;
	bool applies = false, told;

	*out_nameless = NULL;
	if (!node->parent)
		return NULL;
	for (size_t i = 0; i < TPD_ARRAY_LEN(frameworks) && !found; i++) {
		if (frameworks[i].matches(node))
			found = &frameworks[i];
	}
	told = tpd_framework_regex_step(node->root, path, &applies, out_step);
	if (applies && !told)
		return NULL;
	if (!told && found) {
		told = found->step_of(node, path, out_step);
		if (!told)
			*out_nameless = found->name;
	} else if (!told) {
		told = is_unknown_checkpoint(node, path, out_step);
	}
	if (!told)
		return NULL;
	if (node->root->complete_when)
		return &by_user;
	return found ? found : &by_settling;
}
