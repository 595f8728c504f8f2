/* SPDX-License-Identifier: MIT */
/*
 * Changed bytes on the way: in the memory of a read that has ended; in a write by a vector of its
 * own, which has other bytes in a few places, so that the caller's memory stays as it is.
 */
#ifndef DMCORE_LIB_TARGETS_FLAKEY_CORRUPT_H
#define DMCORE_LIB_TARGETS_FLAKEY_CORRUPT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <dmcore/bio.h>
#include <dmcore/dmio.h>

/* Bytes of a bio that may be changed, and what that may add to the entries of its vector. */
#define CORRUPT_BYTES_MAX 2
#define CORRUPT_ENTRIES_ADDED (2 * CORRUPT_BYTES_MAX)

/* Entries of a new vector that lie with the bio itself. */
#define CORRUPT_OWN_ENTRIES (CORRUPT_ENTRIES_ADDED + 2)

/* Longer ones come from a store of these; entries of each. */
#define CORRUPT_VECTORS 32
#define CORRUPT_VECTOR_ENTRIES 1024

struct corrupt_store {
	_Atomic uint32_t taken; /* a bit for each vector */
	struct dmio_bvec vectors[CORRUPT_VECTORS][CORRUPT_VECTOR_ENTRIES];
};

/* What is to be changed in a bio, and the bio as it was. Zeroed at first, but for `own`. */
struct corruption {
	const struct dmio_bvec *vecs;
	uint32_t num_vecs;
	uint32_t vec_offset_bytes;
	uint64_t at_bytes[CORRUPT_BYTES_MAX]; /* from the start of the data */
	uint8_t values[CORRUPT_BYTES_MAX];
	uint8_t count;
	bool replaced;   /* the bio has another vector now */
	uint8_t vector;  /* 1 + its index in the store; 0: it is `own` */
	struct dmio_bvec own[CORRUPT_OWN_ENTRIES];
};

/* Adds a byte; of two in one place the later one counts. Before corrupt_remember(). */
void dmcore__corrupt_add(struct corruption *corruption, uint64_t at_byte, uint8_t value);

/* A read: keeps where its memory is. When it has ended: changes the bytes there. */
void dmcore__corrupt_remember(struct corruption *corruption, const struct dmcore_bio *bio);
void dmcore__corrupt_apply(const struct corruption *corruption);

/*
 * A write: gives it another vector. False, and the bio is as it was, if that would be too long, or
 * the store has none left. When it has ended: gives it back the old one.
 */
bool dmcore__corrupt_replace(struct corruption *corruption, struct dmcore_bio *bio,
			     struct corrupt_store *store);
void dmcore__corrupt_restore(struct corruption *corruption, struct dmcore_bio *bio,
			     struct corrupt_store *store);

#endif
