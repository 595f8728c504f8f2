/* SPDX-License-Identifier: MIT */
/*
 * Active regions: a table of sets, each a cache line, that any thread enters and leaves without a
 * lock. Only the service puts regions in, takes them out, or changes their state. Called by
 * targets/mirror.c, writes.c, recovery.c and scrub.c.
 */
#include "base/assert.h"
#include "base/compiler.h"
#include "targets/mirror/mirror.h"

#define INSIDE_MASK ((UINT64_C(1) << 19) - 1)
#define TOUCHED (UINT64_C(1) << 19)
#define STATE_SHIFT 20
#define STATE_MASK (UINT64_C(15) << STATE_SHIFT)
#define TAG_SHIFT 24

static uint64_t tag_of(uint64_t word)
{
	return word >> TAG_SHIFT;
}

static enum region_state state_of(uint64_t word)
{
	return (enum region_state)((word & STATE_MASK) >> STATE_SHIFT);
}

static uint64_t with_state(uint64_t word, enum region_state state)
{
	return (word & ~STATE_MASK) | (uint64_t)state << STATE_SHIFT;
}

/* Neighbours go to different sets. */
static uint32_t set_of(uint64_t region)
{
	return (uint32_t)(region ^ region >> 9 ^ region >> 18) % MIRROR_SETS * MIRROR_WAYS;
}

/* Index of an active region, or -1. */
static int64_t find(const struct regions *regions, uint64_t region)
{
	uint32_t set = set_of(region);

	for (uint32_t i = set; i < set + MIRROR_WAYS; i++) {
		if (tag_of(atomic_load_explicit(&regions->words[i], memory_order_acquire)) ==
		    region + 1)
			return i;
	}
	return -1;
}

static uint64_t word_of(const struct regions *regions, uint64_t region)
{
	int64_t i = find(regions, region);

	return i < 0 ? 0 : atomic_load_explicit(&regions->words[i], memory_order_acquire);
}

/* ---- any thread ---- */

enum region_state dmcore__region_enter(struct regions *regions, uint64_t region)
{
	int64_t i = find(regions, region);
	uint64_t word;

	if (i < 0)
		return REGION_ABSENT;
	word = atomic_load_explicit(&regions->words[i], memory_order_relaxed);
	while (tag_of(word) == region + 1) {
		enum region_state state = state_of(word);

		if ((state != REGION_DIRTY && state != REGION_NOSYNC) ||
		    (word & INSIDE_MASK) == INSIDE_MASK)
			return REGION_MARKING;
		if (atomic_compare_exchange_weak_explicit(
			    &regions->words[i], &word, (word + 1) | TOUCHED,
			    memory_order_acq_rel, memory_order_relaxed))
			return state;
	}
	return REGION_ABSENT;
}

bool dmcore__region_leave(struct regions *regions, uint64_t region)
{
	int64_t i = find(regions, region);
	uint64_t word;

	DMCORE__ASSERT(i >= 0);
	/* Either this sees that a place is wanted, or who wants one sees this. */
	word = atomic_fetch_sub(&regions->words[i], 1);
	DMCORE__ASSERT((word & INSIDE_MASK) > 0);
	if ((word & INSIDE_MASK) != 1)
		return false;
	return state_of(word) == REGION_RECOVERING || atomic_load(&regions->wanted);
}

/* ---- the service ---- */

enum region_state dmcore__region_state(const struct regions *regions, uint64_t region)
{
	return state_of(word_of(regions, region));
}

uint32_t dmcore__region_inside(const struct regions *regions, uint64_t region)
{
	return (uint32_t)(word_of(regions, region) & INSIDE_MASK);
}

bool dmcore__regions_are_entered(const struct regions *regions, uint64_t region, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		if (dmcore__region_inside(regions, region + i) > 0)
			return true;
	}
	return false;
}

/* Frees a place whose region nobody is in; false: somebody is, or it has no such state. */
static bool vacate(struct regions *regions, uint32_t i, uint64_t *cleaned)
{
	uint64_t word = atomic_load_explicit(&regions->words[i], memory_order_acquire);
	enum region_state state = state_of(word);

	*cleaned = UINT64_MAX;
	if ((state != REGION_DIRTY && state != REGION_NOSYNC) || word & INSIDE_MASK)
		return false;
	if (!atomic_compare_exchange_strong(&regions->words[i], &word, 0))
		return false;
	regions->num_active--;
	if (state == REGION_DIRTY)
		*cleaned = tag_of(word) - 1;
	return true;
}

/* In the set of a region: one that is free, or has been vacated; UINT32_MAX: none is. */
static uint32_t find_place(struct regions *regions, uint64_t region, uint64_t *evicted)
{
	uint32_t set = set_of(region);

	*evicted = UINT64_MAX;
	for (uint32_t i = set; i < set + MIRROR_WAYS; i++) {
		if (atomic_load_explicit(&regions->words[i], memory_order_relaxed) == 0)
			return i;
	}
	for (uint32_t i = set; i < set + MIRROR_WAYS; i++) {
		if (vacate(regions, i, evicted))
			return i;
	}
	return UINT32_MAX;
}

bool dmcore__region_add(struct regions *regions, uint64_t region, enum region_state state,
			uint64_t *evicted)
{
	uint32_t place = find_place(regions, region, evicted);

	if (place == UINT32_MAX) {
		/* Who leaves from now on wakes the service; somebody may have left just before. */
		atomic_store(&regions->wanted, true);
		atomic_thread_fence(memory_order_seq_cst);
		place = find_place(regions, region, evicted);
	}
	if (place == UINT32_MAX)
		return false;
	atomic_store_explicit(&regions->words[place],
			      with_state((region + 1) << TAG_SHIFT, state), memory_order_release);
	regions->num_active++;
	return true;
}

void dmcore__region_set(struct regions *regions, uint64_t region, enum region_state state)
{
	int64_t i = find(regions, region);
	uint64_t word;

	DMCORE__ASSERT(i >= 0);
	word = atomic_load_explicit(&regions->words[i], memory_order_relaxed);
	while (!atomic_compare_exchange_weak(&regions->words[i], &word, with_state(word, state)))
		;
}

void dmcore__region_enter_for(struct regions *regions, uint64_t region)
{
	int64_t i = find(regions, region);

	DMCORE__ASSERT(i >= 0);
	atomic_fetch_add_explicit(&regions->words[i], 1, memory_order_acq_rel);
}

void dmcore__region_remove(struct regions *regions, uint64_t region)
{
	int64_t i = find(regions, region);

	DMCORE__ASSERT(i >= 0 &&
		       (atomic_load_explicit(&regions->words[i], memory_order_acquire) &
			INSIDE_MASK) == 0);
	atomic_store_explicit(&regions->words[i], 0, memory_order_release);
	regions->num_active--;
}

uint64_t *dmcore__region_ticket(struct regions *regions, uint64_t region)
{
	int64_t i = find(regions, region);

	DMCORE__ASSERT(i >= 0);
	return &regions->tickets[i];
}

uint64_t dmcore__region_take_clean(struct regions *regions, uint32_t *cursor, bool sweep)
{
	while (regions->num_active > 0 && *cursor < MIRROR_SETS * MIRROR_WAYS) {
		uint32_t i = (*cursor)++;
		uint64_t cleaned;

		if (atomic_load_explicit(&regions->words[i], memory_order_relaxed) == 0 ||
		    (sweep && atomic_fetch_and(&regions->words[i], ~TOUCHED) & TOUCHED))
			continue;
		if (vacate(regions, i, &cleaned) && cleaned != UINT64_MAX)
			return cleaned;
	}
	return UINT64_MAX;
}

uint64_t dmcore__region_at(const struct regions *regions, uint32_t place)
{
	return tag_of(atomic_load_explicit(&regions->words[place], memory_order_acquire)) - 1;
}

bool dmcore__regions_are_absent(const struct regions *regions)
{
	return regions->num_active == 0;
}
