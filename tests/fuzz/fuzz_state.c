/* fuzz_state.c - any bytes as a trainer_state.json. */
#include "base/tpd.h"

#include "archive/trainer_state.h"
#include "tests/fuzz/fuzz.h"

FUZZ_TARGET(state)
{
	struct tpd_metrics metrics = {0};
	char *text = malloc(size + !size); /* it is changed */
	uint64_t step;

	if (!text)
		return 0;
	if (size > 0)
		memcpy(text, data, size);
	FUZZ_CHECK(tpd_trainer_state_metrics(text, size, &metrics, NULL) == TPD_OK);
	FUZZ_CHECK(metrics.count <= TPD_METRICS_MAX);
	for (size_t i = 0; i < metrics.count; i++) {
		FUZZ_CHECK(metrics.items[i].value - metrics.items[i].value == 0); /* finite */
		FUZZ_CHECK(tpd_metric_is_name(metrics.items[i].name, strlen(metrics.items[i].name)));
		FUZZ_CHECK(i == 0 || strcmp(metrics.items[i - 1].name, metrics.items[i].name) < 0);
	}
	if (metrics.count > 0)
		FUZZ_CHECK(tpd_trainer_state_step(text, size, &step));
	tpd_metrics_release(&metrics);
	free(text);
	return 0;
}
