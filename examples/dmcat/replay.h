/* SPDX-License-Identifier: MIT */
/* The logs of log-writes targets: listed, and replayed. */
#ifndef DMCAT_REPLAY_H
#define DMCAT_REPLAY_H

#include "session.h"

/* Prints the entries of a log that the options choose. */
enum exit_status replay_list(struct session *session, const char *log_spec);

/* Carries them out on a device, all or, if one of them can't be meant, none. */
enum exit_status replay_log(struct session *session, const char *log_spec, const char *to_spec);

#endif
