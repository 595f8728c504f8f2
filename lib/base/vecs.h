/* SPDX-License-Identifier: MIT */
/* The memory of requests, which is given as vectors. Included by targets that copy it. */
#ifndef DMCORE_BASE_VECS_H
#define DMCORE_BASE_VECS_H

#include <stddef.h>
#include <string.h>

#include <dmcore/bio.h>

/* Copies so many bytes out of vectors that hold them, from `skip` bytes on. */
static inline void dmcore__vecs_gather(const struct dmio_bvec *vec, size_t skip, void *buffer,
				       size_t left)
{
	char *to = buffer;

	for (; left > 0; vec++) {
		size_t bytes;

		if (skip >= vec->len_bytes) {
			skip -= vec->len_bytes;
			continue;
		}
		bytes = vec->len_bytes - skip < left ? vec->len_bytes - skip : left;
		memcpy(to, (const char *)vec->base + skip, bytes);
		to += bytes;
		left -= bytes;
		skip = 0;
	}
}

#endif
