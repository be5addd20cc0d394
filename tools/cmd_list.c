/*
 * cmd_list.c - `tpdectl list [RUN[@STEP]]`: one row a checkpoint, with --metric one of its metrics, or with --runs one a run.
 */
#include "base/tpd.h"

#include "tools/tools.h"

#include <stdio.h>
#include <string.h>

static void put_json(struct tpd_json_out *out, const struct tpd_rows *rows, const struct tpd_row *row)
{
	char id[TPD_ID_HEX], name[TPD_NAME_TEXT];

	tpd_id_hex(&row->name.id, id);
	tpd_json_begin_object(out);
	tpd_json_key(out, "name");
	tpd_json_put_string(out, tpd_name_text(&row->name, name));
	tpd_json_key(out, "run");
	tpd_json_put_string(out, row->name.run);
	tpd_json_key(out, "step");
	tpd_json_put_u64(out, row->name.step);
	tpd_json_key(out, "version");
	tpd_json_put_u64(out, row->name.version);
	tpd_json_key(out, "id");
	tpd_json_put_string(out, id);
	tpd_json_key(out, "created");
	tpd_json_put_i64(out, row->created_ns / 1000000000);
	tpd_json_key(out, "kind");
	tpd_json_put_string(out, row->kind);
	tpd_json_key(out, "source");
	tpd_json_put_string(out, row->source);
	tpd_json_key(out, "files");
	tpd_json_put_u64(out, row->files);
	tpd_json_key(out, "size");
	tpd_json_put_u64(out, row->size);
	tpd_json_key(out, "stored");
	tpd_json_put_u64(out, row->stored);
	tpd_json_key(out, "depth");
	tpd_json_put_u64(out, row->depth);
	tpd_json_key(out, "reference");
	tpd_json_put_string(out, row->ref ? tpd_rows_name_of_id(rows, row->ref, false, name) : NULL);
	tpd_json_key(out, "metrics"); /* last: the completion looks at the rest */
	tpd_rows_put_metrics(out, row->metrics);
	tpd_json_end_object(out);
}

/* metric NULL: its column, and all columns that are empty, are not printed. */
static void add_metric(struct tpd_table *table, const struct tpd_row *row, const char *metric)
{
	const struct tpd_metric *own = metric ? tpd_metrics_find(row->metrics, metric) : NULL;

	if (own)
		tpd_table_addf(table, "%.6g", own->value);
	else
		tpd_table_add(table, "");
}

static void add_row(struct tpd_table *table, const struct tpd_rows *rows, const struct tpd_row *row, const char *metric)
{
	char name[TPD_NAME_TEXT], time[TPD_TEXT_SIZE];

	tpd_table_add(table, tpd_rows_name(rows, &row->name, true, name));
	if (row->status) {
		for (size_t i = 0; i < 5; i++)
			tpd_table_add(table, "?");
		add_metric(table, row, metric);
		tpd_table_add(table, "unreadable");
		return;
	}
	tpd_table_add(table, tpd_text_time(row->created_ns, time));
	tpd_table_add_bytes(table, row->size);
	tpd_table_add_bytes(table, row->stored);
	tpd_table_add_ratio(table, row->size, row->stored);
	tpd_table_addf(table, "%u", row->depth);
	add_metric(table, row, metric);
	tpd_table_add(table, row->ref ? tpd_rows_name_of_id(rows, row->ref, true, name) : "keyframe");
}

static bool has_metric(const struct tpd_rows *rows, const char *metric)
{
	for (size_t i = 0; i < rows->count; i++)
		if (tpd_metrics_find(rows->rows[i].metrics, metric))
			return true;
	return false;
}

static enum tpd_status print_checkpoints(const struct tpd_ctl *ctl, const struct tpd_rows *rows, struct tpd_err *err)
{
	TPD_AUTO_FREE char *metric = tpd_text_clean(ctl->metric ? ctl->metric : "");
	TPD_AUTO_FREE char *column = NULL;
	const char *titles[] = {"CHECKPOINT", "=STORED AT (UTC)", ">SIZE", ">STORED", ">RATIO", ">DEPTH", NULL, "REFERENCE"};
	struct tpd_table table = tpd_table_make(titles, TPD_ARRAY_LEN(titles));
	uint64_t size = 0, stored = 0;
	char saving[TPD_SAVING_TEXT];
	enum tpd_status status;

	if (!metric || asprintf(&column, ">%s", metric) < 0) {
		column = NULL;
		return tpd_fail_nomem(err);
	}
	titles[6] = column;
	for (size_t i = 0; i < rows->count; i++) {
		add_row(&table, rows, &rows->rows[i], ctl->metric);
		size += rows->rows[i].size;
		stored += rows->rows[i].stored;
	}
	status = tpd_table_print(&table, 0, err);
	if (status == TPD_OK && rows->count > 1)
		printf("\n%zu checkpoints: %s\n", rows->count, tpd_text_saving(size, stored, saving));
	tpd_table_release(&table);
	return status;
}

/* Rows [first, last) are one run's. */
static void add_run(struct tpd_table *table, struct tpd_json_out *json, const struct tpd_row *first,
		    const struct tpd_row *last)
{
	uint64_t size = 0, stored = 0;
	int64_t newest = 0;
	uint32_t depth = 0;
	char text[TPD_TEXT_SIZE];

	for (const struct tpd_row *row = first; row < last; row++) {
		size += row->size;
		stored += row->stored;
		depth = TPD_MAX(depth, row->depth);
		newest = TPD_MAX(newest, row->created_ns);
	}
	tpd_table_add(table, first->name.run);
	tpd_table_addf(table, "%zu", (size_t)(last - first));
	tpd_table_addf(table, "%llu", (unsigned long long)first->name.step);
	tpd_table_addf(table, "%llu", (unsigned long long)last[-1].name.step);
	tpd_table_add_bytes(table, size);
	tpd_table_add_bytes(table, stored);
	tpd_table_add_ratio(table, size, stored);
	tpd_table_add(table, tpd_text_time(newest, text));

	tpd_json_begin_object(json);
	tpd_json_key(json, "run");
	tpd_json_put_string(json, first->name.run);
	tpd_json_key(json, "checkpoints");
	tpd_json_put_u64(json, (uint64_t)(last - first));
	tpd_json_key(json, "first_step");
	tpd_json_put_u64(json, first->name.step);
	tpd_json_key(json, "last_step");
	tpd_json_put_u64(json, last[-1].name.step);
	tpd_json_key(json, "size");
	tpd_json_put_u64(json, size);
	tpd_json_key(json, "stored");
	tpd_json_put_u64(json, stored);
	tpd_json_key(json, "max_depth");
	tpd_json_put_u64(json, depth);
	tpd_json_key(json, "last_created");
	tpd_json_put_i64(json, newest / 1000000000);
	tpd_json_end_object(json);
}

static enum tpd_status print_runs(const struct tpd_ctl *ctl, const struct tpd_rows *rows, struct tpd_json_out *json,
				  struct tpd_err *err)
{
	static const char *const titles[] = {"RUN",   ">CHECKPOINTS", ">FIRST", ">LAST",
					     ">SIZE", ">STORED",      ">RATIO", "=LAST STORED AT (UTC)"};
	struct tpd_table table = tpd_table_make(titles, TPD_ARRAY_LEN(titles));
	enum tpd_status status = TPD_OK;

	for (size_t first = 0, last; first < rows->count; first = last) {
		for (last = first + 1; last < rows->count; last++)
			if (strcmp(rows->rows[last].name.run, rows->rows[first].name.run) != 0)
				break;
		add_run(&table, json, &rows->rows[first], &rows->rows[last]);
	}
	if (!ctl->json)
		status = tpd_table_print(&table, 0, err);
	tpd_table_release(&table);
	return status;
}

int tpd_cmd_list(struct tpd_ctl *ctl, int argc, char **argv)
{
	struct tpd_archive *archive = NULL;
	struct tpd_rows rows = {0};
	struct tpd_buf buf = {0};
	struct tpd_json_out json = tpd_json_out_make(&buf);
	struct tpd_err err = {0}, fault = {0};
	uint64_t unnamed = 0;
	int code = TPD_EXIT_DONE;
	enum tpd_status status;

	if (ctl->metric && ctl->runs)
		return tpd_ctl_usage(ctl, "--metric is of a checkpoint, --runs lists runs");
	status = tpd_ctl_open(ctl, TPD_ARCHIVE_READ, &archive, &err);
	if (status == TPD_OK)
		status = tpd_rows_read(archive, argc > 0 ? argv[0] : NULL, &rows, &err);
	if (status == TPD_OK && (ctl->json || ctl->metric))
		status = tpd_rows_metrics(archive, &rows, &err);
	if (status == TPD_OK && ctl->metric && rows.count > 0 && !has_metric(&rows, ctl->metric))
		status = tpd_fail(&err, TPD_NOT_FOUND, "no checkpoint here has a metric '%s'; 'tpdectl show' tells those of one",
				  ctl->metric);
	if (status == TPD_OK)
		tpd_ctl_tell_catalog(ctl, &rows.catalog_fault);
	tpd_json_begin_array(&json);
	if (status == TPD_OK && ctl->runs)
		status = print_runs(ctl, &rows, &json, &err);
	else if (status == TPD_OK && !ctl->json && rows.count > 0)
		status = print_checkpoints(ctl, &rows, &err);
	for (size_t i = 0; status == TPD_OK && i < rows.count; i++) {
		if (rows.rows[i].status == TPD_OK && ctl->json && !ctl->runs)
			put_json(&json, &rows, &rows.rows[i]);
		else if (rows.rows[i].status && !fault.status)
			tpd_fail(&fault, rows.rows[i].status, "%s@%llu~%u cannot be read; see 'tpdectl verify'",
				 rows.rows[i].name.run, (unsigned long long)rows.rows[i].name.step,
				 rows.rows[i].name.version);
	}
	tpd_json_end_array(&json);
	/* A run whose refs cannot be read has no rows: that must not look as if it had no checkpoints. */
	if (status == TPD_OK)
		tpd_archive_check_runs(archive, argc > 0 ? argv[0] : NULL, &fault);
	if (status == TPD_OK && !fault.status)
		tpd_archive_check_names(archive, NULL, &unnamed, &fault);
	if (status)
		code = tpd_ctl_fail(ctl, &err);
	else if (fault.status)
		code = tpd_ctl_fail(ctl, &fault);
	if (status == TPD_OK && code == TPD_EXIT_FAILED && rows.count > 0)
		code = TPD_EXIT_PARTLY;
	if (status == TPD_OK && ctl->json)
		code = tpd_ctl_print_json(ctl, &buf, code);
	else if (status == TPD_OK && rows.count == 0 && !fault.status)
		tpd_ctl_note(ctl, "nothing is stored in '%s' yet", ctl->store);
	tpd_buf_release(&buf);
	tpd_rows_release(&rows);
	tpd_archive_close(archive);
	return code;
}
