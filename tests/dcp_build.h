/*
 * dcp_build.h - builds a distributed checkpoint as PyTorch's DCP writes it, a .metadata and a .distcp, for tests.
 */
#ifndef TPD_TESTS_DCP_BUILD_H
#define TPD_TESTS_DCP_BUILD_H

#include "base/tpd.h"

#include <stdio.h>

#include "base/bytes.h"
#include "pickle_build.h"
#include "zip_build.h"

struct item {
	const char *fqn;
	unsigned ndim; /* of the chunk's place; 9: a value that is no tensor */
	uint64_t offsets[8];
	const char *path;
	uint64_t at, length;
};

TPD_UNUSED static void pk_object(struct tpd_buf *buf, const char *name)
{
	pk_global(buf, "torch.distributed.checkpoint.metadata", name);
	pk(buf, EMPTY_TUPLE);
	pk(buf, NEWOBJ);
	pk(buf, EMPTY_DICT);
	pk(buf, MARK);
}

TPD_UNUSED static void pk_object_end(struct tpd_buf *buf)
{
	pk(buf, SETITEMS);
	pk(buf, BUILD);
}

TPD_UNUSED static void pk_torch_size(struct tpd_buf *buf, unsigned count, const uint64_t *sizes)
{
	pk_global(buf, "torch", "Size");
	pk_sizes(buf, count, sizes);
	pk(buf, TUPLE1);
	pk(buf, REDUCE);
}

/* FQN: TensorStorageMetadata(chunks=[that many]). */
TPD_UNUSED static void pk_tensor_metadata(struct tpd_buf *buf, const char *fqn, unsigned chunks)
{
	pk_str(buf, fqn);
	pk_object(buf, "TensorStorageMetadata");
	pk_str(buf, "chunks");
	pk(buf, EMPTY_LIST);
	for (unsigned i = 0; i < chunks; i++) {
		pk_object(buf, "ChunkStorageMetadata");
		pk_object_end(buf);
		pk(buf, APPEND);
	}
	pk_object_end(buf);
}

TPD_UNUSED static void pk_item(struct tpd_buf *buf, const struct item *item)
{
	pk_object(buf, "MetadataIndex");
	pk_str(buf, "fqn");
	pk_str(buf, item->fqn);
	pk_str(buf, "index");
	pk(buf, NONE);
	if (item->ndim < 9) {
		pk_str(buf, "offset");
		pk_torch_size(buf, item->ndim, item->offsets);
	}
	pk_object_end(buf);
	pk_object(buf, "_StorageInfo");
	pk_str(buf, "relative_path");
	pk_str(buf, item->path);
	pk_str(buf, "offset");
	pk_int(buf, item->at);
	pk_str(buf, "length");
	pk_int(buf, item->length);
	pk_object_end(buf);
}

/* Metadata whose tensors are "one" (a chunk) and "two" (two chunks). */
TPD_UNUSED static void put_metadata(struct tpd_buf *buf, const struct item *items, size_t count)
{
	pk_proto(buf, 4);
	pk_object(buf, "Metadata");
	pk_str(buf, "state_dict_metadata");
	pk(buf, EMPTY_DICT);
	pk(buf, MARK);
	pk_tensor_metadata(buf, "two", 2);
	pk_tensor_metadata(buf, "one", 1);
	pk(buf, SETITEMS);
	pk_str(buf, "storage_data");
	pk(buf, EMPTY_DICT);
	pk(buf, MARK);
	for (size_t i = 0; i < count; i++)
		pk_item(buf, &items[i]);
	pk(buf, SETITEMS);
	pk_object_end(buf);
	pk(buf, STOP);
}

static bool transposed; /* what put_zip() makes lies column by column */

/* A zip with one tensor of `rows` x 16 floats, or one of none. Its length. */
TPD_UNUSED static uint64_t put_zip(struct tpd_buf *file, uint64_t rows)
{
	struct pk_tensor tensor = {"FloatStorage", "0", rows * 16, 0, 2, {rows, 16}, {16, 1}, NULL};
	struct tpd_buf pickle = {0};
	struct zip zip = {.count = 0};
	uint64_t length;

	if (transposed) {
		tensor.stride[0] = 1;
		tensor.stride[1] = rows;
	}
	if (rows)
		pk_tensor(&pickle, &tensor);
	else
		pk(&pickle, NONE);
	pk(&pickle, STOP);
	add_bytes(&zip, "archive/data.pkl", pickle.data, pickle.len, DESCRIPTOR | ALIGNED);
	if (rows)
		add_member(&zip, "archive/data/0", rows * 64, DESCRIPTOR | ALIGNED);
	finish(&zip, true, "");
	tpd_buf_put(file, zip.file.data, zip.file.len);
	length = zip.file.len;
	tpd_buf_release(&zip.file);
	tpd_buf_release(&pickle);
	return length;
}

#define FILE_NAME "__0_0.distcp"
#define ITEMS 4

/* one (2 x 16), two at row 3 (4 x 16), a value, a value with a tensor in it. */
TPD_UNUSED static void build(struct tpd_buf *file, struct item items[ITEMS])
{
	static const struct item given[ITEMS] = {
		{"one", 2, {0, 0}, FILE_NAME, 0, 0},
		{"two", 2, {3, 0}, FILE_NAME, 0, 0},
		{"lr", 9, {0}, FILE_NAME, 0, 0},
		{"rng", 9, {0}, FILE_NAME, 0, 0},
	};
	static const uint64_t rows[ITEMS] = {2, 4, 0, 5};

	for (size_t i = 0; i < ITEMS; i++) {
		items[i] = given[i];
		items[i].at = file->len;
		items[i].length = put_zip(file, rows[i]);
	}
}

/*
 * `count` tensors "expert.N" of rows x 16 floats that differ from one another, and from those of another `seed` in a few places, and
 * their metadata.
 */
TPD_UNUSED static void build_many(struct tpd_buf *file, struct tpd_buf *metadata, unsigned count, uint64_t rows, uint8_t seed)
{
	struct tpd_buf one = {0};
	uint64_t length = put_zip(&one, rows), data = 0;
	static const uint8_t pattern[] = {1, 14, 27, 40, 53}; /* as add_member() begins */

	while (memcmp(one.data + data, pattern, sizeof(pattern)) != 0)
		data++;
	pk_proto(metadata, 4);
	pk_object(metadata, "Metadata");
	pk_str(metadata, "state_dict_metadata");
	pk(metadata, EMPTY_DICT);
	pk_str(metadata, "storage_data");
	pk(metadata, EMPTY_DICT);
	pk(metadata, MARK);
	for (unsigned i = 0; i < count; i++) {
		char name[40];
		struct item item = {name, 2, {0, 0}, FILE_NAME, file->len, length};

		snprintf(name, sizeof(name), "expert.%u", i);
		pk_item(metadata, &item);
		tpd_put_u32(one.data + data, i);
		one.data[data + 4 + i % 32] ^= seed;
		tpd_buf_put(file, one.data, one.len);
		one.data[data + 4 + i % 32] ^= seed;
	}
	pk(metadata, SETITEMS);
	pk_object_end(metadata);
	pk(metadata, STOP);
	tpd_buf_release(&one);
}

#endif
