/*
 * t_manifest_random.c - manifests by chance: round trips, mutations, and the geometry of random files.
 */
#include "base/tpd.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "manifest_build.h"
#include "store/manifest.h"

#define MUTATIONS 20000
#define RANDOM_MANIFESTS 300

static uint64_t seed;

static uint64_t rnd(uint64_t below)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (seed >> 33) % below;
}

static bool same_segment(const struct tpd_segment *a, const struct tpd_segment *b)
{
	return a->dtype == b->dtype && a->offset == b->offset && a->length == b->length && a->has_ref == b->has_ref &&
	       a->ref_file == b->ref_file && a->ref_segment == b->ref_segment && a->first_chunk == b->first_chunk &&
	       a->in_slabs == b->in_slabs;
}

static bool same_about(const struct tpd_segment_about *a, const struct tpd_segment_about *b)
{
	return strcmp(a->name, b->name) == 0 && a->ndim == b->ndim &&
	       memcmp(a->dims, b->dims, a->ndim * sizeof(a->dims[0])) == 0 && a->row == b->row &&
	       a->planned == b->planned && a->second == b->second && a->second_permille == b->second_permille &&
	       a->stored == b->stored && !a->stats == !b->stats &&
	       (!a->stats || (a->stats->has_delta == b->stats->has_delta && a->stats->count == b->stats->count &&
			      memcmp(a->stats->ulps, b->stats->ulps, sizeof(a->stats->ulps)) == 0 &&
			      memcmp(&a->stats->gap_entropy, &b->stats->gap_entropy, sizeof(double)) == 0));
}

static bool same_entry(const struct tpd_entry *a, const struct tpd_entry *b)
{
	if (strcmp(a->path, b->path) != 0 || a->type != b->type || a->mode != b->mode || a->mtime_ns != b->mtime_ns ||
	    strcmp(a->target ? a->target : "", b->target ? b->target : "") != 0 || a->size != b->size ||
	    memcmp(a->sha256, b->sha256, sizeof(a->sha256)) != 0 || a->format != b->format ||
	    a->segment_count != b->segment_count || a->part_count != b->part_count)
		return false;
	for (uint32_t s = 0; s < a->segment_count; s++)
		if (!same_segment(&a->segments[s], &b->segments[s]) || !same_about(&a->about[s], &b->about[s]))
			return false;
	if (a->slab_count != b->slab_count ||
	    (a->slab_count > 0 && memcmp(a->slabs, b->slabs, a->slab_count * sizeof(*a->slabs)) != 0))
		return false;
	for (uint32_t p = 0; p < a->part_count; p++)
		if (a->parts[p].first_chunk != b->parts[p].first_chunk || a->parts[p].chunks != b->parts[p].chunks ||
		    a->parts[p].bytes != b->parts[p].bytes ||
		    memcmp(a->parts[p].trailer_digest, b->parts[p].trailer_digest, TPD_XXH_LEN) != 0)
			return false;
	return true;
}

static bool same_manifest(const struct tpd_manifest *a, const struct tpd_manifest *b)
{
	if (!tpd_id_equal(&a->id, &b->id) || strcmp(a->run, b->run) != 0 || a->step != b->step || a->kind != b->kind ||
	    a->created_ns != b->created_ns || strcmp(a->source, b->source) != 0 || a->has_ref != b->has_ref ||
	    a->has_w1 != b->has_w1 || a->ref_step != b->ref_step || a->w1_step != b->w1_step || a->depth != b->depth ||
	    a->entry_count != b->entry_count || a->file_count != b->file_count)
		return false;
	for (uint32_t i = 0; i < a->entry_count; i++)
		if (!same_entry(&a->entries[i], &b->entries[i]))
			return false;
	return memcmp(a->files, b->files, a->file_count * sizeof(a->files[0])) == 0;
}

static void random_slabs(struct tpd_entry *entry, uint32_t s)
{
	uint64_t elements = entry->segments[s].length / tpd_dtype_width(entry->segments[s].dtype);
	struct tpd_slab slabs[5] = {0};
	uint32_t count = 0;

	for (uint64_t at = 0; count < 1 + rnd(5) && at < elements; count++) { /* one behind the other */
		struct tpd_slab *slab = &slabs[count];
		uint64_t left;

		slab->file = (uint32_t)rnd(100);
		slab->segment = (uint32_t)rnd(100);
		slab->start = at + rnd(elements - at);
		left = elements - slab->start;
		slab->block = 1 + rnd(left);
		slab->ref_start = rnd(1u << 30);
		slab->count = 1;
		if (rnd(2) && left / slab->block > 1 && slab->block >= TPD_SLAB_BLOCK_MIN) {
			slab->count = left / slab->block;
			slab->stride = slab->block;
			slab->ref_stride = slab->block + rnd(1000);
		}
		at = slab->start + slab->block * slab->count;
	}
	ck_assert_int_eq(tpd_entry_refer(entry, s, slabs, count, false, NULL), TPD_OK);
}

/* A file of a few tensors with gaps, cut into parts at random. */
static void random_file(struct tpd_entry *entry, bool has_ref, bool has_w1)
{
	uint64_t at = 0, glue = 0, chunks, next = 0, payload = 0;

	entry->segment_count = 1 + (uint32_t)rnd(6);
	entry->segments = calloc(entry->segment_count, sizeof(*entry->segments));
	entry->about = calloc(entry->segment_count, sizeof(*entry->about));
	for (uint32_t s = 1; s < entry->segment_count; s++) {
		struct tpd_segment *seg = &entry->segments[s];
		uint64_t gap = rnd(3) ? 0 : rnd(9000000);

		seg->dtype = (enum tpd_dtype)rnd(TPD_DTYPE_COUNT);
		seg->length = 1 + rnd(rnd(2) ? 100 : 3000000);
		seg->offset = at + gap;
		glue += gap;
		at += gap + seg->length;
	}
	entry->size = at + rnd(500);
	entry->segments[0].length = glue + (entry->size - at);
	for (uint32_t s = 0; s < entry->segment_count; s++) {
		struct tpd_segment *seg = &entry->segments[s];
		struct tpd_segment_about *about = &entry->about[s];
		char name[32];

		snprintf(name, sizeof(name), "tensor.%u", s);
		about->name = strdup(s ? name : "");
		about->ndim = (unsigned)rnd(9);
		for (unsigned d = 0; d < about->ndim; d++)
			about->dims[d] = rnd(1u << 30) * rnd(1u << 30);
		about->row = 1 + (uint32_t)rnd(8192);
		do {
			about->planned = (enum tpd_encoding)rnd(TPD_ENCODING_COUNT);
		} while (!tpd_encoding_is_known(about->planned));
		if (rnd(2)) {
			about->second = TPD_ENCODING_GRID;
			about->second_permille = 1 + (uint32_t)rnd(TPD_SECOND_MAX);
		}
		about->stored = rnd(seg->length + 1);
		seg->has_ref = has_ref && rnd(2);
		if (seg->has_ref) {
			seg->ref_file = (uint32_t)rnd(100);
			seg->ref_segment = (uint32_t)rnd(100);
		}
		if (seg->has_ref && s > 0 && seg->length % tpd_dtype_width(seg->dtype) == 0 && rnd(2))
			random_slabs(entry, s);
		about->stats = rnd(2) ? calloc(1, sizeof(*about->stats)) : NULL;
		if (about->stats) {
			about->stats->count = rnd(1u << 30);
			about->stats->has_delta = has_w1 && rnd(2);
			for (size_t i = 0; about->stats->has_delta && i < TPD_SPARSITY_ULPS; i++)
				about->stats->ulps[i] = rnd(1u << 30) << rnd(30);
			if (about->stats->has_delta)
				about->stats->gap_entropy = rnd(2) ? 0.1 * (double)rnd(100) : -0.0;
		}
		payload += about->stored;
	}
	chunks = tpd_entry_chunks(entry);
	if (chunks == 0)
		for (uint32_t s = 0; s < entry->segment_count; s++)
			entry->about[s].stored = 0;
	entry->parts = calloc(chunks + 1, sizeof(*entry->parts));
	while (next < chunks) {
		struct tpd_part_ref *part = &entry->parts[entry->part_count++];
		uint64_t take;

		*part = (struct tpd_part_ref){.first_chunk = next, .chunks = 1 + rnd(chunks - next)};
		next += part->chunks;
		take = next == chunks ? payload : rnd(payload + 1);
		payload -= take;
		part->bytes = 96 + 32 * part->chunks + take;
		part->trailer_digest[3] = (uint8_t)rnd(256);
	}
}

static struct tpd_manifest random_manifest(void)
{
	struct tpd_manifest m = {.run = strdup("r/u/n"), .source = strdup("/s\xc3\xa4"), .step = rnd(1000),
				 .created_ns = -5};

	m.has_ref = rnd(2);
	m.ref_step = m.has_ref ? rnd(1000) : 0;
	m.depth = m.has_ref ? 1 + (uint32_t)rnd(9) : 0;
	m.has_w1 = rnd(2);
	m.w1_step = m.has_w1 ? rnd(1000) : 0;
	m.entry_count = (uint32_t)rnd(12);
	m.entries = calloc(m.entry_count + 1, sizeof(*m.entries));
	for (uint32_t i = 0; i < m.entry_count; i++) {
		struct tpd_entry *entry = &m.entries[i];
		char path[64];

		snprintf(path, sizeof(path), "d%02u/%llu", i, (unsigned long long)rnd(1000));
		entry->path = strdup(path);
		entry->type = (enum tpd_entry_type)rnd(3);
		entry->mode = (uint32_t)rnd(07777 + 1);
		entry->mtime_ns = -(int64_t)rnd(1u << 30);
		if (entry->type == TPD_ENTRY_SYMLINK)
			entry->target = strdup(path);
		else if (entry->type == TPD_ENTRY_FILE)
			random_file(entry, m.has_ref, m.has_w1);
	}
	return m;
}

START_TEST(random_round_trips)
{
	seed = 42;
	for (int i = 0; i < RANDOM_MANIFESTS; i++) {
		struct tpd_manifest m = random_manifest(), back = {0};
		struct tpd_buf out = {0}, again = {0};
		struct tpd_err err = {0};

		ck_assert_int_eq(tpd_manifest_seal(&m, &err), TPD_OK);
		ck_assert_msg(tpd_manifest_write(&m, &out, &err) == TPD_OK, "%s", err.text);
		ck_assert_int_eq(parse(out.data, out.len, &back), TPD_OK);
		ck_assert(same_manifest(&m, &back));
		ck_assert_int_eq(tpd_manifest_write(&back, &again, NULL), TPD_OK);
		ck_assert_uint_eq(again.len, out.len);
		ck_assert_mem_eq(again.data, out.data, out.len);
		tpd_manifest_release(&m);
		tpd_manifest_release(&back);
		tpd_buf_release(&out);
		tpd_buf_release(&again);
	}
}
END_TEST

/* Any body gives one of three verdicts; what is accepted is stored again as the same bytes. */
START_TEST(mutations)
{
	size_t logical;
	struct tpd_buf body = build_body(&logical);
	uint8_t *copy = malloc(body.len + 64);
	unsigned seen[3] = {0};

	ck_assert_ptr_nonnull(copy);
	seed = 7 + (uint64_t)_i;
	for (int i = 0; i < MUTATIONS / 4; i++) {
		size_t len = body.len, at = rnd(len);
		struct tpd_manifest m = {0};
		struct tpd_buf object, again = {0};
		enum tpd_status status;

		memcpy(copy, body.data, len);
		for (uint64_t n = 1 + rnd(3); n > 0; n--)
			copy[rnd(len)] = (uint8_t)(rnd(2) ? rnd(256) : (uint64_t[]){0, 1, 127, 128, 255}[rnd(5)]);
		if (rnd(4) == 0) { /* a stretch taken out, or in twice */
			size_t n = 1 + rnd(TPD_MIN(len - at, (size_t)32));

			if (rnd(2)) {
				memmove(copy + at, copy + at + n, len - at - n);
				len -= n;
			} else {
				memmove(copy + at + n, copy + at, len - at);
				len += n;
			}
		}
		object = wrap(copy, len);
		status = parse(object.data, object.len, &m);
		ck_assert(status == TPD_OK || status == TPD_CORRUPT || status == TPD_UNSUPPORTED);
		seen[status == TPD_OK ? 0 : status == TPD_CORRUPT ? 1 : 2]++;
		if (status == TPD_OK) {
			ck_assert_int_eq(tpd_manifest_write(&m, &again, NULL), TPD_OK);
			ck_assert_uint_eq(again.len, object.len);
			ck_assert_mem_eq(again.data, object.data, object.len);
		}
		tpd_manifest_release(&m);
		tpd_buf_release(&again);
		tpd_buf_release(&object);
	}
	ck_assert(seen[0] > 0 && seen[1] > 0 && seen[2] > 0);
	free(copy);
	tpd_buf_release(&body);
}
END_TEST

/* --- geometry --- */

struct gather {
	uint64_t *offsets; /* of each byte of the segment, in the file */
	uint64_t start, next;
};

static void gather_piece(void *arg, uint64_t file_offset, uint64_t at, uint64_t n)
{
	struct gather *g = arg;

	ck_assert_uint_eq(at, g->next);
	ck_assert_uint_gt(n, 0);
	for (uint64_t i = 0; i < n; i++)
		g->offsets[at - g->start + i] = file_offset + i;
	g->next += n;
}

START_TEST(pieces_of_glue)
{
	/* glue: 0-2, 5-5, 9-11; segments 3-4, 6-8 (two that touch: 6-7 and 8) */
	struct tpd_segment segments[] = {
		{.length = 7},
		{.offset = 3, .length = 2},
		{.offset = 6, .length = 2},
		{.offset = 8, .length = 1},
	};
	static const uint64_t glue[] = {0, 1, 2, 5, 9, 10, 11};
	struct tpd_entry file = {.size = 12, .segments = segments, .segment_count = 4};
	uint64_t offsets[12];

	for (uint64_t pos = 0; pos <= 7; pos++) {
		for (uint64_t len = 0; pos + len <= 7; len++) {
			struct gather g = {.offsets = offsets, .start = pos, .next = pos};

			tpd_entry_pieces(&file, 0, pos, len, gather_piece, &g);
			ck_assert_uint_eq(g.next, pos + len);
			for (uint64_t i = 0; i < len; i++)
				ck_assert_uint_eq(offsets[i], glue[pos + i]);
		}
	}
	{
		struct gather g = {.offsets = offsets, .start = 1, .next = 1};

		tpd_entry_pieces(&file, 2, 1, 1, gather_piece, &g);
		ck_assert_uint_eq(g.next, 2);
		ck_assert_uint_eq(offsets[0], 7);
	}
}
END_TEST

START_TEST(chunks_are_numbered_through)
{
	seed = 3;
	for (int i = 0; i < 100; i++) {
		struct tpd_manifest m = {.run = strdup("r"), .entry_count = 1,
					 .entries = calloc(1, sizeof(struct tpd_entry))};
		uint64_t number = 0;

		m.entries[0].path = strdup("f");
		random_file(&m.entries[0], false, false);
		ck_assert_int_eq(tpd_manifest_seal(&m, NULL), TPD_OK);
		for (uint32_t s = 0; s < m.entries[0].segment_count; s++) {
			const struct tpd_segment *seg = &m.entries[0].segments[s];
			uint64_t bytes = 0;

			for (uint64_t c = 0; c < tpd_segment_chunks(seg); c++) {
				uint32_t segment = UINT32_MAX;
				uint64_t chunk = UINT64_MAX;

				tpd_entry_locate(&m.entries[0], number++, &segment, &chunk);
				ck_assert_uint_eq(segment, s);
				ck_assert_uint_eq(chunk, c);
				ck_assert_uint_gt(tpd_segment_chunk_len(seg, c), 0);
				ck_assert_uint_le(tpd_segment_chunk_len(seg, c), tpd_chunk_bytes(seg->dtype));
				bytes += tpd_segment_chunk_len(seg, c);
			}
			ck_assert_uint_eq(bytes, seg->length);
		}
		ck_assert_uint_eq(number, tpd_entry_chunks(&m.entries[0]));
		tpd_manifest_release(&m);
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("manifest random");
	TCase *tests = tcase_create("manifest random");
	SRunner *runner = srunner_create(suite);
	int failed;

	suite_add_tcase(suite, tests);
	tcase_set_timeout(tests, 120);
	tcase_add_test(tests, random_round_trips);
	tcase_add_loop_test(tests, mutations, 0, 4);
	tcase_add_test(tests, pieces_of_glue);
	tcase_add_test(tests, chunks_are_numbered_through);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
