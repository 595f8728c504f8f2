/* SPDX-License-Identifier: MIT */
/* Scripts: a command a line. script.c reads the lines, verbs.c carries them out. */
#ifndef DMCAT_SCRIPT_H
#define DMCAT_SCRIPT_H

#include "session.h"

/* Runs a script from a file, or from standard input for "-". */
enum exit_status script_run(struct session *session, const char *path);

/* Most words in a line. */
#define SCRIPT_WORDS_MAX 1024u

/* A table in a script: the lines between a command and `end`. */
struct script_table {
	char *text;
	unsigned long lines_before; /* in the script */
};

/* A command of a script. */
struct verb {
	const char *name;
	unsigned int min_args;
	unsigned int max_args;
	const char *usage;
	bool has_table;
	/* args: behind the name; table: NULL unless has_table. */
	enum exit_status (*run)(struct session *session, char **args, unsigned int num_args,
				const struct script_table *table);
};

/* The verb of that name, or NULL. */
const struct verb *verbs_find(const char *name);

#endif
