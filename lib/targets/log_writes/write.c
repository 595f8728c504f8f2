/* SPDX-License-Identifier: MIT */
/*
 * What a log-writes target writes to its log device: rows of entries, and the super block. One
 * write at a time, each of as many entries as it may have, so that what is on the device is always
 * a beginning of the log. Called by run.c, by one at a time.
 */
#include <errno.h>
#include <string.h>

#include "base/checked.h"
#include "targets/log_writes/wlog.h"

static void begin_bio(struct wlog *log, struct dmcore_queue *queue, uint64_t sector, uint64_t count,
		      uint32_t num_vecs)
{
	struct dmcore_bio *bio = &log->bio;

	dmcore_bio_init(bio, queue);
	bio->bdev = log->bdev;
	bio->op = DMCORE_OP_WRITE;
	bio->sector = sector;
	bio->count = count;
	bio->vecs = log->vecs;
	bio->num_vecs = num_vecs;
	bio->context = log;
	log->next_before = log->next_sector;
	log->num_before = log->num_entries;
}

void dmcore__wlog_prepare_super(struct wlog *log, struct dmcore_queue *queue)
{
	struct dmcore_logwrites_super super = { log->num_entries, log->block_bytes };

	memset(log->headers, 0, log->block_bytes);
	dmcore_logwrites_super_encode(&super, log->headers);
	log->vecs[0] = (struct dmio_bvec){ log->headers, log->block_bytes };
	log->is_super = true;
	begin_bio(log, queue, 0, dmcore__bytes_to_sectors(log->block_bytes), 1);
}

static void add_vec(struct wlog *log, uint32_t *num_vecs, void *base, uint64_t bytes)
{
	log->vecs[(*num_vecs)++] = (struct dmio_bvec){ base, bytes };
}

static uint64_t data_bytes(const struct wlog_entry *entry)
{
	return entry->flags & DMCORE_LOGWRITES_DISCARD ? 0 :
							 dmcore__sectors_to_bytes(entry->count);
}

static void add_entry(struct wlog *log, const struct wlog_entry *entry, unsigned int nr,
		      uint32_t *num_vecs)
{
	uint64_t block_sectors = dmcore__bytes_to_sectors(log->block_bytes);
	unsigned char *header = log->headers + (size_t)nr * log->block_bytes;
	struct dmcore_logwrites_entry fields = { entry->sector / block_sectors,
						 entry->count / block_sectors, entry->flags,
						 entry->text_bytes };
	uint64_t left_bytes = data_bytes(entry);
	uint32_t page = entry->first_page;

	memset(header, 0, log->block_bytes);
	dmcore_logwrites_entry_encode(&fields, header);
	if (entry->text)
		memcpy(header + DMCORE_LOGWRITES_ENTRY_BYTES, entry->text, entry->text_bytes);
	add_vec(log, num_vecs, header, log->block_bytes);
	while (left_bytes > 0) {
		uint64_t bytes = dmcore__min_u64(left_bytes, WLOG_PAGE_BYTES);

		add_vec(log, num_vecs, dmcore__wlog_page(&log->memory, page), bytes);
		page = log->memory.next_page[page];
		left_bytes -= bytes;
	}
}

static uint32_t vecs_of(const struct wlog_entry *entry)
{
	return 1 + (uint32_t)((data_bytes(entry) + WLOG_PAGE_BYTES - 1) / WLOG_PAGE_BYTES);
}

static void show(struct wlog *log)
{
	atomic_store_explicit(&log->shown_entries, log->num_entries, memory_order_relaxed);
	atomic_store_explicit(&log->shown_next_sector, log->next_sector, memory_order_relaxed);
}

/* From an entry on, as many as one write may have. */
static bool prepare_entries(struct wlog *log, struct dmcore_queue *queue, struct wlog_entry *first)
{
	uint64_t next = log->next_sector;
	uint32_t num_vecs = 0;
	unsigned int num = 0;

	for (struct wlog_entry *entry = first; entry; entry = entry->next) {
		uint64_t end = next + dmcore__bytes_to_sectors(log->block_bytes +
							       data_bytes(entry));

		if (num == WLOG_BATCH_ENTRIES || num_vecs + vecs_of(entry) > WLOG_BATCH_VECS)
			break;
		/* As in the kernel, the last block isn't used. */
		if (end >= log->end_sector) {
			if (num == 0)
				atomic_store_explicit(&log->shown_next_sector, end,
						      memory_order_relaxed);
			break;
		}
		add_entry(log, entry, num++, &num_vecs);
		next = end;
	}
	if (num == 0)
		return false;
	log->batch = first;
	log->num_batch = num;
	log->is_super = false;
	begin_bio(log, queue, log->next_sector, next - log->next_sector, num_vecs);
	log->next_sector = next;
	log->num_entries += num;
	return true;
}

bool dmcore__wlog_prepare(struct wlog *log, struct dmcore_queue *queue)
{
	if (log->super_due) {
		dmcore__wlog_prepare_super(log, queue);
		return true;
	}
	if (!log->ready.head)
		return false;
	log->is_tail = false;
	if (prepare_entries(log, queue, log->ready.head)) {
		show(log);
		return true;
	}
	/* The device is full. */
	atomic_store(&log->disabled, true);
	return false;
}

bool dmcore__wlog_prepare_tail(struct wlog *log, struct dmcore_queue *queue,
			       struct wlog_entry *first)
{
	uint64_t shown = atomic_load(&log->shown_next_sector);
	bool fits;

	log->is_tail = true;
	fits = prepare_entries(log, queue, first);
	atomic_store(&log->shown_next_sector, shown);
	return fits;
}

/* They are in the log. */
static void forget_batch(struct wlog *log)
{
	for (unsigned int i = 0; i < log->num_batch; i++) {
		struct wlog_entry *entry = dmcore__wlog_list_pop(&log->ready);

		if (entry->flags & (DMCORE_LOGWRITES_FUA | DMCORE_LOGWRITES_MARK))
			log->super_due = true;
		dmcore__wlog_give(&log->memory, entry);
	}
}

bool dmcore__wlog_finish(struct wlog *log, int status)
{
	if (status == -EAGAIN && log->nowait) {
		log->next_sector = log->next_before;
		log->num_entries = log->num_before;
		if (!log->is_tail)
			show(log);
		return false;
	}
	if (status)
		atomic_store(&log->disabled, true);
	else if (log->is_super)
		log->super_due = false;
	else if (!log->is_tail)
		forget_batch(log);
	return true;
}
