/*
 * lineage_help.h - models for the tests of lineage and of repeated tensors: four tensors of one vector of values, in safetensors of any
 * float type, which may be tuned, doubled and stored under other runs.
 */
#ifndef TESTS_LINEAGE_HELP_H
#define TESTS_LINEAGE_HELP_H

#include "base/tpd.h"

#include "archive_help.h"
#include "codec/rounding.h"
#include "store/manifest.h"

#define VALUES 240256u /* of all four tensors */

static const struct {
	const char *name;
	unsigned first, n;
} parts[] = {
	{"model.embed.weight", 0, 150000}, /* two chunks */
	{"model.layers.0.weight", 150000, 45000},
	{"model.layers.1.weight", 195000, 45000},
	{"model.norm.weight", 240000, 256},
};

/* A model that begins at random. The caller's. */
static TPD_UNUSED float *model_make(uint64_t seed)
{
	float *values = malloc(VALUES * sizeof(*values));

	ck_assert_ptr_nonnull(values);
	for (unsigned i = 0; i < VALUES; i++)
		values[i] = (float)(0.02 * random_normal(&seed));
	return values;
}

/* Every value moves by about `by`. */
static TPD_UNUSED float *model_tune(const float *from, uint64_t seed, double by)
{
	float *values = malloc(VALUES * sizeof(*values));

	ck_assert_ptr_nonnull(values);
	for (unsigned i = 0; i < VALUES; i++)
		values[i] = (float)((double)from[i] + by * random_normal(&seed));
	return values;
}

/* A tensor of a file. */
struct tensor {
	const char *name;
	enum tpd_dtype dtype;
	const float *values;
	unsigned n;
};

static uint32_t bits_of(float value)
{
	uint32_t bits;

	memcpy(&bits, &value, sizeof(bits));
	return bits;
}

static TPD_UNUSED void tensors_write(const char *path, const struct tensor *tensors, size_t count)
{
	struct tpd_buf file = {0}, header = {0}, data = {0};

	tpd_buf_printf(&header, "{");
	for (size_t t = 0; t < count; t++) {
		const struct tensor *tensor = &tensors[t];
		size_t first = data.len;

		for (unsigned i = 0; i < tensor->n; i++) {
			if (tensor->dtype == TPD_DTYPE_F32)
				tpd_buf_u32(&data, bits_of(tensor->values[i]));
			else if (tensor->dtype == TPD_DTYPE_BF16)
				tpd_buf_u16(&data, tpd_round_bf16(bits_of(tensor->values[i])));
			else
				tpd_buf_u16(&data, tpd_round_f16(bits_of(tensor->values[i])));
		}
		tpd_buf_printf(&header, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%u],\"data_offsets\":[%zu,%zu]}", t ? "," : "", tensor->name,
			       tensor->dtype == TPD_DTYPE_F32    ? "F32"
			       : tensor->dtype == TPD_DTYPE_BF16 ? "BF16"
								 : "F16",
			       tensor->n, first, data.len);
	}
	tpd_buf_printf(&header, "}");
	tpd_buf_u64(&file, header.len);
	tpd_buf_put(&file, header.data, header.len);
	tpd_buf_put(&file, data.data, data.len);
	ck_assert_int_eq(tpd_buf_status(&file, NULL), TPD_OK);
	file_write(path, file.data, file.len);
	tpd_buf_release(&header);
	tpd_buf_release(&data);
	tpd_buf_release(&file);
}

/* What comes before each name. */
static const char *name_prefix = "";

/* DIR/model.safetensors, and DIR/optimizer.safetensors with moments where `moments` is no NULL. */
static TPD_UNUSED void model_write(const char *dir, const float *values, enum tpd_dtype dtype, const float *moments)
{
	struct tensor model[TPD_ARRAY_LEN(parts)], state[TPD_ARRAY_LEN(parts)];
	char names[TPD_ARRAY_LEN(parts)][32], titles[TPD_ARRAY_LEN(parts)][64], path[512];

	for (unsigned i = 0; i < TPD_ARRAY_LEN(parts); i++) {
		snprintf(names[i], sizeof(names[i]), "state.%u.exp_avg", i);
		snprintf(titles[i], sizeof(titles[i]), "%s%s", name_prefix, parts[i].name);
		model[i] = (struct tensor){titles[i], dtype, values + parts[i].first, parts[i].n};
		state[i] = (struct tensor){names[i], TPD_DTYPE_F32, moments ? moments + parts[i].first : NULL, parts[i].n};
	}
	mkdir(dir, 0755);
	snprintf(path, sizeof(path), "%s/model.safetensors", dir);
	tensors_write(path, model, TPD_ARRAY_LEN(model));
	snprintf(path, sizeof(path), "%s/optimizer.safetensors", dir);
	if (moments)
		tensors_write(path, state, TPD_ARRAY_LEN(state));
}

static TPD_UNUSED enum tpd_status store_from(const char *base, const char *dir, const char *run, uint64_t step,
					     struct tpd_ingest_result *out)
{
	struct tpd_capture *capture = NULL;
	struct tpd_ingest_result result;
	enum tpd_status status = tpd_capture_open(dir, &capture, &err);

	if (!status)
		status = tpd_archive_ingest_from(archive, base, run, step, capture, NULL, out ? out : &result, NULL, &err);
	tpd_capture_close(capture);
	return status;
}

/* The same, of a directory that is gone afterwards: what refers to it replays it. `kept` has it for comparisons; its path is returned. */
static TPD_UNUSED const char *store_and_move(const char *base, const char *dir, const char *run, uint64_t step)
{
	static unsigned number;
	const char *kept = scratch("kept-%u", number++);

	ck_assert_msg(store_from(base, dir, run, step, NULL) == TPD_OK, "%s", err.text);
	ck_assert_int_eq(rename(dir, kept), 0);
	return kept;
}

static TPD_UNUSED struct tpd_manifest manifest_of(const char *name)
{
	struct tpd_archive_name which = resolve(name);
	struct tpd_manifest m = {0};

	OK(tpd_store_manifest_keep(tpd_archive_store(archive), &which.id, TPD_MANIFEST_ALL, &m, &err));
	return m;
}

/* "RUN@STEP" of what a checkpoint refers to; "" for a keyframe. */
static TPD_UNUSED const char *reference_of(const char *name)
{
	static char text[300];
	struct tpd_manifest m = manifest_of(name);

	text[0] = 0;
	if (m.has_ref)
		snprintf(text, sizeof(text), "%s@%llu", m.ref_run ? m.ref_run : m.run, (unsigned long long)m.ref_step);
	tpd_manifest_release(&m);
	return text;
}

/* Payload bytes of the tensors of file number `file`. */
static TPD_UNUSED uint64_t stored_of(const char *name, uint32_t file)
{
	struct tpd_manifest m = manifest_of(name);
	const struct tpd_entry *entry = &m.entries[m.files[file]];
	uint64_t stored = 0;

	for (uint32_t s = 1; s < entry->segment_count; s++)
		stored += entry->about[s].stored;
	tpd_manifest_release(&m);
	return stored;
}

/* Verified, and restored file by file. */
static TPD_UNUSED void check_against(const char *name, const char *original)
{
	static unsigned number;
	struct tpd_archive_name which = resolve(name);
	struct tpd_manifest m = manifest_of(name);
	char to[512];

	snprintf(to, sizeof(to), "%s", scratch("back-%u", number++));
	ck_assert_msg(tpd_archive_verify(archive, &which.id, NULL, &err) == TPD_OK, "%s: %s", name, err.text);
	ck_assert_msg(restore(name, to) == TPD_OK, "%s: %s", name, err.text);
	for (uint32_t f = 0; f < m.file_count; f++) {
		char a[700], b[700];

		snprintf(a, sizeof(a), "%s/%s", original, m.entries[m.files[f]].path);
		snprintf(b, sizeof(b), "%s/%s", to, m.entries[m.files[f]].path);
		ck_assert_msg(file_equal(a, b), "%s of %s differs", m.entries[m.files[f]].path, name);
	}
	tpd_manifest_release(&m);
}

#endif
