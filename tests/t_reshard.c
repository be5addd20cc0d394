/*
 * t_reshard.c - a distributed checkpoint whose ranks become more, fewer, or cut its tensors along another dimension.
 *
 * Tensors of known values are saved in boxes called "NAME[row,column]", as distributed checkpoints are; references, restored bytes and
 * statistics are then compared with what they would be had nothing moved.
 */
#include "base/tpd.h"

#include "reshard_help.h"

#define ROWS 900u
#define COLUMNS 700u /* an F32 tensor of five chunks */
#define EXPERTS 6u
#define IN 100u
#define OUT 96u
#define ELEMENTS (ROWS * COLUMNS + EXPERTS * IN * OUT)

/* Originals stay where they were stored from. */
static bool stay;

/* The files say of whole tensors, too, that they begin at zeros: nothing tells a whole one from its beginning. */
static bool always_parts;

/* How the ranks of a step cut the tensors. */
struct cut {
	unsigned rows, columns; /* parts; 1 and 1: whole, and then not called a part */
};

/* A part: the p-th of `parts` nearly equal ones of n. */
static unsigned edge(unsigned n, unsigned parts, unsigned p)
{
	return TPD_MIN(n, (n + parts - 1) / parts * p);
}

/* One rank's file: its parts of "w" [ROWS, COLUMNS] and of "experts" [EXPERTS, IN, OUT], cut along IN and OUT. */
static void write_rank(uint64_t step, const struct cut *cut, unsigned r, unsigned c)
{
	const bool is_part = always_parts || cut->rows * cut->columns > 1;
	struct piece pieces[] = {
		{.name = "w", .dtype = "F32", .tensor = 1, .ndim = 2, .is_part = is_part, .whole = {ROWS, COLUMNS},
		 .at = {edge(ROWS, cut->rows, r), edge(COLUMNS, cut->columns, c)},
		 .size = {edge(ROWS, cut->rows, r + 1), edge(COLUMNS, cut->columns, c + 1)}},
		{.name = "experts", .dtype = "BF16", .tensor = 2, .ndim = 3, .is_part = is_part, .whole = {EXPERTS, IN, OUT},
		 .at = {0, edge(IN, cut->rows, r), edge(OUT, cut->columns, c)},
		 .size = {EXPERTS, edge(IN, cut->rows, r + 1), edge(OUT, cut->columns, c + 1)}},
	};

	for (size_t i = 0; i < TPD_ARRAY_LEN(pieces); i++)
		for (unsigned d = 0; d < 3; d++)
			pieces[i].size[d] -= pieces[i].at[d];
	write_pieces(scratch("checkpoint-%d/rank_%u.safetensors", (int)step, r * cut->columns + c), step, pieces, TPD_ARRAY_LEN(pieces));
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
	if (!stay)
		rename(scratch("checkpoint-%d", (int)step), scratch("saved-%d", (int)step));
}

/* All files of a step, byte for byte; and verified. */
static void check_step(uint64_t step, unsigned ranks)
{
	for (unsigned r = 0; r < ranks; r++) {
		char name[32];

		snprintf(name, sizeof(name), "rank_%u.safetensors", r);
		check_file(step, name);
	}
	OK(verdict(step));
}

/* Whatever the ranks do, a step costs what it would have cost had they stayed, and is compared with all of what was before. */
START_TEST(ranks_come_and_go)
{
	static const struct cut cuts[] = {{2, 1}, {2, 1}, {3, 1}, {3, 1}, {1, 2}, {1, 1}, {2, 2}, {2, 2}};
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
		ck_assert_uint_eq(seen.pairs, ELEMENTS);
		ck_assert_uint_ge(seen.zeros, ELEMENTS / 4);
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

	always_parts = true;
	archive_open(16, 0, 2);
	for (uint64_t step = 0; step < TPD_ARRAY_LEN(cuts); step++) {
		save(step, cuts[step].rows, cuts[step].columns);
		if (step > 0) {
			ck_assert_uint_eq(look(step).in_slabs, look(step).tensors);
			ck_assert_uint_eq(look(step).pairs, ELEMENTS);
		}
	}
	for (uint64_t step = 0; step < TPD_ARRAY_LEN(cuts); step++)
		check_step(step, cuts[step].rows * cuts[step].columns);
	always_parts = false;
}
END_TEST

/* However often: reading them stays as cheap as FORMAT.md says, and nothing begins afresh. */
START_TEST(many_changes)
{
	archive_open(16, 0, 2);
	for (uint64_t step = 0; step <= 9; step++) {
		save(step, 2 + step % 2, 1);
		if (step > 0)
			ck_assert_uint_eq(look(step).in_slabs, look(step).tensors);
	}
	for (uint64_t step = 0; step <= 9; step++)
		check_step(step, 2 + step % 2);
}
END_TEST

static const struct cut wide[] = {{1, 1}, {1, 12}, {12, 1}, {1, 12}, {1, 12}};

/*
 * Cuts that multiply: five chunks for one, then twelve for each of these. What would take a reader too much refers to the keyframe
 * instead, and is not compared with what would have to be decoded as often.
 */
START_TEST(wide_changes)
{
	archive_open(16, 0, 2);
	for (uint64_t step = 0; step < TPD_ARRAY_LEN(wide); step++)
		save(step, wide[step].rows, wide[step].columns);
	ck_assert_uint_eq(depth_of("run@1"), 1);
	ck_assert_uint_eq(look(1).pairs, ELEMENTS);
	ck_assert_uint_eq(depth_of("run@2"), 1);
	ck_assert_uint_eq(look(2).in_slabs, look(2).tensors);
	ck_assert_uint_lt(look(2).pairs, ELEMENTS);
	ck_assert_uint_gt(look(3).in_slabs, 0);
	ck_assert_uint_eq(look(4).whole, look(4).tensors);
	ck_assert_uint_eq(look(4).pairs, ELEMENTS);
	for (uint64_t step = 0; step < TPD_ARRAY_LEN(wide); step++)
		check_step(step, wide[step].rows * wide[step].columns);
}
END_TEST

/* What lies there as it is costs nothing to look at. */
START_TEST(wide_changes_at_hand)
{
	stay = true;
	archive_open(16, 0, 2);
	for (uint64_t step = 0; step < TPD_ARRAY_LEN(wide); step++)
		save(step, wide[step].rows, wide[step].columns);
	for (uint64_t step = 1; step < TPD_ARRAY_LEN(wide); step++) {
		ck_assert_uint_eq(look(step).pairs, ELEMENTS);
		OK(verdict(step));
	}
	stay = false;
}
END_TEST

/* Rows from `first` on of one tensor, as one file; is_part: it says so. */
static void save_rows(uint64_t step, unsigned first, unsigned rows, const char *name, const char *dtype, bool is_part)
{
	const struct piece piece = {.name = name, .dtype = dtype, .tensor = 1, .ndim = 2, .is_part = is_part, .at = {first, 0},
				    .size = {rows, COLUMNS}, .whole = {100000, COLUMNS}};

	write_pieces(scratch("w-%d.safetensors", (int)step), step, &piece, 1);
	OK(ingest(scratch("w-%d.safetensors", (int)step), "run", step, NULL));
}

/* What is not called a part is another tensor when its size is another; and so is a part of another type or shape. */
START_TEST(other_tensors_start_afresh)
{
	archive_open(16, 0, 2);
	save_rows(0, 0, 100, "w", "F32", false);
	save_rows(1, 0, 101, "w", "F32", false);
	ck_assert_uint_eq(look(1).in_slabs + look(1).whole, 0);
	save_rows(2, 51, 50, "w", "F32", true); /* the last rows of it */
	ck_assert_uint_eq(look(2).in_slabs, 1);
	save_rows(3, 51, 50, "w", "BF16", true);
	ck_assert_uint_eq(look(3).in_slabs + look(3).whole, 0);
	save_rows(4, 51, 49, "w[51,0]", "BF16", false); /* a name like any other */
	ck_assert_uint_eq(look(4).in_slabs + look(4).whole, 0);
	save_rows(5, 51, 50, "w", "BF16", true);
	save_rows(6, 80, 50, "w", "BF16", true); /* of 50 rows 21 are known */
	ck_assert_uint_eq(look(6).in_slabs + look(6).whole, 0);
	save_rows(7, 95, 50, "w", "BF16", true); /* and 35, with which no statistics are made */
	ck_assert_uint_eq(look(7).in_slabs, 1);
	ck_assert_uint_eq(look(7).pairs, 0);
	for (uint64_t step = 0; step <= 7; step++)
		OK(verdict(step));
}
END_TEST

/* The manifest of a step, changed by somebody who can make its checksums right. */
static void forge(uint64_t step, void (*change)(struct tpd_entry *entry))
{
	struct tpd_manifest m;
	struct tpd_archive_name which;
	char name[32];

	snprintf(name, sizeof(name), "run@%d", (int)step);
	which = resolve(name);
	OK(tpd_store_manifest_keep(tpd_archive_store(archive), &which.id, TPD_MANIFEST_ALL, &m, &err));
	change(&m.entries[0]);
	forge_manifest(&m, TPD_OK);
	tpd_manifest_release(&m);
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
	refer(entry, &(struct tpd_slab){.segment = 1, .block = 8, .stride = 8, .ref_stride = 1u << 17, .count = 65});
}

static void scattered_less(struct tpd_entry *entry)
{
	refer(entry, &(struct tpd_slab){.segment = 1, .block = 8, .stride = 8, .ref_stride = 1u << 17, .count = 64});
}

/* Together they are not longer than the tensor, but more than four times as long as its first chunk, where all are. */
static void overlapping(struct tpd_entry *entry)
{
	struct tpd_slab slabs[7];

	for (unsigned i = 0; i < 7; i++)
		slabs[i] = (struct tpd_slab){.segment = 1, .block = 8, .count = 10000, .stride = 8, .ref_stride = 8};
	OK(tpd_entry_refer(entry, 1, slabs, 7, false, &err));
}

START_TEST(forged_slabs)
{
	static void (*const changes[])(struct tpd_entry *) = {behind_the_end, no_such_segment, glue, other_elements};
	static const char *const faults[] = {"of another type or size", "does not have", "does not have", "chunk"};

	archive_open(16, 0, 2);
	save_rows(0, 0, 100, "w", "F32", false);
	save_rows(1, 0, 100, "w", "F32", false);
	OK(verdict(1));
	for (size_t i = 0; i < TPD_ARRAY_LEN(changes); i++) {
		forge(1, changes[i]);
		ck_assert_int_eq(verdict(1), TPD_CORRUPT);
		ck_assert_msg(strstr(err.text, faults[i]) != NULL, "%s", err.text);
	}
	save_rows(2, 0, 12400, "v", "F32", false); /* 66 chunks and more */
	save_rows(3, 0, 12400, "v", "F32", false);
	forge(3, scattered_less);
	ck_assert_int_eq(verdict(3), TPD_CORRUPT);
	ck_assert_msg(strstr(err.text, "more than 64 chunks") == NULL, "%s", err.text);
	forge(3, scattered);
	ck_assert_int_eq(verdict(3), TPD_CORRUPT);
	ck_assert_msg(strstr(err.text, "more than 64 chunks") != NULL, "%s", err.text);
	forge(3, overlapping);
	ck_assert_int_eq(verdict(3), TPD_CORRUPT);
	ck_assert_msg(strstr(err.text, "overlap") != NULL, "%s", err.text);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		ranks_come_and_go,
		parts_without_names,
		many_changes,
		wide_changes,
		wide_changes_at_hand,
		other_tensors_start_afresh,
		forged_slabs,
	};

	return run_tests("reshard", tests, TPD_ARRAY_LEN(tests));
}
