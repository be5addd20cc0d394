/*
 * t_archive_best.c - metrics from the capture into store and catalog, through crashes, and names like RUN@best:METRIC.
 */
#include "base/tpd.h"

#include <errno.h>

#include "archive_help.h"
#include "fault_io.h"

/* checkpoint-STEP with this entry, or several, in its log_history; its path */
static const char *make(uint64_t step, const char *entries)
{
	char json[512];

	snprintf(json, sizeof(json), "{\"global_step\": %d, \"log_history\": [%s]}", (int)step, entries);
	mkdir(scratch("checkpoint-%d", (int)step), 0755);
	file_write(scratch("checkpoint-%d/model.safetensors", (int)step), &step, sizeof(step));
	file_write(scratch("checkpoint-%d/trainer_state.json", (int)step), json, strlen(json));
	return scratch("checkpoint-%d", (int)step);
}

static const char *with(const char *name, double value, uint64_t step)
{
	static char entry[128];

	snprintf(entry, sizeof(entry), "{\"%s\": %.17g, \"step\": %d}", name, value, (int)step);
	return entry;
}

static void store(uint64_t step, const char *name, double value)
{
	OK(ingest(make(step, with(name, value, step)), "run", step, NULL));
}

static void check_step(const char *name, uint64_t step)
{
	ck_assert_uint_eq(resolve(name).step, step);
}

static void check_fault(const char *name, enum tpd_status status, const char *text)
{
	struct tpd_archive_name out;

	ck_assert_int_eq(tpd_archive_resolve(archive, name, &out, &err), status);
	ck_assert_str_eq(err.text, text);
}

START_TEST(the_best_of_a_run)
{
	struct tpd_archive_name *chosen = NULL;
	size_t count = 0;

	archive_open(16, 0, 1);
	OK(ingest(make(5, ""), "run", 5, NULL));
	check_fault("run@best:loss", TPD_NOT_FOUND, "run 'run' has no metric 'loss': none is known of its checkpoints");
	check_fault("other@best:loss", TPD_NOT_FOUND, "no run 'other'; there is run");
	store(10, "eval_loss", 0.5);
	store(20, "eval_loss", 0.25);
	store(30, "eval_loss", 0.25);
	store(40, "eval_loss", 0.75);
	store(50, "recall@10", 0.5);
	store(60, "recall@10", 0.75);
	check_step("run@best:eval_loss", 30); /* equal to 20: the later one */
	check_step("run@min:eval_loss", 30);
	check_step("run@max:eval_loss", 40);
	check_step("run@best:recall@10", 60);
	check_step("run@min:recall@10", 50);
	check_step("run@latest", 60);
	OK(tpd_archive_select(archive, "run@best:eval_loss", &chosen, &count, &err));
	ck_assert_uint_eq(count, 1);
	ck_assert_uint_eq(chosen[0].step, 30);
	free(chosen);
	check_fault("run@best:loss", TPD_NOT_FOUND, "run 'run' has no metric 'loss'; it has eval_loss, recall@10");
	check_fault("run@max:recall", TPD_NOT_FOUND, "run 'run' has no metric 'recall'; it has recall@10, eval_loss");
	check_fault("run@best:", TPD_USAGE,
		    "'run@best:' is not a name like RUN@STEP, RUN@STEP~VERSION, RUN@latest or RUN@best:METRIC");
	check_fault("run@worst:loss", TPD_USAGE,
		    "'run@worst:loss' is not a name like RUN@STEP, RUN@STEP~VERSION, RUN@latest or RUN@best:METRIC");
	check_fault("run@best", TPD_USAGE, "'run@best' is not a name like RUN@STEP, RUN@STEP~VERSION, RUN@latest or RUN@best:METRIC");
}
END_TEST

/* A record by hand at the end of the run's refs. */
static void append_record(uint8_t type, const void *body, size_t len)
{
	uint8_t digest[TPD_XXH_LEN], *old;
	struct tpd_buf refs = {0};
	size_t old_len, start;

	old = file_read(scratch("store/refs/run"), &old_len);
	tpd_buf_put(&refs, old, old_len);
	start = refs.len;
	tpd_buf_u32(&refs, (uint32_t)len + 1);
	tpd_buf_u8(&refs, type);
	tpd_buf_put(&refs, body, len);
	tpd_xxh128(refs.data + start, refs.len - start, digest);
	tpd_buf_put(&refs, digest, 8);
	file_write(scratch("store/refs/run"), refs.data, refs.len);
	tpd_buf_release(&refs);
	free(old);
}

static void damage(const char *name)
{
	struct tpd_archive_name which = resolve(name);
	char hex[TPD_ID_HEX];

	tpd_id_hex(&which.id, hex);
	file_flip(scratch("store/objects/%.2s/%s.0/manifest", hex, hex), 50);
}

START_TEST(neither_forgotten_nor_damaged)
{
	struct tpd_archive_name which;

	archive_open(16, 0, 1);
	store(10, "loss", 4);
	store(20, "loss", 1);
	store(30, "loss", 2);
	store(40, "loss", 3);
	which = resolve("run@best:loss");
	ck_assert_uint_eq(which.step, 20);
	append_record(3, which.id.bytes, sizeof(which.id.bytes));
	check_step("run@best:loss", 30);
	damage("run@30");
	check_step("run@best:loss", 40);
	damage("run@40");
	check_step("run@best:loss", 10);
	damage("run@10");
	check_fault("run@best:loss", TPD_CORRUPT, "every checkpoint of run 'run' with a metric 'loss' is damaged; see 'tpdectl verify'");
	/* Stored again it is a new version, and what was told of the same content still holds. */
	store(20, "loss", 1);
	which = resolve("run@best:loss");
	ck_assert_uint_eq(which.step, 20);
	ck_assert_uint_eq(which.version, 2);
}
END_TEST

/* --- the catalog --- */

/* What `sqlite3` says to this, once all handles are as they are. */
static void check_sql(const char *sql, const char *want)
{
	char command[1024], got[1024];
	size_t len;
	FILE *shell;

	snprintf(command, sizeof(command), "sqlite3 -readonly '%s' \"%s\"", scratch("store/catalog.sqlite"), sql);
	shell = popen(command, "r");
	ck_assert_ptr_nonnull(shell);
	len = fread(got, 1, sizeof(got) - 1, shell);
	got[len] = 0;
	ck_assert_int_eq(pclose(shell), 0);
	ck_assert_str_eq(got, want);
}

static const char history[] = "SELECT step, metric, value FROM metric_history";

START_TEST(rows_come_and_come_back)
{
	struct tpd_archive_rebuilt rebuilt;
	struct tpd_metrics later = {0};
	struct tpd_run_lock *lock = NULL;
	struct tpd_archive_name which;

	archive_open(16, 0, 1);
	store(10, "loss", 2.5);
	store(20, "loss", 1.5);
	check_sql(history, "10|loss|2.5\n20|loss|1.5\n");
	OK(tpd_archive_rebuild(archive, NULL, &rebuilt, &err));
	check_sql(history, "10|loss|2.5\n20|loss|1.5\n");
	/* The catalog did not hear of it, as when it died in between: the next opening brings the row. */
	which = resolve("run@10");
	OK(tpd_metrics_set(&later, "bleu", 4, 31, &err));
	OK(tpd_store_run_lock(tpd_archive_store(archive), "run", 0, &lock, &err));
	OK(tpd_store_add_metrics(lock, &which.id, &later, &err));
	tpd_store_run_unlock(lock);
	check_sql(history, "10|loss|2.5\n20|loss|1.5\n");
	archive_close();
	archive_open(16, 0, 1);
	check_sql(history, "10|bleu|31.0\n10|loss|2.5\n20|loss|1.5\n");
	archive_close();
	ck_assert_int_eq(unlink(scratch("store/catalog.sqlite")), 0);
	archive_open(16, 0, 1);
	check_sql(history, "10|bleu|31.0\n10|loss|2.5\n20|loss|1.5\n");
	tpd_metrics_release(&later);
}
END_TEST

/* Stored by a tpded that knew no metrics, and met again: the same checkpoint, with what is told of it. */
START_TEST(what_exists_gets_them_later)
{
	static const uint8_t run_record[] = {5, 0, 0, 0, 1, 3, 'r', 'u', 'n'};
	struct tpd_ingest_result result;
	size_t len, len_after, record;
	uint8_t *refs;

	archive_open(16, 0, 1);
	store(10, "loss", 2.5);
	archive_close();
	refs = file_read(scratch("store/refs/run"), &len);
	ck_assert_mem_eq(refs, run_record, sizeof(run_record));
	/* run record (17 bytes), metric record, version record: without the middle one */
	record = 4 + tpd_get_u32(refs + 17) + 8;
	ck_assert_uint_eq(refs[17 + 4], 4);
	len -= record;
	memmove(refs + 17, refs + 17 + record, len - 17);
	file_write(scratch("store/refs/run"), refs, len);
	free(refs);
	ck_assert_int_eq(unlink(scratch("store/catalog.sqlite")), 0);
	archive_open(16, 0, 1);
	check_sql("SELECT count(*) FROM checkpoints; SELECT count(*) FROM metrics", "1\n0\n");
	check_fault("run@best:loss", TPD_NOT_FOUND, "run 'run' has no metric 'loss': none is known of its checkpoints");
	OK(ingest(scratch("checkpoint-10"), "run", 10, &result));
	ck_assert(result.existed);
	ck_assert_uint_eq(result.version, 1);
	check_step("run@best:loss", 10);
	check_sql(history, "10|loss|2.5\n");
	refs = file_read(scratch("store/refs/run"), &len);
	free(refs);
	OK(ingest(scratch("checkpoint-10"), "run", 10, &result)); /* and nothing more, the next time */
	refs = file_read(scratch("store/refs/run"), &len_after);
	free(refs);
	ck_assert_uint_eq(len_after, len);
}
END_TEST

/*
 * It dies between any two of its calls. Whatever the next one to open finds: a checkpoint that has a name has its
 * metrics, in the store and in the catalog, without its source; one that has none is as if nothing had been.
 */
START_TEST(no_crash_comes_between)
{
	struct fault fault = {.fail_at = -1, .sys = EIO, .forever = true};
	struct tpd_io bad = fault_io(&fault);
	struct tpd_archive_options options = {.io = &bad, .mode = TPD_ARCHIVE_CREATE, .threads = 1};
	char path[512];
	unsigned with_name = 0, alone = 0;

	snprintf(path, sizeof(path), "%s", make(20, with("loss", 1.5, 20)));
	for (int at = 0;; at++) {
		struct tpd_run run = {0};
		struct tpd_run_metrics metrics = {0};
		enum tpd_status status;
		int calls;

		fault.fail_at = -1;
		options.store = scratch("store");
		OK(tpd_archive_open(&options, &archive, &err));
		store(10, "loss", 2.5);
		calls = fault.calls;
		fault.fail_at = calls + at;
		status = ingest(path, "run", 20, NULL);
		archive_close();
		if (fault.calls <= fault.fail_at) {
			ck_assert_int_eq(status, TPD_OK);
			break;
		}
		archive_open(0, 0, 1);
		OK(tpd_store_run_read(tpd_archive_store(archive), "run", &run, &err));
		OK(tpd_store_metrics(tpd_archive_store(archive), "run", &metrics, &err));
		ck_assert(run.count == 1 || run.count == 2);
		if (run.count == 2) {
			with_name++;
			check_step("run@best:loss", 20);
			check_sql(history, "10|loss|2.5\n20|loss|1.5\n");
		} else {
			alone += metrics.count == 2;
			check_step("run@best:loss", 10);
			check_sql(history, "10|loss|2.5\n");
			OK(ingest(path, "run", 20, NULL));
			check_step("run@best:loss", 20);
			check_sql(history, "10|loss|2.5\n20|loss|1.5\n");
		}
		tpd_run_release(&run);
		tpd_run_metrics_release(&metrics);
		archive_close();
		OK(tpd_io_remove_tree(tpd_io_posix(), AT_FDCWD, scratch("store"), &err));
	}
	ck_assert_uint_gt(with_name, 5);
	ck_assert_uint_gt(alone, 2); /* metrics were written, and the checkpoint was not */
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {the_best_of_a_run, neither_forgotten_nor_damaged, rows_come_and_come_back,
					     what_exists_gets_them_later, no_crash_comes_between};

	return run_tests("archive best", tests, TPD_ARRAY_LEN(tests));
}
