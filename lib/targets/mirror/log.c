/* SPDX-License-Identifier: MIT */
/*
 * Which regions of a mirror are in sync: in memory, and for a log of type disk on its device, in
 * the kernel's format. There a set bit says that a region is clean: its legs are the same and
 * nobody writes to it. A bit is cleared and the device flushed before the first write; clean.c sets
 * it again when the legs have been flushed.
 *
 * Sectors of the device:
 *
 *	0 .. 1	header: u32 magic, u32 version, u64 regions, little endian
 *	2 ..	a bit for each region, byte r / 8, bit r % 8
 *
 * Only the blocks that have changed are written. Called on the service by the files beside this
 * one, and by targets/mirror.c while nothing is under way.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/checked.h"
#include "base/compiler.h"
#include "base/le.h"
#include "targets/mirror/mirror.h"

#define LOG_MAGIC UINT32_C(0x4d695272)
#define LOG_VERSION 2u
#define LOG_BITS_OFFSET 1024u
/* As long as the kernel's bitset is a multiple of. */
#define LOG_BITS_ALIGN 64u

static void flush_ended(struct mirror *mirror);

/* ---- bits ---- */

uint64_t dmcore__log_num_words(const struct mirror_log *log)
{
	return (log->num_regions + 63) / 64;
}

static bool bit_of(const unsigned char *bits, uint64_t region)
{
	return bits[region / 8] >> region % 8 & 1;
}

bool dmcore__log_is_clean(const struct mirror_log *log, uint64_t region)
{
	return bit_of(log->clean, region);
}

void dmcore__log_set_clean(struct mirror_log *log, uint64_t region, bool clean)
{
	unsigned char bit = (unsigned char)(1u << region % 8);
	size_t at = LOG_BITS_OFFSET + (size_t)(region / 8);

	if (clean)
		log->clean[region / 8] |= bit;
	else
		log->clean[region / 8] &= (unsigned char)~bit;
	if (log->stale_begin == log->stale_end) {
		log->stale_begin = at;
		log->stale_end = at + 1;
		return;
	}
	if (at < log->stale_begin)
		log->stale_begin = at;
	if (at >= log->stale_end)
		log->stale_end = at + 1;
}

bool dmcore__log_in_sync(const struct mirror_log *log, uint64_t region)
{
	return atomic_load_explicit(&log->sync_words[region / 64], memory_order_acquire) >>
		       region % 64 & 1;
}

void dmcore__log_set_sync(struct mirror *mirror, uint64_t region, bool in_sync)
{
	struct mirror_log *log = &mirror->log;
	uint64_t bit = UINT64_C(1) << region % 64;

	if (dmcore__log_in_sync(log, region) == in_sync)
		return;
	if (in_sync) {
		atomic_fetch_or(&log->sync_words[region / 64], bit);
		atomic_fetch_add(&log->num_in_sync, 1);
	} else {
		atomic_fetch_and(&log->sync_words[region / 64], ~bit);
		atomic_fetch_sub(&log->num_in_sync, 1);
	}
}

/* The first region from `from` on whose bit, after the exclusive or, is set. */
static uint64_t next_region(const struct mirror_log *log, uint64_t from, uint64_t flip)
{
	for (uint64_t word = from / 64; word < dmcore__log_num_words(log); word++) {
		uint64_t bits = atomic_load(&log->sync_words[word]) ^ flip;

		if (word == from / 64)
			bits &= ~UINT64_C(0) << from % 64;
		if (bits) {
			uint64_t region = word * 64 + (uint64_t)__builtin_ctzll(bits);

			return region < log->num_regions ? region : UINT64_MAX;
		}
	}
	return UINT64_MAX;
}

uint64_t dmcore__log_next_unsynced(const struct mirror_log *log, uint64_t from)
{
	return next_region(log, from, UINT64_MAX);
}

uint64_t dmcore__log_next_synced(const struct mirror_log *log, uint64_t from)
{
	return next_region(log, from, 0);
}

void dmcore__log_mark(struct mirror *mirror, uint64_t region)
{
	struct mirror_log *log = &mirror->log;

	dmcore__clean_not(mirror, region);
	if (!dmcore__log_is_clean(log, region))
		return;
	dmcore__log_set_clean(log, region, false);
	log->has_marked = true;
}

/* ---- memory ---- */

int dmcore__log_measure(struct mirror *mirror, uint64_t sectors)
{
	struct mirror_log *log = &mirror->log;
	uint64_t bytes;

	dmcore__mirror_list_init(&log->waiters);
	atomic_store(&log->health, 'A');
	log->num_regions = sectors >> log->region_shift;
	if (sectors & ((UINT64_C(1) << log->region_shift) - 1))
		log->num_regions++;
	if (log->num_regions > UINT32_MAX) {
		dmcore_target_log(mirror->target, DMCORE_LOG_WARNING,
				  "region count exceeds limit of %" PRIu32, UINT32_MAX);
		return -EINVAL;
	}
	bytes = LOG_BITS_OFFSET + dmcore__log_num_words(log) * sizeof(uint64_t);
	log->block_bytes = DMCORE_SECTOR_BYTES;
	if (log->bdev) {
		struct dmcore_limits limits = { .struct_size = sizeof(limits) };

		dmcore_bdev_limits(log->bdev, &limits);
		log->block_bytes = limits.logical_block_bytes;
	}
	log->buffer_bytes = (bytes + log->block_bytes - 1) / log->block_bytes * log->block_bytes;
	return 0;
}

int dmcore__log_allocate(struct mirror *mirror)
{
	struct mirror_log *log = &mirror->log;
	size_t bytes = (size_t)dmcore__log_num_words(log) * sizeof(uint64_t);

	log->sync_words = dmcore_zalloc(mirror->core, bytes);
	log->buffer = dmcore_zalloc(mirror->core, log->buffer_bytes);
	log->io_buffer = dmcore_zalloc(mirror->core, log->bdev ? log->buffer_bytes : 1);
	if (!log->sync_words || !log->buffer || !log->io_buffer)
		return -ENOMEM;
	log->clean = log->buffer + LOG_BITS_OFFSET;
	return 0;
}

void dmcore__log_destroy(struct mirror *mirror)
{
	struct mirror_log *log = &mirror->log;

	dmcore_free(mirror->core, log->sync_words);
	dmcore_free(mirror->core, log->buffer);
	dmcore_free(mirror->core, log->io_buffer);
	dmcore_free(mirror->core, mirror->cleaning.words);
}

/* ---- loading ---- */

static void fail_log(struct mirror *mirror, char health, const char *what)
{
	struct mirror_log *log = &mirror->log;

	dmcore_target_log(mirror->target, DMCORE_LOG_WARNING,
			  "%s: Failed to %s on dirty region log device",
			  dmcore_bdev_name(log->bdev), what);
	if (atomic_exchange(&log->health, health) == 'A')
		dmcore_target_event(mirror->target);
}

/* How many regions the disk knows of; the rest differ, or don't, as the table says. */
static int read_header(struct mirror *mirror, uint64_t *known)
{
	struct mirror_log *log = &mirror->log;
	uint32_t version;
	int ret;

	*known = 0;
	ret = dmcore_pread(log->bdev, log->buffer, log->buffer_bytes, 0);
	if (ret)
		return ret;
	version = dmcore__le32(log->buffer + 4);
	if (dmcore__le32(log->buffer) != LOG_MAGIC || log->sync != MIRROR_SYNC_DEFAULT)
		return 0;
	if (version != 1 && version != LOG_VERSION)
		return dmcore_target_fail(mirror->target, -EINVAL,
					  "incompatible disk log version");
	*known = dmcore__min_u64(dmcore__le64(log->buffer + 8), log->num_regions);
	return 0;
}

/* The bits of regions that the disk knows nothing of, and what lies behind the last region. */
static void complete_bits(struct mirror_log *log, uint64_t known)
{
	bool clean = log->sync == MIRROR_SYNC_NONE;

	for (uint64_t region = known; region < dmcore__log_num_words(log) * 64; region++) {
		unsigned char bit = (unsigned char)(1u << region % 8);

		if (clean && region < log->num_regions)
			log->clean[region / 8] |= bit;
		else
			log->clean[region / 8] &= (unsigned char)~bit;
	}
}

/* What is clean is in sync, and nothing else. */
static void take_over(struct mirror_log *log)
{
	uint64_t count = 0;

	for (uint64_t word = 0; word < dmcore__log_num_words(log); word++) {
		uint64_t bits = dmcore__le64(log->clean + word * 8);

		atomic_store(&log->sync_words[word], bits);
		count += (uint64_t)__builtin_popcountll(bits);
	}
	atomic_store(&log->num_in_sync, count);
}

static void write_all(struct mirror *mirror)
{
	struct mirror_log *log = &mirror->log;

	memset(log->buffer, 0, 16);
	dmcore__le32_store(log->buffer, LOG_MAGIC);
	dmcore__le32_store(log->buffer + 4, LOG_VERSION);
	dmcore__le64_store(log->buffer + 8, log->num_regions);
	if (dmcore_pwrite(log->bdev, log->buffer, log->buffer_bytes, 0))
		fail_log(mirror, 'D', "write header");
	else if (dmcore_flush(log->bdev))
		fail_log(mirror, 'F', "write header");
}

/* What the disk couldn't be told by this table counts no less than what it holds. */
static void keep_known(struct mirror_log *log)
{
	for (uint64_t region = 0; region < log->num_regions; region++) {
		if (!dmcore__log_in_sync(log, region))
			log->clean[region / 8] &= (unsigned char)~(1u << region % 8);
	}
}

int dmcore__log_load(struct mirror *mirror)
{
	struct mirror_log *log = &mirror->log;
	bool knows_more = log->ticket > 0 && !dmcore__log_is_well(log);
	uint64_t known = 0;
	int ret;

	if (!log->bdev) {
		/* What is known survives a suspension, not the table. */
		if (log->ticket > 0)
			return 0;
		complete_bits(log, 0);
		take_over(log);
		log->ticket = 1;
		return 0;
	}
	atomic_store(&log->health, 'A');
	log->tries_again = false;
	if (knows_more)
		take_over(log);
	ret = read_header(mirror, &known);
	log->has_header = ret == 0;
	if (ret) {
		fail_log(mirror, 'D', "read header");
		known = 0;
		memset(log->buffer, 0, log->buffer_bytes);
		take_over(log);
	} else {
		complete_bits(log, known);
		if (knows_more && log->sync == MIRROR_SYNC_DEFAULT)
			keep_known(log);
		take_over(log);
		write_all(mirror);
	}
	memcpy(log->io_buffer, log->buffer, log->buffer_bytes);
	log->stale_begin = log->stale_end = 0;
	log->has_marked = false;
	log->ticket++;
	return 0;
}

/* ---- flushes ---- */

void dmcore__mirror_send(struct mirror *mirror, struct dmcore_bio *bio)
{
	int ret;

	bio->context = mirror;
	ret = dmcore_bio_submit(bio);
	if (ret) {
		bio->status = ret;
		bio->done(bio);
	}
}

static void marks_flushed(struct dmcore_bio *bio)
{
	struct mirror *mirror = bio->context;

	if (bio->status)
		fail_log(mirror, 'F', "flush");
	flush_ended(mirror);
}

static void bits_written(struct dmcore_bio *bio)
{
	struct mirror *mirror = bio->context;
	struct mirror_log *log = &mirror->log;

	if (bio->status)
		fail_log(mirror, 'D', "write");
	if (bio->status || !log->flushes_marks) {
		flush_ended(mirror);
		return;
	}
	log->state = LOG_FLUSHING;
	dmcore_bio_init(&log->bio, mirror->service);
	log->bio.bdev = log->bdev;
	log->bio.op = DMCORE_OP_FLUSH;
	log->bio.done = marks_flushed;
	dmcore__mirror_send(mirror, &log->bio);
}

static void write_bits(struct mirror *mirror)
{
	struct mirror_log *log = &mirror->log;
	size_t begin = log->stale_begin / log->block_bytes * log->block_bytes;
	size_t end = (log->stale_end + log->block_bytes - 1) / log->block_bytes * log->block_bytes;

	log->flushes_marks = log->has_marked;
	log->has_marked = false;
	log->stale_begin = log->stale_end = 0;
	if (!log->bdev || begin == end || !(dmcore__log_is_well(log) || log->tries_again)) {
		flush_ended(mirror);
		return;
	}
	/* Bits may change while it is under way. */
	memcpy(log->io_buffer + begin, log->buffer + begin, end - begin);
	log->state = LOG_WRITING;
	dmcore_bio_init(&log->bio, mirror->service);
	log->bio.bdev = log->bdev;
	log->bio.op = DMCORE_OP_WRITE;
	log->bio.sector = dmcore__bytes_to_sectors(begin);
	dmcore_bio_set_buffer(&log->bio, log->io_buffer + begin, end - begin);
	log->bio.done = bits_written;
	dmcore__mirror_send(mirror, &log->bio);
}

void dmcore__log_unsync_unflushed(struct mirror *mirror)
{
	struct mirror_log *log = &mirror->log;

	for (uint64_t region = 0; region < log->num_regions; region++) {
		/* The legs were flushed before a bit of it was set. */
		if (log->bdev && bit_of(log->io_buffer + LOG_BITS_OFFSET, region))
			continue;
		if (dmcore__log_is_clean(log, region))
			dmcore__log_set_clean(log, region, false);
		dmcore__log_set_sync(mirror, region, false);
	}
	for (uint32_t i = 0; i < MIRROR_SETS * MIRROR_WAYS; i++) {
		uint64_t region = dmcore__region_at(mirror->regions, i);

		if (region != UINT64_MAX && !dmcore__log_in_sync(log, region) &&
		    dmcore__region_state(mirror->regions, region) == REGION_DIRTY)
			dmcore__region_set(mirror->regions, region, REGION_NOSYNC);
	}
}

void dmcore__log_flush(struct mirror *mirror)
{
	struct mirror_log *log = &mirror->log;

	if (log->state != LOG_IDLE)
		return;
	if (log->wanted) {
		log->wanted = false;
		log->ticket++;
		write_bits(mirror);
	} else if (log->idle_call && !dmcore__clean_go_on(mirror)) {
		dmcore_service_return(log->idle_call, 0);
		log->idle_call = NULL;
	}
}

/* All that had been marked when it began is durable, or the log has failed. */
static void flush_ended(struct mirror *mirror)
{
	struct mirror_log *log = &mirror->log;

	log->state = LOG_IDLE;
	log->done_ticket = log->ticket - 1;
	while (log->waiters.head && log->waiters.head->ticket <= log->done_ticket)
		dmcore__mirror_run(dmcore__mirror_list_take(&log->waiters));
	dmcore__recovery_go_on(mirror);
	dmcore__scrub_go_on(mirror);
	dmcore__log_flush(mirror);
}

void dmcore__log_finish(struct mirror *mirror, struct dmcore_call *call)
{
	struct mirror_log *log = &mirror->log;

	/* It may work again, and another table may come that knows only what it holds. */
	if (!dmcore__log_is_well(log) && log->has_header) {
		log->tries_again = true;
		log->has_marked = true;
		log->stale_begin = 0;
		log->stale_end = log->buffer_bytes;
	}
	log->idle_call = call;
	if (!dmcore__clean_go_on(mirror))
		log->wanted = true;
	dmcore__log_flush(mirror);
}

void dmcore__log_wait(struct mirror *mirror, struct mirror_request *request)
{
	struct mirror_log *log = &mirror->log;

	request->ticket = log->ticket;
	dmcore__mirror_list_add(&log->waiters, request);
	log->wanted = true;
}
