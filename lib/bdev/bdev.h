/* SPDX-License-Identifier: MIT */
/*
 * struct dmcore_bdev, shared by leaf devices (a driver carries out bios) and mapped devices (a
 * route function sends them on). bdev.c opens and closes; bio.c submits; map/device.c makes the
 * mapped ones.
 */
#ifndef DMCORE_LIB_BDEV_BDEV_H
#define DMCORE_LIB_BDEV_BDEV_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <dmcore/bdev.h>
#include <dmcore/bio.h>
#include <dmcore/driver.h>

#include "base/core.h"
#include "base/list.h"

/* What a route function did with a bio. */
enum dmcore__route {
	DMCORE__ROUTE_NEXT,  /* bio->bdev is the next device: go on there */
	DMCORE__ROUTE_TAKEN, /* the bio is in other hands, or has been completed */
};

typedef enum dmcore__route (*dmcore__route_fn)(struct dmcore_bdev *bdev, struct dmcore_bio *bio);

struct dmcore_bdev {
	/* Hot: read by every request. */
	dmcore__route_fn route;           /* NULL: a leaf */
	void *private_data;               /* the driver's, or the struct dmcore_device */
	_Atomic uint64_t size_sectors;
	uint32_t slot;                    /* index into dmcore_queue::slots */
	uint32_t block_mask_sectors;      /* logical block - 1 */
	unsigned int caps;
	bool read_only;
	const struct dmcore_driver *driver;
	struct dmcore *core;
	uint64_t whole_sectors;           /* a READ or WRITE up to so long surely needs no split */

	/* Cold. */
	char *name;
	char *key;                        /* what driver->identify said, or NULL: never shared */
	unsigned int flags;
	unsigned int open_count;
	unsigned int table_opens;         /* of those, the ones that tables hold */
	uint32_t frame_bytes;             /* completion frames that a bio needs from here down */
	uint32_t depth;                   /* mapped devices from here down; 0: a leaf */
	struct dmcore_limits limits;
	struct dmcore__list link;         /* core->bdevs->list */
};

struct dmcore__bdevs {
	struct dmcore__list list;
	struct dmcore__list drivers;
	uint32_t *free_slots;
	uint32_t num_free_slots;
	uint32_t num_slots;
};

int dmcore__bdevs_create(struct dmcore *core);
void dmcore__bdevs_destroy(struct dmcore *core);

/*
 * Makes the bdev of a mapped device, listed under its name, with no opening yet. Control lock held,
 * as for the rest here.
 */
int dmcore__bdev_create_mapped(struct dmcore *core, const char *name, dmcore__route_fn route,
			       void *device, bool read_only, struct dmcore_bdev **result);
void dmcore__bdev_destroy_mapped(struct dmcore_bdev *bdev);

/* The mapped device of that name (NAME or /dev/mapper/NAME), or NULL. */
struct dmcore_bdev *dmcore__bdev_find_mapped(struct dmcore *core, const char *name);

/* Sets what the hot fields are derived from. */
void dmcore__bdev_apply_limits(struct dmcore_bdev *bdev, const struct dmcore_limits *limits);

/* Blocks of 512 bytes and no maximum: the neutral element of stacking. limits.c, as the next. */
void dmcore__limits_default(struct dmcore_limits *limits);
/* A struct of the caller's size to or from ours. -EINVAL: no struct_size. */
int dmcore__limits_copy_out(const struct dmcore_limits *from, struct dmcore_limits *to);
int dmcore__limits_copy_in(const struct dmcore_limits *from, struct dmcore_limits *to);

#endif
