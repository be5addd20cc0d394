/*
 * capture.c - open everything at once.
 *
 * The problem: rotation deletes a checkpoint within a millisecond of the next one's completion, file by file. Descriptors
 * survive that, so the first walk opens every file before anything is read; a file that vanishes during the walk makes the capture fail,
 * and the caller decides. Descriptors do not survive truncation in place: tpd_capture_check() compares size, mtime, ctime
 * and inode afterwards, and a capture that changed is void. What a spool can do about that is in capture_spool.c.
 */
#include "base/tpd.h"

#include "archive/capture_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/digest.h"
#include "base/text.h"

static enum tpd_status capture_check(void *arg, struct tpd_err *err)
{
	return tpd_capture_check(arg, err);
}

static enum tpd_status add_entry(struct tpd_capture *capture, const struct tpd_source_entry *entry, const struct stat *st,
				 struct tpd_err *err)
{
	if (capture->source.count >= TPD_CAPTURE_MAX_FILES)
		return tpd_fail(err, TPD_LIMIT, "'%s' holds more than %u files", capture->path, TPD_CAPTURE_MAX_FILES);
	if (capture->source.count == capture->cap) {
		size_t cap = capture->cap ? 2 * capture->cap : 32;
		struct tpd_source_entry *entries = realloc(capture->entries, cap * sizeof(*entries));
		struct stat *stats;

		if (!entries)
			return tpd_fail_nomem(err);
		capture->entries = entries;
		capture->source.entries = entries;
		stats = realloc(capture->stats, cap * sizeof(*stats));
		if (!stats)
			return tpd_fail_nomem(err);
		capture->stats = stats;
		capture->cap = cap;
	}
	capture->entries[capture->source.count] = *entry;
	capture->stats[capture->source.count] = *st;
	capture->source.count++;
	if (entry->type == TPD_ENTRY_FILE)
		capture->bytes += entry->size;
	return TPD_OK;
}

static int64_t mtime_ns(const struct stat *st)
{
	return (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec;
}

static int64_t ctime_ns(const struct stat *st)
{
	return (int64_t)st->st_ctim.tv_sec * 1000000000 + st->st_ctim.tv_nsec;
}

static enum tpd_status vanished(struct tpd_err *err, int sys, const char *path)
{
	if (sys == ENOENT || sys == ESTALE)
		return tpd_fail(err, TPD_NOT_FOUND, "'%s' is not there", path);
	return tpd_fail_sys(err, sys, "cannot open '%s'", path);
}

/* The same of an entry, named by its whole path: capture->path is that of a single file itself. */
static enum tpd_status entry_vanished(const struct tpd_capture *capture, const char *entry, int sys, struct tpd_err *err)
{
	TPD_AUTO_FREE char *path = NULL;

	if (capture->source.kind == TPD_CHECKPOINT_FILE)
		return vanished(err, sys, capture->path);
	if (sys == ENOENT || sys == ESTALE) /* perhaps it was a temporary one: what is there now is for the next look to say */
		return tpd_fail(err, TPD_CONFLICT, "'%s' in '%s' went while it was opened", entry, capture->path);
	if (asprintf(&path, "%s/%s", capture->path, entry) < 0) {
		path = NULL;
		return tpd_fail_nomem(err);
	}
	return vanished(err, sys, path);
}

/* One directory entry: open it, or read the link. Sockets, devices and fifos are left out. */
static enum tpd_status take(struct tpd_capture *capture, int dir, const char *name, const char *path, unsigned depth,
			    struct tpd_err *err);

static enum tpd_status walk(struct tpd_capture *capture, int fd, const char *prefix, unsigned depth, struct tpd_err *err)
{
	DIR *list = fdopendir(fd);
	enum tpd_status status = TPD_OK;
	struct dirent *item;

	if (!list) {
		int sys = errno;

		close(fd);
		return tpd_fail_sys(err, sys, "cannot read directory '%s/%s'", capture->path, prefix);
	}
	if (depth > TPD_CAPTURE_MAX_DEPTH)
		status = tpd_fail(err, TPD_LIMIT, "'%s' has more than %u levels of directories", capture->path,
				  TPD_CAPTURE_MAX_DEPTH);
	while (!status && (errno = 0, item = readdir(list)) != NULL) {
		char *path = NULL;

		if (strcmp(item->d_name, ".") == 0 || strcmp(item->d_name, "..") == 0)
			continue;
		if (asprintf(&path, "%s%s%s", prefix, *prefix ? "/" : "", item->d_name) < 0) {
			status = tpd_fail_nomem(err);
			break;
		}
		if (!tpd_text_is_safe_path(path))
			status = tpd_fail(err, TPD_USAGE, "'%s' holds a name that cannot be stored: '%s'", capture->path, path);
		else
			status = take(capture, dirfd(list), item->d_name, path, depth, err);
		free(path);
	}
	if (!status && errno)
		status = tpd_fail_sys(err, errno, "cannot read directory '%s/%s'", capture->path, prefix);
	closedir(list);
	return status;
}

static enum tpd_status take(struct tpd_capture *capture, int dir, const char *name, const char *path, unsigned depth,
			    struct tpd_err *err)
{
	struct tpd_source_entry entry = {.fd = -1};
	struct stat st;
	char target[4096];
	enum tpd_status status = TPD_OK;
	TPD_AUTO_CLOSE int fd = -1;

	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
		return entry_vanished(capture, path, errno, err);
	if (S_ISLNK(st.st_mode)) {
		ssize_t len = readlinkat(dir, name, target, sizeof(target) - 1);

		if (len < 0)
			return entry_vanished(capture, path, errno, err);
		target[len] = '\0';
		entry.type = TPD_ENTRY_SYMLINK;
		entry.target = strdup(target);
	} else if (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)) {
		bool is_dir = S_ISDIR(st.st_mode);

		fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | (is_dir ? O_DIRECTORY : 0));
		if (fd < 0)
			return entry_vanished(capture, path, errno, err);
		if (fstat(fd, &st) != 0)
			return entry_vanished(capture, path, errno, err);
		if (!S_ISREG(st.st_mode) && !is_dir)
			return TPD_OK; /* exchanged for something else meanwhile */
		entry.type = is_dir ? TPD_ENTRY_DIR : TPD_ENTRY_FILE;
		entry.size = is_dir ? 0 : (uint64_t)st.st_size;
	} else {
		return TPD_OK;
	}
	entry.path = strdup(path);
	entry.mode = entry.type == TPD_ENTRY_SYMLINK ? 0777 : st.st_mode & 07777;
	entry.mtime_ns = mtime_ns(&st);
	if (entry.type == TPD_ENTRY_FILE) {
		entry.fd = fd;
		fd = -1;
	}
	status = entry.path && (entry.target || entry.type != TPD_ENTRY_SYMLINK) ? add_entry(capture, &entry, &st, err)
										  : tpd_fail_nomem(err);
	if (status) {
		free((char *)(uintptr_t)entry.path);
		free((char *)(uintptr_t)entry.target);
		if (entry.fd >= 0)
			close(entry.fd);
		return status;
	}
	if (entry.type == TPD_ENTRY_DIR) {
		int below = fd;

		fd = -1; /* the walk closes it */
		return walk(capture, below, path, depth + 1, err);
	}
	return TPD_OK;
}

struct indexed {
	struct tpd_source_entry entry;
	struct stat st;
};

static int compare_indexed(const void *a, const void *b)
{
	return strcmp(((const struct indexed *)a)->entry.path, ((const struct indexed *)b)->entry.path);
}

static enum tpd_status sort_entries(struct tpd_capture *capture, struct tpd_err *err)
{
	size_t n = capture->source.count;
	struct indexed *both = calloc(n + 1, sizeof(*both));

	if (!both)
		return tpd_fail_nomem(err);
	for (size_t i = 0; i < n; i++)
		both[i] = (struct indexed){capture->entries[i], capture->stats[i]};
	qsort(both, n, sizeof(*both), compare_indexed);
	for (size_t i = 0; i < n; i++) {
		capture->entries[i] = both[i].entry;
		capture->stats[i] = both[i].st;
	}
	free(both);
	return TPD_OK;
}

/*
 * Open a path that realpath() gave. A link that somebody put on the way since then would lead to what the path's owner may not
 * read and we may, so none is followed.
 */
static int open_real(const char *path, int flags)
{
	struct open_how how = {.flags = (unsigned)(flags | O_CLOEXEC), .resolve = RESOLVE_NO_SYMLINKS};
	long fd = syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof(how));

	return fd < 0 && errno == ENOSYS ? open(path, flags | O_NOFOLLOW | O_CLOEXEC) : (int)fd; /* Linux before 5.6 */
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* The one file of a single-file checkpoint, by the directory that it lies in. */
static enum tpd_status take_file(struct tpd_capture *capture, const char *path, struct tpd_err *err)
{
	const char *name = base_name(capture->path);
	TPD_AUTO_FREE char *parent = strndup(capture->path, TPD_MAX((size_t)(name - capture->path) - 1, (size_t)1));
	TPD_AUTO_CLOSE int dir = parent ? open_real(parent, O_RDONLY | O_DIRECTORY) : -1;

	if (!parent)
		return tpd_fail_nomem(err);
	return dir < 0 ? vanished(err, errno, path) : take(capture, dir, name, name, 0, err);
}

/* Inodes are given out again, and soon: of a path that is renamed over and over every second file has the number of one before. */
static int64_t birth_of(const char *path)
{
	struct statx st;

	if (statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, STATX_BTIME, &st) != 0 || !(st.stx_mask & STATX_BTIME))
		return 0;
	return (int64_t)st.stx_btime.tv_sec * 1000000000 + st.stx_btime.tv_nsec;
}

enum tpd_status tpd_capture_open(const char *path, struct tpd_capture **out_capture, struct tpd_err *err)
{
	struct tpd_capture *capture = calloc(1, sizeof(*capture));
	enum tpd_status status = TPD_OK;
	struct stat st;

	if (!capture)
		return tpd_fail_nomem(err);
	capture->path = realpath(path, NULL);
	if (!capture->path) {
		status = vanished(err, errno, path);
	} else if (lstat(capture->path, &st) != 0) {
		status = vanished(err, errno, path);
	} else if (S_ISDIR(st.st_mode)) {
		int fd = open_real(capture->path, O_RDONLY | O_DIRECTORY);

		capture->source.kind = TPD_CHECKPOINT_DIR;
		status = fd < 0 ? vanished(err, errno, path) : walk(capture, fd, "", 0, err);
	} else if (S_ISREG(st.st_mode)) {
		capture->source.kind = TPD_CHECKPOINT_FILE;
		status = take_file(capture, path, err);
	} else {
		status = tpd_fail(err, TPD_USAGE, "'%s' is neither a file nor a directory", path);
	}
	if (!status)
		status = sort_entries(capture, err);
	if (status) {
		tpd_capture_close(capture);
		return status;
	}
	capture->device = st.st_dev;
	capture->inode = st.st_ino;
	capture->born_ns = birth_of(capture->path);
	capture->source.origin = capture->path;
	capture->source.check = capture_check;
	capture->source.check_arg = capture;
	*out_capture = capture;
	return TPD_OK;
}

void tpd_capture_close(struct tpd_capture *capture)
{
	if (!capture)
		return;
	for (size_t i = 0; i < capture->source.count; i++) {
		free((char *)(uintptr_t)capture->entries[i].path);
		free((char *)(uintptr_t)capture->entries[i].target);
		if (capture->entries[i].fd >= 0)
			close(capture->entries[i].fd);
	}
	tpd_capture_drop_spooled(capture);
	free(capture->entries);
	free(capture->stats);
	free(capture->path);
	free(capture);
}

void tpd_capture_set_held(struct tpd_capture *capture, const struct tpd_capture *held, const struct tpd_id *id)
{
	capture->source.held = held ? &held->source : NULL;
	if (held)
		capture->source.held_id = *id;
}

const struct tpd_source *tpd_capture_source(const struct tpd_capture *capture)
{
	return &capture->source;
}

void tpd_capture_set_metrics_of(struct tpd_capture *capture, tpd_metrics_fn *metrics_of)
{
	capture->metrics_of = metrics_of;
}

enum tpd_status tpd_capture_metrics(const struct tpd_capture *capture, struct tpd_metrics *out, struct tpd_err *err)
{
	enum tpd_status status = (capture->metrics_of ? capture->metrics_of : tpd_metrics_of)(&capture->source, out, err);

	if (status)
		tpd_err_prefix(err, "'%s'", capture->path);
	return status;
}

int64_t tpd_capture_changed_ns(const struct tpd_capture *capture, size_t entry)
{
	return TPD_MAX(mtime_ns(&capture->stats[entry]), ctime_ns(&capture->stats[entry]));
}

uint64_t tpd_capture_bytes(const struct tpd_capture *capture)
{
	return capture->bytes;
}

/* Names that are there now, in the directory `fd`, and not in the capture. */
static enum tpd_status find_new(const struct tpd_capture *capture, int fd, const char *prefix, unsigned depth, struct tpd_err *err)
{
	DIR *list = fdopendir(fd);
	enum tpd_status status = TPD_OK;
	struct dirent *item;

	if (!list) {
		close(fd);
		return TPD_OK;
	}
	while (!status && depth <= TPD_CAPTURE_MAX_DEPTH && (item = readdir(list)) != NULL) {
		char *path = NULL;
		struct stat st;
		const struct stat *known = NULL;
		struct tpd_source_entry key;

		if (strcmp(item->d_name, ".") == 0 || strcmp(item->d_name, "..") == 0 ||
		    fstatat(dirfd(list), item->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0 ||
		    !(S_ISREG(st.st_mode) || S_ISDIR(st.st_mode) || S_ISLNK(st.st_mode)))
			continue;
		if (asprintf(&path, "%s%s%s", prefix, *prefix ? "/" : "", item->d_name) < 0) {
			status = tpd_fail_nomem(err);
			break;
		}
		key.path = path;
		{
			size_t low = 0, high = capture->source.count;

			while (low < high) { /* entries are sorted by path */
				size_t middle = low + (high - low) / 2;
				int order = strcmp(capture->entries[middle].path, key.path);

				if (order == 0) {
					known = &capture->stats[middle];
					break;
				}
				if (order < 0)
					low = middle + 1;
				else
					high = middle;
			}
			if (!known)
				status = tpd_fail(err, TPD_CONFLICT, "'%s' appeared in '%s' meanwhile", path, capture->path);
			else if (st.st_dev != known->st_dev || st.st_ino != known->st_ino)
				status = tpd_fail(err, TPD_CONFLICT, "'%s' was replaced in '%s' meanwhile", path, capture->path);
		}
		if (!status && S_ISDIR(st.st_mode)) {
			int below = openat(dirfd(list), item->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

			if (below >= 0)
				status = find_new(capture, below, path, depth + 1, err);
		}
		free(path);
	}
	closedir(list);
	return status;
}

/* fstat() of a file on a network may answer with what was known a minute ago: have its server asked first. */
static int look_again(int fd, struct stat *st)
{
	struct statx now;

	(void)statx(fd, "", AT_EMPTY_PATH | AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &now);
	return fstat(fd, st);
}

enum tpd_status tpd_capture_check(const struct tpd_capture *capture, struct tpd_err *err)
{
	if (capture->detached)
		return TPD_OK;
	for (size_t i = 0; i < capture->source.count; i++) {
		const struct tpd_source_entry *entry = &capture->entries[i];
		const struct stat *was = &capture->stats[i];
		struct stat st;

		if (entry->type != TPD_ENTRY_FILE)
			continue;
		if (look_again(entry->fd, &st) != 0)
			return tpd_fail_sys(err, errno, "cannot look at '%s' in '%s' again", entry->path, capture->path);
		/* Deleting a file changes its link count and ctime, nothing else. */
		if (st.st_dev != was->st_dev || st.st_ino != was->st_ino || st.st_size != was->st_size ||
		    st.st_mtim.tv_sec != was->st_mtim.tv_sec || st.st_mtim.tv_nsec != was->st_mtim.tv_nsec ||
		    (st.st_nlink == was->st_nlink &&
		     (st.st_ctim.tv_sec != was->st_ctim.tv_sec || st.st_ctim.tv_nsec != was->st_ctim.tv_nsec)))
			return tpd_fail(err, TPD_CONFLICT, "'%s' in '%s' changed while it was read", entry->path, capture->path);
	}
	if (capture->source.kind == TPD_CHECKPOINT_DIR) {
		int fd = open_real(capture->path, O_RDONLY | O_DIRECTORY);

		if (fd >= 0)
			return find_new(capture, fd, "", 0, err);
	}
	return TPD_OK;
}

/* A file system of layers may go on saying 1 for the links of a file that is gone; its path tells then. */
bool tpd_capture_is_deleted(const struct tpd_capture *capture)
{
	struct stat st;

	if (capture->detached || capture->source.kind != TPD_CHECKPOINT_DIR)
		return false;
	for (size_t i = 0; i < capture->source.count; i++)
		if (capture->entries[i].type == TPD_ENTRY_FILE && look_again(capture->entries[i].fd, &st) == 0 &&
		    (st.st_nlink == 0 || st.st_nlink < capture->stats[i].st_nlink))
			return true;
	return lstat(capture->path, &st) != 0 && (errno == ENOENT || errno == ENOTDIR);
}

uint64_t tpd_capture_place(const struct tpd_capture *capture)
{
	uint64_t place[4] = {tpd_xxh64(capture->path, strlen(capture->path)), (uint64_t)capture->device, (uint64_t)capture->inode,
			     (uint64_t)capture->born_ns};

	return tpd_xxh64(place, sizeof(place));
}

void tpd_capture_fingerprint(const struct tpd_capture *capture, char out[TPD_FINGERPRINT_LEN])
{
	struct tpd_buf buf = {0};
	uint8_t digest[TPD_XXH_LEN];

	for (size_t i = 0; i < capture->source.count; i++) {
		const struct tpd_source_entry *entry = &capture->entries[i];

		if (entry->type == TPD_ENTRY_DIR)
			continue;
		tpd_buf_str(&buf, entry->path);
		tpd_buf_u8(&buf, (uint8_t)entry->type);
		tpd_buf_u64(&buf, entry->size);
		tpd_buf_u64(&buf, (uint64_t)entry->mtime_ns);
	}
	tpd_xxh128(buf.data, buf.len, digest);
	tpd_hex(digest, sizeof(digest), out);
	tpd_buf_release(&buf);
}
