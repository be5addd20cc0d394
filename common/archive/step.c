/*
 * step.c - which step is a checkpoint: trainer_state.json, training_metadata.json, its name, what torch saved.
 *
 * Names come before contents: step=20.ckpt was saved under that name whatever lies in it, and a name costs nothing to read. But a
 * trainer_state.json that is there has the word: "best-7" may well be step 20. What tells nothing is not guessed at. Rejected: the last
 * number anywhere in a name, by which epoch=1-step=20-v1.ckpt is step 1, and model-12-of-40.bin step 40.
 */
#include "base/tpd.h"

#include "archive/step.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "archive/trainer_state.h"
#include "base/io.h"
#include "base/json.h"
#include "base/text.h"
#include "format/format.h"

#define KERAS_STATE_MAX (1u << 20) /* a few numbers */

/* --- names --- */

/*
 * A word for steps with a number behind it: "step=20", "global_step20", "iter_0000020", "Epoch-3". Of the first of these words that has
 * a number, the last one ("epoch=1-step=20", "step=20-v1").
 */
bool tpd_step_word(const char *name, uint64_t *out_step)
{
	static const char *const words[] = {"step", "iter", "iteration", "checkpoint", "ckpt", "epoch"};
	bool found = false;

	for (size_t w = 0; w < TPD_ARRAY_LEN(words) && !found; w++) {
		for (const char *p = name; (p = strcasestr(p, words[w])) != NULL;) {
			char digits[24];
			size_t n;

			p += strlen(words[w]);
			if (*p == 's' && w == 0) /* steps_20 */
				p++;
			p += strspn(p, "-_=.") > 1 ? 0 : strspn(p, "-_=.");
			n = strspn(p, "0123456789");
			if (n == 0 || n >= sizeof digits)
				continue;
			memcpy(digits, p, n);
			digits[n] = 0;
			if (tpd_text_parse_step(digits, out_step))
				found = true;
			p += n;
		}
	}
	return found;
}

/* "val_loss=0.37", "acc=0.90", "lr=1e-05": what it ends with is the value of something, and words for steps were asked before. */
static bool is_value(const char *stem, size_t len)
{
	size_t at = len;

	while (at > 0 && strchr("0123456789.eE+-", stem[at - 1]))
		at--;
	return at > 0 && stem[at - 1] == '=';
}

/* "foo-20" -> 20, but not "model-bf16": what follows a type's name is no step. */
static bool final_number(const char *stem, uint64_t *out_step)
{
	static const char *const types[] = {"bf16", "fp16", "fp32", "fp8", "int8", "int4", "float16", "float32"};
	size_t len = strlen(stem);

	if (len == 0 || stem[len - 1] < '0' || stem[len - 1] > '9' || is_value(stem, len))
		return false;
	for (size_t i = 0; i < TPD_ARRAY_LEN(types); i++) {
		if (len >= strlen(types[i]) && strcasecmp(stem + len - strlen(types[i]), types[i]) == 0)
			return false;
	}
	return tpd_text_trailing_number(stem, out_step);
}

static char *without(const char *name, const char *const extensions[], size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (tpd_text_has_suffix(name, extensions[i]) && strlen(name) > strlen(extensions[i]))
			return strndup(name, strlen(name) - strlen(extensions[i]));
	return NULL;
}

char *tpd_step_stem(const char *name)
{
	static const char *const extensions[] = {".pt", ".pth", ".bin", ".ckpt", ".safetensors", ".keras", ".weights.h5"};

	return without(name, extensions, TPD_ARRAY_LEN(extensions));
}

char *tpd_step_other_stem(const char *name)
{
	static const char *const extensions[] = {".gguf", ".npz", ".h5", ".msgpack"};

	return without(name, extensions, TPD_ARRAY_LEN(extensions));
}

bool tpd_step_dir_name(const char *name, uint64_t *out_step)
{
	TPD_AUTO_FREE char *stem = tpd_step_stem(name);

	return tpd_step_word(name, out_step) || final_number(stem ? stem : name, out_step);
}

/* "model-12.gguf" -> "model-12"; what begins with a digit is no extension: "model-1.12". */
static char *without_extension(const char *name)
{
	const char *dot = strrchr(name, '.');
	bool is_one = dot && dot > name && dot[1] && !(dot[1] >= '0' && dot[1] <= '9');

	return is_one ? strndup(name, (size_t)(dot - name)) : strdup(name);
}

bool tpd_step_file_name(const char *name, uint64_t *out_step)
{
	TPD_AUTO_FREE char *stem = tpd_step_stem(name);

	if (!stem)
		stem = without_extension(name);
	return stem && (tpd_step_word(stem, out_step) || final_number(stem, out_step));
}

/* --- contents --- */

/* A trainer_state.json that is there has the word: "best-7" may well be step 20. */
static enum tpd_status read_state(const char *file, bool *out_found, uint64_t *out_step, struct tpd_err *err)
{
	TPD_AUTO_FREE uint8_t *text = NULL;
	struct tpd_err fault = {0};
	size_t len = 0;
	enum tpd_status status = tpd_io_read_file(tpd_io_posix(), AT_FDCWD, file, TPD_TRAINER_STATE_MAX, &text, &len, &fault);

	*out_found = status != TPD_NOT_FOUND && fault.sys != ENOTDIR;
	if (!*out_found)
		return TPD_OK;
	if (status == TPD_NOMEM)
		return tpd_fail_nomem(err);
	if (status)
		return tpd_fail(err, TPD_USAGE, "the step cannot be told: %s", fault.text);
	if (!tpd_trainer_state_step((char *)text, len, out_step))
		return tpd_fail(err, TPD_USAGE, "'%s' is not whole JSON with a \"global_step\"", file);
	return TPD_OK;
}

bool tpd_step_trainer_state(const char *file, uint64_t *out_step)
{
	bool found = false;

	return read_state(file, &found, out_step, NULL) == TPD_OK && found;
}

bool tpd_step_keras(const char *file, uint64_t *out_step)
{
	TPD_AUTO_FREE uint8_t *text = NULL;
	enum tpd_json_kind kind;
	struct tpd_json js;
	uint64_t epoch = 0;
	bool found = false;
	size_t len;

	if (tpd_io_read_file(tpd_io_posix(), AT_FDCWD, file, KERAS_STATE_MAX, &text, &len, NULL) != TPD_OK)
		return false;
	tpd_json_tame((char *)text, len);
	js = tpd_json_make((const char *)text, len);
	if (tpd_json_next(&js) != TPD_JSON_OBJECT)
		return false;
	while ((kind = tpd_json_next(&js)) == TPD_JSON_KEY) {
		bool own = tpd_json_is(&js, "epoch");

		kind = tpd_json_next(&js);
		if (own && kind == TPD_JSON_NUMBER)
			found = tpd_json_u64(&js, &epoch);
		else if (!tpd_json_skip(&js, kind))
			return false;
	}
	if (kind != TPD_JSON_OBJECT_END || !found)
		return false;
	*out_step = epoch;
	return true;
}

bool tpd_step_torch(const char *file, uint64_t *out_step)
{
	TPD_AUTO_CLOSE int fd = open(file, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	bool found = false;
	struct stat st;

	return fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) &&
	       tpd_format_torch_step((uint64_t)st.st_size, tpd_format_read_fd, &fd, &found, out_step, NULL) == TPD_OK && found;
}

/* --- the rule --- */

static char *below(const char *directory, const char *name)
{
	char *path = NULL;

	return asprintf(&path, "%s/%s", directory, name) < 0 ? NULL : path;
}

enum tpd_status tpd_step_of(const char *path, uint64_t *out_step, struct tpd_err *err)
{
	TPD_AUTO_FREE char *real = realpath(path, NULL);
	TPD_AUTO_FREE char *state = real ? below(real, TPD_TRAINER_STATE) : NULL;
	TPD_AUTO_FREE char *meta = real ? below(real, TPD_STEP_META) : NULL;
	TPD_AUTO_FREE char *keras = real ? below(real, TPD_STEP_KERAS) : NULL;
	bool found = false, is_dir;
	enum tpd_status status;
	const char *name;
	struct stat st;

	if (!real || stat(real, &st) != 0)
		return errno == ENOENT ? tpd_fail(err, TPD_NOT_FOUND, "'%s' is not there", path)
				       : tpd_fail_sys(err, errno, "cannot open '%s'", path);
	if (!state || !meta || !keras)
		return tpd_fail_nomem(err);
	name = strrchr(real, '/') + 1;
	is_dir = S_ISDIR(st.st_mode);
	status = is_dir ? read_state(state, &found, out_step, err) : TPD_OK;
	if (status || found || (is_dir && tpd_step_keras(keras, out_step)))
		return status;
	if (is_dir ? tpd_step_dir_name(name, out_step) : tpd_step_file_name(name, out_step))
		return TPD_OK;
	if (tpd_step_torch(is_dir ? meta : real, out_step))
		return TPD_OK;
	return tpd_fail(err, TPD_NOT_FOUND,
			"'%s' does not tell its step: no trainer_state.json, no number in its name, and none saved in it", path);
}
