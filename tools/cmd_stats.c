/*
 * cmd_stats.c - `tpdectl stats RUN`: how sparse the changes were, step by step.
 *
 * Three tables that fit 80 columns, since one with all of it would not: what it cost, shares by size of the change,
 * shares by ulps. The figures are sums over the catalog's tensors; for queries of one's own there is the sqlite3
 * shell.
 */
#include "base/tpd.h"

#include "tools/tools.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct rows {
	struct tpd_catalog_step_stats *row; /* owned */
	size_t count, cap;
};

static enum tpd_status collect(void *arg, const struct tpd_catalog_step_stats *row, struct tpd_err *err)
{
	struct rows *rows = arg;

	if (rows->count == rows->cap) {
		size_t cap = rows->cap ? 2 * rows->cap : 32;
		struct tpd_catalog_step_stats *more = reallocarray(rows->row, cap, sizeof(*more));

		if (!more)
			return tpd_fail_nomem(err);
		rows->row = more;
		rows->cap = cap;
	}
	rows->row[rows->count++] = *row;
	return TPD_OK;
}

static double share(uint64_t count, const struct tpd_catalog_step_stats *row)
{
	return row->pairs ? (double)count / (double)row->pairs : 0;
}

/* --- for people --- */

static void add_step(struct tpd_table *table, const struct tpd_catalog_step_stats *row)
{
	if (row->version > 1)
		tpd_table_addf(table, "%llu~%u", (unsigned long long)row->step, row->version);
	else
		tpd_table_addf(table, "%llu", (unsigned long long)row->step);
}

static void add_share(struct tpd_table *table, uint64_t count, const struct tpd_catalog_step_stats *row)
{
	double percent = 100 * share(count, row);

	/* What is nearly nothing, or nearly all, should not look like it. */
	if (count > 0 && percent < 0.005)
		tpd_table_add(table, "<0.01");
	else if (count < row->pairs && percent >= 99.995)
		tpd_table_add(table, ">99.99");
	else
		tpd_table_addf(table, "%.2f", percent);
}

static enum tpd_status print_costs(const struct rows *rows, struct tpd_err *err)
{
	static const char *const titles[] = {">STEP",  ">SINCE",   ">TENSORS", ">SIZE", ">STORED",
					     ">RATIO", ">RMS D/X", ">ELIAS",   ">RICE", ">ENTROPY"};
	struct tpd_table table = tpd_table_make(titles, TPD_ARRAY_LEN(titles));
	enum tpd_status status;

	for (size_t i = 0; i < rows->count; i++) {
		const struct tpd_catalog_step_stats *row = &rows->row[i];

		add_step(&table, row);
		if (row->pairs)
			tpd_table_addf(&table, "%llu", (unsigned long long)row->w1_step);
		else
			tpd_table_add(&table, "-");
		tpd_table_addf(&table, "%llu", (unsigned long long)row->tensors);
		tpd_table_add_bytes(&table, row->size);
		tpd_table_add_bytes(&table, row->stored);
		tpd_table_add_ratio(&table, row->size, row->stored);
		if (row->pairs && row->value_rms > 0)
			tpd_table_addf(&table, "%.2e", row->delta_rms / row->value_rms);
		else
			tpd_table_add(&table, "-");
		if (row->gap_count) {
			tpd_table_addf(&table, "%.2f", row->gap_elias_bits);
			tpd_table_addf(&table, "%.2f", row->gap_rice_bits);
			tpd_table_addf(&table, "%.2f", row->gap_entropy);
		} else {
			for (unsigned c = 0; c < 3; c++)
				tpd_table_add(&table, "-");
		}
	}
	puts("Tensors that have a value to compare with: weights and optimizer state together.\n"
	     "RMS of change / of value; bits a gap between the 5 % that changed most.");
	status = tpd_table_print(&table, 0, err);
	tpd_table_release(&table);
	return status;
}

static enum tpd_status print_shares(const struct rows *rows, struct tpd_err *err)
{
	static const char *const titles[] = {">STEP",  ">SAME",   ">D<1E-5", "><1E-4", "><1E-3",
					     "><1E-2", ">M<1E-5", "><1E-4",  "><1E-3", "><1E-2"};
	struct tpd_table table = tpd_table_make(titles, TPD_ARRAY_LEN(titles));
	enum tpd_status status;

	for (size_t i = 0; i < rows->count; i++) {
		const struct tpd_catalog_step_stats *row = &rows->row[i];

		if (!row->pairs)
			continue;
		add_step(&table, row);
		add_share(&table, row->zeros, row);
		for (unsigned t = 0; t < TPD_SPARSITY_REAL; t++)
			add_share(&table, row->raw[t], row);
		for (unsigned t = 0; t < TPD_SPARSITY_REAL; t++)
			add_share(&table, row->minmax[t], row);
	}
	puts("\nPer cent of the elements: unchanged; |change| below a threshold (D);\n"
	     "|change| below that share of the largest change of its tensor (M).");
	status = tpd_table_print(&table, 0, err);
	tpd_table_release(&table);
	return status;
}

static enum tpd_status print_ulps(const struct rows *rows, struct tpd_err *err)
{
	static const unsigned powers[] = {0, 1, 2, 4, 6, 8, 10, 12, 14, 16};
	static const char *const titles[] = {">STEP", ">1",    ">2",    ">4",     ">16",   ">64",
					     ">256",  ">1024", ">4096", ">16384", ">65536"};
	struct tpd_table table = tpd_table_make(titles, TPD_ARRAY_LEN(titles));
	enum tpd_status status;

	for (size_t i = 0; i < rows->count; i++) {
		const struct tpd_catalog_step_stats *row = &rows->row[i];

		if (!row->pairs)
			continue;
		add_step(&table, row);
		for (unsigned p = 0; p < TPD_ARRAY_LEN(powers); p++)
			add_share(&table, row->ulps[powers[p]], row);
	}
	puts("\nPer cent of the elements that changed by less than so many ulps.");
	status = tpd_table_print(&table, 0, err);
	tpd_table_release(&table);
	return status;
}

static enum tpd_status print_text(const struct rows *rows, struct tpd_err *err)
{
	enum tpd_status status;

	if (rows->count == 0) {
		puts("No checkpoint of this run has one before it to be compared with.");
		return TPD_OK;
	}
	status = print_costs(rows, err);
	if (status == TPD_OK)
		status = print_shares(rows, err);
	if (status == TPD_OK)
		status = print_ulps(rows, err);
	return status;
}

/* --- JSON --- */

static void put_shares(struct tpd_json_out *out, const char *key, const uint64_t *counts, unsigned n,
		       const struct tpd_catalog_step_stats *row)
{
	tpd_json_key(out, key);
	tpd_json_begin_array(out);
	for (unsigned i = 0; i < n; i++)
		tpd_json_put_f64(out, share(counts[i], row));
	tpd_json_end_array(out);
}

static void put_step(struct tpd_json_out *out, const struct tpd_catalog_step_stats *row)
{
	tpd_json_begin_object(out);
	tpd_json_key(out, "step");
	tpd_json_put_u64(out, row->step);
	tpd_json_key(out, "version");
	tpd_json_put_u64(out, row->version);
	tpd_json_key(out, "size");
	tpd_json_put_u64(out, row->size);
	tpd_json_key(out, "stored");
	tpd_json_put_u64(out, row->stored);
	if (row->pairs) {
		tpd_json_key(out, "w1_step");
		tpd_json_put_u64(out, row->w1_step);
		tpd_json_key(out, "tensors");
		tpd_json_put_u64(out, row->tensors);
		tpd_json_key(out, "pairs");
		tpd_json_put_u64(out, row->pairs);
		tpd_json_key(out, "nan");
		tpd_json_put_u64(out, row->nan);
		tpd_json_key(out, "inf");
		tpd_json_put_u64(out, row->inf);
		tpd_json_key(out, "zeros");
		tpd_json_put_f64(out, share(row->zeros, row));
		put_shares(out, "raw", row->raw, TPD_SPARSITY_REAL, row);
		put_shares(out, "minmax", row->minmax, TPD_SPARSITY_REAL, row);
		put_shares(out, "ulps", row->ulps, TPD_SPARSITY_ULPS, row);
		tpd_json_key(out, "delta_rms");
		tpd_json_put_f64(out, row->delta_rms);
		tpd_json_key(out, "value_rms");
		tpd_json_put_f64(out, row->value_rms);
		tpd_json_key(out, "gaps");
		tpd_json_put_u64(out, row->gap_count);
		tpd_json_key(out, "gap_elias_bits");
		tpd_json_put_f64(out, row->gap_elias_bits);
		tpd_json_key(out, "gap_rice_bits");
		tpd_json_put_f64(out, row->gap_rice_bits);
		tpd_json_key(out, "gap_entropy");
		tpd_json_put_f64(out, row->gap_entropy);
	}
	tpd_json_end_object(out);
}

static int print_json(const struct tpd_ctl *ctl, const char *run, const struct rows *rows)
{
	struct tpd_buf buf = {0};
	struct tpd_json_out out = tpd_json_out_make(&buf);

	tpd_json_begin_object(&out);
	tpd_json_key(&out, "run");
	tpd_json_put_string(&out, run);
	tpd_json_key(&out, "thresholds");
	tpd_json_begin_array(&out);
	for (unsigned i = 0; i < TPD_SPARSITY_REAL; i++)
		tpd_json_put_f64(&out, tpd_sparsity_thresholds[i]);
	tpd_json_end_array(&out);
	tpd_json_key(&out, "ulp_thresholds");
	tpd_json_begin_array(&out);
	for (unsigned i = 0; i < TPD_SPARSITY_ULPS; i++)
		tpd_json_put_u64(&out, 1u << i);
	tpd_json_end_array(&out);
	tpd_json_key(&out, "steps");
	tpd_json_begin_array(&out);
	for (size_t i = 0; i < rows->count; i++)
		put_step(&out, &rows->row[i]);
	tpd_json_end_array(&out);
	tpd_json_end_object(&out);
	return tpd_ctl_print_json(ctl, &buf, TPD_EXIT_DONE);
}

/* With its catalog: where there is none, opening for writing makes it. */
static enum tpd_status open_with_catalog(struct tpd_ctl *ctl, struct tpd_archive **out_archive, struct tpd_err *err)
{
	struct tpd_archive *archive = NULL;
	enum tpd_status status = tpd_ctl_open(ctl, TPD_ARCHIVE_READ, &archive, err);

	if (status)
		return status;
	if (!tpd_archive_catalog(archive)) {
		tpd_archive_close(archive);
		status = tpd_ctl_open(ctl, TPD_ARCHIVE_WRITE, &archive, err);
		if (status)
			return tpd_err_prefix(err, "statistics need the catalog");
	}
	*out_archive = archive;
	return TPD_OK;
}

int tpd_cmd_stats(struct tpd_ctl *ctl, int argc TPD_UNUSED, char **argv)
{
	struct tpd_archive *archive = NULL;
	TPD_AUTO_FREE struct tpd_archive_name *names = NULL;
	struct rows rows = {0};
	struct tpd_err err = {0};
	size_t count = 0;
	int code = TPD_EXIT_DONE;
	enum tpd_status status;

	if (!tpd_text_is_run_name(argv[0]))
		return tpd_ctl_usage(ctl, "'%s' is not the name of a run", argv[0]);
	status = open_with_catalog(ctl, &archive, &err);
	if (status == TPD_OK)
		status = tpd_archive_select(archive, argv[0], &names, &count, &err);
	if (status == TPD_OK && strcmp(names[0].run, argv[0]) != 0) /* the run itself comes before those below it */
		status = tpd_fail(&err, TPD_NOT_FOUND, "'%s' is several runs: give one, such as '%s'", argv[0],
				  names[0].run);
	if (status == TPD_OK)
		status = tpd_catalog_stats(tpd_archive_catalog(archive), argv[0], collect, &rows, &err);
	if (status == TPD_CORRUPT)
		tpd_err_prefix(&err, "'tpdectl rebuild-catalog' makes the catalog again");
	if (status == TPD_OK && !ctl->json)
		status = print_text(&rows, &err);
	if (status)
		code = tpd_ctl_fail(ctl, &err);
	else if (ctl->json)
		code = print_json(ctl, argv[0], &rows);
	free(rows.row);
	tpd_archive_close(archive);
	return code;
}
