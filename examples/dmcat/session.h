/* SPDX-License-Identifier: MIT */
/* One run of dmcat: the options, a core with the devices defined so far, and a queue. */
#ifndef DMCAT_SESSION_H
#define DMCAT_SESSION_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include <dmcore.h>

#include "files.h"
#include "options.h"
#include "report.h"

struct chunk;
struct job;
struct watch;

struct session {
	struct options options;
	struct report report;
	struct dmcore *core;
	struct dmcore_queue *queue;      /* NULL until the first I/O */
	struct chunk *chunks;            /* io.c's */
	const char *stdin_user;          /* what reads standard input, or NULL */
	struct job *jobs;                /* tasks.c's: what goes on in the background */
	bool is_job;                     /* this is the session of one of them */
	struct watch *watch;             /* watch.c's; NULL: nothing is watched */
	int signal;                      /* that has ended a copy, or 0 */
};

/* With options and report set. On failure, too, session_end() is to be called. */
enum exit_status session_begin(struct session *session);
enum exit_status session_end(struct session *session);

/* The queue for I/O, made when it is needed first. */
enum exit_status session_queue(struct session *session);

/* Standard input can be read once: `user` is to have it, or there is an error. */
enum exit_status session_take_stdin(struct session *session, const char *user);

/* Prints out what stdio holds back. */
enum exit_status session_flush_output(struct session *session);

#endif
