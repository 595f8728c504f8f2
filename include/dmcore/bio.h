/* SPDX-License-Identifier: MIT */
/**
 * @file bio.h
 * @defgroup bio Requests
 * One request to a block device, from its submitter down to the leaf and back.
 *
 * @code
 * struct dmcore_bio *bio = dmcore_bio_get(queue);
 *
 * bio->bdev = bdev;
 * bio->op = DMCORE_OP_READ;
 * bio->sector = 2048;
 * dmcore_bio_set_buffer(bio, buffer, 4096);
 * bio->done = my_done;
 * ret = dmcore_bio_submit(bio);
 * @endcode
 *
 * A bio belongs to one queue. It comes from the queue's pool, or is the caller's own memory made
 * ready by dmcore_bio_init(). On its way down the fields bdev, sector, count and the vector are
 * rewritten layer by layer, and they are not restored: set them again before the bio is used again.
 * @{
 */
#ifndef DMCORE_BIO_H
#define DMCORE_BIO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <dmcore/attr.h>
#include <dmcore/limits.h>

DMCORE_BEGIN_DECLS

struct dmcore_bdev;
struct dmcore_queue;
struct dmcore_bio;

/** A piece of memory; laid out as struct iovec. */
struct dmio_bvec {
	void *base;       /**< First byte. */
	size_t len_bytes; /**< Length, bytes; not 0, and below 4 GiB in a bio of 4 GiB or more. */
};

/** What a bio does. */
enum dmcore_op {
	DMCORE_OP_READ = 0,     /**< Device to memory. */
	DMCORE_OP_WRITE,        /**< Memory to device. */
	DMCORE_OP_FLUSH,        /**< Makes durable every write that completed before the flush was
			             submitted. Has no range. */
	DMCORE_OP_DISCARD,      /**< The range's content is no longer needed. No memory. */
	DMCORE_OP_WRITE_ZEROES, /**< Zeroes the range. No memory. */
	DMCORE_OP_COUNT,        /**< Not an operation: how many there are. */
};

/** The write is durable when it completes. WRITE and WRITE_ZEROES. A device that can't do it is
 *  flushed after the write; then it also fails if another flush of the device failed meanwhile,
 *  which may have lost it. */
#define DMCORE_BIO_FUA (1u << 0)
/** A flush comes first, and the write isn't begun if it fails. WRITE and WRITE_ZEROES. */
#define DMCORE_BIO_PREFLUSH (1u << 1)
/** Fail with -EAGAIN rather than wait while a device is suspended. */
#define DMCORE_BIO_NOWAIT (1u << 2)
/** Speculative read: may fail rather than wait or be retried. READ. */
#define DMCORE_BIO_RAHEAD (1u << 3)
/** Every flag above. */
#define DMCORE_BIO_FLAGS_ALL 0xfu

/**
 * Runs once for an accepted bio, inside the poll of its queue, with status set. The bio is the
 * submitter's again: it may be submitted, put back or freed here.
 */
typedef void (*dmcore_bio_done_fn)(struct dmcore_bio *bio);

/** The library's part of a bio: not to be read or written, and not part of the interface. */
struct dmcore_bio_internal {
	struct dmcore_bio *parent;   /**< Of a piece: the bio that was split. */
	uint16_t parent_frame_bytes; /**< Of a piece: where in the parent the split is noted. */
	uint16_t top_bytes;          /**< Bytes of frames in use. */
	uint8_t state;               /**< enum dmcore__bio_state. */
	uint8_t origin;              /**< enum dmcore__bio_origin. */
	uint16_t unused;             /**< Zero. */
	uint64_t reserved;           /**< Zero. */
};

/** A block request. 64-bit layout: the first 64 bytes are all that mapping needs. */
struct dmcore_bio {
	struct dmcore_bdev *bdev;     /**< Where to; borrowed, must stay open until the end. */
	uint64_t sector;              /**< First sector, 512 bytes each, from the start of bdev. */
	uint64_t count;               /**< Sectors; not 0 but for FLUSH, where it is ignored. */
	const struct dmio_bvec *vecs; /**< READ, WRITE: the memory, count * 512 bytes of it or more;
				           borrowed, and unchanged by the library. */
	uint32_t num_vecs;            /**< Entries of vecs. */
	uint32_t vec_offset_bytes;    /**< Where in vecs[0] the data begin; < vecs[0].len_bytes. */
	uint8_t op;                   /**< enum dmcore_op. */
	uint8_t unused;               /**< Zero. */
	uint16_t flags;               /**< DMCORE_BIO_*. */
	int32_t status;               /**< At the end: 0 or negative errno. */
	struct dmcore_queue *queue;   /**< Set by init and get; not to be changed. */
	struct dmcore_bio *next;      /**< Whose the bio is, may link it in a list of his own. */

	dmcore_bio_done_fn done;      /**< NULL: the bio is collected by dmcore_queue_reap(). */
	void *context;                /**< The submitter's. */
	struct dmio_bvec vec;         /**< A vector of one, used by dmcore_bio_set_buffer(). */
	uint32_t bio_nr;              /**< Which copy this is of a flush or discard that a
				           target gets several of; see num_bios there. */
	uint32_t unused2;             /**< Zero. */
	struct dmcore_bio_internal internal; /**< The library's. */

	/** The library's: completion frames, the youngest on top. */
	unsigned char frames[DMCORE_BIO_FRAME_BYTES] DMCORE_ALIGNED(16);
	/** The leaf driver's while it has the bio; see dmcore_bio_driver_data(). */
	unsigned char driver_data[DMCORE_BIO_DRIVER_BYTES] DMCORE_ALIGNED(16);
};

/**
 * Takes a bio from the queue's pool, ready to be filled in.
 *
 * @param[in] queue  The queue.
 * @return  The bio, to be given back by dmcore_bio_put(); NULL when all are in use: retry after a
 *          completion. Never allocates.
 * @threads queue
 */
DMCORE_API DMCORE_MUST_CHECK struct dmcore_bio *dmcore_bio_get(struct dmcore_queue *queue);

/**
 * Gives a bio of dmcore_bio_get() back to its pool.
 *
 * @param[in] bio  Not in flight; NULL is a no-op.
 * @threads queue
 */
DMCORE_API void dmcore_bio_put(struct dmcore_bio *bio);

/**
 * Makes a bio of the caller's own memory ready to be filled in.
 *
 * @param[out] bio    Any memory of the right size and alignment; not in flight.
 * @param[in]  queue  The queue it will belong to.
 * @threads queue
 */
DMCORE_API void dmcore_bio_init(struct dmcore_bio *bio, struct dmcore_queue *queue);

/**
 * Points a bio at one buffer, and sets count from its length.
 *
 * @param[in,out] bio     The bio; its vec is used.
 * @param[in]     buffer  Borrowed until the bio has ended.
 * @param[in]     bytes   A multiple of 512.
 * @threads queue
 */
DMCORE_API void dmcore_bio_set_buffer(struct dmcore_bio *bio, void *buffer, size_t bytes);

/**
 * Sends a bio on its way.
 *
 * What is wrong with the device or the range shows in the status at the end, not here: -EIO
 * for sectors behind the end of the device, -EINVAL for a range that isn't a multiple of its
 * logical block, -EROFS for a write to a read-only device, -EOPNOTSUPP for an operation it doesn't
 * have. When a request is split, all pieces are carried out, and the first error is the status.
 *
 * @param[in] bio  With bdev, op and, by operation, sector, count and the vector set.
 * @retval 0            Accepted: it completes exactly once, later, inside a poll of its queue.
 * @retval -EINVAL      A field is malformed: no device or one of another core, an
 *                      unknown operation or flag, an empty or
 *                      impossible range, no memory for a read or write. It never completes.
 * @retval -EBUSY       The bio is in flight already.
 * @retval -EOWNERDEAD  The queue was made before fork().
 * @ownership The bio is the library's until it has ended; the memory and the device are borrowed.
 * @threads   queue. Doesn't allocate. With a pread backend without workers it may block in the
 *            system call.
 * @conform   submit_bio().
 */
DMCORE_API DMCORE_MUST_CHECK int dmcore_bio_submit(struct dmcore_bio *bio);

/**
 * Ends a bio: for drivers and targets that own it. Callbacks, and what targets want to do with it
 * on its way back, run from the queue's poll. Devices that want nothing more of it stop counting it
 * now, so that a table which is being replaced may go at once.
 *
 * @param[in] bio     Owned by the caller; not to be touched afterwards.
 * @param[in] status  0 or a negative errno.
 * @threads   queue
 */
DMCORE_API void dmcore_bio_complete(struct dmcore_bio *bio, int status);

/**
 * As dmcore_bio_complete(), for a thread that doesn't own the bio's queue; wakes the owner.
 *
 * @param[in] bio     Owned by the caller; not to be touched afterwards.
 * @param[in] status  0 or a negative errno.
 * @threads   any
 */
DMCORE_API void dmcore_bio_complete_remote(struct dmcore_bio *bio, int status);

/**
 * Sends on a bio that a target has kept: as if map returned DMCORE_MAP_REMAPPED only now. From a
 * target with end_io or per_bio_bytes.
 *
 * @param[in] bio  Kept by map, which has returned, and not completed; with bdev and the range set.
 *                 Not to be touched afterwards, nor what belongs to the target.
 * @threads   queue
 */
DMCORE_API void dmcore_bio_forward(struct dmcore_bio *bio);

/**
 * Moves the start of a bio forward: sector and vector by @p sectors, count down by as much.
 *
 * @param[in,out] bio      The bio.
 * @param[in]     sectors  At most count.
 * @threads queue
 */
DMCORE_API void dmcore_bio_advance(struct dmcore_bio *bio, uint64_t sectors);

/**
 * Fills the memory of a read with zeroes.
 *
 * @param[in] bio  A READ.
 * @retval 0        Filled.
 * @retval -EFAULT  The vector holds less than count * 512 bytes; what there is was filled.
 * @threads queue
 */
DMCORE_API int dmcore_bio_zero_fill(struct dmcore_bio *bio);

/**
 * Copies between a bio's memory and a buffer, for drivers that keep data in memory.
 *
 * @param[in] bio     A READ (the buffer is copied to the bio's memory) or a WRITE (the reverse).
 * @param[in] buffer  count * 512 bytes.
 * @retval 0        Copied.
 * @retval -EFAULT  The vector holds less than count * 512 bytes; what there is was copied.
 * @threads queue
 */
DMCORE_API int dmcore_bio_copy(struct dmcore_bio *bio, void *buffer);

/**
 * The scratch memory that a leaf driver has in a bio between its submit and the completion.
 *
 * @param[in] bio  The bio.
 * @return  DMCORE_BIO_DRIVER_BYTES bytes, aligned to 16, of undefined content.
 * @threads callback
 */
DMCORE_API void *dmcore_bio_driver_data(struct dmcore_bio *bio);

/**
 * The per-bio data of the target whose map or end_io is running.
 *
 * @param[in] bio  The bio.
 * @return  dmcore_target_type::per_bio_bytes bytes, aligned to 8; kept from map to end_io.
 * @threads callback
 * @conform dm_per_bio_data().
 */
DMCORE_API void *dmcore_bio_target_data(struct dmcore_bio *bio);

DMCORE_END_DECLS

/** @} */
#endif
