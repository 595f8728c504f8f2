/* SPDX-License-Identifier: MIT */
/*
 * snapshot: an origin as it was at one moment, with what is written to either of the two kept on a
 * COW device; and writable.
 *
 * Table line:  <start> <length> snapshot <origin> <cow> <P|PO|N> <chunk sectors>
 *		[<#features> [discard_zeroes_cow] [discard_passdown_origin]]
 *
 * Sector s of the table is sector s of the origin. A chunk that has an exception is read and
 * written in the COW device, at once and on the thread of the request. One that has none is read
 * from the origin; if it gets an exception before the data have come, it is read again, from the
 * COW device. All else is the service's: see targets/snapshot/snapshot.h. Called by the core
 * through the type at the end.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <strings.h>

#include <dmcore/target.h>

#include "base/checked.h"
#include "base/compiler.h"
#include "targets/snapshot/snapshot.h"

static int snapshot_ctr(struct dmcore_target *target, struct dmcore_args *args)
{
	return dmcore__snapshot_construct(target, args, false);
}

/* ---- the way of a bio ---- */

static enum dmcore_map_result map_flush(const struct snapshot_target *own, struct dmcore_bio *bio)
{
	struct snapshot *snapshot = own->snapshot;
	struct snapshot_request *request = dmcore_bio_target_data(bio);

	bio->bdev = own->cow_bdev;
	if (!atomic_load(&snapshot->dirty))
		return DMCORE_MAP_REMAPPED;
	dmcore__request_keep(request, bio);
	dmcore__request_post(request, snapshot->service, dmcore__request_flush);
	return DMCORE_MAP_SUBMITTED;
}

static enum dmcore_map_result map_discard(const struct snapshot_target *own, struct dmcore_bio *bio)
{
	struct snapshot_request *request = dmcore_bio_target_data(bio);
	struct dmcore_limits limits = { .struct_size = sizeof(limits) };

	if (bio->bio_nr == 0) {
		dmcore__request_keep(request, bio);
		dmcore__request_post(request, own->snapshot->service, dmcore__request_discard);
		return DMCORE_MAP_SUBMITTED;
	}
	/* Passed down: what the snapshot shared with the origin is gone, and that is what was
	 * asked for. */
	dmcore_bdev_limits(own->origin_bdev, &limits);
	if (!(limits.caps & DMCORE_CAP_DISCARD)) {
		dmcore_bio_complete(bio, 0);
		return DMCORE_MAP_SUBMITTED;
	}
	bio->bdev = own->origin_bdev;
	return DMCORE_MAP_REMAPPED;
}

static enum dmcore_map_result map_write(const struct snapshot_target *own, struct dmcore_bio *bio,
					enum exceptions_result result, uint64_t new_chunk)
{
	struct snapshot *snapshot = own->snapshot;
	struct snapshot_request *request = dmcore_bio_target_data(bio);

	if (dmcore__unlikely(atomic_load_explicit(&snapshot->overflowed, memory_order_relaxed)))
		return DMCORE_MAP_KILL;
	/* What is durable when it ends must be found after a loss of power. */
	if (result != EXCEPTIONS_FOUND ||
	    (bio->flags & DMCORE_BIO_FUA && atomic_load(&snapshot->dirty))) {
		dmcore__request_keep(request, bio);
		dmcore__request_post(request, snapshot->service, dmcore__request_write);
		return DMCORE_MAP_SUBMITTED;
	}
	bio->bdev = own->cow_bdev;
	bio->sector = dmcore__snapshot_cow_sector(snapshot, new_chunk, bio->sector);
	return DMCORE_MAP_REMAPPED;
}

static enum dmcore_map_result snapshot_map(struct dmcore_target *target, struct dmcore_bio *bio)
{
	const struct snapshot_target *own = target->private_data;
	struct snapshot *snapshot = own->snapshot;
	struct snapshot_request *request = dmcore_bio_target_data(bio);
	enum exceptions_result result;
	uint64_t new_chunk;

	request->stage = SNAPSHOT_PASS;
	request->snapshot = snapshot;
	if (bio->op == DMCORE_OP_FLUSH)
		return map_flush(own, bio);
	if (dmcore__unlikely(!dmcore__snapshot_is_valid(snapshot) || atomic_load(&own->lost)))
		return DMCORE_MAP_KILL;
	if (bio->op == DMCORE_OP_DISCARD)
		return map_discard(own, bio);
	result = dmcore__exceptions_find(snapshot->exceptions,
					 dmcore__snapshot_chunk(snapshot, bio->sector), &new_chunk,
					 &request->version);
	if (bio->op == DMCORE_OP_WRITE)
		return map_write(own, bio, result, new_chunk);
	if (result == EXCEPTIONS_FOUND) {
		bio->bdev = own->cow_bdev;
		bio->sector = dmcore__snapshot_cow_sector(snapshot, new_chunk, bio->sector);
		return DMCORE_MAP_REMAPPED;
	}
	/* If it wasn't found for want of rest, it will be looked for again. */
	if (result == EXCEPTIONS_BUSY)
		request->version = UINT64_MAX;
	request->stage = SNAPSHOT_READ_ORIGIN;
	dmcore__request_keep(request, bio);
	bio->bdev = own->origin_bdev;
	return DMCORE_MAP_REMAPPED;
}

/* Something has changed while the origin was read. */
static enum dmcore_end_result look_again(const struct snapshot_target *own, struct dmcore_bio *bio,
					 int *status)
{
	struct snapshot *snapshot = own->snapshot;
	struct snapshot_request *request = dmcore_bio_target_data(bio);
	enum exceptions_result result;
	uint64_t new_chunk;

	result = dmcore__exceptions_find(snapshot->exceptions,
					 dmcore__snapshot_chunk(snapshot, request->sector),
					 &new_chunk, &request->version);
	if (!dmcore__snapshot_is_valid(snapshot)) {
		*status = -EIO;
		return DMCORE_END_DONE;
	}
	if (result == EXCEPTIONS_NONE)
		return DMCORE_END_DONE;
	bio->count = request->count;
	bio->vecs = request->vecs;
	bio->num_vecs = request->num_vecs;
	bio->vec_offset_bytes = request->vec_offset_bytes;
	bio->bdev = own->origin_bdev;
	bio->sector = request->sector;
	if (result == EXCEPTIONS_BUSY) {
		request->version = UINT64_MAX;
		return DMCORE_END_AGAIN;
	}
	request->stage = SNAPSHOT_PASS;
	bio->bdev = own->cow_bdev;
	bio->sector = dmcore__snapshot_cow_sector(snapshot, new_chunk, request->sector);
	return DMCORE_END_AGAIN;
}

static enum dmcore_end_result snapshot_end_io(struct dmcore_target *target, struct dmcore_bio *bio,
					      int *status)
{
	const struct snapshot_target *own = target->private_data;
	struct snapshot_request *request = dmcore_bio_target_data(bio);

	if (request->stage == SNAPSHOT_PASS ||
	    dmcore__likely(dmcore__exceptions_version(own->snapshot->exceptions) ==
			   request->version))
		return DMCORE_END_DONE;
	return look_again(own, bio, status);
}

static unsigned int snapshot_num_bios(const struct dmcore_target *target, enum dmcore_op op)
{
	const struct snapshot_target *own = target->private_data;

	if (op == DMCORE_OP_FLUSH)
		return 1;
	if (op != DMCORE_OP_DISCARD || !own->discard_zeroes)
		return 0;
	return own->discard_passdown ? 2 : 1;
}

/* ---- messages, status, limits ---- */

static int message_overflow(struct snapshot *snapshot, struct dmcore_args *args)
{
	static const char *const words[] = { "table", "invalidate", "fail", "hold" };
	const char *word = dmcore_args_next(args);

	for (unsigned int i = 0; word && i < DMCORE__ARRAY_SIZE(words); i++) {
		if (strcasecmp(word, words[i]) == 0) {
			dmcore__snapshot_set_overflow(snapshot, (enum snapshot_overflow)i);
			return 0;
		}
	}
	return dmcore_args_fail(args, -EINVAL,
				"overflow is one of: table, invalidate, fail, hold");
}

static int snapshot_message(struct dmcore_target *target, struct dmcore_args *args,
			    struct dmcore_text *reply)
{
	struct snapshot_target *own = target->private_data;
	struct snapshot *snapshot = own->snapshot;
	const char *word = dmcore_args_next(args);
	uint64_t sectors;
	int ret;

	(void)reply;
	if (strcasecmp(word, "overflow") == 0)
		return message_overflow(snapshot, args);
	if (strcasecmp(word, "low_water") == 0) {
		ret = dmcore_args_u64(args, 0, DMCORE_DEVICE_SECTORS_MAX,
				      "low_water takes a number of sectors", &sectors);
		if (ret)
			return ret;
		atomic_store(&snapshot->low_water_sectors, sectors);
		atomic_store(&snapshot->low_water_told, false);
		return 0;
	}
	if (strcasecmp(word, "grow") != 0)
		return dmcore_args_fail(args, -EINVAL,
					"messages are: overflow, low_water, grow");
	ret = dmcore_bdev_refresh(own->cow_bdev);
	if (ret)
		return dmcore_args_fail(args, ret, "the COW device can't be measured");
	dmcore__snapshot_grown(snapshot);
	return 0;
}

static void status_info(const struct snapshot_target *own, struct dmcore_text *text)
{
	struct snapshot *snapshot = own->snapshot;
	struct store *store = &snapshot->store;
	uint64_t allocated;
	uint64_t metadata = 0;

	if (atomic_load(&own->lost) || !atomic_load(&own->shown_chunk_sectors)) {
		dmcore_text_printf(text, "%s", atomic_load(&own->lost) ? "Invalid" : "Unknown");
		return;
	}
	if (!dmcore__snapshot_is_valid(snapshot)) {
		dmcore_text_printf(text, "Invalid");
	} else if (atomic_load(&snapshot->merge.failed)) {
		dmcore_text_printf(text, "Merge failed");
	} else if (atomic_load(&snapshot->overflowed)) {
		dmcore_text_printf(text, "Overflow");
	} else {
		allocated = atomic_load(&store->next_free) << store->chunk_shift;
		if (store->persistent)
			metadata = (atomic_load(&store->num_areas) + 1) << store->chunk_shift;
		dmcore_text_printf(text, "%" PRIu64 "/%" PRIu64 " %" PRIu64, allocated,
				   dmcore_bdev_size_sectors(own->cow_bdev), metadata);
	}
}

void dmcore__snapshot_status(struct dmcore_target *target, enum dmcore_text_kind kind,
			     struct dmcore_text *text)
{
	const struct snapshot_target *own = target->private_data;

	if (kind == DMCORE_TEXT_TABLE)
		dmcore__snapshot_table_text(own, text);
	else
		status_info(own, text);
}

int dmcore__snapshot_iterate_devices(struct dmcore_target *target, dmcore_iterate_fn fn,
				     void *context)
{
	const struct snapshot_target *own = target->private_data;
	int ret = fn(target, own->origin_bdev, 0, dmcore_target_len(target), context);

	return ret ? ret : fn(target, own->cow_bdev, 0, dmcore_bdev_size_sectors(own->cow_bdev),
			      context);
}

static void snapshot_io_hints(struct dmcore_target *target, struct dmcore_limits *limits)
{
	const struct snapshot_target *own = target->private_data;

	if (own->discard_zeroes)
		limits->discard_granularity_bytes =
			(uint32_t)dmcore__sectors_to_bytes(target->max_io_sectors);
}

void dmcore__snapshot_extent(struct dmcore_target *target, uint64_t sector,
			     struct dmcore_place *place)
{
	const struct snapshot_target *own = target->private_data;
	struct snapshot *snapshot = own->snapshot;
	uint64_t chunk = dmcore__snapshot_chunk(snapshot, sector);
	enum exceptions_result result;
	struct exceptions_run run;

	place->kind = DMCORE_EXTENT_DATA;
	if (!dmcore__snapshot_is_valid(snapshot) || atomic_load(&own->lost))
		return;
	result = dmcore__exceptions_next(snapshot->exceptions, chunk, &run);
	if (result == EXCEPTIONS_BUSY)
		return;
	place->bdev = own->origin_bdev;
	place->sector = sector;
	if (result == EXCEPTIONS_NONE)
		return;
	if (run.old_chunk == chunk) {
		place->bdev = own->cow_bdev;
		place->sector = dmcore__snapshot_cow_sector(snapshot, run.new_chunk, sector);
		run.old_chunk += run.count;
	}
	place->count = dmcore__min_u64(place->count,
				       (run.old_chunk << snapshot->chunk_shift) - sector);
}

extern const struct dmcore_target_type dmcore__target_snapshot;

const struct dmcore_target_type dmcore__target_snapshot = {
	.struct_size = sizeof(struct dmcore_target_type),
	.name = "snapshot",
	.version = { 1, 16, 0 },
	.per_bio_bytes = sizeof(struct snapshot_request),
	.ctr = snapshot_ctr,
	.dtr = dmcore__snapshot_leave,
	.map = snapshot_map,
	.end_io = snapshot_end_io,
	.num_bios = snapshot_num_bios,
	.presuspend = dmcore__snapshot_presuspend,
	.postsuspend = dmcore__snapshot_postsuspend,
	.preresume = dmcore__snapshot_preresume,
	.resume = dmcore__snapshot_resume,
	.message = snapshot_message,
	.status = dmcore__snapshot_status,
	.iterate_devices = dmcore__snapshot_iterate_devices,
	.io_hints = snapshot_io_hints,
	.extent = dmcore__snapshot_extent,
};
