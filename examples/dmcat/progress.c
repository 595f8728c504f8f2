/* SPDX-License-Identifier: MIT */
/* A progress bar on standard error, for what takes longer than a second. */
#include "progress.h"

#include <stdio.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "words.h"

#define SECOND_NS 1000000000u
#define REDRAW_NS (SECOND_NS / 5)
#define BAR_COLUMNS_MAX 40u
/* `label`, three sizes, a time and what stands between them. */
#define TEXT_COLUMNS 64u

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * SECOND_NS + (uint64_t)now.tv_nsec;
}

void progress_begin(struct progress *progress, bool is_wanted, const char *label,
		    uint64_t total_bytes)
{
	*progress = (struct progress){
		.is_wanted = is_wanted && isatty(STDERR_FILENO),
		.label = label,
		.total_bytes = total_bytes,
	};
	if (progress->is_wanted) {
		progress->started_ns = now_ns();
		progress->next_ns = progress->started_ns + SECOND_NS;
	}
}

static unsigned int bar_columns(void)
{
	struct winsize window = { .ws_col = 0 };
	unsigned int columns = 80;

	if (ioctl(STDERR_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col > 0)
		columns = window.ws_col;
	if (columns <= TEXT_COLUMNS)
		return 0;
	columns -= TEXT_COLUMNS;
	return columns < BAR_COLUMNS_MAX ? columns : BAR_COLUMNS_MAX;
}

static void draw_bar(const struct progress *progress)
{
	unsigned int columns = bar_columns();
	unsigned int filled;

	if (columns < 4)
		return;
	filled = (unsigned int)((double)progress->done_bytes / (double)progress->total_bytes *
				columns);
	fputs(" [", stderr);
	for (unsigned int i = 0; i < columns; i++)
		fputc(i < filled ? '=' : ' ', stderr);
	fputc(']', stderr);
}

static void draw(struct progress *progress, uint64_t now)
{
	double seconds = (double)(now - progress->started_ns) / SECOND_NS;
	double rate = (double)(progress->done_bytes - progress->base_bytes) / seconds;
	char done[WORDS_SIZE_BYTES];
	char total[WORDS_SIZE_BYTES];
	char speed[WORDS_SIZE_BYTES];

	words_size(progress->done_bytes, done);
	words_size((uint64_t)rate, speed);
	fprintf(stderr, "\r\033[K%s %s", progress->label, done);
	if (progress->total_bytes) {
		uint64_t left_bytes = progress->total_bytes > progress->done_bytes ?
				      progress->total_bytes - progress->done_bytes : 0;
		uint64_t left = rate > 0 ? (uint64_t)((double)left_bytes / rate) : 0;

		words_size(progress->total_bytes, total);
		fprintf(stderr, " of %s", total);
		draw_bar(progress);
		fprintf(stderr, " %s/s %u:%02u left", speed, (unsigned int)(left / 60),
			(unsigned int)(left % 60));
	} else {
		fprintf(stderr, " %s/s", speed);
	}
	fflush(stderr);
}

void progress_add(struct progress *progress, uint64_t bytes)
{
	uint64_t now;

	progress->done_bytes += bytes;
	if (!progress->is_wanted)
		return;
	now = now_ns();
	if (now < progress->next_ns)
		return;
	draw(progress, now);
	progress->is_shown = true;
	progress->next_ns = now + REDRAW_NS;
}

void progress_end(struct progress *progress)
{
	if (!progress->is_shown)
		return;
	fputs("\r\033[K", stderr);
	fflush(stderr);
	progress->is_shown = false;
}
