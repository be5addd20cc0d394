/* tips.c - see tips.h. */
#include "base/tpd.h"

#include "daemon/tips.h"

#include <stdlib.h>
#include <string.h>

struct tpd_tip *tpd_tip_new(const char *run, const char *path, const struct tpd_id *id, struct tpd_capture *capture)
{
	struct tpd_tip *tip = calloc(1, sizeof *tip);

	if (!tip)
		return NULL;
	tip->run = strdup(run);
	tip->path = strdup(path);
	tip->id = *id;
	if (!tip->run || !tip->path) {
		tpd_tip_free(tip);
		return NULL;
	}
	tip->capture = capture;
	return tip;
}

void tpd_tip_free(struct tpd_tip *tip)
{
	if (!tip)
		return;
	tpd_tip_free(tip->earlier);
	tpd_capture_close(tip->capture);
	free(tip->run);
	free(tip->path);
	free(tip);
}

struct tpd_tip *tpd_tip_put_behind(struct tpd_tip *tip, struct tpd_tip *earlier)
{
	struct tpd_tip *behind = earlier->earlier, *gone = behind;

	earlier->earlier = NULL;
	tpd_capture_set_held(earlier->capture, NULL, NULL);
	if (tpd_id_equal(&tip->id, &earlier->id)) /* the same once more, from another place */
		gone = earlier;
	else
		behind = earlier;
	tip->earlier = behind;
	if (behind)
		tpd_capture_set_held(tip->capture, behind->capture, &behind->id);
	return gone;
}

static size_t files_of(const struct tpd_tip *tip)
{
	return tpd_capture_source(tip->capture)->count + (tip->earlier ? files_of(tip->earlier) : 0);
}

static struct tpd_tip *unlink_at(struct tpd_tips *tips, struct tpd_tip **link)
{
	struct tpd_tip *tip = *link;

	*link = tip->next;
	tip->next = NULL;
	tips->count--;
	tips->descriptors -= files_of(tip);
	return tip;
}

struct tpd_tip *tpd_tips_take(struct tpd_tips *tips, const char *run)
{
	for (struct tpd_tip **link = &tips->first; *link; link = &(*link)->next) {
		if (strcmp((*link)->run, run) == 0)
			return unlink_at(tips, link);
	}
	return NULL;
}

struct tpd_tip *tpd_tips_take_oldest(struct tpd_tips *tips, bool (*wanted)(void *arg, const struct tpd_tip *tip), void *arg)
{
	struct tpd_tip **oldest = NULL;

	for (struct tpd_tip **link = &tips->first; *link; link = &(*link)->next) {
		if (!wanted || wanted(arg, *link))
			oldest = link;
	}
	return oldest ? unlink_at(tips, oldest) : NULL;
}

/* What is behind the least used tip that has something there. */
static struct tpd_tip *take_oldest_earlier(struct tpd_tips *tips)
{
	struct tpd_tip *oldest = NULL, *earlier;

	for (struct tpd_tip *tip = tips->first; tip; tip = tip->next)
		if (tip->earlier)
			oldest = tip;
	if (!oldest)
		return NULL;
	earlier = oldest->earlier;
	tpd_capture_set_held(oldest->capture, NULL, NULL);
	oldest->earlier = NULL;
	tips->descriptors -= files_of(earlier);
	return earlier;
}

struct tpd_tip *tpd_tips_put(struct tpd_tips *tips, struct tpd_tip *tip, size_t max_descriptors)
{
	struct tpd_tip *gone = tpd_tips_take(tips, tip->run);

	tip->next = tips->first;
	tips->first = tip;
	tips->count++;
	tips->descriptors += files_of(tip);
	while (tips->count > TPD_TIPS_MAX || tips->descriptors > max_descriptors) {
		struct tpd_tip *last = tips->count > TPD_TIPS_MAX ? NULL : take_oldest_earlier(tips);

		if (!last)
			last = tpd_tips_take_oldest(tips, NULL, NULL);

		if (!last)
			break;
		last->next = gone;
		gone = last;
	}
	return gone;
}

void tpd_tips_release(struct tpd_tips *tips)
{
	struct tpd_tip *tip;

	while ((tip = tpd_tips_take_oldest(tips, NULL, NULL)) != NULL)
		tpd_tip_free(tip);
}
