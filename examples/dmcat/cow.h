/* SPDX-License-Identifier: MIT */
/* COW devices of persistent snapshots: listed, and checked. Nothing is written. */
#ifndef DMCAT_COW_H
#define DMCAT_COW_H

#include "session.h"

/* Prints the header, all entries, and what a snapshot makes of them. */
enum exit_status cow_print(struct session *session, const char *spec);

/* Prints all that is wrong. Not as in the rest of dmcat: 1 if there is anything, 2 if it can't be
 * told. */
enum exit_status cow_judge(struct session *session, const char *spec);

#endif
