/*
 * tree.c - nodes, and which inotify watch belongs to which.
 *
 * Children are a linked list (a directory has few, and they are walked anyway), files a sorted array (they are merged
 * with each new listing). A watch descriptor belongs to an inode: two paths to one directory, through bind mounts,
 * share it, so a bucket may hold several nodes of one descriptor.
 */
#include "base/tpd.h"

#include "daemon/tree.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>

#define EVENTS \
	(IN_CLOSE_WRITE | IN_CREATE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_DELETE_SELF | IN_MOVE_SELF | \
	 IN_ONLYDIR | IN_DONT_FOLLOW)

struct tpd_node *tpd_tree_add(struct tpd_scan *scan, struct tpd_root *root, struct tpd_node *parent, const char *name)
{
	struct tpd_node *node = calloc(1, sizeof *node);

	if (!node)
		return NULL;
	node->name = strdup(name);
	if (!node->name) {
		free(node);
		return NULL;
	}
	node->wd = -1;
	node->parent = parent;
	node->root = root;
	node->serial = scan->next_serial++;
	if (parent) {
		node->next = parent->children;
		parent->children = node;
	}
	scan->nodes++;
	root->directories++;
	root->polled++;
	return node;
}

static void free_file(struct tpd_file *file)
{
	free(file->name);
}

void tpd_tree_clear_files(struct tpd_node *node)
{
	node->root->files -= node->file_count;
	for (size_t i = 0; i < node->file_count; i++)
		free_file(&node->files[i]);
	free(node->files);
	node->files = NULL;
	node->file_count = 0;
}

static void forget(struct tpd_scan *scan, struct tpd_node *node)
{
	while (node->children) {
		struct tpd_node *child = node->children;

		node->children = child->next;
		forget(scan, child);
	}
	if (node->known)
		tpd_scan_gone(scan, tpd_tree_path(node, NULL));
	for (size_t i = 0; i < node->file_count; i++) {
		if (node->files[i].known)
			tpd_scan_gone(scan, tpd_tree_path(node, node->files[i].name));
	}
	tpd_tree_unwatch(scan, node);
	tpd_tree_clear_files(node);
	scan->nodes--;
	node->root->directories--;
	node->root->polled--;
	free(node->name);
	free(node);
}

void tpd_tree_remove(struct tpd_scan *scan, struct tpd_node *node)
{
	struct tpd_node **link;

	if (node->parent) {
		for (link = &node->parent->children; *link != node; link = &(*link)->next)
			;
		*link = node->next;
		tpd_tree_stir(node->parent);
	} else {
		node->root->node = NULL;
	}
	forget(scan, node);
}

char *tpd_tree_join(const char *path, const char *name)
{
	char *joined = NULL;

	return asprintf(&joined, "%s/%s", strcmp(path, "/") == 0 ? "" : path, name) < 0 ? NULL : joined;
}

char *tpd_tree_path(const struct tpd_node *node, const char *file_or_null)
{
	TPD_AUTO_FREE char *above = NULL;

	if (!file_or_null && !node->parent)
		return strdup(node->name);
	above = tpd_tree_path(file_or_null ? node : node->parent, NULL);
	return above ? tpd_tree_join(above, file_or_null ? file_or_null : node->name) : NULL;
}

/* --- inotify --- */

static struct tpd_node **wd_bucket(struct tpd_scan *scan, int wd)
{
	return &scan->by_wd[(unsigned)wd % TPD_TREE_WD_BUCKETS];
}

/* `polled` counts nodes without a watch: one more or one fewer for the node's root. */
void tpd_tree_watch(struct tpd_scan *scan, struct tpd_node *node, const char *path)
{
	struct tpd_node **bucket;
	int wd;

	if (node->wd >= 0)
		return;
	if (scan->inotify < 0) {
		node->root->reason = scan->no_inotify;
		return;
	}
	if (scan->exhausted)
		return;
	wd = inotify_add_watch(scan->inotify, path, EVENTS);
	if (wd < 0) {
		if (errno == ENOSPC) {
			scan->exhausted = true;
			node->root->reason =
				"the limit of inotify watches, /proc/sys/fs/inotify/max_user_watches, is reached";
		} else if (errno == ENOMEM) {
			scan->exhausted = true;
			node->root->reason = "no memory for inotify watches";
		} /* EACCES, ENOENT: reading the directory tells the same */
		return;
	}
	node->wd = wd;
	bucket = wd_bucket(scan, wd);
	node->next_wd = *bucket;
	*bucket = node;
	node->root->polled--;
}

void tpd_tree_unwatch(struct tpd_scan *scan, struct tpd_node *node)
{
	struct tpd_node **link;
	bool shared = false;

	if (node->wd < 0)
		return;
	link = wd_bucket(scan, node->wd);
	while (*link != node) {
		shared = shared || (*link)->wd == node->wd;
		link = &(*link)->next_wd;
	}
	*link = node->next_wd;
	for (struct tpd_node *other = *link; other; other = other->next_wd)
		shared = shared || other->wd == node->wd;
	if (!shared)
		inotify_rm_watch(scan->inotify, node->wd); /* EINVAL: the kernel has removed it with its directory */
	node->wd = -1;
	node->root->polled++;
}

void tpd_tree_mark_wd(struct tpd_scan *scan, int wd, bool deleted)
{
	for (struct tpd_node *node = *wd_bucket(scan, wd); node; node = node->next_wd) {
		if (node->wd != wd)
			continue;
		tpd_tree_mark(node);
		node->deleted = node->deleted || deleted;
	}
}

void tpd_tree_lose_wd(struct tpd_scan *scan, int wd)
{
	for (struct tpd_node **link = wd_bucket(scan, wd), *node; (node = *link) != NULL;) {
		if (node->wd != wd) {
			link = &node->next_wd;
			continue;
		}
		*link = node->next_wd;
		node->wd = -1;
		node->root->polled++;
		tpd_tree_mark(node);
	}
}

/* --- marks --- */

void tpd_tree_mark(struct tpd_node *node)
{
	node->dirty = true;
	for (node = node->parent; node && !node->dirty_below; node = node->parent)
		node->dirty_below = true;
}

void tpd_tree_mark_all(struct tpd_node *node)
{
	tpd_tree_mark(node);
	for (struct tpd_node *child = node->children; child; child = child->next)
		tpd_tree_mark_all(child);
}

void tpd_tree_stir(struct tpd_node *node)
{
	for (; node && !node->stirred; node = node->parent)
		node->stirred = true;
}

static int compare_name(const void *name, const void *file)
{
	return strcmp(name, ((const struct tpd_file *)file)->name);
}

struct tpd_file *tpd_tree_file(const struct tpd_node *node, const char *name)
{
	if (node->file_count == 0)
		return NULL;
	return bsearch(name, node->files, node->file_count, sizeof *node->files, compare_name);
}
