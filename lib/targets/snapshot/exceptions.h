/* SPDX-License-Identifier: MIT */
/*
 * The table of a snapshot's exceptions: which chunk of the origin is kept in which chunk of the COW
 * device. One thread at a time changes it (the service of the core); any number of threads look
 * chunks up meanwhile, without a lock. Who is disturbed by a change too often is told so, and asks
 * the service.
 *
 * Neighbours that are consecutive in both numbers are one run: a table of n chunks in random order
 * takes at most 24 bytes for each, one that was filled in order next to nothing. Called by the
 * other files here.
 *
 * Order: what was changed before a lookup began is seen by it. A reader of the origin that found no
 * exception compares dmcore__exceptions_version() with the one that its lookup gave, when its data
 * have come: if it is the same, no exception has come or gone in between, and the data are good.
 */
#ifndef DMCORE_TARGETS_SNAPSHOT_EXCEPTIONS_H
#define DMCORE_TARGETS_SNAPSHOT_EXCEPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct dmcore;
struct exceptions;

/* Chunk numbers are smaller: a device has less than 2^54 sectors. */
#define EXCEPTIONS_CHUNKS_MAX (UINT64_C(1) << 54)

enum exceptions_result {
	EXCEPTIONS_FOUND,
	EXCEPTIONS_NONE,
	EXCEPTIONS_BUSY, /* changed too often while it was looked at: ask the service; never told
			    to the thread that changes it */
};

/* Consecutive chunks, in both numbers. */
struct exceptions_run {
	uint64_t old_chunk;
	uint64_t new_chunk;
	uint64_t count; /* chunks, 1 and up */
};

/* An empty table, NULL without memory. */
struct exceptions *dmcore__exceptions_create(struct dmcore *core);
/* NULL is a no-op. Nobody looks at it any more. */
void dmcore__exceptions_destroy(struct exceptions *table);

/* ---- any thread ---- */

/* Where a chunk is kept. *version: of the table as it was looked at; not set if BUSY. */
enum exceptions_result dmcore__exceptions_find(const struct exceptions *table, uint64_t old_chunk,
					       uint64_t *new_chunk, uint64_t *version);
/* The run that holds `old_chunk`, from there on; or else the first one behind it. NONE: there is
 * none. */
enum exceptions_result dmcore__exceptions_next(const struct exceptions *table, uint64_t old_chunk,
					       struct exceptions_run *run);
/* Differs after each change. */
uint64_t dmcore__exceptions_version(const struct exceptions *table);
/* Chunks that are kept. */
uint64_t dmcore__exceptions_count(const struct exceptions *table);
/* Memory that the table takes. */
uint64_t dmcore__exceptions_bytes(const struct exceptions *table);

/* ---- the thread that changes it ---- */

/* Makes sure that so many more inserts or removals can't fail. -ENOMEM: the table is as it was. */
int dmcore__exceptions_reserve(struct exceptions *table, unsigned int count);
/* False: the chunk is kept already, and nothing has changed. Reserved before. */
bool dmcore__exceptions_insert(struct exceptions *table, uint64_t old_chunk, uint64_t new_chunk);
/* False: there is no such chunk. Reserved before (it may cut a run in two). */
bool dmcore__exceptions_remove(struct exceptions *table, uint64_t old_chunk);
/* Changes nothing, but for the version: who reads the origin looks again. */
void dmcore__exceptions_touch(struct exceptions *table);

#endif
