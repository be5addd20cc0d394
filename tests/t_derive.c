/*
 * t_derive.c - weights in BF16 or F16 beside their F32 masters: they take nothing, come back bit for bit, and what is not their masters'
 * rounding comes back, too.
 */
#include "base/tpd.h"

#include "archive_help.h"
#include "codec/rounding.h"
#include "store/manifest.h"

#define ELEMENTS 300000u /* three chunks */

/* Where weights are not their masters' rounding; MANY lies between the elements that an ingest looks at to find masters. */
enum spoilt { CLEAN, SOME, MANY, NANS, EVERYWHERE };

static float master(unsigned element, uint64_t step)
{
	uint64_t random = 1 + 977u * element;
	double base = 0.02 * random_normal(&random), move = random_normal(&random);

	return (float)(base + 1e-4 * move * (double)step);
}

/* A file of tensors of n elements each, whose bytes are `data`, one behind the other. */
static void write_tensors(const char *path, const char *const *names, const char *dtype, unsigned count, unsigned n, unsigned width,
			  const struct tpd_buf *data)
{
	struct tpd_buf file = {0}, header = {0};

	tpd_buf_printf(&header, "{");
	for (unsigned i = 0; i < count; i++)
		tpd_buf_printf(&header, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%u],\"data_offsets\":[%u,%u]}", i ? "," : "", names[i], dtype, n,
			       i * n * width, (i + 1) * n * width);
	tpd_buf_printf(&header, "}");
	tpd_buf_u64(&file, header.len);
	tpd_buf_put(&file, header.data, header.len);
	tpd_buf_put(&file, data->data, data->len);
	ck_assert_int_eq(tpd_buf_status(data, NULL), TPD_OK);
	ck_assert_int_eq(tpd_buf_status(&file, NULL), TPD_OK);
	file_write(path, file.data, file.len);
	tpd_buf_release(&header);
	tpd_buf_release(&file);
}

/* `tensors` weights in one file, and their masters, one behind the other, in `ranks` tensors, each in a file of its own. */
static void save(uint64_t step, bool is_bf16, unsigned tensors, unsigned ranks, enum spoilt spoilt)
{
	static const char *const names[] = {"weight.0", "weight.1", "weight.2", "weight.3", "weight.4"};
	static const char *const states[] = {"flat", "state.0.exp_avg"};
	struct tpd_buf masters = {0}, weights = {0};

	mkdir(scratch("checkpoint-%d", (int)step), 0755);
	for (unsigned i = 0; i < ELEMENTS; i++) {
		float value = master(i, step);
		uint32_t bits;
		uint16_t half;

		memcpy(&bits, &value, sizeof(bits));
		if (spoilt == NANS && i % 1000 == 500)
			bits = 0x7fa00000u + i;
		half = is_bf16 ? tpd_round_bf16(bits) : tpd_round_f16(bits);
		if ((spoilt == SOME && i % 5000 == 77) || (spoilt == MANY && i > 150100 && i < 170000 && i % 16 == 3) ||
		    (spoilt == EVERYWHERE && i % 16 == 3) || (spoilt == NANS && i % 1000 == 500))
			half ^= 1;
		tpd_buf_u32(&masters, bits);
		tpd_buf_u16(&weights, half);
		if ((i + 1) % (ELEMENTS / ranks) == 0) {
			for (unsigned j = 0; j < ELEMENTS / ranks; j++) {
				value = 1e-3f * master(j + 7 * i, 3 * step + 1);
				memcpy(&bits, &value, sizeof(bits));
				tpd_buf_u32(&masters, bits);
			}
			write_tensors(scratch("checkpoint-%d/rank_%u.safetensors", (int)step, (i + 1) / (ELEMENTS / ranks) - 1), states,
				      "F32", 2, ELEMENTS / ranks, 4, &masters);
			masters.len = 0;
		}
	}
	write_tensors(scratch("checkpoint-%d/model.safetensors", (int)step), names, is_bf16 ? "BF16" : "F16", tensors,
		      ELEMENTS / tensors, 2, &weights);
	tpd_buf_release(&masters);
	tpd_buf_release(&weights);
	OK(ingest(scratch("checkpoint-%d", (int)step), "run", step, NULL));
	rename(scratch("checkpoint-%d", (int)step), scratch("saved-%d", (int)step)); /* what comes next replays it */
}

static struct tpd_manifest manifest_of(uint64_t step)
{
	struct tpd_archive_name which;
	struct tpd_manifest m;
	char name[32];

	snprintf(name, sizeof(name), "run@%d", (int)step);
	which = resolve(name);
	OK(tpd_store_manifest_keep(tpd_archive_store(archive), &which.id, TPD_MANIFEST_ALL, &m, &err));
	return m;
}

/* Restored and verified; how many bytes the weights took, all of which were stored so. */
static uint64_t check_step(uint64_t step, const char *encoding)
{
	struct tpd_manifest m = manifest_of(step);
	const struct tpd_entry *model = &m.entries[0];
	uint64_t stored = 0;
	char name[32], to[512];
	struct tpd_archive_name which;

	ck_assert_uint_gt(model->segment_count, 1);
	for (uint32_t s = 1; s < model->segment_count; s++) {
		ck_assert_str_eq(tpd_segment_encoding(&model->segments[s], &model->about[s]), encoding);
		stored += model->about[s].stored;
	}
	snprintf(name, sizeof(name), "run@%d", (int)step);
	snprintf(to, sizeof(to), "%s", scratch("out-%d", (int)step));
	OK(restore(name, to));
	for (uint32_t f = 0; f < m.entry_count; f++)
		ck_assert(file_equal(scratch("out-%d/%s", (int)step, m.entries[f].path), scratch("saved-%d/%s", (int)step, m.entries[f].path)));
	tpd_manifest_release(&m);
	which = resolve(name);
	ck_assert_msg(tpd_archive_verify(archive, &which.id, NULL, &err) == TPD_OK, "%s: %s", name, err.text);
	return stored;
}

/* Keyframe, deltas and anchors. */
START_TEST(copies_take_nothing)
{
	archive_open(2, 0, 2);
	for (uint64_t step = 0; step < 6; step++)
		save(step, true, 1, 1, CLEAN);
	ck_assert_uint_eq(depth_of("run@2"), 2);
	ck_assert_uint_eq(depth_of("run@3"), 1); /* an anchor */
	for (uint64_t step = 0; step < 6; step++)
		ck_assert_uint_eq(check_step(step, "derived"), 0);
}
END_TEST

START_TEST(halves_of_the_other_type)
{
	archive_open(16, 0, 2);
	save(0, false, 1, 1, CLEAN);
	save(1, false, 1, 1, CLEAN);
	ck_assert_uint_eq(check_step(0, "derived"), 0);
	ck_assert_uint_eq(check_step(1, "derived"), 0);
}
END_TEST

/* What differs is told, a few bytes each; and with it NaN, whose bits no rounding has to keep. */
START_TEST(exceptions)
{
	archive_open(16, 0, 2);
	save(0, true, 1, 1, SOME);
	save(1, true, 1, 1, NANS);
	save(2, true, 1, 1, MANY);
	save(3, true, 1, 1, EVERYWHERE);
	ck_assert_uint_lt(check_step(0, "derived"), ELEMENTS / 5000 * 4 + 3 * 64);
	ck_assert_uint_lt(check_step(1, "derived"), ELEMENTS / 1000 * 4 + 3 * 64);
	ck_assert_uint_lt(check_step(2, "derived"), 20000 / 16 * 4 + 3 * 64);
	check_step(3, "classes"); /* no masters, then */
}
END_TEST

/* Five weights and two partitions, one of which ends inside the third weight and inside a chunk. */
START_TEST(masters_in_partitions)
{
	archive_open(16, 0, 2);
	for (uint64_t step = 0; step < 3; step++)
		save(step, true, 5, 2, CLEAN);
	for (uint64_t step = 0; step < 3; step++)
		ck_assert_uint_eq(check_step(step, "derived"), 0);
}
END_TEST

/* --- made by somebody who can make checksums right --- */

static void forge(uint64_t step, void (*change)(struct tpd_manifest *m), enum tpd_status expect)
{
	struct tpd_manifest m = manifest_of(step);

	change(&m);
	forge_manifest(&m, expect);
	tpd_manifest_release(&m);
}

static void refer(struct tpd_manifest *m, unsigned file, const struct tpd_slab *slab)
{
	OK(tpd_entry_refer(&m->entries[file], 1, slab, 1, true, &err));
}

static void from_itself(struct tpd_manifest *m)
{
	refer(m, 0, &(struct tpd_slab){.file = 0, .segment = 1, .block = ELEMENTS, .count = 1});
}

static void in_a_circle(struct tpd_manifest *m)
{
	refer(m, 1, &(struct tpd_slab){.file = 0, .segment = 1, .block = ELEMENTS, .count = 1});
}

static void to_more_bits(struct tpd_manifest *m)
{
	m->entries[0].segments[1].has_ref = m->entries[0].segments[1].derived = false;
	refer(m, 1, &(struct tpd_slab){.file = 0, .segment = 1, .block = ELEMENTS, .count = 1});
}

static void from_glue(struct tpd_manifest *m)
{
	refer(m, 0, &(struct tpd_slab){.file = 1, .segment = 0, .block = 1, .count = 1});
}

static void from_behind(struct tpd_manifest *m)
{
	refer(m, 0, &(struct tpd_slab){.file = 1, .segment = 1, .ref_start = 1, .block = ELEMENTS, .count = 1});
}

static void from_no_file(struct tpd_manifest *m)
{
	refer(m, 0, &(struct tpd_slab){.file = 2, .segment = 1, .block = ELEMENTS, .count = 1});
}

static void from_others(struct tpd_manifest *m)
{
	refer(m, 0, &(struct tpd_slab){.file = 1, .segment = 1, .ref_start = 1, .block = ELEMENTS - 1, .count = 1});
}

START_TEST(forged)
{
	static void (*const refused[])(struct tpd_manifest *) = {from_itself, in_a_circle, to_more_bits, from_glue, from_behind,
								 from_no_file};
	struct tpd_archive_name which;

	archive_open(16, 0, 2);
	save(0, true, 1, 1, CLEAN);
	for (size_t i = 0; i < TPD_ARRAY_LEN(refused); i++)
		forge(0, refused[i], TPD_USAGE);
	forge(0, from_others, TPD_OK);
	which = resolve("run@0");
	ck_assert_int_eq(tpd_archive_verify(archive, &which.id, NULL, &err), TPD_CORRUPT);
	ck_assert_msg(strstr(err.text, "recorded digest") != NULL, "%s", err.text);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		copies_take_nothing,
		halves_of_the_other_type,
		exceptions,
		masters_in_partitions,
		forged,
	};

	return run_tests("derive", tests, TPD_ARRAY_LEN(tests));
}
