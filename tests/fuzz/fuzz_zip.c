/* fuzz_zip.c - any bytes as a zip: by torch.save(), of numpy arrays, or with Lightning's scores in it. */
#include "base/tpd.h"

#include "tests/fuzz/fuzz.h"

static enum tpd_status take(void *arg, const char *monitor, size_t length, double value, struct tpd_err *err)
{
	(void)err;
	FUZZ_CHECK(value - value == 0); /* finite */
	*(size_t *)arg += length > 0 && monitor[length - 1] != 0; /* all of it can be read */
	return TPD_OK;
}

FUZZ_TARGET(zip)
{
	size_t named = 0;
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
	file.bytes_read = 0;
	FUZZ_CHECK(tpd_format_torch_scores("a.ckpt", size, fuzz_read, &file, take, &named, NULL) == TPD_OK);
	FUZZ_CHECK(file.bytes_read <= 4 * (uint64_t)size + 32 * 16);
	return 0;
}
