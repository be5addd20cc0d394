/*
 * whole.c - does a file end where its format says that it does?
 *
 * Each check reads a bounded number of bytes and says true when it does not know.
 */
#include "base/tpd.h"

#include "format/format.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/io.h"
#include "base/json.h"

#define HEADER_MAX 100000000u         /* of safetensors: 8 + this + data = the file */
#define HEADER_PARSED_MAX (16u << 20) /* larger headers are believed */
#define ZIP_END 22                    /* bytes of the end record, without its comment */
#define ZIP_TAIL (ZIP_END + 65535)

static bool read_at(int fd, void *buf, size_t len, uint64_t offset)
{
	return tpd_io_read_exact(tpd_io_posix(), fd, buf, len, offset, "", NULL) == TPD_OK;
}

/* The end record, and a comment that ends where the file does. */
static bool zip_ends(int fd, uint64_t size)
{
	size_t len = (size_t)TPD_MIN(size, (uint64_t)ZIP_TAIL);
	TPD_AUTO_FREE uint8_t *tail = NULL;

	if (len < ZIP_END)
		return false;
	tail = malloc(len);
	if (!tail || !read_at(fd, tail, len, size - len))
		return false;
	for (size_t at = len - ZIP_END + 1; at-- > 0;) {
		if (tpd_get_u32(tail + at) == 0x06054b50 && at + ZIP_END + tpd_get_u16(tail + at + 20) == len)
			return true;
	}
	return false;
}

/* The highest "data_offsets" end in a header; false: this is no header. */
static bool header_end(const char *text, size_t len, uint64_t *out_end)
{
	struct tpd_json js = tpd_json_make(text, len);
	enum tpd_json_kind kind;
	bool offsets = false;
	uint64_t end = 0, v;

	/* "data_offsets" can only be a key of ours: __metadata__ maps to strings. */
	while ((kind = tpd_json_next(&js)) != TPD_JSON_END) {
		if (kind == TPD_JSON_ERROR)
			return false;
		if (kind == TPD_JSON_KEY)
			offsets = tpd_json_is(&js, "data_offsets");
		else if (kind == TPD_JSON_NUMBER && offsets && tpd_json_u64(&js, &v))
			end = TPD_MAX(end, v);
	}
	*out_end = end;
	return true;
}

/* A file named so that is none is for others to judge; one with a header must be as long as that says. */
static bool safetensors_ends(int fd, uint64_t size)
{
	TPD_AUTO_FREE char *text = NULL;
	uint64_t len, end;
	uint8_t head[9];

	if (size < sizeof head || !read_at(fd, head, sizeof head, 0))
		return false;
	len = tpd_get_u64(head);
	if (head[8] != '{' || len > HEADER_MAX)
		return true;
	if (len > size - 8)
		return false;
	if (len > HEADER_PARSED_MAX)
		return true;
	text = malloc((size_t)len);
	if (!text || !read_at(fd, text, (size_t)len, 8) || !header_end(text, (size_t)len, &end))
		return true;
	return end <= size - 8 - len;
}

/*
 * HDF5's superblock: who opens the file for writing sets a flag there and clears it at the end, when the address of the file's end is
 * written, too. Until then its place may be a hole.
 */
static bool hdf5_ends(int fd, uint64_t size)
{
	static const uint8_t magic[8] = {0x89, 'H', 'D', 'F', '\r', '\n', 0x1a, '\n'};
	uint8_t head[48];
	bool old;

	if (size < sizeof head || !read_at(fd, head, sizeof head, 0))
		return false;
	if (memcmp(head, magic, sizeof magic) != 0)
		return head[0] != 0;
	old = head[8] < 2;
	if (head[8] > 3 || head[old ? 13 : 9] != 8 || head[8] == 1)
		return true; /* none that we know, or with addresses of another size */
	if ((head[old ? 20 : 11] & 1) != 0)
		return false;
	return tpd_get_u64(head + (old ? 40 : 28)) <= size;
}

static bool gguf_ends(int fd, uint64_t size)
{
	struct tpd_format_layout layout = {0};
	bool ends;

	if (tpd_format_parse_gguf(size, tpd_format_read_fd, &fd, &layout, NULL) != TPD_OK)
		return true;
	ends = !layout.cut;
	tpd_format_layout_release(&layout);
	return ends;
}

bool tpd_format_is_whole(int fd, const char *name, uint64_t size)
{
	const char *dot = strrchr(name, '.');
	uint8_t magic[4] = {0};

	if (dot && strcmp(dot, ".safetensors") == 0)
		return safetensors_ends(fd, size);
	if (dot && strcmp(dot, ".h5") == 0)
		return hdf5_ends(fd, size);
	if (size >= 4 && read_at(fd, magic, 4, 0) && tpd_get_u32(magic) == 0x04034b50)
		return zip_ends(fd, size);
	if (size >= 4 && memcmp(magic, "GGUF", 4) == 0)
		return gguf_ends(fd, size);
	return size > 0;
}
