/*
 * torch_zip.c - the storages in a file that torch.save() wrote.
 *
 *     PREFIX/data.pkl   PREFIX/byteorder   PREFIX/data/0   PREFIX/data/1 ...
 *
 * The file is a zip of stored members below one common directory, which is
 * called after the file or "archive".  A storage is a member data/N; it is named
 * without the prefix, so that checkpoints of different names match.  What type
 * a storage has only the pickle says, which is not read here: segments are
 * untyped.  A member that is deflated is no storage of ours and stays glue.
 */
#include "base/tpd.h"

#include "format/format.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format/parse.h"
#include "format/zip.h"

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

/* NULL, or why this zip is none of torch.save's. */
static const char *find_prefix(const struct tpd_zip *zip, size_t *out_prefix)
{
	const struct tpd_zip_member *first = zip->members;
	bool has_pickle = false;
	size_t prefix;

	if (zip->count == 0)
		return "no members";
	prefix = prefix_length(first);
	for (size_t i = 0; i < zip->count; i++) {
		const struct tpd_zip_member *member = &zip->members[i];

		if (prefix == 0 || prefix_length(member) != prefix || memcmp(member->name, first->name, prefix) != 0)
			return "no directory that is common to all members";
		if (member->method != STORED && member->method != DEFLATED)
			return "a member of an unknown method";
		if (is_named(member, prefix, "data.pkl"))
			has_pickle = true;
	}
	*out_prefix = prefix;
	return has_pickle ? NULL : "no data.pkl";
}

static enum tpd_status collect(uint64_t size, const struct tpd_zip *zip, size_t prefix,
			       struct tpd_format_layout *out_layout, struct tpd_err *err)
{
	struct tpd_format_segment *segments = calloc(zip->count, sizeof *segments);
	size_t count = 0;

	if (!segments)
		return tpd_fail_nomem(err);
	for (size_t i = 0; i < zip->count; i++) {
		const struct tpd_zip_member *member = &zip->members[i];
		struct tpd_format_segment *segment = &segments[count];

		if (member->method != STORED || !is_storage(member, prefix))
			continue;
		segment->name = strndup(member->name + prefix, member->name_length - prefix);
		if (!segment->name) {
			tpd_format_segments_free(segments, count);
			return tpd_fail_nomem(err);
		}
		segment->offset = member->data;
		segment->length = member->length;
		count++;
	}
	return tpd_format_accept(out_layout, TPD_FORMAT_TORCH_ZIP, size, segments, count);
}

enum tpd_status tpd_format_parse_torch_zip(uint64_t size, tpd_format_read_fn read, void *ctx,
					   struct tpd_format_layout *out_layout, struct tpd_err *err)
{
	struct tpd_zip zip;
	enum tpd_status status = tpd_zip_open(size, read, ctx, &zip, err);
	const char *reason;
	size_t prefix = 0;

	if (status != TPD_OK)
		return status;
	reason = zip.doubt ? zip.doubt : find_prefix(&zip, &prefix);
	if (reason)
		status = tpd_format_opaque(out_layout, "torch zip: %s", reason);
	else
		status = collect(size, &zip, prefix, out_layout, err);
	tpd_zip_release(&zip);
	return status;
}
