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
 * slot, and goes live when the device is resumed.
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
	bool suspended;                 /**< No I/O passes. */
	bool read_only;                 /**< Writes fail with -EROFS. */
	bool live_table;                /**< It has a table. */
	bool inactive_table;            /**< A table waits for the next resume. */
	unsigned int num_targets;       /**< Of the live table. */
	unsigned int open_count;        /**< Openings by dmcore_bdev_open() and by tables. */
	uint32_t event_nr;              /**< Events so far. */
	uint64_t size_sectors;          /**< Of the live table. */
};

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
 * Puts a table into the inactive slot, in place of one that is there.
 *
 * @param[in] device  The device.
 * @param[in] table   Completed if it isn't yet. The device's on success, the caller's on failure.
 * @retval 0        Loaded.
 * @retval -EINVAL  The table belongs to another core, or dmcore_table_complete() refuses it.
 * @retval -EBUSY   The table is loaded already.
 * @retval -ELOOP   The device would stand on itself, or the stack becomes too deep.
 * @threads   control
 * @conform   DM_TABLE_LOAD.
 */
DMCORE_API DMCORE_MUST_CHECK int dmcore_device_load(struct dmcore_device *device,
						    struct dmcore_table *table);

/**
 * Makes the inactive table live and lets I/O pass. Does nothing to a running device without an
 * inactive table.
 *
 * @param[in] device  The device.
 * @retval 0            Running.
 * @retval -EINVAL      It has no table, or a device below no longer suits.
 * @retval -EOPNOTSUPP  It has a live table already: replacing it isn't supported yet.
 * @threads   control
 * @conform   DM_DEV_SUSPEND without DM_SUSPEND_FLAG.
 */
DMCORE_API DMCORE_MUST_CHECK int dmcore_device_resume(struct dmcore_device *device);

/**
 * Removes a device and destroys its tables.
 *
 * @param[in] device  NULL is a no-op.
 * @retval 0       Gone.
 * @retval -EBUSY  It is open, by a table or by dmcore_bdev_open(), or I/O is in flight.
 * @threads   control
 * @conform   DM_DEV_REMOVE.
 */
DMCORE_API int dmcore_device_remove(struct dmcore_device *device);

/**
 * Finds a device by name.
 *
 * @param[in] core  The core.
 * @param[in] name  NAME or /dev/mapper/NAME.
 * @return  Borrowed, or NULL.
 * @threads control
 */
DMCORE_API struct dmcore_device *dmcore_device_find(struct dmcore *core, const char *name);

/**
 * The devices of a core, in the order in which they were made.
 *
 * @param[in] core   The core.
 * @param[in] index  From 0.
 * @return  Borrowed, or NULL behind the last one.
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
 * @return  Borrowed.
 * @threads any
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
 * Writes the text of the live table; see dmcore_table_text(). "" without a live table.
 *
 * @param[in]  device  The device.
 * @param[in]  kind    Which text.
 * @param[out] buffer  Room for @p bytes; may be NULL if that is 0.
 * @param[in]  bytes   Size of @p buffer.
 * @return  Length of the whole text, or an error of dmcore_table_text().
 * @threads   control
 * @conform   DM_TABLE_STATUS.
 */
DMCORE_API int64_t dmcore_device_text(struct dmcore_device *device, enum dmcore_text_kind kind,
				      char *buffer, size_t bytes);

DMCORE_END_DECLS

/** @} */
#endif
