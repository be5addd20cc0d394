/*
 * config.h - tpded.conf, read by the daemon and by the command.
 *
 *     [store]    path=DIR  catalog=FILE  max_depth=N  part_size=SIZE  tip_cache=SIZE
 *     [codec]    effort=fast|balanced|max  depend=none|weights|optimizer
 *     [daemon]   control_socket=PATH  threads=N  scan_interval=SECONDS  low_space=SIZE  spool_copies=SIZE
 *     [watch:NAME]  path=DIR  settle=SECONDS  complete_when=PATTERNS  step_regex=ERE  stalled_after=SECONDS  base=RUN[@STEP]|PATH
 *                                                        one section a directory
 *
 * Every mistake is one error that names file, line and key: unknown sections and keys, bad values, keys given twice,
 * two watches of one name, relative paths, directories that do not exist. Parsing by inih.
 */
#ifndef TPD_WIRE_CONFIG_H
#define TPD_WIRE_CONFIG_H

#include "base/effort.h"
#include "base/tpd.h"

#define TPD_CONFIG_DEFAULT_FILE "/etc/tpded/tpded.conf"
#define TPD_CONFIG_DEFAULT_STORE "/var/lib/tpded"
#define TPD_CONFIG_DEFAULT_SOCKET "/run/tpded/control.sock"

struct tpd_config_watch {
	char *name, *path; /* owned */
	uint64_t settle_ms;
	uint64_t stalled_ms; /* a checkpoint that waits so long for its marker is told of */
	char *complete_when; /* names of markers, with blanks between; NULL: each framework's own; owned */
	char *base;          /* what a run's first checkpoint refers to, as archive.h has it; NULL: found; owned */
	char *step_regex;    /* POSIX extended, with a group that is the step; NULL: from names; owned */
	unsigned line; /* of its section header */
};

struct tpd_config {
	char *file;        /* as given; owned, as all strings */
	char *store_path;
	char *catalog_path; /* NULL: in the store */
	uint32_t max_depth;
	enum tpd_effort effort;
	enum tpd_depend depend;
	uint64_t part_size;
	uint64_t tip_cache; /* bytes; 0: off */
	char *control_socket;
	unsigned threads;  /* 0: one a CPU */
	uint64_t scan_interval_ms;
	uint64_t low_space; /* bytes free on a watched file system, below which deleted files are not held; 0: they are, always */
	uint64_t spool_copies; /* bytes of copies of captures that may be written over; 0: none */
	struct tpd_config_watch *watches;
	size_t watch_count;
};

enum tpd_config_check {
	TPD_CONFIG_SYNTAX = 0, /* sections, keys, values */
	/* and that watched directories, and the parent of the store, exist; none leads into another by links either */
	TPD_CONFIG_PATHS = 1
};

/* TPD_NOT_FOUND: no such file; TPD_USAGE: the first mistake, "FILE:LINE: [section] key: what is wrong". */
enum tpd_status tpd_config_read(const char *file, enum tpd_config_check check, struct tpd_config *out, struct tpd_err *err);
/* The watch that a run is of: the one of its name, or that begins its name (NAME/...); NULL: none. */
const struct tpd_config_watch *tpd_config_watch_of(const struct tpd_config *config, const char *run);
void tpd_config_release(struct tpd_config *config);

#endif
