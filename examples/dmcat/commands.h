/* SPDX-License-Identifier: MIT */
/* The commands of the command line. */
#ifndef DMCAT_COMMANDS_H
#define DMCAT_COMMANDS_H

#include "session.h"

/* Checks that there is a command and that it gets as many arguments as it takes. */
enum exit_status commands_check(struct session *session);

/* Runs it: on the devices that are defined by now. */
enum exit_status commands_run(struct session *session);

/* Reads a number of sectors. */
enum exit_status commands_number(struct session *session, const char *word, uint64_t *value);

#endif
