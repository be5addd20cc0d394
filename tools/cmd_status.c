/*
 * cmd_status.c - `tpdectl status`: the daemon, the store, the queue, what happened last.
 *
 * The daemon is asked over its control socket; that there is none is an answer, not an error. The rest comes from
 * store and catalog, so it is there without a daemon too.
 */
#include "base/tpd.h"

#include "tools/tools.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "wire/wire.h"

#define LAST_EVENTS 5
#define WAITING_MAX 10 /* rows a table; --json has all that the daemon gives, ... */
#define FAILED_MAX 50  /* ... and so many of what failed */

struct facts {
	/* the daemon */
	char *json; /* its answer; owned; NULL: none */
	struct tpd_reply reply;
	struct tpd_err absent; /* why there is none */
	bool other_store;
	bool served; /* a daemon has this store, wherever it listens */
	/* the store */
	uint64_t runs, checkpoints, size, stored;
	struct tpd_err unreadable; /* of runs whose refs cannot be read; TPD_OK: none */
	struct tpd_unfinished *unfinished; /* owned */
	size_t unfinished_count;
	struct tpd_catalog_totals totals;
	struct tpd_err catalog_fault; /* why totals and events are not all there; TPD_OK: they are */
	struct tpd_table events;
	struct tpd_buf events_json;
	struct tpd_json_out out; /* into events_json */
	/* of the catalog's jobs, what failed */
	struct tpd_table failed;
	struct tpd_buf failed_json;
	struct tpd_json_out failed_out;
	unsigned failed_count; /* in failed_json */
};

static bool same_directory(const char *a, const char *b)
{
	TPD_AUTO_FREE char *x = realpath(a, NULL);
	TPD_AUTO_FREE char *y = realpath(b, NULL);

	return x && y && !strcmp(x, y);
}

static void ask_daemon(const struct tpd_ctl *ctl, struct facts *facts)
{
	const char *store;

	if (tpd_wire_call(ctl->socket, "{\"command\":\"status\"}", TPD_ANSWER_MS, &facts->json, &facts->absent))
		return;
	if (tpd_reply_parse(facts->json, &facts->reply, &facts->absent)) {
		free(facts->json);
		facts->json = NULL;
		return;
	}
	store = tpd_reply_get(&facts->reply, "store");
	facts->other_store = store && !same_directory(store, ctl->store);
}

static enum tpd_status add_event(void *arg, int64_t time_ns, const char *level, const char *run, const char *text,
				 struct tpd_err *err TPD_UNUSED)
{
	struct facts *facts = arg;
	char time[TPD_TEXT_SIZE];

	tpd_table_add(&facts->events, tpd_text_time(time_ns, time));
	tpd_table_add(&facts->events, strcmp(level, "info") ? level : "");
	tpd_table_add(&facts->events, run ? run : "");
	tpd_table_add(&facts->events, text);

	tpd_json_begin_object(&facts->out);
	tpd_json_key(&facts->out, "time_ns");
	tpd_json_put_i64(&facts->out, time_ns);
	tpd_json_key(&facts->out, "level");
	tpd_json_put_string(&facts->out, level);
	tpd_json_key(&facts->out, "run");
	tpd_json_put_string(&facts->out, run);
	tpd_json_key(&facts->out, "text");
	tpd_json_put_string(&facts->out, text);
	tpd_json_end_object(&facts->out);
	return TPD_OK;
}

static enum tpd_status add_failed(void *arg, const struct tpd_job *job, struct tpd_err *err TPD_UNUSED)
{
	struct facts *facts = arg;
	struct tpd_json_out *out = &facts->failed_out;

	if (facts->failed_count >= FAILED_MAX)
		return TPD_OK;
	if (facts->failed_count++ < WAITING_MAX) {
		tpd_table_addf(&facts->failed, "%s@%llu", job->run, (unsigned long long)job->step);
		tpd_table_add(&facts->failed, job->path);
		tpd_table_add(&facts->failed, job->message ? job->message : "");
	}
	tpd_json_begin_object(out);
	tpd_json_key(out, "run");
	tpd_json_put_string(out, job->run);
	tpd_json_key(out, "step");
	tpd_json_put_u64(out, job->step);
	tpd_json_key(out, "path");
	tpd_json_put_string(out, job->path);
	tpd_json_key(out, "time_ns");
	tpd_json_put_i64(out, job->changed_ns);
	tpd_json_key(out, "error");
	tpd_json_put_string(out, job->message);
	tpd_json_end_object(out);
	return TPD_OK;
}

/* Queue, failures and events; a damaged catalog ends neither the command nor the table of what could be read. */
static enum tpd_status ask_catalog(struct tpd_catalog *catalog, struct facts *facts, struct tpd_err *err)
{
	struct tpd_err fault = {0};
	enum tpd_status status = tpd_catalog_totals(catalog, &facts->totals, &fault);

	if (status == TPD_OK)
		status = tpd_catalog_jobs(catalog, 1u << TPD_JOB_FAILED, add_failed, facts, &fault);
	if (status == TPD_OK)
		status = tpd_catalog_events(catalog, LAST_EVENTS, add_event, facts, &fault);
	if (status == TPD_CORRUPT) {
		facts->catalog_fault = fault;
		return TPD_OK;
	}
	if (status && err)
		*err = fault;
	return status;
}

/* Does a tpded have this store? Its lock tells, also of one that listens at another socket. */
static bool is_served(const struct tpd_store *store)
{
	const struct tpd_io *io = tpd_store_io(store);
	int fd = io->open(io, tpd_store_dir(store), "daemon.lock", O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0);
	bool served;

	if (fd < 0)
		return false; /* none ever had it, or it is not ours to read */
	served = io->lock_test(io, fd, TPD_LOCK_EXCLUSIVE, 0, 0) == 1;
	io->close(io, fd);
	return served;
}

static enum tpd_status look(struct tpd_ctl *ctl, struct facts *facts, struct tpd_err *err)
{
	struct tpd_archive *archive = NULL;
	struct tpd_rows rows = {0};
	struct tpd_catalog *catalog;
	enum tpd_status status = tpd_ctl_open(ctl, TPD_ARCHIVE_READ, &archive, err);

	if (status == TPD_OK)
		status = tpd_rows_read(archive, NULL, &rows, err);
	if (status == TPD_OK)
		tpd_archive_check_runs(archive, NULL, &facts->unreadable);
	if (status == TPD_OK)
		facts->served = is_served(tpd_archive_store(archive));
	if (status == TPD_OK)
		status = tpd_store_unfinished(tpd_archive_store(archive), &facts->unfinished, &facts->unfinished_count, err);
	for (size_t i = 0; i < rows.count; i++) {
		facts->runs += i == 0 || strcmp(rows.rows[i].name.run, rows.rows[i - 1].name.run) != 0;
		facts->checkpoints++;
		facts->size += rows.rows[i].size;
		facts->stored += rows.rows[i].stored;
	}
	catalog = status == TPD_OK ? tpd_archive_catalog(archive) : NULL;
	facts->catalog_fault = rows.catalog_fault;
	tpd_json_begin_array(&facts->out);
	tpd_json_begin_array(&facts->failed_out);
	if (catalog)
		status = ask_catalog(catalog, facts, err);
	tpd_json_end_array(&facts->failed_out);
	tpd_json_end_array(&facts->out);
	tpd_rows_release(&rows);
	tpd_archive_close(archive);
	return status;
}

/* --- for people --- */

static const char *field(const struct facts *facts, const char *path)
{
	const char *value = tpd_reply_get(&facts->reply, "%s", path);

	return value ? value : "?";
}

/* A line that no control character of what it tells can leave, nor bytes that are no UTF-8. */
static void line(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void line(const char *fmt, ...)
{
	TPD_AUTO_FREE char *text = NULL;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		text = NULL;
	va_end(ap);
	puts(text ? tpd_text_scrub(text) : "out of memory");
}

static void print_job(const struct facts *facts)
{
	uint64_t done = tpd_reply_u64(&facts->reply, "job.done"), total = tpd_reply_u64(&facts->reply, "job.total");
	uint64_t rate = tpd_reply_u64(&facts->reply, "job.rate");
	char text[TPD_TEXT_SIZE], share[16] = "";

	if (!tpd_reply_get(&facts->reply, "job.run"))
		return;
	if (total > 0)
		snprintf(share, sizeof(share), ": %u %%", (unsigned)(100 * TPD_MIN((double)done / (double)total, 1)));
	if (rate > 0)
		tpd_text_duration((double)(total - TPD_MIN(done, total)) / (double)rate, text);
	line("            storing %s@%s%s%s%s%s", field(facts, "job.run"), field(facts, "job.step"), share,
	     rate > 0 ? ", " : "", rate > 0 ? text : "", rate > 0 ? " left" : "");
}

static enum tpd_status print_watches(const struct facts *facts, struct tpd_err *err)
{
	static const char *const titles[] = {"WATCH", "MODE", ">CHECKPOINTS", ">UNFINISHED", "PATH"};
	struct tpd_table table = tpd_table_make(titles, TPD_ARRAY_LEN(titles));
	enum tpd_status status = TPD_OK;
	bool missing = false;
	const char *name;

	for (unsigned i = 0; (name = tpd_reply_get(&facts->reply, "watches.%u.name", i)) != NULL; i++) {
		static const char *const keys[] = {"checkpoints", "unfinished", "path"};
		const char *since = tpd_reply_get(&facts->reply, "watches.%u.missing_since", i);
		const char *mode = tpd_reply_get(&facts->reply, "watches.%u.mode", i);
		char time[TPD_TEXT_SIZE];
		uint64_t ns = 0;

		tpd_table_add(&table, name);
		if (since && tpd_text_parse_u64(since, &ns))
			tpd_table_addf(&table, "missing since %s UTC", tpd_text_time((int64_t)ns, time));
		else
			tpd_table_add(&table, mode ? mode : "");
		missing = missing || since;
		for (size_t k = 0; k < TPD_ARRAY_LEN(keys); k++) {
			const char *value = tpd_reply_get(&facts->reply, "watches.%u.%s", i, keys[k]);

			tpd_table_add(&table, value ? value : "");
		}
	}
	if (table.cells > 0) {
		putchar('\n');
		status = tpd_table_print(&table, 0, err);
	}
	if (status == TPD_OK && missing)
		puts("what is missing is taken up again by itself when it is there");
	tpd_table_release(&table);
	return status;
}

static void print_daemon(const struct tpd_ctl *ctl, const struct facts *facts)
{
	char time[TPD_TEXT_SIZE];

	if (!facts->json) {
		if (facts->absent.status == TPD_NOT_FOUND && facts->served)
			line("daemon      a tpded has this store, but does not listen at '%s': --socket or --config says where", ctl->socket);
		else if (facts->absent.status == TPD_NOT_FOUND)
			line("daemon      not running (nobody listens at '%s')", ctl->socket);
		else
			line("daemon      no answer: %s", facts->absent.text);
		return;
	}
	line("daemon      %s: pid %s, version %s, since %s UTC", field(facts, "state"), field(facts, "pid"),
	     field(facts, "version"), tpd_text_time((int64_t)tpd_reply_u64(&facts->reply, "since"), time));
	if (facts->other_store)
		line("            but it serves another store, '%s'%s", field(facts, "store"),
		     facts->served ? "; this one has a tpded of its own, at another socket" : "");
	print_job(facts);
	if (tpd_reply_get(&facts->reply, "last_error.text"))
		line("            last error, %s: %s",
		     tpd_text_time((int64_t)tpd_reply_u64(&facts->reply, "last_error.time"), time),
		     field(facts, "last_error.text"));
}

/* "0:05", "2:03": how long nothing of it has changed. */
static void add_unchanged(struct tpd_table *table, const char *ms_text)
{
	char text[TPD_TEXT_SIZE];
	uint64_t ms = 0;

	if (ms_text && tpd_text_parse_u64(ms_text, &ms))
		tpd_table_add(table, tpd_text_duration((double)ms / 1000, text));
	else
		tpd_table_add(table, "?");
}

/* "4:59": until it is tried again. NULL: nothing keeps it. */
static const char *until(const char *ns_text, char out[TPD_TEXT_SIZE])
{
	uint64_t ns = 0;
	int64_t left;

	if (!ns_text || !tpd_text_parse_u64(ns_text, &ns) || ns > INT64_MAX)
		return NULL;
	left = (int64_t)ns - tpd_clock_wall_ns();
	return tpd_text_duration(left > 0 ? (double)left / 1e9 : 0, out);
}

static bool add_waiting(struct tpd_table *table, const struct tpd_reply *reply, unsigned i)
{
	const char *run = tpd_reply_get(reply, "unfinished.%u.run", i);
	const char *step = tpd_reply_get(reply, "unfinished.%u.step", i);
	const char *framework = tpd_reply_get(reply, "unfinished.%u.framework", i);
	const char *waits = tpd_reply_get(reply, "unfinished.%u.waits_for", i);
	char text[TPD_TEXT_SIZE];
	const char *left = until(tpd_reply_get(reply, "unfinished.%u.next_try", i), text);

	if (!run)
		return false;
	tpd_table_addf(table, "%s@%s", run, step ? step : "?");
	tpd_table_add(table, framework ? framework : "");
	add_unchanged(table, tpd_reply_get(reply, "unfinished.%u.unchanged_ms", i));
	if (!waits && left)
		tpd_table_addf(table, "another try in %s", left);
	else
		tpd_table_add(table, waits ? waits : "no further change");
	return true;
}

static bool add_retry(struct tpd_table *table, const struct tpd_reply *reply, unsigned i)
{
	const char *run = tpd_reply_get(reply, "retries.%u.run", i);
	const char *step = tpd_reply_get(reply, "retries.%u.step", i);
	const char *tries = tpd_reply_get(reply, "retries.%u.tries", i);
	const char *error = tpd_reply_get(reply, "retries.%u.error", i);
	char text[TPD_TEXT_SIZE];
	const char *left = until(tpd_reply_get(reply, "retries.%u.next_try", i), text);

	if (!run)
		return false;
	tpd_table_addf(table, "%s@%s", run, step ? step : "?");
	tpd_table_add(table, tries ? tries : "?");
	tpd_table_add(table, left ? left : "its turn");
	tpd_table_add(table, error ? error : "");
	return true;
}

/* What cannot be stored as it is. */
static enum tpd_status print_failed(const struct facts *facts, struct tpd_err *err)
{
	uint64_t shown = TPD_MIN(facts->failed_count, (unsigned)WAITING_MAX);
	enum tpd_status status;

	if (shown == 0)
		return TPD_OK;
	putchar('\n');
	status = tpd_table_print(&facts->failed, 0, err);
	if (status == TPD_OK && facts->totals.jobs_failed > shown)
		printf("and %llu more\n", (unsigned long long)(facts->totals.jobs_failed - shown));
	if (status == TPD_OK)
		puts("each is tried again when it changes, when the daemon starts, and by 'tpdectl retry'");
	return status;
}

/* Jobs that failed, and when each is tried again. */
static enum tpd_status print_retries(const struct facts *facts, struct tpd_err *err)
{
	static const char *const titles[] = {"FAILED", ">TIMES", ">AGAIN IN", "LAST ERROR"};
	struct tpd_table table = tpd_table_make(titles, TPD_ARRAY_LEN(titles));
	uint64_t all = tpd_reply_u64(&facts->reply, "queue.retrying");
	enum tpd_status status = TPD_OK;
	unsigned shown = 0;

	while (shown < WAITING_MAX && add_retry(&table, &facts->reply, shown))
		shown++;
	if (shown > 0) {
		putchar('\n');
		status = tpd_table_print(&table, 0, err);
		if (status == TPD_OK && all > shown)
			printf("and %llu more\n", (unsigned long long)(all - shown));
		if (status == TPD_OK)
			puts("'tpdectl retry' tries at once");
	}
	tpd_table_release(&table);
	return status;
}

/* What the daemon has seen of checkpoints that are not complete, and what each waits for. */
static enum tpd_status print_waiting(const struct facts *facts, struct tpd_err *err)
{
	static const char *const titles[] = {"INCOMPLETE", "FRAMEWORK", ">UNCHANGED", "WAITS FOR"};
	struct tpd_table table = tpd_table_make(titles, TPD_ARRAY_LEN(titles));
	enum tpd_status status = TPD_OK;
	uint64_t all = 0, of_watch;
	unsigned shown = 0;
	const char *text;

	while (shown < WAITING_MAX && add_waiting(&table, &facts->reply, shown))
		shown++;
	/* The daemon lists only so many; how many there are it tells by watch. */
	for (unsigned i = 0; (text = tpd_reply_get(&facts->reply, "watches.%u.unfinished", i)) != NULL; i++)
		all += tpd_text_parse_u64(text, &of_watch) ? of_watch : 0;
	if (shown > 0) {
		putchar('\n');
		status = tpd_table_print(&table, 0, err);
		if (status == TPD_OK && all > shown)
			printf("and %llu more\n", (unsigned long long)(all - shown));
	}
	tpd_table_release(&table);
	return status;
}

/* All but what the daemon is at. */
static void print_unfinished(const struct facts *facts)
{
	const char *in_work = tpd_reply_get(&facts->reply, "job.run");
	char size[TPD_TEXT_SIZE];
	bool any = false;

	for (size_t i = 0; i < facts->unfinished_count; i++) {
		const struct tpd_unfinished *item = &facts->unfinished[i];

		if (in_work && strcmp(item->run, in_work) == 0)
			continue;
		line("unfinished  %s@%llu: %s, taken up when this step is stored again", item->run,
		     (unsigned long long)item->step, tpd_text_bytes(item->bytes, size));
		any = true;
	}
	if (any)
		puts("            where that will not be, 'tpdectl discard RUN@STEP' removes it");
}

static enum tpd_status print_text(const struct tpd_ctl *ctl, const struct facts *facts, struct tpd_err *err)
{
	char saving[TPD_SAVING_TEXT];
	enum tpd_status status;

	print_daemon(ctl, facts);
	line("store       %s", ctl->store);
	line("            %llu run%s, %llu checkpoint%s: %s", (unsigned long long)facts->runs,
	     facts->runs == 1 ? "" : "s", (unsigned long long)facts->checkpoints, facts->checkpoints == 1 ? "" : "s",
	     tpd_text_saving(facts->size, facts->stored, saving));
	print_unfinished(facts);
	printf("queue       %llu waiting, %llu in work, %llu failed\n", (unsigned long long)facts->totals.jobs_queued,
	       (unsigned long long)facts->totals.jobs_running, (unsigned long long)facts->totals.jobs_failed);
	status = print_watches(facts, err);
	if (status == TPD_OK)
		status = print_failed(facts, err);
	if (status == TPD_OK)
		status = print_retries(facts, err);
	if (status == TPD_OK)
		status = print_waiting(facts, err);
	if (status == TPD_OK && facts->events.cells > 0) {
		putchar('\n');
		status = tpd_table_print(&facts->events, 0, err);
	}
	return status;
}

/* --- JSON --- */

static int print_json(const struct tpd_ctl *ctl, struct facts *facts)
{
	struct tpd_buf buf = {0};
	struct tpd_json_out out = tpd_json_out_make(&buf);

	tpd_buf_u8(&facts->events_json, 0);
	tpd_buf_u8(&facts->failed_json, 0);
	tpd_json_begin_object(&out);
	tpd_json_key(&out, "store");
	tpd_json_put_string(&out, ctl->store);
	tpd_json_key(&out, "runs");
	tpd_json_put_u64(&out, facts->runs);
	tpd_json_key(&out, "checkpoints");
	tpd_json_put_u64(&out, facts->checkpoints);
	tpd_json_key(&out, "size");
	tpd_json_put_u64(&out, facts->size);
	tpd_json_key(&out, "stored");
	tpd_json_put_u64(&out, facts->stored);
	tpd_json_key(&out, "ratio");
	tpd_json_put_f64(&out, tpd_text_ratio(facts->size, facts->stored));
	tpd_json_key(&out, "unfinished");
	tpd_json_begin_array(&out);
	for (size_t i = 0; i < facts->unfinished_count; i++) {
		tpd_json_begin_object(&out);
		tpd_json_key(&out, "run");
		tpd_json_put_string(&out, facts->unfinished[i].run);
		tpd_json_key(&out, "step");
		tpd_json_put_u64(&out, facts->unfinished[i].step);
		tpd_json_key(&out, "bytes");
		tpd_json_put_u64(&out, facts->unfinished[i].bytes);
		tpd_json_end_object(&out);
	}
	tpd_json_end_array(&out);
	tpd_json_key(&out, "queue");
	tpd_json_begin_object(&out);
	tpd_json_key(&out, "queued");
	tpd_json_put_u64(&out, facts->totals.jobs_queued);
	tpd_json_key(&out, "running");
	tpd_json_put_u64(&out, facts->totals.jobs_running);
	tpd_json_key(&out, "failed");
	tpd_json_put_u64(&out, facts->totals.jobs_failed);
	tpd_json_end_object(&out);
	tpd_json_key(&out, "failed");
	if (facts->failed_json.failed || !tpd_reply_copy((const char *)facts->failed_json.data, &out))
		buf.failed = true;
	tpd_json_key(&out, "served");
	tpd_json_put_bool(&out, facts->served);
	tpd_json_key(&out, "daemon");
	if (facts->json)
		tpd_reply_copy(facts->json, &out);
	else
		tpd_json_put_null(&out);
	tpd_json_key(&out, "events");
	if (facts->events_json.failed || !tpd_reply_copy((const char *)facts->events_json.data, &out))
		buf.failed = true;
	tpd_json_end_object(&out);
	return tpd_ctl_print_json(ctl, &buf, TPD_EXIT_DONE);
}

int tpd_cmd_status(struct tpd_ctl *ctl, int argc TPD_UNUSED, char **argv TPD_UNUSED)
{
	static const char *const titles[] = {"=LAST EVENTS (UTC)", "LEVEL", "RUN", "EVENT"};
	static const char *const failed_titles[] = {"CANNOT BE STORED", "PATH", "WHY"};
	struct facts facts = {
		.events = tpd_table_make(titles, TPD_ARRAY_LEN(titles)),
		.failed = tpd_table_make(failed_titles, TPD_ARRAY_LEN(failed_titles)),
	};
	struct tpd_err err = {0};
	int code = TPD_EXIT_DONE;
	enum tpd_status status;

	facts.out = tpd_json_out_make(&facts.events_json);
	facts.failed_out = tpd_json_out_make(&facts.failed_json);
	status = look(ctl, &facts, &err);
	if (status == TPD_OK)
		ask_daemon(ctl, &facts);
	if (status == TPD_OK)
		tpd_ctl_tell_catalog(ctl, &facts.catalog_fault);
	if (status == TPD_OK && !ctl->json)
		status = print_text(ctl, &facts, &err);
	if (status)
		code = tpd_ctl_fail(ctl, &err);
	else if (ctl->json)
		code = print_json(ctl, &facts);
	if (status == TPD_OK && facts.unreadable.status)
		code = tpd_ctl_fail(ctl, &facts.unreadable);
	for (size_t i = 0; i < facts.unfinished_count; i++)
		free(facts.unfinished[i].run);
	free(facts.unfinished);
	tpd_table_release(&facts.events);
	tpd_table_release(&facts.failed);
	tpd_reply_release(&facts.reply);
	tpd_buf_release(&facts.events_json);
	tpd_buf_release(&facts.failed_json);
	free(facts.json);
	return code;
}
