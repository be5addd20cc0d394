/*
 * scan.c - looking: bring the tree up to date.
 *
 * A directory's mtime changes whenever a name in it does, so one stat a directory finds every new checkpoint; a file
 * re-written in place changes only its own times, for which there are inotify's events (IN_CLOSE_WRITE), reading
 * everything where there are none, and, against lost events, a sixteenth of all directories at each full look. So
 * 10,000 files at rest cost about a thousand system calls a minute. A time that is younger than the look by less than
 * the clock's grain proves nothing: such a directory is read again.
 *
 * Rejected: opening directories relative to one another. Paths are simpler, and what is found is only looked at here:
 * the capture opens without following links.
 */
#include "base/tpd.h"

#include "daemon/scan.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "daemon/tree.h"

#define TURNS 16              /* full looks until every directory was read */
#define TICK_NS 10000000ll    /* by which times of a file system may lag behind each other */
#define GRAIN_NS 2000000000ll /* coarsest times of the file systems that send events */

/* File systems where others may write without an event, or that stamp files by another machine's clock. */
static bool is_remote(const char *path)
{
	static const unsigned long types[] = {
		0x6969 /* NFS */,        0x517b /* SMB */,       0xfe534d42 /* SMB2 */,   0xff534d42 /* CIFS */,
		0x0bd00bd0 /* Lustre */, 0x65735546 /* FUSE */,  0x00c36400 /* Ceph */,   0x47504653 /* GPFS */,
		0x19830326 /* BeeGFS */, 0x01021997 /* 9P */,    0x5346414f /* AFS */,    0x7461636f /* OCFS2 */,
		0x01161970 /* GFS2 */,   0xaad7aaea /* PanFS */, 0x786f4256 /* vboxsf */, 0x20030528 /* OrangeFS */,
	};
	struct statfs fs;

	if (statfs(path, &fs) < 0)
		return false;
	for (size_t i = 0; i < TPD_ARRAY_LEN(types); i++) {
		if (((unsigned long)fs.f_type & 0xffffffff) == types[i])
			return true;
	}
	return false;
}

static int64_t ns_of(const struct timespec *ts)
{
	return (int64_t)ts->tv_sec * 1000000000 + ts->tv_nsec;
}

/* --- the result --- */

static bool make_room(struct tpd_scan_result *result, void **array, size_t count, size_t *cap, size_t size)
{
	size_t wanted = *cap ? *cap * 2 : 16;
	void *grown;

	if (count < *cap)
		return true;
	grown = reallocarray(*array, wanted, size);
	if (!grown) {
		result->status = TPD_NOMEM;
		return false;
	}
	*array = grown;
	*cap = wanted;
	return true;
}

void tpd_scan_gone(struct tpd_scan *scan, char *path)
{
	struct tpd_scan_result *result = scan->result;
	void *array;

	if (!path || !result) {
		if (!path && result)
			result->status = TPD_NOMEM;
		free(path);
		return;
	}
	array = result->gone;
	if (!make_room(result, &array, result->gone_count, &result->gone_cap, sizeof *result->gone)) {
		free(path);
		return;
	}
	result->gone = array;
	result->gone[result->gone_count++] = path;
}

void tpd_scan_note(struct tpd_scan *scan, bool warning, const char *run, const char *fmt, ...)
{
	struct tpd_scan_result *result = scan->result;
	struct tpd_scan_note note = {.warning = warning, .run = strdup(run)};
	void *array = result->notes;
	va_list args;

	va_start(args, fmt);
	if (vasprintf(&note.text, fmt, args) < 0)
		note.text = NULL;
	va_end(args);
	if (!note.run || !note.text ||
	    !make_room(result, &array, result->note_count, &result->note_cap, sizeof *result->notes)) {
		result->status = TPD_NOMEM;
		free(note.run);
		free(note.text);
		return;
	}
	result->notes = array;
	result->notes[result->note_count++] = note;
}

void tpd_scan_result_release(struct tpd_scan_result *result)
{
	for (size_t i = 0; i < result->seen_count; i++) {
		free((char *)(uintptr_t)result->seen[i].path);
		free((char *)(uintptr_t)result->seen[i].run);
	}
	for (size_t i = 0; i < result->gone_count; i++)
		free(result->gone[i]);
	for (size_t i = 0; i < result->note_count; i++) {
		free(result->notes[i].run);
		free(result->notes[i].text);
	}
	free(result->seen);
	free(result->gone);
	free(result->notes);
	free(result->states);
	*result = (struct tpd_scan_result){0};
}

/* --- reading one directory --- */

struct listing {
	struct tpd_file *files;
	size_t count, cap;
	ino_t *directories; /* their inodes */
	size_t directory_count, directory_cap;
	int64_t newest_ns; /* ctime, of directories only where they have a node, which tells of what is taken out of them */
	bool lost;         /* something that was there is not any more, under no name */
	bool failed;       /* no memory */
};

static int compare_files(const void *a, const void *b)
{
	return strcmp(((const struct tpd_file *)a)->name, ((const struct tpd_file *)b)->name);
}

static void add_file(struct tpd_scan *scan, struct listing *list, const char *name, const struct stat *st)
{
	struct tpd_file file = {
		.size = (uint64_t)st->st_size,
		.mtime_ns = ns_of(&st->st_mtim),
		.ctime_ns = ns_of(&st->st_ctim),
		.ino = st->st_ino,
	};
	void *array = list->files;

	file.name = strdup(name);
	if (!file.name || !make_room(scan->result, &array, list->count, &list->cap, sizeof file)) {
		free(file.name);
		list->failed = true;
		return;
	}
	list->files = array;
	list->files[list->count++] = file;
}

/* What was known of a file before this listing. */
static void inherit(struct tpd_file *file, const struct tpd_file *old)
{
	bool same = old->size == file->size && old->mtime_ns == file->mtime_ns && old->ctime_ns == file->ctime_ns &&
		old->ino == file->ino;

	file->step = old->step;
	file->role = old->role;
	file->changed = old->changed || !same;
	file->look = old->look;
	file->known = old->known;
	file->noted = old->noted;
	file->waiting = old->waiting;
	file->checked = old->checked && same;
	file->valid = old->valid;
}

static bool has_file(const struct listing *list, ino_t ino)
{
	for (size_t i = 0; i < list->count; i++)
		if (list->files[i].ino == ino)
			return true;
	return false;
}

static bool has_directory(const struct listing *list, ino_t ino)
{
	for (size_t i = 0; i < list->directory_count; i++)
		if (list->directories[i] == ino)
			return true;
	return false;
}

/* The new listing in place of the old; files that are not there any more are reported. */
static void take_listing(struct tpd_scan *scan, struct tpd_node *node, struct listing *list)
{
	size_t old = 0;

	if (list->count > 1)
		qsort(list->files, list->count, sizeof *list->files, compare_files);
	for (const struct tpd_node *child = node->children; child; child = child->next)
		list->lost = list->lost || (!child->present && !has_directory(list, child->ino));
	for (size_t i = 0; i <= list->count; i++) {
		struct tpd_file *file = i < list->count ? &list->files[i] : NULL;

		while (old < node->file_count && (!file || strcmp(node->files[old].name, file->name) < 0)) {
			if (node->files[old].known)
				tpd_scan_gone(scan, tpd_tree_path(node, node->files[old].name));
			list->lost = list->lost || !has_file(list, node->files[old].ino);
			old++;
		}
		if (!file)
			break;
		if (old < node->file_count && strcmp(node->files[old].name, file->name) == 0) {
			inherit(file, &node->files[old++]);
		} else {
			file->role = tpd_recognise_file(file->name, &file->step);
			file->changed = true;
		}
	}
	tpd_tree_clear_files(node);
	node->files = list->files;
	node->file_count = list->count;
	node->root->files += list->count;
	list->files = NULL;
	list->count = 0;
}

static void release_listing(struct listing *list)
{
	for (size_t i = 0; i < list->count; i++)
		free(list->files[i].name);
	free(list->files);
	free(list->directories);
}

static struct tpd_node *find_child(const struct tpd_node *node, const char *name)
{
	struct tpd_node *child;

	for (child = node->children; child && strcmp(child->name, name) != 0; child = child->next)
		;
	return child;
}

/* false: it has no node. */
static bool add_child(struct tpd_scan *scan, struct tpd_node *node, const char *name, unsigned depth)
{
	struct tpd_node *child = find_child(node, name);

	if (child) {
		child->present = true;
		return true;
	}
	if (tpd_recognise_ignored(name) || depth >= TPD_TREE_DEPTH_MAX)
		return false;
	if (scan->nodes >= TPD_TREE_NODES_MAX) {
		if (!scan->crowded_noted)
			tpd_scan_note(scan, true, node->root->name,
				      "more than %u directories below '%s': not all of them are watched",
				      TPD_TREE_NODES_MAX, node->root->path);
		scan->crowded_noted = true;
		return false;
	}
	child = tpd_tree_add(scan, node->root, node, name);
	if (!child) {
		scan->result->status = TPD_NOMEM;
		return false;
	}
	child->present = true;
	child->dirty = true; /* its parents are in work */
	return true;
}

static void add_directory(struct tpd_scan *scan, struct tpd_node *node, struct listing *list, const char *name, const struct stat *st,
			  unsigned depth)
{
	void *array = list->directories;

	if (st->st_dev == scan->skip_dev && st->st_ino == scan->skip_ino)
		return;
	if (!make_room(scan->result, &array, list->directory_count, &list->directory_cap, sizeof *list->directories)) {
		list->failed = true;
		return;
	}
	list->directories = array;
	list->directories[list->directory_count++] = st->st_ino;
	if (add_child(scan, node, name, depth))
		list->newest_ns = TPD_MAX(list->newest_ns, ns_of(&st->st_ctim));
}

static void note_unreadable(struct tpd_scan *scan, struct tpd_node *node, int sys)
{
	char buf[128];

	if (!node->noted && sys != ENOENT)
		tpd_scan_note(scan, true, node->root->name, "cannot read directory '%s': %s", scan->path,
			      strerror_r(sys, buf, sizeof buf));
	node->noted = true;
}

/*
 * When something was taken out of a directory last: own_ns is its mtime after it was listed. What comes in, also by renaming, has a ctime of
 * then or later. So where something is known to be gone, and nothing came in since, it was then; equal times do not tell, so it is a moment
 * later. Of a directory that was never listed before only the times tell: it is newer than all in it, by more than what clocks of
 * different grain differ by.
 */
static int64_t removed_at(const struct tpd_node *node, const struct listing *list, bool is_first, int64_t own_ns)
{
	if (list->lost && own_ns >= list->newest_ns)
		return own_ns + 1;
	if (is_first && own_ns - list->newest_ns > TICK_NS)
		return own_ns;
	return is_first ? 0 : node->removed_ns;
}

/* Each entry of an open directory. 0, or what went wrong. */
static int read_entries(struct tpd_scan *scan, struct tpd_node *node, DIR *dir, struct listing *list, unsigned depth)
{
	struct dirent *item;
	int wrong = 0;

	while (errno = 0, !list->failed && (item = readdir(dir)) != NULL) {
		struct stat st;

		if (strcmp(item->d_name, ".") == 0 || strcmp(item->d_name, "..") == 0)
			continue;
		if (fstatat(dirfd(dir), item->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
			if (errno == ENOENT || errno == ESTALE)
				list->lost = true;
			else
				wrong = errno;
			continue;
		}
		if (S_ISDIR(st.st_mode)) {
			add_directory(scan, node, list, item->d_name, &st, depth);
			continue;
		}
		list->newest_ns = TPD_MAX(list->newest_ns, ns_of(&st.st_ctim));
		if (S_ISREG(st.st_mode) && list->count < TPD_TREE_FILES_MAX)
			add_file(scan, list, item->d_name, &st);
	}
	return list->failed || errno == 0 ? wrong : errno;
}

/* Read the directory at scan->path. */
static void list(struct tpd_scan *scan, struct tpd_node *node, unsigned depth)
{
	struct listing list = {.lost = node->deleted};
	bool is_first = !node->listed;
	struct stat own;
	int wrong, fd = open(scan->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);

	node->listed_ns = tpd_clock_wall_ns();
	node->listed = true;
	node->deleted = false;
	tpd_tree_stir(node);
	if (!dir) {
		note_unreadable(scan, node, errno);
		if (fd >= 0)
			close(fd);
		return; /* what was known of it stays */
	}
	for (struct tpd_node *child = node->children; child; child = child->next)
		child->present = false;
	wrong = read_entries(scan, node, dir, &list, depth);
	if (wrong) {
		note_unreadable(scan, node, wrong);
		release_listing(&list);
		closedir(dir);
		return;
	}
	node->noted = false;
	for (struct tpd_node *child = node->children; child; child = child->next)
		child->dirty = child->dirty || !child->present; /* the look at it will find it missing */
	take_listing(scan, node, &list);
	if (fstat(dirfd(dir), &own) == 0)
		node->removed_ns = removed_at(node, &list, is_first, ns_of(&own.st_mtim));
	release_listing(&list);
	closedir(dir);
}

/* --- looking --- */

static bool needs_listing(const struct tpd_scan *scan, const struct tpd_node *node, const struct stat *st)
{
	int64_t mtime_ns = ns_of(&st->st_mtim), ctime_ns = ns_of(&st->st_ctim);

	if (!node->listed || node->dirty || scan->request->deep || node->wd < 0 || node->remote)
		return true;
	if (node->serial % TURNS == scan->turn)
		return true;
	return mtime_ns != node->mtime_ns || ctime_ns != node->ctime_ns ||
		node->listed_ns - TPD_MAX(mtime_ns, ctime_ns) < GRAIN_NS;
}

/* Another directory of the same name: what was known is about the old one. */
static void start_afresh(struct tpd_scan *scan, struct tpd_node *node)
{
	while (node->children)
		tpd_tree_remove(scan, node->children);
	tpd_tree_unwatch(scan, node);
	node->listed = node->deleted = false;
	node->removed_ns = 0;
}

/* false: it is not there any more. */
static bool look_at(struct tpd_scan *scan, struct tpd_node *node, unsigned depth)
{
	struct stat st;
	bool first;

	if (!node->remote)
		tpd_tree_watch(scan, node, scan->path);
	if (lstat(scan->path, &st) < 0)
		return errno != ENOENT && errno != ENOTDIR && errno != ESTALE;
	if (!S_ISDIR(st.st_mode))
		return false;
	first = node->ino == 0 && node->dev == 0;
	if (first || st.st_dev != node->dev || st.st_ino != node->ino) {
		if (!first)
			start_afresh(scan, node);
		node->remote =
			node->parent && node->parent->dev == st.st_dev ? node->parent->remote : is_remote(scan->path);
		node->dev = st.st_dev;
		node->ino = st.st_ino;
		if (node->remote) {
			tpd_tree_unwatch(scan, node);
			node->root->reason = "its file system does not tell of all changes";
		} else {
			tpd_tree_watch(scan, node, scan->path);
		}
	}
	if (needs_listing(scan, node, &st)) {
		/* As of before the listing: what changes during it shows in the next look. */
		node->mtime_ns = ns_of(&st.st_mtim);
		node->ctime_ns = ns_of(&st.st_ctim);
		list(scan, node, depth);
	}
	return true;
}

static void look(struct tpd_scan *scan, struct tpd_node *node, unsigned depth);

static void look_below(struct tpd_scan *scan, struct tpd_node *node, unsigned depth)
{
	size_t len = strlen(scan->path);

	for (struct tpd_node *child = node->children, *next; child; child = next) {
		int n;

		next = child->next;
		n = snprintf(scan->path + len, PATH_MAX - len, "%s%s", scan->path[len - 1] == '/' ? "" : "/",
			     child->name);
		if (n > 0 && (size_t)n < PATH_MAX - len)
			look(scan, child, depth + 1);
		scan->path[len] = 0;
	}
}

/* scan->path is the node's. */
static void look(struct tpd_scan *scan, struct tpd_node *node, unsigned depth)
{
	bool all = scan->request->full;

	if (!all && !node->dirty && !node->dirty_below)
		return;
	if (all || node->dirty || !node->listed) {
		if (!look_at(scan, node, depth)) {
			/* Its parent need not be read in this look, too. */
			if (node->parent)
				node->parent->removed_ns = TPD_MAX(node->parent->removed_ns, scan->now_ns);
			tpd_tree_remove(scan, node);
			return;
		}
	}
	node->dirty = node->dirty_below = false;
	look_below(scan, node, depth);
}

/* The watched directory itself: may come and go, as a mount does. */
static void look_at_root(struct tpd_scan *scan, struct tpd_root *root)
{
	char *real;

	root->reason = NULL;
	if (!root->node) {
		real = realpath(root->path, NULL);
		if (real)
			root->node = tpd_tree_add(scan, root, NULL, real);
		if (root->node)
			root->node->dirty = true;
		free(real);
	}
	if (root->node && strlen(root->node->name) < PATH_MAX) {
		strcpy(scan->path, root->node->name);
		look(scan, root->node, 0);
	}
	if (!root->node && !root->missing_ns)
		tpd_scan_note(scan, true, root->name, "the watched directory '%s' is not there", root->path);
	if (root->node && root->missing_ns)
		tpd_scan_note(scan, false, root->name, "the watched directory '%s' is there again", root->path);
	root->missing_ns = root->node ? 0 : root->missing_ns ? root->missing_ns : scan->now_ns;
}

/* --- requests --- */

/* A checkpoint that is to be reported in any case: all of it is read again. */
static void ask_for(struct tpd_scan *scan, const char *path)
{
	for (struct tpd_root *root = scan->roots; root; root = root->next) {
		struct tpd_node *node = root->node;
		TPD_AUTO_FREE char *rest = NULL;
		char *save = NULL;
		size_t len;

		if (!node)
			continue;
		len = strcmp(node->name, "/") == 0 ? 0 : strlen(node->name);
		if (strncmp(path, node->name, len) != 0 || path[len] != '/')
			continue;
		rest = strdup(path + len + 1);
		if (!rest) {
			scan->result->status = TPD_NOMEM;
			return;
		}
		for (char *part = strtok_r(rest, "/", &save); part && node; part = strtok_r(NULL, "/", &save)) {
			struct tpd_node *child = find_child(node, part);
			struct tpd_file *file = child ? NULL : tpd_tree_file(node, part);

			if (file) {
				file->look = true;
				tpd_tree_mark(node);
				return;
			}
			node = child;
		}
		if (node) {
			node->look = true;
			tpd_tree_stir(node);
			tpd_tree_mark_all(node);
			return;
		}
	}
	tpd_scan_gone(scan, strdup(path));
}

static void report_states(struct tpd_scan *scan)
{
	struct tpd_scan_result *result = scan->result;
	size_t count = 0;

	for (struct tpd_root *root = scan->roots; root; root = root->next)
		count++;
	result->states = calloc(count + 1, sizeof *result->states);
	if (!result->states) {
		result->status = TPD_NOMEM;
		return;
	}
	for (struct tpd_root *root = scan->roots; root; root = root->next) {
		result->states[result->state_count++] = (struct tpd_scan_state){
			.id = root->id,
			.polling = root->polled > 0,
			.reason = root->polled == 0 ? NULL
				: root->reason      ? root->reason
						    : "some directories cannot be watched",
			.missing_ns = root->missing_ns,
			.directories = root->directories,
			.files = root->files,
		};
	}
}

void tpd_scan_run(struct tpd_scan *scan, const struct tpd_scan_request *request, struct tpd_scan_result *out_result)
{
	char path[PATH_MAX];

	*out_result = (struct tpd_scan_result){0};
	scan->request = request;
	scan->result = out_result;
	scan->path = path;
	scan->now_ns = tpd_clock_wall_ns();
	if (request->full) {
		scan->exhausted = false;
		scan->turn = (scan->turn + 1) % TURNS;
	}
	for (size_t i = 0; i < request->lost_count; i++)
		tpd_tree_lose_wd(scan, request->lost[i]);
	for (size_t i = 0; i < request->descriptor_count; i++)
		tpd_tree_mark_wd(scan, request->descriptors[i], false);
	for (size_t i = 0; i < request->deletion_count; i++)
		tpd_tree_mark_wd(scan, request->deletions[i], true);
	for (size_t i = 0; i < request->look_count; i++)
		ask_for(scan, request->looks[i]);
	for (struct tpd_root *root = scan->roots; root; root = root->next)
		look_at_root(scan, root);
	for (struct tpd_root *root = scan->roots; root; root = root->next)
		tpd_sight_report(scan, root);
	report_states(scan);
	scan->request = NULL;
	scan->result = NULL;
	scan->path = NULL;
}

/* --- life --- */

void tpd_scan_watches_free(struct tpd_scan_watch *watches, size_t count)
{
	for (size_t i = 0; watches && i < count; i++) {
		free((char *)(uintptr_t)watches[i].name);
		free((char *)(uintptr_t)watches[i].path);
		free((char *)(uintptr_t)watches[i].complete_when);
		free((char *)(uintptr_t)watches[i].step_regex);
	}
	free(watches);
}

enum tpd_status tpd_scan_new(int inotify, const char *no_inotify, struct tpd_scan **out_scan, struct tpd_err *err)
{
	struct tpd_scan *scan = calloc(1, sizeof *scan);

	if (!scan)
		return tpd_fail_nomem(err);
	scan->inotify = inotify;
	scan->no_inotify = no_inotify;
	*out_scan = scan;
	return TPD_OK;
}

static void free_root(struct tpd_scan *scan, struct tpd_root *root)
{
	if (root->node)
		tpd_tree_remove(scan, root->node);
	free(root->name);
	free(root->path);
	free(root->complete_when);
	if (root->has_step_regex)
		regfree(&root->step_regex);
	free(root);
}

void tpd_scan_free(struct tpd_scan *scan)
{
	if (!scan)
		return;
	while (scan->roots) {
		struct tpd_root *root = scan->roots;

		scan->roots = root->next;
		free_root(scan, root);
	}
	free(scan);
}

/* The rules of the configuration; they may change while the watch stays. */
static enum tpd_status set_rules(struct tpd_root *root, const struct tpd_scan_watch *watch, struct tpd_err *err)
{
	free(root->complete_when);
	root->complete_when = watch->complete_when ? strdup(watch->complete_when) : NULL;
	if (watch->complete_when && !root->complete_when)
		return tpd_fail_nomem(err);
	if (root->has_step_regex)
		regfree(&root->step_regex);
	root->has_step_regex = false;
	if (!watch->step_regex)
		return TPD_OK;
	if (regcomp(&root->step_regex, watch->step_regex, REG_EXTENDED) != 0) /* the configuration was checked: no memory */
		return tpd_fail_nomem(err);
	root->has_step_regex = true;
	return TPD_OK;
}

static enum tpd_status add_root(struct tpd_scan *scan, const struct tpd_scan_watch *watch, struct tpd_err *err)
{
	struct tpd_root *root = calloc(1, sizeof *root), **last = &scan->roots;

	if (!root)
		return tpd_fail_nomem(err);
	root->id = watch->id;
	root->keep = true;
	root->name = strdup(watch->name);
	root->path = strdup(watch->path);
	if (!root->name || !root->path) {
		free_root(scan, root);
		return tpd_fail_nomem(err);
	}
	while (*last)
		last = &(*last)->next;
	*last = root;
	return set_rules(root, watch, err);
}

enum tpd_status tpd_scan_set_watches(struct tpd_scan *scan, const struct tpd_scan_watch *watches, size_t count,
				     dev_t skip_dev, ino_t skip_ino, struct tpd_err *err)
{
	enum tpd_status status = TPD_OK;
	struct tpd_root *root;

	scan->skip_dev = skip_dev;
	scan->skip_ino = skip_ino;
	for (root = scan->roots; root; root = root->next)
		root->keep = false;
	for (size_t i = 0; i < count && status == TPD_OK; i++) {
		for (root = scan->roots; root && root->id != watches[i].id; root = root->next)
			;
		if (root) {
			root->keep = true;
			status = set_rules(root, &watches[i], err);
		} else {
			status = add_root(scan, &watches[i], err);
		}
	}
	for (struct tpd_root **link = &scan->roots; (root = *link) != NULL;) {
		if (root->keep) {
			link = &root->next;
			continue;
		}
		*link = root->next;
		free_root(scan, root);
	}
	return status;
}
