/*
 * tools.h - what the commands of tpdectl share.
 *
 * tpdectl.c parses the command line into one struct tpd_ctl and calls the command's function from its table.  A
 * command returns the exit code: 0, or what tpd_ctl_fail() made of a status after printing it.  Results go to standard
 * output (with --json exactly one JSON value), everything else to standard error.
 *
 * Text that comes from a store (names of files and tensors, messages) is untrusted: it is printed through
 * tpd_text_clean() or a table, which leave no control character in it.
 */
#ifndef TPD_TOOLS_H
#define TPD_TOOLS_H

#include "base/tpd.h"

#include <pthread.h>
#include <stdatomic.h>

#include "archive/archive.h"
#include "base/bytes.h"
#include "base/json.h"
#include "base/text.h"
#include "wire/config.h"

/* Exit codes; in the man page. A stop by a signal is 128 + its number. */
enum tpd_exit {
	TPD_EXIT_DONE = 0,
	TPD_EXIT_FAILED = 1,
	TPD_EXIT_USAGE = 2,
	TPD_EXIT_PARTLY = 3,
	TPD_EXIT_NOT_FOUND = 4,
	TPD_EXIT_CORRUPT = 5,
	TPD_EXIT_BUSY = 6
};

/* --- the command line (tpdectl.c) --- */

struct tpd_ctl {
	const char *command;
	/* common options; store, catalog and socket hold what is in force once tpd_ctl_locate() has been called */
	const char *store, *catalog, *socket, *config_file;
	bool json, quiet;
	uint64_t threads; /* 0: not given */
	enum tpd_effort effort;
	enum tpd_depend depend;
	bool has_effort, has_depend;
	int64_t lock_timeout_ms;
	bool has_lock_timeout; /* it was given */
	/* options of commands */
	const char *run, *to, *base;
	const char **files; /* each --file, ended by NULL; owned; NULL: none */
	uint64_t step;
	bool has_step, force, tensors, runs;
	const char *metric;

	struct tpd_config config;
	bool has_config; /* config was read and is released at the end */
	bool located;
};

/* One for each of enum tpd_status. */
int tpd_ctl_exit_code(enum tpd_status status);
/* Print the error ("tpdectl: ...", or a JSON object) to standard error; returns its exit code. */
int tpd_ctl_fail(const struct tpd_ctl *ctl, const struct tpd_err *err);
/* A mistake in the command line: the message, the command's usage line, TPD_EXIT_USAGE. */
int tpd_ctl_usage(const struct tpd_ctl *ctl, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* A remark on standard error, unless --quiet or --json. */
void tpd_ctl_note(const struct tpd_ctl *ctl, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* A warning on standard error, unless --json. */
void tpd_ctl_warn(const struct tpd_ctl *ctl, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Print the JSON text in `buf` and a newline, release it; returns `code`, or the exit code of what failed. */
int tpd_ctl_print_json(const struct tpd_ctl *ctl, struct tpd_buf *buf, int code);
/* tpd_config_read(); a file that is not there or cannot be read is TPD_USAGE, too, as it is for tpded. */
enum tpd_status tpd_ctl_read_config(const char *file, enum tpd_config_check check, struct tpd_config *out,
				    struct tpd_err *err);
/*
 * Find store, catalog and socket: --store, else [store] path= of --config, else $TPDED_STORE, else, when it is there,
 * as /etc/tpded/tpded.conf says, else /var/lib/tpded. That file is read only when nothing before it names the store.
 */
enum tpd_status tpd_ctl_locate(struct tpd_ctl *ctl, struct tpd_err *err);
/* Locate and open. A catalog that was damaged and put aside for it is told of. */
enum tpd_status tpd_ctl_open(struct tpd_ctl *ctl, enum tpd_archive_mode mode, struct tpd_archive **out_archive,
			     struct tpd_err *err);
/* Why the catalog was not used, if it was not and should have been: a line, for commands that read it. */
void tpd_ctl_tell_catalog(const struct tpd_ctl *ctl, const struct tpd_err *fault);
/*
 * From here on the first SIGINT, SIGTERM or SIGHUP asks the work to stop (for struct tpd_progress), so that it can
 * clean up; a second one kills.
 */
const atomic_bool *tpd_ctl_cancellable(void);

/* The commands, one file each: cmd_NAME.c. */
int tpd_cmd_status(struct tpd_ctl *ctl, int argc, char **argv);
int tpd_cmd_retry(struct tpd_ctl *ctl, int argc, char **argv);
int tpd_cmd_list(struct tpd_ctl *ctl, int argc, char **argv);
int tpd_cmd_show(struct tpd_ctl *ctl, int argc, char **argv);
int tpd_cmd_ingest(struct tpd_ctl *ctl, int argc, char **argv);
int tpd_cmd_discard(struct tpd_ctl *ctl, int argc, char **argv);
int tpd_cmd_restore(struct tpd_ctl *ctl, int argc, char **argv);
int tpd_cmd_verify(struct tpd_ctl *ctl, int argc, char **argv);
int tpd_cmd_stats(struct tpd_ctl *ctl, int argc, char **argv);
int tpd_cmd_rebuild(struct tpd_ctl *ctl, int argc, char **argv);
int tpd_cmd_config_check(struct tpd_ctl *ctl, int argc, char **argv);

/* --- checkpoints as rows (rows.c) --- */

#define TPD_NAME_TEXT 256 /* RUN@STEP~N: a run's name has at most 200 bytes */

struct tpd_row {
	struct tpd_archive_name name;
	enum tpd_status status;    /* of reading it; the fields below hold only when it is TPD_OK */
	char *kind, *source, *ref; /* owned; ref: hex id, or NULL for a keyframe */
	const struct tpd_metrics *metrics; /* NULL until tpd_rows_metrics() */
	uint64_t size, stored, files;
	uint32_t depth;
	int64_t created_ns;
};

struct tpd_rows {
	struct tpd_row *rows; /* owned, by run, step and version */
	size_t count;
	struct tpd_archive_name *all; /* of the whole store, by id: to name references; owned */
	size_t all_count;
	struct tpd_run_metrics *metrics; /* of each run of the rows; owned */
	size_t metrics_count;
	struct tpd_err catalog_fault; /* why the catalog was not asked to its end; TPD_OK: it was, or is not there */
};

/*
 * What `name` covers (as tpd_archive_select), each with what the catalog says of it, or else its manifest: so a
 * catalog that is absent or behind makes no difference. A checkpoint that cannot be read keeps its row.
 */
enum tpd_status tpd_rows_read(struct tpd_archive *archive, const char *name, struct tpd_rows *out, struct tpd_err *err);
/* And their metrics, which are in the refs. */
enum tpd_status tpd_rows_metrics(struct tpd_archive *archive, struct tpd_rows *rows, struct tpd_err *err);
/* The manifest of a checkpoint that refs name. That it is not in the store is damage then: TPD_CORRUPT. */
enum tpd_status tpd_named_manifest(struct tpd_archive *archive, const struct tpd_archive_name *name,
				   enum tpd_manifest_keep keep, struct tpd_manifest *out, struct tpd_err *err);
/* No rows, only what names references need. */
enum tpd_status tpd_rows_names(struct tpd_archive *archive, struct tpd_rows *out, struct tpd_err *err);
void tpd_rows_release(struct tpd_rows *rows); /* safe on a zeroed struct */
/* "RUN@STEP~N"; with `brief` the version is left out where there is only one. */
const char *tpd_rows_name(const struct tpd_rows *rows, const struct tpd_archive_name *name, bool brief,
			  char out[TPD_NAME_TEXT]);
/* The name of a checkpoint by its hex id; the first 12 digits when it is not known. */
const char *tpd_rows_name_of_id(const struct tpd_rows *rows, const char *id, bool brief, char out[TPD_NAME_TEXT]);
/* "RUN@STEP~N" */
const char *tpd_name_text(const struct tpd_archive_name *name, char out[TPD_NAME_TEXT]);

/* An object of names and numbers. */
void tpd_rows_put_metrics(struct tpd_json_out *out, const struct tpd_metrics *metrics);

/* --- tables (table.c) --- */

/* A cell per column; a column is right-aligned when its title begins with '>', and not shortened then, or when it begins with '='. */
struct tpd_table {
	const char *const *titles; /* borrowed */
	size_t columns, cells, cap;
	char **cell; /* owned */
	bool failed; /* out of memory: prints nothing, tpd_table_print() says so */
};

struct tpd_table tpd_table_make(const char *const *titles, size_t columns);
void tpd_table_release(struct tpd_table *table);
/* The next cell of the current row; a row is full after `columns` of them. */
void tpd_table_add(struct tpd_table *table, const char *text);
void tpd_table_addf(struct tpd_table *table, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void tpd_table_add_bytes(struct tpd_table *table, uint64_t bytes);
void tpd_table_add_ratio(struct tpd_table *table, uint64_t size, uint64_t stored);
/*
 * Columns that are empty in every row are left out. Each line begins with `indent` spaces. What is too wide for the terminal, if it goes to
 * one, is shortened.
 */
enum tpd_status tpd_table_print(const struct tpd_table *table, unsigned indent, struct tpd_err *err);

/* Columns that a terminal needs for UTF-8 text. */
size_t tpd_text_width(const char *s);
/* A copy that tpd_text_scrub() went over; fresh memory, NULL: out of memory. */
char *tpd_text_clean(const char *s);
/* "758 kB stored as 401 kB (1.89x, 47.1 % saved)" */
#define TPD_SAVING_TEXT 96
const char *tpd_text_saving(uint64_t size, uint64_t stored, char out[TPD_SAVING_TEXT]);
/* size / stored, 0 when nothing is stored. */
double tpd_text_ratio(uint64_t size, uint64_t stored);
/* Columns of the terminal at descriptor fd; 0 when it is none. */
unsigned tpd_terminal_width(int fd);

/* --- progress (progress.c) --- */

/*
 *     struct tpd_bar bar;
 *     struct tpd_progress progress = tpd_bar_start(&bar, ctl, "demo@40", size);
 *     ... work ...
 *     tpd_bar_finish(&bar);       also after a failure, before anything is printed
 *
 * A line on standard error, when that is a terminal and neither --quiet nor --json is given: bytes, share, rate and
 * time left, redrawn at most ten times a second, erased at the end.
 */
struct tpd_bar {
	pthread_mutex_t lock; /* progress may come from any thread */
	const char *label;    /* borrowed */
	uint64_t size;        /* what the total stands for, shown as bytes; 0: the total itself */
	bool on, drawn;
	double start, last_draw, last_rate; /* monotonic seconds */
	double rate, rate_done;             /* bytes a second, smoothed; bytes at last_rate */
};

struct tpd_progress tpd_bar_start(struct tpd_bar *bar, const struct tpd_ctl *ctl, const char *label, uint64_t size);
void tpd_bar_finish(struct tpd_bar *bar);

/* --- the daemon's answer (reply.c) --- */

#define TPD_ANSWER_MS 3000 /* that it takes at most */

/* A JSON value flattened: "watches.0.name" -> "demo". */
struct tpd_reply_field {
	char *path, *value; /* owned */
};
struct tpd_reply {
	struct tpd_reply_field *fields; /* owned */
	size_t count;
};

enum tpd_status tpd_reply_parse(const char *json, struct tpd_reply *out, struct tpd_err *err);
void tpd_reply_release(struct tpd_reply *reply);
const char *tpd_reply_get(const struct tpd_reply *reply, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
uint64_t tpd_reply_u64(const struct tpd_reply *reply, const char *path); /* 0 when absent */
/* Write the JSON value again, into `out`; false when it is not one. */
bool tpd_reply_copy(const char *json, struct tpd_json_out *out);

#endif
