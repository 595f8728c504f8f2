/* SPDX-License-Identifier: MIT */
/* The commands of a script: their table, and those that print. The rest: live.c,
 * tasks.c, scrub.c. */
#include <stdio.h>
#include <string.h>

#include "copy.h"
#include "devices.h"
#include "json.h"
#include "live.h"
#include "script.h"
#include "scrub.h"
#include "show.h"
#include "tasks.h"

static enum exit_status show(struct session *session, const struct call *call,
			     enum dmcore_text_kind kind)
{
	unsigned int flags = call->options & CALL_INACTIVE ? DMCORE_TEXT_INACTIVE : 0;
	struct dmcore_device *device;
	enum exit_status status;

	if (call->num_args == 0)
		return show_all_texts(session, kind, flags);
	status = devices_find(session, call->args[0], &device);
	return status ? status : show_text(session, device, kind, flags);
}

static enum exit_status run_status(struct session *session, const struct call *call)
{
	return show(session, call, DMCORE_TEXT_STATUS);
}

static enum exit_status run_table(struct session *session, const struct call *call)
{
	return show(session, call, DMCORE_TEXT_TABLE);
}

static enum exit_status run_info(struct session *session, const struct call *call)
{
	return show_info(session, call->args[0]);
}

static enum exit_status run_echo(struct session *session, const struct call *call)
{
	const char *separator = "";

	if (session->options.json)
		fputs("{\"echo\":[", stdout);
	for (unsigned int i = 0; i < call->num_args; i++) {
		const char *word = call->args[i];

		fputs(separator, stdout);
		if (session->options.json)
			json_string(word, strlen(word));
		else
			fputs(word, stdout);
		separator = session->options.json ? "," : " ";
	}
	puts(session->options.json ? "]}" : "");
	return EXIT_DONE;
}

#define MANY SCRIPT_WORDS_MAX

#define TABLE_USAGE "NAME, then table lines, then end; or NAME TABLE"

static const struct verb verbs[] = {
	{ "create", 1, MANY, TABLE_USAGE, live_create, VERB_TABLE },
	{ "load", 1, MANY, TABLE_USAGE, live_load, VERB_TABLE },
	{ "clear", 1, 1, "NAME", live_clear, 0 },
	{ "suspend", 1, 1, "NAME [--noflush] [--timeout SECONDS]", live_suspend,
	  CALL_NOFLUSH | CALL_TIMEOUT },
	{ "resume", 1, 1, "NAME", live_resume, 0 },
	{ "rename", 2, 2, "NAME NEW, or NAME --setuuid UUID", live_rename, CALL_SETUUID },
	{ "remove", 1, 1, "[--deferred] NAME", live_remove, CALL_DEFERRED },
	{ "message", 3, MANY, "NAME SECTOR WORD…", live_message, 0 },
	{ "wait", 1, 2, "NAME [EVENT_NR] [--timeout SECONDS]", live_wait, CALL_TIMEOUT },
	{ "settle", 1, 1, "NAME [--timeout SECONDS]", live_settle, CALL_TIMEOUT },
	{ "scrub", 1, 2, "NAME [repair]", scrub_run, 0 },
	{ "write", 4, 5, "DEV SECTOR COUNT FILE [SKIP]", tasks_write, VERB_IO },
	{ "read", 4, 4, "DEV SECTOR COUNT FILE", tasks_read, VERB_IO },
	{ "flush", 1, 1, "DEV", tasks_flush, VERB_IO },
	{ "discard", 3, 3, "DEV SECTOR COUNT", tasks_discard, VERB_IO },
	{ "zero", 3, 3, "DEV SECTOR COUNT", tasks_zero, VERB_IO },
	{ "join", 0, 0, "", tasks_join, 0 },
	{ "status", 0, 1, "[--inactive] [NAME]", run_status, CALL_INACTIVE },
	{ "table", 0, 1, "[--inactive] [NAME]", run_table, CALL_INACTIVE },
	{ "info", 1, 1, "DEV", run_info, 0 },
	{ "copy", 2, COPY_WORDS_MAX, "[OPTIONS] SRC DEST…, or SRC SECTOR COUNT DEST SECTOR…",
	  tasks_copy, VERB_IO | VERB_COPY },
	{ "echo", 0, MANY, "TEXT", run_echo, 0 },
};

const struct verb *verbs_find(const char *name)
{
	for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++) {
		if (strcmp(verbs[i].name, name) == 0)
			return &verbs[i];
	}
	return NULL;
}
