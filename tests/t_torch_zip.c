/*
 * t_torch_zip.c - honest zips, built as torch.save() and others build them, are understood; each
 * with one field changed is opaque, for exactly the reason that was made.
 */
#include "base/tpd.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "format/format.h"
#include "format_file.h"
#include "pickle_build.h"
#include "zip_build.h"

/* Members 0..5 of the honest file. */
enum { PICKLE, ORDER, STORAGE_0, STORAGE_1, STORAGE_2, VERSION };

static struct zip honest_zip(enum how how, bool zip64, const char *comment)
{
	struct zip zip = {.count = 0};

	add_member(&zip, "model/data.pkl", 30, how);
	add_member(&zip, "model/byteorder", 6, how);
	add_member(&zip, "model/data/0", 100, how);
	add_member(&zip, "model/data/1", 4, how); /* too small for a segment */
	add_member(&zip, "model/data/2", 64, how);
	add_member(&zip, "model/version", 2, how);
	finish(&zip, zip64, comment);
	return zip;
}

static struct tpd_format_layout parse_zip(const struct zip *zip)
{
	return parse_bytes("model.pt", zip->file.data, zip->file.len);
}

static void release(struct zip *zip)
{
	tpd_buf_release(&zip->file);
	tpd_buf_release(&zip->central);
}

/* The file that is being built, as it is now, must be opaque for this reason ("": understood). */
static void expect(const struct zip *zip, const char *reason)
{
	struct tpd_format_layout layout = parse_zip(zip);
	const char *skip = "torch zip: ";

	ck_assert_str_eq(layout.reason[0] ? layout.reason + strlen(skip) : "", reason);
	ck_assert_int_eq(layout.kind, *reason ? TPD_FORMAT_OPAQUE : TPD_FORMAT_TORCH_ZIP);
	tpd_format_layout_release(&layout);
}

/* ---- honest files ---- */

static const struct {
	enum how how;
	bool zip64;
	const char *comment;
} honest[] = {
	{STORED, false, ""},
	{ALIGNED, false, ""},
	{DESCRIPTOR, false, ""},
	{WIDE, false, ""},
	{STORED, true, ""},
	{ALIGNED | DESCRIPTOR, true, ""},
	{ALIGNED | DESCRIPTOR | WIDE, true, ""},
	{ALIGNED | WIDE, true, "a comment, PK\5\6 in it"},
};

START_TEST(honest_is_understood)
{
	struct zip zip = honest_zip(honest[_i].how, honest[_i].zip64, honest[_i].comment);
	struct tpd_format_layout layout = parse_zip(&zip);
	const struct tpd_format_segment *s = layout.segments;

	ck_assert_str_eq(layout.reason, "");
	ck_assert_int_eq(layout.kind, TPD_FORMAT_TORCH_ZIP);
	ck_assert_uint_eq(layout.count, 2);
	ck_assert_str_eq(s[0].name, "data/0");
	ck_assert_uint_eq(s[0].offset, zip.data_at[STORAGE_0]);
	ck_assert_uint_eq(s[0].length, 100);
	ck_assert(!s[0].typed);
	ck_assert_uint_eq(s[0].ndim, 0);
	ck_assert_str_eq(s[1].name, "data/2");
	ck_assert_uint_eq(s[1].offset, zip.data_at[STORAGE_2]);
	ck_assert_uint_eq(s[1].length, 64);
	if (honest[_i].how & ALIGNED)
		ck_assert_uint_eq(s[1].offset % 64, 0);
	tpd_format_layout_release(&layout);
	release(&zip);
}
END_TEST

/* {"w": 25 floats in data/0, "x": {"w": 1 in data/1}, "x.w": 8 doubles in data/2}: two of three have one name. */
static void put_pickle(struct tpd_buf *buf)
{
	struct pk_tensor w = {"FloatStorage", "0", 25, 0, 2, {5, 5}, {5, 1}, NULL};
	struct pk_tensor small = {"FloatStorage", "1", 1, 0, 0, {0}, {0}, NULL};
	struct pk_tensor x = {"DoubleStorage", "2", 8, 0, 1, {8}, {1}, NULL};

	pk_proto(buf, 2);
	pk(buf, EMPTY_DICT);
	pk(buf, MARK);
	pk_str(buf, "w");
	pk_tensor(buf, &w);
	pk_str(buf, "x");
	pk(buf, EMPTY_DICT);
	pk_str(buf, "w");
	pk_tensor(buf, &small);
	pk(buf, SETITEM);
	pk_str(buf, "x.w");
	pk_tensor(buf, &x);
	pk(buf, SETITEMS);
	pk(buf, STOP);
}

static struct tpd_format_layout parse_described(const char *byte_order, enum how how, size_t x_length)
{
	struct zip zip = {.count = 0};
	struct tpd_buf pickle = {0};
	struct tpd_format_layout layout;

	put_pickle(&pickle);
	add_bytes(&zip, "m/data.pkl", pickle.data, pickle.len, how);
	if (byte_order)
		add_bytes(&zip, "m/byteorder", byte_order, strlen(byte_order), STORED);
	add_member(&zip, "m/data/0", 100, STORED);
	add_member(&zip, "m/data/1", 72, STORED); /* longer than the pickle says */
	add_member(&zip, "m/data/2", x_length, STORED);
	add_member(&zip, "m/data/3", 64, STORED); /* the pickle does not speak of it */
	finish(&zip, false, "");
	layout = parse_zip(&zip);
	release(&zip);
	tpd_buf_release(&pickle);
	ck_assert_int_eq(layout.kind, TPD_FORMAT_TORCH_ZIP);
	ck_assert_uint_eq(layout.count, 4);
	return layout;
}

START_TEST(the_pickle_describes)
{
	static const struct {
		const char *byte_order;
		enum how how;
		size_t x_length;
		bool named, typed, x_typed;
	} cases[] = {
		{NULL, STORED, 64, true, true, true},      {"little", STORED, 64, true, true, true},
		{"big", STORED, 64, true, false, false},   {"littlest", STORED, 64, true, false, false},
		{"a byte order that is too long", STORED, 64, true, false, false},
		{"little", STORED, 72, true, true, false}, {"little", DEFLATED, 64, false, false, false},
	};

	for (size_t i = 0; i < TPD_ARRAY_LEN(cases); i++) {
		struct tpd_format_layout layout = parse_described(cases[i].byte_order, cases[i].how, cases[i].x_length);
		const struct tpd_format_segment *s = layout.segments;

		ck_assert_str_eq(s[0].name, cases[i].named ? "w" : "data/0");
		ck_assert_int_eq(s[0].typed, cases[i].typed);
		ck_assert_uint_eq(s[0].ndim, cases[i].typed ? 2 : 0);
		ck_assert_str_eq(s[1].name, cases[i].named ? "x.w" : "data/1");
		ck_assert(!s[1].typed);
		ck_assert_str_eq(s[2].name, cases[i].named ? "x.w#2" : "data/2");
		ck_assert_int_eq(s[2].typed, cases[i].x_typed);
		if (s[2].typed)
			ck_assert_int_eq(s[2].dtype, TPD_DTYPE_F64);
		ck_assert_str_eq(s[3].name, "data/3");
		ck_assert(!s[3].typed);
		tpd_format_layout_release(&layout);
	}
}
END_TEST

/* The end record says the true numbers although a zip64 one is there: torch writes both. */
START_TEST(both_end_records)
{
	struct zip zip = honest_zip(ALIGNED | DESCRIPTOR, true, "");
	uint8_t *end = zip.file.data + zip.end_at, *end64 = zip.file.data + zip.end64_at;

	tpd_put_u16(end + 8, 6);
	tpd_put_u16(end + 10, 6);
	tpd_put_u32(end + 12, tpd_get_u32(end64 + 40));
	tpd_put_u32(end + 16, tpd_get_u32(end64 + 48));
	expect(&zip, "");
	tpd_put_u32(end + 16, tpd_get_u32(end64 + 48) + 1);
	expect(&zip, "the two end records differ");
	release(&zip);
}
END_TEST

/* The directory's order is free; segments come in the file's order. */
START_TEST(directory_in_any_order)
{
	struct zip zip = {.count = 0}, other = {.count = 0};
	struct tpd_format_layout layout;

	add_member(&other, "m/data.pkl", 10, STORED);
	add_member(&zip, "m/data.pkl", 10, STORED);
	add_member(&zip, "m/data/7", 70, STORED);
	add_member(&zip, "m/data/5", 80, STORED);
	/* rotate: data/7, data/5, data.pkl */
	tpd_buf_put(&other.central, zip.central.data, zip.central_at[1]);
	memmove(zip.central.data, zip.central.data + zip.central_at[1], zip.central.len - zip.central_at[1]);
	memcpy(zip.central.data + zip.central.len - zip.central_at[1], other.central.data, zip.central_at[1]);
	finish(&zip, false, "");
	layout = parse_zip(&zip);
	ck_assert_uint_eq(layout.count, 2);
	ck_assert_str_eq(layout.segments[0].name, "data/7");
	ck_assert_str_eq(layout.segments[1].name, "data/5");
	tpd_format_layout_release(&layout);
	release(&zip);
	release(&other);
}
END_TEST

START_TEST(deflated_members_are_glue)
{
	struct zip zip = {.count = 0};
	struct tpd_format_layout layout;

	add_member(&zip, "m/data.pkl", 10, DEFLATED);
	add_member(&zip, "m/data/0", 100, DEFLATED);
	add_member(&zip, "m/data/1", 100, STORED);
	finish(&zip, false, "");
	layout = parse_zip(&zip);
	ck_assert_str_eq(layout.reason, "");
	ck_assert_uint_eq(layout.count, 1);
	ck_assert_str_eq(layout.segments[0].name, "data/1");
	tpd_format_layout_release(&layout);
	release(&zip);
}
END_TEST

static const struct {
	const char *names[3];
	const char *reason;
} trees[] = {
	{{"m/data.pkl", "m/data/0", "m/version"}, ""},
	{{"archive/data.pkl", "archive/data/0", "archive/.data/serialization_id"}, ""},
	{{"m/data.pkl", "m/data/0", "n/version"}, "no directory that is common to all members"},
	{{"m/data.pkl", "m/data/0", "version"}, "no directory that is common to all members"},
	{{"m/data.pkl", "m/data/0", "mm/version"}, "no directory that is common to all members"},
	{{"data.pkl", "data/0", "version"}, "no directory that is common to all members"},
	{{"/data.pkl", "/data/0", "/version"}, "no directory that is common to all members"},
	{{"a.npy", "b.npy", "c.npz"}, "no directory that is common to all members"},
	{{"m/x/data.pkl", "m/data/0", "m/version"}, "no data.pkl"},
	{{"m/data.pkl2", "m/data/0", "m/version"}, "no data.pkl"},
	{{"m/data.pkl", "m/data/0", "m/data/0"}, "two members of one name"},
	{{"m/data.pkl", "m/data/0", "m/data.pkl"}, "two members of one name"},
};

START_TEST(names_decide)
{
	struct zip zip = {.count = 0};

	for (int i = 0; i < 3; i++)
		add_member(&zip, trees[_i].names[i], 70, STORED);
	finish(&zip, false, "");
	expect(&zip, trees[_i].reason);
	release(&zip);
}
END_TEST

static const struct {
	const char *name;
	bool storage;
} storages[] = {
	{"m/data/0", true},     {"m/data/12345678901234567890", true}, {"m/data/123456789012345678901", false},
	{"m/data/", false},     {"m/data/a", false},                   {"m/data/0a", false},
	{"m/data/0/1", false},  {"m/.data/0", false},                  {"m/data2/0", false},
	{"m/data", false},      {"m/data/-1", false},                  {"m/datas/1", false},
};

START_TEST(storage_names)
{
	struct zip zip = {.count = 0};
	struct tpd_format_layout layout;

	add_member(&zip, "m/data.pkl", 10, STORED);
	add_member(&zip, storages[_i].name, 70, STORED);
	finish(&zip, false, "");
	layout = parse_zip(&zip);
	ck_assert_int_eq(layout.kind, TPD_FORMAT_TORCH_ZIP);
	ck_assert_uint_eq(layout.count, storages[_i].storage);
	tpd_format_layout_release(&layout);
	release(&zip);
}
END_TEST

/* ---- one field changed ---- */

enum where { LOCAL, CENTRAL, END64, LOCATOR, END };

static const struct {
	enum how how;
	bool zip64;
	enum where where;
	unsigned member;
	unsigned field, bytes;
	uint64_t value;
	const char *reason;
} changes[] = {
#define DIFFERS "a local header differs from the directory"
	/* local headers: name, place and lengths are said twice */
	{STORED, false, LOCAL, STORAGE_0, 0, 4, 0x04034b51, DIFFERS},
	{STORED, false, LOCAL, STORAGE_0, 6, 2, 0x0808, DIFFERS},
	{STORED, false, LOCAL, STORAGE_0, 8, 2, 8, DIFFERS},
	{STORED, false, LOCAL, STORAGE_0, 18, 4, 99, DIFFERS},
	{STORED, false, LOCAL, STORAGE_0, 22, 4, 99, DIFFERS},
	{STORED, false, LOCAL, STORAGE_0, 18, 4, 0xffffffff, DIFFERS}, /* no zip64 field */
	{STORED, false, LOCAL, STORAGE_0, 26, 2, 11, DIFFERS},
	{STORED, false, LOCAL, STORAGE_0, 30, 1, 'n', DIFFERS},
	{STORED, false, LOCAL, STORAGE_0, 28, 2, 1, DIFFERS},          /* an extra area that is no list */
	{STORED, false, LOCAL, STORAGE_0, 28, 2, 65535, "a member is out of bounds"},
	{STORED, false, LOCAL, VERSION, 28, 2, 1, "a member is out of bounds"}, /* one byte into the directory */
	{STORED, false, LOCAL, PICKLE, 14, 4, 1, ""},                  /* the CRC */
	{STORED, false, LOCAL, PICKLE, 4, 2, 99, ""},                  /* version needed */
	{DESCRIPTOR, false, LOCAL, STORAGE_0, 18, 4, 100, ""},         /* may be said already */
	{DESCRIPTOR, false, LOCAL, STORAGE_0, 18, 4, 0xffffffff, ""},
	{DESCRIPTOR, false, LOCAL, STORAGE_0, 18, 4, 99, DIFFERS},
	{WIDE, false, LOCAL, STORAGE_0, 18, 4, 100, ""},               /* then the zip64 field is not asked */
	{WIDE, false, LOCAL, STORAGE_0, 42, 2, 2, DIFFERS},            /* another extra field than zip64 */
	{WIDE, false, LOCAL, STORAGE_0, 44, 2, 15, DIFFERS},
	{WIDE, false, LOCAL, STORAGE_0, 46, 8, 99, DIFFERS},
	{WIDE, false, LOCAL, STORAGE_0, 54, 8, (uint64_t)1 << 63, DIFFERS},
	{ALIGNED | WIDE, false, LOCAL, STORAGE_0, 62, 2, 1, DIFFERS},  /* "FB" becomes a second zip64 field */
	/* the directory */
	{STORED, false, CENTRAL, STORAGE_0, 0, 4, 0x02014b51, "bad directory entry"},
	{STORED, false, CENTRAL, STORAGE_0, 8, 2, 0x0801, "an encrypted or patched member"},
	{STORED, false, CENTRAL, STORAGE_0, 8, 2, 0x2800, "an encrypted or patched member"},
	{STORED, false, CENTRAL, STORAGE_0, 8, 2, 0, DIFFERS},
	{STORED, false, CENTRAL, STORAGE_0, 10, 2, 8, DIFFERS},
	{STORED, false, CENTRAL, STORAGE_0, 16, 4, 1, ""},             /* the CRC */
	{STORED, false, CENTRAL, STORAGE_0, 20, 4, 99, "a stored member of two lengths"},
	{STORED, false, CENTRAL, STORAGE_0, 24, 4, 101, "a stored member of two lengths"},
	{STORED, false, CENTRAL, STORAGE_0, 24, 4, 0xffffffff, "bad zip64 field"},
	{STORED, false, CENTRAL, STORAGE_0, 28, 2, 65535, "bad directory entry"},
	{STORED, false, CENTRAL, STORAGE_0, 30, 2, 65535, "bad directory entry"},
	{STORED, false, CENTRAL, STORAGE_0, 30, 2, 3, "bad directory entry"}, /* no room for a field's head */
	{STORED, false, CENTRAL, STORAGE_0, 32, 2, 65535, "bad directory entry"},
	{STORED, false, CENTRAL, VERSION, 32, 2, 1, "bad directory entry"},
	{STORED, false, CENTRAL, STORAGE_0, 34, 2, 1, "more than one disk"},
	{STORED, false, CENTRAL, STORAGE_0, 42, 4, 0xfffffffe, "a member is out of bounds"},
	{STORED, false, CENTRAL, STORAGE_0, 42, 4, 0, "members overlap"},
	{STORED, false, CENTRAL, STORAGE_0, 46, 1, 'n', DIFFERS},
	{STORED, false, CENTRAL, PICKLE, 42, 4, 1, "bytes before the first member"},
	{WIDE, false, CENTRAL, STORAGE_0, 20, 4, 100, "bad zip64 field"}, /* then one number is left over */
	{WIDE, false, CENTRAL, STORAGE_0, 42, 4, 0, "bad zip64 field"},
	{WIDE, false, CENTRAL, STORAGE_0, 58, 2, 2, "bad zip64 field"},
	{WIDE, false, CENTRAL, STORAGE_0, 60, 2, 23, "bad directory entry"},
	{WIDE, false, CENTRAL, STORAGE_0, 62, 8, UINT64_MAX, "a stored member of two lengths"},
	{WIDE, false, CENTRAL, STORAGE_0, 78, 8, UINT64_MAX, "a member is out of bounds"},
	{WIDE, false, CENTRAL, STORAGE_0, 78, 8, UINT64_MAX - 29, "a member is out of bounds"},
	{WIDE, false, CENTRAL, STORAGE_0, 78, 8, (uint64_t)1 << 63, "a member is out of bounds"},
	/* the end record */
	{STORED, false, END, 0, 0, 4, 0x06054b51, "no end record"},
	{STORED, false, END, 0, 4, 2, 1, "more than one disk"},
	{STORED, false, END, 0, 6, 2, 1, "more than one disk"},
	{STORED, false, END, 0, 8, 2, 5, "more than one disk"},
	{STORED, false, END, 0, 12, 4, 1, "the directory does not reach to its end record"},
	{STORED, false, END, 0, 12, 4, 0xffffffff, "no zip64 end record"},
	{STORED, false, END, 0, 16, 4, 0, "the directory does not reach to its end record"},
	{STORED, false, END, 0, 16, 4, 0xfffffffe, "the directory does not reach to its end record"},
	{STORED, false, END, 0, 20, 2, 1, "no end record"},
	/* zip64 */
	{STORED, true, LOCATOR, 0, 0, 4, 0x07064b51, "no zip64 end record"},
	{STORED, true, LOCATOR, 0, 4, 4, 1, "more than one disk"},
	{STORED, true, LOCATOR, 0, 8, 8, 0, "bad zip64 end record"},
	{STORED, true, LOCATOR, 0, 8, 8, UINT64_MAX, "the zip64 end record is out of bounds"},
	{STORED, true, LOCATOR, 0, 16, 4, 2, "more than one disk"},
	{STORED, true, END64, 0, 0, 4, 0x06064b51, "bad zip64 end record"},
	{STORED, true, END64, 0, 4, 8, 45, "bad zip64 end record"},
	{STORED, true, END64, 0, 4, 8, UINT64_MAX, "bad zip64 end record"},
	{STORED, true, END64, 0, 16, 4, 1, "more than one disk"},
	{STORED, true, END64, 0, 20, 4, 1, "more than one disk"},
	{STORED, true, END64, 0, 24, 8, 5, "more than one disk"},
	{STORED, true, END64, 0, 40, 8, 1, "the directory does not reach to its end record"},
	{STORED, true, END64, 0, 40, 8, UINT64_MAX, "the directory does not reach to its end record"},
	{STORED, true, END64, 0, 48, 8, UINT64_MAX, "the directory does not reach to its end record"},
	{STORED, true, END, 0, 10, 2, 6, "more than one disk"},
	{STORED, true, END, 0, 12, 4, 1, "the two end records differ"},
	{STORED, true, END, 0, 16, 4, 1, "the two end records differ"},
#undef DIFFERS
};

START_TEST(one_field)
{
	struct zip zip = honest_zip(changes[_i].how, changes[_i].zip64, "");
	uint64_t at[] = {
		[LOCAL] = zip.local_at[changes[_i].member],
		[CENTRAL] = zip.central_at[changes[_i].member],
		[END64] = zip.end64_at,
		[LOCATOR] = zip.locator_at,
		[END] = zip.end_at,
	};
	uint8_t *p = zip.file.data + at[changes[_i].where] + changes[_i].field, bytes[8];

	expect(&zip, "");
	tpd_put_u64(bytes, changes[_i].value);
	ck_assert(memcmp(p, bytes, changes[_i].bytes) != 0);
	memcpy(p, bytes, changes[_i].bytes);
	expect(&zip, changes[_i].reason);
	release(&zip);
}
END_TEST

/* Both numbers of members at once, since they must agree. */
START_TEST(count_of_members)
{
	static const struct {
		uint64_t count;
		const char *reason;
	} counts[] = {
		{6, ""},
		{5, "bytes follow the last directory entry"},
		{7, "bad directory entry"},
		{0, "bytes follow the last directory entry"},
		{1000, "more members than the directory has room for"},
		{UINT64_MAX, "more members than the directory has room for"},
	};

	for (size_t i = 0; i < TPD_ARRAY_LEN(counts); i++) {
		struct zip zip = honest_zip(STORED, true, "");

		tpd_put_u64(zip.file.data + zip.end64_at + 24, counts[i].count);
		tpd_put_u64(zip.file.data + zip.end64_at + 32, counts[i].count);
		expect(&zip, counts[i].reason);
		release(&zip);
	}
}
END_TEST

/* The method, too, is said twice. */
START_TEST(unknown_method)
{
	struct zip zip = honest_zip(STORED, false, "");

	tpd_put_u16(zip.file.data + zip.local_at[VERSION] + 8, 12);
	tpd_put_u16(zip.file.data + zip.central_at[VERSION] + 10, 12);
	expect(&zip, "a member of an unknown method");
	release(&zip);
}
END_TEST

START_TEST(no_members)
{
	struct zip zip = {.count = 0};
	uint8_t padded[64] = "PK\3\4";

	finish(&zip, false, "");
	memcpy(padded + sizeof padded - zip.file.len, zip.file.data, zip.file.len);
	tpd_put_u32(padded + sizeof padded - 6, (uint32_t)(sizeof padded - zip.file.len));
	tpd_buf_release(&zip.file);
	tpd_buf_put(&zip.file, padded, sizeof padded);
	expect(&zip, "no members");
	release(&zip);
}
END_TEST

/* A zip within a zip's comment, and bytes before, between and behind. */
START_TEST(around_the_zip)
{
	struct zip zip = honest_zip(STORED, false, ""), two = honest_zip(STORED, false, "");
	struct zip fake = {.count = 0};
	char comment[23] = "PK\5\6..................";

	tpd_buf_put(&two.file, zip.file.data, zip.file.len); /* as DCP concatenates them */
	expect(&two, "the directory does not reach to its end record");
	release(&two);
	tpd_buf_u8(&zip.file, 0);
	expect(&zip, "no end record");
	release(&zip);

	memset(comment + 4, '.', 18);
	comment[20] = comment[21] = 1;
	add_member(&fake, "m/data.pkl", 10, STORED);
	finish(&fake, false, comment);
	memset(fake.file.data + fake.file.len - 18, 0, 18); /* an end record of its own, of no comment */
	expect(&fake, "two end records");
	release(&fake);
}
END_TEST

START_TEST(truncated_anywhere)
{
	for (size_t how = 0; how < TPD_ARRAY_LEN(honest); how++) {
		struct zip zip = honest_zip(honest[how].how, honest[how].zip64, honest[how].comment);

		for (size_t size = 0; size < zip.file.len; size++) {
			struct tpd_format_layout layout = parse_bytes("x", zip.file.data, size);

			ck_assert_int_eq(layout.kind, TPD_FORMAT_OPAQUE);
			ck_assert_int_eq(layout.reason[0] != 0, size >= 9);
			tpd_format_layout_release(&layout);
		}
		release(&zip);
	}
}
END_TEST

START_TEST(failing_reads_end_the_parse)
{
	struct zip zip = honest_zip(ALIGNED, true, "");
	int at = 0;

	for (;;) {
		struct format_file file = {.data = zip.file.data, .size = zip.file.len, .fail_at = ++at};
		struct tpd_format_layout layout;
		struct tpd_err err = {.status = TPD_OK};
		enum tpd_status status = tpd_format_parse("x", file.size, format_file_read, &file, NULL, &layout, &err);

		if (status == TPD_OK) { /* fewer reads than that */
			tpd_format_layout_release(&layout);
			break;
		}
		ck_assert_int_eq(status, TPD_BUSY);
		ck_assert_int_eq(err.status, TPD_BUSY);
		ck_assert_int_eq(file.reads, at);
	}
	/* the head; end, locator, end64, directory; two a member; byteorder and pickle; one that does not fail */
	ck_assert_int_eq(at, 1 + 4 + 2 * 6 + 2 + 1);
	release(&zip);
}
END_TEST

/* A directory of 17 MiB, all zero but its end record: refused before it is read. */
START_TEST(huge_directory)
{
	size_t size = 17u << 20;
	uint8_t *data = calloc(size, 1);
	struct format_file file = {.data = data, .size = size};
	struct tpd_format_layout layout;

	ck_assert_ptr_nonnull(data);
	memcpy(data, "PK\3\4", 4);
	tpd_put_u32(data + size - 22, 0x06054b50);
	tpd_put_u16(data + size - 14, 60000);
	tpd_put_u16(data + size - 12, 60000);
	tpd_put_u32(data + size - 10, (uint32_t)size - 22);
	ck_assert_int_eq(tpd_format_parse("x", size, format_file_read, &file, NULL, &layout, NULL), TPD_OK);
	ck_assert_str_eq(layout.reason, "torch zip: the directory is too large");
	ck_assert_uint_lt(file.bytes_read, 70000);
	tpd_format_layout_release(&layout);
	free(data);
}
END_TEST

/* Many entries that all point to one member: it is read once, not as often as it is named. */
START_TEST(one_member_many_names)
{
	struct zip zip = {.count = 0};
	struct format_file file = {.size = 0};
	struct tpd_format_layout layout;
	unsigned n = 60000;

	add_member(&zip, "m/data.pkl", 60000, STORED);
	zip.central.len = 0;
	for (unsigned i = 0; i < n; i++) {
		char name[16];

		snprintf(name, sizeof name, "m/%06x", i);
		tpd_buf_u32(&zip.central, 0x02014b50);
		tpd_buf_u16(&zip.central, 0);
		put_common(&zip.central, name, 60000, STORED, true);
		for (int k = 0; k < 16; k++)
			tpd_buf_u8(&zip.central, 0);
		tpd_buf_put(&zip.central, name, strlen(name));
	}
	zip.count = 0;
	finish(&zip, false, "");
	tpd_put_u16(zip.file.data + zip.end_at + 8, (uint16_t)n);
	tpd_put_u16(zip.file.data + zip.end_at + 10, (uint16_t)n);
	file.data = zip.file.data;
	file.size = zip.file.len;
	ck_assert_int_eq(tpd_format_parse("x", file.size, format_file_read, &file, NULL, &layout, NULL), TPD_OK);
	ck_assert_str_eq(layout.reason, "torch zip: a local header differs from the directory");
	ck_assert_uint_lt(file.bytes_read, file.size + 70000);
	tpd_format_layout_release(&layout);
	release(&zip);
}
END_TEST

/* Seeded damage: any answer that keeps the contract, never a step outside. */
START_TEST(mutations_are_survived)
{
	struct zip zip = honest_zip(honest[_i].how, honest[_i].zip64, honest[_i].comment);
	uint8_t *copy = malloc(zip.file.len);
	uint64_t state = 1000 + (uint64_t)_i;
	unsigned opaque = 0;

	ck_assert_ptr_nonnull(copy);
	for (int i = 0; i < 4000; i++) {
		struct tpd_format_layout layout;

		memcpy(copy, zip.file.data, zip.file.len);
		damage(copy, zip.file.len, 120, &state);
		layout = parse_bytes("x", copy, zip.file.len);
		opaque += layout.kind == TPD_FORMAT_OPAQUE;
		tpd_format_layout_release(&layout);
	}
	ck_assert_uint_gt(opaque, 1000);
	ck_assert_uint_lt(opaque, 4000); /* damaged data, say, is a valid file */
	free(copy);
	release(&zip);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("torch_zip");
	TCase *tests = tcase_create("torch_zip");
	SRunner *runner = srunner_create(suite);
	int failed;

	suite_add_tcase(suite, tests);
	tcase_set_timeout(tests, 120);
	tcase_add_loop_test(tests, honest_is_understood, 0, (int)TPD_ARRAY_LEN(honest));
	tcase_add_test(tests, the_pickle_describes);
	tcase_add_test(tests, both_end_records);
	tcase_add_test(tests, directory_in_any_order);
	tcase_add_test(tests, deflated_members_are_glue);
	tcase_add_loop_test(tests, names_decide, 0, (int)TPD_ARRAY_LEN(trees));
	tcase_add_loop_test(tests, storage_names, 0, (int)TPD_ARRAY_LEN(storages));
	tcase_add_loop_test(tests, one_field, 0, (int)TPD_ARRAY_LEN(changes));
	tcase_add_test(tests, count_of_members);
	tcase_add_test(tests, unknown_method);
	tcase_add_test(tests, no_members);
	tcase_add_test(tests, around_the_zip);
	tcase_add_test(tests, truncated_anywhere);
	tcase_add_test(tests, failing_reads_end_the_parse);
	tcase_add_test(tests, huge_directory);
	tcase_add_test(tests, one_member_many_names);
	tcase_add_loop_test(tests, mutations_are_survived, 0, (int)TPD_ARRAY_LEN(honest));
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
