/*
 * trainer_state.c - two looks at one text: for global_step, and at where log_history begins.
 *
 * The first passes all of the document, which proves that it is whole, and remembers the parser's state at the
 * history: it may stand before the step that says which of its entries count. Each entry is passed twice in the same
 * way, for its step and then, if that is the one, for its numbers. Rejected: the end of the file only (nothing says
 * that log_history comes last), and best_metric (of another checkpoint, most often).
 */
#include "base/tpd.h"

#include "archive/trainer_state.h"

#include <string.h>

#include "base/json.h"
#include "base/text.h"

struct state {
	uint64_t step;
	bool has_history;
	struct tpd_json history; /* behind its [ */
};

/* The value of a key that was just read. */
static bool take_value(struct tpd_json *js, bool step, bool history, bool *out_found, struct state *out)
{
	enum tpd_json_kind kind = tpd_json_next(js);

	if (step && kind == TPD_JSON_NUMBER) {
		*out_found = tpd_json_u64(js, &out->step);
		return true;
	}
	if (history && kind == TPD_JSON_ARRAY) {
		out->history = *js;
		out->has_history = true;
	}
	return tpd_json_skip(js, kind);
}

static bool read_state(char *text, size_t len, struct state *out)
{
	struct tpd_json js;
	enum tpd_json_kind kind;
	bool found = false;

	tpd_json_tame(text, len);
	js = tpd_json_make(text, len);
	if (tpd_json_next(&js) != TPD_JSON_OBJECT)
		return false;
	while ((kind = tpd_json_next(&js)) == TPD_JSON_KEY) {
		bool step = tpd_json_is(&js, "global_step"), history = tpd_json_is(&js, "log_history");

		if (!take_value(&js, step, history, &found, out))
			return false;
	}
	return found && kind == TPD_JSON_OBJECT_END && tpd_json_next(&js) == TPD_JSON_END;
}

bool tpd_trainer_state_step(char *text, size_t len, uint64_t *out_step)
{
	struct state state = {0};
	bool good = read_state(text, len, &state);

	if (good)
		*out_step = state.step;
	return good;
}

static bool is_metric(const char *name)
{
	static const char *const others[] = {"step", "epoch", "global_step"};
	static const char *const speeds[] = {"_runtime", "_per_second", "_preparation_time", "_compilation_time"};

	for (size_t i = 0; i < TPD_ARRAY_LEN(others); i++)
		if (strcmp(name, others[i]) == 0)
			return false;
	for (size_t i = 0; i < TPD_ARRAY_LEN(speeds); i++)
		if (tpd_text_has_suffix(name, speeds[i]))
			return false;
	return true;
}

/* An entry behind its {, by a copy of the parser: is it of this step? The document is known to be whole. */
static bool is_of_step(struct tpd_json js, uint64_t step)
{
	bool same = false;

	while (tpd_json_next(&js) == TPD_JSON_KEY) {
		bool wanted = tpd_json_is(&js, "step");
		enum tpd_json_kind kind = tpd_json_next(&js);
		uint64_t own;

		if (wanted)
			same = kind == TPD_JSON_NUMBER && tpd_json_u64(&js, &own) && own == step;
		if (!tpd_json_skip(&js, kind))
			return false;
	}
	return same;
}

static enum tpd_status take_entry(struct tpd_json js, struct tpd_metrics *out, struct tpd_err *err)
{
	enum tpd_status status = TPD_OK;

	while (!status && tpd_json_next(&js) == TPD_JSON_KEY) {
		TPD_AUTO_FREE char *name = js.text_len <= 6 * TPD_METRIC_NAME_MAX ? tpd_json_string(&js) : NULL;
		enum tpd_json_kind kind = tpd_json_next(&js);
		double value;

		if (name && kind == TPD_JSON_NUMBER && is_metric(name) && tpd_json_f64(&js, &value))
			status = tpd_metrics_set(out, name, strlen(name), value, err);
		if (!tpd_json_skip(&js, kind))
			break;
	}
	return status;
}

enum tpd_status tpd_trainer_state_metrics(char *text, size_t len, struct tpd_metrics *out, struct tpd_err *err)
{
	struct state state = {0};
	enum tpd_json_kind kind;
	enum tpd_status status = TPD_OK;

	if (!read_state(text, len, &state) || !state.has_history)
		return TPD_OK;
	while (!status && (kind = tpd_json_next(&state.history)) != TPD_JSON_ARRAY_END) {
		if (kind == TPD_JSON_OBJECT && is_of_step(state.history, state.step))
			status = take_entry(state.history, out, err);
		if (!tpd_json_skip(&state.history, kind))
			break;
	}
	return status;
}
