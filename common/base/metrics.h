/*
 * metrics.h - figures of merit of one checkpoint: names and finite numbers, as its trainer told them.
 *
 *     struct tpd_metrics metrics = {0};
 *     tpd_metrics_set(&metrics, "eval_loss", 9, 0.42, &err);
 *     metric = tpd_metrics_find(&metrics, "eval_loss");
 *     tpd_metrics_release(&metrics);
 *
 * What is in the set is fit for every layer: to be written, to be a row, to be printed. So what is not is left out by
 * tpd_metrics_set(), which is given what others wrote.
 */
#ifndef TPD_BASE_METRICS_H
#define TPD_BASE_METRICS_H

#include "base/tpd.h"

#define TPD_METRIC_NAME_MAX 200u /* bytes */
#define TPD_METRICS_MAX 256u     /* of one checkpoint: a trainer with eight evaluation sets tells about fifty */

struct tpd_metric {
	char *name;   /* owned */
	double value; /* finite */
};

struct tpd_metrics {
	struct tpd_metric *items; /* by name, each once; owned */
	size_t count;
};

/* 1 to TPD_METRIC_NAME_MAX bytes of UTF-8 without control characters? */
bool tpd_metric_is_name(const char *name, size_t len);
/*
 * Put it in, or in place of the one of this name. What is no name, not finite, or one too many is left out. Fails with
 * TPD_NOMEM only.
 */
enum tpd_status tpd_metrics_set(struct tpd_metrics *metrics, const char *name, size_t len, double value,
				struct tpd_err *err);
const struct tpd_metric *tpd_metrics_find(const struct tpd_metrics *metrics, const char *name); /* NULL: none */
bool tpd_metrics_equal(const struct tpd_metrics *a, const struct tpd_metrics *b);
void tpd_metrics_release(struct tpd_metrics *metrics);

/*
 * Is less of it better? Where the name ends in "loss", as transformers has it, or one of its words (what letters and
 * digits make) is among: loss losses perplexity ppl error errors err wer cer ter eer mse rmse mae mape nll bpb bpc bpw
 * entropy fid. In any case of letters; everything else: more is better.
 */
bool tpd_metric_is_lower_better(const char *name);

#endif
