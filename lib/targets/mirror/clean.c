/* SPDX-License-Identifier: MIT */
/*
 * Regions of a mirror that nobody writes to any more: when all legs have been flushed, the log may
 * have them for clean again. That takes as long as the slowest leg does, so marks of other regions,
 * which writes wait for, don't wait for it. Called on the service by writes.c, recovery.c and
 * log.c, and by targets/mirror.c at a suspension.
 */
#include <errno.h>

#include "base/checked.h"
#include "base/compiler.h"
#include "targets/mirror/mirror.h"

/* A region is cleaned when nobody has written to it for as long, or twice that. */
#define SWEEP_NS UINT64_C(500000000)

static uint64_t bit_of(uint64_t region)
{
	return UINT64_C(1) << region % 64;
}

/* ---- which ---- */

int dmcore__clean_allocate(struct mirror *mirror)
{
	if (!mirror->log.bdev)
		return 0;
	mirror->cleaning.words =
		dmcore_zalloc(mirror->core, dmcore__log_num_words(&mirror->log) * sizeof(uint64_t));
	return mirror->cleaning.words ? 0 : -ENOMEM;
}

static void add(struct mirror_cleaning *cleaning, uint64_t region)
{
	uint64_t word = region / 64;

	cleaning->words[word] |= bit_of(region);
	if (cleaning->begin == cleaning->end) {
		cleaning->begin = word;
		cleaning->end = word + 1;
		return;
	}
	cleaning->begin = dmcore__min_u64(cleaning->begin, word);
	cleaning->end = dmcore__max_u64(cleaning->end, word + 1);
}

void dmcore__clean_region(struct mirror *mirror, uint64_t region)
{
	struct mirror_cleaning *cleaning = &mirror->cleaning;

	if (!mirror->log.bdev || mirror->keeps_marks ||
	    dmcore__log_is_clean(&mirror->log, region))
		return;
	/* What is being flushed now doesn't cover it. */
	if (cleaning->legs_left > 0)
		cleaning->has_missed = true;
	else
		add(cleaning, region);
}

void dmcore__clean_not(struct mirror *mirror, uint64_t region)
{
	if (mirror->log.bdev)
		mirror->cleaning.words[region / 64] &= ~bit_of(region);
}

/* Those that have come while the legs were being flushed. */
static void add_missed(struct mirror *mirror)
{
	const struct mirror_log *log = &mirror->log;
	uint64_t region = dmcore__log_next_synced(log, 0);

	mirror->cleaning.has_missed = false;
	for (; region != UINT64_MAX; region = dmcore__log_next_synced(log, region + 1)) {
		if (dmcore__log_is_clean(log, region))
			continue;
		if (dmcore__region_state(mirror->regions, region) == REGION_ABSENT)
			dmcore__clean_region(mirror, region);
		else
			mirror->cleaning.has_missed = true;
	}
}

/* ---- flushing the legs ---- */

/* All have what was written before: the log may say so. */
static void legs_flushed(struct mirror *mirror)
{
	struct mirror_cleaning *cleaning = &mirror->cleaning;

	for (uint64_t word = cleaning->begin; word < cleaning->end; word++) {
		for (uint64_t bits = cleaning->words[word]; bits; bits &= bits - 1) {
			uint64_t region = word * 64 + (uint64_t)__builtin_ctzll(bits);

			if (dmcore__log_in_sync(&mirror->log, region))
				dmcore__log_set_clean(&mirror->log, region, true);
		}
		cleaning->words[word] = 0;
	}
	cleaning->begin = cleaning->end = 0;
	mirror->log.wanted = true;
	dmcore__log_flush(mirror);
}

static void leg_flushed(struct dmcore_bio *bio)
{
	struct mirror *mirror = bio->context;
	struct mirror_cleaning *cleaning = &mirror->cleaning;

	if (bio->status) {
		uint32_t leg = (uint32_t)(bio - cleaning->bios);

		if (leg == 0)
			atomic_fetch_add(&mirror->num_lost, 1);
		dmcore__mirror_fail_flush(mirror, leg);
	}
	if (--cleaning->legs_left == 0)
		legs_flushed(mirror);
}

static void flush_legs(struct mirror *mirror)
{
	struct mirror_cleaning *cleaning = &mirror->cleaning;

	cleaning->legs_left = mirror->num_legs;
	for (uint32_t i = 0; i < mirror->num_legs; i++) {
		struct dmcore_bio *bio = &cleaning->bios[i];

		dmcore_bio_init(bio, mirror->service);
		bio->bdev = mirror->legs[i].bdev;
		bio->op = DMCORE_OP_FLUSH;
		bio->done = leg_flushed;
		dmcore__mirror_send(mirror, bio);
	}
}

bool dmcore__clean_go_on(struct mirror *mirror)
{
	struct mirror_cleaning *cleaning = &mirror->cleaning;

	if (cleaning->legs_left > 0)
		return true;
	if (cleaning->has_missed)
		add_missed(mirror);
	if (cleaning->begin == cleaning->end)
		return false;
	flush_legs(mirror);
	return true;
}

/* ---- when ---- */

static void sweep(struct dmcore_timer *timer)
{
	struct mirror *mirror = dmcore__container_of(timer, struct mirror, cleaning.timer);
	const struct mirror_cleaning *cleaning = &mirror->cleaning;
	uint32_t cursor = 0;
	uint64_t region;

	while (cleaning->legs_left == 0 &&
	       (region = dmcore__region_take_clean(mirror->regions, &cursor, true)) != UINT64_MAX)
		dmcore__clean_region(mirror, region);
	dmcore__clean_go_on(mirror);
	dmcore__log_flush(mirror);
	if (!dmcore__regions_are_absent(mirror->regions) || cleaning->has_missed)
		dmcore__clean_later(mirror);
}

void dmcore__clean_later(struct mirror *mirror)
{
	struct dmcore_timer *timer = &mirror->cleaning.timer;

	if (timer->previous || mirror->suspending)
		return;
	timer->fn = sweep;
	dmcore_timer_start(mirror->service, timer, dmcore_clock_ns(mirror->core) + SWEEP_NS);
}

void dmcore__clean_all(struct mirror *mirror)
{
	uint32_t cursor = 0;

	dmcore_timer_cancel(mirror->service, &mirror->cleaning.timer);
	while (dmcore__region_take_clean(mirror->regions, &cursor, false) != UINT64_MAX)
		;
	mirror->cleaning.has_missed = mirror->log.bdev != NULL;
}
