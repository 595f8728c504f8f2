/* SPDX-License-Identifier: MIT */
/**
 * @file device.h
 * @defgroup device Mapped devices
 * A named block device whose sectors are mapped by a table.
 *
 * @code
 * ret = dmcore_device_create(core, "set", NULL, 0, &device);
 * ret = dmcore_device_load(device, table);
 * ret = dmcore_device_resume(device);
 * ret = dmcore_pread(dmcore_device_bdev(device), buffer, 4096, 0);
 * @endcode
 *
 * As in the kernel, a device is born suspended and empty; a table is loaded into its inactive
 * slot, and goes live when the device is resumed. A running device's table is replaced the same
 * way, under load:
 *
 * @code
 * ret = dmcore_device_load(device, larger);
 * ret = dmcore_device_resume(device);
 * @endcode
 *
 * No request fails, is lost or is sent to the wrong table by that: those in flight end on the old
 * one, those that come meanwhile wait and go to the new one.
 *
 * Whoever suspends a device waits for requests that other threads have in it, so the owners of
 * their queues must go on polling. The queues of the calling thread are polled by the call itself.
 *
 * A device pointer is valid until the device is removed. Who holds an opening of it, by
 * dmcore_bdev_open() or by a table, keeps it from being removed; otherwise threads that remove
 * devices and threads that use them agree between themselves.
 *
 * In a child of fork() every call that can return an errno returns -EOWNERDEAD.
 * docs/live-changes.md is a guide to devices that change while they run.
 * @{
 */
#ifndef DMCORE_DEVICE_H
#define DMCORE_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <dmcore/attr.h>
#include <dmcore/bdev.h>
#include <dmcore/table.h>

DMCORE_BEGIN_DECLS

struct dmcore;
struct dmcore_device;

/** What a device is like now. */
struct dmcore_device_info {
	size_t struct_size;             /**< In: sizeof(struct dmcore_device_info) of the caller. */
	char name[DMCORE_NAME_MAX + 1]; /**< Its name. */
	char uuid[DMCORE_UUID_MAX + 1]; /**< Its uuid, or "". */
	bool suspended;                 /**< No I/O passes, or none soon: also while changing. */
	bool read_only;                 /**< Writes fail with -EROFS. */
	bool live_table;                /**< It has a table. */
	bool inactive_table;            /**< A table waits for the next resume. */
	unsigned int num_targets;       /**< Of the live table. */
	unsigned int open_count;        /**< Openings by dmcore_bdev_open() and by tables. */
	uint32_t event_nr;              /**< Events so far. */
	uint64_t size_sectors;          /**< Of the live table. */
	bool deferred_remove;           /**< It goes with its last opening. */
	bool changing;                  /**< Another call suspends or resumes it now. */
	unsigned int num_inactive_targets; /**< Of the inactive table. */
	uint64_t inactive_size_sectors; /**< Of the inactive table. */
	uint64_t num_inflight;          /**< Requests inside the device, over all queues; not
					     exact while they come and go. */
	uint64_t num_deferred;          /**< Requests that wait for it to be resumed. */
};

/** Targets that hold requests back push them back instead of waiting until they can carry them
 *  out; the table that is resumed next takes them. Only types with DMCORE_TARGET_TYPE_REQUEUES do
 *  so. What a driver has under way must end all the same. */
#define DMCORE_SUSPEND_NOFLUSH (1u << 0)

/** The text of the inactive table rather than of the live one. */
#define DMCORE_TEXT_INACTIVE (1u << 0)

/**
 * Makes a device without a table.
 *
 * @param[in]  core    The core.
 * @param[in]  name    1 to DMCORE_NAME_MAX characters without a slash; not "." or "..".
 * @param[in]  uuid    Up to DMCORE_UUID_MAX characters, or NULL.
 * @param[in]  flags   DMCORE_OPEN_READ_ONLY or 0.
 * @param[out] result  The device, owned by the core until dmcore_device_remove(); NULL on failure.
 * @retval 0        Made.
 * @retval -EINVAL  A malformed name or uuid, or an unknown flag.
 * @retval -EBUSY   The name or the uuid is taken.
 * @retval -ENFILE  The core's bdevs_max devices are open.
 * @retval -ENOMEM  No memory.
 * @threads   control
 * @conform   DM_DEV_CREATE.
 */
DMCORE_API DMCORE_MUST_CHECK int dmcore_device_create(struct dmcore *core, const char *name,
						      const char *uuid, unsigned int flags,
						      struct dmcore_device **result);

/**
 * Makes devices from dmsetup's concise form,
 * `name,uuid,minor,flags,table[,table…][;name,…]`, each created, loaded and resumed in turn. The
 * minor number is ignored; flags are `ro`, `rw` or empty; a backslash quotes the next character and
 * is dropped, so that one that is meant for the table is written twice.
 *
 * @param[in]  core    The core.
 * @param[in]  text    The concise form.
 * @param[in]  flags   DMCORE_TABLE_* for every table.
 * @param[out] last    The last device made, or NULL if the text names none; may be NULL.
 * @retval 0        All made. Otherwise any error of the calls it stands for, with the device
 *                  named in the message; none is left behind.
 * @retval -EINVAL  Malformed.
 * @threads   control
 * @conform   dmsetup create --concise.
 */
DMCORE_API DMCORE_MUST_CHECK int dmcore_device_create_concise(struct dmcore *core,
							      const char *text, unsigned int flags,
							      struct dmcore_device **last);

/**
 * Puts a table into the inactive slot, in place of one that is there, which is destroyed. I/O goes
 * on by the live one. Whether the device can be written to once the table is live is for the table
 * to say, by DMCORE_TABLE_READ_ONLY, unless the device was made read-only.
 *
 * @param[in] device  The device.
 * @param[in] table   Completed if it isn't yet. The device's on success, the caller's on failure.
 * @retval 0        Loaded.
 * @retval -EINVAL  The table belongs to another core, or dmcore_table_complete() refuses it; or the
 *                  live one has an immutable target, and this one is neither of the same type nor
 *                  holds a wildcard.
 * @retval -EBUSY   The table is loaded already.
 * @retval -ELOOP   The device would stand on itself, or the stack becomes too deep.
 * @threads   control
 * @conform   DM_TABLE_LOAD.
 */
DMCORE_API DMCORE_MUST_CHECK int dmcore_device_load(struct dmcore_device *device,
						    struct dmcore_table *table);

/**
 * Takes the table out of the inactive slot and destroys it. Does nothing if there is none.
 *
 * @param[in] device  The device.
 * @retval 0        The slot is empty.
 * @threads   control
 * @conform   DM_TABLE_CLEAR.
 */
DMCORE_API int dmcore_device_clear(struct dmcore_device *device);

/**
 * Stops a device: waits until no request is inside it. Those that come then wait for a resume, in
 * the order in which each queue submitted them; with DMCORE_BIO_NOWAIT they fail with -EAGAIN, with
 * DMCORE_BIO_RAHEAD with -EIO. Does nothing to a suspended device. While another call suspends or
 * resumes it, it waits for that one first.
 *
 * Requests that wait for a suspended device further down are inside this one: suspend from above
 * downwards, and resume from below upwards.
 *
 * @param[in] device      The device.
 * @param[in] flags       DMCORE_SUSPEND_NOFLUSH or 0.
 * @param[in] timeout_ns  Gives up after so long, by the core's clock; 0: unless all have ended by
 *                        now; negative: never. A signal doesn't end the wait. Functions of
 *                        targets aren't cut short by it.
 * @retval 0           Suspended.
 * @retval -EINVAL     An unknown flag.
 * @retval -EDEADLK    Called from a completion, work or a watch that a poll of this thread runs, or
 *                     from a function of a target or driver: what it would wait for can't end
 *                     before it returns.
 * @retval -ETIMEDOUT  Some request hasn't ended, or another call hasn't. The device runs on as if
 *                     nothing had happened; the message says how many requests there were.
 * @threads   control; runs callbacks of queues that the calling thread owns, and the work of a
 *            manual service as dmcore_service_poll() does. Other control calls, also on this
 *            device, go on meanwhile.
 * @conform   DM_DEV_SUSPEND with DM_SUSPEND_FLAG.
 */
DMCORE_API DMCORE_MUST_CHECK int dmcore_device_suspend(struct dmcore_device *device,
						       unsigned int flags, int64_t timeout_ns);

/**
 * Lets I/O pass, by the inactive table if there is one. Does nothing to a running device without
 * one; a running device with one is suspended first, without a deadline. (To set one, or
 * DMCORE_SUSPEND_NOFLUSH, call dmcore_device_suspend() before.) The table that is replaced is
 * destroyed once I/O passes again.
 *
 * @param[in] device  The device.
 * @retval 0         Running. Requests that have waited are sent by the next poll of their queues.
 * @retval -EINVAL   It has no table, or a device below no longer suits the inactive one.
 * @retval -ELOOP    With the inactive table a device above would become too deep.
 * @retval -EDEADLK  As dmcore_device_suspend(), if that is needed.
 * @retval -ENOMEM   No memory.
 *
 * After an error of the table's it stays in the inactive slot, and the device stays as it was,
 * running or suspended, with the old table. After an error of a target's preresume, which may be
 * any, it is suspended with the new table, and requests go on waiting; so it is with the old one
 * if that had to be resumed because the new one was refused, and its preresume failed. In each case
 * it can be resumed again.
 * @threads   control; may run callbacks of queues that the calling thread owns
 * @conform   DM_DEV_SUSPEND without DM_SUSPEND_FLAG.
 */
DMCORE_API DMCORE_MUST_CHECK int dmcore_device_resume(struct dmcore_device *device);

/**
 * Gives a device another name. Tables find it by the new one only; those that use it go on. An
 * event, if it has a live table.
 *
 * @param[in] device  The device.
 * @param[in] name    As dmcore_device_create().
 * @retval 0        Renamed. Tables and status lines that name it now say the new name.
 * @retval -EINVAL  A malformed name.
 * @retval -EBUSY   The name is taken, also if it is the device's own.
 * @retval -ENOMEM  No memory.
 * @threads   control
 * @conform   DM_DEV_RENAME.
 */
DMCORE_API DMCORE_MUST_CHECK int dmcore_device_rename(struct dmcore_device *device,
						      const char *name);

/**
 * Gives a device without a uuid one. An event, if it has a live table.
 *
 * @param[in] device  The device.
 * @param[in] uuid    1 to DMCORE_UUID_MAX characters.
 * @retval 0        Set.
 * @retval -EINVAL  A malformed uuid, or the device has one.
 * @retval -EBUSY   Another device has it.
 * @retval -ENOMEM  No memory.
 * @threads   control
 * @conform   DM_DEV_RENAME with DM_UUID_FLAG.
 */
DMCORE_API DMCORE_MUST_CHECK int dmcore_device_set_uuid(struct dmcore_device *device,
							const char *uuid);

/**
 * Removes a device and destroys its tables. Waiters for its events return with -ENODEV. Targets of
 * a running device are told as by a suspension. What waits for a resume isn't failed: to get rid of
 * it, resume the device, with a table of `error` if need be, and poll the queues.
 *
 * @param[in] device  NULL is a no-op.
 * @retval 0       Gone.
 * @retval -EBUSY  It is open, by a table or by dmcore_bdev_open(); or requests are in flight or
 *                 wait for a resume; or another call suspends or resumes it.
 * @threads   control
 * @conform   DM_DEV_REMOVE.
 */
DMCORE_API int dmcore_device_remove(struct dmcore_device *device);

/**
 * Removes a device, or, if it is open, sees to it that its last closing does. The message
 * `@cancel_deferred_remove` takes that back. If at the last closing one of the other reasons of
 * dmcore_device_remove() holds, the device stays until it has been opened and closed again, or is
 * removed by another call.
 *
 * @param[in] device  NULL is a no-op.
 * @retval 0       Gone, or it will go.
 * @retval -EBUSY  It isn't open, but one of the other reasons of dmcore_device_remove() holds.
 * @threads   control
 * @conform   DM_DEV_REMOVE with DM_DEFERRED_REMOVE.
 */
DMCORE_API int dmcore_device_remove_deferred(struct dmcore_device *device);

/**
 * Finds a device by name.
 *
 * @param[in] core  The core.
 * @param[in] name  NAME or /dev/mapper/NAME.
 * @return  Borrowed until the device is removed; NULL: there is none of that name.
 * @threads control
 */
DMCORE_API struct dmcore_device *dmcore_device_find(struct dmcore *core, const char *name);

/**
 * The devices of a core, in the order in which they were made.
 *
 * @param[in] core   The core.
 * @param[in] index  From 0.
 * @return  Borrowed until the device is removed; NULL behind the last one. Indices move when
 *          devices are made or removed.
 * @threads control
 * @conform DM_LIST_DEVICES.
 */
DMCORE_API struct dmcore_device *dmcore_device_at(struct dmcore *core, unsigned int index);

/**
 * The block device that a mapped device is, for I/O.
 *
 * @param[in] device  The device.
 * @return  Borrowed, without an opening of its own: lives until dmcore_device_remove().
 * @threads any
 */
DMCORE_API struct dmcore_bdev *dmcore_device_bdev(struct dmcore_device *device);

/**
 * The name of a device.
 *
 * @param[in] device  The device.
 * @return  Borrowed until the device is renamed or removed.
 * @threads any, but not while the device is renamed; dmcore_device_info() copies it
 */
DMCORE_API const char *dmcore_device_name(const struct dmcore_device *device);

/**
 * Tells what a device is like.
 *
 * @param[in]     device  The device.
 * @param[in,out] info    struct_size set by the caller; the rest is filled in as far as that goes.
 * @retval 0        Filled in.
 * @retval -EINVAL  struct_size isn't set.
 * @threads   control
 * @conform   DM_DEV_STATUS.
 */
DMCORE_API int dmcore_device_info(struct dmcore_device *device, struct dmcore_device_info *info);

/**
 * Writes the text of a table of the device; see dmcore_table_text(). "" without such a table.
 *
 * @param[in]  device  The device.
 * @param[in]  kind    Which text.
 * @param[in]  flags   DMCORE_TEXT_INACTIVE or 0.
 * @param[out] buffer  Room for @p bytes; may be NULL if that is 0.
 * @param[in]  bytes   Size of @p buffer.
 * @return  Length of the whole text, or an error of dmcore_table_text(). -EINVAL also for an
 *          unknown flag.
 * @threads   control
 * @conform   DM_TABLE_STATUS, DM_QUERY_INACTIVE_TABLE_FLAG.
 */
DMCORE_API int64_t dmcore_device_text(struct dmcore_device *device, enum dmcore_text_kind kind,
				      unsigned int flags, char *buffer, size_t bytes);

/**
 * Sends a message to a target of the live table, or, if its first word begins with `@`, to the
 * device: `@cancel_deferred_remove`, and the `@stats_…` of stats.h.
 *
 * @param[in]  device  The device.
 * @param[in]  sector  Lies in the target that is meant; 0: the first. Ignored for the device's own.
 * @param[in]  text    Words, split at white space; a backslash quotes the next character.
 * @param[out] buffer  Room for @p bytes, filled with as much of the answer as fits and a NUL,
 *                     untouched after an error; may be NULL if @p bytes is 0.
 * @param[in]  bytes   Size of @p buffer.
 * @return  Length of the whole answer without its NUL, 0 if there is none: if that is @p bytes or
 *          more, it was cut, though the message has been carried out: to send it again does it
 *          again. Otherwise an error of the target's own, or one of these, with the kernel's text:
 * @retval -EINVAL  `Empty message received.`, `Target message sector outside device.`, `Target type
 *                  does not support messages`, `Unsupported message sent to DM core: …`; for a
 *                  target, `The device has no table.`.
 * @retval -E2BIG   More than DMCORE_TARGET_ARGS_MAX words.
 * @retval -ENOMEM  No memory.
 * @threads   control; `\@stats_create` and `\@stats_delete` as dmcore_device_suspend()
 * @conform   DM_TARGET_MSG.
 */
DMCORE_API int64_t dmcore_device_message(struct dmcore_device *device, uint64_t sector,
					 const char *text, char *buffer, size_t bytes);

DMCORE_END_DECLS

/** @} */
#endif
