/* SPDX-License-Identifier: MIT */
/* What the compiler is told beyond C11. */
#ifndef DMCORE_LIB_BASE_COMPILER_H
#define DMCORE_LIB_BASE_COMPILER_H

#include <stddef.h>

#define dmcore__likely(x) __builtin_expect(!!(x), 1)
#define dmcore__unlikely(x) __builtin_expect(!!(x), 0)

/* Kept out of its callers, for their sake: what they rarely need costs them no registers. */
#define DMCORE__NOINLINE __attribute__((noinline))

/* The object that holds `member`, from a pointer to it. */
#define dmcore__container_of(ptr, type, member)                                                    \
	((type *)(void *)((char *)(ptr) - offsetof(type, member)))

#define DMCORE__ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

#endif
