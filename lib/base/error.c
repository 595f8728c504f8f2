/* SPDX-License-Identifier: MIT */
/* The thread's error message, and the names of errnos. Used by all control-plane code. */
#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <dmcore/error.h>
#include <dmcore/limits.h>

#include "base/compiler.h"

/* The library's only writable data outside a struct dmcore. */
static _Thread_local char message[DMCORE_ERROR_BYTES_MAX];

const char *dmcore_error_message(void)
{
	return message;
}

void dmcore__error_clear(void)
{
	message[0] = '\0';
}

int dmcore__error(int error, const char *format, ...)
{
	/* The old message may be among the arguments. */
	char text[DMCORE_ERROR_BYTES_MAX];
	va_list values;

	va_start(values, format);
	vsnprintf(text, sizeof(text), format, values);
	va_end(values);
	memcpy(message, text, strlen(text) + 1);
	return error;
}

int dmcore__error_prefix(int error, const char *format, ...)
{
	char text[DMCORE_ERROR_BYTES_MAX];
	va_list values;
	int length;
	size_t used;

	va_start(values, format);
	length = vsnprintf(text, sizeof(text), format, values);
	va_end(values);
	used = length < 0 ? 0 : (size_t)length;
	if (used > sizeof(text) - 1)
		used = sizeof(text) - 1;
	snprintf(text + used, sizeof(text) - used, ": %.*s", (int)(sizeof(text) - used), message);
	memcpy(message, text, strlen(text) + 1);
	return error;
}

const char *dmcore__strerror(int error, char *buffer, unsigned int bytes)
{
	char text[128];
	int number = error < 0 ? -error : error;

	snprintf(buffer, bytes, "%s (%s)", strerror_r(number, text, sizeof(text)),
		 dmcore_error_name(number));
	return buffer;
}

const char *dmcore_error_name(int error)
{
	/* strerrorname_np() is newer than some of the C libraries that we run on. */
	static const struct {
		int number;
		const char *name;
	} names[] = {
		{ 0, "OK" },           { EPERM, "EPERM" },     { ENOENT, "ENOENT" },
		{ EINTR, "EINTR" },    { EIO, "EIO" },         { ENXIO, "ENXIO" },
		{ E2BIG, "E2BIG" },    { EBADF, "EBADF" },     { EAGAIN, "EAGAIN" },
		{ ENOMEM, "ENOMEM" },  { EACCES, "EACCES" },   { EFAULT, "EFAULT" },
		{ EBUSY, "EBUSY" },    { EEXIST, "EEXIST" },   { ENODEV, "ENODEV" },
		{ ENOTDIR, "ENOTDIR" }, { EISDIR, "EISDIR" },  { EINVAL, "EINVAL" },
		{ ENFILE, "ENFILE" },  { EMFILE, "EMFILE" },   { EFBIG, "EFBIG" },
		{ ENOSPC, "ENOSPC" },  { EROFS, "EROFS" },     { EPIPE, "EPIPE" },
		{ ERANGE, "ERANGE" },  { EDEADLK, "EDEADLK" }, { ENAMETOOLONG, "ENAMETOOLONG" },
		{ ENOSYS, "ENOSYS" },  { ELOOP, "ELOOP" },     { ETIME, "ETIME" },
		{ EPROTO, "EPROTO" },  { ETXTBSY, "ETXTBSY" }, { EOVERFLOW, "EOVERFLOW" },
		{ EOPNOTSUPP, "EOPNOTSUPP" }, { ETIMEDOUT, "ETIMEDOUT" }, { EALREADY, "EALREADY" },
		{ EDQUOT, "EDQUOT" },  { ECANCELED, "ECANCELED" }, { EOWNERDEAD, "EOWNERDEAD" },
		{ ESTALE, "ESTALE" },  { EILSEQ, "EILSEQ" },   { ENOTBLK, "ENOTBLK" },
		{ ENODATA, "ENODATA" }, { ESHUTDOWN, "ESHUTDOWN" }, { EREMOTEIO, "EREMOTEIO" },
		{ EHWPOISON, "EHWPOISON" },
	};
	int number = error < 0 ? -error : error;

	for (size_t i = 0; i < DMCORE__ARRAY_SIZE(names); i++) {
		if (names[i].number == number)
			return names[i].name;
	}
	return "E?";
}
