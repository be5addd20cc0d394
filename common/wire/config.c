/*
 * config.c - tpded.conf into a struct, or one sentence about its first mistake.
 *
 * inih does the parsing. It knows neither in which line a key stands nor sections longer than 50 bytes, so the reader
 * that feeds it keeps both: it counts the lines, looks at each section header itself, and hands inih "[K]", the
 * header's number, in its place. The handler finds the key in a table of setters by section and name. Rejected:
 * ini_parse() on the file (no lines, names cut without a word), and default values filled in by the users of the struct
 * (two truths).
 */
#include "base/tpd.h"

#include "wire/config.h"

#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <regex.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/io.h"
#include "base/text.h"

#define FILE_MAX_BYTES (1u << 20)
#define LINE_MAX_BYTES 8192  /* a path of 4095 bytes and more */
#define DEFAULT_MAX_DEPTH 16 /* a chain's length at which an anchor is written */
#define DEFAULT_PART_SIZE (256ull << 20)
#define DEFAULT_SETTLE_MS 5000 /* above the pauses that writers make between two files */
#define DEFAULT_STALLED_MS 600000
#define DEFAULT_LOW_SPACE (4ull << 30) /* more than most files that a trainer writes next */
#define DEFAULT_SPOOL_COPIES (4ull << 30) /* some files of a run in a queue; never what low_space leaves */
#define STALLED_MS_MAX (168u * 3600000)
#define DEFAULT_SCAN_MS 60000
#define MAX_DEPTH_MAX 1000
#define PART_SIZE_MIN (1ull << 20)
#define PART_SIZE_MAX (4ull << 30)
#define THREADS_MAX 64
#define SCAN_MS_MIN 100 /* for tests; less would be a busy loop */
#define SCAN_MS_MAX (24ull * 3600 * 1000)
#define SETTLE_MS_MAX (3600ull * 1000)
#define KEYS_MAX 20

enum section_kind { SECTION_STORE, SECTION_CODEC, SECTION_DAEMON, SECTION_WATCH };

struct section {
	enum section_kind kind;
	unsigned line;
	size_t watch;                 /* of SECTION_WATCH */
	unsigned key_lines[KEYS_MAX]; /* where each key of the table was given; 0: not */
};

struct parse {
	const char *text, *end; /* what is not read yet */
	unsigned line;
	struct section *sections;
	size_t section_count;
	struct tpd_config *config;
	enum tpd_status status; /* of the first mistake */
	struct tpd_err *err;
};

static const char *const section_names[] = {"store", "codec", "daemon"};

/* "[watch:NAME]" or "[store]" as it stands in the file. */
static const char *section_title(const struct parse *parse, const struct section *section, char out[300])
{
	if (section->kind == SECTION_WATCH)
		snprintf(out, 300, "[watch:%s]", parse->config->watches[section->watch].name);
	else
		snprintf(out, 300, "[%s]", section_names[section->kind]);
	return out;
}

static enum tpd_status mistake(struct parse *parse, unsigned line, const char *what)
{
	if (parse->status == TPD_OK)
		parse->status = tpd_fail(parse->err, TPD_USAGE, "%s:%u: %s", parse->config->file, line, what);
	return parse->status;
}

static enum tpd_status key_mistake(struct parse *parse, unsigned line, const struct section *section, const char *key,
				   const char *what)
{
	char title[300], text[TPD_ERR_TEXT];

	snprintf(text, sizeof text, "%s %s: %s", section_title(parse, section, title), key, what);
	return mistake(parse, line, text);
}

static enum tpd_status no_memory(struct parse *parse)
{
	if (parse->status == TPD_OK)
		parse->status = tpd_fail_nomem(parse->err);
	return parse->status;
}

/* --- values: each setter returns NULL, or what is wrong --- */

static const char *const out_of_memory = "out of memory";

static const char *set_path(char **out, const char *value)
{
	size_t len = strlen(value);
	char *copy;

	if (value[0] != '/')
		return "must be an absolute path";
	if (len >= PATH_MAX)
		return "is longer than a path can be";
	while (len > 1 && value[len - 1] == '/')
		len--;
	copy = strndup(value, len);
	if (!copy)
		return out_of_memory;
	free(*out);
	*out = copy;
	return NULL;
}

static const char *set_store_path(struct tpd_config *config, TPD_UNUSED size_t watch, const char *value)
{
	return set_path(&config->store_path, value);
}

static const char *set_catalog(struct tpd_config *config, TPD_UNUSED size_t watch, const char *value)
{
	return set_path(&config->catalog_path, value);
}

static const char *set_max_depth(struct tpd_config *config, TPD_UNUSED size_t watch, const char *value)
{
	uint64_t v;

	if (!tpd_text_parse_u64(value, &v) || v > MAX_DEPTH_MAX)
		return "must be a whole number from 0 to 1000";
	config->max_depth = (uint32_t)v;
	return NULL;
}

static const char *set_effort(struct tpd_config *config, TPD_UNUSED size_t watch, const char *value)
{
	return tpd_effort_parse(value, &config->effort) ? NULL : "must be fast, balanced or max";
}

static const char *set_depend(struct tpd_config *config, TPD_UNUSED size_t watch, const char *value)
{
	return tpd_depend_parse(value, &config->depend) ? NULL : "must be none, weights or optimizer";
}

static const char *set_part_size(struct tpd_config *config, TPD_UNUSED size_t watch, const char *value)
{
	uint64_t v;

	if (!tpd_text_parse_bytes(value, &v) || v < PART_SIZE_MIN || v > PART_SIZE_MAX)
		return "must be a size from 1M to 4G, such as 256M";
	config->part_size = v;
	return NULL;
}

static const char *set_tip_cache(struct tpd_config *config, TPD_UNUSED size_t watch, const char *value)
{
	if (!tpd_text_parse_bytes(value, &config->tip_cache))
		return "must be a size such as 20G, or 0";
	return NULL;
}

static const char *set_socket(struct tpd_config *config, TPD_UNUSED size_t watch, const char *value)
{
	struct sockaddr_un address;

	if (strlen(value) >= sizeof address.sun_path)
		return "is longer than the 107 bytes that a socket's path may have";
	return set_path(&config->control_socket, value);
}

static const char *set_threads(struct tpd_config *config, TPD_UNUSED size_t watch, const char *value)
{
	uint64_t v;

	if (!tpd_text_parse_u64(value, &v) || v > THREADS_MAX)
		return "must be a whole number from 0 (one a CPU) to 64";
	config->threads = (unsigned)v;
	return NULL;
}

static const char *set_scan_interval(struct tpd_config *config, TPD_UNUSED size_t watch, const char *value)
{
	uint64_t v;

	if (!tpd_text_parse_duration(value, &v) || v < SCAN_MS_MIN || v > SCAN_MS_MAX)
		return "must be a time from 100ms to 24h, such as 60 (seconds) or 5m";
	config->scan_interval_ms = v;
	return NULL;
}

static const char *set_low_space(struct tpd_config *config, TPD_UNUSED size_t watch, const char *value)
{
	return tpd_text_parse_bytes(value, &config->low_space) ? NULL : "must be a size, such as 4G, or 0";
}

static const char *set_spool_copies(struct tpd_config *config, TPD_UNUSED size_t watch, const char *value)
{
	return tpd_text_parse_bytes(value, &config->spool_copies) ? NULL : "must be a size, such as 4G, or 0";
}

static const char *set_watch_path(struct tpd_config *config, size_t watch, const char *value)
{
	return set_path(&config->watches[watch].path, value);
}

static const char *set_settle(struct tpd_config *config, size_t watch, const char *value)
{
	uint64_t v;

	if (!tpd_text_parse_duration(value, &v) || v > SETTLE_MS_MAX)
		return "must be a time from 0 to 1h, such as 5 (seconds) or 500ms";
	config->watches[watch].settle_ms = v;
	return NULL;
}

static const char *set_stalled_after(struct tpd_config *config, size_t watch, const char *value)
{
	uint64_t v;

	if (!tpd_text_parse_duration(value, &v) || v < 1000 || v > STALLED_MS_MAX)
		return "must be a time from 1s to 168h, such as 10m";
	config->watches[watch].stalled_ms = v;
	return NULL;
}

static const char *set_complete_when(struct tpd_config *config, size_t watch, const char *value)
{
	/* NAME, ../NAME, with * ? [] and %s: a name in the checkpoint's directory, or beside it. */
	for (const char *at = value; *at; at += strcspn(at, " \t"), at += strspn(at, " \t")) {
		size_t len = strcspn(at, " \t"), skip = strncmp(at, "../", 3) == 0 ? 3 : 0;

		if (len == skip || memchr(at + skip, '/', len - skip))
			return "must be names, such as DONE or *.done, or ../%s.done for one beside the checkpoint";
	}
	free(config->watches[watch].complete_when);
	config->watches[watch].complete_when = strdup(value);
	return config->watches[watch].complete_when ? NULL : "out of memory";
}

static const char *set_base(struct tpd_config *config, size_t watch, const char *value)
{
	const char *at = strchr(value, '@');
	char *run;
	bool good;

	if (value[0] == '/')
		return set_path(&config->watches[watch].base, value);
	run = at ? strndup(value, (size_t)(at - value)) : strdup(value);
	good = run && tpd_text_is_run_name(run) && (!at || at[1]);
	if (!run)
		return out_of_memory;
	free(run);
	if (!good)
		return "must be RUN, RUN@STEP, the absolute path of a model, auto or none";
	free(config->watches[watch].base);
	config->watches[watch].base = strdup(value);
	return config->watches[watch].base ? NULL : out_of_memory;
}

static const char *set_step_regex(struct tpd_config *config, size_t watch, const char *value)
{
	regex_t regex;
	size_t groups;

	if (regcomp(&regex, value, REG_EXTENDED) != 0)
		return "must be a POSIX extended regular expression";
	groups = regex.re_nsub;
	regfree(&regex);
	if (groups == 0)
		return "must have a group that is the step, such as run_([0-9]+)$";
	free(config->watches[watch].step_regex);
	config->watches[watch].step_regex = strdup(value);
	return config->watches[watch].step_regex ? NULL : "out of memory";
}

static const struct key {
	enum section_kind section;
	const char *name;
	const char *(*set)(struct tpd_config *config, size_t watch, const char *value);
} keys[] = {
	{SECTION_STORE, "path", set_store_path},     {SECTION_STORE, "catalog", set_catalog},
	{SECTION_STORE, "max_depth", set_max_depth}, {SECTION_STORE, "part_size", set_part_size},
	{SECTION_CODEC, "effort", set_effort},       {SECTION_CODEC, "depend", set_depend},
	{SECTION_STORE, "tip_cache", set_tip_cache}, {SECTION_DAEMON, "control_socket", set_socket},
	{SECTION_DAEMON, "threads", set_threads},    {SECTION_DAEMON, "scan_interval", set_scan_interval},
	{SECTION_DAEMON, "low_space", set_low_space}, {SECTION_DAEMON, "spool_copies", set_spool_copies},
	{SECTION_WATCH, "path", set_watch_path},     {SECTION_WATCH, "settle", set_settle},
	{SECTION_WATCH, "complete_when", set_complete_when},
	{SECTION_WATCH, "step_regex", set_step_regex},
	{SECTION_WATCH, "stalled_after", set_stalled_after},
	{SECTION_WATCH, "base", set_base},
};

_Static_assert(TPD_ARRAY_LEN(keys) <= KEYS_MAX, "a line for each key");

/* --- sections --- */

static enum tpd_status add_watch(struct parse *parse, const char *name, size_t *out_watch)
{
	struct tpd_config *config = parse->config;
	struct tpd_config_watch *grown;
	char text[TPD_ERR_TEXT];

	if (!tpd_text_is_run_name(name)) {
		snprintf(
			text, sizeof text,
			"[watch:%s]: the name of a watch becomes the name of a run: at most 200 bytes without '@', '~' "
			"and '\\', no part of it empty or beginning with '.' or '-'",
			name);
		return mistake(parse, parse->line, text);
	}
	for (size_t i = 0; i < config->watch_count; i++) {
		if (strcmp(config->watches[i].name, name) == 0) {
			snprintf(text, sizeof text, "[watch:%s]: there is one of this name in line %u already", name,
				 config->watches[i].line);
			return mistake(parse, parse->line, text);
		}
	}
	grown = reallocarray(config->watches, config->watch_count + 1, sizeof *grown);
	if (!grown)
		return no_memory(parse);
	config->watches = grown;
	grown[config->watch_count] = (struct tpd_config_watch){
		.settle_ms = DEFAULT_SETTLE_MS, .stalled_ms = DEFAULT_STALLED_MS, .line = parse->line};
	grown[config->watch_count].name = strdup(name);
	if (!grown[config->watch_count].name)
		return no_memory(parse);
	*out_watch = config->watch_count++;
	return TPD_OK;
}

static enum tpd_status add_section(struct parse *parse, const char *title)
{
	struct section section = {.line = parse->line}, *grown;
	char text[TPD_ERR_TEXT];
	enum tpd_status status;
	size_t kind;

	if (strncmp(title, "watch:", 6) == 0) {
		section.kind = SECTION_WATCH;
		status = add_watch(parse, title + 6, &section.watch);
		if (status != TPD_OK)
			return status;
	} else {
		for (kind = 0; kind < TPD_ARRAY_LEN(section_names); kind++) {
			if (strcmp(title, section_names[kind]) == 0)
				break;
		}
		if (kind == TPD_ARRAY_LEN(section_names)) {
			snprintf(text, sizeof text,
				 "[%s]: unknown section (there are [store], [codec], [daemon] and [watch:NAME])", title);
			return mistake(parse, parse->line, text);
		}
		section.kind = (enum section_kind)kind;
		for (size_t i = 0; i < parse->section_count; i++) {
			if (parse->sections[i].kind == section.kind) {
				snprintf(text, sizeof text, "[%s]: this section began in line %u already", title,
					 parse->sections[i].line);
				return mistake(parse, parse->line, text);
			}
		}
	}
	grown = reallocarray(parse->sections, parse->section_count + 1, sizeof *grown);
	if (!grown)
		return no_memory(parse);
	parse->sections = grown;
	grown[parse->section_count++] = section;
	return TPD_OK;
}

/* --- what inih calls --- */

/*
 * A line "[title]", with blanks around it and perhaps a comment behind: its title in fresh memory, NULL: not such a
 * line.
 */
static char *header_title(const char *line, size_t len)
{
	const char *p = line, *end = line + len, *close;

	while (p < end && (*p == ' ' || *p == '\t'))
		p++;
	if (p == end || *p != '[')
		return NULL;
	close = memchr(p, ']', (size_t)(end - p));
	return close ? strndup(p + 1, (size_t)(close - p - 1)) : NULL;
}

/* As fgets: the next line into str, or NULL at the end and after a mistake. */
static char *read_line(char *str, int num, void *stream)
{
	struct parse *parse = stream;
	const char *newline;
	char *title;
	size_t len;

	if (parse->text == parse->end || parse->status != TPD_OK)
		return NULL;
	newline = memchr(parse->text, '\n', (size_t)(parse->end - parse->text));
	len = (size_t)((newline ? newline : parse->end) - parse->text);
	parse->line++;
	if (len + 3 > (size_t)num) {
		mistake(parse, parse->line, "the line is too long");
		return NULL;
	}
	title = header_title(parse->text, len);
	if (title) {
		enum tpd_status status = add_section(parse, title);

		free(title);
		if (status != TPD_OK)
			return NULL;
		snprintf(str, (size_t)num, "[%zu]\n", parse->section_count - 1);
	} else {
		memcpy(str, parse->text, len);
		str[len] = '\n';
		str[len + 1] = 0;
	}
	parse->text = newline ? newline + 1 : parse->end;
	return str;
}

static int handle_value(void *user, const char *section_number, const char *name, const char *value)
{
	struct parse *parse = user;
	struct section *section;
	const char *wrong;
	char text[TPD_ERR_TEXT];
	uint64_t number;

	if (parse->status != TPD_OK)
		return 0;
	if (!tpd_text_parse_u64(section_number, &number) || number >= parse->section_count) {
		snprintf(text, sizeof text, "%s: stands before the first section", name);
		mistake(parse, parse->line, text);
		return 0;
	}
	section = &parse->sections[number];
	for (size_t i = 0; i < TPD_ARRAY_LEN(keys); i++) {
		if (keys[i].section != section->kind || strcmp(keys[i].name, name) != 0)
			continue;
		if (section->key_lines[i] != 0) {
			snprintf(text, sizeof text, "given twice, the first time in line %u", section->key_lines[i]);
			key_mistake(parse, parse->line, section, name, text);
			return 0;
		}
		section->key_lines[i] = parse->line;
		wrong = *value ? keys[i].set(parse->config, section->watch, value) : "has no value";
		if (!wrong)
			return 1;
		if (wrong == out_of_memory)
			return no_memory(parse), 0;
		snprintf(text, sizeof text, *value ? "%s, not '%s'" : "%s", wrong, value);
		key_mistake(parse, parse->line, section, name, text);
		return 0;
	}
	key_mistake(parse, parse->line, section, name, "unknown key");
	return 0;
}

/* --- after the parsing --- */

/* Is `path` the directory `dir` or something below it? By name only. */
static bool is_inside(const char *path, const char *dir)
{
	size_t len = strlen(dir);

	if (strcmp(dir, "/") == 0)
		return true;
	return strncmp(path, dir, len) == 0 && (path[len] == 0 || path[len] == '/');
}

/* The line of a key, or of its section's header when it is not given. */
static unsigned key_line(const struct section *section, const char *name)
{
	for (size_t i = 0; i < TPD_ARRAY_LEN(keys); i++) {
		if (keys[i].section == section->kind && strcmp(keys[i].name, name) == 0 && section->key_lines[i] != 0)
			return section->key_lines[i];
	}
	return section->line;
}

/*
 * A watch must not lie in the store, nor in another one: a checkpoint below both would be stored twice. paths: of the
 * watches as they are to be compared (as configured, or with links followed); store likewise. What is said names the
 * configured ones.
 */
static enum tpd_status check_nesting(struct parse *parse, const struct section *section, char *const *paths,
				     const char *store)
{
	struct tpd_config *config = parse->config;
	size_t w = section->watch;
	char text[TPD_ERR_TEXT + 64];

	if (is_inside(paths[w], store)) {
		snprintf(text, sizeof text, "'%s' lies in the store '%s'", config->watches[w].path, config->store_path);
		return key_mistake(parse, key_line(section, "path"), section, "path", text);
	}
	for (size_t k = 0; k < w; k++) {
		const struct tpd_config_watch *other = &config->watches[k];

		if (!is_inside(paths[w], paths[k]) && !is_inside(paths[k], paths[w]))
			continue;
		snprintf(text, sizeof text, "'%s' and '%s' of [watch:%s] lie in one another", config->watches[w].path,
			 other->path, other->name);
		return key_mistake(parse, key_line(section, "path"), section, "path", text);
	}
	return TPD_OK;
}

static enum tpd_status check_watches(struct parse *parse)
{
	struct tpd_config *config = parse->config;
	TPD_AUTO_FREE char **paths = calloc(config->watch_count + 1, sizeof *paths);
	enum tpd_status status = paths ? TPD_OK : no_memory(parse);

	for (size_t w = 0; status == TPD_OK && w < config->watch_count; w++)
		paths[w] = config->watches[w].path;
	for (size_t i = 0; i < parse->section_count && status == TPD_OK; i++) {
		const struct section *section = &parse->sections[i];

		if (section->kind != SECTION_WATCH)
			continue;
		if (!paths[section->watch])
			return key_mistake(parse, key_line(section, "path"), section, "path", "is missing");
		status = check_nesting(parse, section, paths, config->store_path);
	}
	return status;
}

/* A path without links in it, in fresh memory; of a store that is still to be made, that of its parent and its name. */
static char *without_links(const char *path)
{
	char *real = realpath(path, NULL), *joined = NULL;
	const char *name = strrchr(path, '/');
	TPD_AUTO_FREE char *parent = NULL;
	TPD_AUTO_FREE char *real_parent = NULL;

	if (real)
		return real;
	parent = strndup(path, name == path ? 1 : (size_t)(name - path));
	real_parent = parent ? realpath(parent, NULL) : NULL;
	if (!real_parent || asprintf(&joined, "%s%s", strcmp(real_parent, "/") ? real_parent : "", name) < 0)
		return strdup(path); /* it cannot be said better */
	return joined;
}

/* Once more, when the directories are there: a link leads from one into another as well. */
static enum tpd_status check_links(struct parse *parse)
{
	struct tpd_config *config = parse->config;
	TPD_AUTO_FREE char *store = without_links(config->store_path);
	char **paths = calloc(config->watch_count + 1, sizeof *paths);
	enum tpd_status status = paths && store ? TPD_OK : no_memory(parse);

	for (size_t w = 0; status == TPD_OK && w < config->watch_count; w++)
		if (!(paths[w] = without_links(config->watches[w].path)))
			status = no_memory(parse);
	for (size_t i = 0; i < parse->section_count && status == TPD_OK; i++)
		if (parse->sections[i].kind == SECTION_WATCH)
			status = check_nesting(parse, &parse->sections[i], paths, store);
	for (size_t w = 0; paths && w < config->watch_count; w++)
		free(paths[w]);
	free(paths);
	return status;
}

/* NULL when `path` is a directory, else why not. */
static const char *directory_trouble(const char *path)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return strerror(errno);
	return S_ISDIR(st.st_mode) ? NULL : strerror(ENOTDIR);
}

static enum tpd_status check_directory(struct parse *parse, unsigned line, const char *key, const char *path,
				       bool parent)
{
	TPD_AUTO_FREE char *copy = strdup(path);
	char text[TPD_ERR_TEXT];
	const char *why;
	char *slash;

	if (!copy)
		return no_memory(parse);
	why = directory_trouble(copy);
	if (parent && why) {
		slash = strrchr(copy, '/');
		slash[slash == copy] = 0;
		why = directory_trouble(copy);
	}
	if (!why)
		return TPD_OK;
	snprintf(text, sizeof text, "%s: directory '%s': %s", key, copy, why);
	return mistake(parse, line, text);
}

static enum tpd_status check_paths(struct parse *parse)
{
	const struct tpd_config *config = parse->config;
	enum tpd_status status = TPD_OK;
	unsigned path_line = 1, catalog_line = 1;
	char key[320], title[300];

	for (size_t i = 0; i < parse->section_count; i++) {
		if (parse->sections[i].kind != SECTION_STORE)
			continue;
		path_line = key_line(&parse->sections[i], "path");
		catalog_line = key_line(&parse->sections[i], "catalog");
	}
	status = check_directory(parse, path_line, "[store] path", config->store_path, true);
	if (status == TPD_OK && config->catalog_path && !is_inside(config->catalog_path, config->store_path)) {
		TPD_AUTO_FREE char *dir = strdup(config->catalog_path);

		if (!dir)
			return no_memory(parse);
		*(strrchr(dir, '/') + (strrchr(dir, '/') == dir)) = 0;
		status = check_directory(parse, catalog_line, "[store] catalog", dir, false);
	}
	for (size_t i = 0; i < parse->section_count && status == TPD_OK; i++) {
		const struct section *section = &parse->sections[i];

		if (section->kind != SECTION_WATCH)
			continue;
		snprintf(key, sizeof key, "%s path", section_title(parse, section, title));
		status = check_directory(parse, key_line(section, "path"), key, config->watches[section->watch].path,
					 false);
	}
	return status;
}

static enum tpd_status set_defaults(struct tpd_config *config, const char *file, struct tpd_err *err)
{
	*config = (struct tpd_config){
		.max_depth = DEFAULT_MAX_DEPTH,
		.depend = TPD_DEPEND_WEIGHTS,
		.part_size = DEFAULT_PART_SIZE,
		.scan_interval_ms = DEFAULT_SCAN_MS,
		.low_space = DEFAULT_LOW_SPACE,
		.spool_copies = DEFAULT_SPOOL_COPIES,
	};
	config->file = strdup(file);
	config->store_path = strdup(TPD_CONFIG_DEFAULT_STORE);
	config->control_socket = strdup(TPD_CONFIG_DEFAULT_SOCKET);
	return config->file && config->store_path && config->control_socket ? TPD_OK : tpd_fail_nomem(err);
}

static enum tpd_status parse_text(struct parse *parse)
{
	char text[TPD_ERR_TEXT];
	int rc;

	/* The same values at every call; no other code of the process uses inih. */
	ini_allow_multiline = false;
	ini_use_stack = true;
	ini_max_line = LINE_MAX_BYTES;
	ini_stop_on_first_error = true;
	rc = ini_parse_stream(read_line, parse, handle_value, parse);
	if (parse->status == TPD_OK && rc != 0) {
		snprintf(text, sizeof text, "neither 'key = value' nor a [section]");
		mistake(parse, parse->line, text);
	}
	return parse->status;
}

enum tpd_status tpd_config_read(const char *file, enum tpd_config_check check, struct tpd_config *out,
				struct tpd_err *err)
{
	struct tpd_config config;
	struct parse parse = {.config = &config, .err = err};
	TPD_AUTO_FREE uint8_t *data = NULL;
	enum tpd_status status;
	size_t len;

	status = set_defaults(&config, file, err);
	if (status == TPD_OK)
		status = tpd_io_read_file(tpd_io_posix(), AT_FDCWD, file, FILE_MAX_BYTES, &data, &len, err);
	if (status == TPD_OK && memchr(data, 0, len))
		status = tpd_fail(err, TPD_USAGE, "%s:1: this is no text file", file);
	if (status == TPD_OK) {
		parse.text = (const char *)data;
		parse.end = parse.text + len;
		status = parse_text(&parse);
	}
	if (status == TPD_OK)
		status = check_watches(&parse);
	if (status == TPD_OK && check == TPD_CONFIG_PATHS)
		status = check_paths(&parse);
	if (status == TPD_OK && check == TPD_CONFIG_PATHS)
		status = check_links(&parse);
	free(parse.sections);
	if (status != TPD_OK) {
		tpd_config_release(&config);
		return status;
	}
	*out = config;
	return TPD_OK;
}

const struct tpd_config_watch *tpd_config_watch_of(const struct tpd_config *config, const char *run)
{
	const struct tpd_config_watch *found = NULL;
	size_t longest = 0;

	for (size_t w = 0; w < config->watch_count; w++) {
		const char *name = config->watches[w].name;
		size_t len = strlen(name);

		if (strncmp(run, name, len) == 0 && (run[len] == 0 || run[len] == '/') && len > longest) {
			found = &config->watches[w];
			longest = len;
		}
	}
	return found;
}

void tpd_config_release(struct tpd_config *config)
{
	for (size_t i = 0; i < config->watch_count; i++) {
		free(config->watches[i].name);
		free(config->watches[i].path);
		free(config->watches[i].complete_when);
		free(config->watches[i].step_regex);
		free(config->watches[i].base);
	}
	free(config->watches);
	free(config->file);
	free(config->store_path);
	free(config->catalog_path);
	free(config->control_socket);
	*config = (struct tpd_config){0};
}
