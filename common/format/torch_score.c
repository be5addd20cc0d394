/*
 * torch_score.c - under which score a file of Lightning's was saved.
 *
 *     {"callbacks": {"ModelCheckpoint{'monitor': ...}": {"monitor": "val_loss", "best_k_models": {PATH: SCORE, ...},
 *                                                        "current_score": SCORE, ...}, ...}, ...}
 *
 * ModelCheckpoint enters path and score before it saves (_update_best_and_save), so a file that was saved for its score
 * has itself in best_k_models. Its current_score is not taken: a callback that saves for another reason (every n steps,
 * save_last, another monitor) writes the states of all of them, with scores of earlier steps, and nothing in the file
 * tells that apart. A score is a tensor without dimensions most often, that is a storage of one element in the zip; just
 * those bytes are read. A callback is known by these two fields: classes made of ModelCheckpoint have other names.
 *
 * Source: lightning 2.6, pytorch/callbacks/model_checkpoint.py.
 */
#include "base/tpd.h"

#include "format/format.h"

#include <math.h>
#include <string.h>

#include "base/bytes.h"
#include "format/torch_pickle.h"
#include "format/torch_top.h"

#define CALLBACKS_MAX 32 /* that are looked at: each may have the same million models */

struct look {
	const struct tpd_torch_top *top;
	const char *name;
	tpd_format_read_fn read;
	void *ctx;
};

/* The member of this name beside the pickle. */
static const struct tpd_zip_member *find_member(const struct tpd_torch_top *top, const char *name, size_t length)
{
	const struct tpd_zip_member *pickle = top->member;
	size_t prefix = pickle->name_length - strlen("data.pkl");

	for (size_t i = 0; i < top->zip.count; i++) {
		const struct tpd_zip_member *member = &top->zip.members[i];

		if (member->name_length == prefix + length && memcmp(member->name, pickle->name, prefix) == 0 &&
		    memcmp(member->name + prefix, name, length) == 0 && member->method == 0)
			return member;
	}
	return NULL;
}

/* Words with their high byte first are not read: nobody trains there. */
static enum tpd_status is_little(const struct look *look, bool *out_little, struct tpd_err *err)
{
	const struct tpd_zip_member *order = find_member(look->top, "byteorder", 9);
	char text[6];
	enum tpd_status status;

	*out_little = !order; /* an older PyTorch */
	if (!order || order->length != sizeof text)
		return TPD_OK;
	status = look->read(look->ctx, text, sizeof text, order->data, err);
	*out_little = !status && memcmp(text, "little", sizeof text) == 0;
	return status;
}

static double half(uint16_t bits)
{
	double sign = bits & 0x8000 ? -1 : 1;
	int exponent = bits >> 10 & 0x1f, mantissa = bits & 0x3ff;

	if (exponent == 0x1f)
		return NAN; /* infinities, too: neither is wanted */
	return sign * (exponent == 0 ? ldexp(mantissa, -24) : ldexp(mantissa | 0x400, exponent - 25));
}

/* NAN: a type that no score has. */
static double value_of(enum tpd_dtype dtype, const uint8_t bytes[8])
{
	uint32_t single = dtype == TPD_DTYPE_BF16 ? (uint32_t)tpd_get_u16(bytes) << 16 : tpd_get_u32(bytes);
	uint64_t word = tpd_get_u64(bytes);
	double wide;
	float narrow;

	memcpy(&narrow, &single, sizeof narrow);
	memcpy(&wide, &word, sizeof wide);
	switch (dtype) {
	case TPD_DTYPE_F32:
	case TPD_DTYPE_BF16:
		return (double)narrow;
	case TPD_DTYPE_F64:
		return wide;
	case TPD_DTYPE_F16:
		return half(tpd_get_u16(bytes));
	default:
		return NAN;
	}
}

static enum tpd_status read_scalar(const struct look *look, uint32_t node, double *out, struct tpd_err *err)
{
	uint8_t bytes[8] = {0};
	char name[5 + 64] = "data/";
	struct tpd_torch_scalar scalar;
	const struct tpd_zip_member *member;
	enum tpd_status status;
	unsigned width;
	bool little;

	*out = NAN;
	if (!tpd_torch_scalar(&look->top->pickle, node, &scalar))
		return TPD_OK;
	if (scalar.plain) {
		*out = scalar.value;
		return TPD_OK;
	}
	if (scalar.key_length > sizeof name - 5)
		return TPD_OK;
	memcpy(name + 5, scalar.key, scalar.key_length);
	member = find_member(look->top, name, 5 + scalar.key_length);
	width = tpd_dtype_width(scalar.dtype);
	if (!member || scalar.offset > member->length || member->length - scalar.offset < width)
		return TPD_OK;
	status = is_little(look, &little, err);
	if (!status && little)
		status = look->read(look->ctx, bytes, width, member->data + scalar.offset, err);
	if (!status && little)
		*out = value_of(scalar.dtype, bytes);
	return status;
}

/* Does the path that a string node is end in this name? */
static bool is_path_of(const struct tpd_pickle *pickle, uint32_t node, const char *name)
{
	size_t len = strlen(name), length;
	const char *at;

	if (tpd_pickle_kind_of(pickle, node) != TPD_PICKLE_STRING)
		return false;
	at = pickle->nodes[node].u.text.at;
	length = pickle->nodes[node].u.text.length;
	return length >= len && memcmp(at + length - len, name, len) == 0 && (length == len || at[length - len - 1] == '/');
}

/* The value in a dict whose key is a path of this name. */
static uint32_t find_path(const struct tpd_pickle *pickle, uint32_t dict, const char *name)
{
	uint32_t cell = tpd_pickle_kind_of(pickle, dict) == TPD_PICKLE_DICT ? pickle->nodes[dict].first : TPD_PICKLE_NOTHING;

	while (cell != TPD_PICKLE_NOTHING) {
		uint32_t value = pickle->cells[cell].next; /* pairs are never torn */

		if (is_path_of(pickle, pickle->cells[cell].node, name))
			return pickle->cells[value].node;
		cell = pickle->cells[value].next;
	}
	return TPD_PICKLE_NOTHING;
}

static enum tpd_status take_callback(const struct look *look, uint32_t state, tpd_format_score_fn fn, void *arg,
				     struct tpd_err *err)
{
	const struct tpd_pickle *pickle = &look->top->pickle;
	uint32_t monitor = tpd_pickle_lookup(pickle, state, "monitor");
	uint32_t score = find_path(pickle, tpd_pickle_lookup(pickle, state, "best_k_models"), look->name);
	enum tpd_status status;
	double value;

	if (tpd_pickle_kind_of(pickle, monitor) != TPD_PICKLE_STRING || score == TPD_PICKLE_NOTHING)
		return TPD_OK;
	status = read_scalar(look, score, &value, err);
	if (status || !isfinite(value))
		return status;
	return fn(arg, pickle->nodes[monitor].u.text.at, pickle->nodes[monitor].u.text.length, value, err);
}

static enum tpd_status take_callbacks(const struct look *look, tpd_format_score_fn fn, void *arg, struct tpd_err *err)
{
	const struct tpd_pickle *pickle = &look->top->pickle;
	uint32_t callbacks = tpd_pickle_lookup(pickle, pickle->root, "callbacks");
	uint32_t cell = tpd_pickle_kind_of(pickle, callbacks) == TPD_PICKLE_DICT ? pickle->nodes[callbacks].first
										  : TPD_PICKLE_NOTHING;
	enum tpd_status status = TPD_OK;

	for (unsigned i = 0; !status && cell != TPD_PICKLE_NOTHING && i < CALLBACKS_MAX; i++) {
		uint32_t value = pickle->cells[cell].next;

		status = take_callback(look, pickle->cells[value].node, fn, arg, err);
		cell = pickle->cells[value].next;
	}
	return status;
}

enum tpd_status tpd_format_torch_scores(const char *name, uint64_t size, tpd_format_read_fn read, void *ctx,
					tpd_format_score_fn fn, void *arg, struct tpd_err *err)
{
	struct tpd_torch_top top;
	struct look look = {.top = &top, .name = name, .read = read, .ctx = ctx};
	enum tpd_status status = tpd_torch_top_open(size, read, ctx, &top, err);

	if (status)
		return status;
	if (!top.pickle.doubt)
		status = take_callbacks(&look, fn, arg, err);
	tpd_torch_top_release(&top);
	return status;
}
