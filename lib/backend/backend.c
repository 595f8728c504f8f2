/* SPDX-License-Identifier: MIT */
/* The choice of a backend. Called when a queue is made. */
#include "backend/backend.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/log.h"

/* What the environment asks for; false: a name that isn't known. */
static bool kind_from_environment(enum dmcore_backend *kind)
{
	const char *name = getenv("DMCORE_BACKEND");

	*kind = DMCORE_BACKEND_AUTO;
	if (!name || !*name || strcmp(name, "auto") == 0)
		return true;
	if (strcmp(name, "io_uring") == 0) {
		*kind = DMCORE_BACKEND_IO_URING;
		return true;
	}
	if (strcmp(name, "pread") == 0) {
		*kind = DMCORE_BACKEND_PREAD;
		return true;
	}
	return false;
}

static int create_io_uring(const struct dmcore__backend_config *config, char *reason,
			   unsigned int reason_bytes, struct dmcore__backend **result)
{
#if HAVE_LIBURING
	return dmcore__backend_io_uring.create(config, reason, reason_bytes, result);
#else
	(void)config;
	(void)result;
	snprintf(reason, reason_bytes, "io_uring: not built in");
	return -EOPNOTSUPP;
#endif
}

int dmcore__backend_create(enum dmcore_backend kind, const struct dmcore__backend_config *config,
			   char *reason, unsigned int reason_bytes,
			   struct dmcore__backend **result)
{
	char why[128] = "";
	int ret;

	if (kind == DMCORE_BACKEND_AUTO && !kind_from_environment(&kind))
		return dmcore__error(-EINVAL, "DMCORE_BACKEND is '%s': say auto, io_uring or pread",
				     getenv("DMCORE_BACKEND"));
	if (kind != DMCORE_BACKEND_PREAD) {
		ret = create_io_uring(config, why, sizeof(why), result);
		if (ret == 0 || ret == -ENOMEM) {
			snprintf(reason, reason_bytes, "%s", why);
			return ret;
		}
		if (kind == DMCORE_BACKEND_IO_URING)
			return dmcore__error(-EOPNOTSUPP, "%s", why);
	}
	ret = dmcore__backend_pread.create(config, reason, reason_bytes, result);
	if (ret == 0 && why[0]) {
		size_t used = strlen(reason);

		snprintf(reason + used, reason_bytes - used, "; %s", why);
	}
	return ret;
}
