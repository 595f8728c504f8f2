/* SPDX-License-Identifier: MIT */
/*
 * Waiting until no bio is inside a device, at no cost to those that are: they are counted by each
 * queue for itself, and the waiter makes up for the fences that the counting spares. Used by
 * map/suspend.c.
 */
#ifndef DMCORE_LIB_QUEUE_DRAIN_H
#define DMCORE_LIB_QUEUE_DRAIN_H

#include <stdbool.h>
#include <stdint.h>

#include "queue/queue.h"

/* As a deadline: never. */
#define DMCORE__NO_DEADLINE UINT64_MAX

int dmcore__drain_create(struct dmcore *core);
void dmcore__drain_destroy(struct dmcore *core);
/* A queue has come into the list. */
void dmcore__drain_add_queue(struct dmcore_queue *queue);

/* Whether a request must have a fence between entering a slot and looking at its device: the
 * kernel offers none that the waiter could have for all. Constant for a core. */
bool dmcore__drain_needs_fences(const struct dmcore *core);

/* Whether this thread is in the middle of a request or a completion of some queue. */
bool dmcore__drain_in_callback(struct dmcore *core);

/*
 * Waits until no bio is inside the device of `slot`, which has been closed to new ones before. Runs
 * the queues of the calling thread. 0, -ETIMEDOUT at the deadline of the core's clock, or an error
 * of membarrier(). Control lock held once; it is given up in between.
 */
int dmcore__drain_wait(struct dmcore *core, uint32_t slot, uint64_t deadline_ns);

/* Waits for the next dmcore__drain_wake(), or a little; as above. Whom it waits for may wait for
 * bios of this thread's queues in the device of `slot`. */
int dmcore__drain_sleep(struct dmcore *core, uint32_t slot, uint64_t deadline_ns);
/* Wakes whoever waits. Any thread. */
void dmcore__drain_wake(struct dmcore *core);

/* Has every queue with deferred bios submit them again. Control lock held. */
void dmcore__drain_replay(struct dmcore *core);

/* The owner has done what there was to do. */
static inline void dmcore__drain_tell(struct dmcore_queue *queue)
{
	if (dmcore__unlikely(atomic_load_explicit(&queue->draining, memory_order_relaxed)))
		dmcore__drain_wake(queue->core);
}

#endif
