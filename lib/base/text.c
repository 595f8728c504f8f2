/* SPDX-License-Identifier: MIT */
/*
 * A text that grows. Written by map/status.c and, through dmcore/target.h, by the targets' status
 * hooks.
 */
#include "base/text.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <dmcore/bdev.h>
#include <dmcore/target.h>

#include "base/alloc.h"
#include "base/args.h"
#include "base/assert.h"

#define TEXT_ROOM_BYTES_MIN 256

void dmcore__text_init(struct dmcore_text *text, struct dmcore *core)
{
	*text = (struct dmcore_text){ .core = core };
}

void dmcore__text_fini(struct dmcore_text *text)
{
	dmcore__free(text->core, text->data);
	text->data = NULL;
}

/* Makes room for `length` bytes and a NUL. */
static bool reserve(struct dmcore_text *text, size_t length)
{
	size_t room_bytes = text->room_bytes ? text->room_bytes : TEXT_ROOM_BYTES_MIN;
	char *data;

	if (text->failed)
		return false;
	while (room_bytes - text->used_bytes <= length)
		room_bytes *= 2;
	if (room_bytes == text->room_bytes)
		return true;
	data = dmcore__zrealloc(text->core, text->data, text->used_bytes + (text->data != NULL),
				room_bytes);
	if (!data) {
		text->failed = true;
		return false;
	}
	text->data = data;
	text->room_bytes = room_bytes;
	return true;
}

void dmcore__text_append(struct dmcore_text *text, const char *bytes, size_t length)
{
	if (!reserve(text, length))
		return;
	memcpy(text->data + text->used_bytes, bytes, length);
	text->used_bytes += length;
	text->data[text->used_bytes] = '\0';
}

void dmcore_text_printf(struct dmcore_text *text, const char *format, ...)
{
	va_list values;
	int length;

	if (!reserve(text, 0))
		return;
	va_start(values, format);
	length = vsnprintf(text->data + text->used_bytes, text->room_bytes - text->used_bytes,
			   format, values);
	va_end(values);
	if (length < 0) {
		text->failed = true;
		return;
	}
	if ((size_t)length >= text->room_bytes - text->used_bytes) {
		if (!reserve(text, (size_t)length))
			return;
		va_start(values, format);
		vsnprintf(text->data + text->used_bytes, text->room_bytes - text->used_bytes,
			  format, values);
		va_end(values);
	}
	text->used_bytes += (size_t)length;
	DMCORE__ASSERT(text->used_bytes < text->room_bytes);
}

void dmcore_text_device(struct dmcore_text *text, const struct dmcore_bdev *bdev)
{
	const char *name = dmcore_bdev_name(bdev);
	const char *plain = name;

	for (const char *at = name; *at; at++) {
		if (!dmcore__is_space(*at) && *at != '\\' && *at != '#')
			continue;
		dmcore__text_append(text, plain, (size_t)(at - plain));
		dmcore__text_append(text, "\\", 1);
		plain = at;
	}
	dmcore__text_append(text, plain, strlen(plain));
}

long long dmcore__text_copy(const struct dmcore_text *text, char *buffer, size_t bytes)
{
	size_t length = text->used_bytes;

	if (text->failed)
		return -ENOMEM;
	if (bytes > 0) {
		size_t fits = length < bytes ? length : bytes - 1;

		if (fits > 0)
			memcpy(buffer, text->data, fits);
		buffer[fits] = '\0';
	}
	return (long long)length;
}
