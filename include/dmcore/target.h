/* SPDX-License-Identifier: MIT */
/**
 * @file target.h
 * @defgroup target Writing a target
 * A target maps a range of a mapped device's sectors. The library's own targets use nothing but
 * this header, so an application's can do all that they do.
 *
 * A target is one file: a constructor that reads the words of a table line, a map function that
 * redirects a bio, and a constant dmcore_target_type. See docs/adding-a-target.md and
 * examples/target-reverse.
 *
 * When a table replaces another one, the targets of both live side by side for a while:
 *  1. constructors of the new table, while the old one carries I/O;
 *  2. presuspend of the old one, then no more bios come; when the last has ended, postsuspend;
 *  3. preresume, then resume of the new one, then its first bios;
 *  4. destructors of the old one.
 * @{
 */
#ifndef DMCORE_TARGET_H
#define DMCORE_TARGET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <dmcore/attr.h>
#include <dmcore/bdev.h>
#include <dmcore/bio.h>
#include <dmcore/context.h>
#include <dmcore/table.h>

DMCORE_BEGIN_DECLS

struct dmcore;
struct dmcore_args;
struct dmcore_table;
struct dmcore_target;
struct dmcore_text;

/** One line of a table. Set by the core, but for what the constructor may set. */
struct dmcore_target {
	const struct dmcore_target_type *type; /**< Its type. */
	struct dmcore_table *table;            /**< Its table. */
	void *private_data;                    /**< The constructor's. */
	uint64_t begin;                        /**< First sector in the table. */
	uint32_t max_io_sectors;               /**< The constructor's: READ and WRITE are split at
					            multiples of it from begin; 0: never. If it
					            isn't 0 preresume may set another value that
					            isn't; limits are not stacked again. */
	uint32_t flags;                        /**< The constructor's: DMCORE_TARGET_*. */
};

/** DISCARD works even if the devices below don't offer it. */
#define DMCORE_TARGET_DISCARDS (1u << 0)
/** A flush of the target is a flush of each of its devices: the core sends one to each distinct
 *  device of the table instead of calling map. */
#define DMCORE_TARGET_FLUSH_DEVICES (1u << 1)

/** DISCARD and WRITE_ZEROES are split like READ and WRITE. */
#define DMCORE_TARGET_SPLITS_ALL (1u << 2)

/** What map has done with a bio. */
enum dmcore_map_result {
	DMCORE_MAP_SUBMITTED, /**< Kept it: it ends by dmcore_bio_complete(), now or later, or is
				   sent on by dmcore_bio_forward(), later, or by
				   dmcore_bio_send_copies(), now or later. */
	DMCORE_MAP_REMAPPED,  /**< Set bdev, sector and maybe count: the core sends it on. */
	DMCORE_MAP_KILL,      /**< Nothing: the core ends it with -EIO. */
	DMCORE_MAP_REQUEUE,   /**< Nothing: it waits for the next table, see
				   DMCORE_TARGET_TYPE_REQUEUES. */
};

/** What end_io wants. */
enum dmcore_end_result {
	DMCORE_END_DONE,       /**< Go on, with the status as it now is. */
	DMCORE_END_INCOMPLETE, /**< The target has taken the bio again. It ends when the target
				    calls dmcore_bio_complete() once more, then without a
				    call of end_io; or is sent on as after map, and end_io sees
				    it again. */
	DMCORE_END_REQUEUE,    /**< It waits for the next table, see
				    DMCORE_TARGET_TYPE_REQUEUES. */
	DMCORE_END_AGAIN,      /**< It has set bdev, sector, count and the vector anew, which were
				    changed on the way, from what it keeps in per-bio data: the
				    core sends the bio on once more, with status 0, as after
				    DMCORE_MAP_REMAPPED. When that ends, end_io is called again;
				    any number of times. */
};

/** The type may push bios back: by DMCORE_MAP_REQUEUE, DMCORE_END_REQUEUE, or by completing one
 *  that it kept with DMCORE_STATUS_REQUEUE. While its device is suspended with
 *  DMCORE_SUSPEND_NOFLUSH such a bio waits and goes whole through the table that is resumed next,
 *  or, if the suspend is given up, through the same one again; at any other time it ends with -EIO.
 *  Pieces of it that had ended are carried out once more. One that failed makes the whole fail
 *  instead. From a type without this the first two end with -EIO, and the third isn't to be
 *  used. */
#define DMCORE_TARGET_TYPE_REQUEUES (1u << 0)
/** A table with a target of the type has no other target. */
#define DMCORE_TARGET_TYPE_SINGLETON (1u << 1)
/** The type isn't taken in read-only tables. */
#define DMCORE_TARGET_TYPE_ALWAYS_WRITEABLE (1u << 2)
/** A table with a target of the type has no target of another type, and is replaced only by one of
 *  the same type, or by one that holds a wildcard. */
#define DMCORE_TARGET_TYPE_IMMUTABLE (1u << 3)
/** The type may replace an immutable one. */
#define DMCORE_TARGET_TYPE_WILDCARD (1u << 4)

/** end_io is called only for bios that failed. */
#define DMCORE_TARGET_TYPE_END_ERRORS (1u << 5)

/** What a target completes a bio with that it kept and pushes back; see
 *  DMCORE_TARGET_TYPE_REQUEUES. No errno. */
#define DMCORE_STATUS_REQUEUE (-1024)

/** Looks at a device of a target: sectors [start, start + length) of @p bdev are used. */
typedef int (*dmcore_iterate_fn)(struct dmcore_target *target, struct dmcore_bdev *bdev,
				 uint64_t start, uint64_t length, void *context);

/** What a target has at a sector, see dmcore_target_type::extent. */
struct dmcore_place {
	struct dmcore_bdev *bdev;     /**< A device below, or NULL. */
	uint64_t sector;              /**< Where on it. */
	uint64_t count;               /**< Sectors in one piece. */
	enum dmcore_extent_kind kind; /**< Without a bdev: what they hold. */
};

/** A type of target. Static and constant; must outlive its core. */
struct dmcore_target_type {
	size_t struct_size;      /**< sizeof(struct dmcore_target_type) of the author; what an
				      older one lacks at the end, the type does without. */
	const char *name;        /**< As in tables; 1 to DMCORE_TYPE_NAME_MAX characters. */
	unsigned int version[3]; /**< Major, minor, patch, as the kernel's for its targets. */
	unsigned int features;   /**< DMCORE_TARGET_TYPE_*. */
	uint32_t per_bio_bytes;  /**< Memory kept with each bio from map to end_io, at most 256. */

	/**
	 * Reads the arguments, opens the devices. Returns 0, or a negative errno by
	 * dmcore_args_fail(). Memory of dmcore_target_alloc() and devices of
	 * dmcore_target_device() need no undoing. Like dtr, status, iterate_devices, io_hints and
	 * message it holds up the control calls of its core: it must not wait for I/O to a mapped
	 * device, which may be suspended. That belongs in preresume.
	 */
	int (*ctr)(struct dmcore_target *target, struct dmcore_args *args);
	/** Optional: undoes what ctr did beyond that. Not called when ctr failed. */
	void (*dtr)(struct dmcore_target *target);

	/**
	 * Takes a bio that lies within the target and doesn't cross max_io_sectors. bio->sector
	 * counts from the start of the table: subtract target->begin. Called on any queue's thread,
	 * several at once. Must not allocate, lock or block. A bio that it completes may have been
	 * the last that kept the table alive: neither that bio nor the target is touched any more,
	 * unless the target has an end_io or per_bio_bytes, which keep it until the queue's poll.
	 */
	enum dmcore_map_result (*map)(struct dmcore_target *target, struct dmcore_bio *bio);

	/**
	 * Optional: sees each bio that map let go on or kept, when it has ended; may change
	 * *status. bio->bdev is again the device that map sent it to, the range is not restored.
	 * On the bio's queue.
	 */
	enum dmcore_end_result (*end_io)(struct dmcore_target *target, struct dmcore_bio *bio,
					 int *status);

	/**
	 * How many copies of a FLUSH, DISCARD or WRITE_ZEROES the target wants, each covering the
	 * whole piece and numbered by bio_nr. 0: a flush succeeds without a call, the others fail
	 * with -EOPNOTSUPP. Optional: without it 0 for WRITE_ZEROES and FLUSH, 0 for DISCARD.
	 */
	unsigned int (*num_bios)(const struct dmcore_target *target, enum dmcore_op op);

	/**
	 * Optional: writes the words behind the type's name in a TABLE or STATUS line. Without it:
	 * none.
	 */
	void (*status)(struct dmcore_target *target, enum dmcore_text_kind kind,
		       struct dmcore_text *text);

	/**
	 * Calls @p fn for each range of a device that is used, until one call returns non-zero, and
	 * returns that. Required of a target that has devices.
	 */
	int (*iterate_devices)(struct dmcore_target *target, dmcore_iterate_fn fn, void *context);

	/** Optional: amends the limits that were stacked from its devices. */
	void (*io_hints)(struct dmcore_target *target, struct dmcore_limits *limits);

	/**
	 * @name Suspend and resume
	 * Optional. Each is called for all targets of the live table, in its order, on the thread
	 * of the control call; for one device never two at once, for different devices perhaps.
	 * map, end_io, status and message may be called meanwhile on other threads. They may block
	 * and do I/O to the devices below, and must not call functions of the group "Mapped
	 * devices" on their own device.
	 * @{
	 */
	/** I/O still passes, and will be stopped. A target that keeps bios lets go of them now, and
	 *  of those that still come, until postsuspend: it completes them, or pushes them back if
	 *  dmcore_target_noflush() says so. Also called, and postsuspend after it, before a running
	 *  device is removed. */
	void (*presuspend)(struct dmcore_target *target);
	/** The suspension was given up after presuspend: go on as before. Bios may have come in
	 *  between already. */
	void (*presuspend_undo)(struct dmcore_target *target);
	/** No bio is inside the device. What follows is preresume, or dtr. */
	void (*postsuspend)(struct dmcore_target *target);
	/** The device is about to be resumed with this table, for the first time or again. Not 0:
	 *  it stays suspended, targets behind this one aren't asked, and this is what
	 *  dmcore_device_resume() returns. All are asked again by the next attempt, without
	 *  having been suspended in between. */
	int (*preresume)(struct dmcore_target *target);
	/** Every preresume has agreed. Bios come next. */
	void (*resume)(struct dmcore_target *target);
	/** @} */

	/**
	 * Optional: carries out a message to the live table, whether the device is suspended or
	 * not. Its words, at least one, are taken like the constructor's; what it answers is
	 * appended to @p reply. Returns 0, or a negative errno by dmcore_args_fail(). Runs at the
	 * same time as map and end_io, with the core locked for control: a dmcore_service_call()
	 * from here hangs if what it calls waits for that lock, as dmcore_bdev_extent() does; post
	 * a work instead. Most types of the kernel compare the first word without
	 * regard to case.
	 */
	int (*message)(struct dmcore_target *target, struct dmcore_args *args,
		       struct dmcore_text *reply);

	/**
	 * Optional: tells what the target has at a sector, for dmcore_bdev_extent(). Like map it
	 * counts from the start of the table. @p place comes with count set to what is asked about,
	 * within the target; the target makes count smaller where less is of one piece, and either
	 * sets bdev and sector, whose kind it is then, or leaves bdev NULL and sets kind. Without
	 * it all is data. May be called on several threads at once, and must not block.
	 */
	void (*extent)(struct dmcore_target *target, uint64_t sector, struct dmcore_place *place);

	/**
	 * Sends one copy of a bio on: sets copy->bdev and copy->sector. Called by
	 * dmcore_bio_send_copies() for each of them, numbered by copy->bio_nr, with the range,
	 * vector and flags that the bio had; under the same rules as map. Required of a target that
	 * calls that, which must have per_bio_bytes.
	 */
	void (*map_copy)(struct dmcore_target *target, void *per_bio, struct dmcore_bio *copy);
	/**
	 * Optional: a copy has ended. Called on the bio's queue, for its copies one after another;
	 * when the last has ended the bio does, with the first error among them.
	 */
	void (*end_copy)(struct dmcore_target *target, void *per_bio, uint32_t bio_nr, int status);
};

/**
 * Adds a target type to a core. It is there until the core is destroyed.
 *
 * @param[in] core  The core.
 * @param[in] type  Borrowed for the life of the core.
 * @retval 0        Added.
 * @retval -EINVAL  struct_size, name, ctr or map is missing or malformed; an unknown feature, or
 *                  too much per_bio_bytes.
 * @retval -EEXIST  The name is taken.
 * @retval -ENOMEM  No memory.
 * @threads   control
 * @conform   dm_register_target().
 */
DMCORE_API DMCORE_MUST_CHECK int dmcore_target_register(struct dmcore *core,
							const struct dmcore_target_type *type);

/**
 * The target types of a core, in order of their names.
 *
 * @param[in] core   The core.
 * @param[in] index  From 0.
 * @return  The type, or NULL behind the last one.
 * @threads control
 */
DMCORE_API const struct dmcore_target_type *dmcore_target_type_at(struct dmcore *core,
								  unsigned int index);

/**
 * The length of a target.
 *
 * @param[in] target  The target.
 * @return  Sectors.
 * @threads any
 */
DMCORE_API uint64_t dmcore_target_len(const struct dmcore_target *target);

/**
 * Sends a bio to several devices at once, as if map had said so: for each bit of the set map_copy
 * is asked where that copy goes. The bio itself ends when all of them have, and end_io sees it
 * then, with the status of the first one that failed. Until then it is the core's, its per-bio data
 * the target's.
 *
 * @param[in] bio  A bio that map is called for, which says DMCORE_MAP_SUBMITTED then; or one that
 *                 it has kept. Its range, vector and flags are what the copies carry.
 * @param[in] set  Bit n: copy n. Not 0.
 * @threads queue  that of the bio
 * @conform dm_io() with several regions, whose notify function is given the set of those that
 *          failed.
 */
DMCORE_API void dmcore_bio_send_copies(struct dmcore_bio *bio, uint32_t set);

/**
 * Whether the target's device is being suspended with DMCORE_SUSPEND_NOFLUSH.
 *
 * @param[in] target  The target.
 * @return  True from before presuspend until after the last bio has left, or until the suspension
 *          is given up.
 * @threads any
 * @conform dm_noflush_suspending().
 */
DMCORE_API bool dmcore_target_noflush(const struct dmcore_target *target);

/**
 * Counts an event of the target's device and wakes who waits for one: something has changed that
 * status shows.
 *
 * @param[in] target  The target; not from its constructor.
 * @threads any, also from map and end_io: takes a short lock, under which nothing waits
 * @conform dm_table_event().
 */
DMCORE_API void dmcore_target_event(struct dmcore_target *target);

/**
 * The core of a target.
 *
 * @param[in] target  The target.
 * @return  Borrowed.
 * @threads any
 */
DMCORE_API struct dmcore *dmcore_target_core(const struct dmcore_target *target);

/**
 * Zeroed memory that lives as long as the target's table.
 *
 * @param[in] target  The target; only from its constructor.
 * @param[in] bytes   How much.
 * @return  Memory aligned to 16, as a bio has to be, or NULL. Freed by the core.
 * @threads callback
 */
DMCORE_API DMCORE_MUST_CHECK void *dmcore_target_alloc(struct dmcore_target *target, size_t bytes);

/**
 * Opens a device for a target, with the flags of its table. The core closes it with the table.
 *
 * @param[in]  target  The target; only from its constructor.
 * @param[in]  spec    As dmcore_bdev_open().
 * @param[out] result  Borrowed; NULL on failure.
 * @retval 0       Open; otherwise the errors of dmcore_bdev_open().
 * @retval -ENXIO  It is a mapped device that never had a table.
 * @threads   callback
 * @conform   dm_get_device().
 */
DMCORE_API DMCORE_MUST_CHECK int dmcore_target_device(struct dmcore_target *target,
						      const char *spec,
						      struct dmcore_bdev **result);

/**
 * As dmcore_target_device(), for a device that the target only reads: it is opened with the flags
 * of the table and DMCORE_OPEN_READ_ONLY, so it needn't be writable. A device that can be open only
 * once (DMCORE_DRIVER_ONE_OBJECT) is opened with the flags of the table first, lest a writer that
 * comes later be refused, and read-only if that is refused with -EROFS, -EACCES or -EPERM, or with
 * -EBUSY because it is open so already. A mapped device is opened as it is.
 *
 * @param[in]  target  The target; only from its constructor.
 * @param[in]  spec    As dmcore_bdev_open().
 * @param[out] result  Borrowed; NULL on failure. It may be writable, and another object than what
 *                     dmcore_target_device() gives; see dmcore_bdev_is_same().
 * @retval 0       Open; otherwise the errors of dmcore_bdev_open().
 * @retval -ENXIO  It is a mapped device that never had a table.
 * @threads   callback
 * @conform   dm_get_device() with the mode of the origin of a snapshot.
 */
DMCORE_API DMCORE_MUST_CHECK int dmcore_target_device_read_only(struct dmcore_target *target,
								const char *spec,
								struct dmcore_bdev **result);

/** An object that targets have in common, see dmcore_target_share(). Static and constant. */
struct dmcore_shared_type {
	size_t struct_size; /**< sizeof(struct dmcore_shared_type) of the author. */
	size_t bytes;       /**< Of the object. */
	/** Optional: makes the zeroed object ready. Returns 0, or a negative errno by
	 *  dmcore_bdev_open_error() or the like; destroy isn't called then. Like destroy it runs
	 *  with control calls of the core held up: as a constructor. */
	int (*create)(struct dmcore *core, void *object);
	/** Optional: undoes what create did, and what the targets did since. */
	void (*destroy)(struct dmcore *core, void *object);
};

/**
 * Gets what all targets of a core have in common, in whatever tables, that ask for the same type
 * (by its address) and the same device (dmcore_bdev_is_same()). The first that asks makes it; it
 * goes with the last table that holds it: after that table's destructors, before its devices are
 * closed. So what replaces a table finds what the one before has left.
 *
 * The object may outlive the bdev object that it was first asked for with, which belongs to that
 * table: it must not keep it.
 *
 * @param[in]  target  The target; only from its constructor.
 * @param[in]  bdev    A device that the target's table has open.
 * @param[in]  type    Borrowed for the life of the core.
 * @param[out] result  Borrowed until the destructor has returned; NULL on failure. Aligned for any
 *                     type.
 * @retval 0        Got; other errors are those of create.
 * @retval -EINVAL  struct_size or bytes is missing.
 * @retval -ENOMEM  No memory.
 * @threads   callback
 */
DMCORE_API DMCORE_MUST_CHECK int dmcore_target_share(struct dmcore_target *target,
						     struct dmcore_bdev *bdev,
						     const struct dmcore_shared_type *type,
						     void **result);

/**
 * Says why preresume fails: dmcore_device_resume() tells it behind the type's name.
 *
 * @param[in] target  The target.
 * @param[in] error   A negative errno.
 * @param[in] format  printf format.
 * @return  @p error, so that one can write `return dmcore_target_fail(…);`
 * @threads callback
 */
DMCORE_API DMCORE_PRINTF(3, 4) int dmcore_target_fail(struct dmcore_target *target, int error,
						      const char *format, ...);

/**
 * Tells the application's log hook something, with the type's name before it.
 *
 * @param[in] target  The target.
 * @param[in] level   How serious it is.
 * @param[in] format  printf format. What is longer than DMCORE_ERROR_BYTES_MAX is cut.
 * @threads any; takes no lock, but what the hook does takes its time
 * @conform DMERR(), DMWARN() and DMINFO().
 */
DMCORE_API DMCORE_PRINTF(3, 4) void dmcore_target_log(struct dmcore_target *target,
						      enum dmcore_log_level level,
						      const char *format, ...);

/**
 * @name Arguments
 * The words of a table line behind the type's name, or of a message, taken one by one.
 * @{
 */

/**
 * How many words are left.
 *
 * @param[in] args  The arguments.
 * @return  0 and up.
 * @threads callback
 */
DMCORE_API unsigned int dmcore_args_left(const struct dmcore_args *args);

/**
 * Takes the next word.
 *
 * @param[in] args  The arguments.
 * @return  Borrowed until ctr or message returns; NULL when none is left.
 * @threads callback
 */
DMCORE_API const char *dmcore_args_next(struct dmcore_args *args);

/**
 * Sets the error of a constructor or of a message.
 *
 * @param[in] args   The arguments.
 * @param[in] error  A negative errno.
 * @param[in] text   A static string: the kernel's own, where it has one.
 * @return  @p error, so that one can write `return dmcore_args_fail(…);`
 * @threads callback
 * @conform ti->error.
 */
DMCORE_API int dmcore_args_fail(struct dmcore_args *args, int error, const char *text);

/**
 * Takes the next word as a decimal number: digits only, no sign, no overflow.
 *
 * @param[in]  args   The arguments.
 * @param[in]  min    Smallest value taken.
 * @param[in]  max    Largest value taken.
 * @param[in]  text   The error if there is no word, it is no number, or it is out of bounds.
 * @param[out] value  The number; unchanged on failure.
 * @retval 0        Taken.
 * @retval -EINVAL  The error has been set.
 * @threads   callback
 * @conform   dm_read_arg(), and the kernel's sscanf("%llu%c"), which wrap; see docs/conformance.md.
 */
DMCORE_API DMCORE_MUST_CHECK int dmcore_args_u64(struct dmcore_args *args, uint64_t min,
						 uint64_t max, const char *text, uint64_t *value);

/** @} */

/**
 * @name Status text
 * @{
 */

/**
 * Appends to a status line, or to the answer to a message.
 *
 * @param[in] text    The line.
 * @param[in] format  printf format.
 * @threads callback
 */
DMCORE_API DMCORE_PRINTF(2, 3) void dmcore_text_printf(struct dmcore_text *text,
						       const char *format, ...);

/**
 * Appends a device's name, with a backslash before what would end or cut a word.
 *
 * @param[in] text  The line.
 * @param[in] bdev  The device.
 * @threads callback
 */
DMCORE_API void dmcore_text_device(struct dmcore_text *text, const struct dmcore_bdev *bdev);

/** @} */

DMCORE_END_DECLS

/** @} */
#endif
