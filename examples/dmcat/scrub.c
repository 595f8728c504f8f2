/* SPDX-License-Identifier: MIT */
/* The comparison of the legs of mirrors, by messages. Called by commands.c and verbs.c. */
#include "scrub.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "devices.h"
#include "live.h"
#include "words.h"

/* Longer than any answer. */
#define REPLY_BYTES 4096
/* How often it is looked whether the scrub can still end. */
#define LOOK_NS INT64_C(100000000)

/* One mirror of a device. */
struct scrub {
	struct session *session;
	struct dmcore_device *device;
	const char *name;
	uint64_t start;            /* in the device */
	char reply[REPLY_BYTES];   /* the last one, taken to pieces */
	char *runs;                /* in it: the lines that tell what differs */
	const char *state;         /* in it: idle, running or done */
	uint64_t num_compared;
	uint64_t total;
	uint64_t num_differing;
	uint64_t num_skipped;
	uint64_t num_failed;
	uint64_t num_repaired;     /* of all mirrors */
};

static enum exit_status send(struct scrub *scrub, const char *text)
{
	int64_t ret = dmcore_device_message(scrub->device, scrub->start, text, scrub->reply,
					    sizeof(scrub->reply));

	return ret < 0 ? report_library(&scrub->session->report, EXIT_IO_FAILED, (int)ret) :
			 EXIT_DONE;
}

/* The next word of a line, which must be a number. */
static bool next_number(char **rest, uint64_t *value)
{
	const char *word = words_next(rest);

	return word && words_number(word, value) == 0;
}

static enum exit_status look(struct scrub *scrub)
{
	enum exit_status status = send(scrub, "scrub status");
	char *rest = scrub->reply;
	char *first;
	char *second;

	if (status)
		return status;
	first = strsep(&rest, "\n");
	second = rest ? strsep(&rest, "\n") : NULL;
	scrub->runs = rest;
	/* Each number stands behind a word. */
	if (words_next(&first) && (scrub->state = words_next(&first)) &&
	    next_number(&first, &scrub->num_compared) && next_number(&first, &scrub->total) &&
	    next_number(&first, &scrub->num_differing) && second && words_next(&second) &&
	    next_number(&second, &scrub->num_skipped) && words_next(&second) &&
	    next_number(&second, &scrub->num_failed))
		return EXIT_DONE;
	return report_error(&scrub->session->report, EXIT_IO_FAILED, EPROTO,
			    "the answer of '%s' can't be read", scrub->name);
}

/* Waits for its end. */
static enum exit_status await(struct scrub *scrub, uint32_t event_nr)
{
	struct session *session = scrub->session;
	enum exit_status status = look(scrub);

	while (status == EXIT_DONE && strcmp(scrub->state, "running") == 0) {
		const struct dmcore_device *suspended = devices_waited_for(session);
		int ret = suspended ? 0 : dmcore_device_wait(scrub->device, &event_nr, LOOK_NS);

		if (suspended && send(scrub, "scrub stop") == EXIT_DONE)
			return report_error(&session->report, EXIT_IO_FAILED, EDEADLK,
					    "requests wait for '%s', which is suspended",
					    dmcore_device_name(suspended));
		if (ret && ret != -ETIMEDOUT)
			return report_library(&session->report, EXIT_IO_FAILED, ret);
		status = look(scrub);
	}
	if (status == EXIT_DONE && strcmp(scrub->state, "done") != 0)
		status = report_error(&session->report, EXIT_IO_FAILED, ECANCELED,
				      "the scrub of '%s' has been stopped", scrub->name);
	return status;
}

/* ---- what is printed ---- */

/* Where regions differ, up to the bound that the target has. */
static void print_runs(struct scrub *scrub, bool json)
{
	const char *separator = "";
	char *line;

	while (scrub->runs && (line = strsep(&scrub->runs, "\n"))) {
		uint64_t sector;
		uint64_t count;

		if (!json && strcmp(line, "more") == 0)
			puts("and more");
		if (!next_number(&line, &sector) || !next_number(&line, &count))
			continue;
		if (json)
			printf("%s{\"sector\":%" PRIu64 ",\"count\":%" PRIu64 "}", separator,
			       sector, count);
		else
			printf("sectors %" PRIu64 " to %" PRIu64 " differ\n", sector,
			       sector + count - 1);
		separator = ",";
	}
}

static void print(struct scrub *scrub)
{
	bool json = scrub->session->options.json;

	if (json) {
		printf("{\"compared\":%" PRIu64 ",\"regions\":%" PRIu64 ",\"differing\":%" PRIu64
		       ",\"not_in_sync\":%" PRIu64 ",\"not_readable\":%" PRIu64 ",\"runs\":[",
		       scrub->num_compared, scrub->total, scrub->num_differing,
		       scrub->num_skipped, scrub->num_failed);
	} else {
		printf("%" PRIu64 " regions compared, %" PRIu64 " differ", scrub->num_compared,
		       scrub->num_differing);
		if (scrub->num_skipped > 0)
			printf(", %" PRIu64 " not in sync", scrub->num_skipped);
		if (scrub->num_failed > 0)
			printf(", %" PRIu64 " not readable", scrub->num_failed);
		putchar('\n');
	}
	print_runs(scrub, json);
	if (json)
		puts("]}");
}

/* ---- the whole ---- */

static enum exit_status run_one(struct scrub *scrub, bool repair)
{
	struct report *report = &scrub->session->report;
	uint32_t event_nr = dmcore_device_event_nr(scrub->device);
	enum exit_status status = send(scrub, repair ? "scrub repair" : "scrub");

	if (status == EXIT_DONE)
		status = await(scrub, event_nr);
	if (status)
		return status;
	print(scrub);
	scrub->num_repaired += repair ? scrub->num_differing : 0;
	if (scrub->num_differing > 0)
		status = report_error(report, EXIT_IO_FAILED, EILSEQ, "the legs of '%s' differ",
				      scrub->name);
	else if (scrub->num_failed > 0)
		status = report_error(report, EXIT_IO_FAILED, EIO,
				      "not all legs of '%s' can be read", scrub->name);
	return status;
}

/* Each mirror that the status has a line of. */
static enum exit_status run_all(struct scrub *scrub, char *lines, bool repair)
{
	enum exit_status worst = EXIT_DONE;
	bool has_mirror = false;
	char *line;

	while ((line = strsep(&lines, "\n"))) {
		enum exit_status status;
		const char *type;
		uint64_t length;

		if (!next_number(&line, &scrub->start) || !next_number(&line, &length))
			continue;
		type = words_next(&line);
		if (!type || strcmp(type, "mirror") != 0)
			continue;
		has_mirror = true;
		status = run_one(scrub, repair);
		worst = status > worst ? status : worst;
	}
	if (!has_mirror)
		return report_error(&scrub->session->report, EXIT_BAD_USAGE, EINVAL,
				    "'%s' has no mirror", scrub->name);
	return worst;
}

enum exit_status scrub_device(struct session *session, const char *name, const char *word)
{
	char *args[] = { (char *)name };
	struct call settling = { .args = args, .num_args = 1, .timeout_ns = -1 };
	struct scrub scrub = { .session = session, .name = name };
	enum exit_status status = devices_find(session, name, &scrub.device);
	enum exit_status settle_status = EXIT_DONE;
	char *lines = NULL;

	if (word && strcmp(word, "repair") != 0)
		return report_error(&session->report, EXIT_BAD_USAGE, EINVAL,
				    "'%s' is not the word repair", word);
	if (status == EXIT_DONE)
		status = devices_check_running(session, name);
	if (status == EXIT_DONE)
		status = devices_text(session, scrub.device, DMCORE_TEXT_STATUS, 0, &lines);
	if (status)
		return status;
	status = run_all(&scrub, lines, word != NULL);
	free(lines);
	if (scrub.num_repaired > 0)
		settle_status = live_settle(session, &settling);
	return settle_status > status ? settle_status : status;
}

enum exit_status scrub_run(struct session *session, const struct call *call)
{
	return scrub_device(session, call->args[0], call->num_args > 1 ? call->args[1] : NULL);
}
