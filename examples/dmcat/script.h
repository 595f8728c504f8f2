/* SPDX-License-Identifier: MIT */
/*
 * Scripts: a command a line. script.c reads the lines; verbs.c, live.c and tasks.c carry them out.
 */
#ifndef DMCAT_SCRIPT_H
#define DMCAT_SCRIPT_H

#include "session.h"

/* Runs a script from a file, or from standard input for "-". */
enum exit_status script_run(struct session *session, const char *path);

/* Most words in a line. */
#define SCRIPT_WORDS_MAX 1024u

/* Words that begin with -- and may stand anywhere behind a verb that knows them. */
#define CALL_DEFERRED (1u << 0)
#define CALL_INACTIVE (1u << 1)
#define CALL_NOFLUSH (1u << 2)
#define CALL_SETUUID (1u << 3)
#define CALL_TIMEOUT (1u << 4)

/* A table stands behind its first argument, or in the lines up to `end`. */
#define VERB_TABLE (1u << 16)
/* May go on in the background. */
#define VERB_IO (1u << 17)
/* Has the options of copy. */
#define VERB_COPY (1u << 18)

/* A line of a script. */
struct call {
	char **args;                /* behind the verb, without options */
	unsigned int num_args;
	unsigned int options;       /* CALL_*, those given */
	int64_t timeout_ns;         /* of --timeout; else negative */
	struct copy_options copy;   /* of copy */
	bool in_background;         /* it ends with & */
	char *table;                /* text, for a verb that has one; else NULL */
	unsigned long lines_before; /* the table, in the script */
};

/* A command of a script. */
struct verb {
	const char *name;
	unsigned int min_args;
	unsigned int max_args;
	const char *usage;
	enum exit_status (*run)(struct session *session, const struct call *call);
	unsigned int flags; /* VERB_*, and CALL_* that it knows */
};

/* The verb of that name, or NULL. */
const struct verb *verbs_find(const char *name);

#endif
