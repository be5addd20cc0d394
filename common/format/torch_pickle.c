/*
 * torch_pickle.c - see torch_pickle.h.
 *
 * What torch.save() writes for a tensor is a call of one of torch._utils' rebuild functions with a persistent id in
 * it:
 *
 *     _rebuild_tensor_v2(('storage', FloatStorage, '17', 'cpu', numel), offset, size, stride, requires_grad, hooks)
 *     _rebuild_tensor_v3(('storage', UntypedStorage, '17', 'cpu', bytes), offset, size, stride, requires_grad, hooks,
 *                        dtype, ...)
 *
 * or, of a subclass or a tensor with attributes, torch._tensor._rebuild_from_type_v2(one of these, type, its
 * arguments, state). (torch/_utils.py, torch/_tensor.py, torch/serialization.py of PyTorch 2.13.) Everything around
 * it, dicts, lists, parameters, objects of any class, is gone through for the sake of the names only. The walk keeps
 * a stack of its own, goes into each container once, and is bounded in depth, so that neither cycles nor values with
 * 2^60 ways to them cost more. A name is put together only where a tensor is found, and is paid from a budget: a key
 * of 4 KB with a million tensors below it is four bytes of pickle for each.
 */
#include "base/tpd.h"

#include "format/torch_pickle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "format/pickle.h"

#define DEPTH_MAX 100 /* levels of containers; deeper ones are not gone into */
#define KEY_MAX 64    /* bytes of a storage's key: a number */

struct type {
	const char *name;
	enum tpd_dtype dtype; /* BYTES: none of ours, but of a known width */
	unsigned width;
};

static const struct type *find_type(const char *name, size_t length)
{
	static const struct type types[] = {
		{"FloatStorage", TPD_DTYPE_F32, 4},
		{"BFloat16Storage", TPD_DTYPE_BF16, 2},
		{"HalfStorage", TPD_DTYPE_F16, 2},
		{"DoubleStorage", TPD_DTYPE_F64, 8},
		{"LongStorage", TPD_DTYPE_I64, 8},
		{"IntStorage", TPD_DTYPE_I32, 4},
		{"ShortStorage", TPD_DTYPE_I16, 2},
		{"CharStorage", TPD_DTYPE_I8, 1},
		{"ByteStorage", TPD_DTYPE_U8, 1},
		{"BoolStorage", TPD_DTYPE_BOOL, 1},
		{"ComplexFloatStorage", TPD_DTYPE_C64, 8},
		{"ComplexDoubleStorage", TPD_DTYPE_BYTES, 16},
		{"QInt8Storage", TPD_DTYPE_I8, 1},
		{"QUInt8Storage", TPD_DTYPE_U8, 1},
		{"QInt32Storage", TPD_DTYPE_I32, 4},
		{"UntypedStorage", TPD_DTYPE_BYTES, 1},
		{"float32", TPD_DTYPE_F32, 4},
		{"bfloat16", TPD_DTYPE_BF16, 2},
		{"float16", TPD_DTYPE_F16, 2},
		{"float64", TPD_DTYPE_F64, 8},
		{"int64", TPD_DTYPE_I64, 8},
		{"int32", TPD_DTYPE_I32, 4},
		{"int16", TPD_DTYPE_I16, 2},
		{"int8", TPD_DTYPE_I8, 1},
		{"uint8", TPD_DTYPE_U8, 1},
		{"uint16", TPD_DTYPE_U16, 2},
		{"uint32", TPD_DTYPE_U32, 4},
		{"uint64", TPD_DTYPE_U64, 8},
		{"bool", TPD_DTYPE_BOOL, 1},
		{"complex64", TPD_DTYPE_C64, 8},
		{"float8_e4m3fn", TPD_DTYPE_F8_E4M3, 1},
		{"float8_e5m2", TPD_DTYPE_F8_E5M2, 1},
		{"float8_e8m0fnu", TPD_DTYPE_F8_E8M0, 1},
		{"float8_e4m3fnuz", TPD_DTYPE_F8_E4M3FNUZ, 1},
		{"float8_e5m2fnuz", TPD_DTYPE_F8_E5M2FNUZ, 1},
	};

	for (size_t i = 0; i < TPD_ARRAY_LEN(types); i++) {
		if (strlen(types[i].name) == length && memcmp(types[i].name, name, length) == 0)
			return &types[i];
	}
	return NULL;
}

bool tpd_torch_dtype(const char *name, size_t length, enum tpd_dtype *out_dtype)
{
	const struct type *type = find_type(name, length);

	if (!type || type->dtype == TPD_DTYPE_BYTES)
		return false;
	*out_dtype = type->dtype;
	return true;
}

/* --- the walk: one frame for each container that is being gone through --- */

struct frame {
	uint32_t node, cell; /* the container, and its cell that is next */
	uint32_t index;      /* of that cell */
	uint8_t phase;       /* CALL: arguments, items, state */
	bool arguments;      /* the tuple of a CALL: its first item is no level of the name, as in a parameter */
	enum { UNNAMED, KEY, NUMBER } level; /* what the child that is being looked at adds to the name */
	uint32_t part;       /* KEY: a node; NUMBER: it */
};

struct walk {
	const struct tpd_pickle *pickle;
	struct tpd_torch_storages *found;
	size_t cap;
	uint8_t *seen; /* a bit a node */
	uint32_t names_left; /* steps */
	bool nomem;
	size_t depth;
	struct frame frames[DEPTH_MAX];
	char path[TPD_FORMAT_MAX_NAME + 1];
};

static enum tpd_pickle_kind kind_of(const struct walk *walk, uint32_t node)
{
	return tpd_pickle_kind_of(walk->pickle, node);
}

/* --- names --- */

/* What a frame adds to a name; number: room for one. */
static const char *part_of(const struct walk *walk, const struct frame *frame, char number[24], size_t *out_length)
{
	const struct tpd_pickle_node *key;

	if (frame->level == UNNAMED)
		return NULL;
	if (frame->level == KEY) {
		key = &walk->pickle->nodes[frame->part];
		if (key->kind == TPD_PICKLE_STRING) {
			*out_length = key->u.text.length;
			return key->u.text.at;
		}
		if (key->kind == TPD_PICKLE_INT) {
			*out_length = (size_t)snprintf(number, 24, "%lld", (long long)key->u.integer);
			return number;
		}
		*out_length = (size_t)snprintf(number, 24, "%u", frame->index - 1);
		return number;
	}
	*out_length = (size_t)snprintf(number, 24, "%u", frame->part);
	return number;
}

/* The name of the value that is being looked at into walk->path, and its length; 0: none, or none that is fit. */
static size_t make_path(const struct walk *walk, char path[TPD_FORMAT_MAX_NAME + 1])
{
	size_t length = 0, at = 0, n;

	for (size_t i = 0; i < walk->depth; i++) {
		char number[24];
		size_t part_length = 0;
		const char *part = part_of(walk, &walk->frames[i], number, &part_length);

		if (!part)
			continue;
		if (part_length >= TPD_FORMAT_MAX_NAME - length)
			return 0;
		if (length > 0)
			path[length++] = '.';
		memcpy(path + length, part, part_length);
		length += part_length;
	}
	path[length] = 0;
	while (at < length && path[at] && (n = tpd_text_utf8(path + at, length - at)) > 0)
		at += n;
	return at == length ? length : 0; /* else it is no UTF-8, or has a zero byte in it */
}

static char *name_of(struct walk *walk)
{
	uint32_t cost = (uint32_t)walk->depth; /* and what there is to copy */
	size_t length;

	for (size_t i = 0; i < walk->depth && cost <= TPD_FORMAT_MAX_NAME + DEPTH_MAX; i++) {
		char number[24];
		size_t part_length = 0;

		part_of(walk, &walk->frames[i], number, &part_length);
		cost += (uint32_t)TPD_MIN(part_length, (size_t)TPD_FORMAT_MAX_NAME);
	}
	if (cost > walk->names_left)
		return strdup("");
	walk->names_left -= cost;
	length = make_path(walk, walk->path);
	return strndup(walk->path, length);
}

/* --- one tensor --- */

/* The type that a global of torch's names; NULL: none. */
static const struct type *type_of(const struct walk *walk, uint32_t node)
{
	const struct tpd_pickle *pickle = walk->pickle;
	const struct tpd_pickle_node *name;

	if (kind_of(walk, node) != TPD_PICKLE_GLOBAL)
		return NULL;
	name = &pickle->nodes[pickle->nodes[node].u.global.name];
	return find_type(name->u.text.at, name->u.text.length);
}

/* ('storage', type, key, location, numel[, view]) of a persistent id. false: another one. */
static bool read_storage(const struct walk *walk, uint32_t node, struct tpd_torch_storage *out)
{
	const struct tpd_pickle *pickle = walk->pickle;
	const struct type *type;
	uint32_t id, key;
	uint64_t numel;

	if (kind_of(walk, node) != TPD_PICKLE_PERSISTENT)
		return false;
	id = pickle->nodes[node].u.id;
	key = tpd_pickle_item(pickle, id, 2);
	if (kind_of(walk, id) != TPD_PICKLE_TUPLE ||
	    !tpd_pickle_is_string(pickle, tpd_pickle_item(pickle, id, 0), "storage") ||
	    kind_of(walk, key) != TPD_PICKLE_STRING || pickle->nodes[key].u.text.length > KEY_MAX ||
	    !tpd_pickle_u64(pickle, tpd_pickle_item(pickle, id, 4), &numel))
		return false;
	*out = (struct tpd_torch_storage){
		.key = pickle->nodes[key].u.text.at,
		.key_length = pickle->nodes[key].u.text.length,
		.numel = numel,
	};
	type = type_of(walk, tpd_pickle_item(pickle, id, 1));
	if (type && !TPD_MUL_OVERFLOW(numel, (uint64_t)type->width, &out->bytes)) {
		out->sized = true;
		out->dtype = type->dtype;
		out->typed = type->dtype != TPD_DTYPE_BYTES;
	}
	return true;
}

/* A tuple of sizes or strides (a tuple, or torch.Size of one); false: none, or too many. */
static bool read_sizes(const struct walk *walk, uint32_t node, unsigned *out_count, uint64_t out[TPD_FORMAT_MAX_DIMS])
{
	return tpd_pickle_sizes(walk->pickle, node, TPD_FORMAT_MAX_DIMS, out_count, out);
}

/*
 * Does a tensor of this size and stride fill the storage, in any order of its dimensions? Then dims become those of the
 * memory; *out_transposed: that is another order.
 */
static bool fills(uint64_t elements, unsigned ndim, uint64_t dims[TPD_FORMAT_MAX_DIMS],
		  uint64_t strides[TPD_FORMAT_MAX_DIMS], bool *out_transposed)
{
	uint64_t expected = 1;

	*out_transposed = false;
	/* Largest stride first: a transposed tensor is a matrix in memory all the same. */
	for (unsigned i = 1; i < ndim; i++) {
		for (unsigned k = i; k > 0 && strides[k - 1] < strides[k]; k--) {
			uint64_t dim = dims[k], stride = strides[k];

			dims[k] = dims[k - 1];
			strides[k] = strides[k - 1];
			dims[k - 1] = dim;
			strides[k - 1] = stride;
			*out_transposed = true;
		}
	}
	for (unsigned i = ndim; i-- > 0;) {
		if ((strides[i] != expected && dims[i] != 1) || TPD_MUL_OVERFLOW(expected, dims[i], &expected))
			return false;
	}
	return expected == elements;
}

static bool add(struct walk *walk, struct tpd_torch_storage *storage)
{
	struct tpd_torch_storages *found = walk->found;

	if (found->count == TPD_TORCH_TENSORS_MAX)
		return true;
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

/* Is it torch._utils._rebuild_tensor and its like? */
static bool is_rebuild(const struct walk *walk, uint32_t callee, bool *out_v3)
{
	*out_v3 = tpd_pickle_is_global(walk->pickle, callee, "torch._utils", "_rebuild_tensor_v3");
	return *out_v3 || tpd_pickle_is_global(walk->pickle, callee, "torch._utils", "_rebuild_tensor_v2") ||
	       tpd_pickle_is_global(walk->pickle, callee, "torch._utils", "_rebuild_tensor");
}

/* The arguments of the rebuild function if this is a call of one. */
static bool find_rebuild(const struct walk *walk, uint32_t node, uint32_t *out_arguments, bool *out_v3)
{
	const struct tpd_pickle *pickle = walk->pickle;
	uint32_t callee, arguments;

	if (kind_of(walk, node) != TPD_PICKLE_CALL)
		return false;
	callee = pickle->nodes[node].u.call.callee;
	arguments = pickle->nodes[node].u.call.arguments;
	if (tpd_pickle_is_global(pickle, callee, "torch._tensor", "_rebuild_from_type_v2")) {
		callee = tpd_pickle_item(pickle, arguments, 0);
		arguments = tpd_pickle_item(pickle, arguments, 2);
	}
	*out_arguments = arguments;
	return is_rebuild(walk, callee, out_v3);
}

/* A call of a rebuild function, or a storage by itself. false: something else. */
static bool take_tensor(struct walk *walk, uint32_t node)
{
	const struct tpd_pickle *pickle = walk->pickle;
	uint64_t offset = 1, strides[TPD_FORMAT_MAX_DIMS];
	struct tpd_torch_storage storage;
	const struct type *type;
	unsigned ndim, stride_count;
	uint32_t arguments;
	bool v3;

	if (read_storage(walk, node, &storage)) {
		walk->nomem = !add(walk, &storage);
		return true;
	}
	if (!find_rebuild(walk, node, &arguments, &v3) ||
	    !read_storage(walk, tpd_pickle_item(pickle, arguments, 0), &storage))
		return false;
	if (v3 && storage.sized) { /* its storage is untyped; the type comes with the tensor */
		type = type_of(walk, tpd_pickle_item(pickle, arguments, 6));
		storage.typed = type && type->dtype != TPD_DTYPE_BYTES;
		storage.dtype = storage.typed ? type->dtype : TPD_DTYPE_BYTES;
	}
	if (storage.typed && tpd_pickle_u64(pickle, tpd_pickle_item(pickle, arguments, 1), &offset) && offset == 0 &&
	    read_sizes(walk, tpd_pickle_item(pickle, arguments, 2), &ndim, storage.dims) &&
	    read_sizes(walk, tpd_pickle_item(pickle, arguments, 3), &stride_count, strides) && ndim == stride_count &&
	    fills(storage.bytes / tpd_dtype_width(storage.dtype), ndim, storage.dims, strides, &storage.transposed))
		storage.ndim = ndim;
	walk->nomem = !add(walk, &storage);
	return true;
}

/* --- everything around them --- */

bool tpd_torch_scalar(const struct tpd_pickle *pickle, uint32_t node, struct tpd_torch_scalar *out)
{
	const struct walk walk = {.pickle = pickle};
	enum tpd_pickle_kind kind = tpd_pickle_kind_of(pickle, node);
	uint64_t offset, sizes[TPD_FORMAT_MAX_DIMS];
	struct tpd_torch_storage storage;
	unsigned ndim;
	uint32_t arguments;
	bool v3;

	*out = (struct tpd_torch_scalar){.plain = kind == TPD_PICKLE_FLOAT || kind == TPD_PICKLE_INT};
	if (out->plain) {
		out->value = kind == TPD_PICKLE_FLOAT ? pickle->nodes[node].u.real : (double)pickle->nodes[node].u.integer;
		return true;
	}
	if (!find_rebuild(&walk, node, &arguments, &v3) || v3 ||
	    !read_storage(&walk, tpd_pickle_item(pickle, arguments, 0), &storage) || !storage.typed ||
	    !tpd_pickle_u64(pickle, tpd_pickle_item(pickle, arguments, 1), &offset) || offset >= storage.numel ||
	    !read_sizes(&walk, tpd_pickle_item(pickle, arguments, 2), &ndim, sizes) || ndim != 0)
		return false;
	out->key = storage.key;
	out->key_length = storage.key_length;
	out->dtype = storage.dtype;
	out->offset = offset * tpd_dtype_width(storage.dtype); /* below the storage's bytes, which were checked */
	return true;
}

/* The child that a cell of a container holds; the next cell becomes the frame's. */
static uint32_t take_cell(const struct walk *walk, struct frame *frame, bool pairs)
{
	const struct tpd_pickle *pickle = walk->pickle;
	uint32_t cell = frame->cell, index = frame->index++;

	if (pairs) {
		frame->level = KEY;
		frame->part = pickle->cells[cell].node;
		cell = pickle->cells[cell].next; /* the value: pairs are never torn */
	} else {
		frame->level = frame->arguments && index == 0 ? UNNAMED : NUMBER;
		frame->part = index;
	}
	frame->cell = pickle->cells[cell].next;
	return pickle->cells[cell].node;
}

/* The next child of a frame. false: no more. */
static bool next_child(const struct walk *walk, struct frame *frame, uint32_t *out_node)
{
	const struct tpd_pickle_node *node = &walk->pickle->nodes[frame->node];
	bool call = node->kind == TPD_PICKLE_CALL;

	frame->level = UNNAMED;
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

/* A container becomes a frame; a tensor is taken. Each once: what is used again has its name already. */
static void visit(struct walk *walk, uint32_t node)
{
	const struct tpd_pickle_node *nodes = walk->pickle->nodes;
	enum tpd_pickle_kind kind = kind_of(walk, node);
	const struct frame *above = walk->depth > 0 ? &walk->frames[walk->depth - 1] : NULL;
	struct frame frame = {.node = node};

	switch (kind) {
	case TPD_PICKLE_DICT:
	case TPD_PICKLE_LIST:
	case TPD_PICKLE_TUPLE:
	case TPD_PICKLE_SET:
	case TPD_PICKLE_CALL:
	case TPD_PICKLE_PERSISTENT:
		break;
	default:
		return;
	}
	if (!first_visit(walk, node) || take_tensor(walk, node) || kind == TPD_PICKLE_PERSISTENT ||
	    walk->depth == DEPTH_MAX)
		return;
	frame.cell = nodes[node].first;
	frame.arguments = above && nodes[above->node].kind == TPD_PICKLE_CALL && above->phase == 1 &&
		above->level == UNNAMED && node == nodes[above->node].u.call.arguments;
	walk->frames[walk->depth++] = frame;
}

static void go(struct walk *walk)
{
	uint32_t node = walk->pickle->root;

	do {
		walk->found->steps++;
		visit(walk, node);
		while (walk->depth > 0 && !next_child(walk, &walk->frames[walk->depth - 1], &node)) {
			walk->found->steps++;
			walk->depth--;
		}
	} while (walk->depth > 0 && !walk->nomem);
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
static void unite(struct tpd_torch_storage *into, struct tpd_torch_storage *other)
{
	if (!other->sized || into->bytes != other->bytes || into->numel != other->numel)
		into->sized = false;
	if (!into->sized || into->typed != other->typed || into->dtype != other->dtype)
		into->typed = false;
	if (into->ndim == 0 && other->ndim > 0) {
		into->ndim = other->ndim;
		memcpy(into->dims, other->dims, sizeof into->dims);
	}
	if (!into->typed)
		into->ndim = 0;
	if (!into->name[0]) {
		free(into->name);
		into->name = other->name;
	} else {
		free(other->name);
	}
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
		if (kept > 0 && compare_keys(&found->items[kept - 1], &all[i].storage) == 0)
			unite(&found->items[kept - 1], &all[i].storage);
		else
			found->items[kept++] = all[i].storage;
	}
	found->count = kept;
	free(all);
	return true;
}

static enum tpd_status walk_pickle(const struct tpd_pickle *pickle, struct tpd_torch_storages *found,
				   struct tpd_err *err)
{
	TPD_AUTO_FREE uint8_t *seen = calloc(pickle->node_count / 8 + 1, 1);
	TPD_AUTO_FREE struct walk *walk = calloc(1, sizeof *walk);

	if (!walk || !seen)
		return tpd_fail_nomem(err);
	*walk = (struct walk){.pickle = pickle, .found = found, .seen = seen, .names_left = TPD_TORCH_NAMES_MAX};
	go(walk);
	found->steps += TPD_TORCH_NAMES_MAX - walk->names_left;
	if (walk->nomem || !one_a_storage(found))
		return tpd_fail_nomem(err);
	return TPD_OK;
}

enum tpd_status tpd_torch_pickle(const void *bytes, size_t len, struct tpd_torch_storages *out_storages,
				 struct tpd_err *err)
{
	struct tpd_torch_storages found = {0};
	struct tpd_pickle pickle;
	enum tpd_status status = tpd_pickle_read(bytes, len, TPD_PICKLE_MAX_OPS, &pickle, err);

	if (status)
		return status;
	found.doubt = pickle.doubt;
	found.length = pickle.length;
	found.steps = pickle.steps;
	if (!pickle.doubt)
		status = walk_pickle(&pickle, &found, err);
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

const struct tpd_torch_storage *tpd_torch_find(const struct tpd_torch_storages *storages, const char *key,
					       size_t length)
{
	const struct tpd_torch_storage wanted = {.key = key, .key_length = (uint32_t)length};

	if (storages->count == 0)
		return NULL;
	return bsearch(&wanted, storages->items, storages->count, sizeof wanted, compare_keys);
}
