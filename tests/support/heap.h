/* SPDX-License-Identifier: MIT */
/* A core's allocator that counts, and that fails when it is told to. */
#ifndef DMCORE_TESTS_SUPPORT_HEAP_H
#define DMCORE_TESTS_SUPPORT_HEAP_H

#include <stdbool.h>

#include <dmcore.h>

struct heap {
	_Atomic unsigned int left; /* allocations to the one that fails; 0: none does */
	_Atomic unsigned int failed;
	_Atomic unsigned int outstanding;
	bool for_good;             /* and all that follow */
};

extern struct heap heap;

/* Has a core allocate here. Memory comes without zeroes: nothing may count on them. */
void heap_use(struct dmcore_options *options);

#endif
