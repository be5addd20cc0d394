/*
 * frameworks.h - whose checkpoint is a directory, which step is it, and is it complete? One row a framework, asked in order.
 *
 *     framework = tpd_framework_of(node, path, &step);      NULL: no checkpoint, look below it
 *     readiness = framework->complete(node, path, &why);
 *
 * A row knows what its framework writes last. What no row knows is a directory of its own kind: a number at the end of its name,
 * and complete when nothing changes any more. All of this is asked by the scan's thread; it may read small files.
 *
 * Sources: the code of transformers 5.23, lightning 2.6, torch 2.13 (distributed.checkpoint), accelerate 1.15, deepspeed 0.19,
 * megatron-core 0.16, orbax 0.12, keras 3.15; of Megatron-LM and NeMo.
 */
#ifndef TPD_DAEMON_FRAMEWORKS_H
#define TPD_DAEMON_FRAMEWORKS_H

#include "archive/metrics.h"
#include "base/tpd.h"
#include "daemon/settle.h"
#include "daemon/tree.h"

struct tpd_framework {
	const char *name; /* for people: "hf-trainer" */
	bool (*matches)(const struct tpd_node *node);
	/* From what lies in it, else from its name. false: it tells no step. */
	bool (*step_of)(struct tpd_node *node, const char *path, uint64_t *out_step);
	/* why: what it waits for, for people; written when TPD_SEEN_WAITING is returned. */
	enum tpd_readiness (*complete)(struct tpd_node *node, const char *path, struct tpd_waits *why);
	/* Which of several ranks wrote this file, in a framework whose ranks write without a barrier? May be NULL. */
	bool (*rank_of)(const char *name, uint64_t *out_rank);
	/*
	 * What its checkpoints tell of how good they are: asked of the capture, when it is stored. NULL: its own tell nothing;
	 * then what the archive finds for whoever wrote it (tpd_metrics_of(): the name may tell).
	 */
	tpd_metrics_fn *metrics_of;
};

/*
 * The framework of a directory at `path`, and the step of the checkpoint that it is. NULL: it holds checkpoints, or none, or tells
 * no step (then *out_nameless is its framework's name, else NULL).
 */
const struct tpd_framework *tpd_framework_of(struct tpd_node *node, const char *path, uint64_t *out_step,
					     const char **out_nameless);

/* metrics_of of the framework of this name; NULL also where there is none of the name. */
tpd_metrics_fn *tpd_framework_metrics_of(const char *name);

/* Does a path below the watched directory match its step_regex=? true with the step; out_applies: there is such a pattern. */
bool tpd_framework_regex_step(const struct tpd_root *root, const char *path, bool *out_applies, uint64_t *out_step);

#endif
