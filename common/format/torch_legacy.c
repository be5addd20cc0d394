/*
 * torch_legacy.c - files by torch.save() before PyTorch 1.6, or with _use_new_zipfile_serialization=False.
 *
 *     | magic | 1001 | system | object | [key, ...] | u64 count, data | u64 count, data | ...
 *     0 five pickles                                | of the first key, of the second         size
 *
 * (torch/serialization.py, _legacy_save, of PyTorch 2.13.) The data comes in the order of the keys; count is the
 * storage's number of elements, whose type only the object's pickle tells. So a storage that the pickle does not
 * speak of, or says another count of, makes the file opaque: where the next one begins is not known. So does data
 * that does not reach exactly to the end.
 *
 * How long the pickles are is not known before they are read: a window at the file's beginning is read, and a larger
 * one where that was too short, at most TPD_FORMAT_MAX_GLUE, since all of it is glue. Big-endian files are opaque.
 */
#include "base/tpd.h"

#include "format/format.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "format/parse.h"
#include "format/pickle.h"
#include "format/torch_pickle.h"

#define WINDOW_FIRST (256u << 10)
#define WINDOW_GROWTH 8u
#define PROTOCOL 1001u

/* LONG1, 119547037146038801333356, STOP */
static const uint8_t magic[] = {0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, '.'};

bool tpd_format_is_torch_legacy(const uint8_t *head, size_t len)
{
	/* Protocols 2 and 3 begin with two bytes, 4 and 5 with a frame of nine more. */
	size_t at = len > 2 && head[2] == 0x95 ? 11 : 2;

	return len >= at + sizeof magic && head[0] == 0x80 && memcmp(head + at, magic, sizeof magic) == 0;
}

/* The pickles of a file, as far as they lie in the window. */
struct legacy {
	const uint8_t *bytes;
	size_t len, at;                /* at: where the next one begins */
	struct tpd_torch_storages storages;
	struct tpd_pickle keys;
	const char *doubt;
};

static bool doubt(struct legacy *legacy, const char *why)
{
	legacy->doubt = why;
	return false;
}

/* The next pickle, which the caller releases; in *out_status whether there was memory. false: that, or a doubt. */
static bool next_pickle(struct legacy *legacy, struct tpd_pickle *out, enum tpd_status *out_status, struct tpd_err *err)
{
	*out_status = tpd_pickle_read(legacy->bytes + legacy->at, legacy->len - legacy->at, TPD_PICKLE_MAX_OPS, out,
				      err);
	if (*out_status)
		return false;
	legacy->at += out->length;
	return !out->doubt || doubt(legacy, out->doubt);
}

static bool is_protocol(const struct tpd_pickle *pickle)
{
	uint64_t version;

	return tpd_pickle_u64(pickle, pickle->root, &version) && version == PROTOCOL;
}

static bool is_little_endian(const struct tpd_pickle *pickle)
{
	uint32_t little = tpd_pickle_lookup(pickle, pickle->root, "little_endian");

	return tpd_pickle_kind_of(pickle, little) == TPD_PICKLE_BOOL && pickle->nodes[little].u.integer == 1;
}

/* A pickle that only has to say yes. */
static bool ask(struct legacy *legacy, bool (*question)(const struct tpd_pickle *), const char *otherwise,
		enum tpd_status *out_status, struct tpd_err *err)
{
	struct tpd_pickle pickle;
	bool good;

	if (!next_pickle(legacy, &pickle, out_status, err)) {
		if (!*out_status)
			tpd_pickle_release(&pickle);
		return false;
	}
	good = !question || question(&pickle) || doubt(legacy, otherwise);
	tpd_pickle_release(&pickle);
	return good;
}

/* All five. The last two are in *legacy, which the caller releases in any case. */
static bool read_pickles(struct legacy *legacy, enum tpd_status *out_status, struct tpd_err *err)
{
	if (!ask(legacy, NULL, NULL, out_status, err) ||
	    !ask(legacy, is_protocol, "another protocol than 1001", out_status, err) ||
	    !ask(legacy, is_little_endian, "it is not little-endian", out_status, err))
		return false;
	*out_status = tpd_torch_pickle(legacy->bytes + legacy->at, legacy->len - legacy->at, &legacy->storages, err);
	if (*out_status)
		return false;
	if (legacy->storages.doubt)
		return doubt(legacy, legacy->storages.doubt);
	legacy->at += legacy->storages.length;
	if (!next_pickle(legacy, &legacy->keys, out_status, err))
		return false;
	return tpd_pickle_kind_of(&legacy->keys, legacy->keys.root) == TPD_PICKLE_LIST ||
		doubt(legacy, "its keys are no list");
}

static void release(struct legacy *legacy)
{
	tpd_torch_storages_release(&legacy->storages);
	tpd_pickle_release(&legacy->keys);
}

/* --- the data --- */

/* Named like the storage, or, where that has no name, like the member of a zip. NULL: no memory. */
static char *name_of(const struct tpd_torch_storage *storage, size_t number)
{
	char *name = NULL;

	if (storage->name[0])
		return strdup(storage->name);
	/* The key is an address, different in every file. */
	return asprintf(&name, "data/%zu", number) < 0 ? NULL : name;
}

/*
 * The storage of the number-th key, whose count is at `at`; or a doubt, which is set.
 * taken: of each storage, whether a key before was its.
 */
static enum tpd_status read_storage(struct legacy *legacy, uint32_t key, size_t number, uint64_t size, uint64_t at,
				    tpd_format_read_fn read, void *ctx, bool *taken, struct tpd_format_segment *out,
				    struct tpd_err *err)
{
	const struct tpd_pickle_node *node = &legacy->keys.nodes[key];
	const struct tpd_torch_storage *storage = NULL;
	uint8_t count[8];
	enum tpd_status status;

	if (node->kind == TPD_PICKLE_STRING)
		storage = tpd_torch_find(&legacy->storages, node->u.text.at, node->u.text.length);
	if (!storage || !storage->sized) {
		doubt(legacy, "a storage of unknown length");
		return TPD_OK;
	}
	/* A key that comes again costs two bytes, a storage's name up to 4 KiB. */
	if (taken[storage - legacy->storages.items]) {
		doubt(legacy, "a storage twice");
		return TPD_OK;
	}
	taken[storage - legacy->storages.items] = true;
	if (size - at < sizeof count || storage->bytes > size - at - sizeof count) {
		doubt(legacy, "a storage reaches past the end of the file");
		return TPD_OK;
	}
	status = read(ctx, count, sizeof count, at, err);
	if (status)
		return status;
	if (tpd_get_u64(count) != storage->numel) {
		doubt(legacy, "a storage of two lengths");
		return TPD_OK;
	}
	*out = (struct tpd_format_segment){
		.name = name_of(storage, number),
		.offset = at + sizeof count,
		.length = storage->bytes,
		.typed = storage->typed,
		.dtype = storage->dtype,
		.ndim = storage->ndim,
	};
	memcpy(out->dims, storage->dims, sizeof out->dims);
	return out->name ? TPD_OK : tpd_fail_nomem(err);
}

static enum tpd_status read_data(struct legacy *legacy, uint64_t size, tpd_format_read_fn read, void *ctx,
				 struct tpd_format_layout *out_layout, struct tpd_err *err)
{
	const struct tpd_pickle *keys = &legacy->keys;
	/* One a storage, and one for the key at which a doubt ends it. */
	struct tpd_format_segment *segments = calloc(legacy->storages.count + 1, sizeof *segments);
	TPD_AUTO_FREE bool *taken = calloc(legacy->storages.count + 1, sizeof *taken);
	enum tpd_status status = TPD_OK;
	uint64_t at = legacy->at;
	size_t count = 0;

	if (!segments || !taken) {
		free(segments);
		return tpd_fail_nomem(err);
	}
	for (uint32_t cell = keys->nodes[keys->root].first; cell != TPD_PICKLE_NOTHING; cell = keys->cells[cell].next) {
		struct tpd_format_segment *segment = &segments[count];

		status = read_storage(legacy, keys->cells[cell].node, count, size, at, read, ctx, taken, segment, err);
		if (status || legacy->doubt)
			break;
		at = segment->offset + segment->length;
		count++;
	}
	if (!status && !legacy->doubt && at != size)
		doubt(legacy, "bytes follow the last storage");
	if (status || legacy->doubt) {
		tpd_format_segments_free(segments, count);
		return status;
	}
	return tpd_format_accept(out_layout, TPD_FORMAT_TORCH_LEGACY, size, segments, count, err);
}

/* The whole, with the pickles within the first `window` bytes. */
static enum tpd_status parse_window(uint64_t size, size_t window, tpd_format_read_fn read, void *ctx,
				    const char **out_doubt, bool *out_in_pickles, struct tpd_format_layout *out_layout,
				    struct tpd_err *err)
{
	TPD_AUTO_FREE uint8_t *bytes = malloc(window);
	struct legacy legacy = {.bytes = bytes, .len = window};
	enum tpd_status status;

	if (!bytes)
		return tpd_fail_nomem(err);
	status = read(ctx, bytes, window, 0, err);
	if (status)
		return status;
	*out_in_pickles = !read_pickles(&legacy, &status, err);
	if (!*out_in_pickles)
		status = read_data(&legacy, size, read, ctx, out_layout, err);
	release(&legacy);
	*out_doubt = legacy.doubt;
	return status;
}

enum tpd_status tpd_format_parse_torch_legacy(uint64_t size, tpd_format_read_fn read, void *ctx,
					      struct tpd_format_layout *out_layout, struct tpd_err *err)
{
	uint64_t most = TPD_MIN(size, (uint64_t)TPD_FORMAT_MAX_GLUE), window = TPD_MIN(most, (uint64_t)WINDOW_FIRST);

	for (;;) {
		const char *why = NULL;
		bool in_pickles = false;
		enum tpd_status status =
			parse_window(size, (size_t)window, read, ctx, &why, &in_pickles, out_layout, err);

		if (status || !why)
			return status;
		if (!in_pickles || window == most)
			return tpd_format_opaque(out_layout, "torch legacy: %s", why);
		window = TPD_MIN(window * WINDOW_GROWTH, most);
	}
}
