/* SPDX-License-Identifier: MIT */
/* Little-endian numbers in formats on disk. */
#ifndef DMCORE_BASE_LE_H
#define DMCORE_BASE_LE_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

static inline uint32_t dmcore__le32(const void *bytes)
{
	uint32_t value;

	memcpy(&value, bytes, sizeof(value));
	return le32toh(value);
}

static inline uint64_t dmcore__le64(const void *bytes)
{
	uint64_t value;

	memcpy(&value, bytes, sizeof(value));
	return le64toh(value);
}

static inline void dmcore__le32_store(void *bytes, uint32_t value)
{
	value = htole32(value);
	memcpy(bytes, &value, sizeof(value));
}

static inline void dmcore__le64_store(void *bytes, uint64_t value)
{
	value = htole64(value);
	memcpy(bytes, &value, sizeof(value));
}

#endif
