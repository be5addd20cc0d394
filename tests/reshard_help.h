/*
 * reshard_help.h - for tests of tensors that are cut differently from step to step: boxes of known values, written as DCP writes
 * safetensors, stored, and looked at.
 */
#ifndef TESTS_RESHARD_HELP_H
#define TESTS_RESHARD_HELP_H

#include "base/tpd.h"

#include "archive_help.h"
#include "store/manifest.h"

/* A box of a tensor: where it begins, its size, and the size of the whole, which says what its values are. */
struct piece {
	const char *name, *dtype; /* F32 or BF16 */
	unsigned tensor;          /* another number: other values */
	unsigned ndim;
	unsigned at[3], size[3], whole[3];
	bool is_part; /* the file says where it begins */
	const float *values; /* of the whole; NULL: value() */
};

/* Of step 0 there is noise, which moves a little at three of four places. */
static TPD_UNUSED float value(unsigned tensor, unsigned element, uint64_t step)
{
	uint64_t random = 1 + tensor + 977u * element;
	double base = 0.02 * random_normal(&random), move = random_normal(&random);

	return (float)(base + (element % 4 ? 1e-5 * move * (double)step : 0));
}

static TPD_UNUSED unsigned width_of(const struct piece *piece)
{
	return strcmp(piece->dtype, "F32") == 0 ? 4 : 2;
}

static TPD_UNUSED size_t elements_of(const struct piece *piece)
{
	size_t elements = 1;

	for (unsigned d = 0; d < piece->ndim; d++)
		elements *= piece->size[d];
	return elements;
}

static TPD_UNUSED void put_sharding(struct tpd_buf *header, const struct piece *pieces, size_t count)
{
	bool first = true;

	for (size_t i = 0; i < count; i++) {
		if (!pieces[i].is_part)
			continue;
		tpd_buf_printf(header, "%s\\\"%s\\\": {\\\"saved_offsets\\\": [", first ? "\"__metadata__\":{\"DCP_SHARDING_INFO\":\"{" : ", ",
			       pieces[i].name);
		for (unsigned d = 0; d < pieces[i].ndim; d++)
			tpd_buf_printf(header, "%s%u", d ? ", " : "", pieces[i].at[d]);
		tpd_buf_printf(header, "]}");
		first = false;
	}
	if (!first)
		tpd_buf_printf(header, "}\"},");
}

static TPD_UNUSED void put_values(struct tpd_buf *file, const struct piece *piece, uint64_t step)
{
	for (size_t i = 0, n = elements_of(piece); i < n; i++) {
		size_t left = i, element = 0, stride = 1;
		float v;
		uint32_t bits;

		for (unsigned d = piece->ndim; d-- > 0;) {
			element += (piece->at[d] + left % piece->size[d]) * stride;
			left /= piece->size[d];
			stride *= piece->whole[d];
		}
		v = piece->values ? piece->values[element] : value(piece->tensor, (unsigned)element, step);
		memcpy(&bits, &v, sizeof(bits));
		if (width_of(piece) == 4)
			tpd_buf_u32(file, bits);
		else
			tpd_buf_u16(file, (uint16_t)(bits >> 16));
	}
}

static TPD_UNUSED void write_pieces(const char *path, uint64_t step, const struct piece *pieces, size_t count)
{
	struct tpd_buf header = {0}, file = {0};
	size_t offset = 0;

	tpd_buf_printf(&header, "{");
	put_sharding(&header, pieces, count);
	for (size_t i = 0; i < count; i++) {
		size_t bytes = elements_of(&pieces[i]) * width_of(&pieces[i]);

		tpd_buf_printf(&header, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[", i ? "," : "", pieces[i].name, pieces[i].dtype);
		for (unsigned d = 0; d < pieces[i].ndim; d++)
			tpd_buf_printf(&header, "%s%u", d ? "," : "", pieces[i].size[d]);
		tpd_buf_printf(&header, "],\"data_offsets\":[%zu,%zu]}", offset, offset + bytes);
		offset += bytes;
	}
	tpd_buf_printf(&header, "}");
	tpd_buf_u64(&file, header.len);
	tpd_buf_put(&file, header.data, header.len);
	for (size_t i = 0; i < count; i++)
		put_values(&file, &pieces[i], step);
	ck_assert_int_eq(tpd_buf_status(&file, NULL), TPD_OK);
	file_write(path, file.data, file.len);
	tpd_buf_release(&header);
	tpd_buf_release(&file);
}

/* A checkpoint of one file; the source is taken away afterwards, so that references are replayed. */
static TPD_UNUSED void save_pieces(uint64_t step, const struct piece *pieces, size_t count)
{
	ck_assert_int_eq(mkdir(scratch("checkpoint-%d", (int)step), 0755), 0);
	write_pieces(scratch("checkpoint-%d/model.safetensors", (int)step), step, pieces, count);
	OK(ingest(scratch("checkpoint-%d", (int)step), "run", step, NULL));
	rename(scratch("checkpoint-%d", (int)step), scratch("saved-%d", (int)step));
}

static TPD_UNUSED enum tpd_status verdict(uint64_t step)
{
	char name[32];
	struct tpd_archive_name which;

	snprintf(name, sizeof(name), "run@%d", (int)step);
	which = resolve(name);
	return tpd_archive_verify(archive, &which.id, NULL, &err);
}

/* That file of a step comes back as it was. */
static TPD_UNUSED void check_file(uint64_t step, const char *file)
{
	char name[32], to[512], a[600], b[600];

	snprintf(name, sizeof(name), "run@%d", (int)step);
	snprintf(to, sizeof(to), "%s", scratch("out-%d", (int)step));
	if (access(to, F_OK) != 0)
		ck_assert_msg(restore(name, to) == TPD_OK, "%s: %s", name, err.text);
	snprintf(a, sizeof(a), "%s/%s", to, file);
	snprintf(b, sizeof(b), "%s", scratch("saved-%d/%s", (int)step, file));
	ck_assert_msg(file_equal(a, b), "%s of %s differs", file, name);
}

/* What the tensors of a step took, what they were compared with, and how their references are. */
struct seen {
	uint64_t stored, pairs, zeros;
	unsigned tensors, whole, in_slabs;
};

/* file: -1: of all. */
static TPD_UNUSED struct seen look_at(uint64_t step, int file)
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

		for (uint32_t s = 1; (file < 0 || f == (uint32_t)file) && s < entry->segment_count; s++) {
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

static TPD_UNUSED struct seen look(uint64_t step)
{
	return look_at(step, -1);
}

#endif
