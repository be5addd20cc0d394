/*
 * recognise.h - what is a checkpoint, and is it complete? The rules of the frameworks, on names and on the few bytes that
 * tell. README.md lists them for people. Which step it is: archive/step.h.
 *
 * No state and no loop in here. The functions that take a path read files and may block: they are for the scan's
 * thread.
 */
#ifndef TPD_DAEMON_RECOGNISE_H
#define TPD_DAEMON_RECOGNISE_H

#include "base/tpd.h"

#define TPD_PAYLOAD_MIN 1024 /* bytes: an unknown directory with less in each of its files is no checkpoint */

/*
 * Names that writers use for what is not finished, and names that begin with a dot: never a checkpoint, never descended
 * into.
 */
bool tpd_recognise_ignored(const char *name);

/* --- files --- */

enum tpd_file_role {
	TPD_FILE_OTHER = 0,
	/* *.pt *.pth *.bin *.ckpt *.safetensors *.keras *.weights.h5 with a step in its name; *.gguf *.npz *.h5 *.msgpack with a word for it */
	TPD_FILE_CHECKPOINT,
	TPD_FILE_UNNUMBERED, /* such a file whose name tells no step: last.ckpt; its contents may */
	TPD_FILE_PART /* such a file that is known to be a part of something: optimizer.pt, a shard, a rank's state */
};
/* out_step is written for TPD_FILE_CHECKPOINT only. */
enum tpd_file_role tpd_recognise_file(const char *name, uint64_t *out_step);
/* "rng_state_R.pth": the random state of rank R. */
bool tpd_recognise_rank(const char *name, uint64_t *out_rank);
/* May a file of this name and size be what an unknown checkpoint consists of (no log, no text, not tiny)? */
bool tpd_recognise_payload(const char *name, uint64_t size);
/* Are these the weights of a model, as the HF Trainer names them? */
bool tpd_recognise_weights(const char *name);

/* --- directories --- */

struct tpd_dir_facts {
	const char *name;
	bool payload;        /* it, or a directory below, holds a payload file */
	bool checkpoints;    /* it, or a directory below, holds an entry that is named like a step, or checkpoint-N */
	bool numbered_files; /* it holds a TPD_FILE_CHECKPOINT itself */
};
/* Is a directory that no framework claims (frameworks.h) a checkpoint by its name and what is in it? true with the step. */
bool tpd_recognise_dir(const struct tpd_dir_facts *facts, uint64_t *out_step);
/*
 * Is a directory of this name evidence that the one above is a run: checkpoint-20, step-20, global_step20, epoch_3, 20?
 */
bool tpd_recognise_step_dir(const char *name);
/* The same for a file: epoch=0-step=20.ckpt, checkpoint_20.pt. */
bool tpd_recognise_step_file(const char *name);

/* --- contents --- */

/* tpd_format_is_whole(); true where it cannot be opened. */
bool tpd_recognise_whole_file(const char *path);
/* Is this a JSON document (NaN and Infinity, which Python writes, allowed)? */
bool tpd_recognise_json(const char *path);
/*
 * The shards that a *.index.json names: fn is asked for each; false when one is missing (fn said false) or the index
 * cannot be read.
 */
bool tpd_recognise_shards(const char *index_path, bool (*has)(void *arg, const char *name), void *arg);

#endif
