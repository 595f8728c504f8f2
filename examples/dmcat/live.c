/* SPDX-License-Identifier: MIT */
/* The commands of a script that change a mapped device, or wait for it. */
#include "live.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "background.h"
#include "commands.h"
#include "devices.h"
#include "json.h"
#include "words.h"

/* Most of the answer to a message that is printed. */
#define REPLY_BYTES_MAX (1u << 20)

/* What a control call of the library has returned. */
static enum exit_status outcome(struct session *session, int ret)
{
	return ret ? report_library(&session->report, EXIT_IO_FAILED, ret) : EXIT_DONE;
}

enum exit_status live_create(struct session *session, const struct call *call)
{
	return devices_create(session, call->args[0], call->table, session->report.file,
			      call->lines_before);
}

enum exit_status live_load(struct session *session, const struct call *call)
{
	struct dmcore_device *device;
	enum exit_status status = devices_find(session, call->args[0], &device);

	return status ? status : devices_load(session, device, call->table, session->report.file,
					      call->lines_before);
}

enum exit_status live_clear(struct session *session, const struct call *call)
{
	struct dmcore_device *device;
	enum exit_status status = devices_find(session, call->args[0], &device);

	return status ? status : outcome(session, dmcore_device_clear(device));
}

enum exit_status live_suspend(struct session *session, const struct call *call)
{
	unsigned int flags = call->options & CALL_NOFLUSH ? DMCORE_SUSPEND_NOFLUSH : 0;
	struct dmcore_device *device;
	enum exit_status status = devices_find(session, call->args[0], &device);

	return status ? status :
	       outcome(session, dmcore_device_suspend(device, flags, call->timeout_ns));
}

enum exit_status live_resume(struct session *session, const struct call *call)
{
	struct dmcore_device *device;
	enum exit_status status = devices_find(session, call->args[0], &device);

	return status ? status : devices_resume(session, device);
}

enum exit_status live_rename(struct session *session, const struct call *call)
{
	struct dmcore_device *device;
	enum exit_status status = devices_find(session, call->args[0], &device);
	int ret;

	if (status)
		return status;
	if (call->options & CALL_SETUUID)
		ret = dmcore_device_set_uuid(device, call->args[1]);
	else
		ret = dmcore_device_rename(device, call->args[1]);
	return outcome(session, ret);
}

enum exit_status live_remove(struct session *session, const struct call *call)
{
	return devices_remove(session, call->args[0], call->options & CALL_DEFERRED);
}

/* ---- messages ---- */

/* An answer may have several lines, and the last of them no end. */
static void print_reply(const struct session *session, const char *reply)
{
	size_t bytes = strlen(reply);

	if (session->options.json) {
		fputs("{\"reply\":", stdout);
		json_string(reply, bytes);
		puts("}");
	} else if (bytes > 0) {
		fputs(reply, stdout);
		if (reply[bytes - 1] != '\n')
			putchar('\n');
	}
}

static enum exit_status send_message(struct session *session, struct dmcore_device *device,
				     uint64_t sector, const char *text)
{
	char *reply = calloc(1, REPLY_BYTES_MAX);
	enum exit_status status = EXIT_DONE;
	int64_t ret;

	if (!reply)
		return report_error(&session->report, EXIT_IO_FAILED, ENOMEM, "no memory");
	ret = dmcore_device_message(device, sector, text, reply, REPLY_BYTES_MAX);
	if (ret < 0) {
		status = outcome(session, (int)ret);
	} else {
		print_reply(session, reply);
		if (ret >= REPLY_BYTES_MAX)
			report_note("warning", "the answer is cut off");
	}
	free(reply);
	return status;
}

enum exit_status live_message(struct session *session, const struct call *call)
{
	struct dmcore_device *device;
	enum exit_status status = devices_find(session, call->args[0], &device);
	uint64_t sector;
	char *text;

	if (status == EXIT_DONE)
		status = commands_number(session, call->args[1], &sector);
	if (status)
		return status;
	text = words_join(call->args + 2, call->num_args - 2);
	if (!text)
		return report_error(&session->report, EXIT_IO_FAILED, ENOMEM, "no memory");
	status = send_message(session, device, sector, text);
	free(text);
	return status;
}

/* ---- events ---- */

enum exit_status live_wait(struct session *session, const struct call *call)
{
	struct dmcore_device *device;
	enum exit_status status = devices_find(session, call->args[0], &device);
	uint64_t known = 0;
	uint32_t event_nr;
	int ret;

	if (status)
		return status;
	event_nr = dmcore_device_event_nr(device);
	if (call->num_args > 1) {
		ret = words_number(call->args[1], &known);
		if (ret || known > UINT32_MAX)
			return report_error(&session->report, EXIT_BAD_USAGE, ret ? ret : ERANGE,
					    "'%s' is not the number of an event", call->args[1]);
		event_nr = (uint32_t)known;
	}
	ret = dmcore_device_wait(device, &event_nr, call->timeout_ns);
	if (ret)
		return outcome(session, ret);
	printf(session->options.json ? "{\"event_nr\":%" PRIu32 "}\n" : "%" PRIu32 "\n", event_nr);
	return EXIT_DONE;
}

/* ---- work in the background ---- */

/* How long no event is waited for before the status is read again: a merge raises none. */
#define LOOK_NS INT64_C(10000000)
/* How long what fails may go on without getting anywhere: it pauses for seconds between tries. */
#define FAILING_NS UINT64_C(30000000000)

/* Reads what the status says of all targets. *why: the line that says so, for free(). */
static enum exit_status read_work(struct session *session, struct dmcore_device *device,
				  enum background *work, char **why)
{
	enum exit_status status;
	char *text;
	char *rest;
	char *line;

	*work = BACKGROUND_NONE;
	*why = NULL;
	status = devices_text(session, device, DMCORE_TEXT_STATUS, 0, &text);
	rest = text;
	while (status == EXIT_DONE && (line = strsep(&rest, "\n"))) {
		enum background of_target = background_of_line(line);

		if (of_target > *work) {
			free(*why);
			*why = strdup(line);
			*work = of_target;
		}
	}
	free(text);
	return status;
}

/* The rest of the time until then, or LOOK_NS if that is shorter. Negative: no end. */
static int64_t next_look(int64_t timeout_ns, uint64_t waited_ns)
{
	if (timeout_ns < 0 || (uint64_t)timeout_ns > waited_ns + LOOK_NS)
		return LOOK_NS;
	return (uint64_t)timeout_ns > waited_ns ? timeout_ns - (int64_t)waited_ns : 0;
}

/* What has been seen of work that fails. */
struct failing {
	char *line;
	uint64_t since_ns; /* when it began to say so */
};

/* Whether work goes on: what fails does as long as it says something else now and then. */
static bool goes_on(struct failing *failing, enum background work, const char *line,
		    uint64_t now_ns)
{
	if (work != BACKGROUND_FAILING)
		return work == BACKGROUND_UNDER_WAY;
	if (!failing->line || !line || strcmp(failing->line, line) != 0) {
		free(failing->line);
		failing->line = line ? strdup(line) : NULL;
		failing->since_ns = now_ns;
	}
	return now_ns - failing->since_ns < FAILING_NS;
}

enum exit_status live_settle(struct session *session, const struct call *call)
{
	uint64_t begun_ns = dmcore_clock_ns(session->core);
	struct dmcore_device *device;
	enum exit_status status = devices_find(session, call->args[0], &device);
	enum background work = BACKGROUND_UNDER_WAY;
	struct failing failing = { NULL, 0 };
	bool is_on = true;
	bool is_over = false;
	uint32_t event_nr;
	char *why = NULL;
	int ret = 0;

	if (status == EXIT_DONE)
		status = devices_check_running(session, call->args[0]);
	if (status)
		return status;
	event_nr = dmcore_device_event_nr(device);
	while (status == EXIT_DONE && is_on && !is_over) {
		uint64_t waited_ns = dmcore_clock_ns(session->core) - begun_ns;

		free(why);
		is_over = call->timeout_ns >= 0 && waited_ns >= (uint64_t)call->timeout_ns;
		status = read_work(session, device, &work, &why);
		is_on = goes_on(&failing, work, why, waited_ns);
		if (status == EXIT_DONE && is_on && !is_over)
			ret = dmcore_device_wait(device, &event_nr,
						 next_look(call->timeout_ns, waited_ns));
		if (ret && ret != -ETIMEDOUT)
			status = outcome(session, ret);
	}
	if (status == EXIT_DONE && !is_on && work != BACKGROUND_NONE)
		status = report_error(&session->report, EXIT_IO_FAILED, EIO,
				      "'%s' won't end its work: %s", call->args[0],
				      why ? why : "");
	else if (status == EXIT_DONE && is_on)
		status = report_error(&session->report, EXIT_IO_FAILED, ETIMEDOUT,
				      "'%s' hasn't ended its work: %s", call->args[0],
				      why ? why : "");
	free(failing.line);
	free(why);
	return status;
}
