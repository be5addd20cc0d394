/*
 * step.h - which step is a checkpoint? One rule, for the daemon and for `tpdectl ingest`.
 *
 *     1. "global_step" of trainer_state.json in it, where there is one; "epoch" of training_metadata.json (Keras' BackupAndRestore)
 *     2. its name: the number behind the last "step", else behind "iter", "iteration", "checkpoint", "ckpt" or "epoch", with
 *        nothing or one of - _ = . between; else the number that the name (without its extension) ends with, but for bf16 and
 *        the like
 *     3. "global_step", "step" or "iteration" of what torch.save() wrote: of the file (last.ckpt), or of a directory's meta.pt
 *        (Lightning's last.ckpt/)
 *
 * The functions that take a path read files and may block.
 */
#ifndef TPD_ARCHIVE_STEP_H
#define TPD_ARCHIVE_STEP_H

#include "base/tpd.h"

#define TPD_STEP_META "meta.pt"
#define TPD_STEP_KERAS "training_metadata.json"

/* Rule 2, for a file (any extension is taken off) and for a directory (only those that checkpoints have: "step=20.ckpt"). */
bool tpd_step_file_name(const char *name, uint64_t *out_step);
bool tpd_step_dir_name(const char *name, uint64_t *out_step);
/* Its first half: a word with a number behind it. */
bool tpd_step_word(const char *text, uint64_t *out_step);
/* The name without .pt .pth .bin .ckpt .safetensors .keras .weights.h5, in fresh memory; NULL: another extension, or no memory. */
char *tpd_step_stem(const char *name);
/*
 * The same of .gguf .npz .h5 .msgpack: files that are data as often as models, or end in the name of a type (q8_0.gguf). A number alone
 * does not make a checkpoint of them, a word for steps does. ONNX is left out: its tensors lie in a file of another name.
 */
char *tpd_step_other_stem(const char *name);

/* Rule 1, of the file at this path; false: it is not there, no whole JSON, or tells none. */
bool tpd_step_trainer_state(const char *file, uint64_t *out_step);
bool tpd_step_keras(const char *file, uint64_t *out_step);
/* Rule 3, likewise (format.h). */
bool tpd_step_torch(const char *file, uint64_t *out_step);

/*
 * The rule, for what is at `path`. TPD_NOT_FOUND: nothing is there, or it tells none; TPD_USAGE: trainer_state.json is there and
 * does not tell, so somebody else must.
 */
enum tpd_status tpd_step_of(const char *path, uint64_t *out_step, struct tpd_err *err);

#endif
