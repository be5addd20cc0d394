/*
 * fuzz.h - what the fuzz targets share. Each tests/fuzz/fuzz_NAME.c has one
 *
 *     FUZZ_TARGET(NAME)
 *     {
 *             ... data, size ...
 *     }
 *
 * which becomes LLVMFuzzerTestOneInput where it is built for libFuzzer (make fuzz; FUZZ_ALONE), and fuzz_NAME() in
 * fuzz_corpus, which replays the corpus in make check. A target takes any bytes: whatever it does but keeping its
 * contract ends the program. No digest shields a parser, so the bytes are the file itself.
 */
#ifndef TPD_TESTS_FUZZ_H
#define TPD_TESTS_FUZZ_H

#include "base/tpd.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "format/format.h"
#include "format/state_name.h"

#ifdef FUZZ_ALONE
#define FUZZ_TARGET(name)                                           \
	int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size); \
	int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
#else
#define FUZZ_TARGET(name)                                \
	int fuzz_##name(const uint8_t *data, size_t size); \
	int fuzz_##name(const uint8_t *data, size_t size)
#endif

#define FUZZ_CHECK(condition) \
	((condition) ? (void)0 \
		     : (fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #condition), abort()))

struct fuzz_file {
	const uint8_t *data;
	uint64_t size;
	uint64_t bytes_read, reads;
};

TPD_UNUSED static enum tpd_status fuzz_read(void *ctx, void *buf, size_t len, uint64_t offset, struct tpd_err *err)
{
	struct fuzz_file *file = ctx;

	(void)err;
	FUZZ_CHECK(len > 0 && len <= file->size && offset <= file->size - len);
	file->bytes_read += len;
	file->reads++;
	memcpy(buf, file->data + offset, len);
	return TPD_OK;
}

TPD_UNUSED static void fuzz_check_name(const char *name)
{
	size_t length = strlen(name), at = 0, n = 0;

	FUZZ_CHECK(length > 0 && length <= TPD_FORMAT_MAX_NAME);
	while (at < length && (n = tpd_text_utf8(name + at, length - at)) > 0)
		at += n;
	FUZZ_CHECK(at == length);
}

/* What state_name.h says of every name: its parts lie in it. */
TPD_UNUSED static void fuzz_check_state_name(const char *name)
{
	size_t length = strlen(name);
	struct tpd_state_name out;

	tpd_state_name(name, &out);
	FUZZ_CHECK(out.kind < TPD_STATE_MASTER);
	FUZZ_CHECK(out.of >= name && out.of <= name + length && out.length <= length - (size_t)(out.of - name));
	FUZZ_CHECK(out.chunk >= name && out.chunk + out.chunk_length == name + length);
	FUZZ_CHECK(!out.numbered || out.kind);
}

/* What format.h says of every layout. */
TPD_UNUSED static void fuzz_check_layout(const struct tpd_format_layout *layout, uint64_t size)
{
	uint64_t at = 0, glue = size;

	FUZZ_CHECK((unsigned)layout->kind < TPD_FORMAT_KINDS);
	FUZZ_CHECK(memchr(layout->reason, 0, sizeof layout->reason) != NULL);
	FUZZ_CHECK(layout->kind != TPD_FORMAT_OPAQUE || layout->count == 0);
	for (size_t i = 0; i < layout->count; i++) {
		const struct tpd_format_segment *s = &layout->segments[i];
		uint64_t elements = 1;

		fuzz_check_name(s->name);
		fuzz_check_state_name(s->name);
		FUZZ_CHECK(s->offset >= at && s->length >= TPD_FORMAT_MIN_SEGMENT);
		FUZZ_CHECK(s->length <= size && s->offset <= size - s->length);
		FUZZ_CHECK(s->ndim <= TPD_FORMAT_MAX_DIMS);
		for (unsigned k = 0; k < s->ndim; k++)
			FUZZ_CHECK(!TPD_MUL_OVERFLOW(elements, s->dims[k], &elements));
		if (s->ndim > 0 && s->typed)
			FUZZ_CHECK(elements <= UINT64_MAX / 64 && elements * tpd_dtype_bits(s->dtype) / 8 == s->length);
		FUZZ_CHECK(tpd_format_row(s->ndim, s->dims, s->length) > 0);
		at = s->offset + s->length;
		glue -= s->length;
	}
	FUZZ_CHECK(layout->kind == TPD_FORMAT_OPAQUE || layout->kind == TPD_FORMAT_TORCH_DISTCP || glue <= TPD_FORMAT_MAX_GLUE);
}

/* Parses a copy of exactly these bytes under this name, and checks the layout; the kind. */
TPD_UNUSED static enum tpd_format_kind fuzz_parse(const char *path, const struct tpd_format_hints *hints,
						  const uint8_t *data, size_t size)
{
	struct fuzz_file file = {.data = data, .size = size};
	struct tpd_format_layout layout;
	enum tpd_format_kind kind;

	FUZZ_CHECK(tpd_format_parse(path, size, fuzz_read, &file, hints, &layout, NULL) == TPD_OK);
	fuzz_check_layout(&layout, size);
	/* Every parser reads a file a few times at most, and a zip within it has no header of less than 30 bytes. */
	FUZZ_CHECK(file.bytes_read <= 4 * (uint64_t)size + 64);
	kind = layout.kind;
	tpd_format_layout_release(&layout);
	return kind;
}

/* What may be in one file says something of another: a length, the companion, the file. false: too short. */
TPD_UNUSED static bool fuzz_split(const uint8_t *data, size_t size, size_t *out_first)
{
	if (size < 4)
		return false;
	*out_first = (size_t)data[0] | (size_t)data[1] << 8 | (size_t)data[2] << 16;
	return *out_first <= size - 4;
}

#endif
