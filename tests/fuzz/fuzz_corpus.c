/*
 * fuzz_corpus.c - replays the corpus of every fuzz target, for make check: fuzz_corpus [DIR], by default
 * tests/fuzz/corpus, in which DIR/NAME/ are the inputs of fuzz_NAME.c. Each input also without its last bytes, since
 * ends are where parsers go wrong. An input that breaks a contract ends the program, its name printed last.
 */
#include "base/tpd.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INPUT_MAX (1u << 20)
#define CUTS 3u

#define TARGETS(X) X(safetensors) X(zip) X(pickle) X(legacy) X(dcp) X(onnx) X(formats) X(state)

#define X(name) int fuzz_##name(const uint8_t *data, size_t size);
TARGETS(X)
#undef X

static const struct {
	const char *name;
	int (*run)(const uint8_t *data, size_t size);
} targets[] = {
#define X(name) {#name, fuzz_##name},
	TARGETS(X)
#undef X
};

/* Runs one input, from memory of its very length. false: it cannot be read. */
static bool replay(int (*run)(const uint8_t *data, size_t size), const char *path)
{
	TPD_AUTO_FREE uint8_t *all = malloc(INPUT_MAX);
	FILE *file = fopen(path, "rb");
	size_t size;

	if (!file || !all) {
		if (file)
			fclose(file);
		return false;
	}
	size = fread(all, 1, INPUT_MAX, file);
	fclose(file);
	fprintf(stderr, "%s\n", path);
	for (size_t cut = 0; cut < CUTS && cut <= size; cut++) {
		uint8_t *copy = malloc(size - cut + 1);

		if (!copy)
			return false;
		memcpy(copy, all, size - cut);
		run(copy, size - cut);
		free(copy);
	}
	return true;
}

/* The inputs of a target; 0: something is missing. */
static unsigned replay_all(size_t target, const char *corpus)
{
	char path[4096];
	unsigned count = 0;
	DIR *dir;
	const struct dirent *entry;

	snprintf(path, sizeof path, "%s/%s", corpus, targets[target].name);
	dir = opendir(path);
	while (dir && (entry = readdir(dir)) != NULL) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof path, "%s/%s/%s", corpus, targets[target].name, entry->d_name);
		if (!replay(targets[target].run, path)) {
			fprintf(stderr, "cannot read '%s'\n", path);
			count = 0;
			break;
		}
		count++;
	}
	if (dir)
		closedir(dir);
	return count;
}

int main(int argc, char **argv)
{
	const char *corpus = argc > 1 ? argv[1] : "tests/fuzz/corpus";
	bool good = true;

	for (size_t i = 0; i < TPD_ARRAY_LEN(targets); i++) {
		unsigned count = replay_all(i, corpus);

		printf("%s: %u inputs\n", targets[i].name, count);
		good = good && count > 0;
	}
	return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
