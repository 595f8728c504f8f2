/* SPDX-License-Identifier: MIT */
/*
 * dmcat: mapped devices for the command line, and the library's largest example. It uses nothing
 * but the public interface.
 *
 *	main.c      this: from the arguments to the exit status
 *	options.c   the command line
 *	session.c   a core, a queue, and what is open
 *	devices.c   mapped devices: defined, found, removed
 *	commands.c  read, write, status …
 *	script.c    reads a script; verbs.c, live.c and tasks.c carry its lines out
 *	io.c        ranges of a device to and from files
 *	show.c      what status, table and targets print; info.c: what info prints
 *	replay.c    logs of log-writes: listed and replayed
 *	cow.c       COW devices: cow_read.c reads them, cow_check.c finds what is wrong
 *	background.c  what a status says of work under way
 *	watch.c     what --watch prints
 *	copy.c      copies; copy_open.c, copy_options.c, copy_report.c, copy_state.c: its parts
 *	progress.c, report.c, json.c, files.c, words.c: the rest
 */
#include <errno.h>
#include <signal.h>

#include "commands.h"
#include "devices.h"
#include "watch.h"

static enum exit_status run(struct session *session)
{
	enum exit_status status = commands_check(session);

	if (status)
		return status;
	status = session_begin(session);
	if (status)
		return status;
	status = watch_begin(session);
	if (status == EXIT_DONE)
		status = devices_define(session);
	if (status == EXIT_DONE)
		commands_run(session);
	watch_end(session);
	session_end(session);
	return session->report.worst;
}

int main(int argc, char **argv)
{
	struct session session = { .core = NULL };
	enum exit_status status;

	if (files_guard_standard())
		return EXIT_IO_FAILED;
	/* Who reads our output may stop when he likes: that's an error of a write, not death. */
	signal(SIGPIPE, SIG_IGN);
	status = options_parse(&session.options, &session.report, argc, argv);
	if (status == EXIT_DONE && session.options.help) {
		options_print_help();
		status = session_flush_output(&session);
	} else if (status == EXIT_DONE && session.options.version) {
		options_print_version();
		status = session_flush_output(&session);
	} else if (status == EXIT_DONE) {
		status = run(&session);
	}
	options_free(&session.options);
	/* So that a shell sees that it was a signal, and ends what dmcat is a part of. */
	if (session.signal) {
		signal(session.signal, SIG_DFL);
		raise(session.signal);
	}
	return (int)status;
}
