/*
 * format_file.h - a file in memory for the tests of format/: the read callback, which holds
 * the parser to its contract, and what every layout must obey.
 */
#ifndef TPD_TESTS_FORMAT_FILE_H
#define TPD_TESTS_FORMAT_FILE_H

#include "base/tpd.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "format/format.h"

struct format_file {
	const uint8_t *data;
	uint64_t size;
	uint64_t bytes_read; /* so far */
	int fail_at;         /* the n-th read fails (1: the first); 0: none */
	int reads;
};

static enum tpd_status format_file_read(void *ctx, void *buf, size_t len, uint64_t offset, struct tpd_err *err)
{
	struct format_file *file = ctx;

	ck_assert(len > 0 && len <= file->size && offset <= file->size - len);
	file->bytes_read += len;
	if (++file->reads == file->fail_at)
		return tpd_fail(err, TPD_BUSY, "read %d fails", file->reads);
	memcpy(buf, file->data + offset, len);
	return TPD_OK;
}

static void check_layout(const struct tpd_format_layout *layout, uint64_t size)
{
	uint64_t at = 0, glue = size;

	ck_assert(memchr(layout->reason, 0, sizeof layout->reason) != NULL);
	if (layout->kind == TPD_FORMAT_OPAQUE)
		ck_assert_uint_eq(layout->count, 0);
	else
		ck_assert_str_eq(layout->reason, "");
	for (size_t i = 0; i < layout->count; i++) {
		const struct tpd_format_segment *segment = &layout->segments[i];

		ck_assert_ptr_nonnull(segment->name);
		ck_assert_uint_le(strlen(segment->name), TPD_FORMAT_MAX_NAME);
		ck_assert_uint_ge(segment->offset, at);
		ck_assert_uint_ge(segment->length, TPD_FORMAT_MIN_SEGMENT);
		ck_assert(segment->length <= size && segment->offset <= size - segment->length);
		ck_assert_uint_le(segment->ndim, TPD_FORMAT_MAX_DIMS);
		at = segment->offset + segment->length;
		glue -= segment->length;
	}
	if (layout->kind != TPD_FORMAT_OPAQUE)
		ck_assert(glue <= TPD_FORMAT_MAX_GLUE || layout->kind == TPD_FORMAT_TORCH_DISTCP);
}

/* Parse a copy of exactly these bytes (the sanitizer sees every step outside); release the result. */
TPD_UNUSED static struct tpd_format_layout parse_bytes(const char *path, const void *data, size_t size)
{
	struct format_file file = {.size = size};
	struct tpd_format_layout layout;
	struct tpd_err err = {.status = TPD_OK};
	uint8_t *copy = malloc(size ? size : 1);

	ck_assert_ptr_nonnull(copy);
	if (size)
		memcpy(copy, data, size);
	file.data = copy;
	ck_assert_int_eq(tpd_format_parse(path, size, format_file_read, &file, NULL, &layout, &err), TPD_OK);
	ck_assert_int_eq(err.status, TPD_OK);
	check_layout(&layout, size);
	free(copy);
	return layout;
}

/* Parse the file with each of its first `count` bytes set to each value in turn. */
TPD_UNUSED static void change_each_byte(const char *path, uint8_t *data, size_t size, size_t count)
{
	for (size_t at = 0; at < count; at++) {
		uint8_t was = data[at];

		for (unsigned value = 0; value < 256; value++) {
			struct tpd_format_layout layout;

			data[at] = (uint8_t)value;
			layout = parse_bytes(path, data, size);
			tpd_format_layout_release(&layout);
		}
		data[at] = was;
	}
}

/* The same numbers on every machine. */
TPD_UNUSED static uint32_t next_random(uint64_t *state)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(*state >> 33);
}

/* Up to three small damages, most of them in one of the first `hot` or last `hot` bytes, where structure is. */
TPD_UNUSED static void damage(uint8_t *data, size_t size, size_t hot, uint64_t *state)
{
	static const uint8_t values[] = {0, 1, 0x7f, 0x80, 0xff, '"', '{', '}', ',', 'P', '0', '9'};

	for (uint32_t n = 1 + next_random(state) % 3; n > 0; n--) {
		size_t at = next_random(state) % size;

		if (next_random(state) % 4 && hot < size)
			at = next_random(state) % 2 ? at % hot : size - 1 - at % hot;
		switch (next_random(state) % 3) {
		case 0:
			data[at] = values[next_random(state) % sizeof values];
			break;
		case 1:
			data[at] ^= (uint8_t)(1u << next_random(state) % 8);
			break;
		default:
			data[at] = data[next_random(state) % size];
			break;
		}
	}
}

#endif
