/*
 * cmd_verify.c - `tpdectl verify [RUN[@STEP]]`: read, decode and compare everything, and go on after a fault.
 *
 * One line a checkpoint as it is done, then a sum. A checkpoint that is named but not there is corrupt as well: the
 * names are the store's own, so something has lost it.
 */
#include "base/tpd.h"

#include "tools/tools.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct tally {
	uint64_t ok, corrupt, failed, size;
	uint64_t unnamed; /* in the store, and in no run */
	struct tpd_err first_failure; /* of those that are not corrupt */
	struct tpd_err unreadable;    /* of runs whose refs cannot be read; TPD_OK: none */
};

static enum tpd_status verify_one(struct tpd_ctl *ctl, struct tpd_archive *archive, const struct tpd_archive_name *name,
				  const char *label, uint64_t *out_size, struct tpd_err *err)
{
	struct tpd_manifest m = {0};
	struct tpd_progress progress;
	struct tpd_bar bar;
	/* Of the label, which its line begins with, the error need not tell again. */
	enum tpd_status status = tpd_store_manifest_keep(tpd_archive_store(archive), &name->id, TPD_MANIFEST_SEGMENTS, &m, err);

	if (status == TPD_NOT_FOUND)
		status = tpd_named_manifest(archive, name, TPD_MANIFEST_SEGMENTS, &m, err);
	*out_size = status == TPD_OK ? tpd_manifest_size(&m) : 0;
	tpd_manifest_release(&m);
	if (status == TPD_OK) {
		progress = tpd_bar_start(&bar, ctl, label, *out_size);
		status = tpd_archive_verify(archive, &name->id, &progress, err);
		tpd_bar_finish(&bar);
	}
	return status;
}

static void put_json(struct tpd_json_out *out, const char *label, const struct tpd_archive_name *name,
		     const struct tpd_err *err)
{
	char id[TPD_ID_HEX];

	tpd_id_hex(&name->id, id);
	tpd_json_begin_object(out);
	tpd_json_key(out, "name");
	tpd_json_put_string(out, label);
	tpd_json_key(out, "id");
	tpd_json_put_string(out, id);
	tpd_json_key(out, "status");
	tpd_json_put_string(out, tpd_status_name(err->status));
	if (err->status) {
		tpd_json_key(out, "error");
		tpd_json_put_string(out, err->text);
	}
	tpd_json_end_object(out);
}

static void print_line(const struct tpd_ctl *ctl, const char *label, size_t width, uint64_t size,
		       const struct tpd_err *err)
{
	size_t pad = width - TPD_MIN(width, tpd_text_width(label));
	TPD_AUTO_FREE char *text = tpd_text_clean(err->text);
	char bytes[TPD_TEXT_SIZE];

	if (!err->status && ctl->quiet)
		return;
	if (!err->status)
		printf("ok       %s%*s  %8s\n", label, (int)pad, "", tpd_text_bytes(size, bytes));
	else
		printf("%s  %s: %s\n", tpd_ctl_exit_code(err->status) == TPD_EXIT_CORRUPT ? "CORRUPT" : "FAILED ",
		       label, text ? text : "out of memory");
	fflush(stdout);
}

static enum tpd_status verify_all(struct tpd_ctl *ctl, struct tpd_archive *archive,
				  const struct tpd_archive_name *names, size_t count, struct tally *tally,
				  struct tpd_json_out *out, struct tpd_err *err)
{
	char label[TPD_NAME_TEXT];
	size_t width = 0;

	for (size_t i = 0; i < count; i++)
		width = TPD_MAX(width, tpd_text_width(tpd_name_text(&names[i], label)));
	for (size_t i = 0; i < count; i++) {
		struct tpd_err fault = {0};
		uint64_t size = 0;
		enum tpd_status status =
			verify_one(ctl, archive, &names[i], tpd_name_text(&names[i], label), &size, &fault);

		if (status == TPD_CANCELLED) {
			*err = fault;
			return status;
		}
		if (status == TPD_OK) {
			tally->ok++;
			tally->size += size;
		} else if (tpd_ctl_exit_code(status) == TPD_EXIT_CORRUPT) {
			tally->corrupt++;
		} else if (tally->failed++ == 0) {
			tally->first_failure = fault;
		}
		put_json(out, label, &names[i], &fault);
		if (!ctl->json)
			print_line(ctl, label, width, size, &fault);
	}
	return TPD_OK;
}

static int exit_code(const struct tally *tally)
{
	int unreadable = tpd_ctl_exit_code(tally->unreadable.status);

	if (tally->corrupt > 0 || tally->unnamed > 0 || unreadable == TPD_EXIT_CORRUPT)
		return TPD_EXIT_CORRUPT;
	if (tally->failed == 0 && unreadable)
		return tally->ok > 0 ? TPD_EXIT_PARTLY : unreadable;
	if (tally->failed == 0)
		return TPD_EXIT_DONE;
	return tally->ok > 0 ? TPD_EXIT_PARTLY : tpd_ctl_exit_code(tally->first_failure.status);
}

static void print_sum(const struct tally *tally)
{
	char size[TPD_TEXT_SIZE];
	uint64_t all = tally->ok + tally->corrupt + tally->failed;

	printf("%llu checkpoint%s verified: %llu ok (%s)", (unsigned long long)all, all == 1 ? "" : "s",
	       (unsigned long long)tally->ok, tpd_text_bytes(tally->size, size));
	if (tally->corrupt > 0)
		printf(", %llu corrupt", (unsigned long long)tally->corrupt);
	if (tally->failed > 0)
		printf(", %llu failed", (unsigned long long)tally->failed);
	if (tally->unnamed > 0)
		printf(", %llu more that no run names", (unsigned long long)tally->unnamed);
	putchar('\n');
	if (tally->corrupt > 0)
		puts("what is corrupt is mended by storing that checkpoint again from its source: 'tpdectl ingest'");
}

int tpd_cmd_verify(struct tpd_ctl *ctl, int argc, char **argv)
{
	struct tpd_archive *archive = NULL;
	TPD_AUTO_FREE struct tpd_archive_name *names = NULL;
	struct tpd_buf buf = {0};
	struct tpd_json_out out = tpd_json_out_make(&buf);
	struct tpd_err err = {0}, unnamed = {0};
	struct tally tally = {0};
	size_t count = 0;
	int code;
	enum tpd_status status = tpd_ctl_open(ctl, TPD_ARCHIVE_READ, &archive, &err);

	tpd_json_begin_object(&out);
	tpd_json_key(&out, "checkpoints");
	tpd_json_begin_array(&out);
	if (status == TPD_OK)
		status = tpd_archive_select(archive, argc > 0 ? argv[0] : NULL, &names, &count, &err);
	if (status == TPD_OK)
		status = verify_all(ctl, archive, names, count, &tally, &out, &err);
	if (status == TPD_OK)
		tpd_archive_check_runs(archive, argc > 0 ? argv[0] : NULL, &tally.unreadable);
	/* What a file names that cannot even be opened is not known to be without a name. */
	if (status == TPD_OK && tally.unreadable.status != TPD_IO) {
		status = tpd_archive_check_names(archive, NULL, &tally.unnamed, &err);
		if (tally.unnamed > 0) { /* told below, after what was verified */
			unnamed = err;
			status = TPD_OK;
		}
	}
	tpd_json_end_array(&out);
	tpd_json_key(&out, "ok");
	tpd_json_put_u64(&out, tally.ok);
	tpd_json_key(&out, "corrupt");
	tpd_json_put_u64(&out, tally.corrupt);
	tpd_json_key(&out, "failed");
	tpd_json_put_u64(&out, tally.failed);
	tpd_json_key(&out, "unnamed");
	tpd_json_put_u64(&out, tally.unnamed);
	tpd_json_key(&out, "size");
	tpd_json_put_u64(&out, tally.size);
	tpd_json_end_object(&out);
	tpd_archive_close(archive);
	if (status == TPD_OK && tally.unreadable.status)
		tpd_ctl_fail(ctl, &tally.unreadable);
	else if (status == TPD_OK && tally.unnamed > 0)
		tpd_ctl_fail(ctl, &unnamed);
	code = status ? tpd_ctl_fail(ctl, &err) : exit_code(&tally);
	if (status == TPD_OK && ctl->json)
		code = tpd_ctl_print_json(ctl, &buf, code);
	else if (status == TPD_OK && !ctl->quiet)
		print_sum(&tally);
	tpd_buf_release(&buf);
	return code;
}
