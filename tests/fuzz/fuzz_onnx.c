/* fuzz_onnx.c - any bytes as an ONNX model and a file of external data beside it. */
#include "base/tpd.h"

#include "tests/fuzz/fuzz.h"

FUZZ_TARGET(onnx)
{
	struct tpd_format_hints *hints = tpd_format_hints_new(NULL);
	struct fuzz_file companion = {.data = data + 4};
	size_t first = 0;

	FUZZ_CHECK(hints);
	if (fuzz_split(data, size, &first)) {
		companion.size = first;
		fuzz_parse("m.onnx", NULL, data + 4, first);
		FUZZ_CHECK(tpd_format_hints_read(hints, "m.onnx", first, fuzz_read, &companion, NULL) == TPD_OK);
		fuzz_parse("m.onnx.data", hints, data + 4 + first, size - 4 - first);
	}
	tpd_format_hints_free(hints);
	return 0;
}
