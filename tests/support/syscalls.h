/* SPDX-License-Identifier: MIT */
/*
 * Stands in for the kernel where the core starts system calls on files: by plan, at random, or as
 * slowly as can be. Both backends see the same. For one core in a process.
 */
#ifndef DMCORE_TESTS_SUPPORT_SYSCALLS_H
#define DMCORE_TESTS_SUPPORT_SYSCALLS_H

#include <stdbool.h>
#include <stdint.h>

#include <dmcore/driver.h>

#include "nth.h"
#include "rig.h"

#define SYSCALL_OPS (DMCORE_FILEIO_COPY + 1)
#define ALWAYS 1000000u

/* What happens to the next system calls of one kind. */
struct plan {
	int64_t result;    /* instead of the call's own */
	unsigned int times;
	unsigned int skip; /* let so many pass first */
	int mode;          /* FALLOCATE: only with this bit; 0: with any */
	bool carried_out;  /* the call is made, and then its result replaced */
};

enum syscalls_mode {
	SYSCALLS_PLANNED,
	SYSCALLS_RANDOM, /* interrupted, short, or whole */
	SYSCALLS_CRAWL,  /* every other one is interrupted, the others move one byte */
	SYSCALLS_NTH,    /* by syscalls_nth */
};

struct syscalls {
	struct rig *rig;
	enum syscalls_mode mode;
	struct plan plans[SYSCALL_OPS];
	unsigned int calls[SYSCALL_OPS]; /* so many were started */
	unsigned int durable_calls;      /* of them, writes with RWF_DSYNC */
	unsigned int disturbed;          /* SYSCALLS_RANDOM: of them, interrupted or short */

	/* SYSCALLS_NTH. */
	int64_t nth_result;   /* below 0: the error; else reads and writes move no more than that */
	unsigned int left;    /* calls to the one that is meant; 0: none is */
	bool for_good;        /* and all that follow */
	unsigned int failed;  /* so many did, ever */
	bool failed_to_sync;  /* a sync or a durable write was one of them, since it was armed */
};

/* From now on `syscalls`, otherwise zero, decides for the rig's core. */
void syscalls_take_over(struct syscalls *syscalls, struct rig *rig);
/* The same for a core without a rig; not at random. */
void syscalls_attach(struct syscalls *syscalls, struct dmcore *core);

/* Its system calls, to fail one after another; the context is the struct syscalls. */
extern const struct nth_kind syscalls_nth;

/* The next `times` calls of a kind end with `result` and do nothing. */
void syscalls_fail(struct syscalls *syscalls, enum dmcore_fileio_op op, int64_t result,
		   unsigned int times);

#endif
