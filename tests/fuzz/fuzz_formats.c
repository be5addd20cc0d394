/* fuzz_formats.c - any bytes as any file: GGUF, numpy arrays, and which parser a file gets. */
#include "base/tpd.h"

#include "tests/fuzz/fuzz.h"

FUZZ_TARGET(formats)
{
	fuzz_parse(NULL, NULL, data, size);
	return 0;
}
