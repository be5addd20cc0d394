/*
 * trainer_state.h - what the Trainer of transformers tells in trainer_state.json: the one place that reads it.
 *
 *     {"global_step": 20, "log_history": [{"step": 20, "epoch": 0.5, "loss": 3.1, "eval_loss": NaN}, ...], ...}
 *
 * The text is hostile, and as Python writes it (NaN and Infinity are words). It is a whole document, or tells nothing:
 * that it is whole is how its writer's end is known. Time and memory are those of one reading: no tree.
 *
 * Source: transformers 5.23, trainer_callback.py (TrainerState.save_to_json) and trainer.py (log, evaluate: both
 * append to log_history before the checkpoint of that step is saved).
 */
#ifndef TPD_ARCHIVE_TRAINER_STATE_H
#define TPD_ARCHIVE_TRAINER_STATE_H

#include "base/metrics.h"
#include "base/tpd.h"

#define TPD_TRAINER_STATE "trainer_state.json"
#define TPD_TRAINER_STATE_MAX (64u << 20) /* bytes: an entry has about 200, so 300,000 of them */

/* text is changed: tpd_json_tame(). false: no whole JSON, or no "global_step" in it. */
bool tpd_trainer_state_step(char *text, size_t len, uint64_t *out_step);
/*
 * Of the entries of log_history whose step is global_step, every finite number, of a name told twice the last one;
 * but not step, epoch, and what tells of speed: *_runtime, *_per_second, *_preparation_time, *_compilation_time. Fails
 * with TPD_NOMEM only; what is not as it should be tells nothing.
 */
enum tpd_status tpd_trainer_state_metrics(char *text, size_t len, struct tpd_metrics *out, struct tpd_err *err);

#endif
