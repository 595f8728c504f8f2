/* SPDX-License-Identifier: MIT */
/* The comparison of the legs of mirrors. */
#ifndef DMCAT_SCRUB_H
#define DMCAT_SCRUB_H

#include "script.h"

/* Compares those of all mirrors of a device, waits for the end and prints what differs, which is
 * an error. word: NULL, or "repair", and then recovery is waited for, too. */
enum exit_status scrub_device(struct session *session, const char *name, const char *word);

/* The command of a script. */
enum exit_status scrub_run(struct session *session, const struct call *call);

#endif
