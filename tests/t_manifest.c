/*
 * t_manifest.c - manifests: round trips, every rule of the format broken one at a time, truncation.
 */
#include "base/tpd.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "manifest_build.h"
#include "store/manifest.h"

START_TEST(honest_values)
{
	size_t logical;
	struct tpd_buf body = build_body(&logical), object = wrap(body.data, body.len);
	struct tpd_manifest m = {0};
	const struct tpd_entry *w;
	uint8_t id[32];
	char hex[TPD_ID_HEX];

	ck_assert_int_eq(parse(object.data, object.len, &m), TPD_OK);
	ck_assert_str_eq(m.run, "sweep/a");
	ck_assert_uint_eq(m.step, 300);
	ck_assert_int_eq(m.kind, TPD_CHECKPOINT_DIR);
	ck_assert_int_eq(m.created_ns, 1700000000123456789);
	ck_assert_str_eq(m.source, "/runs/sweep/a/checkpoint-300");
	ck_assert(m.has_ref && m.has_w1);
	ck_assert_uint_eq(m.ref.bytes[31], 0xa1);
	ck_assert_uint_eq(m.w1.bytes[0], 0xa2);
	ck_assert_uint_eq(m.ref_step, 200);
	ck_assert_str_eq(m.ref_run, "base/llama");
	ck_assert_uint_eq(m.w1_step, 250);
	ck_assert_uint_eq(m.depth, 3);
	ck_assert_uint_eq(m.entry_count, 5);
	ck_assert_uint_eq(m.file_count, 3);
	ck_assert_uint_eq(m.files[1], 3);
	ck_assert_str_eq(m.entries[1].target, "model");
	ck_assert_int_eq(m.entries[2].type, TPD_ENTRY_DIR);
	ck_assert_int_eq(m.entries[4].mtime_ns, 1600000000000000004);
	w = &m.entries[3];
	ck_assert_uint_eq(w->mode, 0600);
	ck_assert_uint_eq(w->size, SIZE);
	ck_assert_uint_eq(w->sha256[5], 0xc3);
	ck_assert_int_eq(w->format, TPD_FORMAT_SAFETENSORS);
	ck_assert_uint_eq(w->segment_count, 3);
	ck_assert_str_eq(w->about[1].name, "layers.0.weight");
	ck_assert_uint_eq(w->about[1].dims[1], 1000);
	ck_assert_int_eq(w->about[1].planned, TPD_ENCODING_GRID);
	ck_assert_int_eq(w->about[1].second, 1);
	ck_assert_uint_eq(w->about[1].second_permille, 1006);
	ck_assert_uint_eq(w->about[0].second_permille, 0);
	ck_assert_uint_eq(w->segments[1].ref_segment, 1);
	ck_assert(w->segments[2].has_ref && w->segments[2].in_slabs && !w->segments[1].in_slabs);
	ck_assert_uint_eq(w->segments[2].ref_segment, 2);
	ck_assert_uint_eq(w->slab_count, 2);
	ck_assert_uint_eq(w->slabs[0].ref_start, 70);
	ck_assert_uint_eq(w->slabs[0].stride, 0);
	ck_assert_uint_eq(w->slabs[1].segment, 9);
	ck_assert_uint_eq(w->slabs[1].count, T2_LEN / 2 / 100 - 2);
	ck_assert_uint_eq(w->slabs[1].ref_stride, 60);
	ck_assert_uint_eq(w->predictor_count, 1);
	ck_assert_uint_eq(w->predictors[0].segment, 1);
	ck_assert_uint_eq(w->predictors[0].terms, TPD_TERM_DECAY | TPD_TERM_STEP);
	ck_assert_uint_eq(w->predictors[0].w0_file, 7);
	ck_assert_uint_eq(w->predictors[0].w0_segment, 9);
	ck_assert(m.has_earlier);
	ck_assert_uint_eq(m.earlier.bytes[31], 0xa3);
	ck_assert_uint_eq(m.earlier_step, 150);
	ck_assert(w->about[1].stats && w->about[1].stats->has_delta);
	ck_assert_uint_eq(w->about[1].stats->ulps[16], 26000);
	ck_assert_double_eq(w->about[1].stats->percentile[5], 0.005);
	ck_assert_double_eq(w->about[1].stats->gap_entropy, 6.5);
	ck_assert(w->about[2].stats && !w->about[2].stats->has_delta);
	ck_assert_uint_eq(w->segments[0].first_chunk, 0);
	ck_assert_uint_eq(w->segments[1].first_chunk, 1);
	ck_assert_uint_eq(w->segments[2].first_chunk, 3);
	ck_assert_uint_eq(tpd_entry_chunks(w), 4);
	ck_assert_uint_eq(w->parts[1].first_chunk, 2);
	ck_assert_uint_eq(w->parts[1].trailer_digest[15], 0xd2);
	ck_assert_uint_eq(tpd_manifest_size(&m), SIZE + 10);
	ck_assert_uint_eq(tpd_manifest_stored(&m), 3 * 96 + 5 * 32 + 4509);

	/* The id, counted by hand. */
	{
		struct tpd_buf named = {0};

		tpd_buf_put(&named, "tpd-checkpoint-1", 17);
		tpd_buf_put(&named, body.data, logical);
		tpd_sha256_once(named.data, named.len, id);
		tpd_buf_release(&named);
	}
	ck_assert_mem_eq(m.id.bytes, id, sizeof(id));
	tpd_id_hex(&m.id, hex);
	ck_assert_uint_eq(strlen(hex), 64);

	/* Written again it is the same bytes. */
	{
		struct tpd_buf again = {0};
		struct tpd_id before = m.id;

		ck_assert_int_eq(tpd_manifest_seal(&m, NULL), TPD_OK);
		ck_assert(tpd_id_equal(&before, &m.id));
		ck_assert_int_eq(tpd_manifest_write(&m, &again, NULL), TPD_OK);
		ck_assert_uint_eq(again.len, object.len);
		ck_assert_mem_eq(again.data, object.data, object.len);
		tpd_buf_release(&again);
	}
	tpd_manifest_release(&m);
	ck_assert_ptr_null(m.entries);
	tpd_buf_release(&body);
	tpd_buf_release(&object);
}
END_TEST

#define C TPD_CORRUPT
#define U TPD_UNSUPPORTED
static const struct change changes[] = {
	/* harmless ones: the builder's labels work, and what is for people is free */
	{.label = "step", .number = UINT64_MAX, .expect = TPD_OK},
	{.label = "created", .number = UINT64_MAX, .expect = TPD_OK},
	{.label = "source", .text = "", .expect = TPD_OK},
	{.label = "0.mode", .number = 07777, .expect = TPD_OK},
	{.label = "3.1.name", .text = "", .expect = TPD_OK},
	{.label = "3.1.ref.segment", .number = 7, .expect = TPD_OK}, /* another manifest's business */
	{.label = "3.2.row", .number = 1, .expect = TPD_OK},
	/* logical section */
	{.label = "run", .text = "a@b", .expect = C},
	{.label = "run", .text = "", .expect = C},
	{.label = "run", .text = "../a", .expect = C},
	{.label = "run.len", .number = UINT64_MAX, .expect = C},
	{.label = "run.len", .overlong = true, .expect = C},
	{.label = "kind", .number = 1, .expect = C}, /* five entries in a single file */
	{.label = "kind", .number = 2, .expect = U},
	{.label = "entries", .number = 1u << 30, .expect = C},
	{.label = "entries", .number = UINT64_MAX, .expect = C},
	{.label = "0.path", .text = "zzz", .expect = C}, /* order */
	{.label = "0.path", .text = "latest", .expect = C}, /* twice */
	{.label = "0.path", .text = "", .expect = C},
	{.label = "0.path", .text = "/etc/passwd", .expect = C},
	{.label = "0.path", .text = "../x", .expect = C},
	{.label = "0.path", .text = "a/../../x", .expect = C},
	{.label = "0.path", .text = "a/./x", .expect = C},
	{.label = "0.path", .text = "a//x", .expect = C},
	{.label = "0.path", .text = "a/", .expect = C},
	{.label = "0.path", .text = "a\xff", .expect = C},
	{.label = "0.path", .text = "a\xc0\x80", .expect = C},
	{.label = "0.type", .number = 3, .expect = U},
	{.label = "1.type", .number = 255, .expect = U},
	{.label = "0.mode", .number = 010000, .expect = C},
	{.label = "2.mode", .number = 1ull << 40, .expect = C},
	{.label = "0.mode", .number = UINT64_MAX, .expect = C},
	{.label = "2.mode", .number = 0100755, .expect = C},
	{.label = "0.size", .number = 11, .expect = C},
	{.label = "3.size", .number = SIZE - 1, .expect = C},
	{.label = "3.size", .number = UINT64_MAX, .expect = C},
	{.label = "4.size", .number = 1, .expect = C},
	{.label = "1.target", .text = "", .expect = C},
	{.label = "1.target", .text = "\xed\xa0\x80", .expect = C},
	/* physical section */
	{.label = "source", .text = "/a\xfe", .expect = C},
	{.label = "source.len", .number = 1u << 20, .expect = C},
	{.label = "ref", .number = 3, .expect = U},
	{.label = "ref", .number = 1, .expect = U}, /* then the name that follows is read as w1, of a kind 10 */
	{.label = "ref.run", .text = "b", .expect = TPD_OK},
	{.label = "ref.run", .text = "sweep/a", .expect = C}, /* this one */
	{.label = "ref.run", .text = "", .expect = C},
	{.label = "ref.run", .text = "a@b", .expect = C},
	{.label = "ref.run", .text = "a/../b", .expect = C},
	{.label = "ref.run.len", .number = UINT64_MAX, .expect = C},
	{.label = "ref.run.len", .number = 5000, .expect = C},
	{.label = "ref.run.len", .overlong = true, .expect = C},
	{.label = "w1", .number = 2, .expect = U},
	{.label = "depth", .number = 0, .expect = C},
	{.label = "depth", .number = 1ull << 32, .expect = C},
	{.label = "depth", .overlong = true, .expect = C},
	{.label = "3.format", .number = TPD_FORMAT_KINDS, .expect = U},
	{.label = "3.segments", .number = 0, .expect = C},
	{.label = "3.segments", .number = 1u << 30, .expect = C},
	{.label = "3.0.name", .text = "glue", .expect = C},
	{.label = "3.1.name", .text = "a\x80", .expect = C},
	{.label = "3.1.dtype", .number = TPD_DTYPE_COUNT, .expect = U},
	{.label = "3.1.dtype", .number = TPD_DTYPE_BF16, .expect = C}, /* other elements than the reference's */
	{.label = "3.2.dtype", .number = TPD_DTYPE_U8, .expect = C},   /* two chunks */
	{.label = "3.0.offset", .number = 1, .expect = C},
	{.label = "3.1.offset", .number = SIZE, .expect = C},
	{.label = "3.1.offset", .number = UINT64_MAX, .expect = C},
	{.label = "3.1.offset", .number = T2_AT - T1_LEN + 1, .expect = C}, /* one byte into the next */
	{.label = "3.1.offset", .number = T2_AT - T1_LEN, .expect = TPD_OK},
	{.label = "3.2.offset", .number = T1_AT - 10, .expect = C}, /* descending */
	{.label = "3.2.offset", .number = T1_AT, .expect = C},
	{.label = "3.2.offset", .number = SIZE - T2_LEN + 1, .expect = C},
	{.label = "3.0.length", .number = GLUE - 1, .expect = C},
	{.label = "3.1.length", .number = T1_LEN + 4, .expect = C},
	{.label = "3.2.length", .number = T2_LEN - 2, .expect = C},
	{.label = "3.2.length", .number = UINT64_MAX - 5, .expect = C},
	{.label = "3.1.dims", .number = 9, .expect = C},
	{.label = "3.2.dims", .number = UINT64_MAX, .expect = C},
	{.label = "3.1.row", .number = 0, .expect = C},
	{.label = "3.1.row", .number = 8193, .expect = C},
	{.label = "3.1.encoding", .number = TPD_ENCODING_COUNT, .expect = U},
	{.label = "3.1.encoding", .number = 77, .expect = U}, /* nobody's */
	{.label = "3.1.second", .number = TPD_ENCODING_COUNT, .expect = U},
	{.label = "3.1.second", .number = 77, .expect = U},
	{.label = "3.1.second.permille", .number = TPD_SECOND_MAX, .expect = TPD_OK},
	{.label = "3.1.second.permille", .number = TPD_SECOND_MAX + 1, .expect = C},
	{.label = "3.1.stored", .number = 3001, .expect = C},
	{.label = "3.1.stored", .number = UINT64_MAX - 1000, .expect = C},
	{.label = "0.0.stored", .number = 8, .expect = C},
	{.label = "3.1.ref", .number = 5, .expect = U},
	{.label = "3.2.ref", .number = 4, .expect = TPD_OK}, /* whether they are of another type is that manifest's business */
	{.label = "3.2.dtype", .number = 5, .expect = C},     /* integers have no other */
	{.label = "3.1.ref.file", .number = 1ull << 32, .expect = C},
	{.label = "3.1.ref.first", .number = 1, .expect = U},
	{.label = "3.1.ref.elements", .number = T1_LEN / 4 - 1, .expect = C},
	{.label = "3.2.slabs", .number = 0, .expect = C},
	{.label = "3.2.slabs", .number = 1, .expect = U},
	{.label = "3.2.slabs", .number = 257, .expect = C},
	{.label = "3.2.slabs", .number = UINT64_MAX, .expect = C},
	{.label = "s0.file", .number = 77, .expect = TPD_OK}, /* another manifest's business */
	{.label = "s0.file", .number = 1ull << 32, .expect = C},
	{.label = "s0.segment", .number = 77, .expect = TPD_OK},
	{.label = "s0.segment", .overlong = true, .expect = C},
	{.label = "s0.start", .number = T2_LEN / 2 - 100, .expect = TPD_OK},
	{.label = "s0.start", .number = T2_LEN / 2 - 99, .expect = C},
	{.label = "s0.start", .number = UINT64_MAX, .expect = C},
	{.label = "s0.ref_start", .number = UINT64_MAX - 100, .expect = TPD_OK},
	{.label = "s0.ref_start", .number = UINT64_MAX - 99, .expect = C},
	{.label = "s0.block", .number = 0, .expect = C},
	{.label = "s0.block", .number = T2_LEN / 2 + 1, .expect = C},
	{.label = "s0.block", .number = UINT64_MAX, .expect = C},
	{.label = "s0.count", .number = 0, .expect = C},
	{.label = "s0.block", .number = T2_LEN / 2, .expect = TPD_OK}, /* what the other names, too */
	{.label = "s1.block", .number = 8, .expect = TPD_OK},
	{.label = "s1.block", .number = 7, .expect = C},
	{.label = "s1.count", .number = T2_LEN / 2 / 100 - 1, .expect = C},
	{.label = "s1.count", .number = UINT64_MAX, .expect = C},
	{.label = "s1.stride", .number = 49, .expect = C}, /* less than a block */
	{.label = "s1.stride", .number = 50, .expect = TPD_OK},
	{.label = "s1.stride", .number = 101, .expect = C},
	{.label = "s1.ref_stride", .number = 49, .expect = C},
	{.label = "s1.ref_stride", .number = UINT64_MAX / 2, .expect = C},
	{.label = "w0", .number = 2, .expect = U},
	{.label = "w0", .number = 0, .expect = C}, /* and yet its id */
	{.label = "w0.step", .number = 1, .expect = TPD_OK},
	{.label = "3.1.terms", .number = 64, .expect = U},
	{.label = "3.1.terms", .number = 2, .expect = TPD_OK},
	{.label = "3.1.w0.file", .number = 1ull << 32, .expect = C},
	{.label = "3.1.w0.segment", .number = 1ull << 32, .expect = C},
	{.label = "3.1.w0.segment", .number = 77, .expect = TPD_OK}, /* another manifest's business */
	{.label = "3.2.terms", .number = 1, .expect = C}, /* not F32 */
	{.label = "0.0.terms", .number = 1, .expect = C}, /* without a reference */
	{.label = "3.1.stats", .number = 3, .expect = U},
	{.label = "stats.stride", .number = 1ull << 32, .expect = C},
	{.label = "3.parts", .number = 1u << 20, .expect = C},
	{.label = "3.p0.first", .number = 1, .expect = C},
	{.label = "3.p1.first", .number = 1, .expect = C},
	{.label = "3.p1.first", .number = 3, .expect = C},
	{.label = "3.p0.chunks", .number = 0, .expect = C},
	{.label = "3.p0.chunks", .number = 1, .expect = C},
	{.label = "3.p0.chunks", .number = 3, .expect = C},
	{.label = "3.p1.chunks", .number = 1, .expect = C},
	{.label = "3.p1.chunks", .number = UINT64_MAX, .expect = C},
	{.label = "3.p0.bytes", .number = 96 + 2 * 32 + 2499, .expect = C},
	{.label = "3.p0.bytes", .number = 96 + 2 * 32 - 1, .expect = C},
	{.label = "3.p0.bytes", .number = UINT64_MAX, .expect = C},
	{.label = "4.parts", .overlong = true, .expect = C},
	{.label = "ties", .number = 1, .expect = C}, /* and something behind it */
	{.label = "ties", .number = 3, .expect = C},
	{.label = "ties", .number = UINT32_MAX, .expect = C},
	{.label = "t0.kind", .number = 0, .expect = C},
	{.label = "t0.kind", .number = TPD_STATE_KINDS, .expect = U},
	{.label = "t0.state.file", .number = 2, .expect = C}, /* an empty file */
	{.label = "t0.state.file", .number = 3, .expect = C},
	{.label = "t0.state.file", .number = 1ull << 32, .expect = C},
	{.label = "t0.state.segment", .number = 0, .expect = C}, /* glue */
	{.label = "t0.state.segment", .number = 2, .expect = C}, /* its own owner, and descending */
	{.label = "t0.state.segment", .number = 3, .expect = C},
	{.label = "t0.owner.segment", .number = 0, .expect = C},
	{.label = "t0.owner.segment", .number = 1, .expect = C},
	{.label = "t0.state.first", .number = 1, .expect = C}, /* one element into the next tie */
	{.label = "t0.state.first", .number = UINT64_MAX, .expect = C},
	{.label = "t1.state.first", .number = 999, .expect = C},
	{.label = "t1.state.first", .number = T1_LEN / 4 - T2_LEN / 2 + 5000, .expect = TPD_OK},
	{.label = "t1.state.first", .number = T1_LEN / 4 - T2_LEN / 2 + 5001, .expect = C},
	{.label = "t1.owner.first", .number = 5001, .expect = C},
	{.label = "t0.elements", .number = 0, .expect = C},
	{.label = "t0.elements", .number = UINT64_MAX, .expect = C},
	{.label = "t0.owner.first", .overlong = true, .expect = C},
	{.label = "t0.checked", .number = 2, .expect = U},
};

START_TEST(one_field_changed)
{
	size_t logical;
	struct tpd_buf body;
	struct tpd_err err = {0};
	struct tpd_buf object;
	struct tpd_manifest m = {0};
	enum tpd_status status;

	change = &changes[_i];
	body = build_body(&logical);
	ck_assert_msg(applied > 0, "no field '%s'", change->label);
	object = wrap(body.data, body.len);
	status = tpd_manifest_parse(object.data, object.len, TPD_MANIFEST_ALL, &m, &err);
	ck_assert_msg(status == change->expect, "'%s' = %llu '%s': %s (%s), not %s", change->label,
		      (unsigned long long)change->number, change->text ? change->text : "", tpd_status_name(status),
		      err.text, tpd_status_name(change->expect));
	tpd_manifest_release(&m);
	ck_assert_int_eq(tpd_manifest_parse(object.data, object.len, TPD_MANIFEST_SEGMENTS, &m, NULL), change->expect);
	tpd_manifest_release(&m);
	tpd_buf_release(&body);
	tpd_buf_release(&object);
}
END_TEST

/* Rules about two fields at once need a builder that is told so: here by patching the parsed manifest's own bytes. */
START_TEST(fields_that_belong_together)
{
	struct tpd_buf object = honest_object(), again = {0};
	struct tpd_manifest m = {0};

	ck_assert_int_eq(parse(object.data, object.len, &m), TPD_OK);
	m.has_ref = false;
	m.depth = 0;
	ck_assert_int_eq(tpd_manifest_write(&m, &again, NULL), TPD_USAGE); /* segments still have one */
	for (uint32_t s = 0; s < 3; s++)
		m.entries[3].segments[s].has_ref = false;
	ck_assert_int_eq(tpd_manifest_write(&m, &again, NULL), TPD_USAGE); /* and one is to be predicted */
	m.entries[3].predictor_count = 0;
	ck_assert_int_eq(tpd_manifest_write(&m, &again, NULL), TPD_USAGE); /* and another run is named */
	free(m.ref_run);
	m.ref_run = NULL;
	ck_assert_int_eq(tpd_manifest_write(&m, &again, NULL), TPD_USAGE); /* and what was before it */
	m.has_earlier = false;
	ck_assert_int_eq(tpd_manifest_write(&m, &again, NULL), TPD_OK);
	ck_assert_int_eq(verdict(again.data, again.len), TPD_OK);
	m.has_w1 = false;
	ck_assert_int_eq(tpd_manifest_write(&m, &again, NULL), TPD_USAGE); /* statistics against it */
	m.entries[3].about[1].stats->has_delta = false;
	tpd_buf_release(&again);
	ck_assert_int_eq(tpd_manifest_write(&m, &again, NULL), TPD_OK);
	ck_assert_int_eq(verdict(again.data, again.len), TPD_OK);
	tpd_buf_release(&again);
	m.has_w1 = true;
	m.depth = 1;
	ck_assert_int_eq(tpd_manifest_write(&m, &again, NULL), TPD_USAGE);
	m.depth = 0;
	ck_assert_int_eq(tpd_manifest_write(&m, &again, NULL), TPD_OK);
	tpd_manifest_release(&m);
	tpd_buf_release(&again);
	tpd_buf_release(&object);
}
END_TEST

/* Nothing is what an empty tensor would have in a chunk, and readers ask for the first chunk of every tensor. */
START_TEST(no_tensor_is_empty)
{
	struct tpd_buf object = honest_object(), again = {0};
	struct tpd_manifest m = {0};
	struct tpd_entry *entry;
	struct tpd_err err = {0};

	ck_assert_int_eq(parse(object.data, object.len, &m), TPD_OK);
	entry = &m.entries[3];
	entry->segments[2].has_ref = false;
	m.tie_count = 0;
	for (uint64_t length = 0; length <= 2; length += 2) {
		entry->segments[0].length = GLUE + T2_LEN - length;
		entry->segments[2].length = length;
		entry->part_count = 1;
		entry->parts[0].chunks = tpd_entry_chunks(entry);
		entry->parts[0].bytes = 96 + 32 * entry->parts[0].chunks + 4500;
		ck_assert_int_eq(tpd_manifest_write(&m, &again, &err), length ? TPD_OK : TPD_USAGE);
		ck_assert(length || strstr(err.text, "segment 2 is empty"));
	}
	tpd_manifest_release(&m);
	tpd_buf_release(&again);
	tpd_buf_release(&object);
}
END_TEST

START_TEST(sealing_refuses)
{
	struct tpd_buf object = honest_object();
	struct tpd_manifest m = {0};
	struct tpd_err err = {0};
	char *path;

	ck_assert_int_eq(parse(object.data, object.len, &m), TPD_OK);
	path = m.entries[0].path;
	m.entries[0].path = m.entries[1].path;
	m.entries[1].path = path;
	ck_assert_int_eq(tpd_manifest_seal(&m, &err), TPD_USAGE);
	ck_assert_str_eq(err.text, "manifest: 'latest' and 'config.json' are not in ascending order");
	m.entries[1].path = m.entries[0].path;
	m.entries[0].path = path;
	m.entries[3].mode = 0100644; /* a whole st_mode */
	ck_assert_int_eq(tpd_manifest_seal(&m, NULL), TPD_USAGE);
	m.entries[3].mode = 0644;
	ck_assert_int_eq(tpd_manifest_seal(&m, NULL), TPD_OK);
	tpd_manifest_release(&m);
	tpd_buf_release(&object);
}
END_TEST

START_TEST(a_single_file)
{
	struct tpd_buf out = {0};
	struct tpd_manifest m = {.run = strdup("r"), .source = strdup("/m.ckpt"),
				 .kind = TPD_CHECKPOINT_FILE}, back = {0};

	m.entries = calloc(1, sizeof(*m.entries));
	m.entry_count = 1;
	m.entries[0] = (struct tpd_entry){.path = strdup("m.ckpt"), .type = TPD_ENTRY_FILE, .mode = 0644};
	m.entries[0].segments = calloc(1, sizeof(*m.entries[0].segments));
	m.entries[0].segment_count = 1;
	m.entries[0].about = calloc(1, sizeof(struct tpd_segment_about));
	m.entries[0].about[0] = (struct tpd_segment_about){.name = strdup(""), .row = 1};
	ck_assert_int_eq(tpd_manifest_seal(&m, NULL), TPD_OK);
	ck_assert_int_eq(tpd_manifest_write(&m, &out, NULL), TPD_OK);
	ck_assert_int_eq(parse(out.data, out.len, &back), TPD_OK);
	ck_assert_int_eq(back.kind, TPD_CHECKPOINT_FILE);
	m.entries[0].type = TPD_ENTRY_DIR;
	ck_assert_int_eq(tpd_manifest_seal(&m, NULL), TPD_USAGE);
	m.entries[0].type = TPD_ENTRY_FILE;
	tpd_manifest_release(&m);
	tpd_manifest_release(&back);
	tpd_buf_release(&out);
}
END_TEST

/* --- the header --- */

struct header_change {
	size_t at, width;
	uint64_t value;
	bool sealed;
	enum tpd_status expect;
};

static const struct header_change header_changes[] = {
	{0, 1, 'X', true, C},
	{7, 1, '2', true, C},
	{8, 4, 8, true, U},
	{8, 4, 8, false, C}, /* a flipped bit is no newer version */
	{8, 4, 0, true, C},
	{12, 4, 1, true, U},
	{12, 4, 1, false, C},
	{16, 8, 0, true, C},
	{16, 8, UINT64_MAX, true, C},
	{24, 8, 0, true, C},
	{24, 8, (1u << 30) + 1, true, C},
	{24, 8, 1u << 30, true, C}, /* more than the frame could hold */
	{24, 8, UINT64_MAX, true, C},
	{HEADER, 1, 0, true, C}, /* the frame's magic */
	{32, 1, 0, false, C},
	{48, 1, 0, false, C},
};

START_TEST(header_changed)
{
	const struct header_change *c = &header_changes[_i];
	struct tpd_buf object = honest_object();

	ck_assert_int_eq(verdict(object.data, object.len), TPD_OK);
	for (size_t i = 0; i < c->width; i++)
		object.data[c->at + i] = (uint8_t)(c->value >> (8 * i));
	if (c->sealed)
		reseal(&object);
	ck_assert_int_eq(verdict(object.data, object.len), c->expect);
	tpd_buf_release(&object);
}
END_TEST

START_TEST(sizes_off_by_one)
{
	for (int d = -1; d <= 1; d++) {
		for (size_t at = 16; at <= 24; at += 8) {
			struct tpd_buf object = honest_object();

			tpd_put_u64(object.data + at, tpd_get_u64(object.data + at) + (uint64_t)d);
			reseal(&object);
			ck_assert_int_eq(verdict(object.data, object.len), d ? TPD_CORRUPT : TPD_OK);
			tpd_buf_release(&object);
		}
	}
}
END_TEST

START_TEST(every_byte_counts)
{
	struct tpd_buf object = honest_object();

	for (size_t i = 0; i < object.len; i++) {
		object.data[i] ^= (uint8_t)(1u << (i % 8));
		ck_assert_int_eq(verdict(object.data, object.len), TPD_CORRUPT);
		object.data[i] ^= (uint8_t)(1u << (i % 8));
	}
	for (size_t len = 0; len < object.len; len++)
		ck_assert_int_eq(verdict(object.data, len), TPD_CORRUPT);
	ck_assert_int_eq(verdict(object.data, object.len), TPD_OK);
	tpd_buf_u8(&object, 0);
	ck_assert_int_eq(verdict(object.data, object.len), TPD_CORRUPT);
	tpd_buf_release(&object);
}
END_TEST

START_TEST(body_cut_or_continued)
{
	size_t logical;
	struct tpd_buf body = build_body(&logical);

	for (size_t len = 0; len < body.len; len++)
		ck_assert_int_eq(body_verdict(body.data, len), TPD_CORRUPT);
	ck_assert_int_eq(body_verdict(body.data, body.len), TPD_OK);
	tpd_buf_u8(&body, 0);
	ck_assert_int_eq(body_verdict(body.data, body.len), TPD_CORRUPT);
	tpd_buf_release(&body);
}
END_TEST

/* A zero byte in the middle of a string. */
START_TEST(zero_in_a_string)
{
	size_t logical;
	struct tpd_buf body = build_body(&logical);

	ck_assert_int_eq(body.data[1], 's'); /* of the run */
	body.data[3] = 0;
	ck_assert_int_eq(body_verdict(body.data, body.len), TPD_CORRUPT);
	tpd_buf_release(&body);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("manifest");
	TCase *tests = tcase_create("manifest");
	SRunner *runner = srunner_create(suite);
	int failed;

	suite_add_tcase(suite, tests);
	tcase_set_timeout(tests, 120);
	tcase_add_test(tests, honest_values);
	tcase_add_loop_test(tests, one_field_changed, 0, (int)TPD_ARRAY_LEN(changes));
	tcase_add_test(tests, fields_that_belong_together);
	tcase_add_test(tests, no_tensor_is_empty);
	tcase_add_test(tests, sealing_refuses);
	tcase_add_test(tests, a_single_file);
	tcase_add_loop_test(tests, header_changed, 0, (int)TPD_ARRAY_LEN(header_changes));
	tcase_add_test(tests, sizes_off_by_one);
	tcase_add_test(tests, every_byte_counts);
	tcase_add_test(tests, body_cut_or_continued);
	tcase_add_test(tests, zero_in_a_string);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
