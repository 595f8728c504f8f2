/* SPDX-License-Identifier: MIT */
/**
 * @file cow.h
 * @defgroup cow The format of COW devices
 * What a persistent snapshot keeps on its COW device, byte for byte as the kernel's, for programs
 * that read or make such devices. Needs nothing of the library.
 *
 * Numbers are little-endian. Places are counted in chunks of as many sectors as the header says:
 *
 *  - chunk 0 begins with the header;
 *  - chunk `dmcore_cow_area_chunk(…, a)` holds the entries of area a: as many as fit;
 *  - behind it stand as many chunks of data as it has entries, the data of these entries as a rule.
 *
 * An entry says that chunk `old_chunk` of the origin is kept in chunk `new_chunk` of the COW
 * device. The first one whose new_chunk is 0 ends the list, and what stands behind it is garbage.
 * An area that is full is followed by the next one, which may be empty.
 *
 * @code
 * if (dmcore_cow_header_decode(chunk0, &header))
 *     …
 * for (uint64_t area = 0; ; area++) {
 *     … read chunk dmcore_cow_area_chunk(header.chunk_sectors, area) …
 *     for (uint32_t i = 0; i < dmcore_cow_area_entries(header.chunk_sectors); i++) {
 *         dmcore_cow_entry_decode(chunk + i * DMCORE_COW_ENTRY_BYTES, &entry);
 *         if (entry.new_chunk == 0)
 *             … the end …
 *     }
 * }
 * @endcode
 * @{
 */
#ifndef DMCORE_COW_H
#define DMCORE_COW_H

#include <stdbool.h>
#include <stdint.h>

#include <dmcore/attr.h>

DMCORE_BEGIN_DECLS

/** First four bytes of a COW device: "SnAp". */
#define DMCORE_COW_MAGIC UINT32_C(0x70416e53)
/** The one version that there is. */
#define DMCORE_COW_VERSION 1
/** Bytes of a header that mean something; the rest of chunk 0 is zero. */
#define DMCORE_COW_HEADER_BYTES 16
/** Bytes of an entry. */
#define DMCORE_COW_ENTRY_BYTES 16
/** Sectors of a chunk of a new store for which the table names none. */
#define DMCORE_COW_CHUNK_SECTORS_DEFAULT 32
/** Sectors of a chunk, as in the kernel: fewer bytes than a signed int can say. */
#define DMCORE_COW_CHUNK_SECTORS_MAX 4194303
/** The first chunk that holds data. */
#define DMCORE_COW_FIRST_DATA_CHUNK 2

/** A header. */
struct dmcore_cow_header {
	uint32_t magic;         /**< DMCORE_COW_MAGIC; 0: a new store, whatever follows. */
	uint32_t valid;         /**< 0: invalidated, for ever. */
	uint32_t version;       /**< DMCORE_COW_VERSION. */
	uint32_t chunk_sectors; /**< Sectors of a chunk, a power of two. */
};

/** An entry. */
struct dmcore_cow_entry {
	uint64_t old_chunk; /**< Of the origin. */
	uint64_t new_chunk; /**< Of the COW device; 0 ends the list. */
};

/** What is wrong with a header. */
enum dmcore_cow_fault {
	DMCORE_COW_GOOD = 0,    /**< Nothing; it may be an invalidated one. */
	DMCORE_COW_NEW,         /**< There is no store yet. */
	DMCORE_COW_BAD_MAGIC,   /**< It is no COW device. */
	DMCORE_COW_BAD_VERSION, /**< Of another version. */
	DMCORE_COW_BAD_CHUNK,   /**< A chunk size that isn't a power of two, or is too large. */
};

/**
 * Stores a number.
 *
 * @param[out] to     @p bytes bytes.
 * @param[in]  value  The number.
 * @param[in]  bytes  4 or 8.
 * @threads any
 */
static inline void dmcore_cow_store(void *to, uint64_t value, unsigned int bytes)
{
	unsigned char *at = (unsigned char *)to;
	unsigned int i;

	for (i = 0; i < bytes; i++)
		at[i] = (unsigned char)(value >> (8 * i));
}

/**
 * Loads a number.
 *
 * @param[in] from   @p bytes bytes.
 * @param[in] bytes  4 or 8.
 * @return  The number.
 * @threads any
 */
static inline uint64_t dmcore_cow_load(const void *from, unsigned int bytes)
{
	const unsigned char *at = (const unsigned char *)from;
	uint64_t value = 0;
	unsigned int i;

	for (i = 0; i < bytes; i++)
		value |= (uint64_t)at[i] << (8 * i);
	return value;
}

/**
 * Writes a header.
 *
 * @param[in]  header  The values.
 * @param[out] chunk   DMCORE_COW_HEADER_BYTES of it are written; the rest is to be zero.
 * @threads any
 */
static inline void dmcore_cow_header_encode(const struct dmcore_cow_header *header, void *chunk)
{
	unsigned char *bytes = (unsigned char *)chunk;

	dmcore_cow_store(bytes, header->magic, 4);
	dmcore_cow_store(bytes + 4, header->valid, 4);
	dmcore_cow_store(bytes + 8, header->version, 4);
	dmcore_cow_store(bytes + 12, header->chunk_sectors, 4);
}

/**
 * Reads a header. Looks at its fields in the kernel's order, which differs in one thing: the kernel
 * sees a bad chunk size before a bad version.
 *
 * @param[in]  chunk   The first DMCORE_COW_HEADER_BYTES of a COW device, or more.
 * @param[out] header  The values as they stand there, whatever is wrong with them.
 * @return  What is wrong.
 * @threads any
 */
static inline enum dmcore_cow_fault dmcore_cow_header_decode(const void *chunk,
							     struct dmcore_cow_header *header)
{
	const unsigned char *bytes = (const unsigned char *)chunk;
	uint32_t sectors;

	header->magic = (uint32_t)dmcore_cow_load(bytes, 4);
	header->valid = (uint32_t)dmcore_cow_load(bytes + 4, 4);
	header->version = (uint32_t)dmcore_cow_load(bytes + 8, 4);
	header->chunk_sectors = (uint32_t)dmcore_cow_load(bytes + 12, 4);
	if (header->magic == 0)
		return DMCORE_COW_NEW;
	if (header->magic != DMCORE_COW_MAGIC)
		return DMCORE_COW_BAD_MAGIC;
	sectors = header->chunk_sectors;
	if (sectors == 0 || sectors > DMCORE_COW_CHUNK_SECTORS_MAX || (sectors & (sectors - 1)))
		return DMCORE_COW_BAD_CHUNK;
	return header->version == DMCORE_COW_VERSION ? DMCORE_COW_GOOD : DMCORE_COW_BAD_VERSION;
}

/**
 * Writes an entry.
 *
 * @param[in]  entry  The values.
 * @param[out] to     DMCORE_COW_ENTRY_BYTES bytes.
 * @threads any
 */
static inline void dmcore_cow_entry_encode(const struct dmcore_cow_entry *entry, void *to)
{
	dmcore_cow_store(to, entry->old_chunk, 8);
	dmcore_cow_store((unsigned char *)to + 8, entry->new_chunk, 8);
}

/**
 * Reads an entry.
 *
 * @param[in]  from   DMCORE_COW_ENTRY_BYTES bytes.
 * @param[out] entry  The values.
 * @threads any
 */
static inline void dmcore_cow_entry_decode(const void *from, struct dmcore_cow_entry *entry)
{
	entry->old_chunk = dmcore_cow_load(from, 8);
	entry->new_chunk = dmcore_cow_load((const unsigned char *)from + 8, 8);
}

/**
 * The entries of an area.
 *
 * @param[in] chunk_sectors  Of the store.
 * @return  32 and up.
 * @threads any
 */
static inline uint32_t dmcore_cow_area_entries(uint32_t chunk_sectors)
{
	return chunk_sectors * (512 / DMCORE_COW_ENTRY_BYTES);
}

/**
 * Where an area has its entries.
 *
 * @param[in] chunk_sectors  Of the store.
 * @param[in] area           From 0.
 * @return  A chunk of the COW device.
 * @threads any
 */
static inline uint64_t dmcore_cow_area_chunk(uint32_t chunk_sectors, uint64_t area)
{
	return 1 + ((uint64_t)dmcore_cow_area_entries(chunk_sectors) + 1) * area;
}

/**
 * Whether a chunk is the header or holds entries, so that no entry may name it.
 *
 * @param[in] chunk_sectors  Of the store.
 * @param[in] chunk          Of the COW device.
 * @return  True if it is no place for data.
 * @threads any
 */
static inline bool dmcore_cow_is_metadata(uint32_t chunk_sectors, uint64_t chunk)
{
	return chunk == 0 ||
	       chunk % ((uint64_t)dmcore_cow_area_entries(chunk_sectors) + 1) == 1;
}

DMCORE_END_DECLS

/** @} */
#endif
