/* SPDX-License-Identifier: MIT */
/*
 * Counting requests, on the data path of devices with regions of statistics. Each queue's owner
 * writes the queue's own lane; the control plane reads it meanwhile, guarded by a sequence number.
 * Called by submit.c for each request, and by stats_read.c.
 */
#include <sched.h>

#include "base/checked.h"
#include "bdev/bio.h"
#include "map/stats.h"

/* Begun in some areas. */
struct counted {
	struct dmcore__stats_lane *lane;
	uint64_t sector;
	uint64_t count_flags; /* the number of sectors << COUNT_SHIFT, and COUNTED_* */
	uint64_t begun_ns;
};

#define COUNTED_WRITE UINT64_C(1)
#define COUNTED_MERGE UINT64_C(2)
#define COUNT_SHIFT 2

_Static_assert(sizeof(struct counted) % 16 == 0, "frames are multiples of 16 bytes");

uint32_t dmcore__stats_one_frame_bytes(void)
{
	return (uint32_t)(sizeof(struct counted) + sizeof(struct dmcore__frame));
}

static inline uint64_t get(const _Atomic uint64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

/* No locked instruction: there is one writer. */
static inline void add(_Atomic uint64_t *counter, uint64_t amount)
{
	atomic_store_explicit(counter, get(counter) + amount, memory_order_relaxed);
}

static inline uint32_t flying(const struct dmcore__stats_cell *cell, unsigned int direction)
{
	return atomic_load_explicit(&cell->in_flight[direction], memory_order_relaxed);
}

static inline void set_flying(struct dmcore__stats_cell *cell, unsigned int direction,
			      uint32_t number)
{
	atomic_store_explicit(&cell->in_flight[direction], number, memory_order_relaxed);
}

/* Returns what write_end() is given. */
static inline uint32_t write_begin(struct dmcore__stats_lane *lane)
{
	uint32_t sequence = atomic_load_explicit(&lane->sequence, memory_order_relaxed);

	atomic_store_explicit(&lane->sequence, sequence + 1, memory_order_relaxed);
	atomic_thread_fence(memory_order_release);
	return sequence + 2;
}

static inline void write_end(struct dmcore__stats_lane *lane, uint32_t sequence)
{
	atomic_store_explicit(&lane->sequence, sequence, memory_order_release);
}

static DMCORE__NOINLINE void pass_time(struct dmcore__stats_cell *cell, uint64_t passed_ns)
{
	uint32_t reads = flying(cell, DMCORE__STATS_READ);
	uint32_t writes = flying(cell, DMCORE__STATS_WRITE);
	_Atomic uint64_t *counters = cell->counters;

	if (reads)
		add(&counters[DMCORE__STATS_BUSY_NS], passed_ns);
	if (writes)
		add(&counters[DMCORE__STATS_OF_EACH + DMCORE__STATS_BUSY_NS], passed_ns);
	if (reads || writes)
		add(&counters[DMCORE__STATS_ALL_BUSY_NS], passed_ns);
	add(&counters[DMCORE__STATS_WEIGHTED_NS], passed_ns * ((uint64_t)reads + writes));
}

/* Brings the times of those in flight up to now. */
static inline void keep_time(struct dmcore__stats_cell *cell, uint64_t now_ns)
{
	uint64_t stamp_ns = get(&cell->stamp_ns);

	if (now_ns <= stamp_ns)
		return;
	pass_time(cell, now_ns - stamp_ns);
	atomic_store_explicit(&cell->stamp_ns, now_ns, memory_order_relaxed);
}

static uint64_t area_of(const struct dmcore__stats_region *region, uint64_t offset)
{
	if (region->num_areas == 1)
		return 0;
	if (region->step_shift < 64)
		return offset >> region->step_shift;
	if (!region->ends)
		return offset / region->step_sectors;
	return dmcore__find_range(region->ends, region->num_areas, offset);
}

/* The sectors `from` to `to`, the part of them that the region has. */
static inline void begin_in(struct dmcore__stats_part *part, uint64_t from, uint64_t to,
			    unsigned int direction, uint64_t now_ns)
{
	const struct dmcore__stats_region *region = part->region;
	uint64_t i;

	from = dmcore__max_u64(from, part->start_sector);
	to = dmcore__min_u64(to, part->end_sector);
	if (from >= to)
		return;
	for (i = area_of(region, from - part->start_sector); from < to; i++) {
		struct dmcore__stats_cell *cell = &part->cells[i];

		keep_time(cell, now_ns);
		set_flying(cell, direction, flying(cell, direction) + 1);
		from = part->start_sector + dmcore__stats_area_end(region, i);
	}
}

/* Buckets below their bound, and the last one for the rest. */
static void count_duration(struct dmcore__stats_part *part, uint64_t area, uint64_t took_ns)
{
	const struct dmcore__stats_region *region = part->region;
	uint64_t buckets = (uint64_t)region->num_bounds + 1;

	add(&part->buckets[area * buckets +
			   dmcore__find_range(region->bounds_ns, buckets, took_ns)],
	    1);
}

/* What has become of a request, for each of its areas. */
struct ending {
	unsigned int direction;
	bool merged;
	bool again;     /* it was pushed back: it comes again, and is counted then */
	uint64_t now_ns;
	uint64_t took_ns;
};

static inline void end_area(struct dmcore__stats_part *part, uint64_t area, uint64_t sectors,
			    struct ending ending)
{
	struct dmcore__stats_cell *cell = &part->cells[area];
	_Atomic uint64_t *counters = &cell->counters[ending.direction * DMCORE__STATS_OF_EACH];

	set_flying(cell, ending.direction, flying(cell, ending.direction) - 1);
	if (dmcore__unlikely(ending.again))
		return;
	add(&counters[DMCORE__STATS_REQUESTS], 1);
	add(&counters[DMCORE__STATS_SECTORS], sectors);
	if (dmcore__unlikely(ending.merged))
		add(&counters[DMCORE__STATS_MERGES], 1);
	if (dmcore__unlikely(ending.took_ns != 0))
		add(&counters[DMCORE__STATS_NS], ending.took_ns);
	if (dmcore__unlikely(part->buckets != NULL))
		count_duration(part, area, ending.took_ns);
}

static inline void end_in(struct dmcore__stats_part *part, uint64_t from, uint64_t to,
			  struct ending ending)
{
	const struct dmcore__stats_region *region = part->region;
	uint64_t i;

	from = dmcore__max_u64(from, part->start_sector);
	to = dmcore__min_u64(to, part->end_sector);
	if (from >= to)
		return;
	for (i = area_of(region, from - part->start_sector); from < to; i++) {
		uint64_t end = part->start_sector + dmcore__stats_area_end(region, i);

		keep_time(&part->cells[i], ending.now_ns);
		end_area(part, i, dmcore__min_u64(to, end) - from, ending);
		from = end;
	}
}

/*
 * One reading of the clock for all that a round finds completed: they were so when it began,
 * however long the callbacks of those before them take.
 */
static inline uint64_t end_ns(struct dmcore__stats_lane *lane, const struct dmcore_queue *queue)
{
	if (lane->round != queue->rounds) {
		lane->round = queue->rounds;
		lane->now_ns = dmcore__stats_now_ns(lane->stats);
	}
	return lane->now_ns;
}

/* In every region. */
static DMCORE__NOINLINE enum dmcore__unwind end_all(struct dmcore_bio *bio,
						    struct dmcore__frame *frame)
{
	const struct counted *counted = dmcore__frame_data(frame);
	struct dmcore__stats_lane *lane = counted->lane;
	uint64_t now_ns = end_ns(lane, bio->queue);
	uint64_t begun_ns = counted->begun_ns;
	uint64_t from = counted->sector;
	uint64_t to = from + (counted->count_flags >> COUNT_SHIFT);
	struct ending ending = {
		.direction = counted->count_flags & COUNTED_WRITE,
		.merged = counted->count_flags & COUNTED_MERGE,
		.now_ns = now_ns,
		.took_ns = now_ns > begun_ns ? now_ns - begun_ns : 0,
		.again = bio->status == DMCORE_STATUS_REQUEUE &&
			 dmcore__map_is_pushed_back(bio, frame),
	};
	uint32_t sequence = write_begin(lane);

	for (struct dmcore__stats_part *part = lane->parts; part; part = part->next)
		end_in(part, from, to, ending);
	write_end(lane, sequence);
	dmcore__frame_pop(bio, frame);
	return DMCORE__UNWIND_ON;
}

/* Whether a request, in the queue's present round, is one for end_only(). */
static inline bool ends_simply(const struct dmcore__stats_lane *lane, const struct dmcore_bio *bio)
{
	const struct dmcore__stats_part *part = lane->only;

	return dmcore__likely(part && lane->round == bio->queue->rounds &&
			      bio->status != DMCORE_STATUS_REQUEUE &&
			      lane->now_ns <= get(&part->cells->stamp_ns));
}

/* What most requests come to: one region, one area, and the clock hasn't moved since the last. */
static enum dmcore__unwind stats_end(struct dmcore_bio *bio, struct dmcore__frame *frame)
{
	const struct counted *counted = dmcore__frame_data(frame);
	struct dmcore__stats_lane *lane = counted->lane;
	uint64_t begun_ns = counted->begun_ns;
	uint64_t flags = counted->count_flags;
	uint64_t from = counted->sector;
	struct dmcore__stats_part *part = lane->only;
	uint32_t sequence;
	uint64_t to;

	if (!ends_simply(lane, bio))
		return end_all(bio, frame);
	to = dmcore__min_u64(from + (flags >> COUNT_SHIFT), part->end_sector);
	from = dmcore__max_u64(from, part->start_sector);
	if (dmcore__likely(from < to)) {
		sequence = write_begin(lane);
		end_area(part, 0, to - from,
			 (struct ending){
				 .direction = flags & COUNTED_WRITE,
				 .merged = flags & COUNTED_MERGE,
				 .took_ns = lane->now_ns > begun_ns ? lane->now_ns - begun_ns : 0,
			 });
		write_end(lane, sequence);
	}
	dmcore__frame_pop(bio, frame);
	return DMCORE__UNWIND_ON;
}

/* In every region. */
static DMCORE__NOINLINE void begin_all(struct dmcore__stats_lane *lane, uint64_t from, uint64_t to,
				       unsigned int direction, uint64_t now_ns)
{
	uint32_t sequence = write_begin(lane);

	for (struct dmcore__stats_part *part = lane->parts; part; part = part->next)
		begin_in(part, from, to, direction, now_ns);
	write_end(lane, sequence);
}

static inline void begin_only(struct dmcore__stats_lane *lane, uint64_t from, uint64_t to,
			      unsigned int direction)
{
	struct dmcore__stats_part *part = lane->only;
	uint32_t sequence;

	if (dmcore__unlikely(from >= part->end_sector || to <= part->start_sector))
		return;
	sequence = write_begin(lane);
	set_flying(part->cells, direction, flying(part->cells, direction) + 1);
	write_end(lane, sequence);
}

void dmcore__stats_begin(struct dmcore__stats *stats, struct dmcore_bio *bio, uint32_t slot)
{
	uint64_t now_ns = dmcore__stats_now_ns(stats);
	struct dmcore__stats_lane *lane = stats->lanes[bio->queue->index];
	struct dmcore__frame *frame =
		dmcore__frame_push(bio, stats_end, slot, (uint32_t)sizeof(struct counted));
	struct counted *counted = dmcore__frame_data(frame);
	unsigned int direction =
		bio->op == DMCORE_OP_READ ? DMCORE__STATS_READ : DMCORE__STATS_WRITE;
	uint64_t sector = bio->sector;
	uint64_t end = sector + bio->count;
	uint64_t merged = lane->last_end[direction] == sector ? COUNTED_MERGE : 0;

	counted->lane = lane;
	counted->sector = sector;
	counted->count_flags = bio->count << COUNT_SHIFT | merged | direction;
	counted->begun_ns = now_ns;
	lane->last_end[direction] = end;
	if (dmcore__likely(lane->only && now_ns <= get(&lane->only->cells->stamp_ns)))
		begin_only(lane, sector, end, direction);
	else
		begin_all(lane, sector, end, direction, now_ns);
}

/* ---- reading ---- */

/* What a cell holds; may be torn. */
static void copy_cell(const struct dmcore__stats_cell *cell, struct dmcore__stats_sum *sum,
		      uint64_t now_ns)
{
	uint64_t stamp_ns = get(&cell->stamp_ns);
	uint64_t passed_ns = now_ns > stamp_ns ? now_ns - stamp_ns : 0;
	uint32_t reads = flying(cell, DMCORE__STATS_READ);
	uint32_t writes = flying(cell, DMCORE__STATS_WRITE);
	uint64_t *counters = sum->counters;

	for (unsigned int i = 0; i < DMCORE__STATS_COUNTERS; i++)
		counters[i] = get(&cell->counters[i]);
	counters[DMCORE__STATS_BUSY_NS] += reads ? passed_ns : 0;
	counters[DMCORE__STATS_OF_EACH + DMCORE__STATS_BUSY_NS] += writes ? passed_ns : 0;
	counters[DMCORE__STATS_ALL_BUSY_NS] += reads || writes ? passed_ns : 0;
	counters[DMCORE__STATS_WEIGHTED_NS] += passed_ns * ((uint64_t)reads + writes);
	sum->in_flight = (uint64_t)reads + writes;
}

/* Whether the owner has written nothing since `sequence` was read, nor was about to. */
static bool is_whole(const struct dmcore__stats_lane *lane, uint32_t sequence)
{
	atomic_thread_fence(memory_order_acquire);
	return (sequence & 1) == 0 &&
	       atomic_load_explicit(&lane->sequence, memory_order_relaxed) == sequence;
}

void dmcore__stats_add_cell(const struct dmcore__stats_part *part, uint64_t area, uint64_t now_ns,
			    struct dmcore__stats_sum *sum)
{
	const struct dmcore__stats_lane *lane = part->lane;
	struct dmcore__stats_sum own;

	for (;;) {
		uint32_t sequence = atomic_load_explicit(&lane->sequence, memory_order_acquire);

		copy_cell(&part->cells[area], &own, now_ns);
		if (is_whole(lane, sequence))
			break;
		/* The owner may be waiting for this very processor. */
		sched_yield();
	}
	for (unsigned int i = 0; i < DMCORE__STATS_COUNTERS; i++)
		sum->counters[i] += own.counters[i];
	sum->in_flight += own.in_flight;
}

void dmcore__stats_add_buckets(const struct dmcore__stats_part *part, uint64_t area,
			       uint64_t *buckets)
{
	uint64_t per_area = (uint64_t)part->region->num_bounds + 1;

	if (!part->buckets)
		return;
	/* Each by itself: to be whole with the rest, they would have to be copied aside. */
	for (uint64_t i = 0; i < per_area; i++)
		buckets[i] += get(&part->buckets[area * per_area + i]);
}
