/* fuzz_dcp.c - any bytes as the .metadata of a distributed checkpoint and the .distcp file beside it. */
#include "base/tpd.h"

#include "tests/fuzz/fuzz.h"

FUZZ_TARGET(dcp)
{
	struct tpd_format_hints *hints = tpd_format_hints_new(NULL);
	struct fuzz_file companion = {.data = data + 4};
	size_t first = 0;

	FUZZ_CHECK(hints);
	if (fuzz_split(data, size, &first)) {
		companion.size = first;
		FUZZ_CHECK(tpd_format_hints_read(hints, ".metadata", first, fuzz_read, &companion, NULL) == TPD_OK);
		fuzz_parse("__0_0.distcp", hints, data + 4 + first, size - 4 - first);
	}
	tpd_format_hints_free(hints);
	return 0;
}
