/* SPDX-License-Identifier: MIT */
/* What control calls of every layer ask of a core before they take its lock. */
#include "base/core.h"

#include <errno.h>

#include "base/error.h"

int dmcore__check_alive(const struct dmcore *core)
{
	/* The lock, the rings and the files' positions are the parent's. */
	if (!dmcore__alive(core))
		return dmcore__error(-EOWNERDEAD, "the core was made before fork()");
	return 0;
}

int dmcore__control_begin(struct dmcore *core)
{
	int ret;

	if (!core)
		return dmcore__error(-EINVAL, "no core, device or table");
	ret = dmcore__check_alive(core);
	if (ret == 0)
		dmcore__lock(core);
	return ret;
}
