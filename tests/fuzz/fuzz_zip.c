/* fuzz_zip.c - any bytes as a zip: by torch.save(), or of numpy arrays. */
#include "base/tpd.h"

#include "tests/fuzz/fuzz.h"

FUZZ_TARGET(zip)
{
	struct fuzz_file file = {.data = data, .size = size};
	struct tpd_format_layout layout;
	uint64_t step = 0;
	bool found = false;

	FUZZ_CHECK(tpd_format_parse_zip(size, fuzz_read, &file, &layout, NULL) == TPD_OK);
	fuzz_check_layout(&layout, size);
	FUZZ_CHECK(file.bytes_read <= 4 * (uint64_t)size);
	tpd_format_layout_release(&layout);
	file.bytes_read = 0;
	FUZZ_CHECK(tpd_format_torch_step(size, fuzz_read, &file, &found, &step, NULL) == TPD_OK);
	FUZZ_CHECK(file.bytes_read <= 4 * (uint64_t)size);
	return 0;
}
