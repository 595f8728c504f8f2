/* SPDX-License-Identifier: MIT */
/*
 * Reads what a COW device holds, or makes a new store on it. Called by share.c when a snapshot is
 * resumed for the first time, on the thread of that call: nobody else knows the snapshot yet.
 *
 * What must be durable before what, so that no cut of power leaves entries that nobody wrote:
 *  - a new store: the zeroed area before the header that makes it one, and that before all use;
 *  - a store that was cut off in the midst of a commit: what stands behind its last entry is
 *    cleared before another one is written.
 */
#include <errno.h>
#include <string.h>

#include <dmcore/driver.h>

#include "base/checked.h"
#include "targets/snapshot/snapshot.h"

/* Read at a time. */
#define READ_BYTES_MAX 65536u
/* Entries that are sorted at a time: 4 MiB of memory. */
#define BATCH_ENTRIES_MAX 131072u
/* Entries that memory is reserved for at a time. */
#define RESERVE_ENTRIES 1024u
/* Of the radix sort. */
#define DIGIT_BITS 8
#define DIGIT_MASK ((1u << DIGIT_BITS) - 1)

struct loader {
	struct snapshot *snapshot;
	struct snapshot_target *own;
	struct dmcore_bdev *cow;
	struct store *store;
	unsigned char *buffer; /* READ_BYTES_MAX */
	uint64_t next_free;
};

static uint64_t chunk_bytes(const struct loader *loader)
{
	return dmcore__sectors_to_bytes(loader->store->chunk_sectors);
}

static int fail(const struct loader *loader, int error, const char *what)
{
	return dmcore_target_fail(loader->own->target, error,
				  "Failed to read snapshot metadata: %s", what);
}

/* ---- chunk size ---- */

static const char *chunk_size_fault(const struct loader *loader, uint32_t sectors)
{
	struct dmcore_limits limits = { .struct_size = sizeof(limits) };
	struct dmcore_bdev *bdevs[2] = { loader->cow, loader->own->origin_bdev };

	if (sectors == 0)
		return "Invalid chunk size";
	if (sectors & (sectors - 1))
		return "Chunk size is not a power of 2";
	for (unsigned int i = 0; i < 2; i++) {
		dmcore_bdev_limits(bdevs[i], &limits);
		if (sectors % dmcore__bytes_to_sectors(limits.logical_block_bytes))
			return "Chunk size is not a multiple of device blocksize";
	}
	return sectors > DMCORE_COW_CHUNK_SECTORS_MAX ? "Chunk size is too high" : NULL;
}

static void set_chunk_size(struct loader *loader, uint32_t sectors)
{
	struct store *store = loader->store;
	uint64_t page_bytes = dmcore__min_u64(dmcore__sectors_to_bytes(sectors),
					      SNAPSHOT_PAGE_BYTES_MAX);

	store->chunk_sectors = sectors;
	store->chunk_shift = (uint32_t)__builtin_ctz(sectors);
	store->area_entries = dmcore_cow_area_entries(sectors);
	store->page_entries = (uint32_t)(page_bytes / DMCORE_COW_ENTRY_BYTES);
	loader->snapshot->chunk_sectors = sectors;
	loader->snapshot->chunk_shift = store->chunk_shift;
}

/* ---- a new store ---- */

static int make_store(struct loader *loader)
{
	struct dmcore_cow_header header = { DMCORE_COW_MAGIC, 1, DMCORE_COW_VERSION,
					    loader->store->chunk_sectors };
	uint64_t bytes = chunk_bytes(loader);
	uint32_t block_bytes = loader->store->block_bytes;
	int ret;

	if (dmcore__sectors_to_bytes(dmcore_bdev_size_sectors(loader->cow)) < 2 * bytes)
		return fail(loader, -EIO, "the COW device is smaller than two chunks");
	ret = dmcore_write_zeroes(loader->cow, bytes, bytes);
	if (ret == 0 && bytes > block_bytes)
		ret = dmcore_write_zeroes(loader->cow, bytes - block_bytes, block_bytes);
	if (ret == 0)
		ret = dmcore_flush(loader->cow);
	if (ret == 0) {
		memset(loader->buffer, 0, block_bytes);
		dmcore_cow_header_encode(&header, loader->buffer);
		ret = dmcore_pwrite(loader->cow, loader->buffer, block_bytes, 0);
	}
	if (ret == 0)
		ret = dmcore_flush(loader->cow);
	return ret ? fail(loader, ret, "a new store can't be written") : 0;
}

/* ---- entries ---- */

/*
 * Entries come in the order in which chunks were first written. They are inserted in that of the
 * chunks, many at a time: then neighbours go to the same place, and memory is the caches'.
 */
struct batch {
	struct dmcore_cow_entry *entries; /* max of them */
	struct dmcore_cow_entry *spare;
	unsigned int count;
	unsigned int max;
};

/* By one digit, and otherwise in the order that they have. */
static void sort_by_digit(struct batch *batch, unsigned int shift)
{
	struct dmcore_cow_entry *sorted = batch->spare;
	unsigned int places[1u << DIGIT_BITS] = { 0 };
	unsigned int place = 0;

	for (unsigned int i = 0; i < batch->count; i++)
		places[batch->entries[i].old_chunk >> shift & DIGIT_MASK]++;
	for (unsigned int i = 0; i <= DIGIT_MASK; i++) {
		unsigned int count = places[i];

		places[i] = place;
		place += count;
	}
	for (unsigned int i = 0; i < batch->count; i++)
		sorted[places[batch->entries[i].old_chunk >> shift & DIGIT_MASK]++] =
			batch->entries[i];
	batch->spare = batch->entries;
	batch->entries = sorted;
}

static void sort_batch(struct batch *batch)
{
	uint64_t max = 0;
	bool is_sorted = true;

	for (unsigned int i = 0; i < batch->count; i++) {
		is_sorted = is_sorted && batch->entries[i].old_chunk >= max;
		max = dmcore__max_u64(max, batch->entries[i].old_chunk);
	}
	for (unsigned int shift = 0; !is_sorted && max >> shift; shift += DIGIT_BITS)
		sort_by_digit(batch, shift);
}

static int insert_entries(struct exceptions *table, const struct dmcore_cow_entry *entries,
			  unsigned int count)
{
	/* An entry that replaces another one is a removal too. */
	int ret = dmcore__exceptions_reserve(table, 2 * count);

	for (unsigned int i = 0; i < count && ret == 0; i++) {
		const struct dmcore_cow_entry *entry = &entries[i];

		if (dmcore__exceptions_insert(table, entry->old_chunk, entry->new_chunk))
			continue;
		/* Of two entries for a chunk, which no store of one piece has, the later counts. */
		dmcore__exceptions_remove(table, entry->old_chunk);
		dmcore__exceptions_insert(table, entry->old_chunk, entry->new_chunk);
	}
	return ret;
}

static int insert_batch(struct loader *loader, struct batch *batch)
{
	int ret = 0;

	sort_batch(batch);
	for (unsigned int i = 0; i < batch->count && ret == 0; i += RESERVE_ENTRIES) {
		unsigned int count = batch->count - i;

		ret = insert_entries(loader->snapshot->exceptions, batch->entries + i,
				     count < RESERVE_ENTRIES ? count : RESERVE_ENTRIES);
	}
	batch->count = 0;
	return ret ? fail(loader, ret, "no memory for its exceptions") : 0;
}

static int take_entry(struct loader *loader, struct batch *batch,
		      const struct dmcore_cow_entry *entry)
{
	/* No device has so many chunks: nothing will ever be looked for there. */
	if (entry->new_chunk >= EXCEPTIONS_CHUNKS_MAX)
		return fail(loader, -EINVAL, "an exception lies behind the end of any device");
	if (entry->new_chunk >= loader->next_free)
		loader->next_free = entry->new_chunk + 1;
	if (entry->old_chunk >= EXCEPTIONS_CHUNKS_MAX)
		return 0;
	batch->entries[batch->count++] = *entry;
	return batch->count == batch->max ? insert_batch(loader, batch) : 0;
}

static bool is_zero(const unsigned char *bytes, size_t count)
{
	return count == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, count - 1) == 0);
}

/* Clears what stands behind the last entry, from `from` in the area's chunk on. */
static int clear_tail(struct loader *loader, uint64_t area_bytes, uint64_t from, bool dirty)
{
	uint64_t end = chunk_bytes(loader);
	uint64_t step = dmcore__min_u64(end, READ_BYTES_MAX);
	int ret = 0;

	for (uint64_t at = from / step * step; at < end && !dirty && ret == 0; at += step) {
		uint64_t skip = at < from ? from - at : 0;

		ret = dmcore_pread(loader->cow, loader->buffer, step, area_bytes + at);
		dirty = ret == 0 && !is_zero(loader->buffer + skip, step - skip);
	}
	if (ret || !dirty)
		return ret ? fail(loader, ret, "an area can't be read") : 0;
	if (dmcore_bdev_is_read_only(loader->cow))
		return 0;
	dmcore_target_log(loader->own->target, DMCORE_LOG_WARNING,
			  "clearing what a commit that was cut off has left");
	for (uint64_t at = from / step * step; at < end && ret == 0; at += step) {
		uint64_t skip = at < from ? from - at : 0;
		uint64_t block = loader->store->block_bytes;
		uint64_t first = skip / block * block;

		ret = dmcore_pread(loader->cow, loader->buffer, step, area_bytes + at);
		memset(loader->buffer + skip, 0, step - skip);
		if (ret == 0)
			ret = dmcore_pwrite(loader->cow, loader->buffer + first, step - first,
					    area_bytes + at + first);
	}
	if (ret == 0)
		ret = dmcore_flush(loader->cow);
	return ret ? fail(loader, ret, "an area can't be cleared behind its end") : 0;
}

/* The current area has been found: its page is kept. */
static int enter_area(struct loader *loader, uint64_t area, uint64_t area_bytes, uint32_t entries)
{
	struct store *store = loader->store;
	uint32_t page = entries / store->page_entries;
	uint64_t page_bytes = (uint64_t)store->page_entries * DMCORE_COW_ENTRY_BYTES;
	int ret = clear_tail(loader, area_bytes, (uint64_t)entries * DMCORE_COW_ENTRY_BYTES, false);

	if (ret == 0)
		ret = dmcore_pread(loader->cow, store->page, page_bytes,
				   area_bytes + page * page_bytes);
	if (ret)
		return ret;
	dmcore__store_set_area(store, area);
	store->placed = entries;
	store->durable = entries;
	return 0;
}

/* Reads an area. *count: its entries. */
static int read_area(struct loader *loader, uint64_t area_bytes, struct batch *batch,
		     uint32_t *count)
{
	uint32_t step_entries = (uint32_t)(dmcore__min_u64(chunk_bytes(loader), READ_BYTES_MAX) /
					   DMCORE_COW_ENTRY_BYTES);
	uint64_t step_bytes = (uint64_t)step_entries * DMCORE_COW_ENTRY_BYTES;

	*count = 0;
	while (*count < loader->store->area_entries) {
		int ret = dmcore_pread(loader->cow, loader->buffer, step_bytes,
				       area_bytes + (uint64_t)*count * DMCORE_COW_ENTRY_BYTES);

		if (ret)
			return fail(loader, ret, "an area can't be read");
		for (uint32_t i = 0; i < step_entries; i++) {
			struct dmcore_cow_entry entry;

			dmcore_cow_entry_decode(loader->buffer + i * DMCORE_COW_ENTRY_BYTES,
						&entry);
			if (entry.new_chunk == 0)
				return 0;
			ret = take_entry(loader, batch, &entry);
			if (ret)
				return ret;
			(*count)++;
		}
	}
	return 0;
}

static int read_areas(struct loader *loader, struct batch *batch)
{
	struct store *store = loader->store;
	uint32_t count = store->area_entries;
	uint64_t area_bytes = 0;
	uint64_t area;
	int ret = 0;

	for (area = 0; ret == 0 && count == store->area_entries; area++) {
		area_bytes = dmcore_cow_area_chunk(store->chunk_sectors, area) *
			     chunk_bytes(loader);
		ret = read_area(loader, area_bytes, batch, &count);
	}
	if (ret == 0)
		ret = insert_batch(loader, batch);
	return ret ? ret : enter_area(loader, area - 1, area_bytes, count);
}

/* ---- */

static int read_entries(struct loader *loader)
{
	struct store *store = loader->store;
	uint64_t chunks = dmcore_bdev_size_sectors(loader->cow) >> store->chunk_shift;
	struct dmcore *core = loader->snapshot->core;
	struct dmcore_cow_entry *memory;
	struct batch batch = { 0 };
	int ret;

	batch.max = (unsigned int)dmcore__min_u64(chunks + 1, BATCH_ENTRIES_MAX);
	memory = dmcore_zalloc(core, 2 * (size_t)batch.max * sizeof(*memory));
	if (!memory)
		return fail(loader, -ENOMEM, "no memory");
	batch.entries = memory;
	batch.spare = memory + batch.max;
	loader->next_free = DMCORE_COW_FIRST_DATA_CHUNK;
	ret = read_areas(loader, &batch);
	dmcore_free(core, memory);
	if (ret)
		return ret;
	if (dmcore_cow_is_metadata(store->chunk_sectors, loader->next_free))
		loader->next_free++;
	atomic_store(&store->next_free, loader->next_free);
	return 0;
}

static int allocate_pages(struct loader *loader)
{
	struct dmcore *core = loader->snapshot->core;
	struct store *store = loader->store;
	size_t bytes = (size_t)store->page_entries * DMCORE_COW_ENTRY_BYTES;

	store->page = dmcore_zalloc(core, bytes);
	store->io_page = dmcore_zalloc(core, bytes);
	store->header = dmcore_zalloc(core, store->block_bytes);
	return store->page && store->io_page && store->header ?
		       0 : fail(loader, -ENOMEM, "no memory");
}

/* Looks at the header: whose chunk size counts, and whether there is anything to be read. */
static int read_header(struct loader *loader, struct dmcore_cow_header *header, bool *is_new)
{
	uint32_t table_sectors = loader->store->chunk_sectors;
	enum dmcore_cow_fault fault;
	const char *wrong;
	int ret = dmcore_pread(loader->cow, loader->buffer, loader->store->block_bytes, 0);

	if (ret)
		return fail(loader, ret, "the header can't be read");
	fault = dmcore_cow_header_decode(loader->buffer, header);
	*is_new = fault == DMCORE_COW_NEW;
	if (*is_new)
		return 0;
	if (fault == DMCORE_COW_BAD_MAGIC)
		return fail(loader, -ENXIO, "Invalid or corrupt snapshot");
	if (header->chunk_sectors != table_sectors) {
		if (loader->own->chunk_sectors)
			dmcore_target_log(loader->own->target, DMCORE_LOG_WARNING,
					  "chunk size %u in device metadata overrides table "
					  "chunk size of %u.",
					  header->chunk_sectors, table_sectors);
		wrong = chunk_size_fault(loader, header->chunk_sectors);
		if (wrong)
			return dmcore_target_fail(loader->own->target, -EINVAL,
						  "Failed to read snapshot metadata: invalid "
						  "on-disk chunk size %u: %s.",
						  header->chunk_sectors, wrong);
		set_chunk_size(loader, header->chunk_sectors);
	}
	if (fault == DMCORE_COW_BAD_VERSION)
		return dmcore_target_fail(loader->own->target, -EINVAL,
					  "Failed to read snapshot metadata: unable to handle "
					  "snapshot disk version %u", header->version);
	return 0;
}

static int load_persistent(struct loader *loader)
{
	struct dmcore_cow_header header = { 0 };
	bool is_new = false;
	int ret = read_header(loader, &header, &is_new);

	if (ret == 0)
		ret = allocate_pages(loader);
	if (ret == 0 && is_new)
		ret = make_store(loader);
	if (ret)
		return ret;
	if (!is_new && header.valid == 0) {
		dmcore_target_log(loader->own->target, DMCORE_LOG_WARNING,
				  "Snapshot is marked invalid.");
		atomic_store(&loader->snapshot->valid, false);
		return 0;
	}
	return read_entries(loader);
}

int dmcore__snapshot_load(struct snapshot *snapshot, struct snapshot_target *own)
{
	struct dmcore_limits limits = { .struct_size = sizeof(limits) };
	struct loader loader = { .snapshot = snapshot, .own = own, .cow = own->cow_bdev,
				 .store = &snapshot->store };
	uint32_t chunk_sectors = own->chunk_sectors;
	int ret = 0;

	/* The one that was loaded before has left something. */
	memset(&snapshot->store, 0, sizeof(snapshot->store));
	memset(&snapshot->merge, 0, sizeof(snapshot->merge));
	atomic_store(&snapshot->overflowed, false);
	atomic_store(&snapshot->dirty, false);
	atomic_store(&snapshot->low_water_told, false);
	dmcore_bdev_limits(own->cow_bdev, &limits);
	snapshot->store.block_bytes = limits.logical_block_bytes;
	snapshot->store.persistent = own->persistent;
	if (chunk_sectors == 0)
		chunk_sectors = (uint32_t)dmcore__max_u64(
			DMCORE_COW_CHUNK_SECTORS_DEFAULT,
			dmcore__bytes_to_sectors(limits.logical_block_bytes));
	set_chunk_size(&loader, chunk_sectors);
	atomic_store(&snapshot->valid, true);
	snapshot->exceptions = dmcore__exceptions_create(snapshot->core);
	loader.buffer = dmcore_zalloc(snapshot->core, READ_BYTES_MAX);
	if (!snapshot->exceptions || !loader.buffer)
		ret = fail(&loader, -ENOMEM, "no memory");
	else if (own->persistent)
		ret = load_persistent(&loader);
	dmcore_free(snapshot->core, loader.buffer);
	if (ret)
		dmcore__snapshot_unload(snapshot);
	return ret;
}

void dmcore__snapshot_unload(struct snapshot *snapshot)
{
	struct store *store = &snapshot->store;

	dmcore__exceptions_destroy(snapshot->exceptions);
	snapshot->exceptions = NULL;
	dmcore_free(snapshot->core, store->page);
	dmcore_free(snapshot->core, store->io_page);
	dmcore_free(snapshot->core, store->header);
	store->page = NULL;
	store->io_page = NULL;
	store->header = NULL;
}
