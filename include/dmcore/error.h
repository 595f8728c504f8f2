/* SPDX-License-Identifier: MIT */
/**
 * @file error.h
 * @defgroup error Errors
 * How a failure is told.
 *
 * Functions return 0 (or a count that their comment names) or a negative errno. The values listed
 * under `@retval` are promises; any other negative errno may come from the operating system.
 * Control calls (open, create, load, parse …) also leave a sentence that says where it went wrong
 * and what to do about it. A request on the data path ends with a status and leaves no text.
 * @{
 */
#ifndef DMCORE_ERROR_H
#define DMCORE_ERROR_H

#include <dmcore/attr.h>

DMCORE_BEGIN_DECLS

/**
 * The message of the last control call that failed on this thread, outermost place first:
 * `table line 3: striped: Invalid chunk_size`.
 *
 * @return    A string without a newline; "" when nothing failed yet. Never NULL. Borrowed; valid
 *            until the next control call on this thread. For people: only its part that quotes the
 *            kernel's own error text is stable.
 * @threads   any; each thread has its own message.
 */
DMCORE_API const char *dmcore_error_message(void);

/**
 * The symbolic name of an errno: "EINVAL" for EINVAL or -EINVAL.
 *
 * @param[in] error  An errno, with either sign.
 * @return    A static string; "OK" for 0, "E?" for a value without a name here.
 * @threads   any
 */
DMCORE_API const char *dmcore_error_name(int error);

DMCORE_END_DECLS

/** @} */
#endif
