/* SPDX-License-Identifier: MIT */
/* The options of copy, on the command line and in scripts. */
#ifndef DMCAT_COPY_OPTIONS_H
#define DMCAT_COPY_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "report.h"

struct copy_options {
	uint64_t rate_bytes; /* a second; 0: as fast as it goes */
	int64_t save_ns;     /* from one saving of the state to the next; 0: the default */
	const char *resume;  /* file of the state, or NULL */
	bool sparse;
	bool share;
	bool verify;
	bool no_flush;
	bool ignore_errors;
	bool grow;
	const char *given;   /* one of the options above, or NULL */
};

/* What a script's option says of its value. */
enum copy_option_kind {
	COPY_OPTION_UNKNOWN,
	COPY_OPTION_PLAIN,
	COPY_OPTION_VALUE, /* a value follows */
};

/* `name` is without the dashes in front. */
enum copy_option_kind copy_options_find(const char *name);

/* Sets an option that copy_options_find() knows. The strings stay the caller's. */
enum exit_status copy_options_set(struct copy_options *options, struct report *report,
				  const char *name, const char *value);

/* Refuses what doesn't go together. */
enum exit_status copy_options_check(const struct copy_options *options, struct report *report);

#endif
