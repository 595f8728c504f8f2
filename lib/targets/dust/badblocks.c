/* SPDX-License-Identifier: MIT */
/* The bad blocks of a dust target, without locks. Called by targets/dust.c. */
#include "targets/dust/badblocks.h"

#include <errno.h>
#include <stddef.h>

#include <dmcore/driver.h>

/* A word: LISTED, the writes that are to fail, the block's number. */
#define NUMBER_BITS 54
#define ONE_FAILURE (UINT64_C(1) << NUMBER_BITS)
#define LISTED (UINT64_C(1) << 63)

_Static_assert(DMCORE_DEVICE_SECTORS_MAX >> NUMBER_BITS == 0, "a block has a number of 54 bits");
_Static_assert(LISTED / ONE_FAILURE > BADBLOCKS_FAILURES_MAX, "the count ends below LISTED");

#define FIRST_BUCKETS_SHIFT 3
#define BUCKET_WORDS 8

struct badblocks_bucket {
	_Atomic uint64_t words[BUCKET_WORDS];
};

static uint64_t number_of(uint64_t word)
{
	return word & (ONE_FAILURE - 1);
}

static uint64_t failures_of(uint64_t word)
{
	return (word & ~LISTED) >> NUMBER_BITS;
}

static size_t num_buckets(unsigned int index)
{
	return (size_t)1 << (FIRST_BUCKETS_SHIFT + index);
}

/* NULL: not made yet, nor any behind it. */
static struct badblocks_bucket *level_of(const struct badblocks *set, unsigned int index)
{
	if (index == BADBLOCKS_LEVELS)
		return NULL;
	return atomic_load_explicit(&set->levels[index], memory_order_acquire);
}

static struct badblocks_bucket *bucket_of(struct badblocks_bucket *level, unsigned int index,
					  uint64_t block)
{
	/* 2^64 by the golden ratio: neighbours go far apart. */
	uint64_t hash = block * UINT64_C(0x9e3779b97f4a7c15);

	return &level[hash >> (64 - FIRST_BUCKETS_SHIFT - index)];
}

/* Where the block is listed, and its word; NULL if it isn't. */
static _Atomic uint64_t *find(const struct badblocks *set, uint64_t block, uint64_t *word)
{
	struct badblocks_bucket *level;

	for (unsigned int i = 0; (level = level_of(set, i)); i++) {
		struct badblocks_bucket *bucket = bucket_of(level, i, block);

		for (unsigned int k = 0; k < BUCKET_WORDS; k++) {
			*word = atomic_load_explicit(&bucket->words[k], memory_order_relaxed);
			if (*word != 0 && number_of(*word) == block)
				return &bucket->words[k];
		}
	}
	return NULL;
}

bool dmcore__badblocks_has(const struct badblocks *set, uint64_t block)
{
	uint64_t word;

	return find(set, block, &word) != NULL;
}

/* Takes the block off the list if it has no more failures left than that. */
static bool remove_with(struct badblocks *set, uint64_t block, uint64_t max_failures)
{
	_Atomic uint64_t *place;
	uint64_t word;

	while ((place = find(set, block, &word)) && failures_of(word) <= max_failures) {
		if (atomic_compare_exchange_strong(place, &word, 0)) {
			atomic_fetch_sub(&set->count, 1);
			return true;
		}
	}
	return false;
}

bool dmcore__badblocks_remove(struct badblocks *set, uint64_t block)
{
	return remove_with(set, block, BADBLOCKS_FAILURES_MAX);
}

void dmcore__badblocks_heal(struct badblocks *set, uint64_t block)
{
	remove_with(set, block, 0);
}

bool dmcore__badblocks_take_failure(struct badblocks *set, uint64_t block)
{
	_Atomic uint64_t *place;
	uint64_t word;

	while ((place = find(set, block, &word)) && failures_of(word) > 0) {
		if (atomic_compare_exchange_strong(place, &word, word - ONE_FAILURE))
			return true;
	}
	return false;
}

static struct badblocks_bucket *make_level(struct badblocks *set, struct dmcore *core,
					   unsigned int index)
{
	struct badblocks_bucket *level = NULL;

	if (index < BADBLOCKS_LEVELS)
		level = dmcore_zalloc(core, num_buckets(index) * sizeof(*level));
	if (level)
		atomic_store_explicit(&set->levels[index], level, memory_order_release);
	return level;
}

/* A free place for the block, in a new level if need be. */
static _Atomic uint64_t *find_place(struct badblocks *set, struct dmcore *core, uint64_t block)
{
	for (unsigned int i = 0;; i++) {
		struct badblocks_bucket *level = level_of(set, i);
		struct badblocks_bucket *bucket;

		if (!level)
			level = make_level(set, core, i);
		if (!level)
			return NULL;
		bucket = bucket_of(level, i, block);
		for (unsigned int k = 0; k < BUCKET_WORDS; k++) {
			if (atomic_load_explicit(&bucket->words[k], memory_order_relaxed) == 0)
				return &bucket->words[k];
		}
	}
}

int dmcore__badblocks_add(struct badblocks *set, struct dmcore *core, uint64_t block,
			  uint64_t failures)
{
	_Atomic uint64_t *place = find_place(set, core, block);

	if (!place)
		return -ENOMEM;
	atomic_fetch_add(&set->count, 1);
	atomic_store(place, LISTED | failures * ONE_FAILURE | block);
	return 0;
}

bool dmcore__badblocks_clear(struct badblocks *set)
{
	struct badblocks_bucket *level;
	bool any = false;

	for (unsigned int i = 0; (level = level_of(set, i)); i++) {
		for (size_t k = 0; k < num_buckets(i) * BUCKET_WORDS; k++) {
			if (atomic_exchange(&level[k / BUCKET_WORDS].words[k % BUCKET_WORDS], 0)) {
				atomic_fetch_sub(&set->count, 1);
				any = true;
			}
		}
	}
	return any;
}

uint64_t dmcore__badblocks_list(const struct badblocks *set, uint64_t *numbers, uint64_t max)
{
	struct badblocks_bucket *level;
	uint64_t count = 0;

	for (unsigned int i = 0; (level = level_of(set, i)); i++) {
		for (size_t k = 0; k < num_buckets(i) * BUCKET_WORDS; k++) {
			uint64_t word =
				atomic_load(&level[k / BUCKET_WORDS].words[k % BUCKET_WORDS]);

			if (word != 0 && count < max)
				numbers[count++] = number_of(word);
		}
	}
	return count;
}

void dmcore__badblocks_free(struct badblocks *set, struct dmcore *core)
{
	for (unsigned int i = 0; i < BADBLOCKS_LEVELS; i++)
		dmcore_free(core, atomic_load(&set->levels[i]));
}
