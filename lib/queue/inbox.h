/* SPDX-License-Identifier: MIT */
/*
 * What other threads hand to a queue: work and completed bios, on two stacks without locks, and a
 * wake-up for an owner that sleeps. Used by queue.c.
 */
#ifndef DMCORE_LIB_QUEUE_INBOX_H
#define DMCORE_LIB_QUEUE_INBOX_H

#include <stdbool.h>

#include "queue/queue.h"

/* Looked at by an owner about to sleep: in the one order in which askers look whether he does. */
static inline bool dmcore__inbox_full(struct dmcore_queue *queue)
{
	return queue->work_head || atomic_load(&queue->inbox_work) ||
	       atomic_load(&queue->inbox_bios) ||
	       atomic_load(&queue->asked);
}

/* Puts completed bios on the ready list, and work in line. */
void dmcore__inbox_take(struct dmcore_queue *queue);
/* Runs work that is in line; returns how much. */
unsigned int dmcore__inbox_run(struct dmcore_queue *queue, unsigned int max);

/* Has the owner give up the registration of a file; any thread. */
void dmcore__inbox_forget(struct dmcore_queue *queue, uint32_t slot);
/* Gives them up now; the owner. */
void dmcore__inbox_forget_stale(struct dmcore_queue *queue);

/* Has the owner submit deferred bios again; any thread, which wakes him afterwards. */
static inline void dmcore__inbox_ask_replay(struct dmcore_queue *queue)
{
	atomic_fetch_or(&queue->asked, DMCORE__ASKED_REPLAY);
}

/* Wakes the owner if it sleeps; any thread. */
void dmcore__inbox_wake(struct dmcore_queue *queue);

/* Makes the wake-up descriptor readable. */
void dmcore__inbox_signal(struct dmcore_queue *queue);

#endif
