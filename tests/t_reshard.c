/*
 * t_reshard.c - a distributed checkpoint whose ranks become more, fewer, or cut its tensors along another dimension.
 *
 * Tensors of known values are saved in boxes called "NAME[row,column]", as distributed checkpoints are; references, restored bytes and
 * statistics are then compared with what they would be had nothing moved.
 */
#include "base/tpd.h"

#include "archive_help.h"
#include "store/manifest.h"

#define ROWS 900u
#define COLUMNS 700u /* an F32 tensor of five chunks */
#define EXPERTS 6u
#define IN 100u
#define OUT 90u

/* As DCP's safetensors: names without places, which stand in the header, and nothing that tells a whole tensor from its beginning. */
static bool as_dcp;

/* How the ranks of a step cut the tensors. */
struct cut {
	unsigned rows, columns; /* parts; 1 and 1: whole, and then not called a part */
};

/* A part: the p-th of `parts` nearly equal ones of n. */
static unsigned edge(unsigned n, unsigned parts, unsigned p)
{
	return TPD_MIN(n, (n + parts - 1) / parts * p);
}

/* Of step 0 there is noise, which moves a little at three of four places. */
static float value(unsigned tensor, unsigned element, uint64_t step)
{
	uint64_t random = 1 + tensor + 977u * element;
	double base = 0.02 * random_normal(&random), move = random_normal(&random);

	return (float)(base + (element % 4 ? 1e-5 * move * (double)step : 0));
}

static void put_header(struct tpd_buf *header, const char *name, bool is_part, const char *dtype, unsigned ndim, const unsigned *at,
		       const unsigned *size, unsigned width, size_t *offset)
{
	size_t bytes = width;

	tpd_buf_printf(header, "%s\"%s", header->len > 1 ? "," : "", name);
	for (unsigned d = 0; is_part && !as_dcp && d < ndim; d++)
		tpd_buf_printf(header, "%c%u%s", d ? ',' : '[', at[d], d + 1 == ndim ? "]" : "");
	tpd_buf_printf(header, "\":{\"dtype\":\"%s\",\"shape\":[", dtype);
	for (unsigned d = 0; d < ndim; d++) {
		tpd_buf_printf(header, "%s%u", d ? "," : "", size[d]);
		bytes *= size[d];
	}
	tpd_buf_printf(header, "],\"data_offsets\":[%zu,%zu]}", *offset, *offset + bytes);
	*offset += bytes;
}

static void put_value(struct tpd_buf *data, float v, unsigned width)
{
	uint32_t bits;

	memcpy(&bits, &v, sizeof(bits));
	if (width == 4)
		tpd_buf_u32(data, bits);
	else
		tpd_buf_u16(data, (uint16_t)(bits >> 16));
}

/* One rank's file: its parts of "w" [ROWS, COLUMNS] and of "experts" [EXPERTS, IN, OUT], cut along IN and OUT. */
static void write_rank(uint64_t step, const struct cut *cut, unsigned r, unsigned c)
{
	bool is_part = cut->rows * cut->columns > 1;
	const unsigned at[2] = {edge(ROWS, cut->rows, r), edge(COLUMNS, cut->columns, c)};
	const unsigned size[2] = {edge(ROWS, cut->rows, r + 1) - at[0], edge(COLUMNS, cut->columns, c + 1) - at[1]};
	const unsigned at3[3] = {0, edge(IN, cut->rows, r), edge(OUT, cut->columns, c)};
	const unsigned size3[3] = {EXPERTS, edge(IN, cut->rows, r + 1) - at3[1], edge(OUT, cut->columns, c + 1) - at3[2]};
	struct tpd_buf header = {0}, file = {0};
	size_t offset = 0;

	tpd_buf_printf(&header, "{");
	if (as_dcp)
		tpd_buf_printf(&header, "\"__metadata__\":{\"DCP_SHARDING_INFO\":\"{\\\"w\\\": {\\\"saved_offsets\\\": [%u, %u]}, "
			       "\\\"experts\\\": {\\\"saved_offsets\\\": [0, %u, %u]}}\"}", at[0], at[1], at3[1], at3[2]);
	put_header(&header, "w", is_part, "F32", 2, at, size, 4, &offset);
	put_header(&header, "experts", is_part, "BF16", 3, at3, size3, 2, &offset);
	tpd_buf_printf(&header, "}");
	tpd_buf_u64(&file, header.len);
	tpd_buf_put(&file, header.data, header.len);
	for (unsigned y = 0; y < size[0]; y++)
		for (unsigned x = 0; x < size[1]; x++)
			put_value(&file, value(1, (at[0] + y) * COLUMNS + at[1] + x, step), 4);
	for (unsigned e = 0; e < EXPERTS; e++)
		for (unsigned y = 0; y < size3[1]; y++)
			for (unsigned x = 0; x < size3[2]; x++)
				put_value(&file, value(2, (e * IN + at3[1] + y) * OUT + at3[2] + x, step), 2);
	ck_assert_int_eq(tpd_buf_status(&file, NULL), TPD_OK);
	file_write(scratch("checkpoint-%d/rank_%u.safetensors", (int)step, r * cut->columns + c), file.data, file.len);
	tpd_buf_release(&header);
	tpd_buf_release(&file);
}

/* Save and store a step. The one before is taken away, so that references are replayed. */
static void save(uint64_t step, unsigned rows, unsigned columns)
{
	const struct cut cut = {rows, columns};

	ck_assert_int_eq(mkdir(scratch("checkpoint-%d", (int)step), 0755), 0);
	for (unsigned r = 0; r < rows; r++)
		for (unsigned c = 0; c < columns; c++)
			write_rank(step, &cut, r, c);
	OK(ingest(scratch("checkpoint-%d", (int)step), "run", step, NULL));
	rename(scratch("checkpoint-%d", (int)step), scratch("saved-%d", (int)step));
}

/* All files of a step, byte for byte; and verified. */
static void check_step(uint64_t step, unsigned ranks)
{
	char name[32], to[512];
	struct tpd_archive_name which;

	snprintf(name, sizeof(name), "run@%d", (int)step);
	snprintf(to, sizeof(to), "%s", scratch("out-%d", (int)step));
	ck_assert_msg(restore(name, to) == TPD_OK, "%s: %s", name, err.text);
	for (unsigned r = 0; r < ranks; r++)
		ck_assert(file_equal(scratch("out-%d/rank_%u.safetensors", (int)step, r),
				     scratch("saved-%d/rank_%u.safetensors", (int)step, r)));
	which = resolve(name);
	ck_assert_msg(tpd_archive_verify(archive, &which.id, NULL, &err) == TPD_OK, "%s: %s", name, err.text);
}

/* What the tensors of a step took, what they were compared with, and how their references are. */
struct seen {
	uint64_t stored, pairs, zeros;
	unsigned tensors, whole, in_slabs;
};

static struct seen look(uint64_t step)
{
	struct seen seen = {0};
	struct tpd_manifest m;
	char name[32];
	struct tpd_archive_name which;

	snprintf(name, sizeof(name), "run@%d", (int)step);
	which = resolve(name);
	OK(tpd_store_manifest_keep(tpd_archive_store(archive), &which.id, TPD_MANIFEST_ALL, &m, &err));
	for (uint32_t f = 0; f < m.file_count; f++) {
		const struct tpd_entry *entry = &m.entries[m.files[f]];

		for (uint32_t s = 1; s < entry->segment_count; s++) {
			const struct tpd_sparsity *stats = entry->about[s].stats;

			seen.tensors++;
			seen.stored += entry->about[s].stored;
			seen.in_slabs += entry->segments[s].has_ref && entry->segments[s].in_slabs;
			seen.whole += entry->segments[s].has_ref && !entry->segments[s].in_slabs;
			if (stats && stats->has_delta) {
				seen.pairs += stats->pairs;
				seen.zeros += stats->zeros;
			}
		}
	}
	tpd_manifest_release(&m);
	return seen;
}

/* Whatever the ranks do, a step costs what it would have cost had they stayed, and is compared with all of what was before. */
START_TEST(ranks_come_and_go)
{
	static const struct cut cuts[] = {{2, 1}, {2, 1}, {3, 1}, {3, 1}, {1, 2}, {1, 1}, {2, 2}, {2, 2}};
	const uint64_t elements = ROWS * COLUMNS + EXPERTS * IN * OUT;
	struct seen plain, fresh;

	archive_open(16, 0, 2);
	for (uint64_t step = 0; step < TPD_ARRAY_LEN(cuts); step++)
		save(step, cuts[step].rows, cuts[step].columns);
	ck_assert_uint_eq(depth_of("run@7"), 7);
	fresh = look(0);
	plain = look(1);
	ck_assert_uint_lt(plain.stored * 10, fresh.stored * 9);
	for (uint64_t step = 1; step < TPD_ARRAY_LEN(cuts); step++) {
		const struct cut *now = &cuts[step], *before = &cuts[step - 1];
		bool moved = now->rows != before->rows || now->columns != before->columns;
		struct seen seen = look(step);

		ck_assert_uint_eq(seen.tensors, 2 * now->rows * now->columns);
		ck_assert_uint_eq(moved ? seen.in_slabs : seen.whole, seen.tensors);
		ck_assert_uint_eq(seen.pairs, elements);
		ck_assert_uint_ge(seen.zeros, elements / 4);
		ck_assert_uint_lt(seen.stored * 100, plain.stored * 103 + 64 * 100 * seen.tensors);
	}
	for (uint64_t step = 0; step < TPD_ARRAY_LEN(cuts); step++)
		check_step(step, cuts[step].rows * cuts[step].columns);
}
END_TEST

/* Where only the header says what is a part: from all to halves and back, and to halves of the same name, size and type, but other rows. */
START_TEST(parts_without_names)
{
	static const struct cut cuts[] = {{1, 1}, {2, 1}, {1, 2}, {1, 1}};

	as_dcp = true;
	archive_open(16, 0, 2);
	for (uint64_t step = 0; step < TPD_ARRAY_LEN(cuts); step++) {
		save(step, cuts[step].rows, cuts[step].columns);
		if (step > 0) {
			ck_assert_uint_eq(look(step).in_slabs, look(step).tensors);
			ck_assert_uint_eq(look(step).pairs, ROWS * COLUMNS + EXPERTS * IN * OUT);
		}
	}
	for (uint64_t step = 0; step < TPD_ARRAY_LEN(cuts); step++)
		check_step(step, cuts[step].rows * cuts[step].columns);
	as_dcp = false;
}
END_TEST

/* Each change makes what a reader walks wider, so there is an end to it until the next keyframe; depth goes on. */
START_TEST(many_changes)
{
	unsigned fresh = 0;

	archive_open(16, 0, 2);
	for (uint64_t step = 0; step <= 9; step++) {
		save(step, 2 + step % 2, 1);
		if (step > 0)
			fresh += look(step).in_slabs == 0;
	}
	ck_assert_uint_eq(fresh, 5); /* steps 1 to 4 refer; the others have links below them that do */
	for (uint64_t step = 0; step <= 9; step++)
		check_step(step, 2 + step % 2);
}
END_TEST

/* Cuts that multiply: five chunks for one, then twelve for each of these, and the next would need twelve times as many again. */
START_TEST(wide_changes)
{
	static const struct cut cuts[] = {{1, 1}, {1, 12}, {12, 1}, {1, 12}, {1, 12}};

	archive_open(16, 0, 2);
	for (uint64_t step = 0; step < TPD_ARRAY_LEN(cuts); step++)
		save(step, cuts[step].rows, cuts[step].columns);
	ck_assert_uint_gt(look(1).in_slabs, 0);
	ck_assert_uint_gt(look(2).in_slabs, 0);
	ck_assert_uint_eq(look(3).in_slabs, 0);
	ck_assert_uint_eq(look(4).whole, look(4).tensors);
	for (uint64_t step = 0; step < TPD_ARRAY_LEN(cuts); step++)
		check_step(step, cuts[step].rows * cuts[step].columns);
}
END_TEST

/* Rows from `first` on of one tensor, as one file. */
static void save_whole(uint64_t step, unsigned first, unsigned rows, const char *name, const char *dtype, unsigned width)
{
	const unsigned at[2] = {0}, size[2] = {rows, COLUMNS};
	struct tpd_buf header = {0}, file = {0};
	size_t offset = 0;

	tpd_buf_printf(&header, "{");
	put_header(&header, name, false, dtype, 2, at, size, width, &offset);
	tpd_buf_printf(&header, "}");
	tpd_buf_u64(&file, header.len);
	tpd_buf_put(&file, header.data, header.len);
	for (unsigned i = 0; i < rows * COLUMNS; i++)
		put_value(&file, value(1, first * COLUMNS + i, step), width);
	file_write(scratch("w-%d.safetensors", (int)step), file.data, file.len);
	OK(ingest(scratch("w-%d.safetensors", (int)step), "run", step, NULL));
	tpd_buf_release(&header);
	tpd_buf_release(&file);
}

/* What is not called a part is another tensor when its size is another; and so is a part of another type or shape. */
START_TEST(other_tensors_start_afresh)
{
	archive_open(16, 0, 2);
	save_whole(0, 0, 100, "w", "F32", 4);
	save_whole(1, 0, 101, "w", "F32", 4);
	ck_assert_uint_eq(look(1).in_slabs + look(1).whole, 0);
	save_whole(2, 51, 50, "w[51,0]", "F32", 4); /* the last rows of it */
	ck_assert_uint_eq(look(2).in_slabs, 1);
	save_whole(3, 51, 50, "w[51,0]", "BF16", 2);
	ck_assert_uint_eq(look(3).in_slabs + look(3).whole, 0);
	save_whole(4, 51, 50, "w[51]", "BF16", 2); /* a name like any other */
	ck_assert_uint_eq(look(4).in_slabs + look(4).whole, 0);
	save_whole(5, 80, 50, "w[80,0]", "BF16", 2); /* of 50 rows 21 are known */
	ck_assert_uint_eq(look(5).in_slabs + look(5).whole, 0);
	save_whole(6, 95, 50, "w[95,0]", "BF16", 2); /* and 35, with which no statistics are made */
	ck_assert_uint_eq(look(6).in_slabs, 1);
	ck_assert_uint_eq(look(6).pairs, 0);
	for (uint64_t step = 0; step <= 6; step++) {
		char name[32];
		struct tpd_archive_name which;

		snprintf(name, sizeof(name), "run@%d", (int)step);
		which = resolve(name);
		ck_assert_msg(tpd_archive_verify(archive, &which.id, NULL, &err) == TPD_OK, "%s: %s", name, err.text);
	}
}
END_TEST

/* The manifest of a step, changed by somebody who can make its checksums right. */
static void forge(uint64_t step, void (*change)(struct tpd_entry *entry))
{
	struct tpd_buf out = {0};
	struct tpd_manifest m;
	struct tpd_archive_name which;
	char name[32], hex[TPD_ID_HEX];

	snprintf(name, sizeof(name), "run@%d", (int)step);
	which = resolve(name);
	tpd_id_hex(&which.id, hex);
	OK(tpd_store_manifest_keep(tpd_archive_store(archive), &which.id, TPD_MANIFEST_ALL, &m, &err));
	change(&m.entries[0]);
	OK(tpd_manifest_write(&m, &out, &err));
	ck_assert_int_eq(unlink(scratch("store/objects/%.2s/%s.0/manifest", hex, hex)), 0);
	file_write(scratch("store/objects/%.2s/%s.0/manifest", hex, hex), out.data, out.len);
	tpd_buf_release(&out);
	tpd_manifest_release(&m);
}

static enum tpd_status verdict(uint64_t step)
{
	char name[32];
	struct tpd_archive_name which;

	snprintf(name, sizeof(name), "run@%d", (int)step);
	which = resolve(name);
	return tpd_archive_verify(archive, &which.id, NULL, &err);
}

static void refer(struct tpd_entry *entry, const struct tpd_slab *slab)
{
	OK(tpd_entry_refer(entry, 1, slab, 1, false, &err));
}

static void behind_the_end(struct tpd_entry *entry)
{
	refer(entry, &(struct tpd_slab){.segment = 1, .block = 100 * COLUMNS, .count = 1, .ref_start = 1});
}

static void no_such_segment(struct tpd_entry *entry)
{
	refer(entry, &(struct tpd_slab){.segment = 2, .block = 1, .count = 1});
}

static void glue(struct tpd_entry *entry)
{
	refer(entry, &(struct tpd_slab){.segment = 0, .block = 1, .count = 1});
}

static void other_elements(struct tpd_entry *entry)
{
	refer(entry, &(struct tpd_slab){.segment = 1, .block = 100 * COLUMNS - 1, .count = 1, .ref_start = 1});
}

static void scattered(struct tpd_entry *entry)
{
	refer(entry, &(struct tpd_slab){.segment = 1, .block = 1, .stride = 1, .ref_stride = 1u << 17, .count = 65});
}

static void scattered_less(struct tpd_entry *entry)
{
	refer(entry, &(struct tpd_slab){.segment = 1, .block = 1, .stride = 1, .ref_stride = 1u << 17, .count = 64});
}

START_TEST(forged_slabs)
{
	static void (*const changes[])(struct tpd_entry *) = {behind_the_end, no_such_segment, glue, other_elements};
	static const char *const faults[] = {"of another type or size", "does not have", "does not have", "chunk"};

	archive_open(16, 0, 2);
	save_whole(0, 0, 100, "w", "F32", 4);
	save_whole(1, 0, 100, "w", "F32", 4);
	OK(verdict(1));
	for (size_t i = 0; i < TPD_ARRAY_LEN(changes); i++) {
		forge(1, changes[i]);
		ck_assert_int_eq(verdict(1), TPD_CORRUPT);
		ck_assert_msg(strstr(err.text, faults[i]) != NULL, "%s", err.text);
	}
	save_whole(2, 0, 12400, "v", "F32", 4); /* 66 chunks and more */
	save_whole(3, 0, 12400, "v", "F32", 4);
	forge(3, scattered_less);
	ck_assert_int_eq(verdict(3), TPD_CORRUPT);
	ck_assert_msg(strstr(err.text, "more than 64 chunks") == NULL, "%s", err.text);
	forge(3, scattered);
	ck_assert_int_eq(verdict(3), TPD_CORRUPT);
	ck_assert_msg(strstr(err.text, "more than 64 chunks") != NULL, "%s", err.text);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		ranks_come_and_go,
		parts_without_names,
		many_changes,
		wide_changes,
		other_tensors_start_afresh,
		forged_slabs,
	};

	return run_tests("reshard", tests, TPD_ARRAY_LEN(tests));
}
