/*
 * effort.h - what smaller checkpoints are worth: [codec] of the configuration, and options of `tpdectl ingest`.
 */
#ifndef TPD_BASE_EFFORT_H
#define TPD_BASE_EFFORT_H

#include "base/tpd.h"

/* How much time: nothing beside the reference; the prediction that pays most; all that there are. */
enum tpd_effort { TPD_EFFORT_BALANCED, TPD_EFFORT_FAST, TPD_EFFORT_MAX };

/*
 * What a tensor may be decoded from, beside itself in the checkpoint before: nothing; its own kind (weights from earlier weights, an
 * optimizer's moments from each other); or weights from the moments, too.
 */
enum tpd_depend { TPD_DEPEND_NONE, TPD_DEPEND_WEIGHTS, TPD_DEPEND_OPTIMIZER };

/* "fast", "balanced", "max"; "none", "weights", "optimizer". false: another word. */
bool tpd_effort_parse(const char *text, enum tpd_effort *out);
bool tpd_depend_parse(const char *text, enum tpd_depend *out);

#endif
