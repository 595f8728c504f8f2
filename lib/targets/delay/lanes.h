/* SPDX-License-Identifier: MIT */
/*
 * The bios that a delay target holds, a lane for each queue. A lane belongs to its queue's owner,
 * who holds bios and lets them go when their time has come. Who stops all delays, on any thread,
 * claims the lanes in which bios wait, and posts each owner the work of emptying his.
 *
 * A claimed lane isn't left by its last bio before that work has run: what is posted to is there.
 * Neither side takes a lock.
 */
#ifndef DMCORE_LIB_TARGETS_DELAY_LANES_H
#define DMCORE_LIB_TARGETS_DELAY_LANES_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <dmcore/bio.h>
#include <dmcore/context.h>
#include <dmcore/limits.h>
#include <dmcore/queue.h>

enum delay_class { DELAY_READ, DELAY_WRITE, DELAY_FLUSH, DELAY_CLASSES };

enum lane_state {
	LANE_EMPTY,
	LANE_HOLDS,   /* at least one bio; set by the owner */
	LANE_CLAIMED, /* the same, and its work has been, or is being, posted */
};

struct held_bio;

struct delay_lane {
	struct dmcore_work work;
	struct dmcore_queue *queue;   /* while it isn't empty */
	struct held_bio *first;       /* the owner's, oldest first */
	struct held_bio *last;
	_Atomic uint32_t state;       /* enum lane_state */
	_Atomic uint32_t num[DELAY_CLASSES]; /* bios held; written by the owner */
};

struct delay_lanes {
	_Atomic bool passing; /* no bio is held any more */
	struct delay_lane lanes[DMCORE_QUEUE_INDICES_MAX];
};

/* A bio that is held: a target's data of it. */
struct held_bio {
	struct dmcore_timer timer;
	struct dmcore_bio *bio;
	struct delay_lane *lane;
	struct held_bio *next;
	struct held_bio *previous;
	enum delay_class class;
};

/*
 * On the bio's queue: holds a bio for so long by the core's clock, then sends it on as it is.
 * False: it isn't held, for nothing is delayed now.
 */
bool dmcore__lanes_hold(struct delay_lanes *lanes, struct held_bio *held, struct dmcore_bio *bio,
			enum delay_class class, uint64_t delay_ns);

/* On any thread, but one at a time: from now on nothing is held, and what is held is let go of by
 * its queues' owners; and the reverse. */
void dmcore__lanes_stop(struct delay_lanes *lanes);
void dmcore__lanes_start(struct delay_lanes *lanes);

/* How many bios of a class are held, as seen by any thread. */
uint64_t dmcore__lanes_count(const struct delay_lanes *lanes, enum delay_class class);

#endif
