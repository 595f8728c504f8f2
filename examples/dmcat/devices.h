/* SPDX-License-Identifier: MIT */
/* Mapped devices: defined, found, removed; and the opening of devices of any kind. */
#ifndef DMCAT_DEVICES_H
#define DMCAT_DEVICES_H

#include "session.h"

/* Makes what -d, -t and -c ask for. */
enum exit_status devices_define(struct session *session);

/* Makes a device from a table's text, which stands in `file` (or NULL) behind `lines_before`. */
enum exit_status devices_create(struct session *session, const char *name, const char *text,
				const char *file, unsigned long lines_before);

/* The same, for the inactive slot of a device. */
enum exit_status devices_load(struct session *session, struct dmcore_device *device,
			      const char *text, const char *file, unsigned long lines_before);
enum exit_status devices_resume(struct session *session, struct dmcore_device *device);

/* deferred: by its last closing, if it is open. */
enum exit_status devices_remove(struct session *session, const char *name, bool deferred);

/* The mapped device of that name; an error if there is none. */
enum exit_status devices_find(struct session *session, const char *name,
			      struct dmcore_device **result);

/* The table or status text of a device, for free(). It may be cut if it grows meanwhile.
 * flags: DMCORE_TEXT_*. */
enum exit_status devices_text(struct session *session, struct dmcore_device *device,
			      enum dmcore_text_kind kind, unsigned int flags, char **text);

/* The specification of the device that a command acts on. Borrowed. */
enum exit_status devices_chosen(struct session *session, const char **spec);

/* Opens any device, for dmcore_bdev_close(). A leaf that won't be written is opened read-only. */
enum exit_status devices_open(struct session *session, const char *spec, bool will_write,
			      struct dmcore_bdev **result);

/*
 * Refuses a device that is suspended, or stands on one that is: who alone could resume it would
 * wait for it.
 */
enum exit_status devices_check_running(struct session *session, const char *spec);

/* A suspended device that requests wait for, or NULL. */
struct dmcore_device *devices_waited_for(struct session *session);

/* Tells about the file or node that a specification means, unless it is a mapped device's. */
bool devices_stat(const char *spec, struct stat *st);

/* Whether these are the same file, or nodes of the same block device. */
bool devices_is_same(const struct stat *a, const struct stat *b);

/* Refuses the device `name` if a mapped device stands on it, also by way of others. file: what
 * devices_stat() says of `name`, or NULL. */
enum exit_status devices_check_below(struct session *session, const char *spec, const char *name,
				     const struct stat *file);

/*
 * Refuses a file as an output when it is what a device stands on: to empty it would destroy the
 * data that are to be read.
 */
enum exit_status devices_check_output(struct session *session, const char *spec, const char *path);

#endif
