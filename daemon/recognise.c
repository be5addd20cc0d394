/*
 * recognise.c - checkpoints by their names.
 *
 * Frameworks name what they write after the step, and most write more than checkpoints: logs, final models, states of
 * ranks. The rules prefer not to store (a directory too few is seen in `tpdectl status`, and can be ingested by hand)
 * over storing what is not complete; where names tell nothing, settling decides. Rejected: reading the files' contents
 * to find out what they are (slow, and a file half written tells nothing), and configuring patterns (the second thing
 * to get wrong).
 */
#include "base/tpd.h"

#include "daemon/recognise.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "archive/step.h"
#include "base/text.h"

static bool has_prefix(const char *s, const char *prefix)
{
	return strncmp(s, prefix, strlen(prefix)) == 0;
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool all_digits(const char *s)
{
	return *s && strspn(s, "0123456789") == strlen(s);
}

bool tpd_recognise_ignored(const char *name)
{
	static const char *const suffixes[] = {".tmp", ".orbax-checkpoint-tmp", ".lock", ".__lock", "-unfinished", "~"};

	if (name[0] == '.' || has_prefix(name, "tmp-") || strstr(name, ".orbax-checkpoint-tmp"))
		return true;
	for (size_t i = 0; i < TPD_ARRAY_LEN(suffixes); i++) {
		if (tpd_text_has_suffix(name, suffixes[i]))
			return true;
	}
	return false;
}

/* --- files --- */

/* "model-00001-of-00002" */
static bool is_shard(const char *stem)
{
	const char *of = strstr(stem, "-of-");

	return of && of > stem && is_digit(of[-1]) && all_digits(of + 4);
}

static bool is_part(const char *stem)
{
	static const char *const names[] = {"model",  "pytorch_model", "adapter_model", "optimizer", "scheduler",
					    "scaler", "training_args", "consolidated",  "common"};
	static const char *const words[] = {"rng_state",    "random_states", "rank_",     "rank-",
					    "optim_states", "model_states",  "rng_states"};

	for (size_t i = 0; i < TPD_ARRAY_LEN(names); i++) {
		if (strcmp(stem, names[i]) == 0)
			return true;
	}
	for (size_t i = 0; i < TPD_ARRAY_LEN(words); i++) {
		if (strstr(stem, words[i]))
			return true;
	}
	return is_shard(stem);
}

enum tpd_file_role tpd_recognise_file(const char *name, uint64_t *out_step)
{
	TPD_AUTO_FREE char *stem = tpd_step_stem(name);

	if (!stem) {
		stem = tpd_step_other_stem(name);
		return stem && !is_part(stem) && tpd_step_word(stem, out_step) ? TPD_FILE_CHECKPOINT : TPD_FILE_OTHER;
	}
	if (is_part(stem))
		return TPD_FILE_PART;
	if (tpd_step_file_name(name, out_step))
		return TPD_FILE_CHECKPOINT;
	return TPD_FILE_UNNUMBERED;
}

bool tpd_recognise_step_file(const char *name)
{
	TPD_AUTO_FREE char *stem = tpd_step_stem(name);
	uint64_t step;

	if (!stem)
		stem = tpd_step_other_stem(name);
	return stem && !is_part(stem) && tpd_step_word(stem, &step);
}

bool tpd_recognise_rank(const char *name, uint64_t *out_rank)
{
	TPD_AUTO_FREE char *digits = NULL;
	size_t prefix = strlen("rng_state_"), len = strlen(name);

	if (!has_prefix(name, "rng_state_") || !tpd_text_has_suffix(name, ".pth") || len <= prefix + 4)
		return false;
	digits = strndup(name + prefix, len - prefix - 4);
	return digits && tpd_text_parse_u64(digits, out_rank);
}

bool tpd_recognise_payload(const char *name, uint64_t size)
{
	static const char *const others[] = {".json", ".jsonl", ".txt", ".log", ".out",  ".err", ".yaml",
					     ".yml",  ".toml",  ".md",  ".py",  ".sh",   ".csv", ".tsv",
					     ".html", ".png",   ".svg", ".pdf", ".wandb"};

	if (size < TPD_PAYLOAD_MIN || tpd_recognise_ignored(name) || has_prefix(name, "events.out.tfevents"))
		return false;
	for (size_t i = 0; i < TPD_ARRAY_LEN(others); i++) {
		if (tpd_text_has_suffix(name, others[i]))
			return false;
	}
	return true;
}

bool tpd_recognise_weights(const char *name)
{
	static const char *const prefixes[] = {"model",    "pytorch_model", "adapter_model", "diffusion_pytorch_model",
					       "tf_model", "flax_model"};

	if (!tpd_text_has_suffix(name, ".safetensors") && !tpd_text_has_suffix(name, ".bin") &&
	    !tpd_text_has_suffix(name, ".pt"))
		return false;
	for (size_t i = 0; i < TPD_ARRAY_LEN(prefixes); i++) {
		if (has_prefix(name, prefixes[i]))
			return true;
	}
	return false;
}

/* --- directories --- */

bool tpd_recognise_step_dir(const char *name)
{
	uint64_t step;

	return !tpd_recognise_ignored(name) && (all_digits(name) || tpd_step_word(name, &step));
}

/* seed42, exp-3: the number that the name ends with is that of a run, not a step. */
static bool is_numbered_run(const char *name)
{
	static const char *const words[] = {"run", "exp", "experiment", "seed", "trial", "fold", "version", "job", "task", "sweep", "attempt",
					    "try", "repeat", "split", "worker", "node", "gpu", "v"};
	size_t end = strlen(name), start;

	while (end > 0 && is_digit(name[end - 1]))
		end--;
	while (end > 0 && strchr("-_=.", name[end - 1]))
		end--;
	for (start = end; start > 0 && isalpha((unsigned char)name[start - 1]);)
		start--;
	for (size_t i = 0; i < TPD_ARRAY_LEN(words); i++)
		if (strlen(words[i]) == end - start && strncasecmp(name + start, words[i], end - start) == 0)
			return true;
	return false;
}

bool tpd_recognise_dir(const struct tpd_dir_facts *facts, uint64_t *out_step)
{
	bool plain = has_prefix(facts->name, "checkpoint-") && tpd_text_parse_step(facts->name + strlen("checkpoint-"), out_step);

	if (!facts->payload)
		return false;
	if (plain)
		return true; /* whatever lies in it */
	if (facts->checkpoints)
		return false;
	if (!tpd_recognise_step_dir(facts->name) && (facts->numbered_files || is_numbered_run(facts->name)))
		return false; /* run7/model_100.pt: a run's files, and 7 is no step */
	return tpd_step_dir_name(facts->name, out_step);
}
