/* SPDX-License-Identifier: MIT */
/**
 * @file dmio.h
 * @defgroup dmio dm-io services
 * Synchronous and asynchronous I/O on regions of block devices: read one region, or write the same
 * data to several, with memory given as a list of pages, a vector, or one buffer.
 *
 * @code
 * struct dmio_region where[2] = { { a, 0, 8 }, { b, 64, 8 } };
 * unsigned long error_bits;
 *
 * ret = dmio_client_create(queue, 1, &client);
 * ret = dmio_sync_vm(client, 2, where, DMIO_WRITE, data, &error_bits);
 * @endcode
 *
 * Every region of a write gets the same bytes, from the start of the memory. A region with count 0
 * is skipped and its bit stays 0; with DMIO_FLUSH or DMIO_PREFLUSH it stands for the whole device.
 * Bit i of the error bits is set if any part of region i failed. Of a failed read the pieces that
 * failed are zeroed whole (a piece is up to 256 KiB of a page list, 1 GiB of a buffer, or all of a
 * vector), so that no old content passes for data. A call is either refused, and then nothing is
 * called back, or its callback runs exactly once, later, inside the queue's poll.
 * @{
 */
#ifndef DMCORE_DMIO_H
#define DMCORE_DMIO_H

#include <stddef.h>
#include <stdint.h>

#include <dmcore/attr.h>
#include <dmcore/bio.h>
#include <dmcore/limits.h>

DMCORE_BEGIN_DECLS

struct dmcore_bdev;
struct dmcore_queue;
struct dmio_client;

/** A run of sectors on a device. Plain value. */
struct dmio_region {
	struct dmcore_bdev *bdev; /**< Borrowed; must stay open while a request uses the region. */
	uint64_t sector;          /**< First sector, 512 bytes each, from the start of bdev. */
	uint64_t count;           /**< Sectors; 0: the region is skipped. */
};

/** A list of pages. */
struct dmio_page_list {
	struct dmio_page_list *next; /**< NULL ends the list. */
	void *page;                  /**< DMIO_PAGE_BYTES bytes. */
};

/** Read one region. */
#define DMIO_READ 0
/** Write the same data to each region. */
#define DMIO_WRITE 1
/** Flush each region's device; sector and count are ignored, as is the memory. */
#define DMIO_FLUSH 2
/** Discard each region. No memory. */
#define DMIO_DISCARD 3
/** Zero each region. No memory. */
#define DMIO_WRITE_ZEROES 4
/** Bits of `rw` that hold the operation. */
#define DMIO_OP_MASK 0xff
/** With DMIO_WRITE and DMIO_WRITE_ZEROES: durable when complete. */
#define DMIO_FUA 0x100
/** With DMIO_WRITE and DMIO_WRITE_ZEROES: flush each device first. */
#define DMIO_PREFLUSH 0x200

/**
 * Completion of an asynchronous request: bit i of @p error is region i. The client may be used
 * again from here, also when it had nothing left.
 */
typedef void (*dmio_notify_fn)(unsigned long error, void *context);

/**
 * Makes a client: a reserve of requests and bookkeeping on a queue.
 *
 * @param[in]  queue   The queue; must outlive the client.
 * @param[in]  pages   As dmio_get(); 0 leaves the smallest reserve, with which every request makes
 *                     progress.
 * @param[out] result  The client, owned by the caller; NULL on failure.
 * @retval 0        Made.
 * @retval -EINVAL  No queue, or more than DMIO_PAGES_MAX pages.
 * @retval -ENOMEM  No memory.
 * @threads   queue
 * @conform   dm_io_client_create().
 */
DMCORE_API DMCORE_MUST_CHECK int dmio_client_create(struct dmcore_queue *queue, unsigned int pages,
						    struct dmio_client **result);

/**
 * Waits for the client's requests by polling the queue, so that their callbacks run; then frees it.
 *
 * @param[in] client  NULL is a no-op.
 * @retval 0       Gone.
 * @retval -EBUSY  Requests are in flight and this is a callback of the queue; unchanged.
 * @threads   queue
 */
DMCORE_API int dmio_client_destroy(struct dmio_client *client);

/**
 * Adds to the reserve what I/O on so many more pages at once needs, so that within the reserve no
 * request waits for memory.
 *
 * @param[in] client  The client.
 * @param[in] pages   Pages of DMIO_PAGE_BYTES.
 * @retval 0        Reserved.
 * @retval -EINVAL  More than DMIO_PAGES_MAX in all.
 * @retval -ENOMEM  No memory; the reserve is unchanged.
 * @threads   queue; allocates
 * @conform   dm_io_get() of 2004.
 */
DMCORE_API DMCORE_MUST_CHECK int dmio_get(struct dmio_client *client, unsigned int pages);

/**
 * Gives back a reservation of dmio_get(). Memory in use is freed when its requests end.
 *
 * @param[in] client  The client.
 * @param[in] pages   As given to dmio_get().
 * @threads   queue
 * @conform   dm_io_put() of 2004.
 */
DMCORE_API void dmio_put(struct dmio_client *client, unsigned int pages);

/**
 * @name Asynchronous services
 * Common to the three:
 *
 * `num_regions` is 1 for a read, else 1 to DMIO_REGIONS_MAX; `where` is copied. `rw` is one of the
 * DMIO_ operations with its flags. Memory is borrowed until @p fn has run, and must hold as many
 * bytes as the longest region. A region that the device refuses (behind its end, misaligned,
 * read-only, not supported) has its error bit set; it is no reason to refuse the call.
 * @{
 */

/**
 * Starts I/O from or to a list of pages.
 *
 * @param[in] client       The client.
 * @param[in] num_regions  See above.
 * @param[in] where        See above.
 * @param[in] rw           See above.
 * @param[in] pl           The pages; NULL for operations without memory.
 * @param[in] offset       Bytes into the first page, < DMIO_PAGE_BYTES.
 * @param[in] fn           Completion.
 * @param[in] context      For @p fn.
 * @retval 0            Accepted: fn runs exactly once.
 * @retval -EINVAL      A number of regions, an operation, a flag, an offset or a list is out of
 *                      bounds; a read of several regions; no fn, no memory, no device or one of
 *                      another core. fn never runs.
 * @retval -EAGAIN      All requests of the client are in flight: poll, then retry. fn never runs.
 * @retval -EOWNERDEAD  The queue was made before fork(). fn never runs.
 * @threads   queue; doesn't allocate or block
 * @conform   dm_io() with DM_IO_PAGE_LIST. Difference: a refused call never calls back, and a
 *            callback never runs inside the call.
 */
DMCORE_API DMCORE_MUST_CHECK int dmio_async(struct dmio_client *client, unsigned int num_regions,
					    const struct dmio_region *where, int rw,
					    struct dmio_page_list *pl, unsigned int offset,
					    dmio_notify_fn fn, void *context);

/**
 * Starts I/O from or to a vector.
 *
 * @param[in] client       The client.
 * @param[in] num_regions  See above.
 * @param[in] where        See above.
 * @param[in] rw           See above.
 * @param[in] bvec         As many entries as it takes to cover the longest region, none of them
 *                         empty or of 4 GiB and more; the array too is borrowed.
 * @param[in] fn           Completion.
 * @param[in] context      For @p fn.
 * @retval 0            Accepted: fn runs exactly once.
 * @retval -EINVAL      As dmio_async(). fn never runs.
 * @retval -EAGAIN      As dmio_async(). fn never runs.
 * @retval -EOWNERDEAD  As dmio_async(). fn never runs.
 * @threads   queue; doesn't allocate or block
 * @conform   dm_io() with DM_IO_BIO.
 */
DMCORE_API DMCORE_MUST_CHECK int dmio_async_bvec(struct dmio_client *client,
						 unsigned int num_regions,
						 const struct dmio_region *where, int rw,
						 const struct dmio_bvec *bvec, dmio_notify_fn fn,
						 void *context);

/**
 * Starts I/O from or to one buffer.
 *
 * @param[in] client       The client.
 * @param[in] num_regions  See above.
 * @param[in] where        See above.
 * @param[in] rw           See above.
 * @param[in] data         The buffer; NULL for operations without memory.
 * @param[in] fn           Completion.
 * @param[in] context      For @p fn.
 * @retval 0            Accepted: fn runs exactly once.
 * @retval -EINVAL      As dmio_async(). fn never runs.
 * @retval -EAGAIN      As dmio_async(). fn never runs.
 * @retval -EOWNERDEAD  As dmio_async(). fn never runs.
 * @threads   queue; doesn't allocate or block
 * @conform   dm_io() with DM_IO_VMA or DM_IO_KMEM.
 */
DMCORE_API DMCORE_MUST_CHECK int dmio_async_vm(struct dmio_client *client, unsigned int num_regions,
					       const struct dmio_region *where, int rw, void *data,
					       dmio_notify_fn fn, void *context);
/** @} */

/**
 * @name Synchronous services
 * As the asynchronous ones, and wait by polling the queue, which runs other callbacks too.
 * `error_bits` may be NULL. They add these results:
 *  - -EIO: some region failed, see the bits;
 *  - -EDEADLK: called from a callback of the queue; nothing was done.
 * Where the asynchronous call would say -EAGAIN they wait their turn.
 * @{
 */

/**
 * I/O from or to a list of pages.
 *
 * @param[in]  client       The client.
 * @param[in]  num_regions  As dmio_async().
 * @param[in]  where        As dmio_async().
 * @param[in]  rw           As dmio_async().
 * @param[in]  pl           As dmio_async().
 * @param[in]  offset       As dmio_async().
 * @param[out] error_bits   Bit i: region i failed. 0 when refused.
 * @retval 0         All regions done.
 * @retval -EIO      Some failed.
 * @retval -EINVAL   As dmio_async().
 * @retval -EDEADLK  In a callback.
 * @threads   queue; blocks
 * @conform   dm_io_sync() of 2004; never interrupted by a signal.
 */
DMCORE_API DMCORE_MUST_CHECK int dmio_sync(struct dmio_client *client, unsigned int num_regions,
					   const struct dmio_region *where, int rw,
					   struct dmio_page_list *pl, unsigned int offset,
					   unsigned long *error_bits);

/**
 * I/O from or to a vector.
 *
 * @param[in]  client       The client.
 * @param[in]  num_regions  As dmio_async().
 * @param[in]  where        As dmio_async().
 * @param[in]  rw           As dmio_async().
 * @param[in]  bvec         As dmio_async_bvec().
 * @param[out] error_bits   Bit i: region i failed. 0 when refused.
 * @retval 0         All regions done.
 * @retval -EIO      Some failed.
 * @retval -EINVAL   As dmio_async().
 * @retval -EDEADLK  In a callback.
 * @threads   queue; blocks
 * @conform   dm_io_sync_bvec() of 2004.
 */
DMCORE_API DMCORE_MUST_CHECK int dmio_sync_bvec(struct dmio_client *client,
						unsigned int num_regions,
						const struct dmio_region *where, int rw,
						const struct dmio_bvec *bvec,
						unsigned long *error_bits);

/**
 * I/O from or to one buffer.
 *
 * @param[in]  client       The client.
 * @param[in]  num_regions  As dmio_async().
 * @param[in]  where        As dmio_async().
 * @param[in]  rw           As dmio_async().
 * @param[in]  data         As dmio_async_vm().
 * @param[out] error_bits   Bit i: region i failed. 0 when refused.
 * @retval 0         All regions done.
 * @retval -EIO      Some failed.
 * @retval -EINVAL   As dmio_async().
 * @retval -EDEADLK  In a callback.
 * @threads   queue; blocks
 * @conform   dm_io_sync_vm() of 2004.
 */
DMCORE_API DMCORE_MUST_CHECK int dmio_sync_vm(struct dmio_client *client, unsigned int num_regions,
					      const struct dmio_region *where, int rw, void *data,
					      unsigned long *error_bits);
/** @} */

DMCORE_END_DECLS

/** @} */
#endif
