/* SPDX-License-Identifier: MIT */
/*
 * log-writes: a device, and a log of all that is written to it, from which the states can be made
 * that a loss of power might have left.
 *
 * Table line:  <start> <length> log-writes <device> <log device>
 *
 * Sector s of the target is sector s of the device, and of the log's entries. The contract:
 *
 *  - Requests go to the device at once and as they are; the log is written behind them, by the
 *    service of the core. Nothing that a request ends with is ever waited for: a flush of the
 *    target is a flush of the device, and makes nothing of the log durable.
 *  - A write's data are copied when it is submitted. The log gets a plain write when a flush has
 *    completed that was submitted after the write had completed, in front of that flush; a write
 *    with FUA when it has completed; a mark at once. Otherwise entries stand in the order of
 *    completions. So any beginning of the log, up to a flush, a FUA write or anywhere, is what a
 *    device may hold that loses power.
 *  - Copies live in memory of a fixed size. When it runs low, the oldest completed writes are
 *    logged without a flush: they might have become durable, so the log remains true, but it shows
 *    fewer states. Those that completed while a flush was under way aren't, until that has ended:
 *    they must not seem to be covered. When there is none left, requests wait.
 *  - A suspended or removed device leaves a log that is whole, ended by a mark, and durable. Before
 *    that the super block counts entries up to the last FUA write or mark.
 *  - If the log device fails or is full, logging ends for good, and requests go on.
 *
 * Called by the core through the type at the end; the log itself is in targets/log_writes/.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <strings.h>

#include <dmcore/driver.h>
#include <dmcore/target.h>

#include "base/checked.h"
#include "base/compiler.h"
#include "targets/log_writes/wlog.h"

/* ---- constructor ---- */

static uint32_t block_bytes_of(const struct dmcore_bdev *bdev, bool *discards)
{
	struct dmcore_limits limits = { .struct_size = sizeof(limits) };

	dmcore_bdev_limits(bdev, &limits);
	*discards = limits.caps & DMCORE_CAP_DISCARD;
	return limits.logical_block_bytes;
}

/* All memory of a log; what there is of it is freed by free_log(). */
static bool allocate(struct wlog *log, uint64_t sectors)
{
	struct dmcore *core = log->core;
	_Atomic uint32_t *below;

	log->vecs = dmcore_zalloc(core, WLOG_BATCH_VECS * sizeof(*log->vecs));
	log->headers = dmcore_zalloc(core, (size_t)WLOG_BATCH_ENTRIES * log->block_bytes);
	log->stand_in_array =
		dmcore_zalloc(core, WLOG_STAND_INS * (sizeof(*log->stand_in_array) +
						      sizeof(*below)));
	if (!log->vecs || !log->headers || !log->stand_in_array)
		return false;
	below = (_Atomic uint32_t *)(void *)(log->stand_in_array + WLOG_STAND_INS);
	dmcore__stack_init(&log->stand_ins, below, WLOG_STAND_INS);
	for (unsigned int i = 0; i < WLOG_STAND_INS; i++)
		log->stand_in_array[i].log = log;
	return dmcore__wlog_memory_create(&log->memory, core, sectors);
}

static void free_log(struct wlog *log)
{
	struct dmcore *core = log->core;

	dmcore__wlog_memory_destroy(&log->memory, core);
	dmcore_free(core, log->stand_in_array);
	dmcore_free(core, log->headers);
	dmcore_free(core, log->vecs);
	pthread_mutex_destroy(&log->control);
	pthread_mutex_destroy(&log->idle_lock);
	pthread_cond_destroy(&log->idle);
	dmcore_free(core, log);
}

static struct wlog *make_log(struct dmcore *core)
{
	struct wlog *log = dmcore_zalloc(core, sizeof(*log));

	if (!log)
		return NULL;
	log->core = core;
	pthread_mutex_init(&log->control, NULL);
	pthread_mutex_init(&log->idle_lock, NULL);
	pthread_cond_init(&log->idle, NULL);
	dmcore__wlog_list_init(&log->unflushed);
	dmcore__wlog_list_init(&log->flushes);
	dmcore__wlog_list_init(&log->ready);
	log->waiters_tail = &log->waiters;
	/* Until the first resume. */
	log->suspended = true;
	atomic_store(&log->busy, true);
	return log;
}

static int set_up(struct dmcore_target *target, struct wlog *log, struct dmcore_args *args)
{
	const char *spec = dmcore_args_next(args);
	const char *log_spec = dmcore_args_next(args);
	bool log_discards;
	int ret;

	ret = dmcore_target_device(target, spec, &log->data_bdev);
	if (ret)
		return dmcore_args_fail(args, ret, "Device lookup failed");
	ret = dmcore_target_device(target, log_spec, &log->bdev);
	if (ret)
		return dmcore_args_fail(args, ret, "Log device lookup failed");
	if (log->bdev == log->data_bdev)
		return dmcore_args_fail(args, -EINVAL, "The log device is the device itself");
	log->block_bytes = block_bytes_of(log->data_bdev, &log->data_discards);
	if (block_bytes_of(log->bdev, &log_discards) > log->block_bytes)
		return dmcore_args_fail(args, -EINVAL,
					"The log device has larger blocks than the device");
	log->end_sector = dmcore_bdev_size_sectors(log->bdev);
	log->next_sector = dmcore__bytes_to_sectors(log->block_bytes);
	atomic_store(&log->shown_next_sector, log->next_sector);
	if (!allocate(log, dmcore_target_len(target)))
		return dmcore_args_fail(args, -ENOMEM, "Cannot allocate context");
	log->service = dmcore_service_queue(log->core);
	if (!log->service)
		return dmcore_args_fail(args, -ENOMEM, "Couldn't alloc kthread");
	return 0;
}

static int log_writes_ctr(struct dmcore_target *target, struct dmcore_args *args)
{
	struct wlog *log;
	int ret;

	/* As in the kernel, more are ignored. */
	if (dmcore_args_left(args) < 2)
		return dmcore_args_fail(args, -EINVAL, "Invalid argument count");
	log = make_log(dmcore_target_core(target));
	if (!log)
		return dmcore_args_fail(args, -ENOMEM, "Cannot allocate context");
	ret = set_up(target, log, args);
	if (ret) {
		free_log(log);
		return ret;
	}
	target->private_data = log;
	target->max_io_sectors = WLOG_IO_SECTORS_MAX;
	/* Those that the device doesn't have are logged and succeed. */
	target->flags = DMCORE_TARGET_DISCARDS;
	return 0;
}

static void log_writes_dtr(struct dmcore_target *target)
{
	free_log(target->private_data);
}

/* ---- the way of a bio ---- */

static uint64_t copy_bytes(const struct dmcore_bio *bio)
{
	return bio->op == DMCORE_OP_WRITE ? dmcore__sectors_to_bytes(bio->count) : 0;
}

/* The request is about to go on, with an entry of its own. */
static void begin_entry(struct wlog *log, struct wlog_entry *entry, const struct dmcore_bio *bio)
{
	switch (bio->op) {
	case DMCORE_OP_FLUSH:
		entry->flags = DMCORE_LOGWRITES_FLUSH;
		entry->begun.kind = WLOG_FLUSH_BEGUN;
		dmcore__wlog_push(log, &entry->begun, false);
		return;
	case DMCORE_OP_DISCARD:
		entry->flags = DMCORE_LOGWRITES_DISCARD;
		break;
	default:
		if (bio->flags & DMCORE_BIO_FUA)
			entry->flags = DMCORE_LOGWRITES_FUA;
		dmcore__wlog_copy(&log->memory, entry, bio);
		break;
	}
	entry->sector = bio->sector;
	entry->count = bio->count;
}

static bool is_dropped(const struct wlog *log, const struct dmcore_bio *bio)
{
	return bio->op == DMCORE_OP_DISCARD && !log->data_discards;
}

static enum dmcore_map_result pass(const struct wlog *log, struct dmcore_bio *bio)
{
	if (!is_dropped(log, bio))
		return DMCORE_MAP_REMAPPED;
	dmcore_bio_complete(bio, 0);
	return DMCORE_MAP_SUBMITTED;
}

static enum dmcore_map_result log_writes_map(struct dmcore_target *target, struct dmcore_bio *bio)
{
	struct wlog *log = target->private_data;
	struct wlog_request *request = dmcore_bio_target_data(bio);

	request->entry = NULL;
	bio->bdev = log->data_bdev;
	if (bio->op != DMCORE_OP_FLUSH)
		bio->sector -= target->begin;
	if (bio->op == DMCORE_OP_READ ||
	    atomic_load_explicit(&log->disabled, memory_order_relaxed))
		return pass(log, bio);
	/* Behind those that wait already. */
	if (atomic_load_explicit(&log->num_waiting, memory_order_relaxed) == 0)
		request->entry = dmcore__wlog_take(&log->memory, copy_bytes(bio));
	if (request->entry) {
		begin_entry(log, request->entry, bio);
		return pass(log, bio);
	}
	request->bio = bio;
	request->log = log;
	request->event.kind = WLOG_WAITS;
	atomic_fetch_add(&log->num_waiting, 1);
	dmcore__wlog_push(log, &request->event, true);
	return DMCORE_MAP_SUBMITTED;
}

static void end_stand_in(struct wlog_stand_in *stand_in, int status)
{
	struct wlog *log = stand_in->log;
	struct dmcore_bio *bio = stand_in->request->bio;

	dmcore__stack_push(&log->stand_ins, (uint32_t)(stand_in - log->stand_in_array));
	dmcore__stack_return(&log->stand_ins, 1);
	if (atomic_load(&log->num_waiting) > 0)
		dmcore__wlog_wake(log);
	dmcore_bio_complete(bio, status);
}

static void stand_in_done(struct dmcore_bio *bio)
{
	end_stand_in(bio->context, bio->status);
}

void dmcore__wlog_send(struct dmcore_work *work)
{
	struct wlog_stand_in *stand_in =
		dmcore__container_of(work, struct wlog_stand_in, work);
	struct wlog *log = stand_in->log;
	const struct dmcore_bio *kept = stand_in->request->bio;
	struct dmcore_bio *bio = &stand_in->bio;
	int ret;

	if (stand_in->request->entry)
		begin_entry(log, stand_in->request->entry, kept);
	if (is_dropped(log, kept)) {
		end_stand_in(stand_in, 0);
		return;
	}
	dmcore_bio_init(bio, kept->queue);
	bio->bdev = kept->bdev;
	bio->op = kept->op;
	bio->flags = kept->flags;
	bio->sector = kept->sector;
	bio->count = kept->count;
	bio->vecs = kept->vecs;
	bio->num_vecs = kept->num_vecs;
	bio->vec_offset_bytes = kept->vec_offset_bytes;
	bio->done = stand_in_done;
	bio->context = stand_in;
	ret = dmcore_bio_submit(bio);
	if (ret)
		end_stand_in(stand_in, ret);
}

static enum dmcore_end_result log_writes_end_io(struct dmcore_target *target,
						struct dmcore_bio *bio, int *status)
{
	const struct wlog_request *request = dmcore_bio_target_data(bio);
	struct wlog_entry *entry = request->entry;
	struct wlog *log = target->private_data;
	bool wake = true;

	if (!entry)
		return DMCORE_END_DONE;
	if (entry->flags & DMCORE_LOGWRITES_FLUSH) {
		entry->ended.kind = *status ? WLOG_FLUSH_FAILED : WLOG_FLUSH_ENDED;
	} else if ((entry->flags & DMCORE_LOGWRITES_FUA) && *status == 0) {
		entry->ended.kind = WLOG_WRITTEN_FUA;
	} else {
		/* One that has failed may have been done all the same, but promises nothing. */
		entry->flags &= ~DMCORE_LOGWRITES_FUA;
		entry->ended.kind = WLOG_WRITTEN;
		wake = atomic_load(&log->num_waiting) > 0 ||
		       dmcore__wlog_memory_is_low(&log->memory) || atomic_load(&log->disabled);
	}
	dmcore__wlog_push(log, &entry->ended, wake);
	return DMCORE_END_DONE;
}

static unsigned int log_writes_num_bios(const struct dmcore_target *target, enum dmcore_op op)
{
	(void)target;
	return op != DMCORE_OP_WRITE_ZEROES;
}

/* ---- suspend, messages, status ---- */

static void log_writes_postsuspend(struct dmcore_target *target)
{
	dmcore__wlog_suspend(target->private_data);
}

static void log_writes_resume(struct dmcore_target *target)
{
	dmcore__wlog_resume(target->private_data);
}

static int log_writes_message(struct dmcore_target *target, struct dmcore_args *args,
			      struct dmcore_text *reply)
{
	const char *name = dmcore_args_next(args);
	int ret;

	(void)reply;
	if (dmcore_args_left(args) != 1)
		return dmcore_args_fail(args, -EINVAL,
					"Invalid log-writes message arguments, expect 2 arguments");
	if (strcasecmp(name, "mark") != 0)
		return dmcore_args_fail(args, -EINVAL,
					"Unrecognised log writes target message received");
	ret = dmcore__wlog_mark(target->private_data, dmcore_args_next(args));
	if (ret)
		return dmcore_args_fail(args, ret, "no memory for the mark: the log is behind");
	return 0;
}

static void log_writes_status(struct dmcore_target *target, enum dmcore_text_kind kind,
			      struct dmcore_text *text)
{
	const struct wlog *log = target->private_data;

	if (kind == DMCORE_TEXT_TABLE) {
		dmcore_text_device(text, log->data_bdev);
		dmcore_text_printf(text, " ");
		dmcore_text_device(text, log->bdev);
		return;
	}
	dmcore_text_printf(text, "%" PRIu64 " %" PRIu64 "%s", atomic_load(&log->shown_entries),
			   atomic_load(&log->shown_next_sector) - 1,
			   atomic_load(&log->disabled) ? " logging_disabled" : "");
}

static int log_writes_iterate_devices(struct dmcore_target *target, dmcore_iterate_fn fn,
				      void *context)
{
	const struct wlog *log = target->private_data;

	/* Of the log device nothing but its writes is asked. */
	return fn(target, log->data_bdev, 0, dmcore_target_len(target), context);
}

static void log_writes_io_hints(struct dmcore_target *target, struct dmcore_limits *limits)
{
	const struct wlog *log = target->private_data;

	if (!log->data_discards) {
		limits->discard_granularity_bytes = log->block_bytes;
		limits->max_discard_sectors = 0;
	}
}

static void log_writes_extent(struct dmcore_target *target, uint64_t sector,
			      struct dmcore_place *place)
{
	const struct wlog *log = target->private_data;

	place->bdev = log->data_bdev;
	place->sector = sector - target->begin;
}

extern const struct dmcore_target_type dmcore__target_log_writes;

const struct dmcore_target_type dmcore__target_log_writes = {
	.struct_size = sizeof(struct dmcore_target_type),
	.name = "log-writes",
	.version = { 1, 1, 0 },
	.per_bio_bytes = sizeof(struct wlog_request),
	.ctr = log_writes_ctr,
	.dtr = log_writes_dtr,
	.map = log_writes_map,
	.end_io = log_writes_end_io,
	.num_bios = log_writes_num_bios,
	.status = log_writes_status,
	.iterate_devices = log_writes_iterate_devices,
	.io_hints = log_writes_io_hints,
	.postsuspend = log_writes_postsuspend,
	.resume = log_writes_resume,
	.message = log_writes_message,
	.extent = log_writes_extent,
};
