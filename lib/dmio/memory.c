/* SPDX-License-Identifier: MIT */
/*
 * Page lists, vectors and buffers: whether they hold what a request needs, and the vector of the
 * next bio. Called by service.c and io.c.
 */
#include "dmio/memory.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/assert.h"
#include "base/checked.h"

/* A buffer goes out in pieces of 1 GiB: where a bio's data begin in an entry is 32 bits. */
#define BUFFER_PIECE_SECTORS (UINT64_C(1) << (30 - DMCORE_SECTOR_SHIFT))

static int check_pages(const struct dmio__memory *memory, uint64_t bytes)
{
	const struct dmio_page_list *node;
	uint64_t held = 0;

	/* A list may run in a circle, to read or write the same pages over and over. */
	for (node = memory->pages; held < bytes + memory->offset_bytes; node = node->next) {
		if (!node || !node->page)
			return -EINVAL;
		held += DMIO_PAGE_BYTES;
	}
	return 0;
}

static int check_vector(struct dmio__memory *memory, uint64_t bytes)
{
	const struct dmio_bvec *vec = memory->vecs;
	uint32_t num_vecs = 0;
	uint64_t held = 0;

	if (!vec)
		return -EINVAL;
	for (; held < bytes; vec++) {
		if (!vec->base || vec->len_bytes == 0 || vec->len_bytes > UINT32_MAX)
			return -EINVAL;
		if (num_vecs == UINT32_MAX)
			return -EINVAL;
		held += vec->len_bytes;
		num_vecs++;
	}
	memory->num_vecs = num_vecs;
	return 0;
}

static int check_buffer(const struct dmio__memory *memory, uint64_t bytes)
{
	bool wraps = bytes > UINTPTR_MAX - (uintptr_t)memory->buffer;

	return memory->buffer && !wraps ? 0 : -EINVAL;
}

int dmio__memory_check(struct dmio__memory *memory, uint64_t bytes)
{
	/* No memory is that large, and below nothing can overflow. */
	if (bytes > PTRDIFF_MAX)
		return -EINVAL;

	switch (memory->kind) {
	case DMIO__MEMORY_NONE:
		return 0;
	case DMIO__MEMORY_PAGES:
		return check_pages(memory, bytes);
	case DMIO__MEMORY_VECTOR:
		return check_vector(memory, bytes);
	case DMIO__MEMORY_BUFFER:
		return check_buffer(memory, bytes);
	}
	return -EINVAL;
}

/* Describes `bytes` of the list and moves its front behind them; neighbours in memory merge. */
static uint32_t take_pages(struct dmio__memory *memory, size_t bytes, struct dmio_bvec *vecs)
{
	uint32_t num_vecs = 0;
	char *end = NULL;

	while (bytes > 0) {
		char *start = (char *)memory->pages->page + memory->offset_bytes;
		size_t room_bytes = DMIO_PAGE_BYTES - memory->offset_bytes;
		size_t len_bytes = bytes < room_bytes ? bytes : room_bytes;

		if (start == end) {
			vecs[num_vecs - 1].len_bytes += len_bytes;
		} else {
			DMCORE__ASSERT(num_vecs < DMIO__PIECE_VECS);
			vecs[num_vecs++] = (struct dmio_bvec){ start, len_bytes };
		}
		end = start + len_bytes;
		bytes -= len_bytes;
		memory->offset_bytes += (uint32_t)len_bytes;
		if (memory->offset_bytes == DMIO_PAGE_BYTES) {
			memory->pages = memory->pages->next;
			memory->offset_bytes = 0;
		}
	}
	return num_vecs;
}

void dmio__memory_take(struct dmio__memory *memory, uint64_t sectors, struct dmio_bvec *vecs,
		       struct dmio__piece *piece)
{
	*piece = (struct dmio__piece){ .num_sectors = sectors };

	switch (memory->kind) {
	case DMIO__MEMORY_NONE:
		break;
	case DMIO__MEMORY_PAGES:
		piece->num_sectors = dmcore__min_u64(sectors, DMIO__PIECE_SECTORS);
		piece->num_vecs = take_pages(memory, dmcore__sectors_to_bytes(piece->num_sectors),
					     vecs);
		piece->vecs = vecs;
		break;
	case DMIO__MEMORY_VECTOR:
		piece->vecs = memory->vecs;
		piece->num_vecs = memory->num_vecs;
		break;
	case DMIO__MEMORY_BUFFER:
		piece->num_sectors = dmcore__min_u64(sectors, BUFFER_PIECE_SECTORS);
		vecs[0].base = memory->buffer;
		vecs[0].len_bytes = dmcore__sectors_to_bytes(piece->num_sectors);
		memory->buffer = (char *)memory->buffer + vecs[0].len_bytes;
		piece->vecs = vecs;
		piece->num_vecs = 1;
		break;
	}
}
