/* SPDX-License-Identifier: MIT */
/**
 * @file driver.h
 * @defgroup driver Writing a device driver
 * A driver makes leaf devices: it carries out reads, writes and the rest. The library's own (file,
 * mem) use nothing but this header, so an application's can do all that they do.
 *
 * What a driver is spared: the core checks range, alignment and read-only before submit; turns
 * PREFLUSH into a flush before, and FUA into a flush after the write unless the device has
 * DMCORE_CAP_FUA; writes zeroes where DMCORE_CAP_WRITE_ZEROES is missing; refuses DISCARD where
 * DMCORE_CAP_DISCARD is missing; splits READ and WRITE at max_io_sectors and chunk_sectors, DISCARD
 * at max_discard_sectors and WRITE_ZEROES at max_write_zeroes_sectors.
 *
 * Compile with -fno-strict-aliasing if per-bio state is kept in dmcore_bio_driver_data().
 * @{
 */
#ifndef DMCORE_DRIVER_H
#define DMCORE_DRIVER_H

#include <stddef.h>
#include <stdint.h>

#include <dmcore/attr.h>
#include <dmcore/bdev.h>
#include <dmcore/bio.h>

DMCORE_BEGIN_DECLS

struct dmcore;
struct dmcore_queue;

/** Openings of the same key share one object whatever their flags: one with other flags than the
 *  first is refused with -EBUSY. Without it, each set of flags has an object of its own. */
#define DMCORE_DRIVER_ONE_OBJECT (1u << 0)

/** A kind of leaf device. Static and constant; must outlive its registration. */
struct dmcore_driver {
	size_t struct_size;      /**< sizeof(struct dmcore_driver) of the author. */
	const char *name;        /**< The word before the colon in `name:args`. */
	unsigned int version[3]; /**< Major, minor, patch. */
	unsigned int features;   /**< DMCORE_DRIVER_*. */

	/**
	 * Optional. Tells which device the arguments mean, so that two openings share one object.
	 * Writes a key of at most @p bytes - 1 characters and returns 0; or leaves it empty for
	 * "never shared"; or returns a negative errno, which fails the opening. Control thread.
	 */
	int (*identify)(struct dmcore *core, const char *args, char *key, size_t bytes);

	/**
	 * Opens. Must call dmcore_bdev_set_size() and dmcore_bdev_set_private(), may call
	 * dmcore_bdev_set_limits(). Returns 0 or a negative errno, and says why by
	 * dmcore_bdev_open_error(). Control thread.
	 */
	int (*open)(struct dmcore_bdev *bdev, const char *args, unsigned int flags);

	/** Closes; nothing is in flight. Control thread. */
	void (*close)(struct dmcore_bdev *bdev);

	/**
	 * Carries out a bio: starts it and returns. It ends, now or later and exactly once, by
	 * dmcore_bio_complete() on the bio's queue, or dmcore_bio_complete_remote() from elsewhere.
	 * With its last bio ended the device may be closed, by another thread and at once: what
	 * belongs to either isn't touched any more.
	 * Called on any queue's thread, several at once. Must not allocate or block.
	 */
	void (*submit)(struct dmcore_bdev *bdev, struct dmcore_bio *bio);

	/**
	 * Optional: looks again how large the device is, and calls dmcore_bdev_set_size(). Called
	 * when the device is opened once more while it is open. Requests may be in flight. Returns
	 * 0, or as open, which fails the opening. Control thread.
	 */
	int (*refresh)(struct dmcore_bdev *bdev);

	/**
	 * Optional: as dmcore_bdev_extent(), for sectors that the device has. Without it all is
	 * data. May be called on several threads at once.
	 */
	int (*extent)(struct dmcore_bdev *bdev, uint64_t sector, uint64_t count,
		      struct dmcore_extent *extent);

	/**
	 * Optional: fills the range of a bio, which is of operation DMCORE_OP_WRITE and has no
	 * memory, with as many sectors of @p from, a device of the same driver, without the data
	 * passing through the process; they may be shared. The core has checked both ranges, and
	 * splits nothing. Ends as submit does. Any failure has the data copied in the ordinary way,
	 * so part of the range may have been written.
	 */
	void (*copy)(struct dmcore_bdev *bdev, struct dmcore_bio *bio, struct dmcore_bdev *from,
		     uint64_t from_sector);
};

/**
 * Adds a driver to a core. It is there until the core is destroyed.
 *
 * @param[in] core    The core.
 * @param[in] driver  Borrowed for the life of the core.
 * @retval 0        Added.
 * @retval -EINVAL  struct_size, the name or a function is missing; an unknown feature.
 * @retval -EEXIST  The name is taken.
 * @retval -ENOMEM  No memory.
 * @threads   control
 */
DMCORE_API DMCORE_MUST_CHECK int dmcore_driver_register(struct dmcore *core,
							const struct dmcore_driver *driver);

/**
 * @name Modules
 * A driver that a core doesn't have is loaded when a specification `NAME:ARGS` first names it, from
 * the shared object `driver-NAME.so` in the library's folder of modules, or in the one that
 * DMCORE_MODULE_PATH in the environment says (not in programs with privileges). NAME is of small
 * letters, digits, `_` and `-`. A core made with DMCORE_NO_MODULES loads none.
 * @{
 */

/** The version of struct dmcore_driver_module, and of what its author finds in this header. */
#define DMCORE_MODULE_ABI 1u

/** The longest NAME of a module's driver. */
#define DMCORE_MODULE_NAME_MAX 63

/** The symbol, of type const struct dmcore_driver_module, that a module defines as DMCORE_API. */
#define DMCORE_MODULE_SYMBOL "dmcore_driver_module"

/** What a module says about itself. Only one of the library's own DMCORE_MODULE_ABI is used. */
struct dmcore_driver_module {
	unsigned int abi;        /**< DMCORE_MODULE_ABI, as the author compiled it; stays first. */
	const char *name;        /**< The driver's, as in the name of the module's file. */

	/**
	 * Calls dmcore_driver_register(), and returns 0 or a negative errno. Once for each core;
	 * again at the next opening if it has failed. The module stays loaded until the core is
	 * destroyed. Control thread.
	 */
	int (*register_drivers)(struct dmcore *core);
};

/** @} */

/**
 * Sets the size of a device that is being opened or refreshed.
 *
 * @param[in] bdev     The device.
 * @param[in] sectors  At most DMCORE_DEVICE_SECTORS_MAX.
 * @threads callback
 */
DMCORE_API void dmcore_bdev_set_size(struct dmcore_bdev *bdev, uint64_t sectors);

/**
 * Sets the driver's own pointer.
 *
 * @param[in] bdev          The device.
 * @param[in] private_data  Anything.
 * @threads callback
 */
DMCORE_API void dmcore_bdev_set_private(struct dmcore_bdev *bdev, void *private_data);

/**
 * The driver's own pointer.
 *
 * @param[in] bdev  The device.
 * @return  As set.
 * @threads any
 */
DMCORE_API void *dmcore_bdev_private(const struct dmcore_bdev *bdev);

/**
 * Sets the limits of a device that is being opened. Before, they are: blocks of 512 bytes, no
 * capability, no maximum, any alignment.
 *
 * @param[in] bdev    The device.
 * @param[in] limits  struct_size set; copied.
 * @retval 0        Set.
 * @retval -EINVAL  A block size that is no power of two, or below 512 or above
 *                  DMCORE_BLOCK_BYTES_MAX; a maximum or chunk that is no multiple of the block.
 * @threads callback
 */
DMCORE_API int dmcore_bdev_set_limits(struct dmcore_bdev *bdev, const struct dmcore_limits *limits);

/**
 * Says why an opening fails; the core puts the device's name before it.
 *
 * @param[in] bdev    The device being opened.
 * @param[in] error   The negative errno that will be returned.
 * @param[in] format  printf format.
 * @return  @p error, so that one can write `return dmcore_bdev_open_error(…);`
 * @threads callback
 */
DMCORE_API DMCORE_PRINTF(3, 4) int dmcore_bdev_open_error(struct dmcore_bdev *bdev, int error,
							  const char *format, ...);

/**
 * The core that a device belongs to.
 *
 * @param[in] bdev  The device.
 * @return  Borrowed.
 * @threads any
 */
DMCORE_API struct dmcore *dmcore_bdev_core(const struct dmcore_bdev *bdev);

/**
 * The driver of a leaf device, as it was registered: one that is part of a larger struct finds that
 * by it.
 *
 * @param[in] bdev  The device.
 * @return  Borrowed; NULL for a mapped device.
 * @threads any
 */
DMCORE_API const struct dmcore_driver *dmcore_bdev_driver(const struct dmcore_bdev *bdev);

/**
 * Memory by the core's allocator, zeroed.
 *
 * @param[in] core   The core.
 * @param[in] bytes  How much.
 * @return  Memory for dmcore_free(), or NULL.
 * @threads any; not on the data path
 */
DMCORE_API DMCORE_MUST_CHECK void *dmcore_zalloc(struct dmcore *core, size_t bytes);

/**
 * Gives back memory of dmcore_zalloc().
 *
 * @param[in] core    The core.
 * @param[in] memory  NULL is a no-op.
 * @threads any; not on the data path
 */
DMCORE_API void dmcore_free(struct dmcore *core, void *memory);

/**
 * @name File I/O
 * System calls on file descriptors by the queue's backend.
 * @{
 */

struct dmcore_file;
struct dmcore_fileio;

/** What a dmcore_fileio does. */
enum dmcore_fileio_op {
	DMCORE_FILEIO_READ,      /**< preadv2(). */
	DMCORE_FILEIO_WRITE,     /**< pwritev2(). */
	DMCORE_FILEIO_DATASYNC,  /**< fdatasync(). */
	DMCORE_FILEIO_FALLOCATE, /**< fallocate() with mode. */
	DMCORE_FILEIO_DISCARD,   /**< ioctl(BLKDISCARD). Runs inside the call even with io_uring. */
	DMCORE_FILEIO_COPY,      /**< copy_file_range(). Likewise. */
};

/** Runs inside the poll of the queue when a pending dmcore_fileio has its result. */
typedef void (*dmcore_fileio_done_fn)(struct dmcore_fileio *io);

/** One system call. The driver's memory (as a rule dmcore_bio_driver_data()) until it has ended. */
struct dmcore_fileio {
	struct dmcore_fileio *next;     /**< The queue's. */
	dmcore_fileio_done_fn done;     /**< Required. */
	struct dmcore_file *file;       /**< From dmcore_file_attach(). */
	union {
		const struct dmio_bvec *vecs; /**< READ, WRITE: borrowed until the end. */
		struct dmcore_file *from;     /**< COPY: the file that is copied from. */
	};
	uint64_t offset_bytes;          /**< Where in the file. */
	uint64_t len_bytes;             /**< Of all vecs together; or of the range. */
	uint32_t num_vecs;              /**< READ, WRITE: 1..1024. */
	uint8_t op;                     /**< enum dmcore_fileio_op. */
	uint8_t unused;                 /**< Zero. */
	uint16_t tag;                   /**< The driver's. */
	int32_t flags;                  /**< READ, WRITE: RWF_*; FALLOCATE: the mode. */
	int32_t unused2;                /**< Zero. */
	int64_t result;                 /**< Bytes or 0, or negative errno. Short counts, -EINTR and
					     -EAGAIN are handed on for the driver to deal with. */
	uint64_t from_offset_bytes;     /**< COPY: where in the file that is copied from. */
};

/**
 * Makes a descriptor known to the backends.
 *
 * @param[in]  core    The core.
 * @param[in]  fd      Stays the caller's; must stay open until dmcore_file_detach().
 * @param[out] result  The handle.
 * @retval 0        Known.
 * @retval -ENOMEM  No memory.
 * @threads   control
 */
DMCORE_API DMCORE_MUST_CHECK int dmcore_file_attach(struct dmcore *core, int fd,
						    struct dmcore_file **result);

/**
 * Makes the backends forget a descriptor; then it may be closed.
 *
 * @param[in] file  With no I/O in flight; NULL is a no-op.
 * @threads   control
 */
DMCORE_API void dmcore_file_detach(struct dmcore_file *file);

/**
 * Starts a system call. Never blocks with io_uring or with workers, but for a moment with
 * DMCORE_QUEUE_INLINE_WRITES.
 *
 * @param[in] queue  The queue of the bio that it serves.
 * @param[in] io     Filled in; borrowed until it has ended.
 * @retval 0  Pending: done runs once, inside the queue's poll.
 * @retval 1  It has ended: result is set, and done does not run.
 * @threads   queue
 */
DMCORE_API DMCORE_MUST_CHECK int dmcore_fileio_start(struct dmcore_queue *queue,
						     struct dmcore_fileio *io);

/** Waits for a bounce buffer. The driver's memory until granted has run. */
struct dmcore_bounce_waiter {
	struct dmcore_bounce_waiter *next;   /**< The queue's. */
	/** Runs inside the queue's poll with a buffer of DMCORE_BOUNCE_BYTES. */
	void (*granted)(struct dmcore_bounce_waiter *waiter, void *buffer);
};

/**
 * Takes one of the queue's bounce buffers (page-aligned), or waits in line for one.
 *
 * @param[in] queue   The queue.
 * @param[in] waiter  With granted set; used if none is free.
 * @return  A buffer, or NULL: granted will run, once.
 * @threads queue
 */
DMCORE_API DMCORE_MUST_CHECK void *dmcore_bounce_get(struct dmcore_queue *queue,
						     struct dmcore_bounce_waiter *waiter);

/**
 * Gives a bounce buffer back, to the next in line if there is one.
 *
 * @param[in] queue   The queue.
 * @param[in] buffer  From dmcore_bounce_get() or granted.
 * @threads queue
 */
DMCORE_API void dmcore_bounce_put(struct dmcore_queue *queue, void *buffer);

/** @} */

DMCORE_END_DECLS

/** @} */
#endif
