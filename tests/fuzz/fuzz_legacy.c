/* fuzz_legacy.c - any bytes as a file by torch.save() before PyTorch 1.6. */
#include "base/tpd.h"

#include "tests/fuzz/fuzz.h"

FUZZ_TARGET(legacy)
{
	struct fuzz_file file = {.data = data, .size = size};
	struct tpd_format_layout layout;

	if (size == 0)
		return 0;
	FUZZ_CHECK(tpd_format_parse_torch_legacy(size, fuzz_read, &file, &layout, NULL) == TPD_OK);
	fuzz_check_layout(&layout, size);
	FUZZ_CHECK(file.bytes_read <= 3 * (uint64_t)size);
	tpd_format_layout_release(&layout);
	return 0;
}
