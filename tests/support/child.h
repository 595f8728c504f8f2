/* SPDX-License-Identifier: MIT */
/* Processes that a test forks. */
#ifndef DMCORE_TESTS_SUPPORT_CHILD_H
#define DMCORE_TESTS_SUPPORT_CHILD_H

#include <unistd.h>

#ifdef DMCORE_COVERAGE
#include <gcov.h>
#endif

/* _exit(): what the test's process would do at exit isn't the child's. But its counts are. */
static inline _Noreturn void child_exit(int status)
{
#ifdef DMCORE_COVERAGE
	__gcov_dump();
#endif
	_exit(status);
}

#endif
