/* SPDX-License-Identifier: MIT */
/*
 * struct dmcore_bdev, shared by leaf devices (a driver carries out bios) and mapped devices (a
 * route function sends them on). bdev.c opens and closes; bio.c submits; map/device.c makes the
 * mapped ones.
 */
#ifndef DMCORE_LIB_BDEV_BDEV_H
#define DMCORE_LIB_BDEV_BDEV_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <dmcore/bdev.h>
#include <dmcore/bio.h>
#include <dmcore/driver.h>
#include <dmcore/target.h>

#include "base/checked.h"
#include "base/core.h"
#include "base/list.h"

/*
 * What a route function did with a bio: the values of enum dmcore_map_result, so that a target's
 * map is its last call. Any other value of those has the submit loop end the bio with -EIO.
 */
enum dmcore__route {
	DMCORE__ROUTE_TAKEN = DMCORE_MAP_SUBMITTED, /* in other hands, or completed */
	DMCORE__ROUTE_NEXT = DMCORE_MAP_REMAPPED,   /* bio->bdev is the next device: go on there */
};

typedef enum dmcore__route (*dmcore__route_fn)(struct dmcore_bdev *bdev, struct dmcore_bio *bio);

struct dmcore_bdev {
	/* Hot: read by every request. */
	_Atomic(dmcore__route_fn) route;  /* NULL: a leaf */
	void *private_data;               /* the driver's, or the struct dmcore_device */
	_Atomic uint64_t size_sectors;
	uint32_t slot;                    /* index into dmcore_queue::slots */
	_Atomic uint32_t block_mask_sectors; /* logical block - 1 */
	unsigned int caps;
	_Atomic uint32_t special_bits;    /* of dmcore__bio_word(): no plain read or write */
	const struct dmcore_driver *driver;
	struct dmcore *core;
	uint64_t whole_sectors;           /* a READ or WRITE up to so long surely needs no split */

	/* Cold. */
	char *name;
	char *key;                        /* what driver->identify said, or NULL: never shared */
	unsigned int flags;
	unsigned int open_count;
	unsigned int table_opens;         /* of those, the ones that tables hold */
	void (*closed)(struct dmcore_bdev *bdev); /* mapped: the last opening was given up */
	/* Mapped: what the live table has at a sector, as dmcore_target_type::extent; or -EIO. */
	int (*place)(struct dmcore_bdev *bdev, uint64_t sector, struct dmcore_place *place);
	_Atomic uint32_t num_failed_flushes; /* a leaf's; each may have lost what others wrote */
	_Atomic uint32_t num_deferred;    /* bios of all queues that wait for a resume */
	uint32_t frame_bytes;             /* completion frames that a bio needs from here down */
	uint32_t depth;                   /* mapped devices from here down; 0: a leaf */
	uint64_t told_in;                 /* the text of dependencies that has it; see status.c */
	struct dmcore_limits limits;
	struct dmcore__list link;         /* core->bdevs->list */
};

/* The function that sends a mapped device's bios on; NULL: a leaf. */
static inline dmcore__route_fn dmcore__bdev_route(const struct dmcore_bdev *bdev)
{
	return atomic_load_explicit(&bdev->route, memory_order_relaxed);
}

/* Logical block - 1. */
static inline uint32_t dmcore__bdev_block_mask(const struct dmcore_bdev *bdev)
{
	return atomic_load_explicit(&bdev->block_mask_sectors, memory_order_relaxed);
}

/* Whether a range is one of the device's, in whole blocks. */
static inline bool dmcore__bdev_has_range(const struct dmcore_bdev *bdev, uint64_t sector,
					  uint64_t count)
{
	uint64_t size = atomic_load_explicit(&bdev->size_sectors, memory_order_relaxed);

	return !((sector | count) & dmcore__bdev_block_mask(bdev)) && count <= size &&
	       sector <= size - count;
}

/* How much of a READ or WRITE a device with these limits takes in one piece. */
static inline uint64_t dmcore__limits_whole(const struct dmcore_limits *limits, uint64_t sector,
					    uint64_t count)
{
	uint64_t chunk = limits->chunk_sectors;

	if (chunk)
		count = dmcore__min_u64(count, chunk - sector % chunk);
	return dmcore__min_not_zero_u64(count, limits->max_io_sectors);
}

/* The operation and the flags of a bio in one word. */
static inline uint32_t dmcore__bio_word(const struct dmcore_bio *bio)
{
	return (uint32_t)bio->op | (uint32_t)bio->unused << 8 | (uint32_t)bio->flags << 16;
}

/* Every operation but READ and WRITE has one of these bits, WRITE the one below. */
#define DMCORE__WORD_NO_RW 0xfeu
#define DMCORE__WORD_WRITE 0x01u
#define DMCORE__WORD_PREFLUSH ((uint32_t)DMCORE_BIO_PREFLUSH << 16)
#define DMCORE__WORD_FUA ((uint32_t)DMCORE_BIO_FUA << 16)

static inline bool dmcore__bdev_read_only(const struct dmcore_bdev *bdev)
{
	return atomic_load_explicit(&bdev->special_bits, memory_order_relaxed) &
	       DMCORE__WORD_WRITE;
}

static inline bool dmcore__bdev_is_special(const struct dmcore_bdev *bdev,
					   const struct dmcore_bio *bio)
{
	return dmcore__bio_word(bio) &
	       atomic_load_explicit(&bdev->special_bits, memory_order_relaxed);
}

struct dmcore__bdevs {
	struct dmcore__list list;
	struct dmcore__list drivers;
	struct dmcore__list modules;  /* modules.c */
	uint32_t *free_slots;
	uint32_t num_free_slots;
	uint32_t num_slots;
	_Atomic uint64_t generation; /* grows when some device's size or limits change */
	uint64_t num_tellings;       /* texts of dependencies so far */
	/* Of dmcore_bdev::limits, which who holds the core's lock reads without it: the service
	 * asks for limits while a control call waits for it. */
	pthread_mutex_t limits_lock;
};

/* Whether a driver has an optional function: one of an older author ends before it. */
#define DMCORE__DRIVER_HAS(driver, function)                                                       \
	((driver)->struct_size >= offsetof(struct dmcore_driver, function) +                       \
					  sizeof((driver)->function) &&                            \
	 (driver)->function)

int dmcore__bdevs_create(struct dmcore *core);
void dmcore__bdevs_destroy(struct dmcore *core);

/* registry.c */
int dmcore__drivers_create(struct dmcore *core);
void dmcore__drivers_destroy(struct dmcore *core);
/* The driver whose name is the first `length` characters of `name`, or NULL. */
const struct dmcore_driver *dmcore__driver_find(struct dmcore *core, const char *name,
						size_t length);

/*
 * modules.c: loads the module of a driver that the core doesn't have, and finds the driver.
 * Control lock held.
 */
int dmcore__module_driver(struct dmcore *core, const char *name, size_t length,
			  const struct dmcore_driver **driver);
/* After the drivers, which are in the modules. */
void dmcore__modules_destroy(struct dmcore *core);

/*
 * Makes the bdev of a mapped device, listed under its name, with no opening yet. Control lock held,
 * as for the rest here.
 */
int dmcore__bdev_create_mapped(struct dmcore *core, const char *name, dmcore__route_fn route,
			       void *device, bool read_only, struct dmcore_bdev **result);
void dmcore__bdev_destroy_mapped(struct dmcore_bdev *bdev);
/* From now on nobody finds it. */
void dmcore__bdev_hide_mapped(struct dmcore_bdev *bdev);

/* As dmcore_bdev_open(), for who only reads; see dmcore_target_device_read_only(). */
int dmcore__bdev_open_to_read(struct dmcore *core, const char *spec, unsigned int flags,
			      struct dmcore_bdev **result);

/* The mapped device of that name (NAME or /dev/mapper/NAME), or NULL. */
struct dmcore_bdev *dmcore__bdev_find_mapped(struct dmcore *core, const char *name);

/* Set what the hot fields are derived from. limits.c, as the rest. */
void dmcore__bdev_apply_limits(struct dmcore_bdev *bdev, const struct dmcore_limits *limits);
void dmcore__bdev_set_read_only(struct dmcore_bdev *bdev, bool read_only);

/* Blocks of 512 bytes and no maximum: the neutral element of stacking. */
void dmcore__limits_default(struct dmcore_limits *limits);
/* A struct of the caller's size to or from ours. -EINVAL: no struct_size. */
int dmcore__limits_copy_out(const struct dmcore_limits *from, struct dmcore_limits *to);
int dmcore__limits_copy_in(const struct dmcore_limits *from, struct dmcore_limits *to);

#endif
