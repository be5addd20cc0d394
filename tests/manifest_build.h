/*
 * manifest_build.h - the bytes of an honest manifest, field by field from FORMAT.md, sharing no code with the module.
 *
 * Each field has a label; a `struct change` gives one of them another value, and the checksums are made right again.
 */
#ifndef TESTS_MANIFEST_BUILD_H
#define TESTS_MANIFEST_BUILD_H

#include "base/tpd.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/manifest.h"

#define HEADER 64

struct change {
	const char *label;
	uint64_t number;         /* the new value ... */
	const char *text;        /* ... of a string */
	enum tpd_status expect;
	bool overlong;           /* a varint with a needless byte */
};

static const struct change *change;
static unsigned applied;

static uint64_t pick(const char *label, uint64_t honest)
{
	if (!change || change->overlong || strcmp(change->label, label) != 0)
		return honest;
	applied++;
	return change->number;
}

static void u8(struct tpd_buf *out, const char *label, uint8_t v)
{
	tpd_buf_u8(out, (uint8_t)pick(label, v));
}

static void u64(struct tpd_buf *out, const char *label, uint64_t v)
{
	tpd_buf_u64(out, pick(label, v));
}

static void varint(struct tpd_buf *out, const char *label, uint64_t v)
{
	if (change && change->overlong && strcmp(change->label, label) == 0) {
		ck_assert_uint_lt(v, 128);
		tpd_buf_u8(out, (uint8_t)(v | 0x80));
		tpd_buf_u8(out, 0);
		applied++;
		return;
	}
	tpd_buf_varint(out, pick(label, v));
}

static void str(struct tpd_buf *out, const char *label, const char *honest)
{
	char len_label[64];

	snprintf(len_label, sizeof(len_label), "%s.len", label);
	if (change && change->text && strcmp(change->label, label) == 0) {
		honest = change->text;
		applied++;
	}
	varint(out, len_label, strlen(honest));
	tpd_buf_put(out, honest, strlen(honest));
}

static void fill(struct tpd_buf *out, uint8_t byte, size_t n)
{
	while (n-- > 0)
		tpd_buf_u8(out, byte);
}

/* --- the honest manifest --- */

#define SIZE 1000000u
#define T1_AT 1000u
#define T1_LEN 600000u /* F32: two chunks */
#define T2_AT 700000u
#define T2_LEN 200000u /* BF16: one chunk */
#define GLUE (SIZE - T1_LEN - T2_LEN)

static size_t build_logical(struct tpd_buf *out)
{
	size_t start = out->len;

	str(out, "run", "sweep/a");
	varint(out, "step", 300);
	u8(out, "kind", 0);
	varint(out, "entries", 5);

	str(out, "0.path", "config.json");
	u8(out, "0.type", 0);
	varint(out, "0.mode", 0644);
	varint(out, "0.size", 10);
	fill(out, 0xc0, 32);

	str(out, "1.path", "latest");
	u8(out, "1.type", 1);
	varint(out, "1.mode", 0777);
	str(out, "1.target", "model");

	str(out, "2.path", "model");
	u8(out, "2.type", 2);
	varint(out, "2.mode", 0755);

	str(out, "3.path", "model/w.safetensors");
	u8(out, "3.type", 0);
	varint(out, "3.mode", 0600);
	varint(out, "3.size", SIZE);
	fill(out, 0xc3, 32);

	str(out, "4.path", "zero.bin");
	u8(out, "4.type", 0);
	varint(out, "4.mode", 0600);
	varint(out, "4.size", 0);
	fill(out, 0xc4, 32);
	return out->len - start;
}

static void build_stats(struct tpd_buf *out, bool delta)
{
	for (uint64_t i = 0; i < 3; i++)
		varint(out, "stats.count", 100 + i);
	for (unsigned i = 0; i < 3; i++)
		tpd_buf_f64(out, -1.5 + i);
	if (!delta)
		return;
	for (uint64_t i = 0; i < 2 + 4 + 4 + 17; i++)
		varint(out, "stats.delta", 1000 * i);
	for (unsigned i = 0; i < 3; i++)
		tpd_buf_f64(out, -0.25 * i);
	varint(out, "stats.stride", 1);
	for (unsigned i = 0; i < 6; i++)
		tpd_buf_f64(out, 0.001 * i);
	varint(out, "stats.gaps", 77);
	for (unsigned i = 0; i < 3; i++)
		tpd_buf_f64(out, 4.5 + i);
}

static void build_part(struct tpd_buf *out, const char *name, uint64_t first, uint64_t chunks, uint64_t payload,
		       uint8_t digest)
{
	char label[64];

	snprintf(label, sizeof(label), "%s.first", name);
	varint(out, label, first);
	snprintf(label, sizeof(label), "%s.chunks", name);
	varint(out, label, chunks);
	snprintf(label, sizeof(label), "%s.bytes", name);
	u64(out, label, 16 + payload + 32 * chunks + 80);
	fill(out, digest, 16);
}

static unsigned version = 7; /* of the manifest that is built */

static void build_slab(struct tpd_buf *out, const char *name, const uint64_t values[8])
{
	static const char *const fields[] = {"file", "segment", "start", "ref_start", "block", "count", "stride", "ref_stride"};
	char label[64];

	for (size_t i = 0; i < (values[5] > 1 ? 8 : 6); i++) {
		snprintf(label, sizeof(label), "%s.%s", name, fields[i]);
		varint(out, label, values[i]);
	}
}

/* Of what was chosen: what another took; of segment 0 there was none. */
static void build_second(struct tpd_buf *out, const char *segment, unsigned chosen)
{
	char label[32];

	if (version < 7)
		return;
	snprintf(label, sizeof label, "%s.second.permille", segment);
	varint(out, label, strstr(segment, ".0") ? 0 : 1000 + chosen);
	snprintf(label, sizeof label, "%s.second", segment);
	if (!strstr(segment, ".0"))
		u8(out, label, 1);
}

static void build_physical(struct tpd_buf *out)
{
	u64(out, "created", 1700000000123456789u);
	str(out, "source", "/runs/sweep/a/checkpoint-300");
	for (uint64_t i = 0; i < 5; i++)
		u64(out, "mtime", 1600000000000000000u + i);
	u8(out, "ref", version < 5 ? 1 : 2);
	fill(out, 0xa1, 32);
	varint(out, "ref.step", 200);
	if (version >= 5)
		str(out, "ref.run", "base/llama");
	u8(out, "w1", 1);
	fill(out, 0xa2, 32);
	varint(out, "w1.step", 250);
	if (version >= 6) {
		u8(out, "w0", 1);
		fill(out, 0xa3, 32);
		varint(out, "w0.step", 150);
	}
	varint(out, "depth", 3);

	u8(out, "0.format", 0);
	varint(out, "0.segments", 1);
	str(out, "0.0.name", "");
	u8(out, "0.0.dtype", 0);
	varint(out, "0.0.offset", 0);
	varint(out, "0.0.length", 10);
	varint(out, "0.0.dims", 0);
	varint(out, "0.0.row", 1024);
	u8(out, "0.0.encoding", 2);
	build_second(out, "0.0", 2);
	varint(out, "0.0.stored", 9);
	u8(out, "0.0.ref", 0);
	if (version >= 4)
		u8(out, "0.0.terms", 0);
	u8(out, "0.0.stats", 0);
	varint(out, "0.parts", 1);
	build_part(out, "0.p0", 0, 1, 9, 0xd0);

	u8(out, "3.format", 1);
	varint(out, "3.segments", 3);
	str(out, "3.0.name", "");
	u8(out, "3.0.dtype", 0);
	varint(out, "3.0.offset", 0);
	varint(out, "3.0.length", GLUE);
	varint(out, "3.0.dims", 0);
	varint(out, "3.0.row", 1024);
	u8(out, "3.0.encoding", 3);
	build_second(out, "3.0", 3);
	varint(out, "3.0.stored", 1000);
	u8(out, "3.0.ref", 1);
	varint(out, "3.0.ref.file", 1);
	varint(out, "3.0.ref.segment", 0);
	varint(out, "3.0.ref.first", 0);
	varint(out, "3.0.ref.elements", GLUE);
	if (version >= 4)
		u8(out, "3.0.terms", 0);
	u8(out, "3.0.stats", 0);

	str(out, "3.1.name", "layers.0.weight");
	u8(out, "3.1.dtype", 1);
	varint(out, "3.1.offset", T1_AT);
	varint(out, "3.1.length", T1_LEN);
	varint(out, "3.1.dims", 2);
	varint(out, "3.1.dim0", 150);
	varint(out, "3.1.dim1", 1000);
	varint(out, "3.1.row", 1000);
	u8(out, "3.1.encoding", 6);
	build_second(out, "3.1", 6);
	varint(out, "3.1.stored", 3000);
	u8(out, "3.1.ref", 1);
	varint(out, "3.1.ref.file", 1);
	varint(out, "3.1.ref.segment", 1);
	varint(out, "3.1.ref.first", 0);
	varint(out, "3.1.ref.elements", T1_LEN / 4);
	if (version >= 4)
		u8(out, "3.1.terms", version >= 6 ? 3 : 1);
	if (version >= 6) {
		varint(out, "3.1.w0.file", 7);
		varint(out, "3.1.w0.segment", 9);
	}
	u8(out, "3.1.stats", 2);
	build_stats(out, true);

	str(out, "3.2.name", "lay\xc3\xa9rs.1.bias");
	u8(out, "3.2.dtype", 3);
	varint(out, "3.2.offset", T2_AT);
	varint(out, "3.2.length", T2_LEN);
	varint(out, "3.2.dims", 0);
	varint(out, "3.2.row", 8192);
	u8(out, "3.2.encoding", 4);
	build_second(out, "3.2", 4);
	varint(out, "3.2.stored", 500);
	u8(out, "3.2.ref", version < 3 ? 0 : 2);
	if (version >= 3) {
		varint(out, "3.2.slabs", 2);
		build_slab(out, "s0", (const uint64_t[8]){1, 2, 0, 70, 100, 1});
		build_slab(out, "s1", (const uint64_t[8]){0, 9, 200, 0, 50, T2_LEN / 2 / 100 - 2, 100, 60});
	}
	if (version >= 4)
		u8(out, "3.2.terms", 0);
	u8(out, "3.2.stats", 1);
	build_stats(out, false);
	varint(out, "3.parts", 2);
	build_part(out, "3.p0", 0, 2, 2500, 0xd1);
	build_part(out, "3.p1", 2, 2, 2000, 0xd2);

	u8(out, "4.format", 0);
	varint(out, "4.segments", 1);
	str(out, "4.0.name", "");
	u8(out, "4.0.dtype", 0);
	varint(out, "4.0.offset", 0);
	varint(out, "4.0.length", 0);
	varint(out, "4.0.dims", 0);
	varint(out, "4.0.row", 1);
	u8(out, "4.0.encoding", 0);
	build_second(out, "4.0", 0);
	varint(out, "4.0.stored", 0);
	u8(out, "4.0.ref", 0);
	if (version >= 4)
		u8(out, "4.0.terms", 0);
	u8(out, "4.0.stats", 0);
	varint(out, "4.parts", 0);
}

static void build_tie(struct tpd_buf *out, const char *name, uint8_t kind, uint64_t state, uint64_t owner, uint64_t elements,
		      uint8_t checked)
{
	static const char *const fields[] = {"state.file",    "state.segment", "state.first", "owner.file",
					     "owner.segment", "owner.first",   "elements"};
	const uint64_t values[] = {1, 1, state, 1, 2, owner, elements};
	char label[64];

	snprintf(label, sizeof(label), "%s.kind", name);
	u8(out, label, kind);
	for (size_t i = 0; i < TPD_ARRAY_LEN(values); i++) {
		snprintf(label, sizeof(label), "%s.%s", name, fields[i]);
		varint(out, label, values[i]);
	}
	snprintf(label, sizeof(label), "%s.checked", name);
	u8(out, label, checked);
}

/* Of elements of tensors 1 and 2 of the second file; not in version 1. */
static void build_ties(struct tpd_buf *out)
{
	varint(out, "ties", 2);
	build_tie(out, "t0", 5, 0, 10, 1000, 1);
	build_tie(out, "t1", 1, 1000, 5000, T2_LEN / 2 - 5000, 0);
}

static struct tpd_buf build_body(size_t *out_logical)
{
	struct tpd_buf out = {0};

	*out_logical = build_logical(&out);
	build_physical(&out);
	if (version >= 2)
		build_ties(&out);
	ck_assert_int_eq(tpd_buf_status(&out, NULL), TPD_OK);
	return out;
}

static void reseal(struct tpd_buf *object)
{
	tpd_xxh128(object->data + HEADER, object->len - HEADER, object->data + 32);
	tpd_xxh128(object->data, 48, object->data + 48);
}

static struct tpd_buf wrap(const uint8_t *body, size_t len)
{
	struct tpd_buf out = {0};
	uint8_t *frame = NULL;
	size_t frame_len = 0;

	ck_assert_int_eq(tpd_zstd_pack(body, len, &frame, &frame_len, NULL), TPD_OK);
	tpd_buf_put(&out, "TPDMANI1", 8);
	tpd_buf_u32(&out, version);
	tpd_buf_u32(&out, 0);
	tpd_buf_u64(&out, frame_len);
	tpd_buf_u64(&out, len);
	fill(&out, 0, 32);
	tpd_buf_put(&out, frame, frame_len);
	free(frame);
	reseal(&out);
	return out;
}

static enum tpd_status parse(const uint8_t *data, size_t len, struct tpd_manifest *out)
{
	struct tpd_err err = {0};
	uint8_t *exact = malloc(len ? len : 1); /* so that a sanitizer sees a read behind the end */
	enum tpd_status status;

	ck_assert_ptr_nonnull(exact);
	memcpy(exact, data, len);
	status = tpd_manifest_parse(exact, len, TPD_MANIFEST_ALL, out, &err);
	free(exact);
	ck_assert_int_eq(err.status, status);
	ck_assert(status == TPD_OK || strlen(err.text) > 10);
	return status;
}

/* Parse and forget. */
static TPD_UNUSED enum tpd_status verdict(const uint8_t *data, size_t len)
{
	struct tpd_manifest m = {0};
	enum tpd_status status = parse(data, len, &m);

	tpd_manifest_release(&m);
	return status;
}

static TPD_UNUSED enum tpd_status body_verdict(const uint8_t *body, size_t len)
{
	struct tpd_buf object = wrap(body, len);
	enum tpd_status status = verdict(object.data, object.len);

	tpd_buf_release(&object);
	return status;
}

static TPD_UNUSED struct tpd_buf honest_object(void)
{
	size_t logical;
	struct tpd_buf body = build_body(&logical), object = wrap(body.data, body.len);

	tpd_buf_release(&body);
	return object;
}

#endif
