/* SPDX-License-Identifier: MIT */
/**
 * @file table.h
 * @defgroup table Tables
 * A list of targets that maps a range of sectors. Built from dmsetup's text or target by target,
 * immutable once loaded.
 *
 * @code
 * struct dmcore_table *table;
 * int ret = dmcore_table_parse(core, "0 2048 linear a.img 0\n"
 *                                    "2048 2048 linear b.img 0\n", 0, &table);
 * @endcode
 * @{
 */
#ifndef DMCORE_TABLE_H
#define DMCORE_TABLE_H

#include <stddef.h>
#include <stdint.h>

#include <dmcore/attr.h>
#include <dmcore/bdev.h>
#include <dmcore/limits.h>

DMCORE_BEGIN_DECLS

struct dmcore;
struct dmcore_table;

/** The table, and the devices it opens, are read-only. */
#define DMCORE_TABLE_READ_ONLY DMCORE_OPEN_READ_ONLY
/** Files and nodes are opened past the page cache. */
#define DMCORE_TABLE_DIRECT DMCORE_OPEN_DIRECT

/** Which text of a table or device. */
enum dmcore_text_kind {
	DMCORE_TEXT_TABLE,  /**< As `dmsetup table`: can be parsed again. */
	DMCORE_TEXT_STATUS, /**< As `dmsetup status`. */
	DMCORE_TEXT_DEPS,   /**< The devices that targets have opened, each once, a line each, named
				 as in tables. */
};

/**
 * Makes an empty table.
 *
 * @param[in]  core    The core.
 * @param[in]  flags   DMCORE_TABLE_*.
 * @param[out] result  The table, owned by the caller until it is loaded; NULL on failure.
 * @retval 0        Made.
 * @retval -EINVAL  An unknown flag.
 * @retval -ENOMEM  No memory.
 * @threads   control
 * @conform   dm_table_create().
 */
DMCORE_API DMCORE_MUST_CHECK int dmcore_table_create(struct dmcore *core, unsigned int flags,
						     struct dmcore_table **result);

/**
 * Adds a target at the end of a table: the constructor runs, and opens its devices.
 *
 * The message of a failure ends with the kernel's own text: `striped: Invalid chunk_size`.
 *
 * @param[in] table   Not yet complete.
 * @param[in] start   First sector; where the table ends so far.
 * @param[in] length  Sectors; not 0.
 * @param[in] type    Name of the target type.
 * @param[in] params  The constructor's arguments, split at white space; a backslash quotes the
 *                    next character. NULL or "": none.
 * @retval 0           Added.
 * @retval -EINVAL     Not contiguous, unknown type, or the constructor's refusal. Other errors of
 *                     a constructor, such as -ENOENT for a device, are passed on. The table is
 *                     as before.
 * @retval -EOVERFLOW  DMCORE_TABLE_TARGETS_MAX targets.
 * @retval -E2BIG      More than DMCORE_TARGET_ARGS_MAX words.
 * @retval -EBUSY      The table is complete.
 * @retval -ENOMEM     No memory.
 * @threads   control
 * @conform   dm_table_add_target().
 */
DMCORE_API DMCORE_MUST_CHECK int dmcore_table_add(struct dmcore_table *table, uint64_t start,
						  uint64_t length, const char *type,
						  const char *params);

/**
 * Checks a table against its devices, stacks their limits, and closes it to further targets.
 * dmcore_device_load() does it for a table that isn't complete.
 *
 * @param[in] table  The table.
 * @retval 0        Complete.
 * @retval -EINVAL  No target; a device that is too small; a range that isn't a multiple of a
 *                  logical block. The table may be destroyed only.
 * @retval -ELOOP   Stacked too deep: more than DMCORE_STACK_DEPTH_MAX devices, or than
 *                  DMCORE_BIO_FRAME_BYTES hold.
 * @retval -ENOMEM  No memory.
 * @threads   control
 * @conform   dm_table_complete() and dm_calculate_queue_limits().
 */
DMCORE_API DMCORE_MUST_CHECK int dmcore_table_complete(struct dmcore_table *table);

/**
 * Makes a complete table from dmsetup's text: a target a line as `start length type params`, white
 * space trimmed, empty lines and lines that begin with `#` skipped, the rest of a line from a `#`
 * in the params on cut off unless a backslash stands before it.
 *
 * @param[in]  core    The core.
 * @param[in]  text    At most DMCORE_TABLE_TEXT_BYTES_MAX bytes, ended by NUL.
 * @param[in]  flags   DMCORE_TABLE_*.
 * @param[out] result  The table, owned by the caller until it is loaded; NULL on failure.
 * @retval 0        Made. Otherwise any error of dmcore_table_create(), dmcore_table_add() and
 *                  dmcore_table_complete(), with a message that begins `table line N: ` where a
 *                  line is to blame.
 * @retval -EINVAL  `Invalid format`: a line that isn't of that form.
 * @retval -E2BIG   The text is too long.
 * @threads   control
 */
DMCORE_API DMCORE_MUST_CHECK int dmcore_table_parse(struct dmcore *core, const char *text,
						    unsigned int flags,
						    struct dmcore_table **result);

/**
 * Destroys a table that isn't loaded: destructors run, devices are closed.
 *
 * @param[in] table  NULL is a no-op.
 * @threads   control
 */
DMCORE_API void dmcore_table_destroy(struct dmcore_table *table);

/**
 * The size of a table.
 *
 * @param[in] table  The table.
 * @return  Sectors.
 * @threads any
 */
DMCORE_API uint64_t dmcore_table_size_sectors(const struct dmcore_table *table);

/**
 * How many targets a table has.
 *
 * @param[in] table  The table.
 * @return  0 to DMCORE_TABLE_TARGETS_MAX.
 * @threads any
 */
DMCORE_API unsigned int dmcore_table_num_targets(const struct dmcore_table *table);

/**
 * Writes a table as text, a target a line as `start length type params`, as dmsetup prints it.
 * Devices stand by the name that dmcore_bdev_name() gives, with backslashes where needed.
 *
 * @param[in]  table   The table.
 * @param[in]  kind    Which text.
 * @param[out] buffer  Room for @p bytes, filled with as much as fits and a NUL; may be NULL if
 *                     @p bytes is 0.
 * @param[in]  bytes   Size of @p buffer.
 * @return  Length of the whole text without its NUL: if that is @p bytes or more, it was cut.
 * @retval -EINVAL  An unknown kind.
 * @retval -ENOMEM  No memory.
 * @threads   control
 */
DMCORE_API int64_t dmcore_table_text(struct dmcore_table *table, enum dmcore_text_kind kind,
				     char *buffer, size_t bytes);

DMCORE_END_DECLS

/** @} */
#endif
