/* SPDX-License-Identifier: MIT */
/*
 * Tables, mapped devices and the registry of target types, as the files of map/ share them.
 * registry.c: types; table.c, resources.c, shared.c, parse.c: building; limits.c, flush.c:
 * completing; submit.c: the way of a bio, copies.c: to several devices; extent.c: where it goes;
 * device.c, concise.c, info.c: devices; suspend.c: their states; depth.c: how they stand on each
 * other; status.c, message.c: texts; event.c, stats*.c: what is counted.
 */
#ifndef DMCORE_LIB_MAP_MAP_H
#define DMCORE_LIB_MAP_MAP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <dmcore/device.h>
#include <dmcore/table.h>
#include <dmcore/target.h>

#include "base/core.h"
#include "base/list.h"
#include "bdev/bdev.h"
#include "bdev/bio.h"

/* Targets stand in blocks, for a constructor may keep the address of its own. */
#define DMCORE__TARGET_BLOCK_SHIFT 6
#define DMCORE__TARGET_BLOCK (1u << DMCORE__TARGET_BLOCK_SHIFT)

/* In dmcore_target::flags, the core's: the type has an end_io or per-bio data. */
#define DMCORE__TARGET_FRAMES (1u << 31)

/* What stands above a target's per-bio data, right below the header of its frame. */
struct dmcore__target_frame {
	struct dmcore_target *target;
	struct dmcore_bdev *bdev; /* where map sent the bio, for end_io */
};

static inline struct dmcore__target_frame *dmcore__target_frame(struct dmcore__frame *frame)
{
	return (struct dmcore__target_frame *)(void *)((char *)frame -
						       sizeof(struct dmcore__target_frame));
}

/* Of a bio that is sent on: its target's end_io sees its end, if need be once more. */
void dmcore__target_frame_arm(struct dmcore__frame *frame);

/* One step of a table's flush: a device of its own, or a copy for a target's map. */
struct dmcore__flush_step {
	struct dmcore_bdev *bdev;     /* or NULL: */
	struct dmcore_target *target;
	uint32_t bio_nr;
};

/* Memory of a table, freed in one go. */
struct dmcore__arena_chunk;

/* A device that a table has opened, under each name by which it was asked for. */
struct dmcore__table_device;

/* What it has in common with other tables, once for each time that it was asked for. */
struct dmcore__table_shared;

struct dmcore_table {
	/* Hot, and constant once complete. */
	uint64_t size_sectors;
	struct dmcore_target *plain;       /* the only one, if all it does with any READ or
					      WRITE is map; or NULL */
	struct dmcore_target *chunked;     /* the only one, if all it does with a READ or WRITE
					      within a chunk is map, unless it fails; or NULL */
	uint64_t chunk_mask;               /* of `chunked`: sectors of a chunk - 1 */
	uint32_t num_targets;
	bool simple;                       /* never needs a fan: one target, no split, no copies */
	uint64_t *ends;                    /* [i]: first sector behind target i */
	uint64_t guess_scale;              /* targets by sector, in units of 2^-64 */
	struct dmcore_target **blocks;
	struct dmcore__flush_step *flush_steps;
	uint32_t num_flush_steps;

	bool requeues;                     /* a target may push bios back */

	/* Cold. */
	bool hooks;                        /* a target wants to know of suspends or resumes */
	bool wildcard;
	const struct dmcore_target_type *immutable; /* or NULL; singleton likewise */
	const struct dmcore_target_type *singleton;
	uint32_t frame_bytes;              /* frames needed from this table down */
	uint32_t depth;
	struct dmcore *core;
	unsigned int flags;
	bool complete;
	uint64_t checked_generation;       /* of all bdevs, when its own were found to suit it */
	struct dmcore_device *device;      /* that it is loaded into, or NULL */
	struct dmcore_limits limits;
	uint32_t room_targets;             /* of ends */
	uint32_t num_blocks;
	struct dmcore__arena_chunk *arena;
	struct dmcore__table_device **devices; /* hash table */
	uint32_t num_device_buckets;
	uint32_t num_devices;
	struct dmcore__table_device *newest_device; /* the others follow by age */
	struct dmcore__table_shared *newest_shared; /* likewise */
	int lookup_error;                  /* of the last device that a constructor didn't get */
	uint32_t failed_target;            /* that dmcore__table_finish() stopped at */
	bool warned;                       /* of an alignment inconsistency */
	uint32_t per_bio_bytes_max;        /* of its targets */
	struct dmcore__list link;          /* core->map->tables */
};

enum dmcore__device_state {
	DMCORE__DEVICE_SUSPENDED,
	DMCORE__DEVICE_RUNNING,
	DMCORE__DEVICE_SUSPENDING, /* by a call that has given up the control lock for a while */
	DMCORE__DEVICE_RESUMING,   /* likewise */
	DMCORE__DEVICE_REMOVED,
	DMCORE__DEVICE_STATES,
};

struct dmcore__stats;

struct dmcore_device {
	/* What bios go through; NULL: none passes. Stored by suspend.c alone. */
	_Atomic(struct dmcore_table *) live;
	/* The live slot, also of a suspended device. */
	_Atomic(struct dmcore_table *) active;
	_Atomic bool noflush;              /* bios may be pushed back */
	_Atomic uint32_t num_given_up;     /* suspends that were */
	struct dmcore_bdev *bdev;
	struct dmcore *core;
	struct dmcore_table *inactive;
	enum dmcore__device_state state;   /* set by dmcore__device_set_state() */
	bool read_only;
	bool marked;                       /* device.c's, while it looks for cycles */
	bool deferred_remove;
	pthread_t changer;                 /* whose call it is that changes it */
	unsigned int num_waiting;          /* calls that wait for another one to end */
	const void *maker;                 /* concise.c's */
	char *uuid;                        /* or NULL */
	struct dmcore__stats *stats;       /* stats.c's; NULL: it has no regions */
	struct dmcore__list link;          /* core->map->devices */

	_Atomic uint32_t event_nr;         /* event.c's, as the rest */
	struct dmcore__list watches;
	unsigned int num_event_waiters;
	bool gone;
};

struct dmcore__map {
	struct dmcore__list types;         /* in order of their names */
	struct dmcore__list devices;       /* in order of creation */
	struct dmcore__list tables;        /* every one that exists */
	struct dmcore__list shared;        /* shared.c's */
	unsigned int num_watches;
	uint64_t stats_bytes;              /* of all counters, see stats_region.c */
	pthread_mutex_t events_lock;       /* short; the clock alone is called with it held */
	pthread_cond_t event;              /* one was raised, or a waiter has gone */
};

int dmcore__map_create(struct dmcore *core);
/* Destroys every device, uppermost first, and the registry. */
void dmcore__map_destroy(struct dmcore *core);

/* registry.c */
const struct dmcore_target_type *dmcore__target_type_find(struct dmcore *core, const char *name);

/* table.c: a table of the control plane, lock held by the caller as for all that follows. */

/* A table line: type and params are pieces of a longer text. */
struct dmcore__line {
	uint64_t start;
	uint64_t length;
	const char *type;
	size_t type_bytes;
	const char *params;
	size_t params_bytes;
};

struct dmcore_target *dmcore__table_target(const struct dmcore_table *table, uint32_t index);
/* What dmcore_table_add() does. */
int dmcore__table_add_line(struct dmcore_table *table, const struct dmcore__line *line);
/* Grows room for so many targets at once; spares a parser of many lines the doubling. */
int dmcore__table_reserve(struct dmcore_table *table, uint32_t num_targets);
/* Destroys a table whether it is loaded or not. */
void dmcore__table_destroy(struct dmcore_table *table);

/* resources.c: the memory and the devices that a table keeps for its targets. */

/* How much a table keeps at one moment. All zero: nothing. */
struct dmcore__mark {
	struct dmcore__arena_chunk *chunk;
	size_t used_bytes;
	struct dmcore__table_device *device;
	struct dmcore__table_shared *shared;
};

/* Zeroed memory that lives as long as the table, or NULL. */
void *dmcore__table_alloc(struct dmcore_table *table, size_t bytes);
struct dmcore__mark dmcore__table_mark(const struct dmcore_table *table);
/* Gives back what a table has taken since `mark`. */
void dmcore__table_rewind(struct dmcore_table *table, struct dmcore__mark mark);
/* Calls fn for each device of a table until it returns non-zero; for one that was asked for under
 * two names, twice. */
int dmcore__table_each_device(struct dmcore_table *table,
			      int (*fn)(struct dmcore_bdev *bdev, void *context), void *context);

/* shared.c: gives up what a table has come to share since `to` was its newest. */
void dmcore__shared_rewind(struct dmcore_table *table, struct dmcore__table_shared *to);

/* limits.c */

/* What dmcore_table_complete() does; the message says nothing of the place: failed_target does. */
int dmcore__table_finish(struct dmcore_table *table);
/* As dmcore_table_complete(), with the place in the message. */
int dmcore__table_complete(struct dmcore_table *table);
/* Checks again that the devices below suit a complete table, and stacks their limits again, as a
 * resume must. */
int dmcore__table_check_areas(struct dmcore_table *table);
/* Works out frame_bytes and depth from the devices below as they now are. */
int dmcore__table_measure(struct dmcore_table *table);

/* flush.c: sets flush_steps, plain, chunked and simple. */
int dmcore__table_plan_flush(struct dmcore_table *table);

/* parse.c: as dmcore_table_parse(). */
int dmcore__table_parse(struct dmcore *core, const char *text, unsigned int flags,
			struct dmcore_table **result);

/* The table in the live slot. Control lock held: nobody else writes it. */
static inline struct dmcore_table *dmcore__device_active(const struct dmcore_device *device)
{
	return atomic_load_explicit(&device->active, memory_order_relaxed);
}

/* device.c */
int dmcore__device_create(struct dmcore *core, const char *name, const char *uuid,
			  unsigned int flags, struct dmcore_device **result);
int dmcore__device_load(struct dmcore_device *device, struct dmcore_table *table);
int dmcore__device_remove(struct dmcore_device *device);
/* A mapped device has been closed by its last user. */
void dmcore__device_closed(struct dmcore_bdev *bdev);
/* Removes every device, uppermost first. */
void dmcore__devices_destroy(struct dmcore *core);

/* extent.c: as dmcore_bdev::place. */
int dmcore__map_place(struct dmcore_bdev *bdev, uint64_t sector, struct dmcore_place *place);

/* suspend.c */
void dmcore__device_set_state(struct dmcore_device *device, enum dmcore__device_state state);
/* As dmcore_device_resume(). */
int dmcore__device_resume(struct dmcore_device *device);
/* Makes the inactive table the live one; -EINVAL unless the device is suspended. `*old` is the one
 * before, to be destroyed by the caller. */
int dmcore__device_swap(struct dmcore_device *device, struct dmcore_table **old);
/*
 * Waits until no bio is inside a device, and keeps it so until _unquiesce(), which is to be called
 * soon: targets aren't told. Errors of dmcore_device_suspend(); nothing to be undone then.
 */
int dmcore__device_quiesce(struct dmcore_device *device);
void dmcore__device_unquiesce(struct dmcore_device *device);
/* Runs what the targets of a device that is about to go want to do. */
void dmcore__device_run_down(struct dmcore_device *device);

/* depth.c */
/*
 * Sets how many frames and devices a bio needs from this device down, and what follows for those
 * above it. -ELOOP: it would be too many there; nothing has changed.
 */
int dmcore__device_set_depth(struct dmcore_device *device, uint32_t frame_bytes, uint32_t depth);

/* stats.c */

/* A message to the statistics of a device. 1: it is none. */
int dmcore__stats_message(struct dmcore_device *device, struct dmcore_args *args,
			  struct dmcore_text *reply);
/* Bytes of frames that counting takes on a device as it now is. */
uint32_t dmcore__stats_frame_bytes(const struct dmcore_device *device);
/* Has queues that come and go be told to the statistics; or no longer. stats_lane.c */
void dmcore__stats_watch_queues(struct dmcore *core, bool on);
/* Frees all regions of a device that is going. */
void dmcore__stats_destroy(struct dmcore_device *device);

/* message.c: a message to the device itself. 1: it is none. */
int dmcore__device_own_message(struct dmcore_device *device, struct dmcore_args *args,
			       struct dmcore_text *reply);

/* event.c */
void dmcore__events_create(struct dmcore__map *map);
void dmcore__events_destroy(struct dmcore__map *map);
void dmcore__device_raise_event(struct dmcore_device *device);
/* Tells waiters and watches that the device goes, and waits until nobody waits any more. */
void dmcore__events_end(struct dmcore_device *device);

/* submit.c: the route functions of every mapped device; the second without membarrier(). */
enum dmcore__route dmcore__map_route(struct dmcore_bdev *bdev, struct dmcore_bio *bio);
enum dmcore__route dmcore__map_route_fenced(struct dmcore_bdev *bdev, struct dmcore_bio *bio);
/* The same, of a device with regions of statistics. */
enum dmcore__route dmcore__map_route_counted(struct dmcore_bdev *bdev, struct dmcore_bio *bio);
enum dmcore__route dmcore__map_route_counted_fenced(struct dmcore_bdev *bdev,
						    struct dmcore_bio *bio);
/* Bytes of frames that one layer takes. */
uint32_t dmcore__map_frame_bytes(const struct dmcore_table *table);
/* More for a table of which a target sends copies. */
uint32_t dmcore__copies_frame_bytes(void);

/*
 * Which of `n` ranges holds `value`, where range i reaches up to ends[i], exclusive. The last one
 * holds all that the others don't: its end isn't looked at.
 */
static inline uint64_t dmcore__find_range(const uint64_t *ends, uint64_t n, uint64_t value)
{
	uint64_t base = 0;

	while (n > 1) {
		uint64_t half = n / 2;

		base += ends[base + half - 1] <= value ? half : 0;
		n -= half;
	}
	return base;
}

static inline struct dmcore_target *dmcore__target_at(const struct dmcore_table *table, uint32_t i)
{
	return &table->blocks[i >> DMCORE__TARGET_BLOCK_SHIFT][i & (DMCORE__TARGET_BLOCK - 1)];
}

#endif
