/*
 * zip_build.h - builds zips as torch.save() and others build them, for tests: where each part lies is kept, so that a
 * test can change one field of it.
 */
#ifndef TPD_TESTS_ZIP_BUILD_H
#define TPD_TESTS_ZIP_BUILD_H

#include "base/tpd.h"

#include <check.h>
#include <string.h>

#include "base/bytes.h"

#define MEMBERS_MAX 16

struct zip {
	struct tpd_buf file, central;
	uint64_t local_at[MEMBERS_MAX], data_at[MEMBERS_MAX]; /* in the file */
	uint64_t central_at[MEMBERS_MAX];                     /* in the directory; in the file once it is finished */
	uint64_t locator_at, end64_at, end_at;                /* once it is finished */
	unsigned count;
};

enum how {
	STORED = 0,
	DEFLATED = 1 << 0,
	DESCRIPTOR = 1 << 1, /* sizes 0 in the local header, and after the data */
	WIDE = 1 << 2,       /* sizes and place in zip64 fields, although they would fit */
	ALIGNED = 1 << 3,    /* as torch does: an extra field "FB" until the data is at a multiple of 64 */
};

static void put_local_extra(struct zip *zip, size_t len, enum how how)
{
	if (how & WIDE) {
		tpd_buf_u16(&zip->file, 1);
		tpd_buf_u16(&zip->file, 16);
		tpd_buf_u64(&zip->file, len);
		tpd_buf_u64(&zip->file, len);
	}
	if (how & ALIGNED) {
		size_t pad = 64 - (zip->file.len + 4) % 64;

		tpd_buf_u16(&zip->file, 0x4246);
		tpd_buf_u16(&zip->file, (uint16_t)pad);
		for (size_t i = 0; i < pad; i++)
			tpd_buf_u8(&zip->file, 'Z');
	}
}

/* The fields that local and central headers share, from "version needed" to the name's length. */
static void put_common(struct tpd_buf *buf, const char *name, size_t len, enum how how, bool sizes)
{
	uint32_t size = how & WIDE ? 0xffffffff : sizes ? (uint32_t)len : 0;

	tpd_buf_u16(buf, how & WIDE ? 45 : 20);
	tpd_buf_u16(buf, how & DESCRIPTOR ? 0x0808 : 0x0800);
	tpd_buf_u16(buf, how & DEFLATED ? 8 : 0);
	tpd_buf_u32(buf, 0);          /* time and date */
	tpd_buf_u32(buf, 0xdeadbeef); /* a CRC that is not the data's: nobody may mind */
	tpd_buf_u32(buf, size);
	tpd_buf_u32(buf, size);
	tpd_buf_u16(buf, (uint16_t)strlen(name));
}

static void add_bytes(struct zip *zip, const char *name, const void *bytes, size_t len, enum how how)
{
	uint64_t at = zip->file.len, extra_at;

	ck_assert_uint_lt(zip->count, MEMBERS_MAX);
	zip->local_at[zip->count] = at;
	tpd_buf_u32(&zip->file, 0x04034b50);
	put_common(&zip->file, name, len, how, !(how & DESCRIPTOR));
	extra_at = zip->file.len;
	tpd_buf_u16(&zip->file, 0);
	tpd_buf_put(&zip->file, name, strlen(name));
	put_local_extra(zip, len, how);
	zip->data_at[zip->count] = zip->file.len;
	tpd_put_u16(zip->file.data + extra_at, (uint16_t)(zip->file.len - extra_at - 2 - strlen(name)));
	tpd_buf_put(&zip->file, bytes, len);
	if (how & DESCRIPTOR) {
		tpd_buf_u32(&zip->file, 0x08074b50);
		tpd_buf_u32(&zip->file, 0xdeadbeef);
		tpd_buf_u32(&zip->file, (uint32_t)len);
		tpd_buf_u32(&zip->file, (uint32_t)len);
	}

	zip->central_at[zip->count++] = zip->central.len;
	tpd_buf_u32(&zip->central, 0x02014b50);
	tpd_buf_u16(&zip->central, 0);
	put_common(&zip->central, name, len, how, true);
	tpd_buf_u16(&zip->central, how & WIDE ? 28 : 0); /* extra, comment, disk, attributes */
	tpd_buf_u16(&zip->central, 0);
	tpd_buf_u16(&zip->central, 0);
	tpd_buf_u16(&zip->central, 0);
	tpd_buf_u32(&zip->central, 0);
	tpd_buf_u32(&zip->central, how & WIDE ? 0xffffffff : (uint32_t)at);
	tpd_buf_put(&zip->central, name, strlen(name));
	if (how & WIDE) {
		tpd_buf_u16(&zip->central, 1);
		tpd_buf_u16(&zip->central, 24);
		tpd_buf_u64(&zip->central, len);
		tpd_buf_u64(&zip->central, len);
		tpd_buf_u64(&zip->central, at);
	}
}

/* A member of len bytes that mean nothing. */
TPD_UNUSED static void add_member(struct zip *zip, const char *name, size_t len, enum how how)
{
	struct tpd_buf bytes = {0};

	for (size_t i = 0; i < len; i++)
		tpd_buf_u8(&bytes, (uint8_t)(i * 13 + 1));
	add_bytes(zip, name, bytes.data, len, how);
	tpd_buf_release(&bytes);
}

/* The directory and the end records. */
static void finish(struct zip *zip, bool zip64, const char *comment)
{
	uint64_t at = zip->file.len;

	tpd_buf_put(&zip->file, zip->central.data, zip->central.len);
	for (unsigned i = 0; i < zip->count; i++)
		zip->central_at[i] += at;
	zip->end64_at = zip->file.len;
	if (zip64) {
		tpd_buf_u32(&zip->file, 0x06064b50);
		tpd_buf_u64(&zip->file, 44);
		tpd_buf_u32(&zip->file, 0x002d031e);
		tpd_buf_u32(&zip->file, 0);
		tpd_buf_u32(&zip->file, 0);
		tpd_buf_u64(&zip->file, zip->count);
		tpd_buf_u64(&zip->file, zip->count);
		tpd_buf_u64(&zip->file, zip->central.len);
		tpd_buf_u64(&zip->file, at);
		zip->locator_at = zip->file.len;
		tpd_buf_u32(&zip->file, 0x07064b50);
		tpd_buf_u32(&zip->file, 0);
		tpd_buf_u64(&zip->file, zip->end64_at);
		tpd_buf_u32(&zip->file, 1);
	}
	zip->end_at = zip->file.len;
	tpd_buf_u32(&zip->file, 0x06054b50);
	tpd_buf_u32(&zip->file, 0);
	tpd_buf_u16(&zip->file, zip64 ? 0xffff : (uint16_t)zip->count);
	tpd_buf_u16(&zip->file, zip64 ? 0xffff : (uint16_t)zip->count);
	tpd_buf_u32(&zip->file, zip64 ? 0xffffffff : (uint32_t)zip->central.len);
	tpd_buf_u32(&zip->file, zip64 ? 0xffffffff : (uint32_t)at);
	tpd_buf_u16(&zip->file, (uint16_t)strlen(comment));
	tpd_buf_put(&zip->file, comment, strlen(comment));
	ck_assert_int_eq(tpd_buf_status(&zip->file, NULL), TPD_OK);
	tpd_buf_release(&zip->central);
}

#endif
