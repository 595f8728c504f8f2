/* SPDX-License-Identifier: MIT */
/*
 * --watch: what mapped devices do, a line an interval on standard error. A thread prints what the
 * library counts in two regions: one that covers a device whatever its table, and one with an area
 * for each target. Devices are added and dropped by the thread that makes and removes them, so that
 * all that are listed exist.
 */
#include "watch.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "devices.h"
#include "json.h"
#include "words.h"

#define SECOND_NS UINT64_C(1000000000)
/* The headings come again after so many lines. */
#define LINES_PER_HEADINGS 24u
/* As in iostat. */
#define MB_SECTORS 2048.0

/* A target of a device. */
struct part {
	uint64_t start_sector;
	char type[DMCORE_TYPE_NAME_MAX + 1];
	struct dmcore_stats_area before;
};

struct watched {
	struct watched *next;
	struct dmcore_device *device;
	int whole;              /* region of the device */
	int by_target;          /* region of its targets, or -1 if there is one target */
	struct dmcore_stats_area before;
	struct part *parts;
	unsigned int num_parts;
	char *table;            /* text that parts have been made from */
	uint64_t since_ns;      /* when `before` was read */
	bool is_printed;        /* ever */
};

struct watch {
	pthread_t thread;
	pthread_mutex_t lock;   /* of all below, and of the devices listed */
	pthread_cond_t wake;
	struct watched *first;
	uint64_t interval_ns;
	uint64_t started_ns;
	unsigned int num_lines; /* since the headings */
	bool as_json;
	bool is_over;
};

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * SECOND_NS + (uint64_t)now.tv_nsec;
}

/* ---- lines ---- */

/* What one line says. */
struct line {
	const char *device;
	const struct part *part; /* NULL: all of the device */
	double time;             /* seconds since the beginning */
	double interval;         /* seconds */
	struct dmcore_stats_area since; /* what has been counted; in_flight: now */
};

static double mean_ms(uint64_t sum_ns, uint64_t count)
{
	return count ? (double)sum_ns / (double)count / 1e6 : 0;
}

static double busy_percent(const struct line *line)
{
	double percent = (double)line->since.busy_ns / (line->interval * 1e7);

	return percent < 100 ? percent : 100;
}

static void print_text(FILE *out, struct watch *watch, const struct line *line)
{
	const struct dmcore_stats_area *since = &line->since;
	char label[32 + DMCORE_TYPE_NAME_MAX];

	if (watch->num_lines++ % LINES_PER_HEADINGS == 0)
		fprintf(out, "%8s %-20s %9s %8s %9s %8s %8s %8s %8s %6s\n", "time", "device",
			"r/s", "rMB/s", "w/s", "wMB/s", "inflight", "r_await", "w_await", "%util");
	if (line->part)
		snprintf(label, sizeof(label), "  %" PRIu64 " %s", line->part->start_sector,
			 line->part->type);
	fprintf(out, "%8.2f %-20s %9.1f %8.2f %9.1f %8.2f %8" PRIu64 " %8.3f %8.3f %6.1f\n",
		line->time, line->part ? label : line->device,
		(double)since->reads / line->interval,
		(double)since->read_sectors / MB_SECTORS / line->interval,
		(double)since->writes / line->interval,
		(double)since->write_sectors / MB_SECTORS / line->interval, since->in_flight,
		mean_ms(since->read_ns, since->reads), mean_ms(since->write_ns, since->writes),
		busy_percent(line));
}

static void print_json(FILE *out, const struct line *line)
{
	const struct dmcore_stats_area *since = &line->since;

	fputs("{\"device\":", out);
	json_string_to(out, line->device, strlen(line->device));
	if (line->part) {
		fprintf(out, ",\"start\":%" PRIu64 ",\"type\":", line->part->start_sector);
		json_string_to(out, line->part->type, strlen(line->part->type));
	}
	fprintf(out,
		",\"time\":%.3f,\"interval\":%.6f,\"reads\":%" PRIu64 ",\"read_sectors\":%" PRIu64
		",\"read_ns\":%" PRIu64 ",\"writes\":%" PRIu64 ",\"write_sectors\":%" PRIu64
		",\"write_ns\":%" PRIu64 ",\"in_flight\":%" PRIu64 ",\"busy_ns\":%" PRIu64 "}\n",
		line->time, line->interval, since->reads, since->read_sectors, since->read_ns,
		since->writes, since->write_sectors, since->write_ns, since->in_flight,
		since->busy_ns);
}

static void print_line(FILE *out, struct watch *watch, const struct line *line)
{
	if (watch->as_json)
		print_json(out, line);
	else
		print_text(out, watch, line);
}

/* What has been counted between two readings. */
static struct dmcore_stats_area difference(const struct dmcore_stats_area *now,
					   const struct dmcore_stats_area *before)
{
	return (struct dmcore_stats_area){
		.reads = now->reads - before->reads,
		.read_sectors = now->read_sectors - before->read_sectors,
		.read_ns = now->read_ns - before->read_ns,
		.writes = now->writes - before->writes,
		.write_sectors = now->write_sectors - before->write_sectors,
		.write_ns = now->write_ns - before->write_ns,
		.in_flight = now->in_flight,
		.busy_ns = now->busy_ns - before->busy_ns,
	};
}

static bool is_idle(const struct dmcore_stats_area *since)
{
	return since->reads == 0 && since->writes == 0 && since->in_flight == 0;
}

/* Reads an area, and says what has come since it was read before. */
static bool read_area(const struct watched *watched, int region, uint64_t index,
		      struct dmcore_stats_area *before, struct dmcore_stats_area *since)
{
	struct dmcore_stats_area now = { 0 };

	if (dmcore_stats_read(watched->device, region, index, 1, &now, sizeof(now), NULL) < 1)
		return false;
	*since = difference(&now, before);
	*before = now;
	return true;
}

/* A line for a device, and one for each target that has been at work. */
static void print_watched(FILE *out, struct watch *watch, struct watched *watched, bool even_idle)
{
	struct dmcore_device_info info = { .struct_size = sizeof(info) };
	uint64_t now = now_ns();
	struct line line = {
		.device = info.name,
		.time = (double)(now - watch->started_ns) / 1e9,
		.interval = (double)(now - watched->since_ns + 1) / 1e9,
	};

	if (dmcore_device_info(watched->device, &info) ||
	    !read_area(watched, watched->whole, 0, &watched->before, &line.since))
		return;
	watched->since_ns = now;
	if (is_idle(&line.since) && !even_idle)
		return;
	watched->is_printed = true;
	print_line(out, watch, &line);
	for (unsigned int i = 0; watched->by_target >= 0 && i < watched->num_parts; i++) {
		line.part = &watched->parts[i];
		if (read_area(watched, watched->by_target, i, &watched->parts[i].before,
			      &line.since) && !is_idle(&line.since))
			print_line(out, watch, &line);
	}
}

/*
 * Lines for a device, or for all of them, in one piece, so that they don't mix with messages. Of
 * those that have done nothing, only if even_idle, or if they were never shown before the end.
 */
static void print_now(struct watch *watch, struct watched *only, bool even_idle)
{
	char *text = NULL;
	size_t bytes = 0;
	FILE *out = open_memstream(&text, &bytes);

	if (!out)
		return;
	for (struct watched *watched = watch->first; watched; watched = watched->next) {
		if (!only || watched == only)
			print_watched(out, watch, watched,
				      even_idle || (!only && !watched->is_printed));
	}
	if (fclose(out) == 0)
		fwrite(text, 1, bytes, stderr);
	free(text);
}

/* ---- devices ---- */

static struct watched **find(struct watch *watch, const struct dmcore_device *device)
{
	struct watched **at = &watch->first;

	while (*at && (*at)->device != device)
		at = &(*at)->next;
	return at;
}

/* Learns starts and types from a table's text. */
static bool learn_parts(struct watched *watched)
{
	char *rest = strdup(watched->table);
	char *text = rest;
	char *line;

	free(watched->parts);
	watched->num_parts = 0;
	watched->parts = calloc(strlen(watched->table) / 8 + 1, sizeof(*watched->parts));
	while (text && watched->parts && (line = strsep(&rest, "\n")) && *line) {
		struct part *part = &watched->parts[watched->num_parts];
		const char *start = words_next(&line);
		const char *length = words_next(&line);
		const char *type = words_next(&line);

		if (!length || !type || words_number(start, &part->start_sector))
			break;
		snprintf(part->type, sizeof(part->type), "%s", type);
		watched->num_parts++;
	}
	free(text);
	return text && watched->parts;
}

/* Counts by target from now on, if there are several and they aren't counted yet. */
static int count_targets(struct session *session, struct watched *watched)
{
	struct dmcore_stats_options options = DMCORE_STATS_OPTIONS_INIT;
	char *table;

	if (devices_text(session, watched->device, DMCORE_TEXT_TABLE, 0, &table))
		return 0;
	if (watched->table && strcmp(table, watched->table) == 0) {
		free(table);
		return 0;
	}
	free(watched->table);
	watched->table = table;
	if (watched->by_target >= 0)
		dmcore_stats_delete(watched->device, watched->by_target);
	watched->by_target = -1;
	if (!learn_parts(watched) || watched->num_parts < 2)
		return 0;
	options.program = "dmcat";
	options.flags = DMCORE_STATS_PRECISE | DMCORE_STATS_BY_TARGET;
	watched->by_target = dmcore_stats_create(watched->device, &options);
	return watched->by_target < 0 ? watched->by_target : 0;
}

static void free_watched(struct watched *watched)
{
	free(watched->table);
	free(watched->parts);
	free(watched);
}

static int count_device(struct session *session, struct watched *watched)
{
	struct dmcore_stats_options options = DMCORE_STATS_OPTIONS_INIT;
	int ret;

	options.program = "dmcat";
	options.flags = DMCORE_STATS_PRECISE;
	/* It may grow. */
	options.length_sectors = DMCORE_DEVICE_SECTORS_MAX;
	watched->by_target = -1;
	watched->whole = dmcore_stats_create(watched->device, &options);
	if (watched->whole < 0)
		return watched->whole;
	ret = count_targets(session, watched);
	if (ret)
		dmcore_stats_delete(watched->device, watched->whole);
	return ret;
}

void watch_add(struct session *session, struct dmcore_device *device)
{
	struct watch *watch = session->watch;
	struct watched *watched;
	struct watched **at;

	if (!watch)
		return;
	watched = calloc(1, sizeof(*watched));
	if (!watched)
		return;
	pthread_mutex_lock(&watch->lock);
	at = find(watch, device);
	watched->device = device;
	watched->since_ns = now_ns();
	if (!*at && count_device(session, watched) == 0) {
		*at = watched;
	} else {
		if (!*at)
			report_note("warning", dmcore_error_message());
		free_watched(watched);
	}
	pthread_mutex_unlock(&watch->lock);
}

void watch_renew(struct session *session, struct dmcore_device *device)
{
	struct watch *watch = session->watch;
	struct watched *watched;

	if (!watch)
		return;
	pthread_mutex_lock(&watch->lock);
	watched = *find(watch, device);
	if (watched) {
		print_now(watch, watched, false);
		if (count_targets(session, watched))
			report_note("warning", dmcore_error_message());
	}
	pthread_mutex_unlock(&watch->lock);
}

void watch_drop(struct session *session, struct dmcore_device *device)
{
	struct watch *watch = session->watch;
	struct watched **at;

	if (!watch)
		return;
	pthread_mutex_lock(&watch->lock);
	at = find(watch, device);
	if (*at) {
		struct watched *watched = *at;

		print_now(watch, watched, false);
		*at = watched->next;
		dmcore_stats_delete(device, watched->whole);
		if (watched->by_target >= 0)
			dmcore_stats_delete(device, watched->by_target);
		free_watched(watched);
	}
	pthread_mutex_unlock(&watch->lock);
}

/* ---- the thread ---- */

static void *run_watch(void *context)
{
	struct watch *watch = context;
	uint64_t next_ns = watch->started_ns + watch->interval_ns;

	pthread_mutex_lock(&watch->lock);
	while (!watch->is_over) {
		struct timespec until = {
			.tv_sec = (time_t)(next_ns / SECOND_NS),
			.tv_nsec = (long)(next_ns % SECOND_NS),
		};

		pthread_cond_timedwait(&watch->wake, &watch->lock, &until);
		if (watch->is_over || now_ns() < next_ns)
			continue;
		print_now(watch, NULL, true);
		while (next_ns <= now_ns())
			next_ns += watch->interval_ns;
	}
	pthread_mutex_unlock(&watch->lock);
	return NULL;
}

enum exit_status watch_begin(struct session *session)
{
	pthread_condattr_t attributes;
	struct watch *watch;
	int error;

	if (!session->options.watch_ns)
		return EXIT_DONE;
	watch = calloc(1, sizeof(*watch));
	if (!watch)
		return report_error(&session->report, EXIT_IO_FAILED, ENOMEM, "no memory");
	watch->interval_ns = (uint64_t)session->options.watch_ns;
	watch->started_ns = now_ns();
	watch->as_json = session->options.json;
	pthread_mutex_init(&watch->lock, NULL);
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&watch->wake, &attributes);
	pthread_condattr_destroy(&attributes);
	error = pthread_create(&watch->thread, NULL, run_watch, watch);
	if (error) {
		free(watch);
		return report_error(&session->report, EXIT_IO_FAILED, error, "--watch: %s",
				    strerror(error));
	}
	session->watch = watch;
	return EXIT_DONE;
}

void watch_end(struct session *session)
{
	struct watch *watch = session->watch;

	if (!watch)
		return;
	pthread_mutex_lock(&watch->lock);
	watch->is_over = true;
	print_now(watch, NULL, false);
	pthread_cond_signal(&watch->wake);
	pthread_mutex_unlock(&watch->lock);
	pthread_join(watch->thread, NULL);
	while (watch->first) {
		struct watched *watched = watch->first;

		watch->first = watched->next;
		free_watched(watched);
	}
	pthread_cond_destroy(&watch->wake);
	pthread_mutex_destroy(&watch->lock);
	free(watch);
	session->watch = NULL;
}
