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
					            multiples of it from begin; 0: never. */
	uint32_t flags;                        /**< The constructor's: DMCORE_TARGET_*. */
};

/** DISCARD works even if the devices below don't offer it. */
#define DMCORE_TARGET_DISCARDS (1u << 0)
/** A flush of the target is a flush of each of its devices: the core sends one to each distinct
 *  device of the table instead of calling map. */
#define DMCORE_TARGET_FLUSH_DEVICES (1u << 1)

/** What map has done with a bio. */
enum dmcore_map_result {
	DMCORE_MAP_SUBMITTED, /**< Kept it: it ends by dmcore_bio_complete(), now or later. */
	DMCORE_MAP_REMAPPED,  /**< Set bdev, sector and maybe count: the core sends it on. */
	DMCORE_MAP_KILL,      /**< Nothing: the core ends it with -EIO. */
};

/** What end_io wants. */
enum dmcore_end_result {
	DMCORE_END_DONE,       /**< Go on, with the status as it now is. */
	DMCORE_END_INCOMPLETE, /**< The target has taken the bio again. It ends when the target
				    calls dmcore_bio_complete() once more, then without a
				    call of end_io. */
};

/** Looks at a device of a target: sectors [start, start + length) of @p bdev are used. */
typedef int (*dmcore_iterate_fn)(struct dmcore_target *target, struct dmcore_bdev *bdev,
				 uint64_t start, uint64_t length, void *context);

/** A type of target. Static and constant; must outlive its registration. */
struct dmcore_target_type {
	size_t struct_size;      /**< sizeof(struct dmcore_target_type) of the author. */
	const char *name;        /**< As in tables; 1 to DMCORE_TYPE_NAME_MAX characters. */
	unsigned int version[3]; /**< Major, minor, patch, as the kernel's for its targets. */
	unsigned int features;   /**< Zero. */
	uint32_t per_bio_bytes;  /**< Memory kept with each bio from map to end_io, at most 256. */

	/**
	 * Reads the arguments, opens the devices. Returns 0, or a negative errno by
	 * dmcore_args_fail(). Memory of dmcore_target_alloc() and devices of
	 * dmcore_target_device() need no undoing.
	 */
	int (*ctr)(struct dmcore_target *target, struct dmcore_args *args);
	/** Optional: undoes what ctr did beyond that. Not called when ctr failed. */
	void (*dtr)(struct dmcore_target *target);

	/**
	 * Takes a bio that lies within the target and doesn't cross max_io_sectors. bio->sector
	 * counts from the start of the table: subtract target->begin. Called on any queue's thread,
	 * several at once. Must not allocate, lock or block.
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
};

/**
 * Adds a target type to a core. It is there until the core is destroyed.
 *
 * @param[in] core  The core.
 * @param[in] type  Borrowed for the life of the core.
 * @retval 0        Added.
 * @retval -EINVAL  struct_size, name, ctr or map is missing or malformed.
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
 * @return  Memory aligned to 8, or NULL. Freed by the core.
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
 * @name Arguments
 * The words of a table line behind the type's name, taken one by one.
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
 * @return  Borrowed until ctr returns; NULL when none is left.
 * @threads callback
 */
DMCORE_API const char *dmcore_args_next(struct dmcore_args *args);

/**
 * Sets the error of a constructor.
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
 * Appends to a status line.
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
