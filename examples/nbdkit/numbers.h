/* SPDX-License-Identifier: MIT */
/*
 * Numbers of block devices: libdevmapper goes by them, and the library has none. A mapped device
 * gets the lowest minor number that is free; what is no block device of the machine's gets one with
 * the major number 0, as the kernel has it for what has no device. Called by commands.c and
 * tables.c.
 */
#ifndef DMCORE_EXAMPLE_NBDKIT_NUMBERS_H
#define DMCORE_EXAMPLE_NBDKIT_NUMBERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <dmcore.h>

#include "devices.h"

struct numbers;

/* NULL: no memory. */
struct numbers *numbers_make(struct devices *devices);
void numbers_free(struct numbers *numbers);

/* All below but numbers_pin() and numbers_unpin() are called with devices_lock() held. */

/* Takes note of devices that have come and gone. 0 or -ENOMEM. */
int numbers_refresh(struct numbers *numbers);

/* NULL: there is no such device. */
struct dmcore_device *numbers_find(struct numbers *numbers, uint64_t dev);
struct dmcore_device *numbers_find_uuid(struct numbers *numbers, const char *uuid);

/* Of a device that there is. */
uint64_t numbers_of(struct numbers *numbers, const struct dmcore_device *device);

/* Gives a device that was just made a number of the client's choice. 0, -EBUSY, -EINVAL. */
int numbers_choose(struct numbers *numbers, struct dmcore_device *device, uint64_t dev);

/* Of what a table calls `spec`. */
uint64_t numbers_of_spec(struct numbers *numbers, const char *spec);

/* How many of a device's openings are pins. */
unsigned int numbers_pins(struct numbers *numbers, const struct dmcore_device *device);

/*
 * The arguments of a target with names in place of numbers of mapped devices. *result is the
 * caller's to free. -ENXIO: there is no such device, `missing` says which.
 */
int numbers_name_words(struct numbers *numbers, const char *args, char **result, char *missing,
		       size_t missing_bytes);

/* An opening that keeps a device from being removed while a command is about it. */
struct pin {
	struct dmcore_device *device;
	struct dmcore_bdev *bdev;
};

/* The device is one that there is, and devices_lock() is held. 0 or -errno. */
int numbers_pin(struct numbers *numbers, struct dmcore_device *device, struct pin *pin);

/* devices_lock() isn't held. */
void numbers_unpin(struct numbers *numbers, struct pin *pin);

#endif
