/* SPDX-License-Identifier: MIT */
/*
 * Finds what is wrong with a COW device. Called by cow.c.
 *
 * The list is read several times, so that it needn't be held: once for what can be seen of an entry
 * alone, and for old and for new chunks once to collect the numbers. These are sorted where they
 * are; if some are there twice, the list is read again to say where.
 */
#include "cow_check.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

const struct cow_kind_info cow_kinds[COW_NUM_KINDS] = {
	[COW_NO_COW] = { "not-a-cow", COW_IN_HEADER, true, "no snapshot takes it" },
	[COW_IS_NEW] = { "new", COW_IN_HEADER, false, "a snapshot begins an empty store on it" },
	[COW_INVALIDATED] = { "invalidated", COW_IN_HEADER, true,
			      "the snapshot has failed or overflowed, and its data are lost" },
	[COW_ODD_VALIDITY] = { "odd-validity", COW_IN_HEADER, false, "it counts as valid" },
	[COW_OTHER_VERSION] = { "other-version", COW_IN_HEADER, true, "no snapshot takes it" },
	[COW_BAD_CHUNK_SIZE] = { "bad-chunk-size", COW_IN_HEADER, true, "no snapshot takes it" },
	[COW_OTHER_CHUNK_SIZE] = { "other-chunk-size", COW_IN_HEADER, false,
				   "the header's counts, whatever a table says" },
	[COW_TOO_SMALL] = { "too-small", COW_IN_HEADER, true, "no snapshot takes it" },
	[COW_NEW_BEHIND_END] = { "new-behind-end", COW_IN_ENTRY, true,
				 "reads and writes of the old chunk fail" },
	[COW_NEW_IS_METADATA] = { "new-is-metadata", COW_IN_ENTRY, true,
				  "the old chunk reads as metadata, and a write of it destroys "
				  "the store" },
	[COW_NEW_TOO_EARLY] = { "new-too-early", COW_IN_ENTRY, false,
				"the space before it is lost, if the entry is right at all" },
	[COW_OLD_BEHIND_END] = { "old-behind-end", COW_IN_ENTRY, true,
				 "nothing reads it, and a merge fails there" },
	[COW_OLD_TWICE] = { "old-twice", COW_IN_ENTRY, true,
			    "this library goes by this one, the Linux kernel by either" },
	[COW_NEW_TWICE] = { "new-twice", COW_IN_ENTRY, true,
			    "one of the old chunks has the data of the other" },
	[COW_GARBAGE] = { "garbage", COW_IN_AREA, true,
			  "it was never cleared, or was overwritten; all of it is taken for "
			  "entries" },
	[COW_STALE] = { "stale", COW_IN_AREA, false,
			"harmless to this library, which clears them; the Linux kernel keeps them, "
			"and the next writes can bring them back to life" },
	[COW_NO_NEXT_AREA] = { "no-next-area", COW_IN_AREA, true,
			       "a kernel can't read the list to its end, and refuses the device" },
};

__attribute__((format(printf, 5, 6)))
static void found(struct cow_check *check, enum cow_kind kind, const struct cow_place *place,
		  const struct dmcore_cow_entry *entry, const char *format, ...)
{
	struct cow_finding finding = { .kind = kind };
	va_list args;

	check->num_findings++;
	if (check->counts[kind]++ >= check->limit)
		return;
	if (place)
		finding.place = *place;
	if (entry)
		finding.entry = *entry;
	va_start(args, format);
	vsnprintf(finding.text, sizeof(finding.text), format, args);
	va_end(args);
	check->fn(check->context, &finding);
}

/* ---- the header ---- */

static void check_chunk_size(struct cow_check *check)
{
	const struct cow_reader *reader = check->reader;
	uint32_t sectors = reader->header.chunk_sectors;

	if (reader->fault == DMCORE_COW_BAD_CHUNK)
		found(check, COW_BAD_CHUNK_SIZE, NULL, NULL,
		      "chunks of %" PRIu32 " sectors: not a power of two up to %d", sectors,
		      (DMCORE_COW_CHUNK_SECTORS_MAX + 1) / 2);
	else if (!cow_reader_can_have_chunks(reader, sectors))
		found(check, COW_BAD_CHUNK_SIZE, NULL, NULL,
		      "chunks of %" PRIu32 " sectors on a device with blocks of %" PRIu32 " bytes",
		      sectors, reader->block_bytes);
	else if (check->chunk_sectors && check->chunk_sectors != sectors)
		found(check, COW_OTHER_CHUNK_SIZE, NULL, NULL,
		      "chunks of %" PRIu32 " sectors, not %" PRIu32, sectors,
		      check->chunk_sectors);
}

/* False: the areas can't be looked at. */
static bool check_header(struct cow_check *check)
{
	struct cow_reader *reader = check->reader;
	const struct dmcore_cow_header *header = &reader->header;

	if (reader->fault == DMCORE_COW_NEW) {
		found(check, COW_IS_NEW, NULL, NULL,
		      "there is no store yet: the magic number is 0");
	} else if (reader->fault == DMCORE_COW_BAD_MAGIC) {
		found(check, COW_NO_COW, NULL, NULL, "the magic number is 0x%" PRIx32 ", not 0x%x",
		      header->magic, DMCORE_COW_MAGIC);
	} else {
		check_chunk_size(check);
		if (header->version != DMCORE_COW_VERSION)
			found(check, COW_OTHER_VERSION, NULL, NULL,
			      "version %" PRIu32 ", not %d", header->version, DMCORE_COW_VERSION);
		if (header->valid == 0)
			found(check, COW_INVALIDATED, NULL, NULL, "the store is marked invalid");
		else if (header->valid != 1)
			found(check, COW_ODD_VALIDITY, NULL, NULL,
			      "the mark of validity is %" PRIu32 ", not 1", header->valid);
	}
	if (!cow_reader_choose_chunks(reader, check->chunk_sectors))
		return false;
	if (cow_has_area(reader, 0))
		return true;
	found(check, COW_TOO_SMALL, NULL, NULL,
	      "header and first area take %" PRIu64 " sectors, and the device has %" PRIu64,
	      2 * (uint64_t)reader->chunk_sectors, reader->size_sectors);
	return false;
}

/* ---- entries, one by one ---- */

/* An area where most of what is there can't be entries was never one. */
static void check_garbage(struct cow_check *check, uint64_t area, uint32_t num_entries)
{
	const struct cow_place place = { .area = area };

	if (check->num_bad > 1 && check->num_bad > num_entries / 2)
		found(check, COW_GARBAGE, &place, NULL,
		      "%" PRIu64 " of %" PRIu32 " entries can't be any", check->num_bad,
		      num_entries);
	check->num_bad = 0;
}

static int check_entry(void *context, const struct cow_place *place,
		       const struct dmcore_cow_entry *entry)
{
	struct cow_check *check = context;
	const struct cow_reader *reader = check->reader;
	uint64_t origin_chunks = check->origin_sectors / reader->chunk_sectors +
				 (check->origin_sectors % reader->chunk_sectors != 0);
	uint64_t before = check->num_findings;

	if (place->area != check->last.area)
		check_garbage(check, check->last.area, reader->area_entries);
	check->last = *place;
	if (entry->new_chunk >= reader->num_chunks)
		found(check, COW_NEW_BEHIND_END, place, entry, "the device has %" PRIu64 " chunks",
		      reader->num_chunks);
	else if (dmcore_cow_is_metadata(reader->chunk_sectors, entry->new_chunk))
		found(check, COW_NEW_IS_METADATA, place, entry, "area %" PRIu64 " is there",
		      entry->new_chunk / ((uint64_t)reader->area_entries + 1));
	if (entry->old_chunk >= origin_chunks)
		found(check, COW_OLD_BEHIND_END, place, entry,
		      check->origin_sectors == DMCORE_DEVICE_SECTORS_MAX ?
			      "no device has more than %" PRIu64 " chunks" :
			      "the origin has %" PRIu64 " chunks", origin_chunks);
	check->num_bad += check->num_findings != before;
	return 0;
}

static int check_list(struct cow_check *check)
{
	struct cow_reader *reader = check->reader;
	const struct cow_place *end = &check->list.end;
	struct cow_place last_area;
	struct cow_tail tail;
	int ret = cow_walk(reader, check_entry, check, &check->list);

	if (ret)
		return ret;
	check->has_list = true;
	check_garbage(check, check->last.area,
		      check->last.area == end->area ? end->index : reader->area_entries);
	if (!check->list.is_terminated) {
		last_area = (struct cow_place){ .area = end->area - 1 };
		found(check, COW_NO_NEXT_AREA, &last_area, NULL,
		      "it is full, and the device ends before the next one");
		return 0;
	}
	ret = cow_read_tail(reader, end, &tail);
	if (ret == 0 && tail.num_entries > 0)
		found(check, COW_STALE, end, NULL,
		      "%" PRIu32 " behind entry %" PRIu32 ", which ends the list, aren't zero; the "
		      "first is entry %" PRIu32 ": chunk %" PRIu64 " in %" PRIu64,
		      tail.num_entries, end->index,
		      tail.first, tail.entry.old_chunk, tail.entry.new_chunk);
	return ret;
}

/* ---- entries, compared ---- */

static void swap(uint64_t *a, uint64_t *b)
{
	uint64_t kept = *a;

	*a = *b;
	*b = kept;
}

/* Sorts in place, by `bit` and those below it: no deeper than 64 calls, whatever the numbers. */
static void sort(uint64_t *keys, uint64_t count, int bit)
{
	while (count > 1 && bit >= 0) {
		uint64_t low = 0;
		uint64_t high = count;

		while (low < high) {
			if (keys[low] >> bit & 1)
				swap(&keys[low], &keys[--high]);
			else
				low++;
		}
		bit--;
		sort(keys, low, bit);
		keys += low;
		count -= low;
	}
}

static int collect(void *context, const struct cow_place *place,
		   const struct dmcore_cow_entry *entry)
{
	struct cow_check *check = context;
	const struct cow_reader *reader = check->reader;
	uint64_t period = (uint64_t)reader->area_entries + 1;

	/* The device is being written, and the list has grown. */
	if (check->num_keys == check->list.num_entries)
		return 1;
	check->keys[check->num_keys++] = check->is_new ? entry->new_chunk : entry->old_chunk;
	/* Chunks are given out in order, entries written in the same one. */
	if (check->is_new && entry->new_chunk < reader->num_chunks &&
	    (entry->new_chunk - 1) / period > check->list.end.area)
		found(check, COW_NEW_TOO_EARLY, place, entry,
		      "the list has got to area %" PRIu64 ", and the chunk belongs to %" PRIu64,
		      check->list.end.area, (entry->new_chunk - 1) / period);
	return 0;
}

static void sort_keys(uint64_t *keys, uint64_t count)
{
	uint64_t differing = 0;
	bool is_sorted = true;
	int bit = 0;

	for (uint64_t i = 1; i < count; i++) {
		differing |= keys[i] ^ keys[0];
		is_sorted = is_sorted && keys[i] >= keys[i - 1];
	}
	while (differing >> 1 >> bit)
		bit++;
	if (!is_sorted)
		sort(keys, count, bit);
}

/* Keeps of sorted keys one of each that is there twice. */
static uint64_t keep_doubles(uint64_t *keys, uint64_t count)
{
	uint64_t kept = 0;

	for (uint64_t i = 1; i < count; i++) {
		if (keys[i] == keys[i - 1] && (kept == 0 || keys[kept - 1] != keys[i]))
			keys[kept++] = keys[i];
	}
	return kept;
}

static int compare_keys(const void *a, const void *b)
{
	uint64_t left = *(const uint64_t *)a;
	uint64_t right = *(const uint64_t *)b;

	return (left > right) - (left < right);
}

/* Tells of an entry whose chunk another one has had. */
static int find_again(void *context, const struct cow_place *place,
		      const struct dmcore_cow_entry *entry)
{
	struct cow_check *check = context;
	uint64_t key = check->is_new ? entry->new_chunk : entry->old_chunk;
	const uint64_t *double_key = bsearch(&key, check->keys, (size_t)check->num_keys,
					     sizeof(key), compare_keys);
	uint64_t *first;

	if (!double_key)
		return 0;
	first = &check->firsts[double_key - check->keys];
	if (*first == UINT64_MAX)
		*first = place->area * check->reader->area_entries + place->index;
	else
		found(check, check->is_new ? COW_NEW_TWICE : COW_OLD_TWICE, place, entry,
		      "area %" PRIu64 ", entry %" PRIu64 " has %s chunk %" PRIu64 " too",
		      *first / check->reader->area_entries, *first % check->reader->area_entries,
		      check->is_new ? "new" : "old", key);
	return 0;
}

/* Looks for doubles of old, or of new chunks. */
static int check_doubles(struct cow_check *check, bool is_new)
{
	struct cow_list list;
	int ret;

	check->is_new = is_new;
	check->num_keys = 0;
	ret = cow_walk(check->reader, collect, check, &list);
	if (ret < 0)
		return ret;
	sort_keys(check->keys, check->num_keys);
	check->num_keys = keep_doubles(check->keys, check->num_keys);
	if (check->num_keys == 0)
		return 0;
	check->firsts = malloc((size_t)check->num_keys * sizeof(*check->firsts));
	if (!check->firsts)
		return -ENOMEM;
	for (uint64_t i = 0; i < check->num_keys; i++)
		check->firsts[i] = UINT64_MAX;
	ret = cow_walk(check->reader, find_again, check, &list);
	free(check->firsts);
	return ret;
}

int cow_check(struct cow_check *check, struct cow_reader *reader)
{
	int ret;

	check->reader = reader;
	if (!check_header(check))
		return 0;
	ret = check_list(check);
	if (ret || check->list.num_entries == 0)
		return ret;
	check->keys = malloc((size_t)check->list.num_entries * sizeof(*check->keys));
	if (!check->keys)
		return -ENOMEM;
	ret = check_doubles(check, false);
	if (ret == 0)
		ret = check_doubles(check, true);
	free(check->keys);
	return ret;
}
