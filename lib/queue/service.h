/* SPDX-License-Identifier: MIT */
/*
 * The service: one queue of the core's own for background work, with a thread or without. call.c
 * has those who wait for it.
 */
#ifndef DMCORE_LIB_QUEUE_SERVICE_H
#define DMCORE_LIB_QUEUE_SERVICE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "base/core.h"

struct dmcore__service {
	struct dmcore_queue *queue;
	pthread_t thread;
	bool running;
	bool ended;              /* the core goes: no more work is taken */
	bool stop;               /* the thread's, set by the work below */
	bool drains;             /* likewise */
	bool drained;            /* under `lock` */
	struct dmcore_work quit;
	struct dmcore_work drain;
	/* A manual one is run by one of those who wait at a time. */
	_Atomic bool pumped;
	pthread_mutex_t lock;    /* calls are handed back under it */
	pthread_cond_t returned; /* one was */
};

int dmcore__service_create(struct dmcore *core);
/* What has been begun ends. No work is taken any more, but for calls of targets that go. */
void dmcore__service_end(struct dmcore *core);
/* Stops the thread. The queue goes with the core's others. */
void dmcore__service_destroy(struct dmcore *core);
/* As dmcore_service_post(), also at the end of the core. */
int dmcore__service_post_call(struct dmcore *core, struct dmcore_work *work);
/* Whether the calling thread may run a manual service now: true until it says _pump_end(). */
static inline bool dmcore__service_pump_begin(struct dmcore__service *service)
{
	return !atomic_exchange(&service->pumped, true);
}

static inline void dmcore__service_pump_end(struct dmcore__service *service)
{
	atomic_store(&service->pumped, false);
}

/* The queue of a manual service, which whoever waits has to run; or NULL. */
struct dmcore_queue *dmcore__service_to_pump(struct dmcore *core);

#endif
