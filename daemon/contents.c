/*
 * contents.c - is a file whole? The part of recognise.h that reads files.
 *
 * Each check reads a bounded number of bytes and says true when it does not know: settling, which has the last word,
 * has already seen the file unchanged for a while. They exist for writers that pause for longer than that in the middle
 * of a file.
 */
#include "base/tpd.h"

#include "daemon/recognise.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/json.h"
#include "format/format.h"

#define DOCUMENT_MAX (64u << 20) /* trainer_state.json grows with the log history */

bool tpd_recognise_whole_file(const char *path)
{
	TPD_AUTO_CLOSE int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return true; /* capturing it will tell why not */
	return tpd_format_is_whole(fd, path, (uint64_t)st.st_size);
}

/* --- JSON --- */

/* A whole document in fresh memory, tamed; NULL: it cannot be read. */
static char *read_document(const char *path, size_t *out_len)
{
	uint8_t *data = NULL;

	if (tpd_io_read_file(tpd_io_posix(), AT_FDCWD, path, DOCUMENT_MAX, &data, out_len, NULL) != TPD_OK)
		return NULL;
	tpd_json_tame((char *)data, *out_len);
	return (char *)data;
}

bool tpd_recognise_json(const char *path)
{
	size_t len;
	TPD_AUTO_FREE char *text = read_document(path, &len);
	struct tpd_json js;
	enum tpd_json_kind kind;

	if (!text)
		return false;
	js = tpd_json_make(text, len);
	while ((kind = tpd_json_next(&js)) != TPD_JSON_END) {
		if (kind == TPD_JSON_ERROR)
			return false;
	}
	return true;
}

/* The object behind "weight_map": tensor name -> file name. */
static bool check_weight_map(struct tpd_json *js, bool (*has)(void *arg, const char *name), void *arg)
{
	enum tpd_json_kind kind;

	while ((kind = tpd_json_next(js)) == TPD_JSON_KEY) {
		TPD_AUTO_FREE char *name = NULL;

		if (tpd_json_next(js) != TPD_JSON_STRING)
			return false;
		name = tpd_json_string(js);
		if (!name || !has(arg, name))
			return false;
	}
	return kind == TPD_JSON_OBJECT_END;
}

bool tpd_recognise_shards(const char *index_path, bool (*has)(void *arg, const char *name), void *arg)
{
	size_t len;
	TPD_AUTO_FREE char *text = read_document(index_path, &len);
	struct tpd_json js;
	enum tpd_json_kind kind;

	if (!text)
		return false;
	js = tpd_json_make(text, len);
	if (tpd_json_next(&js) != TPD_JSON_OBJECT)
		return false;
	while ((kind = tpd_json_next(&js)) == TPD_JSON_KEY) {
		bool map = tpd_json_is(&js, "weight_map");

		kind = tpd_json_next(&js);
		if (map && kind == TPD_JSON_OBJECT ? !check_weight_map(&js, has, arg) : !tpd_json_skip(&js, kind))
			return false;
	}
	return kind == TPD_JSON_OBJECT_END && tpd_json_next(&js) == TPD_JSON_END;
}
