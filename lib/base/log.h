/* SPDX-License-Identifier: MIT */
/* Messages for the application's log hook. Silent without one; never on the data path. */
#ifndef DMCORE_LIB_BASE_LOG_H
#define DMCORE_LIB_BASE_LOG_H

#include <dmcore/attr.h>
#include <dmcore/context.h>

void dmcore__log(const struct dmcore *core, enum dmcore_log_level level, const char *format, ...)
	DMCORE_PRINTF(3, 4);

#endif
