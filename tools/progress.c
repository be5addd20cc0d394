/*
 * progress.c - the progress line on a terminal.
 *
 *     demo@120  [===========>            ]  48 %  12.3 MB of 25.6 MB  45.1 MB/s  0:07 left
 *
 * What does not fit the terminal's width is left out, the least useful first; the width is asked for at every
 * redraw, which is cheaper than a signal handler that gets it right. The rate is smoothed over a few seconds, so
 * that it can be read; the time left uses it too, since the share of work that remains is what the rate is counted
 * in.
 */
#include "base/tpd.h"

#include "tools/tools.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define REDRAW_SECONDS 0.1
#define QUIET_SECONDS 0.3 /* what is done by then never shows a line */
#define SMOOTH_SECONDS 3.0
#define LINE_MAX_COLUMNS 100
#define BAR_MIN 10
#define BAR_MAX 40

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

/* In the background a line would be drawn over what the shell writes. */
static bool in_foreground(void)
{
	pid_t group = tcgetpgrp(STDERR_FILENO);

	return group < 0 || group == getpgrp();
}

static void draw_bar(double share, unsigned columns, char *out)
{
	unsigned filled = (unsigned)(share * (double)columns);

	for (unsigned i = 0; i < columns; i++)
		out[i] = i < filled ? '=' : i == filled ? '>' : ' ';
	out[columns] = 0;
}

static void draw(const struct tpd_bar *bar, double done, double size)
{
	double share = size > 0 ? TPD_MIN(done / size, 1) : 1;
	char a[TPD_TEXT_SIZE], b[TPD_TEXT_SIZE], c[TPD_TEXT_SIZE], d[TPD_TEXT_SIZE];
	char part[4][64], strip[BAR_MAX + 1] = "";
	unsigned width = TPD_MIN(tpd_terminal_width(STDERR_FILENO), LINE_MAX_COLUMNS), parts = 4;
	size_t label = tpd_text_width(bar->label), need;

	snprintf(part[0], sizeof(part[0]), "%3u %%", (unsigned)(share * 100));
	snprintf(part[1], sizeof(part[1]), "%s of %s", tpd_text_bytes((uint64_t)done, a),
		 tpd_text_bytes((uint64_t)size, b));
	snprintf(part[2], sizeof(part[2]), "%s/s", tpd_text_bytes((uint64_t)bar->rate, c));
	snprintf(part[3], sizeof(part[3]), "%s left",
		 bar->rate > 0 ? tpd_text_duration(ceil((size - done) / bar->rate), d) : "-:--");
	if (width == 0 || !in_foreground())
		return;
	for (;; parts--) {
		need = label;
		for (unsigned i = 0; i < parts; i++)
			need += 2 + strlen(part[i]);
		if (need < width || parts == 1)
			break;
	}
	if (need >= width) { /* a name longer than the terminal is wide: only the share */
		fprintf(stderr, "\r\033[K%s", part[0]);
		return;
	}
	if (width - need > 4 + BAR_MIN)
		draw_bar(share, TPD_MIN(BAR_MAX, width - (unsigned)need - 5), strip);
	fprintf(stderr, "\r\033[K%s%s%s%s", bar->label, *strip ? "  [" : "", strip, *strip ? "]" : "");
	for (unsigned i = 0; i < parts; i++)
		fprintf(stderr, "  %s", part[i]);
}

static void update_rate(struct tpd_bar *bar, double time, double done)
{
	double passed = time - bar->last_rate, rate;

	if (passed <= 0)
		return;
	rate = (done - bar->rate_done) / passed;
	/* The mean since the start for some seconds, then a decaying one. */
	bar->rate += (rate - bar->rate) * fmax(passed / (time - bar->start), 1 - exp(-passed / SMOOTH_SECONDS));
	bar->last_rate = time;
	bar->rate_done = done;
}

static void update(void *arg, uint64_t done, uint64_t total)
{
	struct tpd_bar *bar = arg;
	double time = now(), size, shown;

	if (pthread_mutex_trylock(&bar->lock))
		return; /* another thread is drawing */
	if (time - bar->start >= QUIET_SECONDS && time - bar->last_draw >= REDRAW_SECONDS) {
		size = (double)(bar->size ? bar->size : total);
		shown = total ? size * ((double)done / (double)total) : 0;
		update_rate(bar, time, shown);
		draw(bar, shown, size);
		fflush(stderr);
		bar->last_draw = time;
		bar->drawn = true;
	}
	pthread_mutex_unlock(&bar->lock);
}

struct tpd_progress tpd_bar_start(struct tpd_bar *bar, const struct tpd_ctl *ctl, const char *label, uint64_t size)
{
	const char *terminal = getenv("TERM");
	double time = now();

	*bar = (struct tpd_bar){.label = label, .size = size, .start = time, .last_rate = time};
	pthread_mutex_init(&bar->lock, NULL);
	bar->on = !ctl->quiet && !ctl->json && isatty(STDERR_FILENO) && terminal && strcmp(terminal, "dumb") != 0;
	return (struct tpd_progress){
		.fn = bar->on ? update : NULL,
		.arg = bar,
		.cancel = tpd_ctl_cancellable(),
	};
}

void tpd_bar_finish(struct tpd_bar *bar)
{
	if (bar->drawn) {
		fputs("\r\033[K", stderr);
		fflush(stderr);
	}
	pthread_mutex_destroy(&bar->lock);
}
