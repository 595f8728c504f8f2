/* SPDX-License-Identifier: MIT */
/*
 * Checks for the library's own bugs. They stay on in release builds (--disable-assertions removes
 * them): an application prefers a stop at the bug to a corrupt disk. A caller's mistake is never
 * an assertion.
 */
#ifndef DMCORE_LIB_BASE_ASSERT_H
#define DMCORE_LIB_BASE_ASSERT_H

#include "base/compiler.h"

_Noreturn void dmcore__assert_failed(const char *expression, const char *file, int line);

#ifdef DMCORE_NO_ASSERT
#define DMCORE__ASSERT(expression) ((void)sizeof(expression))
#else
#define DMCORE__ASSERT(expression)                                                                 \
	(dmcore__likely(expression) ? (void)0                                                      \
				    : dmcore__assert_failed(#expression, __FILE__, __LINE__))
#endif

/* Too dear for release builds. */
#ifdef DMCORE_DEBUG
#define DMCORE__DEBUG_ASSERT(expression) DMCORE__ASSERT(expression)
#else
#define DMCORE__DEBUG_ASSERT(expression) ((void)sizeof(expression))
#endif

#endif
