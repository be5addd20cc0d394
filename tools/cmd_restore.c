/*
 * cmd_restore.c - `tpdectl restore RUN@STEP --to DIR [--file NAME] [--force]`.
 */
#include "base/tpd.h"

#include "tools/tools.h"

#include <stdio.h>
#include <string.h>

struct restored {
	struct tpd_archive_name name;
	uint64_t files, size;
};

static enum tpd_status count(struct tpd_archive *archive, const char *file, struct restored *out, struct tpd_err *err)
{
	struct tpd_manifest m = {0};
	enum tpd_status status = tpd_store_manifest(tpd_archive_store(archive), &out->name.id, &m, err);

	for (uint32_t f = 0; status == TPD_OK && f < m.file_count; f++) {
		const struct tpd_entry *entry = &m.entries[m.files[f]];

		if (file && strcmp(file, entry->path) != 0)
			continue;
		out->files++;
		out->size += entry->size;
	}
	tpd_manifest_release(&m);
	return status;
}

static enum tpd_status restore(struct tpd_ctl *ctl, const char *name, struct restored *out, struct tpd_err *err)
{
	struct tpd_archive *archive = NULL;
	char label[TPD_NAME_TEXT];
	struct tpd_progress progress;
	struct tpd_bar bar;
	enum tpd_status status = tpd_ctl_open(ctl, TPD_ARCHIVE_READ, &archive, err);

	if (status)
		return status;
	status = tpd_archive_resolve(archive, name, &out->name, err);
	if (status == TPD_OK)
		status = count(archive, ctl->file, out, err);
	if (status == TPD_OK) {
		progress = tpd_bar_start(&bar, ctl, tpd_name_text(&out->name, label), out->size);
		status = tpd_archive_restore(archive, &out->name.id, ctl->to, ctl->file, ctl->force, &progress, err);
		tpd_bar_finish(&bar);
	}
	tpd_archive_close(archive);
	return status;
}

int tpd_cmd_restore(struct tpd_ctl *ctl, int argc TPD_UNUSED, char **argv)
{
	struct restored done = {0};
	struct tpd_buf buf = {0};
	struct tpd_json_out out = tpd_json_out_make(&buf);
	struct tpd_err err = {0};
	char name[TPD_NAME_TEXT], id[TPD_ID_HEX], size[TPD_TEXT_SIZE];

	if (!ctl->to)
		return tpd_ctl_usage(ctl, "'restore' needs --to DIR");
	if (restore(ctl, argv[0], &done, &err))
		return tpd_ctl_fail(ctl, &err);
	tpd_name_text(&done.name, name);
	tpd_id_hex(&done.name.id, id);
	if (!ctl->json) {
		if (!ctl->quiet)
			printf("%s restored to '%s': %llu file%s, %s, SHA-256 equal\n", name, ctl->to,
			       (unsigned long long)done.files, done.files == 1 ? "" : "s",
			       tpd_text_bytes(done.size, size));
		return TPD_EXIT_DONE;
	}
	tpd_json_begin_object(&out);
	tpd_json_key(&out, "name");
	tpd_json_put_string(&out, name);
	tpd_json_key(&out, "id");
	tpd_json_put_string(&out, id);
	tpd_json_key(&out, "to");
	tpd_json_put_string(&out, ctl->to);
	tpd_json_key(&out, "files");
	tpd_json_put_u64(&out, done.files);
	tpd_json_key(&out, "size");
	tpd_json_put_u64(&out, done.size);
	tpd_json_end_object(&out);
	return tpd_ctl_print_json(ctl, &buf, TPD_EXIT_DONE);
}
