/* SPDX-License-Identifier: MIT */
/* --watch: what mapped devices do, a line an interval on standard error. */
#ifndef DMCAT_WATCH_H
#define DMCAT_WATCH_H

#include "session.h"

/* Without --watch all of these do nothing. */
enum exit_status watch_begin(struct session *session);
/* Prints what has been counted since the last line. */
void watch_end(struct session *session);

/* Counts from now on what a device does. Harmless if it is watched already. */
void watch_add(struct session *session, struct dmcore_device *device);
/* The table of a device may be another one now. */
void watch_renew(struct session *session, struct dmcore_device *device);
/* Prints what has been counted, and leaves the device alone, before it changes or goes. */
void watch_drop(struct session *session, struct dmcore_device *device);

#endif
