/* SPDX-License-Identifier: MIT */
/* The commands of a script that read and write, at once or in the background. */
#ifndef DMCAT_TASKS_H
#define DMCAT_TASKS_H

#include "script.h"

enum exit_status tasks_read(struct session *session, const struct call *call);
enum exit_status tasks_write(struct session *session, const struct call *call);
enum exit_status tasks_flush(struct session *session, const struct call *call);
enum exit_status tasks_discard(struct session *session, const struct call *call);
enum exit_status tasks_zero(struct session *session, const struct call *call);
enum exit_status tasks_copy(struct session *session, const struct call *call);

/* Waits for all in the background. Refuses if they can't end before a device is resumed. */
enum exit_status tasks_join(struct session *session, const struct call *call);

/* The same at the end of a script, where nothing else resumes a device: this does, and says so
 * unless the script has failed anyway. */
enum exit_status tasks_end(struct session *session, bool has_failed);

#endif
