/* SPDX-License-Identifier: MIT */
/**
 * @file bdev.h
 * @defgroup bdev Block devices
 * A block device: a file, a device node, memory, a mapped device, or what an application's own
 * driver offers; and plain blocking I/O on it.
 *
 * @code
 * struct dmcore_bdev *disk;
 * int ret = dmcore_bdev_open(core, "disk.img", DMCORE_OPEN_READ_ONLY, &disk);
 * …
 * ret = dmcore_pread(disk, buffer, 4096, 0);
 * dmcore_bdev_close(disk);
 * @endcode
 * @{
 */
#ifndef DMCORE_BDEV_H
#define DMCORE_BDEV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <dmcore/attr.h>
#include <dmcore/limits.h>

DMCORE_BEGIN_DECLS

struct dmcore;
struct dmcore_bdev;

/** Writes fail with -EROFS. Without it a device must be writable. A mapped device keeps the mode
 *  that it was made with. */
#define DMCORE_OPEN_READ_ONLY (1u << 0)
/** Files and nodes: past the page cache (O_DIRECT). */
#define DMCORE_OPEN_DIRECT (1u << 1)
/** Every flag above. */
#define DMCORE_OPEN_FLAGS_ALL 0x3u

/** Completed writes may be lost with power until a flush: flushes matter. */
#define DMCORE_CAP_VOLATILE_CACHE (1u << 0)
/** FUA is the device's own; without it the library adds a flush. */
#define DMCORE_CAP_FUA (1u << 1)
/** DISCARD works. */
#define DMCORE_CAP_DISCARD (1u << 2)
/** WRITE_ZEROES is the device's own; without it the library writes zeroes. */
#define DMCORE_CAP_WRITE_ZEROES (1u << 3)
/** What is discarded reads back as zeroes. */
#define DMCORE_CAP_DISCARD_ZEROES (1u << 4)

/**
 * What a device can do and how it wants to be used. Of a mapped device: stacked from the devices
 * below as the kernel stacks queue limits. 0 in a maximum means unlimited.
 */
struct dmcore_limits {
	size_t struct_size;                  /**< In: sizeof(struct dmcore_limits) of the caller. */
	unsigned int caps;                   /**< DMCORE_CAP_*. */
	uint32_t logical_block_bytes;        /**< Unit of every range; a power of two >= 512. */
	uint32_t physical_block_bytes;       /**< Unit that is written without a read. */
	uint32_t io_min_bytes;               /**< Preferred smallest request; a stripe's chunk. */
	uint32_t io_opt_bytes;               /**< Preferred request, 0: none; a whole stripe. */
	uint32_t memory_align_bytes;         /**< Alignment that spares a bounce; 1: any. */
	uint32_t discard_granularity_bytes;  /**< Smallest range that is really freed; 0: none. */
	uint64_t max_io_sectors;             /**< Largest request without a split. */
	uint64_t max_discard_sectors;        /**< Largest DISCARD without a split. */
	uint64_t max_write_zeroes_sectors;   /**< Largest native WRITE_ZEROES without a split. */
	uint64_t chunk_sectors;              /**< READ and WRITE are split at its multiples. */
};

/**
 * Opens a device.
 *
 * The specification is, tried in this order:
 *  - `/dev/mapper/NAME` or `NAME`: a mapped device of this core;
 *  - `DRIVER:ARGS`: by a driver of that name, `mem:64M`, `file:/a:b` (see dmcore-devices(7));
 *  - `MAJOR:MINOR`: the block device with that number, by /dev/block or sysfs;
 *  - anything else: the path of a file or block device node.
 *
 * Opening what is open already, with the same flags, gives the same object once more: it must be
 * closed as often as it was opened.
 *
 * @param[in]  core    The core.
 * @param[in]  spec    See above.
 * @param[in]  flags   DMCORE_OPEN_*.
 * @param[out] result  The device, owned by the caller; NULL on failure.
 * @retval 0         Open.
 * @retval -EINVAL   A flag or the driver's arguments are wrong, or it is neither a regular file
 *                   nor a block device.
 * @retval -ENOENT   No such file or device.
 * @retval -ENODEV   No such driver, and no module of it.
 * @retval -ENOEXEC  The module of the driver is of another version, or is none.
 * @retval -EACCES   Not permitted; likewise -EPERM and -EROFS.
 * @retval -EBUSY    It is open with other flags, and can't be twice.
 * @retval -EMFILE   Too many open files; -ENFILE: the core's bdevs_max devices are open.
 * @retval -ENOMEM   No memory.
 * @threads   control
 * @conform   dm_get_device(), with paths of files beside those of devices.
 */
DMCORE_API DMCORE_MUST_CHECK int dmcore_bdev_open(struct dmcore *core, const char *spec,
						  unsigned int flags, struct dmcore_bdev **result);

/**
 * Gives up one opening of a device; the last one closes it. A queue that has used a file keeps it
 * open until its owner polls next.
 *
 * @param[in] bdev  NULL is a no-op.
 * @retval 0       Given up.
 * @retval -EINVAL Every opening but those of tables has been given up already.
 * @retval -EBUSY  It is the last one and requests are in flight; the device stays open.
 * @threads   control
 */
DMCORE_API int dmcore_bdev_close(struct dmcore_bdev *bdev);

/**
 * Measures a file or disk that is open once more: what has been added to it can be used from now
 * on. Of a mapped device it does nothing: its size is that of its live table.
 *
 * @param[in] bdev  The device.
 * @retval 0  Measured; otherwise the errors of dmcore_bdev_open(), and the device is as it was.
 * @threads   control
 */
DMCORE_API int dmcore_bdev_refresh(struct dmcore_bdev *bdev);

/**
 * The size of a device. A mapped device's is that of its live table, and changes with it; tables
 * above it are checked against it when they are loaded or resumed. A file's or disk's is looked at
 * each time it is opened. The last, partial sector of a file doesn't count.
 *
 * @param[in] bdev  The device.
 * @return  Sectors of 512 bytes.
 * @threads any
 */
DMCORE_API uint64_t dmcore_bdev_size_sectors(const struct dmcore_bdev *bdev);

/**
 * The name by which tables and status lines call the device: as it was given when it was first
 * opened, or the name of a mapped device.
 *
 * @param[in] bdev  The device.
 * @return  Borrowed; lives as long as the device is open, or until a mapped device is renamed.
 * @threads any, but not while the device is renamed
 */
DMCORE_API const char *dmcore_bdev_name(const struct dmcore_bdev *bdev);

/**
 * Whether writes are refused.
 *
 * @param[in] bdev  The device.
 * @return  True if it was opened read-only, or is a read-only mapped device.
 * @threads any
 */
DMCORE_API bool dmcore_bdev_is_read_only(const struct dmcore_bdev *bdev);

/**
 * Whether two openings mean one device, whatever their flags: what is written by one is read by the
 * other.
 *
 * @param[in] a  A device.
 * @param[in] b  A device.
 * @return  True if both are the same object, or leaves of one core, one driver and one key, see
 *          dmcore_driver::identify. A leaf without a key is the same as itself only. A mapped
 *          device is not the same as what it stands on.
 * @threads any
 */
DMCORE_API bool dmcore_bdev_is_same(const struct dmcore_bdev *a, const struct dmcore_bdev *b);

/**
 * Tells a device's limits.
 *
 * @param[in]     bdev    The device.
 * @param[in,out] limits  struct_size set by the caller; the rest is filled in as far as that goes.
 * @retval 0        Filled in.
 * @retval -EINVAL  struct_size isn't set.
 * @threads any
 */
DMCORE_API int dmcore_bdev_limits(const struct dmcore_bdev *bdev, struct dmcore_limits *limits);

/** What a stretch of a device holds. */
enum dmcore_extent_kind {
	DMCORE_EXTENT_DATA, /**< Anything. */
	DMCORE_EXTENT_ZERO, /**< Reads as zeroes without being read: a hole of a file, a `zero`
			         target. */
};

/** A stretch of a device that is of one kind. */
struct dmcore_extent {
	enum dmcore_extent_kind kind; /**< What it holds. */
	uint64_t count;               /**< Sectors, from the one that was asked about. */
};

/**
 * Tells where a device holds data and where it is known to read as zeroes: holes of files, and what
 * mapped devices have over them. What can't be known is data. An answer is as old as a read that
 * ended at the same moment.
 *
 * @param[in]  bdev    The device.
 * @param[in]  sector  From here on.
 * @param[in]  count   Sectors to look at, at the most; not 0.
 * @param[out] extent  The stretch that begins at @p sector: 1 to @p count sectors, and a multiple
 *                     of the logical block if both numbers are. What follows may be of the same
 *                     kind.
 * @retval 0        Told.
 * @retval -EINVAL  No device, no extent, or a count of 0.
 * @retval -EIO     Behind the end of the device; or a mapped device has no table there.
 * @threads   control. Makes system calls that may block for a moment, but waits for no I/O; also on
 *            suspended devices, whose live table it looks at.
 */
DMCORE_API int dmcore_bdev_extent(struct dmcore_bdev *bdev, uint64_t sector, uint64_t count,
				  struct dmcore_extent *extent);

/**
 * @name Plain I/O
 * Blocking calls for programs without a queue. Each borrows a queue of the core's own for its
 * duration, so any number of threads may call at once. Offsets and lengths are bytes and must be
 * multiples of the device's logical block (512 for most files); memory may have any alignment. All
 * of the range is done, or an error is returned and the rest is undefined.
 * @{
 */

/**
 * Reads.
 *
 * @param[in]  bdev          The device.
 * @param[out] buffer        @p len_bytes bytes.
 * @param[in]  len_bytes     0 does nothing.
 * @param[in]  offset_bytes  From the start of the device.
 * @retval 0        Read whole.
 * @retval -EINVAL  Not a multiple of the logical block; the message names it.
 * @retval -EIO     Behind the end of the device, or the device failed.
 * @threads   any; blocks
 */
DMCORE_API DMCORE_MUST_CHECK int dmcore_pread(struct dmcore_bdev *bdev, void *buffer,
					      size_t len_bytes, uint64_t offset_bytes);

/**
 * Writes. Durable after the next dmcore_flush().
 *
 * @param[in] bdev          The device.
 * @param[in] buffer        @p len_bytes bytes.
 * @param[in] len_bytes     0 does nothing.
 * @param[in] offset_bytes  From the start of the device.
 * @retval 0        Written whole.
 * @retval -EINVAL  Not a multiple of the logical block; the message names it.
 * @retval -EIO     Behind the end of the device, or the device failed.
 * @retval -EROFS   The device is read-only.
 * @threads   any; blocks
 */
DMCORE_API DMCORE_MUST_CHECK int dmcore_pwrite(struct dmcore_bdev *bdev, const void *buffer,
					       size_t len_bytes, uint64_t offset_bytes);

/**
 * Makes all writes that have returned durable.
 *
 * @param[in] bdev  The device.
 * @retval 0     Durable.
 * @retval -EIO  Some write may be lost. After a file's fsync has failed this is so until it is
 *               closed: what was written meanwhile must be written again to a new opening.
 * @threads   any; blocks
 */
DMCORE_API DMCORE_MUST_CHECK int dmcore_flush(struct dmcore_bdev *bdev);

/**
 * Says that a range's content is no longer needed.
 *
 * @param[in] bdev          The device.
 * @param[in] len_bytes     0 does nothing.
 * @param[in] offset_bytes  From the start of the device.
 * @retval 0            Done; the content is undefined, or zero with DMCORE_CAP_DISCARD_ZEROES.
 * @retval -EOPNOTSUPP  The device, or a part of it, can't.
 * @retval -EINVAL      Not a multiple of the logical block.
 * @retval -EIO         Behind the end of the device, or the device failed.
 * @retval -EROFS       The device is read-only.
 * @threads   any; blocks
 */
DMCORE_API DMCORE_MUST_CHECK int dmcore_discard(struct dmcore_bdev *bdev, uint64_t len_bytes,
						uint64_t offset_bytes);

/**
 * Zeroes a range, by the device's own means or by writing.
 *
 * @param[in] bdev          The device.
 * @param[in] len_bytes     0 does nothing.
 * @param[in] offset_bytes  From the start of the device.
 * @retval 0            Zeroed.
 * @retval -EOPNOTSUPP  A target in the way refuses it, as `zero` does in the kernel.
 * @retval -EINVAL      Not a multiple of the logical block.
 * @retval -EIO         Behind the end of the device, or the device failed.
 * @retval -EROFS       The device is read-only.
 * @threads   any; blocks
 */
DMCORE_API DMCORE_MUST_CHECK int dmcore_write_zeroes(struct dmcore_bdev *bdev, uint64_t len_bytes,
						     uint64_t offset_bytes);

/** @} */

DMCORE_END_DECLS

/** @} */
#endif
