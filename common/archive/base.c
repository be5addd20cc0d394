/*
 * base.c - what the first checkpoint of a run is to begin from: words, names, and paths.
 *
 * A base model that lies in a directory is stored once, as step 0 of a run of its own, "models/" and the directory's name; after that it is
 * found there by its content, which is read through each time it is asked for: once for each run that begins.
 */
#include "base/tpd.h"

#include "archive/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

enum tpd_status tpd_archive_resolve_base(struct tpd_archive *archive, const char *base, struct tpd_archive_name *out, struct tpd_err *err)
{
	struct tpd_err fault = {0};
	TPD_AUTO_FREE char *latest = NULL;
	enum tpd_status status;

	if (strchr(base, '@'))
		return tpd_archive_resolve(archive, base, out, err);
	if (asprintf(&latest, "%s@latest", base) < 0) {
		latest = NULL;
		return tpd_fail_nomem(err);
	}
	status = tpd_archive_resolve(archive, latest, out, &fault);
	if (status == TPD_NOT_FOUND && tpd_archive_resolve(archive, base, out, NULL) == TPD_OK) /* the digits of an id */
		return TPD_OK;
	if (status && err)
		*err = fault;
	return status;
}

/* Is there anything of its own that this step of the run may refer to? */
static bool has_other_steps(struct tpd_archive *archive, const char *run, uint64_t step)
{
	struct tpd_run versions = {0};
	bool found = false;

	if (tpd_store_run_read(archive->store, run, &versions, NULL) == TPD_OK)
		for (size_t v = 0; v < versions.count; v++)
			found |= !versions.versions[v].forgotten && versions.versions[v].step != step;
	tpd_run_release(&versions);
	return found;
}

/* "models/" and the last part of the path, without what no run's name may hold. The caller's; NULL: no memory. */
static char *run_of_path(const char *path)
{
	const char *end = path + strlen(path), *last;
	char *name = NULL;

	while (end > path && end[-1] == '/')
		end--;
	for (last = end; last > path && last[-1] != '/';)
		last--;
	if (asprintf(&name, "models/%.*s", (int)(end - last), last) < 0)
		return NULL;
	for (char *c = name + strlen("models/"); *c; c++)
		if (*c == '@' || *c == '~' || *c == '\\' || (uint8_t)*c < 0x20 || *c == 0x7f || (c[-1] == '/' && (*c == '.' || *c == '-')))
			*c = '_';
	return name;
}

static enum tpd_status store_path(struct tpd_archive *archive, const char *path, const char *run, const struct tpd_progress *progress,
				  struct tpd_id *out_id, struct tpd_err *err)
{
	TPD_AUTO_FREE char *name = run_of_path(path);
	struct tpd_capture *capture = NULL;
	struct tpd_ingest_result result;
	enum tpd_status status;

	if (!name)
		return tpd_fail_nomem(err);
	if (!tpd_text_is_run_name(name) || strcmp(name, run) == 0)
		return tpd_fail(err, TPD_USAGE, "no run can be called '%s', after '%s': store the base under a name of its own", name, path);
	status = tpd_capture_open(path, &capture, err);
	if (!status)
		status = tpd_archive_ingest(archive, name, 0, capture, progress, &result, NULL, err);
	tpd_capture_close(capture);
	if (!status)
		*out_id = result.id;
	return status;
}

enum tpd_status tpd_base_choose(struct tpd_archive *archive, const char *base, const char *run, uint64_t step,
				const struct tpd_progress *progress, struct tpd_ingest_options *options, struct tpd_err *out_fault)
{
	struct tpd_archive_name name;
	enum tpd_status status;

	if (!base || strcmp(base, "auto") == 0 || has_other_steps(archive, run, step))
		return TPD_OK;
	if (strcmp(base, "none") == 0) {
		options->base = TPD_BASE_NONE;
		return TPD_OK;
	}
	if (base[0] == '/')
		status = store_path(archive, base, run, progress, &name.id, out_fault);
	else
		status = tpd_archive_resolve_base(archive, base, &name, out_fault);
	if (!status) {
		options->base = TPD_BASE_GIVEN;
		options->base_id = name.id;
	}
	return status == TPD_CANCELLED || status == TPD_NOMEM ? status : TPD_OK;
}
