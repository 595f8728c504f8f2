/* SPDX-License-Identifier: MIT */
/*
 * The memory of a dm-io request in its three forms, and how it is cut into pieces that one bio can
 * carry. service.c checks it when a call comes in, io.c takes pieces off it.
 */
#ifndef DMCORE_LIB_DMIO_MEMORY_H
#define DMCORE_LIB_DMIO_MEMORY_H

#include <stdint.h>

#include <dmcore/dmio.h>

/*
 * A list of pages goes out in pieces of so many pages: a multiple of every block size, so that a
 * cut never makes an aligned region misaligned. A vector goes out whole, a buffer nearly so: the
 * layers below split it where they must.
 */
#define DMIO__PIECE_PAGES 64u
#define DMIO__PIECE_SECTORS (DMIO__PIECE_PAGES * (DMIO_PAGE_BYTES / DMCORE_SECTOR_BYTES))
/* Entries of a piece's vector: one more, as it may begin inside a page. */
#define DMIO__PIECE_VECS (DMIO__PIECE_PAGES + 1)

_Static_assert(DMIO__PIECE_PAGES * DMIO_PAGE_BYTES % DMCORE_BLOCK_BYTES_MAX == 0,
	       "a piece must end at the end of a block");

enum dmio__memory_kind {
	DMIO__MEMORY_NONE,   /* flush, discard, write-zeroes */
	DMIO__MEMORY_PAGES,
	DMIO__MEMORY_VECTOR,
	DMIO__MEMORY_BUFFER,
};

/* What a call was given or, in a copy of it, what is left of that. */
struct dmio__memory {
	enum dmio__memory_kind kind;
	uint32_t offset_bytes; /* PAGES: where in the first page the data begin; inside of it */
	uint32_t num_vecs;     /* VECTOR: entries needed, counted by dmio__memory_check() */
	union {
		const struct dmio_page_list *pages;
		const struct dmio_bvec *vecs;
		void *buffer;
	};
};

/* The memory of one bio. */
struct dmio__piece {
	const struct dmio_bvec *vecs; /* may hold more than the sectors need */
	uint32_t num_vecs;
	uint64_t num_sectors;
};

/* 0 if the memory holds so many bytes and no part of it is malformed, else -EINVAL. */
int dmio__memory_check(struct dmio__memory *memory, uint64_t bytes);

/*
 * Takes off the front of `memory`, which holds `sectors` or more, as much of them as one bio can
 * carry. `vecs` has DMIO__PIECE_VECS entries and must live as long as the piece.
 */
void dmio__memory_take(struct dmio__memory *memory, uint64_t sectors, struct dmio_bvec *vecs,
		       struct dmio__piece *piece);

#endif
