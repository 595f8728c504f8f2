/* SPDX-License-Identifier: MIT */
/* The service: one queue of the core's own for background work, with a thread or without. */
#ifndef DMCORE_LIB_QUEUE_SERVICE_H
#define DMCORE_LIB_QUEUE_SERVICE_H

#include "base/core.h"

int dmcore__service_create(struct dmcore *core);
/* Stops the thread, or drains the queue, after what has been begun. No work is taken any more. */
void dmcore__service_end(struct dmcore *core);
/* The queue goes with the core's others. */
void dmcore__service_destroy(struct dmcore *core);
/* The queue of a manual service, which whoever waits has to run; or NULL. */
struct dmcore_queue *dmcore__service_to_pump(struct dmcore *core);

#endif
