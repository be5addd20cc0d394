/*
 * t_dcp.c - distributed checkpoints: what .metadata says of .distcp files, and what becomes of the files when it
 * lies.
 */
#include "base/tpd.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "dcp_build.h"
#include "format/format.h"
#include "format/hints.h"
#include "format_file.h"

#define SILENT "torch distcp: no .metadata speaks of it"

static void add_companion(struct tpd_format_hints *hints, const char *path, const struct tpd_buf *bytes)
{
	struct format_file file = {.data = bytes->data, .size = bytes->len};
	struct tpd_err err = {.status = TPD_OK};

	ck_assert_int_eq(tpd_format_hints_read(hints, path, file.size, format_file_read, &file, &err), TPD_OK);
}

static struct tpd_format_layout parse_hinted(const char *path, const struct tpd_format_hints *hints,
					     const struct tpd_buf *bytes)
{
	struct format_file file = {.data = bytes->data, .size = bytes->len};
	struct tpd_format_layout layout;
	struct tpd_err err = {.status = TPD_OK};

	ck_assert_int_eq(tpd_format_parse(path, file.size, format_file_read, &file, hints, &layout, &err), TPD_OK);
	check_layout(&layout, file.size);
	return layout;
}

/* The layout of the file below `directory` after a .metadata of these items there. */
static struct tpd_format_layout parse_items(const char *directory, const struct tpd_buf *file, const struct item *items,
					    size_t count)
{
	struct tpd_format_hints *hints = tpd_format_hints_new(NULL);
	struct tpd_buf metadata = {0};
	struct tpd_format_layout layout;
	char path[64];

	ck_assert_ptr_nonnull(hints);
	put_metadata(&metadata, items, count);
	snprintf(path, sizeof path, "%s.metadata", directory);
	add_companion(hints, path, &metadata);
	snprintf(path, sizeof path, "%s" FILE_NAME, directory);
	layout = parse_hinted(path, hints, file);
	tpd_buf_release(&metadata);
	tpd_format_hints_free(hints);
	return layout;
}

START_TEST(items_become_segments)
{
	static const char *const directories[] = {"", "optimizer_0/", "a/b/"};
	static const char *const names[] = {"one", "two[3,0]", "rng.data/0"};
	static const uint64_t rows[] = {2, 4, 5};
	struct tpd_buf file = {0};
	struct item items[ITEMS];

	build(&file, items);
	for (size_t d = 0; d < TPD_ARRAY_LEN(directories); d++) {
		struct tpd_format_layout layout = parse_items(directories[d], &file, items, ITEMS);

		ck_assert_int_eq(layout.kind, TPD_FORMAT_TORCH_DISTCP);
		ck_assert_uint_eq(layout.count, 3);
		for (size_t i = 0; i < layout.count; i++) {
			const struct tpd_format_segment *s = &layout.segments[i];

			ck_assert_str_eq(s->name, names[i]);
			ck_assert(s->typed && s->dtype == TPD_DTYPE_F32);
			ck_assert_uint_eq(s->ndim, 2);
			ck_assert_uint_eq(s->dims[0], rows[i]);
			ck_assert_uint_eq(s->length, rows[i] * 64);
			ck_assert_uint_eq(file.data[s->offset], 1); /* the member's first byte */
		}
		tpd_format_layout_release(&layout);
	}
	tpd_buf_release(&file);
}
END_TEST

/* Offsets are in the order of the tensor's dimensions, shapes in that of the memory: a part has none then. */
START_TEST(transposed_parts)
{
	struct tpd_buf file = {0};
	struct tpd_format_layout layout;
	struct item items[ITEMS];

	transposed = true;
	build(&file, items);
	layout = parse_items("", &file, items, ITEMS);
	ck_assert_uint_eq(layout.count, 3);
	ck_assert_str_eq(layout.segments[0].name, "one");
	ck_assert_uint_eq(layout.segments[0].ndim, 2);
	ck_assert_uint_eq(layout.segments[0].dims[0], 16);
	ck_assert_uint_eq(layout.segments[0].dims[1], 2);
	ck_assert_str_eq(layout.segments[1].name, "two[3,0]");
	ck_assert_uint_eq(layout.segments[1].ndim, 0);
	tpd_format_layout_release(&layout);
	tpd_buf_release(&file);
	transposed = false;
}
END_TEST

/* Without .metadata, or with one of another directory, several zips in one file are none. */
START_TEST(without_companion)
{
	struct tpd_format_hints *hints = tpd_format_hints_new(NULL);
	struct tpd_buf file = {0}, metadata = {0};
	struct item items[ITEMS];
	struct tpd_format_layout layout;

	build(&file, items);
	put_metadata(&metadata, items, ITEMS);
	add_companion(hints, "x/.metadata", &metadata);
	add_companion(hints, "y/metadata", &metadata); /* none by its name */
	layout = parse_hinted("y/" FILE_NAME, hints, &file);
	ck_assert_str_eq(layout.reason, SILENT);
	tpd_format_layout_release(&layout);
	layout = parse_hinted("x/__1_0.distcp", hints, &file);
	ck_assert_int_eq(layout.kind, TPD_FORMAT_OPAQUE);
	tpd_format_layout_release(&layout);
	layout = parse_hinted("x/" FILE_NAME, hints, &file);
	ck_assert_int_eq(layout.kind, TPD_FORMAT_TORCH_DISTCP);
	tpd_format_layout_release(&layout);
	tpd_format_hints_free(hints);
	tpd_format_hints_free(NULL);
	tpd_buf_release(&file);
	tpd_buf_release(&metadata);
}
END_TEST

/* ---- .metadata that lies ---- */

static const struct {
	unsigned item;
	struct item changed; /* what is not 0 or NULL replaces what was there */
	size_t segments;
	const char *reason;
} lies[] = {
	{1, {.at = 1}, 0, "torch distcp: items overlap or are out of bounds"},
	{0, {.length = UINT64_MAX / 2}, 0, "torch distcp: items overlap or are out of bounds"},
	{3, {.at = UINT64_MAX / 2}, 0, "torch distcp: items overlap or are out of bounds"},
	{3, {.length = 1000000}, 0, "torch distcp: items overlap or are out of bounds"},
	{0, {.length = 1}, 2, ""},                  /* no zip: glue */
	{0, {.length = 300}, 2, ""},
	{0, {.path = "__0_1.distcp"}, 2, ""},       /* in another file */
	{0, {.fqn = "\xff"}, 2, ""},                /* no name */
	{0, {.path = "../" FILE_NAME}, 0, SILENT},
	{0, {.path = "/" FILE_NAME}, 0, SILENT},
	{0, {.path = ""}, 0, SILENT},
	{0, {.length = UINT64_MAX}, 0, SILENT},     /* no such number in torch: the whole of it is doubted */
};

START_TEST(lie)
{
	struct tpd_buf file = {0};
	struct item items[ITEMS], *item = &items[lies[_i].item];
	struct tpd_format_layout layout;

	build(&file, items);
	if (lies[_i].changed.at)
		item->at = lies[_i].changed.at;
	if (lies[_i].changed.length)
		item->length = lies[_i].changed.length;
	if (lies[_i].changed.path)
		item->path = lies[_i].changed.path;
	if (lies[_i].changed.fqn)
		item->fqn = lies[_i].changed.fqn;
	layout = parse_items("d/", &file, items, ITEMS);
	ck_assert_str_eq(layout.reason, lies[_i].reason);
	ck_assert_uint_eq(layout.count, lies[_i].segments);
	tpd_format_layout_release(&layout);
	tpd_buf_release(&file);
}
END_TEST

/* Whatever bytes .metadata has, the file is parsed, or opaque. */
START_TEST(metadata_truncated_and_damaged)
{
	struct tpd_buf file = {0}, metadata = {0};
	struct item items[ITEMS];
	uint64_t state = 7;
	uint8_t *copy;

	build(&file, items);
	put_metadata(&metadata, items, ITEMS);
	copy = malloc(metadata.len);
	ck_assert_ptr_nonnull(copy);
	for (size_t i = 0; i < metadata.len + 4000; i++) {
		struct tpd_format_hints *hints = tpd_format_hints_new(NULL);
		struct tpd_buf bytes = {.data = copy, .len = TPD_MIN(i, metadata.len)};
		struct tpd_format_layout layout;

		memcpy(copy, metadata.data, metadata.len);
		if (i >= metadata.len)
			damage(copy, metadata.len, metadata.len, &state);
		add_companion(hints, ".metadata", &bytes);
		layout = parse_hinted(FILE_NAME, hints, &file);
		ck_assert(i >= metadata.len || layout.kind == TPD_FORMAT_OPAQUE);
		tpd_format_layout_release(&layout);
		tpd_format_hints_free(hints);
	}
	free(copy);
	tpd_buf_release(&file);
	tpd_buf_release(&metadata);
}
END_TEST

START_TEST(file_truncated)
{
	struct tpd_buf file = {0};
	struct item items[ITEMS];

	build(&file, items);
	for (size_t size = 0; size < file.len; size += 7) {
		struct tpd_buf part = {.data = file.data, .len = size};
		struct tpd_format_layout layout = parse_items("", &part, items, ITEMS);

		ck_assert_int_eq(layout.kind, TPD_FORMAT_OPAQUE);
		tpd_format_layout_release(&layout);
	}
	tpd_buf_release(&file);
}
END_TEST

/* ---- bounds ---- */

/* One item, 400,000 times: too many ranges, and nothing of them is kept. */
START_TEST(many_items)
{
	struct tpd_format_hints *hints = tpd_format_hints_new(NULL);
	struct item item = {"one", 2, {0, 0}, FILE_NAME, 0, 100};
	struct tpd_buf metadata = {0};
	size_t count = 0;

	pk_object(&metadata, "Metadata");
	pk_str(&metadata, "state_dict_metadata");
	pk(&metadata, EMPTY_DICT);
	pk_str(&metadata, "storage_data");
	pk(&metadata, EMPTY_DICT);
	pk(&metadata, MARK);
	pk(&metadata, EMPTY_DICT);
	pk(&metadata, POP);
	pk_item(&metadata, &item);
	pk_put(&metadata, 1); /* the value; as a key it is no use, so: key, value, and both again */
	pk(&metadata, POP);
	pk_put(&metadata, 0);
	pk_get(&metadata, 1);
	for (unsigned i = 0; i < 300000; i++) {
		pk_get(&metadata, 0);
		pk_get(&metadata, 1);
	}
	pk(&metadata, SETITEMS);
	pk_object_end(&metadata);
	pk(&metadata, STOP);
	add_companion(hints, ".metadata", &metadata);
	ck_assert_str_eq(hints->doubt, "too many ranges");
	ck_assert_ptr_null(tpd_hints_find(hints, FILE_NAME, &count));
	ck_assert_uint_eq(hints->count, 0);
	ck_assert_uint_eq(hints->file_count, 0);
	tpd_format_hints_free(hints);
	tpd_buf_release(&metadata);
}
END_TEST

/* What a large MoE model has: the glue of so many items is more than other files may have. */
START_TEST(fifty_thousand_items)
{
	enum { COUNT = 50000 };
	struct tpd_format_hints *hints = tpd_format_hints_new(NULL);
	struct tpd_buf file = {0}, metadata = {0};
	struct tpd_format_layout layout;
	struct format_file source;
	uint64_t glue;

	build_many(&file, &metadata, COUNT, 4, 0);
	add_companion(hints, ".metadata", &metadata);
	ck_assert_ptr_null(hints->doubt);
	source = (struct format_file){.data = file.data, .size = file.len};
	ck_assert_int_eq(tpd_format_parse(FILE_NAME, file.len, format_file_read, &source, hints, &layout, NULL), TPD_OK);
	ck_assert_str_eq(layout.reason, "");
	ck_assert_int_eq(layout.kind, TPD_FORMAT_TORCH_DISTCP);
	ck_assert_uint_eq(layout.count, COUNT);
	check_layout(&layout, file.len);
	glue = file.len - COUNT * 256ull;
	ck_assert_uint_gt(glue, TPD_FORMAT_MAX_GLUE);
	tpd_format_layout_release(&layout);
	tpd_format_hints_free(hints);
	tpd_buf_release(&file);
	tpd_buf_release(&metadata);
}
END_TEST

/*
 * A long name before each of thousands of small zips: the names of a file are bounded, whoever pays for them; so are
 * those that become too long below an item, and are not used.
 */
START_TEST(many_long_names)
{
	enum { COUNT = 4200 };
	static const size_t lengths[] = {4000, TPD_FORMAT_MAX_NAME};
	static char name[TPD_FORMAT_MAX_NAME + 1];
	struct tpd_hint *hints = calloc(COUNT, sizeof *hints);
	struct tpd_buf one = {0}, file = {0};
	struct item items[ITEMS];
	struct tpd_format_layout layout;
	struct format_file source;

	ck_assert_ptr_nonnull(hints);
	memset(name, 'n', lengths[_i]);
	build(&one, items);
	for (size_t i = 0; i < COUNT; i++) {
		hints[i] = (struct tpd_hint){.zip = true, .many = _i == 1};
		hints[i].segment = (struct tpd_format_segment){.name = name, .offset = file.len};
		hints[i].segment.length = items[0].length;
		tpd_buf_put(&file, one.data + items[0].at, items[0].length);
	}
	source = (struct format_file){.data = file.data, .size = file.len};
	ck_assert_int_eq(tpd_format_parse_distcp(file.len, format_file_read, &source, hints, COUNT, &layout, NULL),
			 TPD_OK);
	ck_assert_str_eq(layout.reason, "torch distcp: too many tensors, or too long names");
	tpd_format_layout_release(&layout);
	ck_assert_int_eq(tpd_format_parse_distcp(file.len, format_file_read, &source, hints, 100, &layout, NULL),
			 TPD_OK);
	ck_assert_str_eq(layout.reason, "");
	ck_assert_uint_eq(layout.count, _i == 0 ? 100 : 0);
	tpd_format_layout_release(&layout);
	free(hints);
	tpd_buf_release(&one);
	tpd_buf_release(&file);
}
END_TEST

/* Two companions that speak of one file, and files in any order. */
START_TEST(many_companions)
{
	struct tpd_format_hints *hints = tpd_format_hints_new(NULL);
	static const char *const paths[] = {"c", "a", "b", "a", "c"};
	size_t count = 0;

	for (uint64_t i = 0; i < TPD_ARRAY_LEN(paths); i++) {
		struct item item = {"one", 2, {0, 0}, paths[i], 100 - i, 10};
		struct tpd_buf metadata = {0};

		put_metadata(&metadata, &item, 1);
		add_companion(hints, "d/.metadata", &metadata);
		tpd_buf_release(&metadata);
	}
	ck_assert_uint_eq(tpd_hints_find(hints, "d/a", &count)[0].segment.offset, 97);
	ck_assert_uint_eq(count, 2);
	ck_assert_uint_eq(tpd_hints_find(hints, "d/b", &count)[0].segment.offset, 98);
	ck_assert_uint_eq(count, 1);
	ck_assert_uint_eq(tpd_hints_find(hints, "d/c", &count)[0].segment.offset, 96);
	ck_assert_uint_eq(tpd_hints_find(hints, "d/c", &count)[1].segment.offset, 100);
	ck_assert_uint_eq(count, 2);
	ck_assert_ptr_null(tpd_hints_find(hints, "d/d", &count));
	ck_assert_ptr_null(tpd_hints_find(hints, "", &count));
	tpd_format_hints_free(hints);
}
END_TEST

START_TEST(failing_reads_end_it)
{
	struct tpd_format_hints *hints = tpd_format_hints_new(NULL);
	struct tpd_buf file = {0}, metadata = {0};
	struct item items[ITEMS];
	int at = 0;

	build(&file, items);
	put_metadata(&metadata, items, ITEMS);
	for (;;) {
		struct format_file companion = {.data = metadata.data, .size = metadata.len, .fail_at = 1};
		struct format_file shard = {.data = file.data, .size = file.len, .fail_at = ++at};
		struct tpd_format_layout layout;

		if (at == 1) {
			ck_assert_int_eq(tpd_format_hints_read(hints, ".metadata", companion.size, format_file_read,
							       &companion, NULL),
					 TPD_BUSY);
			add_companion(hints, ".metadata", &metadata);
		}
		if (tpd_format_parse(FILE_NAME, shard.size, format_file_read, &shard, hints, &layout, NULL) == TPD_OK) {
			tpd_format_layout_release(&layout);
			break;
		}
	}
	ck_assert_int_gt(at, 4 * 5);
	tpd_format_hints_free(hints);
	tpd_buf_release(&file);
	tpd_buf_release(&metadata);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("dcp");
	TCase *tests = tcase_create("dcp");
	SRunner *runner = srunner_create(suite);
	int failed;

	suite_add_tcase(suite, tests);
	tcase_set_timeout(tests, 120);
	tcase_add_test(tests, items_become_segments);
	tcase_add_test(tests, transposed_parts);
	tcase_add_test(tests, without_companion);
	tcase_add_loop_test(tests, lie, 0, (int)TPD_ARRAY_LEN(lies));
	tcase_add_test(tests, metadata_truncated_and_damaged);
	tcase_add_test(tests, file_truncated);
	tcase_add_test(tests, many_items);
	tcase_add_test(tests, fifty_thousand_items);
	tcase_add_loop_test(tests, many_long_names, 0, 2);
	tcase_add_test(tests, many_companions);
	tcase_add_test(tests, failing_reads_end_it);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
