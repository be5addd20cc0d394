/*
 * torch_zip.c - the storages in a file that torch.save() wrote.
 *
 *     PREFIX/data.pkl   PREFIX/byteorder   PREFIX/data/0   PREFIX/data/1 ...
 *
 * The file is a zip of stored members below one common directory, which is
 * called after the file or "archive".  A storage is a member data/N; its name,
 * type and shape are in the pickle (torch_pickle.h).  Where that is doubted, or
 * does not speak of a storage, or says another length, or the bytes are those of
 * a big-endian machine, the storage is called after its member without the
 * prefix, so that checkpoints of different names match, and has no type.  A
 * member that is deflated is no storage of ours and stays glue.
 */
#include "base/tpd.h"

#include "format/torch_zip.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format/parse.h"
#include "format/pickle.h"
#include "format/torch_pickle.h"

#define NUMBER_DIGITS 20 /* of N: as many as 2^64 has */
#define STORED 0
#define DEFLATED 8

/* The length of the first component with its slash; 0 when there is none. */
static size_t prefix_length(const struct tpd_zip_member *member)
{
	const char *slash = memchr(member->name, '/', member->name_length);

	return slash && slash != member->name ? (size_t)(slash - member->name) + 1 : 0;
}

static bool is_named(const struct tpd_zip_member *member, size_t prefix, const char *name)
{
	return member->name_length - prefix == strlen(name) &&
	       memcmp(member->name + prefix, name, strlen(name)) == 0;
}

/* Is it PREFIX/data/N? */
static bool is_storage(const struct tpd_zip_member *member, size_t prefix)
{
	const char *name = member->name + prefix;
	size_t len = member->name_length - prefix;

	if (len < 6 || len > 5 + NUMBER_DIGITS || memcmp(name, "data/", 5) != 0)
		return false;
	for (size_t i = 5; i < len; i++) {
		if (name[i] < '0' || name[i] > '9')
			return false;
	}
	return true;
}

/* What of the zip is not a storage. */
struct torch {
	size_t prefix;
	const struct tpd_zip_member *pickle, *byte_order; /* byte_order may be NULL: an older PyTorch, little-endian */
};

/* NULL, or why this zip is none of torch.save's. */
static const char *find_torch(const struct tpd_zip *zip, struct torch *out)
{
	const struct tpd_zip_member *first = zip->members;
	struct torch torch = {0};

	if (zip->count == 0)
		return "no members";
	torch.prefix = prefix_length(first);
	for (size_t i = 0; i < zip->count; i++) {
		const struct tpd_zip_member *member = &zip->members[i];

		if (torch.prefix == 0 || prefix_length(member) != torch.prefix ||
		    memcmp(member->name, first->name, torch.prefix) != 0)
			return "no directory that is common to all members";
		if (member->method != STORED && member->method != DEFLATED)
			return "a member of an unknown method";
		if (is_named(member, torch.prefix, "data.pkl"))
			torch.pickle = member;
		if (is_named(member, torch.prefix, "byteorder"))
			torch.byte_order = member;
	}
	*out = torch;
	return torch.pickle ? NULL : "no data.pkl";
}

/* The bytes of a stored member of at most `max` bytes, fresh; NULL in *out when it is larger or deflated. */
static enum tpd_status read_member(const struct tpd_zip_member *member, uint64_t max, tpd_format_read_fn read,
				   void *ctx, uint8_t **out, struct tpd_err *err)
{
	uint8_t *bytes;
	enum tpd_status status = TPD_OK;

	*out = NULL;
	if (member->method != STORED || member->length > max)
		return TPD_OK;
	bytes = malloc((size_t)member->length + 1);
	if (!bytes)
		return tpd_fail_nomem(err);
	if (member->length > 0)
		status = read(ctx, bytes, (size_t)member->length, member->data, err);
	if (status)
		free(bytes);
	else
		*out = bytes;
	return status;
}

/* Is it said that words lie with their high byte first? */
static enum tpd_status is_big_endian(const struct torch *torch, tpd_format_read_fn read, void *ctx, bool *out_big,
				     struct tpd_err *err)
{
	TPD_AUTO_FREE uint8_t *text = NULL;
	enum tpd_status status = TPD_OK;

	*out_big = false;
	if (torch->byte_order)
		status = read_member(torch->byte_order, 16, read, ctx, &text, err);
	if (!status && torch->byte_order)
		*out_big = !text || torch->byte_order->length != 6 || memcmp(text, "little", 6) != 0;
	return status;
}

/* What the pickle says of a storage, if it is fit. false: no memory. */
static bool describe(struct tpd_format_segment *segment, const struct tpd_torch_storage *storage, bool big_endian)
{
	if (!storage)
		return true;
	if (storage->typed && storage->bytes == segment->length && !big_endian) {
		segment->typed = true;
		segment->dtype = storage->dtype;
		segment->ndim = storage->ndim;
		segment->transposed = storage->transposed;
		memcpy(segment->dims, storage->dims, sizeof segment->dims);
	}
	if (storage->name[0]) {
		free(segment->name);
		segment->name = strdup(storage->name);
	}
	return segment->name != NULL;
}

static bool add_segment(struct tpd_format_segment *segment, const struct tpd_zip_member *member, size_t prefix,
			const struct tpd_torch_storages *storages, bool big_endian)
{
	const char *name = member->name + prefix;
	size_t len = member->name_length - prefix;

	segment->name = strndup(name, len);
	segment->offset = member->data;
	segment->length = member->length;
	return segment->name && describe(segment, tpd_torch_find(storages, name + 5, len - 5), big_endian);
}

static enum tpd_status collect(const struct tpd_zip *zip, const struct torch *torch,
			       const struct tpd_torch_storages *storages, bool big_endian,
			       struct tpd_format_segment **out_segments, size_t *out_count, struct tpd_err *err)
{
	struct tpd_format_segment *segments = calloc(zip->count, sizeof *segments);
	size_t count = 0;

	if (!segments)
		return tpd_fail_nomem(err);
	for (size_t i = 0; i < zip->count; i++) {
		const struct tpd_zip_member *member = &zip->members[i];

		if (member->method != STORED || !is_storage(member, torch->prefix))
			continue;
		if (!add_segment(&segments[count++], member, torch->prefix, storages, big_endian)) {
			tpd_format_segments_free(segments, count);
			return tpd_fail_nomem(err);
		}
	}
	*out_segments = segments;
	*out_count = count;
	return TPD_OK;
}

static enum tpd_status read_torch(const struct tpd_zip *zip, const struct torch *torch, tpd_format_read_fn read,
				  void *ctx, struct tpd_format_segment **out_segments, size_t *out_count,
				  struct tpd_err *err)
{
	struct tpd_torch_storages storages = {0};
	TPD_AUTO_FREE uint8_t *bytes = NULL; /* what the storages' keys point into */
	bool big_endian = false;
	enum tpd_status status = is_big_endian(torch, read, ctx, &big_endian, err);

	if (!status)
		status = read_member(torch->pickle, TPD_FORMAT_MAX_GLUE, read, ctx, &bytes, err);
	if (!status && bytes)
		status = tpd_torch_pickle(bytes, (size_t)torch->pickle->length, &storages, err);
	if (!status)
		status = collect(zip, torch, &storages, big_endian, out_segments, out_count, err);
	tpd_torch_storages_release(&storages);
	return status;
}

enum tpd_status tpd_torch_zip_segments(const struct tpd_zip *zip, tpd_format_read_fn read, void *ctx,
				       struct tpd_format_segment **out_segments, size_t *out_count,
				       const char **out_reason, struct tpd_err *err)
{
	struct torch torch;

	*out_reason = zip->doubt ? zip->doubt : find_torch(zip, &torch);
	return *out_reason ? TPD_OK : read_torch(zip, &torch, read, ctx, out_segments, out_count, err);
}
