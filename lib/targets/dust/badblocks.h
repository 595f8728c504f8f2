/* SPDX-License-Identifier: MIT */
/*
 * The bad blocks of a dust target: a set of block numbers, each with a count of writes that are
 * still to fail. Used by targets/dust.c.
 *
 * It is changed from both sides. Messages add blocks, one message at a time, and may allocate. map
 * looks blocks up, counts their failures down and takes them off, on several threads at once, and
 * may neither lock nor allocate. So a listed block is one atomic word, with its number and its
 * count, and 0 is a free place:
 *  - Only a message makes a 0 something else, and all else is compare-and-swap from a word that was
 *    seen to name the block, or an exchange for 0. So no change is lost or made twice.
 *  - A word never moves while its block is listed, so nobody overlooks it.
 *  - The places are in levels of hash buckets, each level of twice the buckets. A full bucket sends
 *    a block on to the next level, which is made when it is first needed. Levels are freed with the
 *    target only, when no bio can look at them. A lookup reads one bucket of each level that there
 *    is; the last level bounds that, and the memory.
 */
#ifndef DMCORE_TARGETS_DUST_BADBLOCKS_H
#define DMCORE_TARGETS_DUST_BADBLOCKS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct dmcore;

/* Level n has 8 * 2^n buckets; all levels together take 4 MiB. */
#define BADBLOCKS_LEVELS 13

/* Writes to a block that may be told to fail. */
#define BADBLOCKS_FAILURES_MAX 255

struct badblocks_bucket;

/* Zeroed: empty. */
struct badblocks {
	_Atomic uint64_t count; /* raised before a block is there, lowered after it is gone */
	struct badblocks_bucket *_Atomic levels[BADBLOCKS_LEVELS];
};

/* ---- from any thread ---- */

bool dmcore__badblocks_has(const struct badblocks *set, uint64_t block);
/* Returns false if it isn't there. */
bool dmcore__badblocks_remove(struct badblocks *set, uint64_t block);
/* Takes it off unless writes are to fail: it may have been added since take_failure() looked. */
void dmcore__badblocks_heal(struct badblocks *set, uint64_t block);
/* Counts one of the writes that are to fail; false if none is left, or the block isn't there. */
bool dmcore__badblocks_take_failure(struct badblocks *set, uint64_t block);

static inline uint64_t dmcore__badblocks_count(const struct badblocks *set)
{
	return atomic_load_explicit(&set->count, memory_order_relaxed);
}

/* ---- from one thread at a time ---- */

/* Adds a block that isn't there: a number of 54 bits. Returns -ENOMEM if memory is short, or the
 * block's buckets are full in all levels. */
int dmcore__badblocks_add(struct badblocks *set, struct dmcore *core, uint64_t block,
			  uint64_t failures);
/* Returns whether there were any. */
bool dmcore__badblocks_clear(struct badblocks *set);
/* Writes at most max of the numbers, in no order, and returns how many. */
uint64_t dmcore__badblocks_list(const struct badblocks *set, uint64_t *numbers, uint64_t max);
/* Frees what it holds. Nothing else may be under way. */
void dmcore__badblocks_free(struct badblocks *set, struct dmcore *core);

#endif
