/*
 * pickle_build.h - writes pickles opcode by opcode, and what torch.save() writes for a tensor, for tests. Each
 * function appends to a buffer; a hostile pickle is one in which something is appended that no pickler would.
 */
#ifndef TPD_TESTS_PICKLE_BUILD_H
#define TPD_TESTS_PICKLE_BUILD_H

#include "base/tpd.h"

#include <string.h>

#include "base/bytes.h"

enum pickle_op {
	MARK = '(', STOP = '.', POP = '0', POP_MARK = '1', DUP = '2', NONE = 'N', TRUE_ = 0x88, FALSE_ = 0x89,
	REDUCE = 'R', BUILD = 'b', BINPERSID = 'Q', EMPTY_TUPLE = ')', TUPLE = 't', TUPLE1 = 0x85, TUPLE2 = 0x86,
	TUPLE3 = 0x87, EMPTY_LIST = ']', LIST = 'l', APPEND = 'a', APPENDS = 'e', EMPTY_DICT = '}', DICT = 'd',
	SETITEM = 's', SETITEMS = 'u', EMPTY_SET = 0x8f, ADDITEMS = 0x90, FROZENSET = 0x91, NEWOBJ = 0x81,
	NEWOBJ_EX = 0x92, OBJ = 'o', STACK_GLOBAL = 0x93, MEMOIZE = 0x94
};

TPD_UNUSED static void pk(struct tpd_buf *buf, enum pickle_op op)
{
	tpd_buf_u8(buf, (uint8_t)op);
}

TPD_UNUSED static void pk_proto(struct tpd_buf *buf, uint8_t version)
{
	tpd_buf_u8(buf, 0x80);
	tpd_buf_u8(buf, version);
}

/* BINUNICODE of len bytes that may be anything. */
TPD_UNUSED static void pk_text(struct tpd_buf *buf, const char *text, size_t len)
{
	tpd_buf_u8(buf, 'X');
	tpd_buf_u32(buf, (uint32_t)len);
	tpd_buf_put(buf, text, len);
}

TPD_UNUSED static void pk_str(struct tpd_buf *buf, const char *text)
{
	pk_text(buf, text, strlen(text));
}

/* The shortest opcode for it. */
TPD_UNUSED static void pk_int(struct tpd_buf *buf, uint64_t value)
{
	if (value < 256) {
		tpd_buf_u8(buf, 'K');
		tpd_buf_u8(buf, (uint8_t)value);
	} else if (value < 65536) {
		tpd_buf_u8(buf, 'M');
		tpd_buf_u16(buf, (uint16_t)value);
	} else if (value < 0x80000000) {
		tpd_buf_u8(buf, 'J');
		tpd_buf_u32(buf, (uint32_t)value);
	} else {
		tpd_buf_u8(buf, 0x8a);
		tpd_buf_u8(buf, value >> 63 ? 9 : 8); /* two's complement */
		tpd_buf_u64(buf, value);
		if (value >> 63)
			tpd_buf_u8(buf, 0);
	}
}

TPD_UNUSED static void pk_global(struct tpd_buf *buf, const char *module, const char *name)
{
	tpd_buf_printf(buf, "c%s\n%s\n", module, name);
}

TPD_UNUSED static void pk_put(struct tpd_buf *buf, uint32_t index)
{
	if (index < 256) {
		tpd_buf_u8(buf, 'q');
		tpd_buf_u8(buf, (uint8_t)index);
	} else {
		tpd_buf_u8(buf, 'r');
		tpd_buf_u32(buf, index);
	}
}

TPD_UNUSED static void pk_get(struct tpd_buf *buf, uint32_t index)
{
	if (index < 256) {
		tpd_buf_u8(buf, 'h');
		tpd_buf_u8(buf, (uint8_t)index);
	} else {
		tpd_buf_u8(buf, 'j');
		tpd_buf_u32(buf, index);
	}
}

TPD_UNUSED static void pk_sizes(struct tpd_buf *buf, unsigned count, const uint64_t *sizes)
{
	pk(buf, MARK);
	for (unsigned i = 0; i < count; i++)
		pk_int(buf, sizes[i]);
	pk(buf, TUPLE);
}

/* The persistent id of a storage: ('storage', torch.TYPE, key, 'cpu', numel). */
TPD_UNUSED static void pk_storage(struct tpd_buf *buf, const char *type, const char *key, uint64_t numel)
{
	pk(buf, MARK);
	pk_str(buf, "storage");
	pk_global(buf, "torch", type);
	pk_str(buf, key);
	pk_str(buf, "cpu");
	pk_int(buf, numel);
	pk(buf, TUPLE);
	pk(buf, BINPERSID);
}

struct pk_tensor {
	const char *type; /* of the storage, "FloatStorage" */
	const char *key;
	uint64_t numel;   /* of the storage */
	uint64_t offset;
	unsigned ndim;
	uint64_t size[9], stride[9];
	const char *v3;   /* not NULL: by _rebuild_tensor_v3, with this type, "float8_e4m3fn" */
};

/* (storage, offset, size, stride, requires_grad, hooks[, dtype, metadata]), as torch has them. */
TPD_UNUSED static void pk_tensor_arguments(struct tpd_buf *buf, const struct pk_tensor *tensor)
{
	pk(buf, MARK);
	pk_storage(buf, tensor->type, tensor->key, tensor->numel);
	pk_int(buf, tensor->offset);
	pk_sizes(buf, tensor->ndim, tensor->size);
	pk_sizes(buf, tensor->ndim, tensor->stride);
	pk(buf, FALSE_);
	pk_global(buf, "collections", "OrderedDict");
	pk(buf, EMPTY_TUPLE);
	pk(buf, REDUCE);
	if (tensor->v3) {
		pk_global(buf, "torch", tensor->v3);
		pk(buf, NONE);
	}
	pk(buf, TUPLE);
}

TPD_UNUSED static void pk_tensor(struct tpd_buf *buf, const struct pk_tensor *tensor)
{
	pk_global(buf, "torch._utils", tensor->v3 ? "_rebuild_tensor_v3" : "_rebuild_tensor_v2");
	pk_tensor_arguments(buf, tensor);
	pk(buf, REDUCE);
}

#endif
