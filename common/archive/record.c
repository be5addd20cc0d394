/*
 * record.c - a manifest as rows of the catalog. The only place where the two vocabularies meet.
 */
#include "base/tpd.h"

#include "archive/internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/digest.h"

struct rows {
	struct tpd_catalog_file *files;
	struct tpd_catalog_tensor *tensors;
	char (*digests)[TPD_SHA256_HEX];
	char **shapes; /* one a tensor, or NULL */
	size_t tensor_count;
};

static void rows_release(struct rows *rows)
{
	for (size_t i = 0; rows->shapes && i < rows->tensor_count; i++)
		free(rows->shapes[i]);
	free(rows->shapes);
	free(rows->files);
	free(rows->tensors);
	free(rows->digests);
}

/* "[256,688]"; NULL in *out when the shape is not known. */
static enum tpd_status shape_text(const struct tpd_segment_about *seg, char **out, struct tpd_err *err)
{
	struct tpd_buf buf = {0};
	enum tpd_status status;

	if (seg->ndim == 0)
		return TPD_OK;
	for (unsigned d = 0; d < seg->ndim; d++)
		tpd_buf_printf(&buf, "%s%llu", d ? "," : "[", (unsigned long long)seg->dims[d]);
	tpd_buf_put(&buf, "]", 2);
	status = tpd_buf_status(&buf, err);
	if (status)
		tpd_buf_release(&buf);
	else
		*out = (char *)buf.data;
	return status;
}

static uint64_t parts_bytes(const struct tpd_entry *entry)
{
	uint64_t bytes = 0;

	for (uint32_t p = 0; p < entry->part_count; p++)
		bytes += entry->parts[p].bytes;
	return bytes;
}

static enum tpd_status make_rows(const struct tpd_manifest *m, struct rows *rows, struct tpd_err *err)
{
	static const char *const types[] = {"file", "symlink", "dir"};
	size_t tensors = 0;

	for (uint32_t i = 0; i < m->entry_count; i++)
		tensors += m->entries[i].segment_count;
	rows->files = calloc(m->entry_count + 1u, sizeof(*rows->files));
	rows->digests = calloc(m->entry_count + 1u, sizeof(*rows->digests));
	rows->tensors = calloc(tensors + 1, sizeof(*rows->tensors));
	rows->shapes = calloc(tensors + 1, sizeof(*rows->shapes));
	if (!rows->files || !rows->digests || !rows->tensors || !rows->shapes)
		return tpd_fail_nomem(err);
	for (uint32_t i = 0; i < m->entry_count; i++) {
		const struct tpd_entry *entry = &m->entries[i];
		bool regular = entry->type == TPD_ENTRY_FILE;

		if (regular)
			tpd_hex(entry->sha256, sizeof(entry->sha256), rows->digests[i]);
		rows->files[i] = (struct tpd_catalog_file){
			.path = entry->path,
			.type = types[entry->type],
			.format = regular ? tpd_format_kind_name(entry->format) : NULL,
			.target = entry->target,
			.mode = entry->mode,
			.mtime_ns = entry->mtime_ns,
			.size = entry->size,
			.stored = parts_bytes(entry),
			.sha256 = regular ? rows->digests[i] : NULL,
		};
		for (uint32_t s = 0; s < entry->segment_count; s++) {
			const struct tpd_segment *seg = &entry->segments[s];
			const struct tpd_segment_about *about = &entry->about[s];
			enum tpd_status status = shape_text(about, &rows->shapes[rows->tensor_count], err);

			if (status)
				return status;
			rows->tensors[rows->tensor_count] = (struct tpd_catalog_tensor){
				.name = about->name,
				.file = i, /* its row in files */
				.segment = s,
				.dtype = tpd_dtype_name(seg->dtype),
				.encoding = tpd_segment_encoding(seg, about),
				.shape = rows->shapes[rows->tensor_count],
				.size = seg->length,
				.stored = about->stored,
				.has_stats = about->stats != NULL,
				.stats = about->stats ? *about->stats : (struct tpd_sparsity){0},
			};
			rows->tensor_count++;
		}
	}
	return TPD_OK;
}

enum tpd_status tpd_archive_record(struct tpd_store *store, struct tpd_catalog *catalog, const struct tpd_id *id,
				   uint32_t version, const struct tpd_run_metrics *metrics, struct tpd_err *err)
{
	struct tpd_manifest m;
	struct rows rows = {0};
	char hex[TPD_ID_HEX], ref[TPD_ID_HEX], w1[TPD_ID_HEX];
	uint64_t bytes = 0;
	enum tpd_status status = tpd_store_manifest_keep(store, id, TPD_MANIFEST_ALL, &m, err);

	if (status)
		return status;
	status = tpd_store_object_bytes(store, id, &bytes, err);
	if (!status)
		status = make_rows(&m, &rows, err);
	if (!status) {
		struct tpd_catalog_checkpoint row = {
			.id = hex,
			.run = m.run,
			.kind = m.kind == TPD_CHECKPOINT_FILE ? "file" : "dir",
			.source = m.source,
			.step = m.step,
			.version = version,
			.created_ns = m.created_ns,
			.size = tpd_manifest_size(&m),
			.stored = bytes,
			.depth = m.depth,
			.ref_id = m.has_ref ? ref : NULL,
			.w1_id = m.has_w1 ? w1 : NULL,
			.w1_step = m.w1_step,
			.files = rows.files,
			.file_count = m.entry_count,
			.tensors = rows.tensors,
			.tensor_count = rows.tensor_count,
			.metrics = tpd_run_metrics_of(metrics, id),
		};

		tpd_id_hex(id, hex);
		tpd_id_hex(&m.ref, ref);
		tpd_id_hex(&m.w1, w1);
		status = tpd_catalog_put(catalog, &row, err);
	}
	rows_release(&rows);
	tpd_manifest_release(&m);
	return status;
}
