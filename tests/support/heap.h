/* SPDX-License-Identifier: MIT */
/* A core's allocator that counts, and that fails when it is told to. */
#ifndef DMCORE_TESTS_SUPPORT_HEAP_H
#define DMCORE_TESTS_SUPPORT_HEAP_H

#include <stdbool.h>

#include <dmcore.h>

#include "nth.h"

struct heap {
	_Atomic unsigned int left; /* allocations to the one that fails; 0: none does */
	_Atomic unsigned int failed;
	_Atomic unsigned int outstanding;
	bool for_good;             /* and all that follow */
};

extern struct heap heap;

/* Has a core allocate here. Memory comes without zeroes: nothing may count on them. */
void heap_use(struct dmcore_options *options);

/* Its allocations, to fail one after another; no context. */
extern const struct nth_kind heap_nth;

/*
 * Runs `scenario` with each of its allocations failing in turn. It returns what went wrong: -ENOMEM
 * if an allocation failed, 0 if none did, or if `may_do_without` also if one did. After each round
 * `after`, if not NULL, looks at what that came to, and undoes it; then as much must be allocated
 * as before.
 */
struct heap_loop {
	int (*scenario)(void *context);
	void (*after)(void *context, int ret);
	void *context;
	bool may_do_without;
};

/* With one allocation failing, or (for_good) all that follow too. */
void heap_fail_each(const struct heap_loop *loop, bool for_good);

#endif
