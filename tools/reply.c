/*
 * reply.c - the daemon's JSON answer as a flat list of paths and values.
 *
 * A status command wants a dozen fields by name, and must live with a daemon of another version that has more of
 * them or fewer: so "queue.queued" or nothing, instead of a struct that both sides have to agree on.
 */
#include "base/tpd.h"

#include "tools/tools.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATH_MAX_BYTES 512

static enum tpd_status add_field(struct tpd_reply *reply, const char *path, char *value, struct tpd_err *err)
{
	struct tpd_reply_field *more = reallocarray(reply->fields, reply->count + 1, sizeof(*more));
	char *copy = strdup(path);

	if (more)
		reply->fields = more;
	if (!more || !copy || !value) {
		free(copy);
		free(value);
		return tpd_fail_nomem(err);
	}
	reply->fields[reply->count++] = (struct tpd_reply_field){.path = copy, .value = value};
	return TPD_OK;
}

static char *value_text(struct tpd_json *js, enum tpd_json_kind kind)
{
	switch (kind) {
	case TPD_JSON_STRING:
		return tpd_json_string(js);
	case TPD_JSON_NUMBER:
		return strndup(js->text, js->text_len);
	case TPD_JSON_TRUE:
		return strdup("true");
	default:
		return strdup("false");
	}
}

/* Where one level of the value stands: its path ends at `end` of the shared text. */
struct level {
	size_t end;
	uint64_t index; /* in an array */
	bool array;
};

enum tpd_status tpd_reply_parse(const char *json, struct tpd_reply *out, struct tpd_err *err)
{
	struct tpd_json js = tpd_json_make(json, strlen(json));
	struct level levels[TPD_JSON_DEPTH + 1];
	struct tpd_reply reply = {0};
	enum tpd_status status = TPD_OK;
	enum tpd_json_kind kind;
	char path[PATH_MAX_BYTES] = "";
	size_t depth = 0;

	while (status == TPD_OK && (kind = tpd_json_next(&js)) != TPD_JSON_END) {
		struct level *level = depth ? &levels[depth - 1] : NULL;

		if (kind == TPD_JSON_ERROR) {
			status = tpd_fail(err, TPD_CORRUPT, "the daemon's answer is not JSON");
			break;
		}
		if (kind == TPD_JSON_KEY && level) {
			TPD_AUTO_FREE char *key = tpd_json_string(&js);

			snprintf(path + level->end, sizeof(path) - level->end, "%s%s", level->end ? "." : "",
				 key ? key : "");
			continue;
		}
		if (kind == TPD_JSON_OBJECT_END || kind == TPD_JSON_ARRAY_END) {
			depth--;
			continue;
		}
		if (level && level->array) {
			snprintf(path + level->end, sizeof(path) - level->end, "%s%llu", level->end ? "." : "",
				 (unsigned long long)level->index);
			level->index++;
		}
		if (kind == TPD_JSON_OBJECT || kind == TPD_JSON_ARRAY)
			levels[depth++] = (struct level){.end = strlen(path), .array = kind == TPD_JSON_ARRAY};
		else if (kind != TPD_JSON_NULL)
			status = add_field(&reply, path, value_text(&js, kind), err);
	}
	if (status == TPD_OK)
		*out = reply;
	else
		tpd_reply_release(&reply);
	return status;
}

void tpd_reply_release(struct tpd_reply *reply)
{
	for (size_t i = 0; i < reply->count; i++) {
		free(reply->fields[i].path);
		free(reply->fields[i].value);
	}
	free(reply->fields);
	*reply = (struct tpd_reply){0};
}

const char *tpd_reply_get(const struct tpd_reply *reply, const char *fmt, ...)
{
	char path[PATH_MAX_BYTES];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(path, sizeof(path), fmt, ap);
	va_end(ap);
	for (size_t i = 0; i < reply->count; i++)
		if (!strcmp(reply->fields[i].path, path))
			return reply->fields[i].value;
	return NULL;
}

uint64_t tpd_reply_u64(const struct tpd_reply *reply, const char *path)
{
	const char *text = tpd_reply_get(reply, "%s", path);
	uint64_t v = 0;

	return text && tpd_text_parse_u64(text, &v) ? v : 0;
}

static void copy_number(struct tpd_json *js, struct tpd_json_out *out)
{
	uint64_t u;
	double v;

	if (tpd_json_u64(js, &u))
		tpd_json_put_u64(out, u);
	else if (tpd_json_f64(js, &v))
		tpd_json_put_f64(out, v);
	else
		tpd_json_put_null(out);
}

bool tpd_reply_copy(const char *json, struct tpd_json_out *out)
{
	struct tpd_json js = tpd_json_make(json, strlen(json));
	enum tpd_json_kind kind;

	while ((kind = tpd_json_next(&js)) != TPD_JSON_END) {
		TPD_AUTO_FREE char *text = NULL;

		switch (kind) {
		case TPD_JSON_OBJECT:
			tpd_json_begin_object(out);
			break;
		case TPD_JSON_OBJECT_END:
			tpd_json_end_object(out);
			break;
		case TPD_JSON_ARRAY:
			tpd_json_begin_array(out);
			break;
		case TPD_JSON_ARRAY_END:
			tpd_json_end_array(out);
			break;
		case TPD_JSON_KEY:
			text = tpd_json_string(&js);
			tpd_json_key(out, text ? text : "");
			break;
		case TPD_JSON_STRING:
			text = tpd_json_string(&js);
			tpd_json_put_string(out, text);
			break;
		case TPD_JSON_NUMBER:
			copy_number(&js, out);
			break;
		case TPD_JSON_TRUE:
		case TPD_JSON_FALSE:
			tpd_json_put_bool(out, kind == TPD_JSON_TRUE);
			break;
		case TPD_JSON_NULL:
			tpd_json_put_null(out);
			break;
		case TPD_JSON_ERROR:
		case TPD_JSON_END:
			return false;
		}
	}
	return true;
}
