/*
 * t_reshard_match.c - which earlier tensors a tensor that is cut anew is laid over, and what that costs whoever reads it.
 */
#include "base/tpd.h"

#include "reshard_help.h"

#include "base/io_count.h"

#define ROWS 600u
#define COLUMNS 512u

/* Rows [from, to) of a tensor of that number, called "w". */
static struct piece rows_of(unsigned tensor, unsigned from, unsigned to)
{
	return (struct piece){.name = "w", .dtype = "F32", .tensor = tensor, .ndim = 2, .is_part = true, .at = {from, 0},
			      .size = {to - from, COLUMNS}, .whole = {ROWS, COLUMNS}};
}

/* A step of two models of the same names, in directories of their own, of `ranks` files each. */
static void save_models(uint64_t step, unsigned ranks, const char *const models[2])
{
	ck_assert_int_eq(mkdir(scratch("checkpoint-%d", (int)step), 0755), 0);
	for (unsigned m = 0; m < 2; m++) {
		char model[64];

		snprintf(model, sizeof(model), models[m], (unsigned)step);
		ck_assert_int_eq(mkdir(scratch("checkpoint-%d/%s", (int)step, model), 0755), 0);
		for (unsigned r = 0; r < ranks; r++) {
			struct piece piece = rows_of(1 + m, ROWS / ranks * r, ROWS / ranks * (r + 1));

			write_pieces(scratch("checkpoint-%d/%s/rank_%u.safetensors", (int)step, model, r), step, &piece, 1);
		}
	}
	OK(ingest(scratch("checkpoint-%d", (int)step), "run", step, NULL));
	rename(scratch("checkpoint-%d", (int)step), scratch("saved-%d", (int)step));
}

/* Each is compared with itself: three of four values moved, and all of the other's are far away. */
static void check_models(const char *const models[2], const char *a_file)
{
	static const unsigned ranks[] = {2, 2, 3, 1, 2};

	archive_open(16, 0, 2);
	for (uint64_t step = 0; step < TPD_ARRAY_LEN(ranks); step++)
		save_models(step, ranks[step], models);
	for (uint64_t step = 1; step < TPD_ARRAY_LEN(ranks); step++) {
		struct seen seen = look(step);

		ck_assert_uint_eq(seen.in_slabs + seen.whole, 2 * ranks[step]);
		ck_assert_uint_eq(seen.pairs, 2 * ROWS * COLUMNS);
		ck_assert_uint_ge(seen.zeros, 2 * ROWS * COLUMNS / 4);
		OK(verdict(step));
	}
	check_file(4, a_file);
}

START_TEST(two_models)
{
	static const char *const models[2] = {"actor", "critic"};

	check_models(models, "critic/rank_1.safetensors");
}
END_TEST

START_TEST(two_models_with_steps)
{
	static const char *const models[2] = {"actor_%u", "critic_%u"};

	check_models(models, "critic_4/rank_1.safetensors");
}
END_TEST

/* Whose number is the step's now and then. */
START_TEST(two_numbered_models)
{
	static const char *const models[2] = {"model_1", "model_2"};

	check_models(models, "model_2/rank_1.safetensors");
}
END_TEST

/* A directory for each rank: what a rank has now it takes from several of them. */
START_TEST(a_directory_for_each_rank)
{
	static const unsigned ranks[] = {2, 3, 2, 4, 1};

	archive_open(16, 0, 2);
	for (uint64_t step = 0; step < TPD_ARRAY_LEN(ranks); step++) {
		ck_assert_int_eq(mkdir(scratch("checkpoint-%d", (int)step), 0755), 0);
		for (unsigned r = 0; r < ranks[step]; r++) {
			struct piece piece = rows_of(1, ROWS / ranks[step] * r, ROWS / ranks[step] * (r + 1));

			ck_assert_int_eq(mkdir(scratch("checkpoint-%d/rank_%u", (int)step, r), 0755), 0);
			write_pieces(scratch("checkpoint-%d/rank_%u/model.safetensors", (int)step, r), step, &piece, 1);
		}
		OK(ingest(scratch("checkpoint-%d", (int)step), "run", step, NULL));
		rename(scratch("checkpoint-%d", (int)step), scratch("saved-%d", (int)step));
		if (step == 0)
			continue;
		ck_assert_uint_eq(look(step).in_slabs, ranks[step]);
		ck_assert_uint_eq(look(step).pairs, ROWS * COLUMNS);
		OK(verdict(step));
	}
}
END_TEST

/* The same with whole tensors, whose files have other names every time. */
START_TEST(two_models_in_other_files)
{
	static const char *const models[] = {"actor", "critic"};

	archive_open(16, 0, 2);
	for (uint64_t step = 10; step < 40; step += 10) {
		ck_assert_int_eq(mkdir(scratch("checkpoint-%d", (int)step), 0755), 0);
		for (unsigned m = 0; m < 2; m++) {
			struct piece piece = rows_of(1 + m, 0, ROWS);

			piece.is_part = false;
			ck_assert_int_eq(mkdir(scratch("checkpoint-%d/%s_%d", (int)step, models[m], (int)step), 0755), 0);
			write_pieces(scratch("checkpoint-%d/%s_%d/shard-%c.safetensors", (int)step, models[m], (int)step, 'a' + (int)step), step, &piece, 1);
		}
		OK(ingest(scratch("checkpoint-%d", (int)step), "run", step, NULL));
		if (step == 10)
			continue;
		ck_assert_uint_eq(look(step).pairs, 2 * ROWS * COLUMNS);
		ck_assert_uint_ge(look(step).zeros, 2 * ROWS * COLUMNS / 4);
	}
}
END_TEST

/* What two ranks held of the same rows is known once: 60 of 100 rows, not 120. */
START_TEST(parts_that_overlap)
{
	struct piece pieces[2] = {rows_of(1, 0, 60), rows_of(1, 1, 61)}, whole = rows_of(1, 0, 100);

	archive_open(16, 0, 2);
	ck_assert_int_eq(mkdir(scratch("checkpoint-0"), 0755), 0);
	write_pieces(scratch("checkpoint-0/rank_0.safetensors"), 0, &pieces[0], 1);
	write_pieces(scratch("checkpoint-0/rank_1.safetensors"), 0, &pieces[1], 1);
	OK(ingest(scratch("checkpoint-0"), "run", 0, NULL));
	save_pieces(1, &whole, 1);
	ck_assert_uint_eq(look(1).in_slabs, 1);
	ck_assert_uint_eq(look(1).pairs, 0);
	OK(verdict(1));
	check_file(1, "model.safetensors");
}
END_TEST

/* "w[3]" of a list whose members are no parts of anything, whatever they are called. */
START_TEST(lists)
{
	struct piece list[3] = {rows_of(1, 0, 100), rows_of(2, 0, 100), rows_of(3, 0, 40)};
	static const char *const names[] = {"w[0,0]", "w[1,0]", "w[2,0]"};

	archive_open(16, 0, 2);
	for (unsigned i = 0; i < 3; i++) {
		list[i].name = names[i];
		list[i].is_part = false;
	}
	save_pieces(0, list, 2);
	save_pieces(1, list, 3); /* one more, which would lie inside the first */
	ck_assert_uint_eq(look(1).whole, 2);
	ck_assert_uint_eq(look(1).in_slabs, 0);
	ck_assert_uint_eq(look(1).pairs, 2 * 100 * COLUMNS);
	OK(verdict(1));
}
END_TEST

/* Columns that leave a strip of three: all the rest is still known. */
START_TEST(small_remainders)
{
	struct piece pieces[2] = {rows_of(1, 0, ROWS), rows_of(1, 0, ROWS)}, whole = rows_of(1, 0, ROWS);

	archive_open(16, 0, 2);
	pieces[0].size[1] = COLUMNS - 3;
	pieces[1].at[1] = COLUMNS - 3;
	pieces[1].size[1] = 3;
	ck_assert_int_eq(mkdir(scratch("checkpoint-0"), 0755), 0);
	write_pieces(scratch("checkpoint-0/rank_0.safetensors"), 0, &pieces[0], 1);
	write_pieces(scratch("checkpoint-0/rank_1.safetensors"), 0, &pieces[1], 1);
	OK(ingest(scratch("checkpoint-0"), "run", 0, NULL));
	save_pieces(1, &whole, 1);
	ck_assert_uint_eq(look(1).in_slabs, 1);
	ck_assert_uint_eq(look(1).pairs, 0);
	OK(verdict(1));
	check_file(1, "model.safetensors");
}
END_TEST

/* One large box, and 6000 small ones behind it, more than anybody looks at: the last ten are found all the same. */
START_TEST(many_boxes)
{
	enum { LARGE = 20000, SMALL = 6000 };
	static struct piece pieces[1 + SMALL];
	static char names_of[1 + SMALL][24];
	struct piece part = {.name = "w", .dtype = "BF16", .tensor = 1, .ndim = 2, .is_part = true, .whole = {LARGE + 2 * SMALL, 16}};

	archive_open(16, 0, 2);
	for (unsigned i = 0; i <= SMALL; i++) {
		pieces[i] = part;
		pieces[i].at[0] = i ? LARGE + 2 * (i - 1) : 0;
		pieces[i].size[0] = i ? 2 : LARGE;
		pieces[i].size[1] = 16;
		snprintf(names_of[i], sizeof(names_of[i]), "w[%u,0]", pieces[i].at[0]);
		pieces[i].name = names_of[i];
		pieces[i].is_part = false; /* the name says it, as in a .distcp */
	}
	save_pieces(0, pieces, 1 + SMALL);
	part.size[1] = 16;
	part.at[0] = LARGE + 2 * SMALL - 20;
	part.size[0] = 20;
	save_pieces(1, &part, 1);
	ck_assert_uint_eq(look(1).in_slabs, 1);
	ck_assert_uint_eq(look(1).pairs, 20 * 16);
	OK(verdict(1));
	check_file(1, "model.safetensors");
}
END_TEST

/*
 * Sixteen columns become sixteen strips of rows: each chunk of a strip needs one of each column, and as many strips need the same ones.
 * Whoever reads them all has each chunk decoded about once.
 */
START_TEST(each_chunk_is_decoded_once)
{
	static struct tpd_io_count count;
	struct tpd_archive_options options = {.io = &count.io, .mode = TPD_ARCHIVE_CREATE, .threads = 2, .max_depth = 16};
	struct piece part = {.name = "w", .dtype = "F32", .tensor = 1, .ndim = 2, .is_part = true, .whole = {1024, 1024}};
	uint64_t calls[3];
	char store[512];

	tpd_io_count_init(&count, tpd_io_posix());
	snprintf(store, sizeof(store), "%s", scratch("store"));
	options.store = store;
	OK(tpd_archive_open(&options, &archive, &err));
	for (unsigned step = 0; step < 3; step++) {
		ck_assert_int_eq(mkdir(scratch("checkpoint-%u", step), 0755), 0);
		for (unsigned r = 0; r < 16; r++) {
			bool columns = step < 2;

			part.at[0] = columns ? 0 : 64 * r;
			part.at[1] = columns ? 64 * r : 0;
			part.size[0] = columns ? 1024 : 64;
			part.size[1] = columns ? 64 : 1024;
			write_pieces(scratch("checkpoint-%u/rank_%02u.safetensors", step, r), step, &part, 1);
		}
		OK(ingest(scratch("checkpoint-%u", step), "run", step, NULL));
		rename(scratch("checkpoint-%u", step), scratch("saved-%u", step));
		calls[step] = tpd_io_count_calls(&count);
		OK(verdict(step));
		calls[step] = tpd_io_count_calls(&count) - calls[step];
	}
	ck_assert_uint_eq(look(2).in_slabs, 16);
	ck_assert_uint_eq(depth_of("run@2"), 2);
	/* One link more than the step before, as that has one more than the first, and a little for two threads that ask for one chunk at once. */
	ck_assert_uint_lt(calls[2] - calls[1], 2 * (calls[1] - calls[0]));
	check_file(2, "rank_07.safetensors");
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		two_models,
		two_models_with_steps,
		two_numbered_models,
		two_models_in_other_files,
		a_directory_for_each_rank,
		parts_that_overlap,
		lists,
		small_remainders,
		many_boxes,
		each_chunk_is_decoded_once,
	};

	return run_tests("reshard match", tests, TPD_ARRAY_LEN(tests));
}
