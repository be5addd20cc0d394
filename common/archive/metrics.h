/*
 * metrics.h - what a checkpoint tells of how good it is, captured, or stored already (recall.c).
 *
 *     struct tpd_metrics metrics = {0};
 *     tpd_metrics_of(tpd_capture_source(capture), &metrics, &err);
 *
 * Read from the descriptors that the capture holds, since rotation may have deleted the paths, and before anything is
 * stored, since the refs are to have it first (store/FORMAT.md). What is not as expected tells nothing: these fail
 * with TPD_NOMEM, or TPD_IO where a descriptor cannot be read, and then so will what stores it; or as source->read does.
 */
#ifndef TPD_ARCHIVE_METRICS_H
#define TPD_ARCHIVE_METRICS_H

#include "base/metrics.h"
#include "base/tpd.h"
#include "store/ingest.h"

/* Adds to *out, in place of what is there by the same name. */
typedef enum tpd_status tpd_metrics_fn(const struct tpd_source *source, struct tpd_metrics *out, struct tpd_err *err);

/* The HF Trainer's: trainer_state.json at its top (trainer_state.h). */
tpd_metrics_fn tpd_metrics_of_trainer;
/*
 * Lightning's: by the name, as ModelCheckpoint makes it, and for a single file, or the meta.pt of a directory, the exact
 * score from within, under the name of its monitor (format.h).
 */
tpd_metrics_fn tpd_metrics_of_lightning;
/*
 * By the name alone: "epoch=3-val_loss=0.42", pairs of name and number, joined by '-'; epoch, step and the like are none,
 * nor is a final "-v1". As ModelCheckpoint writes metrics with a slash ("epoch=3-val/acc=0.9.ckpt"), the directory
 * may begin the name. Where it does not end in .ckpt, only together with a pair for epoch or step.
 */
tpd_metrics_fn tpd_metrics_of_name;
/*
 * Whosever it is: the Trainer's where there is a trainer_state.json, Lightning's for what is called *.ckpt, else by the
 * name.
 */
tpd_metrics_fn tpd_metrics_of;

#endif
