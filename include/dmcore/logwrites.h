/* SPDX-License-Identifier: MIT */
/**
 * @file logwrites.h
 * @defgroup logwrites The format of write logs
 * What a `log-writes` target writes to its log device, byte for byte as the kernel's, for programs
 * that read or make such logs. Needs nothing of the library.
 *
 * A log is a row of blocks of `block_bytes`. Block 0 is the super block; it says how many entries
 * follow. An entry is a block with its header, and behind that, unless it is a discard, as many
 * blocks of data as it says. All numbers are little endian; sectors of entries are counted in
 * blocks, from the start of the device that was written to.
 *
 * @code
 * struct dmcore_logwrites_super super;
 * struct dmcore_logwrites_entry entry;
 * uint64_t at = 1;
 *
 * if (dmcore_logwrites_super_decode(block, &super))
 *     …
 * for (uint64_t i = 0; i < super.num_entries; i++) {
 *     … read block `at` …
 *     if (dmcore_logwrites_entry_decode(block, super.block_bytes, &entry))
 *         …
 *     at += dmcore_logwrites_entry_blocks(&entry);
 * }
 * @endcode
 * @{
 */
#ifndef DMCORE_LOGWRITES_H
#define DMCORE_LOGWRITES_H

#include <stdbool.h>
#include <stdint.h>

#include <dmcore/attr.h>

DMCORE_BEGIN_DECLS

/** First eight bytes of a log. */
#define DMCORE_LOGWRITES_MAGIC UINT64_C(0x6a736677736872)
/** The one version that there is. */
#define DMCORE_LOGWRITES_VERSION 1
/** Bytes of a super block that mean something; the rest of the block is zero. */
#define DMCORE_LOGWRITES_SUPER_BYTES 28
/** Bytes of an entry's header; behind them a mark's text, and zeroes. */
#define DMCORE_LOGWRITES_ENTRY_BYTES 32

/** A flush has completed, and no entry before it can be lost any more. */
#define DMCORE_LOGWRITES_FLUSH (UINT64_C(1) << 0)
/** A write that was durable when it completed. */
#define DMCORE_LOGWRITES_FUA (UINT64_C(1) << 1)
/** A discard: no data follow, though it has sectors. */
#define DMCORE_LOGWRITES_DISCARD (UINT64_C(1) << 2)
/** A mark: data_bytes of text are in the header's block. */
#define DMCORE_LOGWRITES_MARK (UINT64_C(1) << 3)
/** The kernel's: a write of a file system's metadata. */
#define DMCORE_LOGWRITES_METADATA (UINT64_C(1) << 4)
/** Every flag above. */
#define DMCORE_LOGWRITES_FLAGS_ALL UINT64_C(0x1f)

/** A super block. */
struct dmcore_logwrites_super {
	uint64_t num_entries; /**< Entries that are whole. */
	uint32_t block_bytes; /**< Of the log; a power of two from 512 to DMCORE_BLOCK_BYTES_MAX. */
};

/** The header of an entry. */
struct dmcore_logwrites_entry {
	uint64_t sector;     /**< First one, in blocks. */
	uint64_t count;      /**< How many, in blocks. */
	uint64_t flags;      /**< DMCORE_LOGWRITES_*. */
	uint64_t data_bytes; /**< Of a mark's text; else 0. */
};

/** What is wrong with a log. */
enum dmcore_logwrites_fault {
	DMCORE_LOGWRITES_GOOD = 0,       /**< Nothing. */
	DMCORE_LOGWRITES_BAD_MAGIC,      /**< It is no log. */
	DMCORE_LOGWRITES_BAD_VERSION,    /**< Of another version. */
	DMCORE_LOGWRITES_BAD_BLOCK,      /**< Impossible block_bytes. */
	DMCORE_LOGWRITES_BAD_FLAGS,      /**< Unknown ones, or a mark that is more than that. */
	DMCORE_LOGWRITES_BAD_LENGTH,     /**< A range, or a text, that can't be. */
};

/**
 * Stores a number.
 *
 * @param[out] to     8 bytes.
 * @param[in]  value  The number.
 * @threads any
 */
static inline void dmcore_logwrites_store(void *to, uint64_t value)
{
	unsigned char *bytes = (unsigned char *)to;
	unsigned int i;

	for (i = 0; i < 8; i++)
		bytes[i] = (unsigned char)(value >> (8 * i));
}

/**
 * Loads a number.
 *
 * @param[in] from  8 bytes.
 * @return  The number.
 * @threads any
 */
static inline uint64_t dmcore_logwrites_load(const void *from)
{
	const unsigned char *bytes = (const unsigned char *)from;
	uint64_t value = 0;
	unsigned int i;

	for (i = 0; i < 8; i++)
		value |= (uint64_t)bytes[i] << (8 * i);
	return value;
}

/**
 * Writes a super block.
 *
 * @param[in]  super  The values.
 * @param[out] block  DMCORE_LOGWRITES_SUPER_BYTES of it are written; the rest is to be zero.
 * @threads any
 */
static inline void dmcore_logwrites_super_encode(const struct dmcore_logwrites_super *super,
						 void *block)
{
	unsigned char *bytes = (unsigned char *)block;
	unsigned int i;

	dmcore_logwrites_store(bytes, DMCORE_LOGWRITES_MAGIC);
	dmcore_logwrites_store(bytes + 8, DMCORE_LOGWRITES_VERSION);
	dmcore_logwrites_store(bytes + 16, super->num_entries);
	for (i = 0; i < 4; i++)
		bytes[24 + i] = (unsigned char)(super->block_bytes >> (8 * i));
}

/**
 * Reads a super block.
 *
 * @param[in]  block  The first DMCORE_LOGWRITES_SUPER_BYTES of a log, or more.
 * @param[out] super  The values; undefined if there is a fault.
 * @return  GOOD, BAD_MAGIC, BAD_VERSION or BAD_BLOCK.
 * @threads any
 */
static inline enum dmcore_logwrites_fault
dmcore_logwrites_super_decode(const void *block, struct dmcore_logwrites_super *super)
{
	const unsigned char *bytes = (const unsigned char *)block;
	uint32_t block_bytes = 0;
	unsigned int i;

	if (dmcore_logwrites_load(bytes) != DMCORE_LOGWRITES_MAGIC)
		return DMCORE_LOGWRITES_BAD_MAGIC;
	if (dmcore_logwrites_load(bytes + 8) != DMCORE_LOGWRITES_VERSION)
		return DMCORE_LOGWRITES_BAD_VERSION;
	super->num_entries = dmcore_logwrites_load(bytes + 16);
	for (i = 0; i < 4; i++)
		block_bytes |= (uint32_t)bytes[24 + i] << (8 * i);
	if (block_bytes < 512 || block_bytes > 65536 || (block_bytes & (block_bytes - 1)) != 0)
		return DMCORE_LOGWRITES_BAD_BLOCK;
	super->block_bytes = block_bytes;
	return DMCORE_LOGWRITES_GOOD;
}

/**
 * Writes a header.
 *
 * @param[in]  entry  The values.
 * @param[out] block  DMCORE_LOGWRITES_ENTRY_BYTES of it are written; a mark's text goes behind
 *                    them, and the rest is to be zero.
 * @threads any
 */
static inline void dmcore_logwrites_entry_encode(const struct dmcore_logwrites_entry *entry,
						 void *block)
{
	unsigned char *bytes = (unsigned char *)block;

	dmcore_logwrites_store(bytes, entry->sector);
	dmcore_logwrites_store(bytes + 8, entry->count);
	dmcore_logwrites_store(bytes + 16, entry->flags);
	dmcore_logwrites_store(bytes + 24, entry->data_bytes);
}

/**
 * Reads a header. Whether the entry fits the log, and its range the device, is for the caller to
 * see; neither overflows when counted in bytes.
 *
 * @param[in]  block        A block of the log.
 * @param[in]  block_bytes  Of the log.
 * @param[out] entry        The values; undefined if there is a fault.
 * @return  GOOD, BAD_FLAGS or BAD_LENGTH.
 * @threads any
 */
static inline enum dmcore_logwrites_fault
dmcore_logwrites_entry_decode(const void *block, uint32_t block_bytes,
			      struct dmcore_logwrites_entry *entry)
{
	const unsigned char *bytes = (const unsigned char *)block;
	uint64_t max = (UINT64_C(1) << 61) / block_bytes;

	entry->sector = dmcore_logwrites_load(bytes);
	entry->count = dmcore_logwrites_load(bytes + 8);
	entry->flags = dmcore_logwrites_load(bytes + 16);
	entry->data_bytes = dmcore_logwrites_load(bytes + 24);
	if (entry->flags & ~DMCORE_LOGWRITES_FLAGS_ALL)
		return DMCORE_LOGWRITES_BAD_FLAGS;
	if (entry->flags & DMCORE_LOGWRITES_MARK) {
		if (entry->flags != DMCORE_LOGWRITES_MARK || entry->count)
			return DMCORE_LOGWRITES_BAD_FLAGS;
		if (entry->data_bytes > block_bytes - DMCORE_LOGWRITES_ENTRY_BYTES)
			return DMCORE_LOGWRITES_BAD_LENGTH;
	}
	if (entry->sector > max || entry->count > max)
		return DMCORE_LOGWRITES_BAD_LENGTH;
	return DMCORE_LOGWRITES_GOOD;
}

/**
 * The room that an entry takes in the log.
 *
 * @param[in] entry  Decoded.
 * @return  Blocks.
 * @threads any
 */
static inline uint64_t dmcore_logwrites_entry_blocks(const struct dmcore_logwrites_entry *entry)
{
	return 1 + (entry->flags & DMCORE_LOGWRITES_DISCARD ? 0 : entry->count);
}

DMCORE_END_DECLS

/** @} */
#endif
