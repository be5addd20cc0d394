/*
 * t_chain.c - chains of deltas: what they may take of memory and descriptors, whatever the checkpoint.
 */
#include "base/tpd.h"

#include "archive_help.h"

#include <malloc.h>
#include <sys/resource.h>

#define TENSORS 4000u
#define DEPTH 8

static bool reversed; /* the order of tensors in the file */

/* DIR/model.safetensors of `tensors` tensors of `elements` floats, which move a little with the step. */
static void make_many(uint64_t step, unsigned tensors, unsigned elements)
{
	struct tpd_buf header = {0}, file = {0};
	const unsigned bytes = elements * 4;
	uint64_t random = 1;

	tpd_buf_printf(&header, "{");
	for (unsigned t = 0; t < tensors; t++)
		tpd_buf_printf(&header, "%s\"model.layers.%u.some.tensor.of.many.weight\":{\"dtype\":\"F32\",\"shape\":[%u],"
			       "\"data_offsets\":[%u,%u]}", t ? "," : "", reversed ? tensors - 1 - t : t, elements, t * bytes, (t + 1) * bytes);
	tpd_buf_printf(&header, "}");
	tpd_buf_u64(&file, header.len);
	tpd_buf_put(&file, header.data, header.len);
	for (unsigned i = 0; i < tensors * elements; i++) {
		float value = (float)(0.02 * random_normal(&random) * (1 + 1e-4 * (double)step));
		uint32_t bits;

		memcpy(&bits, &value, sizeof(bits));
		tpd_buf_u32(&file, bits);
	}
	ck_assert_int_eq(tpd_buf_status(&file, NULL), TPD_OK);
	mkdir(scratch("checkpoint-%d", (int)step), 0755);
	file_write(scratch("checkpoint-%d/model.safetensors", (int)step), file.data, file.len);
	tpd_buf_release(&header);
	tpd_buf_release(&file);
	OK(ingest(scratch("checkpoint-%d", (int)step), "run", step, NULL));
}

/* Bytes of heap in use; 0 under a sanitizer, which has a heap of its own. */
static size_t heap(void)
{
	struct mallinfo2 info = mallinfo2();

	return info.uordblks + info.hblkhd;
}

/*
 * A tensor costs 40 bytes, and in links below that have the same tensors nothing but a bit. Names and
 * statistics are not kept at all; with them it was some 650 bytes a link.
 */
START_TEST(links_are_slim)
{
	struct tpd_archive_name name;
	struct tpd_chain *chain = NULL;
	size_t before, slim, named;

	ck_assert_uint_le(sizeof(struct tpd_segment), 40);
	archive_open(16, 0, 2);
	for (uint64_t step = 0; step <= DEPTH; step++)
		make_many(step, TENSORS, 16);
	name = resolve("run@8");
	before = heap();
	OK(tpd_chain_open(tpd_archive_store(archive), &name.id, false, &chain, &err));
	slim = heap() - before;
	ck_assert_uint_eq(tpd_chain_links(chain), DEPTH + 1);
	for (uint32_t l = 0; l <= DEPTH; l++)
		ck_assert_ptr_null(tpd_chain_link(chain, l)->entries[0].about);
	ck_assert_uint_lt(slim, TENSORS * 40 + DEPTH * TENSORS / 8 + (DEPTH + 1) * 4096);
	tpd_chain_close(chain);
	OK(tpd_chain_open(tpd_archive_store(archive), &name.id, true, &chain, &err));
	named = heap() - before;
	ck_assert_str_eq(tpd_chain_manifest(chain)->entries[0].about[1].name, "model.layers.0.some.tensor.of.many.weight");
	ck_assert_ptr_null(tpd_chain_manifest(chain)->entries[0].about[1].stats);
	ck_assert_ptr_null(tpd_chain_link(chain, 1)->entries[0].about);
	tpd_chain_forget_names(chain);
	ck_assert_ptr_null(tpd_chain_manifest(chain)->entries[0].about);
	ck_assert(slim == 0 || named > slim);
	tpd_chain_close(chain);
}
END_TEST

/* Links that are not alike: more tensors, fewer, in another order, and alike again. */
START_TEST(links_of_any_shape)
{
	static const unsigned tensors[] = {8, 8, 9, 9, 8, 8, 8, 8, 8};

	archive_open(16, 0, 2);
	for (uint64_t step = 0; step < TPD_ARRAY_LEN(tensors); step++) {
		reversed = step == 5 || step == 6;
		make_many(step, tensors[step], 1000);
		unlink(scratch("checkpoint-%d/model.safetensors", (int)step - 1)); /* the reference is replayed from now on */
	}
	reversed = false;
	ck_assert_uint_eq(depth_of("run@8"), 8);
	for (uint64_t step = 0; step < TPD_ARRAY_LEN(tensors); step++) {
		struct tpd_archive_name name;
		char text[32];

		snprintf(text, sizeof(text), "run@%d", (int)step);
		name = resolve(text);
		ck_assert_msg(tpd_archive_verify(archive, &name.id, NULL, &err) == TPD_OK, "%s", err.text);
	}
}
END_TEST

/* More parts than the process may have descriptors: 13 links of 12 parts, and four threads that read them. */
START_TEST(few_descriptors_are_enough)
{
	struct tpd_archive_name name;
	struct rlimit limit;
	char to[512];

	archive_open(16, 1u << 20, 4);
	for (uint64_t step = 0; step <= 12; step++)
		make_many(step, 12, 1u << 18);
	OK(getrlimit(RLIMIT_NOFILE, &limit) == 0 ? TPD_OK : TPD_IO);
	limit.rlim_cur = 100;
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	name = resolve("run@12");
	ck_assert_uint_eq(depth_of("run@12"), 12);
	snprintf(to, sizeof(to), "%s", scratch("out"));
	OK(restore("run@12", to));
	ck_assert(file_equal(scratch("out/model.safetensors"), scratch("checkpoint-12/model.safetensors")));
	OK(tpd_archive_verify(archive, &name.id, NULL, &err));
	unlink(scratch("checkpoint-12/model.safetensors")); /* the reference is replayed */
	make_many(13, 12, 1u << 18);
	ck_assert_uint_eq(depth_of("run@13"), 13);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		links_are_slim,
		links_of_any_shape,
		few_descriptors_are_enough,
	};

	return run_tests("chain", tests, TPD_ARRAY_LEN(tests));
}
