/* SPDX-License-Identifier: MIT */
/*
 * The message behind dmcore_error_message(). Control-plane code sets it where it learns what is
 * wrong; callers further out put the place before it.
 */
#ifndef DMCORE_LIB_BASE_ERROR_H
#define DMCORE_LIB_BASE_ERROR_H

#include <dmcore/attr.h>

/* Sets this thread's message; returns `error`. */
int dmcore__error(int error, const char *format, ...) DMCORE_PRINTF(2, 3);

/* Puts "<text>: " before this thread's message; returns `error`. */
int dmcore__error_prefix(int error, const char *format, ...) DMCORE_PRINTF(2, 3);

/* Empties this thread's message. */
void dmcore__error_clear(void);

/* "Invalid argument (EINVAL)" for -EINVAL, in `buffer`; returns it. */
const char *dmcore__strerror(int error, char *buffer, unsigned int bytes);

#endif
