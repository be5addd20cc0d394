/*
 * cmd_ingest.c - `tpdectl ingest PATH --run NAME [--step N] [--base RUN[@STEP]]`.
 */
#include "base/tpd.h"

#include "tools/tools.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "archive/step.h"
#include "format/format.h"

struct stored {
	struct tpd_archive_name name;
	struct tpd_ingest_result result;
	struct tpd_err unrecorded; /* why the catalog has no row of it; TPD_OK: it has */
	uint64_t size, stored;
	uint32_t depth;
	char base[TPD_NAME_TEXT]; /* "RUN@STEP" of another run, which it refers to; empty: of none */
	bool deleted;  /* while it was read */
	struct tpd_archive_lacks lacks; /* of what is newly stored */
};

static enum tpd_status look_up(struct tpd_archive *archive, struct stored *out, struct tpd_err *err)
{
	struct tpd_manifest m = {0};
	enum tpd_status status = tpd_store_manifest(tpd_archive_store(archive), &out->result.id, &m, err);

	if (status == TPD_OK)
		status = tpd_store_object_bytes(tpd_archive_store(archive), &out->result.id, &out->stored, err);
	if (status == TPD_OK) {
		out->size = tpd_manifest_size(&m);
		out->depth = m.depth;
		if (m.ref_run)
			snprintf(out->base, sizeof(out->base), "%.200s@%llu", m.ref_run, (unsigned long long)m.ref_step);
		out->name.id = out->result.id;
		out->name.version = out->result.version;
	}
	tpd_manifest_release(&m);
	return status;
}

/* Files that end before their format says that they do, or that hold nothing where tensors should be: stored as they are, but to be told of. */
static bool is_cut(const struct tpd_source_entry *entry)
{
	static const char *const endings[] = {".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".gguf", ".h5", ".npz"};

	if (entry->type != TPD_ENTRY_FILE || entry->size > 0)
		return entry->type == TPD_ENTRY_FILE && !tpd_format_is_whole(entry->fd, entry->path, entry->size);
	for (size_t i = 0; i < TPD_ARRAY_LEN(endings); i++)
		if (tpd_text_has_suffix(entry->path, endings[i]))
			return true;
	return false;
}

/* --base as archive.h has it, fresh; NULL in *out: not given. A typing mistake is told before anything is stored. */
static enum tpd_status find_base(struct tpd_archive *archive, const char *base, char **out, struct tpd_err *err)
{
	struct tpd_archive_name ignored;

	*out = NULL;
	if (!base)
		return TPD_OK;
	if (base[0] == '/' || strncmp(base, "./", 2) == 0 || strncmp(base, "../", 3) == 0) {
		*out = realpath(base, NULL);
		if (!*out && (errno == ENOENT || errno == ENOTDIR))
			return tpd_fail(err, TPD_NOT_FOUND, "there is no '%s'", base);
		return *out ? TPD_OK : tpd_fail_sys(err, errno, "cannot find '%s'", base);
	}
	*out = strdup(base);
	if (!*out)
		return tpd_fail_nomem(err);
	if (strcmp(base, "auto") == 0 || strcmp(base, "none") == 0)
		return TPD_OK;
	return tpd_archive_resolve_base(archive, base, &ignored, err);
}

static enum tpd_status ingest(struct tpd_ctl *ctl, const struct tpd_capture *capture, struct stored *out,
			      struct tpd_err *err)
{
	bool was_there = false;
	struct tpd_archive *archive = NULL;
	struct tpd_progress progress;
	struct tpd_bar bar;
	TPD_AUTO_FREE char *base = NULL;
	char label[TPD_NAME_TEXT];
	enum tpd_status status = tpd_ctl_locate(ctl, err);

	if (status == TPD_OK) /* before a store is made for it */
		status = tpd_ingest_check(out->name.run, out->name.step, tpd_capture_source(capture), err);
	if (status)
		return status;
	was_there = access(ctl->store, F_OK) == 0;
	status = tpd_ctl_open(ctl, TPD_ARCHIVE_CREATE, &archive, err);
	if (status)
		return status;
	if (!was_there)
		tpd_ctl_note(ctl, "made a new store in '%s'", ctl->store);
	status = find_base(archive, ctl->base, &base, err);
	if (status) {
		tpd_archive_close(archive);
		return status;
	}
	snprintf(label, sizeof(label), "%.200s@%llu", out->name.run, (unsigned long long)out->name.step);
	progress = tpd_bar_start(&bar, ctl, label, tpd_capture_bytes(capture));
	status = tpd_archive_ingest_from(archive, base, out->name.run, out->name.step, capture, &progress, &out->result,
					 &out->unrecorded, err);
	tpd_bar_finish(&bar);
	if (status == TPD_OK)
		status = look_up(archive, out, err);
	if (status == TPD_OK && !out->result.existed) /* only to be told of */
		tpd_archive_lacks(archive, &out->result.id, &out->lacks, NULL);
	tpd_archive_close(archive);
	return status;
}

static int exit_code(const struct stored *stored)
{
	return stored->deleted ? TPD_EXIT_PARTLY : TPD_EXIT_DONE;
}

static int print_json(const struct tpd_ctl *ctl, const struct stored *stored, const struct tpd_source *source)
{
	struct tpd_buf buf = {0};
	struct tpd_json_out out = tpd_json_out_make(&buf);
	char name[TPD_NAME_TEXT], id[TPD_ID_HEX];

	tpd_id_hex(&stored->name.id, id);
	tpd_json_begin_object(&out);
	tpd_json_key(&out, "name");
	tpd_json_put_string(&out, tpd_name_text(&stored->name, name));
	tpd_json_key(&out, "run");
	tpd_json_put_string(&out, stored->name.run);
	tpd_json_key(&out, "step");
	tpd_json_put_u64(&out, stored->name.step);
	tpd_json_key(&out, "version");
	tpd_json_put_u64(&out, stored->name.version);
	tpd_json_key(&out, "id");
	tpd_json_put_string(&out, id);
	tpd_json_key(&out, "existed");
	tpd_json_put_bool(&out, stored->result.existed);
	tpd_json_key(&out, "repaired");
	tpd_json_put_bool(&out, stored->result.repaired);
	tpd_json_key(&out, "recorded");
	tpd_json_put_bool(&out, stored->unrecorded.status == TPD_OK);
	tpd_json_key(&out, "size");
	tpd_json_put_u64(&out, stored->size);
	tpd_json_key(&out, "stored");
	tpd_json_put_u64(&out, stored->stored);
	tpd_json_key(&out, "depth");
	tpd_json_put_u64(&out, stored->depth);
	tpd_json_key(&out, "base");
	tpd_json_put_string(&out, *stored->base ? stored->base : NULL);
	tpd_json_key(&out, "damaged");
	tpd_json_put_string(&out, stored->result.reference_fault.status ? stored->result.reference_fault.text : NULL);
	tpd_json_key(&out, "lacks");
	tpd_json_put_string(&out, stored->lacks.count > 0 ? stored->lacks.first : NULL);
	tpd_json_key(&out, "cut");
	tpd_json_begin_array(&out);
	for (size_t i = 0; i < source->count; i++)
		if (is_cut(&source->entries[i]))
			tpd_json_put_string(&out, source->entries[i].path);
	tpd_json_end_array(&out);
	tpd_json_key(&out, "deleted");
	tpd_json_put_bool(&out, stored->deleted);
	tpd_json_end_object(&out);
	return tpd_ctl_print_json(ctl, &buf, exit_code(stored));
}

static void warn_of_cut(const struct tpd_ctl *ctl, const struct tpd_source *source)
{
	const char *first = NULL;
	size_t count = 0;

	for (size_t i = 0; i < source->count; i++)
		if (is_cut(&source->entries[i]) && count++ == 0)
			first = source->entries[i].path;
	if (count > 0)
		tpd_ctl_warn(ctl, "'%s' is not whole%s: it is stored as it is", first, count > 1 ? ", and other files are not" : "");
}

static int print_text(const struct tpd_ctl *ctl, const struct stored *stored, const struct tpd_source *source)
{
	char name[TPD_NAME_TEXT], saving[TPD_SAVING_TEXT];

	if (!ctl->quiet)
		printf("%s  %s%s%s%s\n", tpd_name_text(&stored->name, name),
		       stored->result.existed ? "is already stored: "
		       : stored->result.repaired ? "was damaged and is repaired: "
						 : "",
		       tpd_text_saving(stored->size, stored->stored, saving), *stored->base ? ", from " : "", stored->base);
	if (stored->result.base_fault.status)
		tpd_ctl_warn(ctl, "it is stored without '%s': %s", ctl->base, stored->result.base_fault.text);
	else if (ctl->base && strcmp(ctl->base, "auto") != 0 && strcmp(ctl->base, "none") != 0 && !*stored->base && !stored->result.existed)
		tpd_ctl_note(ctl, "it does not refer to '%s': the run has checkpoints of its own, or nothing would be saved", ctl->base);
	if (stored->result.reference_fault.status)
		tpd_ctl_warn(ctl, "it stands alone, since what it %s is damaged: %s; 'tpdectl verify' says what else is",
			     stored->result.repaired ? "was, or referred to," : "would refer to", stored->result.reference_fault.text);
	if (stored->unrecorded.status)
		tpd_ctl_warn(ctl, "it is stored, but not in the catalog yet (the next ingest puts it in): %s",
			     stored->unrecorded.text);
	if (stored->lacks.count > 0)
		tpd_ctl_warn(ctl, "it has no '%s'%s, as %s@%llu has", stored->lacks.first, stored->lacks.count > 1 ? " and other files" : "",
			     stored->name.run, (unsigned long long)stored->lacks.before_step);
	warn_of_cut(ctl, source);
	if (stored->deleted)
		tpd_ctl_warn(ctl, "'%s' was being deleted while it was read: what went before that is not in it", source->origin);
	return exit_code(stored);
}

int tpd_cmd_ingest(struct tpd_ctl *ctl, int argc TPD_UNUSED, char **argv)
{
	struct tpd_capture *capture = NULL;
	struct stored stored = {0};
	struct tpd_err err = {0};
	enum tpd_status status;
	int code;

	if (!ctl->run)
		return tpd_ctl_usage(ctl, "'ingest' needs --run NAME");
	if (!tpd_text_is_run_name(ctl->run))
		return tpd_ctl_usage(ctl, "--run: '%s' is no name for a run (letters, digits and '/', no '@' or '~')",
				     ctl->run);
	status = tpd_capture_open(argv[0], &capture, &err);
	if (status)
		return tpd_ctl_fail(ctl, &err);
	snprintf(stored.name.run, sizeof(stored.name.run), "%s", ctl->run);
	stored.name.step = ctl->step;
	if (!ctl->has_step && tpd_step_of(argv[0], &stored.name.step, &err)) {
		tpd_capture_close(capture);
		return tpd_ctl_usage(ctl, "%.400s: give --step N", err.text);
	}
	status = ingest(ctl, capture, &stored, &err);
	stored.deleted = status == TPD_OK && tpd_capture_is_deleted(capture);
	if (status)
		code = tpd_ctl_fail(ctl, &err);
	else if (ctl->json)
		code = print_json(ctl, &stored, tpd_capture_source(capture));
	else
		code = print_text(ctl, &stored, tpd_capture_source(capture));
	tpd_capture_close(capture);
	return code;
}
