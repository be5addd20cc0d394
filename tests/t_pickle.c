/*
 * t_pickle.c - every opcode, read as symbols; what no pickler writes is doubted, for the reason that was made; and no
 * pickle costs more than three steps a byte.
 */
#include "base/tpd.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "format/pickle.h"
#include "pickle_build.h"

/* Reads a copy of exactly these bytes, which must outlive the result. */
static struct tpd_pickle read_bytes(const void *bytes, size_t len)
{
	struct tpd_pickle pickle;
	struct tpd_err err = {.status = TPD_OK};

	ck_assert_int_eq(tpd_pickle_read(bytes, len, TPD_PICKLE_MAX_OPS, &pickle, &err), TPD_OK);
	ck_assert_uint_le(pickle.steps, 3 * (uint64_t)len + 1);
	ck_assert_uint_le(pickle.length, len);
	if (pickle.doubt) {
		ck_assert_ptr_null(pickle.nodes);
		ck_assert_uint_eq(pickle.root, TPD_PICKLE_NOTHING);
	} else {
		ck_assert_uint_lt(pickle.root, pickle.node_count);
	}
	return pickle;
}

/* The buffer so far and STOP must be doubted like this ("": not); the buffer is released. */
static void expect(struct tpd_buf *buf, const char *doubt)
{
	struct tpd_pickle pickle;

	pk(buf, STOP);
	pickle = read_bytes(buf->data, buf->len);
	ck_assert_str_eq(pickle.doubt ? pickle.doubt : "", doubt);
	tpd_pickle_release(&pickle);
	tpd_buf_release(buf);
}

static void expect_ops(const char *ops, size_t len, const char *doubt)
{
	struct tpd_buf buf = {0};

	tpd_buf_put(&buf, ops, len);
	expect(&buf, doubt);
}

/* ---- one value of each opcode ---- */

static const struct {
	const char *bytes; /* without STOP */
	size_t len;
	enum tpd_pickle_kind kind;
	int64_t integer; /* also the length of a text, the number of items */
} values[] = {
#define V(bytes, kind, integer) {bytes, sizeof(bytes) - 1, TPD_PICKLE_##kind, integer}
	V("N", NONE, 0),
	V("\x80\2N", NONE, 0),
	V("\x80\5\x95\1\0\0\0\0\0\0\0N", NONE, 0),
	V("\x88", BOOL, 1),
	V("\x89", BOOL, 0),
	V("K\xff", INT, 255),
	V("M\xff\xff", INT, 65535),
	V("J\xff\xff\xff\xff", INT, -1),
	V("J\xff\xff\xff\x7f", INT, 0x7fffffff),
	V("\x8a\0", INT, 0),
	V("\x8a\1\x80", INT, -128),
	V("\x8a\2\xff\0", INT, 255),
	V("\x8a\x8\xff\xff\xff\xff\xff\xff\xff\x7f", INT, INT64_MAX),
	V("\x8a\x8\0\0\0\0\0\0\0\x80", INT, INT64_MIN),
	V("\x8a\x9\xff\xff\xff\xff\xff\xff\xff\xff\0", OTHER, 0), /* 2^64 - 1: no int64 */
	V("\x8b\3\0\0\0\1\2\3", INT, 0x030201),
	V("G\x3f\xf0\0\0\0\0\0\0", FLOAT, 0),
	V("X\3\0\0\0abc", STRING, 3),
	V("X\0\0\0\0", STRING, 0),
	V("\x8c\2ab", STRING, 2),
	V("\x8d\1\0\0\0\0\0\0\0a", STRING, 1),
	V("T\2\0\0\0ab", STRING, 2),
	V("U\2ab", STRING, 2),
	V("B\2\0\0\0ab", BYTES, 2),
	V("C\2ab", BYTES, 2),
	V("\x8e\2\0\0\0\0\0\0\0ab", BYTES, 2),
	V("\x96\2\0\0\0\0\0\0\0ab", BYTES, 2),
	V(")", TUPLE, 0),
	V("N\x85", TUPLE, 1),
	V("NN\x86", TUPLE, 2),
	V("NNN\x87", TUPLE, 3),
	V("(NNNNt", TUPLE, 4),
	V("(t", TUPLE, 0),
	V("]", LIST, 0),
	V("(NNl", LIST, 2),
	V("]Na", LIST, 1),
	V("](NNNe", LIST, 3),
	V("](NNeNa(e", LIST, 3),
	V("}", DICT, 0),
	V("(NNd", DICT, 2),
	V("}NNs", DICT, 2),
	V("}(NNNNu", DICT, 4),
	V("\x8f", SET, 0),
	V("\x8f(NN\x90", SET, 2),
	V("(NNN\x91", SET, 3),
	V("ca\nb\n", GLOBAL, 0),
	V("\x8c\1a\x8c\1b\x93", GLOBAL, 0),
	V("N)R", CALL, 0),
	V("N)\x81", CALL, 0),
	V("N)}\x92", CALL, 0),
	V("(NNNo", CALL, 0),
	V("N)R(NNNNu", CALL, 4),
	V("N)R(NNNe", CALL, 3),
	V("N)R(NNNe(N\x90", CALL, 4),
	V("N)RNb", CALL, 0),
	V("NNb", NONE, 0),
	V("NQ", PERSISTENT, 0),
	V("NK\1" "0", NONE, 0),
	V("N(NN1", NONE, 0),
	V("N20", NONE, 0),
	V("K\7q\0" "0h\0", INT, 7),
	V("K\7r\1\0\0\0" "0j\1\0\0\0", INT, 7),
	V("K\7\x94N\x94" "00h\0", INT, 7),
#undef V
};

START_TEST(value_of_each_opcode)
{
	struct tpd_buf buf = {0};
	struct tpd_pickle pickle;
	const struct tpd_pickle_node *root;
	int64_t items = 0;

	tpd_buf_put(&buf, values[_i].bytes, values[_i].len);
	tpd_buf_put(&buf, ".behind", 7);
	pickle = read_bytes(buf.data, buf.len);
	ck_assert_ptr_null(pickle.doubt);
	ck_assert_uint_eq(pickle.length, values[_i].len + 1);
	root = &pickle.nodes[pickle.root];
	ck_assert_int_eq(tpd_pickle_kind_of(&pickle, pickle.root), values[_i].kind);
	for (uint32_t cell = root->first; cell != TPD_PICKLE_NOTHING; cell = pickle.cells[cell].next)
		items++;
	switch (values[_i].kind) {
	case TPD_PICKLE_BOOL:
	case TPD_PICKLE_INT:
		ck_assert_int_eq(root->u.integer, values[_i].integer);
		break;
	case TPD_PICKLE_STRING:
	case TPD_PICKLE_BYTES:
		ck_assert_int_eq(root->u.text.length, values[_i].integer);
		ck_assert(memcmp(root->u.text.at, "abc", root->u.text.length) == 0);
		break;
	default:
		ck_assert_int_eq(items, values[_i].integer);
		break;
	}
	tpd_pickle_release(&pickle);
	tpd_buf_release(&buf);
}
END_TEST

/* ---- what makes a doubt ---- */

static const struct {
	const char *bytes; /* without STOP */
	size_t len;
	const char *doubt;
} doubts[] = {
#define D(bytes, doubt) {bytes, sizeof(bytes) - 1, doubt}
	D("", "its stack is empty"),
	D("NN", "more than one value"),
	D("(N", "more than one value"),
	D("(", "its stack is empty"),
	D("\x80\6N", "an unknown protocol"),
	D("\x95\xff\xff\xff\xff\xff\xff\xff\xffN", "it ends too early"),
	D("X\xff\xff\xff\xff" "abc", "it ends too early"),
	D("\x8d\xff\xff\xff\xff\xff\xff\xff\xff" "abc", "it ends too early"),
	D("\x8e\0\0\0\0\0\0\0\x80" "abc", "it ends too early"),
	D("\x96\xff\xff\xff\xff\xff\xff\xff\xff" "abc", "it ends too early"),
	D("\x8b\xff\xff\xff\xff" "abc", "it ends too early"),
	D("\x8a\xff" "abc", "it ends too early"),
	D("N\x86", "its stack is empty"),
	D("N(N\x86", "its stack is empty"),
	D("Nt", "no mark"),
	D("t", "no mark"),
	D("Ne", "no mark"),
	D("(Ne", "its stack is empty"),
	D("((Ne", "its stack is empty"),
	D("(NNNd", "a key without its value"),
	D("}(NNNu", "a key without its value"),
	D("}Na", "items for what takes none"),
	D("](NNu", "items for what takes none"),
	D("NNa", "items for what takes none"),
	D(")(Ne", "items for what takes none"),
	D("N)R(Ne(NNu", "items for what takes none"),
	D("N)R(NNu(Ne", "items for what takes none"),
	D("]a", "its stack is empty"),
	D("](a", "its stack is empty"),
	D("}Ns", "its stack is empty"),
	D("}(NNs", "its stack is empty"),
	D("NN\x93", "a name that is none"),
	D("\x8c\1aN\x93", "a name that is none"),
	D("ca\nb", "a name without an end"),
	D("ca", "a name without an end"),
	D("NR", "its stack is empty"),
	D("N(R", "its stack is empty"),
	D("(o", "a call of nothing"),
	D("Nb", "its stack is empty"),
	D("Q", "its stack is empty"),
	D("0", "its stack is empty"),
	D("1", "no mark"),
	D("2", "its stack is empty"),
	D("(2", "its stack is empty"),
	D("q\0", "its stack is empty"),
	D("(q\0", "its stack is empty"),
	D("h\0", "it uses what it did not remember"),
	D("Nq\1h\0", "it uses what it did not remember"),
	D("j\xff\xff\xff\xff", "it uses what it did not remember"),
	D("Nr\xff\xff\xff\xff", "a memo index beyond all bounds"),
	D("Nr\xff\xff\x0f\0", "a memo index beyond all bounds"),
	D("Nr\3\0\0\0", "a memo index beyond all bounds"),
	D("I1\n", "an unknown opcode"), /* the text opcodes of protocol 0 */
	D("\x82\1", "an unknown opcode"), /* the extension registry */
	D("\x97", "an unknown opcode"), /* out-of-band buffers */
	D("\xff", "an unknown opcode"),
#undef D
};

START_TEST(doubt_of_each_kind)
{
	expect_ops(doubts[_i].bytes, doubts[_i].len, doubts[_i].doubt);
}
END_TEST

START_TEST(long_name_lines)
{
	struct tpd_buf buf = {0};

	tpd_buf_printf(&buf, "c%4095s\n%s\n", "m", "n");
	expect(&buf, "");
	tpd_buf_printf(&buf, "c%4096s\n%s\n", "m", "n");
	expect(&buf, "a name without an end");
}
END_TEST

/* ---- a pickle as torch writes it ---- */

static void put_checkpoint(struct tpd_buf *buf)
{
	struct pk_tensor tensor = {"FloatStorage", "0", 6, 0, 2, {2, 3}, {3, 1}, NULL};

	pk_proto(buf, 2);
	pk(buf, EMPTY_DICT);
	pk_put(buf, 0);
	pk(buf, MARK);
	pk_str(buf, "model");
	pk_put(buf, 1);
	pk_global(buf, "collections", "OrderedDict");
	pk(buf, EMPTY_TUPLE);
	pk(buf, REDUCE);
	pk(buf, MARK);
	pk_str(buf, "weight");
	pk_tensor(buf, &tensor);
	pk(buf, SETITEMS);
	pk_str(buf, "step");
	pk_int(buf, 1000);
	pk_str(buf, "betas");
	pk_int(buf, 1);
	pk_int(buf, 70000);
	pk(buf, TUPLE2);
	pk(buf, SETITEMS);
	pk(buf, STOP);
}

START_TEST(questions)
{
	struct tpd_buf buf = {0};
	struct tpd_pickle pickle;
	uint32_t model, weight, betas, missing = TPD_PICKLE_NOTHING;
	uint64_t value = 0, sizes[2];
	unsigned count = 0;

	put_checkpoint(&buf);
	pickle = read_bytes(buf.data, buf.len);
	ck_assert_ptr_null(pickle.doubt);
	model = tpd_pickle_lookup(&pickle, pickle.root, "model");
	ck_assert(tpd_pickle_is_global(&pickle, pickle.nodes[model].u.call.callee, "collections", "OrderedDict"));
	ck_assert(!tpd_pickle_is_global(&pickle, pickle.nodes[model].u.call.callee, "collections", "Ordered"));
	weight = tpd_pickle_lookup(&pickle, model, "weight");
	ck_assert(tpd_pickle_is_global(&pickle, pickle.nodes[weight].u.call.callee, "torch._utils",
				       "_rebuild_tensor_v2"));
	ck_assert(tpd_pickle_u64(&pickle, tpd_pickle_lookup(&pickle, pickle.root, "step"), &value));
	ck_assert_uint_eq(value, 1000);
	betas = tpd_pickle_lookup(&pickle, pickle.root, "betas");
	ck_assert(tpd_pickle_sizes(&pickle, betas, 2, &count, sizes));
	ck_assert_uint_eq(count, 2);
	ck_assert_uint_eq(sizes[1], 70000);
	ck_assert(!tpd_pickle_sizes(&pickle, betas, 1, &count, sizes));
	ck_assert(!tpd_pickle_sizes(&pickle, model, 2, &count, sizes));
	ck_assert(tpd_pickle_u64(&pickle, tpd_pickle_item(&pickle, betas, 1), &value));
	ck_assert_uint_eq(value, 70000);
	ck_assert_uint_eq(tpd_pickle_item(&pickle, betas, 2), missing);
	ck_assert_uint_eq(tpd_pickle_lookup(&pickle, pickle.root, "none"), missing);
	ck_assert_uint_eq(tpd_pickle_lookup(&pickle, betas, "none"), missing);
	ck_assert_uint_eq(tpd_pickle_lookup(&pickle, missing, "none"), missing);
	ck_assert_uint_eq(tpd_pickle_item(&pickle, missing, 0), missing);
	ck_assert_int_eq(tpd_pickle_kind_of(&pickle, missing), TPD_PICKLE_NONE);
	ck_assert(!tpd_pickle_is_string(&pickle, missing, ""));
	ck_assert(!tpd_pickle_u64(&pickle, missing, &value));
	tpd_pickle_release(&pickle);
	tpd_buf_release(&buf);
}
END_TEST

START_TEST(truncated_anywhere)
{
	struct tpd_buf buf = {0};

	put_checkpoint(&buf);
	for (size_t len = 0; len < buf.len; len++) {
		uint8_t *copy = malloc(len ? len : 1); /* of its very length, for the sanitizer */
		struct tpd_pickle pickle;

		ck_assert_ptr_nonnull(copy);
		if (len)
			memcpy(copy, buf.data, len);
		pickle = read_bytes(copy, len);
		ck_assert_ptr_nonnull(pickle.doubt);
		tpd_pickle_release(&pickle);
		free(copy);
	}
	tpd_buf_release(&buf);
}
END_TEST

/* Any one byte replaced by any other: whatever it says, within its bounds. */
START_TEST(any_byte_changed)
{
	struct tpd_buf buf = {0};

	put_checkpoint(&buf);
	for (size_t at = 0; at < buf.len; at++) {
		uint8_t was = buf.data[at];

		for (unsigned value = 0; value < 256; value++) {
			struct tpd_pickle pickle;

			buf.data[at] = (uint8_t)value;
			pickle = read_bytes(buf.data, buf.len);
			tpd_pickle_release(&pickle);
		}
		buf.data[at] = was;
	}
	tpd_buf_release(&buf);
}
END_TEST

/* ---- bombs ---- */

/* [x, x] of [x, x] of ...: 2^60 ways to the innermost, 121 cells. */
START_TEST(many_ways_to_one_value)
{
	struct tpd_buf buf = {0};
	struct tpd_pickle pickle;

	pk(&buf, NONE);
	for (unsigned i = 0; i < 60; i++) {
		pk(&buf, DUP);
		pk(&buf, TUPLE2);
	}
	pk(&buf, STOP);
	pickle = read_bytes(buf.data, buf.len);
	ck_assert_ptr_null(pickle.doubt);
	ck_assert_uint_eq(pickle.cell_count, 120);
	tpd_pickle_release(&pickle);
	tpd_buf_release(&buf);
}
END_TEST

START_TEST(cycle)
{
	struct tpd_buf buf = {0};
	struct tpd_pickle pickle;

	pk(&buf, EMPTY_LIST);
	pk_put(&buf, 0);
	pk_get(&buf, 0);
	pk(&buf, APPEND);
	pk(&buf, STOP);
	pickle = read_bytes(buf.data, buf.len);
	ck_assert_ptr_null(pickle.doubt);
	ck_assert_uint_eq(tpd_pickle_item(&pickle, pickle.root, 0), pickle.root);
	tpd_pickle_release(&pickle);
	tpd_buf_release(&buf);
}
END_TEST

static void repeat(struct tpd_buf *buf, enum pickle_op op, size_t count)
{
	for (size_t i = 0; i < count; i++)
		pk(buf, op);
}

/* Half a million lists, each in the next, and as many marks. */
START_TEST(deep_nesting)
{
	struct tpd_buf buf = {0};

	repeat(&buf, EMPTY_LIST, 400000);
	repeat(&buf, APPEND, 399999);
	expect(&buf, "");
	repeat(&buf, MARK, 400000);
	repeat(&buf, TUPLE, 400000);
	expect(&buf, "");
	repeat(&buf, MARK, 400000);
	expect(&buf, "its stack is empty");
	pk(&buf, NONE); /* the scan for a mark goes down once */
	repeat(&buf, NONE, 900000);
	pk(&buf, TUPLE);
	expect(&buf, "no mark");
}
END_TEST

START_TEST(too_much)
{
	struct tpd_buf buf = {0};

	pk(&buf, NONE);
	for (size_t i = 0; i < TPD_PICKLE_MAX_OPS / 2 - 1; i++) {
		pk(&buf, DUP);
		pk(&buf, POP);
	}
	expect(&buf, ""); /* STOP is the last that is allowed, and is not counted */
	pk(&buf, NONE);
	for (size_t i = 0; i < TPD_PICKLE_MAX_OPS / 2; i++) {
		pk(&buf, DUP);
		pk(&buf, POP);
	}
	expect(&buf, "too many opcodes");
	for (size_t i = 0; i < TPD_PICKLE_MAX_OPS / 3 + 1; i++)
		pk_global(&buf, "", ""); /* three values an opcode */
	expect(&buf, "too many values");
}
END_TEST

/* The dearest opcodes: three steps a byte, not more. */
START_TEST(steps_of_the_dearest)
{
	static const struct {
		enum pickle_op head, item, tail;
	} dear[] = {
		{NONE, NONE, TUPLE}, {NONE, NONE, LIST}, {NONE, NONE, FROZENSET}, {NONE, NONE, DICT}, {NONE, NONE, OBJ},
		{EMPTY_LIST, NONE, APPENDS}, {EMPTY_DICT, NONE, SETITEMS}, {EMPTY_SET, NONE, ADDITEMS},
		{NONE, NONE, POP_MARK},
	};

	for (size_t i = 0; i < TPD_ARRAY_LEN(dear); i++) {
		struct tpd_buf buf = {0};
		struct tpd_pickle pickle;

		pk(&buf, dear[i].head);
		pk(&buf, MARK);
		repeat(&buf, dear[i].item, 100000);
		pk(&buf, dear[i].tail);
		if (dear[i].head == NONE && dear[i].tail != POP_MARK)
			pk(&buf, TUPLE2);
		pk(&buf, STOP);
		pickle = read_bytes(buf.data, buf.len);
		ck_assert_ptr_null(pickle.doubt);
		ck_assert_uint_gt(pickle.steps, 2 * (uint64_t)buf.len - 100);
		tpd_pickle_release(&pickle);
		tpd_buf_release(&buf);
	}
}
END_TEST

/* A memo of all that was remembered: as dense as picklers make it. */
START_TEST(large_memo)
{
	struct tpd_buf buf = {0};

	for (uint32_t i = 0; i < 200000; i++) {
		pk(&buf, NONE);
		pk_put(&buf, i);
		pk(&buf, POP);
	}
	pk_get(&buf, 199999);
	expect(&buf, "");
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("pickle");
	TCase *tests = tcase_create("pickle");
	SRunner *runner = srunner_create(suite);
	int failed;

	suite_add_tcase(suite, tests);
	tcase_set_timeout(tests, 120);
	tcase_add_loop_test(tests, value_of_each_opcode, 0, (int)TPD_ARRAY_LEN(values));
	tcase_add_loop_test(tests, doubt_of_each_kind, 0, (int)TPD_ARRAY_LEN(doubts));
	tcase_add_test(tests, long_name_lines);
	tcase_add_test(tests, questions);
	tcase_add_test(tests, truncated_anywhere);
	tcase_add_test(tests, any_byte_changed);
	tcase_add_test(tests, many_ways_to_one_value);
	tcase_add_test(tests, cycle);
	tcase_add_test(tests, deep_nesting);
	tcase_add_test(tests, too_much);
	tcase_add_test(tests, steps_of_the_dearest);
	tcase_add_test(tests, large_memo);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
