/*
 * tpdectl.c - the command line of tpdectl: options, commands, usage, errors.
 *
 * One table of options and one of commands; each command names the options that it takes, and every help text is
 * printed from the two, so that there is nothing to keep in step by hand. getopt_long permutes, hence options may
 * stand before and after the command. Rejected: a parser a command (nine places that treat --store), and
 * a program a command.
 */
#include "base/tpd.h"

#include "tools/tools.h"

#include <errno.h>
#include <getopt.h>
#include <locale.h>
#include <signal.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOCK_TIMEOUT_MS 60000 /* as long as a daemon may be expected to take for one checkpoint of this run */
#define OPTION_CODE 256       /* getopt codes above every character */

/* clang-format off */
enum option_number {
	O_STORE, O_CATALOG, O_CONFIG, O_JSON, O_QUIET, O_THREADS, O_LOCK_TIMEOUT, O_HELP, O_VERSION, /* common */
	O_RUN, O_STEP, O_TO, O_FILE, O_FORCE, O_TENSORS, O_RUNS, O_METRIC, O_SOCKET, O_EFFORT, O_DEPEND, O_BASE,
	O_COUNT
};
/* clang-format on */
#define O_FIRST_OWN O_RUN
#define BIT(option) (1u << (option))

static const struct {
	const char *name, *argument, *help;
	char letter;
} options[O_COUNT] = {
	[O_STORE] = {"store", "DIR", "the store (else that of --config, or $TPDED_STORE)", 0},
	[O_CATALOG] = {"catalog", "FILE", "the catalog (else as configured, or in the store)", 0},
	[O_CONFIG] = {"config", "FILE", "the configuration (else /etc/tpded/tpded.conf)", 0},
	[O_JSON] = {"json", NULL, "print JSON", 0},
	[O_QUIET] = {"quiet", NULL, "no progress, no remarks", 'q'},
	[O_THREADS] = {"threads", "N", "threads to work with (else one a CPU)", 0},
	[O_LOCK_TIMEOUT] = {"lock-timeout", "SECONDS", "how long to wait for another writer (else 60)", 0},
	[O_HELP] = {"help", NULL, "this text, or with a command its own", 'h'},
	[O_VERSION] = {"version", NULL, "the version", 'V'},
	[O_RUN] = {"run", "NAME", "the run that the checkpoint belongs to", 0},
	[O_STEP] = {"step", "N", "its step (else by trainer_state.json or its name)", 0},
	[O_TO] = {"to", "DIR", "where to put the files; made when missing", 0},
	[O_FILE] = {"file", "NAME", "only this file or directory of it; may be repeated", 0},
	[O_FORCE] = {"force", NULL, "replace files that are there", 0},
	[O_TENSORS] = {"tensors", NULL, "list the tensors too", 0},
	[O_RUNS] = {"runs", NULL, "one line a run", 0},
	[O_METRIC] = {"metric", "NAME", "a column with this metric of each", 0},
	[O_SOCKET] = {"socket", "PATH", "the daemon's control socket", 0},
	[O_EFFORT] = {"effort", "WORD", "fast, balanced or max (else as configured)", 0},
	[O_DEPEND] = {"depend", "WORD", "none, weights or optimizer: see tpded.conf(5)", 0},
	[O_BASE] = {"base", "BASE", "a new run's base: RUN[@STEP], PATH, auto or none", 0},
};

static const struct command {
	const char *name, *synopsis, *summary;
	uint32_t options; /* beside the common ones */
	int min_args, max_args;
	int (*run)(struct tpd_ctl *ctl, int argc, char **argv);
} commands[] = {
	{"status", "", "the daemon, the store, the queue, the last events", BIT(O_SOCKET), 0, 0, tpd_cmd_status},
	{"retry", "", "try at once what the daemon could not store", BIT(O_SOCKET), 0, 0, tpd_cmd_retry},
	{"list", "[RUN[@STEP]]", "the stored checkpoints, of a run or of all", BIT(O_RUNS) | BIT(O_METRIC), 0, 1,
	 tpd_cmd_list},
	{"show", "RUN@STEP", "one checkpoint: metrics, files, digests, tensors", BIT(O_TENSORS), 1, 1, tpd_cmd_show},
	{"ingest", "PATH --run NAME", "store a checkpoint (a directory or a file)",
	 BIT(O_RUN) | BIT(O_STEP) | BIT(O_EFFORT) | BIT(O_DEPEND) | BIT(O_BASE), 1, 1, tpd_cmd_ingest},
	{"restore", "RUN@STEP --to DIR", "get a checkpoint back, bit for bit", BIT(O_TO) | BIT(O_FILE) | BIT(O_FORCE),
	 1, 1, tpd_cmd_restore},
	{"verify", "[RUN[@STEP]]", "read, decode and compare every digest", 0, 0, 1, tpd_cmd_verify},
	{"discard", "RUN@STEP", "remove a checkpoint that was never finished", 0, 1, 1, tpd_cmd_discard},
	{"stats", "RUN", "the sparsity of a run, step by step", 0, 1, 1, tpd_cmd_stats},
	{"rebuild-catalog", "", "make the catalog again from the store", 0, 0, 0, tpd_cmd_rebuild},
	{"config-check", "[FILE]", "check a configuration of tpded", 0, 0, 1, tpd_cmd_config_check},
};

static atomic_bool cancelled;
static volatile sig_atomic_t cancel_signal;

/* --- errors --- */

int tpd_ctl_exit_code(enum tpd_status status)
{
	switch (status) {
	case TPD_OK:
		return TPD_EXIT_DONE;
	case TPD_USAGE:
		return TPD_EXIT_USAGE;
	case TPD_NOT_FOUND:
		return TPD_EXIT_NOT_FOUND;
	case TPD_CORRUPT:
	case TPD_MISSING_BASE:
		return TPD_EXIT_CORRUPT;
	case TPD_BUSY:
		return TPD_EXIT_BUSY;
	case TPD_IO:
	case TPD_UNSUPPORTED:
	case TPD_CONFLICT:
	case TPD_LIMIT:
	case TPD_NOMEM:
	case TPD_CANCELLED:
		break;
	}
	return TPD_EXIT_FAILED;
}

int tpd_ctl_fail(const struct tpd_ctl *ctl, const struct tpd_err *err)
{
	TPD_AUTO_FREE char *text = tpd_text_clean(err->text);
	struct tpd_buf buf = {0};

	if (ctl->json) {
		struct tpd_json_out out = tpd_json_out_make(&buf);

		tpd_json_begin_object(&out);
		tpd_json_key(&out, "error");
		tpd_json_put_string(&out, err->text);
		tpd_json_key(&out, "status");
		tpd_json_put_string(&out, tpd_status_name(err->status));
		tpd_json_end_object(&out);
	}
	if (ctl->json && tpd_buf_status(&buf, NULL) == TPD_OK)
		fprintf(stderr, "%.*s\n", (int)buf.len, (const char *)buf.data);
	else
		fprintf(stderr, "tpdectl: %s\n", text ? text : "out of memory");
	tpd_buf_release(&buf);
	if (err->status == TPD_CANCELLED && cancel_signal)
		return 128 + cancel_signal;
	return tpd_ctl_exit_code(err->status);
}

static const struct command *find_command(const char *name)
{
	for (size_t i = 0; name && i < TPD_ARRAY_LEN(commands); i++)
		if (!strcmp(commands[i].name, name))
			return &commands[i];
	return NULL;
}

#define USAGE_WIDTH 79

/* A mistake is told in one line, however long; help is wrapped. */
static void print_usage_line(FILE *to, const struct command *command, int width)
{
	int at;

	if (!command) {
		fprintf(to, "usage: tpdectl [OPTIONS] COMMAND [ARGUMENTS]; see 'tpdectl --help'\n");
		return;
	}
	at = fprintf(to, "usage: tpdectl [OPTIONS] %s%s%s", command->name, *command->synopsis ? " " : "", command->synopsis);
	for (unsigned i = O_FIRST_OWN; i < O_COUNT; i++) {
		char in_synopsis[32], text[64];
		int len;

		snprintf(in_synopsis, sizeof(in_synopsis), "--%s ", options[i].name);
		if (!(command->options & BIT(i)) || strstr(command->synopsis, in_synopsis))
			continue;
		len = snprintf(text, sizeof(text), " [--%s%s%s]", options[i].name, options[i].argument ? " " : "",
			       options[i].argument ? options[i].argument : "");
		if (at + len > width)
			at = fprintf(to, "\n      ") - 1;
		at += fprintf(to, "%s", text);
	}
	fputc('\n', to);
}

int tpd_ctl_usage(const struct tpd_ctl *ctl, const char *fmt, ...)
{
	struct tpd_err err = {.status = TPD_USAGE};
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(err.text, sizeof(err.text), fmt, ap);
	va_end(ap);
	tpd_ctl_fail(ctl, &err);
	if (!ctl->json)
		print_usage_line(stderr, find_command(ctl->command), INT_MAX);
	return TPD_EXIT_USAGE;
}

static void say(const char *before, const char *fmt, va_list ap)
{
	char text[TPD_ERR_TEXT + 256];
	TPD_AUTO_FREE char *clean = NULL;

	vsnprintf(text, sizeof(text), fmt, ap);
	clean = tpd_text_clean(text);
	fprintf(stderr, "%s%s\n", before, clean ? clean : "out of memory");
}

void tpd_ctl_note(const struct tpd_ctl *ctl, const char *fmt, ...)
{
	va_list ap;

	if (ctl->quiet || ctl->json)
		return;
	va_start(ap, fmt);
	say("", fmt, ap);
	va_end(ap);
}

void tpd_ctl_warn(const struct tpd_ctl *ctl, const char *fmt, ...)
{
	va_list ap;

	if (ctl->json)
		return;
	va_start(ap, fmt);
	say("tpdectl: warning: ", fmt, ap);
	va_end(ap);
}

int tpd_ctl_print_json(const struct tpd_ctl *ctl, struct tpd_buf *buf, int code)
{
	struct tpd_err err = {0};

	tpd_buf_u8(buf, '\n');
	if (tpd_buf_status(buf, &err))
		code = tpd_ctl_fail(ctl, &err);
	else
		fwrite(buf->data, 1, buf->len, stdout); /* flushed and checked at the end of main */
	tpd_buf_release(buf);
	return code;
}

/* --- help --- */

static void print_options(uint32_t which)
{
	for (unsigned i = 0; i < O_COUNT; i++) {
		char left[40];

		if (!(which & BIT(i)))
			continue;
		snprintf(left, sizeof(left), "%s%c%s--%s%s%s", options[i].letter ? "-" : "",
			 options[i].letter ? options[i].letter : ' ', options[i].letter ? ", " : "   ", options[i].name,
			 options[i].argument ? " " : "", options[i].argument ? options[i].argument : "");
		printf("  %-26s  %s\n", left, options[i].help);
	}
}

static void print_help(const struct command *command)
{
	if (command) {
		print_usage_line(stdout, command, USAGE_WIDTH);
		printf("\n%c%s.\n", command->summary[0] - 'a' + 'A', command->summary + 1);
		if (command->options) {
			puts("");
			print_options(command->options);
		}
		puts("\nOptions of every command:");
	} else {
		puts("usage: tpdectl [OPTIONS] COMMAND [ARGUMENTS]\n\nCommands:");
		for (size_t i = 0; i < TPD_ARRAY_LEN(commands); i++) {
			char left[48];

			snprintf(left, sizeof(left), "%s %s", commands[i].name, commands[i].synopsis);
			printf("  %-26s  %s\n", left, commands[i].summary);
		}
		puts("\nOptions, before or after the command:");
	}
	print_options(BIT(O_FIRST_OWN) - 1);
	if (!command) {
		puts("\nA checkpoint is named RUN@STEP, RUN@latest, RUN@STEP~VERSION, RUN@best:METRIC\n"
		     "(or RUN@min:METRIC, RUN@max:METRIC), or by at least 8 digits of its id.\n"
		     "Exit codes: 0 done, 1 failed, 2 usage, 3 partly done, 4 not found, 5 corrupt,\n"
		     "6 busy. 'tpdectl help COMMAND' tells more.");
	}
}

/* --- store, configuration, signals --- */

enum tpd_status tpd_ctl_read_config(const char *file, enum tpd_config_check check, struct tpd_config *out,
				    struct tpd_err *err)
{
	enum tpd_status status = tpd_config_read(file, check, out, err);

	/* As tpded has it: what is wrong with the configuration, or that it is not there, is a matter of usage. */
	if (status && status != TPD_NOMEM)
		err->status = status = TPD_USAGE;
	return status;
}

static enum tpd_status read_config(struct tpd_ctl *ctl, const char *file, struct tpd_err *err)
{
	enum tpd_status status = tpd_ctl_read_config(file, TPD_CONFIG_SYNTAX, &ctl->config, err);

	ctl->has_config = status == TPD_OK;
	return status;
}

enum tpd_status tpd_ctl_locate(struct tpd_ctl *ctl, struct tpd_err *err)
{
	const char *environment = getenv("TPDED_STORE");
	enum tpd_status status = TPD_OK;
	bool of_config = false;

	if (ctl->located)
		return TPD_OK;
	/* What is typed wins over the environment: --store, and the store of a --config too. */
	if (!ctl->store && !ctl->config_file && environment && *environment)
		ctl->store = environment;
	if (ctl->config_file)
		status = read_config(ctl, ctl->config_file, err);
	else if (!ctl->store && access(TPD_CONFIG_DEFAULT_FILE, F_OK) == 0)
		status = read_config(ctl, TPD_CONFIG_DEFAULT_FILE, err);
	if (status)
		return status;
	if (!ctl->store) {
		ctl->store = ctl->has_config ? ctl->config.store_path : TPD_CONFIG_DEFAULT_STORE;
		of_config = true;
	} else if (ctl->has_config) {
		of_config = !strcmp(ctl->store, ctl->config.store_path);
	}
	/* The configured catalog is that of the configured store and of no other. */
	if (!ctl->catalog && of_config && ctl->has_config)
		ctl->catalog = ctl->config.catalog_path;
	if (!ctl->socket)
		ctl->socket = ctl->has_config ? ctl->config.control_socket : TPD_CONFIG_DEFAULT_SOCKET;
	ctl->located = true;
	return TPD_OK;
}

enum tpd_status tpd_ctl_open(struct tpd_ctl *ctl, enum tpd_archive_mode mode, struct tpd_archive **out_archive,
			     struct tpd_err *err)
{
	struct tpd_archive_options archive = {.mode = mode, .lock_timeout_ms = ctl->lock_timeout_ms};
	enum tpd_status status = tpd_ctl_locate(ctl, err);

	if (status)
		return status;
	if (mode != TPD_ARCHIVE_READ) /* as the daemon: what it writes is for its owner and its group */
		umask(umask(0077) | 0027);
	archive.store = ctl->store;
	archive.catalog = ctl->catalog;
	archive.threads = ctl->threads ? (unsigned)ctl->threads : ctl->has_config ? ctl->config.threads : 0;
	archive.max_depth = ctl->has_config ? ctl->config.max_depth : TPD_DEFAULT_MAX_DEPTH;
	archive.effort = ctl->has_effort ? ctl->effort : ctl->has_config ? ctl->config.effort : TPD_EFFORT_BALANCED;
	archive.depend = ctl->has_depend ? ctl->depend : ctl->has_config ? ctl->config.depend : TPD_DEPEND_WEIGHTS;
	archive.part_size = ctl->has_config ? ctl->config.part_size : 0;
	archive.tip_cache = ctl->has_config ? ctl->config.tip_cache : 0;
	status = tpd_archive_open(&archive, out_archive, err);
	if (status == TPD_OK && mode != TPD_ARCHIVE_READ && tpd_archive_catalog_fault(*out_archive)->status)
		tpd_ctl_warn(ctl, "%s", tpd_archive_catalog_fault(*out_archive)->text);
	return status;
}

void tpd_ctl_tell_catalog(const struct tpd_ctl *ctl, const struct tpd_err *fault)
{
	if (fault->status)
		tpd_ctl_warn(ctl, "the catalog is not used: %s%s", fault->text,
			     fault->status == TPD_CORRUPT ? " ('tpdectl rebuild-catalog' makes a new one)" : "");
}

static void on_signal(int number)
{
	cancel_signal = number;
	atomic_store(&cancelled, true);
}

const atomic_bool *tpd_ctl_cancellable(void)
{
	static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
	struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};

	for (size_t i = 0; i < TPD_ARRAY_LEN(numbers); i++) {
		struct sigaction before;

		/* What the caller ignores (nohup) stays ignored. */
		if (!sigaction(numbers[i], NULL, &before) && before.sa_handler != SIG_IGN)
			sigaction(numbers[i], &action, NULL);
	}
	return &cancelled;
}

/* --- parsing --- */

static bool add_file(struct tpd_ctl *ctl, const char *name)
{
	const char **grown;
	size_t count = 0;

	while (ctl->files && ctl->files[count])
		count++;
	grown = reallocarray(ctl->files, count + 2, sizeof(*grown));
	if (!grown)
		return false;
	ctl->files = grown;
	grown[count] = name;
	grown[count + 1] = NULL;
	return true;
}

static int set_option(struct tpd_ctl *ctl, unsigned option, const char *value)
{
	uint64_t ms;

	switch ((enum option_number)option) {
	case O_STORE:
		ctl->store = value;
		break;
	case O_CATALOG:
		ctl->catalog = value;
		break;
	case O_CONFIG:
		ctl->config_file = value;
		break;
	case O_JSON:
		ctl->json = true;
		break;
	case O_QUIET:
		ctl->quiet = true;
		break;
	case O_THREADS:
		if (!tpd_text_parse_u64(value, &ctl->threads) || !ctl->threads || ctl->threads > TPD_POOL_MAX)
			return tpd_ctl_usage(ctl, "--threads: '%s' is not a number from 1 to %u", value, TPD_POOL_MAX);
		break;
	case O_LOCK_TIMEOUT:
		if (!tpd_text_parse_duration(value, &ms) || ms > INT64_MAX)
			return tpd_ctl_usage(ctl, "--lock-timeout: '%s' is not a number of seconds", value);
		ctl->lock_timeout_ms = (int64_t)ms;
		ctl->has_lock_timeout = true;
		break;
	case O_EFFORT:
		if (!tpd_effort_parse(value, &ctl->effort))
			return tpd_ctl_usage(ctl, "--effort: '%s' is not fast, balanced or max", value);
		ctl->has_effort = true;
		break;
	case O_DEPEND:
		if (!tpd_depend_parse(value, &ctl->depend))
			return tpd_ctl_usage(ctl, "--depend: '%s' is not none, weights or optimizer", value);
		ctl->has_depend = true;
		break;
	case O_RUN:
		ctl->run = value;
		break;
	case O_STEP:
		if (!tpd_text_parse_step(value, &ctl->step))
			return tpd_ctl_usage(ctl, "--step: '%s' is not a number, or more than 2^63 - 1", value);
		ctl->has_step = true;
		break;
	case O_TO:
		ctl->to = value;
		break;
	case O_FILE:
		if (!add_file(ctl, value))
			return tpd_ctl_usage(ctl, "out of memory");
		break;
	case O_FORCE:
		ctl->force = true;
		break;
	case O_TENSORS:
		ctl->tensors = true;
		break;
	case O_RUNS:
		ctl->runs = true;
		break;
	case O_METRIC:
		ctl->metric = value;
		break;
	case O_BASE:
		ctl->base = value;
		break;
	case O_SOCKET:
		ctl->socket = value;
		break;
	case O_HELP:
	case O_VERSION:
	case O_COUNT:
		break;
	}
	if (options[option].argument && !*value)
		return tpd_ctl_usage(ctl, "--%s: %s is missing", options[option].name, options[option].argument);
	return 0;
}

/* Options into ctl; *out_given: which were there. argv is permuted, arguments begin at optind. */
static int parse_options(struct tpd_ctl *ctl, int argc, char **argv, uint32_t *out_given)
{
	struct option longs[O_COUNT + 1] = {0};
	int c;

	for (unsigned i = 0; i < O_COUNT; i++)
		longs[i] = (struct option){options[i].name, options[i].argument ? required_argument : no_argument, NULL,
					   OPTION_CODE + (int)i};
	opterr = 0;
	while ((c = getopt_long(argc, argv, ":qhV", longs, NULL)) != -1) {
		unsigned option = 0;
		int code;

		if (c == ':')
			return tpd_ctl_usage(ctl, "option '%s' needs a value", argv[optind - 1]);
		if (c == '?' && optopt >= OPTION_CODE)
			return tpd_ctl_usage(ctl, "option '--%s' takes no value", options[optopt - OPTION_CODE].name);
		if (c == '?' && optopt)
			return tpd_ctl_usage(ctl, "unknown option '-%c'", optopt);
		if (c == '?')
			return tpd_ctl_usage(ctl, "unknown option '%s'", argv[optind - 1]);
		if (c >= OPTION_CODE)
			option = (unsigned)(c - OPTION_CODE);
		else
			while (options[option].letter != c)
				option++;
		*out_given |= BIT(option);
		code = set_option(ctl, option, optarg);
		if (code)
			return code;
	}
	return 0;
}

/* Before anything can fail: is the error to be JSON, and whose usage line belongs to it? */
static void peek(struct tpd_ctl *ctl, int argc, char **argv)
{
	for (int i = 1; i < argc && strcmp(argv[i], "--"); i++) {
		if (!strcmp(argv[i], "--json"))
			ctl->json = true;
		if (!ctl->command && find_command(argv[i]))
			ctl->command = find_command(argv[i])->name;
	}
}

static int run(struct tpd_ctl *ctl, int argc, char **argv)
{
	const struct command *command;
	uint32_t given = 0;
	int code;

	peek(ctl, argc, argv);
	code = parse_options(ctl, argc, argv, &given);
	if (code)
		return code;
	while (argv[optind] && !strcmp(argv[optind], "help")) { /* as COMMAND --help */
		given |= BIT(O_HELP);
		optind++;
	}
	command = find_command(argv[optind]);
	ctl->command = command ? command->name : NULL;
	if (given & BIT(O_VERSION)) {
		puts("tpdectl " TPD_VERSION);
		return TPD_EXIT_DONE;
	}
	if (given & BIT(O_HELP) && (command || !argv[optind])) {
		print_help(command);
		return TPD_EXIT_DONE;
	}
	if (!argv[optind])
		return tpd_ctl_usage(ctl, "a command is missing");
	if (!command)
		return tpd_ctl_usage(ctl, "unknown command '%s'", argv[optind]);
	for (unsigned i = O_FIRST_OWN; i < O_COUNT; i++)
		if (given & ~command->options & BIT(i))
			return tpd_ctl_usage(ctl, "'%s' has no option '--%s'", command->name, options[i].name);
	argc -= optind + 1;
	argv += optind + 1;
	if (argc < command->min_args)
		return tpd_ctl_usage(ctl, "'%s' needs %s", command->name, command->synopsis);
	if (argc > command->max_args)
		return tpd_ctl_usage(ctl, "'%s': unexpected argument '%s'", command->name, argv[command->max_args]);
	return command->run(ctl, argc, argv);
}

int main(int argc, char **argv)
{
	struct tpd_ctl ctl = {.lock_timeout_ms = LOCK_TIMEOUT_MS};
	struct tpd_err err = {0};
	int code;

	setlocale(LC_CTYPE, "");
	signal(SIGPIPE, SIG_DFL); /* `tpdectl list | head` ends quietly, whatever the caller has set */
	code = run(&ctl, argc, argv);
	if ((fflush(stdout) || ferror(stdout)) && code == TPD_EXIT_DONE) {
		tpd_fail_sys(&err, errno, "cannot write to standard output");
		code = tpd_ctl_fail(&ctl, &err);
	}
	if (ctl.has_config)
		tpd_config_release(&ctl.config);
	free(ctl.files);
	return code;
}
