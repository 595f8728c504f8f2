/* SPDX-License-Identifier: MIT */
/* One run of dmcat: a core, a queue, and the mapped devices defined so far. */
#include "session.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io.h"

static void log_message(enum dmcore_log_level level, const char *message, void *context)
{
	const struct session *session = context;

	if (level <= DMCORE_LOG_WARNING && !session->options.quiet)
		report_note("warning", message);
}

enum exit_status session_begin(struct session *session)
{
	struct dmcore_options options = DMCORE_OPTIONS_INIT;
	int ret;

	options.backend = session->options.backend;
	options.bdevs_max = DMCORE_BDEVS_MAX;
	options.log = log_message;
	options.log_context = session;
	ret = dmcore_create(&options, &session->core);
	if (ret)
		return report_library(&session->report, EXIT_BAD_USAGE, ret);
	return EXIT_DONE;
}

enum exit_status session_queue(struct session *session)
{
	struct dmcore_queue_options options = DMCORE_QUEUE_OPTIONS_INIT;
	int ret;

	if (session->queue)
		return EXIT_DONE;
	options.backend = session->options.backend;
	options.workers = session->options.workers;
	ret = dmcore_queue_create(session->core, &options, &session->queue);
	if (ret)
		return report_library(&session->report, EXIT_BAD_USAGE, ret);
	return EXIT_DONE;
}

enum exit_status session_take_stdin(struct session *session, const char *user)
{
	if (session->stdin_user)
		return report_error(&session->report, EXIT_BAD_USAGE, EINVAL,
				    "standard input is taken by %s already", session->stdin_user);
	session->stdin_user = user;
	return EXIT_DONE;
}

enum exit_status session_flush_output(struct session *session)
{
	int error;

	errno = 0;
	if (fflush(stdout) == 0 && !ferror(stdout))
		return EXIT_DONE;
	error = errno ? errno : EIO;
	/* Once is enough. */
	clearerr(stdout);
	return report_error(&session->report, EXIT_IO_FAILED, error, "standard output: %s",
			    strerror(error));
}

enum exit_status session_end(struct session *session)
{
	enum exit_status status = session_flush_output(session);
	int ret;

	ret = dmcore_queue_destroy(session->queue);
	if (ret == 0)
		ret = dmcore_destroy(session->core);
	if (ret)
		status = report_library(&session->report, EXIT_IO_FAILED, ret);
	else
		io_free_chunks(session);
	return status;
}
