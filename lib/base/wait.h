/* SPDX-License-Identifier: MIT */
/* Waiting on a condition for so long, by a clock that nobody sets. Used by queue/ and map/. */
#ifndef DMCORE_LIB_BASE_WAIT_H
#define DMCORE_LIB_BASE_WAIT_H

#include <pthread.h>
#include <stdint.h>
#include <time.h>

/* A condition whose deadlines are those of dmcore__deadline_in(). */
static inline void dmcore__cond_init(pthread_cond_t *cond)
{
	pthread_condattr_t attributes;

	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(cond, &attributes);
	pthread_condattr_destroy(&attributes);
}

/* When `ns`, less than a second, will have passed. */
static inline struct timespec dmcore__deadline_in(uint64_t ns)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += (long)ns;
	if (until.tv_nsec >= 1000000000) {
		until.tv_nsec -= 1000000000;
		until.tv_sec++;
	}
	return until;
}

#endif
