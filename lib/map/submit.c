/* SPDX-License-Identifier: MIT */
/*
 * The way of a bio through one mapped device: find the target, split where it must be, call map,
 * and leave a frame for the way back. This is the hot path of the library; called by the submit
 * loop of bdev/bio.c through dmcore_bdev::route.
 */
#include <errno.h>

#include "base/checked.h"
#include "bdev/bio.h"
#include "map/map.h"
#include "map/stats.h"
#include "queue/inbox.h"

static inline uint32_t per_bio_bytes(const struct dmcore_target_type *type)
{
	return (type->per_bio_bytes + 15) & ~15u;
}

static inline bool wants_frame(const struct dmcore_target_type *type)
{
	return type->end_io || type->per_bio_bytes;
}

uint32_t dmcore__map_frame_bytes(const struct dmcore_table *table)
{
	uint32_t bytes = sizeof(struct dmcore__frame);
	bool frames = false;
	bool copies = false;

	for (uint32_t i = 0; i < table->num_targets && !copies; i++) {
		const struct dmcore_target_type *type = dmcore__target_at(table, i)->type;

		frames = frames || wants_frame(type);
		copies = type->map_copy;
	}
	if (frames)
		bytes += (uint32_t)sizeof(struct dmcore__target_frame) +
			 ((table->per_bio_bytes_max + 15) & ~15u);
	if (copies)
		bytes += dmcore__copies_frame_bytes();
	if (!table->simple)
		bytes += DMCORE__FAN_FRAME_BYTES + (uint32_t)sizeof(struct dmcore__frame);
	if (table->requeues)
		bytes += DMCORE__SAVED_BYTES + (uint32_t)sizeof(struct dmcore__frame);
	return bytes;
}

/* The status of a bio that a target pushes back. */
static int requeue_status(const struct dmcore_target *target)
{
	bool may = target->type->features & DMCORE_TARGET_TYPE_REQUEUES;

	return may ? DMCORE_STATUS_REQUEUE : -EIO;
}

static inline bool wants_end(const struct dmcore_target_type *type, int status)
{
	return type->end_io && (status || !(type->features & DMCORE_TARGET_TYPE_END_ERRORS));
}

static enum dmcore__unwind target_end(struct dmcore_bio *bio, struct dmcore__frame *frame);

void dmcore__target_frame_arm(struct dmcore__frame *frame)
{
	DMCORE__ASSERT(!frame->end || frame->end == target_end);
	frame->end = target_end;
}

/* A bio that has ended, to the device that its target has named anew. */
static DMCORE__NOINLINE enum dmcore__unwind send_again(struct dmcore_bio *bio,
						       struct dmcore__frame *frame)
{
	struct dmcore__target_frame *entry = dmcore__target_frame(frame);

	frame->end = target_end;
	entry->bdev = bio->bdev;
	bio->status = 0;
	return DMCORE__UNWIND_SUBMIT;
}

static enum dmcore__unwind target_end(struct dmcore_bio *bio, struct dmcore__frame *frame)
{
	struct dmcore__target_frame *entry = dmcore__target_frame(frame);
	struct dmcore_target *target = entry->target;
	enum dmcore_end_result result;
	int status = bio->status;

	if (wants_end(target->type, status)) {
		/* The frame stays below the bio if the target keeps it; its end has run. */
		frame->end = NULL;
		bio->bdev = entry->bdev;
		result = target->type->end_io(target, bio, &status);
		if (dmcore__unlikely(result != DMCORE_END_DONE)) {
			if (result == DMCORE_END_INCOMPLETE)
				return DMCORE__UNWIND_STOP;
			if (result == DMCORE_END_AGAIN)
				return send_again(bio, frame);
			status = requeue_status(target);
		}
		bio->status = status;
	}
	dmcore__frame_pop(bio, frame);
	return DMCORE__UNWIND_ON;
}

void *dmcore_bio_target_data(struct dmcore_bio *bio)
{
	struct dmcore__frame *frame = dmcore__frame_top(bio);

	DMCORE__ASSERT(bio->internal.top_bytes > sizeof(struct dmcore__frame));
	return dmcore__frame_data(frame);
}

void dmcore_bio_forward(struct dmcore_bio *bio)
{
	struct dmcore__frame *frame = dmcore__frame_top(bio);
	struct dmcore__target_frame *entry = dmcore__target_frame(frame);

	dmcore__target_frame_arm(frame);
	entry->bdev = bio->bdev;
	dmcore__bio_send(bio);
}

static DMCORE__NOINLINE enum dmcore__route end_unmapped(struct dmcore_bio *bio,
							const struct dmcore_target *target,
							enum dmcore_map_result result)
{
	dmcore_bio_complete(bio, result == DMCORE_MAP_REQUEUE ? requeue_status(target) : -EIO);
	return DMCORE__ROUTE_TAKEN;
}

/* Does what map has left to the core. */
static inline enum dmcore__route follow(struct dmcore_bio *bio, const struct dmcore_target *target,
					enum dmcore_map_result result)
{
	if (dmcore__likely(result == DMCORE_MAP_REMAPPED))
		return DMCORE__ROUTE_NEXT;
	if (dmcore__unlikely(result >= DMCORE_MAP_KILL))
		return end_unmapped(bio, target, result);
	return DMCORE__ROUTE_TAKEN;
}

/* For a target that wants to see the bio again, or keeps data with it. */
static DMCORE__NOINLINE enum dmcore__route map_with_frame(struct dmcore_bio *bio,
							  struct dmcore_target *target,
							  uint32_t slot)
{
	uint32_t data_bytes =
		per_bio_bytes(target->type) + (uint32_t)sizeof(struct dmcore__target_frame);
	struct dmcore__frame *frame = dmcore__frame_push(bio, target_end, slot, data_bytes);
	struct dmcore__target_frame *entry = dmcore__target_frame(frame);
	enum dmcore_map_result result;

	entry->target = target;
	entry->bdev = bio->bdev;
	result = target->type->map(target, bio);
	/* A bio that was kept may be in other hands by now, and so may its frames. */
	if (dmcore__likely(result == DMCORE_MAP_REMAPPED))
		entry->bdev = bio->bdev;
	return follow(bio, target, result);
}

/* Pushes the target's frame and maps. `slot` is left when the bio comes back. */
static inline enum dmcore__route map_bio(struct dmcore_bio *bio, struct dmcore_target *target,
					 uint32_t slot)
{
	if (dmcore__unlikely(target->flags & DMCORE__TARGET_FRAMES))
		return map_with_frame(bio, target, slot);
	dmcore__frame_push(bio, NULL, slot, 0);
	return follow(bio, target, target->type->map(target, bio));
}

static enum dmcore__route dispatch(struct dmcore_bio *piece, void *token)
{
	return map_bio(piece, token, DMCORE__NO_SLOT);
}

/*
 * Where it would be if all targets were as long, and from there outwards in growing steps: where
 * they are, which is so in nearly every table of very many, that takes one look at memory that no
 * cache has; a binary search takes ten.
 */
static DMCORE__NOINLINE uint32_t find_afar(const struct dmcore_table *table, uint64_t sector)
{
	const uint64_t *ends = table->ends;
	uint32_t n = table->num_targets;
	uint32_t first = (uint32_t)((unsigned __int128)sector * table->guess_scale >> 64);
	uint32_t behind = first + 1;

	/* Target i is among [first, behind) once ends[first - 1] <= sector < ends[behind - 1]. */
	for (uint32_t step = 1; first > 0 && ends[first - 1] > sector; step *= 2) {
		behind = first;
		first -= step < first ? step : first;
	}
	for (uint32_t step = 1; behind < n && ends[behind - 1] <= sector; step *= 2) {
		first = behind;
		behind += step < n - behind ? step : n - behind;
	}
	return first + (uint32_t)dmcore__find_range(ends + first, behind - first, sector);
}

/* The index of the target that holds `sector`, which lies within the table. */
static inline uint32_t find_target(const struct dmcore_table *table, uint64_t sector, uint32_t hint)
{
	const uint64_t *ends = table->ends;
	uint32_t n = table->num_targets;

	if (n == 1)
		return 0;
	if (hint < n && sector < ends[hint] && (hint == 0 || sector >= ends[hint - 1]))
		return hint;
	hint++;
	if (hint < n && sector < ends[hint] && sector >= ends[hint - 1])
		return hint;
	return find_afar(table, sector);
}

/* How many sectors from `sector` on the target takes in one READ or WRITE. */
static inline uint64_t max_len(const struct dmcore_target *target, uint64_t end, uint64_t sector)
{
	uint64_t len = end - sector;
	uint32_t max = target->max_io_sectors;

	if (max) {
		uint64_t offset = sector - target->begin;
		uint64_t into = (max & (max - 1)) == 0 ? offset & (max - 1) : offset % max;

		len = dmcore__min_u64(len, max - into);
	}
	return len;
}

static int next_range(struct dmcore__fan *fan, struct dmcore_bio *piece, void **token)
{
	const struct dmcore_table *table = fan->context;
	uint32_t i = find_target(table, fan->sector, fan->index);
	struct dmcore_target *target = dmcore__target_at(table, i);

	fan->index = i;
	piece->count =
		dmcore__min_u64(fan->count, max_len(target, table->ends[i], fan->sector));
	dmcore__fan_advance(fan, piece->count);
	if (fan->count == 0)
		fan->next = NULL;
	*token = target;
	return 0;
}

static unsigned int num_bios(const struct dmcore_target *target, enum dmcore_op op)
{
	return target->type->num_bios ? target->type->num_bios(target, op) : 0;
}

/* The same for one DISCARD or WRITE_ZEROES. */
static inline uint64_t max_copy_len(const struct dmcore_target *target, uint64_t end,
				    uint64_t sector)
{
	return target->flags & DMCORE_TARGET_SPLITS_ALL ? max_len(target, end, sector) :
							  end - sector;
}

/* DISCARD and WRITE_ZEROES: each target's range, in as many copies as it wants. */
static int next_copy(struct dmcore__fan *fan, struct dmcore_bio *piece, void **token)
{
	const struct dmcore_table *table = fan->context;
	uint32_t i = find_target(table, fan->sector, 0);
	struct dmcore_target *target = dmcore__target_at(table, i);
	unsigned int copies = num_bios(target, fan->op);

	piece->count =
		dmcore__min_u64(fan->count, max_copy_len(target, table->ends[i], fan->sector));
	piece->bio_nr = fan->index++;
	if (fan->index >= copies) {
		fan->index = 0;
		dmcore__fan_advance(fan, piece->count);
		if (fan->count == 0)
			fan->next = NULL;
	}
	*token = target;
	return copies ? 0 : -EOPNOTSUPP;
}

static int next_flush(struct dmcore__fan *fan, struct dmcore_bio *piece, void **token)
{
	const struct dmcore_table *table = fan->context;
	const struct dmcore__flush_step *step = &table->flush_steps[fan->index++];

	if (fan->index == table->num_flush_steps)
		fan->next = NULL;
	if (step->bdev) {
		piece->bdev = step->bdev;
		return 0;
	}
	piece->bio_nr = step->bio_nr;
	*token = step->target;
	return 0;
}

/* ---- requests that may be pushed back ---- */

/*
 * Whether a request may wait for the next table: also if the suspend that had its target push it
 * back has just been given up, and then it is the same table's.
 */
static bool may_wait(const struct dmcore_device *device, const struct dmcore__saved_request *saved)
{
	return atomic_load_explicit(&device->noflush, memory_order_acquire) ||
	       atomic_load_explicit(&device->num_given_up, memory_order_relaxed) != saved->moment;
}

/* A request has ended, or its target wants the next table to carry it out. */
static enum dmcore__unwind requeue_end(struct dmcore_bio *bio, struct dmcore__frame *frame)
{
	const struct dmcore__saved_request *saved = dmcore__frame_data(frame);
	const struct dmcore_device *device = saved->bdev->private_data;
	struct dmcore_queue *queue = bio->queue;

	if (bio->status != DMCORE_STATUS_REQUEUE) {
		dmcore__frame_pop(bio, frame);
		return DMCORE__UNWIND_ON;
	}
	if (!may_wait(device, saved)) {
		bio->status = -EIO;
		dmcore__frame_pop(bio, frame);
		return DMCORE__UNWIND_ON;
	}
	dmcore__request_restore(saved, bio);
	bio->status = 0;
	/* In line first: whoever sees the device empty sees who waits. */
	dmcore__bio_defer(bio);
	dmcore__frame_pop(bio, frame);
	dmcore__bio_undo_preflush(bio);
	/* A suspend that was given up has looked for deferred bios, perhaps before this one. Pairs
	 * with the fence there. */
	atomic_thread_fence(memory_order_seq_cst);
	if (!atomic_load_explicit(&device->noflush, memory_order_relaxed)) {
		dmcore__inbox_ask_replay(queue);
		dmcore__inbox_wake(queue);
	}
	return DMCORE__UNWIND_STOP;
}

bool dmcore__map_is_pushed_back(const struct dmcore_bio *bio, const struct dmcore__frame *frame)
{
	const struct dmcore__frame *below =
		(const struct dmcore__frame *)(const void *)((const char *)(frame + 1) -
							     frame->bytes) - 1;
	const struct dmcore__saved_request *saved;

	if (bio->internal.top_bytes <= frame->bytes || below->end != requeue_end)
		return false;
	saved = (const struct dmcore__saved_request *)(const void *)below - 1;
	return may_wait(saved->bdev->private_data, saved);
}

/* Keeps the request as it is, if a target may push it back; returns the slot for other frames. */
static inline uint32_t keep_request(const struct dmcore_table *table, struct dmcore_bio *bio,
				    uint32_t slot)
{
	struct dmcore__saved_request *saved;
	const struct dmcore_device *device;
	struct dmcore__frame *frame;

	if (dmcore__likely(!table->requeues))
		return slot;
	frame = dmcore__frame_push(bio, requeue_end, slot, DMCORE__SAVED_BYTES);
	saved = dmcore__frame_data(frame);
	dmcore__request_save(saved, bio);
	device = bio->bdev->private_data;
	saved->moment = atomic_load_explicit(&device->num_given_up, memory_order_relaxed);
	return DMCORE__NO_SLOT;
}

/* ---- all but a READ or WRITE of a running device ---- */

static enum dmcore__route route_flush(struct dmcore_table *table, struct dmcore_bio *bio,
				      uint32_t slot)
{
	struct dmcore__flush_step *step = table->flush_steps;

	slot = keep_request(table, bio, slot);
	if (table->num_flush_steps == 1 && !step->bdev) {
		bio->bio_nr = step->bio_nr;
		return map_bio(bio, step->target, slot);
	}
	dmcore__frame_push(bio, NULL, slot, 0);
	if (table->num_flush_steps == 0) {
		dmcore_bio_complete(bio, 0);
		return DMCORE__ROUTE_TAKEN;
	}
	if (table->num_flush_steps == 1) {
		bio->bdev = step->bdev;
		return DMCORE__ROUTE_NEXT;
	}
	dmcore__fan_start(bio, next_flush, dispatch, table, 0);
	return DMCORE__ROUTE_TAKEN;
}

/* DISCARD and WRITE_ZEROES. */
static enum dmcore__route route_copies(struct dmcore_table *table, struct dmcore_bio *bio,
				       uint32_t slot)
{
	struct dmcore_target *target = dmcore__target_at(table, 0);

	if (table->num_targets == 1 && num_bios(target, bio->op) == 1 &&
	    bio->count <= max_copy_len(target, table->ends[0], bio->sector)) {
		bio->bio_nr = 0;
		return map_bio(bio, target, slot);
	}
	dmcore__frame_push(bio, NULL, slot, 0);
	dmcore__fan_start(bio, next_copy, dispatch, table, 0);
	return DMCORE__ROUTE_TAKEN;
}

static enum dmcore__route refuse(struct dmcore_bio *bio, uint32_t slot, int status)
{
	dmcore__slot_leave(bio->queue, slot);
	dmcore_bio_complete(bio, status);
	return DMCORE__ROUTE_TAKEN;
}

/* Whether a request's range is one of the device's. */
static inline bool suits(const struct dmcore_bdev *bdev, const struct dmcore_table *table,
			 const struct dmcore_bio *bio)
{
	if (dmcore__unlikely(bio->count > table->size_sectors ||
			     bio->sector > table->size_sectors - bio->count))
		return false;
	return !((bio->sector | bio->count) & dmcore__bdev_block_mask(bdev));
}

/* What is wrong with a request with a range: 0 or its status. */
static int check(const struct dmcore_bdev *bdev, const struct dmcore_table *table,
		 const struct dmcore_bio *bio)
{
	if (bio->count > table->size_sectors ||
	    bio->sector > table->size_sectors - bio->count)
		return -EIO;
	if ((bio->sector | bio->count) & dmcore__bdev_block_mask(bdev))
		return -EINVAL;
	return dmcore__bdev_read_only(bdev) && bio->op != DMCORE_OP_READ ? -EROFS : 0;
}

/* A request to a device through which none passes now. */
static enum dmcore__route stop(struct dmcore_bdev *bdev, struct dmcore_bio *bio)
{
	struct dmcore_device *device = bdev->private_data;
	struct dmcore_queue *queue = bio->queue;

	/* Suspended or not, without a table there is nothing to wait for. */
	if (!atomic_load_explicit(&device->active, memory_order_relaxed))
		return refuse(bio, bdev->slot, -EIO);
	/* One that was pushed back waits on, though the resume of another device has sent it. */
	if (bio->flags & DMCORE_BIO_NOWAIT && queue->replay_slot != bdev->slot)
		return refuse(bio, bdev->slot, -EAGAIN);
	if (bio->flags & DMCORE_BIO_RAHEAD && queue->replay_slot != bdev->slot)
		return refuse(bio, bdev->slot, -EIO);
	dmcore__bio_defer(bio);
	dmcore__slot_leave(queue, bdev->slot);
	/* Pairs with the fence of who has resumed it and looks for deferred bios. */
	atomic_thread_fence(memory_order_seq_cst);
	if (atomic_load_explicit(&device->live, memory_order_relaxed)) {
		dmcore__inbox_ask_replay(queue);
		dmcore__inbox_wake(queue);
	}
	return DMCORE__ROUTE_TAKEN;
}

/* All but a READ or WRITE that the device takes. The slot has been entered. */
static DMCORE__NOINLINE enum dmcore__route
route_other(struct dmcore_bdev *bdev, struct dmcore_table *table, struct dmcore_bio *bio)
{
	int status;

	if (!table)
		return stop(bdev, bio);
	if (bio->flags & DMCORE_BIO_PREFLUSH)
		dmcore__bio_preflush(bio);
	if (bio->op == DMCORE_OP_FLUSH)
		return route_flush(table, bio, bdev->slot);
	status = check(bdev, table, bio);
	if (status)
		return refuse(bio, bdev->slot, status);
	return route_copies(table, bio, keep_request(table, bio, bdev->slot));
}

/* A READ or WRITE; `entry` is the device's slot, `slot` the one that the next frame leaves. */
static inline enum dmcore__route route_range(struct dmcore_table *table, struct dmcore_bio *bio,
					     struct dmcore__slot *entry, uint32_t slot)
{
	uint32_t i = find_target(table, bio->sector, entry->hint);
	struct dmcore_target *target = dmcore__target_at(table, i);

	entry->hint = i;
	if (dmcore__likely(bio->count <= max_len(target, table->ends[i], bio->sector)))
		return map_bio(bio, target, slot);
	dmcore__frame_push(bio, NULL, slot, 0);
	dmcore__fan_start(bio, next_range, dispatch, table, 0);
	return DMCORE__ROUTE_TAKEN;
}

/* Among several targets, or with one that splits, keeps a frame or pushes back. */
static DMCORE__NOINLINE enum dmcore__route route_multi(struct dmcore_table *table,
						       struct dmcore_bio *bio, uint32_t slot)
{
	return route_range(table, bio, &bio->queue->slots[slot], keep_request(table, bio, slot));
}

/* Within a chunk of the only target, which is told of failures only. */
static DMCORE__NOINLINE enum dmcore__route route_chunked(struct dmcore_table *table,
							 struct dmcore_bio *bio, uint32_t slot)
{
	struct dmcore_target *target = table->chunked;
	struct dmcore__target_frame *entry;
	struct dmcore__frame *frame;
	enum dmcore_map_result result;

	if (dmcore__unlikely(!target || (bio->sector & table->chunk_mask) + bio->count - 1 >
						table->chunk_mask))
		return route_multi(table, bio, slot);
	frame = dmcore__frame_push(bio, target_end, slot, sizeof(*entry));
	frame->errors_only = 1;
	entry = dmcore__target_frame(frame);
	entry->target = target;
	entry->bdev = bio->bdev;
	result = target->type->map(target, bio);
	if (dmcore__likely(result == DMCORE_MAP_REMAPPED))
		entry->bdev = bio->bdev;
	return follow(bio, target, result);
}

/* Enters the device's slot; returns the table to go through, NULL if none passes now. */
static inline struct dmcore_table *enter(const struct dmcore_bdev *bdev,
					 const struct dmcore_bio *bio, uint32_t slot, bool fenced)
{
	const struct dmcore_device *device = bdev->private_data;

	dmcore__slot_enter(bio->queue, slot);
	/* Unfenced, the waiter's membarrier() keeps the two in order, if the compiler has. */
	if (fenced)
		atomic_thread_fence(memory_order_seq_cst);
	else
		atomic_signal_fence(memory_order_seq_cst);
	return atomic_load_explicit(&device->live, memory_order_acquire);
}

static inline __attribute__((always_inline)) enum dmcore__route
route(struct dmcore_bdev *bdev, struct dmcore_bio *bio, bool fenced)
{
	uint32_t slot = bdev->slot;
	struct dmcore_table *table = enter(bdev, bio, slot, fenced);
	struct dmcore_target *target;

	if (dmcore__unlikely(!table || dmcore__bdev_is_special(bdev, bio) ||
			     !suits(bdev, table, bio)))
		return route_other(bdev, table, bio);
	target = table->plain;
	if (dmcore__unlikely(!target))
		return route_chunked(table, bio, slot);
	dmcore__frame_push(bio, NULL, slot, 0);
	return (enum dmcore__route)target->type->map(target, bio);
}

enum dmcore__route dmcore__map_route(struct dmcore_bdev *bdev, struct dmcore_bio *bio)
{
	return route(bdev, bio, false);
}

enum dmcore__route dmcore__map_route_fenced(struct dmcore_bdev *bdev, struct dmcore_bio *bio)
{
	return route(bdev, bio, true);
}

/* All but a flush; `slot` is what the next frame leaves. */
static DMCORE__NOINLINE enum dmcore__route route_on(struct dmcore_table *table,
						    struct dmcore_bio *bio,
						    struct dmcore__slot *entry, uint32_t slot)
{
	if (bio->op > DMCORE_OP_WRITE)
		return route_copies(table, bio, slot);
	return route_range(table, bio, entry, slot);
}

/*
 * What waits, flushes first or is refused isn't counted: it comes again, or never gets inside. The
 * frame that counts is above the one that keeps the request, to see what is pushed back.
 */
static inline __attribute__((always_inline)) enum dmcore__route
route_counted(struct dmcore_bdev *bdev, struct dmcore_bio *bio, bool fenced)
{
	const struct dmcore_device *device = bdev->private_data;
	struct dmcore_table *table = enter(bdev, bio, bdev->slot, fenced);
	struct dmcore__slot *entry = &bio->queue->slots[bdev->slot];
	uint32_t slot;

	if (dmcore__unlikely(!table || bio->op == DMCORE_OP_FLUSH ||
			     bio->flags & DMCORE_BIO_PREFLUSH || check(bdev, table, bio)))
		return route_other(bdev, table, bio);
	slot = keep_request(table, bio, bdev->slot);
	/* Whoever had the route before the last region went finds none. */
	if (dmcore__unlikely(!device->stats))
		return route_on(table, bio, entry, slot);
	dmcore__stats_begin(device->stats, bio, slot);
	/* Its frame leaves the slot, so that a target that only maps needs none. */
	if (dmcore__likely(table->plain && bio->op <= DMCORE_OP_WRITE))
		return (enum dmcore__route)table->plain->type->map(table->plain, bio);
	return route_on(table, bio, entry, DMCORE__NO_SLOT);
}

enum dmcore__route dmcore__map_route_counted(struct dmcore_bdev *bdev, struct dmcore_bio *bio)
{
	return route_counted(bdev, bio, false);
}

enum dmcore__route dmcore__map_route_counted_fenced(struct dmcore_bdev *bdev,
						    struct dmcore_bio *bio)
{
	return route_counted(bdev, bio, true);
}
