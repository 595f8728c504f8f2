/* SPDX-License-Identifier: MIT */
/**
 * @file kcopyd.h
 * @defgroup kcopyd kcopyd
 * Copies a range of sectors from one device to one or more others, in the background.
 *
 * @code
 * struct dmio_region from = { disk, 0, 8192 };
 * struct dmio_region dests[2] = { { a, 0, 0 }, { b, 2048, 0 } };
 *
 * ret = kcopyd_client_create(queue, 256, &kc);
 * ret = kcopyd_copy(kc, &from, 2, dests, 0, my_notify, my_context);
 * @endcode
 *
 * A client copies through a reserve of pages of its own, and never uses more. A job larger than the
 * sub-job size is copied in slices, up to KCOPYD_SUBJOBS_MAX of them at a time; each is read once
 * and written to all destinations. Jobs of a client take turns slice by slice, so that a small one
 * doesn't wait for the end of a large one. Nothing is promised about the order in which jobs, or
 * slices, end.
 *
 * A job is either refused, and then nothing is called back, or its callback runs exactly once,
 * later, inside the queue's poll; with it nothing of the job is under way any more. What has been
 * copied is durable after a flush of the destination: ask for KCOPYD_FLUSH, or use DMIO_FLUSH.
 *
 * If a destination overlaps the source on the same device object, data is moved as memmove() does
 * it. After a write error or a power cut such a move can't always be gone on with: part of the
 * source may have been written over by then. Overlaps that hide behind different devices (two
 * mapped devices over one disk) aren't noticed, nor those of destinations with each other: what
 * such sectors hold then is undefined. So it is for sectors of the source that somebody writes
 * while the job is under way.
 *
 * kcopyd_copy() and its like take jobs from a pool of the client. A struct kcopyd_job of the
 * caller's own can do more: it is never refused for want of memory, tells its progress, can be
 * cancelled, and says how far it got.
 * @{
 */
#ifndef DMCORE_KCOPYD_H
#define DMCORE_KCOPYD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <dmcore/attr.h>
#include <dmcore/context.h>
#include <dmcore/dmio.h>
#include <dmcore/limits.h>

DMCORE_BEGIN_DECLS

struct dmcore_queue;
struct kcopyd_client;
struct kcopyd_job;
struct kcopyd_throttle;

/** Go on after errors. What couldn't be read is written as zeroes, a slice at a time; the errors
 *  are reported all the same. The kernel's bit. */
#define KCOPYD_IGNORE_ERROR (1u << 1)
/** Each destination is written in ascending order, one write at a time; reads may run ahead. Takes
 *  the effect of KCOPYD_IGNORE_ERROR and KCOPYD_SHARE away. The kernel's bit. */
#define KCOPYD_WRITE_SEQ (1u << 2)
/** When all is written, flush each destination; the job has succeeded if these flushes have, and
 *  then what it wrote is durable. A flush that fails sets the bit of its destination in
 *  write_err. */
#define KCOPYD_FLUSH (1u << 8)
/** When all is written (and flushed), read source and destinations again and compare them. Takes
 *  twice the pages for each slice. */
#define KCOPYD_VERIFY (1u << 9)
/** Don't copy zeroes: what the source reports as a hole isn't read, and blocks of 4 KiB that turn
 *  out to hold zeroes aren't written. Destinations are zeroed there: by DISCARD, which frees the
 *  space, if all of them are files or other leaf devices with DMCORE_CAP_DISCARD_ZEROES; else by
 *  WRITE_ZEROES. See dmcore_bdev_extent(). */
#define KCOPYD_SPARSE (1u << 10)
/** With KCOPYD_SPARSE: the destinations read as zeroes already, so they are left alone there. */
#define KCOPYD_DESTS_ZEROED (1u << 11)
/** Source and destinations may share their blocks, and the kernel may copy: if all are files, data
 *  goes by copy_file_range(), which makes reflinks where the file system can. Otherwise it is
 *  copied as ever. With an io_uring queue the system calls, of up to 16 MiB each, run inside
 *  poll. */
#define KCOPYD_SHARE (1u << 12)
/** Every flag above. */
#define KCOPYD_FLAGS_ALL 0x1f06u

/**
 * The end of a job of kcopyd_copy() and its like. @p read_err is not 0 if the source couldn't be
 * read; bit i of @p write_err is set if dests[i] couldn't be written whole, or was found to differ.
 * Runs inside the poll of the client's queue; may start further jobs.
 */
typedef void (*kcopyd_notify_fn)(int read_err, unsigned int write_err, void *context);

/** The end of a job of the caller's own, likewise. The job is the caller's again: it may be
 *  submitted anew or freed here. */
typedef void (*kcopyd_done_fn)(struct kcopyd_job *job);

/**
 * What a job has read, before it is written; the data may be changed. Called once for each slice,
 * in whatever order they are read, also for one that is not written after all because the job is
 * cancelled.
 *
 * @param[in] job            The job.
 * @param[in] offset_sectors Where in the job's range the data stand.
 * @param[in] data           The data.
 * @param[in] count_sectors  How many.
 * @threads   callback; must not submit, cancel or free the job
 */
typedef void (*kcopyd_data_fn)(struct kcopyd_job *job, uint64_t offset_sectors, void *data,
			       uint64_t count_sectors);

/** The library's part of a job: not to be read or written, and not part of the interface. */
struct kcopyd_job_internal {
	struct kcopyd_client *client; /**< NULL: not under way. */
	void *links[4];               /**< The client's list, and that of the job's slices. */
	struct dmcore_work work;      /**< Brings a callback to the queue's thread. */
	uint64_t count;               /**< Sectors to copy. */
	uint64_t cursor;              /**< Sectors given to slices in this phase. */
	uint64_t stopped_at;          /**< Where the first slice stands that wasn't copied. */
	uint64_t extent_end;          /**< Up to where the kind of the source's data is known. */
	uint64_t counts[6];           /**< For kcopyd_progress(). */
	uint64_t mismatch;            /**< For kcopyd_progress(). */
	uint32_t block_sectors;       /**< Slices are multiples of it. */
	uint32_t slice_sectors;       /**< Longest slice. */
	uint32_t inflight;            /**< Slices under way. */
	uint8_t state;                /**< enum kcopyd__job_state. */
	uint8_t phase;                /**< enum kcopyd__phase. */
	uint16_t bits;                /**< What has been found out about the job. */
	uint64_t reserved[4];         /**< Zero. */
};

/**
 * A job in the caller's memory, zeroed before its first use; not to be moved, changed or freed from
 * kcopyd_submit() to done.
 */
struct kcopyd_job {
	struct dmio_region from;                    /**< What to copy. No bdev: zeroes, as many as
						         dests[0].count. */
	struct dmio_region dests[KCOPYD_DESTS_MAX]; /**< Where to; the counts are not looked at
						         when there is a source. */
	unsigned int num_dests;                     /**< 1 to KCOPYD_DESTS_MAX. */
	unsigned int flags;                         /**< KCOPYD_*. */
	kcopyd_done_fn done;                        /**< Required. */
	kcopyd_data_fn data;                        /**< Sees all data; or NULL. Not with flags by
						         which some isn't read, or is compared:
						         KCOPYD_SPARSE, _SHARE and _VERIFY. */
	void *context;                              /**< The caller's. */

	int status;              /**< Out: 0, the job has succeeded. -EIO: see the next three.
				      -EILSEQ: source and destinations differ. -ECANCELED. */
	int read_err;            /**< Out: not 0: the source couldn't be read. */
	unsigned int write_err;  /**< Out: bit i: dests[i] couldn't be written or flushed. */
	unsigned int verify_err; /**< Out: bit i: dests[i] couldn't be read again, or differs. */
	struct kcopyd_job_internal internal; /**< The library's. */
};

/** How far a job is, or has got. */
struct kcopyd_progress {
	size_t struct_size;        /**< In: sizeof(struct kcopyd_progress) of the caller. */
	uint64_t total_sectors;    /**< Length of the job. */
	uint64_t position_sectors; /**< So much of the range, from its start, is done: copied to
				        every destination, or given up with KCOPYD_IGNORE_ERROR. A
				        job that is to go on from there has source and destinations
				        moved by as much. Where a destination overlaps the source
				        and lies behind it, this counts from the end of the range
				        instead, and the rest is what lies before. */
	uint64_t copied_sectors;   /**< Read, and written to every destination. */
	uint64_t zeroed_sectors;   /**< Zeroed in every destination. */
	uint64_t skipped_sectors;  /**< Zeroes that were left out, see KCOPYD_DESTS_ZEROED. */
	uint64_t shared_sectors;   /**< Copied within the kernel, see KCOPYD_SHARE. */
	uint64_t failed_sectors;   /**< In slices that failed to be read or written. */
	uint64_t verified_sectors; /**< Compared, by KCOPYD_VERIFY. */
	uint64_t mismatch_sectors; /**< From the start of the range: the first sector in which a
				        destination was found to differ; UINT64_MAX: none. */
};

/** What a client is made with. Zero means the default in each field. */
struct kcopyd_options {
	size_t struct_size;               /**< sizeof(struct kcopyd_options) of the caller. */
	unsigned int subjob_sectors;      /**< Longest slice, a multiple of 8 up to
					       KCOPYD_SUBJOB_SECTORS_MAX. 0: an eighth of the
					       pages, KCOPYD_SUBJOB_SECTORS_DEFAULT at the most.
					       Never more than all pages. */
	unsigned int jobs;                /**< Jobs that kcopyd_copy() and its like can have under
					       way; KCOPYD_JOBS_MAX at the most. 0:
					       KCOPYD_JOBS_DEFAULT. */
	struct kcopyd_throttle *throttle; /**< Of the same queue, to be shared with other clients;
					       borrowed. NULL: none. */
};

/** Initialiser of a struct kcopyd_options with every default. */
#define KCOPYD_OPTIONS_INIT { .struct_size = sizeof(struct kcopyd_options) }

/**
 * Makes a client.
 *
 * @param[in]  queue      The queue; must outlive the client.
 * @param[in]  num_pages  Pages of DMIO_PAGE_BYTES set aside for data, 1 to KCOPYD_PAGES_MAX; the
 *                        client never uses more. With one page it still makes progress. 256
 *                        have eight slices of 128 KiB under way, and are enough for full speed.
 * @param[out] result     The client, owned by the caller; NULL on failure.
 * @retval 0        Made.
 * @retval -EINVAL  No queue, or a number out of its range.
 * @retval -ENOMEM  No memory.
 * @threads   queue
 * @conform   dm_kcopyd_client_create(). The sub-job size is fixed here, as there.
 */
DMCORE_API DMCORE_MUST_CHECK int kcopyd_client_create(struct dmcore_queue *queue,
						      unsigned int num_pages,
						      struct kcopyd_client **result);

/**
 * Makes a client, with options.
 *
 * @param[in]  queue      As kcopyd_client_create().
 * @param[in]  num_pages  As kcopyd_client_create().
 * @param[in]  options    NULL for the defaults; copied.
 * @param[out] result     The client, owned by the caller; NULL on failure.
 * @retval 0        Made.
 * @retval -EINVAL  No queue, a number out of its range, or a throttle of another queue.
 * @retval -ENOMEM  No memory.
 * @threads   queue
 */
DMCORE_API DMCORE_MUST_CHECK int kcopyd_client_create_with(struct dmcore_queue *queue,
							   unsigned int num_pages,
							   const struct kcopyd_options *options,
							   struct kcopyd_client **result);

/**
 * Waits for the client's jobs and prepared callbacks by polling the queue, so that their callbacks
 * run; then frees it. Who doesn't want to wait cancels them first.
 *
 * @param[in] kc  NULL is a no-op.
 * @retval 0         Gone.
 * @retval -EBUSY    Something is under way and this is a callback of the queue; unchanged.
 * @retval -EDEADLK  The core's sleep hook says that waiting makes no sense; unchanged.
 * @threads   queue
 * @conform   dm_kcopyd_client_destroy().
 */
DMCORE_API int kcopyd_client_destroy(struct kcopyd_client *kc);

/**
 * Copies a range to one or more places.
 *
 * @param[in] kc         The client.
 * @param[in] from       What to copy; copied. A count of 0 succeeds, as asynchronously as any.
 *                       NULL: as kcopyd_zero().
 * @param[in] num_dests  1 to KCOPYD_DESTS_MAX.
 * @param[in] dests      Where to; copied. Counts are not looked at.
 * @param[in] flags      KCOPYD_* or 0.
 * @param[in] fn         The end.
 * @param[in] context    For @p fn.
 * @retval 0            Accepted: fn runs exactly once.
 * @retval -EINVAL      As kcopyd_submit(). fn never runs.
 * @retval -EAGAIN      All jobs of the client's pool are under way: poll, then retry. fn never
 *                      runs.
 * @retval -EOWNERDEAD  The queue was made before fork(). fn never runs.
 * @threads   queue; doesn't allocate. Like dmcore_bio_submit() it may block in a system call where
 *            the backend does.
 * @conform   dm_kcopyd_copy(). Differences: it refuses what that asserts; without
 *            KCOPYD_IGNORE_ERROR slices that have been read when another one fails aren't written.
 */
DMCORE_API DMCORE_MUST_CHECK int kcopyd_copy(struct kcopyd_client *kc,
					     const struct dmio_region *from, unsigned int num_dests,
					     const struct dmio_region *dests, unsigned int flags,
					     kcopyd_notify_fn fn, void *context);

/**
 * Zeroes one or more ranges of the same length, dests[0].count: by WRITE_ZEROES if all the devices
 * have DMCORE_CAP_WRITE_ZEROES, else by writing.
 *
 * @param[in] kc         The client; its pages are used by KCOPYD_VERIFY alone.
 * @param[in] num_dests  1 to KCOPYD_DESTS_MAX.
 * @param[in] dests      Where; copied.
 * @param[in] flags      KCOPYD_* or 0.
 * @param[in] fn         The end.
 * @param[in] context    For @p fn.
 * @retval 0            Accepted: fn runs exactly once.
 * @retval -EINVAL      As kcopyd_submit(). fn never runs.
 * @retval -EAGAIN      As kcopyd_copy(). fn never runs.
 * @retval -EOWNERDEAD  As kcopyd_copy(). fn never runs.
 * @threads   queue; doesn't allocate
 * @conform   dm_kcopyd_zero().
 */
DMCORE_API DMCORE_MUST_CHECK int kcopyd_zero(struct kcopyd_client *kc, unsigned int num_dests,
					     const struct dmio_region *dests, unsigned int flags,
					     kcopyd_notify_fn fn, void *context);

/**
 * Sets aside a callback that comes like the end of a copy of this client: in its queue's thread,
 * never at the same time as another one. For who completes something else in the same order of
 * things. The client can't be destroyed before it has run.
 *
 * @param[in]  kc       The client.
 * @param[in]  fn       The callback.
 * @param[in]  context  For @p fn.
 * @param[out] result   For kcopyd_do_callback(), to be called exactly once; NULL on failure.
 * @retval 0            Prepared.
 * @retval -EINVAL      No client, no fn or no result.
 * @retval -EAGAIN      As kcopyd_copy().
 * @retval -EOWNERDEAD  The queue was made before fork().
 * @threads   queue; doesn't allocate
 * @conform   dm_kcopyd_prepare_callback().
 */
DMCORE_API DMCORE_MUST_CHECK int kcopyd_prepare_callback(struct kcopyd_client *kc,
							 kcopyd_notify_fn fn, void *context,
							 struct kcopyd_job **result);

/**
 * As kcopyd_prepare_callback(), with a job of the caller's own, of which only done and context are
 * looked at. Never refused for want of memory.
 *
 * @param[in] kc   The client.
 * @param[in] job  Borrowed until done runs.
 * @retval 0            Prepared.
 * @retval -EINVAL      No client, no job or no done.
 * @retval -EBUSY       The job is under way already.
 * @retval -EOWNERDEAD  The queue was made before fork().
 * @threads   queue; doesn't allocate
 */
DMCORE_API DMCORE_MUST_CHECK int kcopyd_prepare(struct kcopyd_client *kc, struct kcopyd_job *job);

/**
 * Has a prepared callback run.
 *
 * @param[in] job        Of kcopyd_prepare_callback() or kcopyd_prepare(); once.
 * @param[in] read_err   For the callback.
 * @param[in] write_err  For the callback. A job's status becomes -EIO if either isn't 0.
 * @threads   any
 * @conform   dm_kcopyd_do_callback().
 */
DMCORE_API void kcopyd_do_callback(struct kcopyd_job *job, int read_err, unsigned int write_err);

/**
 * Starts a job of the caller's own.
 *
 * A range that a device refuses (behind its end, misaligned, read-only) shows in read_err or
 * write_err; it is no reason to refuse the job.
 *
 * @param[in] kc   The client.
 * @param[in] job  Filled in; borrowed until done runs.
 * @retval 0            Accepted: done runs exactly once.
 * @retval -EINVAL      No done; a number of destinations, a flag or a range is out of bounds; no
 *                      device or one of another core; KCOPYD_DESTS_ZEROED without KCOPYD_SPARSE;
 *                      destinations overlap the source on either side of it, or one does with
 *                      KCOPYD_VERIFY, or from behind with KCOPYD_WRITE_SEQ; or the client has
 *                      fewer pages than one logical block of a device takes (two with
 *                      KCOPYD_VERIFY). The message says which. done never runs.
 * @retval -EBUSY       The job is under way already.
 * @retval -EOWNERDEAD  The queue was made before fork(). done never runs.
 * @threads   queue; doesn't allocate. Like dmcore_bio_submit() it may block in a system call where
 *            the backend does.
 */
DMCORE_API DMCORE_MUST_CHECK int kcopyd_submit(struct kcopyd_client *kc, struct kcopyd_job *job);

/**
 * Stops a job: it starts nothing more, and when what is under way has ended, its callback runs. No
 * sector of a destination is written after that.
 *
 * @param[in] job  Submitted by kcopyd_submit().
 * @retval 0          It ends with -ECANCELED, whatever else has happened to it;
 *                    kcopyd_progress() tells how far it got.
 * @retval -EALREADY  It has ended, or has been cancelled before; its callback is still to come.
 * @retval -EINVAL    It isn't under way, or is a prepared callback.
 * @threads   queue
 */
DMCORE_API int kcopyd_cancel(struct kcopyd_job *job);

/**
 * Tells how far a job is. What it says of a job that has ended stays true until the job is used
 * again.
 *
 * @param[in]     job       Submitted by kcopyd_submit().
 * @param[in,out] progress  struct_size set by the caller; the rest is filled in as far as that
 *                          goes.
 * @retval 0        Filled in.
 * @retval -EINVAL  No job, or struct_size isn't set.
 * @threads   queue
 */
DMCORE_API int kcopyd_progress(const struct kcopyd_job *job, struct kcopyd_progress *progress);

/**
 * Makes a throttle: a bound on how much of the time, and how fast, clients of one queue copy. It
 * starts without a bound.
 *
 * @param[in]  queue   The queue; must outlive the throttle.
 * @param[out] result  The throttle, owned by the caller; NULL on failure.
 * @retval 0        Made.
 * @retval -EINVAL  No queue.
 * @retval -ENOMEM  No memory.
 * @threads   queue
 * @conform   struct dm_kcopyd_throttle.
 */
DMCORE_API DMCORE_MUST_CHECK int kcopyd_throttle_create(struct dmcore_queue *queue,
							struct kcopyd_throttle **result);

/**
 * Frees a throttle.
 *
 * @param[in] throttle  NULL is a no-op.
 * @retval 0       Gone.
 * @retval -EBUSY  A client uses it.
 * @threads   queue
 */
DMCORE_API int kcopyd_throttle_destroy(struct kcopyd_throttle *throttle);

/**
 * Sets the bounds. They hold from the next slice on.
 *
 * @param[in] throttle          The throttle.
 * @param[in] percent           Share of the time, measured over the last second, in which copies
 *                              are under way. A slice is never held up by it for more than a
 *                              second, so that 0 is slow, but not a standstill. 100 and more: no
 *                              bound.
 * @param[in] bytes_per_second  Of the ranges that are copied, as often as they are copied or
 *                              compared, however many destinations they have; what is skipped or
 *                              zeroed by WRITE_ZEROES doesn't count. 0: no bound.
 * @retval 0        Set.
 * @retval -EINVAL  No throttle.
 * @threads   queue
 * @conform   The percentage: module parameters such as raid1_resync_throttle.
 */
DMCORE_API int kcopyd_throttle_set(struct kcopyd_throttle *throttle, unsigned int percent,
				   uint64_t bytes_per_second);

DMCORE_END_DECLS

/** @} */
#endif
