/*
 * cmd_restore.c - `tpdectl restore RUN@STEP --to DIR [--file NAME]... [--force]`.
 */
#include "base/tpd.h"

#include "tools/tools.h"

#include <stdio.h>

struct restored {
	struct tpd_archive_name name;
	uint64_t files, size, links, directories;
};

static enum tpd_status count(struct tpd_archive *archive, const char *const *files, struct restored *out,
			     struct tpd_err *err)
{
	struct tpd_manifest m = {0};
	enum tpd_status status = tpd_named_manifest(archive, &out->name, TPD_MANIFEST_SEGMENTS, &m, err);

	for (uint32_t i = 0; status == TPD_OK && i < m.entry_count; i++) {
		const struct tpd_entry *entry = &m.entries[i];

		if (!tpd_restore_wants(files, entry->path))
			continue;
		out->files += entry->type == TPD_ENTRY_FILE;
		out->links += entry->type == TPD_ENTRY_SYMLINK;
		out->directories += entry->type == TPD_ENTRY_DIR;
		out->size += entry->type == TPD_ENTRY_FILE ? entry->size : 0;
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
	const char *const *files = (const char *const *)ctl->files;
	struct tpd_err fault = {0};
	uint64_t unnamed = 0;
	enum tpd_status status = tpd_ctl_open(ctl, TPD_ARCHIVE_READ, &archive, err);

	if (status)
		return status;
	status = tpd_archive_resolve(archive, name, &out->name, err);
	if (status == TPD_OK)
		status = count(archive, files, out, err);
	if (status == TPD_OK) {
		progress = tpd_bar_start(&bar, ctl, tpd_name_text(&out->name, label), out->size);
		status = tpd_archive_restore(archive, &out->name.id, ctl->to, files, ctl->force, &progress, err);
		tpd_bar_finish(&bar);
	}
	if (status == TPD_OK && tpd_archive_check_names(archive, NULL, &unnamed, &fault))
		tpd_ctl_warn(ctl, "%s", fault.text); /* `latest` may have been another */
	tpd_archive_close(archive);
	return status;
}

static void put_count(struct tpd_buf *text, uint64_t n, const char *one, const char *many)
{
	if (n > 0)
		tpd_buf_printf(text, "%s%llu %s", text->len > 0 ? ", " : "", (unsigned long long)n,
			       n == 1 ? one : many);
}

/* "3 files (12.3 MB, SHA-256 equal), 1 link": of what there is, for a link has no digest to be equal. */
static void print_text(const struct tpd_ctl *ctl, const char *name, const struct restored *done)
{
	struct tpd_buf text = {0};
	TPD_AUTO_FREE char *to = tpd_text_clean(ctl->to);
	char size[TPD_TEXT_SIZE];

	put_count(&text, done->files, "file", "files");
	if (done->files > 0)
		tpd_buf_printf(&text, " (%s, SHA-256 equal)", tpd_text_bytes(done->size, size));
	put_count(&text, done->links, "link", "links");
	put_count(&text, done->directories, "directory", "directories");
	tpd_buf_u8(&text, 0);
	printf("%s restored to '%s': %s\n", name, to ? to : "?",
	       text.failed ? "out of memory" : (const char *)text.data);
	tpd_buf_release(&text);
}

int tpd_cmd_restore(struct tpd_ctl *ctl, int argc TPD_UNUSED, char **argv)
{
	struct restored done = {0};
	struct tpd_buf buf = {0};
	struct tpd_json_out out = tpd_json_out_make(&buf);
	struct tpd_err err = {0};
	char name[TPD_NAME_TEXT], id[TPD_ID_HEX];

	if (!ctl->to)
		return tpd_ctl_usage(ctl, "'restore' needs --to DIR");
	if (strcmp(ctl->to, "-") == 0)
		return tpd_ctl_usage(ctl, "--to: files go into a directory, not to standard output ('./-' is one of that name)");
	if (restore(ctl, argv[0], &done, &err))
		return tpd_ctl_fail(ctl, &err);
	tpd_name_text(&done.name, name);
	tpd_id_hex(&done.name.id, id);
	if (!ctl->json) {
		if (!ctl->quiet)
			print_text(ctl, name, &done);
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
	tpd_json_key(&out, "links");
	tpd_json_put_u64(&out, done.links);
	tpd_json_key(&out, "directories");
	tpd_json_put_u64(&out, done.directories);
	tpd_json_key(&out, "size");
	tpd_json_put_u64(&out, done.size);
	tpd_json_end_object(&out);
	return tpd_ctl_print_json(ctl, &buf, TPD_EXIT_DONE);
}
