/* SPDX-License-Identifier: MIT */
/* The mapped devices that are served, and the tables that are read again while they are. */
#ifndef DMCORE_EXAMPLE_NBDKIT_DEVICES_H
#define DMCORE_EXAMPLE_NBDKIT_DEVICES_H

#include "settings.h"

struct devices;
struct nbdkit_exports;

/*
 * A core with all devices that the settings define. Returns NULL after nbdkit_error(). No device
 * is made or removed until devices_free().
 */
struct devices *devices_make(const struct settings *settings);

/* NULL is a no-op. */
void devices_free(struct devices *devices);

/* Gives devices whose table's file says something new that table. What is wrong with one is told by
 * nbdkit_error(), and the table before goes on. From any thread. */
void devices_read_again(struct devices *devices);

/*
 * Opens a device by its name; "": the one made last, as in dmcat. While it is open it isn't
 * removed. Returns 0, -ENOENT: there is none of that name, or another error with a message.
 */
int devices_open(struct devices *devices, const char *name, struct dmcore_bdev **result);
void devices_close(struct devices *devices, struct dmcore_bdev *bdev);

/* The name of the one made last, copied for nbdkit; NULL: there is none. */
const char *devices_last(struct devices *devices);

/* The names of all, for a client that asks. 0, or -1 after nbdkit_error(). */
int devices_list(struct devices *devices, struct nbdkit_exports *exports);

struct dmcore *devices_core(struct devices *devices);

/* Around whatever makes, renames, removes or looks for devices. */
void devices_lock(struct devices *devices);
void devices_unlock(struct devices *devices);

/* Around each request of a client: no table is replaced in between. */
void devices_enter(struct devices *devices);
void devices_leave(struct devices *devices);

#endif
