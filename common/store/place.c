/*
 * place.c - see place.h. Rejected: openat2(RESOLVE_BENEATH) alone (it needs Linux 5.6 and says nothing about who makes the parents), and a
 * temporary tree renamed at the end (the target may hold other files).
 */
#include "base/tpd.h"

#include "store/place.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/text.h"

struct item {
	const struct tpd_entry *entry; /* borrowed: the manifest outlives the place */
	char *temporary;               /* path below the root, or NULL: a directory */
	int fd;
};

struct tpd_place {
	char *path;
	int root;
	struct item *items;
	size_t count;
	char **made; /* directories that we made, parents first */
	size_t made_count;
	bool committed, made_root;
};

/* The directory that holds `path` (below the root): O_PATH-like descriptor, -errno. make: create what is missing. */
static int open_parent(struct tpd_place *place, const char *path, bool make, char *out_name)
{
	char part[4096];
	int dir = dup(place->root);
	const char *at = path, *slash;

	if (dir < 0)
		return -errno;
	while ((slash = strchr(at, '/')) != NULL) {
		size_t len = (size_t)(slash - at);
		int next;

		if (len >= sizeof(part)) {
			close(dir);
			return -ENAMETOOLONG;
		}
		memcpy(part, at, len);
		part[len] = '\0';
		next = openat(dir, part, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (next < 0 && errno == ENOENT && make) {
			if (mkdirat(dir, part, 0755) == 0) {
				char **grown = realloc(place->made, (place->made_count + 1) * sizeof(*grown));

				if (grown) {
					place->made = grown;
					grown[place->made_count] = strndup(path, (size_t)(slash - path));
					place->made_count += grown[place->made_count] != NULL;
				}
			}
			next = openat(dir, part, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		}
		if (next < 0) {
			int sys = errno;

			close(dir);
			return -sys;
		}
		close(dir);
		dir = next;
		at = slash + 1;
	}
	snprintf(out_name, 256, "%s", at);
	if (strlen(at) > 255) {
		close(dir);
		return -ENAMETOOLONG;
	}
	return dir;
}

/* fsync by descriptor of a directory; file systems that cannot do that say EINVAL. */
static bool sync_dir(int dir)
{
	return fsync(dir) == 0 || errno == EINVAL;
}

/* Make the entry of a directory that we made last: by its parent. */
static enum tpd_status sync_parent(const char *path, struct tpd_err *err)
{
	TPD_AUTO_FREE char *copy = strdup(path);
	const char *parent = copy ? dirname(copy) : NULL;
	enum tpd_status status = TPD_OK;
	int dir;

	if (!parent)
		return tpd_fail_nomem(err);
	dir = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0 && errno == EACCES) /* we may write to it, and not read it */
		return TPD_OK;
	if (dir < 0 || !sync_dir(dir))
		status = tpd_fail_sys(err, errno, "cannot sync directory '%s'", parent);
	if (dir >= 0)
		close(dir);
	return status;
}

static enum tpd_status make_dirs(const char *path, struct tpd_err *err)
{
	TPD_AUTO_FREE char *copy = strdup(path);

	if (!copy)
		return tpd_fail_nomem(err);
	for (char *at = copy + 1;; at++) {
		char kept = *at;
		enum tpd_status status = TPD_OK;

		if (kept != '/' && kept != '\0')
			continue;
		*at = '\0';
		if (mkdir(copy, 0755) == 0)
			status = sync_parent(copy, err);
		else if (errno != EEXIST)
			status = tpd_fail_sys(err, errno, "cannot make directory '%s'", copy);
		*at = kept;
		if (status || !kept)
			return status;
	}
}

static bool is_same(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/* A path's directory or, where that is not there yet, the nearest one above it. -1: there is none that can be opened. */
static int open_nearest(const char *path)
{
	TPD_AUTO_FREE char *copy = strdup(path);
	char *at = copy;
	int dir = -1;

	while (at && (dir = open(at, O_PATH | O_DIRECTORY | O_CLOEXEC)) < 0 && strcmp(at, "/") != 0 && strcmp(at, ".") != 0)
		at = dirname(at);
	return dir;
}

/* Is the directory `dir`, which is closed, `root` or below it? */
static bool is_within(int dir, const struct stat *root)
{
	struct stat here, last = {0};
	bool within = false;

	while (dir >= 0 && fstat(dir, &here) == 0 && !within && !is_same(&here, &last)) {
		int above = openat(dir, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);

		within = is_same(&here, root);
		last = here;
		close(dir);
		dir = above;
	}
	if (dir >= 0)
		close(dir);
	return within;
}

enum tpd_status tpd_place_check_outside(const char *path, const struct tpd_store *store, struct tpd_err *err)
{
	struct stat root;

	if (fstat(tpd_store_dir(store), &root) != 0)
		return tpd_fail_sys(err, errno, "cannot look at the store '%s'", tpd_store_path(store));
	if (is_within(open_nearest(path), &root))
		return tpd_fail(err, TPD_USAGE, "'%s' lies in the store '%s': nothing is restored there", path, tpd_store_path(store));
	return TPD_OK;
}

enum tpd_status tpd_place_open(const char *path, struct tpd_place **out_place, struct tpd_err *err)
{
	struct tpd_place *place;
	struct stat st;
	bool made = false;
	enum tpd_status status;

	if (!*path)
		return tpd_fail(err, TPD_USAGE, "the target directory has no name");
	if (stat(path, &st) != 0) {
		status = make_dirs(path, err);
		if (status)
			return status;
		made = true;
	}
	place = calloc(1, sizeof(*place));
	if (!place)
		return tpd_fail_nomem(err);
	place->made_root = made;
	place->path = strdup(path);
	place->root = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (place->root < 0 || !place->path) {
		status = tpd_fail_sys(err, place->root < 0 ? errno : ENOMEM, "cannot open directory '%s'", path);
		tpd_place_close(place);
		return status;
	}
	*out_place = place;
	return TPD_OK;
}

enum tpd_status tpd_place_check(const struct tpd_place *place, const struct tpd_entry *entry, bool replace,
				struct tpd_err *err)
{
	struct tpd_place look = *place; /* open_parent makes nothing here */
	bool there, is_dir;
	char name[256];
	struct stat st;
	int dir;

	if (!tpd_text_is_safe_path(entry->path))
		return tpd_fail(err, TPD_CORRUPT, "the checkpoint holds the unsafe path '%s'", entry->path);
	dir = open_parent(&look, entry->path, false, name);
	if (dir == -ENOENT)
		return TPD_OK;
	if (dir < 0)
		return tpd_fail(err, TPD_CONFLICT, "cannot restore '%s/%s': %s", place->path, entry->path,
				dir == -ELOOP || dir == -ENOTDIR ? "something on the way is not a directory" : strerror(-dir));
	there = fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
	is_dir = there && S_ISDIR(st.st_mode);
	close(dir);
	if (!there || (is_dir && entry->type == TPD_ENTRY_DIR))
		return TPD_OK;
	if (is_dir)
		return tpd_fail(err, TPD_CONFLICT, "'%s/%s' is a directory, and a %s in the checkpoint: it is not replaced",
				place->path, entry->path, entry->type == TPD_ENTRY_FILE ? "file" : "link");
	if (entry->type == TPD_ENTRY_DIR)
		return tpd_fail(err, TPD_CONFLICT, "'%s/%s' is there and not a directory, as in the checkpoint: it is not replaced",
				place->path, entry->path);
	if (!replace)
		return tpd_fail(err, TPD_CONFLICT, "'%s/%s' is already there (--force replaces it)", place->path, entry->path);
	return TPD_OK;
}

static enum tpd_status add_item(struct tpd_place *place, const struct tpd_entry *entry, struct item **out, struct tpd_err *err)
{
	struct item *grown;

	if (!tpd_text_is_safe_path(entry->path))
		return tpd_fail(err, TPD_CORRUPT, "the checkpoint holds the unsafe path '%s'", entry->path);
	grown = realloc(place->items, (place->count + 1) * sizeof(*grown));
	if (!grown)
		return tpd_fail_nomem(err);
	place->items = grown;
	*out = &grown[place->count];
	**out = (struct item){.entry = entry, .fd = -1};
	return TPD_OK;
}

/* DIR/.tpd-restore.PID.N beside the entry's name. */
static char *temporary_name(const struct tpd_place *place, const struct tpd_entry *entry)
{
	const char *slash = strrchr(entry->path, '/');
	char *name = NULL;

	if (asprintf(&name, "%.*s.tpd-restore.%ld.%zu", slash ? (int)(slash - entry->path + 1) : 0, entry->path, (long)getpid(),
		     place->count) < 0)
		return NULL;
	return name;
}

enum tpd_status tpd_place_create(struct tpd_place *place, const struct tpd_entry *entry, int *out_fd, struct tpd_err *err)
{
	struct item *item = NULL;
	char name[256];
	enum tpd_status status = add_item(place, entry, &item, err);
	int dir;

	if (status)
		return status;
	item->temporary = temporary_name(place, entry);
	if (!item->temporary)
		return tpd_fail_nomem(err);
	dir = open_parent(place, item->temporary, true, name);
	if (dir >= 0)
		item->fd = openat(dir, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (dir < 0 || item->fd < 0) {
		status = tpd_fail_sys(err, dir < 0 ? -dir : errno, "cannot make '%s/%s'", place->path, item->temporary);
		free(item->temporary);
		if (dir >= 0)
			close(dir);
		return status;
	}
	close(dir);
	place->count++;
	if (entry->size > 0 && fallocate(item->fd, 0, 0, (off_t)entry->size) != 0 && errno != EOPNOTSUPP && errno != ENOSYS)
		return tpd_fail_sys(err, errno, "cannot make room for '%s/%s'", place->path, entry->path);
	*out_fd = item->fd;
	return TPD_OK;
}

/* Restored by root, a file belongs to root: what its owner made setuid must not become so for us. */
static mode_t safe_mode(const struct tpd_entry *entry)
{
	return (mode_t)entry->mode & (geteuid() == 0 ? 01777 : 07777);
}

enum tpd_status tpd_place_seal(struct tpd_place *place, int fd, struct tpd_err *err)
{
	for (size_t i = place->count; i-- > 0;) {
		struct item *item = &place->items[i];
		const struct tpd_entry *entry = item->entry;
		int64_t seconds = entry->mtime_ns / 1000000000, rest = entry->mtime_ns % 1000000000;
		struct timespec times[2];

		if (item->fd != fd)
			continue;
		if (rest < 0) {
			rest += 1000000000;
			seconds--;
		}
		times[0] = (struct timespec){.tv_nsec = UTIME_NOW};
		times[1] = (struct timespec){.tv_sec = seconds, .tv_nsec = rest};
		if (fchmod(fd, safe_mode(entry)) != 0 || futimens(fd, times) != 0 || fsync(fd) != 0)
			return tpd_fail_sys(err, errno, "cannot finish '%s/%s'", place->path, entry->path);
		item->fd = -1;
		if (close(fd) != 0)
			return tpd_fail_sys(err, errno, "cannot finish '%s/%s'", place->path, entry->path);
		return TPD_OK;
	}
	return tpd_fail(err, TPD_USAGE, "no such descriptor");
}

enum tpd_status tpd_place_add(struct tpd_place *place, const struct tpd_entry *entry, struct tpd_err *err)
{
	struct item *item = NULL;
	char name[256];
	enum tpd_status status = add_item(place, entry, &item, err);
	int dir;

	if (status)
		return status;
	if (entry->type == TPD_ENTRY_DIR) {
		TPD_AUTO_FREE char *inside = NULL;

		if (asprintf(&inside, "%s/x", entry->path) < 0) {
			inside = NULL;
			return tpd_fail_nomem(err);
		}
		dir = open_parent(place, inside, true, name);
		if (dir < 0)
			return tpd_fail_sys(err, -dir, "cannot make directory '%s/%s'", place->path, entry->path);
		close(dir);
		place->count++;
		return TPD_OK;
	}
	item->temporary = temporary_name(place, entry);
	if (!item->temporary)
		return tpd_fail_nomem(err);
	dir = open_parent(place, item->temporary, true, name);
	if (dir < 0 || symlinkat(entry->target, dir, name) != 0) {
		status = tpd_fail_sys(err, dir < 0 ? -dir : errno, "cannot make link '%s/%s'", place->path, entry->path);
		free(item->temporary);
		if (dir >= 0)
			close(dir);
		return status;
	}
	close(dir);
	place->count++;
	return TPD_OK;
}

static enum tpd_status commit_item(struct tpd_place *place, struct item *item, bool replace, struct tpd_err *err)
{
	char from[256], to[256];
	enum tpd_status status = TPD_OK;
	int dir = open_parent(place, item->temporary, false, from);

	if (dir < 0)
		return tpd_fail_sys(err, -dir, "cannot finish '%s/%s'", place->path, item->entry->path);
	snprintf(to, sizeof(to), "%s", strrchr(item->entry->path, '/') ? strrchr(item->entry->path, '/') + 1 : item->entry->path);
	if (replace ? renameat(dir, from, dir, to) != 0 : renameat2(dir, from, dir, to, RENAME_NOREPLACE) != 0) {
		struct stat st;

		if (!replace && (errno == EINVAL || errno == ENOSYS) && fstatat(dir, to, &st, AT_SYMLINK_NOFOLLOW) != 0 &&
		    renameat(dir, from, dir, to) == 0) /* a file system without RENAME_NOREPLACE */
			errno = 0;
		else
			status = errno == EEXIST ? tpd_fail(err, TPD_CONFLICT, "'%s/%s' is already there (--force replaces it)",
							    place->path, item->entry->path)
						 : tpd_fail_sys(err, errno, "cannot rename to '%s/%s'", place->path,
								item->entry->path);
	}
	close(dir);
	if (!status) {
		free(item->temporary);
		item->temporary = NULL;
	}
	return status;
}

/* Mode and mtime of a directory of the checkpoint: deepest first, since they may take away our right to write. */
static enum tpd_status finish_dir(struct tpd_place *place, const struct tpd_entry *entry, struct tpd_err *err)
{
	char name[256];
	int64_t seconds = entry->mtime_ns / 1000000000, rest = entry->mtime_ns % 1000000000;
	struct timespec times[2] = {{.tv_nsec = UTIME_NOW}, {.tv_sec = seconds, .tv_nsec = rest}};
	int parent = open_parent(place, entry->path, false, name), dir;
	enum tpd_status status = TPD_OK;

	if (rest < 0)
		times[1] = (struct timespec){.tv_sec = seconds - 1, .tv_nsec = rest + 1000000000};
	dir = parent < 0 ? -1 : openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (dir < 0 || fchmod(dir, safe_mode(entry)) != 0 || futimens(dir, times) != 0 || !sync_dir(dir))
		status = tpd_fail_sys(err, parent < 0 ? -parent : errno, "cannot finish directory '%s/%s'", place->path, entry->path);
	if (dir >= 0)
		close(dir);
	if (parent >= 0)
		close(parent);
	return status;
}

/* By the directory that holds them, which ends before the last slash. */
static int compare_parents(const void *a, const void *b)
{
	const char *x, *y, *slash_x, *slash_y;
	size_t len_x, len_y;
	int order;

	memcpy(&x, a, sizeof(x));
	memcpy(&y, b, sizeof(y));
	slash_x = strrchr(x, '/');
	slash_y = strrchr(y, '/');
	len_x = slash_x ? (size_t)(slash_x - x) : 0;
	len_y = slash_y ? (size_t)(slash_y - y) : 0;
	order = memcmp(x, y, TPD_MIN(len_x, len_y));
	return order ? order : (len_x > len_y) - (len_x < len_y);
}

/* fsync the directory that holds `path`. */
static enum tpd_status sync_around(struct tpd_place *place, const char *path, struct tpd_err *err)
{
	char name[256];
	int dir = open_parent(place, path, false, name);
	enum tpd_status status = TPD_OK;

	if (dir < 0 || !sync_dir(dir))
		status = tpd_fail_sys(err, dir < 0 ? -dir : errno, "cannot sync the directory of '%s/%s'", place->path, path);
	if (dir >= 0)
		close(dir);
	return status;
}

/* Every directory in which a name is new, once, however many it got. */
static enum tpd_status sync_names(struct tpd_place *place, struct tpd_err *err)
{
	TPD_AUTO_FREE const char **paths = calloc(place->count + place->made_count + 1, sizeof(*paths));
	enum tpd_status status = TPD_OK;
	size_t count = 0;

	if (!paths)
		return tpd_fail_nomem(err);
	for (size_t i = 0; i < place->count; i++)
		if (place->items[i].entry->type != TPD_ENTRY_DIR)
			paths[count++] = place->items[i].entry->path;
	for (size_t i = 0; i < place->made_count; i++)
		paths[count++] = place->made[i];
	qsort(paths, count, sizeof(*paths), compare_parents);
	for (size_t i = 0; !status && i < count; i++)
		if (i == 0 || compare_parents(&paths[i - 1], &paths[i]) != 0)
			status = sync_around(place, paths[i], err);
	return status;
}

enum tpd_status tpd_place_commit(struct tpd_place *place, bool replace, struct tpd_err *err)
{
	enum tpd_status status = TPD_OK;

	for (size_t i = 0; !status && i < place->count; i++)
		if (place->items[i].temporary)
			status = commit_item(place, &place->items[i], replace, err);
	place->committed = true; /* some names may be final: what is left are only temporaries */
	if (!status) /* before the modes of directories may keep us out */
		status = sync_names(place, err);
	for (size_t i = place->count; !status && i-- > 0;)
		if (place->items[i].entry->type == TPD_ENTRY_DIR)
			status = finish_dir(place, place->items[i].entry, err);
	if (!status && !sync_dir(place->root))
		status = tpd_fail_sys(err, errno, "cannot sync directory '%s'", place->path);
	return status;
}

void tpd_place_close(struct tpd_place *place)
{
	char name[256];

	if (!place)
		return;
	for (size_t i = 0; i < place->count; i++) {
		struct item *item = &place->items[i];

		if (item->fd >= 0)
			close(item->fd);
		if (item->temporary) {
			int dir = open_parent(place, item->temporary, false, name);

			if (dir >= 0) {
				unlinkat(dir, name, 0);
				close(dir);
			}
		}
		free(item->temporary);
	}
	for (size_t i = place->made_count; i-- > 0;) {
		if (!place->committed) {
			int dir = open_parent(place, place->made[i], false, name);

			if (dir >= 0) {
				unlinkat(dir, name, AT_REMOVEDIR);
				close(dir);
			}
		}
		free(place->made[i]);
	}
	free(place->made);
	free(place->items);
	if (place->root >= 0)
		close(place->root);
	if (place->made_root && !place->committed)
		rmdir(place->path);
	free(place->path);
	free(place);
}
