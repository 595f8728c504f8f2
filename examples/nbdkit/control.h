/* SPDX-License-Identifier: MIT */
/*
 * A socket on which dmsetup, through libdmcore-dmsetup.so, makes, changes and removes the devices
 * that are served. Called by plugin.c.
 *
 *	control.c   this: the socket, a thread for each client, what it may send
 *	commands.c  the kernel's commands on devices
 *	tables.c    those on tables
 *	status.c    STATUS lines
 *	numbers.c   device numbers, which libdevmapper goes by
 */
#ifndef DMCORE_EXAMPLE_NBDKIT_CONTROL_H
#define DMCORE_EXAMPLE_NBDKIT_CONTROL_H

#include "devices.h"

struct control;

/*
 * Makes the socket, which only this user can connect to, and takes the place of one that nobody
 * listens on any more. Returns a descriptor, or -1 after nbdkit_error().
 */
int control_listen(const char *path);

/* Begins to serve clients. The descriptor is the control's from here. NULL after nbdkit_error(). */
struct control *control_start(struct devices *devices, int listen_fd);

/* Ends what clients wait for, and all connections. NULL is a no-op. */
void control_stop(struct control *control);

#endif
