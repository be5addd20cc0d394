/*
 * cmd_show.c - `tpdectl show RUN@STEP [--tensors]`: what one checkpoint consists of, and how good it is.
 *
 * All of it comes from the manifest, and the metrics from the refs, which have everything that the catalog has and are
 * the truth.
 */
#include "base/tpd.h"

#include "tools/tools.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static uint64_t stored_of(const struct tpd_entry *file)
{
	uint64_t stored = 0;

	for (uint32_t s = 0; s < file->segment_count; s++)
		stored += file->about[s].stored;
	return stored;
}

/* "grid planes": what its tensors (or its segment 0, if that is all there is) are coded as, the most frequent first. */
static const char *encodings_of(const struct tpd_entry *file, char out[128])
{
	enum { DERIVED = TPD_ENCODING_COUNT };
	unsigned count[DERIVED + 1] = {0};
	size_t at = 0;

	out[0] = 0;
	for (uint32_t s = 0; s < file->segment_count; s++)
		if (file->segments[s].has_ref && file->segments[s].derived)
			count[DERIVED]++;
		else if ((s > 0 || file->segment_count == 1) && file->about[s].planned < TPD_ENCODING_COUNT)
			count[file->about[s].planned]++;
	for (;;) {
		unsigned best = 0;

		for (unsigned e = 1; e <= DERIVED; e++)
			if (count[e] > count[best])
				best = e;
		if (count[best] == 0 || at >= 128)
			return out;
		at += (size_t)snprintf(out + at, 128 - at, "%s%s", at ? " " : "",
				       best == DERIVED ? "derived" : tpd_encoding_name(best));
		count[best] = 0;
	}
}

static const char *shape_of(const struct tpd_segment_about *seg, char out[128])
{
	size_t at = 1;

	snprintf(out, 128, "[");
	for (unsigned d = 0; d < seg->ndim && at < 100; d++)
		at += (size_t)snprintf(out + at, 128 - at, "%s%llu", d ? "," : "", (unsigned long long)seg->dims[d]);
	snprintf(out + at, 128 - at, "]");
	return out;
}

static const struct tpd_segment_about *owner_of(const struct tpd_manifest *m, const struct tpd_tie *tie)
{
	return &m->entries[m->files[tie->owner.file]].about[tie->owner.segment];
}

static double share(uint64_t count, uint64_t pairs)
{
	return pairs ? (double)count / (double)pairs : 0;
}

/* --- for people --- */

static enum tpd_status print_files(const struct tpd_manifest *m, struct tpd_err *err)
{
	static const char *const titles[] = {">SIZE", ">STORED", ">RATIO", "MODE", "ENCODING", "FILE"};
	struct tpd_table table = tpd_table_make(titles, TPD_ARRAY_LEN(titles));
	enum tpd_status status;

	for (uint32_t i = 0; i < m->entry_count; i++) {
		const struct tpd_entry *entry = &m->entries[i];
		char encodings[128];

		if (entry->type == TPD_ENTRY_FILE) {
			tpd_table_add_bytes(&table, entry->size);
			tpd_table_add_bytes(&table, stored_of(entry));
			tpd_table_add_ratio(&table, entry->size, stored_of(entry));
		} else {
			for (unsigned c = 0; c < 3; c++)
				tpd_table_add(&table, "");
		}
		tpd_table_addf(&table, "%04o", entry->mode & 07777);
		tpd_table_add(&table, entry->type == TPD_ENTRY_FILE ? encodings_of(entry, encodings) : "");
		tpd_table_addf(&table, "%s%s%s%s", entry->path, entry->type == TPD_ENTRY_DIR ? "/" : "",
			       entry->target ? " -> " : "", entry->target ? entry->target : "");
	}
	status = tpd_table_print(&table, 0, err);
	tpd_table_release(&table);
	return status;
}

/* As sha256sum writes them, so that it can check them too. */
static enum tpd_status print_digests(const struct tpd_manifest *m, struct tpd_err *err)
{
	putchar('\n');
	for (uint32_t f = 0; f < m->file_count; f++) {
		const struct tpd_entry *file = &m->entries[m->files[f]];
		TPD_AUTO_FREE char *path = tpd_text_clean(file->path);
		char hex[TPD_SHA256_HEX];

		if (!path)
			return tpd_fail_nomem(err);
		tpd_hex(file->sha256, sizeof(file->sha256), hex);
		printf("%s  %s\n", hex, path);
	}
	return TPD_OK;
}

/* "state.0.exp_avg (of lm_head.weight)"; "perhaps" where the values have not said so. */
static void add_name(struct tpd_table *table, const struct tpd_manifest *m, const char *name, const struct tpd_tie *ties, uint32_t count)
{
	char more[32] = "";

	if (count > 1)
		snprintf(more, sizeof(more), " and %u more", count - 1);
	if (count == 0)
		tpd_table_add(table, name);
	else
		tpd_table_addf(table, "%s (%s%sof %s%s)", name, ties->checked ? "" : "perhaps ", ties->kind == TPD_STATE_MASTER ? "master " : "",
			       owner_of(m, ties)->name, more);
}

/* What its chunks are decoded from, beside themselves: "before w0 m1 v1 m2 v2"; room for all of them. */
static const char *from_of(const struct tpd_manifest *m, const struct tpd_entry *file, uint32_t segment, char out[32])
{
	const struct tpd_segment *seg = &file->segments[segment];
	const struct tpd_predictor *predictor = tpd_entry_predictor(file, segment);
	const unsigned terms = predictor ? predictor->terms : 0;
	const bool refers = seg->has_ref && (seg->derived || tpd_encoding_needs_reference(file->about[segment].planned));

	snprintf(out, 32, "%s%s%s%s", !refers ? "" : seg->derived ? "this" : m->ref_run ? "base" : "before",
		 terms & TPD_TERM_STEP ? " w0" : "",
		 terms & TPD_TERM_BEFORE     ? " m1 v1"
		 : terms & TPD_TERM_CAME_IN ? " v1"
					    : "",
		 terms & TPD_TERM_NOW      ? " m2 v2"
		 : terms & TPD_TERM_SCALE ? " v2"
					  : "");
	return out[0] == ' ' ? out + 1 : out;
}

static double bits_of(const struct tpd_segment *seg, const struct tpd_segment_about *about)
{
	const uint64_t elements = seg->length / tpd_dtype_width(seg->dtype);

	return elements ? 8 * (double)about->stored / (double)elements : 0;
}

/* Narrower than this, all but the most needed gives way to the names: those of an optimizer's state differ at their end. */
#define WIDE_TERMINAL 120u

/* The name comes last: it is the longest. */
static enum tpd_status print_tensors(const struct tpd_manifest *m, uint32_t number, struct tpd_err *err)
{
	const struct tpd_entry *file = &m->entries[m->files[number]];
	static const char *const wide[] = {"DTYPE", "SHAPE", ">STORED", ">BITS", "ENCODING", "NEXT BEST", "FROM", ">SAME %", ">|D|<1E-3 %",
					   "TENSOR"};
	static const char *const narrow[] = {"DTYPE", "SHAPE", ">STORED", "ENCODING", "TENSOR"};
	const unsigned columns = tpd_terminal_width(STDOUT_FILENO);
	const bool is_wide = columns == 0 || columns >= WIDE_TERMINAL;
	struct tpd_table table = is_wide ? tpd_table_make(wide, TPD_ARRAY_LEN(wide)) : tpd_table_make(narrow, TPD_ARRAY_LEN(narrow));
	TPD_AUTO_FREE char *path = tpd_text_clean(file->path);
	enum tpd_status status;

	for (uint32_t s = 1; s < file->segment_count; s++) {
		const struct tpd_segment *seg = &file->segments[s];
		const struct tpd_segment_about *about = &file->about[s];
		bool delta = about->stats && about->stats->has_delta;
		const struct tpd_tie *ties;
		uint32_t tie_count;
		char shape[128], from[32];

		tpd_table_add(&table, tpd_dtype_name(seg->dtype));
		tpd_table_add(&table, about->ndim ? shape_of(about, shape) : "");
		tpd_table_add_bytes(&table, about->stored);
		if (is_wide)
			tpd_table_addf(&table, "%.2f", bits_of(seg, about));
		tpd_table_add(&table, tpd_segment_encoding(seg, about));
		if (is_wide && about->second_permille)
			tpd_table_addf(&table, "%s x%.2f", tpd_encoding_name(about->second), about->second_permille / 1000.0);
		else if (is_wide)
			tpd_table_add(&table, "");
		if (is_wide)
			tpd_table_add(&table, from_of(m, file, s, from));
		if (is_wide && delta) {
			tpd_table_addf(&table, "%.1f", 100 * share(about->stats->zeros, about->stats->pairs));
			tpd_table_addf(&table, "%.1f", 100 * share(about->stats->raw[2], about->stats->pairs));
		} else if (is_wide) {
			tpd_table_add(&table, "");
			tpd_table_add(&table, "");
		}
		ties = tpd_manifest_ties(m, number, s, &tie_count);
		add_name(&table, m, about->name, ties, tie_count);
	}
	printf("\n%s\n", path ? path : "");
	status = tpd_table_print(&table, 0, err);
	tpd_table_release(&table);
	return status;
}

static enum tpd_status print_metrics(const struct tpd_metrics *metrics, struct tpd_err *err)
{
	for (size_t i = 0; i < metrics->count; i++) {
		TPD_AUTO_FREE char *name = tpd_text_clean(metrics->items[i].name);

		if (!name)
			return tpd_fail_nomem(err);
		printf("  %-9s  %s %.6g\n", i == 0 ? "metrics" : "", name, metrics->items[i].value);
	}
	return TPD_OK;
}

static enum tpd_status print_text(const struct tpd_ctl *ctl, const struct tpd_manifest *m, const struct tpd_metrics *metrics,
				  const char *name, const char *reference, const char *earlier, uint64_t stored, struct tpd_err *err)
{
	TPD_AUTO_FREE char *source = tpd_text_clean(m->source ? m->source : "");
	char id[TPD_ID_HEX], time[TPD_TEXT_SIZE], saving[TPD_SAVING_TEXT];
	enum tpd_status status;

	tpd_id_hex(&m->id, id);
	printf("%s\n", name);
	printf("  id         %s\n", id);
	printf("  stored at  %s UTC, from %s\n", tpd_text_time(m->created_ns, time), source ? source : "?");
	printf("  size       %s\n", tpd_text_saving(tpd_manifest_size(m), stored, saving));
	if (m->has_ref)
		printf("  reference  %s%s, depth %u\n", reference, m->ref_run ? ", of another run" : "", m->depth);
	else
		printf("  reference  none: a keyframe\n");
	if (m->has_earlier)
		printf("  and        %s, for what weights were before\n", earlier);
	status = print_metrics(metrics, err);
	putchar('\n');
	if (status == TPD_OK)
		status = print_files(m, err);
	if (status == TPD_OK)
		status = print_digests(m, err);
	for (uint32_t f = 0; status == TPD_OK && ctl->tensors && f < m->file_count; f++)
		if (m->entries[m->files[f]].segment_count > 1)
			status = print_tensors(m, f, err);
	return status;
}

/* --- JSON --- */

static void put_stats(struct tpd_json_out *out, const struct tpd_sparsity *stats)
{
	tpd_json_key(out, "stats");
	tpd_json_begin_object(out);
	tpd_json_key(out, "count");
	tpd_json_put_u64(out, stats->count);
	tpd_json_key(out, "nan");
	tpd_json_put_u64(out, stats->nan);
	tpd_json_key(out, "inf");
	tpd_json_put_u64(out, stats->inf);
	tpd_json_key(out, "value_rms");
	tpd_json_put_f64(out, stats->value_rms);
	if (stats->has_delta) {
		tpd_json_key(out, "delta_rms");
		tpd_json_put_f64(out, stats->delta_rms);
		tpd_json_key(out, "zeros");
		tpd_json_put_f64(out, share(stats->zeros, stats->pairs));
		tpd_json_key(out, "raw");
		tpd_json_begin_array(out);
		for (unsigned i = 0; i < TPD_SPARSITY_REAL; i++)
			tpd_json_put_f64(out, share(stats->raw[i], stats->pairs));
		tpd_json_end_array(out);
		tpd_json_key(out, "minmax");
		tpd_json_begin_array(out);
		for (unsigned i = 0; i < TPD_SPARSITY_REAL; i++)
			tpd_json_put_f64(out, share(stats->minmax[i], stats->pairs));
		tpd_json_end_array(out);
		tpd_json_key(out, "ulps");
		tpd_json_begin_array(out);
		for (unsigned i = 0; i < TPD_SPARSITY_ULPS; i++)
			tpd_json_put_f64(out, share(stats->ulps[i], stats->pairs));
		tpd_json_end_array(out);
	}
	tpd_json_end_object(out);
}

static void put_ties(struct tpd_json_out *out, const struct tpd_manifest *m, const struct tpd_tie *ties, uint32_t count)
{
	tpd_json_key(out, "ties");
	tpd_json_begin_array(out);
	for (const struct tpd_tie *tie = ties; tie < ties + count; tie++) {
		tpd_json_begin_object(out);
		tpd_json_key(out, "kind");
		tpd_json_put_string(out, tpd_state_kind_name(tie->kind));
		tpd_json_key(out, "first");
		tpd_json_put_u64(out, tie->state.first);
		tpd_json_key(out, "elements");
		tpd_json_put_u64(out, tie->elements);
		tpd_json_key(out, "path");
		tpd_json_put_string(out, m->entries[m->files[tie->owner.file]].path);
		tpd_json_key(out, "name");
		tpd_json_put_string(out, owner_of(m, tie)->name);
		tpd_json_key(out, "name_first");
		tpd_json_put_u64(out, tie->owner.first);
		tpd_json_key(out, "checked");
		tpd_json_put_bool(out, tie->checked);
		tpd_json_end_object(out);
	}
	tpd_json_end_array(out);
}

static void put_tensor(struct tpd_json_out *out, const struct tpd_manifest *m, uint32_t file, uint32_t segment)
{
	const struct tpd_segment *seg = &m->entries[m->files[file]].segments[segment];
	const struct tpd_segment_about *about = &m->entries[m->files[file]].about[segment];
	const struct tpd_predictor *predictor = tpd_entry_predictor(&m->entries[m->files[file]], segment);
	uint32_t tie_count;
	const struct tpd_tie *ties = tpd_manifest_ties(m, file, segment, &tie_count);

	tpd_json_begin_object(out);
	tpd_json_key(out, "name");
	tpd_json_put_string(out, about->name);
	tpd_json_key(out, "dtype");
	tpd_json_put_string(out, tpd_dtype_name(seg->dtype));
	tpd_json_key(out, "shape");
	if (about->ndim) {
		tpd_json_begin_array(out);
		for (unsigned d = 0; d < about->ndim; d++)
			tpd_json_put_u64(out, about->dims[d]);
		tpd_json_end_array(out);
	} else {
		tpd_json_put_null(out);
	}
	tpd_json_key(out, "size");
	tpd_json_put_u64(out, seg->length);
	tpd_json_key(out, "stored");
	tpd_json_put_u64(out, about->stored);
	tpd_json_key(out, "encoding");
	tpd_json_put_string(out, tpd_segment_encoding(seg, about));
	tpd_json_key(out, "bits");
	tpd_json_put_f64(out, bits_of(seg, about));
	if (about->second_permille) {
		tpd_json_key(out, "next_best");
		tpd_json_begin_object(out);
		tpd_json_key(out, "encoding");
		tpd_json_put_string(out, tpd_encoding_name(about->second));
		tpd_json_key(out, "size_ratio");
		tpd_json_put_f64(out, about->second_permille / 1000.0);
		tpd_json_end_object(out);
	}
	if (predictor) {
		static const char *const terms[] = {"w1", "w1-w0", "m1/sqrt(v1)", "m2/sqrt(v2)", "v2", "v1"};

		tpd_json_key(out, "predicted_from");
		tpd_json_begin_array(out);
		for (unsigned k = 0; k < TPD_ARRAY_LEN(terms); k++)
			if (predictor->terms >> k & 1)
				tpd_json_put_string(out, terms[k]);
		tpd_json_end_array(out);
	}
	if (tie_count)
		put_ties(out, m, ties, tie_count);
	if (about->stats)
		put_stats(out, about->stats);
	tpd_json_end_object(out);
}

/* file: its number among the regular files, if it is one. */
static void put_file(struct tpd_json_out *out, const struct tpd_manifest *m, const struct tpd_entry *entry, uint32_t file, bool tensors)
{
	static const char *const kinds[] = {"file", "symlink", "dir"};
	char hex[TPD_SHA256_HEX], encodings[128];

	tpd_json_begin_object(out);
	tpd_json_key(out, "path");
	tpd_json_put_string(out, entry->path);
	tpd_json_key(out, "type");
	tpd_json_put_string(out, kinds[entry->type]);
	tpd_json_key(out, "mode");
	tpd_json_put_u64(out, entry->mode);
	tpd_json_key(out, "mtime_ns");
	tpd_json_put_i64(out, entry->mtime_ns);
	if (entry->target) {
		tpd_json_key(out, "target");
		tpd_json_put_string(out, entry->target);
	}
	if (entry->type == TPD_ENTRY_FILE) {
		tpd_json_key(out, "size");
		tpd_json_put_u64(out, entry->size);
		tpd_json_key(out, "stored");
		tpd_json_put_u64(out, stored_of(entry));
		tpd_json_key(out, "sha256");
		tpd_hex(entry->sha256, sizeof(entry->sha256), hex);
		tpd_json_put_string(out, hex);
		tpd_json_key(out, "format");
		tpd_json_put_string(out, tpd_format_kind_name(entry->format));
		tpd_json_key(out, "encodings");
		tpd_json_put_string(out, encodings_of(entry, encodings));
		if (tensors) {
			tpd_json_key(out, "tensors");
			tpd_json_begin_array(out);
			for (uint32_t s = 1; s < entry->segment_count; s++)
				put_tensor(out, m, file, s);
			tpd_json_end_array(out);
		}
	}
	tpd_json_end_object(out);
}

static void put_json(struct tpd_buf *buf, const struct tpd_manifest *m, const struct tpd_metrics *metrics,
		     const struct tpd_archive_name *name, const char *reference, const char *earlier, uint64_t stored, bool tensors)
{
	struct tpd_json_out out = tpd_json_out_make(buf);
	char id[TPD_ID_HEX], text[TPD_NAME_TEXT];

	tpd_id_hex(&m->id, id);
	tpd_json_begin_object(&out);
	tpd_json_key(&out, "name");
	tpd_json_put_string(&out, tpd_name_text(name, text));
	tpd_json_key(&out, "run");
	tpd_json_put_string(&out, name->run);
	tpd_json_key(&out, "step");
	tpd_json_put_u64(&out, name->step);
	tpd_json_key(&out, "version");
	tpd_json_put_u64(&out, name->version);
	tpd_json_key(&out, "id");
	tpd_json_put_string(&out, id);
	tpd_json_key(&out, "created");
	tpd_json_put_i64(&out, m->created_ns / 1000000000);
	tpd_json_key(&out, "kind");
	tpd_json_put_string(&out, m->kind == TPD_CHECKPOINT_DIR ? "dir" : "file");
	tpd_json_key(&out, "source");
	tpd_json_put_string(&out, m->source);
	tpd_json_key(&out, "size");
	tpd_json_put_u64(&out, tpd_manifest_size(m));
	tpd_json_key(&out, "stored");
	tpd_json_put_u64(&out, stored);
	tpd_json_key(&out, "depth");
	tpd_json_put_u64(&out, m->depth);
	tpd_json_key(&out, "reference");
	tpd_json_put_string(&out, m->has_ref ? reference : NULL);
	tpd_json_key(&out, "earlier");
	tpd_json_put_string(&out, m->has_earlier ? earlier : NULL);
	tpd_json_key(&out, "metrics");
	tpd_rows_put_metrics(&out, metrics);
	tpd_json_key(&out, "files");
	tpd_json_begin_array(&out);
	for (uint32_t i = 0, file = 0; i < m->entry_count; i++) {
		put_file(&out, m, &m->entries[i], file, tensors);
		file += m->entries[i].type == TPD_ENTRY_FILE;
	}
	tpd_json_end_array(&out);
	tpd_json_end_object(&out);
}

int tpd_cmd_show(struct tpd_ctl *ctl, int argc TPD_UNUSED, char **argv)
{
	struct tpd_archive *archive = NULL;
	struct tpd_archive_name name;
	struct tpd_manifest m = {0};
	struct tpd_run_metrics metrics = {0};
	struct tpd_rows rows = {0};
	struct tpd_buf buf = {0};
	struct tpd_err err = {0};
	char reference[TPD_NAME_TEXT] = "", earlier[TPD_NAME_TEXT] = "", text[TPD_NAME_TEXT], id[TPD_ID_HEX];
	uint64_t stored = 0;
	int code = TPD_EXIT_DONE;
	enum tpd_status status = tpd_ctl_open(ctl, TPD_ARCHIVE_READ, &archive, &err);

	if (status == TPD_OK)
		status = tpd_archive_resolve(archive, argv[0], &name, &err);
	if (status == TPD_OK)
		status = tpd_named_manifest(archive, &name, TPD_MANIFEST_ALL, &m, &err);
	if (status == TPD_OK)
		status = tpd_store_object_bytes(tpd_archive_store(archive), &name.id, &stored, &err);
	if (status == TPD_OK)
		status = tpd_store_metrics(tpd_archive_store(archive), name.run, &metrics, &err);
	if (status == TPD_OK && m.has_ref) {
		status = tpd_rows_names(archive, &rows, &err);
		tpd_id_hex(&m.ref, id);
		tpd_rows_name_of_id(&rows, id, !ctl->json, reference);
		tpd_id_hex(&m.earlier, id);
		if (m.has_earlier)
			tpd_rows_name_of_id(&rows, id, !ctl->json, earlier);
	}
	if (status == TPD_OK && ctl->json)
		put_json(&buf, &m, tpd_run_metrics_of(&metrics, &name.id), &name, reference, earlier, stored, ctl->tensors);
	else if (status == TPD_OK)
		status = print_text(ctl, &m, tpd_run_metrics_of(&metrics, &name.id), tpd_name_text(&name, text), reference, earlier,
				    stored, &err);
	if (status)
		code = tpd_ctl_fail(ctl, &err);
	else if (ctl->json)
		code = tpd_ctl_print_json(ctl, &buf, code);
	tpd_buf_release(&buf);
	tpd_rows_release(&rows);
	tpd_run_metrics_release(&metrics);
	tpd_manifest_release(&m);
	tpd_archive_close(archive);
	return code;
}
