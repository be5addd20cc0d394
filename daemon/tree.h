/*
 * tree.h - the directories and files below a watched directory, as they were last seen. Shared by scan.c and sight.c
 * only.
 */
#ifndef TPD_DAEMON_TREE_H
#define TPD_DAEMON_TREE_H

#include "base/tpd.h"

#include <regex.h>
#include <sys/stat.h>

#include "daemon/recognise.h"
#include "daemon/scan.h"

#define TPD_TREE_FILES_MAX 65536u /* of one directory: the most that a capture can hold */
#define TPD_TREE_DEPTH_MAX 24u
#define TPD_TREE_NODES_MAX 262144u /* of all watches */
#define TPD_TREE_WD_BUCKETS 8192u

struct tpd_root;

struct tpd_file {
	char *name;
	uint64_t size, step;
	int64_t mtime_ns, ctime_ns;
	ino_t ino;
	enum tpd_file_role role;
	bool changed;        /* since it was last reported */
	bool look;           /* report it in any case */
	bool known;          /* reported: settle has it */
	bool noted;          /* its unnumbered name was mentioned */
	bool waiting;        /* for a marker beside it: reported at each look at its directory */
	bool checked, valid; /* its contents were looked at since it changed; with what result */
};

struct tpd_node {
	struct tpd_root *root;
	struct tpd_node *parent, *children, *next;
	char *name; /* of a root: its real path */
	dev_t dev;
	ino_t ino;
	int64_t mtime_ns, ctime_ns;
	int64_t listed_ns;      /* wall clock */
	int64_t removed_ns;     /* something in it was taken away then, and nothing written by then that is still there is newer; 0: not known */
	bool deleted;           /* an event said so since it was listed */
	struct tpd_file *files; /* sorted by name */
	size_t file_count;
	int wd;                   /* -1: no inotify watch */
	struct tpd_node *next_wd; /* of the same bucket */
	uint32_t serial;
	bool remote; /* on a file system without events, or with a clock of its own */
	bool listed;
	bool present; /* its parent's last listing had it */
	bool dirty;   /* must be read again */
	bool dirty_below;
	bool stirred;          /* something changed here or below since the last report */
	bool look;             /* report it in any case */
	bool known;            /* reported as a checkpoint: settle has it */
	bool waiting;          /* it, or a file in it, was not complete then; what decides may lie beside it */
	uint64_t signature;    /* as it was reported */
	bool noted, noted_run; /* unreadable; a run of an impossible name */
	bool noted_step;       /* a framework's checkpoint that tells no step */
};

struct tpd_root {
	struct tpd_root *next;
	uint32_t id;
	char *name, *path;
	struct tpd_node *node; /* NULL while the directory is not there */
	int64_t missing_ns;    /* wall clock, since when a look found that; 0: it is there */
	bool keep;
	uint64_t directories, files, polled; /* polled: directories without an inotify watch */
	const char *reason;
	char *complete_when; /* patterns of the configuration, or NULL */
	bool has_step_regex;
	regex_t step_regex;
};

struct tpd_scan {
	int inotify;
	const char *no_inotify;
	struct tpd_root *roots;
	struct tpd_node *by_wd[TPD_TREE_WD_BUCKETS];
	dev_t skip_dev;
	ino_t skip_ino;
	uint32_t nodes, next_serial, turn;
	bool exhausted, crowded_noted; /* no more inotify watches to be had in this look; too many directories */
	/* of the look in work */
	const struct tpd_scan_request *request;
	struct tpd_scan_result *result;
	char *path; /* of the node in work; PATH_MAX bytes */
	int64_t now_ns;
};

/* A new child of parent (NULL: a root). NULL: out of memory. */
struct tpd_node *tpd_tree_add(struct tpd_scan *scan, struct tpd_root *root, struct tpd_node *parent, const char *name);
/* Take a node and all below it out of the tree; what settle knows of them is reported as gone. */
void tpd_tree_remove(struct tpd_scan *scan, struct tpd_node *node);
void tpd_tree_clear_files(struct tpd_node *node);
/* A name in a directory, which may be "/", in fresh memory. NULL: out of memory. */
char *tpd_tree_join(const char *path, const char *name);
/* Its full path in fresh memory. NULL: out of memory. */
char *tpd_tree_path(const struct tpd_node *node, const char *file_or_null);
/* inotify's watch on a directory: add (path is its own), or remove. */
void tpd_tree_watch(struct tpd_scan *scan, struct tpd_node *node, const char *path);
void tpd_tree_unwatch(struct tpd_scan *scan, struct tpd_node *node);
void tpd_tree_mark_wd(struct tpd_scan *scan, int wd, bool deleted);
/* The kernel has removed it: whoever has it gets a new one when it is read again. */
void tpd_tree_lose_wd(struct tpd_scan *scan, int wd);
void tpd_tree_mark(struct tpd_node *node);     /* to be read again */
void tpd_tree_mark_all(struct tpd_node *node); /* with all below */
void tpd_tree_stir(struct tpd_node *node);     /* to be reported */
struct tpd_file *tpd_tree_file(const struct tpd_node *node, const char *name);

/* Into the result; TPD_NOMEM is kept there. gone takes the string over. */
void tpd_scan_gone(struct tpd_scan *scan, char *path);
void tpd_scan_note(struct tpd_scan *scan, bool warning, const char *run, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/* sight.c: report what is to be reported below a root. */
void tpd_sight_report(struct tpd_scan *scan, struct tpd_root *root);

#endif
