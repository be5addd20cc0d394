/*
 * t_torch_pickle.c - storages in pickles as torch.save() writes them get names, types and shapes; hostile ones cost
 * no more than a stated number of steps a byte.
 */
#include "base/tpd.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "format/torch_pickle.h"
#include "pickle_build.h"

/* Reads the buffer and STOP; the storages borrow from it. */
static struct tpd_torch_storages read_buffer(struct tpd_buf *buf)
{
	struct tpd_torch_storages found;
	struct tpd_err err = {.status = TPD_OK};

	pk(buf, STOP);
	ck_assert_int_eq(tpd_torch_pickle(buf->data, buf->len, &found, &err), TPD_OK);
	ck_assert_uint_le(found.steps, 6 * (uint64_t)buf->len + TPD_TORCH_NAMES_MAX);
	return found;
}

static void release(struct tpd_torch_storages *found, struct tpd_buf *buf)
{
	tpd_torch_storages_release(found);
	tpd_buf_release(buf);
}

static const struct tpd_torch_storage *find(const struct tpd_torch_storages *found, const char *key)
{
	return tpd_torch_find(found, key, strlen(key));
}

static void expect(const struct tpd_torch_storages *found, const char *key, const char *name, const char *dtype,
		   const char *shape)
{
	const struct tpd_torch_storage *storage = find(found, key);
	struct tpd_buf text = {0};

	ck_assert_ptr_nonnull(storage);
	ck_assert_str_eq(storage->name, name);
	ck_assert_str_eq(storage->typed ? tpd_dtype_name(storage->dtype) : "", dtype);
	for (unsigned i = 0; i < storage->ndim; i++)
		tpd_buf_printf(&text, "%s%llu", i ? "," : "", (unsigned long long)storage->dims[i]);
	tpd_buf_u8(&text, 0);
	ck_assert_str_eq((const char *)text.data, shape);
	tpd_buf_release(&text);
}

static void put_vector(struct tpd_buf *buf, const char *key, uint64_t numel)
{
	struct pk_tensor tensor = {"FloatStorage", key, numel, 0, 1, {numel}, {1}, NULL};

	pk_tensor(buf, &tensor);
}

/* ---- one tensor ---- */

static const struct {
	struct pk_tensor tensor;
	const char *dtype, *shape;
} tensors[] = {
	{{"FloatStorage", "0", 6, 0, 2, {2, 3}, {3, 1}, NULL}, "F32", "2,3"},
	{{"BFloat16Storage", "0", 6, 0, 2, {2, 3}, {3, 1}, NULL}, "BF16", "2,3"},
	{{"HalfStorage", "0", 6, 0, 1, {6}, {1}, NULL}, "F16", "6"},
	{{"DoubleStorage", "0", 6, 0, 1, {6}, {1}, NULL}, "F64", "6"},
	{{"LongStorage", "0", 6, 0, 1, {6}, {1}, NULL}, "I64", "6"},
	{{"IntStorage", "0", 6, 0, 1, {6}, {1}, NULL}, "I32", "6"},
	{{"ShortStorage", "0", 6, 0, 1, {6}, {1}, NULL}, "I16", "6"},
	{{"CharStorage", "0", 6, 0, 1, {6}, {1}, NULL}, "I8", "6"},
	{{"ByteStorage", "0", 6, 0, 1, {6}, {1}, NULL}, "U8", "6"},
	{{"BoolStorage", "0", 6, 0, 1, {6}, {1}, NULL}, "BOOL", "6"},
	{{"ComplexFloatStorage", "0", 6, 0, 1, {6}, {1}, NULL}, "C64", "6"},
	{{"ComplexDoubleStorage", "0", 6, 0, 1, {6}, {1}, NULL}, "", ""},
	{{"SomeStorage", "0", 6, 0, 1, {6}, {1}, NULL}, "", ""},
	{{"UntypedStorage", "0", 6, 0, 2, {2, 3}, {3, 1}, "float8_e4m3fn"}, "F8_E4M3", "2,3"},
	{{"UntypedStorage", "0", 6, 0, 2, {2, 3}, {3, 1}, "float8_e5m2"}, "F8_E5M2", "2,3"},
	{{"UntypedStorage", "0", 12, 0, 2, {2, 3}, {3, 1}, "uint16"}, "U16", "2,3"},
	{{"UntypedStorage", "0", 12, 0, 2, {2, 3}, {3, 1}, "bits8"}, "", ""},
	{{"UntypedStorage", "0", 12, 0, 2, {2, 3}, {3, 1}, NULL}, "", ""},
	/* in memory it is 3 x 2 */
	{{"FloatStorage", "0", 6, 0, 2, {2, 3}, {1, 2}, NULL}, "F32", "3,2"},
	{{"FloatStorage", "0", 24, 0, 3, {4, 2, 3}, {1, 12, 4}, NULL}, "F32", "2,3,4"}, /* channels last */
	/* strides of dimensions of one element are anything */
	{{"FloatStorage", "0", 5, 0, 3, {1, 5, 1}, {5, 1, 99}, NULL}, "F32", "1,1,5"},
	{{"FloatStorage", "0", 1, 0, 0, {0}, {0}, NULL}, "F32", ""},
	/* not the whole storage: slices, an offset, overlaps, broadcasts */
	{{"FloatStorage", "0", 12, 0, 2, {2, 3}, {3, 1}, NULL}, "F32", ""},
	{{"FloatStorage", "0", 12, 6, 2, {2, 3}, {3, 1}, NULL}, "F32", ""},
	{{"FloatStorage", "0", 6, 6, 2, {2, 3}, {3, 1}, NULL}, "F32", ""},
	{{"FloatStorage", "0", 12, 0, 2, {2, 3}, {6, 1}, NULL}, "F32", ""},
	{{"FloatStorage", "0", 3, 0, 2, {2, 3}, {0, 1}, NULL}, "F32", ""},
	{{"FloatStorage", "0", 0, 0, 2, {0, 3}, {3, 1}, NULL}, "F32", "0,3"},
	/* what overflows, and more dimensions than we keep */
	{{"FloatStorage", "0", 6, 0, 2, {2, 1ull << 63}, {1ull << 63, 1}, NULL}, "F32", ""},
	{{"FloatStorage", "0", 6, 0, 3, {1ull << 40, 1ull << 40, 6}, {6, 6, 1}, NULL}, "F32", ""},
	{{"FloatStorage", "0", 1ull << 62, 0, 1, {1ull << 62}, {1}, NULL}, "", ""},
	{{"FloatStorage", "0", 1, 0, 9, {1, 1, 1, 1, 1, 1, 1, 1, 1}, {1, 1, 1, 1, 1, 1, 1, 1, 1}, NULL}, "F32", ""},
};

START_TEST(one_tensor)
{
	struct tpd_buf buf = {0};
	struct tpd_torch_storages found;

	pk_proto(&buf, 2);
	pk(&buf, EMPTY_DICT);
	pk_str(&buf, "w");
	pk_tensor(&buf, &tensors[_i].tensor);
	pk(&buf, SETITEM);
	found = read_buffer(&buf);
	ck_assert_ptr_null(found.doubt);
	ck_assert_uint_eq(found.count, 1);
	ck_assert_uint_eq(found.items[0].numel, tensors[_i].tensor.numel);
	expect(&found, "0", "w", tensors[_i].dtype, tensors[_i].shape);
	release(&found, &buf);
}
END_TEST

/* ---- names ---- */

/*
 * {"model": OrderedDict(a.weight=Parameter(t0), a.bias=t1), "optimizer": [{"state": {0: {"exp_avg": t2}}}],
 *  7: (t3, t4), None: t5}
 */
START_TEST(names_in_containers)
{
	struct tpd_buf buf = {0};
	struct tpd_torch_storages found;

	pk(&buf, EMPTY_DICT);
	pk(&buf, MARK);
	pk_str(&buf, "model");
	pk_global(&buf, "collections", "OrderedDict");
	pk(&buf, EMPTY_TUPLE);
	pk(&buf, REDUCE);
	pk(&buf, MARK);
	pk_str(&buf, "a.weight");
	pk_global(&buf, "torch._utils", "_rebuild_parameter");
	pk(&buf, MARK);
	put_vector(&buf, "0", 3);
	pk(&buf, TRUE_);
	pk(&buf, EMPTY_DICT);
	pk(&buf, TUPLE);
	pk(&buf, REDUCE);
	pk_str(&buf, "a.bias");
	put_vector(&buf, "1", 3);
	pk(&buf, SETITEMS);
	pk_str(&buf, "optimizer");
	pk(&buf, EMPTY_LIST);
	pk(&buf, EMPTY_DICT);
	pk_str(&buf, "state");
	pk(&buf, EMPTY_DICT);
	pk_int(&buf, 0);
	pk(&buf, EMPTY_DICT);
	pk_str(&buf, "exp_avg");
	put_vector(&buf, "2", 3);
	pk(&buf, SETITEM);
	pk(&buf, SETITEM);
	pk(&buf, SETITEM);
	pk(&buf, APPEND);
	pk_int(&buf, 7);
	put_vector(&buf, "3", 3);
	put_vector(&buf, "4", 3);
	pk(&buf, TUPLE2);
	pk(&buf, NONE); /* a key that is neither text nor number: its place */
	put_vector(&buf, "5", 3);
	pk(&buf, SETITEMS);
	found = read_buffer(&buf);
	ck_assert_uint_eq(found.count, 6);
	expect(&found, "0", "model.a.weight", "F32", "3");
	expect(&found, "1", "model.a.bias", "F32", "3");
	expect(&found, "2", "optimizer.0.state.0.exp_avg", "F32", "3");
	expect(&found, "3", "7.0", "F32", "3");
	expect(&found, "4", "7.1", "F32", "3");
	expect(&found, "5", "3", "F32", "3");
	ck_assert_ptr_null(find(&found, "6"));
	ck_assert_ptr_null(find(&found, ""));
	release(&found, &buf);
}
END_TEST

/* An object of a class, with its state: as torch.save(model) writes it. */
START_TEST(objects_with_state)
{
	struct tpd_buf buf = {0};
	struct tpd_torch_storages found;

	pk_global(&buf, "__main__", "Net");
	pk(&buf, EMPTY_TUPLE);
	pk(&buf, NEWOBJ);
	pk(&buf, EMPTY_DICT);
	pk_str(&buf, "_parameters");
	pk(&buf, EMPTY_DICT);
	pk_str(&buf, "weight");
	put_vector(&buf, "0", 3);
	pk(&buf, SETITEM);
	pk(&buf, SETITEM);
	pk(&buf, BUILD);
	found = read_buffer(&buf);
	ck_assert_uint_eq(found.count, 1);
	expect(&found, "0", "_parameters.weight", "F32", "3");
	release(&found, &buf);
}
END_TEST

/* A tensor of a subclass: _rebuild_from_type_v2(_rebuild_tensor_v2, Sub, (storage ...), {"note": a tensor}). */
START_TEST(tensor_of_a_subclass)
{
	struct pk_tensor tensor = {"FloatStorage", "0", 6, 0, 2, {2, 3}, {3, 1}, NULL};
	struct tpd_buf buf = {0};
	struct tpd_torch_storages found;

	pk(&buf, EMPTY_DICT);
	pk_str(&buf, "w");
	pk_global(&buf, "torch._tensor", "_rebuild_from_type_v2");
	pk(&buf, MARK);
	pk_global(&buf, "torch._utils", "_rebuild_tensor_v2");
	pk_global(&buf, "__main__", "Sub");
	pk_tensor_arguments(&buf, &tensor);
	pk(&buf, EMPTY_DICT);
	pk(&buf, TUPLE);
	pk(&buf, REDUCE);
	pk(&buf, SETITEM);
	found = read_buffer(&buf);
	ck_assert_uint_eq(found.count, 1);
	expect(&found, "0", "w", "F32", "2,3");
	release(&found, &buf);
}
END_TEST

/* A storage that was saved by itself, and one within a list. */
START_TEST(bare_storages)
{
	struct tpd_buf buf = {0};
	struct tpd_torch_storages found;

	pk(&buf, EMPTY_LIST);
	pk_storage(&buf, "FloatStorage", "0", 5);
	pk(&buf, APPEND);
	pk_storage(&buf, "UntypedStorage", "1", 20);
	pk(&buf, APPEND);
	found = read_buffer(&buf);
	ck_assert_uint_eq(found.count, 2);
	expect(&found, "0", "0", "F32", "");
	expect(&found, "1", "1", "", "");
	ck_assert(find(&found, "1")->sized);
	ck_assert_uint_eq(find(&found, "1")->bytes, 20);
	release(&found, &buf);
}
END_TEST

/* Two tensors of one storage: the first names it, the one that fills it gives the shape. */
START_TEST(tied_tensors)
{
	struct pk_tensor slice = {"FloatStorage", "0", 6, 2, 1, {2}, {1}, NULL};
	struct pk_tensor whole = {"FloatStorage", "0", 6, 0, 2, {2, 3}, {3, 1}, NULL};
	struct tpd_buf buf = {0};
	struct tpd_torch_storages found;

	pk(&buf, EMPTY_DICT);
	pk_str(&buf, "part");
	pk_tensor(&buf, &slice);
	pk(&buf, SETITEM);
	pk_str(&buf, "embed");
	pk_tensor(&buf, &whole);
	pk_put(&buf, 9);
	pk(&buf, SETITEM);
	pk_str(&buf, "lm_head");
	pk_get(&buf, 9);
	pk(&buf, SETITEM);
	found = read_buffer(&buf);
	ck_assert_uint_eq(found.count, 1);
	expect(&found, "0", "part", "F32", "2,3");
	release(&found, &buf);
}
END_TEST

/* One storage of two types or lengths has none. */
START_TEST(storage_of_two_types)
{
	static const struct pk_tensor second[] = {
		{"IntStorage", "0", 6, 0, 1, {6}, {1}, NULL},
		{"FloatStorage", "0", 7, 0, 1, {7}, {1}, NULL},
		{"DoubleStorage", "0", 3, 0, 1, {3}, {1}, NULL},
	};

	for (size_t i = 0; i < TPD_ARRAY_LEN(second); i++) {
		struct tpd_buf buf = {0};
		struct tpd_torch_storages found;

		put_vector(&buf, "0", 6);
		pk_tensor(&buf, &second[i]);
		pk(&buf, TUPLE2);
		found = read_buffer(&buf);
		ck_assert_uint_eq(found.count, 1);
		expect(&found, "0", "0", "", "");
		release(&found, &buf);
	}
}
END_TEST

/* Keys that are no names: what lies below has none. */
START_TEST(names_that_are_none)
{
	static const struct {
		const char *key;
		size_t len;
		const char *name;
	} keys[] = {
		{"w", 1, "w"}, {"\xc3\xa4", 2, "\xc3\xa4"}, {"\xc3", 1, ""}, {"a\0b", 3, ""}, {"\xff", 1, ""},
		{"", 0, ""},
	};

	for (size_t i = 0; i < TPD_ARRAY_LEN(keys); i++) {
		struct tpd_buf buf = {0};
		struct tpd_torch_storages found;

		pk(&buf, EMPTY_DICT);
		pk_text(&buf, keys[i].key, keys[i].len);
		put_vector(&buf, "0", 6);
		pk(&buf, SETITEM);
		found = read_buffer(&buf);
		expect(&found, "0", keys[i].name, "F32", "6");
		release(&found, &buf);
	}
}
END_TEST

START_TEST(long_names)
{
	for (size_t len = TPD_FORMAT_MAX_NAME - 2; len < TPD_FORMAT_MAX_NAME + 2; len++) {
		struct tpd_buf buf = {0};
		struct tpd_torch_storages found;
		char *key = malloc(len + 1);

		ck_assert_ptr_nonnull(key);
		memset(key, 'k', len);
		key[len] = 0;
		pk(&buf, EMPTY_DICT);
		pk_str(&buf, key);
		put_vector(&buf, "0", 6);
		pk(&buf, SETITEM);
		found = read_buffer(&buf);
		expect(&found, "0", len < TPD_FORMAT_MAX_NAME ? key : "", "F32", "6");
		release(&found, &buf);
		free(key);
	}
}
END_TEST

/* ---- hostile ---- */

/* Persistent ids that are none of torch's, and calls with too few arguments. */
START_TEST(ids_that_are_none)
{
	static const char *const keys[] = {"storage", "module"};
	struct tpd_buf buf = {0};
	struct tpd_torch_storages found;

	pk(&buf, MARK);
	pk(&buf, NONE);
	pk(&buf, BINPERSID);
	pk(&buf, EMPTY_TUPLE);
	pk(&buf, BINPERSID);
	for (size_t i = 0; i < TPD_ARRAY_LEN(keys); i++) {
		pk_str(&buf, keys[i]);
		pk(&buf, TUPLE1);
		pk(&buf, BINPERSID);
	}
	pk(&buf, MARK); /* numel is negative */
	pk_str(&buf, "storage");
	pk_global(&buf, "torch", "FloatStorage");
	pk_str(&buf, "0");
	pk_str(&buf, "cpu");
	tpd_buf_put(&buf, "J\xff\xff\xff\xff", 5);
	pk(&buf, TUPLE);
	pk(&buf, BINPERSID);
	pk_global(&buf, "torch._utils", "_rebuild_tensor_v2");
	pk(&buf, EMPTY_TUPLE);
	pk(&buf, REDUCE);
	pk_global(&buf, "torch._utils", "_rebuild_tensor_v3");
	pk(&buf, NONE);
	pk(&buf, REDUCE);
	pk_global(&buf, "torch._tensor", "_rebuild_from_type_v2");
	pk(&buf, NONE);
	pk(&buf, REDUCE);
	pk(&buf, TUPLE);
	found = read_buffer(&buf);
	ck_assert_ptr_null(found.doubt);
	ck_assert_uint_eq(found.count, 0);
	release(&found, &buf);
}
END_TEST

/* A key of a storage is a number; a long one would be compared too often. */
START_TEST(key_of_a_storage_is_short)
{
	char key[66];
	struct tpd_buf buf = {0};
	struct tpd_torch_storages found;

	memset(key, '1', 65);
	key[65] = 0;
	put_vector(&buf, key, 6);
	put_vector(&buf, key + 1, 6);
	pk(&buf, TUPLE2);
	found = read_buffer(&buf);
	ck_assert_uint_eq(found.count, 1);
	expect(&found, key + 1, "1", "F32", "6");
	release(&found, &buf);
}
END_TEST

/* 2^60 ways to one tensor, a list in itself, and containers deeper than the walk goes. */
START_TEST(ways_cycles_depth)
{
	struct tpd_buf buf = {0};
	struct tpd_torch_storages found;

	put_vector(&buf, "0", 6);
	for (unsigned i = 0; i < 60; i++) {
		pk(&buf, DUP);
		pk(&buf, TUPLE2);
	}
	pk(&buf, EMPTY_LIST);
	pk_put(&buf, 0);
	pk_get(&buf, 0);
	pk(&buf, APPEND);
	pk(&buf, TUPLE2);
	put_vector(&buf, "1", 6);
	for (unsigned i = 0; i < 100000; i++)
		pk(&buf, TUPLE1);
	pk(&buf, TUPLE2);
	found = read_buffer(&buf);
	ck_assert_ptr_null(found.doubt);
	ck_assert_uint_eq(found.count, 1);
	ck_assert_ptr_nonnull(find(&found, "0"));
	release(&found, &buf);
}
END_TEST

/* A key of 4000 bytes and below it 100,000 tensors that are three opcodes each: names are paid from a budget. */
START_TEST(names_as_a_bomb)
{
	struct pk_tensor tensor = {"FloatStorage", "0", 6, 0, 1, {6}, {1}, NULL};
	struct tpd_buf buf = {0};
	struct tpd_torch_storages found;
	char key[4001];

	memset(key, 'k', 4000);
	key[4000] = 0;
	pk_global(&buf, "torch._utils", "_rebuild_tensor_v2");
	pk_put(&buf, 0);
	pk(&buf, POP);
	pk_tensor_arguments(&buf, &tensor);
	pk_put(&buf, 1);
	pk(&buf, POP);
	pk(&buf, EMPTY_DICT);
	pk_str(&buf, key);
	pk(&buf, MARK);
	for (unsigned i = 0; i < 200000; i++) {
		pk_get(&buf, 0);
		pk_get(&buf, 1);
		pk(&buf, REDUCE);
	}
	pk(&buf, LIST);
	pk(&buf, SETITEM);
	found = read_buffer(&buf);
	ck_assert_ptr_null(found.doubt);
	ck_assert_uint_eq(found.count, 1);
	ck_assert_uint_eq(strlen(find(&found, "0")->name), 4002);
	release(&found, &buf);
}
END_TEST

START_TEST(truncated_and_changed)
{
	struct tpd_buf buf = {0};

	pk(&buf, EMPTY_DICT);
	pk_str(&buf, "w");
	put_vector(&buf, "0", 6);
	pk(&buf, SETITEM);
	pk(&buf, STOP);
	for (size_t at = 0; at < buf.len; at++) {
		struct tpd_torch_storages found;
		uint8_t was = buf.data[at];

		ck_assert_int_eq(tpd_torch_pickle(buf.data, at, &found, NULL), TPD_OK);
		ck_assert_ptr_nonnull(found.doubt);
		ck_assert_uint_eq(found.count, 0);
		tpd_torch_storages_release(&found);
		for (unsigned value = 0; value < 256; value++) {
			buf.data[at] = (uint8_t)value;
			ck_assert_int_eq(tpd_torch_pickle(buf.data, buf.len, &found, NULL), TPD_OK);
			tpd_torch_storages_release(&found);
		}
		buf.data[at] = was;
	}
	tpd_buf_release(&buf);
}
END_TEST

START_TEST(names_of_types)
{
	enum tpd_dtype dtype = TPD_DTYPE_BYTES;

	ck_assert(tpd_torch_dtype("bfloat16", 8, &dtype));
	ck_assert_int_eq(dtype, TPD_DTYPE_BF16);
	ck_assert(!tpd_torch_dtype("bfloat1", 7, &dtype));
	ck_assert(!tpd_torch_dtype("UntypedStorage", 14, &dtype));
	ck_assert(!tpd_torch_dtype("", 0, &dtype));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("torch_pickle");
	TCase *tests = tcase_create("torch_pickle");
	SRunner *runner = srunner_create(suite);
	int failed;

	suite_add_tcase(suite, tests);
	tcase_set_timeout(tests, 120);
	tcase_add_loop_test(tests, one_tensor, 0, (int)TPD_ARRAY_LEN(tensors));
	tcase_add_test(tests, names_in_containers);
	tcase_add_test(tests, objects_with_state);
	tcase_add_test(tests, tensor_of_a_subclass);
	tcase_add_test(tests, bare_storages);
	tcase_add_test(tests, tied_tensors);
	tcase_add_test(tests, storage_of_two_types);
	tcase_add_test(tests, names_that_are_none);
	tcase_add_test(tests, long_names);
	tcase_add_test(tests, ids_that_are_none);
	tcase_add_test(tests, key_of_a_storage_is_short);
	tcase_add_test(tests, ways_cycles_depth);
	tcase_add_test(tests, names_as_a_bomb);
	tcase_add_test(tests, truncated_and_changed);
	tcase_add_test(tests, names_of_types);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
