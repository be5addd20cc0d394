/*
 * exhaustive_pairs.c - every pair (x, p) of 16-bit patterns through the real encoder and decoder: 2^32 pairs
 * for a type and a T, some minutes each.  Too long for the test suite, whose t_grid takes a sample of them.
 *
 *     exhaustive_pairs [bf16|f16|all [T|all|sparse]] [--sample N]
 *
 * Without arguments: both types, `sparse`, and `grid` at T = 1, M, M + 1, a middle one and the largest.
 * --sample N takes every N-th p only.
 */
#include "base/tpd.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/text.h"
#include "codec_pairs.h"

static struct pairs pairs;

static bool run(struct tpd_codec *codec, enum tpd_dtype dtype, unsigned t, unsigned every)
{
	time_t start = time(NULL), told = start;
	char how[32] = "sparse";

	if (t)
		snprintf(how, sizeof how, "grid T = %u", t);
	for (uint32_t p = 0; p < 65536; p += every) {
		if (!pairs_check(&pairs, codec, dtype, t, (uint16_t)p)) {
			printf("%s %s: FAILED: %s\n", tpd_dtype_name(dtype), how, pairs.text);
			return false;
		}
		if (time(NULL) - told >= 5) {
			told = time(NULL);
			printf("%s %s: %5.1f %%, %ld s\n", tpd_dtype_name(dtype), how, p / 655.36,
			       (long)(told - start));
			fflush(stdout);
		}
	}
	printf("%s %s: all pairs%s are exact, %ld s\n", tpd_dtype_name(dtype), how, every > 1 ? " of the sample" : "",
	       (long)(time(NULL) - start));
	fflush(stdout);
	return true;
}

static bool run_type(struct tpd_codec *codec, enum tpd_dtype dtype, const char *which, unsigned every)
{
	struct tpd_grid_type type = {0};
	uint64_t t;

	tpd_grid_type(dtype, &type);
	if (strcmp(which, "sparse") == 0)
		return run(codec, dtype, 0, every);
	if (strcmp(which, "all") == 0) {
		const unsigned steps[] = {
			0, 1, type.mantissa, type.mantissa + 1, (type.mantissa + type.t_max) / 2, type.t_max};
		bool ok = true;

		for (size_t i = 0; i < TPD_ARRAY_LEN(steps); i++)
			ok = run(codec, dtype, steps[i], every) && ok;
		return ok;
	}
	if (!tpd_text_parse_u64(which, &t) || t < 1 || t > type.t_max) {
		fprintf(stderr, "T of %s is 1 .. %u, not '%s'\n", tpd_dtype_name(dtype), type.t_max, which);
		exit(2);
	}
	return run(codec, dtype, (unsigned)t, every);
}

static int usage(void)
{
	fputs("usage: exhaustive_pairs [bf16|f16|all [T|all|sparse]] [--sample N]\n", stderr);
	return 2;
}

int main(int argc, char **argv)
{
	const char *words[2] = {"all", "all"};
	struct tpd_codec *codec;
	uint64_t every = 1;
	int count = 0;
	bool bf16, f16, ok = true;

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--sample") == 0) {
			if (++i == argc || !tpd_text_parse_u64(argv[i], &every) || every == 0 || every > 65536)
				return usage();
		} else if (argv[i][0] == '-' || count == 2) {
			return usage();
		} else {
			words[count++] = argv[i];
		}
	}
	bf16 = strcmp(words[0], "f16") != 0;
	f16 = strcmp(words[0], "bf16") != 0;
	if (bf16 && f16 && strcmp(words[0], "all") != 0)
		return usage();
	if (tpd_codec_new(&codec, NULL) != TPD_OK)
		return 1;
	if (bf16)
		ok = run_type(codec, TPD_DTYPE_BF16, words[1], (unsigned)every) && ok;
	if (f16)
		ok = run_type(codec, TPD_DTYPE_F16, words[1], (unsigned)every) && ok;
	tpd_codec_free(codec);
	return ok ? 0 : 1;
}
