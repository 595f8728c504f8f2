/* SPDX-License-Identifier: MIT */
/* The bios that a delay target holds; see lanes.h. Called by targets/delay.c. */
#include "targets/delay/lanes.h"

#include <stddef.h>

#include "base/compiler.h"

static void count(struct delay_lane *lane, enum delay_class class, uint32_t by)
{
	uint32_t now = atomic_load_explicit(&lane->num[class], memory_order_relaxed);

	atomic_store_explicit(&lane->num[class], now + by, memory_order_relaxed);
}

static void append(struct delay_lane *lane, struct held_bio *held)
{
	held->next = NULL;
	held->previous = lane->last;
	if (lane->last)
		lane->last->next = held;
	else
		lane->first = held;
	lane->last = held;
	count(lane, held->class, 1);
}

static void take_out(struct delay_lane *lane, struct held_bio *held)
{
	if (held->previous)
		held->previous->next = held->next;
	else
		lane->first = held->next;
	if (held->next)
		held->next->previous = held->previous;
	else
		lane->last = held->previous;
	count(lane, held->class, (uint32_t)-1);
}

/* Of a lane with one bio: false if it has been claimed. */
static bool give_up(struct delay_lane *lane)
{
	uint32_t state = LANE_HOLDS;

	return atomic_compare_exchange_strong(&lane->state, &state, LANE_EMPTY);
}

static void time_is_up(struct dmcore_timer *timer)
{
	struct held_bio *held = dmcore__container_of(timer, struct held_bio, timer);
	struct delay_lane *lane = held->lane;

	/* The work that is on its way takes this one along. */
	if (lane->first == lane->last && !give_up(lane))
		return;
	take_out(lane, held);
	dmcore_bio_forward(held->bio);
}

/* Posted to the owner of a claimed lane: lets all of its bios go, oldest first. */
static void empty_lane(struct dmcore_work *work)
{
	struct delay_lane *lane = dmcore__container_of(work, struct delay_lane, work);
	struct dmcore_queue *queue = lane->queue;
	struct held_bio *held = lane->first;

	lane->first = NULL;
	lane->last = NULL;
	for (unsigned int i = 0; i < DELAY_CLASSES; i++)
		atomic_store_explicit(&lane->num[i], 0, memory_order_relaxed);
	atomic_store(&lane->state, LANE_EMPTY);
	/* With the last of them the lane itself may go. */
	while (held) {
		struct held_bio *next = held->next;

		dmcore_timer_cancel(queue, &held->timer);
		dmcore_bio_forward(held->bio);
		held = next;
	}
}

/*
 * Says that a lane isn't empty any more. False if delays have been stopped and nobody has claimed
 * the lane. Either who stops them sees the lane, or this sees that they are stopped.
 */
static bool open_lane(struct delay_lanes *lanes, struct delay_lane *lane,
		      struct dmcore_queue *queue)
{
	lane->queue = queue;
	lane->work.fn = empty_lane;
	atomic_store(&lane->state, LANE_HOLDS);
	return !atomic_load(&lanes->passing) || !give_up(lane);
}

bool dmcore__lanes_hold(struct delay_lanes *lanes, struct held_bio *held, struct dmcore_bio *bio,
			enum delay_class class, uint64_t delay_ns)
{
	struct delay_lane *lane = &lanes->lanes[dmcore_queue_index(bio->queue)];
	bool first = !lane->first;
	uint64_t now_ns;

	if (atomic_load_explicit(&lanes->passing, memory_order_relaxed))
		return false;
	*held = (struct held_bio){ .timer.fn = time_is_up, .bio = bio, .lane = lane,
				   .class = class };
	now_ns = dmcore_clock_ns(dmcore_queue_core(bio->queue));
	if (dmcore_timer_start(bio->queue, &held->timer, now_ns + delay_ns))
		return false;
	append(lane, held);
	if (!first || open_lane(lanes, lane, bio->queue))
		return true;
	take_out(lane, held);
	dmcore_timer_cancel(bio->queue, &held->timer);
	return false;
}

void dmcore__lanes_stop(struct delay_lanes *lanes)
{
	atomic_store(&lanes->passing, true);
	for (unsigned int i = 0; i < DMCORE_QUEUE_INDICES_MAX; i++) {
		struct delay_lane *lane = &lanes->lanes[i];
		uint32_t state = LANE_HOLDS;

		if (atomic_compare_exchange_strong(&lane->state, &state, LANE_CLAIMED))
			dmcore_queue_post(lane->queue, &lane->work);
	}
}

void dmcore__lanes_start(struct delay_lanes *lanes)
{
	atomic_store(&lanes->passing, false);
}

uint64_t dmcore__lanes_count(const struct delay_lanes *lanes, enum delay_class class)
{
	uint64_t sum = 0;

	for (unsigned int i = 0; i < DMCORE_QUEUE_INDICES_MAX; i++)
		sum += atomic_load_explicit(&lanes->lanes[i].num[class], memory_order_relaxed);
	return sum;
}
