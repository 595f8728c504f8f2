/* SPDX-License-Identifier: MIT */
/*
 * The memory of a log-writes target: entries, and pages for copies of data. All of it is taken when
 * the target is constructed. Called by targets/log_writes.c and by the files beside this one.
 */
#include <string.h>

#include <dmcore/driver.h>

#include "base/checked.h"
#include "targets/log_writes/wlog.h"

bool dmcore__wlog_memory_create(struct wlog_memory *memory, struct dmcore *core, uint64_t sectors)
{
	uint64_t wanted = dmcore__sectors_to_bytes(dmcore__min_u64(sectors, UINT32_MAX)) * 4;
	uint64_t bytes = dmcore__min_u64(dmcore__max_u64(wanted, WLOG_MEMORY_BYTES_MIN),
					 WLOG_MEMORY_BYTES_MAX);
	uint32_t num = (uint32_t)(bytes / WLOG_PAGE_BYTES);
	size_t entries_bytes = num * sizeof(*memory->entry_array);
	size_t links_bytes = num * sizeof(uint32_t);
	unsigned char *whole;
	uintptr_t pages;

	/* Pages are aligned for the sake of direct I/O. */
	whole = dmcore_zalloc(core, bytes + WLOG_PAGE_BYTES + entries_bytes + 3 * links_bytes);
	if (!whole)
		return false;
	memory->whole = whole;
	pages = ((uintptr_t)whole + entries_bytes + 3 * links_bytes + WLOG_PAGE_BYTES - 1) &
		~(uintptr_t)(WLOG_PAGE_BYTES - 1);
	memory->entry_array = (struct wlog_entry *)(void *)whole;
	memory->next_page = (uint32_t *)(void *)(whole + entries_bytes);
	memory->page_bytes = whole + (pages - (uintptr_t)whole);
	dmcore__stack_init(&memory->pages, (_Atomic uint32_t *)memory->next_page + num, num);
	dmcore__stack_init(&memory->entries, (_Atomic uint32_t *)memory->next_page + 2 * num, num);
	return true;
}

void dmcore__wlog_memory_destroy(struct wlog_memory *memory, struct dmcore *core)
{
	dmcore_free(core, memory->whole);
	memory->whole = NULL;
}

struct wlog_entry *dmcore__wlog_take(struct wlog_memory *memory, uint64_t bytes)
{
	uint32_t num_pages = (uint32_t)((bytes + WLOG_PAGE_BYTES - 1) / WLOG_PAGE_BYTES);
	struct wlog_entry *entry;

	if (!dmcore__stack_permit(&memory->entries, 1))
		return NULL;
	if (!dmcore__stack_permit(&memory->pages, num_pages)) {
		dmcore__stack_return(&memory->entries, 1);
		return NULL;
	}
	entry = &memory->entry_array[dmcore__stack_pop(&memory->entries)];
	memset(entry, 0, sizeof(*entry));
	entry->first_page = WLOG_NO_PAGE;
	for (uint32_t i = 0; i < num_pages; i++) {
		uint32_t page = dmcore__stack_pop(&memory->pages);

		memory->next_page[page] = entry->first_page;
		entry->first_page = page;
	}
	return entry;
}

void dmcore__wlog_give(struct wlog_memory *memory, struct wlog_entry *entry)
{
	uint32_t page = entry->first_page;
	uint32_t num_pages = 0;

	while (page != WLOG_NO_PAGE) {
		uint32_t next = memory->next_page[page];

		dmcore__stack_push(&memory->pages, page);
		num_pages++;
		page = next;
	}
	dmcore__stack_push(&memory->entries, (uint32_t)(entry - memory->entry_array));
	dmcore__stack_return(&memory->pages, num_pages);
	dmcore__stack_return(&memory->entries, 1);
}

/* Where the next byte of a copy goes. */
struct cursor {
	struct wlog_memory *memory;
	uint32_t page;
	uint32_t used_bytes;
	uint64_t left_bytes;
};

/* `from` NULL: zeroes. */
static void copy_run(struct cursor *cursor, const unsigned char *from, uint64_t bytes)
{
	bytes = dmcore__min_u64(bytes, cursor->left_bytes);
	cursor->left_bytes -= bytes;
	while (bytes > 0) {
		uint64_t step = dmcore__min_u64(bytes, WLOG_PAGE_BYTES - cursor->used_bytes);
		unsigned char *to = dmcore__wlog_page(cursor->memory, cursor->page) +
				    cursor->used_bytes;

		if (from) {
			memcpy(to, from, step);
			from += step;
		} else {
			memset(to, 0, step);
		}
		bytes -= step;
		cursor->used_bytes += (uint32_t)step;
		if (cursor->used_bytes == WLOG_PAGE_BYTES) {
			cursor->page = cursor->memory->next_page[cursor->page];
			cursor->used_bytes = 0;
		}
	}
}

void dmcore__wlog_copy(struct wlog_memory *memory, struct wlog_entry *entry,
		       const struct dmcore_bio *bio)
{
	struct cursor cursor = { memory, entry->first_page, 0,
				 dmcore__sectors_to_bytes(bio->count) };
	uint64_t offset = bio->vec_offset_bytes;

	for (uint32_t i = 0; i < bio->num_vecs && cursor.left_bytes > 0; i++) {
		const struct dmio_bvec *vec = &bio->vecs[i];

		copy_run(&cursor, (const unsigned char *)vec->base + offset,
			 vec->len_bytes - offset);
		offset = 0;
	}
	/* A write of too little memory fails; what was in the pages is nobody's business. */
	copy_run(&cursor, NULL, cursor.left_bytes);
}

bool dmcore__wlog_memory_is_low(const struct wlog_memory *memory)
{
	return dmcore__stack_left(&memory->pages) < memory->pages.size / WLOG_LOW_PART ||
	       dmcore__stack_left(&memory->entries) < memory->entries.size / WLOG_LOW_PART;
}
