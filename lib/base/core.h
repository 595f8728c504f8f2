/* SPDX-License-Identifier: MIT */
/*
 * struct dmcore: the hooks of one instance, its control lock, and a pointer to what each layer
 * keeps for itself. Made by context.c; every layer reads it.
 */
#ifndef DMCORE_LIB_BASE_CORE_H
#define DMCORE_LIB_BASE_CORE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include <dmcore/context.h>

struct dmcore_fileio;
struct dmcore__bdevs;
struct dmcore__map;
struct dmcore__queues;
struct dmcore__service;

struct dmcore {
	struct dmcore_options options;
	bool own_clock;                    /* the application has set options.clock_ns */
	/* Recursive: constructors open devices while the table that they belong to is locked. */
	pthread_mutex_t control;
	unsigned int control_depth;        /* times the lock is held; under the lock */
	/* On a page that fork() wipes: this core, and NULL in a child. */
	struct dmcore *const *alive;
	_Atomic uint64_t num_randoms;      /* that dmcore_random() has given */
	_Atomic uint64_t live_allocations; /* outstanding, for leak checks in tests */

	/* Tests: sees each file I/O before its backend; 1: don't do it, *result is the result. */
	int (*fault_fileio)(void *context, struct dmcore_fileio *io, int64_t *result);
	void *fault_context;

	struct dmcore__queues *queues;   /* queue/queue.c */
	struct dmcore__service *service; /* queue/service.c */
	struct dmcore__bdevs *bdevs;     /* bdev/bdev.c */
	struct dmcore__map *map;         /* map/registry.c, map/device.c */
};

static inline void dmcore__lock(struct dmcore *core)
{
	pthread_mutex_lock(&core->control);
	core->control_depth++;
}

static inline void dmcore__unlock(struct dmcore *core)
{
	core->control_depth--;
	pthread_mutex_unlock(&core->control);
}

/* The core; NULL in a child of fork(), where queues and their rings must not be touched. */
static inline const struct dmcore *dmcore__living(const struct dmcore *core)
{
	return *(struct dmcore *const volatile *)core->alive;
}

static inline bool dmcore__alive(const struct dmcore *core)
{
	return dmcore__living(core) != NULL;
}

/* 0, or -EOWNERDEAD and a message. For control calls, before they lock. */
int dmcore__check_alive(const struct dmcore *core);

/*
 * Begins a control call of the interface: checks the core (-EINVAL for NULL, -EOWNERDEAD in a child
 * of fork()) and locks it. 0: to be ended by dmcore__unlock().
 */
int dmcore__control_begin(struct dmcore *core);

static inline uint64_t dmcore__now_ns(const struct dmcore *core)
{
	return core->options.clock_ns(core->options.clock_context);
}

/* For the data path: the application's clock, or one that may be late by a tick. */
static inline uint64_t dmcore__coarse_ns(const struct dmcore *core)
{
	struct timespec now;

	if (core->own_clock)
		return dmcore__now_ns(core);
	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

#endif
