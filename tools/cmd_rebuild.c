/*
 * cmd_rebuild.c - `tpdectl rebuild-catalog`: the catalog again, from the store alone.
 */
#include "base/tpd.h"

#include "tools/tools.h"

#include <stdio.h>

static void print_text(const struct tpd_ctl *ctl, const struct tpd_archive_rebuilt *built)
{
	uint64_t damaged = built->repaired - built->lost;

	if (ctl->quiet)
		return;
	printf("%llu checkpoint%s in the catalog", (unsigned long long)built->done, built->done == 1 ? "" : "s");
	if (built->failed > 0)
		printf(", %llu could not be read: see 'tpdectl verify'", (unsigned long long)built->failed);
	putchar('\n');
	if (damaged > 0)
		printf("the refs of %llu run%s were damaged and are repaired; as they were: '%s/refs-damaged'\n",
		       (unsigned long long)damaged, damaged == 1 ? "" : "s", ctl->store);
	if (built->lost > 0)
		printf("the refs of %llu run%s were lost and are repaired: made again from the checkpoints\n",
		       (unsigned long long)built->lost, built->lost == 1 ? "" : "s");
	if (built->recalled > 0)
		printf("the metrics of %llu checkpoint%s were lost and are read again from %s files\n",
		       (unsigned long long)built->recalled, built->recalled == 1 ? "" : "s", built->recalled == 1 ? "its" : "their");
}

/* No metrics are on record, and whether there were any cannot be told. */
static void warn_of_metrics(const struct tpd_ctl *ctl, const struct tpd_archive_rebuilt *built)
{
	if (built->unrecalled > 0)
		tpd_ctl_warn(ctl, "%llu checkpoint%s may have lost metrics, which cannot be read again (storing a checkpoint again brings "
			     "them back)%s: %s", (unsigned long long)built->unrecalled, built->unrecalled == 1 ? "" : "s",
			     built->unrecalled == 1 ? "" : "; the first", built->recall_fault.text);
}

static int print_json(const struct tpd_ctl *ctl, const struct tpd_archive_rebuilt *built, int code)
{
	struct tpd_buf buf = {0};
	struct tpd_json_out out = tpd_json_out_make(&buf);

	tpd_json_begin_object(&out);
	tpd_json_key(&out, "checkpoints");
	tpd_json_put_u64(&out, built->done);
	tpd_json_key(&out, "failed");
	tpd_json_put_u64(&out, built->failed);
	tpd_json_key(&out, "repaired");
	tpd_json_put_u64(&out, built->repaired);
	tpd_json_key(&out, "metrics_recovered");
	tpd_json_put_u64(&out, built->recalled);
	tpd_json_key(&out, "metrics_lost");
	tpd_json_put_u64(&out, built->unrecalled);
	tpd_json_end_object(&out);
	return tpd_ctl_print_json(ctl, &buf, code);
}

static enum tpd_status rebuild(const struct tpd_ctl *ctl, struct tpd_archive *archive,
			       struct tpd_archive_rebuilt *built, struct tpd_err *err)
{
	struct tpd_progress progress = {.cancel = tpd_ctl_cancellable()};
	bool told = tpd_archive_catalog_fault(archive)->status != TPD_OK; /* by tpd_ctl_open() */
	enum tpd_status status = tpd_archive_rebuild(archive, &progress, built, err);

	/* Damage behind its beginning is found only now. */
	if (!told && tpd_archive_catalog_fault(archive)->status)
		tpd_ctl_warn(ctl, "%s", tpd_archive_catalog_fault(archive)->text);
	return status;
}

int tpd_cmd_rebuild(struct tpd_ctl *ctl, int argc TPD_UNUSED, char **argv TPD_UNUSED)
{
	struct tpd_archive *archive = NULL;
	struct tpd_archive_rebuilt built = {0};
	struct tpd_err err = {0};
	int code = TPD_EXIT_DONE;
	enum tpd_status status = tpd_ctl_open(ctl, TPD_ARCHIVE_WRITE, &archive, &err);

	if (status == TPD_OK)
		status = rebuild(ctl, archive, &built, &err);
	tpd_archive_close(archive);
	if (status)
		code = tpd_ctl_fail(ctl, &err);
	if (status && built.failed == 0)
		return code;
	if (built.failed > 0 && built.done > 0)
		code = TPD_EXIT_PARTLY;
	warn_of_metrics(ctl, &built);
	if (ctl->json)
		return print_json(ctl, &built, code);
	print_text(ctl, &built);
	return code;
}
