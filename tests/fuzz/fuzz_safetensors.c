/* fuzz_safetensors.c - any bytes as a safetensors file. */
#include "base/tpd.h"

#include "tests/fuzz/fuzz.h"

FUZZ_TARGET(safetensors)
{
	fuzz_parse("x.safetensors", NULL, data, size);
	return 0;
}
