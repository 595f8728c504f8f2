/* SPDX-License-Identifier: MIT */
/* The end of the line for a broken invariant. Reached through DMCORE__ASSERT only. */
#include "base/assert.h"

#include <stdio.h>
#include <stdlib.h>

_Noreturn void dmcore__assert_failed(const char *expression, const char *file, int line)
{
	fprintf(stderr, "libdmcore: %s:%d: broken invariant: %s\n", file, line, expression);
	abort();
}
