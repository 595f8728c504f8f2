/* SPDX-License-Identifier: MIT */
/*
 * Error messages, and what the program will end with. Every function of dmcat that can fail returns
 * an exit status and has said why by then.
 */
#ifndef DMCAT_REPORT_H
#define DMCAT_REPORT_H

#include <stdbool.h>

enum exit_status {
	EXIT_DONE = 0,
	EXIT_IO_FAILED = 1,
	EXIT_BAD_USAGE = 2, /* or a bad table */
};

/* What is being done, and what asked for it. */
struct report {
	const char *file;     /* a script or table, or NULL: the command line */
	unsigned long line;   /* of file */
	const char *command;  /* or NULL */
	enum exit_status worst;
};

/*
 * Prints `FILE:LINE: COMMAND: message (ENAME)` and returns `status`. error: an errno of either
 * sign, or 0 for a message without a name.
 */
__attribute__((format(printf, 4, 5)))
enum exit_status report_error(struct report *report, enum exit_status status, int error,
			      const char *format, ...);

/* The same, with the library's own message for its last control call, that failed. */
enum exit_status report_library(struct report *report, enum exit_status status, int error);

/*
 * The same for a table. The library counts the lines of the table; if it names one, and `file` is
 * where the table stands, behind `lines_before` others, the message names the place in the file.
 */
enum exit_status report_table(struct report *report, int error, const char *file,
			      unsigned long lines_before);

/* Prints `dmcat: KIND: message`; changes nothing else. */
void report_note(const char *kind, const char *message);

#endif
