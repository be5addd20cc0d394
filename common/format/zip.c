/*
 * zip.c - the central directory of a zip file, checked against the local headers.
 *
 *     | local header, name, extra | data | descriptor? | next ... | central directory |
 *     0                                                           ^ end records point here
 *       zip64 end record? | zip64 locator? | end record, comment |
 *                                                              size
 *
 * After APPNOTE.TXT 6.3 (PKWARE).  A zip says most things twice; whatever is
 * said differently the second time is a doubt, as is everything that lies
 * where another part lies, or outside.  Readers disagree about such files, so
 * which of them is right does not interest us.
 *
 * Hostile input: the directory is read whole, so it is bounded (DIRECTORY_MAX;
 * it is glue, and with more glue the file would be opaque anyway).  Members
 * are visited in the order of the file and may not overlap, so that all local
 * headers together are read at most once.
 */
#include "base/tpd.h"

#include "format/zip.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

#define END_SIGNATURE 0x06054b50u
#define END_SIZE 22u
#define LOCATOR_SIGNATURE 0x07064b50u
#define LOCATOR_SIZE 20u
#define END64_SIGNATURE 0x06064b50u
#define END64_SIZE 56u
#define CENTRAL_SIGNATURE 0x02014b50u
#define CENTRAL_SIZE 46u
#define LOCAL_SIGNATURE 0x04034b50u
#define LOCAL_SIZE 30u

#define EXTRA_ZIP64 1u
#define FLAGS_REFUSED (1u << 0 | 1u << 5 | 1u << 6 | 1u << 13) /* encrypted, a patch, encrypted, masked */
#define FLAG_DESCRIPTOR (1u << 3) /* the sizes follow the data */

#define COMMENT_MAX 65535u
#define DIRECTORY_MAX TPD_FORMAT_MAX_GLUE
#define VARIABLE_MAX (2 * 65535u) /* name and extra of a local header */

struct scan {
	uint64_t size;
	tpd_format_read_fn read;
	void *ctx;
	struct tpd_err *err;
	enum tpd_status status; /* of the callback, or TPD_NOMEM */
	struct tpd_zip *zip;
	uint64_t directory_at, directory_size, count;
};

static bool doubt(struct scan *scan, const char *reason)
{
	scan->zip->doubt = reason;
	return false;
}

static bool fetch(struct scan *scan, void *buf, uint64_t len, uint64_t offset)
{
	if (len > 0)
		scan->status = scan->read(scan->ctx, buf, (size_t)len, offset, scan->err);
	return scan->status == TPD_OK;
}

static void *allocate(struct scan *scan, size_t size)
{
	void *p = malloc(size ? size : 1);

	if (!p)
		scan->status = tpd_fail_nomem(scan->err);
	return p;
}

/* Where the one end record begins; its copy in out_record. */
static bool find_end(struct scan *scan, uint8_t out_record[END_SIZE], uint64_t *out_at)
{
	uint64_t tail_size = TPD_MIN(scan->size, (uint64_t)END_SIZE + COMMENT_MAX), found = UINT64_MAX;
	TPD_AUTO_FREE uint8_t *tail = NULL;

	if (scan->size < END_SIZE)
		return doubt(scan, "no end record");
	tail = allocate(scan, (size_t)tail_size);
	if (!tail || !fetch(scan, tail, tail_size, scan->size - tail_size))
		return false;
	for (uint64_t i = 0; i <= tail_size - END_SIZE; i++) {
		if (tpd_get_u32(tail + i) != END_SIGNATURE || i + END_SIZE + tpd_get_u16(tail + i + 20) != tail_size)
			continue;
		if (found != UINT64_MAX)
			return doubt(scan, "two end records");
		found = i;
	}
	if (found == UINT64_MAX)
		return doubt(scan, "no end record");
	memcpy(out_record, tail + found, END_SIZE);
	*out_at = scan->size - tail_size + found;
	return true;
}

static bool says_same(uint64_t narrow, uint64_t all_ones, uint64_t wide)
{
	return narrow == all_ones || narrow == wide;
}

/* The zip64 end record that the locator before the end record points to; it ends where the locator begins. */
static bool read_end64(struct scan *scan, const uint8_t *locator, uint64_t locator_at, const uint8_t *end,
		       uint64_t *out_at)
{
	uint64_t at = tpd_get_u64(locator + 8);
	uint8_t record[END64_SIZE];

	if (tpd_get_u32(locator + 4) != 0 || tpd_get_u32(locator + 16) > 1)
		return doubt(scan, "more than one disk");
	if (locator_at < END64_SIZE || at > locator_at - END64_SIZE)
		return doubt(scan, "the zip64 end record is out of bounds");
	if (!fetch(scan, record, sizeof record, at))
		return false;
	if (tpd_get_u32(record) != END64_SIGNATURE || tpd_get_u64(record + 4) != locator_at - at - 12)
		return doubt(scan, "bad zip64 end record");
	scan->count = tpd_get_u64(record + 32);
	scan->directory_size = tpd_get_u64(record + 40);
	scan->directory_at = tpd_get_u64(record + 48);
	if (tpd_get_u32(record + 16) != 0 || tpd_get_u32(record + 20) != 0 ||
	    tpd_get_u64(record + 24) != scan->count)
		return doubt(scan, "more than one disk");
	if (!says_same(tpd_get_u16(end + 10), 0xffff, scan->count) ||
	    !says_same(tpd_get_u32(end + 12), 0xffffffff, scan->directory_size) ||
	    !says_same(tpd_get_u32(end + 16), 0xffffffff, scan->directory_at))
		return doubt(scan, "the two end records differ");
	*out_at = at;
	return true;
}

/* Where the central directory is; it must reach exactly to the end records. */
static bool find_directory(struct scan *scan)
{
	uint8_t end[END_SIZE], locator[LOCATOR_SIZE] = {0};
	uint64_t end_at = 0;

	if (!find_end(scan, end, &end_at))
		return false;
	if (tpd_get_u16(end + 4) != 0 || tpd_get_u16(end + 6) != 0 || tpd_get_u16(end + 8) != tpd_get_u16(end + 10))
		return doubt(scan, "more than one disk");
	scan->count = tpd_get_u16(end + 10);
	scan->directory_size = tpd_get_u32(end + 12);
	scan->directory_at = tpd_get_u32(end + 16);
	if (end_at >= LOCATOR_SIZE && !fetch(scan, locator, sizeof locator, end_at - LOCATOR_SIZE))
		return false;
	if (tpd_get_u32(locator) == LOCATOR_SIGNATURE) {
		if (!read_end64(scan, locator, end_at - LOCATOR_SIZE, end, &end_at))
			return false;
	} else if (scan->count == 0xffff || scan->directory_size == 0xffffffff || scan->directory_at == 0xffffffff) {
		return doubt(scan, "no zip64 end record");
	}
	if (scan->directory_at > end_at || end_at - scan->directory_at != scan->directory_size)
		return doubt(scan, "the directory does not reach to its end record");
	if (scan->directory_size > DIRECTORY_MAX)
		return doubt(scan, "the directory is too large");
	if (scan->count > scan->directory_size / CENTRAL_SIZE || scan->count > TPD_FORMAT_MAX_SEGMENTS)
		return doubt(scan, "more members than the directory has room for");
	return true;
}

/*
 * The zip64 field of an extra area, empty when there is none.  false: the area is no list of fields, or has
 * two of them.
 */
static bool find_zip64(const uint8_t *extra, size_t len, struct tpd_rd *out_field)
{
	struct tpd_rd rd = tpd_rd_make(extra, len);
	bool found = false;

	*out_field = tpd_rd_make(NULL, 0);
	while (tpd_rd_left(&rd) > 0) {
		uint16_t id = tpd_rd_u16(&rd), field_len = tpd_rd_u16(&rd);
		const uint8_t *field = tpd_rd_bytes(&rd, field_len);

		if (!field || (id == EXTRA_ZIP64 && found))
			return false;
		if (id == EXTRA_ZIP64) {
			*out_field = tpd_rd_make(field, field_len);
			found = true;
		}
	}
	return tpd_rd_done(&rd);
}

/* One entry of the directory; the zip64 field holds, in this order, those numbers that are all ones before it. */
static bool read_central(struct scan *scan, struct tpd_rd *rd, struct tpd_zip_member *out_member)
{
	const uint8_t *p = tpd_rd_bytes(rd, CENTRAL_SIZE), *name, *extra;
	struct tpd_zip_member member = {0};
	struct tpd_rd wide;
	bool any;

	if (!p || tpd_get_u32(p) != CENTRAL_SIGNATURE)
		return doubt(scan, "bad directory entry");
	member.flags = tpd_get_u16(p + 8);
	member.method = tpd_get_u16(p + 10);
	member.length = tpd_get_u32(p + 20);
	member.plain_length = tpd_get_u32(p + 24);
	member.header = tpd_get_u32(p + 42);
	member.name_length = tpd_get_u16(p + 28);
	name = tpd_rd_bytes(rd, member.name_length);
	extra = tpd_rd_bytes(rd, tpd_get_u16(p + 30));
	tpd_rd_bytes(rd, tpd_get_u16(p + 32)); /* the comment */
	if (!tpd_rd_ok(rd) || !find_zip64(extra, tpd_get_u16(p + 30), &wide))
		return doubt(scan, "bad directory entry");
	if (tpd_get_u16(p + 34) != 0)
		return doubt(scan, "more than one disk");
	any = member.plain_length == 0xffffffff || member.length == 0xffffffff || member.header == 0xffffffff;
	if (member.plain_length == 0xffffffff)
		member.plain_length = tpd_rd_u64(&wide);
	if (member.length == 0xffffffff)
		member.length = tpd_rd_u64(&wide);
	if (member.header == 0xffffffff)
		member.header = tpd_rd_u64(&wide);
	if (any && !tpd_rd_done(&wide))
		return doubt(scan, "bad zip64 field");
	if (member.flags & FLAGS_REFUSED)
		return doubt(scan, "an encrypted or patched member");
	if (member.method == 0 && member.length != member.plain_length)
		return doubt(scan, "a stored member of two lengths");
	member.name = (const char *)name;
	*out_member = member;
	return true;
}

static bool read_directory(struct scan *scan)
{
	struct tpd_zip *zip = scan->zip;
	struct tpd_rd rd;

	zip->directory = allocate(scan, (size_t)scan->directory_size);
	zip->members = allocate(scan, (size_t)scan->count * sizeof *zip->members);
	if (!zip->directory || !zip->members ||
	    !fetch(scan, zip->directory, scan->directory_size, scan->directory_at))
		return false;
	rd = tpd_rd_make(zip->directory, (size_t)scan->directory_size);
	for (uint64_t i = 0; i < scan->count; i++) {
		if (!read_central(scan, &rd, &zip->members[i]))
			return false;
	}
	zip->count = (size_t)scan->count;
	return tpd_rd_done(&rd) || doubt(scan, "bytes follow the last directory entry");
}

static int compare_names(const void *a, const void *b)
{
	const struct tpd_zip_member *x = a, *y = b;
	int order = memcmp(x->name, y->name, TPD_MIN(x->name_length, y->name_length));

	return order ? order : (x->name_length > y->name_length) - (x->name_length < y->name_length);
}

static int compare_places(const void *a, const void *b)
{
	const struct tpd_zip_member *x = a, *y = b;

	return (x->header > y->header) - (x->header < y->header);
}

static bool check_names(struct scan *scan)
{
	struct tpd_zip *zip = scan->zip;

	qsort(zip->members, zip->count, sizeof *zip->members, compare_names);
	for (size_t i = 1; i < zip->count; i++) {
		if (compare_names(&zip->members[i - 1], &zip->members[i]) == 0)
			return doubt(scan, "two members of one name");
	}
	return true;
}

/* The sizes in a local header.  With a descriptor they may be left open, as 0 or all ones. */
static bool sizes_agree(const struct tpd_zip_member *member, const uint8_t *local, const uint8_t *extra,
			size_t extra_len)
{
	uint64_t length = tpd_get_u32(local + 18), plain = tpd_get_u32(local + 22);
	bool open = member->flags & FLAG_DESCRIPTOR;
	struct tpd_rd wide;

	if (!find_zip64(extra, extra_len, &wide))
		return false;
	if (open)
		return (length == 0 || says_same(length, 0xffffffff, member->length)) &&
		       (plain == 0 || says_same(plain, 0xffffffff, member->plain_length));
	if (plain == 0xffffffff)
		plain = tpd_rd_u64(&wide);
	if (length == 0xffffffff)
		length = tpd_rd_u64(&wide);
	return tpd_rd_ok(&wide) && length == member->length && plain == member->plain_length;
}

/* The local header of a member that begins at or after `from`; its data's place. variable: VARIABLE_MAX bytes. */
static bool read_local(struct scan *scan, struct tpd_zip_member *member, uint64_t from, uint8_t *variable)
{
	uint64_t end = scan->directory_at; /* of the members' region */
	uint8_t local[LOCAL_SIZE];
	size_t name_len, extra_len;

	if (member->header < from)
		return doubt(scan, "members overlap");
	if (member->header > end || end - member->header < LOCAL_SIZE)
		return doubt(scan, "a member is out of bounds");
	if (!fetch(scan, local, sizeof local, member->header))
		return false;
	if (tpd_get_u32(local) != LOCAL_SIGNATURE || tpd_get_u16(local + 6) != member->flags ||
	    tpd_get_u16(local + 8) != member->method || tpd_get_u16(local + 26) != member->name_length)
		return doubt(scan, "a local header differs from the directory");
	name_len = tpd_get_u16(local + 26);
	extra_len = tpd_get_u16(local + 28);
	member->data = member->header + LOCAL_SIZE + name_len + extra_len; /* header < 2^63 as it lies in the file */
	if (member->data > end || member->length > end - member->data)
		return doubt(scan, "a member is out of bounds");
	if (!fetch(scan, variable, name_len + extra_len, member->header + LOCAL_SIZE))
		return false;
	if (memcmp(variable, member->name, name_len) != 0 ||
	    !sizes_agree(member, local, variable + name_len, extra_len))
		return doubt(scan, "a local header differs from the directory");
	return true;
}

static bool check_members(struct scan *scan)
{
	struct tpd_zip *zip = scan->zip;
	TPD_AUTO_FREE uint8_t *variable = allocate(scan, VARIABLE_MAX);
	uint64_t from = 0;

	if (!variable)
		return false;
	qsort(zip->members, zip->count, sizeof *zip->members, compare_places);
	if (zip->count > 0 && zip->members[0].header != 0)
		return doubt(scan, "bytes before the first member"); /* several zips in one file, for instance */
	for (size_t i = 0; i < zip->count; i++) {
		if (!read_local(scan, &zip->members[i], from, variable))
			return false;
		from = zip->members[i].data + zip->members[i].length;
	}
	return true;
}

enum tpd_status tpd_zip_open(uint64_t size, tpd_format_read_fn read, void *ctx, struct tpd_zip *out_zip,
			     struct tpd_err *err)
{
	struct tpd_zip zip = {.doubt = NULL};
	struct scan scan = {.size = size, .read = read, .ctx = ctx, .err = err, .status = TPD_OK, .zip = &zip};
	bool good = find_directory(&scan) && read_directory(&scan) && check_names(&scan) && check_members(&scan);

	if (!good) {
		const char *reason = zip.doubt;

		tpd_zip_release(&zip);
		zip.doubt = reason;
	}
	if (scan.status == TPD_OK)
		*out_zip = zip;
	return scan.status;
}

void tpd_zip_release(struct tpd_zip *zip)
{
	free(zip->directory);
	free(zip->members);
	*zip = (struct tpd_zip){.doubt = NULL};
}
