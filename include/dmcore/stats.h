/* SPDX-License-Identifier: MIT */
/**
 * @file stats.h
 * @defgroup stats Statistics
 * What a mapped device is asked to do, counted by region: a range of sectors that is divided into
 * areas. The regions of a device are the kernel's dm-stats: made, read and deleted here or by
 * messages, whose grammar is the kernel's:
 *
 * @code
 * @stats_create RANGE STEP [NUM_OPTIONS OPTION…] [PROGRAM_ID [AUX_DATA]]
 * @stats_delete ID
 * @stats_clear ID
 * @stats_list [PROGRAM_ID]
 * @stats_print ID [FIRST_AREA NUM_AREAS]
 * @stats_print_clear ID [FIRST_AREA NUM_AREAS]
 * @stats_set_aux ID AUX_DATA
 * @endcode
 *
 * A device without regions pays nothing for it. Each queue counts for itself, so that counting
 * shares nothing either; a snapshot adds up.
 *
 * To make or delete a region the device is quiesced for a moment, as if it were suspended and
 * resumed, but without its targets taking notice.
 * @{
 */
#ifndef DMCORE_STATS_H
#define DMCORE_STATS_H

#include <stddef.h>
#include <stdint.h>

#include <dmcore/attr.h>

DMCORE_BEGIN_DECLS

struct dmcore_device;

/** Times are counted in nanoseconds; without it by the coarse clock, and shown in milliseconds.
 *  With a clock of the application's own both are that clock. */
#define DMCORE_STATS_PRECISE (1u << 0)
/** An area for each target of the live table, in place of areas of one length: how the load is
 *  shared. The areas stay as they are when the table is replaced. Messages can't ask for it; they
 *  tell the region's length as its step, and each area's own. */
#define DMCORE_STATS_BY_TARGET (1u << 1)

/** What a region is made of. Set struct_size (DMCORE_STATS_OPTIONS_INIT does it). */
struct dmcore_stats_options {
	size_t struct_size;         /**< sizeof(struct dmcore_stats_options) of the caller. */
	unsigned int flags;         /**< DMCORE_STATS_*. */
	unsigned int num_bounds;    /**< Entries of bounds; 0: no histogram. */
	const uint64_t *bounds;     /**< Upper bounds of the histogram's buckets but the last:
				         strictly increasing, above 0; nanoseconds if precise, else
				         milliseconds. Copied. */
	uint64_t start_sector;      /**< Where the region begins. */
	uint64_t length_sectors;    /**< 0: to the end of the live table. */
	uint64_t step_sectors;      /**< Length of an area; 0: one area. Ignored by target. */
	const char *program;        /**< Who it is for, one word, or NULL. Copied. */
	const char *aux;            /**< His own note, one word, or NULL. Copied. */
};

/** Initialiser of a struct dmcore_stats_options: one area, the whole device. */
#define DMCORE_STATS_OPTIONS_INIT { .struct_size = sizeof(struct dmcore_stats_options) }

/** What has been counted in an area. A request over several areas counts in each, with the part
 *  that lies there. DISCARD and WRITE_ZEROES count as writes, FLUSH doesn't count. */
struct dmcore_stats_area {
	uint64_t start_sector;   /**< Where the area begins. */
	uint64_t length_sectors; /**< How long it is. */
	uint64_t reads;          /**< Reads that ended. */
	uint64_t read_merges;    /**< Of those, begun where the queue's last one, anywhere on the
				      device, ended. */
	uint64_t read_sectors;   /**< Sectors read. */
	uint64_t read_ns;        /**< Sum of the times that reads took. */
	uint64_t writes;         /**< Writes that ended. */
	uint64_t write_merges;   /**< As read_merges. */
	uint64_t write_sectors;  /**< Sectors written. */
	uint64_t write_ns;       /**< Sum of the times that writes took. */
	uint64_t in_flight;      /**< Requests under way now. */
	uint64_t busy_ns;        /**< Time with a request under way: each queue's, added up, and
				      no more than has passed. */
	uint64_t weighted_ns;    /**< Time, times the number of requests under way. */
	uint64_t read_busy_ns;   /**< Time with a read under way, likewise. */
	uint64_t write_busy_ns;  /**< Time with a write under way, likewise. */
};

/**
 * Begins to count in a region.
 *
 * @param[in] device   The device.
 * @param[in] options  What the region is made of.
 * @return  The region's id, the lowest that is free, from 0.
 * @retval -EINVAL     A malformed option, a range that is empty or too long, bounds that don't
 *                     increase, BY_TARGET without a live table.
 * @retval -EOVERFLOW  More than DMCORE_STATS_AREAS_MAX areas, or DMCORE_STATS_BUCKETS_MAX buckets
 *                     in all areas, or DMCORE_STATS_REGIONS_MAX regions.
 * @retval -ENOMEM     No memory; counters of all regions would take more than a quarter of it.
 * @retval -ELOOP      Requests of devices above would get no room for what counting leaves on them:
 *                     48 bytes on each device with regions.
 * @retval -EDEADLK    As dmcore_device_suspend().
 * @retval -ETIMEDOUT  Requests inside the device haven't ended for 10 s; nothing has changed.
 * @threads   control; as dmcore_device_suspend()
 * @conform   \@stats_create.
 */
DMCORE_API DMCORE_MUST_CHECK int dmcore_stats_create(struct dmcore_device *device,
						     const struct dmcore_stats_options *options);

/**
 * Ends a region.
 *
 * @param[in] device  The device.
 * @param[in] id      The region.
 * @retval 0         Gone.
 * @retval -ENOENT   No such region.
 * @retval -EDEADLK  As dmcore_device_suspend().
 * @retval -ETIMEDOUT  Requests inside the device haven't ended for 10 s; nothing has changed.
 * @threads   control; as dmcore_device_suspend()
 * @conform   \@stats_delete.
 */
DMCORE_API int dmcore_stats_delete(struct dmcore_device *device, int id);

/**
 * Sets the counters of a region back to zero, but for what is in flight.
 *
 * @param[in] device  The device.
 * @param[in] id      The region.
 * @retval 0        Zero.
 * @retval -ENOENT  No such region.
 * @threads   control
 * @conform   \@stats_clear.
 */
DMCORE_API int dmcore_stats_clear(struct dmcore_device *device, int id);

/**
 * Reads the counters of a region.
 *
 * @param[in]  device      The device.
 * @param[in]  id          The region.
 * @param[in]  first       First area.
 * @param[in]  count       How many areas at the most.
 * @param[out] areas       Room for @p count, or NULL if that is 0.
 * @param[in]  area_bytes  sizeof(struct dmcore_stats_area) of the caller.
 * @param[out] histogram   Room for @p count times num_bounds + 1 numbers of requests, area by area;
 *                         or NULL. A request counts in the bucket of the lowest bound above its
 *                         time.
 * @return  How many areas the region has behind @p first; @p count of them at the most are stored.
 * @retval -EINVAL  No room is given, or area_bytes is 0.
 * @retval -ENOENT  No such region.
 * @threads   control; counting goes on meanwhile
 * @conform   \@stats_print.
 */
DMCORE_API int64_t dmcore_stats_read(struct dmcore_device *device, int id, uint64_t first,
				     uint64_t count, struct dmcore_stats_area *areas,
				     size_t area_bytes, uint64_t *histogram);

DMCORE_END_DECLS

/** @} */
#endif
