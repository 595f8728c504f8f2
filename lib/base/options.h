/* SPDX-License-Identifier: MIT */
/* Structs of the application that begin with their own size. Used wherever one is taken. */
#ifndef DMCORE_LIB_BASE_OPTIONS_H
#define DMCORE_LIB_BASE_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

/*
 * Copies as much of the application's struct as both sides know; what it lacks stays as it is in
 * `to`. False: struct_size, the first field, isn't set.
 */
static inline bool dmcore__struct_take(void *to, size_t to_bytes, const void *from)
{
	size_t from_bytes;

	memcpy(&from_bytes, from, sizeof(from_bytes));
	if (from_bytes < sizeof(from_bytes))
		return false;
	memcpy(to, from, from_bytes < to_bytes ? from_bytes : to_bytes);
	return true;
}

#endif
