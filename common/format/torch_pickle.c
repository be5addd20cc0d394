/*
 * torch_pickle.c - see torch_pickle.h.
 *
 * What torch.save() writes for a tensor is a call of one of torch._utils' rebuild functions with a persistent id in it:
 *
 *     _rebuild_tensor_v2(('storage', FloatStorage, '17', 'cpu', numel), offset, size, stride, requires_grad, hooks)
 *     _rebuild_tensor_v3(('storage', UntypedStorage, '17', 'cpu', bytes), offset, size, stride, requires_grad, hooks, dtype, ...)
 *
 * (torch/_utils.py, torch/storage.py, torch/serialization.py of PyTorch 2.13.) Everything around it, dicts, lists, parameters,
 * objects of any class, is gone through for the sake of the names only. The walk keeps a stack of its own, sees each
 * container once, and is bounded in depth, so that neither cycles nor values with 2^60 ways to them cost more.
 */
#include "base/tpd.h"

#include "format/torch_pickle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "format/pickle.h"

#define DEPTH_MAX 100 /* levels of containers; deeper ones are not gone into */

bool tpd_torch_dtype(const char *name, size_t length, enum tpd_dtype *out_dtype)
{
	static const struct {
		const char *name;
		enum tpd_dtype dtype;
	} types[] = {
		{"FloatStorage", TPD_DTYPE_F32},      {"BFloat16Storage", TPD_DTYPE_BF16},
		{"HalfStorage", TPD_DTYPE_F16},       {"DoubleStorage", TPD_DTYPE_F64},
		{"LongStorage", TPD_DTYPE_I64},       {"IntStorage", TPD_DTYPE_I32},
		{"ShortStorage", TPD_DTYPE_I16},      {"CharStorage", TPD_DTYPE_I8},
		{"ByteStorage", TPD_DTYPE_U8},        {"BoolStorage", TPD_DTYPE_BOOL},
		{"ComplexFloatStorage", TPD_DTYPE_C64}, {"QInt8Storage", TPD_DTYPE_I8},
		{"QUInt8Storage", TPD_DTYPE_U8},      {"QInt32Storage", TPD_DTYPE_I32},
		{"float32", TPD_DTYPE_F32},           {"bfloat16", TPD_DTYPE_BF16},
		{"float16", TPD_DTYPE_F16},           {"float64", TPD_DTYPE_F64},
		{"int64", TPD_DTYPE_I64},             {"int32", TPD_DTYPE_I32},
		{"int16", TPD_DTYPE_I16},             {"int8", TPD_DTYPE_I8},
		{"uint8", TPD_DTYPE_U8},              {"uint16", TPD_DTYPE_U16},
		{"uint32", TPD_DTYPE_U32},            {"uint64", TPD_DTYPE_U64},
		{"bool", TPD_DTYPE_BOOL},             {"complex64", TPD_DTYPE_C64},
		{"float8_e4m3fn", TPD_DTYPE_F8_E4M3}, {"float8_e5m2", TPD_DTYPE_F8_E5M2},
		{"float8_e8m0fnu", TPD_DTYPE_F8_E8M0}, {"float8_e4m3fnuz", TPD_DTYPE_F8_E4M3FNUZ},
		{"float8_e5m2fnuz", TPD_DTYPE_F8_E5M2FNUZ},
	};

	for (size_t i = 0; i < TPD_ARRAY_LEN(types); i++) {
		if (strlen(types[i].name) == length && memcmp(types[i].name, name, length) == 0) {
			*out_dtype = types[i].dtype;
			return true;
		}
	}
	return false;
}

/* --- one tensor --- */

struct walk {
	const struct tpd_pickle *pickle;
	struct tpd_torch_storages *found;
	size_t cap;
	uint8_t *seen;                 /* a bit a node */
	char path[TPD_FORMAT_MAX_NAME + 1];
	size_t path_length;
	bool nomem;
};

static enum tpd_pickle_kind kind_of(const struct walk *walk, uint32_t node)
{
	return tpd_pickle_kind_of(walk->pickle, node);
}

/* The type that a global of torch's names. */
static bool type_of(const struct walk *walk, uint32_t node, enum tpd_dtype *out_dtype)
{
	const struct tpd_pickle *pickle = walk->pickle;
	const struct tpd_pickle_node *name;

	if (kind_of(walk, node) != TPD_PICKLE_GLOBAL)
		return false;
	name = &pickle->nodes[pickle->nodes[node].u.global.name];
	return tpd_torch_dtype(name->u.text.at, name->u.text.length, out_dtype);
}

/* ('storage', type, key, location, numel[, view]) of a persistent id. false: another one. */
static bool read_storage(const struct walk *walk, uint32_t node, struct tpd_torch_storage *out)
{
	const struct tpd_pickle *pickle = walk->pickle;
	uint32_t id, key;
	uint64_t numel;

	if (kind_of(walk, node) != TPD_PICKLE_PERSISTENT)
		return false;
	id = pickle->nodes[node].u.id;
	key = tpd_pickle_item(pickle, id, 2);
	if (kind_of(walk, id) != TPD_PICKLE_TUPLE || !tpd_pickle_is_string(pickle, tpd_pickle_item(pickle, id, 0), "storage") ||
	    kind_of(walk, key) != TPD_PICKLE_STRING || !tpd_pickle_u64(pickle, tpd_pickle_item(pickle, id, 4), &numel))
		return false;
	*out = (struct tpd_torch_storage){
		.key = pickle->nodes[key].u.text.at,
		.key_length = pickle->nodes[key].u.text.length,
		.bytes = numel,
	};
	out->typed = type_of(walk, tpd_pickle_item(pickle, id, 1), &out->dtype) &&
		     !TPD_MUL_OVERFLOW(numel, (uint64_t)tpd_dtype_width(out->dtype), &out->bytes);
	return true;
}

/* A tuple of sizes or strides (a tuple, or torch.Size of one); false: none, or too many. */
static bool read_sizes(const struct walk *walk, uint32_t node, unsigned *out_count, uint64_t out[TPD_FORMAT_MAX_DIMS])
{
	const struct tpd_pickle *pickle = walk->pickle;
	unsigned count = 0;

	if (kind_of(walk, node) == TPD_PICKLE_CALL)
		node = tpd_pickle_item(pickle, pickle->nodes[node].u.call.arguments, 0);
	if (kind_of(walk, node) != TPD_PICKLE_TUPLE)
		return false;
	for (uint32_t cell = pickle->nodes[node].first; cell != TPD_PICKLE_NOTHING; cell = pickle->cells[cell].next) {
		if (count == TPD_FORMAT_MAX_DIMS || !tpd_pickle_u64(pickle, pickle->cells[cell].node, &out[count]))
			return false;
		count++;
	}
	*out_count = count;
	return true;
}

/* Does a tensor of this size and stride fill the storage, in any order of its dimensions? Then dims become those of the memory. */
static bool fills(uint64_t elements, unsigned ndim, uint64_t dims[TPD_FORMAT_MAX_DIMS], uint64_t strides[TPD_FORMAT_MAX_DIMS])
{
	uint64_t expected = 1;

	/* Largest stride first: a transposed tensor is a matrix in memory all the same. */
	for (unsigned i = 1; i < ndim; i++) {
		for (unsigned k = i; k > 0 && strides[k - 1] < strides[k]; k--) {
			uint64_t dim = dims[k], stride = strides[k];

			dims[k] = dims[k - 1];
			strides[k] = strides[k - 1];
			dims[k - 1] = dim;
			strides[k - 1] = stride;
		}
	}
	for (unsigned i = ndim; i-- > 0;) {
		if ((strides[i] != expected && dims[i] != 1) || TPD_MUL_OVERFLOW(expected, dims[i], &expected))
			return false;
	}
	return expected == elements;
}

/* The path so far as a name in fresh memory; "" when it is not fit for one: no UTF-8, or a zero byte in it. */
static char *name_of(struct walk *walk)
{
	size_t at = 0, n;

	walk->path[walk->path_length] = 0;
	while (at < walk->path_length && walk->path[at] && (n = tpd_text_utf8(walk->path + at, walk->path_length - at)) > 0)
		at += n;
	return strdup(at == walk->path_length ? walk->path : "");
}

static bool add(struct walk *walk, struct tpd_torch_storage *storage)
{
	struct tpd_torch_storages *found = walk->found;

	if (found->count == walk->cap) {
		size_t cap = walk->cap ? 2 * walk->cap : 64;
		struct tpd_torch_storage *grown = reallocarray(found->items, cap, sizeof *grown);

		if (!grown)
			return false;
		found->items = grown;
		walk->cap = cap;
	}
	storage->name = name_of(walk);
	if (!storage->name)
		return false;
	found->items[found->count++] = *storage;
	return true;
}

/* A call of a rebuild function, or a storage by itself. false: something else, or no memory. */
static bool take_tensor(struct walk *walk, uint32_t node)
{
	const struct tpd_pickle *pickle = walk->pickle;
	uint64_t offset = 1, strides[TPD_FORMAT_MAX_DIMS];
	struct tpd_torch_storage storage;
	uint32_t arguments, callee;
	unsigned ndim, stride_count;
	bool v3;

	if (read_storage(walk, node, &storage)) {
		walk->nomem = !add(walk, &storage);
		return true;
	}
	if (kind_of(walk, node) != TPD_PICKLE_CALL)
		return false;
	callee = pickle->nodes[node].u.call.callee;
	arguments = pickle->nodes[node].u.call.arguments;
	v3 = tpd_pickle_is_global(pickle, callee, "torch._utils", "_rebuild_tensor_v3");
	if ((!v3 && !tpd_pickle_is_global(pickle, callee, "torch._utils", "_rebuild_tensor_v2") &&
	     !tpd_pickle_is_global(pickle, callee, "torch._utils", "_rebuild_tensor")) ||
	    !read_storage(walk, tpd_pickle_item(pickle, arguments, 0), &storage))
		return false;
	if (v3) { /* its storage is untyped, numel are bytes */
		uint64_t numel;

		storage.typed = type_of(walk, tpd_pickle_item(pickle, arguments, 6), &storage.dtype) &&
				tpd_pickle_u64(pickle,
					       tpd_pickle_item(pickle, pickle->nodes[tpd_pickle_item(pickle, arguments, 0)].u.id, 4),
					       &numel);
		if (storage.typed)
			storage.bytes = numel;
	}
	if (storage.typed && tpd_pickle_u64(pickle, tpd_pickle_item(pickle, arguments, 1), &offset) && offset == 0 &&
	    read_sizes(walk, tpd_pickle_item(pickle, arguments, 2), &ndim, storage.dims) &&
	    read_sizes(walk, tpd_pickle_item(pickle, arguments, 3), &stride_count, strides) && ndim == stride_count &&
	    fills(storage.bytes / tpd_dtype_width(storage.dtype), ndim, storage.dims, strides))
		storage.ndim = ndim;
	walk->nomem = !add(walk, &storage);
	return true;
}

/* --- everything around them --- */

struct frame {
	uint32_t node, cell; /* the container, and its cell that is next */
	uint32_t index;
	uint8_t phase;       /* CALL: arguments, items, state */
	bool arguments;      /* the tuple of a CALL: its first item is no level of the name, as in a parameter of a tensor */
	size_t path_length;  /* of the container itself */
};

static void path_add(struct walk *walk, const char *text, size_t len)
{
	if (walk->path_length + len + 1 > TPD_FORMAT_MAX_NAME) { /* too long for a name: what is below has none */
		walk->path_length = 0;
		return;
	}
	if (walk->path_length > 0)
		walk->path[walk->path_length++] = '.';
	memcpy(walk->path + walk->path_length, text, len);
	walk->path_length += len;
}

static void path_add_key(struct walk *walk, uint32_t key, uint32_t index)
{
	const struct tpd_pickle_node *node = &walk->pickle->nodes[key];
	char number[24];

	if (node->kind == TPD_PICKLE_STRING) {
		path_add(walk, node->u.text.at, node->u.text.length);
		return;
	}
	path_add(walk, number,
		 (size_t)snprintf(number, sizeof number, "%lld",
				  node->kind == TPD_PICKLE_INT ? (long long)node->u.integer : (long long)index));
}

/* The child that a cell of a container holds, and its name behind the container's; the next cell becomes the frame's. */
static uint32_t take_cell(struct walk *walk, struct frame *frame, bool pairs)
{
	const struct tpd_pickle *pickle = walk->pickle;
	uint32_t cell = frame->cell, index = frame->index++;
	char number[24];

	if (pairs) {
		path_add_key(walk, pickle->cells[cell].node, index);
		cell = pickle->cells[cell].next; /* the value: pairs are never torn */
	} else if (!frame->arguments || index > 0) {
		path_add(walk, number, (size_t)snprintf(number, sizeof number, "%u", index));
	}
	frame->cell = pickle->cells[cell].next;
	return pickle->cells[cell].node;
}

/* The next child of a frame, the path being its name. false: no more. */
static bool next_child(struct walk *walk, struct frame *frame, uint32_t *out_node)
{
	const struct tpd_pickle_node *node = &walk->pickle->nodes[frame->node];
	bool call = node->kind == TPD_PICKLE_CALL;

	walk->path_length = frame->path_length;
	if (call && frame->phase == 0) {
		frame->phase = 1;
		*out_node = node->u.call.arguments;
		return true;
	}
	if (frame->cell != TPD_PICKLE_NOTHING) {
		*out_node = take_cell(walk, frame, node->kind == TPD_PICKLE_DICT || (call && node->pairs));
		return true;
	}
	if (!call || frame->phase == 2 || node->u.call.state == TPD_PICKLE_NOTHING)
		return false;
	frame->phase = 2;
	*out_node = node->u.call.state;
	return true;
}

static bool first_visit(struct walk *walk, uint32_t node)
{
	uint8_t bit = (uint8_t)(1u << node % 8);

	if (walk->seen[node / 8] & bit)
		return false;
	walk->seen[node / 8] |= bit;
	return true;
}

static bool is_container(enum tpd_pickle_kind kind)
{
	return kind == TPD_PICKLE_DICT || kind == TPD_PICKLE_LIST || kind == TPD_PICKLE_TUPLE || kind == TPD_PICKLE_SET ||
	       kind == TPD_PICKLE_CALL;
}

static void go(struct walk *walk)
{
	struct frame frames[DEPTH_MAX];
	const struct tpd_pickle_node *nodes = walk->pickle->nodes;
	size_t depth = 0;
	uint32_t node = walk->pickle->root;

	do {
		if (!take_tensor(walk, node) && is_container(kind_of(walk, node)) && depth < DEPTH_MAX &&
		    first_visit(walk, node)) {
			frames[depth] = (struct frame){.node = node, .cell = nodes[node].first, .path_length = walk->path_length};
			if (depth > 0 && nodes[frames[depth - 1].node].kind == TPD_PICKLE_CALL && frames[depth - 1].phase == 1)
				frames[depth].arguments = node == nodes[frames[depth - 1].node].u.call.arguments;
			depth++;
		}
		while (depth > 0 && !next_child(walk, &frames[depth - 1], &node))
			depth--;
	} while (depth > 0 && !walk->nomem);
}

/* --- one record a storage --- */

static int compare_keys(const void *a, const void *b)
{
	const struct tpd_torch_storage *x = a, *y = b;
	int order = memcmp(x->key, y->key, TPD_MIN(x->key_length, y->key_length));

	if (order == 0)
		order = (x->key_length > y->key_length) - (x->key_length < y->key_length);
	return order;
}

struct ordered {
	struct tpd_torch_storage storage;
	size_t place;
};

static int compare_ordered(const void *a, const void *b)
{
	const struct ordered *x = a, *y = b;
	int order = compare_keys(&x->storage, &y->storage);

	return order ? order : (x->place > y->place) - (x->place < y->place);
}

/* The first tensor of a storage names it; the first that fills it gives the shape; two types are none. */
static void unite(struct tpd_torch_storage *into, const struct tpd_torch_storage *other)
{
	if (into->typed != other->typed || into->dtype != other->dtype || into->bytes != other->bytes)
		into->typed = false;
	if (into->ndim == 0 && other->ndim > 0) {
		into->ndim = other->ndim;
		memcpy(into->dims, other->dims, sizeof into->dims);
	}
	if (!into->typed)
		into->ndim = 0;
}

static bool one_a_storage(struct tpd_torch_storages *found)
{
	struct ordered *all = reallocarray(NULL, found->count + 1, sizeof *all);
	size_t kept = 0;

	if (!all)
		return false;
	for (size_t i = 0; i < found->count; i++)
		all[i] = (struct ordered){found->items[i], i};
	qsort(all, found->count, sizeof *all, compare_ordered);
	for (size_t i = 0; i < found->count; i++) {
		if (kept > 0 && compare_keys(&found->items[kept - 1], &all[i].storage) == 0) {
			unite(&found->items[kept - 1], &all[i].storage);
			free(all[i].storage.name);
		} else {
			found->items[kept++] = all[i].storage;
		}
	}
	found->count = kept;
	free(all);
	return true;
}

enum tpd_status tpd_torch_pickle(const void *bytes, size_t len, struct tpd_torch_storages *out_storages, struct tpd_err *err)
{
	struct tpd_torch_storages found = {0};
	struct tpd_pickle pickle;
	struct walk *walk;
	enum tpd_status status = tpd_pickle_read(bytes, len, &pickle, err);

	if (status)
		return status;
	found.doubt = pickle.doubt;
	found.length = pickle.length;
	walk = calloc(1, sizeof *walk);
	if (walk)
		walk->seen = calloc(pickle.node_count / 8 + 1, 1);
	if (!walk || !walk->seen) {
		status = tpd_fail_nomem(err);
	} else if (!pickle.doubt) {
		walk->pickle = &pickle;
		walk->found = &found;
		go(walk);
		if (walk->nomem || !one_a_storage(&found))
			status = tpd_fail_nomem(err);
	}
	if (walk)
		free(walk->seen);
	free(walk);
	tpd_pickle_release(&pickle);
	if (status)
		tpd_torch_storages_release(&found);
	else
		*out_storages = found;
	return status;
}

void tpd_torch_storages_release(struct tpd_torch_storages *storages)
{
	for (size_t i = 0; i < storages->count; i++)
		free(storages->items[i].name);
	free(storages->items);
	*storages = (struct tpd_torch_storages){0};
}

const struct tpd_torch_storage *tpd_torch_find(const struct tpd_torch_storages *storages, const char *key, size_t length)
{
	const struct tpd_torch_storage wanted = {.key = key, .key_length = (uint32_t)length};

	if (storages->count == 0)
		return NULL;
	return bsearch(&wanted, storages->items, storages->count, sizeof wanted, compare_keys);
}
