/* SPDX-License-Identifier: MIT */
/* Formats a message for the log hook of a core. Called by control-plane code of every layer. */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>

#include <dmcore/limits.h>

#include "base/core.h"

void dmcore__log(const struct dmcore *core, enum dmcore_log_level level, const char *format, ...)
{
	char text[DMCORE_ERROR_BYTES_MAX];
	va_list values;

	if (!core->options.log)
		return;
	va_start(values, format);
	vsnprintf(text, sizeof(text), format, values);
	va_end(values);
	core->options.log(level, text, core->options.log_context);
}
