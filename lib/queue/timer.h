/* SPDX-License-Identifier: MIT */
/*
 * The timers of a queue: a heap of the callers' own memory, so that starting one never fails. Run
 * by the poll of queue.c.
 */
#ifndef DMCORE_LIB_QUEUE_TIMER_H
#define DMCORE_LIB_QUEUE_TIMER_H

#include "queue/queue.h"

/* When the next one is due; UINT64_MAX: never. */
static inline uint64_t dmcore__timer_next_ns(const struct dmcore_queue *queue)
{
	return queue->timers ? queue->timers->at_ns : UINT64_MAX;
}

/* Runs those that are due, `max` at the most; returns how many. */
unsigned int dmcore__timers_run(struct dmcore_queue *queue, unsigned int max);

/* For dmcore_queue_fd(): the descriptor, and its time. */
int dmcore__timer_fd_open(struct dmcore_queue *queue);
void dmcore__timer_fd_set(struct dmcore_queue *queue);

#endif
